//! Connections that carry a stream of messages: TCP, and TLS over it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_trunk::ConnectionId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::{ConnectFailure, Shared, StreamReport};

/// How long the system waits for a peer to acknowledge what was sent (RFC 5482).
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Opens a connection from the address that trunks know.
pub(super) async fn dial(own: Option<IpAddr>, remote: SocketAddr, dscp: u8) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // The first packet of a connection is marked too.
    let _ = crate::driver::mark(&socket2::SockRef::from(&socket), remote, dscp);
    if let Some(own) = own {
        socket.bind((own, 0).into())?;
    }
    socket.connect(remote).await
}

/// Sets what a connection of SIP needs.
pub(super) fn prepare(stream: &TcpStream, remote: SocketAddr, dscp: u8) {
    // SIP messages are whole when written: waiting for more only delays them.
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(stream);
    let _ = socket.set_tcp_user_timeout(Some(ACKNOWLEDGE_TIMEOUT));
    let _ = crate::driver::mark(&socket, remote, dscp);
}

/// Carries one connection until either end closes it. Fails when the peer ends it with an alert of TLS:
/// in TLS 1.3 it refuses our certificate only after our handshake is done. That it is closed is then
/// not reported yet.
pub(super) async fn carry(
    shared: &Shared,
    connection: ConnectionId,
    stream: impl AsyncRead + AsyncWrite,
    mut outbox: mpsc::Receiver<Bytes>,
) -> Result<(), ConnectFailure> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(0) => break,
                Ok(length) => {
                    let bytes = buffer[..length].to_vec();
                    if shared.reports.send(StreamReport::Data { connection, bytes, at: Instant::now() }).await.is_err() {
                        return Ok(());
                    }
                }
                Err(error) => match ConnectFailure::of_handshake(&error) {
                    refused @ ConnectFailure::Refused(_) => return Err(refused),
                    _ => break,
                },
            },
            next = outbox.recv() => {
                let Some(bytes) = next else {
                    let _ = tokio::time::timeout(shared.write_timeout, writer.shutdown()).await;
                    break;
                };
                let written = async {
                    writer.write_all(&bytes).await?;
                    writer.flush().await
                };
                match tokio::time::timeout(shared.write_timeout, written).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => break,
                    Err(_) => {
                        tracing::warn!("a SIP connection was cut off: its peer does not read");
                        break;
                    }
                }
            }
        }
    }
    let _ = shared.reports.send(StreamReport::Closed { connection }).await;
    Ok(())
}
