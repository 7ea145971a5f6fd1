//! What a certificate may say about its subject.
use std::fmt;
use std::str::FromStr;

use call_model::{Handle, Number};
use minicbor::{Decode, Encode};

use super::error::IdentityError;
use super::key::PublicKey;
use super::time::Validity;
use crate::cbor;
use crate::defence::{Defence, holds};

/// The most prefixes of one kind in a certificate or an offer.
pub const MAX_PREFIXES: usize = 32;
/// The most devices of one handle.
pub const MAX_DEVICES: usize = 8;
/// The most verified numbers of one handle.
pub const MAX_NUMBERS: usize = 8;
/// The longest a handle certificate may be valid, in days.
pub const MAX_HANDLE_DAYS: u64 = 90;
/// The longest a node certificate may be valid, in days.
pub const MAX_NODE_DAYS: u64 = 398;
/// The longest an enrolment authority's certificate may be valid, in days.
pub const MAX_ENROLMENT_DAYS: u64 = 5 * 366;
/// The longest a root may be valid, in days.
pub const MAX_ROOT_DAYS: u64 = 25 * 366;

const MAX_CLAIMS_BYTES: usize = 1024;

/// What a certified node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Serves the overlay: keeps records, relays, helps others in.
    Supernode,
    /// A supernode that also joins the overlay to the telephone network.
    Gateway,
}

impl Role {
    /// Returns the name of the role in configuration and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Supernode => "supernode",
            Role::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The beginning of E.164 numbers: 0 to 15 digits, the first of them not 0. Without digits it
/// means every number. Written with a leading `+`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(String);

impl Prefix {
    /// Returns the digits without `+`.
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Says whether the number begins with this prefix.
    pub fn covers_number(&self, number: &Number) -> bool {
        number.has_prefix(&self.0)
    }

    /// Says whether every number under `other` is under this prefix too.
    pub fn covers(&self, other: &Prefix) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Returns every prefix of the number, the longest (the whole number) first, the empty one last.
    pub fn of_number(number: &Number) -> impl Iterator<Item = Prefix> {
        let digits = number.digits().to_owned();
        (0..=digits.len()).rev().map(move |length| Prefix(digits[..length].to_owned()))
    }
}

impl FromStr for Prefix {
    type Err = IdentityError;

    /// Reads `+44` or `44`; `+` and the empty text mean every number.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let digits = text.strip_prefix('+').unwrap_or(text);
        let plain = digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit());
        if plain && !digits.starts_with('0') {
            Ok(Self(digits.to_owned()))
        } else {
            Err(IdentityError::InvalidClaim {
                what: "a prefix other than `+` and 0 to 15 digits without leading 0",
            })
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{}", self.0)
    }
}

/// The code of a currency: three capital letters (ISO 4217).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency([u8; 3]);

impl FromStr for Currency {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match <[u8; 3]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(u8::is_ascii_uppercase) => Ok(Self(code)),
            _ => Err(IdentityError::InvalidClaim { what: "a currency other than three capital letters" }),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&letter| fmt::Write::write_char(f, char::from(letter)))
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A price in millionths of a currency unit for one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Price {
    /// Millionths of the unit per minute.
    pub micros_per_minute: u64,
    /// The currency.
    pub currency: Currency,
}

/// What an overlay user may do and can do: a set of bits. Unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Abilities(pub u32);

impl Abilities {
    /// Calls other overlay users.
    pub const CALL_HANDLES: Self = Self(1);
    /// Calls telephone numbers through gateways.
    pub const CALL_NUMBERS: Self = Self(2);
    /// Is called.
    pub const BE_CALLED: Self = Self(4);
    /// Sends and receives text.
    pub const TEXT: Self = Self(8);
    /// What a user has unless an operator says otherwise: calls and is called.
    pub const CALLS: Self = Self(1 | 2 | 4);

    /// Says whether all of `other` are in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns both sets together.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromStr for Abilities {
    type Err = IdentityError;

    /// Reads one ability by its name.
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text {
            "call-users" => Ok(Self::CALL_HANDLES),
            "call-numbers" => Ok(Self::CALL_NUMBERS),
            "be-called" => Ok(Self::BE_CALLED),
            "text" => Ok(Self::TEXT),
            _ => Err(IdentityError::InvalidClaim {
                what: "an ability other than call-users, call-numbers, be-called or text",
            }),
        }
    }
}

/// Why a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevocationReason {
    /// No reason was given.
    Unspecified,
    /// The key is known to others.
    KeyCompromise,
    /// A newer certificate takes its place.
    Superseded,
    /// The subject left, or may no longer do what it was certified for.
    Withdrawn,
}

impl RevocationReason {
    /// Every reason, in the order of the codes on the wire (RFC 5280 5.3.1 where it has one).
    pub const ALL: [(RevocationReason, u8, &'static str); 4] = [
        (RevocationReason::Unspecified, 0, "unspecified"),
        (RevocationReason::KeyCompromise, 1, "key-compromise"),
        (RevocationReason::Superseded, 4, "superseded"),
        (RevocationReason::Withdrawn, 9, "withdrawn"),
    ];

    /// Returns the name of the reason on the command line and in texts.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or("unspecified", |(.., name)| name)
    }

    pub(super) fn code(self) -> u8 {
        Self::ALL.iter().find(|(reason, ..)| *reason == self).map_or(0, |(_, code, _)| *code)
    }

    /// An unknown code still revokes.
    pub(super) fn from_code(code: u8) -> Self {
        Self::ALL.iter().find(|(_, c, _)| *c == code).map_or(Self::Unspecified, |(reason, ..)| *reason)
    }
}

impl FromStr for RevocationReason {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let found = Self::ALL.iter().find(|(.., name)| *name == text);
        found.map(|(reason, ..)| *reason).ok_or(IdentityError::InvalidClaim {
            what: "a reason other than unspecified, key-compromise, superseded or withdrawn",
        })
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the certificate of a supernode or gateway says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeClaims {
    /// What the node is.
    pub role: Role,
    /// Numbers that it may offer calls to. Gateways only.
    pub prefixes: Vec<Prefix>,
    /// Numbers that it may assign to handles. Gateways only.
    pub number_prefixes: Vec<Prefix>,
    /// The highest price that it may ask, if there is a limit. Gateways only.
    pub rate: Option<Price>,
}

impl NodeClaims {
    /// Builds the claims of a supernode.
    pub fn supernode() -> Self {
        Self { role: Role::Supernode, prefixes: Vec::new(), number_prefixes: Vec::new(), rate: None }
    }

    /// Checks limits and that a supernode claims nothing of a gateway.
    pub(super) fn check(&self) -> Result<(), IdentityError> {
        if self.prefixes.len() > MAX_PREFIXES || self.number_prefixes.len() > MAX_PREFIXES {
            return Err(IdentityError::InvalidClaim { what: "more than 32 prefixes" });
        }
        let bare = self.prefixes.is_empty() && self.number_prefixes.is_empty() && self.rate.is_none();
        if self.role == Role::Supernode && !bare {
            return Err(IdentityError::InvalidClaim {
                what: "a prefix or price for a supernode that is no gateway",
            });
        }
        Ok(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let digits = |prefixes: &[Prefix]| prefixes.iter().map(|p| p.0.clone()).collect();
        cbor::encode(WireClaims {
            role: if self.role == Role::Gateway { 2 } else { 1 },
            prefixes: digits(&self.prefixes),
            number_prefixes: digits(&self.number_prefixes),
            rate: self.rate.map(WirePrice::from),
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let malformed = IdentityError::Malformed { what: "the claims of a node" };
        let wire: WireClaims = cbor::decode("the claims of a node", bytes, MAX_CLAIMS_BYTES)?;
        let role = match wire.role {
            1 => Role::Supernode,
            2 => Role::Gateway,
            _ => return Err(malformed),
        };
        let claims = Self {
            role,
            prefixes: read_prefixes(&wire.prefixes)?,
            number_prefixes: read_prefixes(&wire.number_prefixes)?,
            rate: wire.rate.map(Price::try_from).transpose()?,
        };
        claims.check()?;
        Ok(claims)
    }
}

/// What the root permits an enrolment authority to certify. A certificate without limits, as every
/// one of before is, permits everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentLimits {
    /// Numbers that it may let gateways offer calls to.
    pub prefixes: Vec<Prefix>,
    /// Numbers that it may assign, may let gateways assign to users, and may certify as a user's own.
    pub number_prefixes: Vec<Prefix>,
    /// It assigns numbers and certifies neither users nor nodes.
    pub only_numbers: bool,
}

impl EnrolmentLimits {
    /// Says whether the authority may certify a node with these claims: every prefix of its own
    /// lies within one of the limits.
    pub fn permit_node(&self, claims: &NodeClaims) -> bool {
        let within = |limits: &[Prefix], prefixes: &[Prefix]| {
            prefixes.iter().all(|prefix| limits.iter().any(|limit| limit.covers(prefix)))
        };
        within(&self.prefixes, &claims.prefixes)
            && within(&self.number_prefixes, &claims.number_prefixes)
            && self.permit_certificates()
    }

    /// Says whether the authority may certify users and nodes at all.
    pub fn permit_certificates(&self) -> bool {
        !self.only_numbers || !holds(Defence::OnlyNumbers)
    }

    /// Says whether the authority may assign numbers, or certify them as those of a user.
    pub fn permit_numbers(&self, numbers: &[Number]) -> bool {
        numbers.iter().all(|number| self.number_prefixes.iter().any(|limit| limit.covers_number(number)))
    }

    pub(super) fn check(&self) -> Result<(), IdentityError> {
        if self.prefixes.len() > MAX_PREFIXES || self.number_prefixes.len() > MAX_PREFIXES {
            return Err(IdentityError::InvalidClaim { what: "more than 32 prefixes" });
        }
        Ok(())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let digits = |prefixes: &[Prefix]| prefixes.iter().map(|p| p.0.clone()).collect();
        cbor::encode(WireLimits {
            prefixes: digits(&self.prefixes),
            number_prefixes: digits(&self.number_prefixes),
            only_numbers: self.only_numbers.then_some(true),
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let wire: WireLimits = cbor::decode("the limits of an authority", bytes, MAX_CLAIMS_BYTES)?;
        Ok(Self {
            prefixes: read_prefixes(&wire.prefixes)?,
            number_prefixes: read_prefixes(&wire.number_prefixes)?,
            only_numbers: wire.only_numbers.unwrap_or(false),
        })
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireLimits {
    #[n(0)]
    prefixes: Vec<String>,
    #[n(1)]
    number_prefixes: Vec<String>,
    #[n(2)]
    only_numbers: Option<bool>,
}

/// Reads prefixes from their digits, at most [`MAX_PREFIXES`].
pub(crate) fn read_prefixes(digits: &[String]) -> Result<Vec<Prefix>, IdentityError> {
    if digits.len() > MAX_PREFIXES {
        return Err(IdentityError::InvalidClaim { what: "more than 32 prefixes" });
    }
    digits.iter().map(|digits| digits.parse()).collect()
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireClaims {
    #[n(0)]
    role: u8,
    #[n(1)]
    prefixes: Vec<String>,
    #[n(2)]
    number_prefixes: Vec<String>,
    #[n(3)]
    rate: Option<WirePrice>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
pub(crate) struct WirePrice {
    #[n(0)]
    micros_per_minute: u64,
    #[n(1)]
    currency: String,
}

impl From<Price> for WirePrice {
    fn from(price: Price) -> Self {
        Self { micros_per_minute: price.micros_per_minute, currency: price.currency.to_string() }
    }
}

impl TryFrom<WirePrice> for Price {
    type Error = IdentityError;

    fn try_from(wire: WirePrice) -> Result<Self, IdentityError> {
        Ok(Self { micros_per_minute: wire.micros_per_minute, currency: wire.currency.parse()? })
    }
}

/// What the certificate of an overlay user says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandleClaims {
    /// The user's handle.
    pub handle: Handle,
    /// The keys of the user's devices, 1 to 8.
    pub keys: Vec<PublicKey>,
    /// The number of the certificate, never used twice by the same authority.
    pub serial: u64,
    /// When it is valid: at most 90 days.
    pub validity: Validity,
    /// What the user may do.
    pub abilities: Abilities,
    /// Telephone numbers that were verified to be the user's, at most 8.
    pub numbers: Vec<Number>,
}

impl HandleClaims {
    pub(super) fn check(&self) -> Result<(), IdentityError> {
        if self.keys.is_empty() || self.keys.len() > MAX_DEVICES {
            return Err(IdentityError::InvalidClaim { what: "a handle without keys or with more than 8" });
        }
        if self.numbers.len() > MAX_NUMBERS {
            return Err(IdentityError::InvalidClaim { what: "more than 8 numbers for a handle" });
        }
        check_length(self.handle.as_str(), self.validity, MAX_HANDLE_DAYS)
    }
}

/// Checks that a validity runs forward and is no longer than its kind may be.
pub(super) fn check_length(subject: &str, validity: Validity, limit: u64) -> Result<(), IdentityError> {
    if validity.not_after < validity.not_before {
        return Err(IdentityError::InvalidClaim { what: "an end before the begin" });
    }
    let days = validity.days();
    if days > limit && holds(Defence::CertificateLength) {
        return Err(IdentityError::ValidityTooLong { subject: subject.to_owned(), days, limit });
    }
    Ok(())
}
