//! Sound like speech, of which no digit and no fax signal is to be made: voices from a child's to a man's with vowels,
//! glides, pauses and fricatives, one alone or several at once.

use std::f64::consts::{PI, TAU};

/// One voice: a pulse train of a gliding pitch through three formants, and noise through one.
struct Voice {
    random: u64,
    pitch: f64,
    pitch_goal: f64,
    phase: f64,
    formants: [f64; 3],
    goals: [f64; 3],
    state: [[f64; 2]; 3],
    left: u32,
    gain: f64,
    gain_goal: f64,
    breath: f64,
}

/// Formants of vowels in Hz (Peterson and Barney's means for men).
const VOWELS: [[f64; 3]; 10] = [
    [270.0, 2290.0, 3010.0],
    [390.0, 1990.0, 2550.0],
    [530.0, 1840.0, 2480.0],
    [660.0, 1720.0, 2410.0],
    [730.0, 1090.0, 2440.0],
    [570.0, 840.0, 2410.0],
    [440.0, 1020.0, 2240.0],
    [300.0, 870.0, 2240.0],
    [640.0, 1190.0, 2390.0],
    [490.0, 1350.0, 1690.0],
];

impl Voice {
    fn new(seed: u64) -> Self {
        let mut voice = Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            pitch: 120.0,
            pitch_goal: 120.0,
            phase: 0.0,
            formants: VOWELS[0],
            goals: VOWELS[0],
            state: [[0.0; 2]; 3],
            left: 0,
            gain: 0.0,
            gain_goal: 0.0,
            breath: 0.0,
        };
        // From a man's to a child's.
        voice.pitch = 80.0 + 300.0 * voice.uniform();
        voice
    }

    fn uniform(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Chooses the next sound: 40 to 300 ms of a vowel, a fricative or a pause.
    fn choose(&mut self) {
        self.left = 320 + (self.uniform() * 2_080.0) as u32;
        let kind = self.uniform();
        let vowel = VOWELS[(self.uniform() * 10.0) as usize % 10];
        let size = 0.9 + 0.4 * self.uniform();
        self.goals = vowel.map(|formant| (formant * size).min(3_600.0));
        self.pitch_goal = (self.pitch * (0.75 + 0.5 * self.uniform())).clamp(70.0, 450.0);
        // A held pitch, as of one who sings, is the hardest.
        if self.uniform() < 0.3 {
            self.pitch_goal = self.pitch;
        }
        self.gain_goal = if kind < 0.2 { 0.0 } else { 0.3 + self.uniform() };
        self.breath = if kind > 0.85 { 1.0 } else { 0.02 * self.uniform() };
    }

    fn next_sample(&mut self) -> f64 {
        if self.left == 0 {
            self.choose();
        }
        self.left -= 1;
        self.pitch += (self.pitch_goal - self.pitch) / 800.0;
        self.gain += (self.gain_goal - self.gain) / 160.0;
        for (formant, goal) in self.formants.iter_mut().zip(self.goals) {
            *formant += (goal - *formant) / 400.0;
        }
        self.phase += self.pitch / 8_000.0;
        let mut excitation = 0.0;
        if self.phase >= 1.0 {
            self.phase -= 1.0;
            excitation = 1.0;
        }
        excitation = excitation * (1.0 - self.breath) + (self.uniform() - 0.5) * self.breath * 0.3;
        let mut sound = 0.0;
        for (n, (state, formant)) in self.state.iter_mut().zip(self.formants).enumerate() {
            let radius = (-PI * (50.0 + 30.0 * n as f64) / 8_000.0).exp();
            let value = excitation + 2.0 * radius * (TAU * formant / 8_000.0).cos() * state[0]
                - radius * radius * state[1];
            (state[1], state[0]) = (state[0], value);
            sound += value * [1.0, 0.6, 0.3][n] * (TAU * formant / 8_000.0).sin();
        }
        sound * self.gain
    }
}

/// A talker, or up to three.
pub struct Babble {
    voices: Vec<Voice>,
    level: f64,
}

impl Babble {
    pub fn new(seed: u64) -> Self {
        let voices = (0..=seed % 3).map(|n| Voice::new(seed * 7 + n + 1)).collect();
        Self { voices, level: [2_500.0, 6_000.0, 12_000.0][(seed / 3 % 3) as usize] }
    }

    pub fn next_sample(&mut self) -> i16 {
        let sum: f64 = self.voices.iter_mut().map(Voice::next_sample).sum();
        (sum * self.level).clamp(-32_768.0, 32_767.0) as i16
    }
}
