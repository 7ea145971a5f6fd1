//! Whose packets are heard (RFC 7362 4, RFC 3550 8.2).

use std::time::Duration;

use call_model::{Codec, LegMedia, MediaSecurity, Side, SrtpKey, SrtpKeys, SrtpSuite};
use transcoder::leg::rtp::{Refusal, SourceRule};
use transcoder::rtp::RtpPacket;

use crate::common::address;
use crate::common::call::{Call, FRAME, GATEWAY_RTP, Options, TRUNK_RTP, trunk_media};
use crate::common::signal::{mean_tone_share, tone, tone_share};
use crate::{SECOND, last, renumbered, rtp};

const ELSEWHERE: &str = "203.0.113.77:41000";

fn call() -> Call {
    let mut call = Call::with_trunk(&Options::default());
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call
}

fn key(seed: u8) -> SrtpKey {
    let suite = SrtpSuite::ALL[0];
    SrtpKey::new(suite, &vec![seed; suite.key_len() + suite.salt_len()]).unwrap()
}

/// A call with SRTP on its trunk leg, and what was negotiated.
fn secured() -> (Call, LegMedia) {
    let mut call = Call::new(&Options::default());
    let keys = SrtpKeys { suite: SrtpSuite::ALL[0], send: key(1), receive: vec![key(2)] };
    call.pbx.set_keys(&key(2), &key(1));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    let mut media = trunk_media(Codec::Pcma, 20);
    media.security = MediaSecurity::Sdes(Box::new(keys));
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    (call, media)
}

#[test]
fn f22_nothing_is_learned_from_a_stranger_not_even_from_the_first_packet() {
    let mut call = call();
    call.pbx.talks = false;
    call.run(SECOND);
    for n in 0..50u16 {
        let packet = rtp(8, n, u32::from(n) * 160, 4, &[0x2a; 160]);
        call.deliver(call.net.now, address(ELSEWHERE), address(GATEWAY_RTP), &packet);
        call.run(FRAME);
    }
    assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::Source), 50);
    assert_eq!((call.bridge.trunk_counters().received, call.bridge.trunk_source()), (0, None));
    call.pbx.talks = true;
    call.run(2 * SECOND);
    assert!(mean_tone_share(last(&call.phone_heard, 8_000), 1000.0, 8000.0) > 0.98);
    assert!(call.strays.is_empty(), "{:?}", call.strays);
}

// RFC 3264 8.3.1: a new offer and answer may move the media, and from then on the address before is a stranger's.
#[test]
fn f22_a_new_offer_and_answer_moves_the_media() {
    let mut call = call();
    call.run(2 * SECOND);
    let mut media = trunk_media(Codec::Pcma, 20);
    media.remote_rtp = address(ELSEWHERE);
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    let (before, refused) = (*call.bridge.trunk_counters(), call.bridge.trunk_counters().refused());
    call.run(SECOND);
    assert_eq!(call.bridge.trunk_counters().received, before.received, "the old address is heard no more");
    assert!(call.bridge.trunk_counters().refused_for(Refusal::Source) >= refused + 49);
    assert!(call.strays.len() >= 49 && call.strays.iter().all(|to| *to == address(ELSEWHERE)));
    let packet = rtp(8, 7, 160, 4, &[0x2a; 160]);
    call.deliver(call.net.now, address(ELSEWHERE), address(GATEWAY_RTP), &packet);
    assert_eq!(call.bridge.trunk_counters().received, before.received + 1);
}

// RFC 7362 4: what SRTP has authenticated may move the media where that is allowed, once for each offer and answer.
#[test]
fn f22_authenticated_media_moves_once_where_it_may() {
    for rule in [SourceRule::Negotiated, SourceRule::Authenticated] {
        let (mut call, media) = secured();
        call.bridge.set_trunk_source_rule(rule);
        call.run(2 * SECOND);
        let learns = rule == SourceRule::Authenticated;
        for round in 0..2u64 {
            // Forged first: it moves nothing. Then the next of the peer's own packets, from elsewhere.
            let mut forged = call.pbx.last_packet.clone();
            forged[20] ^= 1;
            forged[3] ^= 0x40;
            call.deliver(call.net.now, address(ELSEWHERE), address(GATEWAY_RTP), &forged);
            call.pbx.mangle = Some(Box::new(|_| Vec::new()));
            call.run(FRAME);
            let packet = call.pbx.last_packet.clone();
            let received = call.bridge.trunk_counters().received;
            call.deliver(call.net.now, address(ELSEWHERE), address(GATEWAY_RTP), &packet);
            assert_eq!(call.bridge.trunk_counters().received, received + u64::from(learns), "{rule:?}");
            call.strays.clear();
            call.run(10 * FRAME);
            assert_eq!(call.strays.is_empty(), !learns, "{rule:?}");
            assert!(call.strays.iter().all(|to| *to == address(ELSEWHERE)));
            if learns {
                // A third address, and the first: not before there is another offer and answer.
                let packet = call.pbx.last_packet.clone();
                let received = call.bridge.trunk_counters().received;
                for source in ["203.0.113.78:1", TRUNK_RTP] {
                    call.deliver(call.net.now, address(source), address(GATEWAY_RTP), &packet);
                }
                assert_eq!(call.bridge.trunk_counters().received, received, "round {round}");
            }
            call.pbx.mangle = None;
            call.bridge.set_trunk_media(&media, call.net.now).unwrap();
            call.run(2 * SECOND);
            let share = mean_tone_share(last(&call.phone_heard, 8_000), 1000.0, 8000.0);
            assert!(share > 0.9, "{rule:?}: {share}");
        }
    }
}

/// Sends the rest of an earlier call, a tone of 400 Hz, beside the new call's packets from the same address.
fn with_leftovers(call: &mut Call, begins_ms: i32) {
    let (mut n, mut old) = (0u16, tone(400.0, 8000.0));
    call.pbx.mangle = Some(Box::new(move |packet| {
        n += 1;
        let mut coded = [0; 160];
        let pcm: Vec<i16> = (0..160).map(|_| old()).collect();
        transcoder::codec::g711::Law::A.encode_into(&pcm, &mut coded);
        let stray = rtp(8, 30_000 + n, u32::from(n) * 160, 0xdead, &coded);
        let read = RtpPacket::parse(&packet).unwrap();
        let (sequence, timestamp) = (read.sequence(), read.timestamp());
        let mut out = vec![(Duration::from_millis(9), stray)];
        if i32::from(n) * 20 >= begins_ms {
            out.push((Duration::ZERO, renumbered(&packet, sequence, timestamp, 0xbeef)));
        }
        out
    }));
}

fn windows_of(samples: &[i16], frequency: f64) -> usize {
    samples.chunks_exact(160).filter(|window| tone_share(window, frequency, 8000.0) > 0.5).count()
}

#[test]
fn f23_what_an_earlier_call_left_is_not_heard_where_its_source_is_known() {
    let mut call = call();
    with_leftovers(&mut call, 500);
    call.bridge.refuse_trunk_sources(&[0xdead, 1, 2, 3]);
    call.run(6 * SECOND);
    assert_eq!(windows_of(&call.phone_heard, 400.0), 0);
    assert!(mean_tone_share(last(&call.phone_heard, 30_000), 1000.0, 8000.0) > 0.98);
    let counters = call.bridge.trunk_counters();
    assert!(counters.refused_for(Refusal::Ssrc) > 290, "{counters:?}");
    assert_eq!((counters.ssrc_changes, call.bridge.trunk_source()), (0, Some(0xbeef)));
    let quality = call.bridge.quality(Side::Trunk);
    assert_eq!(
        (quality.packets_lost, quality.packets_late, quality.packets_discarded),
        (0, 0, 0),
        "{quality:?}"
    );
}

#[test]
fn f23_the_new_call_is_heard_beside_what_an_earlier_one_left_and_no_less() {
    let mut call = call();
    // The rest comes first and goes on for as long as the new call does.
    with_leftovers(&mut call, 500);
    call.run(SECOND);
    let from = call.phone_heard.len();
    call.run(6 * SECOND);
    assert_eq!(windows_of(&call.phone_heard[from..], 400.0), 0);
    assert!(mean_tone_share(&call.phone_heard[from..], 1000.0, 8000.0) > 0.95);
    assert_eq!(call.bridge.trunk_source(), Some(0xbeef));
    assert!(call.bridge.trunk_counters().refused_for(Refusal::Ssrc) > 290);
    // Once the new one has ended for good, what remains may be heard again: it may have been the call after all.
    assert!(call.bridge.trunk_counters().ssrc_changes <= 3, "{:?}", call.bridge.trunk_counters());
}

#[test]
fn f23_under_srtp_nothing_of_an_earlier_call_gets_in() {
    let (mut call, _) = secured();
    call.run(2 * SECOND);
    let (mut old, _) = secured();
    old.pbx.set_keys(&key(9), &key(8));
    old.run(SECOND);
    let stray = old.pbx.last_packet;
    for n in 0..100u16 {
        let mut packet = stray.clone();
        packet[2..4].copy_from_slice(&(n + 1).to_be_bytes());
        packet[8..12].copy_from_slice(&0xdeadu32.to_be_bytes());
        call.deliver(call.net.now, address(TRUNK_RTP), address(GATEWAY_RTP), &packet);
        call.run(FRAME);
    }
    assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::Unauthentic), 100);
    assert!(mean_tone_share(last(&call.phone_heard, 14_000), 1000.0, 8000.0) > 0.98);
    assert_eq!(call.bridge.trunk_counters().ssrc_changes, 0);
}
