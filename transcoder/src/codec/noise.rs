//! Comfort noise: what is heard while the far side sends nothing (RFC 3389).

use super::mean_power;
use crate::seed::Seeded;

/// Level assumed until one is learnt, in -dBov: a quiet room on a good line.
const DEFAULT_LEVEL: u8 = 65;
/// Louder background than this is not imitated, in -dBov.
const LOUDEST: u8 = 40;

/// Makes noise of the level of the far side's background. Never allocates.
#[derive(Clone, Debug)]
pub struct ComfortNoise {
    random: Seeded,
    power: f32,
    /// State of the one-pole low pass: line noise is duller than white noise.
    smooth: f32,
}

impl ComfortNoise {
    /// Builds a generator; equal seeds give equal noise.
    pub fn new(seed: u64) -> Self {
        Self { random: Seeded::new(seed), power: power_of(DEFAULT_LEVEL), smooth: 0.0 }
    }

    /// Learns the level from a frame that holds background only. Falls fast and rises slowly, so
    /// that a frame of speech taken for silence does no harm.
    pub fn observe(&mut self, frame: &[i16]) {
        let seen = mean_power(frame).min(power_of(LOUDEST));
        let rate = if seen < self.power { 0.25 } else { 0.05 };
        self.power += (seen - self.power) * rate;
    }

    /// Sets the level from the first octet of a comfort noise payload: 0 to 127 -dBov (RFC 3389 3.1).
    pub fn set_level(&mut self, dbov: u8) {
        self.power = power_of((dbov & 0x7f).max(LOUDEST));
    }

    /// Fills a frame of any length.
    pub fn fill(&mut self, out: &mut [i16]) {
        // A uniform variable on -1..1 has power 1/3; the low pass with pole 0.5 leaves a third of it.
        let gain = self.power.sqrt() * 3.0;
        for sample in out {
            let bits = (self.random.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            self.smooth = 0.5 * self.smooth + 0.5 * bits;
            *sample = (self.smooth * gain).round() as i16;
        }
    }
}

/// Mean power of `level` -dBov: a full-scale square wave is 0.
fn power_of(level: u8) -> f32 {
    let amplitude = 32_767.0 * 10f32.powf(-f32::from(level) / 20.0);
    amplitude * amplitude
}
