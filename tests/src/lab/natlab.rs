//! Networks behind NATs: the hosts of `tests/lab/natlab`, each a network namespace.

use std::ffi::OsStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::scripts;

/// Names of laboratories begin with this, and go on with the id of the process they belong to.
const PREFIX: &str = "causeway-";

/// A laboratory that is up. It goes when this is dropped, with every process in it; what a process that was killed has
/// left goes when the next one is set up.
#[derive(Debug)]
pub struct NatLab {
    name: String,
    nodes: Value,
}

/// A host of a laboratory: where a program of a test runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    lab: String,
    name: String,
}

impl NatLab {
    /// Sets up a laboratory with this topology, in the words of `tests/lab/natlab`.
    ///
    /// # Errors
    /// When it cannot be had: the error says what is missing on this machine, or what is wrong with the topology.
    pub fn up(topology: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}", std::process::id());
        natlab(&name, ["up", topology]).with_context(|| {
            "no network namespaces: natlab needs root, or unprivileged user namespaces (sysctl \
             kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0), and the packages \
             nftables, iproute2 and python3 (tests/lab/setup.sh lab)"
        })?;
        let mut lab = Self { name, nodes: Value::Null };
        let listed = natlab(&lab.name, ["ls", "--json"])?;
        lab.nodes = serde_json::from_slice::<Value>(&listed.stdout)?["nodes"].take();
        Ok(lab)
    }

    /// A host by its name.
    #[must_use]
    pub fn host(&self, name: &str) -> Host {
        Host { lab: self.name.clone(), name: name.to_owned() }
    }

    /// The address of a host, or the outside address of a NAT.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn address(&self, node: &str) -> Result<Ipv4Addr> {
        self.text(node, "ip")?.parse().with_context(|| node.to_owned())
    }

    /// The IPv6 address of a host.
    ///
    /// # Errors
    /// When there is no such host, or it has none.
    pub fn address6(&self, node: &str) -> Result<Ipv6Addr> {
        self.text(node, "ip6")?.parse().with_context(|| node.to_owned())
    }

    fn text(&self, node: &str, key: &str) -> Result<&str> {
        self.nodes[node][key].as_str().with_context(|| format!("{node} has no {key}"))
    }

    /// Makes a NAT forget its mappings, as one that was switched off and on.
    ///
    /// # Errors
    /// When there is no such NAT.
    pub fn rebind(&self, nat: &str) -> Result<()> {
        natlab(&self.name, ["rebind", nat]).map(|_| ())
    }

    /// Runs a command on a host to its end.
    ///
    /// # Errors
    /// When it fails; tells what it printed.
    pub fn run(&self, host: &str, command: &[&str]) -> Result<Output> {
        natlab(&self.name, [&["exec", host], command].concat())
    }
}

impl Drop for NatLab {
    fn drop(&mut self) {
        // Nobody is left to be told, and the next laboratory sweeps.
        let _ = natlab(&self.name, ["down"]);
    }
}

impl Host {
    /// A command for a program that will run on this host.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(scripts().join("natlab"));
        command.args(["-n", &self.lab, "exec", &self.name]).arg(program);
        command
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// A command for a program that will run on a host of a laboratory, or on this machine.
pub(super) fn command_on(host: Option<&Host>, program: impl AsRef<OsStr>) -> Command {
    host.map_or_else(|| Command::new(program.as_ref()), |host| host.command(program.as_ref()))
}

fn natlab<'a>(name: &str, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
    let output = Command::new(scripts().join("natlab"))
        .args(["-n", name])
        .args(arguments)
        .output()
        .context("natlab")?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(output)
}

/// Takes down what processes have left that are no more.
fn sweep() {
    let folder = std::env::var("NATLAB_DIR").unwrap_or_else(|_| "/run/natlab".to_owned());
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = natlab(&name, ["down"]);
        }
    }
}
