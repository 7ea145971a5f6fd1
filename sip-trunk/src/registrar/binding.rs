//! Contacts of accounts: how they are read, compared and kept (RFC 3261 10.3, RFC 5626 6).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::endpoint::io::Path;
use crate::text;
use crate::wire::message::addr_uri;

/// The longest URI of a contact or a path that is kept.
pub(super) const MAX_URI: usize = 512;

/// A binding of an address of record to a contact.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(super) serial: u64,
    pub(super) contact: Contact,
    pub(super) call_id: String,
    pub(super) cseq: u32,
    pub(super) expires: Instant,
    /// Which REGISTER refreshed it last, counted over all.
    pub(super) refreshed: u64,
    /// The way its REGISTER came.
    pub(super) flow: Path,
    /// The proxies between, to be visited in this order (RFC 3327 5.1).
    pub(super) path: Vec<String>,
    /// The rules of RFC 5626 are kept: it is reached by its flow.
    pub(super) outbound: bool,
    pub(super) user_agent: String,
    pub(super) probe: Probe,
}

/// The OPTIONS that ask a contact whether it lives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probe {
    pub(super) next: Option<Instant>,
    pub(super) pending: bool,
    /// How many in a row had no answer.
    pub(super) missed: u32,
}

impl Binding {
    /// Says whether nothing speaks against its being alive.
    pub(super) fn answers(&self) -> bool {
        self.probe.missed < MISSES
    }

    /// How long it lasts yet, in whole seconds, at least one.
    pub(super) fn left(&self, now: Instant) -> u64 {
        let left = self.expires.saturating_duration_since(now) + Duration::from_millis(999);
        left.as_secs().max(1)
    }

    pub(super) fn source(&self) -> SocketAddr {
        self.flow.remote
    }
}

/// After as many OPTIONS without an answer a contact is tried last.
const MISSES: u32 = 3;

/// A value of Contact in a REGISTER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contact {
    pub(super) uri: String,
    /// Preference in thousandths.
    pub(super) q: u16,
    /// As asked for, in seconds.
    pub(super) expires: Option<u64>,
    /// With its quotes.
    pub(super) instance: Option<String>,
    pub(super) reg_id: Option<u32>,
}

impl Contact {
    /// Reads a value. `None` if no request can be sent there.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let uri = addr_uri(value)?;
        // Headers have no place in a request URI (RFC 3261 19.1.1); a user part may hold the mark too.
        let host = uri.find('@').map_or(0, |at| at + 1);
        let end = uri.get(host..)?.find('?').map_or(uri.len(), |at| host + at);
        let uri = uri.get(..end)?;
        let parts = Parts::of(uri)?;
        if uri.len() > MAX_URI || parts.host.is_empty() {
            return None;
        }
        let bracket = text::find_unquoted(value, '<').and_then(|open| value.get(open..));
        let rest = match bracket {
            Some(inner) => inner.split_once('>')?.1,
            None => value.split_once(';').map_or("", |(_, rest)| rest),
        };
        let mut contact = Self { uri: uri.to_owned(), q: 1000, expires: None, instance: None, reg_id: None };
        for parameter in text::split(rest, ';').take(32) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "q" => contact.q = thousandths(value)?,
                // RFC 3261 10.2.1.1: what is malformed counts as an hour.
                "expires" => contact.expires = Some(seconds(value).unwrap_or(3600)),
                "+sip.instance" if value.len() <= MAX_URI && !value.is_empty() => {
                    contact.instance = Some(value.to_owned());
                }
                // RFC 5626 11.1: 1 to 2^31 - 1.
                "reg-id" => contact.reg_id = value.parse().ok().filter(|id| (1..1 << 31).contains(id)),
                _ => {}
            }
        }
        Some(contact)
    }

    /// Writes it as a response lists it.
    pub(super) fn write(&self, left: u64) -> String {
        let mut out = format!("<{}>;expires={left}", self.uri);
        if self.q < 1000 {
            out.push_str(&format!(";q=0.{:03}", self.q));
        }
        if let Some(instance) = &self.instance {
            out.push_str(&format!(";+sip.instance={instance}"));
        }
        if let Some(id) = self.reg_id {
            out.push_str(&format!(";reg-id={id}"));
        }
        out
    }

    /// Says whether this contact takes the place of `other`: the same flow of the same instance
    /// (RFC 5626 6), else the same URI (RFC 3261 10.3).
    pub(super) fn replaces(&self, other: &Self, outbound: bool) -> bool {
        let flow = |contact: &Self| contact.instance.clone().zip(contact.reg_id);
        match (flow(self), flow(other)) {
            (Some(own), Some(theirs)) if outbound => own == theirs,
            _ => same_uri(&self.uri, &other.uri),
        }
    }
}

/// Reads `0` to `1` with up to three decimals.
fn thousandths(value: &str) -> Option<u16> {
    let (whole, decimals) = value.split_once('.').unwrap_or((value, ""));
    let plain = decimals.len() <= 3 && decimals.bytes().all(|b| b.is_ascii_digit());
    let fraction: u16 = format!("{decimals:0<3}").parse().ok().filter(|_| plain)?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

/// Reads delta-seconds; more than 2^32 - 1 are that many (RFC 3261 20.19).
pub(super) fn seconds(value: &str) -> Option<u64> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse::<u64>().unwrap_or(u64::MAX).min(u64::from(u32::MAX)))
}

/// The parts of a SIP URI that its comparison looks at (RFC 3261 19.1.4).
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) scheme: &'a str,
    pub(super) user: &'a str,
    /// With its port.
    pub(super) host: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Parts<'a> {
    /// Splits a `sip` or `sips` URI.
    pub(super) fn of(uri: &'a str) -> Option<Self> {
        let (scheme, rest) = uri.split_once(':')?;
        if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
            return None;
        }
        let (user, rest) = rest.split_once('@').unwrap_or(("", rest));
        let rest = rest.split('?').next()?;
        let mut parts = rest.split(';');
        let host = parts.next()?;
        let parameters = parts.map(|p| p.split_once('=').unwrap_or((p, ""))).take(32).collect();
        Some(Self { scheme, user, host, parameters })
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Writes the URI with another user part, already escaped, and without a parameter.
    pub(super) fn with_user(&self, user: &str, without: &str) -> String {
        let mut out = format!("{}:{user}@{}", self.scheme, self.host);
        for (name, value) in self.parameters.iter().filter(|(n, _)| !n.eq_ignore_ascii_case(without)) {
            out.push_str(&format!(";{name}"));
            if !value.is_empty() {
                out.push_str(&format!("={value}"));
            }
        }
        out
    }
}

/// RFC 3261 19.1.4: scheme, host and parameters without case, the user part with it; some parameters
/// must be on both sides, the others agree where both have them.
pub(super) fn same_uri(a: &str, b: &str) -> bool {
    const DECISIVE: [&str; 5] = ["transport", "user", "ttl", "method", "maddr"];
    let (Some(left), Some(right)) = (Parts::of(a), Parts::of(b)) else { return a == b };
    let unescaped = |user: &str| text::unescape(user);
    let agrees = |own: &Parts<'_>, other: &Parts<'_>| {
        own.parameters.iter().all(|(name, value)| match other.parameter(name) {
            Some(theirs) => value.eq_ignore_ascii_case(theirs),
            None => !DECISIVE.iter().any(|d| name.eq_ignore_ascii_case(d)),
        })
    };
    left.scheme.eq_ignore_ascii_case(right.scheme)
        && unescaped(left.user) == unescaped(right.user)
        && left.host.eq_ignore_ascii_case(right.host)
        && agrees(&left, &right)
        && agrees(&right, &left)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The examples of RFC 3261 19.1.4, as far as they have no headers.
    #[test]
    fn uris_are_compared_as_rfc_3261_says() {
        let same = [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
        ];
        let different = [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=off", "sip:carol@chicago.com;security=on"),
        ];
        for (a, b) in same {
            assert!(same_uri(a, b) && same_uri(b, a), "{a} {b}");
        }
        for (a, b) in different {
            assert!(!same_uri(a, b) && !same_uri(b, a), "{a} {b}");
        }
    }

    #[test]
    fn contacts_are_read_with_what_decides() {
        let full = "\"A, B\" <sip:a@10.0.0.9:5071;line=x;transport=tcp>;q=0.7;EXPIRES=90;reg-id=2;\
            +sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"";
        let contact = Contact::parse(full).unwrap();
        assert_eq!(contact.uri, "sip:a@10.0.0.9:5071;line=x;transport=tcp");
        assert_eq!((contact.q, contact.expires, contact.reg_id), (700, Some(90), Some(2)));
        let written = contact.write(33);
        assert!(written.starts_with("<sip:a@10.0.0.9:5071;line=x;transport=tcp>;expires=33;q=0.700"));
        assert_eq!(Contact::parse(&written).unwrap(), Contact { expires: Some(33), ..contact });
        let bare = Contact::parse("sip:a@10.0.0.9;expires=x").unwrap();
        assert_eq!((bare.uri.as_str(), bare.expires, bare.q), ("sip:a@10.0.0.9", Some(3600), 1000));
        let headers = Contact::parse("<sip:a?b@10.0.0.9;x=y?Subject=z>").unwrap();
        assert_eq!(headers.uri, "sip:a?b@10.0.0.9;x=y");
        for broken in ["*", "", "<mailto:a@b>", "<tel:+1>", "<sip:a@>", "<sip:a@b>;q=2", "<sip:a@b>;q=0.1234"]
        {
            assert_eq!(Contact::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn the_user_part_can_be_another() {
        let parts = Parts::of("sip:line@10.0.0.9:5071;bnc;transport=tcp").unwrap();
        assert_eq!(parts.with_user("200", "bnc"), "sip:200@10.0.0.9:5071;transport=tcp");
    }
}
