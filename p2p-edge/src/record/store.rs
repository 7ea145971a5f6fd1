use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use libp2p::PeerId;

use super::error::RecordError;
use super::{RecordKey, ValidRecord, validate};
use crate::defence::{Defence, holds};
use crate::identity::{RevocationList, Trust, Utc};

/// The bounds of a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Records in all. One takes 2 to 4 KiB of memory.
    pub records: usize,
    /// Records signed by one key, or of numbers assigned to one handle.
    pub per_publisher: usize,
    /// Records that one peer put here.
    pub per_peer: usize,
    /// Records that came from one IPv4 address or one IPv6 /64.
    pub per_address: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { records: 65_536, per_publisher: 4_096, per_peer: 8_192, per_address: 8_192 }
    }
}

/// Where a record came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This node published it. Not counted against a peer or address.
    Local,
    /// A peer put it here.
    Remote {
        /// The peer that put it.
        peer: PeerId,
        /// Its network address, unless it came through a relay.
        address: Option<IpAddr>,
    },
}

impl Source {
    fn peer(self) -> Option<PeerId> {
        match self {
            Source::Local => None,
            Source::Remote { peer, .. } => Some(peer),
        }
    }

    /// The network that a quota counts: a subscriber has a whole IPv6 /64.
    fn network(self) -> Option<IpAddr> {
        match self {
            Source::Remote { address: Some(address), .. } => Some(match address.to_canonical() {
                IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
                v4 => v4,
            }),
            _ => None,
        }
    }
}

/// What became of a record that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The key was free.
    New,
    /// It took the place of an older one.
    Replaced,
    /// The very same record is held. Nothing changed, not even whose quota it counts against.
    Duplicate,
}

/// A record in the store.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The bytes of the key.
    pub key: Vec<u8>,
    /// The bytes of the record, as they came.
    pub value: Vec<u8>,
    /// The record, as verified when it was put.
    pub record: ValidRecord,
    /// Where it came from.
    pub source: Source,
}

/// A record that was verified for its key, and the bytes it was read from. One that many stores
/// are to keep has to be verified once only.
#[derive(Clone, Debug)]
pub struct Verified {
    key: Vec<u8>,
    value: Vec<u8>,
    record: ValidRecord,
}

impl Verified {
    /// Verifies a record for a key at the moment `unix`.
    ///
    /// # Errors
    /// What [`validate`] says.
    pub fn check(
        key: &[u8],
        value: Vec<u8>,
        trust: &Trust,
        revocations: &RevocationList,
        unix: u64,
    ) -> Result<Self, RecordError> {
        let record = validate(key, &value, trust, revocations, unix)?;
        Ok(Self { key: key.to_vec(), value, record })
    }

    /// Returns the record.
    pub fn record(&self) -> &ValidRecord {
        &self.record
    }

    /// Returns the bytes that the record was read from.
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

/// What a store counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records taken under a free key.
    pub new: u64,
    /// Records taken in place of an older one.
    pub replaced: u64,
    /// Records that were held already.
    pub duplicates: u64,
    /// Records that went because they expired.
    pub expired: u64,
    /// Records that went because their writer was revoked.
    pub revoked: u64,
    /// Records refused, by [`RecordError::as_str`].
    pub refused: BTreeMap<&'static str, u64>,
}

/// The records that this node keeps for the overlay: bounded, verified, one per key.
#[derive(Clone, Debug)]
pub struct Store {
    limits: StoreLimits,
    entries: BTreeMap<Vec<u8>, Entry>,
    by_end: BTreeSet<(u64, Vec<u8>)>,
    per_publisher: BTreeMap<[u8; 32], usize>,
    per_peer: BTreeMap<PeerId, usize>,
    per_network: BTreeMap<IpAddr, usize>,
    probes: usize,
    counters: Counters,
}

impl Store {
    /// Builds an empty store.
    pub fn new(limits: StoreLimits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            by_end: BTreeSet::new(),
            per_publisher: BTreeMap::new(),
            per_peer: BTreeMap::new(),
            per_network: BTreeMap::new(),
            probes: 0,
            counters: Counters::default(),
        }
    }

    /// Verifies a record and keeps it if it is news.
    ///
    /// # Errors
    /// What [`validate`] says; `NotStorable` for offers; `StaleSequence` for an older record,
    /// `Conflict` for another of the same sequence; a quota that is used up; `StoreFull`. Nothing
    /// that is held is lost by any of these.
    pub fn put(
        &mut self,
        key: &[u8],
        value: Vec<u8>,
        source: Source,
        trust: &Trust,
        revocations: &RevocationList,
        unix: u64,
    ) -> Result<Stored, RecordError> {
        self.expire(unix);
        let outcome = self.try_put(key, value, source, (trust, revocations), unix);
        self.count(&outcome);
        outcome
    }

    /// Keeps a record that was verified before, as [`Store::put`] does. Lists of revocations that
    /// have come since are not looked at: see [`Store::drop_revoked`].
    ///
    /// # Errors
    /// `Expired` for a record that has ended since; otherwise as [`Store::put`].
    pub fn put_verified(
        &mut self,
        verified: Verified,
        source: Source,
        unix: u64,
    ) -> Result<Stored, RecordError> {
        self.expire(unix);
        let end = verified.record.expires_unix();
        let outcome = if self.holds(&verified.key, &verified.value) {
            Ok(Stored::Duplicate)
        } else if end <= unix {
            Err(RecordError::Expired { at: Utc(end) })
        } else {
            self.keep(verified, source)
        };
        self.count(&outcome);
        outcome
    }

    fn count(&mut self, outcome: &Result<Stored, RecordError>) {
        match outcome {
            Ok(Stored::New) => self.counters.new += 1,
            Ok(Stored::Replaced) => self.counters.replaced += 1,
            Ok(Stored::Duplicate) => self.counters.duplicates += 1,
            Err(error) => *self.counters.refused.entry(error.as_str()).or_default() += 1,
        }
    }

    fn try_put(
        &mut self,
        key: &[u8],
        value: Vec<u8>,
        source: Source,
        (trust, revocations): (&Trust, &RevocationList),
        unix: u64,
    ) -> Result<Stored, RecordError> {
        // Before any signature is verified: replication brings mostly what is held.
        if self.holds(key, &value) {
            return Ok(Stored::Duplicate);
        }
        let verified = Verified::check(key, value, trust, revocations, unix)?;
        self.keep(verified, source)
    }

    /// Says whether the very same record is held.
    fn holds(&self, key: &[u8], value: &[u8]) -> bool {
        self.entries.get(key).is_some_and(|held| held.value == value)
    }

    /// Keeps a verified record if it is news and within the quotas.
    fn keep(&mut self, verified: Verified, source: Source) -> Result<Stored, RecordError> {
        let Verified { key, value, record } = verified;
        if matches!(record.key(), RecordKey::Gateway(_)) {
            return Err(RecordError::NotStorable);
        }
        let held = self.entries.get(&key);
        if let Some(held) = held {
            let (have, got) = (held.record.sequence(), record.sequence());
            if have == got {
                return Err(RecordError::Conflict { sequence: got });
            }
            if have > got && holds(Defence::SequenceOrder) {
                return Err(RecordError::StaleSequence { have, got });
            }
        } else if self.entries.len() >= self.limits.records {
            return Err(RecordError::StoreFull);
        }
        if holds(Defence::Quota) {
            self.check_quotas(held, &record, source)?;
        }
        let replaced = self.remove(&key).is_some();
        let entry = Entry { key, value, record, source };
        self.insert(entry);
        Ok(if replaced { Stored::Replaced } else { Stored::New })
    }

    /// Checks the three quotas. The record that is replaced gives its place back.
    fn check_quotas(
        &self,
        held: Option<&Entry>,
        record: &ValidRecord,
        source: Source,
    ) -> Result<(), RecordError> {
        let publisher = record.account();
        let freed = held.is_some_and(|held| held.record.account() == publisher);
        if used(&self.per_publisher, &publisher) - usize::from(freed) >= self.limits.per_publisher {
            return Err(RecordError::PublisherQuota);
        }
        if let Some(peer) = source.peer() {
            let freed = held.is_some_and(|held| held.source.peer() == Some(peer));
            if used(&self.per_peer, &peer) - usize::from(freed) >= self.limits.per_peer {
                return Err(RecordError::PeerQuota);
            }
        }
        if let Some(network) = source.network() {
            let freed = held.is_some_and(|held| held.source.network() == Some(network));
            if used(&self.per_network, &network) - usize::from(freed) >= self.limits.per_address {
                return Err(RecordError::AddressQuota);
            }
        }
        Ok(())
    }

    fn insert(&mut self, entry: Entry) {
        *self.per_publisher.entry(entry.record.account()).or_default() += 1;
        if let Some(peer) = entry.source.peer() {
            *self.per_peer.entry(peer).or_default() += 1;
        }
        if let Some(network) = entry.source.network() {
            *self.per_network.entry(network).or_default() += 1;
        }
        self.probes += usize::from(matches!(entry.record, ValidRecord::Probe(_)));
        self.by_end.insert((entry.record.expires_unix(), entry.key.clone()));
        self.entries.insert(entry.key.clone(), entry);
    }

    /// Takes a record out.
    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.probes -= usize::from(matches!(entry.record, ValidRecord::Probe(_)));
        self.by_end.remove(&(entry.record.expires_unix(), entry.key.clone()));
        give_back(&mut self.per_publisher, &entry.record.account());
        if let Some(peer) = entry.source.peer() {
            give_back(&mut self.per_peer, &peer);
        }
        if let Some(network) = entry.source.network() {
            give_back(&mut self.per_network, &network);
        }
        Some(entry)
    }

    /// Returns the record under a key, unless it has expired.
    pub fn get(&self, key: &[u8], unix: u64) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.record.expires_unix() > unix)
    }

    /// Drops what has expired. Returns how many records went.
    pub fn expire(&mut self, unix: u64) -> usize {
        let mut gone = 0;
        while let Some((end, key)) = self.by_end.first().cloned() {
            if end > unix {
                break;
            }
            self.remove(&key);
            gone += 1;
        }
        self.counters.expired += gone as u64;
        gone
    }

    /// Drops what a new revocation list voids. Every record was verified when it was put, so that
    /// no signature has to be looked at again. Returns how many records went.
    pub fn drop_revoked(&mut self, revocations: &RevocationList, unix: u64) -> usize {
        self.expire(unix);
        let refused = |entry: &&Entry| entry.record.standing().is_revoked(revocations);
        let keys: Vec<Vec<u8>> =
            self.entries.values().filter(refused).map(|entry| entry.key.clone()).collect();
        for key in &keys {
            self.remove(key);
        }
        self.counters.revoked += keys.len() as u64;
        keys.len()
    }

    /// Returns all records in the order of their keys, expired ones too.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Returns how many records are held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns how many of them are probes of supernodes.
    pub fn probes(&self) -> usize {
        self.probes
    }

    /// Says whether no record is held.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns what was counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

fn used<K: Ord>(counts: &BTreeMap<K, usize>, key: &K) -> usize {
    counts.get(key).copied().unwrap_or(0)
}

fn give_back<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
