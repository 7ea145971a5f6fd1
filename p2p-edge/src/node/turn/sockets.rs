//! The thread that owns every socket of the TURN server: one epoll, no lock and no channel on the way
//! of a packet.
//!
//! Readiness is asked for by level, so that a relayed address, which has a packet each 20 ms, costs one
//! `recvfrom` and one `sendto` for it and no third call that finds nothing.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustls::{ServerConfig, ServerConnection};

use super::Shared;
use super::connection::{Connection, READ, Readable};
use crate::node::task::unix_now;
use crate::routing::subscriber;
use crate::turn::{
    AllocationId, Client, Frame, HEADROOM, MAX_PACKET, Path, Reaction, Server, TAILROOM, TurnLimits,
    TurnRefusal, first_frame,
};

/// Events taken from the system at once.
const EVENTS: usize = 256;
/// Datagrams or connections taken from one socket before the others have their turn.
const TURN: usize = 64;
/// Ports that are tried for one allocation.
const TRIES: u32 = 64;
/// How often connections are looked through for idle ones.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a listener rests after the system has refused it a connection.
const REST: Duration = Duration::from_secs(1);

/// What an event is about, in the upper 8 bits of its number.
const WAKE: u64 = 0;
const DATAGRAMS: u64 = 1 << 56;
const LISTENER: u64 = 2 << 56;
const RELAY: u64 = 3 << 56;
const CONNECTION: u64 = 4 << 56;
const KIND: u64 = 0xff << 56;

/// Where relayed addresses are opened.
pub(super) struct Ports {
    /// Per family: the address of this machine, and as what others know it.
    addresses: Vec<(IpAddr, IpAddr)>,
    range: RangeInclusive<u16>,
}

impl Ports {
    pub(super) fn new(addresses: Vec<(IpAddr, IpAddr)>, range: RangeInclusive<u16>) -> Self {
        Self { addresses, range }
    }

    /// Says whether there are addresses of IPv4, and of IPv6.
    pub(super) fn families(&self) -> (bool, bool) {
        let has = |v4: bool| self.addresses.iter().any(|(ip, _)| ip.is_ipv4() == v4);
        (has(true), has(false))
    }

    /// Opens a socket on a port drawn at random, and returns what peers know it as.
    fn open(&self, v6: bool, even: bool) -> Option<(UdpSocket, SocketAddr)> {
        let (ip, announced) = *self.addresses.iter().find(|(ip, _)| ip.is_ipv6() == v6)?;
        let (first, last) = (u32::from(*self.range.start()), u32::from(*self.range.end()));
        let count = (last + 1).checked_sub(first)?;
        let mut drawn = [0; 4];
        getrandom::fill(&mut drawn).ok()?;
        let begin = u32::from_ne_bytes(drawn) % count;
        for step in 0..TRIES.min(count) {
            let port = u16::try_from(first + (begin + step) % count).ok()?;
            if even && port % 2 == 1 {
                continue;
            }
            let Ok(socket) = UdpSocket::bind((ip, port)) else { continue };
            socket.set_nonblocking(true).ok()?;
            return Some((socket, SocketAddr::new(announced, port)));
        }
        None
    }
}

/// A socket on which many clients send datagrams.
struct Datagrams {
    socket: UdpSocket,
    /// How many are read in the next turn: as many as there were, so that few calls find nothing.
    expected: usize,
}

struct Listener {
    socket: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    /// Until when it is not asked, where the system has refused a connection.
    rests_until: Option<Instant>,
}

/// Everything of the thread.
pub(super) struct Sockets {
    server: Server,
    ports: Ports,
    epoll: OwnedFd,
    datagrams: Vec<Datagrams>,
    listeners: Vec<Listener>,
    relays: Vec<Option<(AllocationId, UdpSocket)>>,
    connections: HashMap<u64, Connection>,
    by_address: HashMap<IpAddr, usize>,
    next_connection: u64,
    limits: TurnLimits,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    out: Vec<u8>,
    sweep: Option<Instant>,
}

impl Sockets {
    pub(super) fn new(
        server: Server,
        ports: Ports,
        datagrams: Vec<UdpSocket>,
        listeners: Vec<(TcpListener, Option<Arc<ServerConfig>>)>,
        limits: TurnLimits,
        shared: Arc<Shared>,
    ) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch = |fd: &dyn AsFd, number| {
            epoll::add(&epoll, fd.as_fd(), EventData::new_u64(number), EventFlags::IN)
        };
        watch(&shared.wake, WAKE)?;
        for (at, socket) in datagrams.iter().enumerate() {
            watch(socket, DATAGRAMS | at as u64)?;
        }
        for (at, (socket, _)) in listeners.iter().enumerate() {
            watch(socket, LISTENER | at as u64)?;
        }
        let datagrams = datagrams.into_iter().map(|socket| Datagrams { socket, expected: 1 }).collect();
        let listener = |(socket, tls)| Listener { socket, tls, rests_until: None };
        Ok(Self {
            server,
            ports,
            datagrams,
            listeners: listeners.into_iter().map(listener).collect(),
            relays: Vec::new(),
            connections: HashMap::new(),
            by_address: HashMap::new(),
            next_connection: 0,
            limits,
            shared,
            buffer: vec![0; HEADROOM + READ + TAILROOM],
            out: Vec::with_capacity(1024),
            sweep: None,
            epoll,
        })
    }

    /// Serves until the node ends.
    pub(super) fn run(mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        loop {
            let now = Instant::now();
            let wait = self.due().map(|due| due.saturating_duration_since(now));
            let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "TURN has stopped");
                    return;
                }
            }
            let (now, unix) = (Instant::now(), unix_now());
            for event in &events {
                let number = event.data.u64();
                let at = (number & !KIND) as usize;
                match number & KIND {
                    WAKE => {
                        if self.on_wake() {
                            return;
                        }
                    }
                    DATAGRAMS => self.on_datagrams(now, unix, at),
                    LISTENER => self.on_listener(now, at),
                    RELAY => self.on_relay(now, at),
                    _ => self.on_connection(now, unix, number & !KIND, event.flags),
                }
            }
            self.on_timeout(now);
            self.close_ended();
            *self.shared.counted.lock().unwrap_or_else(PoisonError::into_inner) =
                (self.server.counts().clone(), self.connections.len());
        }
    }

    fn due(&self) -> Option<Instant> {
        let rests = self.listeners.iter().filter_map(|listener| listener.rests_until);
        rests.chain(self.server.poll_timeout()).chain(self.sweep).min()
    }

    /// The node has told something. Returns whether it is the end.
    fn on_wake(&mut self) -> bool {
        let mut count = [0; 8];
        // Errs when somebody has read it before.
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        let told = std::mem::take(&mut *self.shared.told.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(revocations) = told.revocations {
            self.server.revoke(revocations);
        }
        told.stop
    }

    fn on_timeout(&mut self, now: Instant) {
        self.server.handle_timeout(now);
        for (at, listener) in self.listeners.iter_mut().enumerate() {
            if listener.rests_until.is_some_and(|until| until <= now) {
                listener.rests_until = None;
                let data = EventData::new_u64(LISTENER | at as u64);
                // Errs where it is watched already.
                let _ = epoll::add(&self.epoll, &listener.socket, data, EventFlags::IN);
            }
        }
        if self.sweep.is_none_or(|due| due > now) {
            return;
        }
        let has = |connection: &Connection| self.server.has_allocation(&connection.client);
        let idle: Vec<u64> = (self.connections.iter())
            .filter(|(_, connection)| connection.is_idle(now, has(connection)))
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.server.refuse(TurnRefusal::ConnectionTimeout);
            self.close(id);
        }
        self.sweep = (!self.connections.is_empty()).then_some(now + SWEEP);
    }

    /// Closes the sockets of allocations that have ended.
    fn close_ended(&mut self) {
        while let Some(id) = self.server.poll_closed() {
            if let Some(slot) = self.relays.get_mut(id.index as usize)
                && slot.as_ref().is_some_and(|(known, _)| *known == id)
            {
                *slot = None;
            }
        }
    }

    fn on_datagrams(&mut self, now: Instant, unix: u64, at: usize) {
        let Some(listener) = self.datagrams.get(at) else { return };
        let (expected, mut read) = (listener.expected, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        while read < expected {
            let Some(Datagrams { socket, .. }) = self.datagrams.get(at) else { break };
            let (length, address) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // What the system tells of a datagram that was sent before, e.g. an ICMP error.
                Err(_) => {
                    read += 1;
                    continue;
                }
            };
            read += 1;
            let client = Client { address, path: Path::Datagram(at as u16) };
            if length > MAX_PACKET {
                self.server.refuse(TurnRefusal::Oversize);
            } else if let Some(packet) = buffer.get(..length) {
                self.on_packet(now, unix, client, packet);
            }
        }
        self.buffer = buffer;
        if let Some(listener) = self.datagrams.get_mut(at) {
            listener.expected = if read == expected { (read * 2).min(TURN) } else { read.max(1) };
        }
    }

    /// Takes a packet of a client.
    fn on_packet(&mut self, now: Instant, unix: u64, client: Client, packet: &[u8]) {
        let mut out = std::mem::take(&mut self.out);
        match self.server.handle_client(now, unix, client, packet, &mut out) {
            Reaction::Nothing => {}
            Reaction::Reply => self.send(client, &out),
            Reaction::Relay { id, to, data } => {
                if let (Some(data), Some((_, socket))) =
                    (packet.get(data), self.relays.get(id.index as usize).and_then(Option::as_ref))
                {
                    // What the system does not take is lost, as on any path.
                    let _ = socket.send_to(data, to);
                }
            }
            Reaction::Open { v6, even } => {
                // Before the number of one that has ended is used again.
                self.close_ended();
                let opened = self.ports.open(v6, even);
                let relayed = opened.as_ref().map(|(_, relayed)| *relayed);
                if let (Some(id), Some((socket, _))) = (self.server.opened(now, relayed, &mut out), opened) {
                    self.watch_relay(id, socket);
                }
                self.send(client, &out);
            }
        }
        self.out = out;
    }

    fn watch_relay(&mut self, id: AllocationId, socket: UdpSocket) {
        let data = EventData::new_u64(RELAY | u64::from(id.index));
        if let Err(error) = epoll::add(&self.epoll, &socket, data, EventFlags::IN) {
            tracing::warn!(%error, "a relayed address is not watched");
        }
        let at = id.index as usize;
        if self.relays.len() <= at {
            self.relays.resize_with(at + 1, || None);
        }
        if let Some(slot) = self.relays.get_mut(at) {
            *slot = Some((id, socket));
        }
    }

    /// Takes a packet that a peer has sent to a relayed address.
    fn on_relay(&mut self, now: Instant, at: usize) {
        let Some(Some((id, socket))) = self.relays.get(at) else { return };
        let room = HEADROOM..HEADROOM + MAX_PACKET;
        let Some(Ok((length, from))) = self.buffer.get_mut(room).map(|room| socket.recv_from(room)) else {
            return;
        };
        let data = HEADROOM..HEADROOM + length;
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some((client, range)) = self.server.handle_peer(now, *id, from, &mut buffer, data)
            && let Some(bytes) = buffer.get(range)
        {
            self.send(client, bytes);
        }
        self.buffer = buffer;
    }

    /// Sends a packet to a client.
    fn send(&mut self, client: Client, bytes: &[u8]) {
        match client.path {
            Path::Datagram(at) => {
                if let Some(listener) = self.datagrams.get(usize::from(at)) {
                    // What the system does not take is lost, as on any path.
                    let _ = listener.socket.send_to(bytes, client.address);
                }
            }
            Path::Stream(id) => {
                let Some(connection) = self.connections.get_mut(&id) else { return };
                match connection.send(bytes) {
                    Ok(true) => self.watch_connection(id),
                    Ok(false) => self.server.refuse(TurnRefusal::ClientSlow),
                    // Reading tells that it is gone.
                    Err(_) => {}
                }
            }
        }
    }

    fn on_listener(&mut self, now: Instant, at: usize) {
        for _ in 0..TURN {
            let Some(listener) = self.listeners.get_mut(at) else { return };
            match listener.socket.accept() {
                Ok((socket, address)) => {
                    let tls = listener.tls.clone();
                    self.accept(now, socket, address, tls);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    // No more descriptors, say: asking again at once finds the same.
                    tracing::warn!(%error, "no connection is accepted for TURN");
                    let _ = epoll::delete(&self.epoll, &listener.socket);
                    listener.rests_until = Some(now + REST);
                    return;
                }
            }
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        socket: TcpStream,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) {
        let source = subscriber(address.ip());
        let count = self.by_address.get(&source).copied().unwrap_or_default();
        if self.connections.len() >= self.limits.connections || count >= self.limits.connections_per_address {
            self.server.refuse(TurnRefusal::ConnectionQuota);
            return;
        }
        let tls = match tls.map(ServerConnection::new).transpose() {
            Ok(tls) => tls,
            Err(error) => {
                tracing::warn!(%error, "TLS of TURN");
                return;
            }
        };
        let id = self.next_connection;
        self.next_connection += 1;
        let watched = (socket.set_nonblocking(true)).and_then(|()| socket.set_nodelay(true)).and_then(|()| {
            let data = EventData::new_u64(CONNECTION | id);
            Ok(epoll::add(&self.epoll, &socket, data, EventFlags::IN | EventFlags::RDHUP)?)
        });
        if watched.is_err() {
            return;
        }
        let client = Client { address, path: Path::Stream(id) };
        self.connections.insert(id, Connection::new(socket, client, tls, now));
        *self.by_address.entry(source).or_default() += 1;
        self.sweep.get_or_insert(now + SWEEP);
    }

    fn on_connection(&mut self, now: Instant, unix: u64, id: u64, flags: EventFlags) {
        if flags.contains(EventFlags::OUT)
            && let Some(connection) = self.connections.get_mut(&id)
        {
            if connection.flush().is_err() {
                return self.close(id);
            }
            self.watch_connection(id);
        }
        if !flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let readable = connection.read(&mut self.buffer);
        if readable == Readable::Drained {
            return;
        }
        let is_whole = self.on_input(now, unix, id);
        if !is_whole {
            self.server.refuse(TurnRefusal::ConnectionBroken);
        }
        if readable == Readable::Closed || !is_whole {
            return self.close(id);
        }
        // The handshake of TLS has something to say too.
        if let Some(connection) = self.connections.get_mut(&id) {
            if connection.flush().is_err() {
                return self.close(id);
            }
            self.watch_connection(id);
        }
    }

    /// Takes every whole packet of a connection's input. Returns whether what is left can be the
    /// beginning of one.
    fn on_input(&mut self, now: Instant, unix: u64, id: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return true };
        let (client, input) = (connection.client, std::mem::take(&mut connection.input));
        let (mut used, mut is_whole) = (0, true);
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match first_frame(rest) {
                Frame::Whole { length, taken } => {
                    self.on_packet(now, unix, client, rest.get(..length).unwrap_or_default());
                    used += taken;
                }
                Frame::Partial => break,
                Frame::Broken => {
                    is_whole = false;
                    break;
                }
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.input = input;
            connection.consume(used);
            if used > 0 {
                connection.hear(now);
            }
        }
        is_whole
    }

    /// Watches a connection for room while something waits to be written, and not otherwise.
    fn watch_connection(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let blocked = connection.wants_write();
        if blocked != connection.is_blocked {
            connection.is_blocked = blocked;
            let mut flags = EventFlags::IN | EventFlags::RDHUP;
            flags.set(EventFlags::OUT, blocked);
            let data = EventData::new_u64(CONNECTION | id);
            // Errs when the connection is gone, which reading tells.
            let _ = epoll::modify(&self.epoll, &connection.socket, data, flags);
        }
    }

    fn close(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else { return };
        self.server.handle_gone(&connection.client);
        let source = subscriber(connection.client.address.ip());
        if let Some(count) = self.by_address.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&source);
            }
        }
    }
}
