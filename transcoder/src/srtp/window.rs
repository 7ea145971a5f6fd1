//! Packet indices beyond the wrap of the sequence number, and the replay list (RFC 3711 3.3.1, 3.3.2).

use super::SrtpError;

/// Packets that the replay list reaches back.
pub(super) const SPAN: u64 = 128;

/// Returns the index of a packet: rollover counter and sequence number, taken for the nearest to the
/// highest index so far (RFC 3711 3.3.1, appendix A). Below the first cycle there is nothing.
pub(super) fn estimate(highest: u64, sequence: u16) -> u64 {
    let cycle = highest >> 16;
    let last = highest as u16;
    let cycle = if last < 0x8000 {
        if sequence.saturating_sub(last) > 0x8000 { cycle.saturating_sub(1) } else { cycle }
    } else if last - 0x8000 > sequence {
        // 48 bits hold no more; the lifetime of a key ends before.
        (cycle + 1) & 0xffff_ffff
    } else {
        cycle
    };
    cycle << 16 | u64::from(sequence)
}

/// Which of the latest indices have come; bit 0 is the highest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    highest: u64,
    seen: u128,
}

impl Window {
    /// Begins with an index that has come.
    pub(super) fn new(index: u64) -> Self {
        Self { highest: index, seen: 1 }
    }

    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Says whether a packet of this index may still come.
    pub(super) fn check(&self, index: u64) -> Result<(), SrtpError> {
        match self.highest.checked_sub(index) {
            None => Ok(()),
            Some(below) if below >= SPAN => Err(SrtpError::TooOld),
            Some(below) if self.seen >> below & 1 == 1 => Err(SrtpError::Replayed),
            Some(_) => Ok(()),
        }
    }

    /// Notes an index that [`check`](Self::check) let pass and that is authentic.
    pub(super) fn accept(&mut self, index: u64) {
        match index.checked_sub(self.highest) {
            Some(ahead) => {
                self.seen = if ahead >= SPAN { 1 } else { self.seen << ahead | 1 };
                self.highest = index;
            }
            None => {
                let below = self.highest - index;
                if below < SPAN {
                    self.seen |= 1 << below;
                }
            }
        }
    }
}
