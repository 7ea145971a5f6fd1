//! `make demo`: a real PBX, a gateway and an overlay user on this machine; calls both ways, heard and measured.
//!
//! With `ONCE=1` it ends by itself; otherwise everything keeps running until Ctrl-C.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod calls;
mod stage;

use std::process::ExitCode;

use anyhow::Result;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("causeway-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let once = std::env::var("ONCE").is_ok_and(|value| !value.is_empty() && value != "0");
    let mut stage = stage::Stage::set()?;
    let outcome = calls::play(&mut stage)?;
    if !once {
        stage.stay_until_interrupted(&outcome)?;
    }
    println!("{outcome}");
    Ok(outcome.good())
}
