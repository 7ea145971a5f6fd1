//! One sleep for every timer of the node.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// A set of deadlines, one per key, of which the earliest is asked for again and again.
pub(super) struct Timers<K> {
    order: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
}

impl<K: Copy + Ord + Hash> Timers<K> {
    pub(super) fn new() -> Self {
        Self { order: BTreeSet::new(), due: HashMap::new() }
    }

    /// Sets, moves or clears the deadline of a key.
    pub(super) fn set(&mut self, key: K, at: Option<Instant>) {
        if self.due.get(&key).copied() == at {
            return;
        }
        if let Some(old) = self.due.remove(&key) {
            self.order.remove(&(old, key));
        }
        if let Some(at) = at {
            self.due.insert(key, at);
            self.order.insert((at, key));
        }
    }

    /// Says whether a key has a deadline.
    pub(super) fn is_set(&self, key: &K) -> bool {
        self.due.contains_key(key)
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes one key whose deadline has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<K> {
        let &(at, key) = self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.due.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_earliest_comes_first_and_moves() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut timers = Timers::new();
        timers.set('a', Some(at(3)));
        timers.set('b', Some(at(2)));
        timers.set('a', Some(at(1)));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop(at(0)), None);
        assert_eq!((timers.pop(at(2)), timers.pop(at(2)), timers.pop(at(9))), (Some('a'), Some('b'), None));
        timers.set('c', Some(at(5)));
        timers.set('c', None);
        assert_eq!(timers.next(), None);
    }
}
