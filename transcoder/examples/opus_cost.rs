//! Measures what Opus costs a frame of 20 ms by complexity, on input like one side of a conversation: talk and pauses.
//!
//! Prints a table of the mean time of a frame of talk and of all frames, and one `RESULT` line per row. With the
//! feature `dred` also what deep redundancy costs in time, bits and memory.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::time::Instant;

use transcoder::codec::fec::FEC_BITRATE;
use transcoder::codec::opus::{Decoder, Encoder, EncoderConfig, MAX_PACKET};

/// Half a minute of conversation.
const FRAMES: usize = 1_500;
/// Rounds, of which the median counts for each frame.
const ROUNDS: usize = 5;

/// Says whether a frame is talk: turns of 2.6 s out of 6 s, as in a conversation of two.
fn talks(frame: usize) -> bool {
    frame % 300 < 130
}

/// Harmonics of a gliding pitch under moving formants, in syllables, over faint noise: silent but for that
/// while the other side talks.
fn conversation(rate: usize) -> Vec<i16> {
    let mut noise = 1u32;
    (0..rate / 50 * FRAMES)
        .map(|n| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let background = (noise >> 24) as f32 / 8.0;
            if !talks(n / (rate / 50)) {
                return background as i16;
            }
            let t = n as f32 / rate as f32;
            let pitch = (130.0 * t + 4.0 * (t * 2.3).sin()) * std::f32::consts::TAU;
            let formant = 500.0 + 250.0 * (t * 3.1).sin();
            let voice: f32 = (1..rate / 320)
                .map(|h| (pitch * h as f32).sin() / (1.0 + ((130.0 * h as f32 - formant) / 300.0).powi(2)))
                .sum();
            let syllable = (t * 12.5).sin().max(0.0).sqrt();
            (5_000.0 * voice * syllable + background).clamp(-32_000.0, 32_000.0) as i16
        })
        .collect()
}

/// What a run came to: microseconds of a frame of talk, and of any frame.
struct Cost {
    talk_us: f64,
    all_us: f64,
}

/// Runs `frame` on the number of every frame, several rounds of it, and takes the median of each.
fn measure(mut round: impl FnMut(&mut dyn FnMut(usize, f64))) -> Cost {
    let mut times = vec![Vec::new(); FRAMES];
    for _ in 0..ROUNDS {
        round(&mut |n, time| times[n].push(time));
    }
    let medians: Vec<f64> = times
        .iter_mut()
        .map(|times| {
            times.sort_by(f64::total_cmp);
            times[ROUNDS / 2]
        })
        .collect();
    let mean = |of: &dyn Fn(usize) -> bool| {
        let chosen: Vec<f64> =
            medians.iter().enumerate().filter(|&(n, _)| of(n)).map(|(_, &time)| time).collect();
        chosen.iter().sum::<f64>() / chosen.len() as f64
    };
    Cost { talk_us: mean(&talks), all_us: mean(&|_| true) }
}

fn encoder(rate: u32, complexity: u8, bitrate: u32, loss: u8, fec: bool) -> Encoder {
    let config = EncoderConfig {
        complexity,
        bitrate,
        fec,
        expected_loss_percent: loss,
        ..EncoderConfig::for_rate(rate)
    };
    Encoder::new(&config).unwrap()
}

/// Measures an encoder, and returns its cost and its packets.
fn encode(rate: u32, pcm: &[i16], build: impl Fn() -> Encoder) -> (Cost, Vec<Vec<u8>>) {
    let samples = rate as usize / 50;
    let mut packets = Vec::new();
    let cost = measure(|note| {
        packets.clear();
        let mut encoder = build();
        let mut packet = [0; MAX_PACKET];
        for (n, frame) in pcm.chunks_exact(samples).enumerate() {
            let start = Instant::now();
            let length = encoder.encode(frame, &mut packet).unwrap();
            note(n, start.elapsed().as_nanos() as f64 / 1_000.0);
            packets.push(packet[..length].to_vec());
        }
    });
    (cost, packets)
}

fn decode(packets: &[Vec<u8>], rate: u32) -> Cost {
    let mut out = vec![0; rate as usize / 50];
    measure(|note| {
        let mut decoder = Decoder::new(rate).unwrap();
        for (n, packet) in packets.iter().enumerate() {
            let start = Instant::now();
            decoder.decode(packet, &mut out).unwrap();
            note(n, start.elapsed().as_nanos() as f64 / 1_000.0);
        }
    })
}

/// Mean rate of the packets of talk in kbit/s.
fn rate_of(packets: &[Vec<u8>]) -> f64 {
    let talk = packets.iter().enumerate().filter(|&(n, _)| talks(n));
    let (count, octets) =
        talk.fold((0, 0), |(count, octets), (_, packet)| (count + 1, octets + packet.len()));
    octets as f64 * 8.0 / (f64::from(count) * 20.0)
}

#[cfg(feature = "dred")]
fn dred(wide: &[i16]) {
    use transcoder::codec::dred::{Redundancy, state_sizes};
    let [encoder_size, decoder_size, redundancy_size] = state_sizes();
    println!(
        "RESULT dred_memory encoder={encoder_size} decoder={decoder_size} redundancy={redundancy_size} octets"
    );
    for (duration, bitrate) in [(0, 32_000), (100, 32_000), (200, 40_000), (500, 48_000)] {
        let (cost, packets) = encode(16_000, wide, || {
            let mut encoder = encoder(16_000, 5, bitrate, 10, false);
            encoder.set_dred(duration).unwrap();
            encoder
        });
        let mut redundancy = Redundancy::new(8_000).unwrap();
        let mut decoder = Decoder::new(8_000).unwrap();
        let mut out = [0; 160];
        let mut reaches = Vec::new();
        let spoken = measure(|note| {
            reaches.clear();
            for (n, packet) in packets.iter().enumerate() {
                let start = Instant::now();
                reaches.push(redundancy.parse(packet, 480).unwrap());
                decoder.decode_dred(&redundancy, 160, &mut out).unwrap();
                note(n, start.elapsed().as_nanos() as f64 / 1_000.0);
                decoder.decode(packet, &mut out).unwrap();
            }
        });
        println!(
            "RESULT dred duration_ms={duration} bitrate={bitrate} encode_talk_us={:.1} encode_all_us={:.1} parse_and_speak_us={:.1} kbit_s={:.1}",
            cost.talk_us,
            cost.all_us,
            spoken.talk_us,
            rate_of(&packets)
        );
    }
}

fn main() {
    println!(
        "{:>6} {:>3} {:>4} {:>10} {:>10} {:>10} {:>8}",
        "Hz", "cx", "fec", "enc talk", "enc all", "dec talk", "kbit/s"
    );
    for rate in [8_000, 16_000] {
        let pcm = conversation(rate as usize);
        for complexity in [0, 3, 5, 10] {
            for fec in [false, true] {
                let (bitrate, loss) = if fec { (FEC_BITRATE, 10) } else { (24_000, 0) };
                let (cost, packets) = encode(rate, &pcm, || encoder(rate, complexity, bitrate, loss, fec));
                let decoded = decode(&packets, 8_000);
                let kbit_s = rate_of(&packets);
                println!(
                    "{rate:>6} {complexity:>3} {fec:>5} {:>7.1} us {:>7.1} us {:>7.1} us {kbit_s:>8.1}",
                    cost.talk_us, cost.all_us, decoded.talk_us
                );
                println!(
                    "RESULT opus_cost rate={rate} complexity={complexity} fec={fec} encode_talk_us={:.1} encode_all_us={:.1} decode_talk_us={:.1} decode_all_us={:.1} kbit_s={kbit_s:.1}",
                    cost.talk_us, cost.all_us, decoded.talk_us, decoded.all_us
                );
            }
        }
    }
    #[cfg(feature = "dred")]
    dred(&conversation(16_000));
}
