//! Figures of quality: live, final, of each leg and of the whole way, with their cause; what the sound shows.

use std::time::Duration;

use call_model::{Impairment, Side};
use transcoder::BridgeConfig;

use crate::SECOND;
use crate::common::call::{Call, Options};
use crate::common::signal::{speech, tone};
use crate::common::{Random, Weather};

fn call(seed: u64) -> Call {
    let mut call = Call::with_trunk(&Options { seed, ..Options::default() });
    call.phone_source = Box::new(speech());
    call.pbx.source = Box::new(speech());
    call.run(3 * SECOND);
    assert!(call.connected());
    call
}

#[test]
fn a_clean_call_is_rated_by_its_codecs_alone() {
    let mut call = call(1);
    call.run(20 * SECOND);
    let (overlay, trunk) = (call.bridge.quality(Side::Overlay), call.bridge.quality(Side::Trunk));
    for quality in [overlay, trunk] {
        assert!(quality.rating.unwrap().mos > 4.3 && quality.worst.unwrap().mos > 4.3, "{quality:?}");
        assert_eq!((quality.recent, quality.bursts.count, quality.burst_ratio), (quality.worst, 0, 1.0));
        assert!(quality.concealment_ratio() < 0.01, "{quality:?}");
        assert!((20.0..80.0).contains(&quality.playout_delay_ms), "{quality:?}");
    }
    assert_eq!(overlay.rating.unwrap().cause, Some(Impairment::Codec));
    assert_eq!(trunk.rating.unwrap().cause, None);
    for side in [Side::Overlay, Side::Trunk] {
        let path = call.bridge.path_rating(side).unwrap();
        assert!(path.mos > 4.2 && path.cause == Some(Impairment::Codec), "{path:?}");
    }
    assert_eq!(call.bridge.path_rating(Side::Onward), None);
}

#[test]
fn loss_is_named_and_shows_in_the_last_five_seconds_and_in_the_worst() {
    for seed in 1..=3 {
        let mut call = call(seed);
        call.run(10 * SECOND);
        call.net.weather.loss_per_mille = 100;
        call.run(20 * SECOND);
        let bad = call.bridge.quality(Side::Trunk);
        let recent = bad.recent.unwrap();
        assert_eq!(recent.cause, Some(Impairment::NetworkLoss), "seed {seed}: {bad:?}");
        let (whole, worst) = (bad.rating.unwrap(), bad.worst.unwrap());
        assert!(worst.mos < whole.mos && worst.mos <= recent.mos && recent.mos < 4.0, "seed {seed}: {bad:?}");
        assert!(bad.concealment_ratio() > 0.03, "seed {seed}: {bad:?}");
        assert!((1.0..1.6).contains(&bad.burst_ratio), "random loss, seed {seed}: {bad:?}");
        assert!(bad.bursts.burst_loss_percent > bad.bursts.gap_loss_percent, "seed {seed}: {bad:?}");
        call.net.weather.loss_per_mille = 0;
        call.run(15 * SECOND);
        let good = call.bridge.quality(Side::Trunk);
        assert!(
            good.recent.unwrap().mos > 4.3 && good.worst.unwrap().mos <= recent.mos,
            "seed {seed}: {good:?}"
        );
        // What ends stays.
        call.bridge.stop(call.net.now, &mut |_| {});
        let last = call.bridge.quality(Side::Trunk);
        assert_eq!(
            (last.rating, last.worst, last.packets_lost),
            (good.rating, good.worst, good.packets_lost)
        );
    }
}

#[test]
fn packets_that_come_too_late_are_told_from_those_that_never_came() {
    let mut call = call(2);
    let mut n = 0u64;
    call.pbx.mangle = Some(Box::new(move |packet| {
        n += 1;
        let later = if n.is_multiple_of(12) { Duration::from_millis(400) } else { Duration::ZERO };
        vec![(later, packet)]
    }));
    call.run(30 * SECOND);
    let quality = call.bridge.quality(Side::Trunk);
    // One may still be under way.
    assert!(quality.packets_lost <= 1, "{quality:?}");
    assert!(quality.packets_late > 100, "{quality:?}");
    assert_eq!(quality.rating.unwrap().cause, Some(Impairment::JitterDiscard), "{quality:?}");
}

#[test]
fn a_long_way_is_named() {
    let mut call = call(3);
    call.net.weather = Weather { delay: Duration::from_millis(450), ..Weather::default() };
    call.run(60 * SECOND);
    // Only the overlay reports here, so only its round trip is known.
    let quality = call.bridge.quality(Side::Overlay);
    assert!(quality.round_trip_ms.is_some_and(|ms| (850.0..1_000.0).contains(&ms)), "{quality:?}");
    assert_eq!(quality.rating.unwrap().cause, Some(Impairment::Delay), "{quality:?}");
    assert!(quality.remote.is_some_and(|remote| remote.rating.is_some()), "{quality:?}");
}

#[test]
fn one_side_that_gives_no_sound_is_told_of_and_both_speaking_counted() {
    let mut call = call(4);
    call.run(10 * SECOND);
    let audio = call.bridge.audio();
    assert!(audio.one_way.is_none() && audio.talk_over_ms > 1_000, "{audio:?}");
    let (overlay, trunk) = (call.bridge.quality(Side::Overlay), call.bridge.quality(Side::Trunk));
    for quality in [overlay, trunk] {
        assert!(quality.voice_ms > 4_000 && quality.clipped_ms == 0, "{quality:?}");
        assert!(quality.voice_dbov.is_some_and(|level| (-40.0..-10.0).contains(&level)), "{quality:?}");
    }
    // The trunk falls silent: its packets end. Then they come again.
    call.pbx.talks = false;
    call.run(15 * SECOND);
    assert_eq!(call.bridge.audio().one_way, Some(Side::Trunk));
    call.pbx.talks = true;
    call.run(2 * SECOND);
    assert_eq!(call.bridge.audio().one_way, None);
    // Packets of a dead microphone are no sound either.
    call.pbx.source = Box::new(|| 0);
    call.run(15 * SECOND);
    assert_eq!(call.bridge.audio().one_way, Some(Side::Trunk));
}

#[test]
fn clipping_is_counted() {
    let mut call = call(5);
    let mut loud = tone(300.0, 8000.0);
    call.pbx.source = Box::new(move || (i32::from(loud()) * 8).clamp(-32_768, 32_767) as i16);
    call.run(5 * SECOND);
    let quality = call.bridge.quality(Side::Trunk);
    assert!((4_500..=5_000).contains(&quality.clipped_ms), "{quality:?}");
    assert_eq!(call.bridge.quality(Side::Overlay).clipped_ms, 0);
}

// Speech that comes back 160 ms later and 12 dB lower, as from a hybrid without an echo canceller.
#[test]
fn an_echo_is_counted_and_two_who_speak_are_none() {
    let configure = |config: &mut BridgeConfig| config.suppress_silence = false;
    let mut call = Call::with_trunk(&Options { configure, ..Options::default() });
    call.phone_source = Box::new(speech());
    let (mut source, mut line) = (speech(), std::collections::VecDeque::from(vec![0i16; 1_280]));
    call.pbx.source = Box::new(move || {
        line.push_back(source());
        line.pop_front().unwrap_or_default() / 4
    });
    call.run(30 * SECOND);
    let quality = call.bridge.quality(Side::Trunk);
    assert!(quality.echo_ms > 3_000, "{quality:?}");

    let mut call = Call::with_trunk(&Options { configure, ..Options::default() });
    call.phone_source = Box::new(speech());
    // Another who speaks when it suits them: words of 0.1 to 0.7 s with pauses of the same kind.
    let (mut random, mut voice, mut left, mut on) = (Random(11), tone(310.0, 8000.0), 0, false);
    call.pbx.source = Box::new(move || {
        if left == 0 {
            (left, on) = (800 + random.below(4_800), !on);
        }
        left -= 1;
        if on { voice() / 2 } else { 0 }
    });
    call.run(30 * SECOND);
    for side in [Side::Overlay, Side::Trunk] {
        let quality = call.bridge.quality(side);
        assert!(quality.echo_ms * 10 < quality.voice_ms, "{side}: {quality:?}");
    }
}

// A peer that stops for good and comes again: counters and figures go on from where they were.
#[test]
fn media_that_stops_and_comes_again_leaves_the_counters_right() {
    let mut call = call(6);
    call.run(5 * SECOND);
    let before = [Side::Overlay, Side::Trunk].map(|side| call.bridge.quality(side));
    (call.pbx.talks, call.phone_talks) = (false, false);
    call.run(120 * SECOND);
    for (side, before) in [Side::Overlay, Side::Trunk].into_iter().zip(before) {
        let after = call.bridge.quality(side);
        assert!(after.packets_received - before.packets_received <= 5, "{side}: {after:?}");
        assert_eq!(after.packets_lost, before.packets_lost, "{side}: what is not sent is not lost");
        assert!(after.frames_concealed - before.frames_concealed <= 4, "{side}: {after:?}");
        assert_eq!(after.recent, None, "{side}: nothing to rate");
    }
    (call.pbx.talks, call.phone_talks) = (true, true);
    call.run(10 * SECOND);
    for (side, before) in [Side::Overlay, Side::Trunk].into_iter().zip(before) {
        let after = call.bridge.quality(side);
        let came = after.packets_received - before.packets_received;
        assert!((480..=510).contains(&came), "{side}: {came}");
        assert_eq!(
            (after.packets_lost, after.packets_late),
            (before.packets_lost, before.packets_late),
            "{side}"
        );
        assert!(after.rating.unwrap().mos > 4.2 && after.recent.unwrap().mos > 4.2, "{side}: {after:?}");
    }
}
