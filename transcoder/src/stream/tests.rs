// Tests need some first moment; everything after it is virtual.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, dead_code, unreachable_pub)]
//! Whole receivers in virtual time: a sender whose clock may be off, a path whose delay changes, a tick
//! every 20 ms, and what was heard in the end.

#[path = "../../tests/common/signal.rs"]
mod signal;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::coding::Coding;
use super::opus::OpusReceiver;
use super::sampled::SampledReceiver;
use crate::codec::g711::Law;
use crate::codec::g722;
use crate::codec::opus::{Encoder, EncoderConfig, MAX_PACKET};
use crate::leg::rtp::Received;
use crate::leg::{Buffers, CopyPlaces, LegPacket, PayloadKind};
use crate::order::JitterCounters;
use crate::rtp::{HEADER_LEN, RtpPacket, RtpSender};
use crate::seed::Seeded;
use signal::{correlation, rms, speech, tone, tone_share};

/// What is between a sender and a receiver under test.
enum Receiver {
    G711(Box<SampledReceiver>),
    G722(Box<SampledReceiver>, Box<g722::Encoder>),
    Opus(Box<OpusReceiver>, Box<Encoder>, u32),
}

impl Receiver {
    fn g711() -> Self {
        Receiver::G711(Box::new(SampledReceiver::new(8_000, &mut Seeded::new(1))))
    }

    fn g722() -> Self {
        let mut receiver = SampledReceiver::new(16_000, &mut Seeded::new(1));
        receiver.set_coding(Coding::G722);
        Receiver::G722(Box::new(receiver), Box::default())
    }

    fn opus(rate: u32) -> Self {
        let config = EncoderConfig { bitrate: 32_000, complexity: 0, ..EncoderConfig::for_rate(rate) };
        let receiver = OpusReceiver::new(rate, &mut Seeded::new(1)).unwrap();
        Receiver::Opus(Box::new(receiver), Box::new(Encoder::new(&config).unwrap()), rate)
    }

    fn is_g711(&self) -> bool {
        matches!(self, Receiver::G711(_))
    }

    fn rate(&self) -> u32 {
        match self {
            Receiver::G711(_) => 8_000,
            Receiver::G722(..) => 16_000,
            Receiver::Opus(_, _, rate) => *rate,
        }
    }

    fn encode(&mut self, n: u64, pcm: &[i16]) -> Vec<u8> {
        match self {
            Receiver::G711(_) => {
                let mut packet = vec![0; HEADER_LEN + pcm.len()];
                Law::A.encode_into(pcm, &mut packet[HEADER_LEN..]);
                let mut sender = RtpSender::new(3);
                let (time, length) = (n * pcm.len() as u64, pcm.len());
                sender.write_header(Instant::now(), 8, n == 0, time, length, &mut packet).unwrap();
                packet[2..4].copy_from_slice(&(n as u16).to_be_bytes());
                packet
            }
            Receiver::G722(_, encoder) => {
                let octets = pcm.len() / 2;
                let mut packet = vec![0; HEADER_LEN + octets];
                encoder.encode(pcm, &mut packet[HEADER_LEN..]);
                let mut sender = RtpSender::new(3);
                let time = n * octets as u64;
                sender.write_header(Instant::now(), 9, n == 0, time, octets, &mut packet).unwrap();
                packet[2..4].copy_from_slice(&(n as u16).to_be_bytes());
                packet
            }
            Receiver::Opus(_, encoder, _) => {
                let mut packet = vec![0; MAX_PACKET];
                let length = encoder.encode(pcm, &mut packet).unwrap();
                packet.truncate(length);
                packet
            }
        }
    }

    fn receive(&mut self, now: Instant, n: u64, packet: &[u8]) {
        match self {
            Receiver::G711(receiver) => {
                receiver.receive(now, Received::Audio(RtpPacket::parse(packet).unwrap(), Law::A));
            }
            Receiver::G722(receiver, _) => {
                receiver.receive(now, Received::G722(RtpPacket::parse(packet).unwrap()));
            }
            Receiver::Opus(receiver, ..) => {
                let mut buffers = Buffers::new(1_500);
                let filled =
                    buffers.fill(packet, |bytes| Ok::<_, ()>((0..bytes.len().min(packet.len()), ())));
                let (payload, ()) = filled.unwrap().unwrap();
                let kind = PayloadKind::Audio;
                let (sequence, timestamp) = (n as u16, n as u32 * 960);
                receiver.receive(
                    now,
                    &LegPacket {
                        kind,
                        sequence,
                        timestamp,
                        marker: n == 0,
                        ssrc: 7,
                        payload,
                        copies: CopyPlaces::default(),
                    },
                );
            }
        }
    }

    fn read(&mut self, tick: Instant, out: &mut [i16]) {
        match self {
            Receiver::G711(receiver) | Receiver::G722(receiver, _) => receiver.read(tick, out),
            Receiver::Opus(receiver, ..) => receiver.read(tick, out),
        };
    }

    fn set_voiceband(&mut self, on: bool) {
        match self {
            Receiver::G711(receiver) | Receiver::G722(receiver, _) => receiver.set_voiceband(on),
            Receiver::Opus(receiver, ..) => receiver.set_voiceband(on),
        }
    }

    fn counters(&self) -> (JitterCounters, u64) {
        match self {
            Receiver::G711(receiver) | Receiver::G722(receiver, _) => {
                (receiver.jitter().counters(), receiver.concealed())
            }
            Receiver::Opus(receiver, ..) => (receiver.jitter().counters(), receiver.concealed()),
        }
    }

    fn recovered(&self) -> u64 {
        if let Receiver::Opus(receiver, ..) = self { receiver.recovered() } else { 0 }
    }

    /// Samples taken out and put in.
    fn scaled(&self) -> (u64, u64) {
        match self {
            Receiver::G711(receiver) | Receiver::G722(receiver, _) => receiver.scaled(),
            Receiver::Opus(receiver, ..) => receiver.scaled(),
        }
    }
}

struct Line {
    receiver: Receiver,
    source: Box<dyn FnMut() -> i16>,
    /// How fast the sender's clock goes, 1 for as fast as ours.
    speed: f64,
    /// Delay in seconds of what is sent at a second; `None` loses it.
    path: Box<dyn Fn(f64) -> Option<f64>>,
    epoch: Instant,
    next: u64,
    waiting: BTreeMap<(u64, u64), Vec<u8>>,
    ticks: u64,
    /// Frames made up so far, at each tick.
    concealed: Vec<u64>,
    sent: Vec<i16>,
    heard: Vec<i16>,
}

impl Line {
    fn new(receiver: Receiver, source: Box<dyn FnMut() -> i16>) -> Self {
        Self {
            receiver,
            source,
            speed: 1.0,
            path: Box::new(|_| Some(0.02)),
            epoch: Instant::now(),
            next: 0,
            waiting: BTreeMap::new(),
            ticks: 0,
            concealed: Vec::new(),
            sent: Vec::new(),
            heard: Vec::new(),
        }
    }

    fn run(&mut self, seconds: f64) {
        let frame = self.receiver.rate() as usize / 50;
        for _ in 0..(seconds * 50.0).round() as u64 {
            // Ticks fall 7 ms after the packets of a sender in step.
            let at = self.ticks as f64 * 0.02 + 0.007;
            loop {
                // A packet leaves when its last sample is there.
                let leaves = (self.next + 1) as f64 * 0.02 / self.speed;
                if leaves > at {
                    break;
                }
                let pcm: Vec<i16> = (0..frame).map(|_| (self.source)()).collect();
                self.sent.extend(&pcm);
                let packet = self.receiver.encode(self.next, &pcm);
                if let Some(delay) = (self.path)(leaves) {
                    self.waiting.insert((((leaves + delay) * 1e6) as u64, self.next), packet);
                }
                self.next += 1;
            }
            let due = self.waiting.split_off(&((at * 1e6) as u64, 0));
            for ((arrives, n), packet) in std::mem::replace(&mut self.waiting, due) {
                self.receiver.receive(self.epoch + Duration::from_micros(arrives), n, &packet);
            }
            let mut out = vec![0; frame];
            self.receiver.read(self.epoch + Duration::from_secs_f64(at), &mut out);
            self.heard.extend(&out);
            self.concealed.push(self.receiver.counters().1);
            self.ticks += 1;
        }
    }

    /// Delay in milliseconds from the sender's microphone, by the sound itself, over a second.
    fn delay_ms(&self, at: f64) -> f64 {
        let rate = f64::from(self.receiver.rate());
        let sent = &self.sent[(at * rate) as usize..((at + 0.6) * rate) as usize];
        let from = (at * rate) as usize;
        let (likeness, lag) = correlation(sent, &self.heard[from..], (0.4 * rate) as usize);
        assert!(likeness > 0.8, "at {at} s the sound is not found: {likeness}");
        lag as f64 * 1_000.0 / rate
    }

    /// Windows of 40 ms, by their second, in which less than `share` of the sound is the tone.
    fn broken(&self, frequency: f64, share: f64) -> Vec<f64> {
        let rate = f64::from(self.receiver.rate());
        let length = (rate * 0.04) as usize;
        let windows = self.heard.chunks_exact(length).enumerate();
        windows
            .filter(|(_, window)| tone_share(window, frequency, rate) < share || rms(window) < 4_000.0)
            .map(|(n, _)| n as f64 * 0.04)
            .collect()
    }
}

fn receivers() -> [(Receiver, &'static str); 4] {
    [
        (Receiver::g711(), "G.711"),
        (Receiver::g722(), "G.722"),
        (Receiver::opus(8_000), "Opus"),
        (Receiver::opus(48_000), "Opus at 48 kHz"),
    ]
}

/// Up by 80 ms at 5 s, down again at 15 s.
fn step(at: f64) -> Option<f64> {
    Some(if (5.0..15.0).contains(&at) { 0.1 } else { 0.02 })
}

#[test]
fn f05_a_path_that_gets_slower_and_faster_by_80_ms_loses_nothing_that_came_and_a_tone_stays_a_tone() {
    for (receiver, name) in receivers() {
        let rate = f64::from(receiver.rate());
        let mut line = Line::new(receiver, Box::new(tone(440.0, rate)));
        line.path = Box::new(step);
        line.run(25.0);
        let (c, concealed) = line.receiver.counters();
        assert_eq!((c.lost, c.late, c.discarded, c.restarts), (0, 0, 0, 0), "{name}: {c:?}");
        // What had not come when it was due was made up at the step, and nowhere else.
        assert!((1..=4).contains(&concealed), "{name}: {concealed}");
        assert_eq!(line.concealed[4 * 50], 0, "{name}");
        assert_eq!(line.concealed[6 * 50], concealed, "{name}");
        let (shortened, _) = line.receiver.scaled();
        assert!(shortened as f64 > 0.06 * rate, "{name}: {shortened}");
        // The gap itself, and what libopus takes to forget its own concealment.
        let broken = line.broken(440.0, 0.98);
        assert!(broken.iter().all(|&at| at < 0.4 || (5.0..5.6).contains(&at)), "{name}: {broken:?}");
    }
}

#[test]
fn f05_the_delay_is_back_a_few_seconds_after_the_path_is() {
    for receiver in [Receiver::g711(), Receiver::opus(8_000)] {
        let mut line = Line::new(receiver, Box::new(speech()));
        line.path = Box::new(step);
        line.run(25.0);
        let (before, during, after) = (line.delay_ms(4.0), line.delay_ms(14.0), line.delay_ms(20.0));
        assert!((before + 75.0..before + 105.0).contains(&during), "{before} {during} {after}");
        assert!((after - before).abs() <= 10.0, "{before} {during} {after}");
    }
}

/// A tone that is loud in every second second.
fn beeps() -> Box<dyn FnMut() -> i16> {
    let mut tone = tone(440.0, 8_000.0);
    let mut n = 0u64;
    Box::new(move || {
        n += 1;
        if n / 8_000 % 2 == 1 { tone() } else { tone() / 4 }
    })
}

/// The samples at which a beep begins.
fn onsets(samples: &[i16]) -> Vec<usize> {
    let mut quiet = 0;
    let mut onsets = Vec::new();
    for (n, sample) in samples.iter().enumerate() {
        if sample.unsigned_abs() > 4_000 {
            if quiet > 6_000 {
                onsets.push(n);
            }
            quiet = 0;
        } else {
            quiet += 1;
        }
    }
    onsets
}

#[test]
fn f05_clocks_apart_make_no_gap_and_no_backlog() {
    for (speed, seconds, most) in
        [(1.0002, 240.0, 110.0), (0.9998, 240.0, 110.0), (1.02, 120.0, 150.0), (0.98, 120.0, 150.0)]
    {
        for receiver in [Receiver::g711(), Receiver::opus(8_000)] {
            let name = if receiver.is_g711() { "G.711" } else { "Opus" };
            let mut line = Line::new(receiver, beeps());
            line.speed = speed;
            line.run(seconds);
            let (c, concealed) = line.receiver.counters();
            let label = format!("{name}, speed {speed}");
            assert_eq!((c.lost, c.late, c.discarded, c.restarts), (0, 0, 0, 0), "{label}: {c:?}");
            assert_eq!(concealed, 0, "{label}");
            let (sent, heard) = (onsets(&line.sent), onsets(&line.heard));
            assert!(
                heard.len() + 1 >= sent.len() && sent.len() as f64 > seconds / 2.0 - 6.0,
                "{label}: {}",
                heard.len()
            );
            for (sent, heard) in sent.iter().zip(&heard) {
                let delay = (*heard as f64 - *sent as f64 / speed) / 8.0;
                assert!((20.0..most).contains(&delay), "{label}: {delay} ms at {} s", heard / 8_000);
            }
            // The tone is the one that was sent, in every window that is not where its level changes.
            let windows = line.heard.chunks_exact(320).enumerate().skip(20);
            let broken = windows.filter(|(_, window)| tone_share(window, 440.0, 8_000.0) < 0.97).count();
            assert!(broken <= 2 * sent.len() + 2, "{label}: {broken} windows");
            let (shortened, stretched) = line.receiver.scaled();
            let apart = (seconds * (speed - 1.0) * 8_000.0) as i64;
            let scaled = shortened as i64 - stretched as i64;
            assert!((scaled - apart).abs() < 8 * 100, "{label}: {shortened} {stretched}, {apart} apart");
        }
    }
}

/// Sound without a pitch is shortened too, before a frame would have to be dropped.
#[test]
fn f05_noise_is_played_on_clocks_apart_without_a_frame_lost() {
    for speed in [1.02, 0.98] {
        for receiver in [Receiver::g711(), Receiver::opus(8_000)] {
            let mut random = Seeded::new(11);
            let noise = move || (random.next_u64() >> 51) as i16 - 4_096;
            let mut line = Line::new(receiver, Box::new(noise));
            line.speed = speed;
            line.run(60.0);
            let (c, concealed) = line.receiver.counters();
            assert_eq!((c.lost, c.late, c.discarded, concealed), (0, 0, 0, 0), "speed {speed}: {c:?}");
            let level = rms(&line.heard[8_000..]);
            let quietest = line.heard[8_000..].chunks_exact(160).map(rms).fold(f64::MAX, f64::min);
            assert!(quietest > 0.5 * level, "speed {speed}: a frame at {quietest}, all at {level}");
        }
    }
}

/// ITU-T V.152: a modem hears every sample once and in its time; what is missing is silence.
#[test]
fn f15_a_fixed_delay_changes_nothing_and_makes_nothing_up() {
    for receiver in [Receiver::g711(), Receiver::opus(8_000)] {
        let is_g711 = receiver.is_g711();
        let mut line = Line::new(receiver, Box::new(tone(1_300.0, 8_000.0)));
        let mut random = Seeded::new(21);
        let jitter: Vec<f64> = (0..4_000).map(|_| random.below(60) as f64 / 1_000.0).collect();
        // Jitter all the time, and two packets lost at 20 s.
        line.path = Box::new(move |at| {
            let lost = (20.0..20.039).contains(&at);
            (!lost).then(|| 0.02 + jitter[(at * 50.0) as usize % 4_000])
        });
        line.run(3.0);
        line.receiver.set_voiceband(true);
        line.run(1.0);
        let (before, scaled) = (line.receiver.counters(), line.receiver.scaled());
        line.run(56.0);
        let (c, concealed) = line.receiver.counters();
        assert_eq!(line.receiver.scaled(), scaled, "{:?}", line.receiver.scaled());
        assert_eq!(
            (c.lost, c.late, c.discarded, concealed - before.1),
            (2, before.0.late, before.0.discarded, 0)
        );
        // Fifty-five seconds of one tone with one gap of silence in it: 40 ms, where the packets were lost.
        let after = &line.heard[4 * 8_000..];
        let broken: Vec<usize> = after
            .chunks_exact(160)
            .enumerate()
            .filter(|(_, window)| tone_share(window, 1_300.0, 8_000.0) < 0.98)
            .map(|(n, _)| n)
            .collect();
        let silent = after.iter().skip(15 * 8_000).take(3 * 8_000).filter(|&&sample| sample == 0).count();
        if is_g711 {
            assert!(broken.len() <= 3 && broken.iter().all(|n| (800..830).contains(n)), "{broken:?}");
            assert!((320..340).contains(&silent), "{silent} samples of silence");
            // The phase goes on: the tone of the last second is in step with that before the gap.
            let (likeness, lag) =
                correlation(&after[14 * 8_000..15 * 8_000], &after[50 * 8_000..52 * 8_000], 79);
            assert!(likeness > 0.999 && lag == 0, "{likeness} at {lag}");
        } else {
            assert!(silent >= 300 || line.receiver.recovered() > 0, "{silent} samples of silence");
        }
        // It follows the network again.
        line.receiver.set_voiceband(false);
        line.path = Box::new(|_| Some(0.02));
        line.run(20.0);
        assert!(line.receiver.scaled().0 > scaled.0 + 400, "{:?}", line.receiver.scaled());
    }
}

/// What is above 4 kHz is shortened, stretched and made up as well: a tone there is one piece in the end.
#[test]
fn f05_wide_band_stays_wide_as_the_delay_changes_and_packets_are_lost() {
    let mut line = Line::new(Receiver::g722(), Box::new(tone(5_000.0, 16_000.0)));
    line.path = Box::new(|at| {
        let lost = (at * 50.0).round() as u64 % 50 == 17;
        step(at).filter(|_| !lost)
    });
    line.run(25.0);
    let (c, concealed) = line.receiver.counters();
    assert_eq!((c.late, c.discarded, c.restarts), (0, 0, 0), "{c:?}");
    assert_eq!(c.lost, 25, "{c:?}");
    assert!((25..=30).contains(&concealed), "{concealed}");
    assert!(line.receiver.scaled().0 > 900, "{:?}", line.receiver.scaled());
    let broken = line.broken(5_000.0, 0.9);
    assert!(broken.iter().all(|&at| at < 0.4 || (5.0..5.6).contains(&at)), "{broken:?}");
}

/// RFC 3264 6.1: what was agreed on beside the first codec may come at any time, and is heard at the rate of that.
#[test]
fn either_codec_is_heard_at_the_rate_of_either() {
    for rate in [8_000, 16_000] {
        let mut receiver = SampledReceiver::new(rate, &mut Seeded::new(1));
        receiver.expect_g722();
        let epoch = Instant::now();
        let (mut law, mut wide) = (tone(1_000.0, 8_000.0), tone(1_000.0, 16_000.0));
        let mut encoder = g722::Encoder::new();
        let (mut heard, mut old) = (Vec::new(), None::<Vec<u8>>);
        for n in 0..500u64 {
            let is_g722 = n / 100 % 2 == 1;
            let mut packet = vec![0; HEADER_LEN + 160];
            if is_g722 {
                let pcm: Vec<i16> = (0..320).map(|_| wide()).collect();
                encoder.encode(&pcm, &mut packet[HEADER_LEN..]);
            } else {
                let pcm: Vec<i16> = (0..160).map(|_| law()).collect();
                Law::Mu.encode_into(&pcm, &mut packet[HEADER_LEN..]);
            }
            let mut sender = RtpSender::new(3);
            let number = if is_g722 { 9 } else { 0 };
            sender.write_header(epoch, number, n == 0, n * 160, 160, &mut packet).unwrap();
            packet[2..4].copy_from_slice(&(n as u16).to_be_bytes());
            let at = epoch + Duration::from_millis(20 * n);
            let mut receive = |packet: &[u8]| {
                let packet = RtpPacket::parse(packet).unwrap();
                let received = if packet.payload_type() == 9 {
                    Received::G722(packet)
                } else {
                    Received::Audio(packet, Law::Mu)
                };
                receiver.receive(at, received);
            };
            receive(&packet);
            // One of the codec before that comes late does not bring it back.
            if n % 100 == 1
                && let Some(old) = old.as_ref()
            {
                receive(old);
            }
            old = (n % 100 == 99).then(|| packet.clone()).or(old);
            let mut out = vec![0; rate as usize / 50];
            receiver.read(at + Duration::from_millis(7), &mut out);
            heard.extend(out);
        }
        assert_eq!(receiver.refused(), 4, "at {rate} Hz");
        let second = rate as usize;
        for part in heard.chunks_exact(2 * second) {
            let settled = &part[second / 2..];
            let share = tone_share(&settled[..second], 1_000.0, f64::from(rate));
            assert!(share > 0.98 && rms(&settled[..second]) > 5_000.0, "at {rate} Hz: {share}");
        }
    }
}
