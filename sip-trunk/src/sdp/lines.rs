//! The m-lines that we write.

use std::fmt::Write as _;

use call_model::{Codec, ImageAttributes};

use super::crypto::Crypto;
use super::description::Media;
use super::negotiation::Local;
use crate::text::is_token;

/// The longest `a=mid` that is repeated.
const MID_MAX: usize = 32;

/// What is kept of an m-line, so that later descriptions have it in its place (RFC 3264 8).
#[derive(Clone)]
pub(super) struct MediaLine {
    media: Box<str>,
    proto: Box<str>,
    format: Box<str>,
    mid: Option<Box<str>>,
}

impl MediaLine {
    pub(super) fn of(media: &Media<'_>) -> Self {
        let mid = media.attributes.iter().find(|a| a.name.eq_ignore_ascii_case("mid"));
        let mid = mid.and_then(|a| a.value).map(str::trim);
        let token = |mid: &&str| (1..=MID_MAX).contains(&mid.len()) && mid.bytes().all(is_token);
        Self {
            media: media.media.into(),
            proto: media.proto.into(),
            format: media.formats.split_whitespace().next().unwrap_or("0").into(),
            mid: mid.filter(token).map(Box::from),
        }
    }

    /// That of an offer of ours.
    pub(super) fn audio(local: &Local) -> Self {
        let format = local.codecs.first().map_or(0, |(number, _)| *number).to_string().into();
        Self { media: "audio".into(), proto: proto(local).into(), format, mid: None }
    }

    /// That of an offer of T.38 (RFC 3362 4, ITU-T T.38 D.2.3).
    pub(super) fn image() -> Self {
        Self { media: "image".into(), proto: "udptl".into(), format: "t38".into(), mid: None }
    }

    pub(super) fn is_audio(&self) -> bool {
        self.media.eq_ignore_ascii_case("audio")
    }

    pub(super) fn is_image(&self) -> bool {
        self.media.eq_ignore_ascii_case("image") && self.proto.eq_ignore_ascii_case("udptl")
    }

    /// Writes the line with port 0 (RFC 3264 6).
    pub(super) fn write_refused(&self, out: &mut String) {
        write_line(out, &["m=", &self.media, " 0 ", &self.proto, " ", &self.format]);
        if let Some(mid) = self.mid() {
            write_line(out, &["a=mid:", mid]);
        }
    }

    /// The identification of the line, which an answer repeats (RFC 5888 6). Without `a=group` beside
    /// it no grouping is agreed to.
    pub(super) fn mid(&self) -> Option<&str> {
        self.mid.as_deref()
    }
}

fn proto(local: &Local) -> &'static str {
    match (&local.dtls, local.savp) {
        (Some(_), _) => "UDP/TLS/RTP/SAVP",
        (None, true) => "RTP/SAVP",
        (None, false) => "RTP/AVP",
    }
}

fn write_line(out: &mut String, parts: &[&str]) {
    out.extend(parts.iter().copied());
    out.push_str("\r\n");
}

/// Writes the image line of a description: T.38 with the attributes of the other side.
pub(super) fn write_image(out: &mut String, port: u16, attributes: &ImageAttributes, mid: Option<&str>) {
    // Writing to a string does not fail.
    let _ = write!(out, "m=image {port} udptl t38\r\n");
    for attribute in attributes.iter() {
        write_line(out, &["a=", attribute]);
    }
    if let Some(mid) = mid {
        write_line(out, &["a=mid:", mid]);
    }
}

/// Writes the audio line of a description. Nothing is in it but what is spoken, so that it stays small
/// enough for a datagram.
pub(super) fn write_audio(out: &mut String, local: &Local, packet_time_ms: u16, mid: Option<&str>) {
    // Writing to a string does not fail.
    let _ = write!(out, "m=audio {} {}", local.address.port(), proto(local));
    let events = local.events.iter().map(|(number, _)| *number);
    for number in local.codecs.iter().map(|(number, _)| *number).chain(events) {
        let _ = write!(out, " {number}");
    }
    out.push_str("\r\n");
    for (number, codec) in &local.codecs {
        // RFC 7587 7: two channels.
        let channels = if *codec == Codec::Opus { "/2" } else { "" };
        let (name, clock_rate) = (codec.encoding_name(), codec.clock_rate());
        let _ = write!(out, "a=rtpmap:{number} {name}/{clock_rate}{channels}\r\n");
    }
    for (number, codec) in &local.codecs {
        if *codec == Codec::Opus {
            // RFC 7587 6.1: what is lost may be made good of the packet after.
            let _ = write!(out, "a=fmtp:{number} useinbandfec=1\r\n");
        }
    }
    for (number, clock_rate) in &local.events {
        // RFC 4733 2.4.1: the sixteen DTMF events.
        let _ = write!(out, "a=rtpmap:{number} telephone-event/{clock_rate}\r\na=fmtp:{number} 0-15\r\n");
    }
    let _ = write!(out, "a=ptime:{packet_time_ms}\r\n");
    write_line(out, &["a=", local.direction.as_str()]);
    for (tag, key) in &local.keys {
        Crypto::write(out, *tag, key);
    }
    if let Some(dtls) = &local.dtls {
        dtls.write(out);
    }
    if let Some(mid) = mid {
        write_line(out, &["a=mid:", mid]);
    }
    if local.mux {
        out.push_str("a=rtcp-mux\r\n");
    }
}
