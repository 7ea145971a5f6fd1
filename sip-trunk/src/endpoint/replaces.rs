//! What concerns two calls at once: one that takes the place of another (RFC 3891), and transfer.

use call_model::{Address, CallId};

use super::Endpoint;
use super::api::CommandError;
use crate::dialog::call::Phase;
use crate::dialog::transfer::refer_to;
use crate::dialog::uas::{Refused, Takeover};
use crate::referral::{Replaces, TransferTarget, plain_uri};
use crate::wire::message::{Method, Name, Request, addr_uri, tag_number};

/// What a Replaces was found to mean.
enum Meant {
    /// An answered call.
    Confirmed,
    /// A call we placed that rings.
    Ringing,
    /// One the far side placed: it is not for the far side to replace it.
    Theirs,
    /// One that ends.
    Ended,
}

impl Endpoint {
    /// Says whether a trunk may take calls over.
    pub(super) fn accepts_replaces(&self, trunk: usize) -> bool {
        self.core.trunks.get(trunk).is_some_and(|t| t.config.replacing.accepts())
    }

    /// Finds the dialog of a trunk that a Replaces means. That of another trunk is none of its
    /// business (RFC 3891 5), so it is not found.
    fn meant(&self, trunk: usize, replaces: &Replaces) -> Option<(u64, CallId, Meant)> {
        let key = tag_number(&replaces.to_tag)?;
        let call = self.calls.get(&key)?;
        if call.trunk != trunk || call.dialog.call_id != replaces.call_id {
            return None;
        }
        // RFC 3891 3: a tag of "0" is a peer's of RFC 2543, which has none.
        let tag = if replaces.from_tag == "0" { "" } else { replaces.from_tag.as_str() };
        let own = call.dialog.remote_tag == replaces.from_tag || call.dialog.remote_tag == tag;
        let meant = match &call.phase {
            Phase::Outgoing(outgoing) => outgoing.has_fork(tag).then_some(Meant::Ringing)?,
            Phase::Incoming(_) => own.then_some(Meant::Theirs)?,
            Phase::Confirmed if !call.ended => own.then_some(Meant::Confirmed)?,
            Phase::Confirmed | Phase::Closing { .. } => own.then_some(Meant::Ended)?,
        };
        Some((key, call.id, meant))
    }

    /// Finds the call that an INVITE takes the place of (RFC 3891 3).
    pub(super) fn replaced_by(&self, trunk: usize, request: &Request) -> Result<Option<Takeover>, Refused> {
        // RFC 3261 8.2.2: who does not know the header passes it over.
        if !self.accepts_replaces(trunk) {
            return Ok(None);
        }
        let refuse = |status: u16| Err((status, Vec::new()));
        let Ok(replaces) = Replaces::of_invite(&request.head) else { return refuse(400) };
        let Some(replaces) = replaces else { return Ok(None) };
        match self.meant(trunk, &replaces) {
            None | Some((_, _, Meant::Theirs)) => refuse(481),
            Some((_, _, Meant::Ended)) => refuse(603),
            Some((_, _, Meant::Confirmed)) if replaces.early_only => refuse(486),
            Some((key, call, meant)) => {
                Ok(Some(Takeover { key, call, early: matches!(meant, Meant::Ringing) }))
            }
        }
    }

    /// Finds the call of the same trunk that a REFER wants taken over (RFC 5589 7): the far side of
    /// both is one.
    pub(super) fn meant_by_refer(&self, key: u64, request: &Request) -> Option<CallId> {
        if request.method != Method::Refer {
            return None;
        }
        let trunk = self.calls.get(&key)?.trunk;
        let value = request.head.text(&Name::ReferTo)?;
        let replaces = refer_to(addr_uri(&value)?).ok()?.replaces?;
        match self.meant(trunk, &replaces)? {
            (other, id, Meant::Confirmed | Meant::Ringing) if other != key => Some(id),
            _ => None,
        }
    }

    /// Ends the calls whose place others have taken: by BYE, or by CANCEL (RFC 3891 3).
    pub(super) fn end_replaced(&mut self) {
        while let Some(key) = self.core.replaced.pop() {
            if let Some(call) = self.calls.get_mut(&key) {
                call.give_way(&mut self.core);
                self.review(key);
            }
        }
    }

    pub(super) fn accept_transfer(&mut self, id: CallId) -> Result<(), CommandError> {
        let key = *self.ids.get(&id).ok_or(CommandError::UnknownCall)?;
        self.with(id, |call, core| call.accept_transfer(core))?;
        if self.calls.contains_key(&key) {
            self.reports.insert(id, key);
        }
        Ok(())
    }

    pub(super) fn report_transfer(&mut self, id: CallId, status: u16) -> Result<(), CommandError> {
        let key = *self.reports.get(&id).ok_or(CommandError::UnknownCall)?;
        let call = self.calls.get_mut(&key).ok_or(CommandError::UnknownCall)?;
        let done = call.report_transfer(&mut self.core, status);
        self.review(key);
        done
    }

    pub(super) fn transfer(
        &mut self,
        id: CallId,
        to: &TransferTarget,
        referred_by: Option<&Address>,
    ) -> Result<(), CommandError> {
        let find = |id: &CallId| self.ids.get(id).and_then(|key| self.calls.get(key));
        let call = find(&id).ok_or(CommandError::UnknownCall)?;
        let config = &self.core.trunks.get(call.trunk).ok_or(CommandError::UnknownTrunk)?.config;
        let target = match to {
            TransferTarget::Address(address) => format!("<{}>", config.numbers.uri_of(address, &config.host)),
            // RFC 5589 7.1: the contact of the target, with the dialog in the target's words.
            TransferTarget::Call(other) => {
                let other = find(other).ok_or(CommandError::UnknownCall)?;
                let usable = matches!(other.phase, Phase::Confirmed) && !other.ended;
                if other.key == call.key || other.trunk != call.trunk || !usable {
                    return Err(CommandError::WrongState);
                }
                let replaces = other.as_replaces();
                let uri = plain_uri(&other.dialog.target).ok_or(CommandError::WrongState)?;
                let uri = uri.split('?').next().unwrap_or_default();
                format!("<{uri}?{}>", replaces.in_uri())
            }
        };
        let by = match referred_by {
            Some(address) => config.numbers.uri_of(address, &config.host),
            None => addr_uri(&call.dialog.local).unwrap_or_default().to_owned(),
        };
        self.with(id, |call, core| call.transfer(core, target, by))
    }
}
