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
/// A server is asked again after this time where it has given nothing.
const AGAIN: Duration = Duration::from_secs(30);
/// Questions of the owner that wait at one time; one more is answered with what there is.
const MAX_WAITING: usize = 256;
/// What is good for longer is asked for again all the same.
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
    /// When another credential is asked for: at half of its time.
    renew: Instant,
    /// When it ends.
    until: Instant,
}

/// The relays of a node, and who is being asked.
#[derive(Default)]
pub(in crate::node) struct IceServers {
    held: Vec<Held>,
    asked: HashMap<OutboundRequestId, (PeerId, Option<u32>)>,
    waiting: Vec<oneshot::Sender<Vec<IceServer>>>,
    /// When a server may be asked again that was asked before.
    again: HashMap<PeerId, Instant>,
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
        self.ice.again.retain(|peer, again| *again > now && servers.contains_key(peer));
        let fresh: Vec<&Held> = self.ice.held.iter().filter(|held| held.renew > now).collect();
        if fresh.len() < WANTED {
            let taken = fresh.iter().filter_map(|held| held.network).collect();
            let known: HashSet<PeerId> = fresh.iter().map(|held| held.peer).collect();
            let mut others: Vec<(PeerId, Option<u32>)> = (servers.iter())
                .filter(|(peer, _)| !known.contains(peer) && !self.ice.again.contains_key(peer))
                .map(|(peer, ip)| (*peer, ip.map(network_of)))
                .collect();
            others.sort_by_key(|(peer, _)| peer.to_bytes());
            let room = ASKED.saturating_sub(self.ice.asked.len());
            for (peer, network) in diverse(others, &taken).into_iter().take(room) {
                let request = wire::encode(&TurnRequest::default());
                let id = self.swarm.behaviour_mut().turn.send_request(&peer, request);
                self.ice.asked.insert(id, (peer, network));
                self.ice.again.insert(peer, now + AGAIN);
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
                    let life = life.min(LONGEST);
                    self.ice.held.retain(|held| held.peer != peer);
                    let (renew, until) = (now + life / 2, now + life);
                    self.ice.held.push(Held { peer, network, server, renew, until });
                    self.ice.again.remove(&peer);
                }
                Ok(None) => {}
                Err(()) => self.offended(&peer, Refusal::MessageMalformed),
            }
        }
        // Those who answer first are near; of these two of different networks come first.
        let held = std::mem::take(&mut self.ice.held);
        let keyed: Vec<(Held, Option<u32>)> = held.into_iter().map(with_network).collect();
        self.ice.held = diverse(keyed, &HashSet::new()).into_iter().map(|(held, _)| held).collect();
        self.ice.held.truncate(ASKED);
        let fresh = self.ice.held.iter().filter(|held| held.renew > now).count();
        if self.ice.asked.is_empty() || fresh >= WANTED {
            self.ice.answer();
            self.timers.set(Timer::Ice, None);
        }
    }
}

fn with_network(held: Held) -> (Held, Option<u32>) {
    let network = held.network;
    (held, network)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 1_790_000_000;

    #[test]
    fn servers_of_different_networks_come_first() {
        let network = |ip: &str| Some(network_of(ip.parse().unwrap()));
        let all = vec![
            ('a', network("192.0.2.1")),
            ('b', network("192.0.99.1")),
            ('c', None),
            ('d', network("198.51.100.1")),
            ('e', network("2001:db8:1::1")),
            ('f', network("2001:db8:2::1")),
        ];
        let order = |taken: &[Option<u32>]| {
            let taken = taken.iter().copied().flatten().collect();
            diverse(all.clone(), &taken).into_iter().map(|(name, _)| name).collect::<String>()
        };
        assert_eq!(order(&[]), "adebcf");
        assert_eq!(order(&[network("192.0.3.1")]), "deabcf");
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.7.7"));
    }

    fn answer() -> TurnResponse {
        let endpoint = |transport, address: &str, name: Option<&str>| WireEndpoint {
            transport,
            address: address.to_owned(),
            name: name.map(str::to_owned),
        };
        TurnResponse {
            username: "user".to_owned(),
            password: "open sesame".to_owned(),
            expires: NOW + 100,
            endpoints: vec![
                endpoint(0, "192.0.2.1:3478", None),
                endpoint(2, "[2001:db8::1]:443", Some("turn.example.org")),
                endpoint(2, "[2001:db8::1]:443", None),
                endpoint(7, "by carrier pigeon", None),
            ],
            refused: None,
        }
    }

    #[test]
    fn an_answer_is_read_and_transports_of_later_versions_are_left_out() {
        let peer = PeerId::random();
        let (server, life) = read(peer, answer(), NOW).unwrap().unwrap();
        assert_eq!((server.peer.clone(), life), (peer.to_string(), Duration::from_secs(100)));
        assert_eq!(
            server.uris(),
            [
                "stun:192.0.2.1:3478",
                "turn:192.0.2.1:3478?transport=udp",
                "turns:turn.example.org:443?transport=tcp",
                "turns:[2001:db8::1]:443?transport=tcp"
            ]
        );
        assert!(!format!("{server:?}").contains("sesame"), "{server:?}");
        assert_eq!(read(peer, answer(), NOW + 100), Ok(None), "it has ended");
        assert_eq!(read(peer, TurnResponse { endpoints: Vec::new(), ..answer() }, NOW), Ok(None));
        let refused = TurnResponse { refused: Some("rate".to_owned()), ..TurnResponse::default() };
        assert_eq!(read(peer, refused, NOW), Ok(None));
    }

    #[test]
    fn what_no_server_of_ours_says_is_an_offence() {
        let broken: [fn(&mut TurnResponse); 9] = [
            |answer| answer.username.clear(),
            |answer| answer.username = "x".repeat(MAX_USERNAME + 1),
            |answer| answer.password.clear(),
            |answer| answer.password = "x".repeat(MAX_PASSWORD + 1),
            |answer| answer.endpoints[0].address = "localhost:3478".to_owned(),
            |answer| answer.endpoints[0].address = "192.0.2.1:0".to_owned(),
            |answer| answer.endpoints[0].address = "0.0.0.0:3478".to_owned(),
            |answer| answer.endpoints[1].name = Some("a/b".to_owned()),
            |answer| {
                let more = || WireEndpoint { transport: 0, address: "192.0.2.1:1".to_owned(), name: None };
                answer.endpoints.extend((0..MAX_ENDPOINTS).map(|_| more()));
            },
        ];
        for (at, change) in broken.iter().enumerate() {
            let mut answer = answer();
            change(&mut answer);
            assert_eq!(read(PeerId::random(), answer, NOW), Err(()), "case {at}");
        }
    }
}
