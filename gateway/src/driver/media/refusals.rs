//! What was refused on the trunk legs of calls, and how often media was followed to another source.

use std::sync::atomic::{AtomicU64, Ordering};

use transcoder::ImageRefusal;
use transcoder::leg::rtp::{Refusal, RtpCounters};

/// The reasons that UDPTL alone has.
const OF_IMAGES: [ImageRefusal; 2] = [ImageRefusal::Oversize, ImageRefusal::Audio];
const REASONS: usize = Refusal::ALL.len() + OF_IMAGES.len();

/// Counts of trunk legs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    reasons: [u64; REASONS],
    moves: u64,
}

/// Says under which reason of RTP one of UDPTL is counted.
fn place(refusal: ImageRefusal) -> usize {
    match refusal {
        ImageRefusal::Source => Refusal::Source as usize,
        ImageRefusal::Malformed => Refusal::Malformed as usize,
        ImageRefusal::NotNegotiated => Refusal::NotNegotiated as usize,
        ImageRefusal::Oversize => Refusal::ALL.len(),
        ImageRefusal::Audio => Refusal::ALL.len() + 1,
    }
}

impl Refusals {
    /// Adds what a leg of RTP counts.
    pub(super) fn add_rtp(&mut self, counters: &RtpCounters) {
        for (count, refusal) in self.reasons.iter_mut().zip(Refusal::ALL) {
            *count += counters.refused_for(refusal);
        }
        self.moves += counters.moves;
    }

    /// Adds what a leg counts while it carries T.38.
    pub(super) fn add_image(&mut self, counters: &transcoder::ImageCounters) {
        for refusal in ImageRefusal::ALL {
            if let Some(count) = self.reasons.get_mut(place(refusal)) {
                *count += counters.refused_for(refusal);
            }
        }
        self.moves += counters.moves;
    }

    /// Adds what has come since `before`.
    pub(super) fn add_since(&mut self, now: &Self, before: &Self) {
        for ((count, now), before) in self.reasons.iter_mut().zip(now.reasons).zip(before.reasons) {
            *count += now.saturating_sub(before);
        }
        self.moves += now.moves.saturating_sub(before.moves);
    }

    /// Copies it to where others read it.
    pub(super) fn publish(&self, to: &PublishedRefusals) {
        for (count, published) in self.reasons.iter().chain([&self.moves]).zip(&to.0) {
            published.store(*count, Ordering::Relaxed);
        }
    }
}

/// The same, for others to read: the reasons, the moves.
#[derive(Debug, Default)]
pub(crate) struct PublishedRefusals([AtomicU64; REASONS + 1]);

impl PublishedRefusals {
    /// Adds the counts of threads up, by reason.
    pub(crate) fn total(threads: &[&Self]) -> [(&'static str, u64); REASONS] {
        let rtp = Refusal::ALL.map(Refusal::as_str);
        let images = OF_IMAGES.map(ImageRefusal::as_str);
        std::array::from_fn(|at| {
            let name = rtp.iter().chain(&images).nth(at).copied().unwrap_or_default();
            (name, Self::sum(threads, at))
        })
    }

    /// Adds up how often media was followed to another source, or back.
    pub(crate) fn moves(threads: &[&Self]) -> u64 {
        Self::sum(threads, REASONS)
    }

    fn sum(threads: &[&Self], at: usize) -> u64 {
        threads.iter().filter_map(|thread| thread.0.get(at)).map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_counted_once_and_by_its_name() {
        let published = PublishedRefusals::default();
        let mut reasons = [0; REASONS];
        reasons[Refusal::Source as usize] = 5;
        reasons[place(ImageRefusal::Audio)] = 2;
        let (first, second) = (Refusals { reasons, moves: 1 }, Refusals { reasons, moves: 2 });
        let mut all = Refusals::default();
        all.add_since(&first, &Refusals::default());
        all.add_since(&second, &first);
        all.publish(&published);
        let total = PublishedRefusals::total(&[&published, &published]);
        assert_eq!(total.iter().map(|(_, count)| count).sum::<u64>(), 14);
        assert!(total.contains(&("source", 10)) && total.contains(&("audio", 4)), "{total:?}");
        assert_eq!(PublishedRefusals::moves(&[&published, &published]), 4);
        // Each reason of either kind has a name of its own.
        for refusal in ImageRefusal::ALL {
            assert_eq!(total[place(refusal)].0, refusal.as_str());
        }
    }
}
