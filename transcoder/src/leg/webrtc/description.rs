//! What str0m does not read in a session description, or lets pass.

use str0m::RtcError;

use super::{CLOCK_RATE, MAX_CANDIDATES, MAX_SDP_LENGTH};
use crate::error::MediaError;

/// RFC 7587 6.1: says what band is worth sending and what band is sent, in Hz.
pub(super) fn with_audio_rates(sdp: &str, rate: u32) -> String {
    let Some(payload_type) = opus_payload_type(sdp) else { return sdp.to_owned() };
    if rate >= CLOCK_RATE {
        return sdp.to_owned();
    }
    let prefix = format!("a=fmtp:{payload_type} ");
    let mut text = String::with_capacity(sdp.len() + 64);
    for line in sdp.lines() {
        text.push_str(line);
        if line.starts_with(&prefix) {
            text.push_str(&format!(";maxplaybackrate={rate};sprop-maxcapturerate={rate}"));
        }
        text.push_str("\r\n");
    }
    text
}

/// Returns the media stream's identification (RFC 5888).
pub(super) fn mid(sdp: &str) -> Option<&str> {
    attribute(sdp, "a=mid:").map(str::trim)
}

/// Returns the sources that a description announces (RFC 5576).
pub(super) fn sources(sdp: &str) -> impl Iterator<Item = u32> + '_ {
    sdp.lines().filter_map(|line| line.strip_prefix("a=ssrc:")?.split_whitespace().next()?.parse().ok())
}

/// Bounds what the parser sees, and admits one audio stream only.
pub(super) fn check_shape(sdp: &str) -> Result<(), MediaError> {
    if sdp.len() > MAX_SDP_LENGTH {
        return Err(MediaError::SdpTooLong);
    }
    let mut streams = sdp.lines().filter_map(|line| line.strip_prefix("m="));
    let (Some(audio), None) = (streams.next(), streams.next()) else { return Err(MediaError::NotOneAudio) };
    // Port 0 refuses the stream (RFC 3264 6).
    let mut words = audio.split_whitespace();
    if words.next() != Some("audio") || words.next().is_none_or(|port| port == "0") {
        return Err(MediaError::NotOneAudio);
    }
    if sdp.lines().filter(|line| line.starts_with("a=candidate:")).count() > MAX_CANDIDATES {
        return Err(MediaError::SdpTooLong);
    }
    Ok(())
}

pub(super) fn refused(error: RtcError) -> MediaError {
    match error {
        RtcError::ChangesOutOfOrder => MediaError::OutOfOrder,
        RtcError::Sdp(_) => MediaError::SdpSyntax,
        other => MediaError::SdpRefused(other.to_string()),
    }
}

fn attribute<'a>(sdp: &'a str, prefix: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix(prefix))
}

fn opus_payload_type(sdp: &str) -> Option<u8> {
    sdp.lines().filter_map(|line| line.strip_prefix("a=rtpmap:")).find_map(|map| {
        let (payload_type, encoding) = map.split_once(' ')?;
        encoding.to_ascii_lowercase().starts_with("opus/").then(|| payload_type.parse().ok()).flatten()
    })
}

pub(super) fn playback_rate(sdp: &str, payload_type: u8) -> u32 {
    attribute(sdp, &format!("a=fmtp:{payload_type} "))
        .and_then(|parameters| {
            let values = parameters.split(';').filter_map(|parameter| parameter.trim().split_once('='));
            values.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("maxplaybackrate"))
        })
        .and_then(|(_, rate)| rate.trim().parse::<u32>().ok())
        .map_or(CLOCK_RATE, |rate| rate.clamp(8_000, CLOCK_RATE))
}
