//! Calls between two trunks of which one or both speak G.722 (RFC 3551 4.5.2), in virtual time.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use call_model::{Codec, Direction, DtmfDigit, LegMedia, MediaSecurity, Side, TelephoneEvent};
use transcoder::codec::g711::Law;
use transcoder::codec::g722::{Decoder, Encoder};
use transcoder::rtp::{HEADER_LEN, RtpPacket, RtpSender, is_rtcp};
use transcoder::{BridgeEvent, Port, Relay, RelayConfig};

#[path = "common/mod.rs"]
mod common;
use common::address;
use common::signal::{mean_tone_share, rms, tone};

const SIDES: [Side; 2] = [Side::Trunk, Side::Onward];
const REMOTES: [&str; 2] = ["192.0.2.10:4000", "192.0.2.20:5000"];

fn media(side: usize, codec: Codec, also: &[Codec]) -> LegMedia {
    let number = |codec: Codec| codec.static_payload_type().unwrap();
    LegMedia {
        codec,
        send_payload_type: number(codec),
        receive_payload_type: number(codec),
        also_receives: also.iter().map(|&codec| (number(codec), codec)).collect(),
        telephone_event: Some(TelephoneEvent {
            send_payload_type: 101,
            receive_payload_type: 101,
            clock_rate: 8_000,
        }),
        comfort_noise: false,
        packet_time_ms: 20,
        remote_rtp: address(REMOTES[side]),
        remote_rtcp: None,
        direction: Direction::SendRecv,
        security: MediaSecurity::None,
    }
}

/// A trunk: sends a tone in a codec, and hears what comes in any.
struct End {
    sends: Codec,
    source: Box<dyn FnMut() -> i16>,
    sender: RtpSender,
    encoder: Encoder,
    decoder: Decoder,
    time: u64,
    /// What was sent and what came, as it was.
    sent: Vec<Vec<u8>>,
    came: Vec<Vec<u8>>,
    heard: Vec<i16>,
    rate: f64,
}

impl End {
    fn new(seed: u64, sends: Codec, frequency: f64) -> Self {
        Self {
            sends,
            source: Box::new(tone(frequency, f64::from(sends.sample_rate()))),
            sender: RtpSender::new(seed),
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            time: 0,
            sent: Vec::new(),
            came: Vec::new(),
            heard: Vec::new(),
            rate: 0.0,
        }
    }

    fn packet(&mut self, now: Instant, octets: usize) -> Vec<u8> {
        let mut packet = vec![0; HEADER_LEN + octets];
        match Law::of(self.sends) {
            Some(law) => {
                let pcm: Vec<i16> = (0..octets).map(|_| (self.source)()).collect();
                law.encode_into(&pcm, &mut packet[HEADER_LEN..]);
            }
            None => {
                let pcm: Vec<i16> = (0..2 * octets).map(|_| (self.source)()).collect();
                self.encoder.encode(&pcm, &mut packet[HEADER_LEN..]);
            }
        }
        self.sent.push(packet[HEADER_LEN..].to_vec());
        let number = self.sends.static_payload_type().unwrap();
        self.sender.write_header(now, number, self.time == 0, self.time, octets, &mut packet).unwrap();
        self.time += octets as u64;
        packet
    }

    fn hear(&mut self, bytes: &[u8]) {
        let packet = RtpPacket::parse(bytes).unwrap();
        let payload = packet.payload();
        let mut pcm = vec![0; 2 * payload.len()];
        let (length, rate) = match packet.payload_type() {
            0 => (Law::Mu.decode_into(payload, &mut pcm), 8_000.0),
            8 => (Law::A.decode_into(payload, &mut pcm), 8_000.0),
            9 => (self.decoder.decode(payload, &mut pcm), 16_000.0),
            _ => return,
        };
        assert!(self.rate == 0.0 || self.rate == rate, "one codec comes");
        self.rate = rate;
        self.heard.extend(&pcm[..length]);
        self.came.push(payload.to_vec());
    }

    /// Share of a tone in the last second, and its level.
    fn hears(&self, frequency: f64) -> (f64, f64) {
        let end = &self.heard[self.heard.len() - self.rate as usize..];
        (mean_tone_share(end, frequency, self.rate), rms(end))
    }
}

struct Line {
    relay: Relay,
    now: Instant,
    ends: [End; 2],
    events: Vec<BridgeEvent>,
}

impl Line {
    fn new(codecs: [Codec; 2], frequencies: [f64; 2]) -> Self {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let config = RelayConfig {
            trunk_rtp: address("198.51.100.1:20000"),
            onward_rtp: address("198.51.100.1:20002"),
            media_timeout: Duration::from_secs(60),
            identity: None,
        };
        let mut relay = Relay::new(&config, 7, now);
        for side in 0..2 {
            relay.set_media(SIDES[side], &media(side, codecs[side], &[]), now).unwrap();
        }
        let ends = [0, 1].map(|side| End::new(side as u64, codecs[side], frequencies[side]));
        Self { relay, now, ends, events: Vec::new() }
    }

    fn run(&mut self, packets: usize, octets: usize) {
        for _ in 0..packets {
            for side in 0..2 {
                let packet = self.ends[side].packet(self.now, octets);
                self.pass(side, &packet);
            }
            self.now += Duration::from_micros(octets as u64 * 125);
            let ends = &mut self.ends;
            self.relay.handle_timeout(self.now, &mut |out| {
                if !is_rtcp(out.bytes) {
                    ends[usize::from(out.side == Side::Onward)].hear(out.bytes);
                }
            });
            while let Some(event) = self.relay.poll_event() {
                self.events.push(event);
            }
        }
    }

    fn pass(&mut self, side: usize, packet: &[u8]) {
        let ends = &mut self.ends;
        let source = address(REMOTES[side]);
        self.relay.handle_datagram(self.now, SIDES[side], Port::Rtp, source, packet, &mut |out| {
            assert_eq!(out.destination, address(REMOTES[1 - side]));
            ends[1 - side].hear(out.bytes);
        });
    }
}

#[test]
fn g722_on_both_sides_goes_through_untouched() {
    let mut line = Line::new([Codec::G722; 2], [5_000.0, 6_000.0]);
    line.run(100, 160);
    for (side, frequency) in [(0, 6_000.0), (1, 5_000.0)] {
        assert_eq!(line.ends[side].came, line.ends[1 - side].sent);
        let (share, level) = line.ends[side].hears(frequency);
        assert!(share > 0.97 && level > 5_000.0, "{share} at {level}");
    }
}

// RFC 3551 4.5.2, 4.5.14: a packet has as many octets in either, and so it keeps its timestamp.
#[test]
fn g722_and_either_law_are_made_into_each_other_packet_by_packet() {
    for law in [Codec::Pcma, Codec::Pcmu] {
        for octets in [80, 160, 240, 480] {
            for codecs in [[Codec::G722, law], [law, Codec::G722]] {
                let mut line = Line::new(codecs, [900.0, 1_500.0]);
                line.run(16_000 / octets, octets);
                for (side, frequency) in [(0, 1_500.0), (1, 900.0)] {
                    let end = &line.ends[side];
                    assert_eq!(end.rate, f64::from(codecs[side].sample_rate()));
                    assert!(end.came.iter().all(|payload| payload.len() == octets));
                    assert_eq!(end.came.len(), line.ends[1 - side].sent.len());
                    let (share, level) = end.hears(frequency);
                    let label = format!("{codecs:?}, {octets} octets, side {side}");
                    assert!(share > 0.98, "{label}: {share} of {frequency} Hz");
                    // A tone of 8000 has 5657.
                    assert!((5_300.0..6_000.0).contains(&level), "{label}: level {level}");
                    assert_eq!(line.relay.counters(SIDES[side]).refused(), 0);
                }
            }
        }
    }
}

/// What narrow band cannot carry is left out, and does not come back as something else.
#[test]
fn what_is_above_4_khz_makes_no_alias_in_g711() {
    let mut line = Line::new([Codec::G722, Codec::Pcma], [5_000.0, 1_000.0]);
    line.run(100, 160);
    let (_, level) = line.ends[1].hears(3_000.0);
    // The tone has 5657. What is left is what G.722 makes of it in its lower band.
    assert!(level < 120.0, "an alias at a level of {level}");
}

/// RFC 3264 6.1: what an answer has beside the first may come, and goes on as what the other side speaks.
#[test]
fn what_was_agreed_on_beside_the_codec_goes_on() {
    for (codec, sends, onward) in [
        (Codec::Pcma, Codec::G722, Codec::Pcmu),
        (Codec::G722, Codec::Pcma, Codec::G722),
        (Codec::G722, Codec::Pcmu, Codec::Pcma),
    ] {
        let mut line = Line::new([codec, onward], [1_000.0; 2]);
        line.relay.set_media(Side::Trunk, &media(0, codec, &[sends]), line.now).unwrap();
        line.run(50, 160);
        line.ends[0].sends = sends;
        line.ends[0].source = Box::new(tone(1_700.0, f64::from(sends.sample_rate())));
        line.run(100, 160);
        let (share, level) = line.ends[1].hears(1_700.0);
        assert!(
            share > 0.97 && level > 5_000.0,
            "{sends:?} beside {codec:?} to {onward:?}: {share} at {level}"
        );
        assert_eq!(line.ends[1].came.len(), 150);
    }
}

/// A new answer on one side changes what the other is sent.
#[test]
fn the_conversion_follows_what_is_agreed_on() {
    let mut line = Line::new([Codec::G722, Codec::Pcma], [1_000.0; 2]);
    line.run(50, 160);
    line.relay.set_media(Side::Onward, &media(1, Codec::G722, &[]), line.now).unwrap();
    line.ends[1] = End::new(9, Codec::G722, 6_000.0);
    let before = line.ends[0].sent.len();
    line.run(100, 160);
    assert_eq!(line.ends[1].came, line.ends[0].sent[before..]);
    assert!(line.ends[0].hears(6_000.0).0 > 0.97);
}

// RFC 4733 2.1: the events of both are of 8 kHz.
#[test]
fn digits_pass_between_g722_and_g711() {
    let mut line = Line::new([Codec::G722, Codec::Pcma], [1_000.0; 2]);
    line.run(50, 160);
    let digit = DtmfDigit::from_char('4').unwrap();
    assert!(line.relay.send_dtmf(line.now, Side::Onward, digit, 100));
    let before = line.ends[1].came.len();
    line.run(50, 160);
    let missing = 50 - (line.ends[1].came.len() - before);
    assert!((5..=9).contains(&missing), "{missing} packets of voice gave way");
    let (share, level) = line.ends[1].hears(1_000.0);
    assert!(share > 0.95 && level > 4_500.0, "{share} at {level}");
}

/// Nothing that comes as G.722 is malformed but what is too long: what is beyond the longest packet is left out.
#[test]
fn a_packet_of_any_length_is_taken() {
    let mut line = Line::new([Codec::G722, Codec::Pcma], [1_000.0; 2]);
    for octets in [1, 2, 3, 159, 161, 1_279, 1_280, 1_281, 1_400] {
        let packet = line.ends[0].packet(line.now, octets);
        line.pass(0, &packet);
        let came = line.ends[1].came.last().unwrap();
        assert_eq!(came.len(), octets.min(1_280), "{octets}");
    }
}
