//! What a media thread tells the signalling loop.

use std::collections::VecDeque;

use call_model::Side;
use tokio::sync::mpsc;

use super::session::Session;
use super::worker::{QUEUE, Report, WorkerCounters};
use crate::switch::MediaEvent;

/// Reports that wait for the signalling loop beyond the queue to it.
const MAX_PENDING: usize = 4 * QUEUE;

/// Returns the figures of a call.
pub(super) fn quality(session: &Session, last: bool) -> Report {
    Report::Media(MediaEvent::Quality {
        call: session.call,
        overlay: session.media.quality(Side::Overlay),
        trunk: session.media.quality(Side::Trunk),
        onward: session.media.quality(Side::Onward),
        whole: session.media.whole(),
        last,
    })
}

/// The way to the signalling loop. What is said once must arrive; a figure that the next second
/// repeats need not.
pub(super) struct Reporter<'a> {
    reports: &'a mpsc::Sender<Report>,
    pending: &'a mut VecDeque<Report>,
    counters: &'a mut WorkerCounters,
}

impl<'a> Reporter<'a> {
    pub(super) fn of(
        reports: &'a mpsc::Sender<Report>,
        pending: &'a mut VecDeque<Report>,
        counters: &'a mut WorkerCounters,
    ) -> Self {
        Self { reports, pending, counters }
    }

    /// Says it, or counts that there was no room.
    pub(super) fn send_if_room(self, report: Report) {
        if !self.pending.is_empty() || self.reports.try_send(report).is_err() {
            self.counters.reports_dropped += 1;
        }
    }

    /// Says it now or later; only where too much waits for later is it lost, and counted.
    pub(super) fn send(self, report: Report) {
        let report = if self.pending.is_empty() {
            match self.reports.try_send(report) {
                Err(mpsc::error::TrySendError::Full(report)) => report,
                // Without a signalling loop there is nobody left to tell.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        } else {
            report
        };
        if self.pending.len() < MAX_PENDING {
            self.pending.push_back(report);
        } else {
            self.counters.reports_dropped += 1;
        }
    }
}
