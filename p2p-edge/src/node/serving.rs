//! Look-ups in the DHT on behalf of clients that run none.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::kad::{ProviderRecord, RecordKey as Key};
use libp2p::request_response::ResponseChannel;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};

use super::Refusal;
use super::lookup::Purpose;
use super::task::{Task, Timer};
use super::wire::{self, Answer, Blob, LookupRequest, MAX_ANSWERS, MAX_KEY, MAX_KEYS, Provider};
use crate::record::RecordKey;

/// A client gets what was found by then.
const SERVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The part of all keys looked up at one time that one client may have: one in this many.
const SHARE: usize = 8;

/// Names one look-up that a client has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ServeId(u64);

/// The look-ups of clients that wait for the DHT.
#[derive(Default)]
pub(super) struct Served {
    table: HashMap<ServeId, Serving>,
    shares: Shares,
    next: u64,
}

struct Serving {
    channel: ResponseChannel<Vec<u8>>,
    peer: PeerId,
    answers: Vec<Answer>,
    /// Keys that are looked up, and how many of them are not done.
    keys: usize,
    waiting: usize,
}

/// How many keys are being looked up, in all and for each client.
#[derive(Default)]
struct Shares {
    all: usize,
    per_peer: HashMap<PeerId, usize>,
}

impl Shares {
    /// Takes places for the keys of one request, all or none.
    fn take(&mut self, peer: PeerId, keys: usize, limit: usize) -> bool {
        let of_peer = self.per_peer.get(&peer).copied().unwrap_or(0);
        if self.all + keys > limit || of_peer + keys > (limit / SHARE).max(MAX_KEYS) {
            return false;
        }
        self.all += keys;
        self.per_peer.insert(peer, of_peer + keys);
        true
    }

    fn give_back(&mut self, peer: &PeerId, keys: usize) {
        self.all = self.all.saturating_sub(keys);
        if let Some(of_peer) = self.per_peer.get_mut(peer) {
            *of_peer = of_peer.saturating_sub(keys);
            if *of_peer == 0 {
                self.per_peer.remove(peer);
            }
        }
    }
}

impl Served {
    /// Takes places for what a client has asked the DHT for.
    pub(super) fn take_share(&mut self, peer: PeerId, keys: usize, limit: usize) -> bool {
        self.shares.take(peer, keys, limit)
    }

    pub(super) fn give_share_back(&mut self, peer: &PeerId, keys: usize) {
        self.shares.give_back(peer, keys);
    }
}

impl Task {
    /// Answers a look-up from the own store at once, or asks the DHT for what is missing there.
    pub(super) fn serve_lookup(
        &mut self,
        now: Instant,
        (peer, connection): (PeerId, ConnectionId),
        request: &[u8],
        channel: ResponseChannel<Vec<u8>>,
    ) {
        let request = wire::decode::<LookupRequest>(request)
            .filter(|r| r.keys.len() <= MAX_KEYS && r.keys.iter().all(|Blob(key)| key.len() <= MAX_KEY));
        let Some(request) = request else {
            self.offended(&peer, Refusal::MessageMalformed);
            return;
        };
        let address = self.peers.remote_ip(&peer, connection);
        if self.peers.server(&peer).is_none()
            && !self.rates.take(now, peer, address, request.keys.len().max(1))
        {
            // No answer at all: an empty one would say that there is nothing.
            self.refusals.add(Refusal::LookupRate);
            return;
        }
        self.lookups_served += 1;
        let store = self.swarm.behaviour_mut().kad.store_mut();
        let mut answers: Vec<Answer> = Vec::with_capacity(request.keys.len());
        let mut missing = Vec::new();
        for (at, Blob(key)) in request.keys.iter().enumerate() {
            let records = store.value(key).map(|value| Blob(value.to_vec())).into_iter().collect();
            let providers = store.providers_for(&Key::new(key), &peer, MAX_ANSWERS);
            let answer = Answer { records, providers: providers.into_iter().map(provider).collect() };
            if answer.records.is_empty()
                && answer.providers.is_empty()
                && let Ok((key, _)) = RecordKey::parse_copy(key)
            {
                missing.push((at, key));
            }
            answers.push(answer);
        }
        // A provider of its own is not in the table with its addresses.
        self.add_own_addresses(&mut answers);
        // A query costs every node on its way: only those who have proved who they are get any.
        let wanted = !request.local_only && !missing.is_empty() && self.admitted.contains(&peer);
        let served = wanted && self.served.shares.take(peer, missing.len(), self.limits.lookups);
        if wanted && !served {
            self.refusals.add(Refusal::LookupOverload);
        }
        if !served {
            let _ = self.swarm.behaviour_mut().lookup.send_response(channel, wire::encode_answers(answers));
            return;
        }
        let id = ServeId(self.served.next);
        self.served.next += 1;
        let keys = missing.len();
        self.served.table.insert(id, Serving { channel, peer, answers, keys, waiting: keys });
        self.timers.set(Timer::Serve(id), Some(now + SERVE_TIMEOUT));
        for (at, key) in missing {
            match key {
                RecordKey::Gateway(_) => {
                    self.look_up_providers(now, vec![key], Purpose::Serve(id, at));
                }
                _ => {
                    self.look_up(now, key, Purpose::Serve(id, at));
                }
            }
        }
    }

    /// One key of a client's look-up is done.
    pub(super) fn on_served_key(
        &mut self,
        now: Instant,
        id: ServeId,
        at: usize,
        value: Option<Vec<u8>>,
        providers: Vec<(PeerId, Vec<Multiaddr>)>,
    ) {
        let Some(serving) = self.served.table.get_mut(&id) else { return };
        if let Some(answer) = serving.answers.get_mut(at) {
            answer.records = value.map(Blob).into_iter().collect();
            let with_addresses = |(peer, addresses): (PeerId, Vec<Multiaddr>)| Provider {
                peer: peer.to_bytes(),
                addresses: addresses.iter().map(ToString::to_string).collect(),
            };
            answer.providers = providers.into_iter().take(MAX_ANSWERS).map(with_addresses).collect();
        }
        serving.waiting = serving.waiting.saturating_sub(1);
        if serving.waiting == 0 {
            self.finish_serving(now, id);
        }
    }

    /// Sends a client what was found for it, and looks no further.
    pub(super) fn finish_serving(&mut self, now: Instant, id: ServeId) {
        self.timers.set(Timer::Serve(id), None);
        if let Some(serving) = self.served.table.remove(&id) {
            self.served.shares.give_back(&serving.peer, serving.keys);
            let response = wire::encode_answers(serving.answers);
            let _ = self.swarm.behaviour_mut().lookup.send_response(serving.channel, response);
            if serving.waiting > 0 {
                self.end_lookups_for(now, id);
            }
        }
    }

    fn add_own_addresses(&self, answers: &mut [Answer]) {
        let me = self.me.to_bytes();
        for provider in answers.iter_mut().flat_map(|answer| &mut answer.providers) {
            if provider.peer == me {
                provider.addresses = self.direct_addresses().iter().map(ToString::to_string).collect();
            }
        }
    }
}

fn provider(record: ProviderRecord) -> Provider {
    let addresses = record.addresses.iter().take(MAX_ANSWERS).map(ToString::to_string).collect();
    Provider { peer: record.provider.to_bytes(), addresses }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_counted_not_requests_and_nobody_takes_all() {
        let (greedy, other) = (PeerId::random(), PeerId::random());
        let mut shares = Shares::default();
        let limit = 16 * SHARE * 2;
        assert_eq!((0..100).take_while(|_| shares.take(greedy, 16, limit)).count(), 2, "its share");
        assert!(shares.take(other, 16, limit), "others have theirs");
        shares.give_back(&greedy, 16);
        assert!(shares.take(greedy, 16, limit) && !shares.take(greedy, 1, limit));
        let strangers = (0..100).take_while(|_| shares.take(PeerId::random(), 16, limit)).count();
        assert_eq!(strangers, 2 * SHARE - 3, "and all together the limit");
    }
}
