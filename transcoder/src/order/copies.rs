//! Copies of earlier frames that later packets carry (RFC 2198). A copy of what never came fills its place, as a
//! packet would that is late by as much as the copy lies back.
//!
//! A copy has a timestamp and no number. The number is worked out from how many frames lie between, and believed if
//! it fits what is known of the packets on both sides.

use std::time::Instant;

use super::{Arrival, CAPACITY, JitterBuffer, Slot};

/// Frames that a copy may lie back at most.
const MAX_DISTANCE: u32 = CAPACITY as u32 / 2;

/// A copy of an earlier frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameCopy<'a> {
    /// Ticks by which it lies before the packet it came in.
    pub offset: u32,
    /// The audio in it, in ticks.
    pub duration: u32,
    /// Whether it is DTX.
    pub silence: bool,
    /// Its octets.
    pub payload: &'a [u8],
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// It waits in the place of what was lost.
    Queued,
    /// What it is of has come.
    Known,
    /// It is of something lost whose time has passed.
    Late,
    /// It is of a packet that did not count, has no place between the packets around it, or is too long.
    Unplaced,
}

impl JitterBuffer {
    /// Takes in a copy that came at `now` in the packet `of`, which was [inserted](Self::insert) before. No counter
    /// of packets changes before it is played.
    pub fn insert_copy(&mut self, now: Instant, of: &Arrival, copy: FrameCopy<'_>) -> Copied {
        let at = self.micros(now);
        let Some(slot) = self.place_of(of, &copy) else { return Copied::Unplaced };
        if self.seen.has(slot.sequence) || self.copied.has(slot.sequence) {
            return Copied::Known;
        }
        self.copied.insert(slot.sequence);
        // Those that come too late say how long to wait for the next.
        self.delay.observe_copy(at, at - self.media_micros(slot.timestamp));
        self.target_max = self.target_max.max(self.delay.target());
        let end = slot.timestamp + u64::from(slot.duration);
        if self.cursor.is_some_and(|cursor| slot.sequence < cursor.sequence || end <= cursor.timestamp) {
            return Copied::Late;
        }
        self.seen.insert(slot.sequence);
        self.payloads.make_room(slot.len);
        let index = (slot.sequence % CAPACITY as u64) as usize;
        self.payloads.put(index, copy.payload);
        self.slots[index] = slot;
        Copied::Queued
    }

    /// Says where a copy belongs, if all that waits lies before it in number and time, or behind it in both.
    fn place_of(&self, of: &Arrival, copy: &FrameCopy<'_>) -> Option<Slot> {
        let distance = copy.offset.checked_div(copy.duration)?;
        let whole = distance * copy.duration == copy.offset;
        if self.ssrc != Some(of.ssrc) || !whole || !(1..=MAX_DISTANCE).contains(&distance) {
            return None;
        }
        let own = self.sequences.peek(u32::from(of.sequence));
        if !self.seen.has(own) {
            return None;
        }
        let sequence = own.checked_sub(u64::from(distance))?;
        let timestamp = self.timestamps.peek(of.timestamp).checked_sub(u64::from(copy.offset))?;
        let end = timestamp + u64::from(copy.duration);
        let fits = |slot: &Slot| {
            if slot.sequence < sequence {
                slot.timestamp + u64::from(self.duration_of(slot)) <= timestamp
            } else {
                slot.sequence == sequence || slot.timestamp >= end
            }
        };
        let free = {
            let present = &self.slots[(sequence % CAPACITY as u64) as usize];
            !present.occupied || present.sequence == sequence
        };
        let waiting = self.slots.iter().filter(|slot| slot.occupied);
        if !free || copy.payload.len() > self.config.max_payload || !waiting.clone().all(fits) {
            return None;
        }
        Some(Slot {
            occupied: true,
            sequence,
            timestamp,
            duration: copy.duration,
            len: copy.payload.len(),
            marker: false,
            silence: copy.silence,
            is_copy: true,
        })
    }

    /// Counts the packet of which a copy was played already, and which has now come: it was heard, so it is neither
    /// lost nor late.
    pub(super) fn came_after_its_copy(&mut self, at: i64, timestamp: u64) {
        self.delay.observe_copy(at, at - self.media_micros(timestamp));
        self.counters.recovered = self.counters.recovered.saturating_sub(1);
        self.counters.lost = self.counters.lost.saturating_sub(1);
        self.counters.played += 1;
    }

    /// Counts what is played: a packet, or the copy of one that is lost.
    pub(super) fn count_played(&mut self, slot: &Slot) {
        if slot.is_copy {
            self.counters.lost += 1;
            self.counters.recovered += 1;
        } else {
            self.counters.played += 1;
        }
    }

    /// Counts what waited and is not played.
    pub(super) fn count_given_up(&mut self, slot: &Slot) {
        if slot.is_copy {
            self.counters.lost += 1;
            self.copied.remove(slot.sequence);
        } else {
            self.counters.discarded += 1;
        }
    }
}

#[cfg(test)]
mod tests;
