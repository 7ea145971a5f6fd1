//! `make bench-signalling`: what a call costs in signalling, beside Asterisk and Kamailio, in turns; what an open
//! call takes of memory; and what becomes of more calls than can be carried.
//!
//! Everything runs on this machine, on loopback: what is measured on one processor, the generator of calls on
//! another. The last line is for machines.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod agent;
mod callee;
mod caller;
mod generator;
mod least;
mod measure;
mod memory;
mod message;
mod overload;
mod subject;

use std::net::{SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use tests::lab::Folder;

use caller::Plan;
use measure::{Load, Row, Rows, bars, measure};
use subject::{Processors, Subject};

/// Measures the signalling of Causeway, and of Asterisk and Kamailio beside it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rounds; each measures Causeway, then the others.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each measurement; one and a half more pass before it.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Calls a second through Causeway, one measurement each. In the result stand the processor time of the last and
    /// the delay of the one in the middle.
    #[arg(long, value_delimiter = ',', default_value = "200,500,1000")]
    rates: Vec<f64>,
    /// Calls a second through Asterisk.
    #[arg(long, default_value_t = 60.0)]
    asterisk_rate: f64,
    /// Calls a second to one leg: Causeway and Kamailio as user agents.
    #[arg(long, default_value_t = 1000.0)]
    agent_rate: f64,
    /// Milliseconds between the answer and the BYE.
    #[arg(long, default_value_t = 500)]
    hold_ms: u64,
    /// Calls held for the memory.
    #[arg(long, default_value_t = 5000)]
    held: usize,
    /// The rated load in calls a second; found by steps where it is not given.
    #[arg(long)]
    rated: Option<f64>,
    /// How many times the rated load the overload is.
    #[arg(long, default_value_t = 3.0)]
    overload_times: f64,
    /// Seconds of overload.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    overload_seconds: u64,
    /// Leaves Asterisk and Kamailio out.
    #[arg(long)]
    alone: bool,
    /// Measures one thing only.
    #[arg(long)]
    only: Option<Part>,
    /// Is the least user agent there can be, at this address; the measurement starts it.
    #[arg(long, hide = true)]
    least: Option<SocketAddr>,
    /// Is the daemon's SIP endpoint at the first address, and answers the calls of the second; the measurement
    /// starts it.
    #[arg(long, hide = true, value_delimiter = ',')]
    agent: Vec<SocketAddrV4>,
}

// As the daemon has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The processor time of a call through the daemon.
    B2bua,
    /// The processor time of a call to a user agent.
    Uas,
    /// The memory of an open call.
    Memory,
    /// More calls than can be carried.
    Overload,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }

    fn hold(&self) -> Duration {
        Duration::from_millis(self.hold_ms)
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway-bench-signalling: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if let Some(address) = arguments.least {
        return least::refuse(address);
    }
    if let [address, peer] = arguments.agent[..] {
        return agent::answer(address, peer);
    }
    let rates = [arguments.asterisk_rate, arguments.agent_rate, arguments.rated.unwrap_or(1.0)];
    ensure!(
        rates.iter().all(|rate| *rate >= 1.0) && arguments.overload_times > 0.0,
        "a rate is at least one call a second"
    );
    ensure!(
        !arguments.rates.is_empty() && arguments.rates.iter().all(|rate| *rate >= 1.0),
        "--rates: at least one call a second"
    );
    let folder = Folder::new("bench-signalling")?;
    let processors = Processors::divide()?;
    let mut costs = Costs::default();
    if arguments.wants(Part::B2bua) || arguments.wants(Part::Uas) {
        costs = rounds(arguments, &folder, processors)?;
        costs.show();
    }
    let mut memory = None;
    if arguments.wants(Part::Memory) {
        println!("\nMemory of open calls: signalling and the ports of media, of which none flows");
        let mut subject = Subject::causeway(folder.path(), "memory", processors)?;
        let slope = memory::measure(&mut subject, arguments.held).context("memory")?;
        println!("{slope:.1} kB per open call");
        memory = Some(slope);
    }
    let mut overload = None;
    if arguments.wants(Part::Overload) {
        overload = Some(overloaded(arguments, &folder, processors).context("overload")?);
    }
    result(&costs, memory, overload);
    Ok(())
}

/// What the rounds found.
#[derive(Default)]
struct Costs {
    /// One for each rate.
    calls: Vec<Rows>,
    asterisk: Rows,
    /// INVITE, 200, ACK, BYE, 200, by the daemon's SIP endpoint.
    agent: Rows,
    /// INVITE, 404, ACK.
    refused: Rows,
    kamailio_refused: Rows,
    /// INVITE, 200, ACK, BYE, 200.
    kamailio_answered: Rows,
    /// INVITE, 404, ACK, by what does no more than that.
    least: Rows,
}

impl Costs {
    /// The 99th percentile of the time to 100 Trying at the rate in the middle, in milliseconds.
    fn trying_ms(&self) -> Option<f64> {
        self.calls.get(self.calls.len() / 2).map(Rows::trying_p99)
    }

    fn all(&self) -> impl Iterator<Item = &Rows> {
        let refusing = [&self.refused, &self.kamailio_refused, &self.least];
        let rest = [&self.asterisk, &self.agent, &self.kamailio_answered].into_iter().chain(refusing);
        self.calls.iter().chain(rest)
    }

    /// The processor time of a call at the last rate, in milliseconds.
    fn cpu_ms(&self) -> Option<f64> {
        self.calls.last().and_then(Rows::cpu_ms)
    }

    fn show(&self) {
        let mut values = Vec::new();
        let mut add = |name, value: Option<f64>| values.extend(value.map(|value| (name, value)));
        add("Asterisk, call through it", self.asterisk.cpu_ms());
        add("causewayd, call through it", self.cpu_ms());
        add("causewayd, half of it: one leg", self.cpu_ms().map(|ms| ms / 2.0));
        add("Kamailio, INVITE 200 ACK BYE 200", self.kamailio_answered.cpu_ms());
        add("its SIP endpoint, INVITE 200 ACK BYE 200", self.agent.cpu_ms());
        add("causewayd, INVITE 404 ACK", self.refused.cpu_ms());
        add("Kamailio, INVITE 404 ACK", self.kamailio_refused.cpu_ms());
        add("a socket, INVITE 404 ACK", self.least.cpu_ms());
        bars("Processor time per call, medians", "ms", &values);
    }
}

fn rounds(arguments: &Arguments, folder: &Folder, processors: Processors) -> Result<Costs> {
    let (b2bua, uas) = (arguments.wants(Part::B2bua), arguments.wants(Part::Uas));
    let mut own = Subject::causeway(folder.path(), "gateway", processors)?;
    let anchors = !arguments.alone;
    let mut asterisk =
        if anchors && b2bua { Some(Subject::asterisk(folder.path(), processors)?) } else { None };
    let mut kamailio =
        if anchors && uas { Some(Subject::kamailio(folder.path(), processors)?) } else { None };
    let mut agent = if uas { Some(Subject::agent(processors)?) } else { None };
    let mut least = if uas { Some(Subject::least(processors)?) } else { None };
    let seconds = arguments.seconds;
    let (answered, refused) = (Plan::Answered(arguments.hold()), Plan::Refused(404));
    let mut costs = Costs::default();
    costs.calls.resize(if b2bua { arguments.rates.len() } else { 0 }, Rows::default());
    for round in 1..=arguments.rounds.max(1) {
        println!("\nRound {round}\n{}", Row::HEADER);
        for (rows, &rate) in costs.calls.iter_mut().zip(&arguments.rates) {
            rows.add(measure(&mut own, "causewayd", Load { plan: answered, rate, seconds })?);
            own.rest()?;
        }
        if let Some(asterisk) = &mut asterisk {
            let load = Load { plan: answered, rate: arguments.asterisk_rate, seconds };
            costs.asterisk.add(measure(asterisk, "Asterisk", load)?);
            asterisk.rest()?;
        }
        let rate = arguments.agent_rate;
        if uas {
            let load = Load { plan: refused, rate, seconds };
            costs.refused.add(measure(&mut own, "causewayd, refusing", load)?);
            own.rest()?;
        }
        if let Some(agent) = &mut agent {
            let load = Load { plan: answered, rate, seconds };
            costs.agent.add(measure(agent, "endpoint, answering", load)?);
            agent.rest()?;
        }
        if let Some(least) = &mut least {
            let load = Load { plan: refused, rate, seconds };
            costs.least.add(measure(least, "a socket, refusing", load)?);
            least.rest()?;
        }
        if let Some(kamailio) = &mut kamailio {
            let load = Load { plan: refused, rate, seconds };
            costs.kamailio_refused.add(measure(kamailio, "Kamailio, refusing", load)?);
            kamailio.rest()?;
            let load = Load { plan: answered, rate, seconds };
            costs.kamailio_answered.add(measure(kamailio, "Kamailio, answering", load)?);
            kamailio.rest()?;
        }
    }
    Ok(costs)
}

fn overloaded(arguments: &Arguments, folder: &Folder, processors: Processors) -> Result<overload::Outcome> {
    println!("\nOverload\n{}", Row::HEADER);
    let mut subject = Subject::causeway(folder.path(), "overload", processors)?;
    let rated = match arguments.rated {
        Some(rated) => rated,
        None => overload::rated(&mut subject, Plan::Answered(arguments.hold()))?,
    };
    println!("rated load: {rated} calls/s");
    let (times, seconds) = (arguments.overload_times, arguments.overload_seconds);
    overload::measure_overload(&mut subject, arguments.hold(), rated, times, seconds)
}

fn result(costs: &Costs, memory: Option<f64>, overload: Option<overload::Outcome>) {
    let said = |value: Option<f64>, digits: usize| match value {
        Some(value) => format!("{value:.digits$}"),
        None => "none".to_owned(),
    };
    let ratio = |own: Option<f64>, other: Option<f64>| Some(own? / other?);
    let own = costs.cpu_ms();
    let (failed, repeated) = costs
        .calls
        .iter()
        .chain([&costs.refused, &costs.agent])
        .map(Rows::faults)
        .fold((0, 0), |sum, faults| (sum.0 + faults.0, sum.1 + faults.1));
    println!(
        "\nRESULT signalling cpu_ms_per_call={} vs_asterisk={} vs_kamailio={} kb_per_call={} goodput_at_3x={} \
         cps_sustained={} trying_p99_ms={} reject_p99_ms={} recovery_s={} failed={failed} retransmitted={repeated} \
         leg_vs_kamailio={} refusal_vs_kamailio={} least_vs_kamailio={} generator_is_the_limit={} stolen_by_host={:.2}",
        said(own, 3),
        said(ratio(own, costs.asterisk.cpu_ms()), 3),
        said(ratio(costs.agent.cpu_ms(), costs.kamailio_answered.cpu_ms()), 2),
        said(memory, 1),
        said(overload.map(|outcome| outcome.goodput), 2),
        said(overload.map(|outcome| outcome.rated), 0),
        said(costs.trying_ms(), 2),
        said(overload.map(|outcome| outcome.reject_ms), 1),
        said(overload.map(|outcome| outcome.recovery_s), 1),
        said(ratio(own.map(|ms| ms / 2.0), costs.kamailio_answered.cpu_ms()), 2),
        said(ratio(costs.refused.cpu_ms(), costs.kamailio_refused.cpu_ms()), 2),
        said(ratio(costs.least.cpu_ms(), costs.kamailio_refused.cpu_ms()), 2),
        overload.is_some_and(|outcome| outcome.generator_is_the_limit),
        costs.all().map(Rows::stolen).fold(0.0, f64::max),
    );
}
