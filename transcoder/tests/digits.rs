//! Rows F08 and F09: telephone events as they come and as they go out (RFC 4733), at the clock of G.711 and at that
//! of Opus.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::{Codec, DtmfDigit, LegMedia, Side, TelephoneEvent};
use transcoder::rtp::RtpPacket;
use transcoder::{BridgeEvent, Port, Relay, RelayConfig};

#[path = "common/mod.rs"]
mod common;
use common::call::{Call, GATEWAY_RTP, Options, TRUNK_RTP, trunk_media};
use common::signal::tone;
use common::{Random, address};

const SECOND: Duration = Duration::from_secs(1);
const CLOCKS: [u32; 2] = [8_000, 48_000];
const EVENT_PAYLOAD_TYPE: u8 = 96;
const ONWARD_RTP: &str = "192.0.2.1:20002";
const FAR_RTP: &str = "203.0.113.9:40000";

fn media(clock: u32) -> LegMedia {
    let event = Some(TelephoneEvent {
        send_payload_type: 101,
        receive_payload_type: EVENT_PAYLOAD_TYPE,
        clock_rate: clock,
    });
    let g711 = LegMedia { telephone_event: event, ..trunk_media(Codec::Pcma, 20) };
    match clock {
        8_000 => g711,
        _ => LegMedia { codec: Codec::Opus, send_payload_type: 111, receive_payload_type: 98, ..g711 },
    }
}

/// An event packet, and when it is sent.
#[derive(Clone, Copy, Debug)]
struct Event {
    at_ms: u32,
    timestamp: u32,
    marker: bool,
    end: bool,
    digit: char,
    duration: u16,
}

/// The packets of a digit that begins at `from_ms`, one in 20 ms, with segments of `segment` ticks at most
/// (RFC 4733 2.5.1.3).
fn press_in(clock: u32, digit: char, from_ms: u32, length_ms: u32, segment: u32) -> Vec<Event> {
    let (per_ms, mut events) = (clock / 1_000, Vec::new());
    let mut began = 0;
    let mut elapsed = 0;
    while elapsed < length_ms * per_ms {
        elapsed = (elapsed + 20 * per_ms).min(length_ms * per_ms);
        let full = elapsed - began > segment;
        let event = Event {
            at_ms: from_ms + elapsed / per_ms,
            timestamp: from_ms * per_ms + began,
            marker: events.is_empty(),
            end: elapsed == length_ms * per_ms && !full,
            digit,
            duration: (elapsed - began).min(segment) as u16,
        };
        events.push(event);
        if full {
            began += segment;
            let rest = Event {
                timestamp: from_ms * per_ms + began,
                duration: (elapsed - began) as u16,
                end: elapsed == length_ms * per_ms,
                ..event
            };
            events.push(Event { marker: false, ..rest });
        }
    }
    let last = events[events.len() - 1];
    assert!(last.end);
    events.extend((1..=2).map(|n| Event { at_ms: last.at_ms + 20 * n, ..last }));
    events
}

fn press(clock: u32, digit: char, from_ms: u32, length_ms: u32) -> Vec<Event> {
    press_in(clock, digit, from_ms, length_ms, 0xFFFF)
}

fn packet(event: &Event, sequence: u16, base: u32, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, EVENT_PAYLOAD_TYPE | if event.marker { 0x80 } else { 0 }];
    packet.extend(sequence.to_be_bytes());
    packet.extend(base.wrapping_add(event.timestamp).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    let code = DtmfDigit::from_char(event.digit).unwrap().event();
    packet.extend([code, 10 | if event.end { 0x80 } else { 0 }]);
    packet.extend(event.duration.to_be_bytes());
    packet
}

/// What a digit that was heard is held against: the digits, and of each how long it lasted in milliseconds.
type Heard = Vec<(char, u16)>;

/// A trunk that sends events, over a bridge to an overlay user, or over a relay to another trunk.
struct Line {
    clock: u32,
    call: Call,
    relay: Relay,
    sequence: u16,
    /// Where the timestamps of the next events begin.
    base: u32,
}

impl Line {
    fn new(clock: u32) -> Self {
        let mut call = Call::new(&Options::default());
        call.pbx.talks = false;
        call.pbx.kept = Some(Vec::new());
        call.bridge.set_trunk_media(&media(clock), call.net.now).unwrap();
        call.run(2 * SECOND);
        assert!(call.connected());
        let config = RelayConfig {
            trunk_rtp: address(GATEWAY_RTP),
            onward_rtp: address(ONWARD_RTP),
            media_timeout: 600 * SECOND,
            identity: None,
        };
        let mut relay = Relay::new(&config, 3, call.net.now);
        let onward = LegMedia { remote_rtp: address(FAR_RTP), remote_rtcp: None, ..media(8_000) };
        relay.set_media(Side::Trunk, &media(8_000), call.net.now).unwrap();
        relay.set_media(Side::Onward, &onward, call.net.now).unwrap();
        // The timestamps wrap on the way.
        Self { clock, call, relay, sequence: 0xFFF0, base: 0u32.wrapping_sub(clock) }
    }

    /// Plays events in the order of their times; returns the digits that the bridge told, those of the overlay user,
    /// and what a relay told at 8000 Hz.
    fn play(&mut self, mut events: Vec<Event>) -> (Heard, String, Heard) {
        events.sort_by_key(|event| event.at_ms);
        let (start, before) = (self.call.net.now, self.call.phone_digits().len());
        self.call.bridge_events.clear();
        let mut relayed = Vec::new();
        for event in &events {
            let at = start + Duration::from_millis(event.at_ms.into());
            while self.call.net.now < at {
                let step = (at - self.call.net.now).min(Duration::from_millis(10));
                self.call.run(step);
                self.relay(None, &mut relayed);
            }
            self.sequence = self.sequence.wrapping_add(1);
            let packet = packet(event, self.sequence, self.base, 77);
            let now = self.call.net.now;
            self.call.deliver(now, address(TRUNK_RTP), address(GATEWAY_RTP), &packet);
            self.relay(Some(&packet), &mut relayed);
        }
        for _ in 0..300 {
            self.call.run(Duration::from_millis(10));
            self.relay(None, &mut relayed);
        }
        let end_ms = events.last().map_or(0, |event| event.at_ms) + 5_000;
        self.base = self.base.wrapping_add(end_ms * (self.clock / 1_000));
        let told = self.call.bridge_events.iter().filter_map(|event| match event {
            BridgeEvent::Dtmf { side: Side::Trunk, digit, duration_ms, forwarded: true } => {
                Some((digit.as_char(), *duration_ms))
            }
            _ => None,
        });
        (told.collect(), self.call.phone_digits()[before..].to_owned(), relayed)
    }

    fn relay(&mut self, packet: Option<&[u8]>, relayed: &mut Heard) {
        if self.clock != 8_000 {
            return;
        }
        let now = self.call.net.now;
        if let Some(packet) = packet {
            let source = address(TRUNK_RTP);
            self.relay.handle_datagram(now, Side::Trunk, Port::Rtp, source, packet, &mut |_| {});
        }
        self.relay.handle_timeout(now, &mut |_| {});
        while let Some(event) = self.relay.poll_event() {
            if let BridgeEvent::Dtmf { side: Side::Trunk, digit, duration_ms, forwarded: true } = event {
                relayed.push((digit.as_char(), duration_ms));
            }
        }
    }

    /// Plays events and checks that exactly these digits are heard by everybody. Returns their lengths.
    fn expect(&mut self, digits: &str, label: &str, events: Vec<Event>) -> Vec<u16> {
        let (told, phone, relayed) = self.play(events);
        let read = |heard: &Heard| heard.iter().map(|(digit, _)| *digit).collect::<String>();
        let label = format!("{label}, {} Hz", self.clock);
        assert_eq!(read(&told), digits, "{label}");
        assert_eq!(phone, digits, "{label}");
        if self.clock == 8_000 {
            assert_eq!(relayed, told, "{label}");
        }
        told.iter().map(|(_, duration_ms)| *duration_ms).collect()
    }
}

// RFC 4733 2.5.2.2: the marker bit may be lost with its packet, or never have been set.
#[test]
fn f08_an_event_without_a_marker_bit_is_one_digit() {
    for clock in CLOCKS {
        let mut line = Line::new(clock);
        let mut events = [press(clock, '1', 0, 100), press(clock, '1', 300, 100)].concat();
        events.iter_mut().for_each(|event| event.marker = false);
        assert_eq!(line.expect("11", "none", events.clone()), [100, 100]);
        // Nor is there one for each packet that carries it.
        events.iter_mut().for_each(|event| event.marker = true);
        assert_eq!(line.expect("11", "all", events), [100, 100]);
    }
}

// RFC 4733 2.5.2.2: whatever comes first of an event begins it; what is lost of it at the end does not keep it up.
#[test]
fn f08_an_event_that_lost_its_start_or_its_end_is_one_digit() {
    for clock in CLOCKS {
        let mut line = Line::new(clock);
        let whole = press(clock, '5', 0, 100);
        for lost in 1..whole.len() {
            let next = press(clock, '5', 400, 60);
            let label = format!("{lost} lost at the start");
            line.expect("55", &label, [&whole[lost..], &next[..]].concat());
            let label = format!("{lost} lost at the end");
            let kept = &whole[..whole.len() - lost];
            let told = line.expect("55", &label, [kept, &next[..]].concat());
            assert_eq!(told[0], kept[kept.len() - 1].duration / (clock / 1_000) as u16, "{label}");
            // The last of all.
            assert_eq!(line.expect("5", &label, kept.to_vec()).len(), 1);
        }
    }
}

// RFC 4733 2.5.1.3: a duration beyond 0xFFFF goes on in segments, each with a timestamp of its own.
#[test]
fn f08_an_event_of_many_segments_is_one_digit() {
    for clock in CLOCKS {
        let length_ms = if clock == 8_000 { 18_000 } else { 5_000 };
        let mut line = Line::new(clock);
        let whole = press(clock, '0', 0, length_ms);
        let segments: std::collections::BTreeSet<u32> = whole.iter().map(|event| event.timestamp).collect();
        assert!(segments.len() >= 3, "{}", segments.len());
        assert_eq!(line.expect("0", "whole", whole.clone()), [length_ms as u16]);
        // A sender that does not fill its segments.
        let short = press_in(clock, '0', 0, length_ms, 0xFFFF / (20 * clock / 1_000) * (20 * clock / 1_000));
        assert_eq!(line.expect("0", "short segments", short.clone()), [length_ms as u16]);
        for whole in [&whole, &short] {
            let second = whole.iter().position(|event| event.timestamp != 0).unwrap();
            for lost in [1, 2, 4, 6] {
                for first in [second - lost, second - lost / 2, second] {
                    let mut events = whole.clone();
                    events.drain(first..first + lost);
                    let label = format!("{lost} lost from {first}, segment begins at {second}");
                    line.expect("0", &label, events);
                }
            }
        }
        // A gap so long that the digit is given up; what comes after it is no other.
        for lost in [10, 20] {
            for first in [second_of(&whole) - lost, second_of(&whole) - lost / 2, second_of(&whole)] {
                let mut events = whole.clone();
                events.drain(first..first + lost);
                line.expect("0", &format!("{lost} lost from {first}"), events);
            }
        }
        // Two long ones, one after the other.
        let twice = [press(clock, '0', 0, length_ms), press(clock, '0', length_ms + 100, length_ms)].concat();
        assert_eq!(line.expect("00", "twice", twice), [length_ms as u16; 2]);
    }
}

fn second_of(events: &[Event]) -> usize {
    events.iter().position(|event| event.timestamp != 0).unwrap()
}

// RFC 4733 2.5.1.4, 2.5.2.2: the copies of an end are sent while the next event has begun already.
#[test]
fn f08_events_that_overlap_are_each_one_digit() {
    for clock in CLOCKS {
        let mut line = Line::new(clock);
        let first = press(clock, '7', 0, 100);
        for (second, digits) in [('8', "78"), ('7', "77")] {
            for from_ms in [101, 110, 121] {
                let label = format!("{second} at {from_ms} ms, among the copies of the end");
                let next = press(clock, second, from_ms, 100);
                line.expect(digits, &label, [&first[..], &next[..]].concat());
                // The end comes behind the beginning of the next.
                let mut late = [&first[..], &next[..]].concat();
                late.iter_mut().filter(|event| event.timestamp == 0).for_each(|event| event.at_ms += 90);
                line.expect(digits, &format!("{label}, late"), late);
            }
        }
        // Both keys are down at once, and each has its packets; the second outlasts the first.
        let both = [press(clock, '1', 0, 300), press(clock, '2', 90, 400)].concat();
        line.expect("12", "both down", both);
        // One timestamp for two keys, from a sender that does not move it on.
        let mut frozen = [press(clock, '3', 0, 60), press(clock, '4', 200, 60)].concat();
        frozen.iter_mut().for_each(|event| event.timestamp = 0);
        line.expect("34", "one timestamp", frozen);
    }
}

// ITU-T Q.24: signals of 40 ms, and as long a pause.
#[test]
fn f08_digits_of_40_ms_are_each_one_digit_whatever_is_lost_of_them() {
    for clock in CLOCKS {
        let mut line = Line::new(clock);
        for seed in 1..=6 {
            let mut random = Random(seed);
            let keys = ['1', '1', '2', '3', '3', '3', 'A', '#', '#'];
            let mut events = Vec::new();
            for (n, key) in keys.into_iter().enumerate() {
                let mut digit = press(clock, key, n as u32 * 80, 40);
                while digit.len() > 1 && random.chance(500) {
                    digit.remove(random.below(digit.len() as u64) as usize);
                }
                if random.chance(300) {
                    digit.push(digit[digit.len() - 1]);
                }
                events.extend(digit);
            }
            line.expect("112333A##", &format!("seed {seed}"), events);
        }
    }
}

// RFC 4733 2.5.1.3: the overlay's clock is 48 kHz, where a segment is 1.4 s.
#[test]
fn f08_a_long_event_of_an_overlay_user_is_one_digit() {
    let mut call = Call::with_trunk(&Options::default());
    call.run(2 * SECOND);
    for loss_per_mille in [0, 100] {
        call.bridge_events.clear();
        assert!(call.phone.send_dtmf(DtmfDigit::from_char('9').unwrap(), 6_000));
        call.net.weather.loss_per_mille = loss_per_mille;
        call.run(8 * SECOND);
        call.net.weather.loss_per_mille = 0;
        assert_eq!(call.bridge_digits(Side::Overlay), "9");
        call.run(2 * SECOND);
    }
    assert_eq!(call.pbx_digits(), "99");
}

/// What of an outgoing digit's packet matters: payload type, sequence number, timestamp, marker, payload.
type Sent = (u8, u16, u32, bool, Vec<u8>);

fn sent(call: &mut Call) -> Vec<Sent> {
    let kept = call.pbx.kept.as_mut().map(std::mem::take).unwrap();
    let read = |bytes: &Vec<u8>| {
        let packet = RtpPacket::parse(bytes).unwrap();
        let payload = packet.payload().to_vec();
        (packet.payload_type(), packet.sequence(), packet.timestamp(), packet.marker(), payload)
    };
    kept.iter().map(read).collect()
}

// RFC 4733 2.5.1.1-2.5.1.4: the marker on the first, one timestamp, a growing duration, the end three times; and
// 2.5.1.2: no audio beside it.
#[test]
fn f09_digits_go_out_as_the_rfc_has_them() {
    for (clock, packet_ms) in
        [(8_000u32, 10u32), (8_000, 20), (8_000, 30), (8_000, 40), (8_000, 60), (48_000, 20)]
    {
        let mut call = Call::new(&Options::default());
        call.pbx.talks = false;
        call.pbx.kept = Some(Vec::new());
        call.phone_source = Box::new(tone(440.0, 8_000.0));
        let media = LegMedia { packet_time_ms: packet_ms as u16, ..media(clock) };
        call.bridge.set_trunk_media(&media, call.net.now).unwrap();
        call.run(2 * SECOND);
        for length_ms in [40u32, 100, 700] {
            let label = format!("{length_ms} ms at {clock} Hz in packets of {packet_ms} ms");
            sent(&mut call);
            call.run(SECOND / 5);
            let now = call.net.now;
            for digit in ['5', '5', '#'] {
                let digit = DtmfDigit::from_char(digit).unwrap();
                assert!(call.bridge.send_dtmf(now, Side::Trunk, digit, length_ms as u16));
            }
            call.run(4 * SECOND);
            let packets = sent(&mut call);
            for pair in packets.windows(2) {
                assert_eq!(pair[1].1, pair[0].1.wrapping_add(1), "{label}");
            }
            let firsts: Vec<usize> =
                (0..packets.len()).filter(|&n| packets[n].0 == 101 && packets[n].3).collect();
            assert_eq!(firsts.len(), 3, "{label}");
            for (first, code) in firsts.into_iter().zip([5, 5, 11]) {
                let steps = length_ms.div_ceil(packet_ms) as usize;
                let count = steps + 2;
                // Nothing but the digit from its first packet to its last.
                let digit = &packets[first..first + count];
                assert!(digit.iter().all(|packet| packet.0 == 101), "{label}");
                for (n, (_, _, timestamp, marker, payload)) in digit.iter().enumerate() {
                    let duration = u32::from(u16::from_be_bytes([payload[2], payload[3]]));
                    let reached = length_ms.min((n as u32 + 1) * packet_ms);
                    assert_eq!(duration, reached * (clock / 1_000), "{label}, packet {n}");
                    assert_eq!(*timestamp, digit[0].2, "{label}, packet {n}");
                    assert_eq!(*marker, n == 0, "{label}, packet {n}");
                    assert_eq!(payload[0], code, "{label}");
                    assert_eq!(
                        payload[1] & 0xc0,
                        if n + 1 >= steps { 0x80 } else { 0 },
                        "{label}, packet {n}"
                    );
                    assert_eq!(payload.len(), 4);
                }
                // Its timestamp is when it began on the clock of the voice; that goes on behind it.
                let (before, after) = (&packets[first - 1], &packets[first + count]);
                let audio = clock * packet_ms / 1_000;
                if clock == 8_000 && before.0 != 101 {
                    assert_eq!(digit[0].2, before.2.wrapping_add(audio), "{label}");
                }
                if clock == 8_000 {
                    assert_eq!(after.2, digit[0].2.wrapping_add(count as u32 * audio), "{label}");
                }
                assert!(after.3, "{label}: the voice begins anew");
            }
        }
    }
}

/// RFC 4733 2.5.1.2: while a digit is sent, nobody hears the voice that was said meanwhile, then or later.
#[test]
fn f09_the_voice_under_a_digit_is_not_heard() {
    let mut call = Call::with_trunk(&Options::default());
    call.phone_source = Box::new(tone(440.0, 8_000.0));
    call.run(3 * SECOND);
    let before = call.pbx.heard.len();
    assert!(call.bridge.send_dtmf(call.net.now, Side::Trunk, DtmfDigit::from_char('1').unwrap(), 600));
    call.run(3 * SECOND);
    // The event lasts 600 ms and two copies of its end.
    let heard = call.pbx.heard.len() - before;
    assert!(heard.abs_diff(24_000 - 640 * 8) <= 320, "{heard}");
    assert_eq!(call.pbx_digits(), "1");
    assert_eq!(call.pbx.digits[0].1, 600);
}
