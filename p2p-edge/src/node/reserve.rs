//! Staying reachable: connections to bootstrap nodes and places on relays.
//!
//! libp2p renews a reservation while its connection lives and forgets it when the connection is
//! lost. The watchdog here brings lost ones back, on other supernodes where there are any.

use std::collections::HashMap;
use std::time::Instant;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};

use super::peers::{is_relayed, without_peer};
use super::task::Task;
use crate::routing::{Backoff, FIRST_REFRESH, LAST_REFRESH, LAST_USER_REFRESH, WANTED_BY_SERVERS};

/// A reservation that is not granted within so many times the time of a look-up is not waited for.
const RESERVE_TIMES: u32 = 2;
/// Circuit addresses of one relay that go into the location record.
const ADDRESSES_PER_RELAY: usize = 2;

/// A node that is always worth a connection.
pub(super) struct BootstrapNode {
    pub(super) peer: PeerId,
    address: Multiaddr,
    backoff: Backoff,
}

impl BootstrapNode {
    /// Takes an address that ends in `/p2p/<peer>`.
    pub(super) fn new(address: &Multiaddr, now: Instant) -> Option<Self> {
        let Some(Protocol::P2p(peer)) = address.iter().last() else { return None };
        Some(Self { peer, address: without_peer(address), backoff: Backoff::new(now) })
    }
}

struct Reservation {
    relay: PeerId,
    addresses: Vec<Multiaddr>,
    asked: Instant,
    /// Not granted in time: another relay is asked instead. The listener stays until libp2p gives it up, since an answer
    /// that comes to none makes it panic.
    late: bool,
}

/// The reservations of a user, and who is asked again when.
#[derive(Default)]
pub(super) struct Reservations {
    listeners: HashMap<ListenerId, Reservation>,
    backoffs: HashMap<PeerId, Backoff>,
}

impl Reservations {
    /// Returns how many reservations are held.
    pub(super) fn held(&self) -> usize {
        self.listeners.values().filter(|r| !r.addresses.is_empty()).count()
    }

    /// Returns the circuit addresses under which this node is reached, in a stable order.
    pub(super) fn addresses(&self) -> Vec<Multiaddr> {
        let mut held: Vec<_> = self.listeners.values().filter(|r| !r.addresses.is_empty()).collect();
        held.sort_by_key(|r| r.asked);
        held.iter().flat_map(|r| r.addresses.iter().take(ADDRESSES_PER_RELAY).cloned()).collect()
    }

    /// Says whether every reservation that was asked for has been decided.
    pub(super) fn settled(&self) -> bool {
        self.listeners.values().all(|r| r.late || !r.addresses.is_empty())
    }

    /// How many are held, or may still be granted in time.
    fn hopeful(&self) -> usize {
        self.listeners.values().filter(|r| !r.late).count()
    }

    fn has(&self, relay: &PeerId) -> bool {
        self.listeners.values().any(|r| r.relay == *relay)
    }
}

impl Task {
    /// Dials bootstrap nodes that are not connected, each with its own back-off. While nothing at
    /// all is connected, servers known from before are tried too.
    pub(super) fn dial_bootstrap(&mut self, now: Instant) {
        let first = self.limits.timers.retry;
        let connected = self.peers.servers().count();
        let isolated = connected == 0;
        let wanted =
            if self.role.is_server() { WANTED_BY_SERVERS } else { self.limits.own_reservations.max(3) };
        let mut dials = Vec::new();
        for node in &mut self.bootstrap {
            if connected + dials.len() >= wanted {
                break;
            }
            if node.peer != self.me && !self.swarm.is_connected(&node.peer) && node.backoff.is_due(now) {
                node.backoff.attempt(now, first);
                dials.push((node.peer, vec![node.address.clone()]));
            }
        }
        if isolated && self.rejoin.is_due(now) {
            self.rejoin.attempt(now, first * 4);
            dials.extend(self.peers.known_servers(8));
        }
        for (peer, addresses) in dials {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .build();
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%peer, %error, "bootstrap node not dialled");
            }
        }
    }

    /// Looks for more servers: often while few are known, seldom later. A server fills every part of its routing table.
    /// A user, to whom nobody's look-ups lead, meets enough servers on one search, and a search of all parts would be
    /// most of what it costs.
    pub(super) fn refresh_routes(&mut self, now: Instant) {
        if !self.refresh.is_due(now) || self.peers.servers().next().is_none() {
            return;
        }
        let kad = &mut self.swarm.behaviour_mut().kad;
        if self.role.is_server() {
            self.refresh.attempt_up_to(now, FIRST_REFRESH, LAST_REFRESH);
            // Errs while the table is empty, which the diversity rule may cause.
            let _ = kad.bootstrap();
        } else {
            self.refresh.attempt_up_to(now, FIRST_REFRESH, LAST_USER_REFRESH);
            kad.get_closest_peers(self.me);
        }
    }

    /// A bootstrap node or known server is connected again: its waits start anew.
    pub(super) fn reset_backoff(&mut self, peer: &PeerId, now: Instant) {
        if let Some(node) = self.bootstrap.iter_mut().find(|node| node.peer == *peer) {
            node.backoff = Backoff::new(now);
        }
        self.rejoin = Backoff::new(now);
        self.reservations.backoffs.remove(peer);
    }

    /// Asks for reservations until the user holds as many as it wants.
    pub(super) fn watch_reservations(&mut self, now: Instant) {
        if self.role.is_server() {
            return;
        }
        let patience = self.limits.timers.lookup * RESERVE_TIMES;
        for reservation in self.reservations.listeners.values_mut() {
            reservation.late = reservation.addresses.is_empty() && now > reservation.asked + patience;
        }
        let preferred: Vec<PeerId> = self.bootstrap.iter().map(|node| node.peer).collect();
        let mut candidates: Vec<(PeerId, Multiaddr)> = self.peers.relay_candidates();
        candidates.sort_by_key(|(peer, _)| (!preferred.contains(peer), peer.to_bytes()));
        for (relay, address) in candidates {
            if self.reservations.hopeful() >= self.limits.own_reservations {
                break;
            }
            if self.reservations.has(&relay) {
                continue;
            }
            let backoff = self.reservations.backoffs.entry(relay).or_insert_with(|| Backoff::new(now));
            if !backoff.is_due(now) {
                continue;
            }
            backoff.attempt(now, self.limits.timers.retry);
            let through = without_peer(&address).with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(through) {
                Ok(id) => {
                    let reservation = Reservation { relay, addresses: Vec::new(), asked: now, late: false };
                    self.reservations.listeners.insert(id, reservation);
                }
                Err(error) => tracing::debug!(%relay, %error, "no reservation asked for"),
            }
        }
    }

    /// A listener has an address: a reservation was granted where it is one of a relay.
    pub(super) fn on_listening(&mut self, listener: ListenerId, address: &Multiaddr, now: Instant) {
        if let Some(reservation) = self.reservations.listeners.get_mut(&listener) {
            if !reservation.addresses.contains(address) {
                reservation.addresses.push(address.clone());
                reservation.addresses.sort_by_key(transport_rank);
            }
            reservation.late = false;
            let relay = reservation.relay;
            self.reservations.backoffs.remove(&relay);
            self.swarm.behaviour_mut().calls.keep_warm(relay, true);
            self.location_changed(now);
        } else if !is_relayed(address) {
            self.listening.push((listener, address.clone()));
            if self.role.is_server() && self.external.is_empty() && self.is_announced(address) {
                self.swarm.add_external_address(address.clone());
            }
            self.location_changed(now);
        }
    }

    /// A reservation is gone: nothing keeps the connection to its relay any more.
    fn forget_reservation(&mut self, listener: ListenerId) {
        if let Some(Reservation { relay, .. }) = self.reservations.listeners.remove(&listener)
            && !self.reservations.has(&relay)
        {
            self.swarm.behaviour_mut().calls.keep_warm(relay, false);
        }
    }

    /// A listener has lost addresses, or is gone.
    pub(super) fn on_unlistening(&mut self, listener: ListenerId, address: Option<&Multiaddr>, now: Instant) {
        if let Some(reservation) = self.reservations.listeners.get_mut(&listener) {
            match address {
                Some(address) => reservation.addresses.retain(|known| known != address),
                None => self.forget_reservation(listener),
            }
            self.location_changed(now);
            self.watch_reservations(now);
            return;
        }
        let (gone, kept) = std::mem::take(&mut self.listening)
            .into_iter()
            .partition(|(id, known)| *id == listener && address.is_none_or(|address| address == known));
        self.listening = kept;
        let gone: Vec<(ListenerId, Multiaddr)> = gone;
        for (_, address) in &gone {
            if self.external.is_empty() {
                self.swarm.remove_external_address(address);
            }
        }
        if !gone.is_empty() {
            self.location_changed(now);
        }
    }
}

/// Orders transports by how surely a caller gets through: TCP, then QUIC, then WebSocket.
fn transport_rank(address: &Multiaddr) -> u8 {
    let mut rank = 0;
    for part in address.iter() {
        match part {
            Protocol::P2pCircuit => break,
            Protocol::Quic | Protocol::QuicV1 => rank = 1,
            Protocol::Ws(_) | Protocol::Wss(_) => rank = 2,
            _ => {}
        }
    }
    rank
}
