//! Connections: reuse, opening, framing, keep-alive, and the end of those that are idle.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{ConnectionId, Transmit, Transport};
use super::config::{Limits, Timers};
use super::counters::Counters;
use crate::transaction::timer::{Alarm, Due, TimerQueue};
use crate::wire::framer::{Framed, Framer};
use crate::wire::tolerance::{Refusal, Tolerance};

/// How long the answer to a ping may take (RFC 5626 4.4.1).
const PONG_WAIT: Duration = Duration::from_secs(10);

/// A far address with the transport by which it is reached: what goes by TLS must not go by TCP.
pub(crate) type Far = (Transport, SocketAddr);

/// A connection that opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) inbound: bool,
    pub(crate) transport: Transport,
    /// Whose certificate the far side showed, where it came to us.
    pub(crate) trunk: Option<usize>,
    /// The far side showed a certificate that was verified.
    pub(crate) certified: bool,
}

#[derive(Debug)]
struct Connection {
    remote: SocketAddr,
    local: SocketAddr,
    transport: Transport,
    trunk: Option<usize>,
    certified: bool,
    /// Where its far side is reached by it too (RFC 5923).
    alias: Option<SocketAddr>,
    inbound: bool,
    state: State,
    last_traffic: Instant,
    /// When bytes last came; at first, when it was made.
    last_heard: Instant,
    heard: bool,
    /// When the last ping went out.
    pinged: Option<Instant>,
    /// The far side answers pings; many do not.
    ponged: bool,
    /// A registration needs it: it does not end for being idle.
    kept: bool,
    /// How often it is pinged, if not as often as others.
    every: Option<Duration>,
    alarm: Alarm,
}

#[derive(Debug)]
enum State {
    /// Messages wait for it to open.
    Opening(VecDeque<Bytes>),
    Open(Box<Framer>),
    /// Open, and messages come whole: a WebSocket.
    Web,
}

/// The connections, by id and by far address.
#[derive(Debug)]
pub(crate) struct Pool {
    connections: HashMap<u64, Connection>,
    by_remote: HashMap<Far, u64>,
    per_source: HashMap<IpAddr, usize>,
    next: u64,
    /// Connections that registrations needed and that are gone.
    lost: VecDeque<ConnectionId>,
    limits: Limits,
    timers: Timers,
}

impl Pool {
    pub(crate) fn new(limits: Limits, timers: Timers) -> Self {
        Self {
            connections: HashMap::new(),
            by_remote: HashMap::new(),
            per_source: HashMap::new(),
            next: 0,
            lost: VecDeque::new(),
            limits,
            timers,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Says whether nothing came over a connection after `at`.
    pub(crate) fn silent_since(&self, id: ConnectionId, at: Instant) -> bool {
        self.connections.get(&id.0).is_some_and(|c| c.last_heard <= at)
    }

    /// Returns the transport of a connection, our own address of it and the far one.
    pub(crate) fn addresses(&self, id: ConnectionId) -> Option<(Transport, SocketAddr, SocketAddr)> {
        self.connections.get(&id.0).map(|c| (c.transport, c.local, c.remote))
    }

    /// Returns the trunk whose certificate was shown on a connection.
    pub(crate) fn trunk(&self, id: ConnectionId) -> Option<usize> {
        self.connections.get(&id.0)?.trunk
    }

    /// Lets requests to the port a Via names go over a connection that the far side opened
    /// (RFC 5923 8.2): over TLS, and only where a certificate proved who that is.
    pub(crate) fn alias(&mut self, id: ConnectionId, port: u16) {
        let Some(connection) = self.connections.get_mut(&id.0) else { return };
        if connection.transport != Transport::Tls || !connection.inbound || !connection.certified {
            return;
        }
        let at = SocketAddr::new(connection.remote.ip(), port);
        if connection.alias.is_none() && port != 0 && !self.by_remote.contains_key(&(Transport::Tls, at)) {
            connection.alias = Some(at);
            self.by_remote.insert((Transport::Tls, at), id.0);
        }
    }

    /// Sends on the wanted connection, another one to the same address, or a new one. Returns which;
    /// `None` if the bounds forbid it.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn send(
        &mut self,
        now: Instant,
        wanted: Option<ConnectionId>,
        far: Far,
        bytes: Bytes,
        timers: &mut TimerQueue,
        transmits: &mut VecDeque<Transmit>,
        counters: &mut Counters,
    ) -> Option<ConnectionId> {
        let known = wanted.map(|c| c.0).filter(|id| self.connections.contains_key(id));
        let id = match known.or_else(|| self.by_remote.get(&far).copied()) {
            Some(id) => id,
            None => {
                let (transport, remote) = far;
                // RFC 7118 5.2.2: a WebSocket client is behind what it opened, and nowhere else.
                if transport.is_web() {
                    counters.refuse("no_connection");
                    return None;
                }
                if self.connections.len() >= self.limits.connections {
                    counters.refuse("connections");
                    return None;
                }
                self.next += 1;
                let id = self.next;
                let state = State::Opening(VecDeque::new());
                let (inbound, trunk, certified) = (false, None, false);
                let opened = Opened { local: remote, remote, inbound, transport, trunk, certified };
                self.insert(now, id, opened, state, timers);
                let connection = ConnectionId(id);
                transmits.push_back(Transmit::Connect { connection, transport, remote, trunk: None });
                id
            }
        };
        let connection = self.connections.get_mut(&id)?;
        match &mut connection.state {
            State::Open(_) | State::Web => {
                connection.last_traffic = now;
                transmits.push_back(Transmit::Stream { connection: ConnectionId(id), bytes });
            }
            State::Opening(queue) if queue.len() < self.limits.queued_per_connection => {
                queue.push_back(bytes)
            }
            State::Opening(_) => {
                counters.refuse("connection_queue");
                return None;
            }
        }
        Some(ConnectionId(id))
    }

    fn insert(&mut self, now: Instant, id: u64, opened: Opened, state: State, timers: &mut TimerQueue) {
        let Opened { local, remote, inbound, transport, trunk, certified } = opened;
        let mut alarm = Alarm::default();
        let idle = self.timers.connection_idle.min(self.timers.keep_alive);
        let wait = if inbound { self.timers.first_message } else { idle };
        alarm.set(timers, Due::Connection(id), Some(now + wait));
        let (last_traffic, last_heard, heard, pinged, ponged) = (now, now, false, None, false);
        let connection = Connection {
            remote,
            local,
            transport,
            trunk,
            certified,
            alias: None,
            inbound,
            state,
            last_traffic,
            last_heard,
            heard,
            pinged,
            ponged,
            kept: false,
            every: None,
            alarm,
        };
        self.connections.insert(id, connection);
        // The latest connection to an address serves what is sent there.
        self.by_remote.insert((transport, remote), id);
        *self.per_source.entry(remote.ip()).or_default() += 1;
    }

    /// Takes note that a connection opened. False if it must be closed.
    pub(crate) fn opened(
        &mut self,
        now: Instant,
        id: ConnectionId,
        opened: Opened,
        tolerance: Tolerance,
        timers: &mut TimerQueue,
        transmits: &mut VecDeque<Transmit>,
    ) -> bool {
        let remote = opened.remote;
        let state = match opened.transport.is_web() {
            true => State::Web,
            false => State::Open(Box::new(Framer::new(self.limits.message, tolerance))),
        };
        if opened.inbound {
            let full = self.connections.len() >= self.limits.connections
                || self
                    .per_source
                    .get(&remote.ip())
                    .is_some_and(|&n| n >= self.limits.connections_per_source)
                || self.connections.contains_key(&id.0);
            if !full {
                self.insert(now, id.0, opened, state, timers);
            }
            return !full;
        }
        let Some(connection) = self.connections.get_mut(&id.0) else { return false };
        connection.local = opened.local;
        (connection.trunk, connection.certified) = (opened.trunk, opened.certified);
        connection.last_traffic = now;
        if let State::Opening(queue) = std::mem::replace(&mut connection.state, state) {
            for bytes in queue {
                transmits.push_back(Transmit::Stream { connection: id, bytes });
            }
        }
        true
    }

    /// Forgets a connection. Says whether it was known.
    pub(crate) fn closed(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.remove(&id.0) else { return false };
        if connection.kept {
            self.lost.push_back(id);
        }
        for at in [Some(connection.remote), connection.alias].into_iter().flatten() {
            let far = (connection.transport, at);
            if self.by_remote.get(&far) == Some(&id.0) {
                self.by_remote.remove(&far);
            }
        }
        if let Some(count) = self.per_source.get_mut(&connection.remote.ip()) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&connection.remote.ip());
            }
        }
        true
    }

    /// Keeps a connection for a registration, with a ping as often as was agreed, or treats it as any
    /// other again. False if it is gone.
    pub(crate) fn keep(
        &mut self,
        id: ConnectionId,
        kept: bool,
        every: Option<Duration>,
        timers: &mut TimerQueue,
    ) -> bool {
        let idle = self.timers.connection_idle;
        let Some(connection) = self.connections.get_mut(&id.0) else { return false };
        (connection.kept, connection.every) = (kept, every);
        let ping = connection.keep_alive_at(every.unwrap_or(self.timers.keep_alive));
        let until = (!kept).then(|| connection.last_traffic + idle);
        let at = ping.filter(|_| !connection.inbound).into_iter().chain(until).min();
        connection.alarm.set(timers, Due::Connection(id.0), at);
        true
    }

    /// Returns a connection that a registration needed and that is gone.
    pub(crate) fn take_lost(&mut self) -> Option<ConnectionId> {
        self.lost.pop_front()
    }

    /// Takes bytes in.
    pub(crate) fn data(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id.0)
            && let State::Open(framer) = &mut connection.state
        {
            connection.last_heard = now;
            framer.push(bytes);
        }
    }

    /// Takes note of a message that came whole.
    pub(crate) fn message(&mut self, now: Instant, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id.0) {
            (connection.heard, connection.last_traffic, connection.last_heard) = (true, now, now);
        }
    }

    /// Returns the next whole message or keep-alive.
    pub(crate) fn poll(
        &mut self,
        now: Instant,
        id: ConnectionId,
    ) -> Result<Option<Framed>, (Refusal, Bytes)> {
        let Some(connection) = self.connections.get_mut(&id.0) else { return Ok(None) };
        let State::Open(framer) = &mut connection.state else { return Ok(None) };
        match framer.poll() {
            Ok(framed) => {
                match &framed {
                    Some(Framed::Pong) => connection.ponged = true,
                    Some(Framed::Message(_)) => {
                        (connection.heard, connection.last_traffic) = (true, now);
                    }
                    Some(Framed::Ping) => connection.last_traffic = now,
                    None => {}
                }
                Ok(framed)
            }
            Err(refusal) => Err((refusal, Bytes::copy_from_slice(framer.head()))),
        }
    }

    /// A deadline surfaced. Says whether the connection is to be closed: it was idle too long, or
    /// does not answer pings any more.
    pub(crate) fn on_timer(
        &mut self,
        now: Instant,
        id: u64,
        at: Instant,
        timers: &mut TimerQueue,
        transmits: &mut VecDeque<Transmit>,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        let due = Due::Connection(id);
        if !connection.alarm.surfaced(timers, due, at, now) {
            return false;
        }
        let silent = connection.inbound && !connection.heard;
        let every = connection.every.unwrap_or(self.timers.keep_alive);
        let until = (!connection.kept).then(|| connection.last_traffic + self.timers.connection_idle);
        if silent
            || until.is_some_and(|until| until <= now)
            || connection.pong_due().is_some_and(|at| at <= now)
        {
            return true;
        }
        let ping = connection.keep_alive(now, every);
        if ping {
            let bytes = Bytes::from_static(b"\r\n\r\n");
            transmits.push_back(Transmit::Stream { connection: ConnectionId(id), bytes });
        }
        let next = connection.keep_alive_at(every).filter(|_| !connection.inbound);
        let next = [until, next, connection.pong_due()].into_iter().flatten().min();
        connection.alarm.set(timers, due, next);
        false
    }
}

impl Connection {
    /// When the last ping must have been answered, if it was not and the far side does answer.
    fn pong_due(&self) -> Option<Instant> {
        let unanswered = self.pinged.filter(|&at| self.ponged && self.last_heard < at);
        unanswered.map(|at| at + PONG_WAIT)
    }

    fn keep_alive_at(&self, interval: Duration) -> Option<Instant> {
        let quiet = [Some(self.last_traffic), Some(self.last_heard), self.pinged];
        quiet.into_iter().flatten().max().map(|at| at + interval)
    }

    /// Says whether a ping is due (RFC 5626 4.4.1), and takes note of it.
    fn keep_alive(&mut self, now: Instant, interval: Duration) -> bool {
        let due = !self.inbound && self.keep_alive_at(interval).is_some_and(|at| at <= now);
        match &mut self.state {
            State::Open(framer) if due => {
                framer.expect_pong();
                self.pinged = Some(now);
                true
            }
            _ => false,
        }
    }
}
