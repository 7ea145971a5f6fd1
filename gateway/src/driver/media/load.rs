//! What a media thread does about its load: the effort of Opus first, then no more calls.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use transcoder::{LoadControl, LoadDecision};

/// How often a thread that is below its full effort looks at itself at least, with calls or without.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// The load of one thread.
#[derive(Debug)]
pub(super) struct Load {
    control: LoadControl,
    decision: LoadDecision,
    configured: u8,
    /// When the present turn began.
    woke: Instant,
    /// How late the oldest tick was that was due by then.
    lateness: Duration,
}

impl Load {
    /// Builds the load of an idle thread. `complexity` is that of Opus without load, 0 to 10.
    pub(super) fn new(complexity: u8, now: Instant) -> Self {
        let control = LoadControl::new(complexity);
        let decision = control.decision();
        Self { control, decision, configured: complexity, woke: now, lateness: Duration::ZERO }
    }

    /// Begins a turn.
    pub(super) fn wake(&mut self, now: Instant) {
        (self.woke, self.lateness) = (now, Duration::ZERO);
    }

    /// Notes a tick that is served in this turn.
    pub(super) fn served(&mut self, due: Instant) {
        self.lateness = self.lateness.max(self.woke.saturating_duration_since(due));
    }

    /// Returns for how long the present turn has been busy.
    pub(super) fn busy(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.woke)
    }

    /// Ends a turn and tells others what is new. Returns the complexity of Opus if it is another from now on.
    pub(super) fn end_turn(&mut self, now: Instant, published: &PublishedLoad) -> Option<u8> {
        let decision = self.control.handle_turn(now, self.lateness, self.busy(now));
        let before = std::mem::replace(&mut self.decision, decision);
        if before != decision {
            self.publish(published);
        }
        if before.admits != decision.admits {
            tracing::warn!(admits = decision.admits, "a media thread takes calls or no longer does");
        }
        if before.complexity == decision.complexity {
            return None;
        }
        published.changes.fetch_add(1, Ordering::Relaxed);
        tracing::info!(complexity = decision.complexity, "a media thread changes the effort of Opus");
        Some(decision.complexity)
    }

    /// Returns the complexity of Opus at present.
    pub(super) fn complexity(&self) -> u8 {
        self.decision.complexity
    }

    /// Says whether all is as it is without load.
    pub(super) fn is_at_rest(&self) -> bool {
        self.decision.admits && self.decision.complexity == self.configured
    }

    /// Copies what was decided to where others read it.
    pub(super) fn publish(&self, to: &PublishedLoad) {
        to.complexity.store(self.decision.complexity, Ordering::Relaxed);
        to.refuses.store(!self.decision.admits, Ordering::Relaxed);
    }
}

/// The same, for others to read.
#[derive(Debug, Default)]
pub(crate) struct PublishedLoad {
    complexity: AtomicU8,
    refuses: AtomicBool,
    changes: AtomicU64,
}

impl PublishedLoad {
    /// Says whether the thread takes calls.
    pub(crate) fn admits(&self) -> bool {
        !self.refuses.load(Ordering::Relaxed)
    }

    /// Returns the complexity of Opus that it works with.
    pub(crate) fn complexity(&self) -> u8 {
        self.complexity.load(Ordering::Relaxed)
    }

    /// Returns how often that changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn refuse(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;

    /// Turns of 4 ms that are late by so much and busy for this share.
    fn run(
        (load, published): (&mut Load, &PublishedLoad),
        now: &mut Instant,
        seconds: u32,
        late: Duration,
        busy: f64,
    ) -> Vec<u8> {
        let turn = Duration::from_millis(4);
        let mut changes = Vec::new();
        for _ in 0..seconds * 250 {
            load.wake(*now);
            load.served(*now - late);
            load.served(*now);
            changes.extend(load.end_turn(*now + turn.mul_f64(busy), published));
            *now += turn;
        }
        changes
    }

    #[test]
    fn a_thread_that_stays_late_lowers_its_effort_and_then_takes_no_more_calls() {
        let mut now = Instant::now() + Duration::from_secs(1);
        let (mut load, published) = (Load::new(5, now), PublishedLoad::default());
        load.publish(&published);
        assert!(run((&mut load, &published), &mut now, 5, Duration::from_millis(2), 0.5).is_empty());
        assert!(load.is_at_rest() && published.admits() && published.complexity() == 5);
        assert_eq!(run((&mut load, &published), &mut now, 10, Duration::from_millis(30), 1.0), [3, 0]);
        assert!(!load.is_at_rest() && !published.admits() && published.complexity() == 0);
        let back = run((&mut load, &published), &mut now, 60, Duration::ZERO, 0.1);
        assert_eq!(back, [3, 5]);
        assert!(load.is_at_rest() && published.admits());
        assert_eq!(published.changes(), 4);
    }
}
