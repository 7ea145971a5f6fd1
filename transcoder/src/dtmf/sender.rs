//! The sending side of telephone-events (RFC 4733 2.5.1).

use std::collections::VecDeque;

use call_model::DtmfDigit;

use super::{PAYLOAD_LEN, convert_ticks};

/// Digits that may wait.
const MAX_QUEUED: usize = 32;
/// Power of the tone: -10 dBm0, what telephones send.
const VOLUME: u8 = 10;
/// The end is sent this often, in case it is lost (RFC 4733 2.5.1.4).
const END_COPIES: u8 = 3;
/// Silence between two digits at least, in milliseconds: what switches ask for.
const MIN_GAP_MS: u32 = 50;
/// Shortest and longest digit sent, in milliseconds.
const MIN_DURATION_MS: u16 = 40;
const MAX_DURATION_MS: u16 = 10_000;

/// Too many digits wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_QUEUED} digits are waiting already")]
pub struct QueueFull;

/// An event packet, sent in place of audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventPacket {
    /// Its payload.
    pub payload: [u8; PAYLOAD_LEN],
    /// Its marker bit: set on the first packet of a digit.
    pub marker: bool,
    /// When the event, or its present segment, began: in ticks since the stream did.
    pub media_time: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    digit: DtmfDigit,
    /// Where the present segment began.
    start: u64,
    /// Where the digit ends.
    end: u64,
    marker: bool,
    /// Copies of the end still to send; `None` before the end.
    copies: Option<u8>,
}

/// Turns digits into event packets, one per packet interval.
#[derive(Clone, Debug)]
pub struct DtmfSender {
    clock_rate: u32,
    queue: VecDeque<(DtmfDigit, u16)>,
    sending: Option<Sending>,
    /// No digit may begin before this media time.
    earliest: u64,
}

impl DtmfSender {
    /// Builds a sender for a clock of `clock_rate` Hz: 8000 or 48000.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, queue: VecDeque::new(), sending: None, earliest: 0 }
    }

    /// Queues a digit of 40 to 10,000 ms; other durations are brought into that range.
    ///
    /// # Errors
    /// [`QueueFull`] when 32 digits wait.
    pub fn queue(&mut self, digit: DtmfDigit, duration_ms: u16) -> Result<(), QueueFull> {
        if self.queue.len() >= MAX_QUEUED {
            return Err(QueueFull);
        }
        self.queue.push_back((digit, duration_ms.clamp(MIN_DURATION_MS, MAX_DURATION_MS)));
        Ok(())
    }

    /// Returns the packet to send instead of the audio from `media_time` on, `packet_ticks` long;
    /// `None` means to send audio. To be called once per packet interval.
    pub fn next(&mut self, media_time: u64, packet_ticks: u32) -> Option<EventPacket> {
        if self.sending.is_none() && media_time >= self.earliest {
            let (digit, duration_ms) = self.queue.pop_front()?;
            let duration = convert_ticks(u32::from(duration_ms), 1_000, self.clock_rate);
            let end = media_time + u64::from(duration);
            self.sending = Some(Sending { digit, start: media_time, end, marker: true, copies: None });
        }
        let sending = self.sending.as_mut()?;
        let marker = std::mem::take(&mut sending.marker);
        let reached = media_time.saturating_add(u64::from(packet_ticks)).min(sending.end);
        let mut start = sending.start;
        let mut duration = reached.saturating_sub(start);
        let limit = u64::from(u16::MAX);
        if duration > limit {
            // The segment is full: say so once, then go on in the next (RFC 4733 2.5.1.3).
            duration = limit;
            sending.start += limit;
        } else if reached == sending.end {
            let left = sending.copies.unwrap_or(END_COPIES) - 1;
            sending.copies = Some(left);
        }
        let ended = sending.copies.is_some();
        let [high, low] = (duration as u16).to_be_bytes();
        let flags = VOLUME | if ended { 0x80 } else { 0 };
        let payload = [sending.digit.event(), flags, high, low];
        if sending.copies == Some(0) {
            let gap = convert_ticks(MIN_GAP_MS, 1_000, self.clock_rate);
            self.earliest = sending.end + u64::from(gap);
            self.sending = None;
        }
        start = start.min(media_time);
        Some(EventPacket { payload, marker, media_time: start })
    }

    /// Says whether no digit is being sent or waiting.
    pub fn is_idle(&self) -> bool {
        self.sending.is_none() && self.queue.is_empty()
    }
}
