//! Keys, the authority chain, handle certificates and revocation.
//!
//! A node is an Ed25519 key. One offline root certifies enrolment authorities (X.509); these certify
//! supernodes and gateways (X.509, with claims in an extension) and users (compact CBOR). A verifier
//! is given the root and nothing else: every credential carries its enrolment authority's
//! certificate. Bytes and PEM text come in and go out; there are no files here, no clock and no
//! random source: Unix seconds, seeds and serials are arguments.
//!
//! Measured: the claims of a user with one device take 62 bytes, its whole certificate with the
//! authority's 427; the chain of a gateway with three prefixes and a price ceiling 583.

mod armour;
mod assertion;
mod assignment;
mod authority;
mod backup;
mod bootstrap;
mod bundle;
mod chain;
mod claims;
mod delta;
mod error;
mod handle;
mod key;
mod renewal;
mod revocation;
mod sealed;
mod standing;
mod time;
mod trust;
mod x509;

pub use assertion::{Assertion, MAX_ASSERTION_LIFE, MAX_ASSERTIONS_PER_KEY, NonceCache};
pub use assignment::{AssignmentClaims, MAX_ASSIGNMENT_DAYS, NumberAssignment, VerifiedAssignment};
pub use authority::Authority;
pub use backup::{
    BackupCost, BackupError, BackupFiles, BackupRandom, MAX_BACKUP_BYTES, MAX_BACKUP_FILES, MIN_PASSPHRASE,
    open_backup, seal_backup,
};
pub use bootstrap::{
    BootstrapError, BootstrapList, MAX_BOOTSTRAP_BYTES, MAX_BOOTSTRAP_DAYS, MAX_BOOTSTRAP_NODES,
    MAX_BOOTSTRAP_SOURCES, SignedBootstrap, is_mirror, is_name,
};
pub use bundle::{Credential, InviteContext, NodeBundle, UserBundle, VerifiedParty, verify_invite};
pub use chain::{NodeChain, VerifiedNode};
pub use claims::{
    Abilities, Currency, EnrolmentLimits, HandleClaims, MAX_DEVICES, MAX_ENROLMENT_DAYS, MAX_HANDLE_DAYS,
    MAX_NODE_DAYS, MAX_NUMBERS, MAX_PREFIXES, MAX_ROOT_DAYS, NodeClaims, Prefix, Price, RevocationReason,
    Role,
};
pub(crate) use claims::{WirePrice, read_prefixes};
pub use delta::{HeldList, RevocationDelta};
pub use error::IdentityError;
pub use handle::{HandleCertificate, VerifiedHandle};
pub use key::{Domain, NodeKey, PublicKey, Signature, Signed};
pub use renewal::{MAX_RENEWAL_AGE, Renewal};
pub use revocation::{MAX_LIST_BYTES, MAX_LISTS, MAX_REVOKED, RevocationList, Revoked, SignedRevocations};
pub(crate) use sealed::Frame;
pub use standing::Standing;
pub use time::{Utc, Validity};
pub use trust::{MAX_ROOTS, Trust};
pub use x509::Request;

/// The longest handle certificate or chain that is read, in bytes.
pub const MAX_CREDENTIAL_BYTES: usize = 4096;

/// The first element of everything that is encoded, so that one kind is never read as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Handle = 1,
    Chain = 2,
    Revocations = 3,
    Location = 4,
    Number = 5,
    Offer = 6,
    Backup = 7,
    Renewal = 8,
    RevocationDelta = 9,
    Assignment = 10,
    Bootstrap = 20,
    Probe = 21,
}

use crate::defence::{Defence, holds};

/// Checks that `unix` lies within a validity (RFC 5280 4.1.2.5: both ends included).
fn check_time(subject: &str, validity: Validity, unix: u64) -> Result<(), IdentityError> {
    if !holds(Defence::CertificateTime) {
        return Ok(());
    }
    let subject = || subject.to_owned();
    if unix < validity.not_before {
        return Err(IdentityError::NotYetValid { subject: subject(), at: Utc(validity.not_before) });
    }
    if unix > validity.not_after {
        return Err(IdentityError::Expired { subject: subject(), at: Utc(validity.not_after) });
    }
    Ok(())
}

#[cfg(test)]
mod assignment_attacks;
#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
