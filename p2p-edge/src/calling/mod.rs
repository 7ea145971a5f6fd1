//! Call signalling of the overlay, `/causeway/call/1`: wire frames, the state machine of one call
//! with one device, and the hunt for the device that answers.
//!
//! Everything here is sans-IO. Time comes in as `now`, bytes come in and go out as slices, and no
//! random number is drawn: nonce and resumption token are arguments. One stream carries one call.
//! A stream that is lost can be replaced by another (`resume`), because media does not ride on it.

mod frame;
mod hunt;
mod session;
mod wire;

#[cfg(test)]
mod tests;

pub use frame::{AckCode, Body, Frame, FrameError, Invite, ResumeToken};
pub use hunt::{DeviceId, HUNT_REACH, Hunt, MAX_DEVICES};
pub use session::{
    CallSession, CommandError, EndedBy, ResumeError, Role, SessionCommand, SessionCounters, SessionEvent,
    SessionState, SessionTimers,
};
pub use wire::{FrameDecoder, MAX_FRAME};

use call_model::CallId;

/// The name under which the call protocol is negotiated.
pub const PROTOCOL: &str = "/causeway/call/1";

/// Longest free text of a frame (message, reason), in bytes.
pub const MAX_TEXT: usize = 512;
/// Longest session description of a frame, in bytes.
pub const MAX_MEDIA: usize = 8 * 1024;
/// Longest encoded certificate or chain of an invite, in bytes.
pub const MAX_CERTIFICATE: usize = 6 * 1024;
/// Longest signature of an invite, in bytes.
pub const MAX_SIGNATURE: usize = 256;
/// Longest DTMF digit, in milliseconds.
pub const MAX_DTMF_MS: u16 = 6_000;

/// What a node does with its own call when a call from the very party it is calling comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glare {
    /// The own call goes on; the other is rejected as busy.
    KeepOwn,
    /// The own call is given up in favour of the other.
    YieldOwn,
}

/// Decides between two calls that cross between the same two handles: the lower call id wins, so
/// both ends decide alike without another message.
pub fn glare(own: CallId, theirs: CallId) -> Glare {
    if own <= theirs { Glare::KeepOwn } else { Glare::YieldOwn }
}
