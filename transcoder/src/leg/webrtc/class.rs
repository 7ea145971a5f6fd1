//! What kind of datagram came.

/// RFC 7983 7, with RTP told from RTCP by the payload type (RFC 5761 4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Dtls,
    Rtp,
    Rtcp,
    /// STUN, or nothing that is known here.
    Other,
}

impl Class {
    pub(super) fn of(packet: &[u8]) -> Self {
        match packet {
            [20..=63, ..] => Class::Dtls,
            [128..=191, second, _, ..] if (64..96).contains(&(second & 0x7f)) => Class::Rtcp,
            [128..=191, _, _, ..] => Class::Rtp,
            _ => Class::Other,
        }
    }
}
