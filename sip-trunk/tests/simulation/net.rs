//! A virtual network: endpoints and hand-written peers, latency, loss, duplication, reordering, TCP,
//! and time that jumps from one thing that happens to the next.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use call_model::{Address, CallId, Caller, Cause, TrunkName};
use sip_trunk::{
    Command, ConnectionId, EndedBy, Endpoint, EndpointConfig, Event, Listener, LocalMedia, PeerIdentity,
    StreamEvent, Transmit, Transport, TrunkConfig,
};

/// A small generator with a seed (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub loss_percent: u64,
    pub duplicate_percent: u64,
    /// Up to this much is added to the latency of each datagram.
    pub jitter_ms: u64,
}

/// Says whether to drop a message, by its source and text.
pub type Filter = Box<dyn FnMut(SocketAddr, &str) -> bool>;

enum Flight {
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Opened {
        node: usize,
        connection: ConnectionId,
        local: SocketAddr,
        remote: SocketAddr,
        inbound: bool,
        transport: Transport,
        /// Whose certificate is shown.
        far: usize,
    },
    Failed {
        node: usize,
        connection: ConnectionId,
    },
    Data {
        node: usize,
        connection: ConnectionId,
        bytes: Vec<u8>,
    },
    Closed {
        node: usize,
        connection: ConnectionId,
    },
}

pub enum Node {
    Endpoint(Box<Endpoint>),
    /// A hand-written peer: what it received, in order.
    Raw(Vec<(SocketAddr, String)>),
}

pub struct Net {
    pub now: Instant,
    pub start: Instant,
    pub nodes: Vec<(SocketAddr, Node)>,
    pub events: Vec<Vec<Event>>,
    pub weather: Weather,
    pub dice: Dice,
    /// Drops a message when it says so; sees (from, text).
    pub filter: Option<Filter>,
    /// Every message sent: when, from, to, text. Stream writes included.
    pub log: Vec<(Duration, SocketAddr, SocketAddr, String)>,
    /// Every datagram sent that is no text: when, from, to.
    pub binary: Vec<(Duration, SocketAddr, SocketAddr, Vec<u8>)>,
    /// TCP connections to these addresses fail.
    pub closed_ports: Vec<SocketAddr>,
    /// Whom the certificate of a node is for, shown on every TLS connection.
    pub identities: HashMap<usize, PeerIdentity>,
    /// What connections were asked for, with the trunk they are for.
    pub dialled: Vec<(Transport, SocketAddr, Option<TrunkName>)>,
    flights: BTreeMap<(Instant, u64), Flight>,
    serial: u64,
    /// The far end of each end of a connection.
    links: HashMap<(usize, ConnectionId), (usize, ConnectionId)>,
    next_link: u64,
    /// Ends of connections that died without a word.
    frozen: Vec<(usize, ConnectionId)>,
}

pub const LATENCY: Duration = Duration::from_millis(5);

impl Net {
    pub fn new(seed: u64) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            start,
            nodes: Vec::new(),
            events: Vec::new(),
            weather: Weather::default(),
            dice: Dice::new(seed),
            filter: None,
            log: Vec::new(),
            binary: Vec::new(),
            closed_ports: Vec::new(),
            identities: HashMap::new(),
            dialled: Vec::new(),
            flights: BTreeMap::new(),
            serial: 0,
            links: HashMap::new(),
            next_link: ConnectionId::INBOUND,
            frozen: Vec::new(),
        }
    }

    pub fn add_endpoint(&mut self, config: EndpointConfig) -> usize {
        let mut seed = [7u8; 32];
        seed[0] = self.nodes.len() as u8;
        let address = config.listeners[0].local;
        let endpoint = Endpoint::new(config, seed, self.now, 1_700_000_000_000).expect("config");
        self.add(address, Node::Endpoint(Box::new(endpoint)))
    }

    pub fn add_raw(&mut self, address: SocketAddr) -> usize {
        self.add(address, Node::Raw(Vec::new()))
    }

    fn add(&mut self, address: SocketAddr, node: Node) -> usize {
        self.nodes.push((address, node));
        self.events.push(Vec::new());
        self.nodes.len() - 1
    }

    pub fn endpoint(&mut self, node: usize) -> &mut Endpoint {
        match &mut self.nodes[node].1 {
            Node::Endpoint(endpoint) => endpoint,
            Node::Raw(_) => panic!("node {node} is no endpoint"),
        }
    }

    pub fn command(&mut self, node: usize, command: Command) {
        self.try_command(node, command).expect("command");
    }

    pub fn try_command(&mut self, node: usize, command: Command) -> Result<(), sip_trunk::CommandError> {
        let now = self.now;
        let done = self.endpoint(node).handle_command(now, command);
        self.collect();
        done
    }

    fn fly(&mut self, after: Duration, flight: Flight) {
        self.serial += 1;
        self.flights.insert((self.now + after, self.serial), flight);
    }

    /// Sends text from a raw peer.
    pub fn say(&mut self, from: usize, to: SocketAddr, text: &str) {
        let from = self.nodes[from].0;
        self.log.push((self.now - self.start, from, to, text.to_owned()));
        self.fly(LATENCY, Flight::Datagram { from, to, bytes: text.as_bytes().to_vec() });
    }

    /// Sends from an address that is no node's.
    pub fn say_from(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.fly(LATENCY, Flight::Datagram { from, to, bytes: bytes.to_vec() });
    }

    /// Opens a TCP connection from a raw peer; returns its end.
    pub fn raw_connect(&mut self, from: usize, port: u16, to: SocketAddr) -> ConnectionId {
        let own = ConnectionId(self.serial + 1_000_000);
        let local = SocketAddr::new(self.nodes[from].0.ip(), port);
        self.link(from, own, local, to, Transport::Tcp);
        own
    }

    /// As [`Self::raw_connect`], by another transport; over TLS the peer shows its certificate.
    pub fn raw_connect_by(
        &mut self,
        from: usize,
        port: u16,
        to: SocketAddr,
        transport: Transport,
    ) -> ConnectionId {
        let own = ConnectionId(self.serial + 1_000_000);
        let local = SocketAddr::new(self.nodes[from].0.ip(), port);
        self.link(from, own, local, to, transport);
        own
    }

    pub fn raw_write(&mut self, node: usize, connection: ConnectionId, text: &str) {
        if let Some(&(far, id)) = self.links.get(&(node, connection)) {
            self.fly(LATENCY, Flight::Data { node: far, connection: id, bytes: text.as_bytes().to_vec() });
        }
    }

    /// The end of the latest connection of a raw peer.
    pub fn latest_link(&self, node: usize) -> ConnectionId {
        let ends = self.links.keys().filter(|(n, _)| *n == node).map(|(_, c)| *c);
        ends.max().expect("no connection")
    }

    /// Lets every TCP connection swallow what is written to it, as when a firewall forgot it.
    pub fn freeze_all(&mut self) {
        self.frozen = self.links.drain().map(|(end, _)| end).collect();
        self.frozen.sort_by_key(|(n, c)| (*n, c.0));
    }

    /// Both ends learn that the frozen connections are gone.
    pub fn reset_frozen(&mut self) {
        for (node, connection) in std::mem::take(&mut self.frozen) {
            self.fly(LATENCY, Flight::Closed { node, connection });
        }
    }

    /// Cuts every TCP connection.
    pub fn cut_all(&mut self) {
        let mut ends: Vec<_> = self.links.keys().copied().collect();
        ends.sort_by_key(|(n, c)| (*n, c.0));
        self.links.clear();
        for (node, connection) in ends {
            self.fly(LATENCY, Flight::Closed { node, connection });
        }
    }

    fn link(
        &mut self,
        node: usize,
        connection: ConnectionId,
        local: SocketAddr,
        remote: SocketAddr,
        transport: Transport,
    ) {
        let far = self.nodes.iter().position(|(address, _)| *address == remote);
        let Some(far) = far.filter(|_| !self.closed_ports.contains(&remote)) else {
            self.fly(LATENCY, Flight::Failed { node, connection });
            return;
        };
        self.next_link += 1;
        let theirs = ConnectionId(self.next_link);
        self.links.insert((node, connection), (far, theirs));
        self.links.insert((far, theirs), (node, connection));
        let (here, there) = (local, remote);
        let ends = [(far, theirs, there, here, true, node), (node, connection, here, there, false, far)];
        for (node, connection, local, remote, inbound, far) in ends {
            let opened = Flight::Opened { node, connection, local, remote, inbound, transport, far };
            self.fly(LATENCY, opened);
        }
    }

    /// Takes what the endpoints want to send and say.
    fn collect(&mut self) {
        for node in 0..self.nodes.len() {
            let address = self.nodes[node].0;
            while let Node::Endpoint(endpoint) = &mut self.nodes[node].1 {
                let Some(transmit) = endpoint.poll_transmit() else { break };
                match transmit {
                    Transmit::Datagram { local, remote, bytes } => {
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        if std::str::from_utf8(&bytes).is_err() {
                            self.binary.push((self.now - self.start, local, remote, bytes.to_vec()));
                        }
                        self.log.push((self.now - self.start, local, remote, text.clone()));
                        let dropped = self.filter.as_mut().is_some_and(|f| f(local, &text));
                        if dropped || self.dice.chance(self.weather.loss_percent) {
                            continue;
                        }
                        let copies = 1 + u64::from(self.dice.chance(self.weather.duplicate_percent));
                        for _ in 0..copies {
                            let jitter = Duration::from_millis(self.dice.below(self.weather.jitter_ms + 1));
                            let flight = Flight::Datagram { from: local, to: remote, bytes: bytes.to_vec() };
                            self.fly(LATENCY + jitter, flight);
                        }
                    }
                    Transmit::Connect { connection, transport, remote, trunk } => {
                        let local = SocketAddr::new(address.ip(), 40_000 + self.next_link as u16);
                        self.dialled.push((transport, remote, trunk));
                        self.link(node, connection, local, remote, transport);
                    }
                    Transmit::Stream { connection, bytes } => {
                        let Some(&(far, id)) = self.links.get(&(node, connection)) else { continue };
                        let to = self.nodes[far].0;
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        self.log.push((self.now - self.start, address, to, text));
                        // In two pieces, to exercise the framing.
                        let (head, tail) = bytes.split_at(bytes.len() / 2);
                        self.fly(LATENCY, Flight::Data { node: far, connection: id, bytes: head.to_vec() });
                        self.fly(LATENCY, Flight::Data { node: far, connection: id, bytes: tail.to_vec() });
                    }
                    Transmit::Close { connection } => {
                        if let Some((far, id)) = self.links.remove(&(node, connection)) {
                            self.links.remove(&(far, id));
                            self.fly(LATENCY, Flight::Closed { node: far, connection: id });
                        }
                    }
                }
            }
            if let Node::Endpoint(endpoint) = &mut self.nodes[node].1 {
                while let Some(event) = endpoint.poll_event() {
                    self.events[node].push(event);
                }
            }
        }
    }

    fn deliver(&mut self, flight: Flight) {
        let now = self.now;
        let (node, connection, event, bytes, identity);
        match flight {
            Flight::Datagram { from, to, bytes } => {
                let target = self.nodes.iter_mut().find(|(address, _)| *address == to);
                match target {
                    Some((_, Node::Endpoint(endpoint))) => endpoint.handle_datagram(now, to, from, &bytes),
                    Some((_, Node::Raw(inbox))) => {
                        inbox.push((from, String::from_utf8_lossy(&bytes).into_owned()));
                    }
                    None => {}
                }
                return;
            }
            Flight::Opened { node: n, connection: c, local, remote, inbound, transport, far } => {
                (node, connection) = (n, c);
                identity = self.identities.get(&far).filter(|_| transport.is_secure()).cloned();
                let identity = identity.as_ref();
                event = StreamEvent::Opened { local, remote, inbound, transport, identity };
            }
            Flight::Failed { node: n, connection: c } => {
                (node, connection, event) = (n, c, StreamEvent::ConnectFailed);
            }
            Flight::Closed { node: n, connection: c } => {
                (node, connection, event) = (n, c, StreamEvent::Closed);
            }
            Flight::Data { node: n, connection: c, bytes: b } => {
                bytes = b;
                (node, connection, event) = (n, c, StreamEvent::Data(&bytes));
            }
        }
        match &mut self.nodes[node].1 {
            Node::Endpoint(endpoint) => endpoint.handle_stream(now, connection, event),
            Node::Raw(inbox) => {
                let from = SocketAddr::from(([0, 0, 0, 0], 0));
                match event {
                    StreamEvent::Data(bytes) => {
                        inbox.push((from, String::from_utf8_lossy(bytes).into_owned()))
                    }
                    StreamEvent::Closed => inbox.push((from, "<closed>".to_owned())),
                    _ => {}
                }
            }
        }
    }

    fn next(&mut self) -> Option<Instant> {
        let mut next = self.flights.keys().next().map(|(at, _)| *at);
        for (_, node) in &self.nodes {
            if let Node::Endpoint(endpoint) = node
                && let Some(at) = endpoint.poll_timeout()
            {
                next = Some(next.map_or(at, |n| n.min(at)));
            }
        }
        next
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.collect();
        let mut steps = 0u32;
        while let Some(next) = self.next().filter(|&at| at <= end) {
            steps += 1;
            assert!(steps < 2_000_000, "the simulation does not come to rest");
            self.now = next.max(self.now);
            while let Some(entry) = self.flights.first_entry().filter(|e| e.key().0 <= self.now) {
                let flight = entry.remove();
                self.deliver(flight);
                self.collect();
            }
            let now = self.now;
            for (_, node) in &mut self.nodes {
                if let Node::Endpoint(endpoint) = node
                    && endpoint.poll_timeout().is_some_and(|at| at <= now)
                {
                    endpoint.handle_timeout(now);
                }
            }
            self.collect();
        }
        self.now = end;
    }

    pub fn run_ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    /// Takes the events of a node, without the ladder.
    pub fn take(&mut self, node: usize) -> Vec<Event> {
        let events = std::mem::take(&mut self.events[node]);
        events.into_iter().filter(|e| !matches!(e, Event::Exchange { .. })).collect()
    }

    /// Returns the ladder of a node: `> INVITE (SDP)` sent, `< 180 Ringing` received.
    pub fn ladder(&self, node: usize) -> Vec<String> {
        self.events[node]
            .iter()
            .filter_map(|e| match e {
                Event::Exchange { exchange, .. } => {
                    let arrow = if exchange.from == call_model::Actor::Gateway { ">" } else { "<" };
                    Some(format!("{arrow} {}", exchange.label))
                }
                _ => None,
            })
            .collect()
    }

    /// Takes what a raw peer received.
    pub fn inbox(&mut self, node: usize) -> Vec<String> {
        match &mut self.nodes[node].1 {
            Node::Raw(inbox) => std::mem::take(inbox).into_iter().map(|(_, text)| text).collect(),
            Node::Endpoint(_) => panic!("node {node} is an endpoint"),
        }
    }

    /// How many messages of a node begin with `start`.
    pub fn sent(&self, node: usize, start: &str) -> usize {
        let address = self.nodes[node].0;
        self.log.iter().filter(|(_, from, _, text)| *from == address && text.starts_with(start)).count()
    }

    /// Asserts that nothing is left of calls and transactions.
    pub fn assert_empty(&mut self, node: usize) {
        let counters = self.endpoint(node).counters();
        let open = (
            counters.open_calls,
            counters.held_calls,
            counters.client_transactions,
            counters.server_transactions,
        );
        assert_eq!(open, (0, 0, 0, 0), "node {node} holds calls, remains, client, server transactions");
        assert!(self.endpoint(node).trunk_status().iter().all(|t| t.calls == 0), "channels in use");
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn trunk_name(name: &str) -> TrunkName {
    name.parse().unwrap()
}

pub fn call_id(n: u64) -> CallId {
    CallId::new(n, u128::from(n))
}

pub fn number(text: &str) -> Address {
    Address::Number(text.parse().unwrap())
}

pub fn caller(text: &str) -> Caller {
    Caller { address: Some(number(text)), display_name: None, private: false }
}

pub fn media(text: &str) -> LocalMedia {
    LocalMedia { rtp: address(text) }
}

pub const A: &str = "10.0.0.1:5060";
pub const B: &str = "10.0.0.2:5060";
pub const A_RTP: &str = "10.0.0.1:20000";
pub const B_RTP: &str = "10.0.0.2:30000";

pub fn config(own: &str, far: &str, transport: Transport) -> EndpointConfig {
    let local = address(own);
    let udp = Listener { transport: Transport::Udp, local };
    let tcp = Listener { transport: Transport::Tcp, local };
    let mut trunk = TrunkConfig::new(trunk_name("far"), address(far));
    trunk.transport = transport;
    EndpointConfig::new(vec![udp, tcp], vec![trunk])
}

/// Two endpoints that are each other's trunk `far`: 0 is A, 1 is B.
pub struct Pair {
    pub net: Net,
}

impl std::ops::Deref for Pair {
    type Target = Net;
    fn deref(&self) -> &Net {
        &self.net
    }
}

impl std::ops::DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut Net {
        &mut self.net
    }
}

impl Pair {
    pub fn new(transport: Transport) -> Self {
        Self::with(transport, |_, _| {})
    }

    pub fn with(transport: Transport, change: impl FnOnce(&mut EndpointConfig, &mut EndpointConfig)) -> Self {
        let mut net = Net::new(1);
        let (mut a, mut b) = (config(A, B, transport), config(B, A, transport));
        change(&mut a, &mut b);
        net.add_endpoint(a);
        net.add_endpoint(b);
        Self { net }
    }

    /// A calls B. Returns the ids on both sides.
    pub fn call(&mut self) -> (CallId, CallId) {
        let id = call_id(self.log.len() as u64 + 1);
        self.command(
            0,
            Command::Invite {
                call: id,
                trunk: trunk_name("far"),
                called: number("+442079460018"),
                caller: caller("+12025550100"),
                media: media(A_RTP),
            },
        );
        self.run_ms(20);
        let theirs = self.events[1].iter().rev().find_map(|e| match e {
            Event::Incoming { call, .. } => Some(*call),
            _ => None,
        });
        (id, theirs.expect("no Incoming"))
    }

    /// A calls B and B answers.
    pub fn answered(&mut self) -> (CallId, CallId) {
        let (a, b) = self.call();
        self.command(1, Command::Answer { call: b, media: media(B_RTP) });
        self.run_ms(100);
        (a, b)
    }

    /// Lets every timer run out and asserts that nothing is left.
    pub fn assert_clean(&mut self) {
        self.run(Duration::from_secs(400));
        self.assert_empty(0);
        self.assert_empty(1);
    }
}

/// The end of a call among events.
pub fn ended(events: &[Event]) -> Vec<(Cause, Option<u16>, EndedBy)> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::Ended { cause, status, by, .. } => Some((*cause, *status, *by)),
            _ => None,
        })
        .collect()
}
