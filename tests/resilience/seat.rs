//! What the processes of the network are told, and the process of one supernode.

use std::io::{BufRead as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use p2p_edge::identity::NodeKey;
use p2p_edge::node::{BootstrapWays, Node, NodeConfig, NodeEvent, NodeLimits, NodeRole, NodeTimers};
use p2p_edge::testing::Pki;
use serde_json::{Value, json};

/// Life of location records: shorter than it is by itself, so that in the time of a run each is written
/// several times.
const LIFE: Duration = Duration::from_secs(120);

/// What one node is.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    /// The moment for which the authorities are made, in Unix seconds.
    pub(crate) unix: u64,
    /// Names key and certificate.
    pub(crate) number: u8,
    /// Where a supernode listens; a user's media.
    pub(crate) address: String,
    pub(crate) bootstrap: Vec<String>,
    pub(crate) peers_file: Option<PathBuf>,
}

impl Seat {
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "unix": self.unix,
            "number": self.number,
            "address": self.address,
            "bootstrap": self.bootstrap,
            "peers_file": self.peers_file,
        })
    }

    pub(crate) fn from_json(value: &Value) -> Result<Self> {
        let number = |key: &str| value[key].as_u64().with_context(|| format!("no {key} in {value}"));
        Ok(Self {
            unix: number("unix")?,
            number: u8::try_from(number("number")?)?,
            address: text(&value["address"])?,
            bootstrap: texts(&value["bootstrap"]),
            peers_file: value["peers_file"].as_str().map(PathBuf::from),
        })
    }

    /// The name of a user with this number.
    pub(crate) fn handle(number: u8) -> String {
        format!("user{number}")
    }

    fn config(&self, role: NodeRole, key: NodeKey, listen: Vec<String>) -> Result<NodeConfig> {
        let ways = BootstrapWays { peers_file: self.peers_file.clone(), ..BootstrapWays::default() };
        Ok(NodeConfig {
            listen,
            bootstrap: self.bootstrap.clone(),
            ways,
            limits: NodeLimits {
                timers: NodeTimers { record_lifetime: LIFE, ..NodeTimers::default() },
                ..NodeLimits::default()
            },
            ..NodeConfig::new(key, Pki::new(self.unix)?.trust()?, role)
        })
    }

    /// The node of a user who listens nowhere: it is reached through relays.
    pub(crate) fn user(&self) -> Result<NodeConfig> {
        let user = Pki::new(self.unix)?.user(&Self::handle(self.number).parse()?, self.number)?;
        self.config(NodeRole::User { certificate: user.certificate }, user.key, Vec::new())
    }

    pub(crate) fn supernode(&self) -> Result<NodeConfig> {
        let node = Pki::new(self.unix)?.supernode(self.number)?;
        let listen = vec![
            format!("/ip4/{}/tcp/4001", self.address),
            format!("/ip4/{}/udp/4001/quic-v1", self.address),
        ];
        self.config(NodeRole::Supernode { chain: node.chain }, node.key, listen)
    }
}

pub(crate) fn text(value: &Value) -> Result<String> {
    Ok(value.as_str().with_context(|| format!("no text: {value}"))?.to_owned())
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    let all = value.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|one| one.as_str().map(ToOwned::to_owned)).collect()
}

/// Writes one line for who started this process.
pub(crate) fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    // Nobody may listen any more.
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

/// Runs one supernode until its standard input ends, and says when it is online. On every line it says
/// how it is.
pub(crate) fn supernode(seat: &str) -> Result<()> {
    let seat = Seat::from_json(&serde_json::from_str(seat)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (lines, mut asked) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines() {
            if lines.blocking_send(()).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        let (node, mut events) = Node::spawn(seat.supernode()?).await?;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(NodeEvent::Online) => say(&json!({ "event": "online" })),
                    Some(NodeEvent::Offline { reason }) => say(&json!({ "event": "offline", "why": reason })),
                    Some(_) => {}
                    None => return Ok(()),
                },
                line = asked.recv() => {
                    if line.is_none() {
                        node.shutdown(Duration::from_secs(1)).await;
                        return Ok(());
                    }
                    let status = node.status().await;
                    say(&json!({
                        "event": "status",
                        "table": status.routing_table,
                        "reservations": status.reservations_served,
                        "circuits": status.circuits_served,
                        "round_trips": status.health.round_trips,
                        "since_round_trip_s": status.health.since_round_trip.map(|since| since.as_secs_f64()),
                    }));
                }
            }
        }
    })
}
