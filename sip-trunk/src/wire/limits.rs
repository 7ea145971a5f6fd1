//! How large a message may be.

/// How large a message may be before it is refused unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageLimits {
    /// Bytes of the start line and all header fields together, with their line ends.
    pub header_bytes: usize,
    /// Header fields, a folded one counted once.
    pub headers: usize,
    /// Bytes of the body.
    pub body_bytes: usize,
}

impl Default for MessageLimits {
    /// 16 KiB of header in 256 fields, 64 KiB of body.
    fn default() -> Self {
        Self { header_bytes: 16 * 1024, headers: 256, body_bytes: 64 * 1024 }
    }
}
