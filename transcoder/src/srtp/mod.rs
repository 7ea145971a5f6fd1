//! SRTP and SRTCP (RFC 3711), with AES-256 (RFC 6188) and Galois/counter mode (RFC 7714).
//!
//! One [`SrtpSender`] and one [`SrtpReceiver`] serve a leg: RTP and RTCP of every synchronisation
//! source under one master key, or under several told apart by identifiers. Packets are protected
//! and unprotected in place in the caller's buffer; nothing is allocated for a packet. Keys are
//! derived once (key derivation rate 0, RFC 3711 4.3.1), overwritten when dropped, and in no `Debug`.

mod receiver;
mod sender;
mod transform;
mod window;

pub use receiver::SrtpReceiver;
pub use sender::SrtpSender;

/// Sources of one direction at most. One more is refused, for to forget one would be to forget what
/// of it has come, and let it be replayed.
pub const MAX_SOURCES: usize = 64;
/// Longest packet in octets, trailer included.
pub const MAX_PACKET: usize = 2_048;
/// Octets that protection adds to a packet at most: authentication tag, SRTCP index, and a master key
/// identifier of the longest kind (RFC 3711 3.1, 3.4; RFC 4568 6.1).
pub const MAX_OVERHEAD: usize = 16 + 4 + call_model::SrtpKey::MKI_BYTES_MAX;
/// SRTCP packets under one master key at most (RFC 3711 9.2).
const MAX_RTCP_LIFETIME: u64 = 1 << 31;
/// Octets of an RTCP header that stay in the clear (RFC 3711 3.4).
const RTCP_HEADER_LEN: usize = 8;

/// Why a packet was not protected or unprotected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SrtpError {
    /// It ends before its header and trailer do, or is not of version 2.
    #[error("not an RTP or RTCP packet")]
    Malformed,
    /// It is longer than [`MAX_PACKET`], or the buffer has no room for the trailer.
    #[error("packet too long for the buffer")]
    TooLong,
    /// Its authentication tag is not right (RFC 3711 3.3).
    #[error("authentication failed")]
    Authentication,
    /// It has come before (RFC 3711 3.3.2).
    #[error("packet replayed")]
    Replayed,
    /// It is older than what the replay list reaches back to (RFC 3711 3.3.2).
    #[error("packet older than the replay list")]
    TooOld,
    /// Its source would be one more than [`MAX_SOURCES`].
    #[error("too many sources")]
    TooManySources,
    /// Its master key identifier names no key (RFC 3711 3.1).
    #[error("unknown master key identifier")]
    UnknownKey,
    /// The key has protected as many packets as it may (RFC 3711 9.2).
    #[error("the master key's lifetime is over")]
    Expired,
}

impl SrtpError {
    /// Every error, in the order of [`SrtpReceiver::refused_for`].
    pub const ALL: [SrtpError; 8] = [
        SrtpError::Malformed,
        SrtpError::TooLong,
        SrtpError::Authentication,
        SrtpError::Replayed,
        SrtpError::TooOld,
        SrtpError::TooManySources,
        SrtpError::UnknownKey,
        SrtpError::Expired,
    ];

    /// Returns the error as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            SrtpError::Malformed => "malformed",
            SrtpError::TooLong => "too_long",
            SrtpError::Authentication => "authentication",
            SrtpError::Replayed => "replayed",
            SrtpError::TooOld => "too_old",
            SrtpError::TooManySources => "too_many_sources",
            SrtpError::UnknownKey => "unknown_key",
            SrtpError::Expired => "expired",
        }
    }
}

/// What of an RTP header protection must know.
#[derive(Clone, Copy)]
struct RtpHeader {
    /// Octets in the clear: fixed header, CSRCs, extension (RFC 3711 3.1).
    len: usize,
    sequence: u16,
    ssrc: u32,
}

impl RtpHeader {
    fn read(packet: &[u8]) -> Result<Self, SrtpError> {
        let fixed: &[u8; 12] = packet.first_chunk().ok_or(SrtpError::Malformed)?;
        if fixed[0] >> 6 != 2 {
            return Err(SrtpError::Malformed);
        }
        let mut len = 12 + 4 * usize::from(fixed[0] & 0x0f);
        if fixed[0] & 0x10 != 0 {
            let words = packet.get(len + 2..len + 4).ok_or(SrtpError::Malformed)?;
            len += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        if len > packet.len() {
            return Err(SrtpError::Malformed);
        }
        let sequence = u16::from_be_bytes([fixed[2], fixed[3]]);
        Ok(Self { len, sequence, ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]) })
    }
}

/// Reads the source of an RTCP packet.
fn rtcp_source(packet: &[u8]) -> Result<u32, SrtpError> {
    let header: &[u8; RTCP_HEADER_LEN] = packet.first_chunk().ok_or(SrtpError::Malformed)?;
    if header[0] >> 6 != 2 {
        return Err(SrtpError::Malformed);
    }
    Ok(u32::from_be_bytes([header[4], header[5], header[6], header[7]]))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
