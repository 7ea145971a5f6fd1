//! What the node has measured of the overlay.

use std::sync::atomic::AtomicU64;

use p2p_edge::bootstrap::Way;
use p2p_edge::node::HealthStatus;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WayLabel {
    way: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

type Figure = Gauge<f64, AtomicU64>;

/// The figures of [`HealthStatus`].
#[derive(Debug, Default)]
pub(super) struct OverlayHealth {
    round_trips: Family<ResultLabel, Counter>,
    since: Figure,
    took: Figure,
    dials: Family<ResultLabel, Counter>,
    good_peers: Gauge,
    joined: Family<WayLabel, Counter>,
    way_failed: Family<WayLabel, Counter>,
}

impl OverlayHealth {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "overlay_round_trips",
            "Records put into the overlay here and got from another node",
            self.round_trips.clone(),
        );
        r.register_with_unit(
            "overlay_since_round_trip",
            "Time since the last such record came back, or since the start; 0 where no other node exists",
            Unit::Seconds,
            self.since.clone(),
        );
        r.register_with_unit(
            "overlay_round_trip",
            "From the put to the get of the last such record",
            Unit::Seconds,
            self.took.clone(),
        );
        r.register(
            "overlay_dials",
            "Dials of other nodes, by whether somebody was reached",
            self.dials.clone(),
        );
        r.register("overlay_good_peers", "Servers remembered for the next start", self.good_peers.clone());
        r.register(
            "overlay_joined",
            "Servers that proved themselves, by what had named them",
            self.joined.clone(),
        );
        r.register(
            "overlay_join_failed",
            "Times that a way of joining had no answer, or one that was refused",
            self.way_failed.clone(),
        );
        // A series that appears with its first event hides that event.
        for result in ["ok", "failed"] {
            let _ = self.round_trips.get_or_create(&ResultLabel { result });
            let _ = self.dials.get_or_create(&ResultLabel { result });
        }
        for way in Way::ALL.map(Way::as_str) {
            let _ = self.joined.get_or_create(&WayLabel { way });
            let _ = self.way_failed.get_or_create(&WayLabel { way });
        }
    }

    pub(super) fn set(&self, health: &HealthStatus) {
        let raise = |counter: &Counter, total: u64| counter.inc_by(total.saturating_sub(counter.get()));
        let results = [
            (&self.round_trips, "ok", health.round_trips),
            (&self.round_trips, "failed", health.round_trips_failed),
            (&self.dials, "ok", health.dials),
            (&self.dials, "failed", health.dials_failed),
        ];
        for (family, result, total) in results {
            raise(&family.get_or_create(&ResultLabel { result }), total);
        }
        self.since.set(health.since_round_trip.unwrap_or_default().as_secs_f64());
        self.took.set(health.round_trip.unwrap_or_default().as_secs_f64());
        self.good_peers.set(health.good_peers as i64);
        for report in &health.ways {
            raise(&self.joined.get_or_create(&WayLabel { way: report.way }), report.joined);
            raise(&self.way_failed.get_or_create(&WayLabel { way: report.way }), report.failed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use p2p_edge::node::WayReport;

    use super::*;

    #[test]
    fn what_was_measured_is_told_and_counters_never_fall() {
        let (figures, mut registry) = (OverlayHealth::default(), Registry::with_prefix("causeway"));
        figures.register(&mut registry);
        let way = WayReport { way: "dns", nodes: 2, asked: 1, failed: 3, joined: 2, since: None };
        let mut health = HealthStatus {
            round_trips: 7,
            round_trips_failed: 1,
            since_round_trip: Some(Duration::from_millis(2500)),
            dials: 9,
            good_peers: 4,
            ways: vec![way],
            ..HealthStatus::default()
        };
        figures.set(&health);
        figures.set(&health);
        health.round_trips = 3;
        figures.set(&health);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            r#"causeway_overlay_round_trips_total{result="ok"} 7"#,
            r#"causeway_overlay_round_trips_total{result="failed"} 1"#,
            "causeway_overlay_since_round_trip_seconds 2.5",
            r#"causeway_overlay_dials_total{result="ok"} 9"#,
            r#"causeway_overlay_dials_total{result="failed"} 0"#,
            "causeway_overlay_good_peers 4",
            r#"causeway_overlay_joined_total{way="dns"} 2"#,
            r#"causeway_overlay_joined_total{way="lan"} 0"#,
            r#"causeway_overlay_join_failed_total{way="dns"} 3"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
