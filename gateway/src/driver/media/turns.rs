//! When a media thread looks at its sockets, and its calls tick.

use std::time::{Duration, Instant};

/// How long a turn lasts. The ticks of calls fall on turns, so a packet that waits for one would
/// otherwise wait in its jitter buffer.
const TURN: Duration = Duration::from_millis(2);
/// Turns from one tick of a call to the next.
const TURNS: usize = 10;

/// The turns of a thread: instants [`TURN`] apart, on which the ticks of its calls are spread.
#[derive(Debug)]
pub(super) struct Turns {
    began: Instant,
    /// Calls that were given a turn.
    calls: usize,
}

impl Turns {
    /// Begins with the first turn.
    pub(super) fn new(began: Instant) -> Self {
        Self { began, calls: 0 }
    }

    /// Returns how long it is to the next turn.
    pub(super) fn until_next(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.began).as_nanos() % TURN.as_nanos();
        TURN - Duration::from_nanos(u64::try_from(since).unwrap_or_default())
    }

    /// Returns when a new call ticks first: calls take the turns one after the other.
    pub(super) fn first_tick(&mut self, now: Instant) -> Instant {
        self.calls += 1;
        let frame = TURN.as_nanos() * TURNS as u128;
        let frames = now.saturating_duration_since(self.began).as_nanos() / frame + 1;
        let turn = TURN * u32::try_from(self.calls % TURNS).unwrap_or_default();
        self.began + Duration::from_nanos(u64::try_from(frames * frame).unwrap_or(u64::MAX)) + turn
    }
}
