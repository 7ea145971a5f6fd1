use super::*;
use crate::seed::Seeded;

/// Samples between two frames' decisions.
const FRAME: usize = 160;

fn uniform(random: &mut Seeded) -> f32 {
    (random.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
}

/// Noise of a root mean square through a pole.
fn noise(rms: f32, pole: f32, count: usize, random: &mut Seeded) -> Vec<f32> {
    let gain = rms * (3.0 * (1.0 - pole * pole)).sqrt();
    let mut value = 0.0;
    let mut next = || {
        value = pole * value + gain * uniform(random);
        value
    };
    (0..count).map(|_| next()).collect()
}

/// The beginning of a word: a vowel that is there within 10 ms, or a fricative within 20 ms.
fn word(voiced: bool, rms: f32, count: usize, random: &mut Seeded) -> Vec<f32> {
    let attack = if voiced { 80.0 } else { 160.0 };
    let hiss = noise(rms, -0.7, count, random);
    let samples = hiss.iter().enumerate().map(|(n, hiss)| {
        let phase = n as f32 / 8_000.0 * 120.0 * std::f32::consts::TAU;
        let vowel: f32 = (1..12).map(|h| (phase * h as f32).sin() / h as f32).sum();
        let sound = if voiced { rms * 1.13 * vowel } else { *hiss };
        sound * (n as f32 / attack).min(1.0)
    });
    samples.collect()
}

fn level(samples: &[f32]) -> f32 {
    samples.iter().map(|sample| sample * sample).sum::<f32>() / samples.len() as f32
}

/// Where a word begins to be heard: 5 ms of it are 6 dB above the background.
fn begins(word: &[f32], background: f32) -> usize {
    let heard = |window: &[f32]| level(window) > 4.0 * background * background;
    word.windows(STRETCH).position(heard).unwrap_or(word.len())
}

/// No more than 5 ms of a word is left out, at any place in a frame, over backgrounds of any colour.
#[test]
fn onsets_are_not_clipped() {
    let mut worst = 0;
    for (seed, background) in [6.0f32, 18.0, 58.0, 104.0].into_iter().enumerate() {
        for pole in [-0.3, 0.0, 0.9] {
            for above in [10.0f32, 32.0] {
                for voiced in [true, false] {
                    for phase in (0..FRAME).step_by(16) {
                        let mut random = Seeded::new(seed as u64 * 1_000 + phase as u64);
                        let at = 250 * FRAME + phase;
                        let mut sound = noise(background, pole, at + 1_600, &mut random);
                        let word = word(voiced, background * above, 1_600, &mut random);
                        let onset = at + begins(&word, background);
                        sound[at..].iter_mut().zip(&word).for_each(|(sound, word)| *sound += word);
                        let pcm: Vec<i16> = sound.iter().map(|&sample| sample as i16).collect();
                        let mut detector = ActivityDetector::new();
                        let active: Vec<bool> =
                            pcm.chunks_exact(FRAME).map(|frame| detector.is_active(frame)).collect();
                        let first =
                            (onset / FRAME..active.len()).find(|&n| active[n]).unwrap_or(active.len());
                        let cut = (first * FRAME).saturating_sub(onset);
                        worst = worst.max(cut);
                        assert!(
                            cut <= 40,
                            "seed {seed}, background {background}, pole {pole}, {above} times, voiced {voiced}, \
                             phase {phase}: {cut} samples cut"
                        );
                    }
                }
            }
        }
    }
    println!("most that was cut off an onset: {worst} samples");
}

/// Talk and pauses as ITU-T P.59 has them, 45 % of it talk: few frames more than that are encoded.
#[test]
fn of_a_conversation_little_more_is_encoded_than_is_said() {
    for seed in 1..=6 {
        let mut random = Seeded::new(seed);
        let background = [10.0, 20.0, 40.0][seed as usize % 3];
        let mut sound = Vec::new();
        let (mut said, mut detector) = (0, ActivityDetector::new());
        while sound.len() < 300 * 8_000 {
            let exponential = |random: &mut Seeded, mean: f32| {
                let share = (uniform(random) * 0.5 + 0.5).clamp(1e-4, 1.0);
                (-share.ln() * mean * 8_000.0) as usize + 1_200
            };
            let pause = exponential(&mut random, 1.072);
            sound.resize(sound.len() + pause, 0.0);
            let spurt = exponential(&mut random, 0.85);
            let word = word(true, 1_500.0, spurt, &mut random);
            // Syllables, four a second.
            let syllable = |n: usize| 0.15 + (n as f32 / 8_000.0 * 4.0 * std::f32::consts::PI).sin().abs();
            sound.extend(word.iter().enumerate().map(|(n, sample)| sample * syllable(n)));
            said += spurt;
        }
        let hiss = noise(background, 0.5, sound.len(), &mut random);
        let pcm: Vec<i16> = sound.iter().zip(&hiss).map(|(word, hiss)| (word + hiss) as i16).collect();
        let frames = pcm.len() / FRAME;
        let encoded = pcm.chunks_exact(FRAME).filter(|frame| detector.is_active(frame)).count();
        let (said, encoded) = (said as f32 / pcm.len() as f32, encoded as f32 / frames as f32);
        assert!((0.40..0.50).contains(&said), "seed {seed}: {said} of it is talk");
        assert!(encoded <= said + 0.10 && encoded >= said, "seed {seed}: {said} said, {encoded} encoded");
    }
}
