//! Copies of the messages that pass, for whoever looks at them elsewhere.
//!
//! They are as they passed: what is secret in them is for the user to take out before they go anywhere.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use super::Endpoint;
use super::api::{Transmit, Transport};

/// The most copies that wait to be taken; more are dropped and counted.
const MAX_WAITING: usize = 4_096;

/// One SIP message, as it came or went, retransmissions and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When.
    pub at: Instant,
    /// It went out.
    pub outgoing: bool,
    /// What carried it.
    pub transport: Transport,
    /// The address on this side.
    pub local: SocketAddr,
    /// The address on the far side.
    pub remote: SocketAddr,
    /// The message.
    pub bytes: Bytes,
}

#[derive(Debug)]
pub(crate) struct Captures {
    on: bool,
    waiting: VecDeque<Captured>,
    pub(super) dropped: u64,
}

impl Captures {
    pub(crate) fn new(on: bool) -> Self {
        Self { on, waiting: VecDeque::new(), dropped: 0 }
    }

    /// Copies a message that came, if anybody wants that.
    pub(super) fn come(
        &mut self,
        at: Instant,
        transport: Transport,
        (local, remote): (SocketAddr, SocketAddr),
        bytes: &[u8],
    ) {
        if self.on && is_message(bytes) {
            let bytes = Bytes::copy_from_slice(bytes);
            self.keep(Captured { at, outgoing: false, transport, local, remote, bytes });
        }
    }

    fn keep(&mut self, captured: Captured) {
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(captured);
        } else {
            self.dropped += 1;
        }
    }
}

impl Endpoint {
    /// Returns the next message that passed, if [`EndpointConfig::capture`](crate::EndpointConfig) is set: what trunks
    /// and those who register sent, and what they were sent. What is not taken is dropped from 4096 on, and counted in
    /// [`Counters::captures_dropped`](crate::Counters).
    #[must_use]
    pub fn poll_capture(&mut self) -> Option<Captured> {
        self.core.io.captures.waiting.pop_front()
    }

    /// Copies a message that goes out, if anybody wants that.
    pub(super) fn capture(&mut self, transmit: &Transmit) {
        if !self.core.io.captures.on {
            return;
        }
        let (transport, local, remote, bytes) = match transmit {
            Transmit::Datagram { local, remote, bytes } => (Transport::Udp, *local, *remote, bytes),
            Transmit::Stream { connection, bytes } => match self.core.io.pool.addresses(*connection) {
                Some((transport, local, remote)) => (transport, local, remote, bytes),
                None => return,
            },
            Transmit::Connect { .. } | Transmit::Close { .. } => return,
        };
        if is_message(bytes) {
            let (at, bytes) = (self.core.io.now, bytes.clone());
            self.core.io.captures.keep(Captured { at, outgoing: true, transport, local, remote, bytes });
        }
    }
}

/// Keep-alives (RFC 5626 4.4) begin with no letter.
fn is_message(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
}
