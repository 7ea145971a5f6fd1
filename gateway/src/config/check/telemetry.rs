//! The `[telemetry]` table.

use std::net::{IpAddr, SocketAddr};

use sip_trunk::auth::Secret;

use super::{Check, Checked};
use crate::config::{Hep, Sip, shape};

/// The port that collectors of HEP listen on.
const HEP_PORT: u16 = 9060;
/// Octets of the longest key: there must be room for it beside a message.
const MAX_KEY: usize = 255;

impl Check<'_> {
    pub(super) fn hep(&self, raw: shape::Hep, sip: Option<&Sip>) -> Checked<Hep> {
        if sip.is_none() {
            let remedy = "take [telemetry.hep] out, or add a [sip] table";
            return self.error("telemetry.hep", "there is no SIP to tell of", remedy);
        }
        let (messages, quality) = (raw.messages.unwrap_or(false), raw.quality.unwrap_or(true));
        if !messages && !quality {
            let remedy = "set messages = true or leave quality out, or take [telemetry.hep] out";
            return self.error("telemetry.hep.quality", "nothing is left to send", remedy);
        }
        Ok(Hep {
            collector: self.collector(&raw.collector)?,
            capture_id: self.within("telemetry.hep.capture_id", raw.capture_id, 1, 0..=i64::from(u32::MAX))?
                as u32,
            key: raw.key_file.map(|file| self.hep_key(self.beside(file))).transpose()?,
            messages,
            quality,
        })
    }

    fn collector(&self, text: &str) -> Checked<SocketAddr> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        let address = text.parse().or_else(|_| bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, HEP_PORT)));
        match address {
            Ok(address) if !address.ip().is_unspecified() && address.port() != 0 => Ok(address),
            _ => self.error(
                "telemetry.hep.collector",
                format!("\"{text}\" is no address of a collector"),
                "write ADDRESS or ADDRESS:PORT, such as \"192.0.2.60:9060\"; it is sent to by UDP",
            ),
        }
    }

    fn hep_key(&self, file: std::path::PathBuf) -> Checked<Secret> {
        const KEY: &str = "telemetry.hep.key_file";
        match std::fs::read_to_string(&file) {
            Ok(text) => match text.trim() {
                "" => self.error(KEY, format!("{} is empty", file.display()), "write the key into it"),
                key if key.len() > MAX_KEY => {
                    let problem = format!("the key in {} has {} octets", file.display(), key.len());
                    self.error(KEY, problem, format!("agree on one of {MAX_KEY} at most"))
                }
                key => Ok(Secret::new(key)),
            },
            Err(error) => {
                let problem = format!("{}: {error}", file.display());
                self.error(KEY, problem, "name a file that the daemon may read")
            }
        }
    }
}
