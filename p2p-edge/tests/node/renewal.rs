//! A certificate is changed for the next one while the node runs.

use p2p_edge::identity::{Credential, NodeClaims, RevocationReason};
use p2p_edge::node::{NodeCommand, NodeError};
use p2p_edge::testing::key;

use super::support::{gateway, handle, pki, prefix, start, three_supernodes, unix, user};

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_user_goes_on_under_a_new_certificate_and_its_call_with_it() {
    let pki = pki();
    let [first, ..] = three_supernodes(&pki).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    let mut carol = start(user(&pki, "carol", 13, &[&first])).await;
    for node in [&mut alice, &mut bob, &mut carol] {
        node.online().await;
    }
    let to_bob = alice.invite(1, "bob").await;
    bob.incoming().await;
    bob.take(to_bob).await;
    alice.answered(to_bob).await;

    let renewed = pki.handle(&handle("alice"), &[&key(11)], 111).unwrap();
    alice.handle.change_certificate(Credential::Handle(renewed.clone())).await.unwrap();
    assert_eq!(alice.handle.status().await.certificate_ends, renewed.claims().validity.not_after);
    for node in [&alice, &bob] {
        assert_eq!(node.handle.status().await.calls, 1, "the call goes on");
    }
    alice
        .command(
            to_bob,
            p2p_edge::calling::SessionCommand::Bye {
                cause: call_model::Cause::NORMAL_CALL_CLEARING,
                text: String::new(),
            },
        )
        .await;
    assert_eq!(bob.ended(to_bob).await.0, 16);
    alice.until("the record under the new certificate", |status| status.unpublished == 0).await;

    // Nothing hangs on the old certificate any more: it is revoked, and she is called and calls.
    let list = pki.enrolment.revoke(None, 2011, RevocationReason::Superseded, unix()).unwrap();
    for node in [&first, &alice, &bob, &carol] {
        node.handle.send(NodeCommand::Revocations(list.clone())).await.unwrap();
    }
    let to_alice = carol.invite(2, "alice").await;
    alice.incoming().await;
    alice.take(to_alice).await;
    carol.answered(to_alice).await;
    let again = alice.invite(3, "bob").await;
    let (call, from, _) = bob.incoming().await;
    assert_eq!((call, from.handle), (again, Some(handle("alice"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_gateway_stays_certified_for_its_peers_when_it_renews() {
    let pki = pki();
    let [first, second, _third] = three_supernodes(&pki).await;
    let mut gateway =
        start(gateway(&pki, 21, &[("+1", 100)], &[("+15550100", "alice")], &[&first, &second])).await;
    gateway.online().await;
    let id = gateway.handle.peer_id();
    first.until("the gateway", |status| status.certified.contains(&id)).await;
    let prefixes = [prefix("+1"), prefix("+15550100")];
    let claims = pki.gateway(21, &prefixes).unwrap().chain.claims().unwrap().clone();
    let issue = |claims: &NodeClaims, name: &str, number: u8| {
        let key = key(number).public();
        Credential::Node(pki.enrolment.issue_node(name, &key, claims, 9021, pki.validity()).unwrap())
    };
    gateway.handle.change_certificate(issue(&claims, "node-21", 21)).await.unwrap();
    gateway.until("its records under the new certificate", |status| status.unpublished == 0).await;
    // The serial that the test authority gave node 21.
    let list = pki.enrolment.revoke(None, 1021, RevocationReason::Superseded, unix()).unwrap();
    first.handle.send(NodeCommand::Revocations(list)).await.unwrap();
    second.until("the revocation", |status| status.lists_fetched == 1).await;
    for node in [&first, &second] {
        node.until("the gateway", |status| status.certified.contains(&id)).await;
    }
    gateway.until("its records", |status| status.unpublished == 0 && status.online).await;

    // Anything but the next certificate of this very node is refused, and changes nothing.
    let less = NodeClaims { prefixes: vec![prefix("+44")], ..claims.clone() };
    let refused = gateway.handle.change_certificate(issue(&less, "node-21", 21)).await.unwrap_err();
    assert!(matches!(refused, NodeError::Record { .. }), "{refused}");
    let refused = gateway.handle.change_certificate(issue(&claims, "node-22", 21)).await.unwrap_err();
    assert!(matches!(refused, NodeError::OtherIdentity { .. }), "{refused}");
    let refused = gateway.handle.change_certificate(issue(&claims, "node-21", 22)).await.unwrap_err();
    assert!(matches!(refused, NodeError::Certificate(_)), "{refused}");
    let supernode = issue(&NodeClaims::supernode(), "node-21", 21);
    let refused = gateway.handle.change_certificate(supernode).await.unwrap_err();
    assert!(matches!(refused, NodeError::NotGateway { .. }), "{refused}");
    let user = Credential::Handle(pki.handle(&handle("alice"), &[&key(21)], 5).unwrap());
    assert!(gateway.handle.change_certificate(user).await.is_err());
    assert!(gateway.handle.status().await.online);
}
