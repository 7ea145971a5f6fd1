//! Digest authentication, both ways (RFC 7616, RFC 8760, and RFC 2617 for those who stayed there).

mod client;
mod server;

use std::fmt;

use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};

use crate::text;

pub use client::{AuthError, ClientAuth, respond};
pub use server::{Authenticated, Authenticator, Ha1, VerifyError};

/// Most challenges that are read out of one response.
const CHALLENGES_MAX: usize = 8;

/// A password. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a password in.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// Returns the password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Who we are towards a trunk.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user name, as the trunk's operator gave it.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// The only realm that may have an answer; any if `None`.
    pub realm: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// A digest algorithm (RFC 7616 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// `MD5`
    Md5,
    /// `MD5-sess`
    Md5Sess,
    /// `SHA-256`
    Sha256,
    /// `SHA-256-sess`
    Sha256Sess,
    /// `SHA-512-256`
    Sha512_256,
    /// `SHA-512-256-sess`
    Sha512_256Sess,
}

impl Algorithm {
    const ALL: [Self; 6] =
        [Self::Md5, Self::Md5Sess, Self::Sha256, Self::Sha256Sess, Self::Sha512_256, Self::Sha512_256Sess];

    /// Returns the name in a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Md5Sess => "MD5-sess",
            Self::Sha256 => "SHA-256",
            Self::Sha256Sess => "SHA-256-sess",
            Self::Sha512_256 => "SHA-512-256",
            Self::Sha512_256Sess => "SHA-512-256-sess",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| name.eq_ignore_ascii_case(a.as_str()))
    }

    fn is_session(self) -> bool {
        matches!(self, Self::Md5Sess | Self::Sha256Sess | Self::Sha512_256Sess)
    }

    fn is_weak(self) -> bool {
        matches!(self, Self::Md5 | Self::Md5Sess)
    }

    /// Hashes the parts joined by colons; returns lower-case hexadecimal digits.
    fn hash(self, parts: &[&[u8]]) -> String {
        let input = parts.join(&b':');
        match self {
            Self::Md5 | Self::Md5Sess => hex(&Md5::digest(&input)),
            Self::Sha256 | Self::Sha256Sess => hex(&Sha256::digest(&input)),
            Self::Sha512_256 | Self::Sha512_256Sess => hex(&Sha512_256::digest(&input)),
        }
    }
}

/// The protection that is used (RFC 7616 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qop {
    /// None was named: RFC 2069 style, without `nc` and `cnonce`.
    None,
    /// `auth`
    Auth,
    /// `auth-int`: the body is hashed too.
    AuthInt,
}

/// A digest challenge (RFC 7616 3.3).
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Protection domain.
    pub realm: String,
    /// The server's nonce.
    pub nonce: String,
    /// To be returned unchanged.
    pub opaque: Option<String>,
    /// MD5 where none is named.
    pub algorithm: Algorithm,
    /// The weakest sufficient protection of those offered.
    pub qop: Qop,
    /// Whether only the nonce was wrong.
    pub stale: bool,
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge")
            .field("realm", &self.realm)
            .field("algorithm", &self.algorithm)
            .field("qop", &self.qop)
            .field("stale", &self.stale)
            .finish_non_exhaustive()
    }
}

/// Reads the values of WWW-Authenticate or Proxy-Authenticate headers; one value may hold several
/// challenges. Those with an unknown scheme, algorithm or protection are left out. The strongest
/// algorithm comes first; between equals the server's order stays (RFC 8760 2.4).
pub fn parse_challenges<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = values
        .into_iter()
        .flat_map(parse_schemes)
        .filter_map(|fields| challenge_of(&fields))
        .take(CHALLENGES_MAX)
        .collect();
    challenges.sort_by_key(|c| c.algorithm.is_weak());
    challenges
}

fn challenge_of(fields: &Fields<'_>) -> Option<Challenge> {
    let algorithm = match fields.get("algorithm") {
        Some(name) => Algorithm::from_name(&name)?,
        None => Algorithm::Md5,
    };
    let qop = match fields.get("qop") {
        None => Qop::None,
        Some(list) => {
            let offers = |name: &str| list.split(',').any(|q| q.trim().eq_ignore_ascii_case(name));
            if offers("auth") {
                Qop::Auth
            } else if offers("auth-int") {
                Qop::AuthInt
            } else {
                return None;
            }
        }
    };
    Some(Challenge {
        realm: fields.get("realm")?,
        nonce: fields.get("nonce")?,
        opaque: fields.get("opaque"),
        algorithm,
        qop,
        stale: fields.get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
    })
}

/// The parameters of one `Digest` challenge or credential.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl Fields<'_> {
    /// Returns a value without its quotes.
    fn get(&self, name: &str) -> Option<String> {
        self.raw(name).map(text::unquote)
    }

    fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }
}

/// Splits a header value into its `Digest` parts; parts of other schemes are left out.
fn parse_schemes(value: &str) -> Vec<Fields<'_>> {
    let mut parts: Vec<(bool, Fields<'_>)> = Vec::new();
    for piece in text::split(value, ',') {
        let (name, value) = piece.split_once('=').map_or((piece, ""), |(n, v)| (n.trim(), v.trim()));
        // `Digest realm="x"`: two words before the equals sign begin a new scheme.
        let name = match name.split_once(char::is_whitespace) {
            Some((scheme, name)) => {
                parts.push((scheme.eq_ignore_ascii_case("Digest"), Fields(Vec::new())));
                name.trim()
            }
            None => name,
        };
        if let Some((true, fields)) = parts.last_mut() {
            fields.0.push((name, value));
        }
        if parts.len() > CHALLENGES_MAX {
            break;
        }
    }
    parts.into_iter().filter_map(|(digest, fields)| digest.then_some(fields)).collect()
}

/// Hashes what a digest knows of a user: name, realm and password (RFC 7616 3.4.2).
fn user_hash(algorithm: Algorithm, username: &str, realm: &str, password: &Secret) -> String {
    algorithm.hash(&[username.as_bytes(), realm.as_bytes(), password.expose().as_bytes()])
}

/// What goes into a digest (RFC 7616 3.4).
struct Input<'a> {
    algorithm: Algorithm,
    qop: Qop,
    /// The hash of user name, realm and password, in hexadecimal digits.
    key: &'a str,
    nonce: &'a str,
    nonce_count: &'a str,
    cnonce: &'a str,
    method: &'a str,
    uri: &'a str,
    body: &'a [u8],
}

/// RFC 7616 3.4.1 to 3.4.3.
fn digest(input: &Input<'_>) -> String {
    let Input { algorithm, nonce, cnonce, .. } = *input;
    let nonce = nonce.as_bytes();
    let a1 = match algorithm.is_session() {
        true => algorithm.hash(&[input.key.as_bytes(), nonce, cnonce.as_bytes()]),
        false => input.key.to_owned(),
    };
    let (method, uri) = (input.method.as_bytes(), input.uri.as_bytes());
    let (a2, qop) = match input.qop {
        Qop::None => {
            let a2 = algorithm.hash(&[method, uri]);
            return algorithm.hash(&[a1.as_bytes(), nonce, a2.as_bytes()]);
        }
        Qop::Auth => (algorithm.hash(&[method, uri]), "auth"),
        Qop::AuthInt => {
            (algorithm.hash(&[method, uri, algorithm.hash(&[input.body]).as_bytes()]), "auth-int")
        }
    };
    algorithm.hash(&[
        a1.as_bytes(),
        nonce,
        input.nonce_count.as_bytes(),
        cnonce.as_bytes(),
        qop.as_bytes(),
        a2.as_bytes(),
    ])
}

fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

#[cfg(test)]
mod tests;
