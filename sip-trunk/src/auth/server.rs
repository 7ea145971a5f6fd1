use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Algorithm, Input, Qop, Secret, digest, hex, parse_schemes, user_hash};
use crate::text::quote;

/// Most nonces whose use is remembered; beyond it the oldest turn stale.
const NONCES_MAX: usize = 4096;
/// Offered algorithms, strongest first (RFC 8760 2.2).
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];

/// Stands for the hash of users nobody knows, so that judging them takes as long.
const NOBODY: &str = "0000000000000000000000000000000000000000000000000000000000000000";
const NOBODY_MD5: &str = "00000000000000000000000000000000";

/// Says why credentials were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The header value lacks something or is no Digest.
    #[error("the credentials are malformed")]
    Malformed,
    /// The nonce is too old, another source's or none of ours: challenge again with `stale=true`.
    #[error("the nonce is stale")]
    Stale,
    /// Right, but this nonce count was used before (RFC 7616 5.12).
    #[error("the credentials were used before")]
    Replayed,
    /// Nobody has that name.
    #[error("the user is unknown")]
    UnknownUser,
    /// The digest is wrong.
    #[error("the password is wrong")]
    WrongPassword,
    /// `uri` is not the request URI.
    #[error("the credentials are for another URI")]
    UriMismatch,
    /// The realm is not ours.
    #[error("the credentials are for another realm")]
    Realm,
    /// The algorithm was not offered.
    #[error("the algorithm was not offered")]
    Algorithm,
}

impl VerifyError {
    /// Returns the label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
            Self::UnknownUser => "unknown_user",
            Self::WrongPassword => "wrong_password",
            Self::UriMismatch => "uri_mismatch",
            Self::Realm => "realm",
            Self::Algorithm => "algorithm",
        }
    }

    /// Says whether a new challenge with `stale=true` lets the client go on without its user.
    pub fn is_stale(self) -> bool {
        matches!(self, Self::Stale | Self::Replayed)
    }
}

/// What is kept of a password: the hash of user name, realm and password, in hexadecimal digits, for
/// each algorithm (RFC 7616 3.4.2). Whoever has it can log in with it, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Ha1 {
    md5: Option<String>,
    sha256: Option<String>,
}

impl Ha1 {
    /// Hashes a password for every algorithm that is offered.
    pub fn of_password(username: &str, realm: &str, password: &Secret) -> Self {
        let hash = |algorithm| Some(user_hash(algorithm, username, realm, password));
        Self { md5: hash(Algorithm::Md5), sha256: hash(Algorithm::Sha256) }
    }

    /// Takes in hashes that were made elsewhere: 32 hexadecimal digits for MD5, 64 for SHA-256.
    /// `None` if one has another form, or there is none.
    pub fn new(md5: Option<&Secret>, sha256: Option<&Secret>) -> Option<Self> {
        let read = |hash: Option<&Secret>, digits: usize| match hash.map(Secret::expose) {
            None => Some(None),
            Some(text) if text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Some(Some(text.to_ascii_lowercase()))
            }
            Some(_) => None,
        };
        let (md5, sha256) = (read(md5, 32)?, read(sha256, 64)?);
        (md5.is_some() || sha256.is_some()).then_some(Self { md5, sha256 })
    }

    /// Says for which algorithms there is a hash: MD5, SHA-256.
    pub fn algorithms(&self) -> (bool, bool) {
        (self.md5.is_some(), self.sha256.is_some())
    }

    fn of(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Md5 => self.md5.as_deref(),
            Algorithm::Sha256 => self.sha256.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Challenges clients and verifies what they answer.
///
/// A nonce carries its time of issue and a keyed hash, so that unanswered challenges cost no
/// memory; only nonces in use are remembered, at most 4096 of them.
pub struct Authenticator {
    realm: String,
    key: [u8; 32],
    lifetime: Duration,
    /// Offered, strongest first.
    algorithms: Vec<Algorithm>,
    issued: u64,
    used: BTreeMap<Nonce, Window>,
    /// The youngest nonce that was forgotten: it and all before it are stale.
    forgotten: Option<Nonce>,
}

/// The request that credentials came in.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its request URI.
    pub uri: &'a str,
    /// Its body.
    pub body: &'a [u8],
    /// The wall time in seconds.
    pub unix: u64,
    /// Where it came from.
    pub source: IpAddr,
}

/// Time of issue in Unix seconds, then a serial number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Nonce {
    unix: u64,
    serial: u64,
}

/// The nonce counts seen: the highest, and which of the 64 up to it.
struct Window {
    highest: u32,
    seen: u64,
}

impl Authenticator {
    /// Builds an authenticator. `key` is secret and random; `lifetime` is how long a nonce may be
    /// used, in whole seconds.
    pub fn new(realm: String, key: [u8; 32], lifetime: Duration) -> Self {
        let algorithms = ALGORITHMS.to_vec();
        Self { realm, key, lifetime, algorithms, issued: 0, used: BTreeMap::new(), forgotten: None }
    }

    /// Offers the algorithms every user has a hash for, and no other: a client answers the first it
    /// knows (RFC 8760 2.4), and only that one.
    #[must_use]
    pub fn offering(mut self, md5: bool, sha256: bool) -> Self {
        self.algorithms.retain(|a| if *a == Algorithm::Md5 { md5 } else { sha256 });
        self
    }

    /// Returns the protection domain.
    pub fn realm(&self) -> &str {
        &self.realm
    }

    /// Returns the values of the WWW-Authenticate or Proxy-Authenticate fields of a challenge, one
    /// for each algorithm, strongest first. `unix` is the wall time in seconds; the nonce is of use to
    /// `source` only.
    pub fn challenge(&mut self, unix: u64, source: IpAddr, stale: bool) -> Vec<String> {
        self.issued = self.issued.wrapping_add(1);
        let nonce = self.print(Nonce { unix, serial: self.issued }, source);
        let realm = quote(&self.realm);
        let stale = if stale { ", stale=true" } else { "" };
        let value = |algorithm: &Algorithm| {
            let name = algorithm.as_str();
            format!("Digest realm={realm}, nonce=\"{nonce}\", algorithm={name}, qop=\"auth\"{stale}")
        };
        self.algorithms.iter().map(value).collect()
    }

    /// Verifies an Authorization or Proxy-Authorization value of a request; `user` looks one up.
    /// Returns the user name. Whether the user is unknown or the password wrong, it takes the same
    /// time.
    ///
    /// # Errors
    /// The nonce is judged before the digest: who never got a nonce at the address it sends from is
    /// told no more than that (RFC 7616 3.3 allows `stale` then), so that a forged source address can
    /// neither try passwords nor have a wrong one held against somebody else.
    pub fn verify<'k>(
        &mut self,
        value: &str,
        request: &Authenticated<'_>,
        user: impl FnOnce(&str) -> Option<&'k Ha1>,
    ) -> Result<String, VerifyError> {
        let &Authenticated { method, uri, body, unix, source } = request;
        let schemes = parse_schemes(value);
        let [fields] = &schemes[..] else { return Err(VerifyError::Malformed) };
        let field = |name| fields.get(name).ok_or(VerifyError::Malformed);
        let (username, nonce, response) = (field("username")?, field("nonce")?, field("response")?);
        if field("realm")? != self.realm {
            return Err(VerifyError::Realm);
        }
        if field("uri")? != uri {
            return Err(VerifyError::UriMismatch);
        }
        let algorithm = match fields.get("algorithm") {
            None => Algorithm::Md5,
            Some(name) => Algorithm::from_name(&name).ok_or(VerifyError::Algorithm)?,
        };
        if !self.algorithms.contains(&algorithm) {
            return Err(VerifyError::Algorithm);
        }
        // Without a nonce count nothing would stop a replay: `qop` was offered, so it is demanded.
        if !field("qop")?.eq_ignore_ascii_case("auth") {
            return Err(VerifyError::Malformed);
        }
        let (cnonce, nonce_count) = (field("cnonce")?, field("nc")?);
        let digits = nonce_count.len() == 8 && nonce_count.bytes().all(|b| b.is_ascii_hexdigit());
        let count = u32::from_str_radix(&nonce_count, 16).ok().filter(|&count| digits && count > 0);
        let count = count.ok_or(VerifyError::Malformed)?;

        let issued = self.read(&nonce, unix, source).ok_or(VerifyError::Stale)?;
        let known = user(&username).and_then(|hashes| hashes.of(algorithm));
        let expected = digest(&Input {
            algorithm,
            qop: Qop::Auth,
            key: known.unwrap_or(if algorithm == Algorithm::Md5 { NOBODY_MD5 } else { NOBODY }),
            nonce: &nonce,
            nonce_count: &nonce_count,
            cnonce: &cnonce,
            method,
            uri,
            body,
        });
        let right: bool = expected.as_bytes().ct_eq(response.to_ascii_lowercase().as_bytes()).into();
        if known.is_none() {
            return Err(VerifyError::UnknownUser);
        }
        if !right {
            return Err(VerifyError::WrongPassword);
        }
        self.count(issued, count, unix)?;
        Ok(username)
    }

    /// 16 hexadecimal digits each of time and serial number, 32 of their keyed hash with the source.
    fn print(&self, nonce: Nonce, source: IpAddr) -> String {
        let head = format!("{:016x}{:016x}", nonce.unix, nonce.serial);
        let bound = format!("{head}{}", source.to_canonical());
        let tag = hex(&hmac_sha256(&self.key, bound.as_bytes())[..16]);
        head + &tag
    }

    /// Returns a nonce of ours that is neither too old nor from the future.
    fn read(&self, text: &str, unix: u64, source: IpAddr) -> Option<Nonce> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let number = |range| u64::from_str_radix(text.get(range)?, 16).ok();
        let nonce = Nonce { unix: number(0..16)?, serial: number(16..32)? };
        let ours: bool = self.print(nonce, source).as_bytes().ct_eq(text.as_bytes()).into();
        let young = unix.checked_sub(nonce.unix)? <= self.lifetime.as_secs();
        let remembered = self.forgotten.is_none_or(|forgotten| nonce > forgotten);
        (ours && young && remembered).then_some(nonce)
    }

    /// Notes a use. Requests may overtake one another, so any of the last 64 counts may come late,
    /// but none twice.
    fn count(&mut self, nonce: Nonce, count: u32, unix: u64) -> Result<(), VerifyError> {
        let oldest = unix.saturating_sub(self.lifetime.as_secs());
        while let Some((&first, _)) = self.used.first_key_value() {
            let full = self.used.len() >= NONCES_MAX && !self.used.contains_key(&nonce);
            if first.unix >= oldest && !full {
                break;
            }
            self.used.pop_first();
            self.forgotten = Some(first);
        }
        // It may be this very nonce that had to go.
        if self.forgotten.is_some_and(|forgotten| nonce <= forgotten) {
            return Err(VerifyError::Stale);
        }
        let window = self.used.entry(nonce).or_insert(Window { highest: 0, seen: 0 });
        if count > window.highest {
            window.seen = window.seen.checked_shl(count - window.highest).unwrap_or(0) | 1;
            window.highest = count;
            return Ok(());
        }
        let bit = 1u64.checked_shl(window.highest - count).unwrap_or(0);
        if bit == 0 || window.seen & bit != 0 {
            return Err(VerifyError::Replayed);
        }
        window.seen |= bit;
        Ok(())
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("realm", &self.realm)
            .field("nonces", &self.used.len())
            .finish_non_exhaustive()
    }
}

/// RFC 2104 2, for a key that is shorter than a block of SHA-256.
fn hmac_sha256(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}
