//! DTMF as tones, made for tests: levels, frequencies and lengths to choose.

use std::f64::consts::TAU;

use super::Random;

pub const KEYS: &str = "123A456B789C*0#D";
const LOW: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
const HIGH: [f64; 4] = [1209.0, 1336.0, 1477.0, 1633.0];

/// Peak of a sine of so many dBm0, where the largest of A-law has about 3.1 (ITU-T G.711).
pub fn peak(dbm0: f64) -> f64 {
    22_470.0 * 10f64.powf(dbm0 / 20.0)
}

/// The two frequencies of a key in Hz (ITU-T Q.23).
pub fn frequencies(key: char) -> [f64; 2] {
    let place = KEYS.find(key).unwrap();
    [LOW[place / 4], HIGH[place % 4]]
}

/// How a key sounds.
#[derive(Clone, Copy, Debug)]
pub struct Press {
    pub key: char,
    pub length_ms: f64,
    /// Levels of the low and the high tone, in dBm0.
    pub levels: [f64; 2],
    /// What they are off, as parts of the frequency.
    pub off: [f64; 2],
}

impl Press {
    pub fn new(key: char, length_ms: f64) -> Self {
        Self { key, length_ms, levels: [-10.0, -10.0], off: [0.0, 0.0] }
    }

    pub fn samples(&self) -> Vec<i16> {
        let frequencies = frequencies(self.key);
        let count = (self.length_ms * 8.0) as usize;
        let sample = |n: usize| {
            let tone = |which: usize| {
                let angle = TAU * frequencies[which] * (1.0 + self.off[which]) * n as f64 / 8_000.0;
                peak(self.levels[which]) * (angle + which as f64).sin()
            };
            (tone(0) + tone(1)).clamp(-32_767.0, 32_767.0) as i16
        };
        (0..count).map(sample).collect()
    }

    /// Mean power while it sounds.
    pub fn power(&self) -> f64 {
        self.levels.iter().map(|&level| peak(level).powi(2) / 2.0).sum()
    }
}

/// Adds noise of a normal distribution and that mean power.
pub fn add_noise(samples: &mut [i16], power: f64, seed: u64) {
    let mut random = Random(seed);
    for sample in samples {
        let uniform = |random: &mut Random| random.below(1 << 32) as f64 / (1u64 << 32) as f64;
        let normal: f64 = (0..12).map(|_| uniform(&mut random)).sum::<f64>() - 6.0;
        *sample = (f64::from(*sample) + normal * power.sqrt()).clamp(-32_767.0, 32_767.0) as i16;
    }
}
