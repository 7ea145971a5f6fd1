use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use super::Kind;
use super::armour::{self, REVOCATIONS};
use super::claims::RevocationReason;
use super::error::IdentityError;
use super::key::{Domain, NodeKey, PublicKey, Signed};
use super::sealed::Sealed;
use super::trust::Trust;
use super::x509::Certificate;
use crate::cbor;
use crate::defence::{Defence, holds};

/// The longest signed list that is read.
pub const MAX_LIST_BYTES: usize = 512 * 1024;
/// The most certificates on one signed list.
pub const MAX_REVOKED: usize = 20_000;
/// The most authorities whose lists are held.
pub const MAX_LISTS: usize = 64;

const WHAT: &str = "the revocation list";

/// One revoked certificate as it is encoded: serial, code of the reason, since when.
pub(super) type Row = (u64, u8, u64);

/// One revoked certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// The number of the certificate.
    pub serial: u64,
    /// Why.
    pub reason: RevocationReason,
    /// Since when, in Unix seconds.
    pub since: u64,
}

/// The list of one authority: which of the certificates that it issued are revoked. Signed by that
/// authority, the root or an enrolment authority, with its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRevocations {
    sealed: Sealed,
    version: u64,
    revoked: Vec<Revoked>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    version: u64,
    #[n(1)]
    revoked: Vec<Row>,
}

impl SignedRevocations {
    /// Signs a list.
    pub(super) fn issue(
        version: u64,
        revoked: Vec<Revoked>,
        signer: &Certificate,
        key: &NodeKey,
    ) -> Result<Self, IdentityError> {
        if revoked.len() > MAX_REVOKED {
            return Err(IdentityError::Oversize { what: WHAT, size: revoked.len(), limit: MAX_REVOKED });
        }
        let rows: Vec<Row> = revoked.iter().map(row).collect();
        let sealed = Sealed::seal(signer, key, Domain::Revocations, Self::body(version, &rows));
        Ok(Self { sealed, version, revoked })
    }

    /// Reads the bytes of [`SignedRevocations::encode`]. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let sealed = Sealed::decode(Kind::Revocations, WHAT, bytes, MAX_LIST_BYTES)?;
        let body: Body = cbor::decode(WHAT, &sealed.signed.body, MAX_LIST_BYTES)?;
        if body.revoked.len() > MAX_REVOKED {
            return Err(IdentityError::Oversize { what: WHAT, size: body.revoked.len(), limit: MAX_REVOKED });
        }
        Ok(Self { sealed, version: body.version, revoked: body.revoked.iter().map(entry).collect() })
    }

    /// Writes the list as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        self.sealed.encode(Kind::Revocations)
    }

    /// Reads the list from PEM: the first block `CAUSEWAY REVOCATION LIST`.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        Self::decode(&armour::first(pem, REVOCATIONS)?)
    }

    /// Reads the lists of several authorities from PEM: every block `CAUSEWAY REVOCATION LIST`.
    ///
    /// # Errors
    /// When there is no such block, or one of them cannot be read.
    pub fn all_from_pem(pem: &str) -> Result<Vec<Self>, IdentityError> {
        let blocks = armour::all(pem, REVOCATIONS)?;
        if blocks.is_empty() {
            return Err(IdentityError::MissingPem { label: REVOCATIONS });
        }
        blocks.iter().map(|block| Self::decode(block)).collect()
    }

    /// Writes the list as PEM.
    pub fn to_pem(&self) -> String {
        armour::block(REVOCATIONS, self.encode())
    }

    /// Returns the version: every new list of an authority has a higher one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns what is revoked.
    pub fn revoked(&self) -> &[Revoked] {
        &self.revoked
    }

    /// Returns the key of the authority that signed the list, unverified.
    pub fn issuer(&self) -> &PublicKey {
        &self.sealed.signer.key
    }

    /// Says whether the authority of this list signed it.
    pub(super) fn is_signed(&self) -> bool {
        self.sealed.is_signed(Domain::Revocations)
    }

    pub(super) fn signer_name(&self) -> &str {
        &self.sealed.signer.name
    }

    pub(super) fn signer_der(&self) -> &[u8] {
        &self.sealed.signer.der
    }

    pub(super) fn signed(&self) -> &Signed {
        &self.sealed.signed
    }

    /// Returns the entries as they are encoded. A reason that this version does not know is
    /// encoded as none: the signature does not fit then, and the whole list is fetched.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.revoked.iter().map(row).collect()
    }

    /// Builds a list of the same authority, unverified.
    pub(super) fn with(&self, version: u64, rows: &[Row], signed: Signed) -> Self {
        let sealed = Sealed { signer: self.sealed.signer.clone(), signed };
        Self { sealed, version, revoked: rows.iter().map(entry).collect() }
    }

    /// Returns the bytes that an authority signs for a list.
    pub(super) fn body(version: u64, rows: &[Row]) -> Vec<u8> {
        cbor::encode(Body { version, revoked: rows.to_vec() })
    }
}

fn row(entry: &Revoked) -> Row {
    (entry.serial, entry.reason.code(), entry.since)
}

fn entry(&(serial, code, since): &Row) -> Revoked {
    Revoked { serial, reason: RevocationReason::from_code(code), since }
}

/// The newest list of each authority, merged. Empty at first: nothing is revoked.
#[derive(Clone, Debug, Default)]
pub struct RevocationList {
    lists: BTreeMap<[u8; 32], SignedRevocations>,
    revoked: BTreeMap<([u8; 32], u64), RevocationReason>,
}

impl RevocationList {
    /// Reads a file of revocation lists in PEM: every block, in any order. A list that a newer one
    /// of the file replaces, or whose authority the file revokes, says nothing and is no error.
    ///
    /// # Errors
    /// As [`SignedRevocations::all_from_pem`] and [`RevocationList::apply`].
    pub fn from_pem(pem: &str, trust: &Trust, unix: u64) -> Result<Self, IdentityError> {
        let mut merged = Self::default();
        for list in SignedRevocations::all_from_pem(pem)? {
            match merged.apply(list, trust, unix) {
                Ok(_) | Err(IdentityError::StaleRevocations { .. } | IdentityError::Revoked { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(merged)
    }

    /// Takes over a signed list. Returns whether it was news: the very list that is held is not.
    ///
    /// # Errors
    /// `StaleRevocations` for an older list or another of the same version; `Oversize` when 64
    /// authorities have lists already; otherwise what is wrong with signature or certificate.
    pub fn apply(
        &mut self,
        list: SignedRevocations,
        trust: &Trust,
        unix: u64,
    ) -> Result<bool, IdentityError> {
        let signer = &list.sealed.signer;
        match trust.root(&signer.der) {
            Some(root) => root.check_time(unix)?,
            None => trust.verify_enrolment(signer, self, unix).map(drop)?,
        }
        if !list.is_signed() && holds(Defence::ListSignature) {
            return Err(IdentityError::BadSignature {
                subject: format!("the revocation list of {}", signer.name),
            });
        }
        let issuer = signer.key.to_bytes();
        match self.lists.get(&issuer) {
            Some(held) if held.sealed.signed.body == list.sealed.signed.body => return Ok(false),
            Some(held) if held.version >= list.version && holds(Defence::ListVersion) => {
                return Err(IdentityError::StaleRevocations { have: held.version, got: list.version });
            }
            None if self.lists.len() >= MAX_LISTS => {
                return Err(IdentityError::Oversize { what: WHAT, size: MAX_LISTS + 1, limit: MAX_LISTS });
            }
            _ => {}
        }
        self.revoked.retain(|(by, _), _| *by != issuer);
        self.revoked.extend(list.revoked.iter().map(|entry| ((issuer, entry.serial), entry.reason)));
        self.lists.insert(issuer, list);
        Ok(true)
    }

    /// Says whether a certificate is revoked, and why: by the key of its issuer and its number.
    pub fn is_revoked(&self, issuer: &PublicKey, serial: u64) -> Option<RevocationReason> {
        self.revoked.get(&(issuer.to_bytes(), serial)).copied()
    }

    /// As [`RevocationList::is_revoked`], for the bytes of the issuer's key.
    pub(super) fn names(&self, issuer: [u8; 32], serial: u64) -> bool {
        self.revoked.contains_key(&(issuer, serial))
    }

    /// Returns the signed list of an authority, by its key.
    pub fn list_of(&self, issuer: &[u8; 32]) -> Option<&SignedRevocations> {
        self.lists.get(issuer)
    }

    /// Returns the signed lists that are held, for passing on.
    pub fn lists(&self) -> impl Iterator<Item = &SignedRevocations> {
        self.lists.values()
    }

    /// Returns how many certificates are revoked.
    pub fn len(&self) -> usize {
        self.revoked.len()
    }

    /// Says whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.revoked.is_empty()
    }

    pub(super) fn check(&self, issuer: &PublicKey, serial: u64, subject: &str) -> Result<(), IdentityError> {
        match self.is_revoked(issuer, serial) {
            Some(reason) if holds(Defence::Revocation) => {
                Err(IdentityError::Revoked { subject: subject.to_owned(), reason })
            }
            _ => Ok(()),
        }
    }
}
