//! The next target of a trunk, where one fails a call (RFC 3263 4.3).

use call_model::{Address, Cause};

use super::call::{Call, Phase};
use crate::endpoint::api::EndedBy;
use crate::endpoint::core::Core;
use crate::trunk::details::CallDetails;
use crate::trunk::targets;

/// Says whether a call is not to be held back for load: it goes to an emergency number, or has such a
/// priority (RFC 7339 5.10.1, RFC 7135).
pub(crate) fn is_urgent(core: &Core, called: &Address, details: &CallDetails) -> bool {
    let called = called.to_string();
    let called = called.trim_start_matches('+');
    details.emergency.is_some()
        || core.config.emergency.iter().any(|number| number == called)
        || has_emergency_priority(&details.priorities)
}

/// Says whether values of Resource-Priority are of the namespace of emergency calls (RFC 7135).
pub(crate) fn has_emergency_priority(values: &[String]) -> bool {
    values.iter().any(|value| value.get(..6).is_some_and(|start| start.eq_ignore_ascii_case("esnet.")))
}

impl Call {
    /// Sends the INVITE to the next target: a new transaction, with a new branch and the next CSeq, so
    /// that a proxy both targets lead to does not take it for a merged request (RFC 3261 8.2.2.2). Not
    /// so once there is an early dialog: somebody may be ringing, who must not be rung twice.
    pub(super) fn try_next_target(&mut self, core: &mut Core) -> bool {
        let now = core.io.now;
        let Phase::Outgoing(outgoing) = &mut self.phase else { return false };
        if outgoing.ringing || !outgoing.forks.is_empty() || outgoing.search_until <= now {
            return false;
        }
        let Some(trunk) = core.trunks.get(self.trunk) else { return false };
        while let Some((transport, remote)) = outgoing.targets.pop_front() {
            let Some(path) = core.io.path(transport, remote, trunk.config.local) else { continue };
            core.io.counters.failovers += 1;
            self.dialog.fallback = path;
            self.dialog.udp_only = false;
            self.challenges = 0;
            self.send_invite(core);
            return true;
        }
        false
    }

    /// The target has said nothing for as long as one may.
    pub(super) fn on_silence(&mut self, core: &mut Core) {
        let Phase::Outgoing(outgoing) = &mut self.phase else { return };
        outgoing.switch_at = None;
        if let Some(key) = outgoing.key {
            core.clients.abandon(&mut core.io, key);
        }
        targets::suspect(core, self.trunk, self.dialog.fallback.remote);
        if !self.try_next_target(core) {
            let cause = Cause::RECOVERY_ON_TIMER_EXPIRY;
            self.end(core, cause, None, "no answer to INVITE".to_owned(), EndedBy::Timeout);
            self.finished = true;
        }
    }
}
