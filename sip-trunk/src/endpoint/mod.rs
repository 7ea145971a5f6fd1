//! The endpoint: all calls on all trunks, as one sans-IO machine.
//!
//! Feed it datagrams, stream events, commands and the time; then take transmits, events and the
//! next deadline until there are none.

mod access;
pub(crate) mod api;
mod capture;
pub(crate) mod config;
mod connection;
pub(crate) mod core;
mod counters;
mod guest;
mod held;
mod inbound;
pub(crate) mod io;
mod replaces;
mod report;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use call_model::{Address, CallId, Caller, TrunkName};

pub use access::{AccessList, AccessRule, Network, NetworkError};
pub use api::{
    Command, CommandError, ConnectionId, EndedBy, Event, LocalMedia, StreamEvent, Transmit, Transport,
};
pub use capture::Captured;
pub use config::{ConfigError, EndpointConfig, Limits, Listener, Timers, UnknownSource};
pub use counters::Counters;

use crate::dialog::call::{Call, refuse_fork};
use crate::dialog::uac;
use crate::quality::{self, EndedCalls, publish};
use crate::registrar::{self, AccountError, Accounts};
use crate::sdp::Srtp;
use crate::transaction::client::{Clients, Owner, Upcall};
use crate::transaction::server::Servers;
use crate::transaction::timer::Due;
use crate::trunk::details::CallDetails;
use crate::trunk::overload::{Controller, Waited};
use crate::trunk::resolve::{Failure, Query, Record, Resolver, ResolverLimits};
use crate::trunk::{Sources, Trunk, TrunkConfig, TrunkStatus, by_name, health, registration, targets};
use crate::wire::framer::Framed;
use crate::wire::tolerance::refusal_answer;

use self::connection::Opened;
use self::core::{CommonLines, Core};
use self::guest::UNKNOWN;
use self::io::Io;

/// SIP towards all trunks of a gateway.
#[derive(Debug)]
pub struct Endpoint {
    core: Core,
    calls: HashMap<u64, Box<Call>>,
    ids: HashMap<CallId, u64>,
    /// Calls whose far side may still be told of its transfer.
    reports: HashMap<CallId, u64>,
    /// Calls whose quality may still be reported.
    ended: EndedCalls,
    sources: Sources,
    started: Instant,
    unix_ms: u64,
}

impl Endpoint {
    /// Builds an endpoint. The seed must be unpredictable: tags and branches come from it.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(
        config: EndpointConfig,
        seed: [u8; 32],
        now: Instant,
        unix_ms: u64,
    ) -> Result<Self, ConfigError> {
        check(&config)?;
        let accounts = config.accounts.iter().cloned().map(Trunk::of_account);
        let trunks: Vec<_> = config.trunks.iter().cloned().map(Trunk::new).chain(accounts).collect();
        let sources = Sources::new(&trunks);
        let mut io = Io::new(&config, seed, now);
        let symmetric = |(index, trunk): (usize, &Trunk)| {
            trunk.account.as_ref().map(|account| (index, account.config().symmetric))
        };
        io.accounts = trunks.iter().enumerate().filter_map(symmetric).collect();
        let accounts = Accounts::new(&trunks, config.authentication, &mut io.random, now, unix_ms);
        let mut core = Core {
            io,
            accounts,
            clients: Clients::new(config.timers, config.limits),
            servers: Servers::new(config.timers, config.limits),
            trunks,
            events: VecDeque::new(),
            strays: Vec::new(),
            replaced: Vec::new(),
            draining: false,
            resolver: Resolver::new(ResolverLimits::default()),
            held: held::Held::default(),
            overload: Controller::new(now, unix_ms),
            sources_changed: false,
            common: CommonLines::new(&config.user_agent, !config.accounts.is_empty()),
            awaited: HashMap::new(),
            config,
        };
        for index in 0..core.trunks.len() {
            targets::resolve(&mut core, index);
            health::start(&mut core, index);
            registration::start(&mut core, index);
            publish::start(&mut core, index);
        }
        let (calls, ids, reports, ended) = Default::default();
        Ok(Self { core, calls, ids, reports, ended, sources, started: now, unix_ms })
    }

    /// Takes in one datagram that came to `local` from `remote`.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        self.core.io.now = now;
        self.receive_datagram(local, remote, bytes);
        self.settle();
    }

    /// Takes in what happened to a connection.
    pub fn handle_stream(&mut self, now: Instant, connection: ConnectionId, event: StreamEvent<'_>) {
        self.core.io.now = now;
        match event {
            StreamEvent::Opened { local, remote, inbound, transport, identity } => {
                let certified = identity.filter(|_| inbound);
                let certified = certified.and_then(|identity| self.sources.of_certificate(identity));
                let by_address =
                    || if inbound { self.sources.of_source(remote) } else { self.sources.trunk(remote) };
                let trunk = certified.or_else(by_address);
                // The access list is about who may come to us: where we went ourselves is our choice.
                let listener = self.core.io.listener(transport, local);
                if inbound && let Some(refusal) = self.refuses_connection(trunk, listener, remote, false) {
                    let known = identity.is_some() || self.sources.trunk(remote).is_some();
                    let refusal = if refusal == UNKNOWN && known { "certificate" } else { refusal };
                    self.core.io.counters.refuse(refusal);
                    self.core.io.transmits.push_back(Transmit::Close { connection });
                    return;
                }
                let tolerance = trunk.and_then(|index| self.core.trunks.get(index));
                let tolerance = tolerance.map(|t| t.config.tolerance).unwrap_or_default();
                let (trunk, certified) = (certified, identity.is_some());
                let opened = Opened { local, remote, inbound, transport, trunk, certified };
                let Io { pool, timers, transmits, .. } = &mut self.core.io;
                if !pool.opened(now, connection, opened, tolerance, timers, transmits) {
                    self.core.io.counters.refuse("connections");
                    self.core.io.transmits.push_back(Transmit::Close { connection });
                }
            }
            StreamEvent::Data(bytes) if self.is_web(connection) => self.receive_web(connection, bytes),
            StreamEvent::Data(bytes) => {
                self.core.io.pool.data(now, connection, bytes);
                self.drain_stream(connection);
            }
            StreamEvent::Closed | StreamEvent::ConnectFailed => self.forget_connection(connection),
        }
        self.settle();
    }

    /// Says whether a connection that came to `local` from `remote` is worth its handshake: it may turn
    /// out to be a trunk's, or of one that registers. Counts it as refused if not.
    #[must_use]
    pub fn admits(&mut self, local: SocketAddr, remote: SocketAddr, transport: Transport) -> bool {
        let by_certificate = transport.is_secure() && self.sources.knows_certificates();
        let listener = self.core.io.listener(transport, local);
        let trunk = self.sources.of_source(remote);
        let refusal = self.refuses_connection(trunk, listener, remote, by_certificate);
        if let Some(refusal) = refusal {
            self.core.io.counters.refuse(refusal);
        }
        refusal.is_none()
    }

    fn is_web(&self, connection: ConnectionId) -> bool {
        self.core.io.pool.addresses(connection).is_some_and(|(transport, ..)| transport.is_web())
    }

    /// Takes in a message of a WebSocket: a SIP message or a keep-alive (RFC 7118 4, 6).
    fn receive_web(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.core.io.pool.message(self.core.io.now, connection);
        if bytes == b"\r\n\r\n" {
            let bytes = Bytes::from_static(b"\r\n");
            self.core.io.transmits.push_back(Transmit::Stream { connection, bytes });
        } else {
            self.receive_stream_message(connection, bytes);
        }
    }

    fn drain_stream(&mut self, connection: ConnectionId) {
        let Some((_, _, remote)) = self.core.io.pool.addresses(connection) else { return };
        loop {
            match self.core.io.pool.poll(self.core.io.now, connection) {
                Ok(None) => return,
                // RFC 5626 4.4.1.
                Ok(Some(Framed::Ping)) => {
                    let bytes = Bytes::from_static(b"\r\n");
                    self.core.io.transmits.push_back(Transmit::Stream { connection, bytes });
                }
                Ok(Some(Framed::Pong)) => {}
                Ok(Some(Framed::Message(raw))) => {
                    self.receive_stream_message(connection, &raw);
                    self.settle();
                }
                Err((refusal, head)) => {
                    self.core.io.counters.refuse(refusal.as_str());
                    if let Some(status) = refusal.status()
                        && let Some(answer) = refusal_answer(
                            &head,
                            status,
                            crate::cause::reason_phrase(status),
                            "refused",
                            remote,
                        )
                    {
                        let bytes = Bytes::from(answer);
                        self.core.io.transmits.push_back(Transmit::Stream { connection, bytes });
                    }
                    self.core.io.transmits.push_back(Transmit::Close { connection });
                    self.forget_connection(connection);
                    return;
                }
            }
        }
    }

    fn forget_connection(&mut self, connection: ConnectionId) {
        if self.core.io.pool.closed(connection) {
            self.core.clients.on_connection_lost(connection);
        }
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// Why it could not be carried out; then nothing has changed and no event follows.
    pub fn handle_command(&mut self, now: Instant, command: Command) -> Result<(), CommandError> {
        self.core.io.now = now;
        let done = match command {
            Command::Invite { call, trunk, called, caller, media } => {
                self.invite(call, &trunk, &called, &caller, media, Arc::default())
            }
            Command::InviteWith { call, trunk, called, caller, media, details } => {
                self.invite(call, &trunk, &called, &caller, media, details)
            }
            Command::Ringing { call } => self.with(call, |call, core| call.ringing(core)),
            Command::Progress { call, media } => self.with(call, |call, core| call.progress(core, media)),
            Command::Answer { call, media } => self.with(call, |call, core| call.answer(core, media)),
            Command::Release { call, cause } => self.with(call, |call, core| {
                call.release(core, cause);
                Ok(())
            }),
            Command::Dtmf { call, digit, duration_ms } => {
                self.with(call, |call, core| call.send_digit(core, digit, duration_ms))
            }
            Command::Reject { call, status, cause } => self.with(call, |call, core| {
                call.reject(core, status, cause);
                Ok(())
            }),
            Command::Probe { call } => self.with(call, |call, core| call.probe(core)),
            Command::Hold { call, on } => self.with(call, |call, core| call.hold(core, on)),
            Command::TakeImages { call, on } => self.with(call, |call, _| call.take_images(on)),
            Command::OfferImage { call, attributes } => {
                self.with(call, |call, core| call.offer_image(core, attributes))
            }
            Command::AnswerImage { call, attributes } => {
                self.with(call, |call, core| call.answer_image(core, attributes))
            }
            Command::AcceptTransfer { call } => self.accept_transfer(call),
            Command::RefuseTransfer { call, status } => {
                self.with(call, |call, core| call.refuse_transfer(core, status))
            }
            Command::ReportTransfer { call, status } => self.report_transfer(call, status),
            Command::Transfer { call, to, referred_by } => self.transfer(call, &to, referred_by.as_ref()),
            Command::FollowRedirect { call, contact } => {
                self.with(call, |call, core| call.follow_redirect(core, contact))
            }
            Command::ReportQuality { call, report } => self.report_quality(call, *report),
            Command::Drain { on } => {
                self.core.draining = on;
                (0..self.core.trunks.len()).for_each(|index| registration::review(&mut self.core, index));
                Ok(())
            }
        };
        self.settle();
        done
    }

    /// Takes another configuration of a trunk. Calls go on; what they do next goes by the new one.
    ///
    /// # Errors
    /// `UnknownTrunk`, or `Unusable` where the trunk would be elsewhere (target, transport, listener,
    /// sources, registration): that takes another endpoint. Nothing has changed then.
    pub fn reconfigure_trunk(&mut self, now: Instant, config: TrunkConfig) -> Result<(), CommandError> {
        self.core.io.now = now;
        let index = by_name(&self.core.trunks, &config.name).ok_or(CommandError::UnknownTrunk)?;
        let trunk = self.core.trunks.get_mut(index).ok_or(CommandError::UnknownTrunk)?;
        let config = match &trunk.account {
            Some(account) => account.config().carry(config),
            None => config,
        };
        let usable = !config.codecs.is_empty() && !lacks_certificate(&config, &self.core.config);
        let listeners = &self.core.config.listeners;
        let collector = quality::check(&config, trunk.account.is_some(), self.core.config.dns, listeners);
        if !trunk.is_at(&config) || !usable || config.numbers.check().is_err() || collector.is_err() {
            return Err(CommandError::Unusable);
        }
        let asked = trunk.config.options_interval.is_some();
        trunk.reconfigure(config);
        if !asked {
            health::start(&mut self.core, index);
        }
        self.settle();
        Ok(())
    }

    /// Takes other emergency numbers; see [`EndpointConfig::emergency`].
    pub fn set_emergency(&mut self, numbers: Vec<String>) {
        self.core.config.emergency = numbers;
    }

    fn invite(
        &mut self,
        call: CallId,
        trunk: &TrunkName,
        called: &Address,
        caller: &Caller,
        media: LocalMedia,
        details: Arc<CallDetails>,
    ) -> Result<(), CommandError> {
        let plain = |dialled: &String| dialled.bytes().all(|b| b.is_ascii_digit() || b == b'*');
        if !details.emergency.as_ref().map(|emergency| &emergency.dialled).is_none_or(plain) {
            return Err(CommandError::Unusable);
        }
        let index = self.admit(call, trunk, details.emergency.is_some())?;
        if !uac::is_urgent(&self.core, called, &details) && !self.core.within_rate(index) {
            self.core.io.counters.refuse("call_rate");
            return Err(CommandError::TooFast);
        }
        let placed = uac::place(&mut self.core, call, index, (called, caller), media, details)?;
        self.insert(placed);
        Ok(())
    }

    /// An emergency call is stopped by nothing but the want of memory for it.
    fn admit(&self, call: CallId, trunk: &TrunkName, emergency: bool) -> Result<usize, CommandError> {
        if self.core.draining && !emergency {
            return Err(CommandError::Draining);
        }
        if self.ids.contains_key(&call) || self.reports.contains_key(&call) {
            return Err(CommandError::DuplicateCall);
        }
        let index = by_name(&self.core.trunks, trunk).ok_or(CommandError::UnknownTrunk)?;
        let account = self.core.trunks.get(index).and_then(|trunk| trunk.account.as_ref());
        if account.is_some_and(|account| !account.is_registered()) {
            return Err(CommandError::NotRegistered);
        }
        if !self.core.trunks.get(index).is_some_and(Trunk::registered_if_required) {
            return Err(CommandError::Unusable);
        }
        if !emergency && !self.has_channel(index)
            || self.calls.len() >= self.core.config.limits.calls.saturating_mul(2)
            || self.core.clients.len() >= self.core.config.limits.transactions
        {
            return Err(CommandError::NoChannel);
        }
        Ok(index)
    }

    fn has_channel(&self, trunk: usize) -> bool {
        let free = self.core.trunks.get(trunk).is_some_and(|t| t.calls < t.config.max_calls);
        free && self.has_room()
    }

    fn has_room(&self) -> bool {
        self.ids.len() < self.core.config.limits.calls
            // What lingers after calls is bounded too.
            && self.calls.len() < self.core.config.limits.calls.saturating_mul(2)
    }

    fn insert(&mut self, call: Call) {
        if let Some(trunk) = self.core.trunks.get_mut(call.trunk) {
            trunk.calls += 1;
        }
        self.ids.insert(call.id, call.key);
        self.calls.insert(call.key, Box::new(call));
    }

    fn with(
        &mut self,
        id: CallId,
        act: impl FnOnce(&mut Call, &mut Core) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let key = *self.ids.get(&id).ok_or(CommandError::UnknownCall)?;
        let call = self.calls.get_mut(&key).ok_or(CommandError::UnknownCall)?;
        let done = act(call, &mut self.core);
        self.review(key);
        done
    }

    /// Removes what has ended of a call.
    fn review(&mut self, key: u64) {
        let Some(call) = self.calls.get(&key) else { return };
        if call.ended && self.ids.remove(&call.id).is_some() {
            report::keep(&self.core, call, &mut self.ended);
        }
        if call.finished {
            self.reports.remove(&call.id);
            self.calls.remove(&key);
        }
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.io.now = now;
        while let Some((at, due)) = self.core.io.timers.pop(now) {
            match due {
                Due::Client(key) => self.core.clients.on_timer(&mut self.core.io, key, at),
                Due::Server(id) => self.core.servers.on_timer(&mut self.core.io, id, at),
                Due::Trunk(index) => health::on_timer(&mut self.core, index, at),
                Due::Targets(index) => targets::on_timer(&mut self.core, index, at),
                Due::Held => self.core.on_held_timer(at),
                Due::Registration(index) => registration::on_timer(&mut self.core, index, at),
                Due::Reports(index) => publish::on_timer(&mut self.core, index, at),
                Due::Account(index) => registrar::on_timer(&mut self.core, index, at),
                Due::Call(key) => {
                    if let Some(call) = self.calls.get_mut(&key) {
                        call.on_timer(&mut self.core, at);
                        self.review(key);
                    }
                }
                Due::Connection(id) => {
                    let Io { pool, timers, transmits, .. } = &mut self.core.io;
                    if pool.on_timer(now, id, at, timers, transmits) {
                        let connection = ConnectionId(id);
                        self.core.io.transmits.push_back(Transmit::Close { connection });
                        self.forget_connection(connection);
                    }
                }
            }
            self.settle();
        }
    }

    /// Hands the outcomes of client transactions to those they concern.
    fn settle(&mut self) {
        loop {
            while let Some(connection) = self.core.io.pool.take_lost() {
                registration::on_connection_lost(&mut self.core, connection);
                registrar::on_connection_lost(&mut self.core, connection);
            }
            let Some(upcall) = self.core.clients.upcalls.pop_front() else { break };
            // Whoever takes no reports may take calls.
            if !matches!(upcall.owner, Owner::Report(..)) {
                targets::observe(&mut self.core, &upcall);
            }
            match upcall.owner {
                Owner::Registration(index) => registration::on_outcome(&mut self.core, index, upcall),
                Owner::Trunk(index) => health::on_outcome(&mut self.core, index, &upcall),
                Owner::Contact(trunk, serial) => {
                    registrar::on_outcome(&mut self.core, trunk, serial, &upcall.outcome);
                }
                Owner::Report(trunk, serial) => {
                    publish::on_outcome(&mut self.core, trunk, serial, &upcall);
                }
                Owner::Call(key) => self.tell_call(key, upcall),
                Owner::Nobody => refuse_fork(&mut self.core, &upcall),
            }
            for stray in self.core.strays.drain(..) {
                self.calls.insert(stray.key, Box::new(stray));
            }
        }
        if std::mem::take(&mut self.core.sources_changed) {
            self.sources = Sources::new(&self.core.trunks);
        }
        self.end_replaced();
        if self.core.draining {
            // The last call of a trunk may just have ended.
            (0..self.core.trunks.len()).for_each(|index| registration::review(&mut self.core, index));
        }
    }

    fn tell_call(&mut self, key: u64, upcall: Upcall) {
        match self.calls.get_mut(&key) {
            Some(call) => {
                call.on_upcall(&mut self.core, upcall);
                self.review(key);
            }
            None => refuse_fork(&mut self.core, &upcall),
        }
    }

    /// Returns the next question to DNS. Each is to be answered by [`Self::handle_answer`], if only by
    /// a failure.
    #[must_use]
    pub fn poll_query(&mut self) -> Option<Query> {
        self.core.resolver.poll_query()
    }

    /// Takes in the answer to a question.
    pub fn handle_answer(&mut self, now: Instant, id: u64, answer: Result<Vec<Record>, Failure>) {
        self.core.io.now = now;
        if !self.core.resolver.handle_answer(now, id, answer) {
            self.core.io.counters.refuse("stray_dns_answer");
            return;
        }
        (0..self.core.trunks.len()).for_each(|index| targets::resolve(&mut self.core, index));
        self.core.release_held();
        publish::release(&mut self.core);
        self.settle();
    }

    /// Takes in for how long so many have waited until they were done together. New calls are refused, and peers asked
    /// to hold back, by that (RFC 7339): 10 ms are aimed at. Fewer than 100 a second are never too many.
    pub fn handle_load(&mut self, now: Instant, waited: Waited, count: u32, delay: Duration) {
        self.core.overload.load(now, waited, count, delay);
    }

    /// Returns the next thing to send.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        let mut transmit = self.core.io.transmits.pop_front()?;
        if let Transmit::Connect { remote, trunk, .. } = &mut transmit {
            let index = self.sources.trunk(*remote);
            *trunk = index.and_then(|i| self.core.trunks.get(i)).map(|t| t.config.name.clone());
        }
        self.capture(&transmit);
        Some(transmit)
    }

    /// Returns the next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] is to be called next, at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.core.io.timers.next()
    }

    /// Returns what an INVITE said of a call beside who calls whom, and who is connected since.
    /// For incoming calls from [`Event::Incoming`] until [`Event::Ended`].
    #[must_use]
    pub fn call_details(&self, call: CallId) -> Option<&CallDetails> {
        let key = self.ids.get(&call)?;
        self.calls.get(key).map(|call| &*call.details)
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut counters = self.core.io.counters.clone();
        counters.open_calls = self.ids.len();
        counters.held_calls = self.calls.len();
        counters.client_transactions = self.core.clients.len();
        counters.server_transactions = self.core.servers.len();
        counters.connections = self.core.io.pool.len();
        if self.core.resolver.refused() > 0 {
            counters.refused.insert("dns", self.core.resolver.refused());
        }
        counters.captures_dropped = self.core.io.captures.dropped;
        counters.banned_sources = self.core.accounts.bans(self.core.io.now);
        let accounts = self.core.trunks.iter().filter_map(|trunk| trunk.account.as_ref());
        counters.registered_contacts = accounts.map(registrar::Account::contacts).sum();
        counters
    }

    /// Returns every trunk as it is now.
    #[must_use]
    pub fn trunk_status(&self) -> Vec<TrunkStatus> {
        let status = |trunk: &Trunk| TrunkStatus {
            name: trunk.config.name.clone(),
            target: trunk.targets.iter().next().map_or(trunk.config.target, |t| t.address),
            targets: trunk.targets.status(self.core.io.now),
            state: trunk.state(),
            last_status: trunk.targets.iter().find_map(|t| t.last_status),
            calls: trunk.calls,
            registration: trunk.registrar.as_ref().map(registration::Registrar::status),
            account: trunk.account.as_ref().map(|account| account.status(self.core.io.now)),
        };
        self.core.trunks.iter().map(status).collect()
    }
}

fn check_accounts(config: &EndpointConfig) -> Result<(), ConfigError> {
    for (index, account) in config.accounts.iter().enumerate() {
        let trunk = account.trunk.name.to_string();
        let wrong = |error| Err(ConfigError::Account { trunk: trunk.clone(), error });
        let before = config.accounts.iter().take(index);
        let named = config.trunks.iter().chain(before.clone().map(|a| &a.trunk));
        if named.clone().any(|t| t.name == account.trunk.name) {
            return Err(ConfigError::DuplicateTrunk(trunk));
        }
        if let Err(error) = account.check() {
            return wrong(error);
        }
        let others = before.filter(|a| a.realm == account.realm);
        if others.clone().any(|a| a.user == account.user) {
            return wrong(AccountError::Duplicate);
        }
        let (md5, sha256) = others.fold(account.algorithms(), |(md5, sha256), other| {
            let (theirs_md5, theirs_sha256) = other.algorithms();
            (md5 && theirs_md5, sha256 && theirs_sha256)
        });
        if !md5 && !sha256 {
            return wrong(AccountError::Algorithms);
        }
        if account.trunk.codecs.is_empty() {
            return Err(ConfigError::NoCodec(trunk));
        }
        if let Err(detail) = quality::check(&account.trunk, true, config.dns, &config.listeners) {
            return Err(ConfigError::Collector { trunk, detail });
        }
        if lacks_certificate(&account.trunk, config) {
            return Err(ConfigError::NoMediaCertificate(trunk));
        }
        if let Err(error) = account.trunk.numbers.check() {
            return Err(ConfigError::Numbers { trunk, detail: error.to_string() });
        }
    }
    Ok(())
}

/// RFC 5763 5: who speaks DTLS has a certificate to name.
fn lacks_certificate(trunk: &TrunkConfig, config: &EndpointConfig) -> bool {
    trunk.srtp == Srtp::Dtls && config.media_fingerprint.is_none()
}

fn check(config: &EndpointConfig) -> Result<(), ConfigError> {
    check_accounts(config)?;
    if config.listeners.is_empty() {
        return Err(ConfigError::NoListener);
    }
    for listener in &config.listeners {
        if listener.local.ip().is_unspecified() || listener.local.port() == 0 {
            return Err(ConfigError::Wildcard(listener.local));
        }
    }
    for (index, trunk) in config.trunks.iter().enumerate() {
        let name = trunk.name.to_string();
        if trunk.transport.is_web() {
            return Err(ConfigError::WebTarget(name));
        }
        if config.trunks.iter().take(index).any(|t| t.name == trunk.name) {
            return Err(ConfigError::DuplicateTrunk(name));
        }
        if trunk.destination.is_some() && !config.dns {
            return Err(ConfigError::NoDns(name));
        }
        let named = trunk.destination.is_some();
        let fits = |l: &Listener| {
            l.transport == trunk.transport
                && (named || l.local.ip().is_ipv4() == trunk.target.ip().is_ipv4())
                && trunk.local.is_none_or(|local| local == l.local)
        };
        if !config.listeners.iter().any(fits) {
            return Err(ConfigError::NoListenerFor(name));
        }
        if trunk.codecs.is_empty() {
            return Err(ConfigError::NoCodec(name));
        }
        if let Err(detail) = quality::check(trunk, false, config.dns, &config.listeners) {
            return Err(ConfigError::Collector { trunk: name, detail });
        }
        if lacks_certificate(trunk, config) {
            return Err(ConfigError::NoMediaCertificate(name));
        }
        if let Some(registration) = &trunk.registration {
            let detail = |detail: String| ConfigError::Registration { trunk: name.clone(), detail };
            registration.check().map_err(|error| detail(error.to_string()))?;
            let same = |at: std::net::SocketAddr| named || at.ip().is_ipv4() == trunk.target.ip().is_ipv4();
            if !registration.registrar.is_none_or(same) {
                return Err(detail("registrar and target are of different address families".to_owned()));
            }
        }
        if let Err(error) = trunk.numbers.check() {
            return Err(ConfigError::Numbers { trunk: name, detail: error.to_string() });
        }
    }
    Ok(())
}
