//! Which of the latest sequence numbers have come.

/// Numbers remembered below the highest: ten seconds at 20 ms.
const SPAN: u64 = 512;
const WORD: u64 = u64::BITS as u64;

/// A ring of bits, one for each of the extended sequence numbers up to the highest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SeenWindow {
    /// One more than the highest; 0 before the first.
    end: u64,
    bits: [u64; (SPAN / WORD) as usize],
}

impl SeenWindow {
    /// Notes a number and says whether it is new. What lies below the window counts as old.
    pub(super) fn insert(&mut self, number: u64) -> bool {
        if self.end == 0 || number >= self.end {
            let from = self.end.max((number + 1).saturating_sub(SPAN));
            for gone in from..number {
                *self.word(gone) &= !bit(gone);
            }
            *self.word(number) |= bit(number);
            self.end = number + 1;
            return true;
        }
        if self.end - number > SPAN || self.has(number) {
            return false;
        }
        *self.word(number) |= bit(number);
        true
    }

    /// Counts the numbers in `from..to` that have not come; what lies below the window has not.
    pub(super) fn missing(&self, from: u64, to: u64) -> u64 {
        let total = to.saturating_sub(from);
        let remembered = from.max(self.end.saturating_sub(SPAN));
        let come = (remembered..to.min(self.end)).filter(|&n| self.has(n)).count();
        total - (come as u64).min(total)
    }

    /// Returns the first number in `from..to` that has not come, or `to`.
    pub(super) fn first_missing(&self, from: u64, to: u64) -> u64 {
        (from..to).find(|&number| !self.has(number)).unwrap_or(to)
    }

    /// Forgets a number. Says whether it was there.
    pub(super) fn remove(&mut self, number: u64) -> bool {
        let had = self.has(number);
        if had {
            *self.word(number) &= !bit(number);
        }
        had
    }

    /// Says whether a number has come.
    pub(super) fn has(&self, number: u64) -> bool {
        let known = number < self.end && self.end - number <= SPAN;
        known && self.bits.get((number % SPAN / WORD) as usize).is_some_and(|word| word & bit(number) != 0)
    }

    fn word(&mut self, number: u64) -> &mut u64 {
        // Within the array whatever the number.
        &mut self.bits[(number % SPAN / WORD) as usize]
    }
}

fn bit(number: u64) -> u64 {
    1 << (number % WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_known_as_long_as_the_window_holds_them() {
        let mut window = SeenWindow::default();
        for number in [1_000, 1_002, 1_511] {
            assert!(window.insert(number) && !window.insert(number), "{number}");
        }
        assert!(window.insert(1_001) && !window.insert(1_001));
        assert_eq!((window.missing(1_000, 1_512), window.first_missing(1_000, 1_512)), (508, 1_003));
        // 1 512 takes the place of 1 000, which is old from now on.
        assert!(window.insert(1_512) && !window.insert(1_000) && !window.insert(999));
        assert!(window.insert(9_000) && window.insert(8_999) && !window.insert(1_512));
        assert_eq!(window.missing(8_000, 9_001), 999);
    }
}
