//! What an open call takes of memory.

use std::collections::BTreeMap;
use std::time::Duration;

use ::tests::lab::usage::{resident_megabytes, slope};
use anyhow::{Context as _, Result, ensure};

use crate::caller::Plan;
use crate::subject::{Subject, held_at_most};

/// Calls begun and ended a second meanwhile: a rate that any machine carries.
const RATE: f64 = 250.0;
/// Calls from one step to the next.
const STEP: usize = 1000;
/// Until the transactions of a call that has begun are over: 64 times T1 (RFC 3261 17.1.1.2, RFC 6026 7.1), and
/// a second.
const TRANSACTION: Duration = Duration::from_secs(33);
/// Times that calls are made which are refused.
const TRIES: usize = 5;

/// Holds more and more calls, and returns the kB of 10^3 octets that each took from the first step on.
pub(crate) fn measure(subject: &mut Subject, most: usize) -> Result<f64> {
    let bound = held_at_most()?;
    if bound < most {
        println!(
            "Held calls: {bound} at most; the system does not allow the descriptors of more (ulimit -Hn)"
        );
    }
    let most = most.min(bound);
    let mut points = Vec::new();
    println!("  held  resident MB: when they had begun, and when the transactions of that were over");
    println!("{:>6}  {:>11.1}", 0, resident_megabytes(subject.pid())?);
    let mut held = 0;
    while held < most {
        let next = (held + STEP).min(most);
        begin(subject, next)?;
        let begun = resident_megabytes(subject.pid())?;
        subject.generator.wait(TRANSACTION)?;
        held = subject.generator.open();
        let megabytes = resident_megabytes(subject.pid())?;
        println!("{held:>6}  {begun:>5.1} {megabytes:>5.1}  {}", "#".repeat((megabytes / 4.0) as usize));
        points.push((held as f64, megabytes));
    }
    let slope = slope(&points).context("one step is too few")?;
    subject.generator.hang_up_all(RATE)?;
    println!(
        "{:>6}  {:>11.1}  when all were over",
        subject.generator.open(),
        resident_megabytes(subject.pid())?
    );
    Ok(1000.0 * slope)
}

/// Has as many calls open as are wanted. One that is refused, as when the host of this machine kept the daemon
/// from its processor, is made again.
fn begin(subject: &mut Subject, wanted: usize) -> Result<()> {
    let mut refused = BTreeMap::new();
    for _ in 0..TRIES {
        let lacking = wanted.saturating_sub(subject.generator.open());
        if lacking == 0 {
            break;
        }
        let phase = subject.generator.begin_phase(Plan::Held);
        subject.generator.offer(RATE, Duration::from_secs_f64(lacking as f64 / RATE))?;
        subject.generator.wait(Duration::from_secs(3))?;
        refused.extend(subject.generator.tally(phase).refused.clone());
    }
    let open = subject.generator.open();
    ensure!(open * 20 >= wanted * 19, "of {wanted} calls {open} are open; refused by status {refused:?}");
    Ok(())
}
