//! Whole nodes on loopback, each in a runtime of its own so that it can be made to vanish.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use call_model::{Address, CallId, Caller, Codec, Handle, Number};
use p2p_edge::calling::{SessionCommand, SessionEvent};
use p2p_edge::identity::{NodeBundle, Prefix, Price, UserBundle};
use p2p_edge::node::{
    Node, NodeCommand, NodeConfig, NodeError, NodeEvent, NodeHandle, NodeLimits, NodeRole, NodeTimers,
    VerifiedCaller,
};
use p2p_edge::record::GatewayOffer;
use p2p_edge::testing::Pki;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;

/// Longest wait for anything that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn pki() -> Pki {
    Pki::new(unix()).unwrap()
}

pub(crate) fn handle(text: &str) -> Handle {
    text.parse().unwrap()
}

pub(crate) fn number(text: &str) -> Number {
    text.parse().unwrap()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// Timers short enough for tests.
pub(crate) fn limits() -> NodeLimits {
    let timers = NodeTimers {
        resume: Duration::from_secs(4),
        retry: Duration::from_millis(100),
        ..NodeTimers::default()
    };
    NodeLimits { timers, ..NodeLimits::default() }
}

pub(crate) fn config(pki: &Pki, key: p2p_edge::identity::NodeKey, role: NodeRole) -> NodeConfig {
    let listen = if role.is_server() { vec!["/ip4/127.0.0.1/tcp/0".to_owned()] } else { Vec::new() };
    NodeConfig { listen, limits: limits(), ..NodeConfig::new(key, pki.trust().unwrap(), role) }
}

pub(crate) fn supernode(pki: &Pki, seed: u8, bootstrap: &[&Running]) -> NodeConfig {
    let NodeBundle { key, chain } = pki.supernode(seed).unwrap();
    with_bootstrap(config(pki, key, NodeRole::Supernode { chain }), bootstrap)
}

pub(crate) fn user(pki: &Pki, name: &str, seed: u8, bootstrap: &[&Running]) -> NodeConfig {
    let UserBundle { key, certificate } = pki.user(&handle(name), seed).unwrap();
    with_bootstrap(config(pki, key, NodeRole::User { certificate }), bootstrap)
}

pub(crate) fn gateway(
    pki: &Pki,
    seed: u8,
    offers: &[(&str, u64)],
    numbers: &[(&str, &str)],
    bootstrap: &[&Running],
) -> NodeConfig {
    let mut prefixes: Vec<Prefix> = offers.iter().map(|(text, _)| prefix(text)).collect();
    prefixes.extend(numbers.iter().map(|(text, _)| prefix(text)));
    let NodeBundle { key, chain } = pki.gateway(seed, &prefixes).unwrap();
    let offer = |(text, micros_per_minute): &(&str, u64)| GatewayOffer {
        prefixes: vec![prefix(text)],
        price: Price { micros_per_minute: *micros_per_minute, currency: "EUR".parse().unwrap() },
        codecs: vec![Codec::Opus],
        capacity: 10,
        load: 0,
        sequence: 0,
        expires_unix: 0,
    };
    let role = NodeRole::Gateway {
        chain,
        offers: offers.iter().map(offer).collect(),
        numbers: numbers.iter().map(|(n, h)| (number(n), handle(h))).collect(),
    };
    with_bootstrap(config(pki, key, role), bootstrap)
}

fn with_bootstrap(mut config: NodeConfig, bootstrap: &[&Running]) -> NodeConfig {
    config.bootstrap = bootstrap.iter().map(|node| node.address.clone()).collect();
    config
}

/// A node and what it has said.
pub(crate) struct Running {
    pub(crate) handle: NodeHandle,
    pub(crate) events: Receiver<NodeEvent>,
    /// The first listen address, with the peer id.
    pub(crate) address: String,
    runtime: Option<Runtime>,
}

pub(crate) async fn start(config: NodeConfig) -> Running {
    try_start(config).await.unwrap()
}

pub(crate) async fn try_start(config: NodeConfig) -> Result<Running, NodeError> {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    // Errs for every node but the first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let started = runtime.spawn(Node::spawn(config)).await.unwrap();
    let (handle, events) = match started {
        Ok(started) => started,
        Err(error) => {
            runtime.shutdown_background();
            return Err(error);
        }
    };
    let address = match handle.status().await.listening.first() {
        Some(address) => format!("{address}/p2p/{}", handle.peer_id()),
        None => String::new(),
    };
    Ok(Running { handle, events, address, runtime: Some(runtime) })
}

impl Drop for Running {
    fn drop(&mut self) {
        self.vanish();
    }
}

impl Running {
    /// Takes the node away without a word of goodbye.
    pub(crate) fn vanish(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Stops the node without closing anything, until what is returned is dropped.
    pub(crate) fn freeze(&self) -> super::gateways::Thaw {
        let (thaw, frozen) = std::sync::mpsc::channel::<()>();
        let runtime = self.runtime.as_ref().expect("the node is running");
        // The one thread of the node waits here, and the node with it.
        runtime.spawn(async move {
            let _ = frozen.recv();
        });
        super::gateways::Thaw(thaw)
    }

    /// Waits for the first event that `pick` takes; the events before it are lost.
    pub(crate) async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(NodeEvent) -> Option<T>) -> T {
        let mut seen = Vec::new();
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the node is running");
                seen.push(short(&event));
                if let Some(found) = pick(event) {
                    return found;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}; seen: {seen:#?}; {:#?}", self.handle.status().await),
        }
    }

    pub(crate) async fn online(&mut self) {
        self.wait("Online", |event| (event == NodeEvent::Online).then_some(())).await;
    }

    pub(crate) async fn incoming(&mut self) -> (CallId, VerifiedCaller, Address) {
        self.wait("Incoming", |event| match event {
            NodeEvent::Incoming { call, from, to, .. } => Some((call, from, to)),
            _ => None,
        })
        .await
    }

    /// Waits for an event of a call other than the ladder's.
    pub(crate) async fn call_event<T>(
        &mut self,
        id: CallId,
        what: &str,
        mut pick: impl FnMut(SessionEvent) -> Option<T>,
    ) -> T {
        self.wait(what, |event| match event {
            NodeEvent::Call { call, event } if call == id => pick(event),
            _ => None,
        })
        .await
    }

    pub(crate) async fn ended(&mut self, id: CallId) -> (u8, Option<u16>, p2p_edge::calling::EndedBy) {
        self.call_event(id, "Ended", |event| match event {
            SessionEvent::Ended { cause, sip_status, by, .. } => Some((cause.value(), sip_status, by)),
            _ => None,
        })
        .await
    }

    pub(crate) async fn command(&self, call: CallId, command: SessionCommand) {
        self.handle.send(NodeCommand::Call { call, command }).await.unwrap();
    }

    pub(crate) async fn invite(&self, serial: u128, to: &str) -> CallId {
        let call = CallId::new(unix() * 1000, serial);
        let to = to.parse().unwrap();
        let (from, media) = (Caller::default(), "v=0\r\n".to_owned());
        let invite = NodeCommand::Invite { call, from, to, media, ring_timeout: Duration::from_secs(30) };
        self.handle.send(invite).await.unwrap();
        call
    }

    /// Rings and answers a call that has come in, with media up.
    pub(crate) async fn take(&self, call: CallId) {
        self.command(call, SessionCommand::Ringing).await;
        self.command(call, SessionCommand::Answer { media: "v=0\r\ns=answer\r\n".into() }).await;
        self.command(call, SessionCommand::MediaUp).await;
    }

    /// Waits until an outgoing call is answered and says that media is up.
    pub(crate) async fn answered(&mut self, call: CallId) {
        let media = self
            .call_event(call, "Answered", |event| match event {
                SessionEvent::Answered { media } => Some(media),
                SessionEvent::Ended { .. } => panic!("{event:?}"),
                _ => None,
            })
            .await;
        assert_eq!(media, "v=0\r\ns=answer\r\n");
        self.command(call, SessionCommand::MediaUp).await;
    }

    /// Polls the status until a condition holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&p2p_edge::node::NodeStatus) -> bool) {
        let start = std::time::Instant::now();
        loop {
            let status = self.handle.status().await;
            if holds(&status) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}: {status:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn short(event: &NodeEvent) -> String {
    let mut text = format!("{event:?}");
    text.truncate(160);
    text
}

/// Three supernodes that know each other, and are online.
pub(crate) async fn three_supernodes(pki: &Pki) -> [Running; 3] {
    let first = start(supernode(pki, 1, &[])).await;
    let mut second = start(supernode(pki, 2, &[&first])).await;
    let mut third = start(supernode(pki, 3, &[&first])).await;
    second.online().await;
    third.online().await;
    for node in [&first, &second, &third] {
        node.until("two other supernodes", |status| status.routing_table == 2).await;
    }
    [first, second, third]
}
