#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::fec::{FEC_BITRATE, WIDEBAND_FEC_BITRATE};
use super::g711::{self, Kernel, Law};
use super::opus::{self, Decoder, Encoder, EncoderConfig};
use super::*;
use crate::seed::Seeded;

/// Makes something like speech at `rate` Hz: harmonics of a gliding pitch under moving formants,
/// in syllables of 250 ms with pauses between them.
pub(super) fn speech(rate: u32, seconds: f32) -> Vec<i16> {
    let mut random = Seeded::new(1);
    let mut phase = 0f32;
    (0..(rate as f32 * seconds) as usize)
        .map(|n| {
            let t = n as f32 / rate as f32;
            let pitch = 130.0 + 25.0 * (t * 2.3).sin() + 8.0 * (t * 11.0).sin();
            phase = (phase + pitch / rate as f32) % 1.0;
            let formants = [500.0 + 200.0 * (t * 3.1).sin(), 1_500.0 + 400.0 * (t * 2.1).cos(), 2_500.0];
            let mut value = 0f32;
            let mut harmonic = 1f32;
            while harmonic * pitch < 3_400.0 {
                let frequency = harmonic * pitch;
                let weight: f32 =
                    formants.iter().map(|f| 1.0 / (1.0 + ((frequency - f) / 120.0).powi(2))).sum();
                value += (weight + 0.02) * (harmonic * phase * std::f32::consts::TAU).sin() / harmonic.sqrt();
                harmonic += 1.0;
            }
            let syllable = (t * 4.0).fract();
            let envelope = (syllable * std::f32::consts::PI).sin().max(0.0).powf(0.6);
            let pause = if (t * 0.8).fract() > 0.8 { 0.0 } else { 1.0 };
            let noise = (random.next_u64() >> 40) as f32 / (1u32 << 23) as f32 - 1.0;
            (3_000.0 * value * envelope * pause + 20.0 * noise).clamp(-32_000.0, 32_000.0) as i16
        })
        .collect()
}

/// Correlation of two signals at the best lag up to `max_lag` by which the second comes later.
fn correlation(original: &[i16], received: &[i16], max_lag: usize) -> f64 {
    (0..=max_lag)
        .map(|lag| {
            let (mut product, mut a2, mut b2) = (0f64, 1f64, 1f64);
            for (&a, &b) in original.iter().zip(&received[lag..]) {
                product += f64::from(a) * f64::from(b);
                a2 += f64::from(a).powi(2);
                b2 += f64::from(b).powi(2);
            }
            product / (a2 * b2).sqrt()
        })
        .fold(f64::MIN, f64::max)
}

// ---- G.711

/// Decision values and step widths of ITU-T G.711 tables 1a and 2a: upper end and step of every
/// segment, in units of the law (12 or 13 bits of magnitude).
const A_SEGMENTS: [(i32, i32); 7] =
    [(64, 2), (128, 4), (256, 8), (512, 16), (1_024, 32), (2_048, 64), (4_096, 128)];
const MU_SEGMENTS: [(i32, i32); 8] =
    [(31, 2), (95, 4), (223, 8), (479, 16), (991, 32), (2_015, 64), (4_063, 128), (8_159, 256)];

/// Lists the lower decision value of every quantising interval for positive input, from 0 up.
fn decision_values(law: Law) -> Vec<i32> {
    let mut values = Vec::new();
    let mut value = 0;
    match law {
        Law::A => {
            for (end, step) in A_SEGMENTS {
                while value < end {
                    values.push(value);
                    value += step;
                }
            }
        }
        Law::Mu => {
            // The first interval is half as wide: 0 to 1.
            values.push(0);
            value = 1;
            for (end, step) in MU_SEGMENTS {
                while value < end {
                    values.push(value);
                    value += step;
                }
            }
        }
    }
    values
}

// ITU-T G.711 tables 1 and 2, over all 65,536 samples: the interval a sample lies in gives its code.
#[test]
fn every_sample_is_encoded_as_the_tables_have_it() {
    for law in [Law::A, Law::Mu] {
        let values = decision_values(law);
        assert_eq!(values.len(), 128);
        for sample in i16::MIN..=i16::MAX {
            let magnitude = i32::from(if sample < 0 { !sample } else { sample });
            let (scaled, positive_bit) = match law {
                Law::A => (magnitude >> 3, if sample < 0 { 0 } else { 0x80 }),
                Law::Mu => (magnitude >> 2, if sample < 0 { 0x80 } else { 0 }),
            };
            let interval = values.partition_point(|&v| v <= scaled) - 1;
            let plain = positive_bit | interval as u8;
            let expected = match law {
                Law::A => plain ^ 0x55,
                Law::Mu => !plain,
            };
            assert_eq!(law.encode(sample), expected, "{law:?} {sample}");
        }
    }
}

// A code decodes to the middle of its interval.
#[test]
fn every_code_is_decoded_to_the_middle_of_its_interval() {
    for law in [Law::A, Law::Mu] {
        let mut values = decision_values(law);
        values.push(if law == Law::A { 4_096 } else { 8_159 });
        for code in 0..=255u8 {
            let (plain, negative, unit) = match law {
                Law::A => (code ^ 0x55, (code ^ 0x55) & 0x80 == 0, 8),
                Law::Mu => (!code, !code & 0x80 != 0, 4),
            };
            let interval = usize::from(plain & 0x7f);
            // The half-wide first interval of the mu-law stands for 0.
            let middle = match (law, interval) {
                (Law::Mu, 0) => 0,
                _ => (values[interval] + values[interval + 1]) * unit / 2,
            };
            let expected = if negative { -middle } else { middle };
            assert_eq!(i32::from(law.decode(code)), expected, "{law:?} {code:#04x}");
        }
    }
}

#[test]
fn the_tables_equal_the_definition_for_every_input() {
    let samples: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    let codes: Vec<u8> = (0..=255).collect();
    for (law, encode, decode) in [
        (Law::Mu, g711::mu_encode as fn(i16) -> u8, g711::mu_decode as fn(u8) -> i16),
        (Law::A, g711::a_encode, g711::a_decode),
    ] {
        let mut encoded = vec![0; samples.len()];
        assert_eq!(law.encode_into(&samples, &mut encoded), samples.len());
        assert!(samples.iter().zip(&encoded).all(|(&sample, &code)| encode(sample) == code));
        let mut decoded = vec![0; codes.len()];
        assert_eq!(law.decode_into(&codes, &mut decoded), codes.len());
        assert!(codes.iter().zip(&decoded).all(|(&code, &sample)| decode(code) == sample));
        // The kernel without vectors is its twin, whichever of them the calls above chose.
        let (mut by_table, mut back) = (vec![0; samples.len()], vec![0; codes.len()]);
        law.encode_by_table(&samples, &mut by_table);
        law.decode_by_table(&codes, &mut back);
        assert!(by_table == encoded && back == decoded, "{law:?}");
        // A lane must not depend on its neighbours: other orders, and lengths with a remainder.
        for stride in [1usize, 7, 4_099] {
            let mixed: Vec<i16> = (0..65_533).map(|n| samples[n * stride * 31 % 65_536]).collect();
            let mut out = vec![0; mixed.len()];
            law.encode_into(&mixed, &mut out);
            assert!(
                mixed.iter().zip(&out).all(|(&sample, &code)| encode(sample) == code),
                "{law:?} {stride}"
            );
            let mut pcm = vec![0; out.len()];
            law.decode_into(&out, &mut pcm);
            assert!(out.iter().zip(&pcm).all(|(&code, &sample)| decode(code) == sample), "{law:?} {stride}");
        }
        // Every code but the second zero of the mu-law survives a round trip.
        let changed: Vec<u8> =
            codes.iter().copied().filter(|&code| law.encode(law.decode(code)) != code).collect();
        assert_eq!(changed, if law == Law::Mu { vec![0x7f] } else { vec![] });
    }
    assert_eq!((Law::Mu.silence(), Law::A.silence()), (0xff, 0xd5));
}

// Every kernel that this processor has, over all 65,536 samples and all 256 codes, against the definition.
#[test]
fn every_kernel_equals_the_definition_for_every_input() {
    let samples: Vec<i16> = (i16::MIN..=i16::MAX).collect();
    let codes: Vec<u8> = (0..=255).collect();
    let available = Kernel::ALL.into_iter().filter(|kernel| kernel.is_available());
    let mut tried = Vec::new();
    for kernel in available {
        for (law, encode, decode) in [
            (Law::Mu, g711::mu_encode as fn(i16) -> u8, g711::mu_decode as fn(u8) -> i16),
            (Law::A, g711::a_encode, g711::a_decode),
        ] {
            let mut encoded = vec![0; samples.len()];
            assert_eq!(law.encode_with(kernel, &samples, &mut encoded), samples.len());
            for (&sample, &code) in samples.iter().zip(&encoded) {
                assert_eq!(code, encode(sample), "{kernel:?} {law:?} {sample}");
            }
            let mut decoded = vec![0; codes.len()];
            assert_eq!(law.decode_with(kernel, &codes, &mut decoded), codes.len());
            for (&code, &sample) in codes.iter().zip(&decoded) {
                assert_eq!(sample, decode(code), "{kernel:?} {law:?} {code:#04x}");
            }
        }
        tried.push(kernel);
    }
    assert_eq!(tried.first(), Some(&Kernel::best()));
    assert_eq!(tried.last(), Some(&Kernel::Table));
}

// Groups and what is left over, at any place in memory: no lane depends on its neighbours, and nothing beyond
// the end is read or written.
#[test]
fn every_kernel_codes_any_length_at_any_place() {
    let samples: Vec<i16> = (0..300u32).map(|n| (n.wrapping_mul(40_503) >> 3) as i16).collect();
    let codes: Vec<u8> = (0..300u32).map(|n| (n * 37) as u8).collect();
    for kernel in Kernel::ALL.into_iter().filter(|kernel| kernel.is_available()) {
        for law in [Law::Mu, Law::A] {
            for (start, length) in (0..3).flat_map(|start| (0..=200).map(move |length| (start, length))) {
                let mut encoded = [0x11; 220];
                law.encode_with(kernel, &samples[start..start + length], &mut encoded[start..start + length]);
                let mut decoded = [0x1111; 220];
                law.decode_with(kernel, &codes[start..start + length], &mut decoded[start..start + length]);
                for n in 0..220 {
                    let inside = (start..start + length).contains(&n);
                    let (code, sample) =
                        if inside { (law.encode(samples[n]), law.decode(codes[n])) } else { (0x11, 0x1111) };
                    assert_eq!(
                        (encoded[n], decoded[n]),
                        (code, sample),
                        "{kernel:?} {law:?} {start} {length} {n}"
                    );
                }
            }
        }
    }
}

#[test]
fn slices_of_unlike_length_are_coded_as_far_as_both_go() {
    let mut codes = [7; 4];
    assert_eq!(Law::A.encode_into(&[0; 2], &mut codes), 2);
    assert_eq!(codes, [0xd5, 0xd5, 7, 7]);
    assert_eq!(Law::Mu.decode_into(&[0xff; 9], &mut [1; 3]), 3);
}

// ---- Opus

/// Encodes and decodes a signal frame by frame; `lost` says which packets do not arrive and
/// `fec` whether their successors are asked for a copy.
fn through_opus(
    config: &EncoderConfig,
    out_rate: u32,
    signal: &[i16],
    lost: impl Fn(usize) -> bool,
    fec: bool,
) -> Vec<i16> {
    let mut encoder = Encoder::new(config).unwrap();
    let mut decoder = Decoder::new(out_rate).unwrap();
    let packets: Vec<Vec<u8>> = signal
        .chunks_exact(config.sample_rate as usize / 50)
        .map(|frame| {
            let mut packet = [0; opus::MAX_PACKET];
            let len = encoder.encode(frame, &mut packet).unwrap();
            assert_eq!(opus::packet_duration(&packet[..len]), Some(960));
            packet[..len].to_vec()
        })
        .collect();
    let mut out = Vec::new();
    let mut frame = vec![0; out_rate as usize / 50];
    for (n, packet) in packets.iter().enumerate() {
        let next = packets.get(n + 1).filter(|next| fec && !lost(n + 1) && opus::has_fec(next));
        let samples = match (lost(n), next) {
            (false, _) => decoder.decode(packet, &mut frame),
            (true, Some(next)) => decoder.decode_fec(next, &mut frame),
            (true, None) => decoder.conceal(&mut frame),
        };
        assert_eq!(samples, Ok(frame.len()));
        out.extend_from_slice(&frame);
    }
    out
}

#[test]
fn speech_survives_opus_at_every_rate() {
    for (rate, complexity, floor) in
        [(8_000, 5, 0.95), (8_000, 0, 0.93), (8_000, 10, 0.95), (16_000, 5, 0.93), (48_000, 5, 0.90)]
    {
        let signal = speech(rate, 4.0);
        let config = EncoderConfig { complexity, ..EncoderConfig::for_rate(rate) };
        let received = through_opus(&config, rate, &signal, |_| false, false);
        let end = signal.len() - rate as usize / 10;
        let found = correlation(&signal[..end], &received, rate as usize / 40);
        assert!(found > floor, "{rate} Hz, complexity {complexity}: {found}");
    }
}

#[test]
fn whatever_was_coded_comes_out_at_the_rate_asked_for() {
    let signal = speech(48_000, 3.0);
    let narrow: Vec<i16> = speech(8_000, 3.0);
    let received = through_opus(&EncoderConfig::for_rate(48_000), 8_000, &signal, |_| false, false);
    assert_eq!(received.len(), narrow.len());
    let found = correlation(&narrow[..narrow.len() - 400], &received, 200);
    assert!(found > 0.8, "{found}");
}

// RFC 6716 2.1.7: a packet carries a copy of the one before it. At 10 % loss that must be worth it.
#[test]
fn fec_beats_concealment_at_ten_percent_loss() {
    let signal = speech(8_000, 20.0);
    let config =
        EncoderConfig { fec: true, expected_loss_percent: 10, bitrate: 24_000, ..EncoderConfig::default() };
    let mut random = Seeded::new(10);
    let lost: Vec<bool> = (0..1_001).map(|_| random.below(10) == 0).collect();
    let clean = through_opus(&config, 8_000, &signal, |_| false, false);
    let error = |received: &[i16]| -> f64 {
        clean.iter().zip(received).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
    };
    let power: f64 = clean.iter().map(|&a| f64::from(a).powi(2)).sum();
    let ratio = |received: &[i16]| 10.0 * (power / error(received)).log10();
    let concealed = ratio(&through_opus(&config, 8_000, &signal, |n| lost[n], false));
    let repaired = ratio(&through_opus(&config, 8_000, &signal, |n| lost[n], true));
    assert!(repaired > concealed + 3.0, "FEC {repaired:.1} dB, concealment {concealed:.1} dB");
}

#[test]
fn fec_is_there_from_20_kbit_on_and_not_at_16() {
    let signal = speech(8_000, 6.0);
    for (bitrate, expected) in [(16_000, false), (20_000, true), (24_000, true)] {
        let config =
            EncoderConfig { fec: true, expected_loss_percent: 10, bitrate, ..EncoderConfig::default() };
        let mut encoder = Encoder::new(&config).unwrap();
        let mut out = [0; opus::MAX_PACKET];
        let with_copy = signal
            .chunks_exact(160)
            .filter(|frame| {
                let len = encoder.encode(frame, &mut out).unwrap();
                opus::has_fec(&out[..len])
            })
            .count();
        assert_eq!(with_copy > 100, expected, "{bitrate} bit/s: {with_copy} of 300");
    }
}

/// Encodes sound like speech in narrowband and says of each frame that follows one of sound whether its packet has a
/// copy of that. The encoder needs half a second to learn what is sound.
fn copies(complexity: u8, expected_loss_percent: u8, bitrate: u32, fec: bool) -> Vec<bool> {
    let config =
        EncoderConfig { complexity, expected_loss_percent, bitrate, fec, ..EncoderConfig::default() };
    copies_of(&config).0
}

/// As [`copies`], by other settings, with what part of the packets is in wide band.
fn copies_of(config: &EncoderConfig) -> (Vec<bool>, f32) {
    let signal = speech(config.sample_rate, 4.0);
    let frame = config.sample_rate as usize / 50;
    let mut wide = 0;
    let mut encoder = Encoder::new(config).unwrap();
    let mut out = [0; opus::MAX_PACKET];
    let frames: Vec<&[i16]> = signal.chunks_exact(frame).collect();
    let with_copy: Vec<bool> = frames
        .iter()
        .map(|frame| {
            let length = encoder.encode(frame, &mut out).unwrap();
            // RFC 6716 3.1: SILK and CELT in wide band.
            wide += usize::from([8..=11, 20..=23].iter().any(|band| band.contains(&(out[0] >> 3))));
            opus::has_fec(&out[..length])
        })
        .collect();
    let loud = |frame: &[i16]| mean_power(frame) > 1_000f32.powi(2);
    let spoken = (25..frames.len()).filter(|&n| loud(frames[n - 1]) && loud(frames[n - 2]));
    (spoken.map(|n| with_copy[n]).collect(), wide as f32 / frames.len() as f32)
}

// RFC 6716 2.1.7: libopus leaves FEC out without a word where it finds the rate too low, and what it finds depends on
// complexity and expected loss. At what FEC is used with it is there, whatever they are.
#[test]
fn fec_is_in_the_packets_of_speech_at_any_complexity_and_loss() {
    for complexity in 0..=10 {
        for loss in [1, 5, 10, 20, 30] {
            let copies = copies(complexity, loss, FEC_BITRATE, true);
            let without = copies.iter().filter(|&&copy| !copy).count();
            assert!(copies.len() > 60, "{}", copies.len());
            // The encoder's own detector may take one frame or another for background.
            assert!(without <= 2, "complexity {complexity}, {loss} %: {without} of {}", copies.len());
        }
    }
}

// Where libopus finds the rate too low for copies in wide band, it may give up the band for them.
#[test]
fn fec_is_in_the_packets_of_wide_band_and_leaves_it_wide() {
    for complexity in 0..=10 {
        for expected_loss_percent in [5, 10, 20, 30] {
            let bitrate = WIDEBAND_FEC_BITRATE;
            let usual = EncoderConfig::for_rate(16_000);
            let config = EncoderConfig { complexity, expected_loss_percent, bitrate, fec: true, ..usual };
            let (copies, wide) = copies_of(&config);
            let without = copies.iter().filter(|&&copy| !copy).count();
            let label = format!("complexity {complexity}, {expected_loss_percent} %");
            assert!(copies.len() > 60 && without <= 2, "{label}: {without} of {}", copies.len());
            assert!(wide > 0.98, "{label}: {wide} is wide");
        }
    }
}

#[test]
fn packets_without_fec_have_no_copies() {
    for complexity in [0, 5, 10] {
        for (loss, bitrate, fec) in [(0, FEC_BITRATE, true), (10, FEC_BITRATE, false), (0, 16_000, false)] {
            let copies = copies(complexity, loss, bitrate, fec);
            assert!(
                copies.len() > 60 && !copies.contains(&true),
                "complexity {complexity}, {loss} %, {bitrate}"
            );
        }
    }
}

// A busy gateway lowers the effort in the middle of a call.
#[test]
fn fec_stays_when_the_effort_falls() {
    let signal = speech(8_000, 8.0);
    let config = EncoderConfig {
        fec: true,
        expected_loss_percent: 5,
        bitrate: FEC_BITRATE,
        ..EncoderConfig::default()
    };
    let mut encoder = Encoder::new(&config).unwrap();
    let mut out = [0; opus::MAX_PACKET];
    let mut with_copy = [0; 2];
    for (n, frame) in signal.chunks_exact(160).enumerate() {
        let busy = n / 100 % 2;
        encoder.set_complexity([5, 0][busy]).unwrap();
        let length = encoder.encode(frame, &mut out).unwrap();
        with_copy[busy] += usize::from(opus::has_fec(&out[..length]));
    }
    assert!(with_copy[1] > 80 && with_copy[1].abs_diff(with_copy[0]) < 20, "{with_copy:?}");
}

#[test]
fn silence_shrinks_to_dtx_and_costs_next_to_nothing() {
    let mut encoder = Encoder::new(&EncoderConfig { dtx: true, ..EncoderConfig::default() }).unwrap();
    let mut out = [0; opus::MAX_PACKET];
    let lengths: Vec<usize> = (0..100).map(|_| encoder.encode(&[0; 160], &mut out).unwrap()).collect();
    let sent = lengths[50..].iter().filter(|&&len| !opus::is_dtx(&out[..len])).count();
    assert!(sent <= 4, "{lengths:?}");
}

#[test]
fn a_reset_state_works_like_a_new_one() {
    let signal = speech(8_000, 1.0);
    let mut encoder = Encoder::new(&EncoderConfig::default()).unwrap();
    let mut decoder = Decoder::new(8_000).unwrap();
    let mut pass = || {
        let (mut packets, mut samples) = (Vec::new(), Vec::new());
        for frame in signal.chunks_exact(160) {
            let (mut packet, mut pcm) = ([0; opus::MAX_PACKET], [0; 160]);
            let len = encoder.encode(frame, &mut packet).unwrap();
            decoder.decode(&packet[..len], &mut pcm).unwrap();
            packets.push(packet[..len].to_vec());
            samples.extend(pcm);
        }
        encoder.reset();
        decoder.reset();
        (packets, samples)
    };
    let first = pass();
    assert_eq!(first, pass());
    assert!(encoder.lookahead() > 0);
}

#[test]
fn what_opus_cannot_do_is_refused_by_name() {
    assert_eq!(Encoder::new(&EncoderConfig::for_rate(44_100)).err(), Some(CodecError::SampleRate(44_100)));
    assert_eq!(Decoder::new(11_025).err(), Some(CodecError::SampleRate(11_025)));
    let mut encoder = Encoder::new(&EncoderConfig::default()).unwrap();
    let mut decoder = Decoder::new(8_000).unwrap();
    let mut out = [0; 160];
    assert_eq!(encoder.encode(&[0; 161], &mut [0; 100]), Err(CodecError::FrameLength(161)));
    assert_eq!(encoder.encode(&[0; 160], &mut [0; 2]), Err(CodecError::OutputTooShort));
    assert_eq!(encoder.set_complexity(11), Err(CodecError::Setting));
    assert_eq!(encoder.set_expected_loss(101), Err(CodecError::Setting));
    assert_eq!(encoder.set_bitrate(0), Err(CodecError::Setting));
    assert_eq!(decoder.decode(&[], &mut out), Err(CodecError::Malformed));
    assert_eq!(decoder.decode(&[3, 0], &mut out), Err(CodecError::Malformed));
    assert_eq!(decoder.conceal(&mut out[..150]), Err(CodecError::FrameLength(150)));
    assert_eq!(decoder.conceal(&mut []), Err(CodecError::FrameLength(0)));
    assert_eq!(decoder.decode_fec(&[], &mut out), Err(CodecError::Malformed));
    let mut packet = [0; opus::MAX_PACKET];
    let refused = encoder.encode(&[0; 240], &mut packet);
    assert_eq!(refused, Err(CodecError::FrameLength(240)), "30 ms is no frame of Opus");
    let len = encoder.encode(&[0; 320], &mut packet).unwrap();
    assert_eq!(decoder.decode(&packet[..len], &mut out), Err(CodecError::OutputTooShort));
    assert_eq!(opus::packet_duration(&packet[..len]), Some(1_920));
}

// ---- concealment, noise, activity

#[test]
fn a_gap_in_speech_is_filled_with_something_like_it() {
    let signal = speech(8_000, 10.0);
    let mut random = Seeded::new(3);
    let lost: Vec<bool> = (0..500).map(|_| random.below(20) == 0).collect();
    let mut concealer = Concealer::new();
    let mut with = signal.clone();
    let mut without = signal.clone();
    for (n, &gone) in lost.iter().enumerate() {
        let frame = &mut with[n * 160..(n + 1) * 160];
        if gone {
            concealer.conceal(frame);
            without[n * 160..(n + 1) * 160].fill(0);
        } else {
            concealer.receive(frame);
        }
    }
    let error = |received: &[i16]| -> f64 {
        signal.iter().zip(received).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
    };
    // The pitch glides, so the upper harmonics drift apart; still it is nearer than nothing, and
    // the level is kept.
    assert!(error(&with) < 0.85 * error(&without), "{} against {}", error(&with), error(&without));
    let level = mean_power(&with) / mean_power(&signal);
    assert!((0.93..1.07).contains(&level), "{level}");
    assert!(mean_power(&without) / mean_power(&signal) < 0.97);
    // No clicks: the steepest step is not much steeper than in the signal.
    let steepest = |s: &[i16]| s.windows(2).map(|w| i32::from(w[1]).abs_diff(i32::from(w[0]))).max().unwrap();
    assert!(steepest(&with) <= steepest(&signal) * 5 / 4, "{} {}", steepest(&with), steepest(&signal));
}

#[test]
fn a_tone_goes_on_through_a_gap_and_fades_in_a_long_one() {
    for rate in [8_000, 16_000] {
        // 10 ms.
        let ten = rate / 100;
        let tone: Vec<i16> = (0..20 * ten)
            .map(|n| (8_000.0 * (n as f32 * 100.0 / rate as f32 * std::f32::consts::TAU).sin()) as i16)
            .collect();
        let mut concealer = Concealer::for_rate(rate as u32);
        concealer.receive(&mut tone[..10 * ten].to_vec());
        let mut gap = vec![0; ten];
        concealer.conceal(&mut gap);
        let difference = gap.iter().zip(&tone[10 * ten..]).map(|(&a, &b)| (a - b).abs()).max().unwrap();
        assert!(difference < 200, "{rate} Hz: {difference}");
        let mut long = vec![0; 10 * ten];
        concealer.conceal(&mut long);
        let level = mean_power(&long[..2 * ten]).sqrt();
        assert!((2_000.0..5_657.0).contains(&level), "{rate} Hz: {level}");
        let silent = 420 * rate / 8_000;
        assert!(long[silent..].iter().all(|&sample| sample == 0), "{rate} Hz: silent after 60 ms");
        let mut back = tone[..2 * ten].to_vec();
        concealer.receive(&mut back);
        assert_eq!(back[ten..], tone[ten..2 * ten], "the frame after a gap is itself again within 10 ms");
    }
}

/// A period that is no whole number of samples of 8 kHz: what is above 4 kHz would not go on in phase.
#[test]
fn a_gap_at_16_khz_is_filled_to_the_sample() {
    // 105 samples of 16 kHz, of which the tone of 5 kHz has 33 periods, nearly.
    let sample = |n: usize| {
        let turn = |frequency: f32| (n as f32 * frequency / 16_000.0 * std::f32::consts::TAU).sin();
        (4_000.0 * turn(16_000.0 / 105.0) + 4_000.0 * turn(33.0 * 16_000.0 / 105.0)) as i16
    };
    let signal: Vec<i16> = (0..3_200).map(sample).collect();
    let mut concealer = Concealer::for_rate(16_000);
    concealer.receive(&mut signal[..1_600].to_vec());
    let mut gap = [0; 160];
    concealer.conceal(&mut gap);
    let error: f64 = gap.iter().zip(&signal[1_600..]).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
    let energy: f64 = signal[1_600..1_760].iter().map(|&sample| f64::from(sample).powi(2)).sum();
    assert!(error < 0.01 * energy, "{error} of {energy}");
}

// RFC 3389 3.2: the colour of the noise, with the level it was told whatever the colour.
#[test]
fn f06_comfort_noise_has_the_colour_it_was_told() {
    // One coefficient of -0.8 (index 127 - 0.8 * 32768 / 258) is noise whose neighbours are alike, 0.8 the opposite.
    for (spectrum, correlation) in [(&[25u8][..], 0.8), (&[229], -0.8), (&[127], 0.0), (&[25, 127, 127], 0.8)]
    {
        let mut noise = ComfortNoise::new(8);
        let mut out = [0; 16_000];
        noise.describe(&[&[45][..], spectrum].concat());
        noise.fill(&mut out);
        let told = 10.0 * (mean_power(&out) / 32_767f32.powi(2)).log10();
        assert!((told + 45.0).abs() < 1.0, "{spectrum:?}: {told} dBov");
        let product: f32 = out.windows(2).map(|pair| f32::from(pair[0]) * f32::from(pair[1])).sum();
        let found = product / (mean_power(&out) * out.len() as f32);
        assert!((found - correlation).abs() < 0.05, "{spectrum:?}: {found}");
    }
    // Coefficients at the edge and beyond, and more than are used, do not make it ring on.
    let mut noise = ComfortNoise::new(9);
    let mut out = [0; 16_000];
    for index in [0u8, 255] {
        noise.describe(&[&[45][..], &[index; 200]].concat());
        noise.fill(&mut out);
        noise.describe(&[45]);
        noise.fill(&mut out);
        let told = 10.0 * (mean_power(&out) / 32_767f32.powi(2)).log10();
        assert!((told + 45.0).abs() < 1.0, "{index}: {told} dBov");
    }
}

#[test]
fn silence_is_told_from_speech_without_clipping_onsets() {
    let mut signal = speech(8_000, 20.0);
    let mut noise = ComfortNoise::new(9);
    noise.describe(&[60]);
    let mut background = vec![0; signal.len()];
    noise.fill(&mut background);
    // Ten seconds of background only, then speech over it.
    let loud: Vec<bool> = signal
        .chunks_exact(160)
        .enumerate()
        .map(|(n, f)| n >= 500 && mean_power(f) > 400f32.powi(2))
        .collect();
    for (n, (sample, &quiet)) in signal.iter_mut().zip(&background).enumerate() {
        *sample = if n < 80_000 { quiet } else { sample.saturating_add(quiet) };
    }
    let mut detector = ActivityDetector::new();
    let active: Vec<bool> = signal.chunks_exact(160).map(|frame| detector.is_active(frame)).collect();
    let idle = active[120..500].iter().filter(|&&a| !a).count();
    assert!(idle > 360, "background taken for speech: {idle} of 380 idle");
    let clipped = active.iter().zip(&loud).filter(|&(&active, &loud)| loud && !active).count();
    assert_eq!(clipped, 0, "speech taken for background");
}

#[test]
fn a_steady_loud_tone_stays_active_for_a_minute() {
    let mut detector = ActivityDetector::new();
    let frame: Vec<i16> =
        (0..160).map(|n| (3_000.0 * (n as f32 * 0.05 * std::f32::consts::TAU).sin()) as i16).collect();
    assert!((0..3_000).all(|_| detector.is_active(&frame)));
    // And digital silence ends it.
    assert!(!(0..50).map(|_| detector.is_active(&[0; 160])).last().unwrap());
}

proptest! {
    #[test]
    fn arbitrary_packets_never_upset_the_decoder(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..20)) {
        let mut decoder = Decoder::new(8_000).unwrap();
        let mut out = [0; 960];
        for packet in &packets {
            opus::has_fec(packet);
            if let Ok(samples) = decoder.decode(packet, &mut out) {
                prop_assert_eq!(Some(samples as u32 * 6), opus::packet_duration(packet));
            }
            let _ = decoder.decode_fec(packet, &mut out[..160]);
            prop_assert_eq!(decoder.conceal(&mut out[..160]), Ok(160));
        }
    }

    #[test]
    fn concealment_takes_any_signal_and_any_lengths(frames in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<i16>(), 0..500)), 0..20)) {
        let mut concealer = Concealer::new();
        let mut detector = ActivityDetector::new();
        for (lost, mut frame) in frames {
            if lost { concealer.conceal(&mut frame) } else { concealer.receive(&mut frame) }
            detector.is_active(&frame);
        }
    }
}
