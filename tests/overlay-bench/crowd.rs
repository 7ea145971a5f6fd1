//! What a user weighs for whom it holds a reservation on: a supernode in a process of its own, with the allocator of
//! the daemon, and users in others, each a whole node that connects, proves who it is, reserves and publishes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::lab::Process;
use tests::lab::nodes::{Nodes, Place, Running};
use tests::lab::usage::{cpu_seconds, resident_megabytes, slope};
use tokio::io::{AsyncBufReadExt as _, BufReader, stdin};
use tokio::task::JoinSet;

/// How many there are when the memory is looked at.
pub(crate) const STEPS: [u32; 5] = [200, 500, 1_000, 1_500, 2_000];
/// Users that join at one time.
const AT_ONCE: usize = 16;
/// How long one may take to join.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long after the last has joined the memory is looked at: what joining took is given back by then.
const REST: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Debug)]
pub(crate) struct Weight {
    /// Each user's part, in kB of 10^3 octets.
    pub(crate) kb_per_client: f64,
    /// Processor time of the supernode for a user that joins, in milliseconds.
    pub(crate) join_ms: f64,
    /// The same for a user that stays, in milliseconds a minute.
    pub(crate) stay_ms: f64,
}

/// Is a supernode until its input ends. Says on each line of input how many reservations it serves.
pub(crate) async fn supernode(unix: u64) -> Result<()> {
    let node = Nodes::new(unix)?.supernode(1, Place::loopback(&[])).await?;
    println!("address {}", node.address);
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {
        println!("reservations {}", node.handle.status().await.reservations_served);
    }
    Ok(())
}

/// Is some users of one supernode until its input ends.
pub(crate) async fn users(unix: u64, first: u32, count: u32, bootstrap: String) -> Result<()> {
    let nodes = std::sync::Arc::new(Nodes::new(unix)?);
    let bootstrap = [bootstrap];
    let mut all: Vec<Running> = Vec::new();
    let mut joining = JoinSet::new();
    let mut numbers = first..first + count;
    loop {
        while joining.len() < AT_ONCE
            && let Some(number) = numbers.next()
        {
            let (nodes, bootstrap) = (std::sync::Arc::clone(&nodes), bootstrap.clone());
            joining.spawn(async move {
                let mut user = nodes.user(number, Place::nowhere(&bootstrap)).await?;
                user.online(PATIENCE).await?;
                anyhow::Ok(user)
            });
        }
        let Some(joined) = joining.join_next().await else { break };
        all.push(joined??);
    }
    println!("online {}", all.len());
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {}
    Ok(())
}

/// Has more and more users join.
pub(crate) fn measure(folder: &Path, unix: u64) -> Result<Weight> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(&own);
    command.args(["--unix", &unix.to_string(), "--be-supernode"]);
    let mut supernode = Process::spawn("supernode", folder, &command)?;
    let line = supernode.wait_for_line("address ", Duration::from_secs(20))?;
    let address = line.trim_start_matches("address ").to_owned();
    std::thread::sleep(Duration::from_secs(2));
    println!("  users  resident MB");
    println!("{:>7}  {:>11.1}", 0, resident_megabytes(supernode.pid())?);
    let (mut crowds, mut points, mut joined) = (Vec::new(), Vec::new(), 0);
    let mut joining = 0.0;
    let mut stay_ms = 0.0;
    for step in STEPS {
        let before = cpu_seconds(supernode.pid())?;
        let mut command = Command::new(&own);
        command.args(["--unix", &unix.to_string(), "--be-users", &format!("{joined},{}", step - joined)]);
        command.args(["--bootstrap", &address]);
        let mut crowd = Process::spawn(&format!("users-{step}"), folder, &command)?;
        crowd.wait_for_line("online ", Duration::from_secs(300))?;
        joined = step;
        crowds.push(crowd);
        joining += cpu_seconds(supernode.pid())? - before;
        let rested = cpu_seconds(supernode.pid())?;
        std::thread::sleep(REST);
        stay_ms =
            (cpu_seconds(supernode.pid())? - rested) * 1e3 * 60.0 / REST.as_secs_f64() / f64::from(joined);
        let megabytes = resident_megabytes(supernode.pid())?;
        println!("{joined:>7}  {megabytes:>11.1}  {}", "#".repeat((megabytes / 8.0) as usize));
        points.push((f64::from(joined), megabytes));
    }
    ensure!(reservations(&mut supernode, joined)?, "a user has no reservation any more");
    let kb_per_client = 1_000.0 * slope(&points).context("one step is too few")?;
    Ok(Weight { kb_per_client, join_ms: joining * 1e3 / f64::from(joined), stay_ms })
}

/// Says whether the supernode serves so many reservations.
fn reservations(supernode: &mut Process, wanted: u32) -> Result<bool> {
    supernode.send_line("")?;
    let line = supernode.wait_for_line("reservations ", Duration::from_secs(20))?;
    let served: u32 = line.trim_start_matches("reservations ").parse()?;
    println!("reservations served: {served}");
    Ok(served >= wanted)
}
