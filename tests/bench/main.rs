//! `make bench`: what a call costs, how fast it is set up, what an idle gateway takes; beside it rtpengine, in turns.
//!
//! Everything runs on this machine, on loopback: `causewayd` and `rtpengine` as processes of their own, whose
//! processor time is read from the system, and all that calls them in this process. The last line is for machines.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod daemon;
mod generator;
mod libopus;
mod lookup;
mod media;
mod pbx;
mod rtpengine;
mod speech;
mod usage;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tests::lab::Folder;

use daemon::Settings;
use generator::{Generator, Kind};
use usage::{Round, median};

/// Measures Causeway, and rtpengine beside it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Calls at one time.
    #[arg(long, default_value_t = 90)]
    calls: usize,
    /// Seconds of each measurement; five more pass before it.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Rounds; each measures Causeway, then rtpengine.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Calls between overlay users, each to another callee.
    #[arg(long, default_value_t = 24)]
    look_ups: usize,
    /// Leaves rtpengine out.
    #[arg(long)]
    alone: bool,
    /// Measures what media costs in every way it may go, instead: `make bench-media`.
    #[arg(long)]
    media: bool,
    /// Measures one way of media alone, without anchors: cx5, cx0, conversation, passing, edge, or 'one thread'.
    #[arg(long, value_name = "WAY")]
    only: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.only {
        Some(way) => media::run_one(&arguments, way),
        None if arguments.media => media::run(&arguments),
        None => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let folder = Folder::new("bench")?;
    let speech = speech::active()?;
    println!(
        "Speech: {:.1} s, pauses cut out, said over and over by both sides of every call",
        speech.seconds()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let generator = Generator::start()?;
    let mut stage = daemon::Stage::set(folder.path(), Settings::ALWAYS)?;

    let idle_mb = stage.idle_megabytes()?;
    println!("Idle gateway, joined to three supernodes for 10 s: {idle_mb:.1} MB resident");

    let look_ups = runtime.block_on(lookup::measure(&stage, &speech, arguments.look_ups))?;
    println!("{look_ups}");

    let pbx = pbx::Pbx::start(stage.pbx, stage.gateway_sip(), generator.handle(), &speech, Kind::Alaw)?;
    let callers = runtime.block_on(stage.callers(arguments.calls))?;
    let anchor = if arguments.alone { None } else { Some(rtpengine::Rtpengine::start(folder.path())?) };
    let (mut own, mut others) = (Vec::new(), Vec::new());
    let mut anchor_calls = rtpengine::calls_beside(arguments.calls);
    println!("\n{}", Round::HEADER);
    let mut floor = Vec::new();
    for _ in 0..arguments.rounds.max(1) {
        let round = stage
            .round(&runtime, &callers, &pbx, &generator, &speech, arguments.calls, arguments.seconds)
            .context("causewayd")?;
        println!("{round}");
        own.push(round);
        floor.push(libopus::calls_per_core(&speech, arguments.calls, arguments.seconds, 5, false)?);
        println!(
            "libopus alone, encoding and decoding the same: {:.1} calls per core",
            median(floor.clone())
        );
        let Some(anchor) = &anchor else { continue };
        let round = anchor.round_or_fewer(&generator, &speech, &mut anchor_calls, arguments.seconds)?;
        println!("{round}");
        others.push(round);
    }

    let calls_per_core = per_core(&own)?;
    let floor = median(floor);
    let (anchor, ratio) = match per_core(&others) {
        Ok(anchor) => (format!("{anchor:.1}"), format!("{:.2}", calls_per_core / anchor)),
        Err(_) => ("none".to_owned(), "none".to_owned()),
    };
    println!(
        "\nRESULT bench calls_per_core={calls_per_core:.1} rtpengine_calls_per_core={anchor} ratio={ratio} \
         libopus_calls_per_core={floor:.1} lookup_answer_ms={:.1} first_rtp_ms={:.1} idle_mb={idle_mb:.1} lookups_failed={}",
        look_ups.answer_ms(),
        look_ups.first_rtp_ms(),
        look_ups.failed(),
    );
    Ok(())
}

fn per_core(rounds: &[Round]) -> Result<f64> {
    if rounds.is_empty() {
        bail!("no round");
    }
    Ok(median(rounds.iter().map(Round::calls_per_core).collect()))
}
