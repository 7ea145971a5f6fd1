//! `docs/scale.md`, its pictures, and the lines on the screen.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;

use crate::extrapolate::Estimate;
use crate::net::{self, bytes};
use crate::plot::{Line, Plot};
use crate::real::Real;
use crate::scenario::{Assault, Steady};
use crate::tally::{Kind, Summary, quantile};
use crate::{Rest, Results, Sizes};

/// What anybody wants to know first.
pub(crate) fn table(results: &Results) -> String {
    let Results { steady, costs, estimate, .. } = results;
    let looked = &steady.look_ups;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} supernodes, {} users, {:.0} minutes, {} look-ups: {:.2} % found, {:.2} % the newest, {:.2} % with a relay \
         that is up; record after {:.0} ms (median), {:.0} ms (99 %), {:.2} hops, {:.1} requests",
        steady.supernodes,
        steady.users,
        steady.seconds / 60.0,
        looked.count,
        looked.found_percent(),
        looked.newest_percent(),
        looked.reachable_percent(),
        looked.first_ms(0.5),
        looked.first_ms(0.99),
        looked.hops,
        looked.requests,
    );
    let _ = writeln!(
        text,
        "records lost {:.3} %, holders of one {:.1}; a record verified takes {:.0} us, a chain {:.0} us",
        steady.lost_percent(),
        steady.holders(),
        costs.record,
        costs.chain,
    );
    if let Some((real, model, size)) = &results.real {
        let _ = write!(text, "{}", against(real, model, *size));
    }
    let _ = write!(
        text,
        "{:.0} million users a day: {:.0} supernodes, each {:.0} kB/s and {:.1} % of a processor",
        results.assumed.daily / 1e6,
        estimate.supernodes,
        estimate.bytes / 1e3,
        100.0 * estimate.processor,
    );
    text
}

/// Real nodes beside the model of as many. The model's bytes are those of a request with its answer.
fn against(real: &Real, model: &Summary, model_bytes: f64) -> String {
    let mut text = String::new();
    let (nodes, look_ups) = (real.supernodes, real.look_ups);
    let _ = writeln!(text, "\n| {nodes} supernodes, {look_ups} look-ups | real | model |\n|---|---|---|");
    let mut row = |what: &str, real: f64, model: f64, places: usize| {
        let real = if real.is_nan() { "not counted".to_owned() } else { format!("{real:.places$}") };
        let _ = writeln!(text, "| {what} | {real} | {model:.places$} |");
    };
    row("found, %", 100.0 * real.found as f64 / look_ups as f64, model.found_percent(), 1);
    row("requests of one look-up", real.requests, model.requests, 1);
    row("until there is a record, median, ms", quantile(&real.first, 0.5), model.first_ms(0.5), 2);
    row("until there is a record, 90 %, ms", quantile(&real.first, 0.9), model.first_ms(0.9), 2);
    row("until it is settled, median, ms", quantile(&real.settled, 0.5), model.settled_ms(0.5), 2);
    row("bytes of a request and its answer", real.request_bytes.unwrap_or(f64::NAN), model_bytes, 0);
    text.push('\n');
    text
}

/// The line for machines.
pub(crate) fn result(results: &Results) -> String {
    let steady = &results.steady;
    let looked = &steady.look_ups;
    let versus = match &results.real {
        None => "none".to_owned(),
        Some((real, model, size)) => format!(
            "found:{:.2},requests:{:.2},first:{:.2},bytes:{:.2}",
            model.found as f64 / model.count as f64 / (real.found as f64 / real.look_ups as f64),
            model.requests / real.requests,
            model.first_ms(0.5) / quantile(&real.first, 0.5),
            size / real.request_bytes.unwrap_or(f64::NAN),
        ),
    };
    format!(
        "RESULT scale supernodes={} lookups_ok_pct={:.2} p50_ms={:.0} p99_ms={:.0} bytes_per_user_s={:.0} model_vs_real={versus}",
        steady.supernodes,
        looked.found_percent(),
        looked.first_ms(0.5),
        looked.first_ms(0.99),
        steady.user_bytes(results.assumed.look_ups_an_hour / 3600.0),
    )
}

/// Writes the page and its pictures.
pub(crate) fn write(results: &Results) -> Result<()> {
    let Some(rest) = &results.rest else { return Ok(()) };
    for (name, plot) in plots(results, rest) {
        fs::write(results.arguments.docs.join(name), plot.svg())?;
    }
    fs::write(results.arguments.docs.join("scale.md"), page(results, rest))?;
    Ok(())
}

fn plots(results: &Results, rest: &Rest) -> Vec<(&'static str, Plot)> {
    let line = |name: &str, points: &[(f64, f64)]| Line { name: name.to_owned(), points: points.to_vec() };
    let percent = |title: &str, lines, marks| Plot {
        title: title.to_owned(),
        across: "minutes",
        up: "% of look-ups",
        tenfold: false,
        between: (0.0, 100.0),
        lines,
        marks,
    };
    let all: Vec<&Steady> = rest.sizes.all.iter().chain([&results.steady]).collect();
    let curves = all.iter().map(|one| line(&format!("{} supernodes", one.supernodes), &one.look_ups.curve()));
    let sizes: Vec<(f64, f64)> =
        all.iter().map(|one| (one.supernodes as f64, one.look_ups.requests)).collect();
    let most = sizes.iter().map(|point| point.1).fold(10.0, f64::max);
    vec![
        (
            "scale-latency.svg",
            Plot {
                title: "How soon a look-up has a record".to_owned(),
                across: "milliseconds",
                up: "% of look-ups",
                tenfold: true,
                between: (0.0, 100.0),
                lines: curves.collect(),
                marks: Vec::new(),
            },
        ),
        (
            "scale-size.svg",
            Plot {
                title: "Requests of one look-up, by who asks".to_owned(),
                across: "supernodes",
                up: "requests",
                tenfold: true,
                between: (0.0, (most / 20.0).ceil() * 20.0),
                lines: vec![line("requests", &sizes)],
                marks: Vec::new(),
            },
        ),
        (
            "scale-half.svg",
            percent(
                "Half of all supernodes killed at once",
                vec![line("found", &rest.half.found), line("with a relay that is up", &rest.half.reachable)],
                vec![(1.0, "killed")],
            ),
        ),
        (
            "scale-partition.svg",
            percent(
                "The network cut in two for ten minutes",
                vec![
                    line("callee on the same side", &rest.mishaps.partition.within),
                    line("callee on the other side", &rest.mishaps.partition.across),
                ],
                vec![(2.0, "cut"), (12.0, "joined")],
            ),
        ),
    ]
}

fn assaults(text: &mut String, head: &str, rows: &[Assault]) {
    let _ = writeln!(
        text,
        "| defences | look-ups that found the record, % | {head} | turned away |\n|---|---|---|---|"
    );
    for one in rows {
        let _ = writeln!(text, "| {} | {:.1} | {:.1} | {} |", one.name, one.found, one.captured, one.refused);
    }
    text.push('\n');
}

fn page(results: &Results, rest: &Rest) -> String {
    let Results { arguments, plan, steady, costs, estimate, assumed, unit, .. } = results;
    let sessions = plan.settings.sessions.map_or(0.0, crate::random::Sessions::median);
    let looked = &steady.look_ups;
    let Sizes { all: sizes, often, one_key } = &rest.sizes;
    let usual = sizes.iter().find(|one| one.supernodes == often.supernodes).unwrap_or(steady);
    let a_second = assumed.look_ups_an_hour / 3600.0;
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    say(format!(
        "# The overlay at scale\n\n\
         Written by `make scale`, seed {}. A model of {} supernodes and {} users in virtual time, which runs the code of the \
         real node where that is pure (identities, verification of every record, stores with their quotas, the choice between \
         answers, diversity of networks, waits), and real nodes on loopback beside it. Presence has [a page of its own](scale-presence.md).\n\n\
         ## The model\n\n\
         - **Supernodes** come and go without a word: sessions are Weibull with shape {} and scale {} minutes, the fit for \
         one of three networks in Stutzbach and Rejaie, *Understanding Churn in Peer-to-Peer Networks*, IMC 2006: half \
         of all sessions end within {sessions:.0} minutes. Guha, Daswani and Jain (*An Experimental Study of the Skype \
         Peer-to-Peer VoIP System*, IPTPS 2006) saw supernodes that are far more stable: this is harsher than what is to be \
         expected. Whoever goes is replaced by one who was there before, with an empty store and its list of 200 servers.\n\
         - **Routing**: buckets of 20, at most {} of a /24 or /48 in one, filled by who has proved its certificate; queries \
         on {} paths that share no node, {} requests each at one time, given up after {} s, as the real node is set.\n\
         - **Records** are signed and verified for real: {} s of life, published again at half of it by their owner only and \
         when a relay is lost, read back after each put. A record has two keys. A look-up asks the DHT and, for \
         each key, two connected servers, which look further, and takes the highest sequence of three answers.\n\
         - **Network**: light in glass over one and a half times the great circle between five regions, access of 6 ms on \
         average, jitter of 10 %, {} % of messages lost and sent again. A request takes one round trip, a new connection {} \
         more; who is gone does not answer, and is given up after 5 s. A connection weighs {} bytes, a request with its answer {} and {} for \
         each peer in it, a connection that is kept {} every {} s: measured by `make bench-overlay` with the headers of IP, but \
         for the peer, which is reckoned from its encoding.\n",
        arguments.seed,
        steady.supernodes,
        steady.users,
        arguments.session_shape,
        arguments.session_scale,
        plan.settings.defences.same_network,
        arguments.paths,
        arguments.alpha,
        plan.settings.patience.as_secs(),
        p2p_edge::record::LOCATION_LIFE,
        arguments.loss,
        net::CONNECT_TRIPS,
        bytes::CONNECT,
        bytes::REQUEST,
        bytes::PEER,
        bytes::PING,
        bytes::PING_EVERY,
    ));
    say("## Held against real nodes\n".to_owned());
    match &results.real {
        Some((real, model, size)) => {
            say(against(real, model, *size));
            say(format!(
                "All nodes of the real network are in one process, so that its latencies hold the work of all of them; the \
                 model knows only the round trip, taken from a network of two ({:.2} ms for a look-up). Hops cannot be seen \
                 from outside. A record was held by {:.1} of the real supernodes, which knew {:.1} others each. Measured with \
                 them: a request takes {:.0} us of processor time (both ends and what it leads to), a connection {:.0} us.\n",
                real.pair_ms, real.holders, real.table, real.request_us, real.connection_us,
            ));
        }
        None => say("Not in this run.\n".to_owned()),
    }
    say(format!(
        "## A quiet day\n\n\
         {:.0} minutes, {} look-ups of users chosen by chance.\n\n\
         | | |\n|---|---|\n\
         | look-ups that found a record | {:.2} % |\n\
         | that found the newest one | {:.2} % |\n\
         | whose record names a relay that is up | {:.2} % |\n\
         | until there is a record | median {:.0} ms, 99 % {:.0} ms |\n\
         | until the highest sequence is settled | median {:.0} ms, 99 % {:.0} ms |\n\
         | requests that led to the record | {:.2} |\n\
         | requests by who asks | {:.1} |\n\
         | records that nobody held any more | {:.3} % |\n\
         | holders of one record | {:.1} |\n\
         | puts that could not be read back at once | {} |\n\
         | peers in a routing table | {:.0} |\n",
        steady.seconds / 60.0,
        looked.count,
        looked.found_percent(),
        looked.newest_percent(),
        looked.reachable_percent(),
        looked.first_ms(0.5),
        looked.first_ms(0.99),
        looked.settled_ms(0.5),
        looked.settled_ms(0.99),
        looked.hops,
        looked.requests,
        steady.lost_percent(),
        steady.holders(),
        steady.unconfirmed,
        steady.table,
    ));
    say("![Latency](scale-latency.svg)\n\n![Requests](scale-size.svg)\n".to_owned());
    say("What it took, all nodes together:\n\n| one | times | requests | connections | kB | records verified | processor ms |\n|---|---|---|---|---|---|---|".to_owned());
    for (_, name, effort) in &steady.efforts {
        if effort.done > 0 {
            say(format!(
                "| {name} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} |",
                effort.done,
                effort.each(effort.requests),
                effort.each(effort.connections),
                effort.each(effort.bytes) / 1e3,
                effort.each(effort.records),
                unit.time(*effort) / effort.done as f64 / 1e3,
            ));
        }
    }
    let row = |what: &str, values: &[f64], factor: f64| {
        let at = |share| quantile(values, share) * factor;
        format!("| {what} | {:.2} | {:.2} | {:.2} |", at(0.5), at(0.99), at(1.0))
    };
    say(format!(
        "\nThe load of one supernode, without what its open connections take ({:.0} bytes/s):\n\n\
         | | median | 99 % | most |\n|---|---|---|---|\n{}\n{}\n{}\n",
        steady.keep_alive,
        row("requests answered a second", &steady.requests, 1.0),
        row("kB a second", &steady.bytes, 1e-3),
        row("records verified a second", &steady.verified, 1.0),
    ));
    say(format!(
        "A record verified takes {:.0} us of one processor here, one signed {:.0} us, the chain of a supernode {:.0} us, a record \
         put into a store {:.1} us.\n\n\
         Bytes of one user a second: {:.0}, with {} look-up an hour, and a search for servers every {} s. Where users search \
         every {} s, as supernodes do, in a network of {}: {:.0} instead of {:.0} bytes a second, {:.2} % of look-ups found \
         instead of {:.2} %, median {:.0} ms instead of {:.0} ms.\n",
        costs.record,
        costs.sign,
        costs.chain,
        costs.store,
        steady.user_bytes(a_second),
        assumed.look_ups_an_hour,
        plan.settings.user_refresh.as_secs(),
        p2p_edge::routing::LAST_REFRESH.as_secs(),
        often.supernodes,
        often.user_bytes(a_second),
        usual.user_bytes(a_second),
        often.look_ups.found_percent(),
        usual.look_ups.found_percent(),
        often.look_ups.first_ms(0.5),
        usual.look_ups.first_ms(0.5),
    ));
    say("## When things go wrong\n\n| | found before, % | worst half minute, % | last two minutes, % | minutes until 99 % again | records lost at most, % |\n|---|---|---|---|---|---|".to_owned());
    for (upset, size) in [(&rest.half, steady.supernodes), (&rest.mishaps.partition.all, often.supernodes)] {
        say(format!(
            "| {}, of {size} | {:.2} | {:.1} | {:.2} | {} | {:.2} |",
            upset.name,
            upset.before.found_percent(),
            upset.worst,
            upset.after.found_percent(),
            upset.recovered.map_or("not in this time".to_owned(), |minutes| format!("{minutes:.1}")),
            upset.lost_percent,
        ));
    }
    let [cut, joined, end] = rest.mishaps.partition.tables;
    say(format!(
        "\n![Half killed](scale-half.svg)\n\n![Cut in two](scale-partition.svg)\n\n\
         Nobody comes in the place of those who are killed. The network is cut so that a third of all are on one side. Of the peers in routing tables {cut:.1} % were on the other side when it was \
         cut, {joined:.1} % when it was joined, {end:.1} % ten minutes later.\n\n\
         ### The first supernodes gone\n\n\
         All that a fresh package names are down, and nodes join with the list of 200 servers that they wrote when they \
         were on.\n\n| of the list up, % | joined within a minute, % | of their look-ups found, % |\n|---|---|---|",
    ));
    for one in &rest.mishaps.rejoins {
        say(format!("| {:.0} | {:.0} | {:.1} |", one.alive, one.joined, one.found));
    }
    let listed: Vec<String> = rest
        .mishaps
        .listed
        .iter()
        .map(|(hours, share)| format!("{:.2} % after {hours} h", 100.0 * share))
        .collect();
    say(format!(
        "\nOf those who are up, so many have not left since, by the sessions above: {}. In the model four in five of all \
         supernodes are up at any time, and so of any list.\n",
        listed.join(", "),
    ));
    let mut tables = String::new();
    assaults(
        &mut tables,
        "of the 20 that the nearest supernode names, attackers, %",
        &rest.attacks.around_a_key,
    );
    say(format!(
        "## Attacks\n\n\
         {} supernodes and {} attackers, who have addresses in {} networks of 24 bits.\n\n\
         ### Around a key\n\n\
         PeerIds nearer to the record of one user than any supernode. They connect to whom they find, name each other only, \
         and take records without keeping them. Looked at after the record of before has ended.\n\n{tables}",
        arguments.attacked, arguments.sybils, arguments.sybil_networks,
    ));
    let mut tables = String::new();
    assaults(&mut tables, "of the victim's table, attackers, %", &rest.attacks.around_a_node);
    say(format!(
        "### Around a node\n\n\
         A supernode starts, and all attackers connect to it before it has found more than 16 others; look-ups are by it.\n\n{tables}\
         What the second key costs in a quiet network: a look-up takes {:.0} requests instead of {:.0}, and a publication {:.0} \
         instead of {:.0}.\n",
        usual.look_ups.requests,
        one_key.look_ups.requests,
        usual.effort(Kind::Publish).each(usual.effort(Kind::Publish).requests),
        one_key.effort(Kind::Publish).each(one_key.effort(Kind::Publish).requests),
    ));
    say(format!(
        "## Towards {:.0} million users a day\n\n\
         Taken for granted: {:.0} % of them on at once in the busiest hour ({:.1} million), {} look-up of each in that hour, \
         {} relay reservations of each, and supernodes with the default limits ({} reservations, {} records) of which {:.0} % are \
         used. Requests grow with the logarithm of the number of supernodes, by a straight line through the sizes above. \
         Processor time is counted with what real nodes took here, once more for verified records: it errs on the high side. \
         Relayed signalling and media, STUN and TURN, and presence are not in it.\n\n\
         | | as it is | users search as often as supernodes |\n|---|---|---|",
        assumed.daily / 1e6,
        100.0 * assumed.at_once,
        estimate.at_once / 1e6,
        assumed.look_ups_an_hour,
        assumed.relays,
        assumed.reservations,
        assumed.records,
        100.0 * assumed.filled,
    ));
    // Both from networks of their own sizes.
    let busier = crate::extrapolate::estimate(often, &results.sweep, *unit, *assumed);
    let mut row = |what: &str, of: fn(&Estimate) -> f64, places: usize| {
        say(format!("| {what} | {:.places$} | {:.places$} |", of(estimate), of(&busier)));
    };
    row("supernodes, by relay reservations", |one| one.by_relays, 0);
    row("supernodes, by records", |one| one.by_records, 0);
    row("users on one supernode", |one| one.users_each, 0);
    row("hops of a look-up", |one| one.hops, 1);
    row("requests, times those of the model it is taken from", |one| one.growth, 2);
    row("of one user: bytes a second", |one| one.user_bytes, 0);
    row("of one user: us of processor time a second", |one| one.user_us, 0);
    row("of one supernode: kB a second", |one| one.bytes / 1e3, 0);
    row("of one supernode: % of one processor", |one| 100.0 * one.processor, 0);
    text
}
