//! The trunk leg under SRTP whose keys came in session descriptions (RFC 3711, RFC 4568).
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, Instant};

use call_model::{Codec, LegMedia, MediaSecurity, Side, SrtpKey, SrtpKeys, SrtpSuite};
use transcoder::Port;
use transcoder::leg::PayloadKind;
use transcoder::leg::rtp::{Received, Refusal, RtpLeg};
use transcoder::rtp::{Numbering, RtpSender};
use transcoder::srtp::{MAX_OVERHEAD, SrtpSender};

#[path = "common/mod.rs"]
mod common;
use common::address;
use common::call::{Call, Options, trunk_media};
use common::signal::{mean_tone_share, tone};

const A: &str = "192.0.2.1:20000";
const A_RTCP: &str = "192.0.2.1:20001";
const B: &str = "203.0.113.5:30000";
const B_RTCP: &str = "203.0.113.5:30001";

fn key(suite: SrtpSuite, seed: u8) -> SrtpKey {
    let bytes: Vec<u8> = (0..suite.key_len() + suite.salt_len()).map(|n| seed ^ n as u8).collect();
    SrtpKey::new(suite, &bytes).unwrap()
}

/// What side A, or its mirror image B, negotiated.
fn media(is_a: bool, send: &SrtpKey, receive: &SrtpKey) -> LegMedia {
    let mut media = trunk_media(Codec::Pcma, 20);
    media.telephone_event = None;
    let (rtp, rtcp) = if is_a { (B, B_RTCP) } else { (A, A_RTCP) };
    (media.remote_rtp, media.remote_rtcp) = (address(rtp), Some(address(rtcp)));
    media.security = MediaSecurity::Sdes(Box::new(SrtpKeys {
        suite: send.suite(),
        send: send.clone(),
        receive: vec![receive.clone()],
    }));
    media
}

struct Pair {
    now: Instant,
    start: Instant,
    a: RtpLeg,
    b: RtpLeg,
    time: u64,
}

impl Pair {
    fn new(a_key: &SrtpKey, b_key: &SrtpKey) -> Self {
        let now = Instant::now();
        let mut pair = Self { now, start: now, a: RtpLeg::new(1, now), b: RtpLeg::new(2, now), time: 0 };
        pair.set_keys(a_key, b_key);
        pair
    }

    fn set_keys(&mut self, a_key: &SrtpKey, b_key: &SrtpKey) {
        self.a.set_media(&media(true, a_key, b_key), self.now).unwrap();
        self.b.set_media(&media(false, b_key, a_key), self.now).unwrap();
    }

    /// A sends 20 ms of voice; returned is what goes over the wire.
    fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut emit = |_: Port, _, bytes: &[u8]| wire = bytes.to_vec();
        assert!(self.a.send(self.now, PayloadKind::Audio, false, self.time, payload, &mut emit));
        self.time += 160;
        self.now += Duration::from_millis(20);
        wire
    }

    fn deliver(&mut self, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
        match self.b.handle_datagram(self.now, Port::Rtp, address(A), packet)? {
            Received::Audio(packet, _) => Ok(packet.payload().to_vec()),
            other => panic!("{other:?}"),
        }
    }
}

// RFC 4568 6.2, RFC 6188, RFC 7714: each suite, RTP and RTCP.
#[test]
fn f16_every_suite_carries_voice_and_reports() {
    for suite in SrtpSuite::ALL {
        let mut pair = Pair::new(&key(suite, 1), &key(suite, 2));
        let payload = [0x55; 160];
        while pair.now < pair.start + Duration::from_secs(20) {
            let wire = pair.packet(&payload);
            assert!(wire.len() > 12 + payload.len() && !wire.windows(16).any(|part| part == &payload[..16]));
            assert_eq!(pair.deliver(&wire).unwrap(), payload, "{suite:?}");
            let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
            pair.a.handle_timeout(pair.now, &mut |port, _, bytes| from_a.push((port, bytes.to_vec())));
            pair.b.handle_timeout(pair.now, &mut |port, _, bytes| from_b.push((port, bytes.to_vec())));
            for (port, packet) in from_a {
                assert_eq!(port, Port::Rtcp);
                pair.b.handle_datagram(pair.now, port, address(A_RTCP), &packet).unwrap();
            }
            for (port, packet) in from_b {
                // A report names our source in the clear only where it is not encrypted.
                assert!(transcoder::rtp::rtcp::parse(&packet).is_err());
                pair.a.handle_datagram(pair.now, port, address(B_RTCP), &packet).unwrap();
            }
        }
        assert!(pair.a.counters().rtcp_sent >= 2 && pair.b.counters().rtcp_sent >= 2);
        assert_eq!(pair.a.counters().rtcp_received, pair.b.counters().rtcp_sent);
        assert_eq!((pair.a.counters().refused(), pair.b.counters().refused()), (0, 0));
        assert!(pair.a.round_trip().is_some());
    }
}

// RFC 3711 3.3: what is not authentic does nothing, from the right address too.
#[test]
fn f16_plain_forged_and_repeated_packets_are_refused_and_counted() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let mut pair = Pair::new(&key(suite, 1), &key(suite, 2));
    let wire = pair.packet(&[1; 160]);
    let mut plain = vec![0; 172];
    RtpSender::new(9).write_header(pair.now, 8, false, 0, 160, &mut plain).unwrap();
    assert_eq!(pair.deliver(&plain), Err(Refusal::Unauthentic));
    let mut forged = wire.clone();
    forged[40] ^= 1;
    assert_eq!(pair.deliver(&forged), Err(Refusal::Unauthentic));
    assert_eq!(pair.deliver(&wire[..20]), Err(Refusal::Malformed));
    assert_eq!(pair.deliver(&vec![0x80; 4_000]), Err(Refusal::Malformed));
    assert!(pair.deliver(&wire).is_ok());
    assert_eq!(pair.deliver(&wire), Err(Refusal::Replayed));
    let counters = pair.b.counters();
    assert_eq!(counters.refused_for(Refusal::Unauthentic), 2);
    assert_eq!((counters.refused_for(Refusal::Replayed), counters.received), (1, 1));
}

// RFC 4568 6.1: the lifetime of what we send is held.
#[test]
fn f16_nothing_is_sent_under_a_key_whose_lifetime_is_over() {
    let key = |seed| key(SrtpSuite::AeadAes128Gcm, seed).with_lifetime(2).unwrap();
    let mut pair = Pair::new(&key(1), &key(2));
    for _ in 0..2 {
        let wire = pair.packet(&[1; 160]);
        pair.deliver(&wire).unwrap();
    }
    let mut emit = |_: Port, _, _: &[u8]| panic!("sent");
    assert!(!pair.a.send(pair.now, PayloadKind::Audio, false, pair.time, &[1; 160], &mut emit));
    assert_eq!((pair.a.counters().expired, pair.a.counters().sent), (1, 2));
    pair.set_keys(&key(3), &key(4));
    let wire = pair.packet(&[1; 160]);
    pair.deliver(&wire).unwrap();
}

// RFC 3711 3.3.1: more than 2^16 packets, and a new key behind the wrap.
#[test]
fn f19_voice_goes_on_over_the_rollover_and_over_a_new_key_behind_it() {
    for suite in [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes256Gcm] {
        let mut pair = Pair::new(&key(suite, 1), &key(suite, 2));
        for n in 0..140_000u32 {
            if n == 100_000 {
                // Both sides learn of the keys between two packets, but what is under way arrives.
                let held: Vec<_> = (0..5).map(|_| pair.packet(&[7; 160])).collect();
                pair.set_keys(&key(suite, 3), &key(suite, 4));
                let first = pair.packet(&[8; 160]);
                assert_eq!(pair.deliver(&held[0]).unwrap(), [7; 160]);
                assert_eq!(pair.deliver(&first).unwrap(), [8; 160]);
                for packet in &held[1..] {
                    assert_eq!(pair.deliver(packet).unwrap(), [7; 160]);
                }
            }
            let wire = pair.packet(&n.to_be_bytes());
            assert_eq!(pair.deliver(&wire).unwrap(), n.to_be_bytes(), "{suite:?} {n}");
        }
        assert_eq!((pair.b.counters().refused(), pair.b.statistics().lost()), (0, 0));
        assert_eq!(pair.b.counters().ssrc_changes, 0);
    }
}

// The same keys in a new description, or a while without SRTP, do not begin anything anew.
#[test]
fn f19_the_same_key_again_keeps_counter_and_replay_list() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let mut pair = Pair::new(&key(suite, 1), &key(suite, 2));
    let mut first = Vec::new();
    for n in 0..70_000u32 {
        let wire = pair.packet(&[1; 20]);
        pair.deliver(&wire).unwrap();
        if n == 69_990 {
            first = wire;
        }
    }
    pair.set_keys(&key(suite, 1), &key(suite, 2));
    assert_eq!(pair.deliver(&first), Err(Refusal::Replayed));
    let mut plain = media(true, &key(suite, 1), &key(suite, 2));
    plain.security = MediaSecurity::None;
    pair.a.set_media(&plain, pair.now).unwrap();
    pair.set_keys(&key(suite, 1), &key(suite, 2));
    let wire = pair.packet(&[1; 20]);
    pair.deliver(&wire).unwrap();
}

// A source that changes under SRTP is the other side's, for only that has the key: no packet is lost
// to doubt, and one of the former source that comes late changes nothing back.
#[test]
fn f19_a_new_source_under_srtp_is_believed_at_once() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let mut pair = Pair::new(&key(suite, 1), &key(suite, 2));
    let mut late = Vec::new();
    for n in 0..10 {
        let wire = pair.packet(&[1; 160]);
        if n == 9 {
            late = wire;
        } else {
            pair.deliver(&wire).unwrap();
        }
    }
    let (mut source, mut sender) = (RtpSender::new(77), SrtpSender::new(&key(suite, 1)));
    for n in 0..10u8 {
        let mut packet = vec![n; 172 + MAX_OVERHEAD];
        source.write_header(pair.now, 8, n == 0, u64::from(n) * 160, 160, &mut packet).unwrap();
        let length = sender.protect_rtp(&mut packet, 172).unwrap();
        assert_eq!(pair.deliver(&packet[..length]).unwrap(), [n; 160]);
        if n == 3 {
            assert_eq!(pair.deliver(&late), Err(Refusal::Ssrc));
        }
    }
    assert_eq!(pair.b.counters().ssrc_changes, 1);
}

// A call through the bridge: keys from the first description on, and other keys in a later one.
#[test]
fn f16_f19_a_call_to_a_trunk_with_srtp_is_heard_through_a_change_of_keys() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let mut call = Call::new(&Options::default());
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    let set_keys = |call: &mut Call, ours: u8, theirs: u8| {
        let mut media = trunk_media(Codec::Pcma, 20);
        let (send, receive) = (key(suite, ours), key(suite, theirs));
        call.pbx.set_keys(&receive, &send);
        media.security = MediaSecurity::Sdes(Box::new(SrtpKeys { suite, send, receive: vec![receive] }));
        let now = call.net.now;
        call.bridge.set_trunk_media(&media, now).unwrap();
    };
    set_keys(&mut call, 1, 2);
    call.run(Duration::from_secs(3));
    assert!(call.connected());
    let before = call.bridge.quality(Side::Trunk);
    set_keys(&mut call, 3, 4);
    call.run(Duration::from_secs(3));
    let after = call.bridge.quality(Side::Trunk);
    assert!(after.packets_received >= before.packets_received + 145, "{after:?}");
    assert_eq!((after.packets_lost, after.packets_refused), (0, 0), "{after:?}");
    assert_eq!(after.frames_concealed, before.frames_concealed);
    assert_eq!(call.pbx.unauthentic, 0);
    let heard = &call.phone_heard[call.phone_heard.len() - 16_000..];
    assert!(mean_tone_share(heard, 1000.0, 8000.0) > 0.9);
    let heard = &call.pbx.heard[call.pbx.heard.len() - 16_000..];
    assert!(mean_tone_share(heard, 440.0, 8000.0) > 0.9);
    assert!(call.pbx.timestamps.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)));
}

// A call from one trunk to another keeps the numbers it came with: what was swapped goes on swapped,
// what was doubled goes on once, for an index protects one packet (RFC 3711 9.1).
#[test]
fn f16_packets_passed_on_out_of_order_are_protected_and_copies_are_not() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let mut pair = Pair::new(&key(suite, 1), &key(suite, 2));
    let mut passed = Vec::new();
    for sequence in [100u16, 102, 101, 101, 103] {
        let numbering = Numbering { sequence, timestamp: u32::from(sequence) * 160 };
        let mut wire = None;
        let mut emit = |_: Port, _, bytes: &[u8]| wire = Some(bytes.to_vec());
        assert!(pair.a.forward(pair.now, PayloadKind::Audio, false, numbering, &[1; 160], &mut emit));
        if let Some(wire) = wire {
            pair.deliver(&wire).unwrap();
            passed.push(sequence);
        }
    }
    assert_eq!(passed, [100, 102, 101, 103]);
    assert_eq!((pair.b.counters().received, pair.a.counters().expired), (4, 0));
}
