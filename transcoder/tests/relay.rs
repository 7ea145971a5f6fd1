//! The relay between two trunks, in virtual time.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Codec, Direction, DtmfDigit, LegMedia, MediaSecurity, Side, TelephoneEvent};
use transcoder::codec::g711::Law;
use transcoder::leg::rtp::{Refusal, SourceRule};
use transcoder::rtp::{RtpPacket, is_rtcp};
use transcoder::{BridgeEvent, Port, Relay, RelayConfig};

const SILENCE: Duration = Duration::from_secs(60);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Where each trunk sends from.
fn remote(side: Side) -> SocketAddr {
    address(if side == Side::Trunk { "192.0.2.10:4000" } else { "192.0.2.20:5000" })
}

fn other(side: Side) -> Side {
    if side == Side::Trunk { Side::Onward } else { Side::Trunk }
}

fn media(side: Side, codec: Codec) -> LegMedia {
    let payload_type = codec.static_payload_type().unwrap();
    let event = if side == Side::Trunk { 101 } else { 96 };
    LegMedia {
        codec,
        send_payload_type: payload_type,
        receive_payload_type: payload_type,
        also_receives: Vec::new(),
        telephone_event: Some(TelephoneEvent {
            send_payload_type: event,
            receive_payload_type: event,
            clock_rate: 8_000,
        }),
        comfort_noise: false,
        packet_time_ms: 20,
        remote_rtp: remote(side),
        remote_rtcp: None,
        direction: Direction::SendRecv,
        security: MediaSecurity::None,
    }
}

struct Sent {
    side: Side,
    bytes: Vec<u8>,
}

struct Line {
    relay: Relay,
    now: Instant,
    sent: Vec<Sent>,
    events: Vec<BridgeEvent>,
}

impl Line {
    fn new(trunk: Codec, onward: Codec) -> Self {
        #[allow(clippy::disallowed_methods)]
        let now = Instant::now();
        let config = RelayConfig {
            trunk_rtp: address("198.51.100.1:20000"),
            onward_rtp: address("198.51.100.1:20002"),
            media_timeout: SILENCE,
            identity: None,
        };
        let mut relay = Relay::new(&config, 7, now);
        relay.set_media(Side::Trunk, &media(Side::Trunk, trunk), now).unwrap();
        relay.set_media(Side::Onward, &media(Side::Onward, onward), now).unwrap();
        Self { relay, now, sent: Vec::new(), events: Vec::new() }
    }

    fn from(&mut self, side: Side, source: SocketAddr, packet: &[u8]) {
        let sent = &mut self.sent;
        self.relay.handle_datagram(self.now, side, Port::Rtp, source, packet, &mut |out| {
            assert_eq!((out.destination, out.port), (remote(out.side), Port::Rtp));
            sent.push(Sent { side: out.side, bytes: out.bytes.to_vec() });
        });
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(event) = self.relay.poll_event() {
            self.events.push(event);
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.relay.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let sent = &mut self.sent;
            self.relay.handle_timeout(self.now, &mut |out| {
                sent.push(Sent { side: out.side, bytes: out.bytes.to_vec() });
            });
            self.drain();
        }
        self.now = until;
    }

    /// What went out to a side as RTP since the last time: payload type, marker, sequence,
    /// timestamp, SSRC, payload.
    fn out(&mut self, side: Side) -> Vec<(u8, bool, u16, u32, u32, Vec<u8>)> {
        let rtp = |sent: &Sent| sent.side == side && !is_rtcp(&sent.bytes);
        let (mine, rest) = std::mem::take(&mut self.sent).into_iter().partition(rtp);
        self.sent = rest;
        mine.iter()
            .map(|sent: &Sent| {
                let packet = RtpPacket::parse(&sent.bytes).unwrap();
                let payload = packet.payload().to_vec();
                let (kind, marker) = (packet.payload_type(), packet.marker());
                (kind, marker, packet.sequence(), packet.timestamp(), packet.ssrc(), payload)
            })
            .collect()
    }

    fn silent(&self) -> Vec<Side> {
        let silent = |event: &BridgeEvent| match event {
            BridgeEvent::Silent { side } => Some(*side),
            _ => None,
        };
        self.events.iter().filter_map(silent).collect()
    }
}

fn rtp(kind: u8, marker: bool, sequence: u16, timestamp: u32, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, kind | u8::from(marker) << 7];
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(timestamp.to_be_bytes());
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend(payload);
    bytes
}

// RFC 3550 7.1: what is passed on has a source of its own, and the gaps and order it came with.
#[test]
fn the_same_law_goes_through_untouched_with_its_gaps_and_its_order() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    for side in [Side::Trunk, Side::Onward] {
        // Wraps, loses one, swaps two, and changes its packet time.
        let order = [65_534u16, 65_535, 0, 2, 4, 3, 5];
        for sequence in order {
            let payload = vec![sequence as u8; if sequence == 5 { 480 } else { 160 }];
            let timestamp = 4_294_967_000u32.wrapping_add(u32::from(sequence.wrapping_sub(65_534)) * 160);
            line.from(side, remote(side), &rtp(8, false, sequence, timestamp, 77, &payload));
            line.pass(Duration::from_millis(20));
        }
        let out = line.out(other(side));
        assert_eq!(out.len(), order.len());
        let (first, ssrc) = (out[0].2, out[0].4);
        assert_ne!(ssrc, 77);
        for (packet, sequence) in out.iter().zip(order) {
            let step = sequence.wrapping_sub(65_534);
            assert_eq!((packet.2, packet.4), (first.wrapping_add(step), ssrc));
            assert_eq!(packet.3, out[0].3.wrapping_add(u32::from(step) * 160));
            assert!(packet.5.iter().all(|&octet| octet == sequence as u8));
        }
        assert_eq!(out[6].5.len(), 480, "a packet keeps the size it came with");
        let heard = line.events.iter().filter(|event| **event == BridgeEvent::FirstPacket { side }).count();
        assert_eq!(heard, 1);
        assert_eq!(line.relay.quality(side).packets_lost, 1);
    }
}

// ITU-T G.711 tables 3 and 4.
#[test]
fn one_law_is_made_into_the_other_both_ways() {
    let mut line = Line::new(Codec::Pcmu, Codec::Pcma);
    let codes: Vec<u8> = (0..=255).collect();
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(0, false, 1, 0, 1, &codes));
    line.from(Side::Onward, remote(Side::Onward), &rtp(8, false, 1, 0, 2, &codes));
    let (to_onward, to_trunk) = (line.out(Side::Onward), line.out(Side::Trunk));
    assert_eq!((to_onward[0].0, to_trunk[0].0), (8, 0));
    for code in 0..=255u8 {
        let at = usize::from(code);
        assert_eq!(to_onward[0].5[at], Law::A.encode(Law::Mu.decode(code)));
        assert_eq!(to_trunk[0].5[at], Law::Mu.encode(Law::A.decode(code)));
    }
    // A change to the same law on both sides ends that.
    line.relay.set_media(Side::Onward, &media(Side::Onward, Codec::Pcmu), line.now).unwrap();
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(0, false, 2, 160, 1, &codes));
    let out = line.out(Side::Onward);
    assert_eq!((out[0].0, &out[0].5), (0, &codes));
}

/// Sends a digit of 100 ms as RFC 4733 2.5.1 has it.
fn press(line: &mut Line, side: Side, kind: u8, sequence: u16, event: u8) {
    for n in 0..7u16 {
        let duration = (n + 1).min(5) * 160;
        let end = if n >= 4 { 0x80 } else { 0 };
        let payload = [event, end | 10, (duration >> 8) as u8, duration as u8];
        line.from(side, remote(side), &rtp(kind, n == 0, sequence + n, 16_000, 5, &payload));
        line.pass(Duration::from_millis(20));
    }
}

// RFC 4733 2.5.1: one timestamp for all of a digit, the marker on its first packet.
#[test]
fn telephone_events_pass_under_the_other_sides_payload_type() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcmu);
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, 99, 15_840, 5, &[0xd5; 160]));
    press(&mut line, Side::Trunk, 101, 100, 7);
    let out = line.out(Side::Onward);
    assert_eq!(out.len(), 8);
    for (n, packet) in out.iter().enumerate().skip(1) {
        assert_eq!((packet.0, packet.1), (96, n == 1));
        assert_eq!(packet.2, out[0].2.wrapping_add(n as u16));
        assert_eq!(packet.3, out[0].3.wrapping_add(160));
        assert_eq!(packet.5[0], 7);
    }
    let digit = DtmfDigit::from_char('7').unwrap();
    let heard = BridgeEvent::Dtmf { side: Side::Trunk, digit, duration_ms: 100, forwarded: true };
    assert!(line.events.contains(&heard), "{:?}", line.events);
}

#[test]
fn a_digit_that_cannot_go_in_rtp_is_left_to_signalling() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    let plain = LegMedia { telephone_event: None, ..media(Side::Onward, Codec::Pcma) };
    line.relay.set_media(Side::Onward, &plain, line.now).unwrap();
    press(&mut line, Side::Trunk, 101, 100, 11);
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, 107, 17_120, 5, &[0xd5; 160]));
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, 108, 17_280, 5, &[0xd5; 160]));
    let out = line.out(Side::Onward);
    assert_eq!(out.len(), 2, "no event goes where none was agreed");
    assert_eq!(out[1].2, out[0].2.wrapping_add(1));
    let digit = DtmfDigit::from_char('#').unwrap();
    let told: Vec<_> = line.events.iter().filter(|event| matches!(event, BridgeEvent::Dtmf { .. })).collect();
    assert_eq!(told, [&BridgeEvent::Dtmf { side: Side::Trunk, digit, duration_ms: 100, forwarded: false }]);
    assert!(!line.relay.send_dtmf(line.now, Side::Onward, digit, 100));
}

#[test]
fn a_digit_that_came_by_signalling_takes_the_place_of_voice() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    let say = |line: &mut Line, n: u16| {
        let packet = rtp(8, false, n, u32::from(n) * 160, 5, &[0xd5; 160]);
        line.from(Side::Trunk, remote(Side::Trunk), &packet);
        line.pass(Duration::from_millis(20));
    };
    say(&mut line, 0);
    for c in ['4', '4'] {
        assert!(line.relay.send_dtmf(line.now, Side::Onward, DtmfDigit::from_char(c).unwrap(), 100));
    }
    (1..25).for_each(|n| say(&mut line, n));
    let out = line.out(Side::Onward);
    let sequences: Vec<u16> = out.iter().map(|packet| packet.2.wrapping_sub(out[0].2)).collect();
    let expected: Vec<u16> = (0..out.len() as u16).collect();
    assert_eq!(sequences, expected, "no number is left out or given twice");
    let mut starts: Vec<u32> = out.iter().filter(|packet| packet.0 == 96).map(|packet| packet.3).collect();
    starts.dedup();
    assert_eq!(starts.len(), 2, "two digits with a timestamp each");
    assert!(starts[1].wrapping_sub(starts[0]) >= 150 * 8, "50 ms at least lie between digits");
    let last = out.last().unwrap();
    assert_eq!((last.0, last.3), (8, out[0].3.wrapping_add(24 * 160)), "voice goes on in its own time");
}

/// The far side presses a key for `length_ms`, as RFC 4733 2.5.1 has it, and signals the same `signalled_ms` after
/// the event began, or before. Returns the events that go out: the timestamp and the code of each.
fn press_both_ways(line: &mut Line, at: u32, length_ms: i64, signalled_ms: i64) -> Vec<(u32, u8)> {
    let digit = DtmfDigit::from_char('5').unwrap();
    let mut n = 0;
    for ms in (-500..1_000 + length_ms).step_by(10) {
        if ms == signalled_ms {
            assert!(line.relay.send_dtmf(line.now, Side::Onward, digit, 100), "{signalled_ms}");
        }
        if ms >= 0 && ms % 20 == 0 && ms < length_ms + 60 {
            let duration = ((ms + 20).min(length_ms) * 8) as u16;
            let end = if ms + 20 >= length_ms { 0x80 } else { 0 };
            let payload = [5, end | 10, (duration >> 8) as u8, duration as u8];
            let packet = rtp(101, n == 0, (at / 160) as u16 + n, at, 5, &payload);
            line.from(Side::Trunk, remote(Side::Trunk), &packet);
            n += 1;
        }
        line.pass(Duration::from_millis(10));
    }
    let mut starts: Vec<(u32, u8)> = Vec::new();
    for (kind, _, _, timestamp, _, payload) in line.out(Side::Onward) {
        assert_eq!(kind, 96);
        if !starts.contains(&(timestamp, payload[0])) {
            starts.push((timestamp, payload[0]));
        }
    }
    starts
}

// RFC 4733 beside INFO: whichever comes first, and however the two overlap.
#[test]
fn f11_a_digit_that_is_signalled_and_heard_goes_on_once() {
    for length_ms in [60, 100, 400, 3_000] {
        for signalled_ms in [-500, -120, -60, -10, 0, 10, 60, 90, 150, 400, 900] {
            let mut line = Line::new(Codec::Pcma, Codec::Pcma);
            for press in 0..3u32 {
                let starts = press_both_ways(&mut line, 16_000 + press * 160_000, length_ms, signalled_ms);
                let label =
                    format!("{length_ms} ms, signalled at {signalled_ms} ms, press {press}: {starts:?}");
                assert_eq!(starts.len(), 1, "{label}");
                assert_eq!(starts[0].1, 5, "{label}");
            }
            let told =
                line.events.iter().filter(|event| matches!(event, BridgeEvent::Dtmf { forwarded: true, .. }));
            assert_eq!(told.count(), 3, "each was heard");
        }
    }
}

// Nobody signals what is pressed elsewhere: an event that comes by itself goes on by itself.
#[test]
fn f11_another_digit_than_the_one_signalled_goes_on_too() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    assert!(line.relay.send_dtmf(line.now, Side::Onward, DtmfDigit::from_char('6').unwrap(), 60));
    line.pass(Duration::from_millis(300));
    let starts = press_both_ways(&mut line, 16_000, 100, i64::MAX);
    assert_eq!(starts.iter().map(|(_, code)| *code).collect::<Vec<_>>(), [6, 5]);
}

#[test]
fn a_new_source_begins_where_the_one_before_stands() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, 10, 1_000, 1, &[1; 160]));
    line.pass(Duration::from_secs(1));
    // RFC 3550 A.1: believed after two in sequence.
    for n in 0..3u16 {
        let packet = rtp(8, false, 40_000 + n, 9_000_000 + 160 * u32::from(n), 2, &[2; 160]);
        line.from(Side::Trunk, remote(Side::Trunk), &packet);
    }
    let out = line.out(Side::Onward);
    assert_eq!(out.len(), 3);
    assert_eq!((out[1].2, out[1].4), (out[0].2.wrapping_add(1), out[0].4));
    assert_eq!(out[1].3, out[0].3.wrapping_add(8_000));
}

#[test]
fn strangers_and_loops_are_not_passed_on() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    let packet = rtp(8, false, 1, 0, 1, &[1; 160]);
    line.from(Side::Trunk, address("192.0.2.66:4000"), &packet);
    line.from(Side::Trunk, remote(Side::Onward), &packet);
    line.from(Side::Trunk, remote(Side::Trunk), &[0x80, 8, 0]);
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(99, false, 1, 0, 1, &[1; 160]));
    assert!(line.out(Side::Onward).is_empty() && line.out(Side::Trunk).is_empty());
    assert_eq!(line.relay.counters(Side::Trunk).refused(), 4);
    line.from(Side::Trunk, remote(Side::Trunk), &packet);
    let ours = line.out(Side::Onward)[0].4;
    line.from(Side::Onward, remote(Side::Onward), &rtp(8, false, 1, 0, ours, &[1; 160]));
    assert!(line.out(Side::Trunk).is_empty());
}

#[test]
fn silence_is_told_unless_one_side_holds() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    let mut n = 0;
    let mut talk = |line: &mut Line, seconds: u32| {
        for _ in 0..seconds * 50 {
            n += 1;
            line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, n, u32::from(n) * 160, 1, &[1; 160]));
            line.pass(Duration::from_millis(20));
        }
    };
    talk(&mut line, 61);
    assert_eq!(line.silent(), [Side::Onward]);
    line.events.clear();
    let held = LegMedia { direction: Direction::RecvOnly, ..media(Side::Onward, Codec::Pcma) };
    line.relay.set_media(Side::Onward, &held, line.now).unwrap();
    line.sent.clear();
    talk(&mut line, 130);
    assert!(line.silent().is_empty());
    assert!(line.out(Side::Onward).is_empty(), "nothing goes to a side that holds");
    line.relay.set_media(Side::Onward, &media(Side::Onward, Codec::Pcma), line.now).unwrap();
    talk(&mut line, 59);
    assert!(line.silent().is_empty(), "the wait begins anew when the hold ends");
    talk(&mut line, 2);
    assert_eq!(line.silent(), [Side::Onward]);
    let out = line.out(Side::Onward);
    assert_eq!(out[1].2, out[0].2.wrapping_add(1));
}

// RFC 3550 6.4: each side gets reports of ours about what it sent.
#[test]
fn each_side_gets_reports_of_its_own() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcmu);
    for n in 0..600u16 {
        line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, n, u32::from(n) * 160, 9, &[1; 160]));
        line.pass(Duration::from_millis(20));
    }
    for (side, kind) in [(Side::Trunk, 201), (Side::Onward, 200)] {
        let reports = line.sent.iter().filter(|sent| sent.side == side && is_rtcp(&sent.bytes));
        let kinds: Vec<u8> = reports.map(|sent| sent.bytes[1]).collect();
        assert!(kinds.len() >= 2 && kinds.iter().all(|&got| got == kind), "{side}: {kinds:?}");
    }
    line.sent.clear();
    let sent = &mut line.sent;
    line.relay.stop(line.now, &mut |out| sent.push(Sent { side: out.side, bytes: out.bytes.to_vec() }));
    assert_eq!(line.sent.len(), 2);
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, 601, 0, 9, &[1; 160]));
    assert!(line.out(Side::Onward).is_empty());
}

#[test]
fn a_side_that_is_none_of_its_own_is_refused() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    assert!(line.relay.set_media(Side::Overlay, &media(Side::Trunk, Codec::Pcma), line.now).is_err());
    let opus = LegMedia { codec: Codec::Opus, ..media(Side::Trunk, Codec::Pcma) };
    assert!(line.relay.set_media(Side::Trunk, &opus, line.now).is_err());
    line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, 1, 0, 1, &[1; 160]));
    assert_eq!(line.out(Side::Onward).len(), 1, "what was refused has changed nothing");
}

// RFC 3264 6.1: whatever both sides agreed on may come at any time, and goes on as the other side has it.
#[test]
fn c22_either_law_that_was_agreed_on_goes_on_in_that_of_the_other_side() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    let both = LegMedia { also_receives: vec![(0, Codec::Pcmu)], ..media(Side::Trunk, Codec::Pcma) };
    line.relay.set_media(Side::Trunk, &both, line.now).unwrap();
    let codes: Vec<u8> = (0..=159).collect();
    for (sequence, kind) in [(1, 8), (2, 0), (3, 0), (4, 8)] {
        line.from(
            Side::Trunk,
            remote(Side::Trunk),
            &rtp(kind, false, sequence, 160 * u32::from(sequence), 9, &codes),
        );
    }
    let made: Vec<u8> = codes.iter().map(|&code| Law::A.encode(Law::Mu.decode(code))).collect();
    let payloads: Vec<_> = line.out(Side::Onward).into_iter().map(|packet| (packet.0, packet.5)).collect();
    assert_eq!(payloads, [(8, codes.clone()), (8, made.clone()), (8, made), (8, codes.clone())]);
    // What was not agreed on is not heard.
    line.from(Side::Onward, remote(Side::Onward), &rtp(0, false, 1, 160, 7, &codes));
    assert!(line.out(Side::Trunk).is_empty());
    assert_eq!(line.relay.quality(Side::Onward).packets_refused, 1);
}

// RFC 7362 4: what an earlier call left on the port, and what a stranger sends, goes no further.
#[test]
fn f22_f23_what_others_send_to_the_port_is_counted_and_not_passed_on() {
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    line.relay.refuse_sources(Side::Trunk, &[66]);
    for n in 0..100u16 {
        let old = rtp(8, false, 700 + n, u32::from(n) * 160, 66, &[6; 160]);
        line.from(Side::Trunk, remote(Side::Trunk), &old);
        line.from(
            Side::Trunk,
            address("192.0.2.99:4000"),
            &rtp(8, false, n, u32::from(n) * 160, 5, &[9; 160]),
        );
        let own = rtp(8, false, n, u32::from(n) * 160, 5, &[1; 160]);
        line.from(Side::Trunk, remote(Side::Trunk), &own);
        line.pass(Duration::from_millis(20));
    }
    let out = line.out(Side::Onward);
    assert_eq!(out.len(), 100);
    assert!(out.iter().all(|packet| packet.5.iter().all(|&octet| octet == 1)));
    let counters = line.relay.counters(Side::Trunk);
    assert_eq!((counters.refused_for(Refusal::Ssrc), counters.refused_for(Refusal::Source)), (100, 100));
    assert_eq!(line.relay.source(Side::Trunk), Some(5));
    let quality = line.relay.quality(Side::Trunk);
    assert!(quality.packets_lost == 0 && quality.rating.unwrap().mos > 4.3, "{quality:?}");
    // A loss of three in a row shows in the rating, and is named.
    for n in 103..200u16 {
        line.from(Side::Trunk, remote(Side::Trunk), &rtp(8, false, n, u32::from(n) * 160, 5, &[1; 160]));
    }
    let quality = line.relay.quality(Side::Trunk);
    assert_eq!((quality.packets_lost, quality.bursts.count, quality.bursts.burst_ms), (3, 1, 60.0));
    assert_eq!(quality.rating.unwrap().cause, Some(call_model::Impairment::NetworkLoss));
}

// RFC 7362 4: behind an address translator, from where the signalling comes; and once for each offer and answer.
#[test]
fn f22_a_side_behind_a_translator_is_followed_and_the_other_is_not() {
    let public = address("203.0.113.9:6000");
    let mut line = Line::new(Codec::Pcma, Codec::Pcma);
    line.relay.set_source_rule(Side::Trunk, SourceRule::Signalling(public.ip()));
    let said = |n: u16, code: u8| rtp(8, false, n, u32::from(n) * 160, 5, &[code; 160]);
    // The rule is that of one side.
    line.from(Side::Onward, public, &said(1, 9));
    line.from(Side::Trunk, address("203.0.113.10:6000"), &said(1, 9));
    assert!(line.out(Side::Trunk).is_empty() && line.out(Side::Onward).is_empty());
    assert_eq!(line.relay.counters(Side::Trunk).refused_for(Refusal::Source), 1);
    assert_eq!(line.relay.counters(Side::Onward).refused_for(Refusal::Source), 1);
    // What is no voice moves nothing.
    line.from(Side::Trunk, public, &rtp(77, false, 1, 0, 5, &[1; 160]));
    assert_eq!(line.relay.counters(Side::Trunk).moves, 0);
    for n in 1..=10 {
        line.from(Side::Trunk, public, &said(n, 1));
        line.from(Side::Trunk, remote(Side::Trunk), &said(n + 20, 9));
        line.from(Side::Trunk, address("203.0.113.9:6002"), &said(n + 40, 9));
    }
    let out = line.out(Side::Onward);
    assert_eq!(out.len(), 10);
    assert!(out.iter().all(|packet| packet.5.iter().all(|&octet| octet == 1)));
    assert_eq!(line.relay.counters(Side::Trunk).moves, 1);
    let mut to = Vec::new();
    line.relay.handle_datagram(
        line.now,
        Side::Onward,
        Port::Rtp,
        remote(Side::Onward),
        &said(1, 2),
        &mut |out| to.push((out.side, out.destination)),
    );
    assert_eq!(to, [(Side::Trunk, public)]);
}
