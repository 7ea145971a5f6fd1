use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Algorithm, Input, Qop, Secret, digest, hex, parse_schemes};
use crate::text::quote;

/// Most nonces whose use is remembered; beyond it the oldest turn stale.
const NONCES_MAX: usize = 4096;
/// Offered algorithms, strongest first (RFC 8760 2.2).
const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Md5];

/// Says why credentials were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The header value lacks something or is no Digest.
    #[error("the credentials are malformed")]
    Malformed,
    /// Right, but the nonce is too old or none of ours: challenge again with `stale=true`.
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

/// Challenges clients and verifies what they answer.
///
/// A nonce carries its time of issue and a keyed hash, so that unanswered challenges cost no
/// memory; only nonces in use are remembered, at most 4096 of them.
pub struct Authenticator {
    realm: String,
    key: [u8; 32],
    lifetime: Duration,
    issued: u64,
    used: BTreeMap<Nonce, Window>,
    /// The youngest nonce that was forgotten: it and all before it are stale.
    forgotten: Option<Nonce>,
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
        Self { realm, key, lifetime, issued: 0, used: BTreeMap::new(), forgotten: None }
    }

    /// Returns the values of the WWW-Authenticate or Proxy-Authenticate fields of a challenge, one
    /// for each algorithm, strongest first. `unix` is the wall time in seconds.
    pub fn challenge(&mut self, unix: u64, stale: bool) -> Vec<String> {
        self.issued = self.issued.wrapping_add(1);
        let nonce = self.print(Nonce { unix, serial: self.issued });
        let realm = quote(&self.realm);
        let stale = if stale { ", stale=true" } else { "" };
        let value = |algorithm: &Algorithm| {
            let name = algorithm.as_str();
            format!("Digest realm={realm}, nonce=\"{nonce}\", algorithm={name}, qop=\"auth\"{stale}")
        };
        ALGORITHMS.iter().map(value).collect()
    }

    /// Verifies an Authorization or Proxy-Authorization value; `uri` is the request URI, and
    /// `password` looks a user up. Returns the user name.
    ///
    /// # Errors
    /// The digest is judged before the nonce, so that only who knows the password learns that a
    /// nonce is stale (RFC 7616 3.3).
    pub fn verify(
        &mut self,
        value: &str,
        method: &str,
        uri: &str,
        body: &[u8],
        unix: u64,
        password: impl FnOnce(&str) -> Option<Secret>,
    ) -> Result<String, VerifyError> {
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
        if !ALGORITHMS.contains(&algorithm) {
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

        let known = password(&username);
        let secret = known.clone().unwrap_or_else(|| Secret::new(""));
        let expected = digest(&Input {
            algorithm,
            qop: Qop::Auth,
            username: &username,
            realm: &self.realm,
            password: &secret,
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
        let nonce = self.read(&nonce, unix).ok_or(VerifyError::Stale)?;
        self.count(nonce, count, unix)?;
        Ok(username)
    }

    /// 16 hexadecimal digits each of time and serial number, 32 of their keyed hash.
    fn print(&self, nonce: Nonce) -> String {
        let head = format!("{:016x}{:016x}", nonce.unix, nonce.serial);
        let tag = hex(&hmac_sha256(&self.key, head.as_bytes())[..16]);
        head + &tag
    }

    /// Returns a nonce of ours that is neither too old nor from the future.
    fn read(&self, text: &str, unix: u64) -> Option<Nonce> {
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        let number = |range| u64::from_str_radix(text.get(range)?, 16).ok();
        let nonce = Nonce { unix: number(0..16)?, serial: number(16..32)? };
        let ours: bool = self.print(nonce).as_bytes().ct_eq(text.as_bytes()).into();
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
