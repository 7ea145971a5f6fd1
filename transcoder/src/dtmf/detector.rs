//! DTMF as tones, received: finds digits in audio (ITU-T Q.24) and takes them out of it.

use std::collections::VecDeque;
use std::f32::consts::{PI, TAU};
use std::sync::LazyLock;

use call_model::DtmfDigit;

use super::tones::{FREQUENCIES, digit_of};
use crate::codec::resample::Resampler;
use crate::tone::{Complex, Correlator, SAMPLE_RATE, peak_of};

/// Samples between two looks at the signal: 5 ms.
const HOP: usize = 40;
/// Samples of a block, two hops, under a Hann window: wide enough for all that a tone may be off, and narrow enough
/// to keep the groups apart.
const BLOCK: usize = 2 * HOP;
/// Blocks, each a hop behind the other, that are looked at together: 20 ms.
const BLOCKS: usize = 3;
const WINDOW: usize = BLOCK + (BLOCKS - 1) * HOP;
/// Sum of the weights of a block.
const WEIGHTS: f32 = HOP as f32;
/// Samples by which audio is held back, so that a tone is known for one before it has gone on: 25 ms.
const DELAY: usize = 5 * HOP;
/// Most samples looked at before any of them goes on.
const CHUNK: usize = 160;
/// Ratio of the highest rate to 8 kHz, in whose samples all this is counted.
const MAX_SCALE: usize = 2;

/// A tone is taken up to this far from its frequency: operation is asked for to 1.8 %, none from 3 % on (ITU-T Q.24
/// table A-1).
const TOLERANCE: f32 = 0.024;
/// Least level of each of the two tones, in dBm0: -27 is the faintest that table A-1 asks for, -30 the loudest of which
/// nothing is to come.
const FAINTEST_DBM0: f32 = -28.5;
/// Most that one of the two is louder than the other, as a ratio of power: 10 dB, the widest of table A-1.
const TWIST: f32 = 10.5;
/// Part of the energy that the two tones make up, when a digit begins and while it goes on.
const PURITY: f32 = 0.88;
const PURITY_HELD: f32 = 0.6;
/// Most power of the second harmonic of either tone, to that of the tone. A voice has overtones, a keypad none.
const HARMONIC: f32 = 0.02;
/// How far the second harmonic of one tone must be from the other tone to be told from it, in Hz.
const OVERTONE_WIDTH: f32 = 150.0;
/// Most that the power of either tone changes from hop to hop while a digit begins, as a ratio. A voice swells.
const STEADY: f32 = 1.5;
/// Most that the frequency of either tone changes from hop to hop meanwhile, in Hz. A voice glides.
const GLIDE: f32 = 10.0;
/// Hops in a row that must hear the two tones before they count: with the window they take at least 27 ms and at most
/// 36 ms, where 23 ms must not do and 40 ms must (table A-1).
const HITS: u32 = 4;
/// Hops in a row after which audio is kept back on suspicion.
const SUSPICIOUS: u32 = 2;
/// Hops without the tones, and hops of silence, that end a digit: an interruption of 10 ms does not, a pause of 30 ms
/// does (table A-1).
const MISSES: u32 = 9;
const QUIET: u32 = 4;
/// What a block of silence has of the energy of a block of the digit.
const QUIET_RATIO: f32 = 0.01;
/// Digits not yet fetched; the consumer fetches after every frame.
const MAX_PENDING: usize = 8;

static CORRELATOR: LazyLock<Correlator<8, BLOCK>> =
    LazyLock::new(|| Correlator::new(FREQUENCIES, |n| hann(n, BLOCK)));
/// Weights of the whole window.
static HANN: LazyLock<[f32; WINDOW]> = LazyLock::new(|| std::array::from_fn(|n| hann(n, WINDOW)));

fn hann(n: usize, length: usize) -> f32 {
    0.5 - 0.5 * (TAU * n as f32 / length as f32).cos()
}

/// What a block holds.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    energy: f32,
    tones: [Complex; 8],
}

/// One of the two tones of a digit.
#[derive(Clone, Copy, Debug, Default)]
struct Tone {
    index: usize,
    frequency: f32,
    /// Energy within the window.
    energy: f32,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    digit: DtmfDigit,
    tones: [Tone; 2],
    hits: u32,
    /// Hops since the tones were there, and hops of silence.
    misses: u32,
    quiet: u32,
    /// When the first and the last window began and ended that had the tones.
    began: u64,
    last: u64,
}

impl Candidate {
    fn is_digit(&self) -> bool {
        self.hits >= HITS
    }
}

/// Finds DTMF in audio at 8 or 16 kHz and takes it out. Audio is delayed by 25 ms. Never allocates but when built.
#[derive(Clone, Debug)]
pub struct ToneDetector {
    scale: usize,
    /// Brings wide band down to what is looked at.
    down: Option<Resampler>,
    /// The last samples as they came.
    window: [f32; WINDOW],
    blocks: [Block; BLOCKS],
    /// Energy of the last hop.
    hop_energy: f32,
    /// The samples that have not gone on yet.
    line: [i16; DELAY * MAX_SCALE],
    /// Samples taken in so far.
    time: u64,
    candidate: Option<Candidate>,
    listening: bool,
    pending: VecDeque<(DtmfDigit, u16)>,
}

impl Default for ToneDetector {
    fn default() -> Self {
        Self::new()
    }
}

impl ToneDetector {
    /// How long audio is held back, in samples at 8 kHz.
    pub const DELAY: usize = DELAY;

    /// Builds a detector for 8 kHz that has heard nothing.
    pub fn new() -> Self {
        Self::for_rate(SAMPLE_RATE as u32)
    }

    /// Builds a detector for 8000 or 16000 Hz that has heard nothing; any other rate is taken for 8000.
    pub fn for_rate(sample_rate: u32) -> Self {
        let down = match sample_rate {
            16_000 => Resampler::new(sample_rate, SAMPLE_RATE as u32).ok(),
            _ => None,
        };
        Self {
            scale: if down.is_some() { MAX_SCALE } else { 1 },
            down,
            window: [0.0; WINDOW],
            blocks: [Block::default(); BLOCKS],
            hop_energy: 0.0,
            line: [0; DELAY * MAX_SCALE],
            time: 0,
            candidate: None,
            listening: true,
            pending: VecDeque::with_capacity(MAX_PENDING),
        }
    }

    /// Forgets what it has heard and holds back, for another stream. Digits that were found stay.
    pub fn reset(&mut self) {
        (self.window, self.line, self.hop_energy) = ([0.0; WINDOW], [0; DELAY * MAX_SCALE], 0.0);
        if let Some(down) = &mut self.down {
            down.reset();
        }
        (self.blocks, self.candidate) = ([Block::default(); BLOCKS], None);
    }

    /// Listens, as it does from the beginning, or only delays: fax and modem signals are no digits.
    pub fn set_listening(&mut self, listening: bool) {
        self.listening = listening;
        if !listening {
            self.candidate = None;
        }
    }

    /// Takes in the next frame, a multiple of 5 ms, and puts in its place what goes on: the audio of 25 ms before,
    /// without the tones. What is over 5 ms is not looked at.
    pub fn process(&mut self, frame: &mut [i16]) {
        let scale = self.scale;
        for chunk in frame.chunks_mut(CHUNK * scale) {
            let mut span = [0; (DELAY + CHUNK) * MAX_SCALE];
            let (length, delay) = (chunk.len(), DELAY * scale);
            span[..delay].copy_from_slice(&self.line[..delay]);
            span[delay..delay + length].copy_from_slice(chunk);
            // The time of the first sample that is still held.
            let first = self.time.saturating_sub(DELAY as u64);
            let held = DELAY.saturating_sub(self.time as usize);
            // What was brought down is looked at a little later than it came.
            let later = self.down.as_ref().map_or(0, Resampler::delay) as u64;
            for hop in chunk.chunks_exact(HOP * scale) {
                let mut narrow = [0; HOP];
                let silent = match &mut self.down {
                    Some(down) => {
                        down.resample(hop, &mut narrow);
                        self.take(&narrow)
                    }
                    None => self.take(hop),
                };
                if let Some((from, to)) = silent {
                    let place = |time: u64| held + time.saturating_sub(later).saturating_sub(first) as usize;
                    let end = delay + length;
                    span[(place(from) * scale).min(end)..(place(to) * scale).min(end)].fill(0);
                }
            }
            self.time += (length / scale % HOP) as u64;
            self.line[..delay].copy_from_slice(&span[length..length + delay]);
            chunk.copy_from_slice(&span[..length]);
        }
    }

    /// Returns a digit that has ended, and its length in milliseconds. To be called until `None` after every frame.
    #[must_use]
    pub fn poll_digit(&mut self) -> Option<(DtmfDigit, u16)> {
        self.pending.pop_front()
    }

    /// Says whether a digit is down.
    pub fn is_active(&self) -> bool {
        self.candidate.is_some_and(|candidate| candidate.is_digit())
    }

    /// Takes in a hop and returns the time that is not to be heard.
    fn take(&mut self, hop: &[i16]) -> Option<(u64, u64)> {
        self.window.copy_within(HOP.., 0);
        let mut energy = 0i64;
        for (kept, &sample) in self.window[WINDOW - HOP..].iter_mut().zip(hop) {
            *kept = f32::from(sample);
            energy += i64::from(i32::from(sample) * i32::from(sample));
        }
        self.time += HOP as u64;
        let before = std::mem::replace(&mut self.hop_energy, energy as f32);
        if !self.listening {
            return None;
        }
        self.blocks.copy_within(1.., 0);
        self.blocks[BLOCKS - 1] = match self.window.last_chunk::<BLOCK>() {
            Some(block) if before + self.hop_energy > FAINT_BLOCK => {
                Block { energy: CORRELATOR.energy(block), tones: CORRELATOR.correlate(block) }
            }
            _ => Block::default(),
        };
        self.judge()
    }

    fn judge(&mut self) -> Option<(u64, u64)> {
        let now = self.time;
        let down = self.candidate.filter(Candidate::is_digit).map(|candidate| candidate.digit);
        let held = down.is_some();
        // It takes less for a digit to go on than for one to begin.
        let goes_on = down.and_then(|digit| self.tones(PURITY_HELD).filter(|(heard, _)| *heard == digit));
        let begins = || self.tones(PURITY).filter(|(_, tones)| !self.has_overtones(tones));
        let heard = goes_on.or_else(begins);
        match (self.candidate.as_mut(), heard) {
            (None, None) => return None,
            (Some(candidate), Some((digit, tones))) if candidate.digit == digit => {
                let steady = candidate.tones.iter().zip(&tones).all(|(before, now)| {
                    let ratio = before.energy / now.energy;
                    (1.0 / STEADY..STEADY).contains(&ratio)
                        && (before.frequency - now.frequency).abs() < GLIDE
                });
                // The first window has not all of the tone.
                if held || steady || candidate.hits == 1 {
                    candidate.hits += 1;
                } else {
                    candidate.hits = 1;
                    candidate.began = now.saturating_sub(WINDOW as u64);
                }
                (candidate.tones, candidate.last) = (tones, now);
                (candidate.misses, candidate.quiet) = (0, 0);
            }
            (Some(candidate), None) if held => {
                candidate.misses += 1;
                let energy: f32 = candidate.tones.iter().map(|tone| tone.energy).sum();
                let silent = self.blocks[BLOCKS - 1].energy < QUIET_RATIO * energy / BLOCKS as f32;
                candidate.quiet = if silent { candidate.quiet + 1 } else { 0 };
                if candidate.misses >= MISSES || candidate.quiet >= QUIET {
                    return self.end();
                }
            }
            // What was suspected was none.
            (Some(_), None) => {
                self.candidate = None;
                return None;
            }
            (_, Some((digit, tones))) => {
                let silent = if held { self.end() } else { None };
                let began = now.saturating_sub(WINDOW as u64);
                let new = Candidate { digit, tones, hits: 1, misses: 0, quiet: 0, began, last: now };
                self.candidate = Some(new);
                return silent;
            }
        }
        let candidate = self.candidate?;
        match candidate.hits {
            hits if hits < SUSPICIOUS => None,
            hits if hits <= HITS => Some((candidate.began, now)),
            _ => Some((now.saturating_sub(HOP as u64), now)),
        }
    }

    /// Ends the digit. What follows the last window that had it still has a little of it.
    fn end(&mut self) -> Option<(u64, u64)> {
        let candidate = self.candidate.take()?;
        let samples = candidate.last - candidate.began;
        if self.pending.len() < MAX_PENDING {
            // The first and the last window have less than all of it by half a hop each, on the mean.
            let duration_ms = u16::try_from(samples.saturating_sub(HOP as u64) / 8).unwrap_or(u16::MAX);
            self.pending.push_back((candidate.digit, duration_ms));
        }
        Some((candidate.last, candidate.last + BLOCK as u64))
    }

    /// Finds the two tones of a digit in the window, if it holds these and little else.
    fn tones(&self, purity: f32) -> Option<(DtmfDigit, [Tone; 2])> {
        let total: f32 = self.blocks.iter().map(|block| block.energy).sum();
        let strongest = |group: std::ops::Range<usize>| {
            let power =
                |index: usize| self.blocks.iter().map(|block| block.tones[index].power()).sum::<f32>();
            group.map(|index| (power(index), index)).max_by(|a, b| a.0.total_cmp(&b.0))
        };
        let ((low_power, low), (high_power, high)) = (strongest(0..4)?, strongest(4..8)?);
        // What most signals fail, before anything is worked out of them: a block of one tone has a power of half the
        // weights times its energy, and a little less where the tone is off.
        if total <= 0.0 || low_power + high_power < 0.7 * purity * WEIGHTS / 2.0 * total {
            return None;
        }
        let tones = [self.measure(low)?, self.measure(high)?];
        let [low, high] = tones.map(|tone| tone.energy);
        let faintest = BLOCKS as f32 * WEIGHTS * peak_of(FAINTEST_DBM0).powi(2) / 2.0;
        let fits = low + high >= purity * total
            && low.max(high) <= TWIST * low.min(high)
            && low.min(high) >= faintest;
        let digit = digit_of(tones[0].index, tones[1].index - 4)?;
        fits.then_some((digit, tones))
    }

    /// Works out the frequency and energy of a tone from how its phase goes on from block to block. `None` if the
    /// frequency is another than that of the index.
    fn measure(&self, index: usize) -> Option<Tone> {
        let nominal = FREQUENCIES[index];
        let expected = TAU * nominal / SAMPLE_RATE * HOP as f32;
        let [first, second, third] = self.blocks.map(|block| block.tones[index]);
        let turn = second.turn_from(first).plus(third.turn_from(second)).turn_from(Complex::unit(expected));
        let off = turn.angle() / (TAU * HOP as f32) * SAMPLE_RATE;
        if off.abs() > TOLERANCE * nominal {
            return None;
        }
        // All three turned to the phase of the first.
        let step = Complex::unit(-(expected + turn.angle()));
        let sum = first.plus(second.turned_by(step)).plus(third.turned_by(step).turned_by(step));
        let energy = 2.0 * sum.power() / (BLOCKS as f32 * WEIGHTS * hann_response(off).powi(2));
        Some(Tone { index, frequency: nominal + off, energy })
    }

    /// Says whether either tone has an overtone, as a voice has.
    fn has_overtones(&self, tones: &[Tone; 2]) -> bool {
        tones.iter().any(|tone| {
            let overtone = 2.0 * tone.frequency;
            // The window does not tell apart what is closer.
            let hidden = tones.iter().any(|other| (other.frequency - overtone).abs() < OVERTONE_WIDTH);
            !hidden && self.energy_at(overtone) > HARMONIC * tone.energy
        })
    }

    /// Returns the energy at a frequency, in the measure of [`Tone::energy`].
    fn energy_at(&self, frequency: f32) -> f32 {
        let step = Complex::unit(-TAU * frequency / SAMPLE_RATE);
        let (mut turn, mut sum) = (Complex { re: 1.0, im: 0.0 }, Complex::default());
        for (sample, weight) in self.window.iter().zip(HANN.iter()) {
            let weighted = sample * weight;
            sum = sum.plus(Complex { re: turn.re * weighted, im: turn.im * weighted });
            turn = turn.turned_by(step);
        }
        // The weights of this window sum to half of its length.
        sum.power() * 4.0 / (WINDOW * WINDOW) as f32 * 2.0 * BLOCKS as f32 * WEIGHTS
    }
}

/// Energy under which a block holds no digit, whatever it holds.
const FAINT_BLOCK: f32 = BLOCK as f32 * 300.0 * 300.0;

/// What is left of a tone that is off by so many Hz, under the window of a block.
fn hann_response(off: f32) -> f32 {
    let x = off / (SAMPLE_RATE / BLOCK as f32);
    if x.abs() < 1e-3 { 1.0 } else { (PI * x).sin() / (PI * x * (1.0 - x * x)) }
}
