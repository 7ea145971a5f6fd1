//! The home of handles: keeps their state, decides who sees it, and keeps text.

mod publish;
mod texts;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use call_model::Handle;
use libp2p::PeerId;

use super::bucket::Bucket;
use super::feed::{Feed, View};
use super::frame::Frame;
use super::judge::{Certified, Judge};
use super::mailbox::Mailbox;
use super::ring::{Members, homes_of};
use super::rules::SignedRules;
use super::state::HandleState;
use super::text::SignedText;
use super::{PresenceCounters, PresenceLimits, Refused};

/// How often a home looks for what it may forget.
const SWEEP: Duration = Duration::from_secs(60);

/// What a home has to say beside frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HomeEvent {
    /// A text for a handle of which this supernode is no home any more: the agent beside it sends it
    /// to those that are.
    HandOver(SignedText),
}

/// What a home does when a time has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A link that was lost is given up.
    Link(PeerId),
    /// A device's announcement ends, or nobody vouches for the device any more.
    Device(Handle, u8),
    /// A handle that nobody has published is offline.
    Settled(Handle),
    Sweep,
}

/// A device that is on.
#[derive(Clone, Debug)]
struct Presence {
    /// The agent that vouches for it.
    via: PeerId,
    /// Whether its texts are delivered from here.
    delivers: bool,
    /// When it is gone unless something is heard of it.
    ends: Instant,
    /// When its announcement ends.
    expires: Instant,
}

#[derive(Clone, Debug)]
struct Record {
    certified: Option<(Certified, Vec<u8>)>,
    rules: Option<SignedRules>,
    devices: BTreeMap<u8, Presence>,
    state: HandleState,
    subscribers: BTreeSet<(PeerId, u32)>,
    mailbox: Mailbox,
    bucket: Bucket,
    /// Until when a handle without devices may have some elsewhere.
    settles: Instant,
    /// When something was last said of the handle.
    used: Instant,
}

#[derive(Clone, Debug)]
struct Link {
    up: bool,
    feed: Option<Feed>,
    /// What the agent has said of its devices in this session.
    said: u64,
    /// Whether the agent waits to hear that it has everything.
    owes_still: bool,
    /// When a link that is down is given up.
    until: Option<Instant>,
}

/// The home of handles. Sans-IO: frames of agents come in by [`Home::handle_frame`], those for them go
/// out by [`Home::poll_transmit`]; the agent of the same supernode is one of them.
#[derive(Debug)]
pub struct Home {
    me: PeerId,
    limits: PresenceLimits,
    members: Members,
    records: HashMap<Handle, Record>,
    links: BTreeMap<PeerId, Link>,
    /// Links to which there may be something to tell.
    news: BTreeSet<PeerId>,
    deadlines: BTreeSet<(Instant, Due)>,
    mailboxes_bytes: usize,
    transmit: VecDeque<(PeerId, Frame)>,
    events: VecDeque<HomeEvent>,
    counters: PresenceCounters,
}

/// What feeds read of a home.
struct Shown<'a> {
    records: &'a HashMap<Handle, Record>,
    now: Instant,
}

impl View for Shown<'_> {
    fn state(&self, handle: &Handle) -> Option<&HandleState> {
        self.records.get(handle).map(|record| &record.state)
    }

    fn may_see(&self, handle: &Handle, watcher: &Handle) -> bool {
        self.records.get(handle).is_some_and(|record| record.may_see(watcher))
    }

    fn is_settling(&self, handle: &Handle) -> bool {
        let early = |record: &Record| record.state.is_offline() || record.rules.is_none();
        self.records.get(handle).is_some_and(|record| self.now < record.settles && early(record))
    }
}

impl Record {
    /// Nobody may before the user has said who.
    fn may_see(&self, watcher: &Handle) -> bool {
        self.rules.as_ref().is_some_and(|signed| signed.rules.allow(watcher))
    }

    fn keys(&self) -> &[crate::identity::PublicKey] {
        self.certified.as_ref().map(|(certified, _)| certified.keys.as_slice()).unwrap_or_default()
    }
}

impl Home {
    /// Builds the home of a supernode.
    pub fn new(me: PeerId, limits: PresenceLimits, now: Instant) -> Self {
        Self {
            me,
            limits,
            members: Members::new([me]),
            records: HashMap::new(),
            links: BTreeMap::new(),
            news: BTreeSet::new(),
            deadlines: BTreeSet::from([(now + SWEEP, Due::Sweep)]),
            mailboxes_bytes: 0,
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            counters: PresenceCounters::default(),
        }
    }

    /// Takes the supernodes that are known now, this one included. Text for handles of which this
    /// one is no home any more is handed over; their devices and watchers move by themselves.
    pub fn handle_members(&mut self, members: Members) {
        self.members = members;
        let mut moved: Vec<Handle> = (self.records.iter())
            .filter(|(handle, record)| !record.mailbox.is_empty() && !self.is_home_of(handle))
            .map(|(handle, _)| handle.clone())
            .collect();
        moved.sort_unstable();
        for handle in moved {
            let Some(record) = self.records.get_mut(&handle) else { continue };
            let (texts, bytes) = record.mailbox.empty();
            self.mailboxes_bytes = self.mailboxes_bytes.saturating_sub(bytes);
            self.events.extend(texts.into_iter().map(HomeEvent::HandOver));
        }
    }

    /// An agent is connected.
    pub fn handle_connected(&mut self, peer: PeerId) {
        let known = self.links.len();
        if let Some(link) = self.links.get_mut(&peer) {
            link.up = true;
        } else if known < self.limits.links {
            self.links.insert(peer, Link { up: true, feed: None, said: 0, owes_still: false, until: None });
        } else {
            self.counters.refuse(Refused::Links);
        }
    }

    /// The connection to an agent is lost. Its devices count as there for a while, in which it, or
    /// another agent, may speak for them again; then they are offline, without a message.
    pub fn handle_closed(&mut self, now: Instant, peer: &PeerId) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let until = now + self.limits.grace;
        (link.up, link.until) = (false, Some(until));
        self.news.remove(peer);
        self.transmit.retain(|(to, _)| to != peer);
        self.deadlines.insert((until, Due::Link(*peer)));
    }

    /// Takes a frame of an agent. Whatever is wrong with it is counted, and answered where the agent
    /// can mend it.
    pub fn handle_frame(&mut self, now: Instant, unix: u64, judge: &dyn Judge, from: PeerId, frame: Frame) {
        if !self.links.get(&from).is_some_and(|link| link.up) {
            self.counters.refuse(Refused::Misplaced);
            return;
        }
        self.counters.frames_in += 1;
        if frame.is_said()
            && let Some(link) = self.links.get_mut(&from)
        {
            link.said += 1;
        }
        match frame {
            Frame::Publish { statement, rules, delivers, certificate } => {
                let published = publish::Published { statement, rules, delivers, certificate };
                self.publish((now, unix), judge, from, published);
            }
            Frame::Change { handle, device, sequence, step } => {
                self.change(now, from, handle, device, sequence, step);
            }
            Frame::Withdraw { handle, device } => self.withdraw(now, from, &handle, device),
            Frame::Rules(rules) => self.take_rules(now, judge, rules),
            Frame::Watch { session, items } => self.watch(now, from, session, items),
            Frame::Unwatch { items } => self.unwatch(from, items),
            Frame::Resume { session, version } => self.resume(now, from, session, version),
            Frame::Text { text, device: None } => self.keep_text((now, unix), judge, from, text),
            Frame::Got { handle, device, id } => self.got(from, &handle, device, id),
            Frame::Ask { handle } => {
                let known = self.records.get(&handle).and_then(|record| record.certified.as_ref());
                let certificate = known.map(|(_, bytes)| bytes.clone());
                self.send(from, Frame::Certificate { handle, certificate });
            }
            Frame::Unknown { .. } => {}
            _ => self.counters.refuse(Refused::Misplaced),
        }
    }

    /// Takes a new revocation list, or the passing of time: users whose certificate is void are
    /// offline at once.
    pub fn handle_revocations(&mut self, now: Instant, judge: &dyn Judge) {
        let void = |record: &Record| {
            record.certified.as_ref().is_some_and(|(certified, _)| !judge.is_good(certified))
        };
        let mut voided: Vec<Handle> =
            self.records.iter().filter(|(_, r)| void(r)).map(|(handle, _)| handle.clone()).collect();
        voided.sort_unstable();
        for handle in voided {
            let Some(record) = self.records.get_mut(&handle) else { continue };
            (record.certified, record.rules) = (None, None);
            record.devices.clear();
            record.state = HandleState::default();
            record.settles = now;
            self.counters.refuse(Refused::Certificate);
            self.touch(&handle);
        }
    }

    /// Returns the next frame and the agent that it is for.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(PeerId, Frame)> {
        let next = self.transmit.pop_front().or_else(|| self.next_news(now));
        self.counters.frames_out += u64::from(next.is_some());
        next
    }

    fn next_news(&mut self, now: Instant) -> Option<(PeerId, Frame)> {
        while let Some(peer) = self.news.first().copied() {
            let shown = Shown { records: &self.records, now };
            if let Some(link) = self.links.get_mut(&peer).filter(|link| link.up)
                && let Some(feed) = &mut link.feed
            {
                if let Some(frame) = feed.next_states(&shown) {
                    return Some((peer, frame));
                }
                if std::mem::take(&mut link.owes_still) {
                    return Some((peer, Frame::Still { version: feed.version(), received: link.said }));
                }
            }
            self.news.remove(&peer);
        }
        None
    }

    /// Returns the next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<HomeEvent> {
        self.events.pop_front()
    }

    /// Returns when [`Home::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, unix: u64) {
        while let Some((at, due)) = self.deadlines.first().cloned() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            match due {
                Due::Link(peer) => self.give_up(now, &peer),
                Due::Device(handle, device) => self.check_device(now, &handle, device),
                Due::Settled(handle) => self.touch(&handle),
                Due::Sweep => {
                    self.sweep(now, unix);
                    self.deadlines.insert((now + SWEEP, Due::Sweep));
                }
            }
        }
    }

    /// Returns how many handles are kept, and how many of them are on.
    pub fn handles(&self) -> (usize, usize) {
        let on = self.records.values().filter(|record| !record.state.is_offline()).count();
        (self.records.len(), on)
    }

    /// Returns how many texts wait.
    pub fn texts(&self) -> usize {
        self.records.values().map(|record| record.mailbox.len()).sum()
    }

    /// Returns what was counted.
    pub fn counters(&self) -> &PresenceCounters {
        &self.counters
    }

    fn is_home_of(&self, handle: &Handle) -> bool {
        homes_of(handle, &self.members).contains(&self.me)
    }

    fn send(&mut self, to: PeerId, frame: Frame) {
        self.transmit.push_back((to, frame));
    }

    /// Returns the record of a handle, made where there is none.
    fn record(&mut self, now: Instant, handle: &Handle) -> Result<&mut Record, Refused> {
        if !self.records.contains_key(handle) {
            if self.records.len() >= self.limits.handles {
                return Err(Refused::Handles);
            }
            let settles = now + self.limits.settle;
            let record = Record {
                certified: None,
                rules: None,
                devices: BTreeMap::new(),
                state: HandleState::default(),
                subscribers: BTreeSet::new(),
                mailbox: Mailbox::default(),
                bucket: Bucket::new(self.limits.burst, now),
                settles,
                used: now,
            };
            self.deadlines.insert((settles, Due::Settled(handle.clone())));
            self.records.insert(handle.clone(), record);
        }
        let record = self.records.get_mut(handle).ok_or(Refused::Handles)?;
        record.used = now;
        Ok(record)
    }

    /// Tells everybody who watches a handle that something of it may have changed.
    fn touch(&mut self, handle: &Handle) {
        let Some(record) = self.records.get(handle) else { return };
        for (peer, slot) in &record.subscribers {
            if let Some(link) = self.links.get_mut(peer)
                && let Some(feed) = &mut link.feed
            {
                feed.touch(*slot);
                if link.up {
                    self.news.insert(*peer);
                }
            }
        }
    }

    /// A link did not come back: the devices behind it are gone, and nobody watches there.
    fn give_up(&mut self, now: Instant, peer: &PeerId) {
        let Some(link) = self.links.get(peer) else { return };
        if link.up || link.until.is_none_or(|until| until > now) {
            return;
        }
        if let Some(feed) = self.links.remove(peer).and_then(|link| link.feed) {
            self.forget_feed(*peer, &feed);
        }
        for (handle, device) in self.devices_via(peer) {
            self.remove_device(&handle, device);
        }
    }

    fn devices_via(&self, peer: &PeerId) -> Vec<(Handle, u8)> {
        let mut devices: Vec<(Handle, u8)> = (self.records.iter())
            .flat_map(|(handle, record)| record.devices.iter().map(move |(device, p)| (handle, *device, p)))
            .filter(|(_, _, presence)| presence.via == *peer)
            .map(|(handle, device, _)| (handle.clone(), device))
            .collect();
        devices.sort_unstable();
        devices
    }

    /// Forgets users that nothing was heard of for long, and texts that nobody has fetched.
    fn sweep(&mut self, now: Instant, unix: u64) {
        let (memory, counters, total) = (self.limits.memory, &mut self.counters, &mut self.mailboxes_bytes);
        self.records.retain(|_, record| {
            let (texts, bytes) = record.mailbox.expire(unix);
            counters.texts_expired += texts as u64;
            *total = total.saturating_sub(bytes);
            let in_use =
                !record.devices.is_empty() || !record.subscribers.is_empty() || !record.mailbox.is_empty();
            let keep = if record.rules.is_some() { memory } else { Duration::ZERO };
            in_use || now.saturating_duration_since(record.used) < keep
        });
    }
}
