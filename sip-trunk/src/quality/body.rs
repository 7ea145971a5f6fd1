//! The body of a report (RFC 6035 4.6.1), line for line in the order of its grammar.
//!
//! What was not measured is left out. No line is folded, and each ends with CRLF, the last one too.

use std::fmt::{Display, Write};
use std::net::SocketAddr;

use call_model::{Codec, LegQuality, LossBursts, Rating, RemoteQuality};

/// The most characters of one value that came from outside.
const VALUE_MAX: usize = 256;

/// dBm0 of a level of 0 dBov: a sine at the end of the range of G.711 has 3.14 dBm0 (ITU-T G.711 2), and 3.01 dB less
/// power than the square wave that 0 dBov is (RFC 3389 3.1).
const DBM0_OF_DBOV: f32 = 6.15;

/// Which report it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    /// The last one, of the whole call: `VQSessionReport: CallTerm`.
    Session,
    /// One of a call that goes on: `VQIntervalReport`.
    Interval,
}

/// One end of the media (RFC 6035 4.6.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaAddress {
    /// Where its RTP comes from.
    pub address: SocketAddr,
    /// Its synchronisation source; `None`: not known. The grammar has no address without one, so 0 stands for
    /// that.
    pub ssrc: Option<u32>,
}

/// A stream as it was agreed on (RFC 6035 4.6.2.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StreamDescription {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// The codec.
    pub codec: Codec,
    /// Milliseconds of audio in a packet, 1 to 999; `None`: not known.
    pub packet_ms: Option<f32>,
}

/// A report of the media between this side and one other.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionReport {
    /// Which report it is.
    pub reported: Reported,
    /// The Call-ID.
    pub call_id: String,
    /// Our URI; `None`: it is private or not known, and an anonymous one stands for it (RFC 3323 4.1.1.3).
    pub local: Option<String>,
    /// The URI of the other side, in the same way.
    pub remote: Option<String>,
    /// The other side called.
    pub incoming: bool,
    /// Our end of the media.
    pub local_address: MediaAddress,
    /// The other end.
    pub remote_address: MediaAddress,
    /// What this side's reports are to be gathered under.
    pub local_group: String,
    /// What reports of the other side are to be gathered under.
    pub remote_group: String,
    /// Wall clock at the beginning of what was measured, in milliseconds since 1970.
    pub from_unix_ms: u64,
    /// Wall clock at its end, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// What came.
    pub received: StreamDescription,
    /// What was sent.
    pub sent: StreamDescription,
    /// What was measured of it.
    pub quality: LegQuality,
    /// The tags of To and From of the INVITE; without, no dialog is named.
    pub tags: Option<(String, String)>,
}

impl SessionReport {
    /// Writes the body.
    #[must_use]
    pub fn write(&self) -> String {
        let mut out = String::with_capacity(1200);
        out.push_str(match self.reported {
            Reported::Session => "VQSessionReport: CallTerm\r\n",
            Reported::Interval => "VQIntervalReport\r\n",
        });
        let call_id = clean(&self.call_id);
        let (local, remote) = (identity(self.local.as_deref()), identity(self.remote.as_deref()));
        line(&mut out, "CallID", &call_id);
        line(&mut out, "LocalID", &local);
        line(&mut out, "RemoteID", &remote);
        line(&mut out, "OrigID", if self.incoming { &remote } else { &local });
        line(&mut out, "LocalAddr", &self.local_address.text());
        line(&mut out, "RemoteAddr", &self.remote_address.text());
        line(&mut out, "LocalGroup", &clean(&self.local_group));
        line(&mut out, "RemoteGroup", &clean(&self.remote_group));
        out.push_str("LocalMetrics:\r\n");
        self.times(&mut out);
        self.local_metrics(&mut out);
        if let Some(remote) = &self.quality.remote {
            out.push_str("RemoteMetrics:\r\n");
            self.times(&mut out);
            self.remote_metrics(&mut out, remote);
        }
        if let Some((to, from)) = &self.tags {
            let tags = format!("{call_id};to-tag={};from-tag={}", clean(to), clean(from));
            line(&mut out, "DialogID", &tags);
        }
        out
    }

    fn times(&self, out: &mut String) {
        let until = self.until_unix_ms.max(self.from_unix_ms);
        let times = format!("START={} STOP={}", date_time(self.from_unix_ms), date_time(until));
        line(out, "Timestamps", &times);
    }

    /// What we measured of what came.
    fn local_metrics(&self, out: &mut String) {
        let quality = &self.quality;
        // Where packets pass as they are nothing is concealed, and no jitter buffer holds them.
        let decoded = quality.frames_played > 0;
        let mut stream = self.received.parameters();
        // RFC 3611 4.7.6: enhanced concealment, an adaptive jitter buffer.
        stream.put("PLC", decoded.then_some(2));
        stream.write(out, "SessionDesc");
        let mut buffer = Parameters::default();
        buffer.put("JBA", decoded.then_some(3));
        buffer.put("JBN", milliseconds(decoded.then_some(quality.playout_delay_ms)));
        buffer.put("JBM", milliseconds(Some(quality.playout_delay_max_ms).filter(|ms| decoded && *ms > 0.0)));
        buffer
            .put("JBX", milliseconds(Some(quality.playout_delay_limit_ms).filter(|ms| decoded && *ms > 0.0)));
        buffer.write(out, "JitterBuffer");
        let expected = quality.packets_received.saturating_add(quality.packets_lost);
        let heard = expected > 0;
        let share = |part: u64| heard.then(|| (part as f64 * 100.0 / expected as f64).min(100.0) as f32);
        let mut loss = Parameters::default();
        // RFC 3611 4.7.1: what error correction brought back is not lost.
        loss.put("NLR", percent(share(quality.packets_lost.saturating_sub(quality.frames_recovered))));
        loss.put("JDR", percent(share(quality.packets_late.saturating_add(quality.packets_discarded))));
        loss.write(out, "PacketLoss");
        let lay = heard.then_some(quality.bursts);
        let mut bursts = Parameters::default();
        bursts.put("BLD", percent(lay.map(|b| b.burst_loss_percent)));
        bursts.put("BD", duration(lay.map(|b| b.burst_ms)));
        bursts.put("GLD", percent(lay.map(|b| b.gap_loss_percent)));
        bursts.put("GD", duration(lay.map(|b| b.gap_ms)));
        bursts.put("GMIN", lay.map(|_| LossBursts::MIN_GAP));
        bursts.write(out, "BurstGapLoss");
        let mut delay = Parameters::default();
        // RFC 3611 4.7.3: to play what came takes the jitter buffer, to send a packet the time of one.
        let own =
            (decoded && quality.packet_ms > 0.0).then_some(quality.playout_delay_ms + quality.packet_ms);
        let theirs = quality.remote.and_then(|remote| remote.end_system_ms);
        let one_way = quality.round_trip_ms.zip(own).zip(theirs);
        delay.put("RTD", milliseconds(quality.round_trip_ms));
        delay.put("ESD", milliseconds(own));
        // RFC 3611 4.7.3: half of the way there and back, from mouth to ear.
        delay.put("SOWD", milliseconds(one_way.map(|((trip, own), theirs)| (trip + own + theirs) / 2.0)));
        delay.put("IAJ", milliseconds(heard.then_some(quality.jitter_ms)));
        delay.write(out, "Delay");
        let mut signal = Parameters::default();
        signal.put("SL", level(quality.voice_dbov));
        signal.put("NL", level(quality.noise_dbov));
        signal.write(out, "Signal");
        // What the way takes is part of the conversation; as long as it is not known, that is not rated.
        let talking = quality.rating.filter(|_| quality.round_trip_ms.is_some());
        let mut estimates = Parameters::of_ratings(quality.listening, talking);
        let any = !estimates.0.is_empty();
        estimates.put("QoEEstAlg", any.then_some("G.107"));
        estimates.write(out, "QualityEst");
    }

    /// What the other side says of what we sent.
    fn remote_metrics(&self, out: &mut String, remote: &RemoteQuality) {
        self.sent.parameters().write(out, "SessionDesc");
        let told = remote.voip_metrics;
        let mut loss = Parameters::default();
        loss.put("NLR", percent(Some(remote.loss_percent)));
        loss.put("JDR", percent(told.then_some(remote.discard_percent)));
        loss.write(out, "PacketLoss");
        let mut delay = Parameters::default();
        delay.put("ESD", milliseconds(remote.end_system_ms));
        delay.put("IAJ", milliseconds(Some(remote.jitter_ms)));
        delay.write(out, "Delay");
        Parameters::of_ratings(None, remote.rating.filter(|_| told)).write(out, "QualityEst");
    }
}

impl MediaAddress {
    fn text(&self) -> String {
        let (ip, port, ssrc) = (self.address.ip().to_canonical(), self.address.port(), self.ssrc);
        format!("IP={ip} PORT={port} SSRC=0x{:08x}", ssrc.unwrap_or(0))
    }
}

impl StreamDescription {
    fn parameters(&self) -> Parameters {
        let mut stream = Parameters::default();
        let packet_ms = self.packet_ms.filter(|ms| (1.0..=999.0).contains(ms)).map(|ms| ms.round());
        stream.put("PT", Some(self.payload_type.min(127)));
        stream.put("PD", Some(self.codec.encoding_name()));
        // RFC 6035 4.6.2.3: the rate of the samples, which is not that of the clock with G.722.
        stream.put("SR", Some(self.codec.sample_rate()));
        stream.put("PPS", packet_ms.map(|ms| (1000.0 / ms).round() as u32));
        // RFC 6035 4.6.2.3: of a codec by samples, all those of a packet are one frame, and each tick of the clock of
        // G.711 and G.722 is an octet. Packets of Opus hold frames of any number and size.
        let sampled = packet_ms.filter(|_| self.codec != Codec::Opus);
        stream.put("FD", sampled.map(|ms| ms as u32));
        stream.put("FO", sampled.map(|ms| ms as u32 * (self.codec.clock_rate() / 1000)));
        stream.put("FPP", sampled.map(|_| 1));
        stream
    }
}

/// The parameters of a line that are known.
#[derive(Default)]
struct Parameters(String);

impl Parameters {
    fn of_ratings(listening: Option<Rating>, talking: Option<Rating>) -> Self {
        let factor = |rating: Option<Rating>| {
            rating.map(|r| r.r_factor).filter(|r| r.is_finite()).map(|r| r.round().clamp(0.0, 120.0) as u8)
        };
        let score = |rating: Option<Rating>| {
            rating.map(|r| r.mos).filter(|m| m.is_finite()).map(|m| format!("{:.2}", m.clamp(1.0, 4.9)))
        };
        let mut estimates = Self::default();
        estimates.put("RLQ", factor(listening));
        estimates.put("RCQ", factor(talking));
        estimates.put("MOSLQ", score(listening));
        estimates.put("MOSCQ", score(talking));
        estimates
    }

    fn put(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            // Writing to a string does not fail.
            let _ = write!(self.0, " {name}={value}");
        }
    }

    fn write(&self, out: &mut String, name: &str) {
        if !self.0.is_empty() {
            line(out, name, self.0.trim_start());
        }
    }
}

fn line(out: &mut String, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.push_str(part);
    }
}

fn percent(value: Option<f32>) -> Option<String> {
    value.filter(|value| value.is_finite()).map(|value| format!("{:.2}", value.clamp(0.0, 100.0)))
}

/// 16 bits, as RFC 3611 4.7 has them.
fn milliseconds(value: Option<f32>) -> Option<u16> {
    value.filter(|ms| ms.is_finite()).map(|ms| ms.round().clamp(0.0, f32::from(u16::MAX)) as u16)
}

/// An hour at most.
fn duration(value: Option<f32>) -> Option<u32> {
    value.filter(|ms| ms.is_finite()).map(|ms| ms.round().clamp(0.0, 3_600_000.0) as u32)
}

/// Two digits, in dBm0.
fn level(dbov: Option<f32>) -> Option<i8> {
    dbov.filter(|db| db.is_finite()).map(|db| (db + DBM0_OF_DBOV).round().clamp(-99.0, 99.0) as i8)
}

fn identity(uri: Option<&str>) -> String {
    format!("<{}>", uri.map_or_else(|| "sip:anonymous@anonymous.invalid".to_owned(), clean))
}

/// Keeps a value from outside to one word on its line.
fn clean(value: &str) -> String {
    let plain = |c: char| if c.is_control() || c.is_whitespace() || "<>".contains(c) { '_' } else { c };
    value.chars().take(VALUE_MAX).map(plain).collect()
}

/// Writes a moment in UTC (RFC 3339 5.6), to the second.
fn date_time(unix_ms: u64) -> String {
    const DAY: u64 = 86_400;
    // The last second of the year 9999: there is no year of five digits.
    let seconds = (unix_ms / 1000).min(253_402_300_799);
    let (mut day, second) = (seconds / DAY, seconds % DAY);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // 400 years of the Gregorian calendar have 146,097 days, and 1970 stands as well in such a period as any.
    let mut year = 1970 + day / 146_097 * 400;
    day %= 146_097;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}Z", day + 1, second % 60)
}
