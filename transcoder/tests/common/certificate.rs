//! Certificates of peers, as large as they like.

use aws_lc_rs::digest;
use call_model::{Fingerprint, FingerprintHash};
use str0m::config::DtlsCert;

/// Reads an element of DER: tag, content, and what is behind.
fn element(der: &[u8]) -> (u8, &[u8], &[u8]) {
    let (tag, first) = (der[0], usize::from(der[1]));
    let octets = first.saturating_sub(128);
    let long = der[2..2 + octets].iter().fold(0, |length, &octet| length << 8 | usize::from(octet));
    let length = if octets == 0 { first } else { long };
    let (content, rest) = der[2 + octets..].split_at(length);
    (tag, content, rest)
}

fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut der = match length {
        0..128 => vec![tag, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    der.extend(content);
    der
}

/// Makes a certificate with a comment of so many octets in it.
pub fn large(comment: usize) -> DtlsCert {
    let mut made = str0m::crypto::from_feature_flags().dtls_provider.generate_certificate().unwrap();
    // A comment as Netscape had it, which nobody has to understand.
    let name = [0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x42, 0x01, 0x0d];
    let value = encode(0x04, &encode(0x16, &vec![b'x'; comment]));
    let extension = encode(0x30, &[&name[..], &value].concat());
    let (_, certificate, _) = element(&made.certificate);
    let (_, mut rest, signature) = element(certificate);
    let (mut signed, mut extensions) = (Vec::new(), Vec::new());
    while !rest.is_empty() {
        let (tag, content, behind) = element(rest);
        if tag == 0xa3 {
            extensions = element(content).1.to_vec();
        } else {
            signed.extend(encode(tag, content));
        }
        rest = behind;
    }
    extensions.extend(extension);
    signed.extend(encode(0xa3, &encode(0x30, &extensions)));
    // What signs it is itself, and nobody looks.
    made.certificate = encode(0x30, &[encode(0x30, &signed), signature.to_vec()].concat());
    made
}

pub fn fingerprint(certificate: &DtlsCert) -> Fingerprint {
    let digest = digest::digest(&digest::SHA256, &certificate.certificate);
    Fingerprint::new(FingerprintHash::Sha256, digest.as_ref()).unwrap()
}
