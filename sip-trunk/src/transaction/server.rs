//! Server transactions (RFC 3261 17.2, RFC 6026 7.1), INVITE and others.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::timer::{Alarm, Due};
use crate::endpoint::config::{Limits, Timers};
use crate::endpoint::io::{Io, Path};
use crate::wire::message::{Method, Request};
use crate::wire::write::ReplyHead;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Trying or Proceeding.
    Proceeding,
    /// A final response went out; for INVITE a non-2xx one that waits for its ACK.
    Completed,
    /// The ACK of a non-2xx came.
    Confirmed,
    /// A 2xx to INVITE went out: its retransmissions are the core's (RFC 6026).
    Accepted,
}

#[derive(Debug)]
struct Server {
    key: Box<[u8]>,
    source: IpAddr,
    invite: bool,
    state: State,
    path: Path,
    head: Option<Box<ReplyHead>>,
    last: Bytes,
    /// The call that an INVITE made or belongs to.
    call: Option<u64>,
    fingerprint: Option<u64>,
    interval: Duration,
    retransmit: Option<Instant>,
    expires: Option<Instant>,
    alarm: Alarm,
}

/// How a received request relates to the transactions there are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// It belongs to none.
    New,
    /// It was a retransmission, or the ACK of a non-2xx, and is dealt with.
    Absorbed,
    /// An ACK of a 2xx that came with the branch of its INVITE: the dialog's.
    AckOfSuccess,
}

/// The server transactions.
#[derive(Debug)]
pub(crate) struct Servers {
    /// Boxed: under a load of thousands of calls/s the table grows to hundreds of thousands, and to move them all while
    /// it does takes longer than any of them may wait.
    table: HashMap<u64, Box<Server>>,
    index: HashMap<Box<[u8]>, u64>,
    /// Fingerprints of the INVITEs under way, to tell merged requests.
    fingerprints: HashSet<u64>,
    per_source: HashMap<IpAddr, usize>,
    next: u64,
    timers: Timers,
    limits: Limits,
}

impl Servers {
    pub(crate) fn new(timers: Timers, limits: Limits) -> Self {
        Self {
            table: HashMap::new(),
            index: HashMap::new(),
            fingerprints: HashSet::new(),
            per_source: HashMap::new(),
            next: 0,
            timers,
            limits,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Finds the transaction of a request and lets it deal with a repetition.
    pub(crate) fn on_request(&mut self, io: &mut Io, request: &Request) -> Match {
        let Some(&id) = self.index.get(&key_of(request, method_key(request.method))) else {
            return Match::New;
        };
        let Some(server) = self.table.get_mut(&id) else { return Match::New };
        if request.method == Method::Ack {
            return match server.state {
                State::Accepted => Match::AckOfSuccess,
                State::Completed => {
                    server.state = State::Confirmed;
                    server.retransmit = None;
                    server.last = Bytes::new();
                    server.head = None;
                    // Timer I.
                    let keep = if server.path.reliable() { Duration::ZERO } else { self.timers.t4 };
                    server.expires = Some(io.now + keep);
                    server.arm(io, id);
                    Match::Absorbed
                }
                _ => Match::Absorbed,
            };
        }
        io.counters.duplicates += 1;
        // In Accepted the core repeats the 2xx; a repeated INVITE is absorbed (RFC 6026 7.1).
        if matches!(server.state, State::Proceeding | State::Completed) && !server.last.is_empty() {
            io.counters.retransmitted += 1;
            io.send(&mut server.path, server.last.clone());
        }
        Match::Absorbed
    }

    /// Says whether an INVITE that matches no transaction came by another way already
    /// (RFC 3261 8.2.2.2): the same request, while the first is under way.
    pub(crate) fn is_merged(&self, request: &Request) -> bool {
        self.fingerprints.contains(&fingerprint(request))
    }

    /// Says whether another transaction fits. Those within a call get a reserve, so that calls can
    /// be ended under overload.
    pub(crate) fn room(&self, source: IpAddr, within_call: bool) -> bool {
        let (share, of) = if within_call { (5, 4) } else { (1, 1) };
        let from_source = self.per_source.get(&source).copied().unwrap_or(0);
        self.table.len() * of < self.limits.transactions * share
            && from_source * of < self.limits.transactions_per_source * share
    }

    /// Makes a transaction.
    pub(crate) fn start(
        &mut self,
        request: &Request,
        source: SocketAddr,
        path: Path,
        call: Option<u64>,
    ) -> u64 {
        self.next += 1;
        let id = self.next;
        let key = key_of(request, method_key(request.method));
        let begins = request.method == Method::Invite && request.head.to.tag.is_none();
        let fingerprint = begins.then(|| fingerprint(request));
        self.fingerprints.extend(fingerprint);
        let server = Server {
            key: key.clone(),
            source: source.ip(),
            invite: request.method == Method::Invite,
            state: State::Proceeding,
            path,
            head: Some(Box::new(ReplyHead::of(request, source))),
            last: Bytes::new(),
            call,
            fingerprint,
            interval: self.timers.t1,
            retransmit: None,
            expires: None,
            alarm: Alarm::default(),
        };
        self.table.insert(id, Box::new(server));
        self.index.insert(key, id);
        *self.per_source.entry(source.ip()).or_default() += 1;
        id
    }

    /// Returns what responses of a transaction begin with, while it has not ended.
    pub(crate) fn head(&self, id: u64) -> Option<&ReplyHead> {
        self.table.get(&id).and_then(|s| s.head.as_deref())
    }

    /// Returns the way responses go.
    pub(crate) fn path(&self, id: u64) -> Option<Path> {
        self.table.get(&id).map(|s| s.path)
    }

    /// Finds the call whose INVITE a CANCEL means, and the INVITE's transaction (RFC 3261 9.2).
    pub(crate) fn cancelled(&self, cancel: &Request) -> Option<(u64, Option<u64>)> {
        let id = *self.index.get(&key_of(cancel, "INVITE"))?;
        self.table.get(&id).map(|server| (id, server.call))
    }

    /// Sends a response.
    pub(crate) fn respond(&mut self, io: &mut Io, id: u64, status: u16, bytes: Bytes) {
        let Some(server) = self.table.get_mut(&id) else { return };
        if server.state != State::Proceeding {
            return;
        }
        io.count_response(status);
        io.send(&mut server.path, bytes.clone());
        let reliable = server.path.reliable();
        let give_up = io.now + self.timers.give_up();
        match (status, server.invite) {
            (..200, _) => server.last = bytes,
            (200..300, true) => {
                // Timer L.
                server.state = State::Accepted;
                server.expires = Some(give_up);
                server.last = Bytes::new();
                server.head = None;
            }
            (_, true) => {
                // Timers G and H.
                server.state = State::Completed;
                server.retransmit = (!reliable).then(|| io.now + server.interval);
                server.expires = Some(give_up);
                server.last = bytes;
                server.head = None;
            }
            (_, false) => {
                // Timer J.
                server.state = State::Completed;
                server.expires = Some(if reliable { io.now } else { give_up });
                server.last = bytes;
                server.head = None;
            }
        }
        server.arm(io, id);
    }

    /// Sends the last provisional response again, unless it was a 100.
    pub(crate) fn repeat_provisional(&mut self, io: &mut Io, id: u64) {
        if let Some(server) = self.table.get_mut(&id)
            && server.state == State::Proceeding
            && !server.last.is_empty()
            && !server.last.starts_with(b"SIP/2.0 100")
        {
            io.counters.retransmitted += 1;
            io.send(&mut server.path, server.last.clone());
        }
    }

    /// A deadline surfaced.
    pub(crate) fn on_timer(&mut self, io: &mut Io, id: u64, at: Instant) {
        let Some(server) = self.table.get_mut(&id) else { return };
        if !server.alarm.surfaced(&mut io.timers, Due::Server(id), at, io.now) {
            return;
        }
        if server.expires.is_some_and(|expires| expires <= io.now) {
            self.remove(id);
            return;
        }
        if server.retransmit.is_some_and(|due| due <= io.now) {
            io.counters.retransmitted += 1;
            io.send(&mut server.path, server.last.clone());
            server.interval = (server.interval * 2).min(self.timers.t2);
            server.retransmit = Some(io.now + server.interval);
        }
        server.arm(io, id);
    }

    fn remove(&mut self, id: u64) {
        let Some(server) = self.table.remove(&id) else { return };
        self.index.remove(&server.key);
        if let Some(fingerprint) = server.fingerprint {
            self.fingerprints.remove(&fingerprint);
        }
        if let Some(count) = self.per_source.get_mut(&server.source) {
            *count -= 1;
            if *count == 0 {
                self.per_source.remove(&server.source);
            }
        }
    }
}

impl Server {
    fn arm(&mut self, io: &mut Io, id: u64) {
        let at = match (self.retransmit, self.expires) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.alarm.set(&mut io.timers, Due::Server(id), at);
    }
}

/// What RFC 3261 8.2.2.2 compares, and the request URI: a proxy that sends one call to several
/// numbers here means several calls.
fn fingerprint(request: &Request) -> u64 {
    let head = &request.head;
    let mut hasher = DefaultHasher::new();
    (&request.uri, &head.call_id, &head.from.tag, head.cseq).hash(&mut hasher);
    hasher.finish()
}

/// The method in a transaction's key: an ACK matches its INVITE (RFC 3261 17.2.3).
fn method_key(method: Method) -> &'static str {
    match method {
        Method::Ack => "INVITE",
        other => other.as_str(),
    }
}

/// The key of RFC 3261 17.2.3: branch, sent-by and method; without the cookie, what RFC 2543 has.
fn key_of(request: &Request, method: &str) -> Box<[u8]> {
    let head = &request.head;
    let via = &head.via;
    let mut key = Vec::with_capacity(96);
    let mut part = |bytes: &[u8]| {
        key.extend_from_slice(bytes);
        key.push(0);
    };
    part(method.as_bytes());
    part(&via.host.to_ascii_lowercase());
    part(&via.port.unwrap_or(5060).to_be_bytes());
    part(&via.branch);
    if !via.cookie {
        part(request.uri.as_bytes());
        part(head.from.tag.as_deref().unwrap_or_default().as_bytes());
        part(head.call_id.as_bytes());
        part(&head.cseq.to_be_bytes());
    }
    key.into_boxed_slice()
}
