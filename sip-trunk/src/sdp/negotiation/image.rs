//! Offers and answers of T.38 (ITU-T T.38 annex D): the session carries an image stream instead of audio, and
//! audio again later. What is said of the facsimile is the other side's; only the address is ours.

use std::net::SocketAddr;

use call_model::{ImageAttributes, ImageMedia};

use super::super::MEDIA_LINES_MAX;
use super::super::description::{Description, Text};
use super::super::image::Image;
use super::super::lines::{MediaLine, write_image};
use super::super::policy::{MediaPolicy, NegotiationError, Srtp};
use super::{OfferAnswer, Open, State, check_family};
use crate::wire::tolerance::{Repair, Repairs};

/// What a session carries.
#[derive(Clone, Debug)]
pub(super) enum Stream {
    Audio,
    /// T.38, with what was said of ours.
    Image(Box<(ImageMedia, ImageAttributes)>),
    /// Nothing: an image line was refused where the audio line was not in use.
    Nothing,
}

/// Our offer of T.38.
#[derive(Clone)]
pub(super) struct OfferedImage {
    local: SocketAddr,
    attributes: ImageAttributes,
    /// The m-lines that the session has from then on.
    lines: Vec<MediaLine>,
}

/// The peer's offer of T.38.
#[derive(Clone)]
pub(super) struct PendingImage {
    image: Image,
    lines: Vec<MediaLine>,
    times: Vec<[u64; 2]>,
    repairs: Repairs,
}

/// Our answer to an offer of T.38, and what it settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageAnswer {
    /// The session description to send.
    pub body: Vec<u8>,
    /// The image stream from now on.
    pub image: ImageMedia,
    /// Whether the session carried something else before.
    pub changed: bool,
    /// What was mended in the offer.
    pub repairs: Repairs,
}

/// What the peer's answer to our offer of T.38 settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreedImage {
    /// The image stream from now on; `None`: the peer refused it, and the session carries nothing until the next
    /// offer.
    pub image: Option<ImageMedia>,
    /// Whether the session carried something else before.
    pub changed: bool,
    /// What was mended in the answer.
    pub repairs: Repairs,
}

impl OfferAnswer {
    /// Returns the image stream of a session that carries T.38.
    pub fn image(&self) -> Option<&ImageMedia> {
        match &self.stream {
            Stream::Image(agreed) => Some(&agreed.0),
            Stream::Audio | Stream::Nothing => None,
        }
    }

    /// Returns what was last said of our side of that stream.
    pub fn own_image(&self) -> Option<&ImageAttributes> {
        match &self.stream {
            Stream::Image(agreed) => Some(&agreed.1),
            Stream::Audio | Stream::Nothing => None,
        }
    }

    /// Says whether the session carries audio.
    pub fn carries_audio(&self) -> bool {
        matches!(self.stream, Stream::Audio)
    }

    /// Says whether an offer of T.38 of ours is open.
    pub fn offers_image(&self) -> bool {
        matches!(self.open, Open::LocalImage(_))
    }

    /// Makes an offer of T.38 with UDPTL at `local`: the audio line with port 0, and an image line with the other
    /// side's attributes (ITU-T T.38 D.2.3), in its place if the session has had one (RFC 3264 8). The same offer
    /// again has the same version.
    ///
    /// # Errors
    /// [`NegotiationError::WrongState`] while an offer is open and before any was; [`NegotiationError::PlainMedia`]
    /// where SRTP is required.
    pub fn make_image_offer(
        &mut self,
        local: SocketAddr,
        policy: &MediaPolicy,
        attributes: &ImageAttributes,
    ) -> Result<Vec<u8>, NegotiationError> {
        if self.state() != State::Stable || self.lines.is_empty() {
            return Err(NegotiationError::WrongState);
        }
        if policy.srtp == Srtp::Required {
            return Err(NegotiationError::PlainMedia);
        }
        let mut lines = self.lines.clone();
        let index = match lines.iter().position(MediaLine::is_image) {
            Some(index) => index,
            None if lines.len() < MEDIA_LINES_MAX => {
                lines.push(MediaLine::image());
                lines.len() - 1
            }
            // RFC 3264 8.3.3: a line may change its media.
            None => self.audio_index,
        };
        let medias = image_lines(&lines, index, local.port(), attributes);
        self.agreed_body = self.sent_body.clone();
        let body = self.send(local, &[[0, 0]], &medias);
        let attributes = attributes.clone();
        self.open = Open::LocalImage(Box::new(OfferedImage { local, attributes, lines }));
        Ok(body)
    }

    /// Takes the peer's answer to our offer of T.38 (RFC 3264 7). With a peer that is known to err, an answer of
    /// an image line alone will do.
    ///
    /// # Errors
    /// [`NegotiationError::WrongState`] without such an offer. After any other error the offer is over, and as the
    /// peer has another view of the session than we, it carries nothing until the next.
    pub fn accept_image_answer(
        &mut self,
        body: &[u8],
        policy: &MediaPolicy,
    ) -> Result<AgreedImage, NegotiationError> {
        let offer = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::LocalImage(offer) => offer,
            other => {
                self.open = other;
                return Err(NegotiationError::WrongState);
            }
        };
        let before = std::mem::replace(&mut self.stream, Stream::Nothing);
        self.offered = false;
        let OfferedImage { local, attributes, lines } = *offer;
        let wanted = lines.len();
        self.keep_lines(lines);
        let text = Text::of(body)?;
        let description = Description::parse(&text, policy.tolerant)?;
        let mut repairs = description.repairs;
        let short = description.medias.len() < wanted;
        if short && !policy.tolerant {
            return Err(NegotiationError::MediaLines);
        }
        let Some(image) = Image::of(&description, policy)? else {
            return Ok(AgreedImage { image: None, changed: true, repairs });
        };
        check_family(local, image.media.remote_udptl)?;
        if short {
            // What the peer calls the session is what it will understand of later offers.
            repairs.insert(Repair::SdpMediaLines);
            self.keep_lines(description.medias.iter().map(MediaLine::of).collect());
        }
        let image = image.media;
        let changed = !matches!(&before, Stream::Image(agreed) if agreed.0 == image);
        self.stream = Stream::Image(Box::new((image.clone(), attributes)));
        Ok(AgreedImage { image: Some(image), changed, repairs })
    }

    /// Takes the peer's offer, if it is one of T.38: an image line in use, whatever is beside it. `None`: it is
    /// not, and nothing has changed. It stays open until [`make_image_answer`](Self::make_image_answer) or
    /// [`reject_offer`](Self::reject_offer), after which its audio may still be taken.
    ///
    /// # Errors
    /// The image stream is to be refused; nothing has changed.
    pub fn receive_image_offer(
        &mut self,
        body: &[u8],
        policy: &MediaPolicy,
    ) -> Result<Option<ImageMedia>, NegotiationError> {
        if self.state() != State::Stable {
            return Err(NegotiationError::WrongState);
        }
        let text = Text::of(body)?;
        let description = Description::parse(&text, policy.tolerant)?;
        let Some(image) = Image::of(&description, policy)? else { return Ok(None) };
        let media = image.media.clone();
        let lines = description.medias.iter().map(MediaLine::of).collect();
        let Description { times, repairs, .. } = description;
        self.open = Open::RemoteImage(Box::new(PendingImage { image, lines, times, repairs }));
        Ok(Some(media))
    }

    /// Accepts the peer's offer of T.38 with the other side's attributes, and UDPTL at `local`. Audio beside it is
    /// refused: one stream goes over the port of the call.
    ///
    /// # Errors
    /// [`NegotiationError::WrongState`] without an open offer of T.38; [`NegotiationError::AddressFamily`] if `local`
    /// cannot reach the peer, after which the offer is still open.
    pub fn make_image_answer(
        &mut self,
        local: SocketAddr,
        attributes: &ImageAttributes,
    ) -> Result<ImageAnswer, NegotiationError> {
        let Open::RemoteImage(offer) = &self.open else { return Err(NegotiationError::WrongState) };
        check_family(local, offer.image.media.remote_udptl)?;
        let PendingImage { image, lines, times, repairs } = (**offer).clone();
        self.open = Open::Nothing;
        let medias = image_lines(&lines, image.index, local.port(), attributes);
        // RFC 3264 6: `t=` of the answer equals that of the offer.
        let times = if times.is_empty() { vec![[0, 0]] } else { times };
        let body = self.send(local, &times, &medias);
        self.keep_lines(lines);
        self.offered = false;
        let image = image.media;
        let changed = self.image() != Some(&image);
        self.stream = Stream::Image(Box::new((image.clone(), attributes.clone())));
        Ok(ImageAnswer { body, image, changed, repairs })
    }

    /// Takes over the m-lines of the session. Audio goes into its line again, or into that of the image
    /// (RFC 3264 8.3.3).
    fn keep_lines(&mut self, lines: Vec<MediaLine>) {
        let same = lines.get(self.audio_index).is_some_and(MediaLine::is_audio);
        if !same {
            let audio = lines.iter().position(MediaLine::is_audio);
            self.audio_index = audio.or_else(|| lines.iter().position(MediaLine::is_image)).unwrap_or(0);
        }
        self.lines = lines;
    }
}

/// Writes the m-lines: the one for the image, and the others with port 0 in their places.
fn image_lines(lines: &[MediaLine], image: usize, port: u16, attributes: &ImageAttributes) -> String {
    let mut out = String::with_capacity(512);
    for (index, line) in lines.iter().enumerate() {
        if index == image {
            write_image(&mut out, port, attributes, line.mid());
        } else {
            line.write_refused(&mut out);
        }
    }
    out
}
