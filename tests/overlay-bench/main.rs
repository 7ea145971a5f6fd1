//! `make bench-overlay`: what the overlay takes of time, memory and processor.
//!
//! Look-ups and calls with fifty supernodes and 20 ms between any two; the memory of a supernode with up to 2,000 users;
//! the processor time of a media leg's set-up; the bytes of presence. Everything runs on this machine, in a network
//! namespace of its own. docs/performance.md says how each is measured. The last line is for machines.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod bytes;
mod crowd;
mod legs;
mod link;
mod look_ups;
mod set_up;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use p2p_edge::presence::simulation::{Scenario, measure as measure_presence};
use tests::lab::Folder;
use tests::lab::nodes::Nodes;
use tests::lab::usage::{median, quantile, stolen_seconds};

use bytes::Octets;
use crowd::Weight;
use legs::Cost;
use link::Link;
use look_ups::Seen;

// As the daemon has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the overlay: time of look-ups and of call set-up, memory of a user, processor time of a leg, presence.
#[derive(Debug, Parser)]
struct Arguments {
    /// Measures one thing only.
    #[arg(long)]
    only: Option<Part>,
    /// Milliseconds of every round trip.
    #[arg(long, default_value_t = 20)]
    round_trip_ms: u64,
    /// Users of the presence that is measured.
    #[arg(long, default_value_t = 10_000)]
    presence_users: usize,
    /// The time by which certificates are made, in Unix seconds; the program sets it.
    #[arg(long, hide = true)]
    unix: Option<u64>,
    /// Is a supernode; the measurement starts it.
    #[arg(long, hide = true)]
    be_supernode: bool,
    /// Is so many users from the one with the first number on; the measurement starts them.
    #[arg(long, hide = true, value_delimiter = ',')]
    be_users: Vec<u32>,
    /// Where they begin.
    #[arg(long, hide = true)]
    bootstrap: Option<String>,
    /// It runs in a network namespace of its own.
    #[arg(long, hide = true)]
    inside: bool,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Look-ups and calls with fifty supernodes.
    LookUps,
    /// Bytes of single things.
    Bytes,
    /// The memory of a user.
    Memory,
    /// The processor time of a leg.
    Legs,
    /// The bytes of presence.
    Presence,
}

/// All that was seen.
#[derive(Debug, Default)]
struct Results {
    octets: Option<Octets>,
    seen: Option<Seen>,
    weight: Option<Weight>,
    cost: Option<Cost>,
    presence: Option<f64>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway-bench-overlay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let unix = arguments.unix.unwrap_or(now);
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    if arguments.be_supernode {
        return runtime()?.block_on(crowd::supernode(unix));
    }
    if let ([first, count], Some(bootstrap)) = (&arguments.be_users[..], &arguments.bootstrap) {
        return runtime()?.block_on(crowd::users(unix, *first, *count, bootstrap.clone()));
    }
    if !arguments.inside {
        return enter();
    }
    let wants = |part: Part| arguments.only.is_none_or(|only| only == part);
    let (began, stolen) = (Instant::now(), stolen_seconds()?);
    let mut results = Results::default();
    if wants(Part::Legs) {
        println!("Legs: ICE and DTLS");
        results.cost = Some(legs::measure().context("legs")?);
    }
    if wants(Part::Presence) {
        println!("\nPresence: {} users, an hour of virtual time", arguments.presence_users);
        let scenario = Scenario::usual(arguments.presence_users, 20);
        results.presence = Some(measure_presence(scenario, Instant::now())?.ratio_to_xmpp());
    }
    if wants(Part::LookUps) || wants(Part::Bytes) {
        println!("\nLook-ups, calls, bytes");
        let link = Link::open(Duration::from_millis(arguments.round_trip_ms))?;
        let nodes = Arc::new(Nodes::new(unix)?);
        let runtime = runtime()?;
        if wants(Part::Bytes) {
            results.octets = Some(runtime.block_on(bytes::measure(&link, &nodes)).context("bytes")?);
        }
        if wants(Part::LookUps) {
            results.seen = Some(runtime.block_on(look_ups::measure(&link, &nodes)).context("look-ups")?);
        }
        runtime.shutdown_background();
    }
    if wants(Part::Memory) {
        println!("\nMemory of a supernode");
        let folder = Folder::new("bench-overlay")?;
        results.weight = Some(crowd::measure(folder.path(), unix).context("memory")?);
    }
    println!(
        "\n{:.0} s, of which the host took {:.1}",
        began.elapsed().as_secs_f64(),
        stolen_seconds()? - stolen
    );
    show(&results);
    Ok(())
}

/// Runs this program again in a network namespace, with as many descriptors as the system allows.
fn enter() -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "--"]);
    command.args(["sh", "-c", "ulimit -n \"$(ulimit -Hn)\" && ip link set lo up && exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).arg("--inside");
    ensure!(command.status().context("unshare")?.success(), "not all was measured");
    Ok(())
}

/// A figure beside its goal.
struct Row {
    name: &'static str,
    value: Option<f64>,
    goal: Option<f64>,
}

fn rows(results: &Results) -> Vec<Row> {
    let seen = results.seen.as_ref();
    let of = |times: fn(&Seen) -> &Vec<f64>, q: f64| seen.map(|seen| quantile(times(seen).clone(), q));
    let row = |name, value, goal| Row { name, value, goal };
    vec![
        row("lookup_p50_ms", of(|seen| &seen.first, 0.5), Some(80.0)),
        row("lookup_p99_ms", of(|seen| &seen.first, 0.99), Some(300.0)),
        row("settled_p50_ms", of(|seen| &seen.settled, 0.5), None),
        row("settled_p99_ms", of(|seen| &seen.settled, 0.99), None),
        row("lookups_found_pct", seen.map(|seen| 100.0 * seen.found as f64 / seen.asked.max(1) as f64), None),
        row("lookup_requests", seen.map(|seen| seen.requests), None),
        row("connections_of_a_user", seen.map(|seen| seen.peers), None),
        row("processors_busy_with_others", seen.map(|seen| seen.busy), None),
        row("connection_idle_bytes_s", results.octets.map(|octets| octets.idle), None),
        row("connection_bytes", results.octets.map(|octets| octets.connection), None),
        row("request_bytes", results.octets.map(|octets| octets.request), None),
        row("user_join_bytes", results.octets.map(|octets| octets.join), None),
        row("user_stay_bytes_s", results.octets.map(|octets| octets.stay), None),
        row("setup_rtts", seen.map(set_up_trips), Some(1.5)),
        row("setup_user_first", of(|seen| &seen.to_user.first, 0.5), None),
        row("setup_user_again", of(|seen| &seen.to_user.again, 0.5), None),
        row("setup_gateway_first", of(|seen| &seen.to_gateway.first, 0.5), None),
        row("setup_gateway_again", of(|seen| &seen.to_gateway.again, 0.5), None),
        row("found_and_set_up_user", of(|seen| &seen.to_user.found, 0.5), None),
        row("found_and_set_up_gateway", of(|seen| &seen.to_gateway.found, 0.5), None),
        row("kb_per_client", results.weight.as_ref().map(|weight| weight.kb_per_client), Some(120.0)),
        row("join_cpu_ms", results.weight.as_ref().map(|weight| weight.join_ms), None),
        row("stay_cpu_ms_min", results.weight.as_ref().map(|weight| weight.stay_ms), None),
        row("dtls_ms", results.cost.map(|cost| cost.gateway), Some(1.5)),
        row("dtls_description_ms", results.cost.map(|cost| cost.description), None),
        row("dtls_handshake_ms", results.cost.map(|cost| cost.handshake), None),
        row("dtls_user_ms", results.cost.map(|cost| cost.user), None),
        row("presence_ratio", results.presence, Some(0.4)),
    ]
}

/// The worse of calls to users and to the gateway, first calls and further ones: the median of each.
fn set_up_trips(seen: &Seen) -> f64 {
    let all = [&seen.to_user.first, &seen.to_user.again, &seen.to_gateway.first, &seen.to_gateway.again];
    all.into_iter().map(|trips| median(trips.clone())).fold(0.0, f64::max)
}

fn show(results: &Results) {
    let rows = rows(results);
    println!("{:<28}{:>10}{:>8}", "", "measured", "goal");
    for Row { name, value, goal } in &rows {
        let Some(value) = value else { continue };
        match goal {
            Some(goal) => {
                let held = if value <= goal { "held" } else { "MISSED" };
                println!("{name:<28}{value:>10.2}{goal:>8}  {held}");
            }
            None => println!("{name:<28}{value:>10.2}"),
        }
    }
    let said = |wanted: &str| {
        let value = rows.iter().find(|row| row.name == wanted).and_then(|row| row.value);
        value.map_or_else(|| "none".to_owned(), |value| format!("{value:.2}"))
    };
    let keys = ["lookup_p50_ms", "lookup_p99_ms", "kb_per_client", "dtls_ms", "presence_ratio", "setup_rtts"];
    let pairs: Vec<String> = keys.iter().map(|key| format!("{key}={}", said(key))).collect();
    println!("\nRESULT overlay {}", pairs.join(" "));
}
