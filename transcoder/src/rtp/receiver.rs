//! What a receiver measures of one stream (RFC 3550 6.4.1, A.1, A.3, A.8).

use std::time::{Duration, Instant};

use super::LossPattern;
use super::rtcp::{NtpTime, ReportBlock};

/// A jump forward of at least this many numbers is a restart, not loss (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3_000;
/// A packet at most this many numbers back is reordered, not a restart (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;
/// Further back than that and up to here, a packet with a timestamp as old as its number is late (a path that held
/// some packets up), as long as the stream it belongs to goes on. Else it begins the stream anew.
const MAX_LATE: u16 = 3_000;
/// A stream goes on if its last packet is no older than this, in milliseconds.
const ALIVE_MS: u32 = 200;
/// Time that one number may stand for at most, in milliseconds, and the pauses between late packets together.
const MAX_PACKET_MS: u64 = 120;
const MAX_PAUSES_MS: u64 = 60_000;
/// A packet that this many newer ones have overtaken is counted as missing in the pattern of losses.
const SETTLED: u32 = 64;

/// Statistics of the current SSRC; totals go on across SSRC changes and restarts.
#[derive(Clone, Debug)]
pub struct ReceiverStatistics {
    clock_rate: u32,
    epoch: Option<Instant>,
    stream: Option<Stream>,
    /// Packets and losses of the streams before this one.
    past_received: u64,
    past_lost: u64,
    pattern: LossPattern,
    last_sr: Option<(Instant, NtpTime)>,
}

#[derive(Clone, Debug)]
struct Stream {
    ssrc: u32,
    base: u32,
    highest: u32,
    received: u64,
    /// The number that would confirm a restart.
    bad_sequence: Option<u16>,
    transit: u32,
    last_timestamp: u32,
    /// Timestamp of the highest number, and when it came, in ticks.
    highest_timestamp: u32,
    highest_at: u32,
    /// Which of the [`SETTLED`] numbers up to the highest have come; bit 0 is the highest.
    recent: u64,
    /// Jitter in ticks, times 16.
    jitter: u32,
    expected_prior: u64,
    received_prior: u64,
}

impl Stream {
    fn new(ssrc: u32, sequence: u16, timestamp: u32, transit: u32) -> Self {
        Self {
            ssrc,
            base: u32::from(sequence),
            highest: u32::from(sequence),
            received: 1,
            bad_sequence: None,
            transit,
            last_timestamp: timestamp,
            highest_timestamp: timestamp,
            highest_at: transit.wrapping_add(timestamp),
            recent: 1,
            jitter: 0,
            expected_prior: 0,
            received_prior: 0,
        }
    }

    fn expected(&self) -> u64 {
        u64::from(self.highest.wrapping_sub(self.base)) + 1
    }

    fn lost(&self) -> i64 {
        self.expected() as i64 - self.received as i64
    }

    /// Moves on to a higher number, and settles those that leave the window.
    fn advance(&mut self, ahead: u32, pattern: &mut LossPattern) {
        let settled = (self.highest - self.base).wrapping_add(1).min(SETTLED);
        let leaving = ahead.min(SETTLED);
        for below in (SETTLED - leaving..settled).rev() {
            note(pattern, self.recent >> below & 1 == 1, 1);
        }
        // What lies between the window before and the one after never had a place in either.
        note(pattern, false, u64::from(ahead.saturating_sub(SETTLED)));
        self.recent = self.recent.checked_shl(ahead).unwrap_or(0) | 1;
        self.highest = self.highest.wrapping_add(ahead);
    }

    /// Settles all of the window.
    fn settle(&self, pattern: &mut LossPattern) {
        for below in (0..(self.highest - self.base).wrapping_add(1).min(SETTLED)).rev() {
            note(pattern, self.recent >> below & 1 == 1, 1);
        }
    }

    /// Says whether a packet whose number lies far back is of this stream, by its timestamp.
    fn is_late(&self, back: u16, timestamp: u32, arrival: u32, clock_rate: u32) -> bool {
        if arrival.wrapping_sub(self.highest_at) > clock_rate / 1_000 * ALIVE_MS {
            return false;
        }
        let per_ms = u64::from(clock_rate) / 1_000;
        let age = u64::from(self.highest_timestamp.wrapping_sub(timestamp));
        let longest = (u64::from(back) * MAX_PACKET_MS + MAX_PAUSES_MS) * per_ms;
        back <= MAX_LATE && (u64::from(back) * per_ms..=longest).contains(&age)
    }
}

fn note(pattern: &mut LossPattern, heard: bool, count: u64) {
    if heard { pattern.heard() } else { pattern.missed(count) }
}

impl ReceiverStatistics {
    /// Builds empty statistics for a clock of `clock_rate` Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            epoch: None,
            stream: None,
            past_received: 0,
            past_lost: 0,
            pattern: LossPattern::default(),
            last_sr: None,
        }
    }

    /// Goes on with a clock of another rate in Hz. Totals are kept, and jitter begins anew.
    pub fn set_clock_rate(&mut self, clock_rate: u32) {
        if self.clock_rate != clock_rate {
            (self.past_received, self.past_lost, self.pattern) =
                (self.packets(), self.lost(), self.pattern());
            (self.clock_rate, self.stream, self.last_sr) = (clock_rate, None, None);
        }
    }

    /// Takes in a packet that arrived at `now`.
    pub fn receive(&mut self, now: Instant, ssrc: u32, sequence: u16, timestamp: u32) {
        let epoch = *self.epoch.get_or_insert(now);
        let elapsed = now.saturating_duration_since(epoch).as_micros();
        let arrival = (elapsed * u128::from(self.clock_rate) / 1_000_000) as u32;
        let transit = arrival.wrapping_sub(timestamp);
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.ssrc == ssrc) else {
            self.begin(Stream::new(ssrc, sequence, timestamp, transit));
            self.last_sr = None;
            return;
        };

        // RFC 3550 A.1, update_seq.
        let ahead = sequence.wrapping_sub(stream.highest as u16);
        let back = ahead.wrapping_neg();
        if ahead == 0 {
            // Once more the same, or a packet that shares its number with it by mistake.
        } else if ahead < MAX_DROPOUT {
            stream.advance(u32::from(ahead), &mut self.pattern);
            (stream.highest_timestamp, stream.highest_at) = (timestamp, arrival);
        } else if back <= MAX_MISORDER {
            stream.recent |= 1u64.checked_shl(u32::from(back)).unwrap_or(0);
        } else if stream.is_late(back, timestamp, arrival, self.clock_rate) {
            // A number of before the stream began was never expected.
            stream.received += u64::from(u32::from(back) <= stream.highest.wrapping_sub(stream.base));
            return;
        } else {
            if stream.bad_sequence == Some(sequence) {
                self.begin(Stream::new(ssrc, sequence, timestamp, transit));
            } else {
                stream.bad_sequence = Some(sequence.wrapping_add(1));
            }
            return;
        }
        stream.bad_sequence = None;
        stream.received += 1;

        // RFC 3550 A.8. Packets of one moment, such as those of a DTMF digit, share a timestamp
        // by design and would be taken for jitter.
        let change = transit.wrapping_sub(stream.transit).cast_signed().unsigned_abs();
        if timestamp != stream.last_timestamp && change < self.clock_rate.saturating_mul(2) {
            stream.jitter = (stream.jitter + change).saturating_sub((stream.jitter + 8) >> 4);
        }
        if timestamp != stream.last_timestamp {
            stream.transit = transit;
            stream.last_timestamp = timestamp;
        }
    }

    /// Remembers a sender report of the far side, for the delay in our next report.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.last_sr = Some((now, ntp));
    }

    /// Returns the present stream's source.
    pub fn ssrc(&self) -> Option<u32> {
        self.stream.as_ref().map(|stream| stream.ssrc)
    }

    /// Returns the packets received in all.
    pub fn packets(&self) -> u64 {
        self.past_received + self.stream.as_ref().map_or(0, |stream| stream.received)
    }

    /// Returns the packets that never came; duplicates may hide some, as RFC 3550 A.3 has it.
    pub fn lost(&self) -> u64 {
        self.past_lost + self.stream.as_ref().map_or(0, |stream| stream.lost().max(0) as u64)
    }

    /// Returns how losses lie in the stream. A packet that comes within 64 of those behind it is
    /// not missing, however long a jitter buffer would have waited for it.
    pub fn pattern(&self) -> LossPattern {
        let mut pattern = self.pattern;
        if let Some(stream) = &self.stream {
            stream.settle(&mut pattern);
        }
        pattern
    }

    /// Returns the interarrival jitter in milliseconds.
    pub fn jitter_ms(&self) -> f32 {
        let ticks = self.stream.as_ref().map_or(0, |stream| stream.jitter >> 4);
        ticks as f32 * 1_000.0 / self.clock_rate.max(1) as f32
    }

    /// Returns the report about the present stream and begins a new interval for the fraction
    /// lost (RFC 3550 A.3); `None` before the first packet.
    pub fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        let stream = self.stream.as_mut()?;
        let expected = stream.expected() - stream.expected_prior;
        let received = stream.received - stream.received_prior;
        stream.expected_prior = stream.expected();
        stream.received_prior = stream.received;
        let lost = expected.saturating_sub(received);
        let fraction_lost = (lost * 256).checked_div(expected).unwrap_or(0).min(255) as u8;
        let (last_sr, delay_since_last_sr) = match self.last_sr {
            Some((at, ntp)) => {
                let delay = now.saturating_duration_since(at).min(Duration::from_secs(65_535));
                (ntp.middle(), (delay.as_micros() * 65_536 / 1_000_000) as u32)
            }
            None => (0, 0),
        };
        Some(ReportBlock {
            ssrc: stream.ssrc,
            fraction_lost,
            cumulative_lost: stream.lost().clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: stream.highest,
            jitter: stream.jitter >> 4,
            last_sr,
            delay_since_last_sr,
        })
    }

    fn begin(&mut self, stream: Stream) {
        if let Some(old) = self.stream.replace(stream) {
            old.settle(&mut self.pattern);
            self.past_received += old.received;
            self.past_lost += old.lost().max(0) as u64;
        }
    }
}
