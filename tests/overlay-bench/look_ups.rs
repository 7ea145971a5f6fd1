//! How long look-ups and calls take with fifty supernodes, where every message takes ten milliseconds.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use call_model::Address;
use p2p_edge::calling::SessionCommand;
use p2p_edge::node::{NodeCommand, NodeEvent};
use p2p_edge::record::{RecordKey, ValidRecord};
use tests::lab::nodes::{Nodes, Place, Running, acquainted, statuses};
use tests::lab::usage::{cpu_seconds, machine_seconds, median, quantile};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::link::{Link, addresses};
use crate::set_up;

const SUPERNODES: u8 = 50;
const PORT: u16 = 4001;
/// Users that are looked up and called.
const CALLEES: u32 = 20;
/// Users that look up; each knows nothing of whom it looks for.
const ASKERS: u32 = 120;
/// Look-ups of each, with a pause in between after which connections that nothing keeps are gone.
const ROUNDS: u32 = 2;
/// A connection that is not kept ends after 60 s without a stream.
const PAUSE: Duration = Duration::from_secs(64);
/// How long joining, or a step of a call, may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Numbers under this prefix go to the gateway.
const PREFIX: &str = "+44";

/// What was seen. Times are in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) round_trip: f64,
    pub(crate) asked: usize,
    pub(crate) found: usize,
    /// Until there was a verified record: then a call is dialled.
    pub(crate) first: Vec<f64>,
    /// Until the highest sequence of three answers was known.
    pub(crate) settled: Vec<f64>,
    pub(crate) requests: f64,
    /// Connections that one who asks has at that time.
    pub(crate) peers: f64,
    /// Processors busy with what is not of this measurement while users look up.
    pub(crate) busy: f64,
    pub(crate) to_user: SetUp,
    pub(crate) to_gateway: SetUp,
}

/// Calls that were answered at once, in round trips between caller and called: all that is between them counts.
#[derive(Debug, Default)]
pub(crate) struct SetUp {
    /// From the command, where the called one has to be found and connected.
    pub(crate) found: Vec<f64>,
    /// From `invite` to `answer`, the same calls.
    pub(crate) first: Vec<f64>,
    /// From `invite` to `answer`, where there is a connection.
    pub(crate) again: Vec<f64>,
}

/// Runs nodes in the network.
pub(crate) async fn measure(link: &Link, nodes: &Arc<Nodes>) -> Result<Seen> {
    let mut seen = Seen { round_trip: ping()?, ..Seen::default() };
    println!("round trip between two addresses: {:.1} ms, by the handshake of TCP", seen.round_trip);
    let supernodes = supernodes(nodes).await?;
    let known: Vec<String> = supernodes.iter().map(|node| node.address.clone()).collect();
    let gateway = nodes.gateway(1, PREFIX, at(SUPERNODES + 1, &known[..3])).await?;
    let callees = join(nodes, 0..CALLEES, &known).await?;
    println!("{CALLEES} users to look for have joined");
    let mut askers = join(nodes, 1_000..1_000 + ASKERS, &known).await?;
    println!("{ASKERS} users who look for them have joined");
    for round in 0..ROUNDS {
        sleep(PAUSE).await;
        let peers = statuses(&askers).await.iter().map(|status| status.peers).sum::<usize>();
        seen.peers += peers as f64 / askers.len() as f64 / f64::from(ROUNDS);
        look_up(&askers, round, &mut seen).await?;
    }
    answer(callees);
    answer(vec![gateway]);
    // A relay is half way: one round trip to it, and one more from there.
    seen.to_user =
        calls(&mut askers, 2.0 * seen.round_trip, |at| Ok(Address::Handle(Nodes::handle(at)?))).await?;
    let number = |at: u32| Ok(Address::Number(format!("{PREFIX}20794600{at:02}").parse()?));
    seen.to_gateway = calls(&mut askers, seen.round_trip, number).await?;
    ensure!(link.lost() == 0, "{} packets had no room in the network", link.lost());
    Ok(seen)
}

/// The time of a handshake of TCP, one round trip, in milliseconds.
fn ping() -> Result<f64> {
    let (own, told) = addresses(250, 1);
    let listener = TcpListener::bind((own, PORT))?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        let stream = TcpStream::connect_timeout(&SocketAddr::from((told, PORT)), Duration::from_secs(5));
        times.push(began.elapsed().as_secs_f64() * 1e3);
        drop((stream.context("nothing comes through the network")?, listener.accept()?));
    }
    let short = TcpStream::connect_timeout(&SocketAddr::from((own, PORT)), Duration::from_millis(500));
    ensure!(short.is_err(), "there is a way around the network");
    Ok(median(times))
}

pub(crate) fn at(network: u8, bootstrap: &[String]) -> Place {
    let (own, told) = addresses(network, 1);
    let text = |address: Ipv4Addr| vec![format!("/ip4/{address}/tcp/{PORT}")];
    // Whoever dials does so from the one address of the machine.
    Place {
        listen: text(own),
        external: text(told),
        bootstrap: bootstrap.to_vec(),
        one_network: true,
        is_quiet: false,
    }
}

/// Starts supernodes.
async fn supernodes(nodes: &Nodes) -> Result<Vec<Running>> {
    let (mut all, mut bootstrap) = (Vec::new(), Vec::new());
    for number in 1..=SUPERNODES {
        let node = nodes.supernode(u32::from(number), at(number, &bootstrap)).await?;
        if bootstrap.len() < 3 {
            bootstrap.push(node.address.clone());
        }
        all.push(node);
    }
    // Buckets hold 20: the half of the key space where a node is not may have more.
    acquainted(&all, usize::from(SUPERNODES) / 2, PATIENCE).await?;
    println!("{SUPERNODES} supernodes know each other");
    Ok(all)
}

/// Starts users, who begin with three supernodes each.
async fn join(nodes: &Arc<Nodes>, numbers: std::ops::Range<u32>, known: &[String]) -> Result<Vec<Running>> {
    let (mut all, mut joining) = (Vec::new(), JoinSet::new());
    for number in numbers {
        let start = number as usize * 7;
        let bootstrap: Vec<String> =
            [0, 17, 34].iter().map(|more| known[(start + more) % known.len()].clone()).collect();
        let nodes = Arc::clone(nodes);
        joining.spawn(async move {
            let mut user =
                nodes.user(number, Place { one_network: true, ..Place::nowhere(&bootstrap) }).await?;
            user.online(PATIENCE).await?;
            anyhow::Ok(user)
        });
        if joining.len() >= 8
            && let Some(joined) = joining.join_next().await
        {
            all.push(joined??);
        }
    }
    while let Some(joined) = joining.join_next().await {
        all.push(joined??);
    }
    Ok(all)
}

/// Each looks somebody up, one after the other.
async fn look_up(askers: &[Running], round: u32, seen: &mut Seen) -> Result<()> {
    let (mut requests, before) = (0, seen.first.len());
    let others = || anyhow::Ok(machine_seconds()? - cpu_seconds(std::process::id())?);
    let (busy, began) = (others()?, Instant::now());
    for (at, asker) in (0u32..).zip(askers) {
        let key = RecordKey::Location(Nodes::handle((at + round * 7) % CALLEES)?);
        let looked = asker.handle.look_up(key).await?;
        seen.asked += 1;
        requests += looked.dht_requests + looked.servers_asked;
        seen.settled.push(looked.took.as_secs_f64() * 1e3);
        if let (Some(ValidRecord::Location(_)), Some(first)) = (looked.record, looked.first) {
            seen.found += 1;
            seen.first.push(first.as_secs_f64() * 1e3);
        }
        sleep(Duration::from_millis(50)).await;
    }
    let busy = (others()? - busy) / began.elapsed().as_secs_f64();
    seen.busy = seen.busy.max(busy);
    seen.requests += f64::from(requests) / askers.len() as f64 / f64::from(ROUNDS);
    let of_round = seen.first[before..].to_vec();
    println!(
        "round {}: {} look-ups, a record after {:.0} ms (median), {:.0} ms (99 %); {busy:.2} processors busy with others",
        round + 1,
        askers.len(),
        median(of_round.clone()),
        quantile(of_round, 0.99)
    );
    Ok(())
}

/// Each of some calls somebody twice.
async fn calls(
    askers: &mut [Running],
    round_trip: f64,
    callee: impl Fn(u32) -> Result<Address>,
) -> Result<SetUp> {
    let mut seen = SetUp::default();
    for (at, asker) in (0..CALLEES).zip(askers) {
        let serial = u128::from(at) << 8;
        let took = set_up::call(asker, serial, callee(at)?).await?;
        seen.found.push(took.from_command / round_trip);
        seen.first.push(took.from_invite / round_trip);
        let took = set_up::call(asker, serial + 1, callee(at)?).await?;
        seen.again.push(took.from_invite / round_trip);
    }
    Ok(seen)
}

/// Answers every call at once.
fn answer(nodes: Vec<Running>) {
    for mut node in nodes {
        tokio::spawn(async move {
            while let Some(event) = node.events.recv().await {
                if let NodeEvent::Incoming { call, .. } = event {
                    let command = SessionCommand::Answer { media: "v=0\r\n".into() };
                    // Errs when the node has stopped, and then no event comes either.
                    let _ = node.handle.send(NodeCommand::Call { call, command }).await;
                }
            }
        });
    }
}
