//! The jitter buffer: puts packets in order, holds them back just long enough, and tells loss,
//! lateness and silence apart.
//!
//! The consumer calls [`JitterBuffer::pop`] at every tick of its own clock, and again while it has
//! less than a tick of audio. What it gets is paced by timestamps, so packets of any length fit. Where the delay is
//! to change, [`TimeScaler`] makes what was decoded a little longer or shorter.

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

pub use stretch::{Pace, TimeScaler};
pub use types::{Arrival, Frame, Inserted, JitterConfig, JitterCounters};

/// Packets held at most: 320 ms at 10 ms a packet.
const CAPACITY: usize = 32;
/// A jump of sequence numbers forward or back that ends the stream (RFC 3550 A.1).
const MAX_DROPOUT: i32 = 3_000;
const MAX_MISORDER: i32 = 100;
/// A change of transit time that no network explains, in microseconds.
const MAX_TRANSIT_CHANGE: i64 = 2_000_000;
/// A packet faster than any by this much has another clock in its timestamp, in microseconds.
const MAX_ADVANCE: i64 = 250_000;
/// A packet further back than [`MAX_MISORDER`] and up to here is late, if its timestamp is as old as its number ...
const MAX_LATE: i32 = 3_000;
/// ... and the stream it belongs to goes on: its newest packet came this short a time ago, in microseconds.
const ALIVE: i64 = 200_000;
/// Time that one number may stand for at most, and the pauses between late packets together, in microseconds.
const MAX_PACKET: i64 = 120_000;
const MAX_PAUSES: i64 = 60_000_000;
/// This many packets in a row beyond the longest delay mean a slower path, not a spike.
const MAX_OVERDUE: u32 = 5;
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

    /// Takes in a packet that arrived at `now`.
    pub fn insert(&mut self, now: Instant, arrival: Arrival, payload: &[u8]) -> Inserted {
        self.counters.received += 1;
        let at = self.micros(now);
        if payload.len() > self.config.max_payload {
            self.mark(arrival.ssrc, arrival.sequence);
            self.counters.discarded += 1;
            return Inserted::TooLarge;
        }
        self.payloads.make_room(payload.len());
        if self.ssrc.is_none() {
            self.ssrc = Some(arrival.ssrc);
            return self.enqueue(at, arrival, payload);
        }
        if self.is_of_long_ago(at, &arrival) {
            return self.too_late(arrival.sequence);
        }
        if self.continues(at, &arrival) {
            if self.probation.take().is_some() {
                self.counters.discarded += 1;
            }
            return self.enqueue(at, arrival, payload);
        }
        // Another source, or a jump: believed once two packets in a row agree (RFC 3550 A.1).
        match self.probation.take() {
            Some((first, first_at, len)) if follows(&first, &arrival) => {
                self.restart();
                self.ssrc = Some(arrival.ssrc);
                // The payload moves from the spare place to its own.
                self.enqueue_from(first_at, first, CAPACITY, len);
                self.enqueue(at, arrival, payload);
                Inserted::Restarted
            }
            Some((first, ..)) if (first.ssrc, first.sequence) == (arrival.ssrc, arrival.sequence) => {
                self.probation = Some((arrival, at, payload.len()));
                self.counters.duplicates += 1;
                Inserted::Duplicate
            }
            other => {
                if other.is_some() {
                    self.counters.discarded += 1;
                }
                self.payloads.put(CAPACITY, payload);
                self.probation = Some((arrival, at, payload.len()));
                Inserted::Probation
            }
        }
    }

    /// Notes a packet of the stream that carries no audio, such as a telephone-event, so that its
    /// number is not taken for a loss.
    pub fn mark(&mut self, ssrc: u32, sequence: u16) {
        if self.ssrc != Some(ssrc) || self.sequence_jump(sequence) {
            return;
        }
        let extended = self.sequences.extend(u32::from(sequence));
        if !self.seen.insert(extended) {
            return;
        }
        if self.cursor.is_some_and(|c| (c.first_sequence..c.sequence).contains(&extended)) {
            self.counters.lost = self.counters.lost.saturating_sub(1);
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
                self.counters.discarded += 1;
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
                self.counters.discarded += 1;
                self.pattern.missed(1);
                continue;
            }
            self.counters.played += 1;
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

    /// Says whether a packet continues the present stream.
    fn continues(&self, at: i64, arrival: &Arrival) -> bool {
        if self.ssrc != Some(arrival.ssrc) || self.sequence_jump(arrival.sequence) {
            return false;
        }
        let timestamp = self.timestamps.peek(arrival.timestamp);
        let transit = at - self.media_micros(timestamp);
        if self.delay.is_empty() {
            return true;
        }
        // What follows in number and lies before in time, or is faster than the path ever was, has another clock.
        let backwards = self.newest.is_some_and(|(newest, _)| {
            let ahead =
                self.sequences.peek(u32::from(arrival.sequence)) > self.sequences.highest().unwrap_or(0);
            ahead && self.media_micros(timestamp) < self.media_micros(newest) - MAX_PACKET
        });
        let advance = self.delay.fastest() - transit;
        !backwards && advance <= MAX_ADVANCE && transit - self.delay.playout() <= MAX_TRANSIT_CHANGE
    }

    /// Says whether a packet was held up so long that its number alone could be taken for a new beginning.
    fn is_of_long_ago(&self, at: i64, arrival: &Arrival) -> bool {
        let (Some((newest, came)), Some(highest)) = (self.newest, self.sequences.highest()) else {
            return false;
        };
        let back = -i32::from(arrival.sequence.wrapping_sub(highest as u16).cast_signed());
        if self.ssrc != Some(arrival.ssrc)
            || !(MAX_MISORDER + 1..=MAX_LATE).contains(&back)
            || at - came > ALIVE
        {
            return false;
        }
        let age = self.media_micros(newest) - self.media_micros(self.timestamps.peek(arrival.timestamp));
        let numbers = i64::from(back);
        (numbers * 1_000..=numbers * MAX_PACKET + MAX_PAUSES).contains(&age)
    }

    /// Counts a packet of long ago.
    fn too_late(&mut self, sequence: u16) -> Inserted {
        let sequence = self.sequences.peek(u32::from(sequence));
        if !self.seen.insert(sequence) {
            self.counters.duplicates += 1;
            return Inserted::Duplicate;
        }
        if self.cursor.is_some_and(|c| (c.first_sequence..c.sequence).contains(&sequence)) {
            self.counters.lost = self.counters.lost.saturating_sub(1);
        }
        self.counters.late += 1;
        Inserted::Late
    }

    fn sequence_jump(&self, sequence: u16) -> bool {
        let Some(highest) = self.sequences.highest() else { return false };
        let ahead = i32::from(sequence.wrapping_sub(highest as u16).cast_signed());
        !(-MAX_MISORDER..=MAX_DROPOUT).contains(&ahead)
    }

    fn enqueue(&mut self, at: i64, arrival: Arrival, payload: &[u8]) -> Inserted {
        match self.admit(at, &arrival, payload.len()) {
            Ok(index) => {
                self.payloads.put(index, payload);
                Inserted::Queued
            }
            Err(refused) => refused,
        }
    }

    fn enqueue_from(&mut self, at: i64, arrival: Arrival, from: usize, len: usize) {
        if let Ok(index) = self.admit(at, &arrival, len) {
            self.payloads.copy(from, index, len);
        }
    }

    /// Finds a packet's slot, or the reason why there is none for it, and counts.
    fn admit(&mut self, at: i64, arrival: &Arrival, len: usize) -> Result<usize, Inserted> {
        let first = self.sequences.highest().is_none();
        let sequence = self.sequences.extend(u32::from(arrival.sequence));
        let timestamp = self.timestamps.extend(arrival.timestamp);
        if first {
            self.origin = timestamp;
        }
        if !self.seen.insert(sequence) {
            self.counters.duplicates += 1;
            return Err(Inserted::Duplicate);
        }
        if self.sequences.highest() == Some(sequence) {
            self.newest = Some((timestamp, at));
        }
        let on_time = self.delay.observe(at, at - self.media_micros(timestamp));
        self.target_max = self.target_max.max(self.delay.target());
        self.overdue = if on_time { 0 } else { self.overdue + 1 };
        if self.overdue >= MAX_OVERDUE || (!on_time && arrival.marker && !self.playing) {
            self.overdue = 0;
            self.delay.clear();
            self.delay.observe(at, at - self.media_micros(timestamp));
            self.playing = false;
            self.counters.restarts += 1;
        }
        let slot = Slot {
            occupied: true,
            sequence,
            timestamp,
            duration: arrival.duration,
            len,
            marker: arrival.marker,
            silence: arrival.silence,
        };
        if let Some(cursor) = self.cursor {
            let passed = sequence < cursor.sequence;
            let end = timestamp + u64::from(self.duration_of(&slot).max(1));
            if passed || end <= cursor.timestamp {
                if !passed {
                    self.pattern.missed(1);
                } else if sequence >= cursor.first_sequence {
                    self.counters.lost = self.counters.lost.saturating_sub(1);
                }
                self.counters.late += 1;
                return Err(Inserted::Late);
            }
        }
        let index = (sequence % CAPACITY as u64) as usize;
        let present = &self.slots[index];
        if present.occupied {
            self.counters.discarded += 1;
            if present.sequence > sequence {
                return Err(Inserted::Overflow);
            }
        }
        self.slots[index] = slot;
        Ok(index)
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
                    self.counters.discarded += 1;
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
        self.counters.discarded += self.queued() as u64;
        self.counters.restarts += 1;
        self.slots = [Slot::default(); CAPACITY];
        self.sequences = Unwrapper::default();
        self.timestamps = Unwrapper::default();
        self.seen = SeenWindow::default();
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

/// Says whether `second` comes straight after `first` in one stream.
fn follows(first: &Arrival, second: &Arrival) -> bool {
    first.ssrc == second.ssrc && first.sequence.wrapping_add(1) == second.sequence
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
