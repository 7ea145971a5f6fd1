//! How alike what was heard is to what was said.

use rustfft::{FftPlanner, num_complex::Complex};

use super::{Audio, rms};

/// Codecs delay by fractions of an 8 kHz sample, so waveforms are compared on a finer grid.
const FINE: u32 = 32_000;
/// The grid of the wide search, and of telephone sound itself.
const COARSE: u32 = 8_000;
const FINE_PER_COARSE: usize = (FINE / COARSE) as usize;
/// A block of 125 ms, in samples of the fine grid.
const BLOCK: usize = FINE as usize / 8;
/// How far around the lag of the block before a block is looked for: 1.25 ms.
const NEAR: isize = FINE as isize / 800;
/// How far a jitter buffer, or a machine that stood still, may have moved the sound by the time it is called lost:
/// 750 ms.
const FAR: isize = FINE as isize * 3 / 4;
/// Blocks this much quieter than the whole (-30 dB) are pauses; they hold nothing to compare.
const PAUSE: f64 = 0.0316;

/// The outcome of comparing a recording with its original.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlation {
    /// Normalised correlation of the whole overlap at the one best lag; 1 for a scaled copy, about 0 for unrelated sound.
    pub whole: f64,
    /// Delay of the recording behind the original at that lag, in milliseconds.
    pub lag_ms: f64,
    /// Median over blocks of 125 ms of each block's correlation, following drift and jumps of the lag.
    pub median_block: f64,
    /// Share of the blocks whose correlation is above 0.9.
    pub share_above_90: f64,
    /// Blocks compared: all of the original that the recording could hold, pauses left out.
    pub blocks: usize,
    /// Difference between the largest and the smallest lag of good blocks, in milliseconds.
    pub drift_ms: f64,
    /// Level of the recording relative to the original over the overlap, in decibels.
    pub gain_db: f64,
    /// Length of the overlap in seconds.
    pub overlap_s: f64,
}

impl std::fmt::Display for Correlation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "correlation {:.4} at {:.1} ms, median block {:.4}, {:.0}% of {} blocks above 0.9, drift {:.1} ms, gain {:+.1} dB, {:.1} s",
            self.whole,
            self.lag_ms,
            self.median_block,
            100.0 * self.share_above_90,
            self.blocks,
            self.drift_ms,
            self.gain_db,
            self.overlap_s
        )
    }
}

/// Finds `reference` in `got` and says how well it survived.
///
/// Both may have any sample rate; what is above 4 kHz is left out. An empty or silent recording correlates 0.
#[must_use]
pub fn correlation(reference: &Audio, got: &Audio) -> Correlation {
    let coarse = (reference.resampled(COARSE), got.resampled(COARSE));
    let fine = (coarse.0.resampled(FINE), coarse.1.resampled(FINE));
    let (said, heard) = (&fine.0.samples[..], &fine.1.samples[..]);
    let lag = best_lag(said, heard);
    let (a, b) = overlap(said, heard, lag);
    let mut search = Search { said, heard, coarse: (&coarse.0.samples, &coarse.1.samples), lag };
    let loud = rms(said) * PAUSE;
    let first = usize::try_from(-lag).unwrap_or(0).next_multiple_of(BLOCK);
    let last = (first + a.len()).min(said.len());
    let mut lags = Vec::new();
    let mut blocks: Vec<f64> = (first..last.saturating_sub(BLOCK - 1))
        .step_by(BLOCK)
        .filter(|&at| rms(&said[at..at + BLOCK]) > loud)
        .map(|at| {
            let (value, lag) = search.block(at);
            if value > 0.9 {
                lags.push(lag);
            }
            value
        })
        .collect();
    blocks.sort_by(f64::total_cmp);
    let good = lags.len();
    let drift = lags.iter().max().zip(lags.iter().min()).map_or(0, |(max, min)| max - min);
    Correlation {
        whole: normalised(a, b),
        lag_ms: lag as f64 * 1000.0 / f64::from(FINE),
        median_block: blocks.get(blocks.len() / 2).copied().unwrap_or(0.0),
        share_above_90: good as f64 / blocks.len().max(1) as f64,
        blocks: blocks.len(),
        drift_ms: drift as f64 * 1000.0 / f64::from(FINE),
        gain_db: 20.0 * (rms(b) / rms(a).max(1e-9)).max(1e-9).log10(),
        overlap_s: a.len() as f64 / f64::from(FINE),
    }
}

/// The lag, in samples, at which `heard` fits `said` best: the peak of their cross-correlation, by FFT.
fn best_lag(said: &[f32], heard: &[f32]) -> isize {
    if said.is_empty() || heard.is_empty() {
        return 0;
    }
    let size = (said.len() + heard.len()).next_power_of_two();
    let mut planner = FftPlanner::<f32>::new();
    let forward = planner.plan_fft_forward(size);
    let spectrum = |samples: &[f32]| {
        let mut out: Vec<_> = samples.iter().map(|&x| Complex::new(x, 0.0)).collect();
        out.resize(size, Complex::new(0.0, 0.0));
        forward.process(&mut out);
        out
    };
    let mut product: Vec<_> =
        spectrum(said).iter().zip(spectrum(heard)).map(|(said, heard)| heard * said.conj()).collect();
    planner.plan_fft_inverse(size).process(&mut product);
    let peak = (0..size).max_by(|&a, &b| product[a].re.total_cmp(&product[b].re)).unwrap_or(0);
    if peak > size / 2 { peak as isize - size as isize } else { peak as isize }
}

/// The parts of both that lie over each other when `heard` is `lag` late.
fn overlap<'a>(said: &'a [f32], heard: &'a [f32], lag: isize) -> (&'a [f32], &'a [f32]) {
    let said = said.get(usize::try_from(-lag).unwrap_or(0)..).unwrap_or_default();
    let heard = heard.get(usize::try_from(lag).unwrap_or(0)..).unwrap_or_default();
    let both = said.len().min(heard.len());
    (&said[..both], &heard[..both])
}

fn normalised(a: &[f32], b: &[f32]) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0f64, 0.0f64, 0.0f64);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (f64::from(a), f64::from(b));
        dot += a * b;
        aa += a * a;
        bb += b * b;
    }
    if aa * bb > 1e-18 { dot / (aa * bb).sqrt() } else { 0.0 }
}

/// Looks for one block after the other, from the lag where the block before was found.
struct Search<'a> {
    said: &'a [f32],
    heard: &'a [f32],
    coarse: (&'a [f32], &'a [f32]),
    lag: isize,
}

impl Search<'_> {
    /// The correlation of the block at `at` and the lag it was found with.
    fn block(&mut self, at: usize) -> (f64, isize) {
        let mut best = self.around(at, self.lag);
        if best.0 < 0.9 {
            let wide = self.wide(at);
            let moved = self.around(at, wide);
            if moved.0 > best.0 {
                best = moved;
            }
        }
        if best.0 > 0.9 {
            self.lag = best.1;
        }
        best
    }

    fn around(&self, at: usize, lag: isize) -> (f64, isize) {
        let block = &self.said[at..at + BLOCK];
        (lag - NEAR..=lag + NEAR)
            .map(|lag| {
                (window(self.heard, at as isize + lag, BLOCK).map_or(0.0, |got| normalised(block, got)), lag)
            })
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap_or((0.0, lag))
    }

    /// The best lag within [`FAR`], to the precision of the coarse grid.
    fn wide(&self, at: usize) -> isize {
        let scale = FINE_PER_COARSE as isize;
        let Some(block) = window(self.coarse.0, at as isize / scale, BLOCK / FINE_PER_COARSE) else {
            return self.lag;
        };
        ((self.lag - FAR) / scale..=(self.lag + FAR) / scale)
            .map(|lag| {
                let got = window(self.coarse.1, at as isize / scale + lag, block.len());
                (got.map_or(0.0, |got| normalised(block, got)), lag * scale)
            })
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(self.lag, |(_, lag)| lag)
    }
}

fn window(samples: &[f32], at: isize, length: usize) -> Option<&[f32]> {
    let at = usize::try_from(at).ok()?;
    samples.get(at..at.checked_add(length)?)
}
