//! Measures, on loopback with three supernodes, how long it takes from the look-up of a handle to
//! the answer of a callee that is reached through a relay only; and what an idle supernode weighs.
//!
//! `cargo run --release -p p2p-edge --example lookup_bench -- [callers]`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use call_model::{CallId, Caller, Cause};
use p2p_edge::calling::{SessionCommand, SessionEvent};
use p2p_edge::identity::{NodeKey, RevocationList};
use p2p_edge::node::{Node, NodeCommand, NodeConfig, NodeEvent, NodeHandle, NodeLimits, NodeRole};
use p2p_edge::testing::Pki;
use tokio::sync::mpsc::Receiver;

type Failure = Box<dyn Error + Send + Sync>;

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn resident_kb() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS: unknown");
    line.split_whitespace().nth(1).unwrap_or("?").to_owned()
}

async fn start(
    pki: &Pki,
    key: NodeKey,
    role: NodeRole,
    bootstrap: &[String],
) -> Result<(NodeHandle, Receiver<NodeEvent>, String), Failure> {
    let listen = if role.is_server() { vec!["/ip4/127.0.0.1/tcp/0".to_owned()] } else { Vec::new() };
    let alone = bootstrap.is_empty();
    let (handle, mut events) = Node::spawn(NodeConfig {
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
    while !alone && events.recv().await.ok_or("the node has stopped")? != NodeEvent::Online {}
    Ok((handle, events, address))
}

/// Calls and returns the time until the answer, in milliseconds.
async fn call(
    (caller, events): &mut (NodeHandle, Receiver<NodeEvent>),
    serial: u128,
    to: &str,
) -> Result<f64, Failure> {
    let call = CallId::new(unix_ms(), serial);
    let begin = Instant::now();
    let invite = NodeCommand::Invite {
        call,
        from: Caller::default(),
        to: to.parse()?,
        media: "v=0\r\n".into(),
        ring_timeout: Duration::from_secs(30),
    };
    caller.send(invite).await?;
    let mut took = None;
    loop {
        match events.recv().await.ok_or("the node has stopped")? {
            NodeEvent::Call { event: SessionEvent::Answered { .. }, .. } => {
                took = Some(begin.elapsed().as_secs_f64() * 1000.0);
                let bye = SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() };
                caller.send(NodeCommand::Call { call, command: bye }).await?;
            }
            NodeEvent::Call { event: SessionEvent::Ended { text, .. }, .. } => {
                return took.ok_or_else(|| format!("call failed: {text}").into());
            }
            _ => {}
        }
    }
}

fn print(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    println!(
        "{what}: median {:.1} ms, 95 % {:.1} ms, worst {:.1} ms, {} calls",
        at(0.5),
        at(0.95),
        times.last().copied().unwrap_or(f64::NAN),
        times.len()
    );
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let callers: u8 = std::env::args().nth(1).map_or(Ok(30), |text| text.parse())?;
    let pki = Pki::new(unix_ms() / 1000)?;
    let mut addresses: Vec<String> = Vec::new();
    let mut kept = Vec::new();
    for number in 1..=3 {
        let node = pki.supernode(number)?;
        let started = start(&pki, node.key, NodeRole::Supernode { chain: node.chain }, &addresses).await?;
        if number == 1 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            println!("idle supernode: VmRSS {} kB for the whole process", resident_kb());
        }
        addresses.push(started.2.clone());
        kept.push(started);
    }
    let bob = pki.user(&"bob".parse()?, 4)?;
    let role = NodeRole::User { certificate: bob.certificate };
    let (callee, mut events, _) = start(&pki, bob.key, role, &addresses[2..]).await?;
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let NodeEvent::Incoming { call, .. } = event {
                let answer = SessionCommand::Answer { media: "v=0\r\n".into() };
                let _ = callee.send(NodeCommand::Call { call, command: answer }).await;
            }
        }
    });
    let mut users = Vec::new();
    for number in 0..callers {
        let user = pki.user(&format!("caller{number}").parse()?, 10 + number)?;
        let role = NodeRole::User { certificate: user.certificate };
        let (handle, events, _) = start(&pki, user.key, role, &addresses[1..2]).await?;
        users.push((handle, events));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut first, mut again, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    for (at, user) in users.iter_mut().enumerate() {
        first.push(call(user, at as u128, "bob").await?);
        again.push(call(user, 1000 + at as u128, "bob").await?);
        let begin = Instant::now();
        if call(user, 2000 + at as u128, "nobody").await.is_err() {
            absent.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
    }
    print("look-up to answer, no connection yet", first);
    print("look-up to answer, circuit still up", again);
    print("look-up of an unknown handle to its refusal", absent);
    println!("three supernodes and {} users: VmRSS {} kB", callers + 1, resident_kb());
    Ok(())
}
