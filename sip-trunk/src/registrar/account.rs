//! One account and its contacts: what is kept of them, and what happens to them in time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::binding::Binding;
use super::config::AccountConfig;
use super::{Flow, probe};
use crate::endpoint::api::Event;
use crate::endpoint::core::Core;
use crate::endpoint::{ConnectionId, Transport};
use crate::transaction::timer::{Alarm, Due};
use crate::trunk::Trunk;

/// An account at work.
#[derive(Debug)]
pub(crate) struct Account {
    config: AccountConfig,
    pub(super) bindings: Vec<Binding>,
    alarm: Alarm,
}

/// An account as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its user name.
    pub user: String,
    /// Its contacts, the latest first.
    pub contacts: Vec<ContactStatus>,
}

/// A registered contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContactStatus {
    /// Its URI.
    pub uri: String,
    /// Where its REGISTER came from.
    pub source: SocketAddr,
    /// By which transport.
    pub transport: Transport,
    /// How long it lasts yet.
    pub expires_in: Duration,
    /// What it calls itself; may be empty.
    pub user_agent: String,
    /// It answers OPTIONS, or is not asked.
    pub answers: bool,
}

impl Account {
    pub(crate) fn new(config: AccountConfig) -> Self {
        Self { config, bindings: Vec::new(), alarm: Alarm::default() }
    }

    pub(crate) fn config(&self) -> &AccountConfig {
        &self.config
    }

    pub(super) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Counts its contacts.
    pub(crate) fn contacts(&self) -> usize {
        self.bindings.len()
    }

    /// Says whether it has a contact.
    pub(crate) fn is_registered(&self) -> bool {
        !self.bindings.is_empty()
    }

    /// Says whether a contact registered from an address.
    pub(crate) fn is_at(&self, address: std::net::IpAddr) -> bool {
        self.bindings.iter().any(|b| b.source().ip().to_canonical() == address)
    }

    pub(crate) fn status(&self, now: Instant) -> AccountStatus {
        let mut bindings: Vec<&Binding> = self.bindings.iter().collect();
        bindings.sort_by_key(|b| std::cmp::Reverse(b.refreshed));
        let contact = |b: &&Binding| ContactStatus {
            uri: b.contact.uri.clone(),
            source: b.source(),
            transport: b.flow.transport,
            expires_in: b.expires.saturating_duration_since(now),
            user_agent: b.user_agent.clone(),
            answers: b.answers(),
        };
        AccountStatus { user: self.config.user.clone(), contacts: bindings.iter().map(contact).collect() }
    }

    fn next(&self) -> Option<Instant> {
        let due = |b: &Binding| b.probe.next.map_or(b.expires, |probe| probe.min(b.expires));
        self.bindings.iter().map(due).min()
    }
}

/// Replaces the contacts of an account, and does what follows from that: its flows, its connections, its
/// next deadline, and the news that it can be called, or cannot.
pub(super) fn replace(core: &mut Core, index: usize, bindings: Vec<Binding>, detail: &str) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let Some(account) = &mut trunk.account else { return };
    let old = std::mem::replace(&mut account.bindings, bindings);
    let (before, after) = (!old.is_empty(), account.is_registered());
    let flows = &mut core.accounts.flows;
    for flow in old.iter().filter_map(|b| Flow::of(&b.flow)) {
        if let Some(accounts) = flows.get_mut(&flow) {
            accounts.retain(|i| *i != index);
            if accounts.is_empty() {
                flows.remove(&flow);
            }
        }
    }
    for flow in account.bindings.iter().filter_map(|b| Flow::of(&b.flow)) {
        let accounts = flows.entry(flow).or_default();
        if !accounts.contains(&index) {
            accounts.push(index);
        }
    }
    // A connection that is needed does not end for being idle.
    for path in old.iter().chain(&account.bindings).map(|b| b.flow) {
        if let Some(connection) = path.connection {
            let kept = flows.contains_key(&Flow::Connection(connection));
            core.io.pool.keep(connection, kept, None, &mut core.io.timers);
        }
    }
    let next = account.next();
    account.alarm.set(&mut core.io.timers, Due::Account(index), next);
    if before != after {
        let (trunk, detail) = (trunk.config.name.clone(), detail.to_owned());
        core.events.push_back(Event::TrunkHealth { trunk, up: after, detail });
    }
}

/// A deadline surfaced: contacts that expired go, others are asked whether they live.
pub(crate) fn on_timer(core: &mut Core, index: usize, at: Instant) {
    let now = core.io.now;
    let Some(account) = core.trunks.get_mut(index).and_then(|t| t.account.as_mut()) else { return };
    if !account.alarm.surfaced(&mut core.io.timers, Due::Account(index), at, now) {
        return;
    }
    let left: Vec<Binding> = account.bindings.iter().filter(|b| b.expires > now).cloned().collect();
    replace(core, index, left, "the registration expired");
    probe::send_due(core, index);
    arm(core, index);
}

pub(super) fn arm(core: &mut Core, index: usize) {
    let Some(account) = core.trunks.get_mut(index).and_then(|t| t.account.as_mut()) else { return };
    let next = account.next();
    account.alarm.set(&mut core.io.timers, Due::Account(index), next);
}

/// A connection is gone, and with it the contacts that were registered over it (RFC 5626 3.1).
pub(crate) fn on_connection_lost(core: &mut Core, connection: ConnectionId) {
    let indices = core.accounts.flows.get(&Flow::Connection(connection)).cloned().unwrap_or_default();
    for index in indices {
        let account = core.trunks.get(index).and_then(|trunk: &Trunk| trunk.account.as_ref());
        let bindings = account.map_or(&[][..], Account::bindings);
        let lost = |b: &&Binding| b.flow.connection != Some(connection);
        let left: Vec<Binding> = bindings.iter().filter(lost).cloned().collect();
        replace(core, index, left, "the connection it registered by was lost");
    }
}
