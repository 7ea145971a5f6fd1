//! Half of the supernodes gone at once, under a call and look-ups. The whole of it, with a partition
//! and media, is `make overlay-resilience`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use p2p_edge::calling::{SessionCommand, SessionEvent};
use p2p_edge::node::{BootstrapWays, NodeConfig};
use p2p_edge::record::RecordKey;

use super::support::{PATIENCE, Running, handle, pki, start, supernode, user};

/// Supernodes, of which every other one goes.
const SUPERNODES: u8 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_the_supernodes_go_and_no_call_and_no_look_up_with_them() {
    let (pki, folder) = (pki(), tempfile::tempdir().unwrap());
    let mut nodes: Vec<Running> = Vec::new();
    for number in 1..=SUPERNODES {
        let known: Vec<&Running> = nodes.iter().take(2).collect();
        let node = start(supernode(&pki, number, &known)).await;
        nodes.push(node);
    }
    for node in &nodes {
        node.until("the others", |status| status.routing_table == usize::from(SUPERNODES) - 1).await;
    }
    let known: Vec<&Running> = [0, 2, 4, 1, 3].map(|at| &nodes[at]).to_vec();
    let with_memory = |config: NodeConfig, name: &str| {
        let ways = BootstrapWays { peers_file: Some(folder.path().join(name)), ..BootstrapWays::default() };
        NodeConfig { ways, ..config }
    };
    let mut alice = start(user(&pki, "alice", 11, &known)).await;
    let mut bob = start(user(&pki, "bob", 12, &known)).await;
    let mut asker = start(with_memory(user(&pki, "carol", 13, &known), "carol")).await;
    for node in [&mut alice, &mut bob, &mut asker] {
        node.online().await;
    }
    bob.until("three reservations", |status| status.reservations_held == 3).await;
    let call = alice.invite(1, "bob").await;
    bob.incoming().await;
    bob.take(call).await;
    alice.answered(call).await;

    let mut gone = Vec::new();
    let (done, node) = (AtomicBool::new(false), asker.handle.clone());
    let looking = async {
        let (mut looked, mut lost) = (0, Vec::new());
        while !done.load(Ordering::Relaxed) {
            let name = ["alice", "bob"][looked % 2];
            let found = node.look_up(RecordKey::Location(handle(name))).await.unwrap();
            looked += 1;
            if found.record.is_none() {
                lost.push(found);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (looked, lost)
    };
    let acting = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut circuits = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            circuits.push((node.handle.status().await.circuits_served, at));
        }
        // Those first that carry the call.
        circuits.sort_by(|one, other| other.cmp(one));
        assert!(circuits[0].0 > 0, "a relay carries the call: {circuits:?}");
        let half = usize::from(SUPERNODES) / 2;
        for (_, at) in &circuits[..half] {
            gone.push(nodes[*at].address.clone());
            nodes[*at].vanish();
        }
        alice.command(call, SessionCommand::Message { text: "still there?".into() }).await;
        let heard = bob
            .call_event(call, "Message", |event| match event {
                SessionEvent::Message { .. } | SessionEvent::Ended { .. } => Some(event),
                _ => None,
            })
            .await;
        assert_eq!(heard, SessionEvent::Message { text: "still there?".into() });
        bob.until("reservations on what is left", |status| status.reservations_held >= 2).await;
        for (_, at) in &circuits[half..] {
            nodes[*at].until("those that are left", |status| status.certified.len() == half - 1).await;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        done.store(true, Ordering::Relaxed);
    };
    let both = async { tokio::join!(looking, acting).0 };
    let (looked, lost) = tokio::time::timeout(PATIENCE * 2, both).await.expect("it ends");
    assert!(looked > 50, "{looked} look-ups");
    assert!(lost.is_empty(), "{} of {looked} look-ups found nobody: {lost:#?}", lost.len());

    // Who was told only of those that are gone comes back by what it remembers.
    asker.handle.shutdown(Duration::from_secs(1)).await;
    let mut config = with_memory(user(&pki, "carol", 13, &[]), "carol");
    config.bootstrap = gone;
    let mut again = start(config).await;
    again.online().await;
    let ways = again.handle.status().await.health.ways;
    assert!(ways.iter().any(|way| way.way == "disk" && way.joined > 0), "{ways:?}");
}
