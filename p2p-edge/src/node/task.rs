//! The event loop of a node.

mod report;

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use call_model::CallId;
use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::kad::{self, ProviderRecord, QueryResult};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{DialError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping, relay};
use tokio::sync::{mpsc, oneshot};

use super::behaviour::{self, Admitted, Behaviour, BehaviourEvent, CIRCUIT_CREDIT};
use super::bootstrap::{Found, Joining};
use super::calls::Calls;
use super::candidates::Experience;
use super::config::{NodeConfig, NodeLimits, NodeRole};
use super::gateways::Fetches;
use super::health::Health;
use super::lookup::{LookupId, Lookups};
use super::own::verify_own;
use super::peers::{Peers, is_loopback};
use super::presence::Presence;
use super::publish::Publisher;
use super::pump::{StreamId, StreamInput};
use super::puts::{PutId, Puts};
use super::rates::Rates;
use super::registry::{PublishId, Registry};
use super::reserve::Reservations;
use super::revocations::ListOffers;
use super::serving::{ServeId, Served};
use super::status::Refusals;
use super::store::KadStore;
use super::timers::Timers;
use super::turn::{self, IceServers, TurnServer};
use super::{COMMAND_QUEUE, EVENT_QUEUE, NodeCommand, NodeError, NodeEvent, NodeHandle, Request};
use crate::calling::SessionCommand;
use crate::identity::{NodeKey, NonceCache, RevocationList, Trust, VerifiedParty};
use crate::record::StoreLimits;
use crate::routing::Backoff;

/// Chunks read from call streams that may wait for the node.
const INPUT_QUEUE: usize = 1024;
/// Interval of the watchdogs.
const TICK: Duration = Duration::from_millis(250);
/// Interval of the search for what has expired.
const SWEEP: Duration = Duration::from_secs(30);
/// How long a listener may take to report its address.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Nonces of invites that are remembered.
const NONCES: usize = 65_536;
/// TURN credentials that one peer may ask for in a second, 10 s' worth at once: one is good for hours.
const TURN_RATE: u32 = 1;
/// How long calls have to end when every handle of the node is gone.
const ABANDONED_SHUTDOWN: Duration = Duration::from_secs(2);

/// What a timer of the node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    Tick,
    Sweep,
    Publish,
    Lookup(LookupId),
    Serve(ServeId),
    Registry(PublishId),
    Put(PutId),
    Call(CallId),
    Redial(CallId),
    Gateways(CallId),
    Presence,
    SavePeers,
    FirstFrame(StreamId),
    Ice,
    Stop,
}

/// Everything that a node is. Owned by one task; the sibling modules each add one concern.
pub(super) struct Task {
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) me: PeerId,
    pub(super) key: NodeKey,
    pub(super) trust: Trust,
    pub(super) revocations: RevocationList,
    pub(super) role: NodeRole,
    /// The own credential, encoded and verified.
    pub(super) credential: Vec<u8>,
    pub(super) party: VerifiedParty,
    pub(super) limits: NodeLimits,
    pub(super) external: Vec<Multiaddr>,
    /// Whether the node listens on the loopback device and nowhere else.
    pub(super) loopback_only: bool,
    pub(super) listening: Vec<(ListenerId, Multiaddr)>,

    pub(super) peers: Peers,
    pub(super) admitted: Admitted,
    pub(super) lists: ListOffers,
    /// Peers that have a circuit and must have proved themselves by then.
    on_credit: HashMap<PeerId, Instant>,
    pub(super) joining: Joining,
    pub(super) rejoin: Backoff,
    /// When the routing table is refreshed next.
    pub(super) refresh: Backoff,
    pub(super) reservations: Reservations,
    pub(super) publisher: Publisher,
    pub(super) lookups: Lookups,
    pub(super) served: Served,
    pub(super) registry: Registry,
    pub(super) puts: Puts,
    pub(super) rates: Rates,
    /// The TURN server of this node.
    pub(super) turn: Option<TurnServer>,
    pub(super) turn_rates: Rates,
    /// The TURN servers of others that serve this node.
    pub(super) ice: IceServers,
    pub(super) lookups_served: u64,
    pub(super) published_for_clients: u64,
    pub(super) fetches: Fetches,
    pub(super) experience: Experience,
    pub(super) pending_providers: Vec<(PeerId, ProviderRecord)>,
    pub(super) calls: Calls,
    /// Own calls given up in favour of one that crosses them.
    pub(super) yielded: Vec<CallId>,
    pub(super) nonces: NonceCache,
    pub(super) presence: Presence,
    pub(super) refusals: Refusals,
    pub(super) online: bool,
    /// Whether the own credential is still valid.
    pub(super) is_valid: bool,
    pub(super) draining: bool,
    reservations_served: HashSet<PeerId>,
    circuits_served: usize,
    /// Requests sent by queries of the DHT that have ended.
    dht_requests: u64,
    pub(super) servers_asked: u64,
    pub(super) health: Health,

    pub(super) timers: Timers<Timer>,
    pub(super) inputs: mpsc::Sender<(StreamId, StreamInput)>,
    input_queue: mpsc::Receiver<(StreamId, StreamInput)>,
    found: mpsc::Receiver<Found>,
    requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<NodeEvent>,
    /// Events for which the owner's queue has no room at present.
    outbox: VecDeque<NodeEvent>,
    events_delayed: u64,
    stopping: Option<oneshot::Sender<()>>,
}

/// What becomes of a start.
type Started = Result<(NodeHandle, mpsc::Receiver<NodeEvent>), NodeError>;

/// Starts a node, as a boxed future: the body of an `async fn` is compiled wherever it is awaited,
/// and the whole of libp2p's swarm, minutes of it, must be compiled in this crate alone.
pub(super) fn start(config: NodeConfig) -> Pin<Box<dyn Future<Output = Started> + Send>> {
    Box::pin(spawn(config))
}

/// Verifies what a node is, listens, and hands the rest to its task.
async fn spawn(config: NodeConfig) -> Started {
    let (credential, party) = verify_own(&config.key, &config.role, &config.trust, &config.revocations)?;
    let listen = addresses(&config.listen, false)?;
    let external = addresses(&config.external, false)?;
    let bootstrap = addresses(&config.bootstrap, true)?;
    let now = Instant::now();

    let me = config.key.peer_id();
    let presence = Presence::new(me, &config, now)?;
    let server = config.role.is_server();
    let limits = config.limits;
    let stored = StoreLimits { records: limits.records, ..StoreLimits::default() };
    let store = KadStore::new(me, config.trust.clone(), config.revocations.clone(), stored, limits.providers);
    let (admitted, rates) = (Admitted::default(), Rates::new(limits.lookup_rate));
    // Nobody else is reached by a node of the loopback device.
    let loopback_only = listen.iter().all(is_loopback);
    let lan = config.ways.lan && (listen.is_empty() || !loopback_only);
    let mut swarm = behaviour::build(config.key.keypair(), server, &limits, store, admitted.clone(), lan)?;
    let listening = start_listening(&mut swarm, &listen).await?;
    for address in &external {
        swarm.add_external_address(address.clone());
    }

    let own = listening.iter().map(|(_, address)| address).chain(&external);
    let turn = turn::start(config.turn.as_ref().filter(|_| server), &config.key, own, &config.revocations)?;

    let (request_sender, requests) = mpsc::channel(COMMAND_QUEUE);
    let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
    let (inputs, input_queue) = mpsc::channel(INPUT_QUEUE);
    let (joining, found) = Joining::new(
        me,
        (&bootstrap, config.ways),
        &config.trust,
        (limits.timers.retry, u64::from_le_bytes(seed()?)),
        now,
    );
    let mut task = Task {
        publisher: Publisher::new(me, &config.role, !limits.timers.probe.is_zero(), now),
        joining,
        swarm,
        me,
        key: config.key,
        trust: config.trust,
        revocations: config.revocations,
        role: config.role,
        credential,
        party,
        limits,
        loopback_only,
        external,
        listening: Vec::new(),
        peers: Peers::default(),
        admitted,
        lists: ListOffers::default(),
        on_credit: HashMap::new(),
        rejoin: Backoff::new(now),
        refresh: Backoff::new(now),
        reservations: Reservations::default(),
        lookups: Lookups::default(),
        served: Served::default(),
        registry: Registry::default(),
        puts: Puts::default(),
        rates,
        turn,
        turn_rates: Rates::new(TURN_RATE),
        ice: IceServers::default(),
        lookups_served: 0,
        published_for_clients: 0,
        fetches: Fetches::default(),
        experience: Experience::default(),
        pending_providers: Vec::new(),
        calls: Calls::default(),
        yielded: Vec::new(),
        nonces: NonceCache::new(NONCES),
        presence,
        refusals: Refusals::default(),
        online: false,
        is_valid: true,
        draining: false,
        reservations_served: HashSet::new(),
        circuits_served: 0,
        dht_requests: 0,
        servers_asked: 0,
        health: Health::new(now),
        timers: Timers::new(),
        inputs,
        input_queue,
        found,
        requests,
        events,
        outbox: VecDeque::new(),
        events_delayed: 0,
        stopping: None,
    };
    for (listener, address) in listening {
        task.on_listening(listener, &address, now);
        task.emit(NodeEvent::Listening { address: address.to_string() });
    }
    task.timers.set(Timer::Sweep, Some(now + SWEEP));
    task.timers.set(Timer::Publish, Some(now));
    task.tick(now);
    tokio::spawn(task.run());
    Ok((NodeHandle { peer_id: me.to_string(), commands: request_sender }, event_receiver))
}

fn seed() -> Result<[u8; 8], NodeError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| NodeError::Transport(error.to_string()))?;
    Ok(bytes)
}

/// Checks a multiaddr of a configuration without using it.
///
/// # Errors
/// When it is malformed, or `with_peer` asks for a `/p2p/ID` at its end and there is none.
pub fn check_address(text: &str, with_peer: bool) -> Result<(), NodeError> {
    addresses(&[text.to_owned()], with_peer).map(drop)
}

fn addresses(texts: &[String], with_peer: bool) -> Result<Vec<Multiaddr>, NodeError> {
    let parse = |text: &String| {
        let error = |expected| NodeError::Address { address: text.clone(), expected };
        let address: Multiaddr = text.parse().map_err(|_| error(""))?;
        if with_peer && !matches!(address.iter().last(), Some(Protocol::P2p(_))) {
            return Err(error(" that ends in /p2p/ and the id of a peer"));
        }
        Ok(address)
    };
    texts.iter().map(parse).collect()
}

/// Listens on every address and waits until each has reported where.
async fn start_listening(
    swarm: &mut Swarm<Behaviour>,
    listen: &[Multiaddr],
) -> Result<Vec<(ListenerId, Multiaddr)>, NodeError> {
    let mut waiting = Vec::new();
    for address in listen {
        let failed = |reason: String| NodeError::Listen { address: address.to_string(), reason };
        probe(address).map_err(|error| failed(error.to_string()))?;
        let id = swarm.listen_on(address.clone()).map_err(|error| failed(error.to_string()))?;
        waiting.push((id, address.clone()));
    }
    let mut found = Vec::new();
    let deadline = tokio::time::Instant::now() + LISTEN_TIMEOUT;
    while let Some((_, address)) = waiting.first().cloned() {
        let failed =
            |address: &Multiaddr, reason: String| NodeError::Listen { address: address.to_string(), reason };
        let Ok(event) = tokio::time::timeout_at(deadline, swarm.select_next_some()).await else {
            return Err(failed(&address, "no address of this machine matches".to_owned()));
        };
        match event {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                waiting.retain(|(id, _)| *id != listener_id);
                found.push((listener_id, address));
            }
            SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                let of = waiting.iter().find(|(id, _)| *id == listener_id);
                let address = of.map_or(&address, |(_, address)| address);
                let reason = reason.err().map_or_else(|| "closed".to_owned(), |error| error.to_string());
                return Err(failed(address, reason));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Binds an address for a moment. The transports share ports between sockets of this process, so
/// that they alone would not notice another process on the same port.
fn probe(address: &Multiaddr) -> std::io::Result<()> {
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => TcpListener::bind(SocketAddr::new(ip, port)).map(drop),
        Some(Protocol::Udp(port)) if port != 0 => UdpSocket::bind(SocketAddr::new(ip, port)).map(drop),
        _ => Ok(()),
    }
}

impl Task {
    async fn run(mut self) {
        let events = self.events.clone();
        loop {
            while let Some(event) = self.outbox.pop_front() {
                if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                    self.outbox.push_front(event);
                    break;
                }
            }
            if self.calls.table.is_empty()
                && self.calls.closing.is_empty()
                && let Some(stopped) = self.stopping.take()
            {
                self.end(stopped);
                return;
            }
            // An owner that does not read its events gets no more input from calls.
            let open = self.outbox.is_empty();
            let commanded = self.outbox.len() < EVENT_QUEUE && self.stopping.is_none();
            let sleep = tokio::time::sleep_until(self.timers.next().unwrap_or_else(Instant::now).into());
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(Instant::now(), event),
                Some((id, input)) = self.input_queue.recv(), if open => {
                    self.on_input(Instant::now(), id, input);
                }
                Some(found) = self.found.recv() => self.on_found(Instant::now(), found),
                request = self.requests.recv(), if commanded => {
                    self.on_request(Instant::now(), request);
                }
                room = events.reserve(), if !open => match room {
                    Ok(permit) => {
                        if let Some(event) = self.outbox.pop_front() {
                            permit.send(event);
                        }
                    }
                    Err(_) => self.outbox.clear(),
                },
                () = sleep => {
                    let now = Instant::now();
                    while let Some(timer) = self.timers.pop(now) {
                        if timer == Timer::Stop
                            && let Some(stopped) = self.stopping.take()
                        {
                            self.end(stopped);
                            return;
                        }
                        self.on_timer(now, timer);
                    }
                }
            }
            self.give_up_yielded();
        }
    }

    /// Closes every socket and queue, and then says that the node has stopped.
    fn end(mut self, stopped: oneshot::Sender<()>) {
        self.joining.save_now();
        drop(self);
        // Errs when nobody waits any more.
        let _ = stopped.send(());
    }

    /// Tells the owner of the node something.
    pub(super) fn emit(&mut self, event: NodeEvent) {
        if self.outbox.is_empty() {
            match self.events.try_send(event) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => self.outbox.push_back(event),
            }
        } else {
            self.outbox.push_back(event);
        }
        self.events_delayed += 1;
    }

    pub(super) fn unix(&self) -> u64 {
        unix_now()
    }

    pub(super) fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // Without randomness no call can be made safely, and nothing else in the process can go on.
        assert!(getrandom::fill(&mut bytes).is_ok(), "the random source of the system has failed");
        bytes
    }

    fn on_request(&mut self, now: Instant, request: Option<Request>) {
        match request {
            Some(Request::Command(NodeCommand::Invite { call, from, to, media, ring_timeout })) => {
                self.invite(now, call, from, to, media, ring_timeout);
            }
            Some(Request::Command(NodeCommand::Call { call, command })) => self.command(now, call, command),
            Some(Request::Command(NodeCommand::Presence(command))) => self.on_presence_command(now, command),
            Some(Request::Command(NodeCommand::Revocations(list))) => {
                // What is wrong with it has been logged.
                let _ = self.apply_revocations(now, list);
            }
            Some(Request::Certificate(credential, sender)) => {
                // Errs when nobody waits any more.
                let _ = sender.send(self.change_certificate(now, &credential));
            }
            Some(Request::Numbers(numbers, sender)) => {
                // Errs when nobody waits any more.
                let _ = sender.send(self.hold_numbers(now, numbers));
            }
            Some(Request::Status(sender)) => {
                let status = self.status(now);
                // Errs when nobody waits any more.
                let _ = sender.send(status);
            }
            Some(Request::IceServers(waiting)) => self.ice_servers(now, waiting),
            Some(Request::LookUp(key, answer)) => self.look_up_for_owner(now, key, answer),
            Some(Request::Shutdown(deadline, sender)) => self.stop(now, deadline, sender),
            None => self.stop(now, ABANDONED_SHUTDOWN, oneshot::channel().0),
        }
    }

    fn stop(&mut self, now: Instant, deadline: Duration, stopped: oneshot::Sender<()>) {
        self.draining = true;
        self.stopping = Some(stopped);
        self.timers.set(Timer::Stop, Some(now + deadline));
        let calls: Vec<CallId> = self.calls.table.keys().copied().collect();
        for call in calls {
            let bye = SessionCommand::Bye {
                cause: call_model::Cause::NORMAL_UNSPECIFIED,
                text: "the node is shutting down".to_owned(),
            };
            self.command(now, call, bye);
        }
    }

    fn give_up_yielded(&mut self) {
        for call in std::mem::take(&mut self.yielded) {
            self.command(Instant::now(), call, SessionCommand::Cancel { answered_elsewhere: false });
        }
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Tick => self.tick(now),
            Timer::Sweep => {
                self.swarm.behaviour_mut().kad.store_mut().expire();
                self.verify_self();
                self.drop_expired_peers(now);
                self.void_presence(now);
                self.timers.set(Timer::Sweep, Some(now + SWEEP));
            }
            Timer::Publish => self.publish_due(now),
            Timer::Lookup(id) => self.complete_lookup(now, id),
            Timer::Serve(id) => self.finish_serving(now, id),
            Timer::Registry(id) => self.finish_publish(id),
            Timer::Put(id) => self.end_put_search(id),
            Timer::Call(call) => self.on_call_timeout(now, call),
            Timer::Redial(call) => self.on_redial(now, call),
            Timer::Presence => self.on_presence_timeout(now),
            Timer::Gateways(call) => self.on_gateways_late(now, call),
            Timer::Ice => self.on_ice_late(),
            Timer::FirstFrame(id) => self.on_silent_stream(id),
            Timer::SavePeers => self.save_peers(now),
            Timer::Stop => {}
        }
    }

    fn tick(&mut self, now: Instant) {
        self.collect_credit(now);
        if !self.draining {
            self.ask_others(now);
            self.join(now);
            self.watch_reservations(now);
            self.refresh_routes(now);
            self.repeat_lookups(now);
            self.publish_due(now);
            self.check_online(now);
            self.watch_presence(now);
        }
        self.timers.set(Timer::Tick, Some(now + TICK));
    }

    fn on_swarm(&mut self, now: Instant, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(now, event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                if endpoint.is_dialer() {
                    self.health.dialled(true);
                }
                self.on_connected(now, peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.on_disconnected(now, peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                tracing::debug!(?peer_id, %error, "dial failed");
                let tried = matches!(error, DialError::Transport(_) | DialError::WrongPeerId { .. });
                if tried {
                    self.health.dialled(false);
                }
                if let Some(peer) = peer_id {
                    self.on_not_joined(now, &peer, &error);
                    self.on_undialled(now, &peer, connection_id);
                    self.on_presence_undialled(now, &peer);
                    self.unroute(&peer, &error);
                }
                self.on_gateway_undialled(now, connection_id);
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                self.on_listening(listener_id, &address, now);
                self.emit(NodeEvent::Listening { address: address.to_string() });
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                self.on_unlistening(listener_id, Some(&address), now);
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => self.on_unlistening(listener_id, None, now),
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "listener"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, now: Instant, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identity(event) => self.on_identity(now, event),
            BehaviourEvent::Revocations(event) => self.on_revocations(now, event),
            BehaviourEvent::Lookup(event) => self.on_lookups(now, event),
            BehaviourEvent::Publish(event) => self.on_publish(now, event),
            BehaviourEvent::Offer(event) => self.on_offers(now, event),
            BehaviourEvent::Turn(event) => self.on_turn(now, event),
            BehaviourEvent::Calls(event) => self.on_streams(now, event),
            BehaviourEvent::Presence(event) => self.on_presence_streams(now, event),
            BehaviourEvent::Kad(event) => self.on_kad(now, event),
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::Ping(ping::Event { peer, connection, result: Err(ping::Failure::Timeout) }) => {
                self.on_silent(&peer, connection);
            }
            BehaviourEvent::Ping(ping::Event { peer, result: Ok(_), .. }) => self.peers.heard(&peer),
            BehaviourEvent::Relay(event) => self.on_relay(now, event),
            BehaviourEvent::Lan(event) => self.on_lan(now, event),
            BehaviourEvent::Dcutr(event) => {
                tracing::debug!(peer = %event.remote_peer_id, direct = event.result.is_ok(), "hole punching");
            }
            BehaviourEvent::Identify(_) | BehaviourEvent::Ping(_) | BehaviourEvent::RelayClient(_) => {}
            BehaviourEvent::Limits(impossible) => match impossible {},
        }
    }

    fn on_kad(&mut self, now: Instant, event: kad::Event) {
        match event {
            kad::Event::InboundRequest { request } => self.on_kad_request(request),
            kad::Event::OutboundQueryProgressed { id, result, stats, step } => {
                // Each part of a search for servers is a query of its own.
                if step.last || matches!(result, QueryResult::Bootstrap(_)) {
                    self.dht_requests += u64::from(stats.num_requests());
                }
                let Some(result) = self.on_query(now, id, result, &stats, &step) else { return };
                if !step.last || self.on_put_query(now, id, &result) {
                    return;
                }
                match &result {
                    QueryResult::GetClosestPeers(closest) => self.on_closest_peers(id, closest),
                    QueryResult::StartProviding(_) => self.on_provided(now, id),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn on_relay(&mut self, now: Instant, event: relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                self.reservations_served.insert(src_peer_id);
            }
            relay::Event::ReservationClosed { src_peer_id }
            | relay::Event::ReservationTimedOut { src_peer_id } => {
                self.reservations_served.remove(&src_peer_id);
            }
            relay::Event::CircuitReqAccepted { src_peer_id, .. } => {
                self.circuits_served += 1;
                if !self.admitted.contains(&src_peer_id) {
                    self.on_credit.entry(src_peer_id).or_insert(now + CIRCUIT_CREDIT);
                }
            }
            relay::Event::CircuitClosed { .. } => {
                self.circuits_served = self.circuits_served.saturating_sub(1);
            }
            _ => {}
        }
    }

    /// Disconnects peers that have circuits and have not proved themselves in time.
    fn collect_credit(&mut self, now: Instant) {
        let due: Vec<PeerId> =
            self.on_credit.iter().filter(|(_, by)| **by <= now).map(|(peer, _)| *peer).collect();
        for peer in due {
            self.end_credit(&peer);
        }
    }

    /// A peer has proved itself or failed to: in that case its circuits go with its connections.
    pub(super) fn end_credit(&mut self, peer: &PeerId) {
        if self.on_credit.remove(peer).is_some() && !self.admitted.contains(peer) {
            tracing::debug!(%peer, "peer disconnected: it has a circuit and no valid certificate");
            // Errs when the peer is gone already.
            let _ = self.swarm.disconnect_peer_id(*peer);
        }
    }
}

/// Returns the Unix time in seconds.
pub(super) fn unix_now() -> u64 {
    unix_now_ms() / 1000
}

/// Returns the Unix time in milliseconds. A clock before 1970 counts as 1970.
pub(super) fn unix_now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
