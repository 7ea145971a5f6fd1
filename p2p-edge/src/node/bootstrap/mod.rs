//! Joining: reading what is at hand, asking DNS, mirrors and the local network, and dialling.
//!
//! The rules are those of [`Plan`]; here is what they need from outside. Nothing here holds up the
//! node: each question has a task of its own, its answer comes through one bounded queue, and it is
//! given up after a time. Whoever is named still has to prove its certificate.

mod disk;
mod dns;
mod lan;
mod mirror;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::mpsc;

use super::task::{Task, Timer, unix_now};
use crate::bootstrap::{Demand, GoodPeers, Invite, Plan, Way};
use crate::identity::{BootstrapList, MAX_BOOTSTRAP_SOURCES, Trust};
use crate::routing::{Backoff, MAX_KNOWN, WANTED_BY_SERVERS};

pub(super) use dns::system_name_servers;
pub(super) use lan::build as build_lan;

/// Answers that may wait for the node.
const ANSWERS: usize = 8;
/// How soon after a change good peers are written to disk, and how often at most.
const SAVE_SOON: Duration = Duration::from_secs(2);
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// The ways of joining beside configured addresses. None where everything is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootstrapWays {
    /// File with the signed list (PEM), as it comes with the package.
    pub list_file: Option<PathBuf>,
    /// Names whose TXT records at `_dnsaddr.<name>` name supernodes: `dnsaddr=/ip4/.../p2p/...`.
    pub dns_names: Vec<String>,
    /// The name servers to ask; none: those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// HTTPS addresses of the signed list.
    pub mirrors: Vec<String>,
    /// File of the certificates (PEM) by which mirrors are known; none: those that browsers know.
    pub mirror_ca_file: Option<PathBuf>,
    /// File in which servers that were of use are remembered; it need not exist.
    pub peers_file: Option<PathBuf>,
    /// Whether supernodes of the local network are looked for, and found by others.
    pub lan: bool,
    /// Invites that were taken.
    pub invites: Vec<Invite>,
}

/// What one way of joining has brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayReport {
    /// Its name: [`Way::as_str`].
    pub way: &'static str,
    /// Nodes that it names.
    pub nodes: usize,
    /// How often it was asked, where it is asked.
    pub asked: u64,
    /// How often it had no answer, or one that was refused.
    pub failed: u64,
    /// How often a node that it had named proved itself.
    pub joined: u64,
    /// How long ago that was last.
    pub since: Option<Duration>,
}

/// What a way has said.
pub(super) struct Found {
    way: Way,
    answer: Result<Answer, String>,
}

/// What there is in an answer.
pub(super) enum Answer {
    Addresses(Vec<Multiaddr>),
    List(BootstrapList),
}

/// Where to ask.
struct Sources {
    dns_names: Vec<String>,
    dns_servers: Vec<SocketAddr>,
    mirrors: Vec<String>,
    mirror_ca_file: Option<PathBuf>,
    trust: Trust,
}

/// How a node joins.
pub(super) struct Joining {
    pub(super) plan: Plan,
    pub(super) good: GoodPeers,
    sources: Arc<Sources>,
    /// The sequence of the signed list in use.
    list: Option<u64>,
    peers_file: Option<PathBuf>,
    /// Whether good peers have changed since they were written.
    changed: bool,
    saved: Option<Instant>,
    answers: mpsc::Sender<Found>,
}

impl Joining {
    /// Reads what is at hand. Returns also where the answers to questions come out.
    pub(super) fn new(
        me: PeerId,
        (configured, ways): (&[Multiaddr], BootstrapWays),
        trust: &Trust,
        (first, seed): (Duration, u64),
        now: Instant,
    ) -> (Self, mpsc::Receiver<Found>) {
        let list = ways.list_file.as_ref().map(|file| disk::read_list(file, trust, unix_now()));
        let (mut dns_names, mut mirrors) = (ways.dns_names, ways.mirrors);
        if let Some(Ok(list)) = &list {
            add_sources(&mut dns_names, &list.names);
            add_sources(&mut mirrors, &list.mirrors);
        }
        let asks = [(Way::Dns, dns_names.is_empty()), (Way::Mirror, mirrors.is_empty())];
        let asks: Vec<Way> = asks.into_iter().filter(|(_, empty)| !empty).map(|(way, _)| way).collect();
        let mut plan = Plan::new(me, &asks, first, seed, now);
        plan.offer(Way::Configured, configured.iter().cloned(), now);
        let good = ways.peers_file.as_ref().map(|file| disk::read_peers(file)).unwrap_or_default();
        plan.offer(Way::Disk, good.addresses(unix_now()), now);
        for invite in &ways.invites {
            plan.offer(Way::Invite, invite.addresses().iter().cloned(), now);
        }
        let mut sequence = None;
        match list {
            Some(Ok(list)) => {
                plan.offer(Way::List, list.nodes().iter().cloned(), now);
                sequence = Some(list.sequence);
            }
            Some(Err(())) => plan.failed(Way::List),
            None => {}
        }
        let sources = Sources {
            dns_names,
            dns_servers: ways.dns_servers,
            mirrors,
            mirror_ca_file: ways.mirror_ca_file,
            trust: trust.clone(),
        };
        let (answers, found) = mpsc::channel(ANSWERS);
        let joining = Self {
            plan,
            good,
            sources: Arc::new(sources),
            list: sequence,
            peers_file: ways.peers_file,
            changed: false,
            saved: None,
            answers,
        };
        (joining, found)
    }

    /// Asks a way. Its answer comes through the queue.
    fn ask(&self, way: Way) {
        let (sources, answers) = (Arc::clone(&self.sources), self.answers.clone());
        tokio::spawn(async move {
            let answer = match way {
                Way::Dns => dns::ask(&sources.dns_names, &sources.dns_servers).await.map(Answer::Addresses),
                Way::Mirror => {
                    let ca = sources.mirror_ca_file.clone();
                    mirror::ask(&sources.mirrors, ca, &sources.trust).await.map(Answer::List)
                }
                _ => return,
            };
            // Errs when the node has stopped.
            let _ = answers.send(Found { way, answer }).await;
        });
    }

    /// Returns the addresses of servers that are remembered, one of each, the best first.
    pub(super) fn best_addresses(&self) -> Vec<String> {
        let mut seen = std::collections::HashSet::new();
        let addresses = self.good.addresses(unix_now());
        let first = addresses.filter(|address| match address.iter().last() {
            Some(Protocol::P2p(peer)) => seen.insert(peer),
            _ => false,
        });
        first.map(|address| address.to_string()).collect()
    }

    /// Returns what each way has brought.
    pub(super) fn report(&self, now: Instant) -> Vec<WayReport> {
        let report = |status: &crate::bootstrap::WayStatus| WayReport {
            way: status.way.as_str(),
            nodes: status.nodes,
            asked: status.asked,
            failed: status.failed,
            joined: status.joined,
            since: status.worked.map(|at| now.saturating_duration_since(at)),
        };
        self.plan.status().iter().map(report).collect()
    }

    /// Writes good peers to disk before the node stops.
    pub(super) fn save_now(&mut self) {
        if let Some(file) = self.peers_file.as_ref().filter(|_| self.changed) {
            disk::write_peers(file, &self.good.to_text());
            self.changed = false;
        }
    }
}

/// Adds sources that a signed list names, up to the most of a list.
fn add_sources(known: &mut Vec<String>, more: &[String]) {
    for source in more {
        if !known.contains(source) && known.len() < 2 * MAX_BOOTSTRAP_SOURCES {
            known.push(source.clone());
        }
    }
}

impl Task {
    /// Asks and dials what the plan says.
    pub(super) fn join(&mut self, now: Instant) {
        let servers = self.peers.servers().filter(|(peer, _)| !self.peers.is_doubted(peer)).count();
        for way in self.joining.plan.questions(now, servers) {
            tracing::debug!(way = way.as_str(), "no server is connected: asking");
            self.joining.ask(way);
        }
        let demand = self.demand(servers);
        let lost = servers == 0 && self.rejoin.is_due(now);
        if lost {
            self.rejoin.attempt(now, self.limits.timers.retry * 4);
        }
        if lost || demand.mends && self.joining.plan.is_mending(now) {
            let known: Vec<Multiaddr> = self.joining.good.addresses(unix_now()).take(MAX_KNOWN).collect();
            self.joining.plan.offer(Way::Disk, known, now);
        }
        let swarm = &self.swarm;
        let dials = self.joining.plan.dials(now, demand, |peer| swarm.is_connected(peer));
        for (peer, addresses) in dials {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .build();
            if let Err(error) = self.swarm.dial(options) {
                tracing::debug!(%peer, %error, "node not dialled");
                self.joining.plan.undialled(&peer);
            }
        }
    }

    /// Returns how many servers count as connected, and how many are wanted. A user whose servers are
    /// all in one network wants one of another.
    fn demand(&self, servers: usize) -> Demand {
        if self.role.is_server() {
            return Demand { connected: servers, wanted: WANTED_BY_SERVERS, mends: true };
        }
        let wanted = self.limits.own_reservations.max(3);
        let is_narrow = servers >= wanted && self.peers.vicinities() < 2;
        Demand { connected: if is_narrow { wanted - 1 } else { servers }, wanted, mends: false }
    }

    /// A way has answered, or not.
    pub(super) fn on_found(&mut self, now: Instant, Found { way, answer }: Found) {
        let plan = &mut self.joining.plan;
        match answer {
            Ok(Answer::Addresses(addresses)) => {
                plan.answered(way);
                let named = addresses.len();
                let new = plan.offer(way, addresses, now);
                tracing::info!(way = way.as_str(), named, new, "nodes to join by");
            }
            Ok(Answer::List(list)) if self.joining.list.is_some_and(|held| list.sequence < held) => {
                plan.failed(way);
                tracing::warn!(
                    sequence = list.sequence,
                    "the mirrors have an older bootstrap list than is held"
                );
            }
            Ok(Answer::List(list)) => {
                plan.answered(way);
                plan.withdraw(way);
                let new = plan.offer(way, list.nodes().iter().cloned(), now);
                self.joining.list = Some(list.sequence);
                tracing::info!(way = way.as_str(), named = list.nodes().len(), new, "nodes to join by");
            }
            Err(reason) => {
                plan.failed(way);
                tracing::warn!(way = way.as_str(), reason, "this way of joining does not work");
            }
        }
        self.check_online(now);
        self.join(now);
    }

    /// The local network has named somebody.
    pub(super) fn on_lan(&mut self, now: Instant, event: libp2p::mdns::Event) {
        let libp2p::mdns::Event::Discovered(found) = event else { return };
        let known = self.swarm.behaviour().lan.as_ref().map_or(0, |lan| lan.discovered_nodes().len());
        if known > lan::MAX_DISCOVERED {
            // Whoever floods the local network could fill the memory: it is not listened to any more.
            self.swarm.behaviour_mut().lan = None.into();
            tracing::warn!(known, "too many nodes in the local network: it is not searched any more");
            return;
        }
        let addresses = found.into_iter().map(|(peer, address)| match address.iter().last() {
            Some(Protocol::P2p(_)) => address,
            _ => address.with(Protocol::P2p(peer)),
        });
        self.joining.plan.offer(Way::Lan, addresses, now);
        self.join(now);
    }

    /// A server has proved itself: it is remembered.
    pub(super) fn on_joined(&mut self, now: Instant, peer: PeerId, addresses: &[Multiaddr]) {
        if self.joining.plan.proven(&peer, now) {
            // Who else there is in what may have been another network.
            self.refresh = Backoff::new(now);
            self.refresh_routes(now);
        }
        self.joining.good.succeeded(peer, addresses, unix_now());
        self.good_changed(now);
    }

    /// A node could not be dialled.
    pub(super) fn on_not_joined(&mut self, now: Instant, peer: &PeerId, error: &DialError) {
        self.joining.plan.undialled(peer);
        let tried = matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. });
        // Where nobody at all is reached it is this node's own network that fails.
        if tried && self.peers.servers().next().is_some() && !self.swarm.is_connected(peer) {
            self.joining.good.failed(peer);
            self.good_changed(now);
        }
    }

    fn good_changed(&mut self, now: Instant) {
        let joining = &mut self.joining;
        if joining.peers_file.is_none() || joining.changed {
            return;
        }
        joining.changed = true;
        let due = joining.saved.map_or(now + SAVE_SOON, |saved| (saved + SAVE_EVERY).max(now + SAVE_SOON));
        self.timers.set(Timer::SavePeers, Some(due));
    }

    /// Writes good peers to disk, on another thread.
    pub(super) fn save_peers(&mut self, now: Instant) {
        let joining = &mut self.joining;
        let Some(file) = joining.peers_file.clone() else { return };
        (joining.changed, joining.saved) = (false, Some(now));
        let text = joining.good.to_text();
        tokio::task::spawn_blocking(move || disk::write_peers(&file, &text));
    }
}
