//! The numbers of packets that one leg received and another passes on.

use super::Numbering;

/// Packets after which the point that numbers are counted from moves on, and how far it stays
/// behind: later packets than that are too late for anybody.
const MOVE_ANCHOR: u16 = 1_024;
const KEEP_BEHIND: u16 = 512;

/// The number that a packet had, and the one that it got.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    from: u16,
    to: u16,
}

/// Gives packets numbers under another source, with the gaps and in the order they had (RFC 3550 7.1).
#[derive(Clone, Debug, Default)]
pub(crate) struct Renumbering {
    anchor: Option<Anchor>,
    /// The source that is passed on, and what its timestamps are moved by.
    offset: Option<(u32, u32)>,
    late: u64,
}

impl Renumbering {
    /// Numbers a packet, where `next` is what a packet would have that follows all before on the way out. Says
    /// whether it is the first after a pause. `None`: it is from before one, and its number has been given away.
    pub(crate) fn number(
        &mut self,
        ssrc: u32,
        packet: Numbering,
        next: Numbering,
    ) -> Option<(Numbering, bool)> {
        let offset = match self.offset {
            Some((known, offset)) if known == ssrc => offset,
            // Another source, another clock: it begins where the one before stands by now.
            _ => {
                self.anchor = None;
                let offset = next.timestamp.wrapping_sub(packet.timestamp);
                self.offset = Some((ssrc, offset));
                offset
            }
        };
        let resumed = self.anchor.is_none();
        let anchor = self.anchor.get_or_insert(Anchor { from: packet.sequence, to: next.sequence });
        let ahead = packet.sequence.wrapping_sub(anchor.from);
        if ahead.cast_signed() < 0 {
            self.late += 1;
            return None;
        }
        let numbering = Numbering {
            sequence: anchor.to.wrapping_add(ahead),
            timestamp: packet.timestamp.wrapping_add(offset),
        };
        if ahead > MOVE_ANCHOR {
            let step = ahead - KEEP_BEHIND;
            (anchor.from, anchor.to) = (anchor.from.wrapping_add(step), anchor.to.wrapping_add(step));
        }
        Some((numbering, resumed))
    }

    /// Lets the next packet follow what goes out meanwhile, so that no gap is seen.
    pub(crate) fn pause(&mut self) {
        self.anchor = None;
    }

    /// Returns how many packets came from before a pause.
    pub(crate) fn late(&self) -> u64 {
        self.late
    }
}
