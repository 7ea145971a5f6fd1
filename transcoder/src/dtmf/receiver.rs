//! The receiving side of telephone-events (RFC 4733 2.5.2).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use call_model::DtmfDigit;

use super::PAYLOAD_LEN;

/// A digit without a packet for this long has ended: more than three intervals of the 50 ms
/// RFC 4733 2.5.2.2 reckons with.
const MAX_SILENCE: Duration = Duration::from_millis(160);
/// Finished events remembered, so that late copies of them are not taken for new digits.
const REMEMBERED: usize = 8;
/// An event that begins this much before the last one, or more, in seconds, is from another
/// numbering and therefore new.
const MAX_AGE_SECONDS: u32 = 10;
/// Events not yet fetched; the consumer fetches after every packet, which makes three at most.
const MAX_PENDING: usize = 16;

/// Something a digit did. `Ended` follows its `Started` exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtmfEvent {
    /// A digit began.
    Started {
        /// Which.
        digit: DtmfDigit,
    },
    /// A digit ended.
    Ended {
        /// Which.
        digit: DtmfDigit,
        /// How long it was seen to last, in milliseconds.
        duration_ms: u16,
    },
}

/// Why a payload was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Shorter than four octets.
    #[error("event payload shorter than four octets")]
    Short,
    /// An event that is not a DTMF digit: code above 15.
    #[error("event {0} is not a DTMF digit")]
    UnknownEvent(u8),
}

impl Refused {
    /// Returns the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Short => "short",
            Refused::UnknownEvent(_) => "unknown_event",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Active {
    digit: DtmfDigit,
    /// Timestamp of the present segment.
    timestamp: u32,
    /// Longest duration seen in the present segment, in ticks.
    duration: u16,
    /// Ticks of the segments before (RFC 4733 2.5.1.3).
    earlier: u32,
    last_packet: Instant,
}

/// A segment of an event that was reported, as far as copies of it and what follows it are known by it.
#[derive(Clone, Copy, Debug)]
struct Finished {
    digit: DtmfDigit,
    timestamp: u32,
    /// Longest duration seen, in ticks.
    duration: u16,
    /// No end was seen: the digit may go on after a gap in what comes.
    open: bool,
}

/// Turns event packets into digits.
#[derive(Clone, Debug)]
pub struct DtmfReceiver {
    clock_rate: u32,
    active: Option<Active>,
    /// The segments that ended last, newest at the end.
    finished: VecDeque<Finished>,
    last_packet: Option<Instant>,
    pending: VecDeque<DtmfEvent>,
    refused: u64,
}

impl DtmfReceiver {
    /// Builds a receiver for a clock of `clock_rate` Hz: 8000 or 48000.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate: clock_rate.max(1),
            active: None,
            finished: VecDeque::new(),
            last_packet: None,
            pending: VecDeque::new(),
            refused: 0,
        }
    }

    /// Takes in an event packet. An event is known by its timestamp and its code; the marker bit may
    /// be lost with the first packet or never have been set, and means nothing here but that a
    /// segment is not a continuation.
    ///
    /// # Errors
    /// [`Refused`]: the packet had no effect but to be counted.
    pub fn receive(
        &mut self,
        now: Instant,
        timestamp: u32,
        marker: bool,
        payload: &[u8],
    ) -> Result<(), Refused> {
        let Some(&[event, flags, high, low]) = payload.first_chunk::<PAYLOAD_LEN>() else {
            self.refused += 1;
            return Err(Refused::Short);
        };
        let Some(digit) = DtmfDigit::from_event(event) else {
            self.refused += 1;
            return Err(Refused::UnknownEvent(event));
        };
        let end = flags & 0x80 != 0;
        let duration = u16::from_be_bytes([high, low]);
        self.handle_timeout(now);
        let fresh_numbering = self
            .last_packet
            .is_none_or(|last| now.saturating_duration_since(last).as_secs() >= u64::from(MAX_AGE_SECONDS));
        self.last_packet = Some(now);
        if fresh_numbering {
            self.finished.clear();
        }

        let lapse = self.lapse();
        if let Some(active) = &mut self.active {
            let same = (active.timestamp, active.digit) == (timestamp, digit);
            let follows =
                active.digit == digit && continues(active.timestamp, active.duration, timestamp, lapse);
            if same || (!marker && follows) {
                if !same {
                    active.earlier = active.earlier.saturating_add(timestamp.wrapping_sub(active.timestamp));
                    let passed = (active.timestamp, active.duration);
                    (active.timestamp, active.duration) = (timestamp, 0);
                    self.remember(Finished { digit, timestamp: passed.0, duration: passed.1, open: false });
                }
                if let Some(active) = &mut self.active {
                    active.duration = active.duration.max(duration);
                    active.last_packet = now;
                }
                if end {
                    self.finish(true);
                }
                return Ok(());
            }
        }
        if self.is_reported(digit, timestamp, marker, end, duration) || self.is_outdated(timestamp) {
            return Ok(());
        }
        let older = self.active.is_some_and(|active| is_before(timestamp, active.timestamp));
        if older {
            // All but a late packet of an earlier digit was lost. The present one goes on.
            self.push(DtmfEvent::Started { digit });
            self.push(DtmfEvent::Ended { digit, duration_ms: self.to_ms(u32::from(duration)) });
            self.remember(Finished { digit, timestamp, duration, open: !end });
            return Ok(());
        }
        self.finish(false);
        self.active = Some(Active { digit, timestamp, duration, earlier: 0, last_packet: now });
        self.push(DtmfEvent::Started { digit });
        if end {
            self.finish(true);
        }
        Ok(())
    }

    /// Returns the next event. To be called until `None` after every packet and timeout.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<DtmfEvent> {
        self.pending.pop_front()
    }

    /// Returns when [`DtmfReceiver::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.active.map(|active| active.last_packet + MAX_SILENCE)
    }

    /// Ends a digit whose end was lost.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.finish(false);
        }
    }

    /// Says whether a digit is down.
    pub fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Returns the digit that is down.
    pub fn active(&self) -> Option<DtmfDigit> {
        self.active.map(|active| active.digit)
    }

    /// Returns how many packets were refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn finish(&mut self, end_seen: bool) {
        if let Some(active) = self.active.take() {
            let Active { digit, timestamp, duration, earlier, .. } = active;
            let ticks = earlier.saturating_add(u32::from(duration));
            self.push(DtmfEvent::Ended { digit, duration_ms: self.to_ms(ticks) });
            self.remember(Finished { digit, timestamp, duration, open: !end_seen });
        }
    }

    fn remember(&mut self, finished: Finished) {
        if self.finished.len() == REMEMBERED {
            self.finished.pop_front();
        }
        // Room for all that will ever be there, at the first digit: most calls have none.
        self.finished.reserve_exact(REMEMBERED - self.finished.len());
        self.finished.push_back(finished);
    }

    /// Says whether a packet is of an event that was reported: a late copy, or what comes of a digit that was given
    /// up when nothing came of it for too long.
    fn is_reported(
        &mut self,
        digit: DtmfDigit,
        timestamp: u32,
        marker: bool,
        end: bool,
        duration: u16,
    ) -> bool {
        let same = |known: &&mut Finished| (known.digit, known.timestamp) == (digit, timestamp);
        if let Some(known) = self.finished.iter_mut().find(same) {
            known.duration = known.duration.max(duration);
            known.open &= !end;
            return true;
        }
        let continued = self.finished.back().is_some_and(|known| {
            known.open && known.digit == digit && continues(known.timestamp, known.duration, timestamp, 0)
        });
        let reported = continued && !marker && self.active.is_none();
        if reported {
            self.remember(Finished { digit, timestamp, duration, open: !end });
        }
        reported
    }

    /// Says whether an event is older than all that is remembered.
    fn is_outdated(&self, timestamp: u32) -> bool {
        let horizon = self.clock_rate.saturating_mul(MAX_AGE_SECONDS);
        self.finished.len() == REMEMBERED
            && self.finished.iter().all(|known| {
                is_before(timestamp, known.timestamp) && known.timestamp.wrapping_sub(timestamp) < horizon
            })
    }

    /// Ticks that may be missing between two packets of a digit that is down.
    fn lapse(&self) -> u32 {
        (u64::from(self.clock_rate) * MAX_SILENCE.as_millis() as u64 / 1_000) as u32
    }

    fn push(&mut self, event: DtmfEvent) {
        if self.pending.len() < MAX_PENDING {
            self.pending.push_back(event);
        }
    }

    fn to_ms(&self, ticks: u32) -> u16 {
        let ms = u64::from(ticks) * 1_000 / u64::from(self.clock_rate);
        u16::try_from(ms).unwrap_or(u16::MAX)
    }
}

/// Says whether a segment that begins at `next` goes on with the event whose present segment has lasted
/// `duration`: a duration overflows at 0xFFFF, and the timestamp moves on by as much (RFC 4733 2.5.1.3), or by less
/// where a sender does not fill its segments; `lapse` of it may not have been seen.
fn continues(timestamp: u32, duration: u16, next: u32, lapse: u32) -> bool {
    let (moved, seen, full) = (next.wrapping_sub(timestamp), u32::from(duration), u32::from(u16::MAX));
    seen >= full / 2 && (moved == full || (seen..=full.min(seen + lapse)).contains(&moved))
}

/// Says whether timestamp `a` lies before `b` on the circle.
fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}
