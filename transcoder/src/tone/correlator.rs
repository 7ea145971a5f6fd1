//! How much of some frequencies a block of samples holds, with the phase of each.

use std::f32::consts::TAU;

use super::SAMPLE_RATE;

/// Samples that are added up side by side; every block is a multiple of it.
const LANES: usize = 8;

/// A complex number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Complex {
    pub(crate) re: f32,
    pub(crate) im: f32,
}

impl Complex {
    /// The number of that angle on the unit circle.
    pub(crate) fn unit(angle: f32) -> Self {
        Self { re: angle.cos(), im: angle.sin() }
    }

    /// The product with the conjugate of another: its angle is the difference of the two.
    pub(crate) fn turn_from(self, other: Self) -> Self {
        Self { re: self.re * other.re + self.im * other.im, im: self.im * other.re - self.re * other.im }
    }

    /// The product with another.
    pub(crate) fn turned_by(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }

    /// The square of the absolute value.
    pub(crate) fn power(self) -> f32 {
        self.re * self.re + self.im * self.im
    }

    /// The angle, from -pi to pi.
    pub(crate) fn angle(self) -> f32 {
        self.im.atan2(self.re)
    }
}

/// A discrete Fourier transform of blocks of `LENGTH` samples at `TONES` frequencies of choice. The sums of all
/// tones go side by side, which the compiler makes vectors of.
#[derive(Debug)]
pub(crate) struct Correlator<const TONES: usize, const LENGTH: usize> {
    /// Of each sample the weighted cosine and sine of each tone.
    table: [[[f32; TONES]; 2]; LENGTH],
    window: [f32; LENGTH],
}

impl<const TONES: usize, const LENGTH: usize> Correlator<TONES, LENGTH> {
    /// Builds the tables for frequencies in Hz. `window` gives the weight of each sample.
    pub(crate) fn new(frequencies: [f32; TONES], window: impl Fn(usize) -> f32) -> Self {
        let mut correlator = Self { table: [[[0.0; TONES]; 2]; LENGTH], window: [0.0; LENGTH] };
        for n in 0..LENGTH {
            correlator.window[n] = window(n);
            for (tone, frequency) in frequencies.iter().enumerate() {
                let turn = Complex::unit(TAU * frequency / SAMPLE_RATE * n as f32);
                correlator.table[n][0][tone] = turn.re * window(n);
                correlator.table[n][1][tone] = turn.im * window(n);
            }
        }
        correlator
    }

    /// Returns what a block holds of each tone. A sine of peak `a` gives a number of absolute value `a / 2` times
    /// the sum of the weights, with the phase that it has at the first sample.
    pub(crate) fn correlate(&self, block: &[f32; LENGTH]) -> [Complex; TONES] {
        let mut sums = [[0.0f32; TONES]; 2];
        for (sample, row) in block.iter().zip(&self.table) {
            for (sums, row) in sums.iter_mut().zip(row) {
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += sample * value;
                }
            }
        }
        let [re, im] = sums;
        std::array::from_fn(|tone| Complex { re: re[tone], im: -im[tone] })
    }

    /// Returns the energy of a block, weighted as the tones are.
    pub(crate) fn energy(&self, block: &[f32; LENGTH]) -> f32 {
        let mut sums = [0.0f32; LANES];
        let (samples, _) = block.as_chunks::<LANES>();
        let (weights, _) = self.window.as_chunks::<LANES>();
        for (samples, weights) in samples.iter().zip(weights) {
            for ((sum, sample), weight) in sums.iter_mut().zip(samples).zip(weights) {
                *sum += sample * sample * weight;
            }
        }
        sums.iter().sum()
    }
}
