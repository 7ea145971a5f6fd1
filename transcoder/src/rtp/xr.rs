//! RTCP XR: the VoIP metrics report block, written and read (RFC 3611 4.7).

use super::rtcp::Writer;
use super::{RtpError, read_u16, read_u32};

/// Packet type of extended reports (RFC 3611 2).
pub(super) const EXTENDED_REPORT: u8 = 207;
const VOIP_METRICS: u8 = 7;
/// Octets of a VoIP metrics block behind its head (RFC 3611 4.7: eight words).
const VOIP_METRICS_LEN: usize = 32;
/// Octets of an XR packet with one VoIP metrics block, behind its head: our source and the block.
const PACKET_BODY: usize = 4 + 4 + VOIP_METRICS_LEN;
/// What stands for a level, a rating or a score that is not known (RFC 3611 4.7.4, 4.7.5).
const UNAVAILABLE: u8 = 127;

/// How a receiver fills what is lost (RFC 3611 4.7.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossConcealment {
    /// It does not say.
    #[default]
    Unspecified,
    /// Silence.
    Disabled,
    /// By more than a repetition.
    Enhanced,
    /// By what was heard before.
    Standard,
}

/// How a receiver's jitter buffer works (RFC 3611 4.7.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JitterAdaptation {
    /// It does not say.
    #[default]
    Unknown,
    /// Of a fixed length.
    Fixed,
    /// Of a length that follows the jitter.
    Adaptive,
}

/// The VoIP metrics of one stream (RFC 3611 4.7).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VoipMetrics {
    /// The source this is about.
    pub ssrc: u32,
    /// Packets lost on the way, in 1/256 of all.
    pub loss_rate: u8,
    /// Packets that came, and were not heard because they were late or early, in 1/256 of all.
    pub discard_rate: u8,
    /// Packets lost or discarded within bursts, in 1/256 of those in bursts.
    pub burst_density: u8,
    /// Packets lost or discarded within gaps, in 1/256 of those in gaps.
    pub gap_density: u8,
    /// Mean length of a burst in milliseconds.
    pub burst_duration_ms: u16,
    /// Mean length of a gap in milliseconds.
    pub gap_duration_ms: u16,
    /// Latest round trip between the RTP interfaces in milliseconds; 0 if not known.
    pub round_trip_ms: u16,
    /// Delay within the reporter in milliseconds; 0 if not known.
    pub end_system_delay_ms: u16,
    /// Level of the voice in dBm0, -128 to 126.
    pub signal_level_dbm0: Option<i8>,
    /// Level of the background in dBm0, -128 to 126.
    pub noise_level_dbm0: Option<i8>,
    /// Residual echo return loss in dB, 0 to 126.
    pub echo_return_loss_db: Option<u8>,
    /// Packets that part two bursts; [`GMIN`](super::GMIN) by default.
    pub gmin: u8,
    /// Transmission rating of the RTP path, 0 to 100 (ITU-T G.107).
    pub r_factor: Option<u8>,
    /// Transmission rating of a network beyond, 0 to 100.
    pub external_r_factor: Option<u8>,
    /// Listening quality in tenths, 10 to 50: without delay.
    pub mos_lq: Option<u8>,
    /// Conversational quality in tenths, 10 to 50: with delay.
    pub mos_cq: Option<u8>,
    /// How losses are concealed.
    pub concealment: LossConcealment,
    /// How the jitter buffer works.
    pub adaptation: JitterAdaptation,
    /// What the jitter buffer holds packets back at present, in milliseconds.
    pub jitter_buffer_ms: u16,
    /// The most it held packets back, in milliseconds.
    pub jitter_buffer_max_ms: u16,
    /// The most it can, in milliseconds.
    pub jitter_buffer_limit_ms: u16,
}

impl VoipMetrics {
    /// Writes an XR packet of `reporter` with this one block (RFC 3611 2).
    pub(super) fn write(&self, reporter: u32, writer: &mut Writer<'_>) -> Result<(), RtpError> {
        writer.header(0, EXTENDED_REPORT, PACKET_BODY)?;
        writer.u32(reporter)?;
        writer.bytes(&[VOIP_METRICS, 0, 0, (VOIP_METRICS_LEN / 4) as u8])?;
        writer.u32(self.ssrc)?;
        writer.bytes(&[self.loss_rate, self.discard_rate, self.burst_density, self.gap_density])?;
        for pair in
            [[self.burst_duration_ms, self.gap_duration_ms], [self.round_trip_ms, self.end_system_delay_ms]]
        {
            writer.u32(u32::from(pair[0]) << 16 | u32::from(pair[1]))?;
        }
        let level = |level: Option<i8>| level.map_or(UNAVAILABLE, |level| level.min(126).cast_unsigned());
        let known = |value: Option<u8>, most: u8| value.map_or(UNAVAILABLE, |value| value.min(most));
        writer.bytes(&[
            level(self.signal_level_dbm0),
            level(self.noise_level_dbm0),
            known(self.echo_return_loss_db, 126),
            self.gmin,
            known(self.r_factor, 100),
            known(self.external_r_factor, 100),
            known(self.mos_lq, 50),
            known(self.mos_cq, 50),
        ])?;
        let concealment = match self.concealment {
            LossConcealment::Unspecified => 0,
            LossConcealment::Disabled => 1,
            LossConcealment::Enhanced => 2,
            LossConcealment::Standard => 3,
        };
        let adaptation = match self.adaptation {
            JitterAdaptation::Unknown => 0,
            JitterAdaptation::Fixed => 2,
            JitterAdaptation::Adaptive => 3,
        };
        // The rate of adjustment is 0: the buffer grows at once.
        writer.bytes(&[concealment << 6 | adaptation << 4, 0])?;
        for value in [self.jitter_buffer_ms, self.jitter_buffer_max_ms, self.jitter_buffer_limit_ms] {
            writer.bytes(&value.to_be_bytes())?;
        }
        Ok(())
    }

    /// Reads the content of a block. `None` if it is too short.
    fn read(block: &[u8]) -> Option<Self> {
        let octet = |at: usize| block.get(at).copied();
        let level = |at| octet(at).map(|level| (level != UNAVAILABLE).then_some(level.cast_signed()));
        let known = |at, most| octet(at).map(|value: u8| (value <= most).then_some(value));
        let config = octet(24)?;
        Some(Self {
            ssrc: read_u32(block, 0)?,
            loss_rate: octet(4)?,
            discard_rate: octet(5)?,
            burst_density: octet(6)?,
            gap_density: octet(7)?,
            burst_duration_ms: read_u16(block, 8)?,
            gap_duration_ms: read_u16(block, 10)?,
            round_trip_ms: read_u16(block, 12)?,
            end_system_delay_ms: read_u16(block, 14)?,
            signal_level_dbm0: level(16)?,
            noise_level_dbm0: level(17)?,
            echo_return_loss_db: known(18, 126)?,
            gmin: octet(19)?,
            r_factor: known(20, 100)?,
            external_r_factor: known(21, 100)?,
            mos_lq: known(22, 50)?.filter(|&score| score >= 10),
            mos_cq: known(23, 50)?.filter(|&score| score >= 10),
            concealment: match config >> 6 {
                1 => LossConcealment::Disabled,
                2 => LossConcealment::Enhanced,
                3 => LossConcealment::Standard,
                _ => LossConcealment::Unspecified,
            },
            adaptation: match config >> 4 & 3 {
                2 => JitterAdaptation::Fixed,
                3 => JitterAdaptation::Adaptive,
                _ => JitterAdaptation::Unknown,
            },
            jitter_buffer_ms: read_u16(block, 26)?,
            jitter_buffer_max_ms: read_u16(block, 28)?,
            jitter_buffer_limit_ms: read_u16(block, 30)?,
        })
    }
}

/// The VoIP metrics of an extended report. Blocks of other types, and those that are cut short, are
/// passed over (RFC 3611 3).
#[derive(Clone, Copy, Debug)]
pub struct VoipBlocks<'a>(pub(super) &'a [u8]);

impl Iterator for VoipBlocks<'_> {
    type Item = VoipMetrics;

    fn next(&mut self) -> Option<VoipMetrics> {
        loop {
            let (head, rest) = self.0.split_at_checked(4)?;
            let length = 4 * usize::from(read_u16(head, 2)?);
            let (block, rest) = rest.split_at_checked(length)?;
            self.0 = rest;
            if head[0] == VOIP_METRICS
                && let Some(metrics) = VoipMetrics::read(block)
            {
                return Some(metrics);
            }
        }
    }
}
