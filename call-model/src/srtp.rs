use std::fmt;
use std::hint::black_box;

/// A crypto suite of SRTP (RFC 4568 6.2, RFC 6188 4, RFC 7714 14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SrtpSuite {
    /// AES-128 in counter mode, HMAC-SHA1 cut to 80 bits.
    AesCm128HmacSha1_80,
    /// AES-128 in counter mode, HMAC-SHA1 cut to 32 bits for RTP (80 for RTCP).
    AesCm128HmacSha1_32,
    /// AES-256 in counter mode, HMAC-SHA1 cut to 80 bits.
    AesCm256HmacSha1_80,
    /// AES-256 in counter mode, HMAC-SHA1 cut to 32 bits for RTP (80 for RTCP).
    AesCm256HmacSha1_32,
    /// AES-128 in Galois/counter mode.
    AeadAes128Gcm,
    /// AES-256 in Galois/counter mode.
    AeadAes256Gcm,
}

impl SrtpSuite {
    /// Every suite, in the order of the enumeration.
    pub const ALL: [SrtpSuite; 6] = [
        SrtpSuite::AesCm128HmacSha1_80,
        SrtpSuite::AesCm128HmacSha1_32,
        SrtpSuite::AesCm256HmacSha1_80,
        SrtpSuite::AesCm256HmacSha1_32,
        SrtpSuite::AeadAes128Gcm,
        SrtpSuite::AeadAes256Gcm,
    ];

    /// Returns the name that `a=crypto` has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            SrtpSuite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            SrtpSuite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            SrtpSuite::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            SrtpSuite::AesCm256HmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
            SrtpSuite::AeadAes128Gcm => "AEAD_AES_128_GCM",
            SrtpSuite::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// Finds a suite by the name that `a=crypto` has for it, in any case of letters.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.as_str().eq_ignore_ascii_case(name))
    }

    /// Returns the length of the master key in bytes: 16 or 32.
    pub fn key_len(self) -> usize {
        match self {
            SrtpSuite::AesCm128HmacSha1_80 | SrtpSuite::AesCm128HmacSha1_32 | SrtpSuite::AeadAes128Gcm => 16,
            SrtpSuite::AesCm256HmacSha1_80 | SrtpSuite::AesCm256HmacSha1_32 | SrtpSuite::AeadAes256Gcm => 32,
        }
    }

    /// Returns the length of the master salt in bytes: 14 in counter mode, 12 in Galois/counter mode.
    pub fn salt_len(self) -> usize {
        match self {
            SrtpSuite::AeadAes128Gcm | SrtpSuite::AeadAes256Gcm => 12,
            _ => 14,
        }
    }
}

/// A master key of SRTP with its salt (RFC 3711 3.2.1). Its bytes are in no `Debug`, and are
/// overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SrtpKey {
    suite: SrtpSuite,
    /// Key, then salt.
    bytes: Box<[u8]>,
    mki: Box<[u8]>,
    lifetime: Option<u64>,
}

impl SrtpKey {
    /// The longest master key identifier, in bytes (RFC 4568 6.1).
    pub const MKI_BYTES_MAX: usize = 128;
    /// The most packets one key may protect (RFC 3711 9.2).
    pub const LIFETIME_MAX: u64 = 1 << 48;

    /// Builds a key for a suite from master key and master salt, one behind the other. Returns `None`
    /// if the length is not the suite's.
    pub fn new(suite: SrtpSuite, bytes: &[u8]) -> Option<Self> {
        let fits = bytes.len() == suite.key_len() + suite.salt_len();
        fits.then(|| Self { suite, bytes: bytes.into(), mki: Box::default(), lifetime: None })
    }

    /// Adds the master key identifier that each packet under this key carries (RFC 3711 3.1). Returns
    /// `None` if it is empty or longer than [`Self::MKI_BYTES_MAX`].
    pub fn with_mki(mut self, mki: &[u8]) -> Option<Self> {
        (1..=Self::MKI_BYTES_MAX).contains(&mki.len()).then(|| {
            self.mki = mki.into();
            self
        })
    }

    /// Adds how many packets the key may protect. Returns `None` outside of 1 to
    /// [`Self::LIFETIME_MAX`].
    pub fn with_lifetime(mut self, packets: u64) -> Option<Self> {
        (1..=Self::LIFETIME_MAX).contains(&packets).then(|| {
            self.lifetime = Some(packets);
            self
        })
    }

    /// Returns the suite the key is for.
    pub fn suite(&self) -> SrtpSuite {
        self.suite
    }

    /// Returns the master key: [`SrtpSuite::key_len`] bytes.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.suite.key_len()]
    }

    /// Returns the master salt: [`SrtpSuite::salt_len`] bytes.
    pub fn salt(&self) -> &[u8] {
        &self.bytes[self.suite.key_len()..]
    }

    /// Returns master key and master salt, one behind the other.
    pub fn key_and_salt(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the master key identifier in each packet; empty where packets carry none.
    pub fn mki(&self) -> &[u8] {
        &self.mki
    }

    /// Returns how many packets it may protect, where that was said.
    pub fn lifetime(&self) -> Option<u64> {
        self.lifetime
    }
}

impl fmt::Debug for SrtpKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpKey")
            .field("suite", &self.suite)
            .field("mki_len", &self.mki.len())
            .finish_non_exhaustive()
    }
}

impl Drop for SrtpKey {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // Else the compiler may leave the overwriting out.
        black_box(&self.bytes);
    }
}

/// The keys of a leg whose signalling carried them (RFC 4568). All are of one suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrtpKeys {
    /// The suite, the same in both directions.
    pub suite: SrtpSuite,
    /// What we protect with. Without a master key identifier.
    pub send: SrtpKey,
    /// What the peer protects with: one key, or several told apart by identifiers of one length.
    pub receive: Vec<SrtpKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_lengths_of_their_suites_and_show_nothing() {
        for suite in SrtpSuite::ALL {
            assert_eq!(SrtpSuite::from_name(&suite.as_str().to_lowercase()), Some(suite));
            let bytes: Vec<u8> = (100..).take(suite.key_len() + suite.salt_len()).collect();
            let key = SrtpKey::new(suite, &bytes).unwrap();
            assert_eq!((key.key().len(), key.salt().len()), (suite.key_len(), suite.salt_len()));
            assert_eq!([key.key(), key.salt()].concat(), key.key_and_salt());
            assert_eq!(SrtpKey::new(suite, &bytes[1..]), None);
            let keys = SrtpKeys { suite, send: key.clone(), receive: vec![key.with_mki(&[103]).unwrap()] };
            let shown = format!("{keys:?}");
            assert!(bytes.iter().all(|byte| !shown.contains(&format!("{byte},"))), "{shown}");
            assert!(!shown.contains("103"), "{shown}");
        }
        let key = SrtpKey::new(SrtpSuite::AeadAes128Gcm, &[0; 28]).unwrap();
        assert_eq!(key.clone().with_mki(&[]), None);
        assert_eq!(key.clone().with_mki(&[0; 129]), None);
        assert_eq!(key.clone().with_lifetime(0), None);
        assert_eq!(key.with_lifetime(1 << 48).and_then(|k| k.lifetime()), Some(1 << 48));
    }
}
