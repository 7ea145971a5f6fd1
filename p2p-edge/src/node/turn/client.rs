//! The relays that serve this node: supernodes are asked for credentials, which are kept for half of
//! their time.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::request_response::OutboundRequestId;
use tokio::sync::oneshot;

use super::serve::{MAX_ENDPOINTS, TurnRequest, TurnResponse, WireEndpoint};
use super::{IceEndpoint, IceServer, IceTransport};
use crate::node::Refusal;
use crate::node::task::{Task, Timer};
use crate::node::wire;
use crate::turn::Password;

/// Servers that are kept.
const WANTED: usize = 3;
/// Servers that are asked at once: some have no relay.
const ASKED: usize = 8;
/// Whoever waits gets what there is after this time.
const PATIENCE: Duration = Duration::from_secs(2);
/// Servers are asked again after this time where too few have answered.
const AGAIN: Duration = Duration::from_secs(30);
/// Questions of the owner that wait at one time; one more is answered with what there is.
const MAX_WAITING: usize = 256;
/// What is kept for longer is asked for again all the same.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Longest user name (RFC 8489 14.3) and password that are taken over.
const MAX_USERNAME: usize = 508;
const MAX_PASSWORD: usize = 256;
/// Longest name of a host (RFC 1035 2.3.4).
const MAX_NAME: usize = 253;

/// A relay that is kept.
struct Held {
    peer: PeerId,
    network: Option<u32>,
    server: IceServer,
    until: Instant,
}

/// The relays of a node, and who is being asked.
#[derive(Default)]
pub(in crate::node) struct IceServers {
    held: Vec<Held>,
    asked: HashMap<OutboundRequestId, (PeerId, Option<u32>)>,
    waiting: Vec<oneshot::Sender<Vec<IceServer>>>,
    again: Option<Instant>,
}

impl IceServers {
    fn list(&self) -> Vec<IceServer> {
        self.held.iter().take(WANTED).map(|held| held.server.clone()).collect()
    }

    fn answer(&mut self) {
        let list = self.list();
        for waiting in self.waiting.drain(..) {
            // Errs when nobody waits any more.
            let _ = waiting.send(list.clone());
        }
    }
}

/// The network of a server: what fails together. 16 bits of IPv4, 32 of IPv6.
fn network_of(ip: IpAddr) -> u32 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_bits() >> 16,
        IpAddr::V6(ip) => (ip.to_bits() >> 96) as u32,
    }
}

/// Puts candidates into an order in which each is of another network than those before it, as far as
/// that goes. `taken` are networks of servers that are there already.
fn diverse<T>(mut candidates: Vec<(T, Option<u32>)>, taken: &HashSet<u32>) -> Vec<(T, Option<u32>)> {
    let mut seen = taken.clone();
    let (mut first, mut later) = (Vec::new(), Vec::new());
    for candidate in candidates.drain(..) {
        match candidate.1 {
            Some(network) if seen.insert(network) => first.push(candidate),
            _ => later.push(candidate),
        }
    }
    first.append(&mut later);
    first
}

impl Task {
    /// Finds relays for the owner of the node.
    pub(in crate::node) fn ice_servers(&mut self, now: Instant, waiting: oneshot::Sender<Vec<IceServer>>) {
        let servers: HashMap<PeerId, Option<IpAddr>> = self.peers.servers_with_ip().collect();
        // A server that is gone relays no more, as far as is known here.
        self.ice.held.retain(|held| held.until > now && servers.contains_key(&held.peer));
        let is_due = self.ice.again.is_none_or(|again| again <= now);
        let wanted = self.ice.held.len() < WANTED && is_due && self.ice.asked.is_empty();
        if wanted {
            let taken = self.ice.held.iter().filter_map(|held| held.network).collect();
            let known: HashSet<PeerId> = self.ice.held.iter().map(|held| held.peer).collect();
            let mut others: Vec<(PeerId, Option<u32>)> = (servers.iter())
                .filter(|(peer, _)| !known.contains(peer))
                .map(|(peer, ip)| (*peer, ip.map(network_of)))
                .collect();
            others.sort_by_key(|(peer, _)| peer.to_bytes());
            for (peer, network) in diverse(others, &taken).into_iter().take(ASKED) {
                let request = wire::encode(&TurnRequest::default());
                let id = self.swarm.behaviour_mut().turn.send_request(&peer, request);
                self.ice.asked.insert(id, (peer, network));
            }
            if !self.ice.asked.is_empty() {
                self.ice.again = Some(now + AGAIN);
            }
        }
        self.ice.waiting.push(waiting);
        if self.ice.asked.is_empty() || self.ice.waiting.len() > MAX_WAITING {
            self.ice.answer();
        } else if !self.timers.is_set(&Timer::Ice) {
            self.timers.set(Timer::Ice, Some(now + PATIENCE));
        }
    }

    /// Those who wait have waited long enough.
    pub(in crate::node) fn on_ice_late(&mut self) {
        self.ice.answer();
    }

    /// Takes the answer of a server, or its failure.
    pub(super) fn on_ice_answer(&mut self, now: Instant, id: OutboundRequestId, answer: Option<&[u8]>) {
        let Some((peer, network)) = self.ice.asked.remove(&id) else { return };
        if let Some(bytes) = answer {
            match wire::decode::<TurnResponse>(bytes)
                .ok_or(())
                .and_then(|answer| read(peer, answer, self.unix()))
            {
                Ok(Some((server, life))) => {
                    let until = now + (life / 2).min(LONGEST);
                    self.ice.held.push(Held { peer, network, server, until });
                }
                Ok(None) => {}
                Err(()) => self.offended(&peer, Refusal::MessageMalformed),
            }
        }
        // Those who answer first are near; of these two of different networks come first.
        let held = std::mem::take(&mut self.ice.held);
        let keyed = held.into_iter().map(|held| (held.network, held)).map(|(network, held)| (held, network));
        self.ice.held = diverse(keyed.collect(), &HashSet::new()).into_iter().map(|(held, _)| held).collect();
        if self.ice.asked.is_empty() || self.ice.held.len() >= WANTED {
            self.ice.answer();
            self.timers.set(Timer::Ice, None);
        }
    }
}

/// Reads an answer: a server and how long its credential is good, or nothing where the far end has
/// refused.
fn read(peer: PeerId, answer: TurnResponse, unix: u64) -> Result<Option<(IceServer, Duration)>, ()> {
    if answer.refused.is_some() {
        return Ok(None);
    }
    let TurnResponse { username, password, expires, endpoints, .. } = answer;
    if username.is_empty()
        || username.len() > MAX_USERNAME
        || password.is_empty()
        || password.len() > MAX_PASSWORD
        || endpoints.len() > MAX_ENDPOINTS
    {
        return Err(());
    }
    // Transports of later versions are left out.
    let endpoints: Vec<IceEndpoint> = endpoints
        .into_iter()
        .filter_map(|endpoint| endpoint_of(endpoint).transpose())
        .collect::<Result<_, _>>()?;
    let life = Duration::from_secs(expires.saturating_sub(unix));
    if endpoints.is_empty() || life.is_zero() {
        return Ok(None);
    }
    let password = Password::new(password);
    let server = IceServer { peer: peer.to_string(), endpoints, username, password, expires_unix: expires };
    Ok(Some((server, life)))
}

fn endpoint_of(endpoint: WireEndpoint) -> Result<Option<IceEndpoint>, ()> {
    let transport = match endpoint.transport {
        0 => IceTransport::Udp,
        1 => IceTransport::Tcp,
        2 => IceTransport::Tls,
        _ => return Ok(None),
    };
    let address: std::net::SocketAddr = endpoint.address.parse().map_err(|_| ())?;
    let is_name = |name: &String| {
        name.len() <= MAX_NAME && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
    };
    if address.port() == 0
        || address.ip().is_unspecified()
        || address.ip().is_multicast()
        || !endpoint.name.as_ref().is_none_or(is_name)
    {
        return Err(());
    }
    Ok(Some(IceEndpoint { transport, address, name: endpoint.name }))
}
