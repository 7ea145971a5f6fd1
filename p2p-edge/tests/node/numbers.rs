//! Numbers that an authority has assigned, which need no gateway to lead to their users.

use std::time::{Duration, Instant};

use call_model::Address;
use futures::StreamExt;
use libp2p::kad;
use p2p_edge::identity::{AssignmentClaims, Authority, EnrolmentLimits, NumberAssignment, RevocationReason};
use p2p_edge::node::{NodeCommand, NodeError, Refusal};
use p2p_edge::record::{RecordKey, ValidRecord};
use p2p_edge::testing::{Pki, key};

use super::attacks::Attacker;
use super::support::{Running, gateway, handle, number, pki, prefix, start, three_supernodes, unix, user};

const NUMBER: &str = "+442079460018";

/// An authority for +4420 that is not on the network.
fn authority(pki: &Pki) -> Authority {
    let limits =
        EnrolmentLimits { prefixes: Vec::new(), number_prefixes: vec![prefix("+4420")], only_numbers: true };
    let validity = pki.enrolment.validity();
    pki.root.init_limited_enrolment("Numbers", [0xb1; 32], 7, validity, Some(&limits)).unwrap()
}

fn claims(name: &str, serial: u64) -> AssignmentClaims {
    AssignmentClaims {
        number: number(NUMBER),
        handle: handle(name),
        serial,
        sequence: unix() * 1000 + serial,
        expires_unix: unix() + 30 * 86_400,
    }
}

async fn leads_to(node: &Running, who: Option<&str>) {
    let begin = Instant::now();
    loop {
        let found = node.handle.look_up(RecordKey::Number(number(NUMBER))).await.unwrap();
        let to = match &found.record {
            Some(ValidRecord::Number(valid)) => Some(valid.record.handle.to_string()),
            _ => None,
        };
        if to.as_deref() == who {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(15), "{to:?} instead of {who:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_number_leads_to_the_user_who_publishes_what_an_authority_said_of_it() {
    let pki = pki();
    let [first, second, third] = three_supernodes(&pki).await;
    let authority = authority(&pki);
    let mut bob = start(user(&pki, "bob", 12, &[&third])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&second])).await;
    // It has no numbers of its own.
    let mut gateway = start(gateway(&pki, 21, &[("+1", 900)], &[], &[&first])).await;
    for node in [&mut bob, &mut alice, &mut gateway] {
        node.online().await;
    }
    leads_to(&alice, None).await;
    let assignment = authority.assign_number(claims("bob", 70)).unwrap();
    bob.handle.hold_numbers(vec![assignment.clone()]).await.unwrap();
    bob.until("two records", |status| (status.published, status.unpublished) == (2, 0)).await;
    let call = alice.invite(1, NUMBER).await;
    let (id, _, to) = bob.incoming().await;
    assert_eq!((id, to), (call, Address::Number(number(NUMBER))));
    // So does a gateway find him, for whoever calls the number from the telephone network.
    let call = gateway.invite(2, NUMBER).await;
    assert_eq!(bob.incoming().await.0, call);

    // The number is given to Carol: what comes later wins, whoever publishes the older goes on or not.
    let later = authority.assign_number(claims("carol", 71)).unwrap();
    gateway.handle.hold_numbers(vec![later]).await.unwrap();
    leads_to(&alice, Some("carol")).await;

    // That was a mistake, and is taken back. Bob's counts again where it is still held, and everywhere as soon as it
    // is published once more.
    let list = authority.revoke(None, 71, RevocationReason::Withdrawn, unix()).unwrap();
    first.handle.send(NodeCommand::Revocations(list)).await.unwrap();
    bob.handle.hold_numbers(vec![assignment]).await.unwrap();
    leads_to(&alice, Some("bob")).await;
    let list = pki.root.revoke(None, 7, RevocationReason::KeyCompromise, unix()).unwrap();
    first.handle.send(NodeCommand::Revocations(list)).await.unwrap();
    leads_to(&alice, None).await;
    assert!(bob.handle.status().await.online, "nobody is offline for a number that is void");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_holds_no_assignment_that_is_not_good() {
    let pki = pki();
    let [first, ..] = three_supernodes(&pki).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    bob.online().await;
    let good = authority(&pki).assign_number(claims("bob", 70)).unwrap();
    let other = Pki::new(unix()).unwrap();
    let stranger = Authority::init_root("Other", [1; 32], other.enrolment.validity()).unwrap();
    let stranger = stranger.init_enrolment("Other numbers", [2; 32], 3, other.enrolment.validity()).unwrap();
    let foreign = stranger.assign_number(claims("bob", 70)).unwrap();
    let error = bob.handle.hold_numbers(vec![good.clone(), foreign]).await.unwrap_err();
    assert!(matches!(&error, NodeError::Record { what, .. } if what.ends_with(NUMBER)), "{error}");
    assert_eq!(bob.handle.status().await.published, 1, "none of both");
    bob.handle.hold_numbers(vec![good]).await.unwrap();
    bob.until("the number", |status| status.published == 2).await;
    bob.handle.hold_numbers(Vec::new()).await.unwrap();
    let status = bob.handle.status().await;
    assert_eq!((status.published, status.unpublished), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn forged_and_replayed_assignments_are_refused_by_those_who_store_them() {
    let pki = pki();
    let [first, second, _third] = three_supernodes(&pki).await;
    let authority = authority(&pki);
    let slot = RecordKey::Number(number(NUMBER)).to_bytes();
    let newer = authority.assign_number(claims("bob", 71)).unwrap();
    let older = authority.assign_number(claims("mallory", 70)).unwrap();
    let mut forged = newer.encode();
    *forged.last_mut().unwrap() ^= 1;
    let mut attacker = Attacker::new(&key(66));
    let peer = attacker.connect(&first).await;
    let put = |attacker: &mut Attacker, value: Vec<u8>| {
        let record = kad::Record::new(slot.clone(), value);
        attacker.swarm.behaviour_mut().kad.put_record_to(record, [peer].into_iter(), kad::Quorum::One);
    };
    put(&mut attacker, newer.encode());
    let begin = Instant::now();
    while first.handle.status().await.records == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10), "whoever holds it may store it");
        let _ = tokio::time::timeout(Duration::from_millis(10), attacker.swarm.select_next_some()).await;
    }
    put(&mut attacker, older.encode());
    attacker.until_refused(&first, Refusal::RecordNotNewer, 1).await;
    put(&mut attacker, forged);
    attacker.until_refused(&first, Refusal::RecordInvalid, 1).await;
    assert!(NumberAssignment::is_one(&older.encode()));
    leads_to(&second, Some("bob")).await;
}
