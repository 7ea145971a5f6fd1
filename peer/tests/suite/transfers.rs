//! Transfers between users, blind and after a consultation, and numbers without a gateway.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use call_model::CallId;
use p2p_edge::identity::AssignmentClaims;
use peer::event::{Ended, Event};
use peer::{AnswerMode, AnswerPolicy, CallOptions, Command, TransferTarget};

use crate::common::{Overlay, User};

fn answers(follow_transfers: bool) -> AnswerPolicy {
    let mode = AnswerMode::After(Duration::ZERO);
    AnswerPolicy { mode, follow_transfers, ..AnswerPolicy::default() }
}

async fn calls(user: &mut User, to: &str, options: CallOptions) -> CallId {
    user.send(Command::Call {
        to: to.parse().unwrap(),
        display_name: None,
        private: false,
        ring_timeout: Duration::from_secs(30),
        options,
    })
    .await;
    user.wait("calling", |event| match event {
        Event::Calling { call, .. } => Some(*call),
        _ => None,
    })
    .await
}

async fn up(user: &mut User, id: CallId) {
    user.wait("media_up", |event| matches!(event, Event::MediaUp { call } if *call == id).then_some(()))
        .await;
}

async fn comes_in(user: &mut User, from_whom: &str) -> CallId {
    user.wait(&format!("a call of {from_whom}"), |event| match event {
        Event::Incoming { call, from, .. } if from.as_deref() == Some(from_whom) => Some(*call),
        _ => None,
    })
    .await
}

async fn ends(user: &mut User, id: CallId) -> Ended {
    user.wait("ended", |event| match event {
        Event::Ended(ended) if ended.call == id => Some(ended.clone()),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_passed_on_to_another_with_its_leave() {
    let overlay = Overlay::start().await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    let mut bob = overlay.user("bob", 12, answers(false)).await;
    let mut carol = overlay.user("carol", 13, answers(false)).await;
    let first = calls(&mut alice, "bob", CallOptions::default()).await;
    up(&mut alice, first).await;
    let target = TransferTarget::Address("carol".parse().unwrap());
    alice.send(Command::Transfer { call: Some(first), target: target.clone() }).await;
    let asked = bob.wait("transfer", |event| match event {
        Event::Transfer { call, to, followed } => Some((*call, to.clone(), *followed)),
        _ => None,
    });
    assert_eq!(asked.await, (first, "carol".to_owned(), false), "it is Bob who would pay");
    // Bob does what he is asked to.
    let options = CallOptions { replaces: Some(first), ..CallOptions::default() };
    let second = calls(&mut bob, "carol", options).await;
    assert_eq!(comes_in(&mut carol, "bob").await, second);
    let ended = ends(&mut alice, first).await;
    assert_eq!((ended.cause, ended.by, ended.text.as_str()), (16, "far", "transferred"));
    up(&mut bob, second).await;
    up(&mut carol, second).await;
    bob.send(Command::HangUp { call: Some(second), cause: call_model::Cause::NORMAL_CALL_CLEARING }).await;
    assert_eq!(ends(&mut carol, second).await.cause, 16);

    // Somebody who is not there: the call goes on as it was.
    bob.send(Command::Policy(answers(true))).await;
    let first = calls(&mut alice, "bob", CallOptions::default()).await;
    up(&mut alice, first).await;
    let target = TransferTarget::Address("nobody".parse().unwrap());
    alice.send(Command::Transfer { call: None, target }).await;
    let tried = bob.wait("ended", |event| match event {
        Event::Ended(ended) if ended.cause == 1 => Some(ended.answered),
        _ => None,
    });
    assert!(!tried.await);
    alice.send(Command::Message { call: None, text: "so stay".into() }).await;
    bob.wait("message", |event| {
        matches!(event, Event::Message { text, .. } if text == "so stay").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_passed_on_after_a_consultation() {
    let overlay = Overlay::start().await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    let mut bob = overlay.user("bob", 12, answers(true)).await;
    let mut carol = overlay.user("carol", 13, answers(false)).await;
    let first = calls(&mut alice, "bob", CallOptions::default()).await;
    up(&mut alice, first).await;
    alice.send(Command::Hold { call: Some(first), on: true }).await;
    let consult = calls(&mut alice, "carol", CallOptions::default()).await;
    assert_eq!(comes_in(&mut carol, "alice").await, consult);
    up(&mut alice, consult).await;
    let target = TransferTarget::PartyOf(consult);
    alice.send(Command::Transfer { call: Some(first), target }).await;
    let joined = comes_in(&mut carol, "bob").await;
    // Both calls of Alice end: the one because Bob has another now, the other because that is so.
    assert_eq!(ends(&mut alice, first).await.by, "far");
    assert_eq!(ends(&mut alice, consult).await.by, "local");
    assert_eq!(ends(&mut carol, consult).await.text, "transferred");
    up(&mut carol, joined).await;
    carol.send(Command::Message { call: None, text: "hello Bob".into() }).await;
    bob.wait("message", |event| {
        matches!(event, Event::Message { text, .. } if text == "hello Bob").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_leads_to_the_softphone_that_holds_its_assignment() {
    let overlay = Overlay::start().await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    let mut bob = overlay.user("bob", 12, answers(false)).await;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = AssignmentClaims {
        number: "+442079460018".parse().unwrap(),
        handle: "bob".parse().unwrap(),
        serial: 70,
        sequence: unix * 1000,
        expires_unix: unix + 86_400,
    };
    let assignment = overlay.pki.enrolment.assign_number(claims).unwrap();
    bob.send(Command::Numbers(vec![assignment])).await;
    let held = bob.wait("numbers", |event| match event {
        Event::Numbers { numbers } => Some(numbers.clone()),
        _ => None,
    });
    assert_eq!(held.await, ["+442079460018"]);
    // It takes a moment until it is stored.
    let reached = async {
        loop {
            let call = calls(&mut alice, "+442079460018", CallOptions::default()).await;
            let went = alice.wait("an answer or the end", |event| match event {
                Event::Answered { call: id } if *id == call => Some(true),
                Event::Ended(ended) if ended.call == call => Some(false),
                _ => None,
            });
            if went.await {
                return call;
            }
        }
    };
    let call = tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the number leads to Bob");
    let told = bob.wait("incoming", |event| match event {
        Event::Incoming { call: id, to, .. } if *id == call => Some(to.clone()),
        _ => None,
    });
    assert_eq!(told.await, "+442079460018");
}
