//! The m-lines that we write.

use call_model::Codec;
use sdp_types::{Attribute, Media};

use super::crypto::Crypto;
use super::negotiation::Local;
use crate::text::is_token;

/// The longest `a=mid` that is repeated.
const MID_MAX: usize = 32;

/// What is kept of an m-line, so that later descriptions have it in its place (RFC 3264 8).
#[derive(Clone)]
pub(super) struct MediaLine {
    media: String,
    proto: String,
    format: String,
    mid: Option<String>,
}

impl MediaLine {
    pub(super) fn of(media: &Media) -> Self {
        let mid = media.attributes.iter().find(|a| a.attribute.eq_ignore_ascii_case("mid"));
        let mid = mid.and_then(|a| a.value.as_deref()).map(str::trim);
        let token = |mid: &&str| (1..=MID_MAX).contains(&mid.len()) && mid.bytes().all(is_token);
        Self {
            media: media.media.clone(),
            proto: media.proto.clone(),
            format: media.fmt.split_whitespace().next().unwrap_or("0").to_owned(),
            mid: mid.filter(token).map(str::to_owned),
        }
    }

    /// The line with port 0 (RFC 3264 6).
    pub(super) fn refused(&self) -> Media {
        media_line(&self.media, 0, &self.proto, &self.format, self.mid().into_iter().collect())
    }

    /// The identification of the line, which an answer repeats (RFC 5888 6). Without `a=group` beside
    /// it no grouping is agreed to.
    pub(super) fn mid(&self) -> Option<Attribute> {
        self.mid.as_ref().map(|mid| Attribute::with_value("mid", mid))
    }
}

fn media_line(media: &str, port: u16, proto: &str, fmt: &str, attributes: Vec<Attribute>) -> Media {
    Media {
        media: media.to_owned(),
        port,
        num_ports: None,
        proto: proto.to_owned(),
        fmt: fmt.to_owned(),
        media_title: None,
        connections: Vec::new(),
        bandwidths: Vec::new(),
        key: None,
        attributes,
    }
}

/// Writes the audio line of a description. Nothing is in it but what is spoken, so that it stays small
/// enough for a datagram.
pub(super) fn audio_line(local: &Local, packet_time_ms: u16, mid: Option<Attribute>) -> Media {
    let numbers = local.codecs.iter().map(|(number, _)| *number).chain(local.event);
    let formats: Vec<String> = numbers.map(|number| number.to_string()).collect();
    let rtpmap = |(number, codec): &(u8, Codec)| {
        let encoding = format!("{number} {}/{}", codec.encoding_name(), codec.clock_rate());
        Attribute::with_value("rtpmap", encoding)
    };
    let mut attributes: Vec<Attribute> = local.codecs.iter().map(rtpmap).collect();
    if let Some(number) = local.event {
        attributes.push(Attribute::with_value("rtpmap", format!("{number} telephone-event/8000")));
        // RFC 4733 2.4.1: the sixteen DTMF events.
        attributes.push(Attribute::with_value("fmtp", format!("{number} 0-15")));
    }
    attributes.push(Attribute::with_value("ptime", packet_time_ms));
    attributes.push(Attribute::new(local.direction.as_str()));
    attributes.extend(local.keys.iter().map(|(tag, key)| Crypto::attribute(*tag, key)));
    attributes.extend(mid);
    if local.mux {
        attributes.push(Attribute::new("rtcp-mux"));
    }
    let proto = if local.savp { "RTP/SAVP" } else { "RTP/AVP" };
    media_line("audio", local.address.port(), proto, &formats.join(" "), attributes)
}
