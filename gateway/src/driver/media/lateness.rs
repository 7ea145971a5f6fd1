//! How late a media thread is: what a listener hears as the gateway's own delay, beside that of the jitter buffer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the classes in microseconds; the last class has none.
const BOUNDS: [u64; 11] = [250, 500, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000];
const CLASSES: usize = BOUNDS.len() + 1;

/// Counts of wake-ups by how long after their time they were served, kept by a thread for itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lateness {
    classes: [u64; CLASSES],
    sum_us: u64,
}

impl Lateness {
    /// Counts one.
    pub(super) fn count(&mut self, late: Duration) {
        let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS.partition_point(|&bound| bound < micros);
        self.classes[class] += 1;
        self.sum_us = self.sum_us.saturating_add(micros);
    }

    /// Copies it to where others read it.
    pub(super) fn publish(&self, to: &PublishedLateness) {
        for (count, published) in self.classes.iter().zip(&to.classes) {
            published.store(*count, Ordering::Relaxed);
        }
        to.sum_us.store(self.sum_us, Ordering::Relaxed);
    }
}

/// The same, for others to read.
#[derive(Debug, Default)]
pub(crate) struct PublishedLateness {
    classes: [AtomicU64; CLASSES],
    sum_us: AtomicU64,
}

/// The sum over all threads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LatenessTotal {
    /// Upper bound of each class in seconds, and how many fell into it; the last bound is that of all numbers.
    pub(crate) classes: [(f64, u64); CLASSES],
    /// Of all of them, in seconds.
    pub(crate) sum: f64,
    pub(crate) count: u64,
}

impl LatenessTotal {
    /// Adds the counts of threads up.
    pub(crate) fn of<'a>(threads: impl Iterator<Item = &'a PublishedLateness>) -> Self {
        let bound = |class: usize| BOUNDS.get(class).map_or(f64::MAX, |micros| *micros as f64 / 1e6);
        let mut total = Self { classes: std::array::from_fn(|class| (bound(class), 0)), sum: 0.0, count: 0 };
        for thread in threads {
            for (class, published) in total.classes.iter_mut().zip(&thread.classes) {
                let count = published.load(Ordering::Relaxed);
                class.1 += count;
                total.count += count;
            }
            total.sum += thread.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wake_up_falls_into_one_class() {
        let (mut lateness, published) = (Lateness::default(), PublishedLateness::default());
        for micros in [0, 250, 251, 2_000, 2_001, 99_999, 100_001, 5_000_000] {
            lateness.count(Duration::from_micros(micros));
        }
        lateness.publish(&published);
        let total = LatenessTotal::of([&published, &published].into_iter());
        let counts = total.classes.map(|(_, count)| count);
        assert_eq!(counts, [4, 2, 0, 0, 2, 2, 0, 0, 0, 0, 2, 4]);
        assert_eq!((total.count, total.classes[4].0, total.classes[11].0), (16, 0.002, f64::MAX));
        assert!((total.sum - 2.0 * 5.204_502).abs() < 1e-9, "{}", total.sum);
    }
}
