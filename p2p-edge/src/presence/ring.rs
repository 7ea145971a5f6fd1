//! Which supernodes are the homes of a handle.

use call_model::Handle;
use libp2p::PeerId;
use sha2::{Digest, Sha256};

/// Homes of one handle.
pub const HOMES: usize = 2;

/// The supernodes that are known, with their places in the key space of the DHT.
#[derive(Clone, Debug, Default)]
pub struct Members(Vec<([u8; 32], PeerId)>);

impl Members {
    /// Takes the supernodes that are known at present. Each counts once.
    pub fn new(peers: impl IntoIterator<Item = PeerId>) -> Self {
        let mut places: Vec<_> =
            peers.into_iter().map(|peer| (Sha256::digest(peer.to_bytes()).into(), peer)).collect();
        places.sort_unstable();
        places.dedup();
        Self(places)
    }

    /// Says whether a supernode is known.
    pub fn contains(&self, peer: &PeerId) -> bool {
        let place: [u8; 32] = Sha256::digest(peer.to_bytes()).into();
        self.0.binary_search_by(|(known, _)| known.cmp(&place)).is_ok()
    }

    /// Returns how many are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether none is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns the homes of a handle, the nearest first: distance is that of Kademlia, the exclusive or
/// of two hashes read as a number.
pub fn homes_of(handle: &Handle, members: &Members) -> Vec<PeerId> {
    let key: [u8; 32] = Sha256::new()
        .chain_update(b"causeway-presence-home-v1\0")
        .chain_update(handle.as_str())
        .finalize()
        .into();
    let distance = |place: &[u8; 32]| {
        let mut distance = *place;
        distance.iter_mut().zip(&key).for_each(|(byte, key)| *byte ^= key);
        distance
    };
    let mut best: Vec<([u8; 32], PeerId)> = Vec::with_capacity(HOMES + 1);
    for (place, peer) in &members.0 {
        let candidate = (distance(place), *peer);
        let at = best.partition_point(|known| known.0 < candidate.0);
        if at < HOMES {
            best.insert(at, candidate);
            best.truncate(HOMES);
        }
    }
    best.into_iter().map(|(_, peer)| peer).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::testing::key;

    #[test]
    fn every_member_has_its_share_and_a_change_moves_no_more_than_it_must() {
        let peers: Vec<PeerId> = (1..=16).map(|number| key(number).peer_id()).collect();
        let all = Members::new(peers.iter().copied().chain(peers.iter().copied()));
        assert_eq!(all.len(), 16);
        let handles: Vec<Handle> = (0..2_000).map(|n| format!("user{n}").parse().unwrap()).collect();
        let mut shares: BTreeMap<PeerId, usize> = BTreeMap::new();
        let gone = peers[3];
        let without = Members::new(peers.iter().copied().filter(|peer| *peer != gone));
        assert!(all.contains(&gone) && !without.contains(&gone));
        for handle in &handles {
            let homes = homes_of(handle, &all);
            assert!(homes.len() == HOMES && homes[0] != homes[1]);
            homes.iter().for_each(|home| *shares.entry(*home).or_default() += 1);
            let after = homes_of(handle, &without);
            if !homes.contains(&gone) {
                assert_eq!(homes, after);
            } else {
                let stays = homes.iter().find(|home| **home != gone).unwrap();
                assert_eq!(after[0], *stays, "the one that is left knows the handle already");
            }
        }
        assert_eq!(shares.len(), 16, "{shares:?}");
        assert_eq!(homes_of(&handles[0], &Members::new([gone])), [gone]);
        assert!(homes_of(&handles[0], &Members::default()).is_empty());
    }
}
