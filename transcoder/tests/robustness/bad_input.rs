//! Packets that nobody asked for, at the rate that a line carries, on one call of two.

use call_model::{Codec, MediaSecurity, Side, SrtpKey, SrtpKeys, SrtpSuite};
use transcoder::leg::rtp::Refusal;

use crate::common::call::{Call, FRAME, GATEWAY_RTP, Options, TRUNK_RTP, trunk_media};
use crate::common::signal::{mean_tone_share, tone};
use crate::common::{Random, address};
use crate::{SECOND, last};

/// Packets of each kind in a frame of 20 ms: together as many as 100 Mbit/s carry of the shortest.
const BURST: usize = 60;

fn call(seed: u64, secured: bool) -> Call {
    let mut call = Call::new(&Options { seed, ..Options::default() });
    let mut media = trunk_media(Codec::Pcma, 20);
    if secured {
        let suite = SrtpSuite::ALL[0];
        let key = |seed| SrtpKey::new(suite, &vec![seed; suite.key_len() + suite.salt_len()]).unwrap();
        call.pbx.set_keys(&key(2), &key(1));
        media.security =
            MediaSecurity::Sdes(Box::new(SrtpKeys { suite, send: key(1), receive: vec![key(2)] }));
    }
    call.bridge.set_trunk_media(&media, call.net.now).unwrap();
    call.phone_source = Box::new(tone(440.0, 8000.0));
    call.pbx.source = Box::new(tone(1000.0, 8000.0));
    call.run(3 * SECOND);
    assert!(call.connected());
    call
}

/// A bad packet made of a good one, and why it is refused: on a plain leg, and under SRTP.
fn spoil(kind: usize, good: &[u8], random: &mut Random) -> (Vec<u8>, Refusal, Refusal) {
    let mut bytes = good.to_vec();
    let (plain, secured) = match kind {
        0 => {
            bytes.truncate(random.below(12) as usize);
            (Refusal::Malformed, Refusal::Malformed)
        }
        1 => {
            bytes[0] = 0x40;
            (Refusal::Malformed, Refusal::Malformed)
        }
        2 => {
            bytes[1] = 77;
            // Its number has been heard: it is not even authenticated (RFC 3711 3.3).
            (Refusal::PayloadType, Refusal::Replayed)
        }
        3 => {
            bytes[8..12].copy_from_slice(&(random.next() as u32 | 1).to_be_bytes());
            bytes[2..4].copy_from_slice(&((random.next() & 0x7fff) as u16).to_be_bytes());
            (Refusal::Ssrc, Refusal::Unauthentic)
        }
        4 => {
            bytes[0] = 0x9f;
            bytes.truncate(40);
            (Refusal::Malformed, Refusal::Malformed)
        }
        _ => (Refusal::Source, Refusal::Source),
    };
    (bytes, plain, secured)
}

#[test]
fn bad_packets_at_line_rate_are_counted_and_no_call_hears_of_them() {
    for secured in [false, true] {
        let seed = 31;
        let (mut call, mut other) = (call(seed, secured), call(seed + 1, false));
        let mut random = Random(seed);
        let mut expected = [0u64; Refusal::ALL.len()];
        for _ in 0..100 {
            for kind in 0..6 {
                let good = call.pbx.last_packet.clone();
                for _ in 0..BURST / 6 {
                    let (bytes, plain, under_srtp) = spoil(kind, &good, &mut random);
                    let refusal = if secured { under_srtp } else { plain };
                    expected[refusal as usize] += 1;
                    let source = if kind == 5 { "203.0.113.99:30000" } else { TRUNK_RTP };
                    call.deliver(call.net.now, address(source), address(GATEWAY_RTP), &bytes);
                }
            }
            call.run(FRAME);
            other.run(FRAME);
        }
        let counters = *call.bridge.trunk_counters();
        for refusal in Refusal::ALL {
            let counted = counters.refused_for(refusal);
            assert_eq!(counted, expected[refusal as usize], "{refusal:?}, secured {secured}, seed {seed}");
        }
        for (name, call) in [("the call", &mut call), ("the other", &mut other)] {
            call.run(3 * SECOND);
            let quality = call.bridge.quality(Side::Trunk);
            let label = format!("{name}, secured {secured}, seed {seed}: {quality:?}");
            assert!(quality.rating.unwrap().mos > 4.3, "{label}");
            assert_eq!((quality.packets_lost, quality.packets_late), (0, 0), "{label}");
            assert!(mean_tone_share(last(&call.phone_heard, 30_000), 1000.0, 8000.0) > 0.98, "{label}");
            assert!(mean_tone_share(last(&call.pbx.heard, 30_000), 440.0, 8000.0) > 0.98, "{label}");
            assert!(call.strays.is_empty(), "{label}");
        }
        assert_eq!(other.bridge.trunk_counters().refused(), 0);
    }
}

// RFC 3711 3.3.2: what was heard is not heard again, and a tag that does not fit is nobody's.
#[test]
fn replayed_and_forged_packets_under_srtp_are_told_apart() {
    let mut call = call(33, true);
    let before = *call.bridge.trunk_counters();
    for _ in 0..50 {
        let good = call.pbx.last_packet.clone();
        let mut forged = good.clone();
        forged[3] = forged[3].wrapping_add(1);
        // Its tag, for another number; and the good one again, after it was heard.
        for _ in 0..10 {
            call.deliver(call.net.now, address(TRUNK_RTP), address(GATEWAY_RTP), &forged);
        }
        call.run(FRAME / 2);
        for _ in 0..10 {
            call.deliver(call.net.now, address(TRUNK_RTP), address(GATEWAY_RTP), &good);
        }
        call.run(FRAME / 2);
    }
    let counters = call.bridge.trunk_counters();
    assert_eq!(counters.received - before.received, 50);
    let refused = counters.refused_for(Refusal::Unauthentic) + counters.refused_for(Refusal::Replayed);
    assert_eq!(refused, 1_000);
    assert!(counters.refused_for(Refusal::Replayed) >= 450, "{counters:?}");
    assert!(counters.refused_for(Refusal::Unauthentic) >= 450, "{counters:?}");
    assert!(call.bridge.quality(Side::Trunk).rating.unwrap().mos > 4.3);
}
