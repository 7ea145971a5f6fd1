//! Row F10: digits that come as tones in the audio of a trunk without telephone events (ITU-T Q.23, Q.24), and that go
//! to it so.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::{Codec, Direction, DtmfDigit, LegMedia, Side};
use transcoder::BridgeEvent;
use transcoder::codec::g711::Law;
use transcoder::dtmf::{QueueFull, ToneDetector, ToneSender, frequencies_of};

#[path = "common/mod.rs"]
mod common;
use common::babble::Babble;
use common::call::{Call, Options, trunk_media};
use common::keys::{KEYS, Press, add_noise, frequencies, peak};
use common::signal::{mean_tone_share, rms, tone, tone_share};

const SECOND: Duration = Duration::from_secs(1);

/// Runs samples through a detector, in frames of 20 ms. Returns the digits, and the audio that goes on.
fn detect(samples: &[i16]) -> (Vec<(char, u16)>, Vec<i16>) {
    let (mut detector, mut digits, mut audio) = (ToneDetector::new(), Vec::new(), Vec::new());
    for frame in samples.chunks_exact(160) {
        let mut frame = frame.to_vec();
        detector.process(&mut frame);
        audio.extend(frame);
        digits.extend(std::iter::from_fn(|| detector.poll_digit()));
    }
    (digits.into_iter().map(|(digit, ms)| (digit.as_char(), ms)).collect(), audio)
}

/// A press after so many samples of silence, and 300 ms of silence behind it.
fn pressed(press: &Press, lead: usize) -> Vec<i16> {
    [vec![0; 800 + lead], press.samples(), vec![0; 2_400]].concat()
}

/// How many milliseconds of a press are left in the audio that goes on, by their energy.
fn leak_ms(press: &Press, audio: &[i16]) -> f64 {
    rms(audio).powi(2) * audio.len() as f64 / press.power() / 8.0
}

/// Levels and twists at which a digit must be taken: ITU-T Q.24 table A-1 has 0 to -27 dBm, and 4 to 10 dB between
/// the two.
const LEVELS: [[f64; 2]; 9] = [
    [-3.0, -3.0],
    [-10.0, -10.0],
    [-27.0, -27.0],
    [-8.0, -4.0],
    [-4.0, -8.0],
    [-6.0, -15.0],
    [-15.0, -6.0],
    [-17.0, -25.0],
    [-25.0, -17.0],
];

#[test]
fn f10_every_key_is_heard_at_every_level_and_twist_and_taken_out() {
    for key in KEYS.chars() {
        for levels in LEVELS {
            for (length_ms, lead) in [(40.0, 0), (40.0, 27), (50.0, 61), (100.0, 93), (700.0, 121)] {
                let press = Press { levels, ..Press::new(key, length_ms) };
                let (digits, audio) = detect(&pressed(&press, lead));
                assert!(matches!(digits[..], [(heard, _)] if heard == key), "{press:?}: {digits:?}");
                let error = f64::from(digits[0].1) - length_ms;
                assert!(error.abs() <= 10.0, "{press:?}: {digits:?}");
                assert!(leak_ms(&press, &audio) < 3.0, "{press:?}: {} ms", leak_ms(&press, &audio));
            }
        }
    }
}

// ITU-T Q.24 table A-1: taken up to 1.8 % off, left from 3 % on.
#[test]
fn f10_frequencies_within_tolerance_are_taken_and_none_outside() {
    for key in KEYS.chars() {
        for (off, taken) in [(0.015, true), (0.018, true), (0.03, false), (0.035, false), (0.05, false)] {
            for off in [[off, 0.0], [-off, 0.0], [0.0, off], [0.0, -off], [off, -off], [-off, off]] {
                let press = Press { off, ..Press::new(key, 80.0) };
                let (digits, audio) = detect(&pressed(&press, 13));
                assert_eq!(digits.len(), usize::from(taken), "{press:?}: {digits:?}");
                if !taken {
                    assert!(leak_ms(&press, &audio) > 75.0, "{press:?}: it is no digit, so it goes on");
                }
            }
        }
    }
}

// ITU-T Q.24 table A-1: what is too faint, too unequal or too short is none.
#[test]
fn f10_what_is_outside_the_bounds_is_no_digit_and_goes_on() {
    for key in KEYS.chars() {
        let usual = Press::new(key, 80.0);
        let mut none = vec![
            Press { levels: [-30.0, -30.0], ..usual },
            Press { levels: [-10.0, -30.0], ..usual },
            Press { levels: [-26.0, -10.0], ..usual },
            Press { levels: [-5.0, -17.0], ..usual },
            Press { levels: [-17.0, -5.0], ..usual },
            // One tone alone.
            Press { levels: [-10.0, -90.0], ..usual },
            Press { levels: [-90.0, -10.0], ..usual },
        ];
        none.extend([15.0, 20.0, 23.0].map(|length_ms| Press { length_ms, ..usual }));
        for press in none {
            for lead in [0, 11, 22, 33] {
                let (digits, audio) = detect(&pressed(&press, lead));
                assert_eq!(digits, [], "{press:?}");
                // A pip may be kept back on suspicion, a tone that lasts is heard.
                let least = if press.length_ms < 24.0 { 0.0 } else { 75.0 };
                assert!(leak_ms(&press, &audio) >= least, "{press:?}");
            }
        }
    }
}

// ITU-T Q.24 table A-1: an interruption of 10 ms does not make two of one, a pause of 30 ms does.
#[test]
fn f10_an_interruption_is_bridged_and_a_pause_is_not() {
    for key in KEYS.chars() {
        for (pause_ms, count) in [(5, 1), (10, 1), (30, 2), (40, 2), (60, 2)] {
            for lead in [0, 17, 29] {
                let half = Press::new(key, 60.0).samples();
                let signal = [vec![0; 800 + lead], half.clone(), vec![0; pause_ms * 8], half, vec![0; 2_400]];
                let (digits, _) = detect(&signal.concat());
                assert_eq!(digits.len(), count, "{key}: {pause_ms} ms: {digits:?}");
            }
        }
    }
}

// ITU-T Q.24 table A-1: 93 ms from digit to digit is the fastest that is asked for, 40 ms of it the signal.
#[test]
fn f10_fast_dialling_is_heard_in_order() {
    let mut signal = vec![0; 1_000];
    let number: String = KEYS.chars().chain(KEYS.chars().rev()).collect();
    for key in number.chars() {
        signal.extend(Press::new(key, 45.0).samples());
        signal.extend([0; 384]);
    }
    signal.extend([0; 1_600]);
    let (digits, _) = detect(&signal);
    assert_eq!(digits.iter().map(|(key, _)| *key).collect::<String>(), number);
}

// 15 dB between signal and noise (ITU-T Q.24 table A-1 has 12 errors in 10,000 there), and either law.
#[test]
fn f10_digits_are_heard_through_either_law_and_through_noise() {
    let (mut pressed_at_all, mut missed) = (0, 0);
    for law in [Law::A, Law::Mu] {
        for (n, key) in KEYS.chars().enumerate() {
            for (m, levels) in LEVELS.into_iter().enumerate() {
                for (length_ms, noise) in [(40.0, false), (60.0, true), (100.0, true)] {
                    let press = Press { levels, ..Press::new(key, length_ms) };
                    let mut signal = pressed(&press, n * 10);
                    let seed = (n * 100 + m) as u64;
                    if noise {
                        add_noise(&mut signal, press.power() / 10f64.powf(1.5), seed);
                    }
                    let through: Vec<i16> =
                        signal.iter().map(|&sample| law.decode(law.encode(sample))).collect();
                    let (digits, _) = detect(&through);
                    let label = format!("{press:?}, seed {seed}, {law:?}");
                    assert!(digits.iter().all(|(heard, _)| *heard == key) && digits.len() <= 1, "{label}");
                    if noise {
                        (pressed_at_all, missed) =
                            (pressed_at_all + 1, missed + usize::from(digits.is_empty()));
                    } else {
                        assert_eq!(digits.len(), 1, "{label}");
                    }
                }
            }
        }
    }
    assert!(missed * 200 <= pressed_at_all, "{missed} of {pressed_at_all} in noise");
}

/// Talk-off (ITU-T Q.24): next to no digit is found in talk, and next to nothing of talk is taken out.
#[test]
fn f10_ten_minutes_of_babble_have_no_digit() {
    let (mut changed, mut spoken) = (0, 0);
    for seed in 100..120 {
        let mut babble = Babble::new(seed);
        let talk: Vec<i16> = (0..240_000).map(|_| babble.next_sample()).collect();
        let (digits, audio) = detect(&talk);
        assert_eq!(digits, [], "seed {seed}");
        let delayed = audio[ToneDetector::DELAY..].iter().zip(&talk);
        changed += delayed.filter(|(heard, said)| heard != said).count();
        spoken += talk.len();
    }
    assert!(changed * 10_000 < spoken, "{changed} of {spoken} samples were kept back");
}

/// Other signals of telephones that have frequencies near those of keys.
#[test]
fn f10_other_tones_are_no_digits() {
    let tones: [&[f64]; 12] = [
        // Dial, busy and ringing tones, special information (ITU-T E.180).
        &[350.0, 440.0],
        &[480.0, 620.0],
        &[440.0, 480.0],
        &[425.0],
        &[950.0],
        &[1400.0],
        &[1800.0],
        // Register signalling (ITU-T Q.323, Q.441), fax.
        &[700.0, 900.0],
        &[1300.0, 1500.0],
        &[1380.0, 1500.0],
        &[1100.0],
        &[2100.0],
    ];
    for frequencies in tones {
        let signal = |n: usize| -> i16 {
            let sum: f64 = frequencies
                .iter()
                .map(|f| peak(-8.0) * (std::f64::consts::TAU * f * n as f64 / 8_000.0).sin())
                .sum();
            sum as i16
        };
        let samples: Vec<i16> = (0..8_000).map(signal).collect();
        let (digits, audio) = detect(&samples);
        assert_eq!(digits, [], "{frequencies:?}");
        assert_eq!(audio[ToneDetector::DELAY..], samples[..8_000 - ToneDetector::DELAY], "{frequencies:?}");
    }
}

/// A trunk without telephone events.
fn in_band_media(codec: Codec) -> LegMedia {
    LegMedia { telephone_event: None, ..trunk_media(codec, 20) }
}

fn in_band_call(options: &Options) -> Call {
    let mut call = Call::new(options);
    call.bridge.set_trunk_media(&in_band_media(options.codec), call.net.now).unwrap();
    call
}

/// Lets the PBX say these samples, and a quiet tone of 300 Hz before and behind.
fn says(call: &mut Call, samples: Vec<i16>) {
    let (mut next, mut quiet) = (samples.into_iter(), tone(300.0, 8_000.0));
    call.pbx.source = Box::new(move || next.next().unwrap_or_else(|| quiet() / 8));
}

#[test]
fn f10_tones_of_a_trunk_without_events_reach_the_overlay_as_events() {
    for codec in [Codec::Pcma, Codec::Pcmu] {
        let mut call = in_band_call(&Options { codec, ..Options::default() });
        says(&mut call, Vec::new());
        call.run(3 * SECOND);
        let before = call.phone_heard.len();
        let signal: Vec<i16> =
            KEYS.chars().flat_map(|key| [Press::new(key, 60.0).samples(), vec![0; 800]].concat()).collect();
        says(&mut call, signal);
        call.run(6 * SECOND);
        assert_eq!(call.phone_digits(), KEYS, "{codec:?}");
        assert_eq!(call.bridge_digits(Side::Trunk), KEYS, "{codec:?}");
        for event in &call.bridge_events {
            if let BridgeEvent::Dtmf { duration_ms, .. } = event {
                assert!((50..=70).contains(duration_ms), "{event:?}");
            }
        }
        // Nothing of the tones is heard beside the events.
        let heard = &call.phone_heard[before..];
        for (n, window) in heard.chunks_exact(160).enumerate() {
            for key in ['1', '5', '9', 'D'] {
                let share: f64 = frequencies(key).iter().map(|f| tone_share(window, *f, 8_000.0)).sum();
                assert!(share < 0.7 || rms(window) < 700.0, "{key} at {} ms: {}", n * 20, rms(window));
            }
        }
        // The voice goes on behind them.
        assert!(mean_tone_share(&heard[heard.len() - 8_000..], 300.0, 8_000.0) > 0.9);
    }
}

// A trunk that turns out to have telephone events, and then has none again.
#[test]
fn f10_tones_are_listened_for_only_where_there_are_no_events() {
    let mut call = Call::with_trunk(&Options::default());
    says(&mut call, Vec::new());
    call.run(3 * SECOND);
    for (media, digits) in [
        (trunk_media(Codec::Pcma, 20), ""),
        (in_band_media(Codec::Pcma), "7"),
        (trunk_media(Codec::Pcma, 20), ""),
    ] {
        call.bridge_events.clear();
        let before = call.phone_digits().len();
        call.bridge.set_trunk_media(&media, call.net.now).unwrap();
        call.run(SECOND);
        says(&mut call, Press::new('7', 100.0).samples());
        call.run(2 * SECOND);
        assert_eq!(call.bridge_digits(Side::Trunk), digits);
        assert_eq!(&call.phone_digits()[before..], digits);
        let tail = &call.phone_heard[call.phone_heard.len() - 4_000..];
        assert!(mean_tone_share(tail, 300.0, 8_000.0) > 0.9);
    }
}

// INFO beside tones, from a PBX that sends both.
#[test]
fn f10_f11_a_digit_that_is_signalled_beside_its_tone_arrives_once() {
    let mut call = in_band_call(&Options::default());
    call.run(3 * SECOND);
    for signalled_ms in [0, 60, 300] {
        let before = call.phone_digits().len();
        says(&mut call, Press::new('4', 100.0).samples());
        call.run(Duration::from_millis(signalled_ms));
        let digit = DtmfDigit::from_char('4').unwrap();
        assert!(call.bridge.send_dtmf(call.net.now, Side::Overlay, digit, 100));
        call.run(3 * SECOND);
        assert_eq!(&call.phone_digits()[before..], "4", "signalled after {signalled_ms} ms");
    }
}

/// The tones of what was sent to a PBX: what a detector hears in it.
fn heard_tones(samples: &[i16]) -> String {
    detect(samples).0.iter().map(|(key, _)| *key).collect()
}

#[test]
fn f10_digits_go_as_tones_to_a_trunk_without_events_if_so_chosen() {
    let configure = |config: &mut transcoder::BridgeConfig| config.in_band_digits = true;
    for (codec, packet_time_ms) in
        [(Codec::Pcma, 20), (Codec::Pcmu, 10), (Codec::Pcma, 30), (Codec::Pcma, 60)]
    {
        let options = Options { codec, packet_time_ms, configure, ..Options::default() };
        let mut call = Call::new(&options);
        let media = LegMedia { packet_time_ms, ..in_band_media(codec) };
        call.bridge.set_trunk_media(&media, call.net.now).unwrap();
        call.phone_source = Box::new(tone(440.0, 8_000.0));
        call.run(3 * SECOND);
        assert!(call.bridge.carries_digits(Side::Trunk) && !call.bridge.has_telephone_event(Side::Trunk));
        let before = call.pbx.heard.len();
        for key in "159".chars() {
            assert!(call.phone.send_dtmf(DtmfDigit::from_char(key).unwrap(), 100));
        }
        call.run(3 * SECOND);
        // Signalled ones too.
        assert!(call.bridge.send_dtmf(call.net.now, Side::Trunk, DtmfDigit::from_char('#').unwrap(), 100));
        call.run(SECOND);
        assert_eq!(heard_tones(&call.pbx.heard[before..]), "159#", "{codec:?} {packet_time_ms} ms");
        assert_eq!(call.pbx_digits(), "");
        assert_eq!(call.bridge_digits(Side::Overlay), "159");
        // The audio is one stream without a gap or a mark, and voice follows.
        for pair in call.pbx.timestamps.windows(2) {
            assert_eq!(pair[1].1, pair[0].1.wrapping_add(u32::from(packet_time_ms) * 8));
            assert!(!pair[1].2);
        }
        assert!(mean_tone_share(&call.pbx.heard[call.pbx.heard.len() - 2_400..], 440.0, 8_000.0) > 0.95);
    }
}

#[test]
fn digits_are_left_to_signalling_where_tones_were_not_chosen() {
    let mut call = in_band_call(&Options::default());
    call.run(3 * SECOND);
    let before = call.pbx.heard.len();
    let digit = DtmfDigit::from_char('5').unwrap();
    assert!(!call.bridge.carries_digits(Side::Trunk));
    assert!(!call.bridge.send_dtmf(call.net.now, Side::Trunk, digit, 100));
    assert!(call.phone.send_dtmf(digit, 100));
    call.run(SECOND);
    assert_eq!(heard_tones(&call.pbx.heard[before..]), "");
    let told = |event: &BridgeEvent| matches!(event, BridgeEvent::Dtmf { forwarded: false, .. });
    assert_eq!(call.bridge_events.iter().filter(|event| told(event)).count(), 1);
}

// Events where there are events, whatever was chosen; tones wait while the trunk holds.
#[test]
fn f10_tones_go_only_where_there_are_no_events_and_wait_while_held() {
    let configure = |config: &mut transcoder::BridgeConfig| config.in_band_digits = true;
    let mut call = Call::with_trunk(&Options { configure, ..Options::default() });
    call.run(3 * SECOND);
    assert!(call.bridge.carries_digits(Side::Trunk));
    let digit = DtmfDigit::from_char('2').unwrap();
    assert!(call.bridge.send_dtmf(call.net.now, Side::Trunk, digit, 100));
    call.run(SECOND);
    assert_eq!((call.pbx_digits().as_str(), heard_tones(&call.pbx.heard).as_str()), ("2", ""));
    let held = LegMedia { direction: Direction::RecvOnly, ..in_band_media(Codec::Pcma) };
    call.bridge.set_trunk_media(&held, call.net.now).unwrap();
    assert!(call.bridge.send_dtmf(call.net.now, Side::Trunk, digit, 100));
    call.run(SECOND);
    assert_eq!(heard_tones(&call.pbx.heard), "");
    call.bridge.set_trunk_media(&in_band_media(Codec::Pcma), call.net.now).unwrap();
    call.run(SECOND);
    assert_eq!((call.pbx_digits().as_str(), heard_tones(&call.pbx.heard).as_str()), ("2", "2"));
    // A choice that is made later counts from the next negotiation on.
    call.bridge.set_in_band_digits(false);
    assert!(call.bridge.carries_digits(Side::Trunk));
    call.bridge.set_trunk_media(&in_band_media(Codec::Pcma), call.net.now).unwrap();
    assert!(!call.bridge.carries_digits(Side::Trunk));
    call.bridge.set_in_band_digits(true);
    assert!(!call.bridge.carries_digits(Side::Trunk));
    call.bridge.set_trunk_media(&in_band_media(Codec::Pcma), call.net.now).unwrap();
    assert!(call.bridge.carries_digits(Side::Trunk));
}

/// A hybrid at the far end returns part of what it is sent: that is no digit of its own.
#[test]
fn f10_the_echo_of_a_tone_of_ours_is_no_digit() {
    let configure = |config: &mut transcoder::BridgeConfig| config.in_band_digits = true;
    let mut call = in_band_call(&Options { configure, ..Options::default() });
    call.run(3 * SECOND);
    let echo: Vec<i16> = Press { levels: [-20.0, -20.0], ..Press::new('8', 100.0) }.samples();
    for delay_ms in [20, 150, 400] {
        let before = call.phone_digits().len();
        assert!(call.bridge.send_dtmf(call.net.now, Side::Trunk, DtmfDigit::from_char('8').unwrap(), 100));
        call.run(Duration::from_millis(delay_ms));
        says(&mut call, echo.clone());
        call.run(2 * SECOND);
        assert_eq!(&call.phone_digits()[before..], "", "{delay_ms} ms");
        // The same key, pressed there later, is one.
        says(&mut call, echo.clone());
        call.run(2 * SECOND);
        assert_eq!(&call.phone_digits()[before..], "8", "{delay_ms} ms");
    }
}

// ITU-T Q.23: 1.5 %; ETSI ES 201 235-2: levels, at least 65 ms of tone and of pause.
#[test]
fn tones_have_their_frequencies_levels_and_lengths() {
    for key in KEYS.chars() {
        let digit = DtmfDigit::from_char(key).unwrap();
        assert_eq!(frequencies_of(digit).map(f64::from), frequencies(key));
        for (asked_ms, tone_ms) in [(0, 65), (100, 100), (1_000, 1_000)] {
            let mut sender = ToneSender::new();
            sender.queue(digit, asked_ms).unwrap();
            let mut samples = vec![1234; (tone_ms + 65) * 8 + 80];
            assert_eq!(sender.fill(&mut samples), Some(digit));
            assert!(sender.is_idle());
            let (tone, rest) = samples.split_at(tone_ms * 8);
            assert!(rest[..520].iter().all(|&sample| sample == 0), "{key}: the pause");
            assert!(rest[520..].iter().all(|&sample| sample == 1234), "{key}: the voice goes on");
            let steady = &tone[40..tone.len() - 40];
            for (frequency, level) in frequencies(key).into_iter().zip([-9.0, -7.0]) {
                let power = tone_share(steady, frequency, 8_000.0) * rms(steady).powi(2);
                let measured = 10.0 * (power / (peak(0.0).powi(2) / 2.0)).log10();
                assert!((measured - level).abs() < 0.7, "{key}: {frequency} Hz at {measured} dBm0");
            }
            // No click: it rises and falls over 2 ms.
            for edge in [&tone[..3], &tone[tone.len() - 3..]] {
                assert!(edge.iter().all(|sample| sample.unsigned_abs() < 2_000), "{key}: {edge:?}");
            }
        }
    }
}

#[test]
fn the_queue_of_tones_is_bounded() {
    let mut sender = ToneSender::new();
    let digit = DtmfDigit::from_char('1').unwrap();
    for _ in 0..32 {
        sender.queue(digit, 100).unwrap();
    }
    assert_eq!(sender.queue(digit, 100), Err(QueueFull));
    let mut samples = vec![0; 32 * (100 + 65) * 8];
    sender.fill(&mut samples);
    assert!(sender.is_idle());
    assert_eq!(heard_tones(&[samples, vec![0; 1_600]].concat()).len(), 32);
}
