//! A client that takes all it can get: streams, reservations, frames.

use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{Event, Message};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId};
use p2p_edge::calling::{Body, Frame, SessionCommand};
use p2p_edge::identity::{Credential, UserBundle};
use p2p_edge::node::{NodeEvent, Refusal};

use super::attacks::{Attacker, invite};
use super::faults::{CallerEvent, caller};
use super::revocations::Hello;
use super::support::{Running, gateway, handle, pki, start, supernode, user};

async fn idle(attacker: &mut Attacker) {
    let _ = tokio::time::timeout(Duration::from_millis(10), attacker.swarm.select_next_some()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn streams_beyond_the_quota_are_refused_and_others_call() {
    let pki = pki();
    let mut victim = start(gateway(&pki, 21, &[("+1", 1)], &[], &[])).await;
    let mallory = pki.user(&handle("mallory"), 66).unwrap();
    let mut attacker = Attacker::new(&mallory.key);
    let peer = attacker.connect(&victim).await;
    // Streams that begin a frame and never end it.
    for _ in 0..600 {
        attacker.swarm.behaviour_mut().calls.send_request(&peer, vec![0x7f]);
    }
    attacker.until_refused(&victim, Refusal::StreamQuota, 1).await;
    let mut alice = start(user(&pki, "alice", 11, &[&victim])).await;
    alice.online().await;
    let call = alice.invite(1, "+15550100").await;
    let begin = Instant::now();
    loop {
        idle(&mut attacker).await;
        match victim.events.try_recv() {
            Ok(NodeEvent::Incoming { call: incoming, .. }) => {
                assert_eq!(incoming, call);
                break;
            }
            _ => assert!(begin.elapsed() < Duration::from_secs(5), "alice's call does not come through"),
        }
    }
    victim.take(call).await;
    alice.answered(call).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_flood_of_frames_ends_its_own_call_and_no_other() {
    let pki = pki();
    let mut victim = start(gateway(&pki, 21, &[("+1", 1)], &[], &[])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&victim])).await;
    alice.online().await;
    let good = alice.invite(1, "+15550100").await;
    assert_eq!(victim.incoming().await.0, good);
    victim.take(good).await;
    alice.answered(good).await;

    let UserBundle { key, certificate } = pki.user(&handle("mallory"), 66).unwrap();
    let mut attacker = Attacker::new(&key);
    let peer = attacker.connect(&victim).await;
    let invite = invite(2, certificate.encode(), "mallory", &key);
    let token = p2p_edge::calling::ResumeToken::new([7; 16]);
    let mut bytes =
        Frame { sequence: 1, body: Body::Invite { invite: Box::new(invite.clone()), token } }.encode();
    for sequence in 2..20_000 {
        bytes.extend(Frame { sequence, body: Body::Message { text: "flood".into() } }.encode());
    }
    attacker.swarm.behaviour_mut().calls.send_request(&peer, bytes);
    let (mut texts, begin) = (0, Instant::now());
    loop {
        idle(&mut attacker).await;
        while let Ok(event) = victim.events.try_recv() {
            match event {
                NodeEvent::Call { call, event: p2p_edge::calling::SessionEvent::Ended { cause, .. } } => {
                    assert_eq!((call, cause.value()), (invite.call, 42), "after {texts} texts");
                    assert!(texts < 2_000, "{texts} texts were taken");
                    alice.command(good, SessionCommand::Message { text: "still there?".into() }).await;
                    victim
                        .call_event(good, "alice's text", |event| match event {
                            p2p_edge::calling::SessionEvent::Message { text } => Some(text),
                            _ => None,
                        })
                        .await;
                    return;
                }
                NodeEvent::Call { .. } => texts += 1,
                _ => {}
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "the flood goes on after {texts} texts");
    }
}

/// Keeps asking a relay for places under one key. Returns how many it holds at once.
async fn places_of_one_peer(user: &UserBundle, relay: &Running, wanted: usize) -> usize {
    let address: Multiaddr = relay.address.parse().unwrap();
    let peer: PeerId = relay.handle.peer_id().parse().unwrap();
    let credential = Credential::Handle(user.certificate.clone()).encode();
    let hello = minicbor::to_vec(Hello { credential: credential.into(), lists: Vec::new() }).unwrap();
    let mut held = 0;
    let mut kept = Vec::new();
    // A connection has one place; so a greedy peer opens many connections.
    for _ in 0..wanted {
        let mut swarm = caller(&user.key);
        swarm.dial(address.clone()).unwrap();
        let granted = async {
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => {
                        swarm.behaviour_mut().identity.send_request(&peer, hello.clone());
                    }
                    SwarmEvent::Behaviour(CallerEvent::Identity(Event::Message {
                        message: Message::Response { .. },
                        ..
                    })) => {
                        swarm.listen_on(address.clone().with(Protocol::P2pCircuit)).unwrap();
                    }
                    SwarmEvent::NewListenAddr { .. } => return true,
                    SwarmEvent::ListenerClosed { .. }
                    | SwarmEvent::OutgoingConnectionError { .. }
                    | SwarmEvent::ConnectionClosed { .. } => return false,
                    _ => {}
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), granted).await.expect("the relay decides") {
            held += 1;
        }
        kept.push(tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        }));
    }
    for task in kept {
        task.abort();
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn one_peer_holds_few_places_on_a_relay_and_leaves_room() {
    let pki = pki();
    let mut config = supernode(&pki, 1, &[]);
    config.limits.reservations = 8;
    let relay = start(config).await;
    let mallory = pki.user(&handle("mallory"), 66).unwrap();
    let held = places_of_one_peer(&mallory, &relay, 12).await;
    assert_eq!(held, 4);
    let mut alice = start(user(&pki, "alice", 11, &[&relay])).await;
    alice.online().await;
    let status = alice.handle.status().await;
    assert_eq!(status.reservations_held, 1, "{status:#?}");
}
