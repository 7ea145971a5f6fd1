use std::fmt;

use libp2p::PeerId;
use libp2p::identity::{self, Keypair, ed25519};

use super::armour::{self, PRIVATE_KEY};
use super::error::IdentityError;
use crate::defence::{Defence, holds};

/// The PKCS#8 wrapping of an Ed25519 seed up to the seed itself (RFC 8410 7): version 0, the
/// algorithm id-Ed25519, an OCTET STRING in an OCTET STRING.
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// What a signature is for. Its bytes go before the signed ones, so that a signature made for one
/// purpose is worth nothing for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Handle certificates.
    Handle,
    /// Revocation lists.
    Revocations,
    /// The assertion of a caller in an invite.
    Invite,
    /// Location records.
    Location,
    /// Number records.
    Number,
    /// Gateway offers.
    Offer,
    /// Requests for the renewal of a certificate.
    Renewal,
    /// What a device says of its user's presence.
    Presence,
    /// Who may see a user's presence and send it text.
    PresenceRules,
    /// Text from one user to another.
    Text,
    /// From which the secrets of a node's TURN server are derived. Never sent.
    Turn,
}

impl Domain {
    /// Returns the bytes that go before the signed ones.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Domain::Handle => b"causeway-handle-v1\0",
            Domain::Revocations => b"causeway-revocations-v1\0",
            Domain::Invite => b"causeway-invite-v1\0",
            Domain::Location => b"causeway-location-v1\0",
            Domain::Number => b"causeway-number-v1\0",
            Domain::Offer => b"causeway-offer-v1\0",
            Domain::Renewal => b"causeway-renewal-v1\0",
            Domain::Presence => b"causeway-presence-v1\0",
            Domain::PresenceRules => b"causeway-presence-rules-v1\0",
            Domain::Text => b"causeway-text-v1\0",
            Domain::Turn => b"causeway-turn-v1\0",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        let prefix = if holds(Defence::Domain) { self.prefix() } else { b"" };
        [prefix, bytes].concat()
    }
}

/// An Ed25519 signature (RFC 8032 5.1.6).
pub type Signature = [u8; 64];

/// An Ed25519 public key: the identity of a device, node or authority.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(ed25519::PublicKey);

impl PublicKey {
    /// Takes the 32 bytes of RFC 8032 5.1.5. `None` when they are not a point of the curve.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        ed25519::PublicKey::try_from_bytes(bytes).ok().map(Self)
    }

    /// Returns the 32 bytes of RFC 8032 5.1.5.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Reads the key out of a peer id, which holds it whole for Ed25519. `None` for other kinds.
    pub fn from_peer_id(peer: &PeerId) -> Option<Self> {
        let key = identity::PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
        let key = Self(key.try_into_ed25519().ok()?);
        (key.peer_id() == *peer).then_some(key)
    }

    /// Returns the peer id of the key in the overlay.
    pub fn peer_id(&self) -> PeerId {
        identity::PublicKey::from(self.0.clone()).to_peer_id()
    }

    /// Says whether `signature` was made by this key, for `domain`, over exactly `bytes`.
    pub fn verify(&self, domain: Domain, bytes: &[u8], signature: &[u8]) -> bool {
        self.verify_raw(&domain.message(bytes), signature)
    }

    /// Verifies without a domain: X.509 and PKCS#10 signatures only.
    pub(crate) fn verify_raw(&self, bytes: &[u8], signature: &[u8]) -> bool {
        self.0.verify(bytes, signature)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.peer_id())
    }
}

/// The secret key of a device, node or authority: Ed25519. Never shown by `Debug`.
#[derive(Clone)]
pub struct NodeKey {
    pair: ed25519::Keypair,
}

impl NodeKey {
    /// Builds the key from the 32 bytes of its seed (RFC 8032 5.1.5), which the caller draws.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        // Any 32 bytes are a secret key of Ed25519; the conversion only checks the length.
        let secret = match ed25519::SecretKey::try_from_bytes(seed) {
            Ok(secret) => secret,
            Err(_) => unreachable!("32 bytes are a seed"),
        };
        Self { pair: ed25519::Keypair::from(secret) }
    }

    /// Reads the key from PEM: the first block `PRIVATE KEY`, PKCS#8 (RFC 8410 7).
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let der = armour::first(pem, PRIVATE_KEY)?;
        let malformed = IdentityError::Malformed { what: "the private key" };
        // Version 1 (RFC 5958) appends the public key, which is derived anyway.
        let fixed = der.get(2..5) == Some(&[2, 1, 0]) || der.get(2..5) == Some(&[2, 1, 1]);
        let algorithm = der.get(5..16) == PKCS8_PREFIX.get(5..16);
        let length = der.get(1).is_some_and(|&length| usize::from(length) + 2 == der.len());
        match der.get(16..48).and_then(|seed| <[u8; 32]>::try_from(seed).ok()) {
            Some(seed) if fixed && length && algorithm => Ok(Self::from_seed(seed)),
            _ => Err(malformed),
        }
    }

    /// Writes the key as PEM, PKCS#8 (RFC 8410 7). The text is secret.
    pub fn to_pem(&self) -> String {
        let mut der = PKCS8_PREFIX.to_vec();
        der.extend_from_slice(self.pair.secret().as_ref());
        armour::block(PRIVATE_KEY, der)
    }

    /// Returns the public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.pair.public())
    }

    /// Returns the peer id of the key in the overlay.
    pub fn peer_id(&self) -> PeerId {
        self.public().peer_id()
    }

    /// Returns the key as the swarm takes it.
    pub fn keypair(&self) -> Keypair {
        Keypair::from(self.pair.clone())
    }

    /// Signs exactly `bytes` for `domain`.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Signature {
        self.sign_raw(&domain.message(bytes))
    }

    /// Signs without a domain: X.509 and PKCS#10 only.
    pub(crate) fn sign_raw(&self, bytes: &[u8]) -> Signature {
        match Signature::try_from(self.pair.sign(bytes)) {
            Ok(signature) => signature,
            Err(_) => unreachable!("an Ed25519 signature has 64 bytes"),
        }
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, secret not shown)", self.peer_id())
    }
}

/// Bytes and the signature over exactly those bytes. They are passed on as they came and never
/// encoded again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The signed bytes.
    pub body: Vec<u8>,
    /// The signature over domain and body.
    pub signature: Signature,
}

impl Signed {
    /// Signs `body` for `domain`.
    pub fn seal(key: &NodeKey, domain: Domain, body: Vec<u8>) -> Self {
        let signature = key.sign(domain, &body);
        Self { body, signature }
    }

    /// Says whether `key` signed the body for `domain`.
    pub fn is_by(&self, key: &PublicKey, domain: Domain) -> bool {
        key.verify(domain, &self.body, &self.signature)
    }
}
