use call_model::{Address, Handle, Number};
use libp2p::PeerId;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use super::armour::{self, HANDLE};
use super::claims::{Abilities, HandleClaims, MAX_DEVICES, MAX_NUMBERS};
use super::error::IdentityError;
use super::key::{Domain, NodeKey, PublicKey};
use super::revocation::RevocationList;
use super::sealed::Sealed;
use super::standing::Standing;
use super::time::Validity;
use super::trust::Trust;
use super::x509::Certificate;
use super::{Kind, MAX_CREDENTIAL_BYTES};
use crate::cbor;
use crate::defence::{Defence, holds};

const WHAT: &str = "the handle certificate";

/// The certificate of an overlay user: compact CBOR, signed by an enrolment authority, whose own
/// X.509 certificate comes with it, so that a verifier needs only the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleCertificate {
    sealed: Sealed,
    claims: HandleClaims,
}

/// An overlay user whose certificate was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedHandle {
    /// The handle.
    pub handle: Handle,
    /// The keys of its devices, in the order of the certificate.
    pub keys: Vec<PublicKey>,
    /// What the user may do.
    pub abilities: Abilities,
    /// Telephone numbers verified to be the user's.
    pub numbers: Vec<Number>,
    /// The number of the certificate.
    pub serial: u64,
    /// The key of the enrolment authority.
    pub issuer: PublicKey,
    /// When the certificate ends, in Unix seconds.
    pub not_after: u64,
    /// What may void the certificate later.
    pub standing: Standing,
}

impl VerifiedHandle {
    /// Returns the certified key behind a peer id.
    pub fn key_of(&self, peer: &PeerId) -> Option<&PublicKey> {
        self.keys.iter().find(|key| key.peer_id() == *peer)
    }

    /// Says whether the user may call under this address: its handle or one of its numbers.
    pub fn holds(&self, address: &Address) -> bool {
        match address {
            Address::Handle(handle) => *handle == self.handle,
            Address::Number(number) => self.numbers.contains(number),
        }
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    handle: String,
    #[n(1)]
    keys: Vec<ByteArray<32>>,
    #[n(2)]
    serial: u64,
    #[n(3)]
    not_before: u64,
    /// Seconds after `not_before`.
    #[n(4)]
    duration: u64,
    #[n(5)]
    abilities: u32,
    #[n(6)]
    numbers: Option<Vec<String>>,
}

impl HandleCertificate {
    /// Signs claims. The caller has checked them.
    pub(super) fn issue(claims: HandleClaims, enrolment: &Certificate, key: &NodeKey) -> Self {
        let body = Body {
            handle: claims.handle.to_string(),
            keys: claims.keys.iter().map(|key| key.to_bytes().into()).collect(),
            serial: claims.serial,
            not_before: claims.validity.not_before,
            duration: claims.validity.not_after.saturating_sub(claims.validity.not_before),
            abilities: claims.abilities.0,
            numbers: Some(claims.numbers.iter().map(|n| n.digits().to_owned()).collect())
                .filter(|numbers: &Vec<String>| !numbers.is_empty()),
        };
        Self { sealed: Sealed::seal(enrolment, key, Domain::Handle, cbor::encode(body)), claims }
    }

    /// Reads the bytes of [`HandleCertificate::encode`]. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let sealed = Sealed::decode(Kind::Handle, WHAT, bytes, MAX_CREDENTIAL_BYTES)?;
        Ok(Self { claims: read_claims(&sealed.signed.body)?, sealed })
    }

    /// Writes the certificate as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        self.sealed.encode(Kind::Handle)
    }

    /// Reads the certificate from PEM: the first block `CAUSEWAY HANDLE CERTIFICATE`.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        Self::decode(&armour::first(pem, HANDLE)?)
    }

    /// Writes the certificate as PEM.
    pub fn to_pem(&self) -> String {
        armour::block(HANDLE, self.encode())
    }

    /// Returns the claims, unverified.
    pub fn claims(&self) -> &HandleClaims {
        &self.claims
    }

    /// Returns the length of the signed claims in bytes.
    pub fn body_len(&self) -> usize {
        self.sealed.signed.body.len()
    }

    /// Verifies the certificate at the moment `unix`: enrolment authority under a trusted root,
    /// claims signed by it and numbers within what the root lets it certify, both valid and not
    /// revoked, no longer than 90 days.
    pub fn verify(
        &self,
        trust: &Trust,
        revocations: &RevocationList,
        unix: u64,
    ) -> Result<VerifiedHandle, IdentityError> {
        let (claims, enrolment) = (&self.claims, &self.sealed.signer);
        let subject = claims.handle.as_str();
        let root = trust.verify_enrolment(enrolment, revocations, unix)?;
        if !self.sealed.is_signed(Domain::Handle) && holds(Defence::HandleSignature) {
            return Err(IdentityError::BadSignature { subject: format!("the certificate of {subject}") });
        }
        claims.check()?;
        enrolment.check_permits_user(subject, &claims.numbers)?;
        super::check_time(subject, claims.validity, unix)?;
        revocations.check(&enrolment.key, claims.serial, subject)?;
        let not_after = claims.validity.not_after.min(enrolment.validity.not_after);
        Ok(VerifiedHandle {
            handle: claims.handle.clone(),
            keys: claims.keys.clone(),
            abilities: claims.abilities,
            numbers: claims.numbers.clone(),
            serial: claims.serial,
            issuer: enrolment.key.clone(),
            not_after,
            standing: Standing {
                issuer: enrolment.key.to_bytes(),
                serial: claims.serial,
                root: root.key.to_bytes(),
                enrolment_serial: enrolment.serial,
                not_after,
            },
        })
    }
}

fn read_claims(body: &[u8]) -> Result<HandleClaims, IdentityError> {
    let malformed = || IdentityError::Malformed { what: WHAT };
    let body: Body = cbor::decode(WHAT, body, MAX_CREDENTIAL_BYTES)?;
    let numbers = body.numbers.unwrap_or_default();
    if body.keys.len() > MAX_DEVICES || numbers.len() > MAX_NUMBERS {
        return Err(malformed());
    }
    let handle: Handle = body.handle.parse().map_err(|_| malformed())?;
    let keys: Option<Vec<_>> = body.keys.iter().map(|key| PublicKey::from_bytes(&key[..])).collect();
    let numbers: Result<Vec<_>, _> = numbers.iter().map(|digits| format!("+{digits}").parse()).collect();
    Ok(HandleClaims {
        // One handle has one spelling, or one certificate could fill several slots.
        handle: Some(handle).filter(|handle| handle.as_str() == body.handle).ok_or_else(malformed)?,
        keys: keys.ok_or_else(malformed)?,
        serial: body.serial,
        validity: Validity {
            not_before: body.not_before,
            not_after: body.not_before.checked_add(body.duration).ok_or_else(malformed)?,
        },
        abilities: Abilities(body.abilities),
        numbers: numbers.map_err(|_| malformed())?,
    })
}
