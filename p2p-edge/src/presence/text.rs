//! Text from one user to another, signed by the device that sends it.

use call_model::Handle;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::{MAX_TEXT, Refused, TEXT_LIFE};
use crate::cbor;
use crate::identity::{Domain, MAX_CREDENTIAL_BYTES, NodeKey, PublicKey, Signed};
use crate::record::CLOCK_SKEW;

/// Longest encoded text with the certificate of its sender, in bytes.
pub(super) const MAX_SIGNED_TEXT: usize = MAX_TEXT + MAX_CREDENTIAL_BYTES + 512;

/// Names a text: 128 random bits chosen by its sender.
pub type TextId = [u8; 16];

/// A text from one user to another.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    /// Names the text: the same one that comes twice is shown once.
    pub id: TextId,
    /// Who sends it.
    pub from: Handle,
    /// Whom it is for.
    pub to: Handle,
    /// When it was sent, in Unix milliseconds.
    pub sent_unix_ms: u64,
    /// At most [`MAX_TEXT`] bytes.
    pub text: String,
}

impl std::fmt::Debug for Text {
    /// Prints the size; who writes what to whom is personal data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("bytes", &self.text.len()).finish_non_exhaustive()
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    id: ByteArray<16>,
    #[n(1)]
    from: String,
    /// The place of the sender's key in its certificate.
    #[n(2)]
    device: u8,
    #[n(3)]
    to: String,
    #[n(4)]
    sent_unix_ms: u64,
    #[n(5)]
    text: String,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    certificate: ByteVec,
    #[n(1)]
    body: ByteVec,
    #[n(2)]
    signature: ByteArray<64>,
}

/// A text, the certificate of its sender, and the signature: all that a reader needs but the root.
/// Reading one verifies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedText {
    /// What it says.
    pub text: Text,
    /// The sender's device: the place of its key in the certificate.
    pub device: u8,
    /// The sender's encoded handle certificate.
    pub certificate: Vec<u8>,
    signed: Signed,
}

impl SignedText {
    /// Signs a text with the key of a device.
    ///
    /// # Errors
    /// `Oversize` above [`MAX_TEXT`] bytes.
    pub fn seal(text: Text, certificate: Vec<u8>, device: u8, key: &NodeKey) -> Result<Self, Refused> {
        if text.text.len() > MAX_TEXT || certificate.len() > MAX_CREDENTIAL_BYTES {
            return Err(Refused::Oversize);
        }
        let body = Body {
            id: text.id.into(),
            from: text.from.to_string(),
            device,
            to: text.to.to_string(),
            sent_unix_ms: text.sent_unix_ms,
            text: text.text.clone(),
        };
        let signed = Signed::seal(key, Domain::Text, cbor::encode(body));
        Ok(Self { text, device, certificate, signed })
    }

    /// Writes the text with all that belongs to it.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(Wire {
            certificate: self.certificate.clone().into(),
            body: self.signed.body.clone().into(),
            signature: self.signed.signature.into(),
        })
    }

    /// Reads the bytes of [`SignedText::encode`].
    ///
    /// # Errors
    /// `Malformed` for anything else, `Oversize` for too long a text.
    pub fn decode(bytes: &[u8]) -> Result<Self, Refused> {
        let malformed = |_| Refused::Malformed;
        let wire: Wire = cbor::decode("the text", bytes, MAX_SIGNED_TEXT).map_err(malformed)?;
        let body: Body = cbor::decode("the text", &wire.body, MAX_SIGNED_TEXT).map_err(malformed)?;
        if body.text.len() > MAX_TEXT {
            return Err(Refused::Oversize);
        }
        let text = Text {
            id: body.id.into(),
            from: body.from.parse().map_err(|_| Refused::Malformed)?,
            to: body.to.parse().map_err(|_| Refused::Malformed)?,
            sent_unix_ms: body.sent_unix_ms,
            text: body.text,
        };
        let signed = Signed { body: wire.body.into(), signature: wire.signature.into() };
        Ok(Self { text, device: body.device, certificate: wire.certificate.into(), signed })
    }

    /// Returns when a home drops the text, in Unix seconds.
    pub fn expires_unix(&self) -> u64 {
        (self.text.sent_unix_ms / 1000).saturating_add(TEXT_LIFE)
    }

    /// Checks that the text is not from the future and not from before what is kept.
    ///
    /// # Errors
    /// `Expired` or `TooFarAhead`.
    pub(super) fn check_time(&self, unix: u64) -> Result<(), Refused> {
        if self.expires_unix() <= unix {
            return Err(Refused::Expired);
        }
        if self.text.sent_unix_ms / 1000 > unix.saturating_add(CLOCK_SKEW) {
            return Err(Refused::TooFarAhead);
        }
        Ok(())
    }

    /// Says whether the device that it names has signed it. `keys` are those of the certificate.
    pub(super) fn is_by(&self, keys: &[PublicKey]) -> bool {
        keys.get(usize::from(self.device)).is_some_and(|key| self.signed.is_by(key, Domain::Text))
    }
}
