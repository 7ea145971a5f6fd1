//! Asterisk as the PBX behind the trunk.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::natlab::command_on;
use super::{Host, Process, ports, scripts, until};
use crate::audio::{Audio, read_wav};

/// A running Asterisk with one trunk, `causeway`. Its extensions are in `tests/lab/asterisk/extensions.conf`.
#[derive(Debug)]
pub struct Asterisk {
    process: Process,
    folder: PathBuf,
    address: Ipv4Addr,
    environment: Vec<(&'static str, String)>,
}

/// What may differ between instances.
#[derive(Debug, Clone)]
pub struct AsteriskOptions {
    /// Where it listens; port 5060 over UDP and TCP.
    pub address: Ipv4Addr,
    /// The SIP socket of the gateway: calls go there, and requests from its address belong to the trunk.
    pub gateway: SocketAddrV4,
    /// What calls to the gateway go over: `udp`, `tcp` or `tls`.
    pub transport: &'static str,
    /// Its certificate, for `tls` on port 5061.
    pub tls: Option<AsteriskTls>,
    /// Codecs of the trunk in order of preference, in Asterisk's words.
    pub codecs: &'static str,
    /// Digest credentials the gateway must show: user name and password.
    pub credentials: Option<(String, String)>,
    /// An account that may be registered: user name and password.
    pub account: Option<(String, String)>,
    /// Where every call from the gateway's address goes on to, instead of to the extensions; it logs little then.
    pub relay_to: Option<SocketAddrV4>,
    /// The host of a laboratory that it runs on.
    pub host: Option<Host>,
}

/// The certificate of an Asterisk.
#[derive(Debug, Clone)]
pub struct AsteriskTls {
    /// PEM file of the certificate.
    pub certificate: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
    /// PEM file of the authority of whoever it talks to.
    pub ca: PathBuf,
    /// Whether those that come must show a certificate.
    pub mutual: bool,
}

impl AsteriskOptions {
    /// An instance on an address of its own with A-law before mu-law and no authentication.
    #[must_use]
    pub fn new(gateway: SocketAddrV4) -> Self {
        Self {
            address: ports::address(),
            gateway,
            transport: "udp",
            tls: None,
            codecs: "alaw,ulaw",
            credentials: None,
            account: None,
            relay_to: None,
            host: None,
        }
    }
}

/// A call Asterisk places.
#[derive(Debug, Clone)]
pub struct Originate<'a> {
    /// The user part of the request URI sent to the gateway: a number or a handle.
    pub to: &'a str,
    /// The caller's number.
    pub caller: &'a str,
    /// The extension the called party is connected to once it answers.
    pub extension: &'a str,
    /// How long it may ring.
    pub ring: Duration,
}

/// One digit that Asterisk received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardDigit {
    /// The key.
    pub digit: char,
    /// How long it was held.
    pub duration_ms: u32,
}

impl Asterisk {
    /// Fetches Asterisk if need be and starts an instance. `folder` keeps its configuration, logs and recordings.
    ///
    /// # Errors
    /// When it cannot be had or does not start; tells why.
    pub fn start(folder: &Path, options: &AsteriskOptions) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let mut environment = vec![
            ("ASTERISK_ADDRESS", options.address.to_string()),
            ("GATEWAY_ADDRESS", options.gateway.ip().to_string()),
            ("GATEWAY_PORT", options.gateway.port().to_string()),
            ("TRUNK_TRANSPORT", options.transport.to_owned()),
            ("TRUNK_CODECS", options.codecs.to_owned()),
        ];
        if let Some((user, password)) = &options.credentials {
            environment.push(("TRUNK_USER", user.clone()));
            environment.push(("TRUNK_PASSWORD", password.clone()));
        }
        if let Some(tls) = &options.tls {
            let path = |path: &Path| path.display().to_string();
            environment.push(("TLS_CERTIFICATE", path(&tls.certificate)));
            environment.push(("TLS_KEY", path(&tls.key)));
            environment.push(("TLS_CA", path(&tls.ca)));
            environment.push(("TLS_MUTUAL", if tls.mutual { "yes" } else { "no" }.to_owned()));
        }
        if let Some((user, password)) = &options.account {
            environment.push(("ACCOUNT_USER", user.clone()));
            environment.push(("ACCOUNT_PASSWORD", password.clone()));
        }
        if let Some(to) = options.relay_to {
            environment.push(("RELAY_TO", to.to_string()));
            environment.push(("ASTERISK_RTP", "20000-29999".to_owned()));
        }
        // Fetching may take minutes; only starting is held to a time.
        let install = script("install", None, &environment).output().context("asterisk.sh")?;
        ensure!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let run = script("run", Some(&folder), &environment);
        let mut command = command_on(options.host.as_ref(), run.get_program());
        command.args(run.get_args()).envs(run.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let process = Process::spawn("asterisk", &folder, &command)?;
        let mut asterisk = Self { process, folder, address: options.address, environment };
        until("Asterisk is up", Duration::from_secs(20), || {
            let down = !asterisk.process.is_running();
            let up = asterisk.cli("core waitfullybooted").is_ok_and(|said| said.contains("fully booted"));
            (up || down).then_some(())
        })?;
        ensure!(asterisk.process.is_running(), "Asterisk ended: {}", asterisk.log());
        Ok(asterisk)
    }

    /// The telephone number that reaches `extension`: `620` is +15550000620.
    #[must_use]
    pub fn number(extension: &str) -> String {
        format!("+1555{extension:0>7}")
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where it speaks SIP.
    #[must_use]
    pub fn sip(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, 5060)
    }

    /// Where it keeps its files: `log/messages` above all.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.folder.join("log/messages")).unwrap_or_default();
        if log.is_empty() { self.process.errors() } else { log }
    }

    /// Runs a command of its console and returns what it said.
    ///
    /// # Errors
    /// When the console cannot be reached.
    pub fn cli(&self, command: &str) -> Result<String> {
        let output = script("cli", Some(&self.folder), &self.environment).arg(command).output()?;
        ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Turns the log of SIP messages on.
    ///
    /// # Errors
    /// As [`Asterisk::cli`].
    pub fn trace_sip(&self) -> Result<()> {
        self.cli("pjsip set logger on").map(|_| ())
    }

    /// Places a call to the gateway. Returns as soon as it is under way.
    ///
    /// # Errors
    /// When the call file cannot be written.
    pub fn originate(&self, call: &Originate<'_>) -> Result<()> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let name = format!("call-{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let text = format!(
            "Channel: PJSIP/{}@causeway\nCallerID: <{}>\nContext: lab\nExtension: {}\nPriority: 1\nMaxRetries: 0\nWaitTime: {}\nArchive: yes\n",
            call.to,
            call.caller,
            call.extension,
            call.ring.as_secs()
        );
        // Written elsewhere and moved, so that it is never seen half written.
        let draft = self.folder.join("spool/tmp").join(&name);
        fs::write(&draft, text)?;
        Ok(fs::rename(draft, self.folder.join("spool/outgoing").join(&name))?)
    }

    /// The number of channels up now.
    ///
    /// # Errors
    /// As [`Asterisk::cli`], or when the answer is not understood.
    pub fn channels(&self) -> Result<usize> {
        let said = self.cli("core show channels count")?;
        let line =
            said.lines().find(|line| line.contains("active channel")).context("no count of channels")?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
    }

    /// Hangs up all calls.
    ///
    /// # Errors
    /// As [`Asterisk::cli`].
    pub fn hang_up_all(&self) -> Result<()> {
        self.cli("channel request hangup all").map(|_| ())
    }

    /// The digits received so far on all calls, in order.
    #[must_use]
    pub fn digits(&self) -> Vec<HeardDigit> {
        let log = fs::read_to_string(self.folder.join("log/dtmf")).unwrap_or_default();
        log.lines().filter_map(heard_digit).collect()
    }

    /// What callers of `extension` said: one finished recording per call, oldest first.
    ///
    /// # Errors
    /// When there are not `count` of them within `limit`.
    pub fn recordings(&self, extension: &str, count: usize, limit: Duration) -> Result<Vec<Audio>> {
        let paths = until(&format!("{count} recordings of {extension}"), limit, || {
            let paths = self.recording_files(extension);
            // Asterisk writes the length into the header when it closes the file.
            let finished = |path: &PathBuf| read_wav(path).is_ok_and(|audio| !audio.samples.is_empty());
            (paths.len() >= count && paths.iter().all(finished) && self.channels().is_ok_and(|n| n == 0))
                .then_some(paths)
        })?;
        paths.iter().map(|path| read_wav(path)).collect()
    }

    /// Seconds of processor time used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.process.cpu_seconds()
    }

    fn recording_files(&self, extension: &str) -> Vec<PathBuf> {
        let start = format!("{extension}-");
        let mut files: Vec<_> = fs::read_dir(self.folder.join("recordings"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&start) && name.ends_with("-in.wav")
            })
            .collect();
        files.sort_by_key(|path| unique_id(path));
        files
    }
}

/// Asterisk's id of the channel a recording is of, from its file name `EXTENSION-CALLER-SECONDS.COUNT-in.wav`.
fn unique_id(path: &Path) -> Option<(u64, u64)> {
    let name = path.file_name()?.to_str()?.strip_suffix("-in.wav")?;
    let (seconds, count) = name.rsplit_once('-')?.1.split_once('.')?;
    Some((seconds.parse().ok()?, count.parse().ok()?))
}

/// Understands `DTMF[123] channel.c: DTMF end '5' received on PJSIP/causeway-00000001, duration 160 ms`.
fn heard_digit(line: &str) -> Option<HeardDigit> {
    let rest = line.split_once("DTMF end '")?.1;
    let digit = rest.chars().next()?;
    let duration = rest.split_once("received on ")?.1.split_once("duration ")?.1;
    Some(HeardDigit { digit, duration_ms: duration.split_whitespace().next()?.parse().ok()? })
}

fn script(verb: &str, folder: Option<&Path>, environment: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(scripts().join("asterisk.sh"));
    command.arg(verb).args(folder).envs(environment.iter().map(|(key, value)| (key, value)));
    command
}
