//! The daemon.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Signalling is many small pieces of memory of short life: a fifth of its processor time went into the
/// allocator of the C library.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Joins an open voice overlay to the telephone world.
#[derive(Debug, Parser)]
#[command(name = "causewayd", version)]
struct Options {
    /// The configuration file.
    #[arg(long, default_value = "/etc/causeway/causeway.toml")]
    config: PathBuf,
    /// Check the configuration and the identity, and start nothing.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.check {
        return gateway::cli::check(&options.config);
    }
    gateway::lifecycle::main(&options.config)
}
