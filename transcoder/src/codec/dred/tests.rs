#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::codec::mean_power;
use crate::codec::opus::{EncoderConfig, MAX_PACKET, has_fec};
use crate::codec::tests::speech;

/// Samples of a frame at 16 kHz, and what it becomes at 8 kHz.
const FRAME: usize = 320;
const HALF: usize = FRAME / 2;

/// Wideband with so much redundancy, made for 10 % of loss.
fn packets(signal: &[i16], duration_ms: u32, bitrate: u32) -> Vec<Vec<u8>> {
    let config = EncoderConfig { bitrate, expected_loss_percent: 10, ..EncoderConfig::for_rate(16_000) };
    let mut encoder = Encoder::new(&config).unwrap();
    encoder.set_dred(duration_ms).unwrap();
    let frames = signal.chunks_exact(FRAME);
    frames
        .map(|frame| {
            let mut packet = [0; MAX_PACKET];
            let length = encoder.encode(frame, &mut packet).unwrap();
            packet[..length].to_vec()
        })
        .collect()
}

/// Decodes to 8 kHz with bursts of `length` lost packets, every 40th to begin with; what fills them is DRED if `deep`.
fn through(packets: &[Vec<u8>], length: usize, deep: bool) -> Vec<i16> {
    let mut decoder = Decoder::new(8_000).unwrap();
    let mut redundancy = Redundancy::new(8_000).unwrap();
    let mut out = Vec::new();
    let mut frame = [0; HALF];
    for (n, packet) in packets.iter().enumerate() {
        match burst(n, length).and_then(|end| packets.get(end).map(|next| (end, next))) {
            None => decoder.decode(packet, &mut frame),
            Some((end, next)) if deep => {
                redundancy.parse(next, 8_000).unwrap();
                decoder.decode_dred(&redundancy, (end - n) * HALF, &mut frame)
            }
            Some(_) => decoder.conceal(&mut frame),
        }
        .unwrap();
        out.extend_from_slice(&frame);
    }
    out
}

/// The packet after the burst that a packet is lost in.
fn burst(n: usize, length: usize) -> Option<usize> {
    let start = n / 40 * 40 + 30;
    (start..start + length).contains(&n).then_some(start + length)
}

/// How far the level of what fills the gaps is from that of what was there, on average over gaps of sound, in decibels.
fn level_error(whole: &[i16], received: &[i16], length: usize) -> f32 {
    let level = |frame: &[i16]| 10.0 * (mean_power(frame) + 1_000.0).log10();
    let pairs = whole.chunks_exact(HALF).zip(received.chunks_exact(HALF)).enumerate();
    let errors: Vec<f32> = pairs
        .filter(|&(n, (sent, _))| burst(n, length).is_some() && mean_power(sent) > 300f32.powi(2))
        .map(|(_, (sent, got))| (level(sent) - level(got)).abs())
        .collect();
    assert!(errors.len() > 8 * length, "{}", errors.len());
    errors.iter().sum::<f32>() / errors.len() as f32
}

#[test]
fn bursts_of_three_and_five_frames_are_brought_back() {
    let packets = packets(&speech(16_000, 16.0), 500, 40_000);
    let whole = through(&packets, 0, true);
    for length in [3, 5] {
        let concealed = level_error(&whole, &through(&packets, length, false), length);
        let spoken = level_error(&whole, &through(&packets, length, true), length);
        assert!(spoken < 3.0, "{length} frames: {spoken:.1} dB off");
        assert!(spoken < concealed / 2.0, "{length} frames: {spoken:.1} dB off, concealed {concealed:.1}");
    }
}

#[test]
fn packets_describe_as_much_of_the_past_as_asked_for() {
    let signal = speech(16_000, 4.0);
    let mut redundancy = Redundancy::new(8_000).unwrap();
    let mut reach = |duration_ms: u32, longest: usize| {
        let packets = packets(&signal, duration_ms, 64_000);
        let mut reaches: Vec<usize> =
            packets[60..].iter().map(|packet| redundancy.parse(packet, longest).unwrap()).collect();
        assert_eq!(redundancy.reach(), reaches[reaches.len() - 1]);
        // After a pause they describe what was before it, so the median.
        reaches.sort_unstable();
        reaches[reaches.len() / 2]
    };
    assert_eq!(reach(0, 8_000), 0);
    let (short, long) = (reach(100, 8_000), reach(500, 8_000));
    assert!((640..=1_400).contains(&short), "{short} samples for 100 ms");
    assert!(long > short && long <= 4_600, "{long} samples for 500 ms");
}

#[test]
fn a_packet_without_redundancy_is_concealed() {
    let signal = speech(16_000, 1.0);
    let packets = packets(&signal, 0, 32_000);
    let (mut a, mut b) = (Decoder::new(8_000).unwrap(), Decoder::new(8_000).unwrap());
    let mut redundancy = Redundancy::new(8_000).unwrap();
    let (mut spoken, mut concealed) = ([0; HALF], [0; HALF]);
    for packet in &packets[..40] {
        a.decode(packet, &mut spoken).unwrap();
        b.decode(packet, &mut concealed).unwrap();
    }
    // Neither where nothing was parsed nor where there was nothing.
    for parsed in [false, true] {
        if parsed {
            assert_eq!(redundancy.parse(&packets[42], 8_000), Ok(0));
            assert!(!has_fec(&packets[42]));
        }
        a.decode_dred(&redundancy, HALF, &mut spoken).unwrap();
        b.conceal(&mut concealed).unwrap();
        assert_eq!(spoken, concealed, "parsed: {parsed}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    assert_eq!(Redundancy::new(44_100).err(), Some(CodecError::SampleRate(44_100)));
    let mut redundancy = Redundancy::new(16_000).unwrap();
    assert_eq!(redundancy.parse(&[], 100), Err(CodecError::Malformed));
    let mut decoder = Decoder::new(8_000).unwrap();
    let mut out = [0; HALF];
    assert_eq!(decoder.decode_dred(&redundancy, 0, &mut out), Err(CodecError::SampleRate(16_000)));
    assert_eq!(decoder.decode_dred(&redundancy, 0, &mut out[..150]), Err(CodecError::FrameLength(150)));
    let mut encoder = Encoder::new(&EncoderConfig::for_rate(16_000)).unwrap();
    assert_eq!(encoder.set_dred(MAX_DURATION_MS + 1), Err(CodecError::Setting));
    assert_eq!(encoder.set_dred(MAX_DURATION_MS), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // Redundancy rides in the padding of a packet: true packets with octets of it changed or cut off.
    #[test]
    fn no_packet_upsets_the_parser(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..30), cut in any::<prop::sample::Index>(), before in 0usize..100_000) {
        thread_local! {
            static PACKETS: Vec<Vec<u8>> = packets(&speech(16_000, 2.0), 500, 32_000);
        }
        let mut packet = PACKETS.with(|packets| packets[80].clone());
        for (index, octet) in changes {
            let at = index.index(packet.len());
            packet[at] = octet;
        }
        packet.truncate(cut.index(2 * packet.len()).max(1));
        let mut redundancy = Redundancy::new(8_000).unwrap();
        let mut decoder = Decoder::new(8_000).unwrap();
        let mut out = [0; 960];
        let _ = redundancy.parse(&packet, 8_000);
        prop_assert_eq!(decoder.decode_dred(&redundancy, before, &mut out), Ok(960));
    }
}
