//! Session timers (RFC 4028): asked for where the trunk is configured so, honoured when the far side or
//! a proxy asks.

use std::time::{Duration, Instant};

use super::call::{Call, Phase};
use super::uas::Refused;
use crate::endpoint::api::EndedBy;
use crate::endpoint::core::Core;
use crate::trunk::TrunkConfig;
use crate::trunk::profile::Refresher;
use crate::wire::message::{Head, Name};
use call_model::Cause;

/// The shortest interval accepted, in seconds (RFC 4028 4).
const MIN_SE: u32 = 90;
/// The longest interval that is kept, in seconds: a day.
const MAX_SE: u32 = 86_400;

/// A refresh that failed is not tried again sooner.
const RETRY_MIN: Duration = Duration::from_secs(4);

/// What a trunk is configured to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) seconds: Option<u32>,
    refresher: Refresher,
}

impl Wish {
    pub(super) fn of(config: &TrunkConfig) -> Self {
        let seconds = config.session_expires.map(|seconds| seconds.clamp(MIN_SE, MAX_SE));
        Self { seconds, refresher: config.refresher }
    }

    /// Returns the line of an INVITE of ours (RFC 4028 7.1). In it, `uac` is us.
    pub(super) fn request_line(&self, seconds: u32) -> (&'static str, String) {
        let refresher = match self.refresher {
            Refresher::AsAsked => "",
            Refresher::Gateway => ";refresher=uac",
            Refresher::Peer => ";refresher=uas",
        };
        ("Session-Expires", format!("{seconds}{refresher}"))
    }
}

/// What was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Negotiated {
    seconds: u32,
    /// We refresh.
    ours: bool,
    /// The far side supports timers, so `Require: timer` may be said.
    supported: bool,
}

impl Negotiated {
    /// Returns the header lines of the 2xx. In it, `uas` is us. RFC 4028 9: whoever is to refresh, a
    /// far side that knows timers is told to mind this one.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let refresher = if self.ours { "uas" } else { "uac" };
        let mut lines = vec![("Session-Expires", format!("{};refresher={refresher}", self.seconds))];
        if self.supported {
            lines.push(("Require", "timer".to_owned()));
        }
        lines
    }
}

/// The running timer of a session.
#[derive(Debug)]
pub(super) struct SessionTimer {
    seconds: u32,
    ours: bool,
    /// When we refresh; `None` while a refresh is under way or it is not ours to do.
    refresh: Option<Instant>,
    /// When the session is over.
    expiry: Instant,
    /// The far side knows no timers: what nobody refreshed is not over.
    lenient: bool,
}

impl SessionTimer {
    /// Reads what a request asks for (RFC 4028 9).
    ///
    /// # Errors
    /// 422 for an interval that is too small.
    pub(super) fn of_request(head: &Head, wish: Wish) -> Result<Option<Negotiated>, Refused> {
        let supported = head.has_token(&Name::Supported, "timer") || head.has_token(&Name::Require, "timer");
        let Some((seconds, refresher)) = read(head) else {
            // RFC 4028 9: whoever answers may want a timer that the caller did not ask for.
            let ours = !supported || wish.refresher != Refresher::Peer;
            let seconds = wish.seconds.map(|seconds| seconds.max(min_se(head).unwrap_or(0)));
            return Ok(seconds.map(|seconds| Negotiated { seconds, ours, supported }));
        };
        if seconds < MIN_SE {
            return if supported { Err((422, vec![("Min-SE", MIN_SE.to_string())])) } else { Ok(None) };
        }
        let ours = match refresher.as_deref() {
            Some("uas") => true,
            None if wish.refresher == Refresher::Gateway => true,
            // A side without timer support cannot refresh: a proxy asked.
            _ => !supported,
        };
        Ok(Some(Negotiated { seconds: seconds.min(MAX_SE), ours, supported }))
    }

    /// Reads what a 2xx to our INVITE agreed (RFC 4028 7.2). In it, `uac` is us. Without a timer in it
    /// the far side knows none: if we `asked` for one, we refresh.
    pub(super) fn of_response(head: &Head, now: Instant, asked: Option<u32>) -> Option<Self> {
        let Some((seconds, refresher)) = read(head) else {
            let negotiated = |seconds| Negotiated { seconds, ours: true, supported: false };
            return asked.map(|seconds| Self::start(&negotiated(seconds), now));
        };
        let ours = refresher.as_deref() != Some("uas");
        // Below the floor the far side is at fault; its number is not worth a storm of refreshes.
        let seconds = seconds.clamp(MIN_SE, MAX_SE);
        Some(Self::start(&Negotiated { seconds, ours, supported: true }, now))
    }

    /// Starts the timer anew (RFC 4028 10): refresh at half, give up before the end.
    pub(super) fn start(negotiated: &Negotiated, now: Instant) -> Self {
        let (seconds, ours) = (negotiated.seconds, negotiated.ours);
        let margin = (seconds / 3).min(32);
        let refresh = ours.then(|| now + Duration::from_secs(u64::from(seconds / 2)));
        let expiry = now + Duration::from_secs(u64::from(seconds - margin));
        Self { seconds, ours, refresh, expiry, lenient: !negotiated.supported }
    }

    /// Returns the interval, which our own requests ask for again.
    pub(super) fn seconds(&self) -> u32 {
        self.seconds
    }

    pub(super) fn next(&self) -> Instant {
        self.refresh.map_or(self.expiry, |at| at.min(self.expiry))
    }

    /// Takes over a larger interval from a 422.
    pub(super) fn enlarge(&mut self, seconds: u32) {
        self.seconds = self.seconds.max(seconds);
    }

    /// Sets the next try of a refresh that failed: when the far side asked for it, else after half
    /// of the time left.
    pub(super) fn retry(&mut self, now: Instant, wait: Option<Duration>) {
        let left = self.expiry.saturating_duration_since(now);
        if self.ours && self.refresh.is_none() && left > RETRY_MIN {
            let wait = wait.unwrap_or(left / 2).max(RETRY_MIN).min(left - RETRY_MIN / 4);
            self.refresh = Some(now + wait);
        }
    }

    /// Returns the lines of our own refresh. In it, `uac` is us.
    pub(super) fn request_lines(&self) -> Vec<(&'static str, String)> {
        let refresher = if self.ours { "uac" } else { "uas" };
        vec![("Session-Expires", format!("{};refresher={refresher}", self.seconds))]
    }
}

/// Reads the Min-SE of a 422 (RFC 4028 5).
pub(super) fn min_se(head: &Head) -> Option<u32> {
    head.text(&Name::MinSe).and_then(|value| number(&value)).map(|seconds| seconds.min(MAX_SE))
}

fn read(head: &Head) -> Option<(u32, Option<String>)> {
    let value = head.text(&Name::SessionExpires)?;
    let seconds = number(&value)?;
    let refresher = value.split(';').skip(1).find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim().eq_ignore_ascii_case("refresher").then(|| value.trim().to_ascii_lowercase())
    });
    Some((seconds, refresher))
}

fn number(value: &str) -> Option<u32> {
    value.split(';').next()?.trim().parse().ok()
}

impl Call {
    /// Returns what the trunk is configured to ask for.
    pub(super) fn timer_wish(&self, core: &Core) -> Wish {
        let none = Wish { seconds: None, refresher: Refresher::default() };
        core.trunks.get(self.trunk).map_or(none, |trunk| Wish::of(&trunk.config))
    }

    /// Refreshes the session, or gives it up.
    pub(super) fn on_session_timer(&mut self, core: &mut Core) {
        let now = core.io.now;
        if !matches!(self.phase, Phase::Confirmed) {
            return;
        }
        let Some(session) = &mut self.session else { return };
        if session.expiry <= now && session.lenient {
            // Nobody promised a refresh, so its absence says nothing (RFC 4028 9): on to the next.
            let negotiated = Negotiated { seconds: session.seconds, ours: true, supported: false };
            *session = SessionTimer::start(&negotiated, now);
            self.modify.refresh_wanted = true;
            self.run_modify(core);
        } else if session.expiry <= now {
            let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
            self.hang_up(core, cause);
            self.end(core, cause, None, "session expired".to_owned(), EndedBy::Timeout);
        } else if session.refresh.is_some_and(|at| at <= now) {
            session.refresh = None;
            self.modify.refresh_wanted = true;
            self.run_modify(core);
        }
    }
}
