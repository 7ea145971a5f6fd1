//! Who sees what of whom, and what is not sent for it.

use super::*;
use crate::identity::{RevocationList, RevocationReason};
use crate::presence::Refused;

#[test]
fn a_contact_is_seen_coming_changing_and_going() {
    let mut scene = Scene::new(5);
    let alice = scene.user("alice", 1, &["bob"])[0];
    let bob = scene.user("bob", 1, &["alice"])[0];
    scene.online(alice, 0);
    assert_eq!(scene.shown(alice, "bob"), Availability::Offline);
    scene.online(bob, 1);
    assert_eq!(scene.shown(alice, "bob"), Availability::Available, "who was there first hears it");
    assert_eq!(scene.shown(bob, "alice"), Availability::Available, "who comes later too");
    for availability in [Availability::Away, Availability::Busy, Availability::Available] {
        scene.set(bob, availability);
        assert_eq!(scene.shown(alice, "bob"), availability);
    }
    scene.note(bob, Availability::Busy, "on a train");
    let last = scene.changes(alice).pop().unwrap();
    assert_eq!(last, ("bob".into(), Availability::Busy, "on a train".into()));
    // Not there any more: no message of the device says so.
    let said = scene.bytes(&[Way::Up]);
    scene.world.disconnect(bob);
    scene.pass(10);
    assert_eq!(scene.shown(alice, "bob"), Availability::Busy, "it may come back");
    scene.pass(10);
    assert_eq!(scene.shown(alice, "bob"), Availability::Offline);
    assert_eq!(scene.bytes(&[Way::Up]), said);
}

#[test]
fn a_change_of_availability_is_small_and_what_has_not_changed_is_not_sent() {
    let mut scene = Scene::new(6);
    let bob = scene.user("bob", 1, &["alice", "carol"])[0];
    let alice = scene.user("alice", 1, &["bob"])[0];
    let carol = scene.user("carol", 1, &["bob"])[0];
    let node = scene.stranger("bob");
    scene.online(bob, 0);
    scene.online(alice, node);
    scene.online(carol, node);
    scene.pass(60);
    let (before, from_home) = (scene.all_bytes(), scene.sent(Way::FromHome, "states"));
    scene.set(bob, Availability::Away);
    let ways = 1 + 2 + 1 + 2; // up, to two homes, from one of them to the one supernode, to two watchers
    let spent = scene.all_bytes() - before;
    assert!(spent <= 55 * ways, "{spent} bytes for {ways} messages");
    assert_eq!(scene.sent(Way::FromHome, "states"), from_home + 1, "once for both watchers");
    assert_eq!(
        (scene.shown(alice, "bob"), scene.shown(carol, "bob")),
        (Availability::Away, Availability::Away)
    );
    // The same again is nothing.
    let before = scene.all_bytes();
    scene.set(bob, Availability::Away);
    scene.pass(3600);
    assert_eq!(scene.all_bytes(), before, "an hour in which nothing happens");
}

#[test]
fn a_connection_that_comes_back_costs_a_few_bytes_for_all_contacts() {
    let mut scene = Scene::new(4);
    let names: Vec<String> = (0..20).map(|n| format!("friend{n}")).collect();
    let friends: Vec<&str> = names.iter().map(String::as_str).collect();
    let alice = scene.user("alice", 1, &friends)[0];
    let others: Vec<usize> = friends.iter().map(|name| scene.user(name, 1, &["alice"])[0]).collect();
    for (at, other) in others.iter().enumerate() {
        scene.online(*other, at % 4);
    }
    scene.online(alice, 0);
    assert_eq!(scene.changes(alice).len(), 20);
    let agent = scene.nodes[0];
    let before = scene.all_bytes();
    scene.world.disconnect(alice);
    scene.pass(5);
    scene.connect(alice, 0);
    assert!(scene.all_bytes() - before < 60, "{} bytes", scene.all_bytes() - before);
    // What has happened meanwhile comes, and nothing else.
    scene.world.disconnect(alice);
    scene.set(others[3], Availability::Busy);
    scene.connect(alice, 0);
    assert_eq!(scene.changes(alice), [("friend3".into(), Availability::Busy, String::new())]);
    // The same between supernodes, for all of their watchers at once.
    for home in scene.nodes.clone() {
        let before = scene.all_bytes();
        scene.world.cut(&agent, &home);
        scene.pass(20);
        assert!(scene.all_bytes() - before < 60, "{} bytes", scene.all_bytes() - before);
    }
    assert!(scene.changes(alice).is_empty());
    // At another supernode, a mark stands for each contact.
    let before = scene.bytes(&[Way::Down]);
    scene.connect(alice, 1);
    scene.pass(20);
    assert!(scene.bytes(&[Way::Down]) - before < 60, "{}", scene.bytes(&[Way::Down]) - before);
    assert!(scene.changes(alice).is_empty(), "nobody flickers");
    assert_eq!(scene.shown(others[0], "alice"), Availability::Available);
    assert!(scene.changes(others[0]).iter().all(|(_, shown, _)| *shown != Availability::Offline));
}

#[test]
fn only_those_whom_the_user_allows_see_anything() {
    let mut scene = Scene::new(4);
    let bob = scene.user("bob", 1, &["alice"])[0];
    let alice = scene.user("alice", 1, &["bob"])[0];
    let mallory = scene.user("mallory", 1, &["bob"])[0];
    // Both watch from the same supernode, which hears the state for one of them.
    for device in [alice, mallory, bob] {
        scene.online(device, 0);
    }
    scene.set(bob, Availability::Away);
    assert_eq!(scene.shown(alice, "bob"), Availability::Away);
    assert_eq!(scene.shown(mallory, "bob"), Availability::Offline);
    assert!(scene.changes(mallory).is_empty());
    // Rules take effect at once, both ways.
    scene.world.device(bob, |client, _, unix| {
        client.set_rules(unix, true, BTreeSet::new(), handles(&["alice"])).unwrap();
    });
    scene.world.settle();
    assert_eq!(scene.shown(alice, "bob"), Availability::Offline);
    assert_eq!(scene.shown(mallory, "bob"), Availability::Away);
    // Alice cannot tell: she has heard what she would hear if Bob were gone.
    assert_eq!(scene.changes(alice).pop().unwrap(), ("bob".into(), Availability::Offline, String::new()));
    scene.set(bob, Availability::Busy);
    assert!(scene.changes(alice).is_empty());
}

#[test]
fn a_blocked_watcher_gets_the_bytes_of_one_whose_contact_is_offline() {
    // Everything that reaches the watcher, and everything that reaches its supernode from homes.
    let cost = |allowed: &[&str], bob_comes: bool| {
        let mut scene = Scene::new(4);
        let bob = scene.user("bob", 1, allowed)[0];
        let mallory = scene.user("mallory", 1, &["bob"])[0];
        let at = scene.stranger("bob");
        scene.online(mallory, at);
        if bob_comes {
            scene.online(bob, at);
            scene.set(bob, Availability::Away);
        }
        scene.pass(300);
        scene.sent(Way::Down, "states") + scene.sent(Way::FromHome, "states")
    };
    assert_eq!(cost(&["mallory"], false), 0);
    assert!(cost(&["mallory"], true) >= 4, "seen coming and changing, by two hops");
    assert_eq!(cost(&["alice"], true), 0);
}

#[test]
fn several_devices_are_one_user() {
    let mut scene = Scene::new(5);
    let bob = scene.user("bob", 2, &["alice"]);
    let alice = scene.user("alice", 1, &["bob"])[0];
    scene.online(alice, 0);
    scene.set(bob[0], Availability::Away);
    scene.connect(bob[0], 1);
    assert_eq!(scene.shown(alice, "bob"), Availability::Away);
    scene.online(bob[1], 2);
    assert_eq!(scene.shown(alice, "bob"), Availability::Available, "the most available device");
    scene.world.disconnect(bob[1]);
    scene.pass(60);
    assert_eq!(scene.shown(alice, "bob"), Availability::Away, "the other is still there");
    scene.set(bob[0], Availability::Offline);
    assert_eq!(scene.shown(alice, "bob"), Availability::Offline, "at once where the device says so");
}

#[test]
fn more_changes_than_a_chain_has_links_and_more_than_the_rate_allows() {
    let mut scene = Scene::new(3);
    let bob = scene.user("bob", 1, &["alice"])[0];
    let alice = scene.user("alice", 1, &["bob"])[0];
    scene.online(alice, 0);
    scene.online(bob, 1);
    for round in 0..300 {
        scene.set(bob, Availability::SHOWN[round % 3]);
        scene.pass(5);
        assert_eq!(scene.shown(alice, "bob"), Availability::SHOWN[round % 3], "change {round}");
    }
    // A burst is passed on as far as it goes, and its last state in the end.
    scene.changes(alice);
    for round in 0..200 {
        scene.set(bob, Availability::SHOWN[round % 3]);
    }
    let passed = scene.changes(alice).len();
    assert!(passed > 5 && passed <= 20, "{passed}");
    scene.pass(10);
    assert_eq!(scene.shown(alice, "bob"), Availability::SHOWN[199 % 3]);
}

#[test]
fn a_device_that_stays_is_there_for_days_and_its_watchers_hear_nothing_of_it() {
    let mut scene = Scene::new(3);
    let bob = scene.user("bob", 1, &["alice"])[0];
    let alice = scene.user("alice", 1, &["bob"])[0];
    scene.online(bob, 1);
    scene.online(alice, 0);
    scene.changes(alice);
    let before = scene.bytes(&[Way::Down]);
    for _ in 0..12 {
        scene.pass(24 * 3600);
        assert_eq!(scene.shown(alice, "bob"), Availability::Available);
    }
    assert_eq!(scene.bytes(&[Way::Down]), before);
    assert!(scene.changes(alice).is_empty());
    scene.set(bob, Availability::Away);
    assert_eq!(scene.shown(alice, "bob"), Availability::Away, "the announcement that it rests on comes too");
}

#[test]
fn a_revoked_user_is_gone_at_once() {
    let mut scene = Scene::new(3);
    let bob = scene.user("bob", 1, &["alice"])[0];
    let alice = scene.user("alice", 1, &["bob"])[0];
    scene.online(bob, 1);
    scene.online(alice, 0);
    assert_eq!(scene.shown(alice, "bob"), Availability::Available);
    // The first user has serial 2001.
    let (mut list, unix) = (RevocationList::default(), scene.world.unix_ms / 1000);
    let signed = scene.pki.enrolment.revoke(None, 2001, RevocationReason::KeyCompromise, unix).unwrap();
    list.apply(signed, &scene.pki.trust().unwrap(), unix).unwrap();
    scene.world.revoke(list);
    scene.world.settle();
    assert_eq!(scene.shown(alice, "bob"), Availability::Offline);
    scene.world.disconnect(bob);
    scene.connect(bob, 2);
    scene.set(bob, Availability::Busy);
    scene.pass(120);
    assert_eq!(scene.shown(alice, "bob"), Availability::Offline, "and does not come back");
    assert!(scene.refused(Refused::Certificate) > 0);
}
