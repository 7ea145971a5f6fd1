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
    /// Writes it in 88 bytes.
    pub fn to_bytes(&self) -> [u8; 88] {
        let mut bytes = [0; 88];
        bytes[..32].copy_from_slice(&self.issuer);
        bytes[32..40].copy_from_slice(&self.serial.to_be_bytes());
        bytes[40..72].copy_from_slice(&self.root);
        bytes[72..80].copy_from_slice(&self.enrolment_serial.to_be_bytes());
        bytes[80..].copy_from_slice(&self.not_after.to_be_bytes());
        bytes
    }

    /// Reads what [`Standing::to_bytes`] wrote. Whoever reads it from somewhere has to know by other
    /// means that it is true.
    pub fn from_bytes(bytes: &[u8; 88]) -> Self {
        let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| bytes[at + i]));
        let key = |at: usize| std::array::from_fn(|i| bytes[at + i]);
        Self {
            issuer: key(0),
            serial: number(32),
            root: key(40),
            enrolment_serial: number(72),
            not_after: number(80),
        }
    }

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
