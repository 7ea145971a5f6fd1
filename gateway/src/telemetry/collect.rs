//! Figures that are kept elsewhere and read when asked for, or once a second.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::{KindLabels, Metrics, ReasonLabel, ResultLabel};
use crate::driver::{LatenessTotal, PublishedCounters, PublishedRefusals, RatingsTotal};

/// Reads the counters of the media threads.
#[derive(Debug)]
pub(super) struct MediaCollector(pub(super) Vec<Arc<PublishedCounters>>);

impl Collector for MediaCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let sum =
            |pick: fn(&PublishedCounters) -> u64| self.0.iter().map(|counters| pick(counters)).sum::<u64>();
        let rows = [
            (
                "media_packets_received",
                "Datagrams read from the sockets of live calls",
                sum(|c| c.received.load(Ordering::Relaxed)),
            ),
            (
                "media_packets_sent",
                "Datagrams sent by media threads",
                sum(|c| c.sent.load(Ordering::Relaxed)),
            ),
            (
                "media_socket_errors",
                "Sends and receives that the system refused",
                sum(|c| c.failed.load(Ordering::Relaxed)),
            ),
            (
                "media_stray_packets",
                "Datagrams to the ports of calls that are over",
                sum(|c| c.stray.load(Ordering::Relaxed)),
            ),
            (
                "media_reports_dropped",
                "Reports of media threads that found their queue full",
                sum(|c| c.reports_dropped.load(Ordering::Relaxed)),
            ),
            (
                "media_ring_exhausted",
                "Times that all buffers of a media thread that receives with io_uring were used up",
                sum(|c| c.ring_exhausted.load(Ordering::Relaxed)),
            ),
            (
                "media_opus_complexity_changes",
                "Times a media thread changed the complexity of Opus for its load",
                sum(|c| c.load.changes()),
            ),
        ];
        for (name, help, value) in rows {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        let late = LatenessTotal::of(self.0.iter().map(|counters| &counters.lateness));
        let help = "How long after their time calls were served by media threads";
        encoder
            .encode_descriptor("media_lateness", help, Some(&Unit::Seconds), MetricType::Histogram)?
            .encode_histogram::<NoLabelSet>(late.sum, late.count, &late.classes, None)?;
        self.encode_load(&mut encoder)?;
        self.encode_refusals(&mut encoder)?;
        self.encode_ratings(&mut encoder)
    }
}

impl MediaCollector {
    fn encode_load(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let least = self.0.iter().map(|counters| counters.load.complexity()).min().unwrap_or_default();
        let full = self.0.iter().filter(|counters| !counters.load.admits()).count();
        let rings = self.0.iter().filter(|counters| counters.has_ring.load(Ordering::Relaxed)).count();
        let rows = [
            ("media_threads_with_io_uring", "Media threads that receive with io_uring", rings as i64),
            (
                "media_opus_complexity",
                "Complexity of Opus encoders in the media thread with the most load",
                i64::from(least),
            ),
            (
                "media_threads_full",
                "Media threads that take no calls because they do not keep time",
                full as i64,
            ),
        ];
        for (name, help, value) in rows {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }

    fn encode_refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let threads: Vec<_> = self.0.iter().map(|counters| &counters.refusals).collect();
        let help = "Packets refused on trunk legs, by reason";
        let mut refused =
            encoder.encode_descriptor("media_packets_refused", help, None, MetricType::Counter)?;
        for (reason, count) in PublishedRefusals::total(&threads) {
            ConstCounter::new(count).encode(refused.encode_family(&[("reason", reason)])?)?;
        }
        let help =
            "Times that the media of a trunk leg was followed to a source that was not described, or back";
        let moves = ConstCounter::new(PublishedRefusals::moves(&threads));
        moves.encode(encoder.encode_descriptor("media_source_moves", help, None, moves.metric_type())?)
    }

    fn encode_ratings(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let threads: Vec<_> = self.0.iter().map(|counters| &counters.ratings).collect();
        let legs = RatingsTotal::of(&threads);
        let help = "Mean opinion scores of what came on the legs of calls that are over (ITU-T G.107)";
        let mut scores = encoder.encode_descriptor("media_leg_mos", help, None, MetricType::Histogram)?;
        for leg in &legs {
            let labels = [("leg", leg.side.as_str())];
            scores.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                leg.sum,
                leg.count,
                &leg.classes,
                None,
            )?;
        }
        let help = "What cost the legs of calls that are over most of their quality";
        let mut causes =
            encoder.encode_descriptor("media_leg_impairments", help, None, MetricType::Counter)?;
        for leg in &legs {
            for (cause, count) in leg.causes {
                let labels = [("leg", leg.side.as_str()), ("cause", cause.as_str())];
                ConstCounter::new(count).encode(causes.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Reads what the system knows of this process.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse::<i64>().ok());
        if let Some(kilobytes) = kilobytes {
            let gauge = ConstGauge::new(kilobytes * 1024);
            let help = "Resident memory of the daemon";
            gauge.encode(encoder.encode_descriptor(
                "resident_memory_bytes",
                help,
                None,
                gauge.metric_type(),
            )?)?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let gauge = ConstGauge::new(open.count() as i64);
            gauge.encode(encoder.encode_descriptor(
                "open_descriptors",
                "Open file descriptors",
                None,
                gauge.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// Carries the endpoint's own counters into the metrics, which only know increments.
#[derive(Debug, Default)]
pub(crate) struct Deltas {
    retransmitted: u64,
}

impl Deltas {
    pub(crate) fn apply(&mut self, metrics: &Metrics, counters: &sip_trunk::Counters) {
        let kinds = [
            ("in", &counters.requests_in),
            ("out", &counters.requests_out),
            ("in", &counters.responses_in),
            ("out", &counters.responses_out),
        ];
        for (direction, counts) in kinds {
            for (&kind, &total) in counts {
                let counter = metrics.sip_messages.get_or_create(&KindLabels { direction, kind }).clone();
                counter.inc_by(total.saturating_sub(counter.get()));
            }
        }
        for (family, counts) in
            [(&metrics.sip_refused, &counters.refused), (&metrics.sip_repaired, &counters.repaired)]
        {
            for (&reason, &total) in counts {
                let counter = family.get_or_create(&ReasonLabel { reason }).clone();
                counter.inc_by(total.saturating_sub(counter.get()));
            }
        }
        for (&result, &total) in &counters.quality_reports {
            let counter = metrics.quality_reports.get_or_create(&ResultLabel { result }).clone();
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        metrics.sip_retransmitted.inc_by(counters.retransmitted.saturating_sub(self.retransmitted));
        self.retransmitted = counters.retransmitted;
    }
}
