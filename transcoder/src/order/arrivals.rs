//! What comes in: whether it is of the stream, and where it waits.

use std::time::Instant;

use super::{Arrival, CAPACITY, Inserted, JitterBuffer, Slot};

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

impl JitterBuffer {
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
        let copied = self.copied.remove(sequence);
        let index = (sequence % CAPACITY as u64) as usize;
        if !self.seen.insert(sequence) {
            let waits = self.slots[index].occupied && self.slots[index].sequence == sequence;
            if !copied {
                self.counters.duplicates += 1;
                return Err(Inserted::Duplicate);
            } else if !waits {
                self.came_after_its_copy(at, timestamp);
                return Err(Inserted::Duplicate);
            }
            // The packet itself takes the place of its copy.
            self.slots[index].occupied = false;
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
            is_copy: false,
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
        let present = self.slots[index];
        if present.occupied {
            if present.sequence > sequence {
                self.counters.discarded += 1;
                return Err(Inserted::Overflow);
            }
            self.count_given_up(&present);
        }
        self.slots[index] = slot;
        Ok(index)
    }
}

/// Says whether `second` comes straight after `first` in one stream.
fn follows(first: &Arrival, second: &Arrival) -> bool {
    first.ssrc == second.ssrc && first.sequence.wrapping_add(1) == second.sequence
}
