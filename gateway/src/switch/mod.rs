//! The switch: pairs the two legs of every call. Pure: events of both sides and of the media come
//! in, actions go out, time is an argument.
//!
//! One contract: after every `handle_*` call, drain [`Switch::poll_action`].
//!
//! | in | out |
//! |---|---|
//! | overlay events | commands to the overlay node |
//! | SIP events | commands to the SIP endpoint |
//! | media events | commands to the media workers |

mod call;
mod cross;
mod gates;
mod history;
mod image;
mod media;
mod overlay;
mod record;
mod redirect;
mod release;
mod successor;
mod trunk;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use call_model::{Address, CallId, Cause, Handle, Number, Outcome, TrunkName};
use p2p_edge::node::NodeCommand;

use crate::config::{Emergency, Limits, Policy, Route, Trunk};

pub use gates::{Evaluation, Origin, Target};
pub use media::{MediaCommand, MediaEvent, WholeCall};
pub use record::{CallRecord, Phase, ReleasedBy, RouteDirection};

use call::Call;
use history::History;

/// How long both legs may take to confirm that they are over, before the call is dropped anyway.
/// Longer than 64 times T1, after which the SIP side has given up whatever it waited for.
const RELEASE_GUARD: Duration = Duration::from_secs(45);

/// What the switch is told of the configuration.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// Trunks.
    pub trunks: Vec<Trunk>,
    /// Routes, longest prefix first.
    pub routes: Vec<Route>,
    /// Numbers served.
    pub numbers: HashMap<call_model::Number, Handle>,
    /// What is permitted.
    pub policy: Policy,
    /// Bounds.
    pub limits: Limits,
    /// What becomes of emergency calls.
    pub emergency: Emergency,
    /// The quality of every trunk leg is told, and not only where the trunk has a collector.
    pub tell_quality: bool,
}

/// What the switch wants done.
#[derive(Debug)]
pub enum Action {
    /// Tell the SIP endpoint.
    Sip(sip_trunk::Command),
    /// Tell the overlay node.
    Overlay(NodeCommand),
    /// Tell the media workers.
    Media(MediaCommand),
    /// A call began: for metrics and logs.
    Started {
        /// The call.
        call: CallId,
        /// Which way it goes.
        direction: RouteDirection,
    },
    /// A call ended: for metrics and logs.
    Ended {
        /// The call.
        call: CallId,
        /// Which way it went.
        direction: RouteDirection,
        /// Result class.
        outcome: Outcome,
        /// Why.
        cause: Cause,
        /// The trunk, if one was chosen.
        trunk: Option<TrunkName>,
        /// From the beginning to the answer.
        setup: Option<Duration>,
        /// From the answer to the end.
        duration: Option<Duration>,
    },
}

/// How many calls each trunk has. Holds configured trunks only.
#[derive(Debug, Default)]
struct TrunkCalls(HashMap<TrunkName, usize>);

impl TrunkCalls {
    fn take(&mut self, trunk: &TrunkName) {
        *self.0.entry(trunk.clone()).or_insert(0) += 1;
    }

    fn give_back(&mut self, trunk: &TrunkName) {
        if let Some(calls) = self.0.get_mut(trunk) {
            *calls = calls.saturating_sub(1);
        }
    }
}

/// The calls that a trunk was asked to put through to a number, until the answer.
#[derive(Debug, Default)]
struct Asked(HashMap<Number, Vec<CallId>>);

impl Asked {
    fn add(&mut self, called: Option<&Address>, call: CallId) {
        if let Some(Address::Number(number)) = called {
            let calls = self.0.entry(number.clone()).or_default();
            if !calls.contains(&call) {
                calls.push(call);
            }
        }
    }

    fn remove(&mut self, called: Option<&Address>, call: CallId) {
        if let Some(Address::Number(number)) = called
            && let Some(calls) = self.0.get_mut(number)
        {
            calls.retain(|known| *known != call);
            if calls.is_empty() {
                self.0.remove(number);
            }
        }
    }
}

/// Pairs legs; owns the state of every call.
#[derive(Debug)]
pub struct Switch {
    config: SwitchConfig,
    calls: HashMap<CallId, Box<Call>>,
    /// The SIP legs that have another id than their call, and whose they are: the second ones of calls
    /// between trunks, and those that follow others.
    onward: HashMap<CallId, CallId>,
    history: History,
    actions: VecDeque<Action>,
    calls_of_user: HashMap<Handle, usize>,
    trunk_calls: TrunkCalls,
    asked: Asked,
    /// When calls that are being released are dropped; one entry each, gone with the call.
    releases: BTreeSet<(Instant, CallId)>,
    /// When calls that are silent although somebody is there end; one entry each at most.
    silences: BTreeSet<(Instant, CallId)>,
    trunks_down: HashSet<TrunkName>,
    trunk_details: BTreeMap<TrunkName, String>,
    draining: bool,
    epoch: (Instant, u64),
}

impl Switch {
    /// Builds a switch without calls. `unix_ms` is the wall clock at `now`.
    pub fn new(config: SwitchConfig, now: Instant, unix_ms: u64) -> Self {
        Self {
            history: History::new(config.limits.history),
            config,
            calls: HashMap::new(),
            onward: HashMap::new(),
            actions: VecDeque::new(),
            calls_of_user: HashMap::new(),
            trunk_calls: TrunkCalls::default(),
            asked: Asked::default(),
            releases: BTreeSet::new(),
            silences: BTreeSet::new(),
            trunks_down: HashSet::new(),
            trunk_details: BTreeMap::new(),
            draining: false,
            epoch: (now, unix_ms),
        }
    }

    /// Returns the next thing to do, in order.
    #[must_use]
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns when [`Switch::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.releases.first(), self.silences.first()].into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// Drops calls whose legs never confirmed their end, and ends those that stay silent.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.end_silent_calls(now);
        while let Some((_, id)) = self.releases.first().copied().filter(|(at, _)| *at <= now) {
            self.releases.pop_first();
            self.finish(now, id);
        }
    }

    /// Returns the number of live calls.
    pub fn live(&self) -> usize {
        self.calls.len()
    }

    /// Returns the live calls, newest first.
    pub fn live_records(&self) -> Vec<&CallRecord> {
        let mut records: Vec<&CallRecord> = self.calls.values().map(|call| &call.record).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.id));
        records
    }

    /// Returns the finished calls that are kept, the one that ended last first.
    pub fn finished_records(&self) -> impl Iterator<Item = &CallRecord> {
        self.history.newest_first()
    }

    /// Returns one call, live or finished.
    pub fn record(&self, id: CallId) -> Option<&CallRecord> {
        self.calls.get(&id).map(|call| &call.record).or_else(|| self.history.get(id))
    }

    /// Returns the calls on a trunk now.
    pub fn calls_on(&self, trunk: &TrunkName) -> usize {
        self.trunk_calls.0.get(trunk).copied().unwrap_or(0)
    }

    fn trunk(&self, name: &TrunkName) -> Option<&Trunk> {
        self.config.trunks.iter().find(|known| known.name == *name)
    }

    /// Returns what the last health check of a trunk said: whether it is up, and the words.
    /// `None` before the first.
    pub fn trunk_health(&self, trunk: &TrunkName) -> Option<(bool, &str)> {
        let detail = self.trunk_details.get(trunk)?;
        Some((!self.trunks_down.contains(trunk), detail))
    }

    /// Takes another configuration. Calls that live go on as they are: what they hold stays counted.
    /// Trunks that are gone are called no more.
    pub fn reconfigure(&mut self, config: SwitchConfig) {
        let known = |name: &TrunkName| config.trunks.iter().any(|trunk| trunk.name == *name);
        self.trunks_down.retain(known);
        self.trunk_details.retain(|name, _| known(name));
        self.history.set_limit(config.limits.history);
        self.config = config;
    }

    /// Stops taking calls, or takes them again. Live calls go on.
    pub fn drain(&mut self, on: bool) {
        self.draining = on;
        self.actions.push_back(Action::Sip(sip_trunk::Command::Drain { on }));
    }

    /// Says whether new calls are refused.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    fn unix_ms(&self, now: Instant) -> u64 {
        self.epoch.1 + now.saturating_duration_since(self.epoch.0).as_millis() as u64
    }
}

#[cfg(test)]
mod tests;
