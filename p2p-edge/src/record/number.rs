use call_model::{Handle, Number};
use minicbor::{Decode, Encode};

use super::envelope::{self, Envelope, Rank, check_expiry, check_sequence};
use super::error::RecordError;
use crate::defence::{Defence, holds};
use crate::identity::{Domain, Kind, NodeChain, NodeKey, RevocationList, Trust, VerifiedNode};

/// The longest a number record may last, in seconds: a day. Its writer publishes again at half of that.
pub const NUMBER_LIFE: u64 = 86_400;

/// Which handle a telephone number belongs to. Written by a gateway whose certificate permits it
/// to assign numbers of that prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberRecord {
    /// The number.
    pub number: Number,
    /// Whose it is.
    pub handle: Handle,
    /// Counts up with every change; the highest valid one wins. Unix milliseconds: one that is
    /// ahead of the clock of whoever reads it is refused.
    pub sequence: u64,
    /// When the record ends, in Unix seconds: at most a day ahead.
    pub expires_unix: u64,
}

/// A number record that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidNumber {
    /// The record.
    pub record: NumberRecord,
    /// Who wrote it.
    pub writer: VerifiedNode,
    pub(super) rank: Rank,
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
    Ok(ValidNumber { record, writer, rank })
}
