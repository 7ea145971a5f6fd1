//! Keys of SRTP in a session description: `a=crypto` (RFC 4568).

use std::fmt::Write as _;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use call_model::{SrtpKey, SrtpSuite};
use sha2::{Digest, Sha256};

use super::description::Media;

/// Most `a=crypto` lines of an m-line that are looked at.
const LINES_MAX: usize = 16;
/// Most keys of one line.
const KEYS_MAX: usize = 4;
/// The longest key in base64: 46 bytes are 64 characters.
const KEY_TEXT_MAX: usize = 64;

/// Padding is left out by some (RFC 4568 6.1 asks for it).
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// An `a=crypto` line that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crypto {
    /// Up to nine digits; the answer names the line of the offer by it (RFC 4568 4.1).
    pub(super) tag: u32,
    pub(super) suite: SrtpSuite,
    /// At least one. Several are told apart by their identifiers.
    pub(super) keys: Vec<SrtpKey>,
}

impl Crypto {
    /// Reads `tag suite key-params [session-params]` (RFC 4568 9.1). `None` for a suite that is not
    /// spoken, a key of the wrong length, and parameters that would change the packets.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_whitespace();
        let tag = fields.next().filter(|tag| tag.len() <= 9)?.parse().ok()?;
        let suite = SrtpSuite::from_name(fields.next()?)?;
        let keys = fields.next()?;
        if !fields.all(is_harmless) {
            return None;
        }
        let keys = keys.split(';').take(KEYS_MAX + 1).map(|key| key_of(suite, key));
        let keys = keys.collect::<Option<Vec<_>>>().filter(|keys| keys.len() <= KEYS_MAX)?;
        // RFC 4568 6.1: with several keys each has an identifier, all of one length.
        let (first, rest) = keys.split_first()?;
        let unique = |n: usize, key: &SrtpKey| keys.iter().skip(n + 1).all(|other| other.mki() != key.mki());
        let told_apart = rest.is_empty()
            || (!first.mki().is_empty()
                && rest.iter().all(|key| key.mki().len() == first.mki().len())
                && keys.iter().enumerate().all(|(n, key)| unique(n, key)));
        told_apart.then_some(Self { tag, suite, keys })
    }

    /// Writes a line with a key of ours. Lifetime and identifier are left out: the key holds for as
    /// many packets as RFC 3711 9.2 allows, and it is the only one.
    pub(super) fn write(out: &mut String, tag: u32, key: &SrtpKey) {
        // Writing to a string does not fail.
        let _ = write!(out, "a=crypto:{tag} {} inline:", key.suite().as_str());
        BASE64.encode_string(key.key_and_salt(), out);
        out.push_str("\r\n");
    }
}

/// What an m-line says of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cryptos {
    /// The lines that can be used, in order of the peer's preference.
    pub(super) usable: Vec<Crypto>,
    /// There are lines, usable or not.
    pub(super) any: bool,
}

impl Cryptos {
    pub(super) fn of(media: &Media<'_>) -> Self {
        let lines = media.attributes.iter().filter(|a| a.name.eq_ignore_ascii_case("crypto"));
        let values: Vec<&str> = lines.take(LINES_MAX).filter_map(|a| a.value).collect();
        Self { any: !values.is_empty(), usable: values.into_iter().filter_map(Crypto::parse).collect() }
    }
}

/// RFC 4568 6.3: what is not understood makes the line useless, unless it says itself that it may be
/// ignored. A window size hint changes nothing on the wire.
fn is_harmless(parameter: &str) -> bool {
    let hint = parameter.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("WSH="));
    hint || parameter.starts_with('-')
}

/// Reads `inline:key||salt["|" lifetime]["|" MKI ":" length]` (RFC 4568 6.1).
fn key_of(suite: SrtpSuite, parameter: &str) -> Option<SrtpKey> {
    let (method, info) = parameter.split_once(':')?;
    if !method.eq_ignore_ascii_case("inline") {
        return None;
    }
    let mut parts = info.split('|');
    let text = parts.next().filter(|text| text.len() <= KEY_TEXT_MAX)?;
    let mut key = SrtpKey::new(suite, &BASE64.decode(text).ok()?)?;
    let mut next = parts.next();
    if let Some(lifetime) = next.filter(|part| !part.contains(':')) {
        key = key.with_lifetime(lifetime_of(lifetime)?)?;
        next = parts.next();
    }
    if let Some(mki) = next {
        key = key.with_mki(&mki_of(mki)?)?;
    }
    parts.next().is_none().then_some(key)
}

/// Reads a number of packets, or `2^n` of them.
fn lifetime_of(text: &str) -> Option<u64> {
    match text.strip_prefix("2^") {
        Some(power) => 1u64.checked_shl(power.parse().ok()?),
        None => text.parse().ok(),
    }
}

/// Reads `value:length`: the bytes of a number, the most significant first.
fn mki_of(text: &str) -> Option<Vec<u8>> {
    let (value, length) = text.split_once(':')?;
    let (value, length): (u128, usize) = (value.parse().ok()?, length.parse().ok()?);
    if !(1..=SrtpKey::MKI_BYTES_MAX).contains(&length) {
        return None;
    }
    let bytes = value.to_be_bytes();
    if let Some(cut) = bytes.len().checked_sub(length) {
        let (over, kept) = bytes.split_at(cut);
        over.iter().all(|&byte| byte == 0).then(|| kept.to_vec())
    } else {
        let mut padded = vec![0; length - bytes.len()];
        padded.extend(bytes);
        Some(padded)
    }
}

/// Makes the keys of one session from a seed, one per suite, and keeps them: a description that is
/// sent again has the same.
#[derive(Clone)]
pub(super) struct KeyMaker {
    seed: [u8; 32],
    made: u32,
    keys: Vec<SrtpKey>,
}

impl KeyMaker {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed, made: 0, keys: Vec::new() }
    }

    /// Returns the key of a suite.
    pub(super) fn key(&mut self, suite: SrtpSuite) -> Option<SrtpKey> {
        if let Some(key) = self.keys.iter().find(|key| key.suite() == suite) {
            return Some(key.clone());
        }
        let block = |half: u8| {
            let hash = Sha256::new().chain_update(b"SRTP master key").chain_update(self.seed);
            hash.chain_update(self.made.to_be_bytes()).chain_update([half]).finalize()
        };
        let mut bytes = [block(0), block(1)].concat();
        self.made = self.made.wrapping_add(1);
        let key = SrtpKey::new(suite, bytes.get(..suite.key_len() + suite.salt_len())?);
        bytes.fill(0);
        self.keys.extend(key.clone());
        key
    }

    /// Lets the next key be a new one.
    pub(super) fn renew(&mut self) {
        self.keys.clear();
    }
}

#[cfg(test)]
#[path = "crypto_tests.rs"]
mod tests;
