#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use super::*;

const FIRST: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(250);

fn address(peer: PeerId, host: usize) -> Multiaddr {
    format!("/ip4/10.{}.{}.1/tcp/4001/p2p/{peer}", host / 256, host % 256).parse().unwrap()
}

fn nodes(count: usize) -> Vec<(PeerId, Multiaddr)> {
    let peers = (0..count).map(|_| PeerId::random()).enumerate();
    peers.map(|(at, peer)| (peer, address(peer, at))).collect()
}

fn has(connected: usize, wanted: usize) -> Demand {
    Demand { connected, wanted, mends: false }
}

fn plan(asks: &[Way], now: Instant) -> Plan {
    Plan::new(PeerId::random(), asks, FIRST, 0, now)
}

fn offer(plan: &mut Plan, way: Way, nodes: &[(PeerId, Multiaddr)], now: Instant) -> usize {
    plan.offer(way, nodes.iter().map(|(_, address)| address.clone()), now)
}

/// Runs the plan of a node, for as long as a minute, until it dials one of those that are up.
/// Those that are down take for ever. Returns how long it took.
fn time_to_join(plan: &mut Plan, up: &HashSet<PeerId>, start: Instant) -> Option<Duration> {
    let mut now = start;
    while now < start + Duration::from_secs(60) {
        let dials = plan.dials(now, has(0, 3), |_| false);
        if dials.iter().any(|(peer, _)| up.contains(peer)) {
            return Some(now - start);
        }
        plan.questions(now, 0);
        now += TICK;
    }
    None
}

#[test]
fn two_hundred_dead_nodes_of_one_way_hold_up_no_other() {
    for dead in [Way::Configured, Way::Disk, Way::List, Way::Lan] {
        for alive in Way::ALL.into_iter().filter(|way| *way != dead) {
            let start = Instant::now();
            let mut plan = plan(&[], start);
            offer(&mut plan, dead, &nodes(200), start);
            let good = nodes(1);
            offer(&mut plan, alive, &good, start);
            let up = HashSet::from([good[0].0]);
            let took = time_to_join(&mut plan, &up, start).unwrap();
            assert!(took <= PLACE + TICK, "{dead:?} holds up {alive:?}: {took:?}");
        }
    }
}

#[test]
fn every_node_of_a_way_is_tried_before_any_is_tried_often() {
    let start = Instant::now();
    let mut plan = plan(&[], start);
    let all = nodes(100);
    offer(&mut plan, Way::Disk, &all, start);
    let (mut now, mut seen) = (start, HashSet::new());
    let mut dialled = 0;
    while seen.len() < 100 {
        let dials = plan.dials(now, has(0, 16), |_| false);
        assert!(dials.len() <= PARALLEL);
        dialled += dials.len();
        seen.extend(dials.into_iter().map(|(peer, _)| peer));
        now += TICK;
        assert!(now < start + Duration::from_secs(60));
    }
    assert!(dialled < 100 + PARALLEL, "{dialled}: only the last round begins anew");
    // A hundred nodes that never answer, eight at a time for two seconds each.
    assert!(now < start + PLACE * 14, "{:?}", now - start);
}

#[test]
fn a_dial_that_fails_gives_its_place_away_at_once() {
    let start = Instant::now();
    let mut plan = plan(&[], start);
    offer(&mut plan, Way::Disk, &nodes(20), start);
    let first = plan.dials(start, has(0, 16), |_| false);
    assert_eq!(first.len(), PARALLEL);
    assert!(plan.dials(start, has(0, 16), |_| false).is_empty());
    plan.undialled(&first[0].0);
    let second = plan.dials(start, has(0, 16), |_| false);
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].0, first[0].0, "it waits for its second attempt");
}

#[test]
fn dns_and_mirrors_are_asked_later_and_only_by_who_is_alone() {
    let start = Instant::now();
    let mut plan = plan(&[Way::Dns, Way::Mirror], start);
    assert!(plan.may_have_others(), "nobody has been asked");
    assert!(plan.questions(start, 0).is_empty());
    assert!(plan.questions(start + BEFORE_DNS, 1).is_empty(), "a server is connected");
    let alone = start + Duration::from_secs(9);
    assert!(plan.questions(alone, 0).is_empty());
    assert_eq!(plan.questions(alone + BEFORE_DNS, 0), [Way::Dns]);
    assert_eq!(plan.questions(alone + BEFORE_MIRRORS, 0), [Way::Mirror]);
    let mut asked = [Vec::new(), Vec::new()];
    for second in 2..3600 {
        for way in plan.questions(alone + Duration::from_secs(second), 0) {
            asked[usize::from(way == Way::Mirror)].push(second);
        }
    }
    for of_way in &asked {
        assert!(of_way[0] <= 7 && (10..30).contains(&of_way.len()), "{of_way:?}");
        assert!(of_way.windows(2).all(|pair| pair[1] - pair[0] <= 301), "{of_way:?}");
    }
    plan.answered(Way::Dns);
    plan.failed(Way::Mirror);
    assert!(plan.may_have_others(), "the mirrors are silent");
    plan.answered(Way::Mirror);
    assert!(!plan.may_have_others(), "both know nobody");
}

#[test]
fn waits_differ_from_node_to_node() {
    let start = Instant::now();
    let asks = |seed| {
        let mut plan = Plan::new(PeerId::random(), &[Way::Mirror], FIRST, seed, start);
        plan.questions(start, 0);
        (0..).map(|n| start + TICK / 25 * n).find(|now| !plan.questions(*now, 0).is_empty()).unwrap() - start
    };
    let waits: Vec<Duration> = (0..50).map(|seed| asks(seed * 7_919)).collect();
    let different: HashSet<&Duration> = waits.iter().collect();
    assert!(different.len() > 25, "{waits:?}");
    assert!(waits.iter().all(|wait| (BEFORE_MIRRORS..BEFORE_MIRRORS * 2).contains(wait)));
}

#[test]
fn a_node_that_works_is_told_for_each_way_that_named_it() {
    let start = Instant::now();
    let mut plan = plan(&[], start);
    let both = nodes(2);
    offer(&mut plan, Way::Disk, &both, start);
    assert_eq!(offer(&mut plan, Way::Invite, &both[..1], start), 0, "it is known already");
    plan.dials(start, has(0, 3), |_| false);
    plan.proven(&both[0].0, start + TICK);
    plan.proven(&PeerId::random(), start);
    let joined: Vec<_> =
        plan.status().iter().filter(|way| way.joined > 0).map(|way| (way.way, way.worked)).collect();
    assert_eq!(joined, [(Way::Disk, Some(start + TICK)), (Way::Invite, Some(start + TICK))]);
    // It is dialled again at once when it is lost.
    let again = plan.dials(start + TICK, has(0, 3), |_| false);
    assert!(again.iter().any(|(peer, _)| *peer == both[0].0));
    // One that turns out to be no server is left alone.
    plan.refuted(&both[1].0, start);
    let later = plan.dials(start + LONGEST_RETRY, has(0, 3), |peer| *peer == both[0].0);
    assert!(later.is_empty());
    assert_eq!(plan.dials(start + LAST_REFRESH, has(0, 3), |peer| *peer == both[0].0).len(), 1);
}

#[test]
fn no_more_is_dialled_than_is_wanted_and_nobody_who_is_connected() {
    let start = Instant::now();
    let mut plan = plan(&[], start);
    let all = nodes(9);
    offer(&mut plan, Way::Configured, &all, start);
    let dialled = plan.dials(start, has(1, 3), |peer| *peer == all[0].0);
    assert_eq!(dialled.len(), 2);
    assert!(dialled.iter().all(|(peer, _)| *peer != all[0].0));
    assert!(plan.dials(start, has(3, 3), |_| false).is_empty());
    assert!(plan.is_configured(&all[3].0) && !plan.is_configured(&PeerId::random()));
}

#[test]
fn what_is_offered_is_bounded_and_rubbish_is_passed_over() {
    let start = Instant::now();
    let mut plan = plan(&[], start);
    assert_eq!(offer(&mut plan, Way::Lan, &nodes(1_000), start), MAX_OF_WAY);
    let one = PeerId::random();
    plan.offer(Way::List, (0..100).map(|host| address(one, host)), start);
    let dials: Vec<_> = (0..100).flat_map(|n| plan.dials(start + PLACE * n, has(0, 16), |_| false)).collect();
    let of_one = &dials.iter().find(|(peer, _)| *peer == one).unwrap().1;
    assert_eq!(of_one.len(), MAX_ADDRESSES);
    assert!(of_one.iter().all(|address| !address.to_string().contains("p2p")));
    let me = plan.me;
    let rubbish: [Multiaddr; 3] =
        [address(me, 1), "/ip4/10.0.0.1/tcp/1".parse().unwrap(), format!("/p2p/{one}").parse().unwrap()];
    assert_eq!(plan.offer(Way::Invite, rubbish, start), 0);
    plan.withdraw(Way::Lan);
    assert_eq!(plan.status().iter().map(|way| way.nodes).sum::<usize>(), 1);
    plan.withdraw(Way::List);
    assert!(!plan.may_have_others());
}

#[test]
fn who_has_enough_still_looks_for_a_part_of_the_network_that_was_lost() {
    let start = Instant::now();
    let mut plan = plan(&[], start);
    let (near, far) = (nodes(20), nodes(20));
    offer(&mut plan, Way::Disk, &near, start);
    offer(&mut plan, Way::Disk, &far, start);
    let is_near = |peer: &PeerId| near.iter().any(|(known, _)| known == peer);
    let demand = Demand { connected: 20, wanted: 16, mends: true };
    let mut dialled = Vec::new();
    for tick in 0..4 * 3600 {
        let now = start + TICK * tick;
        dialled.extend(plan.dials(now, demand, is_near).into_iter().map(|(peer, _)| (now, peer)));
    }
    // One at a time, every half a minute, and each of the others in its turn.
    let others: HashSet<PeerId> = dialled.iter().map(|(_, peer)| *peer).collect();
    assert_eq!(others.len(), 20);
    assert!((100..=121).contains(&dialled.len()), "{}", dialled.len());
    let (now, last) = *dialled.last().unwrap();
    assert!(plan.proven(&last, now) && !plan.proven(&last, now), "it is told once");
    assert!(!plan.proven(&near[0].0, now));
    let idle = Demand { mends: false, ..demand };
    assert!(plan.dials(now + Duration::from_secs(3600), idle, is_near).is_empty());
}

#[test]
fn a_part_that_falls_silent_is_looked_for_at_once_and_its_first_node_leads_to_the_others() {
    let start = Instant::now();
    let mut plan = plan(&[], start);
    let (near, far) = (nodes(20), nodes(20));
    offer(&mut plan, Way::Disk, &near, start);
    offer(&mut plan, Way::Disk, &far, start);
    let is_near = |peer: &PeerId| near.iter().any(|(known, _)| known == peer);
    let demand = Demand { connected: 20, wanted: 16, mends: true };
    let lost = start + Duration::from_secs(40);
    plan.dials(lost, demand, is_near);
    for (peer, _) in &far {
        plan.fell_silent(peer, lost);
    }
    let mut dialled = Vec::new();
    for tick in 0..4 * 200 {
        let now = lost + TICK * tick;
        dialled.extend(plan.dials(now, demand, is_near).iter().map(|_| (now - lost).as_secs()));
    }
    assert_eq!(dialled[..6], [3, 9, 21, 45, 75, 105], "soon, and then as seldom as ever: {dialled:?}");
    let back = lost + Duration::from_secs(200);
    assert!(plan.proven(&far[0].0, back), "whoever is back knows others who may be");
    assert!(!plan.proven(&far[1].0, back + Duration::from_secs(1)), "they all come at once");
    assert!(plan.proven(&far[2].0, back + Duration::from_secs(6)));
    assert!(!plan.proven(&far[2].0, back + Duration::from_secs(60)), "it was there all the time");
}
