//! Presence and text: the state machines of [`crate::presence`] on the streams of this node.
//!
//! A user's device has one stream, to the supernode that is its agent. A supernode has one to each
//! home that it publishes or watches at, and takes those of devices and of other agents.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::{GetClosestPeersError, GetClosestPeersOk, GetClosestPeersResult, QueryId};
use libp2p::swarm::DialError;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};

use super::config::{NodeConfig, NodeRole};
use super::pump::{StreamId, StreamOutput};
use super::status::PresenceStatus;
use super::streams::{CallStream, OpenError, OpenId, StreamsEvent};
use super::task::{Task, Timer, unix_now, unix_now_ms};
use super::{NodeError, NodeEvent, PresenceCommand, Refusal};
use crate::identity::{IdentityError, UserBundle, VerifiedParty};
use crate::presence::{
    Agent, AgentEvent, Client, ClientEvent, Destination, Frame, FrameDecoder, Home, HomeEvent, Members,
    Refused, Verifier,
};

/// How long a peer may take to be connected and to prove itself.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of frames that are handed to a stream at once.
const CHUNK: usize = 16 * 1024;
/// Bytes that may wait for one stream: a million watches would be 30 of these.
const MAX_BACKLOG: usize = 1 << 20;
/// How soon a stream that took no more bytes is offered them again.
const BACKLOG_RETRY: Duration = Duration::from_millis(20);
/// Bytes that a peer may send before it has proved itself.
const MAX_UNPROVEN: usize = 32 * 1024;

/// Homes whose addresses are looked for at one time.
const MAX_FINDING: usize = 16;

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// Opened by a peer that has not proved itself yet.
    Unproven,
    /// This device's, to its agent.
    ToAgent,
    /// This agent's, to a home.
    ToHome,
    /// A device's, to this agent.
    FromDevice,
    /// Another agent's, to this home.
    FromAgent,
}

struct Stream {
    peer: PeerId,
    side: Side,
    output: StreamOutput,
    decoder: FrameDecoder,
    /// What came before the peer had proved itself.
    early: Vec<u8>,
    backlog: VecDeque<Vec<u8>>,
}

/// What a node is in presence.
enum Part {
    Device(Box<Client>),
    Server(Box<(Home, Agent)>),
}

/// The presence of a node.
pub(super) struct Presence {
    part: Part,
    streams: HashMap<StreamId, Stream>,
    by_side: BTreeMap<(PeerId, u8), StreamId>,
    opening: HashMap<OpenId, PeerId>,
    /// Peers to which a stream is wanted, and until when they may become reachable.
    wanted: BTreeMap<PeerId, Instant>,
    members: BTreeSet<PeerId>,
    /// Homes that another has named and whose addresses are looked for in the DHT.
    finding: HashMap<QueryId, PeerId>,
    /// Agents that did not work lately, for a device.
    avoided: BTreeMap<PeerId, Instant>,
}

fn side_key(peer: PeerId, side: Side) -> (PeerId, u8) {
    (peer, side as u8)
}

impl Presence {
    pub(super) fn new(me: PeerId, config: &NodeConfig, now: Instant) -> Result<Self, NodeError> {
        let mut secret = [0; 32];
        // Without randomness no proof can be made safely.
        getrandom::fill(&mut secret).map_err(|error| NodeError::Transport(error.to_string()))?;
        let limits = config.limits.presence.clone();
        let part = match &config.role {
            NodeRole::User { certificate } => {
                let bundle = UserBundle { key: config.key.clone(), certificate: certificate.clone() };
                let subject = certificate.claims().handle.to_string();
                let client = Client::new(bundle, secret, limits, now)
                    .map_err(|_| NodeError::Certificate(IdentityError::WrongKey { subject }))?;
                Part::Device(Box::new(client))
            }
            NodeRole::Supernode { .. } | NodeRole::Gateway { .. } => {
                let seed = secret.iter().take(8).fold(0, |seed, byte| (seed << 8) | u64::from(*byte));
                let home = Home::new(me, limits.clone(), now);
                Part::Server(Box::new((home, Agent::new(limits, seed, now))))
            }
        };
        Ok(Self {
            part,
            streams: HashMap::new(),
            by_side: BTreeMap::new(),
            opening: HashMap::new(),
            wanted: BTreeMap::new(),
            members: BTreeSet::new(),
            finding: HashMap::new(),
            avoided: BTreeMap::new(),
        })
    }

    pub(super) fn has_stream(&self, id: StreamId) -> bool {
        self.streams.contains_key(&id)
    }

    pub(super) fn status(&self) -> PresenceStatus {
        match &self.part {
            Part::Device(client) => PresenceStatus {
                agent: self.streams.values().find(|s| s.side == Side::ToAgent).map(|s| s.peer.to_string()),
                refused: client.counters().refused.iter().map(|(name, count)| (*name, *count)).collect(),
                ..PresenceStatus::default()
            },
            Part::Server(server) => {
                let (home, agent) = &**server;
                let ((handles, on), (devices, watched)) = (home.handles(), agent.counts());
                let mut refused = home.counters().refused.clone();
                for (name, count) in &agent.counters().refused {
                    *refused.entry(name).or_default() += count;
                }
                let refused = refused.into_iter().collect();
                PresenceStatus { handles, on, texts: home.texts(), devices, watched, agent: None, refused }
            }
        }
    }

    fn queue(&mut self, peer: PeerId, side: Side, frame: &Frame) {
        let stream = self.by_side.get(&side_key(peer, side)).and_then(|id| self.streams.get_mut(id));
        let Some(stream) = stream else { return };
        let bytes = frame.encode();
        match stream.backlog.back_mut() {
            Some(last) if last.len() + bytes.len() <= CHUNK => last.extend_from_slice(&bytes),
            _ => stream.backlog.push_back(bytes),
        }
    }

    fn forget(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        let key = side_key(stream.peer, stream.side);
        if self.by_side.get(&key) == Some(&id) {
            self.by_side.remove(&key);
        }
        Some(stream)
    }
}

impl Task {
    /// Carries out what the user wants.
    pub(super) fn on_presence_command(&mut self, now: Instant, command: PresenceCommand) {
        let Part::Device(client) = &mut self.presence.part else {
            tracing::warn!("a supernode has no presence of its own: command ignored");
            return;
        };
        let unix_ms = unix_now_ms();
        let done = match command {
            PresenceCommand::Set { availability, note } => client.set(now, unix_ms, availability, &note),
            PresenceCommand::Contacts(contacts) => client.set_contacts(&contacts),
            PresenceCommand::Rules { everybody, allowed, refused } => {
                client.set_rules(unix_ms, everybody, allowed, refused)
            }
            PresenceCommand::Text { id, to, text } => client.send_text(now, unix_ms, to, &text, id),
        };
        if let Err(error) = done {
            tracing::warn!(%error, "presence command not carried out");
            self.emit(NodeEvent::Presence(ClientEvent::Rejected(Refused::Oversize)));
        }
        self.serve_presence(now);
    }

    /// Keeps up with who is there: homes follow the supernodes that are known, and a device has one of
    /// them as its agent.
    pub(super) fn watch_presence(&mut self, now: Instant) {
        let late: Vec<PeerId> =
            self.presence.wanted.iter().filter(|(_, by)| **by <= now).map(|(peer, _)| *peer).collect();
        for peer in late {
            self.on_presence_lost(now, &peer);
        }
        if matches!(self.presence.part, Part::Device(_)) {
            self.choose_agent(now);
        } else {
            self.update_members(now);
        }
        self.serve_presence(now);
    }

    fn update_members(&mut self, now: Instant) {
        let mut members: BTreeSet<PeerId> = self.peers.servers().map(|(peer, _)| *peer).collect();
        members.insert(self.me);
        for bucket in self.swarm.behaviour_mut().kad.kbuckets() {
            members.extend(bucket.iter().map(|entry| *entry.node.key.preimage()));
        }
        if members == self.presence.members {
            return;
        }
        if let Part::Server(server) = &mut self.presence.part {
            server.0.handle_members(Members::new(members.iter().copied()));
            server.1.handle_members(now, members.iter().copied());
        }
        self.presence.members = members;
    }

    fn choose_agent(&mut self, now: Instant) {
        self.presence.avoided.retain(|_, until| *until > now);
        let busy = self.presence.streams.values().any(|stream| stream.side == Side::ToAgent)
            || !self.presence.opening.is_empty();
        if busy {
            return;
        }
        let candidates = self.peers.relay_candidates();
        let new = candidates.iter().map(|(peer, ..)| *peer).find(|p| !self.presence.avoided.contains_key(p));
        if let Some(peer) = new {
            self.open_presence(now, peer);
        }
    }

    /// Opens a stream to a proven supernode, or sees to it that it becomes one.
    fn open_presence(&mut self, now: Instant, peer: PeerId) {
        if self.peers.server(&peer).is_none() {
            self.presence.wanted.insert(peer, now + CONNECT);
            if !self.swarm.is_connected(&peer) {
                let options =
                    DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
                if let Err(DialError::NoAddresses) = self.swarm.dial(options) {
                    self.find_home(peer);
                }
                // Where it is being dialled already and that fails, it is lost in time.
            }
            return;
        }
        self.presence.wanted.remove(&peer);
        match self.swarm.behaviour_mut().presence.open(peer) {
            Ok(open) => {
                self.presence.opening.insert(open, peer);
            }
            Err(OpenError::NotConnected | OpenError::OverQuota(_)) => self.on_presence_lost(now, &peer),
        }
    }

    /// Looks for the address of a home beyond the routing table: another home has named it as nearer to
    /// a handle.
    fn find_home(&mut self, peer: PeerId) {
        let known = self.presence.finding.values().any(|sought| *sought == peer);
        if known || self.presence.finding.len() >= MAX_FINDING {
            return;
        }
        let query = self.swarm.behaviour_mut().kad.get_closest_peers(peer);
        self.presence.finding.insert(query, peer);
    }

    /// Takes the end of a query for nodes near a key. One that was for a home has found it, or not.
    pub(super) fn on_closest_peers(&mut self, query: QueryId, result: &GetClosestPeersResult) {
        let Some(peer) = self.presence.finding.remove(&query) else { return };
        let found = match result {
            Ok(GetClosestPeersOk { peers, .. }) | Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        let addresses = found.iter().find(|info| info.peer_id == peer).map(|info| info.addrs.clone());
        let Some(addresses) = addresses.filter(|_| self.presence.wanted.contains_key(&peer)) else { return };
        let options =
            DialOpts::peer_id(peer).condition(PeerCondition::Disconnected).addresses(addresses).build();
        // What comes of it comes with the connection, or with the end of the wait for it.
        if let Err(error) = self.swarm.dial(options) {
            tracing::debug!(%peer, %error, "home not dialled");
        }
    }

    /// A peer has proved what it is: what it has said before counts, and streams to it are opened.
    pub(super) fn on_presence_proven(&mut self, now: Instant, peer: PeerId) {
        if self.presence.wanted.contains_key(&peer) && self.peers.server(&peer).is_some() {
            self.open_presence(now, peer);
        }
        let waiting = self.presence.by_side.get(&side_key(peer, Side::Unproven)).copied();
        if let Some(id) = waiting {
            self.admit_presence(now, id);
        }
        self.serve_presence(now);
    }

    /// A peer has failed to prove itself.
    pub(super) fn on_presence_unproven(&mut self, now: Instant, peer: &PeerId) {
        if let Some(id) = self.presence.by_side.get(&side_key(*peer, Side::Unproven)).copied() {
            self.presence.forget(id);
        }
        if self.presence.wanted.contains_key(peer) {
            self.on_presence_lost(now, peer);
        }
        self.serve_presence(now);
    }

    /// A peer could not be dialled.
    pub(super) fn on_presence_undialled(&mut self, now: Instant, peer: &PeerId) {
        if self.presence.wanted.contains_key(peer) && !self.swarm.is_connected(peer) {
            self.on_presence_lost(now, peer);
            self.serve_presence(now);
        }
    }

    /// A stream of this node to a peer is lost, or cannot be had.
    fn on_presence_lost(&mut self, now: Instant, peer: &PeerId) {
        self.presence.wanted.remove(peer);
        match &mut self.presence.part {
            Part::Device(client) => {
                client.handle_closed();
                self.presence.avoided.insert(*peer, now + CONNECT);
            }
            Part::Server(server) => server.1.handle_home_closed(now, *peer),
        }
    }

    pub(super) fn on_presence_streams(&mut self, now: Instant, event: StreamsEvent) {
        match event {
            StreamsEvent::Inbound { peer, stream } => {
                if matches!(self.presence.part, Part::Device(_)) || self.draining {
                    self.refusals.add(Refusal::StreamQuota);
                    return;
                }
                let id = self.add_presence_stream(peer, stream, Side::Unproven);
                self.admit_presence(now, id);
            }
            StreamsEvent::Opened { open, stream } => {
                let Some(peer) = self.presence.opening.remove(&open) else { return };
                let unix_ms = unix_now_ms();
                let side = match &mut self.presence.part {
                    Part::Device(client) => {
                        client.handle_connected(now, unix_ms, peer);
                        Side::ToAgent
                    }
                    Part::Server(server) => {
                        server.1.handle_home_connected(now, peer);
                        Side::ToHome
                    }
                };
                self.add_presence_stream(peer, stream, side);
            }
            StreamsEvent::OpenFailed { open } => {
                if let Some(peer) = self.presence.opening.remove(&open) {
                    self.on_presence_lost(now, &peer);
                }
            }
            StreamsEvent::OverQuota => self.refusals.add(Refusal::StreamQuota),
        }
        self.serve_presence(now);
    }

    fn add_presence_stream(&mut self, peer: PeerId, stream: CallStream, side: Side) -> StreamId {
        let (id, output) = self.start_pump(stream);
        let (decoder, early, backlog) = (FrameDecoder::new(), Vec::new(), VecDeque::new());
        // A second one for the same takes the place of the first.
        if let Some(before) = self.presence.by_side.insert(side_key(peer, side), id) {
            self.presence.streams.remove(&before);
        }
        self.presence.streams.insert(id, Stream { peer, side, output, decoder, early, backlog });
        id
    }

    /// Decides whose an inbound stream is, once its peer has proved itself.
    fn admit_presence(&mut self, now: Instant, id: StreamId) {
        let Some(peer) = self.presence.streams.get(&id).map(|stream| stream.peer) else { return };
        let Some((party, credential)) = self.peers.proven(&peer) else {
            if !self.peers.is_undecided(&peer) {
                self.presence.forget(id);
            }
            return;
        };
        let Part::Server(server) = &mut self.presence.part else { return };
        let (home, agent) = &mut **server;
        let side = match party {
            VerifiedParty::Node(_) => {
                home.handle_closed(now, &peer);
                home.handle_connected(peer);
                Some(Side::FromAgent)
            }
            VerifiedParty::Handle(holder) => {
                let place = holder.keys.iter().position(|key| key.peer_id() == peer);
                let device = place.and_then(|place| u8::try_from(place).ok());
                device.and_then(|device| {
                    let handle = holder.handle.clone();
                    agent.handle_device_connected(now, peer, handle, device, credential).ok()?;
                    Some(Side::FromDevice)
                })
            }
        };
        let Some(side) = side else {
            self.presence.forget(id);
            return;
        };
        self.presence.by_side.remove(&side_key(peer, Side::Unproven));
        if let Some(before) = self.presence.by_side.insert(side_key(peer, side), id) {
            self.presence.streams.remove(&before);
        }
        let Some(stream) = self.presence.streams.get_mut(&id) else { return };
        stream.side = side;
        let early = std::mem::take(&mut stream.early);
        if !early.is_empty() {
            self.on_presence_bytes(now, id, &early);
        }
    }

    /// Takes what a stream brought, or its end.
    pub(super) fn on_presence_input(&mut self, now: Instant, id: StreamId, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.on_presence_bytes(now, id, bytes),
            None => self.close_presence(now, id),
        }
        self.serve_presence(now);
    }

    fn close_presence(&mut self, now: Instant, id: StreamId) {
        let Some(Stream { peer, side, .. }) = self.presence.forget(id) else { return };
        match (side, &mut self.presence.part) {
            (Side::FromDevice, Part::Server(server)) => server.1.handle_device_closed(now, &peer),
            (Side::FromAgent, Part::Server(server)) => server.0.handle_closed(now, &peer),
            (Side::ToAgent | Side::ToHome, _) => self.on_presence_lost(now, &peer),
            _ => {}
        }
    }

    fn on_presence_bytes(&mut self, now: Instant, id: StreamId, mut bytes: &[u8]) {
        loop {
            let Some(stream) = self.presence.streams.get_mut(&id) else { return };
            if stream.side == Side::Unproven {
                stream.early.extend_from_slice(bytes);
                if stream.early.len() > MAX_UNPROVEN {
                    self.presence.forget(id);
                    self.refusals.add(Refusal::StreamQuota);
                }
                return;
            }
            let (peer, side) = (stream.peer, stream.side);
            match stream.decoder.feed(&mut bytes) {
                Ok(Some(frame)) => self.on_presence_frame(now, peer, side, frame),
                Ok(None) => return,
                Err(reason) => {
                    tracing::debug!(%peer, reason = reason.as_str(), "presence stream refused");
                    self.offended(&peer, Refusal::FrameInvalid);
                    self.close_presence(now, id);
                    return;
                }
            }
        }
    }

    fn on_presence_frame(&mut self, now: Instant, peer: PeerId, side: Side, frame: Frame) {
        let (unix, unix_ms) = (unix_now(), unix_now_ms());
        let judge = Verifier { trust: &self.trust, revocations: &self.revocations, unix };
        match (side, &mut self.presence.part) {
            (Side::ToAgent, Part::Device(client)) => client.handle_frame(now, unix_ms, &judge, frame),
            (Side::ToHome, Part::Server(server)) => server.1.handle_home_frame(now, peer, frame),
            (Side::FromDevice, Part::Server(server)) => server.1.handle_device_frame(now, peer, frame),
            (Side::FromAgent, Part::Server(server)) => {
                server.0.handle_frame(now, unix, &judge, peer, frame);
            }
            _ => {}
        }
    }

    pub(super) fn on_presence_timeout(&mut self, now: Instant) {
        match &mut self.presence.part {
            Part::Device(client) => client.handle_timeout(now, unix_now_ms()),
            Part::Server(server) => {
                server.0.handle_timeout(now, unix_now());
                server.1.handle_timeout(now);
            }
        }
        self.serve_presence(now);
    }

    /// Users whose certificate has become void are offline at once.
    pub(super) fn void_presence(&mut self, now: Instant) {
        let judge = Verifier { trust: &self.trust, revocations: &self.revocations, unix: unix_now() };
        if let Part::Server(server) = &mut self.presence.part {
            server.0.handle_revocations(now, &judge);
        }
        self.serve_presence(now);
    }

    /// Moves what presence has to say to its streams and to the owner of the node. To be called
    /// after everything that touches it.
    fn serve_presence(&mut self, now: Instant) {
        match self.presence.part {
            Part::Device(_) => self.serve_device(),
            Part::Server(_) => self.serve_server(now),
        }
        self.flush_presence(now);
        let next = match &self.presence.part {
            Part::Device(client) => client.poll_timeout(),
            Part::Server(server) => server.0.poll_timeout().into_iter().chain(server.1.poll_timeout()).min(),
        };
        let waits = self.presence.streams.values().any(|stream| !stream.backlog.is_empty());
        let retry = waits.then_some(now + BACKLOG_RETRY);
        self.timers.set(Timer::Presence, next.into_iter().chain(retry).min());
    }

    fn serve_device(&mut self) {
        let agent = self.presence.streams.values().find(|s| s.side == Side::ToAgent).map(|s| s.peer);
        let mut events = Vec::new();
        if let Part::Device(client) = &mut self.presence.part {
            let mut frames = Vec::new();
            frames.extend(std::iter::from_fn(|| client.poll_transmit()));
            events.extend(std::iter::from_fn(|| client.poll_event()));
            if let Some(agent) = agent {
                for frame in frames {
                    self.presence.queue(agent, Side::ToAgent, &frame);
                }
            }
        }
        for event in events {
            self.emit(NodeEvent::Presence(event));
        }
    }

    /// Passes frames on until neither home nor agent has any left: this node is a home to itself.
    fn serve_server(&mut self, now: Instant) {
        loop {
            let Part::Server(server) = &mut self.presence.part else { return };
            let (home, agent) = &mut **server;
            if let Some(event) = agent.poll_event() {
                self.on_agent_event(now, event);
            } else if let Some(HomeEvent::HandOver(text)) = home.poll_event() {
                agent.handle_text(now, text);
            } else if let Some((to, frame)) = home.poll_transmit(now) {
                if to == self.me {
                    agent.handle_home_frame(now, to, frame);
                } else {
                    self.presence.queue(to, Side::FromAgent, &frame);
                }
            } else if let Some((to, frame)) = agent.poll_transmit() {
                match to {
                    Destination::Device(peer) => self.presence.queue(peer, Side::FromDevice, &frame),
                    Destination::Home(peer) if peer == self.me => {
                        self.on_presence_frame(now, peer, Side::FromAgent, frame);
                    }
                    Destination::Home(peer) => self.presence.queue(peer, Side::ToHome, &frame),
                }
            } else {
                return;
            }
        }
    }

    fn on_agent_event(&mut self, now: Instant, event: AgentEvent) {
        match event {
            AgentEvent::Connect(peer) if peer == self.me => {
                if let Part::Server(server) = &mut self.presence.part {
                    server.0.handle_connected(peer);
                    server.1.handle_home_connected(now, peer);
                }
            }
            AgentEvent::Connect(peer) => self.open_presence(now, peer),
            AgentEvent::Release(peer) => {
                if let Some(id) = self.presence.by_side.get(&side_key(peer, Side::ToHome)).copied() {
                    self.presence.forget(id);
                }
            }
        }
    }

    /// Hands bytes to streams as far as they take them. One that has stopped taking any is lost.
    fn flush_presence(&mut self, now: Instant) {
        let mut stuck = Vec::new();
        for (id, stream) in &mut self.presence.streams {
            while let Some(chunk) = stream.backlog.pop_front() {
                if let Err(chunk) = stream.output.offer(chunk) {
                    stream.backlog.push_front(chunk);
                    break;
                }
            }
            if stream.backlog.iter().map(Vec::len).sum::<usize>() > MAX_BACKLOG {
                stuck.push(*id);
            }
        }
        for id in stuck {
            self.refusals.add(Refusal::StreamQuota);
            self.close_presence(now, id);
        }
    }
}
