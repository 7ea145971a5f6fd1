//! Disorder in a stream of RTP (RFC 3550 A.1): copies, swaps, jumps, other sources and other clocks.

use std::collections::VecDeque;
use std::time::Duration;

use call_model::{Codec, Side};
use transcoder::BridgeConfig;
use transcoder::leg::rtp::Refusal;
use transcoder::rtp::RtpPacket;

use crate::common::call::{Call, Mangle, Options, trunk_media};
use crate::common::signal::{mean_tone_share, rms, tone, tone_share};
use crate::{SECOND, last, renumbered};

/// A call in which the trunk sends a tone and does something to its packets, after two good seconds. Silence is
/// encoded, so that nothing but the path changes what the phone hears.
fn call(mangle: Mangle) -> Call {
    let configure = |config: &mut BridgeConfig| config.suppress_silence = false;
    let mut call = Call::with_trunk(&Options { configure, ..Options::default() });
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(3 * SECOND);
    assert!(call.connected());
    call.pbx.mangle = Some(mangle);
    call
}

/// Windows of 20 ms, of those heard since `from`, that are not the tone that was sent.
fn spoilt(call: &Call, from: usize) -> usize {
    let heard = &call.phone_heard[from..];
    heard.chunks_exact(160).filter(|w| tone_share(w, 1000.0, 8000.0) < 0.8 || rms(w) < 3_000.0).count()
}

fn plain(packet: Vec<u8>) -> Vec<(Duration, Vec<u8>)> {
    vec![(Duration::ZERO, packet)]
}

#[test]
fn f05_copies_are_heard_once() {
    let mut call = call(Box::new(|packet| {
        vec![
            (Duration::ZERO, packet.clone()),
            (Duration::ZERO, packet.clone()),
            (Duration::from_millis(50), packet.clone()),
            (Duration::from_secs(3), packet),
        ]
    }));
    let from = call.phone_heard.len();
    call.run(8 * SECOND);
    assert_eq!(spoilt(&call, from), 0);
    let quality = call.bridge.quality(Side::Trunk);
    assert_eq!(
        (quality.packets_lost, quality.packets_late, quality.frames_concealed),
        (0, 0, 0),
        "{quality:?}"
    );
    assert!((540..=560).contains(&quality.packets_received), "{quality:?}");
}

#[test]
fn f05_neighbours_that_change_places_cost_nothing_once_the_delay_has_grown() {
    let mut held = None;
    let mut call = call(Box::new(move |packet| match held.take() {
        None => {
            held = Some(packet);
            Vec::new()
        }
        Some(first) => vec![(Duration::ZERO, packet), (Duration::from_micros(100), first)],
    }));
    call.run(3 * SECOND);
    let (from, before) = (call.phone_heard.len(), call.bridge.quality(Side::Trunk));
    call.run(6 * SECOND);
    assert_eq!(spoilt(&call, from), 0);
    let after = call.bridge.quality(Side::Trunk);
    assert_eq!(after.frames_concealed, before.frames_concealed, "{after:?}");
    assert_eq!((after.packets_lost, after.packets_late), (before.packets_lost, before.packets_late));
}

// RFC 3550 A.1: what comes 200 packets later is late, and neither a new stream nor heard; nor are ten of them in a row.
#[test]
fn f05_packets_that_come_200_later_are_late_and_disturb_nothing() {
    for run in [1usize, 2, 10] {
        let (mut n, mut kept) = (0usize, VecDeque::new());
        let mut call = call(Box::new(move |packet| {
            n += 1;
            // Out of every 250, some wait until 200 others have gone.
            if (50..50 + run).contains(&(n % 250)) {
                kept.push_back(packet);
                return Vec::new();
            }
            let mut out = plain(packet);
            if n % 250 == 249 {
                out.extend(kept.drain(..).map(|packet| (Duration::from_millis(1), packet)));
            }
            out
        }));
        let (from, before) = (call.phone_heard.len(), call.bridge.quality(Side::Trunk));
        call.run(20 * SECOND + SECOND / 2);
        let quality = call.bridge.quality(Side::Trunk);
        let held_up = 4 * run as u64;
        assert_eq!(quality.packets_late - before.packets_late, held_up, "{run}: {quality:?}");
        assert_eq!(quality.packets_lost, before.packets_lost, "{run}: what comes late is not lost");
        // What is not there in time is made up, and no more; a talkspurt counts as over after 60 ms.
        assert!(quality.frames_concealed <= held_up + 4, "{run}: {quality:?}");
        assert!(spoilt(&call, from) <= 4 * (run + 3), "{run}: {} spoilt", spoilt(&call, from));
    }
}

#[test]
fn f05_numbers_that_wrap_are_not_heard() {
    let mut call = call(Box::new(plain));
    let (mut sequence, mut timestamp) = (65_500u16, 4_294_960_000u32);
    call.pbx.mangle = Some(Box::new(move |packet| {
        (sequence, timestamp) = (sequence.wrapping_add(1), timestamp.wrapping_add(160));
        plain(renumbered(&packet, sequence, timestamp, 77))
    }));
    // Another source first: two packets until it is believed.
    call.run(SECOND / 2);
    let (from, before) = (call.phone_heard.len(), call.bridge.quality(Side::Trunk));
    call.run(4 * SECOND);
    assert_eq!(spoilt(&call, from), 0);
    let after = call.bridge.quality(Side::Trunk);
    assert_eq!((after.packets_lost, after.frames_concealed), (before.packets_lost, before.frames_concealed));
    // Over the wrap of the sequence number once more: 65536 packets are 22 minutes, so the numbers jump there.
    assert_eq!(after.packets_received - before.packets_received, 200);
}

// RFC 3550 5.1: timestamps may begin anew, forwards or backwards, with the numbers going on or not.
#[test]
fn f05_a_jump_of_the_clock_costs_less_than_the_jitter_target() {
    for jump in [-1_000_000i64, -80_000, -8_000, -2_400, 4_000, 8_000, 80_000, 1_000_000] {
        for sequence_jump in [0u16, 20_000] {
            let mut n = 0;
            let mut call = call(Box::new(move |packet| {
                n += 1;
                let read = RtpPacket::parse(&packet).unwrap();
                let passed = n >= 50;
                let sequence = read.sequence().wrapping_add(if passed { sequence_jump } else { 0 });
                let timestamp = read.timestamp().wrapping_add(if passed { jump as u32 } else { 0 });
                plain(renumbered(&packet, sequence, timestamp, read.ssrc()))
            }));
            let from = call.phone_heard.len();
            call.run(5 * SECOND);
            let quality = call.bridge.quality(Side::Trunk);
            let label = format!("{jump} ticks, {sequence_jump} numbers: {quality:?}");
            // 200 ms is the most that the jitter buffer waits; a jump costs less than half of that.
            assert!(spoilt(&call, from) <= 5, "{} spoilt at {label}", spoilt(&call, from));
            assert!(quality.frames_concealed <= 5, "{label}");
            assert!(mean_tone_share(last(&call.phone_heard, 16_000), 1000.0, 8000.0) > 0.99, "{label}");
        }
    }
}

#[test]
fn f05_another_source_is_heard_after_two_packets() {
    let mut n = 0u16;
    let mut call = call(Box::new(move |packet| {
        n += 1;
        // Every second another, as an announcement between two talkers would be.
        let source = u32::from(n / 50);
        plain(renumbered(&packet, n + n / 50 * 500, u32::from(n) * 160 + source * 1_000_000, source))
    }));
    let from = call.phone_heard.len();
    call.run(7 * SECOND + SECOND / 2);
    assert_eq!(call.bridge.trunk_counters().ssrc_changes, 8);
    assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::Ssrc), 8, "one packet each");
    assert!(spoilt(&call, from) <= 5 * 8, "{} spoilt", spoilt(&call, from));
}

// RFC 3264 6.1: the law may change from one packet to the next.
#[test]
fn f05_the_law_may_change_in_mid_stream() {
    let mut call = call(Box::new(plain));
    let mut media = trunk_media(Codec::Pcma, 20);
    media.also_receives = vec![(0, Codec::Pcmu)];
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    let (from, before) = (call.phone_heard.len(), call.bridge.quality(Side::Trunk));
    for n in 0..200 {
        call.pbx.sends = (n % 2 == 0).then_some(Codec::Pcmu);
        call.run(Duration::from_millis(20));
    }
    assert_eq!(spoilt(&call, from), 0);
    let after = call.bridge.quality(Side::Trunk);
    assert_eq!((after.frames_concealed, after.packets_refused), (before.frames_concealed, 0));
}

// A sound card or a PBX may be off by far more than RFC 3550's clocks: it is followed without a gap.
#[test]
fn f05_a_clock_that_is_off_by_two_per_cent_is_followed() {
    for permille in [20, -20, 10, -10, 5, -5] {
        let mut call = call(Box::new(plain));
        call.pbx.clock_permille = permille;
        call.run(5 * SECOND);
        let (from, before) = (call.phone_heard.len(), call.bridge.quality(Side::Trunk));
        call.run(60 * SECOND);
        let after = call.bridge.quality(Side::Trunk);
        // What the clock lacks, or has too much, is stretched and cut by pitch periods: no frame is made up or dropped.
        let made_up = after.frames_concealed - before.frames_concealed;
        let discarded = after.packets_discarded - before.packets_discarded;
        assert_eq!((made_up, discarded), (0, 0), "{permille}: {after:?}");
        assert!(after.playout_delay_ms <= before.playout_delay_ms + 20.0, "{permille}: {after:?}");
        let too_many = 3 * permille.unsigned_abs() as usize;
        assert!(spoilt(&call, from) <= 2 * too_many, "{permille}: {} spoilt", spoilt(&call, from));
        assert_eq!(
            (after.packets_lost, after.packets_late),
            (0, before.packets_late),
            "{permille}: {after:?}"
        );
        assert!(before.packets_late <= 2, "{permille}: {before:?}");
        assert!(mean_tone_share(&call.phone_heard[from..], 1000.0, 8000.0) > 0.8);
    }
}
