//! What can be wrong with a media negotiation.

use thiserror::Error;

/// Why a media leg could not be built or negotiated. Nothing that arrives in a packet ends here:
/// packets are counted, never raised.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MediaError {
    /// The DTLS certificate of the process could not be made.
    #[error("no DTLS certificate could be generated")]
    Certificate,
    /// A local address cannot be an ICE candidate.
    #[error("an address cannot be an ICE host candidate")]
    LocalAddress,
    /// The leg was given no address at all, or more than it takes.
    #[error("a leg needs between 1 and 8 local addresses")]
    LocalAddressCount,
    /// A session description is longer than [`crate::MAX_SDP_LENGTH`] or has too many lines of a kind.
    #[error("the session description is too long")]
    SdpTooLong,
    /// A session description cannot be parsed.
    #[error("the session description cannot be parsed")]
    SdpSyntax,
    /// A session description is not exactly one accepted audio stream.
    #[error("the session description is not one audio stream")]
    NotOneAudio,
    /// A session description lacks what ICE or DTLS needs, or contradicts what was agreed before.
    #[error("the session description was refused: {0}")]
    SdpRefused(String),
    /// The two sides have no Opus in common.
    #[error("no Opus in common")]
    NoOpus,
    /// An answer came where no offer of ours was open, or an offer where one was.
    #[error("offer and answer out of order")]
    OutOfOrder,
    /// The trunk negotiated something that the bridge does not carry.
    #[error("trunk media not supported: {0}")]
    TrunkMedia(&'static str),
    /// A codec refused its settings.
    #[error("codec: {0}")]
    Codec(String),
}

impl MediaError {
    /// Returns the reason as a metric label.
    pub fn as_str(&self) -> &'static str {
        match self {
            MediaError::Certificate => "certificate",
            MediaError::LocalAddress => "local_address",
            MediaError::LocalAddressCount => "local_address_count",
            MediaError::SdpTooLong => "sdp_too_long",
            MediaError::SdpSyntax => "sdp_syntax",
            MediaError::NotOneAudio => "not_one_audio",
            MediaError::SdpRefused(_) => "sdp_refused",
            MediaError::NoOpus => "no_opus",
            MediaError::OutOfOrder => "out_of_order",
            MediaError::TrunkMedia(_) => "trunk_media",
            MediaError::Codec(_) => "codec",
        }
    }
}
