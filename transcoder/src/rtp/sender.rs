//! The sending side of one RTP stream.

use std::time::{Duration, Instant};

use super::rtcp::{NtpTime, SenderInfo};
use super::{HEADER_LEN, RtpError};
use crate::seed::Seeded;

/// Where a packet stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbering {
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub timestamp: u32,
}

/// Numbers the packets of one stream and counts them for sender reports. SSRC, first sequence
/// number and first timestamp are random (RFC 3550 5.1).
#[derive(Clone, Debug)]
pub struct RtpSender {
    ssrc: u32,
    sequence: u16,
    timestamp_base: u32,
    packets: u64,
    octets: u64,
    last: Option<(Instant, u32)>,
}

impl RtpSender {
    /// Starts a stream; equal seeds give equal streams.
    pub fn new(seed: u64) -> Self {
        let mut random = Seeded::new(seed);
        let bits = random.next_u64();
        // The first number lies in the lower half: a wrap right at the start helps nobody (RFC 3711 3.3.1).
        Self {
            ssrc: (bits >> 32) as u32,
            sequence: (bits & 0x7fff) as u16,
            timestamp_base: random.next_u64() as u32,
            packets: 0,
            octets: 0,
            last: None,
        }
    }

    /// Starts a stream of a source that was announced before. Its media times are RTP timestamps. The
    /// source is random, so the first sequence number is taken from it.
    pub fn for_source(ssrc: u32) -> Self {
        let sequence = (ssrc & 0x7fff) as u16;
        Self { ssrc, sequence, timestamp_base: 0, packets: 0, octets: 0, last: None }
    }

    /// Writes the header of the next packet into `out[..12]`; its `payload_len` octets belong
    /// right behind. `media_time` is the first sample's time since the stream began, in ticks.
    ///
    /// # Errors
    /// [`RtpError::OutputTooShort`] unless header and payload fit into `out`; nothing is counted then.
    pub fn write_header(
        &mut self,
        now: Instant,
        payload_type: u8,
        marker: bool,
        media_time: u64,
        payload_len: usize,
        out: &mut [u8],
    ) -> Result<(), RtpError> {
        if out.len() < HEADER_LEN.saturating_add(payload_len) {
            return Err(RtpError::OutputTooShort);
        }
        let timestamp = self.timestamp_of(media_time);
        let sequence = self.sequence.wrapping_add(1);
        self.write(now, payload_type, marker, Numbering { sequence, timestamp }, payload_len, out);
        Ok(())
    }

    /// Writes the header of a packet that is numbered by the one it was made of: what was lost or
    /// swapped on the way in is seen to be so on the way out.
    ///
    /// # Errors
    /// As [`write_header`](Self::write_header).
    pub fn write_numbered(
        &mut self,
        now: Instant,
        payload_type: u8,
        marker: bool,
        numbering: Numbering,
        payload_len: usize,
        out: &mut [u8],
    ) -> Result<(), RtpError> {
        if out.len() < HEADER_LEN.saturating_add(payload_len) {
            return Err(RtpError::OutputTooShort);
        }
        self.write(now, payload_type, marker, numbering, payload_len, out);
        Ok(())
    }

    fn write(
        &mut self,
        now: Instant,
        payload_type: u8,
        marker: bool,
        Numbering { sequence, timestamp }: Numbering,
        payload_len: usize,
        out: &mut [u8],
    ) {
        out[0] = 0x80;
        out[1] = payload_type & 0x7f | if marker { 0x80 } else { 0 };
        out[2..4].copy_from_slice(&sequence.to_be_bytes());
        out[4..8].copy_from_slice(&timestamp.to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        self.packets += 1;
        self.octets += payload_len as u64;
        // A packet that was overtaken on its way in is not the last one.
        if self.last.is_none() || sequence.wrapping_sub(self.sequence).cast_signed() > 0 {
            self.sequence = sequence;
            self.last = Some((now, timestamp));
        }
    }

    /// Returns how a packet would be numbered that begins now and follows all before it: time has
    /// gone on with the clock, in ticks of `clock_rate` Hz.
    pub fn next(&self, now: Instant, clock_rate: u32) -> Numbering {
        let sequence = self.sequence.wrapping_add(1);
        let timestamp = match self.last {
            Some((sent, timestamp)) => timestamp.wrapping_add(ticks(now, sent, clock_rate)),
            None => self.timestamp_base,
        };
        Numbering { sequence, timestamp }
    }

    /// Returns the stream's synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Returns the packets written so far.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Returns the octets of payload announced so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Returns the sequence number of the last packet.
    pub fn last_sequence(&self) -> u16 {
        self.sequence
    }

    /// Returns the RTP timestamp that stands for a media time in ticks.
    pub fn timestamp_of(&self, media_time: u64) -> u32 {
        self.timestamp_base.wrapping_add(media_time as u32)
    }

    /// Returns the sender's part of a report (RFC 3550 6.4.1), or `None` before the first packet.
    /// `clock_rate` in Hz; `ntp` is the present moment on the report clock.
    pub fn sender_info(&self, now: Instant, ntp: NtpTime, clock_rate: u32) -> Option<SenderInfo> {
        let (sent, timestamp) = self.last?;
        Some(SenderInfo {
            ntp,
            rtp_timestamp: timestamp.wrapping_add(ticks(now, sent, clock_rate)),
            packets: self.packets as u32,
            octets: self.octets as u32,
        })
    }
}

fn ticks(now: Instant, since: Instant, clock_rate: u32) -> u32 {
    let since = now.saturating_duration_since(since).min(Duration::from_secs(3_600));
    (since.as_micros() as u64 * u64::from(clock_rate) / 1_000_000) as u32
}
