//! `causeway-peer` as an overlay user's telephone.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::natlab::command_on;
use super::{Credential, Host, Process, binary, ports, until};
use crate::audio::{Audio, read_wav};

/// A running `causeway-peer run`: commands go in and events come out as JSON lines.
#[derive(Debug)]
pub struct Phone {
    process: Process,
    folder: PathBuf,
    /// Lines of its output that were looked at already.
    seen: usize,
}

/// What may differ between telephones.
#[derive(Debug, Clone)]
pub struct PhoneOptions {
    /// Name of its files.
    pub name: String,
    /// Its sockets are on this address.
    pub address: Ipv4Addr,
    /// Multiaddresses of supernodes.
    pub bootstrap: Vec<String>,
    /// Whether it listens itself; otherwise it is reached through a supernode.
    pub listens: bool,
    /// Samples a second of its recordings: 8000, 16000 or 48000.
    pub sample_rate: u32,
    /// The value of `--media-address`; the address above where there is none.
    pub media: Option<String>,
    /// The host of a laboratory that it runs on.
    pub host: Option<Host>,
    /// More arguments, such as `--mode now --echo` for calls coming in.
    pub arguments: Vec<String>,
}

impl PhoneOptions {
    /// A telephone on an address of its own, at 8 kHz, that leaves calls coming in to its owner.
    #[must_use]
    pub fn new(name: &str, bootstrap: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            address: ports::address(),
            bootstrap: bootstrap.to_vec(),
            listens: true,
            sample_rate: 8000,
            media: None,
            host: None,
            arguments: Vec::new(),
        }
    }
}

impl Phone {
    /// Starts it; its files are below `folder`.
    ///
    /// # Errors
    /// When it does not start; tells what it printed.
    pub fn start(folder: &Path, user: &Credential, options: &PhoneOptions) -> Result<Self> {
        let folder = folder.join(&options.name);
        fs::create_dir_all(&folder)?;
        let mut command = command_on(options.host.as_ref(), binary("causeway-peer")?);
        command.arg("run").arg("--identity").arg(&user.identity);
        let address = options.address.to_string();
        command.args(["--media-address", options.media.as_ref().unwrap_or(&address)]);
        command.args(["--sample-rate", &options.sample_rate.to_string()]);
        for address in &options.bootstrap {
            command.args(["--bootstrap", address]);
        }
        if options.listens {
            command.args(["--listen", &format!("/ip4/{}/udp/4001/quic-v1", options.address)]);
        }
        command.args(&options.arguments);
        let process = Process::spawn(&options.name, &folder, &command)?;
        let mut phone = Self { process, folder, seen: 0 };
        phone.wait_for("ready", Duration::from_secs(15))?;
        Ok(phone)
    }

    /// Waits until it has joined the overlay and can be found.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub fn wait_until_online(&mut self, limit: Duration) -> Result<()> {
        self.wait_for("online", limit).map(|_| ())
    }

    /// Gives a command: an object with a `command` and its fields.
    ///
    /// # Errors
    /// When it has ended.
    pub fn command(&mut self, command: &Value) -> Result<()> {
        self.process.send_line(&command.to_string())
    }

    /// Calls a number or handle; plays `play` and records what it hears into the file [`Phone::recording`] reads.
    ///
    /// # Errors
    /// As [`Phone::command`].
    pub fn call(&mut self, to: &str, play: Option<&Path>) -> Result<()> {
        let record = self.folder.join("heard.wav");
        self.command(&json!({ "command": "call", "to": to, "play": play, "record": record }))
    }

    /// Answers the call that rings; plays and records as [`Phone::call`].
    ///
    /// # Errors
    /// As [`Phone::command`].
    pub fn answer(&mut self, play: Option<&Path>) -> Result<()> {
        let record = self.folder.join("heard.wav");
        self.command(&json!({ "command": "answer", "play": play, "record": record }))
    }

    /// Ends its call.
    ///
    /// # Errors
    /// As [`Phone::command`].
    pub fn hang_up(&mut self) -> Result<()> {
        self.command(&json!({ "command": "hangup" }))
    }

    /// Sends digits.
    ///
    /// # Errors
    /// As [`Phone::command`].
    pub fn press(&mut self, digits: &str) -> Result<()> {
        self.command(&json!({ "command": "dtmf", "digits": digits }))
    }

    /// Waits for the next event of that name; events before it are passed over.
    ///
    /// # Errors
    /// When there is none within `limit`; tells what it printed.
    pub fn wait_for(&mut self, event: &str, limit: Duration) -> Result<Value> {
        let found = until(&format!("event {event}"), limit, || {
            let (running, output) = (self.process.is_running(), self.process.output());
            let complete = &output[..output.rfind('\n').map_or(0, |end| end + 1)];
            for line in complete.lines().skip(self.seen) {
                self.seen += 1;
                if let Ok(value) = serde_json::from_str::<Value>(line)
                    && value["event"] == event
                {
                    return Some(Some(value));
                }
            }
            (!running).then_some(None)
        });
        let told = || format!("{}{}", self.process.output(), self.process.errors());
        found.with_context(told)?.with_context(|| format!("it ended before event {event}:\n{}", told()))
    }

    /// All events of a name so far, of whatever call.
    #[must_use]
    pub fn events(&self, name: &str) -> Vec<Value> {
        let output = self.process.output();
        let complete = &output[..output.rfind('\n').map_or(0, |end| end + 1)];
        let events = complete.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == name).collect()
    }

    /// Passes over all events so far.
    pub fn forget(&mut self) {
        self.seen = self.process.output().lines().count();
    }

    /// What it heard in its last call. Complete once the call has ended.
    ///
    /// # Errors
    /// When the recording cannot be read.
    pub fn recording(&self) -> Result<Audio> {
        read_wav(&self.folder.join("heard.wav"))
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
