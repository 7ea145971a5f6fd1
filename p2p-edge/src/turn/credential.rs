//! Credentials that last some hours and are kept in no table: the password follows from the user
//! name and a secret of the server.

use std::fmt;
use std::net::SocketAddr;

use aws_lc_rs::{constant_time, hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use libp2p::PeerId;
use md5::{Digest, Md5};

use crate::defence::{Defence, holds};
use crate::identity::{NodeKey, RevocationList, Standing};

/// The realm of every supernode (RFC 8489 9.2): it only names what the password is for.
pub const REALM: &str = "causeway";
/// The longest user name that is read; longer ones are nobody's.
const MAX_USERNAME: usize = 256;
/// How long a nonce is taken (RFC 8656 5: at most an hour).
const NONCE_LIFE_S: u32 = 3600;
/// Bytes of the time and of the tag in a nonce.
const NONCE_TIME: usize = 4;
const NONCE_TAG: usize = 12;

/// Returns the key of long-term credentials (RFC 8489 9.2.2).
pub fn long_term_key(username: &[u8], realm: &str, password: &str) -> hmac::Key {
    let mut digest = Md5::new();
    for part in [username, b":", realm.as_bytes(), b":", password.as_bytes()] {
        digest.update(part);
    }
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &digest.finalize())
}

/// The secrets of a TURN server. They follow from the node's own key, so that what was handed out
/// before a restart is good after it.
pub struct Secret {
    passwords: hmac::Key,
    nonces: hmac::Key,
}

impl Secret {
    /// Derives the secrets by HKDF (RFC 5869) from the signature of a fixed text, which nobody can
    /// make without the key and which Ed25519 makes the same each time (RFC 8032 5.1.6).
    pub fn of(key: &NodeKey) -> Self {
        let seed = key.sign(crate::identity::Domain::Turn, b"secret");
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, b"causeway-turn-v1").extract(&seed);
        let derive = |label: &'static [u8]| {
            let info = [label];
            match extracted.expand(&info, hmac::HMAC_SHA256) {
                Ok(okm) => hmac::Key::from(okm),
                Err(_) => unreachable!("32 bytes are less than 255 blocks"),
            }
        };
        Self { passwords: derive(b"password"), nonces: derive(b"nonce") }
    }

    /// Returns the credential of a peer: good until `expiry` in Unix seconds, and as long as its
    /// certificate is not revoked.
    pub fn issue(&self, peer: &PeerId, standing: &Standing, expiry: u64) -> (String, Password) {
        let expiry = expiry.min(standing.not_after());
        let username = format!("{expiry}:{peer}:{}", URL_SAFE_NO_PAD.encode(standing.to_bytes()));
        let password = self.password(username.as_bytes());
        (username, password)
    }

    fn password(&self, username: &[u8]) -> Password {
        Password(STANDARD.encode(hmac::sign(&self.passwords, username)))
    }

    /// Returns the key of the long-term credential mechanism (RFC 8489 9.2.2) for a user name,
    /// whoever made that up: only a password of this server's own leads to the same key.
    pub fn key(&self, username: &[u8]) -> hmac::Key {
        long_term_key(username, REALM, self.password(username).expose())
    }

    /// Makes a nonce for a client. It carries the time and a tag, so that none is remembered.
    pub fn nonce(&self, unix: u64, client: SocketAddr) -> String {
        let at = (unix as u32).to_be_bytes();
        let mut bytes = [0; NONCE_TIME + NONCE_TAG];
        bytes[..NONCE_TIME].copy_from_slice(&at);
        bytes[NONCE_TIME..].copy_from_slice(&self.nonce_tag(at, client));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Says whether a nonce was made here for this client, within the last hour. One that another
    /// client was given is stale.
    pub fn is_fresh(&self, nonce: &[u8], unix: u64, client: SocketAddr) -> bool {
        if !holds(Defence::TurnNonce) {
            return true;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(nonce) else { return false };
        let Some((at, tag)) = bytes.split_first_chunk::<NONCE_TIME>() else { return false };
        let age = (unix as u32).wrapping_sub(u32::from_be_bytes(*at));
        age < NONCE_LIFE_S
            && constant_time::verify_slices_are_equal(tag, &self.nonce_tag(*at, client)).is_ok()
    }

    fn nonce_tag(&self, at: [u8; NONCE_TIME], client: SocketAddr) -> [u8; NONCE_TAG] {
        let ip = match client.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&at);
        context.update(&ip.octets());
        context.update(&client.port().to_be_bytes());
        let mut tag = [0; NONCE_TAG];
        tag.copy_from_slice(&context.sign().as_ref()[..NONCE_TAG]);
        tag
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

/// A password that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes over a password that a server has handed out.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the password itself, for whoever has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(not shown)")
    }
}

/// What a user name says. It is believed once a message was authenticated with its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Whose credential it is.
    pub peer: PeerId,
    /// Until when it is good, in Unix seconds.
    pub expiry: u64,
    /// By what the certificate behind it can lose its validity.
    pub standing: Standing,
}

impl User {
    /// Reads a user name: `expiry:peer:standing`. `None` for what no server of ours wrote.
    pub fn parse(username: &[u8]) -> Option<Self> {
        if username.len() > MAX_USERNAME {
            return None;
        }
        let mut parts = std::str::from_utf8(username).ok()?.split(':');
        let (expiry, peer, standing) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let standing = URL_SAFE_NO_PAD.decode(standing).ok()?;
        Some(Self {
            expiry: expiry.parse().ok()?,
            peer: peer.parse().ok()?,
            standing: Standing::from_bytes(standing.as_slice().try_into().ok()?),
        })
    }

    /// Says whether the credential has ended.
    pub fn has_expired(&self, unix: u64) -> bool {
        unix > self.expiry && holds(Defence::TurnExpiry)
    }

    /// Says whether the certificate behind it was revoked.
    pub fn is_revoked(&self, revocations: &RevocationList) -> bool {
        self.standing.is_revoked(revocations) && holds(Defence::TurnRevocation)
    }
}
