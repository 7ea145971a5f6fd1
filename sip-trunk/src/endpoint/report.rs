//! The quality of calls, for the collectors of their trunks (RFC 6035).

use call_model::CallId;

use super::Endpoint;
use super::api::CommandError;
use super::core::Core;
use crate::dialog::call::Call;
use crate::quality::{EndedCalls, QualityReport, publish};

/// Keeps what a report tells of a call that has just ended, where there will be one.
pub(super) fn keep(core: &Core, call: &Call, ended: &mut EndedCalls) {
    if has_collector(core, call)
        && let Some(session) = call.reportable()
    {
        ended.keep(core.io.now, call.id, session);
    }
}

fn has_collector(core: &Core, call: &Call) -> bool {
    core.trunks.get(call.trunk).is_some_and(|trunk| trunk.config.quality_collector.is_some())
}

impl Endpoint {
    pub(super) fn report_quality(&mut self, id: CallId, report: QualityReport) -> Result<(), CommandError> {
        let live = self.ids.get(&id).and_then(|key| self.calls.get(key));
        let session = match live {
            Some(call) if !has_collector(&self.core, call) => return Err(CommandError::NoCollector),
            Some(call) => call.reportable().ok_or(CommandError::WrongState)?,
            None => self.ended.take(self.core.io.now, id).ok_or(CommandError::UnknownCall)?,
        };
        publish::send(&mut self.core, session, report)
    }
}
