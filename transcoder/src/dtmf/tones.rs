//! DTMF as tones (ITU-T Q.23): which two frequencies are which digit, and a sender.

use std::collections::VecDeque;
use std::f32::consts::TAU;

use call_model::DtmfDigit;

use super::QueueFull;
use crate::tone::{SAMPLE_RATE, peak_of};

/// The frequencies in Hz, the low group before the high group (ITU-T Q.23).
pub(super) const FREQUENCIES: [f32; 8] = [697.0, 770.0, 852.0, 941.0, 1209.0, 1336.0, 1477.0, 1633.0];
/// The keys, a row for each frequency of the low group.
const KEYS: [[char; 4]; 4] =
    [['1', '2', '3', 'A'], ['4', '5', '6', 'B'], ['7', '8', '9', 'C'], ['*', '0', '#', 'D']];

/// Digits that may wait.
const MAX_QUEUED: usize = 32;
/// Levels of the low and the high group in dBm0: what ETSI ES 201 235-2 has telephones send.
const LEVELS: [f32; 2] = [-9.0, -7.0];
/// Shortest tone and shortest pause of automatic dialling, in milliseconds (ETSI ES 201 235-2).
const MIN_TONE_MS: u32 = 65;
const MIN_PAUSE_MS: u32 = 65;
/// Longest tone, in milliseconds.
const MAX_TONE_MS: u32 = 10_000;
/// Milliseconds over which a tone rises and falls, without a click.
const RAMP_MS: u32 = 2;

/// Returns the digit of a frequency of the low and one of the high group, each counted from 0.
pub(super) fn digit_of(low: usize, high: usize) -> Option<DtmfDigit> {
    DtmfDigit::from_char(*KEYS.get(low)?.get(high)?)
}

/// Returns the frequencies of a digit in Hz, that of the low group first (ITU-T Q.23).
pub fn frequencies_of(digit: DtmfDigit) -> [f32; 2] {
    let key = digit.as_char();
    let place = KEYS.iter().flatten().position(|&known| known == key).unwrap_or(0);
    [FREQUENCIES[place / 4], FREQUENCIES[4 + place % 4]]
}

#[derive(Clone, Copy, Debug)]
struct Sounding {
    digit: DtmfDigit,
    /// Of each of the two tones: its phase, and how much it turns in a sample, as parts of a circle.
    tones: [(f32, f32); 2],
    /// Samples so far, and when the tone and the pause behind it end.
    at: u32,
    tone_end: u32,
    end: u32,
    /// Samples over which it rises and falls.
    ramp: u32,
}

/// Turns digits into tones in audio, for a far end without telephone events. Allocates only when built.
#[derive(Clone, Debug)]
pub struct ToneSender {
    sample_rate: u32,
    queue: VecDeque<(DtmfDigit, u16)>,
    sounding: Option<Sounding>,
}

impl Default for ToneSender {
    fn default() -> Self {
        Self::new()
    }
}

impl ToneSender {
    /// Builds a sender for 8 kHz with nothing to send.
    pub fn new() -> Self {
        Self::for_rate(SAMPLE_RATE as u32)
    }

    /// Builds a sender for audio of so many Hz, at least 8000, with nothing to send.
    pub fn for_rate(sample_rate: u32) -> Self {
        Self { sample_rate, queue: VecDeque::with_capacity(MAX_QUEUED), sounding: None }
    }

    /// Queues a digit of 65 to 10,000 ms; other durations are brought into that range.
    ///
    /// # Errors
    /// [`QueueFull`] when 32 digits wait.
    pub fn queue(&mut self, digit: DtmfDigit, duration_ms: u16) -> Result<(), QueueFull> {
        if self.queue.len() >= MAX_QUEUED {
            return Err(QueueFull);
        }
        self.queue.push_back((digit, duration_ms));
        Ok(())
    }

    /// Puts the tones that are due in the place of the next samples of audio, and silence for the pause behind each.
    /// Returns the digit that sounds, or has just done so.
    pub fn fill(&mut self, audio: &mut [i16]) -> Option<DtmfDigit> {
        let mut sounded = None;
        for sample in audio {
            if self.sounding.is_none() {
                let Some((digit, duration_ms)) = self.queue.pop_front() else { break };
                self.sounding = Some(Sounding::new(digit, duration_ms, self.sample_rate));
            }
            let Some(sounding) = &mut self.sounding else { break };
            sounded = Some(sounding.digit);
            *sample = sounding.next();
            if sounding.at >= sounding.end {
                self.sounding = None;
            }
        }
        sounded
    }

    /// Says whether no digit is being sent or waiting.
    pub fn is_idle(&self) -> bool {
        self.sounding.is_none() && self.queue.is_empty()
    }
}

impl Sounding {
    fn new(digit: DtmfDigit, duration_ms: u16, sample_rate: u32) -> Self {
        let samples = |ms: u32| ms * (sample_rate / 1_000);
        let tone_end = samples(u32::from(duration_ms).clamp(MIN_TONE_MS, MAX_TONE_MS));
        let tones = frequencies_of(digit).map(|frequency| (0.0, frequency / sample_rate as f32));
        let (end, ramp) = (tone_end + samples(MIN_PAUSE_MS), samples(RAMP_MS).max(1));
        Self { digit, tones, at: 0, tone_end, end, ramp }
    }

    fn next(&mut self) -> i16 {
        let edge = self.at.min(self.tone_end.saturating_sub(self.at + 1));
        self.at += 1;
        if self.at > self.tone_end {
            return 0;
        }
        let ramp = (edge + 1).min(self.ramp) as f32 / self.ramp as f32;
        let gain = 0.5 - 0.5 * (TAU / 2.0 * ramp).cos();
        let mut sample = 0.0;
        for ((phase, step), level) in self.tones.iter_mut().zip(LEVELS) {
            sample += peak_of(level) * (TAU * *phase).sin();
            *phase = (*phase + *step).fract();
        }
        (gain * sample) as i16
    }
}
