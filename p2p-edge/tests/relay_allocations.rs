//! Proves that no packet which is relayed allocates: a counting allocator watches the server at work.
// A global allocator cannot be written without `unsafe`; this one forwards every call.
#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use p2p_edge::identity::{Credential, NodeKey, RevocationList};
use p2p_edge::testing::{Pki, TurnClient};
use p2p_edge::turn::{
    Client, HEADROOM, Path, PeerPolicy, Reaction, Secret, Server, Settings, TAILROOM, TurnLimits,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every method forwards to the system allocator with the arguments it was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: u64 = 1_790_000_000;

#[test]
fn a_minute_of_relayed_calls_allocates_nothing() {
    let secret = Secret::of(&NodeKey::from_seed([7; 32]));
    let pki = Pki::new(NOW).unwrap();
    let user = pki.user(&"alice".parse().unwrap(), 1).unwrap();
    let credential = Credential::Handle(user.certificate);
    let party = credential.verify(&pki.trust().unwrap(), &RevocationList::default(), NOW).unwrap();
    let (username, password) = secret.issue(&user.key.peer_id(), party.standing(), NOW + 3600);
    let mut server = Server::new(Settings {
        secret,
        policy: PeerPolicy::default(),
        limits: TurnLimits::default(),
        families: (true, true),
        revocations: RevocationList::default(),
        seed: 7,
    });
    let start = Instant::now();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (peer, other) = (address("198.51.100.7:4000"), address("198.51.100.7:4001"));
    let mut out = Vec::with_capacity(1024);
    let mut allocations = Vec::new();
    for (port, path) in [(1000, Path::Datagram(0)), (1001, Path::Stream(1))] {
        let client = Client { address: SocketAddr::from(([192, 0, 2, 1], port)), path };
        let mut turn = TurnClient::new(&username, password.expose());
        let request = turn.allocate();
        server.handle_client(start, NOW, client, &request, &mut out);
        turn.hear(&out).unwrap();
        let request = turn.allocate();
        let reaction = server.handle_client(start, NOW, client, &request, &mut out);
        assert!(matches!(reaction, Reaction::Open { .. }));
        let relayed = SocketAddr::from(([203, 0, 113, 9], port));
        let id = server.opened(start, Some(relayed), &mut out).unwrap();
        let request = turn.bind(0x4000, peer);
        assert_eq!(server.handle_client(start, NOW, client, &request, &mut out), Reaction::Reply);
        // The same bytes each time: an indication has no answer by whose id it would be told apart.
        allocations.push((client, id, turn.send(other, &[9; 172])));
    }
    let channel = TurnClient::channel(0x4000, &[7; 172]);
    let stranger = Client { address: address("203.0.113.66:1"), path: Path::Datagram(0) };
    let mut buffer = vec![1; HEADROOM + 172 + TAILROOM];
    let range = HEADROOM..HEADROOM + 172;

    let before = ALLOCATIONS.with(Cell::get);
    for frame in 0..3_000 {
        let now = start + Duration::from_millis(20) * frame;
        server.handle_timeout(now);
        for (client, id, indication) in &allocations {
            // In turns: both at once would be more than one allocation may carry.
            let packet = if frame % 2 == 0 { &channel } else { indication };
            let relayed = server.handle_client(now, NOW, *client, packet, &mut out);
            assert!(matches!(relayed, Reaction::Relay { .. }));
            let from = if frame % 2 == 0 { peer } else { other };
            assert!(server.handle_peer(now, *id, from, &mut buffer, range.clone()).is_some());
            assert!(server.handle_peer(now, *id, stranger.address, &mut buffer, range.clone()).is_none());
        }
        assert_eq!(server.handle_client(now, NOW, stranger, &channel, &mut out), Reaction::Nothing);
    }
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    assert_eq!(server.counts().packets, 3_000 * 4);
}
