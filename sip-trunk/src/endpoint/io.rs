//! What every layer writes to: deadlines, the network, counters, randomness.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::api::{ConnectionId, Transmit, Transport};
use super::capture::Captures;
use super::config::{EndpointConfig, Listener};
use super::connection::Pool;
use super::counters::Counters;
use crate::transaction::timer::TimerQueue;
use crate::wire::message::{COOKIE, Method};

/// The way one message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) transport: Transport,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The connection to use while it lives.
    pub(crate) connection: Option<ConnectionId>,
}

impl Path {
    pub(crate) fn reliable(&self) -> bool {
        self.transport.is_reliable()
    }
}

#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) now: Instant,
    pub(crate) timers: TimerQueue,
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) pool: Pool,
    pub(crate) counters: Counters,
    pub(crate) random: Random,
    pub(crate) captures: Captures,
    listeners: Vec<Listener>,
    /// The trunks that registered here, and whether they are reached where they came from.
    pub(crate) accounts: HashMap<usize, bool>,
}

impl Io {
    pub(crate) fn new(config: &EndpointConfig, seed: [u8; 32], now: Instant) -> Self {
        Self {
            now,
            timers: TimerQueue::new(now),
            transmits: VecDeque::new(),
            pool: Pool::new(config.limits, config.timers),
            counters: Counters::default(),
            random: Random::new(seed),
            captures: Captures::new(config.capture),
            listeners: config.listeners.clone(),
            accounts: HashMap::new(),
        }
    }

    /// Finds the way to an address: from the listener at `local`, one of the same host, or the
    /// first, of that transport and family.
    pub(crate) fn path(
        &self,
        transport: Transport,
        remote: SocketAddr,
        local: Option<SocketAddr>,
    ) -> Option<Path> {
        let fits =
            |l: &&Listener| l.transport == transport && l.local.ip().is_ipv4() == remote.ip().is_ipv4();
        let mut fitting = self.listeners.iter().filter(fits);
        let exact = fitting.clone().find(|l| Some(l.local) == local);
        let near = || fitting.clone().find(|l| Some(l.local.ip()) == local.map(|local| local.ip()));
        let listener = exact.or_else(near).or_else(|| fitting.next())?;
        Some(Path { transport, local: listener.local, remote, connection: None })
    }

    /// Says whether requests to a trunk go back the way `path`, whatever its Contact says: by the
    /// connection it registered over (RFC 5626 5.3), or through an address translator.
    pub(crate) fn goes_back(&self, trunk: usize, path: &Path) -> bool {
        self.accounts.get(&trunk).is_some_and(|symmetric| *symmetric || path.connection.is_some())
    }

    /// Returns the listener that accepted a connection whose own address is `local`.
    pub(crate) fn listener(&self, transport: Transport, local: SocketAddr) -> SocketAddr {
        let mut fitting = self.listeners.iter().filter(|l| l.transport == transport);
        let exact = fitting.clone().find(|l| l.local == local);
        let family = fitting.find(|l| l.local.ip().is_ipv4() == local.ip().is_ipv4());
        exact.or(family).map_or(local, |l| l.local)
    }

    /// Sends a message. But for UDP the connection of the path is used, else any open one to the same
    /// address, else a new one; the path remembers which.
    pub(crate) fn send(&mut self, path: &mut Path, bytes: Bytes) {
        match path.transport {
            Transport::Udp => {
                let datagram = Transmit::Datagram { local: path.local, remote: path.remote, bytes };
                self.transmits.push_back(datagram);
            }
            transport => {
                let (now, wanted, far) = (self.now, path.connection, (transport, path.remote));
                let Self { pool, timers, transmits, counters, .. } = self;
                path.connection = pool.send(now, wanted, far, bytes, timers, transmits, counters);
            }
        }
    }

    pub(crate) fn count_request(&mut self, method: Method) {
        *self.counters.requests_out.entry(method.as_str()).or_default() += 1;
    }

    pub(crate) fn count_response(&mut self, status: u16) {
        *self.counters.responses_out.entry(super::counters::class(status)).or_default() += 1;
    }
}

/// A deterministic source of numbers nobody can guess without the seed: SHA-256 in counter mode.
pub(crate) struct Random {
    seed: [u8; 32],
    counter: u64,
    buffer: [u64; 4],
    left: usize,
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl Random {
    fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0, buffer: [0; 4], left: 0 }
    }

    pub(crate) fn number(&mut self) -> u64 {
        if self.left == 0 {
            let digest =
                Sha256::new().chain_update(self.seed).chain_update(self.counter.to_be_bytes()).finalize();
            self.counter += 1;
            for (word, bytes) in self.buffer.iter_mut().zip(digest.chunks_exact(8)) {
                *word = bytes.iter().fold(0, |word, &byte| (word << 8) | u64::from(byte));
            }
            self.left = self.buffer.len();
        }
        self.left -= 1;
        self.buffer.get(self.left).copied().unwrap_or_default()
    }

    /// Returns a key nobody can guess without the seed.
    pub(crate) fn key(&mut self) -> [u8; 32] {
        let mut key = [0; 32];
        for part in key.chunks_exact_mut(8) {
            part.copy_from_slice(&self.number().to_be_bytes());
        }
        key
    }

    /// Returns a number of `from` to `to` inclusive.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.number() % (to.saturating_sub(from) + 1)
    }

    pub(crate) fn hex(&mut self) -> String {
        hex(self.number())
    }
}

/// Writes a tag of ours.
pub(crate) fn hex(number: u64) -> String {
    format!("{number:016x}")
}

/// Writes the Via of a request of ours.
pub(crate) fn via(path: &Path, branch: u64) -> String {
    // RFC 5923 8.1: requests may come to us over the connection we opened.
    let alias = if path.transport == Transport::Tls { ";alias" } else { "" };
    let (transport, local) = (path.transport.as_str(), path.local);
    format!("SIP/2.0/{transport} {local};branch={COOKIE}{branch:016x};rport{alias}")
}

/// Writes our Contact.
pub(crate) fn contact(path: &Path) -> String {
    format!("<sip:{}{}>", path.local, transport_parameter(path.transport))
}

/// Writes our Contact by a name of ours.
pub(crate) fn contact_at(host: &str, path: &Path) -> String {
    format!("<sip:{host}:{}{}>", path.local.port(), transport_parameter(path.transport))
}

/// Writes the `transport` parameter of a URI of ours; nothing for UDP.
pub(crate) fn transport_parameter(transport: Transport) -> String {
    match transport {
        Transport::Udp => String::new(),
        other => format!(";transport={}", other.parameter()),
    }
}

/// Makes a Contact of ours one of a `sips` URI, which says TLS by itself (RFC 3261 26.2.2,
/// RFC 5630 3.1.4).
pub(crate) fn sips(contact: &str) -> String {
    contact.replacen("<sip:", "<sips:", 1).replacen(";transport=tls", "", 1)
}
