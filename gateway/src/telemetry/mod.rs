//! Metrics and logs.

mod collect;
mod hep;
mod log;
mod overlay;
mod turn;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use call_model::{Outcome, TrunkName};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::config::Trunk;
use crate::driver::PublishedCounters;
use crate::switch::RouteDirection;
pub(crate) use collect::Deltas;
#[cfg(test)]
pub(crate) use hep::decoded;
pub(crate) use hep::{Exporter, HepCounters};
pub(crate) use log::init as init_log;
use overlay::OverlayHealth;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabel {
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndLabels {
    direction: &'static str,
    outcome: &'static str,
    trunk: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabel {
    cause: u8,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabels {
    direction: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TrunkLabel {
    trunk: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TrunkReasonLabels {
    trunk: String,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KeyLabel {
    key: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueueLabel {
    queue: &'static str,
}

/// Every metric of the daemon. Labels come from the configuration or from closed lists only.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    calls_started: Family<DirectionLabel, Counter>,
    calls_ended: Family<EndLabels, Counter>,
    release_causes: Family<CauseLabel, Counter>,
    setup: Histogram,
    duration: Histogram,
    calls_live: Gauge,
    trunk_up: Family<TrunkLabel, Gauge>,
    trunk_connect_failed: Family<TrunkReasonLabels, Counter>,
    sip_handshakes_refused: Family<ReasonLabel, Counter>,
    tls_certificate_ends: Family<KeyLabel, Gauge>,
    tls_reloads: Family<ResultLabel, Counter>,
    sip_messages: Family<KindLabels, Counter>,
    sip_refused: Family<ReasonLabel, Counter>,
    sip_repaired: Family<ReasonLabel, Counter>,
    quality_reports: Family<ResultLabel, Counter>,
    sip_retransmitted: Counter,
    overlay_refused: Family<ReasonLabel, Counter>,
    overlay_lookups_served: Counter,
    overlay_published_for_clients: Counter,
    overlay_peers: Gauge,
    overlay_reservations: Gauge,
    turn: turn::TurnMetrics,
    overlay_records: Gauge,
    overlay_health: OverlayHealth,
    overlay_presence: Family<KindLabel, Gauge>,
    overlay_presence_refused: Family<ReasonLabel, Counter>,
    queue_length: Family<QueueLabel, Gauge>,
    queue_dropped: Family<QueueLabel, Counter>,
    trunk_ports_free: Gauge,
}

impl Metrics {
    /// Registers every metric. The counters of the media threads are read when asked for.
    pub(crate) fn new(media: Vec<Arc<PublishedCounters>>, trunks: &[Trunk]) -> Self {
        // Call set-up: from a PBX on the same switch to a mobile that rings out.
        let setup = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0];
        let duration = [1.0, 5.0, 15.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("causeway"),
            calls_started: Family::default(),
            calls_ended: Family::default(),
            release_causes: Family::default(),
            setup: Histogram::new(setup),
            duration: Histogram::new(duration),
            calls_live: Gauge::default(),
            trunk_up: Family::default(),
            trunk_connect_failed: Family::default(),
            sip_handshakes_refused: Family::default(),
            tls_certificate_ends: Family::default(),
            tls_reloads: Family::default(),
            sip_messages: Family::default(),
            sip_refused: Family::default(),
            sip_repaired: Family::default(),
            quality_reports: Family::default(),
            sip_retransmitted: Counter::<u64, AtomicU64>::default(),
            overlay_refused: Family::default(),
            overlay_lookups_served: Counter::default(),
            overlay_published_for_clients: Counter::default(),
            overlay_peers: Gauge::default(),
            overlay_reservations: Gauge::default(),
            turn: turn::TurnMetrics::default(),
            overlay_records: Gauge::default(),
            overlay_health: OverlayHealth::default(),
            overlay_presence: Family::default(),
            overlay_presence_refused: Family::default(),
            queue_length: Family::default(),
            queue_dropped: Family::default(),
            trunk_ports_free: Gauge::default(),
        };
        metrics.register(media);
        metrics.begin(trunks);
        metrics
    }

    /// Reads the counters of what is exported by HEP when asked for.
    pub(crate) fn watch_hep(&mut self, counters: Arc<HepCounters>) {
        self.registry.register_collector(Box::new(hep::HepCollector(counters)));
    }

    /// Lets every series stand at nought from the start: one that appears with its first event
    /// hides that event from whoever watches how it grows.
    fn begin(&self, trunks: &[Trunk]) {
        for direction in RouteDirection::ALL {
            let direction = direction.as_str();
            let _ = self.calls_started.get_or_create(&DirectionLabel { direction });
            for trunk in trunks.iter().map(|trunk| trunk.name.as_str()).chain(["none"]) {
                for outcome in Outcome::ALL.map(Outcome::as_str) {
                    let trunk = trunk.to_owned();
                    let _ = self.calls_ended.get_or_create(&EndLabels { direction, outcome, trunk });
                }
            }
        }
        for result in ["ok", "failed"] {
            let _ = self.tls_reloads.get_or_create(&ResultLabel { result });
        }
        for trunk in trunks {
            self.trunk(&trunk.name, trunk.options_interval.is_none());
        }
    }

    fn register(&mut self, media: Vec<Arc<PublishedCounters>>) {
        let r = &mut self.registry;
        r.register("calls_started", "Calls that reached the gates", self.calls_started.clone());
        r.register("calls_ended", "Calls that ended, by result class", self.calls_ended.clone());
        r.register("release_causes", "Q.850 causes with which calls ended", self.release_causes.clone());
        let seconds = || Unit::Seconds;
        r.register_with_unit(
            "call_setup",
            "From the first message to the answer",
            seconds(),
            self.setup.clone(),
        );
        r.register_with_unit("call_duration", "From the answer to the end", seconds(), self.duration.clone());
        r.register("calls_live", "Calls now", self.calls_live.clone());
        r.register(
            "trunk_up",
            "Whether the last health check of a trunk succeeded; 1 where none is made",
            self.trunk_up.clone(),
        );
        r.register(
            "trunk_connect_failed",
            "Connections to a trunk that could not be had, by reason",
            self.trunk_connect_failed.clone(),
        );
        r.register(
            "sip_handshakes_refused",
            "TLS and WebSocket handshakes of peers that failed, by reason",
            self.sip_handshakes_refused.clone(),
        );
        r.register_with_unit(
            "tls_certificate_end",
            "When our certificate ends, in seconds since 1970, by the key that names it",
            seconds(),
            self.tls_certificate_ends.clone(),
        );
        r.register("tls_reloads", "Times the files of TLS were read again", self.tls_reloads.clone());
        r.register(
            "sip_messages",
            "SIP messages by direction and method or class",
            self.sip_messages.clone(),
        );
        r.register("sip_refused", "SIP input refused, by reason", self.sip_refused.clone());
        r.register(
            "sip_repaired",
            "SIP input repaired before it was read, by repair",
            self.sip_repaired.clone(),
        );
        r.register(
            "quality_reports",
            "Reports of the quality of calls, by what became of them",
            self.quality_reports.clone(),
        );
        r.register("sip_retransmitted", "SIP messages sent again", self.sip_retransmitted.clone());
        r.register("overlay_refused", "Overlay input refused, by reason", self.overlay_refused.clone());
        r.register(
            "overlay_lookups_served",
            "Look-ups answered for other nodes",
            self.overlay_lookups_served.clone(),
        );
        r.register(
            "overlay_published_for_clients",
            "Location records taken from clients that run no DHT",
            self.overlay_published_for_clients.clone(),
        );
        r.register("overlay_peers", "Overlay nodes connected to", self.overlay_peers.clone());
        r.register("overlay_reservations", "Relay reservations served", self.overlay_reservations.clone());
        self.turn.register(r);
        r.register("overlay_records", "Records held for others", self.overlay_records.clone());
        self.overlay_health.register(r);
        r.register(
            "overlay_presence",
            "What this node keeps and does for presence: users at home here, of these users on, texts that wait, \
             devices attached, users watched for them",
            self.overlay_presence.clone(),
        );
        r.register(
            "overlay_presence_refused",
            "Presence and text refused, by reason",
            self.overlay_presence_refused.clone(),
        );
        r.register("queue_length", "Items waiting in a bounded queue", self.queue_length.clone());
        r.register("queue_dropped", "Items that found a bounded queue full", self.queue_dropped.clone());
        r.register(
            "media_trunk_ports_free",
            "Port pairs for trunk legs that can be taken",
            self.trunk_ports_free.clone(),
        );
        r.register_collector(Box::new(collect::MediaCollector(media)));
        r.register_collector(Box::new(collect::ProcessCollector));
    }

    pub(crate) fn started(&self, direction: RouteDirection) {
        self.calls_started.get_or_create(&DirectionLabel { direction: direction.as_str() }).inc();
    }

    pub(crate) fn ended(
        &self,
        direction: RouteDirection,
        outcome: Outcome,
        cause: call_model::Cause,
        trunk: Option<&TrunkName>,
        setup: Option<Duration>,
        duration: Option<Duration>,
    ) {
        let trunk = trunk.map_or("none", TrunkName::as_str).to_owned();
        let labels = EndLabels { direction: direction.as_str(), outcome: outcome.as_str(), trunk };
        self.calls_ended.get_or_create(&labels).inc();
        self.release_causes.get_or_create(&CauseLabel { cause: cause.value() }).inc();
        if let Some(setup) = setup {
            self.setup.observe(setup.as_secs_f64());
        }
        if let Some(duration) = duration {
            self.duration.observe(duration.as_secs_f64());
        }
    }

    pub(crate) fn live(&self, calls: usize, trunk_ports_free: usize) {
        self.calls_live.set(calls as i64);
        self.trunk_ports_free.set(trunk_ports_free as i64);
    }

    pub(crate) fn trunk(&self, trunk: &TrunkName, up: bool) {
        self.trunk_up.get_or_create(&TrunkLabel { trunk: trunk.to_string() }).set(i64::from(up));
    }

    pub(crate) fn connect_failed(&self, trunk: &TrunkName, reason: &'static str) {
        let labels = TrunkReasonLabels { trunk: trunk.to_string(), reason };
        self.trunk_connect_failed.get_or_create(&labels).inc();
    }

    pub(crate) fn handshake_refused(&self, reason: &'static str) {
        self.sip_handshakes_refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn certificate_ends(&self, key: &str, unix: u64) {
        self.tls_certificate_ends.get_or_create(&KeyLabel { key: key.to_owned() }).set(unix as i64);
    }

    pub(crate) fn tls_reloaded(&self, ok: bool) {
        let result = if ok { "ok" } else { "failed" };
        self.tls_reloads.get_or_create(&ResultLabel { result }).inc();
    }

    pub(crate) fn queue(&self, queue: &'static str, length: usize, dropped: u64) {
        self.queue_length.get_or_create(&QueueLabel { queue }).set(length as i64);
        let counter = self.queue_dropped.get_or_create(&QueueLabel { queue }).clone();
        counter.inc_by(dropped.saturating_sub(counter.get()));
    }

    pub(crate) fn overlay(&self, status: &p2p_edge::node::NodeStatus) {
        let raise = |counter: &Counter, total: u64| counter.inc_by(total.saturating_sub(counter.get()));
        raise(&self.overlay_lookups_served, status.lookups_served);
        raise(&self.overlay_published_for_clients, status.published_for_clients);
        self.overlay_peers.set(status.peers as i64);
        self.overlay_reservations.set(status.reservations_served as i64);
        self.overlay_records.set(status.records as i64);
        self.overlay_health.set(&status.health);
        let presence = &status.presence;
        for (kind, count) in [
            ("handles", presence.handles),
            ("on", presence.on),
            ("texts", presence.texts),
            ("devices", presence.devices),
            ("watched", presence.watched),
        ] {
            self.overlay_presence.get_or_create(&KindLabel { kind }).set(count as i64);
        }
        for (reason, total) in &presence.refused {
            let counter = self.overlay_presence_refused.get_or_create(&ReasonLabel { reason });
            raise(&counter, *total);
        }
        if let Some(turn) = &status.turn {
            self.turn.set(turn);
        }
        self.queue("node_commands", status.commands_queued, 0);
        self.queue("node_events", status.events_queued, status.events_delayed);
        for (reason, total) in &status.refused {
            let counter =
                self.overlay_refused.get_or_create(&ReasonLabel { reason: reason.as_str() }).clone();
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Writes every metric in OpenMetrics text form.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn presence_is_shown_as_the_node_says_it_is() {
        let metrics = Metrics::new(Vec::new(), &[]);
        let mut status = p2p_edge::node::NodeStatus::default();
        status.presence.handles = 7;
        status.presence.on = 3;
        status.presence.refused = vec![("rate", 2)];
        metrics.overlay(&status);
        status.presence.on = 4;
        status.presence.refused = vec![("rate", 5)];
        metrics.overlay(&status);
        let text = metrics.encode();
        for line in [
            r#"causeway_overlay_presence{kind="handles"} 7"#,
            r#"causeway_overlay_presence{kind="on"} 4"#,
            r#"causeway_overlay_presence_refused_total{reason="rate"} 5"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_series_stands_from_the_start() {
        let text = r#"
            [overlay]
            role = "gateway"
            identity_file = "a"
            trust_file = "b"
            listen = ["/ip4/127.0.0.1/udp/4001/quic-v1"]
            [sip]
            listen = ["udp:127.0.0.1:5060"]
            [[trunks]]
            name = "asked"
            target = "udp:127.0.0.10"
            [[trunks]]
            name = "unasked"
            target = "udp:127.0.0.11"
            options_interval_s = 0
        "#;
        let config = Config::parse(Path::new("causeway.toml"), text).unwrap();
        let text = Metrics::new(Vec::new(), &config.trunks).encode();
        for line in [
            r#"causeway_trunk_up{trunk="asked"} 0"#,
            r#"causeway_trunk_up{trunk="unasked"} 1"#,
            r#"causeway_calls_started_total{direction="trunk_to_overlay"} 0"#,
            r#"causeway_calls_ended_total{direction="overlay_to_trunk",outcome="upstream",trunk="asked"} 0"#,
            r#"causeway_calls_ended_total{direction="trunk_to_overlay",outcome="indeterminate",trunk="none"} 0"#,
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
    }
}
