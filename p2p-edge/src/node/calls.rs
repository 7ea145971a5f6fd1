//! Outgoing calls, and what both directions share: streams, sessions, timers.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use call_model::{Address, CallId, Caller, Cause, Handle};
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId};

use super::gateways::GatewaySearch;
use super::incoming::{Fresh, Incoming, may_text};
use super::lookup::Purpose;
use super::pump::{self, StreamId, StreamInput, StreamOutput};
use super::streams::{CallStream, OpenError, OpenId, StreamsEvent};
use super::task::{Task, Timer};
use super::{NodeEvent, Refusal};
use crate::calling::{
    CommandError, DeviceId, EndedBy, Hunt, ResumeToken, SessionCommand, SessionEvent, SessionTimers,
};
use crate::identity::{Abilities, RevocationList, Standing};
use crate::record::{RecordKey, ValidLocation};

/// Wait before a lost stream is opened again, after the first attempt failed.
const RESUME_RETRY: Duration = Duration::from_millis(500);

/// The calls of a node and the streams that carry them.
#[derive(Default)]
pub(super) struct Calls {
    pub(super) table: HashMap<CallId, Call>,
    pub(super) streams: HashMap<StreamId, OpenStream>,
    /// Inbound streams whose first frame has not come, by peer.
    pub(super) fresh: HashMap<PeerId, HashSet<StreamId>>,
    opening: HashMap<OpenId, (CallId, DeviceId)>,
    dialling: HashMap<PeerId, Dial>,
    /// Streams that are closing after everything queued was written.
    pub(super) closing: HashSet<StreamId>,
    next_stream: u64,
}

/// A dial under way, and the devices that wait for it.
struct Dial {
    connection: ConnectionId,
    waiting: HashSet<(CallId, DeviceId)>,
}

/// A call of either direction.
pub(super) enum Call {
    Outgoing(Box<Outgoing>),
    Incoming(Box<Incoming>),
}

/// A stream of call signalling, and for whom it is.
pub(super) struct OpenStream {
    pub(super) output: StreamOutput,
    pub(super) peer: PeerId,
    pub(super) owner: Owner,
}

/// Whom the bytes of a stream are for.
pub(super) enum Owner {
    /// Opened by the far end; its first frame has not come.
    Fresh(Fresh),
    /// A device of an outgoing call.
    Device(CallId, DeviceId),
    /// An incoming call.
    Incoming(CallId),
}

/// A call that this node makes.
pub(super) struct Outgoing {
    pub(super) hunt: Hunt,
    from: Caller,
    pub(super) to: Address,
    media: String,
    devices: Vec<Device>,
    /// The handle in whose location record the devices were found.
    handle: Option<Handle>,
    pub(super) gateways: Option<GatewaySearch>,
    /// Whether the callee's certificate lets it send text.
    may_text: bool,
    pub(super) told_end: bool,
}

struct Device {
    peer: PeerId,
    addresses: Vec<Multiaddr>,
    /// What may void its certificate while the call lasts.
    standing: Standing,
    link: Link,
    resume_attempts: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    None,
    Dialling,
    Opening(OpenId),
    Open(StreamId),
}

impl Outgoing {
    /// Returns the device with a peer id.
    pub(super) fn device_of(&self, peer: &PeerId) -> Option<DeviceId> {
        self.devices.iter().position(|device| device.peer == *peer).map(|at| DeviceId(at as u32))
    }

    /// Says whether this device is a gateway, has not answered, and there is another for the call.
    pub(super) fn has_other_gateway(&self, device: DeviceId) -> bool {
        let is_present = |search: &&GatewaySearch| search.current.and_then(|peer| self.device_of(&peer));
        let search = self.gateways.as_ref().filter(|search| is_present(search) == Some(device));
        self.hunt.winner().is_none() && search.is_some_and(GatewaySearch::has_next)
    }

    fn device(&mut self, device: DeviceId) -> Option<&mut Device> {
        self.devices.get_mut(device.0 as usize)
    }

    /// Says whether the certificate of a device that has the call, or may get it, is revoked.
    pub(super) fn is_with_revoked(&self, revocations: &RevocationList) -> bool {
        let has_call = |id: DeviceId| match self.hunt.winner() {
            Some(winner) => winner == id && !self.hunt.has_ended(),
            None => self.hunt.is_device_alive(id),
        };
        let devices = self.devices.iter().enumerate();
        devices.into_iter().any(|(at, d)| has_call(DeviceId(at as u32)) && d.standing.is_revoked(revocations))
    }

    /// Says whether the call goes to this handle and waits for its answer.
    pub(super) fn is_ringing(&self, handle: &Handle) -> bool {
        !self.hunt.has_ended()
            && self.hunt.winner().is_none()
            && (self.handle.as_ref() == Some(handle) || self.to == Address::Handle(handle.clone()))
    }
}

impl Task {
    pub(super) fn session_timers(&self) -> SessionTimers {
        SessionTimers { resume: self.limits.timers.resume, ..SessionTimers::default() }
    }

    /// Starts a call.
    pub(super) fn invite(
        &mut self,
        now: Instant,
        call: CallId,
        from: Caller,
        to: Address,
        media: String,
        ring: Duration,
    ) {
        if self.calls.table.contains_key(&call) {
            tracing::warn!(%call, "a call with this id is in progress: invite ignored");
            return;
        }
        if self.draining || self.calls.table.len() >= self.limits.calls {
            self.refusals.add(Refusal::CallLimit);
            self.emit_end(
                call,
                Cause::SWITCHING_EQUIPMENT_CONGESTION,
                503,
                "the node has no room for the call",
            );
            return;
        }
        let Some(from) = self.complete_caller(from) else {
            self.emit_end(call, Cause::CALL_REJECTED, 403, "the caller's address is not certified");
            return;
        };
        let mut outgoing = Outgoing {
            hunt: Hunt::new(call, self.session_timers().with_ringing(ring), now)
                .taking_refer(!self.role.is_server()),
            from,
            to: to.clone(),
            media,
            devices: Vec::new(),
            handle: None,
            gateways: None,
            may_text: true,
            told_end: false,
        };
        match &to {
            Address::Handle(handle) => {
                outgoing.handle = Some(handle.clone());
                self.calls.table.insert(call, Call::Outgoing(Box::new(outgoing)));
                self.look_up(now, RecordKey::Location(handle.clone()), Purpose::Location(call));
            }
            Address::Number(number) => {
                let asks_gateways = !self.role.is_server();
                if asks_gateways {
                    outgoing.gateways = Some(GatewaySearch::new(number.clone()));
                }
                self.calls.table.insert(call, Call::Outgoing(Box::new(outgoing)));
                self.look_up(now, RecordKey::Number(number.clone()), Purpose::Number(call));
                if asks_gateways {
                    self.search_gateways(now, call);
                }
            }
        }
        self.service(now, call);
    }

    /// Carries out a command in a call.
    pub(super) fn command(&mut self, now: Instant, call: CallId, command: SessionCommand) {
        let name = command_name(&command);
        if matches!(command, SessionCommand::Message { .. }) && !may_text(&self.party) {
            if self.calls.table.contains_key(&call) {
                self.emit(NodeEvent::Call { call, event: SessionEvent::NotSupported { request: name } });
            }
            return;
        }
        let result = match self.calls.table.get_mut(&call) {
            Some(Call::Outgoing(outgoing)) => outgoing.hunt.handle_command(now, command),
            Some(Call::Incoming(incoming)) => incoming.session.handle_command(now, command),
            None => Err(CommandError::Ended),
        };
        if let Err(error) = result {
            tracing::debug!(%call, command = name, %error, "command not carried out");
        }
        self.service(now, call);
    }

    /// The location of the callee was found: its devices are dialled. `complete` when no better
    /// record can come any more.
    pub(super) fn on_location(
        &mut self,
        now: Instant,
        call: CallId,
        found: Option<&ValidLocation>,
        complete: Option<usize>,
    ) {
        if let Some(ValidLocation { record, holder, .. }) = found {
            if let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) {
                outgoing.may_text = holder.abilities.contains(Abilities::TEXT);
            }
            for device in &record.devices {
                self.add_device(now, call, device.peer, device.addresses.clone(), &holder.standing);
            }
        }
        let Some(asked) = complete else {
            self.service(now, call);
            return;
        };
        let asked = asked + usize::from(self.is_alone());
        if let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) {
            if found.is_some() || !outgoing.devices.is_empty() {
                outgoing.hunt.no_more(now);
            } else {
                abandon_unfound(now, outgoing, asked);
            }
        }
        self.service(now, call);
    }

    /// The record of the called number was found, or is known not to exist.
    pub(super) fn on_number(&mut self, now: Instant, call: CallId, handle: Option<&Handle>, asked: usize) {
        let asked = asked + usize::from(self.is_alone());
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
        match handle {
            Some(handle) if outgoing.handle.is_none() => {
                outgoing.handle = Some(handle.clone());
                outgoing.gateways = None;
                self.look_up(now, RecordKey::Location(handle.clone()), Purpose::Location(call));
            }
            Some(_) => {}
            None if outgoing.gateways.is_some() => self.number_is_not_overlay(now, call),
            None => abandon_unfound(now, outgoing, asked),
        }
        self.service(now, call);
    }

    /// Adds a device to the hunt of a call, or learns new addresses of one that is known.
    pub(super) fn add_device(
        &mut self,
        now: Instant,
        call: CallId,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        standing: &Standing,
    ) {
        if peer == self.me {
            return;
        }
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
        if let Some(known) = outgoing.devices.iter_mut().find(|device| device.peer == peer) {
            (known.addresses, known.standing) = (addresses, standing.clone());
            return;
        }
        let id = DeviceId(outgoing.devices.len() as u32);
        if outgoing.hunt.add(id) {
            let standing = standing.clone();
            outgoing.devices.push(Device { peer, addresses, standing, link: Link::None, resume_attempts: 0 });
            self.connect(now, call, id);
        }
    }

    /// Opens a stream to a device: on a connection that is up, or else after dialling.
    fn connect(&mut self, now: Instant, call: CallId, id: DeviceId) {
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
        let Some(device) = outgoing.device(id) else { return };
        let (peer, mut addresses) = (device.peer, device.addresses.clone());
        match self.swarm.behaviour_mut().calls.open(peer) {
            Ok(open) => {
                tracing::debug!(%call, "stream for a call opened on a connection that is up");
                device.link = Link::Opening(open);
                self.calls.opening.insert(open, (call, id));
            }
            Err(OpenError::OverQuota(limit)) => {
                self.refusals.add(Refusal::StreamQuota);
                let text = format!("no more than {limit} calls with one node at one time");
                let cause = Cause::SWITCHING_EQUIPMENT_CONGESTION;
                outgoing.hunt.refused(now, id, cause, 503, &text);
                self.unreachable(now, call, id);
            }
            Err(OpenError::NotConnected) => {
                device.link = Link::Dialling;
                // A circuit through a relay that is connected already is the quickest way.
                addresses.sort_by_key(|address| !self.peers.goes_through_connected(address));
                if let Some(dial) = self.calls.dialling.get_mut(&peer) {
                    dial.waiting.insert((call, id));
                    return;
                }
                // A dial of another behaviour may be under way with worse addresses: not waited for.
                let options = DialOpts::peer_id(peer)
                    .condition(PeerCondition::Disconnected)
                    .addresses(addresses)
                    .extend_addresses_through_behaviour()
                    .build();
                let connection = options.connection_id();
                let waiting = HashSet::from([(call, id)]);
                self.calls.dialling.insert(peer, Dial { connection, waiting });
                if let Err(error) = self.swarm.dial(options) {
                    tracing::debug!(%peer, %error, "device not dialled");
                    self.on_undialled(now, &peer, connection);
                }
            }
        }
    }

    /// A peer is connected: streams that wait for it are opened.
    pub(super) fn on_dialled(&mut self, now: Instant, peer: &PeerId) {
        let Some(dial) = self.calls.dialling.remove(peer) else { return };
        for (call, device) in dial.waiting {
            self.connect(now, call, device);
            self.service(now, call);
        }
    }

    /// A peer could not be connected.
    pub(super) fn on_undialled(&mut self, now: Instant, peer: &PeerId, connection: ConnectionId) {
        if self.calls.dialling.get(peer).is_none_or(|dial| dial.connection != connection) {
            return;
        }
        let Some(dial) = self.calls.dialling.remove(peer) else { return };
        for (call, device) in dial.waiting {
            self.unreachable(now, call, device);
        }
    }

    /// A device was not reached: the hunt goes on without it, or tries again to resume.
    fn unreachable(&mut self, now: Instant, call: CallId, id: DeviceId) {
        tracing::debug!(%call, device = id.0, "device not reached");
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
        if let Some(device) = outgoing.device(id) {
            device.link = Link::None;
        }
        outgoing.hunt.failed(now, id);
        if outgoing.has_other_gateway(id) {
            // It has lost its stream and does not even take a connection: the next has its turn.
            outgoing.hunt.give_up(now, id);
        }
        self.next_gateway(now, call);
        self.service(now, call);
    }

    /// Takes what the stream behaviour reports.
    pub(super) fn on_streams(&mut self, now: Instant, event: StreamsEvent) {
        match event {
            StreamsEvent::Inbound { peer, stream } => self.on_inbound_stream(now, peer, stream),
            StreamsEvent::Opened { open, stream } => {
                if let Some((call, device)) = self.calls.opening.remove(&open) {
                    self.on_opened(now, call, device, stream);
                }
            }
            StreamsEvent::OpenFailed { open } => {
                if let Some((call, device)) = self.calls.opening.remove(&open) {
                    self.unreachable(now, call, device);
                }
            }
            StreamsEvent::OverQuota => self.refusals.add(Refusal::StreamQuota),
        }
    }

    fn on_opened(&mut self, now: Instant, call: CallId, id: DeviceId, stream: CallStream) {
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
        let (from, to, media) = (outgoing.from.clone(), outgoing.to.clone(), outgoing.media.clone());
        let resumes = outgoing.hunt.session(id).is_some();
        let Some(peer) = outgoing.device(id).map(|device| device.peer) else { return };
        let wanted = if resumes {
            outgoing.hunt.resume(now, id)
        } else {
            let (invite, token) =
                (self.assert_invite(call, from, to, media), ResumeToken::new(self.random()));
            let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
            outgoing.hunt.connected(now, id, invite, token).unwrap_or_else(|error| {
                tracing::warn!(%call, %error, "invite refused by its own session");
                false
            })
        };
        let link = if wanted {
            Link::Open(self.start_stream(peer, stream, Owner::Device(call, id)))
        } else {
            Link::None
        };
        if let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call)
            && let Some(device) = outgoing.device(id)
        {
            device.link = link;
        }
        self.service(now, call);
    }

    pub(super) fn start_stream(&mut self, peer: PeerId, stream: CallStream, owner: Owner) -> StreamId {
        let (id, output) = self.start_pump(stream);
        self.calls.streams.insert(id, OpenStream { output, peer, owner });
        id
    }

    /// Starts to move the bytes of a stream of whatever protocol.
    pub(super) fn start_pump(&mut self, stream: CallStream) -> (StreamId, StreamOutput) {
        let id = StreamId(self.calls.next_stream);
        self.calls.next_stream += 1;
        (id, pump::start(id, stream, self.inputs.clone()))
    }

    /// Takes what a stream brought.
    pub(super) fn on_input(&mut self, now: Instant, id: StreamId, input: StreamInput) {
        let bytes = match input {
            StreamInput::Data(bytes) => Some(bytes),
            StreamInput::Closed => None,
        };
        if self.presence.has_stream(id) {
            self.on_presence_input(now, id, bytes.as_deref());
            return;
        }
        if bytes.is_none() && self.calls.closing.remove(&id) {
            return;
        }
        let Some(stream) = self.calls.streams.get(&id) else { return };
        match (&stream.owner, bytes) {
            (Owner::Fresh(_), Some(bytes)) => self.on_first_bytes(now, id, &bytes),
            (Owner::Fresh(_), None) => {
                self.settle_fresh(id);
                self.calls.streams.remove(&id);
            }
            (&Owner::Device(call, device), bytes) => {
                if let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) {
                    match bytes {
                        Some(bytes) => {
                            // The far end speaks: should this stream be lost, the next is opened at once.
                            if let Some(entry) = outgoing.device(device) {
                                entry.resume_attempts = 0;
                            }
                            outgoing.hunt.handle_bytes(now, device, &bytes);
                        }
                        None => {
                            if let Some(entry) = outgoing.device(device) {
                                entry.link = Link::None;
                            }
                            outgoing.hunt.handle_closed(now, device);
                            self.calls.streams.remove(&id);
                        }
                    }
                }
                self.next_gateway(now, call);
                self.service(now, call);
            }
            (&Owner::Incoming(call), bytes) => {
                if let Some(Call::Incoming(incoming)) = self.calls.table.get_mut(&call) {
                    match bytes {
                        Some(bytes) => incoming.session.handle_bytes(now, &bytes),
                        None => {
                            incoming.stream = None;
                            incoming.session.handle_closed(now);
                            self.calls.streams.remove(&id);
                        }
                    }
                }
                self.service(now, call);
            }
        }
    }

    /// A stream takes no more bytes: it is gone, or its far end has stopped reading.
    fn lose_stream(&mut self, now: Instant, call: CallId, id: DeviceId, stream: StreamId) {
        if let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) {
            if let Some(device) = outgoing.device(id) {
                device.link = Link::None;
            }
            outgoing.hunt.handle_closed(now, id);
        }
        self.drop_stream(stream);
        self.next_gateway(now, call);
        tracing::debug!(%call, device = id.0, "stream takes no more bytes");
    }

    /// Closes a stream once what is queued is written.
    pub(super) fn drop_stream(&mut self, id: StreamId) {
        if self.calls.streams.remove(&id).is_some() {
            self.calls.closing.insert(id);
        }
    }

    /// A timer of a call is due.
    pub(super) fn on_call_timeout(&mut self, now: Instant, call: CallId) {
        match self.calls.table.get_mut(&call) {
            Some(Call::Outgoing(outgoing)) => outgoing.hunt.handle_timeout(now),
            Some(Call::Incoming(incoming)) => incoming.session.handle_timeout(now),
            None => return,
        }
        // A gateway that does not acknowledge makes room for the next.
        self.next_gateway(now, call);
        self.service(now, call);
    }

    /// Another attempt to resume is due.
    pub(super) fn on_redial(&mut self, now: Instant, call: CallId) {
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
        // The callee may have moved to other relays meanwhile.
        if let Some(handle) = outgoing.handle.clone() {
            self.look_up(now, RecordKey::Location(handle), Purpose::Location(call));
        }
        self.resume_devices(now, call, true);
        self.service(now, call);
    }

    fn resume_devices(&mut self, now: Instant, call: CallId, again: bool) {
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return };
        let wanting: Vec<DeviceId> = outgoing.hunt.wanting_resume().collect();
        let (mut connect, mut lost) = (Vec::new(), Vec::new());
        for id in wanting {
            let Some(device) = outgoing.device(id) else { continue };
            match device.link {
                // The session has given its stream up although it is open.
                Link::Open(stream) => {
                    device.link = Link::None;
                    lost.push(stream);
                }
                Link::Dialling | Link::Opening(_) => continue,
                Link::None => {}
            }
            if device.resume_attempts == 0 || again {
                device.resume_attempts += 1;
                connect.push(id);
            } else if !self.timers.is_set(&Timer::Redial(call)) {
                self.timers.set(Timer::Redial(call), Some(now + RESUME_RETRY));
            }
        }
        for stream in lost {
            self.drop_stream(stream);
        }
        for id in connect {
            tracing::debug!(%call, device = id.0, again, "resuming the call on a new stream");
            self.connect(now, call, id);
        }
    }

    /// Moves what a call has to say to its streams and to the owner of the node, and sets its
    /// timer. To be called after everything that touches the call.
    pub(super) fn service(&mut self, now: Instant, call: CallId) {
        let next = match self.calls.table.get(&call) {
            Some(Call::Outgoing(_)) => self.service_outgoing(now, call),
            Some(Call::Incoming(_)) => self.service_incoming(now, call),
            None => return,
        };
        self.timers.set(Timer::Call(call), next);
        if !self.calls.table.contains_key(&call) {
            self.timers.set(Timer::Redial(call), None);
            self.timers.set(Timer::Gateways(call), None);
        }
    }

    fn service_outgoing(&mut self, now: Instant, call: CallId) -> Option<Instant> {
        self.resume_devices(now, call, false);
        let Some(Call::Outgoing(outgoing)) = self.calls.table.get_mut(&call) else { return None };
        let mut lost = Vec::new();
        while let Some((id, bytes)) = outgoing.hunt.poll_transmit() {
            let link = outgoing.device(id).map_or(Link::None, |device| device.link);
            if let Link::Open(stream) = link
                && let Some(open) = self.calls.streams.get(&stream)
                && !open.output.write(bytes)
            {
                lost.push((id, stream));
            }
        }
        let mut events = Vec::new();
        while let Some(event) = outgoing.hunt.poll_event() {
            outgoing.told_end |= matches!(event, SessionEvent::Ended { .. });
            if outgoing.may_text || !matches!(event, SessionEvent::Message { .. }) {
                events.push(event);
            }
        }
        let mut done = Vec::new();
        for (at, device) in outgoing.devices.iter_mut().enumerate() {
            if outgoing.hunt.is_device_finished(DeviceId(at as u32)) {
                done.push((
                    device.peer,
                    DeviceId(at as u32),
                    std::mem::replace(&mut device.link, Link::None),
                ));
            }
        }
        let finished = outgoing.hunt.is_finished();
        let next = outgoing.hunt.poll_timeout();
        for (peer, id, link) in done {
            self.close_link(call, id, peer, link);
        }
        for event in events {
            self.emit(NodeEvent::Call { call, event });
        }
        if finished {
            self.calls.table.remove(&call);
            return None;
        }
        if lost.is_empty() {
            return next;
        }
        for (id, stream) in lost {
            self.lose_stream(now, call, id, stream);
        }
        // Goes on at once: the session may want another stream, or has ended over it.
        self.service_outgoing(now, call)
    }

    fn close_link(&mut self, call: CallId, id: DeviceId, peer: PeerId, link: Link) {
        match link {
            Link::None => {}
            Link::Dialling => {
                if let Some(dial) = self.calls.dialling.get_mut(&peer) {
                    dial.waiting.remove(&(call, id));
                }
            }
            Link::Opening(open) => {
                self.calls.opening.remove(&open);
                self.swarm.behaviour_mut().calls.abandon(open);
            }
            Link::Open(stream) => self.drop_stream(stream),
        }
    }

    /// Reports the end of a call that never got a hunt or session.
    fn emit_end(&mut self, call: CallId, cause: Cause, status: u16, text: &str) {
        let event = SessionEvent::Ended {
            cause,
            sip_status: Some(status),
            text: text.to_owned(),
            by: EndedBy::Local,
        };
        self.emit(NodeEvent::Call { call, event });
    }
}

/// Ends a hunt whose callee was not found. `asked` is how many nodes have answered.
pub(super) fn abandon_unfound(now: Instant, outgoing: &mut Outgoing, asked: usize) {
    if asked == 0 {
        outgoing.hunt.abandon(now, Cause::NETWORK_OUT_OF_ORDER, Some(503), "no node of the overlay answers");
    } else {
        let (cause, text) = match outgoing.to {
            Address::Handle(_) => (Cause::UNALLOCATED_NUMBER, "no such user, or it is not online"),
            // The number may well exist: there is only no gateway that leads to it.
            Address::Number(_) => (Cause::NO_ROUTE_TO_DESTINATION, "nobody serves this number"),
        };
        outgoing.hunt.abandon(now, cause, Some(404), text);
    }
}

fn command_name(command: &SessionCommand) -> &'static str {
    match command {
        SessionCommand::Trying => "trying",
        SessionCommand::Ringing => "ringing",
        SessionCommand::Progress { .. } => "progress",
        SessionCommand::Answer { .. } => "answer",
        SessionCommand::MediaUp => "media up",
        SessionCommand::Reject { .. } => "reject",
        SessionCommand::Bye { .. } => "bye",
        SessionCommand::Cancel { .. } => "cancel",
        SessionCommand::Hold { .. } => "hold",
        SessionCommand::Dtmf { .. } => "dtmf",
        SessionCommand::Message { .. } => "message",
        SessionCommand::Connected { .. } => "connected",
        SessionCommand::Candidate { .. } => "candidate",
        SessionCommand::Refer { .. } => "refer",
    }
}
