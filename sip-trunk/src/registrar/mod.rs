//! The registrar (RFC 3261 10.3), and who those are that are known by digest alone.
//!
//! Accounts are PBXs and phones that register here. Each is a trunk: while it has a contact, calls can
//! be placed on it, and calls that come by its registered flow, or with its credentials, are its.

mod account;
mod authenticate;
mod binding;
pub(crate) mod config;
mod guard;
mod probe;
mod reach;
mod register;
mod stun;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::auth::{Authenticator, Ha1};
use crate::endpoint::io::{Path, Random};
use crate::endpoint::{ConnectionId, Transport};
use crate::text;
use crate::trunk::Trunk;
use crate::wire::message::{Request, addr_uri};

pub(crate) use account::{Account, on_connection_lost, on_timer};
pub use account::{AccountStatus, ContactStatus};
pub(crate) use authenticate::authenticate;
pub use config::{AccountConfig, AccountError, AccountSecret, Authentication};
pub(crate) use probe::on_outcome;
pub(crate) use reach::{Reach, contacts, escaped_user};
pub(crate) use register::on_register;
pub(crate) use stun::stun_answer;

use binding::Parts;
use guard::Guard;

/// What all accounts share.
#[derive(Debug)]
pub(crate) struct Accounts {
    realms: Vec<Realm>,
    guard: Guard,
    /// The accounts that are registered over a flow.
    flows: HashMap<Flow, Vec<usize>>,
    /// Counts what was registered, and names bindings.
    serial: u64,
    started: Instant,
    unix_ms: u64,
}

/// The users of a realm: their accounts, and what they prove.
type Users = HashMap<String, (usize, Ha1)>;

/// A protection domain and its users.
#[derive(Debug)]
struct Realm {
    authenticator: Authenticator,
    users: Users,
}

/// What ties requests to a registration (RFC 5626 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Flow {
    /// Two addresses: ours, theirs.
    Datagrams(SocketAddr, SocketAddr),
    Connection(ConnectionId),
}

impl Flow {
    fn of(path: &Path) -> Option<Self> {
        match (path.transport, path.connection) {
            (_, Some(connection)) => Some(Self::Connection(connection)),
            (Transport::Udp, None) => Some(Self::Datagrams(path.local, path.remote)),
            _ => None,
        }
    }
}

impl Accounts {
    /// Takes the accounts among the trunks.
    pub(crate) fn new(
        trunks: &[Trunk],
        config: Authentication,
        random: &mut Random,
        started: Instant,
        unix_ms: u64,
    ) -> Self {
        let mut users: Vec<(String, Users)> = Vec::new();
        for (index, trunk) in trunks.iter().enumerate() {
            let Some(account) = trunk.account.as_ref().map(Account::config) else { continue };
            let hashes = account.secret.hashed(&account.user, &account.realm);
            if !users.iter().any(|(realm, _)| *realm == account.realm) {
                users.push((account.realm.clone(), HashMap::new()));
            }
            if let Some((_, realm)) = users.iter_mut().find(|(realm, _)| *realm == account.realm) {
                realm.insert(account.user.clone(), (index, hashes));
            }
        }
        let realms = users.into_iter().map(|(realm, users)| {
            let all = |of: fn((bool, bool)) -> bool| users.values().all(|(_, ha1)| of(ha1.algorithms()));
            let authenticator = Authenticator::new(realm, random.key(), config.nonce_lifetime)
                .offering(all(|(md5, _)| md5), all(|(_, sha256)| sha256));
            Realm { authenticator, users }
        });
        let (realms, guard) = (realms.collect(), Guard::new(config));
        Self { realms, guard, flows: HashMap::new(), serial: 0, started, unix_ms }
    }

    /// Says whether anybody may register.
    pub(crate) fn any(&self) -> bool {
        !self.realms.is_empty()
    }

    /// Returns the wall time in seconds.
    fn unix(&self, now: Instant) -> u64 {
        self.unix_ms / 1000 + now.saturating_duration_since(self.started).as_secs()
    }

    /// Says whether nothing from a source is to be read.
    pub(crate) fn is_banned(&self, source: IpAddr, now: Instant) -> bool {
        self.guard.is_banned(source, now)
    }

    /// Counts the sources that are banned.
    pub(crate) fn bans(&self, now: Instant) -> usize {
        self.guard.bans(now)
    }

    /// Finds an account that is registered by a flow.
    pub(crate) fn of_flow(&self, path: &Path) -> Option<usize> {
        self.on_flow(path).first().copied()
    }

    fn on_flow(&self, path: &Path) -> &[usize] {
        let accounts = Flow::of(path).and_then(|flow| self.flows.get(&flow));
        accounts.map_or(&[][..], Vec::as_slice)
    }

    /// Finds the account a new request is of, by its flow: the one that From names, where several are
    /// registered by it.
    pub(crate) fn of_request(&self, trunks: &[Trunk], path: &Path, request: &Request) -> Option<usize> {
        let user = user_of(&request.head.from.value)?;
        let named = |index: &&usize| {
            let account = trunks.get(**index).and_then(|trunk| trunk.account.as_ref());
            account.is_some_and(|account| account.config().user == user)
        };
        self.on_flow(path).iter().find(named).copied()
    }

    /// Finds the realm of a domain; the first where none has that name.
    fn realm_of(&self, value: &str) -> usize {
        let host = addr_uri(value).and_then(Parts::of).map_or("", |parts| parts.host);
        let host = crate::dialog::without_port(host);
        let named = |realm: &Realm| realm.authenticator.realm().eq_ignore_ascii_case(host);
        self.realms.iter().position(named).unwrap_or(0)
    }
}

/// Returns the user part of a name-addr.
fn user_of(value: &str) -> Option<String> {
    text::unescape(addr_uri(value).and_then(Parts::of)?.user)
}
