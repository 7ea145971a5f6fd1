//! How what is signed is written: its kind, who says so, the body, the signature.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::Kind;
use super::error::IdentityError;
use super::key::{Domain, NodeKey, Signed};
use super::x509::Certificate;
use crate::cbor;

/// The signed records of nodes and users, and what authorities sign: `[kind, credential, body, signature]`.
pub(crate) struct Frame {
    /// By what the signer is known.
    pub(crate) credential: Vec<u8>,
    /// What it signed.
    pub(crate) signed: Signed,
}

/// A body with the signature of an authority, and the authority's X.509 certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// The certificate of the authority.
    pub(super) signer: Certificate,
    /// What it signed.
    pub(super) signed: Signed,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    kind: u8,
    #[n(1)]
    credential: ByteVec,
    #[n(2)]
    body: ByteVec,
    #[n(3)]
    signature: ByteArray<64>,
}

impl Frame {
    /// Reads what [`Frame::write`] makes. Verifies nothing.
    ///
    /// # Errors
    /// `Malformed` where it is not whole or of another kind, `Oversize` above `limit` bytes.
    pub(crate) fn read(
        kind: Kind,
        what: &'static str,
        bytes: &[u8],
        limit: usize,
    ) -> Result<Self, IdentityError> {
        let wire: Wire = cbor::decode_exact(what, bytes, limit)?;
        if wire.kind != kind as u8 {
            return Err(IdentityError::Malformed { what });
        }
        let signed = Signed { body: wire.body.into(), signature: wire.signature.into() };
        Ok(Self { credential: wire.credential.into(), signed })
    }

    /// Writes a frame as CBOR.
    pub(crate) fn write(kind: Kind, credential: Vec<u8>, signed: &Signed) -> Vec<u8> {
        cbor::encode(Wire {
            kind: kind as u8,
            credential: credential.into(),
            body: signed.body.clone().into(),
            signature: signed.signature.into(),
        })
    }
}

impl Sealed {
    /// Signs a body with the key of an authority, whose certificate comes with it.
    pub(super) fn seal(signer: &Certificate, key: &NodeKey, domain: Domain, body: Vec<u8>) -> Self {
        Self { signer: signer.clone(), signed: Signed::seal(key, domain, body) }
    }

    /// Reads the bytes of [`Sealed::encode`]. Verifies nothing.
    ///
    /// # Errors
    /// `Malformed` where it is not whole or of another kind, `Oversize` above `limit` bytes.
    pub(super) fn decode(
        kind: Kind,
        what: &'static str,
        bytes: &[u8],
        limit: usize,
    ) -> Result<Self, IdentityError> {
        let Frame { credential, signed } = Frame::read(kind, what, bytes, limit)?;
        Ok(Self { signer: Certificate::parse(&credential)?, signed })
    }

    /// Writes it as CBOR.
    pub(super) fn encode(&self, kind: Kind) -> Vec<u8> {
        Frame::write(kind, self.signer.der.clone(), &self.signed)
    }

    /// Says whether the authority of the certificate signed it for a domain.
    pub(super) fn is_signed(&self, domain: Domain) -> bool {
        self.signed.is_by(&self.signer.key, domain)
    }
}
