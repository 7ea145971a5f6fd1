use std::fmt;
use std::net::SocketAddr;

use crate::{DtlsParameters, SrtpKeys};

/// A voice codec of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Opus (RFC 6716, RFC 7587): dynamic payload type, RTP clock 48000 Hz whatever the band.
    Opus,
    /// G.711 mu-law (RFC 3551 4.5.14): payload type 0, 8000 Hz.
    Pcmu,
    /// G.711 A-law (RFC 3551 4.5.14): payload type 8, 8000 Hz.
    Pcma,
    /// G.722 at 64 kbit/s (RFC 3551 4.5.2): payload type 9, wide band. Its RTP clock is 8000 Hz though it is sampled at
    /// 16 kHz.
    G722,
}

impl Codec {
    /// Returns the encoding name of the rtpmap line.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Codec::Opus => "opus",
            Codec::Pcmu => "PCMU",
            Codec::Pcma => "PCMA",
            Codec::G722 => "G722",
        }
    }

    /// Returns the RTP clock rate in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            // RFC 3551 4.5.2: an old mistake that is kept.
            Codec::Pcmu | Codec::Pcma | Codec::G722 => 8_000,
        }
    }

    /// Returns the highest rate in Hz at which the voice in it may be sampled: twice the band that it carries.
    pub fn sample_rate(self) -> u32 {
        match self {
            Codec::Opus => 48_000,
            Codec::G722 => 16_000,
            Codec::Pcmu | Codec::Pcma => 8_000,
        }
    }

    /// Returns the static payload type of RFC 3551 6, where there is one.
    pub fn static_payload_type(self) -> Option<u8> {
        match self {
            Codec::Opus => None,
            Codec::Pcmu => Some(0),
            Codec::Pcma => Some(8),
            Codec::G722 => Some(9),
        }
    }
}

/// The direction of media as this side sees it (RFC 8866 6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Sends and receives.
    #[default]
    SendRecv,
    /// Sends only: this side holds the other.
    SendOnly,
    /// Receives only: this side is held.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// Says whether this side sends.
    pub fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// Says whether this side receives.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// Returns the direction as the other side sees it (RFC 3264 6.1).
    pub fn reversed(self) -> Self {
        match self {
            Direction::SendOnly => Direction::RecvOnly,
            Direction::RecvOnly => Direction::SendOnly,
            same => same,
        }
    }

    /// Returns what remains of both: each way only where either allows it.
    #[must_use]
    pub fn restricted_to(self, other: Self) -> Self {
        match (self.sends() && other.sends(), self.receives() && other.receives()) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// Returns the SDP attribute.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }
}

/// How a leg carries DTMF in RTP (RFC 4733).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// Payload type to send with, 0 to 127: the peer's number.
    pub send_payload_type: u8,
    /// Payload type to expect, 0 to 127: ours.
    pub receive_payload_type: u8,
    /// Clock in Hz, that of the codec beside it: 8000 or 48000.
    pub clock_rate: u32,
}

/// How the packets of a leg are protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MediaSecurity {
    /// Plain RTP.
    #[default]
    None,
    /// SRTP with the keys that signalling carried (RFC 4568). Other keys than before, with whatever
    /// else unchanged, mean a new key from the next packet on.
    Sdes(Box<SrtpKeys>),
    /// SRTP keyed by DTLS between the two media addresses (RFC 5763, RFC 5764). Other parameters than before, with
    /// whatever else unchanged, mean a new association.
    DtlsSrtp(Box<DtlsParameters>),
}

/// The result of any media negotiation, however it was spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegMedia {
    /// The codec to send with.
    pub codec: Codec,
    /// Payload type to send with, 0 to 127: the peer's number (RFC 3264 6.1).
    pub send_payload_type: u8,
    /// Payload type to expect, 0 to 127: ours.
    pub receive_payload_type: u8,
    /// Further payload types that may come at any time, with their codecs: the rest of what both
    /// sides agreed on (RFC 3264 6.1).
    pub also_receives: Vec<(u8, Codec)>,
    /// DTMF in RTP, where both sides speak it.
    pub telephone_event: Option<TelephoneEvent>,
    /// Whether both sides speak comfort noise, payload type 13 (RFC 3389 4): silence towards the peer may then be
    /// sent as such. What the peer sends of it is understood in any case. `false` where nothing was said of it.
    pub comfort_noise: bool,
    /// Milliseconds of audio in a packet that is sent: 10 to 60.
    pub packet_time_ms: u16,
    /// Where RTP goes.
    pub remote_rtp: SocketAddr,
    /// Where RTCP goes; `None` where it shares the RTP port (RFC 5761).
    pub remote_rtcp: Option<SocketAddr>,
    /// The direction as this side sees it.
    pub direction: Direction,
    /// How packets are protected.
    pub security: MediaSecurity,
}

/// A DTMF digit: event 0 to 15 of RFC 4733 3.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct DtmfDigit(u8);

impl DtmfDigit {
    const CHARACTERS: &'static [u8; 16] = b"0123456789*#ABCD";

    /// Builds a digit from its event code. Returns `None` above 15.
    pub fn from_event(event: u8) -> Option<Self> {
        (event < 16).then_some(Self(event))
    }

    /// Builds a digit from `0-9 * # A-D` in either case.
    pub fn from_char(c: char) -> Option<Self> {
        let upper = c.to_ascii_uppercase();
        Self::CHARACTERS.iter().position(|&b| char::from(b) == upper).map(|event| Self(event as u8))
    }

    /// Returns the event code, 0 to 15.
    pub fn event(self) -> u8 {
        self.0
    }

    /// Returns the digit as a character.
    pub fn as_char(self) -> char {
        char::from(Self::CHARACTERS[usize::from(self.0)])
    }
}

impl fmt::Display for DtmfDigit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_char())
    }
}

impl fmt::Debug for DtmfDigit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_survives_both_spellings() {
        for event in 0..16 {
            let digit = DtmfDigit::from_event(event).expect("in range");
            assert_eq!(DtmfDigit::from_char(digit.as_char()), Some(digit));
            assert_eq!(digit.event(), event);
        }
        assert_eq!(DtmfDigit::from_event(16), None);
        assert_eq!(DtmfDigit::from_char('a'), DtmfDigit::from_event(12));
        assert_eq!(DtmfDigit::from_char('x'), None);
    }

    // RFC 3551 4.5.2 and 6: an octet of G.722 is a tick of its clock and two samples.
    #[test]
    fn the_clock_of_g722_is_half_of_its_sampling_rate() {
        let codec = Codec::G722;
        assert_eq!((codec.encoding_name(), codec.static_payload_type()), ("G722", Some(9)));
        assert_eq!((codec.clock_rate(), codec.sample_rate()), (8_000, 16_000));
    }

    #[test]
    fn a_held_side_sees_hold_reversed() {
        assert_eq!(Direction::SendOnly.reversed(), Direction::RecvOnly);
        assert_eq!(Direction::Inactive.reversed(), Direction::Inactive);
        assert!(Direction::SendOnly.sends() && !Direction::SendOnly.receives());
    }
}
