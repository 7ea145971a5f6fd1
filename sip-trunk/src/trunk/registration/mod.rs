//! The registration of a trunk (RFC 3261 10.2): asks, refreshes, tries again, and never gives up.

mod binding;
mod config;
mod keep;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use config::{Outbound, Registration, RegistrationError, RegistrationState, RegistrationStatus};
pub(crate) use keep::is_stun;

pub(crate) use self::binding::seconds;
use self::binding::{Binding, agreed_keep_alive};
use self::keep::{Flow, Keep, spread};
use super::numbers::raw_user;
use super::{Trunk, TrunkConfig};
use crate::auth::ClientAuth;
use crate::dialog::without_port;
use crate::endpoint::ConnectionId;
use crate::endpoint::api::{Event, Transmit};
use crate::endpoint::core::Core;
use crate::endpoint::io::{Path, Random, hex, transport_parameter, via};
use crate::text::unescape;
use crate::transaction::client::{ClientKey, NewRequest, Outcome, Owner, Upcall};
use crate::transaction::timer::{Alarm, Due, TimerQueue};
use crate::wire::message::{Method, Name, Response};
use crate::wire::write::Writer;

/// The first REGISTER of many trunks is spread over this.
const START_SPREAD_MS: u64 = 2000;
/// RFC 5626 4.5: base-time when all flows failed, and max-time.
const BACK_OFF_BASE: u64 = 30;
const BACK_OFF_MAX: u64 = 1800;
/// A flow that lived this long was a success; one that did not counts as a failure, or a registrar
/// that accepts and hangs up would be asked without end.
const STABLE: Duration = Duration::from_secs(120);
/// The longest that Retry-After is obeyed: what asks for more would be giving up.
const RETRY_AFTER_MAX: u32 = 3600;
/// While the name of the trunk leads nowhere, there is nobody to ask.
const NO_TARGET: Duration = Duration::from_secs(5);
/// How soon the next target is asked after one that failed.
const NEXT_TARGET_MS: (u64, u64) = (100, 1000);
/// How often one try is repeated, for whatever reason: challenges, intervals, extensions.
const REPEATS_MAX: u8 = 6;
/// The shortest time between two refreshes, however short a time is granted.
const REFRESH_MIN: Duration = Duration::from_secs(5);
/// The most that a registrar may raise the time to by 423: a week.
const EXPIRES_MAX: u32 = 7 * 86_400;
/// How often a flow is kept alive where that was agreed, but not how often (RFC 5626 4.4.2).
const KEEP_ALIVE: Duration = Duration::from_secs(29);
const KEEP_ALIVE_MIN: Duration = Duration::from_secs(5);

/// The registration machine of one trunk.
#[derive(Debug)]
pub(crate) struct Registrar {
    config: Registration,
    remote: SocketAddr,
    call_id: String,
    tag: String,
    cseq: u32,
    pub(super) auth: Option<ClientAuth>,
    /// Challenges the try under way has met.
    challenges: u8,
    repeats: u8,
    /// Seconds to ask for.
    expires: u32,
    /// Tries in a row that failed.
    failures: u32,
    /// Targets in a row that were left for another.
    moves: usize,
    /// Since when no try failed and no flow was lost.
    up_since: Option<Instant>,
    /// The REGISTER under way, and whether it asks for more than the end.
    pending: Option<(ClientKey, bool)>,
    /// We want to be registered.
    wanted: bool,
    binding: Option<Binding>,
    keep: Option<Keep>,
    /// When the next REGISTER is due.
    next: Option<Instant>,
    /// The registrar was not found to lack RFC 6140, RFC 5626.
    bulk: bool,
    outbound: bool,
    answered: bool,
    last_status: Option<u16>,
    /// What was last told of it.
    told: Option<(RegistrationState, Option<u16>)>,
    alarm: Alarm,
}

impl Registrar {
    pub(crate) fn new(trunk: &TrunkConfig) -> Option<Self> {
        let config = trunk.registration.clone()?;
        Some(Self {
            remote: config.registrar.unwrap_or(trunk.target),
            call_id: String::new(),
            tag: String::new(),
            cseq: 0,
            auth: trunk.credentials.clone().map(ClientAuth::new),
            challenges: 0,
            repeats: 0,
            expires: u32::try_from(config.expires.as_secs()).unwrap_or(EXPIRES_MAX),
            failures: 0,
            moves: 0,
            up_since: None,
            pending: None,
            wanted: true,
            binding: None,
            keep: None,
            next: None,
            bulk: config.bulk,
            outbound: config.outbound.is_some(),
            answered: false,
            last_status: None,
            told: None,
            alarm: Alarm::default(),
            config,
        })
    }

    pub(crate) fn state(&self) -> RegistrationState {
        match (&self.binding, self.wanted, self.answered) {
            (Some(_), ..) => RegistrationState::Registered,
            (None, false, _) => RegistrationState::Unregistered,
            (None, true, true) => RegistrationState::Failed,
            (None, true, false) => RegistrationState::Registering,
        }
    }

    pub(crate) fn status(&self) -> RegistrationStatus {
        let binding = self.binding.as_ref();
        RegistrationStatus {
            state: self.state(),
            registrar: self.remote,
            last_status: self.last_status,
            until: binding.map(|b| b.until),
            next: self.next,
            failures: if binding.is_some() && self.up_since.is_some() { 0 } else { self.failures },
            service_route: self.routes().to_vec(),
            path: binding.map(|b| b.through.clone()).unwrap_or_default(),
            associated: self.associated().to_vec(),
            bulk: binding.is_some_and(|b| b.bulk),
            outbound: binding.is_some_and(|b| b.outbound),
        }
    }

    pub(crate) fn config(&self) -> &Registration {
        &self.config
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The route set of requests outside dialogs (RFC 3608 5).
    pub(crate) fn routes(&self) -> &[String] {
        self.binding.as_ref().map(|b| b.routes.as_slice()).unwrap_or_default()
    }

    /// The identities of the account, the default one first.
    pub(crate) fn associated(&self) -> &[String] {
        self.binding.as_ref().map(|b| b.associated.as_slice()).unwrap_or_default()
    }

    /// The flow that is registered.
    pub(crate) fn flow(&self) -> Option<Path> {
        self.binding.as_ref().map(|b| b.path)
    }

    /// Says whether a request URI is the Contact of a single registration.
    pub(crate) fn is_contact(&self, uri: &str) -> bool {
        let Some(user) = raw_user(uri).filter(|_| !self.bulk) else { return false };
        let own = unescape(self.config.contact_user());
        // Proxies add parameters to the user part, and escape it as they like (RFC 3261 19.1.4).
        let bare = user.split(';').next().unwrap_or_default();
        own.is_some() && (unescape(user) == own || unescape(bare) == own)
    }

    /// Writes the URI of our Contact for a flow.
    fn contact_uri(&self, path: &Path) -> String {
        let transport = transport_parameter(path.transport);
        if self.bulk {
            // RFC 6140 5.2: no user part, which each of the numbers will take.
            return format!("sip:{}{transport};bnc", path.local);
        }
        format!("sip:{}@{}{transport}", self.config.contact_user(), path.local)
    }

    /// Writes the Contact of requests that begin dialogs, `;ob` (RFC 5626 4.3) where that was agreed.
    pub(crate) fn dialog_contact(&self, path: &Path) -> String {
        let uri = self.contact_uri(path);
        let outbound = self.binding.as_ref().is_some_and(|b| b.outbound);
        let uri = uri.strip_suffix(";bnc").unwrap_or(&uri);
        format!("<{uri}{}>", if outbound { ";ob" } else { "" })
    }

    /// Writes a REGISTER (RFC 3261 10.2) with the next CSeq.
    fn write(&mut self, path: &Path, branch: u64, common: &Bytes, cnonce: &str) -> Bytes {
        self.cseq = self.cseq.saturating_add(1);
        let uri = format!("sip:{}", self.config.domain);
        let identity = format!("<sip:{}@{}>", self.config.user, without_port(&self.config.domain));
        let mut out = Writer::request("REGISTER", &uri);
        // RFC 6223 4.2.1: we are willing to keep the flow alive.
        out.line("Via", &format!("{};keep", via(path, branch)));
        out.line("Max-Forwards", "70");
        out.line("From", &format!("{identity};tag={}", self.tag));
        out.line("To", &identity);
        out.line("Call-ID", &self.call_id);
        out.line("CSeq", &format!("{} REGISTER", self.cseq));
        let mut contact = format!("<{}>", self.contact_uri(path));
        if let Some(outbound) = self.config.outbound.as_ref().filter(|_| self.outbound) {
            let Outbound { instance, reg_id } = outbound;
            contact.push_str(&format!(";+sip.instance=\"<{instance}>\";reg-id={reg_id}"));
        }
        out.line("Contact", &contact);
        out.line("Expires", &if self.wanted { self.expires } else { 0 }.to_string());
        // RFC 3327 5.1, RFC 5626 4.2.1.
        out.line("Supported", if self.outbound { "path, outbound" } else { "path" });
        if self.bulk {
            // RFC 6140 5.2.
            out.line("Require", "gin").line("Proxy-Require", "gin");
        }
        out.lines(common);
        if let Some(auth) = &mut self.auth {
            for (name, value) in auth.headers("REGISTER", &uri, &[], cnonce) {
                out.line(name, &value);
            }
        }
        out.finish(None)
    }

    /// How long to wait after failures (RFC 5626 4.5): 50 to 100 % of a bound that doubles.
    fn back_off(&self, random: &mut Random) -> Duration {
        let bound = BACK_OFF_BASE.saturating_mul(1 << self.failures.min(16)).min(BACK_OFF_MAX);
        Duration::from_millis(random.between(bound * 500, bound * 1000))
    }

    /// The flow is gone or has changed: another try at once, unless it failed as soon as it was made.
    fn recover(&mut self, now: Instant, random: &mut Random) {
        let stable = self.was_stable(now);
        self.failures = if stable { 0 } else { self.failures.saturating_add(1) };
        let wait = if stable { Duration::ZERO } else { self.back_off(random) };
        self.next = self.wanted.then(|| now + wait);
    }

    /// Says whether the registration that just ended or failed had lasted.
    fn was_stable(&mut self, now: Instant) -> bool {
        self.up_since.take().is_some_and(|since| now.saturating_duration_since(since) >= STABLE)
    }

    fn arm(&mut self, timers: &mut TimerQueue, index: usize) {
        let next = self.next.filter(|_| self.pending.is_none());
        let (until, keep) = (self.binding.as_ref().map(|b| b.until), self.keep.as_ref().map(|k| k.next));
        let at = [next, until, keep].into_iter().flatten().min();
        self.alarm.set(timers, Due::Registration(index), at);
    }
}

/// Sets the first try, spread so that many trunks do not register at once.
pub(crate) fn start(core: &mut Core, index: usize) {
    let Some(registrar) = registrar(&mut core.trunks, index) else { return };
    let random = &mut core.io.random;
    (registrar.call_id, registrar.tag) = (random.hex(), hex(random.number()));
    registrar.next = Some(core.io.now + Duration::from_millis(random.between(0, START_SPREAD_MS)));
    registrar.arm(&mut core.io.timers, index);
}

/// A deadline surfaced.
pub(crate) fn on_timer(core: &mut Core, index: usize, at: Instant) {
    let Some(registrar) = registrar(&mut core.trunks, index) else { return };
    let now = core.io.now;
    if !registrar.alarm.surfaced(&mut core.io.timers, Due::Registration(index), at, now) {
        return;
    }
    if registrar.binding.as_ref().is_some_and(|b| b.until <= now) {
        unbind(core, index);
    }
    keep_alive(core, index);
    let Some(registrar) = self::registrar(&mut core.trunks, index) else { return };
    if registrar.pending.is_none() && registrar.next.is_some_and(|next| next <= now) {
        (registrar.challenges, registrar.repeats) = (0, 0);
        send(core, index);
    }
    settle(core, index);
}

/// The name of the trunk leads somewhere at last.
pub(crate) fn target_found(core: &mut Core, index: usize) {
    let Some(registrar) = registrar(&mut core.trunks, index) else { return };
    if registrar.pending.is_none() && !registrar.answered && registrar.next.is_some() {
        registrar.next =
            Some(core.io.now + Duration::from_millis(core.io.random.between(0, NEXT_TARGET_MS.1)));
        registrar.arm(&mut core.io.timers, index);
    }
}

/// Sends REGISTER: over the registered flow while it lives, else over a new one.
fn send(core: &mut Core, index: usize) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let (mut transport, local) = (trunk.config.transport, trunk.config.local);
    let transfers = trunk.config.transfers;
    let Some(registrar) = &mut trunk.registrar else { return };
    registrar.next = None;
    let mut flow = registrar.flow();
    if registrar.config.registrar.is_none() {
        // It follows the target that lives (RFC 3263 4.3).
        let Some(best) = trunk.targets.best(core.io.now, registrar.remote) else {
            registrar.next = Some(core.io.now + NO_TARGET);
            return;
        };
        (transport, registrar.remote) = best;
        flow = flow.filter(|path| path.remote == registrar.remote);
    }
    let flow = flow.or_else(|| core.io.path(transport, registrar.remote, local));
    let Some(path) = flow else {
        registrar.next = Some(core.io.now + Duration::from_secs(BACK_OFF_MAX));
        return;
    };
    let (branch, cnonce) = (core.io.random.number(), core.io.random.hex());
    let bytes = registrar.write(&path, branch, core.common.of(transfers), &cnonce);
    let (method, cseq, owner) = (Method::Register, registrar.cseq, Owner::Registration(index));
    let (trunk, in_dialog, patience) = (index, false, None);
    let wanted = registrar.wanted;
    let request = NewRequest { branch, method, cseq, bytes, path, owner, trunk, in_dialog, patience };
    let key = core.clients.start(&mut core.io, request);
    if let Some(registrar) = self::registrar(&mut core.trunks, index) {
        registrar.pending = Some((key, wanted));
    }
}

/// The REGISTER under way came to an end, or to a provisional response.
pub(crate) fn on_outcome(core: &mut Core, index: usize, upcall: Upcall) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let trusted = match &upcall.outcome {
        Outcome::Response(_, source) => trunk.owns(source.ip()),
        _ => false,
    };
    let Some(registrar) = &mut trunk.registrar else { return };
    // What is not the one under way was given up with its connection.
    let Some((_, wanted)) = registrar.pending.filter(|(key, _)| *key == upcall.key) else { return };
    match upcall.outcome {
        Outcome::Response(response, _) if response.status < 200 => return,
        Outcome::Response(response, _) => {
            registrar.pending = None;
            let again = registrar.repeats < REPEATS_MAX
                && match response.status {
                    401 | 407 => trusted && registrar.challenged(&response),
                    420 | 423 | 439 => registrar.adapt(&response),
                    _ => false,
                };
            if again {
                registrar.repeats += 1;
                send(core, index);
            } else if (200..300).contains(&response.status) {
                succeed(core, index, &response, upcall.path, wanted);
            } else {
                fail(core, index, Some(&response), wanted);
            }
        }
        Outcome::Timeout | Outcome::TransportError => {
            registrar.pending = None;
            fail(core, index, None, wanted);
        }
    }
    settle(core, index);
}

impl Registrar {
    /// Takes a challenge in (RFC 3261 22). Says whether to answer it.
    fn challenged(&mut self, response: &Response) -> bool {
        let Some(auth) = &mut self.auth else { return false };
        let www = response.head.texts(&Name::WwwAuthenticate);
        let proxy = response.head.texts(&Name::ProxyAuthenticate);
        let (www, proxy) = (www.iter().map(String::as_str), proxy.iter().map(String::as_str));
        let answered = auth.challenged(www, proxy, self.challenges).is_ok();
        self.challenges = self.challenges.saturating_add(1);
        answered
    }

    /// Asks in another way after 420, 423 and 439. Says whether there is one.
    fn adapt(&mut self, response: &Response) -> bool {
        match response.status {
            // RFC 3261 10.2.8.
            423 => {
                let least = response.head.text(&Name::MinExpires).and_then(|text| seconds(&text));
                let fitting = least.filter(|&least| least > self.expires && least <= EXPIRES_MAX);
                self.expires = fitting.unwrap_or(self.expires);
                fitting.is_some() && self.wanted
            }
            // RFC 6140 5.2: whoever does not know `gin` must not take it for something else.
            420 => {
                let named = response.head.has_token(&Name::Unsupported, "gin");
                let unnamed = response.head.text(&Name::Unsupported).is_none();
                (named || unnamed) && std::mem::take(&mut self.bulk)
            }
            // RFC 5626 6: First Hop Lacks Outbound Support.
            _ => std::mem::take(&mut self.outbound),
        }
    }
}

/// A 2xx came.
fn succeed(core: &mut Core, index: usize, response: &Response, path: Path, wanted: bool) {
    let Some(registrar) = registrar(&mut core.trunks, index) else { return };
    let (now, random) = (core.io.now, &mut core.io.random);
    registrar.last_status = Some(response.status);
    registrar.answered = true;
    registrar.moves = 0;
    if !wanted {
        registrar.failures = 0;
        registrar.next = registrar.wanted.then_some(now);
        return unbind(core, index);
    }
    let contact = registrar.contact_uri(&path);
    let asked = registrar.expires;
    let Some((mut binding, granted)) =
        Binding::of(&response.head, &registrar.config, &contact, asked, path, now)
    else {
        return fail(core, index, Some(response), wanted);
    };
    binding.bulk = registrar.bulk;
    let old = registrar.flow();
    registrar.up_since.get_or_insert(now);
    // Between 60 and 80 % of the time granted: several tries fit in the rest.
    let granted = u64::from(granted);
    let refresh = Duration::from_millis(random.between(granted * 600, granted * 800));
    registrar.next = Some(now + if registrar.wanted { refresh.max(REFRESH_MIN) } else { Duration::ZERO });
    registrar.binding = Some(binding);

    let (every, stun) = match agreed_keep_alive(&response.head) {
        Some(every) => (every.or(registrar.config.keep_alive).or(Some(KEEP_ALIVE)), true),
        None => (registrar.config.keep_alive, false),
    };
    let every = every.map(|every| every.max(KEEP_ALIVE_MIN));
    match path.connection {
        Some(connection) => {
            // RFC 5626 4.4.1: on a connection it is the double CRLF either way.
            let every = every.map(|every| spread(every, random));
            if !core.io.pool.keep(connection, true, every, &mut core.io.timers) {
                registrar.recover(now, random);
                return unbind(core, index);
            }
        }
        None => match (every, &mut registrar.keep) {
            (Some(every), Some(keep)) => keep.agree(every, stun),
            (Some(every), keep) => *keep = Some(Keep::new(every, stun, now, random)),
            (None, keep) => *keep = None,
        },
    }
    let old = old.and_then(|old| old.connection).filter(|&old| path.connection != Some(old));
    release(core, index, old);
}

/// The registrar refused, or did not answer: another try later.
fn fail(core: &mut Core, index: usize, response: Option<&Response>, wanted: bool) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let (Some(registrar), credentials) = (&mut trunk.registrar, &trunk.config.credentials) else { return };
    let (now, random) = (core.io.now, &mut core.io.random);
    let status = response.map(|r| r.status);
    registrar.last_status = status;
    registrar.answered = true;
    if !wanted {
        // It ends by itself.
        registrar.next = registrar.wanted.then_some(now);
        return unbind(core, index);
    }
    // RFC 3263 4.3: where another target is in better standing, it is asked first.
    let silent = status.is_none_or(|s| s == 408 || s == 503);
    let followed = registrar.config.registrar.is_none() && registrar.wanted && silent;
    let best = trunk.targets.best(now, registrar.remote).map(|(_, remote)| remote);
    if followed && registrar.moves + 1 < trunk.targets.len() && best != Some(registrar.remote) {
        registrar.moves += 1;
        let (from, to) = NEXT_TARGET_MS;
        registrar.next = Some(now + Duration::from_millis(random.between(from, to)));
        return;
    }
    registrar.moves = 0;
    let before = if registrar.was_stable(now) { 0 } else { registrar.failures };
    registrar.failures = before.saturating_add(1);
    if matches!(status, Some(401 | 407)) {
        // RFC 3261 22.2: refused credentials are not sent again before they are asked for.
        registrar.auth = credentials.clone().map(ClientAuth::new);
    }
    let wait = registrar.back_off(random);
    let asked = response.and_then(|r| r.head.text(&Name::RetryAfter)).and_then(|text| seconds(&text));
    let asked = asked.unwrap_or(0).min(RETRY_AFTER_MAX);
    // RFC 3261 20.33; somewhat later than the others who were told the same.
    let asked = Duration::from_millis(u64::from(asked) * random.between(1000, 1100));
    registrar.next = match registrar.wanted {
        true => Some(now + wait.max(asked)),
        false => registrar.binding.is_some().then_some(now),
    };
    // Who does not answer, or cannot just now, may well remember us until the time is over.
    let forgotten = status.is_some_and(|s| s != 408 && !(500..600).contains(&s));
    if forgotten {
        unbind(core, index);
    }
}

/// A connection that carried a registration is gone (RFC 5626 4.5).
pub(crate) fn on_connection_lost(core: &mut Core, connection: ConnectionId) {
    for index in 0..core.trunks.len() {
        let Some(registrar) = registrar(&mut core.trunks, index) else { continue };
        if registrar.flow().and_then(|path| path.connection) != Some(connection) {
            continue;
        }
        registrar.pending = None;
        registrar.recover(core.io.now, &mut core.io.random);
        registrar.last_status = None;
        unbind(core, index);
        settle(core, index);
    }
}

/// Forgets what is registered.
fn unbind(core: &mut Core, index: usize) {
    let Some(registrar) = registrar(&mut core.trunks, index) else { return };
    registrar.keep = None;
    if let Some(binding) = registrar.binding.take() {
        release(core, index, binding.path.connection);
    }
}

/// Lets a connection become idle that no registration needs any more.
fn release(core: &mut Core, index: usize, connection: Option<ConnectionId>) {
    let Some(connection) = connection else { return };
    let flow = |t: &Trunk| t.registrar.as_ref().and_then(Registrar::flow).and_then(|path| path.connection);
    let needed = core.trunks.iter().enumerate().any(|(i, t)| i != index && flow(t) == Some(connection));
    if !needed {
        core.io.pool.keep(connection, false, None, &mut core.io.timers);
    }
}

/// Sends what keeps a UDP flow alive, its time having come.
fn keep_alive(core: &mut Core, index: usize) {
    let Some(registrar) = registrar(&mut core.trunks, index) else { return };
    let (now, random) = (core.io.now, &mut core.io.random);
    let (Some(binding), Some(keep)) = (&registrar.binding, &mut registrar.keep) else { return };
    if keep.next > now {
        return;
    }
    let Path { local, remote, .. } = binding.path;
    let (bytes, flow) = keep.due(now, random);
    if let Some(bytes) = bytes {
        core.io.transmits.push_back(Transmit::Datagram { local, remote, bytes });
    }
    if flow == Flow::Lost {
        core.io.counters.refuse("dead_flow");
        registrar.recover(now, random);
    }
}

/// Takes in an answer to a keep-alive.
pub(crate) fn on_stun(core: &mut Core, local: SocketAddr, source: SocketAddr, bytes: &[u8]) {
    for index in 0..core.trunks.len() {
        let Some(registrar) = registrar(&mut core.trunks, index) else { continue };
        let (now, random) = (core.io.now, &mut core.io.random);
        let flow = registrar.flow().is_some_and(|path| (path.local, path.remote) == (local, source));
        let Some(keep) = registrar.keep.as_mut().filter(|_| flow) else { continue };
        let Some(flow) = keep.answer(bytes, now, random) else { continue };
        if flow == Flow::Lost {
            core.io.counters.refuse("moved_flow");
            registrar.recover(now, random);
        }
        return settle(core, index);
    }
    core.io.counters.refuse("stray_stun");
}

/// Registers or ends the registration, as the endpoint works or drains: a draining trunk stays
/// registered while it has calls, whose requests may come by way of the registration.
pub(crate) fn review(core: &mut Core, index: usize) {
    let now = core.io.now;
    let draining = core.draining;
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let wanted = !draining || trunk.calls > 0;
    let Some(registrar) = trunk.registrar.as_mut().filter(|r| r.wanted != wanted) else { return };
    registrar.wanted = wanted;
    registrar.failures = 0;
    // One under way is waited for; its outcome sets the next.
    registrar.next = (wanted || registrar.binding.is_some()).then_some(now);
    settle(core, index);
}

/// Tells the user what has changed, and sets the alarm.
fn settle(core: &mut Core, index: usize) {
    let Some(trunk) = core.trunks.get_mut(index) else { return };
    let usable = trunk.usable();
    let Some(registrar) = &mut trunk.registrar else { return };
    registrar.arm(&mut core.io.timers, index);
    let state = registrar.state();
    // A 2xx may have been the last answer before the time ran out.
    let refused = registrar.last_status.filter(|&s| s >= 300 && state == RegistrationState::Failed);
    let now_told = (state, refused);
    if state == RegistrationState::Registering || registrar.told == Some(now_told) {
        return;
    }
    registrar.told = Some(now_told);
    let detail = match now_told {
        (RegistrationState::Failed, Some(status)) => format!("registration refused: {status}"),
        (RegistrationState::Failed, None) => "registration lost or not answered".to_owned(),
        (state, _) => state.as_str().to_owned(),
    };
    core.events.push_back(Event::TrunkHealth { trunk: trunk.config.name.clone(), up: usable, detail });
}

fn registrar(trunks: &mut [Trunk], index: usize) -> Option<&mut Registrar> {
    trunks.get_mut(index)?.registrar.as_mut()
}
