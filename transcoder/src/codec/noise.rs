//! Comfort noise: what is heard while the far side sends nothing, in the level and the colour of what it sent last
//! or says of it (RFC 3389).

use super::mean_power;
use crate::seed::Seeded;

/// Order of the all-pole model of the noise.
pub const ORDER: usize = 8;
/// Octets of a comfort noise payload that is sent: the level, and a coefficient each (RFC 3389 3.3).
pub const PAYLOAD_LEN: usize = 1 + ORDER;

/// Level assumed until one is learnt, in -dBov: a quiet room on a good line.
const DEFAULT_LEVEL: u8 = 65;
/// What is louder than this is no background, in -dBov: a word cut short, or music.
const LOUDEST: u8 = 40;
/// What is louder than this is not believed either when it is told.
const LOUDEST_TOLD: u8 = 30;
/// Colour assumed until one is learnt: line noise is duller than white noise.
const DEFAULT_TILT: f32 = -0.5;
/// No reflection coefficient is nearer to 1: the filter would ring.
const STEEPEST: f32 = 0.98;
/// What is told of a spectrum must leave so much of the power unforeseen: no room is a tone, and a filter that sharp
/// would take seconds to swing in, and to fade.
const LEAST_KEPT: f32 = 0.01;
/// Frames remembered, and samples of each.
const FRAMES: usize = 8;
const KEPT: usize = 160;
/// Of the frames remembered those are background that have no more than this times the power of the quietest: what
/// comes before silence is the hangover of the far side's detector, and the end of a word.
const ALIKE: f32 = 2.0;
/// So few frames between two silences only say what the noise is like at present.
const UPDATE: usize = 2;
/// Samples after which level and colour move on, and by what part of the way: 2 dB in some 20 ms.
const BLOCK: usize = 40;
const PART: f32 = 0.25;
/// Step of a quantised reflection coefficient, and the code of 0 (RFC 3389 3.2).
const QUANTUM: f32 = 258.0 / 32_768.0;
const ZERO: u8 = 127;

/// Level and colour of noise: the content of a comfort noise payload (RFC 3389 3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseModel {
    /// Mean power in squared sample units.
    power: f32,
    /// Reflection coefficients k1, k2, ... of 1 / A(z), with A(z) = 1 + sum of a_i z^-i and a_1 of order 1 = k1.
    reflection: [f32; ORDER],
}

impl Default for NoiseModel {
    fn default() -> Self {
        let mut reflection = [0.0; ORDER];
        reflection[0] = DEFAULT_TILT;
        Self { power: power_of(DEFAULT_LEVEL), reflection }
    }
}

impl NoiseModel {
    /// Reads a comfort noise payload: the level, and any number of coefficients, of which the first eight count
    /// (RFC 3389 3). Where it holds none, the colour is that of `before`. `None` if it is empty.
    pub fn parse(payload: &[u8], before: &NoiseModel) -> Option<Self> {
        let (&level, codes) = payload.split_first()?;
        let mut model = Self { power: power_of(level & 0x7f), reflection: before.reflection };
        if !codes.is_empty() {
            model.reflection = [0.0; ORDER];
            for (coefficient, &code) in model.reflection.iter_mut().zip(codes) {
                // 255 is reserved.
                let steps = if code == u8::MAX { 0.0 } else { f32::from(code) - f32::from(ZERO) };
                *coefficient = (steps * QUANTUM).clamp(-STEEPEST, STEEPEST);
            }
            let mut kept = 1.0;
            for coefficient in &mut model.reflection {
                let with = kept * (1.0 - *coefficient * *coefficient);
                if with < LEAST_KEPT {
                    *coefficient = 0.0;
                } else {
                    kept = with;
                }
            }
        }
        Some(model)
    }

    /// Returns the comfort noise payload of this noise (RFC 3389 3.3).
    pub fn payload(&self) -> [u8; PAYLOAD_LEN] {
        let mut payload = [ZERO; PAYLOAD_LEN];
        payload[0] = self.level();
        for (code, coefficient) in payload[1..].iter_mut().zip(&self.reflection) {
            *code = (coefficient / QUANTUM + f32::from(ZERO)).round().clamp(0.0, 254.0) as u8;
        }
        payload
    }

    /// Returns the level in -dBov, 0 to 127.
    pub fn level(&self) -> u8 {
        let full = power_of(0);
        (-10.0 * (self.power.max(1e-6) / full).log10()).round().clamp(0.0, 127.0) as u8
    }
}

/// Makes noise like the far side's background. Never allocates.
#[derive(Clone, Debug)]
pub struct ComfortNoise {
    random: Seeded,
    /// What the noise is to be, and what it is on the way there.
    target: NoiseModel,
    present: NoiseModel,
    /// Autocorrelation of the background; the target's, unless that was told.
    correlation: [f32; ORDER + 1],
    frames: [[i16; KEPT]; FRAMES],
    lengths: [usize; FRAMES],
    at: usize,
    /// Frames heard since noise was made last.
    fresh: usize,
    gain: f32,
    past: [f32; ORDER],
}

impl ComfortNoise {
    /// Builds a generator; equal seeds give equal noise.
    pub fn new(seed: u64) -> Self {
        let model = NoiseModel::default();
        Self {
            random: Seeded::new(seed),
            target: model,
            present: model,
            correlation: [0.0; ORDER + 1],
            frames: [[0; KEPT]; FRAMES],
            lengths: [0; FRAMES],
            at: 0,
            fresh: 0,
            gain: gain(&model),
            past: [0.0; ORDER],
        }
    }

    /// Hears a frame of the far side, speech or not; what follows it may be silence.
    pub fn hear(&mut self, frame: &[i16]) {
        let kept = &frame[frame.len().saturating_sub(KEPT)..];
        self.frames[self.at][..kept.len()].copy_from_slice(kept);
        self.lengths[self.at] = kept.len();
        self.at = (self.at + 1) % FRAMES;
        self.fresh += 1;
    }

    /// Takes level and colour from a comfort noise payload; without coefficients the colour stays that of what was
    /// heard. An empty payload changes nothing.
    pub fn describe(&mut self, payload: &[u8]) {
        self.learn();
        if let Some(mut model) = NoiseModel::parse(payload, &self.target) {
            model.power = model.power.min(power_of(LOUDEST_TOLD));
            self.target = model;
        }
    }

    /// Returns what the noise is at present to be like: what was heard last, or said of it.
    pub fn model(&mut self) -> NoiseModel {
        self.learn();
        self.target
    }

    /// Fills a frame of any length.
    pub fn fill(&mut self, out: &mut [i16]) {
        let begins = self.fresh > 0;
        self.learn();
        if begins {
            // What was heard until now was of this level.
            self.present = self.target;
            self.gain = gain(&self.present);
        }
        for block in out.chunks_mut(BLOCK) {
            let toward = |now: &mut f32, then: f32| *now += (then - *now) * PART;
            let mut amplitude = self.present.power.sqrt();
            toward(&mut amplitude, self.target.power.sqrt());
            self.present.power = amplitude * amplitude;
            for (now, then) in self.present.reflection.iter_mut().zip(self.target.reflection) {
                toward(now, then);
            }
            let filter = predictor(&self.present.reflection);
            let (from, to) = (self.gain, gain(&self.present));
            self.gain = to;
            let slope = (to - from) / block.len() as f32;
            for (n, sample) in block.iter_mut().enumerate() {
                // Uniform on -1..1.
                let excitation = (self.random.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
                let mut value = excitation * (from + slope * n as f32);
                for (tap, past) in filter.iter().zip(&self.past) {
                    value -= tap * past;
                }
                self.past.copy_within(..ORDER - 1, 1);
                self.past[0] = value;
                *sample = value.round() as i16;
            }
        }
    }

    /// Learns from what was heard since the noise before.
    fn learn(&mut self) {
        let fresh = std::mem::take(&mut self.fresh).min(FRAMES);
        if fresh == 0 {
            return;
        }
        let heard = |back: usize| {
            let at = (self.at + FRAMES - 1 - back) % FRAMES;
            &self.frames[at][..self.lengths[at]]
        };
        let quietest = (0..fresh).map(|back| mean_power(heard(back))).fold(f32::MAX, f32::min);
        if quietest > power_of(LOUDEST) {
            return;
        }
        let mut correlation = [0.0; ORDER + 1];
        let mut samples = 0;
        for back in 0..fresh {
            let frame = heard(back);
            if mean_power(frame) <= quietest * ALIKE {
                samples += frame.len();
                for (lag, sum) in correlation.iter_mut().enumerate().take(frame.len()) {
                    *sum += autocorrelation(frame, lag);
                }
            }
        }
        for sum in &mut correlation {
            *sum /= samples.max(1) as f32;
        }
        if fresh <= UPDATE && self.correlation[0] > 0.0 {
            for (sum, before) in correlation.iter_mut().zip(self.correlation) {
                *sum = 0.5 * (*sum + before);
            }
        }
        self.correlation = correlation;
        let reflection = reflection_of(&correlation);
        self.target = NoiseModel { power: correlation[0].min(power_of(LOUDEST)), reflection };
    }
}

fn autocorrelation(frame: &[i16], lag: usize) -> f32 {
    let products = frame[lag..].iter().zip(frame).map(|(&a, &b)| i64::from(a) * i64::from(b));
    products.sum::<i64>() as f32
}

/// Levinson and Durbin's recursion: the reflection coefficients of the model that has this autocorrelation.
fn reflection_of(correlation: &[f32; ORDER + 1]) -> [f32; ORDER] {
    let mut reflection = [0.0; ORDER];
    let mut taps = [0.0; ORDER];
    // A little white noise keeps a pure tone from making a filter that rings.
    let mut error = correlation[0] * 1.001 + 1e-3;
    for order in 0..ORDER {
        let known: f32 = (0..order).map(|n| taps[n] * correlation[order - n]).sum();
        let k = (-(correlation[order + 1] + known) / error).clamp(-STEEPEST, STEEPEST);
        reflection[order] = k;
        step_up(&mut taps, order, k);
        error *= 1.0 - k * k;
    }
    reflection
}

/// Returns a_1, a_2, ... of A(z).
fn predictor(reflection: &[f32; ORDER]) -> [f32; ORDER] {
    let mut taps = [0.0; ORDER];
    for (order, &k) in reflection.iter().enumerate() {
        step_up(&mut taps, order, k);
    }
    taps
}

/// Raises a predictor's order by one.
fn step_up(taps: &mut [f32; ORDER], order: usize, k: f32) {
    let before = *taps;
    for n in 0..order {
        taps[n] += k * before[order - 1 - n];
    }
    taps[order] = k;
}

/// Returns the amplitude of a uniform excitation that makes noise of the model's power: it has a third of the square
/// of its peak, and the filter gives it 1 / product of (1 - k^2).
fn gain(model: &NoiseModel) -> f32 {
    let left: f32 = model.reflection.iter().map(|k| 1.0 - k * k).product();
    (3.0 * model.power * left).sqrt()
}

/// Mean power of `level` -dBov: a full-scale square wave is 0.
fn power_of(level: u8) -> f32 {
    let amplitude = 32_767.0 * 10f32.powf(-f32::from(level) / 20.0);
    amplitude * amplitude
}

#[cfg(test)]
mod tests;
