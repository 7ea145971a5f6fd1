//! The TURN server of a node: its sockets, in a thread of their own, and the protocol by which peers
//! get credentials for it.

mod client;
mod config;
mod connection;
mod serve;
mod sockets;

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use libp2p::Multiaddr;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use socket2::{Domain, Protocol, Socket, Type};

pub(super) use client::IceServers;
pub use config::{IceEndpoint, IceServer, IceTransport, TurnCertificate, TurnConfig, TurnError, TurnStatus};

use self::sockets::{Ports, Sockets};
use super::peers::ip_of;
use crate::identity::{NodeKey, RevocationList};
use crate::turn::{PeerPolicy, Secret, Server, Settings, TurnCounts};

/// Bytes that the system may keep for a socket that many clients share, each way.
const SHARED_BUFFER: usize = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;

/// What the node and the thread tell each other.
struct Shared {
    /// For the thread: written to whenever something below has changed.
    wake: OwnedFd,
    told: Mutex<Told>,
    counted: Mutex<(TurnCounts, usize)>,
}

#[derive(Default)]
struct Told {
    stop: bool,
    revocations: Option<RevocationList>,
}

/// A TURN server that runs. It ends with this value.
pub(super) struct TurnServer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    endpoints: Vec<IceEndpoint>,
    secret: Secret,
    lifetime: std::time::Duration,
}

/// Starts the TURN server of a node that is to have one. What is reached at the node's `own` addresses is
/// not relayed to.
pub(super) fn start<'a>(
    config: Option<&TurnConfig>,
    key: &NodeKey,
    own: impl Iterator<Item = &'a Multiaddr>,
    revocations: &RevocationList,
) -> Result<Option<TurnServer>, TurnError> {
    let own = own.filter_map(ip_of).collect();
    config.map(|config| TurnServer::start(config, key, own, revocations.clone())).transpose()
}

impl TurnServer {
    /// Listens, and starts the thread.
    fn start(
        config: &TurnConfig,
        key: &NodeKey,
        mut own: Vec<IpAddr>,
        revocations: RevocationList,
    ) -> Result<Self, TurnError> {
        let tls = tls(config)?;
        let mut datagrams = Vec::new();
        let mut listeners = Vec::new();
        let mut endpoints = Vec::new();
        let listen = |address: &SocketAddr, kind| {
            open(*address, kind).map_err(|reason| TurnError::Listen { address: *address, reason })
        };
        let mut announce = |transport, address: SocketAddr| -> Result<(), TurnError> {
            let name = config.tls_name.clone().filter(|_| transport == IceTransport::Tls);
            let ip = announced(config, address.ip()).ok_or(TurnError::NoExternal(address))?;
            endpoints.push(IceEndpoint { transport, address: SocketAddr::new(ip, address.port()), name });
            Ok(())
        };
        for address in &config.udp {
            let socket: UdpSocket = listen(address, Type::DGRAM)?.into();
            announce(IceTransport::Udp, socket.local_addr()?)?;
            datagrams.push(socket);
        }
        let streams = config.tcp.iter().map(|address| (address, None));
        let streams = streams.chain(config.tls.iter().map(|address| (address, tls.clone())));
        for (address, tls) in streams {
            let socket: TcpListener = listen(address, Type::STREAM)?.into();
            let transport = if tls.is_some() { IceTransport::Tls } else { IceTransport::Tcp };
            announce(transport, socket.local_addr()?)?;
            listeners.push((socket, tls));
        }
        let ports = Ports::new(relay_addresses(config), config.relay_ports.clone());
        if endpoints.is_empty() || ports.families() == (false, false) {
            return Err(TurnError::NoListener);
        }
        let listened = config.udp.iter().chain(&config.tcp).chain(&config.tls).map(SocketAddr::ip);
        own.extend(listened.chain(config.external.iter().copied()).chain(config.relay.iter().copied()));
        own.retain(|ip| !ip.is_unspecified());
        let mut own_ports = config.own_ports.clone();
        // Two users of one relay: each is a peer of the other by its relayed address.
        own_ports.push(config.relay_ports.clone());
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| std::io::Error::other(error.to_string()))?;
        let settings = Settings {
            secret: Secret::of(key),
            policy: PeerPolicy { allow: config.allow.clone(), own, own_ports },
            limits: config.limits.clone(),
            families: ports.families(),
            revocations,
            seed: u64::from_ne_bytes(seed),
        };
        let wake =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?;
        let shared = Arc::new(Shared { wake, told: Mutex::default(), counted: Mutex::default() });
        let limits = config.limits.clone();
        let sockets =
            Sockets::new(Server::new(settings), ports, datagrams, listeners, limits, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new().name("turn".into()).spawn(move || sockets.run())?;
        let (secret, lifetime) = (Secret::of(key), config.lifetime);
        Ok(Self { shared, thread: Some(thread), endpoints, secret, lifetime })
    }

    /// Goes on under newer revocations.
    pub(super) fn revoke(&self, revocations: &RevocationList) {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).revocations =
            Some(revocations.clone());
        self.shared.wake();
    }

    /// Returns its state.
    pub(super) fn status(&self) -> TurnStatus {
        let (counts, connections) =
            self.shared.counted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        TurnStatus { endpoints: self.endpoints.clone(), counts, connections }
    }
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // Errs when the thread has panicked, which was logged.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn wake(&self) {
        // Errs when it has been woken already and often.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// Opens a socket that does not block.
fn open(address: SocketAddr, kind: Type) -> std::io::Result<Socket> {
    let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if kind == Type::STREAM {
        // A restart does not wait for the connections of before.
        socket.set_reuse_address(true)?;
    } else {
        // As much as the system grants.
        let _ = socket.set_recv_buffer_size(SHARED_BUFFER);
        let _ = socket.set_send_buffer_size(SHARED_BUFFER);
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}

/// Returns the address by which others reach one of this machine.
fn announced(config: &TurnConfig, ip: IpAddr) -> Option<IpAddr> {
    let external = config.external.iter().copied().find(|external| external.is_ipv4() == ip.is_ipv4());
    external.or(Some(ip).filter(|ip| !ip.is_unspecified()))
}

/// Returns for each family where relayed addresses are opened, and as what they are announced.
fn relay_addresses(config: &TurnConfig) -> Vec<(IpAddr, IpAddr)> {
    let listened = config.udp.iter().chain(&config.tcp).chain(&config.tls).map(SocketAddr::ip);
    let mut found: Vec<(IpAddr, IpAddr)> = Vec::new();
    for ip in config.relay.iter().copied().chain(listened) {
        if let Some(announced) = announced(config, ip)
            && !found.iter().any(|(known, _)| known.is_ipv4() == ip.is_ipv4())
        {
            found.push((ip, announced));
        }
    }
    found
}

fn tls(config: &TurnConfig) -> Result<Option<Arc<rustls::ServerConfig>>, TurnError> {
    if config.tls.is_empty() {
        return Ok(None);
    }
    let fault = |error: &dyn std::fmt::Display| TurnError::Certificate(error.to_string());
    let certificate = config.certificate.as_ref().ok_or(TurnError::NoCertificate)?;
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes()).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| fault(&error))?;
    // What is wrong with a key is not told with its bytes.
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())
        .map_err(|_| TurnError::Certificate("no private key in PEM form".to_owned()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| fault(&error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| fault(&error))?;
    Ok(Some(Arc::new(config)))
}
