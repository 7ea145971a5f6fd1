//! Attacks on the relay: each says whether it was successful. `identity::attacks` runs every one with
//! its defence on, off and on again.

use super::*;
use crate::defence::Defence;
use crate::identity::RevocationReason;
use crate::turn::credential::User;

/// Returns an attack on one check of this module.
pub(crate) fn attack_on(defence: Defence) -> fn() -> bool {
    match defence {
        Defence::TurnIntegrity => request_with_a_guessed_password,
        Defence::TurnExpiry => credential_of_yesterday,
        Defence::TurnRevocation => relay_of_a_revoked_user,
        Defence::TurnNonce => request_recorded_and_sent_by_another,
        Defence::TurnUser => allocation_taken_over_by_another_user,
        Defence::TurnPeer => relaying_into_the_private_network,
        Defence::TurnPermission => data_of_a_stranger,
        Defence::TurnQuota => allocations_without_end,
        Defence::TurnBandwidth => video_through_the_relay,
        Defence::TurnAnswers => reflection_to_a_victim,
        other => panic!("{other:?} is not of this module"),
    }
}

fn request_with_a_guessed_password() -> bool {
    let mut world = World::new();
    let user = world.client(1);
    let mut forger = TurnClient::new(user.username(), "guessed");
    let answer = world.allocate(datagram(66), &mut forger);
    assert!(answer.code.is_none_or(|code| code == 401), "{answer:?}");
    answer.relayed.is_some()
}

fn credential_of_yesterday() -> bool {
    let mut world = World::new();
    let mut client = world.client_until(1, NOW - 1);
    let answer = world.allocate(datagram(1), &mut client);
    assert!(answer.code.is_none_or(|code| code == 401), "{answer:?}");
    answer.relayed.is_some()
}

/// The allocation of a revoked user ends at once, and it gets no other.
fn relay_of_a_revoked_user() -> bool {
    let mut world = World::new();
    let (who, mut client) = world.connected(1);
    let list = world.pki.enrolment.revoke(None, 2001, RevocationReason::KeyCompromise, NOW).unwrap();
    let mut revocations = RevocationList::default();
    assert!(revocations.apply(list, &world.pki.trust().unwrap(), NOW).unwrap());
    world.server.revoke(revocations);
    let data = TurnClient::channel(0x4000, b"voice");
    let goes_on = matches!(world.client_sends(who, &mut client, &data), Heard::Relayed(..));
    let again = world.allocate(datagram(2), &mut client).relayed.is_some();
    assert_eq!(goes_on, again);
    assert!(world.allocate(datagram(3), &mut world.client(3)).relayed.is_some(), "others go on");
    again
}

/// The nonce of a request that was seen on the way is worth nothing from another address, nor after an
/// hour.
fn request_recorded_and_sent_by_another() -> bool {
    let mut world = World::new();
    let (who, mut client) = (datagram(1), world.client(1));
    let first = client.allocate();
    world.ask(who, &mut client, &first);
    let recorded = client.allocate();
    let elsewhere = world.ask(datagram(66), &mut client, &recorded);
    world.pass(Duration::from_secs(3500));
    let refreshed = world.client(1).allocate();
    let _ = world.ask(who, &mut client, &refreshed);
    world.pass(Duration::from_secs(101));
    let late = world.ask(who, &mut world.client_until(1, NOW + 86_400), &recorded);
    for answer in [&elsewhere, &late] {
        assert!(answer.code.is_none_or(|code| matches!(code, 438 | 401)), "{answer:?}");
    }
    elsewhere.relayed.is_some()
}

/// RFC 8656 5: a second user behind the five-tuple of the first.
fn allocation_taken_over_by_another_user() -> bool {
    let mut world = World::new();
    let (who, _) = world.connected(1);
    let mut other = world.client(2);
    let first = other.refresh(0);
    assert_eq!(world.ask(who, &mut other, &first).code, Some(401));
    let refresh = other.refresh(0);
    let answer = world.ask(who, &mut other, &refresh);
    assert!(answer.code.is_none_or(|code| code == 441), "{answer:?}");
    world.server.poll_closed().is_some()
}

/// The services of the machine, its network, and the addresses that stand for them.
fn relaying_into_the_private_network() -> bool {
    let own = "203.0.113.99".parse().unwrap();
    let policy = PeerPolicy { own: vec![own], own_ports: vec![50_000..=60_000], ..PeerPolicy::default() };
    let mut world = World::with(TurnLimits::default(), policy);
    let (who, mut client) = world.connected(1);
    let mut reached = 0;
    let targets = ["127.0.0.1:80", "10.1.2.3:80", "169.254.169.254:80", "203.0.113.99:22"];
    for (number, target) in (0x4100..).zip(targets) {
        let bind = client.bind(number, at(target));
        let answer = world.ask(who, &mut client, &bind);
        assert!(answer.code.is_none_or(|code| code == 403), "{answer:?}");
        let permit = client.permit(&[at(target)]);
        let permitted = world.ask(who, &mut client, &permit).code;
        assert!(permitted.is_none_or(|code| code == 403), "{target}: {permitted:?}");
        let send = client.send(at(target), b"GET /");
        reached += usize::from(matches!(world.client_sends(who, &mut client, &send), Heard::Relayed(..)));
    }
    assert!(matches!(reached, 0 | 4), "{reached}");
    // Media and other relayed addresses of the same machine stay within reach.
    let bind = client.bind(0x4200, at("203.0.113.99:50004"));
    assert_eq!(world.ask(who, &mut client, &bind).code, None);
    reached > 0
}

fn data_of_a_stranger() -> bool {
    let mut world = World::new();
    let (who, mut client) = world.connected(1);
    let into = world.peer_sends("198.51.100.8:4000", b"spam").is_some();
    let send = client.send(at("198.51.100.8:4000"), b"spam");
    assert_eq!(matches!(world.client_sends(who, &mut client, &send), Heard::Relayed(..)), into);
    into
}

fn allocations_without_end() -> bool {
    let limits = TurnLimits { allocations_per_peer: 3, ..TurnLimits::default() };
    let mut world = World::with(limits, PeerPolicy::default());
    let mut client = world.client(1);
    let codes: Vec<_> = (1..=5).map(|n| world.allocate(datagram(n), &mut client).code).collect();
    assert!(codes[..3].iter().all(Option::is_none), "{codes:?}");
    assert!(codes[3..].iter().all(|code| code.is_none_or(|code| code == 486)), "{codes:?}");
    codes[3].is_none()
}

fn video_through_the_relay() -> bool {
    let mut world = World::new();
    let (who, mut client) = world.connected(1);
    let packet = TurnClient::channel(0x4000, &[7; 1200]);
    let mut bytes = 0;
    for _ in 0..10_000 {
        world.pass(Duration::from_millis(1));
        bytes += match world.client_sends(who, &mut client, &packet) {
            Heard::Relayed(_, data) => data.len(),
            _ => 0,
        };
    }
    let call = TurnLimits::default().bytes_per_second as usize * 10;
    assert!(bytes > call, "a call goes through: {bytes}");
    bytes > call * 2
}

/// Somebody writes another's address into requests: the answers go there.
fn reflection_to_a_victim() -> bool {
    let mut world = World::new();
    let (victim, mut client) = (datagram(9), world.client(1));
    let (mut sent, mut answered) = (0, 0);
    for _ in 0..1000 {
        for request in [client.binding(), TurnClient::new("x", "y").allocate()] {
            let (mut out, unix) = (Vec::new(), world.unix());
            sent += request.len();
            if world.server.handle_client(world.now, unix, victim, &request, &mut out) == Reaction::Reply {
                answered += out.len();
            }
        }
    }
    let other = client.binding();
    assert!(world.ask(datagram(10), &mut client, &other).mapped.is_some(), "others are answered");
    answered > sent / 2
}

#[test]
fn a_user_name_is_worth_nothing_by_itself() {
    for name in [
        "",
        "alice",
        "1:2:3",
        "1790003600:12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X:AAAA",
        "99999999999999999999:x:y",
        "::::",
    ] {
        assert_eq!(User::parse(name.as_bytes()), None, "{name}");
    }
    assert_eq!(User::parse(&[b'1'; 257]), None);
    assert_eq!(User::parse(&[0xff, 0xfe]), None);
    let world = World::new();
    let user = User::parse(world.client(1).username().as_bytes()).unwrap();
    assert_eq!((user.peer, user.expiry), (crate::testing::key(1).peer_id(), NOW + 3600));
}

#[test]
fn credentials_of_one_supernode_are_good_at_no_other_and_after_a_restart() {
    let world = World::new();
    let same = Secret::of(&crate::testing::key(200));
    let other = Secret::of(&crate::testing::key(201));
    let user = world.client(1).username().to_owned();
    let user = User::parse(user.as_bytes()).unwrap();
    let issue = |secret: &Secret| secret.issue(&user.peer, &user.standing, user.expiry);
    assert_eq!(issue(&world.secret), issue(&same));
    assert_eq!(issue(&world.secret).0, issue(&other).0, "the name says the same");
    assert_ne!(issue(&world.secret).1, issue(&other).1);
    let beyond = world.secret.issue(&user.peer, &user.standing, u64::MAX).0;
    let end = User::parse(beyond.as_bytes()).unwrap().expiry;
    assert_eq!(end, user.standing.not_after(), "not beyond the certificate");
    assert_eq!(format!("{:?}", issue(&same).1), "Password(not shown)");
}
