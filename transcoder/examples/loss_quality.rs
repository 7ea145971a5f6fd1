//! Sends recorded speech through Opus and a network that loses packets, and writes down what is heard.
//!
//! `loss_quality SPEECH.wav FOLDER [NAME=VALUE ...]` reads 8 kHz, mono, 16 bit; encodes, loses, orders and decodes
//! it as a call does, in time that passes on paper; and writes one file per pattern of loss, to be judged by PESQ:
//! `clean.wav`, `random5.wav`, `random10.wav`, `bursts10.wav` (three packets at a time). What may be named:
//!
//! - `seed=1`: of the losses;
//! - `bitrate=24000`, `complexity=5`: of the encoder;
//! - `fec=on`, `expect=reported`: in-band FEC, and the loss in per cent that it is made for: what the pattern
//!   loses, put through the policy of the daemon, or a number;
//! - `copies=none`: frames that each packet carries once more (RFC 2198): `reported`, as the policy of the daemon has
//!   it for what the pattern loses, without FEC then; or how far they lie back, such as `1+2+3`;
//! - `delay=30`: least that the jitter buffer holds a packet back, in ms;
//! - `rate=8000`: sampling rate that is coded; 16000 is resampled on the way in;
//! - `decoder=0`: complexity of the decoder;
//! - `dred=0`: deep redundancy in ms, where it is built in (`--features dred`), from 16 kHz on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use transcoder::codec::fec::{FecControl, FecPolicy};
use transcoder::codec::opus::{self, Decoder, Encoder, EncoderConfig, MAX_PACKET};
use transcoder::codec::redundancy::{LossReport, RedundancyControl};
use transcoder::codec::resample::Resampler;
use transcoder::order::{Arrival, Frame, FrameCopy, JitterBuffer, JitterConfig, TimeScaler};

/// Samples of a frame of 20 ms at 8 kHz.
const FRAME: usize = 160;
const TICK: Duration = Duration::from_millis(20);
/// What each packet is on its way at least, and by how much more it may be.
const TRANSIT: Duration = Duration::from_millis(40);
const JITTER_MS: u64 = 4;

#[derive(Clone, Copy, Debug)]
enum Pattern {
    Clean,
    Random(u64),
    Bursts { percent: u64, length: u64 },
}

impl Pattern {
    fn name(self) -> String {
        match self {
            Pattern::Clean => "clean".into(),
            Pattern::Random(percent) => format!("random{percent}"),
            Pattern::Bursts { percent, .. } => format!("bursts{percent}"),
        }
    }

    fn percent(self) -> u64 {
        match self {
            Pattern::Clean => 0,
            Pattern::Random(percent) | Pattern::Bursts { percent, .. } => percent,
        }
    }

    /// Draws which of so many packets are lost.
    fn losses(self, packets: usize, random: &mut Random) -> Vec<bool> {
        let mut lost = vec![false; packets];
        match self {
            Pattern::Clean => {}
            Pattern::Random(percent) => {
                lost.iter_mut().for_each(|lost| *lost = random.below(10_000) < percent * 100);
            }
            Pattern::Bursts { percent, length } => {
                // So many packets between two bursts on average, at least one.
                let between = length * (100 - percent) / percent;
                let mut at = random.below(2 * between) as usize;
                while at < packets {
                    let end = (at + length as usize).min(packets);
                    lost[at..end].fill(true);
                    at = end + 1 + random.below(2 * between - 1) as usize;
                }
            }
        }
        lost
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

struct Settings {
    seed: u64,
    bitrate: u32,
    complexity: u8,
    fec: bool,
    expect: Option<u8>,
    /// Frames back; `None`: as reported.
    copies: Option<Vec<usize>>,
    delay: Duration,
    rate: u32,
    decoder: u8,
    dred: u32,
}

impl Settings {
    fn read(arguments: &[String]) -> Self {
        let mut named: HashMap<&str, &str> =
            arguments.iter().map(|argument| argument.split_once('=').expect("NAME=VALUE")).collect();
        let mut take = |name, usual| named.remove(name).unwrap_or(usual);
        let settings = Self {
            seed: take("seed", "1").parse().unwrap(),
            bitrate: take("bitrate", "24000").parse().unwrap(),
            complexity: take("complexity", "5").parse().unwrap(),
            fec: take("fec", "on") == "on",
            expect: take("expect", "reported").parse().ok(),
            copies: match take("copies", "none") {
                "reported" => None,
                "none" => Some(Vec::new()),
                list => Some(list.split('+').map(|back| back.parse().unwrap()).collect()),
            },
            delay: Duration::from_millis(take("delay", "30").parse().unwrap()),
            rate: take("rate", "8000").parse().unwrap(),
            decoder: take("decoder", "0").parse().unwrap(),
            dred: take("dred", "0").parse().unwrap(),
        };
        assert!(named.is_empty(), "not known: {named:?}");
        settings
    }

    /// How far back the frames lie that a packet carries once more under a pattern.
    fn copies(&self, pattern: Pattern) -> Vec<usize> {
        self.copies.clone().unwrap_or_else(|| {
            let report = LossReport { percent: pattern.percent() as f32, burst_density: None };
            let depth = RedundancyControl::default().report(report);
            (1..=usize::from(depth)).collect()
        })
    }

    /// The loss that FEC is made for under a pattern.
    fn expected(&self, pattern: Pattern) -> u8 {
        let mended = self.copies.is_none() && !self.copies(pattern).is_empty();
        if mended || !self.fec && self.dred == 0 {
            return 0;
        }
        self.expect.unwrap_or_else(|| {
            let mut control = FecControl::new(FecPolicy::ByLoss);
            control.report(pattern.percent() as f32);
            control.percent()
        })
    }
}

#[derive(Default)]
struct Heard {
    samples: Vec<i16>,
    lost: u64,
    recovered: u64,
    spoken: u64,
    concealed: u64,
    copied: u64,
    delay: Duration,
}

/// Deep redundancy, where it is built in.
#[cfg(feature = "dred")]
mod deep {
    use transcoder::codec::dred::Redundancy;
    use transcoder::codec::opus::{Decoder, Encoder};
    use transcoder::order::JitterBuffer;

    pub(super) fn set(encoder: &mut Encoder, duration_ms: u32) {
        encoder.set_dred(duration_ms).unwrap();
    }

    pub(super) struct Past(Redundancy);

    impl Past {
        pub(super) fn new() -> Self {
            Self(Redundancy::new(8_000).unwrap())
        }

        /// Speaks a lost frame again from what the next packet that waits says of it, if it does.
        pub(super) fn speak(
            &mut self,
            jitter: &JitterBuffer,
            decoder: &mut Decoder,
            frame: &mut [i16],
        ) -> bool {
            let Some((gap, next)) = jitter.ahead() else { return false };
            let before = gap as usize / 6 + frame.len();
            if self.0.parse(next, before).unwrap() < before {
                return false;
            }
            decoder.decode_dred(&self.0, before, frame).unwrap();
            true
        }
    }
}

/// Without it.
#[cfg(not(feature = "dred"))]
mod deep {
    use transcoder::codec::opus::{Decoder, Encoder};
    use transcoder::order::JitterBuffer;

    pub(super) fn set(_: &mut Encoder, duration_ms: u32) {
        assert_eq!(duration_ms, 0, "built without the feature `dred`");
    }

    pub(super) struct Past;

    impl Past {
        pub(super) fn new() -> Self {
            Self
        }

        pub(super) fn speak(&mut self, _: &JitterBuffer, _: &mut Decoder, _: &mut [i16]) -> bool {
            false
        }
    }
}

/// Encodes all of the speech.
fn encode(settings: &Settings, expected: u8, speech: &[i16]) -> Vec<Vec<u8>> {
    let config = EncoderConfig {
        bitrate: settings.bitrate,
        complexity: settings.complexity,
        fec: settings.fec && expected > 0,
        expected_loss_percent: expected,
        ..EncoderConfig::for_rate(settings.rate)
    };
    let mut encoder = Encoder::new(&config).unwrap();
    deep::set(&mut encoder, settings.dred);
    let mut resampler = Resampler::new(8_000, settings.rate).unwrap();
    let mut pcm = vec![0; settings.rate as usize / 50];
    let mut packet = [0; MAX_PACKET];
    let frames = speech.chunks_exact(FRAME);
    frames
        .map(|frame| {
            resampler.resample(frame, &mut pcm);
            let length = encoder.encode(&pcm, &mut packet).unwrap();
            packet[..length].to_vec()
        })
        .collect()
}

/// Receives as a call does: ordered, decoded to 8 kHz on ticks of 20 ms, with FEC or concealment for what is lost.
fn receive(
    settings: &Settings,
    packets: &[Vec<u8>],
    copies: &[usize],
    lost: &[bool],
    random: &mut Random,
) -> Heard {
    let start = Instant::now();
    let config = JitterConfig { min_delay: settings.delay, ..JitterConfig::opus() };
    let mut jitter = JitterBuffer::new(config);
    let mut decoder = Decoder::new(8_000).unwrap();
    decoder.set_complexity(settings.decoder).unwrap();
    let mut redundancy = deep::Past::new();
    let mut heard = Heard { lost: lost.iter().filter(|&&lost| lost).count() as u64, ..Heard::default() };
    let arrivals: Vec<Instant> = (0..packets.len() as u32)
        .map(|n| start + n * TICK + TRANSIT + Duration::from_millis(random.below(JITTER_MS + 1)))
        .collect();
    let mut next_packet = 0;
    let mut scaler = TimeScaler::new(8_000);
    let mut pcm = vec![0; 6 * FRAME + scaler.most_growth()];
    let mut waiting: Vec<i16> = Vec::new();
    for tick in 0..packets.len() as u32 + 10 {
        // Half a tick beside the packets, as the ticks of a call are at no certain place.
        let now = start + tick * TICK + TICK / 2;
        while arrivals.get(next_packet).is_some_and(|&arrival| arrival <= now) {
            let (n, payload) = (next_packet, &packets[next_packet]);
            next_packet += 1;
            if lost[n] {
                continue;
            }
            let arrival = Arrival {
                ssrc: 1,
                sequence: n as u16,
                timestamp: n as u32 * 960,
                marker: n == 0,
                duration: opus::packet_duration(payload).unwrap(),
                silence: opus::is_dtx(payload),
            };
            jitter.insert(arrivals[n], arrival, payload);
            for back in copies.iter().rev().filter(|&&back| back <= n) {
                let payload = &packets[n - back][..];
                let duration = opus::packet_duration(payload).unwrap();
                let (offset, silence) = (*back as u32 * 960, opus::is_dtx(payload));
                jitter.insert_copy(arrivals[n], &arrival, FrameCopy { offset, duration, silence, payload });
            }
        }
        while waiting.len() < FRAME {
            let mut length = FRAME;
            let frame = &mut pcm[..FRAME];
            match jitter.pop(now, waiting.len() as u32 * 6) {
                Frame::Packet { payload, pace, .. } => {
                    decoder.decode(payload, frame).unwrap();
                    length = scaler.apply(&mut pcm, FRAME, pace);
                }
                Frame::Lost { next, .. } => match next.filter(|next| opus::has_fec(next)) {
                    Some(next) => {
                        heard.recovered += 1;
                        decoder.decode_fec(next, frame).unwrap();
                    }
                    None => {
                        if redundancy.speak(&jitter, &mut decoder, frame) {
                            heard.spoken += 1;
                        } else {
                            heard.concealed += 1;
                            decoder.conceal(frame).unwrap();
                        }
                    }
                },
                Frame::Silence { .. } | Frame::Empty => frame.fill(0),
            }
            waiting.extend_from_slice(&pcm[..length]);
        }
        heard.samples.extend(waiting.drain(..FRAME));
    }
    heard.copied = jitter.counters().recovered;
    heard.delay = jitter.target_delay();
    heard
}

fn read(path: &Path) -> Vec<i16> {
    let mut reader = hound::WavReader::open(path).expect("a WAV file");
    let spec = reader.spec();
    assert_eq!(
        (spec.sample_rate, spec.channels, spec.bits_per_sample),
        (8_000, 1, 16),
        "8 kHz, mono, 16 bit"
    );
    reader.samples().collect::<Result<_, _>>().unwrap()
}

fn write(path: &Path, samples: &[i16]) {
    let sample_format = hound::SampleFormat::Int;
    let spec = hound::WavSpec { channels: 1, sample_rate: 8_000, bits_per_sample: 16, sample_format };
    let mut writer = hound::WavWriter::create(path, spec).unwrap();
    samples.iter().for_each(|&sample| writer.write_sample(sample).unwrap());
    writer.finalize().unwrap();
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [wav, folder, rest @ ..] = &arguments[..] else {
        panic!("loss_quality SPEECH.wav FOLDER [NAME=VALUE ...]");
    };
    let settings = Settings::read(rest);
    let speech = read(Path::new(wav));
    std::fs::create_dir_all(folder).unwrap();
    let bursts = Pattern::Bursts { percent: 10, length: 3 };
    for pattern in [Pattern::Clean, Pattern::Random(5), Pattern::Random(10), bursts] {
        let mut random = Random(settings.seed);
        let expected = settings.expected(pattern);
        let packets = encode(&settings, expected, &speech);
        let lost = pattern.losses(packets.len(), &mut random);
        let copies = settings.copies(pattern);
        let heard = receive(&settings, &packets, &copies, &lost, &mut random);
        write(&Path::new(folder).join(format!("{}.wav", pattern.name())), &heard.samples);
        let sizes = |n: usize| copies.iter().filter(move |&&back| back <= n).map(move |back| n - back);
        let copied: usize = (0..packets.len()).flat_map(sizes).map(|n| 4 + packets[n].len()).sum();
        let headers = if copies.is_empty() { 0 } else { packets.len() };
        let octets = packets.iter().map(Vec::len).sum::<usize>() + copied + headers;
        println!(
            "RESULT loss_quality pattern={} packets={} lost={} recovered={} spoken={} copied={} concealed={} delay_ms={} kbit_s={:.1} expected={expected}",
            pattern.name(),
            packets.len(),
            heard.lost,
            heard.recovered,
            heard.spoken,
            heard.copied,
            heard.concealed,
            heard.delay.as_millis(),
            octets as f64 * 8.0 / (packets.len() as f64 * 20.0),
        );
    }
}
