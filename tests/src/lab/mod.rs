//! The laboratory: real programs on loopback, each owned by the test that started it.

mod asterisk;
mod baresip;
mod certificates;
mod kamailio;
mod natlab;
mod network;
pub mod nodes;
pub mod overlay;
pub mod peer;
mod phone;
pub mod ports;
mod process;
mod real_time;
mod sipp;
mod site;
pub mod usage;

pub use asterisk::{Asterisk, AsteriskOptions, AsteriskTls, HeardDigit, Originate};
pub use baresip::{Baresip, BaresipOptions};
pub use certificates::TlsAuthority;
pub use kamailio::Kamailio;
pub use natlab::{Host, NatLab};
pub use network::{Network, Plan};
pub use phone::{Phone, PhoneOptions};
pub use process::{Process, Signal, until};
pub use real_time::{Disturbance, Watch, in_real_time};
pub use sipp::Sipp;
pub use site::{Authority, Credential, Daemon, DaemonOptions, TrunkOptions};

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::audio::{Audio, read_wav};

/// A language of the recorded speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// American English; what [`Asterisk`] plays.
    English,
    /// Canadian French.
    French,
    /// Italian.
    Italian,
}

/// A folder for one test's files. It goes when the test is over, but stays, and says where, when the test fails.
#[derive(Debug)]
pub struct Folder(Option<tempfile::TempDir>);

impl Folder {
    /// Makes an empty folder.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        Ok(Self(Some(tempfile::Builder::new().prefix(&format!("causeway-{name}-")).tempdir()?)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.as_ref().map_or(Path::new(""), tempfile::TempDir::path)
    }

    /// Leaves it where it is, for somebody to read.
    pub fn keep(mut self) {
        if let Some(folder) = self.0.take() {
            eprintln!("the files are kept in {}", folder.keep().display());
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("the files of this test are kept in {}", folder.keep().display());
        }
    }
}

/// The folder of the laboratory's scripts.
#[must_use]
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab")
}

/// The path of 14 s of recorded human speech: 8 kHz, 16 bit, mono. Fetched on first use.
///
/// # Errors
/// When it is not in the cache and cannot be fetched.
pub fn speech_file(language: Speech) -> Result<PathBuf> {
    let name = match language {
        Speech::English => "en",
        Speech::French => "fr",
        Speech::Italian => "it",
    };
    let output =
        Command::new(scripts().join("speech.sh")).args(["path", name]).output().context("speech.sh")?;
    ensure!(output.status.success(), "speech.sh: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// The samples of [`speech_file`].
///
/// # Errors
/// As [`speech_file`].
pub fn speech(language: Speech) -> Result<Audio> {
    read_wav(&speech_file(language)?)
}

/// The path of one of the product's programs, built as it is in the tree now.
///
/// `CAUSEWAY_BIN` names a folder to take the programs from instead; nothing is built then.
///
/// # Errors
/// When the build fails or there is no such program.
pub fn binary(name: &str) -> Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER
        .get_or_init(|| match std::env::var_os("CAUSEWAY_BIN") {
            Some(folder) => Ok(PathBuf::from(folder)),
            None => build().map_err(|error| format!("{error:#}")),
        })
        .as_ref()
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is not built", path.display());
    Ok(path)
}

/// Builds the programs into the folder this test itself was built into, with its profile, and returns that folder.
fn build() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let mut folder = test.parent().context("no folder")?;
    if folder.ends_with("deps") {
        folder = folder.parent().context("no folder")?;
    }
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.args(["build", "--quiet", "--bins", "-p", "gateway", "-p", "peer"]);
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", folder.parent().context("no target")?);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    let output = cargo.output().context("cargo")?;
    if !output.status.success() {
        bail!("cargo build: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(folder.to_path_buf())
}

/// Says what is being done, does it, and says how long it took.
///
/// # Errors
/// What `act` says.
#[allow(clippy::print_stdout, reason = "who waits wants to see what for")]
pub fn step<T>(what: &str, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    print!("  {what} ... ");
    // A terminal that is gone stops the printing, not what is done.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    let began = std::time::Instant::now();
    match act() {
        Ok(done) => {
            println!("{:.1} s", began.elapsed().as_secs_f64());
            Ok(done)
        }
        Err(error) => {
            println!("failed");
            Err(error)
        }
    }
}
