//! The configuration file: its shape, and the checks that run before anything is bound.
//!
//! Unknown keys are refused. Every error names the file, the line, the key and the remedy.

mod check;
mod error;
mod sessions;
mod shape;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use admin_api::{Scope, TokenDigest};
use call_model::{Codec, Handle, Number, TrunkName};
use p2p_edge::node::BootstrapWays;
use sip_trunk::auth::{Credentials, Secret};
use sip_trunk::trunk::details::Interconnect;
use sip_trunk::trunk::emergency::{EmergencyCall, EmergencyService};
use sip_trunk::trunk::identity::IdentityHeader;
use sip_trunk::trunk::location::Location;
use sip_trunk::trunk::numbers::NumberRules;
use sip_trunk::trunk::parameters::TrunkGroup;
use sip_trunk::trunk::profile::Profile;
use sip_trunk::trunk::resolve::Destination;
use sip_trunk::trunk::{GroupForm, LargeRequests};
use sip_trunk::wire::tolerance::Tolerance;
use sip_trunk::{
    AccessList, AccountSecret, Authentication, Collector, Registration, Reliable, Transport, UnknownSource,
};
use transcoder::EdgeCodec;

pub use error::ConfigError;
pub use sessions::{DigitForm, Sessions};

/// Everything the daemon was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// The node in the overlay.
    pub overlay: Overlay,
    /// SIP listeners; `None` for a supernode without trunks.
    pub sip: Option<Sip>,
    /// Whom names are asked of.
    pub dns: Dns,
    /// Media ports, threads and codec settings.
    pub media: Media,
    /// Trunks in the order of the file.
    pub trunks: Vec<Trunk>,
    /// Routes from the overlay to trunks, longest prefix first.
    pub routes: Vec<Route>,
    /// Numbers served: number to overlay user.
    pub numbers: HashMap<Number, Handle>,
    /// What is permitted.
    pub policy: Policy,
    /// What becomes of emergency calls of overlay users.
    pub emergency: Emergency,
    /// Bounds on live calls.
    pub limits: Limits,
    /// The admin listener; `None` switches it off.
    pub admin: Option<Admin>,
    /// Logging.
    pub log: Log,
    /// Where captures and figures of quality go; `None`: nowhere.
    pub hep: Option<Hep>,
    /// What is allowed and yet most likely not meant.
    pub warnings: Vec<ConfigError>,
}

/// What this node is in the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// DHT server, relay, rendezvous.
    Supernode,
    /// A supernode that also joins the telephone world.
    Gateway,
}

impl Role {
    /// Returns the name used in the configuration and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Supernode => "supernode",
            Role::Gateway => "gateway",
        }
    }
}

/// The `[overlay]` table.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// What the node is.
    pub role: Role,
    /// PEM file of the node's private key, its certificate and those above it.
    pub identity_file: PathBuf,
    /// PEM file of the root certificate.
    pub trust_file: PathBuf,
    /// Revocation list, if there is one.
    pub revocation_file: Option<PathBuf>,
    /// Multiaddresses to listen on.
    pub listen: Vec<String>,
    /// Multiaddresses by which others reach this node, where they differ.
    pub external: Vec<String>,
    /// Multiaddresses of nodes to join by, each ending in `/p2p/ID`.
    pub bootstrap: Vec<String>,
    /// Other ways of joining.
    pub join: BootstrapWays,
    /// E.164 prefixes without `+` that a gateway offers to overlay users.
    pub offer: Vec<String>,
    /// Price per minute in micro-units of the currency, told in offers.
    pub price_per_minute_micros: u64,
    /// ISO 4217 code of the currency.
    pub currency: String,
    /// The STUN and TURN server, where there is one.
    pub turn: Option<Turn>,
}

/// The `[overlay.turn]` table.
#[derive(Clone, Debug)]
pub struct Turn {
    /// Addresses for datagrams.
    pub udp: Vec<SocketAddr>,
    /// Addresses for TCP.
    pub tcp: Vec<SocketAddr>,
    /// Addresses for TLS.
    pub tls: Vec<SocketAddr>,
    /// PEM files of the certificate with those above it, and of its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name in the certificate.
    pub name: Option<String>,
    /// By which addresses others reach this host.
    pub external: Vec<IpAddr>,
    /// Addresses of this host for relayed addresses; empty for those listened on.
    pub relay: Vec<IpAddr>,
    /// Ports of relayed addresses.
    pub relay_ports: RangeInclusive<u16>,
    /// Networks to which is relayed though they are not public.
    pub allow: Vec<p2p_edge::turn::Subnet>,
    /// Allocations at one time.
    pub allocations: usize,
    /// Allocations of one user's device.
    pub allocations_per_user: usize,
    /// What one allocation may relay each way, in kbit/s.
    pub kbit_s: u64,
    /// How long a credential is good.
    pub lifetime: Duration,
}

/// The `[sip]` table.
#[derive(Clone, Debug)]
pub struct Sip {
    /// Listeners.
    pub listen: Vec<(Transport, SocketAddr)>,
    /// What a request from an address of no trunk gets.
    pub unknown_source: UnknownSource,
    /// Whose messages are read.
    pub access: AccessList,
    /// How those are dealt with who try passwords of accounts.
    pub authentication: Authentication,
    /// The `User-Agent` and `Server` header.
    pub user_agent: String,
    /// Our certificate; `None` where no listener and no trunk needs one.
    pub tls: Option<Tls>,
    /// Web origins (RFC 6454) whose pages may open WebSockets; `*` for any.
    pub websocket_origins: Vec<String>,
    /// Differentiated services code point of signalling, 0 to 63 (RFC 2474).
    pub dscp: u8,
}

/// The `[sip.tls]` table. The files are read at start, and again on SIGHUP.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file of our certificate and those above it.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authorities whose certificates peers may show.
    pub client_ca: Option<PathBuf>,
    /// Whether a peer that shows none is refused.
    pub require_client_certificate: bool,
    /// Whether TLS 1.2 is refused.
    pub only_1_3: bool,
}

/// What is particular about TLS with one trunk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrunkTls {
    /// PEM file of the authorities that may have issued its certificate; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// Whom its certificate must be for when we connect: a domain or an address (RFC 5922).
    pub server_name: String,
    /// PEM files of the certificate we show and of its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// Not empty: its requests are told by a certificate for one of these names, and by no address.
    pub names: Vec<String>,
    /// Whether the common name of a certificate without subjectAltName counts.
    pub allow_common_name: bool,
}

/// The `[dns]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The servers; none: those of the system.
    pub servers: Vec<SocketAddr>,
    /// How long one of them may take.
    pub timeout: Duration,
}

/// The `[media]` table.
#[derive(Clone, Debug)]
pub struct Media {
    /// Address of the trunk legs.
    pub trunk_address: IpAddr,
    /// Ports of the trunk legs; RTP on even ports, RTCP above.
    pub trunk_ports: RangeInclusive<u16>,
    /// Address of the overlay legs.
    pub overlay_address: IpAddr,
    /// Ports of the overlay legs.
    pub overlay_ports: RangeInclusive<u16>,
    /// Worker threads.
    pub threads: usize,
    /// Niceness of those threads, -20 to 19.
    pub thread_niceness: i32,
    /// How they receive.
    pub receive: Receive,
    /// Opus encoder complexity, 0 to 10.
    pub opus_complexity: u8,
    /// Opus bit rate in bit/s, 6000 to 64000.
    pub opus_bitrate: u32,
    /// Whether silence from the trunk is left unencoded.
    pub suppress_silence: bool,
    /// Whether overlay legs carry G.711 beside Opus, where the other side takes it.
    pub edge_codec: EdgeCodec,
    /// How long a leg may be silent before the call is ended.
    pub silence_timeout: Duration,
    /// How long a port rests after a call before another may have it.
    pub port_quarantine: Duration,
    /// Differentiated services code point of media, 0 to 63 (RFC 2474).
    pub dscp: u8,
}

/// By which system call media threads receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Receive {
    /// `recvmmsg`, once for each socket that has something.
    #[default]
    Recvmmsg,
    /// io_uring, once for all sockets of a thread. Where the kernel refuses it, the other.
    IoUring,
}

impl Receive {
    /// Returns the value as configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Receive::Recvmmsg => "recvmmsg",
            Receive::IoUring => "io_uring",
        }
    }
}

/// One `[[trunks]]` entry.
#[derive(Clone, Debug)]
pub struct Trunk {
    /// Its name.
    pub name: TrunkName,
    /// Transport towards it.
    pub transport: Transport,
    /// Where requests go; of no meaning where `destination` says.
    pub target: SocketAddr,
    /// The target as a name, which DNS leads on (RFC 3263).
    pub destination: Option<Destination>,
    /// Addresses that are tried after the target.
    pub backups: Vec<SocketAddr>,
    /// How long one target may be silent before a call tries the next.
    pub target_timeout: Duration,
    /// How long a call looks for a target, all together.
    pub failover_limit: Duration,
    /// New calls it may carry a second; `None`: any number.
    pub max_call_rate: Option<u32>,
    /// Whether it may ask to be spared a part of the calls (RFC 7339).
    pub overload_control: bool,
    /// Host part of the request URI.
    pub host: String,
    /// Addresses from which its requests come.
    pub sources: Vec<IpAddr>,
    /// What answers its challenges.
    pub credentials: Option<Credentials>,
    /// Codecs in order of preference.
    pub codecs: Vec<Codec>,
    /// Milliseconds of audio per packet.
    pub packet_time_ms: u16,
    /// Period of the health check; `None` switches it off.
    pub options_interval: Option<Duration>,
    /// Calls it may carry.
    pub max_calls: usize,
    /// How long the far side may ring.
    pub ring_timeout: Duration,
    /// How numbers are written towards it and read from it.
    pub numbers: NumberRules,
    /// Whether its identity headers are believed, and private numbers shown to it (RFC 3325).
    pub trusted: bool,
    /// The header that carries the caller's number towards it, if it is trusted.
    pub identity: IdentityHeader,
    /// Which malformed messages of it are repaired.
    pub tolerance: Tolerance,
    /// What happens to large requests on UDP.
    pub large_requests: LargeRequests,
    /// The listener of `sip.listen` that requests leave by; `None`: the first that fits.
    pub listener: Option<SocketAddr>,
    /// The host of our Contact towards it; `None`: our address.
    pub contact_host: Option<String>,
    /// TLS towards it and from it; `None`: it has nothing to do with TLS.
    pub tls: Option<TrunkTls>,
    /// How it registers here; `None`: it is where its target is.
    pub account: Option<Account>,
    /// How it registers with the trunk; `None`: it does not.
    pub registration: Option<Registration>,
    /// The interop profile that what is not written is taken from.
    pub profile: Option<Profile>,
    /// SIP statuses after which a call may be tried on the next trunk of its route.
    pub retry_statuses: Vec<u16>,
    /// What becomes of reliable provisional responses (RFC 3262); `None`: as the profile has it.
    pub reliable_provisional: Option<Reliable>,
    /// INVITEs go out without an offer.
    pub delayed_offer: bool,
    /// Number shown for callers that have none of their own.
    pub default_caller: Option<Number>,
    /// A call that came by it may go out by it again.
    pub hairpin: bool,
    /// Number portability parameters are passed on to it (RFC 4694); `None`: as the profile has it.
    pub portability: Option<bool>,
    /// The trunk group stamped on calls to it, by which calls may also ask for it (RFC 4904).
    pub trunk_group: Option<(TrunkGroup, GroupForm)>,
    /// It leads to another network: charging vectors are kept and made (RFC 7315).
    pub interconnect: Option<Interconnect>,
    /// Who is told of the quality of its calls (RFC 6035); `None`: nobody.
    pub quality_reports: Option<Collector>,
    /// It is behind an address translator: its media may come from where its signalling does, or from where SRTP
    /// proves it to be, in place of the address in its session description.
    pub nat: bool,
    /// What was written of its sessions; the rest is as the profile has it.
    pub sessions: Sessions,
}

/// The `account` of a trunk: it registers here, and is where it registered from.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// Its user name.
    pub user: String,
    /// The protection domain of its credentials.
    pub realm: String,
    /// What it proves that it knows.
    pub secret: AccountSecret,
    /// The transports it may register over.
    pub transports: Vec<Transport>,
    /// How many contacts it may have at once.
    pub max_contacts: usize,
    /// A contact beyond that takes the place of the oldest, or is refused.
    pub replace_oldest: bool,
    /// The shortest registration.
    pub min_expires: Duration,
    /// The longest registration.
    pub max_expires: Duration,
    /// Requests go where it registered from, whatever its Contact says.
    pub symmetric: bool,
    /// How often a contact over UDP is asked whether it lives; `None`: never.
    pub keep_alive: Option<Duration>,
    /// It stands for many users: it is called by the called number.
    pub many_users: bool,
}

/// One `[[routes]]` entry.
#[derive(Clone, Debug)]
pub struct Route {
    /// Position in the file, from 0.
    pub index: usize,
    /// E.164 prefix without `+`; empty matches every number.
    pub prefix: String,
    /// Trunks in the order in which they are tried.
    pub trunks: Vec<TrunkName>,
    /// Trunks that may call by this route too; overlay users always may.
    pub from: Vec<TrunkName>,
}

/// The `[emergency]` table.
#[derive(Clone, Debug)]
pub struct Emergency {
    /// The numbers, as they are dialled after the `+`.
    pub numbers: Vec<String>,
    /// Where such calls go; `None`: they are refused at once.
    pub trunk: Option<TrunkName>,
    /// The services of the numbers that mean another than whatever help there is (RFC 5031).
    pub services: BTreeMap<String, EmergencyService>,
    /// Where help is to come to; goes with every such call.
    pub location: Option<Arc<Location>>,
}

impl Emergency {
    /// Makes the call for help that a dialled number is; `None` for all other numbers.
    pub(crate) fn call(&self, dialled: &str) -> Option<EmergencyCall> {
        let known = self.numbers.iter().any(|number| number == dialled);
        known.then(|| EmergencyCall {
            dialled: dialled.to_owned(),
            service: self.services.get(dialled).cloned().unwrap_or_default(),
            location: self.location.clone(),
        })
    }
}

impl Default for Emergency {
    /// The numbers that telephones know everywhere (3GPP TS 22.101 10.1), refused.
    fn default() -> Self {
        let numbers = vec!["112".to_owned(), "911".to_owned()];
        Self { numbers, trunk: None, services: BTreeMap::new(), location: None }
    }
}

/// The `[policy]` table: prefixes without `+`.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Prefixes that overlay users may call; empty allows all that is routed.
    pub allow_prefixes: Vec<String>,
    /// Prefixes that nobody may call, whatever is allowed.
    pub deny_prefixes: Vec<String>,
    /// Whether a number that a trunk calls and that is not configured is looked for in the overlay.
    pub find_numbers: bool,
}

/// The `[limits]` table.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Live calls in all.
    pub calls: usize,
    /// Live calls of one overlay user.
    pub calls_per_user: usize,
    /// Finished calls kept for the API.
    pub history: usize,
    /// How long live calls may run on after SIGTERM.
    pub drain: Duration,
}

/// The `[admin]` table.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Digests of the tokens that open it.
    pub tokens: Vec<(TokenDigest, Scope)>,
}

/// The `[log]` table.
#[derive(Clone, Debug)]
pub struct Log {
    /// Filter of the log, such as `info` or `info,sip_trunk=debug`.
    pub filter: String,
    /// JSON lines instead of text.
    pub json: bool,
    /// Whether numbers, handles and addresses are masked.
    pub redact: bool,
}

/// The `[telemetry.hep]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hep {
    /// The collector, by UDP.
    pub collector: SocketAddr,
    /// What the collector tells this agent from others by.
    pub capture_id: u32,
    /// What the collector lets it in by. Goes over the network as it is.
    pub key: Option<Secret>,
    /// Whether SIP messages are sent.
    pub messages: bool,
    /// Whether the quality of calls is.
    pub quality: bool,
}

impl Config {
    /// Reads and checks a file. Nothing is bound or started.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line, key and remedy.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
            file: path.to_owned(),
            line: None,
            key: String::new(),
            problem: error.to_string(),
            remedy: "give the path of a readable file with --config".into(),
        })?;
        Self::parse(path, &text)
    }

    /// Reads and checks the text of a file; `path` is for messages and for relative paths in it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        check::parse(path, text)
    }
}

#[cfg(test)]
mod tests;
