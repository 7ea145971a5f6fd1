//! What a bridge tells of itself: counts, figures of quality, what the sound shows.

use std::time::Duration;

use call_model::{CallAudio, Codec, LegQuality, Rating, Side};

use super::Bridge;
use crate::leg::rtp::{RtpCounters, SourceRule};
use crate::leg::webrtc::WebRtcCounters;
use crate::quality::{Heard, Meter, delay_ms, rate, remote_conditions, remote_quality, voip_metrics};
use crate::rtp::VoipMetrics;

impl Bridge {
    /// Lets a tick pass for the ratings.
    pub(super) fn rate_tick(&mut self) {
        for side in [Side::Overlay, Side::Trunk] {
            let (codec, delay) = (self.codec_of(side), self.delay_of(side));
            let mut meter = *self.meter_of(side);
            meter.tick(codec, delay, || self.heard(side));
            *(if side == Side::Overlay { &mut self.overlay_meter } else { &mut self.trunk_meter }) = meter;
        }
    }

    fn meter_of(&self, side: Side) -> &Meter {
        if side == Side::Overlay { &self.overlay_meter } else { &self.trunk_meter }
    }

    fn codec_of(&self, side: Side) -> Codec {
        if side == Side::Overlay { self.overlay_in.codec() } else { self.trunk_codec }
    }

    fn round_trip_of(&self, side: Side) -> Option<Duration> {
        if side == Side::Overlay { self.overlay.round_trip() } else { self.trunk.round_trip() }
    }

    /// One way from the other end of a leg to where it is played, in milliseconds.
    fn delay_of(&self, side: Side) -> f32 {
        let jitter = if side == Side::Overlay { self.overlay_in.jitter() } else { self.trunk_in.jitter() };
        // What passes is in no jitter buffer.
        let held = if self.passing.is_some() { Duration::ZERO } else { jitter.target_delay() };
        delay_ms(self.round_trip_of(side), held)
    }

    fn heard(&self, side: Side) -> Heard {
        match (side, self.has_passed) {
            (Side::Overlay, false) => self.overlay_in.heard(),
            (Side::Overlay, true) => self.overlay_in.passed(),
            (_, false) => self.trunk_in.heard(),
            (_, true) => Heard::passed(self.trunk.statistics()),
        }
    }

    /// Returns what was measured of the media that a side sent us, and what that side says of what we sent: at any
    /// time, and after [`stop`](Self::stop) for good.
    pub fn quality(&self, side: Side) -> LegQuality {
        let (mut quality, totals, remote) = match side {
            Side::Overlay => (
                self.overlay_in.quality(&self.overlay),
                self.overlay_in.totals(),
                self.overlay.remote_report(),
            ),
            Side::Trunk => {
                let statistics = self.trunk.statistics();
                let totals = (statistics.packets(), statistics.lost());
                (self.trunk_in.quality(&self.trunk), totals, self.trunk.remote_report())
            }
            Side::Onward => return LegQuality::default(),
        };
        if self.has_passed {
            // What passed was in no jitter buffer.
            (quality.packets_received, quality.packets_lost) = totals;
        }
        if side == Side::Trunk {
            (quality.source, quality.own_source) = (self.trunk.source(), Some(self.trunk.own_source()));
        }
        let (codec, round_trip) = (self.codec_of(side), self.round_trip_of(side));
        quality.round_trip_ms = round_trip.map(|time| time.as_secs_f32() * 1_000.0);
        quality.remote = remote.map(|report| remote_quality(codec, report, round_trip));
        self.meter_of(side).fill(codec, &self.heard(side), self.delay_of(side), &mut quality);
        self.audio.fill(side, &mut quality);
        quality
    }

    /// Rates what goes from the mouth at one side to the ear at the other, through both legs: what we measured of
    /// the first, and what the other side reported of the second. `None` until something was heard.
    pub fn path_rating(&self, from: Side) -> Option<Rating> {
        let to = match from {
            Side::Overlay => Side::Trunk,
            Side::Trunk => Side::Overlay,
            Side::Onward => return None,
        };
        let heard = self.heard(from);
        if heard.expected == 0 {
            return None;
        }
        let first = heard.conditions(self.codec_of(from), self.delay_of(from));
        let report =
            if to == Side::Overlay { self.overlay.remote_report() } else { self.trunk.remote_report() };
        let report = report.copied().unwrap_or_default();
        Some(rate(&[first, remote_conditions(self.codec_of(to), &report, self.round_trip_of(to))]))
    }

    /// Returns what the sound of both sides shows: both speaking, one not heard. Nothing where Opus passes, for that
    /// is not decoded.
    pub fn audio(&self) -> CallAudio {
        self.audio.call()
    }

    /// What our reports tell the trunk of its stream (RFC 3611 4.7). `None` until there is one.
    pub(super) fn trunk_metrics(&self) -> Option<VoipMetrics> {
        let heard = self.heard(Side::Trunk);
        let source = self.trunk.source().filter(|_| heard.expected > 0)?;
        let quality = self.quality(Side::Trunk);
        Some(voip_metrics(source, self.trunk_codec, &quality, &heard, self.trunk_in.jitter()))
    }

    /// Never hears these sources on the trunk leg, unless SRTP says that they are the other side's: what an earlier
    /// call on the same port was heard from ([`trunk_source`](Self::trunk_source)). The last four are kept.
    pub fn refuse_trunk_sources(&mut self, sources: &[u32]) {
        self.trunk.refuse_sources(sources);
    }

    /// Returns the synchronisation source that is heard on the trunk leg.
    pub fn trunk_source(&self) -> Option<u32> {
        self.trunk.source()
    }

    /// Sets where the packets of the trunk leg may come from.
    pub fn set_trunk_source_rule(&mut self, rule: SourceRule) {
        self.trunk.set_source_rule(rule);
    }

    /// Returns the counts of datagrams of the overlay leg.
    pub fn overlay_counters(&self) -> &WebRtcCounters {
        self.overlay.counters()
    }

    /// Returns the counts of packets of the trunk leg.
    pub fn trunk_counters(&self) -> &RtpCounters {
        self.trunk.counters()
    }

    /// Returns the round trip time to the trunk, once RTCP has shown it.
    pub fn trunk_round_trip(&self) -> Option<Duration> {
        self.trunk.round_trip()
    }

    /// Returns the number of frames lost on the way from the overlay that in-band FEC or redundancy brought back.
    pub fn frames_recovered(&self) -> u64 {
        self.overlay_in.recovered()
    }

    /// Returns the loss in per cent that in-band FEC towards the overlay is made for, 0 without it.
    pub fn fec_percent(&self) -> u8 {
        self.overlay_out.fec_percent()
    }

    /// Returns how many of the frames before its own a packet to the overlay carries once more (RFC 2198).
    pub fn redundancy(&self) -> u8 {
        self.overlay_out.redundancy()
    }

    /// Returns the number of ticks given up because the driver came too late.
    pub fn ticks_skipped(&self) -> u64 {
        self.ticks_skipped
    }
}
