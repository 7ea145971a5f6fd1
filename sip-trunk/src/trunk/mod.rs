//! Trunks: configuration, number rules, caller identity, health, and which trunk a source is.

pub mod certificate;
mod config;
pub mod details;
pub mod diversion;
pub mod emergency;
pub(crate) mod health;
pub mod identity;
pub mod location;
pub mod numbers;
pub(crate) mod overload;
pub mod parameters;
pub mod profile;
mod referral;
pub(crate) mod registration;
pub mod resolve;
pub mod retry;
pub(crate) mod targets;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use call_model::TrunkName;

use self::certificate::PeerIdentity;
pub use config::{AnswerChange, GroupForm, HoldForm, InfoDigits, LargeRequests, Reliable, TrunkConfig};
pub use health::{TrunkState, TrunkStatus};
pub use referral::{RedirectPolicy, Redirects, Replacing, Transfers};
pub use registration::{Outbound, Registration, RegistrationError, RegistrationState, RegistrationStatus};
pub use targets::{TargetState, TargetStatus};

use crate::auth::ClientAuth;
use crate::dialog::{host_of, without_port};
use crate::endpoint::ConnectionId;
use crate::endpoint::io::{Path, contact, contact_at};
use crate::quality::publish::Reports;
use crate::registrar::{Account, AccountConfig};
use crate::sdp::MediaPolicy;

/// A trunk at work.
#[derive(Debug)]
pub(crate) struct Trunk {
    pub(crate) config: TrunkConfig,
    pub(crate) policy: MediaPolicy,
    pub(crate) calls: usize,
    pub(crate) health: health::Health,
    pub(crate) targets: targets::TargetSet,
    /// Of new calls, both ways.
    pub(crate) rate: Option<overload::RateLimit>,
    /// Of a trunk that registers.
    pub(crate) registrar: Option<registration::Registrar>,
    /// Of a trunk that registers with us.
    pub(crate) account: Option<Account>,
    /// Of the quality of its calls.
    pub(crate) reports: Reports,
}

impl Trunk {
    pub(crate) fn new(config: TrunkConfig) -> Self {
        let mut policy = MediaPolicy::new(config.codecs.clone(), config.packet_time_ms);
        policy.tolerant = config.tolerance.sdp;
        policy.telephone_event = config.telephone_events;
        policy.srtp = config.srtp;
        policy.srtp_suites = config.srtp_suites.clone();
        let (health, targets) = (health::Health::default(), targets::TargetSet::new(&config));
        let rate = config.max_call_rate.map(overload::RateLimit::new);
        let registrar = registration::Registrar::new(&config);
        let reports = Reports::default();
        Self { policy, calls: 0, health, targets, rate, registrar, account: None, reports, config }
    }

    /// Makes the trunk that an account is while it is registered.
    pub(crate) fn of_account(config: AccountConfig) -> Self {
        Self { account: Some(Account::new(config.clone())), ..Self::new(config.carry(config.trunk.clone())) }
    }

    /// Takes another configuration for the same trunk at the same place. Calls, health and
    /// registration stay as they are; credentials are shown when they are asked for next.
    pub(crate) fn reconfigure(&mut self, config: TrunkConfig) {
        let credentials = self.config.credentials != config.credentials;
        self.reports.reconfigure(&self.config, &config);
        let rated = self.config.max_call_rate != config.max_call_rate;
        let Self { policy, rate, registrar, config, .. } = Self::new(config);
        (self.policy, self.config) = (policy, config);
        if rated {
            self.rate = rate;
        }
        if credentials {
            for target in self.targets.iter_mut() {
                target.auth = self.config.credentials.clone().map(ClientAuth::new);
            }
            if let (Some(known), Some(fresh)) = (&mut self.registrar, registrar) {
                known.auth = fresh.auth;
            }
        }
    }

    /// Says whether another configuration is for a trunk at the same place, known by the same
    /// sources or certificates, and registered in the same way.
    pub(crate) fn is_at(&self, other: &TrunkConfig) -> bool {
        let config = &self.config;
        config.target == other.target
            && config.backups == other.backups
            && config.destination == other.destination
            && config.transport == other.transport
            && config.local == other.local
            && config.sources == other.sources
            && config.certificate_names == other.certificate_names
            && config.allow_common_name == other.allow_common_name
            && config.registration == other.registration
    }

    /// Says whether large requests may change to TCP.
    pub(crate) fn may_use_tcp(&self) -> bool {
        self.config.large_requests == LargeRequests::PreferTcp
    }

    /// Says whether an address belongs to this trunk.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if let Some(account) = &self.account {
            return account.is_at(address);
        }
        self.targets.owns(address)
            || self.registrar.as_ref().is_some_and(|r| r.remote().ip().to_canonical() == address)
            || self.config.sources.iter().any(|s| s.to_canonical() == address)
    }
}

impl Trunk {
    /// Says whether nothing is known that speaks against placing calls.
    pub(crate) fn usable(&self) -> bool {
        self.targets.state() != TrunkState::Down && self.registered_if_required()
    }

    /// Says whether the trunk is registered, or does not insist on it.
    pub(crate) fn registered_if_required(&self) -> bool {
        let registered = |r: &registration::Registrar| r.state() == RegistrationState::Registered;
        self.registrar.as_ref().is_none_or(|r| !r.config().required || registered(r))
    }

    /// Returns the state that counts: of OPTIONS, and of the registration.
    pub(crate) fn state(&self) -> TrunkState {
        if let Some(account) = &self.account {
            return if account.is_registered() { TrunkState::Up } else { TrunkState::Down };
        }
        let registered = self.registrar.as_ref().map(registration::Registrar::state);
        match (self.targets.state(), registered) {
            _ if !self.usable() && registered != Some(RegistrationState::Registering) => TrunkState::Down,
            (TrunkState::Unknown, Some(RegistrationState::Registered)) => TrunkState::Up,
            (state, _) => state,
        }
    }

    /// Returns the registered flow, if requests outside dialogs go the same way (RFC 5626 4.3).
    pub(crate) fn flow(&self) -> Option<Path> {
        let leads = |path: &Path| self.targets.iter().any(|t| t.address == path.remote);
        self.registrar.as_ref()?.flow().filter(leads)
    }

    /// Returns the host of identities of ours: that of the account, where there is one.
    pub(crate) fn own_host(&self, path: &Path) -> String {
        match &self.registrar {
            Some(registrar) => without_port(&registrar.config().domain).to_owned(),
            None => host_of(path.local),
        }
    }

    /// Writes the Contact of a request that goes by `path`.
    pub(crate) fn contact(&self, path: &Path) -> String {
        self.registrar.as_ref().map_or_else(|| self.plain_contact(path), |r| r.dialog_contact(path))
    }

    /// Writes the Contact of a response that goes by `path`.
    pub(crate) fn plain_contact(&self, path: &Path) -> String {
        match &self.config.contact_host {
            Some(host) => contact_at(host, path),
            None => contact(path),
        }
    }
}

/// Finds the trunk whose registration a new request came by: its Contact is the request URI, or its
/// connection brought it. Several accounts may share one registrar's address.
pub(crate) fn by_registration(
    trunks: &[Trunk],
    source: SocketAddr,
    connection: Option<ConnectionId>,
    uri: &str,
) -> Option<usize> {
    let registered = |t: &&Trunk| t.registrar.is_some() && t.owns(source.ip());
    trunks.iter().find(registered)?;
    let named = |t: &Trunk| t.registrar.as_ref().is_some_and(|r| r.is_contact(uri));
    let flow = |t: &Trunk| t.registrar.as_ref()?.flow()?.connection;
    let of = |fits: &dyn Fn(&Trunk) -> bool| trunks.iter().position(|t| t.owns(source.ip()) && fits(t));
    of(&named).or_else(|| connection.and_then(|c| of(&|t| flow(t) == Some(c))))
}

/// Tells trunks by the source of what they send. Built once: the table an attacker's packet meets
/// before anything of it is read.
#[derive(Debug)]
pub(crate) struct Sources {
    by_address: HashMap<IpAddr, Vec<usize>>,
    /// The ports of the targets of each trunk.
    ports: Vec<Vec<u16>>,
    /// Of trunks that are known by their certificate alone: the names, and whether a common name
    /// counts.
    certified: HashMap<usize, (Vec<String>, bool)>,
}

impl Sources {
    pub(crate) fn new(trunks: &[Trunk]) -> Self {
        let mut by_address: HashMap<IpAddr, Vec<usize>> = HashMap::new();
        // Accounts are known by what they send.
        for (index, trunk) in trunks.iter().enumerate().filter(|(_, t)| t.account.is_none()) {
            let registrar = trunk.registrar.as_ref().map(|r| r.remote().ip());
            // Before the name of a trunk has led anywhere, its registrar is nowhere.
            let own = trunk.targets.addresses().chain(registrar.filter(|ip| !ip.is_unspecified()));
            for address in trunk.config.sources.iter().copied().chain(own) {
                let entry = by_address.entry(address.to_canonical()).or_default();
                if !entry.contains(&index) {
                    entry.push(index);
                }
            }
        }
        let ports = trunks.iter().map(|t| t.targets.iter().map(|t| t.address.port()).collect()).collect();
        let certified = trunks.iter().map(|t| &t.config).enumerate();
        let certified = certified.filter(|(_, config)| !config.certificate_names.is_empty());
        let certified =
            certified.map(|(i, config)| (i, (config.certificate_names.clone(), config.allow_common_name)));
        Self { by_address, ports, certified: certified.collect() }
    }

    /// Finds the trunk whose requests come from a source: as [`Self::trunk`], but for those that
    /// only a certificate makes known.
    pub(crate) fn of_source(&self, source: SocketAddr) -> Option<usize> {
        if self.certified.is_empty() {
            return self.trunk(source);
        }
        self.find(source, |index| !self.certified.contains_key(&index))
    }

    /// Finds the trunk that a certificate is for (RFC 5922 7.3).
    pub(crate) fn of_certificate(&self, identity: &PeerIdentity) -> Option<usize> {
        let fits = |(names, common_name): &(Vec<String>, bool)| identity.is_one_of(names, *common_name);
        self.certified.iter().filter(|(_, allowed)| fits(allowed)).map(|(index, _)| *index).min()
    }

    /// Says whether a certificate may make a stranger's connection that of a trunk.
    pub(crate) fn knows_certificates(&self) -> bool {
        !self.certified.is_empty()
    }

    /// Finds the trunk of a source. Where several share the address, the one whose target has the
    /// very port wins, then the first in the configuration.
    pub(crate) fn trunk(&self, source: SocketAddr) -> Option<usize> {
        self.find(source, |_| true)
    }

    fn find(&self, source: SocketAddr, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let mut candidates = self.by_address.get(&source.ip().to_canonical())?.iter().copied();
        let mut candidates = candidates.by_ref().filter(|&i| fits(i));
        let first = candidates.next()?;
        let exact = |&i: &usize| self.ports.get(i).is_some_and(|p| p.contains(&source.port()));
        if exact(&first) { Some(first) } else { candidates.find(exact).or(Some(first)) }
    }
}

/// Finds a trunk by name.
pub(crate) fn by_name(trunks: &[Trunk], name: &TrunkName) -> Option<usize> {
    trunks.iter().position(|t| t.config.name == *name)
}
