//! From what was measured towards a network of many more users.

use crate::cost::Costs;
use crate::real::Real;
use crate::scenario::Steady;
use crate::tally::{Effort, Kind};

/// What is taken for granted about users and supernodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Assumptions {
    /// Users in a day.
    pub(crate) daily: f64,
    /// Of these, how many are on at once in the busiest hour.
    pub(crate) at_once: f64,
    /// Look-ups of one user in that hour.
    pub(crate) look_ups_an_hour: f64,
    /// Relay reservations of a user, and how many a supernode serves.
    pub(crate) relays: f64,
    pub(crate) reservations: f64,
    /// Records that a supernode stores.
    pub(crate) records: f64,
    /// How much of either limit is used, so that others may fail.
    pub(crate) filled: f64,
}

impl Default for Assumptions {
    fn default() -> Self {
        let limits = p2p_edge::node::NodeLimits::default();
        Self {
            daily: 45e6,
            at_once: 1.0 / 3.0,
            look_ups_an_hour: 1.0,
            relays: limits.own_reservations as f64,
            reservations: limits.reservations as f64,
            records: limits.records as f64,
            filled: 0.5,
        }
    }
}

/// What single things cost where everything is real.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unit {
    pub(crate) request_us: f64,
    pub(crate) connection_us: f64,
    pub(crate) record_us: f64,
}

impl Unit {
    /// Where no real nodes were run, signatures alone are counted.
    pub(crate) fn of(costs: &Costs, real: Option<&Real>) -> Self {
        Self {
            request_us: real.map_or(0.0, |real| real.request_us),
            connection_us: real.map_or(2.0 * costs.chain, |real| real.connection_us),
            record_us: costs.record,
        }
    }

    /// Processor time of some work in microseconds, both ends together.
    pub(crate) fn time(&self, effort: Effort) -> f64 {
        effort.requests as f64 * self.request_us
            + effort.connections as f64 * self.connection_us
            + effort.records as f64 * self.record_us
    }
}

/// A straight line through points, by least squares: its value at 0 and its slope.
pub(crate) fn line(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let (sx, sy) = points.iter().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
    let (mx, my) = (sx / count, sy / count);
    let (top, bottom) =
        points.iter().fold((0.0, 0.0), |(t, b), (x, y)| (t + (x - mx) * (y - my), b + (x - mx).powi(2)));
    let slope = if bottom > 0.0 { top / bottom } else { 0.0 };
    (my - slope * mx, slope)
}

/// What it comes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Estimate {
    pub(crate) at_once: f64,
    pub(crate) by_relays: f64,
    pub(crate) by_records: f64,
    pub(crate) supernodes: f64,
    pub(crate) users_each: f64,
    /// How many times as many requests a look-up takes as in the model.
    pub(crate) growth: f64,
    /// Hops of a look-up.
    pub(crate) hops: f64,
    /// Of one user: bytes a second, microseconds of processor time a second.
    pub(crate) user_bytes: f64,
    pub(crate) user_us: f64,
    /// Of one supernode: bytes a second, share of one processor.
    pub(crate) bytes: f64,
    pub(crate) processor: f64,
}

/// Sizes, requests of a look-up, hops: one of each network that was tried.
pub(crate) type Sweep = Vec<(f64, f64, f64)>;

pub(crate) fn estimate(steady: &Steady, sweep: &Sweep, unit: Unit, assumed: Assumptions) -> Estimate {
    let at_once = assumed.daily * assumed.at_once;
    let by_relays = at_once * assumed.relays / (assumed.reservations * assumed.filled);
    let by_records = at_once * steady.holders() / (assumed.records * assumed.filled);
    let supernodes = by_relays.max(by_records);
    let fit = |of: fn(&(f64, f64, f64)) -> f64| {
        let points: Vec<(f64, f64)> = sweep.iter().map(|point| (point.0.log2(), of(point))).collect();
        let (foot, slope) = line(&points);
        move |size: f64| foot + slope * size.log2()
    };
    let (requests, hops) = (fit(|point| point.1), fit(|point| point.2));
    let growth = (requests(supernodes) / requests(steady.supernodes as f64)).max(1.0);
    let a_second = assumed.look_ups_an_hour / 3600.0;
    let look_up = steady.effort(Kind::LookUp);
    let per_user = |kind| unit.time(steady.effort(kind)) / steady.seconds / steady.users as f64;
    let user_us = per_user(Kind::Publish)
        + per_user(Kind::UserRefresh)
        + unit.time(look_up) / look_up.done.max(1) as f64 * a_second;
    let own = steady.effort(Kind::Refresh);
    let share = steady.seconds * steady.supernodes as f64;
    let users_each = at_once / supernodes;
    // Of what supernodes send each other, each has a part as the one that asks and one as the one that answers.
    let own_bytes = 2.0 * own.bytes as f64 / share + steady.keep_alive;
    let own_us = unit.time(own) / share;
    let (user_bytes, user_us) = (steady.user_bytes(a_second) * growth, user_us * growth);
    Estimate {
        at_once,
        by_relays,
        by_records,
        supernodes,
        users_each,
        growth,
        hops: hops(supernodes),
        user_bytes,
        user_us,
        bytes: users_each * user_bytes + own_bytes * growth,
        processor: (users_each * user_us + own_us * growth) / 1e6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_through_its_points() {
        let (foot, slope) = line(&[(1.0, 5.0), (2.0, 7.0), (4.0, 11.0)]);
        assert!((foot - 3.0).abs() < 1e-9 && (slope - 2.0).abs() < 1e-9, "{foot} {slope}");
        assert_eq!(line(&[(3.0, 7.0)]), (7.0, 0.0));
    }

    #[test]
    fn time_adds_up() {
        let unit = Unit { request_us: 2.0, connection_us: 10.0, record_us: 100.0 };
        let effort = Effort { done: 1, requests: 5, connections: 3, bytes: 9, records: 2 };
        assert!((unit.time(effort) - 240.0).abs() < 1e-9);
    }
}
