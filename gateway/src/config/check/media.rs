//! The `[media]` table.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use transcoder::EdgeCodec;

use super::{Check, Checked};
use crate::config::{Media, Receive, Role, Sip, shape};

impl Check<'_> {
    pub(super) fn media(&self, raw: shape::Media, role: Role, sip: Option<&Sip>) -> Checked<Media> {
        let listeners = sip.filter(|_| role == Role::Gateway).map_or(&[][..], |sip| sip.listen.as_slice());
        let public = listeners.iter().map(|(_, listener)| listener.ip()).find(|ip| !ip.is_loopback());
        let address = |key: &str, text: Option<String>| -> Checked<IpAddr> {
            if let (None, Some(public)) = (&text, public) {
                let problem = "none is written, and nobody else reaches 127.0.0.1";
                return self.error(key, problem, format!("write one, such as \"{public}\""));
            }
            let text = text.unwrap_or_else(|| "127.0.0.1".into());
            match text.parse::<IpAddr>() {
                Ok(ip) if !ip.is_unspecified() => Ok(ip),
                _ => self.error(
                    key,
                    format!("\"{text}\" is no address of this host"),
                    "write one, such as \"192.0.2.1\"",
                ),
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as i64;
        let trunk_ports =
            self.ports("media.trunk_ports", raw.trunk_ports.as_deref().unwrap_or("20000-27999"))?;
        let overlay_ports =
            self.ports("media.overlay_ports", raw.overlay_ports.as_deref().unwrap_or("28000-31999"))?;
        let trunk_address = address("media.trunk_address", raw.trunk_address)?;
        let overlay_address = address("media.overlay_address", raw.overlay_address)?;
        if trunk_pairs(&trunk_ports) == 0 {
            let remedy = "begin with an even port, such as \"20000-27999\"";
            return self.error("media.trunk_ports", "no even port with the odd one above it", remedy);
        }
        let overlap =
            trunk_ports.start() <= overlay_ports.end() && overlay_ports.start() <= trunk_ports.end();
        if trunk_address == overlay_address && overlap {
            let remedy = "give the two legs ranges apart, or addresses of their own";
            return self.error("media.overlay_ports", "overlaps with media.trunk_ports", remedy);
        }
        Ok(Media {
            trunk_address,
            trunk_ports,
            overlay_address,
            overlay_ports,
            threads: self.within("media.threads", raw.threads, cores.min(64), 1..=64)? as usize,
            thread_niceness: self.within("media.thread_niceness", raw.thread_niceness, -10, -20..=19)? as i32,
            receive: self
                .choice(
                    "media.receive".to_owned(),
                    raw.receive.as_deref(),
                    &[Receive::Recvmmsg, Receive::IoUring].map(|form| (form.as_str(), form)),
                )?
                .unwrap_or_default(),
            opus_complexity: self.within("media.opus_complexity", raw.opus_complexity, 5, 0..=10)? as u8,
            opus_bitrate: self.within("media.opus_bitrate", raw.opus_bitrate, 16_000, 6_000..=64_000)? as u32,
            suppress_silence: raw.suppress_silence.unwrap_or(true),
            edge_codec: self
                .choice(
                    "media.edge_codec".to_owned(),
                    raw.edge_codec.as_deref(),
                    &[EdgeCodec::Auto, EdgeCodec::Always, EdgeCodec::Never].map(|form| (form.as_str(), form)),
                )?
                .unwrap_or_default(),
            silence_timeout: self.seconds("media.silence_timeout_s", raw.silence_timeout_s, 60, 5..=3600)?,
            dscp: self.dscp("media.dscp", raw.dscp.as_deref(), "EF")?,
            port_quarantine: self.seconds("media.port_quarantine_s", raw.port_quarantine_s, 30, 1..=600)?,
        })
    }

    pub(super) fn ports(&self, key: &str, text: &str) -> Checked<RangeInclusive<u16>> {
        let parsed = text.split_once('-').and_then(|(first, last)| {
            Some((first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?))
        });
        match parsed {
            Some((first, last)) if first >= 1024 && last > first => Ok(first..=last),
            _ => {
                let remedy = "write FIRST-LAST with 1024 or more, such as \"20000-27999\"";
                self.error(key, format!("\"{text}\" is no range of ports"), remedy)
            }
        }
    }

    /// Returns how many calls the ports are enough for.
    pub(super) fn room(media: &Media) -> usize {
        trunk_pairs(&media.trunk_ports).min(media.overlay_ports.len())
    }
}

/// RTP takes an even port, RTCP the odd one above it (RFC 3550 11).
fn trunk_pairs(range: &RangeInclusive<u16>) -> usize {
    let (first, last) = (usize::from(*range.start()).next_multiple_of(2), usize::from(*range.end()));
    (last + 1).saturating_sub(first) / 2
}
