//! The two kinds of leg: WebRTC towards the overlay, RTP towards a trunk.

mod association;
mod buffers;
mod components;
mod keying;
pub(crate) mod latch;
pub mod rtp;
mod security;
mod source;
mod types;
pub mod webrtc;

pub(crate) use buffers::Buffers;
pub use buffers::Payload;

use crate::codec::g711::Law;
use crate::rtp::redundancy::{Copy, CopyPlace, Layout, MAX_COPIES};

/// What a packet of a leg carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// A frame of the negotiated voice codec: on an overlay leg, of Opus.
    Audio,
    /// A named telephone event (RFC 4733), on the clock of that codec.
    TelephoneEvent,
    /// Comfort noise (RFC 3389), towards trunks only.
    ComfortNoise,
    /// A frame of G.711 beside Opus, on an overlay leg only: in a stream of its own, on a clock of 8000 Hz.
    G711(Law),
    /// A named telephone event on that clock and in that stream.
    G711Event,
}

impl PayloadKind {
    /// Says whether it is a telephone event, on whichever clock.
    pub fn is_event(self) -> bool {
        matches!(self, PayloadKind::TelephoneEvent | PayloadKind::G711Event)
    }

    /// Says whether it belongs to the stream of G.711 beside Opus.
    pub fn is_g711(self) -> bool {
        matches!(self, PayloadKind::G711(_) | PayloadKind::G711Event)
    }
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
    /// The payload without header and padding; of redundant audio data (RFC 2198) the packet's own frame.
    pub payload: Payload,
    pub(crate) copies: CopyPlaces,
}

impl LegPacket {
    /// Returns the copies of earlier frames that came with the packet's own (RFC 2198), the oldest first as a rule.
    pub fn copies(&self) -> impl Iterator<Item = Copy<'_>> {
        let places = &self.copies.places[..self.copies.count];
        places.iter().map(|place| Copy { offset: place.offset, payload: self.payload.beside(&place.range) })
    }
}

/// Where in its packet the copies of earlier frames are.
#[derive(Clone, Debug, Default)]
pub(crate) struct CopyPlaces {
    places: [CopyPlace; MAX_COPIES],
    count: usize,
}

impl CopyPlaces {
    /// Takes over the places in a payload that begins at `start` in its packet.
    pub(crate) fn new(layout: &Layout, start: usize) -> Self {
        let mut copies = Self { count: layout.copies().len(), ..Self::default() };
        for (place, found) in copies.places.iter_mut().zip(layout.copies()) {
            let range = start + found.range.start..start + found.range.end;
            *place = CopyPlace { offset: found.offset, range };
        }
        copies
    }
}
