//! The model: nodes, their connections and tables, and the queue of what happens next. Time is virtual.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use p2p_edge::record::{Store, StoreLimits, Verified};
use p2p_edge::routing::{self, Backoff, MAX_KNOWN, MAX_WARM, WANTED_BY_SERVERS};

use crate::net::{self, CONNECT_TRIPS, GIVEN_UP, IDLE, NOTICED, Network, REQUEST_TRIPS, bytes};
use crate::random::{Random, Sessions};
use crate::table::{K, Offered, Peer, Table};
use crate::tally::{Census, Kind, Load, Tally};
use crate::traffic::{LookUp, Put, Running, Subscriber};
use crate::world::{BASE, World};

/// Links before idle ones are thrown away for the first time; then at twice what was left.
const MANY_LINKS: usize = 512;

/// Of a part of the key space far from a user, how many it knows: it searches for itself only.
const MET_ON_THE_WAY: usize = 4;

/// What protects the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defences {
    /// Only those with a certificate under the root are routed to.
    pub(crate) certificates: bool,
    /// Peers of one network in a bucket.
    pub(crate) same_network: usize,
}

/// How the model behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) alpha: usize,
    pub(crate) paths: usize,
    pub(crate) network: Network,
    /// How long supernodes stay; none leaves where there is none.
    pub(crate) sessions: Option<Sessions>,
    pub(crate) defences: Defences,
    /// How often a user looks somebody up, on average.
    pub(crate) look_up_every: Duration,
    /// Longest wait of users between searches for servers.
    pub(crate) user_refresh: Duration,
    /// How long a look-up may take, and every query of the DHT.
    pub(crate) patience: Duration,
}

/// What happens at a moment.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// The answer to a request of a query, or its failure.
    Answer {
        query: u64,
        origin: u32,
        node: u32,
        hops: u8,
        ok: bool,
    },
    QueryLate(u64),
    /// A put has reached a node.
    Stored {
        put: u64,
        node: u32,
        ok: bool,
    },
    /// A server is asked directly for one key; its answer.
    Asked {
        look_up: u64,
        server: u32,
        key: usize,
    },
    Told {
        look_up: u64,
        server: u32,
        found: Option<Box<p2p_edge::record::ValidRecord>>,
        hops: u8,
        further: bool,
    },
    LookUpLate(u64),
    Publish {
        user: usize,
        generation: u64,
    },
    LookUp {
        user: usize,
    },
    Refresh {
        node: u32,
        life: u32,
    },
    Leave(u32),
    /// Others have noticed that a node is gone.
    Noticed {
        node: u32,
        life: u32,
    },
    Count,
}

struct Timed {
    at: Duration,
    serial: u64,
    event: Event,
}

impl Clone for Timed {
    fn clone(&self) -> Self {
        Self { at: self.at, serial: self.serial, event: self.event.clone() }
    }
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

#[derive(Debug, Clone, Copy)]
struct Link {
    used: Duration,
    /// This end keeps it although nothing goes over it.
    kept: bool,
}

/// By the number of the other end.
type Links = HashMap<u32, Link, BuildHasherDefault<Numbers>>;

/// Spreads numbers of nodes, which nobody can choose, over a table.
#[derive(Default)]
pub(crate) struct Numbers(u64);

impl Hasher for Numbers {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// What a node is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) up: bool,
    /// Counts its sessions.
    life: u32,
    pub(crate) table: Table,
    links: Links,
    many: usize,
    kept: usize,
    /// Servers worth a try at the next start, the latest last.
    known: VecDeque<u32>,
    refresh: Backoff,
    pub(crate) store: Option<Box<Store>>,
    pub(crate) load: Load,
    /// Which part of a divided network it is in.
    side: u8,
}

#[derive(Clone)]
pub(crate) struct Sim {
    pub(crate) world: Arc<World>,
    pub(crate) settings: Settings,
    pub(crate) random: Random,
    pub(crate) now: Duration,
    epoch: Instant,
    queue: BinaryHeap<Reverse<Timed>>,
    serial: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) queries: HashMap<u64, Running>,
    pub(crate) look_ups: HashMap<u64, LookUp>,
    pub(crate) puts: HashMap<u64, Put>,
    pub(crate) tally: Tally,
    pub(crate) events: u64,
}

impl Sim {
    /// Begins with `online` supernodes up whose tables are as they are after a while.
    pub(crate) fn new(world: Arc<World>, settings: Settings, online: usize, seed: u64) -> Result<Self> {
        // Only differences count: it is never read as a time of day.
        let epoch = Instant::now();
        let node = |(at, party): (usize, &crate::world::Party)| Node {
            up: at < online || world.is_user(at as u32),
            life: 0,
            table: Table::new(party.id),
            links: Links::default(),
            many: MANY_LINKS,
            kept: 0,
            known: VecDeque::new(),
            refresh: Backoff::new(epoch),
            store: party.server.then(|| Box::new(Store::new(StoreLimits::default()))),
            load: Load::default(),
            side: 0,
        };
        let nodes = world.parties.iter().enumerate().map(node).collect();
        let mut sim = Self {
            random: Random::new(seed ^ 0x5ca1e),
            settings,
            now: Duration::ZERO,
            epoch,
            queue: BinaryHeap::new(),
            serial: 0,
            nodes,
            subscribers: Vec::new(),
            queries: HashMap::new(),
            look_ups: HashMap::new(),
            puts: HashMap::new(),
            tally: Tally::default(),
            events: 0,
            world,
        };
        sim.fill_tables();
        sim.begin()?;
        Ok(sim)
    }

    pub(crate) fn unix(&self) -> u64 {
        BASE + self.now.as_secs()
    }

    pub(crate) fn unix_ms(&self) -> u64 {
        BASE * 1000 + self.now.as_millis() as u64
    }

    fn instant(&self) -> Instant {
        self.epoch + self.now
    }

    pub(crate) fn peer(&self, node: u32) -> Peer {
        Peer { node, id: self.world.parties[node as usize].id }
    }

    pub(crate) fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        let serial = self.serial();
        self.queue.push(Reverse(Timed { at: self.now + wait, serial, event }));
    }

    /// Runs until a moment of virtual time.
    pub(crate) fn run_until(&mut self, end: Duration) -> Result<()> {
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= end) {
            let Some(Reverse(Timed { at, event, .. })) = self.queue.pop() else { break };
            self.now = at;
            self.events += 1;
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Answer { query, origin, node, hops, ok } => self.on_answer(query, origin, node, hops, ok),
            Event::QueryLate(query) => self.on_query_late(query),
            Event::Stored { put, node, ok } => self.on_stored(put, node, ok),
            Event::Asked { look_up, server, key } => self.on_asked(look_up, server, key),
            Event::Told { look_up, server, found, hops, further } => {
                self.on_told(look_up, server, found.as_deref(), hops, further);
            }
            Event::LookUpLate(look_up) => self.finish_look_up(look_up),
            Event::Publish { user, generation } => self.on_publish(user, generation)?,
            Event::LookUp { user } => self.on_look_up_due(user),
            Event::Refresh { node, life } => self.on_refresh(node, life),
            Event::Leave(node) => self.on_leave(node),
            Event::Noticed { node, life } => self.on_noticed(node, life),
            Event::Count => self.on_count(),
        }
        Ok(())
    }

    /// Gives everybody who is up the table that it would have after a while.
    fn fill_tables(&mut self) {
        let world = Arc::clone(&self.world);
        let mut servers: Vec<Peer> = (0..world.supernodes as u32)
            .filter(|node| self.nodes[*node as usize].up)
            .map(|n| self.peer(n))
            .collect();
        servers.sort_unstable_by_key(|peer| peer.id);
        for node in 0..self.nodes.len() as u32 {
            if !self.nodes[node as usize].up {
                let some = (0..MAX_KNOWN).filter_map(|_| self.random.pick(&servers)).map(|peer| peer.node);
                self.nodes[node as usize].known = some.collect();
                continue;
            }
            let me = world.parties[node as usize].id;
            let most = if world.is_user(node) { MET_ON_THE_WAY } else { K };
            for place in 0..127 {
                // All who share so many bits with this one, and not the next.
                let first = (me ^ (1 << (127 - place))) & !((1 << (127 - place)) - 1);
                let last = first | ((1 << (127 - place)) - 1);
                let from = servers.partition_point(|peer| peer.id < first);
                let to = servers.partition_point(|peer| peer.id <= last);
                let range = &servers[from..to];
                if range.len() <= K {
                    range.iter().for_each(|peer| self.learn(node, peer.node));
                } else {
                    for _ in 0..2 * K {
                        let Some(peer) = self.random.pick(range) else { break };
                        if self.nodes[node as usize].table.bucket(peer.id).len() >= most {
                            break;
                        }
                        self.learn(node, peer.node);
                    }
                }
                if from == to && place > 40 {
                    break;
                }
            }
        }
    }

    /// Sets the clocks of all nodes going.
    fn begin(&mut self) -> Result<()> {
        for node in 0..self.nodes.len() as u32 {
            if !self.nodes[node as usize].up {
                continue;
            }
            let longest = self.longest_refresh(node);
            for _ in 0..20 {
                let at = self.instant();
                self.nodes[node as usize].refresh.attempt_up_to(at, routing::FIRST_REFRESH, longest);
            }
            let first = self.random.up_to(longest);
            self.after(first, Event::Refresh { node, life: 0 });
            if let Some(sessions) = self.settings.sessions.filter(|_| !self.world.is_user(node)) {
                let rest = sessions.rest(&mut self.random);
                self.after(rest, Event::Leave(node));
            }
        }
        self.begin_subscribers()?;
        self.after(Duration::from_secs(30), Event::Count);
        Ok(())
    }

    fn longest_refresh(&self, node: u32) -> Duration {
        if self.world.is_user(node) { self.settings.user_refresh } else { routing::LAST_REFRESH }
    }

    /// Says whether something sent by one gets to the other.
    pub(crate) fn reaches(&self, from: u32, to: u32) -> bool {
        let (from, to) = (&self.nodes[from as usize], &self.nodes[to as usize]);
        to.up && from.up && from.side == to.side
    }

    pub(crate) fn is_linked(&self, from: u32, to: u32) -> bool {
        let link = self.nodes[from as usize].links.get(&to);
        let back = self.nodes[to as usize].links.get(&from);
        let lives = |link: &Link| link.kept || self.now < link.used + IDLE;
        link.is_some_and(lives) || back.is_some_and(lives)
    }

    /// Servers to which a node has a connection.
    pub(crate) fn linked_servers(&self, node: u32) -> Vec<Peer> {
        let links = self.nodes[node as usize].links.keys();
        let mut servers: Vec<Peer> = links
            .filter(|other| self.is_routable(**other) && self.is_linked(node, **other))
            .map(|other| self.peer(*other))
            .collect();
        servers.sort_unstable_by_key(|peer| peer.node);
        servers
    }

    /// Says whether others may be led to a node.
    fn is_routable(&self, node: u32) -> bool {
        let party = &self.world.parties[node as usize];
        party.server && (party.certified || !self.settings.defences.certificates)
    }

    /// Sends a request and says when its answer comes, or that there is none.
    pub(crate) fn request(&mut self, from: u32, to: u32, kind: Kind, size: u64) -> (Duration, bool) {
        let ok = self.reaches(from, to);
        let mut trips = REQUEST_TRIPS;
        let mut sent = bytes::REQUEST + size;
        let linked = self.is_linked(from, to);
        if ok {
            if !linked {
                trips += CONNECT_TRIPS;
                sent += bytes::CONNECT;
            }
            self.connect(from, to, false, kind);
        } else {
            // What is sent in vain: a few attempts to connect.
            sent = 300;
        }
        let load = &mut self.nodes[to as usize].load;
        load.requests += u64::from(ok);
        load.bytes += if ok { sent } else { 0 };
        self.nodes[from as usize].load.bytes += sent;
        let effort = self.tally.of(kind);
        effort.requests += 1;
        effort.bytes += sent;
        if !ok {
            return (GIVEN_UP, false);
        }
        let (world, network) = (Arc::clone(&self.world), self.settings.network);
        let parties = &world.parties;
        (network.trips(&parties[from as usize], &parties[to as usize], trips, &mut self.random), true)
    }

    /// Uses the connection between two nodes, and makes one where there is none.
    pub(crate) fn connect(&mut self, from: u32, to: u32, keep: bool, kind: Kind) {
        let fresh = !self.is_linked(from, to);
        let now = self.now;
        for (one, other) in [(from, to), (to, from)] {
            let both_servers = self.is_routable(one) && self.is_routable(other);
            let node = &mut self.nodes[one as usize];
            let link = node.links.entry(other).or_insert(Link { used: now, kept: false });
            link.used = now;
            if !link.kept && (keep || both_servers && node.kept < MAX_WARM) {
                link.kept = true;
                node.kept += 1;
            }
            if node.links.len() > node.many {
                node.links.retain(|_, link| link.kept || now < link.used + IDLE);
                node.many = MANY_LINKS.max(2 * node.links.len());
            }
        }
        if fresh {
            self.tally.of(kind).connections += 1;
            for node in [from, to] {
                self.nodes[node as usize].load.connections += 1;
            }
            self.learn(from, to);
            self.learn(to, from);
        }
    }

    /// A node has seen the certificate of another that it is connected to: it may be routed to.
    pub(crate) fn learn(&mut self, node: u32, other: u32) {
        if node == other || !self.is_routable(other) {
            return;
        }
        let (world, peer) = (Arc::clone(&self.world), self.peer(other));
        let known = &mut self.nodes[node as usize].known;
        if known.back() != Some(&other) {
            known.push_back(other);
            if known.len() > MAX_KNOWN {
                known.pop_front();
            }
        }
        if !self.nodes[node as usize].table.contains(peer) {
            if !self.nodes[node as usize].table.may_take(self.now, peer.id) {
                return;
            }
            let party = |node: u32| &world.parties[node as usize];
            let bucket = self.nodes[node as usize].table.bucket(peer.id);
            let held = bucket.iter().map(|entry| party(entry.node).networks.clone());
            if !routing::has_room(&party(other).networks, held, self.settings.defences.same_network) {
                self.tally.refused += 1;
                return;
            }
        }
        let mut table = std::mem::replace(&mut self.nodes[node as usize].table, Table::new(0));
        if let Offered::Full(Some(oldest)) = table.offer(self.now, peer, |other| self.is_linked(node, other))
        {
            // It is dialled: one who answers stays.
            if self.reaches(node, oldest.node) {
                let now = self.now;
                table.offer(now, oldest, |_| true);
                for (one, other) in [(node, oldest.node), (oldest.node, node)] {
                    let link = self.nodes[one as usize].links.entry(other);
                    link.or_insert(Link { used: now, kept: false }).used = now;
                }
                let effort = self.tally.of(Kind::Upkeep);
                effort.connections += 1;
                effort.bytes += bytes::CONNECT;
            } else {
                table.remove(oldest);
                table.offer(self.now, peer, |_| true);
            }
        }
        self.nodes[node as usize].table = table;
    }

    /// A peer could not be reached: queries are not to wait for it again.
    pub(crate) fn unroute(&mut self, node: u32, peer: Peer) {
        if !self.reaches(node, peer.node) {
            let entry = &mut self.nodes[node as usize];
            entry.table.remove(peer);
            if entry.links.remove(&peer.node).is_some_and(|link| link.kept) {
                entry.kept -= 1;
            }
        }
    }

    fn on_refresh(&mut self, node: u32, life: u32) {
        let entry = &self.nodes[node as usize];
        if !entry.up || entry.life != life {
            return;
        }
        if entry.table.len() == 0 || self.linked_servers(node).is_empty() {
            self.rejoin(node);
        }
        let (at, longest) = (self.instant(), self.longest_refresh(node));
        let entry = &mut self.nodes[node as usize];
        entry.refresh.attempt_up_to(at, routing::FIRST_REFRESH, longest);
        let wait = entry.refresh.wait();
        self.after(wait, Event::Refresh { node, life });
        self.refresh(node);
    }

    /// Dials servers of before until enough are connected.
    fn rejoin(&mut self, node: u32) {
        let known: Vec<u32> = self.nodes[node as usize].known.iter().rev().copied().collect();
        let mut connected = 0;
        for other in known {
            if connected >= WANTED_BY_SERVERS {
                break;
            }
            let (_, ok) = self.request(node, other, Kind::Upkeep, 0);
            connected += usize::from(ok);
        }
    }

    /// A node goes without a word; another comes, so that there are always as many.
    fn on_leave(&mut self, node: u32) {
        if !self.nodes[node as usize].up || self.settings.sessions.is_none() {
            return;
        }
        self.take_down(node);
        let offline: Vec<u32> =
            (0..self.world.supernodes as u32).filter(|n| !self.nodes[*n as usize].up).collect();
        if let Some(next) = self.random.pick(&offline) {
            self.bring_up(next);
        }
    }

    pub(crate) fn take_down(&mut self, node: u32) {
        let entry = &mut self.nodes[node as usize];
        entry.up = false;
        let life = entry.life;
        self.after(NOTICED, Event::Noticed { node, life });
    }

    /// A node starts anew, with nothing but the list of servers it knew.
    pub(crate) fn bring_up(&mut self, node: u32) {
        let at = self.instant();
        let id = self.world.parties[node as usize].id;
        let entry = &mut self.nodes[node as usize];
        entry.up = true;
        entry.life += 1;
        entry.table = Table::new(id);
        entry.links.clear();
        entry.kept = 0;
        entry.refresh = Backoff::new(at);
        entry.store = Some(Box::new(Store::new(StoreLimits::default())));
        let life = entry.life;
        self.rejoin(node);
        self.after(Duration::from_millis(500), Event::Refresh { node, life });
        if let Some(sessions) = self.settings.sessions {
            let length = sessions.whole(&mut self.random);
            self.after(length, Event::Leave(node));
        }
    }

    fn on_noticed(&mut self, node: u32, life: u32) {
        if self.nodes[node as usize].life != life || self.nodes[node as usize].up {
            return;
        }
        let links: Vec<u32> = self.nodes[node as usize].links.keys().copied().collect();
        for other in links {
            let entry = &mut self.nodes[other as usize];
            if entry.links.remove(&node).is_some_and(|link| link.kept) {
                entry.kept -= 1;
            }
        }
        self.nodes[node as usize].links.clear();
        self.relay_lost(node);
    }

    /// Cuts the network in two, or joins it again. Connections across are gone once that is noticed.
    pub(crate) fn divide(&mut self, side_of: impl Fn(u32) -> u8) {
        for node in 0..self.nodes.len() as u32 {
            self.nodes[node as usize].side = side_of(node);
        }
        for node in 0..self.nodes.len() {
            let side = self.nodes[node].side;
            let sides: HashMap<u32, u8> = self.nodes[node]
                .links
                .keys()
                .map(|other| (*other, self.nodes[*other as usize].side))
                .collect();
            let entry = &mut self.nodes[node];
            entry.links.retain(|other, _| sides.get(other) == Some(&side));
            entry.kept = entry.links.values().filter(|link| link.kept).count();
        }
    }

    /// Counts who holds what.
    fn on_count(&mut self) {
        self.after(Duration::from_secs(30), Event::Count);
        let unix = self.unix();
        let mut holders: HashMap<&[u8], usize> = HashMap::new();
        let world = Arc::clone(&self.world);
        let wanted: HashMap<&[u8], u64> = (self.subscribers.iter().zip(&world.users))
            .filter(|(subscriber, _)| subscriber.ends > unix)
            .map(|(subscriber, user)| (user.key.as_slice(), subscriber.confirmed))
            .collect();
        for store in self.nodes.iter().filter(|node| node.up).filter_map(|node| node.store.as_ref()) {
            for entry in store.iter() {
                if let Some((key, sequence)) = wanted.get_key_value(entry.key.as_slice())
                    && entry.record.sequence() >= *sequence
                    && entry.record.expires_unix() > unix
                {
                    *holders.entry(key).or_default() += 1;
                }
            }
        }
        let all: usize = holders.values().sum();
        let census = Census {
            confirmed: wanted.len(),
            lost: wanted.len() - holders.len(),
            holders: all as f64 / wanted.len().max(1) as f64,
        };
        self.tally.census.push(census);
    }

    /// Forgets what was counted so far.
    pub(crate) fn forget(&mut self) {
        self.tally = Tally::default();
        for node in &mut self.nodes {
            node.load = Load::default();
        }
    }

    /// Starts attackers.
    pub(crate) fn wake(&mut self, nodes: &[u32]) {
        for node in nodes {
            self.nodes[*node as usize].up = true;
        }
    }

    /// Sets the list of servers with which a node is to start the next time.
    pub(crate) fn remember(&mut self, node: u32, list: Vec<u32>) {
        self.nodes[node as usize].known = list.into();
    }

    /// Puts a record into the store of a node.
    pub(crate) fn store(&mut self, node: u32, verified: &Verified, publisher: u32) {
        let unix = self.unix();
        let source = self.world.parties[publisher as usize].source;
        if self.world.is_sybil(node) {
            return;
        }
        let entry = &mut self.nodes[node as usize];
        entry.load.records += 1;
        if let Some(store) = &mut entry.store
            && store.put_verified(verified.clone(), source, unix).is_err()
        {
            self.tally.refused += 1;
        }
        self.tally.of(Kind::Publish).records += 1;
    }

    /// Bytes that all connections take while nothing goes over them, since the beginning of time, a second.
    pub(crate) fn keep_alive_rate(&self, node: u32) -> f64 {
        let links =
            self.nodes[node as usize].links.keys().filter(|other| self.is_linked(node, **other)).count();
        links as f64 * net::bytes::PING as f64 / net::bytes::PING_EVERY
    }
}
