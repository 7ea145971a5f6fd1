//! Presence and text through the public verbs, in virtual time, every frame through its bytes.
#![allow(clippy::unwrap_used)]

mod failover;
mod frames;
mod measured;
mod states;
mod texts;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use call_model::Handle;
use libp2p::PeerId;

use super::simulation::{Authority, Way, World, total};
use super::{Availability, Client, ClientEvent, Members, PresenceLimits, homes_of};
use crate::identity::{HandleCertificate, NodeKey, UserBundle};
use crate::testing::{Pki, key};

const UNIX: u64 = 1_790_000_000;

fn handle(text: &str) -> Handle {
    text.parse().unwrap()
}

fn handles(names: &[&str]) -> BTreeSet<Handle> {
    names.iter().map(|name| handle(name)).collect()
}

fn supernode(number: u8) -> PeerId {
    key(100 + number).peer_id()
}

/// Supernodes, and users with their devices.
struct Scene {
    pki: Pki,
    world: World,
    nodes: Vec<PeerId>,
    next_key: u8,
}

impl Scene {
    fn new(supernodes: u8) -> Self {
        Self::with_limits(supernodes, PresenceLimits::default())
    }

    fn with_limits(supernodes: u8, limits: PresenceLimits) -> Self {
        let pki = Pki::new(UNIX).unwrap();
        let authority = Authority::Root(Box::new(pki.trust().unwrap()), Box::default());
        let mut world = World::new(authority, limits, Instant::now(), UNIX * 1000, 1);
        let nodes: Vec<PeerId> = (0..supernodes).map(supernode).collect();
        world.start(&nodes);
        Self { pki, world, nodes, next_key: 1 }
    }

    /// Adds the devices of a user. They watch `contacts`, and let exactly these watch.
    fn user(&mut self, name: &str, devices: usize, contacts: &[&str]) -> Vec<usize> {
        let keys: Vec<NodeKey> = (0..devices).map(|n| key(self.next_key + n as u8)).collect();
        let serial = u64::from(self.next_key);
        self.next_key += devices as u8;
        let certificate = self.pki.handle(&handle(name), &keys.iter().collect::<Vec<_>>(), serial).unwrap();
        keys.into_iter().map(|key| self.device(key, &certificate, contacts)).collect()
    }

    fn device(&mut self, key: NodeKey, certificate: &HandleCertificate, contacts: &[&str]) -> usize {
        let (peer, now, unix_ms) = (key.peer_id(), self.world.now, self.world.unix_ms);
        let mut secret = [7; 32];
        secret[0] = self.next_key;
        let bundle = UserBundle { key, certificate: certificate.clone() };
        let mut client = Client::new(bundle, secret, PresenceLimits::default(), now).unwrap();
        client.set_contacts(&handles(contacts)).unwrap();
        client.set_rules(unix_ms, false, handles(contacts), BTreeSet::new()).unwrap();
        self.world.add(client, peer, certificate.clone())
    }

    fn connect(&mut self, device: usize, node: usize) {
        self.world.connect(device, &self.nodes[node].clone()).unwrap();
        self.world.settle();
    }

    fn set(&mut self, device: usize, availability: Availability) {
        self.note(device, availability, "");
    }

    fn note(&mut self, device: usize, availability: Availability, note: &str) {
        self.world.device(device, |client, now, unix| client.set(now, unix, availability, note)).unwrap();
        self.world.settle();
    }

    fn online(&mut self, device: usize, node: usize) {
        self.set(device, Availability::Available);
        self.connect(device, node);
    }

    fn pass(&mut self, seconds: u64) {
        self.world.advance(Duration::from_secs(seconds));
    }

    fn shown(&self, device: usize, of: &str) -> Availability {
        self.world.client(device).shown(&handle(of)).unwrap()
    }

    /// Takes what a device has told its user of the presence of others since the last time.
    fn changes(&mut self, device: usize) -> Vec<(String, Availability, String)> {
        let (mine, others) = std::mem::take(&mut self.world.heard)
            .into_iter()
            .partition(|(at, event)| *at == device && matches!(event, ClientEvent::Presence { .. }));
        self.world.heard = others;
        let mine: Vec<(usize, ClientEvent)> = mine;
        let change = |(_, event)| match event {
            ClientEvent::Presence { handle, availability, note } => {
                Some((handle.to_string(), availability, note))
            }
            _ => None,
        };
        mine.into_iter().filter_map(change).collect()
    }

    /// Takes the texts that a device has shown since the last time: sender and text.
    fn texts(&mut self, device: usize) -> Vec<(String, String)> {
        let (mine, others) = std::mem::take(&mut self.world.heard)
            .into_iter()
            .partition(|(at, event)| *at == device && matches!(event, ClientEvent::Text(_)));
        self.world.heard = others;
        let mine: Vec<(usize, ClientEvent)> = mine;
        let text = |(_, event)| match event {
            ClientEvent::Text(text) => Some((text.from.to_string(), text.text)),
            _ => None,
        };
        mine.into_iter().filter_map(text).collect()
    }

    fn homes(&self, name: &str) -> Vec<PeerId> {
        homes_of(&handle(name), &Members::new(self.world.supernodes()))
    }

    /// Returns a supernode that is no home of a handle.
    fn stranger(&self, name: &str) -> usize {
        let homes = self.homes(name);
        self.nodes.iter().position(|node| !homes.contains(node)).unwrap()
    }

    fn bytes(&self, ways: &[Way]) -> u64 {
        total(&self.world.traffic, ways).bytes
    }

    fn all_bytes(&self) -> u64 {
        self.bytes(&[Way::Up, Way::Down, Way::ToHome, Way::FromHome])
    }

    fn sent(&self, way: Way, name: &'static str) -> u64 {
        self.world.traffic.get(&(way, name)).map_or(0, |tally| tally.messages)
    }

    fn refused(&self, reason: super::Refused) -> u64 {
        let of =
            |counters: &super::PresenceCounters| counters.refused.get(reason.as_str()).copied().unwrap_or(0);
        let nodes = self.world.supernodes();
        let homes = nodes.iter().filter_map(|node| self.world.home(node)).map(|home| of(home.counters()));
        let agents = nodes.iter().filter_map(|node| self.world.agent(node)).map(|a| of(a.counters()));
        homes.sum::<u64>() + agents.sum::<u64>()
    }
}
