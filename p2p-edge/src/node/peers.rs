//! Who is connected, who has proved what, and who may enter the routing table.
//!
//! Right after a connection is up its dialler sends its credential and gets the other's back. Only
//! a peer whose chain verifies, for the very key of the connection, counts as a server: it may be
//! routed to, relay, store and offer.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::core::ConnectedPoint;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::{ConnectionId, DialError};
use libp2p::{Multiaddr, PeerId, identify};

use super::Refusal;
use super::task::Task;
use super::wire::{self, Hello, ListVersion};
use crate::identity::{
    Credential, IdentityError, MAX_LISTS, Role, SignedRevocations, VerifiedNode, VerifiedParty,
};
use crate::routing::{Backoff, MAX_WARM, Network, Vicinity, has_room};

/// Addresses kept per peer.
const MAX_ADDRESSES: usize = 8;
/// Broken rules after which a peer is disconnected.
const MAX_OFFENCES: u32 = 64;
/// One broken rule is forgiven in this time.
const FORGIVEN_EVERY: Duration = Duration::from_secs(10);
/// While no more servers than this are connected, each new one is asked for others at once.
const FEW_SERVERS: usize = 4;

/// The peers of a node.
#[derive(Default)]
pub(super) struct Peers {
    table: HashMap<PeerId, Peer>,
    hellos: HashMap<OutboundRequestId, PeerId>,
}

struct Peer {
    connections: Vec<Connection>,
    proven: Option<Proven>,
    asked: bool,
    /// Whether the peer's credential was verified or refused.
    decided: bool,
    /// How often the peer has broken the rules lately.
    offences: Offences,
    identified: Vec<Multiaddr>,
    /// Whether a ping was not answered in time, and nothing has come from it since.
    is_silent: bool,
    /// Whether it has let somebody wait who asked, and nothing has come from it since.
    is_doubted: bool,
}

/// How often a peer has broken the rules lately.
#[derive(Default)]
struct Offences {
    count: u32,
    /// Up to when the oldest ones have been forgiven.
    since: Option<Instant>,
}

impl Offences {
    /// Counts one more. Returns whether that is too many: one is forgiven every
    /// [`FORGIVEN_EVERY`], so that a connection of weeks does not fall over a few strays.
    fn add(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let forgiven = now.saturating_duration_since(since).as_secs() / FORGIVEN_EVERY.as_secs();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        if forgiven >= self.count {
            (self.count, self.since) = (0, Some(now));
        } else {
            self.count -= forgiven;
            self.since = Some(since + FORGIVEN_EVERY * forgiven);
        }
        self.count += 1;
        self.count >= MAX_OFFENCES
    }
}

struct Connection {
    id: ConnectionId,
    relayed: bool,
    /// The address that this node dialled.
    dialled: Option<Multiaddr>,
    ip: Option<IpAddr>,
}

impl Peer {
    fn is_server(&self) -> bool {
        self.proven.as_ref().is_some_and(|proven| matches!(proven.party, VerifiedParty::Node(_)))
    }
}

struct Proven {
    credential: Credential,
    party: VerifiedParty,
}

impl Peers {
    /// Takes a new connection. Returns whether it is the first direct one to a peer that this node
    /// has dialled: this node then says hello.
    fn connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) -> bool {
        let entry = self.table.entry(peer).or_insert_with(|| Peer {
            connections: Vec::new(),
            proven: None,
            asked: false,
            decided: false,
            offences: Offences::default(),
            identified: Vec::new(),
            is_silent: false,
            is_doubted: false,
        });
        (entry.is_silent, entry.is_doubted) = (false, false);
        let relayed = endpoint.is_relayed();
        let dialled = match endpoint {
            ConnectedPoint::Dialer { address, .. } => Some(address.clone()),
            ConnectedPoint::Listener { .. } => None,
        };
        let greets = dialled.is_some() && !relayed && !entry.asked;
        entry.asked |= greets;
        let ip = Some(endpoint.get_remote_address()).filter(|_| !relayed).and_then(ip_of);
        entry.connections.push(Connection { id, relayed, dialled, ip });
        greets
    }

    /// Takes the end of a connection. Returns what was known of the peer where it was the last one.
    fn disconnected(&mut self, peer: &PeerId, id: ConnectionId) -> Option<Peer> {
        let entry = self.table.get_mut(peer)?;
        entry.connections.retain(|connection| connection.id != id);
        if entry.connections.is_empty() { self.table.remove(peer) } else { None }
    }

    /// A peer has answered, if only a ping.
    pub(super) fn heard(&mut self, peer: &PeerId) {
        if let Some(entry) = self.table.get_mut(peer) {
            (entry.is_silent, entry.is_doubted) = (false, false);
        }
    }

    /// A peer lets somebody wait who asked: others are asked first until it says something.
    pub(super) fn doubt(&mut self, peer: &PeerId) {
        if let Some(entry) = self.table.get_mut(peer) {
            entry.is_doubted = true;
        }
    }

    /// Says whether a peer lets somebody wait who asked.
    pub(super) fn is_doubted(&self, peer: &PeerId) -> bool {
        self.table.get(peer).is_some_and(|entry| entry.is_doubted)
    }

    /// Returns the connected servers.
    pub(super) fn servers(&self) -> impl Iterator<Item = (&PeerId, &VerifiedNode)> {
        self.table.iter().filter_map(|(peer, entry)| match &entry.proven {
            Some(Proven { party: VerifiedParty::Node(node), .. }) => Some((peer, node)),
            _ => None,
        })
    }

    /// Returns the connected servers with the network address of a direct connection.
    pub(super) fn servers_with_ip(&self) -> impl Iterator<Item = (PeerId, Option<IpAddr>)> {
        self.servers().map(|(peer, _)| {
            let connections = self.table.get(peer).map(|entry| entry.connections.as_slice());
            (*peer, connections.unwrap_or_default().iter().find_map(|connection| connection.ip))
        })
    }

    /// Returns what a connected peer is certified to be, where it is a server.
    pub(super) fn server(&self, peer: &PeerId) -> Option<&VerifiedNode> {
        match self.table.get(peer)?.proven.as_ref()?.party {
            VerifiedParty::Node(ref node) => Some(node),
            VerifiedParty::Handle(_) => None,
        }
    }

    /// Returns what a connected peer is certified to be, and its encoded credential.
    pub(super) fn proven(&self, peer: &PeerId) -> Option<(&VerifiedParty, Vec<u8>)> {
        let proven = self.table.get(peer)?.proven.as_ref()?;
        Some((&proven.party, proven.credential.encode()))
    }

    /// Says whether a peer is connected whose credential has not been decided yet.
    pub(super) fn is_undecided(&self, peer: &PeerId) -> bool {
        self.table.get(peer).is_some_and(|entry| !entry.decided)
    }

    /// Returns servers to which this node has a direct connection that it dialled, with the address
    /// dialled and that of the network.
    pub(super) fn relay_candidates(&self) -> Vec<(PeerId, Multiaddr, Option<IpAddr>)> {
        let direct = |entry: &Peer| {
            let mut connections = entry.connections.iter().filter(|connection| !connection.relayed);
            connections.find_map(|connection| Some((connection.dialled.clone()?, connection.ip)))
        };
        let candidate = |(peer, _): (&PeerId, &VerifiedNode)| {
            let (address, ip) = direct(self.table.get(peer)?)?;
            Some((*peer, address, ip))
        };
        self.servers().filter_map(candidate).collect()
    }

    /// Returns how many vicinities (/16, or /32 of IPv6) the connected servers are of.
    pub(super) fn vicinities(&self) -> usize {
        let ip =
            |peer: &PeerId| self.table.get(peer)?.connections.iter().find_map(|connection| connection.ip);
        self.servers().filter_map(|(peer, _)| ip(peer)).map(Vicinity::of).collect::<HashSet<_>>().len()
    }

    /// Says whether the relay of a circuit address is connected.
    pub(super) fn goes_through_connected(&self, address: &Multiaddr) -> bool {
        relay_of(address).is_some_and(|relay| self.table.contains_key(&relay))
    }

    /// Returns the network address at the far end of a direct connection.
    pub(super) fn remote_ip(&self, peer: &PeerId, id: ConnectionId) -> Option<IpAddr> {
        self.table.get(peer)?.connections.iter().find(|connection| connection.id == id)?.ip
    }

    /// Returns the networks from which a peer is known to come: those of its connections where
    /// there are any, for what it says of itself may be made up. What names no network address is
    /// no evidence of any: all such peers count as of one network.
    fn networks(&self, peer: &PeerId, declared: &[Multiaddr]) -> HashSet<Network> {
        let connections = self.table.get(peer).map(|entry| entry.connections.as_slice()).unwrap_or_default();
        let mut ips: HashSet<IpAddr> = connections.iter().filter_map(|connection| connection.ip).collect();
        if ips.is_empty() {
            ips = declared.iter().filter_map(ip_of).collect();
        }
        if ips.is_empty() {
            return HashSet::from([Network::Unknown]);
        }
        ips.into_iter().filter_map(Network::of).collect()
    }

    /// Returns how many peers are connected, and how many of them through relays only.
    pub(super) fn counts(&self) -> (usize, usize) {
        let relayed = |entry: &&Peer| entry.connections.iter().all(|connection| connection.relayed);
        (self.table.len(), self.table.values().filter(relayed).count())
    }

    /// Returns every address known of a connected peer, those that were dialled first.
    fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        let Some(entry) = self.table.get(peer) else { return Vec::new() };
        let mut addresses: Vec<Multiaddr> = Vec::new();
        let dialled = entry.connections.iter().filter(|c| !c.relayed).filter_map(|c| c.dialled.as_ref());
        for address in dialled.chain(&entry.identified) {
            let address = without_peer(address);
            if !is_relayed(&address) && !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
                addresses.push(address);
            }
        }
        addresses
    }
}

impl Task {
    pub(super) fn on_connected(
        &mut self,
        now: Instant,
        peer: PeerId,
        id: ConnectionId,
        endpoint: &ConnectedPoint,
    ) {
        self.admitted.connected(peer, now);
        if self.peers.connected(peer, id, endpoint) {
            self.say_hello(peer);
        }
        self.on_gateway_dialled(id);
        self.on_dialled(now, &peer);
    }

    pub(super) fn on_disconnected(&mut self, now: Instant, peer: PeerId, id: ConnectionId) {
        let Some(known) = self.peers.disconnected(&peer, id) else { return };
        if known.is_silent {
            // Whoever asked it would wait for it; it comes back when it is connected again.
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
            if known.is_server() {
                self.joining.plan.fell_silent(&peer, now);
            }
        }
        self.admitted.remove(&peer);
        self.lists.forget(&peer);
        self.pending_providers.retain(|(from, _)| *from != peer);
        self.check_online(now);
        self.join(now);
        self.watch_reservations(now);
    }

    /// A path is dead without a word: calls on it begin to look for another.
    pub(super) fn on_silent(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(entry) = self.peers.table.get_mut(peer) {
            entry.is_silent = true;
        }
        self.swarm.close_connection(connection);
    }

    /// Counts what a peer provably did wrong. Whoever goes on is disconnected: each offence costs
    /// this node more to refuse than the peer to commit. What may come of this node's own state, of
    /// two clocks that differ or of two nodes that do not know the same yet is no offence.
    pub(super) fn offended(&mut self, peer: &PeerId, reason: Refusal) {
        self.refusals.add(reason);
        let Some(entry) = self.peers.table.get_mut(peer) else { return };
        if entry.offences.add(Instant::now()) {
            tracing::info!(%peer, reason = reason.as_str(), "peer disconnected: it does not keep to the rules");
            // Errs when the peer is gone already.
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
    }

    /// Sends this node's credential.
    fn say_hello(&mut self, peer: PeerId) {
        let hello = self.hello();
        let id = self.swarm.behaviour_mut().identity.send_request(&peer, hello);
        self.peers.hellos.insert(id, peer);
    }

    pub(super) fn hello(&self) -> Vec<u8> {
        let version = |list: &SignedRevocations| ListVersion {
            issuer: list.issuer().to_bytes().to_vec(),
            version: list.version(),
        };
        let lists = self.revocations.lists().take(MAX_LISTS).map(version).collect();
        wire::encode(&Hello { credential: self.credential.clone(), lists })
    }

    /// Takes the answer to a hello, or its failure.
    pub(super) fn on_hello_answer(&mut self, now: Instant, id: OutboundRequestId, answer: Option<&[u8]>) {
        if let Some(peer) = self.peers.hellos.remove(&id)
            && let Some(bytes) = answer
        {
            self.on_hello(now, peer, bytes);
        }
    }

    /// Takes the credential of a peer.
    pub(super) fn on_hello(&mut self, now: Instant, peer: PeerId, bytes: &[u8]) {
        let Some(hello) = wire::decode::<Hello>(bytes) else {
            self.offended(&peer, Refusal::MessageMalformed);
            return;
        };
        let Some(entry) = self.peers.table.get_mut(&peer) else { return };
        (entry.asked, entry.decided) = (true, true);
        let same = entry.proven.as_ref().is_some_and(|proven| proven.credential.encode() == hello.credential);
        if same {
            self.on_lists_offered(peer, &hello.lists);
            return;
        }
        match self.verify_credential(&peer, &hello.credential) {
            Ok(proven) => {
                let is_server = matches!(proven.party, VerifiedParty::Node(_));
                let is_gateway = |party: &VerifiedParty| matches!(party, VerifiedParty::Node(node) if node.role == Role::Gateway);
                if is_gateway(&proven.party) || is_gateway(&self.party) {
                    self.swarm.behaviour_mut().calls.widen(&peer, self.limits.streams_per_gateway);
                }
                if let Some(entry) = self.peers.table.get_mut(&peer) {
                    entry.proven = Some(proven);
                }
                self.admitted.insert(peer);
                self.on_presence_proven(now, peer);
                if is_server {
                    self.on_server(now, peer);
                } else {
                    self.joining.plan.refuted(&peer, now);
                }
                // Not before: anybody could claim a list that is never handed out.
                self.on_lists_offered(peer, &hello.lists);
            }
            Err((reason, error)) => {
                self.refusals.add(reason);
                tracing::debug!(%peer, reason = error.as_str(), "credential refused");
                self.admitted.refuse(peer);
                self.joining.plan.refuted(&peer, now);
                self.end_credit(&peer);
                self.on_presence_unproven(now, &peer);
                // Decided: those that wait are refused now.
                self.accept_pending_providers(&peer);
                self.forget_gateway(now, &peer);
            }
        }
    }

    fn verify_credential(&self, peer: &PeerId, bytes: &[u8]) -> Result<Proven, (Refusal, IdentityError)> {
        let credential = Credential::decode(bytes).map_err(|e| (Refusal::NodeCertificate, e))?;
        let (invalid, mismatch) = match credential {
            Credential::Handle(_) => (Refusal::UserCertificate, Refusal::UserKeyMismatch),
            Credential::Node(_) => (Refusal::NodeCertificate, Refusal::NodeKeyMismatch),
        };
        let party = credential
            .verify(&self.trust, &self.revocations, self.unix())
            .map_err(|error| (invalid, error))?;
        if party.key_of(peer).is_none() {
            let subject = party.name().to_owned();
            return Err((mismatch, IdentityError::WrongKey { subject }));
        }
        Ok(Proven { credential, party })
    }

    /// A server has proved itself.
    fn on_server(&mut self, now: Instant, peer: PeerId) {
        if self.role.is_server() && self.peers.servers().count() <= MAX_WARM {
            self.swarm.behaviour_mut().calls.keep_warm(peer, true);
        }
        let addresses = self.peers.addresses(&peer);
        self.on_joined(now, peer, &addresses);
        self.route(peer);
        if self.peers.servers().count() <= FEW_SERVERS {
            self.refresh = Backoff::new(now);
            self.refresh_routes(now);
        }
        self.accept_pending_providers(&peer);
        self.on_gateway_proven(now, &peer);
        self.reset_backoff(&peer, now);
        self.watch_reservations(now);
        self.publish_again(now);
        self.check_online(now);
    }

    /// A peer has said how it is reached and what it speaks.
    pub(super) fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        let Some(entry) = self.peers.table.get_mut(&peer) else { return };
        entry.identified = info.listen_addrs.into_iter().take(MAX_ADDRESSES).collect();
        if self.peers.server(&peer).is_some() {
            self.route(peer);
        }
    }

    /// Puts a proven server into the routing table, unless its network holds too much of the bucket.
    fn route(&mut self, peer: PeerId) {
        let addresses = self.peers.addresses(&peer);
        self.joining.good.moved(&peer, &addresses);
        if !self.is_diverse(&peer, &addresses) {
            self.refusals.add(Refusal::RoutingDiversity);
            return;
        }
        for address in addresses {
            self.swarm.behaviour_mut().kad.add_address(&peer, address);
        }
    }

    /// Takes a peer that cannot be dialled out of the routing table, so that queries do not wait for
    /// it. It comes back when it is connected again.
    pub(super) fn unroute(&mut self, peer: &PeerId, error: &DialError) {
        let tried = matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. });
        if tried && !self.swarm.is_connected(peer) {
            self.swarm.behaviour_mut().kad.remove_peer(peer);
        }
    }

    /// Says whether a bucket has room for one more peer of each of these networks. Whoever rents
    /// one network could otherwise fill the buckets around a key.
    fn is_diverse(&mut self, peer: &PeerId, addresses: &[Multiaddr]) -> bool {
        let networks = self.peers.networks(peer, addresses);
        let limit = self.limits.same_subnet_per_bucket;
        let Some(bucket) = self.swarm.behaviour_mut().kad.kbucket(*peer) else { return false };
        let others = bucket.iter().filter(|entry| entry.node.key.preimage() != peer).map(|entry| {
            let declared: Vec<Multiaddr> = entry.node.value.iter().cloned().collect();
            self.peers.networks(entry.node.key.preimage(), &declared)
        });
        has_room(&networks, others, limit)
    }

    /// Drops peers whose certificate has expired.
    pub(super) fn drop_expired_peers(&mut self, now: Instant) {
        let unix = self.unix();
        self.drop_peers(now, |_, proven| proven.party.standing().has_expired(unix));
    }

    /// Drops peers that a new revocation list voids. Each was verified when it proved itself.
    pub(super) fn drop_revoked_peers(&mut self, now: Instant) {
        self.drop_peers(now, |task, proven| proven.party.standing().is_revoked(&task.revocations));
    }

    fn drop_peers(&mut self, now: Instant, is_invalid: impl Fn(&Task, &Proven) -> bool) {
        let invalid: Vec<PeerId> = (self.peers.table.iter())
            .filter(|(_, entry)| entry.proven.as_ref().is_some_and(|proven| is_invalid(self, proven)))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in invalid {
            self.refusals.add(Refusal::NodeCertificate);
            tracing::info!(%peer, "the certificate of a connected peer is no longer valid: peer dropped");
            if let Some(entry) = self.peers.table.get_mut(&peer) {
                entry.proven = None;
            }
            self.joining.good.forget(&peer);
            self.admitted.remove(&peer);
            self.swarm.behaviour_mut().kad.remove_peer(&peer);
            self.swarm.behaviour_mut().kad.store_mut().remove_providers_of(&peer);
            // Errs when the peer is gone already.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        self.check_online(now);
    }

    /// Sends this node's credential again because its lists have changed.
    pub(super) fn say_hello_to_all(&mut self) {
        let peers: Vec<PeerId> = self.peers.table.keys().copied().collect();
        for peer in peers {
            if self.swarm.behaviour().calls.is_direct(&peer) {
                self.say_hello(peer);
            }
        }
    }

    /// Says whether a connected peer may offer calls under a prefix.
    pub(super) fn may_provide(&self, peer: &PeerId, prefix: &crate::identity::Prefix) -> bool {
        self.peers.server(peer).is_some_and(|node| {
            node.role == Role::Gateway && node.prefixes.iter().any(|allowed| allowed.covers(prefix))
        })
    }
}

/// Returns the network address that an address begins with.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// Says whether an address is one of this machine only.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    ip_of(address).is_some_and(|ip| ip.to_canonical().is_loopback())
}

/// Says whether an address leads through a relay.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// Returns the relay of a circuit address.
fn relay_of(address: &Multiaddr) -> Option<PeerId> {
    let mut peer = None;
    for part in address.iter() {
        match part {
            Protocol::P2p(id) => peer = Some(id),
            Protocol::P2pCircuit => return peer,
            _ => {}
        }
    }
    None
}

/// Returns an address without the peer at its end.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut address = address.clone();
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_is_no_network() {
        let ip = |text: &str| ip_of(&text.parse().unwrap());
        assert_eq!(ip("/ip4/192.0.2.1/tcp/1"), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(ip("/ip6/2001:db8::1/udp/2/quic-v1"), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(ip("/dns4/example.org/tcp/1"), None);
    }

    #[test]
    fn a_peer_comes_from_where_it_is_connected_whatever_it_says() {
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let connected = |peers: &mut Peers, id, from: &str| {
            let peer = PeerId::random();
            let endpoint = ConnectedPoint::Listener {
                local_addr: address("/ip4/198.51.100.1/tcp/1"),
                send_back_addr: address(from),
            };
            peers.connected(peer, ConnectionId::new_unchecked(id), &endpoint);
            peer
        };
        let mut peers = Peers::default();
        let liar = connected(&mut peers, 1, "/ip4/192.0.2.1/tcp/1");
        let local = connected(&mut peers, 2, "/ip4/127.0.0.1/tcp/1");
        let elsewhere = [address("/ip4/203.0.113.1/tcp/1"), address("/dns4/example.org/tcp/1")];
        let its_own = HashSet::from([Network::V4([192, 0, 2])]);
        assert_eq!(peers.networks(&liar, &elsewhere), its_own);
        assert_eq!(peers.networks(&liar, &[]), its_own);
        assert_eq!(peers.networks(&local, &elsewhere), HashSet::new(), "loopback is exempt");
        let gone = PeerId::random();
        assert_eq!(peers.networks(&gone, &elsewhere), HashSet::from([Network::V4([203, 0, 113])]));
        assert_eq!(peers.networks(&gone, &elsewhere[1..]), HashSet::from([Network::Unknown]));
    }

    #[test]
    fn offences_are_forgiven_with_time() {
        let start = Instant::now();
        let mut steady = Offences::default();
        assert!((0..1_000).all(|n| !steady.add(start + FORGIVEN_EVERY * n)), "one now and then");
        let mut burst = Offences::default();
        assert_eq!((0..100).position(|_| burst.add(start)), Some(MAX_OFFENCES as usize - 1));
    }

    #[test]
    fn the_relay_of_a_circuit_is_before_it() {
        let (relay, far) = (PeerId::random(), PeerId::random());
        let circuit = format!("/ip4/127.0.0.1/tcp/1/p2p/{relay}/p2p-circuit/p2p/{far}").parse().unwrap();
        assert_eq!(relay_of(&circuit), Some(relay));
        assert!(is_relayed(&circuit));
        let direct: Multiaddr = format!("/ip4/127.0.0.1/tcp/1/p2p/{far}").parse().unwrap();
        assert_eq!(relay_of(&direct), None);
        assert_eq!(without_peer(&direct).to_string(), "/ip4/127.0.0.1/tcp/1");
    }
}
