//! What a node is told at its start.

use std::time::Duration;

use call_model::{Handle, Number};

use super::bootstrap::BootstrapWays;
use super::turn::TurnConfig;
use crate::identity::{HandleCertificate, NodeChain, NodeKey, RevocationList, Trust};
use crate::presence::PresenceLimits;
use crate::record::GatewayOffer;

/// Configures a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node's key; its PeerId is derived from it.
    pub key: NodeKey,
    /// The roots that the node trusts.
    pub trust: Trust,
    /// What has been revoked; newer lists come from other nodes.
    pub revocations: RevocationList,
    /// What the node is in the overlay.
    pub role: NodeRole,
    /// Multiaddrs to listen on, e.g. `/ip4/0.0.0.0/tcp/4001`, `/ip4/0.0.0.0/udp/4001/quic-v1`,
    /// `/ip4/0.0.0.0/tcp/4002/ws`. A user may listen on none.
    pub listen: Vec<String>,
    /// Multiaddrs under which others reach this node. Where empty, a supernode or gateway
    /// announces what it listens on.
    pub external: Vec<String>,
    /// Multiaddrs of supernodes, each ending in `/p2p/<peer>`.
    pub bootstrap: Vec<String>,
    /// Other ways of joining.
    pub ways: BootstrapWays,
    /// Bounds of tables and lengths of timers.
    pub limits: NodeLimits,
    /// The STUN and TURN server of a supernode or gateway; a user has none.
    pub turn: Option<TurnConfig>,
}

impl NodeConfig {
    /// Makes the configuration of a node that knows of no revocation, listens nowhere, has no way of joining and no
    /// TURN server, within the usual bounds.
    #[must_use]
    pub fn new(key: NodeKey, trust: Trust, role: NodeRole) -> Self {
        Self {
            key,
            trust,
            revocations: RevocationList::default(),
            role,
            listen: Vec::new(),
            external: Vec::new(),
            bootstrap: Vec::new(),
            ways: BootstrapWays::default(),
            limits: NodeLimits::default(),
            turn: None,
        }
    }
}

/// What a node is in the overlay.
#[derive(Clone, Debug)]
pub enum NodeRole {
    /// A user's device.
    User {
        /// Certifies the handle; must name the node's key among its devices.
        certificate: HandleCertificate,
    },
    /// A supernode: DHT server, relay, look-up service.
    Supernode {
        /// The node's certificate and those above it.
        chain: NodeChain,
    },
    /// A supernode that also serves telephone numbers.
    Gateway {
        /// The node's certificate and those above it.
        chain: NodeChain,
        /// What the gateway offers. The node sets `load`, `sequence` and `expires_unix`, and signs
        /// an offer anew whenever it is asked for.
        offers: Vec<GatewayOffer>,
        /// Numbers that lead to handles.
        numbers: Vec<(Number, Handle)>,
    },
}

impl NodeRole {
    /// Says whether the node serves the overlay: DHT, relay, look-ups.
    pub fn is_server(&self) -> bool {
        !matches!(self, NodeRole::User { .. })
    }
}

/// Bounds every table of a node and sets its timers.
#[derive(Clone, Debug)]
pub struct NodeLimits {
    /// Inbound connections.
    pub connections: u32,
    /// Connections to one peer.
    pub connections_per_peer: u32,
    /// Open call streams with one peer.
    pub streams_per_peer: usize,
    /// Open call streams with one peer where either of the two is a certified gateway.
    pub streams_per_gateway: usize,
    /// Calls at one time; one more is refused with cause 42.
    pub calls: usize,
    /// Relay reservations served.
    pub reservations: usize,
    /// Relay circuits served.
    pub circuits: usize,
    /// Relay circuits served for one peer.
    pub circuits_per_peer: usize,
    /// Relay reservations that a user holds.
    pub own_reservations: usize,
    /// Records stored for others.
    pub records: usize,
    /// Provider records stored for others.
    pub providers: usize,
    /// Keys looked up in the DHT at one time on behalf of clients, an eighth of them for one client.
    pub lookups: usize,
    /// Keys that one peer may look up in a second, 10 s' worth at once; one network address ten times
    /// that. Certified nodes are not counted.
    pub lookup_rate: u32,
    /// Peers of one /24 (IPv4) or /48 (IPv6) in one bucket of the routing table. Loopback
    /// addresses are exempt: they say nothing about who owns a network.
    pub same_subnet_per_bucket: usize,
    /// Bounds of presence and text.
    pub presence: PresenceLimits,
    /// Lengths of timers.
    pub timers: NodeTimers,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_peer: 8,
            streams_per_peer: 256,
            streams_per_gateway: 1_024,
            calls: 4_096,
            reservations: 4_096,
            circuits: 4_096,
            circuits_per_peer: 64,
            own_reservations: 3,
            records: 100_000,
            providers: 10_000,
            lookups: 1_024,
            lookup_rate: 500,
            same_subnet_per_bucket: 4,
            presence: PresenceLimits::default(),
            timers: NodeTimers::default(),
        }
    }
}

/// The timers of a node.
#[derive(Clone, Debug)]
pub struct NodeTimers {
    /// How long a look-up may take.
    pub lookup: Duration,
    /// How long a call survives the loss of its signalling stream.
    pub resume: Duration,
    /// Interval of pings on each connection.
    pub ping_interval: Duration,
    /// How long a ping may stay unanswered before the connection counts as lost.
    pub ping_timeout: Duration,
    /// Validity of location records, at most 600 s; they are published again at half of it.
    pub record_lifetime: Duration,
    /// First wait before a bootstrap node or relay is tried again; doubles up to 30 s.
    pub retry: Duration,
    /// How often a supernode puts a record and gets it from another node, to measure the overlay: at
    /// most 150 s. Zero: never.
    pub probe: Duration,
}

impl Default for NodeTimers {
    fn default() -> Self {
        Self {
            lookup: Duration::from_secs(5),
            resume: Duration::from_secs(45),
            ping_interval: Duration::from_secs(15),
            ping_timeout: Duration::from_secs(10),
            record_lifetime: Duration::from_secs(600),
            retry: Duration::from_millis(500),
            probe: Duration::from_secs(60),
        }
    }
}
