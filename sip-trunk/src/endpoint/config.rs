//! How an [`Endpoint`](super::Endpoint) is set up.

use std::net::SocketAddr;
use std::time::Duration;

use call_model::Fingerprint;

use super::access::AccessRule;
use super::api::Transport;
use crate::registrar::{AccountConfig, AccountError, Authentication};
use crate::trunk::TrunkConfig;
use crate::wire::limits::MessageLimits;

/// The configuration of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// The sockets the driver has bound.
    pub listeners: Vec<Listener>,
    /// The trunks.
    pub trunks: Vec<TrunkConfig>,
    /// The value of the User-Agent header, which responses carry too.
    pub user_agent: String,
    /// What a request from an address of no trunk gets. If there are accounts, REGISTER and INVITE get a
    /// challenge instead.
    pub unknown_source: UnknownSource,
    /// Questions of [`Endpoint::poll_query`](crate::Endpoint::poll_query) are answered. Without, names
    /// in Contact and Record-Route lead back to where a message came from.
    pub dns: bool,
    /// User parts of request URIs that are never refused for load or rate, such as `112`.
    pub emergency: Vec<String>,
    /// Who may register here; then strangers are asked who they are.
    pub accounts: Vec<AccountConfig>,
    /// How those are dealt with who try passwords of accounts.
    pub authentication: Authentication,
    /// The fingerprint of the certificate that media is keyed with on trunks of [`Srtp::Dtls`](crate::sdp::Srtp::Dtls)
    /// (RFC 5763), SHA-256 as a rule. Such trunks need it.
    pub media_fingerprint: Option<Fingerprint>,
    /// Whose messages are read at all. Every rule for a listener must let a source in, trunks as well.
    pub access: Vec<AccessRule>,
    /// Messages are copied for [`Endpoint::poll_capture`](crate::Endpoint::poll_capture).
    pub capture: bool,
    /// What [`Command::ReportQuality`](crate::Command::ReportQuality) brings is told by
    /// [`Event::QualityReport`](crate::Event::QualityReport), of every trunk, whether it has a collector or not.
    pub tell_quality: bool,
    /// The timers.
    pub timers: Timers,
    /// The bounds.
    pub limits: Limits,
}

impl EndpointConfig {
    /// Builds a configuration with the default timers and limits, answering 403 to strangers.
    pub fn new(listeners: Vec<Listener>, trunks: Vec<TrunkConfig>) -> Self {
        Self {
            listeners,
            trunks,
            user_agent: "causeway".to_owned(),
            unknown_source: UnknownSource::Forbid,
            dns: false,
            emergency: Vec::new(),
            accounts: Vec::new(),
            authentication: Authentication::default(),
            media_fingerprint: None,
            access: Vec::new(),
            capture: false,
            tell_quality: false,
            timers: Timers::default(),
            limits: Limits::default(),
        }
    }
}

/// One bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its transport.
    pub transport: Transport,
    /// Its address, also the one advertised in Via and Contact: not a wildcard.
    pub local: SocketAddr,
}

/// What a request from an address of no trunk gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownSource {
    /// 403.
    #[default]
    Forbid,
    /// Nothing.
    Silent,
}

/// Timer values (RFC 3261 table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// T1: the round trip estimate. 64 times it is how long anything is tried.
    pub t1: Duration,
    /// T2: the longest interval between retransmissions of requests other than INVITE.
    pub t2: Duration,
    /// T4: how long a message stays in the network.
    pub t4: Duration,
    /// How long an incoming call may go without a final answer of ours, unless its trunk says.
    pub incoming: Duration,
    /// How long an accepted connection may take to its first message.
    pub first_message: Duration,
    /// How long a connection may be without messages.
    pub connection_idle: Duration,
    /// How long a connection that we opened may be without traffic before it is pinged.
    pub keep_alive: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            t1: Duration::from_millis(500),
            t2: Duration::from_secs(4),
            t4: Duration::from_secs(5),
            incoming: Duration::from_secs(190),
            first_message: Duration::from_secs(30),
            connection_idle: Duration::from_secs(600),
            // RFC 5626 4.4.1: 95 to 120 s.
            keep_alive: Duration::from_secs(95),
        }
    }
}

impl Timers {
    /// Returns 64 times T1.
    pub fn give_up(&self) -> Duration {
        self.t1 * 64
    }
}

/// Bounds of everything that grows with what the network sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Server transactions, and client transactions, in all. A quarter more for what ends calls.
    pub transactions: usize,
    /// Server transactions of one source address.
    pub transactions_per_source: usize,
    /// Calls in all.
    pub calls: usize,
    /// TCP connections in all.
    pub connections: usize,
    /// TCP connections of one source address.
    pub connections_per_source: usize,
    /// Messages that wait for one connection to open.
    pub queued_per_connection: usize,
    /// Size of one message.
    pub message: MessageLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A call has two server transactions, of INVITE and BYE, each for 64 times T1 (RFC 3261 17.2.2, RFC
            // 6026 7.1), which is 64 of them for each call a second over UDP: 3,000 calls a second from one PBX,
            // 6,000 in all. One that is over takes less than a kilobyte.
            transactions: 400_000,
            transactions_per_source: 200_000,
            calls: 20_000,
            connections: 1_000,
            connections_per_source: 64,
            queued_per_connection: 64,
            message: MessageLimits::default(),
        }
    }
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Without a listener nothing can be sent.
    #[error("no listener")]
    NoListener,
    /// A wildcard address cannot be advertised.
    #[error("listener {0}: a wildcard address or port cannot be advertised")]
    Wildcard(SocketAddr),
    /// Two trunks have one name.
    #[error("trunk {0}: name used twice")]
    DuplicateTrunk(String),
    /// No listener has the trunk's transport and address family, or its own address.
    #[error("trunk {0}: no listener with its transport, address family and local address")]
    NoListenerFor(String),
    /// The trunk has no codec this crate negotiates.
    #[error("trunk {0}: no codec")]
    NoCodec(String),
    /// Media of the trunk is keyed by DTLS, and there is no certificate for that.
    #[error("trunk {0}: no certificate for DTLS")]
    NoMediaCertificate(String),
    /// The trunk would have to be called by WebSocket, which only its clients open (RFC 7118).
    #[error("trunk {0}: nobody can be called by WebSocket")]
    WebTarget(String),
    /// The trunk's target is a name, and the endpoint is not set up for DNS.
    #[error("trunk {0}: its target is a name, which needs DNS")]
    NoDns(String),
    /// The trunk's registration cannot be written into a request.
    #[error("trunk {trunk}: {detail}")]
    Registration {
        /// Which trunk.
        trunk: String,
        /// What is wrong.
        detail: String,
    },
    /// The collector of the trunk's quality reports cannot be reached as configured.
    #[error("trunk {trunk}: {detail}")]
    Collector {
        /// Which trunk.
        trunk: String,
        /// What is wrong.
        detail: String,
    },
    /// The account contradicts itself, or another.
    #[error("account of trunk {trunk}: {error}")]
    Account {
        /// The trunk it is.
        trunk: String,
        /// What is wrong.
        error: AccountError,
    },
    /// The trunk's number rules contradict themselves.
    #[error("trunk {trunk}: {detail}")]
    Numbers {
        /// Which trunk.
        trunk: String,
        /// What is wrong.
        detail: String,
    },
}
