//! Framing of the overlay's streams: an unsigned LEB128 length, then that many bytes.

/// Longest frame without its length, in bytes.
pub(crate) const MAX_FRAME: usize = 16 * 1024;

/// A length of at most 16 KiB takes at most three bytes of seven bits.
const MAX_VARINT: usize = 3;

/// Why a stream has no frame boundaries any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// The frame is longer than [`MAX_FRAME`].
    TooLong,
    /// The length is not in its shortest form.
    BadVarint,
}

/// Puts the length in front of an encoded frame.
pub(crate) fn with_length(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + MAX_VARINT);
    let mut rest = body.len();
    while rest >= 0x80 {
        out.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(body);
    out
}

/// Cuts a byte stream into frames, however the stream was split. Holds at most one frame.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    /// Bytes of the length that have come, and how many.
    length: usize,
    length_bytes: usize,
    /// Set once the length is complete.
    wanted: Option<usize>,
    body: Vec<u8>,
}

impl Splitter {
    /// Takes bytes from the front of `input` until one frame is complete or `input` is used up.
    /// Call it again with the rest of `input` after each frame.
    ///
    /// # Errors
    /// Both leave the stream without frame boundaries: close it.
    pub(crate) fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, FramingError> {
        while self.wanted.is_none() {
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            self.length |= usize::from(byte & 0x7f) << (7 * self.length_bytes);
            self.length_bytes += 1;
            if byte & 0x80 == 0 {
                // Only the shortest form of a length is valid: a last byte of 0 adds nothing.
                if byte == 0 && self.length_bytes > 1 {
                    return Err(FramingError::BadVarint);
                }
                if self.length > MAX_FRAME {
                    return Err(FramingError::TooLong);
                }
                self.wanted = Some(self.length);
            } else if self.length_bytes == MAX_VARINT {
                return Err(FramingError::BadVarint);
            }
        }
        let wanted = self.wanted.unwrap_or(0);
        let take = (wanted - self.body.len()).min(input.len());
        let (now, later) = input.split_at(take);
        self.body.extend_from_slice(now);
        *input = later;
        if self.body.len() < wanted {
            return Ok(None);
        }
        Ok(Some(std::mem::take(self).body))
    }
}
