//! Signals of fax machines and modems in audio: the stimuli at which a gateway takes a call for voiceband data
//! (ITU-T V.152 9).

use std::f32::consts::{PI, TAU};
use std::sync::LazyLock;

use super::{Complex, Correlator, SAMPLE_RATE, peak_of};

/// Samples of a block: 5 ms, in which the two frequencies of V.21 are orthogonal.
const BLOCK: usize = 40;
/// Blocks in a second.
const BLOCKS: f32 = SAMPLE_RATE / BLOCK as f32;
/// Frequencies in Hz: CNG, the two of V.21 channel 2 (1 and 0), ANS.
const FREQUENCIES: [f32; 4] = [1_100.0, 1_650.0, 1_850.0, 2_100.0];
const CNG: usize = 0;
const ANS: usize = 3;

/// Faintest signal, in dBm0: what a modem must take for one (ITU-T V.25).
const FAINTEST_DBM0: f32 = -43.0;
/// Part of a block's energy that a tone makes up.
const PURITY: f32 = 0.75;
/// How far from its frequency a tone may be, in Hz: 38 for CNG (ITU-T T.30 4), 15 for ANS (V.25), and what noise
/// does to the measure of it.
const CNG_OFF: f32 = 46.0;
const ANS_OFF: f32 = 24.0;
/// Blocks that CNG lasts: 0.5 s, 15 % more or less (T.30 4), and what a gateway on the way cuts off.
const CNG_BLOCKS: std::ops::RangeInclusive<u32> = 80..=120;
/// Blocks of ANS that are enough: 400 ms, six whole periods of the modulation of ANSam.
const ANS_BLOCKS: u32 = 80;
/// The amplitude modulation of ANSam: 15 Hz to a depth of 0.2 (ITU-T V.8), of which half must be found.
const MODULATION: f32 = 15.0;
const DEPTH: f32 = 0.1;
/// Least and most turn of the phase, in radians, that is taken for a reversal and for none.
const REVERSED: f32 = 0.75 * PI;
const STEADY: f32 = 0.25 * PI;
/// Blocks without the tone that do not end it: a reversal falls into one, a click into two.
const MISSES: u32 = 3;

/// Samples over which a bit of V.21 is looked at, and between two looks: a bit has 26.7 (300 bit/s, ITU-T V.21).
const BIT: usize = 24;
const LOOK: usize = 5;
/// Looks in the six ones of an HDLC flag, and in the zeros round them: two of two flags, or one that both share.
const ONES: std::ops::RangeInclusive<u32> = 28..=36;
const ZEROS: std::ops::RangeInclusive<u32> = 3..=14;
/// Runs of ones and zeros in a row that are a preamble of flags (T.30 5.3.1 has a second of them): four flags.
const RUNS: u32 = 8;
/// Part of the energy at the two frequencies of V.21, on the mean, from which on its bits are looked at.
const V21_SHARE: f32 = 0.55;

static CORRELATOR: LazyLock<Correlator<4, BLOCK>> = LazyLock::new(|| Correlator::new(FREQUENCIES, |_| 1.0));
static BITS: LazyLock<Correlator<2, BIT>> =
    LazyLock::new(|| Correlator::new([FREQUENCIES[1], FREQUENCIES[2]], |_| 1.0));

/// A signal of a fax machine or a modem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoicebandSignal {
    /// The calling tone of a fax machine: 1100 Hz for 0.5 s (ITU-T T.30 4).
    Cng,
    /// The answering tone, which a fax machine calls CED: 2100 Hz (ITU-T V.25, T.30 4).
    Ans,
    /// The answering tone with phase reversals every 450 ms, which disable echo cancellers (V.25).
    AnsReversed,
    /// The answering tone of V.8 modems: 2100 Hz, its amplitude modulated with 15 Hz.
    AnsAm,
    /// The answering tone of V.8 modems with phase reversals (V.8).
    AnsAmReversed,
    /// Flags at 300 bit/s on channel 2 of V.21, ahead of what fax machines tell each other (T.30 5.3.1).
    V21Preamble,
}

impl VoicebandSignal {
    /// Every signal.
    pub const ALL: [VoicebandSignal; 6] = [
        VoicebandSignal::Cng,
        VoicebandSignal::Ans,
        VoicebandSignal::AnsReversed,
        VoicebandSignal::AnsAm,
        VoicebandSignal::AnsAmReversed,
        VoicebandSignal::V21Preamble,
    ];

    /// Returns the signal as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            VoicebandSignal::Cng => "cng",
            VoicebandSignal::Ans => "ans",
            VoicebandSignal::AnsReversed => "ans_reversed",
            VoicebandSignal::AnsAm => "ansam",
            VoicebandSignal::AnsAmReversed => "ansam_reversed",
            VoicebandSignal::V21Preamble => "v21_preamble",
        }
    }
}

/// Finds fax and modem signals in audio at 8 kHz. Never allocates.
#[derive(Clone, Debug, Default)]
pub struct VoicebandDetector {
    cng: Steady,
    ans: Steady,
    answer: Answer,
    v21: Flags,
}

impl VoicebandDetector {
    /// Builds a detector that has heard nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next frame, a multiple of 5 ms; what is over is not looked at. Returns a signal that was
    /// recognised within: CNG at its end, each answering tone once, and once more when its phase is first reversed,
    /// a preamble at its fourth flag.
    pub fn process(&mut self, frame: &[i16]) -> Option<VoicebandSignal> {
        let mut heard = None;
        for block in frame.as_chunks::<BLOCK>().0 {
            heard = self.take(&block.map(f32::from)).or(heard);
        }
        heard
    }

    fn take(&mut self, block: &[f32; BLOCK]) -> Option<VoicebandSignal> {
        let energy = CORRELATOR.energy(block);
        let full = BLOCK as f32 / 2.0 * energy;
        let (tones, shares) = if energy < *FAINTEST {
            ([Complex::default(); 4], [0.0; 4])
        } else {
            let tones = CORRELATOR.correlate(block);
            (tones, tones.map(|tone| tone.power() / full))
        };
        let preamble = self.v21.take(block, shares[1] + shares[2]);
        let before = self.cng.blocks;
        let cng = match self.cng.take(tones[CNG], shares[CNG], CNG_OFF) {
            Step::Ended => CNG_BLOCKS.contains(&before).then_some(VoicebandSignal::Cng),
            _ => None,
        };
        let step = self.ans.take(tones[ANS], shares[ANS], ANS_OFF);
        let answer = self.answer.take(step, tones[ANS].power().sqrt(), self.ans.blocks);
        preamble.or(answer).or(cng)
    }
}

/// Energy of a block of the faintest signal.
static FAINTEST: LazyLock<f32> = LazyLock::new(|| BLOCK as f32 * peak_of(FAINTEST_DBM0).powi(2) / 2.0);

/// What became of a tone in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is not there, or missing for a moment.
    Absent,
    /// It begins anew.
    Began,
    /// It goes on.
    On,
    /// It goes on with its phase reversed.
    Reversed,
    /// It was there, and is no longer.
    Ended,
}

/// A tone that goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Steady {
    /// Blocks since it began, the missing ones within it included; 0 while there is none.
    blocks: u32,
    misses: u32,
    /// The last block that had it, and the turn of the phase from block to block beyond that of the nominal frequency.
    last: Complex,
    turn: f32,
}

impl Steady {
    fn take(&mut self, tone: Complex, share: f32, most_off: f32) -> Step {
        if share < PURITY {
            if self.blocks == 0 {
                return Step::Absent;
            }
            self.misses += 1;
            if self.misses <= MISSES {
                return Step::Absent;
            }
            *self = Self::default();
            return Step::Ended;
        }
        let last = std::mem::replace(&mut self.last, tone);
        if self.blocks == 0 {
            (self.blocks, self.misses) = (1, 0);
            return Step::Began;
        }
        let since = std::mem::take(&mut self.misses) + 1;
        // Each of the frequencies of steady tones turns by half a circle more than whole ones in a block.
        let turned = tone.turn_from(last).turned_by(Complex::unit(PI * since as f32));
        let off = turned.turned_by(Complex::unit(-self.turn * since as f32)).angle();
        self.blocks += since;
        if since == 1 && turned.angle().abs() <= most_off / BLOCKS * TAU {
            self.turn = turned.angle();
            return Step::On;
        }
        // What is off for a block is no other tone yet: a reversal, or a gap that was filled.
        if self.blocks > 4 && off.abs() >= REVERSED {
            return Step::Reversed;
        }
        if self.blocks > 4 && off.abs() <= STEADY {
            return Step::On;
        }
        *self = Self { blocks: 1, last: tone, ..Self::default() };
        Step::Began
    }
}

/// Which of the answering tones it is.
#[derive(Clone, Copy, Debug, Default)]
struct Answer {
    /// Sums over the blocks so far: of the amplitude, and of what turns in it with the modulation.
    amplitude: f32,
    modulation: Complex,
    /// What was told of it, and whether its phase was reversed.
    told: Option<VoicebandSignal>,
    reversed: bool,
}

impl Answer {
    fn take(&mut self, step: Step, amplitude: f32, blocks: u32) -> Option<VoicebandSignal> {
        match step {
            Step::Ended => *self = Self::default(),
            Step::Began if self.told.is_none() => *self = Self::default(),
            Step::Reversed => self.reversed = true,
            Step::Began | Step::On | Step::Absent => {}
        }
        if blocks == 0 {
            return None;
        }
        if blocks <= ANS_BLOCKS && step != Step::Absent {
            let turn = Complex::unit(TAU * MODULATION / BLOCKS * blocks as f32);
            self.amplitude += amplitude;
            self.modulation =
                self.modulation.plus(Complex { re: turn.re * amplitude, im: turn.im * amplitude });
        }
        let known = match self.told {
            Some(VoicebandSignal::Ans | VoicebandSignal::AnsReversed) => false,
            Some(_) => true,
            None if blocks < ANS_BLOCKS => return None,
            None => 2.0 * self.modulation.power().sqrt() > DEPTH * self.amplitude,
        };
        let signal = match (known, self.reversed) {
            (false, false) => VoicebandSignal::Ans,
            (false, true) => VoicebandSignal::AnsReversed,
            (true, false) => VoicebandSignal::AnsAm,
            (true, true) => VoicebandSignal::AnsAmReversed,
        };
        (self.told.replace(signal) != Some(signal)).then_some(signal)
    }
}

/// Flags on channel 2 of V.21.
#[derive(Clone, Debug)]
struct Flags {
    /// The samples of the last bit ahead of the block.
    before: [f32; BIT],
    /// Mean share of the two frequencies.
    share: f32,
    /// The present run: of ones or of zeros, and its looks.
    one: bool,
    looks: u32,
    /// Runs in a row that were as long as those of flags.
    runs: u32,
    told: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Self { before: [0.0; BIT], share: 0.0, one: false, looks: 0, runs: 0, told: false }
    }
}

impl Flags {
    fn take(&mut self, block: &[f32; BLOCK], share: f32) -> Option<VoicebandSignal> {
        self.share += (share - self.share) / 8.0;
        let mut span = [0.0; BIT + BLOCK];
        span[..BIT].copy_from_slice(&self.before);
        span[BIT..].copy_from_slice(block);
        self.before.copy_from_slice(&span[BLOCK..]);
        if self.share < V21_SHARE {
            (self.looks, self.runs, self.told) = (0, 0, false);
            return None;
        }
        for at in (LOOK..=BLOCK).step_by(LOOK) {
            let Some(bit) = span[at..].first_chunk::<BIT>() else { break };
            let [one, zero] = BITS.correlate(bit).map(Complex::power);
            if (one > zero) == self.one {
                self.looks += 1;
                continue;
            }
            let fits = if self.one { ONES.contains(&self.looks) } else { ZEROS.contains(&self.looks) };
            self.runs = if fits { self.runs + 1 } else { 0 };
            (self.one, self.looks) = (!self.one, 1);
        }
        let preamble = self.runs >= RUNS;
        let new = preamble && !self.told;
        self.told |= preamble;
        new.then_some(VoicebandSignal::V21Preamble)
    }
}
