//! What the task says of the state of its node.

use std::time::Instant;

use libp2p::multiaddr::Protocol;

use super::super::EVENT_QUEUE;
use super::super::calls::Call;
use super::super::health::HealthStatus;
use super::super::peers::without_peer;
use super::super::status::NodeStatus;
use super::super::turn::TurnServer;
use super::Task;

impl Task {
    /// Returns the state of the node at this moment.
    pub(super) fn status(&mut self, now: Instant) -> NodeStatus {
        let (peers, peers_relayed) = self.peers.counts();
        let me = self.me;
        let direct = self.direct_addresses().into_iter();
        let announced =
            direct.map(|address| without_peer(&address).with(Protocol::P2p(me)).to_string()).collect();
        let kad = &mut self.swarm.behaviour_mut().kad;
        let routing_table = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
        let (records, providers) = kad.store_mut().counts();
        let (published, unpublished) = self.publisher.counts(now);
        let health = HealthStatus {
            reservation_networks: self.reservations.vicinities(),
            good_peers: self.joining.good.len(),
            ways: self.joining.report(now),
            ..self.health.status(now, self.is_alone())
        };
        NodeStatus {
            peer_id: self.me.to_string(),
            online: self.online,
            listening: self.swarm.listeners().map(ToString::to_string).collect(),
            announced,
            peers,
            peers_relayed,
            certified: self.peers.servers().map(|(peer, _)| peer.to_string()).collect(),
            known_servers: self.joining.best_addresses(),
            health,
            routing_table,
            reservations_held: self.reservations.held(),
            reservations_served: self.reservations_served.len(),
            circuits_served: self.circuits_served,
            dht_requests: self.dht_requests,
            servers_asked: self.servers_asked,
            records,
            providers,
            published,
            unpublished,
            puts_lost: self.publisher.lost,
            certificate_ends: self.party.standing().not_after(),
            lists_fetched: self.lists.fetched,
            list_changes_fetched: self.lists.changes_fetched,
            calls: self.calls.table.values().filter(|call| is_live(call)).count(),
            lookups: self.lookups.len(),
            lookups_served: self.lookups_served,
            published_for_clients: self.published_for_clients,
            presence: self.presence.status(),
            turn: self.turn.as_ref().map(TurnServer::status),
            commands_queued: self.requests.len(),
            events_queued: EVENT_QUEUE - self.events.capacity() + self.outbox.len(),
            events_delayed: self.events_delayed,
            refused: self.refusals.list(),
        }
    }
}

/// Says whether a call has not ended: ended ones stay until their last frame is acknowledged.
fn is_live(call: &Call) -> bool {
    match call {
        Call::Outgoing(outgoing) => !outgoing.hunt.has_ended(),
        Call::Incoming(incoming) => !incoming.session.has_ended(),
    }
}
