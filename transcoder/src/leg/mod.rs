//! The two kinds of leg: WebRTC towards the overlay, RTP towards a trunk.

mod buffers;
pub mod rtp;
mod security;
mod source;
pub mod webrtc;

pub(crate) use buffers::Buffers;
pub use buffers::Payload;

/// What a packet of a leg carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// A frame of the negotiated voice codec.
    Audio,
    /// A named telephone event (RFC 4733).
    TelephoneEvent,
    /// Comfort noise (RFC 3389), towards trunks only.
    ComfortNoise,
}

/// A packet that a leg accepted.
#[derive(Clone, Debug)]
pub struct LegPacket {
    /// What the payload is.
    pub kind: PayloadKind,
    /// RTP sequence number.
    pub sequence: u16,
    /// RTP timestamp, in units of the codec's RTP clock.
    pub timestamp: u32,
    /// RTP marker bit.
    pub marker: bool,
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// The payload without header and padding.
    pub payload: Payload,
}
