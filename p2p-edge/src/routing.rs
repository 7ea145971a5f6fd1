//! Rules of routing that need no network: whose networks may share a bucket, how long to wait
//! between attempts, and how often other servers are searched for.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// First wait between searches for more servers; it doubles each time.
pub const FIRST_REFRESH: Duration = Duration::from_secs(1);
/// Longest wait between searches for more servers.
pub const LAST_REFRESH: Duration = Duration::from_secs(300);
/// Longest wait between two attempts at the same node.
pub const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// Servers remembered for the time after every connection was lost, and for the next start.
pub const MAX_KNOWN: usize = 200;
/// Servers to which a server keeps an otherwise unused connection.
pub const MAX_WARM: usize = 64;
/// Servers to which a server keeps connected by dialling bootstrap nodes; the DHT brings more.
pub const WANTED_BY_SERVERS: usize = 16;

/// A network that one party is likely to own: a /24 of IPv4, a /48 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// Nothing that names a network address is known.
    Unknown,
    /// The first 24 bits of an IPv4 address.
    V4([u8; 3]),
    /// The first 48 bits of an IPv6 address.
    V6([u8; 6]),
}

impl Network {
    /// Returns the network of an address. Loopback has none: it says nothing about ownership.
    pub fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Some(Network::V4([a, b, c]))
            }
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                Some(Network::V6([octets[0], octets[1], octets[2], octets[3], octets[4], octets[5]]))
            }
        }
    }
}

/// Returns what counts as one subscriber: an IPv4 address, or the /64 of an IPv6 address.
pub fn subscriber(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64))),
        ip => ip,
    }
}

/// Says whether a bucket with peers of the networks `held` has room for one more of `networks`:
/// fewer than `limit` of each are in it. Whoever rents one network could otherwise fill the buckets
/// around a key.
pub fn has_room(
    networks: &HashSet<Network>,
    held: impl Iterator<Item = HashSet<Network>>,
    limit: usize,
) -> bool {
    let mut counts: HashMap<Network, usize> = HashMap::new();
    for of_entry in held {
        for network in of_entry.intersection(networks) {
            *counts.entry(*network).or_default() += 1;
        }
    }
    limit > 0 && counts.values().all(|count| *count < limit)
}

/// Doubles the wait between attempts at one thing.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    wait: Duration,
    due: Instant,
}

impl Backoff {
    /// Due at once.
    pub fn new(now: Instant) -> Self {
        Self { wait: Duration::ZERO, due: now }
    }

    /// Says whether the next attempt may begin.
    pub fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Returns the wait after the last attempt; none before the first.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// Begins an attempt: the next is due after a wait that doubles each time, up to
    /// [`LONGEST_RETRY`].
    pub fn attempt(&mut self, now: Instant, first: Duration) {
        self.attempt_up_to(now, first, LONGEST_RETRY);
    }

    /// As [`Backoff::attempt`], with another longest wait.
    pub fn attempt_up_to(&mut self, now: Instant, first: Duration, longest: Duration) {
        self.wait = if self.wait.is_zero() { first } else { (self.wait * 2).min(longest) };
        self.due = now + self.wait;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn network(text: &str) -> Option<Network> {
        Network::of(text.parse().unwrap())
    }

    #[test]
    fn networks_are_24_and_48_bits_and_loopback_is_none() {
        assert_eq!(network("192.0.2.1"), network("192.0.2.99"));
        assert_ne!(network("192.0.2.1"), network("192.0.3.1"));
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:ffff::1"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        assert_eq!(network("::ffff:192.0.2.7"), network("192.0.2.1"));
        assert_eq!((network("127.0.0.1"), network("::1")), (None, None));
    }

    #[test]
    fn a_bucket_has_room_for_so_many_of_one_network() {
        let of = |texts: &[&str]| texts.iter().filter_map(|text| network(text)).collect::<HashSet<_>>();
        let held = [of(&["192.0.2.1"]), of(&["192.0.2.2", "2001:db8:1::1"]), of(&["198.51.100.1"])];
        let room = |networks: &[&str], limit| has_room(&of(networks), held.iter().cloned(), limit);
        assert!(room(&["192.0.2.9"], 3) && !room(&["192.0.2.9"], 2));
        assert!(!room(&["203.0.113.1", "2001:db8:1::9"], 1), "each of its networks counts");
        assert!(room(&["203.0.113.1"], 1) && room(&["127.0.0.1"], 1));
        assert!(!room(&["203.0.113.1"], 0));
        let unknown = HashSet::from([Network::Unknown]);
        assert!(!has_room(&unknown, [unknown.clone()].into_iter(), 1), "all unknown ones are one");
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let start = Instant::now();
        let mut backoff = Backoff::new(start);
        assert!(backoff.is_due(start));
        let mut waits = Vec::new();
        for _ in 0..10 {
            backoff.attempt_up_to(start, FIRST_REFRESH, LAST_REFRESH);
            waits.push(backoff.wait().as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(!backoff.is_due(start + Duration::from_secs(299)));
        assert!(backoff.is_due(start + LAST_REFRESH));
    }
}
