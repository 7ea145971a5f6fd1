use std::net::{IpAddr, SocketAddr};

use call_model::{Codec, Direction};

use super::crypto::{Crypto, Cryptos};
use super::description::{Attribute, Description, Media};
use super::dtls::RemoteDtls;
use super::is_denied;
use super::negotiation::Local;
use super::policy::{MediaPolicy, NegotiationError, Srtp};

/// The clock of the narrow band, in Hz.
const NARROWBAND: u32 = 8_000;

/// What a payload type of an audio m-line stands for, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Codec(Codec),
    /// `telephone-event` with its clock in Hz, which is that of the voice it stands beside (RFC 4733 2.1).
    TelephoneEvent(u32),
}

/// One audio m-line with everything that applies to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Audio {
    /// Index of the m-line.
    pub(super) index: usize,
    /// Known formats in the order of the m-line.
    pub(super) formats: Vec<(u8, Format)>,
    /// Where RTP goes; an unspecified address means: nowhere (RFC 3264 8.4).
    pub(super) rtp: SocketAddr,
    /// Where RTCP goes when it is not multiplexed (RFC 3550 11, RFC 3605).
    pub(super) rtcp: SocketAddr,
    /// Whether `a=rtcp-mux` is there (RFC 5761 5.1.1).
    pub(super) mux: bool,
    /// As the peer wrote it, with a `c=0.0.0.0` counted as "does not receive".
    pub(super) direction: Direction,
    /// RTP/SAVP.
    pub(super) savp: bool,
    pub(super) protection: Protection,
    /// Milliseconds of `a=ptime`, and of `a=maxptime` where that is less.
    pub(super) packet_time_ms: Option<u16>,
}

/// What protects the packets of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// Plain RTP.
    None,
    /// The `a=crypto` line that is used.
    Sdes(Crypto),
    Dtls(RemoteDtls),
}

/// The transports that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Avp,
    Savp,
    /// UDP/TLS/RTP/SAVP (RFC 5764 8).
    Dtls,
}

/// The clocks in Hz that events beside a codec may have, the best first.
pub(super) fn event_clocks(codec: Codec) -> [u32; 2] {
    [codec.clock_rate(), NARROWBAND]
}

impl Audio {
    /// The `a=crypto` line that is used.
    pub(super) fn crypto(&self) -> Option<&Crypto> {
        match &self.protection {
            Protection::Sdes(crypto) => Some(crypto),
            _ => None,
        }
    }

    /// What is said of DTLS, where that is used.
    pub(super) fn dtls(&self) -> Option<&RemoteDtls> {
        match &self.protection {
            Protection::Dtls(dtls) => Some(dtls),
            _ => None,
        }
    }

    /// The first format that is one of `codecs`.
    pub(super) fn first_codec(&self, codecs: &[Codec]) -> Option<(u8, Codec)> {
        self.formats.iter().find_map(|&(number, format)| match format {
            Format::Codec(codec) if codecs.contains(&codec) => Some((number, codec)),
            _ => None,
        })
    }

    /// The telephone events that go with a codec, with their clock in Hz: its own (RFC 4733 2.1), else 8 kHz, which is
    /// all that many peers know beside Opus too.
    pub(super) fn telephone_event(&self, codec: Codec) -> Option<(u8, u32)> {
        event_clocks(codec).into_iter().find_map(|clock| {
            let wanted = Format::TelephoneEvent(clock);
            self.formats.iter().find(|(_, format)| *format == wanted).map(|(number, _)| (*number, clock))
        })
    }

    /// Finds the m-line of an offer to talk over: the first audio line with a known codec and the
    /// protection that is wanted; where either will do, SRTP goes before plain RTP.
    pub(super) fn of_offer(
        description: &Description<'_>,
        policy: &MediaPolicy,
        srtp: Srtp,
    ) -> Result<Self, NegotiationError> {
        let mut error = NegotiationError::NoAudio;
        let mut plain = None;
        for (index, media) in description.medias.iter().enumerate() {
            if !is_audio(media) || media.port == 0 {
                continue;
            }
            let protection = match protection_of_offer(description, media, policy, srtp) {
                Ok(protection) => protection,
                Err(e) => {
                    if error == NegotiationError::NoAudio {
                        error = e;
                    }
                    continue;
                }
            };
            let formats = formats_of(media);
            let known = |format: &(u8, Format)| match format.1 {
                Format::Codec(codec) => policy.codecs.contains(&codec),
                Format::TelephoneEvent(_) => false,
            };
            if !formats.iter().any(known) {
                error = NegotiationError::NoCommonCodec;
            } else if protection != Protection::None {
                return Self::read(description, index, media, formats, protection, policy);
            } else {
                plain.get_or_insert((index, media, formats));
            }
        }
        let (index, media, formats) = plain.ok_or(error)?;
        Self::read(description, index, media, formats, Protection::None, policy)
    }

    /// Reads the m-line of an answer at the index where ours is.
    pub(super) fn of_answer(
        description: &Description<'_>,
        index: usize,
        policy: &MediaPolicy,
        offer: &Local,
    ) -> Result<Self, NegotiationError> {
        let media = description.medias.get(index).ok_or(NegotiationError::MediaLines)?;
        if !is_audio(media) {
            return Err(NegotiationError::MediaLines);
        }
        if media.port == 0 {
            return Err(NegotiationError::AudioRejected);
        }
        let protection = protection_of_answer(description, media, offer)?;
        Self::read(description, index, media, formats_of(media), protection, policy)
    }

    fn read(
        description: &Description<'_>,
        index: usize,
        media: &Media<'_>,
        formats: Vec<(u8, Format)>,
        protection: Protection,
        policy: &MediaPolicy,
    ) -> Result<Self, NegotiationError> {
        let connection = media.connection.or(description.connection);
        let ip = address_of(connection.ok_or(NegotiationError::NoAddress)?)?;
        let rtp = SocketAddr::new(ip, media.port);
        let rtcp = match rtcp_of(media) {
            Some((port, address)) => SocketAddr::new(address.unwrap_or(ip), port),
            None => SocketAddr::new(ip, media.port.checked_add(1).ok_or(NegotiationError::Port)?),
        };
        for address in [rtp.ip(), rtcp.ip()] {
            check_address(address, policy)?;
        }
        let mut direction = direction_of(&media.attributes)
            .or_else(|| direction_of(&description.attributes))
            .unwrap_or(Direction::SendRecv);
        if ip.is_unspecified() {
            direction = if direction.sends() { Direction::SendOnly } else { Direction::Inactive };
        }
        let milliseconds = |name| {
            value_of(&media.attributes, name)
                .or_else(|| value_of(&description.attributes, name))
                .and_then(|v| v.trim().parse::<u16>().ok())
                .filter(|&ms| ms > 0)
        };
        let packet_time_ms = match (milliseconds("ptime"), milliseconds("maxptime")) {
            (Some(time), Some(most)) => Some(time.min(most)),
            (Some(time), None) => Some(time),
            (None, Some(most)) => Some(policy.packet_time_ms.min(most)),
            (None, None) => None,
        };
        Ok(Self {
            index,
            formats,
            rtp,
            rtcp,
            mux: media.attributes.iter().any(|a| a.name.eq_ignore_ascii_case("rtcp-mux")),
            direction,
            savp: transport_of(media) == Ok(Transport::Savp),
            protection,
            packet_time_ms,
        })
    }
}

/// Says whether media may go to an address. An unspecified one is let through: it means nowhere.
pub(super) fn check_address(address: IpAddr, policy: &MediaPolicy) -> Result<(), NegotiationError> {
    let spoken = if address.is_ipv4() { policy.addresses.ipv4 } else { policy.addresses.ipv6 };
    if !spoken {
        return Err(NegotiationError::AddressFamily);
    }
    if !address.is_unspecified() && is_denied(address, &policy.addresses) {
        return Err(NegotiationError::AddressDenied);
    }
    Ok(())
}

fn is_audio(media: &Media<'_>) -> bool {
    media.media.eq_ignore_ascii_case("audio")
}

fn transport_of(media: &Media<'_>) -> Result<Transport, NegotiationError> {
    const SPOKEN: [(&str, Transport); 3] =
        [("RTP/AVP", Transport::Avp), ("RTP/SAVP", Transport::Savp), ("UDP/TLS/RTP/SAVP", Transport::Dtls)];
    match SPOKEN.iter().find(|(name, _)| media.proto.eq_ignore_ascii_case(name)) {
        Some((_, transport)) => Ok(*transport),
        // With feedback (RFC 5124).
        None if media.proto.to_ascii_uppercase().contains("SAVP") => Err(NegotiationError::SecureMedia),
        None => Err(NegotiationError::Transport),
    }
}

/// Chooses how an offered line is protected: by DTLS where that is the trunk's way; else by the first `a=crypto` line
/// with a suite of the policy, in the peer's order (RFC 4568 5.1.2), or not at all. A line of RTP/SAVP is never answered
/// as plain (RFC 4568 7.1.2).
fn protection_of_offer(
    description: &Description<'_>,
    media: &Media<'_>,
    policy: &MediaPolicy,
    srtp: Srtp,
) -> Result<Protection, NegotiationError> {
    let transport = transport_of(media)?;
    match (srtp, transport) {
        (Srtp::Dtls, Transport::Dtls) => return RemoteDtls::of(description, media).map(Protection::Dtls),
        (Srtp::Dtls, Transport::Avp) => return Err(NegotiationError::PlainMedia),
        (Srtp::Never, Transport::Avp) => return Ok(Protection::None),
        (Srtp::Never, _) => return Err(NegotiationError::SecureMedia),
        (Srtp::Dtls, Transport::Savp) | (_, Transport::Dtls) => return Err(NegotiationError::Keying),
        (Srtp::Preferred | Srtp::Required, Transport::Avp | Transport::Savp) => {}
    }
    let cryptos = Cryptos::of(media).usable;
    match cryptos.into_iter().find(|crypto| policy.srtp_suites.contains(&crypto.suite)) {
        Some(crypto) => Ok(Protection::Sdes(crypto)),
        None if transport == Transport::Savp => Err(NegotiationError::Crypto),
        // RFC 8643 4.2: keys that cannot be used leave plain RTP.
        None if srtp == Srtp::Preferred => Ok(Protection::None),
        None => Err(NegotiationError::PlainMedia),
    }
}

/// Reads how an answered line is protected: as it was offered (RFC 3264 6), with keys by the line of our offer that its
/// tag and suite name (RFC 4568 7.1.3), or not at all, where that will do (RFC 8643 4.3).
fn protection_of_answer(
    description: &Description<'_>,
    media: &Media<'_>,
    offer: &Local,
) -> Result<Protection, NegotiationError> {
    let transport = transport_of(media)?;
    match (transport, offer.dtls.is_some()) {
        (Transport::Dtls, true) => return RemoteDtls::of(description, media).map(Protection::Dtls),
        (Transport::Avp, true) => return Err(NegotiationError::PlainMedia),
        (Transport::Savp, true) => return Err(NegotiationError::Keying),
        (_, false) if offer.keys.is_empty() => {
            let plain = transport == Transport::Avp;
            return if plain { Ok(Protection::None) } else { Err(NegotiationError::SecureMedia) };
        }
        (Transport::Dtls, false) => return Err(NegotiationError::Keying),
        (Transport::Avp | Transport::Savp, false) => {}
    }
    let cryptos = Cryptos::of(media);
    let of_ours = |theirs: &Crypto| {
        offer.keys.iter().any(|(tag, key)| *tag == theirs.tag && key.suite() == theirs.suite)
    };
    match cryptos.usable.into_iter().find(of_ours) {
        Some(crypto) => Ok(Protection::Sdes(crypto)),
        // It means to protect, and how is not to be known.
        None if cryptos.any || transport == Transport::Savp => Err(NegotiationError::Crypto),
        None if offer.savp => Err(NegotiationError::PlainMedia),
        None => Ok(Protection::None),
    }
}

/// RFC 3551 6: payload types 0, 8 and 9 need no rtpmap. Where one is given, it counts.
fn formats_of(media: &Media<'_>) -> Vec<(u8, Format)> {
    let rtpmaps: Vec<(u8, &str)> = media
        .attributes
        .iter()
        .filter(|a| a.name.eq_ignore_ascii_case("rtpmap"))
        .filter_map(|a| {
            let (number, encoding) = a.value?.trim().split_once(char::is_whitespace)?;
            Some((number.parse().ok()?, encoding.trim()))
        })
        .collect();
    let mut formats: Vec<(u8, Format)> = Vec::new();
    for number in media.formats.split_whitespace().filter_map(|f| f.parse::<u8>().ok()).filter(|&n| n < 128) {
        if formats.iter().any(|(known, _)| *known == number) {
            continue;
        }
        let format = match rtpmaps.iter().find(|(mapped, _)| *mapped == number) {
            Some((_, encoding)) => format_of(encoding),
            None if number == 0 => Some(Format::Codec(Codec::Pcmu)),
            None if number == 8 => Some(Format::Codec(Codec::Pcma)),
            None if number == 9 => Some(Format::Codec(Codec::G722)),
            None => None,
        };
        formats.extend(format.map(|format| (number, format)));
    }
    formats
}

fn format_of(encoding: &str) -> Option<Format> {
    let mut parts = encoding.split('/');
    let name = parts.next()?;
    let clock: u32 = parts.next()?.trim().parse().ok()?;
    let channels = parts.next().map_or(Some(1), |c| c.trim().parse::<u8>().ok())?;
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    match (clock, channels) {
        (8_000, 1) if is("PCMU") => Some(Format::Codec(Codec::Pcmu)),
        (8_000, 1) if is("PCMA") => Some(Format::Codec(Codec::Pcma)),
        // RFC 3551 4.5.2: 8000, though it is sampled at 16 kHz. Who writes 16000 may count its time by that too.
        (8_000, 1) if is("G722") => Some(Format::Codec(Codec::G722)),
        // RFC 7587 7: the clock is 48000 and the channels are two, whatever is sent.
        (48_000, 2) if is("opus") => Some(Format::Codec(Codec::Opus)),
        (8_000 | 48_000, 1) if is("telephone-event") => Some(Format::TelephoneEvent(clock)),
        _ => None,
    }
}

/// A host name would have to be resolved, by us, for a stranger: refused (RFC 8866 5.7 allows it).
pub(super) fn address_of(connection: &str) -> Result<IpAddr, NegotiationError> {
    let text = connection.split('/').next().unwrap_or_default();
    let text = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    text.parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| NegotiationError::Hostname)
}

/// RFC 3605 2.1: `a=rtcp:port [IN IP4 address]`. An unreadable address leaves that of RTP.
fn rtcp_of(media: &Media<'_>) -> Option<(u16, Option<IpAddr>)> {
    let value = value_of(&media.attributes, "rtcp")?;
    let mut fields = value.split_whitespace();
    let port = fields.next()?.parse().ok().filter(|&port| port != 0)?;
    let address = fields.nth(2).and_then(|a| a.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical());
    Some((port, address))
}

fn value_of<'a>(attributes: &[Attribute<'a>], name: &str) -> Option<&'a str> {
    attributes.iter().find(|a| a.name.eq_ignore_ascii_case(name))?.value
}

fn direction_of(attributes: &[Attribute<'_>]) -> Option<Direction> {
    const ALL: [Direction; 4] =
        [Direction::SendRecv, Direction::SendOnly, Direction::RecvOnly, Direction::Inactive];
    attributes
        .iter()
        .filter(|a| a.value.is_none())
        .find_map(|a| ALL.into_iter().find(|d| a.name.eq_ignore_ascii_case(d.as_str())))
}
