//! SIPp, which plays a scenario file of `tests/lab/sipp` for many calls.

use std::{net::SocketAddrV4, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Process, peer::alaw, ports, scripts};
use crate::audio::Audio;

/// A SIPp that is at work.
#[derive(Debug)]
pub struct Sipp {
    process: Process,
}

impl Sipp {
    /// Calls `number` at the gateway `calls` times, from `local`, `rate` times a second; each call is held for `talk`.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn calls(
        folder: &Path,
        local: SocketAddrV4,
        gateway: SocketAddrV4,
        number: &str,
        (calls, rate): (u32, u32),
        talk: Duration,
    ) -> Result<Self> {
        let arguments = [
            gateway.to_string(),
            "-s".to_owned(),
            number.to_owned(),
            "-r".to_owned(),
            rate.to_string(),
            "-d".to_owned(),
            talk.as_millis().to_string(),
        ];
        Self::run(folder, "call", local, calls, &arguments)
    }

    /// Answers `calls` calls at `local` and plays `voice`, of 8000 samples a second; what is said to it it sends back
    /// as it came, with the number of the source.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn answers(folder: &Path, local: SocketAddrV4, calls: u32, voice: &Audio) -> Result<Self> {
        ensure!(voice.rate == 8000, "A-law has 8000 samples a second");
        std::fs::create_dir_all(folder)?;
        let samples: Vec<u8> = voice.samples.iter().map(|&sample| alaw(f64::from(sample))).collect();
        std::fs::write(folder.join("voice.al"), samples)?;
        Self::run(folder, "answer", local, calls, &[])
    }

    fn run(folder: &Path, name: &str, local: SocketAddrV4, calls: u32, more: &[String]) -> Result<Self> {
        let program = scripts().join("sipp.sh");
        let install = Command::new(&program).arg("install").output().context("sipp.sh")?;
        ensure!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr));
        let address = local.ip().to_string();
        let mut command = Command::new(&program);
        command.arg("run").arg("-sf").arg(scripts().join(format!("sipp/{name}.xml")));
        command.args(["-i", &address, "-mi", &address]).args(["-p", &local.port().to_string()]);
        command.args(["-mp", &ports::port(*local.ip()).to_string(), "-rtp_echo", "-nostdin"]);
        command.args(["-m", &calls.to_string(), "-timeout", "60", "-trace_err"]).args(more);
        std::fs::create_dir_all(folder)?;
        command.current_dir(folder);
        Ok(Self { process: Process::spawn(&format!("sipp-{name}"), folder, &command)? })
    }

    /// Waits until all calls are over.
    ///
    /// # Errors
    /// When one of them did not go as the scenario says, or `limit` has passed.
    pub fn is_done(&mut self, limit: Duration) -> Result<()> {
        let status = self.process.wait(limit)?;
        ensure!(status.success(), "SIPp: {status}: {}{}", self.process.output(), self.process.errors());
        Ok(())
    }
}
