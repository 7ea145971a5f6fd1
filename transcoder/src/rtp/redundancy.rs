//! Redundant audio data (RFC 2198): a packet that carries copies of frames before its own.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |1|   block PT  |  timestamp offset         |   block length    |   for each copy
//! |0|   block PT  |                                                  for the frame itself
//! ```
//!
//! The headers come first, then the data of the blocks in the same order: the copies, the oldest first, then the
//! frame, which is what is left.

use std::ops::Range;

/// Copies that a packet may carry beside its own frame. RFC 2198 has no bound; nothing here is of use that reaches
/// further back.
pub const MAX_COPIES: usize = 4;
/// Ticks that a copy may lie back at most: 14 bits (RFC 2198 3).
pub const MAX_OFFSET: u32 = 0x3fff;
/// Octets of a copy at most: 10 bits (RFC 2198 3).
pub const MAX_COPY_LEN: usize = 0x3ff;

/// Octets of the header of a copy, and of that of the frame (RFC 2198 3).
const COPY_HEADER_LEN: usize = 4;
const FRAME_HEADER_LEN: usize = 1;

/// Why a payload is not redundant audio data, or could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RedundancyError {
    /// It ends within its headers.
    #[error("ends within its headers")]
    Truncated,
    /// It has more copies than [`MAX_COPIES`].
    #[error("has too many copies")]
    TooManyCopies,
    /// The lengths of its copies run past its end.
    #[error("copies run past the end")]
    Length,
    /// A block is of another payload type than was negotiated.
    #[error("block of another payload type")]
    PayloadType,
    /// Nothing is left for the frame itself.
    #[error("no frame behind the copies")]
    NoFrame,
    /// A copy is longer, or lies further back, than its header can say.
    #[error("copy does not fit its header")]
    Copy,
    /// The output buffer is too short.
    #[error("output buffer too short")]
    OutputTooShort,
}

impl RedundancyError {
    /// What a received payload can be refused for, in the order of the counters.
    pub const OF_RECEIVED: [RedundancyError; 5] = [
        RedundancyError::Truncated,
        RedundancyError::TooManyCopies,
        RedundancyError::Length,
        RedundancyError::PayloadType,
        RedundancyError::NoFrame,
    ];

    /// Returns the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            RedundancyError::Truncated => "truncated",
            RedundancyError::TooManyCopies => "too_many_copies",
            RedundancyError::Length => "length",
            RedundancyError::PayloadType => "payload_type",
            RedundancyError::NoFrame => "no_frame",
            RedundancyError::Copy => "copy",
            RedundancyError::OutputTooShort => "output_too_short",
        }
    }
}

/// Where a copy lies in a payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyPlace {
    /// Ticks before the packet's own timestamp, 0 to [`MAX_OFFSET`].
    pub offset: u32,
    /// Its octets in the payload.
    pub range: Range<usize>,
}

/// Where everything lies in a payload. Everything is of the payload type asked for; the frame is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    copies: [CopyPlace; MAX_COPIES],
    count: usize,
    frame: Range<usize>,
}

impl Layout {
    /// Reads the headers of a payload whose blocks are all of `payload_type` (RFC 2198 3, 4).
    ///
    /// # Errors
    /// All of [`RedundancyError::OF_RECEIVED`].
    pub fn parse(payload: &[u8], payload_type: u8) -> Result<Self, RedundancyError> {
        let mut layout = Self::default();
        let mut at = 0;
        loop {
            let first = *payload.get(at).ok_or(RedundancyError::Truncated)?;
            if first & 0x7f != payload_type {
                return Err(RedundancyError::PayloadType);
            }
            if first & 0x80 == 0 {
                at += FRAME_HEADER_LEN;
                break;
            }
            let header = payload.get(at + 1..at + COPY_HEADER_LEN).ok_or(RedundancyError::Truncated)?;
            let bits = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let place = layout.copies.get_mut(layout.count).ok_or(RedundancyError::TooManyCopies)?;
            let length = bits as usize & MAX_COPY_LEN;
            *place = CopyPlace { offset: bits >> 10, range: 0..length };
            layout.count += 1;
            at += COPY_HEADER_LEN;
        }
        for place in &mut layout.copies[..layout.count] {
            place.range = at..at + place.range.end;
            at = place.range.end;
        }
        match at.cmp(&payload.len()) {
            std::cmp::Ordering::Less => layout.frame = at..payload.len(),
            std::cmp::Ordering::Equal => return Err(RedundancyError::NoFrame),
            std::cmp::Ordering::Greater => return Err(RedundancyError::Length),
        }
        Ok(layout)
    }

    /// Returns the copies, the oldest first as a rule.
    pub fn copies(&self) -> &[CopyPlace] {
        &self.copies[..self.count]
    }

    /// Returns where the frame lies.
    pub fn frame(&self) -> Range<usize> {
        self.frame.clone()
    }
}

/// A copy to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copy<'a> {
    /// Ticks before the packet's own timestamp, 1 to [`MAX_OFFSET`].
    pub offset: u32,
    /// Its octets, at most [`MAX_COPY_LEN`].
    pub payload: &'a [u8],
}

/// Returns the octets of a payload with these copies and a frame of so many.
pub fn encoded_len(copies: &[Copy<'_>], frame: usize) -> usize {
    let copied: usize = copies.iter().map(|copy| COPY_HEADER_LEN + copy.payload.len()).sum();
    copied + FRAME_HEADER_LEN + frame
}

/// Writes a payload, all blocks of `payload_type` (RFC 2198 3), and returns its length in octets.
///
/// # Errors
/// [`RedundancyError::TooManyCopies`], [`RedundancyError::Copy`], [`RedundancyError::NoFrame`],
/// [`RedundancyError::OutputTooShort`].
pub fn encode(
    payload_type: u8,
    copies: &[Copy<'_>],
    frame: &[u8],
    out: &mut [u8],
) -> Result<usize, RedundancyError> {
    if copies.len() > MAX_COPIES {
        return Err(RedundancyError::TooManyCopies);
    }
    if frame.is_empty() {
        return Err(RedundancyError::NoFrame);
    }
    let length = encoded_len(copies, frame.len());
    let out = out.get_mut(..length).ok_or(RedundancyError::OutputTooShort)?;
    let (headers, mut data) = out.split_at_mut(COPY_HEADER_LEN * copies.len() + FRAME_HEADER_LEN);
    let (of_copies, of_frame) = headers.split_at_mut(COPY_HEADER_LEN * copies.len());
    for (copy, header) in copies.iter().zip(of_copies.chunks_exact_mut(COPY_HEADER_LEN)) {
        if copy.offset > MAX_OFFSET || copy.payload.len() > MAX_COPY_LEN {
            return Err(RedundancyError::Copy);
        }
        let bits = copy.offset << 10 | copy.payload.len() as u32;
        header.copy_from_slice(&(bits | u32::from(0x80 | payload_type & 0x7f) << 24).to_be_bytes());
        let (place, rest) = data.split_at_mut(copy.payload.len());
        place.copy_from_slice(copy.payload);
        data = rest;
    }
    of_frame[0] = payload_type & 0x7f;
    data.copy_from_slice(frame);
    Ok(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPUS: u8 = 111;

    // RFC 2198 4, the packet of the example with a block of 20 ms at 8 kHz before: its headers, the types made one.
    #[test]
    fn headers_lie_as_rfc_2198_draws_them() {
        let mut out = [0; 64];
        let copy = Copy { offset: 160, payload: &[7; 14] };
        let length = encode(5, &[copy], &[9; 28], &mut out).unwrap();
        // F=1, PT 5, offset 160 = 0b00_0000_1010_0000, length 14 = 0b00_0000_1110; F=0, PT 5.
        assert_eq!(out[..5], [0x85, 0b0000_0010, 0b1000_0000, 0b0000_1110, 0x05]);
        assert_eq!((&out[5..19], &out[19..length], length), (&[7; 14][..], &[9; 28][..], 47));
        let layout = Layout::parse(&out[..length], 5).unwrap();
        assert_eq!(layout.copies(), [CopyPlace { offset: 160, range: 5..19 }]);
        assert_eq!(layout.frame(), 19..47);
    }

    // What a browser sends with `a=fmtp:63 111/111`: one copy, 20 ms back at 48 kHz.
    #[test]
    fn a_packet_as_browsers_send_it_is_read() {
        let packet = [0xef, 0x0f, 0x00, 0x02, 0x6f, 0x78, 0x01, 0x78, 0x02, 0x03];
        let layout = Layout::parse(&packet, OPUS).unwrap();
        assert_eq!(layout.copies(), [CopyPlace { offset: 960, range: 5..7 }]);
        assert_eq!(&packet[layout.frame()], [0x78, 0x02, 0x03]);
        let mut out = [0; 10];
        let copy = Copy { offset: 960, payload: &[0x78, 0x01] };
        assert_eq!(encode(OPUS, &[copy], &[0x78, 0x02, 0x03], &mut out), Ok(10));
        assert_eq!(out, packet);
    }

    #[test]
    fn every_malformed_form_is_refused_with_its_reason() {
        let refused = |payload: &[u8]| Layout::parse(payload, OPUS).unwrap_err();
        let copy = [0xef, 0x0f, 0x00, 0x01];
        for cut in 0..4 {
            assert_eq!(refused(&copy[..cut]), RedundancyError::Truncated, "{cut}");
        }
        // Headers of copies, and no header of the frame.
        assert_eq!(refused(&copy), RedundancyError::Truncated);
        assert_eq!(
            refused(&[&copy.repeat(5)[..], &[0x6f, 1, 2, 3, 4, 5, 6]].concat()),
            RedundancyError::TooManyCopies
        );
        assert_eq!(refused(&[&copy.repeat(2)[..], &[0x6f, 1]].concat()), RedundancyError::Length);
        assert_eq!(refused(&[&copy[..], &[0x6f, 1]].concat()), RedundancyError::NoFrame);
        assert_eq!(refused(&[0x6f]), RedundancyError::NoFrame);
        assert_eq!(refused(&[0x6e, 1]), RedundancyError::PayloadType);
        assert_eq!(refused(&[0xee, 0x0f, 0x00, 0x01, 0x6f, 1, 2]), RedundancyError::PayloadType);
        assert_eq!(RedundancyError::OF_RECEIVED.map(|reason| reason as usize), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_no_header_can_say_is_not_written() {
        let mut out = [0; 2_048];
        let long = [0; MAX_COPY_LEN + 1];
        let fits = Copy { offset: MAX_OFFSET, payload: &long[1..] };
        assert_eq!(encode(OPUS, &[fits], &[1], &mut out), Ok(4 + 1_023 + 1 + 1));
        let too_far = Copy { offset: MAX_OFFSET + 1, payload: &[1] };
        let too_long = Copy { offset: 960, payload: &long };
        assert_eq!(encode(OPUS, &[too_far], &[1], &mut out), Err(RedundancyError::Copy));
        assert_eq!(encode(OPUS, &[too_long], &[1], &mut out), Err(RedundancyError::Copy));
        assert_eq!(encode(OPUS, &[fits; 5], &[1], &mut out), Err(RedundancyError::TooManyCopies));
        assert_eq!(encode(OPUS, &[], &[], &mut out), Err(RedundancyError::NoFrame));
        assert_eq!(encode(OPUS, &[], &[1, 2], &mut out[..2]), Err(RedundancyError::OutputTooShort));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            payload_type in 0u8..128,
            copies in prop::collection::vec((0..=MAX_OFFSET, prop::collection::vec(any::<u8>(), 0..=MAX_COPY_LEN)), 0..=4),
            frame in prop::collection::vec(any::<u8>(), 1..400),
        ) {
            let written: Vec<Copy<'_>> =
                copies.iter().map(|(offset, payload)| Copy { offset: *offset, payload }).collect();
            let mut out = vec![0; encoded_len(&written, frame.len())];
            prop_assert_eq!(encode(payload_type, &written, &frame, &mut out), Ok(out.len()));
            let layout = Layout::parse(&out, payload_type).unwrap();
            let read: Vec<Copy<'_>> = layout
                .copies()
                .iter()
                .map(|place| Copy { offset: place.offset, payload: &out[place.range.clone()] })
                .collect();
            prop_assert_eq!(read, written);
            prop_assert_eq!(&out[layout.frame()], &frame[..]);
        }

        #[test]
        fn anything_is_read_within_its_bounds_or_refused(payload in prop::collection::vec(any::<u8>(), 0..100), own in any::<bool>()) {
            // Half of them with types that fit, so that the lengths are read.
            let mut payload = payload;
            if own {
                payload.iter_mut().step_by(4).for_each(|octet| *octet = *octet & 0x80 | OPUS);
            }
            match Layout::parse(&payload, OPUS) {
                Ok(layout) => {
                    prop_assert_eq!(layout.frame().end, payload.len());
                    prop_assert!(!layout.frame().is_empty() && layout.copies().len() <= MAX_COPIES);
                    let mut at = 4 * layout.copies().len() + 1;
                    for place in layout.copies() {
                        prop_assert!(place.range.start == at && place.offset <= MAX_OFFSET);
                        at = place.range.end;
                    }
                    prop_assert_eq!(at, layout.frame().start);
                }
                Err(reason) => prop_assert!(RedundancyError::OF_RECEIVED.contains(&reason)),
            }
        }
    }
}
