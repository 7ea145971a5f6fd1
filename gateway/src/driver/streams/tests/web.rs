//! WebSocket over real sockets (RFC 7118).

use futures::{SinkExt, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

async fn browser(
    at: SocketAddr,
    protocol: Option<&'static str>,
    origin: Option<&'static str>,
) -> Result<(WebSocketStream<TcpStream>, Option<HeaderValue>), Error> {
    let mut request = format!("ws://{at}/").into_client_request()?;
    for (name, value) in [("Sec-WebSocket-Protocol", protocol), ("Origin", origin)] {
        if let Some(value) = value {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    let stream = TcpStream::connect(at).await?;
    let (web, response) = tokio_tungstenite::client_async(request, stream).await?;
    Ok((web, response.headers().get("Sec-WebSocket-Protocol").cloned()))
}

// RFC 7118 4.1, 5.3; RFC 6455 10.2.
#[tokio::test]
async fn a_page_of_an_allowed_origin_speaks_sip() {
    let (mut streams, mut inbox) = Streams::new(settings(&[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepting = streams.listen(Transport::Ws, listener);
    let origin = Some("https://phone.example.com");
    for (protocol, origin, opens) in [
        (Some("sip"), origin, true),
        (Some("chat, sip"), None, true),
        (Some("sip"), Some("https://evil.example.com"), false),
        (Some("chat"), origin, false),
        (None, origin, false),
    ] {
        let (report, web) = tokio::join!(accepted(&mut streams, &mut inbox), browser(at, protocol, origin));
        assert_eq!(web.is_ok(), opens, "{protocol:?} {origin:?}");
        let StreamReport::Opened { connection, transport, .. } = report else {
            let StreamReport::Refused { connection, failure } = report else { panic!("{report:?}") };
            assert!(!opens && failure.as_str() == "websocket", "{failure}");
            streams.close(connection);
            continue;
        };
        assert_eq!(transport, Transport::Ws);
        let (mut web, subprotocol) = web.unwrap();
        assert_eq!(subprotocol.unwrap(), "sip");
        for message in [Message::text("OPTIONS"), Message::binary(&b"\xffOPTIONS"[..])] {
            let sent = message.clone().into_data();
            web.send(message).await.unwrap();
            let StreamReport::Data { bytes, .. } = next(&mut inbox).await else { panic!() };
            assert_eq!(bytes, sent);
        }
        assert!(streams.send(connection, Bytes::from_static(b"SIP/2.0 200 OK")));
        assert_eq!(web.next().await.unwrap().unwrap(), Message::text("SIP/2.0 200 OK"));
        web.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
        assert_eq!(web.next().await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"there?")));
        streams.close(connection);
        assert!(matches!(web.next().await, Some(Ok(Message::Close(_)))));
        assert!(matches!(next(&mut inbox).await, StreamReport::Closed { .. }));
    }
    accepting.abort();
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_the_connection() {
    let (mut streams, mut inbox) = Streams::new(settings(&[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepting = streams.listen(Transport::Ws, listener);
    let (report, web) = tokio::join!(accepted(&mut streams, &mut inbox), browser(at, Some("sip"), None));
    assert!(matches!(report, StreamReport::Opened { .. }));
    let mut web = web.unwrap().0;
    let _ = web.send(Message::text("x".repeat(200_000))).await;
    assert!(matches!(next(&mut inbox).await, StreamReport::Closed { .. }));
    accepting.abort();
}
