//! One queue of deadlines for everything. An entry is never removed: when it surfaces its owner's
//! [`Alarm`] says whether it still stands.
//!
//! Most are 32 seconds away (64 times T1), where a loaded gateway has hundreds of thousands of them, and those that
//! are near are few. So only the near ones are kept in order; the rest lie in slots of time until theirs begins.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use super::client::ClientKey;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    Client(ClientKey),
    Server(u64),
    Call(u64),
    Trunk(usize),
    Connection(u64),
    Registration(usize),
    Targets(usize),
    Held,
    Account(usize),
    Reports(usize),
}

/// How much time a slot is for, in milliseconds.
const SLOT_MS: u64 = 100;

/// The queue.
#[derive(Debug)]
pub(crate) struct TimerQueue {
    began: Instant,
    /// The slots before this number are in `near`.
    begun: u64,
    near: BinaryHeap<Reverse<(Instant, Due)>>,
    far: BTreeMap<u64, Vec<(Instant, Due)>>,
}

impl TimerQueue {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, begun: 0, near: BinaryHeap::new(), far: BTreeMap::new() }
    }

    fn push(&mut self, at: Instant, due: Due) {
        let slot = self.slot(at);
        if slot < self.begun {
            self.near.push(Reverse((at, due)));
        } else {
            self.far.entry(slot).or_default().push((at, due));
        }
    }

    fn slot(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_millis() as u64 / SLOT_MS
    }

    /// Returns the earliest entry's time, or that at which its slot begins. It may turn out void, which costs one
    /// idle wake-up.
    pub(crate) fn next(&self) -> Option<Instant> {
        if let Some(Reverse((at, _))) = self.near.peek() {
            return Some(*at);
        }
        let (slot, _) = self.far.first_key_value()?;
        self.began.checked_add(Duration::from_millis(slot.saturating_mul(SLOT_MS)))
    }

    /// Takes the earliest entry that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, Due)> {
        self.begun = self.begun.max(self.slot(now) + 1);
        while let Some(slot) = self.far.first_entry().filter(|slot| *slot.key() < self.begun) {
            self.near.extend(slot.remove().into_iter().map(Reverse));
        }
        let Reverse((at, _)) = self.near.peek()?;
        if *at <= now { self.near.pop().map(|Reverse(entry)| entry) } else { None }
    }
}

/// One owner's next deadline.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    wanted: Option<Instant>,
    queued: Option<Instant>,
}

impl Alarm {
    /// Sets or clears the deadline. Moving it later costs nothing until the old entry surfaces.
    pub(crate) fn set(&mut self, queue: &mut TimerQueue, due: Due, at: Option<Instant>) {
        self.wanted = at;
        if let Some(at) = at
            && self.queued.is_none_or(|queued| at < queued)
        {
            self.queued = Some(at);
            queue.push(at, due);
        }
    }

    /// Says whether the entry of time `at` that surfaced is the deadline itself.
    pub(crate) fn surfaced(&mut self, queue: &mut TimerQueue, due: Due, at: Instant, now: Instant) -> bool {
        if self.queued != Some(at) {
            return false;
        }
        self.queued = None;
        match self.wanted {
            Some(wanted) if wanted <= now => {
                self.wanted = None;
                true
            }
            later => {
                self.set(queue, due, later);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any_instant() -> Instant {
        // Any will do; the type has no other way to one.
        #[allow(clippy::disallowed_methods)]
        Instant::now()
    }

    /// Takes all that is due at each time that the queue names, and returns the times.
    fn served(queue: &mut TimerQueue, until: Instant) -> Vec<Instant> {
        let mut served = Vec::new();
        while let Some(now) = queue.next().filter(|at| *at <= until) {
            while let Some((at, _)) = queue.pop(now) {
                assert!(at <= now);
                served.push(at);
            }
        }
        served
    }

    #[test]
    fn what_is_due_comes_in_order_near_or_far() {
        let began = any_instant();
        let at = |ms| began + Duration::from_millis(ms);
        let mut queue = TimerQueue::new(began);
        for ms in [32_000, 5, 500, 99, 100, 101, 31_999, 0, 3_600_000, 500] {
            queue.push(at(ms), Due::Server(ms));
        }
        let expected = [0, 5, 99, 100, 101, 500, 500, 31_999, 32_000, 3_600_000].map(at);
        assert_eq!(served(&mut queue, at(40_000)), expected[..9]);
        // Its own time has not come, but that of its slot may be asked for.
        assert!(queue.next().is_some_and(|next| at(40_000) < next && next <= at(3_600_000)));
        assert_eq!(served(&mut queue, at(4_000_000)), expected[9..]);
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn what_is_pushed_late_or_among_the_near_is_in_order_too() {
        let began = any_instant();
        let at = |ms| began + Duration::from_millis(ms);
        let mut queue = TimerQueue::new(began);
        queue.push(at(190), Due::Held);
        assert_eq!(queue.pop(at(150)), None);
        queue.push(at(120), Due::Server(1));
        queue.push(at(170), Due::Server(2));
        assert_eq!(queue.next(), Some(at(120)));
        assert_eq!(served(&mut queue, at(200)), [120, 170, 190].map(at));
    }
}
