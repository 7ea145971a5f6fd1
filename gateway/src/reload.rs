//! Reading the configuration again while calls are live.
//!
//! What can change does: routes, numbers, policy, emergency calls, limits of calls, of a trunk all
//! but where it is and how it registers, and the node's certificate and the revocation lists where
//! their files hold newer ones. The rest needs a restart, and is named. A file with a fault changes
//! nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use admin_api::{ReloadFailure, Reloaded};
use call_model::TrunkName;
use p2p_edge::identity::{Credential, NodeChain, SignedRevocations};
use p2p_edge::node::{NodeCommand, NodeHandle};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::config::{Config, Limits, Trunk};
use crate::driver::Request;
use crate::lifecycle::{Certificates, Identity};

/// How long reading the file may take, names of hosts in it included, and applying it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads the file of the daemon again.
#[derive(Debug)]
pub(crate) struct Reloader {
    file: PathBuf,
    /// The configuration in force. Held while another is applied: one at a time.
    current: Mutex<Config>,
    requests: mpsc::Sender<Request>,
    certificates: Certificates,
    /// The node, with what it was last given; `None` where there is none.
    node: Option<(NodeHandle, Mutex<Known>)>,
}

/// What the node was last given of its identity files.
#[derive(Debug)]
pub(crate) struct Known {
    chain: NodeChain,
    lists: Vec<SignedRevocations>,
}

impl Known {
    pub(crate) fn of(identity: &Identity) -> Self {
        Self { chain: identity.chain().clone(), lists: identity.revocations().lists().cloned().collect() }
    }
}

impl Reloader {
    pub(crate) fn new(
        config: Config,
        requests: mpsc::Sender<Request>,
        certificates: Certificates,
        node: Option<(NodeHandle, Known)>,
    ) -> Arc<Self> {
        let node = node.map(|(node, known)| (node, Mutex::new(known)));
        Arc::new(Self {
            file: config.file.clone(),
            current: Mutex::new(config),
            requests,
            certificates,
            node,
        })
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
        let certificates = self.certificates.clone();
        // Reading waits for the disk, and for the names of hosts.
        let read = tokio::task::spawn_blocking(move || {
            let config = Config::load(&file).map_err(|error| error.to_string())?;
            let identity = Identity::load(&config).map_err(|error| error.to_string())?;
            certificates.reload()?;
            Ok::<_, String>((config, Known::of(&identity)))
        });
        let (fresh, identity) =
            read.await.map_err(|_| ReloadFailure::Unavailable)?.map_err(ReloadFailure::Broken)?;
        let (merged, mut reloaded) = merge(&current, &fresh);
        self.renew(identity, &mut reloaded).await;
        let (reply, answer) = oneshot::channel();
        let request = Request::Reconfigure(Box::new(merged.clone()), reply);
        self.requests.send(request).await.map_err(|_| ReloadFailure::Unavailable)?;
        let refused = answer.await.map_err(|_| ReloadFailure::Unavailable)?;
        reloaded.restart.extend(refused.iter().map(|name| format!("trunks.{name}")));
        *current = merged;
        Ok(reloaded)
    }
}

impl Reloader {
    /// Gives the node a certificate and revocation lists that are new.
    async fn renew(&self, identity: Known, reloaded: &mut Reloaded) {
        let Some((node, known)) = &self.node else { return };
        let mut known = known.lock().await;
        if known.lists != identity.lists {
            for list in identity.lists.iter().filter(|list| !known.lists.contains(list)) {
                // A node that has stopped ends the daemon by itself.
                let _ = node.send(NodeCommand::Revocations(list.clone())).await;
            }
            known.lists = identity.lists;
            reloaded.applied.push("overlay.revocation_file".to_owned());
        }
        if known.chain == identity.chain {
            return;
        }
        match node.change_certificate(Credential::Node(identity.chain.clone())).await {
            Ok(()) => {
                known.chain = identity.chain;
                reloaded.applied.push("overlay.identity_file".to_owned());
            }
            Err(error) => {
                tracing::warn!("overlay.identity_file: {error}");
                reloaded.restart.push("overlay.identity_file".to_owned());
            }
        }
    }
}

/// Takes over of a fresh configuration what can change while the daemon runs, and says what
/// changed and what has to wait.
fn merge(current: &Config, fresh: &Config) -> (Config, Reloaded) {
    let mut merged = current.clone();
    let (mut applied, mut restart) = (Vec::new(), Vec::new());
    let same =
        |left: &dyn std::fmt::Debug, right: &dyn std::fmt::Debug| format!("{left:?}") == format!("{right:?}");
    let tokens = |config: &Config| config.admin.as_ref().map(|admin| admin.tokens.clone());
    for (key, differs) in [
        ("overlay", !same(&current.overlay, &fresh.overlay)),
        ("sip", !same(&current.sip, &fresh.sip)),
        ("dns", !same(&current.dns, &fresh.dns)),
        ("media", !same(&current.media, &fresh.media)),
        ("admin", !same(&current.admin, &fresh.admin) || tokens(current) != tokens(fresh)),
        ("log", !same(&current.log, &fresh.log)),
        ("telemetry", current.hep != fresh.hep),
        ("limits.drain_s", current.limits.drain != fresh.limits.drain),
        // The overlay is told once which numbers are served here.
        ("numbers (for callers in the overlay)", current.numbers != fresh.numbers),
    ] {
        if differs {
            restart.push(key.to_owned());
        }
    }
    let names =
        |config: &Config| config.trunks.iter().map(|t| t.name.clone()).collect::<BTreeSet<TrunkName>>();
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
    let limits = Limits {
        calls: fresh.limits.calls.min(current.limits.calls),
        drain: current.limits.drain,
        ..fresh.limits
    };
    for (key, differs) in [
        ("routes", !same(&current.routes, &routes)),
        ("numbers", current.numbers != fresh.numbers),
        ("policy", !same(&current.policy, &fresh.policy)),
        ("emergency", !same(&current.emergency, &emergency)),
        ("limits", !same(&current.limits, &limits)),
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
    merged.limits = limits;
    (merged, Reloaded { applied, restart })
}

/// Says whether a trunk is where it was and registers as it did.
fn is_at(current: &Trunk, wanted: &Trunk) -> bool {
    current.target == wanted.target
        && current.backups == wanted.backups
        && current.destination == wanted.destination
        && current.transport == wanted.transport
        && current.listener == wanted.listener
        && current.sources == wanted.sources
        && current.registration == wanted.registration
        && current.tls == wanted.tls
        && current.account == wanted.account
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;

    const FILE: &str = r#"
[overlay]
role = "gateway"
identity_file = "gateway.pem"
trust_file = "root.pem"
listen = ["/ip4/127.0.0.1/udp/4001/quic-v1"]

[sip]
listen = ["udp:127.0.0.1:5060"]

[[trunks]]
name = "pbx"
target = "udp:127.0.0.10"
max_calls = 10

[[routes]]
prefix = "+44"
trunks = ["pbx"]

[limits]
calls = 100
"#;

    fn merged(from: &str, to: &str) -> (Config, Vec<String>, Vec<String>) {
        let parse = |text: &str| Config::parse(Path::new("/etc/causeway/causeway.toml"), text).unwrap();
        assert!(from.is_empty() || FILE.contains(from));
        let (config, reloaded) = merge(&parse(FILE), &parse(&FILE.replacen(from, to, 1)));
        (config, reloaded.applied, reloaded.restart)
    }

    #[test]
    fn g05_what_can_change_is_told_from_what_needs_a_restart() {
        let none = Vec::<String>::new();
        let (_, applied, restart) = merged("", "");
        assert_eq!((applied, restart), (none.clone(), none.clone()), "the same file changes nothing");
        let (config, applied, restart) = merged("max_calls = 10", "max_calls = 3");
        assert_eq!((applied, restart), (vec!["trunks.pbx".to_owned()], none.clone()));
        assert_eq!(config.trunks[0].max_calls, 3);
        let (config, applied, restart) = merged("max_calls = 10", "max_calls = 10\nnat = true");
        assert_eq!((applied, restart), (vec!["trunks.pbx".to_owned()], none.clone()));
        assert!(config.trunks[0].nat);
        let (config, applied, restart) = merged("127.0.0.10", "127.0.0.11");
        assert_eq!((applied, restart), (none.clone(), vec!["trunks.pbx".to_owned()]));
        assert_eq!(config.trunks[0].target.ip().to_string(), "127.0.0.10", "a trunk is not half moved");
        let (config, applied, restart) = merged("calls = 100", "calls = 50");
        assert_eq!((config.limits.calls, applied, restart), (50, vec!["limits".to_owned()], none.clone()));
        let (config, applied, restart) = merged("calls = 100", "calls = 200");
        assert_eq!(
            (config.limits.calls, applied, restart),
            (100, none.clone(), vec!["limits.calls".to_owned()])
        );
        let (_, applied, restart) = merged("5060\"]", "5061\"]");
        assert_eq!((applied, restart), (none.clone(), vec!["sip".to_owned()]));
        let (_, applied, restart) = merged("[limits]", "[dns]\nservers = [\"127.0.0.53\"]\n\n[limits]");
        assert_eq!((applied, restart), (none.clone(), vec!["dns".to_owned()]));
        let (_, applied, restart) =
            merged("[limits]", "[telemetry.hep]\ncollector = \"127.0.0.60\"\n\n[limits]");
        assert_eq!((applied, restart), (none, vec!["telemetry".to_owned()]));
    }

    #[test]
    fn a_route_to_a_trunk_that_is_not_there_yet_waits_for_the_restart() {
        let second = "[[trunks]]\nname = \"new\"\ntarget = \"udp:127.0.0.12\"\n\n[[routes]]\nprefix = \"+1\"\ntrunks = [\"new\", \"pbx\"]\nfrom = [\"new\"]\n\n[[routes]]";
        let (config, applied, restart) = merged("[[routes]]", second);
        assert_eq!((applied, restart), (vec!["routes".to_owned()], vec!["trunks.new".to_owned()]));
        let route = config.routes.iter().find(|route| route.prefix == "1").unwrap();
        assert_eq!((route.trunks.len(), route.from.len()), (1, 0));
    }
}
