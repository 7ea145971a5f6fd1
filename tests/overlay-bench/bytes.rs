//! What goes over the network for single things: a connection, a request, a connection kept, a user who joins. Octets
//! of both directions, with the headers of IP and TCP. `make scale` reckons with these.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use p2p_edge::record::RecordKey;
use tests::lab::nodes::{Nodes, Place, Running, acquainted, statuses};
use tokio::time::sleep;

use crate::link::Link;
use crate::look_ups::{PATIENCE, at};

/// Look-ups of somebody who does not exist: each asks the other node for every key, in the DHT and beside it.
const LOOK_UPS: u32 = 100;
/// Between two pings of one end; how often that is waited for what is looked for.
const PING: Duration = Duration::from_secs(15);
const MOST_PINGS: u32 = 12;
/// How long a user is left alone.
const IDLE: Duration = Duration::from_secs(30);
/// After that what follows from a start is over, but searches for servers.
const SETTLED: Duration = Duration::from_millis(3_500);
/// The same for a user, whose record is published once more for the servers that it has found.
const SETTLED_USER: Duration = Duration::from_secs(15);

/// Octets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Octets {
    /// A connection between supernodes: handshakes, certificates, what each says of itself.
    pub(crate) connection: f64,
    /// A request and its answer that names nobody.
    pub(crate) request: f64,
    /// A connection on which nothing happens, in a second.
    pub(crate) idle: f64,
    /// A user who connects to one supernode, reserves and publishes.
    pub(crate) join: f64,
    /// A user who stays, in a second.
    pub(crate) stay: f64,
}

/// Requests that nodes have sent, in the DHT and beside it.
async fn requests(nodes: &[Running]) -> f64 {
    let all = statuses(nodes).await;
    all.iter().map(|status| (status.dht_requests + status.servers_asked) as f64).sum()
}

/// Octets that pass, and requests that are sent, in some time.
async fn in_time(link: &Link, nodes: &[Running], time: Duration) -> (f64, f64, f64) {
    let (octets, sent, began) = (link.octets(), requests(nodes).await, Instant::now());
    sleep(time).await;
    let seconds = began.elapsed().as_secs_f64();
    ((link.octets() - octets) as f64, requests(nodes).await - sent, seconds)
}

/// Leaves two connected nodes alone. Returns the octets of a second in which they ask nothing, and those of a request
/// by which they search for servers.
async fn left_alone(link: &Link, pair: &[Running]) -> Result<(f64, f64)> {
    let (mut quiet, mut searching) = (Vec::new(), Vec::new());
    for _ in 0..MOST_PINGS {
        let (octets, sent, seconds) = in_time(link, pair, PING).await;
        if sent == 0.0 {
            quiet.push(octets / seconds)
        } else {
            searching.push((octets, sent))
        }
        if !quiet.is_empty() && !searching.is_empty() {
            let idle = quiet.iter().sum::<f64>() / quiet.len() as f64;
            let (octets, sent) =
                searching.iter().fold((0.0, 0.0), |(o, s), (octets, sent)| (o + octets, s + sent));
            return Ok((idle, (octets - idle * PING.as_secs_f64() * searching.len() as f64) / sent));
        }
    }
    bail!("in {MOST_PINGS} intervals between pings there was none with a search, or none without")
}

/// Runs two supernodes, and then a user.
pub(crate) async fn measure(link: &Link, nodes: &Nodes) -> Result<Octets> {
    let first = nodes.supernode(1_001, Place { is_quiet: true, ..at(101, &[]) }).await?;
    let address = [first.address.clone()];
    sleep(Duration::from_secs(1)).await;
    let before = link.octets();
    let second = nodes.supernode(1_002, Place { is_quiet: true, ..at(102, &address) }).await?;
    let pair = [first, second];
    acquainted(&pair, 1, PATIENCE).await?;
    sleep(SETTLED).await;
    let (begun, searched) = ((link.octets() - before) as f64, requests(&pair).await);
    let (before, asked) = (link.octets(), requests(&pair).await);
    for number in 0..LOOK_UPS {
        let key = RecordKey::Location(format!("nobody{number}").parse()?);
        pair[1].handle.look_up(key).await?;
    }
    // Whoever is asked beside the DHT searches it in its turn.
    sleep(Duration::from_millis(500)).await;
    let request = (link.octets() - before) as f64 / (requests(&pair).await - asked);
    let (idle, search) = left_alone(link, &pair).await?;
    let connection = begun - searched * search;

    let before = link.octets();
    let asked = requests(&pair).await;
    let mut user = nodes.user(9_001, Place::nowhere(&address)).await?;
    user.online(PATIENCE).await?;
    sleep(SETTLED_USER).await;
    let all = [user];
    let sent = requests(&pair).await - asked + requests(&all).await;
    let join = (link.octets() - before) as f64 - sent * request;
    let of_pair = requests(&pair).await;
    let (octets, of_user, seconds) = in_time(link, &all, IDLE).await;
    let of_pair = requests(&pair).await - of_pair;
    let stay = (octets - (of_pair + of_user) * request) / seconds - idle;
    Ok(Octets { connection, request, idle, join, stay })
}
