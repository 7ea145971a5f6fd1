//! Two softphones in one process call each other over a supernode.
use std::time::Duration;

use crate::common::{Overlay, scratch, share_of, tone};
use call_model::{Address, DtmfDigit};
use peer::audio::Clip;
use peer::event::{Ended, Event};
use peer::{AnswerMode, AnswerPolicy, CallOptions, Command};

fn call(to: &str, options: CallOptions) -> Command {
    Command::Call {
        to: to.parse::<Address>().unwrap(),
        display_name: Some("Alice".into()),
        private: false,
        ring_timeout: Duration::from_secs(60),
        options,
    }
}

fn digits(text: &str) -> Vec<DtmfDigit> {
    text.chars().map(|c| DtmfDigit::from_char(c).unwrap()).collect()
}

fn assert_normal(ended: &Ended, by: &str) {
    assert_eq!((ended.cause, ended.by), (16, by), "{ended:?}");
    assert!(ended.answered && ended.media_up && !ended.media_failed, "{ended:?}");
    let quality = ended.quality.expect("there was media");
    assert!(quality.packets_received > 50 && quality.packets_sent > 50, "{quality:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tones_and_digits_cross_in_both_directions() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    let policy = AnswerPolicy {
        mode: AnswerMode::After(Duration::from_millis(300)),
        options: CallOptions {
            play: Some(Clip::new(&tone(700.0, 3.0))),
            record: Some(directory.join("bob.wav")),
            dtmf: digits("99"),
            ..CallOptions::default()
        },
        ..AnswerPolicy::default()
    };
    let mut bob = overlay.user("bob", 12, policy).await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    let options = CallOptions {
        play: Some(Clip::new(&tone(1_000.0, 3.0))),
        record: Some(directory.join("alice.wav")),
        dtmf: digits("12#"),
        duration: Some(Duration::from_secs(4)),
        ..CallOptions::default()
    };
    alice.send(call("bob", options)).await;
    let at_alice = alice.wait_ended().await;
    let at_bob = bob.wait_ended().await;
    assert_normal(&at_alice, "local");
    assert_normal(&at_bob, "far");
    assert!((3_900..6_000).contains(&at_alice.duration_ms), "{at_alice:?}");
    assert_eq!((at_bob.digits.as_str(), at_alice.digits.as_str()), ("12#", "99"));
    assert_eq!((bob.digits().as_str(), alice.digits().as_str()), ("12#", "99"));

    let expected = ["ringing", "answered", "media_up", "heard", "played", "ended"];
    let names = alice.names();
    let mut rest = names.iter();
    assert!(expected.iter().all(|name| rest.any(|seen| seen == name)), "{names:?}");
    let told = bob.seen.iter().find_map(|event| match event {
        Event::Incoming { from, display_name, private, role, to, .. } => {
            Some((from.clone(), display_name.clone(), *private, *role, to.clone()))
        }
        _ => None,
    });
    assert_eq!(told, Some((Some("alice".into()), Some("Alice".into()), false, "user", "bob".into())));

    for (name, heard, own) in [("bob.wav", 1_000.0, 700.0), ("alice.wav", 700.0, 1_000.0)] {
        let samples = crate::common::read_wav(&directory.join(name));
        assert!(samples.len() > 3 * crate::common::RATE as usize, "{name}: {} samples", samples.len());
        assert!(share_of(&samples, heard) > 0.4, "{name}: {}", share_of(&samples, heard));
        assert!(share_of(&samples, own) < 0.01, "{name} holds its own voice");
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn early_media_hold_text_and_echo() {
    let directory = scratch();
    let overlay = Overlay::start().await;
    let policy = AnswerPolicy {
        mode: AnswerMode::Early { wait: Duration::from_secs(2), clip: Some(Clip::new(&tone(600.0, 1.5))) },
        options: CallOptions { echo: true, ..CallOptions::default() },
        ..AnswerPolicy::default()
    };
    let mut bob = overlay.user("bob", 12, policy).await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    let early = directory.join("early.wav");
    alice.send(call("bob", CallOptions { record: Some(early.clone()), ..CallOptions::default() })).await;
    alice.wait("early", |event| matches!(event, Event::Early { .. }).then_some(())).await;
    alice.wait("answered", |event| matches!(event, Event::Answered { .. }).then_some(())).await;
    assert!(alice.names().contains(&"media_up".to_owned()), "media was up before the answer");

    // From here on another file: what comes now is the echo.
    let echo = directory.join("echo.wav");
    alice.send(Command::Record { call: None, path: echo.clone() }).await;
    alice.send(Command::Play { call: None, clip: Clip::new(&tone(1_500.0, 2.0)) }).await;
    alice.wait("played", |event| matches!(event, Event::Played { .. }).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(600)).await;

    alice.send(Command::Hold { call: None, on: true }).await;
    let held = bob.wait("hold", |event| match event {
        Event::Hold { on, by, .. } => Some((*on, *by)),
        _ => None,
    });
    assert_eq!(held.await, (true, "far"));
    alice.send(Command::Hold { call: None, on: false }).await;
    bob.wait("taken back", |event| matches!(event, Event::Hold { on: false, .. }).then_some(())).await;
    bob.send(Command::Message { call: None, text: "grüß dich".into() }).await;
    let text = alice.wait("message", |event| match event {
        Event::Message { text, .. } => Some(text.clone()),
        _ => None,
    });
    assert_eq!(text.await, "grüß dich");
    bob.send(Command::HangUp { call: None, cause: call_model::Cause::NORMAL_CALL_CLEARING }).await;
    assert_normal(&alice.wait_ended().await, "far");
    assert_normal(&bob.wait_ended().await, "local");

    assert!(share_of(&crate::common::read_wav(&early), 600.0) > 0.4);
    assert!(share_of(&crate::common::read_wav(&echo), 1_500.0) > 0.4);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_not_answered_say_why() {
    let overlay = Overlay::start().await;
    let policy = |mode| AnswerPolicy { mode, ..AnswerPolicy::default() };
    let mut bob = overlay.user("bob", 12, policy(AnswerMode::Busy)).await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;

    alice.send(call("bob", CallOptions::default())).await;
    let ended = alice.wait_ended().await;
    assert_eq!((ended.cause, ended.sip_status, ended.by, ended.answered), (17, Some(486), "far", false));
    bob.wait_ended().await;

    bob.send(Command::Policy(policy(AnswerMode::Never))).await;
    let Command::Call { to, display_name, private, options, .. } = call("bob", CallOptions::default()) else {
        unreachable!()
    };
    let ring_timeout = Duration::from_secs(2);
    alice.send(Command::Call { to, display_name, private, ring_timeout, options }).await;
    let ended = alice.wait_ended().await;
    assert_eq!((ended.cause, ended.by, ended.answered), (19, "timeout", false), "{ended:?}");
    bob.wait_ended().await;

    bob.send(Command::Policy(policy(AnswerMode::Reject))).await;
    alice.send(call("bob", CallOptions::default())).await;
    assert_eq!(alice.wait_ended().await.cause, 21);
    bob.wait_ended().await;

    alice.send(call("nobody", CallOptions::default())).await;
    let ended = alice.wait_ended().await;
    assert_eq!((ended.cause, ended.sip_status), (1, Some(404)), "{ended:?}");
    assert_eq!(ended.quality, None, "there never was media");

    alice.send(Command::HangUp { call: None, cause: call_model::Cause::NORMAL_CALL_CLEARING }).await;
    let field = alice.wait("error", |event| match event {
        Event::Error { field, .. } => Some(field.clone()),
        _ => None,
    });
    assert_eq!(field.await.as_deref(), Some("call"), "there is no call to hang up");
}

/// RFC 5079.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e06_a_user_who_refuses_anonymous_callers_says_433_to_them_alone() {
    let overlay = Overlay::start().await;
    let policy = AnswerPolicy { reject_anonymous: true, ..AnswerPolicy::default() };
    let mut bob = overlay.user("bob", 12, policy).await;
    let mut alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    for hidden in [true, false] {
        let Command::Call { to, display_name, options, .. } = call("bob", CallOptions::default()) else {
            unreachable!()
        };
        let ring_timeout = Duration::from_secs(2);
        alice.send(Command::Call { to, display_name, private: hidden, ring_timeout, options }).await;
        let ended = alice.wait_ended().await;
        let expected = if hidden { (24, Some(433), "far") } else { (19, ended.sip_status, "timeout") };
        assert_eq!((ended.cause, ended.sip_status, ended.by), expected, "{ended:?}");
        bob.wait_ended().await;
    }
}

/// Sixty-four calls ring; one more is busy whatever the policy says by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_beyond_the_limit_is_rejected_and_not_answered() {
    let overlay = Overlay::start().await;
    let manual = AnswerPolicy { mode: AnswerMode::Manual, ..AnswerPolicy::default() };
    let mut bob = overlay.user("bob", 12, manual).await;
    let alice = overlay.user("alice", 11, AnswerPolicy::default()).await;
    let mut carol = overlay.user("carol", 13, AnswerPolicy::default()).await;
    // A node takes 32 new streams of one peer at a time.
    for _ in 0..4 {
        for _ in 0..peer::MAX_CALLS / 4 {
            alice.send(call("bob", CallOptions::default())).await;
        }
        for _ in 0..peer::MAX_CALLS / 4 {
            bob.wait("incoming", |event| matches!(event, Event::Incoming { .. }).then_some(())).await;
        }
    }
    let mode = AnswerMode::After(Duration::ZERO);
    bob.send(Command::Policy(AnswerPolicy { mode, ..AnswerPolicy::default() })).await;
    for _ in 0..5 {
        carol.send(call("bob", CallOptions::default())).await;
        let ended = carol.wait_ended().await;
        assert_eq!((ended.cause, ended.answered), (17, false), "{ended:?}");
        bob.wait_ended().await;
    }
    assert!(!bob.names().contains(&"answered".to_owned()), "{:?}", bob.names());
    alice.send(Command::Quit).await;
}
