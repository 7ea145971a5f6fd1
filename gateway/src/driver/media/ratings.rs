//! How the legs of calls were judged in the end, and what cost them most.

use std::sync::atomic::{AtomicU64, Ordering};

use call_model::{Impairment, Rating, Side};

/// Upper bounds of the classes of mean opinion scores; the last class has none.
const BOUNDS: [f32; 9] = [2.0, 2.5, 3.0, 3.3, 3.6, 3.8, 4.0, 4.2, 4.4];
const CLASSES: usize = BOUNDS.len() + 1;
/// The legs a call can have.
pub(super) const SIDES: [Side; 3] = [Side::Overlay, Side::Trunk, Side::Onward];

/// Counts of one leg, kept by a thread for itself.
#[derive(Clone, Copy, Debug, Default)]
struct Leg {
    classes: [u64; CLASSES],
    /// Of the scores, in thousandths.
    sum: u64,
    causes: [u64; Impairment::ALL.len()],
}

/// Counts of all legs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ratings([Leg; SIDES.len()]);

impl Ratings {
    /// Counts the judgement of what came on a leg.
    pub(super) fn count(&mut self, side: Side, rating: Rating) {
        let Some(leg) = SIDES.iter().position(|known| *known == side).map(|at| &mut self.0[at]) else {
            return;
        };
        leg.classes[BOUNDS.partition_point(|&bound| bound < rating.mos)] += 1;
        leg.sum += (rating.mos.clamp(1.0, 5.0) * 1_000.0) as u64;
        if let Some(at) =
            rating.cause.and_then(|cause| Impairment::ALL.iter().position(|known| *known == cause))
        {
            leg.causes[at] += 1;
        }
    }

    /// Copies it to where others read it.
    pub(super) fn publish(&self, to: &PublishedRatings) {
        for (leg, published) in self.0.iter().zip(&to.0) {
            let counts = leg.classes.iter().chain([&leg.sum]).chain(&leg.causes);
            for (count, published) in counts.zip(published) {
                published.store(*count, Ordering::Relaxed);
            }
        }
    }
}

/// The same, for others to read: the classes, the sum, the causes.
#[derive(Debug, Default)]
pub(crate) struct PublishedRatings([[AtomicU64; CLASSES + 1 + Impairment::ALL.len()]; SIDES.len()]);

/// The sum over all threads of one leg.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RatingsTotal {
    pub(crate) side: Side,
    /// Upper bound of each class, and how many fell into it; the last bound is that of all numbers.
    pub(crate) classes: [(f64, u64); CLASSES],
    /// Of all scores.
    pub(crate) sum: f64,
    pub(crate) count: u64,
    /// What cost most, and how often.
    pub(crate) causes: [(Impairment, u64); Impairment::ALL.len()],
}

impl RatingsTotal {
    /// Adds the counts of threads up, for each leg.
    pub(crate) fn of(threads: &[&PublishedRatings]) -> [Self; SIDES.len()] {
        std::array::from_fn(|leg| {
            let read = |at: usize| {
                threads.iter().map(|thread| thread.0[leg][at].load(Ordering::Relaxed)).sum::<u64>()
            };
            let bound = |class: usize| BOUNDS.get(class).map_or(f64::MAX, |&bound| f64::from(bound));
            let classes = std::array::from_fn(|class| (bound(class), read(class)));
            Self {
                side: SIDES[leg],
                classes,
                sum: read(CLASSES) as f64 / 1_000.0,
                count: classes.iter().map(|(_, count)| count).sum(),
                causes: std::array::from_fn(|at| (Impairment::ALL[at], read(CLASSES + 1 + at))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_leg_falls_into_one_class_and_has_one_cause() {
        let (mut ratings, published) = (Ratings::default(), PublishedRatings::default());
        let rating = |mos, cause| Rating { r_factor: 80.0, mos, cause };
        ratings.count(Side::Overlay, rating(1.5, Some(Impairment::NetworkLoss)));
        ratings.count(Side::Overlay, rating(4.41, None));
        ratings.count(Side::Trunk, rating(3.6, Some(Impairment::Codec)));
        ratings.publish(&published);
        let [overlay, trunk, onward] = RatingsTotal::of(&[&published, &published]);
        assert_eq!(overlay.classes.map(|(_, count)| count), [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(trunk.classes.map(|(_, count)| count), [0, 0, 0, 0, 2, 0, 0, 0, 0, 0]);
        assert_eq!((overlay.count, trunk.count, onward.count), (4, 2, 0));
        assert!((overlay.sum - 11.82).abs() < 0.01 && (trunk.sum - 7.2).abs() < 0.01);
        assert_eq!(overlay.causes.map(|(_, count)| count), [2, 0, 0, 0]);
        assert_eq!((trunk.causes[2], trunk.side), ((Impairment::Codec, 2), Side::Trunk));
    }
}
