//! Row F15: fax machines and modems in the audio, which is voiceband data while they speak (ITU-T V.152).
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::{Codec, LegMedia, Side};
use transcoder::codec::g711::Law;
use transcoder::order::{Arrival, Frame, JitterBuffer, JitterConfig, JitterCounters, Pace};
use transcoder::rtp::RtpPacket;
use transcoder::{BridgeEvent, Port, Relay, RelayConfig, VoicebandDetector, VoicebandSignal};

#[path = "common/mod.rs"]
mod common;
use common::babble::Babble;
use common::call::{Call, FRAME, Options, TRUNK_RTP, trunk_media};
use common::fax::{answer, bits, cng, flags, steady};
use common::keys::{KEYS, Press, add_noise, peak};
use common::signal::{mean_tone_share, rms, tone};
use common::{Random, address};

const SECOND: Duration = Duration::from_secs(1);

fn heard(samples: &[i16]) -> Vec<VoicebandSignal> {
    let mut detector = VoicebandDetector::new();
    samples.chunks_exact(160).filter_map(|frame| detector.process(frame)).collect()
}

fn with_silence(signal: &[i16], lead: usize) -> Vec<i16> {
    [&vec![0; 800 + lead][..], signal, &[0; 1_600]].concat()
}

/// Every signal at a level, and what is to be made of it: an answering tone is told once more when its phase turns.
fn signals(dbm0: f64) -> Vec<(&'static str, Vec<i16>, Vec<VoicebandSignal>)> {
    use VoicebandSignal::{Ans, AnsAm, AnsAmReversed, AnsReversed, Cng, V21Preamble};
    let mut signals = vec![
        ("CNG", cng(dbm0), vec![Cng]),
        ("CNG 38 Hz low", steady(1_062.0, dbm0, 0.425), vec![Cng]),
        ("CNG 38 Hz high", steady(1_138.0, dbm0, 0.575), vec![Cng]),
        ("flags", flags(dbm0, 37, false), vec![V21Preamble]),
        ("flags that share their zeros", flags(dbm0, 42, true), vec![V21Preamble]),
    ];
    for frequency in [2_085.0, 2_100.0, 2_115.0] {
        let tone = |modulated, reversed| answer(frequency, dbm0, 3.0, modulated, reversed);
        signals.extend([
            ("ANS", tone(false, false), vec![Ans]),
            ("ANS with reversals", tone(false, true), vec![Ans, AnsReversed]),
            ("ANSam", tone(true, false), vec![AnsAm]),
            ("ANSam with reversals", tone(true, true), vec![AnsAm, AnsAmReversed]),
        ]);
    }
    signals
}

// ITU-T V.152 9: what a gateway listens for. From -43 dBm on (V.25), in either law, and in noise.
#[test]
fn f15_every_signal_is_recognised_for_what_it_is() {
    for dbm0 in [-8.0, -13.0, -26.0, -40.0] {
        for (name, samples, expected) in signals(dbm0) {
            for lead in [0, 9, 18, 27, 36] {
                let clean = with_silence(&samples, lead);
                assert_eq!(heard(&clean), expected, "{name} at {dbm0} dBm0, {lead} samples in");
                for law in [Law::A, Law::Mu] {
                    let coded: Vec<i16> =
                        clean.iter().map(|&sample| law.decode(law.encode(sample))).collect();
                    assert_eq!(heard(&coded), expected, "{name} at {dbm0} dBm0 in {law:?}");
                }
                let (mut noisy, seed) = (clean, lead as u64);
                add_noise(&mut noisy, peak(dbm0).powi(2) / 2.0 / 10f64.powf(1.5), seed);
                assert_eq!(heard(&noisy), expected, "{name} at {dbm0} dBm0 in noise, seed {seed}");
            }
        }
    }
}

#[test]
fn f15_what_is_nearly_a_signal_is_none() {
    let mut random = Random(7);
    let any: Vec<bool> = (0..600).map(|_| random.chance(500)).collect();
    let bytes: Vec<bool> = [true, false, true, true, false, false, true, false].repeat(60);
    let none = [
        ("1100 Hz for a third of a second", steady(1_100.0, -13.0, 0.33)),
        ("1100 Hz for two seconds", steady(1_100.0, -13.0, 2.0)),
        ("1000 Hz", steady(1_000.0, -13.0, 0.5)),
        ("1200 Hz", steady(1_200.0, -13.0, 0.5)),
        ("2050 Hz", steady(2_050.0, -13.0, 3.0)),
        ("2150 Hz", steady(2_150.0, -13.0, 3.0)),
        ("2100 Hz for a third of a second", steady(2_100.0, -13.0, 0.33)),
        ("CNG too faint", cng(-50.0)),
        ("ANS too faint", steady(2_100.0, -50.0, 3.0)),
        ("ones", bits(-13.0, &[true; 600])),
        ("zeros", bits(-13.0, &[false; 600])),
        ("bits without flags", bits(-13.0, &any)),
        ("bytes without flags", bits(-13.0, &bytes)),
        ("three flags", flags(-13.0, 3, false)),
    ];
    for (name, samples) in none {
        assert_eq!(heard(&with_silence(&samples, 0)), [], "{name}");
    }
}

#[test]
fn f15_keys_and_talk_are_no_signals() {
    for key in KEYS.chars() {
        for levels in [[-8.0, -8.0], [-4.0, -12.0], [-12.0, -4.0]] {
            let press = Press { levels, ..Press::new(key, 3_000.0) };
            assert_eq!(heard(&with_silence(&press.samples(), 0)), [], "{press:?}");
        }
    }
    for seed in 0..30 {
        let mut babble = Babble::new(seed);
        let talk: Vec<i16> = (0..240_000).map(|_| babble.next_sample()).collect();
        assert_eq!(heard(&talk), [], "seed {seed}");
    }
}

/// The answering tone of the PBX, for as long as it likes.
fn answers(call: &mut Call) {
    let mut samples = answer(2_100.0, -12.0, 120.0, false, false).into_iter();
    call.pbx.source = Box::new(move || samples.next().unwrap_or(0));
}

fn told(call: &Call) -> Vec<(Side, VoicebandSignal)> {
    let told = call.bridge_events.iter().filter_map(|event| match event {
        BridgeEvent::Voiceband { side, signal } => Some((*side, *signal)),
        _ => None,
    });
    told.collect()
}

fn has_ended(call: &Call) -> usize {
    call.bridge_events.iter().filter(|event| **event == BridgeEvent::VoicebandEnded).count()
}

#[test]
fn f15_each_signal_of_either_side_is_told_once() {
    for codec in [Codec::Pcma, Codec::Pcmu] {
        for (name, samples, expected) in signals(-13.0) {
            for side in [Side::Trunk, Side::Overlay] {
                let mut call = Call::with_trunk(&Options { codec, ..Options::default() });
                call.run(2 * SECOND);
                // CNG comes again and again.
                let mut again = [&samples[..], &[0; 8_000], &samples[..]].concat().into_iter();
                let source = Box::new(move || again.next().unwrap_or(0));
                match side {
                    Side::Trunk => call.pbx.source = source,
                    _ => call.phone_source = source,
                }
                call.run(9 * SECOND);
                let expected: Vec<_> = expected.iter().map(|signal| (side, *signal)).collect();
                if side == Side::Overlay && told(&call) != expected {
                    // Opus at 16 kbit/s keeps no modem's signal as it was; the phase of a tone may be lost.
                    assert!(told(&call).starts_with(&expected[..1]), "{name}: {:?}", told(&call));
                    continue;
                }
                assert_eq!(told(&call), expected, "{name} of the {side}");
                assert_eq!(has_ended(&call), 0, "{name}");
            }
        }
    }
    let labels: std::collections::BTreeSet<_> = VoicebandSignal::ALL.map(VoicebandSignal::as_str).into();
    assert_eq!(labels.len(), VoicebandSignal::ALL.len());
}

/// ITU-T V.152 6.1: no silence suppression. 10: it ends with silence on both sides.
#[test]
fn f15_silence_is_sent_until_neither_side_has_said_anything_for_long() {
    let mut call = Call::with_trunk(&Options::default());
    call.run(2 * SECOND);
    let sent = |call: &mut Call, seconds: u32| {
        let before = call.bridge.overlay_counters().sent;
        call.run(seconds * SECOND);
        call.bridge.overlay_counters().sent - before
    };
    assert!(sent(&mut call, 4) < 20, "voice leaves silence out");
    answers(&mut call);
    call.run(2 * SECOND);
    assert_eq!(told(&call), [(Side::Trunk, VoicebandSignal::Ans)]);
    // The trunk falls silent, and goes on after a while.
    call.pbx.source = Box::new(|| 0);
    assert!(sent(&mut call, 6) >= 295, "voiceband data does not");
    answers(&mut call);
    call.run(SECOND);
    // It is the overlay's turn.
    call.pbx.source = Box::new(|| 0);
    call.phone_source = Box::new(tone(1_700.0, 8_000.0));
    assert!(sent(&mut call, 12) >= 595);
    assert_eq!(has_ended(&call), 0);
    // Both are silent.
    call.phone_source = Box::new(|| 0);
    assert!(sent(&mut call, 7) >= 345);
    assert_eq!(has_ended(&call), 0);
    call.run(2 * SECOND);
    assert_eq!(has_ended(&call), 1);
    assert!(sent(&mut call, 4) < 20, "voice again");
    // And once more from the beginning.
    answers(&mut call);
    call.run(2 * SECOND);
    assert_eq!(told(&call), [(Side::Trunk, VoicebandSignal::Ans); 2]);
}

/// Powers of the 5 ms of what the phone heard, to that of the loudest.
fn dips(heard: &[i16], below: f64) -> usize {
    let powers: Vec<f64> = heard.chunks_exact(40).map(rms).collect();
    let loudest = powers.iter().copied().fold(0.0, f64::max);
    powers.iter().filter(|&&power| power < below * loudest).count()
}

/// ITU-T V.152 6.1: what is lost is not made up.
#[test]
fn f15_a_lost_frame_is_silence_and_not_made_up() {
    for voiceband in [false, true] {
        let mut call = Call::with_trunk(&Options::default());
        call.run(2 * SECOND);
        match voiceband {
            true => answers(&mut call),
            false => call.pbx.source = Box::new(tone(1_000.0, 8_000.0)),
        }
        call.run(3 * SECOND);
        assert_eq!(told(&call).len(), usize::from(voiceband));
        let (heard, concealed) = (call.phone_heard.len(), call.bridge.quality(Side::Trunk).frames_concealed);
        for _ in 0..10 {
            call.pbx.lose = 1;
            call.run(SECOND / 5);
        }
        let quality = call.bridge.quality(Side::Trunk);
        assert_eq!(quality.packets_lost, 10, "{quality:?}");
        let (made_up, dips) = (quality.frames_concealed - concealed, dips(&call.phone_heard[heard..], 0.25));
        match voiceband {
            true => assert!(made_up == 0 && dips >= 20, "{made_up} made up, {dips} times 5 ms are silent"),
            false => assert!(made_up == 10 && dips == 0, "{made_up} made up, {dips} times 5 ms are silent"),
        }
    }
}

/// ITU-T V.152 6.1: the delay is constant.
#[test]
fn f15_the_delay_does_not_follow_the_network() {
    let mut call = Call::with_trunk(&Options::default());
    call.run(2 * SECOND);
    answers(&mut call);
    call.run(3 * SECOND);
    let (before, heard) = (call.bridge.quality(Side::Trunk), call.phone_heard.len());
    // Packets that come up to 80 ms late are there in time, from the first on.
    call.net.jittery = Some(address(TRUNK_RTP));
    for jitter_ms in [0, 60, 80, 25, 0, 80] {
        call.net.weather.jitter = Duration::from_millis(jitter_ms);
        call.run(10 * SECOND);
    }
    let after = call.bridge.quality(Side::Trunk);
    assert_eq!((after.packets_late, after.packets_lost), (before.packets_late, before.packets_lost));
    assert_eq!(after.frames_concealed, before.frames_concealed);
    // A stretch would be silence.
    assert_eq!(dips(&call.phone_heard[heard..], 0.25), 0);
    let tail = &call.phone_heard[call.phone_heard.len() - 16_000..];
    assert!(mean_tone_share(tail, 2_100.0, 8_000.0) > 0.95);
}

/// Half a minute of a buffer: packets of 20 ms over a network of so much jitter, one lost in `lost`. Returns what the
/// ticks after the first two seconds got, by kind: packets as they are, shortened ones, gaps, stretched ones.
fn buffered(
    buffer: &mut JitterBuffer,
    fixed: bool,
    jitter_ms: u64,
    lost: u64,
    seed: u64,
) -> ([u32; 4], JitterCounters) {
    #[allow(clippy::disallowed_methods)]
    let start = std::time::Instant::now();
    let (mut random, mut waiting) = (Random(seed), Vec::new());
    let mut kinds = [0; 4];
    for n in 0..1_500u32 {
        let now = start + FRAME * n;
        if n == 50 && fixed {
            buffer.set_fixed(Some(Duration::from_millis(100)));
        }
        let arrival = Arrival {
            ssrc: 7,
            sequence: n as u16,
            timestamp: n * 160,
            marker: n == 0,
            duration: 160,
            silence: false,
        };
        // The jitter comes late, and goes again.
        let jitter_ms = if (300..900).contains(&n) { jitter_ms } else { 0 };
        if lost == 0 || random.below(lost) > 0 {
            waiting.push((now + Duration::from_millis(random.below(jitter_ms + 1)), arrival));
        }
        waiting.sort_by_key(|(at, _)| *at);
        let tick = now + Duration::from_millis(13);
        while waiting.first().is_some_and(|(at, _)| *at <= tick) {
            let (at, arrival) = waiting.remove(0);
            buffer.insert(at, arrival, &[0; 160]);
        }
        let kind = match buffer.pop(tick, 0) {
            Frame::Packet { pace: Pace::Keep, .. } => 0,
            Frame::Packet { pace: Pace::Shorten(_), .. } => 1,
            Frame::Packet { pace: Pace::Stretch(_), .. } => 3,
            Frame::Lost { .. } => 2,
            Frame::Silence { .. } | Frame::Empty => continue,
        };
        kinds[kind] += u32::from(n >= 100);
    }
    (kinds, buffer.counters())
}

/// ITU-T V.152 6.1: a constant delay, from one step on.
#[test]
fn f15_a_fixed_buffer_neither_drops_nor_stretches() {
    for seed in 1..=10 {
        for lost in [0, 20] {
            let mut buffer = JitterBuffer::new(JitterConfig::g711());
            let (kinds, counters) = buffered(&mut buffer, true, 80, lost, seed);
            let label = format!("seed {seed}: {kinds:?} {counters:?}");
            // But for what the fastest packets differ by from one ten seconds to the next.
            let away = buffer.target_delay().abs_diff(Duration::from_millis(100));
            assert!(away < Duration::from_millis(2), "{label}: {away:?}");
            assert_eq!((kinds[1], kinds[3]), (0, 0), "{label}");
            assert_eq!((counters.discarded, counters.late, counters.restarts), (0, 0, 0), "{label}");
            // One tick, one packet or one gap: those of the step apart.
            assert_eq!(kinds[0] + kinds[2], 1_400, "{label}");
            assert_eq!(u64::from(kinds[2] > 0), u64::from(lost > 0), "{label}");
            // The same network, followed.
            let (kinds, counters) =
                buffered(&mut JitterBuffer::new(JitterConfig::g711()), false, 80, lost, seed);
            let disturbed = counters.waits + counters.late > 0;
            assert!(kinds[1] > 0 && disturbed, "seed {seed}: {kinds:?} {counters:?}");
        }
    }
    // What is held back longer already stays so; no more than is configured; and it ends.
    let mut buffer = JitterBuffer::new(JitterConfig::g711());
    buffered(&mut buffer, false, 150, 0, 3);
    let before = buffer.target_delay();
    buffer.set_fixed(Some(Duration::from_millis(10)));
    assert_eq!(buffer.target_delay(), before);
    buffer.set_fixed(Some(SECOND));
    assert_eq!(buffer.target_delay(), Duration::from_millis(200));
    let mut buffer = JitterBuffer::new(JitterConfig::g711());
    buffer.set_fixed(Some(Duration::from_millis(100)));
    buffer.set_fixed(None);
    buffered(&mut buffer, false, 0, 0, 4);
    assert_eq!(buffer.target_delay(), Duration::from_millis(20));
}

/// A fax machine's signals are no digits, whatever else is listened for.
#[test]
fn f15_no_digits_are_heard_in_voiceband_data() {
    let mut call = Call::new(&Options::default());
    let media = LegMedia { telephone_event: None, ..trunk_media(Codec::Pcma, 20) };
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    call.run(2 * SECOND);
    let digit = || Press::new('6', 100.0).samples();
    for (data, digits) in [(answer(2_100.0, -12.0, 1.0, false, false), ""), (Vec::new(), "6")] {
        let before = call.phone_digits().len();
        let mut samples = [data, vec![0; 800], digit()].concat().into_iter();
        call.pbx.source = Box::new(move || samples.next().unwrap_or(0));
        call.run(12 * SECOND);
        assert_eq!(&call.phone_digits()[before..], digits);
    }
    assert_eq!(has_ended(&call), 1);
}

/// Between two trunks nothing is decoded, so there is nothing to turn off: packets go on as they come.
#[test]
fn f15_a_relay_passes_voiceband_data_as_it_is() {
    let far = "203.0.113.9:40000";
    let mut call = Call::new(&Options::default());
    let config = RelayConfig {
        trunk_rtp: address("192.0.2.1:20000"),
        onward_rtp: address("192.0.2.1:20002"),
        media_timeout: 600 * SECOND,
        identity: None,
    };
    let mut relay = Relay::new(&config, 3, call.net.now);
    let media = trunk_media(Codec::Pcma, 20);
    let onward = LegMedia { remote_rtp: address(far), remote_rtcp: None, ..media.clone() };
    relay.set_media(Side::Trunk, &media, call.net.now).unwrap();
    relay.set_media(Side::Onward, &onward, call.net.now).unwrap();
    let signal = [answer(2_100.0, -12.0, 3.0, true, true), vec![0; 8_000], flags(-12.0, 40, false)].concat();
    let (mut random, mut sent, mut passed) = (Random(1), Vec::new(), Vec::new());
    for (n, frame) in signal.chunks_exact(160).enumerate() {
        call.net.now += FRAME;
        if random.chance(30) {
            continue;
        }
        let mut packet = vec![0x80, 8];
        packet.extend((n as u16).to_be_bytes());
        packet.extend((n as u32 * 160).to_be_bytes());
        packet.extend(7u32.to_be_bytes());
        packet.extend(frame.iter().map(|&sample| Law::A.encode(sample)));
        let mut emit = |out: transcoder::Outgoing<'_>| {
            let packet = RtpPacket::parse(out.bytes).unwrap();
            if out.port == Port::Rtp {
                passed.push((packet.timestamp(), packet.payload().to_vec()));
            }
        };
        relay.handle_datagram(call.net.now, Side::Trunk, Port::Rtp, address(TRUNK_RTP), &packet, &mut emit);
        sent.push((n as u32 * 160, packet[12..].to_vec()));
    }
    // At once, each with the octets it had, and with the gaps there were.
    assert_eq!(passed.len(), sent.len());
    for ((before, first), (after, second)) in passed.iter().zip(&sent) {
        assert_eq!(before.wrapping_sub(passed[0].0), after - sent[0].0);
        assert_eq!(first, second);
    }
    while let Some(event) = relay.poll_event() {
        assert!(matches!(event, BridgeEvent::FirstPacket { .. }), "{event:?}");
    }
}
