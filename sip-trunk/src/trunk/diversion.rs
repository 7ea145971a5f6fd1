//! Who a call was meant for before it was diverted: `Diversion` (RFC 5806) and `History-Info`
//! (RFC 7044), each into the other by RFC 7544.

use call_model::Address;

use super::identity::NameAddr;
use super::numbers::NumberRules;
use crate::text;

/// Most diversions that are kept: what ISUP counts.
pub const DIVERSIONS_MAX: usize = 5;

/// Most entries of a header that are read.
const ENTRIES_MAX: usize = 16;

/// The most times one entry may stand for.
const COUNTER_MAX: u8 = 15;

/// Nobody that may be named (RFC 3323 4.1.1.3).
const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";

/// Why a call was diverted (RFC 5806).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiversionReason {
    /// Not said, or in words that have no counterpart.
    #[default]
    Unknown,
    /// The user is busy.
    UserBusy,
    /// The user does not answer.
    NoAnswer,
    /// Always.
    Unconditional,
    /// The user sent the call on while it rang.
    Deflection,
    /// The user cannot be reached.
    Unavailable,
}

impl DiversionReason {
    /// Returns the word of RFC 5806.
    pub fn as_str(self) -> &'static str {
        match self {
            DiversionReason::Unknown => "unknown",
            DiversionReason::UserBusy => "user-busy",
            DiversionReason::NoAnswer => "no-answer",
            DiversionReason::Unconditional => "unconditional",
            DiversionReason::Deflection => "deflection",
            DiversionReason::Unavailable => "unavailable",
        }
    }

    fn of_word(word: &str) -> Self {
        use DiversionReason as R;
        let known = [R::UserBusy, R::NoAnswer, R::Unconditional, R::Deflection, R::Unavailable];
        known.into_iter().find(|r| word.eq_ignore_ascii_case(r.as_str())).unwrap_or_default()
    }

    /// The cause of RFC 4458 as RFC 7544 has it; `unavailable` by erratum 3071 of RFC 6044.
    fn cause(self) -> u16 {
        match self {
            DiversionReason::Unknown => 404,
            DiversionReason::UserBusy => 486,
            DiversionReason::NoAnswer => 408,
            DiversionReason::Unconditional => 302,
            DiversionReason::Deflection => 480,
            DiversionReason::Unavailable => 503,
        }
    }

    fn of_cause(cause: &str) -> Self {
        match cause.trim() {
            "302" => DiversionReason::Unconditional,
            "486" => DiversionReason::UserBusy,
            "408" => DiversionReason::NoAnswer,
            "480" | "487" => DiversionReason::Deflection,
            "503" => DiversionReason::Unavailable,
            _ => DiversionReason::Unknown,
        }
    }
}

/// One diversion of a call, whatever header told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diversion {
    /// Who was called and did not take the call; `None` if that is hidden or unreadable.
    pub number: Option<Address>,
    /// Why not.
    pub reason: DiversionReason,
    /// How many diversions this entry stands for, 1 to 15.
    pub counter: u8,
    /// The address must not be shown.
    pub privacy: bool,
}

/// The header in which a trunk hears of diversions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiversionHeader {
    /// None.
    None,
    /// Diversion (RFC 5806).
    #[default]
    Diversion,
    /// History-Info (RFC 7044).
    HistoryInfo,
}

impl DiversionHeader {
    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            DiversionHeader::None => "none",
            DiversionHeader::Diversion => "Diversion",
            DiversionHeader::HistoryInfo => "History-Info",
        }
    }
}

/// Reads the diversions of a request, the latest first. Where both headers are there, History-Info
/// counts if it tells of any.
pub fn read_diversions(history: &[String], diversion: &[String], rules: &NumberRules) -> Vec<Diversion> {
    let entries = |lines: &[String]| -> Vec<NameAddr> {
        let values = lines.iter().flat_map(|line| text::split(line, ','));
        values.filter(|v| !v.is_empty()).take(ENTRIES_MAX).filter_map(NameAddr::parse).collect()
    };
    let mut diversions = of_history(&entries(history), rules);
    if diversions.is_empty() {
        diversions = entries(diversion).iter().map(|entry| of_diversion(entry, rules)).collect();
    }
    tidy(diversions)
}

fn of_diversion(entry: &NameAddr, rules: &NumberRules) -> Diversion {
    let counter = entry.parameter("counter").and_then(|c| c.trim().parse().ok());
    Diversion {
        number: address(entry, rules),
        reason: DiversionReason::of_word(entry.parameter("reason").unwrap_or_default()),
        counter: counter.unwrap_or(1).clamp(1, COUNTER_MAX),
        privacy: entry.parameter("privacy").is_some_and(|p| !p.eq_ignore_ascii_case("off")),
    }
}

/// An entry was diverted if the one after it says so: by the cause of its URI (RFC 4458 2) or by
/// `mp` (RFC 7044 10.4). `rc` and `np` alone are routing, not diversion.
fn of_history(entries: &[NameAddr], rules: &NumberRules) -> Vec<Diversion> {
    let mut diversions = Vec::new();
    for (at, next) in entries.iter().enumerate().skip(1) {
        let mapped = next.parameter("mp");
        let index = |entry: &NameAddr| entry.parameter("index").map(str::to_owned);
        let by_index =
            mapped.and_then(|mp| entries.iter().take(at).find(|e| index(e).as_deref() == Some(mp)));
        let Some(from) = by_index.or_else(|| entries.get(at - 1)) else { continue };
        let cause = uri_parameter(&next.uri, "cause");
        let reason = uri_header(&from.uri, "Reason");
        let own_cause =
            reason.as_deref().and_then(|r| text::split(r, ';').find_map(|p| p.strip_prefix("cause=")));
        let Some(cause) = cause.or(own_cause).or(mapped.map(|_| "")) else { continue };
        // RFC 7044 10.3: missing levels are entries that somebody has left out.
        let level = |entry: &NameAddr| index(entry).map_or(0, |i| i.split('.').take(99).count());
        let gap = level(next).saturating_sub(level(from)).clamp(1, usize::from(COUNTER_MAX));
        let privacy = uri_header(&from.uri, "Privacy");
        diversions.push(Diversion {
            number: address(from, rules),
            reason: DiversionReason::of_cause(cause),
            counter: gap as u8,
            privacy: privacy.is_some_and(|p| !p.eq_ignore_ascii_case("none")),
        });
    }
    diversions.reverse();
    diversions
}

fn address(entry: &NameAddr, rules: &NumberRules) -> Option<Address> {
    if entry.is_anonymous() { None } else { rules.address_of_uri(&entry.uri) }
}

/// Cuts loops and keeps five: the latest four and the first, for whom the call was meant. What is
/// dropped stays in the counters.
fn tidy(mut diversions: Vec<Diversion>) -> Vec<Diversion> {
    let merge = |list: &mut Vec<Diversion>, at: usize, gone: std::ops::RangeInclusive<usize>| {
        let sum: u8 = list.drain(gone).fold(0, |sum, d| sum.saturating_add(d.counter));
        if let Some(kept) = list.get_mut(at) {
            kept.counter = kept.counter.saturating_add(sum).min(COUNTER_MAX);
        }
    };
    let mut at = 0;
    while at < diversions.len() {
        let same =
            |d: &Diversion| d.number.is_some() && Some(&d.number) == diversions.get(at).map(|d| &d.number);
        if let Some(last) = diversions.iter().rposition(same).filter(|&last| last > at) {
            merge(&mut diversions, at, at + 1..=last);
        }
        at += 1;
    }
    if diversions.len() > DIVERSIONS_MAX {
        let last = diversions.len() - 2;
        merge(&mut diversions, DIVERSIONS_MAX - 2, DIVERSIONS_MAX - 1..=last);
    }
    diversions
}

/// Writes the diversions of a request, the latest first in `diversions`; `target` is the request
/// URI, which ends a History-Info. Who must not be shown is shown to trusted trunks only.
pub fn write_diversions(
    diversions: &[Diversion],
    header: DiversionHeader,
    target: &str,
    rules: &NumberRules,
    host: &str,
    trusted: bool,
) -> Option<(&'static str, String)> {
    let diversions = tidy(diversions.to_vec());
    if diversions.is_empty() {
        return None;
    }
    let uri = |d: &Diversion| match &d.number {
        Some(number) if trusted || !d.privacy => rules.uri_of(number, host),
        _ => ANONYMOUS.to_owned(),
    };
    match header {
        DiversionHeader::None => None,
        DiversionHeader::Diversion => {
            let entry = |d: &Diversion| {
                let privacy = if d.privacy { "full" } else { "off" };
                let reason = d.reason.as_str();
                let counter = d.counter.clamp(1, COUNTER_MAX);
                format!("<{}>;reason={reason};counter={counter};privacy={privacy}", uri(d))
            };
            Some(("Diversion", diversions.iter().map(entry).collect::<Vec<_>>().join(", ")))
        }
        DiversionHeader::HistoryInfo => {
            let mut index = "1".to_owned();
            // What the entry to come was reached by: the cause, and the index it was mapped from.
            let mut came: Option<(u16, String)> = None;
            let mut values = Vec::new();
            let mut entry = |uri: String, privacy: bool, index: &str, came: &Option<(u16, String)>| {
                let (cause, mapped) = match came {
                    Some((cause, from)) => (format!(";cause={cause}"), format!(";mp={from}")),
                    None => Default::default(),
                };
                let privacy = if privacy { "?Privacy=history" } else { "" };
                values.push(format!("<{uri}{cause}{privacy}>;index={index}{mapped}"));
            };
            for diversion in diversions.iter().rev() {
                entry(uri(diversion), diversion.privacy, &index, &came);
                came = Some((diversion.reason.cause(), index.clone()));
                index.push_str(&".1".repeat(usize::from(diversion.counter.clamp(1, COUNTER_MAX))));
            }
            entry(target.to_owned(), false, &index, &came);
            Some(("History-Info", values.join(", ")))
        }
    }
}

/// Returns a parameter of a URI, as it is written.
fn uri_parameter<'a>(uri: &'a str, name: &str) -> Option<&'a str> {
    let uri = uri.split('?').next()?;
    let behind = uri.split_once('@').map_or(uri, |(_, host)| host);
    behind.split(';').skip(1).find_map(|p| {
        let (key, value) = p.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Returns a header that a URI carries, decoded (RFC 3261 19.1.1).
fn uri_header(uri: &str, name: &str) -> Option<String> {
    let (_, headers) = uri.split_once('?')?;
    headers.split('&').find_map(|h| {
        let (key, value) = h.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| text::unescape(value.trim()))?
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn diversion(number: &str, reason: DiversionReason, counter: u8, privacy: bool) -> Diversion {
        Diversion { number: number.parse().ok(), reason, counter, privacy }
    }

    fn read(history: &str, header: &str) -> Vec<Diversion> {
        read_diversions(&[history.to_owned()], &[header.to_owned()], &NumberRules::default())
    }

    fn write(list: &[Diversion], header: DiversionHeader, trusted: bool) -> String {
        let rules = NumberRules::default();
        write_diversions(list, header, "sip:+15550009@t", &rules, "gw", trusted).unwrap().1
    }

    /// The example of RFC 6044 7.1 as its errata and RFC 7544 have it.
    #[test]
    fn a_diversion_becomes_a_history_and_comes_back() {
        let diversion_header = "<sip:+15550003@a>;reason=unconditional;counter=1;privacy=off, \
            <sip:+15550002@a>;reason=user-busy;counter=1;privacy=full, <sip:+15550001@a>;reason=no-answer";
        let list = read("", diversion_header);
        use DiversionReason as R;
        let expected = [
            diversion("+15550003", R::Unconditional, 1, false),
            diversion("+15550002", R::UserBusy, 1, true),
            diversion("+15550001", R::NoAnswer, 1, false),
        ];
        assert_eq!(list, expected);
        let history = write(&list, DiversionHeader::HistoryInfo, true);
        assert_eq!(
            history,
            "<sip:+15550001@gw>;index=1, <sip:+15550002@gw;cause=408?Privacy=history>;index=1.1;mp=1, \
             <sip:+15550003@gw;cause=486>;index=1.1.1;mp=1.1, <sip:+15550009@t;cause=302>;index=1.1.1.1;mp=1.1.1"
        );
        assert_eq!(read(&history, ""), list);
        assert!(!write(&list, DiversionHeader::HistoryInfo, false).contains("+15550002"));
        assert!(!write(&list, DiversionHeader::Diversion, false).contains("+15550002"));
    }

    /// RFC 7044 10: routing is no diversion; a Reason in the URI of the diverting user counts.
    #[test]
    fn histories_are_read() {
        let routed = "<sip:+15550001@a>;index=1, <sip:+15550001@b>;index=1.1;rc=1";
        assert_eq!(read(routed, ""), []);
        let old =
            "<sip:+15550001@a?Reason=SIP%3Bcause%3D486&Privacy=none>;index=1, <sip:+15550002@b>;index=1.1";
        assert_eq!(read(old, ""), [diversion("+15550001", DiversionReason::UserBusy, 1, false)]);
        let gap = "<sip:+15550001@a>;index=1, <sip:+15550002@b;cause=302>;index=1.1.1.1";
        assert_eq!(read(gap, ""), [diversion("+15550001", DiversionReason::Unconditional, 3, false)]);
        assert_eq!(read("", "<sip:anonymous@anonymous.invalid>;reason=away;counter=200")[0].counter, 15);
    }

    #[test]
    fn loops_are_cut_and_five_remain() {
        let header: Vec<String> = [3, 1, 2, 1, 4].iter().map(|n| format!("<sip:+1555000{n}@a>")).collect();
        let list = read("", &header.join(","));
        let got: Vec<_> = list.iter().map(|d| (d.number.clone().unwrap().to_string(), d.counter)).collect();
        assert_eq!(got, [("+15550003".into(), 1), ("+15550001".into(), 3), ("+15550004".to_owned(), 1)]);
        let header: Vec<String> = (1..=9).map(|n| format!("<sip:+1555000{n}@a>")).collect();
        let list = read("", &header.join(","));
        assert_eq!(list.len(), 5);
        assert_eq!(list.last().unwrap().number, "+15550009".parse().ok());
        assert_eq!(list.iter().map(|d| d.counter).sum::<u8>(), 9);
    }

    proptest! {
        /// Whatever was read survives either header.
        #[test]
        fn either_header_keeps_everything(
            parts in proptest::collection::vec((1000u32..9999, 0usize..6, 1u8..6, any::<bool>()), 1..5),
        ) {
            use DiversionReason as R;
            let reasons = [R::Unknown, R::UserBusy, R::NoAnswer, R::Unconditional, R::Deflection, R::Unavailable];
            let list: Vec<_> =
                parts.iter().map(|(n, r, c, p)| diversion(&format!("+1555{n}"), reasons[*r], *c, *p)).collect();
            let list = tidy(list);
            prop_assert_eq!(&read(&write(&list, DiversionHeader::HistoryInfo, true), ""), &list);
            prop_assert_eq!(&read("", &write(&list, DiversionHeader::Diversion, true)), &list);
        }

        #[test]
        fn rubbish_is_survived(a in ".{0,120}", b in "(<sip:[0-9?&=;%]{0,9}@h[?&=;%a-z]{0,20}>;index=[0-9.]{0,9}, ?){0,20}") {
            prop_assert!(read(&a, &b).len() <= DIVERSIONS_MAX);
            prop_assert!(read(&b, &a).len() <= DIVERSIONS_MAX);
        }
    }
}
