#![allow(clippy::unwrap_used)]

use super::*;

fn delayed(audio: &Audio, seconds: f64, gain: f32, noise: f64) -> Audio {
    let lead = (seconds * f64::from(audio.rate)) as usize;
    let hiss = generate::noise(audio.rate, audio.seconds() + seconds + 1.0, noise, 99);
    let mut samples = hiss.samples;
    for (out, &sample) in samples[lead..].iter_mut().zip(&audio.samples) {
        *out += gain * sample;
    }
    Audio { rate: audio.rate, samples }
}

#[test]
fn a_delayed_quieter_noisy_copy_is_found() {
    let said = generate::babble(8000, 6.0, 1);
    let heard = delayed(&said, 0.4375, 0.5, 0.01);
    let result = correlation(&said, &heard);
    assert!((result.lag_ms - 437.5).abs() < 0.1, "{result}");
    assert!(result.whole > 0.98 && result.median_block > 0.97, "{result}");
    assert!(result.share_above_90 > 0.95 && result.drift_ms < 0.2, "{result}");
    assert!((result.gain_db + 6.0).abs() < 0.5, "{result}");
}

#[test]
fn a_recording_that_starts_late_is_found() {
    let said = generate::babble(8000, 6.0, 2);
    let result = correlation(&said, &said.slice(1.5, 6.0));
    assert!((result.lag_ms + 1500.0).abs() < 0.1, "{result}");
    assert!(result.whole > 0.99 && result.blocks >= 34, "{result}");
}

#[test]
fn a_delay_by_a_fraction_of_a_sample_costs_nothing() {
    let said = generate::babble(32_000, 4.0, 3);
    let shifted = Audio { rate: 32_000, samples: said.samples[2..].to_vec() };
    let result = correlation(&said.resampled(8000), &shifted.resampled(8000));
    assert!(result.whole > 0.99, "{result}");
    assert!((result.lag_ms + 2.0 / 32.0).abs() < 0.001, "{result}");
}

#[test]
fn jumps_of_the_delay_are_followed_block_by_block() {
    let said = generate::babble(8000, 8.0, 4);
    let mut samples = said.samples[..32_000].to_vec();
    samples.extend(std::iter::repeat_n(0.0, 320)); // the jitter buffer grew by 40 ms
    samples.extend_from_slice(&said.samples[32_000..]);
    let result = correlation(&said, &Audio { rate: 8000, samples });
    assert!(result.whole < 0.9, "half of it lies elsewhere: {result}");
    assert!(result.median_block > 0.99 && result.share_above_90 > 0.95, "{result}");
    assert!((result.drift_ms - 40.0).abs() < 1.0, "{result}");
}

// A machine whose host took the processor away: sound is missing, and what follows is late by that or early.
#[test]
fn holes_of_half_a_second_cost_what_falls_into_them() {
    let said = generate::babble(8000, 12.0, 10);
    let mut samples = said.samples[..24_000].to_vec();
    samples.extend(std::iter::repeat_n(0.0, 4_000));
    samples.extend_from_slice(&said.samples[24_000..56_000]);
    samples.extend_from_slice(&said.samples[60_000..]);
    let result = correlation(&said, &Audio { rate: 8000, samples });
    assert!(result.median_block > 0.99 && result.share_above_90 > 0.9, "{result}");
    assert!((result.drift_ms - 500.0).abs() < 1.0, "{result}");
}

#[test]
fn unrelated_silent_and_missing_sound_scores_low() {
    let said = generate::babble(8000, 6.0, 5);
    for (name, other) in [
        ("other babble", generate::babble(8000, 6.0, 6)),
        ("noise", generate::noise(8000, 6.0, 0.3, 7)),
        ("a tone", generate::tone(8000, 1004.0, 6.0)),
        ("silence", Audio { rate: 8000, samples: vec![0.0; 48_000] }),
        ("nothing", Audio { rate: 8000, samples: Vec::new() }),
    ] {
        let result = correlation(&said, &other);
        assert!(result.whole.abs() < 0.3, "{name}: {result}");
        assert!(result.median_block < 0.6 && result.share_above_90 < 0.05, "{name}: {result}");
    }
}

#[test]
fn half_the_speech_lost_shows_in_the_blocks() {
    let said = generate::babble(8000, 8.0, 8);
    let mut heard = said.clone();
    heard.samples[16_000..48_000].fill(0.0);
    let result = correlation(&said, &heard);
    assert!((0.4..0.6).contains(&result.share_above_90), "{result}");
}

#[test]
fn the_sample_rates_may_differ() {
    let said = generate::babble(48_000, 4.0, 9);
    let heard = delayed(&said.resampled(8000), 0.1, 1.0, 0.0);
    let result = correlation(&said, &heard);
    assert!(result.whole > 0.99 && (result.lag_ms - 100.0).abs() < 0.1, "{result}");
}

#[test]
fn resampling_keeps_tones_and_level() {
    let tone = generate::tone(8000, 1000.0, 1.0);
    let up = tone.resampled(48_000);
    assert_eq!(up.samples.len(), 48_000);
    assert!(tone_share(&up.samples, 48_000, 1000.0) > 0.99);
    assert!((up.rms() - tone.rms()).abs() < 0.01);
}

#[test]
fn a_tone_is_told_from_its_neighbours_and_from_noise() {
    let tone = generate::tone(8000, 1004.0, 0.5);
    assert!((goertzel(&tone.samples, 8000, 1004.0) - 0.25).abs() < 0.01);
    assert!(tone_share(&tone.samples, 8000, 1004.0) > 0.99);
    assert!(tone_share(&tone.samples, 8000, 1100.0) < 0.05);
    assert!(tone_share(&generate::noise(8000, 0.5, 0.5, 1).samples, 8000, 1004.0) < 0.05);
    assert_eq!(tone_share(&[], 8000, 1004.0), 0.0);
}

#[test]
fn every_key_is_heard_once_and_for_as_long_as_it_lasts() {
    let mut samples = vec![0.0; 800];
    for row in [697.0, 770.0, 852.0, 941.0] {
        for column in [1209.0, 1336.0, 1477.0, 1633.0] {
            samples.extend(generate::tones(8000, &[row, column], 0.1).samples);
            samples.extend(vec![0.0; 800]);
        }
    }
    let audio = Audio { rate: 8000, samples };
    assert_eq!(dtmf_digits(&audio), "123A456B789C*0#D");
    for heard in dtmf(&audio) {
        assert!((80..=120).contains(&heard.duration_ms), "{heard:?}");
    }
    assert_eq!(dtmf_digits(&generate::babble(8000, 10.0, 3)), "", "speech is no digit");
}

#[test]
fn a_wav_file_comes_back_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.wav");
    let audio = generate::babble(8000, 1.0, 1);
    audio.write_wav(&path).unwrap();
    let back = read_wav(&path).unwrap();
    assert_eq!((back.rate, back.samples.len()), (8000, 8000));
    assert!(correlation(&audio, &back).whole > 0.999);
    assert!(read_wav(&folder.path().join("none.wav")).is_err());
}
