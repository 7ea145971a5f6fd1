//! Measures what it costs to listen for tones, for each frame of 20 ms of one direction: DTMF, and the signals of fax
//! machines and modems.
//!
//! Prints one `RESULT` line per figure: the median over short batches.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::f64::consts::TAU;
use std::hint::black_box;
use std::time::Instant;

use call_model::DtmfDigit;
use transcoder::VoicebandDetector;
use transcoder::dtmf::{ToneDetector, ToneSender};

const FRAMES: usize = 500;
const ROUNDS: usize = 25;
/// Frames timed at once: short enough that other processes' time slices stay out of the median.
const BATCH: usize = 20;

fn measure(signal: &[i16], mut frame: impl FnMut(&mut [i16; 160])) -> f64 {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        for batch in signal.as_chunks::<160>().0.chunks_exact(BATCH) {
            let mut frames: Vec<[i16; 160]> = batch.to_vec();
            let start = Instant::now();
            frames.iter_mut().for_each(|samples| frame(black_box(samples)));
            times.push(start.elapsed().as_nanos() as f64 / BATCH as f64);
        }
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Harmonics of a gliding pitch in syllables, without pauses.
fn speech() -> Vec<i16> {
    let mut phase = 0.0;
    let sample = |n: usize| {
        let time = n as f64 / 8_000.0;
        phase += (140.0 + 40.0 * (time * 1.7).sin()) / 8_000.0;
        let voice: f64 = (1..20).map(|h| (TAU * phase * f64::from(h)).sin() / f64::from(h)).sum();
        (2_000.0 * voice * (1.2 + (time * 12.0).sin())) as i16
    };
    (0..FRAMES * 160).map(sample).collect()
}

fn keys() -> Vec<i16> {
    let (mut sender, mut samples) = (ToneSender::new(), vec![0; FRAMES * 160]);
    for second in samples.chunks_mut(8_000) {
        for key in "159D".chars() {
            sender.queue(DtmfDigit::from_char(key).unwrap(), 185).unwrap();
        }
        sender.fill(second);
    }
    samples
}

fn answer() -> Vec<i16> {
    let sample = |n: usize| {
        let time = n as f64 / 8_000.0;
        let sign = if (time / 0.45) as u32 % 2 == 1 { -1.0 } else { 1.0 };
        (6_000.0 * sign * (1.0 + 0.2 * (TAU * 15.0 * time).sin()) * (TAU * 2_100.0 * time).sin()) as i16
    };
    (0..FRAMES * 160).map(sample).collect()
}

fn main() {
    for (name, signal) in
        [("silence", vec![0; FRAMES * 160]), ("speech", speech()), ("keys", keys()), ("ansam", answer())]
    {
        let mut detector = ToneDetector::new();
        let dtmf = measure(&signal, |frame| {
            detector.process(frame);
            while detector.poll_digit().is_some() {}
        });
        let mut detector = VoicebandDetector::new();
        let voiceband = measure(&signal, |frame| {
            black_box(detector.process(frame));
        });
        println!("RESULT dtmf_detector_{name} {dtmf:.0} ns/frame");
        println!("RESULT voiceband_detector_{name} {voiceband:.0} ns/frame");
    }
}
