//! The client against a server that is played here, in virtual time.
#![allow(clippy::unwrap_used)]

use super::*;

const REALM: &str = "example.org";

fn credentials() -> Credentials {
    Credentials { username: "1700000000:peer".into(), password: "secret".into() }
}

fn key() -> hmac::Key {
    long_term_key(b"1700000000:peer", REALM, "secret")
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Numbers of requests; that they differ is enough here.
fn id() -> TransactionId {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut id = [0; 12];
    id[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    id
}

struct Bench {
    client: TurnClient,
    now: Instant,
}

impl Bench {
    fn new(stream: bool) -> Self {
        let now = Instant::now();
        Self { client: TurnClient::allocate(now, credentials(), stream, false, id), now }
    }

    fn allocated(stream: bool) -> Self {
        let mut bench = Self::new(stream);
        bench.challenge(401, b"nonce");
        let request = bench.request(Method::Allocate);
        bench.grant(&request, |writer| {
            writer.put_address(attribute::XOR_RELAYED_ADDRESS, address("192.0.2.1:50000"));
            writer.put(attribute::LIFETIME, &600u32.to_be_bytes());
        });
        let relayed = address("192.0.2.1:50000");
        assert_eq!(bench.client.poll_event(), Some(TurnEvent::Allocated { relayed }));
        assert_eq!(bench.client.relayed(), Some(relayed));
        bench
    }

    /// The next request that the client sends, which must be of this method.
    fn request(&mut self, method: Method) -> Vec<u8> {
        let bytes = self.client.poll_transmit().expect("a request");
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.method, message.class), (method, Class::Request));
        bytes
    }

    fn answer(
        &mut self,
        request: &[u8],
        class: Class,
        key: Option<&hmac::Key>,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        let asked = Message::parse(request).unwrap();
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, class, asked.method, asked.transaction());
        fill(&mut writer);
        if let Some(key) = key {
            writer.sign(key);
        }
        assert_eq!(self.client.handle_input(self.now, &bytes), Input::Taken);
    }

    fn grant(&mut self, request: &[u8], fill: impl FnOnce(&mut Writer<'_>)) {
        self.answer(request, Class::Success, Some(&key()), fill);
    }

    fn refuse(&mut self, request: &[u8], code: u16, nonce: Option<&[u8]>) {
        self.answer(request, Class::Error, None, |writer| {
            writer.put(attribute::ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8]);
            writer.put(attribute::REALM, REALM.as_bytes());
            if let Some(nonce) = nonce {
                writer.put(attribute::NONCE, nonce);
            }
        });
    }

    fn challenge(&mut self, code: u16, nonce: &[u8]) {
        let request = self.client.poll_transmit().expect("a request");
        self.refuse(&request, code, Some(nonce));
    }

    /// What goes to the server at once when the client sends to a peer.
    fn send(&mut self, peer: &str, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = None;
        self.client.send(self.now, address(peer), bytes, &mut |bytes| out = Some(bytes.to_vec()));
        out
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.handle_timeout(self.now);
    }

    fn permitted(peer: &str, stream: bool) -> Self {
        let mut bench = Self::allocated(stream);
        assert_eq!(bench.send(peer, b"check"), None);
        let request = bench.request(Method::CreatePermission);
        bench.grant(&request, |_| {});
        // What has waited goes first.
        let waited = bench.client.poll_transmit().unwrap();
        assert_eq!(Message::parse(&waited).unwrap().attribute(attribute::DATA), Some(&b"check"[..]));
        bench
    }
}

#[test]
fn an_allocation_is_asked_for_with_the_credentials_that_the_challenge_wants() {
    let mut bench = Bench::new(false);
    let first = bench.request(Method::Allocate);
    let message = Message::parse(&first).unwrap();
    assert_eq!(message.attribute(attribute::REQUESTED_TRANSPORT), Some(&[17, 0, 0, 0][..]));
    assert_eq!(message.attribute(attribute::USERNAME), None);
    bench.refuse(&first, 401, Some(b"nonce"));
    let second = bench.request(Method::Allocate);
    let message = Message::parse(&second).unwrap();
    assert_eq!(message.text(attribute::USERNAME), Some("1700000000:peer"));
    assert_eq!(message.text(attribute::REALM), Some(REALM));
    assert_eq!(message.attribute(attribute::NONCE), Some(&b"nonce"[..]));
    assert!(message.is_authentic(&key()));
}

#[test]
fn credentials_that_are_refused_end_it() {
    let mut bench = Bench::new(false);
    bench.challenge(401, b"nonce");
    bench.challenge(401, b"other");
    let reason = "the server refuses the credentials";
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed { reason }));
    assert!(bench.client.is_over());
    assert_eq!(bench.client.poll_transmit(), None);
}

#[test]
fn a_success_that_is_not_signed_by_the_server_is_as_if_it_had_not_come() {
    for forger in [None, Some(&long_term_key(b"1700000000:peer", REALM, "wrong"))] {
        let mut bench = Bench::new(false);
        bench.challenge(401, b"nonce");
        let request = bench.request(Method::Allocate);
        bench.answer(&request, Class::Success, forger, |writer| {
            writer.put_address(attribute::XOR_RELAYED_ADDRESS, address("198.51.100.1:666"));
        });
        assert_eq!(bench.client.poll_event(), None);
        assert_eq!(bench.client.relayed(), None);
        bench.grant(&request, |writer| {
            writer.put_address(attribute::XOR_RELAYED_ADDRESS, address("192.0.2.1:50000"));
        });
        assert_eq!(bench.client.relayed(), Some(address("192.0.2.1:50000")));
    }
}

#[test]
fn a_stale_nonce_is_replaced_a_few_times() {
    let mut bench = Bench::allocated(false);
    assert_eq!(bench.send("198.51.100.7:4000", b"check"), None);
    for nonce in [b"first", b"other", b"third"] {
        bench.challenge(438, nonce);
        let bytes = bench.client.outbox.front().unwrap();
        assert_eq!(Message::parse(bytes).unwrap().attribute(attribute::NONCE), Some(&nonce[..]));
    }
    bench.challenge(438, b"never");
    assert_eq!(bench.client.poll_transmit(), None);
    assert!(bench.client.relayed().is_some(), "the allocation stands without the permission");
}

#[test]
fn a_packet_waits_for_its_permission_and_rtp_gets_a_channel() {
    let peer = "198.51.100.7:4000";
    let mut bench = Bench::permitted(peer, false);
    let direct = bench.send(peer, b"again").unwrap();
    let message = Message::parse(&direct).unwrap();
    assert_eq!((message.method, message.class), (Method::Send, Class::Indication));
    assert_eq!(message.address(attribute::XOR_PEER_ADDRESS), Some(address(peer)));
    let rtp = [0x80, 111, 1, 2, 3];
    assert!(Message::parse(&bench.send(peer, &rtp).unwrap()).is_ok(), "not before it is bound");
    let request = bench.request(Method::ChannelBind);
    let number = Message::parse(&request).unwrap().attribute(attribute::CHANNEL_NUMBER).unwrap().to_vec();
    bench.grant(&request, |_| {});
    let framed = bench.send(peer, &rtp).unwrap();
    assert_eq!(framed, [&number[..2], &[0, 5], &rtp[..]].concat());
    // Another port of the same host is permitted, but has no channel.
    assert!(Message::parse(&bench.send("198.51.100.7:4001", b"check").unwrap()).is_ok());
    assert_eq!(bench.client.poll_transmit(), None);
    // And back.
    let input = bench.client.handle_input(bench.now, &framed);
    assert_eq!(input, Input::Data { peer: address(peer), range: 4..9 });
}

#[test]
fn frames_of_a_stream_are_padded_and_found_again() {
    let peer = "198.51.100.7:4000";
    let mut bench = Bench::permitted(peer, true);
    let rtp = [0x80, 111, 1, 2, 3];
    bench.send(peer, &rtp);
    let request = bench.request(Method::ChannelBind);
    bench.grant(&request, |_| {});
    let framed = bench.send(peer, &rtp).unwrap();
    assert_eq!(framed.len(), 12);
    assert_eq!(frame_length(&framed), Ok(Some(12)));
    assert_eq!(frame_length(&request), Ok(Some(request.len())));
    assert_eq!(frame_length(&framed[..3]), Ok(None));
    assert_eq!(frame_length(b"\xff\0\0\0"), Err(()));
    let input = bench.client.handle_input(bench.now, &framed);
    assert_eq!(input, Input::Data { peer: address(peer), range: 4..9 });
}

#[test]
fn data_of_a_peer_that_was_never_permitted_is_dropped() {
    let mut bench = Bench::permitted("198.51.100.7:4000", false);
    let data = |peer: &str| {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, Class::Indication, Method::Data, [9; 12]);
        writer.put_address(attribute::XOR_PEER_ADDRESS, address(peer)).put(attribute::DATA, b"voice");
        bytes
    };
    let bytes = data("198.51.100.7:4002");
    let Input::Data { peer, range } = bench.client.handle_input(bench.now, &bytes) else { panic!() };
    assert_eq!((peer, &bytes[range]), (address("198.51.100.7:4002"), &b"voice"[..]));
    assert_eq!(bench.client.handle_input(bench.now, &data("198.51.100.8:4000")), Input::Taken);
    assert_eq!(bench.client.handle_input(bench.now, b"\x41\0\0\x01x"), Input::Foreign);
}

#[test]
fn a_forbidden_peer_costs_one_request_and_keeps_nothing() {
    let mut bench = Bench::allocated(false);
    for _ in 0..40 {
        assert_eq!(bench.send("10.0.0.1:5060", b"check"), None);
    }
    assert_eq!(bench.client.waiting.len(), MAX_WAITING);
    let request = bench.request(Method::CreatePermission);
    assert_eq!(bench.client.poll_transmit(), None);
    bench.refuse(&request, 403, None);
    assert!(bench.client.waiting.is_empty());
    assert_eq!(bench.send("10.0.0.1:5060", b"check"), None);
    assert_eq!((bench.client.poll_transmit(), bench.client.waiting.len()), (None, 0));
}

#[test]
fn peers_of_one_allocation_are_bounded() {
    let mut bench = Bench::allocated(false);
    for n in 0..=255u8 {
        bench.send(&format!("198.51.100.{n}:4000"), &[0x80, n]);
    }
    assert_eq!(
        (bench.client.permissions.len(), bench.client.channels.len()),
        (MAX_PERMISSIONS, MAX_CHANNELS)
    );
    assert_eq!(bench.send("[2001:db8::1]:4000", b"check"), None, "another family");
}

/// RFC 8489 6.2.1.
#[test]
fn a_server_that_is_silent_is_asked_seven_times() {
    let mut bench = Bench::new(false);
    let mut sent = 0;
    while !bench.client.is_over() {
        while bench.client.poll_transmit().is_some() {
            sent += 1;
        }
        let due = bench.client.poll_timeout().unwrap();
        bench.now = due;
        bench.client.handle_timeout(due);
    }
    assert_eq!(sent, 7);
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed { reason: "the server does not answer" }));
    let mut bench = Bench::new(true);
    bench.request(Method::Allocate);
    bench.pass(Duration::from_secs(9));
    assert_eq!(bench.client.poll_transmit(), None, "a stream loses nothing");
    bench.pass(Duration::from_secs(2));
    assert!(bench.client.is_over());
}

/// RFC 8656 8, 10 and 12.
#[test]
fn allocation_permission_and_channel_are_refreshed_before_they_end() {
    let peer = "198.51.100.7:4000";
    let mut bench = Bench::permitted(peer, false);
    bench.send(peer, &[0x80, 111]);
    let request = bench.request(Method::ChannelBind);
    bench.grant(&request, |_| {});
    bench.pass(Duration::from_secs(239));
    assert_eq!(bench.client.poll_transmit(), None);
    bench.pass(Duration::from_secs(2));
    let request = bench.request(Method::CreatePermission);
    bench.grant(&request, |_| {});
    bench.pass(Duration::from_secs(240));
    let mut methods = Vec::new();
    while let Some(bytes) = bench.client.poll_transmit() {
        methods.push(Message::parse(&bytes).unwrap().method);
        bench.grant(&bytes, |_| {});
    }
    methods.sort_by_key(|method| format!("{method:?}"));
    assert_eq!(methods, [Method::ChannelBind, Method::CreatePermission, Method::Refresh]);
    assert!(bench.client.relayed().is_some());
    bench.client.close(bench.now);
    let last = bench.request(Method::Refresh);
    assert_eq!(Message::parse(&last).unwrap().number(attribute::LIFETIME), Some(0));
}

#[test]
fn a_server_that_has_forgotten_the_allocation_ends_it() {
    let mut bench = Bench::allocated(false);
    bench.pass(Duration::from_secs(481));
    let request = bench.request(Method::Refresh);
    bench.refuse(&request, 437, None);
    let reason = "the server has forgotten the allocation";
    assert_eq!(bench.client.poll_event(), Some(TurnEvent::Failed { reason }));
    assert_eq!(bench.client.relayed(), None);
}

#[test]
fn nothing_that_a_server_sends_panics() {
    let mut bench = Bench::permitted("198.51.100.7:4000", false);
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..20_000 {
        let mut bytes = vec![0; round % 120];
        for byte in &mut bytes {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = seed as u8;
        }
        if bytes.len() >= 20 {
            let length = (bytes.len() - 20) as u16;
            bytes[..2].copy_from_slice(&[[0, 0x17], [1, 3], [1, 0x13], [0x40, 0]][round % 4]);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&0x2112_a442u32.to_be_bytes());
        }
        let _ = (bench.client.handle_input(bench.now, &bytes), frame_length(&bytes));
    }
}
