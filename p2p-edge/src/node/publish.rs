//! Publishing this node's own records, and making sure that they are there.
//!
//! A put that was acknowledged is not a record that is stored: every record is read back from
//! another node before it counts. Each is published again at half of its life, when its contents
//! change, and when a new server turns up.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::kad::{self, QueryId, RecordKey as Key};
use libp2p::{Multiaddr, PeerId};

use super::NodeEvent;
use super::config::NodeRole;
use super::devices::OtherDevices;
use super::lookup::Purpose;
use super::peers::is_loopback;
use super::puts::PutFor;
use super::task::{Task, unix_now, unix_now_ms};
use crate::identity::{Abilities, NumberAssignment};
use crate::record::{
    Device, LOCATION_LIFE, LocationRecord, MAX_ADDRESSES, NumberRecord, PROBE_LIFE, ProbeRecord, RecordKey,
    ValidRecord, republish_after,
};
use crate::routing::Backoff;

/// Life of a number record. Its writer would lose the number to nobody if it were longer, but a
/// number that is taken away should not linger.
const NUMBER_LIFE: Duration = Duration::from_secs(3600);
/// For how long the assignment of a number counts as stored once it was read back: its end is months
/// away, but nodes come and go.
const ASSIGNMENT_LIFE: Duration = Duration::from_secs(6 * 3600);
/// When an assignment that has become void is looked at again: its certificate or list may be replaced.
const VOID_AGAIN: Duration = Duration::from_secs(3600);
/// How often a gateway says anew that it is one.
const PROVIDE_EVERY: Duration = Duration::from_secs(420);
/// Changes within this time are published together.
const SETTLE: Duration = Duration::from_millis(30);
/// How long the first publication waits for reservations that are still to be granted.
const RESERVATION_WAIT: Duration = Duration::from_millis(250);
/// Stored records are not published again sooner because servers come.
const NEW_SERVER_EVERY: Duration = Duration::from_secs(10);
/// Records that are being published at one time.
const IN_FLIGHT: usize = 16;
/// Direct addresses in a location record; the rest is for circuits.
const MAX_DIRECT: usize = 3;

/// The own records of a node.
pub(super) struct Publisher {
    items: Vec<Item>,
    /// Announcements as provider under way.
    queries: HashMap<QueryId, usize>,
    last_sequence: u64,
    /// Other devices of the own handle.
    others: OtherDevices,
    changed: Option<Instant>,
    servers_since: Instant,
    pub(super) lost: u64,
}

struct Item {
    key: RecordKey,
    /// What an authority has said of a number, where this node only passes it on.
    held: Option<Held>,
    phase: Phase,
    due: Instant,
    backoff: Backoff,
    sequence: u64,
    /// When it was put last.
    began: Instant,
    /// The record as it was signed, and which copy of it is being stored.
    value: Vec<u8>,
    copy: u8,
    /// Until when the record is known to be stored elsewhere.
    stored_until: Option<Instant>,
    /// Something changed while it was being published.
    again: bool,
    /// What is stored is signed under a certificate of before.
    is_outdated: bool,
}

/// An assignment that this node holds, or held: its place is free then for another.
enum Held {
    Assignment(Box<NumberAssignment>),
    Nothing,
}

impl Item {
    /// Says whether it is there for measuring only: nobody is less online without it.
    fn is_probe(&self) -> bool {
        matches!(self.key, RecordKey::Probe(_))
    }

    fn new(key: RecordKey, held: Option<Held>, now: Instant) -> Self {
        Self {
            key,
            held,
            phase: Phase::Idle,
            due: now,
            backoff: Backoff::new(now),
            sequence: 0,
            began: now,
            value: Vec::new(),
            copy: 0,
            stored_until: None,
            again: false,
            is_outdated: false,
        }
    }

    fn is_vacant(&self) -> bool {
        matches!(self.held, Some(Held::Nothing))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Busy,
}

impl Publisher {
    pub(super) fn new(me: PeerId, role: &NodeRole, probes: bool, now: Instant) -> Self {
        let mut keys: Vec<RecordKey> = match role {
            // Whoever may not be called is not to be found either.
            NodeRole::User { certificate } => {
                let claims = certificate.claims();
                let callable = claims.abilities.contains(Abilities::BE_CALLED);
                callable.then(|| RecordKey::Location(claims.handle.clone())).into_iter().collect()
            }
            NodeRole::Supernode { .. } => Vec::new(),
            NodeRole::Gateway { offers, numbers, .. } => {
                let mut prefixes: Vec<_> = offers.iter().flat_map(|offer| &offer.prefixes).collect();
                prefixes.sort();
                prefixes.dedup();
                let prefixes = prefixes.into_iter().map(|prefix| RecordKey::Gateway(prefix.clone()));
                prefixes.chain(numbers.iter().map(|(number, _)| RecordKey::Number(number.clone()))).collect()
            }
        };
        if role.is_server() && probes {
            keys.push(RecordKey::Probe(me));
        }
        Self {
            items: keys.into_iter().map(|key| Item::new(key, None, now)).collect(),
            queries: HashMap::new(),
            last_sequence: 0,
            others: OtherDevices::default(),
            changed: None,
            servers_since: now,
            lost: 0,
        }
    }

    /// Returns how many own records are known to be stored elsewhere, under the certificate in use,
    /// and how many are not.
    pub(super) fn counts(&self, now: Instant) -> (usize, usize) {
        let is_stored = |item: &&Item| !item.is_outdated && item.stored_until.is_some_and(|at| at > now);
        let own = || self.items.iter().filter(|item| !item.is_probe() && !item.is_vacant());
        let stored = own().filter(is_stored).count();
        (stored, own().count() - stored)
    }

    /// Says whether records of one kind are stored nowhere else. One of several prefixes or numbers
    /// that cannot be stored is no reason to be offline under all others.
    fn lacks_a_kind(&self, now: Instant) -> bool {
        let stored = |item: &Item| item.stored_until.is_some_and(|at| at > now);
        let of_kind = |item: &Item| std::mem::discriminant(&item.key);
        // What an authority assigns may be void: nobody is offline for that.
        let own = || self.items.iter().filter(|item| !item.is_probe() && item.held.is_none());
        let kinds: HashSet<_> = own().map(of_kind).collect();
        let found: HashSet<_> = own().filter(|item| stored(item)).map(of_kind).collect();
        kinds != found
    }

    /// Says whether a record that was read back is the own one that was put last, or as good.
    pub(super) fn is_confirmed(&self, at: usize, me: &PeerId, found: Option<&ValidRecord>) -> bool {
        let item = self.items.get(at);
        item.zip(found).is_some_and(|(item, found)| found.confirms(item.sequence, me))
    }

    fn next_sequence(&mut self) -> u64 {
        self.last_sequence = unix_now_ms().max(self.last_sequence.saturating_add(1));
        self.last_sequence
    }
}

impl Task {
    /// The own addresses have changed.
    pub(super) fn location_changed(&mut self, now: Instant) {
        if self.role.is_server() {
            return;
        }
        self.publisher.changed.get_or_insert(now);
        for item in &mut self.publisher.items {
            match item.phase {
                Phase::Idle => item.due = now + SETTLE,
                Phase::Busy => item.again = true,
            }
        }
        self.wake_publisher(now + SETTLE);
    }

    /// A new server is connected: it may be nearer to own records than those that hold them.
    pub(super) fn publish_again(&mut self, now: Instant) {
        let recent = now < self.publisher.servers_since + NEW_SERVER_EVERY;
        self.publisher.servers_since = if recent { self.publisher.servers_since } else { now };
        for item in &mut self.publisher.items {
            let stored = item.stored_until.is_some_and(|at| at > now);
            if stored && item.is_probe() {
                continue;
            }
            let due =
                if stored && recent { self.publisher.servers_since + NEW_SERVER_EVERY } else { now + SETTLE };
            match item.phase {
                Phase::Idle => item.due = item.due.min(due),
                Phase::Busy => item.again |= !recent,
            }
        }
        self.wake_publisher(now + SETTLE);
    }

    /// Publishes every own record again: what certifies them has changed.
    pub(super) fn publish_all_anew(&mut self, now: Instant) {
        for item in &mut self.publisher.items {
            item.is_outdated = true;
            match item.phase {
                Phase::Idle => (item.due, item.backoff) = (now, Backoff::new(now)),
                Phase::Busy => item.again = true,
            }
        }
        self.wake_publisher(now);
    }

    fn wake_publisher(&mut self, at: Instant) {
        self.timers.set(super::task::Timer::Publish, Some(at));
    }

    /// Publishes what is due.
    pub(super) fn publish_due(&mut self, now: Instant) {
        // A server that is alone keeps its records itself: those who join by it find them there.
        let nowhere = !self.role.is_server() && self.peers.servers().next().is_none();
        if self.draining || nowhere {
            return;
        }
        if !self.role.is_server() {
            let waits = !self.reservations.settled()
                && self.publisher.changed.is_some_and(|since| now < since + RESERVATION_WAIT);
            if waits {
                self.wake_publisher(now + SETTLE);
            }
            // An address that comes wakes the publisher; until then there is nothing to say.
            if waits || self.own_addresses().is_empty() {
                return;
            }
        }
        let mut busy = self.publisher.items.iter().filter(|item| item.phase == Phase::Busy).count();
        for at in 0..self.publisher.items.len() {
            let Some(item) = self.publisher.items.get_mut(at) else { break };
            if item.phase == Phase::Busy || item.is_vacant() || now < item.due || !item.backoff.is_due(now) {
                continue;
            }
            if busy >= IN_FLIGHT {
                self.wake_publisher(now + SETTLE);
                break;
            }
            busy += 1;
            item.phase = Phase::Busy;
            item.began = now;
            item.again = false;
            item.backoff.attempt(now, self.limits.timers.retry);
            let key = item.key.clone();
            if item.held.is_some() {
                self.write_assignment(now, at);
                continue;
            }
            match &key {
                RecordKey::Location(_) => self.read_own_location(now, key),
                RecordKey::Number(_) => self.write_number(now, at),
                RecordKey::Probe(_) => self.write_probe(now, at),
                RecordKey::Gateway(_) => {
                    match self.swarm.behaviour_mut().kad.start_providing(Key::new(&key.to_bytes())) {
                        Ok(query) => {
                            self.publisher.queries.insert(query, at);
                        }
                        Err(error) => self.failed_to_publish(now, at, &error.to_string()),
                    }
                }
            }
        }
    }

    /// A user of several devices reads its record first: it speaks for all of them.
    fn read_own_location(&mut self, now: Instant, key: RecordKey) {
        self.publisher.changed = None;
        let NodeRole::User { certificate } = &self.role else { return };
        if certificate.claims().keys.len() > 1 {
            self.look_up(now, key, Purpose::OwnLocation);
        } else {
            self.write_location(now, None);
        }
    }

    /// Writes the location record: this device, and others that have spoken lately.
    pub(super) fn write_location(&mut self, now: Instant, held: Option<&ValidRecord>) {
        let NodeRole::User { certificate } = &self.role else { return };
        let certificate = certificate.clone();
        let life = self.limits.timers.record_lifetime.as_secs().clamp(1, LOCATION_LIFE);
        let unix = unix_now();
        if let Some(ValidRecord::Location(held)) = held {
            self.publisher.last_sequence = self.publisher.last_sequence.max(held.record.sequence);
            self.publisher.others.learn(held, &self.me, life);
        }
        let mut devices =
            vec![Device { peer: self.me, addresses: self.own_addresses(), abilities: 0, priority: 0 }];
        devices.extend(self.publisher.others.alive(unix, life));
        let sequence = self.publisher.next_sequence();
        let handle = certificate.claims().handle.clone();
        let record = LocationRecord { handle, sequence, expires_unix: unix + life, devices };
        match record.sign(&certificate, &self.key) {
            Ok(value) => self.put(now, 0, sequence, value),
            Err(error) => self.failed_to_publish(now, 0, &error.to_string()),
        }
    }

    /// Takes over which assignments are to be published. A place in the list keeps its number, since
    /// what is under way names it.
    pub(super) fn publish_numbers(&mut self, now: Instant, numbers: Vec<NumberAssignment>) {
        for item in self.publisher.items.iter_mut().filter(|item| item.held.is_some()) {
            (item.held, item.stored_until) = (Some(Held::Nothing), None);
        }
        for assignment in numbers {
            let key = RecordKey::Number(assignment.claims().number.clone());
            // A place whose record is on its way is of use for the same number only.
            let free =
                |item: &&mut Item| item.is_vacant() && (item.key == key || matches!(item.phase, Phase::Idle));
            let held = Some(Held::Assignment(Box::new(assignment)));
            match self.publisher.items.iter_mut().find(free) {
                Some(item) if item.phase == Phase::Busy => (item.held, item.again) = (held, true),
                Some(item) => *item = Item::new(key, held, now),
                None => self.publisher.items.push(Item::new(key, held, now)),
            }
        }
        self.wake_publisher(now);
    }

    /// Passes on what an authority has said of a number, as long as that is good.
    fn write_assignment(&mut self, now: Instant, at: usize) {
        let Some(Item { held: Some(Held::Assignment(assignment)), .. }) = self.publisher.items.get(at) else {
            return;
        };
        let sequence = assignment.claims().sequence;
        match assignment.verify(&self.trust, &self.revocations, unix_now()) {
            Ok(_) => {
                let value = assignment.encode();
                self.put(now, at, sequence, value);
            }
            Err(error) => {
                tracing::warn!(%error, "a number of this node is no longer published");
                if let Some(item) = self.publisher.items.get_mut(at) {
                    (item.phase, item.due, item.stored_until) = (Phase::Idle, now + VOID_AGAIN, None);
                }
            }
        }
    }

    fn write_number(&mut self, now: Instant, at: usize) {
        let sequence = self.publisher.next_sequence();
        let NodeRole::Gateway { chain, numbers, .. } = &self.role else { return };
        let Some(item) = self.publisher.items.get(at) else { return };
        let Some((number, handle)) =
            numbers.iter().find(|(number, _)| item.key == RecordKey::Number(number.clone()))
        else {
            return;
        };
        let record = NumberRecord {
            number: number.clone(),
            handle: handle.clone(),
            sequence,
            expires_unix: unix_now() + NUMBER_LIFE.as_secs(),
        };
        match record.sign(chain, &self.key) {
            Ok(value) => self.put(now, at, sequence, value),
            Err(error) => self.failed_to_publish(now, at, &error.to_string()),
        }
    }

    fn write_probe(&mut self, now: Instant, at: usize) {
        let sequence = self.publisher.next_sequence();
        let (NodeRole::Supernode { chain } | NodeRole::Gateway { chain, .. }) = &self.role else { return };
        let life = self.probe_life().as_secs();
        let record = ProbeRecord { sequence, expires_unix: unix_now() + life };
        match record.sign(chain, &self.key) {
            Ok(value) => self.put(now, at, sequence, value),
            Err(error) => self.failed_to_publish(now, at, &error.to_string()),
        }
    }

    /// Returns how long a probe lasts: twice as long as until the next.
    fn probe_life(&self) -> Duration {
        (self.limits.timers.probe * 2).clamp(Duration::from_secs(2), Duration::from_secs(PROBE_LIFE))
    }

    fn put(&mut self, now: Instant, at: usize, sequence: u64, value: Vec<u8>) {
        let Some(item) = self.publisher.items.get_mut(at) else { return };
        (item.sequence, item.value, item.copy) = (sequence, value, 0);
        self.put_copy(now, at);
    }

    /// Stores the present copy of a record at the nodes that are nearest to it.
    fn put_copy(&mut self, now: Instant, at: usize) {
        let Some(item) = self.publisher.items.get(at) else { return };
        let record = kad::Record::new(item.key.to_copy_bytes(item.copy), item.value.clone());
        if let Err(error) = self.put_record(now, record, PutFor::Own(at)) {
            self.failed_to_publish(now, at, &error.to_string());
        }
    }

    /// So many nodes have acknowledged an own record. Reading back decides.
    pub(super) fn on_put(&mut self, now: Instant, at: usize, taken: usize) {
        if taken == 0 {
            self.failed_to_publish(now, at, "no node has taken the record");
            return;
        }
        let Some(item) = self.publisher.items.get(at) else { return };
        let copy = item.key.to_copy_bytes(item.copy);
        self.read_copy_back(now, copy, at);
    }

    /// An announcement as provider is done. Reading back decides.
    pub(super) fn on_provided(&mut self, now: Instant, query: QueryId) {
        let Some(at) = self.publisher.queries.remove(&query) else { return };
        let Some(item) = self.publisher.items.get(at) else { return };
        let key = item.key.clone();
        self.read_provider_back(now, key, at);
    }

    /// An own record was read back from others, or was not found there.
    pub(super) fn on_read_back(&mut self, now: Instant, at: usize, record: Option<&ValidRecord>) {
        let probe_life = self.probe_life();
        let found = self.publisher.is_confirmed(at, &self.me, record);
        let Some(item) = self.publisher.items.get(at) else { return };
        let life = match &item.key {
            RecordKey::Location(_) => self.limits.timers.record_lifetime,
            RecordKey::Probe(_) => probe_life,
            _ if item.held.is_some() => ASSIGNMENT_LIFE,
            _ => NUMBER_LIFE,
        };
        self.read_back(now, at, found, life);
    }

    /// An announcement as gateway was read back from others, or was not found there.
    pub(super) fn on_provider_read_back(&mut self, now: Instant, at: usize, found: bool) {
        self.read_back(now, at, found, PROVIDE_EVERY * 2);
    }

    fn read_back(&mut self, now: Instant, at: usize, found: bool, life: Duration) {
        if !found {
            self.publisher.lost += 1;
            self.failed_to_publish(now, at, "it could not be read back from another node");
            return;
        }
        let Some(item) = self.publisher.items.get_mut(at) else { return };
        self.health.round_trip(now, item.began);
        item.stored_until = Some(now + life);
        if item.copy + 1 < item.key.copies() && !item.again {
            // Found by now; the other copies are for those who have something against that.
            item.copy += 1;
            self.check_online(now);
            self.put_copy(now, at);
            return;
        }
        item.phase = Phase::Idle;
        item.backoff = Backoff::new(now);
        item.is_outdated &= item.again;
        let again = Duration::from_secs(republish_after(life.as_secs()));
        item.due = if std::mem::take(&mut item.again) { now + SETTLE } else { now + again };
        let due = item.due;
        if due < now + Duration::from_secs(1) {
            self.wake_publisher(due);
        }
        self.check_online(now);
    }

    fn failed_to_publish(&mut self, now: Instant, at: usize, reason: &str) {
        if self.peers.servers().next().is_some() {
            self.health.no_round_trip();
        }
        if let Some(item) = self.publisher.items.get_mut(at) {
            item.phase = Phase::Idle;
            item.due = now;
            tracing::debug!(record = at, reason, "own record is not stored yet");
        }
        self.check_online(now);
    }

    /// Returns the addresses for the location record: direct ones, then circuits.
    pub(super) fn own_addresses(&self) -> Vec<Multiaddr> {
        let mut addresses = self.direct_addresses();
        addresses.truncate(MAX_DIRECT);
        addresses.extend(self.reservations.addresses());
        addresses.truncate(MAX_ADDRESSES);
        addresses
    }

    /// Returns the addresses under which this node is reached without a relay.
    pub(super) fn direct_addresses(&self) -> Vec<Multiaddr> {
        if self.external.is_empty() {
            let listening = self.listening.iter().map(|(_, address)| address);
            listening.filter(|address| self.is_announced(address)).cloned().collect()
        } else {
            self.external.clone()
        }
    }

    /// Says whether others are told of a listen address. That of the loopback device is of use to
    /// them only where the whole overlay is on one machine.
    pub(super) fn is_announced(&self, address: &Multiaddr) -> bool {
        self.loopback_only || !is_loopback(address)
    }

    /// Says whether this node is the whole network: a server that was told of no other by any way and
    /// knows none. What it does not hold does not exist.
    pub(super) fn is_alone(&self) -> bool {
        self.role.is_server() && !self.joining.plan.may_have_others() && self.peers.servers().next().is_none()
    }

    /// Says `Online` or `Offline` where that has changed.
    pub(super) fn check_online(&mut self, now: Instant) {
        let connected = self.peers.servers().next().is_some();
        let alone = self.is_alone();
        let missing = if !self.is_valid {
            Some("the own certificate has expired or is revoked")
        } else if alone {
            None
        } else if !connected {
            Some("no supernode is connected")
        } else if !self.role.is_server() && self.own_addresses().is_empty() {
            Some("no relay reservation is held")
        } else if self.publisher.lacks_a_kind(now) && !(self.online && self.role.is_server()) {
            // A server serves on while a record of its own finds its way to new nodes.
            Some("own records are not stored by other nodes yet")
        } else {
            None
        };
        if missing.is_none() == self.online {
            return;
        }
        self.online = missing.is_none();
        match missing {
            None => self.emit(NodeEvent::Online),
            Some(reason) => self.emit(NodeEvent::Offline { reason: reason.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::Prefix;
    use crate::record::GatewayOffer;
    use crate::testing::Pki;

    #[test]
    fn one_prefix_that_cannot_be_stored_keeps_no_gateway_offline() {
        let (now, prefixes) = (Instant::now(), ["+44", "+49", "+33"].map(|text| text.parse().unwrap()));
        let chain = Pki::new(unix_now()).unwrap().gateway(1, &prefixes).unwrap().chain;
        let offer = |prefix: &Prefix| GatewayOffer {
            prefixes: vec![prefix.clone()],
            price: crate::identity::Price { micros_per_minute: 1, currency: "EUR".parse().unwrap() },
            codecs: Vec::new(),
            capacity: 1,
            load: 0,
            sequence: 0,
            expires_unix: 0,
        };
        let numbers = vec![("+4420".parse().unwrap(), "bob".parse().unwrap())];
        let role = NodeRole::Gateway { chain, offers: prefixes.iter().map(offer).collect(), numbers };
        let mut publisher = Publisher::new(PeerId::random(), &role, true, now);
        assert!(publisher.lacks_a_kind(now));
        publisher.items[1].stored_until = Some(now + Duration::from_secs(1));
        assert!(publisher.lacks_a_kind(now), "the number is not stored");
        publisher.items[3].stored_until = Some(now + Duration::from_secs(1));
        assert!(!publisher.lacks_a_kind(now), "{:?}", publisher.counts(now));
        assert!(publisher.lacks_a_kind(now + Duration::from_secs(2)));
    }
}
