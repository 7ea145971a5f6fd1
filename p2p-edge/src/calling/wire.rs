//! The frames of a call on a stream.

use super::frame::{Frame, FrameError};
use crate::framing::{self, FramingError, Splitter};

pub(super) use crate::framing::with_length;

/// Longest frame without its length, in bytes.
pub const MAX_FRAME: usize = framing::MAX_FRAME;

/// Cuts a byte stream into frames, however the stream was split. Holds at most one frame.
#[derive(Debug, Default)]
pub struct FrameDecoder(Splitter);

impl FrameDecoder {
    /// Creates a decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` until one frame is complete or `input` is used up.
    /// Call it again with the rest of `input` after each frame.
    ///
    /// # Errors
    /// `TooLong` and `BadVarint` leave the stream without frame boundaries: close it. After any
    /// other error the next frame can still be read.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let body = self.0.feed(input).map_err(|error| match error {
            FramingError::TooLong => FrameError::TooLong,
            FramingError::BadVarint => FrameError::BadVarint,
        })?;
        body.map(|body| Frame::decode(&body)).transpose()
    }
}
