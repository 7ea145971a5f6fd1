//! Which gateways are asked for one call, and in what order they are called.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::identity::{Currency, Price, Standing};

/// Gateways that are being connected and proved at one time.
const MAX_PENDING: usize = 16;
/// Of these, those that one node has named.
const MAX_PENDING_OF_ONE: usize = 4;
/// Gateways that are looked at for one call.
const MAX_FOUND: usize = 64;
/// Of these, those that one node has named.
const MAX_FOUND_OF_ONE: usize = 16;

/// Gateways whose past is remembered.
const MAX_EXPERIENCE: usize = 512;
/// What one call costs a gateway that it could not carry.
const TROUBLE: u32 = 4;
/// The most that is held against a gateway.
const MAX_TROUBLE: u32 = 64;
/// Half of what is held against a gateway is forgotten in this time.
const HALF_LIFE: Duration = Duration::from_secs(300);

/// How gateways have done in this node's own calls lately. What they say of themselves is no
/// measure of quality: this is.
#[derive(Debug, Default)]
pub(super) struct Experience {
    troubles: HashMap<PeerId, (u32, Instant)>,
}

impl Experience {
    /// A gateway was not reached, could not carry a call, or died before the answer.
    pub(super) fn failed(&mut self, peer: PeerId, now: Instant) {
        let trouble = (self.trouble(&peer, now) + TROUBLE).min(MAX_TROUBLE);
        if self.troubles.len() >= MAX_EXPERIENCE && !self.troubles.contains_key(&peer) {
            let oldest = self.troubles.iter().min_by_key(|(_, (_, since))| *since).map(|(peer, _)| *peer);
            oldest.map(|oldest| self.troubles.remove(&oldest));
        }
        self.troubles.insert(peer, (trouble, now));
    }

    /// A gateway has carried a call.
    pub(super) fn carried(&mut self, peer: &PeerId, now: Instant) {
        match self.trouble(peer, now) / 2 {
            0 => self.troubles.remove(peer),
            left => self.troubles.insert(*peer, (left, now)),
        };
    }

    /// Returns how bad a gateway is: 0 where it works as far as is known, 1 after one call that it
    /// could not carry, more after more.
    pub(super) fn grade(&self, peer: &PeerId, now: Instant) -> u32 {
        self.trouble(peer, now) / TROUBLE
    }

    fn trouble(&self, peer: &PeerId, now: Instant) -> u32 {
        let Some((trouble, since)) = self.troubles.get(peer) else { return 0 };
        let halvings = now.saturating_duration_since(*since).as_secs() / HALF_LIFE.as_secs();
        u32::try_from(halvings).ok().and_then(|halvings| trouble.checked_shr(halvings)).unwrap_or(0)
    }
}

/// The gateways found for one call that have not proved themselves yet. Anybody may be named as
/// one: a node that names many cannot keep those of others from being tried.
#[derive(Default)]
pub(super) struct Places {
    /// Who has named each; `None` is the DHT.
    found: HashMap<PeerId, Option<PeerId>>,
    pending: HashSet<PeerId>,
    waiting: VecDeque<PeerId>,
}

impl Places {
    /// Queues a gateway that was found. Returns false where it is known or too many are.
    pub(super) fn offer(&mut self, peer: PeerId, from: Option<PeerId>) -> bool {
        let of_one = self.found.values().filter(|by| **by == from).count();
        if self.found.contains_key(&peer) || self.found.len() >= MAX_FOUND || of_one >= MAX_FOUND_OF_ONE {
            return false;
        }
        self.found.insert(peer, from);
        self.waiting.push_back(peer);
        true
    }

    /// Queues a gateway again that could not be reached: there is another address to try.
    pub(super) fn offer_again(&mut self, peer: PeerId) {
        if self.found.contains_key(&peer) && !self.pending.contains(&peer) && !self.waiting.contains(&peer) {
            self.waiting.push_back(peer);
        }
    }

    /// Takes the next gateway to connect, if there is a place for it.
    pub(super) fn start(&mut self) -> Option<PeerId> {
        if self.pending.len() >= MAX_PENDING {
            return None;
        }
        let has_place = |peer: &PeerId| {
            let by = self.found.get(peer);
            self.pending.iter().filter(|other| self.found.get(other) == by).count() < MAX_PENDING_OF_ONE
        };
        let at = self.waiting.iter().position(has_place)?;
        let peer = self.waiting.remove(at)?;
        self.pending.insert(peer);
        Some(peer)
    }

    pub(super) fn is_pending(&self, peer: &PeerId) -> bool {
        self.pending.contains(peer)
    }

    /// A gateway has proved itself, or cannot: its place is free. Returns whether it had one.
    pub(super) fn free(&mut self, peer: &PeerId) -> bool {
        self.pending.remove(peer)
    }

    /// Says whether no gateway is to prove itself any more.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.waiting.is_empty()
    }
}

/// A gateway that takes the call.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) peer: PeerId,
    /// Digits of the longest of its prefixes that covers the number.
    pub(super) prefix: usize,
    pub(super) price: Price,
    pub(super) load_per_mille: u64,
    /// How bad it has been lately: [`Experience::grade`].
    pub(super) grade: u32,
    pub(super) standing: Standing,
}

/// Puts candidates in the order in which they are called: the longest prefix, then those that have
/// worked lately before those that have not, then the lowest price, then the lowest load. Prices are compared within the currency of most gateways only;
/// those in any other come after, for nobody here knows what they are worth.
pub(super) fn ranked(mut candidates: Vec<Candidate>) -> VecDeque<Candidate> {
    let mut gateways: HashMap<Currency, HashSet<PeerId>> = HashMap::new();
    for candidate in &candidates {
        gateways.entry(candidate.price.currency).or_default().insert(candidate.peer);
    }
    let common = gateways
        .iter()
        .max_by_key(|(currency, peers)| (peers.len(), std::cmp::Reverse(**currency)))
        .map(|(currency, _)| *currency);
    candidates.sort_by_key(|candidate| {
        let Price { micros_per_minute, currency } = candidate.price;
        let foreign = (Some(currency) != common).then_some(currency);
        let (prefix, load) = (usize::MAX - candidate.prefix, candidate.load_per_mille);
        (prefix, foreign, candidate.grade, micros_per_minute, load, candidate.peer)
    });
    let mut seen = HashSet::new();
    candidates.into_iter().filter(|candidate| seen.insert(candidate.peer)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::identity::RevocationList;
    use crate::testing::Pki;

    fn candidate(prefix: usize, micros_per_minute: u64, currency: &str, load_per_mille: u64) -> Candidate {
        let pki = Pki::new(1_790_000_000).unwrap();
        let chain = pki.supernode(1).unwrap().chain;
        let node = chain.verify(&pki.trust().unwrap(), &RevocationList::default(), 1_790_000_000).unwrap();
        let price = Price { micros_per_minute, currency: currency.parse().unwrap() };
        let peer = PeerId::random();
        Candidate { peer, prefix, price, load_per_mille, grade: 0, standing: node.standing }
    }

    #[test]
    fn the_longest_prefix_then_price_then_load_wins() {
        let all = vec![
            candidate(0, 1, "EUR", 0),
            candidate(2, 50, "EUR", 0),
            candidate(4, 200, "EUR", 900),
            candidate(4, 200, "EUR", 100),
            candidate(4, 300, "EUR", 0),
        ];
        let order: Vec<_> =
            ranked(all).iter().map(|c| (c.prefix, c.price.micros_per_minute, c.load_per_mille)).collect();
        assert_eq!(order, [(4, 200, 100), (4, 200, 900), (4, 300, 0), (2, 50, 0), (0, 1, 0)]);
    }

    #[test]
    fn a_cheap_gateway_that_fails_is_tried_last_until_that_is_forgotten() {
        let start = Instant::now();
        let (cheap, dear) = (candidate(2, 10, "EUR", 0), candidate(2, 20, "EUR", 900));
        let mut experience = Experience::default();
        let first = |experience: &Experience, now| {
            let graded =
                [&cheap, &dear].map(|c| Candidate { grade: experience.grade(&c.peer, now), ..c.clone() });
            ranked(graded.to_vec())[0].peer
        };
        assert_eq!(first(&experience, start), cheap.peer);
        experience.failed(cheap.peer, start);
        assert_eq!(first(&experience, start), dear.peer);
        // Where both fail the price decides again; the one that fails more often comes after.
        experience.failed(dear.peer, start);
        assert_eq!(first(&experience, start), cheap.peer);
        experience.failed(cheap.peer, start);
        assert_eq!(first(&experience, start), dear.peer);
        // A call that it carries counts, and so does time.
        experience.carried(&dear.peer, start);
        experience.carried(&cheap.peer, start);
        assert_eq!(first(&experience, start), dear.peer);
        assert_eq!(first(&experience, start + HALF_LIFE), cheap.peer);
        // A longer prefix says more than that: nobody else may reach the number.
        let longer = Candidate { grade: 9, ..candidate(4, 10, "EUR", 0) };
        assert_eq!(ranked(vec![dear.clone(), longer.clone()])[0].peer, longer.peer);
    }

    #[test]
    fn what_is_held_against_gateways_is_bounded() {
        let start = Instant::now();
        let (peer, mut experience) = (PeerId::random(), Experience::default());
        (0..1_000).for_each(|_| experience.failed(peer, start));
        assert_eq!(experience.grade(&peer, start), MAX_TROUBLE / TROUBLE);
        assert_eq!(experience.grade(&peer, start + HALF_LIFE * 5), 0, "and forgotten in less than an hour");
        assert_eq!(experience.grade(&peer, start + HALF_LIFE * 10_000), 0);
        for n in 0..2 * MAX_EXPERIENCE as u64 {
            experience.failed(PeerId::random(), start + Duration::from_millis(n));
        }
        assert_eq!(experience.troubles.len(), MAX_EXPERIENCE);
        assert!(!experience.troubles.contains_key(&peer), "the oldest go first");
    }

    #[test]
    fn prices_are_compared_within_one_currency() {
        let all = vec![
            candidate(2, 300, "EUR", 0),
            // Fewer units, and dearer.
            candidate(2, 290, "KWD", 0),
            candidate(2, 100, "EUR", 0),
            candidate(4, 900, "KWD", 0),
        ];
        let (last, order) = (all[1].peer, ranked([all.clone(), vec![candidate(2, 200, "EUR", 0)]].concat()));
        let prices: Vec<u64> = order.iter().map(|c| c.price.micros_per_minute).collect();
        assert_eq!(prices, [900, 100, 200, 300, 290]);
        assert_eq!(order.back().unwrap().peer, last);
        // One gateway with many offers is one voice, and is called once.
        let mut many = vec![candidate(2, 5, "KWD", 0); 5];
        many.extend([candidate(2, 100, "EUR", 0), candidate(2, 200, "EUR", 0)]);
        let prices: Vec<u64> = ranked(many).iter().map(|c| c.price.micros_per_minute).collect();
        assert_eq!(prices, [100, 200, 5]);
    }

    #[test]
    fn whoever_names_many_gateways_does_not_crowd_out_others() {
        let (liar, honest) = (Some(PeerId::random()), Some(PeerId::random()));
        let mut places = Places::default();
        let named = (0..100).filter(|_| places.offer(PeerId::random(), liar)).count();
        assert_eq!(named, MAX_FOUND_OF_ONE);
        let good = PeerId::random();
        assert!(places.offer(good, honest) && !places.offer(good, liar));
        let started: Vec<PeerId> = std::iter::from_fn(|| places.start()).collect();
        assert_eq!(started.len(), MAX_PENDING_OF_ONE + 1);
        assert!(started.contains(&good) && places.is_pending(&good));
        // A place that is given back is taken by the next.
        assert!(places.free(&started[0]) && !places.free(&started[0]));
        assert!(places.start().is_some_and(|peer| !started.contains(&peer)));
        assert_eq!(places.start(), None);
        // One that failed gets another place for another address.
        assert!(places.free(&good));
        places.offer_again(good);
        places.offer_again(good);
        assert_eq!((places.start(), places.start()), (Some(good), None));
        assert!(!places.is_idle());
    }
}
