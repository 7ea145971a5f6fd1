//! Asking the far side of an answered call whether it still knows it.

use call_model::Cause;

use super::call::{Call, Phase};
use crate::endpoint::api::{CommandError, EndedBy, Event};
use crate::endpoint::core::Core;
use crate::transaction::client::{Outcome, Upcall};
use crate::wire::message::Method;

impl Call {
    /// Carries out `Probe`. While one is under way there is no second.
    pub(crate) fn probe(&mut self, core: &mut Core) -> Result<(), CommandError> {
        if !matches!(self.phase, Phase::Confirmed) {
            return Err(CommandError::WrongState);
        }
        if self.probe.is_none() {
            self.challenges = 0;
            self.send_probe(core);
        }
        Ok(())
    }

    fn send_probe(&mut self, core: &mut Core) {
        let lines = vec![("Accept", crate::sdp::CONTENT_TYPE.to_owned())];
        self.probe = Some(self.send_request(core, Method::Options, lines, None));
    }

    /// RFC 3261 12.2.1.2: 481 and 408, or no answer at all, end the dialog. Any other answer says
    /// that somebody is there who knows it (RFC 5057 5.1).
    pub(super) fn on_probe_outcome(&mut self, core: &mut Core, upcall: &Upcall) {
        let (cause, text) = match &upcall.outcome {
            Outcome::Response(response, _) if response.status < 200 => return,
            Outcome::Response(response, source)
                if matches!(response.status, 401 | 407) && self.take_challenge(core, response, *source) =>
            {
                return self.send_probe(core);
            }
            Outcome::Response(response, _) if !matches!(response.status, 408 | 481) => {
                self.probe = None;
                core.events.push_back(Event::Alive { call: self.id });
                return;
            }
            Outcome::Response(_, _) => (Cause::NORMAL_UNSPECIFIED, "the far side does not know the call"),
            Outcome::Timeout | Outcome::TransportError => {
                (Cause::RECOVERY_ON_TIMER_EXPIRY, "the far side gives no sign of life")
            }
        };
        self.probe = None;
        self.hang_up(core, cause);
        self.end(core, cause, None, text.to_owned(), EndedBy::Timeout);
    }
}
