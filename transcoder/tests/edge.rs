//! G.711 on the overlay leg: who gets it, when, and what is heard while the codec changes.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::{Codec, DtmfDigit, Side};
use transcoder::EdgeCodec;

#[path = "common/mod.rs"]
mod common;
use common::call::{Call, Options};
use common::signal::{mean_tone_share, rms, speech, tone};

const SECOND: Duration = Duration::from_secs(1);

fn last(samples: &[i16], count: usize) -> &[i16] {
    &samples[samples.len() - count..]
}

/// A call whose sides both have G.711.
fn edge_call(seed: u64, codec: Codec) -> Call {
    let configure = |config: &mut transcoder::BridgeConfig| config.suppress_silence = false;
    let mut call =
        Call::with_trunk(&Options { seed, codec, g711: [true; 2], configure, ..Options::default() });
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call
}

fn set_edge(call: &mut Call, policy: EdgeCodec) {
    call.bridge.set_edge(policy);
    call.phone.set_edge(policy);
}

/// What is sent each way: by the bridge, by the phone.
fn sent(call: &Call) -> [Codec; 2] {
    [call.bridge.overlay_sends(), call.phone.sends()]
}

fn assert_tones(call: &Call, samples: usize, what: &str) {
    let to_phone = mean_tone_share(last(&call.phone_heard, samples), 1000.0, 8000.0);
    let to_trunk = mean_tone_share(last(&call.pbx.heard, samples), 440.0, 8000.0);
    assert!(to_phone > 0.97 && to_trunk > 0.97, "{what}: {to_phone} {to_trunk}");
    for heard in [&call.phone_heard, &call.pbx.heard] {
        assert!((4_000.0..8_000.0).contains(&rms(last(heard, samples))), "{what}");
    }
}

// RFC 3264 6.1: what one side has alone is not used; Opus is there in any case.
#[test]
fn a_side_that_has_opus_alone_gets_opus() {
    for g711 in [[false, false], [true, false], [false, true]] {
        for phone_calls in [true, false] {
            let mut call = Call::with_trunk(&Options { g711, phone_calls, ..Options::default() });
            set_edge(&mut call, EdgeCodec::Always);
            call.phone_source = Box::new(tone(440.0, 8000.0));
            call.pbx.source = Box::new(tone(1000.0, 8000.0));
            call.run(8 * SECOND);
            assert_eq!(sent(&call), [Codec::Opus; 2], "{g711:?}");
            assert_tones(&call, 16_000, &format!("{g711:?}"));
            let digit = DtmfDigit::from_char('7').unwrap();
            assert!(call.phone.send_dtmf(digit, 100));
            call.pbx.dial('8', 100);
            call.run(SECOND);
            assert_eq!((call.pbx_digits(), call.phone_digits()), ("7".to_owned(), "8".to_owned()));
        }
    }
}

#[test]
fn a_good_path_gets_g711_after_some_seconds_in_the_law_of_the_trunk() {
    for codec in [Codec::Pcma, Codec::Pcmu] {
        for phone_calls in [true, false] {
            let mut call =
                Call::with_trunk(&Options { codec, phone_calls, g711: [true; 2], ..Options::default() });
            call.phone_source = Box::new(tone(440.0, 8000.0));
            call.pbx.source = Box::new(tone(1000.0, 8000.0));
            call.run(3 * SECOND);
            assert_eq!(sent(&call), [Codec::Opus; 2]);
            call.run(4 * SECOND);
            assert_eq!(sent(&call), [codec; 2]);
            assert_eq!((call.bridge.overlay_receives(), call.phone.receives()), (codec, codec));
            assert_tones(&call, 24_000, "from Opus on");
            for quality in [call.bridge.quality(Side::Overlay), call.phone.quality()] {
                assert_eq!((quality.packets_lost, quality.packets_refused), (0, 0), "{quality:?}");
                assert!(quality.packets_received > 330 && quality.jitter_ms < 5.0, "{quality:?}");
            }
        }
    }
}

#[test]
fn policies_are_kept() {
    for (gateway, phone, expected) in [
        (EdgeCodec::Never, EdgeCodec::Always, [Codec::Opus, Codec::Pcma]),
        (EdgeCodec::Always, EdgeCodec::Never, [Codec::Pcma, Codec::Opus]),
        // Who is called by a gateway that does not want it, does not begin with it.
        (EdgeCodec::Never, EdgeCodec::Auto, [Codec::Opus, Codec::Opus]),
        (EdgeCodec::Always, EdgeCodec::Auto, [Codec::Pcma, Codec::Pcma]),
    ] {
        let mut call = edge_call(3, Codec::Pcma);
        call.bridge.set_edge(gateway);
        call.phone.set_edge(phone);
        call.run(8 * SECOND);
        assert_eq!(sent(&call), expected, "{gateway} {phone}");
        assert_tones(&call, 24_000, &format!("{gateway} {phone}"));
        call.net.weather.loss_per_mille = 100;
        call.run(20 * SECOND);
        let kept = sent(&call);
        assert_eq!(kept[0], expected[0], "{gateway} {phone}");
        assert!(phone == EdgeCodec::Auto || kept[1] == expected[1], "{gateway} {phone}");
    }
}

#[test]
fn loss_brings_opus_and_peace_brings_g711_back() {
    let mut call = edge_call(9, Codec::Pcma);
    call.run(10 * SECOND);
    assert_eq!(sent(&call), [Codec::Pcma; 2]);
    call.net.weather.loss_per_mille = 50;
    call.run(4 * SECOND);
    assert_eq!(sent(&call), [Codec::Opus; 2]);
    call.net.weather.loss_per_mille = 0;
    call.run(25 * SECOND);
    assert_eq!(sent(&call), [Codec::Opus; 2]);
    assert_tones(&call, 24_000, "in Opus");
    // Reports tell of the loss for a while after it has ended.
    call.run(20 * SECOND);
    assert_eq!(sent(&call), [Codec::Pcma; 2]);
    assert_tones(&call, 24_000, "in G.711 again");
}

/// Runs a call through changes of codec and returns, for each change, how many frames each side concealed.
fn change(call: &mut Call, times: usize, every: Duration) -> Vec<[u64; 2]> {
    let concealed = |call: &Call| {
        [call.bridge.quality(Side::Overlay).frames_concealed, call.phone.quality().frames_concealed]
    };
    let mut before = concealed(call);
    let changes = (0..times).map(|time| {
        set_edge(call, if time % 2 == 0 { EdgeCodec::Always } else { EdgeCodec::Never });
        call.run(every);
        let expected = if time % 2 == 0 { Codec::Pcma } else { Codec::Opus };
        assert_eq!(sent(call), [expected; 2]);
        assert_eq!([call.bridge.overlay_receives(), call.phone.receives()], [expected; 2]);
        let now = concealed(call);
        let added = [now[0] - before[0], now[1] - before[1]];
        before = now;
        added
    });
    changes.collect()
}

/// Largest step of the phase of a tone between neighbouring windows of 10 ms, in turns.
fn phase_steps(samples: &[i16], frequency: f64) -> f64 {
    let phases: Vec<f64> = samples
        .chunks_exact(80)
        .enumerate()
        .map(|(at, window)| {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, &sample) in window.iter().enumerate() {
                let angle = std::f64::consts::TAU * frequency * (at * 80 + n) as f64 / 8000.0;
                re += f64::from(sample) * angle.cos();
                im += f64::from(sample) * angle.sin();
            }
            im.atan2(re) / std::f64::consts::TAU
        })
        .collect();
    let steps = phases.windows(2).map(|pair| {
        let step = (pair[1] - pair[0]).abs();
        step.min(1.0 - step)
    });
    steps.fold(0.0, f64::max)
}

// RFC 7160 4.1: two clocks, two sources. What is heard does not show it.
#[test]
fn a_tone_goes_through_changes_of_codec_without_a_step() {
    let mut call = edge_call(4, Codec::Pcma);
    // Not a whole number of periods in a frame, nor in the look-ahead of Opus.
    call.phone_source = Box::new(tone(417.0, 8000.0));
    call.pbx.source = Box::new(tone(933.0, 8000.0));
    set_edge(&mut call, EdgeCodec::Never);
    call.run(4 * SECOND);
    let (phone_heard, pbx_heard) = (call.phone_heard.len(), call.pbx.heard.len());
    let concealed = change(&mut call, 8, SECOND);
    assert_eq!(concealed, [[0; 2]; 8]);
    let to_phone = phase_steps(&call.phone_heard[phone_heard..], 933.0);
    let to_trunk = phase_steps(&call.pbx.heard[pbx_heard..], 417.0);
    println!("steps {to_phone} {to_trunk}");
    assert!(to_phone < 0.1 && to_trunk < 0.1, "{to_phone} {to_trunk}");
}

#[test]
fn speech_goes_through_changes_of_codec_with_jitter_and_reordering() {
    for seed in 0..12 {
        let mut call = edge_call(seed, Codec::Pcma);
        call.phone_source = Box::new(speech());
        call.pbx.source = Box::new(speech());
        set_edge(&mut call, EdgeCodec::Never);
        // Packets overtake each other: they are 20 ms apart.
        call.net.weather.jitter = Duration::from_millis(35);
        call.run(12 * SECOND);
        let concealed = change(&mut call, 10, Duration::from_millis(1_700));
        println!("seed {seed}: {concealed:?}");
        for side in 0..2 {
            let total: u64 = concealed.iter().map(|change| change[side]).sum();
            assert!(total <= 10, "seed {seed}: {concealed:?}");
        }
        for quality in [call.bridge.quality(Side::Overlay), call.phone.quality()] {
            println!("seed {seed}: {quality:?}");
        }
    }
}
