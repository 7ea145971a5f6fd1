//! Real nodes of one process on loopback, to hold against the model of as many.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use p2p_edge::identity::{NodeKey, RevocationList};
use p2p_edge::node::{Node, NodeConfig, NodeEvent, NodeHandle, NodeLimits, NodeRole, NodeStatus};
use p2p_edge::record::{RecordKey, ValidRecord};
use p2p_edge::testing::Pki;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

use crate::tally::quantile;

/// How long nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(120);
/// Numbers of users begin here; a number is a byte.
const FIRST_USER: u8 = 200;

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
    /// The same for one connection, with handshakes and certificates, both ends.
    pub(crate) connection_us: f64,
    /// Bytes on the loopback device for one request, where nobody else uses it.
    pub(crate) request_bytes: Option<f64>,
    pub(crate) connection_bytes: Option<f64>,
    /// Milliseconds of a look-up between two nodes that are connected: two requests, one after the other.
    pub(crate) pair_ms: f64,
}

struct Running {
    handle: NodeHandle,
    address: String,
    events: Receiver<NodeEvent>,
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

async fn start(pki: &Pki, key: NodeKey, role: NodeRole, bootstrap: &[String]) -> Result<Running> {
    let listen = if role.is_server() { vec!["/ip4/127.0.0.1/tcp/0".to_owned()] } else { Vec::new() };
    let (handle, events) = Node::spawn(NodeConfig {
        key,
        trust: pki.trust()?,
        revocations: RevocationList::default(),
        role,
        listen,
        external: Vec::new(),
        bootstrap: bootstrap.to_vec(),
        limits: NodeLimits::default(),
        turn: None,
    })
    .await?;
    let address = handle.status().await.listening.first().cloned().unwrap_or_default();
    let address = format!("{address}/p2p/{}", handle.peer_id());
    Ok(Running { handle, address, events })
}

async fn supernode(pki: &Pki, number: u8, bootstrap: &[String]) -> Result<Running> {
    let node = pki.supernode(number)?;
    start(pki, node.key, NodeRole::Supernode { chain: node.chain }, bootstrap).await
}

async fn statuses(nodes: &[Running]) -> Vec<NodeStatus> {
    let mut all = Vec::new();
    for node in nodes {
        all.push(node.handle.status().await);
    }
    all
}

/// Bytes that the loopback device has carried.
fn carried() -> Option<u64> {
    let table = fs::read_to_string("/proc/self/net/dev").ok()?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Processor time of this process, in microseconds.
fn spent() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').context("no stat")?.1.split_whitespace().collect::<Vec<_>>();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    let (user, system) = (ticks(11).context("no utime")?, ticks(12).context("no stime")?);
    // The kernel counts in hundredths of a second.
    Ok((user + system) * 10_000.0)
}

/// A look-up of somebody who does not exist, between two nodes that know each other only.
async fn pair(pki: &Pki) -> Result<f64> {
    let first = supernode(pki, 1, &[]).await?;
    let second = supernode(pki, 2, std::slice::from_ref(&first.address)).await?;
    let nodes = [first, second];
    wait_for(&nodes, 1).await?;
    let mut times = Vec::new();
    for number in 0..30 {
        let key = RecordKey::Location(format!("nobody{number}").parse()?);
        times.push(1000.0 * nodes[1].handle.look_up(key).await?.took.as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(quantile(&times, 0.5))
}

async fn wait_for(nodes: &[Running], peers: usize) -> Result<()> {
    let begin = Instant::now();
    loop {
        let least = statuses(nodes).await.iter().map(|status| status.routing_table).min().unwrap_or(0);
        if least >= peers {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "a node knows {least} of {peers} others");
        sleep(Duration::from_millis(200)).await;
    }
}

/// Runs so many supernodes and users, and looks users up, each time from another supernode.
pub(crate) async fn run(supernodes: u8, users: u8, look_ups: usize, alone: bool) -> Result<Real> {
    let pki = Pki::new(unix())?;
    let pair_ms = pair(&pki).await?;
    let (bytes, time) = (carried(), spent()?);
    let mut nodes = Vec::new();
    let mut bootstrap = Vec::new();
    for number in 1..=supernodes {
        let node = supernode(&pki, number, &bootstrap).await?;
        if bootstrap.len() < 3 {
            bootstrap.push(node.address.clone());
        }
        nodes.push(node);
    }
    // Buckets hold 20: the half of the key space where a node is not may have more.
    wait_for(&nodes, usize::from(supernodes) / 2).await?;
    let peers: usize = statuses(&nodes).await.iter().map(|status| status.peers).sum();
    let connections = (peers / 2).max(1) as f64;
    let per = |all: Option<u64>, before: Option<u64>, count: f64| {
        Some((all? - before?) as f64 / count).filter(|_| alone)
    };
    let connection_bytes = per(carried(), bytes, connections);
    let connection_us = (spent()? - time) / connections;

    let mut subscribers = Vec::new();
    for number in 0..users {
        let user = pki.user(&format!("user{number}").parse()?, FIRST_USER + number)?;
        let role = NodeRole::User { certificate: user.certificate };
        let mut user = start(&pki, user.key, role, &bootstrap).await?;
        let online = async {
            while user.events.recv().await.context("a user has stopped")? != NodeEvent::Online {}
            anyhow::Ok(())
        };
        timeout(PATIENCE, online).await.context("a user is not online")??;
        subscribers.push(user);
    }
    sleep(Duration::from_secs(12)).await;

    let before = statuses(&nodes).await;
    let (bytes, time) = (carried(), spent()?);
    let (mut first, mut settled, mut requests, mut found) = (Vec::new(), Vec::new(), 0, 0);
    for at in 0..look_ups {
        let key = RecordKey::Location(format!("user{}", at % usize::from(users)).parse()?);
        let looked = nodes[at % nodes.len()].handle.look_up(key).await?;
        requests += looked.dht_requests + looked.servers_asked;
        settled.push(1000.0 * looked.took.as_secs_f64());
        if let (Some(ValidRecord::Location(_)), Some(after)) = (looked.record, looked.first) {
            found += 1;
            first.push(1000.0 * after.as_secs_f64());
        }
    }
    // Searches for servers go on meanwhile, and what servers look up for others: all of it is counted.
    sleep(Duration::from_millis(500)).await;
    let after = statuses(&nodes).await;
    let dht = |all: &[NodeStatus]| all.iter().map(|status| status.dht_requests).sum::<u64>();
    let all_requests = (dht(&after) - dht(&before)) as f64 + 3.0 * look_ups as f64;
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
        request_us: (spent()? - time) / all_requests,
        request_bytes: per(carried(), bytes, all_requests),
        connection_us,
        connection_bytes,
        pair_ms,
        first,
        settled,
    };
    drop((nodes, subscribers));
    Ok(real)
}
