//! From what was measured to more users: what depends on the number of supernodes, and how.
//!
//! What a device sends and hears does not depend on it. Between supernodes two things do: how many
//! other supernodes a user's watchers are spread over, for each is told once, and how many homes a
//! user's contacts have, for each is asked once.

use super::behaviour::Measured;
use super::world::Way;

/// Bytes of a frame that asks a home for states, beside what it asks for.
const WATCH_HEAD: f64 = 12.0;
/// Bytes of news of one supernode.
const NEWS_BYTES: f64 = 150.0;

/// A measurement that others are predicted from.
#[derive(Clone, Debug)]
pub struct Model(Measured);

/// Bytes of one user in an hour.
#[derive(Clone, Copy, Debug)]
pub struct Predicted {
    /// Between devices and supernodes.
    pub edge: f64,
    /// Between supernodes.
    pub core: f64,
    /// News of supernodes.
    pub membership: f64,
}

impl Predicted {
    /// Returns the sum.
    pub fn sum(&self) -> f64 {
        self.edge + self.core + self.membership
    }
}

/// Returns how many of `supernodes` places are met by `things` thrown at random.
fn spread(things: f64, supernodes: f64) -> f64 {
    supernodes * (1.0 - (1.0 - 1.0 / supernodes).powf(things))
}

impl Model {
    /// Builds the model from one measurement.
    pub fn new(measured: Measured) -> Self {
        Self(measured)
    }

    /// Returns what was measured, in the form of what is predicted.
    pub fn measured(&self) -> Predicted {
        let bytes = |way| super::total(&self.0.traffic, &[way]).bytes as f64;
        let per_user = self.per_user();
        Predicted {
            edge: (bytes(Way::Up) + bytes(Way::Down)) * per_user,
            core: (bytes(Way::ToHome) + bytes(Way::FromHome)) * per_user,
            membership: self.0.membership.bytes as f64 * per_user,
        }
    }

    /// Predicts the same behaviour of `users` with `supernodes`. What is said once for several
    /// watchers at one supernode is said to each the less often the more supernodes there are.
    pub fn predict(&self, users: usize, supernodes: usize) -> Predicted {
        let scenario = &self.0.scenario;
        let contacts = scenario.contacts as f64;
        let watchers = contacts * scenario.on_percent as f64 / 100.0;
        let (before, after) = (scenario.supernodes as f64, supernodes as f64);
        let elsewhere = |supernodes: f64| 1.0 - 1.0 / supernodes;
        let far = elsewhere(after) / elsewhere(before);
        let told = spread(watchers, after) / spread(watchers, before) * far;
        let asked = spread(contacts, after) / spread(contacts, before) * far;
        let mut core = 0.0;
        for ((way, kind), tally) in &self.0.traffic {
            let (bytes, frames) = (tally.bytes as f64, tally.messages as f64);
            core += match (way, *kind) {
                (Way::Up | Way::Down, _) => 0.0,
                (Way::FromHome, "states") => bytes * told,
                (Way::FromHome, "still") => bytes * asked,
                (Way::ToHome, "watch" | "unwatch") => {
                    let heads = frames * WATCH_HEAD;
                    (bytes - heads) * far + heads * asked
                }
                _ => bytes * far,
            };
        }
        // In an hour each supernode's restarts are news to all others, twice.
        let restarts = scenario.restarts_per_day / 24.0 * after;
        Predicted {
            edge: self.measured().edge,
            core: core * self.per_user(),
            membership: restarts * 2.0 * (after - 1.0) * NEWS_BYTES / users as f64,
        }
    }

    /// Returns what XMPP took for one user in an hour: the same at any size.
    pub fn xmpp(&self) -> f64 {
        self.0.others.xmpp.bytes as f64 * self.per_user()
    }

    fn per_user(&self) -> f64 {
        3600.0 / self.0.scenario.measured.as_secs_f64() / self.0.scenario.users as f64
    }
}
