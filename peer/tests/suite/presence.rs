//! Presence and text between softphones.

use std::collections::BTreeSet;

use call_model::{Availability, Handle};
use peer::event::Event;
use peer::{AnswerPolicy, Command};

use crate::common::{Overlay, User};

fn handles(names: &[&str]) -> BTreeSet<Handle> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Watches these users, and lets them watch back.
async fn befriend(user: &User, names: &[&str]) {
    let (allowed, refused) = (handles(names), BTreeSet::new());
    user.send(Command::Rules { everybody: false, allowed, refused }).await;
    user.send(Command::Contacts(handles(names))).await;
}

async fn says(user: &User, availability: Availability, note: &str) {
    user.send(Command::Presence { availability, note: note.into() }).await;
}

async fn shown(user: &mut User, of: &str, as_what: &str) -> String {
    user.wait(&format!("{of} {as_what}"), |event| match event {
        Event::Presence { handle, availability, note } if handle == of && *availability == as_what => {
            Some(note.clone())
        }
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_see_whom_they_may_and_hear_what_becomes_of_their_texts() {
    let overlay = Overlay::start().await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    let mut bob = overlay.user("bob", 12, AnswerPolicy::default()).await;
    let mut mallory = overlay.user("mallory", 13, AnswerPolicy::default()).await;
    befriend(&alice, &["bob"]).await;
    befriend(&bob, &["alice"]).await;
    befriend(&mallory, &["alice", "bob"]).await;
    says(&alice, Availability::Available, "").await;
    says(&mallory, Availability::Available, "").await;
    says(&bob, Availability::Busy, "until three").await;
    assert_eq!(shown(&mut alice, "bob", "busy").await, "until three");
    shown(&mut bob, "alice", "available").await;
    says(&bob, Availability::Away, "").await;
    shown(&mut alice, "bob", "away").await;

    let to = || "bob".parse().unwrap();
    alice.send(Command::Text { to: to(), text: "grüß dich".into() }).await;
    let sent = alice.wait("text_sent", |event| match event {
        Event::TextSent { id, to } if to == "bob" => Some(id.clone()),
        _ => None,
    });
    let sent = sent.await;
    let taken = alice.wait("text_taken", |event| match event {
        Event::TextTaken { id, kept, .. } => Some((id.clone(), *kept)),
        _ => None,
    });
    assert_eq!(taken.await, (sent.clone(), true));
    let text = bob.wait("text", |event| match event {
        Event::Text { id, from, text, .. } => Some((id.clone(), from.clone(), text.clone())),
        _ => None,
    });
    assert_eq!(text.await, (sent, "alice".to_owned(), "grüß dich".to_owned()));

    // Who is not let in sees nobody, is told nothing that would tell it so, and reaches nobody.
    mallory.send(Command::Text { to: to(), text: "psst".into() }).await;
    let taken = mallory.wait("text_taken", |event| match event {
        Event::TextTaken { kept, .. } => Some(*kept),
        _ => None,
    });
    assert!(taken.await);
    mallory.send(Command::Presence { availability: Availability::Away, note: "x".repeat(200) }).await;
    let refused = mallory.wait("presence_refused", |event| match event {
        Event::PresenceRefused { reason } => Some(*reason),
        _ => None,
    });
    assert_eq!(refused.await, "oversize");

    // Whoever leaves is seen to leave, without a word of its own.
    bob.send(Command::Quit).await;
    shown(&mut alice, "bob", "offline").await;
    let seen = |user: &User, of: &str| {
        user.seen.iter().any(|event| matches!(event, Event::Presence { handle, availability, .. } if handle == of && *availability != "offline"))
    };
    assert!(!seen(&mallory, "alice") && !seen(&mallory, "bob"), "{:?}", mallory.seen);
    let psst = |event: &Event| matches!(event, Event::Text { from, .. } if from == "mallory");
    assert!(!bob.seen.iter().any(psst));
}
