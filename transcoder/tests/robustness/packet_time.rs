//! Packet times of 10 to 60 ms (RFC 3551 4.2, RFC 3264 6.1). The overlay uses 20 ms.

use call_model::{Codec, Side};

use crate::common::call::{Call, Options, trunk_media};
use crate::common::signal::{correlation, mean_tone_share, rms, speech, tone};
use crate::{SECOND, last};

/// Sequence number, timestamp and marker of each packet.
type Numbers = Vec<(u16, u32, bool)>;

const PACKET_TIMES: [u16; 5] = [10, 20, 30, 40, 60];

/// What the trunk hears of a call in speech, with the packet times after it was asked for them in turn.
fn heard(packet_times: &[u16]) -> (Vec<i16>, Numbers, Vec<i16>) {
    let mut call = Call::with_trunk(&Options { seed: 3, ..Options::default() });
    call.phone_source = Box::new(speech());
    for &packet_time in packet_times {
        call.bridge.set_trunk_media(&trunk_media(Codec::Pcma, packet_time), call.net.now).unwrap();
        call.run(6 * SECOND);
    }
    assert!(call.connected());
    (call.pbx.heard, call.pbx.timestamps, call.phone_sent)
}

// RFC 3264 6.1, RFC 3551 4.2: what 20 ms packets hold is put into those of the time asked for, sample for sample.
#[test]
fn f02_the_same_samples_come_in_packets_of_every_time() {
    let (reference, ..) = heard(&[20]);
    assert!(rms(&reference) > 100.0);
    for packet_time in PACKET_TIMES {
        let (samples, packets, _) = heard(&[packet_time]);
        let common = samples.len().min(reference.len());
        assert!(common + 960 > 48_000, "{packet_time} ms: {common} samples");
        assert!(samples[..common] == reference[..common], "{packet_time} ms: other samples");
        assert_eq!(samples.len(), packets.len() * usize::from(packet_time) * 8);
        for pair in packets.windows(2) {
            assert_eq!(pair[1].0, pair[0].0.wrapping_add(1), "{packet_time} ms");
            assert_eq!(pair[1].1, pair[0].1.wrapping_add(u32::from(packet_time) * 8), "{packet_time} ms");
        }
    }
}

// RFC 3264 8: a new offer may ask for another packet time; timestamps go on by the samples (RFC 3550 5.1).
#[test]
fn f02_a_change_of_packet_time_leaves_no_gap() {
    let (samples, packets, sent) = heard(&[20, 30, 60, 10, 40, 20]);
    let mut at = 0;
    let mut lengths = Vec::new();
    for pair in packets.windows(2) {
        let length = pair[1].1.wrapping_sub(pair[0].1);
        assert_eq!(pair[1].0, pair[0].0.wrapping_add(1));
        assert!(!pair[1].2, "a marker in mid-stream");
        if lengths.last() != Some(&length) {
            lengths.push(length);
        }
        at += length as usize;
    }
    assert_eq!(lengths, [160, 240, 480, 80, 320, 160]);
    // As many samples as timestamps: none left out, none twice.
    assert_eq!(samples.len() - at, 160);
    let (whole, _) = correlation(&sent[200_000..212_000], &samples[198_000..], 6_000);
    assert!(whole > 0.7, "{whole}");
}

// RFC 3551 4.2: a receiver takes packets of any time from 0 to 200 ms; peers send what they like whatever was asked.
#[test]
fn f02_packets_of_every_time_are_heard_whole_and_may_change_at_will() {
    for packet_time in PACKET_TIMES {
        let mut call = Call::with_trunk(&Options { packet_time_ms: 20, ..Options::default() });
        call.pbx.source = Box::new(tone(1000.0, 8000.0));
        call.pbx.packet_samples = usize::from(packet_time) * 8;
        call.run(6 * SECOND);
        let before = call.bridge.quality(Side::Trunk);
        let share = mean_tone_share(last(&call.phone_heard, 16_000), 1000.0, 8000.0);
        assert!(share > 0.98, "{packet_time} ms: {share}");
        assert_eq!(
            (before.packets_lost, before.packets_late, before.frames_concealed),
            (0, 0, 0),
            "{before:?}"
        );
        // Another time from here on, without a word.
        for other in [60, 10, 30, 40, 20] {
            call.pbx.packet_samples = other * 8;
            call.run(3 * SECOND);
            let share = mean_tone_share(last(&call.phone_heard, 16_000), 1000.0, 8000.0);
            assert!(share > 0.98, "{packet_time} ms, then {other}: {share}");
        }
        let after = call.bridge.quality(Side::Trunk);
        assert_eq!((after.packets_lost, after.packets_late), (0, 0));
        // Longer packets are waited for: once, by what they are longer.
        assert!(after.frames_concealed <= 4, "{after:?}");
    }
}
