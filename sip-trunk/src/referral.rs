//! Words about calls that are sent elsewhere: transfer (RFC 3515, RFC 5589), replacement of one call
//! by another (RFC 3891) and redirection (RFC 3261 8.1.3.4).

use std::fmt::Write as _;

use call_model::{Address, CallId};

use crate::text;
use crate::wire::message::{Head, Name, addr_uri};

/// The longest URI, and the longest part of a Replaces, that is kept, in bytes.
const PART_MAX: usize = 256;

/// A dialog that an INVITE takes the place of (RFC 3891 3), in the words of whoever gets it: the To
/// tag is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaces {
    /// Call-ID of the dialog.
    pub call_id: String,
    /// The tag of the side that gets the header.
    pub to_tag: String,
    /// The tag of the other side.
    pub from_tag: String,
    /// Only while the dialog is not answered (RFC 3891 6.1).
    pub early_only: bool,
}

impl Replaces {
    /// Reads a value. `None` unless there are a Call-ID and one tag of each kind (RFC 3891 6.1).
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = text::split(value, ';');
        let call_id = part(parts.next()?)?;
        let (mut to, mut from, mut early_only) = (None, None, false);
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = name.trim();
            let slot = match () {
                () if name.eq_ignore_ascii_case("to-tag") => &mut to,
                () if name.eq_ignore_ascii_case("from-tag") => &mut from,
                () => {
                    early_only |= name.eq_ignore_ascii_case("early-only");
                    continue;
                }
            };
            // Each exactly once.
            if slot.replace(part(value)?).is_some() {
                return None;
            }
        }
        Some(Self { call_id, to_tag: to?, from_tag: from?, early_only })
    }

    /// Writes the value.
    #[must_use]
    pub fn write(&self) -> String {
        let early = if self.early_only { ";early-only" } else { "" };
        format!("{};to-tag={};from-tag={}{early}", self.call_id, self.to_tag, self.from_tag)
    }

    /// Writes it as a header of a URI (RFC 3261 19.1.1), escaped.
    pub(crate) fn in_uri(&self) -> String {
        let mut out = "Replaces=".to_owned();
        for byte in self.write().bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
                out.push(char::from(byte));
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    }

    /// Reads the Replaces of an INVITE.
    ///
    /// # Errors
    /// More than one, one that is malformed, or one beside a Join (RFC 3891 3).
    pub(crate) fn of_invite(head: &Head) -> Result<Option<Self>, Malformed> {
        let values = head.list(&Name::Replaces);
        match values.as_slice() {
            [] if head.text(&Name::Replaces).is_none() => Ok(None),
            [one] if head.texts_named("Join").is_empty() => Self::parse(one).map(Some).ok_or(Malformed),
            _ => Err(Malformed),
        }
    }
}

/// A header that says what must be said otherwise: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

fn part(text: &str) -> Option<String> {
    let text = text.trim();
    let good = !text.is_empty() && text.len() <= PART_MAX;
    // RFC 3261 25.1 `callid`; none of it ends the value.
    (good && text.bytes().all(|b| b.is_ascii_graphic() && !b";,".contains(&b))).then(|| text.to_owned())
}

/// A URI that may be written into a message again.
pub(crate) fn plain_uri(uri: &str) -> Option<String> {
    let good = (1..=PART_MAX).contains(&uri.len());
    (good && uri.bytes().all(|b| b.is_ascii_graphic() && !b"<>\"".contains(&b))).then(|| uri.to_owned())
}

/// What an INVITE that a transfer brought about carries beside the usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Referral {
    /// The request URI as Refer-To had it, instead of one made of the called address: for a target
    /// that is a name within the trunk.
    pub uri: Option<String>,
    /// The URI of whoever asked for the transfer: Referred-By (RFC 3892 3).
    pub referred_by: Option<String>,
    /// The dialog at the far side that the call takes over (RFC 3891).
    pub replaces: Option<Replaces>,
}

impl Referral {
    /// Reads what an INVITE says of the transfer that brought it about.
    pub(crate) fn of_invite(head: &Head) -> Option<Self> {
        let referred_by = referred_by(head)?;
        Some(Self { referred_by: Some(referred_by), ..Self::default() })
    }

    /// Writes the header lines of the INVITE. Whoever does not know Replaces would ring a second time
    /// (RFC 5589 7.1).
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(uri) = self.referred_by.as_deref().and_then(plain_uri) {
            lines.push(("Referred-By", format!("<{uri}>")));
        }
        if let Some(replaces) = &self.replaces {
            lines.push(("Replaces", replaces.write()));
            lines.push(("Require", "replaces".to_owned()));
        }
        lines
    }
}

/// Reads the URI of Referred-By (RFC 3892 3).
pub(crate) fn referred_by(head: &Head) -> Option<String> {
    head.text(&Name::ReferredBy).as_deref().and_then(addr_uri).and_then(plain_uri)
}

/// A transfer that the far side of a call asks for by REFER (RFC 3515 2.4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRequest {
    /// Whom to call, by the number rules of the trunk; `None` if it is neither number nor handle.
    pub target: Option<Address>,
    /// The user part of the target, decoded.
    pub target_user: String,
    /// The URI of the target without its headers.
    pub target_uri: String,
    /// The dialog to take over: the transfer is attended (RFC 5589 7).
    pub replaces: Option<Replaces>,
    /// The call of this trunk that this dialog is. It and the call that was transferred have the
    /// same far side, which wants those behind the two joined.
    pub replaced: Option<CallId>,
    /// The URI of Referred-By (RFC 3892).
    pub referred_by: Option<String>,
    /// Progress is told to the far side; false where it asked not to hear of it (RFC 4488 4).
    pub reports: bool,
}

impl TransferRequest {
    /// Builds what goes into the details of the call to the target.
    #[must_use]
    pub fn referral(&self) -> Referral {
        Referral {
            uri: Some(self.target_uri.clone()),
            referred_by: self.referred_by.clone(),
            replaces: self.replaces.clone(),
        }
    }
}

/// Whom a call is transferred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferTarget {
    /// A number or handle: blind (RFC 5589 6).
    Address(Address),
    /// The far side of another answered call of the same trunk: attended (RFC 5589 7).
    Call(CallId),
}

/// What became of a transfer that we asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferOutcome {
    /// The far side reports this final status of its call to the target.
    Reported(u16),
    /// It refused the REFER with this status; 503 if that could not be sent.
    Refused(u16),
    /// It took the REFER and will not say what becomes of it (RFC 4488 4), or ended its reports
    /// without a result.
    Unreported,
    /// It did not answer, or its reports stopped.
    Timeout,
}

/// Where a redirection leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectContact {
    /// The URI without headers.
    pub uri: String,
    /// Its address by the number rules of the trunk; `None` if it is neither number nor handle.
    pub target: Option<Address>,
    /// Its preference in thousandths, 0 to 1000 (RFC 3261 20.10).
    pub preference: u16,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 3891 6.1.
    #[test]
    fn replaces_is_read_and_written() {
        let value = "425928@bobster.example.org;to-tag=7743 ; from-tag=6472;early-only;x=y";
        let replaces = Replaces::parse(value).unwrap();
        assert_eq!((replaces.to_tag.as_str(), replaces.from_tag.as_str()), ("7743", "6472"));
        assert!(replaces.early_only);
        assert_eq!(Replaces::parse(&replaces.write()).unwrap(), replaces);
        let escaped = replaces.in_uri();
        assert!(escaped.starts_with("Replaces=425928%40bobster.example.org%3Bto-tag%3D7743"), "{escaped}");
        for bad in [
            "a;to-tag=1",
            "a;from-tag=1",
            "a;to-tag=1;to-tag=2;from-tag=3",
            ";to-tag=1;from-tag=2",
            "a;to-tag=;from-tag=2",
            "a b;to-tag=1;from-tag=2",
            "",
        ] {
            assert_eq!(Replaces::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_is_survived(a in "[a-z@;=, -]{0,80}|.{0,80}") {
            if let Some(replaces) = Replaces::parse(&a) {
                prop_assert_eq!(text::unescape(&replaces.in_uri()).unwrap(), format!("Replaces={}", replaces.write()));
                prop_assert_eq!(Replaces::parse(&replaces.write()).unwrap(), replaces);
            }
        }
    }
}
