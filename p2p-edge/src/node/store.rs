//! What the DHT keeps on this node: validated records, and who provides what.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore};
use libp2p::kad::{K_VALUE, ProviderRecord, Record, RecordKey as Key};

use super::task::unix_now;
use crate::identity::{RevocationList, Trust};
use crate::record::{RecordError, Source, Store, StoreLimits, Stored};

/// Providers kept of one key. More than Kademlia answers with: a prefix may have more gateways.
const MAX_PER_KEY: usize = 256;

/// The record store of Kademlia. Nothing enters it unvalidated, own records included.
pub(super) struct KadStore {
    records: Store,
    trust: Trust,
    revocations: RevocationList,
    providers: HashMap<Key, Vec<ProviderRecord>>,
    provider_count: usize,
    provider_limit: usize,
    provided: HashSet<Key>,
    me: PeerId,
    /// Whose turn it is to be named where a key has many providers.
    turn: AtomicUsize,
}

impl KadStore {
    pub(super) fn new(
        me: PeerId,
        trust: Trust,
        revocations: RevocationList,
        limits: StoreLimits,
        provider_limit: usize,
    ) -> Self {
        Self {
            records: Store::new(limits),
            trust,
            revocations,
            providers: HashMap::new(),
            provider_count: 0,
            provider_limit,
            provided: HashSet::new(),
            me,
            turn: AtomicUsize::new(0),
        }
    }

    /// Takes over new revocations and drops what they void.
    pub(super) fn revoke(&mut self, revocations: &RevocationList) {
        self.revocations = revocations.clone();
        self.records.drop_revoked(&self.revocations, unix_now());
    }

    /// Returns some of those who provide a key: the one who asks, if it is among them, and others
    /// in turn.
    pub(super) fn providers_for(&self, key: &Key, asker: &PeerId, most: usize) -> Vec<ProviderRecord> {
        let now = Instant::now();
        let list = self.providers.get(key).map(Vec::as_slice).unwrap_or_default();
        let itself = list.iter().filter(|known| known.provider == *asker && !known.is_expired(now));
        let others = self.sample(key).into_iter().filter(|known| known.provider != *asker);
        itself.cloned().chain(others).take(most).collect()
    }

    /// Returns at most [`K_VALUE`] providers of a key, others each time.
    fn sample(&self, key: &Key) -> Vec<ProviderRecord> {
        let now = Instant::now();
        let list = self.providers.get(key).map(Vec::as_slice).unwrap_or_default();
        let start = self.turn.fetch_add(1, Ordering::Relaxed).wrapping_mul(K_VALUE.get());
        let start = start.checked_rem(list.len()).unwrap_or(0);
        let (before, from) = list.split_at(start);
        let live = from.iter().chain(before).filter(|provider| !provider.is_expired(now));
        live.take(K_VALUE.get()).cloned().collect()
    }

    /// Validates a record and stores it if it is newer than what is held.
    pub(super) fn put_from(
        &mut self,
        key: &[u8],
        value: Vec<u8>,
        source: Source,
    ) -> Result<Stored, RecordError> {
        self.records.put(key, value, source, &self.trust, &self.revocations, unix_now())
    }

    /// Returns the record under a key.
    pub(super) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.records.get(key, unix_now()).map(|entry| entry.value.as_slice())
    }

    /// Drops what has expired.
    pub(super) fn expire(&mut self) {
        self.records.expire(unix_now());
        let now = Instant::now();
        self.providers.retain(|_, list| {
            list.retain(|provider| !provider.is_expired(now));
            !list.is_empty()
        });
        self.provider_count = self.providers.values().map(Vec::len).sum();
    }

    /// Drops a peer as provider of everything.
    pub(super) fn remove_providers_of(&mut self, peer: &PeerId) {
        self.providers.retain(|_, list| {
            list.retain(|provider| provider.provider != *peer);
            !list.is_empty()
        });
        self.provider_count = self.providers.values().map(Vec::len).sum();
    }

    /// Returns how many records, without probes, and how many provider records are held.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.records.len() - self.records.probes(), self.provider_count)
    }
}

impl RecordStore for KadStore {
    type RecordsIter<'a> = std::vec::IntoIter<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &Key) -> Option<Cow<'_, Record>> {
        let value = self.value(key.as_ref())?.to_vec();
        Some(Cow::Owned(Record { key: key.clone(), value, publisher: None, expires: None }))
    }

    /// Stores an own record; those of others come through [`KadStore::put_from`].
    fn put(&mut self, record: Record) -> Result<(), Error> {
        match self.put_from(record.key.as_ref(), record.value, Source::Local) {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::warn!(reason = error.as_str(), "own record not stored");
                Err(Error::MaxRecords)
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        self.records.remove(key.as_ref());
    }

    /// Used by Kademlia to publish records again, which their writers do themselves here.
    fn records(&self) -> Self::RecordsIter<'_> {
        Vec::new().into_iter()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<(), Error> {
        if record.provider == self.me {
            self.provided.insert(record.key.clone());
        }
        let full = self.provider_count >= self.provider_limit;
        let list = self.providers.entry(record.key.clone()).or_default();
        if let Some(known) = list.iter_mut().find(|known| known.provider == record.provider) {
            *known = record;
            return Ok(());
        }
        if full || list.len() >= MAX_PER_KEY {
            if list.is_empty() {
                self.providers.remove(&record.key);
            }
            return Err(Error::MaxProvidedKeys);
        }
        list.push(record);
        self.provider_count += 1;
        Ok(())
    }

    fn providers(&self, key: &Key) -> Vec<ProviderRecord> {
        self.sample(key)
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        let own = |key: &Key| Cow::Owned(ProviderRecord::new(key.clone(), self.me, Vec::new()));
        self.provided.iter().map(own).collect::<Vec<_>>().into_iter()
    }

    fn remove_provider(&mut self, key: &Key, peer: &PeerId) {
        if *peer == self.me {
            self.provided.remove(key);
        }
        if let Some(list) = self.providers.get_mut(key) {
            let before = list.len();
            list.retain(|provider| provider.provider != *peer);
            self.provider_count -= before - list.len();
            if list.is_empty() {
                self.providers.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::Pki;

    #[test]
    fn a_prefix_may_have_many_gateways_and_each_has_its_turn() {
        let trust = Pki::new(unix_now()).unwrap().trust().unwrap();
        let limits = StoreLimits::default();
        let mut store = KadStore::new(PeerId::random(), trust, RevocationList::default(), limits, 10_000);
        let key = Key::new(b"/causeway/gw/+44");
        let peers: Vec<PeerId> = (0..50).map(|_| PeerId::random()).collect();
        for peer in &peers {
            store.add_provider(ProviderRecord::new(key.clone(), *peer, Vec::new())).unwrap();
        }
        let mut named = HashSet::new();
        for _ in 0..50 {
            let answer = store.providers(&key);
            assert_eq!(answer.len(), K_VALUE.get(), "an answer has a bounded size");
            named.extend(answer.into_iter().map(|record| record.provider));
        }
        assert_eq!(named.len(), 50);
        for peer in &peers {
            let answer = store.providers_for(&key, peer, 8);
            assert_eq!(answer.len(), 8);
            assert_eq!(answer[0].provider, *peer, "who reads its own announcement back finds it");
        }
        let more = (0..300).filter(|_| {
            store.add_provider(ProviderRecord::new(key.clone(), PeerId::random(), Vec::new())).is_ok()
        });
        assert_eq!(more.count(), MAX_PER_KEY - 50);
    }
}
