use call_model::{Handle, Number};
use minicbor::{Decode, Encode};

use super::envelope::{self, Envelope, MAX_RECORD_BYTES, Rank, check_expiry, check_sequence};
use super::error::RecordError;
use crate::defence::{Defence, holds};
use crate::identity::{
    Domain, Kind, NodeChain, NodeKey, NumberAssignment, PublicKey, RevocationList, Standing, Trust,
    VerifiedAssignment, VerifiedNode,
};

/// The longest a number record may last, in seconds: a day. Its writer publishes again at half of that.
pub const NUMBER_LIFE: u64 = 86_400;

/// Which handle a telephone number belongs to. Written by a gateway whose certificate permits it
/// to assign numbers of that prefix; or by an authority, once for months, as a [`NumberAssignment`],
/// which whoever holds it publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberRecord {
    /// The number.
    pub number: Number,
    /// Whose it is.
    pub handle: Handle,
    /// Counts up with every change; the highest valid one wins. Unix milliseconds: one that is
    /// ahead of the clock of whoever reads it is refused.
    pub sequence: u64,
    /// When the record ends, in Unix seconds: at most a day ahead, or the end of the assignment.
    pub expires_unix: u64,
}

/// A number record that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidNumber {
    /// The record.
    pub record: NumberRecord,
    /// Who wrote it.
    pub writer: NumberWriter,
    pub(super) rank: Rank,
}

/// Who says whose a number is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NumberWriter {
    /// A gateway, of a number under its prefixes.
    Gateway(Box<VerifiedNode>),
    /// An authority; the record is published by whoever holds it.
    Authority(Box<VerifiedAssignment>),
}

impl NumberWriter {
    /// Returns the key that signed the record.
    pub fn key(&self) -> &PublicKey {
        match self {
            NumberWriter::Gateway(node) => &node.key,
            NumberWriter::Authority(assignment) => &assignment.issuer,
        }
    }

    /// Returns what may void the record.
    pub fn standing(&self) -> &Standing {
        match self {
            NumberWriter::Gateway(node) => &node.standing,
            NumberWriter::Authority(assignment) => &assignment.standing,
        }
    }
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
}

impl NumberRecord {
    /// Signs the record. Returns the value to publish.
    ///
    /// # Errors
    /// `WrongKey` if the chain is for another key; `Oversize` if the chain is too long.
    pub fn sign(&self, chain: &NodeChain, key: &NodeKey) -> Result<Vec<u8>, RecordError> {
        super::check_own_key(chain, key)?;
        let body = Body {
            number: self.number.digits().to_owned(),
            handle: self.handle.to_string(),
            sequence: self.sequence,
            expires_unix: self.expires_unix,
        };
        envelope::seal((Kind::Number, Domain::Number), chain.encode(), body, key)
    }
}

/// Verifies a number record for its slot.
pub(super) fn validate(
    slot: &Number,
    value: &[u8],
    trust: &Trust,
    revocations: &RevocationList,
    unix: u64,
) -> Result<ValidNumber, RecordError> {
    if NumberAssignment::is_one(value) {
        return validate_assignment(slot, value, trust, revocations, unix);
    }
    let envelope = Envelope::decode(Kind::Number, value)?;
    let body: Body = envelope.body()?;
    if body.number != slot.digits() && holds(Defence::RecordSlot) {
        return Err(RecordError::WrongSlot);
    }
    let handle = body.handle.parse().map_err(|_| RecordError::Malformed)?;
    check_expiry(body.expires_unix, NUMBER_LIFE, unix)?;
    check_sequence(body.sequence, unix)?;
    let writer = NodeChain::decode(&envelope.credential)?.verify(trust, revocations, unix)?;
    let permitted = writer.number_prefixes.iter().any(|prefix| prefix.covers_number(slot));
    if !permitted && holds(Defence::NumberPrefix) {
        return Err(RecordError::NotPermitted { subject: writer.name });
    }
    envelope.check_signature(&writer.key, Domain::Number)?;
    let rank = Rank {
        sequence: body.sequence,
        expires_unix: body.expires_unix.min(writer.not_after),
        signature: envelope.signed.signature,
    };
    let record = NumberRecord {
        number: slot.clone(),
        handle,
        sequence: body.sequence,
        expires_unix: body.expires_unix,
    };
    Ok(ValidNumber { record, writer: NumberWriter::Gateway(Box::new(writer)), rank })
}

/// Verifies the assignment of a number for its slot.
fn validate_assignment(
    slot: &Number,
    value: &[u8],
    trust: &Trust,
    revocations: &RevocationList,
    unix: u64,
) -> Result<ValidNumber, RecordError> {
    if value.len() > MAX_RECORD_BYTES {
        return Err(RecordError::Oversize { size: value.len(), limit: MAX_RECORD_BYTES });
    }
    let assignment = NumberAssignment::decode(value)?;
    let claims = assignment.claims();
    if claims.number != *slot && holds(Defence::RecordSlot) {
        return Err(RecordError::WrongSlot);
    }
    check_sequence(claims.sequence, unix)?;
    let verified = assignment.verify(trust, revocations, unix)?;
    let rank = Rank {
        sequence: claims.sequence,
        expires_unix: verified.not_after,
        signature: assignment.signature(),
    };
    let record = NumberRecord {
        number: slot.clone(),
        handle: claims.handle.clone(),
        sequence: claims.sequence,
        expires_unix: claims.expires_unix,
    };
    Ok(ValidNumber { record, writer: NumberWriter::Authority(Box::new(verified)), rank })
}
