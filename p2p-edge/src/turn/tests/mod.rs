//! The server in virtual time, seen from its clients and their peers.
#![allow(clippy::unwrap_used)]

pub(crate) mod attacks;
mod bounds;
mod message;
mod policy;
mod relaying;

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::*;
use crate::identity::{Credential, RevocationList};
use crate::testing::{Pki, TurnAnswer, TurnClient};

const NOW: u64 = 1_790_000_000;
/// A peer on the public network.
const PEER: &str = "198.51.100.7:4000";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A server, its clock, and the sockets that it has.
struct World {
    server: Server,
    secret: Secret,
    pki: Pki,
    start: Instant,
    now: Instant,
    next_port: u16,
    opened: Vec<AllocationId>,
    /// No socket can be opened any more.
    is_exhausted: bool,
}

/// What a server has sent to a client.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Answer(Box<TurnAnswer>),
    Relayed(SocketAddr, Vec<u8>),
    Nothing,
}

impl World {
    fn new() -> Self {
        Self::with(TurnLimits::default(), PeerPolicy::default())
    }

    fn with(limits: TurnLimits, policy: PeerPolicy) -> Self {
        let key = crate::testing::key(200);
        let start = Instant::now();
        let server = Server::new(Settings {
            secret: Secret::of(&key),
            policy,
            limits,
            families: (true, true),
            revocations: RevocationList::default(),
            seed: 7,
        });
        let pki = Pki::new(NOW).unwrap();
        Self {
            server,
            secret: Secret::of(&key),
            pki,
            start,
            now: start,
            next_port: 50_000,
            opened: Vec::new(),
            is_exhausted: false,
        }
    }

    fn unix(&self) -> u64 {
        NOW + self.now.duration_since(self.start).as_secs()
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.server.handle_timeout(self.now);
    }

    /// A client with a credential for the next hour, of the user with this number.
    fn client(&self, number: u8) -> TurnClient {
        self.client_until(number, self.unix() + 3600)
    }

    fn client_until(&self, number: u8, expiry: u64) -> TurnClient {
        let name = format!("user{number}").parse().unwrap();
        let user = self.pki.user(&name, number).unwrap();
        let credential = Credential::Handle(user.certificate.clone());
        let party = credential.verify(&self.pki.trust().unwrap(), &RevocationList::default(), NOW).unwrap();
        let (username, password) = self.secret.issue(&user.key.peer_id(), party.standing(), expiry);
        TurnClient::new(&username, password.expose())
    }

    /// Sends a packet as a client.
    fn client_sends(&mut self, who: Client, client: &mut TurnClient, packet: &[u8]) -> Heard {
        let (mut out, unix) = (Vec::new(), self.unix());
        match self.server.handle_client(self.now, unix, who, packet, &mut out) {
            Reaction::Nothing => return Heard::Nothing,
            Reaction::Relay { to, data, .. } => return Heard::Relayed(to, packet[data].to_vec()),
            Reaction::Reply => {}
            Reaction::Open { v6, even } => {
                let port = if even { self.next_port.next_multiple_of(2) } else { self.next_port };
                self.next_port = port + 1;
                let ip = if v6 { "2001:db8::99" } else { "203.0.113.99" };
                let relayed = SocketAddr::new(ip.parse().unwrap(), port);
                let relayed = Some(relayed).filter(|_| !self.is_exhausted);
                self.opened.extend(self.server.opened(self.now, relayed, &mut out));
            }
        }
        Heard::Answer(Box::new(client.hear(&out).unwrap()))
    }

    fn ask(&mut self, who: Client, client: &mut TurnClient, packet: &[u8]) -> TurnAnswer {
        match self.client_sends(who, client, packet) {
            Heard::Answer(answer) => *answer,
            other => panic!("no answer: {other:?}"),
        }
    }

    /// Allocates as a client does: the first time without a nonce.
    fn allocate(&mut self, who: Client, client: &mut TurnClient) -> TurnAnswer {
        let first = client.allocate();
        let challenge = self.ask(who, client, &first);
        if !matches!(challenge.code, Some(401 | 438)) {
            return challenge;
        }
        let second = client.allocate();
        self.ask(who, client, &second)
    }

    /// A client with an allocation and a channel to [`PEER`].
    fn connected(&mut self, number: u8) -> (Client, TurnClient) {
        let (who, mut client) = (datagram(number), self.client(number));
        assert_eq!(self.allocate(who, &mut client).code, None);
        let bind = client.bind(0x4000, at(PEER));
        assert_eq!(self.ask(who, &mut client, &bind).code, None);
        (who, client)
    }

    /// Sends data as a peer to the allocation opened last.
    fn peer_sends(&mut self, peer: &str, data: &[u8]) -> Option<(Client, Vec<u8>)> {
        let mut buffer = vec![0xEE; HEADROOM];
        buffer.extend_from_slice(data);
        buffer.extend_from_slice(&[0xEE; TAILROOM]);
        let range: Range<usize> = HEADROOM..HEADROOM + data.len();
        let id = *self.opened.last().unwrap();
        let (client, range) = self.server.handle_peer(self.now, id, at(peer), &mut buffer, range)?;
        Some((client, buffer[range].to_vec()))
    }

    fn refused(&self, reason: TurnRefusal) -> u64 {
        self.server.counts().refused(reason)
    }
}

/// The client with this number, on datagrams.
fn datagram(number: u8) -> Client {
    Client { address: SocketAddr::from(([192, 0, 2, number], 1000)), path: Path::Datagram(0) }
}
