//! The floor: libopus alone, as it comes, with the same speech and settings, one encoder and one decoder to a call.

use std::fs;

use anyhow::{Context as _, Result};
use transcoder::codec::g711::Law;
use transcoder::codec::opus::{Bandwidth, Decoder, Encoder, EncoderConfig, MAX_PACKET, use_own_loops};

use crate::speech::Speech;

/// Samples of 20 ms at 8 kHz.
const FRAME: usize = 160;
/// Packets a second.
const RATE: usize = 50;

/// Encodes and decodes for `calls` calls, packet by packet in turns as a daemon does, and returns how many such calls
/// one core carries: as libopus comes, or with the loops that stand in for its own in the daemon.
pub(crate) fn calls_per_core(
    speech: &Speech,
    calls: usize,
    seconds: u64,
    complexity: u8,
    own_loops: bool,
) -> Result<f64> {
    let config = EncoderConfig {
        sample_rate: 8_000,
        bitrate: 16_000,
        complexity,
        fec: false,
        expected_loss_percent: 0,
        dtx: false,
        max_bandwidth: Bandwidth::Narrowband,
    };
    let codecs = (0..calls).map(|_| anyhow::Ok((Encoder::new(&config)?, Decoder::new(8_000)?)));
    let mut codecs = codecs.collect::<Result<Vec<_>>>()?;
    let frames: Vec<[i16; FRAME]> = speech
        .alaw
        .iter()
        .map(|codes| {
            let mut pcm = [0; FRAME];
            Law::A.decode_into(codes, &mut pcm);
            pcm
        })
        .collect();
    let packets = seconds as usize * RATE;
    use_own_loops(own_loops);
    let (mut packet, mut pcm) = ([0; MAX_PACKET], [0; FRAME * 6]);
    let began = thread_cpu_seconds()?;
    for turn in 0..packets {
        for (index, (encoder, decoder)) in codecs.iter_mut().enumerate() {
            // Calls are not in step with each other.
            let at = turn + 7 * index;
            encoder.encode(&frames[at % frames.len()], &mut packet)?;
            decoder.decode(&speech.opus[at % speech.opus.len()], &mut pcm)?;
        }
    }
    let used = thread_cpu_seconds()? - began;
    use_own_loops(true);
    Ok(calls as f64 * seconds as f64 / used)
}

fn thread_cpu_seconds() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split(' ').next().context("unknown form of schedstat")?.parse()?;
    Ok(nanoseconds / 1e9)
}
