//! What a registrar says in its answers.

use std::time::{Duration, Instant};

use super::Registration;
use crate::endpoint::io::Path;
use crate::text;
use crate::wire::message::{Head, Name, addr_uri, uri_target};

/// The most values of Service-Route, Path and P-Associated-URI that are kept.
const MAX_VALUES: usize = 32;

/// What is registered, and how.
#[derive(Debug)]
pub(super) struct Binding {
    /// The flow it is for (RFC 5626 3.2).
    pub(super) path: Path,
    pub(super) until: Instant,
    pub(super) routes: Vec<String>,
    pub(super) through: Vec<String>,
    pub(super) associated: Vec<String>,
    pub(super) bulk: bool,
    pub(super) outbound: bool,
}

impl Binding {
    /// Reads a 2xx. `asked` is in seconds; `contact` is the URI we registered. `None` if the
    /// registrar says that it keeps nothing.
    pub(super) fn of(
        head: &Head,
        config: &Registration,
        contact: &str,
        asked: u32,
        path: Path,
        now: Instant,
    ) -> Option<(Self, u32)> {
        let granted = granted(head, config, contact).unwrap_or(asked).min(asked);
        if granted == 0 {
            return None;
        }
        let kept = |mut values: Vec<String>| {
            values.truncate(MAX_VALUES);
            values
        };
        let binding = Self {
            path,
            until: now + Duration::from_secs(u64::from(granted)),
            // RFC 3608 6.1: each 2xx replaces what the one before said, with nothing if need be.
            routes: kept(service_route(head)),
            through: kept(head.list(&Name::Path)),
            associated: kept(associated(head)),
            bulk: false,
            // RFC 5626 6: said by a registrar that keeps to it.
            outbound: head.has_token(&Name::Require, "outbound"),
        };
        Some((binding, granted))
    }
}

/// Returns how long the registrar keeps our Contact: its parameter counts before the Expires header
/// (RFC 3261 10.2.4). A registrar behind a border controller may show us another Contact than we
/// sent: then the one with our instance id, or the only one, is ours.
fn granted(head: &Head, config: &Registration, contact: &str) -> Option<u32> {
    let contacts = head.list(&Name::Contact);
    let same = |value: &&String| addr_uri(value).is_some_and(|uri| same_contact(uri, contact));
    let instance = config.outbound.as_ref().map(|o| o.instance.as_str());
    let marked = |value: &&String| instance.is_some_and(|id| value.contains(id));
    let only = || contacts.first().filter(|_| contacts.len() == 1);
    let ours = contacts.iter().find(same).or_else(|| contacts.iter().find(marked)).or_else(only);
    let own = ours.and_then(|value| parameter(value, "expires")).and_then(|text| seconds(&text));
    own.or_else(|| head.text(&Name::Expires).and_then(|text| seconds(&text)))
}

/// Compares user, host and port of two URIs of ours; parameters may have been added or dropped.
fn same_contact(left: &str, right: &str) -> bool {
    let bare = |uri: &str| uri.split([';', '?']).next().unwrap_or_default().to_ascii_lowercase();
    let (left, right) = (bare(left), bare(right));
    // RFC 3261 19.1.4: the default port may be left out.
    left.trim_end_matches(":5060") == right.trim_end_matches(":5060")
}

/// RFC 3608 5. A value that cannot be read would make every call fail.
fn service_route(head: &Head) -> Vec<String> {
    let routes = head.list(&Name::ServiceRoute).into_iter();
    routes.filter(|route| addr_uri(route).and_then(uri_target).is_some()).collect()
}

/// RFC 7315 4.1. Several lines and several values in one.
fn associated(head: &Head) -> Vec<String> {
    let lines = head.texts_named("P-Associated-URI");
    let values = lines.iter().flat_map(|line| text::split(line, ','));
    // No other scheme identifies anybody (RFC 3325 9.2).
    let known = |uri: &&str| {
        let scheme = uri.split(':').next().unwrap_or_default();
        ["sip", "sips", "tel"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    };
    values.filter_map(addr_uri).filter(known).map(str::to_owned).collect()
}

/// Returns a parameter of a name-addr, from behind its URI.
fn parameter(value: &str, name: &str) -> Option<String> {
    let tail = match text::find_unquoted(value, '<') {
        Some(open) => value.get(open..)?.split_once('>')?.1,
        None => value.split_once(';')?.1,
    };
    parameter_of(tail, name)
}

fn parameter_of(tail: &str, name: &str) -> Option<String> {
    text::split(tail, ';').find_map(|piece| {
        let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
        key.trim().eq_ignore_ascii_case(name).then(|| text::unquote(value))
    })
}

/// Reads delta-seconds, with whatever follows in Retry-After. What is too large for anybody to mean
/// is the largest (RFC 3261 20.19).
pub(crate) fn seconds(text: &str) -> Option<u32> {
    let digits: String = text.trim().chars().take_while(char::is_ascii_digit).take(20).collect();
    (!digits.is_empty()).then(|| digits.parse().unwrap_or(u32::MAX))
}

/// Returns how often to keep the flow alive, where the answer says so: by Flow-Timer (RFC 5626 5.4)
/// or by `keep` in our Via (RFC 6223 4.3). `Some(None)`: as often as we like.
pub(super) fn agreed_keep_alive(head: &Head) -> Option<Option<Duration>> {
    let flow_timer = head.text(&Name::FlowTimer).and_then(|text| seconds(&text)).filter(|&s| s > 0);
    if let Some(every) = flow_timer {
        return Some(Some(Duration::from_secs(u64::from(every))));
    }
    let via = head.list(&Name::Via);
    let value = parameter_of(via.first()?.split_once(';')?.1, "keep")?;
    // Our own `keep` comes back without a value from a registrar that does not know it.
    let every = seconds(&value)?;
    Some((every > 0).then(|| Duration::from_secs(u64::from(every))))
}
