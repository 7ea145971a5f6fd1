//! SIP over TCP, TLS and WebSocket: one small task per connection, a bounded queue each way.

mod tcp;
mod tls;
mod verify;
mod websocket;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use call_model::TrunkName;
use sip_trunk::{ConnectionId, PeerIdentity, Transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

pub use tls::TlsFileError;
pub(crate) use tls::{OwnCertificate, TlsStore};
pub(crate) use verify::ConnectFailure;

/// Messages that may wait to be written to one connection.
const WRITE_QUEUE: usize = 256;
/// Pieces of data that may wait for the signalling loop.
const READ_QUEUE: usize = 1024;
/// Connections in all, and from one address. Those whose handshake is under way count.
const MAX_CONNECTIONS: usize = 1024;
const MAX_PER_SOURCE: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the handshakes of TLS and WebSocket may take together.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one message may take to go out before its peer counts as one that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What happened on a connection.
#[derive(Debug)]
pub(crate) enum StreamReport {
    /// A peer came; its handshakes are still to be done.
    Accepted {
        transport: Transport,
        stream: TcpStream,
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// A connection can be used, handshakes done.
    Opened {
        connection: ConnectionId,
        local: SocketAddr,
        remote: SocketAddr,
        inbound: bool,
        transport: Transport,
        identity: Option<PeerIdentity>,
        /// Whose it is, if we opened it.
        trunk: Option<TrunkName>,
    },
    Data {
        connection: ConnectionId,
        bytes: Vec<u8>,
        /// When it was read.
        at: Instant,
    },
    Closed {
        connection: ConnectionId,
    },
    /// We could not open it, or it was refused as soon as it was open.
    ConnectFailed {
        connection: ConnectionId,
        trunk: Option<TrunkName>,
        failure: ConnectFailure,
    },
    /// A peer's handshake failed, or it ended its connection with an alert of TLS.
    Refused {
        connection: ConnectionId,
        failure: ConnectFailure,
    },
}

/// What all connections have in common.
#[derive(Clone, Debug)]
pub(crate) struct StreamSettings {
    /// Where trunks know us, in order of preference: connections are opened from there.
    pub(crate) own: Vec<IpAddr>,
    /// Certificates.
    pub(crate) tls: Arc<TlsStore>,
    /// Origins whose pages may open WebSockets.
    pub(crate) origins: Vec<String>,
    /// The code point of what is sent.
    pub(crate) dscp: u8,
}

/// What the task of a connection needs.
#[derive(Clone, Debug)]
struct Shared {
    reports: mpsc::Sender<StreamReport>,
    tls: Arc<TlsStore>,
    origins: Arc<[String]>,
    dscp: u8,
    write_timeout: Duration,
    handshake_timeout: Duration,
}

#[derive(Debug)]
struct Connection {
    writer: mpsc::Sender<Bytes>,
    remote: IpAddr,
}

/// The open connections.
#[derive(Debug)]
pub(crate) struct Streams {
    connections: HashMap<ConnectionId, Connection>,
    next_inbound: u64,
    own: Vec<IpAddr>,
    shared: Shared,
    /// Where the tasks run.
    runtime: Handle,
    /// Connections refused because there were too many.
    pub(crate) refused: u64,
}

impl Streams {
    /// Makes room for connections, which the runtime it is called in will carry.
    pub(crate) fn new(settings: StreamSettings) -> (Self, mpsc::Receiver<StreamReport>) {
        let (reports, inbox) = mpsc::channel(READ_QUEUE);
        let shared = Shared {
            reports,
            tls: settings.tls,
            origins: settings.origins.into(),
            dscp: settings.dscp,
            write_timeout: WRITE_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        };
        // The top bit tells inbound connections from those that the endpoint numbers.
        let next_inbound = ConnectionId::INBOUND;
        let (own, runtime) = (settings.own, Handle::current());
        (Self { connections: HashMap::new(), next_inbound, own, shared, runtime, refused: 0 }, inbox)
    }

    /// Accepts connections until the task is dropped.
    pub(crate) fn listen(&self, transport: Transport, listener: TcpListener) -> tokio::task::JoinHandle<()> {
        let reports = self.shared.reports.clone();
        self.runtime.spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, remote)) => {
                        let Ok(local) = stream.local_addr() else { continue };
                        let accepted = StreamReport::Accepted { transport, stream, local, remote };
                        if reports.send(accepted).await.is_err() {
                            return;
                        }
                    }
                    // Out of descriptors, most likely: wait for some to be given back.
                    Err(error) => {
                        tracing::warn!(%error, "SIP connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        })
    }

    /// Takes an accepted connection in, or closes it when there are too many. What becomes of its
    /// handshakes comes as a report.
    pub(crate) fn accept(
        &mut self,
        transport: Transport,
        stream: TcpStream,
        (local, remote): (SocketAddr, SocketAddr),
    ) -> Option<ConnectionId> {
        let of_source = self.connections.values().filter(|known| known.remote == remote.ip()).count();
        if self.connections.len() >= MAX_CONNECTIONS || of_source >= MAX_PER_SOURCE {
            self.refused += 1;
            return None;
        }
        let connection = ConnectionId(self.next_inbound);
        self.next_inbound = (self.next_inbound + 1) | ConnectionId::INBOUND;
        let outbox = self.outbox(connection, remote);
        let shared = self.shared.clone();
        self.runtime.spawn(async move {
            tcp::prepare(&stream, remote, shared.dscp);
            let opened = Opening { connection, local, remote, inbound: true, transport, trunk: None };
            if let Err(failure) = receive(&shared, opened, stream, outbox).await {
                let _ = shared.reports.send(StreamReport::Refused { connection, failure }).await;
            }
        });
        Some(connection)
    }

    /// Opens a connection by TCP or TLS, of a trunk in the latter case; how it went comes as a report.
    pub(crate) fn connect(
        &mut self,
        connection: ConnectionId,
        transport: Transport,
        remote: SocketAddr,
        trunk: Option<TrunkName>,
    ) {
        let outbox = self.outbox(connection, remote);
        let shared = self.shared.clone();
        // A PBX tells its peers by their address, which is not always the one routing would choose.
        let own = self.own.iter().copied().find(|own| own.is_ipv4() == remote.is_ipv4());
        self.runtime.spawn(async move {
            if let Err(failure) = open(&shared, connection, transport, (own, remote), &trunk, outbox).await {
                let failed = StreamReport::ConnectFailed { connection, trunk, failure };
                let _ = shared.reports.send(failed).await;
            }
        });
    }

    fn outbox(&mut self, connection: ConnectionId, remote: SocketAddr) -> mpsc::Receiver<Bytes> {
        let (writer, outbox) = mpsc::channel(WRITE_QUEUE);
        self.connections.insert(connection, Connection { writer, remote: remote.ip() });
        outbox
    }

    /// Sends on a connection. Returns false when there is none: it is not open, or it was cut off
    /// just now because its peer does not read and its queue is full.
    #[must_use]
    pub(crate) fn send(&mut self, connection: ConnectionId, bytes: Bytes) -> bool {
        let taken = self.connections.get(&connection).is_some_and(|open| open.writer.try_send(bytes).is_ok());
        if !taken {
            self.connections.remove(&connection);
        }
        taken
    }

    /// Returns how many connections there are.
    pub(crate) fn open(&self) -> usize {
        self.connections.len()
    }

    /// Closes a connection after what was sent on it.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }
}

/// A connection that is about to be reported as open.
#[derive(Debug)]
struct Opening {
    connection: ConnectionId,
    local: SocketAddr,
    remote: SocketAddr,
    inbound: bool,
    transport: Transport,
    trunk: Option<TrunkName>,
}

impl Opening {
    /// Tells the loop. False when that has ended.
    async fn report(self, shared: &Shared, identity: Option<PeerIdentity>) -> bool {
        let Self { connection, local, remote, inbound, transport, trunk } = self;
        let opened = StreamReport::Opened { connection, local, remote, inbound, transport, identity, trunk };
        shared.reports.send(opened).await.is_ok()
    }
}

/// Does the handshakes of a connection that a peer opened, and carries it until it ends.
async fn receive(
    shared: &Shared,
    opening: Opening,
    stream: TcpStream,
    outbox: mpsc::Receiver<Bytes>,
) -> Result<(), ConnectFailure> {
    let (connection, transport) = (opening.connection, opening.transport);
    let within = shared.handshake_timeout;
    let late = |_| ConnectFailure::Timeout;
    match transport {
        Transport::Udp | Transport::Tcp => {
            if opening.report(shared, None).await {
                tcp::carry(shared, connection, stream, outbox).await?;
            }
        }
        Transport::Tls => {
            let accepted = tokio::time::timeout(within, tls::accept(&shared.tls, stream));
            let (stream, identity) = accepted.await.map_err(late)??;
            if opening.report(shared, identity).await {
                tcp::carry(shared, connection, stream, outbox).await?;
            }
        }
        Transport::Ws => {
            let accepted = tokio::time::timeout(within, websocket::accept(stream, &shared.origins));
            let web = accepted.await.map_err(late)??;
            if opening.report(shared, None).await {
                websocket::carry(shared, connection, web, outbox).await;
            }
        }
        Transport::Wss => {
            let both = async {
                let (stream, identity) = tls::accept(&shared.tls, stream).await?;
                let web = websocket::accept(stream, &shared.origins).await?;
                Ok::<_, ConnectFailure>((web, identity))
            };
            let (web, identity) = tokio::time::timeout(within, both).await.map_err(late)??;
            if opening.report(shared, identity).await {
                websocket::carry(shared, connection, web, outbox).await;
            }
        }
    }
    Ok(())
}

/// Opens a connection and carries it until it ends.
async fn open(
    shared: &Shared,
    connection: ConnectionId,
    transport: Transport,
    (own, remote): (Option<IpAddr>, SocketAddr),
    trunk: &Option<TrunkName>,
    outbox: mpsc::Receiver<Bytes>,
) -> Result<(), ConnectFailure> {
    let dialled = tokio::time::timeout(CONNECT_TIMEOUT, tcp::dial(own, remote, shared.dscp)).await;
    let stream = dialled.map_err(|_| ConnectFailure::Timeout)??;
    // A connection that is gone again has no address, and never was.
    let local = stream.local_addr()?;
    tcp::prepare(&stream, remote, shared.dscp);
    let (inbound, trunk) = (false, trunk.clone());
    if transport == Transport::Tls {
        let secured = tls::connect(&shared.tls, trunk.as_ref(), stream);
        let secured = tokio::time::timeout(shared.handshake_timeout, secured).await;
        let (stream, identity) = secured.map_err(|_| ConnectFailure::Timeout)??;
        let opening = Opening { connection, local, remote, inbound, transport, trunk };
        if opening.report(shared, identity).await {
            tcp::carry(shared, connection, stream, outbox).await?;
        }
        return Ok(());
    }
    let opening = Opening { connection, local, remote, inbound, transport, trunk };
    if opening.report(shared, None).await {
        tcp::carry(shared, connection, stream, outbox).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
