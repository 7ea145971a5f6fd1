use super::revocation::RevocationList;

/// What a certificate that was verified once can still lose its validity by: its end, and a
/// revocation of it or of the authority above it. Checking this costs no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The keys of the two issuers, as bytes: one of these is kept for every record that is stored.
    pub(super) issuer: [u8; 32],
    pub(super) serial: u64,
    pub(super) root: [u8; 32],
    pub(super) enrolment_serial: u64,
    pub(super) not_after: u64,
}

impl Standing {
    /// Says whether the certificate, or that of its authority, has been revoked.
    pub fn is_revoked(&self, revocations: &RevocationList) -> bool {
        revocations.names(self.issuer, self.serial) || revocations.names(self.root, self.enrolment_serial)
    }

    /// Returns when the certificate ends, or that of its authority if that is sooner, in Unix seconds.
    pub fn not_after(&self) -> u64 {
        self.not_after
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
