//! `make scale`: the overlay's routing and records with ten thousand supernodes, in virtual time.
//!
//! A model of every node, with the code of the real one where that is pure: identities, verification, stores, the
//! choice between answers, the rules of routing. It is held against real nodes on loopback, fifty of each. What is
//! seen goes into `docs/scale.md`, with pictures. The last line is for machines.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

#[cfg(test)]
mod checks;
mod cost;
mod extrapolate;
mod net;
mod page;
mod plot;
mod query;
mod random;
mod real;
mod scenario;
mod sim;
mod table;
mod tally;
mod traffic;
mod world;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;

use cost::Costs;
use extrapolate::{Assumptions, Estimate, Sweep, Unit, estimate};
use net::Network;
use random::Sessions;
use real::Real;
use scenario::{Assault, GUARDS, KEYS, Partition, Plan, Rejoin, Steady, Upset};
use sim::{Defences, Settings};
use tally::{Kind, Summary};

/// Measures in a model how the overlay behaves at scale.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Everything but what real nodes do follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Supernodes that are up at one time.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(20..=200_000))]
    supernodes: u32,
    /// Users.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(5..=100_000))]
    users: u32,
    /// Minutes that the quiet network is measured.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
    /// Supernodes in the networks that are cut in two and attacked.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(20..=200_000))]
    attacked: u32,
    /// Attackers.
    #[arg(long, default_value_t = 1_000)]
    sybils: u32,
    /// Networks of 24 bits that the attackers have.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..))]
    sybil_networks: u8,
    /// Seconds between two look-ups of one user, on average.
    #[arg(long, default_value_t = 60)]
    look_up_every: u64,
    /// Shape of the distribution of sessions (Weibull).
    #[arg(long, default_value_t = 0.59)]
    session_shape: f64,
    /// Scale of the distribution of sessions, in minutes.
    #[arg(long, default_value_t = 41.9)]
    session_scale: f64,
    /// Messages that are lost and sent again, in percent.
    #[arg(long, default_value_t = 1.0)]
    loss: f64,
    /// Requests of one path of a query at one time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=20))]
    alpha: u8,
    /// Paths of a query that share no node.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=20))]
    paths: u8,
    /// Real supernodes to hold against the model; none where it is 0.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=150))]
    real: u8,
    /// Look-ups by real supernodes.
    #[arg(long, default_value_t = 200)]
    real_look_ups: u16,
    /// Runs the quiet network and the real nodes only, and writes nothing.
    #[arg(long)]
    brief: bool,
    /// Where the page and its pictures go.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs"))]
    docs: PathBuf,
    /// It runs where nobody else uses the loopback device.
    #[arg(long, hide = true)]
    inside: bool,
}

/// All that was seen.
struct Results {
    arguments: Arguments,
    plan: Plan,
    costs: Costs,
    steady: Steady,
    estimate: Estimate,
    sweep: Sweep,
    assumed: Assumptions,
    unit: Unit,
    real: Option<(Real, Summary, f64)>,
    rest: Option<Rest>,
}

/// What a brief run leaves out.
struct Rest {
    half: Upset,
    sizes: Sizes,
    mishaps: Mishaps,
    attacks: Attacks,
}

/// Quiet networks of other sizes and habits.
struct Sizes {
    all: Vec<Steady>,
    /// Users search for servers as often as supernodes do.
    often: Steady,
    /// Each record has three keys.
    one_key: Steady,
}

struct Mishaps {
    partition: Partition,
    rejoins: Vec<Rejoin>,
    /// Of a list some hours old, how many have never left.
    listed: Vec<(u64, f64)>,
}

struct Attacks {
    around_a_key: Vec<Assault>,
    around_a_node: Vec<Assault>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.inside || arguments.real == 0 { run(arguments) } else { enter(&arguments) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway-scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs this program again in a network namespace, so that the bytes of real nodes can be counted; here where none
/// may be made.
fn enter(arguments: &Arguments) -> Result<()> {
    let namespace = ["--user", "--map-root-user", "--net", "--"];
    let may = Command::new("unshare").args(namespace).arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("No namespace may be made here: bytes of real nodes are not counted");
        return run(arguments.clone());
    }
    let mut command = Command::new("unshare");
    command.args(namespace).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).arg("--inside");
    ensure!(command.status().context("unshare")?.success(), "nothing was measured");
    Ok(())
}

impl Arguments {
    fn plan(&self) -> Plan {
        let sessions = Sessions { shape: self.session_shape, scale: self.session_scale };
        let limits = p2p_edge::node::NodeLimits::default();
        Plan {
            supernodes: self.supernodes as usize,
            users: self.users as usize,
            minutes: self.minutes,
            seed: self.seed,
            copies: KEYS,
            settings: Settings {
                alpha: usize::from(self.alpha),
                paths: usize::from(self.paths),
                network: Network { loss: self.loss / 100.0, fixed: None },
                sessions: Some(sessions),
                defences: Defences { certificates: true, same_network: limits.same_subnet_per_bucket },
                look_up_every: Duration::from_secs(self.look_up_every),
                user_refresh: p2p_edge::routing::LAST_REFRESH_OF_USERS,
                patience: limits.timers.lookup,
            },
        }
    }
}

/// Says on stderr what is done, and how long it took.
fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    let outcome = work().with_context(|| what.to_owned())?;
    eprintln!("{what}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(outcome)
}

fn run(arguments: Arguments) -> Result<()> {
    let plan = arguments.plan();
    eprintln!("seed {}", plan.seed);
    let real = step("real nodes", || real_nodes(&arguments, &plan))?;
    let (steady, costs, rest) = model(&arguments, &plan)?;
    let mut sweep: Sweep = Vec::new();
    for one in rest.iter().flat_map(|rest| &rest.sizes.all).chain([&steady]) {
        sweep.push((one.supernodes as f64, one.look_ups.requests, one.look_ups.hops));
    }
    let (assumed, unit) = (Assumptions::default(), Unit::of(&costs, real.as_ref().map(|(real, ..)| real)));
    let estimate = estimate(&steady, &sweep, unit, assumed);
    let results = Results { plan, costs, steady, estimate, sweep, assumed, unit, real, rest, arguments };
    println!("{}", page::table(&results));
    if results.rest.is_some() {
        page::write(&results).context("the page")?;
    }
    println!("{}", page::result(&results));
    Ok(())
}

/// Runs real nodes, and the model of as many with the round trip that they have. Also returns the bytes of a request
/// in the model.
fn real_nodes(arguments: &Arguments, plan: &Plan) -> Result<Option<(Real, Summary, f64)>> {
    if arguments.real == 0 {
        return Ok(None);
    }
    let users = 10;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let look_ups = usize::from(arguments.real_look_ups);
    let real = runtime.block_on(real::run(arguments.real, users, look_ups, arguments.inside))?;
    runtime.shutdown_background();
    // What takes one millisecond a trip in a model of two nodes says how long a real trip is.
    let (two, _) = scenario::still(2, 1, 1.0, 20, plan)?;
    let trip_ms = real.pair_ms / two.settled_ms(0.5).max(1.0);
    let (model, sim) = scenario::still(real.supernodes, usize::from(users), trip_ms, look_ups, plan)?;
    let effort = sim.tally.effort(Kind::LookUp);
    Ok(Some((real, model, effort.bytes as f64 / effort.requests.max(1) as f64)))
}

/// Runs the model. Networks of full size and smaller ones run side by side.
fn model(arguments: &Arguments, plan: &Plan) -> Result<(Steady, Costs, Option<Rest>)> {
    let small = Plan {
        supernodes: (arguments.attacked as usize).min(plan.supernodes),
        users: plan.users.min(300),
        minutes: plan.minutes.min(5),
        ..*plan
    };
    std::thread::scope(|scope| {
        let smaller = (!arguments.brief).then(|| {
            scope.spawn(move || {
                let sizes = sizes(plan.supernodes, &small)?;
                let mishaps = mishaps(&small)?;
                anyhow::Ok((sizes, mishaps, attacks(arguments, &small)?))
            })
        });
        let (steady, sim) = step("a quiet network", || scenario::steady(plan))?;
        eprintln!("{} events in {:.0} minutes of virtual time", steady.events, steady.seconds / 60.0);
        let costs = step("costs of single operations", || Costs::measure(&sim.world))?;
        let Some(smaller) = smaller else { return Ok((steady, costs, None)) };
        let half = step("half of all killed", || scenario::half_killed(sim))?;
        let smaller = smaller.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (sizes, mishaps, attacks) = smaller?;
        Ok((steady, costs, Some(Rest { half, sizes, mishaps, attacks })))
    })
}

fn sizes(largest: usize, small: &Plan) -> Result<Sizes> {
    let mut sizes = vec![100, 300, 1_000, 3_000, small.supernodes];
    sizes.retain(|size| *size < largest || *size == small.supernodes);
    sizes.sort_unstable();
    sizes.dedup();
    let mut all = Vec::new();
    for size in sizes {
        let plan = Plan { supernodes: size, ..*small };
        all.push(step(&format!("{size} supernodes"), || scenario::steady(&plan))?.0);
    }
    let mut often = *small;
    often.settings.user_refresh = p2p_edge::routing::LAST_REFRESH;
    let often = step("users who search often", || scenario::steady(&often))?.0;
    let one_key = Plan { copies: 1, ..*small };
    let one_key = step("one key of a record", || scenario::steady(&one_key))?.0;
    Ok(Sizes { all, often, one_key })
}

fn mishaps(small: &Plan) -> Result<Mishaps> {
    let sim = small.warm(None)?;
    let partition = step("cut in two", || scenario::partition(sim.clone()))?;
    let mut rejoins = Vec::new();
    for alive in [0.8, 0.2, 0.05, 0.01] {
        let what = format!("joining without the first, {:.0} % of the list up", 100.0 * alive);
        rejoins.push(step(&what, || scenario::without_the_first(sim.clone(), alive))?);
    }
    let sessions = small.settings.sessions.unwrap_or(Sessions { shape: 1.0, scale: 60.0 });
    let there =
        |hours| (hours, scenario::still_there(sessions, Duration::from_secs(3600 * hours), small.seed));
    Ok(Mishaps { partition, rejoins, listed: [1, 6, 24].map(there).to_vec() })
}

fn attacks(arguments: &Arguments, small: &Plan) -> Result<Attacks> {
    let (sybils, networks) = (arguments.sybils as usize, usize::from(arguments.sybil_networks));
    let mut attacks = Attacks { around_a_key: Vec::new(), around_a_node: Vec::new() };
    for guard in &GUARDS {
        let what = format!("{sybils} attackers around a key, defences: {}", guard.name);
        attacks.around_a_key.push(step(&what, || scenario::sybils(small, guard, sybils, networks))?);
        let what = format!("{sybils} attackers around a node, defences: {}", guard.name);
        attacks.around_a_node.push(step(&what, || scenario::eclipse(small, guard, sybils, networks))?);
    }
    Ok(attacks)
}
