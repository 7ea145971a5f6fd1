//! Measures what presence costs beside XMPP and SIP: 10,000 users, a million predicted from them.
//!
//! `cargo run --release -p p2p-edge --example presence_bench -- [users [supernodes [hours]]]`
#![allow(clippy::print_stdout)]

use std::time::Duration;

use p2p_edge::presence::simulation::{Measured, Model, Scenario, Way, measure, total};

fn argument(at: usize, default: usize) -> usize {
    std::env::args().nth(at).and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn print(measured: &Measured) {
    for way in [Way::Up, Way::Down, Way::ToHome, Way::FromHome] {
        let sum = total(&measured.traffic, &[way]);
        println!("{way:?}: {} messages, {} bytes", sum.messages, sum.bytes);
        for ((_, kind), tally) in measured.traffic.iter().filter(|((of, _), _)| *of == way) {
            println!("  {kind}: {} messages, {} bytes", tally.messages, tally.bytes);
        }
    }
    let (others, happened) = (&measured.others, &measured.happened);
    println!("membership: {} messages, {} bytes", measured.membership.messages, measured.membership.bytes);
    println!("{happened:?}");
    println!("xmpp: {} messages, {} bytes", others.xmpp.messages, others.xmpp.bytes);
    println!("xmpp resumed: {} messages, {} bytes", others.xmpp_resumed.messages, others.xmpp_resumed.bytes);
    println!("sip: {} messages, {} bytes", others.sip.messages, others.sip.bytes);
    println!("shown as they are: {} of {}", measured.right.0, measured.right.1);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (users, supernodes, hours) = (argument(1, 10_000), argument(2, 20), argument(3, 1));
    let measured_for = Duration::from_secs(3600 * hours as u64);
    let scenario = Scenario { measured: measured_for, ..Scenario::usual(users, supernodes) };
    println!("{scenario:?}");
    let measured = measure(scenario, std::time::Instant::now())?;
    print(&measured);
    println!("presence_ratio = {:.3}", measured.ratio_to_xmpp());
    println!("presence_ratio_resumed = {:.3}", measured.ratio_to_xmpp_resumed());
    println!("presence_ratio_sip = {:.3}", measured.ratio_to_sip());
    let model = Model::new(measured);
    println!("bytes of one user in an hour: {:?}, xmpp {:.0}", model.measured(), model.xmpp());
    let million = model.predict(1_000_000, 2_000);
    println!("of one of a million, with 2000 supernodes: {million:?}");
    println!("presence_ratio_million = {:.3}", million.sum() / model.xmpp());
    Ok(())
}
