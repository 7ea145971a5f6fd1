//! What a relayed packet costs in processor time, at our TURN server and at another one.
//!
//! `turn_bench [ours|serve|at ADDRESS USER PASSWORD PID] [clients] [seconds]`: `ours` starts a
//! supernode in this process and measures its thread; `at` measures the process PID of a server that
//! runs; `serve` prints a credential for a server of ours and waits. Each client sends a packet of
//! 172 bytes each 20 ms and gets one, as in a call of G.711.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use p2p_edge::node::{IceServer, Node, NodeConfig, NodeHandle, NodeRole, TurnConfig};
use p2p_edge::testing::{Pki, TurnClient};

/// A packet of G.711: 12 bytes of RTP and 160 of voice.
const PACKET: usize = 172;
const FRAME: Duration = Duration::from_millis(20);

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_else(|| "ours".to_owned());
    if mode == "at" {
        let mut next = || arguments.next().ok_or("ADDRESS USER PASSWORD PID");
        let (server, user, password, pid) = (next()?.parse()?, next()?, next()?, next()?);
        let (clients, seconds) = (number(arguments.next(), 200)?, number(arguments.next(), 10)?);
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?
            .filter_map(|task| Some(task.ok()?.path()))
            .collect();
        let cost = tokio::task::spawn_blocking(move || {
            load(server, &user, &password, clients, seconds, threads).map_err(|error| error.to_string())
        });
        println!("RESULT turn_bench server=other {}", cost.await??);
        return Ok(());
    }
    let (server, _nodes) = ours().await?;
    let endpoint = server.endpoints.first().ok_or("no endpoint")?.address;
    if mode == "serve" {
        for uri in server.uris() {
            println!("{uri}");
        }
        println!("{}\n{}", server.username, server.password.expose());
        return Ok(tokio::signal::ctrl_c().await?);
    }
    let (clients, seconds) = (number(arguments.next(), 200)?, number(arguments.next(), 10)?);
    let threads = std::fs::read_dir("/proc/self/task")?
        .filter_map(|task| Some(task.ok()?.path()))
        .filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "turn"))
        .collect();
    let cost = tokio::task::spawn_blocking(move || {
        load(endpoint, &server.username, server.password.expose(), clients, seconds, threads)
            .map_err(|error| error.to_string())
    });
    println!("RESULT turn_bench server=ours {}", cost.await??);
    Ok(())
}

fn number(text: Option<String>, usual: usize) -> Outcome<usize> {
    Ok(text.map_or(Ok(usual), |text| text.parse())?)
}

/// A supernode with a relay and a user who is given a credential for it.
async fn ours() -> Outcome<(IceServer, [NodeHandle; 2])> {
    let pki = Pki::new(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    let mut turn = TurnConfig {
        udp: vec![any],
        tcp: vec![any],
        allow: vec!["127.0.0.0/8".parse()?],
        ..TurnConfig::default()
    };
    (turn.limits.allocations_per_peer, turn.limits.allocations_per_address) = (10_000, 10_000);
    turn.limits.answers_per_second = 10_000;
    let bundle = pki.supernode(1)?;
    let config = |key, role, bootstrap: Vec<String>, turn| -> Outcome<NodeConfig> {
        let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        Ok(NodeConfig { listen, bootstrap, turn, ..NodeConfig::new(key, pki.trust()?, role) })
    };
    let role = NodeRole::Supernode { chain: bundle.chain };
    let (node, mut events) = Node::spawn(config(bundle.key, role, Vec::new(), Some(turn))?).await?;
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let address = node.status().await.listening.first().cloned().ok_or("the node listens nowhere")?;
    let address = format!("{address}/p2p/{}", node.peer_id());
    let bundle = pki.user(&"alice".parse()?, 2)?;
    let role = NodeRole::User { certificate: bundle.certificate };
    let (user, mut events) = Node::spawn(config(bundle.key, role, vec![address], None)?).await?;
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    while user.status().await.certified.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let server = user.ice_servers().await?.pop().ok_or("no relay")?;
    Ok((server, [node, user]))
}

/// Makes clients speak through the server, and returns what its threads took.
fn load(
    server: SocketAddr,
    user: &str,
    password: &str,
    clients: usize,
    seconds: usize,
    threads: Vec<std::path::PathBuf>,
) -> Outcome<String> {
    let peer = Arc::new(UdpSocket::bind((server.ip(), 0))?);
    peer.set_read_timeout(Some(Duration::from_millis(200)))?;
    let address = peer.local_addr()?;
    let mut sockets = Vec::new();
    for _ in 0..clients {
        let socket = UdpSocket::bind((server.ip(), 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect(server)?;
        let mut client = TurnClient::new(user, password);
        let ask = |client: &mut TurnClient, request: Vec<u8>| -> Outcome<_> {
            let mut buffer = [0; 2048];
            socket.send(&request)?;
            let length = socket.recv(&mut buffer)?;
            client.hear(&buffer[..length]).ok_or_else(|| "no message".into())
        };
        let request = client.allocate();
        ask(&mut client, request)?;
        let request = client.allocate();
        let relayed = ask(&mut client, request)?.relayed.ok_or("no relayed address")?;
        let request = client.bind(0x4000, address);
        if ask(&mut client, request)?.code.is_some() {
            return Err("no channel".into());
        }
        socket.set_nonblocking(true)?;
        sockets.push((socket, relayed));
    }
    let (stop, at_peer) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let hearing = {
        let (peer, stop, at_peer) = (Arc::clone(&peer), Arc::clone(&stop), Arc::clone(&at_peer));
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                at_peer.fetch_add(u64::from(peer.recv(&mut buffer).is_ok()), Ordering::Relaxed);
            }
        })
    };
    let (before, began) = (taken(&threads)?, Instant::now());
    let (up, down) = (TurnClient::channel(0x4000, &[7; PACKET]), [7; PACKET]);
    let (mut sent, mut at_clients, mut buffer) = (0u64, 0u64, [0; 2048]);
    let frames = seconds as u32 * 50;
    for frame in 0..frames {
        for (at, (socket, relayed)) in sockets.iter().enumerate() {
            // Spread over the frame, as calls are.
            let due = began + FRAME * frame + FRAME * at as u32 / clients as u32;
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(wait);
            }
            while socket.recv(&mut buffer).is_ok() {
                at_clients += 1;
            }
            sent += u64::from(socket.send(&up).is_ok()) + u64::from(peer.send_to(&down, relayed).is_ok());
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    for (socket, _) in &sockets {
        while socket.recv(&mut buffer).is_ok() {
            at_clients += 1;
        }
    }
    let cpu = taken(&threads)? - before;
    stop.store(true, Ordering::Relaxed);
    let _ = hearing.join();
    let heard = at_peer.load(Ordering::Relaxed) + at_clients;
    Ok(format!(
        "clients={clients} packets={sent} relayed={heard} lost_pct={:.2} cpu_us_per_packet={:.2} cpu_pct={:.1}",
        100.0 * (1.0 - heard as f64 / sent as f64),
        cpu.as_secs_f64() * 1e6 / heard as f64,
        100.0 * cpu.as_secs_f64() / began.elapsed().as_secs_f64(),
    ))
}

/// Processor time that threads have taken, by the scheduler's own count in nanoseconds.
fn taken(threads: &[std::path::PathBuf]) -> Outcome<Duration> {
    let mut sum = 0;
    for thread in threads {
        let text = std::fs::read_to_string(thread.join("schedstat"))?;
        sum += text.split_whitespace().next().ok_or("schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}
