//! Sends reports: PUBLISH outside of a dialog (RFC 3903 4, RFC 6035 3.2), each once.
//!
//! A report tells of the past, so none is worth a storm: what is refused or not answered is counted and gone, a
//! collector that does not answer is left alone for a while, and only so many are under way.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use call_model::CallId;

use super::session::Session;
use super::{CONTENT_TYPE, Collector, EVENT_PACKAGE, QualityReport};
use crate::auth::ClientAuth;
use crate::dialog::{Dialog, without_port};
use crate::endpoint::api::{CommandError, Event, Transport};
use crate::endpoint::core::{Core, Extra};
use crate::endpoint::io::{Path, hex};
use crate::transaction::client::{Outcome, Owner, Upcall};
use crate::transaction::timer::{Alarm, Due, TimerQueue};
use crate::trunk::registration::seconds;
use crate::trunk::resolve::{Families, Located, Service, draw};
use crate::trunk::{Trunk, TrunkConfig};
use crate::wire::message::{Method, Name, Response};

/// The most reports of one trunk that are under way.
const OPEN_MAX: usize = 64;
/// How long a report waits for DNS.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a collector that did not answer is left alone: doubled each time in a row.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(1800);

/// The reports of one trunk.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    open: BTreeMap<u64, Open>,
    serial: u64,
    /// What the collector asked last is answered from the next report on.
    auth: Option<ClientAuth>,
    quiet_until: Option<Instant>,
    /// Pauses in a row.
    pauses: u32,
    /// TCP was tried for a large report and failed.
    udp_only: bool,
    alarm: Alarm,
}

/// A report that is not over.
#[derive(Debug)]
struct Open {
    body: Bytes,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// DNS has not said yet where the collector is.
    Waits {
        until: Instant,
    },
    Sent {
        dialog: Box<Dialog>,
        challenges: u8,
    },
}

/// Where a report goes.
enum Way {
    Found(Path),
    Wait,
    Nowhere,
}

impl Reports {
    /// Takes another configuration: what was learnt of another collector, or with other credentials, goes.
    pub(crate) fn reconfigure(&mut self, before: &TrunkConfig, after: &TrunkConfig) {
        if before.quality_collector != after.quality_collector {
            (self.quiet_until, self.pauses, self.udp_only) = (None, 0, false);
        }
        if before.credentials != after.credentials || before.quality_collector != after.quality_collector {
            self.auth = None;
        }
    }

    fn arm(&mut self, timers: &mut TimerQueue, index: usize) {
        let until = |open: &Open| match open.stage {
            Stage::Waits { until } => Some(until),
            Stage::Sent { .. } => None,
        };
        let next = self.open.values().filter_map(until).min();
        self.alarm.set(timers, Due::Reports(index), next);
    }
}

/// Asks DNS where the collector of a trunk is, so that it is known when the first call ends.
pub(crate) fn start(core: &mut Core, index: usize) {
    if let Some(collector) = collector(core, index) {
        let _ = way(core, index, &collector);
    }
}

fn collector(core: &Core, index: usize) -> Option<Collector> {
    core.trunks.get(index)?.config.quality_collector.clone()
}

/// Tells the user of the endpoint what a report of a call says.
pub(crate) fn tell(core: &mut Core, call: CallId, session: &Session, report: &QualityReport) {
    let Some(trunk) = core.trunks.get(session.trunk) else { return };
    let name = trunk.config.name.clone();
    let report = session.clone().report(report.clone(), own_group(core, trunk), name.to_string());
    core.events.push_back(Event::QualityReport { call, trunk: name, report: Box::new(report) });
}

/// Sends a report of a call, or lets it wait for its way.
pub(crate) fn send(core: &mut Core, session: Session, report: QualityReport) -> Result<(), CommandError> {
    let (index, now) = (session.trunk, core.io.now);
    let trunk = core.trunks.get(index).ok_or(CommandError::UnknownTrunk)?;
    let collector = trunk.config.quality_collector.clone().ok_or(CommandError::NoCollector)?;
    // New calls need the room more.
    let full = trunk.reports.open.len() >= OPEN_MAX || core.clients.len() >= core.config.limits.transactions;
    if full || trunk.reports.quiet_until.is_some_and(|until| now < until) {
        core.io.counters.report(if full { "crowded_out" } else { "held_back" });
        return Ok(());
    }
    let name = trunk.config.name.to_string();
    let body = Bytes::from(session.report(report, own_group(core, trunk), name).write());
    match way(core, index, &collector) {
        Way::Found(path) => {
            let serial = add(core, index, body, Stage::Waits { until: now });
            publish(core, index, serial, &collector, path);
        }
        Way::Wait => {
            add(core, index, body, Stage::Waits { until: now + PATIENCE });
            arm(core, index);
        }
        Way::Nowhere => core.io.counters.report("unreachable"),
    }
    Ok(())
}

/// What reports of ours are gathered under: the name or the address that the trunk knows us by.
fn own_group(core: &Core, trunk: &Trunk) -> String {
    let listener = || trunk.config.local.or_else(|| core.config.listeners.first().map(|l| l.local));
    let domain = trunk.registrar.as_ref().map(|r| without_port(&r.config().domain).to_owned());
    let named = domain.or_else(|| trunk.config.contact_host.clone());
    named.or_else(|| listener().map(|at| at.ip().to_canonical().to_string())).unwrap_or_default()
}

fn add(core: &mut Core, index: usize, body: Bytes, stage: Stage) -> u64 {
    let Some(trunk) = core.trunks.get_mut(index) else { return 0 };
    trunk.reports.serial += 1;
    trunk.reports.open.insert(trunk.reports.serial, Open { body, stage });
    trunk.reports.serial
}

fn arm(core: &mut Core, index: usize) {
    if let Some(trunk) = core.trunks.get_mut(index) {
        trunk.reports.arm(&mut core.io.timers, index);
    }
}

/// Finds the way to the collector: that of the trunk's own requests where it is on the trunk's host, else the one
/// its URI names (RFC 3263 4).
fn way(core: &mut Core, index: usize, collector: &Collector) -> Way {
    let now = core.io.now;
    let Some(trunk) = core.trunks.get(index) else { return Way::Nowhere };
    let local = trunk.config.local;
    if with_trunk(trunk, collector) {
        // RFC 5626 4.3: by the flow that is registered.
        let best = || trunk.targets.best(now, trunk.config.target);
        let path = trunk.flow().filter(|flow| trunk.targets.is_good(flow.remote, now));
        let path = path.or_else(|| best().and_then(|(by, remote)| core.io.path(by, remote, local)));
        return path.map_or(Way::Nowhere, Way::Found);
    }
    let offered = offered(core);
    match core.resolver.locate(now, collector.destination(), &offered) {
        Located::Known { candidates, .. } => {
            let random = &mut core.io.random;
            let drawn = draw(&candidates, |c| (c.rank, c.weight, c.group), |limit| random.between(0, limit));
            let path = drawn.first().and_then(|c| core.io.path(Transport::of(c.service), c.address, local));
            path.map_or(Way::Nowhere, Way::Found)
        }
        Located::Pending { .. } => Way::Wait,
        Located::Nowhere { .. } | Located::Unavailable { .. } => Way::Nowhere,
    }
}

fn with_trunk(trunk: &Trunk, collector: &Collector) -> bool {
    trunk.account.is_none() && collector.is_at(&trunk.config)
}

/// The transports by which a collector that is no trunk may be reached. By TLS there would be no saying whose
/// certificate to expect.
fn offered(core: &Core) -> Vec<(Service, Families)> {
    let families = |wanted: Transport| {
        let listeners = || core.config.listeners.iter().filter(|l| l.transport == wanted);
        let v4 = listeners().any(|l| l.local.is_ipv4());
        Families { v4, v6: listeners().any(|l| l.local.is_ipv6()) }
    };
    let both = [(Service::Udp, families(Transport::Udp)), (Service::Tcp, families(Transport::Tcp))];
    both.into_iter().filter(|(_, families)| families.v4 || families.v6).collect()
}

/// Sends a report for the first time.
fn publish(core: &mut Core, index: usize, serial: u64, collector: &Collector, path: Path) {
    let (tag, call_id) = (core.io.random.number(), core.io.random.hex());
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let own = match &trunk.registrar {
        Some(registrar) => {
            let config = registrar.config();
            format!("{}@{}", config.user, without_port(&config.domain))
        }
        None => trunk.own_host(&path),
    };
    let routes = match &trunk.registrar {
        // RFC 3608 5.
        Some(registrar) if with_trunk(trunk, collector) => registrar.routes().to_vec(),
        _ => Vec::new(),
    };
    let dialog = Box::new(Dialog {
        trunk: index,
        established: false,
        udp_only: trunk.reports.udp_only,
        call_id,
        local: format!("<sip:{own}>;tag={}", hex(tag)),
        remote: collector.identity(),
        remote_tag: String::new(),
        cseq: 0,
        remote_cseq: None,
        target: collector.to_string(),
        routes,
        fallback: path,
    });
    if let Some(open) = trunk.reports.open.get_mut(&serial) {
        open.stage = Stage::Sent { dialog, challenges: 0 };
    }
    request(core, index, serial);
}

/// Sends a report, or sends it again with credentials.
fn request(core: &mut Core, index: usize, serial: u64) {
    let cnonce = core.io.random.hex();
    let Some(reports) = core.trunks.get_mut(index).map(|trunk| &mut trunk.reports) else { return };
    let Some(Open { body, stage: Stage::Sent { dialog, .. } }) = reports.open.get_mut(&serial) else {
        return;
    };
    dialog.cseq += 1;
    let mut lines = vec![("Event", EVENT_PACKAGE.to_owned())];
    let body = body.clone();
    if let Some(auth) = &mut reports.auth {
        let (uri, _) = dialog.uri_and_routes();
        lines.extend(auth.headers(Method::Publish.as_str(), uri, &body, &cnonce));
    }
    let (dialog, path) = (dialog.clone(), dialog.fallback);
    core.await_answers(path.remote.ip());
    let extra = Extra { lines, body: Some((CONTENT_TYPE, &body)), ..Extra::default() };
    core.request(&dialog, Method::Publish, path, Owner::Report(index, serial), &extra);
}

/// The transaction of a report came to an end, or to a provisional response.
pub(crate) fn on_outcome(core: &mut Core, index: usize, serial: u64, upcall: &Upcall) {
    if matches!(&upcall.outcome, Outcome::Response(response, _) if response.status < 200) {
        return;
    }
    core.awaits_no_more(upcall.path.remote.ip());
    let now = core.io.now;
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let again = match &upcall.outcome {
        Outcome::Response(response, source) => trunk.challenged(serial, response, *source, upcall),
        Outcome::TransportError => trunk.falls_back(serial, upcall),
        Outcome::Timeout => false,
    };
    if again {
        return request(core, index, serial);
    }
    let reports = &mut trunk.reports;
    reports.open.remove(&serial);
    let (label, pause) = match &upcall.outcome {
        Outcome::Response(response, _) => {
            let after = response.head.text(&Name::RetryAfter).and_then(|text| seconds(&text));
            let after = after.map(|s| Duration::from_secs(u64::from(s)).min(PAUSE_MAX));
            match response.status {
                ..300 => ("accepted", None),
                300..500 => ("refused", after),
                _ => ("refused", Some(after.unwrap_or_else(|| reports.next_pause()))),
            }
        }
        Outcome::Timeout | Outcome::TransportError => ("unanswered", Some(reports.next_pause())),
    };
    match pause {
        // Several that fail together are one failure.
        Some(pause) if reports.quiet_until.is_none_or(|until| until <= now) => {
            reports.quiet_until = Some(now + pause);
            reports.pauses = reports.pauses.saturating_add(1);
        }
        Some(_) => {}
        None => reports.pauses = 0,
    }
    core.io.counters.report(label);
}

impl Reports {
    fn next_pause(&self) -> Duration {
        PAUSE.saturating_mul(1 << self.pauses.min(8)).min(PAUSE_MAX)
    }
}

impl Trunk {
    /// Takes a challenge of a collector in (RFC 3261 22.2). Says whether to answer it: one that came from where the
    /// report went.
    fn challenged(&mut self, serial: u64, response: &Response, source: SocketAddr, upcall: &Upcall) -> bool {
        if !matches!(response.status, 401 | 407) || source.ip() != upcall.path.remote.ip() {
            return false;
        }
        let Some(credentials) = &self.config.credentials else { return false };
        let Some(Open { stage: Stage::Sent { challenges, .. }, .. }) = self.reports.open.get_mut(&serial)
        else {
            return false;
        };
        let auth = self.reports.auth.get_or_insert_with(|| ClientAuth::new(credentials.clone()));
        let www = response.head.texts(&Name::WwwAuthenticate);
        let proxy = response.head.texts(&Name::ProxyAuthenticate);
        let (www, proxy) = (www.iter().map(String::as_str), proxy.iter().map(String::as_str));
        let answered = auth.challenged(www, proxy, *challenges).is_ok();
        *challenges = challenges.saturating_add(1);
        if !answered {
            // Credentials that were refused are not shown again unasked.
            self.reports.auth = None;
        }
        answered
    }

    /// Says whether a report that was too large for UDP, and cannot go by TCP, goes by UDP after all
    /// (RFC 3261 18.1.1).
    fn falls_back(&mut self, serial: u64, upcall: &Upcall) -> bool {
        let reports = &mut self.reports;
        let Some(Open { stage: Stage::Sent { dialog, .. }, .. }) = reports.open.get_mut(&serial) else {
            return false;
        };
        let large = dialog.fallback.transport == Transport::Udp && upcall.path.transport == Transport::Tcp;
        let again = large && !dialog.udp_only;
        (dialog.udp_only, reports.udp_only) = (again || dialog.udp_only, again || reports.udp_only);
        again
    }
}

/// DNS has said something: sends what need not wait any more.
pub(crate) fn release(core: &mut Core) {
    (0..core.trunks.len()).for_each(|index| review(core, index));
}

/// A deadline surfaced.
pub(crate) fn on_timer(core: &mut Core, index: usize, at: Instant) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    if trunk.reports.alarm.surfaced(&mut core.io.timers, Due::Reports(index), at, core.io.now) {
        review(core, index);
    }
}

fn review(core: &mut Core, index: usize) {
    let now = core.io.now;
    let Some(trunk) = core.trunks.get(index) else { return };
    let waiting = trunk.reports.open.iter().filter_map(|(serial, open)| match open.stage {
        Stage::Waits { until } => Some((*serial, until)),
        Stage::Sent { .. } => None,
    });
    let waiting: Vec<_> = waiting.collect();
    for (serial, until) in waiting {
        // The configuration may have none any more.
        let collector = collector(core, index);
        match collector.as_ref().map_or(Way::Nowhere, |collector| way(core, index, collector)) {
            Way::Found(path) => {
                if let Some(collector) = &collector {
                    publish(core, index, serial, collector, path);
                }
            }
            Way::Wait if now < until => {}
            Way::Wait | Way::Nowhere => {
                if let Some(trunk) = core.trunks.get_mut(index) {
                    trunk.reports.open.remove(&serial);
                }
                core.io.counters.report("unreachable");
            }
        }
    }
    arm(core, index);
}

impl Core {
    /// Answers are heard from an address while one is due: it may be no trunk's.
    fn await_answers(&mut self, from: IpAddr) {
        *self.awaited.entry(from.to_canonical()).or_default() += 1;
    }

    fn awaits_no_more(&mut self, from: IpAddr) {
        let from = from.to_canonical();
        if let Some(count) = self.awaited.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(&from);
            }
        }
    }
}
