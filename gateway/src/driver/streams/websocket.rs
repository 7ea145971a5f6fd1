//! SIP over WebSocket (RFC 7118): the telephones of browsers.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use sip_trunk::ConnectionId;
use sip_trunk::wire::limits::MessageLimits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::verify::ConnectFailure;
use super::{Shared, StreamReport};

/// How often a client is pinged. Who was not heard for that long afterwards is gone.
const PING: Duration = Duration::from_secs(30);
/// The subprotocol (RFC 7118 4.1).
const SUBPROTOCOL: &str = "sip";

/// Does the handshake (RFC 6455 4.2, RFC 7118 4.1).
pub(super) async fn accept<S>(stream: S, origins: &[String]) -> Result<WebSocketStream<S>, ConnectFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = MessageLimits::default();
    let largest = limits.header_bytes + limits.body_bytes;
    let config = WebSocketConfig::default().max_message_size(Some(largest)).max_frame_size(Some(largest));
    #[allow(clippy::result_large_err)]
    let check = |request: &Request, response: Response| check(request, response, origins);
    tokio_tungstenite::accept_hdr_async_with_config(stream, check, Some(config))
        .await
        .map_err(|error| ConnectFailure::WebSocket(error.to_string()))
}

/// Refuses pages of other origins and clients that do not speak SIP.
#[allow(clippy::result_large_err)]
fn check(request: &Request, mut response: Response, origins: &[String]) -> Result<Response, ErrorResponse> {
    let refuse = |status: StatusCode, why: &str| {
        let mut refused = ErrorResponse::new(Some(why.to_owned()));
        *refused.status_mut() = status;
        Err(refused)
    };
    // RFC 6455 10.2. What is no browser says nothing, or what it likes.
    let allowed = |origin: &HeaderValue| {
        origins.iter().any(|known| known == "*" || known.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
    };
    if request.headers().get_all(header::ORIGIN).iter().any(|origin| !allowed(origin)) {
        return refuse(StatusCode::FORBIDDEN, "this origin is not allowed here");
    }
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let sip = offered
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim().eq_ignore_ascii_case(SUBPROTOCOL));
    if !sip {
        return refuse(StatusCode::BAD_REQUEST, "the subprotocol sip is spoken here");
    }
    let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    Ok(response)
}

/// Carries one connection until either end closes it.
pub(super) async fn carry<S>(
    shared: &Shared,
    connection: ConnectionId,
    mut web: WebSocketStream<S>,
    mut outbox: mpsc::Receiver<Bytes>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ping = interval_at(Instant::now() + PING, PING);
    let mut heard = true;
    loop {
        tokio::select! {
            message = web.next() => {
                heard = true;
                let bytes = match message {
                    Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
                    Some(Ok(Message::Binary(bytes))) => bytes.to_vec(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                };
                if shared.reports.send(StreamReport::Data { connection, bytes, at: std::time::Instant::now() }).await.is_err() {
                    return;
                }
            }
            next = outbox.recv() => {
                let Some(bytes) = next else {
                    let _ = timeout(shared.write_timeout, web.close(None)).await;
                    break;
                };
                // RFC 7118 5.3: text, unless the bytes are none.
                let message = match Utf8Bytes::try_from(bytes.clone()) {
                    Ok(text) => Message::Text(text),
                    Err(_) => Message::Binary(bytes),
                };
                if !matches!(timeout(shared.write_timeout, web.send(message)).await, Ok(Ok(()))) {
                    break;
                }
            }
            _ = ping.tick() => {
                let sent = timeout(shared.write_timeout, web.send(Message::Ping(Bytes::new())));
                if !heard || !matches!(sent.await, Ok(Ok(()))) {
                    break;
                }
                heard = false;
            }
        }
    }
    let _ = shared.reports.send(StreamReport::Closed { connection }).await;
}
