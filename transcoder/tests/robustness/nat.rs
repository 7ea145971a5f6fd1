//! A trunk behind an address translator: what its description names is not where its media comes from (RFC 7362 4).

use call_model::{Codec, Direction, MediaSecurity, SrtpKey, SrtpKeys, SrtpSuite};
use transcoder::leg::rtp::{Refusal, SourceRule};

use crate::common::address;
use crate::common::call::{Call, FRAME, GATEWAY_RTCP, GATEWAY_RTP, Options, TRUNK_RTP, trunk_media};
use crate::common::signal::{mean_tone_share, tone};
use crate::{SECOND, last, rtp};

/// What the translator makes of the trunk's addresses.
const PUBLIC_RTP: &str = "203.0.113.77:41000";
const PUBLIC_RTCP: &str = "203.0.113.77:52001";
/// The same after it has forgotten them.
const LATER_RTP: &str = "203.0.113.77:43000";
const STRANGER: &str = "198.51.100.66:41000";

fn signalling() -> SourceRule {
    SourceRule::Signalling(address(PUBLIC_RTP).ip())
}

/// A call whose PBX sends nothing by itself: what it would send is delivered from elsewhere.
fn call(rule: SourceRule) -> Call {
    let mut call = Call::new(&Options::default());
    call.bridge.set_trunk_source_rule(rule);
    call.bridge.set_trunk_media(&trunk_media(Codec::Pcma, 20), call.net.now).unwrap();
    translated(&mut call);
    call
}

fn translated(call: &mut Call) {
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.pbx.mangle = Some(Box::new(|_| Vec::new()));
    call.run(SECOND);
}

/// Lets the PBX speak from an address.
fn speak(call: &mut Call, from: &str, frames: usize) {
    for _ in 0..frames {
        call.run(FRAME);
        let packet = call.pbx.last_packet.clone();
        call.deliver(call.net.now, address(from), address(GATEWAY_RTP), &packet);
    }
}

/// Lets a stranger speak with a source of its own. Returns how many packets were heard.
fn inject(call: &mut Call, from: &str) -> u64 {
    let before = call.bridge.trunk_counters().received;
    for n in 0..50u16 {
        let packet = rtp(8, n, u32::from(n) * 160, 4, &[0x2a; 160]);
        call.deliver(call.net.now, address(from), address(GATEWAY_RTP), &packet);
        call.run(FRAME);
    }
    call.bridge.trunk_counters().received - before
}

fn share(call: &Call) -> f64 {
    mean_tone_share(last(&call.phone_heard, 6_000), 1000.0, 8000.0)
}

#[test]
fn f22_behind_a_translator_media_is_heard_from_where_the_signalling_comes() {
    let mut call = call(signalling());
    assert_eq!(inject(&mut call, STRANGER), 0);
    assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::Source), 50);
    assert!(call.strays.is_empty(), "{:?}", call.strays);
    speak(&mut call, PUBLIC_RTP, 150);
    assert!(share(&call) > 0.98);
    assert_eq!((call.bridge.trunk_counters().received, call.bridge.trunk_counters().moves), (150, 1));
    assert!(call.strays.len() >= 149 && call.strays.iter().all(|to| *to == address(PUBLIC_RTP)));
    // Once for each offer and answer: neither a stranger, nor another port there, nor what was described.
    for from in [STRANGER, LATER_RTP, TRUNK_RTP] {
        assert_eq!(inject(&mut call, from), 0, "{from}");
    }
    speak(&mut call, PUBLIC_RTP, 100);
    assert!(share(&call) > 0.98);
    assert_eq!(call.bridge.trunk_counters().moves, 1);
}

#[test]
fn f22_without_the_rule_the_signalling_address_is_a_stranger_too() {
    for rule in [SourceRule::Negotiated, SourceRule::Authenticated] {
        let mut call = call(rule);
        assert_eq!((inject(&mut call, PUBLIC_RTP), inject(&mut call, STRANGER)), (0, 0), "{rule:?}");
        assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::Source), 100);
        assert_eq!(call.bridge.trunk_counters().moves, 0);
        assert!(call.strays.is_empty(), "{:?}", call.strays);
        speak(&mut call, TRUNK_RTP, 100);
        assert!(share(&call) > 0.98);
    }
}

// Whoever is heard at the described address is behind no translator: who forges the address of its signalling, or has
// another machine there, does not get the call.
#[test]
fn f22_what_was_heard_as_described_is_followed_nowhere() {
    let mut call = call(signalling());
    speak(&mut call, TRUNK_RTP, 50);
    assert_eq!(inject(&mut call, PUBLIC_RTP), 0);
    speak(&mut call, TRUNK_RTP, 100);
    assert!(share(&call) > 0.98 && call.strays.is_empty());
    // A new offer and answer may move it, though.
    call.bridge.set_trunk_media(&trunk_media(Codec::Pcma, 20), call.net.now).unwrap();
    speak(&mut call, PUBLIC_RTP, 100);
    assert!(share(&call) > 0.98);
    assert_eq!(call.bridge.trunk_counters().moves, 1);
}

// RFC 3264 8: a refresh or a hold that names the same address is from the same peer, who is where it was; the one
// that holds is sent music all the while.
#[test]
fn f22_a_refresh_keeps_what_was_learned_and_allows_one_more_move() {
    let mut call = call(signalling());
    speak(&mut call, PUBLIC_RTP, 50);
    for direction in [Direction::SendOnly, Direction::SendRecv] {
        call.strays.clear();
        let media = call_model::LegMedia { direction, ..trunk_media(Codec::Pcma, 20) };
        call.bridge.set_trunk_media(&media, call.net.now).unwrap();
        call.run(SECOND);
        assert!(call.strays.len() >= 49, "{direction:?}");
        assert!(call.strays.iter().all(|to| *to == address(PUBLIC_RTP)), "{:?}", call.strays);
    }
    speak(&mut call, LATER_RTP, 100);
    assert!(share(&call) > 0.98);
    assert_eq!(inject(&mut call, PUBLIC_RTP), 0);
    // Back to what was described is possible too, and then the next offer and answer counts.
    call.bridge.set_trunk_media(&trunk_media(Codec::Pcma, 20), call.net.now).unwrap();
    speak(&mut call, TRUNK_RTP, 100);
    assert!(share(&call) > 0.98);
    assert_eq!((inject(&mut call, LATER_RTP), call.bridge.trunk_counters().moves), (0, 3));
    // Another address is another place: nothing is kept.
    let mut media = trunk_media(Codec::Pcma, 20);
    media.remote_rtp = address(STRANGER);
    call.strays.clear();
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    call.run(SECOND);
    assert!(!call.strays.is_empty() && call.strays.iter().all(|to| *to == address(STRANGER)));
}

// RFC 3550 11: reports have a port of their own, which the translator has given another number.
#[test]
fn f22_reports_follow_by_themselves() {
    let mut call = call(signalling());
    speak(&mut call, PUBLIC_RTP, 50);
    let report = [0x80, 201, 0, 1, 1, 2, 3, 4];
    for (from, heard) in [(STRANGER, 0), (PUBLIC_RTCP, 1), (PUBLIC_RTP, 1), (PUBLIC_RTCP, 2)] {
        call.deliver(call.net.now, address(from), address(GATEWAY_RTCP), &report);
        assert_eq!(call.bridge.trunk_counters().rtcp_received, heard, "{from}");
    }
    call.strays.clear();
    call.run(10 * SECOND);
    assert!(call.strays.contains(&address(PUBLIC_RTCP)));
    assert!(call.pbx.rtcp.len() <= 1, "no more go where nobody is");
    // A report does not move voice.
    let mut other = self::call(signalling());
    other.deliver(other.net.now, address(PUBLIC_RTP), address(GATEWAY_RTP), &report);
    assert_eq!(other.bridge.trunk_counters().refused_for(Refusal::Source), 1);
    assert_eq!(other.bridge.trunk_counters().moves, 0);
}

fn key(seed: u8) -> SrtpKey {
    let suite = SrtpSuite::ALL[0];
    SrtpKey::new(suite, &vec![seed; suite.key_len() + suite.salt_len()]).unwrap()
}

// Under SRTP the address proves nothing, and the key does wherever it comes from.
#[test]
fn f22_under_srtp_the_key_decides_and_not_the_address() {
    let mut call = Call::new(&Options::default());
    call.pbx.set_keys(&key(2), &key(1));
    call.bridge.set_trunk_source_rule(signalling());
    let mut media = trunk_media(Codec::Pcma, 20);
    let keys = SrtpKeys { suite: SrtpSuite::ALL[0], send: key(1), receive: vec![key(2)] };
    media.security = MediaSecurity::Sdes(Box::new(keys));
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    translated(&mut call);
    assert_eq!(inject(&mut call, PUBLIC_RTP), 0);
    assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::Source), 50);
    assert!(call.strays.is_empty());
    speak(&mut call, STRANGER, 100);
    assert!(share(&call) > 0.98);
    assert_eq!(call.bridge.trunk_counters().moves, 1);
    assert!(call.strays.iter().all(|to| *to == address(STRANGER)));
    speak(&mut call, PUBLIC_RTP, 10);
    assert_eq!(call.bridge.trunk_counters().moves, 1);
}
