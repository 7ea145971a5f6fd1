//! The swarm: transports and the set of behaviours.

use std::collections::HashMap;
use std::num::{NonZeroU8, NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::Transport as _;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::Boxed;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, dcutr, dns, identify, kad, mdns, noise, ping,
    quic, relay, tcp, websocket, yamux,
};

use super::NodeError;
use super::bootstrap::{build_lan, system_name_servers};
use super::config::NodeLimits;
use super::linger::Lingering;
use super::store::KadStore;
use super::streams::{CALL_PROTOCOL, PRESENCE_PROTOCOL, Streams};
use super::wire::{
    BytesCodec, IDENTITY_PROTOCOL, LOOKUP_PROTOCOL, MAX_MESSAGE, OFFER_PROTOCOL, PUBLISH_PROTOCOL,
    REVOCATION_PROTOCOL, TURN_PROTOCOL,
};
use crate::identity::MAX_LIST_BYTES;

/// The protocol of the distributed hash table.
pub(super) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/kad/1");

/// Duration of a relay circuit: signalling of one call.
const CIRCUIT_DURATION: Duration = Duration::from_secs(3600);
/// Bytes of a relay circuit: signalling of one call.
const CIRCUIT_BYTES: u64 = 1 << 20;
/// Circuits that one peer may ask for at once, and how soon it may ask for one more: 120 a minute.
const CIRCUITS_PER_PEER: NonZeroU32 = NonZeroU32::MIN.saturating_add(119);
const CIRCUIT_EVERY_PER_PEER: Duration = Duration::from_millis(500);
/// The same for one network address, behind which there may be many users: 1200 a minute.
const CIRCUITS_PER_IP: NonZeroU32 = NonZeroU32::MIN.saturating_add(1199);
const CIRCUIT_EVERY_PER_IP: Duration = Duration::from_millis(50);
/// How long after it has connected a peer may have circuits before it has proved itself.
pub(super) const CIRCUIT_CREDIT: Duration = Duration::from_secs(5);
/// Relay reservations that one peer may hold, one on each of its connections.
const RESERVATIONS_PER_PEER: usize = 4;
/// Duration of a relay reservation; its holder renews it before.
const RESERVATION_DURATION: Duration = Duration::from_secs(3600);
/// How long it may take until a connection is up, keys exchanged. Whoever is dead without a word holds up
/// for so long those who ask it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are closed after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a provider record lives, and how often a gateway repeats it.
const PROVIDER_LIFETIME: Duration = Duration::from_secs(1200);
const PROVIDER_INTERVAL: Duration = Duration::from_secs(420);
/// Streams of a connection beside those of calls.
const OTHER_STREAMS: usize = 256;
/// The most that the muxer can be told to carry.
const MAX_MUXED_STREAMS: usize = 4096;
/// Presence streams open with one peer: one each way, and as many that are just being replaced.
const PRESENCE_STREAMS_PER_PEER: usize = 4;
/// Small requests are answered within this time or not at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The behaviours of a node.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) relay: Toggle<relay::Behaviour>,
    pub(super) relay_client: relay::client::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) dcutr: dcutr::Behaviour,
    pub(super) lan: Toggle<mdns::tokio::Behaviour>,
    pub(super) identity: request_response::Behaviour<BytesCodec>,
    pub(super) revocations: request_response::Behaviour<BytesCodec>,
    pub(super) lookup: request_response::Behaviour<BytesCodec>,
    pub(super) publish: request_response::Behaviour<BytesCodec>,
    pub(super) offer: request_response::Behaviour<BytesCodec>,
    pub(super) turn: request_response::Behaviour<BytesCodec>,
    pub(super) calls: Streams,
    pub(super) presence: Streams,
    pub(super) kad: kad::Behaviour<KadStore>,
}

/// The peers that have proved an identity and may therefore use the relay. Shared with the
/// relay's gates, which libp2p calls.
#[derive(Clone, Default)]
pub(super) struct Admitted(Arc<Mutex<HashMap<PeerId, Proof>>>);

/// What is known of a connected peer.
#[derive(Clone, Copy)]
enum Proof {
    Connected(Instant),
    Refused,
    Proven,
}

impl Admitted {
    fn table(&self) -> MutexGuard<'_, HashMap<PeerId, Proof>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A peer is connected, and has proved nothing unless it did on another connection.
    pub(super) fn connected(&self, peer: PeerId, now: Instant) {
        self.table().entry(peer).or_insert(Proof::Connected(now));
    }

    pub(super) fn insert(&self, peer: PeerId) {
        self.table().insert(peer, Proof::Proven);
    }

    /// The credential of a peer was refused, whatever it has proved before.
    pub(super) fn refuse(&self, peer: PeerId) {
        self.table().insert(peer, Proof::Refused);
    }

    pub(super) fn remove(&self, peer: &PeerId) {
        self.table().remove(peer);
    }

    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        matches!(self.table().get(peer), Some(Proof::Proven))
    }

    /// Says whether a peer may have a circuit to another. One that has just connected may: its
    /// credential and its request travel side by side. It loses both if the credential fails.
    fn may_open_circuit(&self, peer: &PeerId, now: Instant) -> bool {
        match self.table().get(peer) {
            Some(Proof::Proven) => true,
            Some(Proof::Connected(since)) => now < *since + CIRCUIT_CREDIT,
            Some(Proof::Refused) | None => false,
        }
    }
}

/// Builds the swarm. A server answers the DHT, relays and looks up for others.
pub(super) fn build(
    keypair: Keypair,
    server: bool,
    limits: &NodeLimits,
    store: KadStore,
    admitted: Admitted,
    lan: bool,
) -> Result<Swarm<Behaviour>, NodeError> {
    let transport = |e: &dyn std::fmt::Display| NodeError::Transport(e.to_string());
    // What bounds calls is their quota, which says so: the transport must not before.
    let streams = limits.streams_per_peer.max(limits.streams_per_gateway) + OTHER_STREAMS;
    let streams = streams.min(MAX_MUXED_STREAMS);
    let muxer = || {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(streams);
        config
    };
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_other_transport(|key| transports(key, muxer, streams))
        .map_err(|e| transport(&e))?
        .with_relay_client(noise::Config::new, muxer)
        .map_err(|e| transport(&e))?
        .with_behaviour(|key, relay_client| {
            behaviour(key, relay_client, server, limits, store, admitted, lan)
        })
        .map_err(|e| transport(&e))?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE_TIMEOUT)
                .with_dial_concurrency_factor(NonZeroU8::MIN.saturating_add(2))
                // Every stream is for one protocol: what it is for and the first message go together,
                // and a request takes one round trip, not two.
                .with_substream_upgrade_protocol_override(Version::V1Lazy)
        })
        .with_connection_timeout(CONNECT_TIMEOUT)
        .build();
    Ok(swarm)
}

/// Builds what carries connections: TCP, QUIC and WebSocket, each under addresses with names too. That of WebSocket
/// finds names itself, since TLS wants to know them.
fn transports(
    key: &Keypair,
    muxer: impl Fn() -> yamux::Config,
    streams: usize,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Box<dyn std::error::Error + Send + Sync>> {
    let (names, options) = system_name_servers();
    let bare = || tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
    let tcp = bare()
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(muxer())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut config = quic::Config::new(key);
    config.max_concurrent_stream_limit = u32::try_from(streams).unwrap_or(u32::MAX);
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(Lingering(muxer))));
    let plain = tcp.or_transport(quic).map(|either, _| either.into_inner());
    let plain = dns::tokio::Transport::custom(plain, names.clone(), options.clone());
    let websocket = websocket::Config::new(dns::tokio::Transport::custom(bare(), names, options))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(muxer())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(websocket.or_transport(plain).map(|either, _| either.into_inner()).boxed())
}

fn behaviour(
    key: &Keypair,
    relay_client: relay::client::Behaviour,
    server: bool,
    limits: &NodeLimits,
    store: KadStore,
    admitted: Admitted,
    lan: bool,
) -> Behaviour {
    let id = key.public().to_peer_id();
    let connections = ConnectionLimits::default()
        .with_max_established_incoming(Some(limits.connections))
        .with_max_pending_incoming(Some(limits.connections.min(1024)))
        .with_max_established_per_peer(Some(limits.connections_per_peer));
    let requests = request_response::Config::default().with_request_timeout(REQUEST_TIMEOUT);
    let served = if server { ProtocolSupport::Full } else { ProtocolSupport::Outbound };
    let exchange = |protocol, support, limit| {
        request_response::Behaviour::with_codec(BytesCodec { limit }, [(protocol, support)], requests.clone())
    };
    let identify = identify::Config::new_with_signed_peer_record("causeway/1".into(), key)
        .with_agent_version(concat!("causeway/", env!("CARGO_PKG_VERSION")).into())
        .with_push_listen_addr_updates(true)
        .with_cache_size(0);
    Behaviour {
        limits: connection_limits::Behaviour::new(connections),
        relay: server.then(|| relay::Behaviour::new(id, relay_config(limits, admitted))).into(),
        relay_client,
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(limits.timers.ping_interval)
                .with_timeout(limits.timers.ping_timeout),
        ),
        dcutr: dcutr::Behaviour::new(id),
        lan: build_lan(id, lan),
        identity: exchange(IDENTITY_PROTOCOL, ProtocolSupport::Full, MAX_MESSAGE),
        revocations: exchange(REVOCATION_PROTOCOL, ProtocolSupport::Full, MAX_LIST_BYTES),
        lookup: exchange(LOOKUP_PROTOCOL, served.clone(), MAX_MESSAGE),
        publish: exchange(PUBLISH_PROTOCOL, served.clone(), MAX_MESSAGE),
        offer: exchange(OFFER_PROTOCOL, served.clone(), MAX_MESSAGE),
        turn: exchange(TURN_PROTOCOL, served, MAX_MESSAGE),
        calls: Streams::new(CALL_PROTOCOL, limits.streams_per_peer),
        presence: Streams::new(PRESENCE_PROTOCOL, PRESENCE_STREAMS_PER_PEER),
        kad: kademlia(id, server, limits, store),
    }
}

fn relay_config(limits: &NodeLimits, admitted: Admitted) -> relay::Config {
    let sources = admitted.clone();
    let source_gate = move |peer: PeerId, _: &Multiaddr, now: Instant| sources.may_open_circuit(&peer, now);
    let gate = move |peer: PeerId, _: &Multiaddr, _: Instant| admitted.contains(&peer);
    let config = relay::Config {
        max_reservations: limits.reservations,
        // Of both libp2p grants one more than it is told.
        max_reservations_per_peer: RESERVATIONS_PER_PEER - 1,
        reservation_duration: RESERVATION_DURATION,
        reservation_rate_limiters: vec![Box::new(gate)],
        max_circuits: limits.circuits,
        max_circuits_per_peer: limits.circuits_per_peer.saturating_sub(1),
        max_circuit_duration: CIRCUIT_DURATION,
        max_circuit_bytes: CIRCUIT_BYTES,
        circuit_src_rate_limiters: vec![Box::new(source_gate)],
    };
    // The interval of both is that at which one more is granted, not that of the whole number.
    config
        .circuit_src_per_peer(CIRCUITS_PER_PEER, CIRCUIT_EVERY_PER_PEER)
        .circuit_src_per_ip(CIRCUITS_PER_IP, CIRCUIT_EVERY_PER_IP)
}

fn kademlia(id: PeerId, server: bool, limits: &NodeLimits, store: KadStore) -> kad::Behaviour<KadStore> {
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .disjoint_query_paths(true)
        .set_parallelism(NonZeroUsize::MIN.saturating_add(3))
        .set_query_timeout(limits.timers.lookup)
        .set_caching(kad::Caching::Disabled)
        // The node itself refreshes the table: see `reserve`.
        .set_periodic_bootstrap_interval(None)
        // Only its writer publishes a record again: see `publish`.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_record_ttl(Some(limits.timers.record_lifetime))
        .set_provider_record_ttl(Some(PROVIDER_LIFETIME))
        .set_provider_publication_interval(Some(PROVIDER_INTERVAL))
        .set_max_packet_size(16 * 1024);
    let mut kad = kad::Behaviour::with_config(id, store, config);
    // Never left to the automatic choice: only certified nodes may answer.
    kad.set_mode(Some(if server { kad::Mode::Server } else { kad::Mode::Client }));
    kad
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_proven_peers_and_those_about_to_prove_themselves_get_circuits() {
        let now = Instant::now();
        let (admitted, peer) = (Admitted::default(), PeerId::random());
        assert!(!admitted.may_open_circuit(&peer, now), "not even connected");
        admitted.connected(peer, now);
        assert!(admitted.may_open_circuit(&peer, now), "its credential is on the way");
        admitted.connected(peer, now + CIRCUIT_CREDIT);
        assert!(!admitted.may_open_circuit(&peer, now + CIRCUIT_CREDIT), "another connection wins no time");
        assert!(!admitted.contains(&peer), "and no reservation without proof");
        let other = PeerId::random();
        admitted.connected(other, now);
        admitted.refuse(other);
        admitted.connected(other, now);
        assert!(!admitted.may_open_circuit(&other, now), "its credential was refused");
        admitted.insert(peer);
        assert!(admitted.may_open_circuit(&peer, now + 1_000 * CIRCUIT_CREDIT) && admitted.contains(&peer));
    }
}
