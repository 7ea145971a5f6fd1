//! How long to hold packets back: the delay that nearly all of the last few hundred would have met.

/// Packets remembered: ten seconds at 20 ms.
const WINDOW: usize = 512;
/// One packet in this many may be later than the target.
const TOLERATED: usize = 100;
/// Held on top of the slowest packet, in microseconds.
const MARGIN: i64 = 5_000;
/// The target shrinks by at most 1/25 of the time that passes: 40 ms a second, twice what clocks that are 2 % apart
/// ask for.
const SHRINK: i64 = 25;
/// Packets between two looks at the whole window.
const REVIEW: usize = 8;
/// The latest packets, those between, and the older ones that are compared: when all the latest were faster, or all
/// slower, than all the older ones, the path is another and what was before it says nothing.
const LATEST: usize = 120;
const BETWEEN: usize = 2 * REVIEW;
const OLDER: usize = 64;

/// Time over which the fastest packet shows how the two clocks part, in microseconds.
const BLOCK: i64 = 1_000_000;
/// Clocks that part by more than this, in millionths, are not believed ...
const MAX_DRIFT: i64 = 30_000;
/// ... and less than this is left to the window, which forgets in time.
const MIN_DRIFT: i64 = 1_500;

/// How far the sender's clock has gone from ours. Without it a clock that is off by 2 % would look like 200 ms of
/// jitter within the window.
#[derive(Clone, Debug, Default)]
struct Drift {
    /// Estimate in millionths; the part above [`MIN_DRIFT`] counts.
    estimate: i64,
    /// What it has come to, in microseconds, and the part of one that is left over, in millionths.
    offset: i64,
    remainder: i64,
    at: i64,
    block_end: i64,
    fastest: Option<i64>,
    before: Option<i64>,
    /// The last slopes. Their median counts: a path that changes is no clock that runs off.
    slopes: [i64; 3],
}

impl Drift {
    /// Goes on to `now` and returns the offset that transits have by then.
    fn observe(&mut self, now: i64, transit: i64) -> i64 {
        let rate = self.estimate.signum() * (self.estimate.abs() - MIN_DRIFT).max(0);
        let grown = (now - self.at).max(0).saturating_mul(rate) + self.remainder;
        self.offset += grown / 1_000_000;
        self.remainder = grown % 1_000_000;
        self.at = now;
        let adjusted = transit - self.offset;
        if self.fastest.is_none() {
            self.block_end = now + BLOCK;
        } else if now >= self.block_end {
            if let (Some(fastest), Some(before)) = (self.fastest, self.before) {
                self.slopes.rotate_left(1);
                self.slopes[2] = (fastest - before) * 1_000_000 / (BLOCK + now - self.block_end);
                let mut sorted = self.slopes;
                sorted.sort_unstable();
                self.estimate = (self.estimate + sorted[1] / 2).clamp(-MAX_DRIFT, MAX_DRIFT);
            }
            (self.before, self.fastest) = (self.fastest, None);
            self.block_end = now + BLOCK;
        }
        self.fastest = Some(self.fastest.map_or(adjusted, |fastest| fastest.min(adjusted)));
        self.offset
    }

    /// Returns the offset without learning anything or moving on: what asks for a fixed delay has a clock that is
    /// better than the estimate under jitter.
    fn hold(&mut self, now: i64) -> i64 {
        (self.at, self.fastest, self.before) = (now, None, None);
        self.offset
    }
}

/// Turns transit times into a playout offset. All times are microseconds on one clock; a transit
/// is arrival less timestamp, so only differences between transits mean anything.
#[derive(Clone, Debug)]
pub(super) struct DelayEstimator {
    transits: Box<[i64; WINDOW]>,
    len: usize,
    at: usize,
    fastest: i64,
    desired: i64,
    playout: i64,
    shrunk_at: i64,
    min_delay: i64,
    max_delay: i64,
    /// All times here are without what the clocks have parted by.
    drift: Drift,
    /// The target, while it does not follow what is observed.
    fixed: Option<i64>,
}

impl DelayEstimator {
    pub(super) fn new(min_delay: i64, max_delay: i64) -> Self {
        Self {
            transits: Box::new([0; WINDOW]),
            len: 0,
            at: 0,
            fastest: 0,
            desired: 0,
            playout: 0,
            shrunk_at: 0,
            min_delay,
            max_delay,
            drift: Drift::default(),
            fixed: None,
        }
    }

    /// Starts over: the next packet alone sets the offset.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.at = 0;
        self.drift = Drift::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Holds the fastest packets back by `delay` from now on, or by as much as at present where that is more; `None`
    /// follows the packets again.
    pub(super) fn set_fixed(&mut self, delay: Option<i64>) {
        if delay.is_some() && self.len > 0 {
            self.review();
        }
        self.fixed = delay.map(|delay| delay.max(self.target()).min(self.max_delay));
        if let Some(fixed) = self.fixed {
            self.playout = self.fastest + fixed;
        }
    }

    /// Takes over what another stream on the same path has shown, whose transits differ from those of this one by
    /// `shift`.
    pub(super) fn follow(&mut self, other: &Self, shift: i64) {
        (self.len, self.at, self.shrunk_at) = (other.len, other.at, other.shrunk_at);
        for (transit, theirs) in self.transits.iter_mut().zip(other.transits.iter()) {
            *transit = theirs + shift;
        }
        self.fastest = other.fastest + shift;
        self.desired = other.desired + shift;
        self.playout = other.playout + shift;
        self.drift = other.drift.clone();
        self.drift.fastest = other.drift.fastest.map(|fastest| fastest + shift);
        self.drift.before = other.drift.before.map(|before| before + shift);
    }

    /// Sets the offset, for a stream that plays already.
    pub(super) fn set_playout(&mut self, playout: i64) {
        self.playout = playout - self.drift.offset;
    }

    /// Takes in a packet's transit and says whether it can still be played at the offset, which
    /// grows at once if that helps.
    pub(super) fn observe(&mut self, now: i64, transit: i64) -> bool {
        if self.len == 0 {
            self.drift.at = now;
        }
        let drifted =
            if self.fixed.is_none() { self.drift.observe(now, transit) } else { self.drift.hold(now) };
        let transit = transit - drifted;
        if self.len == 0 {
            self.fastest = transit;
            self.playout = transit + self.fixed.unwrap_or(self.min_delay);
            self.desired = self.playout;
            self.shrunk_at = now;
        }
        self.remember(transit);
        self.fastest = self.fastest.min(transit);
        if self.at.is_multiple_of(REVIEW) || transit > self.desired - MARGIN {
            self.review();
        }
        if self.fixed.is_some() {
            self.shrunk_at = now;
            return transit <= self.playout;
        }
        let limit = self.fastest + self.max_delay;
        if transit > self.playout {
            self.playout = (transit + MARGIN).min(limit);
        }
        if self.desired >= self.playout {
            self.playout = self.desired;
            self.shrunk_at = now;
        } else {
            let step = ((now - self.shrunk_at) / SHRINK).max(0).min(self.playout - self.desired);
            self.playout -= step;
            self.shrunk_at += step * SHRINK;
        }
        self.playout = self.playout.min(limit);
        transit <= self.playout
    }

    /// Takes in the transit of a copy of a packet that never came. The offset grows to reach such copies once more
    /// than the tolerated share of packets comes by them, and not for a single one.
    pub(super) fn observe_copy(&mut self, now: i64, transit: i64) {
        let transit = transit - self.drift.offset;
        let reachable = (self.fastest..=self.fastest + self.max_delay - MARGIN).contains(&transit);
        if self.len == 0 || self.fixed.is_some() || !reachable {
            return;
        }
        self.remember(transit);
        self.review();
        if self.desired > self.playout {
            self.playout = self.desired;
            self.shrunk_at = now;
        }
    }

    fn remember(&mut self, transit: i64) {
        self.transits[self.at] = transit;
        self.at = (self.at + 1) % WINDOW;
        self.len = (self.len + 1).min(WINDOW);
    }

    /// Returns the offset: a sample is due at its timestamp plus this.
    pub(super) fn playout(&self) -> i64 {
        self.playout + self.drift.offset
    }

    /// Returns the transit of the fastest packet.
    pub(super) fn fastest(&self) -> i64 {
        self.fastest + self.drift.offset
    }

    /// Returns how long the fastest packet is held back.
    pub(super) fn target(&self) -> i64 {
        if self.len == 0 { self.min_delay } else { self.playout - self.fastest }
    }

    fn review(&mut self) {
        self.forget_another_path();
        let mut sorted = [0; WINDOW];
        let transits = &mut sorted[..self.len];
        for (age, transit) in transits.iter_mut().enumerate() {
            *transit = self.transit(age);
        }
        let slow = self.len - 1 - self.len / TOLERATED;
        let (_, &mut slowest, _) = transits.select_nth_unstable(slow);
        self.fastest = transits.iter().copied().min().unwrap_or(self.fastest);
        self.desired = (slowest + MARGIN).clamp(self.fastest + self.min_delay, self.fastest + self.max_delay);
    }

    /// Returns the transit of the packet that came `age` packets before the latest; less than `len`.
    fn transit(&self, age: usize) -> i64 {
        self.transits[(self.at + WINDOW - 1 - age) % WINDOW]
    }

    /// Forgets the packets before a step of the path, or before what clocks apart have made of it.
    fn forget_another_path(&mut self) {
        if self.len < LATEST + BETWEEN + OLDER {
            return;
        }
        let range = |ages: std::ops::Range<usize>| {
            ages.fold((i64::MAX, i64::MIN), |(least, most), age| {
                (least.min(self.transit(age)), most.max(self.transit(age)))
            })
        };
        let (fastest, slowest) = range(0..LATEST);
        let older = range(LATEST + BETWEEN..LATEST + BETWEEN + OLDER);
        if older.0 > slowest || older.1 < fastest {
            let alike = |&age: &usize| (fastest..=slowest).contains(&self.transit(age));
            self.len = (LATEST..LATEST + BETWEEN).take_while(alike).last().map_or(LATEST, |age| age + 1);
        }
    }
}
