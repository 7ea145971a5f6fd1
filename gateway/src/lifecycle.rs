//! How the daemon starts and ends.
//!
//! Start: configuration, identity, then everything is bound, then it is ready. SIGTERM: no new
//! calls, live ones run on up to `limits.drain_s`, then they are ended with BYE and overlay `bye`.
//! SIGINT, SIGQUIT or a second SIGTERM: the same with no wait. SIGHUP: the configuration and the
//! files of TLS are read again, as `causeway reload` does.

mod certificates;
mod descriptors;
mod turn;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use admin_api::{AdminServer, Tokens};
use call_model::{Cause, Codec, Fingerprint};
use p2p_edge::identity::{
    IdentityError, MAX_PREFIXES, NodeBundle, NodeChain, Prefix, Price, RevocationList, Trust, VerifiedNode,
};
use p2p_edge::node::{
    BootstrapWays, Node, NodeConfig, NodeError, NodeHandle, NodeLimits, NodeRole, TurnConfig, TurnError,
};
use p2p_edge::record::GatewayOffer;
use sip_trunk::{
    AccessRule, AccountConfig, Endpoint, EndpointConfig, Listener, Replacing, Transfers, TrunkConfig,
};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use self::certificates::Certificates;
use self::descriptors::{raise_descriptor_limit, too_few_descriptors};
use crate::config::{Config, Role, Trunk};
use crate::control::GatewayControl;
use crate::driver::{Asker, LoopError, MediaEngine, Report, Request, Signalling, SipSockets};
pub use crate::driver::{MediaStartError, SipBindError, TlsFileError};
use crate::driver::{StreamSettings, TlsStore};
use crate::reload::{Known, Reloader};
use crate::switch::{Switch, SwitchConfig};
use crate::telemetry::{Exporter, Metrics};

/// Requests of the admin side that may wait.
const REQUESTS: usize = 256;
/// Reports of the media threads that may wait.
const MEDIA_REPORTS: usize = 8_192;
/// How long goodbyes may take to be sent and confirmed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often the figures of the overlay node are brought up to date.
const NODE_FIGURES: Duration = Duration::from_secs(1);

/// Why the daemon did not start. Each message names what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file of the identity could not be read.
    #[error("{key}: {file}: {problem}; {remedy}")]
    Identity {
        /// Key of the configuration.
        key: &'static str,
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The certificate is not for what the configuration says.
    #[error("overlay.role: {0}")]
    Role(String),
    /// The configuration promises what the certificate does not permit.
    #[error("{key}: {problem}; {remedy}")]
    NotCertified {
        /// Key of the configuration.
        key: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file of TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// A SIP listener could not be bound.
    #[error(transparent)]
    Sip(#[from] SipBindError),
    /// The SIP endpoint refuses its configuration.
    #[error("sip: {0}")]
    Endpoint(#[from] sip_trunk::ConfigError),
    /// The media threads could not be started.
    #[error(transparent)]
    Media(#[from] MediaStartError),
    /// The overlay node could not be started.
    #[error("overlay: {0}")]
    Overlay(#[from] NodeError),
    /// The admin listener could not be started.
    #[error(transparent)]
    Admin(#[from] admin_api::ServeError),
    /// The system gave no random numbers, threads or signals.
    #[error("system: {0}")]
    System(String),
}

impl StartError {
    /// Returns the exit status of `sysexits.h`: 78 for what the configuration can mend, 71 for
    /// what the system refused, 69 for an address that is taken.
    pub fn exit_status(&self) -> u8 {
        match self {
            StartError::Identity { .. }
            | StartError::NotCertified { .. }
            | StartError::Role(_)
            | StartError::Tls(_)
            | StartError::Endpoint(_) => 78,
            StartError::Sip(_) | StartError::Admin(_) => 69,
            StartError::Overlay(NodeError::Listen { .. } | NodeError::Turn(TurnError::Listen { .. })) => 69,
            StartError::Overlay(_) => 78,
            StartError::Media(MediaStartError::Address { .. }) => 78,
            StartError::Media(_) | StartError::System(_) => 71,
        }
    }
}

/// The files that say who this node is, read and checked.
#[derive(Debug)]
pub struct Identity {
    bundle: NodeBundle,
    trust: Trust,
    revocations: RevocationList,
}

impl Identity {
    /// Reads the identity, trust and revocation files of a configuration, and checks that the
    /// certificate is good now, fits the role and permits the offers and numbers.
    ///
    /// # Errors
    /// With the key, the file and the remedy.
    pub fn load(config: &Config) -> Result<Self, StartError> {
        let overlay = &config.overlay;
        let read = |key, file: &Path| {
            std::fs::read_to_string(file).map_err(|error| StartError::Identity {
                key,
                file: file.display().to_string(),
                problem: error.to_string(),
                remedy: "make it with `causeway authority`",
            })
        };
        let refused = |key, file: &Path, error: IdentityError| StartError::Identity {
            key,
            file: file.display().to_string(),
            problem: error.to_string(),
            remedy: "see `causeway authority --help`",
        };
        let trust_text = read("overlay.trust_file", &overlay.trust_file)?;
        let trust = Trust::from_pem(&trust_text);
        let trust = trust.map_err(|error| refused("overlay.trust_file", &overlay.trust_file, error))?;
        let unix = unix_ms() / 1000;
        let mut revocations = RevocationList::default();
        if let Some(file) = &overlay.revocation_file {
            let key = "overlay.revocation_file";
            let lists = RevocationList::from_pem(&read(key, file)?, &trust, unix);
            revocations = lists.map_err(|error| refused(key, file, error))?;
        }
        let (key, file) = ("overlay.identity_file", overlay.identity_file.as_path());
        let bundle = NodeBundle::from_pem(&read(key, file)?).map_err(|error| refused(key, file, error))?;
        let verified =
            bundle.chain.verify(&trust, &revocations, unix).map_err(|error| refused(key, file, error))?;
        if verified.peer_id != bundle.key.peer_id() {
            return Err(StartError::Identity {
                key,
                file: file.display().to_string(),
                problem: "the certificate is for another key".into(),
                remedy: "enrol this node again",
            });
        }
        let certified = verified.role.as_str();
        if overlay.role == Role::Gateway && certified != Role::Gateway.as_str() {
            let problem = format!("the certificate is for a {certified}; enrol this node as a gateway");
            return Err(StartError::Role(problem));
        }
        if overlay.role == Role::Gateway {
            check_promises(config, &verified)?;
        }
        Ok(Self { bundle, trust, revocations })
    }

    /// Returns the certificate of the node.
    pub(crate) fn chain(&self) -> &NodeChain {
        &self.bundle.chain
    }

    /// Returns what is revoked.
    pub(crate) fn revocations(&self) -> &RevocationList {
        &self.revocations
    }
}

/// Checks that the offers, their price and the numbers are within the certificate.
fn check_promises(config: &Config, certified: &VerifiedNode) -> Result<(), StartError> {
    let refuse = |key: String, problem: String, remedy| StartError::NotCertified { key, problem, remedy };
    let overlay = &config.overlay;
    let listed = |prefixes: &[Prefix]| {
        let texts: Vec<String> = prefixes.iter().map(Prefix::to_string).collect();
        if texts.is_empty() { "none".to_owned() } else { texts.join(", ") }
    };
    if overlay.offer.len() > MAX_PREFIXES {
        let problem = format!("{} prefixes, and an offer holds {MAX_PREFIXES}", overlay.offer.len());
        return Err(refuse("overlay.offer".into(), problem, "offer shorter prefixes, which cover more"));
    }
    for (index, prefix) in overlay.offer.iter().enumerate() {
        let permitted = prefix
            .parse::<Prefix>()
            .is_ok_and(|prefix| certified.prefixes.iter().any(|certified| certified.covers(&prefix)));
        if !permitted {
            let problem = format!(
                "+{prefix} is not certified; the certificate permits {}",
                listed(&certified.prefixes)
            );
            let remedy = "offer those, or have a certificate issued with --offer";
            return Err(refuse(format!("overlay.offer[{index}]"), problem, remedy));
        }
    }
    if let (Some(ceiling), false) = (certified.rate, overlay.offer.is_empty()) {
        if overlay.currency != ceiling.currency.to_string() {
            let problem = format!("the certificate permits a price in {} only", ceiling.currency);
            return Err(refuse("overlay.currency".into(), problem, "write that currency"));
        }
        if overlay.price_per_minute_micros > ceiling.micros_per_minute {
            let problem = format!("the certificate permits {} at most", ceiling.micros_per_minute);
            let remedy = "ask less, or have a certificate issued with --max-price";
            return Err(refuse("overlay.price_per_minute_micros".into(), problem, remedy));
        }
    }
    let mut numbers: Vec<_> = config.numbers.keys().collect();
    numbers.sort();
    for number in numbers {
        if !certified.number_prefixes.iter().any(|prefix| prefix.covers_number(number)) {
            let problem = format!(
                "the number is not certified; the certificate permits {}",
                listed(&certified.number_prefixes)
            );
            let remedy = "take it out, or have a certificate issued with --numbers";
            return Err(refuse(format!("numbers.{number}"), problem, remedy));
        }
    }
    Ok(())
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StartError::System(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

/// Runs the daemon until a signal ends it. Exit codes are those of `sysexits.h`: 0 after a signal,
/// 78 for a configuration that must be mended, 69 for an address that is taken, 71 for what the
/// system refused.
pub fn main(file: &Path) -> ExitCode {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("causewayd: {error}");
            return ExitCode::from(78);
        }
    };
    crate::telemetry::init_log(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("causewayd: system: {error}");
            return ExitCode::from(71);
        }
    };
    let ended = runtime.block_on(async {
        let daemon = Daemon::start(config).await?;
        tracing::info!(peer = daemon.peer_id(), admin = ?daemon.admin_address(), "started");
        daemon.run().await
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("causewayd: {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

/// The running daemon.
#[derive(Debug)]
pub struct Daemon {
    requests: mpsc::Sender<Request>,
    reloader: Arc<Reloader>,
    node: NodeHandle,
    signalling: oneshot::Receiver<Result<(), LoopError>>,
    figures: tokio::task::JoinHandle<()>,
    admin: Option<AdminServer>,
    online: watch::Receiver<bool>,
    drain: Duration,
}

impl Daemon {
    /// Binds and starts everything.
    ///
    /// # Errors
    /// The first thing that could not be had; nothing keeps running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let identity = Identity::load(&config)?;
        let descriptors = raise_descriptor_limit();
        if let Some(warning) = too_few_descriptors(&config, descriptors) {
            tracing::warn!("{warning}");
        }
        let (now, unix) = (Instant::now(), unix_ms());
        let listeners = config.sip.as_ref().map_or(&[][..], |sip| sip.listen.as_slice());
        let tls = Arc::new(TlsStore::load(&config)?);
        let streams = StreamSettings {
            own: Vec::new(),
            tls: Arc::clone(&tls),
            origins: config.sip.as_ref().map(|sip| sip.websocket_origins.clone()).unwrap_or_default(),
            dscp: config.sip.as_ref().map_or(0, |sip| sip.dscp),
        };
        let sockets = SipSockets::bind(listeners, streams.dscp).await?;
        let (reports, media_reports) = mpsc::channel::<Report>(MEDIA_REPORTS);
        let media = match config.overlay.role {
            Role::Gateway => {
                Some(MediaEngine::start(config.media.clone(), u64::from_be_bytes(random()?), &reports)?)
            }
            Role::Supernode => None,
        };
        let endpoint = match &config.sip {
            Some(_) => {
                let fingerprint = media.as_ref().map(MediaEngine::fingerprint);
                Some(Endpoint::new(endpoint_config(&config, fingerprint), random()?, now, unix)?)
            }
            None => None,
        };
        let counters = media.as_ref().map(MediaEngine::counters).unwrap_or_default();
        let mut metrics = Metrics::new(counters, &config.trunks);
        let hep = config.hep.as_ref().map(|hep| Exporter::start(hep, now, unix.saturating_mul(1_000)));
        let hep = hep.transpose().map_err(|error| StartError::System(format!("telemetry.hep: {error}")))?;
        hep.iter().for_each(|hep| metrics.watch_hep(hep.counters()));
        let metrics = Arc::new(metrics);
        let known = Known::of(&identity);
        let turn = turn::config(&config)?;
        let (node, node_events) = Node::spawn(node_config(&config, identity, turn)).await?;
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (online_sender, online) = watch::channel(false);
        let certificates = Certificates::new(tls, Arc::clone(&metrics));
        let reloader = Reloader::new(
            config.clone(),
            requests.clone(),
            certificates.clone(),
            Some((node.clone(), known)),
        );
        let admin = match &config.admin {
            None => None,
            Some(admin) => {
                let control = GatewayControl {
                    requests: requests.clone(),
                    reloader: Arc::clone(&reloader),
                    node: node.clone(),
                    metrics: Arc::clone(&metrics),
                    online: online.clone(),
                    started: now,
                    role: config.overlay.role,
                };
                Some(admin_api::serve(admin.listen, Tokens::new(admin.tokens.clone()), control)?)
            }
        };
        let drain = config.limits.drain;
        let switch_config = switch_config(&config);
        let figures = tokio::spawn(keep_figures(node.clone(), Arc::clone(&metrics), certificates));
        let (dns, dns_answers) = Asker::new(&config.dns);
        let signalling = Signalling {
            endpoint,
            dns,
            dns_answers,
            switch: Switch::new(switch_config, now, unix),
            media,
            node: node.clone(),
            node_events,
            media_reports,
            requests: inbox,
            sockets,
            streams,
            metrics,
            hep,
            online: online_sender,
            trunks: config.trunks,
            runtime: Handle::current(),
        };
        let signalling = signalling.spawn();
        let signalling =
            signalling.map_err(|error| StartError::System(format!("no thread for signalling: {error}")))?;
        Ok(Self { requests, reloader, node, signalling, figures, admin, online, drain })
    }

    /// Returns where the admin API listens, if it does.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(AdminServer::address)
    }

    /// Returns the node's id in the overlay.
    pub fn peer_id(&self) -> String {
        self.node.peer_id()
    }

    /// Waits until the node has joined the overlay.
    pub async fn online(&mut self) {
        // An error means that the loop has ended; whoever waits sees that by itself.
        let _ = self.online.wait_for(|online| *online).await;
    }

    /// Runs until a signal ends the daemon.
    ///
    /// # Errors
    /// When the signals cannot be had or the signalling loop ended by itself.
    pub async fn run(mut self) -> Result<(), StartError> {
        let mut signals = Signals::new(Arc::clone(&self.reloader))?;
        let patient = tokio::select! {
            wish = signals.next() => wish == Wish::Drain,
            ended = &mut self.signalling => return Err(ended_by_itself(&ended)),
        };
        let drain = self.drain;
        if patient && !drain.is_zero() {
            tracing::info!(seconds = drain.as_secs(), "finishing live calls");
            let (reply, drained) = oneshot::channel();
            let _ = self.requests.send(Request::Drain(reply)).await;
            tokio::select! {
                // A loop that has ended drops what it was asked: that is no answer.
                Ok(()) = drained => tracing::info!("no call is left"),
                () = tokio::time::sleep(drain) => tracing::warn!("calls are left at the end of the drain time"),
                _ = signals.next() => {}
                ended = &mut self.signalling => return Err(ended_by_itself(&ended)),
            }
        }
        self.stop().await;
        Ok(())
    }

    /// Ends every call with BYE and overlay `bye`, and stops.
    pub async fn stop(mut self) {
        self.figures.abort();
        let (reply, ended) = oneshot::channel();
        let cause = Cause::NORMAL_UNSPECIFIED;
        if self.requests.send(Request::HangUpAll(cause, reply)).await.is_ok() {
            let _ = tokio::time::timeout(LAST_WORDS, ended).await;
        }
        self.node.shutdown(LAST_WORDS).await;
        let _ = self.requests.send(Request::Stop).await;
        let _ = tokio::time::timeout(LAST_WORDS, &mut self.signalling).await;
        tracing::info!("stopped");
    }
}

fn ended_by_itself(ended: &Result<Result<(), LoopError>, oneshot::error::RecvError>) -> StartError {
    StartError::System(match ended {
        Ok(Ok(())) => "the signalling loop ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the signalling thread panicked; what it said is above".to_owned(),
    })
}

/// Carries the figures of the node into the metrics, which must not wait for it.
async fn keep_figures(node: NodeHandle, metrics: Arc<Metrics>, mut certificates: Certificates) {
    let mut tick = tokio::time::interval(NODE_FIGURES);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let status = node.status().await;
        metrics.overlay(&status);
        certificates.look_at(unix_ms() / 1000, status.certificate_ends);
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// To end when the live calls have.
    Drain,
    /// To end now.
    Stop,
}

/// The signals that the daemon heeds.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    hang_up: Signal,
    reloader: Arc<Reloader>,
}

impl Signals {
    fn new(reloader: Arc<Reloader>) -> Result<Self, StartError> {
        let heed = |kind| signal(kind).map_err(|error| StartError::System(format!("signals: {error}")));
        Ok(Self {
            terminate: heed(SignalKind::terminate())?,
            interrupt: heed(SignalKind::interrupt())?,
            quit: heed(SignalKind::quit())?,
            hang_up: heed(SignalKind::hangup())?,
            reloader,
        })
    }

    async fn next(&mut self) -> Wish {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Wish::Drain,
                _ = self.interrupt.recv() => return Wish::Stop,
                _ = self.quit.recv() => return Wish::Stop,
                _ = self.hang_up.recv() => self.read_again(),
            }
        }
    }

    /// SIGHUP. In a task of its own: the other signals are heeded meanwhile.
    fn read_again(&self) {
        let reloader = Arc::clone(&self.reloader);
        tokio::spawn(async move { drop(reloader.reload().await) });
    }
}

/// What the switch is told of a configuration.
pub(crate) fn switch_config(config: &Config) -> SwitchConfig {
    SwitchConfig {
        trunks: config.trunks.clone(),
        routes: config.routes.clone(),
        numbers: config.numbers.clone(),
        policy: config.policy.clone(),
        limits: config.limits,
        emergency: config.emergency.clone(),
        tell_quality: config.hep.as_ref().is_some_and(|hep| hep.quality),
    }
}

/// `fingerprint` is that of the certificate of the media engine, where there is one.
fn endpoint_config(config: &Config, fingerprint: Option<Fingerprint>) -> EndpointConfig {
    let sip = config.sip.as_ref();
    let listeners = sip.map_or(&[][..], |sip| sip.listen.as_slice()).iter();
    let (accounts, trunks): (Vec<_>, Vec<_>) = config.trunks.iter().partition(|t| t.account.is_some());
    let trunks = trunks.into_iter().map(trunk_config);
    let listeners = listeners.map(|&(transport, local)| Listener { transport, local }).collect();
    let mut endpoint = EndpointConfig::new(listeners, trunks.collect());
    if let Some(sip) = sip {
        endpoint.user_agent.clone_from(&sip.user_agent);
        endpoint.unknown_source = sip.unknown_source;
        endpoint.authentication = sip.authentication;
        endpoint.access = vec![AccessRule { listener: None, list: sip.access.clone() }];
    }
    endpoint.accounts = accounts.into_iter().filter_map(account_config).collect();
    // A call between two trunks is two to the endpoint, and one that changes hands is one more for a
    // while; the switch counts it as one.
    let transit = config.routes.iter().any(|route| !route.from.is_empty());
    let changes = |trunk: &TrunkConfig| {
        trunk.transfers == Transfers::Accept || matches!(trunk.replacing, Replacing::Accept | Replacing::Both)
    };
    let registered = endpoint.accounts.iter().map(|account| &account.trunk);
    let changes = endpoint.trunks.iter().chain(registered).any(changes);
    let legs = 1 + usize::from(transit) + usize::from(changes);
    endpoint.limits.calls = config.limits.calls.saturating_mul(legs);
    endpoint.emergency.clone_from(&config.emergency.numbers);
    endpoint.dns = true;
    endpoint.capture = config.hep.as_ref().is_some_and(|hep| hep.messages);
    endpoint.tell_quality = config.hep.as_ref().is_some_and(|hep| hep.quality);
    endpoint.media_fingerprint = fingerprint;
    endpoint
}

fn account_config(trunk: &Trunk) -> Option<AccountConfig> {
    let account = trunk.account.clone()?;
    let plain = AccountConfig::new(account.user, account.realm, account.secret, trunk.name.clone());
    Some(AccountConfig {
        trunk: trunk_config(trunk),
        transports: account.transports,
        max_contacts: account.max_contacts,
        replace_oldest: account.replace_oldest,
        min_expires: account.min_expires,
        max_expires: account.max_expires,
        symmetric: account.symmetric,
        keep_alive: account.keep_alive,
        many_users: account.many_users,
        ..plain
    })
}

/// What the SIP endpoint is told of a trunk.
pub(crate) fn trunk_config(trunk: &Trunk) -> TrunkConfig {
    let plain = match &trunk.destination {
        Some(name) => TrunkConfig::named(trunk.name.clone(), name.clone()),
        None => TrunkConfig::new(trunk.name.clone(), trunk.target),
    };
    let base = match &trunk.profile {
        Some(profile) => plain.with_profile(profile),
        None => plain,
    };
    let mut config = TrunkConfig {
        host: trunk.host.clone(),
        transport: trunk.transport,
        sources: trunk.sources.clone(),
        certificate_names: trunk.tls.as_ref().map(|tls| tls.names.clone()).unwrap_or_default(),
        allow_common_name: trunk.tls.as_ref().is_some_and(|tls| tls.allow_common_name),
        credentials: trunk.credentials.clone(),
        codecs: trunk.codecs.clone(),
        packet_time_ms: trunk.packet_time_ms,
        options_interval: trunk.options_interval,
        max_calls: trunk.max_calls,
        ring_timeout: trunk.ring_timeout,
        numbers: trunk.numbers.clone(),
        trusted: trunk.trusted,
        identity: trunk.identity,
        tolerance: trunk.tolerance,
        large_requests: trunk.large_requests,
        local: trunk.listener,
        contact_host: trunk.contact_host.clone(),
        backups: trunk.backups.clone(),
        target_timeout: trunk.target_timeout,
        failover_limit: trunk.failover_limit,
        max_call_rate: trunk.max_call_rate,
        overload_control: trunk.overload_control,
        registration: trunk.registration.clone(),
        retry_statuses: trunk.retry_statuses.clone(),
        reliable_provisional: trunk.reliable_provisional.unwrap_or(base.reliable_provisional),
        delayed_offer: trunk.delayed_offer,
        portability: trunk.portability.unwrap_or(base.portability),
        trunk_group: trunk.trunk_group.clone(),
        interconnect: trunk.interconnect.clone(),
        quality_collector: trunk.quality_reports.clone(),
        ..base
    };
    trunk.sessions.apply(&mut config);
    config
}

fn node_config(config: &Config, identity: Identity, turn: Option<TurnConfig>) -> NodeConfig {
    let overlay = &config.overlay;
    let chain: NodeChain = identity.bundle.chain;
    let role = match overlay.role {
        Role::Supernode => NodeRole::Supernode { chain },
        Role::Gateway => {
            let offers = offer(config).into_iter().collect();
            let mut numbers: Vec<_> =
                config.numbers.iter().map(|(number, handle)| (number.clone(), handle.clone())).collect();
            numbers.sort();
            NodeRole::Gateway { chain, offers, numbers }
        }
    };
    NodeConfig {
        revocations: identity.revocations,
        listen: overlay.listen.clone(),
        external: overlay.external.clone(),
        bootstrap: overlay.bootstrap.clone(),
        ways: BootstrapWays { dns_servers: config.dns.servers.clone(), ..overlay.join.clone() },
        limits: NodeLimits { calls: config.limits.calls.max(64), ..NodeLimits::default() },
        turn,
        ..NodeConfig::new(identity.bundle.key, identity.trust, role)
    }
}

/// What a gateway tells of its prefixes; `None` when it offers none. The node fills in load,
/// sequence and expiry whenever it is asked.
fn offer(config: &Config) -> Option<GatewayOffer> {
    let prefixes: Vec<_> = config.overlay.offer.iter().filter_map(|prefix| prefix.parse().ok()).collect();
    let currency = config.overlay.currency.parse().ok()?;
    let price = Price { micros_per_minute: config.overlay.price_per_minute_micros, currency };
    let capacity = u32::try_from(config.limits.calls).unwrap_or(u32::MAX);
    let offer = GatewayOffer {
        prefixes,
        price,
        codecs: vec![Codec::Opus],
        capacity,
        load: 0,
        sequence: 0,
        expires_unix: 0,
    };
    (!offer.prefixes.is_empty()).then_some(offer)
}

#[cfg(test)]
mod tests;
