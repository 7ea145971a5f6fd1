//! Processor time of a process that carries calls, and whether it really carried them.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::lab::Process;
use tests::lab::usage::{cpu_seconds, machine_seconds};
pub(crate) use tests::lab::usage::{median, quantile, resident_megabytes};

use crate::generator::{Flow, Generator};

/// How much of what was to be sent may be missing.
const TOLERANCE: f64 = 0.02;
/// What passes before a measurement, so that buffers have found their length.
const WARM_UP: Duration = Duration::from_secs(5);

/// One measurement.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    name: &'static str,
    calls: usize,
    seconds: f64,
    cpu_seconds: f64,
    /// Least and most packets that an end received, of those that were to come.
    received: (f64, f64),
    megabytes: f64,
    /// Processors that others on this machine kept busy meanwhile.
    foreign: f64,
}

/// Calls did not get the packets that belong to them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Shortfall(String);

impl Round {
    /// Names the columns.
    pub(crate) const HEADER: &'static str = "            calls  seconds  CPU ms per    calls per  packets received    resident  CPUs busy\n                            call-second   core       of those due        MB        with others";

    /// How many such calls one core carries.
    pub(crate) fn calls_per_core(&self) -> f64 {
        self.calls as f64 * self.seconds / self.cpu_seconds
    }

    /// Resident memory in MB of 10^6 octets, and the calls that were up.
    pub(crate) fn memory(&self) -> (f64, usize) {
        (self.megabytes, self.calls)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<11} {:>5}  {:>7.1}  {:>11.2}  {:>9.1}  {:>6.2} %..{:>6.2} %  {:>10.1}  {:>9.2}",
            self.name,
            self.calls,
            self.seconds,
            1000.0 * self.cpu_seconds / (self.calls as f64 * self.seconds),
            self.calls_per_core(),
            100.0 * self.received.0,
            100.0 * self.received.1,
            self.megabytes,
            self.foreign,
        )
    }
}

/// Lets `process` carry the calls of the generator for a while.
///
/// # Errors
/// [`Shortfall`] where a call lacked packets or speech on either side.
pub(crate) fn measure(
    name: &'static str,
    process: &Process,
    generator: &Generator,
    calls: usize,
    seconds: u64,
) -> Result<Round> {
    thread::sleep(WARM_UP);
    let own = std::process::id();
    let (cpu, busy, self_cpu) = (process.cpu_seconds()?, machine_seconds()?, cpu_seconds(own)?);
    let (before, began) = (generator.flows()?, Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (after, seconds) = (generator.flows()?, began.elapsed().as_secs_f64());
    let cpu_seconds = process.cpu_seconds()? - cpu;
    let foreign = machine_seconds()? - busy - cpu_seconds - (tests::lab::usage::cpu_seconds(own)? - self_cpu);
    let megabytes = resident_megabytes(process.pid())?;
    ensure!(after.len() == 2 * calls, "{} ends of {calls} calls", after.len());
    let received = check(&before, &after, seconds)?;
    Ok(Round {
        name,
        calls,
        seconds,
        cpu_seconds,
        received,
        megabytes,
        foreign: (foreign / seconds).max(0.0),
    })
}

/// Returns the least and the greatest share of the packets due that an end received.
fn check(before: &[Flow], after: &[Flow], seconds: f64) -> Result<(f64, f64)> {
    let due = seconds / 0.02;
    let mut extremes = (f64::MAX, 0.0_f64);
    for (before, after) in before.iter().zip(after) {
        let share = |count: fn(&Flow) -> u64| (count(after) - count(before)) as f64 / due;
        let (sent, received, voiced) =
            (share(|flow| flow.sent), share(|flow| flow.received), share(|flow| flow.voiced));
        // It has its say as often as it has something to say, and as time goes by.
        let said = share(|flow| flow.due);
        let (least, most) = after.hearing.received;
        let heard = (least..=most).contains(&received) && voiced >= after.hearing.voiced;
        if said - sent > TOLERANCE || said > 1.0 + TOLERANCE || !heard {
            let text = format!(
                "an end ({:?}) sent {:.1} %, received {:.1} % and heard speech in {:.1} % of the packets due",
                after.kind,
                100.0 * sent,
                100.0 * received,
                100.0 * voiced
            );
            return Err(Shortfall(text).into());
        }
        extremes = (extremes.0.min(received), extremes.1.max(received));
    }
    Ok(extremes)
}
