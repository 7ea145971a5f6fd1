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
    let sources: Vec<&NameAddr> = asserted.iter().chain(&remote_party).chain(own).collect();
    let addresses = || sources.iter().filter_map(|n| rules.address_of_uri(&n.uri));
    let address = addresses().find(|a| matches!(a, Address::Number(_))).or_else(|| addresses().next());
    let display_name =
        sources.iter().find_map(|n| n.display_name.as_deref()).and_then(Caller::clean_display_name);

    let privacy: Vec<String> = headers
        .privacy
        .iter()
        .flat_map(|v| v.split([';', ',']))
        .map(|v| v.trim().to_ascii_lowercase())
        .collect();
    let asks = |name: &str| privacy.iter().any(|p| p == name);
    let hidden_party = remote_party
        .as_ref()
        .is_some_and(|n| n.parameter("privacy").is_some_and(|p| !p.eq_ignore_ascii_case("off")));
    let private = if asks("none") {
        false
    } else {
        asks("id") || asks("user") || asks("header") || hidden_party || anonymous_from
    };
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
pub fn write_caller(
    caller: &Caller,
    rules: &NumberRules,
    host: &str,
    header: IdentityHeader,
    trusted: bool,
) -> CallerLines {
    let name = caller.display_name.as_deref().and_then(Caller::clean_display_name);
    let uri = caller.address.as_ref().map(|address| rules.uri_of(address, host));
    let named = |uri: &str| match &name {
        Some(name) => format!("{} <{uri}>", text::quote(name)),
        None => format!("<{uri}>"),
    };
    let from = match &uri {
        Some(uri) if !caller.private => named(uri),
        _ => "\"Anonymous\" <sip:anonymous@anonymous.invalid>".to_owned(),
    };
    let mut headers = Vec::new();
    if let Some(uri) = uri.filter(|_| trusted) {
        match header {
            IdentityHeader::None => {}
            IdentityHeader::PAssertedIdentity => headers.push(("P-Asserted-Identity", named(&uri))),
            IdentityHeader::RemotePartyId => {
                let privacy = if caller.private { "full" } else { "off" };
                let value = format!("{};party=calling;screen=yes;privacy={privacy}", named(&uri));
                headers.push(("Remote-Party-ID", value));
            }
        }
    }
    if caller.private {
        headers.push(("Privacy", "id".to_owned()));
    }
    CallerLines { from, headers }
}

/// A `name-addr` or `addr-spec` with its header parameters (RFC 3261 20.10, 25.1).
struct NameAddr {
    display_name: Option<String>,
    uri: String,
    parameters: Vec<(String, String)>,
}

impl NameAddr {
    fn parse(value: &str) -> Option<Self> {
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

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The forms in which networks write "nobody": RFC 3323 4.1.1.3 and what is seen beside it.
    fn is_anonymous(&self) -> bool {
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
        let write =
            |caller: &Caller, header, trusted| write_caller(caller, &rules, "gw.example", header, trusted);
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
            let lines = write_caller(&caller, &rules, "h", IdentityHeader::PAssertedIdentity, true);
            let values: Vec<&str> = lines.headers.iter().map(|(_, v)| v.as_str()).collect();
            prop_assert!(!lines.from.contains(['\r', '\n']) && values.iter().all(|v| !v.contains(['\r', '\n'])));
            let privacy = if private { vec!["id"] } else { vec![] };
            let headers =
                CallerHeaders { from: &lines.from, asserted: vec![values[0]], remote_party: None, privacy };
            prop_assert_eq!(read_caller(&headers, true, &rules), caller);
        }

        #[test]
        fn rubbish_is_survived(a in ".{0,60}", b in ".{0,60}", c in ".{0,60}") {
            let headers =
                CallerHeaders { from: &a, asserted: vec![&b], remote_party: Some(&c), privacy: vec![&a] };
            read_caller(&headers, true, &NumberRules::default());
        }
    }
}
