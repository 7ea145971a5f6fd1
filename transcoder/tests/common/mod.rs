//! A network in virtual time: datagrams are delayed, lost, doubled and reordered as a seed says.
// The clock is read once, for a first instant; all time after is added to it.
#![allow(dead_code, clippy::unwrap_used, clippy::disallowed_methods, unreachable_pub)]

pub mod babble;
pub mod call;
pub mod certificate;
pub mod fax;
pub mod keys;
pub mod signal;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub delay: Duration,
    /// Delay on top, uniform: more than a packet interval reorders.
    pub jitter: Duration,
    pub loss_per_mille: u64,
    pub duplicate_per_mille: u64,
}

pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct Network {
    pub now: Instant,
    pub start: Instant,
    pub weather: Weather,
    /// The one whose datagrams have jitter, if not all have.
    pub jittery: Option<SocketAddr>,
    pub random: Random,
    /// Datagrams of one sender that are lost in a row, each time that one is.
    pub burst: u32,
    losing: HashMap<SocketAddr, u32>,
    in_flight: BTreeMap<(Instant, u64), Datagram>,
    count: u64,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        let start = Instant::now();
        let weather = Weather { delay: Duration::from_millis(5), ..Weather::default() };
        let (random, in_flight) = (Random(seed), BTreeMap::new());
        let losing = HashMap::new();
        Self { now: start, start, weather, jittery: None, random, burst: 1, losing, in_flight, count: 0 }
    }

    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        self.send_later(Duration::ZERO, from, to, bytes);
    }

    /// Sends with a delay beside the weather's.
    pub fn send_later(&mut self, later: Duration, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let losing = self.losing.entry(from).or_default();
        if *losing == 0 && self.random.chance(self.weather.loss_per_mille) {
            *losing = self.burst;
        }
        if *losing > 0 {
            *losing -= 1;
            return;
        }
        let copies = if self.random.chance(self.weather.duplicate_per_mille) { 2 } else { 1 };
        for _ in 0..copies {
            let jittery = self.jittery.is_none_or(|only| only == from);
            let jitter = if jittery { self.weather.jitter.as_micros() as u64 } else { 0 };
            let extra = Duration::from_micros(if jitter == 0 { 0 } else { self.random.below(jitter) });
            self.count += 1;
            let at = self.now + self.weather.delay + extra + later;
            self.in_flight.insert((at, self.count), Datagram { from, to, bytes: bytes.to_vec() });
        }
    }

    /// Sends on a path without weather but the delay.
    pub fn send_safely(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let weather = std::mem::take(&mut self.weather);
        self.weather.delay = weather.delay;
        self.send(from, to, bytes);
        self.weather = weather;
    }

    pub fn next_at(&self) -> Option<Instant> {
        self.in_flight.keys().next().map(|(at, _)| *at)
    }

    pub fn due(&mut self) -> Option<Datagram> {
        let entry = self.in_flight.first_entry()?;
        (entry.key().0 <= self.now).then(|| entry.remove())
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
