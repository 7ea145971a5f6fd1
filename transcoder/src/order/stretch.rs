//! Time-scaling: a frame is made shorter or longer by a stretch of sound that it holds twice, such as a pitch
//! period, so that the delay changes while pitch and words stay as they were. The cut is where two stretches are
//! most alike, and one fades into the other there (overlap-add by best correlation, as WSOLA has it).

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::codec::is_quiet;

/// Everything here is counted in samples of 8 kHz, and scaled from there.
const BASE_RATE: usize = 8_000;
/// Shortest stretch that is taken out or put in: 2.5 ms.
const LEAST: usize = 20;
/// Longest one: 15 ms, the pitch period of a deep voice.
const MOST: usize = 120;
/// Samples that fade into each other and are compared before: 5 to 10 ms, three eighths of a frame between.
const SHORTEST_OVERLAP: usize = 40;
const LONGEST_OVERLAP: usize = 80;
/// Samples of a fade where nothing can be heard: 2.5 ms.
const QUIET_OVERLAP: usize = 20;
/// Longest frame at 8 kHz: 120 ms.
const LONGEST_FRAME: usize = 960;
/// Ratio of the highest rate to 8 kHz.
const MAX_SCALE: usize = 6;
/// Samples between two cuts in sound: 40 ms, so that no syllable is hurried.
const REST: usize = 320;
/// From this much to be made up for on, there is no rest.
const URGENT: Duration = Duration::from_millis(40);
/// How alike two stretches must be: less the longer none was found, and less the more is to be made up for.
const ALIKE: f32 = 0.9;
const PER_MILLISECOND: f32 = 0.005;
const PER_REFUSAL: f32 = 0.02;
/// The same where the sound is to grow longer: else a gap is near.
const PER_STRETCH_REFUSAL: f32 = 0.4;

/// How the playout of a frame should differ from what was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Not at all.
    #[default]
    Keep,
    /// The delay is above its target by this much: the frame may be shorter by up to that.
    Shorten(Duration),
    /// The delay is below its target by this much: the frame should be longer.
    Stretch(Duration),
}

/// Changes the length of decoded frames. Never allocates. Costs nothing while the pace is kept.
#[derive(Clone, Debug)]
pub struct TimeScaler {
    scale: usize,
    /// Samples until sound may be cut again.
    rest: usize,
    /// Frames in a row that had no two stretches alike enough.
    refusals: u16,
    shortened: u64,
    stretched: u64,
}

impl TimeScaler {
    /// Builds a scaler for audio of 8000, 16000 or 48000 Hz; any other rate is taken for the nearest below.
    pub fn new(sample_rate: u32) -> Self {
        let scale = (sample_rate as usize / BASE_RATE).clamp(1, MAX_SCALE);
        Self { scale, rest: 0, refusals: 0, shortened: 0, stretched: 0 }
    }

    /// Returns the most samples by which a frame grows: 15 ms.
    pub fn most_growth(&self) -> usize {
        MOST * self.scale
    }

    /// Changes the frame of `length` samples at the beginning of `buffer` as `pace` asks, and returns its new
    /// length. A quiet frame (below -50 dBov) may vanish; another changes by a pitch period or so. Where the
    /// buffer has no room for [`most_growth`](Self::most_growth), or nothing fits, the frame stays as it is.
    pub fn apply(&mut self, buffer: &mut [i16], length: usize, pace: Pace) -> usize {
        let length = length.min(buffer.len());
        self.rest = self.rest.saturating_sub(length);
        let (wanted, shorten) = match pace {
            Pace::Keep => {
                self.refusals = 0;
                return length;
            }
            Pace::Shorten(by) => (by, true),
            Pace::Stretch(by) => (by, false),
        };
        let quiet = is_quiet(&buffer[..length]);
        if quiet && shorten {
            return self.cut_silence(buffer, length, self.samples(wanted));
        }
        if shorten && self.rest > 0 && wanted < URGENT {
            return length;
        }
        let most =
            if shorten { self.samples(wanted) } else { self.samples(wanted).max(2 * LEAST * self.scale) };
        let overlap = self.overlap(length);
        let Some((lag, likeness)) = self.find(&buffer[..length], most, overlap) else { return length };
        let milliseconds = wanted.as_millis().min(1_000) as f32;
        let patience = if shorten { PER_REFUSAL } else { PER_STRETCH_REFUSAL };
        let needed = (ALIKE - patience * f32::from(self.refusals) - PER_MILLISECOND * milliseconds).max(0.0);
        if !quiet && likeness < needed {
            self.refusals = self.refusals.saturating_add(1);
            return length;
        }
        if shorten {
            self.settle(lag, true);
            remove(&mut buffer[..length], lag, overlap)
        } else if length + lag <= buffer.len() {
            self.settle(lag, false);
            repeat(&mut buffer[..length + lag], length, lag, overlap)
        } else {
            length
        }
    }

    /// Returns the samples that were taken out so far.
    pub fn shortened(&self) -> u64 {
        self.shortened
    }

    /// Returns the samples that were put in so far.
    pub fn stretched(&self) -> u64 {
        self.stretched
    }

    fn settle(&mut self, lag: usize, shorter: bool) {
        self.rest = REST * self.scale;
        self.refusals /= 2;
        if shorter { self.shortened += lag as u64 } else { self.stretched += lag as u64 }
    }

    fn samples(&self, time: Duration) -> usize {
        let micros = time.as_micros().min(1_000_000) as usize;
        micros * self.scale * BASE_RATE / 1_000_000
    }

    fn overlap(&self, length: usize) -> usize {
        let base = length / self.scale;
        (base * 3 / 8).clamp(SHORTEST_OVERLAP, LONGEST_OVERLAP) * self.scale
    }

    /// Silence needs no likeness: what is too much of it goes.
    fn cut_silence(&mut self, buffer: &mut [i16], length: usize, most: usize) -> usize {
        let overlap = QUIET_OVERLAP * self.scale;
        let cut = if most >= length { length } else { most.min(length.saturating_sub(overlap)) };
        self.shortened += cut as u64;
        if cut == length { 0 } else { remove(&mut buffer[..length], cut, overlap.min(length - cut)) }
    }

    /// Finds the lag at which the frame is most like its own beginning, 2.5 to 15 ms and at most `most`, and how
    /// alike the two are: 1 for equal shapes.
    fn find(&self, frame: &[i16], most: usize, overlap: usize) -> Option<(usize, f32)> {
        let scale = self.scale;
        let base_length = (frame.len() / scale).min(LONGEST_FRAME);
        let base_overlap = overlap / scale;
        let longest = MOST.min(most / scale).min(base_length.checked_sub(base_overlap)?);
        if longest < LEAST {
            return None;
        }
        let mut base = [0i16; MOST + LONGEST_OVERLAP];
        let base = &mut base[..longest + base_overlap];
        for (sample, group) in base.iter_mut().zip(frame.chunks_exact(scale)) {
            *sample = (group.iter().map(|&sample| i32::from(sample)).sum::<i32>() / scale as i32) as i16;
        }
        // Twelve bits of magnitude keep a sum of 80 products within 32 bits, where it is cheap.
        let loudest = base.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0);
        let shift = 5u32.saturating_sub(loudest.leading_zeros());
        for sample in &mut *base {
            *sample >>= shift;
        }
        let best = best_lag(base, LEAST..=longest, base_overlap, product);
        if scale == 1 {
            return Some(best);
        }
        // At the full rate the peak lies within one sample of the lower rate.
        let limit = (frame.len() - overlap).min(most).min(MOST * scale);
        let around = best.0 * scale - scale + 1..=(best.0 * scale + scale - 1).min(limit);
        Some((best_lag(frame, around, overlap, wide_product).0, best.1))
    }
}

/// Returns the lag of the range at which `samples` are most like their beginning of `overlap` samples, and the
/// normalised correlation there.
fn best_lag(
    samples: &[i16],
    lags: RangeInclusive<usize>,
    overlap: usize,
    product: impl Fn(&[i16], &[i16]) -> f32,
) -> (usize, f32) {
    let start = &samples[..overlap];
    let own = product(start, start);
    let mut best = (*lags.start(), f32::MIN);
    for lag in lags {
        let later = &samples[lag..lag + overlap];
        let likeness = product(start, later) / (own * product(later, later)).sqrt().max(1.0);
        if likeness > best.1 {
            best = (lag, likeness);
        }
    }
    best
}

/// Inner product of samples of twelve bits, 80 at most.
fn product(a: &[i16], b: &[i16]) -> f32 {
    a.iter().zip(b).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>() as f32
}

fn wide_product(a: &[i16], b: &[i16]) -> f32 {
    a.iter().zip(b).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum::<i64>() as f32
}

fn mix(from: i16, to: i16, n: usize, overlap: usize) -> i16 {
    let weight = (n + 1) as f32 / (overlap + 1) as f32;
    (f32::from(from) + (f32::from(to) - f32::from(from)) * weight) as i16
}

/// Takes `lag` samples out: the beginning fades into what follows it by the lag.
fn remove(frame: &mut [i16], lag: usize, overlap: usize) -> usize {
    for n in 0..overlap {
        frame[n] = mix(frame[n], frame[n + lag], n, overlap);
    }
    frame.copy_within(lag + overlap.., overlap);
    frame.len() - lag
}

/// Puts `lag` samples in: what follows the beginning by the lag fades into the beginning once more.
fn repeat(buffer: &mut [i16], length: usize, lag: usize, overlap: usize) -> usize {
    let mut head = [0i16; (MOST + LONGEST_OVERLAP) * MAX_SCALE];
    let head = &mut head[..lag + overlap];
    head.copy_from_slice(&buffer[..lag + overlap]);
    buffer.copy_within(overlap..length, overlap + lag);
    for n in 0..overlap {
        buffer[lag + n] = mix(head[lag + n], head[n], n, overlap);
    }
    length + lag
}
