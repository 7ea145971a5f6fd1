//! Redundant audio data (RFC 2198) between a phone and a bridge: negotiated, sent while packets are lost, and heard.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::Side;
use transcoder::{DtlsIdentity, WebRtcConfig, WebRtcLeg};

#[path = "common/mod.rs"]
mod common;
use common::call::{Call, Options};
use common::signal::speech;
use common::{Network, address};

const SECOND: Duration = Duration::from_secs(1);

fn leg(redundancy: bool, ice_lite: bool) -> WebRtcLeg {
    let config = WebRtcConfig { local: vec![address("192.0.2.1:4000")], ice_lite, g711: true, redundancy };
    WebRtcLeg::new(config, &DtlsIdentity::generate().unwrap(), Network::new(1).now).unwrap()
}

fn has(sdp: &str, line: &str) -> bool {
    sdp.lines().any(|other| other == line)
}

#[test]
fn redundancy_is_agreed_on_where_both_sides_name_it_and_only_there() {
    for (offers, answers) in [(true, true), (true, false), (false, true), (false, false)] {
        let (mut caller, mut callee) = (leg(offers, false), leg(answers, true));
        let offer = caller.create_offer().unwrap();
        assert_eq!(has(&offer, "a=rtpmap:63 red/48000/2"), offers, "{offer}");
        assert_eq!(has(&offer, "a=fmtp:63 111/111"), offers, "{offer}");
        let answer = callee.accept_offer(&offer).unwrap();
        let both = offers && answers;
        assert_eq!(has(&answer, "a=rtpmap:63 red/48000/2"), both, "{answer}");
        assert_eq!(has(&answer, "a=fmtp:63 111/111"), both, "{answer}");
        caller.accept_answer(&answer).unwrap();
        assert_eq!((caller.has_redundancy(), callee.has_redundancy()), (both, both));
    }
}

#[test]
fn payload_types_are_the_offerers_and_what_is_redundant_must_be_opus() {
    let offer = leg(true, false).create_offer().unwrap();
    let answer = |offer: &str| {
        let mut callee = leg(true, true);
        (callee.accept_offer(offer).unwrap(), callee.has_redundancy())
    };
    // As another browser would have it.
    let other = offer
        .replace("a=rtpmap:63 ", "a=rtpmap:98 ")
        .replace("a=fmtp:63 ", "a=fmtp:98 ")
        .replace(" 63", " 98");
    let (described, agreed) = answer(&other);
    assert!(
        agreed && has(&described, "a=rtpmap:98 red/48000/2") && has(&described, "a=fmtp:98 111/111"),
        "{described}"
    );
    // What it is made of is not said, or is another codec: old telephones have `red` without a word more.
    let bare: String = offer
        .lines()
        .filter(|line| !line.starts_with("a=fmtp:63"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    for offer in [bare, offer.replace("a=fmtp:63 111/111", "a=fmtp:63 96/96")] {
        let (described, agreed) = answer(&offer);
        assert!(!agreed && !described.contains("red/"), "{described}");
    }
}

/// A call of speech both ways.
fn call(seed: u64, redundancy: [bool; 2]) -> Call {
    let mut call = Call::with_trunk(&Options { seed, redundancy, ..Options::default() });
    call.pbx.source = Box::new(speech());
    call.phone_source = Box::new(speech());
    call.run(5 * SECOND);
    assert!(call.connected());
    call
}

/// One packet in ten is lost, three in a row.
fn lose_in_bursts(call: &mut Call) {
    call.net.weather.loss_per_mille = 37;
    call.net.burst = 3;
}

#[test]
fn nothing_is_sent_twice_until_loss_is_reported_and_half_a_minute_after_it_ended() {
    let mut call = call(3, [true; 2]);
    assert_eq!((call.bridge.redundancy(), call.phone.redundancy()), (0, 0));
    lose_in_bursts(&mut call);
    // Reports come every five seconds or so, and some see little of it.
    for _ in 0..20 {
        call.run(2 * SECOND);
        if (call.bridge.redundancy(), call.phone.redundancy()) == (3, 3) {
            break;
        }
    }
    assert_eq!((call.bridge.redundancy(), call.phone.redundancy()), (3, 3));
    // Whole frames come back, so the coarse copies within them rest.
    assert_eq!(call.bridge.fec_percent(), 0);
    call.net.weather.loss_per_mille = 0;
    call.run(75 * SECOND);
    assert_eq!((call.bridge.redundancy(), call.phone.redundancy()), (0, 0));
    assert_eq!(call.bridge.overlay_counters().refused() + call.phone.counters().refused(), 0);
}

#[test]
fn a_side_that_does_not_name_it_is_sent_in_band_fec() {
    for redundancy in [[true, false], [false, true]] {
        let mut call = call(4, redundancy);
        lose_in_bursts(&mut call);
        call.run(20 * SECOND);
        assert_eq!((call.bridge.redundancy(), call.phone.redundancy()), (0, 0));
        assert!(call.bridge.fec_percent() > 0);
        let heard = [call.bridge.quality(Side::Overlay), call.phone.quality()];
        assert!(
            heard.iter().all(|quality| quality.frames_redundant == 0 && quality.frames_recovered > 0),
            "{heard:?}"
        );
    }
}

/// What one side heard of a minute of bursts: frames lost, brought back and made up.
struct Heard {
    lost: u64,
    brought_back: u64,
    made_up: u64,
}

/// Returns what the gateway heard, and the phone, and the rating of the last five seconds at the gateway.
fn minute_of_bursts(seed: u64, on: bool) -> ([Heard; 2], f32) {
    let mut call = call(seed, [on; 2]);
    lose_in_bursts(&mut call);
    call.run(20 * SECOND);
    let of = |call: &Call| [call.bridge.quality(Side::Overlay), call.phone.quality()];
    let before = of(&call);
    call.run(60 * SECOND);
    let after = of(&call);
    for quality in &after {
        // A copy is no packet that came, so nothing came twice, and nothing looks like jitter.
        assert_eq!((quality.packets_duplicate, quality.packets_refused), (0, 0), "seed {seed}: {quality:?}");
        assert!(quality.jitter_ms < 5.0, "seed {seed}: {quality:?}");
        assert!(quality.playout_delay_max_ms <= if on { 80.0 } else { 40.0 }, "seed {seed}: {quality:?}");
    }
    let heard = [0, 1].map(|at| Heard {
        lost: after[at].packets_lost - before[at].packets_lost,
        brought_back: after[at].frames_recovered - before[at].frames_recovered,
        made_up: after[at].frames_concealed - before[at].frames_concealed,
    });
    (heard, after[0].recent.unwrap().r_factor)
}

#[test]
fn bursts_of_three_are_mended_both_ways() {
    let seeds = [1, 2, 3];
    let (mut with, mut without) = (0.0, 0.0);
    for seed in seeds {
        let (heard, rating) = minute_of_bursts(seed, true);
        with += rating;
        for Heard { lost, brought_back, made_up } in heard {
            println!("redundancy: lost {lost}, brought back {brought_back}, made up {made_up}, R {rating}");
            assert!(lost > 150, "seed {seed}: {lost}");
            assert!(brought_back * 100 > lost * 80, "seed {seed}: {brought_back} of {lost}");
            assert!(made_up * 100 < lost * 25, "seed {seed}: {made_up} for {lost}");
        }
        let (heard, rating) = minute_of_bursts(seed, false);
        without += rating;
        for Heard { lost, brought_back, made_up } in heard {
            println!("in-band FEC: lost {lost}, brought back {brought_back}, made up {made_up}, R {rating}");
            assert!(
                brought_back * 100 < lost * 40 && made_up * 100 > lost * 50,
                "seed {seed}: {made_up} for {lost}"
            );
        }
    }
    // What was brought back was heard.
    assert!(with - without > 10.0 * seeds.len() as f32, "{with} {without}");
}
