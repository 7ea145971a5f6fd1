//! Deadlines of a session and the budget for frames from outside.

use std::time::{Duration, Instant};

use call_model::Cause;

use super::{Body, CallSession, EndedBy, Ending, Role, SessionState, SessionTimers};

/// Frames that may come at once, and per second afterwards. A call needs a few per second at most:
/// digits and candidates.
const BURST: u32 = 200;
const PER_SECOND: u32 = 50;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    pub(super) acknowledge: Option<Instant>,
    pub(super) ringing: Option<Instant>,
    pub(super) media: Option<Instant>,
    pub(super) resume: Option<Instant>,
    pub(super) request: Option<Instant>,
    pub(super) ending: Option<Instant>,
    pub(super) ping: Option<Instant>,
    pub(super) liveness: Option<Instant>,
}

impl Deadlines {
    pub(super) fn new(now: Instant, timers: &SessionTimers) -> Self {
        Self { ping: Some(now + timers.ping), liveness: Some(now + timers.liveness), ..Self::default() }
    }

    pub(super) fn clear_for_ending(&mut self, ending: Option<Instant>) {
        *self = Self { ending, ..Self::default() };
    }

    fn next(&self) -> Option<Instant> {
        [
            self.acknowledge,
            self.ringing,
            self.media,
            self.resume,
            self.request,
            self.ending,
            self.ping,
            self.liveness,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// A token bucket over received frames.
#[derive(Debug)]
pub(super) struct Budget {
    left: u32,
    filled: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now }
    }

    /// Takes one frame. Returns false when the budget is used up.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let step = Duration::from_secs(1) / PER_SECOND;
        let steps = now.saturating_duration_since(self.filled).as_micros() / step.as_micros();
        if steps > 0 {
            let gained = u32::try_from(steps).unwrap_or(u32::MAX).min(BURST);
            self.left = (self.left + gained).min(BURST);
            self.filled = if self.left == BURST { now } else { self.filled + step * gained };
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

fn due(deadline: &mut Option<Instant>, now: Instant) -> bool {
    deadline.take_if(|at| *at <= now).is_some()
}

impl CallSession {
    /// Returns when [`CallSession::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if due(&mut self.deadlines.ending, now) {
            self.become_done();
            return;
        }
        if due(&mut self.deadlines.resume, now) {
            self.lose(Cause::NETWORK_OUT_OF_ORDER);
            return;
        }
        if due(&mut self.deadlines.acknowledge, now) {
            self.expire(now, Cause::NO_USER_RESPONDING, Some(408), "the device did not respond");
        } else if due(&mut self.deadlines.ringing, now) {
            self.expire(now, Cause::NO_ANSWER_FROM_USER, Some(480), "no answer");
        } else if due(&mut self.deadlines.media, now) {
            let text = "media did not come up after the answer";
            self.expire(now, Cause::BEARER_CAPABILITY_NOT_AVAILABLE, None, text);
        } else if due(&mut self.deadlines.liveness, now) {
            self.expire(now, Cause::RECOVERY_ON_TIMER_EXPIRY, None, "the other side fell silent");
        }
        if due(&mut self.deadlines.ping, now) && !self.has_ended() {
            self.deadlines.ping = Some(now + self.ping_after());
            if self.attached && self.unacknowledged.is_empty() {
                self.request(now, Body::Ping);
            }
        }
        if due(&mut self.deadlines.request, now) && self.state != SessionState::Ending {
            // The stream takes bytes and nothing comes back: it is as good as closed.
            self.handle_closed(now);
        }
    }

    /// Moves the deadlines that wait for any sign of life.
    pub(super) fn heard(&mut self, now: Instant) {
        if !self.has_ended() {
            self.deadlines.ping = Some(now + self.ping_after());
            self.deadlines.liveness = Some(now + self.timers.liveness);
        }
    }

    /// Says whether somebody is waiting for the other side to answer, and would rather be told soon that
    /// it has died.
    fn is_awaiting_answer(&self) -> bool {
        self.role == Role::Caller && self.acknowledged && !self.is_answered() && !self.has_ended()
    }

    /// Returns how long the other side may be silent before it is pinged.
    pub(super) fn ping_after(&self) -> Duration {
        if self.is_awaiting_answer() { self.timers.alive } else { self.timers.ping }
    }

    /// Returns how long a request may wait for its acknowledgement before the stream counts as lost.
    pub(super) fn request_wait(&self) -> Duration {
        if self.is_awaiting_answer() { self.timers.alive_request } else { self.timers.request }
    }

    fn expire(&mut self, now: Instant, cause: Cause, sip_status: Option<u16>, text: &str) {
        self.end_locally(now, Ending { cause, sip_status, text: text.to_owned(), by: EndedBy::Timeout });
    }
}
