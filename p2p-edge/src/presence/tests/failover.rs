//! Homes that die, come and disagree.

use super::*;

fn two(scene: &mut Scene) -> (usize, usize) {
    let bob = scene.user("bob", 1, &["alice"])[0];
    let alice = scene.user("alice", 1, &["bob"])[0];
    (alice, bob)
}

#[test]
fn a_home_that_dies_is_replaced_and_nobody_flickers() {
    let mut scene = Scene::new(6);
    let (alice, bob) = two(&mut scene);
    let homes = scene.homes("bob");
    let free: Vec<usize> = (0..6)
        .filter(|at| ![scene.homes("bob"), scene.homes("alice")].concat().contains(&scene.nodes[*at]))
        .collect();
    scene.online(bob, free[0]);
    scene.online(alice, free[1]);
    assert_eq!(scene.shown(alice, "bob"), Availability::Available);
    scene.changes(alice);
    // Nobody tells the others that it is gone: they find out.
    scene.world.kill(&homes[0]);
    scene.pass(20);
    scene.set(bob, Availability::Away);
    assert_eq!(scene.shown(alice, "bob"), Availability::Away, "the other home goes on");
    // Then the routing table notices, and a third one takes its place.
    scene.world.tell_members();
    scene.pass(20);
    assert_eq!(scene.homes("bob")[0], homes[1]);
    scene.world.kill(&homes[1]);
    scene.pass(120);
    scene.set(bob, Availability::Busy);
    let changes = scene.changes(alice);
    assert_eq!(scene.shown(alice, "bob"), Availability::Busy, "{changes:?}");
    assert!(changes.iter().all(|(_, shown, _)| *shown != Availability::Offline), "{changes:?}");
}

#[test]
fn a_nearer_supernode_that_joins_becomes_the_home() {
    let mut scene = Scene::new(4);
    let (alice, bob) = two(&mut scene);
    scene.online(bob, 0);
    scene.online(alice, 1);
    scene.pass(60);
    scene.changes(alice);
    let joins: Vec<PeerId> = (50..90).map(supernode).collect();
    let nearer = joins
        .into_iter()
        .find(|peer| {
            let all = scene.nodes.iter().copied().chain([*peer]);
            homes_of(&handle("bob"), &Members::new(all))[0] == *peer
        })
        .unwrap();
    let before = scene.bytes(&[Way::Down]);
    scene.world.start(&[nearer]);
    scene.pass(120);
    assert!(scene.changes(alice).is_empty(), "nobody flickers");
    assert_eq!(scene.bytes(&[Way::Down]), before, "and watchers hear nothing of it");
    assert_eq!(scene.world.home(&nearer).unwrap().handles().1, 1, "the user is known there");
    for home in scene.homes("bob").iter().skip(1) {
        scene.world.kill(home);
    }
    scene.set(bob, Availability::Busy);
    if scene.world.agent_of(alice).is_some() && scene.world.agent_of(bob).is_some() {
        assert_eq!(scene.shown(alice, "bob"), Availability::Busy);
    }
}

#[test]
fn an_agent_that_dies_takes_its_devices_offline_until_they_are_back_elsewhere() {
    let mut scene = Scene::new(6);
    let (alice, bob) = two(&mut scene);
    let (at, watcher) =
        (scene.stranger("bob"), scene.nodes.iter().position(|n| scene.homes("bob")[0] == *n).unwrap());
    scene.online(bob, at);
    scene.online(alice, watcher);
    scene.changes(alice);
    let agent = scene.nodes[at];
    assert_eq!(scene.world.kill(&agent), [bob]);
    scene.pass(10);
    // Back before anybody has noticed.
    let other = (0..6).find(|n| *n != at && *n != watcher).unwrap();
    scene.connect(bob, other);
    scene.pass(120);
    assert!(scene.changes(alice).is_empty(), "it was never gone");
    let agent = scene.nodes[other];
    scene.world.kill(&agent);
    scene.pass(45);
    assert_eq!(scene.shown(alice, "bob"), Availability::Offline);
}

#[test]
fn a_change_that_was_lost_with_a_connection_arrives_on_the_next() {
    let mut scene = Scene::new(5);
    let (alice, bob) = two(&mut scene);
    let homes = scene.homes("bob");
    let at = scene.stranger("bob");
    scene.online(bob, at);
    scene.online(alice, at);
    scene.world.settle();
    // The home dies and is back with nothing in its memory before anybody has noticed.
    for home in &homes {
        scene.world.kill(home);
    }
    scene.set(bob, Availability::Away);
    scene.world.start(&homes);
    scene.pass(60);
    assert_eq!(scene.shown(alice, "bob"), Availability::Away);
    assert!(scene.changes(alice).iter().all(|(_, shown, _)| *shown != Availability::Offline));
}

#[test]
fn supernodes_that_know_different_others_agree_in_the_end() {
    let mut scene = Scene::new(12);
    let (alice, bob) = two(&mut scene);
    let homes = scene.homes("bob");
    let free: Vec<usize> = (0..12).filter(|at| !homes.contains(&scene.nodes[*at])).collect();
    // The two agents know neither home, and not the same others either.
    for (at, part) in [(free[0], &free[..5]), (free[1], &free[5..])] {
        let known: Vec<PeerId> = part.iter().map(|at| scene.nodes[*at]).collect();
        let peer = scene.nodes[at];
        scene.world.tell_one(&peer, &known);
    }
    scene.online(bob, free[0]);
    scene.online(alice, free[1]);
    scene.pass(60);
    assert_eq!(scene.shown(alice, "bob"), Availability::Available);
    assert!(scene.refused(crate::presence::Refused::NotHome) > 0, "they were told where to go");
}
