//! The last frames that were sent, for packets that carry them once more (RFC 2198).

use crate::codec::redundancy::MAX_DEPTH;
use crate::rtp::redundancy::{Copy, MAX_COPIES, encoded_len};

const DEPTH: usize = MAX_DEPTH as usize;
/// Longest frame that is kept, in octets: 20 ms at 120 kbit/s. Longer ones are not sent twice.
const LONGEST: usize = 300;
/// Octets of a payload with its copies at most, so that no path has to take the packet apart: the least MTU of IPv6
/// without the headers of IP, UDP and RTP and what SRTP adds (RFC 8200 5).
const MAX_PAYLOAD: usize = 1_180;

/// Frames that follow each other without a gap, the newest last. Allocates nothing after it was built.
#[derive(Debug)]
pub(super) struct History {
    octets: Box<[[u8; LONGEST]; DEPTH]>,
    /// Their lengths; 0 for one that was too long to keep.
    lengths: [usize; DEPTH],
    count: usize,
    /// Timestamp that follows them, and the place after the newest.
    next: u32,
    at: usize,
}

impl History {
    pub(super) fn new() -> Self {
        Self { octets: Box::new([[0; LONGEST]; DEPTH]), lengths: [0; DEPTH], count: 0, next: 0, at: 0 }
    }

    /// Keeps a frame that was sent. Where it does not follow the last one, those before it are of no use: a
    /// copy says by its timestamp alone how many packets it lies back.
    pub(super) fn push(&mut self, timestamp: u32, duration: u32, frame: &[u8]) {
        if timestamp != self.next {
            self.count = 0;
        }
        self.next = timestamp.wrapping_add(duration);
        self.lengths[self.at] = 0;
        if let Some(place) = self.octets[self.at].get_mut(..frame.len()) {
            place.copy_from_slice(frame);
            self.lengths[self.at] = frame.len();
        }
        self.at = (self.at + 1) % DEPTH;
        self.count = (self.count + 1).min(DEPTH);
    }

    /// Returns copies of the last `depth` frames, the oldest first, for a packet with `timestamp` and a frame of so
    /// many octets, and their number: none if they do not lie straight before it, and fewer if they would not fit.
    pub(super) fn copies(
        &self,
        timestamp: u32,
        duration: u32,
        frame: usize,
        depth: u8,
    ) -> ([Copy<'_>; MAX_COPIES], usize) {
        let (mut copies, mut found) = ([Copy::default(); MAX_COPIES], 0);
        if timestamp != self.next {
            return (copies, 0);
        }
        let mut length = encoded_len(&[], frame);
        // The newest are worth most, so they are looked for first.
        for distance in 1..=usize::from(depth).min(self.count) {
            let place = (self.at + DEPTH - distance) % DEPTH;
            let payload = &self.octets[place][..self.lengths[place]];
            let copy = Copy { offset: duration * distance as u32, payload };
            let longer = length + encoded_len(&[copy], 0) - encoded_len(&[], 0);
            if payload.is_empty() || longer > MAX_PAYLOAD {
                break;
            }
            (copies[found], length) = (copy, longer);
            found += 1;
        }
        copies[..found].reverse();
        (copies, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u32 = 960;

    /// Offset in frames and first octet of each copy.
    fn copies(history: &History, at: u32, frame: usize, depth: u8) -> Vec<(u32, u8)> {
        let (copies, count) = history.copies(at.wrapping_mul(FRAME), FRAME, frame, depth);
        copies[..count].iter().map(|copy| (copy.offset / FRAME, copy.payload[0])).collect()
    }

    #[test]
    fn the_last_frames_come_the_oldest_first() {
        let mut history = History::new();
        assert_eq!(copies(&history, 0, 40, 3), []);
        for n in 0..5u8 {
            history.push(u32::from(n) * FRAME, FRAME, &[n; 40]);
        }
        assert_eq!(copies(&history, 5, 40, 3), [(3, 2), (2, 3), (1, 4)]);
        assert_eq!(copies(&history, 5, 40, 1), [(1, 4)]);
        assert_eq!(copies(&history, 5, 40, 0), []);
        assert_eq!(copies(&history, 6, 40, 3), [], "a frame was not sent between");
        history.push(6 * FRAME, FRAME, &[6]);
        assert_eq!(copies(&history, 7, 40, 3), [(1, 6)]);
    }

    #[test]
    fn timestamps_go_on_beyond_their_wrap() {
        let mut history = History::new();
        history.push(0u32.wrapping_sub(2 * FRAME), FRAME, &[1]);
        history.push(0u32.wrapping_sub(FRAME), FRAME, &[2]);
        assert_eq!(copies(&history, 0, 40, 3), [(2, 1), (1, 2)]);
    }

    #[test]
    fn a_packet_stays_below_the_least_mtu() {
        let mut history = History::new();
        for n in 0..3u8 {
            history.push(u32::from(n) * FRAME, FRAME, &[n; LONGEST]);
        }
        assert_eq!(copies(&history, 3, 260, 3).len(), 3);
        for frame in [270, 600, 1_275] {
            let (made, count) = history.copies(3 * FRAME, FRAME, frame, 3);
            assert!(
                count < 3 && (count == 0 || encoded_len(&made[..count], frame) <= MAX_PAYLOAD),
                "{frame}"
            );
        }
        // One that is too long to keep ends what can be said of those before it.
        history.push(3 * FRAME, FRAME, &[3; LONGEST + 1]);
        assert_eq!(copies(&history, 4, 40, 3), []);
        history.push(4 * FRAME, FRAME, &[4]);
        assert_eq!(copies(&history, 5, 40, 3), [(1, 4)]);
    }
}
