//! Offer and answer of one dialog (RFC 3264): audio here, T.38 in [`image`].

mod image;

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use call_model::{Codec, Direction, Fingerprint, LegMedia, MediaSecurity, SrtpKey, SrtpKeys, TelephoneEvent};

use self::image::{OfferedImage, PendingImage, Stream};
use super::audio::{Audio, Format, Protection, event_clocks};
use super::crypto::{Crypto, KeyMaker};
use super::description::{Description, Text, Version};
use super::dtls::{LocalDtls, Setup, association};
use super::lines::{MediaLine, write_audio};
use super::policy::{MediaPolicy, NegotiationError, Srtp};
use crate::wire::tolerance::{Repair, Repairs};

pub use self::image::{AgreedImage, ImageAnswer};

/// The payload types that our offers give to what has none of its own, where the session has not given another:
/// Opus, and telephone events with each clock.
const PAYLOAD_TYPES: [(Dynamic, u8); 3] =
    [(Dynamic::Opus, 111), (Dynamic::Events(8_000), 101), (Dynamic::Events(48_000), 110)];
/// The numbers for that (RFC 3551 6).
const DYNAMIC: std::ops::RangeInclusive<u8> = 96..=127;
/// Packet times that are sent, in milliseconds.
const PACKET_TIME_MS: std::ops::RangeInclusive<u16> = 10..=60;

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
    sent_body: Option<Vec<u8>>,
    /// What `sent_body` was before the offer that is open.
    agreed_body: Option<Vec<u8>>,
    /// What `sent_body` says. `None` after an offer that was withdrawn.
    last: Option<Local>,
    /// It was our offer that settled the session: further answers may follow.
    offered: bool,
    /// Makes our keys; `None`: SRTP cannot be spoken.
    keys: Option<Box<KeyMaker>>,
    /// Of our certificate; `None`: DTLS cannot be spoken.
    fingerprint: Option<Fingerprint>,
    media: Option<LegMedia>,
    stream: Stream,
    remote: Option<Remote>,
    /// All m-lines of the session, which never become fewer (RFC 3264 8).
    lines: Vec<MediaLine>,
    audio_index: usize,
    payload_types: [(Dynamic, u8); 3],
}

/// What has a payload type by agreement alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dynamic {
    Opus,
    /// With a clock in Hz.
    Events(u32),
}

#[derive(Clone)]
enum Open {
    Nothing,
    Local(Box<Local>),
    LocalImage(Box<OfferedImage>),
    Remote(Box<PendingOffer>),
    RemoteImage(Box<PendingImage>),
}

/// What a description of ours says.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) address: SocketAddr,
    pub(super) codecs: Vec<(u8, Codec)>,
    /// Telephone events, with the clock of each in Hz.
    pub(super) events: Vec<(u8, u32)>,
    pub(super) direction: Direction,
    pub(super) mux: bool,
    /// RTP/SAVP.
    pub(super) savp: bool,
    /// The tags of its `a=crypto` lines, with our key in each.
    pub(super) keys: Vec<(u32, SrtpKey)>,
    /// UDP/TLS/RTP/SAVP.
    pub(super) dtls: Option<LocalDtls>,
}

#[derive(Clone)]
struct PendingOffer {
    audio: Audio,
    lines: Vec<MediaLine>,
    times: Vec<[u64; 2]>,
    version: Option<Version>,
    repairs: Repairs,
}

/// The peer's last description that counted.
#[derive(Clone)]
struct Remote {
    version: Option<Version>,
    audio: Audio,
    lines: usize,
}

impl Local {
    /// The telephone events of a clock in Hz.
    fn events_at(&self, clock_rate: u32) -> Option<u8> {
        self.events.iter().find(|(_, clock)| *clock == clock_rate).map(|(number, _)| *number)
    }
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
            sent_body: None,
            agreed_body: None,
            last: None,
            offered: false,
            keys: None,
            fingerprint: None,
            media: None,
            stream: Stream::Audio,
            remote: None,
            lines: Vec::new(),
            audio_index: 0,
            payload_types: PAYLOAD_TYPES,
        }
    }

    /// Lets our keys of SRTP be made from a random seed. Without, SRTP is neither offered nor taken.
    /// Each early dialog needs a seed of its own before it answers an offer (RFC 4568 7.3).
    #[must_use]
    pub fn with_seed(mut self, seed: [u8; 32]) -> Self {
        self.keys = Some(Box::new(KeyMaker::new(seed)));
        self
    }

    /// Lets DTLS key the media, with the certificate of that fingerprint (RFC 5763). Without, a policy of
    /// [`Srtp::Dtls`] has no media.
    #[must_use]
    pub fn with_fingerprint(mut self, fingerprint: Option<Fingerprint>) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    fn srtp(&self, policy: &MediaPolicy) -> Result<Srtp, NegotiationError> {
        match policy.srtp {
            Srtp::Dtls if self.fingerprint.is_none() => Err(NegotiationError::Fingerprint),
            srtp if srtp.has_signalled_keys() && self.keys.is_none() => Ok(Srtp::Never),
            srtp => Ok(srtp),
        }
    }

    /// What our description says of DTLS.
    fn local_dtls(&self, setup: Setup) -> Result<LocalDtls, NegotiationError> {
        let fingerprint = self.fingerprint.clone().ok_or(NegotiationError::Fingerprint)?;
        Ok(LocalDtls { fingerprint, setup })
    }

    /// Returns whether an offer is open, and whose.
    pub fn state(&self) -> State {
        match self.open {
            Open::Nothing => State::Stable,
            Open::Local(_) | Open::LocalImage(_) => State::LocalOffer,
            Open::Remote(_) | Open::RemoteImage(_) => State::RemoteOffer,
        }
    }

    /// Returns the last description sent, to be repeated in a 200 after a 183.
    pub fn local_body(&self) -> Option<&[u8]> {
        self.sent_body.as_deref()
    }

    /// Returns the media agreed on: of a session that carries T.38, what it was before.
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
        let number = |codec: Codec| codec.static_payload_type().unwrap_or(self.payload_type(Dynamic::Opus));
        let mut codecs: Vec<(u8, Codec)> =
            policy.codecs.iter().map(|&codec| (number(codec), codec)).collect();
        if codecs.is_empty() {
            return Err(NegotiationError::NoCommonCodec);
        }
        // What is spoken now stays the first choice: an offer that is about something else changes it
        // for no reason otherwise.
        let current = self.media.as_ref().map(|media| media.codec);
        codecs.sort_by_key(|(_, codec)| Some(*codec) != current);
        let srtp = self.srtp(policy)?;
        if srtp == Srtp::Never && policy.srtp == Srtp::Required {
            return Err(NegotiationError::Crypto);
        }
        let suites = if srtp.has_signalled_keys() { &policy.srtp_suites[..] } else { &[][..] };
        let maker = self.keys.as_mut();
        let keys = maker.map(|maker| suites.iter().filter_map(|&suite| maker.key(suite)).collect::<Vec<_>>());
        // RFC 4733 2.1: events for the clock of each codec, for the answer may be any.
        let mut events: Vec<(u8, u32)> = Vec::new();
        let clocks = codecs.iter().flat_map(|(_, codec)| event_clocks(*codec));
        for clock in clocks.filter(|_| policy.telephone_event) {
            if !events.iter().any(|(_, known)| *known == clock) {
                events.push((self.payload_type(Dynamic::Events(clock)), clock));
            }
        }
        // RFC 8643 4: where plain RTP will do, the keys stand in a line of RTP/AVP. A session that is
        // RTP/SAVP stays so.
        let stays = || self.last.as_ref().is_some_and(|last| last.savp);
        let savp = srtp == Srtp::Required || (srtp.has_signalled_keys() && stays());
        let keys = (1..).zip(keys.unwrap_or_default()).collect();
        let dtls = match srtp {
            // The roles that there are, so that the association goes on: RFC 8842 4.1, 5.5.
            Srtp::Dtls => {
                let current = self.media.as_ref().and_then(|media| association(&media.security));
                let setup = current.map_or(Setup::Either, |current| Setup::Only(current.role));
                Some(self.local_dtls(setup)?)
            }
            _ => None,
        };
        // One handshake for both rather than one for each (RFC 5764 4.1), if the peer does not say no.
        let mux = dtls.is_some() && self.media.as_ref().is_none_or(|media| media.remote_rtcp.is_none());
        let offer = Local { address: local, codecs, events, direction, mux, savp, keys, dtls };
        if self.lines.is_empty() {
            self.lines = vec![MediaLine::audio(&offer)];
            self.audio_index = 0;
        }
        let medias =
            media_lines(&self.lines, self.audio_index, &offer, usable_packet_time(policy.packet_time_ms));
        self.agreed_body = self.sent_body.clone();
        let body = self.send(local, &[[0, 0]], &medias);
        self.last = Some(offer.clone());
        self.open = Open::Local(Box::new(offer));
        Ok(body)
    }

    /// Offers what was last agreed on once more, word for word and under the same version, so that
    /// nothing changes: for refreshes of the session (RFC 4028 7.4, RFC 3264 8).
    ///
    /// # Errors
    /// [`NegotiationError::WrongState`] while an offer is open, before anything was agreed on, after
    /// an offer that was withdrawn, where media is not at `local` any more, and where the session does not carry
    /// audio.
    pub fn repeat_offer(&mut self, local: SocketAddr) -> Result<Vec<u8>, NegotiationError> {
        let stable = self.state() == State::Stable && matches!(self.stream, Stream::Audio);
        let last = self.last.as_ref().filter(|last| last.address == local && stable);
        let (Some(last), Some(body)) = (last, &self.sent_body) else {
            return Err(NegotiationError::WrongState);
        };
        self.open = Open::Local(Box::new(last.clone()));
        self.agreed_body = self.sent_body.clone();
        Ok(body.clone())
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
        let offer = match (&self.open, &self.last) {
            (Open::Local(offer), _) => (**offer).clone(),
            (Open::Nothing, Some(offer)) if self.offered => offer.clone(),
            _ => return Err(NegotiationError::WrongState),
        };
        let text = Text::of(body)?;
        let description = Description::parse(&text, policy.tolerant)?;
        if description.medias.len() < self.lines.len() {
            return Err(NegotiationError::MediaLines);
        }
        let audio = Audio::of_answer(&description, self.audio_index, policy, &offer)?;
        let codecs: Vec<Codec> = offer.codecs.iter().map(|(_, codec)| *codec).collect();
        let (send, codec) = audio.first_codec(&codecs).ok_or(NegotiationError::NoCommonCodec)?;
        let number =
            |wanted: Codec| offer.codecs.iter().find(|(_, c)| *c == wanted).map(|(number, _)| *number);
        let receive = number(codec).ok_or(NegotiationError::NoCommonCodec)?;
        // RFC 3264 6.1: of what is in the answer, anything may come.
        let beside = |other: &&Codec| **other != codec && other.clock_rate() == codec.clock_rate();
        let others = codecs.iter().filter(beside).filter(|other| audio.first_codec(&[**other]).is_some());
        let also_receives = others.filter_map(|&other| Some((number(other)?, other))).collect();
        check_family(offer.address, audio.rtp)?;
        let security = match &audio.protection {
            Protection::Sdes(theirs) => {
                let ours = offer.keys.iter().find(|(tag, _)| *tag == theirs.tag);
                sdes(ours.map(|(_, key)| key.clone()).ok_or(NegotiationError::Crypto)?, theirs)
            }
            Protection::Dtls(theirs) => {
                let ours = offer.dtls.as_ref().ok_or(NegotiationError::Keying)?;
                MediaSecurity::DtlsSrtp(Box::new(theirs.answers(ours.setup)?))
            }
            Protection::None => MediaSecurity::None,
        };
        let media = LegMedia {
            codec,
            send_payload_type: send,
            receive_payload_type: receive,
            also_receives,
            telephone_event: audio.telephone_event(codec).and_then(|(theirs, clock_rate)| {
                let ours = offer.events_at(clock_rate)?;
                Some(TelephoneEvent { send_payload_type: theirs, receive_payload_type: ours, clock_rate })
            }),
            comfort_noise: false,
            packet_time_ms: usable_packet_time(audio.packet_time_ms.unwrap_or(policy.packet_time_ms)),
            remote_rtp: audio.rtp,
            // RFC 5761 5.1.1: in an answer it means nothing unless the offer had it.
            remote_rtcp: (!(offer.mux && audio.mux)).then_some(audio.rtcp),
            direction: offer.direction.restricted_to(audio.direction.reversed()),
            security,
        };
        self.remote = Some(Remote { version: description.version, audio, lines: self.lines.len() });
        self.offered = true;
        self.open = Open::Nothing;
        let changed = self.settle(&media);
        Ok(Negotiated { media, changed, repairs: description.repairs })
    }

    /// Forgets our open offer, because it was refused: the session is as before.
    pub fn withdraw_offer(&mut self) {
        if let Open::Local(_) | Open::LocalImage(_) = self.open {
            self.open = Open::Nothing;
            self.sent_body = self.agreed_body.take();
            self.last = None;
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
        let text = Text::of(body)?;
        let description = Description::parse(&text, policy.tolerant)?;
        let audio = Audio::of_offer(&description, policy, self.srtp(policy)?)?;
        // RFC 3264 8: the same version is the same description. Not with every peer: one that moves
        // its media and forgets to count would go on unheard.
        let counted = self
            .remote
            .as_ref()
            .filter(|remote| remote.version.is_some() && remote.version == description.version);
        let unchanged =
            counted.is_some_and(|remote| remote.lines == description.medias.len() && remote.audio == audio);
        let mut repairs = description.repairs;
        if counted.is_some() && !unchanged {
            repairs.insert(Repair::SdpVersion);
        }
        if audio.first_codec(&policy.codecs).is_none() {
            return Err(NegotiationError::NoCommonCodec);
        }
        let direction = audio.direction.reversed();
        let lines = description.medias.iter().map(MediaLine::of).collect();
        let Description { times, version, .. } = description;
        self.open = Open::Remote(Box::new(PendingOffer { audio, lines, times, version, repairs }));
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
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Remote(offer) => {
                let answer = self.answer(&offer, local, policy, direction);
                if answer.is_err() {
                    self.open = Open::Remote(offer);
                }
                answer
            }
            other => {
                self.open = other;
                Err(NegotiationError::WrongState)
            }
        }
    }

    fn answer(
        &mut self,
        offer: &PendingOffer,
        local: SocketAddr,
        policy: &MediaPolicy,
        direction: Direction,
    ) -> Result<Answer, NegotiationError> {
        let audio = &offer.audio;
        let (number, codec) = audio.first_codec(&policy.codecs).ok_or(NegotiationError::NoCommonCodec)?;
        check_family(local, audio.rtp)?;
        let event = audio.telephone_event(codec).filter(|_| policy.telephone_event);
        let direction = direction.restricted_to(audio.direction.reversed());
        let packet_time_ms = usable_packet_time(audio.packet_time_ms.unwrap_or(policy.packet_time_ms));
        let key = audio.crypto().map(|theirs| self.key_against(theirs)).transpose()?;
        let current = self.media.as_ref().and_then(|media| association(&media.security));
        let agreed = audio.dtls().map(|theirs| theirs.answered(current));
        let dtls = agreed.as_ref().map(|agreed| self.local_dtls(Setup::Only(agreed.role))).transpose()?;
        let security = match (key.clone().zip(audio.crypto()), agreed) {
            (Some((key, theirs)), _) => sdes(key, theirs),
            (None, Some(agreed)) => MediaSecurity::DtlsSrtp(Box::new(agreed)),
            (None, None) => MediaSecurity::None,
        };
        let answer = Local {
            address: local,
            codecs: vec![(number, codec)],
            events: event.into_iter().collect(),
            direction,
            // RFC 8035: in an answer only where the offer had it.
            mux: audio.mux,
            savp: audio.savp,
            // RFC 4568 5.1.2: one line, with the tag of the line that was chosen.
            keys: audio.crypto().map(|theirs| theirs.tag).into_iter().zip(key).collect(),
            dtls,
        };
        let lines = offer.lines.clone();
        let medias = media_lines(&lines, audio.index, &answer, packet_time_ms);
        // RFC 3264 6: `t=` of the answer equals that of the offer.
        let times = if offer.times.is_empty() { &[[0, 0]][..] } else { &offer.times };
        let body = self.send(local, times, &medias);
        let media = LegMedia {
            codec,
            send_payload_type: number,
            receive_payload_type: number,
            also_receives: Vec::new(),
            telephone_event: event.map(|(number, clock_rate)| TelephoneEvent {
                send_payload_type: number,
                receive_payload_type: number,
                clock_rate,
            }),
            comfort_noise: false,
            packet_time_ms,
            remote_rtp: audio.rtp,
            remote_rtcp: (!audio.mux).then_some(audio.rtcp),
            direction,
            security,
        };
        // RFC 3264 8.3.2: a payload type keeps its meaning for the life of the session.
        self.keep_payload_types(audio);
        self.audio_index = audio.index;
        let version = offer.version.clone();
        self.remote = Some(Remote { version, audio: audio.clone(), lines: lines.len() });
        self.lines = lines;
        self.last = Some(answer);
        self.offered = false;
        let changed = self.settle(&media);
        Ok(Answer { body, media, changed, repairs: offer.repairs })
    }

    /// Returns the number of something in our descriptions.
    fn payload_type(&self, what: Dynamic) -> u8 {
        let known = self.payload_types.iter().find(|(known, _)| *known == what);
        known.map_or(*DYNAMIC.start(), |(_, number)| *number)
    }

    /// Gives what the peer has offered the numbers that it has there, and what it has not other ones.
    fn keep_payload_types(&mut self, audio: &Audio) {
        let theirs = |what: Dynamic| {
            audio.formats.iter().find(|(_, format)| match (what, format) {
                (Dynamic::Opus, Format::Codec(codec)) => *codec == Codec::Opus,
                (Dynamic::Events(clock), Format::TelephoneEvent(known)) => clock == *known,
                _ => false,
            })
        };
        for (what, number) in &mut self.payload_types {
            if let Some((known, _)) = theirs(*what) {
                *number = *known;
            }
        }
        for index in 0..self.payload_types.len() {
            let (what, number) = self.payload_types[index];
            let taken = |wanted: u8| {
                let ours = self.payload_types.iter().any(|(other, known)| *other != what && *known == wanted);
                ours || audio.formats.iter().any(|(known, _)| *known == wanted)
            };
            if theirs(what).is_none() && taken(number) {
                // Three numbers and those of an m-line leave some of 32 free, or one more meaning is lost.
                let free = DYNAMIC.rev().find(|&free| !taken(free));
                self.payload_types[index].1 = free.unwrap_or(number);
            }
        }
    }

    /// Returns our key for an answer. A peer with a new key of its own may be another one, which knows
    /// nothing of the packets sent before: it gets a new one of ours too (RFC 4568 7.1.4).
    fn key_against(&mut self, theirs: &Crypto) -> Result<SrtpKey, NegotiationError> {
        let before = self.remote.as_ref().and_then(|remote| remote.audio.crypto());
        let moved = before.is_some_and(|before| before.keys != theirs.keys);
        let maker = self.keys.as_mut().ok_or(NegotiationError::SecureMedia)?;
        if moved {
            maker.renew();
        }
        maker.key(theirs.suite).ok_or(NegotiationError::Crypto)
    }

    /// Forgets the peer's open offer, because it was refused: the session is as before.
    pub fn reject_offer(&mut self) {
        if let Open::Remote(_) | Open::RemoteImage(_) = self.open {
            self.open = Open::Nothing;
        }
    }

    fn settle(&mut self, media: &LegMedia) -> bool {
        // What carried T.38 has changed, even if its audio is as it was.
        let was = std::mem::replace(&mut self.stream, Stream::Audio);
        let changed = !matches!(was, Stream::Audio) || self.media.as_ref() != Some(media);
        self.media = Some(media.clone());
        changed
    }

    /// Prints a description. The version grows by one where anything differs from the last one
    /// sent, and only then (RFC 3264 8).
    fn send(&mut self, local: SocketAddr, times: &[[u64; 2]], medias: &str) -> Vec<u8> {
        let origin = *self.origin.get_or_insert(local.ip());
        let mut body = session_lines(self.session_id, self.version, (origin, local.ip()), times);
        let repeats = self.sent_body.as_ref().and_then(|last| last.strip_prefix(body.as_bytes()));
        if repeats != Some(medias.as_bytes()) {
            self.version += 1;
            body = session_lines(self.session_id, self.version, (origin, local.ip()), times);
        }
        body.push_str(medias);
        let body = body.into_bytes();
        self.sent_body = Some(body.clone());
        body
    }
}

/// Writes what stands before the m-lines (RFC 8866 5).
fn session_lines(
    session: u64,
    version: u64,
    (origin, connection): (IpAddr, IpAddr),
    times: &[[u64; 2]],
) -> String {
    let mut out = String::with_capacity(384);
    let kind = |address: IpAddr| if address.is_ipv4() { "IP4" } else { "IP6" };
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "v=0\r\no=- {session} {version} IN {} {origin}\r\ns=-\r\nc=IN {} {connection}\r\n",
        kind(origin),
        kind(connection)
    );
    for [start, end] in times {
        let _ = write!(out, "t={start} {end}\r\n");
    }
    out
}

/// Writes the m-lines: the one for audio, and the others refused in their places (RFC 3264 6).
fn media_lines(lines: &[MediaLine], audio: usize, local: &Local, packet_time_ms: u16) -> String {
    let mut out = String::with_capacity(256);
    for (index, line) in lines.iter().enumerate() {
        if index == audio {
            write_audio(&mut out, local, packet_time_ms, line.mid());
        } else {
            line.write_refused(&mut out);
        }
    }
    out
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

fn sdes(send: SrtpKey, theirs: &Crypto) -> MediaSecurity {
    MediaSecurity::Sdes(Box::new(SrtpKeys { suite: theirs.suite, send, receive: theirs.keys.clone() }))
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
