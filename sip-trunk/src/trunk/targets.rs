//! The targets of a trunk: in which order a call tries them, which of them are out of favour, and
//! what the name they come from leads to.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::TrunkState;
use super::overload::Feedback;
use super::resolve::{Candidate, Families, Located, Service, draw};
use super::{Trunk, TrunkConfig, health, registration};
use crate::auth::ClientAuth;
use crate::dialog::Dialog;
use crate::endpoint::api::{Event, Transport};
use crate::endpoint::core::Core;
use crate::endpoint::io::Random;
use crate::transaction::client::{ClientKey, Outcome, Upcall};
use crate::transaction::timer::{Alarm, Due};
use crate::wire::message::Name;

/// How long a target that did not answer is tried after the others: doubled each time in a row.
const SUSPECT: Duration = Duration::from_secs(60);
const SUSPECT_MAX: Duration = Duration::from_secs(600);
/// The longest that Retry-After of a call's 503 is obeyed.
const RETRY_AFTER_MAX: u64 = 600;
/// Addresses that were targets before the name led elsewhere, and whose calls go on.
const FORMER_MAX: usize = 16;

/// What is known of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetState {
    /// Nothing yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It did not answer a request of late (RFC 4320 4.2): it is tried after those that do.
    Suspect,
    /// It fails its OPTIONS: it is tried last.
    Demoted,
}

impl TargetState {
    /// Returns the name used by the API.
    pub fn as_str(self) -> &'static str {
        match self {
            TargetState::Unknown => "unknown",
            TargetState::Up => "up",
            TargetState::Suspect => "suspect",
            TargetState::Demoted => "demoted",
        }
    }
}

/// A target as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStatus {
    /// Its address.
    pub address: SocketAddr,
    /// Its transport.
    pub transport: Transport,
    /// What is known of it.
    pub state: TargetState,
    /// The last answer to OPTIONS; `None` if there was none.
    pub last_status: Option<u16>,
    /// It asked to be left alone until then (RFC 3261 21.5.4).
    pub barred_until: Option<Instant>,
    /// The part of new calls it asks to be spared, in percent (RFC 7339).
    pub reduction_percent: u8,
}

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    rank: u32,
    weight: u16,
    group: u16,
    /// It answered an OPTIONS.
    pub(super) proved: bool,
    pub(super) demoted: bool,
    suspect_until: Option<Instant>,
    /// Requests in a row that came to nothing.
    strikes: u32,
    barred_until: Option<Instant>,
    pub(crate) last_status: Option<u16>,
    /// Failures in a row while not demoted, successes in a row while demoted.
    pub(super) streak: u32,
    pub(super) auth: Option<ClientAuth>,
    /// The probe under way: kept to repeat it with credentials.
    pub(super) probe: Option<(Dialog, Option<ClientKey>)>,
    pub(super) challenges: u8,
    pub(crate) feedback: Feedback,
}

impl Target {
    fn new(config: &TrunkConfig, candidate: &Candidate, transport: Transport) -> Self {
        Self {
            address: candidate.address,
            transport,
            rank: candidate.rank,
            weight: candidate.weight,
            group: candidate.group,
            proved: false,
            demoted: false,
            suspect_until: None,
            strikes: 0,
            barred_until: None,
            last_status: None,
            streak: 0,
            auth: config.credentials.clone().map(ClientAuth::new),
            probe: None,
            challenges: 0,
            feedback: Feedback::default(),
        }
    }

    /// A request came to nothing, or was answered.
    fn strike(&mut self, now: Instant, failed: bool) {
        let wait = SUSPECT.saturating_mul(1 << self.strikes.min(8)).min(SUSPECT_MAX);
        // Several requests that fail together are one failure.
        let again = self.suspect_until.is_none_or(|until| until <= now);
        match failed {
            true if again => {
                self.suspect_until = Some(now + wait);
                self.strikes = self.strikes.saturating_add(1);
            }
            true => {}
            false => (self.suspect_until, self.strikes) = (None, 0),
        }
    }

    fn state(&self, now: Instant) -> TargetState {
        match self {
            _ if self.demoted => TargetState::Demoted,
            _ if self.suspect_until.is_some_and(|until| now < until) => TargetState::Suspect,
            _ if self.proved => TargetState::Up,
            _ => TargetState::Unknown,
        }
    }

    /// Lower is tried first.
    fn class(&self, now: Instant) -> u32 {
        match self.state(now) {
            TargetState::Unknown | TargetState::Up => 0,
            TargetState::Suspect => 1,
            TargetState::Demoted => 2,
        }
    }

    fn is_barred(&self, now: Instant) -> bool {
        self.barred_until.is_some_and(|until| now < until)
    }
}

/// The targets of one trunk.
#[derive(Debug)]
pub(crate) struct TargetSet {
    list: Vec<Target>,
    /// Targets before the name led elsewhere.
    former: Vec<IpAddr>,
    /// The name leads nowhere, or DNS has never answered.
    lost: bool,
    alarm: Alarm,
}

impl TargetSet {
    pub(crate) fn new(config: &TrunkConfig) -> Self {
        let mut set = Self { list: Vec::new(), former: Vec::new(), lost: false, alarm: Alarm::default() };
        if config.destination.is_none() {
            let addresses = [config.target].into_iter().chain(config.backups.iter().copied());
            let service = Service::of(config.transport).unwrap_or(Service::Udp);
            let candidates = addresses.zip(0..).map(|(address, rank)| {
                let group = rank as u16;
                (Candidate { address, service, rank, weight: 0, group }, config.transport)
            });
            set.list = candidates.map(|(candidate, of)| Target::new(config, &candidate, of)).collect();
        }
        set
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Target> {
        self.list.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Target> {
        self.list.iter_mut()
    }

    /// Says whether an address is a target, or was one whose calls may go on.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    /// Returns the addresses requests may come from.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.list.iter().map(|t| t.address.ip().to_canonical()).chain(self.former.iter().copied())
    }

    /// Says whether a path that was chosen before still leads to a target in favour.
    pub(crate) fn is_good(&self, remote: SocketAddr, now: Instant) -> bool {
        self.list.iter().any(|t| t.address == remote && t.class(now) == 0 && !t.is_barred(now))
    }

    /// What OPTIONS and DNS say of the trunk: it is down when every target is.
    pub(crate) fn state(&self) -> TrunkState {
        let alive = || self.list.iter().filter(|t| !t.demoted);
        match alive().next() {
            None if self.list.is_empty() && !self.lost => TrunkState::Unknown,
            None => TrunkState::Down,
            Some(_) if alive().any(|t| t.proved) => TrunkState::Up,
            Some(_) => TrunkState::Unknown,
        }
    }

    /// Returns the targets in the order in which a call tries them (RFC 3263 4.3, RFC 2782): those out
    /// of favour later, those that are to be left alone not at all. `urgent` calls spare nobody.
    pub(crate) fn order(
        &self,
        now: Instant,
        random: &mut Random,
        urgent: bool,
    ) -> Vec<(Transport, SocketAddr)> {
        let mut open = Vec::new();
        for target in &self.list {
            let spared =
                !urgent && (target.is_barred(now) || target.feedback.spares(now, random.between(0, 99)));
            if !spared {
                let rank = (target.class(now) << 30).saturating_add(target.rank);
                open.push((rank, target.weight, target.group, target.transport, target.address));
            }
        }
        let drawn = draw(&open, |t| (t.0, t.1, t.2), |limit| random.between(0, limit));
        drawn.into_iter().map(|t| (t.3, t.4)).collect()
    }

    /// Returns the target that requests of the trunk itself go to: the best, and among equals the one
    /// they went to before.
    pub(crate) fn best(&self, now: Instant, before: SocketAddr) -> Option<(Transport, SocketAddr)> {
        let key = |t: &&Target| (t.is_barred(now), t.class(now), t.rank, t.address != before);
        self.list.iter().min_by_key(key).map(|t| (t.transport, t.address))
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns every target as it is.
    pub(crate) fn status(&self, now: Instant) -> Vec<TargetStatus> {
        let status = |t: &Target| TargetStatus {
            address: t.address,
            transport: t.transport,
            state: t.state(now),
            last_status: t.last_status,
            barred_until: t.barred_until.filter(|&until| now < until),
            reduction_percent: t.feedback.percent(now),
        };
        self.list.iter().map(status).collect()
    }

    /// Takes over where the name leads now. What is known of addresses that stay is kept. Says whether
    /// requests come from other addresses now.
    fn update(&mut self, config: &TrunkConfig, candidates: &[Candidate], in_use: bool) -> bool {
        let mut old = std::mem::take(&mut self.list);
        let before: Vec<_> = old.iter().map(|t| (t.address, t.transport)).collect();
        let former = self.former.clone();
        for candidate in candidates {
            let transport = Transport::of(candidate.service);
            let known = old.iter().position(|t| (t.address, t.transport) == (candidate.address, transport));
            let target = match known.map(|at| old.swap_remove(at)) {
                Some(target) => Target {
                    rank: candidate.rank,
                    weight: candidate.weight,
                    group: candidate.group,
                    ..target
                },
                None => Target::new(config, candidate, transport),
            };
            self.list.push(target);
        }
        if !in_use {
            self.former.clear();
        }
        let gone = old.iter().map(|t| t.address.ip().to_canonical());
        self.former.extend(gone.filter(|_| in_use));
        self.former.dedup();
        let excess = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..excess);
        let after = self.list.iter().map(|t| (t.address, t.transport));
        former != self.former || before != after.collect::<Vec<_>>()
    }
}

/// Runs a change to the targets of a trunk, and tells of what it means.
pub(super) fn change(
    core: &mut Core,
    index: usize,
    detail: &str,
    act: impl FnOnce(&mut TargetSet, &TrunkConfig),
) {
    let now = core.io.now;
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let several = trunk.targets.list.len() > 1;
    let states = |set: &TargetSet| set.list.iter().map(|t| (t.address, t.state(now))).collect::<Vec<_>>();
    let (before, known) = (trunk.targets.state(), states(&trunk.targets));
    act(&mut trunk.targets, &trunk.config);
    let name = &trunk.config.name;
    for (address, state) in states(&trunk.targets) {
        let was = known.iter().find(|(of, _)| *of == address).map(|(_, state)| *state);
        if several && was.is_some_and(|was| was != state) {
            let (trunk, target, detail) = (name.clone(), address, detail.to_owned());
            core.events.push_back(Event::TargetHealth { trunk, target, state, detail });
        }
    }
    let after = trunk.targets.state();
    // A name that leads somewhere again: nothing speaks against the trunk any more.
    if before != after && (after != TrunkState::Unknown || before == TrunkState::Down) {
        let up = after != TrunkState::Down && trunk.registered_if_required();
        let detail = detail.to_owned();
        core.events.push_back(Event::TrunkHealth { trunk: name.clone(), up, detail });
    }
}

/// Learns from what became of any request to a target (RFC 3263 4.3, RFC 4320 4.2, RFC 7339 5.3).
pub(crate) fn observe(core: &mut Core, upcall: &Upcall) {
    let (now, path) = (core.io.now, upcall.path);
    let Some(trunk) = core.trunks.get(upcall.trunk) else { return };
    let fits = |t: &Target| t.address == path.remote && t.transport == path.transport;
    if !trunk.targets.list.iter().any(fits) {
        return;
    }
    let (bar, suspect, detail) = match &upcall.outcome {
        Outcome::Timeout => (None, true, format!("no answer to {}", upcall.method.as_str())),
        Outcome::TransportError => (None, true, "transport error".to_owned()),
        Outcome::Response(response, _) => {
            if trunk.config.overload_control
                && let Some(via) = response.head.text(&Name::Via)
                && let Some(target) = core
                    .trunks
                    .get_mut(upcall.trunk)
                    .and_then(|t| t.targets.list.iter_mut().find(|t| fits(t)))
            {
                target.feedback.take(&via, now);
            }
            match response.status {
                // RFC 3261 21.5.4: nothing more goes there for the time it names.
                503 => {
                    let after =
                        response.head.text(&Name::RetryAfter).and_then(|text| registration::seconds(&text));
                    let wait = after.map(|s| Duration::from_secs(u64::from(s).min(RETRY_AFTER_MAX)));
                    (wait.map(|wait| now + wait), true, "503".to_owned())
                }
                _ => (None, false, String::new()),
            }
        }
    };
    let Some(target) = core.trunks.get(upcall.trunk).and_then(|t| t.targets.list.iter().find(|t| fits(t)))
    else {
        return;
    };
    if !suspect && target.suspect_until.is_none() {
        return;
    }
    let detail = if suspect { detail } else { "it answers".to_owned() };
    change(core, upcall.trunk, &detail, |set, _| {
        for target in set.list.iter_mut().filter(|t| fits(t)) {
            target.strike(now, suspect);
            target.barred_until = target.barred_until.max(bar);
        }
    });
}

/// A target was silent for as long as a call would wait: others are tried before it.
pub(crate) fn suspect(core: &mut Core, index: usize, remote: SocketAddr) {
    let now = core.io.now;
    change(core, index, "no answer to INVITE", |set, _| {
        for target in set.list.iter_mut().filter(|t| t.address == remote) {
            target.strike(now, true);
        }
    });
}

/// Finds out where the name of a trunk leads, and when to look again.
pub(crate) fn resolve(core: &mut Core, index: usize) {
    let now = core.io.now;
    let Some(trunk) = core.trunks.get(index) else { return };
    let Some(destination) = trunk.config.destination.clone() else { return };
    let offered = offered(core, trunk);
    let located = core.resolver.locate(now, &destination, &offered);
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let empty = trunk.targets.list.is_empty();
    trunk.targets.alarm.set(&mut core.io.timers, Due::Targets(index), Some(located.again().max(now)));
    let in_use = trunk.calls > 0;
    let mut changed = false;
    match located {
        Located::Known { candidates, complete, .. } if complete || empty => {
            change(core, index, "the name leads elsewhere", |set, config| {
                set.lost = false;
                changed = set.update(config, &candidates, in_use);
            });
        }
        Located::Nowhere { .. } => change(core, index, "the name leads nowhere", |set, config| {
            set.lost = true;
            changed = set.update(config, &[], in_use);
        }),
        // RFC 8767: what was known is used on.
        Located::Unavailable { .. } if empty => {
            change(core, index, "DNS does not answer", |set, _| set.lost = true);
        }
        _ => {}
    }
    if changed {
        core.sources_changed = true;
        if empty {
            health::start(core, index);
            registration::target_found(core, index);
        }
    }
}

/// The transports a trunk's name may lead to, in order of preference, and the families of each.
fn offered(core: &Core, trunk: &Trunk) -> Vec<(Service, Families)> {
    let own = trunk.config.transport;
    let mut offered: Vec<(Service, Families)> = Vec::new();
    let mut listeners: Vec<_> = core.config.listeners.iter().collect();
    listeners.sort_by_key(|l| l.transport != own);
    for listener in listeners {
        let Some(service) = Service::of(listener.transport) else { continue };
        let v4 = listener.local.is_ipv4();
        match offered.iter_mut().find(|(known, _)| *known == service) {
            Some((_, families)) => {
                families.v4 |= v4;
                families.v6 |= !v4;
            }
            None => offered.push((service, Families { v4, v6: !v4 })),
        }
    }
    offered
}

/// A deadline surfaced: look again.
pub(crate) fn on_timer(core: &mut Core, index: usize, at: Instant) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    if trunk.targets.alarm.surfaced(&mut core.io.timers, Due::Targets(index), at, core.io.now) {
        resolve(core, index);
    }
}
