//! The links of an agent to homes: what is published and watched where.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use call_model::Handle;
use libp2p::PeerId;

use super::{Agent, AgentEvent, Destination, Due, HomeLink, MAX_LEARNED, TRIES};
use crate::presence::Refused;
use crate::presence::frame::{DeviceUpdate, Frame, Need, SlotUpdate, WatchItem};
use crate::presence::ring::homes_of;
use crate::presence::state::Statement;

/// What was said last to a home, kept until a lost connection shows what has arrived.
const LOG: usize = 1024;
/// Frames that wait for a link to come up; beyond these everything is said anew.
const LATER: usize = 1024;
/// Watches in one frame: the longest take 80 bytes.
const ITEMS: usize = 150;

impl HomeLink {
    fn new() -> Self {
        Self {
            up: false,
            ready: false,
            failed: false,
            tries: 0,
            session: 0,
            version: 0,
            said: 0,
            log: VecDeque::new(),
            behind: BTreeSet::new(),
            later: VecDeque::new(),
            anew: true,
            published: BTreeSet::new(),
            slots: BTreeSet::new(),
            unanswered: BTreeSet::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.published.is_empty() && self.slots.is_empty() && self.behind.is_empty() && self.later.is_empty()
    }

    /// Devices of which a home that has taken `received` sayings may not know the last state.
    fn unheard(&self, received: u64) -> BTreeSet<(Handle, u8)> {
        let has_gap = self.log.front().map_or(self.said, |(number, _)| number - 1) > received;
        if has_gap {
            return self.published.clone();
        }
        self.log.iter().filter(|(number, _)| *number > received).map(|(_, name)| name.clone()).collect()
    }
}

impl Agent {
    /// A link to a home is open.
    pub fn handle_home_connected(&mut self, now: Instant, peer: PeerId) {
        let Some(link) = self.homes.get_mut(&peer) else { return };
        let had_failed = std::mem::take(&mut link.failed);
        (link.up, link.ready, link.tries) = (true, false, 0);
        if link.anew {
            self.begin(peer);
        } else {
            let resume = Frame::Resume { session: link.session, version: link.version };
            self.transmit.push_back((Destination::Home(peer), resume));
        }
        if had_failed {
            self.settle_members(now);
        }
    }

    /// A link to a home is lost, or could not be opened. It is tried again; what the home knows counts
    /// for a while, and then another home is watched at.
    pub fn handle_home_closed(&mut self, now: Instant, peer: PeerId) {
        let every = self.limits.grace / (2 * TRIES);
        let Some(link) = self.homes.get_mut(&peer) else { return };
        (link.up, link.ready) = (false, false);
        link.tries = link.tries.saturating_add(1);
        let wait = if link.tries == 1 { every / 10 } else { every };
        let fails = link.tries >= TRIES && !link.failed;
        if fails {
            (link.failed, link.anew) = (true, true);
            link.later.clear();
            // Whoever has named it was wrong, or it is gone: it takes no room from others.
            self.learned.remove(&peer);
        }
        self.transmit.retain(|(to, _)| *to != Destination::Home(peer));
        self.deadlines.insert((now + wait, Due::Connect(peer)));
        if fails {
            self.settle_members(now);
        }
    }

    /// Takes a frame of a home.
    pub fn handle_home_frame(&mut self, now: Instant, from: PeerId, frame: Frame) {
        if !self.homes.get(&from).is_some_and(|link| link.up) {
            self.refuse(Refused::Misplaced);
            return;
        }
        self.counters.frames_in += 1;
        match frame {
            Frame::States { version, items } => {
                if let Some(link) = self.homes.get_mut(&from) {
                    link.version = version;
                }
                for item in items {
                    self.on_state(from, item);
                }
            }
            Frame::Still { version, received } => self.on_still(from, version, received),
            Frame::Forgotten => self.begin(from),
            Frame::Need { handle, device, need } => self.on_need(from, (handle, device), need),
            Frame::Rejected { handle, device, reason } => match reason {
                // The home has forgotten what the change was of.
                Refused::Misplaced | Refused::NotYours => self.publish_at(from, &(handle, device), false),
                Refused::Rate => {
                    let again = now + self.limits.every * 2;
                    self.deadlines.insert((again, Due::Publish(from, handle, device)));
                }
                _ => {
                    if let Some(peer) = self.by_name.get(&(handle.clone(), device)).copied() {
                        self.send_device(peer, Frame::Rejected { handle, device, reason });
                    }
                }
            },
            Frame::Elsewhere { homes, .. } => self.on_elsewhere(now, &homes),
            Frame::Text { text, device: Some(device) } => {
                if let Some(peer) = self.by_name.get(&(text.text.to.clone(), device)).copied() {
                    self.send_device(peer, Frame::Text { text, device: None });
                }
            }
            Frame::Taken { id, verdict } => self.on_verdict(id, verdict),
            Frame::Certificate { handle, certificate } => {
                for peer in self.asked.remove(&handle).unwrap_or_default() {
                    let certificate = certificate.clone();
                    self.send_device(peer, Frame::Certificate { handle: handle.clone(), certificate });
                }
            }
            Frame::Unknown { .. } => {}
            _ => self.refuse(Refused::Misplaced),
        }
    }

    /// Says everything to a home that knows nothing.
    fn begin(&mut self, peer: PeerId) {
        self.next_session = self.next_session.wrapping_add(1);
        let session = self.next_session;
        let Some(link) = self.homes.get_mut(&peer) else { return };
        (link.session, link.version, link.said) = (session, 0, 0);
        (link.ready, link.anew) = (true, false);
        link.unanswered = link.slots.clone();
        link.log.clear();
        link.behind.clear();
        let later = std::mem::take(&mut link.later);
        let published: Vec<(Handle, u8)> = link.published.iter().cloned().collect();
        let slots: Vec<u32> = link.slots.iter().copied().collect();
        let mut items = Vec::new();
        for slot in slots {
            if let Some(handle) = self.by_slot.get(&slot) {
                items.extend(self.watch_items(handle));
            }
        }
        // An empty one too: it names the session.
        let mut chunks = items.chunks(ITEMS);
        let first = chunks.next().unwrap_or_default().to_vec();
        let watch = |items| (Destination::Home(peer), Frame::Watch { session, items });
        self.transmit.push_back(watch(first));
        self.transmit.extend(chunks.map(|items| watch(items.to_vec())));
        for name in published {
            self.publish_at(peer, &name, false);
        }
        for frame in later {
            if !matches!(frame, Frame::Watch { .. } | Frame::Unwatch { .. }) {
                self.send_home(peer, frame);
            }
        }
    }

    /// Returns what a home has to be told to watch a handle.
    fn watch_items(&self, handle: &Handle) -> Vec<WatchItem> {
        let Some(watched) = self.watched.get(handle) else { return Vec::new() };
        let item = |(watcher, entry): (&Handle, &super::Watcher)| WatchItem {
            slot: watched.slot,
            handle: handle.clone(),
            mark: watched.state.mark(),
            base: watched.state.base(),
            watcher: Some((watcher.clone(), entry.granted)),
        };
        watched.watchers.iter().map(item).collect()
    }

    fn on_still(&mut self, from: PeerId, version: u64, received: u64) {
        let Some(link) = self.homes.get_mut(&from) else { return };
        link.version = version;
        if !link.ready {
            link.ready = true;
            let mut behind = link.unheard(received);
            behind.append(&mut link.behind);
            link.said = received;
            link.log.clear();
            let later = std::mem::take(&mut link.later);
            for name in behind {
                self.publish_at(from, &name, false);
            }
            for frame in later {
                self.send_home(from, frame);
            }
        }
        let Some(link) = self.homes.get_mut(&from) else { return };
        for slot in std::mem::take(&mut link.unanswered) {
            let Some(handle) = self.by_slot.get(&slot).cloned() else { continue };
            let was =
                self.watched.get_mut(&handle).map(|watched| std::mem::replace(&mut watched.answered, true));
            if was == Some(false) {
                self.touch(&handle);
            }
        }
    }

    fn on_state(&mut self, from: PeerId, item: SlotUpdate) {
        let Some(handle) = self.by_slot.get(&item.slot).cloned() else { return };
        let Some(watched) = self.watched.get_mut(&handle).filter(|watched| watched.home == Some(from)) else {
            return;
        };
        if item.snapshot {
            watched.state.suspend();
        }
        for update in item.updates {
            match update {
                DeviceUpdate::Gone { device } => {
                    watched.state.remove(device);
                }
                DeviceUpdate::Back { device } => watched.state.restore(device),
                DeviceUpdate::Step { device, step } => {
                    if let Some(held) = watched.state.known(device).cloned() {
                        watched.state.insert(device, Statement { step: Some(step), ..held });
                    }
                }
                DeviceUpdate::Full(statement) => {
                    watched.state.insert(statement.announced.announcement.device, statement);
                }
            }
        }
        for watcher in item.granted {
            if let Some(entry) = watched.watchers.get_mut(&watcher) {
                entry.granted = true;
            }
        }
        for watcher in item.revoked {
            if let Some(entry) = watched.watchers.get_mut(&watcher) {
                entry.granted = false;
            }
        }
        self.counters.changes += 1;
        self.touch(&handle);
    }

    fn on_need(&mut self, from: PeerId, name: (Handle, u8), need: Need) {
        let Some(peer) = self.by_name.get(&name).copied() else { return };
        if need.certificate {
            self.publish_at(from, &name, true);
        }
        if need.rules {
            match self.devices.get(&peer).and_then(|device| device.signed_rules.clone()) {
                Some(rules) => self.say_at(from, &name, Frame::Rules(rules)),
                None => {
                    let need = Need { certificate: false, rules: true };
                    self.send_device(peer, Frame::Need { handle: name.0, device: name.1, need });
                }
            }
        }
    }

    /// A home knows supernodes nearer to a handle than itself.
    fn on_elsewhere(&mut self, now: Instant, homes: &[PeerId]) {
        let before = self.learned.len();
        for home in homes.iter().filter(|home| !self.known.contains(home)) {
            if self.learned.len() < MAX_LEARNED {
                self.learned.insert(*home);
            }
        }
        if self.learned.len() > before {
            self.settle_members(now);
        }
    }

    /// Publishes the state of a device at a home, or that it has none any more.
    pub(super) fn publish_at(&mut self, home: PeerId, name: &(Handle, u8), with_certificate: bool) {
        let is_published = self.homes.get(&home).is_some_and(|link| link.published.contains(name));
        let device = self.by_name.get(name).and_then(|peer| self.devices.get(peer));
        let frame = match device.filter(|_| is_published) {
            Some(device) => match &device.statement {
                Some(statement) => Frame::Publish {
                    statement: statement.clone(),
                    rules: device.rules,
                    delivers: device.delivers == Some(home),
                    certificate: with_certificate.then(|| device.certificate.clone()),
                },
                None => return,
            },
            None => Frame::Withdraw { handle: name.0.clone(), device: name.1 },
        };
        self.say_at(home, name, frame);
    }

    /// What a home has refused for its rate is published again.
    pub(super) fn publish_again(&mut self, _: Instant, home: PeerId, name: (Handle, u8)) {
        if self.homes.get(&home).is_some_and(|link| link.published.contains(&name)) {
            self.publish_at(home, &name, false);
        }
    }

    /// Says something of a device to a home, now or when its link is up.
    pub(super) fn say_at(&mut self, home: PeerId, name: &(Handle, u8), frame: Frame) {
        let Some(link) = self.homes.get_mut(&home) else { return };
        if !link.ready {
            link.behind.insert(name.clone());
            return;
        }
        link.said += 1;
        link.log.push_back((link.said, name.clone()));
        if link.log.len() > LOG {
            link.log.pop_front();
        }
        self.transmit.push_back((Destination::Home(home), frame));
    }

    /// Sends a frame to a home, now or when its link is up.
    pub(super) fn send_home(&mut self, home: PeerId, frame: Frame) {
        let Some(link) = self.homes.get_mut(&home) else { return };
        if link.ready {
            self.transmit.push_back((Destination::Home(home), frame));
        } else if link.later.len() < LATER {
            link.later.push_back(frame);
        } else {
            link.later.clear();
            link.anew = true;
        }
    }

    /// Watches handles at a home.
    pub(super) fn watch_at(&mut self, now: Instant, home: PeerId, items: Vec<WatchItem>) {
        self.use_home(now, home);
        let Some(link) = self.homes.get_mut(&home) else { return };
        link.slots.extend(items.iter().map(|item| item.slot));
        link.unanswered.extend(items.iter().map(|item| item.slot));
        let session = link.session;
        for items in items.chunks(ITEMS) {
            self.send_home(home, Frame::Watch { session, items: items.to_vec() });
        }
    }

    /// Publishes a device at the homes that are its homes now, and nowhere else.
    pub(super) fn place_device(&mut self, now: Instant, peer: &PeerId) {
        let Some(device) = self.devices.get(peer) else { return };
        let name = (device.handle.clone(), device.device);
        let homes = match device.statement {
            Some(_) => homes_of(&device.handle, &self.members),
            None => Vec::new(),
        };
        for home in &homes {
            self.use_home(now, *home);
        }
        let delivers = self.first_alive(&homes);
        let Some(device) = self.devices.get_mut(peer) else { return };
        let (before, delivered) = (std::mem::replace(&mut device.homes, homes.clone()), device.delivers);
        device.delivers = delivers;
        for home in before.iter().filter(|home| !homes.contains(home)) {
            if let Some(link) = self.homes.get_mut(home) {
                link.published.remove(&name);
            }
            self.publish_at(*home, &name, false);
        }
        for home in homes {
            let is_new = !before.contains(&home);
            if let Some(link) = self.homes.get_mut(&home) {
                link.published.insert(name.clone());
            }
            if is_new || (delivered != delivers && [delivered, delivers].contains(&Some(home))) {
                self.publish_at(home, &name, false);
            }
        }
    }

    /// Watches a handle at the home that it has now.
    pub(super) fn place_watch(&mut self, now: Instant, handle: &Handle) {
        let home = self.best_home(now, handle);
        let items = self.watch_items(handle);
        let Some(watched) = self.watched.get_mut(handle) else { return };
        let (slot, before) = (watched.slot, watched.home);
        if before == home {
            return;
        }
        watched.home = home;
        if let Some(before) = before {
            if let Some(link) = self.homes.get_mut(&before) {
                link.slots.remove(&slot);
            }
            let watchers = items.iter().map(|item| (slot, item.watcher.clone().map(|(watcher, _)| watcher)));
            let items = watchers.collect();
            self.send_home(before, Frame::Unwatch { items });
        }
        if let Some(home) = home {
            self.watch_at(now, home, items);
        }
    }

    /// Returns where a handle is to be watched: the nearest home that is there.
    pub(super) fn best_home(&mut self, now: Instant, handle: &Handle) -> Option<PeerId> {
        let homes = self.watched.get(handle)?.homes.clone();
        for home in &homes {
            self.use_home(now, *home);
            if self.homes.get(home).is_some_and(|link| !link.failed) {
                return Some(*home);
            }
        }
        homes.first().copied()
    }

    fn first_alive(&self, homes: &[PeerId]) -> Option<PeerId> {
        let alive = |home: &&PeerId| self.homes.get(home).is_some_and(|link| !link.failed);
        homes.iter().find(alive).or(homes.first()).copied()
    }

    /// Makes sure that a link to a home is there or on its way.
    pub(super) fn use_home(&mut self, _: Instant, peer: PeerId) {
        if self.homes.contains_key(&peer) {
            return;
        }
        if self.homes.len() >= self.limits.links {
            self.refuse(Refused::Links);
            return;
        }
        self.homes.insert(peer, HomeLink::new());
        self.events.push_back(AgentEvent::Connect(peer));
    }

    /// Tries a home again that was lost, if it is still of use.
    pub(super) fn try_home(&mut self, _: Instant, peer: PeerId) {
        let Some(link) = self.homes.get(&peer) else { return };
        if link.up {
            return;
        }
        if link.is_idle() && link.failed {
            self.homes.remove(&peer);
        } else {
            self.events.push_back(AgentEvent::Connect(peer));
        }
    }

    /// Lets links go that nothing is published or watched over.
    pub(super) fn release_homes(&mut self) {
        let idle: Vec<PeerId> = (self.homes.iter())
            .filter(|(_, link)| link.up && link.ready && link.is_idle())
            .map(|(peer, _)| *peer)
            .collect();
        for peer in idle {
            self.homes.remove(&peer);
            self.events.push_back(AgentEvent::Release(peer));
        }
    }
}
