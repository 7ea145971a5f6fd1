#![allow(clippy::unwrap_used)]

use call_model::{SrtpKey, SrtpSuite};
use proptest::prelude::*;

use super::*;

const SSRC: u32 = 0xdead_beef;

fn key(suite: SrtpSuite, seed: u8) -> SrtpKey {
    let bytes: Vec<u8> = (0..suite.key_len() + suite.salt_len()).map(|n| seed ^ n as u8).collect();
    SrtpKey::new(suite, &bytes).unwrap()
}

fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 3, 0xc0]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

/// An RR without blocks and an SDES.
fn rtcp(ssrc: u32, name: u8) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0x81, 202, 0, 2]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([1, 1, name, 0]);
    packet
}

fn protect(sender: &mut SrtpSender, plain: &[u8]) -> Vec<u8> {
    let mut buffer = [plain, &[0; MAX_OVERHEAD]].concat();
    let rtcp = (200..208).contains(&plain[1]);
    let length = if rtcp {
        sender.protect_rtcp(&mut buffer, plain.len())
    } else {
        sender.protect_rtp(&mut buffer, plain.len())
    };
    buffer.truncate(length.unwrap());
    buffer
}

fn unprotect(receiver: &mut SrtpReceiver, protected: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut packet = protected.to_vec();
    let rtcp = (200..208).contains(&packet[1]);
    let result =
        if rtcp { receiver.unprotect_rtcp(&mut packet) } else { receiver.unprotect_rtp(&mut packet) };
    result.map(|packet| packet.to_vec())
}

fn pair(suite: SrtpSuite) -> (SrtpSender, SrtpReceiver) {
    let key = key(suite, 7);
    (SrtpSender::new(&key), SrtpReceiver::new(&[key]))
}

// RFC 3711 3.1 and 3.4, RFC 4568 6.2, RFC 6188 4, RFC 7714 12: what each suite adds.
#[test]
fn f16_every_suite_carries_rtp_and_rtcp_with_tags_of_its_length() {
    for suite in SrtpSuite::ALL {
        let (rtp_tag, rtcp_tag) = match suite {
            SrtpSuite::AesCm128HmacSha1_32 | SrtpSuite::AesCm256HmacSha1_32 => (4, 10),
            SrtpSuite::AesCm128HmacSha1_80 | SrtpSuite::AesCm256HmacSha1_80 => (10, 10),
            SrtpSuite::AeadAes128Gcm | SrtpSuite::AeadAes256Gcm => (16, 16),
        };
        let (mut sender, mut receiver) = pair(suite);
        for n in 0..300u16 {
            let plain = rtp(SSRC, n, &vec![n as u8; usize::from(n % 200)]);
            let protected = protect(&mut sender, &plain);
            assert_eq!(protected.len(), plain.len() + rtp_tag, "{suite:?}");
            assert!(n % 200 < 8 || protected[12..plain.len()] != plain[12..], "{suite:?}");
            assert_eq!(unprotect(&mut receiver, &protected), Ok(plain));
            let plain = rtcp(SSRC, n as u8);
            let protected = protect(&mut sender, &plain);
            assert_eq!(protected.len(), plain.len() + rtcp_tag + 4, "{suite:?}");
            assert_ne!(protected[8..plain.len()], plain[8..]);
            assert_eq!(unprotect(&mut receiver, &protected), Ok(plain));
            // RFC 3711 3.3.2.
            assert_eq!(unprotect(&mut receiver, &protected), Err(SrtpError::Replayed));
        }
        assert_eq!((receiver.refused(), receiver.refused_for(SrtpError::Replayed)), (300, 300));
    }
}

// RFC 3711 3.1: CSRCs and extension are authenticated, not encrypted.
#[test]
fn header_extensions_stay_in_the_clear() {
    for suite in SrtpSuite::ALL {
        let (mut sender, mut receiver) = pair(suite);
        let mut plain = vec![0x91, 111, 0, 9, 0, 0, 0, 0, 0, 0, 0, 5, 1, 2, 3, 4];
        plain.extend([0xbe, 0xde, 0, 1, 0x10, b'a', 0, 0, 9, 9, 9]);
        let protected = protect(&mut sender, &plain);
        assert_eq!(protected[..24], plain[..24]);
        let mut forged = protected.clone();
        forged[21] = b'b';
        assert_eq!(unprotect(&mut receiver, &forged), Err(SrtpError::Authentication));
        assert_eq!(unprotect(&mut receiver, &protected), Ok(plain));
    }
}

// RFC 3711 3.3.1: the rollover counter goes on by itself, with loss and reordering at the wrap.
#[test]
fn f19_the_rollover_counter_outlives_the_wrap_of_the_sequence_number() {
    for suite in [SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AeadAes128Gcm] {
        let (mut sender, mut receiver) = pair(suite);
        let mut late = Vec::new();
        for n in 0..150_000u32 {
            let protected = protect(&mut sender, &rtp(SSRC, n as u16, &n.to_be_bytes()));
            match n % 65_536 {
                // Around the wrap some are lost, some come 100 packets late.
                65_500..=65_510 => {}
                65_530..=65_535 => late.push((n, protected)),
                number => {
                    let plain = unprotect(&mut receiver, &protected).unwrap();
                    assert_eq!(plain[12..], n.to_be_bytes());
                    if number == 90 {
                        for (n, protected) in late.drain(..) {
                            let plain = unprotect(&mut receiver, &protected).unwrap();
                            assert_eq!(plain[12..], n.to_be_bytes());
                            assert_eq!(unprotect(&mut receiver, &protected), Err(SrtpError::Replayed));
                        }
                    }
                }
            }
        }
        assert_eq!((sender.rollover_counter(SSRC), receiver.rollover_counter(SSRC)), (2, 2));
    }
}

// RFC 3711 3.3.2: at least 64; here 128 packets.
#[test]
fn a_packet_older_than_the_replay_list_is_refused() {
    let (mut sender, mut receiver) = pair(SrtpSuite::AesCm128HmacSha1_80);
    let packets: Vec<_> = (0..200).map(|n| protect(&mut sender, &rtp(SSRC, n, &[1]))).collect();
    assert!(unprotect(&mut receiver, &packets[199]).is_ok());
    assert!(unprotect(&mut receiver, &packets[72]).is_ok());
    assert_eq!(unprotect(&mut receiver, &packets[71]), Err(SrtpError::TooOld));
    assert_eq!(unprotect(&mut receiver, &packets[199]), Err(SrtpError::Replayed));
}

// RFC 3711 3.2.3: a context per source; forged packets take no place.
#[test]
fn f19_sources_have_contexts_of_their_own_and_a_bound() {
    for suite in [SrtpSuite::AesCm128HmacSha1_32, SrtpSuite::AeadAes256Gcm] {
        let (mut sender, mut receiver) = pair(suite);
        let first = protect(&mut sender, &rtp(SSRC, 65_535, &[1]));
        assert!(unprotect(&mut receiver, &first).is_ok());
        for ssrc in 0..1_000 {
            let forged = [rtp(ssrc, 1, &[1]), vec![0; 16]].concat();
            assert_eq!(unprotect(&mut receiver, &forged), Err(SrtpError::Authentication));
        }
        for ssrc in 0..MAX_SOURCES as u32 - 1 {
            for sequence in [5, 6] {
                let plain = rtp(ssrc, sequence, &[1]);
                assert_eq!(unprotect(&mut receiver, &protect(&mut sender, &plain)), Ok(plain));
            }
        }
        // The first goes on where it was: over its wrap.
        let plain = rtp(SSRC, 0, &[2]);
        assert_eq!(unprotect(&mut receiver, &protect(&mut sender, &plain)), Ok(plain));
        assert_eq!((receiver.rollover_counter(SSRC), receiver.rollover_counter(3)), (1, 0));
        let mut other = SrtpSender::new(&key(suite, 7));
        let more = protect(&mut other, &rtp(99_999, 1, &[1]));
        assert_eq!(unprotect(&mut receiver, &more), Err(SrtpError::TooManySources));
        let mut buffer = [rtp(99_999, 1, &[1]), vec![0; MAX_OVERHEAD]].concat();
        assert_eq!(sender.protect_rtp(&mut buffer, 13), Err(SrtpError::TooManySources));
    }
}

// RFC 3711 9.1: one index, one packet; also where packets are passed on out of order.
#[test]
fn no_index_is_used_twice() {
    let (mut sender, mut receiver) = pair(SrtpSuite::AeadAes128Gcm);
    for sequence in [200, 150, 201, 120] {
        let plain = rtp(SSRC, sequence, &[1]);
        assert_eq!(unprotect(&mut receiver, &protect(&mut sender, &plain)), Ok(plain));
    }
    for (sequence, error) in
        [(200, SrtpError::Replayed), (120, SrtpError::Replayed), (201 - 128, SrtpError::TooOld)]
    {
        let mut buffer = [rtp(SSRC, sequence, &[1]), vec![0; MAX_OVERHEAD]].concat();
        assert_eq!(sender.protect_rtp(&mut buffer, 13), Err(error));
    }
}

// RFC 3711 3.1 and 8.1.1: the identifier chooses the key. RFC 7714 13.1: behind the tag.
#[test]
fn f16_master_key_identifiers_choose_the_key() {
    for suite in SrtpSuite::ALL {
        let keys = [[1, 1], [1, 2]].map(|mki| key(suite, mki[1]).with_mki(&mki).unwrap());
        let mut receiver = SrtpReceiver::new(&keys);
        let mut sender = SrtpSender::new(&keys[0]);
        for n in 0..6u16 {
            if n == 3 {
                sender.rekey(&keys[1]);
            }
            for plain in [rtp(SSRC, n, &[7; 50]), rtcp(SSRC, n as u8)] {
                let protected = protect(&mut sender, &plain);
                let bare = protect(&mut SrtpSender::new(&key(suite, 1)), &plain);
                assert_eq!(protected.len(), bare.len() + 2);
                assert_eq!(unprotect(&mut receiver, &protected), Ok(plain), "{suite:?} {n}");
                assert!(unprotect(&mut receiver, &bare).is_err());
            }
        }
        let unknown = key(suite, 1).with_mki(&[1, 3]).unwrap();
        let protected = protect(&mut SrtpSender::new(&unknown), &rtp(SSRC, 9, &[1]));
        assert_eq!(unprotect(&mut receiver, &protected), Err(SrtpError::UnknownKey));
    }
    assert_eq!(
        unprotect(&mut SrtpReceiver::new(&[]), &rtp(1, 1, &[1; 30])),
        Err(SrtpError::UnknownKey),
        "no keys at all"
    );
}

// RFC 3711 9.2, RFC 4568 6.1.
#[test]
fn f16_a_key_protects_no_more_packets_than_its_lifetime() {
    let key = key(SrtpSuite::AesCm128HmacSha1_80, 7).with_lifetime(3).unwrap();
    let (mut sender, mut receiver) = (SrtpSender::new(&key), SrtpReceiver::new(std::slice::from_ref(&key)));
    for n in 0..3 {
        for plain in [rtp(SSRC, n, &[1]), rtcp(SSRC, 1)] {
            assert!(unprotect(&mut receiver, &protect(&mut sender, &plain)).is_ok());
        }
    }
    let mut buffer = [rtp(SSRC, 3, &[1]), vec![0; MAX_OVERHEAD]].concat();
    assert_eq!(sender.protect_rtp(&mut buffer, 13), Err(SrtpError::Expired));
    let mut buffer = [rtcp(SSRC, 3), vec![0; MAX_OVERHEAD]].concat();
    assert_eq!(sender.protect_rtcp(&mut buffer, 20), Err(SrtpError::Expired));
    let mut longer = SrtpSender::new(&self::key(SrtpSuite::AesCm128HmacSha1_80, 7));
    let more = protect(&mut longer, &rtp(SSRC, 3, &[1]));
    assert_eq!(unprotect(&mut receiver, &more), Err(SrtpError::Expired));
}

// RFC 3711 3.3.1: re-keying does not reset the rollover counter; packets under way are not lost.
#[test]
fn f19_a_new_key_takes_over_without_a_gap_and_the_rollover_counter_stays() {
    for suite in SrtpSuite::ALL {
        let (old, new) = (key(suite, 7), key(suite, 8));
        let (mut sender, mut receiver) = (SrtpSender::new(&old), SrtpReceiver::new(&[old]));
        for n in 65_000..65_536u32 {
            unprotect(&mut receiver, &protect(&mut sender, &rtp(SSRC, n as u16, &[1]))).unwrap();
        }
        // Over the wrap, and some are held up on the way; the receiver learns of the key first.
        let held: Vec<_> = (0..20).map(|n| protect(&mut sender, &rtp(SSRC, n, &[n as u8]))).collect();
        unprotect(&mut receiver, &held[0]).unwrap();
        receiver.rekey(std::slice::from_ref(&new));
        assert!(unprotect(&mut receiver, &held[1]).is_ok());
        assert_eq!(unprotect(&mut receiver, &held[1]), Err(SrtpError::Authentication), "replayed");
        let control = protect(&mut sender, &rtcp(SSRC, 1));
        sender.rekey(&new);
        for n in 20..60u16 {
            let plain = rtp(SSRC, n, &[n as u8]);
            assert_eq!(unprotect(&mut receiver, &protect(&mut sender, &plain)), Ok(plain), "{suite:?} {n}");
            if n < 38 {
                assert_eq!(
                    unprotect(&mut receiver, &held[usize::from(n) - 18]).unwrap()[12..],
                    [(n - 18) as u8]
                );
            }
        }
        unprotect(&mut receiver, &control).unwrap();
        unprotect(&mut receiver, &protect(&mut sender, &rtcp(SSRC, 2))).unwrap();
        assert_eq!((sender.rollover_counter(SSRC), receiver.rollover_counter(SSRC)), (1, 1));
        for n in 60..160u16 {
            unprotect(&mut receiver, &protect(&mut sender, &rtp(SSRC, n, &[1]))).unwrap();
        }
        // The old key is forgotten once the replay list is full of packets under the new one.
        let mut stale = SrtpSender::new(&key(suite, 7));
        protect(&mut stale, &rtp(SSRC, 65_535, &[1]));
        let late = protect(&mut stale, &rtp(SSRC, 161, &[1]));
        assert_eq!(unprotect(&mut receiver, &late), Err(SrtpError::Authentication));
    }
}

// Some senders begin their rollover counter anew with a key, and some their sequence numbers.
#[test]
fn f19_a_sender_that_begins_anew_with_its_key_is_understood() {
    for (suite, first) in [
        (SrtpSuite::AesCm128HmacSha1_80, 200),
        (SrtpSuite::AeadAes128Gcm, 200),
        (SrtpSuite::AesCm256HmacSha1_32, 40_000),
        (SrtpSuite::AeadAes256Gcm, 0),
    ] {
        let (old, new) = (key(suite, 7), key(suite, 8));
        let (mut sender, mut receiver) = (SrtpSender::new(&old), SrtpReceiver::new(&[old]));
        for n in 65_000..65_736u32 {
            unprotect(&mut receiver, &protect(&mut sender, &rtp(SSRC, n as u16, &[1]))).unwrap();
        }
        unprotect(&mut receiver, &protect(&mut sender, &rtcp(SSRC, 1))).unwrap();
        receiver.rekey(std::slice::from_ref(&new));
        let mut anew = SrtpSender::new(&new);
        for n in first..first + 50 {
            for plain in [rtp(SSRC, n, &[3; 20]), rtcp(SSRC, n as u8)] {
                let protected = protect(&mut anew, &plain);
                assert_eq!(unprotect(&mut receiver, &protected), Ok(plain), "{suite:?} {n}");
                assert!(unprotect(&mut receiver, &protected).is_err());
            }
        }
        assert_eq!(receiver.rollover_counter(SSRC), 0);
    }
}

#[test]
fn what_is_no_packet_is_refused_by_name() {
    let (mut sender, mut receiver) = pair(SrtpSuite::AesCm128HmacSha1_80);
    assert_eq!(receiver.unprotect_rtp(&mut [0x80; 11]).unwrap_err(), SrtpError::Malformed);
    assert_eq!(receiver.unprotect_rtp(&mut [0x40; 40]).unwrap_err(), SrtpError::Malformed);
    assert_eq!(receiver.unprotect_rtp(&mut [0x8f; 40]).unwrap_err(), SrtpError::Malformed);
    assert_eq!(receiver.unprotect_rtp(&mut [0x80; 20]).unwrap_err(), SrtpError::Malformed);
    assert_eq!(receiver.unprotect_rtp(&mut [0x80; MAX_PACKET + 1]).unwrap_err(), SrtpError::TooLong);
    for length in 0..22 {
        let error = receiver.unprotect_rtcp(&mut vec![0x80; length]).unwrap_err();
        assert_eq!(error, SrtpError::Malformed, "{length}");
    }
    assert_eq!(sender.protect_rtp(&mut rtp(1, 1, &[1]), 13), Err(SrtpError::TooLong));
    assert_eq!(sender.protect_rtp(&mut rtp(1, 1, &[1]), 14), Err(SrtpError::TooLong));
    assert_eq!(sender.protect_rtcp(&mut rtcp(1, 1), 20), Err(SrtpError::TooLong));
    let text = format!("{sender:?} {receiver:?}");
    assert!(!text.contains("key") && !text.contains("salt"), "{text}");
}

fn any_suite() -> impl Strategy<Value = SrtpSuite> {
    (0..SrtpSuite::ALL.len()).prop_map(|n| SrtpSuite::ALL[n])
}

proptest! {
    #[test]
    fn any_flipped_bit_fails(
        suite in any_suite(),
        payload in prop::collection::vec(any::<u8>(), 0..200),
        bit in any::<prop::sample::Index>(),
        control in any::<bool>(),
    ) {
        let (mut sender, mut receiver) = pair(suite);
        let plain = if control { rtcp(SSRC, 5) } else { rtp(SSRC, 5, &payload) };
        let protected = protect(&mut sender, &plain);
        let bit = bit.index(protected.len() * 8);
        let mut forged = protected.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let mut copy = forged.clone();
        let result = if control { receiver.unprotect_rtcp(&mut copy) } else { receiver.unprotect_rtp(&mut copy) };
        prop_assert!(result.is_err());
        prop_assert_eq!(unprotect(&mut receiver, &protected), Ok(plain));
    }

    #[test]
    fn packets_come_through_in_any_order_within_a_hundred_and_once(
        suite in any_suite(),
        first in any::<u16>(),
        delays in prop::collection::vec(0u32..100, 300),
    ) {
        let (mut sender, mut receiver) = pair(suite);
        let first = first & 0x7fff;
        let mut order: Vec<_> = delays.iter().enumerate().map(|(n, delay)| (n as u32 + delay, n as u32)).collect();
        // The first packet comes first: before it, nothing says which cycle a source is in.
        order[0].0 = 0;
        order.sort_unstable();
        let plain: Vec<_> = (0..300u32).map(|n| rtp(SSRC, first.wrapping_add(n as u16), &n.to_be_bytes())).collect();
        let protected: Vec<_> = plain.iter().map(|plain| protect(&mut sender, plain)).collect();
        for &(_, n) in &order {
            prop_assert_eq!(unprotect(&mut receiver, &protected[n as usize]), Ok(plain[n as usize].clone()));
            prop_assert!(unprotect(&mut receiver, &protected[n as usize]).is_err());
        }
    }

    #[test]
    fn no_octets_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), suite in any_suite()) {
        let mki = key(suite, 1).with_mki(&[1, 2, 3]).unwrap();
        for keys in [vec![key(suite, 1)], vec![mki]] {
            let mut receiver = SrtpReceiver::new(&keys);
            prop_assert!(receiver.unprotect_rtp(&mut bytes.clone()).is_err());
            prop_assert!(receiver.unprotect_rtcp(&mut bytes.clone()).is_err());
        }
        let mut sender = SrtpSender::new(&key(suite, 1));
        let length = bytes.len();
        let mut buffer = [bytes, vec![0; MAX_OVERHEAD]].concat();
        let _ = sender.protect_rtp(&mut buffer, length);
        let _ = sender.protect_rtcp(&mut buffer, length);
    }
}
