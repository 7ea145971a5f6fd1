//! Servers that were of use, and how often: the memory of a node for bad days.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

use crate::routing::{MAX_KNOWN, Vicinity};

/// The most peers that are remembered.
pub const MAX_GOOD: usize = MAX_KNOWN;
/// Addresses that are remembered of one.
const MAX_ADDRESSES: usize = 4;
/// Attempts after which earlier ones count half.
const MANY: u32 = 64;
/// The longest text that is read, in bytes.
const MAX_BYTES: usize = 512 * 1024;
/// How much a day of silence costs, in thousandths of a sure success.
const PER_DAY: u64 = 10;
const DAY: u64 = 86_400;
/// First line of the text.
const HEAD: &str = "causeway-peers 1";

/// A server and its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodPeer {
    /// Where it was reached, without the peer at the end.
    addresses: Vec<Multiaddr>,
    /// When it was connected and had proved itself last, in Unix seconds.
    pub seen: u64,
    /// How often it could be reached, lately.
    pub successes: u32,
    /// How often it could not.
    pub failures: u32,
}

impl GoodPeer {
    /// Returns how likely it is of use, in thousandths: its share of successes, less with time.
    fn score(&self, unix: u64) -> u64 {
        let (good, bad) = (u64::from(self.successes), u64::from(self.failures));
        let share = 1000 * (good + 1) / (good + bad + 2);
        share.saturating_sub(unix.saturating_sub(self.seen) / DAY * PER_DAY)
    }

    fn vicinity(&self) -> Option<Vicinity> {
        self.addresses.iter().find_map(Vicinity::of_address)
    }

    fn age(&mut self) {
        if self.successes + self.failures > MANY {
            self.successes /= 2;
            self.failures /= 2;
        }
    }
}

/// The servers that are remembered: at most [`MAX_GOOD`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoodPeers {
    table: BTreeMap<PeerId, GoodPeer>,
}

impl GoodPeers {
    /// A server was reached and has proved itself.
    pub fn succeeded(&mut self, peer: PeerId, addresses: &[Multiaddr], unix: u64) {
        if addresses.is_empty() {
            return;
        }
        let entry = self.table.entry(peer).or_insert_with(|| GoodPeer {
            addresses: Vec::new(),
            seen: unix,
            successes: 0,
            failures: 0,
        });
        entry.addresses = addresses.iter().take(MAX_ADDRESSES).cloned().collect();
        entry.seen = unix;
        entry.successes += 1;
        entry.age();
        self.shrink(unix);
    }

    /// Takes newer addresses of a server that is known.
    pub fn moved(&mut self, peer: &PeerId, addresses: &[Multiaddr]) {
        if let Some(entry) = self.table.get_mut(peer).filter(|_| !addresses.is_empty()) {
            entry.addresses = addresses.iter().take(MAX_ADDRESSES).cloned().collect();
        }
    }

    /// A server could not be reached, although the network could.
    pub fn failed(&mut self, peer: &PeerId) {
        if let Some(entry) = self.table.get_mut(peer) {
            entry.failures += 1;
            entry.age();
        }
    }

    /// Forgets a server whose certificate is not valid any more.
    pub fn forget(&mut self, peer: &PeerId) {
        self.table.remove(peer);
    }

    /// Returns how many are remembered.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Says whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Returns what is remembered, in the order in which it is worth a try: the best of each network
    /// (/16 of IPv4, /32 of IPv6), then the second best of each, and so on.
    pub fn best(&self, unix: u64) -> Vec<(PeerId, &GoodPeer)> {
        let mut all: Vec<_> = self.table.iter().map(|(peer, known)| (*peer, known)).collect();
        all.sort_by_key(|(peer, known)| (std::cmp::Reverse((known.score(unix), known.seen)), *peer));
        let mut of_network: HashMap<Option<Vicinity>, usize> = HashMap::new();
        let mut ranked: Vec<_> = all
            .into_iter()
            .map(|(peer, known)| {
                let nth = of_network.entry(known.vicinity()).or_default();
                *nth += 1;
                (*nth, peer, known)
            })
            .collect();
        // Stable: within one round the better comes first.
        ranked.sort_by_key(|(nth, ..)| *nth);
        ranked.into_iter().map(|(_, peer, known)| (peer, known)).collect()
    }

    /// Returns the addresses of [`GoodPeers::best`], each with its peer.
    pub fn addresses(&self, unix: u64) -> impl Iterator<Item = Multiaddr> {
        self.best(unix).into_iter().flat_map(|(peer, known)| {
            known.addresses.iter().map(move |address| address.clone().with(Protocol::P2p(peer)))
        })
    }

    /// Drops the worst of the network of which most are remembered.
    fn shrink(&mut self, unix: u64) {
        while self.table.len() > MAX_GOOD {
            let mut crowds: HashMap<Option<Vicinity>, usize> = HashMap::new();
            for known in self.table.values() {
                *crowds.entry(known.vicinity()).or_default() += 1;
            }
            let worst = self.table.iter().min_by_key(|(peer, known)| {
                let crowd = crowds.get(&known.vicinity()).copied().unwrap_or(0);
                (std::cmp::Reverse(crowd), known.score(unix), known.seen, **peer)
            });
            let Some(worst) = worst.map(|(peer, _)| *peer) else { return };
            self.table.remove(&worst);
        }
    }

    /// Writes what is remembered as text: one line for each, with the peer, when it was seen,
    /// successes, failures and addresses, between tabs.
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (peer, known) in &self.table {
            let GoodPeer { seen, successes, failures, addresses } = known;
            let _ = write!(text, "{peer}\t{seen}\t{successes}\t{failures}");
            for address in addresses {
                let _ = write!(text, "\t{address}");
            }
            text.push('\n');
        }
        text
    }

    /// Reads what [`GoodPeers::to_text`] wrote. Returns also how many lines were passed over because
    /// they cannot be read.
    pub fn from_text(text: &str, unix: u64) -> (Self, usize) {
        let mut peers = Self::default();
        let mut lines = text.lines();
        if text.len() > MAX_BYTES || lines.next() != Some(HEAD) {
            return (peers, text.lines().count().max(1));
        }
        let mut unread = 0;
        for line in lines {
            match read_line(line, unix) {
                Some((peer, known)) => {
                    peers.table.insert(peer, known);
                    peers.shrink(unix);
                }
                None => unread += 1,
            }
        }
        (peers, unread)
    }
}

fn read_line(line: &str, unix: u64) -> Option<(PeerId, GoodPeer)> {
    let mut fields = line.split('\t');
    let peer = fields.next()?.parse().ok()?;
    let seen = fields.next()?.parse::<u64>().ok()?.min(unix);
    let successes = fields.next()?.parse::<u32>().ok()?.min(MANY);
    let failures = fields.next()?.parse::<u32>().ok()?.min(MANY);
    let addresses: Vec<Multiaddr> =
        fields.map(|field| field.parse().ok()).take(MAX_ADDRESSES).collect::<Option<_>>()?;
    let whole = addresses.iter().all(|address| !matches!(address.iter().last(), Some(Protocol::P2p(_))));
    (whole && !addresses.is_empty()).then_some((peer, GoodPeer { addresses, seen, successes, failures }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 1_790_000_000;

    fn at(host: &str) -> Vec<Multiaddr> {
        vec![format!("/ip4/{host}/tcp/4001").parse().unwrap()]
    }

    fn order(good: &GoodPeers, unix: u64) -> Vec<PeerId> {
        good.best(unix).into_iter().map(|(peer, _)| peer).collect()
    }

    #[test]
    fn those_that_answered_come_first_and_none_of_one_network_before_the_best_of_each() {
        let peers: Vec<PeerId> = (0..4).map(|_| PeerId::random()).collect();
        let mut good = GoodPeers::default();
        good.succeeded(peers[0], &at("192.0.2.1"), NOW);
        good.succeeded(peers[1], &at("192.0.2.2"), NOW);
        good.succeeded(peers[1], &at("192.0.2.2"), NOW);
        good.succeeded(peers[2], &at("198.51.100.1"), NOW);
        good.succeeded(peers[3], &at("203.0.113.1"), NOW);
        (0..9).for_each(|_| good.failed(&peers[3]));
        // The first of each network by its record, then the second of the first network.
        assert_eq!(order(&good, NOW), [peers[1], peers[2], peers[3], peers[0]]);
        // One that has been silent for two months is worth less than one that fails.
        good.succeeded(peers[3], &at("203.0.113.1"), NOW + 60 * DAY);
        assert_eq!(order(&good, NOW + 60 * DAY)[0], peers[3]);
    }

    #[test]
    fn two_hundred_are_kept_and_no_network_crowds_out_the_others() {
        let mut good = GoodPeers::default();
        let lone = PeerId::random();
        good.succeeded(lone, &at("203.0.113.1"), NOW - 300 * DAY);
        for n in 0..1_000 {
            good.succeeded(PeerId::random(), &at(&format!("192.0.{}.{}", n / 250, n % 250)), NOW);
        }
        assert_eq!(good.len(), MAX_GOOD);
        assert_eq!(order(&good, NOW).into_iter().filter(|peer| *peer == lone).count(), 1);
    }

    #[test]
    fn a_record_of_long_ago_is_forgotten() {
        let (peer, mut good) = (PeerId::random(), GoodPeers::default());
        (0..1_000).for_each(|_| good.succeeded(peer, &at("192.0.2.1"), NOW));
        (0..2 * MANY).for_each(|_| good.failed(&peer));
        let known = &good.table[&peer];
        assert!(known.score(NOW) < 250 && known.successes + known.failures <= MANY + 1, "{known:?}");
    }

    #[test]
    fn it_survives_the_disk_and_what_disks_do() {
        let mut good = GoodPeers::default();
        for n in 1..=20 {
            good.succeeded(PeerId::random(), &at(&format!("192.0.2.{n}")), NOW - n);
        }
        let text = good.to_text();
        assert_eq!(GoodPeers::from_text(&text, NOW), (good.clone(), 0));
        // Cut anywhere, and with any byte altered: nothing but some lines is lost.
        for end in 0..text.len() {
            let (read, unread) = GoodPeers::from_text(&text[..end], NOW);
            assert!(read.len() <= 20 && unread <= 1);
        }
        let line = text.len() / 2;
        let damaged = format!("{}\u{fffd}\0{}", &text[..line], &text[line..]);
        let (read, unread) = GoodPeers::from_text(&damaged, NOW);
        assert_eq!((read.len(), unread), (19, 1));
        for rubbish in ["", "rubbish", "causeway-peers 2\n", "\0\0\0"] {
            let (read, unread) = GoodPeers::from_text(rubbish, NOW);
            assert!(read.is_empty() && unread > 0, "{rubbish:?}");
        }
        // A clock that was wrong: the future is now.
        let ahead = GoodPeers::from_text(&text.replace(&(NOW - 5).to_string(), "99999999999"), NOW).0;
        assert!(ahead.best(NOW).iter().all(|(_, known)| known.seen <= NOW));
    }
}
