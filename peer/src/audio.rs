//! Voice files: reading, change of sampling rate, recording.

use std::f64::consts::PI;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

/// The sampling rates that a phone runs at, in Hz.
pub const RATES: [u32; 3] = [8_000, 16_000, 48_000];
/// Longest clip that is read, in seconds.
pub const MAX_CLIP_SECONDS: u32 = 600;
/// Longest recording, in seconds; what comes later is not kept.
pub const MAX_RECORDING_SECONDS: u64 = 4 * 3_600;

/// Says why a file could not be played or recorded.
#[derive(Debug, thiserror::Error)]
pub enum AudioError {
    /// The file cannot be read as a wav file.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system or the parser says.
        reason: String,
    },
    /// The file is a wav file of another kind.
    #[error("{path} is {found}; wanted: mono, 16 bit integer, 8000, 16000 or 48000 Hz")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The file is too long.
    #[error("{path} is longer than {MAX_CLIP_SECONDS} s")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot record to {path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// A voice clip at the sampling rate of the phone. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    samples: Arc<[i16]>,
}

impl Clip {
    /// Reads a wav file (mono, 16 bit, 8000, 16000 or 48000 Hz) and brings it to `rate`. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read, has another form, or is longer than ten minutes.
    pub fn read(path: &Path, rate: u32) -> Result<Self, AudioError> {
        let failed = |error: hound::Error| AudioError::Read { path: path.into(), reason: error.to_string() };
        let reader = WavReader::open(path).map_err(failed)?;
        let spec = reader.spec();
        let integer = spec.sample_format == SampleFormat::Int;
        if spec.channels != 1 || spec.bits_per_sample != 16 || !integer || !RATES.contains(&spec.sample_rate)
        {
            let kind = if integer { "integer" } else { "float" };
            let WavSpec { channels, sample_rate, bits_per_sample, .. } = spec;
            let found = format!("{channels} channel(s), {bits_per_sample} bit {kind}, {sample_rate} Hz");
            return Err(AudioError::Format { path: path.into(), found });
        }
        if reader.duration() > MAX_CLIP_SECONDS * spec.sample_rate {
            return Err(AudioError::TooLong { path: path.into() });
        }
        let samples: Vec<i16> = reader.into_samples().collect::<Result<_, _>>().map_err(failed)?;
        Ok(Self::new(&resample(&samples, spec.sample_rate, rate)))
    }

    /// Wraps samples that are at the rate of the phone already.
    pub fn new(samples: &[i16]) -> Self {
        Self { samples: samples.into() }
    }

    /// Returns the samples.
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }
}

/// Brings samples from one of [`RATES`] to another with a windowed-sinc low-pass at nine tenths of
/// the lower Nyquist frequency.
pub fn resample(samples: &[i16], from: u32, to: u32) -> Vec<i16> {
    if from == to || samples.is_empty() {
        return samples.to_vec();
    }
    let ratio = f64::from(to) / f64::from(from);
    let cutoff = 0.9 * ratio.min(1.0);
    // Twelve zero crossings each side: some 60 dB below the pass band.
    let reach = 12.0 / cutoff;
    let length = (samples.len() as u64 * u64::from(to) / u64::from(from)) as usize;
    // The phase repeats after `to / gcd` outputs: one set of weights per phase.
    let phases = (to / gcd(from, to)) as usize;
    let weights: Vec<Vec<f64>> = (0..phases)
        .map(|phase| {
            let fraction = (phase as f64 / ratio).fract();
            let first = -(reach as i64);
            let taps = (first..=reach as i64 + 1).map(|tap| kernel(tap as f64 - fraction, cutoff, reach));
            let taps: Vec<f64> = taps.collect();
            let sum: f64 = taps.iter().sum();
            taps.iter().map(|tap| tap / sum).collect()
        })
        .collect();
    (0..length)
        .map(|at| {
            let base = (at as u64 * u64::from(from) / u64::from(to)) as i64 - reach as i64;
            let sum: f64 = weights[at % phases]
                .iter()
                .zip(base..)
                .filter_map(|(weight, index)| {
                    let sample = usize::try_from(index).ok().and_then(|index| samples.get(index))?;
                    Some(weight * f64::from(*sample))
                })
                .sum();
            sum.round().clamp(f64::from(i16::MIN), f64::from(i16::MAX)) as i16
        })
        .collect()
}

/// A sinc of the given cut-off under a Blackman window.
fn kernel(x: f64, cutoff: f64, reach: f64) -> f64 {
    if x.abs() >= reach {
        return 0.0;
    }
    let sinc = if x == 0.0 { 1.0 } else { (PI * cutoff * x).sin() / (PI * cutoff * x) };
    let phase = PI * x / reach;
    sinc * (0.42 + 0.5 * phase.cos() + 0.08 * (2.0 * phase).cos())
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Writes what is heard to a wav file (mono, 16 bit).
pub struct Recorder {
    path: PathBuf,
    writer: WavWriter<BufWriter<File>>,
    left: u64,
}

impl Recorder {
    /// Creates the file; one of that name is overwritten.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path, rate: u32) -> Result<Self, AudioError> {
        let spec =
            WavSpec { channels: 1, sample_rate: rate, bits_per_sample: 16, sample_format: SampleFormat::Int };
        let writer = WavWriter::create(path, spec)
            .map_err(|error| AudioError::Write { path: path.into(), reason: error.to_string() })?;
        Ok(Self { path: path.into(), writer, left: MAX_RECORDING_SECONDS * u64::from(rate) })
    }

    /// Appends samples, up to the longest recording.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, samples: &[i16]) -> Result<(), AudioError> {
        for sample in samples.iter().take(usize::try_from(self.left).unwrap_or(usize::MAX)) {
            self.writer.write_sample(*sample).map_err(|error| self.failed(&error))?;
        }
        self.left = self.left.saturating_sub(samples.len() as u64);
        Ok(())
    }

    /// Completes the header and closes the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self) -> Result<(), AudioError> {
        let path = self.path;
        let failed = |error: hound::Error| AudioError::Write { path, reason: error.to_string() };
        self.writer.finalize().map_err(failed)
    }

    fn failed(&self, error: &hound::Error) -> AudioError {
        AudioError::Write { path: self.path.clone(), reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tone(rate: u32, hertz: f64, seconds: f64) -> Vec<i16> {
        let count = (f64::from(rate) * seconds) as usize;
        (0..count)
            .map(|n| (8_000.0 * (2.0 * PI * hertz * n as f64 / f64::from(rate)).sin()).round() as i16)
            .collect()
    }

    fn rms(samples: &[i16]) -> f64 {
        (samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
    }

    #[test]
    fn resampling_keeps_a_tone_and_its_place_in_time() {
        for from in RATES {
            for to in RATES {
                let got = resample(&tone(from, 1_000.0, 0.5), from, to);
                let want = tone(to, 1_000.0, 0.5);
                assert_eq!(got.len(), want.len(), "{from} -> {to}");
                let inner = want.len() / 10..want.len() * 9 / 10;
                let error: Vec<i16> =
                    got[inner.clone()].iter().zip(&want[inner]).map(|(a, b)| a - b).collect();
                let ratio = rms(&error) / rms(&want);
                assert!(ratio < 0.003, "{from} -> {to}: error of {ratio}");
            }
        }
    }

    #[test]
    fn resampling_removes_what_the_lower_rate_cannot_carry() {
        let got = resample(&tone(48_000, 6_000.0, 0.5), 48_000, 8_000);
        assert!(rms(&got[400..3_600]) < 10.0, "{}", rms(&got[400..3_600]));
        assert!(resample(&[], 8_000, 48_000).is_empty());
    }

    #[test]
    fn files_survive_and_others_are_named() {
        let dir = std::env::temp_dir().join(format!("causeway-peer-audio-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let good = dir.join("good.wav");
        let mut recorder = Recorder::create(&good, 16_000).unwrap();
        recorder.write(&[1, -2, 3]).unwrap();
        recorder.finish().unwrap();
        assert_eq!(Clip::read(&good, 16_000).unwrap().samples(), [1, -2, 3]);

        let stereo = dir.join("stereo.wav");
        let spec = WavSpec {
            channels: 2,
            sample_rate: 44_100,
            bits_per_sample: 16,
            sample_format: SampleFormat::Int,
        };
        WavWriter::create(&stereo, spec).unwrap().finalize().unwrap();
        let error = Clip::read(&stereo, 16_000).unwrap_err().to_string();
        assert!(error.contains("2 channel(s), 16 bit integer, 44100 Hz; wanted: mono"), "{error}");
        let text = dir.join("text.wav");
        std::fs::write(&text, "hello").unwrap();
        assert!(matches!(Clip::read(&text, 8_000), Err(AudioError::Read { .. })));
        let nowhere = dir.join("no/such/dir.wav");
        assert!(matches!(Recorder::create(&nowhere, 8_000), Err(AudioError::Write { .. })));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
