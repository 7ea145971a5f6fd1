//! What a media worker does about load: it lowers the complexity of Opus first, and refuses new calls only when
//! that has not been enough. Measured, not guessed from a number of calls.
//!
//! Lateness alone misleads: a machine that stood still for a moment makes every tick late, and the worker then
//! catches up with both hands full. Load is told from that by time: a worker that catches up gets less late, one
//! that has too much to do does not, over half a second and then another.

use std::time::{Duration, Instant};

/// Complexities below the one that is configured, dearest first.
const STEPS: [u8; 2] = [3, 0];
/// How long measurements are gathered before they count.
const PERIOD: Duration = Duration::from_millis(500);
/// Lateness that is never undercut in a period is load; below it the worker keeps time.
const LATE: Duration = Duration::from_millis(6);
/// A worker that catches up is less late at the end of a period by this share of it, or more.
const CATCHING_UP: f64 = 0.1;
/// Share of the time beyond which the next burst of packets makes ticks late.
const FULL: f32 = 0.9;
/// Share of the time that must be left after a step back up.
const ROOM: f32 = 0.75;
/// What a step up costs at most: from 3 to 5 the encoder costs 1.2 times as much, from 0 to 3 twice.
const STEP_UP_COST: f32 = 2.0;
const LAST_STEP_UP_COST: f32 = 1.3;
/// Periods of load in a row that lower the complexity by a step.
const LOWER_AFTER: u32 = 2;
/// Periods of load in a row at the lowest complexity that refuse calls: what a step gains shows by then.
const REFUSE_AFTER: u32 = 3;
/// Periods of room in a row after which calls are taken again: 2 s.
const ADMIT_AFTER: u32 = 4;
/// Periods of room in a row after which the complexity rises by a step: 5 s ...
const RAISE_AFTER: u32 = 10;
/// ... doubled with each rise that had to be taken back within [`REGRET`], up to this: 80 s.
const MOST_RAISE_AFTER: u32 = 160;
/// A rise that is taken back within this time was one too many: 30 s.
const REGRET: Duration = Duration::from_secs(30);

/// What a worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadDecision {
    /// Complexity for the Opus encoders of all its calls, 0 to 10.
    pub complexity: u8,
    /// Whether it takes new calls.
    pub admits: bool,
}

/// The load of one worker. Pure: measurements go in, a decision comes out. Never allocates.
///
/// Call [`handle_turn`](Self::handle_turn) at the end of every turn, idle ones too.
#[derive(Clone, Debug)]
pub struct LoadControl {
    configured: u8,
    /// How many steps the complexity is below the configured one.
    lowered: usize,
    refuses: bool,
    period: Option<Period>,
    /// Periods in a row that showed load, and that showed room.
    loaded: u32,
    roomy: u32,
    raise_after: u32,
    raised_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Period {
    began: Instant,
    first: Duration,
    least: Duration,
    last: Duration,
    busy: Duration,
}

/// What a period has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    /// The worker does not keep up, or is about not to.
    Load,
    /// It was late and is getting less so, or the period is no measure.
    Nothing,
    /// It keeps time, and was busy for this share of it.
    Time(f32),
}

impl LoadControl {
    /// Builds the control of an idle worker. `complexity` is the one to use without load, 0 to 10.
    pub fn new(complexity: u8) -> Self {
        Self {
            configured: complexity,
            lowered: 0,
            refuses: false,
            period: None,
            loaded: 0,
            roomy: 0,
            raise_after: RAISE_AFTER,
            raised_at: None,
        }
    }

    /// Takes the measurements of a turn that ended at `now`: how late the oldest tick was that was due when the
    /// turn began (zero if none was late), and for how long the worker has worked since the turn before ended.
    pub fn handle_turn(&mut self, now: Instant, lateness: Duration, busy: Duration) -> LoadDecision {
        let period = self.period.get_or_insert(Period {
            began: now,
            first: lateness,
            least: lateness,
            last: lateness,
            busy: Duration::ZERO,
        });
        period.least = period.least.min(lateness);
        period.last = lateness;
        period.busy += busy;
        let lasted = now.saturating_duration_since(period.began);
        if lasted >= PERIOD {
            let shown = period.shown(lasted);
            // The next period begins where this one ends, so that a jump between two is seen.
            self.period = Some(Period {
                began: now,
                first: lateness,
                least: lateness,
                last: lateness,
                busy: Duration::ZERO,
            });
            self.take(now, shown);
        }
        self.decision()
    }

    /// Returns the decision that holds.
    pub fn decision(&self) -> LoadDecision {
        LoadDecision { complexity: self.complexity(self.lowered), admits: !self.refuses }
    }

    /// Returns the complexity some steps below the configured one.
    fn complexity(&self, lowered: usize) -> u8 {
        let mut below = STEPS.into_iter().filter(|&step| step < self.configured);
        lowered.checked_sub(1).and_then(|n| below.nth(n)).unwrap_or(self.configured)
    }

    fn steps(&self) -> usize {
        STEPS.into_iter().filter(|&step| step < self.configured).count()
    }

    fn take(&mut self, now: Instant, shown: Shown) {
        let step_up = if self.lowered > 1 { STEP_UP_COST } else { LAST_STEP_UP_COST };
        match shown {
            Shown::Load => {
                self.roomy = 0;
                self.loaded += 1;
            }
            Shown::Nothing => (self.loaded, self.roomy) = (0, 0),
            Shown::Time(busy) => {
                self.loaded = 0;
                let room = if self.lowered > 0 && !self.refuses { busy * step_up } else { busy };
                self.roomy = if room < ROOM { self.roomy + 1 } else { 0 };
            }
        }
        if self.lowered < self.steps() && self.loaded >= LOWER_AFTER {
            self.lowered += 1;
            self.loaded = 0;
            let regretted =
                self.raised_at.take().is_some_and(|at| now.saturating_duration_since(at) < REGRET);
            self.raise_after =
                if regretted { (self.raise_after * 2).min(MOST_RAISE_AFTER) } else { RAISE_AFTER };
        } else if self.lowered == self.steps() && self.loaded >= REFUSE_AFTER {
            self.refuses = true;
        }
        if self.refuses && self.roomy >= ADMIT_AFTER {
            self.refuses = false;
            self.roomy = 0;
        } else if !self.refuses && self.lowered > 0 && self.roomy >= self.raise_after {
            self.lowered -= 1;
            self.roomy = 0;
            self.raised_at = Some(now);
        }
    }
}

impl Period {
    fn shown(&self, lasted: Duration) -> Shown {
        let busy = (self.busy.as_secs_f64() / lasted.as_secs_f64()).min(1.0) as f32;
        // A turn that lasted longer than all a period should is one stall, and no measure of load.
        if lasted > 2 * PERIOD {
            return Shown::Nothing;
        }
        let caught_up = self.first.as_secs_f64() - self.last.as_secs_f64();
        if caught_up >= CATCHING_UP * lasted.as_secs_f64() {
            Shown::Nothing
        } else if self.least >= LATE || busy >= FULL {
            Shown::Load
        } else if self.last >= LATE {
            Shown::Nothing
        } else {
            Shown::Time(busy)
        }
    }
}

#[cfg(test)]
mod tests {
    // Some first moment is needed; all time after is added to it.
    #![allow(clippy::disallowed_methods)]
    use super::*;

    const TURN: Duration = Duration::from_millis(4);
    /// Ticks later than this are given up.
    const GIVEN_UP: Duration = Duration::from_millis(200);

    /// A worker whose calls cost what they do at each complexity, with a turn every 4 ms.
    struct Worker {
        control: LoadControl,
        epoch: Instant,
        /// When the next turn is due, and when the worker is free.
        due: Duration,
        free: Duration,
        calls: u32,
        worst: Duration,
        changes: u32,
        decision: LoadDecision,
    }

    impl Worker {
        fn new(complexity: u8, calls: u32) -> Self {
            let control = LoadControl::new(complexity);
            Self {
                decision: control.decision(),
                control,
                epoch: Instant::now(),
                due: Duration::ZERO,
                free: Duration::ZERO,
                calls,
                worst: Duration::ZERO,
                changes: 0,
            }
        }

        fn load(&self) -> f64 {
            f64::from(self.calls) * cost(self.decision.complexity) / 20_000.0
        }

        fn turn(&mut self) {
            let begins = self.due.max(self.free);
            let lateness = begins - self.due;
            self.due += TURN;
            if lateness > GIVEN_UP {
                self.due += lateness - lateness / 20;
            }
            let busy = TURN.mul_f64(self.load());
            self.free = begins + busy;
            let decision = self.control.handle_turn(self.epoch + self.free, lateness, busy);
            self.changes += u32::from(decision.complexity != self.decision.complexity);
            self.decision = decision;
            self.worst = self.worst.max(lateness);
        }

        fn run(&mut self, seconds: f64) {
            let until = self.due + Duration::from_secs_f64(seconds);
            while self.due < until {
                self.turn();
            }
        }

        fn stall(&mut self, time: Duration) {
            self.free = self.free.max(self.due) + time;
        }
    }

    /// Microseconds that a call costs in 20 ms.
    fn cost(complexity: u8) -> f64 {
        match complexity {
            0 => 70.0,
            1..=3 => 105.0,
            _ => 120.0,
        }
    }

    #[test]
    fn rising_load_lowers_complexity_first_and_refuses_calls_last() {
        for calls_a_second in [1, 5, 20] {
            let mut worker = Worker::new(5, 100);
            let mut seen = vec![worker.decision];
            for _ in 0..600 / calls_a_second {
                worker.run(1.0);
                if worker.decision.admits {
                    worker.calls += calls_a_second;
                }
                if seen.last() != Some(&worker.decision) {
                    seen.push(worker.decision);
                }
            }
            let order = [(5, true), (3, true), (0, true), (0, false)];
            let order = order.map(|(complexity, admits)| LoadDecision { complexity, admits });
            assert_eq!(seen, order, "{calls_a_second} calls a second");
            // 166 calls at complexity 5 are all that a core does; at 0 they are 285.
            assert!((245..300).contains(&worker.calls), "{} calls", worker.calls);
            if calls_a_second <= 5 {
                assert!(worker.worst < Duration::from_millis(20), "{:?} late", worker.worst);
            }
        }
    }

    #[test]
    fn quality_and_admission_return_when_the_load_has_gone() {
        let mut worker = Worker::new(5, 280);
        worker.run(10.0);
        assert_eq!(worker.decision, LoadDecision { complexity: 0, admits: false });
        worker.calls = 150;
        worker.run(4.0);
        assert!(worker.decision.admits);
        worker.calls = 60;
        worker.run(12.0);
        assert_eq!(worker.decision, LoadDecision { complexity: 5, admits: true });
    }

    #[test]
    fn a_machine_that_stands_still_for_400_ms_is_no_load() {
        for calls in [20, 80, 120, 135, 145] {
            // What is shorter is caught up; of what is longer the driver gives up the oldest ticks.
            for stall in [100, 150, 190, 400] {
                let mut worker = Worker::new(5, calls);
                worker.run(5.0);
                for _ in 0..5 {
                    worker.stall(Duration::from_millis(stall));
                    for _ in 0..1_500 {
                        worker.turn();
                        assert_eq!(
                            worker.decision,
                            LoadDecision { complexity: 5, admits: true },
                            "{calls} calls"
                        );
                    }
                }
                assert!(worker.worst >= Duration::from_millis(stall - 10), "the stall was seen");
            }
        }
    }

    #[test]
    fn at_a_steady_load_the_complexity_comes_to_rest() {
        for calls in (20..300).step_by(10) {
            let mut worker = Worker::new(5, calls);
            worker.run(60.0);
            worker.changes = 0;
            worker.run(600.0);
            assert!(worker.changes <= 6, "{calls} calls: {} changes in ten minutes", worker.changes);
            assert!(
                worker.decision.admits || worker.load() > 0.85,
                "{calls} calls refused at {}",
                worker.load()
            );
        }
    }

    #[test]
    fn the_ladder_begins_at_what_is_configured() {
        for (configured, lowest) in [(10, 0), (5, 0), (3, 0), (2, 0), (0, 0)] {
            let mut worker = Worker::new(configured, 10);
            worker.run(5.0);
            assert_eq!(worker.decision, LoadDecision { complexity: configured, admits: true });
            worker.calls = 320;
            worker.run(20.0);
            assert_eq!(worker.decision, LoadDecision { complexity: lowest, admits: false }, "{configured}");
        }
    }
}
