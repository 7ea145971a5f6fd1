//! What the TURN server of a node is told, and what it tells of itself.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::turn::{Password, Subnet, TurnCounts, TurnLimits};

/// Configures the STUN and TURN server of a supernode or gateway (RFC 8489, RFC 8656).
#[derive(Clone, Debug)]
pub struct TurnConfig {
    /// Addresses for datagrams, e.g. `0.0.0.0:3478`.
    pub udp: Vec<SocketAddr>,
    /// Addresses for TCP.
    pub tcp: Vec<SocketAddr>,
    /// Addresses for TLS over TCP, e.g. `0.0.0.0:443`: what gets through where nothing else does.
    pub tls: Vec<SocketAddr>,
    /// The certificate for TLS.
    pub certificate: Option<TurnCertificate>,
    /// The name in that certificate, by which clients connect. Without it they verify an address,
    /// which few certificates hold.
    pub tls_name: Option<String>,
    /// Addresses by which others reach this machine, one of each family at most. Needed where it
    /// listens on any address or behind a translation of addresses one to one.
    pub external: Vec<IpAddr>,
    /// Addresses of this machine for relayed addresses, one of each family at most. Where empty those
    /// listened on.
    pub relay: Vec<IpAddr>,
    /// Ports of relayed addresses.
    pub relay_ports: RangeInclusive<u16>,
    /// Networks to which is relayed though they are not public.
    pub allow: Vec<Subnet>,
    /// Ports of this machine, beside the relayed ones, that clients may reach through the relay: those
    /// of media.
    pub own_ports: Vec<RangeInclusive<u16>>,
    /// How long a credential is good: longer than any call.
    pub lifetime: Duration,
    /// Bounds.
    pub limits: TurnLimits,
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self {
            udp: Vec::new(),
            tcp: Vec::new(),
            tls: Vec::new(),
            certificate: None,
            tls_name: None,
            external: Vec::new(),
            relay: Vec::new(),
            relay_ports: 49_152..=65_535,
            allow: Vec::new(),
            own_ports: Vec::new(),
            lifetime: Duration::from_secs(8 * 3600),
            limits: TurnLimits::default(),
        }
    }
}

/// A certificate with those above it, and its key; PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnCertificate {
    /// The chain, the server's own certificate first.
    pub chain: String,
    /// The private key.
    pub key: String,
}

impl fmt::Debug for TurnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TurnCertificate(key not shown)")
    }
}

/// Why a TURN server did not start.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for TURN: {reason}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        reason: std::io::Error,
    },
    /// The certificate cannot be used.
    #[error("the certificate for TURN over TLS: {0}")]
    Certificate(String),
    /// It listens for TLS without a certificate.
    #[error("TURN listens for TLS and has no certificate")]
    NoCertificate,
    /// It listens on no address.
    #[error("TURN listens on no address")]
    NoListener,
    /// It listens on any address, and nothing says by which one it is reached.
    #[error("TURN listens on {0}, and no external address of that family says how it is reached")]
    NoExternal(SocketAddr),
    /// The system refuses what the thread of the server needs.
    #[error("TURN cannot be set up: {0}")]
    System(#[from] std::io::Error),
}

/// How a client reaches a TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IceTransport {
    /// Datagrams.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl IceTransport {
    /// Returns the name of the transport.
    pub fn as_str(self) -> &'static str {
        match self {
            IceTransport::Udp => "udp",
            IceTransport::Tcp => "tcp",
            IceTransport::Tls => "tls",
        }
    }
}

/// One address of a STUN and TURN server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceEndpoint {
    /// How it is reached.
    pub transport: IceTransport,
    /// Where.
    pub address: SocketAddr,
    /// The name that its certificate holds, for TLS.
    pub name: Option<String>,
}

impl IceEndpoint {
    /// Returns the URI of the relay as browsers take it (RFC 7065 3.1).
    pub fn uri(&self) -> String {
        let host = self.name.clone().unwrap_or_else(|| match self.address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        });
        let port = self.address.port();
        match self.transport {
            IceTransport::Udp => format!("turn:{host}:{port}?transport=udp"),
            IceTransport::Tcp => format!("turn:{host}:{port}?transport=tcp"),
            IceTransport::Tls => format!("turns:{host}:{port}?transport=tcp"),
        }
    }
}

/// A STUN and TURN server that serves this node, and the credential for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// PeerId of the supernode.
    pub peer: String,
    /// Where it is reached; what may get through where the others do not comes last.
    pub endpoints: Vec<IceEndpoint>,
    /// User name of the credential.
    pub username: String,
    /// Password of the credential.
    pub password: Password,
    /// When the credential ends, in Unix seconds.
    pub expires_unix: u64,
}

impl IceServer {
    /// Returns the URIs for the `iceServers` of a browser: STUN (RFC 7064) where it takes datagrams,
    /// and the relay by each transport (RFC 7065).
    pub fn uris(&self) -> Vec<String> {
        let datagrams = self.endpoints.iter().filter(|at| at.transport == IceTransport::Udp);
        let stun = datagrams.map(|at| format!("stun:{}", at.address));
        stun.chain(self.endpoints.iter().map(IceEndpoint::uri)).collect()
    }
}

/// The state of a TURN server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TurnStatus {
    /// Where it is reached.
    pub endpoints: Vec<IceEndpoint>,
    /// What it has counted.
    pub counts: TurnCounts,
    /// Connections over TCP and TLS at present.
    pub connections: usize,
}
