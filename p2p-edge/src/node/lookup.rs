//! Finding records: in the DHT and, at the same time, by asking connected servers directly. Either
//! way every copy is looked for at once: what one side has to hide, the other has not.
//!
//! The first valid answer is handed on at once, so that dialling may begin; a later one with a
//! higher sequence supersedes it. A look-up is complete when three nodes have answered and there
//! is a record, when three servers have looked further and found nothing, when everyone reachable
//! has answered, or when its time is over.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use call_model::CallId;
use libp2p::kad::{
    GetProvidersError, GetProvidersOk, GetRecordError, GetRecordOk, ProgressStep, QueryId, QueryResult,
    QueryStats, RecordKey as Key,
};
use libp2p::request_response::OutboundRequestId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::serving::ServeId;
use super::task::{Task, Timer};
use super::wire::{self, Answer, Blob, LookupRequest, LookupResponse, MAX_ANSWERS, MAX_KEYS};
use super::{LookedUp, Refusal};
use crate::record::{Choice, RecordKey, ValidRecord, validate};

/// Servers that are asked directly beside the DHT.
const ASKED_DIRECTLY: usize = 3;
/// Servers that are asked directly for each copy of a record.
const ASKED_FOR_A_COPY: usize = 2;
/// After this time without a word from anybody those who were asked are doubted, and others are asked.
const LATE: Duration = Duration::from_millis(1500);
/// While no more servers than this were asked for one look-up, others may be.
const MAX_ASKED: u32 = 32;

/// Names one look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct LookupId(u64);

/// What a look-up is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The location of a callee.
    Location(CallId),
    /// The handle behind a called number.
    Number(CallId),
    /// The owner of the node wants to know.
    Owner,
    /// The gateways under one prefix of a called number.
    Gateways(CallId),
    /// The own location record, before it is written anew.
    OwnLocation,
    /// An own record that was put: is it stored elsewhere?
    ReadBack(usize),
    /// The own announcement as provider: do others know it?
    ProviderReadBack(usize),
    /// A key that a client asked for.
    Serve(ServeId, usize),
}

/// A record that was found, and how much is known about others under its key.
pub(super) struct Outcome<'a> {
    /// The best valid record so far.
    pub(super) record: Option<&'a ValidRecord>,
    /// Once the look-up is complete: how many nodes have answered.
    pub(super) complete: Option<usize>,
}

/// The look-ups in progress.
#[derive(Default)]
pub(super) struct Lookups {
    table: HashMap<LookupId, Lookup>,
    queries: HashMap<QueryId, LookupId>,
    /// Which look-up each key of a direct request is for.
    requests: HashMap<OutboundRequestId, Vec<LookupId>>,
    next: u64,
}

struct Lookup {
    key: Vec<u8>,
    purpose: Purpose,
    /// DHT queries under way: one for each copy.
    queries: Vec<QueryId>,
    waiting: usize,
    choice: Choice<PeerId>,
    /// Nodes that the DHT query has heard.
    heard: usize,
    best_value: Vec<u8>,
    providers: HashMap<PeerId, Vec<Multiaddr>>,
    /// Servers asked directly.
    asked: u32,
    /// Those of them that have not answered yet, and since when they are awaited.
    awaited: Vec<(PeerId, Instant)>,
    /// Requests that the DHT query has sent, once it is over.
    sent: u32,
    began: Instant,
    /// When the first record was found.
    first: Option<Instant>,
    owner: Option<oneshot::Sender<LookedUp>>,
}

impl Lookup {
    /// Says whether it is to be made once more: nobody has answered at all, so that nothing is known.
    /// Those asked may have died, or all connections may just be lost.
    fn may_be_repeated(&self) -> bool {
        let wanted = matches!(self.purpose, Purpose::Location(_) | Purpose::Number(_) | Purpose::Owner);
        wanted && self.choice.answers() == 0 && self.heard == 0 && self.choice.best().is_none()
    }
}

impl Lookups {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

impl Task {
    /// Looks for a record on behalf of the owner of the node. At once without one where too many
    /// look-ups are under way.
    pub(super) fn look_up_for_owner(
        &mut self,
        now: Instant,
        key: RecordKey,
        answer: oneshot::Sender<LookedUp>,
    ) {
        if self.lookups.len() >= self.limits.lookups {
            // Errs when nobody waits any more.
            let _ = answer.send(LookedUp::default());
            return;
        }
        let id = self.look_up(now, key, Purpose::Owner);
        if let Some(lookup) = self.lookups.table.get_mut(&id) {
            lookup.owner = Some(answer);
        }
    }

    /// Looks for the record under a key.
    pub(super) fn look_up(&mut self, now: Instant, key: RecordKey, purpose: Purpose) -> LookupId {
        let copies = key.all_copies();
        let kad = &mut self.swarm.behaviour_mut().kad;
        let queries = copies.iter().map(|copy| kad.get_record(Key::new(copy))).collect();
        let id = self.start_lookup(now, key.to_bytes(), purpose, queries);
        if !matches!(purpose, Purpose::Serve(..)) {
            self.ask_for_copies(now, &copies, id);
        }
        id
    }

    /// Looks whether a copy of an own record is stored elsewhere.
    pub(super) fn read_copy_back(&mut self, now: Instant, copy: Vec<u8>, item: usize) {
        let query = self.swarm.behaviour_mut().kad.get_record(Key::new(&copy));
        let id = self.start_lookup(now, copy.clone(), Purpose::ReadBack(item), vec![query]);
        // It must come out of a node's own store.
        self.ask_servers(now, vec![copy], true, &[id]);
    }

    /// Looks for the providers under several keys.
    pub(super) fn look_up_providers(
        &mut self,
        now: Instant,
        keys: Vec<RecordKey>,
        purpose: Purpose,
    ) -> usize {
        let keys: Vec<Vec<u8>> = keys.iter().map(RecordKey::to_bytes).collect();
        let mut ids = Vec::with_capacity(keys.len());
        for key in &keys {
            let query = self.swarm.behaviour_mut().kad.get_providers(Key::new(key));
            ids.push(self.start_lookup(now, key.clone(), purpose, vec![query]));
        }
        if !matches!(purpose, Purpose::Serve(..)) {
            for (keys, ids) in keys.chunks(MAX_KEYS).zip(ids.chunks(MAX_KEYS)) {
                self.ask_servers(now, keys.to_vec(), true, ids);
            }
        }
        ids.len()
    }

    /// Asks others where nobody says anything: those who were asked may have died without a word, and it
    /// takes pings long to tell. Whoever is doubted is asked last, and somebody is dialled in its place.
    pub(super) fn ask_others(&mut self, now: Instant) {
        let is_late = |lookup: &Lookup| {
            let kad = &self.swarm.behaviour().kad;
            let heard = |query| kad.query(query).is_some_and(|query| query.stats().num_successes() > 0);
            now >= lookup.began + LATE && lookup.may_be_repeated() && !lookup.queries.iter().any(heard)
        };
        let late: Vec<LookupId> =
            self.lookups.table.iter().filter(|(_, lookup)| is_late(lookup)).map(|(id, _)| *id).collect();
        for id in late {
            let Some(lookup) = self.lookups.table.get(&id) else { continue };
            for (peer, _) in lookup.awaited.iter().filter(|(_, since)| now >= *since + LATE) {
                self.peers.doubt(peer);
            }
            if lookup.asked < MAX_ASKED
                && let Ok(key) = RecordKey::parse(&lookup.key)
            {
                self.ask_for_copies(now, &key.all_copies(), id);
            }
        }
    }

    /// Makes look-ups once more that nobody has answered, as soon as somebody is there to ask. They end
    /// at their time in any case.
    pub(super) fn repeat_lookups(&mut self, now: Instant) {
        if self.peers.servers().next().is_none() {
            return;
        }
        let idle = |lookup: &Lookup| lookup.waiting == 0 && lookup.may_be_repeated();
        let ids: Vec<LookupId> =
            self.lookups.table.iter().filter(|(_, lookup)| idle(lookup)).map(|(id, _)| *id).collect();
        for id in ids {
            let key = self.lookups.table.get(&id).and_then(|lookup| RecordKey::parse(&lookup.key).ok());
            let Some(copies) = key.map(|key| key.all_copies()) else { continue };
            let kad = &mut self.swarm.behaviour_mut().kad;
            let queries: Vec<QueryId> = copies.iter().map(|copy| kad.get_record(Key::new(copy))).collect();
            self.lookups.queries.extend(queries.iter().map(|query| (*query, id)));
            if let Some(lookup) = self.lookups.table.get_mut(&id) {
                (lookup.waiting, lookup.queries) = (queries.len(), queries);
            }
            self.ask_for_copies(now, &copies, id);
            tracing::debug!(purpose = ?self.lookups.table.get(&id).map(|lookup| lookup.purpose), "look-up repeated");
        }
    }

    /// Asks other servers whether they know this node as provider under a key.
    pub(super) fn read_provider_back(&mut self, now: Instant, key: RecordKey, item: usize) {
        let bytes = key.to_bytes();
        let id = self.start_lookup(now, bytes.clone(), Purpose::ProviderReadBack(item), Vec::new());
        self.ask_servers(now, vec![bytes], true, &[id]);
        self.maybe_complete(now, id);
    }

    fn start_lookup(
        &mut self,
        now: Instant,
        key: Vec<u8>,
        purpose: Purpose,
        queries: Vec<QueryId>,
    ) -> LookupId {
        let id = LookupId(self.lookups.next);
        self.lookups.next += 1;
        self.lookups.queries.extend(queries.iter().map(|query| (*query, id)));
        let lookup = Lookup {
            key,
            purpose,
            waiting: queries.len(),
            queries,
            choice: Choice::default(),
            heard: 0,
            best_value: Vec::new(),
            providers: HashMap::new(),
            asked: 0,
            awaited: Vec::new(),
            sent: 0,
            began: now,
            first: None,
            owner: None,
        };
        self.lookups.table.insert(id, lookup);
        self.timers.set(Timer::Lookup(id), Some(now + self.limits.timers.lookup));
        id
    }

    /// Asks connected servers for keys, those first that are nearest to the first key.
    fn ask_servers(&mut self, now: Instant, keys: Vec<Vec<u8>>, local_only: bool, ids: &[LookupId]) {
        let Some(nearest) = keys.first().map(|key| self.servers_near(key)) else { return };
        let request = wire::encode(&LookupRequest { keys: keys.into_iter().map(Blob).collect(), local_only });
        for peer in nearest.into_iter().take(ASKED_DIRECTLY) {
            self.ask_server(now, &peer, request.clone(), ids);
        }
    }

    /// Asks connected servers for a record, each for the copy that it is near to: those around one
    /// copy may have reason to hide it.
    fn ask_for_copies(&mut self, now: Instant, copies: &[Vec<u8>], id: LookupId) {
        let near: Vec<Vec<PeerId>> = copies.iter().map(|copy| self.servers_near(copy)).collect();
        let awaited = self.lookups.table.get(&id).map(|lookup| lookup.awaited.iter().map(|(peer, _)| *peer));
        let mut asked: HashSet<PeerId> = awaited.into_iter().flatten().collect();
        for _ in 0..ASKED_FOR_A_COPY {
            for (copy, near) in copies.iter().zip(&near) {
                let Some(peer) = near.iter().find(|peer| !asked.contains(*peer)) else { return };
                asked.insert(*peer);
                let keys = vec![Blob(copy.clone())];
                let request = wire::encode(&LookupRequest { keys, local_only: false });
                self.ask_server(now, peer, request, &[id]);
            }
        }
    }

    /// Returns the connected servers, the nearest to a key first and those that are doubted last.
    fn servers_near(&self, key: &[u8]) -> Vec<PeerId> {
        let target = libp2p::kad::KBucketKey::new(key.to_vec());
        let mut servers: Vec<PeerId> = self.peers.servers().map(|(peer, _)| *peer).collect();
        servers.sort_by_cached_key(|peer| {
            (self.peers.is_doubted(peer), target.distance(&libp2p::kad::KBucketKey::from(*peer)))
        });
        servers
    }

    fn ask_server(&mut self, now: Instant, peer: &PeerId, request: Vec<u8>, ids: &[LookupId]) {
        let request = self.swarm.behaviour_mut().lookup.send_request(peer, request);
        self.servers_asked += 1;
        self.lookups.requests.insert(request, ids.to_vec());
        for id in ids {
            if let Some(lookup) = self.lookups.table.get_mut(id) {
                lookup.waiting += 1;
                lookup.asked += 1;
                lookup.awaited.push((*peer, now));
            }
        }
    }

    /// Takes the answer of a server that was asked directly, or its failure.
    pub(super) fn on_lookup_answer(
        &mut self,
        now: Instant,
        peer: PeerId,
        request: OutboundRequestId,
        answer: Option<&[u8]>,
    ) {
        let Some(ids) = self.lookups.requests.remove(&request) else { return };
        if answer.is_some() {
            self.peers.heard(&peer);
        }
        // Whoever says nothing at all has been asked too much: no offence, and no word about the keys.
        let answer = answer.filter(|bytes| !bytes.is_empty());
        let answers = match answer.map(wire::decode::<LookupResponse>) {
            Some(Some(response)) if response.answers.len() == ids.len() => Some(response.answers),
            Some(_) => {
                self.offended(&peer, Refusal::MessageMalformed);
                None
            }
            None => None,
        };
        let mut answers = answers.map(Vec::into_iter);
        for id in ids {
            let answer = answers.as_mut().and_then(Iterator::next);
            self.take_answer(now, id, peer, answer);
        }
    }

    fn take_answer(&mut self, now: Instant, id: LookupId, from: PeerId, answer: Option<Answer>) {
        let Some(lookup) = self.lookups.table.get_mut(&id) else { return };
        lookup.waiting = lookup.waiting.saturating_sub(1);
        lookup.awaited.retain(|(peer, _)| *peer != from);
        if let Some(answer) = answer {
            lookup.choice.answered_by(from);
            if answer.records.is_empty() {
                lookup.choice.nothing_found();
            }
            for Blob(value) in answer.records.into_iter().take(MAX_ANSWERS) {
                self.found_record(now, id, value);
            }
            for provider in answer.providers.into_iter().take(MAX_ANSWERS) {
                if let Ok(peer) = PeerId::from_bytes(&provider.peer) {
                    let addresses =
                        provider.addresses.iter().take(MAX_ANSWERS).filter_map(|a| a.parse().ok());
                    self.found_provider(now, id, Some(from), peer, addresses.collect());
                }
            }
        }
        self.maybe_complete(now, id);
    }

    /// Takes what the DHT found. Returns the result back where it belongs to no look-up.
    pub(super) fn on_query(
        &mut self,
        now: Instant,
        query: QueryId,
        result: QueryResult,
        stats: &QueryStats,
        step: &ProgressStep,
    ) -> Option<QueryResult> {
        let Some(&id) = self.lookups.queries.get(&query) else { return Some(result) };
        match result {
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                if let Some(lookup) = self.lookups.table.get_mut(&id) {
                    // What this node holds itself says nothing about what others hold.
                    if found.peer.is_some() || !matches!(lookup.purpose, Purpose::ReadBack(_)) {
                        if let Some(peer) = found.peer {
                            lookup.choice.answered_by(peer);
                        }
                        self.found_record(now, id, found.record.value);
                    }
                }
            }
            QueryResult::GetRecord(Err(GetRecordError::NotFound { .. } | GetRecordError::Timeout { .. }))
            | QueryResult::GetProviders(Err(GetProvidersError::Timeout { .. })) => {
                self.heard(id, stats);
            }
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                let providers: HashSet<PeerId> = providers;
                for peer in providers.into_iter().take(MAX_ANSWERS) {
                    self.found_provider(now, id, None, peer, Vec::new());
                }
            }
            _ => self.heard(id, stats),
        }
        if step.last {
            self.lookups.queries.remove(&query);
            if let Some(lookup) = self.lookups.table.get_mut(&id) {
                lookup.queries.retain(|known| *known != query);
                lookup.sent += stats.num_requests();
                lookup.waiting = lookup.waiting.saturating_sub(1);
            }
        }
        self.maybe_complete(now, id);
        None
    }

    /// Takes note of how many nodes a DHT query has heard.
    fn heard(&mut self, id: LookupId, stats: &QueryStats) {
        if let Some(lookup) = self.lookups.table.get_mut(&id) {
            lookup.heard = lookup.heard.max(stats.num_successes() as usize);
        }
    }

    fn found_record(&mut self, now: Instant, id: LookupId, value: Vec<u8>) {
        let Some(lookup) = self.lookups.table.get(&id) else { return };
        if lookup.best_value == value {
            return;
        }
        match validate(&lookup.key, &value, &self.trust, &self.revocations, self.unix()) {
            Ok(record) => {
                if let Some(lookup) = self.lookups.table.get_mut(&id)
                    && lookup.choice.offer(&record)
                {
                    lookup.best_value = value;
                    lookup.first.get_or_insert(now);
                    let purpose = lookup.purpose;
                    self.report(now, purpose, &Outcome { record: Some(&record), complete: None });
                }
            }
            Err(error) => {
                self.refusals.add(Refusal::AnswerInvalid);
                tracing::debug!(reason = error.as_str(), "answer to a look-up refused");
            }
        }
    }

    /// Takes a provider that a server has named, or the DHT.
    fn found_provider(
        &mut self,
        now: Instant,
        id: LookupId,
        from: Option<PeerId>,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) {
        let Some(lookup) = self.lookups.table.get_mut(&id) else { return };
        let known = lookup.providers.entry(peer).or_default();
        if known.is_empty() {
            known.clone_from(&addresses);
        }
        if let Purpose::Gateways(call) = lookup.purpose {
            self.on_gateway_found(now, call, from, peer, addresses);
        }
    }

    fn maybe_complete(&mut self, now: Instant, id: LookupId) {
        let Some(lookup) = self.lookups.table.get(&id) else { return };
        let settled = match lookup.purpose {
            // One other node that has it is enough; that one still has what it replaces says nothing.
            Purpose::ReadBack(item) => self.publisher.is_confirmed(item, &self.me, lookup.choice.best()),
            Purpose::Serve(..) => lookup.choice.best().is_some(),
            Purpose::ProviderReadBack(_) => lookup.providers.contains_key(&self.me),
            Purpose::Gateways(_) => false,
            _ => lookup.choice.is_settled(),
        };
        let ends = lookup.waiting == 0 && (!lookup.may_be_repeated() || self.is_alone());
        if settled || ends {
            self.complete_lookup(now, id);
        }
    }

    /// Ends the look-ups for a client that has been answered.
    pub(super) fn end_lookups_for(&mut self, now: Instant, serve: ServeId) {
        let is_its = |lookup: &Lookup| matches!(lookup.purpose, Purpose::Serve(of, _) if of == serve);
        let ids: Vec<LookupId> =
            self.lookups.table.iter().filter(|(_, lookup)| is_its(lookup)).map(|(id, _)| *id).collect();
        for id in ids {
            self.complete_lookup(now, id);
        }
    }

    /// Ends a look-up with what was found; also when its time is over.
    pub(super) fn complete_lookup(&mut self, now: Instant, id: LookupId) {
        let Some(mut lookup) = self.lookups.table.remove(&id) else { return };
        self.timers.set(Timer::Lookup(id), None);
        tracing::debug!(
            purpose = ?lookup.purpose,
            found = lookup.choice.best().is_some() || !lookup.providers.is_empty(),
            answered = lookup.choice.answers(),
            heard = lookup.heard,
            waiting = lookup.waiting,
            "look-up complete"
        );
        for query in &lookup.queries {
            self.lookups.queries.remove(query);
            if let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(query) {
                lookup.sent += query.stats().num_requests();
                query.finish();
            }
        }
        if let Purpose::Serve(serve, at) = lookup.purpose {
            let providers = lookup.providers.into_iter().collect();
            let value = lookup.choice.best().is_some().then_some(lookup.best_value);
            self.on_served_key(now, serve, at, value, providers);
            return;
        }
        if let Purpose::ProviderReadBack(item) = lookup.purpose {
            self.on_provider_read_back(now, item, lookup.providers.contains_key(&self.me));
            return;
        }
        let answered = lookup.choice.answers().max(lookup.heard);
        if let Some(owner) = lookup.owner.take() {
            let found = LookedUp {
                record: lookup.choice.best().cloned(),
                first: lookup.first.map(|at| at.saturating_duration_since(lookup.began)),
                took: now.saturating_duration_since(lookup.began),
                answered,
                dht_requests: lookup.sent,
                servers_asked: lookup.asked,
            };
            // Errs when nobody waits any more.
            let _ = owner.send(found);
        }
        let outcome = Outcome { record: lookup.choice.best(), complete: Some(answered) };
        self.report(now, lookup.purpose, &outcome);
    }

    fn report(&mut self, now: Instant, purpose: Purpose, outcome: &Outcome<'_>) {
        match (purpose, outcome.record) {
            (Purpose::Location(call), Some(ValidRecord::Location(found))) => {
                self.on_location(now, call, Some(found), outcome.complete);
            }
            (Purpose::Location(call), _) => self.on_location(now, call, None, outcome.complete),
            (Purpose::Number(call), Some(ValidRecord::Number(found))) => {
                self.on_number(now, call, Some(&found.record.handle), outcome.complete.unwrap_or(0));
            }
            (Purpose::Number(call), _) => {
                if let Some(asked) = outcome.complete {
                    self.on_number(now, call, None, asked);
                }
            }
            (Purpose::Gateways(call), _) => self.on_gateways_searched(now, call),
            (Purpose::OwnLocation, record) => {
                if outcome.complete.is_some() {
                    self.write_location(now, record);
                }
            }
            (Purpose::ReadBack(item), record) => {
                if outcome.complete.is_some() {
                    self.on_read_back(now, item, record);
                }
            }
            (Purpose::Serve(..) | Purpose::ProviderReadBack(_) | Purpose::Owner, _) => {}
        }
    }
}
