//! Tells voice from background ahead of the Opus encoder, which costs a thousand times more.

use super::mean_power;

/// Power of -76 dBov: nothing below counts as voice, however quiet the background.
const FAINTEST: f32 = 27.0;
/// Power of -45 dBov: background is never taken to be louder, so steady tones stay active.
const LOUDEST_FLOOR: f32 = 33_960.0;
/// Voice stands out of the background by this factor in power over a whole frame (5 dB), or over
/// a stretch of it (7.5 dB), so that an onset late in a frame is not averaged away.
const FRAME_MARGIN: f32 = 3.2;
const STRETCH_MARGIN: f32 = 5.6;
/// Samples that stay active after the last voice: 180 ms, longer than a stop before a plosive.
const HANGOVER: usize = 1_440;
/// Samples of a stretch: 5 ms. They overlap by half, and the first begins in the frame before.
const STRETCH: usize = 40;
/// The background is the quietest frame of the last two seconds: speech pauses more often.
const SPANS: usize = 8;
/// Samples of each of those spans: 250 ms.
const SPAN: usize = 2_000;

/// An energy detector with an adaptive floor, for audio at 8, 16 or 48 kHz. When in doubt it says voice.
#[derive(Clone, Debug)]
pub struct ActivityDetector {
    /// Samples in one of 8 kHz, in which everything above is counted.
    scale: usize,
    /// Quietest frame of each span; the last entry is the present one.
    quietest: [f32; SPANS],
    span_left: usize,
    hangover: usize,
    /// Power of the last half stretch of the frame before.
    last_half: f32,
}

impl Default for ActivityDetector {
    fn default() -> Self {
        Self::new()
    }
}

impl ActivityDetector {
    /// Builds a detector for 8 kHz that takes everything audible for voice until it has heard background
    /// for two seconds.
    pub fn new() -> Self {
        Self::for_rate(8_000)
    }

    /// Builds the same for audio of 8000, 16000 or 48000 Hz; any other rate is taken for the multiple of 8000 below.
    pub fn for_rate(sample_rate: u32) -> Self {
        let scale = ((sample_rate / 8_000) as usize).max(1);
        Self {
            scale,
            quietest: [FAINTEST; SPANS],
            span_left: SPAN * scale,
            hangover: HANGOVER * scale,
            last_half: 0.0,
        }
    }

    /// Says whether a frame, the next 10 to 60 ms, is to be sent.
    pub fn is_active(&mut self, frame: &[i16]) -> bool {
        let half_stretch = STRETCH / 2 * self.scale;
        let power = mean_power(frame);
        let floor = self.quietest.iter().copied().fold(LOUDEST_FLOOR, f32::min);
        let stands_out = |power: f32, margin: f32| power > FAINTEST && power > floor * margin;
        let voice = stands_out(power, FRAME_MARGIN)
            || frame.chunks(half_stretch).map(mean_power).any(|half| {
                let before = std::mem::replace(&mut self.last_half, half);
                stands_out(0.5 * (before + half), STRETCH_MARGIN)
            });
        self.last_half = frame.rchunks(half_stretch).next().map_or(0.0, mean_power);

        if self.span_left < frame.len() {
            self.quietest.rotate_left(1);
            self.quietest[SPANS - 1] = f32::MAX;
            self.span_left = SPAN * self.scale;
        }
        self.span_left = self.span_left.saturating_sub(frame.len());
        self.quietest[SPANS - 1] = self.quietest[SPANS - 1].min(power);
        self.hangover = if voice { HANGOVER * self.scale } else { self.hangover.saturating_sub(frame.len()) };
        voice || self.hangover > 0
    }
}

#[cfg(test)]
mod tests;
