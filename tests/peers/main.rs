//! `make interop`: calls between the gateway and every peer of the laboratory, real and scripted.
//!
//! Each line of the table is a scenario of a peer. What a scripted peer says is written out in its scenario, message
//! by message; real ones are Asterisk, Kamailio, baresip and SIPp. The last line is for machines.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod carrier;
mod hostile;
mod ibcf;
mod mgcf;
mod pbx;
mod real;
mod stage;
mod teams;

use std::{
    collections::BTreeSet,
    process::ExitCode,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use clap::Parser;

use stage::Stage;
use tests::lab::Watch;

/// A scenario of a peer; it fails with what was not as it should be.
struct Scenario {
    peer: &'static str,
    what: &'static str,
    act: Act,
}

/// What a scenario does.
#[derive(Clone, Copy)]
enum Act {
    /// It has the stage for itself.
    Alone(fn(&mut Stage) -> Result<()>),
    /// The same, and it judges sound or delays, which are of real time.
    InTime(fn(&mut Stage) -> Result<()>),
    /// It waits for most of its time, in a thread of its own, while others are played.
    Beside(fn(&mut Stage) -> Result<Script>),
}

/// What goes on beside other scenarios.
struct Script {
    thread: JoinHandle<Result<()>>,
    /// What is looked at once the script is over.
    judge: fn(&mut Stage) -> Result<()>,
}

const fn scenario(peer: &'static str, what: &'static str, act: fn(&mut Stage) -> Result<()>) -> Scenario {
    Scenario { peer, what, act: Act::Alone(act) }
}

const fn in_time(peer: &'static str, what: &'static str, act: fn(&mut Stage) -> Result<()>) -> Scenario {
    Scenario { peer, what, act: Act::InTime(act) }
}

const fn beside(peer: &'static str, what: &'static str, act: fn(&mut Stage) -> Result<Script>) -> Scenario {
    Scenario { peer, what, act: Act::Beside(act) }
}

/// Runs every peer against a gateway.
#[derive(Debug, Parser)]
struct Arguments {
    /// Leaves the real peers out.
    #[arg(long)]
    scripted: bool,
    /// Runs only scenarios whose peer or description has this text.
    #[arg(long)]
    only: Option<String>,
}

/// How often a scenario that judges sound or delays may be played on a machine that keeps time. Whatever else goes wrong
/// there is wrong at once.
const ATTEMPTS: usize = 2;
/// How often any scenario may be played on a machine whose host takes its processors away, and the rests between.
const DISTURBED: usize = 5;
const REST: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("causeway-interop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let began = Instant::now();
    let mut stage = Stage::set(!arguments.scripted)?;
    println!("Everything is up after {:.1} s\n", began.elapsed().as_secs_f64());
    // Those that wait begin first.
    let mut scenarios: Vec<&Scenario> = pbx::BESIDE.iter().chain(teams::BESIDE).collect();
    for scripted in [carrier::ALL, pbx::ALL, ibcf::ALL, mgcf::ALL, teams::ALL, hostile::ALL] {
        scenarios.extend(scripted);
    }
    if !arguments.scripted {
        scenarios.extend(real::ALL);
    }
    if let Some(only) = &arguments.only {
        scenarios.retain(|scenario| scenario.peer.contains(only) || scenario.what.contains(only));
    }
    println!("{:<20} {:<88} {:<8} {:>6}", "peer", "scenario", "outcome", "s");
    let (mut report, mut scripts) = (Report::default(), Vec::new());
    for scenario in scenarios {
        let began = Instant::now();
        let complaint = match scenario.act {
            Act::Alone(act) => report.attempts(&mut stage, scenario, 1, act)?,
            Act::InTime(act) => report.attempts(&mut stage, scenario, ATTEMPTS, act)?,
            Act::Beside(act) => match act(&mut stage) {
                Ok(script) => {
                    scripts.push((scenario, began, script));
                    continue;
                }
                Err(error) => Some(format!("{error:#}")),
            },
        };
        report.line(scenario, began, complaint);
        // What a script left is soon forgotten.
        let over: Vec<_> = scripts.extract_if(.., |(.., script)| script.thread.is_finished()).collect();
        report.end(&mut stage, over);
    }
    report.end(&mut stage, scripts);
    let Report { peers, failed, again } = report;
    if again > 0 {
        println!(
            "\n{again} scenarios were played again, since sound was not as it should be or the machine stood still"
        );
    }
    println!("\n{:.0} s in all", began.elapsed().as_secs_f64());
    println!("RESULT interop peers={} calls={} failed={failed}", peers.len(), stage.calls()?);
    Ok(failed == 0 && !peers.is_empty())
}

/// What came of the scenarios so far.
#[derive(Default)]
struct Report {
    peers: BTreeSet<&'static str>,
    failed: usize,
    /// How many were played a second time.
    again: usize,
}

impl Report {
    /// Plays a scenario until it is good, and returns what was wrong with it the last time.
    fn attempts(
        &mut self,
        stage: &mut Stage,
        scenario: &Scenario,
        most: usize,
        act: fn(&mut Stage) -> Result<()>,
    ) -> Result<Option<String>> {
        let mut judged = 0;
        for played in 1.. {
            let watch = Watch::begin();
            let complaint = attempt(stage, act)?;
            let seen = watch.end();
            judged += usize::from(seen.is_slight());
            let Some(wrong) = complaint else { break };
            if judged >= most || played >= DISTURBED {
                return Ok(Some(wrong));
            }
            self.again += 1;
            eprintln!("{}: {}: {seen}\n{}", scenario.peer, scenario.what, last_words(&wrong));
            std::thread::sleep(REST * played as u32);
        }
        Ok(None)
    }

    /// Waits for the ends of scripts, and judges what they came to.
    fn end(&mut self, stage: &mut Stage, scripts: Vec<(&Scenario, Instant, Script)>) {
        for (scenario, began, Script { thread, judge }) in scripts {
            let ended = thread.join().map_err(|_| anyhow!("the script panicked")).flatten();
            let complaint = ended.and_then(|()| judge(stage)).err().map(|error| format!("{error:#}"));
            self.line(scenario, began, complaint);
        }
    }

    fn line(&mut self, scenario: &Scenario, began: Instant, complaint: Option<String>) {
        let Scenario { peer, what, .. } = *scenario;
        self.peers.insert(peer);
        let outcome = if complaint.is_none() { "ok" } else { "FAILED" };
        println!("{peer:<20} {what:<88} {outcome:<8} {:>6.1}", began.elapsed().as_secs_f64());
        if let Some(complaint) = complaint {
            self.failed += 1;
            println!("{}", last_words(&complaint));
        }
    }
}

/// Plays a scenario, and returns what was wrong with it.
fn attempt(stage: &mut Stage, act: fn(&mut Stage) -> Result<()>) -> Result<Option<String>> {
    let complaint = act(stage).err().map(|error| format!("{error:#}"));
    stage.rest()?;
    Ok(complaint)
}

/// The end of a complaint, which begins with all that a telephone ever said.
fn last_words(complaint: &str) -> String {
    let lines: Vec<&str> = complaint.lines().collect();
    let cut = |line: &&str| format!("    {}", line.chars().take(300).collect::<String>());
    lines[lines.len().saturating_sub(16)..].iter().map(cut).collect::<Vec<_>>().join("\n")
}
