//! What was revoked since: a revocation list for whoever holds an older one.
//!
//! An authority only ever appends to its list. Whoever wants a newer one says how much of it it
//! holds, as a count and a digest; whoever has the newer one sends the entries after those and the
//! authority's signature on the whole. The whole is put together again and verified as if it had
//! come in one piece, so nobody on the way need be trusted, and where the two lists do not fit the
//! whole list is sent.
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::Kind;
use super::error::IdentityError;
use super::key::Signed;
use super::revocation::{MAX_LIST_BYTES, MAX_REVOKED, Row, SignedRevocations};
use crate::cbor;

const WHAT: &str = "the change of a revocation list";

/// Says how much of the list of one authority a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldList {
    /// The key of the authority.
    pub issuer: [u8; 32],
    /// How many certificates are on the list.
    pub entries: u32,
    /// Digest of the authority's certificate and of these entries.
    pub digest: [u8; 32],
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireHeld {
    #[n(0)]
    issuer: ByteArray<32>,
    #[n(1)]
    entries: u32,
    #[n(2)]
    digest: ByteArray<32>,
}

impl HeldList {
    /// Reads the bytes of [`HeldList::encode`].
    ///
    /// # Errors
    /// `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let wire: WireHeld = cbor::decode_exact(WHAT, bytes, MAX_LIST_BYTES)?;
        Ok(Self { issuer: wire.issuer.into(), entries: wire.entries, digest: wire.digest.into() })
    }

    /// Writes it as CBOR, some 75 bytes.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(WireHeld {
            issuer: self.issuer.into(),
            entries: self.entries,
            digest: self.digest.into(),
        })
    }
}

/// What an authority has added to its list, with its signature on the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationDelta {
    issuer: [u8; 32],
    version: u64,
    after: u32,
    added: Vec<Row>,
    signature: [u8; 64],
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    kind: u8,
    #[n(1)]
    issuer: ByteArray<32>,
    #[n(2)]
    version: u64,
    #[n(3)]
    after: u32,
    #[n(4)]
    added: ByteVec,
    #[n(5)]
    signature: ByteArray<64>,
}

impl RevocationDelta {
    /// Reads the bytes of [`RevocationDelta::encode`]. Verifies nothing.
    ///
    /// # Errors
    /// `Malformed`, or `Oversize` where there is more than a whole list may hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let wire: Wire = cbor::decode_exact(WHAT, bytes, MAX_LIST_BYTES)?;
        if wire.kind != Kind::RevocationDelta as u8 {
            return Err(IdentityError::Malformed { what: WHAT });
        }
        let added: Vec<Row> = cbor::decode_exact(WHAT, &wire.added, MAX_LIST_BYTES)?;
        if added.len() > MAX_REVOKED {
            return Err(IdentityError::Oversize { what: WHAT, size: added.len(), limit: MAX_REVOKED });
        }
        let (issuer, signature) = (wire.issuer.into(), wire.signature.into());
        Ok(Self { issuer, version: wire.version, after: wire.after, added, signature })
    }

    /// Writes it as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(Wire {
            kind: Kind::RevocationDelta as u8,
            issuer: self.issuer.into(),
            version: self.version,
            after: self.after,
            added: cbor::encode(&self.added).into(),
            signature: self.signature.into(),
        })
    }

    /// Puts the newer list together from the one that is held.
    ///
    /// # Errors
    /// `WrongKey` for the list of another authority; `BadSignature` where what comes out is not
    /// what the authority signed, because of either part: the whole list is to be fetched then.
    pub fn apply_to(&self, held: &SignedRevocations) -> Result<SignedRevocations, IdentityError> {
        let of = format!("the revocation list of {}", held.signer_name());
        if held.issuer().to_bytes() != self.issuer {
            return Err(IdentityError::WrongKey { subject: of });
        }
        let rows = held.rows();
        let fits = usize::try_from(self.after).is_ok_and(|after| after == rows.len());
        if !fits || rows.len() + self.added.len() > MAX_REVOKED {
            return Err(IdentityError::BadSignature { subject: of });
        }
        let rows = rows.into_iter().chain(self.added.iter().copied()).collect();
        let list = held.followed_by(self.version, rows, self.signature);
        if list.is_signed() { Ok(list) } else { Err(IdentityError::BadSignature { subject: of }) }
    }
}

impl SignedRevocations {
    /// Says how much of the list is held, for whoever may have a newer one.
    pub fn held(&self) -> HeldList {
        let rows = self.rows();
        let entries = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        HeldList { issuer: self.issuer().to_bytes(), entries, digest: self.digest(&rows) }
    }

    /// Returns what this list adds to one that is held elsewhere. `None` where that is not the
    /// beginning of this one: the whole list is needed then.
    pub fn since(&self, held: &HeldList) -> Option<RevocationDelta> {
        let rows = self.rows();
        let after = usize::try_from(held.entries).ok()?;
        let before = rows.get(..after)?;
        if held.issuer != self.issuer().to_bytes() || held.digest != self.digest(before) {
            return None;
        }
        Some(RevocationDelta {
            issuer: held.issuer,
            version: self.version(),
            after: held.entries,
            added: rows.get(after..)?.to_vec(),
            signature: self.signed().signature,
        })
    }

    fn digest(&self, rows: &[Row]) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.signer_der());
        hash.update(cbor::encode(rows));
        hash.finalize().into()
    }

    /// Builds the list that the same authority has signed later, unverified.
    fn followed_by(&self, version: u64, rows: Vec<Row>, signature: [u8; 64]) -> Self {
        let signed = Signed { body: Self::body(version, &rows), signature };
        self.with(version, &rows, signed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Authority, RevocationList, RevocationReason};
    use super::*;
    use crate::testing::Pki;

    const NOW: u64 = 1_790_000_000;

    fn revoke(by: &Authority, previous: Option<&SignedRevocations>, serial: u64) -> SignedRevocations {
        by.revoke(previous, serial, RevocationReason::Withdrawn, NOW).unwrap()
    }

    /// The lists of an authority after each of `count` revocations.
    fn history(pki: &Pki, count: u64) -> Vec<SignedRevocations> {
        let mut lists = Vec::new();
        for serial in 0..count {
            let list = revoke(&pki.enrolment, lists.last(), 100 + serial);
            lists.push(list);
        }
        lists
    }

    #[test]
    fn what_was_added_makes_the_very_list() {
        let pki = Pki::new(NOW).unwrap();
        let lists = history(&pki, 40);
        for (old, new) in [(0, 1), (0, 39), (20, 39), (39, 39)] {
            let (old, new) = (&lists[old], &lists[new]);
            let held = HeldList::decode(&old.held().encode()).unwrap();
            let delta = new.since(&held).unwrap();
            let delta = RevocationDelta::decode(&delta.encode()).unwrap();
            assert_eq!(&delta.apply_to(old).unwrap(), new);
            assert_eq!(delta.apply_to(old).unwrap().encode(), new.encode());
        }
        let mut merged = RevocationList::default();
        let trust = pki.trust().unwrap();
        merged.apply(lists[3].clone(), &trust, NOW).unwrap();
        let delta = lists[9].since(&lists[3].held()).unwrap();
        assert_eq!(merged.apply(delta.apply_to(&lists[3]).unwrap(), &trust, NOW), Ok(true));
        assert_eq!(merged.len(), 10);
    }

    #[test]
    fn one_more_revocation_costs_a_hundred_bytes_however_long_the_list() {
        let pki = Pki::new(NOW).unwrap();
        let rows = (0..5_000).map(|serial| (1_000_000 + serial, 1, NOW)).collect::<Vec<Row>>();
        let first = revoke(&pki.enrolment, None, 7);
        let long = first.followed_by(2, rows, [0; 64]);
        let longer = first.followed_by(3, [long.rows(), vec![(8, 1, NOW)]].concat(), [0; 64]);
        let delta = longer.since(&long.held()).unwrap().encode().len();
        let whole = longer.encode().len();
        assert!(delta < 140 && whole > 50_000, "{delta} bytes in place of {whole}");
    }

    #[test]
    fn lists_that_do_not_fit_are_fetched_whole() {
        let pki = Pki::new(NOW).unwrap();
        let lists = history(&pki, 5);
        // Another beginning, more than there is, another authority.
        let other = revoke(&pki.enrolment, None, 999);
        assert_eq!(lists[4].since(&other.held()), None);
        assert_eq!(lists[2].since(&lists[4].held()), None);
        assert_eq!(lists[4].since(&revoke(&pki.root, None, 2).held()), None);
        // The same key with a certificate that was issued anew.
        let validity = pki.enrolment.validity();
        let again = pki.root.init_enrolment("Test Enrolment", [0xa2; 32], 9, validity).unwrap();
        assert_eq!(lists[4].since(&revoke(&again, None, 100).held()), None);
        assert_eq!(HeldList::decode(&[]).unwrap_err().as_str(), "identity_malformed");
    }

    #[test]
    fn nobody_on_the_way_adds_or_hides_a_revocation() {
        let pki = Pki::new(NOW).unwrap();
        let lists = history(&pki, 5);
        let (old, honest) = (&lists[1], lists[4].since(&lists[1].held()).unwrap());
        let refused = |delta: &RevocationDelta, held: &SignedRevocations| {
            delta.apply_to(held).unwrap_err().as_str().to_owned()
        };
        let hides = RevocationDelta { added: honest.added[..1].to_vec(), ..honest.clone() };
        let adds = RevocationDelta { added: [&honest.added[..], &[(6, 1, NOW)]].concat(), ..honest.clone() };
        let older = RevocationDelta { version: 4, ..honest.clone() };
        let unsigned = RevocationDelta { signature: [0; 64], ..honest.clone() };
        for forged in [&hides, &adds, &older, &unsigned] {
            assert_eq!(refused(forged, old), "bad_signature", "{forged:?}");
        }
        // Applied to what it was not made for.
        assert_eq!(refused(&honest, &lists[2]), "bad_signature");
        assert_eq!(refused(&honest, &revoke(&pki.root, None, 2)), "wrong_key");
        let bytes = honest.encode();
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            let outcome = RevocationDelta::decode(&altered).and_then(|delta| delta.apply_to(old));
            assert!(outcome.is_err(), "bit {bit} of byte {at}");
        }
        for length in 0..bytes.len() {
            assert!(RevocationDelta::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
    }
}
