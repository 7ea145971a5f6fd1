//! Records of clients that run no DHT, their locations and numbers: this node puts them there for them.
//!
//! A record is signed by its owner and validated as any other. It is put under the keys of all its
//! copies. The answer comes when nodes of the DHT have taken it, or after 3 s with what is known by
//! then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::Record;
use libp2p::request_response::ResponseChannel;
use libp2p::swarm::ConnectionId;

use super::Refusal;
use super::puts::PutFor;
use super::requests::{is_provable, refusal_of};
use super::task::{Task, Timer};
use super::wire::{self, PublishRequest, PublishResponse};
use crate::record::{RecordKey, Source};

/// A client is answered by then.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);
/// What a record costs beside a key that is looked up: signatures are verified, and nodes written to.
const COST: usize = 16;

/// Names one record that a client has handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PublishId(u64);

/// The records that are on their way into the DHT.
#[derive(Default)]
pub(super) struct Registry {
    table: HashMap<PublishId, Waiting>,
    next: u64,
}

struct Waiting {
    peer: PeerId,
    channel: ResponseChannel<Vec<u8>>,
    /// Puts under way: one for each copy.
    puts: usize,
    /// Nodes that have taken a copy: the most of any, since one node may take several.
    others: usize,
}

impl Task {
    /// Stores the record of a client and passes it on to the DHT.
    pub(super) fn serve_publish(
        &mut self,
        now: Instant,
        (peer, connection): (PeerId, ConnectionId),
        request: &[u8],
        channel: ResponseChannel<Vec<u8>>,
    ) {
        let record = wire::decode::<PublishRequest>(request).and_then(|request| {
            let key = RecordKey::parse(&request.key.0).ok()?;
            (!matches!(key, RecordKey::Gateway(_))).then_some((key, request))
        });
        let Some((key, request)) = record else {
            self.offended(&peer, Refusal::MessageMalformed);
            return;
        };
        // A put is answered to its end by every node that it reaches: only those who have proved
        // who they are get any.
        if !self.admitted.contains(&peer) {
            self.refusals.add(Refusal::PublishUnproven);
            self.refuse_publish(channel, "unproven");
            return;
        }
        let address = self.peers.remote_ip(&peer, connection);
        if !self.rates.take(now, peer, address, COST) {
            self.refusals.add(Refusal::LookupRate);
            self.refuse_publish(channel, "rate");
            return;
        }
        let source = Source::Remote { peer, address };
        let store = self.swarm.behaviour_mut().kad.store_mut();
        if let Err(error) = store.put_from(&request.key.0, request.value.0.clone(), source) {
            let reason = refusal_of(&error);
            if is_provable(&error) {
                self.offended(&peer, reason);
            } else {
                self.refusals.add(reason);
            }
            self.refuse_publish(channel, error.as_str());
            return;
        }
        if !self.served.take_share(peer, 1, self.limits.lookups) {
            self.refusals.add(Refusal::LookupOverload);
            self.refuse_publish(channel, "overload");
            return;
        }
        let id = PublishId(self.registry.next);
        self.registry.next += 1;
        let mut puts = 0;
        for copy in key.all_copies() {
            // The store holds the first copy already, which this finds out first.
            let record = Record::new(copy, request.value.0.clone());
            match self.put_record(now, record, PutFor::Client(id)) {
                Ok(()) => puts += 1,
                Err(error) => tracing::debug!(%error, "record of a client not passed on"),
            }
        }
        if puts == 0 {
            self.served.give_share_back(&peer, 1);
            self.answer_publish(channel, 1);
            return;
        }
        self.registry.table.insert(id, Waiting { peer, channel, puts, others: 0 });
        self.timers.set(Timer::Registry(id), Some(now + PUBLISH_TIMEOUT));
    }

    /// So many nodes have taken a copy of a client's record.
    pub(super) fn on_client_put(&mut self, id: PublishId, taken: usize) {
        // None where the client has been answered.
        let Some(waiting) = self.registry.table.get_mut(&id) else { return };
        waiting.others = waiting.others.max(taken);
        waiting.puts = waiting.puts.saturating_sub(1);
        if waiting.puts == 0 {
            self.finish_publish(id);
        }
    }

    /// Answers a client: the record is held here and by so many others.
    pub(super) fn finish_publish(&mut self, id: PublishId) {
        self.timers.set(Timer::Registry(id), None);
        let Some(Waiting { peer, channel, others, .. }) = self.registry.table.remove(&id) else { return };
        self.served.give_share_back(&peer, 1);
        self.answer_publish(channel, 1 + u32::try_from(others).unwrap_or(u32::MAX - 1));
    }

    fn answer_publish(&mut self, channel: ResponseChannel<Vec<u8>>, stored: u32) {
        self.published_for_clients += 1;
        let response = wire::encode(&PublishResponse { stored, refused: None });
        // Errs when the client is gone.
        let _ = self.swarm.behaviour_mut().publish.send_response(channel, response);
    }

    fn refuse_publish(&mut self, channel: ResponseChannel<Vec<u8>>, reason: &str) {
        let response = wire::encode(&PublishResponse { stored: 0, refused: Some(reason.to_owned()) });
        let _ = self.swarm.behaviour_mut().publish.send_response(channel, response);
    }
}
