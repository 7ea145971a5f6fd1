//! Tones and the digits made of them.

use super::{Audio, rms};

/// The rows and columns of the key pad, in hertz (ITU-T Q.23).
const ROWS: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f64; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const KEYS: [[char; 4]; 4] =
    [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

/// A stretch of the key pad's tones found in a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heard {
    /// The key.
    pub digit: char,
    /// Where it begins, in seconds.
    pub at: f64,
    /// How long it lasts, in milliseconds, to the nearest 10.
    pub duration_ms: u32,
}

/// The power of `hz` in `samples`, as a share of full scale: 1 for a sine of amplitude 1.
#[must_use]
pub fn goertzel(samples: &[f32], rate: u32, hz: f64) -> f64 {
    let step = 2.0 * (std::f64::consts::TAU * hz / f64::from(rate)).cos();
    let (mut one, mut two) = (0.0, 0.0);
    for &sample in samples {
        (one, two) = (f64::from(sample) + step * one - two, one);
    }
    let half = samples.len() as f64 / 2.0;
    if half == 0.0 { 0.0 } else { (one * one + two * two - step * one * two) / (half * half) }
}

/// The share of all power in `samples` that is the tone `hz`: near 1 for a clean tone, near 0 for anything else.
#[must_use]
pub fn tone_share(samples: &[f32], rate: u32, hz: f64) -> f64 {
    let total = 2.0 * rms(samples).powi(2);
    if total < 1e-9 { 0.0 } else { (goertzel(samples, rate, hz) / total).min(1.0) }
}

/// Finds the key pad's tones: two of them, together most of the power, for at least 30 ms.
#[must_use]
pub fn dtmf(audio: &Audio) -> Vec<Heard> {
    let hop = audio.rate as usize / 100;
    let frame = 2 * hop;
    let mut found: Vec<Heard> = Vec::new();
    let mut open: Option<(char, usize)> = None;
    let frames = audio.samples.len().saturating_sub(frame) / hop.max(1) + 1;
    for index in 0..=frames {
        let window = audio.samples.get(index * hop..index * hop + frame);
        let key = window.and_then(|window| key(window, audio.rate));
        if let Some((digit, start)) = open
            && key != Some(digit)
        {
            if index - start >= 3 {
                found.push(Heard {
                    digit,
                    at: start as f64 * 0.01,
                    duration_ms: (index - start) as u32 * 10,
                });
            }
            open = None;
        }
        if open.is_none() {
            open = key.map(|digit| (digit, index));
        }
    }
    found
}

/// The digits of [`dtmf`] as one string.
#[must_use]
pub fn dtmf_digits(audio: &Audio) -> String {
    dtmf(audio).iter().map(|heard| heard.digit).collect()
}

fn key(window: &[f32], rate: u32) -> Option<char> {
    let level = rms(window);
    if level < 0.003 {
        return None;
    }
    let strongest = |tones: [f64; 4]| {
        tones
            .iter()
            .map(|&hz| tone_share(window, rate, hz))
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap_or((0, 0.0))
    };
    let (row, low) = strongest(ROWS);
    let (column, high) = strongest(COLUMNS);
    (low + high > 0.75 && low > 0.1 && high > 0.1).then_some(KEYS[row][column])
}
