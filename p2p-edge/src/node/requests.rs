//! What others ask of this node: its credential, revocation lists, offers, and room for records.

use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, ProviderRecord};
use libp2p::request_response::{Event, Message};

use super::Refusal;
use super::task::Task;
use super::wire::{self, OfferRequest, OfferResponse};
use crate::identity::IdentityError;
use crate::record::{RecordError, RecordKey, Source};

/// Provider records of peers whose certificate is still to come.
const MAX_PENDING_PROVIDERS: usize = 1024;
/// Of these, from one peer: a certificate holds at most 32 prefixes.
const MAX_PENDING_PER_PEER: usize = 32;

/// An event of one of the request protocols.
pub(super) type Exchange = Event<Vec<u8>, Vec<u8>>;

impl Task {
    pub(super) fn on_identity(&mut self, now: Instant, event: Exchange) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.on_hello(now, peer, &request);
                let hello = self.hello();
                // Errs when the far end is gone.
                let _ = self.swarm.behaviour_mut().identity.send_response(channel, hello);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.on_hello_answer(now, request_id, Some(&response));
            }
            Event::OutboundFailure { request_id, .. } => self.on_hello_answer(now, request_id, None),
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_revocations(&mut self, now: Instant, event: Exchange) {
        match event {
            Event::Message { message: Message::Request { request, channel, .. }, .. } => {
                let list = self.list_for(&request);
                let _ = self.swarm.behaviour_mut().revocations.send_response(channel, list);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.on_list(now, request_id, Some(&response));
            }
            Event::OutboundFailure { request_id, .. } => self.on_list(now, request_id, None),
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_lookups(&mut self, now: Instant, event: Exchange) {
        match event {
            Event::Message { peer, connection_id, message: Message::Request { request, channel, .. } } => {
                self.serve_lookup(now, (peer, connection_id), &request, channel)
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.on_lookup_answer(now, peer, request_id, Some(&response));
            }
            Event::OutboundFailure { peer, request_id, .. } => {
                self.on_lookup_answer(now, peer, request_id, None);
            }
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    pub(super) fn on_publish(&mut self, now: Instant, event: Exchange) {
        // This node runs the DHT itself, so that it never asks another.
        if let Event::Message { peer, connection_id, message: Message::Request { request, channel, .. } } =
            event
        {
            self.serve_publish(now, (peer, connection_id), &request, channel);
        }
    }

    pub(super) fn on_offers(&mut self, now: Instant, event: Exchange) {
        match event {
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let Some(request) = wire::decode::<OfferRequest>(&request) else {
                    self.offended(&peer, Refusal::MessageMalformed);
                    return;
                };
                let response = wire::encode(&OfferResponse { offers: self.own_offers(&request.digits) });
                let _ = self.swarm.behaviour_mut().offer.send_response(channel, response);
            }
            Event::Message { peer, message: Message::Response { request_id, response }, .. } => {
                self.on_offer_answer(now, request_id, peer, Some(&response));
            }
            Event::OutboundFailure { peer, request_id, .. } => {
                self.on_offer_answer(now, request_id, peer, None);
            }
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    /// Takes what peers ask of the DHT on this node.
    pub(super) fn on_kad_request(&mut self, request: kad::InboundRequest) {
        match request {
            kad::InboundRequest::PutRecord { source, connection, record: Some(record) } => {
                let address = self.peers.remote_ip(&source, connection);
                let peer = source;
                let source = Source::Remote { peer, address };
                let store = self.swarm.behaviour_mut().kad.store_mut();
                if let Err(error) = store.put_from(record.key.as_ref(), record.value, source) {
                    let reason = refusal_of(&error);
                    if is_provable(&error) {
                        self.offended(&peer, reason);
                    } else {
                        self.refusals.add(reason);
                    }
                    tracing::debug!(reason = error.as_str(), "record refused");
                }
            }
            kad::InboundRequest::AddProvider { record: Some(record) } => self.add_provider(record),
            _ => {}
        }
    }

    /// Takes a provider record of a certified gateway whose certificate permits the prefix.
    fn add_provider(&mut self, record: ProviderRecord) {
        let peer = record.provider;
        let prefix = match RecordKey::parse(record.key.as_ref()) {
            Ok(RecordKey::Gateway(prefix)) => prefix,
            _ => {
                self.offended(&peer, Refusal::RecordInvalid);
                return;
            }
        };
        if self.peers.is_undecided(&peer) {
            // Its certificate is on the way: both come right after the connection is up.
            let of_peer = self.pending_providers.iter().filter(|(from, _)| *from == peer).count();
            if self.pending_providers.len() < MAX_PENDING_PROVIDERS && of_peer < MAX_PENDING_PER_PEER {
                self.pending_providers.push((peer, record));
            } else {
                self.refusals.add(Refusal::ProviderQuota);
            }
        } else if !self.may_provide(&peer, &prefix) {
            self.offended(&peer, Refusal::ProviderUncertified);
        } else if self.swarm.behaviour_mut().kad.store_mut().add_provider(record).is_err() {
            self.refusals.add(Refusal::ProviderQuota);
        }
    }

    /// The credential of a peer was verified or refused: its provider records are decided now.
    pub(super) fn accept_pending_providers(&mut self, peer: &PeerId) {
        let (decided, waiting) =
            std::mem::take(&mut self.pending_providers).into_iter().partition(|(from, _)| from == peer);
        self.pending_providers = waiting;
        let decided: Vec<(PeerId, ProviderRecord)> = decided;
        for (_, record) in decided {
            self.add_provider(record);
        }
    }
}

/// Returns what a refused record is counted as.
pub(super) fn refusal_of(error: &RecordError) -> Refusal {
    match error {
        RecordError::StaleSequence { .. } | RecordError::Conflict { .. } => Refusal::RecordNotNewer,
        RecordError::PublisherQuota
        | RecordError::PeerQuota
        | RecordError::AddressQuota
        | RecordError::StoreFull => Refusal::RecordQuota,
        _ => Refusal::RecordInvalid,
    }
}

/// Says whether a record was refused for what it is. A clock, a full store, a revocation that has
/// not reached everybody, or a newer record that came first are nobody's fault.
pub(super) fn is_provable(error: &RecordError) -> bool {
    match error {
        RecordError::Identity(error) => {
            matches!(error, IdentityError::BadSignature { .. } | IdentityError::Malformed { .. })
        }
        RecordError::BadKey
        | RecordError::Malformed
        | RecordError::Oversize { .. }
        | RecordError::WrongSlot
        | RecordError::BadSignature
        | RecordError::UnknownDevice
        | RecordError::NotPermitted { .. }
        | RecordError::NotCallable { .. }
        | RecordError::PriceAboveCeiling { .. }
        | RecordError::NotStorable => true,
        RecordError::Expired { .. }
        | RecordError::TooFarAhead { .. }
        | RecordError::SequenceAhead { .. }
        | RecordError::StaleSequence { .. }
        | RecordError::Conflict { .. }
        | RecordError::PublisherQuota
        | RecordError::PeerQuota
        | RecordError::AddressQuota
        | RecordError::StoreFull => false,
    }
}
