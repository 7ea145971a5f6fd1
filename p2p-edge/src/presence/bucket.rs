//! How often a user may say something.

use std::time::{Duration, Instant};

/// A token bucket (RFC 3290 A.1): `burst` at once, then one every so often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    left: u32,
    since: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(burst: u32, now: Instant) -> Self {
        Self { left: burst, since: now }
    }

    /// Takes one token. `false` when there is none.
    pub(super) fn take(&mut self, burst: u32, every: Duration, now: Instant) -> bool {
        self.fill(burst, every, now);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Returns when there will be a token.
    pub(super) fn next(&self, every: Duration) -> Instant {
        if self.left > 0 { self.since } else { self.since + every }
    }

    fn fill(&mut self, burst: u32, every: Duration, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_millis();
        let new = u32::try_from(passed / every.as_millis().max(1)).unwrap_or(u32::MAX);
        if self.left.saturating_add(new) >= burst {
            (self.left, self.since) = (burst, now);
        } else {
            self.left += new;
            self.since += every * new;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_every_so_often() {
        let (start, every) = (Instant::now(), Duration::from_secs(2));
        let mut bucket = Bucket::new(3, start);
        let taken = |bucket: &mut Bucket, at| {
            (0..10).take_while(|_| bucket.take(3, every, start + Duration::from_secs(at))).count()
        };
        assert_eq!(taken(&mut bucket, 0), 3);
        assert_eq!(bucket.next(every), start + every);
        assert_eq!(taken(&mut bucket, 1), 0);
        assert_eq!(taken(&mut bucket, 5), 2);
        assert_eq!(taken(&mut bucket, 6), 1, "what was left of the time counts");
        assert_eq!(taken(&mut bucket, 600), 3);
    }
}
