use std::collections::BTreeMap;

/// Counts since the start, and what is open now. All labels are from closed sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests received, by method (`other` for unknown ones).
    pub requests_in: BTreeMap<&'static str, u64>,
    /// Requests sent first, by method.
    pub requests_out: BTreeMap<&'static str, u64>,
    /// Responses received, by class (`1xx` to `6xx`).
    pub responses_in: BTreeMap<&'static str, u64>,
    /// Responses sent first, by class.
    pub responses_out: BTreeMap<&'static str, u64>,
    /// Messages refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Messages repaired before they were read, by repair.
    pub repaired: BTreeMap<&'static str, u64>,
    /// Quality reports, by what became of them: `accepted`, `refused` and `unanswered` by their collector; never
    /// sent because too many were under way (`crowded_out`), because the collector is left alone for a while
    /// (`held_back`), or because its URI led nowhere (`unreachable`).
    pub quality_reports: BTreeMap<&'static str, u64>,
    /// Copies of messages that were not taken by [`Endpoint::poll_capture`](crate::Endpoint::poll_capture) in time.
    pub captures_dropped: u64,
    /// Messages we sent again.
    pub retransmitted: u64,
    /// Calls that were tried on another target of the same trunk.
    pub failovers: u64,
    /// Messages the far side sent again.
    pub duplicates: u64,
    /// Contacts that are registered here now.
    pub registered_contacts: usize,
    /// Sources now banned for trying passwords.
    pub banned_sources: usize,
    /// Calls now open, both ways.
    pub open_calls: usize,
    /// Calls and remains of calls now held, open ones included.
    pub held_calls: usize,
    /// Client transactions now open.
    pub client_transactions: usize,
    /// Server transactions now open.
    pub server_transactions: usize,
    /// TCP connections now open or opening.
    pub connections: usize,
}

impl Counters {
    pub(crate) fn refuse(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }

    pub(crate) fn report(&mut self, outcome: &'static str) {
        *self.quality_reports.entry(outcome).or_default() += 1;
    }

    pub(crate) fn repair(&mut self, repair: &'static str) {
        *self.repaired.entry(repair).or_default() += 1;
    }
}

/// Returns the class label of a status.
pub(crate) fn class(status: u16) -> &'static str {
    match status {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500..600 => "5xx",
        _ => "6xx",
    }
}
