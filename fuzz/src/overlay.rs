//! The targets of the overlay: each takes any bytes and panics if a promise is broken.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use call_model::{Availability, CallId, Caller, Codec, Handle};
use p2p_edge::calling::{
    Body, CallSession, Frame, FrameDecoder, Invite, ResumeToken, SessionCommand, SessionState, SessionTimers,
};
use p2p_edge::identity::{
    Assertion, AssignmentClaims, BackupCost, BackupFiles, BackupRandom, Credential, HeldList, NodeBundle,
    NumberAssignment, Prefix, Price, Renewal, RevocationDelta, RevocationList, RevocationReason,
    SignedRevocations, Trust, UserBundle, open_backup, seal_backup,
};
use p2p_edge::presence::{
    Agent, Client, Frame as PresenceFrame, FrameDecoder as PresenceDecoder, Home, Members, PresenceLimits,
    SignedText, Text, Verifier,
};
use p2p_edge::record::{
    Device, GatewayOffer, LocationRecord, NumberRecord, RecordKey, Source, Store, StoreLimits, validate,
};
use p2p_edge::testing::{Pki, key};

/// The moment at which everything was made.
const UNIX: u64 = 1_790_000_000;
const PASSPHRASE: &str = "correct horse battery staple";

/// What there is before the bytes come.
struct World {
    trust: Trust,
    none: RevocationList,
    alice: UserBundle,
    bob: UserBundle,
    gateway: NodeBundle,
    lists: [SignedRevocations; 2],
    assignment: NumberAssignment,
    renewal: Renewal,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let pki = Pki::new(UNIX).expect("authorities");
        let user = |name: &str, number| pki.user(&handle(name), number).expect("a user");
        let first = pki.enrolment.revoke(None, 1009, RevocationReason::KeyCompromise, UNIX).expect("a list");
        let second =
            pki.enrolment.revoke(Some(&first), 2009, RevocationReason::Withdrawn, UNIX).expect("a list");
        let claims = AssignmentClaims {
            number: "+442079460018".parse().expect("a number"),
            handle: handle("alice"),
            serial: 70,
            sequence: UNIX * 1000,
            expires_unix: UNIX + 86_400,
        };
        let alice = user("alice", 1);
        let old = Credential::Handle(alice.certificate.clone());
        World {
            trust: pki.trust().expect("a root"),
            none: RevocationList::default(),
            renewal: Renewal::new(&old, &alice.key, Some(&key(9)), UNIX).expect("a request"),
            bob: user("bob", 2),
            gateway: pki.gateway(3, &["+44".parse().expect("a prefix")]).expect("a gateway"),
            lists: [first, second],
            assignment: pki.enrolment.assign_number(claims).expect("an assignment"),
            alice,
        }
    })
}

fn handle(text: &str) -> Handle {
    text.parse().expect("a handle")
}

fn records() -> [(RecordKey, Vec<u8>); 4] {
    let World { alice, gateway, assignment, .. } = world();
    let device = Device {
        peer: alice.key.peer_id(),
        addresses: vec!["/ip4/192.0.2.1/tcp/4001".parse().expect("an address")],
        abilities: 0,
        priority: 0,
    };
    let location = LocationRecord {
        handle: handle("alice"),
        sequence: UNIX * 1000,
        expires_unix: UNIX + 600,
        devices: vec![device],
    };
    let number = NumberRecord {
        number: "+442079460018".parse().expect("a number"),
        handle: handle("alice"),
        sequence: UNIX * 1000,
        expires_unix: UNIX + 3600,
    };
    let prefix: Prefix = "+44".parse().expect("a prefix");
    let offer = GatewayOffer {
        prefixes: vec![prefix.clone()],
        price: Price { micros_per_minute: 12_500, currency: "EUR".parse().expect("a currency") },
        codecs: vec![Codec::Opus],
        capacity: 100,
        load: 7,
        sequence: UNIX * 1000,
        expires_unix: UNIX + 300,
    };
    let slot = RecordKey::Number(number.number.clone());
    [
        (
            RecordKey::Location(handle("alice")),
            location.sign(&alice.certificate, &alice.key).expect("a location"),
        ),
        (slot.clone(), number.sign(&gateway.chain, &gateway.key).expect("a number")),
        (slot, assignment.encode()),
        (RecordKey::Gateway(prefix), offer.sign(&gateway.chain, &gateway.key).expect("an offer")),
    ]
}

fn invite() -> Invite {
    let World { alice, .. } = world();
    let call = CallId::new(UNIX * 1000, 7);
    let from = Caller { address: Some("alice".parse().expect("an address")), ..Caller::default() };
    let to = "bob".parse().expect("an address");
    let (media, nonce, expires_unix) = ("v=0\r\n".to_owned(), [7; 16], UNIX + 60);
    let assertion = Assertion { call, from: &from, to: &to, nonce, expires_unix, media: &media };
    let signature = assertion.sign(&alice.key).to_vec();
    Invite { call, certificate: alice.certificate.encode(), from, to, media, nonce, expires_unix, signature }
}

fn text() -> SignedText {
    let World { bob, .. } = world();
    let text = Text {
        id: [5; 16],
        from: handle("bob"),
        to: handle("alice"),
        sent_unix_ms: UNIX * 1000,
        text: "hello".to_owned(),
    };
    SignedText::seal(text, bob.certificate.encode(), 0, &bob.key).expect("a text")
}

/// What a device says that has just come on.
fn device_frames() -> Vec<PresenceFrame> {
    let now = Instant::now();
    let mut client = device(&world().bob, now);
    let friends = BTreeSet::from([handle("alice")]);
    client.set(now, UNIX * 1000, Availability::Busy, "until three").expect("a state");
    client.set_rules(UNIX * 1000, false, friends.clone(), BTreeSet::new()).expect("rules");
    client.set_contacts(&friends).expect("contacts");
    client.handle_connected(now, UNIX * 1000, key(3).peer_id());
    client.send_text(now, UNIX * 1000, handle("alice"), "hello", [6; 16]).expect("a text");
    client.set(now, UNIX * 1000, Availability::Away, "").expect("a state");
    std::iter::from_fn(|| client.poll_transmit()).collect()
}

fn device(user: &UserBundle, now: Instant) -> Client {
    Client::new(user.clone(), [4; 32], limits(), now).expect("a device")
}

fn limits() -> PresenceLimits {
    PresenceLimits {
        handles: 20,
        links: 4,
        clients: 4,
        watchers: 8,
        subscriptions: 20,
        ..PresenceLimits::default()
    }
}

/// The entries with which the corpora begin: target, name, bytes.
pub fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| seeds.push((target, name.to_owned(), bytes));
    let frames = device_frames();
    let mut all = vec![9];
    for frame in &frames {
        all.extend(frame.encode());
        add("presence", frame.name(), [vec![3], frame.encode()].concat());
    }
    add("presence", "a-device-that-comes-on", all);
    add("text", "hello", text().encode());
    for (name, bodies) in [
        ("ringing", vec![Body::Ringing, Body::Ping]),
        ("resume", vec![Body::Resume { call: invite().call, token: ResumeToken::new([9; 16]), received: 1 }]),
        (
            "message-and-bye",
            vec![
                Body::Message { text: "hello".into() },
                Body::Refer { target: "carol".parse().expect("an address") },
                Body::Update { hold: true },
                Body::Bye { cause: call_model::Cause::NORMAL_CALL_CLEARING, text: String::new() },
            ],
        ),
    ] {
        let frames = (2..).zip(bodies).flat_map(|(sequence, body)| Frame { sequence, body }.encode());
        add("call", name, std::iter::once(5).chain(frames).collect());
    }
    let first = Body::Invite { invite: Box::new(invite()), token: ResumeToken::new([9; 16]) };
    add("call", "invite", [vec![200], Frame { sequence: 1, body: first }.encode()].concat());
    for (at, (_, value)) in records().into_iter().enumerate() {
        add("record", ["location", "number", "assignment", "offer"][at], value);
    }
    let World { alice, gateway, lists, assignment, renewal, .. } = world();
    add("credential", "user", alice.certificate.encode());
    add("credential", "gateway", gateway.chain.encode());
    add("credential", "assignment", assignment.encode());
    add("credential", "renewal", renewal.encode());
    add("credential", "revocations", lists[1].encode());
    add("delta", "held", lists[0].held().encode());
    let delta = lists[1].since(&lists[0].held()).expect("a change");
    add("delta", "one-more", delta.encode());
    add("backup", "two-files", backup().into_bytes());
    seeds
}

fn backup() -> String {
    let files: BackupFiles = [("key.pem", b"secret".to_vec()), ("root.pem", b"public".to_vec())]
        .map(|(name, contents)| (name.to_owned(), contents.into()))
        .into();
    let cost = BackupCost { memory_kib: 64, passes: 1 };
    seal_backup(&files, PASSPHRASE, cost, BackupRandom { salt: [1; 16], nonce: [2; 24] }).expect("a backup")
}

/// Bytes of a stream of presence; the first says how they are cut. They are taken as those of a device
/// and of a home at an agent, of an agent at a home, and of an agent at a device.
pub fn presence(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let read = |size: usize| {
        let (mut decoder, mut frames) = (PresenceDecoder::new(), Vec::new());
        for mut piece in data.chunks(size.max(1)) {
            loop {
                match decoder.feed(&mut piece) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(_) => return (frames, true),
                }
            }
        }
        (frames, false)
    };
    let (frames, _) = read(data.len());
    assert_eq!(frames, read(usize::from(*size)).0, "cut into pieces of {size}");
    let World { trust, none, bob, alice, .. } = world();
    let judge = Verifier { trust, revocations: none, unix: UNIX };
    let (now, me, other) = (Instant::now(), key(3).peer_id(), key(4).peer_id());
    let mut home = Home::new(me, limits(), now);
    home.handle_members(Members::new([me]));
    home.handle_connected(other);
    let mut agent = Agent::new(limits(), 1, now);
    agent.handle_members(now, [other]);
    let device_peer = bob.key.peer_id();
    let credential = bob.certificate.encode();
    agent.handle_device_connected(now, device_peer, handle("bob"), 0, credential).expect("room for one");
    agent.handle_home_connected(now, other);
    let mut client = device(alice, now);
    client.set_contacts(&BTreeSet::from([handle("bob")])).expect("contacts");
    client.handle_connected(now, UNIX * 1000, me);
    let mut out = 0;
    for frame in frames.iter().cloned() {
        home.handle_frame(now, UNIX, &judge, other, frame.clone());
        agent.handle_device_frame(now, device_peer, frame.clone());
        agent.handle_home_frame(now, other, frame.clone());
        client.handle_frame(now, UNIX * 1000, &judge, frame);
        while home.poll_event().is_some() || agent.poll_event().is_some() || client.poll_event().is_some() {}
        let said: Vec<PresenceFrame> = std::iter::from_fn(|| home.poll_transmit(now).map(|(_, frame)| frame))
            .chain(std::iter::from_fn(|| agent.poll_transmit().map(|(_, frame)| frame)))
            .chain(std::iter::from_fn(|| client.poll_transmit()))
            .collect();
        for frame in said {
            let bytes = frame.encode();
            let read = PresenceDecoder::new().feed(&mut bytes.as_slice());
            assert_eq!(read, Ok(Some(frame)), "what is sent can be read");
            out += 1;
        }
    }
    assert!(out <= 64 * (frames.len() + 1), "{} frames, {out} in answer", frames.len());
    assert!(home.handles().0 <= 20 && agent.counts().0 <= 1 && agent.counts().1 <= 20);
    home.handle_timeout(now + Duration::from_secs(60), UNIX + 60);
    agent.handle_timeout(now + Duration::from_secs(60));
    client.handle_timeout(now + Duration::from_secs(60), (UNIX + 60) * 1000);
}

/// The names of the frames in an entry of the corpus of [`presence`], up to what cannot be read.
pub fn names(entry: &[u8]) -> Vec<&'static str> {
    let (mut rest, mut decoder) = (entry.get(1..).unwrap_or_default(), PresenceDecoder::new());
    let frames = std::iter::from_fn(|| decoder.feed(&mut rest).ok().flatten());
    frames.map(|frame| frame.name()).collect()
}

/// A text with its certificate and signature.
pub fn signed_text(data: &[u8]) {
    if let Ok(text) = SignedText::decode(data) {
        assert_eq!(text.encode(), data, "a text has one form");
    }
}

/// Bytes of a stream of call signalling behind its invite; the first says how they are cut.
pub fn call(data: &[u8]) {
    let Some((size, data)) = data.split_first() else { return };
    let read = |size: usize| {
        let (mut decoder, mut frames) = (FrameDecoder::new(), Vec::new());
        for mut piece in data.chunks(size.max(1)) {
            loop {
                match decoder.feed(&mut piece) {
                    Ok(Some(frame)) => frames.push(frame.encode()),
                    Ok(None) => break,
                    Err(_) => return frames,
                }
            }
        }
        frames
    };
    assert_eq!(read(data.len()), read(usize::from(*size)), "cut into pieces of {size}");
    let (now, timers, token) = (Instant::now(), SessionTimers::default(), ResumeToken::new([9; 16]));
    let first = Frame { sequence: 1, body: Body::Invite { invite: Box::new(invite()), token } };
    let callee = CallSession::incoming(first, timers, now).expect("an invite").taking_refer(true);
    let caller = CallSession::outgoing(invite(), token, timers, now).expect("an invite");
    for mut session in [callee, caller] {
        let _ = session.handle_command(now, SessionCommand::Answer { media: "v=0\r\n".into() });
        let mut out = 0;
        for piece in data.chunks(usize::from(*size).max(1)) {
            session.handle_bytes(now, piece);
            while let Some(bytes) = session.poll_transmit() {
                assert!(matches!(FrameDecoder::new().feed(&mut &bytes[..]), Ok(Some(_))));
                out += 1;
            }
        }
        assert!(out <= 300, "{} bytes, {out} frames in answer", data.len());
        let (mut at, mut steps) = (now, 0);
        while let Some(due) = session.poll_timeout() {
            at = due.max(at);
            session.handle_timeout(at);
            while session.poll_transmit().is_some() {}
            steps += 1;
            assert!(steps < 1_000, "it does not come to rest");
        }
        assert_eq!(session.state(), SessionState::Done, "every timer has run out");
        let ends = std::iter::from_fn(|| session.poll_event());
        let ends = ends.filter(|event| matches!(event, p2p_edge::calling::SessionEvent::Ended { .. }));
        assert_eq!(ends.count(), 1, "a call ends once");
    }
}

/// A record, under every key.
pub fn record(data: &[u8]) {
    let World { trust, none, .. } = world();
    let honest = records();
    let mut store = Store::new(StoreLimits::default());
    for (slot, _) in &honest {
        for key in slot.all_copies() {
            if validate(&key, data, trust, none, UNIX).is_ok() {
                let known = honest.iter().any(|(own, value)| own == slot && value == data);
                assert!(known, "nobody has signed this for {slot}");
            }
            let kept = store.put(&key, data.to_vec(), Source::Local, trust, none, UNIX).is_ok();
            assert!(!kept || store.get(&key, UNIX).is_some_and(|entry| entry.value == data));
        }
    }
    assert!(
        RecordKey::parse_copy(data).is_ok_and(|(key, copy)| key.to_copy_bytes(copy) == data)
            || RecordKey::parse_copy(data).is_err()
    );
}

/// A certificate, chain, list or request.
pub fn credential(data: &[u8]) {
    let World { trust, none, alice, gateway, assignment, lists, .. } = world();
    if let Ok(credential) = Credential::decode(data) {
        assert_eq!(credential.encode(), data, "a credential has one form");
        let known = [alice.certificate.encode(), gateway.chain.encode()];
        let verified = credential.verify(trust, none, UNIX).is_ok();
        assert!(!verified || known.iter().any(|own| own == data), "nobody has issued this");
    }
    if let Ok(read) = NumberAssignment::decode(data) {
        assert_eq!(read.encode(), data, "an assignment has one form");
        assert!(read.verify(trust, none, UNIX).is_err() || read == *assignment, "nobody has said this");
    }
    if let Ok(list) = SignedRevocations::decode(data) {
        let own = lists.iter().any(|own| own.encode() == data);
        let taken = RevocationList::default().apply(list, trust, UNIX);
        assert!(own || taken != Ok(true), "nobody has revoked this");
    }
    if let Ok(request) = Renewal::decode(data) {
        assert_eq!(request.encode(), data, "a request has one form");
    }
}

/// What was added to a list of revocations, and how much of one is held.
pub fn delta(data: &[u8]) {
    let World { trust, lists: [first, second], .. } = world();
    if let Ok(held) = HeldList::decode(data) {
        assert_eq!(held.encode(), data, "it has one form");
        let _ = second.since(&held);
    }
    if let Ok(delta) = RevocationDelta::decode(data)
        && let Ok(list) = delta.apply_to(first)
    {
        let own = list.encode() == second.encode() || list.encode() == first.encode();
        let taken = RevocationList::default().apply(list, trust, UNIX);
        assert!(own || taken != Ok(true), "nobody has revoked this");
    }
}

/// A backup.
pub fn backup_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(files) = open_backup(&text, PASSPHRASE) {
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["key.pem", "root.pem"], "nothing else was ever sealed");
        assert_eq!(files["key.pem"].as_slice(), b"secret");
    }
}
