use std::fmt;
use std::net::{IpAddr, SocketAddr};

use call_model::{Cause, Codec, Direction, LegMedia, MediaSecurity, TelephoneEvent};
use sdp_types::{Attribute, Connection, Media, Origin, Session, Time};

use super::address::AddressPolicy;
use super::audio::Audio;
use super::description::{Description, SdpError, Version};
use crate::wire::tolerance::{Repair, Repairs};

/// The payload type that our offers give to telephone events.
const EVENT_PAYLOAD_TYPE: u8 = 101;
/// Packet times that are sent, in milliseconds.
const PACKET_TIME_MS: std::ops::RangeInclusive<u16> = 10..=60;

/// What a trunk wants of media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPolicy {
    /// Codecs in order of preference. Those without a static payload type are not used on trunks.
    pub codecs: Vec<Codec>,
    /// Milliseconds of audio in a packet, where the peer does not ask for something else.
    pub packet_time_ms: u16,
    /// Whether DTMF is offered and accepted as telephone events (RFC 4733).
    pub telephone_event: bool,
    /// Which addresses media may go to.
    pub addresses: AddressPolicy,
    /// Whether faults of session descriptions are mended.
    pub tolerant: bool,
}

impl MediaPolicy {
    /// Builds a policy with telephone events, mended faults and the default addresses.
    pub fn new(codecs: Vec<Codec>, packet_time_ms: u16) -> Self {
        Self {
            codecs,
            packet_time_ms,
            telephone_event: true,
            addresses: AddressPolicy::default(),
            tolerant: true,
        }
    }
}

/// Where the offer/answer exchange of a dialog stands (RFC 3264 4, RFC 6337 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No offer is open.
    Stable,
    /// We have offered and wait for the answer.
    LocalOffer,
    /// The peer has offered and waits for ours.
    RemoteOffer,
}

/// Says why no media could be agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// The body cannot be read.
    #[error(transparent)]
    Sdp(#[from] SdpError),
    /// No codec that both sides speak.
    #[error("no codec in common")]
    NoCommonCodec,
    /// No audio line that is in use.
    #[error("no audio is offered")]
    NoAudio,
    /// Only SRTP was offered, which this trunk does not speak.
    #[error("the trunk speaks plain RTP and SRTP was asked for")]
    SecureMedia,
    /// A transport other than RTP/AVP.
    #[error("the media transport is not RTP/AVP")]
    Transport,
    /// The media address is not a literal address.
    #[error("the media address is not an IP address")]
    Hostname,
    /// No `c=` line applies to the audio line.
    #[error("the media address is missing")]
    NoAddress,
    /// The media address is one that packets must not be sent to.
    #[error("the media address is not allowed")]
    AddressDenied,
    /// The media address is of a family that is not spoken here.
    #[error("the media address is of the wrong family")]
    AddressFamily,
    /// The RTP port leaves none for RTCP.
    #[error("the media port leaves none for RTCP")]
    Port,
    /// The answer refuses the audio line.
    #[error("the answer refuses audio")]
    AudioRejected,
    /// The answer does not have the m-lines of the offer (RFC 3264 6).
    #[error("the m-lines of the answer are not those of the offer")]
    MediaLines,
    /// An offer or answer where none may be.
    #[error("no offer or answer may be made now")]
    WrongState,
}

impl NegotiationError {
    /// Returns the label for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Sdp(_) => "sdp",
            Self::NoCommonCodec => "no_common_codec",
            Self::NoAudio => "no_audio",
            Self::SecureMedia => "secure_media",
            Self::Transport => "transport",
            Self::Hostname => "hostname",
            Self::NoAddress => "no_address",
            Self::AddressDenied => "address_denied",
            Self::AddressFamily => "address_family",
            Self::Port => "port",
            Self::AudioRejected => "audio_rejected",
            Self::MediaLines => "media_lines",
            Self::WrongState => "wrong_state",
        }
    }

    /// Returns the status that refuses the offer (RFC 3261 21.4.26).
    pub fn status(&self) -> u16 {
        match self {
            Self::Sdp(_) => 400,
            Self::WrongState => 500,
            _ => 488,
        }
    }

    /// Returns code and text of the Warning header that goes with the status (RFC 3261 20.43).
    pub fn warning(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::NoCommonCodec => Some((305, "Incompatible media format")),
            Self::NoAudio | Self::AudioRejected => Some((304, "Media type not available")),
            Self::SecureMedia | Self::Transport => Some((302, "Incompatible transport protocol")),
            Self::Hostname | Self::AddressFamily => Some((301, "Incompatible network address formats")),
            Self::NoAddress | Self::AddressDenied | Self::Port => Some((399, "Media address not usable")),
            Self::Sdp(_) | Self::MediaLines | Self::WrongState => None,
        }
    }

    /// Returns the cause for the other leg.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Sdp(_) | Self::MediaLines => Cause::INVALID_MESSAGE,
            Self::WrongState => Cause::PROTOCOL_ERROR,
            _ => Cause::BEARER_CAPABILITY_NOT_IMPLEMENTED,
        }
    }
}

/// What is known of an offer before it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteOffer {
    /// Whether it repeats the peer's last description (RFC 3264 8): a session refresh.
    pub unchanged: bool,
    /// The direction that an answer without own wishes would have, as this side sees it.
    pub direction: Direction,
    /// What was mended.
    pub repairs: Repairs,
}

/// Our answer and what it settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The session description to send.
    pub body: Vec<u8>,
    /// The media from now on.
    pub media: LegMedia,
    /// Whether the media differs from before.
    pub changed: bool,
    /// What was mended in the offer.
    pub repairs: Repairs,
}

/// What the peer's answer settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The media from now on.
    pub media: LegMedia,
    /// Whether the media differs from before.
    pub changed: bool,
    /// What was mended in the answer.
    pub repairs: Repairs,
}

/// The offers and answers of one dialog (RFC 3264). Clone it for each early dialog of a fork.
///
/// A remote offer takes two steps, so that it can be refused before anybody's telephone rings:
/// [`receive_offer`](Self::receive_offer), and [`make_answer`](Self::make_answer) once the local
/// port is known. Any error leaves the session as it was (RFC 3261 14.2).
#[derive(Clone)]
pub struct OfferAnswer {
    session_id: u64,
    /// Version of the last description sent; 0 before the first.
    version: u64,
    /// Address in `o=`: stays when the media moves (RFC 3264 8).
    origin: Option<IpAddr>,
    open: Open,
    sent: Option<Session>,
    sent_body: Option<Vec<u8>>,
    /// What `sent_body` was before the offer that is open.
    agreed_body: Option<Vec<u8>>,
    /// Our last offer if it was ours that settled the session: further answers may follow.
    offered: Option<LocalOffer>,
    media: Option<LegMedia>,
    remote: Option<Remote>,
    /// All m-lines of the session, which never become fewer (RFC 3264 8).
    lines: Vec<MediaLine>,
    audio_index: usize,
    event_payload_type: u8,
}

#[derive(Clone)]
enum Open {
    Nothing,
    Local(LocalOffer),
    Remote(Box<PendingOffer>),
}

#[derive(Clone)]
struct LocalOffer {
    local: SocketAddr,
    codecs: Vec<Codec>,
    event: Option<u8>,
    direction: Direction,
}

#[derive(Clone)]
struct PendingOffer {
    description: Description,
    audio: Audio,
}

/// The peer's last description that counted.
#[derive(Clone)]
struct Remote {
    version: Option<Version>,
    audio: Audio,
    lines: usize,
}

#[derive(Clone)]
struct MediaLine {
    media: String,
    proto: String,
    format: String,
}

impl OfferAnswer {
    /// Begins a session. `session_id` is random and goes into `o=` for good (RFC 8866 5.2); only
    /// its lower 62 bits are used, because some peers read it as a signed number.
    pub fn new(session_id: u64) -> Self {
        Self {
            session_id: session_id >> 2,
            version: 0,
            origin: None,
            open: Open::Nothing,
            sent: None,
            sent_body: None,
            agreed_body: None,
            offered: None,
            media: None,
            remote: None,
            lines: Vec::new(),
            audio_index: 0,
            event_payload_type: EVENT_PAYLOAD_TYPE,
        }
    }

    /// Returns whether an offer is open, and whose.
    pub fn state(&self) -> State {
        match self.open {
            Open::Nothing => State::Stable,
            Open::Local(_) => State::LocalOffer,
            Open::Remote(_) => State::RemoteOffer,
        }
    }

    /// Returns the last description sent, to be repeated in a 200 after a 183.
    pub fn local_body(&self) -> Option<&[u8]> {
        self.sent_body.as_deref()
    }

    /// Returns the media agreed on.
    pub fn media(&self) -> Option<&LegMedia> {
        self.media.as_ref()
    }

    /// Makes an offer (RFC 3264 5, 8) with RTP at `local` and RTCP on the port above it.
    ///
    /// # Errors
    /// [`NegotiationError::WrongState`] while an offer is open, [`NegotiationError::NoCommonCodec`]
    /// without a codec to offer.
    pub fn make_offer(
        &mut self,
        local: SocketAddr,
        policy: &MediaPolicy,
        direction: Direction,
    ) -> Result<Vec<u8>, NegotiationError> {
        if self.state() != State::Stable {
            return Err(NegotiationError::WrongState);
        }
        let codecs: Vec<(u8, Codec)> =
            policy.codecs.iter().filter_map(|&c| Some((c.static_payload_type()?, c))).collect();
        if codecs.is_empty() {
            return Err(NegotiationError::NoCommonCodec);
        }
        let event = policy.telephone_event.then_some(self.event_payload_type);
        let audio = audio_line(local, &codecs, event, usable_packet_time(policy.packet_time_ms), direction);
        if self.lines.is_empty() {
            self.lines = vec![MediaLine::of(&audio)];
            self.audio_index = 0;
        }
        let medias = (0..self.lines.len())
            .map(|n| if n == self.audio_index { audio.clone() } else { self.lines[n].refused() })
            .collect();
        self.agreed_body = self.sent_body.clone();
        let body = self.send(local, vec![Time::new(0, 0)], medias)?;
        let codecs = codecs.into_iter().map(|(_, codec)| codec).collect();
        self.open = Open::Local(LocalOffer { local, codecs, event, direction });
        Ok(body)
    }

    /// Takes the peer's answer to our offer (RFC 3264 7). When it comes again for the same offer,
    /// as from a carrier whose 200 differs from its 183, it is evaluated again.
    ///
    /// # Errors
    /// The answer cannot be used; the offer stays open, or the session as it was.
    pub fn accept_answer(
        &mut self,
        body: &[u8],
        policy: &MediaPolicy,
    ) -> Result<Negotiated, NegotiationError> {
        let offer = match (&self.open, &self.offered) {
            (Open::Local(offer), _) | (Open::Nothing, Some(offer)) => offer.clone(),
            _ => return Err(NegotiationError::WrongState),
        };
        let description = Description::parse(body, policy.tolerant)?;
        if description.session.medias.len() < self.lines.len() {
            return Err(NegotiationError::MediaLines);
        }
        let audio = Audio::of_answer(&description.session, self.audio_index, policy)?;
        let (send, codec) = audio.first_codec(&offer.codecs).ok_or(NegotiationError::NoCommonCodec)?;
        let receive = codec.static_payload_type().ok_or(NegotiationError::NoCommonCodec)?;
        check_family(offer.local, audio.rtp)?;
        let media = LegMedia {
            codec,
            send_payload_type: send,
            receive_payload_type: receive,
            also_receives: Vec::new(),
            telephone_event: offer.event.zip(audio.telephone_event()).map(|(ours, theirs)| TelephoneEvent {
                send_payload_type: theirs,
                receive_payload_type: ours,
                clock_rate: codec.clock_rate(),
            }),
            packet_time_ms: usable_packet_time(audio.packet_time_ms.unwrap_or(policy.packet_time_ms)),
            remote_rtp: audio.rtp,
            // We never offer rtcp-mux on a plain trunk, so no answer can have it (RFC 5761 5.1.1).
            remote_rtcp: Some(audio.rtcp),
            direction: both_want(offer.direction, audio.direction.reversed()),
            security: MediaSecurity::None,
        };
        self.remote = Some(Remote { version: description.version, audio, lines: self.lines.len() });
        self.offered = Some(offer);
        self.open = Open::Nothing;
        let changed = self.settle(&media);
        Ok(Negotiated { media, changed, repairs: description.repairs })
    }

    /// Forgets our open offer, because it was refused: the session is as before.
    pub fn withdraw_offer(&mut self) {
        if let Open::Local(_) = self.open {
            self.open = Open::Nothing;
            self.sent_body = self.agreed_body.take();
        }
    }

    /// Takes the peer's offer and checks all that can be checked before the local port is known.
    ///
    /// # Errors
    /// The offer is to be refused with [`NegotiationError::status`]; nothing has changed.
    pub fn receive_offer(
        &mut self,
        body: &[u8],
        policy: &MediaPolicy,
    ) -> Result<RemoteOffer, NegotiationError> {
        if self.state() != State::Stable {
            return Err(NegotiationError::WrongState);
        }
        let mut description = Description::parse(body, policy.tolerant)?;
        let audio = Audio::of_offer(&description.session, policy)?;
        // RFC 3264 8: the same version is the same description. Not with every peer: one that moves
        // its media and forgets to count would go on unheard.
        let counted = self
            .remote
            .as_ref()
            .filter(|remote| remote.version.is_some() && remote.version == description.version);
        let unchanged = counted
            .is_some_and(|remote| remote.lines == description.session.medias.len() && remote.audio == audio);
        if counted.is_some() && !unchanged {
            description.repairs.insert(Repair::SdpVersion);
        }
        let repairs = description.repairs;
        if audio.first_codec(&policy.codecs).is_none() {
            return Err(NegotiationError::NoCommonCodec);
        }
        let direction = audio.direction.reversed();
        self.open = Open::Remote(Box::new(PendingOffer { description, audio }));
        Ok(RemoteOffer { unchanged, direction, repairs })
    }

    /// Answers the peer's offer (RFC 3264 6): one codec, the first of the offer that is spoken
    /// here, so that both directions are certain; the payload types of the offer; every other
    /// m-line refused in its place. `direction` is what this side wants.
    ///
    /// # Errors
    /// [`NegotiationError::WrongState`] without an open offer; [`NegotiationError::AddressFamily`]
    /// if `local` cannot reach the peer, after which the offer is still open.
    pub fn make_answer(
        &mut self,
        local: SocketAddr,
        policy: &MediaPolicy,
        direction: Direction,
    ) -> Result<Answer, NegotiationError> {
        let Open::Remote(offer) = &self.open else { return Err(NegotiationError::WrongState) };
        let offer = offer.clone();
        let audio = offer.audio;
        let (number, codec) = audio.first_codec(&policy.codecs).ok_or(NegotiationError::NoCommonCodec)?;
        check_family(local, audio.rtp)?;
        let event = audio.telephone_event().filter(|_| policy.telephone_event);
        let direction = both_want(direction, audio.direction.reversed());
        let packet_time_ms = usable_packet_time(audio.packet_time_ms.unwrap_or(policy.packet_time_ms));
        let mut line = audio_line(local, &[(number, codec)], event, packet_time_ms, direction);
        // RFC 8035: in an answer only where the offer had it.
        if audio.mux {
            line.attributes.push(Attribute::new("rtcp-mux"));
        }
        let session = &offer.description.session;
        let lines: Vec<MediaLine> = session.medias.iter().map(MediaLine::of).collect();
        let medias = lines
            .iter()
            .enumerate()
            .map(|(n, other)| if n == audio.index { line.clone() } else { other.refused() })
            .collect();
        // RFC 3264 6: `t=` of the answer equals that of the offer.
        let times = if session.times.is_empty() { vec![Time::new(0, 0)] } else { session.times.clone() };
        let body = self.send(local, times, medias)?;
        let media = LegMedia {
            codec,
            send_payload_type: number,
            receive_payload_type: number,
            also_receives: Vec::new(),
            telephone_event: event.map(|number| TelephoneEvent {
                send_payload_type: number,
                receive_payload_type: number,
                clock_rate: codec.clock_rate(),
            }),
            packet_time_ms,
            remote_rtp: audio.rtp,
            remote_rtcp: (!audio.mux).then_some(audio.rtcp),
            direction,
            security: MediaSecurity::None,
        };
        // RFC 3264 8.3.2: a payload type keeps its meaning for the life of the session.
        self.event_payload_type = event.unwrap_or(self.event_payload_type);
        self.audio_index = audio.index;
        self.remote = Some(Remote { version: offer.description.version, audio, lines: lines.len() });
        self.lines = lines;
        self.offered = None;
        self.open = Open::Nothing;
        let changed = self.settle(&media);
        Ok(Answer { body, media, changed, repairs: offer.description.repairs })
    }

    /// Forgets the peer's open offer, because it was refused: the session is as before.
    pub fn reject_offer(&mut self) {
        if let Open::Remote(_) = self.open {
            self.open = Open::Nothing;
        }
    }

    fn settle(&mut self, media: &LegMedia) -> bool {
        let changed = self.media.as_ref() != Some(media);
        self.media = Some(media.clone());
        changed
    }

    /// Prints a description. The version grows by one where anything differs from the last one
    /// sent, and only then (RFC 3264 8).
    fn send(
        &mut self,
        local: SocketAddr,
        times: Vec<Time>,
        medias: Vec<Media>,
    ) -> Result<Vec<u8>, NegotiationError> {
        let origin = *self.origin.get_or_insert(local.ip());
        let mut session = Session {
            origin: Origin::with_ip_addr(self.session_id, self.version, origin),
            session_name: "-".to_owned(),
            session_description: None,
            uri: None,
            emails: Vec::new(),
            phones: Vec::new(),
            connection: Some(Connection::from_ip_addr(local.ip())),
            bandwidths: Vec::new(),
            times,
            time_zones: Vec::new(),
            key: None,
            attributes: Vec::new(),
            medias,
        };
        if self.sent.as_ref() != Some(&session) {
            self.version += 1;
            session.origin.sess_version = self.version;
        }
        let mut body = Vec::with_capacity(256);
        session.write(&mut body).map_err(|_| NegotiationError::Sdp(SdpError::Syntax))?;
        self.sent = Some(session);
        self.sent_body = Some(body.clone());
        Ok(body)
    }
}

impl fmt::Debug for OfferAnswer {
    /// Without addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfferAnswer")
            .field("state", &self.state())
            .field("version", &self.version)
            .field("codec", &self.media.as_ref().map(|m| m.codec))
            .finish_non_exhaustive()
    }
}

impl MediaLine {
    fn of(media: &Media) -> Self {
        Self {
            media: media.media.clone(),
            proto: media.proto.clone(),
            format: media.fmt.split_whitespace().next().unwrap_or("0").to_owned(),
        }
    }

    /// The line with port 0 (RFC 3264 6).
    fn refused(&self) -> Media {
        media_line(&self.media, 0, &self.proto, &self.format, Vec::new())
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

fn audio_line(
    local: SocketAddr,
    codecs: &[(u8, Codec)],
    event: Option<u8>,
    packet_time_ms: u16,
    direction: Direction,
) -> Media {
    let formats: Vec<String> =
        codecs.iter().map(|(number, _)| *number).chain(event).map(|number| number.to_string()).collect();
    let mut attributes: Vec<Attribute> = codecs
        .iter()
        .map(|(number, codec)| {
            let encoding = format!("{number} {}/{}", codec.encoding_name(), codec.clock_rate());
            Attribute::with_value("rtpmap", encoding)
        })
        .collect();
    if let Some(number) = event {
        attributes.push(Attribute::with_value("rtpmap", format!("{number} telephone-event/8000")));
        // RFC 4733 2.4.1: the sixteen DTMF events.
        attributes.push(Attribute::with_value("fmtp", format!("{number} 0-15")));
    }
    attributes.push(Attribute::with_value("ptime", packet_time_ms));
    attributes.push(Attribute::new(direction.as_str()));
    media_line("audio", local.port(), "RTP/AVP", &formats.join(" "), attributes)
}

/// What remains when one side allows one direction and the other side another.
fn both_want(one: Direction, other: Direction) -> Direction {
    match (one.sends() && other.sends(), one.receives() && other.receives()) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    }
}

/// Rounds down to whole frames of 10 ms within what is sent.
fn usable_packet_time(milliseconds: u16) -> u16 {
    (milliseconds / 10 * 10).clamp(*PACKET_TIME_MS.start(), *PACKET_TIME_MS.end())
}

fn check_family(local: SocketAddr, remote: SocketAddr) -> Result<(), NegotiationError> {
    if remote.ip().is_unspecified() || local.is_ipv4() == remote.is_ipv4() {
        Ok(())
    } else {
        Err(NegotiationError::AddressFamily)
    }
}
