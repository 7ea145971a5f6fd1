//! Calls over a trunk that speaks G.722 (RFC 3551 4.5.2): wide band from Opus to it and back.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::{Codec, LegMedia, Side};
use transcoder::{BridgeEvent, EdgeCodec};

#[path = "common/mod.rs"]
mod common;
use common::call::{Call, Options, trunk_media};
use common::fax::answer;
use common::keys::Press;
use common::signal::{mean_tone_share, rms, tone};

const SECOND: Duration = Duration::from_secs(1);
const WIDE: f64 = 16_000.0;
/// Above all that narrow band carries.
const HIGH: f64 = 5_000.0;

/// A trunk in G.722 whose tones are at `frequency`, and a phone of a rate that sends the same.
fn options(phone_rate: u32) -> Options {
    Options { phone_rate, codec: Codec::G722, playback_rate: 16_000, ..Options::default() }
}

fn with_tone(options: &Options, frequency: f64) -> Call {
    let mut call = Call::with_trunk(options);
    call.phone_source = Box::new(tone(frequency, f64::from(options.phone_rate)));
    let rate = if options.codec == Codec::G722 { WIDE } else { 8_000.0 };
    call.pbx.source = Box::new(tone(frequency, rate));
    call
}

fn last(samples: &[i16], seconds: f64, rate: f64) -> &[i16] {
    &samples[samples.len() - (seconds * rate) as usize..]
}

/// Shares of the tone in what the trunk and the phone heard in the last second, and the levels of both.
fn heard(call: &Call, frequency: f64, phone_rate: u32) -> ([f64; 2], [f64; 2]) {
    let rate = f64::from(phone_rate);
    let (trunk, phone) = (last(&call.pbx.heard, 1.0, WIDE), last(&call.phone_heard, 1.0, rate));
    let shares = [mean_tone_share(trunk, frequency, WIDE), mean_tone_share(phone, frequency, rate)];
    (shares, [rms(trunk), rms(phone)])
}

fn assert_heard(call: &Call, frequency: f64, phone_rate: u32, label: &str) {
    let (shares, levels) = heard(call, frequency, phone_rate);
    assert!(
        shares.iter().all(|&share| share > 0.9),
        "{label}: {frequency} Hz is {shares:?} of what is heard"
    );
    assert!(levels.iter().all(|level| (4_000.0..7_000.0).contains(level)), "{label}: levels {levels:?}");
}

#[test]
fn a_tone_of_5_khz_goes_both_ways_between_opus_and_g722() {
    for phone_rate in [16_000, 48_000] {
        for phone_calls in [true, false] {
            let options = Options { phone_calls, ..options(phone_rate) };
            let mut call = with_tone(&options, HIGH);
            call.run(4 * SECOND);
            let label = format!("{phone_rate} Hz, phone calls: {phone_calls}");
            assert_eq!(call.bridge.sample_rate(), 16_000);
            assert_heard(&call, HIGH, phone_rate, &label);
            // RFC 3551 4.5.2: 160 ticks of 8 kHz for the 320 samples of 20 ms.
            let steps = call.pbx.timestamps.windows(2);
            assert!(steps.into_iter().all(|pair| pair[1].1.wrapping_sub(pair[0].1) == 160), "{label}");
            assert_eq!(call.pbx.heard.len(), 320 * call.pbx.timestamps.len(), "{label}");
            let quality = call.bridge.quality(Side::Trunk);
            assert_eq!((quality.packets_lost, quality.packets_refused, quality.frames_concealed), (0, 0, 0));
            assert_eq!(quality.rating.map(|rating| rating.cause), Some(None), "{label}");
        }
    }
}

/// What the test before hears is owed to G.722 and to what the bridge says it plays: without either there is nothing.
#[test]
fn no_tone_of_5_khz_goes_through_where_either_side_is_narrow() {
    let mut call = with_tone(&Options { codec: Codec::Pcma, ..options(16_000) }, HIGH);
    call.run(3 * SECOND);
    assert_eq!(call.bridge.sample_rate(), 8_000);
    assert!(rms(last(&call.pbx.heard, 1.0, 8_000.0)) < 800.0);
    let mut call = with_tone(&Options { playback_rate: 8_000, ..options(16_000) }, HIGH);
    call.run(3 * SECOND);
    assert!(rms(last(&call.pbx.heard, 1.0, WIDE)) < 800.0);
    // The other way it is the phone's word that counts.
    assert!(mean_tone_share(last(&call.phone_heard, 1.0, WIDE), HIGH, WIDE) > 0.9);
}

#[test]
fn a_user_in_narrow_band_talks_over_g722_in_opus_and_in_g711() {
    for edge in [EdgeCodec::Never, EdgeCodec::Always] {
        let mut call = with_tone(&Options { g711: [true; 2], ..options(8_000) }, 1_000.0);
        call.bridge.set_edge(edge);
        call.phone.set_edge(edge);
        call.run(5 * SECOND);
        let expected = if edge == EdgeCodec::Always { Codec::Pcma } else { Codec::Opus };
        assert_eq!(call.bridge.overlay_receives(), expected);
        // G.711 is for what is 8 kHz on both sides.
        assert_eq!(call.bridge.overlay_sends(), Codec::Opus);
        assert_heard(&call, 1_000.0, 8_000, edge.as_str());
    }
}

#[test]
fn packets_of_10_to_60_ms_are_made_and_taken() {
    for packet_time_ms in [10, 20, 30, 40, 60] {
        let mut call = with_tone(&Options { packet_time_ms, ..options(16_000) }, HIGH);
        call.run(4 * SECOND);
        assert_heard(&call, HIGH, 16_000, &format!("{packet_time_ms} ms"));
        let ticks = 8 * u32::from(packet_time_ms);
        let steps = call.pbx.timestamps.windows(2);
        assert!(
            steps.into_iter().all(|pair| pair[1].1.wrapping_sub(pair[0].1) == ticks),
            "{packet_time_ms} ms"
        );
        assert_eq!(call.bridge.quality(Side::Trunk).frames_concealed, 0, "{packet_time_ms} ms");
    }
}

#[test]
fn the_band_follows_the_codec_in_the_middle_of_a_call() {
    let options = Options { codec: Codec::Pcma, ..options(16_000) };
    let mut call = with_tone(&options, 1_000.0);
    call.run(3 * SECOND);
    for codec in [Codec::G722, Codec::Pcmu, Codec::G722, Codec::Pcma] {
        let now = call.net.now;
        call.bridge.set_trunk_media(&trunk_media(codec, 20), now).unwrap();
        call.pbx.payload_type = codec.static_payload_type().unwrap();
        call.pbx.law = transcoder::codec::g711::Law::of(codec).unwrap_or(call.pbx.law);
        let rate = f64::from(codec.sample_rate());
        call.pbx.source = Box::new(tone(1_000.0, rate));
        // What was on its way is not a packet of this codec.
        call.pbx.kept = Some(Vec::new());
        call.run(Duration::from_millis(200));
        call.pbx.kept = None;
        call.pbx.heard.clear();
        call.pbx.timestamps.clear();
        call.run(3 * SECOND);
        assert_eq!(call.bridge.sample_rate(), codec.sample_rate());
        for (samples, rate) in [(&call.pbx.heard, rate), (&call.phone_heard, WIDE)] {
            let end = last(samples, 2.0, rate);
            let share = mean_tone_share(end, 1_000.0, rate);
            assert!(share > 0.97 && rms(end) > 4_500.0, "{codec:?}: {share}, {}", rms(end));
        }
        let steps = call.pbx.timestamps.windows(2);
        assert!(steps.into_iter().all(|pair| pair[1].1.wrapping_sub(pair[0].1) == 160), "{codec:?}");
    }
}

/// RFC 3264 6.1: what the answer had beside the first may come.
#[test]
fn what_was_agreed_on_beside_the_codec_is_heard() {
    for (codec, sends) in [(Codec::G722, Codec::Pcma), (Codec::Pcma, Codec::G722), (Codec::Pcmu, Codec::G722)]
    {
        let mut call = with_tone(&Options { codec, ..options(16_000) }, 1_000.0);
        let also_receives = vec![(sends.static_payload_type().unwrap(), sends)];
        let media = LegMedia { also_receives, ..trunk_media(codec, 20) };
        let now = call.net.now;
        call.bridge.set_trunk_media(&media, now).unwrap();
        call.run(3 * SECOND);
        call.pbx.sends = Some(sends);
        call.pbx.source = Box::new(tone(1_500.0, f64::from(sends.sample_rate())));
        call.run(3 * SECOND);
        let share = mean_tone_share(last(&call.phone_heard, 2.0, WIDE), 1_500.0, WIDE);
        assert!(share > 0.97, "{sends:?} beside {codec:?}: {share}");
        assert_eq!(call.bridge.trunk_counters().refused(), 0);
    }
}

/// RFC 4733 2.1: events run on the clock of the codec, 8 kHz.
#[test]
fn digits_go_both_ways_once_beside_g722() {
    let mut call = with_tone(&options(16_000), HIGH);
    call.run(2 * SECOND);
    for digit in "1#5".chars() {
        call.pbx.dial(digit, 120);
        assert!(call.phone.send_dtmf(call_model::DtmfDigit::from_char(digit).unwrap(), 120));
    }
    call.run(3 * SECOND);
    assert_eq!((call.phone_digits(), call.pbx_digits()), ("1#5".to_owned(), "1#5".to_owned()));
    assert!(call.pbx.digits.iter().all(|(_, ms)| (110..=130).contains(ms)), "{:?}", call.pbx.digits);
    assert_heard(&call, HIGH, 16_000, "after the digits");
}

/// ITU-T Q.23, Q.24: a trunk without telephone events sends tones in wide band, and is sent them.
#[test]
fn digits_go_as_tones_in_wide_band_and_are_taken_out_of_it() {
    let configure = |config: &mut transcoder::BridgeConfig| config.in_band_digits = true;
    let options = Options { configure, ..options(16_000) };
    let mut call = Call::new(&options);
    let media = LegMedia { telephone_event: None, ..trunk_media(Codec::G722, 20) };
    let now = call.net.now;
    call.bridge.set_trunk_media(&media, now).unwrap();
    call.run(2 * SECOND);
    let press: Vec<i16> = Press::new('7', 90.0).samples();
    let mut high = tone(HIGH, WIDE);
    let signal = [vec![0; 8_000], press, vec![0; 4_000]].concat();
    let mut resampler = transcoder::codec::resample::Resampler::new(8_000, 16_000).unwrap();
    let mut wide = vec![0; 2 * signal.len()];
    resampler.resample(&signal, &mut wide);
    let mut wide = wide.into_iter();
    // After the digit there is a tone that is no part of it.
    call.pbx.source = Box::new(move || wide.next().unwrap_or_else(&mut high));
    call.phone_heard.clear();
    call.run(Duration::from_millis(1_500));
    assert_eq!(call.phone_digits(), "7");
    // The digit's tones are gone from what is heard.
    let digit = mean_tone_share(&call.phone_heard, 852.0, WIDE);
    assert!(
        rms(&call.phone_heard) < 400.0,
        "{} of the digit's tone at a level of {}",
        digit,
        rms(&call.phone_heard)
    );
    call.run(2 * SECOND);
    let share = mean_tone_share(last(&call.phone_heard, 1.0, WIDE), HIGH, WIDE);
    assert!(share > 0.9, "what is no digit is heard in wide band: {share}");

    let digit = call_model::DtmfDigit::from_char('3').unwrap();
    call.pbx.heard.clear();
    assert!(call.bridge.send_dtmf(call.net.now, Side::Trunk, digit, 200));
    call.run(SECOND);
    let loud: Vec<i16> =
        call.pbx.heard.iter().copied().skip_while(|sample| sample.unsigned_abs() < 1_000).collect();
    let tones = &loud[..3_000];
    let shares = [697.0, 1_477.0].map(|frequency| common::signal::tone_share(tones, frequency, WIDE));
    assert!(shares.iter().sum::<f64>() > 0.95, "{shares:?}");
}

#[test]
fn lost_packets_are_made_up_in_wide_band() {
    let mut call = with_tone(&options(16_000), HIGH);
    let mut n = 0u32;
    call.pbx.mangle = Some(Box::new(move |packet| {
        n += 1;
        if n.is_multiple_of(20) { Vec::new() } else { vec![(Duration::ZERO, packet)] }
    }));
    call.run(6 * SECOND);
    let quality = call.bridge.quality(Side::Trunk);
    assert!(quality.frames_concealed >= 12 && quality.packets_lost >= 12, "{quality:?}");
    let end = last(&call.phone_heard, 4.0, WIDE);
    let quietest = end.chunks_exact(160).map(rms).fold(f64::MAX, f64::min);
    assert!(quietest > 2_000.0, "10 ms at a level of {quietest}");
    assert!(mean_tone_share(end, HIGH, WIDE) > 0.8);
}

/// Silence of the trunk is not encoded, at 16 kHz as little as at 8.
#[test]
fn silence_in_wide_band_costs_a_packet_now_and_then() {
    let mut call = with_tone(&options(16_000), HIGH);
    call.pbx.source = Box::new(|| 0);
    call.run(3 * SECOND);
    let before = call.bridge.overlay_counters().sent;
    call.run(4 * SECOND);
    let sent = call.bridge.overlay_counters().sent - before;
    assert!((5..=15).contains(&sent), "{sent} packets in four seconds");
}

/// ITU-T V.25, V.152: an answering machine is heard in what is below 4 kHz.
#[test]
fn a_fax_machine_on_a_trunk_in_g722_is_heard() {
    let mut call = with_tone(&options(16_000), 1_000.0);
    let signal = answer(2_100.0, -12.0, 3.0, true, true);
    let mut wide = vec![0; 2 * signal.len()];
    transcoder::codec::resample::Resampler::new(8_000, 16_000).unwrap().resample(&signal, &mut wide);
    call.run(2 * SECOND);
    let mut wide = wide.into_iter();
    call.pbx.source = Box::new(move || wide.next().unwrap_or(0));
    call.run(4 * SECOND);
    let heard = call
        .bridge_events
        .iter()
        .filter(|event| matches!(event, BridgeEvent::Voiceband { side: Side::Trunk, .. }));
    assert!(heard.count() >= 1, "{:?}", call.bridge_events);
}
