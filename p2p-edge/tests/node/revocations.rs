//! What a revocation does, and who can keep one from arriving.

use std::time::Duration;

use futures::StreamExt;
use libp2p::PeerId;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::SwarmEvent;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use p2p_edge::calling::EndedBy;
use p2p_edge::identity::{Credential, RevocationReason};
use p2p_edge::node::{NodeCommand, Refusal};
use p2p_edge::testing::key;

use super::attacks::{Attacker, EvilEvent};
use super::support::{Running, handle, pki, start, three_supernodes, unix, user};

#[derive(Encode, Decode)]
#[cbor(map)]
pub(crate) struct Hello {
    #[n(0)]
    pub(crate) credential: ByteVec,
    #[n(1)]
    pub(crate) lists: Vec<ListVersion>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
pub(crate) struct ListVersion {
    #[n(0)]
    issuer: ByteVec,
    #[n(1)]
    version: u64,
}

/// Connects to a node, claims the newest list of an authority, and then answers every question
/// for it with nothing, or not at all.
async fn liar(
    mut attacker: Attacker,
    victim: &Running,
    credential: Vec<u8>,
    issuer: [u8; 32],
    answers: bool,
) {
    let peer: PeerId = attacker.connect(victim).await;
    let lists = vec![ListVersion { issuer: issuer.to_vec().into(), version: u64::MAX }];
    let hello = minicbor::to_vec(Hello { credential: credential.into(), lists }).unwrap();
    attacker.swarm.behaviour_mut().identity.send_request(&peer, hello);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let event = attacker.swarm.select_next_some().await;
            let SwarmEvent::Behaviour(EvilEvent::Revocations(Event::Message { message, .. })) = event else {
                continue;
            };
            match message {
                Message::Request { channel, .. } if answers => {
                    let _ = attacker.swarm.behaviour_mut().revocations.send_response(channel, Vec::new());
                }
                Message::Request { channel, .. } => kept.push(channel),
                Message::Response { .. } => {}
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_claims_newer_lists_does_not_keep_them_from_arriving() {
    let pki = pki();
    let [first, second, third] = three_supernodes(&pki).await;
    // The serial that the test authority gives node 3.
    let list = pki.enrolment.revoke(None, 1003, RevocationReason::KeyCompromise, unix()).unwrap();
    let issuer = list.issuer().to_bytes();
    // One that proves nothing and never answers, and a user who hands out nothing.
    liar(Attacker::new(&key(66)), &second, vec![1, 2, 3], issuer, false).await;
    let mallory = pki.user(&handle("mallory"), 67).unwrap();
    let credential = Credential::Handle(mallory.certificate).encode();
    liar(Attacker::new(&mallory.key), &second, credential, issuer, true).await;
    second.until("the lie", |status| status.refused(Refusal::AnswerInvalid) == 1).await;

    first.handle.send(NodeCommand::Revocations(list)).await.unwrap();
    let third = third.handle.peer_id();
    second.until("the revocation", |status| !status.certified.contains(&third)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_a_list_adds_is_fetched_and_not_the_whole_again() {
    let pki = pki();
    let [first, second, third] = three_supernodes(&pki).await;
    let list = pki.enrolment.revoke(None, 5000, RevocationReason::Withdrawn, unix()).unwrap();
    first.handle.send(NodeCommand::Revocations(list.clone())).await.unwrap();
    for node in [&second, &third] {
        node.until("the list", |status| status.lists_fetched == 1).await;
    }
    // The serial that the test authority gives node 3.
    let longer = pki.enrolment.revoke(Some(&list), 1003, RevocationReason::KeyCompromise, unix()).unwrap();
    first.handle.send(NodeCommand::Revocations(longer)).await.unwrap();
    second.until("what was added", |status| status.list_changes_fetched == 1).await;
    assert_eq!(second.handle.status().await.lists_fetched, 1);
    let revoked = third.handle.peer_id();
    second.until("its effect", |status| !status.certified.contains(&revoked)).await;
    // A list that was begun anew is fetched whole: what is held is not its beginning.
    let other = pki.enrolment.revoke(None, 6000, RevocationReason::Withdrawn, unix()).unwrap();
    let other = pki.enrolment.revoke(Some(&other), 6001, RevocationReason::Withdrawn, unix()).unwrap();
    let anew = pki.enrolment.revoke(Some(&other), 1003, RevocationReason::KeyCompromise, unix()).unwrap();
    first.handle.send(NodeCommand::Revocations(anew)).await.unwrap();
    second.until("the new list", |status| status.lists_fetched == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_revocation_ends_the_calls_of_the_revoked() {
    let pki = pki();
    let [first, ..] = three_supernodes(&pki).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    let mut carol = start(user(&pki, "carol", 13, &[&first])).await;
    for node in [&mut alice, &mut bob, &mut carol] {
        node.online().await;
    }
    // Alice calls Bob, and Carol calls Alice.
    let to_bob = alice.invite(1, "bob").await;
    bob.incoming().await;
    bob.take(to_bob).await;
    alice.answered(to_bob).await;
    let to_alice = carol.invite(2, "alice").await;
    alice.incoming().await;
    alice.take(to_alice).await;
    carol.answered(to_alice).await;

    // Another user's certificate first: that changes nothing.
    let other = pki.enrolment.revoke(None, 2099, RevocationReason::Withdrawn, unix()).unwrap();
    let list = pki.enrolment.revoke(Some(&other), 2011, RevocationReason::KeyCompromise, unix()).unwrap();
    for (node, call) in [(&mut bob, to_bob), (&mut carol, to_alice)] {
        node.handle.send(NodeCommand::Revocations(other.clone())).await.unwrap();
        assert_eq!(node.handle.status().await.calls, 1);
        node.handle.send(NodeCommand::Revocations(list.clone())).await.unwrap();
        assert_eq!(node.ended(call).await, (21, None, EndedBy::Local));
        assert!(node.handle.status().await.refused(Refusal::CallCertificate) > 0);
    }
    // She is told, or finds her calls gone.
    for _ in 0..2 {
        alice
            .wait("Ended", |event| match event {
                p2p_edge::node::NodeEvent::Call {
                    event: p2p_edge::calling::SessionEvent::Ended { .. },
                    ..
                } => Some(()),
                _ => None,
            })
            .await;
    }
    tokio::time::timeout(Duration::from_secs(10), alice.until("no call", |status| status.calls == 0))
        .await
        .unwrap();
}
