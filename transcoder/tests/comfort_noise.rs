//! Silence towards a trunk: as comfort noise where the trunk has that, as sound where it has not.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use call_model::Codec;

#[path = "common/mod.rs"]
mod common;
use common::Random;
use common::call::{Call, Options, trunk_media};
use common::signal::rms;

const SECOND: Duration = Duration::from_secs(1);

/// White noise of a root mean square.
fn room(level: f64, seed: u64) -> Box<dyn FnMut() -> i16> {
    let mut random = Random(seed);
    let peak = level * 3f64.sqrt();
    Box::new(move || ((random.below(1 << 24) as f64 / f64::from(1 << 23) - 1.0) * peak).round() as i16)
}

fn quiet_user(comfort_noise: bool, packet_time_ms: u16) -> Call {
    let options = Options { packet_time_ms, ..Options::default() };
    let mut call = Call::new(&options);
    let mut media = trunk_media(Codec::Pcma, packet_time_ms);
    media.comfort_noise = comfort_noise;
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    call.phone_source = room(100.0, 5);
    call.run(5 * SECOND);
    assert!(call.connected());
    call
}

/// RFC 3389 4: what is silent is described now and then, in level within 2 dB, and the voice after it is marked.
#[test]
fn f06_silence_of_the_overlay_goes_to_a_trunk_as_comfort_noise() {
    for packet_time_ms in [10, 20, 30, 60] {
        let mut call = quiet_user(true, packet_time_ms);
        let heard = rms(&call.pbx.heard[call.pbx.heard.len() - 16_000..]);
        let dbov = -20.0 * (heard / 32_767.0).log10();
        call.pbx.noise.clear();
        call.phone_talks = false;
        call.run(SECOND / 2);
        let (noise, audio) = (call.pbx.noise.len(), call.pbx.heard.len());
        call.run(4 * SECOND);
        let noise = call.pbx.noise.len() - noise;
        assert!((8..=12).contains(&noise), "{packet_time_ms} ms: {noise} in 4 s");
        assert_eq!(call.pbx.heard.len(), audio, "{packet_time_ms} ms: no sound meanwhile");
        let (_, payload) = call.pbx.noise.last().unwrap();
        assert!((f64::from(payload[0]) - dbov).abs() < 2.0, "{packet_time_ms} ms: {payload:?} for {dbov}");
        let packets = call.pbx.timestamps.len();
        call.phone_talks = true;
        call.run(SECOND);
        let (before, after) = (call.pbx.timestamps[packets - 1], call.pbx.timestamps[packets]);
        // RFC 3551 4.1: the first packet of a talkspurt is marked; its time has gone on.
        assert!(after.2 && call.pbx.timestamps[packets + 1..].iter().all(|packet| !packet.2));
        let pause = f64::from(after.1.wrapping_sub(before.1)) / 8_000.0;
        assert!((4.3..4.8).contains(&pause), "{packet_time_ms} ms: {pause} s");
    }
}

#[test]
fn f06_a_trunk_without_comfort_noise_hears_noise_of_the_same_level() {
    let mut call = quiet_user(false, 20);
    let heard = rms(&call.pbx.heard[call.pbx.heard.len() - 16_000..]);
    call.phone_talks = false;
    call.run(SECOND);
    let before = call.pbx.heard.len();
    call.run(4 * SECOND);
    assert!(call.pbx.noise.is_empty());
    let silence = &call.pbx.heard[before..];
    assert!(silence.len() > 31_000, "{}", silence.len());
    let ratio = 20.0 * (rms(silence) / heard).log10();
    assert!(ratio.abs() < 2.0, "{ratio} dB");
}
