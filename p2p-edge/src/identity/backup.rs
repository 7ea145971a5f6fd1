//! Backups of identity files, encrypted with a passphrase.
//!
//! The key is derived by Argon2id (RFC 9106), the files are sealed by XChaCha20-Poly1305. What the
//! key was derived with stands before the ciphertext and is authenticated with it.
use std::collections::BTreeMap;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::Kind;
use crate::cbor;

const LABEL: &str = "CAUSEWAY BACKUP";
/// What the authenticated head begins with, so that no other ciphertext passes for a backup.
const DOMAIN: &[u8] = b"causeway-backup-v1\0";
/// The most files in a backup.
pub const MAX_BACKUP_FILES: usize = 64;
/// The most bytes of all files of a backup together.
pub const MAX_BACKUP_BYTES: usize = 8 * 1024 * 1024;
/// The fewest characters of a passphrase.
pub const MIN_PASSPHRASE: usize = 12;
/// The longest name of a file in a backup, in bytes.
const MAX_FILE_NAME: usize = 64;
/// What surrounds the ciphertext: PEM takes a third more than the bytes, and line ends.
const MAX_TEXT: usize = MAX_BACKUP_BYTES * 3 / 2;

/// How much work it is to try one passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
}

impl BackupCost {
    /// 64 MiB and three passes: what RFC 9106 4 recommends where memory is scarce.
    pub const RECOMMENDED: Self = Self { memory_kib: 64 * 1024, passes: 3 };
    /// The most that is spent on a backup of unknown origin.
    const MOST: Self = Self { memory_kib: 512 * 1024, passes: 16 };

    fn params(self) -> Result<Params, BackupError> {
        let within = self.memory_kib <= Self::MOST.memory_kib && self.passes <= Self::MOST.passes;
        let params = Params::new(self.memory_kib, self.passes, 1, Some(32)).ok().filter(|_| within);
        params.ok_or(BackupError::Malformed)
    }
}

/// The random part of a backup, which must never be used twice.
#[derive(Clone, Copy)]
pub struct BackupRandom {
    /// Makes equal passphrases give different keys.
    pub salt: [u8; 16],
    /// The nonce of the cipher.
    pub nonce: [u8; 24],
}

/// The files of a backup by name. Cleared from memory when dropped.
pub type BackupFiles = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Says why a backup cannot be made or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The text holds no backup, or a damaged one.
    #[error("this is no backup of Causeway, or a damaged one: take another copy")]
    Malformed,
    /// The passphrase does not open the backup, or a byte of it was altered: nobody can tell which.
    #[error("the passphrase does not fit, or the backup was altered: try again, or take another copy")]
    NotOpened,
    /// The passphrase is too short.
    #[error(
        "the passphrase has fewer than {MIN_PASSPHRASE} characters: five random words are easy to keep and hard to guess"
    )]
    WeakPassphrase,
    /// There are too many files, or too large ones.
    #[error("a backup holds at most {MAX_BACKUP_FILES} files of {MAX_BACKUP_BYTES} bytes together")]
    Oversize,
    /// A file has a name that is none of an identity.
    #[error("`{name}` is not the plain name of a file: a backup holds no folders")]
    FileName {
        /// The name, shortened.
        name: String,
    },
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    kind: u8,
    #[n(1)]
    head: Head,
    #[n(2)]
    sealed: ByteVec,
}

#[derive(Encode, Decode, Clone)]
#[cbor(array)]
struct Head {
    #[n(0)]
    memory_kib: u32,
    #[n(1)]
    passes: u32,
    #[n(2)]
    salt: ByteArray<16>,
    #[n(3)]
    nonce: ByteArray<24>,
}

/// Encrypts files with a passphrase. Returns PEM text that may be kept anywhere.
///
/// # Errors
/// `WeakPassphrase` below 12 characters; `Oversize` and `FileName` for what a backup cannot hold.
pub fn seal_backup(
    files: &BackupFiles,
    passphrase: &str,
    cost: BackupCost,
    random: BackupRandom,
) -> Result<String, BackupError> {
    if passphrase.chars().count() < MIN_PASSPHRASE {
        return Err(BackupError::WeakPassphrase);
    }
    let size: usize = files.values().map(|contents| contents.len()).sum();
    if files.len() > MAX_BACKUP_FILES || size > MAX_BACKUP_BYTES {
        return Err(BackupError::Oversize);
    }
    let mut list: Vec<(&str, &minicbor::bytes::ByteSlice)> = Vec::with_capacity(files.len());
    for (name, contents) in files {
        list.push((check_name(name)?, contents.as_slice().into()));
    }
    let head = Head {
        memory_kib: cost.memory_kib,
        passes: cost.passes,
        salt: random.salt.into(),
        nonce: random.nonce.into(),
    };
    let plain = Zeroizing::new(cbor::encode(list));
    let cipher = cipher(&head, passphrase)?;
    let sealed = cipher.encrypt(XNonce::from_slice(&random.nonce), Payload { msg: &plain, aad: &aad(&head) });
    let sealed = sealed.map_err(|_| BackupError::Oversize)?.into();
    Ok(super::armour::block(LABEL, cbor::encode(Wire { kind: Kind::Backup as u8, head, sealed })))
}

/// Opens a backup.
///
/// # Errors
/// `Malformed` for what is no backup or asks for more than 512 MiB of memory, `NotOpened` for a
/// wrong passphrase or an altered byte, `FileName` for a name that could leave its folder.
pub fn open_backup(text: &str, passphrase: &str) -> Result<BackupFiles, BackupError> {
    if text.len() > MAX_TEXT {
        return Err(BackupError::Oversize);
    }
    let blocks = ::pem::parse_many(text).map_err(|_| BackupError::Malformed)?;
    let block = blocks.into_iter().find(|block| block.tag() == LABEL).ok_or(BackupError::Malformed)?;
    let wire: Wire =
        cbor::decode_exact("the backup", block.contents(), MAX_TEXT).map_err(|_| BackupError::Malformed)?;
    if wire.kind != Kind::Backup as u8 {
        return Err(BackupError::Malformed);
    }
    let head = wire.head;
    let payload = Payload { msg: &wire.sealed, aad: &aad(&head) };
    let plain = cipher(&head, passphrase)?.decrypt(XNonce::from_slice(&head.nonce[..]), payload);
    let plain = Zeroizing::new(plain.map_err(|_| BackupError::NotOpened)?);
    let list: Vec<(String, ByteVec)> =
        cbor::decode("the backup", &plain, MAX_TEXT).map_err(|_| BackupError::Malformed)?;
    if list.len() > MAX_BACKUP_FILES {
        return Err(BackupError::Oversize);
    }
    let mut files = BackupFiles::new();
    for (name, contents) in list {
        let contents = Zeroizing::new(Vec::from(contents));
        if files.insert(check_name(&name)?.to_owned(), contents).is_some() {
            return Err(BackupError::Malformed);
        }
    }
    Ok(files)
}

fn cipher(head: &Head, passphrase: &str) -> Result<XChaCha20Poly1305, BackupError> {
    let params = BackupCost { memory_kib: head.memory_kib, passes: head.passes }.params()?;
    let mut key = Zeroizing::new([0; 32]);
    let derivation = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let derived = derivation.hash_password_into(passphrase.as_bytes(), &head.salt[..], &mut key[..]);
    derived.map_err(|_| BackupError::Malformed)?;
    Ok(XChaCha20Poly1305::new((&*key).into()))
}

fn aad(head: &Head) -> Vec<u8> {
    [DOMAIN, &cbor::encode(head)].concat()
}

/// A name that stays in the folder it is written to, and says nothing to a shell or terminal.
fn check_name(name: &str) -> Result<&str, BackupError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let fits = (1..=MAX_FILE_NAME).contains(&name.len()) && !name.starts_with('.');
    if fits && name.bytes().all(plain) {
        return Ok(name);
    }
    Err(BackupError::FileName { name: name.escape_default().take(MAX_FILE_NAME).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A thousandth of the work, for tests alone.
    const CHEAP: BackupCost = BackupCost { memory_kib: 64, passes: 1 };
    const PHRASE: &str = "correct horse battery staple";
    const RANDOM: BackupRandom = BackupRandom { salt: [1; 16], nonce: [2; 24] };

    fn files() -> BackupFiles {
        let key = crate::testing::key(7).to_pem().into_bytes();
        BTreeMap::from([
            ("key.pem".to_owned(), Zeroizing::new(key)),
            ("serial".into(), b"7\n".to_vec().into()),
        ])
    }

    #[test]
    fn a_backup_is_opened_by_its_passphrase_only() {
        let text = seal_backup(&files(), PHRASE, CHEAP, RANDOM).unwrap();
        assert!(text.starts_with("-----BEGIN CAUSEWAY BACKUP-----\n") && !text.contains("PRIVATE"));
        assert_eq!(open_backup(&text, PHRASE).unwrap(), files());
        for wrong in ["", "correct horse battery stapl", "correct horse battery staple "] {
            assert_eq!(open_backup(&text, wrong), Err(BackupError::NotOpened), "{wrong:?}");
        }
        assert_eq!(seal_backup(&files(), "eleven char", CHEAP, RANDOM), Err(BackupError::WeakPassphrase));
    }

    #[test]
    fn every_altered_byte_of_a_backup_is_noticed() {
        let text = seal_backup(&files(), PHRASE, CHEAP, RANDOM).unwrap();
        let bytes = ::pem::parse(&text).unwrap().into_contents();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            // The lowest bit: it never asks for much more work.
            altered[at] ^= 1;
            let text = super::super::armour::block(LABEL, altered);
            assert!(open_backup(&text, PHRASE).is_err(), "byte {at} of {}", bytes.len());
        }
        for length in 0..bytes.len() {
            let text = super::super::armour::block(LABEL, bytes[..length].to_vec());
            assert_eq!(open_backup(&text, PHRASE), Err(BackupError::Malformed), "cut to {length}");
        }
    }

    #[test]
    fn a_backup_cannot_write_elsewhere_or_ask_for_all_memory() {
        for name in
            ["", ".", "..", ".profile", "a/b", "../key.pem", "/etc/passwd", "a\u{1b}[2J", &"x".repeat(65)]
        {
            let bad = BTreeMap::from([(name.to_owned(), Zeroizing::new(Vec::new()))]);
            let refused = seal_backup(&bad, PHRASE, CHEAP, RANDOM).unwrap_err();
            assert!(matches!(refused, BackupError::FileName { .. }), "{name:?}: {refused}");
            // One that somebody else has made.
            let head =
                Head { memory_kib: 64, passes: 1, salt: RANDOM.salt.into(), nonce: RANDOM.nonce.into() };
            let plain = cbor::encode(vec![(name, ByteVec::from(b"x".to_vec()))]);
            let payload = Payload { msg: &plain, aad: &aad(&head) };
            let sealed = cipher(&head, PHRASE).unwrap().encrypt(XNonce::from_slice(&RANDOM.nonce), payload);
            let wire = Wire { kind: Kind::Backup as u8, head, sealed: sealed.unwrap().into() };
            let text = super::super::armour::block(LABEL, cbor::encode(wire));
            assert!(matches!(open_backup(&text, PHRASE), Err(BackupError::FileName { .. })), "{name:?}");
        }
        for (memory_kib, passes) in [(512 * 1024 + 1, 1), (64, 17), (u32::MAX, u32::MAX), (0, 0)] {
            let head = Head { memory_kib, passes, salt: [0; 16].into(), nonce: [0; 24].into() };
            let wire = Wire { kind: Kind::Backup as u8, head, sealed: vec![0; 32].into() };
            let text = super::super::armour::block(LABEL, cbor::encode(wire));
            assert_eq!(open_backup(&text, PHRASE), Err(BackupError::Malformed), "{memory_kib} {passes}");
        }
        let many = (0..65).map(|n| (format!("f{n}"), Zeroizing::new(Vec::new()))).collect();
        assert_eq!(seal_backup(&many, PHRASE, CHEAP, RANDOM), Err(BackupError::Oversize));
        let large = BTreeMap::from([("large".to_owned(), Zeroizing::new(vec![0; MAX_BACKUP_BYTES + 1]))]);
        assert_eq!(seal_backup(&large, PHRASE, CHEAP, RANDOM), Err(BackupError::Oversize));
    }

    #[test]
    fn the_largest_backup_can_be_opened_again() {
        let large = BTreeMap::from([("large".to_owned(), Zeroizing::new(vec![7; MAX_BACKUP_BYTES]))]);
        let text = seal_backup(&large, PHRASE, CHEAP, RANDOM).unwrap();
        assert_eq!(open_backup(&text, PHRASE).unwrap(), large);
    }
}
