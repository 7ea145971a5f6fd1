//! Putting records: at the nodes nearest to their keys, of those that answer.
//!
//! The put of libp2p is all or nothing: while it searches for the nearest nodes it waits for each that it
//! is told of, and where some of them are dead without a word its time is over before anything is stored.
//! Here the search ends at a time of its own, and the record goes to those that have answered by then and
//! to the servers that are connected.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore};
use libp2p::kad::{
    GetClosestPeersError, GetClosestPeersOk, K_VALUE, PutRecordError, QueryId, QueryResult, Quorum, Record,
};

use super::registry::PublishId;
use super::task::{Task, Timer};

/// How long the nodes nearest to a key are searched for.
const SEARCH: Duration = Duration::from_secs(3);

/// Names one put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PutId(u64);

/// Whose record is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PutFor {
    /// An own one: its place among them.
    Own(usize),
    /// That of a client.
    Client(PublishId),
}

/// The puts under way. Who starts them bounds them.
#[derive(Default)]
pub(super) struct Puts {
    table: HashMap<PutId, Put>,
    queries: HashMap<QueryId, PutId>,
    next: u64,
}

struct Put {
    record: Record,
    purpose: PutFor,
    search: QueryId,
}

impl Task {
    /// Stores a record here and begins to put it where it belongs.
    ///
    /// # Errors
    /// When the own store does not take it.
    pub(super) fn put_record(&mut self, now: Instant, record: Record, purpose: PutFor) -> Result<(), Error> {
        let kad = &mut self.swarm.behaviour_mut().kad;
        kad.store_mut().put(record.clone())?;
        let search = kad.get_closest_peers(record.key.to_vec());
        let id = PutId(self.puts.next);
        self.puts.next += 1;
        self.puts.queries.insert(search, id);
        self.puts.table.insert(id, Put { record, purpose, search });
        self.timers.set(Timer::Put(id), Some(now + SEARCH));
        Ok(())
    }

    /// The search for the nodes nearest to a key has lasted long enough: those that have answered are
    /// taken.
    pub(super) fn end_put_search(&mut self, id: PutId) {
        let Some(put) = self.puts.table.get(&id) else { return };
        if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&put.search) {
            query.finish();
        }
    }

    /// Takes the end of a query. Returns false where it belongs to no put.
    pub(super) fn on_put_query(&mut self, now: Instant, query: QueryId, result: &QueryResult) -> bool {
        let Some(id) = self.puts.queries.remove(&query) else { return false };
        let found = match result {
            QueryResult::GetClosestPeers(
                Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }),
            ) => peers.iter().map(|info| info.peer_id).collect(),
            // A quorum of one node was reached.
            QueryResult::PutRecord(Ok(_)) => return self.end_put(now, id, 1),
            QueryResult::PutRecord(Err(
                PutRecordError::QuorumFailed { success, .. } | PutRecordError::Timeout { success, .. },
            )) => return self.end_put(now, id, success.len()),
            _ => Vec::new(),
        };
        self.timers.set(Timer::Put(id), None);
        let Some(put) = self.puts.table.get(&id) else { return true };
        let record = put.record.clone();
        let near = self.nearest(record.key.as_ref(), found);
        if near.is_empty() {
            return self.end_put(now, id, 0);
        }
        let query = self.swarm.behaviour_mut().kad.put_record_to(record, near.into_iter(), Quorum::One);
        self.puts.queries.insert(query, id);
        true
    }

    /// Returns the nearest to a key of these nodes and the connected servers.
    fn nearest(&self, key: &[u8], found: Vec<PeerId>) -> Vec<PeerId> {
        let all: HashSet<PeerId> = self.peers.servers().map(|(peer, _)| *peer).chain(found).collect();
        let target = libp2p::kad::KBucketKey::new(key.to_vec());
        let mut near: Vec<PeerId> = all.into_iter().filter(|peer| *peer != self.me).collect();
        near.sort_by_cached_key(|peer| target.distance(&libp2p::kad::KBucketKey::from(*peer)));
        near.truncate(K_VALUE.get());
        near
    }

    fn end_put(&mut self, now: Instant, id: PutId, taken: usize) -> bool {
        self.timers.set(Timer::Put(id), None);
        match self.puts.table.remove(&id).map(|put| put.purpose) {
            Some(PutFor::Own(at)) => self.on_put(now, at, taken),
            Some(PutFor::Client(publish)) => self.on_client_put(publish, taken),
            None => {}
        }
        true
    }
}
