//! What is measured: a program on one processor, and the generator that calls it from another.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::usage::{cpu_seconds, family};
use tests::lab::{
    Asterisk, AsteriskOptions, Authority, Daemon, DaemonOptions, Kamailio, TrunkOptions, ports,
};

use crate::generator::Generator;

/// Ports for media between 1024 and the top, in pairs: 20,000.
const TRUNK_PORTS: &str = "10000-49999";
const OVERLAY_PORTS: &str = "50000-64999";
/// Descriptors that a call between trunks takes: RTP and RTCP on both legs.
const DESCRIPTORS: usize = 4;
/// What the ports are enough for, and below what nothing can be measured.
const MOST: usize = 10_000;
const FEWEST: usize = 1000;
/// Descriptors for all that is no call, and for ports at rest.
const SPARE: usize = 1000;

/// How often a process is pinned whose threads come and go.
const PINNINGS: usize = 5;

/// Which processor each of the two has for itself; none where the machine has but one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    /// Of what is measured.
    pub(crate) subject: Option<usize>,
}

impl Processors {
    /// Moves this process to the last processor and keeps the first for what is measured.
    pub(crate) fn divide() -> Result<Self> {
        let count = std::thread::available_parallelism()?.get();
        if count < 2 {
            println!("One processor for both: the generator takes part of it from what is measured.");
            return Ok(Self { subject: None });
        }
        pin(std::process::id(), count - 1)?;
        Ok(Self { subject: Some(0) })
    }
}

fn pin(pid: u32, cpu: usize) -> Result<()> {
    let mut command = Command::new("taskset");
    command.args(["-a", "-c", "-p", &cpu.to_string(), &pid.to_string()]).stdout(Stdio::null());
    // A thread that ends while all are gone through is an error of taskset; the next time it is not among them.
    for _ in 0..PINNINGS {
        if command.status().context("taskset")?.success() {
            return Ok(());
        }
    }
    bail!("process {pid} cannot be kept on processor {cpu}")
}

/// This program once more, as something that is measured.
#[derive(Debug)]
struct OwnProcess(Child);

impl OwnProcess {
    fn start(arguments: &[String]) -> Result<Self> {
        let program = std::env::current_exe().context("no path of this program")?;
        let child = Command::new(program).args(arguments).spawn();
        Ok(Self(child.context("this program cannot be started once more")?))
    }
}

impl Drop for OwnProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running program, and the generator for it.
pub(crate) struct Subject {
    pub(crate) generator: Generator,
    /// Of all its processes, the first before its children.
    pids: Vec<u32>,
    program: Program,
}

#[allow(dead_code, reason = "what is in it lives as long as it")]
enum Program {
    Causeway(Box<Daemon>),
    Asterisk(Box<Asterisk>),
    Kamailio(Box<Kamailio>),
    Own(OwnProcess),
}

impl Subject {
    /// `causewayd` between a PBX and a carrier, with no bound on calls but what the descriptors allow.
    pub(crate) fn causeway(folder: &Path, name: &str, processors: Processors) -> Result<Self> {
        let folder = folder.join(name);
        let authority = Authority::init(&folder.join("authority"))?;
        let identity = authority.gateway(name, &["+44"], &["+1555"])?;
        let mut options = DaemonOptions::gateway(name, &identity);
        options.cpu = processors.subject;
        let (pbx, carrier) = (ports::address(), ports::address());
        let trunk = |name: &str, address: Ipv4Addr| TrunkOptions {
            options_interval_s: 0,
            extra: "trusted = true\nmax_calls = 100000".to_owned(),
            ..TrunkOptions::new(name, SocketAddrV4::new(address, 5060))
        };
        options.trunks = vec![trunk("pbx", pbx), trunk("carrier", carrier)];
        options.media = format!(
            "trunk_ports = {TRUNK_PORTS:?}\noverlay_ports = {OVERLAY_PORTS:?}\nport_quarantine_s = 1\n\
             silence_timeout_s = 3600"
        );
        options.extra = format!(
            "[[routes]]\nprefix = \"44\"\ntrunks = [\"carrier\"]\nfrom = [\"pbx\"]\n[limits]\ncalls = {}\n",
            held_at_most()?
        );
        let sip = options.sip();
        let mut daemon = Daemon::start(&folder, &authority, &identity, options)?;
        let generator = Generator::new(pbx, carrier, sip)?;
        let pid = daemon.process().pid();
        let program = Program::Causeway(Box::new(daemon));
        Ok(Self { generator, pids: family(pid)?, program })
    }

    /// Asterisk with an endpoint on either side: `Dial(PJSIP/${EXTEN}@carrier)`.
    pub(crate) fn asterisk(folder: &Path, processors: Processors) -> Result<Self> {
        let (pbx, carrier) = (ports::address(), ports::address());
        let options = AsteriskOptions {
            relay_to: Some(SocketAddrV4::new(carrier, 5060)),
            codecs: "alaw",
            ..AsteriskOptions::new(SocketAddrV4::new(pbx, 5060))
        };
        let asterisk = Asterisk::start(&folder.join("asterisk"), &options)?;
        let generator = Generator::new(pbx, carrier, asterisk.sip())?;
        let pid = asterisk.pid();
        let program = Program::Asterisk(Box::new(asterisk));
        Self { generator, pids: family(pid)?, program }.kept_on(processors)
    }

    /// Kamailio as a stateful user agent.
    pub(crate) fn kamailio(folder: &Path, processors: Processors) -> Result<Self> {
        let kamailio = Kamailio::start_answering(&folder.join("kamailio"), ports::address())?;
        let generator = Generator::new(ports::address(), ports::address(), kamailio.sip())?;
        let pid = kamailio.pid();
        let program = Program::Kamailio(Box::new(kamailio));
        Self { generator, pids: family(pid)?, program }.kept_on(processors)
    }

    /// What does no more than a user agent must.
    pub(crate) fn least(processors: Processors) -> Result<Self> {
        let address = SocketAddrV4::new(ports::address(), 5060);
        let least = OwnProcess::start(&["--least".to_owned(), address.to_string()])?;
        let generator = Generator::new(ports::address(), ports::address(), address)?;
        Self { generator, pids: vec![least.0.id()], program: Program::Own(least) }.kept_on(processors)
    }

    /// The daemon's SIP endpoint alone, as a user agent.
    pub(crate) fn agent(processors: Processors) -> Result<Self> {
        let (address, pbx) = (SocketAddrV4::new(ports::address(), 5060), ports::address());
        let arguments = ["--agent".to_owned(), format!("{address},{}", SocketAddrV4::new(pbx, 5060))];
        let agent = OwnProcess::start(&arguments)?;
        let generator = Generator::new(pbx, ports::address(), address)?;
        Self { generator, pids: vec![agent.0.id()], program: Program::Own(agent) }.kept_on(processors)
    }

    fn kept_on(self, processors: Processors) -> Result<Self> {
        if let Some(cpu) = processors.subject {
            for &pid in &self.pids {
                pin(pid, cpu)?;
            }
        }
        Ok(self)
    }

    /// Processor time used so far by all its processes.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.pids.iter().copied().map(cpu_seconds).sum()
    }

    /// The id of its first process.
    pub(crate) fn pid(&self) -> u32 {
        self.pids[0]
    }

    /// Waits until ports at rest are free again.
    pub(crate) fn rest(&mut self) -> Result<()> {
        let rest = if matches!(self.program, Program::Causeway(_)) { 2500 } else { 500 };
        self.generator.wait(Duration::from_millis(rest))
    }
}

/// Calls that can be held at one time: what the descriptors that the system allows are enough for.
pub(crate) fn held_at_most() -> Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("no limits")?;
    // The hard limit, to which the daemon raises its own.
    let limit = line.split_whitespace().nth(1).context("no limits")?;
    let limit = limit.parse::<usize>().unwrap_or(usize::MAX);
    let most = (limit.saturating_sub(SPARE) / DESCRIPTORS).min(MOST);
    ensure!(most >= FEWEST, "the system allows {limit} open files, enough for {most} calls (ulimit -Hn)");
    Ok(most)
}
