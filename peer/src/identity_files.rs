//! The files of an identity: key, certificate, root, revocations.
//!
//! A directory holds `key.pem` (secret, readable by its owner only), `certificate.pem` (the handle
//! certificate), `root.pem` (whom to believe) and, where there are any, `revoked.pem` and `numbers.pem`,
//! the numbers that an authority has assigned. An identity
//! may also be one file with key and certificate, as `causeway authority issue user` writes it;
//! the rest is then looked for beside it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use call_model::Handle;
use p2p_edge::files::{self, FilesError};
use p2p_edge::identity::{
    Credential, HandleCertificate, IdentityError, NodeKey, NumberAssignment, Renewal, Request,
    RevocationList, Trust, UserBundle,
};

/// Longest identity file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Names of the files in an identity directory.
pub const KEY: &str = "key.pem";
/// The handle certificate.
pub const CERTIFICATE: &str = "certificate.pem";
/// The root certificates.
pub const ROOT: &str = "root.pem";
/// The revocation lists; may be absent.
pub const REVOCATIONS: &str = "revoked.pem";
/// The assignments of numbers; may be absent.
pub const NUMBERS: &str = "numbers.pem";

/// Says what was wrong with an identity file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {reason}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// Others can read the key.
    #[error("{path} can be read by others (mode {mode:03o}): run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The content is not what it should be.
    #[error("{path}: {error}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: IdentityError,
    },
    /// The certificate is for another key.
    #[error("the certificate of {handle} does not name this key: issue it for the public key {public_key}")]
    OtherKey {
        /// Whom the certificate is for.
        handle: Handle,
        /// The key that it should name.
        public_key: String,
    },
    /// The new certificate is for another handle.
    #[error(
        "the certificate is for {found}, and the identity is that of {handle}: check which file was sent back"
    )]
    OtherHandle {
        /// Whose identity it is.
        handle: Handle,
        /// Whom the certificate is for.
        found: Handle,
    },
    /// A number is assigned to another handle.
    #[error(
        "the number is assigned to {found}, and the identity is that of {handle}: check which file was sent"
    )]
    OtherOwner {
        /// Whose identity it is.
        handle: Handle,
        /// Whose the number is.
        found: Handle,
    },
    /// A file could not be backed up, restored or replaced.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The random source of the system failed.
    #[error("the system gives no random numbers")]
    Random,
}

/// The identity of an overlay user's device.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The device's key.
    pub key: NodeKey,
    /// Certifies the handle.
    pub certificate: HandleCertificate,
    /// Whom to believe.
    pub trust: Trust,
    /// What has been revoked.
    pub revocations: RevocationList,
    /// Numbers that an authority has assigned. Nothing is verified yet.
    pub numbers: Vec<NumberAssignment>,
}

impl Identity {
    /// Reads an identity, directory or file, and checks that its parts belong together. `root`
    /// replaces its `root.pem`.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn read(identity: &Path, root: Option<&Path>, unix: u64) -> Result<Self, FileError> {
        let (key, certificate) = parts(identity);
        let directory =
            if identity.is_file() { identity.parent().unwrap_or(Path::new("")) } else { identity };
        let key = read_key(&key)?;
        let certificate = parse(&certificate, HandleCertificate::from_pem)?;
        check_key(&key, &certificate)?;
        let default_root = directory.join(ROOT);
        let trust = parse(root.unwrap_or(&default_root), Trust::from_pem)?;
        let mut revocations = RevocationList::default();
        let path = directory.join(REVOCATIONS);
        if path.exists() {
            revocations = parse(&path, |pem| RevocationList::from_pem(pem, &trust, unix))?;
        }
        let path = directory.join(NUMBERS);
        let numbers = if path.exists() { parse(&path, NumberAssignment::all_from_pem)? } else { Vec::new() };
        Ok(Self { key, certificate, trust, revocations, numbers })
    }

    /// Returns the assignments of numbers that are good at the moment `unix`. One that has ended is no
    /// reason to publish none.
    pub fn good_numbers(&self, unix: u64) -> Vec<NumberAssignment> {
        let is_good = |one: &&NumberAssignment| one.verify(&self.trust, &self.revocations, unix).is_ok();
        self.numbers.iter().filter(is_good).cloned().collect()
    }
}

/// Makes a key and writes it, readable by its owner only. An existing file is not overwritten.
///
/// # Errors
/// When the file exists or cannot be written, or the system gives no random numbers.
pub fn create_key(path: &Path) -> Result<NodeKey, FileError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| FileError::Random)?;
    let key = NodeKey::from_seed(seed);
    write_secret(path, &key.to_pem())?;
    Ok(key)
}

/// Writes a certificate request (PKCS #10) for a key, for an authority that wants one.
///
/// # Errors
/// When the file cannot be written.
pub fn write_request(path: &Path, handle: &Handle, key: &NodeKey) -> Result<(), FileError> {
    let content = |error| FileError::Content { path: path.into(), error };
    let request = Request::write(handle.as_str(), key).map_err(content)?;
    fs::write(path, request).map_err(|error| write_error(path, &error))
}

/// Puts key, certificate and root together into an identity directory, after checking them.
///
/// # Errors
/// Names the file and what is wrong with it; nothing is written then.
pub fn import(
    directory: &Path,
    key: &Path,
    certificate: &Path,
    root: &Path,
    unix: u64,
) -> Result<Identity, FileError> {
    let identity = Identity {
        key: read_key(key)?,
        certificate: parse(certificate, HandleCertificate::from_pem)?,
        trust: parse(root, Trust::from_pem)?,
        revocations: RevocationList::default(),
        numbers: Vec::new(),
    };
    check_key(&identity.key, &identity.certificate)?;
    let verified = identity.certificate.verify(&identity.trust, &identity.revocations, unix);
    verified.map_err(|error| FileError::Content { path: certificate.into(), error })?;

    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(directory);
    made.map_err(|error| write_error(directory, &error))?;
    let target = directory.join(KEY);
    if fs::canonicalize(&target).ok() != fs::canonicalize(key).ok() || !target.exists() {
        write_secret(&target, &identity.key.to_pem())?;
    }
    for (name, text) in [(CERTIFICATE, identity.certificate.to_pem()), (ROOT, identity.trust.to_pem())] {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| write_error(&path, &error))?;
    }
    Ok(identity)
}

/// Writes a request for the certificate that follows the one of an identity, directory or file. With
/// `new_key` a key is made there, which takes the place of the present one.
///
/// # Errors
/// Names the file and what is wrong with it.
pub fn write_renewal(
    identity: &Path,
    out: &Path,
    new_key: Option<&Path>,
    unix: u64,
) -> Result<(), FileError> {
    let (key, certificate) = parts(identity);
    let own = read_key(&key)?;
    let old = parse(&certificate, HandleCertificate::from_pem)?;
    check_key(&own, &old)?;
    let fresh = new_key.map(create_key).transpose()?;
    let content = |error| FileError::Content { path: certificate.clone(), error };
    let request = Renewal::new(&Credential::Handle(old), &own, fresh.as_ref(), unix).map_err(content)?;
    fs::write(out, request.to_pem()).map_err(|error| write_error(out, &error))
}

/// Puts a renewed certificate into an identity, directory or file, after checking it. Whoever reads
/// the identity meanwhile finds the old certificate or the new one.
///
/// # Errors
/// Names the file and what is wrong with it; the identity is as it was then.
pub fn update(
    identity: &Path,
    certificate: &Path,
    root: Option<&Path>,
    unix: u64,
) -> Result<Identity, FileError> {
    let mut known = Identity::read(identity, root, unix)?;
    let fresh = parse(certificate, HandleCertificate::from_pem)?;
    let (handle, found) = (known.certificate.claims().handle.clone(), fresh.claims().handle.clone());
    if handle != found {
        return Err(FileError::OtherHandle { handle, found });
    }
    check_key(&known.key, &fresh)?;
    let content = |error| FileError::Content { path: certificate.into(), error };
    fresh.verify(&known.trust, &known.revocations, unix).map_err(content)?;
    known.certificate = fresh;
    let (key, certificate) = parts(identity);
    let text = if key == certificate {
        UserBundle { key: known.key.clone(), certificate: known.certificate.clone() }.to_pem()
    } else {
        known.certificate.to_pem()
    };
    files::replace(&certificate, text.as_bytes())?;
    Ok(known)
}

/// Puts the assignments of numbers of a file into an identity, directory or file, after checking them.
/// Those of the same numbers give way.
///
/// # Errors
/// Names the file and what is wrong with it; the identity is as it was then.
pub fn import_number(
    identity: &Path,
    number: &Path,
    root: Option<&Path>,
    unix: u64,
) -> Result<Identity, FileError> {
    let mut known = Identity::read(identity, root, unix)?;
    let content = |error| FileError::Content { path: number.into(), error };
    let fresh = parse(number, NumberAssignment::all_from_pem)?;
    if fresh.is_empty() {
        return Err(content(IdentityError::MissingPem { label: "CAUSEWAY NUMBER ASSIGNMENT" }));
    }
    let handle = &known.certificate.claims().handle;
    for assignment in fresh {
        let verified = assignment.verify(&known.trust, &known.revocations, unix).map_err(content)?;
        if verified.claims.handle != *handle {
            return Err(FileError::OtherOwner { handle: handle.clone(), found: verified.claims.handle });
        }
        known.numbers.retain(|held| held.claims().number != verified.claims.number);
        known.numbers.push(assignment);
    }
    let directory = if identity.is_file() { identity.parent().unwrap_or(Path::new("")) } else { identity };
    let text: String = known.numbers.iter().map(NumberAssignment::to_pem).collect();
    files::replace(&directory.join(NUMBERS), text.as_bytes())?;
    Ok(known)
}

/// Returns the files of the key and of the certificate of an identity.
fn parts(identity: &Path) -> (PathBuf, PathBuf) {
    if identity.is_file() {
        (identity.to_owned(), identity.to_owned())
    } else {
        (identity.join(KEY), identity.join(CERTIFICATE))
    }
}

fn check_key(key: &NodeKey, certificate: &HandleCertificate) -> Result<(), FileError> {
    if certificate.claims().keys.contains(&key.public()) {
        return Ok(());
    }
    let handle = certificate.claims().handle.clone();
    Err(FileError::OtherKey { handle, public_key: public_key_text(key) })
}

/// Returns a public key as 64 hexadecimal digits.
pub fn public_key_text(key: &NodeKey) -> String {
    key.public().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a key file that only its owner can read.
///
/// # Errors
/// When it cannot be read, others can read it, or it holds no key.
pub fn read_key(path: &Path) -> Result<NodeKey, FileError> {
    let metadata = fs::metadata(path).map_err(|error| read_error(path, &error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.into(), mode });
    }
    parse(path, NodeKey::from_pem)
}

fn parse<T>(path: &Path, from_pem: impl Fn(&str) -> Result<T, IdentityError>) -> Result<T, FileError> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| read_error(path, &error))?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(|error| read_error(path, &error))?;
    from_pem(&text).map_err(|error| FileError::Content { path: path.into(), error })
}

fn write_secret(path: &Path, text: &str) -> Result<(), FileError> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|error| write_error(path, &error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| write_error(path, &error))
}

fn read_error(path: &Path, error: &std::io::Error) -> FileError {
    FileError::Read { path: path.into(), reason: error.to_string() }
}

fn write_error(path: &Path, error: &std::io::Error) -> FileError {
    FileError::Write { path: path.into(), reason: error.to_string() }
}
