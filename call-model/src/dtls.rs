use std::fmt;

/// A hash function of certificate fingerprints (RFC 8122 5). MD5 and SHA-1 are not among them: a certificate can be made
/// to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FingerprintHash {
    /// SHA-256, which everybody has.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl FingerprintHash {
    /// Every hash function, the weakest first.
    pub const ALL: [FingerprintHash; 3] =
        [FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512];

    /// Returns the name that `a=fingerprint` has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            FingerprintHash::Sha256 => "sha-256",
            FingerprintHash::Sha384 => "sha-384",
            FingerprintHash::Sha512 => "sha-512",
        }
    }

    /// Returns the length of a digest in bytes: 32, 48 or 64.
    pub fn digest_len(self) -> usize {
        match self {
            FingerprintHash::Sha256 => 32,
            FingerprintHash::Sha384 => 48,
            FingerprintHash::Sha512 => 64,
        }
    }
}

/// The fingerprint of a certificate: a digest of its DER (RFC 8122 5).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    hash: FingerprintHash,
    digest: Box<[u8]>,
}

impl Fingerprint {
    /// Builds a fingerprint from a digest. Returns `None` if the length is not the hash function's.
    pub fn new(hash: FingerprintHash, digest: &[u8]) -> Option<Self> {
        (digest.len() == hash.digest_len()).then(|| Self { hash, digest: digest.into() })
    }

    /// Reads the value of `a=fingerprint`, such as `sha-256 4A:AD:...`, in any case of letters. Returns `None` for
    /// what is malformed and for a hash function that is not known here.
    pub fn parse(value: &str) -> Option<Self> {
        let mut fields = value.split_whitespace();
        let name = fields.next()?;
        let hash = FingerprintHash::ALL.into_iter().find(|hash| hash.as_str().eq_ignore_ascii_case(name))?;
        let text = fields.next()?;
        if fields.next().is_some() || text.len() != hash.digest_len() * 3 - 1 {
            return None;
        }
        let octet = |pair: &str| {
            let hexadecimal = pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit());
            hexadecimal.then(|| u8::from_str_radix(pair, 16).ok()).flatten()
        };
        let digest = text.split(':').map(octet).collect::<Option<Vec<u8>>>()?;
        Self::new(hash, &digest)
    }

    /// Returns the hash function.
    pub fn hash(&self) -> FingerprintHash {
        self.hash
    }

    /// Returns the digest: [`FingerprintHash::digest_len`] bytes.
    pub fn digest(&self) -> &[u8] {
        &self.digest
    }
}

impl fmt::Display for Fingerprint {
    /// As in `a=fingerprint`, with upper-case letters (RFC 8122 5).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash.as_str())?;
        for (n, octet) in self.digest.iter().enumerate() {
            write!(f, "{}{octet:02X}", if n == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Which side begins the DTLS handshake (RFC 5763 5, RFC 4145 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DtlsRole {
    /// The client: sends the first message.
    Active,
    /// The server: waits for it.
    Passive,
}

impl DtlsRole {
    /// Returns the role of the other side.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            DtlsRole::Active => DtlsRole::Passive,
            DtlsRole::Passive => DtlsRole::Active,
        }
    }

    /// Returns the value of `a=setup`.
    pub fn as_str(self) -> &'static str {
        match self {
            DtlsRole::Active => "active",
            DtlsRole::Passive => "passive",
        }
    }
}

/// A DTLS association as offer and answer agreed on it. Where any of this differs from before, it is a new one
/// (RFC 8842 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DtlsParameters {
    /// Our role.
    pub role: DtlsRole,
    /// What the peer's certificate must match, all with the strongest hash function that it has: one of them
    /// (RFC 8122 5.1). At least one.
    pub fingerprints: Vec<Fingerprint>,
    /// The peer's `a=tls-id`, if it has one (RFC 8842 5.1).
    pub tls_id: Option<Box<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 8122 5.
    #[test]
    fn f20_fingerprints_are_read_as_peers_write_them() {
        for hash in FingerprintHash::ALL {
            let digest: Vec<u8> = (0xa0..).take(hash.digest_len()).collect();
            let fingerprint = Fingerprint::new(hash, &digest).expect("length");
            let text = fingerprint.to_string();
            assert!(text.starts_with(&format!("{} A0:A1:A2", hash.as_str())), "{text}");
            assert_eq!(Fingerprint::parse(&text), Some(fingerprint.clone()));
            assert_eq!(Fingerprint::parse(&format!(" {} ", text.to_lowercase())), Some(fingerprint.clone()));
            assert_eq!((fingerprint.hash(), fingerprint.digest()), (hash, &digest[..]));
            for wrong in [
                text[..text.len() - 3].to_owned(),
                format!("{text}:00"),
                format!("{text} 00"),
                text.replace("A1", "G1"),
                text.replace("A1", "+1"),
                text.replace(':', "-"),
                text.replace(hash.as_str(), "sha-1"),
                text.replace(hash.as_str(), "md5"),
            ] {
                assert_eq!(Fingerprint::parse(&wrong), None, "{wrong}");
            }
            assert_eq!(Fingerprint::new(hash, &digest[1..]), None);
        }
        let sha_1 = format!("sha-1 {}", ["AB"; 20].join(":"));
        assert_eq!(Fingerprint::parse(&sha_1), None);
        assert_eq!(Fingerprint::parse(""), None);
        assert_eq!(Fingerprint::parse("sha-256"), None);
    }
}
