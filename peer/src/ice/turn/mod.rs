//! The client's side of TURN (RFC 8656): one allocation on one server, by which UDP of a call is relayed. Sans-IO.
//!
//! A packet to a peer without a permission waits for it; the peer that gets RTP gets a channel, whose header is 4 octets
//! where that of an indication is 36.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use p2p_edge::turn::{Class, HEADER, Message, Method, TransactionId, Writer, attribute, long_term_key};

/// First wait before a request is sent again over UDP; doubles. Shorter than RFC 8489 6.2.1 has it: a call waits.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_millis(1_600);
const MAX_SENT: u32 = 7;
/// How long a request over a stream may stay unanswered.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);
/// How often a request is made anew because the server has changed its nonce.
const MAX_NONCES: u32 = 3;
/// Wanted lifetime of the allocation, in seconds (RFC 8656 3.2), and the part of it after which it is refreshed.
const LIFETIME: u32 = 600;
const REFRESH_PART: f64 = 0.8;
/// RFC 8656 9: permissions last 300 s; 12: channels last 600 s.
const PERMISSION_REFRESH: Duration = Duration::from_secs(240);
const CHANNEL_REFRESH: Duration = Duration::from_secs(480);
/// Bounds of what one call may need.
const MAX_PERMISSIONS: usize = 48;
const MAX_CHANNELS: usize = 8;
const MAX_WAITING: usize = 16;
const FIRST_CHANNEL: u16 = 0x4000;
/// Header of ChannelData (RFC 8656 12.4).
const CHANNEL_HEADER: usize = 4;
/// UDP in REQUESTED-TRANSPORT (RFC 8656 18.7).
const UDP: u8 = 17;

/// What a server of TURN is spoken to with.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Makes the numbers of requests; cryptographic, so that nobody off the path can answer for the server.
pub(crate) type Ids = fn() -> TransactionId;

/// What a datagram or frame from the server was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// A peer's packet, and where it lies in what came.
    Data { peer: SocketAddr, range: Range<usize> },
    /// An answer to this client.
    Taken,
    /// Nothing of this client's.
    Foreign,
}

/// What has become of an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnEvent {
    /// It stands: the address that peers see.
    Allocated { relayed: SocketAddr },
    /// It was refused or is lost. The last event.
    Failed { reason: &'static str },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Allocate,
    Refresh(u32),
    Permission(IpAddr),
    Channel(u16, SocketAddr),
}

struct Request {
    ask: Ask,
    id: TransactionId,
    bytes: Vec<u8>,
    sent: u32,
    due: Instant,
    nonces: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Asked,
    Granted,
    Refused,
}

struct Permission {
    address: IpAddr,
    grant: Grant,
    refresh_at: Option<Instant>,
}

struct Channel {
    number: u16,
    peer: SocketAddr,
    bound: bool,
    refresh_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Allocating,
    Allocated,
    Over,
}

/// One allocation on a server.
pub(super) struct TurnClient {
    credentials: Credentials,
    /// Whether the server is reached by a stream: then nothing is sent twice, and ChannelData is padded.
    stream: bool,
    ipv6: bool,
    ids: Ids,
    state: State,
    realm: String,
    nonce: Vec<u8>,
    key: Option<hmac::Key>,
    relayed: Option<SocketAddr>,
    refresh_at: Option<Instant>,
    requests: Vec<Request>,
    permissions: Vec<Permission>,
    channels: Vec<Channel>,
    /// Packets that wait for a permission.
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    outbox: VecDeque<Vec<u8>>,
    events: VecDeque<TurnEvent>,
    scratch: Vec<u8>,
}

impl TurnClient {
    /// Asks for an allocation of one family of addresses.
    pub(super) fn allocate(
        now: Instant,
        credentials: Credentials,
        stream: bool,
        ipv6: bool,
        ids: Ids,
    ) -> Self {
        let mut client = Self {
            credentials,
            stream,
            ipv6,
            ids,
            state: State::Allocating,
            realm: String::new(),
            nonce: Vec::new(),
            key: None,
            relayed: None,
            refresh_at: None,
            requests: Vec::new(),
            permissions: Vec::new(),
            channels: Vec::new(),
            waiting: VecDeque::new(),
            outbox: VecDeque::new(),
            events: VecDeque::new(),
            scratch: Vec::with_capacity(2_048),
        };
        client.ask(now, Ask::Allocate, 0);
        client
    }

    /// Returns the relayed address while the allocation stands.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        self.relayed.filter(|_| self.state == State::Allocated)
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Returns the next message for the server.
    pub(super) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    pub(super) fn poll_event(&mut self) -> Option<TurnEvent> {
        self.events.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let requests = self.requests.iter().map(|request| request.due);
        let permissions = self.permissions.iter().filter_map(|permission| permission.refresh_at);
        let channels = self.channels.iter().filter_map(|channel| channel.refresh_at);
        requests.chain(permissions).chain(channels).chain(self.refresh_at).min()
    }

    /// Sends what is due again, and refreshes what would expire.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for at in (0..self.requests.len()).rev() {
            let request = &mut self.requests[at];
            if request.due > now {
                continue;
            }
            if self.stream || request.sent >= MAX_SENT {
                let lost = self.requests.swap_remove(at);
                self.refused(lost.ask, "the server does not answer");
                continue;
            }
            request.due = now + (FIRST_WAIT * 2u32.pow(request.sent)).min(LONGEST_WAIT);
            request.sent += 1;
            self.outbox.push_back(request.bytes.clone());
        }
        let mut asks = Vec::new();
        if self.refresh_at.take_if(|at| *at <= now).is_some() {
            asks.push(Ask::Refresh(LIFETIME));
        }
        for permission in &mut self.permissions {
            if permission.refresh_at.take_if(|at| *at <= now).is_some() {
                asks.push(Ask::Permission(permission.address));
            }
        }
        for channel in &mut self.channels {
            if channel.refresh_at.take_if(|at| *at <= now).is_some() {
                asks.push(Ask::Channel(channel.number, channel.peer));
            }
        }
        asks.into_iter().for_each(|ask| self.ask(now, ask, 0));
    }

    /// Gives the allocation back. One message, which nobody waits for the answer of.
    pub(super) fn close(&mut self, now: Instant) {
        if self.state == State::Allocated {
            self.ask(now, Ask::Refresh(0), 0);
        }
        self.state = State::Over;
        self.requests.clear();
    }

    /// The way to the server is gone.
    pub(super) fn lost(&mut self) {
        self.fail("the connection is lost");
    }

    /// Sends a packet to a peer, or keeps it until the peer is permitted. `emit` gets what goes to the server.
    pub(super) fn send(&mut self, now: Instant, peer: SocketAddr, bytes: &[u8], emit: &mut dyn FnMut(&[u8])) {
        if self.state != State::Allocated || peer.is_ipv6() != self.ipv6 {
            return;
        }
        let bound = self.channels.iter().find(|channel| channel.peer == peer);
        if let Some(number) = bound.filter(|channel| channel.bound).map(|channel| channel.number) {
            self.scratch.clear();
            self.scratch.extend(number.to_be_bytes());
            self.scratch.extend((bytes.len() as u16).to_be_bytes());
            self.scratch.extend(bytes);
            if self.stream {
                // RFC 8656 12.5.
                self.scratch.resize(self.scratch.len().next_multiple_of(4), 0);
            }
            emit(&self.scratch);
            return;
        }
        if bound.is_none() && is_rtp(bytes) && self.channels.len() < MAX_CHANNELS {
            let number = FIRST_CHANNEL + self.channels.len() as u16;
            self.channels.push(Channel { number, peer, bound: false, refresh_at: None });
            self.ask(now, Ask::Channel(number, peer), 0);
        }
        let known = self.permissions.iter().find(|permission| permission.address == peer.ip());
        match known.map(|permission| permission.grant) {
            Some(Grant::Granted) => {
                let id = (self.ids)();
                let mut scratch = std::mem::take(&mut self.scratch);
                let mut writer = Writer::new(&mut scratch, Class::Indication, Method::Send, id);
                writer.put_address(attribute::XOR_PEER_ADDRESS, peer).put(attribute::DATA, bytes);
                emit(&scratch);
                self.scratch = scratch;
                return;
            }
            Some(Grant::Asked) => {}
            None if self.permissions.len() < MAX_PERMISSIONS => {
                let address = peer.ip();
                self.permissions.push(Permission { address, grant: Grant::Asked, refresh_at: None });
                self.ask(now, Ask::Permission(address), 0);
            }
            Some(Grant::Refused) | None => return,
        }
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back((peer, bytes.to_vec()));
        }
    }

    /// Takes a datagram, or a frame of a stream, that came from the server.
    pub(super) fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> Input {
        if let &[n0 @ 0x40..=0x4f, n1, l0, l1, ..] = bytes {
            let number = u16::from_be_bytes([n0, n1]);
            let range = CHANNEL_HEADER..CHANNEL_HEADER + usize::from(u16::from_be_bytes([l0, l1]));
            let channel = self.channels.iter().find(|channel| channel.number == number);
            return match channel.filter(|_| range.end <= bytes.len()) {
                Some(channel) => Input::Data { peer: channel.peer, range },
                None => Input::Foreign,
            };
        }
        let Ok(message) = Message::parse(bytes) else { return Input::Foreign };
        match (message.method, message.class) {
            (Method::Data, Class::Indication) => {
                let peer = message.address(attribute::XOR_PEER_ADDRESS);
                // RFC 8656 11.4: from whom nothing was asked, nothing is taken.
                let permitted =
                    peer.filter(|peer| self.permissions.iter().any(|known| known.address == peer.ip()));
                match (permitted, message.position(attribute::DATA)) {
                    (Some(peer), Some(range)) => Input::Data { peer, range },
                    _ => Input::Taken,
                }
            }
            (_, Class::Success | Class::Error) => {
                let Some(at) = self.requests.iter().position(|request| request.id == message.transaction())
                else {
                    return Input::Foreign;
                };
                self.handle_answer(now, at, &message);
                Input::Taken
            }
            _ => Input::Foreign,
        }
    }

    fn handle_answer(&mut self, now: Instant, at: usize, message: &Message<'_>) {
        if message.class == Class::Success {
            // RFC 8489 9.2.5: what is not signed is as if it had not come.
            if !self.key.as_ref().is_some_and(|key| message.is_authentic(key)) {
                return;
            }
            let request = self.requests.swap_remove(at);
            self.granted(now, request.ask, message);
            return;
        }
        let request = self.requests.swap_remove(at);
        let realm = message.text(attribute::REALM);
        let nonce = message.attribute(attribute::NONCE);
        match (message.error_code(), realm, nonce) {
            // 401 asks for credentials; once they were given it refuses them. 438: the nonce is stale.
            (Some(code @ (401 | 438)), realm, Some(nonce))
                if (code == 438 || self.key.is_none()) && request.nonces < MAX_NONCES =>
            {
                if let Some(realm) = realm {
                    self.realm = realm.to_owned();
                }
                let Credentials { username, password } = &self.credentials;
                self.key = Some(long_term_key(username.as_bytes(), &self.realm, password));
                self.nonce = nonce.to_vec();
                self.ask(now, request.ask, request.nonces + 1);
            }
            (Some(401 | 441), _, _) => self.refused(request.ask, "the server refuses the credentials"),
            (Some(403), _, _) => self.refused(request.ask, "the server forbids it"),
            (Some(437), _, _) => self.fail("the server has forgotten the allocation"),
            (Some(440 | 442), _, _) => self.refused(request.ask, "the server does not relay this"),
            (Some(486 | 508), _, _) => self.refused(request.ask, "the server has no room"),
            _ => self.refused(request.ask, "the server refuses"),
        }
    }

    fn granted(&mut self, now: Instant, ask: Ask, message: &Message<'_>) {
        match ask {
            Ask::Allocate => {
                let relayed = message.address(attribute::XOR_RELAYED_ADDRESS);
                let Some(relayed) = relayed.filter(|address| address.is_ipv6() == self.ipv6) else {
                    self.fail("the server names no relayed address");
                    return;
                };
                self.state = State::Allocated;
                self.relayed = Some(relayed);
                self.refresh_at = Some(now + refresh_wait(message));
                self.events.push_back(TurnEvent::Allocated { relayed });
            }
            Ask::Refresh(_) => self.refresh_at = Some(now + refresh_wait(message)),
            Ask::Permission(address) => self.permit(now, address),
            Ask::Channel(number, peer) => {
                if let Some(channel) = self.channels.iter_mut().find(|channel| channel.number == number) {
                    channel.bound = true;
                    channel.refresh_at = Some(now + CHANNEL_REFRESH);
                }
                self.permit(now, peer.ip());
            }
        }
    }

    /// Sends what has waited for a permission.
    fn permit(&mut self, now: Instant, address: IpAddr) {
        if let Some(permission) = self.permissions.iter_mut().find(|known| known.address == address) {
            permission.grant = Grant::Granted;
            permission.refresh_at = Some(now + PERMISSION_REFRESH);
        }
        for _ in 0..self.waiting.len() {
            let Some((peer, bytes)) = self.waiting.pop_front() else { return };
            if peer.ip() != address {
                self.waiting.push_back((peer, bytes));
                continue;
            }
            let mut out = Vec::new();
            self.send(now, peer, &bytes, &mut |bytes| out = bytes.to_vec());
            self.outbox.push_back(out);
        }
    }

    /// Something was refused: without it the call may go on another way, but not without the allocation.
    fn refused(&mut self, ask: Ask, reason: &'static str) {
        match ask {
            Ask::Allocate | Ask::Refresh(_) => self.fail(reason),
            Ask::Permission(address) => {
                // Nothing more is sent there, and it is not asked again for each packet.
                if let Some(known) = self.permissions.iter_mut().find(|known| known.address == address) {
                    known.grant = Grant::Refused;
                }
                self.waiting.retain(|(peer, _)| peer.ip() != address);
            }
            // Indications go on doing.
            Ask::Channel(number, _) => {
                if let Some(channel) = self.channels.iter_mut().find(|channel| channel.number == number) {
                    channel.bound = false;
                }
            }
        }
    }

    fn fail(&mut self, reason: &'static str) {
        if self.state != State::Over {
            self.state = State::Over;
            self.requests.clear();
            self.waiting.clear();
            self.permissions.clear();
            self.channels.clear();
            self.refresh_at = None;
            self.events.push_back(TurnEvent::Failed { reason });
        }
    }

    fn ask(&mut self, now: Instant, ask: Ask, nonces: u32) {
        let id = (self.ids)();
        let mut bytes = Vec::with_capacity(160);
        let method = match ask {
            Ask::Allocate => Method::Allocate,
            Ask::Refresh(_) => Method::Refresh,
            Ask::Permission(_) => Method::CreatePermission,
            Ask::Channel(..) => Method::ChannelBind,
        };
        let mut writer = Writer::new(&mut bytes, Class::Request, method, id);
        match ask {
            Ask::Allocate => {
                writer.put(attribute::REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]);
                writer.put(attribute::LIFETIME, &LIFETIME.to_be_bytes());
                if self.ipv6 {
                    // RFC 8656 18.6; without it the address is of IPv4.
                    writer.put(attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                }
            }
            Ask::Refresh(lifetime) => {
                writer.put(attribute::LIFETIME, &lifetime.to_be_bytes());
                if self.ipv6 {
                    writer.put(attribute::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
                }
            }
            Ask::Permission(address) => {
                writer.put_address(attribute::XOR_PEER_ADDRESS, SocketAddr::new(address, 0));
            }
            Ask::Channel(number, peer) => {
                let [n0, n1] = number.to_be_bytes();
                writer.put(attribute::CHANNEL_NUMBER, &[n0, n1, 0, 0]);
                writer.put_address(attribute::XOR_PEER_ADDRESS, peer);
            }
        }
        if let Some(key) = &self.key {
            writer.put(attribute::USERNAME, self.credentials.username.as_bytes());
            writer.put(attribute::REALM, self.realm.as_bytes());
            writer.put(attribute::NONCE, &self.nonce);
            writer.sign(key);
        }
        let due = now + if self.stream { STREAM_PATIENCE } else { FIRST_WAIT };
        self.outbox.push_back(bytes.clone());
        self.requests.push(Request { ask, id, bytes, sent: 1, due, nonces });
    }
}

fn refresh_wait(message: &Message<'_>) -> Duration {
    let lifetime = message.number(attribute::LIFETIME).unwrap_or(LIFETIME).clamp(10, 3_600);
    Duration::from_secs(u64::from(lifetime)).mul_f64(REFRESH_PART)
}

/// RFC 7983 7.
fn is_rtp(bytes: &[u8]) -> bool {
    matches!(bytes, [128..=191, ..])
}

/// Returns the length of the first frame in what a stream has brought, padding included; `None` while that is not known.
///
/// # Errors
/// When it is neither STUN nor ChannelData: the stream cannot be followed any further.
pub(super) fn frame_length(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let &[first, _, l0, l1, ..] = bytes else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    match first {
        0x00..=0x3f => Ok(Some(HEADER + length)),
        0x40..=0x4f => Ok(Some((CHANNEL_HEADER + length).next_multiple_of(4))),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests;
