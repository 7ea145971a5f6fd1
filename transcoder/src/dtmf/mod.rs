//! DTMF as RTP events (RFC 4733): a receiver that reports every digit exactly once whatever is
//! lost, and a sender. Pure state machines; the digits never pass through a codec. And DTMF as tones
//! (ITU-T Q.23, Q.24), for a far end that knows no events: a detector and a sender.

mod detector;
mod receiver;
mod sender;
mod tones;

pub use detector::ToneDetector;
pub use receiver::{DtmfEvent, DtmfReceiver, Refused};
pub use sender::{DtmfSender, EventPacket, QueueFull};
pub use tones::{ToneSender, frequencies_of};

/// Octets of an event payload (RFC 4733 2.3).
pub const PAYLOAD_LEN: usize = 4;

/// Converts a duration between two clocks in Hz, rounding to nearest and saturating. A clock of 0
/// gives 0.
pub fn convert_ticks(ticks: u32, from: u32, to: u32) -> u32 {
    if from == 0 {
        return 0;
    }
    let converted = (u64::from(ticks) * u64::from(to) + u64::from(from) / 2) / u64::from(from);
    u32::try_from(converted).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
