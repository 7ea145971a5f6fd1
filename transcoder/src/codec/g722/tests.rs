#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;

use proptest::prelude::*;

use super::*;
use crate::seed::Seeded;

/// Encodes and decodes, frame by frame of 20 ms.
fn through(signal: &[i16]) -> Vec<i16> {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let mut received = vec![0; signal.len()];
    let mut codes = [0; 160];
    for (frame, out) in signal.chunks(320).zip(received.chunks_mut(320)) {
        let octets = encoder.encode(frame, &mut codes);
        assert_eq!(decoder.decode(&codes[..octets], out), out.len());
    }
    received
}

/// Signal to noise in decibels of what was received [`DELAY`] samples late, leaving out the first 50 ms.
fn signal_to_noise(signal: &[i16], received: &[i16]) -> f64 {
    let pairs = signal.iter().zip(&received[DELAY..]).skip(800);
    let (mut power, mut noise) = (0f64, 0f64);
    for (&sent, &got) in pairs {
        power += f64::from(sent).powi(2);
        noise += (f64::from(sent) - f64::from(got)).powi(2);
    }
    10.0 * (power / noise.max(1.0)).log10()
}

fn tone(frequency: f64, level: f64, samples: usize) -> Vec<i16> {
    (0..samples).map(|n| (level * (TAU * frequency * n as f64 / 16_000.0).sin()) as i16).collect()
}

/// FNV-1a over octets.
fn digest(octets: impl IntoIterator<Item = u8>) -> u64 {
    octets
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

/// Noise below -6 dBov in the arithmetic of whole numbers, so that it is the same everywhere.
fn noise(samples: usize) -> Vec<i16> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as i16 / 4
    };
    (0..samples).map(|_| next() + next() / 2).collect()
}

// ITU-T G.722 2.5: tones of both bands. The lower has six bits, the higher two.
#[test]
fn tones_of_both_bands_come_through() {
    for (frequency, floor) in [
        (300.0, 30.0),
        (1_000.0, 28.0),
        (2_000.0, 26.0),
        (3_000.0, 24.0),
        (5_000.0, 9.0),
        (6_000.0, 9.0),
        (7_000.0, 9.0),
    ] {
        for level in [300.0, 3_000.0, 15_000.0] {
            let signal = tone(frequency, level, 16_000);
            let found = signal_to_noise(&signal, &through(&signal));
            assert!(found > floor, "{frequency} Hz at {level}: {found:.1} dB");
        }
    }
}

#[test]
fn sound_like_speech_comes_through() {
    let signal = crate::codec::tests::speech(16_000, 4.0);
    let found = signal_to_noise(&signal, &through(&signal));
    assert!(found > 20.0, "{found:.1} dB");
}

// What the codec delays is the filters' alone, and is what DELAY says.
#[test]
fn the_delay_is_as_told() {
    let signal = crate::codec::tests::speech(16_000, 2.0);
    let received = through(&signal);
    let error = |delay: usize| -> i64 {
        signal.iter().zip(&received[delay..]).map(|(&a, &b)| (i64::from(a) - i64::from(b)).pow(2)).sum()
    };
    assert_eq!((0..60).min_by_key(|&delay| error(delay)), Some(DELAY));
}

#[test]
fn silence_stays_silent() {
    let received = through(&[0; 16_000]);
    assert!(received.iter().all(|sample| sample.abs() <= 4), "{:?}", received.iter().max());
    // And comes back after sound.
    let mut signal = noise(16_000);
    signal.extend([0; 16_000]);
    let after = &through(&signal)[20_000..];
    assert!(after.iter().all(|sample| sample.abs() <= 8), "{:?}", after.iter().max());
}

// The loudest signals there are: they are limited, not wrapped round.
#[test]
fn the_loudest_signals_are_limited() {
    let square: Vec<i16> =
        (0..16_000u32).map(|n| if (n / 40).is_multiple_of(2) { i16::MAX } else { i16::MIN }).collect();
    let found = signal_to_noise(&square, &through(&square));
    assert!(found > 12.0, "{found:.1} dB");
    for level in [i16::MIN, i16::MAX] {
        let received = through(&[level; 16_000]);
        let near = |&sample: &i16| (i32::from(sample) - i32::from(level)).abs() < 1_500;
        assert!(received[1_000..].iter().all(near), "{level}");
    }
}

// Encoder and decoder go through the same states. After a packet that is lost they meet again, for all that
// they remember fades (ITU-T G.722 3.6: leakage).
#[test]
fn a_decoder_that_missed_a_packet_falls_into_step_again() {
    let signal = noise(48_000);
    let (mut encoder, mut whole, mut broken) = (Encoder::new(), Decoder::new(), Decoder::new());
    let (mut codes, mut a, mut b) = ([0; 160], [0; 320], [0; 320]);
    let mut apart = Vec::new();
    for (n, frame) in signal.chunks_exact(320).enumerate() {
        encoder.encode(frame, &mut codes);
        whole.decode(&codes, &mut a);
        if n != 20 {
            broken.decode(&codes, &mut b);
            if a != b {
                apart.push(n);
            }
        }
    }
    assert_eq!(apart.first(), Some(&21));
    assert!(apart.last().is_some_and(|&last| last < 75), "{apart:?}");
}

// The codes and samples of two other implementations for the same input, which they agree on: libspandsp 0.0.6 and
// ffmpeg 5.1 (compared by hand on noise, sweeps and recorded speech).
#[test]
fn codes_and_samples_are_those_of_other_implementations() {
    let signal = noise(32_000);
    let (mut codes, mut samples) = (vec![0; 16_000], vec![0; 32_000]);
    assert_eq!(Encoder::new().encode(&signal, &mut codes), 16_000);
    assert_eq!(digest(codes.iter().copied()), ENCODED, "{:#018x}", digest(codes.iter().copied()));
    assert_eq!(Decoder::new().decode(&codes, &mut samples), 32_000);
    let decoded = digest(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    assert_eq!(decoded, DECODED, "{decoded:#018x}");
}

/// Digest of the codes of [`noise`], 32000 samples of it.
const ENCODED: u64 = 0x6024_2723_6bfb_b4f0;
/// Digest of what they decode to.
const DECODED: u64 = 0x816c_263f_9aae_b42e;

// However a signal is cut, the stream is one.
#[test]
fn frames_of_any_length_give_the_same_stream() {
    let signal = noise(8_000);
    let mut whole = vec![0; 4_000];
    Encoder::new().encode(&signal, &mut whole);
    let mut pcm = vec![0; 8_000];
    Decoder::new().decode(&whole, &mut pcm);
    let seed = 7;
    let mut random = Seeded::new(seed);
    let (mut encoder, mut decoder, mut at) = (Encoder::new(), Decoder::new(), 0);
    while at < 4_000 {
        let length = (random.below(300) as usize).min(4_000 - at);
        let (mut codes, mut samples) = ([0; 300], [0; 600]);
        assert_eq!(encoder.encode(&signal[2 * at..2 * (at + length)], &mut codes), length);
        assert_eq!(codes[..length], whole[at..at + length], "seed {seed}, at {at}");
        assert_eq!(decoder.decode(&codes[..length], &mut samples), 2 * length);
        assert_eq!(samples[..2 * length], pcm[2 * at..2 * (at + length)], "seed {seed}, at {at}");
        at += length;
    }
}

#[test]
fn slices_of_unlike_length_are_coded_as_far_as_both_go() {
    let mut codes = [7; 4];
    assert_eq!(Encoder::new().encode(&[0; 5], &mut codes), 2);
    assert_eq!(codes[2..], [7, 7]);
    assert_eq!(Encoder::new().encode(&[0; 50], &mut codes), 4);
    let mut samples = [9; 7];
    assert_eq!(Decoder::new().decode(&[0; 9], &mut samples), 6);
    assert_eq!(samples[6], 9);
    assert_eq!(Decoder::new().decode(&[0; 2], &mut samples), 4);
}

#[test]
fn a_reset_state_works_like_a_new_one() {
    let signal = noise(3_200);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    let mut pass = || {
        let (mut codes, mut samples) = (vec![0; 1_600], vec![0; 3_200]);
        encoder.encode(&signal, &mut codes);
        decoder.decode(&codes, &mut samples);
        encoder.reset();
        decoder.reset();
        (codes, samples)
    };
    let first = pass();
    assert_eq!(first, pass());
}

proptest! {
    #[test]
    fn any_codes_and_any_samples_are_taken(codes in prop::collection::vec(any::<u8>(), 0..2_000), samples in prop::collection::vec(any::<i16>(), 0..2_000)) {
        let mut out = vec![0; 2 * codes.len()];
        prop_assert_eq!(Decoder::new().decode(&codes, &mut out), out.len());
        let mut out = vec![0; samples.len()];
        prop_assert_eq!(Encoder::new().encode(&samples, &mut out), samples.len() / 2);
    }
}
