//! The one thread that owns the SIP endpoint and the switch. Everything else talks to it by bounded
//! queues; between endpoint and switch there is none.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use admin_api::{CallFilter, CallList, CallView, LadderView, RouteTest, TrunkView, WhyView};
use call_model::{Address, CallId, Cause, Pii, TrunkName};
use p2p_edge::calling::{EndedBy, SessionEvent};
use p2p_edge::node::{NodeCommand, NodeEvent, NodeHandle, TrySendError};
use sip_trunk::{
    Command, CommandError, ConnectionId, Endpoint, Event, StreamEvent, Transmit, Transport, Waited,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tracing::field::display;

use super::batch::{BATCH, Inbox};
use super::media::{MediaEngine, Report};
use super::resolve::{Answer, Asker};
use super::streams::{ConnectFailure, StreamReport, StreamSettings, Streams};
use crate::config::Config;
use crate::control;
use crate::lifecycle::{switch_config, trunk_config};
use crate::switch::{Action, MediaEvent, Switch};
use crate::telemetry::{Deltas, Exporter, Metrics};

/// Batches of datagrams taken from a socket before everything else has its turn.
const BATCHES: usize = 8;
/// From one reading of the datagrams to the next, at least. What comes meanwhile is worked on together: at 1,000
/// calls/s a wake-up for every message costs as much as the messages. A timer of SIP is no shorter than 500 ms
/// (RFC 3261 17.1.1.1), and nobody hears two.
const TURN: Duration = Duration::from_millis(2);
/// Reports of media taken before everything else has its turn.
const REPORTS: usize = 64;
/// Longest SIP datagram taken.
const DATAGRAM: usize = 65_535;
/// Commands that may wait for the overlay node; more means that it is stuck, and new calls stop.
const OVERLAY_BACKLOG: usize = 8_192;

/// What the admin side asks of the loop.
#[derive(Debug)]
pub(crate) enum Request {
    Calls(CallFilter, oneshot::Sender<CallList>),
    Call(CallId, oneshot::Sender<Option<CallView>>),
    Why(CallId, oneshot::Sender<Option<WhyView>>),
    Ladder(CallId, oneshot::Sender<Option<LadderView>>),
    HangUp(CallId, oneshot::Sender<bool>),
    RouteTest(Address, Option<Address>, Option<TrunkName>, oneshot::Sender<RouteTest>),
    Trunks(oneshot::Sender<Vec<TrunkView>>),
    /// Takes another configuration; answered with the trunks that could not take theirs.
    Reconfigure(Box<Config>, oneshot::Sender<Vec<TrunkName>>),
    /// Live calls, and whether the daemon drains.
    Load(oneshot::Sender<(usize, bool)>),
    /// Takes no new calls; answered when the last live one is over.
    Drain(oneshot::Sender<()>),
    /// Ends every live call, then answers when the last goodbye is out.
    HangUpAll(Cause, oneshot::Sender<()>),
    Stop,
}

/// The SIP sockets, bound.
#[derive(Debug, Default)]
pub(crate) struct SipSockets {
    pub(crate) udp: Vec<(UdpSocket, SocketAddr)>,
    /// Of every transport with connections.
    pub(crate) tcp: Vec<(Transport, tokio::net::TcpListener)>,
}

/// A SIP listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("sip.listen: {transport}:{address} cannot be bound: {source}; is another daemon on it?")]
pub struct SipBindError {
    transport: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl SipSockets {
    /// Binds every listener, or none. What is sent is marked with the code point `dscp`.
    pub(crate) async fn bind(listeners: &[(Transport, SocketAddr)], dscp: u8) -> Result<Self, SipBindError> {
        let mut sockets = Self::default();
        for &(transport, address) in listeners {
            let wrap = |source| SipBindError { transport: transport.as_str(), address, source };
            match transport {
                Transport::Udp => {
                    let socket = UdpSocket::bind(address).await.map_err(wrap)?;
                    // A burst of INVITEs must find room while a batch is worked on.
                    let raw = socket2::SockRef::from(&socket);
                    let _ = raw.set_recv_buffer_size(4 << 20);
                    super::mark(&raw, address, dscp).map_err(wrap)?;
                    if let Err(error) = super::batch::stamp_arrivals(&socket) {
                        tracing::debug!(%error, "the kernel does not stamp datagrams");
                    }
                    sockets.udp.push((socket, address));
                }
                Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                    let listener = tokio::net::TcpListener::bind(address).await.map_err(wrap)?;
                    // What it accepts inherits the mark: the answer to the first packet has it too.
                    super::mark(&socket2::SockRef::from(&listener), address, dscp).map_err(wrap)?;
                    sockets.tcp.push((transport, listener));
                }
            }
        }
        Ok(sockets)
    }

    /// Has a runtime watch the UDP sockets, and no other.
    ///
    /// # Errors
    /// What the system says.
    fn watch_in(&mut self, runtime: &Runtime) -> io::Result<()> {
        let _entered = runtime.enter();
        for (socket, address) in std::mem::take(&mut self.udp) {
            self.udp.push((UdpSocket::from_std(socket.into_std()?)?, address));
        }
        Ok(())
    }

    /// Waits until one of the UDP sockets can be read.
    async fn readable(&self) {
        if self.udp.is_empty() {
            return std::future::pending().await;
        }
        poll_fn(|context| {
            let ready =
                self.udp.iter().filter(|(socket, _)| socket.poll_recv_ready(context).is_ready()).count();
            if ready > 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Why the loop ended without being asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoopError {
    /// The overlay node is gone: nobody can be called any more.
    #[error("the overlay node has ended by itself")]
    Node,
    /// No thread carries media any more.
    #[error("every media thread has died")]
    Media,
}

/// The signalling loop and all that it owns.
pub(crate) struct Signalling {
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) switch: Switch,
    pub(crate) media: Option<MediaEngine>,
    pub(crate) node: NodeHandle,
    pub(crate) node_events: mpsc::Receiver<NodeEvent>,
    pub(crate) media_reports: mpsc::Receiver<Report>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) sockets: SipSockets,
    /// What connections need; the addresses in it are filled in from the listeners.
    pub(crate) streams: StreamSettings,
    pub(crate) dns: Asker,
    pub(crate) dns_answers: mpsc::Receiver<Answer>,
    pub(crate) metrics: Arc<Metrics>,
    /// Where what passes is exported to.
    pub(crate) hep: Option<Exporter>,
    pub(crate) online: tokio::sync::watch::Sender<bool>,
    pub(crate) trunks: Vec<crate::config::Trunk>,
    /// Where connections, their handshakes and questions to name servers are worked on.
    pub(crate) runtime: Handle,
}

struct State {
    streams: Streams,
    /// Why the last connection to a trunk could not be had, until one can.
    unreachable: HashMap<TrunkName, ConnectFailure>,
    /// Connections to those that opened, but on which nothing has come yet.
    unproven: HashMap<ConnectionId, TrunkName>,
    overlay_backlog: VecDeque<NodeCommand>,
    overlay_dropped: u64,
    deltas: Deltas,
    drained: Vec<oneshot::Sender<()>>,
    ended: Vec<oneshot::Sender<()>>,
    /// The goodbyes are being said: that the node ends is in order.
    stopping: bool,
}

impl Signalling {
    /// Starts the thread. It runs until [`Request::Stop`] or until every sender of requests is gone,
    /// and then says why; if it says nothing, it panicked.
    ///
    /// A thread of its own is woken by its sockets and by nothing else in between, and waits for no
    /// handshake and no look-up; among the tasks of a runtime it went from thread to thread.
    ///
    /// # Errors
    /// What the system says when there is no thread to be had.
    pub(crate) fn spawn(mut self) -> io::Result<oneshot::Receiver<Result<(), LoopError>>> {
        let (end, ended) = oneshot::channel();
        let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.sockets.watch_in(&own)?;
        std::thread::Builder::new().name("signalling".to_owned()).spawn(move || {
            // Whoever does not listen has gone away already.
            let _ = end.send(own.block_on(self.run()));
        })?;
        Ok(ended)
    }

    /// # Errors
    /// When what it cannot do without has ended by itself. The trunks have been told goodbye then.
    async fn run(mut self) -> Result<(), LoopError> {
        let own = self.sockets.tcp.iter().filter_map(|(_, listener)| listener.local_addr().ok());
        self.streams.own.extend(own.map(|own| own.ip()));
        let (streams, mut stream_reports) = {
            let _elsewhere = self.runtime.enter();
            Streams::new(self.streams.clone())
        };
        let accepting: Vec<_> = std::mem::take(&mut self.sockets.tcp)
            .into_iter()
            .map(|(transport, listener)| streams.listen(transport, listener))
            .collect();
        let mut state = State {
            streams,
            unreachable: HashMap::new(),
            unproven: HashMap::new(),
            overlay_backlog: VecDeque::new(),
            overlay_dropped: 0,
            deltas: Deltas::default(),
            drained: Vec::new(),
            ended: Vec::new(),
            stopping: false,
        };
        let mut inbox = Inbox::new(DATAGRAM, Instant::now());
        let mut second = tokio::time::interval(Duration::from_secs(1));
        let (mut node_gone, mut read) = (false, None::<Instant>);
        let ended = loop {
            self.settle(&mut state);
            if let Some(read) = read.take() {
                // The thread has nothing else to do: what else comes waits in a queue.
                std::thread::sleep(TURN.saturating_sub(read.elapsed()));
            }
            let deadline =
                [self.endpoint.as_ref().and_then(Endpoint::poll_timeout), self.switch.poll_timeout()];
            let deadline = deadline.into_iter().flatten().min();
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let head = state.overlay_backlog.front().cloned();
            let backlog = async {
                match head {
                    Some(command) => self.node.send(command).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                request = self.requests.recv() => match request {
                    None | Some(Request::Stop) => break Ok(()),
                    Some(request) => self.answer(request, &mut state),
                },
                sent = backlog => {
                    let sent_or_lost = state.overlay_backlog.pop_front();
                    if sent.is_err() {
                        let waiting = std::mem::take(&mut state.overlay_backlog);
                        for lost in sent_or_lost.iter().chain(&waiting) {
                            self.node_is_gone(lost);
                        }
                    }
                }
                Some(report) = self.media_reports.recv() => {
                    self.take_report(report);
                    for _ in 0..REPORTS {
                        let Ok(report) = self.media_reports.try_recv() else { break };
                        self.take_report(report);
                    }
                }
                event = self.node_events.recv(), if !node_gone => match event {
                    Some(event) => self.take_node_event(event),
                    None if state.stopping => node_gone = true,
                    None => break Err(LoopError::Node),
                },
                () = self.sockets.readable() => {
                    read = Some(Instant::now());
                    self.read_udp(&mut inbox);
                }
                Some(report) = stream_reports.recv() => self.take_stream(report, &mut state),
                Some(Answer { id, answer }) = self.dns_answers.recv() => {
                    if let Some(endpoint) = &mut self.endpoint {
                        endpoint.handle_answer(Instant::now(), id, answer);
                    }
                }
                () = sleep => {
                    let now = Instant::now();
                    if let Some(endpoint) = &mut self.endpoint {
                        // How late a timer is served is how long everything waits here.
                        let late = deadline.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                        endpoint.handle_load(now, Waited::Timer, 1, late);
                        endpoint.handle_timeout(now);
                    }
                    self.switch.handle_timeout(now);
                }
                _ = second.tick() => {
                    if !self.look_after_media() {
                        break Err(LoopError::Media);
                    }
                    self.publish(&mut state);
                }
            }
        };
        if let Err(error) = &ended {
            tracing::error!(calls = self.switch.live(), "{error}: ending every call");
            self.switch.hang_up_all(Instant::now(), Cause::NETWORK_OUT_OF_ORDER);
            self.settle(&mut state);
        }
        for task in accepting {
            task.abort();
        }
        ended
    }

    /// Ends the calls of media threads that died. Returns false when no thread is left.
    fn look_after_media(&mut self) -> bool {
        let Some(media) = &mut self.media else { return true };
        let lost = media.look_after();
        let left = media.has_threads();
        for call in lost {
            let detail = "the thread that carried the media died".to_owned();
            self.switch.handle_media(Instant::now(), MediaEvent::OverlayFailed { call, detail });
        }
        left
    }

    /// Passes events and actions on until nothing moves, then sends what there is to send.
    fn settle(&mut self, state: &mut State) {
        let now = Instant::now();
        loop {
            let mut moved = false;
            while let Some(event) = self.endpoint.as_mut().and_then(Endpoint::poll_event) {
                moved = true;
                if let Event::TrunkHealth { trunk, up, detail } = &event {
                    self.metrics.trunk(trunk, *up);
                    tracing::info!(%trunk, up, detail, "trunk health changed");
                }
                if let Event::TargetHealth { trunk, target, state, detail } = &event {
                    let (target, state) = (Pii(target), state.as_str());
                    tracing::info!(%trunk, %target, state, detail, "target of a trunk changed");
                }
                if let (Event::QualityReport { report, .. }, Some(hep)) = (&event, &self.hep) {
                    hep.quality(now, report.clone());
                }
                self.switch.handle_sip(now, event);
            }
            while let Some(action) = self.switch.poll_action() {
                moved = true;
                self.perform(now, action, state);
            }
            while let Some(query) = self.endpoint.as_mut().and_then(Endpoint::poll_query) {
                self.dns.ask(query);
            }
            while let Some(transmit) = self.endpoint.as_mut().and_then(Endpoint::poll_transmit) {
                self.transmit(now, transmit, &mut state.streams);
            }
            if let (Some(endpoint), Some(hep)) = (&mut self.endpoint, &self.hep) {
                std::iter::from_fn(|| endpoint.poll_capture()).for_each(|captured| hep.message(captured));
            }
            if !moved {
                break;
            }
        }
        if self.switch.live() == 0 {
            for waiting in state.drained.drain(..).chain(state.ended.drain(..)) {
                let _ = waiting.send(());
            }
        }
    }

    fn perform(&mut self, now: Instant, action: Action, state: &mut State) {
        match action {
            Action::Sip(command) => self.command_endpoint(now, command),
            Action::Overlay(command) => self.command_node(command, state),
            Action::Media(command) => {
                if let Some(event) = self.media.as_mut().and_then(|media| media.handle(now, command)) {
                    self.switch.handle_media(now, event);
                }
            }
            Action::Started { call, direction } => {
                self.metrics.started(direction);
                tracing::debug!(%call, direction = direction.as_str(), "call began");
            }
            Action::Ended { call, direction, outcome, cause, trunk, setup, duration } => {
                self.metrics.ended(direction, outcome, cause, trunk.as_ref(), setup, duration);
                let record = self.switch.record(call);
                let from = record.and_then(|record| record.from.address.as_ref()).map(Pii).map(display);
                let to = record.map(|record| Pii(&record.to)).map(display);
                let (direction, outcome) = (direction.as_str(), outcome.as_str());
                let setup_ms = setup.map(|setup| setup.as_millis() as u64);
                let seconds = duration.map(|duration| duration.as_secs());
                let cause = cause.value();
                tracing::info!(%call, direction, from, to, outcome, cause, setup_ms, seconds, "call");
            }
        }
    }

    fn command_endpoint(&mut self, now: Instant, command: Command) {
        let Some(endpoint) = &mut self.endpoint else { return };
        let inviting = match &command {
            Command::Invite { call, .. } | Command::InviteWith { call, .. } => Some(*call),
            _ => None,
        };
        let Err(error) = endpoint.handle_command(now, command) else { return };
        // A command for a call that the far side has just ended is no fault.
        tracing::debug!(%error, "SIP command refused");
        if let Some(call) = inviting {
            let cause = match error {
                CommandError::NoChannel => Cause::NO_CIRCUIT_AVAILABLE,
                CommandError::NotRegistered => Cause::SUBSCRIBER_ABSENT,
                CommandError::Draining | CommandError::TooFast | CommandError::Overloaded => {
                    Cause::SWITCHING_EQUIPMENT_CONGESTION
                }
                _ => Cause::TEMPORARY_FAILURE,
            };
            let (text, by) = (error.to_string(), sip_trunk::EndedBy::Local);
            self.switch.handle_sip(now, Event::Ended { call, cause, status: None, text, by });
        }
    }

    fn command_node(&mut self, command: NodeCommand, state: &mut State) {
        if state.overlay_backlog.is_empty() {
            match self.node.try_send(command.clone()) {
                Ok(()) => return,
                Err(TrySendError::Full) => {}
                Err(TrySendError::Closed) => return self.node_is_gone(&command),
            }
        }
        if state.overlay_backlog.len() < OVERLAY_BACKLOG {
            state.overlay_backlog.push_back(command);
        } else {
            state.overlay_dropped += 1;
            self.node_is_gone(&command);
        }
    }

    /// The leg that a lost command was for is over.
    fn node_is_gone(&mut self, command: &NodeCommand) {
        let call = match command {
            NodeCommand::Invite { call, .. } | NodeCommand::Call { call, .. } => *call,
            NodeCommand::Revocations(_) | NodeCommand::Presence(_) => return,
        };
        let (cause, by) = (Cause::NETWORK_OUT_OF_ORDER, EndedBy::Lost);
        let event =
            SessionEvent::Ended { cause, sip_status: None, text: "the overlay node is gone".into(), by };
        self.switch.handle_overlay(Instant::now(), NodeEvent::Call { call, event });
    }

    fn transmit(&mut self, now: Instant, transmit: Transmit, streams: &mut Streams) {
        match transmit {
            Transmit::Datagram { local, remote, bytes } => {
                let socket = self.sockets.udp.iter().find(|(_, address)| *address == local);
                // A full buffer loses the datagram, as the network may; the transaction repeats it.
                if let Some((socket, _)) = socket
                    && let Err(error) = socket.try_send_to(&bytes, remote)
                {
                    tracing::debug!(%error, remote = %Pii(remote), "SIP datagram not sent");
                }
            }
            Transmit::Connect { connection, transport, remote, trunk } => {
                streams.connect(connection, transport, remote, trunk);
            }
            Transmit::Stream { connection, bytes } => {
                if !streams.send(connection, bytes)
                    && let Some(endpoint) = &mut self.endpoint
                {
                    // What waits for an answer there is told now, not when its timers run out.
                    endpoint.handle_stream(now, connection, StreamEvent::Closed);
                }
            }
            Transmit::Close { connection } => streams.close(connection),
        }
    }

    fn read_udp(&mut self, inbox: &mut Inbox) {
        let Some(endpoint) = &mut self.endpoint else { return };
        for (socket, local) in &self.sockets.udp {
            for _ in 0..BATCHES {
                let now = Instant::now();
                let mut count = 0;
                // A batch that is not full has emptied the socket: what comes now is told of anew.
                let read = socket.try_io(Interest::READABLE, || {
                    count = inbox.receive(socket, now)?;
                    if count < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
                });
                let datagrams = (0..count).map(|number| inbox.datagram(number));
                // A queue that stays is one that the last of them has waited in too; what was let wait on purpose
                // is none.
                if let Some(last) = datagrams.clone().map(|(at, ..)| at).max() {
                    let waited = now.saturating_duration_since(last);
                    endpoint.handle_load(
                        now,
                        Waited::Datagram,
                        u32::try_from(count).unwrap_or(u32::MAX),
                        waited,
                    );
                }
                for (_, remote, bytes) in datagrams {
                    endpoint.handle_datagram(now, *local, remote, bytes);
                }
                match read {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error of an earlier send; the socket is still good.
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }

    fn take_stream(&mut self, report: StreamReport, state: &mut State) {
        let streams = &mut state.streams;
        let Some(endpoint) = &mut self.endpoint else { return };
        let now = Instant::now();
        match report {
            // The access list comes before the work of a handshake.
            StreamReport::Accepted { transport, stream, local, remote } => {
                if endpoint.admits(local, remote, transport) {
                    let _ = streams.accept(transport, stream, (local, remote));
                }
            }
            StreamReport::Opened { connection, local, remote, inbound, transport, identity, trunk } => {
                if let Some(trunk) = trunk.filter(|trunk| state.unreachable.contains_key(trunk)) {
                    state.unproven.insert(connection, trunk);
                }
                let identity = identity.as_ref();
                let opened = StreamEvent::Opened { local, remote, inbound, transport, identity };
                endpoint.handle_stream(now, connection, opened);
            }
            StreamReport::Data { connection, bytes, at } => {
                endpoint.handle_load(now, Waited::Stream, 1, now.saturating_duration_since(at));
                if let Some(trunk) = state.unproven.remove(&connection)
                    && state.unreachable.remove(&trunk).is_some()
                {
                    tracing::info!(%trunk, "trunk {trunk}: connected again");
                }
                endpoint.handle_stream(now, connection, StreamEvent::Data(&bytes));
            }
            StreamReport::Closed { connection } => {
                streams.close(connection);
                state.unproven.remove(&connection);
                endpoint.handle_stream(now, connection, StreamEvent::Closed);
            }
            StreamReport::Refused { connection, failure } => {
                streams.close(connection);
                // Anybody may cause this.
                tracing::debug!(reason = failure.as_str(), "SIP connection refused: {failure}");
                self.metrics.handshake_refused(failure.as_str());
                endpoint.handle_stream(now, connection, StreamEvent::Closed);
            }
            StreamReport::ConnectFailed { connection, trunk, failure } => {
                streams.close(connection);
                state.unproven.remove(&connection);
                if let Some(trunk) = trunk {
                    self.metrics.connect_failed(&trunk, failure.as_str());
                    // Once, not at every try.
                    if state.unreachable.get(&trunk) != Some(&failure) {
                        tracing::warn!(%trunk, reason = failure.as_str(), "trunk {trunk}: {failure}");
                        state.unreachable.insert(trunk, failure);
                    }
                }
                endpoint.handle_stream(now, connection, StreamEvent::ConnectFailed);
            }
        }
    }

    fn take_report(&mut self, report: Report) {
        match report {
            Report::Media(event) => {
                if let MediaEvent::FirstPacket { call, side } = &event {
                    tracing::debug!(%call, %side, "first media packet");
                }
                self.switch.handle_media(Instant::now(), event);
            }
            Report::PortFree(port) => {
                if let Some(media) = &mut self.media {
                    media.port_free(port);
                }
            }
        }
    }

    fn take_node_event(&mut self, event: NodeEvent) {
        match &event {
            NodeEvent::Listening { address } => tracing::info!(address, "overlay listening"),
            NodeEvent::Online => {
                tracing::info!("overlay joined");
                self.online.send_replace(true);
            }
            NodeEvent::Offline { reason } => {
                tracing::warn!(reason, "overlay lost");
                self.online.send_replace(false);
            }
            NodeEvent::Incoming { .. } | NodeEvent::Call { .. } | NodeEvent::Presence(_) => {}
        }
        self.switch.handle_overlay(Instant::now(), event);
    }

    fn answer(&mut self, request: Request, state: &mut State) {
        let now = Instant::now();
        // Whoever asked may have gone away; then nobody misses the answer.
        match request {
            Request::Calls(filter, reply) => {
                drop(reply.send(control::views::calls(&self.switch, &filter, now)))
            }
            Request::Call(id, reply) => {
                drop(reply.send(self.switch.record(id).map(|record| control::views::call(record, now))));
            }
            Request::Why(id, reply) => {
                drop(reply.send(self.switch.record(id).map(|record| control::views::why(record, now))));
            }
            Request::Ladder(id, reply) => {
                drop(reply.send(self.switch.record(id).map(|record| control::views::ladder(record, now))));
            }
            Request::HangUp(id, reply) => drop(reply.send(self.switch.hang_up(now, id))),
            Request::RouteTest(to, from, trunk, reply) => {
                drop(reply.send(control::views::route_test(&self.switch, &to, from, trunk)));
            }
            Request::Trunks(reply) => {
                let status = self.endpoint.as_ref().map(Endpoint::trunk_status).unwrap_or_default();
                let unreachable = |trunk: &TrunkName| state.unreachable.get(trunk).map(ToString::to_string);
                drop(reply.send(control::views::trunks(&self.switch, &self.trunks, &status, unreachable)));
            }
            Request::Reconfigure(config, reply) => drop(reply.send(self.reconfigure(now, &config))),
            Request::Load(reply) => drop(reply.send((self.switch.live(), self.switch.is_draining()))),
            Request::Drain(reply) => {
                self.switch.drain(true);
                state.drained.push(reply);
            }
            Request::HangUpAll(cause, reply) => {
                state.stopping = true;
                self.switch.drain(true);
                self.switch.hang_up_all(now, cause);
                state.ended.push(reply);
            }
            Request::Stop => {}
        }
    }

    fn reconfigure(&mut self, now: Instant, config: &Config) -> Vec<TrunkName> {
        let mut refused = Vec::new();
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.set_emergency(config.emergency.numbers.clone());
            for trunk in &config.trunks {
                if endpoint.reconfigure_trunk(now, trunk_config(trunk)).is_err() {
                    refused.push(trunk.name.clone());
                }
            }
        }
        self.switch.reconfigure(switch_config(config));
        self.trunks.clone_from(&config.trunks);
        refused
    }

    fn publish(&mut self, state: &mut State) {
        if let Some(endpoint) = &self.endpoint {
            let counters = endpoint.counters();
            state.deltas.apply(&self.metrics, &counters);
            self.metrics.queue("sip_captures", 0, counters.captures_dropped);
        }
        let (free, _) = self.media.as_ref().map_or((0, 0), MediaEngine::trunk_ports);
        self.metrics.live(self.switch.live(), free);
        self.metrics.queue("overlay_commands", state.overlay_backlog.len(), state.overlay_dropped);
        // Nothing is dropped from these: who finds them full waits, or counts it elsewhere.
        self.metrics.queue("overlay_events", self.node_events.len(), 0);
        self.metrics.queue("media_reports", self.media_reports.len(), 0);
        self.metrics.queue("sip_connections", state.streams.open(), state.streams.refused);
        if let Some(media) = &self.media {
            self.metrics.queue("media_closes", media.closes_waiting(), media.orders_dropped());
        }
    }
}
