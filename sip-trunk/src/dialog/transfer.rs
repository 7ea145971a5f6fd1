//! Transfers that the far side asks for: REFER (RFC 3515 2.4.2), and the subscription it begins, by
//! which the far side hears how its transfer goes (2.4.4).

use std::time::{Duration, Instant};

use call_model::CallId;

use super::call::{Call, Phase, label};
use super::modify::retry_after;
use crate::cause::reason_phrase;
use crate::endpoint::api::{CommandError, Event};
use crate::endpoint::core::{Core, Extra};
use crate::referral::{Replaces, TransferRequest, plain_uri, referred_by};
use crate::text;
use crate::transaction::client::{ClientKey, Outcome, Owner, Upcall};
use crate::trunk::Transfers;
use crate::trunk::numbers::user_part;
use crate::wire::message::{Method, Name, Request, addr_uri};

/// A transfer that the far side asked for.
#[derive(Debug)]
pub(super) struct Transfer {
    /// The value of Event.
    event: String,
    /// The far side wants to hear of it.
    reports: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// REFER is not answered.
    Asked { server: u64, deadline: Instant },
    /// The subscription lives.
    Open(Notifier),
}

/// What the far side is told. One NOTIFY is under way at a time; what changes meanwhile is told by
/// the next, and what lies between is not told at all.
#[derive(Debug)]
struct Notifier {
    expires: Instant,
    /// The status of the call to the target.
    status: u16,
    /// Why the subscription is over (RFC 6665 4.1.3).
    over: Option<&'static str>,
    /// Something was not told yet.
    wanted: bool,
    pending: Option<ClientKey>,
    retry_at: Option<Instant>,
    challenges: u8,
    tries: u8,
}

/// How often one NOTIFY is tried.
const MAX_TRIES: u8 = 3;

/// The longest Retry-After that is waited for.
const MAX_WAIT: Duration = Duration::from_secs(32);

/// How much longer than the target may ring the subscription lives.
const MARGIN: Duration = Duration::from_secs(60);

/// The most headers of a URI that are read.
const MAX_URI_HEADERS: usize = 16;

/// The target of a REFER.
#[derive(Debug)]
pub(crate) struct ReferTo {
    uri: String,
    pub(crate) replaces: Option<Replaces>,
}

/// Reads the URI of Refer-To, and the Replaces it carries as a header (RFC 3515 2.1, RFC 3891 6.1).
///
/// # Errors
/// The status to answer with.
pub(crate) fn refer_to(uri: &str) -> Result<ReferTo, u16> {
    let (plain, headers) = uri.split_once('?').unwrap_or((uri, ""));
    let scheme = plain.split_once(':').map_or("", |(scheme, _)| scheme);
    if scheme.is_empty() {
        return Err(400);
    }
    if !["sip", "tel"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(416);
    }
    // RFC 3261 19.1.1: which method to use is no part of a request URI.
    let mut parts = plain.split(';');
    let mut target = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once('=') {
            // The target is to be called, nothing else.
            Some((name, method)) if name.eq_ignore_ascii_case("method") => {
                if !method.eq_ignore_ascii_case("INVITE") {
                    return Err(403);
                }
            }
            _ => {
                target.push(';');
                target.push_str(part);
            }
        }
    }
    let mut replaces = None;
    for header in headers.split('&').take(MAX_URI_HEADERS) {
        let (name, value) = header.split_once('=').unwrap_or((header, ""));
        if name.eq_ignore_ascii_case("Replaces") {
            let value = text::unescape(value).as_deref().and_then(Replaces::parse).ok_or(400u16)?;
            if replaces.replace(value).is_some() {
                return Err(400);
            }
        }
    }
    Ok(ReferTo { uri: plain_uri(&target).ok_or(400u16)?, replaces })
}

impl Call {
    /// REFER (RFC 3515 2.4.2). `replaced` is the call of ours that its Replaces means.
    pub(super) fn on_refer(
        &mut self,
        core: &mut Core,
        request: &Request,
        server: u64,
        replaced: Option<CallId>,
    ) {
        if core.transfers(self.trunk) == Transfers::Refuse {
            core.io.counters.refuse("transfer");
            return self.reply(core, server, 603, Vec::new());
        }
        let asked = match self.read_refer(core, request, replaced) {
            Ok(asked) => asked,
            Err(status) => {
                core.io.counters.refuse("refer");
                return self.reply(core, server, status, Vec::new());
            }
        };
        // One at a time, and of an answered call: there is nobody to transfer before.
        if !matches!(self.phase, Phase::Confirmed) || self.transfer.is_some() {
            core.io.counters.refuse("transfer_pending");
            return self.reply(core, server, 491, Vec::new());
        }
        // RFC 3515 2.4.6: the first REFER of a dialog needs no id, those after it do.
        self.refers = self.refers.saturating_add(1);
        let event = match self.refers {
            1 => "refer".to_owned(),
            _ => format!("refer;id={}", request.head.cseq),
        };
        let deadline = core.io.now + core.config.timers.give_up() / 4;
        let state = State::Asked { server, deadline };
        self.transfer = Some(Box::new(Transfer { event, reports: asked.reports, state }));
        core.events.push_back(Event::TransferRequested { call: self.id, request: Box::new(asked) });
    }

    fn read_refer(
        &self,
        core: &Core,
        request: &Request,
        replaced: Option<CallId>,
    ) -> Result<TransferRequest, u16> {
        let head = &request.head;
        // RFC 3515 2.4.2: exactly one.
        let [value] = &head.list(&Name::ReferTo)[..] else { return Err(400) };
        let target = refer_to(addr_uri(value).ok_or(400u16)?)?;
        let at = core.trunks.get(self.trunk).ok_or(500u16)?;
        // RFC 4488 4.
        let quiet = head.text(&Name::ReferSub).is_some_and(|value| {
            value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("false")
        });
        Ok(TransferRequest {
            target: at.config.numbers.address_of_uri(&target.uri),
            target_user: user_part(&target.uri).unwrap_or_default(),
            target_uri: target.uri,
            replaced: replaced.filter(|_| target.replaces.is_some()),
            replaces: target.replaces,
            referred_by: referred_by(head),
            reports: !quiet,
        })
    }

    /// Carries out `AcceptTransfer`.
    pub(crate) fn accept_transfer(&mut self, core: &mut Core) -> Result<(), CommandError> {
        let Some(transfer) = &mut self.transfer else { return Err(CommandError::WrongState) };
        let State::Asked { server, .. } = transfer.state else { return Err(CommandError::WrongState) };
        let rings = core.trunks.get(self.trunk).map_or(MARGIN, |t| t.config.ring_timeout);
        transfer.state = State::Open(Notifier {
            expires: core.io.now + rings + MARGIN,
            status: 100,
            over: None,
            wanted: true,
            pending: None,
            retry_at: None,
            challenges: 0,
            tries: 0,
        });
        // RFC 4488 4: so the far side knows that no NOTIFY will come.
        let lines = if transfer.reports { Vec::new() } else { vec![("Refer-Sub", "false".to_owned())] };
        self.reply(core, server, 202, lines);
        self.run_notify(core);
        self.arm(core);
        Ok(())
    }

    /// Carries out `RefuseTransfer`.
    pub(crate) fn refuse_transfer(&mut self, core: &mut Core, status: u16) -> Result<(), CommandError> {
        let asked = |t: &mut Box<Transfer>| matches!(t.state, State::Asked { .. });
        let transfer = self.transfer.take_if(asked).ok_or(CommandError::WrongState)?;
        if let State::Asked { server, .. } = transfer.state {
            let status = if (400..700).contains(&status) { status } else { 603 };
            self.reply(core, server, status, Vec::new());
        }
        self.arm(core);
        Ok(())
    }

    /// Carries out `ReportTransfer`.
    pub(crate) fn report_transfer(&mut self, core: &mut Core, status: u16) -> Result<(), CommandError> {
        let Some(transfer) = &mut self.transfer else { return Err(CommandError::WrongState) };
        let quiet = !transfer.reports;
        let State::Open(notifier) = &mut transfer.state else { return Err(CommandError::WrongState) };
        if notifier.over.is_some() || !(100..700).contains(&status) {
            return Err(CommandError::WrongState);
        }
        notifier.wanted |= status != notifier.status;
        notifier.status = status;
        if status >= 200 {
            notifier.over = Some("noresource");
            if quiet {
                self.end_transfer();
            }
        }
        self.run_notify(core);
        self.arm(core);
        Ok(())
    }

    /// SUBSCRIBE within the subscription that a REFER began (RFC 6665 4.2.1, RFC 3515 2.4.4): it may
    /// be ended, or asked after; it is not made longer.
    pub(super) fn on_subscribe(&mut self, core: &mut Core, request: &Request, server: u64) {
        let head = &request.head;
        let event = head.text(&Name::Event).unwrap_or_default();
        if !event.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("refer") {
            return self.reply(core, server, 489, vec![("Allow-Events", "refer".to_owned())]);
        }
        let fits = |t: &&mut Box<Transfer>| {
            let plain = |text: &str| text.to_ascii_lowercase().replace(' ', "");
            t.reports && plain(&t.event) == plain(&event)
        };
        let Some(transfer) = self.transfer.as_mut().filter(fits) else {
            return self.reply(core, server, 481, Vec::new());
        };
        let State::Open(notifier) = &mut transfer.state else {
            return self.reply(core, server, 481, Vec::new());
        };
        let asked = head.text(&Name::Expires).and_then(|value| value.trim().parse::<u64>().ok());
        let left = notifier.expires.saturating_duration_since(core.io.now).as_secs();
        let granted = asked.map_or(left, |asked| asked.min(left));
        notifier.wanted = true;
        if granted == 0 {
            notifier.over.get_or_insert("timeout");
        } else {
            notifier.expires = core.io.now + Duration::from_secs(granted);
        }
        self.reply(core, server, 200, vec![("Expires", granted.to_string())]);
        self.run_notify(core);
    }

    /// Returns until when the far side is to hear of its transfer, if it is.
    pub(super) fn reports_until(&self) -> Option<Instant> {
        match &self.transfer.as_ref().filter(|transfer| transfer.reports)?.state {
            State::Open(notifier) => Some(notifier.expires),
            State::Asked { .. } => None,
        }
    }

    pub(super) fn transfer_next(&self) -> Option<Instant> {
        match &self.transfer.as_ref()?.state {
            State::Asked { deadline, .. } => Some(*deadline),
            State::Open(notifier) => {
                let expires = notifier.over.is_none().then_some(notifier.expires);
                expires.into_iter().chain(notifier.retry_at).min()
            }
        }
    }

    pub(super) fn on_transfer_timer(&mut self, core: &mut Core) {
        let now = core.io.now;
        let Some(transfer) = &mut self.transfer else { return };
        match &mut transfer.state {
            State::Asked { deadline, .. } if *deadline <= now => {
                // An answer that late would find nobody (RFC 4320 1).
                core.io.counters.refuse("transfer_undecided");
                let _ = self.refuse_transfer(core, 603);
            }
            State::Open(notifier) => {
                notifier.retry_at = notifier.retry_at.filter(|at| *at > now);
                if notifier.over.is_none() && notifier.expires <= now {
                    // RFC 6665 4.2.2.
                    notifier.over = Some("timeout");
                    notifier.wanted = true;
                    if !transfer.reports {
                        return self.end_transfer();
                    }
                }
                self.run_notify(core);
            }
            State::Asked { .. } => {}
        }
    }

    /// Tells the far side what it was not told yet, if nothing stands in the way.
    fn run_notify(&mut self, core: &mut Core) {
        let Some(transfer) = self.transfer.as_mut().filter(|t| t.reports) else { return };
        let State::Open(notifier) = &mut transfer.state else { return };
        if !notifier.wanted || notifier.pending.is_some() || notifier.retry_at.is_some() {
            return;
        }
        notifier.wanted = false;
        let key = self.send_notify(core);
        if let Some(transfer) = &mut self.transfer
            && let State::Open(notifier) = &mut transfer.state
        {
            notifier.pending = key;
        }
    }

    fn send_notify(&mut self, core: &mut Core) -> Option<ClientKey> {
        let transfer = self.transfer.as_ref()?;
        let State::Open(notifier) = &transfer.state else { return None };
        let state = match notifier.over {
            Some(reason) => format!("terminated;reason={reason}"),
            None => {
                let left = notifier.expires.saturating_duration_since(core.io.now);
                format!("active;expires={}", left.as_secs())
            }
        };
        let status = notifier.status;
        let fragment = format!("SIP/2.0 {status} {}\r\n", reason_phrase(status));
        let mut lines = vec![("Event", transfer.event.clone()), ("Subscription-State", state)];
        self.dialog.cseq += 1;
        lines.extend(self.credentials(core, Method::Notify, fragment.as_bytes()));
        let path = self.dialog.path(&core.io);
        self.note(core, false, label(&format!("NOTIFY ({status})"), false));
        let extra = Extra { lines, sipfrag: Some(&fragment), ..Extra::default() };
        Some(core.request(&self.dialog, Method::Notify, path, Owner::Call(self.key), &extra))
    }

    /// A NOTIFY was answered, or not. What fails without saying when to come again ends the
    /// subscription (RFC 6665 4.2.2), never the call (RFC 5057 5.2).
    pub(super) fn on_notify_outcome(&mut self, core: &mut Core, upcall: &Upcall) {
        let Some(transfer) = &mut self.transfer else { return };
        let State::Open(notifier) = &mut transfer.state else { return };
        if notifier.pending != Some(upcall.key) {
            return;
        }
        let (tries, challenges) = (notifier.tries, notifier.challenges);
        let wait = match &upcall.outcome {
            Outcome::Response(response, _) if response.status < 200 => return,
            Outcome::Response(response, _) if response.status < 300 => {
                (notifier.pending, notifier.tries) = (None, 0);
                if notifier.over.is_some() && !notifier.wanted {
                    self.end_transfer();
                }
                return self.run_notify(core);
            }
            Outcome::Response(response, source) if matches!(response.status, 401 | 407) => {
                self.answer_challenge(core, response, *source, challenges).then_some(Duration::ZERO)
            }
            Outcome::Response(response, _) => retry_after(response).map(|wait| wait.min(MAX_WAIT)),
            Outcome::TransportError => {
                self.leave_tcp(core, &upcall.path);
                Some(Duration::from_secs(2))
            }
            Outcome::Timeout => None,
        };
        let challenged = matches!(&upcall.outcome, Outcome::Response(r, _) if matches!(r.status, 401 | 407));
        let Some(wait) = wait.filter(|_| tries < MAX_TRIES) else { return self.end_transfer() };
        if let Some(transfer) = &mut self.transfer
            && let State::Open(notifier) = &mut transfer.state
        {
            (notifier.pending, notifier.wanted, notifier.tries) = (None, true, tries + 1);
            notifier.challenges = challenges.saturating_add(u8::from(challenged));
            notifier.retry_at = (!wait.is_zero()).then(|| core.io.now + wait);
        }
        self.run_notify(core);
    }

    fn end_transfer(&mut self) {
        self.transfer = None;
        // The call had ended and stayed for this alone.
        self.finished |= self.lingers;
    }

    /// The call ends by our doing: the far side hears the last of its transfer first, or that it
    /// will not be taken.
    pub(super) fn conclude_transfer(&mut self, core: &mut Core) {
        match self.transfer.as_mut().map(|t| (t.reports, &mut t.state)) {
            Some((true, State::Open(notifier))) => {
                let told = notifier.over.is_some() && !notifier.wanted;
                notifier.over.get_or_insert("noresource");
                if !told {
                    self.send_notify(core);
                }
                self.transfer = None;
            }
            Some((false, State::Open(_))) => self.transfer = None,
            Some((_, State::Asked { .. })) | None => {}
        }
    }

    /// The call has ended: a REFER that waits gets its answer (RFC 3261 15.1.2).
    pub(super) fn drop_transfer(&mut self, core: &mut Core) {
        let _ = self.refuse_transfer(core, 487);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// RFC 3515 2.1, RFC 3261 19.1.1.
    #[test]
    fn refer_to_is_read() {
        let plain = refer_to("sip:+4420@pbx;user=phone;method=INVITE?Subject=x").unwrap();
        assert_eq!((plain.uri.as_str(), plain.replaces), ("sip:+4420@pbx;user=phone", None));
        let uri = "sip:b@pbx?Replaces=c%40x%3Bto-tag%3D1%3Bfrom-tag%3D2&Require=replaces";
        let replaces = refer_to(uri).unwrap().replaces.unwrap();
        assert_eq!((replaces.call_id.as_str(), replaces.to_tag.as_str()), ("c@x", "1"));
        for (bad, status) in [
            ("sip:b@pbx?Replaces=c%40x", 400),
            ("sip:b@pbx?Replaces=c;to-tag=1;from-tag=2&Replaces=c;to-tag=1;from-tag=2", 400),
            ("sip:b@pbx;method=BYE", 403),
            ("sips:b@pbx", 416),
            ("http://b", 416),
            ("nonsense", 400),
            ("sip:a b@pbx", 400),
        ] {
            assert_eq!(refer_to(bad).unwrap_err(), status, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_is_survived(uri in "(sip:)?[a-z@;=?&%0-9]{0,60}|.{0,60}") {
            let _ = refer_to(&uri);
        }
    }
}
