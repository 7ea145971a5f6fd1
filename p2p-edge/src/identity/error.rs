use super::claims::RevocationReason;
use super::time::Utc;

/// Says why a key, certificate, list or assertion was refused.
///
/// The text is one sentence for an operator: what is wrong, and the remedy. It names the subject of
/// the certificate, so for a remote peer log [`IdentityError::as_str`] instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The bytes do not have the form of what they claim to be.
    #[error("{what} cannot be read: it is damaged or of another kind, fetch or make it again")]
    Malformed {
        /// What was being read.
        what: &'static str,
    },
    /// The bytes are longer than any valid ones.
    #[error("{what} has {size} bytes and the limit is {limit}: shorten its contents")]
    Oversize {
        /// What was being read or written.
        what: &'static str,
        /// Bytes found.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A PEM file lacks a block.
    #[error("the file holds no PEM block `{label}`: check that the right file is configured")]
    MissingPem {
        /// The label of the block that was looked for.
        label: &'static str,
    },
    /// A key or signature is not Ed25519 (RFC 8410).
    #[error("the key of {subject} is not Ed25519: make a new key with `causeway authority`")]
    UnsupportedKey {
        /// Whose key it is.
        subject: String,
    },
    /// The certificate is past its end.
    #[error("certificate of {subject} expired on {at}: enrol again with `causeway authority issue`")]
    Expired {
        /// Whom the certificate is for.
        subject: String,
        /// When it ended.
        at: Utc,
    },
    /// The certificate has not begun.
    #[error("certificate of {subject} is not valid before {at}: check the clock of this machine")]
    NotYetValid {
        /// Whom the certificate is for.
        subject: String,
        /// When it begins.
        at: Utc,
    },
    /// The certificate is valid for longer than its kind may be.
    #[error(
        "certificate of {subject} is valid for {days} days and the limit is {limit}: issue a shorter one"
    )]
    ValidityTooLong {
        /// Whom the certificate is for.
        subject: String,
        /// Days from begin to end, rounded up.
        days: u64,
        /// Days allowed.
        limit: u64,
    },
    /// The certificate would be valid when its issuer no longer is, or ends before it begins.
    #[error(
        "certificate of {subject} must end after it begins and not after {at}, the end of its issuer: change the dates"
    )]
    ValidityOutsideIssuer {
        /// Whom the certificate is for.
        subject: String,
        /// When the issuer's certificate ends.
        at: Utc,
    },
    /// The certificate was not issued under a trusted root.
    #[error(
        "certificate of {subject} was issued by {issuer}, which is not trusted here: add its root to the trusted roots or enrol again"
    )]
    WrongIssuer {
        /// Whom the certificate is for.
        subject: String,
        /// The name of the issuer.
        issuer: String,
    },
    /// The key is not the one that the certificate names.
    #[error("the key in use is not certified for {subject}: use the key that the certificate was issued for")]
    WrongKey {
        /// Whom the certificate is for.
        subject: String,
    },
    /// The certificate was revoked.
    #[error("certificate of {subject} was revoked ({reason}): enrol again with a new key")]
    Revoked {
        /// Whom the certificate is for.
        subject: String,
        /// Why it was revoked.
        reason: RevocationReason,
    },
    /// The certificate may not issue others (RFC 5280 4.2.1.9), or not those asked for.
    #[error(
        "{subject} is not an authority that may issue this: use the root for enrolment authorities and an enrolment authority for all else"
    )]
    NotAuthority {
        /// Whose certificate it is.
        subject: String,
    },
    /// The root does not let the authority certify this: numbers beyond its own, or a user or node by one
    /// that assigns numbers only.
    #[error(
        "certificate of {subject} holds what {issuer} may not certify: have the root permit it, or issue it without"
    )]
    OutsideLimits {
        /// Whom the certificate is for.
        subject: String,
        /// The authority.
        issuer: String,
    },
    /// The certificate lacks the claims of a node.
    #[error(
        "certificate of {subject} is not that of a supernode or gateway: issue one with `causeway authority issue`"
    )]
    NotNode {
        /// Whom the certificate is for.
        subject: String,
    },
    /// The signature does not match.
    #[error("the signature on {subject} is wrong: it was altered or signed by another key, fetch it again")]
    BadSignature {
        /// Whose certificate, or what else was signed.
        subject: String,
    },
    /// A claim is outside what a certificate may hold.
    #[error("{what} is not allowed in a certificate: correct the request")]
    InvalidClaim {
        /// The claim.
        what: &'static str,
    },
    /// A revocation list is older than the one held.
    #[error("revocation list {got} is not newer than list {have} of the same authority: fetch the newest")]
    StaleRevocations {
        /// The version held.
        have: u64,
        /// The version offered.
        got: u64,
    },
    /// A request for renewal was made too long ago, or by a clock that is ahead.
    #[error("the renewal request was made on {at}: make a new one, and check the clocks of both machines")]
    RenewalTooOld {
        /// When it was made.
        at: Utc,
    },
    /// The assertion of a caller is past its end.
    #[error("the caller's assertion expired on {at}: check the clocks of both machines and call again")]
    AssertionExpired {
        /// When it ended.
        at: Utc,
    },
    /// The assertion of a caller is valid for too long.
    #[error("the caller's assertion ends on {at}, too far ahead: check the clocks of both machines")]
    AssertionTooLong {
        /// When it ends.
        at: Utc,
    },
    /// The assertion of a caller was seen before.
    #[error("the caller's assertion was used before: place the call again")]
    Replayed,
    /// The caller has too many assertions alive, or all callers together have.
    #[error("too many calls in the last two minutes: wait and call again")]
    TooManyAssertions,
    /// The caller names an address that is not its own.
    #[error("the caller claims an address that its certificate does not hold: call as {subject}")]
    AddressNotCertified {
        /// Whom the certificate is for.
        subject: String,
    },
}

impl IdentityError {
    /// Returns the reason as a metric label, from a closed set.
    pub fn as_str(&self) -> &'static str {
        match self {
            IdentityError::Malformed { .. } => "identity_malformed",
            IdentityError::Oversize { .. } => "identity_oversize",
            IdentityError::MissingPem { .. } => "pem_missing",
            IdentityError::UnsupportedKey { .. } => "key_unsupported",
            IdentityError::Expired { .. } => "certificate_expired",
            IdentityError::NotYetValid { .. } => "certificate_not_yet_valid",
            IdentityError::ValidityTooLong { .. } => "certificate_validity_too_long",
            IdentityError::ValidityOutsideIssuer { .. } => "certificate_outlives_issuer",
            IdentityError::WrongIssuer { .. } => "wrong_issuer",
            IdentityError::WrongKey { .. } => "wrong_key",
            IdentityError::Revoked { .. } => "revoked",
            IdentityError::NotAuthority { .. } => "not_authority",
            IdentityError::OutsideLimits { .. } => "outside_issuer_limits",
            IdentityError::NotNode { .. } => "not_node",
            IdentityError::BadSignature { .. } => "bad_signature",
            IdentityError::InvalidClaim { .. } => "invalid_claim",
            IdentityError::StaleRevocations { .. } => "stale_revocations",
            IdentityError::RenewalTooOld { .. } => "renewal_too_old",
            IdentityError::AssertionExpired { .. } => "assertion_expired",
            IdentityError::AssertionTooLong { .. } => "assertion_too_long",
            IdentityError::Replayed => "replayed",
            IdentityError::TooManyAssertions => "too_many_assertions",
            IdentityError::AddressNotCertified { .. } => "address_not_certified",
        }
    }
}
