//! The users of one half: telephones in calls, look-ups all the time, and nodes that join anew.

use std::collections::{HashMap, HashSet};
use std::io::BufRead as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use call_model::CallId;
use p2p_edge::bootstrap::Invite;
use p2p_edge::node::{BootstrapWays, Node, NodeEvent, NodeHandle};
use p2p_edge::record::{RecordKey, ValidRecord};
use peer::audio::Clip;
use peer::event::Event;
use peer::{AnswerMode, AnswerPolicy, CallOptions, Command, Softphone, SoftphoneConfig};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::seat::{Seat, say, text, texts};

/// Samples a second of the telephones.
const RATE: u32 = 8_000;
/// Between two look-ups of one node.
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);
/// How long a node may take to join.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the calls and look-ups of this half have come to.
#[derive(Default)]
struct Tally {
    /// Look-ups that are being made.
    looks_up: bool,
    handles: Vec<String>,
    looked: u64,
    failed: u64,
    /// Milliseconds until there was a record.
    first: Vec<f64>,
    /// Ends of calls: both may be here, so each is named by its telephone too.
    media_up: HashSet<(u8, CallId)>,
    ended: HashMap<(u8, CallId), Value>,
    silent: HashSet<(u8, CallId)>,
    texts: u64,
}

type Shared = Arc<Mutex<Tally>>;

fn with<T>(tally: &Shared, act: impl FnOnce(&mut Tally) -> T) -> T {
    act(&mut tally.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A second of a tone that is not regular, so that an encoder has something to do.
fn clip() -> Clip {
    let sample = |n: u32| {
        let t = f64::from(n) / f64::from(RATE);
        let pitch = 200.0 + 50.0 * (t * 7.0).sin();
        // Within the range of 16 bits.
        (8_000.0 * (t * pitch * std::f64::consts::TAU).sin()) as i16
    };
    Clip::new(&(0..10 * RATE).map(sample).collect::<Vec<i16>>())
}

/// Starts a telephone that answers at once and sends back what it hears.
async fn telephone(seat: Seat, tally: Shared) -> Result<Softphone> {
    let options = CallOptions { echo: true, ..CallOptions::default() };
    let policy = AnswerPolicy {
        mode: AnswerMode::After(Duration::from_millis(100)),
        options,
        reject_anonymous: false,
        follow_transfers: false,
    };
    let number = seat.number;
    let media_address = seat.address.parse::<std::net::IpAddr>()?.into();
    let ice_servers = Vec::new();
    let config =
        SoftphoneConfig { node: seat.user()?, media_address, ice_servers, sample_rate: RATE, policy };
    let (phone, mut events) = Softphone::start(config).await?;
    let (online, mut is_online) = mpsc::channel(1);
    let again = phone.clone();
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                // Errs after the first time.
                Event::Online => drop(online.try_send(())),
                Event::MediaUp { call } => drop(with(&tally, |tally| tally.media_up.insert((number, call)))),
                Event::Silent { call } => drop(with(&tally, |tally| tally.silent.insert((number, call)))),
                Event::Message { .. } => with(&tally, |tally| tally.texts += 1),
                Event::Played { call } => {
                    let play = Command::Play { call: Some(call), clip: clip() };
                    let phone = again.clone();
                    // The queue of commands may be full: this task must not wait for it.
                    tokio::spawn(async move { phone.send(play).await });
                }
                Event::Ended(ended) => {
                    let quality = ended.quality.as_ref();
                    let told = json!({
                        "cause": ended.cause,
                        "text": ended.text,
                        "by": ended.by,
                        "received": quality.map(|quality| quality.packets_received),
                        "lost": quality.map(|quality| quality.packets_lost),
                    });
                    with(&tally, |tally| tally.ended.insert((number, ended.call), told));
                }
                _ => {}
            }
        }
    });
    tokio::time::timeout(PATIENCE, is_online.recv()).await.context("a telephone is not online")?;
    Ok(phone)
}

/// Starts a node that looks users up as long as it is told to.
async fn looker(seat: Seat, tally: Shared) -> Result<NodeHandle> {
    let (node, mut events) = Node::spawn(seat.user()?).await?;
    let online = async {
        while events.recv().await.context("a node has stopped")? != NodeEvent::Online {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, online).await.context("a node is not online")??;
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let asking = node.clone();
    tokio::spawn(async move {
        for turn in usize::from(seat.number).. {
            tokio::time::sleep(LOOK_UP_EVERY).await;
            let handle = with(&tally, |tally| {
                let at = (turn * 7).checked_rem(tally.handles.len())?;
                tally.handles.get(at).filter(|_| tally.looks_up).cloned()
            });
            let Some(handle) = handle.and_then(|handle| handle.parse().ok()) else { continue };
            let Ok(found) = asking.look_up(RecordKey::Location(handle)).await else { return };
            with(&tally, |tally| {
                tally.looked += 1;
                match found.first {
                    Some(first) => tally.first.push(1000.0 * first.as_secs_f64()),
                    None => tally.failed += 1,
                }
            });
        }
    });
    Ok(node)
}

/// Lets a fresh node join by some ways. Returns how long it took and which have worked.
async fn join(command: &Value) -> Result<Value> {
    let seat = Seat::from_json(&command["seat"])?;
    let file = |key: &str| command[key].as_str().map(PathBuf::from);
    let invites = texts(&command["invites"]);
    let mut config = if command["supernode"] == true { seat.supernode()? } else { seat.user()? };
    config.ways = BootstrapWays {
        list_file: file("list_file"),
        dns_names: texts(&command["dns"]),
        dns_servers: texts(&command["dns_servers"]).iter().filter_map(|text| text.parse().ok()).collect(),
        mirrors: texts(&command["mirrors"]),
        mirror_ca_file: file("mirror_ca_file"),
        peers_file: seat.peers_file.clone(),
        lan: command["lan"] == true,
        invites: invites.iter().filter_map(|link| Invite::parse(link).ok()).collect(),
    };
    let begin = Instant::now();
    let (node, mut events) = Node::spawn(config).await?;
    let online = async {
        while events.recv().await.context("stopped")? != NodeEvent::Online {}
        anyhow::Ok(())
    };
    let joined = tokio::time::timeout(PATIENCE, online).await.is_ok_and(|online| online.is_ok());
    let took = begin.elapsed().as_secs_f64();
    let status = node.status().await;
    let by: Vec<&str> = status.health.ways.iter().filter(|way| way.joined > 0).map(|way| way.way).collect();
    node.shutdown(Duration::from_secs(1)).await;
    Ok(json!({ "event": "joined", "joined": joined, "took_s": took, "by": by }))
}

/// Everything that runs here.
struct Users {
    phones: Vec<Softphone>,
    lookers: Vec<NodeHandle>,
    /// A user who goes from one half to the other.
    roamer: Option<NodeHandle>,
    tally: Shared,
}

impl Users {
    async fn obey(&mut self, command: &Value) -> Result<Value> {
        let tally = &self.tally.clone();
        Ok(match command["do"].as_str().unwrap_or_default() {
            "handles" => with(tally, |tally| {
                tally.handles = texts(&command["handles"]);
                json!({})
            }),
            "look-up" => with(tally, |tally| {
                tally.looks_up = command["on"] == true;
                json!({})
            }),
            "call" => {
                let at = usize::try_from(command["from"].as_u64().context("from")?)?;
                let phone = self.phones.get(at).context("no such telephone")?;
                let options = CallOptions { play: Some(clip()), ..CallOptions::default() };
                let to = text(&command["to"])?.parse()?;
                let ring_timeout = Duration::from_secs(30);
                let call = Command::Call { to, display_name: None, private: false, ring_timeout, options };
                phone.send(call).await?;
                json!({})
            }
            "text" => {
                for phone in &self.phones {
                    phone.send(Command::Message { call: None, text: "still there?".into() }).await?;
                }
                json!({})
            }
            "hang-up" => {
                let chosen = command["phones"].as_array();
                let is_chosen = |at: usize| chosen.is_none_or(|all| all.contains(&json!(at)));
                for (_, phone) in self.phones.iter().enumerate().filter(|(at, _)| is_chosen(*at)) {
                    let cause = call_model::Cause::NORMAL_CALL_CLEARING;
                    phone.send(Command::HangUp { call: None, cause }).await?;
                }
                json!({})
            }
            "calls" => with(tally, |tally| {
                json!({
                    "up": tally.media_up.len() - tally.ended.keys().filter(|call| tally.media_up.contains(call)).count(),
                    "ended": tally.ended.values().collect::<Vec<_>>(),
                    "silent": tally.silent.len(),
                    "texts": tally.texts,
                })
            }),
            "tally" => with(tally, |tally| {
                let told = json!({ "looked": tally.looked, "failed": tally.failed, "first": tally.first });
                (tally.looked, tally.failed) = (0, 0);
                tally.first.clear();
                told
            }),
            "find" => {
                let key = RecordKey::Location(text(&command["handle"])?.parse()?);
                let node = self.lookers.first().context("nobody looks up")?;
                match node.look_up(key).await?.record {
                    Some(ValidRecord::Location(found)) => json!({ "sequence": found.record.sequence }),
                    _ => json!({ "sequence": null }),
                }
            }
            "missing" => {
                let mut missing = Vec::new();
                for handle in texts(&command["handles"]) {
                    for node in &self.lookers {
                        if node.look_up(RecordKey::Location(handle.parse()?)).await?.record.is_none() {
                            missing.push(handle.clone());
                        }
                    }
                }
                json!({ "missing": missing })
            }
            "join" => join(command).await?,
            "roam" => {
                if let Some(node) = self.roamer.take() {
                    node.shutdown(Duration::from_secs(1)).await;
                }
                if !command["seat"].is_null() {
                    self.roamer = Some(looker(Seat::from_json(&command["seat"])?, Shared::default()).await?);
                }
                json!({})
            }
            other => anyhow::bail!("`{other}` is no command"),
        })
    }
}

/// Runs the users of one half until standard input ends.
pub(crate) fn users(seats: &str) -> Result<()> {
    let told: Value = serde_json::from_str(seats)?;
    let seats = |key: &str| -> Result<Vec<Seat>> {
        told[key].as_array().context("no seats")?.iter().map(Seat::from_json).collect()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (lines, mut asked) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    runtime.block_on(async {
        let tally = Shared::default();
        let mut users = Users { phones: Vec::new(), lookers: Vec::new(), roamer: None, tally: tally.clone() };
        for seat in seats("phones")? {
            users.phones.push(telephone(seat, tally.clone()).await?);
        }
        for seat in seats("lookers")? {
            users.lookers.push(looker(seat, tally.clone()).await?);
        }
        say(&json!({ "event": "online" }));
        while let Some(line) = asked.recv().await {
            let answer = match users.obey(&serde_json::from_str(&line)?).await {
                Ok(answer) => json!({ "event": "done", "answer": answer }),
                Err(error) => json!({ "event": "done", "error": format!("{error:#}") }),
            };
            say(&answer);
        }
        anyhow::Ok(())
    })
}
