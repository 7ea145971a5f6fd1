//! Trunks: configuration, number rules, caller identity, health, and which trunk a source is.

mod config;
pub mod details;
pub mod diversion;
pub(crate) mod health;
pub mod identity;
pub mod numbers;
pub mod parameters;
pub mod profile;
pub mod retry;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use call_model::TrunkName;

pub use config::{AnswerChange, GroupForm, HoldForm, LargeRequests, TrunkConfig};
pub use health::{TrunkState, TrunkStatus};

use crate::endpoint::Transport;
use crate::sdp::MediaPolicy;

/// A trunk at work.
#[derive(Debug)]
pub(crate) struct Trunk {
    pub(crate) config: TrunkConfig,
    pub(crate) policy: MediaPolicy,
    pub(crate) calls: usize,
    pub(crate) health: health::Health,
}

impl Trunk {
    pub(crate) fn new(config: TrunkConfig) -> Self {
        let mut policy = MediaPolicy::new(config.codecs.clone(), config.packet_time_ms);
        policy.tolerant = config.tolerance.sdp;
        policy.telephone_event = config.telephone_events;
        Self { policy, calls: 0, health: health::Health::new(&config), config }
    }

    /// Says whether large requests may change to TCP.
    pub(crate) fn may_use_tcp(&self) -> bool {
        self.config.large_requests == LargeRequests::PreferTcp
    }

    /// Says whether an address belongs to this trunk.
    pub(crate) fn owns(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.config.target.ip().to_canonical() == address
            || self.config.sources.iter().any(|s| s.to_canonical() == address)
    }
}

/// Tells trunks by the source of what they send. Built once: the table an attacker's packet meets
/// before anything of it is read.
#[derive(Debug)]
pub(crate) struct Sources {
    by_address: HashMap<IpAddr, Vec<usize>>,
    targets: Vec<(SocketAddr, Transport)>,
}

impl Sources {
    pub(crate) fn new(trunks: &[Trunk]) -> Self {
        let mut by_address: HashMap<IpAddr, Vec<usize>> = HashMap::new();
        for (index, trunk) in trunks.iter().enumerate() {
            for address in trunk.config.sources.iter().copied().chain([trunk.config.target.ip()]) {
                let entry = by_address.entry(address.to_canonical()).or_default();
                if !entry.contains(&index) {
                    entry.push(index);
                }
            }
        }
        let targets = trunks.iter().map(|t| (t.config.target, t.config.transport)).collect();
        Self { by_address, targets }
    }

    /// Finds the trunk of a source. Where several share the address, the one whose target has the
    /// very port wins, then the first in the configuration.
    pub(crate) fn trunk(&self, source: SocketAddr) -> Option<usize> {
        let candidates = self.by_address.get(&source.ip().to_canonical())?;
        let exact =
            candidates.iter().find(|&&i| self.targets.get(i).is_some_and(|t| t.0.port() == source.port()));
        exact.or(candidates.first()).copied()
    }
}

/// Finds a trunk by name.
pub(crate) fn by_name(trunks: &[Trunk], name: &TrunkName) -> Option<usize> {
    trunks.iter().position(|t| t.config.name == *name)
}
