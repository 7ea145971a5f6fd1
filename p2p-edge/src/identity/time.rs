use std::fmt;

/// The last second that an X.509 time can say: 9999-12-31T23:59:59Z (RFC 5280 4.1.2.5).
pub(crate) const LAST_SECOND: u64 = 253_402_300_799;
/// Seconds in a day.
pub(crate) const DAY: u64 = 86_400;

/// A moment in Unix seconds that prints as RFC 3339, for example `2026-11-20T08:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.min(LAST_SECOND);
        let (year, month, day) = civil_from_days(seconds / DAY);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Turns days since 1970-01-01 into year, month and day of the Gregorian calendar. Counts in eras
/// of 400 years that begin on 1 March, so that the leap day is the last of its year.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// When a certificate is valid, in Unix seconds, both ends included (RFC 5280 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Validity {
    /// The first second.
    pub not_before: u64,
    /// The last second.
    pub not_after: u64,
}

impl Validity {
    /// Builds the validity that begins at `unix` and lasts `days`.
    pub fn days_from(unix: u64, days: u64) -> Self {
        Self { not_before: unix, not_after: unix.saturating_add(days.saturating_mul(DAY)) }
    }

    /// Returns the length in days, rounded up.
    pub fn days(&self) -> u64 {
        self.not_after.saturating_sub(self.not_before).div_ceil(DAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_print_as_rfc3339() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_763_683_199, "2025-11-20T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (LAST_SECOND, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ];
        for (unix, text) in cases {
            assert_eq!(Utc(unix).to_string(), text);
        }
    }
}
