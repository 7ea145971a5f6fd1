//! What the sound itself says of a call, counted on the samples that pass: voice, levels, clipping, both speaking,
//! echo, a side that is not heard. Indications, not measurements: each costs some hundred nanoseconds a tick at most.

use call_model::{CallAudio, LegQuality, Side};

use crate::codec::mean_power;

/// Milliseconds of a tick.
const TICK_MS: u64 = 20;
/// Power of -70 dBov: below it a line is dead, for rooms are louder, and the least that A-law can say is not.
const DEAD: f32 = 107.4;
/// Power of -60 dBov: nothing below counts as voice.
const FAINTEST: f32 = 1_074.0;
/// Voice stands out of the background by this factor in power: 9 dB.
const MARGIN: f32 = 8.0;
/// The background is believed to grow by this factor a tick: 10 dB in 6 s.
const FLOOR_RISE: f32 = 1.008;
/// Samples at or above this are at the end of the range: the last step of both laws of G.711.
const FULL: u16 = 32_000;
/// A frame with so many of them is clipped.
const FULL_SAMPLES: usize = 3;
/// Ticks by which an echo may come after what it is of: 480 ms.
const LAGS: usize = 24;
/// Part of the past that is forgotten in a tick: half of it in 3 s.
const FORGET: f32 = 0.005;
/// Levels that go together like this are an echo, if they change enough (in dB) ...
const ECHO_CORRELATION: f32 = 0.9;
const ECHO_DEVIATION: f32 = 6.0;
/// ... and have done so for a while: weight of the past, 1 at most.
const ECHO_WEIGHT: f32 = 0.6;
/// Milliseconds of the other side's voice that a side which gives no sound leaves without an answer.
const UNANSWERED_MS: u64 = 5_000;

/// One leg.
#[derive(Clone, Debug)]
struct Line {
    floor: f32,
    voice: bool,
    voice_ms: u64,
    voice_power: f64,
    clipped_ms: u64,
    echo: Echo,
    echo_ms: u64,
    /// Of the other side, since this one last gave a sound.
    unanswered_ms: u64,
}

impl Line {
    fn new() -> Self {
        Self {
            floor: f32::MAX,
            voice: false,
            voice_ms: 0,
            voice_power: 0.0,
            clipped_ms: 0,
            echo: Echo::new(),
            echo_ms: 0,
            unanswered_ms: 0,
        }
    }

    /// Takes in a tick of what came from this leg, and returns its power; 0 where nothing came.
    fn hear(&mut self, frame: Option<&[i16]>) -> f32 {
        self.voice = false;
        let Some(frame) = frame else { return 0.0 };
        let power = mean_power(frame);
        self.floor = if power < self.floor { power.max(DEAD / 10.0) } else { self.floor * FLOOR_RISE };
        self.voice = power > FAINTEST && power > self.floor * MARGIN;
        if self.voice {
            self.voice_ms += TICK_MS;
            self.voice_power += f64::from(power);
        }
        let full = frame.iter().filter(|sample| sample.unsigned_abs() >= FULL).count();
        self.clipped_ms += if full >= FULL_SAMPLES { TICK_MS } else { 0 };
        power
    }
}

/// Compares the level of what a leg sends with that of what it was sent some time before.
#[derive(Clone, Debug)]
struct Echo {
    /// Levels in dB of what the leg was sent, the latest at `at`.
    sent: [f32; LAGS],
    at: usize,
    weight: f32,
    mean: f32,
    square: f32,
    lags: [Lag; LAGS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    mean: f32,
    square: f32,
    product: f32,
}

impl Echo {
    fn new() -> Self {
        Self { sent: [0.0; LAGS], at: 0, weight: 0.0, mean: 0.0, square: 0.0, lags: [Lag::default(); LAGS] }
    }

    /// Takes in a tick and says whether the two go together.
    fn observe(&mut self, sent: f32, heard: f32) -> bool {
        let level = |power: f32| 10.0 * (power + DEAD).log10();
        let (sent, heard) = (level(sent), level(heard));
        self.at = (self.at + 1) % LAGS;
        self.sent[self.at] = sent;
        let grow = |value: &mut f32, to: f32| *value += (to - *value) * FORGET;
        grow(&mut self.weight, 1.0);
        grow(&mut self.mean, heard);
        grow(&mut self.square, heard * heard);
        let mut found = false;
        // All sums begin at 0: what is missing in the weight is missing in each alike.
        let (mean, square) = (self.mean / self.weight, self.square / self.weight);
        let variance = square - mean * mean;
        for (lag, sums) in self.lags.iter_mut().enumerate() {
            let before = self.sent[(self.at + LAGS - lag) % LAGS];
            grow(&mut sums.mean, before);
            grow(&mut sums.square, before * before);
            grow(&mut sums.product, before * heard);
            let (sent_mean, sent_square) = (sums.mean / self.weight, sums.square / self.weight);
            let sent_variance = sent_square - sent_mean * sent_mean;
            let together = sums.product / self.weight - sent_mean * mean;
            let deviation = ECHO_DEVIATION * ECHO_DEVIATION;
            found |= sent_variance > deviation
                && variance > deviation / 4.0
                && together > ECHO_CORRELATION * (variance * sent_variance).sqrt();
        }
        found && self.weight >= ECHO_WEIGHT
    }
}

/// Both legs of a call.
#[derive(Clone, Debug)]
pub(crate) struct AudioMeter {
    overlay: Line,
    trunk: Line,
    talk_over_ms: u64,
}

impl AudioMeter {
    pub(crate) fn new() -> Self {
        Self { overlay: Line::new(), trunk: Line::new(), talk_over_ms: 0 }
    }

    /// Takes in a tick of what came from each leg; `None` where nothing came.
    pub(crate) fn observe(&mut self, overlay: Option<&[i16]>, trunk: Option<&[i16]>, held: bool) {
        let powers = (self.overlay.hear(overlay), self.trunk.hear(trunk));
        if self.overlay.voice && self.trunk.voice {
            self.talk_over_ms += TICK_MS;
        }
        let pairs = [(&mut self.overlay, powers.0, powers.1), (&mut self.trunk, powers.1, powers.0)];
        let voices = [pairs[1].0.voice, pairs[0].0.voice];
        for ((line, heard, sent), answers) in pairs.into_iter().zip(voices) {
            if line.echo.observe(sent, heard) && line.voice {
                line.echo_ms += TICK_MS;
            }
            if heard > DEAD || held {
                line.unanswered_ms = 0;
            } else if answers {
                line.unanswered_ms += TICK_MS;
            }
        }
    }

    /// Writes what was heard from a leg into its figures.
    pub(crate) fn fill(&self, side: Side, quality: &mut LegQuality) {
        let line = match side {
            Side::Overlay => &self.overlay,
            Side::Trunk => &self.trunk,
            Side::Onward => return,
        };
        quality.voice_ms = line.voice_ms;
        quality.clipped_ms = line.clipped_ms;
        quality.echo_ms = line.echo_ms;
        let ticks = (line.voice_ms / TICK_MS) as f64;
        quality.voice_dbov = (ticks > 0.0).then(|| dbov((line.voice_power / ticks) as f32));
        quality.noise_dbov = (line.floor < f32::MAX).then(|| dbov(line.floor));
    }

    pub(crate) fn call(&self) -> CallAudio {
        let silent = |line: &Line| line.unanswered_ms >= UNANSWERED_MS;
        let one_way = match (silent(&self.overlay), silent(&self.trunk)) {
            (true, false) => Some(Side::Overlay),
            (false, true) => Some(Side::Trunk),
            // Both cannot leave each other's voice unanswered at once; neither does.
            _ => None,
        };
        CallAudio { talk_over_ms: self.talk_over_ms, one_way }
    }
}

/// Level of a mean power: 0 dBov is that of a square wave of full scale.
fn dbov(power: f32) -> f32 {
    10.0 * (power.max(0.1) / (32_767.0 * 32_767.0)).log10()
}
