//! Puts together what one leg has measured, and rates it: over the call, and five seconds at a time.

use std::time::Duration;

use call_model::{Codec, LegQuality, LossBursts, Rating, RemoteQuality};

use super::{Conditions, rate};
use crate::leg::rtp::RemoteReport;
use crate::order::{JitterBuffer, JitterCounters};
use crate::rtp::{GMIN, JitterAdaptation, LossConcealment, LossPattern, ReceiverStatistics, VoipMetrics};

/// Ticks of an interval that is rated by itself: five seconds.
const INTERVAL_TICKS: u32 = 250;
/// Packets that an interval needs to be rated: half a second of voice.
const INTERVAL_PACKETS: u64 = 25;
/// Milliseconds of audio in a packet, where it is not known.
const PACKET_MS: f32 = 20.0;
/// 0 dBm0 is 6.15 dB below full scale (ITU-T G.711, A-law: 3.14 dB below a full sine, which has -3.01 dBov).
const DBOV_OF_DBM0: f32 = -6.15;

/// What was heard of a leg.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Heard {
    /// Packets that were to come: those that did, once each, and those lost.
    pub(crate) expected: u64,
    /// Lost on the way and not brought back.
    pub(crate) lost: u64,
    /// Came, and were not played.
    pub(crate) discarded: u64,
    pub(crate) pattern: LossPattern,
    /// Milliseconds of audio in a packet; 0 if not known.
    pub(crate) packet_ms: f32,
}

impl Heard {
    /// By the counters of a jitter buffer.
    pub(crate) fn ordered(jitter: &JitterBuffer, recovered: u64) -> Self {
        let JitterCounters { received, duplicates, lost, late, discarded, .. } = jitter.counters();
        Self {
            expected: received.saturating_sub(duplicates) + lost,
            lost: lost.saturating_sub(recovered),
            discarded: late + discarded,
            pattern: *jitter.pattern(),
            packet_ms: jitter.packet_time().as_secs_f32() * 1_000.0,
        }
    }

    /// Of a stream that passes as it is: nothing waits, so nothing is too late.
    pub(crate) fn passed(statistics: &ReceiverStatistics) -> Self {
        let pattern = statistics.pattern();
        Self { expected: pattern.total(), lost: pattern.lost(), discarded: 0, pattern, packet_ms: 0.0 }
    }

    /// Of two streams that are one leg's, of which the other is played at present or is not.
    pub(crate) fn with(&self, other: &Self, other_plays: bool) -> Self {
        Self {
            expected: self.expected + other.expected,
            lost: self.lost + other.lost,
            discarded: self.discarded + other.discarded,
            pattern: self.pattern.with(&other.pattern),
            packet_ms: if other_plays { other.packet_ms } else { self.packet_ms },
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            expected: self.expected.saturating_sub(before.expected),
            lost: self.lost.saturating_sub(before.lost),
            discarded: self.discarded.saturating_sub(before.discarded),
            ..*self
        }
    }

    pub(crate) fn conditions(&self, codec: Codec, delay_ms: f32) -> Conditions {
        let share = |part: u64| match self.expected {
            0 => 0.0,
            expected => (part as f64 * 100.0 / expected as f64).min(100.0) as f32,
        };
        Conditions {
            codec,
            lost_percent: share(self.lost),
            discarded_percent: share(self.discarded),
            burst_ratio: self.pattern.burst_ratio(),
            delay_ms,
        }
    }
}

/// Rates one leg in intervals.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Meter {
    ticks: u32,
    before: Heard,
    recent: Option<Rating>,
    worst: Option<Rating>,
}

impl Meter {
    /// Lets a tick pass. At the end of an interval it is rated by what `heard` returns.
    pub(crate) fn tick(&mut self, codec: Codec, delay_ms: f32, heard: impl FnOnce() -> Heard) {
        self.ticks += 1;
        if self.ticks < INTERVAL_TICKS {
            return;
        }
        self.ticks = 0;
        let heard = heard();
        let interval = heard.since(&self.before);
        self.before = heard;
        self.recent = None;
        if interval.expected < INTERVAL_PACKETS {
            return;
        }
        let rating = rate(&[interval.conditions(codec, delay_ms)]);
        self.recent = Some(rating);
        if self.worst.is_none_or(|worst| rating.r_factor < worst.r_factor) {
            self.worst = Some(rating);
        }
    }

    /// Writes the ratings into the figures of the leg, with all that they come from.
    pub(crate) fn fill(&self, codec: Codec, heard: &Heard, delay_ms: f32, quality: &mut LegQuality) {
        let bursts = heard.pattern.bursts();
        let packet_ms = if heard.packet_ms > 0.0 { heard.packet_ms } else { PACKET_MS };
        quality.bursts = LossBursts {
            count: bursts.count,
            burst_loss_percent: bursts.burst_density * 100.0,
            gap_loss_percent: bursts.gap_density * 100.0,
            burst_ms: bursts.burst_packets * packet_ms,
            gap_ms: bursts.gap_packets * packet_ms,
        };
        quality.burst_ratio = heard.pattern.burst_ratio();
        quality.rating = (heard.expected > 0).then(|| rate(&[heard.conditions(codec, delay_ms)]));
        quality.listening = (heard.expected > 0).then(|| rate(&[heard.conditions(codec, 0.0)]));
        quality.packet_ms = heard.packet_ms;
        (quality.recent, quality.worst) = (self.recent, self.worst);
    }
}

/// One way from mouth to us, as far as it is known: half of the round trip, a packet, and the jitter buffer.
pub(crate) fn delay_ms(round_trip: Option<Duration>, playout_delay: Duration) -> f32 {
    let way = round_trip.map_or(0.0, |time| time.as_secs_f32() * 500.0);
    way + PACKET_MS + playout_delay.as_secs_f32() * 1_000.0
}

/// What the media we sent went through, as the other side reports it.
pub(crate) fn remote_conditions(
    codec: Codec,
    report: &RemoteReport,
    round_trip: Option<Duration>,
) -> Conditions {
    let percent = |rate: u8| f32::from(rate) * 100.0 / 256.0;
    let held = report.metrics.map_or(0, |metrics| metrics.end_system_delay_ms);
    Conditions {
        codec,
        lost_percent: report.metrics.map_or(report.loss_percent, |metrics| percent(metrics.loss_rate)),
        discarded_percent: report.metrics.map_or(0.0, |metrics| percent(metrics.discard_rate)),
        burst_ratio: 1.0,
        delay_ms: delay_ms(round_trip, Duration::from_millis(held.into())),
    }
}

/// What the other side says, rated by its own count where it gives one.
pub(crate) fn remote_quality(
    codec: Codec,
    report: &RemoteReport,
    round_trip: Option<Duration>,
) -> RemoteQuality {
    let conditions = remote_conditions(codec, report, round_trip);
    let mut rating = rate(&[conditions]);
    if let Some(r_factor) = report.metrics.and_then(|metrics| metrics.r_factor).map(f32::from) {
        (rating.r_factor, rating.mos) = (r_factor, super::mos(r_factor));
    }
    if let Some(score) = report.metrics.and_then(|metrics| metrics.mos_cq) {
        rating.mos = f32::from(score) / 10.0;
    }
    RemoteQuality {
        loss_percent: conditions.lost_percent,
        discard_percent: conditions.discarded_percent,
        jitter_ms: report.jitter_ms,
        rating: Some(rating),
        voip_metrics: report.metrics.is_some(),
        // RFC 3611 4.7.3: 0 where it is not known.
        end_system_ms: report
            .metrics
            .map(|metrics| f32::from(metrics.end_system_delay_ms))
            .filter(|delay| *delay > 0.0),
    }
}

/// Puts the figures of a leg into the words of RFC 3611 4.7, about `ssrc`.
pub(crate) fn voip_metrics(
    ssrc: u32,
    codec: Codec,
    quality: &LegQuality,
    heard: &Heard,
    jitter: &JitterBuffer,
) -> VoipMetrics {
    let share = |percent: f32| (percent * 2.56).round().clamp(0.0, 255.0) as u8;
    let ms = |ms: f32| ms.round().clamp(0.0, f32::from(u16::MAX)) as u16;
    let level =
        |level: Option<f32>| level.map(|level| (level - DBOV_OF_DBM0).round().clamp(-128.0, 126.0) as i8);
    let conditions = heard.conditions(codec, 0.0);
    let score = |rating: Option<Rating>| rating.map(|rating| (rating.mos * 10.0).round() as u8);
    let listening = (heard.expected > 0).then(|| rate(&[conditions]));
    let playout = quality.playout_delay_ms;
    VoipMetrics {
        ssrc,
        loss_rate: share(conditions.lost_percent),
        discard_rate: share(conditions.discarded_percent),
        burst_density: share(quality.bursts.burst_loss_percent),
        gap_density: share(quality.bursts.gap_loss_percent),
        burst_duration_ms: ms(quality.bursts.burst_ms),
        gap_duration_ms: ms(quality.bursts.gap_ms),
        round_trip_ms: ms(quality.round_trip_ms.unwrap_or(0.0)),
        // What is sent leaves after a packet's time, what is received after the jitter buffer's.
        end_system_delay_ms: ms(playout + PACKET_MS),
        signal_level_dbm0: level(quality.voice_dbov),
        noise_level_dbm0: level(quality.noise_dbov),
        echo_return_loss_db: None,
        gmin: GMIN,
        r_factor: quality.rating.map(|rating| rating.r_factor.round() as u8),
        external_r_factor: None,
        mos_lq: score(listening),
        mos_cq: score(quality.rating),
        concealment: LossConcealment::Enhanced,
        adaptation: JitterAdaptation::Adaptive,
        jitter_buffer_ms: ms(playout),
        jitter_buffer_max_ms: ms(jitter.longest_delay().as_secs_f32() * 1_000.0),
        jitter_buffer_limit_ms: ms(jitter.config().max_delay.as_secs_f32() * 1_000.0),
    }
}
