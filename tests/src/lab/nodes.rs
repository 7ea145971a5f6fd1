//! Nodes of the overlay alone, without gateway or media: as many as are wanted, of one authority.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use call_model::{Codec, Handle};
use p2p_edge::identity::{NodeClaims, NodeKey, Prefix, Price, Role};
use p2p_edge::node::{Node, NodeConfig, NodeEvent, NodeHandle, NodeLimits, NodeRole, NodeStatus};
use p2p_edge::record::GatewayOffer;
use p2p_edge::testing::Pki;
use tokio::sync::mpsc::Receiver;
use tokio::time::{sleep, timeout};

/// Certifies and starts nodes. Keys follow from numbers and certificates from the time, so that processes which are
/// told the same time have the same authority.
#[derive(Debug)]
pub struct Nodes {
    pki: Pki,
}

/// Where a node listens, where others are told to find it, and whom it begins with.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// Multiaddrs to listen on.
    pub listen: Vec<String>,
    /// Multiaddrs that others are told; those of `listen` where there is none.
    pub external: Vec<String>,
    /// Multiaddrs of supernodes.
    pub bootstrap: Vec<String>,
    /// Whether any number of one network may share a bucket of the routing table, as where all run on one machine.
    pub one_network: bool,
    /// Whether a supernode is spared the records by which it measures the overlay.
    pub is_quiet: bool,
}

impl Place {
    /// Any port of the loopback device.
    #[must_use]
    pub fn loopback(bootstrap: &[String]) -> Self {
        Self {
            listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
            bootstrap: bootstrap.to_vec(),
            ..Self::default()
        }
    }

    /// Nowhere: others get there through relays.
    #[must_use]
    pub fn nowhere(bootstrap: &[String]) -> Self {
        Self { bootstrap: bootstrap.to_vec(), ..Self::default() }
    }
}

/// A node that runs in this process.
#[derive(Debug)]
pub struct Running {
    /// Speaks to it.
    pub handle: NodeHandle,
    /// Its first address, with its PeerId; only the PeerId where it listens nowhere.
    pub address: String,
    /// What it tells.
    pub events: Receiver<NodeEvent>,
}

impl Nodes {
    /// Makes the authority.
    ///
    /// # Errors
    /// When its certificates cannot be made.
    pub fn new(unix: u64) -> Result<Self> {
        Ok(Self { pki: Pki::new(unix)? })
    }

    /// The handle of the user with this number.
    ///
    /// # Errors
    /// None: every number makes a valid handle.
    pub fn handle(number: u32) -> Result<Handle> {
        Ok(format!("user{number}").parse()?)
    }

    /// Starts a supernode.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn supernode(&self, number: u32, place: Place) -> Result<Running> {
        let (key, claims) = (key(0, number), NodeClaims::supernode());
        let chain = self.pki.enrolment.issue_node(
            &format!("supernode-{number}"),
            &key.public(),
            &claims,
            10_000 + u64::from(number),
            self.pki.validity(),
        )?;
        self.start(key, NodeRole::Supernode { chain }, place).await
    }

    /// Starts a gateway that takes calls to the numbers under a prefix.
    ///
    /// # Errors
    /// When it cannot listen, or the prefix is none.
    pub async fn gateway(&self, number: u32, prefix: &str, place: Place) -> Result<Running> {
        let (key, prefixes) = (key(2, number), vec![prefix.parse::<Prefix>()?]);
        let claims = NodeClaims {
            role: Role::Gateway,
            prefixes: prefixes.clone(),
            number_prefixes: prefixes.clone(),
            rate: None,
        };
        let (name, serial) = (format!("gateway-{number}"), 20_000 + u64::from(number));
        let chain =
            self.pki.enrolment.issue_node(&name, &key.public(), &claims, serial, self.pki.validity())?;
        let price = Price { micros_per_minute: 1_000, currency: "EUR".parse()? };
        // The node sets what is 0.
        let offer = GatewayOffer {
            prefixes,
            price,
            codecs: vec![Codec::Opus],
            capacity: 1_000,
            load: 0,
            sequence: 0,
            expires_unix: 0,
        };
        let role = NodeRole::Gateway { chain, offers: vec![offer], numbers: Vec::new() };
        self.start(key, role, place).await
    }

    /// Starts a user.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn user(&self, number: u32, place: Place) -> Result<Running> {
        let key = key(1, number);
        let serial = 1_000_000 + u64::from(number);
        let certificate = self.pki.handle(&Self::handle(number)?, &[&key], serial)?;
        self.start(key, NodeRole::User { certificate }, place).await
    }

    async fn start(&self, key: NodeKey, role: NodeRole, place: Place) -> Result<Running> {
        let mut limits = NodeLimits::default();
        if place.one_network {
            limits.same_subnet_per_bucket = usize::MAX;
        }
        if place.is_quiet {
            limits.timers.probe = Duration::ZERO;
        }
        let (handle, events) = Node::spawn(NodeConfig {
            listen: place.listen,
            external: place.external.clone(),
            bootstrap: place.bootstrap,
            limits,
            ..NodeConfig::new(key, self.pki.trust()?, role)
        })
        .await?;
        let listening = handle.status().await.listening;
        let address = place.external.first().or(listening.first()).cloned().unwrap_or_default();
        let address = format!("{address}/p2p/{}", handle.peer_id());
        Ok(Running { handle, address, events })
    }
}

impl Running {
    /// Waits until the node says that it has joined.
    ///
    /// # Errors
    /// When it stops, or says nothing in that time.
    pub async fn online(&mut self, patience: Duration) -> Result<()> {
        let online = async {
            while let Some(event) = self.events.recv().await {
                if event == NodeEvent::Online {
                    return Ok(());
                }
            }
            bail!("a node has stopped")
        };
        timeout(patience, online).await.context("a node does not come online")?
    }
}

/// The state of each.
pub async fn statuses(nodes: &[Running]) -> Vec<NodeStatus> {
    let mut all = Vec::new();
    for node in nodes {
        all.push(node.handle.status().await);
    }
    all
}

/// Waits until each has so many others in its routing table.
///
/// # Errors
/// When that takes longer.
pub async fn acquainted(nodes: &[Running], others: usize, patience: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        let least = statuses(nodes).await.iter().map(|status| status.routing_table).min().unwrap_or(0);
        if least >= others {
            return Ok(());
        }
        ensure!(begin.elapsed() < patience, "a node knows {least} of {others} others");
        sleep(Duration::from_millis(200)).await;
    }
}

/// The key with a number, of one kind of node.
fn key(kind: u8, number: u32) -> NodeKey {
    let mut seed = [0x5a; 32];
    seed[0] = kind;
    seed[1..5].copy_from_slice(&number.to_be_bytes());
    NodeKey::from_seed(seed)
}
