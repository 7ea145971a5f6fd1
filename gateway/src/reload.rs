//! Reading the configuration again while calls are live.
//!
//! What can change does: routes, numbers, policy, emergency calls, limits of calls, and of a trunk
//! all but where it is and how it registers. The rest needs a restart, and is named. A file with a
//! fault changes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use admin_api::{ReloadFailure, Reloaded};
use call_model::TrunkName;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::config::{Config, Trunk};
use crate::driver::Request;
use crate::lifecycle::Identity;

/// How long reading the file may take, names of hosts in it included, and applying it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the file of the daemon again.
#[derive(Debug)]
pub(crate) struct Reloader {
    file: PathBuf,
    /// The configuration in force. Held while another is applied: one at a time.
    current: Mutex<Config>,
    requests: mpsc::Sender<Request>,
}

impl Reloader {
    pub(crate) fn new(config: Config, requests: mpsc::Sender<Request>) -> Arc<Self> {
        Arc::new(Self { file: config.file.clone(), current: Mutex::new(config), requests })
    }

    /// Reads, checks and applies the file, and says in the log what came of it.
    pub(crate) async fn reload(&self) -> Result<Reloaded, ReloadFailure> {
        let outcome = tokio::time::timeout(PATIENCE, self.try_reload()).await;
        let outcome = outcome.unwrap_or(Err(ReloadFailure::Unavailable));
        match &outcome {
            Ok(Reloaded { applied, restart }) => {
                tracing::info!(applied = applied.join(", "), "the configuration was read again");
                if !restart.is_empty() {
                    tracing::warn!(keys = restart.join(", "), "what changed here needs a restart");
                }
            }
            Err(ReloadFailure::Broken(problem)) => {
                tracing::error!("{problem}; the configuration in force stays");
            }
            Err(ReloadFailure::Unavailable) => {
                tracing::error!("the configuration could not be read in time; the one in force stays");
            }
        }
        outcome
    }

    async fn try_reload(&self) -> Result<Reloaded, ReloadFailure> {
        let mut current = self.current.lock().await;
        let file = self.file.clone();
        // Reading waits for the disk, and for the names of hosts.
        let read = tokio::task::spawn_blocking(move || {
            let config = Config::load(&file).map_err(|error| error.to_string())?;
            Identity::load(&config).map_err(|error| error.to_string())?;
            Ok::<Config, String>(config)
        });
        let fresh = read.await.map_err(|_| ReloadFailure::Unavailable)?.map_err(ReloadFailure::Broken)?;
        let (merged, mut reloaded) = merge(&current, &fresh);
        let (reply, answer) = oneshot::channel();
        let request = Request::Reconfigure(Box::new(merged.clone()), reply);
        self.requests.send(request).await.map_err(|_| ReloadFailure::Unavailable)?;
        let refused = answer.await.map_err(|_| ReloadFailure::Unavailable)?;
        reloaded.restart.extend(refused.iter().map(|name| format!("trunks.{name}")));
        *current = merged;
        Ok(reloaded)
    }
}

/// Takes over of a fresh configuration what can change while the daemon runs, and says what
/// changed and what has to wait.
fn merge(current: &Config, fresh: &Config) -> (Config, Reloaded) {
    let mut merged = current.clone();
    let (mut applied, mut restart) = (Vec::new(), Vec::new());
    let same = |left: &dyn std::fmt::Debug, right: &dyn std::fmt::Debug| {
        format!("{left:?}") == format!("{right:?}")
    };
    for (key, differs) in [
        ("overlay", !same(&current.overlay, &fresh.overlay)),
        ("sip", !same(&current.sip, &fresh.sip)),
        ("media", !same(&current.media, &fresh.media)),
        ("admin", !same(&current.admin, &fresh.admin)),
        ("log", !same(&current.log, &fresh.log)),
        ("limits.drain_s", current.limits.drain != fresh.limits.drain),
        // The overlay is told once which numbers are served here.
        ("numbers (for callers in the overlay)", current.numbers != fresh.numbers),
    ] {
        if differs {
            restart.push(key.to_owned());
        }
    }
    let names = |config: &Config| config.trunks.iter().map(|t| t.name.clone()).collect::<BTreeSet<TrunkName>>();
    let (before, after) = (names(current), names(fresh));
    restart.extend(before.symmetric_difference(&after).map(|name| format!("trunks.{name}")));
    for trunk in &mut merged.trunks {
        let Some(wanted) = fresh.trunks.iter().find(|wanted| wanted.name == trunk.name) else { continue };
        let (taken, key) = (wanted.clone(), format!("trunks.{}", trunk.name));
        if !is_at(trunk, wanted) {
            restart.push(key);
        } else if !same(trunk, wanted) || trunk.credentials != wanted.credentials {
            *trunk = taken;
            applied.push(key);
        }
    }
    // A route to a trunk that is not there yet would lead nowhere; the trunks before it still do.
    let mut routes = fresh.routes.clone();
    for route in &mut routes {
        route.trunks.retain(|name| before.contains(name));
        route.from.retain(|name| before.contains(name));
    }
    routes.retain(|route| !route.trunks.is_empty());
    let mut emergency = fresh.emergency.clone();
    if emergency.trunk.as_ref().is_some_and(|trunk| !before.contains(trunk)) {
        emergency = current.emergency.clone();
        restart.push("emergency".to_owned());
    }
    for (key, differs) in [
        ("routes", !same(&current.routes, &routes)),
        ("numbers", current.numbers != fresh.numbers),
        ("policy", !same(&current.policy, &fresh.policy)),
        ("emergency", !same(&current.emergency, &emergency)),
        ("limits", !same(&current.limits, &fresh.limits)),
    ] {
        if differs {
            applied.push(key.to_owned());
        }
    }
    merged.routes = routes;
    merged.emergency = emergency;
    merged.numbers.clone_from(&fresh.numbers);
    merged.policy = fresh.policy.clone();
    // The endpoint and the ports were made for so many calls.
    if fresh.limits.calls > current.limits.calls {
        restart.push("limits.calls".to_owned());
    }
    merged.limits = crate::config::Limits {
        calls: fresh.limits.calls.min(current.limits.calls),
        drain: current.limits.drain,
        ..fresh.limits
    };
    (merged, Reloaded { applied, restart })
}

/// Says whether a trunk is where it was and registers as it did.
fn is_at(current: &Trunk, wanted: &Trunk) -> bool {
    current.target == wanted.target
        && current.transport == wanted.transport
        && current.listener == wanted.listener
        && current.sources == wanted.sources
        && current.registration == wanted.registration
}
