//! The quality of calls, for the collectors of their trunks (RFC 6035).

use call_model::CallId;

use super::Endpoint;
use super::api::CommandError;
use super::core::Core;
use crate::dialog::call::Call;
use crate::quality::{EndedCalls, QualityReport, publish};

/// Keeps what a report tells of a call that has just ended, where there will be one.
pub(super) fn keep(core: &Core, call: &Call, ended: &mut EndedCalls) {
    if is_wanted(core, call)
        && let Some(session) = call.reportable()
    {
        ended.keep(core.io.now, call.id, session);
    }
}

fn is_wanted(core: &Core, call: &Call) -> bool {
    core.config.tell_quality || has_collector(core, call.trunk)
}

fn has_collector(core: &Core, trunk: usize) -> bool {
    core.trunks.get(trunk).is_some_and(|trunk| trunk.config.quality_collector.is_some())
}

impl Endpoint {
    pub(super) fn report_quality(&mut self, id: CallId, report: QualityReport) -> Result<(), CommandError> {
        let live = self.ids.get(&id).and_then(|key| self.calls.get(key));
        let session = match live {
            Some(call) if !is_wanted(&self.core, call) => return Err(CommandError::NoCollector),
            Some(call) => call.reportable().ok_or(CommandError::WrongState)?,
            None => self.ended.take(self.core.io.now, id).ok_or(CommandError::UnknownCall)?,
        };
        if self.core.config.tell_quality {
            publish::tell(&mut self.core, id, &session, &report);
            if !has_collector(&self.core, session.trunk()) {
                return Ok(());
            }
        }
        publish::send(&mut self.core, session, report)
    }
}
