//! SIP over TCP: one small task per connection, a bounded queue each way.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use sip_trunk::ConnectionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Messages that may wait to be written to one connection.
const WRITE_QUEUE: usize = 256;
/// Pieces of data that may wait for the signalling loop.
const READ_QUEUE: usize = 1024;
/// Connections in all, and from one address.
const MAX_CONNECTIONS: usize = 1024;
const MAX_PER_SOURCE: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// Connections refused because there were too many.
    pub(crate) refused: u64,
}

impl Streams {
    pub(crate) fn new() -> (Self, mpsc::Receiver<StreamReport>) {
        let (reports, inbox) = mpsc::channel(READ_QUEUE);
        // The top bit tells inbound connections from those that the endpoint numbers.
        (Self { connections: HashMap::new(), reports, next_inbound: 1 << 63, refused: 0 }, inbox)
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
        tokio::spawn(carry(connection, stream, writer, self.reports.clone()));
        Some(connection)
    }

    /// Opens a connection; how it went comes as a report.
    pub(crate) fn connect(&mut self, connection: ConnectionId, remote: SocketAddr) {
        let writer = self.writer(connection, remote);
        let reports = self.reports.clone();
        tokio::spawn(async move {
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(remote)).await;
            match attempt {
                Ok(Ok(stream)) => {
                    let Ok(local) = stream.local_addr() else { return };
                    let opened = StreamReport::Opened { connection, local, remote, inbound: false };
                    if reports.send(opened).await.is_ok() {
                        carry(connection, stream, writer, reports).await;
                    }
                }
                _ => drop(reports.send(StreamReport::ConnectFailed { connection }).await),
            }
        });
    }

    fn writer(&mut self, connection: ConnectionId, remote: SocketAddr) -> mpsc::Receiver<Bytes> {
        let (writer, outbox) = mpsc::channel(WRITE_QUEUE);
        self.connections.insert(connection, Connection { writer, remote: remote.ip() });
        outbox
    }

    /// Sends on a connection. A peer that does not read is cut off when its queue is full.
    pub(crate) fn send(&mut self, connection: ConnectionId, bytes: Bytes) {
        if let Some(open) = self.connections.get(&connection)
            && open.writer.try_send(bytes).is_err()
        {
            self.connections.remove(&connection);
        }
    }

    /// Closes a connection after what was sent on it.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }
}

/// Carries one connection until either end closes it.
async fn carry(
    connection: ConnectionId,
    stream: TcpStream,
    mut outbox: mpsc::Receiver<Bytes>,
    reports: mpsc::Sender<StreamReport>,
) {
    // SIP messages are whole when written: waiting for more only delays them.
    let _ = stream.set_nodelay(true);
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
                Some(bytes) => if writer.write_all(&bytes).await.is_err() { break },
                None => {
                    let _ = writer.shutdown().await;
                    break;
                }
            },
        }
    }
    let _ = reports.send(StreamReport::Closed { connection }).await;
}
