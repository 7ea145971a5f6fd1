//! Who takes part: keys, certificates, networks and places, all from the seed; and the records of users. The
//! identities are real ones: what they sign is verified by the code of the node.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use call_model::Handle;
use p2p_edge::identity::{NodeChain, NodeClaims, NodeKey, RevocationList, Trust, UserBundle};
use p2p_edge::record::{Device, LOCATION_LIFE, LocationRecord, RecordKey, Source, ValidRecord, Verified};
use p2p_edge::routing::Network;
use p2p_edge::testing::Pki;
use sha2::{Digest as _, Sha256};

use crate::random::Random;

/// Unix time at the beginning of virtual time.
pub(crate) const BASE: u64 = 1_790_000_000;
/// Reservations of a user, each with another supernode.
pub(crate) const RELAYS: usize = 3;

/// Somebody who takes part. What never changes.
#[derive(Debug)]
pub(crate) struct Party {
    /// The first 128 bits of the place in the key space: SHA-256 of the PeerId, as in libp2p.
    pub(crate) id: u128,
    pub(crate) source: Source,
    pub(crate) networks: HashSet<Network>,
    /// Whether the certificate verifies under the root.
    pub(crate) certified: bool,
    /// Whether it answers in the DHT.
    pub(crate) server: bool,
    /// Where it stands, on a sphere of radius 1.
    pub(crate) place: [f64; 3],
    /// From there to the next exchange, in milliseconds.
    pub(crate) access: f64,
    address: String,
}

/// A user: what it signs with, and where its record is.
#[derive(Debug)]
pub(crate) struct User {
    bundle: UserBundle,
    handle: Handle,
    pub(crate) key: Vec<u8>,
    /// The places of the record and of its salted duplicates.
    pub(crate) targets: Vec<u128>,
}

impl User {
    /// Says whether what was read back shows that a put has taken effect.
    pub(crate) fn confirmed_by(&self, found: &ValidRecord, sequence: u64) -> bool {
        found.confirms(sequence, &self.bundle.key.peer_id())
    }
}

/// All parties: supernodes, then users, then attackers.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) parties: Vec<Party>,
    pub(crate) users: Vec<User>,
    pub(crate) supernodes: usize,
    pki: Pki,
    pub(crate) trust: Trust,
    pub(crate) revocations: RevocationList,
}

/// How many of each there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Population {
    pub(crate) supernodes: usize,
    pub(crate) users: usize,
    /// Places of each record.
    pub(crate) copies: usize,
}

/// Those who want the records of the first user: uncertified, with PeerIds near its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attack {
    pub(crate) sybils: usize,
    /// /24 networks they have.
    pub(crate) networks: usize,
    /// Whether they have got certificates.
    pub(crate) certified: bool,
    /// Whose place they stand around.
    pub(crate) around: Around,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    /// The record of the first user.
    Record,
    /// Nobody: they are everywhere.
    Everywhere,
}

impl World {
    pub(crate) fn new(population: Population, attack: Option<Attack>, seed: u64) -> Result<Self> {
        let pki = Pki::new(BASE)?;
        let (trust, revocations) = (pki.trust()?, RevocationList::default());
        let mut random = Random::new(seed);
        let mut parties = Vec::new();
        for number in 0..population.supernodes {
            let key = key(&mut random);
            let chain = pki.enrolment.issue_node(
                &format!("supernode-{number}"),
                &key.public(),
                &NodeClaims::supernode(),
                10_000 + number as u64,
                pki.validity(),
            )?;
            let certified = is_certified(&chain, &trust, &revocations);
            let ip = address(&mut random, None);
            parties.push(party(&key, ip, certified, true, &mut random));
        }
        let mut users = Vec::new();
        for number in 0..population.users {
            let key = key(&mut random);
            let handle: Handle = format!("user{number}").parse()?;
            let certificate = pki.handle(&handle, &[&key], 1_000_000 + number as u64)?;
            let ip = address(&mut random, None);
            parties.push(party(&key, ip, false, false, &mut random));
            let record_key = RecordKey::Location(handle.clone()).to_bytes();
            let targets = (0..population.copies).map(|copy| target(&record_key, copy)).collect();
            users.push(User { bundle: UserBundle { key, certificate }, handle, key: record_key, targets });
        }
        let mut world = Self { parties, users, supernodes: population.supernodes, pki, trust, revocations };
        if let Some(attack) = attack {
            world.add_sybils(attack, &mut random)?;
        }
        Ok(world)
    }

    fn add_sybils(&mut self, attack: Attack, random: &mut Random) -> Result<()> {
        // Certificates of their own making verify under no root that others trust.
        let other = p2p_edge::identity::Authority::init_root("Other", [7; 32], self.pki.validity())?;
        let enrolment = other.init_enrolment("Other Enrolment", [8; 32], 2, self.pki.validity())?;
        let target = self.users.first().and_then(|user| user.targets.first()).copied().context("no user")?;
        let nearest = self.nearest(target);
        for number in 0..attack.sybils {
            let key = key(random);
            let issuer = if attack.certified { &self.pki.enrolment } else { &enrolment };
            let name = format!("sybil-{number}");
            let claims = NodeClaims::supernode();
            let chain = issuer.issue_node(
                &name,
                &key.public(),
                &claims,
                5_000_000 + number as u64,
                self.pki.validity(),
            )?;
            let certified = is_certified(&chain, &self.trust, &self.revocations);
            let ip = address(random, Some((number % attack.networks) as u8));
            let mut sybil = party(&key, ip, certified, true, random);
            if attack.around == Around::Record {
                // Making keys until one is nearer than every supernode takes minutes; here the outcome is set.
                sybil.id = target ^ (nearest >> (1 + number % 8)).wrapping_add(number as u128);
            }
            self.parties.push(sybil);
        }
        Ok(())
    }

    /// The distance of the supernode that is nearest to a place.
    fn nearest(&self, target: u128) -> u128 {
        self.parties[..self.supernodes].iter().map(|party| party.id ^ target).min().unwrap_or(u128::MAX)
    }

    pub(crate) fn is_user(&self, node: u32) -> bool {
        (self.supernodes..self.supernodes + self.users.len()).contains(&(node as usize))
    }

    pub(crate) fn is_sybil(&self, node: u32) -> bool {
        node as usize >= self.supernodes + self.users.len()
    }

    pub(crate) fn node_of(&self, user: usize) -> u32 {
        (self.supernodes + user) as u32
    }

    /// Signs the record of a user: reached through its relays and at an address of its own.
    pub(crate) fn sign(&self, user: usize, relays: &[u32], sequence: u64, unix: u64) -> Result<Vec<u8>> {
        let User { bundle, handle, .. } = &self.users[user];
        let own = &self.parties[self.node_of(user) as usize].address;
        let mut addresses = vec![own.parse()?];
        for relay in relays {
            addresses.push(format!("{}/p2p-circuit", self.parties[*relay as usize].address).parse()?);
        }
        let device = Device { peer: bundle.key.peer_id(), addresses, abilities: 0, priority: 0 };
        let record = LocationRecord {
            handle: handle.clone(),
            sequence,
            expires_unix: unix + LOCATION_LIFE,
            devices: vec![device],
        };
        Ok(record.sign(&bundle.certificate, &bundle.key)?)
    }

    pub(crate) fn verify(&self, user: usize, value: Vec<u8>, unix: u64) -> Result<Verified> {
        Ok(Verified::check(&self.users[user].key, value, &self.trust, &self.revocations, unix)?)
    }

    /// One more certificate of a supernode, to measure with.
    pub(crate) fn chain(&self, random: &mut Random) -> Result<NodeChain> {
        let (claims, validity) = (NodeClaims::supernode(), self.pki.validity());
        Ok(self.pki.enrolment.issue_node("measured", &key(random).public(), &claims, 9, validity)?)
    }
}

pub(crate) fn is_certified(chain: &NodeChain, trust: &Trust, revocations: &RevocationList) -> bool {
    chain.verify(trust, revocations, BASE).is_ok()
}

fn key(random: &mut Random) -> NodeKey {
    let mut seed = [0; 32];
    seed.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next().to_be_bytes()));
    NodeKey::from_seed(seed)
}

/// The place of a record, as in libp2p; that of a salted duplicate has its number behind the key.
fn target(key: &[u8], copy: usize) -> u128 {
    let mut salted = key.to_vec();
    if copy > 0 {
        salted.extend_from_slice(format!("/{copy}").as_bytes());
    }
    first_bits(&salted)
}

fn first_bits(bytes: &[u8]) -> u128 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(16).fold(0, |bits, byte| (bits << 8) | u128::from(*byte))
}

fn party(key: &NodeKey, ip: IpAddr, certified: bool, server: bool, random: &mut Random) -> Party {
    let peer = key.peer_id();
    let kind = if ip.is_ipv4() { "ip4" } else { "ip6" };
    let address = if server {
        format!("/{kind}/{ip}/udp/4001/quic-v1/p2p/{peer}")
    } else {
        format!("/{kind}/{ip}/udp/4001/quic-v1")
    };
    Party {
        id: first_bits(&peer.to_bytes()),
        source: Source::Remote { peer, address: Some(ip) },
        networks: Network::of(ip).into_iter().collect(),
        certified,
        server,
        place: place(random),
        access: 1.0 + random.exponential(5.0),
        address,
    }
}

/// An address somewhere, one in ten of IPv6; those of an attacker are in networks of 24 bits with a number.
fn address(random: &mut Random, rented: Option<u8>) -> IpAddr {
    let bits = random.next();
    let [a, b, c, d, ..] = bits.to_be_bytes();
    match rented {
        Some(network) => Ipv4Addr::new(198, 18, network, d).into(),
        None if random.chance(0.1) => {
            let (high, low) = ((bits >> 48) as u16, bits as u16);
            Ipv6Addr::new(0x2a00 | (high & 0xff), low, high.rotate_left(4), 0, 0, 0, 0, 1).into()
        }
        None => Ipv4Addr::new(1 + a % 126, b, c, d).into(),
    }
}

/// Where people are: latitude and longitude in degrees of five regions, and their shares of all.
const REGIONS: [(f64, f64, f64); 5] =
    [(50.0, 10.0, 0.35), (40.0, -90.0, 0.25), (33.0, 115.0, 0.2), (20.0, 78.0, 0.1), (-15.0, -55.0, 0.1)];

fn place(random: &mut Random) -> [f64; 3] {
    let mut left = random.unit();
    let region = REGIONS.iter().find(|region| {
        left -= region.2;
        left <= 0.0
    });
    let (latitude, longitude, _) = region.copied().unwrap_or(REGIONS[0]);
    let around = |degrees: f64, random: &mut Random| (degrees + 30.0 * (random.unit() - 0.5)).to_radians();
    let (latitude, longitude) = (around(latitude, random), around(longitude, random));
    [latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()]
}
