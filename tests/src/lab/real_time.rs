//! Tests in which sound or delays are measured, on machines that others share.
//!
//! Sound is made in real time. Where a host takes the processors away, time stands still now and then, for Asterisk and
//! baresip as for the product, and tears holes into a voice that no program could mend. So the machine is watched while
//! such a test runs: a failure on a machine that kept time is the product's, one on a machine that did not is tried again.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::usage::stolen_seconds;

/// How often the watch wants to wake.
const TICK: Duration = Duration::from_millis(5);
/// A wake so much late is a hole: more than the frame of 20 ms that is heard of it.
const HOLE: Duration = Duration::from_millis(25);
/// What may be missing of a machine that keeps time: so much of the watched time lies in holes, at most.
const SHARE: f64 = 0.003;
/// The longest hole of a machine that keeps time; jitter buffers begin with 40 to 60 ms.
const LONGEST: Duration = Duration::from_millis(60);
/// How often a test may fail on a machine that kept time: libraries that draw at random have a part in it.
const FAILURES: usize = 3;
/// From when on no further attempt is begun.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first rest between two attempts, and the longest: each is twice the one before. A host gives back what a machine
/// has not used for a while.
const REST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(45));

/// What a machine took of the time of those that ran on it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disturbance {
    /// For how long it was watched.
    pub watched: Duration,
    /// Times at which nothing ran for more than 25 ms.
    pub holes: usize,
    /// The sum of them.
    pub missing: Duration,
    /// The longest.
    pub longest: Duration,
    /// Seconds of processor time that the host gave to others.
    pub stolen_s: f64,
}

impl Disturbance {
    /// Says whether the machine kept time: what was measured on it meanwhile counts.
    #[must_use]
    pub fn is_slight(&self) -> bool {
        self.longest <= LONGEST
            && self.missing.as_secs_f64() <= SHARE * self.watched.as_secs_f64()
            && self.stolen_s <= 0.05 * self.watched.as_secs_f64()
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { watched, holes, missing, longest, stolen_s } = self;
        write!(
            f,
            "in {:.1} s the machine stood still {holes} times, for {} ms together and {} ms at once; {stolen_s:.1} s of \
             processor time were the host's",
            watched.as_secs_f64(),
            missing.as_millis(),
            longest.as_millis()
        )
    }
}

/// A thread that wakes every 5 ms and notes how late it did.
#[derive(Debug)]
pub struct Watch {
    began: Instant,
    stolen_s: f64,
    over: Arc<AtomicBool>,
    thread: JoinHandle<Disturbance>,
}

impl Watch {
    /// Begins to watch.
    #[must_use]
    pub fn begin() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let (mut seen, mut last) = (Disturbance::default(), Instant::now());
            while !ends.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                let late = last.elapsed().saturating_sub(TICK);
                last = Instant::now();
                if late > HOLE {
                    seen.holes += 1;
                    seen.missing += late;
                    seen.longest = seen.longest.max(late);
                }
            }
            seen
        });
        Self { began: Instant::now(), stolen_s: stolen_seconds().unwrap_or_default(), over, thread }
    }

    /// Ends the watch and says what it saw.
    #[must_use]
    pub fn end(self) -> Disturbance {
        self.over.store(true, Ordering::Relaxed);
        let seen = self.thread.join().unwrap_or_default();
        let stolen_s = stolen_seconds().unwrap_or_default() - self.stolen_s;
        Disturbance { watched: self.began.elapsed(), stolen_s, ..seen }
    }
}

/// Runs a test in which sound or delays are measured, again if it fails: three times at most where the machine kept
/// time, and for five minutes at most where it did not, with rests between.
///
/// # Panics
/// As the last run does.
pub fn in_real_time(test: impl Fn()) {
    let (began, mut failures, mut rest) = (Instant::now(), 0, REST.0);
    loop {
        let watch = Watch::begin();
        let outcome = catch_unwind(AssertUnwindSafe(&test));
        let seen = watch.end();
        let Err(panic) = outcome else { return };
        failures += usize::from(seen.is_slight());
        eprintln!("{seen}");
        if failures == FAILURES || began.elapsed() + rest > PATIENCE {
            resume_unwind(panic);
        }
        eprintln!("once more after {} s", rest.as_secs());
        std::thread::sleep(rest);
        rest = (rest * 2).min(REST.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(longest_ms: u64, missing_ms: u64, stolen_s: f64) -> Disturbance {
        let ms = Duration::from_millis;
        Disturbance {
            watched: ms(20_000),
            holes: 2,
            missing: ms(missing_ms),
            longest: ms(longest_ms),
            stolen_s,
        }
    }

    #[test]
    fn a_machine_keeps_time_or_does_not() {
        assert!(seen(35, 60, 0.2).is_slight());
        for (longest_ms, missing_ms, stolen_s) in [(61, 61, 0.2), (35, 70, 0.2), (35, 60, 1.1)] {
            assert!(!seen(longest_ms, missing_ms, stolen_s).is_slight());
        }
    }

    #[test]
    fn a_watch_sees_its_own_time_pass() {
        let (watch, began) = (Watch::begin(), Instant::now());
        while began.elapsed() < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        let seen = watch.end();
        assert!(seen.watched >= Duration::from_millis(50), "{seen}");
        assert!(seen.missing <= seen.watched && seen.longest <= seen.missing, "{seen}");
    }
}
