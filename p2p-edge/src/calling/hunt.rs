//! One outgoing call to all devices of a user: all ring, the first answer wins.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use call_model::{CallId, Cause};

use super::frame::{Invite, ResumeToken};
use super::session::{CallSession, CommandError, EndedBy, SessionCommand, SessionEvent, SessionTimers};

/// Most devices that one call rings.
pub const MAX_DEVICES: usize = 16;
/// How long a hunt looks for a device that acknowledges, from its start on.
pub const HUNT_REACH: Duration = Duration::from_secs(6);

/// Names a device within one hunt. The driver chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);

/// One outgoing call to one or several devices. The user of a hunt sees one call: the events are
/// those of one [`CallSession`]. Sans-IO.
///
/// The driver adds devices as it finds them ([`Hunt::add`]), says what became of dialling them
/// ([`Hunt::connected`], [`Hunt::failed`]) and when there will be no more ([`Hunt::no_more`]).
/// Early media of a device reaches the user only where no other device can still answer: media is
/// keyed to one device, and another may win.
#[derive(Debug)]
pub struct Hunt {
    call: CallId,
    timers: SessionTimers,
    devices: BTreeMap<DeviceId, Device>,
    complete: bool,
    reached: bool,
    winner: Option<DeviceId>,
    early: Option<DeviceId>,
    /// Devices that have rung or sent early media.
    alerted: BTreeSet<DeviceId>,
    /// Devices that were not reached, or gave up for a reason that another may not have.
    unable: BTreeSet<DeviceId>,
    trying: bool,
    ringing: bool,
    media_up: bool,
    ended: bool,
    best: Option<Verdict>,
    reach_by: Option<Instant>,
    ring_by: Option<Instant>,
    takes_refer: bool,
    events: VecDeque<SessionEvent>,
}

#[derive(Debug)]
enum Device {
    Dialling,
    Session(Box<CallSession>),
    Failed,
}

impl Device {
    /// Says whether the device may still answer.
    fn is_alive(&self) -> bool {
        match self {
            Device::Dialling => true,
            Device::Session(session) => !session.has_ended(),
            Device::Failed => false,
        }
    }
}

#[derive(Clone, Debug)]
struct Verdict {
    cause: Cause,
    sip_status: Option<u16>,
    text: String,
    by: EndedBy,
}

impl Verdict {
    /// Says how much a device's refusal tells about its user. A deliberate refusal says most; a
    /// device that is out of reach says nothing.
    fn rank(&self) -> u8 {
        match self.cause {
            Cause::CALL_REJECTED => 5,
            Cause::USER_BUSY => 4,
            Cause::NO_ANSWER_FROM_USER => 3,
            Cause::NO_USER_RESPONDING => 1,
            Cause::SUBSCRIBER_ABSENT | Cause::DESTINATION_OUT_OF_ORDER => 0,
            _ => 2,
        }
    }

    /// Says whether the refusal is about the device's own state: another one, asked the same, may
    /// well take the call (RFC 3261 21.5.4 of 503).
    fn is_inability(&self) -> bool {
        let by_status = matches!(self.sip_status, Some(500 | 502 | 503 | 504));
        by_status
            || matches!(
                self.cause,
                Cause::NO_CIRCUIT_AVAILABLE
                    | Cause::NETWORK_OUT_OF_ORDER
                    | Cause::TEMPORARY_FAILURE
                    | Cause::SWITCHING_EQUIPMENT_CONGESTION
                    | Cause::REQUESTED_CIRCUIT_NOT_AVAILABLE
                    | Cause::RESOURCE_UNAVAILABLE
                    | Cause::DESTINATION_OUT_OF_ORDER
            )
    }

    /// A 6xx answer speaks for the user, not for one device (RFC 3261 21.6).
    fn is_final(&self) -> bool {
        self.sip_status.is_some_and(|status| status >= 600)
    }
}

impl Hunt {
    /// Starts a hunt without devices.
    pub fn new(call: CallId, timers: SessionTimers, now: Instant) -> Self {
        Self {
            call,
            timers,
            devices: BTreeMap::new(),
            complete: false,
            reached: false,
            winner: None,
            early: None,
            alerted: BTreeSet::new(),
            unable: BTreeSet::new(),
            trying: false,
            ringing: false,
            media_up: false,
            ended: false,
            best: None,
            reach_by: Some(now + HUNT_REACH),
            ring_by: Some(now + timers.ringing),
            takes_refer: false,
            events: VecDeque::new(),
        }
    }

    /// Passes on what a device asks for by `refer`, which is refused otherwise.
    #[must_use]
    pub fn taking_refer(mut self, takes: bool) -> Self {
        self.takes_refer = takes;
        self
    }

    /// Returns the id of the call.
    pub fn call(&self) -> CallId {
        self.call
    }

    /// Adds a device that is being dialled. Returns false where it is not wanted: the hunt is
    /// decided, full, has the device already, or has promised early media to another.
    pub fn add(&mut self, device: DeviceId) -> bool {
        let wanted = !self.ended
            && self.winner.is_none()
            && self.early.is_none()
            && self.devices.len() < MAX_DEVICES
            && !self.devices.contains_key(&device);
        if wanted {
            self.devices.insert(device, Device::Dialling);
        }
        wanted
    }

    /// A stream to an added device is open: sends the invite there. Returns false where it is no
    /// longer wanted; close the stream then.
    ///
    /// # Errors
    /// `Invalid` as [`CallSession::outgoing`]; the device counts as failed.
    pub fn connected(
        &mut self,
        now: Instant,
        device: DeviceId,
        invite: Invite,
        token: ResumeToken,
    ) -> Result<bool, CommandError> {
        let dialling = matches!(self.devices.get(&device), Some(Device::Dialling));
        if !dialling || self.ended || self.winner.is_some() {
            return Ok(false);
        }
        // The ringing time of the hunt counts from its start; sessions must not outlast it by much.
        match CallSession::outgoing(invite, token, self.timers, now) {
            Ok(session) => {
                let session = session.taking_refer(self.takes_refer);
                self.devices.insert(device, Device::Session(Box::new(session)));
                self.drain(now, device);
                Ok(true)
            }
            Err(error) => {
                self.failed(now, device);
                Err(error)
            }
        }
    }

    /// An added device could not be dialled.
    pub fn failed(&mut self, now: Instant, device: DeviceId) {
        if let Some(entry @ Device::Dialling) = self.devices.get_mut(&device) {
            *entry = Device::Failed;
            self.conclude(now);
        }
    }

    /// An added device cannot be asked, for a reason that says more than that it is not there.
    pub fn refused(&mut self, now: Instant, device: DeviceId, cause: Cause, sip_status: u16, text: &str) {
        if let Some(Device::Dialling) = self.devices.get(&device) {
            let (text, by) = (text.to_owned(), EndedBy::Local);
            self.note(Verdict { cause, sip_status: Some(sip_status), text, by });
            self.failed(now, device);
        }
    }

    /// Gives a device that is tried in the place of another the time that the first had to
    /// acknowledge.
    pub fn reach_anew(&mut self, now: Instant) {
        self.reach_by = self.reach_by.map(|by| by.max(now + self.timers.acknowledge));
    }

    /// Another device waits in the place of this one: where its stream was lost before the answer, it
    /// is given up unless it is back by then.
    pub fn resume_by(&mut self, now: Instant, device: DeviceId, at: Instant) {
        self.with_session(now, device, |session| session.resume_by(at));
    }

    /// Gives a device up whose stream was lost before the answer and that is not reached any more.
    pub fn give_up(&mut self, now: Instant, device: DeviceId) {
        self.with_session(now, device, CallSession::give_up);
    }

    /// No further device will be added. Where none was reached the hunt ends at once.
    pub fn no_more(&mut self, now: Instant) {
        self.complete = true;
        self.conclude(now);
    }

    /// Ends the hunt because the look-up gave a final reason, such as an unallocated number. Does
    /// nothing once a device has answered.
    pub fn abandon(&mut self, now: Instant, cause: Cause, sip_status: Option<u16>, text: &str) {
        if self.winner.is_some() {
            return;
        }
        let verdict = Verdict { cause, sip_status, text: text.to_owned(), by: EndedBy::Far };
        self.cancel_all(now, false);
        self.end(verdict);
    }

    /// Hands over bytes from the stream of a device.
    pub fn handle_bytes(&mut self, now: Instant, device: DeviceId, bytes: &[u8]) {
        self.with_session(now, device, |session| session.handle_bytes(now, bytes));
    }

    /// The stream of a device is lost.
    pub fn handle_closed(&mut self, now: Instant, device: DeviceId) {
        self.with_session(now, device, |session| session.handle_closed(now));
    }

    /// Returns the devices whose call should be put on a new stream: dial them again, then call
    /// [`Hunt::resume`].
    pub fn wanting_resume(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.sessions().filter(|(_, session)| session.wants_resume()).map(|(device, _)| device)
    }

    /// A new stream to a device is open: puts its call there. Returns false where it is no longer
    /// wanted; close the stream then.
    pub fn resume(&mut self, now: Instant, device: DeviceId) -> bool {
        let mut taken = false;
        self.with_session(now, device, |session| taken = session.resume(now).is_ok());
        taken
    }

    /// Carries out what the user of the call wants.
    ///
    /// # Errors
    /// As [`CallSession::handle_command`]. Before a device has answered only `Bye`, `Cancel`,
    /// `MediaUp`, and what belongs to early media have a place.
    pub fn handle_command(&mut self, now: Instant, command: SessionCommand) -> Result<(), CommandError> {
        if self.ended {
            return Err(CommandError::Ended);
        }
        if let (None, SessionCommand::Bye { .. } | SessionCommand::Cancel { .. }) = (self.winner, &command) {
            let (cause, text, elsewhere) = match command {
                SessionCommand::Bye { cause, text } => (cause, text, false),
                SessionCommand::Cancel { answered_elsewhere: true } => {
                    (Cause::NON_SELECTED_USER_CLEARING, "answered elsewhere".to_owned(), true)
                }
                _ => (Cause::NORMAL_CALL_CLEARING, "cancelled".to_owned(), false),
            };
            self.cancel_all(now, elsewhere);
            self.end(Verdict { cause, sip_status: Some(487), text, by: EndedBy::Local });
            return Ok(());
        }
        if command == SessionCommand::MediaUp {
            self.media_up = true;
        }
        let Some(device) = self.winner.or(self.early) else {
            return if command == SessionCommand::MediaUp { Ok(()) } else { Err(CommandError::State) };
        };
        let mut result = Err(CommandError::State);
        self.with_session(now, device, |session| result = session.handle_command(now, command));
        result
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<DeviceId> = self
            .sessions()
            .filter(|(_, session)| session.poll_timeout().is_some_and(|at| at <= now))
            .map(|(device, _)| device)
            .collect();
        for device in due {
            self.with_session(now, device, |session| session.handle_timeout(now));
        }
        if self.reach_by.take_if(|at| *at <= now).is_some() && !self.reached {
            self.cancel_all(now, false);
            self.end(absent());
        }
        if self.ring_by.take_if(|at| *at <= now).is_some() && self.winner.is_none() {
            self.cancel_all(now, false);
            let text = "no answer".to_owned();
            let by = EndedBy::Timeout;
            let timed_out = Verdict { cause: Cause::NO_ANSWER_FROM_USER, sip_status: Some(480), text, by };
            self.note(timed_out);
            let best = self.best.take().unwrap_or_else(absent);
            self.end(best);
        }
    }

    /// Returns the next bytes for the stream of a device.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(DeviceId, Vec<u8>)> {
        self.devices.iter_mut().find_map(|(device, entry)| match entry {
            Device::Session(session) => session.poll_transmit().map(|bytes| (*device, bytes)),
            _ => None,
        })
    }

    /// Returns the next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Returns when [`Hunt::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let sessions = self.sessions().filter_map(|(_, session)| session.poll_timeout());
        sessions.chain(self.reach_by).chain(self.ring_by).min()
    }

    /// Says whether a device has nothing left to send or hear: close its stream.
    pub fn is_device_finished(&self, device: DeviceId) -> bool {
        match self.devices.get(&device) {
            Some(Device::Session(session)) => session.is_finished(),
            Some(Device::Dialling) => self.ended || self.winner.is_some(),
            Some(Device::Failed) | None => true,
        }
    }

    /// Says whether the device is still being dialled or called.
    pub fn is_device_alive(&self, device: DeviceId) -> bool {
        self.devices.get(&device).is_some_and(Device::is_alive)
    }

    /// Says whether the device has rung, sent early media or answered: it has the call.
    pub fn has_alerted(&self, device: DeviceId) -> bool {
        self.winner == Some(device) || self.alerted.contains(&device)
    }

    /// Says whether another device may be tried in place of this one: it was not reached, gave up
    /// before it rang for a reason of its own, or was lost for good before it answered.
    pub fn may_be_replaced(&self, device: DeviceId) -> bool {
        !self.is_device_alive(device)
            && !self.has_alerted(device)
            && (self.unable.contains(&device) || self.session(device).is_none())
    }

    /// Says whether nothing is left to do or to read: drop the hunt.
    pub fn is_finished(&self) -> bool {
        self.ended && self.events.is_empty() && self.sessions().all(|(_, session)| session.is_finished())
    }

    /// Says whether `Ended` was reported.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns the device that answered.
    pub fn winner(&self) -> Option<DeviceId> {
        self.winner
    }

    /// Returns the session of a device, for its state and counters.
    pub fn session(&self, device: DeviceId) -> Option<&CallSession> {
        match self.devices.get(&device) {
            Some(Device::Session(session)) => Some(session),
            _ => None,
        }
    }

    fn sessions(&self) -> impl Iterator<Item = (DeviceId, &CallSession)> {
        self.devices.iter().filter_map(|(device, entry)| match entry {
            Device::Session(session) => Some((*device, &**session)),
            _ => None,
        })
    }

    fn with_session(&mut self, now: Instant, device: DeviceId, act: impl FnOnce(&mut CallSession)) {
        if let Some(Device::Session(session)) = self.devices.get_mut(&device) {
            act(session);
            self.drain(now, device);
        }
    }

    fn drain(&mut self, now: Instant, device: DeviceId) {
        while let Some(Device::Session(session)) = self.devices.get_mut(&device) {
            if session.is_acknowledged() {
                self.reached = true;
                self.reach_by = None;
            }
            let Some(event) = session.poll_event() else { break };
            self.merge(now, device, event);
        }
    }

    /// Turns an event of one device into one of the call.
    fn merge(&mut self, now: Instant, device: DeviceId, event: SessionEvent) {
        if self.ended {
            return;
        }
        if self.winner.is_some_and(|winner| winner != device) {
            return;
        }
        match event {
            SessionEvent::Trying => {
                if !std::mem::replace(&mut self.trying, true) {
                    self.events.push_back(SessionEvent::Trying);
                }
            }
            SessionEvent::Ringing => {
                self.alerted.insert(device);
                self.report_ringing();
            }
            SessionEvent::Progress { media } => {
                self.alerted.insert(device);
                let alone = self.devices.iter().all(|(other, entry)| *other == device || !entry.is_alive());
                if alone {
                    self.early = Some(device);
                    self.ringing = true;
                    self.events.push_back(SessionEvent::Progress { media });
                } else {
                    self.report_ringing();
                }
            }
            SessionEvent::Answered { media } => {
                self.winner = Some(device);
                self.ring_by = None;
                self.cancel_all(now, true);
                self.events.push_back(SessionEvent::Answered { media });
                if self.media_up {
                    // Media came up with the early media of this very device.
                    self.with_session(now, device, |session| {
                        let _ = session.handle_command(now, SessionCommand::MediaUp);
                    });
                }
            }
            SessionEvent::Ended { cause, sip_status, text, by } => {
                let acknowledged = self.session(device).is_some_and(CallSession::is_acknowledged);
                let mut verdict = Verdict { cause, sip_status, text, by };
                if self.winner == Some(device) {
                    self.end(verdict);
                    return;
                }
                if !acknowledged {
                    verdict = absent();
                }
                if !acknowledged || verdict.is_inability() {
                    self.unable.insert(device);
                }
                if verdict.by == EndedBy::Lost {
                    // It has died while it rang: whoever it rang for is not reached by it any more.
                    self.alerted.remove(&device);
                    self.unable.insert(device);
                }
                if verdict.is_final() {
                    self.cancel_all(now, false);
                    self.end(verdict);
                    return;
                }
                if self.early == Some(device) {
                    self.early = None;
                    self.media_up = false;
                }
                self.note(verdict);
                self.conclude(now);
            }
            SessionEvent::Invited(_) => {}
            other => self.events.push_back(other),
        }
    }

    fn report_ringing(&mut self) {
        if !std::mem::replace(&mut self.ringing, true) {
            self.events.push_back(SessionEvent::Ringing);
        }
    }

    fn note(&mut self, verdict: Verdict) {
        if self.best.as_ref().is_none_or(|best| verdict.rank() > best.rank()) {
            self.best = Some(verdict);
        }
    }

    /// Ends the hunt where no device is left that could answer.
    fn conclude(&mut self, now: Instant) {
        let alive = self.devices.values().any(Device::is_alive);
        if self.ended || self.winner.is_some() || !self.complete || alive {
            return;
        }
        self.cancel_all(now, false);
        let best = self.best.take().unwrap_or_else(absent);
        self.end(best);
    }

    /// Cancels every device but the winner, and forgets those that are still being dialled.
    fn cancel_all(&mut self, now: Instant, answered_elsewhere: bool) {
        for (device, entry) in &mut self.devices {
            match entry {
                Device::Session(session) if self.winner != Some(*device) => {
                    // A session that has ended by itself needs no cancel, and says so.
                    let _ = session.handle_command(now, SessionCommand::Cancel { answered_elsewhere });
                    while let Some(event) = session.poll_event() {
                        if !self.ended && matches!(event, SessionEvent::Exchange(_)) {
                            self.events.push_back(event);
                        }
                    }
                }
                Device::Dialling => *entry = Device::Failed,
                _ => {}
            }
        }
    }

    fn end(&mut self, verdict: Verdict) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        (self.reach_by, self.ring_by) = (None, None);
        let Verdict { cause, sip_status, text, by } = verdict;
        self.events.push_back(SessionEvent::Ended { cause, sip_status, text, by });
    }
}

fn absent() -> Verdict {
    Verdict {
        cause: Cause::SUBSCRIBER_ABSENT,
        sip_status: Some(480),
        text: "no device of the user could be reached".to_owned(),
        by: EndedBy::Timeout,
    }
}
