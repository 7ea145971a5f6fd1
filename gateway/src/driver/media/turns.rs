//! When a media thread with calls looks at its sockets: in turns, which are the shorter the busier it is.
//!
//! A turn costs a wake-up and a look at what is ready, whatever there is to do: the longer the better. But the ticks that
//! fall on one turn are served one after the other, so that the last of them waits for as long as the thread is busy in
//! a turn: the shorter the better, with many calls.

use std::time::{Duration, Instant};

/// From one tick of a call to the next.
const FRAME: Duration = Duration::from_millis(20);
/// The shortest turn.
const SHORTEST: Duration = Duration::from_millis(1);
/// How long a turn lasts up to which busy part of the time; beyond the last, [`SHORTEST`]. No call so waits for more
/// than 0.8 ms for others on average.
const LENGTHS: [(Duration, f64); 2] = [(Duration::from_millis(4), 0.2), (Duration::from_millis(2), 0.4)];
/// A turn gets longer only below so much of the bound, lest it goes to and fro.
const LONGER_BELOW: f64 = 0.8;
/// How long the thread watches itself before it decides.
const PERIOD: Duration = Duration::from_millis(500);

/// The turns of a thread: instants apart by the present length of a turn, on which ticks of its calls fall.
#[derive(Debug)]
pub(super) struct Turns {
    began: Instant,
    length: Duration,
    /// Calls that were given a tick.
    calls: u32,
    period: Instant,
    busy: Duration,
}

impl Turns {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, length: LENGTHS[0].0, calls: 0, period: now, busy: Duration::ZERO }
    }

    /// Returns the time until the next turn.
    pub(super) fn until_next(&self, now: Instant) -> Duration {
        self.length - self.into(now)
    }

    /// Returns the turn on which something falls that is to happen at a moment: the first that is not before.
    pub(super) fn of(&self, at: Instant) -> Instant {
        match self.into(at) {
            Duration::ZERO => at,
            since => at + (self.length - since),
        }
    }

    /// Returns when a new call ticks first: calls take the shortest turns of a frame one after the other.
    pub(super) fn first_tick(&mut self, now: Instant) -> Instant {
        self.calls = self.calls.wrapping_add(1);
        let frames = now.saturating_duration_since(self.began).as_nanos() / FRAME.as_nanos() + 1;
        let frames = u64::try_from(frames * FRAME.as_nanos()).map_or(Duration::ZERO, Duration::from_nanos);
        let turns = (FRAME.as_nanos() / SHORTEST.as_nanos()) as u32;
        self.began + frames + SHORTEST * (self.calls % turns)
    }

    /// Notes for how long a turn that ends was busy.
    pub(super) fn end(&mut self, now: Instant, busy: Duration) {
        self.busy += busy;
        let lasted = now.saturating_duration_since(self.period);
        if lasted < PERIOD {
            return;
        }
        let share = self.busy.as_secs_f64() / lasted.as_secs_f64();
        (self.period, self.busy) = (now, Duration::ZERO);
        let fits = |&(length, bound): &(Duration, f64)| {
            share <= if length > self.length { LONGER_BELOW * bound } else { bound }
        };
        self.length = LENGTHS.iter().find(|entry| fits(entry)).map_or(SHORTEST, |entry| entry.0);
    }

    /// Returns how far a moment is behind the turn before it.
    fn into(&self, at: Instant) -> Duration {
        let since = at.saturating_duration_since(self.began).as_nanos() % self.length.as_nanos();
        Duration::from_nanos(u64::try_from(since).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A second in which the thread is busy for a part of each turn. Returns how long turns are then.
    fn second(turns: &mut Turns, now: &mut Instant, share: f64) -> Duration {
        let end = *now + ms(1_000);
        while *now < end {
            let length = turns.until_next(*now);
            *now += length;
            turns.end(*now, length.mul_f64(share));
        }
        turns.until_next(turns.of(*now + Duration::from_nanos(1)))
    }

    #[test]
    fn turns_get_shorter_with_load_and_do_not_go_to_and_fro() {
        let mut now = Instant::now();
        let mut turns = Turns::new(now);
        let mut lengths = Vec::new();
        for share in [0.0, 0.19, 0.3, 0.39, 0.6, 0.9, 0.39, 0.31, 0.19, 0.15] {
            lengths.push(second(&mut turns, &mut now, share).as_millis());
        }
        assert_eq!(lengths, [4, 4, 2, 2, 1, 1, 1, 2, 2, 4]);
    }

    #[test]
    fn ticks_are_spread_over_a_frame_and_fall_on_turns() {
        let start = Instant::now();
        let mut turns = Turns::new(start);
        let now = start + ms(47);
        let mut ticks: Vec<u128> = (0..40).map(|_| (turns.first_tick(now) - start).as_millis()).collect();
        ticks.sort_unstable();
        let expected: Vec<u128> = (60..80).flat_map(|ms| [ms, ms]).collect();
        assert_eq!(ticks, expected);
        assert_eq!(turns.of(start + ms(61)), start + ms(64));
        assert_eq!(turns.of(start + ms(64)), start + ms(64));
        assert_eq!(turns.until_next(start + ms(61)), ms(3));
        assert_eq!(turns.until_next(start + ms(64)), ms(4));
    }
}
