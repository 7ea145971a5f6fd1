//! Our own re-INVITEs: hold, resume, session refresh (RFC 3261 14.1); a refresh goes by UPDATE where
//! the far side takes it (RFC 4028 7.4).

use std::time::{Duration, Instant};

use bytes::Bytes;
use call_model::Cause;

use super::Dialog;
use super::call::{Call, Phase, acknowledge};
use super::session_timer::{SessionTimer, min_se};
use crate::cause::cause_of_response;
use crate::endpoint::api::{CommandError, EndedBy, Event};
use crate::endpoint::core::Core;
use crate::sdp::State;
use crate::transaction::client::{ClientKey, Outcome, Upcall};
use crate::wire::message::{Content, Method, Name, Response, content};

/// What we want to change and what is under way.
#[derive(Debug, Default)]
pub(crate) struct Modify {
    /// As last commanded.
    pub(super) hold_wanted: bool,
    /// As last agreed.
    hold_agreed: bool,
    pub(super) refresh_wanted: bool,
    pending: Option<Pending>,
    /// After 491 or a lost connection.
    pub(super) retry_at: Option<Instant>,
    failures: u8,
    /// We chose the Call-ID, which decides who waits longer after glare (RFC 3261 14.1).
    pub(super) owns_call_id: bool,
    /// The least session interval a 422 of this dialog asked for.
    min_se: Option<u32>,
}

#[derive(Debug)]
struct Pending {
    key: ClientKey,
    hold: bool,
    /// A re-INVITE with our offer, not an UPDATE without one.
    offers: bool,
}

/// How often one change is tried.
const MAX_TRIES: u8 = 5;

impl Modify {
    pub(super) fn pending_key(&self) -> Option<ClientKey> {
        self.pending.as_ref().map(|p| p.key)
    }

    /// Says whether a re-INVITE of ours is under way.
    pub(super) fn offers(&self) -> bool {
        self.pending.as_ref().is_some_and(|p| p.offers)
    }
}

impl Call {
    /// Carries out `Hold`.
    pub(crate) fn hold(&mut self, core: &mut Core, on: bool) -> Result<(), CommandError> {
        if matches!(self.phase, Phase::Closing { .. }) {
            return Err(CommandError::WrongState);
        }
        self.modify.hold_wanted = on;
        self.modify.failures = 0;
        self.run_modify(core);
        self.arm(core);
        Ok(())
    }

    /// Sends a re-INVITE if something is wanted and nothing stands in the way.
    pub(super) fn run_modify(&mut self, core: &mut Core) {
        let modify = &self.modify;
        let wanted = modify.hold_wanted != modify.hold_agreed || modify.refresh_wanted;
        let free = matches!(self.phase, Phase::Confirmed)
            && modify.pending.is_none()
            && modify.retry_at.is_none()
            && self.unacked.is_none()
            && self.offer_answer.state() == State::Stable;
        if !wanted || !free {
            return;
        }
        self.challenges = 0;
        if modify.hold_wanted == modify.hold_agreed && self.updates {
            self.send_modify(core, None);
            return;
        }
        let (Some(at), Some(local)) = (core.trunks.get(self.trunk), self.local) else { return };
        let direction = self.wanted_direction(core);
        let Ok(offer) = self.offer_answer.make_offer(local, &at.policy, direction) else { return };
        self.send_modify(core, Some(Bytes::from(offer)));
    }

    /// Sends a re-INVITE with an offer, or an UPDATE without.
    fn send_modify(&mut self, core: &mut Core, offer: Option<Bytes>) {
        let mut lines = self.session.as_ref().map(SessionTimer::request_lines).unwrap_or_default();
        // RFC 4028 7.4: from the first 422 on.
        if !lines.is_empty() {
            lines.extend(self.modify.min_se.map(|seconds| ("Min-SE", seconds.to_string())));
        }
        let hold = self.modify.hold_wanted;
        let (method, offers) = if offer.is_some() { (Method::Invite, true) } else { (Method::Update, false) };
        let key = self.send_request(core, method, lines, offer.as_deref());
        self.modify.pending = Some(Pending { key, hold, offers });
    }

    /// Sends the request under way once more: with credentials, or a larger interval.
    fn repeat_modify(&mut self, core: &mut Core) {
        let offer = self.offer_answer.local_body().filter(|_| self.modify.offers());
        let offer = offer.map(Bytes::copy_from_slice);
        self.send_modify(core, offer);
    }

    pub(super) fn on_modify_timer(&mut self, core: &mut Core) {
        if self.modify.retry_at.is_some_and(|at| at <= core.io.now) {
            self.modify.retry_at = None;
            self.run_modify(core);
        }
    }

    /// Leaves a re-INVITE under way to itself, because the call ends.
    pub(super) fn drop_modify(&mut self, core: &mut Core) {
        self.modify.retry_at = None;
        if let Some(pending) = self.modify.pending.take() {
            core.clients.orphan(&mut core.io, pending.key);
        }
    }

    pub(super) fn on_modify_outcome(&mut self, core: &mut Core, upcall: Upcall) {
        match &upcall.outcome {
            Outcome::Response(response, _) if response.status < 200 => {}
            Outcome::Response(response, _) if response.status < 300 => {
                self.on_modify_success(core, response, &upcall);
            }
            Outcome::Response(response, source) => {
                let status = response.status;
                match status {
                    401 | 407 if self.take_challenge(core, response, *source) => self.repeat_modify(core),
                    422 if self.modify.failures < MAX_TRIES && self.session.is_some() => {
                        self.modify.failures += 1;
                        self.modify.min_se = min_se(&response.head).max(self.modify.min_se);
                        if let (Some(session), Some(seconds)) = (&mut self.session, self.modify.min_se) {
                            session.enlarge(seconds);
                        }
                        self.repeat_modify(core);
                    }
                    // RFC 3261 14.1: wait, the owner of the Call-ID longer, in units of 10 ms.
                    491 => {
                        let (from, to) = if self.modify.owns_call_id { (210, 400) } else { (0, 200) };
                        let wait = Duration::from_millis(core.io.random.between(from, to) * 10);
                        self.retry_modify(core, wait);
                    }
                    // It said otherwise in its Allow.
                    405 | 501 if !self.modify.offers() => {
                        self.updates = false;
                        self.modify.pending = None;
                        self.run_modify(core);
                    }
                    // RFC 3261 12.2.1.2: the dialog is gone.
                    408 | 481 => {
                        let reasons = response.head.reasons();
                        let cause = cause_of_response(status, reasons.iter().map(String::as_str));
                        self.drop_dialog(core, cause, Some(status), &response.reason, EndedBy::Far);
                    }
                    _ => self.abandon_modify(core, retry_after(response)),
                }
            }
            Outcome::Timeout => {
                let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
                let text =
                    if self.modify.offers() { "no answer to re-INVITE" } else { "no answer to UPDATE" };
                self.drop_dialog(core, cause, None, text, EndedBy::Timeout);
            }
            Outcome::TransportError => {
                self.leave_tcp(core, &upcall.path);
                self.retry_modify(core, Duration::from_secs(2));
            }
        }
    }

    fn on_modify_success(&mut self, core: &mut Core, response: &Response, upcall: &Upcall) {
        let Some(pending) = self.modify.pending.take() else { return };
        self.dialog.refresh_target(&response.head);
        self.note_connected(core, &response.head);
        if pending.offers {
            let acked = Dialog { cseq: response.head.cseq, ..self.dialog.clone() };
            acknowledge(core, upcall.key, &acked, None);
            self.note(core, false, "ACK".to_owned());
        }
        self.modify.refresh_wanted = false;
        self.modify.failures = 0;
        self.modify.hold_agreed = pending.hold;
        if self.session.is_some() {
            self.session = SessionTimer::of_response(&response.head, core.io.now);
        }
        if !pending.offers {
            return self.run_modify(core);
        }
        let Some(at) = core.trunks.get(self.trunk) else { return };
        let outcome = match content(&response.head, &response.body) {
            Content::Sdp(body) => {
                self.offer_answer.accept_answer(&body, &at.policy).map_err(|e| (e.cause(), e.to_string()))
            }
            _ => Err((Cause::PROTOCOL_ERROR, "no answer in the 2xx to re-INVITE".to_owned())),
        };
        match outcome {
            Ok(negotiated) => {
                for repair in negotiated.repairs.iter() {
                    core.io.counters.repair(repair.as_str());
                }
                if negotiated.changed {
                    let (call, media) = (self.id, negotiated.media);
                    core.events.push_back(Event::Media { call, media, early: false });
                }
                self.run_modify(core);
            }
            Err((cause, text)) => {
                self.offer_answer.withdraw_offer();
                self.hang_up(core, cause);
                self.end(core, cause, Some(response.status), text, EndedBy::Local);
            }
        }
    }

    /// Forgets the request under way, and its offer. An offer that is open beside an UPDATE is the
    /// one of a 2xx.
    fn withdraw(&mut self) {
        if self.modify.pending.take().is_some_and(|pending| pending.offers) {
            self.offer_answer.withdraw_offer();
        }
    }

    fn retry_modify(&mut self, core: &mut Core, wait: Duration) {
        self.modify.failures += 1;
        self.withdraw();
        if self.modify.failures >= MAX_TRIES {
            self.abandon_modify(core, None);
        } else {
            self.modify.retry_at = Some(core.io.now + wait);
        }
    }

    /// The far side refused: the session goes on as it was (RFC 3261 14.1). Whoever wanted to hold
    /// is told how it is; a refresh is tried again while there is time.
    fn abandon_modify(&mut self, core: &mut Core, wait: Option<Duration>) {
        self.withdraw();
        let hold_refused = self.modify.hold_wanted != self.modify.hold_agreed;
        self.modify.hold_wanted = self.modify.hold_agreed;
        self.modify.refresh_wanted = false;
        self.modify.failures = 0;
        if let Some(session) = &mut self.session {
            session.retry(core.io.now, wait);
        }
        if hold_refused && let Some(media) = self.offer_answer.media() {
            let (call, media) = (self.id, media.clone());
            core.events.push_back(Event::Media { call, media, early: false });
        }
    }

    /// The dialog is gone, and the call with it.
    pub(super) fn drop_dialog(
        &mut self,
        core: &mut Core,
        cause: Cause,
        status: Option<u16>,
        text: &str,
        by: EndedBy,
    ) {
        self.modify.pending = None;
        self.offer_answer.withdraw_offer();
        self.hang_up(core, cause);
        self.end(core, cause, status, text.to_owned(), by);
    }
}

/// Reads Retry-After (RFC 3261 20.33): seconds, then maybe a comment and parameters.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.head.text(&Name::RetryAfter)?;
    let seconds = value.trim().split(|c: char| !c.is_ascii_digit()).next()?;
    seconds.parse::<u32>().ok().map(|seconds| Duration::from_secs(u64::from(seconds)))
}
