//! One search of the DHT: towards the 20 nearest, on several paths that share no node (Baumgart and Mies,
//! S/Kademlia, 2007), with the stopping rules of the libp2p crate that the real node uses.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::sim::Numbers;
use crate::table::{K, Peer};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    Answered,
    Failed,
}

#[derive(Debug, Clone)]
struct Candidate {
    /// From the target.
    distance: u128,
    node: u32,
    state: State,
    /// Requests from the origin to this one.
    hops: u8,
}

#[derive(Debug, Clone)]
struct Path {
    target: u128,
    /// By distance.
    candidates: Vec<Candidate>,
    waiting: usize,
    /// Answers in a row that brought nobody nearer.
    idle: usize,
    done: bool,
}

impl Path {
    fn at_capacity(&self, alpha: usize) -> bool {
        self.waiting >= if self.idle >= alpha { K.max(alpha) } else { alpha }
    }

    fn place(&self, id: u128) -> Result<usize, usize> {
        self.candidates.binary_search_by_key(&(id ^ self.target), |known| known.distance)
    }

    /// Adds a peer. Returns its distance where it is new.
    fn add(&mut self, peer: Peer, hops: u8) -> Option<u128> {
        let at = self.place(peer.id).err()?;
        let (distance, node) = (peer.id ^ self.target, peer.node);
        self.candidates.insert(at, Candidate { distance, node, state: State::Fresh, hops });
        Some(distance)
    }

    fn find(&mut self, id: u128) -> Option<&mut Candidate> {
        let at = self.place(id).ok()?;
        self.candidates.get_mut(at)
    }

    fn answered(&mut self, id: u128, closer: &[Peer]) {
        if self.done {
            return;
        }
        let Some(candidate) = self.find(id).filter(|known| known.state == State::Asked) else { return };
        candidate.state = State::Answered;
        let hops = candidate.hops.saturating_add(1);
        self.waiting -= 1;
        let reach = self.candidates.get(K - 1).or(self.candidates.last()).map_or(0, |last| last.distance);
        let mut progress = self.candidates.len() < K;
        for peer in closer {
            progress |= self.add(*peer, hops).is_some_and(|distance| distance < reach);
        }
        self.idle = if progress { 0 } else { self.idle + 1 };
    }

    fn failed(&mut self, id: u128) {
        if self.done {
            return;
        }
        if let Some(candidate) = self.find(id).filter(|known| known.state == State::Asked) {
            candidate.state = State::Failed;
            self.waiting -= 1;
        }
    }

    /// The next to ask.
    fn next(&mut self, alpha: usize) -> Option<(Peer, u8)> {
        if self.done {
            return None;
        }
        let full = self.at_capacity(alpha);
        let mut answered = Some(0);
        for candidate in &mut self.candidates {
            match candidate.state {
                State::Asked if full => return None,
                State::Asked => answered = None,
                State::Answered => {
                    if let Some(count) = &mut answered {
                        *count += 1;
                        if *count >= K {
                            self.done = true;
                            return None;
                        }
                    }
                }
                State::Fresh if full => return None,
                State::Fresh => {
                    candidate.state = State::Asked;
                    self.waiting += 1;
                    let peer = Peer { node: candidate.node, id: candidate.distance ^ self.target };
                    return Some((peer, candidate.hops));
                }
                State::Failed => {}
            }
        }
        self.done = self.waiting == 0;
        None
    }
}

/// A node that was asked.
#[derive(Debug, Clone, Copy)]
struct Contact {
    /// The path that has asked it.
    by: usize,
    /// The paths that wait for what comes of it, a bit each.
    waiting: u32,
    state: State,
}

/// A search under way.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) target: u128,
    alpha: usize,
    paths: Vec<Path>,
    contacted: HashMap<u32, Contact, BuildHasherDefault<Numbers>>,
    turn: usize,
    pub(crate) requests: u32,
}

impl Query {
    /// Begins with the peers known to be nearest.
    pub(crate) fn new(target: u128, known: &[Peer], alpha: usize, paths: usize) -> Self {
        let mut path = Path { target, candidates: Vec::new(), waiting: 0, idle: 0, done: false };
        for peer in known.iter().take(K) {
            path.add(*peer, 1);
        }
        let paths = vec![path; paths.max(1)];
        Self { target, alpha, paths, contacted: HashMap::default(), turn: 0, requests: 0 }
    }

    /// The next node to ask, and how many requests lead to it.
    pub(crate) fn next(&mut self) -> Option<(Peer, u8)> {
        for _ in 0..self.paths.len() {
            let at = self.turn;
            self.turn = (self.turn + 1) % self.paths.len();
            while let Some((peer, hops)) = self.paths[at].next(self.alpha) {
                match self.contacted.get_mut(&peer.node) {
                    None => {
                        let contact = Contact { by: at, waiting: 1 << at, state: State::Asked };
                        self.contacted.insert(peer.node, contact);
                        self.requests += 1;
                        return Some((peer, hops));
                    }
                    // Another path has asked it: what it said of others stays there.
                    Some(Contact { state: State::Answered, .. }) => self.paths[at].answered(peer.id, &[]),
                    Some(Contact { state: State::Failed, .. }) => self.paths[at].failed(peer.id),
                    Some(contact) => contact.waiting |= 1 << at,
                }
            }
        }
        None
    }

    pub(crate) fn answered(&mut self, peer: Peer, closer: &[Peer]) {
        let Some(contact) = self.contacted.get_mut(&peer.node) else { return };
        contact.state = State::Answered;
        let Contact { by, waiting, .. } = *contact;
        for (at, path) in self.paths.iter_mut().enumerate().filter(|(at, _)| waiting & (1 << at) != 0) {
            path.answered(peer.id, if at == by { closer } else { &[] });
        }
    }

    pub(crate) fn failed(&mut self, peer: Peer) {
        let Some(contact) = self.contacted.get_mut(&peer.node) else { return };
        contact.state = State::Failed;
        let waiting = contact.waiting;
        for (_, path) in self.paths.iter_mut().enumerate().filter(|(at, _)| waiting & (1 << at) != 0) {
            path.failed(peer.id);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.paths.iter().all(|path| path.done)
    }

    /// Those nearest who have answered, the nearest first.
    pub(crate) fn result(&self) -> Vec<Peer> {
        let answered = |known: &&Candidate| known.state == State::Answered;
        let mut found: Vec<Peer> = Vec::new();
        for path in &self.paths {
            let nearest = path.candidates.iter().filter(answered).take(K);
            found.extend(nearest.map(|known| Peer { node: known.node, id: known.distance ^ self.target }));
        }
        found.sort_unstable_by_key(|peer| peer.id ^ self.target);
        found.dedup();
        found.truncate(K);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::table::Table;
    use std::time::Duration;

    /// Tables of nodes that have met everybody who fits.
    fn network(count: u32, seed: u64) -> (Vec<Peer>, Vec<Table>, Random) {
        let mut random = Random::new(seed);
        let mut id = || (u128::from(random.next()) << 64) | u128::from(random.next());
        let peers: Vec<Peer> = (0..count).map(|node| Peer { node, id: id() }).collect();
        let table = |me: &Peer| {
            let mut table = Table::new(me.id);
            for peer in peers.iter().filter(|peer| peer.node != me.node) {
                table.offer(Duration::ZERO, *peer, |_| true);
            }
            table
        };
        let tables = peers.iter().map(table).collect();
        (peers, tables, random)
    }

    fn run(query: &mut Query, answer: impl Fn(Peer) -> Option<Vec<Peer>>) -> usize {
        let mut deepest = 0;
        while !query.is_done() {
            let asked: Vec<(Peer, u8)> = std::iter::from_fn(|| query.next()).collect();
            for (peer, hops) in asked {
                deepest = deepest.max(usize::from(hops));
                match answer(peer) {
                    Some(closer) => query.answered(peer, &closer),
                    None => query.failed(peer),
                }
            }
        }
        deepest
    }

    #[test]
    fn a_search_finds_the_nearest_of_all() {
        let seed = 11;
        let (peers, tables, mut random) = network(400, seed);
        for _ in 0..20 {
            let target = (u128::from(random.next()) << 64) | u128::from(random.next());
            let mut query = Query::new(target, &tables[0].closest(target), 4, 4);
            let deepest = run(&mut query, |peer| {
                Some(tables[peer.node as usize].closest(target).into_iter().filter(|p| p.node != 0).collect())
            });
            let mut nearest = peers[1..].to_vec();
            nearest.sort_by_key(|peer| peer.id ^ target);
            assert_eq!(query.result(), &nearest[..K], "seed {seed}");
            assert!(query.requests as usize >= K && deepest <= 5, "{} {deepest}", query.requests);
        }
    }

    #[test]
    fn paths_share_nobody_and_survive_one_that_lies() {
        let seed = 12;
        let (peers, tables, mut random) = network(400, seed);
        // The nearest that is known names 20 who do not exist and stand around the target.
        let target = (u128::from(random.next()) << 64) | u128::from(random.next());
        let invented: Vec<Peer> =
            (0..20).map(|n| Peer { node: 1000 + n, id: target ^ u128::from(n) }).collect();
        let known = tables[0].closest(target);
        let liar = known[0].node;
        let lost = |paths| {
            let mut query = Query::new(target, &known, 1, paths);
            run(&mut query, |peer| match peer.node {
                node if node == liar => Some(invented.clone()),
                node if node >= 1000 => Some(Vec::new()),
                node => Some(tables[node as usize].closest(target)),
            });
            query.result().iter().filter(|peer| peer.node < 1000).count()
        };
        assert_eq!(lost(1), 0, "the only path is led astray, seed {seed}");
        let mut query = Query::new(target, &known, 1, 4);
        let asked = std::cell::RefCell::new(HashMap::new());
        run(&mut query, |peer| {
            *asked.borrow_mut().entry(peer.node).or_insert(0) += 1;
            match peer.node {
                node if node == liar => Some(invented.clone()),
                node if node >= 1000 => Some(Vec::new()),
                node => Some(tables[node as usize].closest(target)),
            }
        });
        assert!(asked.borrow().values().all(|times| *times == 1));
        let mut nearest: Vec<Peer> = peers[1..].iter().filter(|peer| peer.node != liar).copied().collect();
        nearest.sort_by_key(|peer| peer.id ^ target);
        assert!(asked.borrow().contains_key(&nearest[0].node), "another path has got there, seed {seed}");
    }

    #[test]
    fn who_does_not_answer_is_passed_over() {
        let (peers, tables, _) = network(200, 13);
        let target = peers[50].id;
        let mut query = Query::new(target, &tables[0].closest(target), 4, 4);
        run(&mut query, |peer| (peer.node % 2 == 1).then(|| tables[peer.node as usize].closest(target)));
        let result = query.result();
        assert!(result.len() >= K / 2, "{}", result.len());
        assert!(result.iter().all(|peer| peer.node % 2 == 1));
    }
}
