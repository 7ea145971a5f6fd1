//! Sequence numbers and timestamps beyond their wrap (RFC 3550 A.1).

/// Extends numbers of `BITS` bits, 16 or 32, to 64: each is taken for the nearest to the highest
/// one before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrapper<const BITS: u32> {
    highest: Option<u64>,
}

impl<const BITS: u32> Unwrapper<BITS> {
    const MODULUS: u64 = 1 << BITS;

    /// Returns the extended number of `value` and remembers it if it is the highest so far. The
    /// first one gets a cycle count of 1, so that older ones have room below it.
    pub fn extend(&mut self, value: u32) -> u64 {
        let extended = self.peek(value);
        if self.highest.is_none_or(|highest| extended > highest) {
            self.highest = Some(extended);
        }
        extended
    }

    /// Returns what [`Unwrapper::extend`] would, and remembers nothing.
    pub fn peek(&self, value: u32) -> u64 {
        let value = u64::from(value) % Self::MODULUS;
        let Some(highest) = self.highest else { return Self::MODULUS + value };
        let ahead = value.wrapping_sub(highest) % Self::MODULUS;
        if ahead < Self::MODULUS / 2 {
            highest + ahead
        } else {
            // At least half a cycle back. Below the first cycle there is nothing: clamp to forwards.
            highest.checked_sub(Self::MODULUS - ahead).unwrap_or(highest + ahead)
        }
    }

    /// Returns the highest extended number so far.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}
