//! What is said: recorded sentences, one in each slot of time, over and over.

use ::tests::audio::Audio;
use ::tests::lab::{self, Speech};
use anyhow::{Result, ensure};

/// Samples a second, and of 20 ms.
pub(crate) const RATE: u32 = 8_000;
pub(crate) const FRAME: usize = 160;
/// Silence before a sentence, and after it at least: a path may delay by so much before PESQ misses the end.
const BEFORE: usize = RATE as usize / 2;
const AFTER: usize = RATE as usize;
/// A piece of recording this short tells two sentences apart, if it is quiet.
const PAUSE: usize = FRAME * 5;

/// Somebody who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Speaker {
    pub(crate) name: &'static str,
    pub(crate) language: &'static str,
    recording: Speech,
}

/// The voices of the recorded speech: the prompts of Asterisk, each language by one professional speaker.
pub(crate) const SPEAKERS: [Speaker; 3] = [
    Speaker { name: "Allison, f", language: "American English", recording: Speech::English },
    Speaker { name: "June, f", language: "Canadian French", recording: Speech::French },
    Speaker { name: "Carlo, m", language: "Italian", recording: Speech::Italian },
];

/// What one speaker says in one lap: sentences of the same slot each.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    samples: Vec<i16>,
    /// Samples of a slot, whole frames.
    slot: usize,
}

impl Script {
    /// Cuts the recording of a speaker in two at the quietest place near its middle.
    pub(crate) fn of(speaker: Speaker) -> Result<Self> {
        let audio = lab::speech(speaker.recording)?;
        ensure!(audio.rate == RATE, "{}: {} samples a second", speaker.name, audio.rate);
        Ok(Self::cut(&audio))
    }

    fn cut(audio: &Audio) -> Self {
        let samples: Vec<i16> = audio.samples.iter().map(|sample| (sample * 32_768.0) as i16).collect();
        let (first, second) = samples.split_at(quietest(&samples));
        let slot = (BEFORE + first.len().max(second.len()) + AFTER).next_multiple_of(FRAME);
        let mut script = Vec::with_capacity(2 * slot);
        for sentence in [first, second] {
            let end = script.len() + slot;
            script.resize(script.len() + BEFORE, 0);
            script.extend(sentence);
            script.resize(end, 0);
        }
        Self { samples: script, slot }
    }

    /// The frame of 20 ms that is said at a tick.
    pub(crate) fn frame(&self, tick: usize) -> &[i16] {
        let at = tick * FRAME % self.samples.len();
        &self.samples[at..at + FRAME]
    }

    /// Ticks of a lap.
    pub(crate) fn ticks(&self) -> usize {
        self.samples.len() / FRAME
    }

    /// The sentences, in their slots.
    pub(crate) fn sentences(&self) -> impl Iterator<Item = &[i16]> {
        self.samples.chunks_exact(self.slot)
    }

    /// What was heard in each slot of the laps from `first` to `end`, with the number of its sentence.
    pub(crate) fn heard<'a>(
        &self,
        recording: &'a [i16],
        first: usize,
        end: usize,
    ) -> impl Iterator<Item = (usize, &'a [i16])> {
        let (lap, count) = (self.samples.len(), self.samples.len() / self.slot);
        let range = (first * lap).min(recording.len())..(end * lap).min(recording.len());
        recording[range].chunks_exact(self.slot).enumerate().map(move |(index, slot)| (index % count, slot))
    }
}

/// The middle of the quietest piece in the middle third.
fn quietest(samples: &[i16]) -> usize {
    let energy = |at: usize| -> u64 {
        samples[at..at + PAUSE].iter().map(|&sample| u64::from(sample.unsigned_abs()).pow(2)).sum()
    };
    let places = samples.len() / 3..samples.len() * 2 / 3 - PAUSE;
    places.step_by(FRAME / 2).min_by_key(|&at| energy(at)).unwrap_or(0) + PAUSE / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sound with a pause of 200 ms from 5 s on, in 12 s.
    fn recording() -> Audio {
        let sample =
            |n: usize| if (40_000..41_600).contains(&n) { 0.0 } else { 0.1 + (n % 7) as f32 / 100.0 };
        Audio { rate: RATE, samples: (0..96_000).map(sample).collect() }
    }

    #[test]
    fn sentences_are_parted_in_a_pause_and_have_silence_around() {
        let script = Script::cut(&recording());
        let sentences: Vec<_> = script.sentences().collect();
        assert_eq!(sentences.len(), 2);
        let spoken = |slot: &[i16]| {
            let first = slot.iter().position(|&sample| sample != 0);
            let last = slot.iter().rposition(|&sample| sample != 0);
            (first.unwrap_or(0), slot.len() - 1 - last.unwrap_or(0))
        };
        for slot in &sentences {
            let (before, after) = spoken(slot);
            assert!(before >= BEFORE && after >= AFTER, "{before} {after}");
        }
        let said: usize =
            sentences.iter().map(|slot| slot.iter().filter(|&&sample| sample != 0).count()).sum();
        assert_eq!(said, 96_000 - 1_600);
        // The first sentence is the 5 s before the pause, and no more.
        assert_eq!(sentences[0].iter().filter(|&&sample| sample != 0).count(), 40_000);
    }

    #[test]
    fn what_is_heard_is_cut_where_it_was_said() {
        let script = Script::cut(&recording());
        let said: Vec<i16> = (0..3 * script.ticks()).flat_map(|tick| script.frame(tick).to_vec()).collect();
        let heard: Vec<_> = script.heard(&said, 1, 3).collect();
        assert_eq!(heard.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 0, 1]);
        for (index, slot) in heard {
            assert_eq!(Some(slot), script.sentences().nth(index));
        }
        // A recording that ends too soon has fewer.
        assert_eq!(script.heard(&said[..said.len() - 1], 1, 3).count(), 3);
    }
}
