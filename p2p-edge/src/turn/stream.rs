//! Messages and channel data on a stream (RFC 8656 3.1, 12.5): they follow each other, each padded to
//! four bytes.

use super::message::{HEADER, padded};

/// The longest message or channel data that is read, from a stream or a datagram. Voice and what
/// sets up a call fit into a datagram of the path.
pub const MAX_PACKET: usize = 2048;

/// What lies at the beginning of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// More has to come.
    Partial,
    /// A packet of `length` bytes that takes `taken` bytes of the stream, padding included.
    Whole {
        /// Bytes of the packet.
        length: usize,
        /// Bytes up to the next one.
        taken: usize,
    },
    /// Neither a message nor channel data, or one that is too long: there are no boundaries any more.
    Broken,
}

/// Finds the first packet of what was read from a stream.
pub fn first_frame(bytes: &[u8]) -> Frame {
    let Some([kind, _, high, low]) = bytes.first_chunk::<4>() else {
        return match bytes.first() {
            Some(0x80..) => Frame::Broken,
            _ => Frame::Partial,
        };
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (length, taken) = match kind {
        0x00..=0x3F if length % 4 == 0 => (HEADER + length, HEADER + length),
        0x40..=0x7F => (4 + length, 4 + padded(length)),
        _ => return Frame::Broken,
    };
    if taken > MAX_PACKET {
        Frame::Broken
    } else if bytes.len() < taken {
        Frame::Partial
    } else {
        Frame::Whole { length, taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_into_messages_and_padded_channel_data() {
        let mut bytes = vec![0x40, 0x00, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0];
        bytes.extend([0, 1, 0, 0]);
        bytes.extend([0; 16]);
        for split in 0..12 {
            assert_eq!(first_frame(&bytes[..split]), Frame::Partial, "{split}");
        }
        assert_eq!(first_frame(&bytes), Frame::Whole { length: 9, taken: 12 });
        assert_eq!(first_frame(&bytes[12..]), Frame::Whole { length: 20, taken: 20 });
    }

    #[test]
    fn what_has_no_boundaries_is_broken() {
        for bytes in
            [&b"\xffGET"[..], &[0x80, 0, 0, 0], &[0x80], &[0xff], &[0, 1, 0, 3], &[0x16, 3, 1, 0x0f, 0xfc]]
        {
            assert_eq!(first_frame(bytes), Frame::Broken, "{bytes:x?}");
        }
        // A request of HTTP passes for channel data that is too long, a client hello for a message.
        assert_eq!(first_frame(b"GET / HTTP/1.1"), Frame::Broken);
        let long = u16::try_from(MAX_PACKET).unwrap_or(0).to_be_bytes();
        assert_eq!(first_frame(&[0x40, 0, long[0], long[1]]), Frame::Broken);
    }
}
