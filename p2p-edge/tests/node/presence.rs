//! Presence and text between whole nodes.

use std::collections::BTreeSet;

use call_model::{Availability, Handle};
use p2p_edge::node::{NodeCommand, NodeEvent, PresenceCommand};
use p2p_edge::presence::{ClientEvent, Verdict};

use super::support::{Running, handle, pki, start, supernode, three_supernodes, user};

async fn tell(node: &Running, command: PresenceCommand) {
    node.handle.send(NodeCommand::Presence(command)).await.unwrap();
}

async fn set(node: &Running, availability: Availability) {
    tell(node, PresenceCommand::Set { availability, note: String::new() }).await;
}

/// Lets a user watch others, and be watched by exactly these.
async fn befriend(node: &Running, contacts: &[&str]) {
    let contacts: BTreeSet<Handle> = contacts.iter().map(|name| handle(name)).collect();
    let (allowed, refused) = (contacts.clone(), BTreeSet::new());
    tell(node, PresenceCommand::Rules { everybody: false, allowed, refused }).await;
    tell(node, PresenceCommand::Contacts(contacts)).await;
}

async fn shown(node: &mut Running, of: &str, expected: Availability) {
    node.wait(&format!("{of} {expected}"), |event| match event {
        NodeEvent::Presence(ClientEvent::Presence { handle: who, availability, .. }) => {
            (who == handle(of) && availability == expected).then_some(())
        }
        _ => None,
    })
    .await;
}

async fn text(node: &mut Running) -> (Handle, String) {
    node.wait("a text", |event| match event {
        NodeEvent::Presence(ClientEvent::Text(text)) => Some((text.from, text.text)),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn users_see_each_other_come_change_and_go() {
    let pki = pki();
    let [first, second, third] = three_supernodes(&pki).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&second])).await;
    alice.online().await;
    bob.online().await;
    befriend(&alice, &["bob"]).await;
    befriend(&bob, &["alice"]).await;
    set(&alice, Availability::Available).await;
    set(&bob, Availability::Busy).await;
    shown(&mut alice, "bob", Availability::Busy).await;
    shown(&mut bob, "alice", Availability::Available).await;
    set(&bob, Availability::Away).await;
    shown(&mut alice, "bob", Availability::Away).await;
    let mut homes = 0;
    for node in [&first, &second, &third] {
        homes += node.handle.status().await.presence.on;
    }
    assert_eq!(homes, 4, "each of the two is on at two homes");
    tell(&bob, PresenceCommand::Set { availability: Availability::Offline, note: String::new() }).await;
    shown(&mut alice, "bob", Availability::Offline).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn presence_goes_on_when_a_supernode_vanishes() {
    let pki = pki();
    let [mut first, second, third] = three_supernodes(&pki).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first, &second, &third])).await;
    let mut bob = start(user(&pki, "bob", 12, &[&third, &second])).await;
    alice.online().await;
    bob.online().await;
    befriend(&alice, &["bob"]).await;
    befriend(&bob, &["alice"]).await;
    set(&alice, Availability::Available).await;
    set(&bob, Availability::Busy).await;
    shown(&mut alice, "bob", Availability::Busy).await;
    first.vanish();
    set(&bob, Availability::Away).await;
    shown(&mut alice, "bob", Availability::Away).await;
    set(&bob, Availability::Available).await;
    shown(&mut alice, "bob", Availability::Available).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_text_waits_for_its_addressee() {
    let pki = pki();
    let first = start(supernode(&pki, 1, &[])).await;
    let mut alice = start(user(&pki, "alice", 11, &[&first])).await;
    alice.online().await;
    befriend(&alice, &["bob"]).await;
    let text_to = |to: &str| PresenceCommand::Text { id: [7; 16], to: handle(to), text: "hello".to_owned() };
    tell(&alice, text_to("bob")).await;
    let verdict = alice
        .wait("Taken", |event| match event {
            NodeEvent::Presence(ClientEvent::Taken { verdict, .. }) => Some(verdict),
            _ => None,
        })
        .await;
    assert_eq!(verdict, Verdict::Kept);
    assert_eq!(first.handle.status().await.presence.texts, 1);
    let mut bob = start(user(&pki, "bob", 12, &[&first])).await;
    befriend(&bob, &["alice"]).await;
    set(&bob, Availability::Available).await;
    assert_eq!(text(&mut bob).await, (handle("alice"), "hello".to_owned()));
    first.until("no text", |status| status.presence.texts == 0).await;
}
