//! The jitter buffer: puts packets in order, holds them back just long enough, and tells loss,
//! lateness and silence apart.
//!
//! The consumer calls [`JitterBuffer::pop`] at every tick of its own clock, and again while it has
//! less than a tick of audio. What it gets is paced by timestamps, so packets of any length fit.

mod delay;
mod follow;
mod window;

use std::time::{Duration, Instant};

use call_model::Codec;

use crate::rtp::Unwrapper;
use delay::DelayEstimator;
pub(crate) use follow::COMMON_CLOCK_RATE;
use window::SeenWindow;

/// Packets held at most: 320 ms at 10 ms a packet.
const CAPACITY: usize = 32;
/// A jump of sequence numbers forward or back that ends the stream (RFC 3550 A.1).
const MAX_DROPOUT: i32 = 3_000;
const MAX_MISORDER: i32 = 100;
/// A change of transit time that no network explains, in microseconds.
const MAX_TRANSIT_CHANGE: i64 = 2_000_000;
/// This many packets in a row beyond the longest delay mean a slower path, not a spike.
const MAX_OVERDUE: u32 = 5;
/// An empty buffer is concealed this long, in microseconds; then the talkspurt counts as over.
const MAX_UNDERRUN: i64 = 60_000;
/// Playout that runs earlier than due by more than this, in microseconds, waits a tick.
const EARLY: i64 = 5_000;
/// Playout that would still be this late without a frame asks for a quiet one to be dropped.
const SURPLUS: i64 = 10_000;
/// Playout that would still be this late without a frame drops it, quiet or not.
const EXCESS: i64 = 40_000;
/// Pops between two frames dropped because of excess.
const DROP_INTERVAL: u32 = 10;

/// How a [`JitterBuffer`] works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JitterConfig {
    /// Clock of the timestamps in Hz, at least 1000.
    pub clock_rate: u32,
    /// The least a packet is held back.
    pub min_delay: Duration,
    /// The most a packet is held back.
    pub max_delay: Duration,
    /// The consumer's tick.
    pub tick: Duration,
    /// Longest payload kept, in octets.
    pub max_payload: usize,
}

impl JitterConfig {
    /// Returns the usual settings for G.711: payloads up to 80 ms.
    pub fn g711() -> Self {
        Self::with(8_000, 640)
    }

    /// Returns the usual settings for Opus.
    pub fn opus() -> Self {
        Self::with(48_000, crate::codec::opus::MAX_PACKET + 1)
    }

    /// Returns the usual settings for a codec.
    pub fn for_codec(codec: Codec) -> Self {
        match codec {
            Codec::Opus => Self::opus(),
            Codec::Pcmu | Codec::Pcma => Self::g711(),
        }
    }

    fn with(clock_rate: u32, max_payload: usize) -> Self {
        Self {
            clock_rate,
            min_delay: Duration::from_millis(20),
            max_delay: Duration::from_millis(200),
            tick: Duration::from_millis(20),
            max_payload,
        }
    }
}

/// What the buffer needs to know of a packet besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its source.
    pub ssrc: u32,
    /// Its sequence number.
    pub sequence: u16,
    /// Its timestamp.
    pub timestamp: u32,
    /// Its marker bit.
    pub marker: bool,
    /// The audio in it, in ticks; 0 if unknown, which means as much as in the one before.
    pub duration: u32,
    /// Whether it is DTX or comfort noise: nothing following it is then no loss.
    pub silence: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It waits for its turn.
    Queued,
    /// Its number was there before.
    Duplicate,
    /// Its time has passed.
    Late,
    /// Newer packets fill the buffer.
    Overflow,
    /// Its payload is longer than configured.
    TooLarge,
    /// It does not continue the stream; it is kept until a second packet confirms it.
    Probation,
    /// It waits for its turn in a stream that started over with it or the one before.
    Restarted,
}

/// What to play next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A packet.
    Packet {
        /// Its payload.
        payload: &'a [u8],
        /// Its RTP timestamp.
        timestamp: u32,
        /// The audio in it, in ticks; 0 if it was never known.
        duration: u32,
        /// Its marker bit.
        marker: bool,
        /// Whether it is DTX or comfort noise.
        silence: bool,
        /// The delay is above its target: if this decodes to near silence, drop it and pop again.
        surplus: bool,
    },
    /// A packet is missing.
    Lost {
        /// The audio to make up, in ticks.
        duration: u32,
        /// The packet straight after the gap, if it is there: it may carry FEC. It will be
        /// popped in its turn all the same.
        next: Option<&'a [u8]>,
    },
    /// The sender paused: comfort noise.
    Silence {
        /// The audio to make up, in ticks.
        duration: u32,
    },
    /// The delay grows in mid-talkspurt: stretch what was heard by one tick.
    Wait,
    /// Nothing is being received: comfort noise for one tick.
    Empty,
}

/// Counts since the buffer was built. Every packet received is, in the end, exactly one of
/// played, late, discarded or duplicate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitterCounters {
    /// Packets inserted.
    pub received: u64,
    /// Packets popped.
    pub played: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came after their time.
    pub late: u64,
    /// Packets dropped by the buffer: too large, overflow, excess delay, unconfirmed or
    /// outdated by a restart.
    pub discarded: u64,
    /// Packets that had come before.
    pub duplicates: u64,
    /// Times the stream started over: another SSRC, a jump, a slower path.
    pub restarts: u64,
    /// Ticks by which playout was stretched.
    pub waits: u64,
}

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

/// A jitter buffer for one direction of one leg. Allocates only when built.
#[derive(Debug)]
pub struct JitterBuffer {
    config: JitterConfig,
    epoch: Option<Instant>,
    slots: [Slot; CAPACITY],
    /// `CAPACITY` payloads, and one more for the packet on probation.
    payloads: Box<[u8]>,
    ssrc: Option<u32>,
    sequences: Unwrapper<16>,
    timestamps: Unwrapper<32>,
    /// Timestamp that transit times count from.
    origin: u64,
    seen: SeenWindow,
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
            payloads: vec![0; (CAPACITY + 1) * config.max_payload].into_boxed_slice(),
            ssrc: None,
            sequences: Unwrapper::default(),
            timestamps: Unwrapper::default(),
            origin: 0,
            seen: SeenWindow::default(),
            probation: None,
            delay: DelayEstimator::new(min_delay, max_delay),
            overdue: 0,
            cursor: None,
            playing: false,
            last_duration: 0,
            last_silence: false,
            underrun: 0,
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
        if self.ssrc.is_none() {
            self.ssrc = Some(arrival.ssrc);
            return self.enqueue(at, arrival, payload);
        }
        if self.continues(at, &arrival) {
            if self.probation.take().is_some() {
                self.counters.discarded += 1;
            }
            return self.enqueue(at, arrival, payload);
        }
        // Another source, or a jump: believed once two packets in a row agree (RFC 3550 A.1).
        let spare = CAPACITY * self.config.max_payload;
        match self.probation.take() {
            Some((first, first_at, len)) if follows(&first, &arrival) => {
                self.restart();
                self.ssrc = Some(arrival.ssrc);
                // The payload moves from the spare place to its own.
                self.enqueue_from(first_at, first, spare, len);
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
                self.payloads[spare..spare + payload.len()].copy_from_slice(payload);
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

    /// Returns what to play at the tick `now`: its nominal time, so that a late call of the
    /// consumer does not look like jitter.
    pub fn pop(&mut self, now: Instant) -> Frame<'_> {
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
            if first_of_tick && lag < -EARLY {
                if self.last_silence {
                    return Frame::Silence { duration: self.tick() };
                }
                // What is missing gets a second chance, for a while.
                if head.is_none() && self.out_of_patience() {
                    return Frame::Empty;
                }
                self.counters.waits += 1;
                return Frame::Wait;
            }
            let Some(index) = head else { return self.underrun(cursor) };
            let slot = self.slots[index];
            let duration = self.duration_of(&slot);
            if slot.timestamp + u64::from(duration.max(1)) <= cursor.timestamp {
                // Its time was filled otherwise: overlapping timestamps.
                self.slots[index].occupied = false;
                self.counters.discarded += 1;
                self.pass(slot.sequence + 1);
                continue;
            }
            let gap = slot.timestamp.saturating_sub(cursor.timestamp);
            let missing = self.seen.missing(cursor.sequence, slot.sequence);
            if gap > 0 && missing > 0 && !self.last_silence {
                let usual = if self.last_duration > 0 { self.last_duration } else { duration };
                let made_up = if usual == 0 { self.tick() } else { usual }.min(clamp_u32(gap));
                cursor.timestamp += u64::from(made_up);
                cursor.sequence = self.seen.first_missing(cursor.sequence, slot.sequence) + 1;
                self.cursor = Some(cursor);
                self.counters.lost += 1;
                let next = (u64::from(made_up) == gap).then(|| self.payload(index, slot.len));
                return Frame::Lost { duration: made_up, next };
            }
            if gap > 0 && lag < SURPLUS {
                let made_up = self.tick().min(clamp_u32(gap));
                cursor.timestamp += u64::from(made_up);
                self.cursor = Some(cursor);
                return Frame::Silence { duration: made_up };
            }
            // Its turn; silence before it is cut short when playout lags.
            self.slots[index].occupied = false;
            self.pass(slot.sequence + 1);
            if let Some(cursor) = &mut self.cursor {
                cursor.timestamp = slot.timestamp + u64::from(duration);
            }
            let spare = lag - self.span(duration);
            if spare > EXCESS && self.head().is_some() && self.pops_since_drop > DROP_INTERVAL {
                self.pops_since_drop = 0;
                self.counters.discarded += 1;
                continue;
            }
            self.counters.played += 1;
            self.underrun = 0;
            self.last_duration = duration;
            self.last_silence = slot.silence;
            return Frame::Packet {
                payload: self.payload(index, slot.len),
                timestamp: slot.timestamp as u32,
                duration,
                marker: slot.marker,
                silence: slot.silence,
                surplus: spare > SURPLUS,
            };
        }
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
        self.delay.is_empty() || (transit - self.delay.playout()).abs() <= MAX_TRANSIT_CHANGE
    }

    fn sequence_jump(&self, sequence: u16) -> bool {
        let Some(highest) = self.sequences.highest() else { return false };
        let ahead = i32::from(sequence.wrapping_sub(highest as u16).cast_signed());
        !(-MAX_MISORDER..=MAX_DROPOUT).contains(&ahead)
    }

    fn enqueue(&mut self, at: i64, arrival: Arrival, payload: &[u8]) -> Inserted {
        match self.admit(at, &arrival, payload.len()) {
            Ok(index) => {
                let start = index * self.config.max_payload;
                self.payloads[start..start + payload.len()].copy_from_slice(payload);
                Inserted::Queued
            }
            Err(refused) => refused,
        }
    }

    fn enqueue_from(&mut self, at: i64, arrival: Arrival, from: usize, len: usize) {
        if let Ok(index) = self.admit(at, &arrival, len) {
            self.payloads.copy_within(from..from + len, index * self.config.max_payload);
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
        let on_time = self.delay.observe(at, at - self.media_micros(timestamp));
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
                if passed && sequence >= cursor.first_sequence {
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
        cursor.timestamp += u64::from(duration);
        self.cursor = Some(cursor);
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
            self.counters.lost += self.seen.missing(cursor.sequence, sequence);
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
        self.delay.clear();
        self.overdue = 0;
        self.cursor = None;
        self.playing = false;
        self.last_duration = 0;
        self.last_silence = false;
        self.underrun = 0;
    }

    /// Returns the slot of the lowest sequence number.
    fn head(&self) -> Option<usize> {
        let occupied = self.slots.iter().enumerate().filter(|(_, slot)| slot.occupied);
        occupied.min_by_key(|(_, slot)| slot.sequence).map(|(index, _)| index)
    }

    fn payload(&self, index: usize, len: usize) -> &[u8] {
        let start = index * self.config.max_payload;
        &self.payloads[start..start + len]
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

fn clamp_u32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
