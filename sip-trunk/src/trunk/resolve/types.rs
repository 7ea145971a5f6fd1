//! Names, questions and records.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::Transport;

/// A domain name: in lower case, without the dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(Box<str>);

/// A text is no domain name (RFC 1035 2.3.1, with the underscores of RFC 2782).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no domain name")]
pub struct DomainError;

impl Domain {
    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name with labels in front, such as `_sip._udp`.
    pub(super) fn below(&self, labels: &str) -> Option<Self> {
        format!("{labels}.{}", self.0).parse().ok()
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    fn from_str(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // RFC 3696 2: the last label is not all digits, or it would be an address.
        let top = text.rsplit('.').next().unwrap_or_default();
        if text.len() > 253 || !text.split('.').all(label) || top.bytes().all(|b| b.is_ascii_digit()) {
            return Err(DomainError);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }
}

/// A host: an address, or a name that leads to some.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address: nothing is asked.
    Address(IpAddr),
    /// A name.
    Name(Domain),
}

/// Where requests are to go, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The host.
    pub host: Host,
    /// The port; with one there is no SRV (RFC 3263 4.2).
    pub port: Option<u16>,
    /// The transport; `None`: NAPTR decides, and failing that SRV (RFC 3263 4.1).
    pub service: Option<Service>,
}

impl Destination {
    /// Builds the destination of a name without port and transport.
    #[must_use]
    pub fn of(name: Domain) -> Self {
        Self { host: Host::Name(name), port: None, service: None }
    }
}

/// A transport as DNS tells them apart (RFC 3263 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// SIP over UDP.
    Udp,
    /// SIP over TCP.
    Tcp,
    /// SIP over TLS.
    Tls,
}

impl Service {
    /// Returns what a transport is to DNS; `None` for WebSocket, whose clients are called over the
    /// connection they opened alone (RFC 7118 5.2.2).
    #[must_use]
    pub fn of(transport: Transport) -> Option<Self> {
        match transport {
            Transport::Udp => Some(Service::Udp),
            Transport::Tcp => Some(Service::Tcp),
            Transport::Tls => Some(Service::Tls),
            Transport::Ws | Transport::Wss => None,
        }
    }

    /// Returns the labels of its SRV records (RFC 3263 4.1).
    #[must_use]
    pub fn labels(self) -> &'static str {
        match self {
            Service::Udp => "_sip._udp",
            Service::Tcp => "_sip._tcp",
            Service::Tls => "_sips._tcp",
        }
    }

    /// Returns its service field in NAPTR records (RFC 3263 4.1).
    #[must_use]
    pub fn naptr(self) -> &'static str {
        match self {
            Service::Udp => "SIP+D2U",
            Service::Tcp => "SIP+D2T",
            Service::Tls => "SIPS+D2T",
        }
    }

    /// Returns its port where none is named (RFC 3261 19.1.2).
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Service::Udp | Service::Tcp => 5060,
            Service::Tls => 5061,
        }
    }
}

/// The type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RecordType {
    /// NAPTR (RFC 3403).
    Naptr,
    /// SRV (RFC 2782).
    Srv,
    /// A (RFC 1035).
    A,
    /// AAAA (RFC 3596).
    Aaaa,
}

/// A question to DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// To be given back with the answer.
    pub id: u64,
    /// The name.
    pub name: Domain,
    /// The type.
    pub record: RecordType,
}

/// A record of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name it is of.
    pub name: String,
    /// Its time to live, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: RecordData,
}

/// What a record says. Names are as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordData {
    /// NAPTR (RFC 3403 4).
    Naptr {
        /// Lower comes first.
        order: u16,
        /// Within one order, lower comes first.
        preference: u16,
        /// `s`: an SRV name follows.
        flags: String,
        /// Such as `SIP+D2U`.
        service: String,
        /// Empty for SIP (RFC 3263 4.1).
        regexp: String,
        /// The next name.
        replacement: String,
    },
    /// SRV (RFC 2782).
    Srv {
        /// Lower comes first.
        priority: u16,
        /// Within one priority, its share.
        weight: u16,
        /// The port.
        port: u16,
        /// The host; `.`: the service is not offered.
        target: String,
    },
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name to look under (RFC 1034 3.6.2).
    Cname(String),
}

/// A question without records in its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such name, or nothing of this type (RFC 2308 2).
    Nothing {
        /// For how many seconds that holds, where the answer says so.
        ttl: Option<u32>,
    },
    /// No usable answer came: a timeout, a failing server, nonsense.
    Unavailable,
}
