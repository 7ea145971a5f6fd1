//! The TURN server of a supernode over real sockets: how a peer gets a credential, and that it is
//! good by datagrams, TCP and TLS until it is revoked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use minicbor::{Decode, Encode};
use p2p_edge::identity::RevocationReason;
use p2p_edge::node::{
    IceServer, IceTransport, NodeCommand, NodeConfig, Refusal, TurnCertificate, TurnConfig,
};
use p2p_edge::testing::{Pki, TurnAnswer, TurnClient};
use p2p_edge::turn::{Class, Frame, TurnLimits, TurnRefusal, first_frame};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::attacks::Attacker;
use super::clients::{ask, hello};
use super::support::{Running, handle, pki, start, supernode, try_start, unix, user};

const PATIENCE: Duration = Duration::from_secs(10);

/// A supernode with a relay on loopback that may relay to loopback.
fn with_turn(pki: &Pki, seed: u8, bootstrap: &[&Running], turn: TurnConfig) -> NodeConfig {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let turn =
        TurnConfig { udp: vec![any], tcp: vec![any], allow: vec!["127.0.0.0/8".parse().unwrap()], ..turn };
    NodeConfig { turn: Some(turn), ..supernode(pki, seed, bootstrap) }
}

/// How a client reaches its server.
enum Link {
    Datagrams(UdpSocket),
    Stream(Box<dyn ReadWrite>, Vec<u8>),
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

impl Link {
    fn datagrams(server: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(server).unwrap();
        Link::Datagrams(socket)
    }

    fn tcp(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Link::Stream(Box::new(stream), Vec::new())
    }

    fn tls(server: SocketAddr, name: &str, roots: RootCertStore) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        Link::Stream(Box::new(StreamOwned::new(connection, stream)), Vec::new())
    }

    fn send(&mut self, packet: &[u8]) {
        match self {
            Link::Datagrams(socket) => drop(socket.send(packet).unwrap()),
            Link::Stream(stream, _) => stream.write_all(packet).unwrap(),
        }
    }

    /// The next packet; `None` where the far end has closed.
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        match self {
            Link::Datagrams(socket) => socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()),
            Link::Stream(stream, input) => loop {
                if let Frame::Whole { length, taken } = first_frame(input) {
                    let packet = input[..length].to_vec();
                    input.drain(..taken);
                    return Some(packet);
                }
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return None,
                    Ok(read) => input.extend_from_slice(&buffer[..read]),
                }
            },
        }
    }

    fn ask(&mut self, client: &mut TurnClient, request: &[u8]) -> TurnAnswer {
        self.send(request);
        client.hear(&self.next().expect("an answer")).unwrap()
    }

    /// Allocates, and binds a channel to a peer. Returns the relayed address.
    fn connect(&mut self, client: &mut TurnClient, peer: SocketAddr) -> SocketAddr {
        let request = client.allocate();
        assert_eq!(self.ask(client, &request).code, Some(401));
        let request = client.allocate();
        let answer = self.ask(client, &request);
        let relayed = answer.relayed.unwrap_or_else(|| panic!("{answer:?}"));
        let request = client.bind(0x4000, peer);
        assert_eq!(self.ask(client, &request).class, Class::Success);
        relayed
    }
}

fn endpoint(server: &IceServer, transport: IceTransport) -> SocketAddr {
    server.endpoints.iter().find(|at| at.transport == transport).unwrap().address
}

fn client_of(server: &IceServer) -> TurnClient {
    TurnClient::new(&server.username, server.password.expose())
}

fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A packet from the client to its peer, and one back.
fn exchange(link: &mut Link, socket: &UdpSocket, relayed: SocketAddr, n: u8) {
    let voice = vec![n; 173];
    link.send(&TurnClient::channel(0x4000, &voice));
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&voice[..], relayed));
    socket.send_to(&voice, relayed).unwrap();
    let back = link.next().unwrap();
    assert_eq!((&back[..4], &back[4..4 + voice.len()]), (&[0x40, 0, 0, 173][..], &voice[..]));
}

/// A certificate for a name, and the roots that hold it.
fn certificate(name: &str) -> (TurnCertificate, RootCertStore) {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.der().clone()).unwrap();
    (TurnCertificate { chain: made.pem(), key: key.serialize_pem() }, roots)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_user_gets_relays_and_speaks_through_them() {
    let pki = pki();
    let (certificate, roots) = certificate("turn.example.org");
    let tls = TurnConfig {
        tls: vec!["127.0.0.1:0".parse().unwrap()],
        certificate: Some(certificate),
        tls_name: Some("turn.example.org".into()),
        ..TurnConfig::default()
    };
    let first = start(with_turn(&pki, 1, &[], tls)).await;
    let mut second = start(with_turn(&pki, 2, &[&first], TurnConfig::default())).await;
    let mut third = start(supernode(&pki, 3, &[&first])).await;
    second.online().await;
    third.online().await;
    let mut alice = start(user(&pki, "alice", 11, &[&first, &second, &third])).await;
    alice.online().await;
    alice.until("three supernodes", |status| status.certified.len() == 3).await;
    let began = Instant::now();
    let servers = alice.handle.ice_servers().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "one has no relay, and says so: {:?}", began.elapsed());
    let mut peers: Vec<&str> = servers.iter().map(|server| server.peer.as_str()).collect();
    peers.sort_unstable();
    let mut expected = [first.handle.peer_id(), second.handle.peer_id()];
    expected.sort_unstable();
    assert_eq!(peers, expected);
    let again = alice.handle.ice_servers().await.unwrap();
    assert_eq!(servers, again, "they are kept");
    assert!(servers.iter().all(|server| server.expires_unix > unix() + 7 * 3600));

    let server = servers.iter().find(|server| server.peer == first.handle.peer_id()).unwrap();
    let (udp, tcp, tls) = (
        endpoint(server, IceTransport::Udp),
        endpoint(server, IceTransport::Tcp),
        endpoint(server, IceTransport::Tls),
    );
    assert_eq!(
        server.uris(),
        [
            format!("stun:{udp}"),
            format!("turn:{udp}?transport=udp"),
            format!("turn:{tcp}?transport=tcp"),
            format!("turns:turn.example.org:{}?transport=tcp", tls.port()),
        ]
    );
    tokio::task::block_in_place(|| {
        let links = [Link::datagrams(udp), Link::tcp(tcp), Link::tls(tls, "turn.example.org", roots)];
        for mut link in links {
            let (socket, address) = peer();
            let relayed = link.connect(&mut client_of(server), address);
            for n in 0..50 {
                exchange(&mut link, &socket, relayed, n);
            }
        }
        // Two users of one relay meet at their relayed addresses.
        let (mut one, mut two) = (Link::datagrams(udp), Link::tcp(tcp));
        let (mut client, mut other) = (client_of(server), client_of(server));
        let (_socket, address) = peer();
        let relayed = one.connect(&mut client, address);
        let relayed_too = two.connect(&mut other, relayed);
        let bind = client.bind(0x4001, relayed_too);
        assert_eq!(one.ask(&mut client, &bind).code, None);
        one.send(&TurnClient::channel(0x4001, b"hello"));
        assert_eq!(two.next().unwrap(), b"\x40\0\0\x05hello");
    });
    let turn = first.handle.status().await.turn.unwrap();
    assert_eq!((turn.counts.allocated, turn.endpoints.len()), (5, 3));
    assert!(turn.counts.packets >= 302, "{turn:?}");
    assert_eq!(turn.endpoints, server.endpoints);
}

#[derive(Encode)]
#[cbor(map)]
struct Nothing {}

#[derive(Decode, Debug)]
#[cbor(map)]
struct Granted {
    #[n(0)]
    username: String,
    #[n(1)]
    password: String,
    #[n(4)]
    refused: Option<String>,
}

async fn credential(client: &mut Attacker, victim: &Running) -> Granted {
    let bytes = ask(client, "turn", victim, minicbor::to_vec(Nothing {}).unwrap()).await.unwrap();
    minicbor::decode(&bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn only_who_has_proved_itself_gets_a_credential_and_not_too_often() {
    let pki = pki();
    let node = start(with_turn(&pki, 1, &[], TurnConfig::default())).await;
    let plain = start(supernode(&pki, 2, &[])).await;
    let bundle = pki.user(&handle("alice"), 40).unwrap();
    let mut client = Attacker::new(&bundle.key);
    client.connect(&node).await;
    assert_eq!(credential(&mut client, &node).await.refused.as_deref(), Some("unproven"));
    assert_eq!(node.handle.status().await.refused(Refusal::TurnUnproven), 1);
    hello(&mut client, &node, &bundle).await;
    let granted = credential(&mut client, &node).await;
    assert_eq!(granted.refused, None);
    assert!(granted.username.contains(&bundle.key.peer_id().to_string()) && granted.password.len() == 44);
    let mut asked = 0;
    while credential(&mut client, &node).await.refused.is_none() {
        asked += 1;
        assert!(asked < 100, "never refused");
    }
    assert_eq!(credential(&mut client, &node).await.refused.as_deref(), Some("rate"));
    assert!(node.handle.status().await.refused(Refusal::TurnRate) >= 2);

    assert!(ask(&mut client, "turn", &node, vec![0xff]).await.is_none());
    assert_eq!(node.handle.status().await.refused(Refusal::MessageMalformed), 1);
    let mut other = Attacker::new(&bundle.key);
    other.connect(&plain).await;
    hello(&mut other, &plain, &bundle).await;
    assert_eq!(credential(&mut other, &plain).await.refused.as_deref(), Some("none"));
    assert_eq!(plain.handle.status().await.turn, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_relay_of_a_revoked_user_ends() {
    let pki = pki();
    let node = start(with_turn(&pki, 1, &[], TurnConfig::default())).await;
    let mut alice = start(user(&pki, "alice", 11, &[&node])).await;
    alice.online().await;
    let servers = alice.handle.ice_servers().await.unwrap();
    let (mut client, (socket, address)) = (client_of(&servers[0]), peer());
    let mut link = Link::datagrams(endpoint(&servers[0], IceTransport::Udp));
    tokio::task::block_in_place(|| {
        let relayed = link.connect(&mut client, address);
        exchange(&mut link, &socket, relayed, 1);
    });
    // The serial that the test authority gives the user with key 11.
    let list = pki.enrolment.revoke(None, 2011, RevocationReason::KeyCompromise, unix()).unwrap();
    node.handle.send(NodeCommand::Revocations(list)).await.unwrap();
    node.until("no allocation", |status| status.turn.as_ref().unwrap().counts.allocations == 0).await;
    let turn = node.handle.status().await.turn.unwrap();
    assert_eq!(turn.counts.refused(TurnRefusal::Revoked), 1);
    tokio::task::block_in_place(|| {
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        link.send(&TurnClient::channel(0x4000, b"voice"));
        assert!(socket.recv(&mut [0; 100]).is_err(), "nothing is relayed any more");
        let mut link = Link::datagrams(endpoint(&servers[0], IceTransport::Udp));
        // Its nonce is that of another socket.
        for code in [Some(438), Some(401)] {
            let request = client.allocate();
            assert_eq!(link.ask(&mut client, &request).code, code, "its credential is good for nothing");
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_that_say_nothing_or_nonsense_are_closed() {
    let pki = pki();
    let limits = TurnLimits { connections_per_address: 4, ..TurnLimits::default() };
    let node = start(with_turn(&pki, 1, &[], TurnConfig { limits, ..TurnConfig::default() })).await;
    let endpoints = node.handle.status().await.turn.unwrap().endpoints;
    let tcp = endpoints.iter().find(|at| at.transport == IceTransport::Tcp).unwrap().address;
    let _open = tokio::task::block_in_place(|| {
        let mut nonsense = Link::tcp(tcp);
        nonsense.send(b"\xffGET / HTTP/1.1\r\n\r\n");
        assert_eq!(nonsense.next(), None);
        let mut silent: Vec<Link> = (0..4).map(|_| Link::tcp(tcp)).collect();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(Link::tcp(tcp).next(), None, "one more than an address may have");
        let mut client = TurnClient::new("x", "y");
        let request = client.binding();
        // A message in three pieces is one message.
        silent[0].send(&request[..1]);
        silent[0].send(&request[1..19]);
        silent[0].send(&request[19..]);
        assert!(client.hear(&silent[0].next().unwrap()).unwrap().mapped.is_some());
        let began = Instant::now();
        assert_eq!(silent[1].next(), None);
        assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
        let request = client.binding();
        assert!(silent[0].ask(&mut client, &request).mapped.is_some(), "who has spoken may be silent");
        silent
    });
    let turn = node.handle.status().await.turn.unwrap();
    assert_eq!(turn.connections, 1, "{turn:?}");
    assert_eq!(turn.counts.refused(TurnRefusal::ConnectionQuota), 1);
    assert_eq!(turn.counts.refused(TurnRefusal::ConnectionBroken), 1);
    assert_eq!(turn.counts.refused(TurnRefusal::ConnectionTimeout), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_relay_that_cannot_start_says_why() {
    let pki = pki();
    let address = |text: &str| vec![text.parse().unwrap()];
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let (certificate, _) = certificate("x");
    let broken = TurnCertificate { key: "no key".into(), ..certificate.clone() };
    let cases = [
        (TurnConfig::default(), "TURN listens on no address".to_owned()),
        (TurnConfig { udp: vec![at], ..TurnConfig::default() }, format!("cannot listen on {at} for TURN: ")),
        (TurnConfig { tls: address("127.0.0.1:0"), ..TurnConfig::default() }, "has no certificate".into()),
        (
            TurnConfig { tls: address("127.0.0.1:0"), certificate: Some(broken), ..TurnConfig::default() },
            "no private key in PEM form".into(),
        ),
        (TurnConfig { udp: address("0.0.0.0:0"), ..TurnConfig::default() }, "no external address".into()),
    ];
    for (turn, expected) in cases {
        let config = NodeConfig { turn: Some(turn), ..supernode(&pki, 1, &[]) };
        let error = try_start(config).await.err().unwrap().to_string();
        assert!(error.contains(&expected), "{error}");
    }
    let any = TurnConfig {
        udp: address("0.0.0.0:0"),
        external: vec!["203.0.113.1".parse().unwrap()],
        ..TurnConfig::default()
    };
    let node = start(NodeConfig { turn: Some(any), ..supernode(&pki, 1, &[]) }).await;
    let turn = node.handle.status().await.turn.unwrap();
    assert_eq!(turn.endpoints[0].address.ip().to_string(), "203.0.113.1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn credentials_are_renewed_at_half_of_their_time_and_new_servers_asked_at_once() {
    let pki = pki();
    let short = || TurnConfig { lifetime: Duration::from_secs(4), ..TurnConfig::default() };
    let first = start(with_turn(&pki, 1, &[], short())).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    alice.online().await;
    let before = alice.handle.ice_servers().await.unwrap();
    assert_eq!((alice.handle.ice_servers().await.unwrap(), before.len()), (before.clone(), 1));
    // A relay that is there only now, and is found by way of the first.
    let _second = start(with_turn(&pki, 2, &[&first], TurnConfig::default())).await;
    alice.until("another supernode", |status| status.certified.len() == 2).await;
    assert_eq!(alice.handle.ice_servers().await.unwrap().len(), 2);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let after = alice.handle.ice_servers().await.unwrap();
    let of = |servers: &[IceServer]| {
        servers.iter().find(|server| server.peer == first.handle.peer_id()).unwrap().expires_unix
    };
    assert!(of(&after) >= of(&before) + 2, "{before:?} {after:?}");
}
