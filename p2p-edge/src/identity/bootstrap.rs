use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::armour::{self, BOOTSTRAP};
use super::error::IdentityError;
use super::key::{Domain, NodeKey};
use super::sealed::Sealed;
use super::trust::Trust;
use super::x509::Certificate;
use super::{Kind, Utc, Validity};
use crate::cbor;
use crate::defence::{Defence, holds};

/// The longest signed bootstrap list that is read, in bytes.
pub const MAX_BOOTSTRAP_BYTES: usize = 64 * 1024;
/// The most nodes on one bootstrap list.
pub const MAX_BOOTSTRAP_NODES: usize = 256;
/// The most DNS names, and the most mirrors, on one bootstrap list.
pub const MAX_BOOTSTRAP_SOURCES: usize = 8;
/// The longest a bootstrap list may be valid, in days.
pub const MAX_BOOTSTRAP_DAYS: u64 = 398;

/// The longest multiaddress, name or mirror on a list, in bytes.
const MAX_ENTRY_BYTES: usize = 256;
const WHAT: &str = "the bootstrap list";

/// By whom a network may be joined: supernodes, and where else to ask for some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapList {
    /// Counts up with every list; of several the highest is used.
    pub sequence: u64,
    /// When the list is valid, in Unix seconds.
    pub validity: Validity,
    /// Multiaddresses of supernodes, each ending in `/p2p/<peer>`.
    nodes: Vec<Multiaddr>,
    /// Names whose `_dnsaddr` TXT records lead to supernodes.
    pub names: Vec<String>,
    /// HTTPS addresses of newer lists.
    pub mirrors: Vec<String>,
}

/// A bootstrap list with the signature of the root. A mirror that hands it out can withhold it, but
/// not change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBootstrap {
    sealed: Sealed,
    list: BootstrapList,
}

/// Why a bootstrap list was not made, or is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// It cannot be read, or what it is signed with is not valid.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// It was not signed by the root.
    #[error("the bootstrap list was not signed by a trusted root: fetch it again, from another mirror")]
    NotSigned,
    /// It has ended, or has not begun.
    #[error("the bootstrap list is valid from {from} to {to}: fetch a newer one, or check the clock")]
    NotValid {
        /// When it begins.
        from: Utc,
        /// When it ends.
        to: Utc,
    },
    /// An entry is not what it is to be.
    #[error("`{entry}` cannot stand on a bootstrap list: {remedy}")]
    Entry {
        /// The entry.
        entry: String,
        /// What to write.
        remedy: &'static str,
    },
}

impl BootstrapError {
    /// Returns the reason as a metric label, from a closed set.
    pub fn as_str(&self) -> &'static str {
        match self {
            BootstrapError::Identity(error) => error.as_str(),
            BootstrapError::NotSigned => "bad_signature",
            BootstrapError::NotValid { .. } => "list_expired",
            BootstrapError::Entry { .. } => "invalid_entry",
        }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    not_before: u64,
    #[n(2)]
    not_after: u64,
    #[n(3)]
    nodes: Vec<ByteVec>,
    #[n(4)]
    names: Vec<String>,
    #[n(5)]
    mirrors: Vec<String>,
}

impl BootstrapList {
    /// Puts a list together.
    ///
    /// # Errors
    /// `Entry` for an address without `/p2p/<peer>` at its end, a name that is none, a mirror that is
    /// not HTTPS, or more than 256 nodes or 8 of the others.
    pub fn new(
        sequence: u64,
        validity: Validity,
        nodes: &[String],
        names: &[String],
        mirrors: &[String],
    ) -> Result<Self, BootstrapError> {
        let entry = |entry: &str, remedy| BootstrapError::Entry { entry: entry.to_owned(), remedy };
        let node = |text: &String| {
            let address: Option<Multiaddr> = text.parse().ok().filter(is_node);
            address.ok_or_else(|| entry(text, "write a multiaddress that ends in /p2p/ID"))
        };
        let nodes = nodes.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            return Err(entry(name, "write a domain name such as boot.example.org"));
        }
        if let Some(mirror) = mirrors.iter().find(|mirror| !is_mirror(mirror)) {
            return Err(entry(mirror, "write an address that begins with https://"));
        }
        let sizes = [nodes.len(), names.len(), mirrors.len()];
        if sizes[0] > MAX_BOOTSTRAP_NODES || sizes[1].max(sizes[2]) > MAX_BOOTSTRAP_SOURCES {
            let size = format!("{} nodes, {} names, {} mirrors", sizes[0], sizes[1], sizes[2]);
            return Err(entry(&size, "at most 256 nodes, 8 names and 8 mirrors"));
        }
        if validity.not_after.saturating_sub(validity.not_before) > MAX_BOOTSTRAP_DAYS * super::time::DAY {
            return Err(entry(&Utc(validity.not_after).to_string(), "let it end within 398 days"));
        }
        Ok(Self { sequence, validity, nodes, names: names.to_vec(), mirrors: mirrors.to_vec() })
    }

    /// Returns the addresses of supernodes, each with the peer at its end.
    pub(crate) fn nodes(&self) -> &[Multiaddr] {
        &self.nodes
    }

    /// Returns the addresses of supernodes as text.
    pub fn addresses(&self) -> impl Iterator<Item = String> {
        self.nodes.iter().map(ToString::to_string)
    }

    fn encode(&self) -> Vec<u8> {
        cbor::encode(Body {
            sequence: self.sequence,
            not_before: self.validity.not_before,
            not_after: self.validity.not_after,
            nodes: self.nodes.iter().map(|address| address.to_vec().into()).collect(),
            names: self.names.clone(),
            mirrors: self.mirrors.clone(),
        })
    }

    fn read(body: &Body) -> Option<Self> {
        let node = |bytes: &ByteVec| Multiaddr::try_from(bytes.to_vec()).ok().filter(is_node);
        let whole = body.nodes.len() <= MAX_BOOTSTRAP_NODES
            && body.names.len().max(body.mirrors.len()) <= MAX_BOOTSTRAP_SOURCES
            && body.names.iter().all(|name| is_name(name))
            && body.mirrors.iter().all(|mirror| is_mirror(mirror));
        whole.then_some(())?;
        Some(Self {
            sequence: body.sequence,
            validity: Validity { not_before: body.not_before, not_after: body.not_after },
            nodes: body.nodes.iter().map(node).collect::<Option<_>>()?,
            names: body.names.clone(),
            mirrors: body.mirrors.clone(),
        })
    }
}

impl SignedBootstrap {
    /// Signs a list with the key of a root.
    pub(super) fn seal(list: BootstrapList, signer: &Certificate, key: &NodeKey) -> Self {
        Self { sealed: Sealed::seal(signer, key, Domain::Bootstrap, list.encode()), list }
    }

    /// Reads the bytes of [`SignedBootstrap::encode`]. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let sealed = Sealed::decode(Kind::Bootstrap, WHAT, bytes, MAX_BOOTSTRAP_BYTES)?;
        let body: Body = cbor::decode(WHAT, &sealed.signed.body, MAX_BOOTSTRAP_BYTES)?;
        let list = BootstrapList::read(&body).ok_or(IdentityError::Malformed { what: WHAT })?;
        Ok(Self { sealed, list })
    }

    /// Writes the list as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        self.sealed.encode(Kind::Bootstrap)
    }

    /// Reads the list from PEM: the first block `CAUSEWAY BOOTSTRAP LIST`.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        Self::decode(&armour::first(pem, BOOTSTRAP)?)
    }

    /// Writes the list as PEM.
    pub fn to_pem(&self) -> String {
        armour::block(BOOTSTRAP, self.encode())
    }

    /// Returns the sequence, unverified.
    pub fn sequence(&self) -> u64 {
        self.list.sequence
    }

    /// Verifies the list at the moment `unix`, and returns it.
    ///
    /// # Errors
    /// `NotSigned` where no trusted root has signed it; `NotValid` outside its validity; what is
    /// wrong with the root.
    pub fn verify(&self, trust: &Trust, unix: u64) -> Result<&BootstrapList, BootstrapError> {
        let root = trust.root(&self.sealed.signer.der);
        let signed = root.is_some_and(|root| self.sealed.signed.is_by(&root.key, Domain::Bootstrap));
        if !signed && holds(Defence::BootstrapSignature) {
            return Err(BootstrapError::NotSigned);
        }
        if let Some(root) = root {
            root.check_time(unix)?;
        }
        let Validity { not_before, not_after } = self.list.validity;
        if unix < not_before || unix > not_after {
            return Err(BootstrapError::NotValid { from: Utc(not_before), to: Utc(not_after) });
        }
        Ok(&self.list)
    }
}

fn is_node(address: &Multiaddr) -> bool {
    matches!(address.iter().last(), Some(Protocol::P2p(_))) && address.len() <= MAX_ENTRY_BYTES
}

/// Says whether a text is a domain name (RFC 1123 2.1), as far as a resolver may be asked for it.
pub fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}

/// Says whether a text is the HTTPS address of a list.
pub fn is_mirror(text: &str) -> bool {
    let rest = text.strip_prefix("https://");
    text.len() <= MAX_ENTRY_BYTES
        && rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{Pki, key};

    const NOW: u64 = 1_790_000_000;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    fn nodes(count: u8) -> Vec<String> {
        (1..=count).map(|n| format!("/ip4/192.0.2.{n}/tcp/4001/p2p/{}", key(n).peer_id())).collect()
    }

    fn list(sequence: u64, nodes: &[String]) -> BootstrapList {
        let names = texts(&["boot.example.org"]);
        let mirrors = texts(&["https://example.net/causeway.list"]);
        BootstrapList::new(sequence, Validity::days_from(NOW, 90), nodes, &names, &mirrors).unwrap()
    }

    #[test]
    fn a_list_of_the_root_is_good_until_it_ends_and_for_those_who_trust_the_root() {
        let pki = Pki::new(NOW).unwrap();
        let trust = pki.trust().unwrap();
        let signed = pki.root.sign_bootstrap(list(7, &nodes(3))).unwrap();
        let read = SignedBootstrap::from_pem(&signed.to_pem()).unwrap();
        assert_eq!(read, signed);
        let verified = read.verify(&trust, NOW + 1).unwrap();
        assert_eq!(verified.addresses().collect::<Vec<_>>(), nodes(3));
        assert_eq!((verified.sequence, verified.names.len(), verified.mirrors.len()), (7, 1, 1));
        for unix in [NOW - 1, NOW + 91 * 86_400] {
            assert_eq!(read.verify(&trust, unix).unwrap_err().as_str(), "list_expired");
        }
        let other = Authority::init_root("Other", [0x55; 32], Validity::days_from(NOW, 9)).unwrap();
        let other = Trust::from_pem(&other.certificate_pem()).unwrap();
        assert_eq!(read.verify(&other, NOW + 1), Err(BootstrapError::NotSigned));
    }

    use super::super::Authority;

    #[test]
    fn nobody_but_the_root_makes_lists_and_no_byte_of_one_can_be_changed() {
        let pki = Pki::new(NOW).unwrap();
        let trust = pki.trust().unwrap();
        assert!(pki.enrolment.sign_bootstrap(list(1, &nodes(1))).is_err());
        let bytes = pki.root.sign_bootstrap(list(1, &nodes(1))).unwrap().encode();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            let taken = SignedBootstrap::decode(&altered).is_ok_and(|read| read.verify(&trust, NOW).is_ok());
            assert!(!taken, "byte {at} may be changed");
        }
        for end in 0..bytes.len() {
            assert!(SignedBootstrap::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn what_is_no_address_name_or_mirror_cannot_stand_on_a_list() {
        let make = |nodes: &[String], names: &[String], mirrors: &[String], days| {
            BootstrapList::new(1, Validity::days_from(NOW, days), nodes, names, mirrors)
        };
        let none: &[String] = &[];
        assert!(make(&nodes(1), none, none, 398).is_ok());
        assert!(make(&nodes(1), none, none, 399).is_err(), "too long");
        assert!(make(&texts(&["/ip4/192.0.2.1/tcp/1"]), none, none, 9).is_err(), "no peer");
        let many: Vec<String> = nodes(1).iter().cycle().take(MAX_BOOTSTRAP_NODES + 1).cloned().collect();
        assert!(make(&many, none, none, 9).is_err(), "too many");
        for name in ["", "a b", "a..b", &"a".repeat(64)] {
            assert!(make(none, &texts(&[name]), none, 9).is_err(), "{name}");
        }
        for mirror in ["http://example.org/list", "https://", "https://a b"] {
            let error = make(none, none, &texts(&[mirror]), 9).unwrap_err().to_string();
            assert!(error.contains("https://"), "{error}");
        }
        let full = list(1, &many[..MAX_BOOTSTRAP_NODES]);
        let pki = Pki::new(NOW).unwrap();
        assert!(pki.root.sign_bootstrap(full).unwrap().encode().len() < MAX_BOOTSTRAP_BYTES);
    }
}
