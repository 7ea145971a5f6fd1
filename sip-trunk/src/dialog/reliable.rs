//! Reliable provisional responses to calls we receive (RFC 3262 3): repeated until their PRACK, one
//! at a time, and the 2xx after those that carry a description.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use call_model::{Cause, Direction};

use super::call::{Call, Phase};
use super::in_dialog::take_offer;
use super::uas::{Refused, explain, unsupported_media};
use crate::cause::{reason_value, status_of_cause};
use crate::endpoint::api::{CommandError, EndedBy, Event, LocalMedia};
use crate::endpoint::core::{Core, Extra};
use crate::sdp::{NegotiationError, State};
use crate::trunk::Reliable;
use crate::wire::message::{Content, Head, Name, Request, content};

/// The reliable provisional responses to one INVITE.
#[derive(Debug)]
pub(super) struct Provisionals {
    /// The RSeq of the next.
    rseq: u32,
    unacked: Option<Unacked>,
    /// What waits for the PRACK of the one before: each kind once.
    queue: VecDeque<Wanted>,
    /// The 2xx waits for a PRACK.
    pub(super) answer: Option<LocalMedia>,
    /// Offer and answer of the INVITE have passed reliably.
    pub(super) settled: bool,
}

#[derive(Debug)]
struct Unacked {
    rseq: u32,
    carries: Carries,
    interval: Duration,
    next: Instant,
    expires: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Nothing,
    Offer,
    Answer,
}

/// A provisional response that our user asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Ringing,
    Progress(LocalMedia),
}

impl Provisionals {
    /// Decides whether the provisional responses to an INVITE are reliable.
    ///
    /// # Errors
    /// 421: the trunk insists and the sender of the INVITE cannot.
    pub(super) fn of_invite(core: &mut Core, head: &Head, trunk: usize) -> Result<Option<Self>, Refused> {
        let required = head.has_token(&Name::Require, "100rel");
        let supported = required || head.has_token(&Name::Supported, "100rel");
        let wanted = match core.reliable(trunk) {
            Reliable::Off => false,
            Reliable::Supported => required,
            // RFC 3261 21.4.16.
            Reliable::Required if !supported => return Err((421, vec![("Require", "100rel".to_owned())])),
            Reliable::Required => true,
        };
        if !wanted {
            return Ok(None);
        }
        // RFC 3262 3: begins at random in the lower half, and never wraps.
        let rseq = core.io.random.between(1, (1 << 31) - 1) as u32;
        let (unacked, queue) = (None, VecDeque::new());
        Ok(Some(Self { rseq, unacked, queue, answer: None, settled: false }))
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.unacked.as_ref().map(|unacked| unacked.next.min(unacked.expires))
    }

    /// Says whether the 2xx must wait: a description is out and not acknowledged (RFC 3262 3).
    pub(super) fn holds_answer(&self) -> bool {
        self.unacked.as_ref().is_some_and(|unacked| unacked.carries != Carries::Nothing)
    }

    /// Returns the RSeq whose PRACK may come after the final response.
    pub(super) fn open_rseq(&self) -> Option<u32> {
        self.unacked.as_ref().map(|unacked| unacked.rseq)
    }
}

/// Reads RAck (RFC 3262 7.2): the RSeq and the CSeq of the response it acknowledges.
fn rack(head: &Head) -> Option<(u32, u32)> {
    let value = head.text(&Name::RAck)?;
    let mut parts = value.split_whitespace();
    let numbers = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (parts.next()? == "INVITE").then_some(numbers)
}

impl Call {
    /// Sends a reliable provisional response, now or after the PRACK of the one before.
    pub(super) fn want_provisional(&mut self, core: &mut Core, wanted: Wanted) -> Result<(), CommandError> {
        let Phase::Incoming(incoming) = &mut self.phase else { return Err(CommandError::WrongState) };
        let Some(reliable) = &mut incoming.reliable else { return Err(CommandError::WrongState) };
        if reliable.answer.is_some() {
            return Err(CommandError::WrongState);
        }
        if reliable.unacked.is_none() {
            self.send_wanted(core, wanted);
        } else if !reliable
            .queue
            .iter()
            .any(|queued| std::mem::discriminant(queued) == std::mem::discriminant(&wanted))
        {
            reliable.queue.push_back(wanted);
        }
        Ok(())
    }

    fn send_wanted(&mut self, core: &mut Core, wanted: Wanted) {
        let Phase::Incoming(incoming) = &self.phase else { return };
        let settled = incoming.reliable.as_ref().is_some_and(|reliable| reliable.settled);
        match (wanted, incoming.has_offer) {
            // RFC 3261 13.2.1: the first reliable response must hold our offer, which a 180 has no
            // media for. The 183 or the 2xx will.
            (Wanted::Ringing, false) if !settled => {}
            (Wanted::Ringing, _) => self.send_reliable(core, 180, None, Carries::Nothing),
            // RFC 3261 13.2.1: one answer, one description.
            (Wanted::Progress(_), _) if settled => self.send_reliable(core, 183, None, Carries::Nothing),
            (Wanted::Progress(media), true) => match self.answer_offer(core, media, true) {
                Ok(body) => self.send_reliable(core, 183, Some(&body), Carries::Answer),
                Err(error) => self.give_up(core, &error),
            },
            (Wanted::Progress(media), false) => match self.offer(core, media) {
                Ok(body) => self.send_reliable(core, 183, Some(&body), Carries::Offer),
                Err(error) => self.give_up(core, &error),
            },
        }
    }

    /// Makes our offer for an INVITE without one.
    pub(super) fn offer(&mut self, core: &Core, media: LocalMedia) -> Result<Bytes, NegotiationError> {
        self.local = Some(media.rtp);
        let at = core.trunks.get(self.trunk).ok_or(NegotiationError::WrongState)?;
        self.offer_answer.make_offer(media.rtp, &at.policy, Direction::SendRecv).map(Bytes::from)
    }

    fn send_reliable(&mut self, core: &mut Core, status: u16, sdp: Option<&[u8]>, carries: Carries) {
        let (now, timers) = (core.io.now, core.config.timers);
        let Phase::Incoming(incoming) = &mut self.phase else { return };
        incoming.repeat_later(now);
        let Some(reliable) = &mut incoming.reliable else { return };
        let rseq = reliable.rseq;
        reliable.rseq = rseq.saturating_add(1);
        let (next, expires) = (now + timers.t1, now + timers.give_up());
        reliable.unacked = Some(Unacked { rseq, carries, interval: timers.t1, next, expires });
        let server = incoming.server;
        let lines = vec![("Require", "100rel".to_owned()), ("RSeq", rseq.to_string())];
        self.respond(core, server, status, &Extra { lines, sdp, ..Extra::default() });
    }

    /// A minute has passed: no proxy shall give the call up (RFC 3261 13.3.1.1).
    pub(super) fn keep_ringing(&mut self, core: &mut Core) {
        let Phase::Incoming(incoming) = &mut self.phase else { return };
        incoming.repeat_later(core.io.now);
        let status = if incoming.ringing { 180 } else { 183 };
        if incoming.reliable.as_ref().is_some_and(|reliable| reliable.unacked.is_none()) {
            self.send_reliable(core, status, None, Carries::Nothing);
        }
    }

    /// Repeats what no PRACK came for, and gives the call up in the end (RFC 3262 3).
    pub(super) fn on_reliable_timer(&mut self, core: &mut Core) {
        let now = core.io.now;
        let Phase::Incoming(incoming) = &mut self.phase else { return };
        let Some(unacked) = incoming.reliable.as_mut().and_then(|reliable| reliable.unacked.as_mut()) else {
            return;
        };
        if unacked.expires <= now {
            let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
            let status = status_of_cause(cause);
            self.refuse(core, status, vec![("Reason", reason_value(cause))]);
            self.end(core, cause, Some(status), "no PRACK".to_owned(), EndedBy::Timeout);
        } else if unacked.next <= now {
            // The interval doubles without end.
            unacked.interval *= 2;
            unacked.next = now + unacked.interval;
            core.servers.repeat_provisional(&mut core.io, incoming.server);
        }
    }

    /// PRACK (RFC 3262 3). It matches a response that waits for it, or gets 481.
    pub(super) fn on_prack(&mut self, core: &mut Core, request: &Request, server: u64) {
        let Some((rseq, cseq)) = rack(&request.head) else {
            return self.reply(core, server, 481, Vec::new());
        };
        let Phase::Incoming(incoming) = &mut self.phase else {
            // The final response went out before: nothing waits for this one any more, and an offer
            // has the re-INVITE to come in.
            return match self.late_prack.take_if(|late| *late == (rseq, cseq)) {
                None => self.reply(core, server, 481, Vec::new()),
                Some(_) if request.body.is_empty() => self.reply(core, server, 200, Vec::new()),
                Some(_) => self.reply_later(core, server),
            };
        };
        let matched = incoming.reliable.as_mut().filter(|_| cseq == incoming.cseq);
        let Some((reliable, unacked)) =
            matched.and_then(|r| r.unacked.take_if(|u| u.rseq == rseq).map(|unacked| (r, unacked)))
        else {
            return self.reply(core, server, 481, Vec::new());
        };
        let content = content(&request.head, &request.body);
        if unacked.carries == Carries::Offer {
            self.on_early_answer(core, &content, server);
        } else {
            reliable.settled |= unacked.carries == Carries::Answer;
            self.on_prack_body(core, &content, server);
        }
        self.send_next(core);
        self.run_modify(core);
    }

    /// The PRACK had to bring the answer to the offer of our reliable response.
    fn on_early_answer(&mut self, core: &mut Core, content: &Content, server: u64) {
        self.reply(core, server, 200, Vec::new());
        let Some(at) = core.trunks.get(self.trunk) else { return };
        let outcome = match content {
            Content::Sdp(body) => {
                self.offer_answer.accept_answer(body, &at.policy).map_err(|e| (e.cause(), e.to_string()))
            }
            _ => Err((Cause::PROTOCOL_ERROR, "no answer in the PRACK".to_owned())),
        };
        match outcome {
            Ok(negotiated) => {
                for repair in negotiated.repairs.iter() {
                    core.io.counters.repair(repair.as_str());
                }
                if let Phase::Incoming(incoming) = &mut self.phase
                    && let Some(reliable) = &mut incoming.reliable
                {
                    reliable.settled = true;
                }
                let (call, media, signalling) = (self.id, negotiated.media, self.signalling);
                core.events.push_back(Event::Media { call, media, early: true, signalling });
            }
            Err((cause, text)) => {
                let status = status_of_cause(cause);
                self.refuse(core, status, vec![("Reason", reason_value(cause))]);
                self.end(core, cause, Some(status), text, EndedBy::Local);
            }
        }
    }

    /// A PRACK may carry a further offer, answered in its 2xx (RFC 3262 5). One that cannot be taken
    /// is refused with the PRACK; the response it acknowledges is acknowledged all the same.
    fn on_prack_body(&mut self, core: &mut Core, content: &Content, server: u64) {
        let body = match content {
            Content::None => return self.reply(core, server, 200, Vec::new()),
            Content::Other => {
                let (status, lines) = unsupported_media();
                return self.reply(core, server, status, lines);
            }
            Content::Sdp(body) => body,
        };
        let local = self.local.filter(|_| self.may_take_early_offer());
        let Some(local) = local else { return self.reply_later(core, server) };
        let direction = self.wanted_direction(core);
        match take_offer(core, self.trunk, &mut self.offer_answer, local, direction, body) {
            Ok(answer) => {
                if answer.changed {
                    let (call, media, signalling) = (self.id, answer.media, self.signalling);
                    core.events.push_back(Event::Media { call, media, early: true, signalling });
                }
                let extra = Extra { sdp: Some(&answer.body), ..Extra::default() };
                self.respond(core, server, 200, &extra);
            }
            Err(error) => {
                let (status, lines) = explain(&error);
                self.reply(core, server, status, lines);
            }
        }
    }

    /// Says whether the offer/answer exchange of an INVITE that was not answered yet has ended, so
    /// that the caller may begin another (RFC 3311 5.1).
    pub(super) fn may_take_early_offer(&self) -> bool {
        let Phase::Incoming(incoming) = &self.phase else { return false };
        incoming.reliable.as_ref().is_some_and(|reliable| reliable.settled)
            && self.offer_answer.state() == State::Stable
    }

    /// Sends what waited for the PRACK: the 2xx before all.
    fn send_next(&mut self, core: &mut Core) {
        if self.finished {
            return;
        }
        let Phase::Incoming(incoming) = &mut self.phase else { return };
        let Some(reliable) = &mut incoming.reliable else { return };
        if let Some(media) = reliable.answer.take() {
            // The phase was checked when it was asked for.
            let _ = self.answer(core, media);
        } else if let Some(wanted) = reliable.queue.pop_front() {
            self.send_wanted(core, wanted);
        }
    }
}
