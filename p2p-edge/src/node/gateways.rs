//! Finding the gateway that takes a call to a telephone number.
//!
//! Every prefix of the number is looked up at once. Each provider found is connected and proves
//! its certificate; its signed offer is fetched and verified. The longest prefix wins, then
//! whoever has worked lately, then the lowest price, then the lowest load; a gateway that cannot be
//! reached, refuses for reasons of its own or dies before the answer makes room for the next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use call_model::{CallId, Cause, Number};
use libp2p::request_response::OutboundRequestId;
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};

use super::Refusal;
use super::calls::{Call, Outgoing, abandon_unfound};
use super::candidates::{Candidate, Places, ranked};
use super::config::NodeRole;
use super::lookup::Purpose;
use super::requests::is_provable;
use super::task::{Task, Timer};
use super::wire::{self, Blob, MAX_ANSWERS, OfferRequest, OfferResponse};
use crate::calling::DeviceId;
use crate::identity::{Prefix, Role};
use crate::record::{GatewayOffer, OFFER_LIFE, RecordKey, ValidRecord, validate};

/// The longest prefix that is looked up beside the empty one, in digits.
const LONGEST_PREFIX: usize = 7;
/// Addresses of one gateway that are tried.
const MAX_ADDRESSES: usize = 16;
/// Gateways whose offers have not come by then are not waited for.
const OFFER_WAIT: Duration = Duration::from_secs(2);

/// How long a gateway whose stream is lost before the answer may take to come back while another waits.
const GATEWAY_RESUME: Duration = Duration::from_secs(1);

/// The search for a gateway, for one call.
pub(super) struct GatewaySearch {
    number: Number,
    /// Provider look-ups that are not complete.
    searches: usize,
    /// Providers found, and where they listen.
    addresses: HashMap<PeerId, Vec<Multiaddr>>,
    /// Gateways that are to prove themselves first.
    places: Places,
    /// Gateways that could not be reached, or have proved nothing.
    unreached: HashSet<PeerId>,
    /// Gateways that have been asked for their offers.
    asked: HashSet<PeerId>,
    candidates: Vec<Candidate>,
    /// The number belongs to no overlay user: a gateway may be called.
    allowed: bool,
    late: bool,
    order: Option<VecDeque<Candidate>>,
    pub(super) current: Option<PeerId>,
    /// Gateways that have offered the number and have no room, and those that did not say.
    full: usize,
    silent: usize,
}

/// Requests for offers under way, and dials to gateways.
#[derive(Default)]
pub(super) struct Fetches {
    requests: HashMap<OutboundRequestId, CallId>,
    dials: HashMap<ConnectionId, PeerId>,
}

impl GatewaySearch {
    pub(super) fn new(number: Number) -> Self {
        Self {
            number,
            searches: 0,
            addresses: HashMap::new(),
            places: Places::default(),
            unreached: HashSet::new(),
            asked: HashSet::new(),
            candidates: Vec::new(),
            allowed: false,
            late: false,
            order: None,
            current: None,
            full: 0,
            silent: 0,
        }
    }

    /// Says whether another gateway can be tried after the present one.
    pub(super) fn has_next(&self) -> bool {
        self.order.as_ref().is_some_and(|order| !order.is_empty())
    }

    fn is_complete(&self) -> bool {
        self.searches == 0 && self.places.is_idle() && self.asked.is_empty()
    }
}

impl Task {
    fn search(&mut self, call: CallId) -> Option<&mut GatewaySearch> {
        match self.calls.table.get_mut(&call) {
            Some(Call::Outgoing(outgoing)) => outgoing.gateways.as_mut(),
            _ => None,
        }
    }

    /// Starts to look for gateways under every prefix of the called number.
    pub(super) fn search_gateways(&mut self, now: Instant, call: CallId) {
        let Some(search) = self.search(call) else { return };
        let keys: Vec<RecordKey> = RecordKey::gateways_of(&search.number)
            .filter(
                |key| matches!(key, RecordKey::Gateway(prefix) if prefix.digits().len() <= LONGEST_PREFIX),
            )
            .collect();
        search.searches = keys.len();
        self.timers.set(Timer::Gateways(call), Some(now + OFFER_WAIT));
        self.look_up_providers(now, keys, Purpose::Gateways(call));
    }

    /// A provider was found, named by a server or by the DHT: it is connected, and asked for its
    /// offers once it has proved itself.
    pub(super) fn on_gateway_found(
        &mut self,
        now: Instant,
        call: CallId,
        from: Option<PeerId>,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) {
        let me = self.me;
        let Some(search) = self.search(call) else { return };
        if peer == me || search.order.is_some() {
            return;
        }
        if let Some(known) = search.addresses.get_mut(&peer) {
            // Whoever named it first may have said wrongly where it is.
            let before = known.len();
            for address in addresses {
                if known.len() < MAX_ADDRESSES && !known.contains(&address) {
                    known.push(address);
                }
            }
            let more = known.len() > before;
            if more && search.places.is_pending(&peer) {
                self.connect_gateway(now, call, peer);
            } else if more && search.unreached.remove(&peer) {
                search.places.offer_again(peer);
            }
        } else if search.places.offer(peer, from) {
            search.addresses.insert(peer, addresses);
        }
        self.start_gateways(now, call);
    }

    /// Connects gateways that were found, as far as there are places for them.
    fn start_gateways(&mut self, now: Instant, call: CallId) {
        while let Some(peer) = self.search(call).and_then(|search| search.places.start()) {
            self.connect_gateway(now, call, peer);
        }
    }

    fn connect_gateway(&mut self, now: Instant, call: CallId, peer: PeerId) {
        let Some(search) = self.search(call) else { return };
        let addresses = search.addresses.get(&peer).cloned().unwrap_or_default();
        if self.peers.server(&peer).is_some() {
            self.on_gateway_proven(now, &peer);
        } else if !self.swarm.is_connected(&peer) {
            let options = DialOpts::peer_id(peer)
                .condition(PeerCondition::Disconnected)
                .addresses(addresses)
                .extend_addresses_through_behaviour()
                .build();
            let id = options.connection_id();
            if self.swarm.dial(options).is_ok() {
                self.fetches.dials.insert(id, peer);
            } else if !self.fetches.dials.values().any(|dialled| *dialled == peer) {
                self.forget_gateway(now, &peer);
            }
        } else if !self.peers.is_undecided(&peer) {
            // Connected, and no server: a user's device, or one that was refused.
            self.forget_gateway(now, &peer);
        }
    }

    /// A dial has failed: if it was to a gateway, that one is out unless another dial is on.
    pub(super) fn on_gateway_undialled(&mut self, now: Instant, id: ConnectionId) {
        if let Some(peer) = self.fetches.dials.remove(&id)
            && !self.swarm.is_connected(&peer)
            && !self.fetches.dials.values().any(|dialled| *dialled == peer)
        {
            self.forget_gateway(now, &peer);
        }
    }

    /// A dial has succeeded: what follows is up to the peer's credential.
    pub(super) fn on_gateway_dialled(&mut self, id: ConnectionId) {
        self.fetches.dials.remove(&id);
    }

    /// A gateway cannot be reached or proves nothing: no call waits for it.
    pub(super) fn forget_gateway(&mut self, now: Instant, peer: &PeerId) {
        for call in self.calls_searching() {
            let Some(search) = self.search(call) else { continue };
            if search.places.free(peer) {
                search.unreached.insert(*peer);
                self.start_gateways(now, call);
                self.decide_gateway(now, call);
            }
        }
    }

    fn calls_searching(&self) -> Vec<CallId> {
        let searching = |(call, entry): (&CallId, &Call)| match entry {
            Call::Outgoing(outgoing) if outgoing.gateways.is_some() => Some(*call),
            _ => None,
        };
        self.calls.table.iter().filter_map(searching).collect()
    }

    /// A server has proved itself: calls that wait for its offers ask for them.
    pub(super) fn on_gateway_proven(&mut self, now: Instant, peer: &PeerId) {
        self.fetches.dials.retain(|_, dialled| dialled != peer);
        let is_gateway = self.peers.server(peer).is_some_and(|node| node.role == Role::Gateway);
        for call in self.calls_searching() {
            let Some(search) = self.search(call) else { continue };
            if !search.places.free(peer) {
                continue;
            }
            if is_gateway {
                search.asked.insert(*peer);
                let request = wire::encode(&OfferRequest { digits: search.number.digits().to_owned() });
                let id = self.swarm.behaviour_mut().offer.send_request(peer, request);
                self.fetches.requests.insert(id, call);
            } else {
                self.refusals.add(Refusal::ProviderUncertified);
                self.decide_gateway(now, call);
            }
            self.start_gateways(now, call);
        }
    }

    /// Takes the offers of a gateway, or the failure to get them.
    pub(super) fn on_offer_answer(
        &mut self,
        now: Instant,
        request: OutboundRequestId,
        peer: PeerId,
        answer: Option<&[u8]>,
    ) {
        let Some(call) = self.fetches.requests.remove(&request) else { return };
        let silent = answer.is_none();
        let response = answer.map(wire::decode::<OfferResponse>);
        if matches!(response, Some(None)) {
            self.offended(&peer, Refusal::MessageMalformed);
        }
        let offers = response.flatten().unwrap_or_default().offers;
        let Some(number) = self.search(call).map(|search| search.number.clone()) else { return };
        let (mut candidates, mut full) = (Vec::new(), 0);
        for Blob(value) in offers.into_iter().take(MAX_ANSWERS) {
            match self.verify_offer(&number, &peer, &value) {
                Ok(Some(candidate)) => candidates.push(candidate),
                Ok(None) => full = 1,
                Err(true) => self.offended(&peer, Refusal::OfferInvalid),
                Err(false) => self.refusals.add(Refusal::OfferInvalid),
            }
        }
        if let Some(search) = self.search(call) {
            search.asked.remove(&peer);
            search.candidates.extend(candidates);
            search.full += full;
            search.silent += usize::from(silent);
        }
        self.decide_gateway(now, call);
    }

    /// Verifies an offer. A gateway that is full offers nothing. An error says whether the gateway
    /// has provably broken a rule.
    fn verify_offer(&self, number: &Number, peer: &PeerId, value: &[u8]) -> Result<Option<Candidate>, bool> {
        let Some(whole) = Prefix::of_number(number).next() else { return Ok(None) };
        let key = RecordKey::Gateway(whole).to_bytes();
        let valid = validate(&key, value, &self.trust, &self.revocations, self.unix())
            .map_err(|error| is_provable(&error))?;
        let ValidRecord::Offer(valid) = valid else { return Err(true) };
        let offer = &valid.record;
        let covering = offer.prefixes.iter().filter(|prefix| prefix.covers_number(number));
        let longest = covering.map(|prefix| prefix.digits().len()).max().ok_or(true)?;
        if valid.gateway.peer_id != *peer {
            return Err(true);
        }
        let candidate = Candidate {
            peer: *peer,
            prefix: longest,
            price: offer.price,
            load_per_mille: u64::from(offer.load) * 1000 / u64::from(offer.capacity.max(1)),
            grade: 0,
            standing: valid.gateway.standing.clone(),
        };
        Ok(Some(candidate).filter(|_| offer.load < offer.capacity))
    }

    /// One of the provider look-ups is complete.
    pub(super) fn on_gateways_searched(&mut self, now: Instant, call: CallId) {
        if let Some(search) = self.search(call) {
            search.searches = search.searches.saturating_sub(1);
            self.decide_gateway(now, call);
        }
    }

    /// The called number belongs to no overlay user.
    pub(super) fn number_is_not_overlay(&mut self, now: Instant, call: CallId) {
        if let Some(search) = self.search(call) {
            search.allowed = true;
            self.decide_gateway(now, call);
        }
    }

    /// Offers that are still missing are not waited for any longer.
    pub(super) fn on_gateways_late(&mut self, now: Instant, call: CallId) {
        if let Some(search) = self.search(call) {
            search.late = true;
            self.decide_gateway(now, call);
        }
    }

    fn decide_gateway(&mut self, now: Instant, call: CallId) {
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
        let Outgoing { gateways: Some(search), .. } = &mut **outgoing else { return };
        if !search.allowed || search.order.is_some() {
            return;
        }
        let enough = search.late && (search.searches == 0 || !search.candidates.is_empty());
        if !search.is_complete() && !enough {
            return;
        }
        let mut candidates = std::mem::take(&mut search.candidates);
        for candidate in &mut candidates {
            candidate.grade = self.experience.grade(&candidate.peer, now);
        }
        let candidates = ranked(candidates);
        if candidates.is_empty() {
            let asked = self.peers.servers().count();
            let (full, silent) = (search.full > 0, search.silent > 0);
            outgoing.gateways = None;
            if full {
                let text = "every gateway for this number is full";
                outgoing.hunt.abandon(now, Cause::NO_CIRCUIT_AVAILABLE, Some(503), text);
            } else if silent {
                let text = "no gateway for this number answers";
                outgoing.hunt.abandon(now, Cause::TEMPORARY_FAILURE, Some(503), text);
            } else {
                abandon_unfound(now, outgoing, asked);
            }
            self.service(now, call);
            return;
        }
        search.order = Some(candidates);
        self.next_gateway(now, call);
        self.service(now, call);
    }

    /// Tries the next gateway where the present one cannot be reached, has no room or was lost
    /// before the answer; says that there is no more once one has answered or refused for good.
    pub(super) fn next_gateway(&mut self, now: Instant, call: CallId) {
        loop {
            let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
            let lost: Vec<DeviceId> = outgoing.hunt.wanting_resume().collect();
            for id in lost {
                if outgoing.has_other_gateway(id) {
                    outgoing.hunt.resume_by(now, id, now + GATEWAY_RESUME);
                }
            }
            let present = outgoing.gateways.as_ref().and_then(|search| search.current);
            let device = present.and_then(|peer| outgoing.device_of(&peer));
            let answered = device.is_some_and(|id| outgoing.hunt.winner() == Some(id));
            let waits = !answered && device.is_some_and(|id| outgoing.hunt.is_device_alive(id));
            let settled = device.is_some_and(|id| !waits && !outgoing.hunt.may_be_replaced(id));
            let ended = outgoing.hunt.has_ended();
            let Some(search) = &mut outgoing.gateways else { return };
            let Some(order) = &mut search.order else { return };
            if waits && !ended {
                return;
            }
            match present {
                Some(peer) if answered => self.experience.carried(&peer, now),
                Some(peer) if !settled && !ended => self.experience.failed(peer, now),
                _ => {}
            }
            let next = if settled { None } else { order.pop_front() };
            let Some(Candidate { peer, standing, .. }) = next else {
                outgoing.gateways = None;
                outgoing.hunt.no_more(now);
                return;
            };
            search.current = Some(peer);
            outgoing.hunt.reach_anew(now);
            let addresses = search.addresses.get(&peer).cloned().unwrap_or_default();
            self.add_device(now, call, peer, addresses, &standing);
        }
    }

    /// Returns this gateway's offers that cover a number, signed now, with its present load.
    pub(super) fn own_offers(&self, digits: &str) -> Vec<Blob> {
        let NodeRole::Gateway { chain, offers, .. } = &self.role else { return Vec::new() };
        let Ok(number) = format!("+{digits}").parse::<Number>() else { return Vec::new() };
        let load = u32::try_from(self.calls.table.len()).unwrap_or(u32::MAX);
        let covering = offers.iter().filter(|o| o.prefixes.iter().any(|p| p.covers_number(&number)));
        let sign = |offer: &GatewayOffer| {
            let offer = fresh_offer(offer, load, super::task::unix_now_ms());
            offer.sign(chain, &self.key).map(Blob).ok()
        };
        covering.take(MAX_ANSWERS).filter_map(sign).collect()
    }
}

/// Returns an offer as it is to be signed at a moment.
pub(super) fn fresh_offer(offer: &GatewayOffer, load: u32, unix_ms: u64) -> GatewayOffer {
    GatewayOffer { load, sequence: unix_ms, expires_unix: unix_ms / 1000 + OFFER_LIFE / 2, ..offer.clone() }
}
