use super::armour::{self, CERTIFICATE};
use super::assignment::{AssignmentClaims, MAX_ASSIGNMENT_DAYS, NumberAssignment};
use super::bootstrap::{BootstrapList, MAX_BOOTSTRAP_DAYS, SignedBootstrap};
use super::chain::NodeChain;
use super::claims::{
    EnrolmentLimits, HandleClaims, MAX_ENROLMENT_DAYS, MAX_NODE_DAYS, MAX_ROOT_DAYS, NodeClaims,
    RevocationReason, check_length,
};
use super::error::IdentityError;
use super::handle::HandleCertificate;
use super::key::{NodeKey, PublicKey};
use super::revocation::{Revoked, SignedRevocations};
use super::time::{DAY, Validity};
use super::x509::{self, Certificate, Request, Subject};

/// An authority with its secret key: the root, or an enrolment authority under it.
///
/// The root certifies enrolment authorities and nothing else, from requests, so its key can stay on
/// a machine without network. An enrolment authority certifies nodes and users. Serial numbers and
/// dates come from the caller; a serial must not be used twice.
#[derive(Clone, Debug)]
pub struct Authority {
    key: NodeKey,
    certificate: Certificate,
}

impl Authority {
    /// Makes a root: an authority that signs itself, with path length 1.
    pub fn init_root(name: &str, seed: [u8; 32], validity: Validity) -> Result<Self, IdentityError> {
        let key = NodeKey::from_seed(seed);
        check_length(name, validity, MAX_ROOT_DAYS)?;
        let subject = Subject {
            name,
            key: &key.public(),
            serial: 1,
            validity,
            authority: Some(1),
            claims: None,
            limits: None,
        };
        let certificate = x509::write(&subject, None, &key)?;
        Ok(Self { key, certificate })
    }

    /// Puts an authority together from its key and its certificate, both PEM.
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self, IdentityError> {
        let key = NodeKey::from_pem(key)?;
        let certificate = Certificate::parse(&armour::first(certificate, CERTIFICATE)?)?;
        if certificate.key != key.public() {
            return Err(IdentityError::WrongKey { subject: certificate.name });
        }
        if certificate.authority.is_none() {
            return Err(IdentityError::NotAuthority { subject: certificate.name });
        }
        Ok(Self { key, certificate })
    }

    /// Certifies an enrolment authority from its request (PEM), for all numbers or those of
    /// `limits`. Returns the certificate as PEM. Only a root can.
    pub fn sign_enrolment(
        &self,
        request: &str,
        serial: u64,
        validity: Validity,
        limits: Option<&EnrolmentLimits>,
    ) -> Result<String, IdentityError> {
        let request = Request::read(request)?;
        let certificate = self.certify_enrolment(&request.name, &request.key, serial, validity, limits)?;
        Ok(armour::block(CERTIFICATE, certificate.der))
    }

    /// Makes an enrolment authority under this root on the same machine, for all numbers.
    pub fn init_enrolment(
        &self,
        name: &str,
        seed: [u8; 32],
        serial: u64,
        validity: Validity,
    ) -> Result<Self, IdentityError> {
        self.init_limited_enrolment(name, seed, serial, validity, None)
    }

    /// Makes an enrolment authority under this root on the same machine, for the numbers of `limits`.
    pub fn init_limited_enrolment(
        &self,
        name: &str,
        seed: [u8; 32],
        serial: u64,
        validity: Validity,
        limits: Option<&EnrolmentLimits>,
    ) -> Result<Self, IdentityError> {
        let key = NodeKey::from_seed(seed);
        let certificate = self.certify_enrolment(name, &key.public(), serial, validity, limits)?;
        Ok(Self { key, certificate })
    }

    fn certify_enrolment(
        &self,
        name: &str,
        key: &PublicKey,
        serial: u64,
        validity: Validity,
        limits: Option<&EnrolmentLimits>,
    ) -> Result<Certificate, IdentityError> {
        if !self.is_root() || name == self.certificate.name {
            return Err(IdentityError::NotAuthority { subject: self.certificate.name.clone() });
        }
        limits.map_or(Ok(()), EnrolmentLimits::check)?;
        self.check_within(name, validity, MAX_ENROLMENT_DAYS)?;
        let subject = Subject { name, key, serial, validity, authority: Some(0), claims: None, limits };
        x509::write(&subject, Some(&self.certificate), &self.key)
    }

    /// Certifies a supernode or gateway.
    pub fn issue_node(
        &self,
        name: &str,
        key: &PublicKey,
        claims: &NodeClaims,
        serial: u64,
        validity: Validity,
    ) -> Result<NodeChain, IdentityError> {
        self.check_enrolment()?;
        claims.check()?;
        self.check_within(name, validity, MAX_NODE_DAYS)?;
        self.certificate.check_permits_node(name, claims)?;
        let subject =
            Subject { name, key, serial, validity, authority: None, claims: Some(claims), limits: None };
        let leaf = x509::write(&subject, Some(&self.certificate), &self.key)?;
        Ok(NodeChain::new(leaf, self.certificate.clone()))
    }

    /// Certifies a supernode or gateway from its request (PEM), under the name in the request.
    pub fn issue_node_request(
        &self,
        request: &str,
        claims: &NodeClaims,
        serial: u64,
        validity: Validity,
    ) -> Result<NodeChain, IdentityError> {
        let request = Request::read(request)?;
        self.issue_node(&request.name, &request.key, claims, serial, validity)
    }

    /// Certifies an overlay user. The claims hold serial and dates.
    pub fn issue_handle(&self, claims: HandleClaims) -> Result<HandleCertificate, IdentityError> {
        self.check_enrolment()?;
        claims.check()?;
        self.check_within(claims.handle.as_str(), claims.validity, super::claims::MAX_HANDLE_DAYS)?;
        self.certificate.check_permits_user(claims.handle.as_str(), &claims.numbers)?;
        Ok(HandleCertificate::issue(claims, &self.certificate, &self.key))
    }

    /// Assigns a number to a handle. The claims hold serial and dates.
    ///
    /// # Errors
    /// `NotAuthority` for a root; `OutsideLimits` for a number that the root does not let it assign;
    /// what is wrong with the dates.
    pub fn assign_number(&self, claims: AssignmentClaims) -> Result<NumberAssignment, IdentityError> {
        self.check_enrolment()?;
        let validity = Validity { not_before: claims.sequence / 1000, not_after: claims.expires_unix };
        self.check_within(&claims.number.to_string(), validity, MAX_ASSIGNMENT_DAYS)?;
        self.certificate.check_permits_assignment(&claims.number)?;
        Ok(NumberAssignment::issue(claims, &self.certificate, &self.key))
    }

    /// Adds a certificate or assignment that this authority issued to its revocation list. Returns the new list,
    /// one version up from `previous`; without `previous` the first.
    ///
    /// # Errors
    /// `WrongKey` or `BadSignature` if `previous` is not a list of this authority; `Oversize` if it
    /// is full.
    pub fn revoke(
        &self,
        previous: Option<&SignedRevocations>,
        serial: u64,
        reason: RevocationReason,
        unix: u64,
    ) -> Result<SignedRevocations, IdentityError> {
        let name = &self.certificate.name;
        let (version, mut revoked) = match previous {
            None => (0, Vec::new()),
            Some(list) if *list.issuer() != self.certificate.key => {
                return Err(IdentityError::WrongKey { subject: name.clone() });
            }
            Some(list) if !list.is_signed() => {
                return Err(IdentityError::BadSignature {
                    subject: format!("the revocation list of {name}"),
                });
            }
            Some(list) => (list.version(), list.revoked().to_vec()),
        };
        if revoked.iter().all(|entry| entry.serial != serial) {
            revoked.push(Revoked { serial, reason, since: unix });
        }
        SignedRevocations::issue(version.saturating_add(1), revoked, &self.certificate, &self.key)
    }

    /// Signs a list of nodes to join by. Only a root can.
    ///
    /// # Errors
    /// `NotAuthority` if this is no root; `ValidityOutsideIssuer` if the list outlives it.
    pub fn sign_bootstrap(&self, list: BootstrapList) -> Result<SignedBootstrap, IdentityError> {
        if !self.is_root() {
            return Err(IdentityError::NotAuthority { subject: self.certificate.name.clone() });
        }
        self.check_within("the bootstrap list", list.validity, MAX_BOOTSTRAP_DAYS)?;
        Ok(SignedBootstrap::seal(list, &self.certificate, &self.key))
    }

    /// Returns the authority's name.
    pub fn name(&self) -> &str {
        &self.certificate.name
    }

    /// Returns the authority's public key.
    pub fn key(&self) -> &PublicKey {
        &self.certificate.key
    }

    /// Says whether this is a root.
    pub fn is_root(&self) -> bool {
        self.certificate.is_self_issued()
    }

    /// Returns when the authority's own certificate is valid.
    pub fn validity(&self) -> Validity {
        self.certificate.validity
    }

    /// Returns what the root permits this authority to certify; `None` is everything.
    pub fn limits(&self) -> Option<&EnrolmentLimits> {
        self.certificate.limits.as_ref()
    }

    /// Returns the secret key as PEM.
    pub fn key_pem(&self) -> String {
        self.key.to_pem()
    }

    /// Returns the certificate as PEM. That of a root is what [`Trust::from_pem`](super::Trust) reads.
    pub fn certificate_pem(&self) -> String {
        armour::block(CERTIFICATE, self.certificate.der.clone())
    }

    fn check_enrolment(&self) -> Result<(), IdentityError> {
        if self.is_root() {
            return Err(IdentityError::NotAuthority { subject: self.certificate.name.clone() });
        }
        Ok(())
    }

    fn check_within(&self, subject: &str, validity: Validity, limit: u64) -> Result<(), IdentityError> {
        check_length(subject, validity, limit)?;
        let own = self.certificate.validity;
        // A day of grace at the begin: an authority made today certifies from midnight.
        if validity.not_after > own.not_after || validity.not_before.saturating_add(DAY) < own.not_before {
            return Err(IdentityError::ValidityOutsideIssuer {
                subject: subject.to_owned(),
                at: super::Utc(own.not_after),
            });
        }
        Ok(())
    }
}
