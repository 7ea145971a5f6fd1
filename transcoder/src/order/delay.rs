//! How long to hold packets back: the delay that nearly all of the last few hundred would have met.

/// Packets remembered: ten seconds at 20 ms.
const WINDOW: usize = 512;
/// One packet in this many may be later than the target.
const TOLERATED: usize = 100;
/// Held on top of the slowest packet, in microseconds.
const MARGIN: i64 = 5_000;
/// The target shrinks by at most 1/50 of the time that passes: 20 ms a second.
const SHRINK: i64 = 50;
/// Packets between two looks at the whole window.
const REVIEW: usize = 8;

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
            fixed: None,
        }
    }

    /// Starts over: the next packet alone sets the offset.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.at = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Holds packets back for `delay` at least, and for as long whatever comes, or follows what comes again.
    pub(super) fn set_fixed(&mut self, delay: Option<i64>) {
        self.fixed = delay.map(|delay| delay.max(self.target()).min(self.max_delay));
        if let Some(fixed) = self.fixed {
            self.playout = self.fastest + fixed;
        }
    }

    pub(super) fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// Takes in a packet's transit and says whether it can still be played at the offset, which
    /// grows at once if that helps.
    pub(super) fn observe(&mut self, now: i64, transit: i64) -> bool {
        if self.len == 0 {
            self.fastest = transit;
            self.playout = transit + self.fixed.unwrap_or(self.min_delay);
            self.desired = self.playout;
            self.shrunk_at = now;
        }
        self.transits[self.at] = transit;
        self.at = (self.at + 1) % WINDOW;
        self.len = (self.len + 1).min(WINDOW);
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

    /// Returns the offset: a sample is due at its timestamp plus this.
    pub(super) fn playout(&self) -> i64 {
        self.playout
    }

    /// Returns how long the fastest packet is held back.
    pub(super) fn target(&self) -> i64 {
        if self.len == 0 { self.min_delay } else { self.playout - self.fastest }
    }

    fn review(&mut self) {
        let mut sorted = [0; WINDOW];
        let transits = &mut sorted[..self.len];
        transits.copy_from_slice(&self.transits[..self.len]);
        let slow = self.len - 1 - self.len / TOLERATED;
        let (_, &mut slowest, _) = transits.select_nth_unstable(slow);
        self.fastest = transits.iter().copied().min().unwrap_or(self.fastest);
        self.desired = (slowest + MARGIN).clamp(self.fastest + self.min_delay, self.fastest + self.max_delay);
    }
}
