//! Which of the latest sequence numbers have come.

/// Numbers remembered below the highest.
const SPAN: u64 = 128;

/// A sliding bit map of extended sequence numbers; bit 0 is the highest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SeenWindow {
    highest: u64,
    bits: u128,
}

impl SeenWindow {
    /// Notes a number and says whether it is new. What lies below the window counts as old.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if self.bits == 0 || number > self.highest {
            let shift = number.saturating_sub(self.highest);
            self.bits = if self.bits == 0 || shift >= SPAN { 0 } else { self.bits << shift };
            self.bits |= 1;
            self.highest = number;
            return true;
        }
        let below = self.highest - number;
        if below >= SPAN || self.bits >> below & 1 == 1 {
            return false;
        }
        self.bits |= 1 << below;
        true
    }

    /// Counts the numbers in `from..to` that have not come; what lies below the window has not.
    pub(super) fn missing(&self, from: u64, to: u64) -> u64 {
        let total = to.saturating_sub(from);
        let remembered = from.max(self.highest.saturating_sub(SPAN - 1));
        let come = (remembered..to.min(self.highest.saturating_add(1))).filter(|&n| self.has(n)).count();
        total - (come as u64).min(total)
    }

    /// Returns the first number in `from..to` that has not come, or `to`.
    pub(super) fn first_missing(&self, from: u64, to: u64) -> u64 {
        (from..to).find(|&number| !self.has(number)).unwrap_or(to)
    }

    fn has(&self, number: u64) -> bool {
        match self.highest.checked_sub(number) {
            Some(below) if below < SPAN => self.bits >> below & 1 == 1,
            _ => false,
        }
    }
}
