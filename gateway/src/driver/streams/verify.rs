//! Whose certificate is believed (RFC 5922), and what went wrong when a connection could not be had.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use sip_trunk::{PeerIdentity, SubjectName};
use x509_parser::extensions::GeneralName;

/// Why a connection could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectFailure {
    /// TCP failed.
    #[error("no connection: {0}")]
    Connect(String),
    /// Nobody answered, or not in time.
    #[error("no answer in time")]
    Timeout,
    /// No certificate is expected there: the address is no trunk's with TLS.
    #[error("nothing says whose certificate is expected; add a trunk with TLS and this target")]
    NotConfigured,
    /// The certificate is somebody else's.
    #[error(
        "certificate of the peer is for {presented}, expected {expected}; have it issued for that name, or \
         write the right one as tls.server_name"
    )]
    WrongName {
        /// Whom it is for.
        presented: String,
        /// Whom it should be for.
        expected: String,
    },
    /// The certificate has expired.
    #[error("certificate of the peer has expired; it must be renewed there")]
    Expired,
    /// The certificate is not valid yet.
    #[error("certificate of the peer is not valid yet; look at the clocks of both ends")]
    NotYetValid,
    /// Nobody trusted issued the certificate.
    #[error("certificate of the peer was issued by nobody trusted; write its authority as tls.ca")]
    UnknownIssuer,
    /// Another fault of the certificate.
    #[error("certificate of the peer is not good: {0}")]
    BadCertificate(String),
    /// The peer showed no certificate although one is required.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// The peer ended the handshake.
    #[error("the peer refused: {0}; it may want another certificate of ours (tls.client_certificate)")]
    Refused(String),
    /// The handshake failed otherwise.
    #[error("TLS: {0}")]
    Handshake(String),
    /// The WebSocket handshake failed.
    #[error("WebSocket: {0}")]
    WebSocket(String),
}

impl ConnectFailure {
    /// Returns the label of metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::NotConfigured => "not_configured",
            Self::WrongName { .. } => "wrong_name",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadCertificate(_) => "bad_certificate",
            Self::NoCertificate => "no_certificate",
            Self::Refused(_) => "refused",
            Self::Handshake(_) => "handshake",
            Self::WebSocket(_) => "websocket",
        }
    }

    /// Finds out what a handshake failed of.
    pub(super) fn of_handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match tls {
            Some(Error::InvalidCertificate(fault)) => Self::of_certificate(fault),
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::AlertReceived(alert)) => Self::Refused(format!("{alert:?}")),
            Some(other) => Self::Handshake(other.to_string()),
            // A peer that hangs up in the middle of it.
            None => Self::Handshake(error.to_string()),
        }
    }

    fn of_certificate(fault: &CertificateError) -> Self {
        match fault {
            CertificateError::NotValidForNameContext { expected, presented } => {
                Self::WrongName { presented: presented.join(", "), expected: expected.to_str().into_owned() }
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            // An authority of the same name with another key is another authority.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            other => Self::BadCertificate(other.to_string()),
        }
    }
}

impl From<io::Error> for ConnectFailure {
    fn from(error: io::Error) -> Self {
        Self::Connect(error.to_string())
    }
}

/// Reads whom a certificate is for (RFC 5922 7.1). `None` if it cannot be read.
pub(super) fn identity_of(certificate: &CertificateDer<'_>) -> Option<PeerIdentity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject_alternative_name().ok()?;
    let general = subject.as_ref().map_or(&[][..], |names| names.value.general_names.as_slice());
    let names: Vec<_> = general
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(SubjectName::Uri((*uri).to_owned())),
            GeneralName::DNSName(name) => Some(SubjectName::Dns((*name).to_owned())),
            GeneralName::IPAddress(bytes) => address_of(bytes).map(SubjectName::Address),
            _ => None,
        })
        .collect();
    let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Some(PeerIdentity::new(&names, common_name.filter(|_| subject.is_none())))
}

fn address_of(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from)).ok()
}

/// Believes a server whose certificate hangs from the roots and is for one name.
pub(super) struct DomainVerifier {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) expected: String,
    pub(super) allow_common_name: bool,
}

impl fmt::Debug for DomainVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for DomainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        let identity = identity_of(end_entity).unwrap_or_default();
        if !identity.is(&self.expected, self.allow_common_name) {
            return Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected: server_name.to_owned(),
                presented: vec![identity.to_string()],
            }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Believes a client whose certificate hangs from the roots, be it one for servers alone: in SIP both
/// ends are both, and public authorities issue nothing else any more.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    pub(super) roots: Arc<RootCertStore>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for PeerVerifier {
    fn offer_client_auth(&self) -> bool {
        self.clients.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.clients.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = match self.clients.verify_client_cert(end_entity, intermediates, now) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
            .map(|()| ClientCertVerified::assertion())
            .map_err(|_| refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}
