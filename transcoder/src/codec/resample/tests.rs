#![allow(clippy::unwrap_used)]

use std::f64::consts::TAU;

use proptest::prelude::*;

use super::*;
use crate::seed::Seeded;

/// Every pair of unlike rates, with the highest frequency that must pass: that of the lower rate.
const PAIRS: [(u32, u32, f64); 6] = [
    (8_000, 16_000, 3_400.0),
    (16_000, 8_000, 3_400.0),
    (8_000, 48_000, 3_400.0),
    (48_000, 8_000, 3_400.0),
    (16_000, 48_000, 7_000.0),
    (48_000, 16_000, 7_000.0),
];

/// Resamples in frames of 20 ms.
fn through(from: u32, to: u32, signal: &[i16]) -> Vec<i16> {
    let mut resampler = Resampler::new(from, to).unwrap();
    let mut out = Vec::new();
    for frame in signal.chunks(from as usize / 50) {
        let mut part = vec![0; to as usize / 50];
        let length = resampler.resample(frame, &mut part);
        assert_eq!(length, frame.len() * to as usize / from as usize);
        out.extend(&part[..length]);
    }
    out
}

fn tone(rate: u32, frequency: f64, level: f64) -> Vec<i16> {
    (0..rate)
        .map(|n| (level * (TAU * frequency * f64::from(n) / f64::from(rate)).sin()).round() as i16)
        .collect()
}

/// Amplitude of a frequency in the middle of a signal, over a whole number of 50 ms.
fn amplitude(rate: u32, frequency: f64, signal: &[i16]) -> f64 {
    let (start, length) = (rate as usize / 10, rate as usize / 2);
    let (mut real, mut imaginary) = (0f64, 0f64);
    for (n, &sample) in signal[start..start + length].iter().enumerate() {
        let phase = TAU * frequency * n as f64 / f64::from(rate);
        real += f64::from(sample) * phase.cos();
        imaginary += f64::from(sample) * phase.sin();
    }
    2.0 * real.hypot(imaginary) / length as f64
}

fn decibels(ratio: f64) -> f64 {
    20.0 * ratio.max(1e-9).log10()
}

#[test]
fn the_pass_band_is_flat() {
    for (from, to, edge) in PAIRS {
        for frequency in (0..).map(|n| 100.0 + 220.0 * f64::from(n)).take_while(|&f| f < edge).chain([edge]) {
            let received = through(from, to, &tone(from, frequency, 10_000.0));
            let gain = decibels(amplitude(to, frequency, &received) / 10_000.0);
            assert!(gain.abs() < 0.5, "{from} to {to}, {frequency} Hz: {gain:.2} dB");
        }
    }
}

// Upwards, the images of what passes: 60 dB below it each, wherever the tone is.
#[test]
fn images_are_stopped() {
    for (from, to, edge) in PAIRS.into_iter().filter(|(from, to, _)| from < to) {
        for frequency in [300.0, 1_000.0, 2_020.0, 3_000.0, edge] {
            let received = through(from, to, &tone(from, frequency, 30_000.0));
            let images = (1..=to / from / 2)
                .flat_map(|n| [f64::from(n * from) - frequency, f64::from(n * from) + frequency])
                .filter(|&image| image < f64::from(to) / 2.0);
            for image in images {
                let level = decibels(amplitude(to, image, &received) / 30_000.0);
                assert!(level < -60.0, "{from} to {to}, {frequency} Hz: {level:.1} dB at {image} Hz");
            }
        }
    }
}

// Downwards, all that would fall into the pass band: 60 dB.
#[test]
fn aliases_are_stopped() {
    for (from, to, edge) in PAIRS.into_iter().filter(|(from, to, _)| from > to) {
        let beyond = f64::from(to) - edge;
        for step in 0..60 {
            let frequency = beyond + f64::from(step) * (f64::from(from) / 2.0 - beyond - 40.0) / 59.0;
            let received = through(from, to, &tone(from, frequency, 30_000.0));
            let loudest =
                received[to as usize / 10..].iter().map(|sample| sample.unsigned_abs()).max().unwrap();
            let level = decibels(f64::from(loudest) / 30_000.0);
            assert!(level < -60.0, "{from} to {to}, {frequency:.0} Hz: {level:.1} dB");
        }
    }
}

#[test]
fn the_delay_is_as_told_in_both_directions() {
    for (from, to, _) in PAIRS {
        let (low, ratio) = (from.min(to), from.max(to) / from.min(to));
        let delay = Resampler::new(from, to).unwrap().delay();
        assert_eq!(delay, DELAY);
        let expected = delay as u32 * to / low;
        let place = 400 * ratio;
        let mut signal = vec![0; from as usize / 2];
        signal[(place * from / (low * ratio)) as usize] = 20_000;
        let received = through(from, to, &signal);
        let peak = (0..received.len()).max_by_key(|&n| received[n].unsigned_abs()).unwrap();
        assert_eq!(peak as u32, place * to / (low * ratio) + expected, "{from} to {to}");
    }
}

#[test]
fn up_and_down_again_is_what_it_was() {
    for (low, high) in [(8_000, 16_000), (8_000, 48_000), (16_000, 48_000)] {
        let signal = crate::codec::tests::speech(low, 3.0);
        let back = through(high, low, &through(low, high, &signal));
        let (mut power, mut noise) = (0f64, 0f64);
        for (&sent, &got) in signal.iter().zip(&back[2 * DELAY..]) {
            power += f64::from(sent).powi(2);
            noise += (f64::from(sent) - f64::from(got)).powi(2);
        }
        let ratio = 10.0 * (power / noise).log10();
        assert!(ratio > 25.0, "{low} by {high}: {ratio:.1} dB");
    }
}

// A square wave overshoots behind any low-pass: it is limited, not wrapped round. A constant stays one.
#[test]
fn the_loudest_signals_are_limited() {
    for (from, to, _) in PAIRS {
        for level in [i16::MIN, -1, 0, 1, i16::MAX] {
            let received = through(from, to, &vec![level; from as usize / 5]);
            let settled = &received[to as usize / 100..];
            let near = |&sample: &i16| (i32::from(sample) - i32::from(level)).abs() <= 2;
            assert!(settled.iter().all(near), "{from} to {to}: {level}");
        }
        let period = from as usize / 100;
        let square: Vec<i16> = (0..from as usize / 5)
            .map(|n| if (n / period).is_multiple_of(2) { i16::MAX } else { i16::MIN })
            .collect();
        let received = through(from, to, &square);
        let period = to as usize / 100;
        let delay = DELAY * to as usize / from.min(to) as usize;
        for (n, &sample) in received[delay..].iter().enumerate() {
            // The middle half of each half-wave.
            if (period / 4..3 * period / 4).contains(&(n % period)) {
                assert_eq!(sample > 0, (n / period).is_multiple_of(2), "{from} to {to}: {sample} at {n}");
                assert!(sample.unsigned_abs() > 31_000, "{from} to {to}: {sample} at {n}");
            }
        }
    }
}

#[test]
fn frames_of_any_length_give_the_same_stream() {
    let seed = 11;
    let mut random = Seeded::new(seed);
    for (from, to, _) in PAIRS {
        let signal = crate::codec::tests::speech(from, 0.5);
        let whole = through(from, to, &signal);
        let mut resampler = Resampler::new(from, to).unwrap();
        let (mut read, mut written) = (0, 0);
        while read < signal.len() {
            let length = (6 * random.below(400) as usize).min(signal.len() - read);
            let mut part = vec![0; length * 6];
            let got = resampler.resample(&signal[read..read + length], &mut part);
            assert_eq!(part[..got], whole[written..written + got], "seed {seed}, {from} to {to} at {read}");
            (read, written) = (read + length, written + got);
        }
        assert_eq!(written, whole.len());
        resampler.reset();
        let mut part = vec![0; to as usize / 50];
        let got = resampler.resample(&signal[..from as usize / 50], &mut part);
        assert_eq!(part[..got], whole[..got], "a reset state works like a new one");
    }
}

#[test]
fn equal_rates_pass_and_other_rates_are_refused() {
    let mut resampler = Resampler::new(16_000, 16_000).unwrap();
    let mut out = [0; 3];
    assert_eq!(resampler.resample(&[5, -6, 7, 8], &mut out), 3);
    assert_eq!((out, resampler.delay()), ([5, -6, 7], 0));
    assert_eq!(Resampler::new(44_100, 8_000).err(), Some(CodecError::SampleRate(44_100)));
    assert_eq!(Resampler::new(8_000, 24_000).err(), Some(CodecError::SampleRate(24_000)));
}

proptest! {
    #[test]
    fn any_samples_and_any_lengths_are_taken(frames in prop::collection::vec(prop::collection::vec(any::<i16>(), 0..1_200), 0..5), room in 0usize..2_000) {
        for (from, to, _) in PAIRS {
            let mut resampler = Resampler::new(from, to).unwrap();
            let mut out = vec![0; room];
            for frame in &frames {
                let written = resampler.resample(frame, &mut out);
                prop_assert!(written <= room && written * from as usize <= frame.len() * to as usize);
            }
        }
    }
}
