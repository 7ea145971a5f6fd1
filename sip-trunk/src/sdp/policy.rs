use call_model::{Cause, Codec, SrtpSuite};

use super::address::AddressPolicy;
use super::description::SdpError;

/// Whether media is protected by SRTP, and what keys it: the session description (RFC 4568), or DTLS (RFC 5763).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Srtp {
    /// Plain RTP; an offer of RTP/SAVP is refused.
    #[default]
    Never,
    /// Offers are RTP/AVP with keys, and become plain RTP where the answer has none (RFC 8643).
    /// Offers with usable keys are answered with one.
    Preferred,
    /// Offers are RTP/SAVP, and what has no usable key is refused.
    Required,
    /// Offers are UDP/TLS/RTP/SAVP: keys come of a DTLS handshake between the media addresses, whose certificates the
    /// session descriptions name (RFC 5763, RFC 5764). What is keyed otherwise or not at all is refused.
    Dtls,
}

impl Srtp {
    /// What every peer has (RFC 4568 6.2).
    pub const DEFAULT_SUITES: &'static [SrtpSuite] =
        &[SrtpSuite::AesCm128HmacSha1_80, SrtpSuite::AesCm128HmacSha1_32];

    /// Returns the name used in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Srtp::Never => "never",
            Srtp::Preferred => "preferred",
            Srtp::Required => "required",
            Srtp::Dtls => "dtls",
        }
    }

    /// Says whether keys are in the session description.
    pub fn has_signalled_keys(self) -> bool {
        matches!(self, Srtp::Preferred | Srtp::Required)
    }
}

/// What a trunk wants of media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPolicy {
    /// Codecs in order of preference.
    pub codecs: Vec<Codec>,
    /// Milliseconds of audio in a packet, where the peer does not ask for something else.
    pub packet_time_ms: u16,
    /// Whether DTMF is offered and accepted as telephone events (RFC 4733).
    pub telephone_event: bool,
    /// Whether media is protected by SRTP.
    pub srtp: Srtp,
    /// The suites of SRTP in order of preference.
    pub srtp_suites: Vec<SrtpSuite>,
    /// Which addresses media may go to.
    pub addresses: AddressPolicy,
    /// Whether faults of session descriptions are mended.
    pub tolerant: bool,
}

impl MediaPolicy {
    /// Builds a policy with telephone events, plain RTP, mended faults and the default addresses.
    pub fn new(codecs: Vec<Codec>, packet_time_ms: u16) -> Self {
        Self {
            codecs,
            packet_time_ms,
            telephone_event: true,
            srtp: Srtp::default(),
            srtp_suites: Srtp::DEFAULT_SUITES.to_vec(),
            addresses: AddressPolicy::default(),
            tolerant: true,
        }
    }
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
    /// SRTP was offered or answered, which this trunk does not speak.
    #[error("the trunk speaks plain RTP and SRTP was asked for")]
    SecureMedia,
    /// Plain RTP was offered or answered, where SRTP is required.
    #[error("the trunk requires SRTP and plain RTP was asked for")]
    PlainMedia,
    /// SRTP without a key and a suite that can be used (RFC 4568).
    #[error("no usable key for SRTP")]
    Crypto,
    /// SRTP that is keyed otherwise than on this trunk: by DTLS, or by the session description.
    #[error("SRTP was asked for with keys of another kind than the trunk's")]
    Keying,
    /// DTLS without a fingerprint that can be checked (RFC 8122 5), or without a certificate of ours.
    #[error("no usable certificate fingerprint for DTLS")]
    Fingerprint,
    /// Both sides would begin the DTLS handshake, or neither (RFC 5763 5).
    #[error("the roles of DTLS do not go together")]
    Setup,
    /// A transport that is none of those of RTP.
    #[error("the media transport is none of RTP/AVP, RTP/SAVP and UDP/TLS/RTP/SAVP")]
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
            Self::PlainMedia => "plain_media",
            Self::Crypto => "crypto",
            Self::Keying => "keying",
            Self::Fingerprint => "fingerprint",
            Self::Setup => "setup",
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
            Self::SecureMedia | Self::PlainMedia | Self::Keying | Self::Transport => {
                Some((302, "Incompatible transport protocol"))
            }
            Self::Hostname | Self::AddressFamily => Some((301, "Incompatible network address formats")),
            Self::Crypto => Some((399, "No usable key for SRTP")),
            Self::Fingerprint => Some((399, "No usable fingerprint for DTLS")),
            Self::Setup => Some((399, "No usable role for DTLS")),
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
