//! Calls between users and gateways that find each other through the overlay.

use call_model::{Address, Cause};
use p2p_edge::calling::{EndedBy, SessionCommand, SessionEvent};
use p2p_edge::identity::{Abilities, HandleClaims, MAX_ASSERTION_LIFE};
use p2p_edge::node::CallerRole;

use super::support::{gateway, handle, number, pki, start, three_supernodes, user};

/// Alice knows only the second supernode and Bob only the third; neither listens.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn users_without_a_port_find_and_call_each_other_by_handle() {
    let pki = pki();
    let [_first, second, third] = three_supernodes(&pki).await;
    let mut alice = start(user(&pki, "alice", 11, &[&second])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&third])).await;
    alice.online().await;
    bob.online().await;

    let call = alice.invite(1, "bob").await;
    let (id, from, to) = bob.incoming().await;
    assert_eq!(id, call);
    assert_eq!((from.handle, from.role), (Some(handle("alice")), CallerRole::User));
    assert_eq!(from.caller.address, Some(Address::Handle(handle("alice"))));
    assert_eq!(from.peer, alice.handle.peer_id());
    assert_eq!(to, Address::Handle(handle("bob")));
    assert_eq!(bob.handle.status().await.peers_relayed, 1, "Alice is reached through a relay");

    bob.take(call).await;
    alice.call_event(call, "Ringing", |event| (event == SessionEvent::Ringing).then_some(())).await;
    alice.answered(call).await;
    alice.command(call, SessionCommand::Message { text: "hello".into() }).await;
    let text = bob
        .call_event(call, "Message", |event| match event {
            SessionEvent::Message { text } => Some(text),
            _ => None,
        })
        .await;
    assert_eq!(text, "hello");
    bob.command(call, SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() }).await;
    assert_eq!(alice.ended(call).await, (16, None, EndedBy::Far));
    assert_eq!(bob.ended(call).await, (16, None, EndedBy::Local));
    alice.until("no call", |status| status.calls == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_number_leads_to_its_user_or_to_the_best_gateway() {
    let pki = pki();
    let [first, second, third] = three_supernodes(&pki).await;
    let mut bob = start(user(&pki, "bob", 12, &[&third])).await;
    let mut dear = start(gateway(&pki, 21, &[("+44", 900)], &[("+15550100", "bob")], &[&first])).await;
    let mut cheap = start(gateway(&pki, 22, &[("+44", 100)], &[], &[&second])).await;
    let mut wide = start(gateway(&pki, 23, &[("+", 1)], &[], &[&third])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&second])).await;
    for node in [&mut bob, &mut dear, &mut cheap, &mut wide, &mut alice] {
        node.online().await;
    }

    let call = alice.invite(1, "+15550100").await;
    let (id, from, to) = bob.incoming().await;
    assert_eq!((id, to), (call, Address::Number(number("+15550100"))));
    assert_eq!(from.handle, Some(handle("alice")));
    bob.command(
        call,
        SessionCommand::Reject { cause: Cause::USER_BUSY, sip_status: Some(486), text: String::new() },
    )
    .await;
    assert_eq!(alice.ended(call).await, (17, Some(486), EndedBy::Far));

    // Both +44 gateways are nearer than the one for everything; of those the cheap one wins.
    let call = alice.invite(2, "+442079460018").await;
    let (id, from, to) = cheap.incoming().await;
    assert_eq!((id, to), (call, Address::Number(number("+442079460018"))));
    assert_eq!(from.handle, Some(handle("alice")));
    cheap.take(call).await;
    alice.answered(call).await;
    alice
        .command(call, SessionCommand::Bye { cause: Cause::NORMAL_CALL_CLEARING, text: String::new() })
        .await;
    assert_eq!(cheap.ended(call).await, (16, None, EndedBy::Far));

    // The cheap one is gone without a word: the next best takes the call.
    cheap.vanish();
    let call = alice.invite(3, "+442079460018").await;
    assert_eq!(dear.incoming().await.0, call);
    alice.command(call, SessionCommand::Cancel { answered_elsewhere: false }).await;
    assert_eq!(alice.ended(call).await.0, 16);

    let call = alice.invite(4, "+33123456789").await;
    assert_eq!(wide.incoming().await.0, call);

    // A caller from the telephone network comes as its gateway says.
    let call = dear.invite(5, "bob").await;
    let (id, from, _) = bob.incoming().await;
    assert_eq!((id, from.role, from.handle), (call, CallerRole::Gateway, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn whoever_is_not_there_is_told_apart_from_whoever_does_not_exist() {
    let pki = pki();
    let [first, ..] = three_supernodes(&pki).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    alice.online().await;
    bob.online().await;
    let begin = std::time::Instant::now();
    let call = alice.invite(1, "nobody").await;
    assert_eq!(alice.ended(call).await, (1, Some(404), EndedBy::Far));
    let call = alice.invite(2, "+15550199").await;
    assert_eq!(alice.ended(call).await, (3, Some(404), EndedBy::Far), "no gateway leads there");
    bob.vanish();
    let call = alice.invite(3, "bob").await;
    assert_eq!(alice.ended(call).await, (20, Some(480), EndedBy::Timeout));
    assert!(begin.elapsed().as_secs() < 8, "{:?}", begin.elapsed());
    // A caller may not call under a name that is not its own.
    let from = call_model::Caller { address: Some("+15550100".parse().unwrap()), ..Default::default() };
    let call = call_model::CallId::new(super::support::unix() * 1000, 4);
    let invite = p2p_edge::node::NodeCommand::Invite {
        call,
        from,
        to: "bob".parse().unwrap(),
        media: "v=0\r\n".into(),
        ring_timeout: std::time::Duration::from_secs(MAX_ASSERTION_LIFE),
    };
    alice.handle.send(invite).await.unwrap();
    assert_eq!(alice.ended(call).await, (21, Some(403), EndedBy::Local));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn all_devices_of_a_user_ring_and_the_first_answer_wins() {
    let pki = pki();
    let [first, second, _third] = three_supernodes(&pki).await;
    let keys = [12, 13].map(p2p_edge::testing::key);
    let certificate = pki.handle(&handle("bob"), &[&keys[0], &keys[1]], 12).unwrap();
    let mut devices = Vec::new();
    for key in keys {
        let mut config = user(&pki, "bob", 12, &[&first]);
        config.key = key;
        config.role = p2p_edge::node::NodeRole::User { certificate: certificate.clone() };
        let mut device = start(config).await;
        device.online().await;
        devices.push(device);
    }
    let mut alice = start(user(&pki, "alice", 11, &[&second])).await;
    alice.online().await;
    let call = alice.invite(1, "bob").await;
    for device in &mut devices {
        assert_eq!(device.incoming().await.0, call);
    }
    devices[1].take(call).await;
    alice.answered(call).await;
    let (cause, _, by) = devices[0].ended(call).await;
    assert_eq!((cause, by), (Cause::NON_SELECTED_USER_CLEARING.value(), EndedBy::Far));
}

/// One supernode per transport; users reach each other across them.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_transport_carries_calls() {
    let pki = pki();
    let mut quic = super::support::supernode(&pki, 1, &[]);
    quic.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()];
    let quic = start(quic).await;
    let mut websocket = super::support::supernode(&pki, 2, &[&quic]);
    websocket.listen = vec!["/ip4/127.0.0.1/tcp/0/ws".into()];
    let mut websocket = start(websocket).await;
    websocket.online().await;
    let mut alice = start(user(&pki, "alice", 11, &[&quic])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&websocket])).await;
    alice.online().await;
    bob.online().await;
    let call = alice.invite(1, "bob").await;
    assert_eq!(bob.incoming().await.0, call);
    bob.take(call).await;
    alice.answered(call).await;
}

/// What is said without an answer, as that one provides a prefix, arrives by QUIC too.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn gateways_that_are_connected_by_quic_alone_are_found() {
    let pki = pki();
    let by_quic = |mut config: p2p_edge::node::NodeConfig| {
        config.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".into()];
        config
    };
    let first = start(by_quic(super::support::supernode(&pki, 1, &[]))).await;
    let mut gateways = Vec::new();
    for number in 21..27 {
        let prefix = format!("+4{number}");
        let config = gateway(&pki, number, &[(&prefix, 100)], &[], &[&first]);
        gateways.push((prefix, start(by_quic(config)).await));
    }
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    alice.online().await;
    for (at, (prefix, gateway)) in gateways.iter_mut().enumerate() {
        gateway.online().await;
        let call = alice.invite(at as u128, &format!("{prefix}5550100")).await;
        assert_eq!(gateway.incoming().await.0, call);
    }
}

/// RFC 3261 21.5.4: a gateway that has no room is no reason to give up while there is another.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_without_room_makes_way_for_the_next() {
    let pki = pki();
    let [first, second, _third] = three_supernodes(&pki).await;
    let mut full = gateway(&pki, 22, &[("+44", 100)], &[], &[&second]);
    full.limits.calls = 1;
    let mut full = start(full).await;
    let mut dear = start(gateway(&pki, 21, &[("+44", 900)], &[], &[&first])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&second])).await;
    for node in [&mut full, &mut dear, &mut alice] {
        node.online().await;
    }
    let first = alice.invite(1, "+442079460018").await;
    assert_eq!(full.incoming().await.0, first);
    full.take(first).await;
    alice.answered(first).await;
    let call = alice.invite(2, "+442079460018").await;
    assert_eq!(dear.incoming().await.0, call);
    assert!(full.handle.status().await.refused(p2p_edge::node::Refusal::CallLimit) > 0, "it was asked first");
    // Early media of the one that has it comes through.
    dear.command(call, SessionCommand::Progress { media: "v=0\r\ns=early\r\n".into() }).await;
    alice
        .call_event(call, "Progress", |event| matches!(event, SessionEvent::Progress { .. }).then_some(()))
        .await;
    // What it says after that is final.
    let reject =
        SessionCommand::Reject { cause: Cause::USER_BUSY, sip_status: Some(486), text: String::new() };
    dear.command(call, reject).await;
    assert_eq!(alice.ended(call).await, (17, Some(486), EndedBy::Far));
    // Where there is no other, the caller hears what the first has said.
    dear.vanish();
    let call = alice.invite(3, "+442079460018").await;
    assert_eq!(alice.ended(call).await, (42, Some(503), EndedBy::Far));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_that_dies_while_it_rings_makes_way_and_is_not_asked_first_again() {
    let pki = pki();
    let [first, second, _third] = three_supernodes(&pki).await;
    let mut cheap = start(gateway(&pki, 22, &[("+44", 100)], &[], &[&second])).await;
    let mut dear = start(gateway(&pki, 21, &[("+44", 900)], &[], &[&first])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&second])).await;
    for node in [&mut cheap, &mut dear, &mut alice] {
        node.online().await;
    }
    let call = alice.invite(1, "+442079460018").await;
    assert_eq!(cheap.incoming().await.0, call);
    cheap.command(call, SessionCommand::Ringing).await;
    alice.call_event(call, "Ringing", |event| (event == SessionEvent::Ringing).then_some(())).await;
    cheap.vanish();
    assert_eq!(dear.incoming().await.0, call);
    dear.take(call).await;
    alice.answered(call).await;
    // It is back, as cheap as before: whoever works takes the next call all the same.
    let mut cheap = start(gateway(&pki, 22, &[("+44", 100)], &[], &[&second])).await;
    cheap.online().await;
    let call = alice.invite(2, "+442079460018").await;
    assert_eq!(dear.incoming().await.0, call);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn abilities_that_a_certificate_lacks_are_missing() {
    let pki = pki();
    let [first, ..] = three_supernodes(&pki).await;
    let mut config = user(&pki, "alice", 11, &[&first]);
    let abilities = Abilities::CALL_HANDLES.with(Abilities::CALL_NUMBERS);
    let claims = match &config.role {
        p2p_edge::node::NodeRole::User { certificate } => certificate.claims().clone(),
        other => panic!("{other:?}"),
    };
    let certificate = pki.enrolment.issue_handle(HandleClaims { abilities, ..claims }).unwrap();
    config.role = p2p_edge::node::NodeRole::User { certificate };
    let mut alice = start(config).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    alice.online().await;
    bob.online().await;
    let call = bob.invite(1, "alice").await;
    assert_eq!(bob.ended(call).await, (1, Some(404), EndedBy::Far), "who may not be called is not found");
    let call = alice.invite(2, "bob").await;
    bob.incoming().await;
    bob.take(call).await;
    alice.answered(call).await;
    alice.command(call, SessionCommand::Message { text: "hello".into() }).await;
    let refused = SessionEvent::NotSupported { request: "message" };
    alice.call_event(call, "NotSupported", |event| (event == refused).then_some(())).await;
}
