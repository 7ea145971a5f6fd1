//! What a network does to packets, drawn from a seed.

use std::fmt;
use std::time::Duration;

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// None.
    Clean,
    /// Each by itself with this chance in per cent.
    Random(u64),
    /// So many in a row each time, in per cent of all.
    Bursts {
        /// The share lost, 1 to 50.
        percent: u64,
        /// Packets of a burst.
        length: u64,
    },
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Clean => f.pad("no loss"),
            Pattern::Random(percent) => f.pad(&format!("{percent} % random")),
            Pattern::Bursts { percent, length } => f.pad(&format!("{percent} % in bursts of {length}")),
        }
    }
}

/// How long packets are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transit {
    /// The least.
    pub(crate) delay: Duration,
    /// How much more it may be, each packet by itself.
    pub(crate) jitter: Duration,
}

/// One direction of a path. What it does follows from its seed alone.
#[derive(Debug, Clone)]
pub(crate) struct Impairment {
    pattern: Pattern,
    transit: Transit,
    losses: Random,
    delays: Random,
    /// Packets that still pass before the next burst, and packets of the burst that are still to be lost.
    ahead: u64,
    burst: u64,
}

impl Impairment {
    /// A path that has carried nothing yet.
    pub(crate) fn new(pattern: Pattern, transit: Transit, seed: u64) -> Self {
        // Two streams: which packets are lost must not depend on how many there are that cannot be.
        let mut seeds = Random(seed);
        let (mut losses, delays) = (Random(seeds.next()), Random(seeds.next()));
        let (ahead, burst) = match pattern {
            Pattern::Bursts { percent, length } => (losses.below(2 * between(percent, length)), length),
            Pattern::Clean | Pattern::Random(_) => (0, 0),
        };
        Self { pattern, transit, losses, delays, ahead, burst }
    }

    /// Says whether the next packet is lost.
    pub(crate) fn loses(&mut self) -> bool {
        match self.pattern {
            Pattern::Clean => false,
            Pattern::Random(percent) => self.losses.below(100) < percent,
            Pattern::Bursts { .. } if self.ahead > 0 => {
                self.ahead -= 1;
                false
            }
            Pattern::Bursts { percent, length } => {
                self.burst -= 1;
                if self.burst == 0 {
                    // At least one packet passes between two bursts, or they would be one.
                    self.ahead = 1 + self.losses.below(2 * between(percent, length) - 1);
                    self.burst = length;
                }
                true
            }
        }
    }

    /// Says how long the next packet is on its way.
    pub(crate) fn transit(&mut self) -> Duration {
        let jitter_us = self.transit.jitter.as_micros() as u64;
        self.transit.delay + Duration::from_micros(self.delays.below(jitter_us + 1))
    }
}

/// Packets that pass between two bursts on average.
fn between(percent: u64, length: u64) -> u64 {
    (length * (100 - percent) / percent).max(1)
}

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is small beside 2^64.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKETS: usize = 200_000;
    const SEEDS: [u64; 4] = [1, 2, 0xfeed, u64::MAX];
    const STILL: Transit = Transit { delay: Duration::from_millis(20), jitter: Duration::ZERO };

    fn losses(pattern: Pattern, seed: u64) -> Vec<bool> {
        let mut path = Impairment::new(pattern, STILL, seed);
        (0..PACKETS).map(|_| path.loses()).collect()
    }

    fn share(lost: &[bool]) -> f64 {
        lost.iter().filter(|&&lost| lost).count() as f64 / lost.len() as f64
    }

    /// Lengths of the runs of lost packets; one that the end may have cut is left out.
    fn runs(lost: &[bool]) -> Vec<usize> {
        let mut runs: Vec<usize> =
            lost.split(|&lost| !lost).map(<[bool]>::len).filter(|&length| length > 0).collect();
        if lost.last() == Some(&true) {
            runs.pop();
        }
        runs
    }

    #[test]
    fn a_clean_path_loses_nothing() {
        for seed in SEEDS {
            assert_eq!(share(&losses(Pattern::Clean, seed)), 0.0, "seed {seed}");
        }
    }

    #[test]
    fn random_loss_has_its_share_and_no_memory() {
        for (seed, percent) in SEEDS.into_iter().flat_map(|seed| [(seed, 5), (seed, 10)]) {
            let lost = losses(Pattern::Random(percent), seed);
            let wanted = percent as f64 / 100.0;
            // Four standard deviations of 200000 draws are 0.2 % at 5 and 0.27 % at 10 %.
            assert!((share(&lost) - wanted).abs() < 0.003, "seed {seed}: {}", share(&lost));
            let after: Vec<bool> = lost.windows(2).filter(|pair| pair[0]).map(|pair| pair[1]).collect();
            assert!((share(&after) - wanted).abs() < 0.012, "seed {seed}: {} after a loss", share(&after));
        }
    }

    #[test]
    fn bursts_have_their_share_and_their_length() {
        for (seed, length) in SEEDS.into_iter().flat_map(|seed| [(seed, 2), (seed, 3), (seed, 5)]) {
            let lost = losses(Pattern::Bursts { percent: 10, length }, seed);
            assert!((share(&lost) - 0.1).abs() < 0.004, "seed {seed}: {}", share(&lost));
            let runs = runs(&lost);
            assert!(runs.len() > 3_000, "seed {seed}: {} bursts", runs.len());
            let odd = runs.iter().find(|&&run| run as u64 != length);
            assert_eq!(odd, None, "seed {seed}: bursts of {length}");
        }
    }

    #[test]
    fn a_seed_says_it_all() {
        for pattern in [Pattern::Random(10), Pattern::Bursts { percent: 10, length: 3 }] {
            assert_eq!(losses(pattern, 7), losses(pattern, 7));
            assert_ne!(losses(pattern, 7), losses(pattern, 8), "{pattern}");
        }
    }

    #[test]
    fn transit_lies_between_its_bounds_and_changes_no_losses() {
        let jitter = Duration::from_millis(4);
        let pattern = Pattern::Bursts { percent: 10, length: 3 };
        let mut path = Impairment::new(pattern, Transit { jitter, ..STILL }, 7);
        let transits: Vec<Duration> = (0..1_000).map(|_| path.transit()).collect();
        let (least, most) = (transits.iter().min().copied(), transits.iter().max().copied());
        assert!(least.is_some_and(|least| least >= STILL.delay && least < STILL.delay + jitter / 10));
        assert!(
            most.is_some_and(|most| most <= STILL.delay + jitter && most > STILL.delay + jitter * 9 / 10)
        );
        let lost: Vec<bool> = (0..PACKETS).map(|_| path.loses()).collect();
        assert_eq!(lost, losses(pattern, 7));
    }
}
