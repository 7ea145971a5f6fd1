//! The softphone: one task that owns the calls and answers by policy.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use call_model::{Address, CallId, Caller, Cause, DtmfDigit};
use p2p_edge::calling::{SessionCommand, SessionEvent};
use p2p_edge::node::{
    CallerRole, Node, NodeCommand, NodeConfig, NodeError, NodeEvent, NodeHandle, NodeRole, VerifiedCaller,
};
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use transcoder::{DtlsIdentity, MediaError};

use crate::audio::Clip;
use crate::call::{Call, Negotiation};
use crate::event::Event;
use crate::media::{self, MediaCommand, MediaEvent, MediaSettings};

/// Calls at one time. One more that comes in is busy; one more that should go out is an error.
pub const MAX_CALLS: usize = 64;
/// Commands and events that may wait.
const COMMAND_QUEUE: usize = 64;
const EVENT_QUEUE: usize = 1024;
const MEDIA_QUEUE: usize = 256;
/// How long calls may take to end when the softphone stops.
const FAREWELL: Duration = Duration::from_secs(3);
const FAREWELL_LIMIT: Duration = Duration::from_secs(5);

/// Configures a softphone.
#[derive(Clone, Debug)]
pub struct SoftphoneConfig {
    /// The node; its role is `User`.
    pub node: NodeConfig,
    /// Where media is sent and received: an address that the other side can reach.
    pub media_address: IpAddr,
    /// Sampling rate of clips and recordings: 8000, 16000 or 48000 Hz.
    pub sample_rate: u32,
    /// What happens to calls that come in.
    pub policy: AnswerPolicy,
}

/// What happens to calls that come in.
#[derive(Clone, Debug, Default)]
pub struct AnswerPolicy {
    /// When to answer.
    pub mode: AnswerMode,
    /// What to do in the call then.
    pub options: CallOptions,
}

/// When to answer a call.
#[derive(Clone, Debug, Default)]
pub enum AnswerMode {
    /// Ring until a command comes.
    #[default]
    Manual,
    /// Ring, and answer after a while.
    After(Duration),
    /// Play a clip as early media, and answer after a while.
    Early {
        /// When to answer.
        wait: Duration,
        /// What to play.
        clip: Option<Clip>,
    },
    /// Ring and never answer.
    Never,
    /// Refuse as busy.
    Busy,
    /// Refuse as rejected by the user.
    Reject,
}

/// What to do in a call once it is answered and media is up.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// Play this.
    pub play: Option<Clip>,
    /// Record what is heard, early media included, to a wav file.
    pub record: Option<PathBuf>,
    /// Send back what is heard.
    pub echo: bool,
    /// Send these digits.
    pub dtmf: Vec<DtmfDigit>,
    /// Hang up after this time.
    pub duration: Option<Duration>,
}

/// What a softphone may be asked. Where `call` is absent, its only call is meant.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the fields are those of the JSON commands in `control`")]
pub enum Command {
    /// Calls someone.
    Call {
        to: Address,
        display_name: Option<String>,
        private: bool,
        ring_timeout: Duration,
        options: CallOptions,
    },
    /// Answers a call that came in. `None` keeps the options of the policy.
    Answer { call: Option<CallId>, options: Option<CallOptions> },
    /// Sends early media in a call that came in.
    Progress { call: Option<CallId>, clip: Option<Clip> },
    /// Refuses a call that came in.
    Reject { call: Option<CallId>, cause: Cause, sip_status: Option<u16> },
    /// Ends a call in any state.
    HangUp { call: Option<CallId>, cause: Cause },
    /// Holds the other side, or takes it back.
    Hold { call: Option<CallId>, on: bool },
    /// Sends digits, in media where the other side takes them there.
    Dtmf { call: Option<CallId>, digits: Vec<DtmfDigit> },
    /// Sends text.
    Message { call: Option<CallId>, text: String },
    /// Plays a clip.
    Play { call: Option<CallId>, clip: Clip },
    /// Sends back what is heard, or stops to.
    Echo { call: Option<CallId>, on: bool },
    /// Records what is heard.
    Record { call: Option<CallId>, path: PathBuf },
    /// Changes what happens to calls that come in from now on.
    Policy(AnswerPolicy),
    /// Asks for [`Event::Status`].
    Status,
    /// Ends all calls and stops.
    Quit,
}

/// Says why a softphone did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The role of the node is not `User`.
    #[error("a softphone is an overlay user; the node is configured as a server")]
    NotUser,
    /// The sampling rate is not one of the three.
    #[error("{0} Hz is not a sampling rate of a phone: 8000, 16000 or 48000")]
    SampleRate(u32),
    /// The media address is not one that others can send to.
    #[error("media address {0}: name the address of an interface, not a wildcard")]
    MediaAddress(IpAddr),
    /// The node did not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The media certificate could not be made.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// The softphone has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the softphone has stopped")]
pub struct SoftphoneClosed;

/// A softphone on its way: itself and its events.
pub type Starting =
    Pin<Box<dyn Future<Output = Result<(Softphone, mpsc::Receiver<Event>), StartError>> + Send>>;

/// Speaks to a running softphone. Cheap to clone; it stops when the last handle is gone.
#[derive(Clone, Debug)]
pub struct Softphone {
    commands: mpsc::Sender<Command>,
}

impl Softphone {
    /// Starts a softphone. The first event is [`Event::Ready`]; the events end when it has stopped.
    ///
    /// # Errors
    /// When a setting is wrong or the node does not start.
    pub fn start(config: SoftphoneConfig) -> Starting {
        // Boxed here, so that the swarm is compiled into this library and not into its every user.
        Box::pin(Self::start_here(config))
    }

    async fn start_here(config: SoftphoneConfig) -> Result<(Self, mpsc::Receiver<Event>), StartError> {
        let NodeRole::User { certificate } = &config.node.role else { return Err(StartError::NotUser) };
        let handle = certificate.claims().handle.clone();
        if !crate::audio::RATES.contains(&config.sample_rate) {
            return Err(StartError::SampleRate(config.sample_rate));
        }
        if config.media_address.is_unspecified() || config.media_address.is_multicast() {
            return Err(StartError::MediaAddress(config.media_address));
        }
        let identity = DtlsIdentity::generate()?;
        let (node, node_events) = Node::spawn(config.node).await?;
        let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
        let (media_sender, media_events) = mpsc::channel(MEDIA_QUEUE);
        let mut task = Task {
            caller: Address::Handle(handle.clone()),
            node,
            node_events,
            commands,
            events,
            media_events,
            media: MediaSettings {
                address: config.media_address,
                sample_rate: config.sample_rate,
                identity,
                events: media_sender,
            },
            policy: config.policy,
            calls: BTreeMap::new(),
            online: false,
            dropped: 0,
            leave_by: None,
        };
        task.report(Event::Ready { peer_id: task.node.peer_id(), handle: handle.to_string() });
        tokio::spawn(task.run());
        Ok((Self { commands: command_sender }, event_receiver))
    }

    /// Sends a command, waiting while 64 are waiting.
    ///
    /// # Errors
    /// When the softphone has stopped.
    pub async fn send(&self, command: Command) -> Result<(), SoftphoneClosed> {
        self.commands.send(command).await.map_err(|_| SoftphoneClosed)
    }
}

struct Task {
    caller: Address,
    node: NodeHandle,
    node_events: mpsc::Receiver<NodeEvent>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    media_events: mpsc::Receiver<(CallId, MediaEvent)>,
    media: MediaSettings,
    policy: AnswerPolicy,
    calls: BTreeMap<CallId, Call>,
    online: bool,
    dropped: u64,
    /// Set once the softphone is stopping.
    leave_by: Option<Instant>,
}

impl Task {
    async fn run(mut self) {
        loop {
            let calls_due = self.calls.values().filter_map(Call::next_deadline);
            let due = calls_due.chain(self.leave_by).min();
            let leaving = self.leave_by.is_some();
            tokio::select! {
                event = self.node_events.recv() => match event {
                    Some(event) => self.handle_node(event).await,
                    None => break,
                },
                Some((call, event)) = self.media_events.recv() => self.handle_media(call, event),
                command = self.commands.recv(), if !leaving => match command {
                    Some(command) => self.handle_command(command).await,
                    None => self.leave(),
                },
                () = wait_until(due) => {
                    if self.leave_by.is_some_and(|at| at <= Instant::now()) {
                        break;
                    }
                    self.handle_timeout().await;
                }
            }
        }
        // The node is gone: calls that have ended still owe their last event.
        while self.calls.values().any(Call::has_ended) {
            let event = tokio::time::timeout(Duration::from_secs(1), self.media_events.recv()).await;
            let Ok(Some((call, event))) = event else { break };
            self.handle_media(call, event);
        }
    }

    fn leave(&mut self) {
        self.leave_by = Some(Instant::now() + FAREWELL_LIMIT);
        let node = self.node.clone();
        tokio::spawn(async move { node.shutdown(FAREWELL).await });
    }

    async fn handle_timeout(&mut self) {
        let now = Instant::now();
        let due: Vec<CallId> = self
            .calls
            .iter()
            .filter(|(_, call)| call.next_deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(call) = self.calls.get_mut(&id) else { continue };
            if call.answer_at.take_if(|at| *at <= now).is_some() {
                self.answer(id).await;
            } else if call.hang_up_at.take_if(|at| *at <= now).is_some() {
                self.hang_up(id, Cause::NORMAL_CALL_CLEARING, "");
            }
        }
    }

    async fn handle_command(&mut self, command: Command) {
        match command {
            Command::Call { to, display_name, private, ring_timeout, options } => {
                self.call(to, display_name, private, ring_timeout, options).await;
            }
            Command::Answer { call, options } => {
                let Some(id) = self.which(call) else { return };
                if let (Some(call), Some(options)) = (self.calls.get_mut(&id), options) {
                    call.options = options;
                }
                self.answer(id).await;
            }
            Command::Progress { call, clip } => {
                let Some(id) = self.which(call) else { return };
                self.progress(id, clip).await;
            }
            Command::Reject { call, cause, sip_status } => {
                let Some(id) = self.which(call) else { return };
                if self.calls.get(&id).is_some_and(Call::is_waiting) {
                    self.tell(id, SessionCommand::Reject { cause, sip_status, text: String::new() });
                } else {
                    self.complain(id, "the call does not wait for an answer", "use `hangup`");
                }
            }
            Command::HangUp { call, cause } => {
                if let Some(id) = self.which(call) {
                    self.hang_up(id, cause, "");
                }
            }
            Command::Hold { call, on } => {
                let Some(id) = self.which(call) else { return };
                let Some(call) = self.calls.get_mut(&id).filter(|call| call.is_answered()) else {
                    self.complain(id, "only an answered call can be held", "wait for the `answered` event");
                    return;
                };
                call.held_here = on;
                self.apply_hold(id);
                self.tell(id, SessionCommand::Hold { on });
                self.report(Event::Hold { call: id, on, by: "local" });
            }
            Command::Dtmf { call, digits } => {
                let Some(id) = self.which(call) else { return };
                self.dial(id, digits);
            }
            Command::Message { call, text } => {
                if let Some(id) = self.which(call) {
                    self.tell(id, SessionCommand::Message { text });
                }
            }
            Command::Play { call, clip } => self.tell_media(call, MediaCommand::Play(clip)),
            Command::Echo { call, on } => self.tell_media(call, MediaCommand::Echo(on)),
            Command::Record { call, path } => self.tell_media(call, MediaCommand::Record(path)),
            Command::Policy(policy) => self.policy = policy,
            Command::Status => {
                let status = self.node.status().await;
                self.report(Event::Status {
                    online: self.online,
                    peers: status.peers,
                    reservations: status.reservations_held,
                    calls: self.calls.keys().map(ToString::to_string).collect(),
                    events_dropped: self.dropped,
                });
            }
            Command::Quit => self.leave(),
        }
    }

    async fn call(
        &mut self,
        to: Address,
        display_name: Option<String>,
        private: bool,
        ring_timeout: Duration,
        options: CallOptions,
    ) {
        if self.calls.len() >= MAX_CALLS {
            let message = format!("{MAX_CALLS} calls are in progress");
            self.report(Event::error(Some("to"), message, "hang up one of them first"));
            return;
        }
        let call = new_call_id();
        let (media, offer) = match media::open_offer(&self.media, call).await {
            Ok(opened) => opened,
            Err(error) => {
                self.report(Event::error(None, error, "check --media-address"));
                return;
            }
        };
        if let Some(path) = options.record.clone() {
            media.send(MediaCommand::Record(path));
        }
        let from = Caller {
            address: Some(self.caller.clone()),
            display_name: display_name.as_deref().and_then(Caller::clean_display_name),
            private,
        };
        self.report(Event::Calling { call, to: to.to_string() });
        self.calls.insert(call, Call::outgoing(media, options));
        if self.node.try_send(NodeCommand::Invite { call, from, to, media: offer, ring_timeout }).is_err() {
            self.end_unsent(call);
        }
    }

    /// The node is overloaded or gone: ends a call of which it does not know.
    fn end_unsent(&mut self, call: CallId) {
        let event = SessionEvent::Ended {
            cause: Cause::SWITCHING_EQUIPMENT_CONGESTION,
            sip_status: None,
            text: "the overlay node takes no more commands".to_owned(),
            by: p2p_edge::calling::EndedBy::Local,
        };
        self.handle_ended(call, event);
    }

    async fn handle_node(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Listening { address } => self.report(Event::Listening { address }),
            NodeEvent::Online => {
                self.online = true;
                self.report(Event::Online);
            }
            NodeEvent::Offline { reason } => {
                self.online = false;
                self.report(Event::Offline { reason });
            }
            NodeEvent::Incoming { call, from, to, media } => self.incoming(call, from, to, media).await,
            NodeEvent::Call { call, event } => self.handle_call(call, event),
        }
    }

    async fn incoming(&mut self, id: CallId, from: VerifiedCaller, to: Address, offer: String) {
        let VerifiedCaller { caller, role, .. } = from;
        let shown = caller.address.filter(|_| !caller.private);
        self.report(Event::Incoming {
            call: id,
            from: shown.map(|address| address.to_string()),
            display_name: caller.display_name.filter(|_| !caller.private),
            private: caller.private,
            role: match role {
                CallerRole::User => "user",
                CallerRole::Gateway => "gateway",
            },
            to: to.to_string(),
        });
        let AnswerPolicy { mode, options } = self.policy.clone();
        let mut call = Call::incoming(offer, options);
        call.plan(&mode, Instant::now());
        let full = self.calls.len() >= MAX_CALLS;
        self.calls.insert(id, call);
        let text = String::new();
        match mode {
            _ if full => {
                let cause = Cause::USER_BUSY;
                self.tell(id, SessionCommand::Reject { cause, sip_status: Some(486), text });
            }
            AnswerMode::Busy => {
                let cause = Cause::USER_BUSY;
                self.tell(id, SessionCommand::Reject { cause, sip_status: Some(486), text });
            }
            AnswerMode::Reject => {
                let cause = Cause::CALL_REJECTED;
                self.tell(id, SessionCommand::Reject { cause, sip_status: Some(603), text });
            }
            AnswerMode::Early { clip, .. } => {
                self.tell(id, SessionCommand::Trying);
                self.progress(id, clip).await;
            }
            AnswerMode::Manual | AnswerMode::After(_) | AnswerMode::Never => {
                self.tell(id, SessionCommand::Trying);
                self.tell(id, SessionCommand::Ringing);
            }
        }
    }

    async fn progress(&mut self, id: CallId, clip: Option<Clip>) {
        let Some(answer) = self.negotiate(id).await else { return };
        if let (Some(call), Some(clip)) = (self.calls.get_mut(&id), clip) {
            call.media.as_ref().map(|media| media.send(MediaCommand::Play(clip)));
        }
        if let Some(call) = self.calls.get_mut(&id) {
            call.negotiation = Negotiation::Early { answer: answer.clone() };
        }
        self.tell(id, SessionCommand::Progress { media: answer });
        self.report(Event::Early { call: id });
    }

    async fn answer(&mut self, id: CallId) {
        let Some(answer) = self.negotiate(id).await else { return };
        if let Some(call) = self.calls.get_mut(&id) {
            call.negotiation = Negotiation::Done;
            call.answered(Instant::now());
        }
        self.tell(id, SessionCommand::Answer { media: answer });
        self.report(Event::Answered { call: id });
        self.begin(id);
    }

    /// Returns the answer to the offer of a call that waits for one; opens its media the first time.
    async fn negotiate(&mut self, id: CallId) -> Option<String> {
        let call = self.calls.get_mut(&id)?;
        let offer = match &call.negotiation {
            Negotiation::Early { answer } => return Some(answer.clone()),
            Negotiation::Waiting { offer } => offer.clone(),
            Negotiation::Offered | Negotiation::Done => {
                self.complain(id, "the call does not wait for an answer", "answer a call that came in");
                return None;
            }
        };
        match media::open_answer(&self.media, id, &offer).await {
            Ok((media, answer)) => {
                if let Some(path) = call.options.record.clone() {
                    media.send(MediaCommand::Record(path));
                }
                call.media = Some(media);
                Some(answer)
            }
            Err(error) => {
                call.media_failed = true;
                let cause = Cause::INCOMPATIBLE_DESTINATION;
                let text = "media negotiation failed".to_owned();
                self.tell(id, SessionCommand::Reject { cause, sip_status: Some(488), text });
                self.complain(id, error, "check --media-address and what the caller offers");
                None
            }
        }
    }

    fn handle_call(&mut self, id: CallId, event: SessionEvent) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match event {
            SessionEvent::Trying => self.report(Event::Trying { call: id }),
            SessionEvent::Ringing => self.report(Event::Ringing { call: id }),
            SessionEvent::Progress { media } => {
                accept(call, media);
                self.report(Event::Early { call: id });
            }
            SessionEvent::Answered { media } => {
                accept(call, media);
                call.answered(Instant::now());
                self.report(Event::Answered { call: id });
                self.begin(id);
            }
            SessionEvent::Hold { on } => {
                call.held_there = on;
                self.apply_hold(id);
                self.report(Event::Hold { call: id, on, by: "far" });
            }
            SessionEvent::Dtmf { digit, duration_ms } => {
                call.heard_digit(digit);
                let digit = digit.as_char();
                self.report(Event::Dtmf { call: id, digit, duration_ms, via: "signalling" });
            }
            SessionEvent::Message { text } => self.report(Event::Message { call: id, text }),
            SessionEvent::NotSupported { request } => {
                let message = format!("the other side does not support `{request}`");
                self.complain(id, message, "go on without it");
            }
            event @ SessionEvent::Ended { .. } => self.handle_ended(id, event),
            SessionEvent::Invited(_) | SessionEvent::Candidate { .. } | SessionEvent::Exchange(_) => {}
        }
    }

    /// The last event waits for what media has measured.
    fn handle_ended(&mut self, id: CallId, event: SessionEvent) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.end(Instant::now(), event);
        match call.media.take() {
            // Where the queue is full, the end of the queue says the same.
            Some(media) => drop(media.send(MediaCommand::Stop)),
            None => self.forget(id, None),
        }
    }

    fn forget(&mut self, id: CallId, quality: Option<call_model::LegQuality>) {
        if let Some(ended) = self.calls.remove(&id).and_then(|call| call.ended(id, quality)) {
            self.report(Event::Ended(ended));
        }
    }

    fn handle_media(&mut self, id: CallId, event: MediaEvent) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match event {
            MediaEvent::Connected => {
                call.media_up = true;
                if !call.has_ended() {
                    self.tell(id, SessionCommand::MediaUp);
                    self.report(Event::MediaUp { call: id });
                    self.begin(id);
                }
            }
            MediaEvent::FirstPacket => self.report(Event::Heard { call: id }),
            MediaEvent::Silent => self.report(Event::Silent { call: id }),
            MediaEvent::Played => self.report(Event::Played { call: id }),
            MediaEvent::Dtmf { digit, duration_ms } => {
                call.heard_digit(digit);
                self.report(Event::Dtmf { call: id, digit: digit.as_char(), duration_ms, via: "media" });
            }
            MediaEvent::DigitUnsent { digit, duration_ms } => {
                if !call.has_ended() {
                    self.tell(id, SessionCommand::Dtmf { digit, duration_ms });
                }
            }
            MediaEvent::RecordFailed { reason } => {
                self.complain(id, reason, "check the path, its permissions and the space there");
            }
            MediaEvent::Failed { reason } => {
                // The other side closes its media as it hangs up: then this is no failure.
                if !call.has_ended() {
                    call.media_failed = true;
                    self.complain(
                        id,
                        format!("media failed: {reason}"),
                        "check the path between the media addresses",
                    );
                    self.hang_up(id, Cause::BEARER_CAPABILITY_NOT_AVAILABLE, "media failed");
                }
            }
            MediaEvent::Stopped { quality } => {
                if call.has_ended() {
                    self.forget(id, Some(quality));
                }
            }
        }
    }

    /// Starts the script of a call that has both answer and media.
    fn begin(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if !call.begin(Instant::now()) {
            return;
        }
        let digits = call.take_digits();
        if let Some(media) = &call.media {
            if let Some(clip) = call.options.play.take() {
                media.send(MediaCommand::Play(clip));
            } else if call.options.echo {
                media.send(MediaCommand::Echo(true));
            }
        }
        self.dial(id, digits.into());
    }

    fn dial(&mut self, id: CallId, digits: Vec<DtmfDigit>) {
        let Some(media) = self.calls.get(&id).and_then(|call| call.media.as_ref()) else {
            self.complain(id, "the call has no media yet", "wait for the `media_up` event");
            return;
        };
        if !digits.into_iter().all(|digit| media.send(MediaCommand::Dtmf(digit))) {
            self.complain(id, "too many digits at once", "send at most 100 digits, 280 ms each");
        }
    }

    fn apply_hold(&mut self, id: CallId) {
        if let Some(call) = self.calls.get(&id)
            && let Some(media) = &call.media
        {
            media.send(MediaCommand::Hold(call.held_here || call.held_there));
        }
    }

    fn hang_up(&mut self, id: CallId, cause: Cause, text: &str) {
        self.tell(id, SessionCommand::Bye { cause, text: text.to_owned() });
    }

    fn tell(&mut self, call: CallId, command: SessionCommand) {
        if self.node.try_send(NodeCommand::Call { call, command }).is_err() {
            self.complain(call, "the overlay node takes no more commands", "try again");
        }
    }

    fn tell_media(&mut self, call: Option<CallId>, command: MediaCommand) {
        let Some(id) = self.which(call) else { return };
        let taken =
            self.calls.get(&id).and_then(|call| call.media.as_ref()).is_some_and(|media| media.send(command));
        if !taken {
            self.complain(id, "the call has no media yet", "wait for the `media_up` event");
        }
    }

    /// Finds the call that a command means.
    fn which(&mut self, call: Option<CallId>) -> Option<CallId> {
        let mut open = self.calls.iter().filter(|(_, call)| !call.has_ended()).map(|(id, _)| *id);
        let found = match call {
            Some(call) => open.find(|id| *id == call),
            None => open.next().filter(|_| open.next().is_none()),
        };
        if found.is_none() {
            let (message, remedy) = match call {
                Some(call) => {
                    (format!("there is no call {call}"), "use the id of an `incoming` or `calling` event")
                }
                None => ("there is not exactly one call".to_owned(), "name the call"),
            };
            self.report(Event::error(Some("call"), message, remedy));
        }
        found
    }

    fn complain(&mut self, call: CallId, message: impl ToString, remedy: &str) {
        self.report(Event::Error {
            call: Some(call),
            field: None,
            message: message.to_string(),
            remedy: remedy.to_owned(),
        });
    }

    /// Reports an event. Calls must go on when nobody reads: then events are dropped and counted.
    fn report(&mut self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.dropped += 1;
        }
    }
}

/// Takes the description of the other side, the first that comes: that of the answer repeats that
/// of early media.
fn accept(call: &mut Call, media: String) {
    if matches!(call.negotiation, Negotiation::Offered) {
        call.negotiation = Negotiation::Done;
        if let Some(handle) = &call.media {
            handle.send(MediaCommand::Accept(media));
        }
    }
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn new_call_id() -> CallId {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = u128::from(getrandom::u64().unwrap_or_default()) << 64
        | u128::from(getrandom::u64().unwrap_or_default());
    CallId::new(u64::try_from(unix.as_millis()).unwrap_or_default(), random)
}
