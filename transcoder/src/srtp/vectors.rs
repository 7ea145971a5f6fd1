//! The published test vectors.
#![allow(clippy::unwrap_used)]

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
use call_model::{SrtpKey, SrtpSuite};

use super::transform::{Transform, counter_block, counter_cipher, derive, key_stream};

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn master(suite: SrtpSuite, key: &str, salt: &str) -> SrtpKey {
    SrtpKey::new(suite, &[hex(key), hex(salt)].concat()).unwrap()
}

fn derived(master: &SrtpKey, label: u8, len: usize) -> Vec<u8> {
    let mut out = vec![0xff; len];
    derive(master, label, &mut out);
    out
}

const COUNTER_SALT: [u8; 14] =
    [0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd];

fn stream(key: &str, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    key_stream(&counter_cipher(&hex(key)), &counter_block(&COUNTER_SALT, 0, 0), &mut data);
    data
}

// RFC 3711 B.2.
#[test]
fn the_key_stream_of_rfc_3711() {
    let stream = stream("2b7e151628aed2a6abf7158809cf4f3c", 0xff02 * 16);
    assert_eq!(
        stream[..48],
        hex(
            "e03ead0935c95e80e166b16dd92b4eb4 d23513162b02d0f72a43a2fe4a5f97ab 41e95b3bb0a2e8dd477901e4fca894c0"
        )
    );
    assert_eq!(
        stream[0xfeff * 16..],
        hex(
            "ec8cdf7398607cb0f2d21675ea9ea1e4 362b7c3c6773516318a077d7fc5073ae 6a2cc3787889374fbeb4c81b17ba6c44"
        )
    );
}

// RFC 3711 B.3.
#[test]
fn the_derived_keys_of_rfc_3711() {
    let master = master(
        SrtpSuite::AesCm128HmacSha1_80,
        "e1f97a0d3e018be0d64fa32c06de4139",
        "0ec675ad498afeebb6960b3aabe6",
    );
    assert_eq!(derived(&master, 0, 16), hex("c61e7a93744f39ee10734afe3ff7a087"));
    assert_eq!(derived(&master, 2, 14), hex("30cbbc08863d8c85d49db34a9ae1"));
    assert_eq!(
        derived(&master, 1, 94),
        hex("cebe321f6ff7716b6fd4ab49af256a15 6d38baa48f0a0acf3c34e2359e6cdbce
             e049646c43d9327ad175578ef7227098 6371c10c9a369ac2f94a8c5fbcdddc25
             6d6e919a48b610ef17c2041e47403576 6b68642c59bbfc2f34db60dbdfb2")
    );
}

// RFC 6188 7.1.
#[test]
fn the_key_stream_of_rfc_6188() {
    let stream = stream("57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98", 48);
    assert_eq!(
        stream,
        hex(
            "92bdd28a93c3f52511c677d08b5515a4 9da71b2378a854f67050756ded165bac 63c4868b7096d88421b563b8c94c9a31"
        )
    );
}

// RFC 6188 7.2.
#[test]
fn the_derived_keys_of_rfc_6188() {
    let master = master(
        SrtpSuite::AesCm256HmacSha1_80,
        "f0f04914b513f2763a1b1fa130f10e29 98f6f6e43e4309d1e622a0e332b9f1b6",
        "3b04803de51ee7c96423ab5b78d2",
    );
    let key = hex("5ba1064e30ec51613cad926c5a28ef73 1ec7fb397f70a960653caf06554cd8c4");
    assert_eq!(derived(&master, 0, 32), key);
    assert_eq!(derived(&master, 2, 14), hex("fa31791685ca444a9e07c6c64e93"));
    assert_eq!(derived(&master, 1, 20), hex("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"));
}

/// The session keys of RFC 7714 16 and 17: octets from 0 on, and "Quid pro quo".
fn gcm(len: u8) -> Transform {
    let algorithm = if len == 16 { &AES_128_GCM } else { &AES_256_GCM };
    let key: Vec<u8> = (0..len).collect();
    Transform::Gcm {
        key: LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap()),
        salt: (*b"Quid pro quo").into(),
    }
}

// RFC 7714 16.1 and 16.2.
#[test]
fn the_rtp_packets_of_rfc_7714() {
    let header = "8040f17b 8041f8d3 5501a0b2";
    let plain = [hex(header), b"Gallia est omnis divisa in partes tres".to_vec()].concat();
    for (len, protected) in [
        (
            16,
            "f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833
             899d7f27 beb16a91 52cf765e e4390cce",
        ),
        (
            32,
            "32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b
             7aa3db36 dfffd6b0 f9bb7878 d7a76c13",
        ),
    ] {
        let protected = [hex(header), hex(protected)].concat();
        let source = (0x5501_a0b2, 0xf17b);
        let mut buffer = [plain.clone(), vec![0; 16]].concat();
        let length = gcm(len).seal_rtp(&mut buffer, (plain.len(), 12), source, &[]).unwrap();
        assert_eq!(buffer[..length], protected, "{len}");
        assert_eq!(gcm(len).open_rtp(&mut buffer, 12, source, 0), Ok(plain.len()));
        assert_eq!(buffer[..plain.len()], plain, "{len}");
    }
}

// RFC 7714 17.1 to 17.4.
#[test]
fn the_rtcp_packets_of_rfc_7714() {
    let plain = hex("81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                     deadbeef deadbeef deadbeef deadbeef deadbeef");
    let encrypted = [
        (
            16,
            "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda
             4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        ),
        (
            32,
            "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be
             8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        ),
    ];
    for (len, protected) in encrypted {
        let mut buffer = [plain.clone(), vec![0; 20]].concat();
        let length = gcm(len).seal_rtcp(&mut buffer, plain.len(), (0x4d61_7273, 0x5d4), &[]).unwrap();
        assert_eq!(buffer[..length], hex(protected), "{len}");
        assert_eq!(gcm(len).rtcp_word(&buffer, 0), Some(0x8000_05d4));
        assert_eq!(gcm(len).open_rtcp(&mut buffer, (0x4d61_7273, 0x8000_05d4), 0), Ok(plain.len()));
        assert_eq!(buffer[..plain.len()], plain, "{len}");
    }
    let mut tagged = [plain.clone(), hex("841dd968 3dd78ec9 2ae58790 125f62b3 000005d4")].concat();
    assert_eq!(gcm(16).rtcp_word(&tagged, 0), Some(0x5d4));
    assert_eq!(gcm(16).open_rtcp(&mut tagged, (0x4d61_7273, 0x5d4), 0), Ok(plain.len()));
    assert_eq!(tagged[..plain.len()], plain);
}
