//! What other implementations of the overlay are held against: certificates, records, an invite and
//! frames, each as this crate writes it from fixed seeds. The JavaScript client reads the file.
//!
//! `CAUSEWAY_WRITE_VECTORS=1 cargo test -p p2p-edge --test vectors` writes the file anew.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::PathBuf;

use call_model::{Address, CallId, Caller, Cause, Codec, DtmfDigit, Handle, Number};
use libp2p::Multiaddr;
use minicbor::bytes::{ByteArray, ByteVec};
use p2p_edge::calling::{AckCode, Body, Frame, Invite, ResumeToken};
use p2p_edge::identity::{
    Abilities, Assertion, AssignmentClaims, EnrolmentLimits, HandleClaims, NodeBundle, Prefix, Price,
    Request, RevocationReason, UserBundle,
};
use p2p_edge::record::{Device, GatewayOffer, LocationRecord, NumberRecord};
use p2p_edge::testing::{Pki, key};

/// The moment at which everything was made.
const NOW: u64 = 1_790_000_000;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a flat JSON object of texts. None of them needs more escaping than line ends.
fn json(entries: &[(String, String)]) -> String {
    let mut text = String::from("{\n");
    for (at, (name, value)) in entries.iter().enumerate() {
        let comma = if at + 1 < entries.len() { "," } else { "" };
        writeln!(text, "  \"{name}\": \"{}\"{comma}", value.replace('\n', "\\n")).unwrap();
    }
    text + "}\n"
}

fn certificates(pki: &Pki, user: &UserBundle, gateway: &NodeBundle) -> Vec<(&'static str, String)> {
    let revoked = pki.enrolment.revoke(None, 1009, RevocationReason::KeyCompromise, NOW).unwrap();
    let supernode = pki.supernode(5).unwrap();
    vec![
        ("now", NOW.to_string()),
        ("root", pki.root.certificate_pem()),
        ("user_key", user.key.to_pem()),
        ("user_certificate", user.certificate.to_pem()),
        ("user_peer", user.key.peer_id().to_string()),
        ("user_request", Request::write("alice", &user.key).unwrap()),
        ("gateway_chain", hex(&gateway.chain.encode())),
        ("gateway_peer", gateway.key.peer_id().to_string()),
        ("supernode_chain", hex(&supernode.chain.encode())),
        ("revoked_chain", hex(&pki.supernode(9).unwrap().chain.encode())),
        ("revocations", revoked.to_pem()),
    ]
}

fn records(user: &UserBundle, gateway: &NodeBundle) -> Vec<(&'static str, String)> {
    let peer = user.key.peer_id();
    let relay = gateway.key.peer_id();
    let addresses: [Multiaddr; 2] = ["tcp/4001", "tcp/4002/ws"]
        .map(|transport| format!("/ip4/192.0.2.1/{transport}/p2p/{relay}/p2p-circuit").parse().unwrap());
    let location = LocationRecord {
        handle: "alice".parse().unwrap(),
        sequence: NOW * 1000,
        expires_unix: NOW + 600,
        devices: vec![Device { peer, addresses: addresses.to_vec(), abilities: 0, priority: 0 }],
    };
    let number = NumberRecord {
        number: "+442079460018".parse::<Number>().unwrap(),
        handle: "alice".parse::<Handle>().unwrap(),
        sequence: NOW * 1000,
        expires_unix: NOW + 3600,
    };
    let prefix: Prefix = "+44".parse().unwrap();
    let offer = GatewayOffer {
        prefixes: vec![prefix],
        price: Price { micros_per_minute: 12_500, currency: "EUR".parse().unwrap() },
        codecs: vec![Codec::Opus, Codec::Pcma],
        capacity: 100,
        load: 7,
        sequence: NOW * 1000,
        expires_unix: NOW + 300,
    };
    vec![
        ("location", hex(&location.sign(&user.certificate, &user.key).unwrap())),
        ("number", hex(&number.sign(&gateway.chain, &gateway.key).unwrap())),
        ("offer", hex(&offer.sign(&gateway.chain, &gateway.key).unwrap())),
    ]
}

/// What an authority that assigns numbers has said, and what it has said beyond what it may.
fn assignments(pki: &Pki, user: &UserBundle) -> Vec<(&'static str, String)> {
    type Parts = (u8, ByteVec, ByteVec, ByteArray<64>);
    let limits = EnrolmentLimits {
        prefixes: Vec::new(),
        number_prefixes: vec!["+4420".parse().unwrap()],
        only_numbers: true,
    };
    let (seed, validity) = ([0xb1; 32], pki.enrolment.validity());
    let authority = pki.root.init_limited_enrolment("Numbers", seed, 7, validity, Some(&limits)).unwrap();
    let claims = |number: &str| AssignmentClaims {
        number: number.parse().unwrap(),
        handle: "alice".parse().unwrap(),
        serial: 70,
        sequence: NOW * 1000,
        expires_unix: NOW + 100 * 86_400,
    };
    let good = authority.assign_number(claims("+442079460018")).unwrap().encode();
    let (_, certificate, ..): Parts = minicbor::decode(&good).unwrap();
    // The same key signs anything; it is the certificate that says what that is worth.
    let boundless = pki.root.init_enrolment("Numbers", seed, 8, validity).unwrap();
    let limited = |bytes: &[u8]| {
        let (kind, _, body, signature): Parts = minicbor::decode(bytes).unwrap();
        hex(&minicbor::to_vec((kind, &certificate, body, signature)).unwrap())
    };
    let beyond = boundless.assign_number(claims("+441632960018")).unwrap().encode();
    let claims = HandleClaims { numbers: Vec::new(), ..user.certificate.claims().clone() };
    let forged = boundless.issue_handle(claims).unwrap().encode();
    let revoked = authority.revoke(None, 70, RevocationReason::Withdrawn, NOW).unwrap();
    vec![
        ("assignment", hex(&good)),
        ("assignment_beyond", limited(&beyond)),
        ("user_of_numbers", limited(&forged)),
        ("assignment_revocations", revoked.to_pem()),
    ]
}

fn invite(user: &UserBundle) -> Invite {
    let call = CallId::new(NOW * 1000, 0x0123_4567_89ab_cdef);
    let from = Caller {
        address: Some("alice".parse().unwrap()),
        display_name: Some("Alice Ó".into()),
        private: true,
    };
    let to: Address = "+442079460600".parse().unwrap();
    let (media, nonce, expires_unix) = ("v=0\r\n".to_owned(), [7; 16], NOW + 60);
    let assertion = Assertion { call, from: &from, to: &to, nonce, expires_unix, media: &media };
    let signature = assertion.sign(&user.key).to_vec();
    Invite { call, certificate: user.certificate.encode(), from, to, media, nonce, expires_unix, signature }
}

fn frames(user: &UserBundle) -> Vec<(&'static str, String)> {
    let token = ResumeToken::new([9; 16]);
    let call = CallId::new(NOW * 1000, 1);
    let bodies = [
        ("invite", Body::Invite { invite: Box::new(invite(user)), token }),
        ("trying", Body::Trying),
        ("ringing", Body::Ringing),
        ("progress", Body::Progress { media: "v=0\r\n".into() }),
        ("answer", Body::Answer { media: "v=0\r\ns=-\r\n".repeat(30) }),
        ("candidate", Body::Candidate { candidate: "1 1 udp 1 192.0.2.1 9 typ host".into() }),
        ("update", Body::Update { hold: true }),
        ("dtmf", Body::Dtmf { digit: DtmfDigit::from_event(11).unwrap(), duration_ms: 160 }),
        ("refer", Body::Refer { target: "bob".parse().unwrap() }),
        ("message", Body::Message { text: "hello".into() }),
        ("bye", Body::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() }),
        ("cancel", Body::Cancel { answered_elsewhere: true }),
        ("reject", Body::Reject { cause: Cause::USER_BUSY, sip_status: Some(486), text: "busy".into() }),
        ("ping", Body::Ping),
        (
            "connected",
            Body::Connected {
                party: Caller { address: Some("+15550100".parse().unwrap()), ..Caller::default() },
            },
        ),
    ];
    let numbered =
        bodies.into_iter().zip(1..).map(|((name, body), sequence)| (name, Frame { sequence, body }));
    let ack = Body::Ack { acknowledged: 300, code: AckCode::Misplaced, token: Some(token) };
    let others = [("ack", ack), ("resume", Body::Resume { call, token, received: 70_000 })];
    let others = others.into_iter().map(|(name, body)| (name, Frame { sequence: 0, body }));
    numbered.chain(others).map(|(name, frame)| (name, hex(&frame.encode()))).collect()
}

#[test]
fn the_javascript_client_is_held_against_what_this_crate_writes() {
    let pki = Pki::new(NOW).unwrap();
    let device = key(1);
    let certificate = pki
        .enrolment
        .issue_handle(HandleClaims {
            handle: "alice".parse().unwrap(),
            keys: vec![device.public()],
            serial: 2001,
            validity: pki.validity(),
            abilities: Abilities::CALLS.with(Abilities::TEXT),
            numbers: vec!["+442079460018".parse().unwrap()],
        })
        .unwrap();
    let user = UserBundle { key: device, certificate };
    let gateway = pki.gateway(3, &["+44".parse().unwrap(), "+1555".parse().unwrap()]).unwrap();
    let owned = |(name, value): (&str, String)| (name.to_owned(), value);
    let mut entries: Vec<_> = certificates(&pki, &user, &gateway).into_iter().map(owned).collect();
    entries.extend(records(&user, &gateway).into_iter().map(owned));
    entries.extend(assignments(&pki, &user).into_iter().map(owned));
    entries.extend(frames(&user).into_iter().map(|(name, value)| (format!("frame_{name}"), value)));
    let text = json(&entries);

    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../peer/js/test/vectors.json");
    if std::env::var_os("CAUSEWAY_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap();
    assert!(
        held == text,
        "the vectors are others now: write {} anew, and see what its readers say",
        path.display()
    );
}
