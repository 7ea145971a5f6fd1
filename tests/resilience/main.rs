//! `make overlay-resilience`: what becomes of calls and look-ups when half of the supernodes die, when the
//! network falls apart and comes together, and when the ways of joining are blocked.
//!
//! Every supernode is a process of its own; the users of each half, with their calls and look-ups, are one
//! process. Each half is in a network namespace, joined by a bridge that is taken apart. The last line is
//! `RESULT resilience calls_lost=N lookups_failed_pct=N rejoin_s=N`; the exit code says whether no call was
//! lost and 99.9 % of the look-ups found their user.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod agent;
mod hosts;
mod net;
mod page;
mod scenario;
mod seat;
mod stage;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Shows what the overlay survives.
#[derive(Debug, Parser)]
#[command(name = "causeway-resilience")]
struct Arguments {
    /// Supernodes in each half, 6 to 24.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u8).range(6..=24))]
    supernodes: u8,
    /// Calls in each half, and as many from one half to the other, 1 to 8.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    calls: u8,
    /// How long the network stays apart, in seconds.
    #[arg(long, default_value_t = 60)]
    apart: u64,
    /// Keep the supernodes that are killed silent, as a machine without power is: nothing refuses a
    /// connection to them.
    #[arg(long)]
    silent: bool,
    /// Write what was seen to this file, where the goals are reached.
    #[arg(long)]
    page: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What the program runs as, when it starts itself again.
#[derive(Debug, Subcommand)]
enum Part {
    /// Everything, where there is no other network.
    #[command(hide = true)]
    Inside,
    /// One supernode.
    #[command(hide = true)]
    Supernode {
        /// What it is, as JSON.
        seat: String,
    },
    /// The users of one half.
    #[command(hide = true)]
    Users {
        /// What they are, as JSON.
        seats: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("causeway-resilience: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .init();
    }
    match &arguments.part {
        None => net::enter(),
        Some(Part::Inside) => scenario::play(arguments),
        Some(Part::Supernode { seat }) => seat::supernode(seat).map(|()| true),
        Some(Part::Users { seats }) => agent::users(seats).map(|()| true),
    }
}
