//! The signed list of the package, and the file of good peers.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::super::task::unix_now;
use crate::bootstrap::GoodPeers;
use crate::identity::{BootstrapList, SignedBootstrap, Trust};

/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Reads a signed list and verifies it. What is wrong with it is logged: other ways may work.
pub(super) fn read_list(file: &Path, trust: &Trust, unix: u64) -> Result<BootstrapList, ()> {
    let refused = |reason: String| {
        tracing::warn!(file = %file.display(), reason, "the bootstrap list is not used");
    };
    let text = read(file).map_err(|error| refused(error.to_string()))?;
    let signed = SignedBootstrap::from_pem(&text).map_err(|error| refused(error.to_string()))?;
    signed.verify(trust, unix).cloned().map_err(|error| refused(error.to_string()))
}

/// Reads good peers. A file that is not there is no fault, and one that is damaged costs what is
/// damaged of it.
pub(super) fn read_peers(file: &Path) -> GoodPeers {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return GoodPeers::default(),
        Err(error) => {
            let file = file.display();
            tracing::warn!(%file, %error, "the file of good peers cannot be read: it is written anew");
            return GoodPeers::default();
        }
    };
    let (peers, unread) = GoodPeers::from_text(&text, unix_now());
    if unread > 0 {
        let (file, read) = (file.display(), peers.len());
        tracing::warn!(%file, read, unread, "the file of good peers is damaged: what can be read is used");
    }
    peers
}

/// Reads a file as text, whatever its bytes are.
fn read(file: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes good peers so that at every moment either the old file is there or the new one, whole.
pub(super) fn write_peers(file: &Path, text: &str) {
    if let Err(error) = replace(file, text) {
        let file = file.display();
        tracing::warn!(%file, %error, "good peers could not be written: check the folder and its permissions");
    }
}

fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let mut name: OsString = file.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = PathBuf::from(name);
    let written = File::create(&part).and_then(|mut opened| {
        opened.write_all(text.as_bytes())?;
        opened.sync_all()
    });
    written.and_then(|()| fs::rename(&part, file)).inspect_err(|_| {
        // Errs when it was not made at all.
        let _ = fs::remove_file(&part);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use libp2p::PeerId;

    use super::*;
    use crate::identity::Validity;
    use crate::testing::Pki;

    #[test]
    fn good_peers_survive_a_restart_and_a_file_that_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("peers");
        assert!(read_peers(&file).is_empty(), "the first start");
        let mut good = GoodPeers::default();
        for n in 1..=3 {
            good.succeeded(PeerId::random(), &[format!("/ip4/192.0.2.{n}/tcp/1").parse().unwrap()], 1000);
        }
        write_peers(&file, &good.to_text());
        assert_eq!(read_peers(&file), good);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] = 0xff;
        fs::write(&file, &bytes).unwrap();
        assert_eq!(read_peers(&file).len(), 2);
        fs::write(&file, [0xff; 100]).unwrap();
        assert!(read_peers(&file).is_empty());
        // A folder that is not there: it is said in the log, and that is all.
        write_peers(&folder.path().join("none/peers"), "x");
        assert!(read_peers(folder.path()).is_empty());
    }

    #[test]
    fn a_list_is_used_only_as_the_root_has_signed_it() {
        let now = unix_now();
        let pki = Pki::new(now).unwrap();
        let list = BootstrapList::new(1, Validity::days_from(now - 60, 9), &[], &[], &[]).unwrap();
        let signed = pki.root.sign_bootstrap(list.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list.pem");
        let trust = pki.trust().unwrap();
        assert!(read_list(&file, &trust, now).is_err(), "there is none");
        fs::write(&file, signed.to_pem()).unwrap();
        assert_eq!(read_list(&file, &trust, now), Ok(list));
        assert!(read_list(&file, &trust, now + 10 * 86_400).is_err(), "it has ended");
        fs::write(&file, "rubbish").unwrap();
        assert!(read_list(&file, &trust, now).is_err());
    }
}
