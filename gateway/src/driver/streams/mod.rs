//! SIP over TCP: one small task per connection, a bounded queue each way.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use sip_trunk::ConnectionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;

/// Messages that may wait to be written to one connection.
const WRITE_QUEUE: usize = 256;
/// Pieces of data that may wait for the signalling loop.
const READ_QUEUE: usize = 1024;
/// Connections in all, and from one address.
const MAX_CONNECTIONS: usize = 1024;
const MAX_PER_SOURCE: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one message may take to go out before its peer counts as one that does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the system waits for a peer to acknowledge what was sent (RFC 5482).
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(20);

/// What happened on a connection.
#[derive(Debug)]
pub(crate) enum StreamReport {
    Opened { connection: ConnectionId, local: SocketAddr, remote: SocketAddr, inbound: bool },
    Data { connection: ConnectionId, bytes: Vec<u8> },
    Closed { connection: ConnectionId },
    ConnectFailed { connection: ConnectionId },
    Accepted { stream: TcpStream, local: SocketAddr, remote: SocketAddr },
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
    reports: mpsc::Sender<StreamReport>,
    next_inbound: u64,
    /// Where trunks know us, from which connections are opened too.
    own: Vec<IpAddr>,
    write_timeout: Duration,
    /// Connections refused because there were too many.
    pub(crate) refused: u64,
}

impl Streams {
    /// `own` are the addresses of the listeners, in order of preference.
    pub(crate) fn new(own: Vec<IpAddr>) -> (Self, mpsc::Receiver<StreamReport>) {
        let (reports, inbox) = mpsc::channel(READ_QUEUE);
        // The top bit tells inbound connections from those that the endpoint numbers.
        let next_inbound = 1 << 63;
        let write_timeout = WRITE_TIMEOUT;
        let connections = HashMap::new();
        (Self { connections, reports, next_inbound, own, write_timeout, refused: 0 }, inbox)
    }

    /// Accepts connections until the task is dropped.
    pub(crate) fn listen(&self, listener: TcpListener) -> tokio::task::JoinHandle<()> {
        let reports = self.reports.clone();
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, remote)) => {
                        let Ok(local) = stream.local_addr() else { continue };
                        if reports.send(StreamReport::Accepted { stream, local, remote }).await.is_err() {
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

    /// Takes an accepted connection in, or closes it when there are too many.
    pub(crate) fn accept(&mut self, stream: TcpStream, remote: SocketAddr) -> Option<ConnectionId> {
        let of_source = self.connections.values().filter(|known| known.remote == remote.ip()).count();
        if self.connections.len() >= MAX_CONNECTIONS || of_source >= MAX_PER_SOURCE {
            self.refused += 1;
            return None;
        }
        let connection = ConnectionId(self.next_inbound);
        self.next_inbound = (self.next_inbound + 1) | (1 << 63);
        let writer = self.writer(connection, remote);
        tokio::spawn(carry(connection, stream, writer, self.reports.clone(), self.write_timeout));
        Some(connection)
    }

    /// Opens a connection; how it went comes as a report.
    pub(crate) fn connect(&mut self, connection: ConnectionId, remote: SocketAddr) {
        let writer = self.writer(connection, remote);
        let (reports, write_timeout) = (self.reports.clone(), self.write_timeout);
        // A PBX tells its peers by their address, which is not always the one routing would choose.
        let own = self.own.iter().copied().find(|own| own.is_ipv4() == remote.is_ipv4());
        tokio::spawn(async move {
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, dial(own, remote)).await;
            let stream = attempt.ok().and_then(Result::ok);
            // A connection that is gone again has no address, and never was.
            let opened = stream.and_then(|stream| stream.local_addr().ok().map(|local| (stream, local)));
            match opened {
                Some((stream, local)) => {
                    let opened = StreamReport::Opened { connection, local, remote, inbound: false };
                    if reports.send(opened).await.is_ok() {
                        carry(connection, stream, writer, reports, write_timeout).await;
                    }
                }
                None => drop(reports.send(StreamReport::ConnectFailed { connection }).await),
            }
        });
    }

    fn writer(&mut self, connection: ConnectionId, remote: SocketAddr) -> mpsc::Receiver<Bytes> {
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

async fn dial(own: Option<IpAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(own) = own {
        socket.bind((own, 0).into())?;
    }
    socket.connect(remote).await
}

/// Carries one connection until either end closes it.
async fn carry(
    connection: ConnectionId,
    stream: TcpStream,
    mut outbox: mpsc::Receiver<Bytes>,
    reports: mpsc::Sender<StreamReport>,
    write_timeout: Duration,
) {
    // SIP messages are whole when written: waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(ACKNOWLEDGE_TIMEOUT));
    let (mut reader, mut writer) = stream.into_split();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    let bytes = buffer[..length].to_vec();
                    if reports.send(StreamReport::Data { connection, bytes }).await.is_err() {
                        return;
                    }
                }
            },
            next = outbox.recv() => match next {
                Some(bytes) => match tokio::time::timeout(write_timeout, writer.write_all(&bytes)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => break,
                    Err(_) => {
                        tracing::warn!("a SIP connection was cut off: its peer does not read");
                        break;
                    }
                },
                None => {
                    let _ = writer.shutdown().await;
                    break;
                }
            },
        }
    }
    let _ = reports.send(StreamReport::Closed { connection }).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A connection of ours to a peer that accepts it and never reads.
    async fn to_one_that_does_not_read(
        streams: &mut Streams,
        inbox: &mut mpsc::Receiver<StreamReport>,
    ) -> (ConnectionId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = ConnectionId(1);
        streams.connect(connection, listener.local_addr().unwrap());
        let (peer, _) = listener.accept().await.unwrap();
        assert!(matches!(inbox.recv().await, Some(StreamReport::Opened { inbound: false, .. })));
        (connection, peer)
    }

    #[tokio::test]
    async fn a_peer_that_stops_reading_is_reported_as_closed() {
        let (mut streams, mut inbox) = Streams::new(Vec::new());
        streams.write_timeout = Duration::from_millis(50);
        let (connection, _peer) = to_one_that_does_not_read(&mut streams, &mut inbox).await;
        // More than both ends' buffers take.
        assert!(streams.send(connection, Bytes::from(vec![0; 64 << 20])));
        let report = tokio::time::timeout(Duration::from_secs(20), inbox.recv()).await.unwrap();
        assert!(matches!(report, Some(StreamReport::Closed { connection: ConnectionId(1) })), "{report:?}");
    }

    #[tokio::test]
    async fn a_full_queue_is_told_to_whoever_sends() {
        let (mut streams, mut inbox) = Streams::new(Vec::new());
        let (connection, _peer) = to_one_that_does_not_read(&mut streams, &mut inbox).await;
        let big = Bytes::from(vec![0; 1 << 20]);
        let sent = (0..10_000).take_while(|_| streams.send(connection, big.clone())).count();
        assert!((WRITE_QUEUE..10_000).contains(&sent), "{sent}");
        assert_eq!(streams.open(), 0);
        assert!(!streams.send(connection, big), "and stays gone");
    }

    #[tokio::test]
    async fn connections_are_opened_from_the_address_that_trunks_know() {
        let (mut streams, _inbox) = Streams::new(vec!["::1".parse().unwrap(), "127.0.0.77".parse().unwrap()]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        streams.connect(ConnectionId(3), listener.local_addr().unwrap());
        let (_, remote) = listener.accept().await.unwrap();
        assert_eq!(remote.ip(), "127.0.0.77".parse::<IpAddr>().unwrap());
    }

    #[tokio::test]
    async fn a_connection_that_is_refused_is_told() {
        let (mut streams, mut inbox) = Streams::new(Vec::new());
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        streams.connect(ConnectionId(2), free);
        let report = inbox.recv().await;
        assert!(matches!(report, Some(StreamReport::ConnectFailed { connection: ConnectionId(2) })));
    }
}
