use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use call_model::TrunkName;

use crate::Transport;
use crate::auth::{Ha1, Secret};
use crate::trunk::{LargeRequests, TrunkConfig};

/// A PBX or a phone that registers here. While it is registered it is a trunk.
#[derive(Clone)]
pub struct AccountConfig {
    /// Its user name: in its credentials, and the user part of its address of record.
    pub user: String,
    /// The protection domain of its credentials.
    pub realm: String,
    /// What it proves that it knows.
    pub secret: AccountSecret,
    /// The trunk it is while it is registered. Target, host and transport follow from where it
    /// registered; what is written there does not count.
    pub trunk: TrunkConfig,
    /// How many contacts it may have at once, at least 1.
    pub max_contacts: usize,
    /// A contact beyond that takes the place of the one that was refreshed longest ago. Otherwise it
    /// is refused with 403, which keeps out a phone that came back under another address.
    pub replace_oldest: bool,
    /// The shortest registration that is granted; a shorter one gets 423 (RFC 3261 10.2.8).
    pub min_expires: Duration,
    /// The longest registration that is granted; a longer one is cut to it.
    pub max_expires: Duration,
    /// The transports it may register over.
    pub transports: Vec<Transport>,
    /// Its requests go where its REGISTER came from, whatever its Contact says: for those behind an
    /// address translator. Over a connection that is always so.
    pub symmetric: bool,
    /// How often a contact over UDP is asked by OPTIONS whether it lives, which also keeps the way
    /// through an address translator open; `None`: never.
    pub keep_alive: Option<Duration>,
    /// It stands for many users: the user part of request URIs is the called one instead of that of
    /// its Contact. For PBXs; phones may not know themselves by any other name than their Contact.
    pub many_users: bool,
}

impl AccountConfig {
    /// Builds an account of up to 10 contacts over UDP and TCP, 60 s to an hour each, that is reached
    /// where it registered from and asked every 25 s whether it lives.
    pub fn new(
        user: impl Into<String>,
        realm: impl Into<String>,
        secret: AccountSecret,
        name: TrunkName,
    ) -> Self {
        let mut trunk = TrunkConfig::new(name, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        // A phone says of itself what it likes.
        trunk.trusted = false;
        Self {
            user: user.into(),
            realm: realm.into(),
            secret,
            trunk,
            max_contacts: 10,
            replace_oldest: true,
            min_expires: Duration::from_secs(60),
            max_expires: Duration::from_secs(3600),
            transports: vec![Transport::Udp, Transport::Tcp],
            symmetric: true,
            // Shorter than the 30 s after which many translators forget (RFC 4787 4.3 asks for more).
            keep_alive: Some(Duration::from_secs(25)),
            many_users: false,
        }
    }

    /// Returns a trunk as the endpoint carries it for this account.
    pub(crate) fn carry(&self, trunk: TrunkConfig) -> TrunkConfig {
        TrunkConfig {
            host: self.realm.clone(),
            target: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            sources: Vec::new(),
            certificate_names: Vec::new(),
            registration: None,
            options_interval: None,
            // A flow is not left for the size of a request.
            large_requests: LargeRequests::AllowUdp,
            ..trunk
        }
    }

    /// Says for which algorithms there is a hash: MD5, SHA-256.
    pub(crate) fn algorithms(&self) -> (bool, bool) {
        match &self.secret {
            AccountSecret::Password(_) => (true, true),
            AccountSecret::Hashed(hashes) => hashes.algorithms(),
        }
    }

    /// Checks that the fields make sense together.
    ///
    /// # Errors
    /// What does not, in words.
    pub fn check(&self) -> Result<(), AccountError> {
        let plain = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        if !plain(&self.user) || self.user.contains(':') {
            return Err(AccountError::User);
        }
        if !plain(&self.realm) {
            return Err(AccountError::Realm);
        }
        if self.max_contacts == 0 || self.max_contacts > MAX_CONTACTS {
            return Err(AccountError::Contacts);
        }
        let (min, max) = (self.min_expires.as_secs(), self.max_expires.as_secs());
        if min == 0 || min > max || max > MAX_EXPIRES {
            return Err(AccountError::Expires);
        }
        if self.transports.is_empty() {
            return Err(AccountError::Transports);
        }
        if self.keep_alive.is_some_and(|every| every < Duration::from_secs(5)) {
            return Err(AccountError::KeepAlive);
        }
        Ok(())
    }
}

/// Most contacts of one account.
pub(crate) const MAX_CONTACTS: usize = 64;
/// The longest registration, in seconds: a week.
const MAX_EXPIRES: u64 = 604_800;

impl fmt::Debug for AccountConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountConfig").field("trunk", &self.trunk.name).finish_non_exhaustive()
    }
}

/// What is wrong with an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// A colon would end the name where it is hashed (RFC 7616 3.4.2).
    #[error("the user is empty, or has a colon or control characters")]
    User,
    /// The realm cannot be written.
    #[error("the realm is empty or has control characters")]
    Realm,
    /// No contact, or too many.
    #[error("the number of contacts is not 1 to 64")]
    Contacts,
    /// The bounds of a registration contradict each other.
    #[error("the shortest registration is longer than the longest, or one is not 1 s to a week")]
    Expires,
    /// No transport to register over.
    #[error("no transport")]
    Transports,
    /// Too often.
    #[error("the keep-alive interval is below 5 s")]
    KeepAlive,
    /// Two accounts have one user name in one realm.
    #[error("the user name is that of an earlier account of the realm")]
    Duplicate,
    /// One account has no hash for any algorithm that all of its realm have.
    #[error("the accounts of the realm have no algorithm in common")]
    Algorithms,
}

/// What an account proves that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountSecret {
    /// The password.
    Password(Secret),
    /// What is kept of it.
    Hashed(Ha1),
}

impl AccountSecret {
    pub(crate) fn hashed(&self, user: &str, realm: &str) -> Ha1 {
        match self {
            Self::Password(password) => Ha1::of_password(user, realm, password),
            Self::Hashed(hashes) => hashes.clone(),
        }
    }
}

/// How those are dealt with who try passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication {
    /// How long a nonce may be used, in whole seconds.
    pub nonce_lifetime: Duration,
    /// After this many wrong answers a source is banned: nothing it sends is read. An IPv6 source is
    /// its /64.
    pub source_failures: u32,
    /// After this many wrong answers for one user name, from wherever, no answer for it counts, unless it
    /// comes from where it was right before.
    pub user_failures: u32,
    /// How long it takes until one wrong answer is forgotten.
    pub forgive: Duration,
    /// How long the first ban lasts; each next of the same source is twice as long.
    pub ban: Duration,
    /// The longest ban.
    pub longest_ban: Duration,
    /// How many sources, and as many user names, are remembered.
    pub remembered: usize,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            nonce_lifetime: Duration::from_secs(300),
            source_failures: 10,
            user_failures: 50,
            forgive: Duration::from_secs(30),
            ban: Duration::from_secs(300),
            longest_ban: Duration::from_secs(86_400),
            remembered: 4096,
        }
    }
}
