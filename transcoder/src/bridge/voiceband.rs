//! What a bridge does about fax machines and modems (ITU-T V.152): it listens to both sides, and while either speaks
//! so, the audio is voiceband data.

use call_model::Side;

use super::TICK_SAMPLES;
use crate::codec::is_quiet;
use crate::codec::resample::Resampler;
use crate::stream::coding::{NARROW, resampler};
use crate::tone::voiceband::{VoicebandDetector, VoicebandSignal};

/// Ticks of silence on both sides after which the audio is voice again (ITU-T V.152 10): 8 s, longer than a fax
/// machine waits for the other (timer T2 of ITU-T T.30 5.4.3, 6 s with 1 s of tolerance).
const SILENCE: u32 = 400;

/// The two directions, and what they have in common.
#[derive(Debug, Default)]
pub(super) struct Voiceband {
    trunk: Direction,
    overlay: Direction,
    active: bool,
    /// Ticks since either side was last heard.
    silent: u32,
}

#[derive(Debug, Default)]
struct Direction {
    detector: VoicebandDetector,
    /// Brings wide band down to what is listened to.
    down: Option<Box<Resampler>>,
    /// The signals that were told since the audio was voice, a bit for each.
    told: u8,
}

impl Voiceband {
    /// Takes in a tick of what a side said. Returns a signal that is heard of it for the first time.
    /// Of a tick in wide band what is below 4 kHz is listened to.
    pub(super) fn hear(&mut self, side: Side, pcm: &[i16]) -> Option<VoicebandSignal> {
        let direction = match side {
            Side::Overlay => &mut self.overlay,
            Side::Trunk | Side::Onward => &mut self.trunk,
        };
        if self.active && !is_quiet(pcm) {
            self.silent = 0;
        }
        let signal = match &mut direction.down {
            Some(down) => {
                let mut narrow = [0; TICK_SAMPLES];
                let length = down.resample(pcm, &mut narrow);
                direction.detector.process(&narrow[..length])?
            }
            None => direction.detector.process(pcm)?,
        };
        let bit = 1 << signal as u8;
        let new = direction.told & bit == 0;
        direction.told |= bit;
        new.then_some(signal)
    }

    /// Takes the audio for voiceband data from now on. Says whether it was not.
    pub(super) fn begin(&mut self) -> bool {
        self.silent = 0;
        !std::mem::replace(&mut self.active, true)
    }

    /// Says whether the audio is voice again, to be asked once in a tick.
    pub(super) fn has_ended(&mut self) -> bool {
        self.silent = self.silent.saturating_add(1);
        self.active && self.silent > SILENCE
    }

    /// Takes the audio for voice again.
    pub(super) fn end(&mut self) {
        let downs = [&mut self.trunk, &mut self.overlay].map(|direction| direction.down.take());
        *self = Self::default();
        [self.trunk.down, self.overlay.down] = downs;
    }

    /// Sets the rate of what it hears: 8 or 16 kHz. Allocates.
    pub(super) fn set_sample_rate(&mut self, sample_rate: u32) {
        for direction in [&mut self.trunk, &mut self.overlay] {
            direction.down = resampler(sample_rate, NARROW);
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.active
    }
}
