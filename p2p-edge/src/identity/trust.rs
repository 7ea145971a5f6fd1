use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::defence::{Defence, holds};

use super::armour::{self, CERTIFICATE};
use super::error::IdentityError;
use super::revocation::RevocationList;
use super::x509::Certificate;

/// The most roots that are trusted at once: one, and a few during a change of root.
pub const MAX_ROOTS: usize = 8;

/// The trusted roots. All that a verifier must be given; the rest comes with what is verified.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Vec<Certificate>,
}

impl Trust {
    /// Reads the roots from PEM: every block `CERTIFICATE`, 1 to 8, each an authority that signed
    /// itself.
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        let blocks = armour::all(pem, CERTIFICATE)?;
        if blocks.is_empty() {
            return Err(IdentityError::MissingPem { label: CERTIFICATE });
        }
        if blocks.len() > MAX_ROOTS {
            return Err(IdentityError::Oversize {
                what: "the list of roots",
                size: blocks.len(),
                limit: MAX_ROOTS,
            });
        }
        let mut roots = Vec::with_capacity(blocks.len());
        for der in blocks {
            let root = Certificate::parse(&der)?;
            root.check_issued_by(&root, 1)?;
            roots.push(root);
        }
        Ok(Self { roots })
    }

    /// Writes the roots as PEM.
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(|root| armour::block(CERTIFICATE, root.der.clone())).collect()
    }

    /// Verifies the certificate of an enrolment authority up to a root, and returns that root.
    pub(super) fn verify_enrolment(
        &self,
        enrolment: &Certificate,
        revocations: &RevocationList,
        unix: u64,
    ) -> Result<&Certificate, IdentityError> {
        let root = self.root_of(enrolment)?;
        let is_authority = enrolment.authority.is_some() && !enrolment.is_self_issued();
        if !is_authority && holds(Defence::ChainAuthority) {
            return Err(IdentityError::NotAuthority { subject: enrolment.name.clone() });
        }
        root.check_time(unix)?;
        enrolment.check_time(unix)?;
        revocations.check(&root.key, enrolment.serial, &enrolment.name)?;
        Ok(root)
    }

    /// Finds the root that signed a certificate. Of several with one name, the one whose key fits.
    fn root_of(&self, issued: &Certificate) -> Result<&Certificate, IdentityError> {
        let mut error =
            IdentityError::WrongIssuer { subject: issued.name.clone(), issuer: issued.issuer_name.clone() };
        for root in self.roots.iter().filter(|root| issued.has_issuer_name_of(root)) {
            match issued.check_issued_by(root, 1) {
                Ok(()) => return Ok(root),
                Err(refused) => error = refused,
            }
        }
        Err(error)
    }

    /// Returns the root with exactly this certificate.
    pub(super) fn root(&self, der: &[u8]) -> Option<&Certificate> {
        self.roots.iter().find(|root| root.der == der)
    }

    /// Verifies a leaf up to a root by the path validation of RFC 5280 6.1.
    pub(super) fn validate_path(
        &self,
        leaf: &Certificate,
        enrolment: &Certificate,
        unix: u64,
    ) -> Result<(), IdentityError> {
        let bad = || IdentityError::BadSignature { subject: format!("the certificate of {}", leaf.name) };
        let roots: Vec<_> = self.roots.iter().map(|root| CertificateDer::from(root.der.as_slice())).collect();
        let anchors: Result<Vec<TrustAnchor<'_>>, _> =
            roots.iter().map(webpki::anchor_from_trusted_cert).collect();
        let leaf_der = CertificateDer::from(leaf.der.as_slice());
        let end_entity = webpki::EndEntityCert::try_from(&leaf_der).map_err(|_| bad())?;
        let time = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(unix));
        let anchors = anchors.map_err(|_| bad())?;
        let intermediates = [CertificateDer::from(enrolment.der.as_slice())];
        let verified = end_entity.verify_for_usage(
            &[webpki::aws_lc_rs::ED25519],
            &anchors,
            &intermediates,
            time,
            webpki::KeyUsage::client_auth(),
            None,
            None,
        );
        verified.map(|_| ()).map_err(|_| bad())
    }
}
