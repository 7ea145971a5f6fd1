//! `make quality`: how voices sound that went through the running daemon, by PESQ, on paths that lose packets.
//!
//! A gateway as a process of its own, an overlay user and a scripted carrier here, all of it in a network namespace
//! with nothing but its own loopback. Between user and gateway stands a network that loses RTP as a seed says. All
//! calls run at once; in each, both sides say recorded sentences, over and over, and what each hears is judged
//! against what the other said. The last line is for machines.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod ends;
mod impairment;
mod judge;
mod passage;
mod script;
mod stage;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::tests::lab::{self, Folder, Speech, Watch};
use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde_json::Value;

use transcoder::codec::g711::Law;

use ends::{Begin, Heard};
use impairment::{Pattern, Random, Transit};
use passage::{Count, Passage};
use script::{SPEAKERS, Script, Speaker};
use stage::{Open, Stage};
use table::{Cell, Direction, GOALS, Table};

/// Laps before anything is judged: reports of the loss have gone round, and FEC is on.
const WARM_UP: usize = 1;
const TICK: Duration = Duration::from_millis(20);

/// Measures how voices sound through Causeway.
#[derive(Debug, Parser)]
struct Arguments {
    /// The losses follow from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How often each sentence is said and judged, in each direction.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=20))]
    laps: u16,
    /// Milliseconds that every datagram is on its way between user and gateway.
    #[arg(long, default_value_t = 20)]
    delay_ms: u64,
    /// Milliseconds more that it may be, at random.
    #[arg(long, default_value_t = 4)]
    jitter_ms: u64,
    /// More lines for the `[media]` table of the gateway.
    #[arg(long, default_value = "")]
    media: String,
    /// A folder to keep all recordings in.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Where the picture goes.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/quality.png"))]
    picture: PathBuf,
    /// A Python that has what PESQ needs; one is made where none is given.
    #[arg(long)]
    python: Option<PathBuf>,
    /// It runs in the namespace already.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.inside { measure(&arguments) } else { enter(&arguments) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causeway-quality: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Fetches what needs a network, then runs this program again where there is none.
fn enter(arguments: &Arguments) -> Result<()> {
    let folder = Folder::new("quality-python")?;
    lab::speech(Speech::English)?;
    let python = match &arguments.python {
        Some(python) => python.clone(),
        None => {
            println!("Making a Python with PESQ, for this run only");
            judge::environment(folder.path())?
        }
    };
    let namespace = ["--user", "--map-root-user", "--net", "--"];
    let may = Command::new("unshare").args(namespace).arg("true").output();
    let mut command = if may.is_ok_and(|output| output.status.success()) {
        let mut command = Command::new("unshare");
        command.args(namespace).args(["sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
        command.arg(std::env::current_exe()?);
        command
    } else {
        println!("No namespace may be made here: it runs on the loopback that all share");
        Command::new(std::env::current_exe()?)
    };
    command.args(std::env::args_os().skip(1)).arg("--inside");
    if arguments.python.is_none() {
        command.arg("--python").arg(python);
    }
    ensure!(command.status().context("unshare")?.success(), "nothing was measured");
    Ok(())
}

/// A call, and what it is for.
struct Case {
    pattern: Pattern,
    speaker: Speaker,
    script: Arc<Script>,
    open: Open,
}

/// A call that is over.
struct Outcome {
    pattern: Pattern,
    speaker: Speaker,
    script: Arc<Script>,
    heard: Heard,
    counts: [Count; 2],
    /// What the gateway knows of it.
    record: Value,
}

fn measure(arguments: &Arguments) -> Result<()> {
    let python = arguments.python.as_deref().context("--inside needs --python")?;
    let transit = Transit {
        delay: Duration::from_millis(arguments.delay_ms),
        jitter: Duration::from_millis(arguments.jitter_ms),
    };
    let laps = WARM_UP + usize::from(arguments.laps);
    println!(
        "Seed {}; {} to {} ms between user and gateway; {} laps, and {WARM_UP} before them",
        arguments.seed,
        arguments.delay_ms,
        arguments.delay_ms + arguments.jitter_ms,
        arguments.laps
    );
    let mut stage = Stage::set(&arguments.media)?;
    let cases = place(&mut stage, arguments.seed, transit)?;
    let watch = Watch::begin();
    let outcomes = speak(&mut stage, cases, laps);
    let seen = watch.end();
    println!("While all spoke: {seen}");
    if !seen.is_slight() {
        println!(
            "The machine did not keep time: what stood still is heard as loss, also where there is none"
        );
    }
    let outcomes = outcomes.inspect_err(|_| stage.tell_last_words())?;
    drop(stage);

    let folder = Folder::new("quality-sound")?;
    let folder = arguments.keep.as_deref().unwrap_or(folder.path());
    fs::create_dir_all(folder)?;
    let table = judge_all(python, folder, &outcomes, laps)?;
    print!("\n{}", table.rows());
    judge::draw(python, folder, &table.lines(), &arguments.picture)?;
    println!("{}", table.result());
    Ok(())
}

/// Opens a call for each pattern and speaker.
fn place(stage: &mut Stage, seed: u64, transit: Transit) -> Result<Vec<Case>> {
    let mut seeds = Random(seed);
    let mut cases = Vec::new();
    for speaker in SPEAKERS {
        let script = Arc::new(Script::of(speaker)?);
        for (pattern, ..) in GOALS {
            let script = Arc::clone(&script);
            let open = stage
                .call(cases.len(), pattern, transit, Arc::clone(&script), &mut seeds)
                .with_context(|| format!("{pattern}, {}", speaker.name))?;
            cases.push(Case { pattern, speaker, script, open });
        }
    }
    Ok(cases)
}

/// Lets all speak at once, so many laps each, and hangs up.
fn speak(stage: &mut Stage, cases: Vec<Case>, laps: usize) -> Result<Vec<Outcome>> {
    let start = Instant::now() + Duration::from_millis(500);
    for (index, case) in cases.iter().enumerate() {
        // Calls begin by chance: not all on one tick.
        let at = start + TICK * index as u32 / cases.len() as u32;
        case.open.ends.begin(Begin { at, ticks: laps * case.script.ticks() })?;
        case.open.passage.impair();
    }
    let longest = cases.iter().map(|case| laps * case.script.ticks()).max().unwrap_or(0);
    println!("{} calls speak for {:.0} s", cases.len(), (TICK * longest as u32).as_secs_f64());
    let mut outcomes = Vec::new();
    for case in cases {
        let Case { pattern, speaker, script, open } = case;
        let (call, dialog, ends, passage): (_, _, _, Passage) = open.into_parts();
        let heard = ends.heard().with_context(|| format!("{pattern}, {}", speaker.name))?;
        let counts = passage.counts();
        let record = stage.record(call)?;
        stage.end(call, &dialog)?;
        outcomes.push(Outcome { pattern, speaker, script, heard, counts, record });
    }
    Ok(outcomes)
}

/// Judges every sentence that was heard after the warm-up.
fn judge_all(python: &Path, folder: &Path, outcomes: &[Outcome], laps: usize) -> Result<Table> {
    let (mut cells, mut pairs) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let sentences: Vec<&[i16]> = outcome.script.sentences().collect();
        for (direction, count) in Direction::BOTH.into_iter().zip(outcome.counts) {
            let recording = match direction {
                Direction::ToTelephone => &outcome.heard.telephone,
                Direction::ToUser => &outcome.heard.user,
            };
            let heard: Vec<_> = outcome.script.heard(recording, WARM_UP, laps).collect();
            ensure!(heard.len() == sentences.len() * (laps - WARM_UP), "a recording is too short");
            let first = pairs.len();
            pairs.extend(heard.into_iter().map(|(index, heard)| (sentences[index], heard)));
            let (recovered, concealed) = repairs(outcome, direction);
            let cell = Cell {
                pattern: outcome.pattern,
                speaker: outcome.speaker,
                direction,
                count,
                recovered,
                concealed,
                values: Vec::new(),
            };
            cells.push((first..pairs.len(), cell));
        }
    }
    let alone = through_a_law(outcomes);
    let first = pairs.len();
    pairs.extend(alone.iter().map(|(said, heard)| (&said[..], &heard[..])));
    let values = judge::judge(python, folder, &pairs)?;
    let filled = cells.into_iter().map(|(range, cell)| Cell { values: values[range].to_vec(), ..cell });
    Ok(Table { cells: filled.collect(), a_law: values[first..].to_vec() })
}

/// What the gateway cannot make better: sentences of all speakers through A-law and back, and nothing else.
fn through_a_law(outcomes: &[Outcome]) -> Vec<(Vec<i16>, Vec<i16>)> {
    let scripts =
        SPEAKERS.iter().filter_map(|speaker| outcomes.iter().find(|outcome| outcome.speaker == *speaker));
    let sentences = scripts.flat_map(|outcome| outcome.script.sentences());
    sentences
        .map(|said| {
            let heard = said.iter().map(|&sample| Law::A.decode(Law::A.encode(sample))).collect();
            (said.to_vec(), heard)
        })
        .collect()
}

/// What the receiver did about losses: frames that FEC brought back, and that were made up.
fn repairs(outcome: &Outcome, direction: Direction) -> (Option<u64>, Option<u64>) {
    match direction {
        Direction::ToUser => {
            let quality = &outcome.heard.quality;
            (Some(quality.frames_recovered), Some(quality.frames_concealed))
        }
        Direction::ToTelephone => {
            let figure = |name: &str| outcome.record["overlay"][name].as_u64();
            (figure("frames_recovered"), figure("frames_concealed"))
        }
    }
}
