//! What a telephone number carries behind itself in a URI: its context (RFC 3966), number
//! portability (RFC 4694) and trunk groups (RFC 4904).

use crate::text;
use crate::wire::message::addr_uri;

use super::numbers::raw_user;

/// The longest value of a parameter that is kept.
const VALUE_MAX: usize = 64;

/// A trunk group (RFC 4904 4): a label that means something within a context only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkGroup {
    /// `tgrp`.
    pub label: String,
    /// `trunk-context`: a domain name or the beginning of a global number.
    pub context: String,
}

impl TrunkGroup {
    /// Builds a group. `None` if a part is empty, long, or holds what cannot stand in a URI.
    pub fn new(label: &str, context: &str) -> Option<Self> {
        Some(Self { label: value(label)?, context: value(context)? })
    }
}

/// The parameters of a called number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberParameters {
    /// `phone-context`: where a number that is not global is valid (RFC 3966 5.1.5).
    pub phone_context: Option<String>,
    /// `npdi`: the number portability database was asked (RFC 4694 5).
    pub dipped: bool,
    /// `rn`: where a ported number is served (RFC 4694 5).
    pub routing_number: Option<String>,
    /// `rn-context`: where a routing number that is not global is valid.
    pub routing_context: Option<String>,
    /// `cic`: the carrier of a freephone number (RFC 4694 5).
    pub carrier: Option<String>,
    /// `cic-context`: where a carrier code that is not global is valid.
    pub carrier_context: Option<String>,
    /// `tgrp` and `trunk-context`: in a request URI the group to use towards the destination, in a
    /// Contact the group that the call came over (RFC 4904 5).
    pub trunk_group: Option<TrunkGroup>,
}

impl NumberParameters {
    /// Reads the parameters in the user part of a `sip:` or `sips:` URI, or those of a `tel:` URI.
    /// What cannot stand in a URI again is left out.
    pub fn of_uri(uri: &str) -> Self {
        let Some(user) = raw_user(uri) else { return Self::default() };
        let mut parameters = Self::default();
        let (mut label, mut context) = (None, None);
        for (name, text) in user.split(';').skip(1).map(|p| p.split_once('=').unwrap_or((p, ""))) {
            match name.to_ascii_lowercase().as_str() {
                "phone-context" => parameters.phone_context = value(text),
                "npdi" => parameters.dipped = true,
                "rn" => parameters.routing_number = digits(text),
                "rn-context" => parameters.routing_context = value(text),
                "cic" => parameters.carrier = digits(text),
                "cic-context" => parameters.carrier_context = value(text),
                "tgrp" => label = Some(text),
                "trunk-context" => context = Some(text),
                _ => {}
            }
        }
        // RFC 4904 4: the one means nothing without the other.
        parameters.trunk_group = label.zip(context).and_then(|(l, c)| TrunkGroup::new(l, c));
        parameters
    }

    /// Writes the parameters, each with its semicolon. A context that is the beginning of a number
    /// has done its work: the number is global by now.
    pub(crate) fn write(&self, portability: bool) -> String {
        let mut out = String::new();
        let mut put = |name: &str, text: &Option<String>| {
            if let Some(text) = text {
                out.push_str(&format!(";{name}={text}"));
            }
        };
        put("phone-context", &self.phone_context.clone().filter(|c| !c.starts_with('+')));
        if portability {
            put("rn", &self.routing_number);
            put("rn-context", &self.routing_context.clone().filter(|_| self.routing_number.is_some()));
            put("cic", &self.carrier);
            put("cic-context", &self.carrier_context.clone().filter(|_| self.carrier.is_some()));
            if self.dipped {
                out.push_str(";npdi");
            }
        }
        out.push_str(&self.trunk_group.as_ref().map(group).unwrap_or_default());
        out
    }
}

/// Writes the parameters of a trunk group.
pub(crate) fn group(group: &TrunkGroup) -> String {
    format!(";tgrp={};trunk-context={}", group.label, group.context)
}

/// Puts parameters behind the user part of a SIP URI.
pub(crate) fn with_parameters(uri: &str, parameters: &str) -> String {
    match uri.split_once('@') {
        Some((user, host)) if !parameters.is_empty() => format!("{user}{parameters}@{host}"),
        _ => uri.to_owned(),
    }
}

/// Reads `otg`, the originating group as some carriers write it: in the user part of From, or
/// behind its host. Its context is the host.
pub(crate) fn originating_group(from: &str) -> Option<TrunkGroup> {
    let uri = addr_uri(from)?;
    let label = uri.split([';', '@']).find_map(|p| {
        let (name, text) = p.split_once('=')?;
        name.eq_ignore_ascii_case("otg").then_some(text)
    })?;
    let host = uri.split_once('@').map_or("", |(_, host)| host);
    TrunkGroup::new(label, host.split([';', '?']).next().unwrap_or_default())
}

/// A value that may stand in the user part of a URI as it is.
fn value(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()+$&/".contains(&b) || b == b':';
    let text = text::printable(text);
    let good = !text.is_empty() && text.len() <= VALUE_MAX && text.bytes().all(fits);
    // A port belongs to no context.
    good.then(|| text.split(':').next().unwrap_or_default().to_owned()).filter(|t| !t.is_empty())
}

/// A global or local number in hexadecimal digits, without its visual separators (RFC 4694 4).
fn digits(text: &str) -> Option<String> {
    let (plus, body) = text.strip_prefix('+').map_or(("", text), |body| ("+", body));
    let separator = |c: char| matches!(c, '-' | '.' | '(' | ')');
    let fits = |c: char| c.is_ascii_hexdigit() || separator(c);
    let digits: String = body.chars().filter(|&c| !separator(c)).collect();
    let good = body.chars().all(fits) && (1..=24).contains(&digits.len());
    good.then(|| format!("{plus}{digits}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 4694 5, RFC 4904 4, RFC 3966 5.1.5.
    #[test]
    fn parameters_are_read_and_written() {
        let uri = "sip:+12025550100;npdi;rn=+1-202-544-0000;cic=+16789;tgrp=TG-1;trunk-context=example.com\
                   @gw;user=phone";
        let read = NumberParameters::of_uri(uri);
        assert!(read.dipped);
        assert_eq!(read.routing_number.as_deref(), Some("+12025440000"));
        assert_eq!(read.carrier.as_deref(), Some("+16789"));
        assert_eq!(read.trunk_group, TrunkGroup::new("TG-1", "example.com"));
        let written = with_parameters("sip:+12025550100@pbx", &read.write(true));
        assert_eq!(
            written,
            "sip:+12025550100;rn=+12025440000;cic=+16789;npdi;tgrp=TG-1;trunk-context=example.com@pbx"
        );
        assert_eq!(NumberParameters::of_uri(&written), read);
        assert!(!read.write(false).contains("npdi"));
        let local = NumberParameters::of_uri("tel:7042;phone-context=example.com");
        assert_eq!(local.phone_context.as_deref(), Some("example.com"));
        assert_eq!(local.write(true), ";phone-context=example.com");
        // A label without a context, and what would break a line or a URI.
        for odd in ["sip:+1202;tgrp=a@h", "sip:+1202;tgrp=a b;trunk-context=c@h", "sip:h", "sip:+1;rn=xyz@h"]
        {
            assert_eq!(NumberParameters::of_uri(odd), NumberParameters::default(), "{odd}");
        }
    }

    #[test]
    fn an_originating_group_is_read_from_either_place() {
        let group = TrunkGroup::new("TG7", "c.example");
        assert_eq!(originating_group("<sip:+1202;otg=TG7@c.example;user=phone>;tag=1"), group);
        assert_eq!(originating_group("\"x\" <sip:+1202@c.example;otg=TG7>;tag=1"), group);
        assert_eq!(originating_group("<sip:+1202@c.example>;otg=TG7"), None);
    }

    proptest! {
        #[test]
        fn rubbish_is_survived(a in ".{0,80}", b in "sip:1(;[a-z-]{1,14}=.{0,9}){0,6}@h") {
            for uri in [&a, &b] {
                let read = NumberParameters::of_uri(uri);
                let again = NumberParameters::of_uri(&format!("sip:1{}@h", read.write(true)));
                prop_assert_eq!(again.trunk_group, read.trunk_group);
                originating_group(uri);
            }
        }
    }
}
