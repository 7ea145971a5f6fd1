//! A supernode on behalf of the devices that are connected to it.

mod devices;
mod homes;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use call_model::Handle;
use libp2p::PeerId;

use super::bucket::Bucket;
use super::feed::{Feed, View};
use super::frame::{Frame, Verdict};
use super::ring::{Members, homes_of};
use super::rules::SignedRules;
use super::state::{HandleState, Statement};
use super::text::{SignedText, TextId};
use super::{PresenceCounters, PresenceLimits, Refused};

/// Supernodes that homes have named and the driver has not.
const MAX_LEARNED: usize = 64;
/// Certificates asked for and texts sent that wait for an answer, of all devices.
const MAX_WAITING: usize = 16_384;
/// Times that a link is tried again within [`PresenceLimits::grace`] before another home is watched at.
const TRIES: u32 = 6;

/// Whom a frame of an agent is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// A device that is connected here.
    Device(PeerId),
    /// A home; this supernode itself may be one.
    Home(PeerId),
}

/// What an agent asks of its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentEvent {
    /// Open a link to a home, and say [`Agent::handle_home_connected`] or
    /// [`Agent::handle_home_closed`].
    Connect(PeerId),
    /// Nothing is published or watched at a home any more: its link may be closed.
    Release(PeerId),
}

/// What an agent does when a time has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A device that was lost is gone.
    Device(PeerId),
    /// A home that was lost is tried again.
    Connect(PeerId),
    /// What a home has refused is published again.
    Publish(PeerId, Handle, u8),
    /// What was asked for and never answered is forgotten.
    Forget,
}

#[derive(Clone, Debug)]
struct Device {
    handle: Handle,
    device: u8,
    certificate: Vec<u8>,
    up: bool,
    until: Option<Instant>,
    feed: Option<Feed>,
    said: u64,
    owes_still: bool,
    statement: Option<Statement>,
    /// Sequence of the rules that the device has, and the rules once they were needed.
    rules: u64,
    signed_rules: Option<SignedRules>,
    bucket: Bucket,
    /// Where its state is published, the nearest first.
    homes: Vec<PeerId>,
    /// The home that delivers its texts.
    delivers: Option<PeerId>,
}

#[derive(Clone, Debug)]
struct Watched {
    slot: u32,
    /// The homes of the handle, the nearest first.
    homes: Vec<PeerId>,
    /// Where it is watched.
    home: Option<PeerId>,
    /// Whether that home has said all that it knows.
    answered: bool,
    state: HandleState,
    watchers: BTreeMap<Handle, Watcher>,
}

#[derive(Clone, Debug, Default)]
struct Watcher {
    granted: bool,
    /// Devices of this user and their slots.
    devices: BTreeSet<(PeerId, u32)>,
}

#[derive(Clone, Debug)]
struct HomeLink {
    up: bool,
    /// Whether the home has what it had before, or was told everything.
    ready: bool,
    /// Whether the home is tried in vain for so long that another one is watched at.
    failed: bool,
    tries: u32,
    session: u64,
    version: u64,
    said: u64,
    /// What was said last, by number.
    log: VecDeque<(u64, (Handle, u8))>,
    /// Devices of which the home may not know the last state.
    behind: BTreeSet<(Handle, u8)>,
    /// Watches to be made and taken back once the link is up.
    later: VecDeque<Frame>,
    /// Whether `later` or `log` was too short: everything is said anew.
    anew: bool,
    published: BTreeSet<(Handle, u8)>,
    slots: BTreeSet<u32>,
    /// Of these, those asked for since the home last said that it has told everything.
    unanswered: BTreeSet<u32>,
}

/// A supernode on behalf of the devices that are connected to it. Sans-IO: devices and homes each have
/// their verbs, and one queue leads out.
#[derive(Debug)]
pub struct Agent {
    limits: PresenceLimits,
    members: Members,
    known: BTreeSet<PeerId>,
    learned: BTreeSet<PeerId>,
    devices: BTreeMap<PeerId, Device>,
    by_name: BTreeMap<(Handle, u8), PeerId>,
    watched: HashMap<Handle, Watched>,
    by_slot: HashMap<u32, Handle>,
    next_slot: u32,
    homes: BTreeMap<PeerId, HomeLink>,
    /// Who waits for the verdict on a text, and from how many homes it may come.
    texts: BTreeMap<TextId, (PeerId, u8)>,
    asked: BTreeMap<Handle, BTreeSet<PeerId>>,
    next_session: u64,
    deadlines: BTreeSet<(Instant, Due)>,
    news: BTreeSet<PeerId>,
    transmit: VecDeque<(Destination, Frame)>,
    events: VecDeque<AgentEvent>,
    counters: PresenceCounters,
}

/// What the feeds of devices read of an agent.
struct Shown<'a>(&'a HashMap<Handle, Watched>);

impl View for Shown<'_> {
    fn state(&self, handle: &Handle) -> Option<&HandleState> {
        self.0.get(handle).map(|watched| &watched.state)
    }

    fn may_see(&self, handle: &Handle, watcher: &Handle) -> bool {
        self.0
            .get(handle)
            .and_then(|watched| watched.watchers.get(watcher))
            .is_some_and(|watcher| watcher.granted)
    }

    fn is_settling(&self, handle: &Handle) -> bool {
        self.0.get(handle).is_some_and(|watched| !watched.answered)
    }
}

impl Agent {
    /// Builds the agent of a supernode. `seed` is random: sessions are named after it.
    pub fn new(limits: PresenceLimits, seed: u64, now: Instant) -> Self {
        let forget = now + limits.grace * 4;
        Self {
            limits,
            members: Members::default(),
            known: BTreeSet::new(),
            learned: BTreeSet::new(),
            devices: BTreeMap::new(),
            by_name: BTreeMap::new(),
            watched: HashMap::new(),
            by_slot: HashMap::new(),
            next_slot: 0,
            homes: BTreeMap::new(),
            texts: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_session: seed,
            deadlines: BTreeSet::from([(forget, Due::Forget)]),
            news: BTreeSet::new(),
            transmit: VecDeque::new(),
            events: VecDeque::new(),
            counters: PresenceCounters::default(),
        }
    }

    /// Takes the supernodes that are known now, this one included. What has another home now is
    /// published and watched there.
    pub fn handle_members(&mut self, now: Instant, peers: impl IntoIterator<Item = PeerId>) {
        self.known = peers.into_iter().collect();
        self.learned.retain(|peer| !self.known.contains(peer));
        self.settle_members(now);
    }

    fn settle_members(&mut self, now: Instant) {
        self.members = Members::new(self.known.union(&self.learned).copied());
        let devices: Vec<PeerId> = self.devices.keys().copied().collect();
        for peer in devices {
            self.place_device(now, &peer);
        }
        let mut handles: Vec<Handle> = self.watched.keys().cloned().collect();
        handles.sort_unstable();
        for handle in handles {
            if let Some(watched) = self.watched.get_mut(&handle) {
                watched.homes = homes_of(&handle, &self.members);
            }
            self.place_watch(now, &handle);
        }
    }

    /// Sends a text to the homes of its addressee: one that a home here hands over.
    pub fn handle_text(&mut self, now: Instant, text: SignedText) {
        self.forward_text(now, text);
    }

    /// Returns the next frame and whom it is for.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(Destination, Frame)> {
        let next = self.transmit.pop_front().or_else(|| self.next_news());
        self.counters.frames_out += u64::from(next.is_some());
        next
    }

    fn next_news(&mut self) -> Option<(Destination, Frame)> {
        while let Some(peer) = self.news.first().copied() {
            let shown = Shown(&self.watched);
            if let Some(device) = self.devices.get_mut(&peer).filter(|device| device.up)
                && let Some(feed) = &mut device.feed
            {
                if let Some(frame) = feed.next_states(&shown) {
                    return Some((Destination::Device(peer), frame));
                }
                if std::mem::take(&mut device.owes_still) {
                    let still = Frame::Still { version: feed.version(), received: device.said };
                    return Some((Destination::Device(peer), still));
                }
            }
            self.news.remove(&peer);
        }
        None
    }

    /// Returns the next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    /// Returns when [`Agent::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, due)) = self.deadlines.first().cloned() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            match due {
                Due::Device(peer) => {
                    let lost = |device: &Device| !device.up && device.until.is_some_and(|until| until <= now);
                    if self.devices.get(&peer).is_some_and(lost) {
                        self.forget_device(now, &peer);
                    }
                }
                Due::Connect(peer) => self.try_home(now, peer),
                Due::Publish(home, handle, device) => self.publish_again(now, home, (handle, device)),
                Due::Forget => {
                    // Whoever still waits asks again.
                    self.texts.clear();
                    self.asked.clear();
                    self.release_homes();
                    self.deadlines.insert((now + self.limits.grace * 4, Due::Forget));
                }
            }
        }
    }

    /// Returns how many devices are attached, and how many handles are watched for them.
    pub fn counts(&self) -> (usize, usize) {
        (self.devices.len(), self.watched.len())
    }

    /// Returns what was counted.
    pub fn counters(&self) -> &PresenceCounters {
        &self.counters
    }

    fn send_device(&mut self, peer: PeerId, frame: Frame) {
        if self.devices.get(&peer).is_some_and(|device| device.up) {
            self.transmit.push_back((Destination::Device(peer), frame));
        }
    }

    /// Sends a text to both homes of its addressee. Returns how many that are.
    fn forward_text(&mut self, now: Instant, text: SignedText) -> u8 {
        let mut sent = 0;
        for home in homes_of(&text.text.to, &self.members) {
            self.use_home(now, home);
            self.send_home(home, Frame::Text { text: text.clone(), device: None });
            sent += 1;
        }
        sent
    }

    /// What became of a text: the first home that keeps it decides, or the last that does not.
    fn on_verdict(&mut self, id: TextId, verdict: Verdict) {
        let Some((device, waiting)) = self.texts.get_mut(&id) else { return };
        *waiting = waiting.saturating_sub(1);
        if verdict == Verdict::Kept || *waiting == 0 {
            let device = *device;
            self.texts.remove(&id);
            self.send_device(device, Frame::Taken { id, verdict });
        }
    }

    fn refuse(&mut self, reason: Refused) {
        self.counters.refuse(reason);
    }
}
