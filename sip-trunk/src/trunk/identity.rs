//! Who is calling, read out of and written into the header fields of an INVITE
//! (RFC 3325, RFC 3323, and Remote-Party-ID for those who stayed there).

use call_model::{Address, Caller};

use super::numbers::{NumberRules, user_part};
use crate::text;

pub use crate::text::quote;

/// Most values of P-Asserted-Identity that are looked at: RFC 3325 9.1 allows two.
const ASSERTED_MAX: usize = 4;

/// The fields of a request that say who is calling.
#[derive(Clone, Debug, Default)]
pub struct CallerHeaders<'a> {
    /// The value of From.
    pub from: &'a str,
    /// The values of P-Asserted-Identity, each of which may hold several.
    pub asserted: Vec<&'a str>,
    /// The value of Remote-Party-ID.
    pub remote_party: Option<&'a str>,
    /// The values of Privacy.
    pub privacy: Vec<&'a str>,
    /// The value of P-Preferred-Identity.
    pub preferred: Option<&'a str>,
    /// The value of the topmost Diversion.
    pub diversion: Option<&'a str>,
    /// Which of them is the number of the caller.
    pub cli: CliSource,
}

/// Which field of a trunk's requests holds the caller's number. The others follow where that one
/// is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CliSource {
    /// P-Asserted-Identity, then Remote-Party-ID, then From (RFC 3325 5).
    #[default]
    Asserted,
    /// From: P-Asserted-Identity names the line of the network.
    From,
    /// P-Preferred-Identity: what a user agent says of itself (RFC 3325 9.2). Chosen for a trunk,
    /// it counts whether that is trusted or not, as From does.
    Preferred,
    /// Remote-Party-ID.
    RemoteParty,
    /// The topmost Diversion: a PBX that forwards shows the number of the one who forwarded.
    Diversion,
}

impl CliSource {
    /// Returns the name of the field.
    pub fn as_str(self) -> &'static str {
        match self {
            CliSource::Asserted => "P-Asserted-Identity",
            CliSource::From => "From",
            CliSource::Preferred => "P-Preferred-Identity",
            CliSource::RemoteParty => "Remote-Party-ID",
            CliSource::Diversion => "Diversion",
        }
    }
}

/// What a caller says of privacy beside wanting it (RFC 3323 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivacyWish {
    /// Nothing.
    #[default]
    Usual,
    /// `critical`: rather no call than one that shows the caller.
    Critical,
    /// `none`: nobody on the way may hide the caller.
    Open,
}

impl PrivacyWish {
    /// Reads the values of Privacy.
    pub(crate) fn read(values: &[String]) -> Self {
        let words = privacy_words(values.iter().map(String::as_str));
        let says = |word: &str| words.iter().any(|w| w == word);
        match () {
            () if says("none") => PrivacyWish::Open,
            () if says("critical") => PrivacyWish::Critical,
            () => PrivacyWish::Usual,
        }
    }
}

/// The kinds of privacy that are given here: the caller is hidden where asked (`id`, `user`,
/// `header`), a gateway's own dialogs and media on each side hide what `session` is about, and
/// entries of a history are hidden each by itself.
const PRIVACY_GIVEN: [&str; 7] = ["none", "critical", "id", "user", "header", "session", "history"];

/// Returns the kinds of privacy a caller cannot do without and does not get here (RFC 3323 5).
pub(crate) fn unmet_privacy(values: &[String]) -> Option<String> {
    let words = privacy_words(values.iter().map(String::as_str));
    let unmet: Vec<_> = words
        .iter()
        .filter(|w| !w.is_empty() && !PRIVACY_GIVEN.contains(&w.as_str()))
        .take(8)
        .cloned()
        .collect();
    (words.iter().any(|w| w == "critical") && !unmet.is_empty()).then(|| unmet.join(" "))
}

/// The values of Privacy in lower case: they compare so (RFC 3261 7.3.1), and are written in any.
fn privacy_words<'a>(values: impl Iterator<Item = &'a str>) -> Vec<String> {
    values.flat_map(|v| v.split([';', ','])).map(|v| v.trim().to_ascii_lowercase()).collect()
}

/// Says whether a whole history of diversions is to be hidden (RFC 7044 10.1.2).
pub(crate) fn hides_history(values: &[String]) -> bool {
    let words = privacy_words(values.iter().map(String::as_str));
    words.iter().any(|w| w == "history" || w == "header") && !words.iter().any(|w| w == "none")
}

/// Says whether the fields beside From ask to hide the caller.
pub(crate) fn wants_privacy(headers: &CallerHeaders<'_>) -> bool {
    let privacy = privacy_words(headers.privacy.iter().copied());
    let asks = |name: &str| privacy.iter().any(|p| p == name);
    let party = headers.remote_party.and_then(NameAddr::parse);
    let hidden =
        party.is_some_and(|n| n.parameter("privacy").is_some_and(|p| !p.eq_ignore_ascii_case("off")));
    !asks("none") && (asks("id") || asks("user") || asks("header") || hidden)
}

/// Reads the caller of a request from a trunk.
///
/// From a trusted trunk the asserted identity counts before From (RFC 3325 5); from any other it
/// is ignored. `Privacy: id`, `user` or `header` hides the caller, `none` overrides all
/// (RFC 3323 4.2, RFC 3325 7); so does an anonymous From where nothing else is asserted. The
/// address stays known to us even then.
pub fn read_caller(headers: &CallerHeaders<'_>, trusted: bool, rules: &NumberRules) -> Caller {
    let from = NameAddr::parse(headers.from);
    let remote_party = headers.remote_party.filter(|_| trusted).and_then(NameAddr::parse);
    let asserted: Vec<NameAddr> = headers
        .asserted
        .iter()
        .filter(|_| trusted)
        .flat_map(|value| text::split(value, ','))
        .take(ASSERTED_MAX)
        .filter_map(NameAddr::parse)
        .collect();

    let anonymous_from = from.as_ref().is_none_or(NameAddr::is_anonymous);
    let own = from.as_ref().filter(|_| !anonymous_from);
    let preferred =
        headers.preferred.filter(|_| headers.cli == CliSource::Preferred).and_then(NameAddr::parse);
    let diversion = headers.diversion.filter(|_| trusted && headers.cli == CliSource::Diversion);
    let diversion = diversion.and_then(|value| text::split(value, ',').next()).and_then(NameAddr::parse);
    let (first, party) = (asserted.iter().collect::<Vec<_>>(), remote_party.as_ref());
    let sources: Vec<&NameAddr> = match headers.cli {
        CliSource::From => own.into_iter().chain(first).chain(party).collect(),
        CliSource::RemoteParty => party.into_iter().chain(first).chain(own).collect(),
        CliSource::Asserted | CliSource::Preferred | CliSource::Diversion => {
            preferred.iter().chain(&diversion).chain(first).chain(party).chain(own).collect()
        }
    };
    let addresses = || sources.iter().filter_map(|n| rules.address_of_uri(&n.uri));
    let address = addresses().find(|a| matches!(a, Address::Number(_))).or_else(|| addresses().next());
    let display_name =
        sources.iter().find_map(|n| n.display_name.as_deref()).and_then(Caller::clean_display_name);

    let open = privacy_words(headers.privacy.iter().copied()).iter().any(|w| w == "none");
    let headers = CallerHeaders { remote_party: headers.remote_party.filter(|_| trusted), ..headers.clone() };
    let private = !open && (anonymous_from || wants_privacy(&headers));
    Caller { address, display_name, private }
}

/// The field in which a trunk wants the caller's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityHeader {
    /// From alone.
    None,
    /// P-Asserted-Identity (RFC 3325).
    #[default]
    PAssertedIdentity,
    /// Remote-Party-ID.
    RemotePartyId,
    /// P-Asserted-Identity with two values, a SIP and a tel URI (RFC 3325 9.1).
    PAssertedIdentityBoth,
    /// P-Preferred-Identity (RFC 3325 9.2): for a provider that asserts by itself whom it
    /// authenticated. Never beside P-Asserted-Identity.
    PPreferredIdentity,
}

impl IdentityHeader {
    /// Returns the name of the field.
    pub fn as_str(self) -> &'static str {
        match self {
            IdentityHeader::None => "From",
            IdentityHeader::PAssertedIdentity => "P-Asserted-Identity",
            IdentityHeader::RemotePartyId => "Remote-Party-ID",
            IdentityHeader::PAssertedIdentityBoth => "P-Asserted-Identity (sip and tel)",
            IdentityHeader::PPreferredIdentity => "P-Preferred-Identity",
        }
    }
}

/// How a trunk hears that a caller wants to stay hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrivacyForm {
    /// An anonymous From and `Privacy: id` (RFC 3325 7).
    #[default]
    Id,
    /// The same with `critical` (RFC 3323 4.2).
    IdCritical,
    /// An anonymous From alone.
    FromOnly,
}

impl PrivacyForm {
    /// Returns what stands in Privacy.
    pub fn as_str(self) -> &'static str {
        match self {
            PrivacyForm::Id => "id",
            PrivacyForm::IdCritical => "id;critical",
            PrivacyForm::FromOnly => "anonymous From",
        }
    }
}

/// How a trunk is told who calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdentityStyle {
    /// The field with the number.
    pub header: IdentityHeader,
    /// The trunk may see numbers that others must not (RFC 3325 3).
    pub trusted: bool,
    /// How privacy is asked for.
    pub privacy: PrivacyForm,
    /// What the caller said of privacy.
    pub wish: PrivacyWish,
}

/// The fields that tell a trunk who is calling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerLines {
    /// The value of From, without its tag.
    pub from: String,
    /// The other fields, name and value.
    pub headers: Vec<(&'static str, String)>,
}

/// Writes the caller for a request to a trunk. `host` is our own domain or address.
///
/// A private caller is anonymous in From (RFC 3323 4.1.1.3). A trusted trunk gets the real number
/// and the wish to hide it (RFC 3325 7); another gets nothing that could give the caller away.
pub fn write_caller(caller: &Caller, rules: &NumberRules, host: &str, style: IdentityStyle) -> CallerLines {
    // RFC 3323 4.2: `none` overrides.
    let private = caller.private && style.wish != PrivacyWish::Open;
    let name = caller.display_name.as_deref().and_then(Caller::clean_display_name);
    let uri = caller.address.as_ref().map(|address| rules.uri_of(address, host));
    let named = |uri: &str| match &name {
        Some(name) => format!("{} <{uri}>", text::quote(name)),
        None => format!("<{uri}>"),
    };
    let from = match &uri {
        Some(uri) if !private => named(uri),
        _ => "\"Anonymous\" <sip:anonymous@anonymous.invalid>".to_owned(),
    };
    let mut headers = Vec::new();
    // What a user agent prefers is no secret towards anybody, and no more than From tells.
    let told = style.trusted || (style.header == IdentityHeader::PPreferredIdentity && !private);
    if let Some(uri) = uri.filter(|_| told) {
        match style.header {
            IdentityHeader::None => {}
            IdentityHeader::PAssertedIdentity => headers.push(("P-Asserted-Identity", named(&uri))),
            IdentityHeader::PPreferredIdentity => headers.push(("P-Preferred-Identity", named(&uri))),
            IdentityHeader::PAssertedIdentityBoth => {
                let value = match &caller.address {
                    Some(Address::Number(number)) => format!("{}, <tel:{number}>", named(&uri)),
                    _ => named(&uri),
                };
                headers.push(("P-Asserted-Identity", value));
            }
            IdentityHeader::RemotePartyId => {
                let privacy = if private { "full" } else { "off" };
                let value = format!("{};party=calling;screen=yes;privacy={privacy}", named(&uri));
                headers.push(("Remote-Party-ID", value));
            }
        }
    }
    match (style.wish, style.privacy) {
        (PrivacyWish::Open, _) => headers.push(("Privacy", "none".to_owned())),
        _ if !private => {}
        (PrivacyWish::Critical, _) | (_, PrivacyForm::IdCritical) => {
            headers.push(("Privacy", "id;critical".to_owned()));
        }
        (_, PrivacyForm::Id) => headers.push(("Privacy", "id".to_owned())),
        (_, PrivacyForm::FromOnly) => {}
    }
    CallerLines { from, headers }
}

/// A `name-addr` or `addr-spec` with its header parameters (RFC 3261 20.10, 25.1).
pub(crate) struct NameAddr {
    display_name: Option<String>,
    pub(crate) uri: String,
    parameters: Vec<(String, String)>,
}

impl NameAddr {
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        // The bracket that opens the URI is the first one outside a quoted name.
        let open = text::find_unquoted(value, '<');
        let (name, uri, rest) = match open {
            Some(open) => {
                let (uri, rest) = value[open + 1..].split_once('>')?;
                (value[..open].trim(), uri, rest)
            }
            None => {
                let (uri, rest) = value.split_once(';').unwrap_or((value, ""));
                ("", uri, rest)
            }
        };
        let name = text::unquote(name);
        let parameters = text::split(rest, ';')
            .filter_map(|p| {
                let (key, value) = p.split_once('=').unwrap_or((p, ""));
                let key = key.trim();
                (!key.is_empty()).then(|| (key.to_ascii_lowercase(), text::unquote(value)))
            })
            .collect();
        let uri = uri.trim().to_owned();
        (!uri.is_empty()).then(|| Self {
            display_name: (!name.trim().is_empty()).then_some(name),
            uri,
            parameters,
        })
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The forms in which networks write "nobody": RFC 3323 4.1.1.3 and what is seen beside it.
    pub(crate) fn is_anonymous(&self) -> bool {
        let host = self.uri.rsplit_once('@').map_or("", |(_, host)| host);
        let host = host.split([';', ':', '?']).next().unwrap_or_default();
        let user = user_part(&self.uri).unwrap_or_default();
        let nobody = ["anonymous", "restricted", "unavailable", "unknown", "private"];
        host.eq_ignore_ascii_case("anonymous.invalid") || nobody.iter().any(|n| user.eq_ignore_ascii_case(n))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn read(headers: CallerHeaders<'_>, trusted: bool) -> (String, String, bool) {
        let caller = read_caller(&headers, trusted, &NumberRules::default());
        let address = caller.address.map(|a| a.to_string()).unwrap_or_default();
        (address, caller.display_name.unwrap_or_default(), caller.private)
    }

    fn who(address: &str, name: &str, private: bool) -> (String, String, bool) {
        (address.into(), name.into(), private)
    }

    fn style(header: IdentityHeader, trusted: bool) -> IdentityStyle {
        IdentityStyle { header, trusted, ..IdentityStyle::default() }
    }

    const ANONYMOUS: &str = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=9";
    const ALICE: &str = "\"Alice \\\"A\\\" <x>\" <sip:+442079460018@pbx;user=phone>;tag=1";

    #[test]
    fn callers_are_read() {
        let from = |from| CallerHeaders { from, ..CallerHeaders::default() };
        assert_eq!(read(from(ALICE), false), who("+442079460018", "Alice \"A\" <x>", false));
        assert_eq!(read(from("sip:+442079460018@pbx;tag=1"), false), who("+442079460018", "", false));
        assert_eq!(read(from("Bob Builder <sip:bob@pbx>"), false), who("bob", "Bob Builder", false));
        assert_eq!(read(from(ANONYMOUS), false), who("", "", true));
        assert_eq!(read(from(""), false), who("", "", true));
        assert_eq!(read(from("\"X\" <sip:Anonymous@pbx>"), false), who("", "", true));
    }

    /// RFC 3325 5 and 9.1: a number asserted beside a SIP address is the number of the caller.
    #[test]
    fn only_trusted_trunks_assert() {
        let headers = CallerHeaders {
            from: ALICE,
            asserted: vec!["\"Real\" <sip:real@carrier>, <tel:+12025550100>"],
            ..CallerHeaders::default()
        };
        assert_eq!(read(headers.clone(), true), who("+12025550100", "Real", false));
        assert_eq!(read(headers, false), who("+442079460018", "Alice \"A\" <x>", false));
        let party = CallerHeaders {
            from: ANONYMOUS,
            remote_party: Some("<sip:+12025550100@c>;party=calling;privacy=full"),
            ..CallerHeaders::default()
        };
        assert_eq!(read(party, true), who("+12025550100", "", true));
    }

    /// RFC 3325 7, RFC 3323 4.2: any letter case, several values, `none` wins.
    #[test]
    fn privacy_hides_and_keeps() {
        let with = |privacy| CallerHeaders { from: ALICE, privacy, ..CallerHeaders::default() };
        for (privacy, private) in [
            (vec!["id"], true),
            (vec!["ID;critical"], true),
            (vec!["Header"], true),
            (vec!["none"], false),
            (vec!["session", "id"], true),
            (vec!["critical"], false),
            (vec!["id", "none"], false),
        ] {
            let (address, _, got) = read(with(privacy.clone()), true);
            assert_eq!((address.as_str(), got), ("+442079460018", private), "{privacy:?}");
        }
    }

    #[test]
    fn callers_are_written() {
        let rules = NumberRules::default();
        let caller = Caller {
            address: Some("+442079460018".parse().unwrap()),
            display_name: Some("A\"\r\nX: y".into()),
            private: false,
        };
        let write = |caller: &Caller, header, trusted| {
            write_caller(caller, &rules, "gw.example", style(header, trusted))
        };
        let open = write(&caller, IdentityHeader::PAssertedIdentity, true);
        assert_eq!(open.from, "\"A\\\"X: y\" <sip:+442079460018@gw.example>");
        assert_eq!(open.headers, [("P-Asserted-Identity", open.from.clone())]);
        assert!(write(&caller, IdentityHeader::None, true).headers.is_empty());

        let hidden = Caller { private: true, ..caller };
        let anonymous = "\"Anonymous\" <sip:anonymous@anonymous.invalid>";
        let trusted = write(&hidden, IdentityHeader::PAssertedIdentity, true);
        assert_eq!(trusted.from, anonymous);
        assert_eq!(trusted.headers[1], ("Privacy", "id".into()));
        let untrusted = write(&hidden, IdentityHeader::PAssertedIdentity, false);
        assert_eq!(
            (untrusted.from.as_str(), &untrusted.headers[..]),
            (anonymous, &[("Privacy", "id".into())][..])
        );
        let party = write(&hidden, IdentityHeader::RemotePartyId, true);
        assert!(party.headers[0].1.ends_with("privacy=full"));
        let nobody = write(&Caller::default(), IdentityHeader::PAssertedIdentity, true);
        assert_eq!((nobody.from.as_str(), nobody.headers.len()), (anonymous, 0));
    }

    /// RFC 3325 9.1, 9.2: one or two values, asserted or preferred, never both fields.
    #[test]
    fn identities_are_asserted_or_preferred() {
        let rules = NumberRules::default();
        let caller = Caller { address: "+442079460018".parse().ok(), ..Caller::default() };
        let write = |caller: &Caller, style| write_caller(caller, &rules, "gw", style).headers;
        let both = write(&caller, style(IdentityHeader::PAssertedIdentityBoth, true));
        let value = "<sip:+442079460018@gw>, <tel:+442079460018>".to_owned();
        assert_eq!(both, [("P-Asserted-Identity", value)]);
        let preferred = style(IdentityHeader::PPreferredIdentity, false);
        assert_eq!(
            write(&caller, preferred),
            [("P-Preferred-Identity", "<sip:+442079460018@gw>".to_owned())]
        );
        let hidden = Caller { private: true, ..caller };
        assert_eq!(write(&hidden, preferred), [("Privacy", "id".to_owned())]);
        // RFC 3323 4.2.
        let critical = IdentityStyle { wish: PrivacyWish::Critical, ..preferred };
        assert_eq!(write(&hidden, critical), [("Privacy", "id;critical".to_owned())]);
        let open = IdentityStyle { wish: PrivacyWish::Open, ..preferred };
        assert_eq!(write(&hidden, open)[1], ("Privacy", "none".to_owned()));
        let silent = IdentityStyle { privacy: PrivacyForm::FromOnly, ..preferred };
        assert_eq!(write(&hidden, silent), []);
    }

    /// RFC 3323 5.
    #[test]
    fn critical_privacy_that_is_not_known_is_unmet() {
        for (values, unmet) in [
            (vec!["id;critical"], None),
            (vec!["ID", "Session;CRITICAL"], None),
            (vec!["x-new;user"], None),
            (vec!["x-new;critical"], Some("x-new".to_owned())),
        ] {
            let values: Vec<String> = values.into_iter().map(str::to_owned).collect();
            assert_eq!(unmet_privacy(&values), unmet, "{values:?}");
        }
    }

    proptest! {
        /// Whatever a caller is called, the header line stays one line and says the same.
        #[test]
        fn names_survive_and_smuggle_nothing(name in "\\PC{1,40}|.{1,40}", private in any::<bool>()) {
            let caller = Caller {
                address: Some("+442079460018".parse().unwrap()),
                // Twice: what a control character hid from trimming is trimmed by the reader.
                display_name: Caller::clean_display_name(&name).as_deref().and_then(Caller::clean_display_name),
                private,
            };
            let rules = NumberRules::default();
            let lines = write_caller(&caller, &rules, "h", style(IdentityHeader::PAssertedIdentity, true));
            let values: Vec<&str> = lines.headers.iter().map(|(_, v)| v.as_str()).collect();
            prop_assert!(!lines.from.contains(['\r', '\n']) && values.iter().all(|v| !v.contains(['\r', '\n'])));
            let privacy = if private { vec!["id"] } else { vec![] };
            let headers =
                CallerHeaders { from: &lines.from, asserted: vec![values[0]], privacy, ..CallerHeaders::default() };
            prop_assert_eq!(read_caller(&headers, true, &rules), caller);
        }

        #[test]
        fn rubbish_is_survived(a in ".{0,60}", b in ".{0,60}", c in ".{0,60}") {
            let headers =
                CallerHeaders { from: &a, asserted: vec![&b], remote_party: Some(&c), privacy: vec![&a], ..CallerHeaders::default() };
            read_caller(&headers, true, &NumberRules::default());
            let headers = CallerHeaders { preferred: Some(&b), cli: CliSource::Preferred, ..headers };
            read_caller(&headers, false, &NumberRules::default());
        }
    }
}
