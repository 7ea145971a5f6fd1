//! Streams of call signalling and of presence.
//!
//! A peer may be reached over several connections at once: through a relay at first, directly
//! after hole punching. A call stream opens on a direct connection where there is one, so that
//! signalling does not keep riding the relay. The number of open streams per peer is bounded in
//! both directions.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, StreamProtocol, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use super::peers::is_relayed;

/// The protocol of call signalling: one stream per call.
pub(super) const CALL_PROTOCOL: StreamProtocol = StreamProtocol::new("/causeway/call/1");

/// The protocol of presence and text: one stream between a device and its supernode, and between an
/// agent and a home.
pub(super) const PRESENCE_PROTOCOL: StreamProtocol = StreamProtocol::new(crate::presence::PROTOCOL);

/// How long the negotiation of one stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Names one request to open a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct OpenId(u64);

/// An open stream. Dropping it gives its place in the peer's quota back.
pub(super) struct CallStream {
    pub(super) stream: Stream,
    pub(super) _permit: Permit,
}

impl std::fmt::Debug for CallStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallStream")
    }
}

/// What happened to the streams of a peer.
#[derive(Debug)]
pub(super) enum StreamsEvent {
    /// The peer opened a stream.
    Inbound { peer: PeerId, stream: CallStream },
    /// A stream asked for with [`Streams::open`] is open.
    Opened { open: OpenId, stream: CallStream },
    /// A stream asked for with [`Streams::open`] could not be opened.
    OpenFailed { open: OpenId },
    /// A stream of this peer was refused because its quota is used up.
    OverQuota,
}

/// Why no stream can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    NotConnected,
    /// So many are open, which is as many as may be.
    OverQuota(usize),
}

/// A place in the quota of a peer.
pub(super) struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(open: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let taken = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1));
        taken.is_ok().then(|| Self(open.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Peer {
    connections: Vec<(ConnectionId, Path)>,
    open: Arc<AtomicUsize>,
    /// Streams that may be open with this peer.
    limit: usize,
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Path {
    Direct,
    Relayed,
}

/// Opens and accepts the streams of one protocol.
pub(super) struct Streams {
    protocol: StreamProtocol,
    per_peer: usize,
    peers: HashMap<PeerId, Peer>,
    opening: HashMap<OpenId, (ConnectionId, Permit)>,
    next: u64,
    queue: VecDeque<ToSwarm<StreamsEvent, ToHandler>>,
    waker: Option<Waker>,
}

impl Streams {
    /// Builds the behaviour; at most `per_peer` streams are open with one peer.
    pub(super) fn new(protocol: StreamProtocol, per_peer: usize) -> Self {
        Self {
            protocol,
            per_peer,
            peers: HashMap::new(),
            opening: HashMap::new(),
            next: 0,
            queue: VecDeque::new(),
            waker: None,
        }
    }

    /// Begins to open a stream on the best connection of the peer: a direct one before a relayed
    /// one, an older one before a newer one.
    pub(super) fn open(&mut self, peer: PeerId) -> Result<OpenId, OpenError> {
        let entry = self.peers.get(&peer).ok_or(OpenError::NotConnected)?;
        let &(connection, _) =
            entry.connections.iter().min_by_key(|(id, path)| (*path, *id)).ok_or(OpenError::NotConnected)?;
        let permit = Permit::take(&entry.open, entry.limit).ok_or(OpenError::OverQuota(entry.limit))?;
        let open = OpenId(self.next);
        self.next += 1;
        self.opening.insert(open, (connection, permit));
        self.push(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: ToHandler::Open(open),
        });
        Ok(open)
    }

    /// Forgets a request to open; the stream is closed as soon as it opens.
    pub(super) fn abandon(&mut self, open: OpenId) {
        self.opening.remove(&open);
    }

    /// Keeps the connections to a peer up although nothing uses them, or lets them go.
    pub(super) fn keep_warm(&mut self, peer: PeerId, on: bool) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if entry.keep == on {
            return;
        }
        entry.keep = on;
        let connections: Vec<_> = entry.connections.iter().map(|(id, _)| *id).collect();
        for connection in connections {
            self.push(ToSwarm::NotifyHandler {
                peer_id: peer,
                handler: NotifyHandler::One(connection),
                event: ToHandler::Keep(on),
            });
        }
    }

    /// Lets so many streams be open with a connected peer, where that is more.
    pub(super) fn widen(&mut self, peer: &PeerId, limit: usize) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.limit = entry.limit.max(limit);
        }
    }

    /// Says whether a peer is connected without a relay.
    pub(super) fn is_direct(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|p| p.connections.iter().any(|(_, path)| *path == Path::Direct))
    }

    fn push(&mut self, action: ToSwarm<StreamsEvent, ToHandler>) {
        self.queue.push_back(action);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn connected(&mut self, id: ConnectionId, peer: PeerId, path: Path) -> Handler {
        let per_peer = self.per_peer;
        let entry = self.peers.entry(peer).or_insert_with(|| Peer {
            connections: Vec::new(),
            open: Arc::new(AtomicUsize::new(0)),
            limit: per_peer,
            keep: false,
        });
        entry.connections.push((id, path));
        // A relayed connection is never kept for its own sake: it costs a circuit of the relay.
        Handler::new(self.protocol.clone(), entry.keep && path == Path::Direct)
    }

    fn disconnected(&mut self, id: ConnectionId, peer: &PeerId) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.connections.retain(|(known, _)| *known != id);
            if entry.connections.is_empty() {
                self.peers.remove(peer);
            }
        }
        let lost: Vec<OpenId> =
            self.opening.iter().filter(|(_, (on, _))| *on == id).map(|(open, _)| *open).collect();
        for open in lost {
            self.opening.remove(&open);
            self.push(ToSwarm::GenerateEvent(StreamsEvent::OpenFailed { open }));
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = StreamsEvent;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let relayed = is_relayed(local) || is_relayed(remote);
        Ok(self.connected(id, peer, if relayed { Path::Relayed } else { Path::Direct }))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connected(id, peer, if is_relayed(addr) { Path::Relayed } else { Path::Direct }))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.disconnected(connection_id, &peer_id);
            }
            // Another behaviour may have denied the connection after this one gave its handler.
            FromSwarm::ListenFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.disconnected(failure.connection_id, &peer);
                }
            }
            FromSwarm::DialFailure(failure) => {
                if let Some(peer) = failure.peer_id {
                    self.disconnected(failure.connection_id, &peer);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {
            FromHandler::Inbound(stream) => {
                let Some(entry) = self.peers.get(&peer) else { return };
                let event = match Permit::take(&entry.open, entry.limit) {
                    Some(permit) => {
                        StreamsEvent::Inbound { peer, stream: CallStream { stream, _permit: permit } }
                    }
                    None => StreamsEvent::OverQuota,
                };
                self.push(ToSwarm::GenerateEvent(event));
            }
            FromHandler::Opened(open, stream) => {
                // Gone when it was abandoned meanwhile: the stream is dropped and thereby reset.
                if let Some((_, permit)) = self.opening.remove(&open) {
                    let stream = CallStream { stream, _permit: permit };
                    self.push(ToSwarm::GenerateEvent(StreamsEvent::Opened { open, stream }));
                }
            }
            FromHandler::Failed(open) => {
                if self.opening.remove(&open).is_some() {
                    self.push(ToSwarm::GenerateEvent(StreamsEvent::OpenFailed { open }));
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(action) = self.queue.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What the behaviour tells the handler of a connection.
#[derive(Debug)]
pub(super) enum ToHandler {
    Open(OpenId),
    Keep(bool),
}

/// What the handler of a connection tells the behaviour.
#[derive(Debug)]
pub(super) enum FromHandler {
    Inbound(Stream),
    Opened(OpenId, Stream),
    Failed(OpenId),
}

/// The part of [`Streams`] that lives beside one connection.
pub(super) struct Handler {
    protocol: StreamProtocol,
    keep: bool,
    wanted: VecDeque<OpenId>,
    events: VecDeque<FromHandler>,
}

impl Handler {
    fn new(protocol: StreamProtocol, keep: bool) -> Self {
        Self { protocol, keep, wanted: VecDeque::new(), events: VecDeque::new() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = ToHandler;
    type ToBehaviour = FromHandler;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = OpenId;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol, ()> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ()).with_timeout(OPEN_TIMEOUT)
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, OpenId, Self::ToBehaviour>> {
        // The connection polls its handlers again after each event it hands them: no waker needed.
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(open) = self.wanted.pop_front() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), open);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: protocol.with_timeout(OPEN_TIMEOUT),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: ToHandler) {
        match event {
            ToHandler::Open(open) => self.wanted.push_back(open),
            ToHandler::Keep(on) => self.keep = on,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), OpenId>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                self.events.push_back(FromHandler::Inbound(protocol));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.events.push_back(FromHandler::Opened(info, protocol));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, .. }) => {
                self.events.push_back(FromHandler::Failed(info));
            }
            _ => {}
        }
    }
}
