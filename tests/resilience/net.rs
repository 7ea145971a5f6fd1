//! Two halves of a network, and the bridge between them.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// One half of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    North,
    South,
}

impl Half {
    pub(crate) const BOTH: [Half; 2] = [Half::North, Half::South];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Half::North => "north",
            Half::South => "south",
        }
    }

    fn base(self) -> u8 {
        match self {
            Half::North => 0,
            Half::South => 100,
        }
    }

    /// The address of a supernode, 1 to 24: each is in a /16 of its own, as of another operator.
    pub(crate) fn supernode(self, number: u8) -> String {
        format!("10.{}.0.1", self.base() + number)
    }

    /// The address of a user, 1 to 99.
    pub(crate) fn user(self, number: u8) -> String {
        format!("10.{}.0.{number}", self.base() + 50)
    }

    fn inner(self) -> &'static str {
        match self {
            Half::North => "n-in",
            Half::South => "s-in",
        }
    }

    fn outer(self) -> &'static str {
        match self {
            Half::North => "n-out",
            Half::South => "s-out",
        }
    }
}

/// The address of what belongs to neither half: name servers and mirrors.
pub(crate) const MIDDLE: &str = "10.200.0.1";

/// Runs this program again where there is no other network.
pub(crate) fn enter() -> Result<bool> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--"]).arg(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("inside");
    Ok(command.status().context("unshare (util-linux)")?.success())
}

fn run(program: &str, arguments: &str) -> Result<()> {
    let output = Command::new(program).args(arguments.split(' ')).output().context(program.to_owned())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {arguments}: {said}");
    Ok(())
}

/// The network. Its namespaces go with it.
pub(crate) struct Net {
    holders: Vec<(Half, Child)>,
}

impl Net {
    /// Makes both halves, each with so many supernodes' and users' addresses, and joins them.
    pub(crate) fn new(supernodes: u8, users: u8) -> Result<Self> {
        run("ip", "link set lo up")?;
        run("ip", "link add br0 type bridge")?;
        run("ip", &format!("addr add {MIDDLE}/8 dev br0"))?;
        run("ip", "link set br0 up")?;
        let mut net = Self { holders: Vec::new() };
        for half in Half::BOTH {
            let holder = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
                .stdin(Stdio::null())
                .spawn()
                .context("setpriv (util-linux)")?;
            let pid = holder.id();
            net.holders.push((half, holder));
            wait_for_namespace(pid)?;
            let (inner, outer) = (half.inner(), half.outer());
            run("ip", &format!("link add {outer} type veth peer name {inner} netns {pid}"))?;
            run("ip", &format!("link set {outer} master br0 up"))?;
            let inside = |arguments: &str| run("nsenter", &format!("-t {pid} -n ip {arguments}"));
            inside("link set lo up")?;
            // The first is the source of what is bound to none.
            for user in 1..=users {
                inside(&format!("addr add {}/8 dev {inner}", half.user(user)))?;
            }
            for supernode in 1..=supernodes {
                inside(&format!("addr add {}/8 dev {inner}", half.supernode(supernode)))?;
            }
            inside(&format!("link set {inner} up"))?;
        }
        Ok(net)
    }

    /// Returns a command that runs a program in one half.
    pub(crate) fn command(&self, half: Half, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        let pid = self.pid(half).to_string();
        command.args(["-t", &pid, "-n", "--"]).arg(program);
        command
    }

    fn pid(&self, half: Half) -> u32 {
        self.holders.iter().find(|(of, _)| *of == half).map_or(0, |(_, child)| child.id())
    }

    /// Takes the halves apart: what is sent to the other is lost.
    pub(crate) fn part(&self) -> Result<()> {
        run("ip", &format!("link set {} nomaster", Half::South.outer()))
    }

    /// Joins the halves again.
    pub(crate) fn join(&self) -> Result<()> {
        run("ip", &format!("link set {} master br0", Half::South.outer()))
    }

    /// Makes an address of a half swallow what is sent to it, also from there.
    pub(crate) fn silence(&self, half: Half, address: &str) -> Result<()> {
        let pid = self.pid(half);
        run("nsenter", &format!("-t {pid} -n ip addr del {address}/8 dev {}", half.inner()))
    }
}

impl Net {
    /// Gives a half an address back that was taken by [`Net::silence`].
    pub(crate) fn restore(&self, half: Half, address: &str) -> Result<()> {
        let pid = self.pid(half);
        run("nsenter", &format!("-t {pid} -n ip addr add {address}/8 dev {}", half.inner()))
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for (_, holder) in &mut self.holders {
            // Errs where it has ended already.
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// Waits until a child has a network namespace of its own.
fn wait_for_namespace(pid: u32) -> Result<()> {
    let own = std::fs::read_link("/proc/self/ns/net")?;
    for _ in 0..500 {
        if std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|of| of != own) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    anyhow::bail!("no network namespace was made")
}
