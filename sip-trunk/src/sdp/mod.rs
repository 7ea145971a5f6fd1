//! Session descriptions: read with patience, written strictly, agreed on by offer and answer
//! (RFC 8866, RFC 3264).

mod address;
mod audio;
mod crypto;
mod description;
mod dtls;
mod image;
mod lines;
mod negotiation;
mod policy;

pub use address::{AddressPolicy, is_denied};
pub use description::SdpError;
pub use negotiation::{AgreedImage, Answer, ImageAnswer, Negotiated, OfferAnswer, RemoteOffer, State};
pub use policy::{MediaPolicy, NegotiationError, Srtp};

/// The Content-Type of a session description (RFC 8866 8.1).
pub const CONTENT_TYPE: &str = "application/sdp";

/// Largest session description that is read, in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most m-lines of a description.
pub const MEDIA_LINES_MAX: usize = 16;
/// Most payload types of an m-line.
pub const FORMATS_MAX: usize = 64;

#[cfg(test)]
mod tests;
