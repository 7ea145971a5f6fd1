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
    }

    /// Sets the offset, for a stream that plays already.
    pub(super) fn set_playout(&mut self, playout: i64) {
        self.playout = playout;
    }

    /// Takes in a packet's transit and says whether it can still be played at the offset, which
    /// grows at once if that helps.
    pub(super) fn observe(&mut self, now: i64, transit: i64) -> bool {
        if self.len == 0 {
            self.fastest = transit;
            self.playout = transit + self.min_delay;
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
