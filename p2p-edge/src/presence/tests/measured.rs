//! What presence costs beside XMPP and SIP.

use std::time::Instant;

use crate::presence::simulation::{Measured, Model, Scenario, Sizes, measure};

fn print(measured: &Measured) {
    for ((way, kind), tally) in &measured.traffic {
        println!("{way:?} {kind}: {} messages, {} bytes", tally.messages, tally.bytes);
    }
    println!(
        "{:?} {:?} {:?} seed {}",
        measured.happened, measured.others, measured.membership, measured.scenario.seed
    );
    println!(
        "ratios: xmpp {:.3}, xmpp resumed {:.3}, sip {:.3}",
        measured.ratio_to_xmpp(),
        measured.ratio_to_xmpp_resumed(),
        measured.ratio_to_sip()
    );
}

#[test]
fn the_stanzas_have_the_sizes_of_those_in_the_standards() {
    let sizes = Sizes::of("juliet", "romeo");
    // RFC 6121 4.2.2 and 4.4.2 have 100 to 200; RFC 3856 7 has 400 and more for each request.
    assert!((80..140).contains(&sizes.xmpp_between), "{sizes:?}");
    assert!((80..140).contains(&sizes.xmpp_presence), "{sizes:?}");
    assert!((600..1000).contains(&sizes.sip_subscribe), "{sizes:?}");
    assert!((900..1300).contains(&sizes.sip_notify), "{sizes:?}");
}

#[test]
fn ten_thousand_users_cost_two_fifths_of_what_full_states_do() {
    let measured = measure(Scenario::usual(10_000, 20), Instant::now()).unwrap();
    print(&measured);
    let (right, all) = measured.right;
    assert!(right as f64 >= 0.999 * all as f64 && all > 50_000, "{right} of {all} are shown as they are");
    assert!(measured.happened.restarts > 0, "supernodes came and went too");
    assert!(measured.ratio_to_xmpp() <= 0.40);
    assert!(measured.ratio_to_sip() <= 0.10);
    // Where nearly nobody has a watcher at the same supernode as another.
    let model = Model::new(measured);
    let million = model.predict(1_000_000, 2_000);
    println!("{:?}, of a million {million:?}, xmpp {:.0}", model.measured(), model.xmpp());
    assert!(million.sum() <= 0.40 * model.xmpp());
}

#[test]
fn what_is_predicted_from_few_users_is_measured_with_more() {
    // Without restarts: how many there are in an hour is chance.
    let scenario =
        |users, supernodes| Scenario { restarts_per_day: 0.0, ..Scenario::usual(users, supernodes) };
    let few = Model::new(measure(scenario(2_000, 4), Instant::now()).unwrap());
    let more = Model::new(measure(Scenario { seed: 2, ..scenario(6_000, 12) }, Instant::now()).unwrap());
    let (predicted, measured) = (few.predict(6_000, 12), more.measured());
    // Between supernodes, which is what the formula is for: what devices send, it takes as it is.
    let core = predicted.core / measured.core - 1.0;
    assert!(core.abs() < 0.15, "{predicted:?} {measured:?}");
}
