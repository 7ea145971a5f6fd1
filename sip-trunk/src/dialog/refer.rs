//! Transfers that we ask for: our REFER (RFC 3515 2.4.1), and the NOTIFYs that tell how it goes.

use std::time::{Duration, Instant};

use call_model::Cause;

use super::call::{Call, Phase};
use crate::cause::cause_of_response;
use crate::endpoint::api::{CommandError, EndedBy, Event};
use crate::endpoint::core::{Core, SIPFRAG};
use crate::referral::{Replaces, TransferOutcome};
use crate::text;
use crate::transaction::client::{ClientKey, Outcome, Upcall};
use crate::wire::message::{Method, Name, Request};

/// A transfer that we asked for.
#[derive(Debug)]
pub(super) struct Refer {
    key: Option<ClientKey>,
    /// Of the REFER: the id of its subscription (RFC 3515 2.4.6).
    cseq: u32,
    target: String,
    by: String,
    challenges: u8,
    /// The transport lost it and it went out a second time.
    repeated: bool,
    /// It was told how it went; the subscription may still end.
    over: bool,
    /// The last provisional status that was told, and how many were.
    status: u16,
    told: u8,
    expires: Instant,
}

/// The most reports of progress of one transfer.
const MAX_REPORTS: u8 = 16;

/// How much longer than a call may ring its transfer may take.
const MARGIN: Duration = Duration::from_secs(120);

/// How much of a fragment is looked at: a status line.
const FRAGMENT_MAX: usize = 256;

impl Call {
    /// Carries out `Transfer`: `target` is the value of Refer-To, `by` the URI of who asks.
    pub(crate) fn transfer(
        &mut self,
        core: &mut Core,
        target: String,
        by: String,
    ) -> Result<(), CommandError> {
        let free = self.refer.as_ref().is_none_or(|refer| refer.over);
        if !matches!(self.phase, Phase::Confirmed) || self.ended || !free {
            return Err(CommandError::WrongState);
        }
        let patience = core.trunks.get(self.trunk).map_or(MARGIN, |t| t.config.ring_timeout + MARGIN);
        self.refer = Some(Box::new(Refer {
            key: None,
            cseq: 0,
            target,
            by,
            challenges: 0,
            repeated: false,
            over: false,
            status: 0,
            told: 0,
            expires: core.io.now + patience,
        }));
        self.send_refer(core);
        self.arm(core);
        Ok(())
    }

    fn send_refer(&mut self, core: &mut Core) {
        let Some(refer) = &self.refer else { return };
        let by = format!("<{}>", refer.by);
        let lines = vec![("Refer-To", refer.target.clone()), ("Referred-By", by)];
        let key = self.send_request(core, Method::Refer, lines, None);
        let cseq = self.dialog.cseq;
        if let Some(refer) = &mut self.refer {
            (refer.key, refer.cseq) = (Some(key), cseq);
        }
    }

    /// The REFER was answered, or not.
    pub(super) fn on_refer_outcome(&mut self, core: &mut Core, upcall: &Upcall) {
        let Some(refer) = self.refer.as_ref().filter(|r| r.key == Some(upcall.key)) else { return };
        let (challenges, repeated) = (refer.challenges, refer.repeated);
        match &upcall.outcome {
            Outcome::Response(response, _) if response.status < 200 => {}
            Outcome::Response(response, _) if response.status < 300 => {
                self.dialog.refresh_target(&response.head);
                // RFC 4488 4: nothing will be heard of it.
                let quiet = response.head.text(&Name::ReferSub);
                if quiet.is_some_and(|value| value.trim().eq_ignore_ascii_case("false")) {
                    self.end_refer(core, TransferOutcome::Unreported);
                }
            }
            Outcome::Response(response, source)
                if matches!(response.status, 401 | 407)
                    && self.answer_challenge(core, response, *source, challenges) =>
            {
                if let Some(refer) = &mut self.refer {
                    refer.challenges += 1;
                }
                self.send_refer(core);
            }
            Outcome::Response(response, _) => {
                let status = response.status;
                self.end_refer(core, TransferOutcome::Refused(status));
                // RFC 3261 12.2.1.2: the dialog is gone.
                if matches!(status, 408 | 481) {
                    let reasons = response.head.reasons();
                    let cause = cause_of_response(status, reasons.iter().map(String::as_str));
                    self.drop_dialog(core, cause, Some(status), &response.reason, EndedBy::Far);
                }
            }
            Outcome::Timeout => {
                self.end_refer(core, TransferOutcome::Timeout);
                let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
                self.drop_dialog(core, cause, None, "no answer to REFER", EndedBy::Timeout);
            }
            Outcome::TransportError if !repeated => {
                if let Some(refer) = &mut self.refer {
                    refer.repeated = true;
                }
                self.leave_tcp(core, &upcall.path);
                self.send_refer(core);
            }
            // RFC 3261 8.1.3.1.
            Outcome::TransportError => self.end_refer(core, TransferOutcome::Refused(503)),
        }
    }

    /// NOTIFY of the subscription that our REFER began (RFC 6665 4.1.3). It may overtake the 202.
    pub(super) fn on_notify(&mut self, core: &mut Core, request: &Request, server: u64) {
        let head = &request.head;
        let event = head.text(&Name::Event).unwrap_or_default();
        let mut parts = text::split(&event, ';');
        // RFC 6665 8.2.1.
        if !parts.next().unwrap_or_default().eq_ignore_ascii_case("refer") {
            return self.reply(core, server, 489, vec![("Allow-Events", "refer".to_owned())]);
        }
        let id = parts.find_map(|p| p.split_once('=').filter(|(name, _)| name.trim() == "id"));
        let id = id.map(|(_, id)| id.trim().parse::<u32>().ok());
        let fits = |cseq: u32| id.is_none_or(|id| id == Some(cseq));
        let Some(refer) = self.refer.as_ref().filter(|refer| fits(refer.cseq)) else {
            core.io.counters.refuse("notify");
            return self.reply(core, server, 481, Vec::new());
        };
        let (over, before, told) = (refer.over, refer.status, refer.told);
        let kind = head.text(&Name::ContentType).unwrap_or_default();
        let fragment =
            kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("message/sipfrag");
        if !request.body.is_empty() && !fragment {
            return self.reply(core, server, 415, vec![("Accept", SIPFRAG.to_owned())]);
        }
        self.reply(core, server, 200, Vec::new());
        let status = status_of(&request.body);
        let state = head.text(&Name::SubscriptionState).unwrap_or_default();
        let state = state.split(';').next().unwrap_or_default();
        let terminated = state.trim().eq_ignore_ascii_case("terminated");
        match status {
            None | Some(_) if over => {}
            Some(status) if status >= 200 => self.end_refer(core, TransferOutcome::Reported(status)),
            Some(status) if status != before && told < MAX_REPORTS && !terminated => {
                if let Some(refer) = &mut self.refer {
                    (refer.status, refer.told) = (status, told + 1);
                }
                core.events.push_back(Event::TransferProgress { call: self.id, status });
            }
            _ if terminated => self.end_refer(core, TransferOutcome::Unreported),
            _ => {}
        }
        if terminated {
            self.refer = None;
        }
    }

    pub(super) fn refer_next(&self) -> Option<Instant> {
        self.refer.as_ref().filter(|refer| !refer.over).map(|refer| refer.expires)
    }

    pub(super) fn on_refer_timer(&mut self, core: &mut Core) {
        if self.refer_next().is_some_and(|at| at <= core.io.now) {
            self.end_refer(core, TransferOutcome::Timeout);
        }
    }

    /// Tells the user how the transfer went, once.
    fn end_refer(&mut self, core: &mut Core, outcome: TransferOutcome) {
        if let Some(refer) = self.refer.as_mut().filter(|refer| !refer.over) {
            refer.over = true;
            core.events.push_back(Event::TransferEnded { call: self.id, outcome });
        }
    }

    /// The call has ended, and its transfer with it.
    pub(super) fn drop_refer(&mut self, core: &mut Core) {
        self.end_refer(core, TransferOutcome::Unreported);
    }

    /// Returns the dialog of this call in the words of the far side (RFC 3891 3). A peer of RFC 2543
    /// has no tag, which is written as 0.
    pub(crate) fn as_replaces(&self) -> Replaces {
        let tag = &self.dialog.remote_tag;
        Replaces {
            call_id: self.dialog.call_id.clone(),
            to_tag: if tag.is_empty() { "0".to_owned() } else { tag.clone() },
            from_tag: self.tag(),
            early_only: false,
        }
    }

    /// Another dialog has taken the place of this one (RFC 3891 3): BYE, or CANCEL while it rings.
    pub(crate) fn give_way(&mut self, core: &mut Core) {
        let cause = Cause::NORMAL_CALL_CLEARING;
        match &self.phase {
            _ if self.ended => return,
            Phase::Outgoing(_) => self.send_cancel(core, cause),
            Phase::Confirmed => self.hang_up(core, cause),
            Phase::Incoming(_) | Phase::Closing { .. } => return,
        }
        self.end(core, cause, None, "replaced".to_owned(), EndedBy::Far);
        self.arm(core);
    }
}

/// Reads the status of a fragment (RFC 3420, RFC 3515 2.4.5): its first line, whatever follows.
fn status_of(body: &[u8]) -> Option<u16> {
    let text = String::from_utf8_lossy(body.get(..body.len().min(FRAGMENT_MAX))?);
    let line = text.trim_start().lines().next()?;
    let mut words = line.split_whitespace();
    words.next().filter(|version| version.eq_ignore_ascii_case("SIP/2.0"))?;
    words.next()?.parse().ok().filter(|status| (100..700).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3420 2, RFC 3515 2.4.5.
    #[test]
    fn the_status_of_a_fragment_is_its_first_line() {
        for (text, status) in [
            ("SIP/2.0 200 OK\r\nTo: x\r\n", Some(200)),
            ("\r\nsip/2.0  180", Some(180)),
            ("SIP/2.0 99 x", None),
            ("SIP/2.0 700 x", None),
            ("SIP/2.0", None),
            ("INVITE sip:a@b SIP/2.0", None),
            ("", None),
        ] {
            assert_eq!(status_of(text.as_bytes()), status, "{text:?}");
        }
        assert_eq!(status_of(&[0xff; 4000]), None);
    }
}
