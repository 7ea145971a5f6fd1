//! Who has a telephone number, as an authority says that may be offline: the user that was given the
//! assignment, or anybody else who holds it, publishes it as the record of the number.
use call_model::{Handle, Number};
use minicbor::{Decode, Encode};

use super::armour::{self, ASSIGNMENT};
use super::claims::check_length;
use super::error::IdentityError;
use super::key::{Domain, NodeKey, PublicKey, Signature};
use super::revocation::RevocationList;
use super::sealed::Sealed;
use super::standing::Standing;
use super::time::{Utc, Validity};
use super::trust::Trust;
use super::x509::Certificate;
use super::{Kind, MAX_CREDENTIAL_BYTES};
use crate::cbor;
use crate::defence::{Defence, holds};

/// The longest an assignment may last, in days.
pub const MAX_ASSIGNMENT_DAYS: u64 = 398;
/// How much the clock of an authority may be ahead, in seconds.
const CLOCK_SKEW: u64 = 60;

const WHAT: &str = "the assignment of a number";

/// What an assignment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentClaims {
    /// The number.
    pub number: Number,
    /// Whose it is.
    pub handle: Handle,
    /// The number of the assignment, by which it is revoked; never used twice by one authority.
    pub serial: u64,
    /// When it was made, in Unix milliseconds. Of several for one number the latest wins.
    pub sequence: u64,
    /// When it ends, in Unix seconds: at most 398 days after it was made.
    pub expires_unix: u64,
}

impl AssignmentClaims {
    fn validity(&self) -> Validity {
        Validity { not_before: self.sequence / 1000, not_after: self.expires_unix }
    }
}

/// The assignment of a telephone number to a handle: compact CBOR, signed by an enrolment authority
/// whose own X.509 certificate comes with it. It is a record of the overlay as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberAssignment {
    sealed: Sealed,
    claims: AssignmentClaims,
}

/// An assignment that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedAssignment {
    /// What it says.
    pub claims: AssignmentClaims,
    /// The key of the authority.
    pub issuer: PublicKey,
    /// When it ends, or the authority's certificate if that is sooner, in Unix seconds.
    pub not_after: u64,
    /// What may void it later.
    pub standing: Standing,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    number: String,
    #[n(1)]
    handle: String,
    #[n(2)]
    sequence: u64,
    #[n(3)]
    expires_unix: u64,
    #[n(4)]
    serial: u64,
}

impl NumberAssignment {
    /// Signs claims. The caller has checked them.
    pub(super) fn issue(claims: AssignmentClaims, enrolment: &Certificate, key: &NodeKey) -> Self {
        let body = Body {
            number: claims.number.digits().to_owned(),
            handle: claims.handle.to_string(),
            sequence: claims.sequence,
            expires_unix: claims.expires_unix,
            serial: claims.serial,
        };
        Self { sealed: Sealed::seal(enrolment, key, Domain::Assignment, cbor::encode(body)), claims }
    }

    /// Says whether bytes claim to be an assignment, by their first elements.
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(&[0x84, Kind::Assignment as u8])
    }

    /// Reads the bytes of [`NumberAssignment::encode`]. Verifies nothing.
    ///
    /// # Errors
    /// `Malformed`, `Oversize`.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let sealed = Sealed::decode(Kind::Assignment, WHAT, bytes, MAX_CREDENTIAL_BYTES)?;
        Ok(Self { claims: read_claims(&sealed.signed.body)?, sealed })
    }

    /// Writes the assignment as CBOR: the value of the record.
    pub fn encode(&self) -> Vec<u8> {
        self.sealed.encode(Kind::Assignment)
    }

    /// Reads every block `CAUSEWAY NUMBER ASSIGNMENT` of a PEM file.
    ///
    /// # Errors
    /// When the file cannot be read, or a block is damaged.
    pub fn all_from_pem(pem: &str) -> Result<Vec<Self>, IdentityError> {
        armour::all(pem, ASSIGNMENT)?.iter().map(|block| Self::decode(block)).collect()
    }

    /// Writes the assignment as PEM.
    pub fn to_pem(&self) -> String {
        armour::block(ASSIGNMENT, self.encode())
    }

    /// Returns the claims, unverified.
    pub fn claims(&self) -> &AssignmentClaims {
        &self.claims
    }

    /// Returns the signature, unverified.
    pub(crate) fn signature(&self) -> Signature {
        self.sealed.signed.signature
    }

    /// Verifies the assignment at the moment `unix`: authority under a trusted root, claims signed by
    /// it and the number within what the root lets it assign, both valid and not revoked, no longer
    /// than 398 days.
    ///
    /// # Errors
    /// What is wrong with it, or with its authority.
    pub fn verify(
        &self,
        trust: &Trust,
        revocations: &RevocationList,
        unix: u64,
    ) -> Result<VerifiedAssignment, IdentityError> {
        let (claims, enrolment) = (&self.claims, &self.sealed.signer);
        let subject = claims.number.to_string();
        let root = trust.verify_enrolment(enrolment, revocations, unix)?;
        if !self.sealed.is_signed(Domain::Assignment) && holds(Defence::AssignmentSignature) {
            return Err(IdentityError::BadSignature { subject: format!("the assignment of {subject}") });
        }
        enrolment.check_permits_assignment(&claims.number)?;
        let validity = claims.validity();
        check_length(&subject, validity, MAX_ASSIGNMENT_DAYS)?;
        if validity.not_before > unix.saturating_add(CLOCK_SKEW) {
            return Err(IdentityError::NotYetValid { subject, at: Utc(validity.not_before) });
        }
        super::check_time(&subject, Validity { not_before: 0, ..validity }, unix)?;
        revocations.check(&enrolment.key, claims.serial, &subject)?;
        let not_after = claims.expires_unix.min(enrolment.validity.not_after);
        Ok(VerifiedAssignment {
            claims: claims.clone(),
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

fn read_claims(body: &[u8]) -> Result<AssignmentClaims, IdentityError> {
    let malformed = || IdentityError::Malformed { what: WHAT };
    let body: Body = cbor::decode(WHAT, body, MAX_CREDENTIAL_BYTES)?;
    let number: Number = format!("+{}", body.number).parse().map_err(|_| malformed())?;
    let handle: Handle = body.handle.parse().map_err(|_| malformed())?;
    // A number and a handle have one spelling each.
    if number.digits() != body.number || handle.as_str() != body.handle {
        return Err(malformed());
    }
    Ok(AssignmentClaims {
        number,
        handle,
        serial: body.serial,
        sequence: body.sequence,
        expires_unix: body.expires_unix,
    })
}
