use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::DtmfDigit;

/// By which way a digit came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DigitPath {
    /// With the media: a telephone event (RFC 4733) or a tone.
    Media,
    /// With the signalling: INFO.
    Signalling,
}

/// Counts a digit once that comes by both ways, as from peers that send INFO beside telephone events.
/// Each digit is paired with the first like digit of the other way that has none; what comes twice by the same
/// way was pressed twice.
#[derive(Clone, Debug, Default)]
pub struct DigitFilter {
    /// Digits that have no counterpart yet, the oldest first.
    alone: VecDeque<(DigitPath, DtmfDigit, Instant)>,
}

impl DigitFilter {
    /// How much later than the first the second of a pair may begin: INFO is repeated after a loss (RFC 3261
    /// 17.1.2.2).
    pub const WINDOW: Duration = Duration::from_secs(2);
    /// How long a digit without a counterpart is known at most: as long as the longest event lasts that a
    /// duration in milliseconds has room for, which is told at its end.
    const KNOWN: Duration = Duration::from_secs(68);
    /// The most digits that wait for their counterpart; beyond, the oldest is taken to have none.
    pub const WAITING_MAX: usize = 32;

    /// Takes a digit that began `lasted` ago, zero if that is not known. Says whether it is a new one, `false`
    /// for the second of a pair.
    pub fn take(&mut self, now: Instant, lasted: Duration, path: DigitPath, digit: DtmfDigit) -> bool {
        self.alone.retain(|(_, _, at)| now.saturating_duration_since(*at) <= Self::KNOWN);
        if let Some(index) = self.counterpart(now, lasted, path, digit) {
            self.alone.remove(index);
            return false;
        }
        if self.alone.len() >= Self::WAITING_MAX {
            self.alone.pop_front();
        }
        self.alone.push_back((path, digit, now));
        true
    }

    /// Says whether a digit that begins now is the second of a pair. Nothing is taken.
    pub fn knows(&self, now: Instant, path: DigitPath, digit: DtmfDigit) -> bool {
        self.counterpart(now, Duration::ZERO, path, digit).is_some()
    }

    fn counterpart(
        &self,
        now: Instant,
        lasted: Duration,
        path: DigitPath,
        digit: DtmfDigit,
    ) -> Option<usize> {
        self.alone.iter().position(|&(other, known, at)| {
            let ago = now.saturating_duration_since(at).saturating_sub(lasted);
            other != path && known == digit && ago <= Self::WINDOW
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;
    use DigitPath::{Media, Signalling};

    fn play(digits: &[(u64, DigitPath, char)]) -> String {
        let (start, mut filter) = (Instant::now(), DigitFilter::default());
        let new = |&&(ms, path, c): &&(u64, DigitPath, char)| {
            let digit = DtmfDigit::from_char(c).unwrap();
            filter.take(start + Duration::from_millis(ms), Duration::ZERO, path, digit)
        };
        digits.iter().filter(new).map(|(_, _, c)| c).collect()
    }

    // RFC 4733 and INFO at once: each digit counts once, in whatever order the two come.
    #[test]
    fn f11_a_digit_that_comes_both_ways_counts_once() {
        assert_eq!(play(&[(0, Media, '5'), (40, Signalling, '5')]), "5");
        assert_eq!(
            play(&[(0, Signalling, '5'), (160, Media, '5'), (400, Signalling, '5'), (560, Media, '5')]),
            "55"
        );
        // One way lags behind by more than a digit.
        let late = [(0, Media, '1'), (200, Media, '1'), (400, Signalling, '1'), (450, Media, '2')];
        assert_eq!(play(&[&late[..], &[(500, Signalling, '1'), (900, Signalling, '2')]].concat()), "112");
        // One way alone: every digit counts.
        assert_eq!(play(&[(0, Media, '7'), (100, Media, '7'), (200, Media, '7')]), "777");
        assert_eq!(play(&[(0, Signalling, '#'), (0, Signalling, '#')]), "##");
        // One that was lost on the one way does not take the other's next with it for long.
        assert_eq!(play(&[(0, Media, '3'), (2001, Signalling, '3'), (2100, Media, '3')]), "33");
        assert_eq!(play(&[(0, Media, '3'), (2000, Signalling, '3')]), "3");
        // Different digits are no pair.
        assert_eq!(play(&[(0, Media, '3'), (10, Signalling, '4')]), "34");
    }

    // RFC 4733 2.5: an event is told at its end, however long it has lasted.
    #[test]
    fn f11_a_long_event_is_the_digit_that_was_signalled_when_it_began() {
        let at = |ms| Duration::from_millis(ms);
        let (start, digit) = (Instant::now(), DtmfDigit::from_char('5').unwrap());
        for signalled in [0, 4_000, 9_000] {
            let mut filter = DigitFilter::default();
            assert!(filter.take(start + at(signalled), at(0), Signalling, digit));
            assert!(filter.knows(start + at(signalled), Media, digit));
            assert!(
                !filter.take(start + at(9_000), at(9_000), Media, digit),
                "{signalled} ms after its beginning"
            );
            assert!(!filter.knows(start + at(9_000), Media, digit));
        }
        // One that was signalled long before it began is another.
        let mut filter = DigitFilter::default();
        assert!(filter.take(start, at(0), Signalling, digit));
        assert!(filter.take(start + at(9_000), at(5_000), Media, digit));
    }

    #[test]
    fn what_waits_is_bounded() {
        let (now, mut filter) = (Instant::now(), DigitFilter::default());
        let digit = DtmfDigit::from_char('1').unwrap();
        for _ in 0..1000 {
            assert!(filter.take(now, Duration::ZERO, Media, digit));
        }
        assert_eq!(filter.alone.len(), DigitFilter::WAITING_MAX);
    }
}
