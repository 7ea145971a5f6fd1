//! Comfort noise: what is heard while the far side sends nothing, of the level and the colour it tells (RFC 3389).

use super::mean_power;
use crate::seed::Seeded;

/// Level assumed until one is learnt, in -dBov: a quiet room on a good line.
const DEFAULT_LEVEL: u8 = 65;
/// Louder background than this is not learnt from what is heard, in -dBov ...
const LOUDEST: u8 = 40;
/// ... and louder than this is not believed either when it is told.
const LOUDEST_TOLD: u8 = 30;
/// Reflection coefficients that are used; a decoder may leave out the higher ones (RFC 3389 3).
const MAX_ORDER: usize = 10;
/// Bound of their magnitude, short of where the filter would ring on.
const MAX_REFLECTION: f32 = 0.98;

/// Makes noise of the level of the far side's background. Never allocates.
#[derive(Clone, Debug)]
pub struct ComfortNoise {
    random: Seeded,
    power: f32,
    /// State of the one-pole low pass: line noise is duller than white noise.
    smooth: f32,
    /// Reflection coefficients of the far side's background, `order` of them; with none the low pass stands in.
    reflection: [f32; MAX_ORDER],
    order: usize,
    /// State of the lattice filter.
    backward: [f32; MAX_ORDER],
}

impl ComfortNoise {
    /// Builds a generator; equal seeds give equal noise.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Seeded::new(seed),
            power: power_of(DEFAULT_LEVEL),
            smooth: 0.0,
            reflection: [0.0; MAX_ORDER],
            order: 0,
            backward: [0.0; MAX_ORDER],
        }
    }

    /// Learns the level from a frame that holds background only. Falls fast and rises slowly, so
    /// that a frame of speech taken for silence does no harm.
    pub fn observe(&mut self, frame: &[i16]) {
        let seen = mean_power(frame).min(power_of(LOUDEST));
        let rate = if seen < self.power { 0.25 } else { 0.05 };
        self.power += (seen - self.power) * rate;
    }

    /// Takes a comfort noise payload: the level, 0 to 127 -dBov, and behind it the spectrum as quantised reflection
    /// coefficients, if there are any (RFC 3389 3.1, 3.2). An empty one changes nothing.
    pub fn set_payload(&mut self, payload: &[u8]) {
        let Some((&level, spectrum)) = payload.split_first() else { return };
        self.power = power_of((level & 0x7f).max(LOUDEST_TOLD));
        self.order = spectrum.len().min(MAX_ORDER);
        for (reflection, &index) in self.reflection.iter_mut().zip(spectrum) {
            let value = 258.0 * (f32::from(index) - 127.0) / 32_768.0;
            *reflection = value.clamp(-MAX_REFLECTION, MAX_REFLECTION);
        }
    }

    /// Fills a frame of any length.
    pub fn fill(&mut self, out: &mut [i16]) {
        // A uniform variable on -1..1 has power 1/3; the low pass with pole 0.5 leaves a third of it.
        let mut uniform = || (self.random.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
        let reflection = &self.reflection[..self.order];
        if reflection.is_empty() {
            let gain = self.power.sqrt() * 3.0;
            for sample in out {
                self.smooth = 0.5 * self.smooth + 0.5 * uniform();
                *sample = (self.smooth * gain).round() as i16;
            }
            return;
        }
        // The all-pole filter multiplies power by the product of 1 / (1 - k^2).
        let kept: f32 = reflection.iter().map(|k| 1.0 - k * k).product();
        let gain = (3.0 * self.power * kept).sqrt();
        for sample in out {
            let mut forward = gain * uniform();
            for at in (0..reflection.len()).rev() {
                let k = reflection[at];
                forward -= k * self.backward[at];
                let behind = self.backward[at] + k * forward;
                if let Some(next) = self.backward.get_mut(at + 1) {
                    *next = behind;
                }
            }
            self.backward[0] = forward;
            *sample = forward.round() as i16;
        }
    }
}

/// Mean power of `level` -dBov: a full-scale square wave is 0.
fn power_of(level: u8) -> f32 {
    let amplitude = 32_767.0 * 10f32.powf(-f32::from(level) / 20.0);
    amplitude * amplitude
}
