//! `make nat`: calls between users behind NATs of every kind, and between them and telephones, in network namespaces.
//!
//! Names of users as arguments leave out all cases with others. `--coturn` relays by coturn instead of the supernodes;
//! `--rebind` plays only the cases in which a NAT forgets; `--page FILE` writes the results down.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod cases;
mod page;
mod sites;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use cases::{Kind, Outcome};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("causeway-nat: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let mut users = Vec::new();
    let (mut coturn, mut rebind, mut page) = (false, false, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--coturn" => coturn = true,
            "--rebind" => rebind = true,
            "--page" => page = Some(PathBuf::from(arguments.next().context("--page FILE")?)),
            user => users.push(user.to_owned()),
        }
    }
    let mut stage = stage::Stage::set(&users, coturn)?;
    let outcomes = cases::play(&mut stage, |kind, _, _| !rebind || kind == Kind::Rebind)?;
    let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
    let failed = count(|outcome| outcome.wrong.is_some());
    if let Some(page) = page.filter(|_| failed == 0) {
        page::write(&page, &outcomes)?;
    }
    println!(
        "RESULT nat cases={} media_ok={} relayed={} failed={failed}",
        outcomes.len(),
        count(Outcome::heard),
        count(|outcome| outcome.relayed),
    );
    Ok(failed == 0 && !outcomes.is_empty())
}
