//! Whole calls in virtual time: an end user's phone, the bridge and a PBX's RTP endpoint.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::{Codec, Direction, DtmfDigit, Side};
use transcoder::codec::g711::Law;
use transcoder::codec::opus::{Decoder, Encoder, EncoderConfig};
use transcoder::leg::rtp::Refusal;
use transcoder::rtp::rtcp::{self, RtcpPacket};
use transcoder::{BridgeConfig, BridgeEvent, LegFailure, MediaError, Port};

#[path = "common/mod.rs"]
mod common;
use common::call::{
    Call, FRAME, GATEWAY_RTCP, GATEWAY_RTP, OVERLAY, Options, TRUNK_RTCP, TRUNK_RTP, trunk_media,
};
use common::signal::{correlation, mean_tone_share, rms, speech, tone};
use common::{Random, Weather, address};

const SECOND: Duration = Duration::from_secs(1);

fn last(samples: &[i16], count: usize) -> &[i16] {
    &samples[samples.len() - count..]
}

#[test]
fn a_tone_goes_each_way_whoever_calls_in_every_packet_time_and_law() {
    let cases = [
        (true, Codec::Pcma, 20, 8_000),
        (false, Codec::Pcmu, 20, 16_000),
        (true, Codec::Pcmu, 10, 48_000),
        (false, Codec::Pcma, 30, 8_000),
        (true, Codec::Pcma, 40, 8_000),
        (true, Codec::Pcmu, 60, 8_000),
    ];
    for (phone_calls, codec, packet_time_ms, phone_rate) in cases {
        let options = Options { phone_calls, codec, packet_time_ms, phone_rate, ..Options::default() };
        let mut call = Call::with_trunk(&options);
        call.phone_source = Box::new(tone(440.0, f64::from(phone_rate)));
        call.pbx.source = Box::new(tone(1000.0, 8000.0));
        call.run(6 * SECOND);
        assert!(call.connected(), "{:?}", call.bridge_events);
        let to_trunk = mean_tone_share(last(&call.pbx.heard, 16_000), 440.0, 8000.0);
        let to_phone =
            mean_tone_share(last(&call.phone_heard, 2 * phone_rate as usize), 1000.0, f64::from(phone_rate));
        assert!(to_trunk > 0.97 && to_phone > 0.97, "{packet_time_ms} ms: {to_trunk} {to_phone}");
        assert!(rms(last(&call.pbx.heard, 8000)) > 4000.0 && rms(last(&call.phone_heard, 8000)) > 4000.0);
        // RFC 3550 5.1: timestamps go by the samples, sequence numbers by one.
        let step = u32::from(packet_time_ms) * 8;
        for pair in call.pbx.timestamps.windows(2) {
            assert_eq!(pair[1].0, pair[0].0.wrapping_add(1));
            assert_eq!(pair[1].1, pair[0].1.wrapping_add(step));
            assert!(!pair[1].2);
        }
        assert!(call.pbx.timestamps[0].2);
        // Six seconds of packets: nothing drifts.
        let expected = 6000 / usize::from(packet_time_ms);
        assert!(call.pbx.timestamps.len().abs_diff(expected) <= 3, "{}", call.pbx.timestamps.len());
        for side in [Side::Overlay, Side::Trunk] {
            let quality = call.bridge.quality(side);
            assert_eq!(
                (quality.packets_lost, quality.packets_late, quality.packets_refused),
                (0, 0, 0),
                "{quality:?}"
            );
            assert!(quality.packets_received > 80 && quality.packets_sent > 80, "{quality:?}");
        }
        let firsts: Vec<_> = call
            .bridge_events
            .iter()
            .filter(|event| matches!(event, BridgeEvent::FirstPacket { .. }))
            .collect();
        assert_eq!(firsts.len(), 2);
        assert!(call.strays.is_empty());
    }
}

/// The bridge takes nothing from speech beyond what the codecs do by themselves.
#[test]
fn speech_keeps_its_shape_on_a_clean_path() {
    let mut encoder = Encoder::new(&EncoderConfig { fec: true, ..EncoderConfig::for_rate(8000) }).unwrap();
    let mut decoder = Decoder::new(8000).unwrap();
    let mut source = speech();
    let sent: Vec<i16> = (0..40_000).map(|_| source()).collect();
    let mut decoded = Vec::new();
    for frame in sent.chunks_exact(160) {
        let (mut packet, mut pcm) = ([0; 1275], [0; 960]);
        let length = encoder.encode(frame, &mut packet).unwrap();
        let length = decoder.decode(&packet[..length], &mut pcm).unwrap();
        decoded.extend(&pcm[..length]);
    }
    let (codec_alone, _) = correlation(&sent[24_000..36_000], &decoded[24_000..], 1000);

    let mut call = Call::with_trunk(&Options::default());
    call.phone_source = Box::new(speech());
    call.pbx.source = Box::new(speech());
    call.run(8 * SECOND);
    let (to_trunk, _) = correlation(&call.phone_sent[24_000..36_000], &call.pbx.heard[22_000..], 6000);
    let (to_phone, _) = correlation(&call.pbx.sent[24_000..36_000], &call.phone_heard[18_000..], 10_000);
    assert!(codec_alone > 0.7, "{codec_alone}");
    assert!(to_trunk > codec_alone - 0.03, "{to_trunk}, codec {codec_alone}");
    assert!(to_phone > codec_alone - 0.03, "{to_phone}, codec {codec_alone}");
    // The end of the overlay's stream before the phone spoke is no concealment.
    assert_eq!(call.bridge.quality(Side::Overlay).packets_lost, 0);
}

#[test]
fn loss_jitter_and_reordering_leave_speech_recognisable() {
    for seed in 1..=3 {
        let mut call = Call::with_trunk(&Options { seed, ..Options::default() });
        call.phone_source = Box::new(tone(440.0, 8000.0));
        call.pbx.source = Box::new(tone(1000.0, 8000.0));
        call.run(2 * SECOND);
        assert!(call.connected());
        call.net.weather = Weather {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(35),
            loss_per_mille: 50,
            duplicate_per_mille: 20,
        };
        call.run(12 * SECOND);
        let to_trunk = mean_tone_share(last(&call.pbx.heard, 64_000), 440.0, 8000.0);
        let to_phone = mean_tone_share(last(&call.phone_heard, 64_000), 1000.0, 8000.0);
        assert!(to_trunk > 0.75 && to_phone > 0.65, "seed {seed}: {to_trunk} {to_phone}");
        for side in [Side::Overlay, Side::Trunk] {
            let quality = call.bridge.quality(side);
            let share = quality.packets_lost as f64 / quality.packets_received as f64;
            assert!((0.02..0.09).contains(&share), "seed {seed} {side}: {quality:?}");
            assert!(
                quality.frames_concealed >= quality.packets_lost / 2 && quality.jitter_ms > 2.0,
                "{quality:?}"
            );
        }
    }
}

#[test]
fn fec_towards_the_overlay_comes_with_reported_loss_and_goes_with_it() {
    let mut call = Call::with_trunk(&Options { seed: 5, ..Options::default() });
    call.pbx.source = Box::new(speech());
    call.run(12 * SECOND);
    assert!(call.connected());
    assert_eq!((call.bridge.fec_percent(), call.phone.frames_recovered()), (0, 0));
    call.net.weather.loss_per_mille = 100;
    call.run(30 * SECOND);
    assert!((5..=30).contains(&call.bridge.fec_percent()), "{}", call.bridge.fec_percent());
    // libopus leaves the copies out below some rates without a word: here they were there.
    assert!(call.phone.frames_recovered() > 20, "{}", call.phone.frames_recovered());
    call.net.weather.loss_per_mille = 0;
    call.run(60 * SECOND);
    assert_eq!(call.bridge.fec_percent(), 0);
}

#[test]
fn digits_arrive_once_each_way_and_not_as_audio() {
    for (seed, loss_per_mille) in [(1, 0), (2, 0), (3, 100), (4, 100)] {
        let mut call = Call::with_trunk(&Options { seed, ..Options::default() });
        call.phone_source = Box::new(tone(440.0, 8000.0));
        call.pbx.source = Box::new(tone(1000.0, 8000.0));
        call.run(2 * SECOND);
        call.net.weather.loss_per_mille = loss_per_mille;
        for digit in "159#".chars() {
            assert!(call.phone.send_dtmf(DtmfDigit::from_char(digit).unwrap(), 100));
        }
        for digit in "207*".chars() {
            call.pbx.dial(digit, 120);
        }
        call.run(4 * SECOND);
        assert_eq!(call.bridge_digits(Side::Overlay), "159#", "seed {seed}");
        assert_eq!(call.bridge_digits(Side::Trunk), "207*", "seed {seed}");
        assert_eq!(call.pbx_digits(), "159#", "seed {seed}");
        assert_eq!(call.phone_digits(), "207*", "seed {seed}");
        for (_, duration_ms) in &call.pbx.digits {
            assert!((80..=180).contains(duration_ms), "{duration_ms}");
        }
        if loss_per_mille == 0 {
            // Neither digits' packets nor the pause in audio count as loss.
            assert_eq!(call.bridge.quality(Side::Overlay).packets_lost, 0);
            assert_eq!(call.bridge.quality(Side::Trunk).packets_lost, 0);
        }
        // Voice goes on after.
        call.net.weather.loss_per_mille = 0;
        call.run(2 * SECOND);
        assert!(mean_tone_share(last(&call.pbx.heard, 8000), 440.0, 8000.0) > 0.95);
        assert!(mean_tone_share(last(&call.phone_heard, 8000), 1000.0, 8000.0) > 0.95);
    }
}

/// RFC 4733 beside INFO: whichever comes first, and however the two overlap.
#[test]
fn f11_a_digit_that_is_signalled_and_heard_arrives_once() {
    let digit = DtmfDigit::from_char('5').unwrap();
    for (length_ms, signalled_ms) in
        [(100, 0), (100, 60), (100, 700), (3_000, 0), (3_000, 1_500), (3_000, 3_700)]
    {
        let mut call = Call::with_trunk(&Options::default());
        call.run(2 * SECOND);
        for press in 1..=2 {
            call.pbx.dial('5', length_ms);
            assert!(call.phone.send_dtmf(digit, length_ms));
            call.run(Duration::from_millis(signalled_ms));
            let now = call.net.now;
            for side in [Side::Overlay, Side::Trunk] {
                assert!(call.bridge.send_dtmf(now, side, digit, 100));
            }
            call.run(Duration::from_millis(6_000 - signalled_ms));
            let label = format!("{length_ms} ms, signalled at {signalled_ms} ms");
            assert_eq!(call.phone_digits(), "5".repeat(press), "{label}");
            assert_eq!(call.pbx_digits(), "5".repeat(press), "{label}");
        }
    }
}

/// RFC 4733 2.5.1.3: what an endpoint sends beside an event is not passed on as well.
#[test]
fn audio_beside_an_event_is_muted() {
    let mut call = Call::with_trunk(&Options::default());
    call.pbx.source = Box::new(tone(941.0, 8000.0));
    call.pbx.talks_over_digits = true;
    call.run(2 * SECOND);
    call.pbx.dial('0', 2000);
    call.run(SECOND);
    assert!(rms(last(&call.phone_heard, 4000)) < 200.0, "{}", rms(last(&call.phone_heard, 4000)));
    call.run(3 * SECOND);
    assert!(mean_tone_share(last(&call.phone_heard, 4000), 941.0, 8000.0) > 0.95);
    assert_eq!(call.bridge_digits(Side::Trunk), "0");
    assert_eq!(call.bridge.quality(Side::Trunk).packets_lost, 0);
}

#[test]
fn a_digit_that_cannot_go_on_in_rtp_is_left_to_signalling() {
    let mut call = Call::new(&Options::default());
    let mut media = trunk_media(Codec::Pcma, 20);
    media.telephone_event = None;
    let now = call.net.now;
    call.bridge.set_trunk_media(&media, now).unwrap();
    call.run(2 * SECOND);
    let digit = DtmfDigit::from_char('5').unwrap();
    assert!(!call.bridge.send_dtmf(now, Side::Trunk, digit, 100));
    assert!(call.phone.send_dtmf(digit, 100));
    call.run(SECOND);
    let seen: Vec<_> =
        call.bridge_events.iter().filter(|event| matches!(event, BridgeEvent::Dtmf { .. })).collect();
    assert!(
        matches!(seen[..], [BridgeEvent::Dtmf { side: Side::Overlay, forwarded: false, .. }]),
        "{seen:?}"
    );
}

/// RFC 3264 8.4: media stops while held and comes back.
#[test]
fn hold_stops_media_and_the_timeout_with_it() {
    let mut call = Call::with_trunk(&Options {
        configure: |config| config.media_timeout = Duration::from_secs(2),
        ..Options::default()
    });
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(3 * SECOND);

    // The trunk holds us: it sends music, we send nothing.
    let mut media = trunk_media(Codec::Pcma, 20);
    media.direction = Direction::RecvOnly;
    let now = call.net.now;
    call.bridge.set_trunk_media(&media, now).unwrap();
    call.run(SECOND / 10);
    let before = call.pbx.heard.len();
    call.run(3 * SECOND);
    assert_eq!(call.pbx.heard.len(), before);
    assert!(mean_tone_share(last(&call.phone_heard, 8000), 1000.0, 8000.0) > 0.95);

    // We hold the trunk: what it sends is not heard, and its silence is no fault.
    media.direction = Direction::SendOnly;
    let now = call.net.now;
    call.bridge.set_trunk_media(&media, now).unwrap();
    call.run(SECOND);
    call.pbx.talks = false;
    call.bridge.set_overlay_hold(true, call.net.now);
    call.phone_talks = false;
    call.run(5 * SECOND);
    assert!(rms(last(&call.phone_heard, 8000)) < 200.0);
    assert!(!call.bridge_events.iter().any(|event| matches!(event, BridgeEvent::Silent { .. })));
    assert!(call.bridge.trunk_counters().held > 10);

    // The old spelling of hold: nothing is sent to 0.0.0.0, what still comes is heard.
    let mut old_style = trunk_media(Codec::Pcma, 20);
    old_style.remote_rtp = address("0.0.0.0:30000");
    old_style.remote_rtcp = Some(address("0.0.0.0:30001"));
    let now = call.net.now;
    call.bridge.set_trunk_media(&old_style, now).unwrap();
    call.bridge.set_overlay_hold(false, call.net.now);
    call.phone_talks = true;
    call.pbx.talks = true;
    let before = call.pbx.heard.len();
    call.run(2 * SECOND);
    assert!(call.pbx.heard.len() <= before + 160 && call.strays.is_empty());
    assert!(mean_tone_share(last(&call.phone_heard, 8000), 1000.0, 8000.0) > 0.95);

    // Resumed.
    media.direction = Direction::SendRecv;
    let now = call.net.now;
    call.bridge.set_trunk_media(&media, now).unwrap();
    call.run(3 * SECOND);
    assert!(mean_tone_share(last(&call.pbx.heard, 8000), 440.0, 8000.0) > 0.95);
    assert!(mean_tone_share(last(&call.phone_heard, 8000), 1000.0, 8000.0) > 0.95);

    // Silence without hold is reported, again and again.
    call.pbx.talks = false;
    call.phone_talks = false;
    call.run(5 * SECOND);
    for expected in [Side::Overlay, Side::Trunk] {
        let count =
            call.bridge_events.iter().filter(|e| **e == BridgeEvent::Silent { side: expected }).count();
        assert_eq!(count, 2, "{expected}");
    }
}

/// RFC 3264 8.4: who is held is not heard. `causeway-peer` sends nothing then, and nor does a PBX
/// without music.
#[test]
fn nothing_is_expected_of_either_side_while_the_trunk_holds() {
    let silent = |call: &Call| {
        call.bridge_events.iter().filter(|event| matches!(event, BridgeEvent::Silent { .. })).count()
    };
    for (direction, remote) in [
        (Direction::RecvOnly, TRUNK_RTP),
        (Direction::Inactive, TRUNK_RTP),
        (Direction::RecvOnly, "0.0.0.0:0"),
    ] {
        let configure = |config: &mut BridgeConfig| config.media_timeout = 2 * SECOND;
        let mut call = Call::with_trunk(&Options { configure, ..Options::default() });
        call.run(3 * SECOND);
        assert!(call.connected());
        let mut media = trunk_media(Codec::Pcma, 20);
        (media.direction, media.remote_rtp) = (direction, address(remote));
        call.bridge.set_trunk_media(&media, call.net.now).unwrap();
        (call.phone_talks, call.pbx.talks) = (false, false);
        call.run(61 * SECOND);
        assert_eq!(silent(&call), 0, "{direction:?} {remote}");
        // Taken back, each side has the whole time again.
        call.bridge.set_trunk_media(&trunk_media(Codec::Pcma, 20), call.net.now).unwrap();
        call.run(3 * SECOND / 2);
        assert_eq!(silent(&call), 0, "{direction:?} {remote}");
        call.run(SECOND);
        assert_eq!(silent(&call), 2, "{direction:?} {remote}");
    }
}

#[test]
fn what_waits_in_the_other_law_is_not_played() {
    let configure = |config: &mut BridgeConfig| config.suppress_silence = false;
    let mut call = Call::with_trunk(&Options { codec: Codec::Pcma, configure, ..Options::default() });
    let mut loud = tone(1000.0, 8000.0);
    call.pbx.source = Box::new(move || loud() / 128);
    call.run(4 * SECOND);
    // Nothing is under way when the law changes, but something waits to be played.
    call.net.weather.delay = Duration::ZERO;
    call.run(SECOND);
    let before = call.phone_heard.len();
    let media = trunk_media(Codec::Pcmu, 20);
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    (call.pbx.law, call.pbx.payload_type) = (Law::Mu, 0);
    call.run(SECOND);
    // A tone this quiet, read from A-law as mu-law, is ten times as loud.
    let loudest = |samples: &[i16]| samples.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
    let (usual, then) =
        (loudest(last(&call.phone_heard[..before], 8000)), loudest(&call.phone_heard[before..]));
    assert!(usual > 20 && then < 3 * usual, "{usual} before, {then} after");
}

#[test]
fn media_flows_before_the_trunk_answers_and_needs_no_trunk_to_connect() {
    let mut call = Call::new(&Options::default());
    call.pbx.source = Box::new(tone(425.0, 8000.0));
    call.run(2 * SECOND);
    assert!(call.connected());
    // Packets that came before the negotiation are refused, not kept.
    assert!(call.bridge.trunk_counters().refused_for(Refusal::NotNegotiated) > 50);
    assert!(call.pbx.heard.is_empty());
    let now = call.net.now;
    call.bridge.set_trunk_media(&trunk_media(Codec::Pcma, 20), now).unwrap();
    call.phone_talks = false;
    call.run(2 * SECOND);
    assert!(mean_tone_share(last(&call.phone_heard, 8000), 425.0, 8000.0) > 0.95);
    // The trunk hears silence, but hears it steadily.
    assert!(call.pbx.heard.len() > 15_000 && rms(&call.pbx.heard) < 200.0);
}

/// RTP Bleed and injection: packets from any other source are neither heard nor answered.
#[test]
fn a_spoofed_source_is_never_heard_nor_answered() {
    let mut call = Call::with_trunk(&Options::default());
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(2 * SECOND);
    let refused = call.bridge.trunk_counters().refused_for(Refusal::Source);
    let heard = call.phone_heard.len();
    let received = call.bridge.trunk_counters().received;
    // The attacker knows everything but the source: SSRC, sequence, timestamp, payload type.
    for n in 0..100u32 {
        let mut packet = call.pbx.last_packet.clone();
        packet[2..4].copy_from_slice(&(n as u16).to_be_bytes());
        packet[12..].fill(0x2a);
        let now = call.net.now;
        for (source, target) in [
            ("203.0.113.5:30002", GATEWAY_RTP),
            ("203.0.113.66:30000", GATEWAY_RTP),
            ("[2001:db8::1]:30000", GATEWAY_RTP),
            ("203.0.113.66:30001", GATEWAY_RTCP),
        ] {
            call.deliver(now, address(source), address(target), &packet);
        }
        call.run(FRAME);
    }
    assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::Source), refused + 400);
    assert!(call.bridge.trunk_counters().received <= received + 102);
    assert!(call.strays.is_empty());
    assert!(mean_tone_share(&call.phone_heard[heard..], 1000.0, 8000.0) > 0.97);
    // The same from the right source is believed, mapped into IPv6 or not: the rule is what bites.
    let now = call.net.now;
    let packet = call.pbx.last_packet.clone();
    let before = call.bridge.trunk_counters().received;
    call.deliver(now, address("[::ffff:203.0.113.5]:30000"), address(GATEWAY_RTP), &packet);
    assert_eq!(call.bridge.trunk_counters().received, before + 1);
}

/// RFC 3550 A.1: another SSRC on the right address needs a run of packets.
#[test]
fn a_new_ssrc_is_believed_after_a_run_only() {
    let mut call = Call::with_trunk(&Options::default());
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(2 * SECOND);
    let packet = call.pbx.last_packet.clone();
    let send = |call: &mut Call, ssrc: u32, sequence: u16| {
        let mut packet = packet.clone();
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let now = call.net.now;
        call.deliver(now, address(TRUNK_RTP), address(GATEWAY_RTP), &packet);
    };
    for n in 0..20 {
        send(&mut call, 77, n * 2);
        send(&mut call, 1000 + u32::from(n), n);
    }
    assert_eq!(call.bridge.trunk_counters().ssrc_changes, 0);
    assert_eq!(call.bridge.trunk_counters().refused_for(Refusal::Ssrc), 40);
    send(&mut call, 88, 500);
    send(&mut call, 88, 501);
    assert_eq!(call.bridge.trunk_counters().ssrc_changes, 1);
}

/// RFC 3550 6: reports every five seconds or so, BYE at the end.
#[test]
fn rtcp_reports_and_a_bye() {
    let mut call = Call::with_trunk(&Options::default());
    call.run(31 * SECOND);
    let reports = call.pbx.rtcp.len();
    assert!((4..=12).contains(&reports), "{reports}");
    let last = call.pbx.rtcp.last().unwrap();
    let packets: Vec<RtcpPacket<'_>> = rtcp::parse(last).unwrap().collect();
    let RtcpPacket::SenderReport { info, .. } = packets[0] else { panic!("{packets:?}") };
    assert!(info.packets > 1000 && info.octets == info.packets * 160, "{info:?}");
    let now = call.net.now;
    let (mut trunk, mut overlay) = (Vec::new(), 0);
    call.bridge.stop(now, &mut |out| match out.side {
        Side::Trunk => trunk.push((out.port, out.bytes.to_vec())),
        _ => overlay += 1,
    });
    assert_eq!(trunk.len(), 1);
    assert_eq!(trunk[0].0, Port::Rtcp);
    assert!(rtcp::parse(&trunk[0].1).unwrap().any(|packet| matches!(packet, RtcpPacket::Goodbye { .. })));
    assert!(overlay > 0);
    let mut sent = 0;
    call.bridge.handle_timeout(now + SECOND, &mut |_| sent += 1);
    assert_eq!(sent, 0);
}

#[test]
fn garbage_on_every_port_is_counted_and_the_call_goes_on() {
    let seed = 99;
    let mut random = Random(seed);
    let mut call = Call::with_trunk(&Options { seed, ..Options::default() });
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(2 * SECOND);
    for n in 0..3000 {
        let length = random.below(300) as usize;
        let mut bytes = random.bytes(length);
        // Half of it is nearly right.
        if n % 2 == 0 && bytes.len() > 12 {
            let head = call.pbx.last_packet.clone();
            let keep = random.below(12) as usize;
            bytes[..keep].copy_from_slice(&head[..keep]);
        }
        let now = call.net.now;
        let (source, target) = match n % 5 {
            0 => (TRUNK_RTP, GATEWAY_RTP),
            1 => (TRUNK_RTCP, GATEWAY_RTCP),
            2 => ("198.51.100.7:6000", OVERLAY),
            3 => ("203.0.113.66:1", OVERLAY),
            _ => ("203.0.113.66:1", GATEWAY_RTP),
        };
        call.deliver(now, address(source), address(target), &bytes);
        if n % 20 == 0 {
            call.run(FRAME);
        }
    }
    let trunk = *call.bridge.trunk_counters();
    for refusal in [Refusal::Source, Refusal::Malformed, Refusal::MalformedRtcp, Refusal::PayloadType] {
        assert!(trunk.refused_for(refusal) > 0, "{refusal:?} {trunk:?}");
    }
    let overlay = *call.bridge.overlay_counters();
    assert!(overlay.malformed > 0 && overlay.foreign > 0 && overlay.unauthentic > 0, "{overlay:?}");
    assert!(call.bridge.quality(Side::Trunk).packets_refused >= trunk.refused());
    assert!(call.strays.is_empty());
    call.run(3 * SECOND);
    assert!(mean_tone_share(last(&call.pbx.heard, 8000), 440.0, 8000.0) > 0.95, "seed {seed}");
    assert!(mean_tone_share(last(&call.phone_heard, 8000), 1000.0, 8000.0) > 0.95, "seed {seed}");
}

#[test]
fn a_late_driver_catches_up_and_does_not_drift() {
    let mut call = Call::with_trunk(&Options::default());
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.run(2 * SECOND);
    // The driver sleeps, first briefly and then long; packets wait in the sockets meanwhile.
    for pause in [120u64, 700] {
        call.net.now += Duration::from_millis(pause);
        call.run(2 * SECOND);
    }
    assert!(call.bridge.ticks_skipped() >= 20);
    let (first, last) = (call.pbx.timestamps[0].1, call.pbx.timestamps.last().unwrap().1);
    let media = f64::from(last.wrapping_sub(first)) / 8000.0;
    assert!((media - 6.8).abs() < 0.15, "{media} s of media time");
}

#[test]
fn trunk_media_that_cannot_be_carried_is_refused_and_changes_nothing() {
    let mut call = Call::with_trunk(&Options::default());
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(SECOND);
    let now = call.net.now;
    let good = trunk_media(Codec::Pcma, 20);
    let mut bad = [good.clone(), good.clone(), good];
    bad[0].packet_time_ms = 15;
    bad[1].packet_time_ms = 80;
    bad[2].send_payload_type = 200;
    for media in &bad {
        assert!(
            matches!(call.bridge.set_trunk_media(media, now), Err(MediaError::TrunkMedia(_))),
            "{media:?}"
        );
    }
    call.run(SECOND);
    assert!(mean_tone_share(last(&call.phone_heard, 4000), 1000.0, 8000.0) > 0.95);
}

#[test]
fn silence_from_the_trunk_is_not_encoded() {
    let mut call = Call::with_trunk(&Options::default());
    call.pbx.source = Box::new(|| 0);
    call.run(3 * SECOND);
    let before = call.bridge.overlay_counters().sent;
    call.run(4 * SECOND);
    let sent = call.bridge.overlay_counters().sent - before;
    assert!((5..=15).contains(&sent), "{sent} packets in 4 s of silence");
    assert_eq!(call.phone.quality().packets_lost, 0);
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(SECOND);
    assert!(mean_tone_share(last(&call.phone_heard, 4000), 1000.0, 8000.0) > 0.95);
}

/// RFC 8122 5: the wrong certificate ends the overlay leg, and only once.
#[test]
fn a_forged_fingerprint_fails_the_overlay() {
    let mut call = Call::with_trunk(&Options { forge_fingerprint: true, ..Options::default() });
    call.run(10 * SECOND);
    assert!(!call.connected());
    let failures: Vec<_> = call
        .bridge_events
        .iter()
        .filter(|event| matches!(event, BridgeEvent::OverlayFailed { .. }))
        .collect();
    assert_eq!(failures, [&BridgeEvent::OverlayFailed { failure: LegFailure::Fingerprint }]);
    assert!(rms(&call.pbx.heard) < 200.0);
}

#[test]
fn a_bridge_may_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<transcoder::Bridge>();
    is_send::<transcoder::Phone>();
}

// RFC 3264 6.1: whatever both sides agreed on may come at any time, whichever of it we send.
#[test]
fn c22_either_law_that_was_agreed_on_is_heard_at_any_time() {
    for (first, other) in [(Codec::Pcma, Codec::Pcmu), (Codec::Pcmu, Codec::Pcma)] {
        let mut call = Call::new(&Options { codec: first, ..Options::default() });
        let mut media = trunk_media(first, 20);
        media.also_receives = vec![(other.static_payload_type().unwrap(), other)];
        call.bridge.set_trunk_media(&media, call.net.now).unwrap();
        call.phone_source = Box::new(tone(440.0, 8000.0));
        call.pbx.source = Box::new(tone(1000.0, 8000.0));
        call.run(3 * SECOND);
        for sends in [Some(other), None, Some(other)] {
            call.pbx.sends = sends;
            call.run(2 * SECOND);
            let to_phone = mean_tone_share(last(&call.phone_heard, 14_000), 1000.0, 8000.0);
            assert!(to_phone > 0.97, "{sends:?}: {to_phone}");
            assert!((4_000.0..20_000.0).contains(&rms(last(&call.phone_heard, 8_000))), "{sends:?}");
            let to_trunk = mean_tone_share(last(&call.pbx.heard, 8_000), 440.0, 8000.0);
            assert!(to_trunk > 0.97, "we send with the first: {to_trunk}");
        }
        assert_eq!(call.bridge.quality(Side::Trunk).packets_refused, 0);
    }
}
