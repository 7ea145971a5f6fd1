//! Where a name leads (RFC 3263): NAPTR, SRV and address records, remembered as long as their time
//! to live says, and longer while DNS is away.
//!
//! Nothing here asks anybody: [`Resolver::poll_query`] says what is to be asked, and
//! [`Resolver::handle_answer`] takes the answer.

mod cache;
mod locate;
mod order;
mod types;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

pub use locate::{Candidate, Families, Located};
pub(crate) use order::draw;
pub use types::{
    Destination, Domain, DomainError, Failure, Host, Query, Record, RecordData, RecordType, Service,
};

use self::cache::{Entry, Known};

/// The bounds of a [`Resolver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolverLimits {
    /// A shorter time to live is taken as this.
    pub ttl_floor: Duration,
    /// A longer time to live is taken as this.
    pub ttl_ceiling: Duration,
    /// How long it is believed that there is nothing, where the answer does not say (RFC 2308 5).
    pub negative_ttl: Duration,
    /// The longest that it is believed that there is nothing.
    pub negative_ceiling: Duration,
    /// How long the last good answer is used after its time while DNS is away (RFC 8767 4).
    pub stale: Duration,
    /// How long to wait after a failure before the same is asked again; doubled up to a minute.
    pub retry: Duration,
    /// How long an answer may take.
    pub patience: Duration,
    /// Names and types remembered.
    pub entries: usize,
    /// Questions asked at the same time.
    pub in_flight: usize,
    /// Records taken of one answer.
    pub records: usize,
    /// Addresses one name may lead to.
    pub candidates: usize,
}

impl Default for ResolverLimits {
    fn default() -> Self {
        Self {
            ttl_floor: Duration::from_secs(10),
            ttl_ceiling: Duration::from_secs(86_400),
            negative_ttl: Duration::from_secs(60),
            negative_ceiling: Duration::from_secs(300),
            // RFC 8767 5: one to three days.
            stale: Duration::from_secs(86_400),
            retry: Duration::from_secs(2),
            patience: Duration::from_secs(15),
            entries: 4096,
            in_flight: 64,
            records: 64,
            candidates: 32,
        }
    }
}

/// The longest wait between two tries to ask the same.
const RETRY_MAX: Duration = Duration::from_secs(60);

type Key = (Domain, RecordType);

/// What is known of names, and what is to be asked.
#[derive(Debug)]
pub struct Resolver {
    limits: ResolverLimits,
    entries: HashMap<Key, Entry>,
    in_flight: HashMap<u64, Key>,
    queries: VecDeque<Query>,
    next: u64,
    /// Questions that were not asked because of the bounds, and answers nobody had asked for.
    refused: u64,
}

impl Resolver {
    /// Builds a resolver that knows nothing.
    #[must_use]
    pub fn new(limits: ResolverLimits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            in_flight: HashMap::new(),
            queries: VecDeque::new(),
            next: 0,
            refused: 0,
        }
    }

    /// Returns the next question. Each is to be answered once, if only by a failure.
    pub fn poll_query(&mut self) -> Option<Query> {
        self.queries.pop_front()
    }

    /// Returns how many questions were not asked because of the bounds, and how many answers nobody
    /// had asked for.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes the answer to a question in. Says whether the question was open.
    pub fn handle_answer(&mut self, now: Instant, id: u64, answer: Result<Vec<Record>, Failure>) -> bool {
        let Some(key) = self.in_flight.remove(&id) else {
            self.refused += 1;
            return false;
        };
        let limits = self.limits;
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        entry.asked = None;
        match answer {
            Ok(records) => match cache::read(&key, records, &limits) {
                Some((known, ttl)) => {
                    entry.learn(now, known, ttl.clamp(limits.ttl_floor, limits.ttl_ceiling))
                }
                // What answers another question, or nothing that was asked for.
                None => entry.learn(now, Known::Nothing, limits.negative_ttl),
            },
            Err(Failure::Nothing { ttl }) => {
                let ttl = ttl.map_or(limits.negative_ttl, |ttl| Duration::from_secs(u64::from(ttl)));
                entry.learn(now, Known::Nothing, ttl.clamp(limits.ttl_floor, limits.negative_ceiling));
            }
            Err(Failure::Unavailable) => entry.fail(now, &limits),
        }
        true
    }

    /// Looks something up, and asks for it where it is not known or soon no longer so.
    fn look_up(&mut self, now: Instant, key: &Key) -> cache::Found {
        let limits = self.limits;
        if !self.entries.contains_key(key) && !self.make_room() {
            self.refused += 1;
            return cache::Found::Failed { again: now + limits.retry };
        }
        let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry::new(now));
        entry.used = now;
        if let Some((id, since)) = entry.asked
            && since + limits.patience <= now
        {
            self.in_flight.remove(&id);
            entry.asked = None;
            entry.fail(now, &limits);
        }
        if entry.wants_question(now) {
            if self.in_flight.len() < limits.in_flight {
                self.next += 1;
                entry.asked = Some((self.next, now));
                self.in_flight.insert(self.next, key.clone());
                self.queries.push_back(Query { id: self.next, name: key.0.clone(), record: key.1 });
            } else {
                self.refused += 1;
                entry.fail(now, &limits);
            }
        }
        entry.found(now, &limits)
    }

    /// Makes room for another name: what was not used for the longest time goes.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < self.limits.entries {
            return true;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.asked.is_none());
        let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else {
            return false;
        };
        self.entries.remove(&oldest);
        true
    }
}

#[cfg(test)]
mod tests;
