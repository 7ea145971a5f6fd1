use std::fmt;
use std::net::{IpAddr, SocketAddr};

use call_model::{Codec, Direction, LegMedia, MediaSecurity, SrtpKey, SrtpKeys, TelephoneEvent};
use sdp_types::{Connection, Media, Origin, Session, Time};

use super::audio::Audio;
use super::crypto::{Crypto, KeyMaker};
use super::description::{Description, SdpError, Version};
use super::lines::{MediaLine, audio_line};
use super::policy::{MediaPolicy, NegotiationError, Srtp};
use crate::wire::tolerance::{Repair, Repairs};

/// The payload type that our offers give to telephone events.
const EVENT_PAYLOAD_TYPE: u8 = 101;
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
    sent: Option<Session>,
    sent_body: Option<Vec<u8>>,
    /// What `sent_body` was before the offer that is open.
    agreed_body: Option<Vec<u8>>,
    /// What `sent_body` says. `None` after an offer that was withdrawn.
    last: Option<Local>,
    /// It was our offer that settled the session: further answers may follow.
    offered: bool,
    /// Makes our keys; `None`: SRTP cannot be spoken.
    keys: Option<KeyMaker>,
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
    Local(Local),
    Remote(Box<PendingOffer>),
}

/// What a description of ours says.
#[derive(Clone)]
pub(super) struct Local {
    pub(super) address: SocketAddr,
    pub(super) codecs: Vec<(u8, Codec)>,
    pub(super) event: Option<u8>,
    pub(super) direction: Direction,
    pub(super) mux: bool,
    /// RTP/SAVP.
    pub(super) savp: bool,
    /// The tags of its `a=crypto` lines, with our key in each.
    pub(super) keys: Vec<(u32, SrtpKey)>,
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
            last: None,
            offered: false,
            keys: None,
            media: None,
            remote: None,
            lines: Vec::new(),
            audio_index: 0,
            event_payload_type: EVENT_PAYLOAD_TYPE,
        }
    }

    /// Lets our keys of SRTP be made from a random seed. Without, SRTP is neither offered nor taken.
    /// Each early dialog needs a seed of its own before it answers an offer (RFC 4568 7.3).
    #[must_use]
    pub fn with_seed(mut self, seed: [u8; 32]) -> Self {
        self.keys = Some(KeyMaker::new(seed));
        self
    }

    fn srtp(&self, policy: &MediaPolicy) -> Srtp {
        if self.keys.is_some() { policy.srtp } else { Srtp::Never }
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
        let mut codecs: Vec<(u8, Codec)> =
            policy.codecs.iter().filter_map(|&c| Some((c.static_payload_type()?, c))).collect();
        if codecs.is_empty() {
            return Err(NegotiationError::NoCommonCodec);
        }
        // What is spoken now stays the first choice: an offer that is about something else changes it
        // for no reason otherwise.
        let current = self.media.as_ref().map(|media| media.codec);
        codecs.sort_by_key(|(_, codec)| Some(*codec) != current);
        let srtp = self.srtp(policy);
        if srtp == Srtp::Never && policy.srtp == Srtp::Required {
            return Err(NegotiationError::Crypto);
        }
        let suites = if srtp == Srtp::Never { &[][..] } else { &policy.srtp_suites[..] };
        let maker = self.keys.as_mut();
        let keys = maker.map(|maker| suites.iter().filter_map(|&suite| maker.key(suite)).collect::<Vec<_>>());
        let event = policy.telephone_event.then_some(self.event_payload_type);
        // RFC 8643 4: where plain RTP will do, the keys stand in a line of RTP/AVP. A session that is
        // RTP/SAVP stays so.
        let savp = srtp == Srtp::Required || self.last.as_ref().is_some_and(|last| last.savp);
        let keys = (1..).zip(keys.unwrap_or_default()).collect();
        let offer = Local { address: local, codecs, event, direction, mux: false, savp, keys };
        let mid = self.lines.get(self.audio_index).and_then(MediaLine::mid);
        let audio = audio_line(&offer, usable_packet_time(policy.packet_time_ms), mid);
        if self.lines.is_empty() {
            self.lines = vec![MediaLine::of(&audio)];
            self.audio_index = 0;
        }
        let medias = (0..self.lines.len())
            .map(|n| if n == self.audio_index { audio.clone() } else { self.lines[n].refused() })
            .collect();
        self.agreed_body = self.sent_body.clone();
        let body = self.send(local, vec![Time::new(0, 0)], medias)?;
        self.last = Some(offer.clone());
        self.open = Open::Local(offer);
        Ok(body)
    }

    /// Offers what was last agreed on once more, word for word and under the same version, so that
    /// nothing changes: for refreshes of the session (RFC 4028 7.4, RFC 3264 8).
    ///
    /// # Errors
    /// [`NegotiationError::WrongState`] while an offer is open, before anything was agreed on, after
    /// an offer that was withdrawn, and where media is not at `local` any more.
    pub fn repeat_offer(&mut self, local: SocketAddr) -> Result<Vec<u8>, NegotiationError> {
        let last = self.last.as_ref().filter(|last| last.address == local && self.state() == State::Stable);
        let (Some(last), Some(body)) = (last, &self.sent_body) else {
            return Err(NegotiationError::WrongState);
        };
        self.open = Open::Local(last.clone());
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
            (Open::Local(offer), _) => offer.clone(),
            (Open::Nothing, Some(offer)) if self.offered => offer.clone(),
            _ => return Err(NegotiationError::WrongState),
        };
        let description = Description::parse(body, policy.tolerant)?;
        if description.session.medias.len() < self.lines.len() {
            return Err(NegotiationError::MediaLines);
        }
        let audio = Audio::of_answer(&description.session, self.audio_index, policy, &offer)?;
        let codecs: Vec<Codec> = offer.codecs.iter().map(|(_, codec)| *codec).collect();
        let (send, codec) = audio.first_codec(&codecs).ok_or(NegotiationError::NoCommonCodec)?;
        let number =
            |wanted: Codec| offer.codecs.iter().find(|(_, c)| *c == wanted).map(|(number, _)| *number);
        let receive = number(codec).ok_or(NegotiationError::NoCommonCodec)?;
        // RFC 3264 6.1: of what is in the answer, anything may come.
        let others = codecs.iter().filter(|&&other| other != codec && audio.first_codec(&[other]).is_some());
        let also_receives = others.filter_map(|&other| Some((number(other)?, other))).collect();
        check_family(offer.address, audio.rtp)?;
        let security = match &audio.crypto {
            Some(theirs) => {
                let ours = offer.keys.iter().find(|(tag, _)| *tag == theirs.tag);
                sdes(ours.map(|(_, key)| key.clone()).ok_or(NegotiationError::Crypto)?, theirs)
            }
            None => MediaSecurity::None,
        };
        let media = LegMedia {
            codec,
            send_payload_type: send,
            receive_payload_type: receive,
            also_receives,
            telephone_event: offer.event.zip(audio.telephone_event()).map(|(ours, theirs)| TelephoneEvent {
                send_payload_type: theirs,
                receive_payload_type: ours,
                clock_rate: codec.clock_rate(),
            }),
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
        if let Open::Local(_) = self.open {
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
        let mut description = Description::parse(body, policy.tolerant)?;
        let audio = Audio::of_offer(&description.session, policy, self.srtp(policy))?;
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
        let direction = direction.restricted_to(audio.direction.reversed());
        let packet_time_ms = usable_packet_time(audio.packet_time_ms.unwrap_or(policy.packet_time_ms));
        let key = audio.crypto.as_ref().map(|theirs| self.key_against(theirs)).transpose()?;
        let answer = Local {
            address: local,
            codecs: vec![(number, codec)],
            event,
            direction,
            // RFC 8035: in an answer only where the offer had it.
            mux: audio.mux,
            savp: audio.savp,
            // RFC 4568 5.1.2: one line, with the tag of the line that was chosen.
            keys: audio.crypto.iter().map(|theirs| theirs.tag).zip(key.clone()).collect(),
        };
        let session = &offer.description.session;
        let lines: Vec<MediaLine> = session.medias.iter().map(MediaLine::of).collect();
        let line = audio_line(&answer, packet_time_ms, lines.get(audio.index).and_then(MediaLine::mid));
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
            security: key.zip(audio.crypto.as_ref()).map_or(MediaSecurity::None, |(k, c)| sdes(k, c)),
        };
        // RFC 3264 8.3.2: a payload type keeps its meaning for the life of the session.
        self.event_payload_type = event.unwrap_or(self.event_payload_type);
        self.audio_index = audio.index;
        self.remote = Some(Remote { version: offer.description.version, audio, lines: lines.len() });
        self.lines = lines;
        self.last = Some(answer);
        self.offered = false;
        self.open = Open::Nothing;
        let changed = self.settle(&media);
        Ok(Answer { body, media, changed, repairs: offer.description.repairs })
    }

    /// Returns our key for an answer. A peer with a new key of its own may be another one, which knows
    /// nothing of the packets sent before: it gets a new one of ours too (RFC 4568 7.1.4).
    fn key_against(&mut self, theirs: &Crypto) -> Result<SrtpKey, NegotiationError> {
        let before = self.remote.as_ref().and_then(|remote| remote.audio.crypto.as_ref());
        let moved = before.is_some_and(|before| before.keys != theirs.keys);
        let maker = self.keys.as_mut().ok_or(NegotiationError::SecureMedia)?;
        if moved {
            maker.renew();
        }
        maker.key(theirs.suite).ok_or(NegotiationError::Crypto)
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

fn sdes(send: SrtpKey, theirs: &Crypto) -> MediaSecurity {
    MediaSecurity::Sdes(SrtpKeys { suite: theirs.suite, send, receive: theirs.keys.clone() })
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
