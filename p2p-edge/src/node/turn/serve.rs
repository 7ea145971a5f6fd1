//! Handing out credentials for the TURN server of this node: `/causeway/turn/1`.

use std::time::Instant;

use libp2p::PeerId;
use libp2p::request_response::{Event, Message, ResponseChannel};
use libp2p::swarm::ConnectionId;
use minicbor::{Decode, Encode};

use super::{IceEndpoint, IceTransport, TurnServer};
use crate::node::Refusal;
use crate::node::requests::Exchange;
use crate::node::task::Task;
use crate::node::wire;

/// Addresses in one answer.
pub(super) const MAX_ENDPOINTS: usize = 16;

/// Asks for a credential: an empty map, whose keys are for later.
#[derive(Encode, Decode, Debug, Default)]
#[cbor(map)]
pub(super) struct TurnRequest {}

/// A credential and where it is good, or why there is none.
#[derive(Encode, Decode, Debug, Default, PartialEq, Eq)]
#[cbor(map)]
pub(super) struct TurnResponse {
    #[n(0)]
    pub(super) username: String,
    #[n(1)]
    pub(super) password: String,
    /// In Unix seconds.
    #[n(2)]
    pub(super) expires: u64,
    /// At most [`MAX_ENDPOINTS`].
    #[n(3)]
    pub(super) endpoints: Vec<WireEndpoint>,
    /// Why it was refused: nothing else counts then.
    #[n(4)]
    pub(super) refused: Option<String>,
}

/// One address of the server.
#[derive(Encode, Decode, Debug, PartialEq, Eq)]
#[cbor(map)]
pub(super) struct WireEndpoint {
    /// 0 for UDP, 1 for TCP, 2 for TLS.
    #[n(0)]
    pub(super) transport: u8,
    /// Address and port, `192.0.2.1:3478` or `[2001:db8::1]:3478`.
    #[n(1)]
    pub(super) address: String,
    /// The name in the certificate, for TLS.
    #[n(2)]
    pub(super) name: Option<String>,
}

impl WireEndpoint {
    fn of(endpoint: &IceEndpoint) -> Self {
        let transport = match endpoint.transport {
            IceTransport::Udp => 0,
            IceTransport::Tcp => 1,
            IceTransport::Tls => 2,
        };
        Self { transport, address: endpoint.address.to_string(), name: endpoint.name.clone() }
    }
}

impl TurnServer {
    fn grant(&self, peer: &PeerId, standing: &crate::identity::Standing, unix: u64) -> TurnResponse {
        let expires = (unix + self.lifetime.as_secs()).min(standing.not_after());
        let (username, password) = self.secret.issue(peer, standing, expires);
        TurnResponse {
            username,
            password: password.expose().to_owned(),
            expires,
            endpoints: self.endpoints.iter().take(MAX_ENDPOINTS).map(WireEndpoint::of).collect(),
            refused: None,
        }
    }
}

impl Task {
    pub(in crate::node) fn on_turn(&mut self, now: Instant, event: Exchange) {
        match event {
            Event::Message { peer, connection_id, message: Message::Request { request, channel, .. } } => {
                self.serve_turn(now, (peer, connection_id), &request, channel);
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                self.on_ice_answer(now, request_id, Some(&response));
            }
            Event::OutboundFailure { request_id, .. } => self.on_ice_answer(now, request_id, None),
            Event::InboundFailure { .. } | Event::ResponseSent { .. } => {}
        }
    }

    /// A peer that has proved itself gets a credential for the relay of this node.
    fn serve_turn(
        &mut self,
        now: Instant,
        (peer, connection): (PeerId, ConnectionId),
        request: &[u8],
        channel: ResponseChannel<Vec<u8>>,
    ) {
        if wire::decode::<TurnRequest>(request).is_none() {
            self.offended(&peer, Refusal::MessageMalformed);
            return;
        }
        let address = self.peers.remote_ip(&peer, connection);
        let refused = |reason: &str| TurnResponse { refused: Some(reason.to_owned()), ..Default::default() };
        let response = if !self.turn_rates.take(now, peer, address, 1) {
            self.refusals.add(Refusal::TurnRate);
            refused("rate")
        } else {
            let unix = self.unix();
            let party = self.peers.proven(&peer).map(|(party, _)| party.standing().clone());
            match (&self.turn, party) {
                (Some(turn), Some(standing)) if self.admitted.contains(&peer) => {
                    turn.grant(&peer, &standing, unix)
                }
                (None, _) => refused("none"),
                _ => {
                    self.refusals.add(Refusal::TurnUnproven);
                    refused("unproven")
                }
            }
        };
        // Errs when the far end is gone.
        let _ = self.swarm.behaviour_mut().turn.send_response(channel, wire::encode(&response));
    }
}
