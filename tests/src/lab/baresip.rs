//! baresip as a SIP telephone: the peer that is left where Asterisk cannot be had.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddrV4, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::{Process, ports, scripts, until};
use crate::audio::{Audio, read_wav};

/// A running baresip that sends all calls to one peer.
#[derive(Debug)]
pub struct Baresip {
    process: Process,
    folder: PathBuf,
    sip: SocketAddrV4,
    control: TcpStream,
    read: Vec<u8>,
}

/// What may differ between instances.
#[derive(Debug, Clone)]
pub struct BaresipOptions {
    /// Where it listens: SIP over UDP.
    pub sip: SocketAddrV4,
    /// The SIP socket its calls go to.
    pub peer: SocketAddrV4,
    /// `pcma`, `pcmu` or `opus`.
    pub codec: &'static str,
    /// Whether calls to it are answered at once.
    pub answers: bool,
    /// The user part of its address: a number or a name.
    pub user: String,
    /// With a password it registers at its peer, as this user.
    pub password: Option<String>,
    /// What it says: an 8 kHz mono wav file, played over and over.
    pub wav: PathBuf,
}

impl BaresipOptions {
    /// A phone that speaks A-law and answers at once. It is on 127.0.0.1, since this phone sends its RTP from there
    /// whatever it announces.
    #[must_use]
    pub fn new(peer: SocketAddrV4, wav: &Path) -> Self {
        Self {
            sip: SocketAddrV4::new(Ipv4Addr::LOCALHOST, ports::port(Ipv4Addr::LOCALHOST)),
            peer,
            codec: "pcma",
            answers: true,
            user: "+15550001000".to_owned(),
            password: None,
            wav: wav.to_path_buf(),
        }
    }
}

impl Baresip {
    /// Installs baresip if need be and starts an instance. `folder` keeps its configuration, logs and recordings.
    ///
    /// # Errors
    /// When it cannot be had or does not start; tells why.
    pub fn start(folder: &Path, options: &BaresipOptions) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let program = scripts().join("baresip.sh");
        let install = Command::new(&program).arg("install").output().context("baresip.sh")?;
        ensure!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let control = ports::port(*options.sip.ip());
        let mut command = Command::new(&program);
        command
            .arg("run")
            .arg(&folder)
            .env("PHONE_ADDRESS", options.sip.ip().to_string())
            .env("PHONE_PORT", options.sip.port().to_string())
            .env("PHONE_CONTROL", control.to_string())
            .env("PHONE_PEER", options.peer.to_string())
            .env("PHONE_CODEC", options.codec)
            .env("PHONE_ANSWER", if options.answers { "auto" } else { "manual" })
            .env("PHONE_USER", &options.user)
            .env("PHONE_PASSWORD", options.password.as_deref().unwrap_or_default())
            .env("PHONE_WAV", options.wav.canonicalize()?);
        let process = Process::spawn("baresip", &folder, &command)?;
        let control = until("baresip is up", Duration::from_secs(10), || {
            TcpStream::connect((*options.sip.ip(), control)).ok()
        })
        .with_context(|| process.output() + &process.errors())?;
        control.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(Self { process, folder, sip: options.sip, control, read: Vec::new() })
    }

    /// Where it speaks SIP.
    #[must_use]
    pub fn sip(&self) -> SocketAddrV4 {
        self.sip
    }

    /// Calls a SIP URI.
    ///
    /// # Errors
    /// When the control socket is closed or the command is refused.
    pub fn dial(&mut self, uri: &str) -> Result<()> {
        self.command("dial", uri)
    }

    /// Answers the call that rings.
    ///
    /// # Errors
    /// As [`Baresip::dial`].
    pub fn accept(&mut self) -> Result<()> {
        self.command("accept", "")
    }

    /// Sends one digit.
    ///
    /// # Errors
    /// As [`Baresip::dial`].
    pub fn press(&mut self, digit: char) -> Result<()> {
        self.command("sndcode", &digit.to_string())
    }

    /// Holds the other side, or takes it back.
    ///
    /// # Errors
    /// As [`Baresip::dial`].
    pub fn hold(&mut self, on: bool) -> Result<()> {
        self.command(if on { "hold" } else { "resume" }, "")
    }

    /// Ends the call.
    ///
    /// # Errors
    /// As [`Baresip::dial`].
    pub fn hang_up(&mut self) -> Result<()> {
        self.command("hangup", "")
    }

    /// Waits for an event of the given type, `CALL_ESTABLISHED` or `CALL_CLOSED` for example. Events before it are
    /// passed over. A phone that answers at once says nothing of calls coming in.
    ///
    /// # Errors
    /// When there is none within `limit`; tells what the phone printed.
    pub fn wait_for_event(&mut self, kind: &str, limit: Duration) -> Result<Value> {
        until(kind, limit, || {
            while let Ok(Some(message)) = self.message() {
                if message["event"] == true && message["type"] == kind {
                    return Some(message);
                }
            }
            None
        })
        .with_context(|| self.process.output())
    }

    /// What it heard, one recording per call, oldest first. Complete once the call has ended.
    ///
    /// # Errors
    /// When a recording cannot be read.
    pub fn heard(&self) -> Result<Vec<Audio>> {
        let mut files: Vec<_> = fs::read_dir(&self.folder)?.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.to_string_lossy().ends_with("-dec.wav"));
        files.sort();
        files.iter().map(|path| read_wav(path)).collect()
    }

    /// All it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.output()
    }

    fn command(&mut self, command: &str, parameters: &str) -> Result<()> {
        let text = json!({ "command": command, "params": parameters, "token": "lab" }).to_string();
        write!(self.control, "{}:{text},", text.len())?;
        let answer = until(&format!("answer to {command}"), Duration::from_secs(5), || {
            while let Ok(Some(message)) = self.message() {
                if message["response"] == true {
                    return Some(message);
                }
            }
            None
        })?;
        ensure!(answer["ok"] == true, "{command} {parameters}: {answer}");
        Ok(())
    }

    /// The next message of the control socket, a netstring of JSON; `None` while there is none.
    fn message(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(colon) = self.read.iter().position(|&byte| byte == b':') {
                let length: usize = std::str::from_utf8(&self.read[..colon])?.parse()?;
                if let Some(body) = self.read.get(colon + 1..colon + 1 + length) {
                    let message = serde_json::from_slice(body)?;
                    self.read.drain(..(colon + 2 + length).min(self.read.len()));
                    return Ok(Some(message));
                }
            }
            let mut bytes = [0; 4096];
            match self.control.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(count) => self.read.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
