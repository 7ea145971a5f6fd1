//! Where reports go: the URI of a collector, and whether it can be reached as configured.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::dialog::without_port;
use crate::endpoint::Listener;
use crate::endpoint::api::Transport;
use crate::trunk::TrunkConfig;
use crate::trunk::resolve::{Destination, Domain, Host, Service};

/// The longest URI.
const URI_MAX: usize = 256;

/// The URI of a collector of quality reports, such as `sip:collector@example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    uri: String,
    user: Option<String>,
    destination: Destination,
}

/// Says why a text is no URI of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectorError {
    /// It is of another scheme, or far too long.
    #[error("a collector is a sip: URI, such as \"sip:collector@example.com\"")]
    Scheme,
    /// The user part is empty, or holds what must be escaped.
    #[error("the user of a collector must be a SIP user part, escaped where needed")]
    User,
    /// The host is neither a name nor an address.
    #[error("the host of a collector must be a name or an address")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the port of a collector must be a number from 1 to 65535")]
    Port,
    /// A parameter cannot be written into a request.
    #[error("the parameters of a collector must be NAME or NAME=VALUE")]
    Parameter,
    /// The transport is none that requests can be sent by.
    #[error("the transport of a collector must be udp, tcp or tls")]
    Transport,
}

impl Collector {
    /// Returns the URI as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// Returns it as it stands in To: no port or transport there (RFC 3261 19.1.1).
    pub(super) fn identity(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        match &self.destination.host {
            Host::Name(name) => format!("<sip:{user}{name}>"),
            Host::Address(IpAddr::V4(address)) => format!("<sip:{user}{address}>"),
            Host::Address(IpAddr::V6(address)) => format!("<sip:{user}[{address}]>"),
        }
    }

    pub(super) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Says whether it is reached by way of the trunk's targets: it is on the trunk's own host, and no port or
    /// transport says otherwise.
    pub(super) fn is_at(&self, trunk: &TrunkConfig) -> bool {
        let Destination { host, port, service } = &self.destination;
        let own = without_port(&trunk.host).trim_matches(['[', ']']);
        let same = match host {
            Host::Name(name) => name.as_str().eq_ignore_ascii_case(own),
            Host::Address(address) => own.parse() == Ok(*address),
        };
        same && port.is_none() && service.is_none()
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl FromStr for Collector {
    type Err = CollectorError;

    /// Reads a `sip` URI without password and headers (RFC 3261 19.1.1).
    fn from_str(text: &str) -> Result<Self, CollectorError> {
        let scheme = text.get(..4).filter(|scheme| scheme.eq_ignore_ascii_case("sip:"));
        let rest = scheme.and_then(|_| text.get(4..)).filter(|_| text.len() <= URI_MAX);
        let rest = rest.ok_or(CollectorError::Scheme)?;
        let (user, rest) = rest.split_once('@').map_or((None, rest), |(user, rest)| (Some(user), rest));
        // RFC 3261 25.1: user is unreserved, escaped or user-unreserved.
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()%&=+$,;?/".contains(&b);
        if user.is_some_and(|user| user.is_empty() || !user.bytes().all(fits)) {
            return Err(CollectorError::User);
        }
        let (authority, parameters) = rest.split_once(';').map_or((rest, None), |(a, p)| (a, Some(p)));
        let end = authority.find(']').map_or(0, |end| end + 1);
        let (host, port) = match authority.get(end..).and_then(|tail| tail.find(':')) {
            Some(colon) => (authority.get(..end + colon), authority.get(end + colon + 1..)),
            None => (Some(authority), None),
        };
        let host = read_host(host.unwrap_or_default()).ok_or(CollectorError::Host)?;
        let number = |text: &str| text.parse().ok().filter(|port| *port != 0).ok_or(CollectorError::Port);
        let port: Option<u16> = port.map(number).transpose()?;
        let mut service = None;
        for parameter in parameters.into_iter().flat_map(|parameters| parameters.split(';')) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let token = |text: &str| text.bytes().all(crate::text::is_token);
            if name.is_empty() || !token(name) || !token(value) || (value.is_empty() && parameter != name) {
                return Err(CollectorError::Parameter);
            }
            if name.eq_ignore_ascii_case("transport") {
                service = Some(match value.to_ascii_lowercase().as_str() {
                    "udp" => Service::Udp,
                    "tcp" => Service::Tcp,
                    "tls" => Service::Tls,
                    _ => return Err(CollectorError::Transport),
                });
            }
        }
        let user = user.map(str::to_owned);
        Ok(Self { uri: text.to_owned(), user, destination: Destination { host, port, service } })
    }
}

fn read_host(text: &str) -> Option<Host> {
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']')?.parse().ok()?;
        return Some(Host::Address(IpAddr::V6(address)));
    }
    match text.parse() {
        Ok(address) => Some(Host::Address(IpAddr::V4(address))),
        Err(_) => text.parse::<Domain>().ok().map(Host::Name),
    }
}

/// Checks that the collector of a trunk, if it has one, can be reached with these listeners. That of an account is
/// never reached by way of the account.
///
/// # Errors
/// What stands against it, in words.
pub(crate) fn check(
    trunk: &TrunkConfig,
    account: bool,
    dns: bool,
    listeners: &[Listener],
) -> Result<(), String> {
    let elsewhere = |collector: &&Collector| account || !collector.is_at(trunk);
    let Some(collector) = trunk.quality_collector.as_ref().filter(elsewhere) else {
        return Ok(());
    };
    let Destination { host, service, .. } = collector.destination();
    if *service == Some(Service::Tls) {
        // Whose certificate is expected is known of trunks alone.
        return Err(
            "a collector by TLS must be on the trunk's own host, without port and transport".to_owned()
        );
    }
    if matches!(host, Host::Name(_)) && !dns {
        return Err(format!("its collector {collector} is a name, which needs DNS"));
    }
    let family = |listener: &Listener| match host {
        Host::Name(_) => true,
        Host::Address(address) => address.is_ipv4() == listener.local.is_ipv4(),
    };
    let fits = |listener: &&Listener| {
        let by = Service::of(listener.transport);
        matches!(listener.transport, Transport::Udp | Transport::Tcp) && service.is_none_or(|s| by == Some(s))
    };
    match listeners.iter().filter(fits).any(family) {
        true => Ok(()),
        false => Err(format!("no listener is for its collector {collector}")),
    }
}
