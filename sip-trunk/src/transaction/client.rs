//! Client transactions (RFC 3261 17.1, RFC 6026 7.2), INVITE and others.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::timer::{Alarm, Due};
use crate::endpoint::ConnectionId;
use crate::endpoint::api::Transmit;
use crate::endpoint::config::{Limits, Timers};
use crate::endpoint::io::{Io, Path};
use crate::wire::message::{Method, Response, own_branch};
use crate::wire::write::{ack_of, cancel_of, credentials_of};

/// Names a client transaction: the number in its branch, and whether it is the CANCEL that shares
/// the branch of its INVITE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClientKey {
    branch: u64,
    cancel: bool,
}

/// Whom the outcome concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Nobody,
    Call(u64),
    Trunk(usize),
    Registration(usize),
    /// A contact of an account: its trunk, and its serial number there.
    Contact(usize, u64),
    /// A quality report of a trunk, and its serial number there.
    Report(usize, u64),
}

/// What happened to a client transaction.
#[derive(Debug)]
pub(crate) struct Upcall {
    pub(crate) owner: Owner,
    pub(crate) key: ClientKey,
    pub(crate) method: Method,
    pub(crate) path: Path,
    pub(crate) trunk: usize,
    /// The request belonged to a confirmed dialog.
    pub(crate) in_dialog: bool,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// A response, and where it came from.
    Response(Box<Response>, SocketAddr),
    /// No answer within 64 times T1 (Timers B, F), or no final one to a re-INVITE.
    Timeout,
    /// The transport could not deliver, or there is no room for another transaction.
    TransportError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Calling or Trying.
    Calling,
    Proceeding,
    /// A non-2xx final response came.
    Completed,
    /// A 2xx to INVITE came (RFC 6026).
    Accepted,
}

/// The ACK of a 2xx, to repeat when the 2xx is repeated (RFC 3261 13.2.2.4).
#[derive(Debug)]
struct Acknowledged {
    tag: String,
    bytes: Bytes,
    path: Path,
}

#[derive(Debug)]
struct Client {
    owner: Owner,
    method: Method,
    state: State,
    path: Path,
    trunk: usize,
    in_dialog: bool,
    sent: Instant,
    cseq: u32,
    /// The credentials of an INVITE, which the ACK of its 2xx repeats (RFC 3261 22.1).
    credentials: Bytes,
    /// What to retransmit: the request, then the ACK of a non-2xx. Freed when neither is needed.
    bytes: Bytes,
    acknowledged: Vec<Acknowledged>,
    /// A CANCEL that waits for a provisional response, with its Reason.
    cancel: Option<Option<String>>,
    interval: Duration,
    retransmit: Option<Instant>,
    expires: Option<Instant>,
    alarm: Alarm,
}

/// A request to send.
pub(crate) struct NewRequest {
    pub(crate) branch: u64,
    pub(crate) method: Method,
    pub(crate) cseq: u32,
    pub(crate) bytes: Bytes,
    pub(crate) path: Path,
    pub(crate) owner: Owner,
    pub(crate) trunk: usize,
    /// It belongs to a confirmed dialog.
    pub(crate) in_dialog: bool,
    /// Instead of 64 times T1.
    pub(crate) patience: Option<Duration>,
}

impl NewRequest {
    /// Returns the key its transaction will have.
    pub(crate) fn key(&self) -> ClientKey {
        ClientKey { branch: self.branch, cancel: self.method == Method::Cancel }
    }
}

/// The most 2xx of one INVITE that are acknowledged: each costs messages to wherever its Contact
/// says, so that their number is not left to the far side.
const MAX_ACKS: usize = 8;

/// The client transactions.
#[derive(Debug)]
pub(crate) struct Clients {
    /// Boxed, so that little is moved when the table grows.
    table: HashMap<ClientKey, Box<Client>>,
    timers: Timers,
    limits: Limits,
    pub(crate) upcalls: VecDeque<Upcall>,
}

impl Clients {
    pub(crate) fn new(timers: Timers, limits: Limits) -> Self {
        Self { table: HashMap::new(), timers, limits, upcalls: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Sends a request and keeps its transaction. A full table fails it; what ends calls finds a
    /// reserve above what new calls may take.
    pub(crate) fn start(&mut self, io: &mut Io, mut request: NewRequest) -> ClientKey {
        let key = request.key();
        if self.table.len() * 4 >= self.limits.transactions.saturating_mul(5) {
            io.counters.refuse("client_transactions");
            let NewRequest { owner, method, path, trunk, in_dialog, .. } = request;
            let outcome = Outcome::TransportError;
            self.upcalls.push_back(Upcall { owner, key, method, path, trunk, in_dialog, outcome });
            return key;
        }
        io.count_request(request.method);
        io.send(&mut request.path, request.bytes.clone());
        let reliable = request.path.reliable();
        let patience = request.patience.unwrap_or(self.timers.give_up());
        let mut client = Client {
            owner: request.owner,
            method: request.method,
            state: State::Calling,
            path: request.path,
            trunk: request.trunk,
            in_dialog: request.in_dialog,
            sent: io.now,
            cseq: request.cseq,
            credentials: Bytes::new(),
            bytes: request.bytes,
            acknowledged: Vec::new(),
            cancel: None,
            interval: self.timers.t1,
            retransmit: (!reliable).then(|| io.now + self.timers.t1),
            expires: Some(io.now + patience),
            alarm: Alarm::default(),
        };
        if reliable && client.path.connection.is_none() {
            // The pool refused it: report the failure after the caller has noted the key.
            client.expires = Some(io.now);
            client.retransmit = None;
        }
        client.arm(io, key);
        self.table.insert(key, Box::new(client));
        key
    }

    /// Cancels an INVITE: at once, or when the first provisional response comes (RFC 3261 9.1).
    /// Nobody is told of the outcome any more. Says whether a CANCEL went out.
    pub(crate) fn cancel(&mut self, io: &mut Io, key: ClientKey, reason: Option<String>) -> bool {
        let Some(client) = self.table.get_mut(&key) else { return false };
        client.owner = Owner::Nobody;
        match client.state {
            State::Calling => client.cancel = Some(reason),
            State::Proceeding => {
                self.send_cancel(io, key, reason);
                return true;
            }
            State::Completed | State::Accepted => {}
        }
        false
    }

    /// Gives an INVITE up that nobody answered, for another target: it is not repeated any more, and
    /// should it be answered after all, it is cancelled.
    pub(crate) fn abandon(&mut self, io: &mut Io, key: ClientKey) {
        if let Some(client) = self.table.get_mut(&key) {
            client.retransmit = None;
        }
        self.cancel(io, key, None);
    }

    /// Leaves an INVITE to itself, because its dialog ends: a 2xx is still acknowledged.
    pub(crate) fn orphan(&mut self, io: &mut Io, key: ClientKey) {
        let Some(client) = self.table.get_mut(&key) else { return };
        client.owner = Owner::Nobody;
        if matches!(client.state, State::Calling | State::Proceeding) {
            client.retransmit = None;
            let give_up = io.now + self.timers.give_up();
            client.expires = Some(client.expires.map_or(give_up, |at| at.min(give_up)));
            client.arm(io, key);
        }
    }

    /// Returns the header lines with the credentials of an INVITE that got a 2xx.
    pub(crate) fn credentials(&self, key: ClientKey) -> Bytes {
        self.table.get(&key).map(|client| client.credentials.clone()).unwrap_or_default()
    }

    fn send_cancel(&mut self, io: &mut Io, key: ClientKey, reason: Option<String>) {
        let Some(client) = self.table.get_mut(&key) else { return };
        // RFC 3261 9.1: if no final response comes within 64 times T1, the INVITE is over too.
        client.expires = Some(io.now + self.timers.give_up());
        client.arm(io, key);
        let cancel = NewRequest {
            branch: key.branch,
            method: Method::Cancel,
            cseq: client.cseq,
            bytes: cancel_of(&client.bytes, client.cseq, reason.as_deref()),
            path: client.path,
            owner: Owner::Nobody,
            trunk: client.trunk,
            in_dialog: client.in_dialog,
            patience: None,
        };
        self.start(io, cancel);
    }

    /// Sends the ACK of a 2xx, unless it waits for its way, and keeps it for repetition.
    pub(crate) fn acknowledge(
        &mut self,
        io: &mut Io,
        key: ClientKey,
        tag: &str,
        bytes: Bytes,
        mut path: Path,
        waits: bool,
    ) {
        if !waits {
            io.count_request(Method::Ack);
            io.send(&mut path, bytes.clone());
        }
        if let Some(client) = self.table.get_mut(&key)
            && client.acknowledged.len() < MAX_ACKS
        {
            client.acknowledged.push(Acknowledged { tag: tag.to_owned(), bytes, path });
        }
    }

    /// Sends an ACK whose way was found.
    pub(crate) fn acknowledge_by(&mut self, io: &mut Io, key: ClientKey, tag: &str, mut path: Path) {
        let Some(client) = self.table.get_mut(&key) else { return };
        let Some(known) = client.acknowledged.iter_mut().find(|a| a.tag == tag) else { return };
        io.count_request(Method::Ack);
        io.send(&mut path, known.bytes.clone());
        known.path = path;
    }

    /// Takes a response in. False if no transaction waits for it.
    pub(crate) fn on_response(&mut self, io: &mut Io, response: Response, source: SocketAddr) -> bool {
        let Some(branch) = own_branch(&response.head.via.branch) else { return false };
        let key = ClientKey { branch, cancel: response.head.cseq_method == Method::Cancel };
        let Some(client) = self.table.get_mut(&key) else { return false };
        if client.method != response.head.cseq_method {
            return false;
        }
        let reliable = client.path.reliable();
        let first = matches!(client.state, State::Calling | State::Proceeding);
        // RFC 3261 8.2.6.2: a response has the Call-ID and CSeq of its request, or it is of another.
        if response.head.cseq != client.cseq || (first && !client.has_call_id(&response.head.call_id)) {
            return false;
        }
        match (response.status, client.method == Method::Invite) {
            (..200, _) if !first => return true,
            (..200, true) => {
                client.retransmit = None;
                if client.state == State::Calling {
                    client.state = State::Proceeding;
                    // Who placed a call bounds its ringing. A re-INVITE rings nobody, and while it
                    // is open its dialog can neither be refreshed nor changed by the far side.
                    let end = io.now + self.timers.give_up();
                    client.expires = client.in_dialog.then_some(end);
                }
                if let Some(reason) = client.cancel.take() {
                    self.send_cancel(io, key, reason);
                }
            }
            (..200, false) => {
                client.state = State::Proceeding;
                client.interval = self.timers.t2;
            }
            (200..300, true) => {
                if client.state == State::Completed {
                    return true;
                }
                let tag = response.head.to.tag.as_deref().unwrap_or_default();
                if let Some(known) = client.acknowledged.iter_mut().find(|a| a.tag == tag) {
                    io.counters.duplicates += 1;
                    io.counters.retransmitted += 1;
                    io.send(&mut known.path, known.bytes.clone());
                    return true;
                }
                if client.acknowledged.len() >= MAX_ACKS {
                    io.counters.refuse("forks");
                    return true;
                }
                if first {
                    client.state = State::Accepted;
                    client.retransmit = None;
                    client.credentials = credentials_of(&client.bytes);
                    client.bytes = Bytes::new();
                    client.expires = Some(io.now + self.timers.give_up());
                }
            }
            (_, true) => match client.state {
                State::Calling | State::Proceeding => {
                    client.state = State::Completed;
                    client.retransmit = None;
                    client.bytes = ack_of(&client.bytes, &response.head.to.value, client.cseq);
                    io.count_request(Method::Ack);
                    io.send(&mut client.path, client.bytes.clone());
                    // Timer D: at least 32 s on UDP, zero on TCP.
                    let keep = if reliable { Duration::ZERO } else { self.timers.give_up() };
                    client.expires = Some(io.now + keep);
                }
                State::Completed => {
                    io.counters.duplicates += 1;
                    io.counters.retransmitted += 1;
                    io.send(&mut client.path, client.bytes.clone());
                    return true;
                }
                State::Accepted => return true,
            },
            (_, false) => {
                if !first {
                    io.counters.duplicates += 1;
                    return true;
                }
                client.state = State::Completed;
                client.retransmit = None;
                client.bytes = Bytes::new();
                // Timer K.
                let keep = if reliable { Duration::ZERO } else { self.timers.t4 };
                client.expires = Some(io.now + keep);
            }
        }
        if let Some(client) = self.table.get_mut(&key) {
            client.arm(io, key);
            self.upcalls.push_back(client.upcall(key, Outcome::Response(Box::new(response), source)));
        }
        true
    }

    /// A deadline surfaced.
    pub(crate) fn on_timer(&mut self, io: &mut Io, key: ClientKey, at: Instant) {
        let Some(client) = self.table.get_mut(&key) else { return };
        if !client.alarm.surfaced(&mut io.timers, Due::Client(key), at, io.now) {
            return;
        }
        if client.expires.is_some_and(|expires| expires <= io.now) {
            self.expire(io, key);
            return;
        }
        if client.retransmit.is_some_and(|due| due <= io.now) {
            io.counters.retransmitted += 1;
            io.send(&mut client.path, client.bytes.clone());
            // Timer A doubles without end, Timer E up to T2 (RFC 3261 17.1.1.2, 17.1.2.2).
            if client.state == State::Calling {
                client.interval *= 2;
            }
            if client.method != Method::Invite {
                client.interval = client.interval.min(self.timers.t2);
            }
            client.retransmit = Some(io.now + client.interval);
        }
        client.arm(io, key);
    }

    /// The time of a transaction is over.
    fn expire(&mut self, io: &mut Io, key: ClientKey) {
        let Some(client) = self.table.get_mut(&key) else { return };
        match client.state {
            State::Completed | State::Accepted => self.remove(key, None),
            _ if client.path.reliable() && client.path.connection.is_none() => {
                self.remove(key, Some(Outcome::TransportError));
            }
            // The far side works on it still: it is told to stop (RFC 3261 9.1).
            State::Proceeding if client.method == Method::Invite && client.owner != Owner::Nobody => {
                let upcall = client.upcall(key, Outcome::Timeout);
                self.upcalls.push_back(upcall);
                self.cancel(io, key, None);
            }
            State::Calling | State::Proceeding => {
                // A connection that carried nothing back all the while is dead, whatever the kernel
                // still hopes; the next request must not wait on it as well. A dialog gets another.
                let dead = client.path.connection.filter(|&c| io.pool.silent_since(c, client.sent));
                let lost = dead.is_some() && client.in_dialog;
                self.remove(key, Some(if lost { Outcome::TransportError } else { Outcome::Timeout }));
                if let Some(connection) = dead
                    && io.pool.closed(connection)
                {
                    io.counters.refuse("dead_connection");
                    io.transmits.push_back(Transmit::Close { connection });
                    self.on_connection_lost(connection);
                }
            }
        }
    }

    /// A connection is gone: what waits for an answer on it has failed (RFC 3261 17.1.4). Not so an
    /// INVITE that got a provisional response: the final one may come over a new connection
    /// (RFC 3261 18.2.2), and somebody may be ringing, who must not be rung twice.
    pub(crate) fn on_connection_lost(&mut self, connection: ConnectionId) {
        let waits = |c: &Client| {
            c.path.connection == Some(connection)
                && match c.state {
                    State::Calling => true,
                    State::Proceeding => c.method != Method::Invite,
                    State::Completed | State::Accepted => false,
                }
        };
        let mut lost: Vec<_> = self.table.iter().filter(|(_, c)| waits(c)).map(|(k, _)| *k).collect();
        lost.sort_unstable();
        for key in lost {
            self.remove(key, Some(Outcome::TransportError));
        }
    }

    fn remove(&mut self, key: ClientKey, outcome: Option<Outcome>) {
        if let Some(client) = self.table.remove(&key)
            && let Some(outcome) = outcome
        {
            self.upcalls.push_back(client.upcall(key, outcome));
        }
    }
}

impl Client {
    /// Says whether the request, as long as it is kept, has this Call-ID. We write one, by its long name.
    fn has_call_id(&self, call_id: &str) -> bool {
        const NAME: &[u8] = b"\r\nCall-ID: ";
        let at = self.bytes.windows(NAME.len()).position(|window| window == NAME);
        let value = at.and_then(|at| self.bytes.get(at + NAME.len()..));
        value.is_none_or(|value| {
            value.strip_prefix(call_id.as_bytes()).is_some_and(|rest| rest.starts_with(b"\r\n"))
        })
    }

    fn upcall(&self, key: ClientKey, outcome: Outcome) -> Upcall {
        let &Self { owner, method, path, trunk, in_dialog, .. } = self;
        Upcall { owner, key, method, path, trunk, in_dialog, outcome }
    }

    fn arm(&mut self, io: &mut Io, key: ClientKey) {
        let at = match (self.retransmit, self.expires) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.alarm.set(&mut io.timers, Due::Client(key), at);
    }
}
