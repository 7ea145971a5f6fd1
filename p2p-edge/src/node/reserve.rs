//! Staying reachable: places on relays, in different networks, and enough servers to choose from.
//!
//! libp2p renews a reservation while its connection lives and forgets it when the connection is
//! lost. The watchdog here brings lost ones back, on other supernodes where there are any.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::peers::{is_relayed, without_peer};
use super::task::Task;
use crate::routing::{Backoff, FIRST_REFRESH, LAST_REFRESH, LAST_REFRESH_OF_USERS, Vicinity};

/// A reservation that is not granted within so many times the time of a look-up is not waited for.
const RESERVE_TIMES: u32 = 2;
/// Circuit addresses of one relay that go into the location record.
const ADDRESSES_PER_RELAY: usize = 2;

struct Reservation {
    relay: PeerId,
    /// The network of the relay.
    vicinity: Option<Vicinity>,
    addresses: Vec<Multiaddr>,
    asked: Instant,
    /// Not granted in time: another relay is asked instead. The listener stays until libp2p gives it up, since an answer
    /// that comes to none makes it panic.
    late: bool,
}

/// A server that may be asked for a reservation.
struct Candidate {
    relay: PeerId,
    address: Multiaddr,
    vicinity: Option<Vicinity>,
    is_configured: bool,
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

    /// Returns in how many networks reservations are held.
    pub(super) fn vicinities(&self) -> usize {
        let held = self.listeners.values().filter(|r| !r.addresses.is_empty());
        held.filter_map(|r| r.vicinity).collect::<HashSet<_>>().len()
    }

    /// Returns the networks of all that are held or may still be granted in time.
    fn held_vicinities(&self) -> Vec<Option<Vicinity>> {
        self.listeners.values().filter(|r| !r.late).map(|r| r.vicinity).collect()
    }

    fn has(&self, relay: &PeerId) -> bool {
        self.listeners.values().any(|r| r.relay == *relay)
    }
}

impl Task {
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
            self.refresh.attempt_up_to(now, FIRST_REFRESH, LAST_REFRESH_OF_USERS);
            kad.get_closest_peers(self.me);
        }
    }

    /// A server is connected: waits for it start anew.
    pub(super) fn reset_backoff(&mut self, peer: &PeerId, now: Instant) {
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
        let candidates = self.relay_candidates(now);
        self.give_way_to_others(&candidates);
        let mut left = candidates;
        while self.reservations.hopeful() < self.limits.own_reservations {
            let Some(at) = next_relay(&self.reservations.held_vicinities(), &left) else { break };
            let Candidate { relay, address, vicinity, .. } = left.swap_remove(at);
            let backoff = self.reservations.backoffs.entry(relay).or_insert_with(|| Backoff::new(now));
            backoff.attempt(now, self.limits.timers.retry);
            let through = without_peer(&address).with(Protocol::P2p(relay)).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(through) {
                Ok(id) => {
                    let reservation =
                        Reservation { relay, vicinity, addresses: Vec::new(), asked: now, late: false };
                    self.reservations.listeners.insert(id, reservation);
                }
                Err(error) => tracing::debug!(%relay, %error, "no reservation asked for"),
            }
        }
    }

    /// Returns the servers that may be asked for a reservation now.
    fn relay_candidates(&self, now: Instant) -> Vec<Candidate> {
        let is_free = |relay: &PeerId| {
            !self.reservations.has(relay)
                && self.reservations.backoffs.get(relay).is_none_or(|backoff| backoff.is_due(now))
        };
        let candidate = |(relay, address, ip): (PeerId, Multiaddr, Option<IpAddr>)| Candidate {
            relay,
            address,
            vicinity: ip.map(Vicinity::of),
            is_configured: self.joining.plan.is_configured(&relay),
        };
        self.peers
            .relay_candidates()
            .into_iter()
            .filter(|(relay, ..)| is_free(relay))
            .map(candidate)
            .collect()
    }

    /// Gives up the newest reservation where all are in one network and a relay of another is there:
    /// what fails together must not be everything.
    fn give_way_to_others(&mut self, candidates: &[Candidate]) {
        let held = self.reservations.held_vicinities();
        let full = self.reservations.listeners.len() >= self.limits.own_reservations.max(2);
        let narrow = held.iter().flatten().collect::<HashSet<_>>().len() == 1;
        let other = candidates.iter().any(|one| one.vicinity.is_some() && !held.contains(&one.vicinity));
        if !(full && narrow && other && self.reservations.settled()) {
            return;
        }
        let newest = self.reservations.listeners.iter().max_by_key(|(_, reservation)| reservation.asked);
        if let Some(id) = newest.map(|(id, _)| *id) {
            self.swarm.remove_listener(id);
            self.forget_reservation(id);
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

/// Returns which candidate is asked next: one of a network in which nothing is held, if there is any;
/// of these one of the configuration, and of these any, but always the same.
fn next_relay(held: &[Option<Vicinity>], candidates: &[Candidate]) -> Option<usize> {
    let rank = |one: &Candidate| {
        let is_other = one.vicinity.is_some() && !held.contains(&one.vicinity);
        (!is_other, !one.is_configured, one.relay.to_bytes())
    };
    candidates.iter().enumerate().min_by_key(|(_, one)| rank(one)).map(|(at, _)| at)
}

/// Orders transports by how surely a caller gets through: TCP, then WebSocket, which proxies and
/// browsers take too, then QUIC, which is lost where UDP is blocked.
fn transport_rank(address: &Multiaddr) -> u8 {
    let mut rank = 0;
    for part in address.iter() {
        match part {
            Protocol::P2pCircuit => break,
            Protocol::Ws(_) | Protocol::Wss(_) => rank = 1,
            Protocol::Quic | Protocol::QuicV1 => rank = 2,
            _ => {}
        }
    }
    rank
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn candidate(ip: Option<&str>, is_configured: bool) -> Candidate {
        let vicinity = ip.map(|ip| Vicinity::of(ip.parse().unwrap()));
        Candidate { relay: PeerId::random(), address: Multiaddr::empty(), vicinity, is_configured }
    }

    /// The networks that a user takes from candidates, in turn.
    fn taken(mut candidates: Vec<Candidate>, wanted: usize) -> Vec<Option<Vicinity>> {
        let mut held = Vec::new();
        while held.len() < wanted
            && let Some(at) = next_relay(&held, &candidates)
        {
            held.push(candidates.swap_remove(at).vicinity);
        }
        held
    }

    #[test]
    fn relays_are_taken_in_different_networks_while_there_are_any() {
        for _ in 0..50 {
            let mut candidates: Vec<_> =
                (1..=20).map(|n| candidate(Some(&format!("192.0.{n}.1")), true)).collect();
            candidates
                .extend([candidate(Some("198.51.100.1"), false), candidate(Some("2001:db8::1"), false)]);
            candidates.push(candidate(None, true));
            let networks = taken(candidates, 3);
            let known: HashSet<_> = networks.iter().flatten().collect();
            assert_eq!((networks.len(), known.len()), (3, 3), "{networks:?}");
        }
        let of_one = (1..=5).map(|n| candidate(Some(&format!("192.0.2.{n}")), false)).collect();
        assert_eq!(taken(of_one, 3).len(), 3, "one network is better than none");
        let configured = vec![candidate(Some("192.0.2.1"), false), candidate(Some("198.51.100.1"), true)];
        assert_eq!(taken(configured, 1), [Some(Vicinity::V4([198, 51]))]);
    }

    #[test]
    fn what_gets_through_most_walls_is_told_first() {
        let relay = PeerId::random();
        let address = |transport: &str| -> Multiaddr {
            format!("/ip4/192.0.2.1/{transport}/p2p/{relay}/p2p-circuit").parse().unwrap()
        };
        let mut all = ["udp/1/quic-v1", "tcp/2/ws", "tcp/1"].map(address);
        all.sort_by_key(transport_rank);
        assert_eq!(all, ["tcp/1", "tcp/2/ws", "udp/1/quic-v1"].map(address));
    }
}
