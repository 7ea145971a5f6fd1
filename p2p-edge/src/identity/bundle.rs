//! Files: a key together with what certifies it.
use super::assertion::Assertion;
use super::chain::{NodeChain, VerifiedNode};
use super::error::IdentityError;
use super::handle::{HandleCertificate, VerifiedHandle};
use super::key::{NodeKey, PublicKey, Signature};
use super::revocation::RevocationList;
use super::trust::Trust;
use super::{Kind, MAX_CREDENTIAL_BYTES};
use crate::defence::{Defence, holds};
use call_model::Address;
use libp2p::PeerId;

/// The identity file of a supernode or gateway: PEM with `PRIVATE KEY` and two `CERTIFICATE`s.
#[derive(Clone, Debug)]
pub struct NodeBundle {
    /// The node's key.
    pub key: NodeKey,
    /// Its certificate and that of its issuer.
    pub chain: NodeChain,
}

impl NodeBundle {
    /// Reads the file and checks that the key is the certified one.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let (key, chain) = (NodeKey::from_pem(pem)?, NodeChain::from_pem(pem)?);
        if key.public() != *chain.key() {
            return Err(IdentityError::WrongKey { subject: chain.name().to_owned() });
        }
        Ok(Self { key, chain })
    }

    /// Writes the file. The text is secret.
    pub fn to_pem(&self) -> String {
        self.key.to_pem() + &self.chain.to_pem()
    }
}

/// The identity file of a user's device: PEM with `PRIVATE KEY` and `CAUSEWAY HANDLE CERTIFICATE`.
#[derive(Clone, Debug)]
pub struct UserBundle {
    /// The device's key.
    pub key: NodeKey,
    /// The user's certificate.
    pub certificate: HandleCertificate,
}

impl UserBundle {
    /// Reads the file and checks that the key is one of the certified ones.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let (key, certificate) = (NodeKey::from_pem(pem)?, HandleCertificate::from_pem(pem)?);
        if !certificate.claims().keys.contains(&key.public()) {
            return Err(IdentityError::WrongKey { subject: certificate.claims().handle.to_string() });
        }
        Ok(Self { key, certificate })
    }

    /// Writes the file. The text is secret.
    pub fn to_pem(&self) -> String {
        self.key.to_pem() + &self.certificate.to_pem()
    }
}

/// What a caller or publisher shows of itself: a handle certificate or a node's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// A user.
    Handle(HandleCertificate),
    /// A supernode or gateway.
    Node(NodeChain),
}

impl Credential {
    /// Reads either kind; the first element says which. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        const WHAT: &str = "the credential";
        if bytes.len() > MAX_CREDENTIAL_BYTES {
            return Err(IdentityError::Oversize {
                what: WHAT,
                size: bytes.len(),
                limit: MAX_CREDENTIAL_BYTES,
            });
        }
        match bytes.get(1) {
            Some(&kind) if kind == Kind::Handle as u8 => HandleCertificate::decode(bytes).map(Self::Handle),
            Some(&kind) if kind == Kind::Chain as u8 => NodeChain::decode(bytes).map(Self::Node),
            _ => Err(IdentityError::Malformed { what: WHAT }),
        }
    }

    /// Writes it as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Credential::Handle(certificate) => certificate.encode(),
            Credential::Node(chain) => chain.encode(),
        }
    }

    /// Verifies it at the moment `unix`.
    pub fn verify(
        &self,
        trust: &Trust,
        revocations: &RevocationList,
        unix: u64,
    ) -> Result<VerifiedParty, IdentityError> {
        match self {
            Credential::Handle(certificate) => {
                certificate.verify(trust, revocations, unix).map(VerifiedParty::Handle)
            }
            Credential::Node(chain) => chain.verify(trust, revocations, unix).map(VerifiedParty::Node),
        }
    }
}

/// A user or node whose certificate was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifiedParty {
    /// A user.
    Handle(VerifiedHandle),
    /// A supernode or gateway.
    Node(VerifiedNode),
}

impl VerifiedParty {
    /// Returns the certified key behind a peer id.
    pub fn key_of(&self, peer: &PeerId) -> Option<&PublicKey> {
        match self {
            VerifiedParty::Handle(handle) => handle.key_of(peer),
            VerifiedParty::Node(node) => Some(&node.key).filter(|_| node.peer_id == *peer),
        }
    }

    /// Returns what may void the certificate later.
    pub fn standing(&self) -> &super::Standing {
        match self {
            VerifiedParty::Handle(handle) => &handle.standing,
            VerifiedParty::Node(node) => &node.standing,
        }
    }

    /// Returns the handle or the node's name, for messages.
    pub fn name(&self) -> &str {
        match self {
            VerifiedParty::Handle(handle) => handle.handle.as_str(),
            VerifiedParty::Node(node) => &node.name,
        }
    }

    /// Says whether the party may call under this address. A user: its handle and its numbers. A
    /// gateway: any number, since it passes on what the telephone network says. Others: none.
    pub fn may_call_as(&self, address: &Address) -> bool {
        match self {
            VerifiedParty::Handle(handle) => handle.holds(address),
            VerifiedParty::Node(node) => {
                node.role == super::Role::Gateway && matches!(address, Address::Number(_))
            }
        }
    }
}

/// Checks the invite of the peer at the far end of a connection: its credential, that the
/// connection's key is certified, that this key signed the assertion, that the caller's address is
/// its own, and that the assertion is fresh.
pub fn verify_invite(
    credential: &[u8],
    assertion: &Assertion<'_>,
    signature: &[u8],
    peer: &PeerId,
    context: &mut InviteContext<'_>,
) -> Result<VerifiedParty, IdentityError> {
    let party = Credential::decode(credential)?.verify(context.trust, context.revocations, context.unix)?;
    let subject = || party.name().to_owned();
    let key = party.key_of(peer).ok_or_else(|| IdentityError::WrongKey { subject: subject() })?;
    let foreign = assertion.from.address.as_ref().is_some_and(|address| !party.may_call_as(address));
    if foreign && holds(Defence::CallerAddress) {
        return Err(IdentityError::AddressNotCertified { subject: subject() });
    }
    let signature =
        Signature::try_from(signature).map_err(|_| IdentityError::Malformed { what: "the signature" })?;
    assertion.verify(key, &signature, context.unix, context.nonces)?;
    Ok(party)
}

/// What a verifier of invites knows.
pub struct InviteContext<'a> {
    /// The trusted roots.
    pub trust: &'a Trust,
    /// What is revoked.
    pub revocations: &'a RevocationList,
    /// The nonces seen.
    pub nonces: &'a mut super::NonceCache,
    /// The moment, in Unix seconds.
    pub unix: u64,
}
