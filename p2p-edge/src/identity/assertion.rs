use std::collections::{BTreeMap, BTreeSet};

use call_model::{Address, CallId, Caller};
use minicbor::bytes::ByteArray;
use sha2::{Digest, Sha256};

use super::error::IdentityError;
use super::key::{Domain, NodeKey, PublicKey, Signature};
use super::time::Utc;
use crate::cbor;
use crate::defence::{Defence, holds};

/// The longest that an assertion may still be valid when it is verified, in seconds. A caller that
/// says "in 60 seconds" so has a minute of difference between the clocks either way.
pub const MAX_ASSERTION_LIFE: u64 = 120;
/// The most assertions of one key that are alive at once.
pub const MAX_ASSERTIONS_PER_KEY: usize = 256;

/// What a caller signs with the key of its device: that it places this call, to this address, with
/// this media offer, now.
#[derive(Clone, Copy, Debug)]
pub struct Assertion<'a> {
    /// The call.
    pub call: CallId,
    /// Who calls, as the invite says.
    pub from: &'a Caller,
    /// Whom it calls.
    pub to: &'a Address,
    /// 16 random bytes that the caller never uses twice.
    pub nonce: [u8; 16],
    /// When the assertion ends, in Unix seconds.
    pub expires_unix: u64,
    /// The media offer; its SHA-256 is signed.
    pub media: &'a str,
}

impl Assertion<'_> {
    fn to_bytes(self) -> Vec<u8> {
        let media: [u8; 32] = Sha256::digest(self.media.as_bytes()).into();
        cbor::encode((
            ByteArray::from(self.call.to_bytes()),
            self.from.address.as_ref().map(Address::to_string),
            self.from.display_name.as_deref(),
            self.from.private,
            self.to.to_string(),
            ByteArray::from(self.nonce),
            self.expires_unix,
            ByteArray::from(media),
        ))
    }

    /// Signs the assertion.
    pub fn sign(&self, key: &NodeKey) -> Signature {
        key.sign(Domain::Invite, &self.to_bytes())
    }

    /// Verifies the assertion of the holder of `key` at the moment `unix`, and remembers its nonce
    /// until it ends.
    pub fn verify(
        &self,
        key: &PublicKey,
        signature: &Signature,
        unix: u64,
        nonces: &mut NonceCache,
    ) -> Result<(), IdentityError> {
        let at = Utc(self.expires_unix);
        if self.expires_unix <= unix && holds(Defence::InviteEnd) {
            return Err(IdentityError::AssertionExpired { at });
        }
        if self.expires_unix > unix.saturating_add(MAX_ASSERTION_LIFE) {
            return Err(IdentityError::AssertionTooLong { at });
        }
        if !key.verify(Domain::Invite, &self.to_bytes(), signature) && holds(Defence::InviteSignature) {
            return Err(IdentityError::BadSignature { subject: "the caller's assertion".to_owned() });
        }
        nonces.insert(key, self.nonce, self.expires_unix, unix)
    }
}

/// The nonces of assertions that have not ended yet. Bounded in total and per key; when it is full
/// it refuses, for forgetting would let a replay through.
#[derive(Clone, Debug)]
pub struct NonceCache {
    capacity: usize,
    seen: BTreeSet<([u8; 32], [u8; 16])>,
    by_end: BTreeSet<(u64, [u8; 32], [u8; 16])>,
    per_key: BTreeMap<[u8; 32], usize>,
}

impl NonceCache {
    /// Builds a cache for at most `capacity` nonces, some 200 bytes each.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, seen: BTreeSet::new(), by_end: BTreeSet::new(), per_key: BTreeMap::new() }
    }

    /// Remembers a nonce of `key` until `expires_unix`.
    ///
    /// # Errors
    /// `Replayed` if it is known; `TooManyAssertions` if the key, or all keys together, have as many
    /// alive as they may.
    pub fn insert(
        &mut self,
        key: &PublicKey,
        nonce: [u8; 16],
        expires_unix: u64,
        unix: u64,
    ) -> Result<(), IdentityError> {
        self.forget_ended(unix);
        let key = key.to_bytes();
        if self.seen.contains(&(key, nonce)) && holds(Defence::InviteOnce) {
            return Err(IdentityError::Replayed);
        }
        let of_key = self.per_key.get(&key).copied().unwrap_or(0);
        if self.seen.len() >= self.capacity || of_key >= MAX_ASSERTIONS_PER_KEY {
            return Err(IdentityError::TooManyAssertions);
        }
        self.seen.insert((key, nonce));
        self.by_end.insert((expires_unix, key, nonce));
        self.per_key.insert(key, of_key + 1);
        Ok(())
    }

    /// Returns how many nonces are held.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Says whether no nonce is held.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// An assertion is refused at the very second of its end, so its nonce is not needed then.
    fn forget_ended(&mut self, unix: u64) {
        while let Some(&(end, key, nonce)) = self.by_end.first() {
            if end > unix {
                break;
            }
            self.by_end.pop_first();
            self.seen.remove(&(key, nonce));
            if let Some(count) = self.per_key.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.per_key.remove(&key);
                }
            }
        }
    }
}
