use crate::identity::{IdentityError, Utc};

/// Says why a record was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The publisher's credential was refused.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The key is not one of an overlay record.
    #[error("the record key cannot be read: it must be /causeway/loc/, num/, gw/ or p/ and a valid name")]
    BadKey,
    /// The value does not have the form of a record of this key.
    #[error("the record cannot be read: it is damaged or of another kind")]
    Malformed,
    /// The value is longer than any valid one.
    #[error("the record has {size} bytes and the limit is {limit}: publish fewer addresses or prefixes")]
    Oversize {
        /// Bytes found.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The record is about something else than its key says.
    #[error("the record belongs under another key: it was put into a slot that is not its own")]
    WrongSlot,
    /// The signature is not by a key of the credential.
    #[error("the signature on the record is wrong: it was altered or signed by another key")]
    BadSignature,
    /// A device of a location is not in the certificate.
    #[error("the record names a device that is not certified: enrol the device first")]
    UnknownDevice,
    /// The record is past its end.
    #[error("the record expired on {at}: its owner has to publish it again")]
    Expired {
        /// When it ended.
        at: Utc,
    },
    /// The record ends later than its kind may.
    #[error("the record ends on {at}, too far ahead: check the clock of its publisher")]
    TooFarAhead {
        /// When it ends.
        at: Utc,
    },
    /// The sequence is later than the clock.
    #[error("sequence {sequence} is ahead of {latest}: check the clock of the publisher")]
    SequenceAhead {
        /// The sequence.
        sequence: u64,
        /// The highest one at this moment.
        latest: u64,
    },
    /// The user's certificate does not allow it to be called.
    #[error("the certificate of {subject} does not permit being called: have it issued with that ability")]
    NotCallable {
        /// The user.
        subject: String,
    },
    /// The writer's certificate does not allow this.
    #[error("the certificate of {subject} does not permit these numbers: have the prefixes certified")]
    NotPermitted {
        /// The writer.
        subject: String,
    },
    /// The price is above the certified ceiling, or in another currency.
    #[error("the offer of {subject} is above its certified price or in another currency: lower the price")]
    PriceAboveCeiling {
        /// The gateway.
        subject: String,
    },
    /// A newer record is held.
    #[error("record {got} is not newer than record {have}: publish with a higher sequence")]
    StaleSequence {
        /// The sequence held.
        have: u64,
        /// The sequence offered.
        got: u64,
    },
    /// Another record with the same sequence is held.
    #[error("another record with sequence {sequence} is held: two devices publish for one owner")]
    Conflict {
        /// The sequence of both.
        sequence: u64,
    },
    /// Records of this kind are not kept by others: offers are fetched from the gateway.
    #[error("offers are not stored: they are fetched from the gateway itself")]
    NotStorable,
    /// The publisher has as many records here as it may.
    #[error("the publisher has as many records here as it may: wait until some expire")]
    PublisherQuota,
    /// The peer has put as many records here as it may.
    #[error("the peer has put as many records here as it may: wait until some expire")]
    PeerQuota,
    /// The network address has put as many records here as it may.
    #[error("the network of the peer has put as many records here as it may: wait until some expire")]
    AddressQuota,
    /// The store is full.
    #[error("the record store is full: raise its limit or add supernodes")]
    StoreFull,
}

impl RecordError {
    /// Returns the reason as a metric label, from a closed set.
    pub fn as_str(&self) -> &'static str {
        match self {
            RecordError::Identity(error) => error.as_str(),
            RecordError::BadKey => "bad_key",
            RecordError::Malformed => "record_malformed",
            RecordError::Oversize { .. } => "record_oversize",
            RecordError::WrongSlot => "wrong_slot",
            RecordError::BadSignature => "record_bad_signature",
            RecordError::UnknownDevice => "unknown_device",
            RecordError::Expired { .. } => "record_expired",
            RecordError::TooFarAhead { .. } => "too_far_ahead",
            RecordError::SequenceAhead { .. } => "sequence_ahead",
            RecordError::NotCallable { .. } => "not_callable",
            RecordError::NotPermitted { .. } => "not_permitted",
            RecordError::PriceAboveCeiling { .. } => "price_above_ceiling",
            RecordError::StaleSequence { .. } => "stale_sequence",
            RecordError::Conflict { .. } => "sequence_conflict",
            RecordError::NotStorable => "not_storable",
            RecordError::PublisherQuota => "publisher_quota",
            RecordError::PeerQuota => "peer_quota",
            RecordError::AddressQuota => "address_quota",
            RecordError::StoreFull => "store_full",
        }
    }
}
