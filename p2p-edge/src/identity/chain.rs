use libp2p::PeerId;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::armour::{self, CERTIFICATE};
use super::claims::{MAX_NODE_DAYS, NodeClaims, Prefix, Price, Role, check_length};
use super::error::IdentityError;
use super::key::PublicKey;
use super::revocation::RevocationList;
use super::standing::Standing;
use super::time::Validity;
use super::trust::Trust;
use super::x509::Certificate;
use super::{Kind, MAX_CREDENTIAL_BYTES};
use crate::cbor;

/// The certificate of a supernode or gateway and that of the enrolment authority which issued it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChain {
    leaf: Certificate,
    enrolment: Certificate,
}

/// A node whose chain was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedNode {
    /// The node's name.
    pub name: String,
    /// Its key.
    pub key: PublicKey,
    /// Its peer id, which is that of the key.
    pub peer_id: PeerId,
    /// What it is.
    pub role: Role,
    /// Numbers that it may offer calls to.
    pub prefixes: Vec<Prefix>,
    /// Numbers that it may assign to handles.
    pub number_prefixes: Vec<Prefix>,
    /// The highest price that it may ask.
    pub rate: Option<Price>,
    /// The number of its certificate.
    pub serial: u64,
    /// The key of the enrolment authority.
    pub issuer: PublicKey,
    /// When its certificate ends, in Unix seconds.
    pub not_after: u64,
    /// What may void its certificate later.
    pub standing: Standing,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    kind: u8,
    #[n(1)]
    leaf: ByteVec,
    #[n(2)]
    enrolment: ByteVec,
}

impl NodeChain {
    pub(super) fn new(leaf: Certificate, enrolment: Certificate) -> Self {
        Self { leaf, enrolment }
    }

    /// Reads the bytes of [`NodeChain::encode`]. Verifies nothing.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        const WHAT: &str = "the certificate chain";
        let wire: Wire = cbor::decode_exact(WHAT, bytes, MAX_CREDENTIAL_BYTES)?;
        if wire.kind != Kind::Chain as u8 {
            return Err(IdentityError::Malformed { what: WHAT });
        }
        Ok(Self { leaf: Certificate::parse(&wire.leaf)?, enrolment: Certificate::parse(&wire.enrolment)? })
    }

    /// Writes the chain as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let (leaf, enrolment) = (self.leaf.der.clone().into(), self.enrolment.der.clone().into());
        cbor::encode(Wire { kind: Kind::Chain as u8, leaf, enrolment })
    }

    /// Reads the chain from PEM: two blocks `CERTIFICATE`, the node's own first.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let blocks = armour::all(pem, CERTIFICATE)?;
        match blocks.as_slice() {
            [leaf, enrolment] => {
                Ok(Self { leaf: Certificate::parse(leaf)?, enrolment: Certificate::parse(enrolment)? })
            }
            [] => Err(IdentityError::MissingPem { label: CERTIFICATE }),
            _ => Err(IdentityError::Malformed { what: "the certificate chain of two blocks" }),
        }
    }

    /// Writes the chain as PEM.
    pub fn to_pem(&self) -> String {
        [&self.leaf, &self.enrolment].map(|c| armour::block(CERTIFICATE, c.der.clone())).concat()
    }

    /// Returns the node's name, unverified.
    pub fn name(&self) -> &str {
        &self.leaf.name
    }

    /// Returns the node's key, unverified.
    pub fn key(&self) -> &PublicKey {
        &self.leaf.key
    }

    /// Returns the number of the node's certificate, unverified.
    pub fn serial(&self) -> u64 {
        self.leaf.serial
    }

    /// Returns when the node's certificate is valid, unverified.
    pub fn validity(&self) -> Validity {
        self.leaf.validity
    }

    /// Returns the claims, unverified.
    pub fn claims(&self) -> Option<&NodeClaims> {
        self.leaf.claims.as_ref()
    }

    /// Verifies the chain at the moment `unix`: enrolment authority under a trusted root, node under
    /// the authority and within what the root lets that certify, both valid and not revoked, the
    /// node no authority itself.
    pub fn verify(
        &self,
        trust: &Trust,
        revocations: &RevocationList,
        unix: u64,
    ) -> Result<VerifiedNode, IdentityError> {
        let (leaf, enrolment) = (&self.leaf, &self.enrolment);
        let root = trust.verify_enrolment(enrolment, revocations, unix)?;
        leaf.check_issued_by(enrolment, 0)?;
        let claims = match &leaf.claims {
            Some(claims) if leaf.authority.is_none() => claims.clone(),
            _ => return Err(IdentityError::NotNode { subject: leaf.name.clone() }),
        };
        enrolment.check_permits_node(&leaf.name, &claims)?;
        check_length(&leaf.name, leaf.validity, MAX_NODE_DAYS)?;
        leaf.check_time(unix)?;
        revocations.check(&enrolment.key, leaf.serial, &leaf.name)?;
        trust.validate_path(leaf, enrolment, unix)?;
        let not_after = leaf.validity.not_after.min(enrolment.validity.not_after);
        Ok(VerifiedNode {
            name: leaf.name.clone(),
            key: leaf.key.clone(),
            peer_id: leaf.key.peer_id(),
            role: claims.role,
            prefixes: claims.prefixes,
            number_prefixes: claims.number_prefixes,
            rate: claims.rate,
            serial: leaf.serial,
            issuer: enrolment.key.clone(),
            not_after,
            standing: Standing {
                issuer: enrolment.key.to_bytes(),
                serial: leaf.serial,
                root: root.key.to_bytes(),
                enrolment_serial: enrolment.serial,
                not_after,
            },
        })
    }
}
