//! Changes the sampling rate of voice between 8, 16 and 48 kHz, by a polyphase FIR filter of fixed delay.
//!
//! One low-pass serves a pair of rates in both directions: upwards each output sample takes the
//! taps of its phase, downwards only the samples that stay are computed. It passes what the lower
//! rate is used for - 3.4 kHz of 8 kHz, 7 kHz of 16 kHz - and stops what would come back as an image
//! or an alias of it.

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use super::CodecError;

/// Samples of the lower rate by which the output comes later, in either direction: 2 ms at 8 kHz, 1 ms at 16 kHz.
pub const DELAY: usize = HALF;

/// Samples of the lower rate on either side that a filter looks at.
const HALF: usize = 16;
/// Taps of a phase.
const TAPS: usize = 2 * HALF;
/// Greatest ratio of two rates.
const MOST: usize = 6;
/// Stop-band attenuation that the window is made for, in decibels: as much as lets 7 kHz of 16 pass and stops 9.
const ATTENUATION: f64 = 64.0;
/// What is filtered at once, in samples of the higher rate: 10 ms at 48 kHz.
const BLOCK: usize = 480;
/// Sums that go on side by side, so that the compiler may take vectors for them.
const LANES: usize = 8;

/// The taps for a ratio. Phase `p` of an interpolator holds every `ratio`-th tap from `p` on, the newest sample's last.
struct Filter {
    /// By phase.
    phases: Vec<[f32; TAPS]>,
    /// All in order, made for unit gain at the higher rate.
    whole: Vec<f32>,
}

impl Filter {
    /// Designs a low-pass at half of the lower rate: a sinc under a Kaiser window. The tap at the centre stands
    /// [`HALF`] samples of the lower rate from the first, which is 0.
    fn design(ratio: usize) -> Self {
        let length = ratio * TAPS;
        let centre = (length / 2) as f64;
        let shape = 0.1102 * (ATTENUATION - 8.7);
        let tap = |n: usize| {
            let x = (n as f64 - centre) / ratio as f64;
            let sinc =
                if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
            let across = (n as f64 - centre) / centre;
            let window = bessel(shape * (1.0 - across * across).max(0.0).sqrt()) / bessel(shape);
            if n == 0 { 0.0 } else { sinc * window }
        };
        let taps: Vec<f64> = (0..length).map(tap).collect();
        let phases = (0..ratio)
            .map(|phase| {
                // Each phase passes a constant as it is, so that none is heard as a tone.
                let gain: f64 = (0..TAPS).map(|n| taps[n * ratio + phase]).sum();
                std::array::from_fn(|n| (taps[(TAPS - 1 - n) * ratio + phase] / gain) as f32)
            })
            .collect();
        let gain: f64 = taps.iter().sum();
        let whole = taps.iter().rev().map(|tap| (tap / gain) as f32).collect();
        Self { phases, whole }
    }

    /// Returns the filter of a ratio, which is designed once for all.
    fn of(ratio: usize) -> &'static Self {
        static TWO: LazyLock<Filter> = LazyLock::new(|| Filter::design(2));
        static THREE: LazyLock<Filter> = LazyLock::new(|| Filter::design(3));
        static SIX: LazyLock<Filter> = LazyLock::new(|| Filter::design(6));
        match ratio {
            2 => &TWO,
            3 => &THREE,
            _ => &SIX,
        }
    }
}

/// The modified Bessel function of the first kind and order 0, by its series.
fn bessel(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for n in 1..40 {
        term *= (x / (2.0 * f64::from(n))).powi(2);
        sum += term;
    }
    sum
}

/// The scalar product of two slices of one length.
fn dot(samples: &[f32], taps: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (samples, taps) = (samples.as_chunks::<LANES>().0, taps.as_chunks::<LANES>().0);
    for (samples, taps) in samples.iter().zip(taps) {
        for lane in 0..LANES {
            lanes[lane] += samples[lane] * taps[lane];
        }
    }
    lanes.iter().sum()
}

/// Rounds to the nearest sample and limits.
fn sample(value: f32) -> i16 {
    // The cast cuts towards 0 and limits; the offset is what keeps it on one side of it.
    ((value + 32_768.5) as i32 - 32_768).clamp(-32_768, 32_767) as i16
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Same,
    Up,
    Down,
}

/// Resamples one stream. Allocates only when built.
#[derive(Clone)]
pub struct Resampler {
    direction: Direction,
    ratio: usize,
    filter: &'static Filter,
    /// Samples that the filter looks back at, and the block after them.
    past: Box<[f32]>,
    /// How many of those precede the block.
    look_back: usize,
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { direction, ratio, .. } = self;
        f.debug_struct("Resampler")
            .field("direction", direction)
            .field("ratio", ratio)
            .finish_non_exhaustive()
    }
}

impl Resampler {
    /// Builds a resampler whose past is silence. Rates are in Hz; equal rates pass everything as it is, without delay.
    ///
    /// # Errors
    /// [`CodecError::SampleRate`] for a rate that is not 8000, 16000 or 48000.
    pub fn new(from: u32, to: u32) -> Result<Self, CodecError> {
        for rate in [from, to] {
            if ![8_000, 16_000, 48_000].contains(&rate) {
                return Err(CodecError::SampleRate(rate));
            }
        }
        let ratio = (from.max(to) / from.min(to)) as usize;
        let (direction, look_back, block) = match from.cmp(&to) {
            std::cmp::Ordering::Equal => (Direction::Same, 0, 0),
            std::cmp::Ordering::Less => (Direction::Up, TAPS - 1, BLOCK / ratio),
            std::cmp::Ordering::Greater => (Direction::Down, ratio * TAPS - 1, BLOCK),
        };
        let past = vec![0.0; look_back + block].into_boxed_slice();
        Ok(Self { direction, ratio, filter: Filter::of(ratio), past, look_back })
    }

    /// Resamples as much as both slices hold and returns how many samples were written. Downwards the input is a
    /// multiple of the ratio of the rates, as every frame of 10 ms is; what is beyond it is left out.
    pub fn resample(&mut self, input: &[i16], out: &mut [i16]) -> usize {
        match self.direction {
            Direction::Same => {
                let length = input.len().min(out.len());
                out[..length].copy_from_slice(&input[..length]);
                length
            }
            Direction::Up => self.up(input, out),
            Direction::Down => self.down(input, out),
        }
    }

    fn up(&mut self, input: &[i16], out: &mut [i16]) -> usize {
        let (ratio, block) = (self.ratio, BLOCK / self.ratio);
        let length = input.len().min(out.len() / ratio);
        let blocks = input[..length].chunks(block).zip(out[..length * ratio].chunks_mut(block * ratio));
        for (input, out) in blocks {
            self.take(input);
            for (span, out) in self.past.windows(TAPS).zip(out.chunks_exact_mut(ratio)) {
                for (taps, out) in self.filter.phases.iter().zip(out) {
                    *out = sample(dot(span, taps));
                }
            }
            self.keep(input.len());
        }
        length * ratio
    }

    fn down(&mut self, input: &[i16], out: &mut [i16]) -> usize {
        let ratio = self.ratio;
        let length = (input.len() / ratio).min(out.len());
        let blocks = input[..length * ratio].chunks(BLOCK).zip(out[..length].chunks_mut(BLOCK / ratio));
        for (input, out) in blocks {
            self.take(input);
            for (n, out) in out.iter_mut().enumerate() {
                // The first sample of each group is the one that stays.
                *out = sample(dot(&self.past[n * ratio..n * ratio + ratio * TAPS], &self.filter.whole));
            }
            self.keep(input.len());
        }
        length
    }

    fn take(&mut self, input: &[i16]) {
        for (place, &sample) in self.past[self.look_back..].iter_mut().zip(input) {
            *place = f32::from(sample);
        }
    }

    fn keep(&mut self, taken: usize) {
        self.past.copy_within(taken..taken + self.look_back, 0);
    }

    /// Returns the delay in samples of the lower rate: [`DELAY`], or 0 for equal rates.
    pub fn delay(&self) -> usize {
        if self.direction == Direction::Same { 0 } else { DELAY }
    }

    /// Forgets all history, so that the state may serve another call.
    pub fn reset(&mut self) {
        self.past.fill(0.0);
    }
}

const _: () = assert!(BLOCK.is_multiple_of(2 * MOST) && TAPS.is_multiple_of(LANES));
