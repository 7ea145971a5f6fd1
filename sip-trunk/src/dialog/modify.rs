//! Our own re-INVITEs: hold, resume, session refresh (RFC 3261 14.1); a refresh goes by UPDATE where
//! the far side takes it (RFC 4028 7.4); T.38 and back to audio (RFC 3264 8). Before the answer there is UPDATE alone (RFC 3311 5.1).

use std::time::{Duration, Instant};

use bytes::Bytes;
use call_model::{Cause, LegMedia};

use super::Dialog;
use super::call::{Call, Phase, acknowledge};
use super::session_timer::{SessionTimer, min_se};
use crate::cause::{cause_of_response, reason_value, status_of_cause};
use crate::endpoint::api::{CommandError, EndedBy, Event};
use crate::endpoint::core::Core;
use crate::sdp::State;
use crate::transaction::client::{ClientKey, Outcome, Upcall};
use crate::trunk::profile::Modify as ModifyBy;
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
    pub(super) min_se: Option<u32>,
    /// The early dialog, by its tag, that the UPDATEs of a call not answered yet go to.
    pub(super) fork: Option<String>,
    /// The early dialog stands in for that of the call.
    pub(super) in_fork: bool,
    /// Its media is to be told of, changed or not.
    pub(super) tell: bool,
}

#[derive(Debug)]
struct Pending {
    key: ClientKey,
    hold: bool,
    /// INVITE or UPDATE.
    method: Method,
    /// It carries our offer.
    offers: bool,
}

/// How often one change is tried.
const MAX_TRIES: u8 = 5;

impl Modify {
    pub(super) fn pending_key(&self) -> Option<ClientKey> {
        self.pending.as_ref().map(|p| p.key)
    }

    /// Says whether a hold is wanted, and nothing is under way.
    pub(super) fn may_begin(&self) -> bool {
        self.hold_wanted != self.hold_agreed && self.pending.is_none() && self.retry_at.is_none()
    }

    /// Says whether an offer of ours is under way.
    pub(super) fn offers(&self) -> bool {
        self.pending.as_ref().is_some_and(|p| p.offers)
    }

    /// Something else is wanted: what was tried before does not count.
    pub(super) fn begin_anew(&mut self) {
        self.failures = 0;
    }

    /// Says whether an UPDATE of ours is under way.
    fn updates(&self) -> bool {
        self.pending.as_ref().is_some_and(|p| p.method == Method::Update)
    }

    /// Forgets what was agreed in early dialogs, unless it is that of `tag` which goes on.
    pub(super) fn leave_early(&mut self, tag: &str) -> Option<ClientKey> {
        if self.fork.take()? == tag {
            return None;
        }
        self.hold_agreed = false;
        self.retry_at = None;
        self.pending.take().map(|pending| pending.key)
    }
}

impl Call {
    /// Carries out `Hold`.
    pub(crate) fn hold(&mut self, core: &mut Core, on: bool) -> Result<(), CommandError> {
        if matches!(self.phase, Phase::Closing { .. }) {
            return Err(CommandError::WrongState);
        }
        self.modify.hold_wanted = on;
        self.modify.begin_anew();
        self.run_modify(core);
        self.arm(core);
        Ok(())
    }

    /// Sends a re-INVITE if something is wanted and nothing stands in the way.
    pub(super) fn run_modify(&mut self, core: &mut Core) {
        let modify = &self.modify;
        // Facsimile is not held: a hold waits for audio, and goes out with it.
        let holds = modify.hold_wanted != modify.hold_agreed && self.images.wanted.is_none();
        let images = self.images_differ();
        let wanted = holds || images || modify.refresh_wanted;
        let early = match &self.phase {
            Phase::Confirmed => false,
            // In an early dialog, after the exchange of the INVITE (RFC 3311 5.1).
            Phase::Outgoing(_) => return self.run_early_modify(core),
            _ if self.updates && self.may_take_early_offer() => true,
            _ => return,
        };
        let free = modify.pending.is_none()
            && modify.retry_at.is_none()
            && self.unacked.is_none()
            && self.offer_answer.state() == State::Stable;
        if !wanted || !free {
            return;
        }
        self.challenges = 0;
        if !holds && !images && self.updates {
            self.send_modify(core, Method::Update, None);
            return;
        }
        let by_update = core.trunks.get(self.trunk).is_some_and(|t| t.config.modify == ModifyBy::Update);
        // The far side may have to ask whether it takes T.38: UPDATE is answered at once (RFC 3311 5.2).
        let by_update = by_update && self.updates && !images && self.offer_answer.carries_audio();
        let method = if early || by_update { Method::Update } else { Method::Invite };
        if let Some(offer) = self.next_offer(core, holds) {
            self.send_modify(core, method, Some(offer));
        }
    }

    /// Makes the offer for a change, or repeats the last description for a refresh (RFC 4028 7.4).
    pub(super) fn next_offer(&mut self, core: &Core, holds: bool) -> Option<Bytes> {
        let (at, local) = (core.trunks.get(self.trunk)?, self.local?);
        if let Some(attributes) = &self.images.wanted {
            return self.offer_answer.make_image_offer(local, &at.policy, attributes).ok().map(Bytes::from);
        }
        if !holds && let Ok(same) = self.offer_answer.repeat_offer(local) {
            return Some(Bytes::from(same));
        }
        let direction = self.wanted_direction(core);
        self.offer_answer.make_offer(local, &at.policy, direction).ok().map(Bytes::from)
    }

    /// Sends a re-INVITE with an offer, or an UPDATE with or without one.
    pub(super) fn send_modify(&mut self, core: &mut Core, method: Method, offer: Option<Bytes>) {
        let mut lines = self.session.as_ref().map(SessionTimer::request_lines).unwrap_or_default();
        // RFC 4028 7.4: from the first 422 on.
        if !lines.is_empty() {
            lines.extend(self.modify.min_se.map(|seconds| ("Min-SE", seconds.to_string())));
        }
        let image = self.images.wanted.is_some();
        let hold = if image { self.modify.hold_agreed } else { self.modify.hold_wanted };
        let key = self.send_request(core, method, lines, offer.as_deref());
        self.modify.pending = Some(Pending { key, hold, method, offers: offer.is_some() });
    }

    /// Sends the request under way once more: with credentials, or a larger interval.
    fn repeat_modify(&mut self, core: &mut Core) {
        let offer = self.offer_answer.local_body().filter(|_| self.modify.offers());
        let offer = offer.map(Bytes::copy_from_slice);
        let method = self.modify.pending.as_ref().map_or(Method::Invite, |pending| pending.method);
        self.send_modify(core, method, offer);
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
                    405 | 501 if self.modify.updates() => {
                        self.updates = false;
                        self.withdraw();
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
                    if self.modify.updates() { "no answer to UPDATE" } else { "no answer to re-INVITE" };
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
        if pending.method == Method::Invite {
            let acked = Dialog { cseq: response.head.cseq, ..self.dialog.clone() };
            acknowledge(core, upcall.key, &acked, None);
            self.note(core, false, "ACK".into());
        }
        self.modify.refresh_wanted = false;
        self.modify.failures = 0;
        self.modify.hold_agreed = pending.hold;
        let asked = self.session.as_ref().map(SessionTimer::seconds);
        self.session = SessionTimer::of_response(&response.head, core.io.now, asked);
        if !pending.offers {
            return self.run_modify(core);
        }
        let outcome = match content(&response.head, &response.body) {
            Content::Sdp(body) => self.take_answer(core, &body),
            _ => Err((Cause::PROTOCOL_ERROR, "no answer in the 2xx to our offer".to_owned())),
        };
        match outcome {
            Ok(audio) => {
                if let Some((media, true)) = audio {
                    self.tell_media(core, media);
                }
                self.run_modify(core);
            }
            Err((cause, text)) => self.drop_dialog(core, cause, Some(response.status), &text, EndedBy::Local),
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
        self.settle_for_agreed(core);
        if let Some(session) = &mut self.session {
            session.retry(core.io.now, wait);
        }
        if hold_refused && let Some(media) = self.offer_answer.media() {
            self.tell_media(core, media.clone());
        }
    }

    /// Tells of media that changed; an early dialog of a call we placed does so itself.
    fn tell_media(&mut self, core: &mut Core, media: LegMedia) {
        let early = match self.phase {
            Phase::Outgoing(_) => {
                self.modify.tell = true;
                return;
            }
            Phase::Incoming(_) => true,
            _ => false,
        };
        let (call, signalling) = (self.id, self.signalling);
        core.events.push_back(Event::Media { call, media, early, signalling });
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
        match self.phase {
            // The INVITE goes on, and what it comes to will say. Nothing more is tried before.
            Phase::Outgoing(_) => self.updates = false,
            Phase::Incoming(_) => {
                let status = status_of_cause(cause);
                self.refuse(core, status, vec![("Reason", reason_value(cause))]);
                self.end(core, cause, Some(status), text.to_owned(), by);
            }
            _ => {
                self.hang_up(core, cause);
                self.end(core, cause, status, text.to_owned(), by);
            }
        }
    }
}

/// Reads Retry-After (RFC 3261 20.33): seconds, then maybe a comment and parameters.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.head.text(&Name::RetryAfter)?;
    let seconds = value.trim().split(|c: char| !c.is_ascii_digit()).next()?;
    seconds.parse::<u32>().ok().map(|seconds| Duration::from_secs(u64::from(seconds)))
}
