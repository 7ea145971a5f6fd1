//! The jitter buffer: puts packets in order, holds them back just long enough, and tells loss,
//! lateness and silence apart.
//!
//! The consumer calls [`JitterBuffer::pop`] at every tick of its own clock, and again while it has
//! less than a tick of audio. What it gets is paced by timestamps, so packets of any length fit. Where the delay is
//! to change, [`TimeScaler`] makes what was decoded a little longer or shorter.

mod arrivals;
mod copies;
mod delay;
mod follow;
mod payloads;
mod stretch;
mod types;
mod window;

use std::time::{Duration, Instant};

use crate::rtp::{LossPattern, Unwrapper};
use delay::DelayEstimator;
pub(crate) use follow::COMMON_CLOCK_RATE;
use payloads::Payloads;
use window::SeenWindow;

pub use copies::{Copied, FrameCopy};
pub use stretch::{Pace, TimeScaler};
pub use types::{Arrival, Frame, Inserted, JitterConfig, JitterCounters};

/// Packets held at most: 320 ms at 10 ms a packet.
const CAPACITY: usize = 32;
/// An empty buffer is concealed this long, in microseconds; then the talkspurt counts as over.
const MAX_UNDERRUN: i64 = 60_000;
/// Playout that is later than due by more than this begins with a later frame, and cuts silence short.
const SURPLUS: i64 = 10_000;
/// Playout that is later than due by less than this, in microseconds, is slowed down: the offset has grown.
const SCANT: i64 = 1_000;
/// Playout that is to be later than due by this still is not hurried: an offset that moves to and fro does not move
/// the sound.
const SLACK: i64 = 4_000;
/// Less than this is not worth a cut.
const LEAST_CUT: i64 = 5_000;
/// Playout that is too late by more than this drops a frame, quiet or not: nothing was found to shorten.
const EXCESS: i64 = 100_000;
/// Pops between two frames dropped because of excess.
const DROP_INTERVAL: u32 = 10;
/// Packets over which the place of a packet within the tick comes round again.
const LAGS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    occupied: bool,
    sequence: u64,
    timestamp: u64,
    duration: u32,
    len: usize,
    marker: bool,
    silence: bool,
    /// Not the packet itself: it has not come.
    is_copy: bool,
}

/// A jitter buffer for one direction of one leg. Allocates when built, and when packets grow longer than any before.
#[derive(Debug)]
pub struct JitterBuffer {
    config: JitterConfig,
    epoch: Option<Instant>,
    slots: [Slot; CAPACITY],
    /// `CAPACITY` payloads, and one more for the packet on probation.
    payloads: Payloads,
    ssrc: Option<u32>,
    sequences: Unwrapper<16>,
    timestamps: Unwrapper<32>,
    /// Timestamp that transit times count from.
    origin: u64,
    seen: SeenWindow,
    /// Numbers of which a copy has come and the packet has not.
    copied: SeenWindow,
    /// The highest number: its timestamp, and when it came.
    newest: Option<(u64, i64)>,
    /// What was heard and what was not.
    pattern: LossPattern,
    target_max: i64,
    probation: Option<(Arrival, i64, usize)>,
    delay: DelayEstimator,
    overdue: u32,
    /// Next sequence number and timestamp to play; `None` until something was.
    cursor: Option<Cursor>,
    playing: bool,
    last_duration: u32,
    last_silence: bool,
    /// Concealed since the last packet because the buffer was empty, in microseconds.
    underrun: i64,
    /// The same in ticks, as far as it has not turned out what it stands for: a packet that is late, or one
    /// that is lost.
    owed: u64,
    /// The delay is below its target and not yet made up for.
    growing: bool,
    /// How late the latest packets were taken, in microseconds.
    lags: [i64; LAGS],
    fixed: bool,
    last_pop: Option<Instant>,
    pops_since_drop: u32,
    counters: JitterCounters,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    first_sequence: u64,
    sequence: u64,
    timestamp: u64,
}

impl JitterBuffer {
    /// Builds an empty buffer.
    pub fn new(config: JitterConfig) -> Self {
        let min_delay = config.min_delay.as_micros() as i64;
        let max_delay = (config.max_delay.as_micros() as i64).max(min_delay);
        Self {
            config,
            epoch: None,
            slots: [Slot::default(); CAPACITY],
            payloads: Payloads::new(CAPACITY + 1, config.max_payload),
            ssrc: None,
            sequences: Unwrapper::default(),
            timestamps: Unwrapper::default(),
            origin: 0,
            seen: SeenWindow::default(),
            copied: SeenWindow::default(),
            newest: None,
            pattern: LossPattern::default(),
            target_max: 0,
            probation: None,
            delay: DelayEstimator::new(min_delay, max_delay),
            overdue: 0,
            cursor: None,
            playing: false,
            last_duration: 0,
            last_silence: false,
            underrun: 0,
            owed: 0,
            growing: false,
            lags: [0; LAGS],
            fixed: false,
            last_pop: None,
            pops_since_drop: DROP_INTERVAL,
            counters: JitterCounters::default(),
        }
    }

    /// Holds packets back by a delay that no longer follows the network: at least this long, within the limits of
    /// the configuration. Nothing is stretched or dropped then, and playout goes on under what is lost, as fax and
    /// modems need it (ITU-T V.152 6.1). If the delay has to grow for it, it does so once, by silence. `None` follows the network
    /// again.
    pub fn set_fixed(&mut self, delay: Option<Duration>) {
        self.delay.set_fixed(delay.map(|delay| delay.as_micros().min(i64::MAX as u128) as i64));
        self.fixed = delay.is_some();
    }

    /// Returns what to play at the tick `now`: its nominal time, so that a late call of the
    /// consumer does not look like jitter. `stored` is the audio that the consumer still has, in ticks of
    /// the timestamp's clock; less than a tick of its own.
    pub fn pop(&mut self, now: Instant, stored: u32) -> Frame<'_> {
        let at = self.micros(now);
        let first_of_tick = self.last_pop.replace(now) != Some(now);
        self.pops_since_drop = self.pops_since_drop.saturating_add(1);
        if !self.playing && !self.start(at) {
            return Frame::Empty;
        }
        loop {
            let Some(mut cursor) = self.cursor else { return Frame::Empty };
            let lag = at - self.due(cursor.timestamp);
            let head = self.head();
            if first_of_tick {
                self.growing = lag < SCANT && (!self.fixed || lag < -SLACK);
                if self.growing && (self.last_silence || self.fixed) {
                    return Frame::Silence { duration: self.tick() };
                }
            }
            let Some(index) = head else { return self.underrun(cursor) };
            let slot = self.slots[index];
            let duration = self.duration_of(&slot);
            if slot.timestamp + u64::from(duration.max(1)) <= cursor.timestamp {
                // Its time was filled otherwise: overlapping timestamps.
                self.slots[index].occupied = false;
                self.count_given_up(&slot);
                self.pattern.missed(1);
                self.pass(slot.sequence + 1);
                continue;
            }
            let gap = slot.timestamp.saturating_sub(cursor.timestamp);
            if self.owed > 0 {
                // What was made up was for what is missing; or it was for this one, which is played after it.
                self.counters.waits += u64::from(gap == 0);
                cursor.timestamp += std::mem::take(&mut self.owed).min(gap);
                self.cursor = Some(cursor);
                continue;
            }
            let missing = self.seen.missing(cursor.sequence, slot.sequence);
            if gap > 0 && missing > 0 && !self.last_silence {
                let usual = if self.last_duration > 0 { self.last_duration } else { duration };
                let made_up = if usual == 0 { self.tick() } else { usual }.min(clamp_u32(gap));
                cursor.timestamp += u64::from(made_up);
                cursor.sequence = self.seen.first_missing(cursor.sequence, slot.sequence) + 1;
                self.cursor = Some(cursor);
                self.counters.lost += 1;
                self.pattern.missed(1);
                let next = (u64::from(made_up) == gap).then(|| self.payload(index, slot.len));
                return Frame::Lost { duration: made_up, next };
            }
            if gap > 0 && lag >= SURPLUS && !self.fixed {
                // Silence is cut short when playout lags.
                cursor.timestamp += self.ticks(lag).clamp(1, gap);
                self.cursor = Some(cursor);
                continue;
            }
            if gap > 0 {
                let made_up = self.tick().min(clamp_u32(gap));
                cursor.timestamp += u64::from(made_up);
                self.cursor = Some(cursor);
                return Frame::Silence { duration: made_up };
            }
            self.slots[index].occupied = false;
            self.pass(slot.sequence + 1);
            if let Some(cursor) = &mut self.cursor {
                cursor.timestamp = slot.timestamp + u64::from(duration);
            }
            let pace = self.pace(lag, stored, duration);
            if matches!(pace, Pace::Shorten(by) if by.as_micros() as i64 > EXCESS)
                && self.head().is_some()
                && self.pops_since_drop > DROP_INTERVAL
            {
                self.pops_since_drop = 0;
                self.count_given_up(&slot);
                self.pattern.missed(1);
                continue;
            }
            self.count_played(&slot);
            self.pattern.heard();
            self.underrun = 0;
            self.last_duration = duration;
            self.last_silence = slot.silence;
            return Frame::Packet {
                payload: self.payload(index, slot.len),
                timestamp: slot.timestamp as u32,
                duration,
                marker: slot.marker,
                silence: slot.silence,
                pace,
            };
        }
    }

    /// Returns the next packet that waits, and the ticks that are missing between what was popped last and it:
    /// redundancy that reaches back further than one frame may fill them.
    pub fn ahead(&self) -> Option<(u32, &[u8])> {
        let cursor = self.cursor?;
        let slot = &self.slots[self.head()?];
        let gap = clamp_u32(slot.timestamp.saturating_sub(cursor.timestamp));
        Some((gap, self.payload(self.head()?, slot.len)))
    }

    /// Returns how the packet that is taken `lag` after it was due should be played.
    ///
    /// A packet is taken at a tick, so the delay that can be saved comes in steps of `step`, the greatest common
    /// divisor of packet and tick; and what the consumer has stored beyond those steps can be saved at any time.
    fn pace(&mut self, lag: i64, stored: u32, duration: u32) -> Pace {
        self.lags.rotate_left(1);
        self.lags[LAGS - 1] = lag;
        if self.fixed {
            return Pace::Keep;
        }
        let step = greatest_common_divisor(duration.max(1), self.tick());
        let (beyond, step) = (self.span(stored % step), self.span(step).max(1));
        if self.growing {
            let missing = (SCANT - lag).max(1);
            let by = (missing + step - 1) / step * step - beyond;
            return Pace::Stretch(Duration::from_micros(by.max(1) as u64));
        }
        let earliest = self.lags.iter().copied().min().unwrap_or(0);
        let surplus = beyond + (earliest - SLACK).max(0) / step * step;
        if surplus < LEAST_CUT { Pace::Keep } else { Pace::Shorten(Duration::from_micros(surplus as u64)) }
    }

    /// Forgets the stream, for another; the counters stay.
    pub fn reset(&mut self) {
        if self.probation.take().is_some() {
            self.counters.discarded += 1;
        }
        self.restart();
        self.counters.restarts -= 1;
        self.ssrc = None;
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> JitterCounters {
        self.counters
    }

    /// Returns how long the fastest packets are held back at present.
    pub fn target_delay(&self) -> Duration {
        Duration::from_micros(self.delay.target().max(0) as u64)
    }

    /// Returns the most that [`target_delay`](Self::target_delay) ever was.
    pub fn longest_delay(&self) -> Duration {
        Duration::from_micros(self.target_max.max(0) as u64)
    }

    /// Returns the audio in the last packet that was played; zero before the first.
    pub fn packet_time(&self) -> Duration {
        Duration::from_micros(self.span(self.last_duration).max(0) as u64)
    }

    /// Returns how it works.
    pub fn config(&self) -> &JitterConfig {
        &self.config
    }

    /// Returns how what was not heard, lost or discarded, lies in the stream.
    pub fn pattern(&self) -> &LossPattern {
        &self.pattern
    }

    /// Returns the number of packets waiting.
    pub fn queued(&self) -> usize {
        self.slots.iter().filter(|slot| slot.occupied).count()
    }

    /// Begins to play once the first packet is due. Says whether it did.
    fn start(&mut self, at: i64) -> bool {
        let Some(mut index) = self.head() else { return false };
        let early = |buffer: &Self, index: usize| buffer.due(buffer.slots[index].timestamp) > at;
        if early(self, index) {
            return false;
        }
        // After a stall much may be overdue: begin with what is due now.
        while at - self.due(self.slots[index].timestamp) > SURPLUS + self.span(self.slots[index].duration) {
            self.slots[index].occupied = false;
            match self.head() {
                Some(next) if !early(self, next) => {
                    let slot = self.slots[index];
                    self.count_given_up(&slot);
                    self.pattern.missed(1);
                    index = next;
                }
                _ => {
                    self.slots[index].occupied = true;
                    break;
                }
            }
        }
        let slot = self.slots[index];
        match &mut self.cursor {
            Some(cursor) => {
                let timestamp = cursor.timestamp.max(slot.timestamp);
                self.pass(slot.sequence);
                if let Some(cursor) = &mut self.cursor {
                    cursor.timestamp = timestamp;
                }
            }
            None => {
                let sequence = slot.sequence;
                self.cursor = Some(Cursor { first_sequence: sequence, sequence, timestamp: slot.timestamp });
            }
        }
        self.playing = true;
        self.last_silence = false;
        self.underrun = 0;
        self.owed = 0;
        self.growing = false;
        self.lags = [0; LAGS];
        true
    }

    /// Nothing is there to play although it is time.
    fn underrun(&mut self, mut cursor: Cursor) -> Frame<'_> {
        if self.last_silence || self.out_of_patience() {
            self.playing = false;
            return Frame::Empty;
        }
        let tick = self.tick();
        let duration = if self.last_duration == 0 { tick } else { self.last_duration.min(tick) };
        if self.fixed {
            cursor.timestamp += u64::from(duration);
            self.cursor = Some(cursor);
        } else {
            self.owed += u64::from(duration);
        }
        self.underrun += self.span(duration);
        Frame::Lost { duration, next: None }
    }

    /// Says whether the buffer has been empty for too long, and ends the talkspurt if so.
    fn out_of_patience(&mut self) -> bool {
        if self.underrun >= MAX_UNDERRUN {
            self.playing = false;
        }
        !self.playing
    }

    /// Moves on to `sequence` and counts what never came before it.
    fn pass(&mut self, sequence: u64) {
        if let Some(cursor) = &mut self.cursor
            && sequence > cursor.sequence
        {
            let missing = self.seen.missing(cursor.sequence, sequence);
            self.counters.lost += missing;
            self.pattern.missed(missing);
            cursor.sequence = sequence;
        }
    }

    fn restart(&mut self) {
        let waiting = std::mem::replace(&mut self.slots, [Slot::default(); CAPACITY]);
        waiting.iter().filter(|slot| slot.occupied).for_each(|slot| self.count_given_up(slot));
        self.counters.restarts += 1;
        self.sequences = Unwrapper::default();
        self.timestamps = Unwrapper::default();
        self.seen = SeenWindow::default();
        self.copied = SeenWindow::default();
        self.newest = None;
        self.delay.clear();
        self.overdue = 0;
        self.cursor = None;
        self.playing = false;
        self.last_duration = 0;
        self.last_silence = false;
        self.underrun = 0;
        self.owed = 0;
        self.growing = false;
        self.lags = [0; LAGS];
    }

    /// Returns the slot of the lowest sequence number.
    fn head(&self) -> Option<usize> {
        let occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.occupied);
        occupied.min_by_key(|(_, slot)| slot.sequence).map(|(index, _)| index)
    }

    fn payload(&self, index: usize, len: usize) -> &[u8] {
        self.payloads.get(index, len)
    }

    fn duration_of(&self, slot: &Slot) -> u32 {
        // What no packet can hold is not believed: a second at most.
        let duration = if slot.duration > 0 { slot.duration } else { self.last_duration };
        duration.min(self.config.clock_rate)
    }

    /// Returns a tick in units of the timestamp.
    fn tick(&self) -> u32 {
        (self.config.tick.as_micros() as u64 * u64::from(self.config.clock_rate) / 1_000_000).max(1) as u32
    }

    /// Returns a duration in microseconds.
    fn span(&self, ticks: u32) -> i64 {
        i64::from(ticks) * 1_000_000 / i64::from(self.config.clock_rate.max(1))
    }

    /// Returns a time in microseconds, not below 0, in ticks of the timestamp.
    fn ticks(&self, micros: i64) -> u64 {
        (i128::from(micros.max(0)) * i128::from(self.config.clock_rate) / 1_000_000) as u64
    }

    fn due(&self, timestamp: u64) -> i64 {
        self.media_micros(timestamp) + self.delay.playout()
    }

    fn media_micros(&self, timestamp: u64) -> i64 {
        let ticks = timestamp.wrapping_sub(self.origin).cast_signed();
        let micros = i128::from(ticks) * 1_000_000 / i128::from(self.config.clock_rate.max(1));
        micros as i64
    }

    fn micros(&mut self, now: Instant) -> i64 {
        let epoch = *self.epoch.get_or_insert(now);
        now.saturating_duration_since(epoch).as_micros() as i64
    }
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn clamp_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
