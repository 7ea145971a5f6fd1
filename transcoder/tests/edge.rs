//! G.711 on the overlay leg: who gets it, when, and what is heard while the codec changes.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::{Codec, DtmfDigit, LegMedia, Side};
use transcoder::codec::g711::Law;
use transcoder::codec::opus::{Encoder, EncoderConfig};
use transcoder::leg::PayloadKind;
use transcoder::rtp::Numbering;
use transcoder::{Bridge, BridgeConfig, DtlsIdentity, EdgeCodec, Port, WebRtcConfig, WebRtcLeg};

#[path = "common/mod.rs"]
mod common;
use common::call::{Call, GATEWAY_RTP, OVERLAY, Options, PHONE, trunk_media};
use common::signal::{correlation, mean_tone_share, rms, speech, tone};
use common::{Datagram, Network, address};

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

// RFC 3551 6, RFC 4733 2.1: static payload types, and events on either clock.
#[test]
fn g711_is_offered_behind_opus_where_it_is_asked_for() {
    let offer = |g711| {
        let config =
            WebRtcConfig { local: vec![address("192.0.2.1:4000")], ice_lite: true, g711, redundancy: false };
        #[allow(clippy::disallowed_methods)]
        let now = std::time::Instant::now();
        WebRtcLeg::new(config, &DtlsIdentity::generate().unwrap(), now).unwrap().create_offer().unwrap()
    };
    let formats = |sdp: &str| -> Vec<String> {
        let line = sdp.lines().find(|line| line.starts_with("m=audio ")).unwrap();
        line.split_whitespace().skip(3).map(str::to_owned).collect()
    };
    let (with, without) = (offer(true), offer(false));
    assert_eq!(formats(&without), ["111", "110"]);
    let numbers = formats(&with);
    assert_eq!((numbers[0].as_str(), numbers.len()), ("111", 5), "{with}");
    for line in ["a=rtpmap:0 PCMU/8000", "a=rtpmap:8 PCMA/8000", "a=rtpmap:101 telephone-event/8000"] {
        assert!(with.lines().any(|found| found.starts_with(line)), "{line} in {with}");
        assert!(!without.contains(line), "{line} in {without}");
    }
}

// RFC 4733 2.1 and 2.5.1.2: digits run on the clock of the voice beside them, and are not heard as voice. Each comes
// once, whatever the codec is and however it changes meanwhile.
#[test]
fn digits_go_once_beside_either_codec_and_across_a_change() {
    let mut call = edge_call(6, Codec::Pcma);
    set_edge(&mut call, EdgeCodec::Never);
    call.run(3 * SECOND);
    for policy in [EdgeCodec::Always, EdgeCodec::Never, EdgeCodec::Always] {
        for digit in "19#".chars() {
            assert!(call.phone.send_dtmf(DtmfDigit::from_char(digit).unwrap(), 100));
            call.pbx.dial(digit, 100);
        }
        // In the middle of the first.
        call.run(Duration::from_millis(50));
        set_edge(&mut call, policy);
        call.run(2 * SECOND);
        let codec = if policy == EdgeCodec::Always { Codec::Pcma } else { Codec::Opus };
        assert_eq!(sent(&call), [codec; 2], "once the digits are through");
    }
    // All of these in G.711.
    assert!(call.phone.send_dtmf(DtmfDigit::from_char('5').unwrap(), 200));
    call.pbx.dial('6', 200);
    call.run(2 * SECOND);
    assert_eq!(call.pbx_digits(), "19#19#19#5");
    assert_eq!(call.phone_digits(), "19#19#19#6");
    for (digit, duration_ms) in &call.pbx.digits {
        assert!((80..=240).contains(duration_ms), "{digit}: {duration_ms} ms");
    }
    assert_tones(&call, 8_000, "after the digits");
    for quality in [call.bridge.quality(Side::Overlay), call.phone.quality()] {
        assert_eq!((quality.packets_lost, quality.packets_refused), (0, 0), "{quality:?}");
    }
}

// RFC 3264 8.4. There is no DTX in G.711: silence is sent as it is, and nothing to who holds.
#[test]
fn hold_and_silence_are_right_in_g711() {
    let mut call = Call::with_trunk(&Options { g711: [true; 2], codec: Codec::Pcmu, ..Options::default() });
    call.pbx.source = Box::new(|| 0);
    call.phone_source = Box::new(|| 0);
    call.run(7 * SECOND);
    assert_eq!(sent(&call), [Codec::Pcmu; 2]);
    let before = call.bridge.overlay_counters().sent;
    call.run(4 * SECOND);
    assert!((198..=202).contains(&(call.bridge.overlay_counters().sent - before)));
    assert!(rms(last(&call.phone_heard, 8_000)) < 10.0 && rms(last(&call.pbx.heard, 8_000)) < 10.0);

    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    let now = call.net.now;
    call.bridge.set_overlay_hold(true, now);
    let before = call.bridge.overlay_counters().sent;
    call.run(2 * SECOND);
    assert_eq!(call.bridge.overlay_counters().sent, before);
    let now = call.net.now;
    call.bridge.set_overlay_hold(false, now);
    call.run(2 * SECOND);
    assert_tones(&call, 8_000, "resumed");
    assert_eq!(sent(&call), [Codec::Pcmu; 2]);
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
    call.run(8 * SECOND);
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

// What G.711 is delayed by beside Opus.
#[test]
fn the_look_ahead_of_opus_is_known() {
    let mut encoder = Encoder::new(&EncoderConfig::default()).unwrap();
    assert_eq!(encoder.lookahead(), 52);
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
    // Nor in the time between two changes: what an encoder remembers of the last time is out of phase.
    let concealed = change(&mut call, 8, Duration::from_millis(1_030));
    assert_eq!(concealed, [[0; 2]; 8]);
    let to_phone = phase_steps(&call.phone_heard[phone_heard..], 933.0);
    let to_trunk = phase_steps(&call.pbx.heard[pbx_heard..], 417.0);
    assert!(to_phone < 0.1 && to_trunk < 0.1, "{to_phone} {to_trunk}");
}

/// Stretches of 300 ms of what was said are heard, all at one distance: what is left out or said twice would move what
/// follows.
fn assert_heard(sent: &[i16], heard: &[i16], alike: f64, what: &str) {
    let (length, slack) = (2_400, 160);
    let mut lags = Vec::new();
    for at in (0..sent.len() - 8_000).step_by(2 * length) {
        let said = &sent[at..at + length];
        if rms(said) < 500.0 {
            continue;
        }
        let (similar, lag) = correlation(said, &heard[at..], 1_600);
        assert!(similar > alike, "{what}: {similar} at {at}");
        lags.push(lag);
    }
    assert!(lags.len() > 12, "{what}: {lags:?}");
    let (least, most) = (lags.iter().min().unwrap(), lags.iter().max().unwrap());
    assert!(most - least <= slack, "{what}: {lags:?}");
}

// What is lost right before, at or after the change is concealed as it would be elsewhere, and moves nothing.
#[test]
fn a_packet_lost_at_a_change_costs_no_more_than_itself() {
    for late_ms in [0, 10, 20, 30, 40, 60] {
        let mut call = edge_call(8, Codec::Pcma);
        call.phone_source = Box::new(speech());
        call.pbx.source = Box::new(speech());
        set_edge(&mut call, EdgeCodec::Never);
        call.run(4 * SECOND);
        let concealed = |call: &Call| {
            [call.bridge.quality(Side::Overlay), call.phone.quality()].map(|quality| quality.frames_concealed)
        };
        for change in 0..6 {
            let before = concealed(&call);
            set_edge(&mut call, if change % 2 == 0 { EdgeCodec::Always } else { EdgeCodec::Never });
            call.run(Duration::from_millis(late_ms));
            call.net.weather.loss_per_mille = 1_000;
            call.run(Duration::from_millis(20));
            call.net.weather.loss_per_mille = 0;
            call.run(2 * SECOND);
            let codec = if change % 2 == 0 { Codec::Pcma } else { Codec::Opus };
            assert_eq!([call.bridge.overlay_receives(), call.phone.receives()], [codec; 2], "{late_ms} ms");
            let after = concealed(&call);
            let added = [after[0] - before[0], after[1] - before[1]];
            assert!(added.iter().all(|&frames| frames <= 1), "{late_ms} ms, {change}: {added:?}");
        }
        for (sent, heard) in [(&call.phone_sent, &call.pbx.heard), (&call.pbx.sent, &call.phone_heard)] {
            assert_heard(last(sent, 12 * 8_000), last(heard, 12 * 8_000), 0.5, &format!("{late_ms} ms"));
        }
    }
}

#[test]
fn speech_goes_through_changes_of_codec_with_jitter_and_reordering() {
    for seed in 0..8 {
        let mut call = edge_call(seed, Codec::Pcma);
        call.phone_source = Box::new(speech());
        call.pbx.source = Box::new(speech());
        set_edge(&mut call, EdgeCodec::Never);
        // Packets overtake each other: they are 20 ms apart.
        call.net.weather.jitter = Duration::from_millis(35);
        call.run(12 * SECOND);
        let concealed = change(&mut call, 10, Duration::from_millis(1_700));
        assert!(concealed.iter().flatten().all(|&frames| frames <= 1), "seed {seed}: {concealed:?}");
        let (phone_sent, pbx_sent) = (&call.phone_sent, &call.pbx.sent);
        for (sent, heard) in [(phone_sent, &call.pbx.heard), (pbx_sent, &call.phone_heard)] {
            assert_heard(last(sent, 16 * 8_000), last(heard, 16 * 8_000), 0.75, &format!("seed {seed}"));
        }
        for quality in [call.bridge.quality(Side::Overlay), call.phone.quality()] {
            assert_eq!(quality.packets_lost, 0, "seed {seed}: {quality:?}");
        }
    }
}

/// A user who sends anything in either stream, authentic and without sense: nothing of it panics, grows or lasts.
#[test]
fn nonsense_in_both_streams_is_borne() {
    for seed in 0..4 {
        let mut net = Network::new(seed);
        let identity = DtlsIdentity::generate().unwrap();
        let leg = |local: &str, ice_lite| {
            let config =
                WebRtcConfig { local: vec![address(local)], ice_lite, g711: true, redundancy: false };
            WebRtcLeg::new(config, &identity, net.now).unwrap()
        };
        let (mut user, mut overlay) = (leg(PHONE, false), leg(OVERLAY, true));
        let answer = overlay.accept_offer(&user.create_offer().unwrap()).unwrap();
        user.accept_answer(&answer).unwrap();
        let mut bridge =
            Bridge::new(BridgeConfig::new(address(GATEWAY_RTP)), overlay, seed, net.now).unwrap();
        // Digits are not sent on: they would take the place of voice for long.
        let media = LegMedia { telephone_event: None, ..trunk_media(Codec::Pcma, 20) };
        bridge.set_trunk_media(&media, net.now).unwrap();
        let (mut to_trunk, mut clear) = (0u64, Vec::new());
        let mut steady = 0u32;
        for step in 0..20_000u32 {
            let now = net.now;
            while let Some(datagram) = net.due() {
                let Datagram { from, to, bytes } = datagram;
                if to == address(PHONE) {
                    user.handle_datagram(now, to, from, &bytes, &mut |from, to, bytes| {
                        net.send(from, to, bytes)
                    });
                } else if to == address(OVERLAY) {
                    bridge.handle_datagram(now, Side::Overlay, Port::Rtp, to, from, &bytes, &mut |out| {
                        net.send(out.local, out.destination, out.bytes);
                    });
                }
            }
            user.handle_timeout(now, &mut |from, to, bytes| net.send(from, to, bytes));
            while user.poll_event().is_some() {}
            bridge.handle_timeout(now, &mut |out| {
                if out.side == Side::Trunk && out.bytes.len() == 172 {
                    to_trunk += 1;
                    clear = out.bytes.to_vec();
                }
                net.send(out.local, out.destination, out.bytes);
            });
            while bridge.poll_event().is_some() {}
            let random = &mut net.random;
            let kind = [
                PayloadKind::Audio,
                PayloadKind::G711(Law::A),
                PayloadKind::G711(Law::Mu),
                PayloadKind::TelephoneEvent,
                PayloadKind::G711Event,
            ][random.below(5) as usize];
            let longest = [4, 60, 1_200][random.below(3) as usize];
            let length = random.below(longest) as usize;
            let payload = random.bytes(length);
            let jump = [3, 40, 70_000, u64::from(u32::MAX)][random.below(4) as usize];
            let numbering = Numbering {
                sequence: (step as u64 + random.below(jump)) as u16,
                timestamp: random.below(jump) as u32,
            };
            let marker = random.chance(100);
            if step < 14_000 && step % 3 == 0 {
                user.forward(now, kind, numbering, marker, &payload, &mut |from, to, bytes| {
                    net.send(from, to, bytes)
                });
            } else if step >= 14_000 && step % 20 == 0 {
                // Then it talks sense again: a loud square wave.
                let kind = PayloadKind::G711(Law::A);
                let sequence = user.next_numbering_of(now, kind).unwrap().sequence;
                let numbering = Numbering { sequence, timestamp: 7_000_000 + 160 * steady };
                steady += 1;
                let payload: Vec<u8> =
                    (0..160).map(|n| Law::A.encode(if n % 16 < 8 { 8_000 } else { -8_000 })).collect();
                user.forward(now, kind, numbering, false, &payload, &mut |from, to, bytes| {
                    net.send(from, to, bytes)
                });
            }
            net.now += Duration::from_millis(1);
        }
        assert!(bridge.is_overlay_connected(), "seed {seed}");
        assert!(bridge.overlay_counters().received > 1_000, "seed {seed}: {:?}", bridge.overlay_counters());
        // One packet a tick, whatever came.
        assert!(to_trunk.abs_diff(1_000) < 30, "seed {seed}: {to_trunk}");
        let mut heard = vec![0; 160];
        Law::A.decode_into(&clear[12..], &mut heard);
        assert!(rms(&heard) > 4_000.0, "seed {seed}: {}", rms(&heard));
    }
}
