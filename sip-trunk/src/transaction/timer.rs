//! One heap of deadlines for everything. An entry is never removed: when it surfaces its owner's
//! [`Alarm`] says whether it still stands.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

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
}

/// The heap.
#[derive(Debug, Default)]
pub(crate) struct TimerQueue {
    heap: BinaryHeap<Reverse<(Instant, Due)>>,
}

impl TimerQueue {
    /// Returns the earliest entry's time. It may turn out void, which costs one idle wake-up.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes the earliest entry that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, Due)> {
        if self.next()? <= now { self.heap.pop().map(|Reverse(entry)| entry) } else { None }
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
            queue.heap.push(Reverse((at, due)));
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
