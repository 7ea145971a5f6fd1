//! What goes through the network: searches of the DHT, records put and read back, look-ups, relays.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use p2p_edge::record::{Choice, LOCATION_LIFE, ValidRecord, Verified, republish_after};
use p2p_edge::routing::LONGEST_RETRY;

use crate::net::bytes;
use crate::query::Query;
use crate::sim::{Event, Sim};
use crate::table::Peer;
use crate::tally::{Finished, Kind};
use crate::world::RELAYS;

/// Servers that are asked directly beside the DHT, for each key.
const ASKED_FOR_A_KEY: usize = 2;
/// A server that looks further for somebody answers by then.
const SERVE_TIME: Duration = Duration::from_secs(3);
/// First wait before a record that could not be read back is published again.
const RETRY: Duration = Duration::from_millis(500);
/// Changes within this time are published together.
const SETTLE: Duration = Duration::from_millis(30);

/// A user at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscriber {
    pub(crate) relays: Vec<u32>,
    /// The relays in the records of late.
    history: Vec<(u64, Vec<u32>)>,
    sequence: u64,
    /// The sequence that was read back last, and when that record ends, in Unix seconds.
    pub(crate) confirmed: u64,
    pub(crate) ends: u64,
    /// Counts what was planned: an older plan is void.
    generation: u64,
    failures: u32,
}

/// What a query is for.
#[derive(Debug, Clone)]
pub(crate) enum Purpose {
    /// Finds servers; then come the searches that remain.
    Refresh(Vec<u128>),
    Put(u64),
    Get(u64),
    /// On behalf of whoever has begun a look-up.
    Serve(u64),
}

/// A query under way.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    origin: u32,
    kind: Kind,
    purpose: Purpose,
    query: Query,
}

/// A record on its way to those who are to keep it under one of its keys.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    copy: Copy,
    is_searching: bool,
    waiting: usize,
    taken: bool,
}

/// A record of a user, and one of the keys under which it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    user: usize,
    key: usize,
    record: Arc<Verified>,
}

/// A look-up under way.
#[derive(Debug, Clone)]
pub(crate) struct LookUp {
    by: u32,
    callee: usize,
    /// Reads a put back: answers come out of stores only.
    reads_back: Option<Copy>,
    began: Duration,
    expected: u64,
    choice: Choice<u32>,
    found: Option<(Duration, u8)>,
    waiting: usize,
    queries: Vec<u64>,
    requests: u32,
}

impl LookUp {
    fn kind(&self) -> Kind {
        if self.reads_back.is_some() { Kind::Publish } else { Kind::LookUp }
    }
}

impl Sim {
    /// Gives each user its relays, and plans its first publication and look-up.
    pub(crate) fn begin_subscribers(&mut self) -> Result<()> {
        for user in 0..self.world.users.len() {
            self.subscribers.push(Subscriber::default());
            self.find_relays(user);
            let first = self.random.up_to(Duration::from_secs(republish_after(LOCATION_LIFE)));
            self.after(first, Event::Publish { user, generation: 0 });
            // Nobody looks for anybody before all have had time to publish.
            let settled = Duration::from_secs(LOCATION_LIFE / 2 + 10);
            let wait = self.random.exponential(self.settings.look_up_every.as_secs_f64());
            self.after(settled + Duration::from_secs_f64(wait), Event::LookUp { user });
        }
        Ok(())
    }

    /// Fills up the relays of a user from the servers it knows.
    fn find_relays(&mut self, user: usize) {
        let node = self.world.node_of(user);
        for _ in 0..10 * RELAYS {
            if self.subscribers[user].relays.len() >= RELAYS {
                break;
            }
            let peers: Vec<Peer> = self.nodes[node as usize].table.peers().collect();
            let Some(peer) = self.random.pick(&peers) else { break };
            if self.subscribers[user].relays.contains(&peer.node) {
                continue;
            }
            if self.reaches(node, peer.node) {
                self.connect(node, peer.node, true, Kind::Upkeep);
                self.subscribers[user].relays.push(peer.node);
            } else {
                self.unroute(node, peer);
            }
        }
    }

    /// Users whose relay is gone take another, and say so.
    pub(crate) fn relay_lost(&mut self, relay: u32) {
        for user in 0..self.subscribers.len() {
            let relays = &mut self.subscribers[user].relays;
            let before = relays.len();
            relays.retain(|known| *known != relay);
            if relays.len() < before {
                self.find_relays(user);
                self.plan(user, SETTLE);
            }
        }
    }

    fn plan(&mut self, user: usize, wait: Duration) {
        self.subscribers[user].generation += 1;
        let generation = self.subscribers[user].generation;
        self.after(wait, Event::Publish { user, generation });
    }

    /// Publishes the record of a user under all its keys.
    pub(crate) fn on_publish(&mut self, user: usize, generation: u64) -> Result<()> {
        if self.subscribers[user].generation != generation {
            return Ok(());
        }
        self.find_relays(user);
        let (unix, sequence) = (self.unix(), self.unix_ms());
        let relays = self.subscribers[user].relays.clone();
        let value = self.world.sign(user, &relays, sequence, unix)?;
        let record = Arc::new(self.world.verify(user, value, unix)?);
        let subscriber = &mut self.subscribers[user];
        subscriber.sequence = sequence;
        subscriber.history.push((sequence, relays));
        if subscriber.history.len() > 8 {
            subscriber.history.remove(0);
        }
        // What has not been confirmed by then is tried again; the next plan voids this one.
        self.plan(user, Duration::from_secs(republish_after(LOCATION_LIFE)));
        self.tally.of(Kind::Publish).done += 1;
        self.put(Copy { user, key: 0, record });
        Ok(())
    }

    /// Looks for those who are to keep a record under one of its keys.
    fn put(&mut self, copy: Copy) {
        let (node, target) = (self.world.node_of(copy.user), self.world.users[copy.user].targets[copy.key]);
        let put = self.serial();
        self.puts.insert(put, Put { copy, is_searching: true, waiting: 0, taken: false });
        self.search(node, target, Kind::Publish, Purpose::Put(put));
    }

    fn retry(&mut self, user: usize) {
        let failures = &mut self.subscribers[user].failures;
        *failures = (*failures + 1).min(16);
        let wait = (RETRY * 2u32.pow(*failures - 1)).min(LONGEST_RETRY);
        self.plan(user, wait);
    }

    /// Begins a query. Returns its name.
    fn search(&mut self, origin: u32, target: u128, kind: Kind, purpose: Purpose) -> u64 {
        let name = self.serial();
        let known = self.nodes[origin as usize].table.closest(target);
        let query = Query::new(target, &known, self.settings.alpha, self.settings.paths);
        self.queries.insert(name, Running { origin, kind, purpose, query });
        let patience = self.settings.patience;
        self.after(patience, Event::QueryLate(name));
        self.advance(name);
        name
    }

    /// Sends what a query has to send, and ends it when it is done.
    fn advance(&mut self, name: u64) {
        let Some(mut running) = self.queries.remove(&name) else { return };
        let origin = running.origin;
        while let Some((peer, hops)) = running.query.next() {
            let (wait, ok) = self.request(origin, peer.node, running.kind, 0);
            self.after(wait, Event::Answer { query: name, origin, node: peer.node, hops, ok });
        }
        if running.query.is_done() {
            self.query_over(name, running);
        } else {
            self.queries.insert(name, running);
        }
    }

    pub(crate) fn on_query_late(&mut self, name: u64) {
        if let Some(running) = self.queries.remove(&name) {
            self.query_over(name, running);
        }
    }

    pub(crate) fn on_answer(&mut self, name: u64, origin: u32, node: u32, hops: u8, ok: bool) {
        let peer = self.peer(node);
        // It may have gone meanwhile.
        let ok = ok && self.reaches(origin, peer.node);
        if !ok {
            self.unroute(origin, peer);
        }
        let Some(running) = self.queries.get(&name) else { return };
        let (target, kind, purpose) = (running.query.target, running.kind, running.purpose.clone());
        if !ok {
            if let Some(running) = self.queries.get_mut(&name) {
                running.query.failed(peer);
            }
            self.advance(name);
            return;
        }
        let closer: Vec<Peer> =
            self.answer(peer.node, target).into_iter().filter(|p| p.node != origin).collect();
        let size = closer.len() as u64 * bytes::PEER;
        self.add_bytes(origin, peer.node, kind, size);
        if let Some(running) = self.queries.get_mut(&name) {
            running.query.answered(peer, &closer);
        }
        if let Purpose::Get(look_up) | Purpose::Serve(look_up) = purpose {
            self.read(name, look_up, peer.node, hops, matches!(purpose, Purpose::Serve(_)));
        }
        self.advance(name);
    }

    /// The peers that a node names as nearest to a place. An attacker names its own kind only.
    fn answer(&self, node: u32, target: u128) -> Vec<Peer> {
        if !self.world.is_sybil(node) {
            return self.nodes[node as usize].table.closest(target);
        }
        let first = self.world.supernodes + self.world.users.len();
        let mut sybils: Vec<Peer> =
            (first as u32..self.nodes.len() as u32).map(|node| self.peer(node)).collect();
        sybils.sort_unstable_by_key(|peer| peer.id ^ target);
        sybils.truncate(crate::table::K);
        sybils
    }

    fn add_bytes(&mut self, from: u32, to: u32, kind: Kind, size: u64) {
        self.tally.of(kind).bytes += size;
        self.nodes[from as usize].load.bytes += size;
        self.nodes[to as usize].load.bytes += size;
    }

    /// Returns the record that a node holds of a user. Attackers hold none.
    fn held(&self, node: u32, user: usize) -> Option<(&ValidRecord, u64)> {
        let entry =
            self.nodes[node as usize].store.as_ref()?.get(&self.world.users[user].key, self.unix())?;
        Some((&entry.record, entry.value.len() as u64))
    }

    /// Takes what a node that a query has asked holds of the record.
    fn read(&mut self, query: u64, look_up: u64, node: u32, hops: u8, serves: bool) {
        let Some(of) = self.look_ups.get(&look_up) else {
            self.queries.remove(&query);
            return;
        };
        let (callee, kind, by) = (of.callee, of.kind(), of.by);
        let Some((record, size)) = self.held(node, callee) else { return };
        let record = record.clone();
        self.add_bytes(by, node, kind, size);
        if serves {
            // One that has it is enough for who asked.
            let Some(running) = self.queries.remove(&query) else { return };
            let server = running.origin;
            self.tally.of(kind).records += 1;
            self.nodes[server as usize].load.records += 1;
            self.tell(look_up, server, Some(record), hops.saturating_add(1), true);
            return;
        }
        if let Some(of) = self.look_ups.get_mut(&look_up) {
            of.choice.answered_by(node);
        }
        self.found(look_up, &record, hops);
        self.maybe_settled(look_up);
    }

    fn found(&mut self, name: u64, record: &ValidRecord, hops: u8) {
        let now = self.now;
        let Some(look_up) = self.look_ups.get_mut(&name) else { return };
        let kind = look_up.kind();
        // The very same one is not verified again.
        if look_up.choice.best() != Some(record) {
            look_up.choice.offer(record);
            self.tally.of(kind).records += 1;
        }
        look_up.found.get_or_insert((now - look_up.began, hops));
    }

    fn query_over(&mut self, name: u64, running: Running) {
        let Running { origin, kind, purpose, query } = running;
        match purpose {
            Purpose::Refresh(mut rest) => match rest.pop() {
                Some(target) => {
                    self.search(origin, target, kind, Purpose::Refresh(rest));
                }
                None => self.tally.of(kind).done += 1,
            },
            Purpose::Put(put) => self.put_to(put, origin, &query.result()),
            Purpose::Get(look_up) => {
                if let Some(of) = self.look_ups.get_mut(&look_up) {
                    of.requests += query.requests;
                    of.queries.retain(|known| *known != name);
                    of.waiting -= 1;
                }
                self.maybe_settled(look_up);
            }
            Purpose::Serve(look_up) => self.tell(look_up, origin, None, 0, true),
        }
    }

    /// Searches for servers: for oneself first, and then, as a server, for each bucket.
    pub(crate) fn refresh(&mut self, node: u32) {
        let me = self.peer(node).id;
        let (kind, rest) = if self.world.is_user(node) {
            (Kind::UserRefresh, Vec::new())
        } else {
            (Kind::Refresh, self.nodes[node as usize].table.refresh_targets(&mut self.random))
        };
        self.search(node, me, kind, Purpose::Refresh(rest));
    }

    /// The nearest nodes are known: the record is sent to them.
    fn put_to(&mut self, name: u64, origin: u32, nearest: &[Peer]) {
        let Some(put) = self.puts.get_mut(&name) else { return };
        put.is_searching = false;
        put.waiting += nearest.len();
        let size = put.copy.record.value().len() as u64;
        for peer in nearest {
            let (wait, ok) = self.request(origin, peer.node, Kind::Publish, size);
            self.after(wait, Event::Stored { put: name, node: peer.node, ok });
        }
        self.maybe_put(name);
    }

    pub(crate) fn on_stored(&mut self, name: u64, node: u32, ok: bool) {
        let peer = self.peer(node);
        let Some(put) = self.puts.get_mut(&name) else { return };
        put.waiting -= 1;
        let copy = put.copy.clone();
        let publisher = self.world.node_of(copy.user);
        if ok && self.reaches(publisher, peer.node) {
            self.store(peer.node, &copy.record, publisher);
            let Some(put) = self.puts.get_mut(&name) else { return };
            // The first that says so is believed, and then read back from another.
            if !std::mem::replace(&mut put.taken, true) {
                self.begin_look_up(publisher, copy.user, Some(copy));
            }
        } else {
            self.unroute(publisher, peer);
        }
        self.maybe_put(name);
    }

    fn maybe_put(&mut self, name: u64) {
        if let Some(put) = self.puts.get(&name)
            && !put.is_searching
            && put.waiting == 0
        {
            let (user, taken) = (put.copy.user, put.taken);
            self.puts.remove(&name);
            if !taken {
                self.retry(user);
            }
        }
    }

    pub(crate) fn on_look_up_due(&mut self, user: usize) {
        let wait = self.random.exponential(self.settings.look_up_every.as_secs_f64());
        self.after(Duration::from_secs_f64(wait), Event::LookUp { user });
        let callee = self.random.below(self.world.users.len());
        if callee != user {
            let node = self.world.node_of(user);
            self.begin_look_up(node, callee, None);
        }
    }

    /// Looks for the record of a user: in the DHT under all its keys, and by asking connected servers.
    pub(crate) fn begin_look_up(&mut self, by: u32, callee: usize, reads_back: Option<Copy>) -> u64 {
        let name = self.serial();
        let is_look_up = reads_back.is_none();
        let mut targets = self.world.users[callee].targets.clone();
        if let Some(copy) = &reads_back {
            targets = vec![targets[copy.key]];
        }
        let mut linked = self.linked_servers(by);
        let mut servers = Vec::new();
        for at in 0..ASKED_FOR_A_KEY * targets.len() {
            let key = at % targets.len();
            let nearest = (0..linked.len()).min_by_key(|peer| linked[*peer].id ^ targets[key]);
            servers.extend(nearest.map(|peer| (linked.swap_remove(peer).node, key)));
        }
        let look_up = LookUp {
            by,
            callee,
            reads_back,
            began: self.now,
            expected: self.subscribers[callee].confirmed,
            choice: Choice::default(),
            found: None,
            waiting: servers.len() + targets.len(),
            queries: Vec::new(),
            requests: servers.len() as u32,
        };
        let kind = look_up.kind();
        self.look_ups.insert(name, look_up);
        if is_look_up {
            self.tally.of(kind).done += 1;
        }
        // What this node holds itself says nothing about what others hold.
        if is_look_up && let Some(own) = self.held(by, callee).map(|(record, _)| record.clone()) {
            self.found(name, &own, 0);
        }
        for target in targets {
            let query = self.search(by, target, kind, Purpose::Get(name));
            if let Some(of) = self.look_ups.get_mut(&name) {
                of.queries.push(query);
            }
        }
        for (server, key) in servers {
            let (wait, ok) = self.request(by, server, kind, 0);
            if ok {
                self.after(wait.mul_f64(0.75), Event::Asked { look_up: name, server, key });
            } else {
                self.after(wait, Event::Told { look_up: name, server, found: None, hops: 0, further: false });
            }
        }
        let patience = self.settings.patience;
        self.after(patience, Event::LookUpLate(name));
        name
    }

    /// A server is asked directly for the record under one key: it answers from its store, or looks further.
    pub(crate) fn on_asked(&mut self, name: u64, server: u32, key: usize) {
        let Some(look_up) = self.look_ups.get(&name) else { return };
        let (callee, kind, local) = (look_up.callee, look_up.kind(), look_up.reads_back.is_some());
        let held = self.held(server, callee).map(|(record, _)| record.clone());
        if held.is_some() || local || self.world.is_sybil(server) {
            self.tell(name, server, held, 1, false);
            return;
        }
        let target = self.world.users[callee].targets[key];
        let query = self.search(server, target, kind, Purpose::Serve(name));
        self.after(SERVE_TIME, Event::QueryLate(query));
    }

    /// A server answers whoever has asked it directly.
    fn tell(&mut self, name: u64, server: u32, found: Option<ValidRecord>, hops: u8, further: bool) {
        let Some(look_up) = self.look_ups.get(&name) else { return };
        let (by, kind) = (look_up.by, look_up.kind());
        let size = if found.is_some() { 700 } else { 0 };
        self.add_bytes(by, server, kind, size);
        let world = Arc::clone(&self.world);
        let network = self.settings.network;
        let (from, to) = (&world.parties[server as usize], &world.parties[by as usize]);
        let wait = network.trips(from, to, 0.5, &mut self.random);
        let found = found.map(Box::new);
        self.after(wait, Event::Told { look_up: name, server, found, hops, further });
    }

    pub(crate) fn on_told(
        &mut self,
        name: u64,
        server: u32,
        found: Option<&ValidRecord>,
        hops: u8,
        further: bool,
    ) {
        let Some(by) = self.look_ups.get(&name).map(|look_up| look_up.by) else { return };
        let ok = self.reaches(by, server);
        if let Some(look_up) = self.look_ups.get_mut(&name) {
            look_up.waiting -= 1;
            if ok {
                look_up.choice.answered_by(server);
                if found.is_none() && further {
                    look_up.choice.nothing_found();
                }
            }
        }
        if let Some(record) = found.filter(|_| ok) {
            self.found(name, record, hops);
        }
        self.maybe_settled(name);
    }

    fn maybe_settled(&mut self, name: u64) {
        let Some(look_up) = self.look_ups.get(&name) else { return };
        let settled = match &look_up.reads_back {
            Some(copy) => self.is_confirmed(copy, look_up.choice.best()),
            None => look_up.choice.is_settled(),
        };
        if settled || look_up.waiting == 0 {
            self.finish_look_up(name);
        }
    }

    fn is_confirmed(&self, copy: &Copy, found: Option<&ValidRecord>) -> bool {
        let sequence = copy.record.record().sequence();
        found.is_some_and(|found| self.world.users[copy.user].confirmed_by(found, sequence))
    }

    /// Ends a look-up with what was found; also when its time is over.
    pub(crate) fn finish_look_up(&mut self, name: u64) {
        let Some(look_up) = self.look_ups.remove(&name) else { return };
        let mut requests = look_up.requests;
        for query in &look_up.queries {
            requests += self.queries.remove(query).map_or(0, |running| running.query.requests);
        }
        let best = look_up.choice.best();
        let user = look_up.callee;
        if let Some(copy) = &look_up.reads_back {
            let sequence = copy.record.record().sequence();
            if self.is_confirmed(copy, best) {
                let subscriber = &mut self.subscribers[user];
                if sequence > subscriber.confirmed {
                    subscriber.confirmed = sequence;
                    subscriber.ends = sequence / 1000 + LOCATION_LIFE;
                    subscriber.failures = 0;
                }
                if self.subscribers[user].sequence == sequence
                    && copy.key + 1 < self.world.users[user].targets.len()
                {
                    self.put(Copy { key: copy.key + 1, ..copy.clone() });
                }
            } else {
                self.tally.unconfirmed += 1;
                if self.subscribers[user].sequence == sequence {
                    self.retry(user);
                }
            }
            return;
        }
        let sequence = best.map(ValidRecord::sequence);
        let relays = &self.subscribers[user].history;
        let relays = relays.iter().find(|(of, _)| Some(*of) == sequence).map(|(_, relays)| relays.as_slice());
        self.tally.look_ups.push(Finished {
            began: look_up.began,
            by: look_up.by,
            callee: user,
            found: look_up.found,
            settled: self.now - look_up.began,
            newest: sequence.is_some_and(|found| found >= look_up.expected),
            reachable: relays.unwrap_or_default().iter().any(|relay| self.reaches(look_up.by, *relay)),
            requests,
        });
    }
}
