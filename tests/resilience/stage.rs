//! The processes of the network, and how they are spoken to.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use p2p_edge::testing::key;
use serde_json::{Value, json};
use tests::lab::{Process, Signal};

use crate::net::{Half, Net};
use crate::seat::Seat;

/// How long a process may take to be online.
const ONLINE: Duration = Duration::from_secs(90);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(75);

/// A process that says one JSON object a line.
pub(crate) struct Speaker {
    process: Process,
    seen: usize,
}

impl Speaker {
    fn start(net: &Net, half: Half, name: &str, folder: &Path, arguments: [&str; 2]) -> Result<Self> {
        let mut command = net.command(half, &std::env::current_exe()?);
        command.args(arguments);
        Ok(Self { process: Process::spawn(name, folder, &command)?, seen: 0 })
    }

    /// Waits for the next event of that name; those before it are passed over.
    pub(crate) fn wait_for(&mut self, event: &str, limit: Duration) -> Result<Value> {
        let end = Instant::now() + limit;
        loop {
            let output = self.process.output();
            let complete = &output[..output.rfind('\n').map_or(0, |end| end + 1)];
            for line in complete.lines().skip(self.seen) {
                self.seen += 1;
                let value: Value = serde_json::from_str(line).unwrap_or_default();
                if value["event"] == event {
                    return Ok(value);
                }
            }
            ensure!(self.process.is_running(), "ended: {}{}", self.process.output(), self.process.errors());
            ensure!(Instant::now() < end, "no {event} within {limit:?}: {}", self.process.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks for something and returns the answer.
    pub(crate) fn ask(&mut self, command: &Value) -> Result<Value> {
        self.process.send_line(&command.to_string())?;
        let done = self.wait_for("done", ANSWER)?;
        match done["error"].as_str() {
            Some(error) => bail!("{command}: {error}"),
            None => Ok(done["answer"].clone()),
        }
    }
}

/// One supernode.
pub(crate) struct Supernode {
    pub(crate) half: Half,
    pub(crate) number: u8,
    pub(crate) seat: Seat,
    speaker: Option<Speaker>,
}

impl Supernode {
    pub(crate) fn new(unix: u64, half: Half, number: u8) -> Self {
        let seat_number = match half {
            Half::North => number,
            Half::South => 30 + number,
        };
        let address = half.supernode(number);
        let seat = Seat { unix, number: seat_number, address, bootstrap: Vec::new(), peers_file: None };
        Self { half, number, seat, speaker: None }
    }

    pub(crate) fn multiaddress(&self) -> String {
        format!("/ip4/{}/tcp/4001/p2p/{}", self.seat.address, key(self.seat.number).peer_id())
    }

    pub(crate) fn start(&mut self, net: &Net, folder: &Path) -> Result<()> {
        let name = format!("{}-{}", self.half.name(), self.number);
        let seat = self.seat.to_json().to_string();
        self.speaker = Some(Speaker::start(net, self.half, &name, folder, ["supernode", &seat])?);
        Ok(())
    }

    pub(crate) fn wait_until_online(&mut self) -> Result<()> {
        let speaker = self.speaker.as_mut().context("not started")?;
        speaker.wait_for("online", ONLINE).map(|_| ())
    }

    /// Says how it is.
    pub(crate) fn status(&mut self) -> Result<Value> {
        let speaker = self.speaker.as_mut().context("not started")?;
        speaker.process.send_line("{}")?;
        speaker.wait_for("status", ANSWER)
    }

    pub(crate) fn is_running(&self) -> bool {
        self.speaker.is_some()
    }

    /// Kills it without a word.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut speaker) = self.speaker.take() {
            speaker.process.signal(Signal::Kill);
            speaker.process.wait(Duration::from_secs(5))?;
        }
        Ok(())
    }
}

/// The users of one half.
pub(crate) struct UsersOf {
    pub(crate) half: Half,
    pub(crate) speaker: Speaker,
}

impl UsersOf {
    pub(crate) fn start(
        net: &Net,
        half: Half,
        folder: &Path,
        (phones, lookers): (Vec<Seat>, Vec<Seat>),
    ) -> Result<Self> {
        let seats = |all: &[Seat]| all.iter().map(Seat::to_json).collect::<Vec<_>>();
        let told = json!({ "phones": seats(&phones), "lookers": seats(&lookers) }).to_string();
        let name = format!("users-{}", half.name());
        Ok(Self { half, speaker: Speaker::start(net, half, &name, folder, ["users", &told])? })
    }

    pub(crate) fn wait_until_online(&mut self) -> Result<()> {
        self.speaker.wait_for("online", ONLINE).map(|_| ())
    }
}
