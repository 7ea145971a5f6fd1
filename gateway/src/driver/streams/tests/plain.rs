//! TCP: limits, queues, and the mark of what is sent.

use tokio::io::AsyncReadExt;

use super::*;

/// A connection of ours to a peer that accepts it and never reads.
async fn to_one_that_does_not_read(
    streams: &mut Streams,
    inbox: &mut mpsc::Receiver<StreamReport>,
) -> (ConnectionId, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connection = ConnectionId(1);
    streams.connect(connection, Transport::Tcp, listener.local_addr().unwrap(), None);
    let (peer, _) = listener.accept().await.unwrap();
    assert!(matches!(inbox.recv().await, Some(StreamReport::Opened { inbound: false, .. })));
    (connection, peer)
}

#[tokio::test]
async fn a_peer_that_stops_reading_is_reported_as_closed() {
    let (mut streams, mut inbox) = Streams::new(settings(&[]));
    streams.shared.write_timeout = Duration::from_millis(50);
    let (connection, _peer) = to_one_that_does_not_read(&mut streams, &mut inbox).await;
    // More than both ends' buffers take.
    assert!(streams.send(connection, Bytes::from(vec![0; 64 << 20])));
    let report = next(&mut inbox).await;
    assert!(matches!(report, StreamReport::Closed { connection: ConnectionId(1) }), "{report:?}");
}

#[tokio::test]
async fn a_full_queue_is_told_to_whoever_sends() {
    let (mut streams, mut inbox) = Streams::new(settings(&[]));
    let (connection, _peer) = to_one_that_does_not_read(&mut streams, &mut inbox).await;
    let big = Bytes::from(vec![0; 1 << 20]);
    let sent = (0..10_000).take_while(|_| streams.send(connection, big.clone())).count();
    assert!((WRITE_QUEUE..10_000).contains(&sent), "{sent}");
    assert_eq!(streams.open(), 0);
    assert!(!streams.send(connection, big), "and stays gone");
}

#[tokio::test]
async fn connections_are_opened_from_the_address_that_trunks_know() {
    let (mut streams, _inbox) = Streams::new(settings(&["::1", "127.0.0.77"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    streams.connect(ConnectionId(3), Transport::Tcp, listener.local_addr().unwrap(), None);
    let (_, remote) = listener.accept().await.unwrap();
    assert_eq!(remote.ip(), "127.0.0.77".parse::<IpAddr>().unwrap());
}

#[tokio::test]
async fn a_connection_that_is_refused_is_told() {
    let (mut streams, mut inbox) = Streams::new(settings(&[]));
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    streams.connect(ConnectionId(2), Transport::Tcp, free, None);
    let report = inbox.recv().await;
    assert!(matches!(
        report,
        Some(StreamReport::ConnectFailed {
            connection: ConnectionId(2),
            failure: ConnectFailure::Connect(_),
            ..
        })
    ));
}

#[tokio::test]
async fn one_source_has_no_more_than_its_share_of_connections() {
    let (mut streams, mut inbox) = Streams::new(settings(&[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let accepting = streams.listen(Transport::Tcp, listener);
    let mut peers = Vec::new();
    for _ in 0..MAX_PER_SOURCE {
        peers.push(TcpStream::connect(at).await.unwrap());
        assert!(matches!(accepted(&mut streams, &mut inbox).await, StreamReport::Opened { .. }));
    }
    let mut refused = TcpStream::connect(at).await.unwrap();
    let StreamReport::Accepted { transport, stream, local, remote } = next(&mut inbox).await else {
        panic!()
    };
    assert_eq!(streams.accept(transport, stream, (local, remote)), None);
    assert_eq!((streams.open(), streams.refused), (MAX_PER_SOURCE, 1));
    assert_eq!(refused.read(&mut [0]).await.unwrap(), 0, "it is closed");
    accepting.abort();
}

// RFC 2474, RFC 4594 4.1 and 4.3: signalling is CS3, over IPv4 and IPv6.
#[tokio::test]
async fn f26_signalling_is_marked_over_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (mut streams, mut inbox) = Streams::new(settings(&[]));
        let listener = TcpListener::bind(address).await.unwrap();
        streams.connect(ConnectionId(1), Transport::Tcp, listener.local_addr().unwrap(), None);
        let (_peer, remote) = listener.accept().await.unwrap();
        assert!(matches!(next(&mut inbox).await, StreamReport::Opened { .. }));
        let socket = tcp::dial(None, listener.local_addr().unwrap(), 24).await.unwrap();
        let raw = socket2::SockRef::from(&socket);
        let mark = if remote.is_ipv4() { raw.tos_v4() } else { raw.tclass_v6() };
        assert_eq!(mark.unwrap() >> 2, 24, "{address}");
        // What is accepted is marked anew.
        let accepted = listener.accept().await.unwrap().0;
        tcp::prepare(&accepted, remote, 24);
        let raw = socket2::SockRef::from(&accepted);
        let mark = if remote.is_ipv4() { raw.tos_v4() } else { raw.tclass_v6() };
        assert_eq!(mark.unwrap() >> 2, 24, "{address}");
    }
}

// RFC 2474, RFC 4594 4.1: so is what goes by UDP, and what listeners accept.
#[tokio::test]
async fn f26_listeners_of_both_families_are_marked() {
    use crate::driver::SipSockets;
    let free = |ip: &str| std::net::UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
    let (four, six) = (free("127.0.0.1"), free("::1"));
    let listeners =
        [(Transport::Udp, four), (Transport::Tcp, four), (Transport::Udp, six), (Transport::Tls, six)];
    let sockets = SipSockets::bind(&listeners, 24).await.unwrap();
    for (socket, at) in &sockets.udp {
        let raw = socket2::SockRef::from(socket);
        assert_eq!(if at.is_ipv4() { raw.tos_v4() } else { raw.tclass_v6() }.unwrap() >> 2, 24, "{at}");
    }
    for (transport, socket) in &sockets.tcp {
        let at = socket.local_addr().unwrap();
        let _peer = TcpStream::connect(at).await.unwrap();
        let accepted = socket.accept().await.unwrap().0;
        let raw = socket2::SockRef::from(&accepted);
        let mark = if at.is_ipv4() { raw.tos_v4() } else { raw.tclass_v6() };
        assert_eq!(mark.unwrap() >> 2, 24, "{transport:?} {at}");
    }
    assert_eq!((sockets.udp.len(), sockets.tcp.len()), (2, 2));
}
