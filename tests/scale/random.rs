//! Chance from a seed: the same numbers every time.

use std::time::Duration;

/// A generator of 64 bits a step (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0, below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.unit() * bound as f64) as usize
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).copied()
    }

    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    pub(crate) fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.unit())
    }
}

/// How long sessions last: Weibull, in minutes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sessions {
    pub(crate) shape: f64,
    pub(crate) scale: f64,
}

impl Sessions {
    /// The length of a session that begins now.
    pub(crate) fn whole(self, random: &mut Random) -> Duration {
        let minutes = self.scale * random.exponential(1.0).powf(1.0 / self.shape);
        Duration::from_secs_f64(60.0 * minutes.clamp(0.1, 1e6))
    }

    /// What is left of a session met at a random moment: long ones are met more often, and such a moment is
    /// anywhere in them.
    pub(crate) fn rest(self, random: &mut Random) -> Duration {
        let met: Vec<f64> = (0..256).map(|_| self.whole(random).as_secs_f64()).collect();
        let mut left = random.unit() * met.iter().sum::<f64>();
        let length = met.iter().find(|length| {
            left -= **length;
            left <= 0.0
        });
        Duration::from_secs_f64(length.copied().unwrap_or(60.0) * random.unit())
    }

    /// In minutes.
    pub(crate) fn median(self) -> f64 {
        self.scale * std::f64::consts::LN_2.powf(1.0 / self.shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_have_their_median_and_those_met_are_longer() {
        let (mut random, sessions) = (Random::new(7), Sessions { shape: 0.59, scale: 41.9 });
        let mut whole: Vec<Duration> = (0..4001).map(|_| sessions.whole(&mut random)).collect();
        whole.sort();
        let median = whole[2000].as_secs_f64() / 60.0;
        assert!((median / sessions.median() - 1.0).abs() < 0.1, "{median} {}", sessions.median());
        let mut rest: Vec<Duration> = (0..1001).map(|_| sessions.rest(&mut random)).collect();
        rest.sort();
        assert!(rest[500] > whole[2000], "{:?} {:?}", rest[500], whole[2000]);
    }
}
