//! Row F07: calls over a trunk that speaks Opus, which pass as they are.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::{Codec, Direction, DtmfDigit, LegMedia, MediaSecurity, Side, TelephoneEvent};
use transcoder::codec::opus::{Bandwidth, Decoder, Encoder, EncoderConfig, packet_duration};
use transcoder::dtmf::{DtmfEvent, DtmfReceiver, DtmfSender};
use transcoder::rtp::{HEADER_LEN, RtpPacket, RtpSender};
use transcoder::{BridgeEvent, EdgeCodec, Relay, RelayConfig};

#[path = "common/mod.rs"]
mod common;
use common::address;
use common::call::{Call, FRAME, GATEWAY_RTP, Options, TRUNK_RTCP, TRUNK_RTP, trunk_media};
use common::signal::{mean_tone_share, rms, tone};

const SECOND: Duration = Duration::from_secs(1);
/// What the trunk takes voice and events under, and what it sends them under.
const TO_TRUNK: [u8; 2] = [111, 110];
const FROM_TRUNK: [u8; 2] = [96, 97];

fn opus_media(event_clock: u32) -> LegMedia {
    LegMedia {
        codec: Codec::Opus,
        send_payload_type: TO_TRUNK[0],
        receive_payload_type: FROM_TRUNK[0],
        also_receives: Vec::new(),
        telephone_event: Some(TelephoneEvent {
            send_payload_type: TO_TRUNK[1],
            receive_payload_type: FROM_TRUNK[1],
            clock_rate: event_clock,
        }),
        comfort_noise: false,
        packet_time_ms: 20,
        remote_rtp: address(TRUNK_RTP),
        remote_rtcp: Some(address(TRUNK_RTCP)),
        direction: Direction::SendRecv,
        security: MediaSecurity::None,
    }
}

/// A trunk that speaks Opus at 16 kHz, and the call to it.
struct Line {
    call: Call,
    encoder: Encoder,
    source: Box<dyn FnMut() -> i16>,
    sender: RtpSender,
    dtmf: DtmfSender,
    event_clock: u32,
    time: u64,
    /// Packets that are lost before they are sent.
    lose: bool,
}

impl Line {
    fn new(options: &Options) -> Self {
        Self::with_events(options, 48_000)
    }

    /// With events on a clock of so many Hz.
    fn with_events(options: &Options, event_clock: u32) -> Self {
        let mut call = Call::new(options);
        call.pbx.talks = false;
        call.pbx.kept = Some(Vec::new());
        let now = call.net.now;
        call.bridge.set_trunk_media(&opus_media(event_clock), now).unwrap();
        let config = EncoderConfig {
            bitrate: 40_000,
            max_bandwidth: Bandwidth::Wideband,
            ..EncoderConfig::for_rate(16_000)
        };
        Self {
            call,
            encoder: Encoder::new(&config).unwrap(),
            source: Box::new(tone(6_000.0, 16_000.0)),
            sender: RtpSender::new(5),
            dtmf: DtmfSender::new(event_clock),
            event_clock,
            time: 0,
            lose: false,
        }
    }

    fn run(&mut self, duration: Duration) {
        let mut left = duration;
        while left >= FRAME {
            left -= FRAME;
            self.send();
            self.call.run(FRAME);
        }
    }

    fn send(&mut self) {
        let (time, now) = (self.time, self.call.net.now);
        self.time += 960;
        let pcm: Vec<i16> = (0..320).map(|_| (self.source)()).collect();
        let mut payload = vec![0; 1_275];
        let length = self.encoder.encode(&pcm, &mut payload).unwrap();
        let scale = u64::from(48_000 / self.event_clock);
        let event = self.dtmf.next(time / scale, self.event_clock / 50);
        // It talks over its digits, as some do.
        let mut packets = vec![(FROM_TRUNK[0], time == 0, time, payload[..length].to_vec())];
        packets.extend(event.map(|e| (FROM_TRUNK[1], e.marker, e.media_time * scale, e.payload.to_vec())));
        for (number, marker, time, payload) in packets {
            let mut packet = vec![0; HEADER_LEN + payload.len()];
            packet[HEADER_LEN..].copy_from_slice(&payload);
            self.sender.write_header(now, number, marker, time, payload.len(), &mut packet).unwrap();
            if !self.lose {
                self.call.net.send(address(TRUNK_RTP), address(GATEWAY_RTP), &packet);
            }
        }
    }

    /// What the trunk was sent: payload type, sequence number, timestamp, marker, payload.
    fn heard(&mut self) -> Vec<(u8, u16, u32, bool, Vec<u8>)> {
        let kept = self.call.pbx.kept.as_mut().map(std::mem::take).unwrap();
        let read = |bytes: &Vec<u8>| {
            let packet = RtpPacket::parse(bytes).unwrap();
            let numbers = (packet.sequence(), packet.timestamp());
            (packet.payload_type(), numbers.0, numbers.1, packet.marker(), packet.payload().to_vec())
        };
        kept.iter().map(read).collect()
    }
}

/// The digits among what the trunk was sent, with their lengths.
fn digits(heard: &[(u8, u16, u32, bool, Vec<u8>)], event_clock: u32) -> Vec<(char, u16)> {
    #[allow(clippy::disallowed_methods)]
    let now = std::time::Instant::now();
    let mut receiver = DtmfReceiver::new(event_clock);
    for (n, (_, _, timestamp, marker, payload)) in heard.iter().filter(|p| p.0 == TO_TRUNK[1]).enumerate() {
        receiver.receive(now + FRAME * n as u32, *timestamp, *marker, payload).unwrap();
    }
    receiver.handle_timeout(now + 3_600 * SECOND);
    let ended = std::iter::from_fn(|| receiver.poll_event()).filter_map(|event| match event {
        DtmfEvent::Ended { digit, duration_ms } => Some((digit.as_char(), duration_ms)),
        DtmfEvent::Started { .. } => None,
    });
    ended.collect()
}

// RFC 3550 7.1, RFC 7587 4.1.
#[test]
fn f07_opus_passes_both_ways_as_it_is() {
    let mut line = Line::new(&Options { phone_rate: 48_000, ..Options::default() });
    line.call.phone_source = Box::new(tone(440.0, 48_000.0));
    line.run(5 * SECOND);
    // Half of what was said lies beyond what G.711 carries.
    let tail = &line.call.phone_heard[line.call.phone_heard.len() - 96_000..];
    let share = mean_tone_share(tail, 6_000.0, 48_000.0);
    assert!(share > 0.95 && rms(tail) > 2_000.0, "{share} {}", rms(tail));

    let heard = line.heard();
    assert!(heard.len().abs_diff(245) < 10, "{}", heard.len());
    assert!(heard[0].3, "the first carries the marker");
    for pair in heard.windows(2) {
        assert_eq!(pair[1].0, TO_TRUNK[0]);
        assert_eq!(pair[1].1, pair[0].1.wrapping_add(1));
        assert_eq!(pair[1].2, pair[0].2.wrapping_add(960));
    }
    let (mut decoder, mut frame, mut pcm) = (Decoder::new(8_000).unwrap(), vec![0; 960], Vec::new());
    for packet in &heard {
        let length = decoder.decode(&packet.4, &mut frame).unwrap();
        pcm.extend_from_slice(&frame[..length]);
    }
    let share = mean_tone_share(&pcm[pcm.len() - 16_000..], 440.0, 8_000.0);
    assert!(share > 0.95, "{share}");
    for side in [Side::Overlay, Side::Trunk] {
        let quality = line.call.bridge.quality(side);
        assert!(quality.packets_received > 230 && quality.packets_lost == 0, "{side:?} {quality:?}");
        assert!(line.call.bridge_events.contains(&BridgeEvent::FirstPacket { side }));
    }
}

// RFC 3550 7.1: what is lost on the way in is seen to be lost on the way out.
#[test]
fn f07_gaps_pass_as_they_are() {
    let mut line = Line::new(&Options::default());
    line.run(3 * SECOND);
    let lost_before = line.call.phone.quality().packets_lost;
    line.lose = true;
    line.run(FRAME * 3);
    line.lose = false;
    line.run(SECOND);
    assert_eq!(line.call.phone.quality().packets_lost - lost_before, 3);
    assert_eq!(line.call.bridge.quality(Side::Trunk).packets_lost, 3);
}

// RFC 4733 2.1 and 2.5: the clock of the events is that of the voice, and no digit sounds twice or as voice.
#[test]
fn f07_digits_pass_once_each_way_with_the_clock_of_opus() {
    digits_pass_once_each_way(48_000);
}

// RFC 7160 4: the timestamps are those of the voice, the durations those of the events.
#[test]
fn f07_digits_pass_once_each_way_with_events_of_8_khz_beside_opus() {
    digits_pass_once_each_way(8_000);
}

fn digits_pass_once_each_way(event_clock: u32) {
    let mut line = Line::with_events(&Options { phone_rate: 8_000, ..Options::default() }, event_clock);
    line.source = Box::new(tone(1_000.0, 16_000.0));
    line.run(3 * SECOND);
    line.heard();
    for c in "19#".chars() {
        let digit = DtmfDigit::from_char(c).unwrap();
        assert!(line.call.phone.send_dtmf(digit, 100));
        line.dtmf.queue(digit, 200).unwrap();
    }
    line.run(4 * SECOND);
    assert_eq!(line.call.phone_digits(), "19#");
    let heard = line.heard();
    assert_eq!(digits(&heard, line.event_clock).iter().map(|(c, _)| *c).collect::<String>(), "19#");
    for (c, duration_ms) in digits(&heard, line.event_clock) {
        assert!((80..=140).contains(&duration_ms), "{c}: {duration_ms} ms");
    }
    let events: Vec<_> = heard.iter().filter(|packet| packet.0 == TO_TRUNK[1]).collect();
    assert_eq!(events.iter().filter(|packet| packet.3).count(), 3, "one marker a digit");
    for pair in heard.windows(2) {
        assert_eq!(pair[1].1, pair[0].1.wrapping_add(1), "no number is left out or given twice");
    }
    // Voice goes on in its own time: 4 s later, 4 s of ticks on.
    let passed = heard[heard.len() - 1].2.wrapping_sub(heard[0].2);
    assert!(passed.abs_diff(4 * 48_000) < 10 * 960, "{passed}");
    let quality = line.call.bridge.quality(Side::Trunk);
    assert_eq!((quality.packets_lost, quality.packets_refused), (0, 0), "{quality:?}");
    let tail = &line.call.phone_heard[line.call.phone_heard.len() - 8_000..];
    assert!(mean_tone_share(tail, 1_000.0, 8_000.0) > 0.95);
}

// As row F11 has it, on this clock too.
#[test]
fn f07_f11_a_digit_that_is_signalled_beside_its_event_passes_once() {
    for signalled_ms in [0, 60, 700] {
        let mut line = Line::new(&Options::default());
        line.run(2 * SECOND);
        line.heard();
        let digit = DtmfDigit::from_char('5').unwrap();
        assert!(line.call.phone.send_dtmf(digit, 100));
        line.dtmf.queue(digit, 100).unwrap();
        line.run(Duration::from_millis(signalled_ms));
        let now = line.call.net.now;
        for side in [Side::Overlay, Side::Trunk] {
            assert!(line.call.bridge.send_dtmf(now, side, digit, 100));
        }
        line.run(3 * SECOND);
        assert_eq!(line.call.phone_digits(), "5", "{signalled_ms} ms");
        let heard = line.heard();
        assert_eq!(digits(&heard, line.event_clock).len(), 1, "{signalled_ms} ms");
    }
}

// RFC 3264 8: the codec may change within a call.
#[test]
fn f07_a_call_goes_on_when_its_codec_changes() {
    let mut line = Line::new(&Options::default());
    line.call.phone_source = Box::new(tone(440.0, 8_000.0));
    line.run(3 * SECOND);
    let now = line.call.net.now;
    line.call.bridge.set_trunk_media(&trunk_media(Codec::Pcma, 20), now).unwrap();
    (line.call.pbx.kept, line.call.pbx.talks) = (None, true);
    line.call.pbx.source = Box::new(tone(1_000.0, 8_000.0));
    line.call.run(4 * SECOND);
    assert!(mean_tone_share(&line.call.pbx.heard[16_000..], 440.0, 8_000.0) > 0.95);
    let tail = &line.call.phone_heard[line.call.phone_heard.len() - 8_000..];
    assert!(mean_tone_share(tail, 1_000.0, 8_000.0) > 0.95);
    (line.call.pbx.kept, line.call.pbx.talks) = (Some(Vec::new()), false);
    let now = line.call.net.now;
    line.call.bridge.set_trunk_media(&opus_media(48_000), now).unwrap();
    line.source = Box::new(tone(2_000.0, 16_000.0));
    line.run(3 * SECOND);
    assert!(line.heard().len() > 140);
    let tail = &line.call.phone_heard[line.call.phone_heard.len() - 8_000..];
    assert!(mean_tone_share(tail, 2_000.0, 8_000.0) > 0.95);
}

// RFC 3264 6.1: an overlay user may send whatever was agreed on. A trunk of Opus hears Opus.
#[test]
fn f07_g711_of_an_overlay_user_is_encoded_for_the_trunk() {
    let mut line = Line::new(&Options { g711: [true; 2], ..Options::default() });
    line.call.phone_source = Box::new(tone(440.0, 8_000.0));
    line.run(3 * SECOND);
    assert_eq!(line.call.phone.sends(), Codec::Opus, "it follows what it hears");
    line.heard();
    let digit = DtmfDigit::from_char('3').unwrap();
    for (policy, codec) in [(EdgeCodec::Always, Codec::Pcma), (EdgeCodec::Never, Codec::Opus)] {
        line.call.phone.set_edge(policy);
        line.run(3 * SECOND);
        assert_eq!((line.call.phone.sends(), line.call.bridge.overlay_sends()), (codec, Codec::Opus));
        assert!(line.call.phone.send_dtmf(digit, 100));
        line.run(2 * SECOND);
        let heard = line.heard();
        for pair in heard.windows(2) {
            assert_eq!(pair[1].1, pair[0].1.wrapping_add(1), "{codec:?}");
            let step = pair[1].2.wrapping_sub(pair[0].2);
            assert!(step <= 10 * 960, "{codec:?}: a step of {step}, of which a digit is most");
        }
        assert_eq!(digits(&heard, 48_000).len(), 1, "{codec:?}");
        let (mut decoder, mut frame, mut pcm) = (Decoder::new(8_000).unwrap(), vec![0; 960], Vec::new());
        for packet in heard.iter().filter(|packet| packet.0 == TO_TRUNK[0]) {
            let length = decoder.decode(&packet.4, &mut frame).unwrap();
            pcm.extend_from_slice(&frame[..length]);
        }
        assert!(pcm.len() > 4 * 8_000, "{codec:?}");
        assert!(mean_tone_share(&pcm[pcm.len() - 8_000..], 440.0, 8_000.0) > 0.95, "{codec:?}");
    }
}

// RFC 3264 8.4.
#[test]
fn f07_nothing_passes_to_who_holds() {
    let mut line = Line::new(&Options::default());
    line.run(2 * SECOND);
    let now = line.call.net.now;
    line.call.bridge.set_overlay_hold(true, now);
    line.run(SECOND);
    let held = line.call.phone.quality().packets_received;
    line.run(SECOND);
    assert_eq!(line.call.phone.quality().packets_received, held);
    let mut media = opus_media(48_000);
    media.direction = Direction::RecvOnly;
    let now = line.call.net.now;
    line.call.bridge.set_trunk_media(&media, now).unwrap();
    line.call.bridge.set_overlay_hold(false, now);
    line.heard();
    line.run(SECOND);
    assert!(line.heard().is_empty());
    assert!(line.call.phone.quality().packets_received > held + 40);
}

#[test]
fn f07_a_relay_carries_no_opus() {
    #[allow(clippy::disallowed_methods)]
    let now = std::time::Instant::now();
    let config = RelayConfig {
        trunk_rtp: address(GATEWAY_RTP),
        onward_rtp: address("192.0.2.1:20002"),
        media_timeout: SECOND,
        identity: None,
    };
    let mut relay = Relay::new(&config, 1, now);
    let error = relay.set_media(Side::Trunk, &opus_media(48_000), now).unwrap_err();
    assert_eq!(
        error.to_string(),
        transcoder::MediaError::TrunkMedia("codec is neither G.711 nor G.722").to_string()
    );
}

/// The trunk did not negotiate redundancy (RFC 2198), so it gets each frame once, as plain Opus.
#[test]
fn what_an_overlay_user_sends_again_stays_behind() {
    let mut line = Line::new(&Options { redundancy: [true; 2], ..Options::default() });
    line.call.phone_source = Box::new(tone(440.0, 8_000.0));
    line.run(3 * SECOND);
    line.call.net.weather.loss_per_mille = 80;
    line.run(17 * SECOND);
    assert!(line.call.phone.redundancy() > 0);
    line.heard();
    line.run(5 * SECOND);
    let heard = line.heard();
    assert!(heard.len() > 180, "{}", heard.len());
    for (payload_type, _, _, _, payload) in &heard {
        assert_eq!((*payload_type, packet_duration(payload)), (TO_TRUNK[0], Some(960)), "{payload:?}");
    }
    assert!(heard.windows(2).all(|pair| pair[1].1.wrapping_sub(pair[0].1).cast_signed() > 0));
    let refused = line.call.bridge.overlay_counters().refused();
    assert_eq!(refused, 0);
}
