//! The files of an identity on disk: backed up into one encrypted file, and restored from it.
//!
//! Beside the node this is the only part of the crate that touches the world outside.
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::identity::{
    BackupCost, BackupError, BackupFiles, BackupRandom, MAX_BACKUP_BYTES, MIN_PASSPHRASE, open_backup,
    seal_backup,
};

/// The longest passphrase that is read, in bytes.
const MAX_PASSPHRASE: u64 = 1024;
/// The longest backup that is read: PEM takes a third more than the bytes, and line ends.
const MAX_BACKUP_TEXT: u64 = MAX_BACKUP_BYTES as u64 * 3 / 2;

/// Says what went wrong with a file of an identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The system refused it.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file is in the way.
    #[error("{path} exists: move it away first, or write elsewhere")]
    Exists {
        /// The file or folder.
        path: PathBuf,
    },
    /// There is no key to back up.
    #[error(
        "{path} holds no `PRIVATE KEY`: name an identity file, an identity folder or that of an authority"
    )]
    NoKey {
        /// What was to be backed up.
        path: PathBuf,
    },
    /// Others can read the passphrase.
    #[error("{path} can be read by others (mode {mode:03o}): run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The backup cannot be made or opened.
    #[error("{path}: {error}")]
    Backup {
        /// The backup.
        path: PathBuf,
        /// What is wrong.
        error: BackupError,
    },
    /// The random source of the system failed.
    #[error("the system gives no random numbers")]
    Random,
}

/// Encrypts an identity file, or all files of a folder, into one new file. It is read back and
/// opened before this returns. Returns the names of the files in it.
///
/// # Errors
/// Names the file and the remedy. No file is left behind where none was written whole.
pub fn back_up(
    source: &Path,
    out: &Path,
    passphrase: &str,
    cost: BackupCost,
) -> Result<Vec<String>, FilesError> {
    let files = collect(source)?;
    let mut random = BackupRandom { salt: [0; 16], nonce: [0; 24] };
    let drawn = getrandom::fill(&mut random.salt).and_then(|()| getrandom::fill(&mut random.nonce));
    drawn.map_err(|_| FilesError::Random)?;
    let refused = |error| FilesError::Backup { path: out.into(), error };
    let text = seal_backup(&files, passphrase, cost, random).map_err(refused)?;
    write_new(out, text.as_bytes())?;
    let opened = read_backup(out, passphrase)?;
    if opened != files {
        return Err(refused(BackupError::Malformed));
    }
    Ok(files.into_keys().collect())
}

/// Writes the files of a backup into a new folder that only its owner can read, all or none.
/// Returns their names.
///
/// # Errors
/// `Exists` where the folder holds anything already; otherwise names the file and the remedy.
pub fn restore(backup: &Path, into: &Path, passphrase: &str) -> Result<Vec<String>, FilesError> {
    let occupied = match fs::read_dir(into) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if occupied {
        return Err(FilesError::Exists { path: into.into() });
    }
    let files = read_backup(backup, passphrase)?;
    let part = beside(into);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&part);
    made.map_err(|error| io(&part, error))?;
    let written = files.iter().try_for_each(|(name, contents)| write_new(&part.join(name), contents));
    // A rename takes the place of an empty folder.
    let moved = written.and_then(|()| fs::rename(&part, into).map_err(|error| io(into, error)));
    if moved.is_err() {
        // What is left of it holds keys.
        let _ = fs::remove_dir_all(&part);
    }
    moved.map(|()| files.into_keys().collect())
}

/// Reads the passphrase that is the first line of a file.
///
/// # Errors
/// `Exposed` where others than its owner can read the file.
pub fn read_passphrase(file: &Path) -> Result<Zeroizing<String>, FilesError> {
    let metadata = fs::metadata(file).map_err(|error| io(file, error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(FilesError::Exposed { path: file.into(), mode });
    }
    let mut text = Zeroizing::new(String::new());
    let opened = fs::File::open(file).map_err(|error| io(file, error))?;
    opened.take(MAX_PASSPHRASE).read_to_string(&mut text).map_err(|error| io(file, error))?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

/// Asks for a passphrase by `prompt`, or reads it from a file where one is named; with `twice` it
/// is for a new backup and asked for again.
///
/// # Errors
/// As [`read_passphrase`], and what `prompt` says.
pub fn passphrase(
    file: Option<&Path>,
    twice: bool,
    prompt: impl Fn(&str) -> std::io::Result<String>,
) -> Result<Zeroizing<String>, FilesError> {
    if let Some(file) = file {
        return read_passphrase(file);
    }
    let terminal = |error| io(Path::new("the terminal"), error);
    let ask = |text: String| prompt(&text).map(Zeroizing::new).map_err(terminal);
    if !twice {
        return ask("Passphrase of the backup: ".to_owned());
    }
    let first = ask(format!("Passphrase for the backup, {MIN_PASSPHRASE} characters or more: "))?;
    if *ask("The same again: ".to_owned())? == *first {
        return Ok(first);
    }
    Err(terminal(std::io::Error::other("the two differ: try again")))
}

fn read_backup(file: &Path, passphrase: &str) -> Result<BackupFiles, FilesError> {
    let opened = fs::File::open(file).map_err(|error| io(file, error))?;
    let mut bytes = Vec::new();
    opened.take(MAX_BACKUP_TEXT + 1).read_to_end(&mut bytes).map_err(|error| io(file, error))?;
    let refused = |error| FilesError::Backup { path: file.into(), error };
    let text = std::str::from_utf8(&bytes).map_err(|_| refused(BackupError::Malformed))?;
    open_backup(text, passphrase).map_err(refused)
}

/// Reads what is to be backed up: one file, or every file of a folder but hidden ones.
fn collect(source: &Path) -> Result<BackupFiles, FilesError> {
    let metadata = fs::metadata(source).map_err(|error| io(source, error))?;
    let mut paths = Vec::new();
    if metadata.is_dir() {
        for entry in fs::read_dir(source).map_err(|error| io(source, error))? {
            let path = entry.map_err(|error| io(source, error))?.path();
            let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if path.is_file() && !hidden {
                paths.push(path);
            }
        }
    } else {
        paths.push(source.to_owned());
    }
    let mut files = BackupFiles::new();
    let mut size = 0;
    for path in paths {
        let mut contents = Zeroizing::new(Vec::new());
        let file = fs::File::open(&path).map_err(|error| io(&path, error))?;
        let most = (MAX_BACKUP_BYTES + 1) as u64;
        file.take(most).read_to_end(&mut contents).map_err(|error| io(&path, error))?;
        size += contents.len();
        if size > MAX_BACKUP_BYTES {
            return Err(FilesError::Backup { path, error: BackupError::Oversize });
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(name, contents);
    }
    const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----";
    if files.values().any(|contents| contents.windows(KEY.len()).any(|window| window == KEY)) {
        return Ok(files);
    }
    Err(FilesError::NoKey { path: source.into() })
}

/// Writes a file that did not exist, readable by its owner only, down to the disk.
fn write_new(path: &Path, contents: &[u8]) -> Result<(), FilesError> {
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => FilesError::Exists { path: path.into() },
        _ => io(path, error),
    })?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    written.map_err(|error| {
        let _ = fs::remove_file(path);
        io(path, error)
    })
}

/// Takes the place of a file at once: whoever reads it finds the old contents or the new. The new
/// file is readable by its owner only.
///
/// # Errors
/// What the system refused; the old file is as it was then.
pub fn replace(path: &Path, contents: &[u8]) -> Result<(), FilesError> {
    let part = beside(path);
    // Left behind by one that was interrupted.
    let _ = fs::remove_file(&part);
    write_new(&part, contents)?;
    fs::rename(&part, path).map_err(|error| io(path, error))
}

/// A name next to a path, for what is not whole yet.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

fn io(path: &Path, error: std::io::Error) -> FilesError {
    FilesError::Io { path: path.into(), error }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CHEAP: BackupCost = BackupCost { memory_kib: 64, passes: 1 };
    const PHRASE: &str = "correct horse battery staple";

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn identity(folder: &Path) -> String {
        let key = crate::testing::key(7).to_pem();
        fs::write(folder.join("key.pem"), &key).unwrap();
        fs::write(folder.join("serial"), "9\n").unwrap();
        fs::create_dir(folder.join("more")).unwrap();
        key
    }

    #[test]
    fn a_folder_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let key = identity(folder.path());
        let (out, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let backup = out.path().join("authority.backup");
        assert_eq!(back_up(folder.path(), &backup, PHRASE, CHEAP).unwrap(), ["key.pem", "serial"]);
        assert!(!fs::read_to_string(&backup).unwrap().contains("PRIVATE KEY"));
        assert_eq!(mode(&backup), 0o600);
        let target = into.path().join("restored");
        assert_eq!(restore(&backup, &target, PHRASE).unwrap(), ["key.pem", "serial"]);
        assert_eq!(fs::read_to_string(target.join("key.pem")).unwrap(), key);
        assert_eq!((mode(&target), mode(&target.join("key.pem"))), (0o700, 0o600));
        // Neither a backup nor a folder is ever overwritten.
        assert!(matches!(back_up(folder.path(), &backup, PHRASE, CHEAP), Err(FilesError::Exists { .. })));
        assert!(matches!(restore(&backup, &target, PHRASE), Err(FilesError::Exists { .. })));
    }

    #[test]
    fn a_wrong_passphrase_leaves_nothing_behind() {
        let (folder, into) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        identity(folder.path());
        let backup = into.path().join("b");
        let weak = back_up(folder.path(), &backup, "short", CHEAP).unwrap_err();
        assert!(weak.to_string().contains("fewer than 12 characters") && !backup.exists(), "{weak}");
        back_up(folder.path(), &backup, PHRASE, CHEAP).unwrap();
        let wrong = restore(&backup, &into.path().join("r"), "another long passphrase").unwrap_err();
        assert!(wrong.to_string().contains("does not fit"), "{wrong}");
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), 1, "the backup alone");
        let none = back_up(into.path(), &into.path().join("c"), PHRASE, CHEAP).unwrap_err();
        assert!(matches!(none, FilesError::NoKey { .. }), "{none}");
    }

    #[test]
    fn a_passphrase_is_read_from_where_nobody_else_reads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("passphrase");
        fs::write(&file, format!("{PHRASE}\nnot this\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_passphrase(&file), Err(FilesError::Exposed { mode: 0o640, .. })));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(*read_passphrase(&file).unwrap(), PHRASE);
        // One that is mistyped once would lock the backup for ever.
        let typed = std::cell::Cell::new(0);
        let differing = passphrase(None, true, |_| {
            typed.set(typed.get() + 1);
            Ok(format!("{PHRASE}{}", typed.get()))
        });
        assert!(differing.is_err_and(|error| error.to_string().contains("differ")));
        assert_eq!(*passphrase(None, true, |_| Ok(PHRASE.to_owned())).unwrap(), PHRASE);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.pem");
        fs::write(&file, "old").unwrap();
        replace(&file, b"new").unwrap();
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), ("new", 0o600));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
