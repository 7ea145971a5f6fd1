//! Measures what one frame of 20 ms costs in each codec on this machine.
//!
//! Prints one `RESULT` line per figure: the median of 25 rounds on a speech-like signal.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::Instant;

use transcoder::codec::g711::Law;
use transcoder::codec::opus::{Decoder, Encoder, EncoderConfig, MAX_PACKET};
use transcoder::codec::{ActivityDetector, Concealer};

const FRAMES: usize = 200;
const ROUNDS: usize = 25;

/// Returns the median time of one frame in nanoseconds.
fn measure(mut round: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            round();
            start.elapsed().as_nanos() as f64 / FRAMES as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn result(name: &str, value: f64, unit: &str) {
    println!("RESULT {name} {value:.1} {unit}");
}

/// Harmonics of a gliding pitch in syllables, over faint noise.
fn signal(rate: usize) -> Vec<i16> {
    let mut noise = 1u32;
    (0..rate / 50 * FRAMES)
        .map(|n| {
            let t = n as f32 / rate as f32;
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let phase = (120.0 * t + 3.0 * (t * 5.0).sin()) * std::f32::consts::TAU;
            let voice: f32 = (1..20).map(|h| (phase * h as f32).sin() / h as f32).sum();
            let syllable = (t * 12.0).sin().max(0.0);
            (4_000.0 * voice * syllable + (noise >> 24) as f32) as i16
        })
        .collect()
}

fn main() {
    let narrow = signal(8_000);
    for law in [Law::Mu, Law::A] {
        let mut codes = vec![0u8; narrow.len()];
        let mut samples = vec![0i16; narrow.len()];
        let encode = measure(|| {
            for (pcm, out) in narrow.chunks_exact(160).zip(codes.chunks_exact_mut(160)) {
                law.encode_into(black_box(pcm), out);
            }
            black_box(&codes);
        });
        let decode = measure(|| {
            for (input, out) in codes.chunks_exact(160).zip(samples.chunks_exact_mut(160)) {
                law.decode_into(black_box(input), out);
            }
            black_box(&samples);
        });
        result(&format!("g711_{law:?}_encode").to_lowercase(), encode, "ns/frame");
        result(&format!("g711_{law:?}_decode").to_lowercase(), decode, "ns/frame");
    }
    let mut detector = ActivityDetector::new();
    let activity = measure(|| {
        for pcm in narrow.chunks_exact(160) {
            black_box(detector.is_active(black_box(pcm)));
        }
    });
    result("activity", activity, "ns/frame");
    let mut concealer = Concealer::new();
    let mut frame = [0i16; 160];
    let conceal = measure(|| {
        for pcm in narrow.chunks_exact(160) {
            frame.copy_from_slice(pcm);
            concealer.receive(&mut frame);
            concealer.conceal(black_box(&mut frame));
        }
    });
    result("g711_receive_and_conceal", conceal, "ns/frame");

    for rate in [8_000u32, 48_000] {
        let pcm = signal(rate as usize);
        for complexity in [0, 3, 5, 10] {
            let config = EncoderConfig { bitrate: 24_000, complexity, ..EncoderConfig::for_rate(rate) };
            let mut encoder = Encoder::new(&config).unwrap();
            let mut packet = [0; MAX_PACKET];
            let cost = measure(|| {
                for frame in pcm.chunks_exact(rate as usize / 50) {
                    black_box(encoder.encode(black_box(frame), &mut packet).unwrap());
                }
            });
            result(&format!("opus_encode_{rate}_cx{complexity}"), cost / 1_000.0, "us/frame");
        }
        let config = EncoderConfig { bitrate: 24_000, ..EncoderConfig::for_rate(rate) };
        let mut encoder = Encoder::new(&config).unwrap();
        let packets: Vec<Vec<u8>> = pcm
            .chunks_exact(rate as usize / 50)
            .map(|frame| {
                let mut packet = [0; MAX_PACKET];
                let len = encoder.encode(frame, &mut packet).unwrap();
                packet[..len].to_vec()
            })
            .collect();
        let mut decoder = Decoder::new(rate).unwrap();
        let mut out = vec![0; rate as usize / 50];
        let cost = measure(|| {
            for packet in &packets {
                black_box(decoder.decode(black_box(packet), &mut out).unwrap());
            }
        });
        result(&format!("opus_decode_{rate}"), cost / 1_000.0, "us/frame");
    }
}
