use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use call_model::{Codec, TrunkName};

use super::identity::IdentityHeader;
use super::numbers::NumberRules;
use super::registration::Registration;
use crate::Transport;
use crate::auth::Credentials;
use crate::wire::tolerance::Tolerance;

/// A trunk as its owner configured it.
#[derive(Clone, Debug)]
pub struct TrunkConfig {
    /// Its name.
    pub name: TrunkName,
    /// Where requests go.
    pub target: SocketAddr,
    /// The host part of request URIs, with a port if that belongs there.
    pub host: String,
    /// The listener requests leave by, with the address it advertises; `None`: the first that fits.
    pub local: Option<SocketAddr>,
    /// The transport towards the target.
    pub transport: Transport,
    /// Requests from these addresses belong to this trunk, and so do those from the target's.
    pub sources: Vec<IpAddr>,
    /// For digest challenges of this trunk.
    pub credentials: Option<Credentials>,
    /// How the trunk registers; `None`: it knows us by our address.
    pub registration: Option<Registration>,
    /// The codecs, in order of preference.
    pub codecs: Vec<Codec>,
    /// Milliseconds of audio per packet.
    pub packet_time_ms: u16,
    /// How often the target is asked by OPTIONS whether it lives; `None`: never.
    pub options_interval: Option<Duration>,
    /// How long an answer to OPTIONS may take.
    pub options_timeout: Duration,
    /// How many OPTIONS in a row must fail before the trunk is down.
    pub options_failures: u32,
    /// How many OPTIONS in a row must succeed before a trunk that was down is up.
    pub options_successes: u32,
    /// How many calls it may carry, both ways together.
    pub max_calls: usize,
    /// How long an outgoing call may ring.
    pub ring_timeout: Duration,
    /// How long an incoming call may go unanswered; `None`: [`Timers::incoming`](crate::Timers).
    pub answer_timeout: Option<Duration>,
    /// Which malformations are repaired.
    pub tolerance: Tolerance,
    /// How numbers are written.
    pub numbers: NumberRules,
    /// Which header carries the caller's identity.
    pub identity: IdentityHeader,
    /// Identity headers of this trunk are believed, and private numbers are shown to it (RFC 3325).
    pub trusted: bool,
    /// What happens to requests of more than 1300 bytes on UDP.
    pub large_requests: LargeRequests,
}

impl TrunkConfig {
    /// Builds a trunk over UDP with PCMA and PCMU, 20 ms packets, no credentials and no OPTIONS.
    pub fn new(name: TrunkName, target: SocketAddr) -> Self {
        Self {
            name,
            target,
            host: target.ip().to_canonical().to_string(),
            local: None,
            transport: Transport::Udp,
            sources: Vec::new(),
            credentials: None,
            registration: None,
            codecs: vec![Codec::Pcma, Codec::Pcmu],
            packet_time_ms: 20,
            options_interval: None,
            options_timeout: Duration::from_secs(5),
            options_failures: 3,
            options_successes: 2,
            max_calls: 1000,
            ring_timeout: Duration::from_secs(120),
            answer_timeout: None,
            tolerance: Tolerance::default(),
            numbers: NumberRules::default(),
            identity: IdentityHeader::default(),
            trusted: true,
            large_requests: LargeRequests::default(),
        }
    }
}

/// What happens to a request of more than 1300 bytes on a UDP trunk (RFC 3261 18.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LargeRequests {
    /// It goes by TCP to the same target, and by UDP if that fails or no TCP listener exists.
    #[default]
    PreferTcp,
    /// It goes by UDP, in fragments: for trunks that have no TCP.
    AllowUdp,
}
