//! Links by which one user invites another: addresses of supernodes, and who sent them.
//!
//! `causeway:invite?v=1&from=alice&a=/ip4/192.0.2.1/tcp/4001/p2p/12D3...`, or the same after the
//! `#` of an HTTPS address, which browsers tell no server (RFC 3986 3.5). Nothing in it is trusted:
//! who the link leads to has to prove its certificate, and who sent it is shown to people only.

use std::fmt;

use call_model::Handle;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Addresses in one link.
pub const MAX_INVITE_ADDRESSES: usize = 8;
/// The longest link that is read, in bytes.
pub const MAX_INVITE_BYTES: usize = 4096;

const SCHEME: &str = "causeway:invite?";
/// What stands in a query without being encoded (RFC 3986 3.4), but for `&`, `=`, `+` and `%`.
const PLAIN: &[u8] = b"-._~/:@!$'()*,;?";

/// An invite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Who invites, as the link says.
    pub from: Option<Handle>,
    addresses: Vec<Multiaddr>,
}

/// Why a link is no invite.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Another kind of text.
    #[error("this is no invite: one begins with causeway:invite? or is an https address with # in it")]
    NotInvite,
    /// It is longer than any.
    #[error("the invite has {0} bytes and the limit is 4096: ask for a new one")]
    Oversize(usize),
    /// It is of a later version.
    #[error("the invite is of version {0}, which this program does not know: update the program")]
    Version(String),
    /// An address in it cannot be read, or does not say whose it is.
    #[error("`{0}` in the invite is no address that ends in /p2p/ID: ask for a new one")]
    Address(String),
    /// It leads nowhere.
    #[error("the invite has no address in it: ask for a new one")]
    Empty,
}

impl Invite {
    /// Makes an invite to the first 8 of some addresses, each ending in `/p2p/<peer>`.
    ///
    /// # Errors
    /// `Address` for one that is none; `Empty` where there is none.
    pub fn new(from: Option<Handle>, addresses: &[String]) -> Result<Self, InviteError> {
        let read = addresses.iter().take(MAX_INVITE_ADDRESSES).map(|text| address(text));
        let addresses = read.collect::<Result<Vec<_>, _>>()?;
        if addresses.is_empty() { Err(InviteError::Empty) } else { Ok(Self { from, addresses }) }
    }

    /// Reads a link of either form. Fields that are not known are passed over.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(link: &str) -> Result<Self, InviteError> {
        let link = link.trim();
        if link.len() > MAX_INVITE_BYTES {
            return Err(InviteError::Oversize(link.len()));
        }
        let web =
            || link.strip_prefix("https://").and_then(|rest| rest.split_once('#')).map(|(_, after)| after);
        let fields = link.strip_prefix(SCHEME).or_else(web).ok_or(InviteError::NotInvite)?;
        let (mut from, mut addresses, mut version) = (None, Vec::new(), None);
        for (name, value) in fields.split('&').filter_map(|field| field.split_once('=')) {
            let value = decode(value).ok_or_else(|| InviteError::Address(value.to_owned()))?;
            match name {
                "v" => version = Some(value),
                "from" => from = value.parse().ok(),
                "a" if addresses.len() < MAX_INVITE_ADDRESSES => addresses.push(address(&value)?),
                _ => {}
            }
        }
        match version.as_deref() {
            Some("1") if addresses.is_empty() => Err(InviteError::Empty),
            Some("1") => Ok(Self { from, addresses }),
            Some(other) => Err(InviteError::Version(other.to_owned())),
            None => Err(InviteError::NotInvite),
        }
    }

    /// Writes the link for a page of the web, whose address is `page`, that explains it.
    pub fn to_web(&self, page: &str) -> String {
        format!("{}#{}", page.split('#').next().unwrap_or_default(), self.fields())
    }

    /// Returns the addresses that the link leads to.
    pub(crate) fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    fn fields(&self) -> String {
        let from = self.from.iter().map(|handle| format!("&from={}", encode(handle.as_str())));
        let addresses = self.addresses.iter().map(|address| format!("&a={}", encode(&address.to_string())));
        std::iter::once("v=1".to_owned()).chain(from).chain(addresses).collect()
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.fields())
    }
}

fn address(text: &str) -> Result<Multiaddr, InviteError> {
    let address: Option<Multiaddr> = text.parse().ok();
    let named = address.filter(|address| matches!(address.iter().last(), Some(Protocol::P2p(_))));
    named.ok_or_else(|| InviteError::Address(text.to_owned()))
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || PLAIN.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

/// Takes percent-encoding off (RFC 3986 2.1).
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            let (high, low) = (digit()?, digit()?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn texts(count: u8) -> Vec<String> {
        let peer = |n| crate::testing::key(n).peer_id();
        (1..=count).map(|n| format!("/ip4/192.0.2.{n}/udp/4001/quic-v1/p2p/{}", peer(n))).collect()
    }

    #[test]
    fn a_link_of_either_form_is_read_as_it_was_meant() {
        let invite = Invite::new(Some("alice".parse().unwrap()), &texts(3)).unwrap();
        let link = invite.to_string();
        assert!(link.starts_with("causeway:invite?v=1&from=alice&a=/ip4/192.0.2.1/udp/4001/"), "{link}");
        assert_eq!(Invite::parse(&format!(" {link}\n")), Ok(invite.clone()));
        let web = invite.to_web("https://example.org/join");
        assert!(web.starts_with("https://example.org/join#v=1&"), "{web}");
        assert_eq!(Invite::parse(&web), Ok(invite));
        // Mail programs encode more than they have to, and later versions may say more.
        let encoded = link.replace('/', "%2f").replace(':', "%3A").replacen("causeway%3A", "causeway:", 1);
        assert_eq!(Invite::parse(&(encoded + "&later=x")).unwrap().to_string(), link);
    }

    #[test]
    fn what_is_no_invite_is_refused_with_what_to_do() {
        let good = Invite::new(None, &texts(1)).unwrap().to_string();
        let cases = [
            ("", InviteError::NotInvite),
            ("https://example.org/", InviteError::NotInvite),
            ("causeway:invite?a=x", InviteError::Address("x".into())),
            ("causeway:invite?v=1", InviteError::Empty),
            ("causeway:invite?v=1&a=%zz", InviteError::Address("%zz".into())),
            (
                "causeway:invite?v=1&a=/ip4/192.0.2.1/tcp/1",
                InviteError::Address("/ip4/192.0.2.1/tcp/1".into()),
            ),
            (&good.replace("v=1", "v=2"), InviteError::Version("2".into())),
            (&"a".repeat(MAX_INVITE_BYTES + 1), InviteError::Oversize(MAX_INVITE_BYTES + 1)),
        ];
        for (link, error) in cases {
            assert_eq!(Invite::parse(link), Err(error), "{link}");
        }
        assert_eq!(Invite::new(None, &[]), Err(InviteError::Empty));
        let many = Invite::new(None, &texts(20)).unwrap();
        assert_eq!(many.addresses().len(), MAX_INVITE_ADDRESSES);
        assert!(many.to_string().len() < MAX_INVITE_BYTES);
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,200}", fields in "[a-z=&%0-9/]{0,200}") {
            let _ = Invite::parse(&text);
            let _ = Invite::parse(&format!("causeway:invite?v=1&{fields}"));
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }
    }
}
