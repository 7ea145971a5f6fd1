//! The targets of the relay: each takes any bytes and panics if a promise is broken.

use std::net::SocketAddr;
use std::time::Instant;

use p2p_edge::identity::{Credential, NodeKey, RevocationList};
use p2p_edge::testing::{Pki, TurnClient};
use p2p_edge::turn::{
    Class, Client, Frame, HEADROOM, MAX_PACKET, Message, Path, PeerPolicy, Reaction, Secret, Server,
    Settings, TAILROOM, TurnLimits, first_frame,
};

const NOW: u64 = 1_790_000_000;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

fn peer() -> SocketAddr {
    address("198.51.100.7:4000")
}

/// A server with one client, which has an allocation and a channel to one peer.
struct Bench {
    server: Server,
    now: Instant,
    client: Client,
    allocation: p2p_edge::turn::AllocationId,
}

impl Bench {
    fn new() -> Self {
        let key = NodeKey::from_seed([7; 32]);
        let secret = Secret::of(&key);
        let pki = Pki::new(NOW).expect("authority");
        let user = pki.user(&"alice".parse().expect("handle"), 1).expect("user");
        let credential = Credential::Handle(user.certificate);
        let trust = pki.trust().expect("trust");
        let party = credential.verify(&trust, &RevocationList::default(), NOW).expect("certificate");
        let (username, password) = secret.issue(&user.key.peer_id(), party.standing(), NOW + 3600);
        let mut server = Server::new(Settings {
            secret,
            policy: PeerPolicy::default(),
            limits: TurnLimits::default(),
            families: (true, true),
            revocations: RevocationList::default(),
            seed: 7,
        });
        let now = Instant::now();
        let client = Client { address: address("192.0.2.1:1000"), path: Path::Datagram(0) };
        let mut turn = TurnClient::new(&username, password.expose());
        let mut out = Vec::new();
        let first = turn.allocate();
        assert_eq!(server.handle_client(now, NOW, client, &first, &mut out), Reaction::Reply);
        turn.hear(&out).expect("a nonce");
        let second = turn.allocate();
        let reaction = server.handle_client(now, NOW, client, &second, &mut out);
        assert!(matches!(reaction, Reaction::Open { .. }));
        let allocation =
            server.opened(now, Some(address("203.0.113.9:50000")), &mut out).expect("an allocation");
        let bind = turn.bind(0x4000, peer());
        assert_eq!(server.handle_client(now, NOW, client, &bind, &mut out), Reaction::Reply);
        Self { server, now, client, allocation }
    }
}

/// A datagram of whoever has an allocation, and of a stranger: nothing is relayed but to the peer who
/// was permitted; what is answered is a request; nobody without a password gets anything.
pub fn turn(data: &[u8]) {
    let mut bench = Bench::new();
    let stranger = Client { address: address("192.0.2.66:1000"), path: Path::Datagram(0) };
    for (client, is_ours) in [(bench.client, true), (stranger, false)] {
        let mut out = Vec::new();
        match bench.server.handle_client(bench.now, NOW, client, data, &mut out) {
            Reaction::Nothing => {}
            Reaction::Relay { to, data: range, .. } => {
                // A permission is for an address, whatever the port (RFC 8656, section 9).
                assert!(is_ours && to.ip() == peer().ip() && range.end <= data.len());
            }
            Reaction::Reply => {
                let asked = Message::parse(data).expect("nothing else is answered");
                let said = Message::parse(&out).expect("well formed");
                assert!(asked.class == Class::Request && asked.transaction() == said.transaction());
                assert!(out.len() <= 100, "strangers get short answers");
            }
            Reaction::Open { .. } => panic!("no password, no address"),
        }
    }
    assert_eq!(bench.server.counts().allocations, 1);
    let mut buffer = vec![0; HEADROOM];
    buffer.extend_from_slice(data);
    buffer.extend_from_slice(&[0; TAILROOM]);
    let range = HEADROOM..HEADROOM + data.len();
    let heard = bench.server.handle_peer(bench.now, bench.allocation, peer(), &mut buffer, range);
    if let Some((client, range)) = heard {
        assert!(client == bench.client && buffer[range].ends_with(data));
    }
}

/// Bytes of a stream: the same packets, however they are cut, and none that is too long.
pub fn turn_stream(data: &[u8]) {
    let whole = packets(&[data]);
    let (one, other) = data.split_at(data.len() / 2);
    assert_eq!(packets(&[one, other]), whole);
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(packets(&bytes), whole);
}

/// Cuts a stream; the last item says whether it went on to its end.
fn packets(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
    let (mut input, mut found) = (Vec::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match first_frame(&input) {
                Frame::Partial => break,
                Frame::Broken => return (found, false),
                Frame::Whole { length, taken } => {
                    assert!(length <= taken && taken <= MAX_PACKET);
                    found.push(input[..length].to_vec());
                    input.drain(..taken);
                }
            }
        }
        assert!(input.len() < MAX_PACKET, "a packet that is not whole is kept, and no more");
    }
    (found, true)
}
