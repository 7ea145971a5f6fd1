//! The image line: facsimile by T.38 over UDPTL (RFC 3362, ITU-T T.38 annex D).

use std::net::SocketAddr;

use call_model::{ImageAttributes, ImageMedia};

use super::audio::{address_of, check_address};
use super::description::{Description, Media};
use super::policy::{MediaPolicy, NegotiationError, Srtp};

/// One image m-line with everything that applies to it.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// Index of the m-line.
    pub(super) index: usize,
    pub(super) media: ImageMedia,
}

impl Image {
    /// Reads the first image line that is in use; `None` where there is none.
    ///
    /// # Errors
    /// UDPTL cannot or must not go where it says.
    pub(super) fn of(
        description: &Description<'_>,
        policy: &MediaPolicy,
    ) -> Result<Option<Self>, NegotiationError> {
        let mut lines = description.medias.iter().enumerate();
        let Some((index, media)) = lines.find(|(_, media)| is_fax(media)) else { return Ok(None) };
        // UDPTL is not protected, and the trunk wants nothing that is not.
        if policy.srtp == Srtp::Required {
            return Err(NegotiationError::PlainMedia);
        }
        let connection = media.connection.or(description.connection);
        let ip = address_of(connection.ok_or(NegotiationError::NoAddress)?)?;
        if ip.is_unspecified() {
            return Err(NegotiationError::NoAddress);
        }
        check_address(ip, policy)?;
        let mut attributes = ImageAttributes::default();
        for attribute in &media.attributes {
            // What is of no use to the other side, or too much, is left out.
            attributes.push(attribute.name, attribute.value);
        }
        let remote_udptl = SocketAddr::new(ip, media.port);
        Ok(Some(Self { index, media: ImageMedia { remote_udptl, attributes } }))
    }
}

/// Says whether a line is one of T.38 over UDPTL that is in use. TCPTL and T.38 in RTP are not spoken.
fn is_fax(media: &Media<'_>) -> bool {
    media.port != 0
        && media.media.eq_ignore_ascii_case("image")
        && media.proto.eq_ignore_ascii_case("udptl")
        && media.formats.split_whitespace().any(|format| format.eq_ignore_ascii_case("t38"))
}
