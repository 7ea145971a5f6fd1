//! How much peers may ask of the look-up service: a bucket of tokens for each peer and for each
//! network, one token a key.
//!
//! A peer costs nothing to make, so a network has a bucket of its own. Certified nodes are not
//! counted: they ask on behalf of all their clients.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::routing::subscriber;

/// Seconds' worth of tokens that may be taken at once.
const BURST_S: u32 = 10;
/// What a network may have beside one peer: there are many users behind one address.
const PEERS_PER_NETWORK: u32 = 10;
/// Buckets of each kind. Those that are full again are forgotten.
const MAX_BUCKETS: usize = 65_536;

/// The buckets of all peers and networks.
pub(super) struct Rates {
    peers: Buckets<PeerId>,
    networks: Buckets<IpAddr>,
}

impl Rates {
    /// Builds full buckets: `per_second` keys for one peer, ten times that for one network.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            peers: Buckets::new(per_second),
            networks: Buckets::new(per_second.saturating_mul(PEERS_PER_NETWORK)),
        }
    }

    /// Takes tokens for so many keys, from both buckets or from none. Peers that come through a
    /// relay have no address of their own: they share one network.
    pub(super) fn take(&mut self, now: Instant, peer: PeerId, address: Option<IpAddr>, keys: usize) -> bool {
        let keys = u32::try_from(keys).unwrap_or(u32::MAX);
        let network = network_of(address);
        if !self.peers.has(now, &peer, keys) || !self.networks.has(now, &network, keys) {
            return false;
        }
        self.peers.take(now, peer, keys) && self.networks.take(now, network, keys)
    }
}

/// The network that counts as one asker: an IPv4 address, or the /64 that a subscriber has.
fn network_of(address: Option<IpAddr>) -> IpAddr {
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), subscriber)
}

struct Buckets<K> {
    per_second: u32,
    table: HashMap<K, Bucket>,
}

/// Tokens that are left, in thousandths, at a moment.
#[derive(Clone, Copy)]
struct Bucket {
    left: u64,
    at: Instant,
}

impl<K: Hash + Eq> Buckets<K> {
    fn new(per_second: u32) -> Self {
        Self { per_second, table: HashMap::new() }
    }

    fn full(&self) -> u64 {
        u64::from(self.per_second) * u64::from(BURST_S) * 1000
    }

    fn left(&self, bucket: Bucket, now: Instant) -> u64 {
        let ms = u64::try_from(now.saturating_duration_since(bucket.at).as_millis()).unwrap_or(u64::MAX);
        bucket.left.saturating_add(ms.saturating_mul(u64::from(self.per_second))).min(self.full())
    }

    fn has(&self, now: Instant, key: &K, tokens: u32) -> bool {
        let left = self.table.get(key).map_or(self.full(), |bucket| self.left(*bucket, now));
        left >= u64::from(tokens) * 1000
    }

    fn take(&mut self, now: Instant, key: K, tokens: u32) -> bool {
        if self.table.len() >= MAX_BUCKETS && !self.table.contains_key(&key) {
            let window = Duration::from_secs(BURST_S.into());
            self.table.retain(|_, bucket| now.saturating_duration_since(bucket.at) < window);
            if self.table.len() >= MAX_BUCKETS {
                return false;
            }
        }
        let before = self.table.get(&key).map_or(self.full(), |bucket| self.left(*bucket, now));
        let Some(left) = before.checked_sub(u64::from(tokens) * 1000) else { return false };
        self.table.insert(key, Bucket { left, at: now });
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_peer_gets_its_rate_and_no_more() {
        let (start, peer) = (Instant::now(), PeerId::random());
        let mut rates = Rates::new(16);
        let at = |s| start + Duration::from_secs(s);
        let granted = |rates: &mut Rates, s| (0..100).filter(|_| rates.take(at(s), peer, None, 16)).count();
        assert_eq!(granted(&mut rates, 0), 10, "ten seconds' worth at once");
        assert_eq!(granted(&mut rates, 1), 1);
        assert_eq!(granted(&mut rates, 4), 3);
        assert_eq!(granted(&mut rates, 1000), 10, "and what is not taken does not pile up");
        assert!(rates.take(at(1000), PeerId::random(), None, 16), "others have theirs");
    }

    #[test]
    fn many_peers_of_one_network_are_one_asker() {
        let now = Instant::now();
        let mut rates = Rates::new(16);
        let mut granted = |address: Option<IpAddr>| {
            (0..500).filter(|_| rates.take(now, PeerId::random(), address, 16)).count()
        };
        assert_eq!(granted(ip("192.0.2.1")), 100);
        assert_eq!(granted(ip("::ffff:192.0.2.1")), 0, "the same address in other words");
        assert_eq!(granted(ip("192.0.2.2")), 100, "another address");
        assert_eq!(granted(ip("2001:db8::1")), 100);
        assert_eq!(granted(ip("2001:db8::ffff:2")), 0, "another of the same /64");
        assert_eq!(granted(None), 100);
        assert_eq!(granted(None), 0, "relays hide where peers come from: they share one network");
    }

    #[test]
    fn what_one_bucket_refuses_is_not_taken_from_the_other() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut rates = Rates::new(16);
        assert!(!rates.take(now, peer, ip("192.0.2.1"), 161), "more than a whole bucket");
        assert!(rates.take(now, peer, ip("192.0.2.1"), 160));
        assert!(!rates.take(now, peer, ip("192.0.2.1"), 1));
        let others = (0..500).filter(|_| rates.take(now, PeerId::random(), ip("192.0.2.1"), 16)).count();
        assert_eq!(others, 90, "the network has lost the first 160 only");
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let mut now = Instant::now();
        let mut buckets = Buckets::new(1);
        for key in 0..MAX_BUCKETS {
            assert!(buckets.take(now, key, 1));
        }
        assert!(!buckets.take(now, MAX_BUCKETS, 1), "no room for another");
        assert!(buckets.take(now, 0, 1), "those that are known go on");
        now += Duration::from_secs(BURST_S.into());
        assert!(buckets.take(now, MAX_BUCKETS, 1));
        assert!(buckets.table.len() < 3);
    }
}
