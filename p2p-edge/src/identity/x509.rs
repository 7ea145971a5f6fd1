//! X.509 certificates (RFC 5280) and requests (RFC 2986) of authorities and nodes: Ed25519 only
//! (RFC 8410), named by one common name.
use std::time::Duration;

use call_model::Number;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyUsagePurpose,
    PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey,
};
use rustls_pki_types::CertificateDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_SIG_ED25519;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};
use x509_parser::x509::{SubjectPublicKeyInfo, X509Name};

use crate::defence::{Defence, holds};

use super::claims::{EnrolmentLimits, NodeClaims};
use super::error::IdentityError;
use super::key::{NodeKey, PublicKey, Signature};
use super::time::{LAST_SECOND, Validity};

/// The longest certificate or request that is read.
pub(crate) const MAX_DER: usize = 2048;
/// The longest common name, in bytes (RFC 5280 appendix A.1, ub-common-name).
pub(crate) const MAX_NAME: usize = 64;

/// The extension with the claims of a node, under the enterprise number that RFC 5612 sets aside
/// for those who have none. The value is an OCTET STRING with CBOR.
const CLAIMS_OID: &[u64] = &[1, 3, 6, 1, 4, 1, 32473, 1, 1];

/// The extension with what the root permits an enrolment authority to certify, likewise.
const LIMITS_OID: &[u64] = &[1, 3, 6, 1, 4, 1, 32473, 1, 2];

/// What stands between the signed part and the signature: the algorithm id-Ed25519 (RFC 8410 3) and
/// the head of the BIT STRING. Not signed, so it is compared byte by byte.
const BEFORE_SIGNATURE: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x41, 0x00];

/// A parsed certificate. Parsing verifies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) der: Vec<u8>,
    pub(crate) name: String,
    pub(crate) issuer_name: String,
    pub(crate) key: PublicKey,
    pub(crate) serial: u64,
    pub(crate) validity: Validity,
    /// The path length of a CA that may sign certificates; `None` for all others.
    pub(crate) authority: Option<u32>,
    pub(crate) claims: Option<NodeClaims>,
    /// What an authority may certify, where that is limited.
    pub(crate) limits: Option<EnrolmentLimits>,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    signed: Vec<u8>,
    signature: Signature,
}

impl Certificate {
    /// Reads a certificate: version 3, Ed25519 throughout, serial of at most 64 bits, no critical
    /// extension that is not understood (RFC 5280 4.2).
    pub(crate) fn parse(der: &[u8]) -> Result<Self, IdentityError> {
        const WHAT: &str = "the certificate";
        let malformed = || IdentityError::Malformed { what: WHAT };
        if der.len() > MAX_DER {
            return Err(IdentityError::Oversize { what: WHAT, size: der.len(), limit: MAX_DER });
        }
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| malformed())?;
        let tbs = &parsed.tbs_certificate;
        if !rest.is_empty() || tbs.version != X509Version::V3 {
            return Err(malformed());
        }
        let name = common_name(&tbs.subject).ok_or_else(malformed)?;
        let issuer_name = common_name(&tbs.issuer).ok_or_else(malformed)?;
        if parsed.signature_algorithm.algorithm != OID_SIG_ED25519
            || tbs.signature != parsed.signature_algorithm
        {
            return Err(IdentityError::UnsupportedKey { subject: name });
        }
        let key = public_key(&tbs.subject_pki, &name)?;
        let signature = Signature::try_from(parsed.signature_value.data.as_ref()).map_err(|_| malformed())?;
        // One certificate has one encoding, or each record could be had in several.
        if *der != to_der(0x30, &[tbs.as_ref(), &BEFORE_SIGNATURE, &signature].concat()) {
            return Err(malformed());
        }
        let seconds = |time: i64| u64::try_from(time).map_err(|_| malformed());
        let validity = Validity {
            not_before: seconds(tbs.validity.not_before.timestamp())?,
            not_after: seconds(tbs.validity.not_after.timestamp())?,
        };
        let Extensions { authority, claims, limits } = read_extensions(&parsed)?;
        Ok(Self {
            der: der.to_vec(),
            key,
            serial: serial(tbs.raw_serial()).ok_or_else(malformed)?,
            validity,
            authority,
            claims,
            limits,
            subject: tbs.subject.as_raw().to_vec(),
            issuer: tbs.issuer.as_raw().to_vec(),
            signed: tbs.as_ref().to_vec(),
            signature,
            name,
            issuer_name,
        })
    }

    /// Checks that `unix` lies within the validity.
    pub(crate) fn check_time(&self, unix: u64) -> Result<(), IdentityError> {
        super::check_time(&self.name, self.validity, unix)
    }

    /// Checks that `issuer` is an authority whose path may still hold `below` further authorities,
    /// and that it signed this certificate (RFC 5280 6.1.3, 6.1.4).
    pub(crate) fn check_issued_by(&self, issuer: &Certificate, below: u32) -> Result<(), IdentityError> {
        if issuer.authority.is_none_or(|path| path < below) && holds(Defence::ChainAuthority) {
            return Err(IdentityError::NotAuthority { subject: issuer.name.clone() });
        }
        if self.issuer != issuer.subject {
            return Err(IdentityError::WrongIssuer {
                subject: self.name.clone(),
                issuer: self.issuer_name.clone(),
            });
        }
        if !issuer.key.verify_raw(&self.signed, &self.signature) && holds(Defence::ChainSignature) {
            return Err(IdentityError::BadSignature { subject: format!("the certificate of {}", self.name) });
        }
        Ok(())
    }

    /// Checks that this authority may certify a node with these claims.
    pub(crate) fn check_permits_node(&self, subject: &str, claims: &NodeClaims) -> Result<(), IdentityError> {
        self.check_permits(subject, |limits| limits.permit_node(claims))
    }

    /// Checks that this authority may certify numbers as those of a user.
    pub(crate) fn check_permits_user(&self, subject: &str, numbers: &[Number]) -> Result<(), IdentityError> {
        self.check_permits(subject, |limits| limits.permit_numbers(numbers) && limits.permit_certificates())
    }

    /// Checks that the root lets this authority assign a number.
    pub(crate) fn check_permits_assignment(&self, number: &Number) -> Result<(), IdentityError> {
        self.check_permits(&number.to_string(), |limits| limits.permit_numbers(std::slice::from_ref(number)))
    }

    fn check_permits(
        &self,
        subject: &str,
        permit: impl Fn(&EnrolmentLimits) -> bool,
    ) -> Result<(), IdentityError> {
        if self.limits.as_ref().is_none_or(permit) || !holds(Defence::AuthorityLimits) {
            return Ok(());
        }
        Err(IdentityError::OutsideLimits { subject: subject.to_owned(), issuer: self.name.clone() })
    }

    pub(crate) fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }

    pub(crate) fn has_issuer_name_of(&self, issuer: &Certificate) -> bool {
        self.issuer == issuer.subject
    }
}

struct Extensions {
    authority: Option<u32>,
    claims: Option<NodeClaims>,
    limits: Option<EnrolmentLimits>,
}

fn read_extensions(parsed: &X509Certificate<'_>) -> Result<Extensions, IdentityError> {
    let malformed = || IdentityError::Malformed { what: "an extension of the certificate" };
    // These two refuse duplicates; so does the map (RFC 5280 4.2).
    parsed.extensions_map().map_err(|_| malformed())?;
    let constraints = parsed.basic_constraints().map_err(|_| malformed())?;
    let usage = parsed.key_usage().map_err(|_| malformed())?;
    let signs = usage.is_some_and(|usage| usage.value.key_cert_sign());
    let authority = constraints
        .filter(|constraints| constraints.value.ca && signs)
        .map(|constraints| constraints.value.path_len_constraint.unwrap_or(0));
    let (mut claims, mut limits) = (None, None);
    for extension in parsed.extensions() {
        let is = |wanted: &[u64]| extension.oid.iter().is_some_and(|oid| oid.eq(wanted.iter().copied()));
        let content = || octet_string(extension.value).ok_or_else(malformed);
        if is(CLAIMS_OID) {
            claims = Some(NodeClaims::decode(content()?)?);
            continue;
        }
        if is(LIMITS_OID) {
            limits = Some(EnrolmentLimits::decode(content()?)?);
            continue;
        }
        let known = matches!(
            extension.parsed_extension(),
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::SubjectKeyIdentifier(_)
                | ParsedExtension::AuthorityKeyIdentifier(_)
        );
        if extension.critical && !known {
            return Err(malformed());
        }
    }
    Ok(Extensions { authority, claims, limits })
}

/// Reads the single common name: 1 to 64 bytes without control characters, as it goes to logs.
fn common_name(name: &X509Name<'_>) -> Option<String> {
    let mut names = name.iter_common_name();
    let text = names.next()?.as_str().ok()?;
    (names.next().is_none() && is_name(text)).then(|| text.to_owned())
}

fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn public_key(info: &SubjectPublicKeyInfo<'_>, subject: &str) -> Result<PublicKey, IdentityError> {
    let key = Some(&info.subject_public_key)
        .filter(|_| info.algorithm.algorithm == OID_SIG_ED25519)
        .and_then(|key| PublicKey::from_bytes(key.data.as_ref()));
    key.ok_or_else(|| IdentityError::UnsupportedKey { subject: subject.to_owned() })
}

/// Reads a positive INTEGER of at most 64 bits.
fn serial(raw: &[u8]) -> Option<u64> {
    let digits = match raw {
        [0, rest @ ..] => rest,
        [first, ..] if first & 0x80 != 0 => return None,
        all => all,
    };
    (digits.len() <= 8).then(|| digits.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// Reads the contents of a DER OCTET STRING that fills `der`.
fn octet_string(der: &[u8]) -> Option<&[u8]> {
    let (length, contents) = match der {
        [0x04, length @ 0..=0x7f, rest @ ..] => (usize::from(*length), rest),
        [0x04, 0x81, length @ 0x80..=0xff, rest @ ..] => (usize::from(*length), rest),
        [0x04, 0x82, high @ 1..=0xff, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return None,
    };
    (contents.len() == length).then_some(contents)
}

/// Writes a DER value of at most 65535 bytes; lengths in the shortest form (X.690 10.1).
fn to_der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap_or(u16::MAX);
    let [high, low] = length.to_be_bytes();
    let mut der = match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    der.extend_from_slice(contents);
    der
}

/// What is to be written into a certificate.
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) key: &'a PublicKey,
    pub(crate) serial: u64,
    pub(crate) validity: Validity,
    /// The path length, for authorities.
    pub(crate) authority: Option<u8>,
    pub(crate) claims: Option<&'a NodeClaims>,
    /// For enrolment authorities.
    pub(crate) limits: Option<&'a EnrolmentLimits>,
}

/// Writes a certificate signed by `issuer_key`; self-signed without `issuer`.
pub(crate) fn write(
    subject: &Subject<'_>,
    issuer: Option<&Certificate>,
    issuer_key: &NodeKey,
) -> Result<Certificate, IdentityError> {
    let failed = |_| IdentityError::InvalidClaim { what: "a value that X.509 cannot hold" };
    let mut params = named(subject.name)?;
    params.serial_number = Some(SerialNumber::from_slice(&subject.serial.to_be_bytes()));
    if subject.serial == 0
        || subject.validity.not_after > LAST_SECOND
        || subject.validity.not_before > LAST_SECOND
    {
        return Err(IdentityError::InvalidClaim { what: "serial 0 or a date after the year 9999" });
    }
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(subject.validity.not_before);
    params.not_after = epoch + Duration::from_secs(subject.validity.not_after);
    match subject.authority {
        Some(path) => {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        }
        None => params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
    }
    if let Some(claims) = subject.claims {
        let content = to_der(0x04, &claims.encode());
        params.custom_extensions.push(CustomExtension::from_oid_content(CLAIMS_OID, content));
    }
    if let Some(limits) = subject.limits {
        let content = to_der(0x04, &limits.encode());
        params.custom_extensions.push(CustomExtension::from_oid_content(LIMITS_OID, content));
    }
    let signer = Signer::new(issuer_key);
    let written = match issuer {
        None => params.self_signed(&signer),
        Some(issuer) => {
            let der = CertificateDer::from(issuer.der.as_slice());
            let issuer = Issuer::from_ca_cert_der(&der, signer).map_err(failed)?;
            params.signed_by(&Subscriber(subject.key.to_bytes()), &issuer)
        }
    };
    Certificate::parse(written.map_err(failed)?.der())
}

/// A certificate signing request that was read and whose signature proves that the sender holds
/// the key (RFC 2986).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name asked for: of an authority, of a node, or a handle.
    pub name: String,
    /// The key to certify.
    pub key: PublicKey,
}

impl Request {
    /// Writes a request for `name` as PEM, signed by `key`.
    pub fn write(name: &str, key: &NodeKey) -> Result<String, IdentityError> {
        let request = named(name)?.serialize_request(&Signer::new(key));
        let request =
            request.map_err(|_| IdentityError::InvalidClaim { what: "a name that X.509 cannot hold" })?;
        Ok(super::armour::block(super::armour::REQUEST, request.der().to_vec()))
    }

    /// Reads a request from PEM and verifies its signature. Attributes are ignored: what goes into
    /// the certificate is for the authority to say.
    pub fn read(pem: &str) -> Result<Self, IdentityError> {
        const WHAT: &str = "the certificate request";
        let malformed = || IdentityError::Malformed { what: WHAT };
        let der = super::armour::first(pem, super::armour::REQUEST)?;
        if der.len() > MAX_DER {
            return Err(IdentityError::Oversize { what: WHAT, size: der.len(), limit: MAX_DER });
        }
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|_| malformed())?;
        let info = &request.certification_request_info;
        let name = common_name(&info.subject).filter(|_| rest.is_empty()).ok_or_else(malformed)?;
        let key = public_key(&info.subject_pki, &name)?;
        if !key.verify_raw(info.raw, request.signature_value.data.as_ref()) {
            return Err(IdentityError::BadSignature { subject: format!("the request of {name}") });
        }
        Ok(Self { name, key })
    }
}

fn named(name: &str) -> Result<CertificateParams, IdentityError> {
    if !is_name(name) {
        return Err(IdentityError::InvalidClaim { what: "a name other than 1 to 64 printable characters" });
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// The public half as the X.509 writer takes it.
struct Subscriber([u8; 32]);

impl PublicKeyData for Subscriber {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// The secret half as the X.509 writer takes it.
struct Signer<'a> {
    key: &'a NodeKey,
    public: [u8; 32],
}

impl<'a> Signer<'a> {
    fn new(key: &'a NodeKey) -> Self {
        Self { key, public: key.public().to_bytes() }
    }
}

impl PublicKeyData for Signer<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl SigningKey for Signer<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign_raw(message).to_vec())
    }
}
