//! STUN and TURN on supernodes (RFC 8489, RFC 8656), sans-IO: who may have a relayed address, to whom
//! it leads, and how much goes through it.
//!
//! [`Server`] is told of each packet and says what becomes of it. Media packets are never copied nor
//! allocated for: they go out of the buffer they came in. The sockets are in `node::turn`.

mod allocation;
mod credential;
mod message;
mod meter;
mod policy;
mod server;
mod stream;
#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::time::Duration;

pub use allocation::AllocationId;
pub use credential::{Password, REALM, Secret, User, long_term_key};
pub use message::{Class, HEADER, Message, MessageError, Method, TransactionId, Writer, attribute};
pub use policy::{PeerPolicy, Subnet, SubnetError};
pub use server::{Reaction, Server, Settings};
pub use stream::{Frame, MAX_PACKET, first_frame};

/// Room that is needed in front of a packet of a peer: what goes there tells the client whose it is.
pub const HEADROOM: usize = message::INDICATION;
/// Room that is needed behind a packet of a peer, for padding.
pub const TAILROOM: usize = 3;

/// Bounds of a TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnLimits {
    /// Allocations at one time.
    pub allocations: usize,
    /// Allocations of one user's device or one node. A browser makes one for each of its networks
    /// and each transport.
    pub allocations_per_peer: usize,
    /// Allocations from one network address: an IPv4 address, or the /64 of a subscriber.
    pub allocations_per_address: usize,
    /// Peers of one allocation that may send to it.
    pub permissions: usize,
    /// Channels of one allocation.
    pub channels: usize,
    /// Bytes per second each way through one allocation, of data without headers; 2 s' worth at once.
    pub bytes_per_second: u64,
    /// Answers a second to one address that has not shown a credential; four seconds' worth at once.
    pub answers_per_second: u32,
    /// Connections over TCP and TLS.
    pub connections: usize,
    /// Connections over TCP and TLS from one address.
    pub connections_per_address: usize,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self {
            allocations: 4_096,
            allocations_per_peer: 16,
            allocations_per_address: 256,
            permissions: 32,
            channels: 32,
            // A call of G.711 in SRTP takes some 9 kB/s; the rest is for RTCP, ICE and a second stream.
            bytes_per_second: 25_000,
            answers_per_second: 50,
            connections: 4_096,
            connections_per_address: 64,
        }
    }
}

impl TurnLimits {
    fn burst(&self) -> u64 {
        self.bytes_per_second.saturating_mul(2)
    }
}

/// Who has sent a packet to the server: a client by its five-tuple (RFC 8656 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The address from which it is seen.
    pub address: SocketAddr,
    /// How it is reached.
    pub path: Path,
}

/// How a client is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// By datagrams of the listener with this number.
    Datagram(u16),
    /// By the connection with this number, which is never used again.
    Stream(u64),
}

impl Path {
    /// Says whether the client is on a stream.
    pub fn is_stream(self) -> bool {
        matches!(self, Path::Stream(_))
    }
}

/// The longest lifetime of an allocation (RFC 8656 7.2).
pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// The lifetime of an allocation whose client asks for none (RFC 8656 3.2).
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(600);

/// Why something was refused. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "as_str says what each is")]
pub enum TurnRefusal {
    Malformed,
    Unsolicited,
    Unauthorized,
    Expired,
    Revoked,
    StaleNonce,
    WrongUser,
    Mismatch,
    Unsupported,
    Forbidden,
    PeerQuota,
    AddressQuota,
    Full,
    PermissionQuota,
    ChannelQuota,
    NotPermitted,
    Bandwidth,
    AnswerRate,
    Oversize,
    ConnectionQuota,
    ConnectionTimeout,
    ConnectionBroken,
    ClientSlow,
}

impl TurnRefusal {
    /// Every reason, in the order of the counters.
    pub const ALL: [TurnRefusal; 23] = [
        TurnRefusal::Malformed,
        TurnRefusal::Unsolicited,
        TurnRefusal::Unauthorized,
        TurnRefusal::Expired,
        TurnRefusal::Revoked,
        TurnRefusal::StaleNonce,
        TurnRefusal::WrongUser,
        TurnRefusal::Mismatch,
        TurnRefusal::Unsupported,
        TurnRefusal::Forbidden,
        TurnRefusal::PeerQuota,
        TurnRefusal::AddressQuota,
        TurnRefusal::Full,
        TurnRefusal::PermissionQuota,
        TurnRefusal::ChannelQuota,
        TurnRefusal::NotPermitted,
        TurnRefusal::Bandwidth,
        TurnRefusal::AnswerRate,
        TurnRefusal::Oversize,
        TurnRefusal::ConnectionQuota,
        TurnRefusal::ConnectionTimeout,
        TurnRefusal::ConnectionBroken,
        TurnRefusal::ClientSlow,
    ];

    /// Returns the name used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            TurnRefusal::Malformed => "malformed",
            TurnRefusal::Unsolicited => "unsolicited",
            TurnRefusal::Unauthorized => "unauthorized",
            TurnRefusal::Expired => "expired",
            TurnRefusal::Revoked => "revoked",
            TurnRefusal::StaleNonce => "stale_nonce",
            TurnRefusal::WrongUser => "wrong_user",
            TurnRefusal::Mismatch => "mismatch",
            TurnRefusal::Unsupported => "unsupported",
            TurnRefusal::Forbidden => "forbidden",
            TurnRefusal::PeerQuota => "peer_quota",
            TurnRefusal::AddressQuota => "address_quota",
            TurnRefusal::Full => "full",
            TurnRefusal::PermissionQuota => "permission_quota",
            TurnRefusal::ChannelQuota => "channel_quota",
            TurnRefusal::NotPermitted => "not_permitted",
            TurnRefusal::Bandwidth => "bandwidth",
            TurnRefusal::AnswerRate => "answer_rate",
            TurnRefusal::Oversize => "oversize",
            TurnRefusal::ConnectionQuota => "connection_quota",
            TurnRefusal::ConnectionTimeout => "connection_timeout",
            TurnRefusal::ConnectionBroken => "connection_broken",
            TurnRefusal::ClientSlow => "client_slow",
        }
    }
}

/// What a server has counted since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TurnCounts {
    /// Allocations at present.
    pub allocations: usize,
    /// Allocations made.
    pub allocated: u64,
    /// Binding requests answered.
    pub bindings: u64,
    /// Packets relayed, both ways.
    pub packets: u64,
    /// Bytes of data relayed, both ways.
    pub bytes: u64,
    refused: [u64; TurnRefusal::ALL.len()],
}

impl TurnCounts {
    /// Counts a refusal.
    pub fn refuse(&mut self, reason: TurnRefusal) {
        self.refused[reason as usize] += 1;
    }

    /// Returns how often something was refused for a reason.
    pub fn refused(&self, reason: TurnRefusal) -> u64 {
        self.refused[reason as usize]
    }
}
