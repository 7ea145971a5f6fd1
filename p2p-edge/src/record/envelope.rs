//! The form that all kinds of record share: `[kind, credential, body, signature]`.
use minicbor::{Decode, Encode};

use super::error::RecordError;
use crate::cbor;
use crate::defence::{Defence, holds};
use crate::identity::{Domain, Frame, IdentityError, Kind, NodeKey, PublicKey, Signature, Signed, Utc};

/// The longest record, in bytes. What is published stays under 1 KiB with up to three addresses.
pub const MAX_RECORD_BYTES: usize = 2048;
/// How much a publisher's clock may be ahead, in seconds.
pub const CLOCK_SKEW: u64 = 60;

/// A record taken apart. Nothing is verified yet.
pub(super) struct Envelope {
    pub(super) credential: Vec<u8>,
    pub(super) signed: Signed,
}

impl Envelope {
    pub(super) fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, RecordError> {
        let Frame { credential, signed } =
            Frame::read(kind, "the record", bytes, MAX_RECORD_BYTES).map_err(as_record)?;
        Ok(Self { credential, signed })
    }

    /// Reads the body. Its size is bounded by that of the record.
    pub(super) fn body<'b, T: Decode<'b, ()>>(&'b self) -> Result<T, RecordError> {
        cbor::decode("the record", &self.signed.body, MAX_RECORD_BYTES).map_err(as_record)
    }

    pub(super) fn check_signature(&self, key: &PublicKey, domain: Domain) -> Result<(), RecordError> {
        if self.signed.is_by(key, domain) || !holds(Defence::RecordSignature) {
            Ok(())
        } else {
            Err(RecordError::BadSignature)
        }
    }
}

/// Signs a body and puts the record together.
pub(super) fn seal<T: Encode<()>>(
    (kind, domain): (Kind, Domain),
    credential: Vec<u8>,
    body: T,
    key: &NodeKey,
) -> Result<Vec<u8>, RecordError> {
    let signed = Signed::seal(key, domain, cbor::encode(body));
    let value = Frame::write(kind, credential, &signed);
    if value.len() > MAX_RECORD_BYTES {
        return Err(RecordError::Oversize { size: value.len(), limit: MAX_RECORD_BYTES });
    }
    Ok(value)
}

fn as_record(error: IdentityError) -> RecordError {
    match error {
        IdentityError::Oversize { size, limit, .. } => RecordError::Oversize { size, limit },
        _ => RecordError::Malformed,
    }
}

/// Checks that a record has not ended and does not end later than `life` seconds ahead.
pub(super) fn check_expiry(expires_unix: u64, life: u64, unix: u64) -> Result<(), RecordError> {
    let at = Utc(expires_unix);
    if expires_unix <= unix && holds(Defence::RecordEnd) {
        return Err(RecordError::Expired { at });
    }
    if expires_unix > unix.saturating_add(life + CLOCK_SKEW) && holds(Defence::RecordLife) {
        return Err(RecordError::TooFarAhead { at });
    }
    Ok(())
}

/// Checks that a sequence is no later than the clock: it counts Unix milliseconds. One far ahead
/// could never be replaced, not even by its owner.
pub(super) fn check_sequence(sequence: u64, unix: u64) -> Result<(), RecordError> {
    let latest = unix.saturating_add(CLOCK_SKEW).saturating_mul(1000);
    if sequence > latest && holds(Defence::SequenceClock) {
        Err(RecordError::SequenceAhead { sequence, latest })
    } else {
        Ok(())
    }
}

/// What decides between valid records of one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) sequence: u64,
    pub(super) expires_unix: u64,
    pub(super) signature: Signature,
}
