//! The keys of SRTP that a DTLS handshake exports.

use std::cell::RefCell;

use call_model::{SrtpKey, SrtpKeys, SrtpSuite};
use str0m::crypto::dtls::SrtpProfile;
use zeroize::Zeroizing;

/// The longest master key with its salt, in octets.
const KEY_LEN_MAX: usize = 46;

/// The master keys of both directions.
pub(super) struct MasterKeys {
    pub(super) send: SrtpKey,
    pub(super) receive: SrtpKey,
}

impl MasterKeys {
    /// RFC 5764 4.2: the client's key, the server's, the client's salt, the server's.
    pub(super) fn split(material: &[u8], profile: SrtpProfile, client: bool) -> Option<Self> {
        let suite = match profile {
            SrtpProfile::AES128_CM_SHA1_80 => SrtpSuite::AesCm128HmacSha1_80,
            SrtpProfile::AEAD_AES_128_GCM => SrtpSuite::AeadAes128Gcm,
            SrtpProfile::AEAD_AES_256_GCM => SrtpSuite::AeadAes256Gcm,
            _ => return None,
        };
        let (client_key, rest) = material.split_at_checked(suite.key_len())?;
        let (server_key, rest) = rest.split_at_checked(suite.key_len())?;
        let (client_salt, rest) = rest.split_at_checked(suite.salt_len())?;
        let server_salt = rest.get(..suite.salt_len())?;
        let key = |key: &[u8], salt: &[u8]| {
            let mut bytes = Zeroizing::new([0; KEY_LEN_MAX]);
            let bytes = bytes.get_mut(..key.len() + salt.len())?;
            bytes[..key.len()].copy_from_slice(key);
            bytes[key.len()..].copy_from_slice(salt);
            SrtpKey::new(suite, bytes)
        };
        let (ours, theirs) = (key(client_key, client_salt)?, key(server_key, server_salt)?);
        let (send, receive) = if client { (ours, theirs) } else { (theirs, ours) };
        Some(Self { send, receive })
    }

    /// Returns them as a leg takes those of signalling.
    pub(super) fn into_keys(self) -> SrtpKeys {
        SrtpKeys { suite: self.send.suite(), send: self.send, receive: vec![self.receive] }
    }
}

/// Octets that a peer's certificate has at most: what the queue of a handshake holds in datagrams of an Ethernet.
const SCRATCH: usize = 1 << 16;

thread_local! {
    /// The DTLS implementation wants room for whatever it says next before it says what, and stops the process where
    /// a certificate does not fit. Once a thread: an association has something to say at its beginning only.
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Lends a buffer in which any output of a DTLS instance fits.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    SPACE.with(|space| match space.try_borrow_mut() {
        Ok(mut space) => work(&mut space),
        Err(_) => work(&mut vec![0; SCRATCH]),
    })
}
