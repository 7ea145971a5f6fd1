//! What this node answers to others: its credential, revocation lists, look-ups and offers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::kad::store::RecordStore;
use libp2p::kad::{self, ProviderRecord, RecordKey as Key};
use libp2p::request_response::{Event, Message, ResponseChannel};
use libp2p::{Multiaddr, PeerId};

use super::Refusal;
use super::lookup::Purpose;
use super::task::{Task, Timer};
use super::wire::{
    self, Answer, Blob, LookupRequest, LookupResponse, MAX_ANSWERS, MAX_KEY, MAX_KEYS, OfferRequest,
    OfferResponse, Provider,
};
use crate::record::{RecordError, RecordKey, Source};

/// A client gets what was found by then.
const SERVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Provider records of peers whose certificate is still to come.
const MAX_PENDING_PROVIDERS: usize = 1024;
/// Of these, from one peer: a certificate holds at most 32 prefixes.
const MAX_PENDING_PER_PEER: usize = 32;

/// Names one look-up that a client has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ServeId(u64);

/// The look-ups of clients that wait for the DHT.
#[derive(Default)]
pub(super) struct Served {
    table: HashMap<ServeId, Serving>,
    next: u64,
}

struct Serving {
    channel: ResponseChannel<Vec<u8>>,
    answers: Vec<Answer>,
    waiting: usize,
}

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
                let held = self.revocations.lists().find(|list| list.issuer().to_bytes()[..] == request[..]);
                let list = held.map(|list| list.encode()).unwrap_or_default();
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
            Event::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                self.serve_lookup(now, &peer, &request, channel);
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

    /// Answers a look-up from the own store at once, or asks the DHT for what is missing there.
    fn serve_lookup(
        &mut self,
        now: Instant,
        peer: &PeerId,
        request: &[u8],
        channel: ResponseChannel<Vec<u8>>,
    ) {
        let request = wire::decode::<LookupRequest>(request)
            .filter(|r| r.keys.len() <= MAX_KEYS && r.keys.iter().all(|Blob(key)| key.len() <= MAX_KEY));
        let Some(request) = request else {
            self.offended(peer, Refusal::MessageMalformed);
            return;
        };
        let store = self.swarm.behaviour_mut().kad.store_mut();
        let mut answers: Vec<Answer> = Vec::with_capacity(request.keys.len());
        let mut missing = Vec::new();
        for (at, Blob(key)) in request.keys.iter().enumerate() {
            let records = store.value(key).map(|value| Blob(value.to_vec())).into_iter().collect();
            let providers = store.providers(&Key::new(key)).into_iter().take(MAX_ANSWERS);
            let answer = Answer { records, providers: providers.map(provider).collect() };
            if answer.records.is_empty()
                && answer.providers.is_empty()
                && let Ok(key) = RecordKey::parse(key)
            {
                missing.push((at, key));
            }
            answers.push(answer);
        }
        // A provider of its own is not in the table with its addresses.
        self.add_own_addresses(&mut answers);
        let room = self.served.table.len() < self.limits.lookups;
        if !request.local_only && !missing.is_empty() && !room {
            self.refusals.add(Refusal::LookupOverload);
        }
        if request.local_only || missing.is_empty() || !room {
            let response = wire::encode(&LookupResponse { answers });
            let _ = self.swarm.behaviour_mut().lookup.send_response(channel, response);
            return;
        }
        let id = ServeId(self.served.next);
        self.served.next += 1;
        self.served.table.insert(id, Serving { channel, answers, waiting: missing.len() });
        self.timers.set(Timer::Serve(id), Some(now + SERVE_TIMEOUT));
        for (at, key) in missing {
            match key {
                RecordKey::Gateway(_) => {
                    self.look_up_providers(now, vec![key], Purpose::Serve(id, at));
                }
                _ => self.look_up(now, key, Purpose::Serve(id, at)),
            }
        }
    }

    /// One key of a client's look-up is done.
    pub(super) fn on_served_key(
        &mut self,
        id: ServeId,
        at: usize,
        value: Option<Vec<u8>>,
        providers: Vec<(PeerId, Vec<Multiaddr>)>,
    ) {
        let Some(serving) = self.served.table.get_mut(&id) else { return };
        if let Some(answer) = serving.answers.get_mut(at) {
            answer.records = value.map(Blob).into_iter().collect();
            let with_addresses = |(peer, addresses): (PeerId, Vec<Multiaddr>)| Provider {
                peer: peer.to_bytes(),
                addresses: addresses.iter().map(ToString::to_string).collect(),
            };
            answer.providers = providers.into_iter().take(MAX_ANSWERS).map(with_addresses).collect();
        }
        serving.waiting = serving.waiting.saturating_sub(1);
        if serving.waiting == 0 {
            self.finish_serving(id);
        }
    }

    /// Sends a client what was found for it.
    pub(super) fn finish_serving(&mut self, id: ServeId) {
        self.timers.set(Timer::Serve(id), None);
        if let Some(serving) = self.served.table.remove(&id) {
            let response = wire::encode(&LookupResponse { answers: serving.answers });
            let _ = self.swarm.behaviour_mut().lookup.send_response(serving.channel, response);
        }
    }

    fn add_own_addresses(&self, answers: &mut [Answer]) {
        let me = self.me.to_bytes();
        for provider in answers.iter_mut().flat_map(|answer| &mut answer.providers) {
            if provider.peer == me {
                provider.addresses = self.direct_addresses().iter().map(ToString::to_string).collect();
            }
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
                    let reason = match error {
                        RecordError::StaleSequence { .. } | RecordError::Conflict { .. } => {
                            Refusal::RecordNotNewer
                        }
                        RecordError::PublisherQuota
                        | RecordError::PeerQuota
                        | RecordError::AddressQuota
                        | RecordError::StoreFull => Refusal::RecordQuota,
                        _ => Refusal::RecordInvalid,
                    };
                    self.offended(&peer, reason);
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

fn provider(record: ProviderRecord) -> Provider {
    let addresses = record.addresses.iter().take(MAX_ANSWERS).map(ToString::to_string).collect();
    Provider { peer: record.provider.to_bytes(), addresses }
}
