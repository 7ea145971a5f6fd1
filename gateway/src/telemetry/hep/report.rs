//! The figures of a leg as JSON, under the names that capture agents give those of RTP and collectors draw.

use call_model::LegQuality;
use serde::Serialize;
use sip_trunk::SessionReport;

/// What a collector calls the end of a call.
const LAST: &str = "HANGUP";

/// What was measured of the media that a trunk sent. What was not measured is left out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) struct RtpReport<'a> {
    correlation_id: &'a str,
    rtp_sip_call_id: &'a str,
    #[serde(rename = "TYPE")]
    kind: &'static str,
    /// Seconds since 1970.
    report_ts: u64,
    src_ip: String,
    src_port: u16,
    dst_ip: String,
    dst_port: u16,
    ssrc: Option<String>,
    codec_pt: u8,
    codec_name: &'static str,
    clock: u32,
    total_pk: u64,
    expected_pk: u64,
    packet_loss: u64,
    packet_late: u64,
    out_order: u64,
    /// Milliseconds, as all times.
    jitter: f32,
    mean_jitter: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mos: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_mos: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_mos: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rfactor: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_rfactor: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_rfactor: Option<f32>,
}

impl<'a> RtpReport<'a> {
    pub(super) fn new(report: &'a SessionReport) -> Self {
        let (source, destination) = (report.remote_address.address, report.local_address.address);
        let LegQuality { packets_received, packets_lost, jitter_ms, rating, worst, .. } = report.quality;
        Self {
            correlation_id: &report.call_id,
            rtp_sip_call_id: &report.call_id,
            kind: LAST,
            report_ts: report.until_unix_ms / 1_000,
            src_ip: source.ip().to_canonical().to_string(),
            src_port: source.port(),
            dst_ip: destination.ip().to_canonical().to_string(),
            dst_port: destination.port(),
            ssrc: report.remote_address.ssrc.map(|ssrc| format!("0x{ssrc:08x}")),
            codec_pt: report.received.payload_type,
            codec_name: report.received.codec.encoding_name(),
            clock: report.received.codec.clock_rate(),
            total_pk: packets_received,
            expected_pk: packets_received.saturating_add(packets_lost),
            packet_loss: packets_lost,
            packet_late: report.quality.packets_late,
            out_order: report.quality.packets_duplicate,
            jitter: jitter_ms,
            mean_jitter: jitter_ms,
            rtt: report.quality.round_trip_ms,
            mos: rating.map(|rating| rating.mos),
            mean_mos: rating.map(|rating| rating.mos),
            min_mos: worst.or(rating).map(|rating| rating.mos),
            rfactor: rating.map(|rating| rating.r_factor),
            mean_rfactor: rating.map(|rating| rating.r_factor),
            min_rfactor: worst.or(rating).map(|rating| rating.r_factor),
        }
    }
}
