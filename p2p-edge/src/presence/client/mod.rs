//! A device: what it says of its user, and what it hears of its contacts.

mod hear;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use call_model::Handle;
use libp2p::PeerId;
use sha2::{Digest, Sha256};

use super::bucket::Bucket;
use super::chain::{Chains, MAX_STEPS};
use super::frame::{Frame, Verdict, WatchItem};
use super::judge::Certified;
use super::rules::{Rules, SignedRules};
use super::state::{ANNOUNCEMENT_LIFE, Announcement, HandleState, SignedAnnouncement, Statement, Step};
use super::text::{SignedText, Text, TextId};
use super::{Availability, MAX_NOTE, PresenceCounters, PresenceLimits, Refused};
use crate::identity::{NodeKey, UserBundle};

/// Ids of texts that are remembered, so that none is shown twice.
const REMEMBERED: usize = 1024;
/// How often a text is sent before its sender hears that nobody has taken it.
const TEXT_TRIES: u32 = 30;
/// Watches in one frame.
const ITEMS: usize = 200;
/// Tokens that a device leaves to the network: its agent's bucket is no fuller than its own.
const SPARE: u32 = 2;

/// Why a device does not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The note is longer than [`MAX_NOTE`] bytes, or the text than [`super::MAX_TEXT`].
    #[error("the text is too long")]
    TooLong,
    /// There are as many contacts, rules or unsent texts as may be.
    #[error("there are as many of these as there may be")]
    TooMany,
}

/// What a device tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A contact is shown otherwise than before.
    Presence {
        /// The contact.
        handle: Handle,
        /// How available it is, at the most available of its devices.
        availability: Availability,
        /// What it says besides.
        note: String,
    },
    /// A text has come, verified.
    Text(Text),
    /// What became of a text of this device.
    Taken {
        /// The text.
        id: TextId,
        /// Whether the addressee's home keeps it.
        verdict: Verdict,
    },
    /// The state of this device was refused for good.
    Rejected(Refused),
}

#[derive(Clone, Debug)]
struct Contact {
    slot: u32,
    /// What was verified.
    state: HandleState,
    /// What waits for a certificate.
    unverified: BTreeMap<u8, Statement>,
    certified: Option<Certified>,
    shown: (Availability, String),
    /// When the certificate is asked for again.
    asks: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Outgoing {
    text: SignedText,
    tries: u32,
    next: Instant,
}

/// One device of a user. Sans-IO; the driver tells it of the agent that it is connected to.
pub struct Client {
    handle: Handle,
    device: u8,
    serial: u64,
    key: NodeKey,
    certificate: Vec<u8>,
    secret: [u8; 32],
    limits: PresenceLimits,

    wanted: (Availability, String),
    statement: Option<Statement>,
    /// The chains of the last announcement.
    chains: Option<Chains>,
    sequence: u64,
    /// Whether the agent may not have the last statement.
    unsaid: bool,
    rules: Option<SignedRules>,
    bucket: Bucket,

    contacts: BTreeMap<Handle, Contact>,
    by_slot: BTreeMap<u32, Handle>,
    next_slot: u32,
    agent: Option<PeerId>,
    /// The agent that knows what is watched here, and the name of that.
    session: Option<(PeerId, u64)>,
    sessions: u64,
    version: u64,
    said: u64,

    outgoing: BTreeMap<TextId, Outgoing>,
    had: BTreeSet<TextId>,
    had_order: VecDeque<TextId>,
    wake: Option<Instant>,
    transmit: VecDeque<Frame>,
    events: VecDeque<ClientEvent>,
    counters: PresenceCounters,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("contacts", &self.contacts.len()).finish_non_exhaustive()
    }
}

impl Client {
    /// Builds a device from its identity. `secret` are 32 random bytes that no other device and no
    /// other life of this one has: the proofs of its steps follow from them.
    ///
    /// # Errors
    /// `NotYours` where the certificate does not hold the key.
    pub fn new(
        bundle: UserBundle,
        secret: [u8; 32],
        limits: PresenceLimits,
        now: Instant,
    ) -> Result<Self, Refused> {
        let claims = bundle.certificate.claims();
        let place = claims.keys.iter().position(|key| *key == bundle.key.public());
        let device = place.and_then(|place| u8::try_from(place).ok()).ok_or(Refused::NotYours)?;
        Ok(Self {
            handle: claims.handle.clone(),
            device,
            serial: claims.serial,
            certificate: bundle.certificate.encode(),
            key: bundle.key,
            secret,
            wanted: (Availability::Offline, String::new()),
            statement: None,
            chains: None,
            sequence: 0,
            unsaid: false,
            rules: None,
            bucket: Bucket::new(limits.burst.saturating_sub(SPARE).max(1), now),
            contacts: BTreeMap::new(),
            by_slot: BTreeMap::new(),
            next_slot: 0,
            agent: None,
            session: None,
            sessions: 0,
            version: 0,
            said: 0,
            outgoing: BTreeMap::new(),
            had: BTreeSet::new(),
            had_order: VecDeque::new(),
            wake: None,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            counters: PresenceCounters::default(),
            limits,
        })
    }

    /// Returns the place of the device's key in the certificate.
    pub fn device(&self) -> u8 {
        self.device
    }

    /// Says how available the user is; [`Availability::Offline`] hides this device.
    ///
    /// # Errors
    /// `TooLong` for a note above [`MAX_NOTE`] bytes.
    pub fn set(
        &mut self,
        now: Instant,
        unix_ms: u64,
        availability: Availability,
        note: &str,
    ) -> Result<(), ClientError> {
        if note.len() > MAX_NOTE {
            return Err(ClientError::TooLong);
        }
        self.wanted = (availability, note.to_owned());
        self.speak(now, unix_ms);
        Ok(())
    }

    /// Says who may see the user and send it text.
    ///
    /// # Errors
    /// `TooMany` for more than [`super::MAX_RULED`] handles.
    pub fn set_rules(
        &mut self,
        unix_ms: u64,
        everybody: bool,
        allowed: BTreeSet<Handle>,
        refused: BTreeSet<Handle>,
    ) -> Result<(), ClientError> {
        let before = self.rules.as_ref().map_or(0, |signed| signed.rules.sequence);
        let handle = self.handle.clone();
        let rules = Rules { handle, sequence: unix_ms.max(before + 1), everybody, allowed, refused };
        let signed = SignedRules::seal(rules, self.device, &self.key).map_err(|_| ClientError::TooMany)?;
        self.rules = Some(signed.clone());
        if self.agent.is_some() && self.statement.is_some() && !self.unsaid {
            self.send(Frame::Rules(signed));
        } else {
            // The next announcement says that there are other rules.
            self.unsaid = self.statement.is_some();
        }
        Ok(())
    }

    /// Watches exactly these contacts from now on.
    ///
    /// # Errors
    /// `TooMany` where they are more than the limits say.
    pub fn set_contacts(&mut self, contacts: &BTreeSet<Handle>) -> Result<(), ClientError> {
        if contacts.len() > self.limits.contacts {
            return Err(ClientError::TooMany);
        }
        let gone: Vec<Handle> =
            self.contacts.keys().filter(|handle| !contacts.contains(*handle)).cloned().collect();
        let mut items = Vec::new();
        for handle in &gone {
            if let Some(contact) = self.contacts.remove(handle) {
                self.by_slot.remove(&contact.slot);
                items.push((contact.slot, None));
            }
        }
        let new: Vec<Handle> =
            contacts.iter().filter(|handle| !self.contacts.contains_key(*handle)).cloned().collect();
        for handle in &new {
            let slot = self.next_slot;
            self.next_slot = self.next_slot.wrapping_add(1);
            self.by_slot.insert(slot, handle.clone());
            let contact = Contact {
                slot,
                state: HandleState::default(),
                unverified: BTreeMap::new(),
                certified: None,
                shown: (Availability::Offline, String::new()),
                asks: None,
            };
            self.contacts.insert(handle.clone(), contact);
        }
        match self.session {
            Some((agent, session)) if self.agent == Some(agent) => {
                if !items.is_empty() {
                    self.send(Frame::Unwatch { items });
                }
                let items: Vec<WatchItem> = new.iter().filter_map(|handle| self.item(handle)).collect();
                for items in items.chunks(ITEMS) {
                    self.send(Frame::Watch { session, items: items.to_vec() });
                }
            }
            // An agent that comes back has another list: it is told the new one.
            _ if !gone.is_empty() || !new.is_empty() => self.session = None,
            _ => {}
        }
        Ok(())
    }

    /// Takes the certificate of a contact that was verified at some time before.
    pub fn know(&mut self, certified: Certified) {
        if let Some(contact) = self.contacts.get_mut(&certified.handle) {
            contact.certified = Some(certified);
        }
    }

    /// Sends a text. It is sent again until a home of the addressee has taken it; what became of it
    /// comes as [`ClientEvent::Taken`]. `id` is random.
    ///
    /// # Errors
    /// `TooLong`; `TooMany` while as many as fit a mailbox are under way.
    pub fn send_text(
        &mut self,
        now: Instant,
        unix_ms: u64,
        to: Handle,
        text: &str,
        id: TextId,
    ) -> Result<(), ClientError> {
        if self.outgoing.len() >= self.limits.mailbox {
            return Err(ClientError::TooMany);
        }
        let text = Text { id, from: self.handle.clone(), to, sent_unix_ms: unix_ms, text: text.to_owned() };
        let text = SignedText::seal(text, self.certificate.clone(), self.device, &self.key)
            .map_err(|_| ClientError::TooLong)?;
        self.outgoing.insert(id, Outgoing { text, tries: 0, next: now });
        self.speak(now, unix_ms);
        Ok(())
    }

    /// The device is connected to an agent.
    pub fn handle_connected(&mut self, now: Instant, unix_ms: u64, agent: PeerId) {
        self.agent = Some(agent);
        match self.session {
            Some((known, session)) if known == agent => {
                let resume = Frame::Resume { session, version: self.version };
                self.send(resume);
            }
            _ => self.begin(agent),
        }
        for outgoing in self.outgoing.values_mut() {
            outgoing.next = outgoing.next.min(now);
        }
        self.speak(now, unix_ms);
    }

    /// The connection to the agent is lost. What is known of contacts stays.
    pub fn handle_closed(&mut self) {
        self.agent = None;
        self.transmit.clear();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, unix_ms: u64) {
        if self.wake.is_some_and(|at| at <= now) {
            self.wake = None;
            self.ask_again(now);
            self.speak(now, unix_ms);
        }
    }

    /// Returns when [`Client::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }

    /// Returns the next frame for the agent.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<Frame> {
        let frame = self.transmit.pop_front()?;
        self.counters.frames_out += 1;
        Some(frame)
    }

    /// Returns the next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Returns what is shown of a contact.
    pub fn shown(&self, handle: &Handle) -> Option<Availability> {
        self.contacts.get(handle).map(|contact| contact.shown.0)
    }

    /// Returns what was counted.
    pub fn counters(&self) -> &PresenceCounters {
        &self.counters
    }

    fn send(&mut self, frame: Frame) {
        if self.agent.is_some() {
            self.said += u64::from(frame.is_said());
            self.transmit.push_back(frame);
        }
    }

    fn item(&self, handle: &Handle) -> Option<WatchItem> {
        let contact = self.contacts.get(handle)?;
        let (mark, base) = (contact.state.mark(), contact.state.base());
        Some(WatchItem { slot: contact.slot, handle: handle.clone(), mark, base, watcher: None })
    }

    /// Tells an agent everything.
    fn begin(&mut self, agent: PeerId) {
        self.sessions += 1;
        let mut hash = Sha256::new();
        hash.update(b"causeway-presence-session-v1\0");
        hash.update(self.secret);
        hash.update(self.sessions.to_be_bytes());
        // Four bytes are enough to tell the sessions of one device apart.
        let session = hash.finalize().iter().take(4).fold(0, |value, byte| (value << 8) | u64::from(*byte));
        (self.session, self.version, self.said) = (Some((agent, session)), 0, 0);
        // What waits for a certificate is not in the marks.
        self.contacts.values_mut().for_each(|contact| contact.unverified.clear());
        let handles: Vec<Handle> = self.contacts.keys().cloned().collect();
        let items: Vec<WatchItem> = handles.iter().filter_map(|handle| self.item(handle)).collect();
        let mut chunks = items.chunks(ITEMS);
        let first = chunks.next().unwrap_or_default().to_vec();
        self.send(Frame::Watch { session, items: first });
        for items in chunks {
            self.send(Frame::Watch { session, items: items.to_vec() });
        }
        self.unsaid = self.statement.is_some();
    }

    /// Says what is not said yet, as fast as the rate allows.
    fn speak(&mut self, now: Instant, unix_ms: u64) {
        if self.agent.is_none() {
            return;
        }
        let (burst, every) = (self.limits.burst.saturating_sub(SPARE).max(1), self.limits.every);
        if self.is_behind(unix_ms) {
            if self.bucket.take(burst, every, now) {
                self.state_anew(unix_ms);
            } else {
                self.wake_at(self.bucket.next(every));
            }
        }
        let due: Vec<TextId> =
            (self.outgoing.iter()).filter(|(_, outgoing)| outgoing.next <= now).map(|(id, _)| *id).collect();
        for id in due {
            if !self.bucket.take(burst, every, now) {
                self.wake_at(self.bucket.next(every));
                break;
            }
            self.send_again(now, id);
        }
        if let Some(next) = self.outgoing.values().map(|outgoing| outgoing.next).min() {
            self.wake_at(next.max(now + Duration::from_millis(10)));
        }
        if let Some(statement) = &self.statement {
            let ends = statement.announced.announcement.expires_unix.saturating_sub(ANNOUNCEMENT_LIFE / 2);
            let left = Duration::from_millis((ends * 1000).saturating_sub(unix_ms));
            self.wake_at(now + left.max(Duration::from_secs(1)));
        }
    }

    fn send_again(&mut self, now: Instant, id: TextId) {
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return };
        outgoing.tries += 1;
        outgoing.next = now + self.limits.retry;
        if outgoing.tries > TEXT_TRIES {
            self.outgoing.remove(&id);
            self.events.push_back(ClientEvent::Taken { id, verdict: Verdict::Refused(Refused::Expired) });
            return;
        }
        let frame = Frame::Text { text: outgoing.text.clone(), device: None };
        self.send(frame);
    }

    /// Says whether what the agent has differs from what the user wants.
    fn is_behind(&self, unix_ms: u64) -> bool {
        match &self.statement {
            None => self.wanted.0 != Availability::Offline,
            Some(statement) => self.unsaid || !self.is_stated(statement) || is_due(statement, unix_ms),
        }
    }

    fn is_stated(&self, statement: &Statement) -> bool {
        statement.availability() == self.wanted.0 && statement.announced.announcement.note == self.wanted.1
    }

    /// Says the wanted state in the shortest form: that there is none, a step, or an announcement.
    fn state_anew(&mut self, unix_ms: u64) {
        let availability = self.wanted.0;
        if availability == Availability::Offline {
            (self.statement, self.chains, self.unsaid) = (None, None, false);
            let (handle, device) = (self.handle.clone(), self.device);
            self.send(Frame::Withdraw { handle, device });
            return;
        }
        let last = self.statement.clone();
        let reusable = last.filter(|held| {
            held.announced.announcement.note == self.wanted.1
                && (held.version().1 < MAX_STEPS || self.is_stated(held))
                && !is_due(held, unix_ms)
        });
        let statement = match (reusable, &self.chains) {
            (Some(held), Some(_)) if held.availability() == availability => held,
            (Some(held), Some(chains)) => {
                let (sequence, number) = held.version();
                let step = Step::new(chains, number + 1, availability);
                let stepped = Statement { step: Some(step), ..held };
                if !self.unsaid {
                    self.statement = Some(stepped);
                    let (handle, device) = (self.handle.clone(), self.device);
                    self.send(Frame::Change { handle, device, sequence, step });
                    return;
                }
                stepped
            }
            _ => self.announce(unix_ms),
        };
        self.statement = Some(statement.clone());
        self.unsaid = false;
        let rules = self.rules.as_ref().map_or(0, |signed| signed.rules.sequence);
        self.send(Frame::Publish { statement, rules, delivers: false, certificate: None });
    }

    fn announce(&mut self, unix_ms: u64) -> Statement {
        self.sequence = unix_ms.max(self.sequence + 1);
        let mut hash = Sha256::new();
        hash.update(b"causeway-presence-chains-v1\0");
        hash.update(self.secret);
        hash.update(self.sequence.to_be_bytes());
        let chains = Chains::new(hash.finalize().into());
        let announcement = Announcement {
            handle: self.handle.clone(),
            device: self.device,
            serial: self.serial,
            sequence: self.sequence,
            expires_unix: unix_ms / 1000 + ANNOUNCEMENT_LIFE,
            availability: self.wanted.0,
            note: self.wanted.1.clone(),
            anchors: chains.anchors(),
        };
        self.chains = Some(chains);
        Statement { announced: Arc::new(SignedAnnouncement::seal(announcement, &self.key)), step: None }
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Says whether half of an announcement's life is over.
fn is_due(statement: &Statement, unix_ms: u64) -> bool {
    let ends = statement.announced.announcement.expires_unix;
    unix_ms / 1000 >= ends.saturating_sub(ANNOUNCEMENT_LIFE / 2)
}
