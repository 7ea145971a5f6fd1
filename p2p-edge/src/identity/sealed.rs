//! How anything that an authority signs is written: its kind, the certificate of the authority, the body, the
//! signature.

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::Kind;
use super::error::IdentityError;
use super::key::{Domain, NodeKey, Signed};
use super::x509::Certificate;
use crate::cbor;

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
    signer: ByteVec,
    #[n(2)]
    body: ByteVec,
    #[n(3)]
    signature: ByteArray<64>,
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
        let wire: Wire = cbor::decode_exact(what, bytes, limit)?;
        if wire.kind != kind as u8 {
            return Err(IdentityError::Malformed { what });
        }
        let signed = Signed { body: wire.body.into(), signature: wire.signature.into() };
        Ok(Self { signer: Certificate::parse(&wire.signer)?, signed })
    }

    /// Writes it as CBOR.
    pub(super) fn encode(&self, kind: Kind) -> Vec<u8> {
        cbor::encode(Wire {
            kind: kind as u8,
            signer: self.signer.der.clone().into(),
            body: self.signed.body.clone().into(),
            signature: self.signed.signature.into(),
        })
    }

    /// Says whether the authority of the certificate signed it for a domain.
    pub(super) fn is_signed(&self, domain: Domain) -> bool {
        self.signed.is_by(&self.signer.key, domain)
    }
}
