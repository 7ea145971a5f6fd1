//! Whom to ask and whom to dial, and when.
//!
//! What costs nobody anything - addresses at hand, the disk, the local network - is used at once.
//! DNS is asked a little later and mirrors after that, and only while no server is connected. Dials
//! go out side by side, in turn for each way, so that one that brings rubbish holds up no other.

use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use super::Way;
use crate::routing::{Backoff, LAST_REFRESH, LONGEST_RETRY};

/// Nodes of one way that are remembered.
const MAX_OF_WAY: usize = 256;
/// Addresses of one node.
const MAX_ADDRESSES: usize = 8;
/// Dials under way at one time.
const PARALLEL: usize = 8;
/// A dial that has not ended after this time holds up no other.
const PLACE: Duration = Duration::from_secs(2);
/// How long a node is without any server before it asks DNS, and before it asks mirrors.
const BEFORE_DNS: Duration = Duration::from_millis(500);
const BEFORE_MIRRORS: Duration = Duration::from_millis(1500);
/// First wait between two questions to DNS or mirrors, and the longest.
const FIRST_QUESTION: Duration = Duration::from_secs(5);
const LAST_QUESTION: Duration = Duration::from_secs(300);
/// How often a server that has nobody else to dial dials one more that it knows: two halves of a network that
/// was apart would otherwise never learn that they can reach each other again. Sooner after servers have
/// fallen silent: the wait begins with the first and doubles.
const FIRST_MEND: Duration = Duration::from_secs(3);
const MEND_EVERY: Duration = Duration::from_secs(30);
/// Servers that have fallen silent and are remembered as such.
const MAX_SILENT: usize = 256;
/// Servers that come back are a reason to search for more this often at most.
const SEARCH_EVERY: Duration = Duration::from_secs(5);
/// Waits are made longer by up to this share, in per mille, differently on every node: all of those
/// who lose the same supernode ask the same servers.
const JITTER: u32 = 500;

/// What one way has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayStatus {
    /// The way.
    pub way: Way,
    /// Nodes that it names now.
    pub nodes: usize,
    /// How often it was asked, where it is asked.
    pub asked: u64,
    /// How often it had an answer.
    pub answered: u64,
    /// How often it had none, or one that was refused.
    pub failed: u64,
    /// How often a node that it had named proved itself.
    pub joined: u64,
    /// When that was last.
    pub worked: Option<Instant>,
}

/// A node that may be joined by.
struct Candidate {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    /// One bit for each way that names it.
    ways: u8,
    backoff: Backoff,
    dialled: Option<Instant>,
    /// When it was dialled last, whatever came of it.
    tried: Option<Instant>,
}

impl Candidate {
    fn is_of(&self, way: Way) -> bool {
        self.ways & bit(way) != 0
    }
}

/// A way that has to be asked.
struct Question {
    way: Way,
    after: Duration,
    backoff: Backoff,
}

/// How many servers a node has, and wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Servers that are connected.
    pub connected: usize,
    /// How many are to be connected by dialling.
    pub wanted: usize,
    /// Whether the node goes on to look for parts of the network that it has lost.
    pub mends: bool,
}

/// Says whom to ask and whom to dial.
pub struct Plan {
    me: PeerId,
    /// First wait between two dials of one node.
    first: Duration,
    candidates: Vec<Candidate>,
    questions: Vec<Question>,
    ways: [WayStatus; Way::ALL.len()],
    /// Since when no server has been connected.
    alone_since: Option<Instant>,
    /// Whose turn it is.
    turn: usize,
    /// When one more is dialled to look for a lost part of the network, the wait after that, and who was
    /// dialled last.
    mend_at: Instant,
    mend_wait: Duration,
    mended: Option<PeerId>,
    /// Servers that have fallen silent and not come back.
    silent: Vec<PeerId>,
    /// When a server that had come back was last a reason to search for more.
    searched: Option<Instant>,
    jitter: u32,
}

impl Plan {
    /// Makes the plan of a node. `asks` names the ways that are asked: DNS, mirrors. `first` is the
    /// first wait between two dials of one node; `seed` is drawn by the caller.
    pub fn new(me: PeerId, asks: &[Way], first: Duration, seed: u64, now: Instant) -> Self {
        let question = |way: &Way| {
            let after = match way {
                Way::Mirror => BEFORE_MIRRORS,
                _ => BEFORE_DNS,
            };
            Question { way: *way, after, backoff: Backoff::new(now) }
        };
        let status =
            |way| WayStatus { way, nodes: 0, asked: 0, answered: 0, failed: 0, joined: 0, worked: None };
        Self {
            me,
            first,
            candidates: Vec::new(),
            questions: asks.iter().map(question).collect(),
            ways: Way::ALL.map(status),
            alone_since: None,
            turn: 0,
            mend_at: now + MEND_EVERY,
            mend_wait: MEND_EVERY,
            mended: None,
            silent: Vec::new(),
            searched: None,
            // The remainder is below the bound.
            jitter: u32::try_from(seed % u64::from(JITTER)).unwrap_or(0),
        }
    }

    /// Takes the nodes that a way names, each an address with `/p2p/<peer>` at its end; others are
    /// passed over, and so is this node. Returns how many were new.
    pub fn offer(&mut self, way: Way, addresses: impl IntoIterator<Item = Multiaddr>, now: Instant) -> usize {
        let mut new = 0;
        for mut address in addresses {
            let Some(Protocol::P2p(peer)) = address.iter().last() else { continue };
            address.pop();
            if peer == self.me || address.is_empty() {
                continue;
            }
            let full = self.status_of(way).nodes >= MAX_OF_WAY;
            if let Some(known) = self.candidates.iter_mut().find(|known| known.peer == peer) {
                let is_news = !known.addresses.contains(&address);
                if is_news && known.addresses.len() < MAX_ADDRESSES {
                    known.addresses.push(address);
                }
                if !known.is_of(way) && !full {
                    known.ways |= bit(way);
                    self.status_mut(way).nodes += 1;
                }
                continue;
            }
            if full {
                continue;
            }
            let backoff = Backoff::new(now);
            self.candidates.push(Candidate {
                peer,
                addresses: vec![address],
                ways: bit(way),
                backoff,
                dialled: None,
                tried: None,
            });
            self.status_mut(way).nodes += 1;
            new += 1;
        }
        new
    }

    /// Forgets what a way named, for it has something newer to say.
    pub fn withdraw(&mut self, way: Way) {
        for candidate in &mut self.candidates {
            candidate.ways &= !bit(way);
        }
        self.candidates.retain(|candidate| candidate.ways != 0);
        self.status_mut(way).nodes = 0;
    }

    /// A way that was asked has answered, if only that there is nobody.
    pub fn answered(&mut self, way: Way) {
        self.status_mut(way).answered += 1;
    }

    /// A way could not be asked, or what it said was refused.
    pub fn failed(&mut self, way: Way) {
        self.status_mut(way).failed += 1;
    }

    /// Returns the ways to ask now, given how many servers are connected.
    pub fn questions(&mut self, now: Instant, connected: usize) -> Vec<Way> {
        if connected > 0 {
            if self.alone_since.take().is_some() {
                self.questions.iter_mut().for_each(|question| question.backoff = Backoff::new(now));
            }
            return Vec::new();
        }
        let since = *self.alone_since.get_or_insert(now);
        let mut due = Vec::new();
        for question in &mut self.questions {
            let after = with_jitter(question.after, self.jitter);
            if now >= since + after && question.backoff.is_due(now) {
                let first = with_jitter(FIRST_QUESTION, self.jitter);
                question.backoff.attempt_up_to(now, first, LAST_QUESTION);
                due.push(question.way);
            }
        }
        for way in &due {
            self.status_mut(*way).asked += 1;
        }
        due
    }

    /// Says whether it is time to look for a lost part of the network.
    pub fn is_mending(&self, now: Instant) -> bool {
        now >= self.mend_at
    }

    /// Returns whom to dial now, given which peers are connected.
    pub fn dials(
        &mut self,
        now: Instant,
        Demand { connected, wanted, mends }: Demand,
        is_connected: impl Fn(&PeerId) -> bool,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let busy = |candidate: &Candidate| candidate.dialled.is_some_and(|at| now < at + PLACE);
        let under_way = self.candidates.iter().filter(|candidate| busy(candidate)).count();
        let room = PARALLEL.min(wanted.saturating_sub(connected)).saturating_sub(under_way);
        let mut dials = Vec::new();
        let mut idle = 0;
        while dials.len() < room && idle < Way::ALL.len() {
            let way = Way::ALL[self.turn % Way::ALL.len()];
            self.turn = (self.turn + 1) % Way::ALL.len();
            let due = |candidate: &&mut Candidate| {
                candidate.is_of(way)
                    && candidate.backoff.is_due(now)
                    && candidate.dialled.is_none_or(|at| now >= at + PLACE)
                    && !is_connected(&candidate.peer)
            };
            // Those that were tried least come first; of these the first of their way.
            let next = self.candidates.iter_mut().filter(due).min_by_key(|known| known.backoff.wait());
            let Some(candidate) = next else {
                idle += 1;
                continue;
            };
            idle = 0;
            let longest =
                if connected == 0 || candidate.is_of(Way::Configured) { LONGEST_RETRY } else { LAST_REFRESH };
            candidate.backoff.attempt_up_to(now, self.first, longest);
            (candidate.dialled, candidate.tried) = (Some(now), Some(now));
            dials.push((candidate.peer, candidate.addresses.clone()));
        }
        if dials.is_empty() && mends && self.is_mending(now) {
            self.mend_wait = (2 * self.mend_wait).min(MEND_EVERY);
            self.mend_at = now + with_jitter(self.mend_wait, self.jitter);
            dials.extend(self.mend(now, is_connected));
        }
        dials
    }

    /// Returns the node that has been left alone the longest of those that are not connected, however
    /// often it was dialled in vain.
    fn mend(
        &mut self,
        now: Instant,
        is_connected: impl Fn(&PeerId) -> bool,
    ) -> Option<(PeerId, Vec<Multiaddr>)> {
        let lost = self.candidates.iter_mut().filter(|candidate| !is_connected(&candidate.peer));
        let candidate = lost.min_by_key(|candidate| candidate.tried)?;
        (candidate.dialled, candidate.tried) = (Some(now), Some(now));
        self.mended = Some(candidate.peer);
        Some((candidate.peer, candidate.addresses.clone()))
    }

    /// A server has fallen silent without a word: a part of the network may be lost, and is looked for soon.
    pub fn fell_silent(&mut self, peer: &PeerId, now: Instant) {
        if !self.silent.contains(peer) && self.silent.len() < MAX_SILENT {
            self.silent.push(*peer);
        }
        self.mend_wait = FIRST_MEND;
        self.mend_at = self.mend_at.min(now + with_jitter(FIRST_MEND, self.jitter));
    }

    /// A node could not be dialled: another has its place.
    pub fn undialled(&mut self, peer: &PeerId) {
        if let Some(candidate) = self.candidates.iter_mut().find(|known| known.peer == *peer) {
            candidate.dialled = None;
        }
    }

    /// A node has proved to be a server of the network. Its waits start anew. Returns whether others are to
    /// be searched for: it was dialled to look for a lost part of the network, or had fallen silent and is
    /// back.
    pub fn proven(&mut self, peer: &PeerId, now: Instant) -> bool {
        let mended = self.mended.take_if(|mended| mended == peer).is_some();
        let was_silent = self.silent.iter().position(|silent| silent == peer);
        let is_back = was_silent.map(|at| self.silent.swap_remove(at)).is_some();
        let searches = mended || is_back && self.searched.is_none_or(|at| now >= at + SEARCH_EVERY);
        if searches {
            self.searched = Some(now);
        }
        let found = self.candidates.iter_mut().find(|known| known.peer == *peer);
        let Some(candidate) = found else { return searches };
        candidate.dialled = None;
        candidate.backoff = Backoff::new(now);
        let ways = candidate.ways;
        for status in self.ways.iter_mut().filter(|status| ways & bit(status.way) != 0) {
            status.joined += 1;
            status.worked = Some(now);
        }
        searches
    }

    /// A node is not what it was said to be: it is left alone as long as others may be.
    pub fn refuted(&mut self, peer: &PeerId, now: Instant) {
        if let Some(candidate) = self.candidates.iter_mut().find(|known| known.peer == *peer) {
            candidate.dialled = None;
            candidate.backoff = Backoff::new(now);
            candidate.backoff.attempt_up_to(now, LAST_REFRESH, LAST_REFRESH);
        }
    }

    /// Says whether a node is one of the configuration, which relays are taken from first.
    pub fn is_configured(&self, peer: &PeerId) -> bool {
        self.candidates.iter().any(|known| known.peer == *peer && known.is_of(Way::Configured))
    }

    /// Says whether another node was ever named, or may still be: a way that is asked has not
    /// answered yet. Where neither holds this node is the first of its network.
    pub fn may_have_others(&self) -> bool {
        let is_open = |question: &Question| self.status_of(question.way).answered == 0;
        !self.candidates.is_empty() || self.questions.iter().any(is_open)
    }

    /// Returns what each way has brought.
    pub fn status(&self) -> &[WayStatus] {
        &self.ways
    }

    fn status_of(&self, way: Way) -> &WayStatus {
        &self.ways[way as usize]
    }

    fn status_mut(&mut self, way: Way) -> &mut WayStatus {
        &mut self.ways[way as usize]
    }
}

fn with_jitter(wait: Duration, per_mille: u32) -> Duration {
    wait + wait * per_mille / 1000
}

fn bit(way: Way) -> u8 {
    1 << way as u8
}

#[cfg(test)]
mod tests;
