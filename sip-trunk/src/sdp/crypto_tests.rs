#![allow(clippy::unwrap_used)]
use call_model::SrtpSuite;
use proptest::prelude::*;

use super::{BASE64, Crypto, KeyMaker};
use base64::Engine;

const TEAMS: &str = "1 AES_CM_128_HMAC_SHA1_80 inline:MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkw|2^31";

fn key(length: usize) -> String {
    BASE64.encode((0..length as u8).collect::<Vec<_>>())
}

/// RFC 4568 9.1: the forms that peers write.
#[test]
fn f16_crypto_lines_are_read_as_peers_write_them() {
    let teams = Crypto::parse(TEAMS).unwrap();
    assert_eq!((teams.tag, teams.suite), (1, SrtpSuite::AesCm128HmacSha1_80));
    assert_eq!(teams.keys[0].key_and_salt(), b"123456789012345678901234567890");
    assert_eq!((teams.keys[0].lifetime(), teams.keys[0].mki()), (Some(1 << 31), &[][..]));
    // RFC 4568 6.1, RFC 6188 4, RFC 7714 14.2: every suite, with and without padding.
    for suite in SrtpSuite::ALL {
        let text = key(suite.key_len() + suite.salt_len());
        for text in [text.clone(), text.trim_end_matches('=').to_owned()] {
            let line = format!("999999999 {} inline:{text}", suite.as_str().to_lowercase());
            let read = Crypto::parse(&line).unwrap();
            assert_eq!((read.tag, read.suite, read.keys.len()), (999_999_999, suite, 1));
        }
    }
    // Lifetime, identifier, both, a decimal number, a hint, a parameter that may be ignored.
    let key = key(30);
    let suite = "AES_CM_128_HMAC_SHA1_32";
    for (rest, lifetime, mki) in [
        ("", None, vec![]),
        ("|2^20", Some(1 << 20), vec![]),
        ("|1048576", Some(1 << 20), vec![]),
        ("|1:4", None, vec![0, 0, 0, 1]),
        ("|2^20|1:4", Some(1 << 20), vec![0, 0, 0, 1]),
        ("|2^48|66051:3", Some(1 << 48), vec![1, 2, 3]),
        ("|255:1 WSH=64", None, vec![255]),
        (" -ODD=1 wsh=128", None, vec![]),
    ] {
        let read = Crypto::parse(&format!("2 {suite} inline:{key}{rest}")).expect(rest);
        assert_eq!((read.keys[0].lifetime(), read.keys[0].mki()), (lifetime, &mki[..]), "{rest}");
    }
    let long = Crypto::parse(&format!("2 {suite} inline:{key}|1:128")).unwrap();
    assert_eq!(long.keys[0].mki().len(), 128);
    let two = Crypto::parse(&format!("2 {suite} inline:{key}|2^20|1:4;inline:{key}|2^20|2:4")).unwrap();
    assert_eq!(two.keys.iter().map(|k| k.mki()[3]).collect::<Vec<_>>(), [1, 2]);
}

/// RFC 4568 6.3, 7.1.1: a line that is not understood is not used.
#[test]
fn f16_crypto_lines_that_cannot_be_used_are_not() {
    let (good, suite) = (key(30), "AES_CM_128_HMAC_SHA1_80");
    let inline = format!("inline:{good}");
    let several = [inline.as_str(); 5].join(";");
    for line in [
        String::new(),
        "1".to_owned(),
        format!("1 {suite}"),
        format!("x {suite} {inline}"),
        format!("1234567890 {suite} {inline}"),
        format!("1 F8_128_HMAC_SHA1_80 {inline}"),
        format!("1 {suite} uri:{good}"),
        format!("1 {suite} inline:{}", key(29)),
        format!("1 {suite} inline:{}", key(31)),
        format!("1 {suite} inline:!!!!"),
        format!("1 AES_256_CM_HMAC_SHA1_80 {inline}"),
        format!("1 {suite} {inline}|2^49"),
        format!("1 {suite} {inline}|2^64"),
        format!("1 {suite} {inline}|0"),
        format!("1 {suite} {inline}|soon"),
        format!("1 {suite} {inline}|1:0"),
        format!("1 {suite} {inline}|1:129"),
        format!("1 {suite} {inline}|256:1"),
        format!("1 {suite} {inline}|2^20|1:4|9"),
        format!("1 {suite} {inline} UNENCRYPTED_SRTP"),
        format!("1 {suite} {inline} UNAUTHENTICATED_SRTP"),
        format!("1 {suite} {inline} KDR=1"),
        format!("1 {suite} {inline} FEC_ORDER=FEC_SRTP"),
        // Several keys that nothing tells apart, or that are too many.
        format!("1 {suite} {inline};{inline}"),
        format!("1 {suite} {inline}|1:4;{inline}|1:4"),
        format!("1 {suite} {inline}|1:4;{inline}|2:2"),
        format!("1 {suite} {several}"),
    ] {
        assert_eq!(Crypto::parse(&line), None, "{line}");
    }
}

#[test]
fn keys_come_from_the_seed_and_stay_until_renewed() {
    let mut maker = KeyMaker::new([7; 32]);
    let keys: Vec<_> = SrtpSuite::ALL.iter().map(|&suite| maker.key(suite).unwrap()).collect();
    for (key, suite) in keys.iter().zip(SrtpSuite::ALL) {
        assert_eq!(maker.key(suite).as_ref(), Some(key));
        let mut line = String::new();
        Crypto::write(&mut line, 3, key);
        let line = line.trim_end().strip_prefix("a=crypto:").unwrap();
        assert_eq!(Crypto::parse(line).unwrap().keys.first(), Some(key));
        assert_eq!(keys.iter().filter(|other| other.key()[..16] == key.key()[..16]).count(), 1);
    }
    assert_eq!(KeyMaker::new([7; 32]).key(SrtpSuite::ALL[0]).as_ref(), keys.first());
    assert_ne!(KeyMaker::new([8; 32]).key(SrtpSuite::ALL[0]).as_ref(), keys.first());
    maker.renew();
    assert_ne!(maker.key(SrtpSuite::ALL[0]).as_ref(), keys.first());
}

proptest! {
    #[test]
    fn rubbish_is_survived(text in "[0-9a-zA-Z:|;^=_/+ -]{0,120}") {
        let _ = Crypto::parse(&text);
        let _ = Crypto::parse(&format!("1 AEAD_AES_128_GCM inline:{text}"));
    }
}
