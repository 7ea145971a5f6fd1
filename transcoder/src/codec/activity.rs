//! Tells voice from background ahead of the Opus encoder, which costs a thousand times more.

use super::mean_power;

/// Power of -76 dBov: nothing below counts as voice, however quiet the background.
const FAINTEST: f32 = 27.0;
/// Power of -45 dBov: background is never taken to be louder, so steady tones stay active.
const LOUDEST_FLOOR: f32 = 33_960.0;
/// Voice stands out of the background by this factor in power: 6 dB.
const MARGIN: f32 = 4.0;
/// Samples that stay active after the last voice: 240 ms, longer than a stop before a plosive.
const HANGOVER: usize = 1_920;
/// Samples looked at together: 5 ms, so that an onset late in a frame is not averaged away.
const STRETCH: usize = 40;
/// Growth of the background estimate per stretch: about 3 dB a second.
const RISE: f32 = 1.0035;

/// An energy detector with an adaptive floor, for 8 kHz audio. When in doubt it says voice.
#[derive(Clone, Debug)]
pub struct ActivityDetector {
    floor: f32,
    hangover: usize,
}

impl Default for ActivityDetector {
    fn default() -> Self {
        Self::new()
    }
}

impl ActivityDetector {
    /// Builds a detector that takes everything audible for voice until it has heard background.
    pub fn new() -> Self {
        Self { floor: FAINTEST, hangover: HANGOVER }
    }

    /// Says whether a frame, the next 10 to 60 ms, is to be sent.
    pub fn is_active(&mut self, frame: &[i16]) -> bool {
        let mut voice = false;
        for stretch in frame.chunks(STRETCH) {
            let power = mean_power(stretch);
            if power > FAINTEST && power > self.floor * MARGIN {
                voice = true;
            }
            // A dip of one stretch is chance; the floor follows it half way.
            self.floor = if power < self.floor { 0.5 * (self.floor + power) } else { self.floor * RISE }
                .clamp(FAINTEST / MARGIN, LOUDEST_FLOOR);
        }
        self.hangover = if voice { HANGOVER } else { self.hangover.saturating_sub(frame.len()) };
        voice || self.hangover > 0
    }
}
