//! Signed records of the overlay: where users are, whose a number is, what gateways offer.
//!
//! A record carries the credential of its writer, so whoever stores or reads it needs only the
//! trusted root. [`validate`] is called both times. Measured: a location with one device and three
//! addresses (one direct, two through relays) has 669 bytes, a number record of a gateway with
//! three prefixes 694, its offer 697; the limit is [`MAX_RECORD_BYTES`].

mod choice;
mod envelope;
mod error;
mod location;
mod number;
mod offer;
mod probe;
mod store;

use std::fmt;

use call_model::{Handle, Number};
use libp2p::PeerId;
use sha2::{Digest, Sha256};

pub use choice::{Choice, ENOUGH};
pub use envelope::{CLOCK_SKEW, MAX_RECORD_BYTES};
pub use error::RecordError;
pub use location::{Device, LOCATION_LIFE, LocationRecord, MAX_ADDRESS_BYTES, MAX_ADDRESSES, ValidLocation};
pub use number::{NUMBER_LIFE, NumberRecord, NumberWriter, ValidNumber};
pub use offer::{GatewayOffer, OFFER_LIFE, ValidOffer};
pub use probe::{PROBE_LIFE, ProbeRecord, ValidProbe};
pub use store::{Counters, Entry, Source, Store, StoreLimits, Stored, Verified};

use crate::identity::{
    IdentityError, NodeChain, NodeKey, Prefix, PublicKey, RevocationList, Standing, Trust,
};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 64;
/// Keys under which a location or number is kept. The DHT keeps each near another place, so that
/// whoever surrounds one of them hides nothing.
pub const COPIES: u8 = 2;

const LOCATION: &str = "/causeway/loc/";
const NUMBER: &str = "/causeway/num/";
const GATEWAY: &str = "/causeway/gw/";
const PROBE: &str = "/causeway/p/";

/// The name of a record in the overlay. Each has one spelling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// `/causeway/loc/<handle>`: where the user is.
    Location(Handle),
    /// `/causeway/num/<E.164>`: whose the number is.
    Number(Number),
    /// `/causeway/gw/<prefix>`: which gateways take calls to numbers that begin so.
    Gateway(Prefix),
    /// `/causeway/p/<peer>`: what a supernode puts there to see whether it can be got.
    Probe(PeerId),
}

impl RecordKey {
    /// Reads the key of the first copy.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::parse_copy(bytes)
            .and_then(|(key, copy)| if copy == 0 { Ok(key) } else { Err(RecordError::BadKey) })
    }

    /// Reads the key of any copy, and which copy it is: 0 to [`COPIES`] - 1.
    pub fn parse_copy(bytes: &[u8]) -> Result<(Self, u8), RecordError> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_KEY_BYTES);
        let text = text.ok_or(RecordError::BadKey)?;
        let Some((first, copy)) = text.split_once('#') else { return Ok((Self::parse_text(text)?, 0)) };
        let key = Self::parse_text(first)?;
        let copy = (1..key.copies()).find(|number| number.to_string() == copy);
        copy.map(|copy| (key, copy)).ok_or(RecordError::BadKey)
    }

    fn parse_text(text: &str) -> Result<Self, RecordError> {
        let key = if let Some(handle) = text.strip_prefix(LOCATION) {
            handle.parse().ok().map(RecordKey::Location)
        } else if let Some(number) = text.strip_prefix(NUMBER) {
            number.parse().ok().map(RecordKey::Number)
        } else if let Some(prefix) = text.strip_prefix(GATEWAY) {
            prefix.parse().ok().map(RecordKey::Gateway)
        } else if let Some(peer) = text.strip_prefix(PROBE) {
            peer.parse().ok().map(RecordKey::Probe)
        } else {
            None
        };
        // The parsers of people's input forgive upper case and separators; a key must not.
        key.filter(|key| key.to_string() == text).ok_or(RecordError::BadKey)
    }

    /// Returns the bytes of the key of the first copy.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_string().into_bytes()
    }

    /// Returns how many copies are kept. Gateways are found by whoever provides, not by a record.
    pub fn copies(&self) -> u8 {
        match self {
            RecordKey::Location(_) | RecordKey::Number(_) => COPIES,
            RecordKey::Gateway(_) | RecordKey::Probe(_) => 1,
        }
    }

    /// Returns the bytes of the key of one copy.
    pub fn to_copy_bytes(&self, copy: u8) -> Vec<u8> {
        match copy {
            0 => self.to_bytes(),
            _ => format!("{self}#{copy}").into_bytes(),
        }
    }

    /// Returns the bytes of the keys of all copies.
    pub fn all_copies(&self) -> Vec<Vec<u8>> {
        (0..self.copies()).map(|copy| self.to_copy_bytes(copy)).collect()
    }

    /// Returns the keys under which gateways for a number may be found, the longest prefix first.
    pub fn gateways_of(number: &Number) -> impl Iterator<Item = RecordKey> {
        Prefix::of_number(number).map(RecordKey::Gateway)
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordKey::Location(handle) => write!(f, "{LOCATION}{handle}"),
            RecordKey::Number(number) => write!(f, "{NUMBER}{number}"),
            RecordKey::Gateway(prefix) => write!(f, "{GATEWAY}{prefix}"),
            RecordKey::Probe(peer) => write!(f, "{PROBE}{peer}"),
        }
    }
}

/// A record that was verified for its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidRecord {
    /// Where a user is.
    Location(ValidLocation),
    /// Whose a number is.
    Number(ValidNumber),
    /// What a gateway offers.
    Offer(ValidOffer),
    /// What a supernode measures the overlay by.
    Probe(ValidProbe),
}

impl ValidRecord {
    /// Returns the key that the record was verified for.
    pub fn key(&self) -> RecordKey {
        match self {
            ValidRecord::Location(valid) => RecordKey::Location(valid.record.handle.clone()),
            ValidRecord::Number(valid) => RecordKey::Number(valid.record.number.clone()),
            ValidRecord::Offer(valid) => RecordKey::Gateway(valid.slot.clone()),
            ValidRecord::Probe(valid) => RecordKey::Probe(valid.writer.peer_id),
        }
    }

    /// Returns the sequence: of valid records the highest wins.
    pub fn sequence(&self) -> u64 {
        self.rank().sequence
    }

    /// Returns when the record ends, or its writer's certificate if that is sooner, in Unix seconds.
    pub fn expires_unix(&self) -> u64 {
        self.rank().expires_unix
    }

    /// Returns the key that signed the record.
    pub fn publisher(&self) -> &PublicKey {
        match self {
            ValidRecord::Location(valid) => &valid.writer,
            ValidRecord::Number(valid) => valid.writer.key(),
            ValidRecord::Offer(valid) => &valid.gateway.key,
            ValidRecord::Probe(valid) => &valid.writer.key,
        }
    }

    /// Returns for whom the record counts against a quota: the key that signed it; of a number that an
    /// authority has assigned, a digest of the user's handle, since the one authority signs for all.
    pub fn account(&self) -> [u8; 32] {
        match self {
            ValidRecord::Number(ValidNumber { record, writer: NumberWriter::Authority(_), .. }) => {
                Sha256::digest(record.handle.as_str()).into()
            }
            _ => self.publisher().to_bytes(),
        }
    }

    /// Says whether this record wins over another of its key: the highest sequence, then the latest
    /// end, then the greatest signature, so that all readers of the same answers agree.
    pub fn outranks(&self, other: &ValidRecord) -> bool {
        self.rank() > other.rank()
    }

    /// Says whether a record that was read back shows that a put of `sequence` by `writer` has taken
    /// effect. Another device may have written a location meanwhile: it must have kept the writer.
    pub fn confirms(&self, sequence: u64, writer: &PeerId) -> bool {
        let kept = match self {
            ValidRecord::Location(valid) => valid.record.devices.iter().any(|device| device.peer == *writer),
            ValidRecord::Number(_) | ValidRecord::Offer(_) | ValidRecord::Probe(_) => true,
        };
        kept && self.sequence() >= sequence
    }

    /// Returns what may void the certificate of the record's writer.
    pub fn standing(&self) -> &Standing {
        match self {
            ValidRecord::Location(valid) => &valid.holder.standing,
            ValidRecord::Number(valid) => valid.writer.standing(),
            ValidRecord::Offer(valid) => &valid.gateway.standing,
            ValidRecord::Probe(valid) => &valid.writer.standing,
        }
    }

    fn rank(&self) -> &envelope::Rank {
        match self {
            ValidRecord::Location(valid) => &valid.rank,
            ValidRecord::Number(valid) => &valid.rank,
            ValidRecord::Offer(valid) => &valid.rank,
            ValidRecord::Probe(valid) => &valid.rank,
        }
    }
}

/// Verifies a record for a key, of whichever copy, at the moment `unix`: form, slot, expiry, credential, permission and
/// signature. Called when a record is stored and again when it is read.
pub fn validate(
    key: &[u8],
    value: &[u8],
    trust: &Trust,
    revocations: &RevocationList,
    unix: u64,
) -> Result<ValidRecord, RecordError> {
    match RecordKey::parse_copy(key)?.0 {
        RecordKey::Location(slot) => {
            location::validate(&slot, value, trust, revocations, unix).map(ValidRecord::Location)
        }
        RecordKey::Number(slot) => {
            number::validate(&slot, value, trust, revocations, unix).map(ValidRecord::Number)
        }
        RecordKey::Gateway(slot) => {
            offer::validate(&slot, value, trust, revocations, unix).map(ValidRecord::Offer)
        }
        RecordKey::Probe(slot) => {
            probe::validate(&slot, value, trust, revocations, unix).map(ValidRecord::Probe)
        }
    }
}

/// Returns after how many seconds an owner publishes a record of a life of `life` seconds again: at
/// half of it, so that one attempt may fail. Nobody else does.
pub const fn republish_after(life: u64) -> u64 {
    life / 2
}

fn check_own_key(chain: &NodeChain, key: &NodeKey) -> Result<(), RecordError> {
    if *chain.key() == key.public() {
        return Ok(());
    }
    Err(IdentityError::WrongKey { subject: chain.name().to_owned() }.into())
}

#[cfg(test)]
mod tests;
