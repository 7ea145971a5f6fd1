use super::key::PublicKey;
use super::revocation::RevocationList;

/// What a certificate that was verified once can still lose its validity by: its end, and a
/// revocation of it or of the authority above it. Checking this costs no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub(super) issuer: PublicKey,
    pub(super) serial: u64,
    pub(super) root: PublicKey,
    pub(super) enrolment_serial: u64,
    pub(super) not_after: u64,
}

impl Standing {
    /// Says whether the certificate, or that of its authority, has been revoked.
    pub fn is_revoked(&self, revocations: &RevocationList) -> bool {
        revocations.is_revoked(&self.issuer, self.serial).is_some()
            || revocations.is_revoked(&self.root, self.enrolment_serial).is_some()
    }

    /// Says whether the certificate has ended at the moment `unix`.
    pub fn has_expired(&self, unix: u64) -> bool {
        unix > self.not_after
    }

    /// Says whether the certificate is neither revoked nor over.
    pub fn is_good(&self, revocations: &RevocationList, unix: u64) -> bool {
        !self.has_expired(unix) && !self.is_revoked(revocations)
    }
}
