//! Comfort noise (RFC 3389), and pauses of a sender that has none.

use std::time::Duration;

use call_model::Side;
use transcoder::rtp::RtpPacket;
use transcoder::{BridgeConfig, BridgeEvent};

use crate::common::call::{Call, Options};
use crate::common::signal::{rms, tone};
use crate::{SECOND, last, rtp};

/// Level in dBov: 0 is that of a square wave of full scale (RFC 3389 3.1).
fn dbov(samples: &[i16]) -> f64 {
    20.0 * (rms(samples).max(0.1) / 32_767.0).log10()
}

/// A trunk that talks for a second, and then is silent for `silence` packets, with a comfort noise payload in the
/// first and in each `every`th after, if it has one.
fn call(payload: Option<Vec<u8>>, silence: u32, every: u32, suppress: bool) -> Call {
    let configure = if suppress {
        |config: &mut BridgeConfig| config.media_timeout = 3 * SECOND
    } else {
        |config: &mut BridgeConfig| {
            (config.suppress_silence, config.media_timeout) = (false, 3 * SECOND);
        }
    };
    let mut call = Call::with_trunk(&Options { configure, ..Options::default() });
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    let (mut n, mut sequence) = (0u32, 500u16);
    call.pbx.mangle = Some(Box::new(move |packet| {
        n += 1;
        let place = n % (50 + silence);
        let voice = RtpPacket::parse(&packet).unwrap().payload().to_vec();
        let (kind, sent) = match &payload {
            _ if place < 50 => (8, voice),
            Some(noise) if (place - 50).is_multiple_of(every) => (13, noise.clone()),
            _ => return Vec::new(),
        };
        sequence = sequence.wrapping_add(1);
        vec![(Duration::ZERO, rtp(kind, sequence, n * 160, 9, &sent))]
    }));
    call
}

// RFC 3389 3.1, 4: noise of the level that was told sounds until there is voice again.
#[test]
fn f06_noise_of_the_level_told_sounds_in_the_pauses() {
    for suppress in [false, true] {
        for level in [40u8, 50, 60] {
            let mut call = call(Some(vec![level]), 450, 10, suppress);
            call.run(9 * SECOND);
            assert!(call.connected());
            let heard = dbov(last(&call.phone_heard, 8_000));
            // Opus cuts the band; where silence is not encoded, the phone makes noise like what it heard before.
            let tolerance = if suppress { 10.0 } else { 6.0 };
            assert!((heard + f64::from(level)).abs() < tolerance, "{level}, {suppress}: {heard} dBov");
            let quality = call.bridge.quality(Side::Trunk);
            assert_eq!((quality.packets_lost, quality.packets_refused), (0, 0), "{quality:?}");
            assert!(quality.frames_concealed <= 1, "{quality:?}");
        }
    }
}

// RFC 3389 4: who sends comfort noise is there, however rarely; who sends nothing at all is told of.
#[test]
fn f06_comfort_noise_within_the_time_out_is_no_silence() {
    for (payload, silent) in [(Some(vec![55]), 0), (None, 5)] {
        // A packet every two seconds, where three without any are told of.
        let mut call = call(payload, 5_000, 100, true);
        call.run(18 * SECOND);
        let told = |event: &&BridgeEvent| **event == BridgeEvent::Silent { side: Side::Trunk };
        assert_eq!(call.bridge_events.iter().filter(told).count(), silent);
    }
}

// RFC 3551 4.1: a pause without comfort noise is no loss, and voice after it is whole.
#[test]
fn f06_pauses_without_comfort_noise_are_no_loss() {
    for payload in [None, Some(vec![55]), Some(vec![55, 25, 127, 140])] {
        let mut call = call(payload, 75, 20, false);
        call.run(21 * SECOND);
        let quality = call.bridge.quality(Side::Trunk);
        assert_eq!((quality.packets_lost, quality.packets_late, quality.packets_refused), (0, 0, 0));
        // Eight talkspurts, each of which may seem to end in a loss for 60 ms.
        assert!(quality.frames_concealed <= 8 * 4, "{quality:?}");
        let voice = call.phone_heard.chunks_exact(160).filter(|w| rms(w) > 4_000.0).count();
        // Eight spurts and a part of one, each with what is made up behind it.
        assert!((390..=460).contains(&voice), "{voice} frames of voice");
        // Nothing of it is anything but the tone or noise below it.
        assert!(call.phone_heard.iter().all(|sample| sample.unsigned_abs() < 20_000));
    }
}

// RFC 3389 4: comfort noise is sent to nobody, for we never offer it; the trunk hears a steady stream of its codec.
#[test]
fn f06_no_comfort_noise_is_sent() {
    let mut call = Call::with_trunk(&Options::default());
    call.pbx.kept = Some(Vec::new());
    call.phone_talks = false;
    call.run(5 * SECOND);
    let kept = call.pbx.kept.take().unwrap();
    assert!(kept.len() > 240, "{}", kept.len());
    for pair in kept.windows(2) {
        let [first, second] = [&pair[0], &pair[1]].map(|bytes| RtpPacket::parse(bytes).unwrap());
        assert_eq!((first.payload_type(), first.payload().len()), (8, 160));
        assert_eq!(second.timestamp(), first.timestamp().wrapping_add(160));
    }
}
