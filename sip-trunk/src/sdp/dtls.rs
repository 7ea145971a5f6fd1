//! DTLS in a session description: `a=fingerprint`, `a=setup` and `a=tls-id` (RFC 5763, RFC 8122, RFC 8842).

use std::fmt::Write as _;

use call_model::{DtlsParameters, DtlsRole, Fingerprint, MediaSecurity};

use super::description::{Attribute, Description, Media};
use super::policy::NegotiationError;

/// Most `a=fingerprint` lines that are looked at.
const LINES_MAX: usize = 16;
/// The shortest and the longest `a=tls-id` (RFC 8842 5.1).
const TLS_ID_LEN: std::ops::RangeInclusive<usize> = 20..=255;

/// Who may begin the handshake (RFC 4145 4, RFC 5763 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    /// The answer chooses.
    Either,
    /// This.
    Only(DtlsRole),
}

impl Setup {
    fn as_str(self) -> &'static str {
        match self {
            Setup::Either => "actpass",
            Setup::Only(role) => role.as_str(),
        }
    }
}

/// What a description of ours says of DTLS.
#[derive(Clone)]
pub(super) struct LocalDtls {
    pub(super) fingerprint: Fingerprint,
    pub(super) setup: Setup,
}

impl LocalDtls {
    /// Writes its lines. Without `a=tls-id` it is fingerprints and roles that tell associations apart, which every
    /// peer knows (RFC 8842 4.1).
    pub(super) fn write(&self, out: &mut String) {
        // Writing to a string does not fail.
        let _ = write!(out, "a=fingerprint:{}\r\na=setup:{}\r\n", self.fingerprint, self.setup.as_str());
    }
}

/// What the peer's description says of DTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RemoteDtls {
    /// `None`: nothing is said.
    setup: Option<Setup>,
    /// Of the strongest hash function that is there; at least one.
    fingerprints: Vec<Fingerprint>,
    tls_id: Option<Box<str>>,
}

impl RemoteDtls {
    /// Reads an m-line of `UDP/TLS/RTP/SAVP`. What it does not say itself the session may (RFC 8122 5, RFC 4145 4).
    pub(super) fn of(description: &Description<'_>, media: &Media<'_>) -> Result<Self, NegotiationError> {
        let levels = [&media.attributes, &description.attributes];
        let values = |attributes: &[Attribute<'_>], name: &str| -> Vec<String> {
            let named = attributes.iter().filter(|a| a.name.eq_ignore_ascii_case(name));
            named.take(LINES_MAX).filter_map(|a| Some(a.value?.trim().to_owned())).collect()
        };
        let nearest = |name: &str| {
            let mut found = levels.into_iter().map(|attributes| values(attributes, name));
            found.find(|values| !values.is_empty()).unwrap_or_default()
        };
        // RFC 8122 5.1: the strongest of those that are known counts; SHA-1 is not.
        let known: Vec<Fingerprint> =
            nearest("fingerprint").iter().filter_map(|value| Fingerprint::parse(value)).collect();
        let best = known.iter().map(Fingerprint::hash).max().ok_or(NegotiationError::Fingerprint)?;
        let fingerprints = known.into_iter().filter(|known| known.hash() == best).collect();
        let setup = match nearest("setup").first().map(|value| value.to_ascii_lowercase()).as_deref() {
            None => None,
            Some("actpass") => Some(Setup::Either),
            Some("active") => Some(Setup::Only(DtlsRole::Active)),
            Some("passive") => Some(Setup::Only(DtlsRole::Passive)),
            // RFC 5763 5: `holdconn` must not be, and nothing else exists.
            Some(_) => return Err(NegotiationError::Setup),
        };
        let mut names = values(&media.attributes, "tls-id").into_iter();
        let tls_id = names.next().filter(|id| TLS_ID_LEN.contains(&id.len())).map(Box::from);
        Ok(Self { setup, fingerprints, tls_id })
    }

    /// Chooses our role as the answerer. The association that there is goes on if the offer lets it (RFC 8842 5.3);
    /// else the answerer begins, which is the quicker (RFC 5763 5). An offer that says nothing is `active` (RFC 4145
    /// 4).
    pub(super) fn answered(&self, current: Option<&DtlsParameters>) -> DtlsParameters {
        let role = match self.setup {
            None => DtlsRole::Passive,
            Some(Setup::Only(theirs)) => theirs.reversed(),
            Some(Setup::Either) => {
                let same = current.filter(|current| self.is_of(current));
                same.map_or(DtlsRole::Active, |current| current.role)
            }
        };
        self.parameters(role)
    }

    /// Takes our role from an answer to what we offered. One that chooses nothing leaves it to us to begin.
    pub(super) fn answers(&self, offered: Setup) -> Result<DtlsParameters, NegotiationError> {
        let role = match (offered, self.setup) {
            (Setup::Either, Some(Setup::Only(theirs))) => theirs.reversed(),
            (Setup::Either, _) => DtlsRole::Active,
            (Setup::Only(ours), Some(Setup::Only(theirs))) if ours == theirs => {
                return Err(NegotiationError::Setup);
            }
            (Setup::Only(ours), _) => ours,
        };
        Ok(self.parameters(role))
    }

    fn is_of(&self, current: &DtlsParameters) -> bool {
        self.fingerprints == current.fingerprints && self.tls_id == current.tls_id
    }

    fn parameters(&self, role: DtlsRole) -> DtlsParameters {
        DtlsParameters { role, fingerprints: self.fingerprints.clone(), tls_id: self.tls_id.clone() }
    }
}

/// Returns the association that media belongs to.
pub(super) fn association(security: &MediaSecurity) -> Option<&DtlsParameters> {
    match security {
        MediaSecurity::DtlsSrtp(parameters) => Some(parameters),
        _ => None,
    }
}
