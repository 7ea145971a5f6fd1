use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use call_model::{Codec, SrtpSuite, TrunkName};

use super::details::Interconnect;
use super::diversion::DiversionHeader;
use super::emergency::EmergencyForm;
use super::identity::{CliSource, IdentityHeader, PrivacyForm};
use super::numbers::NumberRules;
use super::parameters::TrunkGroup;
use super::profile::{Dtmf, Level, Modify, Profile, Refresher};
use super::referral::{Redirects, Replacing, Transfers};
use super::registration::Registration;
use super::resolve::{Destination, Host};
use super::retry::DEFAULT_RETRY;
use crate::Transport;
use crate::auth::Credentials;
use crate::quality::Collector;
use crate::sdp::Srtp;
use crate::wire::tolerance::Tolerance;

/// The session interval that RFC 4028 4 recommends, in seconds.
const USUAL_INTERVAL: u32 = 1800;

/// A trunk as its owner configured it.
#[derive(Clone, Debug)]
pub struct TrunkConfig {
    /// Its name.
    pub name: TrunkName,
    /// Where requests go, unless [`Self::destination`] says.
    pub target: SocketAddr,
    /// Further targets, tried in order after the first (RFC 3263 4.3).
    pub backups: Vec<SocketAddr>,
    /// The target as a name, instead of [`Self::target`] and [`Self::backups`]: it leads to the targets
    /// by DNS (RFC 3263). The endpoint must be set up for DNS.
    pub destination: Option<Destination>,
    /// How long one target may be silent before a call tries the next.
    pub target_timeout: Duration,
    /// How long a call looks for a target that is not silent, all together.
    pub failover_limit: Duration,
    /// The host part of request URIs, with a port if that belongs there.
    pub host: String,
    /// The listener requests leave by, with the address it advertises; `None`: the first that fits.
    pub local: Option<SocketAddr>,
    /// The host of our Contact, instead of our address: a name that leads to us, for peers that know us
    /// by no other. A trunk that registers, or is registered, has a Contact of its own.
    pub contact_host: Option<String>,
    /// The transport towards the target.
    pub transport: Transport,
    /// Requests from these addresses belong to this trunk, and so do those from the target's.
    pub sources: Vec<IpAddr>,
    /// Whom its certificate may be for: domains or addresses (RFC 5922). Not empty: requests belong to
    /// this trunk by a verified certificate with one of these names, and by no address.
    pub certificate_names: Vec<String>,
    /// The common name of a certificate without subjectAltName counts as one of its names.
    pub allow_common_name: bool,
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
    /// How many new calls it may carry a second, both ways together, and as many at once; `None`: any
    /// number.
    pub max_call_rate: Option<u32>,
    /// Its overload control is taken part in (RFC 7339): it may ask to be spared a part of the calls.
    pub overload_control: bool,
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
    /// What is done with reliable provisional responses.
    pub reliable_provisional: Reliable,
    /// Our INVITEs carry no offer: the far side makes it, in its 2xx or in a reliable provisional
    /// response (RFC 3261 13.2.1), and gets the answer in ACK or PRACK. For peers that insist.
    pub delayed_offer: bool,
    /// The largest request that goes by UDP where TCP can be had, in bytes.
    pub largest_datagram: usize,
    /// Which header of its requests holds the caller's number.
    pub cli: CliSource,
    /// How it hears that a caller is to be hidden.
    pub privacy: PrivacyForm,
    /// In which header it hears of diversions.
    pub diversion: DiversionHeader,
    /// Number portability parameters are passed on to it (RFC 4694).
    pub portability: bool,
    /// The trunk group stamped on calls to it (RFC 4904), and how.
    pub trunk_group: Option<(TrunkGroup, GroupForm)>,
    /// It leads to another network: charging vectors are kept and made (RFC 7315).
    pub interconnect: Option<Interconnect>,
    /// What a 2xx means whose description differs from that of the 18x before.
    pub answer_change: AnswerChange,
    /// What emergency calls on it are written for.
    pub emergency: EmergencyForm,
    /// How a call is held.
    pub hold: HoldForm,
    /// The method that changes a session.
    pub modify: Modify,
    /// The session interval that is asked for, in seconds, 90 to 86,400 (RFC 4028 4); `None`: we ask
    /// for no timer, and honour what the far side asks for. A far side that knows no timers is
    /// refreshed by us, and not given up because an interval has passed.
    pub session_expires: Option<u32>,
    /// Who shall refresh sessions where we may say so.
    pub refresher: Refresher,
    /// Early media is let through only as P-Early-Media of the far side allows (RFC 5009). For trunks
    /// between networks.
    pub p_early_media: bool,
    /// Whether media is protected by SRTP: with keys in the session description (RFC 4568), which are safe only where
    /// the signalling is, or by DTLS (RFC 5763).
    pub srtp: Srtp,
    /// The suites of SRTP that are offered and taken, in order of preference.
    pub srtp_suites: Vec<SrtpSuite>,
    /// Telephone events (RFC 4733) are offered and accepted.
    pub telephone_events: bool,
    /// Digits are sent by INFO, in this form; `None`: they go with the media.
    pub info_digits: Option<InfoDigits>,
    /// What becomes of the transfers it asks for.
    pub transfers: Transfers,
    /// What is done with Replaces.
    pub replacing: Replacing,
    /// Which redirections of it are followed.
    pub redirects: Redirects,
    /// Final answers after which another trunk may be tried; see [`retry`](super::retry).
    pub retry_statuses: Vec<u16>,
    /// Who is told of the quality of its calls (RFC 6035); `None`: nobody.
    pub quality_collector: Option<Collector>,
}

impl TrunkConfig {
    /// Builds a trunk over UDP with PCMA and PCMU, 20 ms packets, no credentials and no OPTIONS.
    pub fn new(name: TrunkName, target: SocketAddr) -> Self {
        Self {
            name,
            target,
            backups: Vec::new(),
            destination: None,
            target_timeout: Duration::from_secs(8),
            failover_limit: Duration::from_secs(40),
            host: target.ip().to_canonical().to_string(),
            local: None,
            contact_host: None,
            transport: Transport::Udp,
            sources: Vec::new(),
            certificate_names: Vec::new(),
            allow_common_name: false,
            credentials: None,
            registration: None,
            codecs: vec![Codec::Pcma, Codec::Pcmu],
            packet_time_ms: 20,
            options_interval: None,
            options_timeout: Duration::from_secs(5),
            options_failures: 3,
            options_successes: 2,
            max_calls: 1000,
            max_call_rate: None,
            overload_control: false,
            ring_timeout: Duration::from_secs(120),
            answer_timeout: None,
            tolerance: Tolerance::default(),
            numbers: NumberRules::default(),
            identity: IdentityHeader::default(),
            trusted: true,
            large_requests: LargeRequests::default(),
            reliable_provisional: Reliable::default(),
            delayed_offer: false,
            largest_datagram: 1300,
            cli: CliSource::default(),
            privacy: PrivacyForm::default(),
            diversion: DiversionHeader::default(),
            portability: true,
            trunk_group: None,
            interconnect: None,
            answer_change: AnswerChange::default(),
            emergency: EmergencyForm::default(),
            hold: HoldForm::default(),
            modify: Modify::default(),
            session_expires: None,
            refresher: Refresher::default(),
            p_early_media: false,
            srtp: Srtp::default(),
            srtp_suites: Srtp::DEFAULT_SUITES.to_vec(),
            telephone_events: true,
            info_digits: None,
            transfers: Transfers::default(),
            replacing: Replacing::default(),
            redirects: Redirects::default(),
            retry_statuses: DEFAULT_RETRY.to_vec(),
            quality_collector: None,
        }
    }

    /// Builds a trunk as [`Self::new`] does, whose targets are where a name leads. The transport of
    /// `destination` is its transport; UDP if it names none.
    pub fn named(name: TrunkName, destination: Destination) -> Self {
        let host = match &destination.host {
            Host::Name(host) => host.to_string(),
            Host::Address(address @ IpAddr::V6(_)) => format!("[{address}]"),
            Host::Address(address) => address.to_string(),
        };
        let transport = destination.service.map_or(Transport::Udp, Transport::of);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], destination.port.unwrap_or(transport.default_port())));
        Self { host, transport, destination: Some(destination), ..Self::new(name, nowhere) }
    }

    /// Takes over every switch of an interop profile that has a place here;
    /// [`Profile::explain`] says which are not honoured yet. Country code and prefixes stay.
    #[must_use]
    pub fn with_profile(mut self, profile: &Profile) -> Self {
        self.identity = profile.identity;
        self.privacy = profile.privacy;
        self.cli = profile.cli;
        self.diversion = profile.diversion;
        self.numbers.format = profile.numbers;
        self.numbers.user_phone = profile.user_phone;
        self.reliable_provisional = match profile.reliable {
            Level::Off => Reliable::Off,
            Level::Preferred => Reliable::Supported,
            Level::Required => Reliable::Required,
        };
        self.hold = profile.hold;
        self.modify = profile.modify;
        self.refresher = profile.refresher;
        if profile.refresher != Refresher::AsAsked {
            self.session_expires = self.session_expires.or(Some(USUAL_INTERVAL));
        }
        self.srtp = match profile.srtp {
            Level::Off => Srtp::Never,
            Level::Preferred => Srtp::Preferred,
            Level::Required => Srtp::Required,
        };
        self.telephone_events = profile.dtmf == Dtmf::Events;
        self.info_digits = (profile.dtmf == Dtmf::Info).then_some(InfoDigits::Relay);
        self.transfers = if profile.refer { Transfers::Accept } else { Transfers::Refuse };
        self.replacing = profile.replacing;
        self.redirects.policy = profile.redirects;
        self.answer_change = profile.answer_change;
        self.codecs = profile.codecs.to_vec();
        self.packet_time_ms = profile.packet_time_ms;
        self.options_interval = profile.options_interval;
        self.retry_statuses = profile.retry.to_vec();
        self.target_timeout = profile.target_timeout;
        self.overload_control = profile.overload_control;
        self.largest_datagram = profile.largest_datagram;
        self
    }

    /// Says whether another trunk may be tried after a call on this one ended with `status`, or
    /// without any.
    pub fn may_try_elsewhere(&self, status: Option<u16>) -> bool {
        super::retry::may_try_elsewhere(status, &self.retry_statuses)
    }
}

/// What is done with reliable provisional responses (RFC 3262). Whatever is chosen, one that the far
/// side sends is acknowledged by PRACK: without, it would give the call up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reliable {
    /// Never offered; an INVITE that requires them is refused with 420.
    Off,
    /// Offered in our INVITEs; our own provisional responses are reliable where the INVITE requires
    /// that.
    #[default]
    Supported,
    /// Required in our INVITEs; our own provisional responses are always reliable, and an INVITE
    /// whose sender does not support that is refused with 421.
    Required,
}

impl Reliable {
    /// Returns the value of Supported headers, with what else is supported from a trunk.
    pub(crate) fn supported(self, transfers: Transfers, replacing: Replacing) -> &'static str {
        let transfers = transfers == Transfers::Accept;
        match (self != Reliable::Off, replacing.accepts(), transfers) {
            (false, false, false) => "timer",
            (false, false, true) => "timer, norefersub",
            (false, true, false) => "timer, replaces",
            (false, true, true) => "timer, replaces, norefersub",
            (true, false, false) => "timer, 100rel",
            (true, false, true) => "timer, 100rel, norefersub",
            (true, true, false) => "timer, 100rel, replaces",
            (true, true, true) => "timer, 100rel, replaces, norefersub",
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

/// What a 2xx means whose description differs from that of an unreliable 18x before it, with the
/// same To tag (RFC 3261 13.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerChange {
    /// It is the answer: the 18x only previewed one. Carriers mean it so.
    #[default]
    Follow,
    /// The first description is the answer, and every later one is ignored, to the letter.
    Ignore,
}

impl AnswerChange {
    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            AnswerChange::Follow => "follow",
            AnswerChange::Ignore => "ignore",
        }
    }
}

/// How a call is held (RFC 3264 8.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldForm {
    /// `sendonly`: music may be played.
    #[default]
    SendOnly,
    /// `inactive`.
    Inactive,
}

impl HoldForm {
    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            HoldForm::SendOnly => "sendonly",
            HoldForm::Inactive => "inactive",
        }
    }
}

/// The body of an INFO with a digit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InfoDigits {
    /// `application/dtmf-relay`: `Signal=5` and `Duration=160`.
    #[default]
    Relay,
    /// `application/dtmf`: the digit alone.
    Plain,
}

/// How a trunk group is stamped on a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupForm {
    /// `tgrp` and `trunk-context` in Contact (RFC 4904 5).
    #[default]
    Contact,
    /// `otg` in From, as some carriers want it.
    Otg,
}
