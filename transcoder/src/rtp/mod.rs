//! RTP and RTCP (RFC 3550): header view and writer, sequence arithmetic, receiver
//! statistics; redundant audio data (RFC 2198).

mod bursts;
mod receiver;
pub mod redundancy;
mod renumber;
pub mod rtcp;
mod sender;
mod sequence;
mod xr;

pub use bursts::{Bursts, GMIN, LossPattern};
pub use receiver::ReceiverStatistics;
pub(crate) use renumber::Renumbering;
pub use sender::{Numbering, RtpSender};
pub use sequence::Unwrapper;
pub use xr::{JitterAdaptation, LossConcealment, VoipBlocks, VoipMetrics};

/// Octets of an RTP header without CSRCs and extension (RFC 3550 5.1).
pub const HEADER_LEN: usize = 12;

/// Why a packet is not RTP or RTCP, or could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RtpError {
    /// Shorter than its fixed header.
    #[error("shorter than its header")]
    TooShort,
    /// Version other than 2.
    #[error("version is not 2")]
    Version,
    /// The CSRC list runs past the end.
    #[error("CSRC list runs past the end")]
    Csrc,
    /// The header extension runs past the end.
    #[error("header extension runs past the end")]
    Extension,
    /// Padding of length 0 or longer than the payload.
    #[error("padding length is impossible")]
    Padding,
    /// An RTCP length field that does not fit the packet or its contents.
    #[error("length field does not fit")]
    Length,
    /// An RTCP compound packet that begins with neither SR nor RR (RFC 3550 6.1).
    #[error("compound packet begins with neither SR nor RR")]
    Compound,
    /// The output buffer is too short.
    #[error("output buffer too short")]
    OutputTooShort,
}

impl RtpError {
    /// Returns the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            RtpError::TooShort => "too_short",
            RtpError::Version => "version",
            RtpError::Csrc => "csrc",
            RtpError::Extension => "extension",
            RtpError::Padding => "padding",
            RtpError::Length => "length",
            RtpError::Compound => "compound",
            RtpError::OutputTooShort => "output_too_short",
        }
    }
}

/// Tells RTCP from RTP on a shared port: packet types 192 to 223 (RFC 5761 4).
pub fn is_rtcp(packet: &[u8]) -> bool {
    packet.get(1).is_some_and(|packet_type| (192..=223).contains(packet_type))
}

/// A validated view of an RTP packet; copies nothing.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    bytes: &'a [u8],
    payload_start: usize,
    payload_end: usize,
}

impl<'a> RtpPacket<'a> {
    /// Reads a packet (RFC 3550 5.1, A.1).
    ///
    /// # Errors
    /// What the header promises and the packet does not hold.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        if bytes.len() < HEADER_LEN {
            return Err(RtpError::TooShort);
        }
        if bytes[0] >> 6 != 2 {
            return Err(RtpError::Version);
        }
        let mut payload_start = HEADER_LEN + 4 * usize::from(bytes[0] & 0x0f);
        if payload_start > bytes.len() {
            return Err(RtpError::Csrc);
        }
        if bytes[0] & 0x10 != 0 {
            let words = read_u16(bytes, payload_start + 2).ok_or(RtpError::Extension)?;
            payload_start += 4 + 4 * usize::from(words);
            if payload_start > bytes.len() {
                return Err(RtpError::Extension);
            }
        }
        let mut payload_end = bytes.len();
        if bytes[0] & 0x20 != 0 {
            let padding = usize::from(bytes[bytes.len() - 1]);
            if padding == 0 || padding > payload_end - payload_start {
                return Err(RtpError::Padding);
            }
            payload_end -= padding;
        }
        Ok(Self { bytes, payload_start, payload_end })
    }

    /// Returns the payload type, 0 to 127.
    pub fn payload_type(&self) -> u8 {
        self.bytes[1] & 0x7f
    }

    /// Returns the marker bit: for audio, the first packet of a talkspurt (RFC 3551 4.1).
    pub fn marker(&self) -> bool {
        self.bytes[1] & 0x80 != 0
    }

    /// Returns the sequence number.
    pub fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.bytes[2], self.bytes[3]])
    }

    /// Returns the timestamp in ticks of the payload type's clock.
    pub fn timestamp(&self) -> u32 {
        self.word(4)
    }

    /// Returns sequence number and timestamp.
    pub fn numbering(&self) -> Numbering {
        Numbering { sequence: self.sequence(), timestamp: self.timestamp() }
    }

    /// Returns the synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.word(8)
    }

    /// Returns the contributing sources, at most 15.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + 'a {
        let end = HEADER_LEN + 4 * usize::from(self.bytes[0] & 0x0f);
        self.bytes[HEADER_LEN..end].chunks_exact(4).map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]))
    }

    /// Returns profile and contents of the header extension, if there is one (RFC 3550 5.3.1).
    pub fn extension(&self) -> Option<(u16, &'a [u8])> {
        if self.bytes[0] & 0x10 == 0 {
            return None;
        }
        let start = HEADER_LEN + 4 * usize::from(self.bytes[0] & 0x0f);
        let profile = read_u16(self.bytes, start)?;
        Some((profile, &self.bytes[start + 4..self.payload_start]))
    }

    /// Returns the payload without padding.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.payload_start..self.payload_end]
    }

    /// Returns where in the packet the payload is.
    pub(crate) fn payload_range(&self) -> std::ops::Range<usize> {
        self.payload_start..self.payload_end
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]])
    }
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

#[cfg(test)]
mod tests;
