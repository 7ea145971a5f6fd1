//! One steady load, and what it took.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::lab::usage::{cpu_seconds, machine_seconds, median, quantile, stolen_seconds};

use crate::caller::{Plan, Tally};
use crate::subject::Subject;

/// What passes before a measurement, so that calls end as fast as they begin.
const WARM_UP: Duration = Duration::from_millis(1500);
/// A generator later than this, in milliseconds, is the limit itself.
const LATE: f64 = 20.0;
/// Of all processors together, what the host may take.
const ROBBED: f64 = 0.1;
/// How often a load that something spoilt wholly is offered again.
const AGAIN: u32 = 2;
/// So much of a processor and the generator is the limit itself.
const BUSY: f64 = 0.95;

/// A load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) plan: Plan,
    /// Calls a second.
    pub(crate) rate: f64,
    pub(crate) seconds: u64,
}

/// What a load took.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    name: &'static str,
    pub(crate) rate: f64,
    pub(crate) tally: Tally,
    /// Calls of the warm-up that failed.
    failed_before: u64,
    pub(crate) cpu_ms: f64,
    /// Processors that the subject, the generator and others kept busy.
    busy: f64,
    generator: Generator,
    foreign: f64,
    /// Processors that the host took away meanwhile.
    stolen: f64,
    /// What the subject said again though it was answered, at both ends.
    pub(crate) repeated: u64,
    /// What the called end had to say again.
    answers_repeated: u64,
}

/// How the generator fared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Generator {
    pub(crate) busy: f64,
    pub(crate) late_ms: f64,
    dropped: u64,
}

impl Generator {
    /// Begins to watch.
    pub(crate) fn watch() -> Result<(f64, Instant)> {
        Ok((cpu_seconds(std::process::id())?, Instant::now()))
    }

    /// Says how it fared since then.
    pub(crate) fn since(since: (f64, Instant), subject: &Subject) -> Result<Self> {
        let (cpu, began) = since;
        let busy = (cpu_seconds(std::process::id())? - cpu) / began.elapsed().as_secs_f64();
        let late_ms = quantile(subject.generator.late(), 0.99);
        Ok(Self { busy, late_ms, dropped: subject.generator.dropped() })
    }

    /// Says why it could not do what it was to.
    pub(crate) fn complaint(&self) -> &'static str {
        if self.busy > BUSY / 2.0 {
            "the generator is the limit: this says nothing"
        } else {
            "the generator was kept from its time by others on this machine: this says little"
        }
    }

    /// Says whether it could not do what it was to.
    pub(crate) fn is_the_limit(&self) -> bool {
        self.late_ms > LATE || self.busy > BUSY || self.dropped > 0
    }
}

impl Row {
    /// Names the columns.
    pub(crate) const HEADER: &'static str = concat!(
        "                       calls/s    CPU ms    core   100 Trying ms       answer ms     failed   said    generator    CPUs busy    stolen\n",
        "                       offered  per call    busy    p50      p99     p50      p99     calls  again  busy late ms  with others   by host"
    );

    /// Calls that failed, warm-up and all.
    pub(crate) fn failed(&self) -> u64 {
        self.tally.failed() + self.failed_before
    }

    /// Whether the rate was carried: of the calls 99 in 100 as planned, and of these 99 answered within T1
    /// (RFC 3261 17.1.1.1), after which clients ask again.
    pub(crate) fn is_carried(&self) -> bool {
        self.tally.failed() * 100 <= self.tally.begun && quantile(self.tally.set_up.clone(), 0.99) < 500.0
    }

    /// Whether the host of this machine took so much of it away that the row says little.
    pub(crate) fn is_robbed(&self) -> bool {
        self.stolen > ROBBED
    }

    /// Whether something else than the subject decided what came of it.
    fn is_spoilt(&self) -> bool {
        self.is_robbed() || self.generator_is_the_limit()
    }

    /// Whether the generator was the limit.
    pub(crate) fn generator_is_the_limit(&self) -> bool {
        self.generator.is_the_limit()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { trying, set_up, .. } = &self.tally;
        // A refusal may come without a provisional answer before it.
        let of = |values: &[f64], q| match values {
            [] => "-".to_owned(),
            values => format!("{:.2}", quantile(values.to_vec(), q)),
        };
        write!(
            f,
            "{:<22} {:>7.0}  {:>8.3}  {:>4.0} %  {:>5}  {:>7}  {:>6}  {:>7}  {:>8}  {:>5}  {:>3.0} %  {:>6.2}  {:>11.2}  {:>8.2}",
            self.name,
            self.rate,
            self.cpu_ms,
            100.0 * self.busy,
            of(trying, 0.5),
            of(trying, 0.99),
            of(set_up, 0.5),
            of(set_up, 0.99),
            self.failed(),
            self.repeated,
            100.0 * self.generator.busy,
            self.generator.late_ms,
            self.foreign,
            self.stolen,
        )?;
        if !self.tally.refused.is_empty() || self.tally.unanswered + self.tally.cut > 0 {
            let Tally { refused, unanswered, cut, .. } = &self.tally;
            write!(f, "\n    failed: by status {refused:?}, unanswered {unanswered}, cut short {cut}")?;
        }
        let again = self.tally.own_repeats + self.answers_repeated;
        if again > 0 {
            write!(f, "\n    the generator said {again} messages again")?;
        }
        if self.generator.is_the_limit() {
            write!(f, "\n    {}", self.generator.complaint())?;
        }
        Ok(())
    }
}

/// Offers a load and measures in the midst of it; again where something spoilt it so that no call was completed.
///
/// # Errors
/// When the subject has gone, or has completed no call at all.
pub(crate) fn measure(subject: &mut Subject, name: &'static str, load: Load) -> Result<Row> {
    let mut row = attempt(subject, name, load)?;
    for _ in 0..AGAIN {
        if row.cpu_ms.is_finite() || !row.is_spoilt() {
            break;
        }
        println!("{row}\n    no call was completed: once more");
        subject.rest()?;
        row = attempt(subject, name, load)?;
    }
    let (Load { rate, .. }, Tally { refused, unanswered, .. }) = (load, &row.tally);
    ensure!(
        row.cpu_ms.is_finite(),
        "{name}: no call was completed at {rate} calls/s: refused by status {refused:?}, unanswered {unanswered}"
    );
    Ok(row)
}

/// The row's processor time per call is infinite where no call was completed.
fn attempt(subject: &mut Subject, name: &'static str, load: Load) -> Result<Row> {
    let Load { plan, rate, seconds } = load;
    let warm_up = subject.generator.begin_phase(plan);
    subject.generator.offer(rate, WARM_UP)?;
    let watch = Generator::watch()?;
    let (cpu, machine, stolen) = (subject.cpu_seconds()?, machine_seconds()?, stolen_seconds()?);
    let completed = subject.generator.counts().1;
    let callee = subject.generator.callee();
    let (repeated, answers_repeated) = (callee.repeated(), callee.own_repeats());
    let phase = subject.generator.begin_phase(plan);
    subject.generator.offer(rate, Duration::from_secs(seconds))?;
    let elapsed = watch.1.elapsed().as_secs_f64();
    let cpu = subject.cpu_seconds()? - cpu;
    let generator = Generator::since(watch, subject)?;
    let completed = subject.generator.counts().1 - completed;
    let stolen = (stolen_seconds()? - stolen) / elapsed;
    let foreign = (machine_seconds()? - machine - cpu) / elapsed - generator.busy;
    subject.generator.drain()?;
    let tally = subject.generator.tally(phase).clone();
    let callee = subject.generator.callee();
    let repeated = tally.repeated + callee.repeated() - repeated;
    let answers_repeated = callee.own_repeats() - answers_repeated;
    let failed_before = subject.generator.tally(warm_up).failed();
    Ok(Row {
        name,
        rate,
        failed_before,
        cpu_ms: 1000.0 * cpu / completed as f64,
        busy: cpu / elapsed,
        generator,
        foreign: foreign.max(0.0),
        stolen,
        repeated,
        answers_repeated,
        tally,
    })
}

/// The rows of all rounds that had the same load.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows(Vec<Row>);

impl Rows {
    /// Adds one, and shows it.
    pub(crate) fn add(&mut self, row: Row) {
        println!("{row}");
        self.0.push(row);
    }

    /// The most that the host took meanwhile, in processors.
    pub(crate) fn stolen(&self) -> f64 {
        self.0.iter().map(|row| row.stolen).fold(0.0, f64::max)
    }

    /// The median of the processor time per call, in milliseconds; none without a row.
    pub(crate) fn cpu_ms(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| median(self.trusted().map(|row| row.cpu_ms).collect()))
    }

    /// Milliseconds to 100 Trying below which 99 in 100 calls are.
    pub(crate) fn trying_p99(&self) -> f64 {
        quantile(self.trusted().flat_map(|row| row.tally.trying.iter().copied()).collect(), 0.99)
    }

    /// The rows that nothing else has spoilt; all of them where there are none.
    fn trusted(&self) -> impl Iterator<Item = &Row> {
        let all = self.0.iter().all(Row::is_spoilt);
        self.0.iter().filter(move |row| all || !row.is_spoilt())
    }

    /// Calls that failed, and messages said again, in all.
    pub(crate) fn faults(&self) -> (u64, u64) {
        self.0.iter().fold((0, 0), |(failed, again), row| (failed + row.failed(), again + row.repeated))
    }
}

/// Draws one bar for each value, the longest for the greatest.
pub(crate) fn bars(title: &str, unit: &str, values: &[(&str, f64)]) {
    const WIDTH: f64 = 50.0;
    let greatest = values.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    println!("\n{title}");
    for (name, value) in values {
        let length = (WIDTH * value / greatest).round().max(0.0) as usize;
        println!("  {name:<34} {:<50} {value:.3} {unit}", "#".repeat(length));
    }
}
