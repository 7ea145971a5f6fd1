// Tests need some first moment; everything after it is virtual.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]
//! Redundant audio data (RFC 2198) between the streams of two legs.

use std::time::Duration;

use call_model::{SrtpKey, SrtpSuite};

use super::*;
use crate::rtp::redundancy::{MAX_COPIES, MAX_COPY_LEN};

const OPUS: u8 = 111;
const RED: u8 = 63;

/// A side that sends Opus under `opus`, and the keys the other way round for the other side.
fn side(opus: u8, redundancy: Option<u8>, first: bool, now: Instant) -> Media {
    let suite = SrtpSuite::AeadAes128Gcm;
    let key = |seed| SrtpKey::new(suite, &vec![seed; suite.key_len() + suite.salt_len()]).unwrap();
    let (send, receive) = if first { (key(1), key(2)) } else { (key(2), key(1)) };
    let agreed = Agreed {
        opus,
        telephone_event: None,
        g711: AgreedG711::default(),
        redundancy,
        ssrc: 7,
        cname: String::from("c"),
        mid: Vec::new(),
    };
    Media::new(agreed, &MasterKeys { send, receive }, now)
}

fn send(from: &mut Media, now: Instant, payload: &[u8], copies: &[Copy<'_>]) -> Vec<u8> {
    let place = Place::Next { timestamp: 9_600 };
    from.write(now, PayloadKind::Audio, place, false, payload, copies).unwrap().to_vec()
}

#[test]
fn copies_go_over_whole_and_only_where_they_were_negotiated() {
    let now = Instant::now();
    let (mut ours, mut theirs) = (side(OPUS, Some(RED), true, now), side(OPUS, Some(RED), false, now));
    let sent = [Copy { offset: 1_920, payload: &[1; 40] }, Copy { offset: 960, payload: &[2; 30] }];
    let datagram = send(&mut ours, now, &[3; 20], &sent);
    assert_eq!(datagram[1] & 0x7f, RED);
    let packet = theirs.receive_rtp(now, &datagram).ok().unwrap();
    assert_eq!(
        (packet.kind, packet.timestamp, &packet.payload[..]),
        (PayloadKind::Audio, 9_600, &[3; 20][..])
    );
    assert_eq!(packet.copies().collect::<Vec<_>>(), sent);

    // Without copies it is plain Opus.
    let datagram = send(&mut ours, now, &[3; 20], &[]);
    assert_eq!(datagram[1] & 0x7f, OPUS);
    assert_eq!(theirs.receive_rtp(now, &datagram).ok().unwrap().copies().count(), 0);

    let (mut ours, mut theirs) = (side(OPUS, None, true, now), side(OPUS, None, false, now));
    let datagram = send(&mut ours, now, &[3; 20], &sent);
    assert_eq!(datagram[1] & 0x7f, OPUS);
    let packet = theirs.receive_rtp(now, &datagram).ok().unwrap();
    assert_eq!((&packet.payload[..], packet.copies().count()), (&[3; 20][..], 0));
}

/// RFC 2198 4: what does not hold together is of no use, whole or in parts.
#[test]
fn what_is_not_redundant_audio_data_is_refused_by_its_reason() {
    let now = Instant::now();
    // It says of what it sends as Opus that it is redundant.
    let (mut ours, mut theirs) = (side(RED, None, true, now), side(OPUS, Some(RED), false, now));
    let copy = [0x80 | OPUS, 0x0f, 0x00, 0x01];
    let cases: [(Vec<u8>, RedundancyError); 6] = [
        (vec![], RedundancyError::Truncated),
        (copy.to_vec(), RedundancyError::Truncated),
        ([&copy.repeat(MAX_COPIES + 1)[..], &[OPUS; 20]].concat(), RedundancyError::TooManyCopies),
        ([&copy.repeat(2)[..], &[OPUS, 1]].concat(), RedundancyError::Length),
        (vec![0, 1, 2, 3], RedundancyError::PayloadType),
        ([&copy[..], &[OPUS, 1]].concat(), RedundancyError::NoFrame),
    ];
    for (payload, reason) in cases {
        let datagram = send(&mut ours, now, &payload, &[]);
        match theirs.receive_rtp(now, &datagram) {
            Err(Refused::Redundancy(refused)) => assert_eq!(refused, reason, "{payload:?}"),
            _ => panic!("{payload:?} is not refused"),
        }
    }
}

#[test]
fn what_does_not_fit_a_datagram_is_not_sent() {
    let now = Instant::now() + Duration::from_secs(1);
    let mut ours = side(OPUS, Some(RED), true, now);
    let copy = Copy { offset: 960, payload: &[1; MAX_COPY_LEN] };
    let place = Place::Next { timestamp: 0 };
    assert!(ours.write(now, PayloadKind::Audio, place, false, &[1; 600], &[copy]).is_none());
    assert!(ours.write(now, PayloadKind::Audio, place, false, &[1; 60], &[copy]).is_some());
}
