//! Starting, losing others, and stopping.

use std::time::{Duration, Instant};

use p2p_edge::calling::{EndedBy, SessionCommand, SessionEvent};
use p2p_edge::identity::{NodeBundle, RevocationReason};
use p2p_edge::node::{NodeCommand, NodeEvent, NodeRole, Refusal};
use p2p_edge::record::{RecordKey, ValidRecord};
use p2p_edge::testing::Pki;

use super::support::{config, handle, pki, start, supernode, three_supernodes, try_start, unix, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_that_cannot_start_says_why() {
    let pki = pki();
    let taken = start(supernode(&pki, 1, &[])).await;
    let mut second = supernode(&pki, 2, &[]);
    let address = taken.address.split("/p2p/").next().unwrap().to_owned();
    second.listen = vec![address.clone()];
    let error = try_start(second.clone()).await.err().unwrap().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
    assert!(error.contains("in use"), "{error}");

    second.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".into(), "/ip4/127.0.0.1/tcp/0/ws".into()];
    let both = start(second.clone()).await.handle.status().await;
    assert_eq!(both.listening.len(), 2, "{both:?}");

    second.bootstrap = vec!["/ip4/127.0.0.1/tcp/1".into()];
    let error = try_start(second).await.err().unwrap().to_string();
    assert!(error.contains("/ip4/127.0.0.1/tcp/1") && error.contains("/p2p/"), "{error}");

    // Issued 31 days ago for 30 days, by the same authority.
    let old = Pki::new(unix() - 31 * 86_400).unwrap();
    let NodeBundle { key, chain } = old.supernode(3).unwrap();
    let error = try_start(config(&pki, key, NodeRole::Supernode { chain })).await.err().unwrap().to_string();
    assert!(error.contains("node-3 expired on") && error.contains("enrol again"), "{error}");

    let mut stolen = supernode(&pki, 4, &[]);
    stolen.key = p2p_edge::testing::key(5);
    let error = try_start(stolen).await.err().unwrap().to_string();
    assert!(error.contains("not certified for node-4"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_survives_its_relay() {
    let pki = pki();
    let [mut first, mut second, mut third] = three_supernodes(&pki).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first, &second, &third])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first, &second, &third])).await;
    alice.online().await;
    bob.online().await;
    bob.until("three reservations", |status| status.reservations_held == 3).await;
    let call = alice.invite(1, "bob").await;
    bob.incoming().await;
    bob.take(call).await;
    alice.answered(call).await;
    let mut killed = 0;
    for node in [&mut first, &mut second, &mut third] {
        if node.handle.status().await.circuits_served > 0 && killed < 2 {
            node.vanish();
            killed += 1;
        }
    }
    assert!(killed > 0, "a relay carries the call");
    alice.command(call, SessionCommand::Message { text: "still there?".into() }).await;
    let heard = bob
        .call_event(call, "Message", |event| match event {
            SessionEvent::Message { .. } | SessionEvent::Ended { .. } => Some(event),
            _ => None,
        })
        .await;
    let expected = SessionEvent::Message { text: "still there?".into() };
    assert_eq!(heard, expected, "{killed} relays gone; {:#?}", alice.handle.status().await);
    for on in [true, false] {
        alice.command(call, SessionCommand::Hold { on }).await;
        bob.call_event(call, "Hold", |event| (event == SessionEvent::Hold { on }).then_some(())).await;
        bob.command(call, SessionCommand::Hold { on }).await;
        alice.call_event(call, "Hold", |event| (event == SessionEvent::Hold { on }).then_some(())).await;
    }
    let digit = call_model::DtmfDigit::from_char('5').unwrap();
    bob.command(call, SessionCommand::Dtmf { digit, duration_ms: 100 }).await;
    let expected = SessionEvent::Dtmf { digit, duration_ms: 100 };
    alice.call_event(call, "Dtmf", |event| (event == expected).then_some(())).await;
    // A user is asked to call somebody else; a gateway would say that it does not do that.
    let target: call_model::Address = "carol".parse().unwrap();
    alice.command(call, SessionCommand::Refer { target: target.clone() }).await;
    bob.call_event(call, "Refer", |event| {
        (event == SessionEvent::Refer { target: target.clone() }).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_with_a_peer_that_vanished_ends_after_the_resume_time() {
    let pki = pki();
    let first = start(supernode(&pki, 1, &[])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    alice.online().await;
    bob.online().await;
    let call = alice.invite(1, "bob").await;
    bob.incoming().await;
    bob.take(call).await;
    alice.answered(call).await;
    bob.vanish();
    let begin = Instant::now();
    let (cause, _, by) = alice.ended(call).await;
    assert_eq!((cause, by), (call_model::Cause::NETWORK_OUT_OF_ORDER.value(), EndedBy::Lost));
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(7), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_says_bye_when_it_stops() {
    let pki = pki();
    let first = start(supernode(&pki, 1, &[])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    alice.online().await;
    bob.online().await;
    let call = alice.invite(1, "bob").await;
    bob.incoming().await;
    bob.take(call).await;
    alice.answered(call).await;
    let begin = Instant::now();
    bob.handle.shutdown(Duration::from_secs(5)).await;
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!(alice.ended(call).await, (31, None, EndedBy::Far));
    let late = NodeCommand::Call { call, command: SessionCommand::Ringing };
    assert!(bob.handle.send(late).await.is_err(), "the node has stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn users_notice_that_the_overlay_is_gone_and_come_back() {
    let pki = pki();
    let mut first = start(supernode(&pki, 1, &[])).await;
    let mut config = supernode(&pki, 1, &[]);
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    alice.online().await;
    first.vanish();
    let reason = alice
        .wait("Offline", |event| match event {
            NodeEvent::Offline { reason } => Some(reason),
            _ => None,
        })
        .await;
    assert!(reason.contains("no supernode"), "{reason}");
    config.listen = vec![first.address.split("/p2p/").next().unwrap().to_owned()];
    let _again = start(config).await;
    alice.online().await;
    assert_eq!(alice.handle.status().await.reservations_held, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_revocation_spreads_and_throws_the_node_out() {
    let pki = pki();
    let [first, second, third] = three_supernodes(&pki).await;
    // The serial that the test authority gives node 3.
    let list = pki.enrolment.revoke(None, 1003, RevocationReason::KeyCompromise, unix()).unwrap();
    first.handle.send(NodeCommand::Revocations(list)).await.unwrap();
    for node in [&first, &second] {
        node.until("only one other supernode", |status| {
            status.routing_table == 1 && !status.certified.contains(&third.handle.peer_id())
        })
        .await;
        assert!(node.handle.status().await.refused(Refusal::NodeCertificate) > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_node_may_look_for_a_record() {
    let pki = pki();
    let [first, second, third] = three_supernodes(&pki).await;
    let mut alice = start(user(&pki, "alice", 10, &[&first, &second])).await;
    alice.online().await;
    let key = |name: &str| RecordKey::Location(handle(name));
    let found = third.handle.look_up(key("alice")).await.unwrap();
    let Some(ValidRecord::Location(location)) = &found.record else { panic!("{found:?}") };
    assert_eq!(location.record.devices[0].peer.to_string(), alice.handle.peer_id());
    assert!(
        found.answered >= 1 && found.servers_asked == 2 && found.first.unwrap() <= found.took,
        "{found:?}"
    );
    let nothing = third.handle.look_up(key("nobody")).await.unwrap();
    assert!(nothing.record.is_none() && nothing.first.is_none(), "{nothing:?}");
    assert!(nothing.dht_requests >= 2, "nothing is known to be nowhere before all were asked: {nothing:?}");
    let status = third.handle.status().await;
    assert!(status.dht_requests >= u64::from(nothing.dht_requests), "{status:?}");
}

/// A firewall that lets no UDP out makes QUIC wait for its handshake for seconds, and the next attempt again: TCP must
/// not wait for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_quic_is_never_answered_is_joined_over_tcp() {
    let pki = pki();
    let server = start(supernode(&pki, 1, &[])).await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (port, peer) = (silent.local_addr().unwrap().port(), server.handle.peer_id());
    let mut user = user(&pki, "alice", 11, &[&server]);
    user.bootstrap.insert(0, format!("/ip4/127.0.0.1/udp/{port}/quic-v1/p2p/{peer}"));
    let mut user = start(user).await;
    let began = Instant::now();
    user.online().await;
    assert!(began.elapsed() < Duration::from_secs(4), "after {:?}", began.elapsed());
}
