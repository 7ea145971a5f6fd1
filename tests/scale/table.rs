//! The routing table of one node: buckets of 20 by common prefix, as Kademlia has them.

use std::time::Duration;

/// Peers of one bucket, and of one answer.
pub(crate) const K: usize = 20;
/// Buckets: more leading bits in common than that nobody has by chance.
const BUCKETS: usize = 64;
/// How long a newcomer waits for the place of one who may be gone.
const PENDING: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) node: u32,
    pub(crate) id: u128,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    /// The one that was connected longest ago comes first.
    peers: Vec<Peer>,
    /// Until then nobody else waits for a place.
    pending: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Table {
    me: u128,
    buckets: Vec<Bucket>,
}

/// What became of a peer that was offered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    Known,
    /// There is no place, unless this one does not answer.
    Full(Option<Peer>),
}

impl Table {
    pub(crate) fn new(me: u128) -> Self {
        Self { me, buckets: Vec::new() }
    }

    fn place(&self, id: u128) -> usize {
        ((self.me ^ id).leading_zeros() as usize).min(BUCKETS - 1)
    }

    pub(crate) fn bucket(&self, id: u128) -> &[Peer] {
        self.buckets.get(self.place(id)).map(|bucket| bucket.peers.as_slice()).unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        self.buckets.iter().map(|bucket| bucket.peers.len()).sum()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = Peer> {
        self.buckets.iter().flat_map(|bucket| bucket.peers.iter().copied())
    }

    pub(crate) fn contains(&self, peer: Peer) -> bool {
        self.bucket(peer.id).contains(&peer)
    }

    /// Offers a peer that is connected. `is_connected` says it of others.
    pub(crate) fn offer(&mut self, now: Duration, peer: Peer, is_connected: impl Fn(u32) -> bool) -> Offered {
        let place = self.place(peer.id);
        if self.buckets.len() <= place {
            self.buckets.resize_with(place + 1, Bucket::default);
        }
        let bucket = &mut self.buckets[place];
        if let Some(at) = bucket.peers.iter().position(|known| *known == peer) {
            bucket.peers[at..].rotate_left(1);
            return Offered::Known;
        }
        if bucket.peers.len() < K {
            bucket.peers.push(peer);
            return Offered::Taken;
        }
        if now < bucket.pending {
            return Offered::Full(None);
        }
        let oldest = bucket.peers.iter().find(|known| !is_connected(known.node)).copied();
        if oldest.is_some() {
            bucket.pending = now + PENDING;
        }
        Offered::Full(oldest)
    }

    /// Says whether an offer can change anything.
    pub(crate) fn may_take(&self, now: Duration, id: u128) -> bool {
        let bucket = self.buckets.get(self.place(id));
        bucket.is_none_or(|bucket| bucket.peers.len() < K || now >= bucket.pending)
    }

    pub(crate) fn remove(&mut self, peer: Peer) {
        let place = self.place(peer.id);
        if let Some(bucket) = self.buckets.get_mut(place) {
            bucket.peers.retain(|known| *known != peer);
        }
    }

    /// The peers nearest to a place, the nearest first.
    pub(crate) fn closest(&self, target: u128) -> Vec<Peer> {
        let place = self.place(target);
        let mut found: Vec<Peer> = self.bucket(target).to_vec();
        // Whoever shares more bits with this node than the target does comes next, all of them alike.
        if found.len() < K {
            found.extend(self.buckets.iter().skip(place + 1).flat_map(|bucket| &bucket.peers));
        }
        for bucket in self.buckets.iter().take(place).rev() {
            if found.len() >= K {
                break;
            }
            found.extend(&bucket.peers);
        }
        found.sort_unstable_by_key(|peer| peer.id ^ target);
        found.truncate(K);
        found
    }

    /// Places to search, so that every bucket but the nearest that has peers is filled.
    pub(crate) fn refresh_targets(&self, random: &mut crate::random::Random) -> Vec<u128> {
        let nearest = self.buckets.iter().rposition(|bucket| !bucket.peers.is_empty()).unwrap_or(0);
        (0..nearest)
            .rev()
            .map(|place| {
                let bits = (u128::from(random.next()) << 64) | u128::from(random.next());
                let differs = 1u128 << (127 - place);
                (self.me ^ differs) & !(differs - 1) | (bits & (differs - 1))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn peers(count: u32, random: &mut Random) -> Vec<Peer> {
        let id = |random: &mut Random| (u128::from(random.next()) << 64) | u128::from(random.next());
        (0..count).map(|node| Peer { node, id: id(random) }).collect()
    }

    #[test]
    fn the_closest_are_those_of_all() {
        let mut random = Random::new(3);
        let all = peers(500, &mut random);
        let mut table = Table::new(all[0].id);
        for peer in &all[1..] {
            table.offer(Duration::ZERO, *peer, |_| true);
        }
        let known: Vec<Peer> = table.peers().collect();
        assert_eq!(known.len(), table.len());
        for wanted in peers(200, &mut random) {
            let mut expected = known.clone();
            expected.sort_by_key(|peer| peer.id ^ wanted.id);
            expected.truncate(K);
            assert_eq!(table.closest(wanted.id), expected);
        }
        let targets = table.refresh_targets(&mut random);
        let places: Vec<usize> = targets.iter().map(|target| table.place(*target)).collect();
        assert_eq!(places, (0..targets.len()).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_full_bucket_gives_up_only_who_is_gone() {
        let near = |node: u32| Peer { node, id: u128::from(node) | 1 << 127 };
        let mut table = Table::new(0);
        let now = Duration::from_secs(1);
        for node in 0..20 {
            assert_eq!(table.offer(now, near(node), |_| true), Offered::Taken);
        }
        assert_eq!(table.offer(now, near(3), |_| true), Offered::Known);
        assert_eq!(table.offer(now, near(50), |_| true), Offered::Full(None));
        assert_eq!(table.offer(now, near(50), |node| node != 7), Offered::Full(Some(near(7))));
        assert_eq!(table.offer(now, near(51), |node| node != 7), Offered::Full(None), "one waits already");
        table.remove(near(7));
        assert_eq!(table.offer(now, near(50), |_| true), Offered::Taken);
        assert!(table.contains(near(50)) && !table.contains(near(7)));
    }
}
