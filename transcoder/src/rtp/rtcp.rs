//! RTCP: sender and receiver reports, CNAME, VoIP metrics and BYE, written and read (RFC 3550 6, RFC 3611).

use std::fmt;
use std::time::Duration;

use super::xr::{EXTENDED_REPORT, VoipBlocks, VoipMetrics};
use super::{RtpError, read_u16, read_u32};
use crate::seed::Seeded;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const CNAME_ITEM: u8 = 1;
const BLOCK_LEN: usize = 24;
const SENDER_INFO_LEN: usize = 20;

/// A moment in NTP format: seconds in the upper 32 bits, fractions in the lower. Any clock of the
/// sender's will do, such as the time since a call began (RFC 3550 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// Returns the moment `elapsed` after the zero of the clock.
    pub fn from_elapsed(elapsed: Duration) -> Self {
        let fraction = (u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000;
        Self((elapsed.as_secs() << 32) | fraction)
    }

    /// Returns the middle 32 bits, in units of 1/65536 s.
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }
}

/// What a receiver reports of one source (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source this is about.
    pub ssrc: u32,
    /// Loss since the last report in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all, 24 bits with a sign: duplicates may make it negative.
    pub cumulative_lost: i32,
    /// Highest sequence number, cycles in the upper half.
    pub highest_sequence: u32,
    /// Interarrival jitter in ticks.
    pub jitter: u32,
    /// Middle of the last sender report's NTP time; 0 without one.
    pub last_sr: u32,
    /// Time since then in 1/65536 s.
    pub delay_since_last_sr: u32,
}

/// What a sender says of its stream (RFC 3550 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// When the report was made.
    pub ntp: NtpTime,
    /// The same moment on the stream's clock.
    pub rtp_timestamp: u32,
    /// Packets sent, modulo 2^32.
    pub packets: u32,
    /// Octets of payload sent, modulo 2^32.
    pub octets: u32,
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A canonical name that lives as long as one call and says nothing of the host (RFC 7022 4.2).
#[derive(Clone)]
pub struct Cname([u8; 24]);

impl Cname {
    /// Builds a name of 96 bits from a seed that must be random.
    pub fn new(seed: u64) -> Self {
        let mut random = Seeded::new(seed);
        let (a, b) = (random.next_u64(), random.next_u64());
        let bits = u128::from(a) << 32 | u128::from(b as u32);
        Self(std::array::from_fn(|at| HEX[(bits >> (92 - 4 * at)) as usize & 0xf]))
    }

    /// Returns the name: 24 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Cname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cname({})", self.as_str())
    }
}

/// A compound packet to write: SR or RR, then SDES, XR if there are metrics, and BYE if asked for (RFC 3550 6.1).
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Our source.
    pub ssrc: u32,
    /// Our stream's state; without it an RR is written.
    pub sender: Option<SenderInfo>,
    /// What we receive: 31 blocks at most.
    pub blocks: &'a [ReportBlock],
    /// Our canonical name, 255 octets at most.
    pub cname: &'a str,
    /// What was heard of the other side's stream (RFC 3611 4.7).
    pub metrics: Option<&'a VoipMetrics>,
    /// Whether our source leaves.
    pub bye: bool,
}

impl Report<'_> {
    /// Writes the packet and returns its length in octets.
    ///
    /// # Errors
    /// [`RtpError::OutputTooShort`], or [`RtpError::Length`] when a field does not fit the format.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, RtpError> {
        if self.blocks.len() > 31 || self.cname.len() > 255 {
            return Err(RtpError::Length);
        }
        let mut writer = Writer { out, at: 0 };
        let (packet_type, info_len) =
            if self.sender.is_some() { (SENDER_REPORT, SENDER_INFO_LEN) } else { (RECEIVER_REPORT, 0) };
        writer.header(self.blocks.len() as u8, packet_type, 4 + info_len + BLOCK_LEN * self.blocks.len())?;
        writer.u32(self.ssrc)?;
        if let Some(info) = &self.sender {
            writer.u32((info.ntp.0 >> 32) as u32)?;
            writer.u32(info.ntp.0 as u32)?;
            writer.u32(info.rtp_timestamp)?;
            writer.u32(info.packets)?;
            writer.u32(info.octets)?;
        }
        for block in self.blocks {
            writer.u32(block.ssrc)?;
            writer.u32(u32::from(block.fraction_lost) << 24 | block.cumulative_lost as u32 & 0xff_ffff)?;
            writer.u32(block.highest_sequence)?;
            writer.u32(block.jitter)?;
            writer.u32(block.last_sr)?;
            writer.u32(block.delay_since_last_sr)?;
        }
        // One chunk: source, CNAME, at least one zero octet up to the next word (RFC 3550 6.5).
        let items = 2 + self.cname.len();
        let chunk = 4 + (items / 4 + 1) * 4;
        writer.header(1, DESCRIPTION, chunk)?;
        writer.u32(self.ssrc)?;
        writer.bytes(&[CNAME_ITEM, self.cname.len() as u8])?;
        writer.bytes(self.cname.as_bytes())?;
        writer.bytes(&[0; 4][..chunk - 4 - items])?;
        if let Some(metrics) = self.metrics {
            metrics.write(self.ssrc, &mut writer)?;
        }
        if self.bye {
            writer.header(1, GOODBYE, 4)?;
            writer.u32(self.ssrc)?;
        }
        Ok(writer.at)
    }
}

pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), RtpError> {
        let end = self.at + bytes.len();
        self.out.get_mut(self.at..end).ok_or(RtpError::OutputTooShort)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    pub(super) fn u32(&mut self, value: u32) -> Result<(), RtpError> {
        self.bytes(&value.to_be_bytes())
    }

    /// `body` is the length behind these four octets, a multiple of four.
    pub(super) fn header(&mut self, count: u8, packet_type: u8, body: usize) -> Result<(), RtpError> {
        let [high, low] = ((body / 4) as u16).to_be_bytes();
        self.bytes(&[0x80 | count & 0x1f, packet_type, high, low])
    }
}

/// One packet out of a compound.
#[derive(Clone, Copy, Debug)]
pub enum RtcpPacket<'a> {
    /// SR.
    SenderReport {
        /// Who reports.
        ssrc: u32,
        /// On its own stream.
        info: SenderInfo,
        /// On what it receives.
        blocks: Blocks<'a>,
    },
    /// RR.
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// On what it receives.
        blocks: Blocks<'a>,
    },
    /// SDES: the CNAME of its first chunk.
    Description {
        /// Whose name it is.
        ssrc: u32,
        /// The name: arbitrary octets.
        cname: &'a [u8],
    },
    /// BYE.
    Goodbye {
        /// The first source that leaves.
        ssrc: Option<u32>,
    },
    /// XR.
    ExtendedReport {
        /// Who reports.
        ssrc: u32,
        /// Its VoIP metrics.
        voip: VoipBlocks<'a>,
    },
    /// Anything else, such as feedback.
    Other {
        /// Its packet type.
        packet_type: u8,
    },
}

/// The report blocks of an SR or RR.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a>(&'a [u8]);

impl Iterator for Blocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.0.split_at_checked(BLOCK_LEN)?;
        self.0 = rest;
        let loss = read_u32(block, 4)?;
        Some(ReportBlock {
            ssrc: read_u32(block, 0)?,
            fraction_lost: (loss >> 24) as u8,
            cumulative_lost: (loss << 8).cast_signed() >> 8,
            highest_sequence: read_u32(block, 8)?,
            jitter: read_u32(block, 12)?,
            last_sr: read_u32(block, 16)?,
            delay_since_last_sr: read_u32(block, 20)?,
        })
    }
}

/// The packets of a validated compound.
#[derive(Clone, Copy, Debug)]
pub struct Packets<'a>(&'a [u8]);

impl<'a> Iterator for Packets<'a> {
    type Item = RtcpPacket<'a>;

    fn next(&mut self) -> Option<RtcpPacket<'a>> {
        let (packet, rest) = split(self.0).ok()?;
        self.0 = rest;
        Some(packet)
    }
}

/// Reads a compound packet (RFC 3550 6.1, A.2). All of it is checked before anything is handed
/// out. A lone reduced-size packet (RFC 5506) is accepted if it is feedback or XR.
///
/// # Errors
/// [`RtpError`]: nothing of the packet is to be used.
pub fn parse(compound: &[u8]) -> Result<Packets<'_>, RtpError> {
    match compound.get(1) {
        None => return Err(RtpError::TooShort),
        Some(&(SENDER_REPORT | RECEIVER_REPORT | 205..=207)) => {}
        Some(_) => return Err(RtpError::Compound),
    }
    let mut rest = compound;
    while !rest.is_empty() {
        (_, rest) = split(rest)?;
    }
    Ok(Packets(compound))
}

/// Reads the first packet and returns it with what follows.
fn split(bytes: &[u8]) -> Result<(RtcpPacket<'_>, &[u8]), RtpError> {
    let (&first, &packet_type) = bytes.first().zip(bytes.get(1)).ok_or(RtpError::TooShort)?;
    if first >> 6 != 2 {
        return Err(RtpError::Version);
    }
    let words = read_u16(bytes, 2).ok_or(RtpError::TooShort)?;
    let len = 4 + 4 * usize::from(words);
    let (packet, rest) = bytes.split_at_checked(len).ok_or(RtpError::Length)?;
    let mut body = &packet[4..];
    if first & 0x20 != 0 {
        // Only the last packet of a compound may be padded (RFC 3550 6.4.1).
        let padding = usize::from(*body.last().ok_or(RtpError::Padding)?);
        if padding == 0 || !rest.is_empty() || padding > body.len() {
            return Err(RtpError::Padding);
        }
        body = &body[..body.len() - padding];
    }
    let count = usize::from(first & 0x1f);
    let packet = match packet_type {
        SENDER_REPORT => {
            let blocks = body.get(4 + SENDER_INFO_LEN..).ok_or(RtpError::Length)?;
            let info = SenderInfo {
                ntp: NtpTime(u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?)),
                rtp_timestamp: word(body, 12)?,
                packets: word(body, 16)?,
                octets: word(body, 20)?,
            };
            RtcpPacket::SenderReport { ssrc: word(body, 0)?, info, blocks: take_blocks(blocks, count)? }
        }
        RECEIVER_REPORT => {
            let blocks = body.get(4..).ok_or(RtpError::Length)?;
            RtcpPacket::ReceiverReport { ssrc: word(body, 0)?, blocks: take_blocks(blocks, count)? }
        }
        DESCRIPTION if count > 0 => description(body)?,
        GOODBYE => {
            if body.len() < 4 * count {
                return Err(RtpError::Length);
            }
            RtcpPacket::Goodbye { ssrc: if count > 0 { Some(word(body, 0)?) } else { None } }
        }
        EXTENDED_REPORT => {
            let blocks = body.get(4..).ok_or(RtpError::Length)?;
            RtcpPacket::ExtendedReport { ssrc: word(body, 0)?, voip: VoipBlocks(blocks) }
        }
        packet_type => RtcpPacket::Other { packet_type },
    };
    Ok((packet, rest))
}

/// Finds the CNAME in the first chunk of an SDES packet; empty if there is none.
fn description(body: &[u8]) -> Result<RtcpPacket<'_>, RtpError> {
    let ssrc = word(body, 0)?;
    let mut at = 4;
    let mut cname: &[u8] = &[];
    loop {
        match body.get(at) {
            None => return Err(RtpError::Length),
            Some(0) => return Ok(RtcpPacket::Description { ssrc, cname }),
            Some(&item) => {
                let len = usize::from(*body.get(at + 1).ok_or(RtpError::Length)?);
                let text = body.get(at + 2..at + 2 + len).ok_or(RtpError::Length)?;
                if item == CNAME_ITEM && cname.is_empty() {
                    cname = text;
                }
                at += 2 + len;
            }
        }
    }
}

fn take_blocks(bytes: &[u8], count: usize) -> Result<Blocks<'_>, RtpError> {
    bytes.get(..BLOCK_LEN * count).map(Blocks).ok_or(RtpError::Length)
}

fn word(bytes: &[u8], at: usize) -> Result<u32, RtpError> {
    read_u32(bytes, at).ok_or(RtpError::Length)
}

/// Returns the round trip to the far side from a block about our stream that arrived at `now`
/// on the clock of our sender reports (RFC 3550 6.4.1); `None` if it answers no report of ours.
pub fn round_trip(now: NtpTime, block: &ReportBlock) -> Option<Duration> {
    if block.last_sr == 0 {
        return None;
    }
    let units = now.middle().wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_last_sr);
    // Above an hour the far side's arithmetic is off, or the report is not about ours.
    (units < 3_600 << 16).then(|| Duration::from_micros((u64::from(units) * 1_000_000) >> 16))
}
