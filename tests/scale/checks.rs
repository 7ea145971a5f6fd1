//! What the model must show at a small size, each from a seed.

use crate::scenario::{self, GUARDS, Guard, KEYS, Plan};
use crate::sim::{Defences, Settings};
use crate::tally::Kind;
use crate::{Network, Sessions};
use std::time::Duration;

const SEED: u64 = 5;

fn plan() -> Plan {
    Plan {
        supernodes: 150,
        users: 25,
        minutes: 4,
        seed: SEED,
        copies: KEYS,
        settings: Settings {
            alpha: 4,
            paths: 4,
            network: Network { loss: 0.01, fixed: None },
            sessions: Some(Sessions { shape: 0.59, scale: 41.9 }),
            defences: Defences { certificates: true, same_network: 4 },
            look_up_every: Duration::from_secs(20),
            user_refresh: p2p_edge::routing::LAST_REFRESH,
            patience: Duration::from_secs(5),
        },
    }
}

fn guard(name: &str) -> &'static Guard {
    GUARDS.iter().find(|guard| guard.name == name).expect("a guard of this name")
}

#[test]
fn a_seed_always_gives_the_same() {
    let run = |seed| {
        let (steady, sim) = scenario::steady(&Plan { seed, ..plan() }).unwrap();
        let efforts: Vec<String> = steady.efforts.iter().map(|effort| format!("{effort:?}")).collect();
        (steady.events, efforts, format!("{:?}", sim.tally.look_ups))
    };
    let first = run(SEED);
    assert_eq!(first, run(SEED), "seed {SEED}");
    assert_ne!(first.2, run(SEED + 1).2);
}

#[test]
fn callees_are_found_while_supernodes_come_and_go() {
    let (steady, _) = scenario::steady(&plan()).unwrap();
    let looked = &steady.look_ups;
    assert!(looked.count > 150, "{looked:?}");
    assert!(looked.found_percent() > 99.0 && looked.newest_percent() > 97.0, "seed {SEED}: {looked:?}");
    assert!((15.0..=25.0).contains(&(steady.holders() / KEYS as f64)), "{}", steady.holders());
    assert!(steady.lost_percent() < 0.5, "{}", steady.lost_percent());
    // Each record goes to 20 under each key, at half of its life.
    let publish = steady.effort(Kind::Publish);
    let expected = steady.seconds / 300.0 * 25.0;
    assert!(publish.done as f64 >= 0.8 * expected, "{publish:?}");
    assert!((15.0..=22.0).contains(&(publish.each(publish.records) / KEYS as f64)), "{publish:?}");
}

#[test]
fn half_of_all_supernodes_may_go_at_once() {
    let (_, sim) = scenario::steady(&plan()).unwrap();
    let half = scenario::half_killed(sim).unwrap();
    assert!(half.before.found_percent() > 99.0, "seed {SEED}: {:?}", half.before);
    assert!(half.after.found_percent() > 99.0, "seed {SEED}: {:?}", half.found);
    assert!(half.after.reachable_percent() > 97.0, "seed {SEED}: {:?}", half.reachable);
}

#[test]
fn a_network_that_was_cut_grows_together() {
    let (_, sim) = scenario::steady(&plan()).unwrap();
    let cut = scenario::partition(sim).unwrap();
    let of = |curve: &[(f64, f64)], from: f64, to: f64| {
        let some: Vec<f64> = curve.iter().filter(|p| p.0 > from && p.0 <= to).map(|p| p.1).collect();
        some.iter().sum::<f64>() / some.len() as f64
    };
    // The cut is from minute 2 to minute 12, and a record lives ten minutes.
    assert!(of(&cut.across, 8.0, 12.0) < 50.0, "seed {SEED}: {:?}", cut.across);
    assert!(of(&cut.within, 6.0, 12.0) > 95.0, "seed {SEED}: {:?}", cut.within);
    assert!(of(&cut.across, 20.0, 24.0) > 95.0, "seed {SEED}: {:?}", cut.across);
}

#[test]
fn a_list_of_yesterday_leads_back() {
    let (_, sim) = scenario::steady(&plan()).unwrap();
    let rejoin = scenario::without_the_first(sim.clone(), 0.2).unwrap();
    assert!(rejoin.joined > 99.0 && rejoin.found > 90.0, "seed {SEED}: {rejoin:?}");
    let nobody = scenario::without_the_first(sim, 0.0).unwrap();
    // Some who knew it before dial it.
    assert!(nobody.joined < 50.0, "seed {SEED}: who knows nobody can only be found, {nobody:?}");
}

#[test]
fn attackers_around_a_key_get_it_only_where_nothing_is_asked_of_them() {
    let open = scenario::sybils(&plan(), guard("nothing"), 200, 4).unwrap();
    assert!(open.found < 50.0 && open.captured > 50.0, "seed {SEED}: {open:?}");
    let certified = scenario::sybils(&plan(), guard("certificates"), 200, 4).unwrap();
    assert!(certified.found > 99.0 && certified.captured == 0.0, "seed {SEED}: {certified:?}");
}

#[test]
fn a_node_is_eclipsed_only_where_nothing_is_asked_of_others() {
    let open = scenario::eclipse(&plan(), guard("nothing"), 200, 4).unwrap();
    let diverse = scenario::eclipse(&plan(), guard("networks of a bucket"), 200, 4).unwrap();
    let certified = scenario::eclipse(&plan(), guard("certificates"), 200, 4).unwrap();
    assert!(open.captured > 40.0, "seed {SEED}: {open:?}");
    assert!(diverse.captured < open.captured && diverse.refused > 0, "seed {SEED}: {diverse:?} {open:?}");
    assert!(certified.captured == 0.0 && certified.found > 98.0, "seed {SEED}: {certified:?}");
}
