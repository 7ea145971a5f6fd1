//! What a receiver measures of one stream (RFC 3550 6.4.1, A.1, A.3, A.8).

use std::time::{Duration, Instant};

use super::rtcp::{NtpTime, ReportBlock};

/// A jump forward of at least this many numbers is a restart, not loss (RFC 3550 A.1).
const MAX_DROPOUT: u16 = 3_000;
/// A packet at most this many numbers back is reordered, not a restart (RFC 3550 A.1).
const MAX_MISORDER: u16 = 100;

/// Statistics of the current SSRC; totals go on across SSRC changes and restarts.
#[derive(Clone, Debug)]
pub struct ReceiverStatistics {
    clock_rate: u32,
    epoch: Option<Instant>,
    stream: Option<Stream>,
    /// Packets and losses of the streams before this one.
    past_received: u64,
    past_lost: u64,
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
}

impl ReceiverStatistics {
    /// Builds empty statistics for a clock of `clock_rate` Hz.
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate, epoch: None, stream: None, past_received: 0, past_lost: 0, last_sr: None }
    }

    /// Goes on with a clock of another rate in Hz. Totals are kept, and jitter begins anew.
    pub fn set_clock_rate(&mut self, clock_rate: u32) {
        if self.clock_rate != clock_rate {
            (self.past_received, self.past_lost) = (self.packets(), self.lost());
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
        if ahead < MAX_DROPOUT {
            stream.highest = stream.highest.wrapping_add(u32::from(ahead));
        } else if ahead <= u16::MAX - MAX_MISORDER {
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
            self.past_received += old.received;
            self.past_lost += old.lost().max(0) as u64;
        }
    }
}
