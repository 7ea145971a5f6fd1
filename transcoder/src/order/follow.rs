//! A stream that goes on where another on the same path leaves off: the codec changed, and with it source, clock
//! and numbers (RFC 7160 4.1), but neither the path nor what is to be heard next.
//!
//! The two are set in time by their timestamps, of which those of both streams stand for one moment if they are
//! equal in ticks of [`COMMON_CLOCK_RATE`], modulo 2^32: a sender that has the freedom to choose where its
//! timestamps begin (RFC 3550 5.1) can have it so.

use std::time::Instant;

use super::{Cursor, JitterBuffer, LAGS, SCANT, SLACK};

/// The clock in which timestamps of two streams are compared, in Hz.
pub(crate) const COMMON_CLOCK_RATE: u32 = 48_000;
/// A stream that is earlier than due by no more than this, in microseconds, may begin where another ends.
const EARLY: i64 = 5_000;

impl JitterBuffer {
    /// Returns the moment of a timestamp, in ticks of the common clock.
    pub(crate) fn moment(&self, timestamp: u32) -> u32 {
        timestamp.wrapping_mul(COMMON_CLOCK_RATE / self.config.clock_rate.clamp(1, COMMON_CLOCK_RATE))
    }

    /// Returns the moment of what is to be popped next, what was made up taken for what is missing; `None` before
    /// anything came.
    pub(crate) fn position(&self) -> Option<u32> {
        match self.cursor {
            Some(cursor) => Some(self.moment(cursor.timestamp.wrapping_add(self.owed) as u32)),
            None => self.head().map(|index| self.moment(self.slots[index].timestamp as u32)),
        }
    }

    /// Says whether a packet waits that may be played by now.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let (Some(index), Some(epoch)) = (self.head(), self.epoch) else { return false };
        let at = now.saturating_duration_since(epoch).as_micros() as i64;
        self.due(self.slots[index].timestamp) <= at + EARLY
    }

    /// Says whether a talkspurt goes on, or what stands in for lost parts of it.
    pub(crate) fn is_playing(&self) -> bool {
        self.playing
    }

    /// Forgets the stream, for one that comes over the same path as `before` and whose first packet has
    /// `timestamp`: what is known of the path's delay is kept.
    pub(crate) fn follow(&mut self, before: &JitterBuffer, timestamp: u32) {
        self.reset();
        let (Some(epoch), Some(highest)) = (before.epoch, before.timestamps.highest()) else { return };
        self.epoch = Some(epoch);
        let ahead = self.moment(timestamp).wrapping_sub(before.moment(highest as u32)).cast_signed();
        let ahead = i64::from(ahead) * 1_000_000 / i64::from(COMMON_CLOCK_RATE);
        // Transit times are arrival less timestamp, and this stream counts time from its first packet.
        self.delay.follow(&before.delay, before.media_micros(highest) + ahead);
    }

    /// Takes out the first packet if all of it lies before a moment, and returns its payload.
    pub(crate) fn take_before(&mut self, moment: u32) -> Option<&[u8]> {
        let index = self.head()?;
        let slot = self.slots[index];
        let end = (slot.timestamp as u32).wrapping_add(self.duration_of(&slot));
        if self.moment(end).wrapping_sub(moment).cast_signed() > 0 {
            return None;
        }
        self.slots[index].occupied = false;
        self.count_played(&slot);
        Some(self.payload(index, slot.len))
    }

    /// Begins to play with the first packet that waits, at the tick `now`, due or not. Where it is not yet due, the
    /// delay is from then on what it is now.
    pub(crate) fn begin(&mut self, now: Instant) {
        let at = self.micros(now);
        let Some(index) = self.head() else { return };
        let slot = self.slots[index];
        let sequence = slot.sequence;
        self.cursor = Some(Cursor { first_sequence: sequence, sequence, timestamp: slot.timestamp });
        if at - self.due(slot.timestamp) < SCANT {
            // Neither slowed down nor hurried.
            self.delay.set_playout(at - self.media_micros(slot.timestamp) - (SCANT + SLACK) / 2);
        }
        self.playing = true;
        self.owed = 0;
        self.growing = false;
        self.lags = [0; LAGS];
        self.last_silence = false;
        self.underrun = 0;
    }
}
