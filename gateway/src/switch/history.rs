use std::collections::VecDeque;

use call_model::CallId;

use super::record::CallRecord;

/// The last finished calls, up to a bound; the oldest goes first.
#[derive(Debug)]
pub(super) struct History {
    records: VecDeque<CallRecord>,
    limit: usize,
}

impl History {
    pub(super) fn new(limit: usize) -> Self {
        Self { records: VecDeque::new(), limit }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.records.drain(..self.records.len().saturating_sub(limit));
    }

    pub(super) fn push(&mut self, record: CallRecord) {
        if self.limit == 0 {
            return;
        }
        if self.records.len() == self.limit {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &CallRecord> {
        self.records.iter().rev()
    }

    pub(super) fn get(&self, id: CallId) -> Option<&CallRecord> {
        self.newest_first().find(|record| record.id == id)
    }

    /// Finds a call by its id, or by what the SIP endpoint knew its second leg as.
    pub(super) fn get_mut(&mut self, id: CallId) -> Option<&mut CallRecord> {
        self.records.iter_mut().rev().find(|record| record.id == id || record.onward_leg == Some(id))
    }
}
