//! Supernodes and devices in one process and in virtual time, every frame of theirs counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::identity::{HandleCertificate, RevocationList, Trust};
use crate::presence::{
    Agent, AgentEvent, Certified, Client, ClientEvent, Destination, Frame, FrameDecoder, Home, HomeEvent,
    Judge, Members, PresenceLimits, Refused, SignedAnnouncement, SignedRules, SignedText, Verifier,
};

/// Who decides whether signatures hold in a [`World`].
#[derive(Clone, Debug)]
pub enum Authority {
    /// The root of an overlay, as outside of simulations.
    Root(Box<Trust>, Box<RevocationList>),
    /// Everybody is believed: what is measured is traffic, and nobody lies.
    Trusting,
}

/// The judge of a [`World`] at one moment.
struct Bench<'a>(&'a Authority, u64);

impl Bench<'_> {
    fn verifier(&self) -> Option<Verifier<'_>> {
        match self.0 {
            Authority::Root(trust, revocations) => Some(Verifier { trust, revocations, unix: self.1 }),
            Authority::Trusting => None,
        }
    }
}

impl Judge for Bench<'_> {
    fn certificate(&self, bytes: &[u8]) -> Result<Certified, Refused> {
        if let Some(verifier) = self.verifier() {
            return verifier.certificate(bytes);
        }
        let certificate = HandleCertificate::decode(bytes).map_err(|_| Refused::Certificate)?;
        Ok(trusted(&certificate))
    }

    fn is_good(&self, certified: &Certified) -> bool {
        self.verifier().is_none_or(|verifier| verifier.is_good(certified))
    }

    fn announcement(&self, announced: &SignedAnnouncement, keys: &[crate::identity::PublicKey]) -> bool {
        self.verifier().is_none_or(|verifier| verifier.announcement(announced, keys))
    }

    fn rules(&self, rules: &SignedRules, keys: &[crate::identity::PublicKey]) -> bool {
        self.verifier().is_none_or(|verifier| verifier.rules(rules, keys))
    }

    fn text(&self, text: &SignedText, keys: &[crate::identity::PublicKey]) -> bool {
        self.verifier().is_none_or(|verifier| verifier.text(text, keys))
    }
}

/// Takes a certificate at its word.
pub fn trusted(certificate: &HandleCertificate) -> Certified {
    let claims = certificate.claims();
    Certified {
        handle: claims.handle.clone(),
        keys: claims.keys.clone(),
        serial: claims.serial,
        may_text: true,
        standing: None,
    }
}

/// The four ways that a frame may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// From a device to its supernode.
    Up,
    /// From a supernode to its device.
    Down,
    /// From a supernode to a home elsewhere.
    ToHome,
    /// From a home to a supernode elsewhere.
    FromHome,
}

/// Messages and bytes, with their length in front, without the transport below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What was sent, by way and kind of frame.
pub type Traffic = BTreeMap<(Way, &'static str), Tally>;

/// Adds up what went one of some ways.
pub fn total(traffic: &Traffic, ways: &[Way]) -> Tally {
    let of_ways = traffic.iter().filter(|((way, _), _)| ways.contains(way));
    of_ways.fold(Tally::default(), |sum, (_, tally)| Tally {
        messages: sum.messages + tally.messages,
        bytes: sum.bytes + tally.bytes,
    })
}

/// One of the parties of a [`World`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Party {
    Home(PeerId),
    Agent(PeerId),
    Device(usize),
}

#[derive(Debug)]
struct Node {
    home: Home,
    agent: Agent,
}

#[derive(Debug)]
struct Attached {
    client: Client,
    peer: PeerId,
    certificate: HandleCertificate,
    at: Option<PeerId>,
}

/// Supernodes and devices in one process. Frames arrive at once and in order; what is sent to a party
/// that is gone is lost.
#[derive(Debug)]
pub struct World {
    /// The moment.
    pub now: Instant,
    /// The same in Unix milliseconds.
    pub unix_ms: u64,
    authority: Authority,
    limits: PresenceLimits,
    nodes: BTreeMap<PeerId, Node>,
    devices: Vec<Attached>,
    by_peer: HashMap<PeerId, usize>,
    busy: BTreeSet<Party>,
    agenda: BTreeSet<(Instant, Party)>,
    due: HashMap<Party, Instant>,
    /// Whether frames are written and read again, as on a network.
    through_bytes: bool,
    /// What was sent.
    pub traffic: Traffic,
    /// What devices told their users.
    pub heard: Vec<(usize, ClientEvent)>,
    /// Whether [`World::heard`] is kept.
    pub keeps_events: bool,
    seed: u64,
}

impl World {
    /// Builds an empty world.
    pub fn new(authority: Authority, limits: PresenceLimits, now: Instant, unix_ms: u64, seed: u64) -> Self {
        let is_real = matches!(authority, Authority::Root(..));
        Self {
            now,
            unix_ms,
            authority,
            limits,
            nodes: BTreeMap::new(),
            devices: Vec::new(),
            by_peer: HashMap::new(),
            busy: BTreeSet::new(),
            agenda: BTreeSet::new(),
            due: HashMap::new(),
            through_bytes: is_real,
            traffic: Traffic::new(),
            heard: Vec::new(),
            keeps_events: is_real,
            seed,
        }
    }

    /// Starts supernodes; everybody knows them at once.
    pub fn start(&mut self, peers: &[PeerId]) {
        for peer in peers {
            self.seed =
                self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let node = Node {
                home: Home::new(*peer, self.limits.clone(), self.now),
                // Short sessions have short names; a real seed has 64 bits.
                agent: Agent::new(self.limits.clone(), self.seed >> 32, self.now),
            };
            self.nodes.insert(*peer, node);
        }
        self.tell_members();
    }

    /// Takes a supernode away without a word. Returns the devices that were connected to it.
    pub fn kill(&mut self, peer: &PeerId) -> Vec<usize> {
        self.nodes.remove(peer);
        for party in [Party::Home(*peer), Party::Agent(*peer)] {
            self.busy.remove(&party);
            if let Some(at) = self.due.remove(&party) {
                self.agenda.remove(&(at, party));
            }
        }
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.home.handle_closed(now, peer);
            node.agent.handle_home_closed(now, *peer);
        }
        self.wake_nodes();
        let orphans: Vec<usize> =
            (0..self.devices.len()).filter(|at| self.devices[*at].at == Some(*peer)).collect();
        for orphan in &orphans {
            self.devices[*orphan].at = None;
            self.devices[*orphan].client.handle_closed();
        }
        orphans
    }

    /// Cuts a link between an agent and a home for a moment.
    pub fn cut(&mut self, agent: &PeerId, home: &PeerId) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(home) {
            node.home.handle_closed(now, agent);
        }
        if let Some(node) = self.nodes.get_mut(agent) {
            node.agent.handle_home_closed(now, *home);
        }
        self.wake_nodes();
    }

    /// Tells every supernode who is there.
    pub fn tell_members(&mut self) {
        let peers: Vec<PeerId> = self.nodes.keys().copied().collect();
        let members = Members::new(peers.iter().copied());
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.home.handle_members(members.clone());
            node.agent.handle_members(now, peers.iter().copied());
        }
        self.wake_nodes();
    }

    /// Tells the agent of one supernode who is there, as far as it knows.
    pub fn tell_one(&mut self, peer: &PeerId, known: &[PeerId]) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(peer) {
            node.agent.handle_members(now, known.iter().copied());
        }
        self.wake_nodes();
    }

    /// Takes a new revocation list everywhere.
    pub fn revoke(&mut self, revocations: RevocationList) {
        if let Authority::Root(_, held) = &mut self.authority {
            **held = revocations;
        }
        let (now, bench) = (self.now, Bench(&self.authority, self.unix_ms / 1000));
        for node in self.nodes.values_mut() {
            node.home.handle_revocations(now, &bench);
        }
        self.wake_nodes();
    }

    fn wake_nodes(&mut self) {
        for peer in self.nodes.keys() {
            self.busy.extend([Party::Home(*peer), Party::Agent(*peer)]);
        }
    }

    /// Adds a device that is not connected. Returns its number.
    pub fn add(&mut self, client: Client, peer: PeerId, certificate: HandleCertificate) -> usize {
        self.by_peer.insert(peer, self.devices.len());
        self.devices.push(Attached { client, peer, certificate, at: None });
        self.devices.len() - 1
    }

    /// Connects a device to a supernode, after it is disconnected from any other.
    ///
    /// # Errors
    /// What [`Agent::handle_device_connected`] says; `Misplaced` where there is no such supernode.
    pub fn connect(&mut self, device: usize, to: &PeerId) -> Result<(), Refused> {
        self.disconnect(device);
        let (now, unix_ms) = (self.now, self.unix_ms);
        let node = self.nodes.get_mut(to).ok_or(Refused::Misplaced)?;
        let attached = &mut self.devices[device];
        let handle = attached.certificate.claims().handle.clone();
        let (number, certificate) = (attached.client.device(), attached.certificate.encode());
        node.agent.handle_device_connected(now, attached.peer, handle, number, certificate)?;
        attached.at = Some(*to);
        attached.client.handle_connected(now, unix_ms, *to);
        self.busy.insert(Party::Device(device));
        Ok(())
    }

    /// Cuts the connection of a device without a word.
    pub fn disconnect(&mut self, device: usize) {
        let attached = &mut self.devices[device];
        let Some(at) = attached.at.take() else { return };
        attached.client.handle_closed();
        if let Some(node) = self.nodes.get_mut(&at) {
            node.agent.handle_device_closed(self.now, &attached.peer);
            self.busy.insert(Party::Agent(at));
        }
    }

    /// Lets a device do something.
    pub fn device<T>(&mut self, device: usize, act: impl FnOnce(&mut Client, Instant, u64) -> T) -> T {
        let done = act(&mut self.devices[device].client, self.now, self.unix_ms);
        self.busy.insert(Party::Device(device));
        done
    }

    /// Lets a frame come from a device that its client has not sent.
    pub fn inject(&mut self, device: usize, frame: Frame) {
        let attached = &self.devices[device];
        if let Some(node) = attached.at.and_then(|at| self.nodes.get_mut(&at)) {
            node.agent.handle_device_frame(self.now, attached.peer, frame);
        }
        self.busy.extend(attached.at.map(Party::Agent));
    }

    /// Returns a device.
    pub fn client(&self, device: usize) -> &Client {
        &self.devices[device].client
    }

    /// Returns the supernode that a device is connected to.
    pub fn agent_of(&self, device: usize) -> Option<PeerId> {
        self.devices[device].at
    }

    /// Returns the home of a supernode.
    pub fn home(&self, peer: &PeerId) -> Option<&Home> {
        self.nodes.get(peer).map(|node| &node.home)
    }

    /// Returns the agent of a supernode.
    pub fn agent(&self, peer: &PeerId) -> Option<&Agent> {
        self.nodes.get(peer).map(|node| &node.agent)
    }

    /// Returns the supernodes that are there.
    pub fn supernodes(&self) -> Vec<PeerId> {
        self.nodes.keys().copied().collect()
    }

    /// Passes frames on until nobody has any left.
    pub fn settle(&mut self) {
        while let Some(party) = self.busy.pop_first() {
            match party {
                Party::Home(peer) => self.pump_home(peer),
                Party::Agent(peer) => self.pump_agent(peer),
                Party::Device(device) => self.pump_device(device),
            }
            self.reschedule(party);
        }
    }

    /// Lets time pass, with everything that falls due in it.
    pub fn advance(&mut self, by: Duration) {
        self.settle();
        let end = self.now + by;
        while let Some((at, party)) = self.agenda.first().copied().filter(|(at, _)| *at <= end) {
            self.move_to(at.max(self.now));
            self.agenda.pop_first();
            self.due.remove(&party);
            let (now, unix_ms) = (self.now, self.unix_ms);
            match party {
                Party::Home(peer) => {
                    if let Some(node) = self.nodes.get_mut(&peer) {
                        node.home.handle_timeout(now, unix_ms / 1000);
                    }
                }
                Party::Agent(peer) => {
                    if let Some(node) = self.nodes.get_mut(&peer) {
                        node.agent.handle_timeout(now);
                    }
                }
                Party::Device(device) => self.devices[device].client.handle_timeout(now, unix_ms),
            }
            self.busy.insert(party);
            self.settle();
        }
        self.move_to(end);
    }

    fn move_to(&mut self, at: Instant) {
        let by = at.saturating_duration_since(self.now);
        self.now += by;
        // Rounded up, so that nothing is due by one clock and not by the other.
        self.unix_ms += by.as_micros().div_ceil(1000) as u64;
    }

    fn reschedule(&mut self, party: Party) {
        let next = match party {
            Party::Home(peer) => self.nodes.get(&peer).and_then(|node| node.home.poll_timeout()),
            Party::Agent(peer) => self.nodes.get(&peer).and_then(|node| node.agent.poll_timeout()),
            Party::Device(device) => self.devices[device].client.poll_timeout(),
        };
        let before = self.due.get(&party).copied();
        if before == next {
            return;
        }
        if let Some(before) = self.due.remove(&party) {
            self.agenda.remove(&(before, party));
        }
        if let Some(next) = next {
            self.due.insert(party, next);
            self.agenda.insert((next, party));
        }
    }

    fn count(&mut self, way: Way, frame: Frame) -> Frame {
        let bytes = frame.encode();
        let tally = self.traffic.entry((way, frame.name())).or_default();
        tally.messages += 1;
        tally.bytes += bytes.len() as u64;
        if !self.through_bytes {
            return frame;
        }
        let mut rest = bytes.as_slice();
        match FrameDecoder::new().feed(&mut rest) {
            Ok(Some(read)) if rest.is_empty() => read,
            other => unreachable!("{} does not survive the wire: {other:?}", frame.name()),
        }
    }

    fn pump_home(&mut self, peer: PeerId) {
        while let Some((to, frame)) =
            self.nodes.get_mut(&peer).and_then(|node| node.home.poll_transmit(self.now))
        {
            let frame = if to == peer { frame } else { self.count(Way::FromHome, frame) };
            if let Some(node) = self.nodes.get_mut(&to) {
                node.agent.handle_home_frame(self.now, peer, frame);
                self.busy.insert(Party::Agent(to));
            }
        }
        let Some(node) = self.nodes.get_mut(&peer) else { return };
        while let Some(HomeEvent::HandOver(text)) = node.home.poll_event() {
            node.agent.handle_text(self.now, text);
            self.busy.insert(Party::Agent(peer));
        }
    }

    fn pump_agent(&mut self, peer: PeerId) {
        loop {
            let Some(node) = self.nodes.get_mut(&peer) else { return };
            if let Some(event) = node.agent.poll_event() {
                self.on_agent_event(peer, event);
                continue;
            }
            let Some((to, frame)) = node.agent.poll_transmit() else { return };
            match to {
                Destination::Device(device) => {
                    let Some(device) = self.by_peer.get(&device).copied() else { continue };
                    let frame = self.count(Way::Down, frame);
                    let (now, unix_ms) = (self.now, self.unix_ms);
                    let attached = &mut self.devices[device];
                    if attached.at == Some(peer) {
                        let bench = Bench(&self.authority, unix_ms / 1000);
                        attached.client.handle_frame(now, unix_ms, &bench, frame);
                        self.busy.insert(Party::Device(device));
                    }
                }
                Destination::Home(home) => {
                    let frame = if home == peer { frame } else { self.count(Way::ToHome, frame) };
                    let bench = Bench(&self.authority, self.unix_ms / 1000);
                    if let Some(node) = self.nodes.get_mut(&home) {
                        node.home.handle_frame(self.now, self.unix_ms / 1000, &bench, peer, frame);
                        self.busy.insert(Party::Home(home));
                    }
                }
            }
        }
    }

    fn on_agent_event(&mut self, peer: PeerId, event: AgentEvent) {
        let now = self.now;
        match event {
            AgentEvent::Connect(home) => {
                let there = self.nodes.get_mut(&home).map(|node| node.home.handle_connected(peer)).is_some();
                let Some(node) = self.nodes.get_mut(&peer) else { return };
                if there {
                    node.agent.handle_home_connected(now, home);
                } else {
                    node.agent.handle_home_closed(now, home);
                }
            }
            AgentEvent::Release(home) => {
                if let Some(node) = self.nodes.get_mut(&home) {
                    node.home.handle_closed(now, &peer);
                    self.busy.insert(Party::Home(home));
                }
            }
        }
    }

    fn pump_device(&mut self, device: usize) {
        while let Some(frame) = self.devices[device].client.poll_transmit() {
            let Some(at) = self.devices[device].at else { continue };
            let frame = self.count(Way::Up, frame);
            let peer = self.devices[device].peer;
            if let Some(node) = self.nodes.get_mut(&at) {
                node.agent.handle_device_frame(self.now, peer, frame);
                self.busy.insert(Party::Agent(at));
            }
        }
        while let Some(event) = self.devices[device].client.poll_event() {
            if self.keeps_events {
                self.heard.push((device, event));
            }
        }
    }
}
