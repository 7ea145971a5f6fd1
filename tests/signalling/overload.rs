//! More calls than one processor can carry: what is carried on, how fast the rest is refused, and how soon all is
//! well again.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::lab::usage::quantile;

use crate::caller::{Plan, Tally};
use crate::measure::{Generator, Load, measure};
use crate::subject::Subject;

/// Where the search begins, and by how much it goes on.
const FIRST: f64 = 300.0;
const STEP: f64 = 1.25;
/// Seconds of each step of the search.
const STEP_SECONDS: u64 = 3;
/// How often a step that was not carried is tried again; more often where the host took part of the machine.
const AGAIN: u32 = 1;
const ROBBED_AGAIN: u32 = 3;
/// Seconds for which the peak is measured.
const PEAK_SECONDS: u64 = 8;
/// Seconds of the overload between two lines.
const LINE_SECONDS: f64 = 10.0;
/// So long without a failed call, and all is well again.
const WELL: Duration = Duration::from_secs(5);
/// How long that is waited for.
const RECOVERY: Duration = Duration::from_secs(45);

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Calls a second carried on one processor.
    pub(crate) rated: f64,
    /// Calls answered a second at three times that, of the most that were ever carried.
    pub(crate) goodput: f64,
    /// Milliseconds from INVITE to 503, p99.
    pub(crate) reject_ms: f64,
    /// Seconds from the end of the overload to the last call that failed at half the rated load.
    pub(crate) recovery_s: f64,
    pub(crate) generator_is_the_limit: bool,
}

/// Finds the highest rate that is carried, in steps of a quarter.
pub(crate) fn rated(subject: &mut Subject, plan: Plan) -> Result<f64> {
    let (mut rate, mut carried, mut again) = (FIRST, None, 0);
    loop {
        let row = measure(subject, "  step", Load { plan, rate, seconds: STEP_SECONDS })?;
        println!("{row}");
        subject.rest()?;
        if row.generator_is_the_limit() || !row.is_carried() {
            // A moment that belonged to others ends no search.
            again += 1;
            if again > if row.is_robbed() { ROBBED_AGAIN } else { AGAIN } {
                return carried.with_context(|| format!("not even {FIRST} calls/s are carried"));
            }
            continue;
        }
        (carried, again) = (Some(rate), 0);
        rate = (rate * STEP).round();
    }
}

/// Offers the rated load, then `times` as much for so many seconds, then half of it.
pub(crate) fn measure_overload(
    subject: &mut Subject,
    hold: Duration,
    rated: f64,
    times: f64,
    seconds: u64,
) -> Result<Outcome> {
    let plan = Plan::Answered(hold);
    let row = measure(subject, "rated load", Load { plan, rate: rated, seconds: PEAK_SECONDS })?;
    println!("{row}");
    let peak = rated.max(row.tally.answered as f64 / PEAK_SECONDS as f64);
    subject.rest()?;

    println!(
        "\n      s  offered/s  answered/s    503/s  503 p50 ms  503 p99 ms  others  generator busy, late ms"
    );
    let mut left = seconds as f64;
    let (mut all, mut phases, mut answered) = (Vec::new(), Vec::new(), 0);
    let began = Instant::now();
    let mut limit = false;
    while left > 0.0 {
        let time = left.min(LINE_SECONDS);
        let phase = subject.generator.begin_phase(plan);
        let (before, watch) = (subject.generator.counts().0, Generator::watch()?);
        subject.generator.offer(rated * times, Duration::from_secs_f64(time))?;
        let generator = Generator::since(watch, subject)?;
        limit |= generator.is_the_limit();
        let now = subject.generator.counts().0 - before;
        answered += now;
        // Calls of this line may still be answered; those are in the sum below.
        let tally = subject.generator.tally(phase);
        let rejected = tally.refused.get(&503).copied().unwrap_or(0);
        println!(
            "{:>7.0}  {:>9.0}  {:>10.0}  {:>7.0}  {:>10.2}  {:>10.2}  {:>6}  {:>6.0} %, {:.2}  {}",
            began.elapsed().as_secs_f64(),
            tally.begun as f64 / time,
            now as f64 / time,
            rejected as f64 / time,
            quantile(tally.rejected.clone(), 0.5),
            quantile(tally.rejected.clone(), 0.99),
            tally.failed() - rejected,
            100.0 * generator.busy,
            generator.late_ms,
            if generator.is_the_limit() { generator.complaint() } else { "" },
        );
        phases.push(phase);
        left -= time;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let recovery_s = recover(subject, plan, rated / 2.0)?;
    subject.generator.drain()?;
    for phase in phases {
        all.push(subject.generator.tally(phase).clone());
    }
    show(&all);
    let rejected = all.into_iter().flat_map(|tally| tally.rejected).collect();
    Ok(Outcome {
        rated,
        goodput: answered as f64 / elapsed / peak,
        reject_ms: quantile(rejected, 0.99),
        recovery_s,
        generator_is_the_limit: limit,
    })
}

/// Says what became of the calls of the overload.
fn show(tallies: &[Tally]) {
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    println!(
        "of {} calls {} were answered, {} completed, {} refused with 503, {} with another status, {} unanswered, \
         {} cut short; the generator said {} again",
        sum(|tally| tally.begun),
        sum(|tally| tally.answered),
        sum(|tally| tally.completed),
        sum(|tally| tally.refused.get(&503).copied().unwrap_or(0)),
        sum(|tally| tally.refused.iter().filter(|(status, _)| **status != 503).map(|(_, count)| count).sum()),
        sum(|tally| tally.unanswered),
        sum(|tally| tally.cut),
        sum(|tally| tally.own_repeats),
    );
}

/// Offers little until nothing fails any more; returns how long things failed, in seconds.
fn recover(subject: &mut Subject, plan: Plan, rate: f64) -> Result<f64> {
    let began = Instant::now();
    let phase = subject.generator.begin_phase(plan);
    loop {
        subject.generator.offer(rate, Duration::from_millis(500))?;
        let last = subject.generator.tally(phase).last_failed;
        let well = last.unwrap_or(began).elapsed();
        if well >= WELL || began.elapsed() >= RECOVERY {
            let seconds = last.map_or(0.0, |last| last.duration_since(began).as_secs_f64());
            println!("half the rated load: the last call failed {seconds:.1} s after the overload");
            return Ok(seconds);
        }
    }
}
