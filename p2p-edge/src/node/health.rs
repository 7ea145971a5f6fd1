//! How well the overlay does what it is for, as this node measures it in passing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::bootstrap::WayReport;

/// Dials that the ratio is of.
const RECENT: usize = 256;

/// What a node has measured of the overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthStatus {
    /// Records of its own that this node put into the overlay and got from another node.
    pub round_trips: u64,
    /// Those that could not be put, or were not found afterwards, although servers are connected.
    pub round_trips_failed: u64,
    /// How long ago the last round trip succeeded, or since when the node runs where none has. `None`
    /// where this node is the whole network. What to raise an alarm by.
    pub since_round_trip: Option<Duration>,
    /// How long the last round trip took.
    pub round_trip: Option<Duration>,
    /// Dials since the start that reached somebody.
    pub dials: u64,
    /// Dials since the start that did not.
    pub dials_failed: u64,
    /// Of the last 256 dials how many in a thousand reached somebody.
    pub dials_per_mille: Option<u32>,
    /// Networks (/16, or /32 of IPv6) in which relay reservations are held.
    pub reservation_networks: usize,
    /// Servers that are remembered for the next start.
    pub good_peers: usize,
    /// What each way of joining has brought.
    pub ways: Vec<WayReport>,
}

/// Counts round trips and dials.
#[derive(Debug)]
pub(super) struct Health {
    began: Instant,
    round_trips: u64,
    round_trips_failed: u64,
    last: Option<(Instant, Duration)>,
    dials: u64,
    dials_failed: u64,
    recent: VecDeque<bool>,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            round_trips: 0,
            round_trips_failed: 0,
            last: None,
            dials: 0,
            dials_failed: 0,
            recent: VecDeque::with_capacity(RECENT),
        }
    }

    /// A record that was put at `began` came back from another node.
    pub(super) fn round_trip(&mut self, now: Instant, began: Instant) {
        self.round_trips += 1;
        self.last = Some((now, now.saturating_duration_since(began)));
    }

    /// A record could not be put, or did not come back.
    pub(super) fn no_round_trip(&mut self) {
        self.round_trips_failed += 1;
    }

    /// A dial has ended.
    pub(super) fn dialled(&mut self, reached: bool) {
        if reached {
            self.dials += 1;
        } else {
            self.dials_failed += 1;
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(reached);
    }

    /// Returns what was measured. What other parts know is left out.
    pub(super) fn status(&self, now: Instant, is_alone: bool) -> HealthStatus {
        let since = self.last.map_or(self.began, |(at, _)| at);
        let reached = self.recent.iter().filter(|reached| **reached).count();
        // The window is 256 long.
        let per_mille = (reached * 1000).checked_div(self.recent.len()).map(|share| share as u32);
        HealthStatus {
            round_trips: self.round_trips,
            round_trips_failed: self.round_trips_failed,
            since_round_trip: Some(now.saturating_duration_since(since)).filter(|_| !is_alone),
            round_trip: self.last.map(|(_, took)| took),
            dials: self.dials,
            dials_failed: self.dials_failed,
            dials_per_mille: per_mille,
            ..HealthStatus::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_a_round_trip_grows_until_there_is_one() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut health = Health::new(start);
        assert_eq!(health.status(at(5), false).since_round_trip, Some(Duration::from_secs(5)));
        assert_eq!(health.status(at(5), true).since_round_trip, None, "nobody could answer");
        health.round_trip(at(8), at(7));
        health.no_round_trip();
        let status = health.status(at(20), false);
        assert_eq!(status.since_round_trip, Some(Duration::from_secs(12)));
        assert_eq!(status.round_trip, Some(Duration::from_secs(1)));
        assert_eq!((status.round_trips, status.round_trips_failed), (1, 1));
    }

    #[test]
    fn the_ratio_is_of_dials_of_late() {
        let mut health = Health::new(Instant::now());
        let ratio = |health: &Health| health.status(health.began, false).dials_per_mille;
        assert_eq!(ratio(&health), None);
        (0..1_000).for_each(|_| health.dialled(false));
        assert_eq!(ratio(&health), Some(0));
        (0..RECENT / 2).for_each(|_| health.dialled(true));
        assert_eq!(ratio(&health), Some(500));
        (0..RECENT / 2).for_each(|_| health.dialled(true));
        let status = health.status(health.began, false);
        assert_eq!((status.dials, status.dials_failed, status.dials_per_mille), (256, 1_000, Some(1000)));
    }
}
