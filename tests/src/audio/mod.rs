//! Sound as samples, and the measures the suites apply to it.

mod correlation;
mod tone;

pub use correlation::{Correlation, correlation};
pub use tone::{Heard, dtmf, dtmf_digits, goertzel, tone_share};

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustfft::{FftPlanner, num_complex::Complex};

/// One channel of sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// Samples a second.
    pub rate: u32,
    /// Amplitudes; full scale is -1 to 1.
    pub samples: Vec<f32>,
}

impl Audio {
    /// Duration in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// Root mean square amplitude, 0 for no samples.
    #[must_use]
    pub fn rms(&self) -> f64 {
        rms(&self.samples)
    }

    /// The part from `from` to `to` seconds, as far as it exists.
    #[must_use]
    pub fn slice(&self, from: f64, to: f64) -> Audio {
        let at = |seconds: f64| ((seconds.max(0.0) * f64::from(self.rate)) as usize).min(self.samples.len());
        let (from, to) = (at(from), at(to));
        Audio { rate: self.rate, samples: self.samples[from..to.max(from)].to_vec() }
    }

    /// The same sound at another rate: exact for what both rates can hold, sharply cut above.
    #[must_use]
    pub fn resampled(&self, rate: u32) -> Audio {
        if rate == self.rate || self.samples.is_empty() {
            return Audio { rate, samples: self.samples.clone() };
        }
        // Silence is added until both lengths are whole, or the sound would be stretched by part of a sample.
        let common = greatest_common_divisor(self.rate, rate);
        let from = self.samples.len().next_multiple_of((self.rate / common) as usize);
        let to = from / (self.rate / common) as usize * (rate / common) as usize;
        let mut planner = FftPlanner::<f32>::new();
        let mut spectrum: Vec<_> = self.samples.iter().map(|&x| Complex::new(x, 0.0)).collect();
        spectrum.resize(from, Complex::new(0.0, 0.0));
        planner.plan_fft_forward(from).process(&mut spectrum);
        let mut out = vec![Complex::new(0.0, 0.0); to];
        let kept = from.min(to).div_ceil(2);
        out[..kept].copy_from_slice(&spectrum[..kept]);
        out[to - (kept - 1)..].copy_from_slice(&spectrum[from - (kept - 1)..]);
        planner.plan_fft_inverse(to).process(&mut out);
        Audio { rate, samples: out.iter().map(|x| x.re / from as f32).collect() }
    }

    /// Writes a 16-bit mono wav file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_wav(&self, path: &Path) -> Result<()> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: self.rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(path, spec)?;
        for &sample in &self.samples {
            writer.write_sample((sample * 32768.0).clamp(-32768.0, 32767.0) as i16)?;
        }
        Ok(writer.finalize()?)
    }
}

/// Reads a 16-bit wav file; several channels are mixed into one.
///
/// A recording still being written, whose header says less than the file holds, is read as far as the header says.
///
/// # Errors
/// When the file cannot be read or holds anything but 16-bit samples.
pub fn read_wav(path: &Path) -> Result<Audio> {
    let mut reader = hound::WavReader::open(path).with_context(|| path.display().to_string())?;
    let spec = reader.spec();
    ensure!(spec.bits_per_sample == 16, "{}: {} bits a sample", path.display(), spec.bits_per_sample);
    let samples = reader.samples::<i16>().collect::<Result<Vec<_>, _>>()?;
    let channels = usize::from(spec.channels.max(1));
    let mix = |frame: &[i16]| frame.iter().map(|&x| f32::from(x)).sum::<f32>() / (32768.0 * channels as f32);
    Ok(Audio { rate: spec.sample_rate, samples: samples.chunks_exact(channels).map(mix).collect() })
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn rms(samples: &[f32]) -> f64 {
    let sum: f64 = samples.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (sum / samples.len().max(1) as f64).sqrt()
}

/// Deterministic test sounds.
pub mod generate {
    use super::Audio;

    /// A sine of `hz` and amplitude 0.5 for `seconds`.
    #[must_use]
    pub fn tone(rate: u32, hz: f64, seconds: f64) -> Audio {
        tones(rate, &[hz], seconds)
    }

    /// Sines of `hz` together, each of amplitude 0.5 divided by their number.
    #[must_use]
    pub fn tones(rate: u32, hz: &[f64], seconds: f64) -> Audio {
        let sample = |n: usize| {
            let t = n as f64 / f64::from(rate);
            let sum: f64 = hz.iter().map(|hz| (std::f64::consts::TAU * hz * t).sin()).sum();
            (0.5 * sum / hz.len() as f64) as f32
        };
        Audio { rate, samples: (0..(seconds * f64::from(rate)) as usize).map(sample).collect() }
    }

    /// Speech-like sound: every 125 ms another chord of gliding tones between 300 and 3000 Hz, swelling and fading.
    /// Its autocorrelation has one sharp peak, and codecs made for speech keep its shape.
    #[must_use]
    pub fn babble(rate: u32, seconds: f64, seed: u64) -> Audio {
        let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
        let block = f64::from(rate) * 0.125;
        let count = (seconds * f64::from(rate)) as usize;
        let chords: Vec<[(f64, f64, f64); 3]> = (0..=(count as f64 / block) as usize)
            .map(|_| {
                std::array::from_fn(|_| {
                    (300.0 + 2700.0 * random.next(), random.next(), 3000.0 * (random.next() - 0.5))
                })
            })
            .collect();
        let sample = |n: usize| {
            let chord = &chords[(n as f64 / block) as usize];
            let t = (n as f64 % block) / f64::from(rate);
            let swell = (std::f64::consts::PI * t / 0.125).sin().powi(2);
            let sum: f64 = chord
                .iter()
                .map(|(hz, phase, glide)| {
                    (std::f64::consts::TAU * (hz * t + 0.5 * glide * t * t + phase)).sin()
                })
                .sum();
            (0.36 * swell * sum / 3.0) as f32
        };
        Audio { rate, samples: (0..count).map(sample).collect() }
    }

    /// Uniform noise of the given amplitude.
    #[must_use]
    pub fn noise(rate: u32, seconds: f64, amplitude: f64, seed: u64) -> Audio {
        let mut random = Random(seed.wrapping_mul(2).wrapping_add(1));
        let count = (seconds * f64::from(rate)) as usize;
        Audio {
            rate,
            samples: (0..count).map(|_| (amplitude * (2.0 * random.next() - 1.0)) as f32).collect(),
        }
    }

    /// A splitmix64 generator: the same numbers on every machine.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
        }
    }
}

#[cfg(test)]
mod tests;
