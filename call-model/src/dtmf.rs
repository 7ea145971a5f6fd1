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
/// Each digit is paired with the like digit of the other way nearest before it; what comes twice by the
/// same way was pressed twice.
#[derive(Clone, Debug, Default)]
pub struct DigitFilter {
    /// Digits that have no counterpart yet, the oldest first.
    alone: VecDeque<(DigitPath, DtmfDigit, Instant)>,
}

impl DigitFilter {
    /// How much later than the first the second of a pair may come: an event is told at its end, and
    /// INFO is repeated after a loss (RFC 3261 17.1.2.2).
    pub const WINDOW: Duration = Duration::from_secs(2);
    /// The most digits that wait for their counterpart; beyond, the oldest is taken to have none.
    pub const WAITING_MAX: usize = 32;

    /// Takes a digit. Says whether it is a new one, `false` for the second of a pair.
    pub fn take(&mut self, now: Instant, path: DigitPath, digit: DtmfDigit) -> bool {
        self.alone.retain(|(_, _, at)| now.saturating_duration_since(*at) <= Self::WINDOW);
        let pair = self.alone.iter().position(|(other, known, _)| *other != path && *known == digit);
        if let Some(index) = pair {
            self.alone.remove(index);
            return false;
        }
        if self.alone.len() >= Self::WAITING_MAX {
            self.alone.pop_front();
        }
        self.alone.push_back((path, digit, now));
        true
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;
    use DigitPath::{Media, Signalling};

    fn play(digits: &[(u64, DigitPath, char)]) -> String {
        let (start, mut filter) = (Instant::now(), DigitFilter::default());
        let new = |&&(ms, path, c): &&(u64, DigitPath, char)| {
            let digit = DtmfDigit::from_char(c).unwrap();
            filter.take(start + Duration::from_millis(ms), path, digit)
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

    #[test]
    fn what_waits_is_bounded() {
        let (now, mut filter) = (Instant::now(), DigitFilter::default());
        let digit = DtmfDigit::from_char('1').unwrap();
        for _ in 0..1000 {
            assert!(filter.take(now, Media, digit));
        }
        assert_eq!(filter.alone.len(), DigitFilter::WAITING_MAX);
    }
}
