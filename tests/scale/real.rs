//! Real nodes of one process on loopback, to hold against the model of as many.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use p2p_edge::node::NodeStatus;
use p2p_edge::record::{RecordKey, ValidRecord};
use rustix::time::{ClockId, clock_gettime};
use tests::lab::nodes::{Nodes, Place, acquainted, statuses};
use tokio::time::sleep;

use crate::tally::quantile;

/// Pairs of supernodes that meet, and how long after that they are looked at.
const PAIRS: u32 = 40;
const SETTLED: Duration = Duration::from_secs(2);
/// How long nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was seen of real nodes.
#[derive(Debug)]
pub(crate) struct Real {
    pub(crate) supernodes: usize,
    pub(crate) look_ups: usize,
    pub(crate) found: usize,
    /// Requests of one look-up, to the DHT and to servers asked directly.
    pub(crate) requests: f64,
    /// Milliseconds until there was a record, in order.
    pub(crate) first: Vec<f64>,
    pub(crate) settled: Vec<f64>,
    /// Supernodes that hold one record.
    pub(crate) holders: f64,
    pub(crate) table: f64,
    /// Processor time of the whole process for one request, in microseconds.
    pub(crate) request_us: f64,
    /// The same for one connection, with handshakes, certificates and the first search for servers, both ends.
    pub(crate) connection_us: f64,
    /// Bytes on the loopback device for one request, where nobody else uses it.
    pub(crate) request_bytes: Option<f64>,
    /// Milliseconds of a look-up between two nodes that are connected: two requests, one after the other.
    pub(crate) pair_ms: f64,
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Bytes that the loopback device has carried.
fn carried() -> Option<u64> {
    let table = fs::read_to_string("/proc/self/net/dev").ok()?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time of this process, in microseconds.
fn spent() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// Requests to the DHT that nodes have sent.
fn dht(all: &[NodeStatus]) -> u64 {
    all.iter().map(|status| status.dht_requests).sum()
}

/// A look-up of somebody who does not exist, between two nodes that know each other only.
async fn pair(nodes: &Nodes) -> Result<f64> {
    let first = nodes.supernode(1_001, Place::loopback(&[])).await?;
    let second = nodes.supernode(1_002, Place::loopback(std::slice::from_ref(&first.address))).await?;
    let nodes = [first, second];
    acquainted(&nodes, 1, PATIENCE).await?;
    let mut times = Vec::new();
    for number in 0..30 {
        let key = RecordKey::Location(format!("nobody{number}").parse()?);
        times.push(1000.0 * nodes[1].handle.look_up(key).await?.took.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(quantile(&times, 0.5))
}

/// Processor time of a connection of two supernodes that have just met, in microseconds: what they take that know each
/// other, without what as many take that know nobody.
async fn meeting(nodes: &Nodes) -> Result<f64> {
    let quiet = |bootstrap: &[String]| Place { is_quiet: true, ..Place::loopback(bootstrap) };
    let mut all = Vec::new();
    let begun = spent();
    for number in 0..PAIRS {
        all.push(nodes.supernode(2_000 + number, quiet(&[])).await?);
    }
    sleep(SETTLED).await;
    let alone = spent() - begun;
    let mut pairs = Vec::new();
    let begun = spent();
    for (number, first) in (0..).zip(all) {
        let second = nodes.supernode(3_000 + number, quiet(std::slice::from_ref(&first.address))).await?;
        pairs.push([first, second]);
    }
    for pair in &pairs {
        acquainted(pair, 1, PATIENCE).await?;
    }
    sleep(SETTLED).await;
    Ok((spent() - begun - alone) / f64::from(PAIRS))
}

/// Runs so many supernodes and users, and looks users up, each time from another supernode.
pub(crate) async fn run(supernodes: u8, users: u8, look_ups: usize, alone: bool) -> Result<Real> {
    let overlay = Nodes::new(unix())?;
    let pair_ms = pair(&overlay).await?;
    let connection_us = meeting(&overlay).await?;
    let mut nodes = Vec::new();
    let mut bootstrap = Vec::new();
    for number in 1..=supernodes {
        let node = overlay.supernode(u32::from(number), Place::loopback(&bootstrap)).await?;
        if bootstrap.len() < 3 {
            bootstrap.push(node.address.clone());
        }
        nodes.push(node);
    }
    // Buckets hold 20: the half of the key space where a node is not may have more.
    acquainted(&nodes, usize::from(supernodes) / 2, PATIENCE).await?;

    let mut subscribers = Vec::new();
    for number in 0..users {
        let mut user = overlay.user(u32::from(number), Place::nowhere(&bootstrap)).await?;
        user.online(PATIENCE).await?;
        subscribers.push(user);
    }
    sleep(Duration::from_secs(12)).await;

    let before = statuses(&nodes).await;
    let (bytes, time) = (carried(), spent());
    let (mut first, mut settled, mut found) = (Vec::new(), Vec::new(), 0);
    let (mut requests, mut asked) = (0, 0);
    for at in 0..look_ups {
        let key = RecordKey::Location(Nodes::handle((at % usize::from(users)) as u32)?);
        let looked = nodes[at % nodes.len()].handle.look_up(key).await?;
        requests += looked.dht_requests + looked.servers_asked;
        asked += looked.servers_asked;
        settled.push(1000.0 * looked.took.as_secs_f64());
        if let (Some(ValidRecord::Location(_)), Some(after)) = (looked.record, looked.first) {
            found += 1;
            first.push(1000.0 * after.as_secs_f64());
        }
    }
    // Searches for servers go on meanwhile, and what servers look up for others: all of it is counted.
    sleep(Duration::from_millis(500)).await;
    let after = statuses(&nodes).await;
    let all_requests = (dht(&after) - dht(&before)) as f64 + f64::from(asked);
    let request_us = (spent() - time) / all_requests;
    let request_bytes =
        carried().zip(bytes).map(|(all, before)| (all - before) as f64 / all_requests).filter(|_| alone);
    first.sort_by(f64::total_cmp);
    settled.sort_by(f64::total_cmp);
    let records: usize = after.iter().map(|status| status.records).sum();
    let table: usize = after.iter().map(|status| status.routing_table).sum();
    let real = Real {
        supernodes: nodes.len(),
        look_ups,
        found,
        requests: f64::from(requests) / look_ups as f64,
        holders: records as f64 / f64::from(users),
        table: table as f64 / nodes.len() as f64,
        request_us,
        request_bytes,
        connection_us,
        pair_ms,
        first,
        settled,
    };
    drop((nodes, subscribers));
    Ok(real)
}
