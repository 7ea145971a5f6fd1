use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How a trunk registers (RFC 3261 10). The credentials are those of the trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The user part of the address of record.
    pub user: String,
    /// The host part of the address of record, which is also the request URI of REGISTER.
    pub domain: String,
    /// Where REGISTER goes; `None`: to the trunk's target. Calls go to the target in any case.
    pub registrar: Option<SocketAddr>,
    /// For how long to ask.
    pub expires: Duration,
    /// The user part of the Contact, by which calls that come in are known; `None`: [`Self::user`].
    pub contact_user: Option<String>,
    /// Registers all numbers of the account at once (RFC 6140), or the address of record alone
    /// where the registrar cannot.
    pub bulk: bool,
    /// Names this registration across restarts and connections (RFC 5626).
    pub outbound: Option<Outbound>,
    /// How often the flow is kept alive if the registrar names no time; `None`: only if it does.
    pub keep_alive: Option<Duration>,
    /// No call is placed, and the trunk counts as down, while it is not registered.
    pub required: bool,
}

/// What identifies a registration (RFC 5626 4.1, 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The instance id: a URN that stays the same, for example `urn:uuid:...`.
    pub instance: String,
    /// The number of the flow, 1 or more.
    pub reg_id: u32,
}

impl Registration {
    /// Builds the registration of one address of record for an hour.
    pub fn new(user: impl Into<String>, domain: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            domain: domain.into(),
            registrar: None,
            expires: Duration::from_secs(3600),
            contact_user: None,
            bulk: false,
            outbound: None,
            keep_alive: None,
            required: false,
        }
    }

    /// Returns the user part of the Contact of a single registration.
    pub(crate) fn contact_user(&self) -> &str {
        self.contact_user.as_deref().unwrap_or(&self.user)
    }

    /// Checks that it can be written into a request.
    ///
    /// # Errors
    /// The first field that cannot.
    pub fn check(&self) -> Result<(), RegistrationError> {
        // RFC 3261 25.1: user is unreserved, escaped or user-unreserved.
        let user = |text: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.!~*'()%&=+$,;?/".contains(&b);
            !text.is_empty() && text.len() <= 128 && text.bytes().all(fits)
        };
        if !user(&self.user) || !user(self.contact_user()) {
            return Err(RegistrationError::User);
        }
        let host = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]_".contains(&b);
        if self.domain.is_empty() || self.domain.len() > 255 || !self.domain.bytes().all(host) {
            return Err(RegistrationError::Domain);
        }
        if !(30..=86_400 * 7).contains(&self.expires.as_secs()) {
            return Err(RegistrationError::Expires);
        }
        if self.keep_alive.is_some_and(|every| !(5..=3600).contains(&every.as_secs())) {
            return Err(RegistrationError::KeepAlive);
        }
        let named = |o: &Outbound| {
            let urn = |b: u8| b.is_ascii_graphic() && !b"<>\"\\".contains(&b);
            o.reg_id > 0
                && o.instance.len() <= 255
                && o.instance.get(..4).is_some_and(|urn| urn.eq_ignore_ascii_case("urn:"))
                && o.instance.bytes().all(urn)
        };
        if self.outbound.as_ref().is_some_and(|o| !named(o)) {
            return Err(RegistrationError::Outbound);
        }
        Ok(())
    }
}

/// Says what is wrong with a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistrationError {
    /// A user part is empty or holds what must be escaped.
    #[error("the user of a registration must be a SIP user part, escaped where needed")]
    User,
    /// The domain is no host.
    #[error("the domain of a registration must be a host name or an address")]
    Domain,
    /// The time asked for makes no sense.
    #[error("a registration lasts 30 seconds to 7 days")]
    Expires,
    /// The keep-alive interval makes no sense.
    #[error("a flow is kept alive every 5 to 3600 seconds")]
    KeepAlive,
    /// The instance id is no URN, or the number of the flow is zero.
    #[error("an instance id is a URN, and its reg-id is not 0")]
    Outbound,
}

/// Where a registration stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistrationState {
    /// No answer yet.
    #[default]
    Registering,
    /// The registrar knows where we are.
    Registered,
    /// It does not; another try follows.
    Failed,
    /// It was told that we go, or need not know.
    Unregistered,
}

impl RegistrationState {
    /// Returns the name used by the API.
    pub fn as_str(self) -> &'static str {
        match self {
            RegistrationState::Registering => "registering",
            RegistrationState::Registered => "registered",
            RegistrationState::Failed => "failed",
            RegistrationState::Unregistered => "unregistered",
        }
    }
}

/// A registration as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationStatus {
    /// Where it stands.
    pub state: RegistrationState,
    /// Where REGISTER goes.
    pub registrar: SocketAddr,
    /// The last final answer; `None` if the last try had none.
    pub last_status: Option<u16>,
    /// When it ends unless refreshed.
    pub until: Option<Instant>,
    /// When the next REGISTER is due.
    pub next: Option<Instant>,
    /// Tries in a row that failed.
    pub failures: u32,
    /// The route of calls we place, as the registrar gave it (RFC 3608).
    pub service_route: Vec<String>,
    /// The path of calls to us, as the registrar saw it (RFC 3327).
    pub path: Vec<String>,
    /// The identities the registrar gave the account, the default one first (RFC 7315 4.1).
    pub associated: Vec<String>,
    /// All numbers of the account are registered (RFC 6140).
    pub bulk: bool,
    /// The registrar keeps to RFC 5626.
    pub outbound: bool,
}
