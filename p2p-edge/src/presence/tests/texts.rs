//! Text between users.

use super::*;
use crate::presence::{ClientEvent, Refused, Verdict};

impl Scene {
    fn text(&mut self, from: usize, to: &str, text: &str, id: u8) {
        let send = |client: &mut Client, now, unix| client.send_text(now, unix, handle(to), text, [id; 16]);
        self.world.device(from, send).unwrap();
        self.world.settle();
    }

    fn verdicts(&self, device: usize) -> Vec<Verdict> {
        let verdict = |(at, event): &(usize, ClientEvent)| match event {
            ClientEvent::Taken { verdict, .. } if *at == device => Some(*verdict),
            _ => None,
        };
        self.world.heard.iter().filter_map(verdict).collect()
    }

    fn waiting(&self) -> usize {
        self.world.supernodes().iter().filter_map(|node| self.world.home(node)).map(|home| home.texts()).sum()
    }
}

#[test]
fn a_text_reaches_every_device_once_now_or_later() {
    let mut scene = Scene::new(5);
    let bob = scene.user("bob", 3, &["alice"]);
    let alice = scene.user("alice", 1, &["bob"])[0];
    scene.online(bob[0], 0);
    scene.online(bob[1], 1);
    scene.online(alice, 2);
    scene.text(alice, "bob", "hello", 1);
    assert_eq!(scene.verdicts(alice), [Verdict::Kept]);
    assert_eq!(scene.texts(bob[0]), [("alice".into(), "hello".into())]);
    assert_eq!(scene.texts(bob[1]), [("alice".into(), "hello".into())]);
    assert_eq!(scene.waiting(), 2, "both homes keep it for the third device");
    scene.pass(24 * 3600);
    scene.online(bob[2], 3);
    assert_eq!(scene.texts(bob[2]), [("alice".into(), "hello".into())]);
    assert_eq!(scene.waiting(), 0, "and forget it when all have it");
    scene.world.disconnect(bob[0]);
    scene.connect(bob[0], 4);
    scene.pass(300);
    assert!(scene.texts(bob[0]).is_empty());
}

#[test]
fn a_text_waits_for_a_user_who_is_offline_and_for_homes_that_change() {
    let mut scene = Scene::new(5);
    let bob = scene.user("bob", 1, &["alice"])[0];
    let alice = scene.user("alice", 1, &["bob"])[0];
    scene.online(alice, 0);
    scene.text(alice, "bob", "are you there?", 1);
    scene.pass(60);
    // One home dies, the other is no home any more: what it has goes to those that are.
    let homes = scene.homes("bob");
    if scene.world.agent_of(alice) != Some(homes[0]) {
        scene.world.kill(&homes[0]);
    }
    let joins: Vec<PeerId> = (150..250)
        .map(|n| key(n).peer_id())
        .filter(|peer| {
            let all = scene.nodes.iter().copied().chain([*peer]);
            homes_of(&handle("bob"), &Members::new(all))[0] == *peer
        })
        .take(2)
        .collect();
    scene.world.start(&joins);
    scene.pass(60);
    let at = scene.world.supernodes()[0];
    scene.set(bob, Availability::Available);
    scene.world.connect(bob, &at).unwrap();
    scene.pass(60);
    assert_eq!(scene.texts(bob), [("alice".into(), "are you there?".into())]);
}

#[test]
fn a_text_that_nobody_fetches_is_dropped() {
    let mut scene = Scene::new(3);
    let alice = scene.user("alice", 1, &["bob"])[0];
    scene.online(alice, 0);
    scene.text(alice, "bob", "hello", 1);
    assert_eq!(scene.waiting(), 2);
    scene.pass(6 * 24 * 3600);
    assert_eq!(scene.waiting(), 2);
    scene.pass(24 * 3600 + 120);
    assert_eq!(scene.waiting(), 0);
}

#[test]
fn a_text_of_whoever_is_not_allowed_vanishes_and_its_sender_cannot_tell() {
    let mut scene = Scene::new(4);
    let bob = scene.user("bob", 1, &["alice"])[0];
    let mallory = scene.user("mallory", 1, &["bob"])[0];
    // Sent before the home knows Bob's rules, and after.
    scene.online(mallory, 0);
    scene.text(mallory, "bob", "psst", 1);
    scene.online(bob, 1);
    scene.text(mallory, "bob", "psst again", 2);
    scene.pass(60);
    assert!(scene.texts(bob).is_empty());
    assert_eq!(scene.verdicts(mallory), [Verdict::Kept, Verdict::Kept]);
    assert!(scene.refused(Refused::NotAllowed) > 0);
}

#[test]
fn nobody_fills_a_mailbox_alone() {
    let mut scene = Scene::new(3);
    let alice = scene.user("alice", 1, &["bob"])[0];
    let carol = scene.user("carol", 1, &["bob"])[0];
    scene.online(alice, 0);
    scene.online(carol, 1);
    for id in 0..40 {
        scene.text(alice, "bob", "x", id);
        scene.pass(5);
    }
    let share = PresenceLimits::default().mailbox / 4;
    assert_eq!(scene.verdicts(alice).iter().filter(|verdict| **verdict == Verdict::Kept).count(), share);
    let full = Verdict::Refused(Refused::Mailbox);
    assert_eq!(scene.verdicts(alice).iter().filter(|verdict| **verdict == full).count(), 40 - share);
    scene.text(carol, "bob", "y", 100);
    assert_eq!(scene.verdicts(carol), [Verdict::Kept]);
}
