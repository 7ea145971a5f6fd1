//! Measures what one frame of 20 ms costs in each codec on this machine.
//!
//! Prints one `RESULT` line per figure: the median on a speech-like signal.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use transcoder::codec::g711::{Kernel, Law};
use transcoder::codec::g722;
use transcoder::codec::opus::{Decoder, Encoder, EncoderConfig, MAX_PACKET};
use transcoder::codec::resample::Resampler;
use transcoder::codec::{ActivityDetector, ComfortNoise, Concealer};
use transcoder::order::{Pace, TimeScaler};

const FRAMES: usize = 200;
const ROUNDS: usize = 25;

/// Runs `frame` on the numbers of all frames, `batch` of them at a time, and returns the median
/// time of one in nanoseconds. Short batches keep other processes' time slices out of the median.
fn measure(batch: usize, mut frame: impl FnMut(usize)) -> f64 {
    let mut times: Vec<f64> = Vec::new();
    for _ in 0..ROUNDS {
        for first in (0..FRAMES).step_by(batch) {
            let start = Instant::now();
            for n in first..first + batch {
                frame(n);
            }
            times.push(start.elapsed().as_nanos() as f64 / batch as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
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

/// Prints what each kernel of G.711 costs, and returns the line that sums it up.
fn g711(narrow: &[i16]) -> String {
    let mut line = String::from("RESULT g711");
    let frame_of = |n: usize| n * 160..(n + 1) * 160;
    for kernel in [Kernel::Table, Kernel::Avx2, Kernel::Avx512, Kernel::Neon] {
        let name = format!("{kernel:?}").to_lowercase().replace("table", "scalar");
        if !kernel.is_available() {
            continue;
        }
        let mut worst = 0f64;
        for law in [Law::Mu, Law::A] {
            let mut codes = vec![0u8; narrow.len()];
            let mut samples = vec![0i16; narrow.len()];
            let encode = measure(20, |n| {
                let frame = black_box(&narrow[frame_of(n)]);
                law.encode_with(kernel, frame, black_box(&mut codes[frame_of(n)]));
            });
            let decode = measure(20, |n| {
                let frame = black_box(&codes[frame_of(n)]);
                law.decode_with(kernel, frame, black_box(&mut samples[frame_of(n)]));
            });
            let law = format!("{law:?}").to_lowercase();
            result(&format!("g711_{law}_encode_{name}"), encode, "ns/frame");
            result(&format!("g711_{law}_decode_{name}"), decode, "ns/frame");
            worst = worst.max(encode).max(decode);
        }
        line += &format!(" {name}_ns={worst:.1}");
    }
    line
}

/// Prints what G.722 costs, from and to 16 kHz.
fn g722(wide: &[i16]) {
    let (mut encoder, mut decoder) = (g722::Encoder::new(), g722::Decoder::new());
    let (mut codes, mut samples) = (vec![0u8; wide.len() / 2], vec![0i16; wide.len()]);
    let (octets_of, samples_of) = (|n: usize| n * 160..(n + 1) * 160, |n: usize| n * 320..(n + 1) * 320);
    let encode = measure(2, |n| {
        encoder.encode(&wide[samples_of(n)], black_box(&mut codes[octets_of(n)]));
    });
    let decode = measure(2, |n| {
        decoder.decode(&codes[octets_of(n)], black_box(&mut samples[samples_of(n)]));
    });
    result("g722_encode", encode, "ns/frame");
    result("g722_decode", decode, "ns/frame");
}

/// Prints what it costs to change the rate of a frame.
fn resample() {
    for (from, to) in [
        (8_000, 16_000),
        (16_000, 8_000),
        (8_000, 48_000),
        (48_000, 8_000),
        (16_000, 48_000),
        (48_000, 16_000),
    ] {
        let pcm = signal(from as usize);
        let (samples, mut out) = (from as usize / 50, vec![0; to as usize / 50]);
        let mut resampler = Resampler::new(from, to).unwrap();
        let cost = measure(2, |n| {
            resampler.resample(&pcm[n * samples..(n + 1) * samples], black_box(&mut out));
        });
        result(&format!("resample_{from}_to_{to}"), cost, "ns/frame");
    }
}

fn main() {
    let narrow = signal(8_000);
    let frame_of = |n: usize| n * 160..(n + 1) * 160;
    let g711 = g711(&narrow);
    g722(&signal(16_000));
    resample();
    let mut detector = ActivityDetector::new();
    let activity = measure(20, |n| {
        black_box(detector.is_active(black_box(&narrow[frame_of(n)])));
    });
    result("activity", activity, "ns/frame");
    let mut concealer = Concealer::new();
    let mut frame = [0i16; 160];
    let conceal = measure(2, |n| {
        frame.copy_from_slice(&narrow[frame_of(n)]);
        concealer.receive(&mut frame);
        concealer.conceal(black_box(&mut frame));
    });
    result("g711_receive_and_conceal", conceal, "ns/frame");

    let mut noise = ComfortNoise::new(1);
    let fill = measure(20, |_| noise.fill(black_box(&mut frame)));
    result("comfort_noise", fill, "ns/frame");

    for rate in [8_000u32, 48_000] {
        let pcm = signal(rate as usize);
        let samples = rate as usize / 50;
        let mut buffer = vec![0i16; 2 * samples];
        for (name, pace) in [
            ("keep", Pace::Keep),
            ("shorten", Pace::Shorten(Duration::from_millis(50))),
            ("stretch", Pace::Stretch(Duration::from_millis(50))),
        ] {
            let mut scaler = TimeScaler::new(rate);
            let cost = measure(2, |n| {
                buffer[..samples].copy_from_slice(&pcm[n * samples..(n + 1) * samples]);
                black_box(scaler.apply(black_box(&mut buffer), samples, pace));
            });
            result(&format!("time_scale_{rate}_{name}"), cost, "ns/frame");
        }
    }

    for rate in [8_000u32, 48_000] {
        let pcm = signal(rate as usize);
        let samples = rate as usize / 50;
        for complexity in [0, 3, 5, 10] {
            let config = EncoderConfig { bitrate: 24_000, complexity, ..EncoderConfig::for_rate(rate) };
            let mut encoder = Encoder::new(&config).unwrap();
            let mut packet = [0; MAX_PACKET];
            let cost = measure(1, |n| {
                black_box(encoder.encode(&pcm[n * samples..(n + 1) * samples], &mut packet).unwrap());
            });
            result(&format!("opus_encode_{rate}_cx{complexity}"), cost / 1_000.0, "us/frame");
        }
        let config = EncoderConfig { bitrate: 24_000, ..EncoderConfig::for_rate(rate) };
        let mut encoder = Encoder::new(&config).unwrap();
        let packets: Vec<Vec<u8>> = pcm
            .chunks_exact(samples)
            .map(|frame| {
                let mut packet = [0; MAX_PACKET];
                let len = encoder.encode(frame, &mut packet).unwrap();
                packet[..len].to_vec()
            })
            .collect();
        for out_rate in [8_000, rate] {
            let mut decoder = Decoder::new(out_rate).unwrap();
            let mut out = vec![0; out_rate as usize / 50];
            let cost = measure(1, |n| {
                black_box(decoder.decode(&packets[n], &mut out).unwrap());
            });
            result(&format!("opus_decode_{rate}_to_{out_rate}"), cost / 1_000.0, "us/frame");
            if rate == out_rate {
                break;
            }
        }
    }
    println!("{g711}");
}
