//! What devices say to their agent, and what it watches for them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use call_model::Handle;
use libp2p::PeerId;

use super::{Agent, Destination, Device, Due, MAX_WAITING, Watched};
use crate::presence::Refused;
use crate::presence::bucket::Bucket;
use crate::presence::feed::Feed;
use crate::presence::frame::{Frame, Verdict, WatchItem};
use crate::presence::ring::homes_of;
use crate::presence::rules::SignedRules;
use crate::presence::state::{HandleState, Statement, Step};
use crate::presence::text::SignedText;

impl Agent {
    /// A device is connected, whose certificate the driver has verified: it names the key of the
    /// connection as its `device`-th.
    ///
    /// # Errors
    /// `Clients` when there are as many as may be.
    pub fn handle_device_connected(
        &mut self,
        now: Instant,
        peer: PeerId,
        handle: Handle,
        device: u8,
        certificate: Vec<u8>,
    ) -> Result<(), Refused> {
        if let Some(known) = self.devices.get_mut(&peer) {
            (known.up, known.until, known.certificate) = (true, None, certificate);
            self.news.insert(peer);
            return Ok(());
        }
        if self.devices.len() >= self.limits.clients {
            self.refuse(Refused::Clients);
            return Err(Refused::Clients);
        }
        self.by_name.insert((handle.clone(), device), peer);
        let entry = Device {
            handle,
            device,
            certificate,
            up: true,
            until: None,
            feed: None,
            said: 0,
            owes_still: false,
            statement: None,
            rules: 0,
            signed_rules: None,
            bucket: Bucket::new(self.limits.burst, now),
            homes: Vec::new(),
            delivers: None,
        };
        self.devices.insert(peer, entry);
        Ok(())
    }

    /// The connection of a device is lost: it is offline unless it comes back soon.
    pub fn handle_device_closed(&mut self, now: Instant, peer: &PeerId) {
        let Some(device) = self.devices.get_mut(peer) else { return };
        let until = now + self.limits.grace / 2;
        (device.up, device.until) = (false, Some(until));
        self.transmit.retain(|(to, _)| *to != Destination::Device(*peer));
        self.news.remove(peer);
        self.deadlines.insert((until, Due::Device(*peer)));
    }

    /// Takes a frame of a device.
    pub fn handle_device_frame(&mut self, now: Instant, from: PeerId, frame: Frame) {
        let Some(device) = self.devices.get_mut(&from).filter(|device| device.up) else {
            self.refuse(Refused::Misplaced);
            return;
        };
        self.counters.frames_in += 1;
        device.said += u64::from(frame.is_said());
        let own = (device.handle.clone(), device.device);
        match frame {
            Frame::Publish { statement, rules, .. } => self.on_publish(now, from, own, statement, rules),
            Frame::Change { handle, device, .. }
            | Frame::Withdraw { handle, device }
            | Frame::Got { handle, device, .. }
                if (&handle, device) != (&own.0, own.1) =>
            {
                self.refuse(Refused::NotYours);
            }
            Frame::Change { sequence, step, .. } => self.on_change(now, from, own, sequence, step),
            Frame::Withdraw { .. } => self.withdraw_device(now, &from),
            Frame::Rules(rules) => self.on_rules(from, &own.0, rules),
            Frame::Watch { session, items } => self.on_watch(now, from, session, items),
            Frame::Unwatch { items } => {
                for (slot, _) in items {
                    self.unwatch_slot(from, slot);
                }
            }
            Frame::Resume { session, version } => self.on_resume(from, session, version),
            Frame::Text { text, device: None } => self.on_text(now, from, &own.0, text),
            Frame::Got { id, .. } => {
                let homes = self.devices.get(&from).map(|device| device.homes.clone()).unwrap_or_default();
                for home in homes {
                    let (handle, device) = own.clone();
                    self.send_home(home, Frame::Got { handle, device, id });
                }
            }
            Frame::Ask { handle } => self.on_ask(now, from, handle),
            Frame::Unknown { .. } => {}
            _ => self.refuse(Refused::Misplaced),
        }
    }

    fn on_publish(
        &mut self,
        now: Instant,
        from: PeerId,
        (handle, number): (Handle, u8),
        statement: Statement,
        rules: u64,
    ) {
        let (burst, every) = (self.limits.burst, self.limits.every);
        let Some(device) = self.devices.get_mut(&from) else { return };
        let announcement = &statement.announced.announcement;
        let reason = if announcement.handle != handle || announcement.device != number {
            Some(Refused::NotYours)
        } else if device.statement.as_ref().is_some_and(|held| held.version() > statement.version()) {
            Some(Refused::NotNewer)
        } else if !device.bucket.take(burst, every, now) {
            Some(Refused::Rate)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.refuse(reason);
            self.send_device(from, Frame::Rejected { handle, device: number, reason });
            return;
        }
        device.statement = Some(statement);
        device.rules = rules;
        // The device has others since: it is asked for them where they are needed.
        if device.signed_rules.as_ref().is_some_and(|signed| signed.rules.sequence < rules) {
            device.signed_rules = None;
        }
        let placed = device.homes.clone();
        self.place_device(now, &from);
        // Those that have just been added were told.
        for home in placed {
            self.publish_at(home, &(handle.clone(), number), false);
        }
    }

    fn on_change(
        &mut self,
        now: Instant,
        from: PeerId,
        (handle, number): (Handle, u8),
        sequence: u64,
        step: Step,
    ) {
        let (burst, every) = (self.limits.burst, self.limits.every);
        let Some(device) = self.devices.get_mut(&from) else { return };
        let reason = match &mut device.statement {
            Some(held) if held.announced.announcement.sequence == sequence => {
                if held.version() >= (sequence, step.number) {
                    Some(Refused::NotNewer)
                } else if !device.bucket.take(burst, every, now) {
                    Some(Refused::Rate)
                } else {
                    held.step = Some(step);
                    None
                }
            }
            _ => Some(Refused::Misplaced),
        };
        if let Some(reason) = reason {
            self.refuse(reason);
            self.send_device(from, Frame::Rejected { handle, device: number, reason });
            return;
        }
        for home in device.homes.clone() {
            let change = Frame::Change { handle: handle.clone(), device: number, sequence, step };
            self.say_at(home, &(handle.clone(), number), change);
        }
    }

    fn on_rules(&mut self, from: PeerId, handle: &Handle, rules: SignedRules) {
        let Some(device) = self.devices.get_mut(&from) else { return };
        if rules.rules.handle != *handle {
            self.refuse(Refused::NotYours);
            return;
        }
        let is_newer = device.signed_rules.as_ref().is_none_or(|h| h.rules.sequence < rules.rules.sequence);
        device.rules = rules.rules.sequence;
        device.signed_rules = Some(rules.clone());
        let name = (handle.clone(), device.device);
        if is_newer && device.statement.is_some() {
            for home in device.homes.clone() {
                self.say_at(home, &name, Frame::Rules(rules.clone()));
            }
        }
    }

    fn on_text(&mut self, now: Instant, from: PeerId, handle: &Handle, text: SignedText) {
        let (burst, every) = (self.limits.burst, self.limits.every);
        let id = text.text.id;
        let Some(device) = self.devices.get_mut(&from) else { return };
        let reason = if text.text.from != *handle {
            Some(Refused::NotYours)
        } else if !device.bucket.take(burst, every, now) {
            Some(Refused::Rate)
        } else if self.texts.len() >= MAX_WAITING {
            Some(Refused::Mailbox)
        } else {
            None
        };
        if let Some(reason) = reason {
            self.refuse(reason);
            self.send_device(from, Frame::Taken { id, verdict: Verdict::Refused(reason) });
            return;
        }
        // Where no home is known, the device sends it again.
        let homes = self.forward_text(now, text);
        if homes > 0 {
            self.texts.insert(id, (from, homes));
        }
    }

    fn on_ask(&mut self, now: Instant, from: PeerId, handle: Handle) {
        if self.asked.len() >= MAX_WAITING {
            self.refuse(Refused::Rate);
            return;
        }
        let at = self.watched.get(&handle).and_then(|watched| watched.home);
        let home = at.or_else(|| homes_of(&handle, &self.members).first().copied());
        let Some(home) = home else { return };
        self.use_home(now, home);
        let waiting = self.asked.entry(handle.clone()).or_default();
        if waiting.insert(from) && waiting.len() == 1 {
            self.send_home(home, Frame::Ask { handle });
        }
    }

    fn on_watch(&mut self, now: Instant, from: PeerId, session: u64, items: Vec<WatchItem>) {
        let Some(device) = self.devices.get_mut(&from) else { return };
        let handle = device.handle.clone();
        if device.feed.as_ref().is_none_or(|feed| feed.session() != session) {
            let before = device.feed.replace(Feed::new(session, false));
            device.said = 0;
            for (slot, target) in before.iter().flat_map(Feed::slots) {
                self.drop_watcher(from, slot, &target.clone());
            }
        }
        // By home, so that one frame serves many handles.
        let mut wanted: BTreeMap<PeerId, Vec<WatchItem>> = BTreeMap::new();
        for item in items {
            match self.watch_one(now, from, &handle, &item) {
                Ok(Some((home, up))) => wanted.entry(home).or_default().push(up),
                Ok(None) => {}
                Err(reason) => self.refuse(reason),
            }
        }
        for (home, items) in wanted {
            self.watch_at(now, home, items);
        }
        self.news.insert(from);
    }

    /// Makes one watch. Returns what its home has to be told, and where that is.
    fn watch_one(
        &mut self,
        now: Instant,
        from: PeerId,
        watcher: &Handle,
        item: &WatchItem,
    ) -> Result<Option<(PeerId, WatchItem)>, Refused> {
        let known = self.watched.contains_key(&item.handle);
        if !known && self.watched.len() >= self.limits.subscriptions {
            return Err(Refused::Subscriptions);
        }
        let feed = self.devices.get_mut(&from).and_then(|d| d.feed.as_mut()).ok_or(Refused::Misplaced)?;
        if feed.handle(item.slot).is_none() && feed.len() >= self.limits.contacts {
            return Err(Refused::Subscriptions);
        }
        let own = WatchItem { watcher: Some((watcher.clone(), true)), ..item.clone() };
        feed.watch(&own)?;
        if !known {
            let slot = self.next_slot;
            self.next_slot = self.next_slot.wrapping_add(1);
            let watched = Watched {
                slot,
                homes: homes_of(&item.handle, &self.members),
                home: None,
                answered: false,
                state: HandleState::default(),
                watchers: BTreeMap::new(),
            };
            self.by_slot.insert(slot, item.handle.clone());
            self.watched.insert(item.handle.clone(), watched);
        }
        let home = self.best_home(now, &item.handle);
        let Some(watched) = self.watched.get_mut(&item.handle) else { return Ok(None) };
        let entry = watched.watchers.entry(watcher.clone()).or_default();
        let is_new = entry.devices.is_empty();
        entry.devices.insert((from, item.slot));
        if !is_new {
            return Ok(None);
        }
        let at = *watched.home.get_or_insert(match home {
            Some(home) => home,
            None => return Ok(None),
        });
        let up = WatchItem {
            slot: watched.slot,
            handle: item.handle.clone(),
            mark: watched.state.mark(),
            base: watched.state.base(),
            watcher: Some((watcher.clone(), false)),
        };
        Ok(Some((at, up)))
    }

    fn on_resume(&mut self, from: PeerId, session: u64, version: u64) {
        let Some(device) = self.devices.get_mut(&from) else { return };
        if device.feed.as_mut().is_some_and(|feed| feed.resume(session, version)) {
            device.owes_still = true;
            self.news.insert(from);
        } else {
            self.send_device(from, Frame::Forgotten);
        }
    }

    fn unwatch_slot(&mut self, from: PeerId, slot: u32) {
        let feed = self.devices.get_mut(&from).and_then(|device| device.feed.as_mut());
        let Some(feed) = feed else { return };
        let Some(target) = feed.handle(slot).cloned() else { return };
        feed.unwatch(slot, None);
        self.drop_watcher(from, slot, &target);
    }

    /// Takes a device off a handle, its user where that was its only device, and the watch at the
    /// home where that was the only user.
    fn drop_watcher(&mut self, from: PeerId, slot: u32, target: &Handle) {
        let Some(watcher) = self.devices.get(&from).map(|device| device.handle.clone()) else { return };
        let Some(watched) = self.watched.get_mut(target) else { return };
        let Some(entry) = watched.watchers.get_mut(&watcher) else { return };
        entry.devices.remove(&(from, slot));
        if !entry.devices.is_empty() {
            return;
        }
        watched.watchers.remove(&watcher);
        let (up, home, last) = (watched.slot, watched.home, watched.watchers.is_empty());
        if last {
            self.watched.remove(target);
            self.by_slot.remove(&up);
        }
        if let Some(home) = home {
            if last && let Some(link) = self.homes.get_mut(&home) {
                link.slots.remove(&up);
            }
            self.send_home(home, Frame::Unwatch { items: vec![(up, Some(watcher))] });
        }
    }

    /// A device is gone: its homes hear it, and nothing is watched for it.
    pub(super) fn forget_device(&mut self, now: Instant, peer: &PeerId) {
        self.withdraw_device(now, peer);
        let slots: Vec<(u32, Handle)> = match self.devices.get(peer).and_then(|device| device.feed.as_ref()) {
            Some(feed) => feed.slots().map(|(slot, handle)| (slot, handle.clone())).collect(),
            None => Vec::new(),
        };
        // One frame for each home.
        let before = self.transmit.len();
        for (slot, target) in slots {
            self.drop_watcher(*peer, slot, &target);
        }
        self.merge_unwatches(before);
        if let Some(device) = self.devices.remove(peer) {
            self.by_name.remove(&(device.handle, device.device));
        }
    }

    fn merge_unwatches(&mut self, from: usize) {
        let tail = self.transmit.split_off(from);
        let mut merged: BTreeMap<Destination, Vec<(u32, Option<Handle>)>> = BTreeMap::new();
        for (to, frame) in tail {
            match frame {
                Frame::Unwatch { items } => merged.entry(to).or_default().extend(items),
                other => self.transmit.push_back((to, other)),
            }
        }
        for (to, items) in merged {
            // 40 bytes each at most.
            for items in items.chunks(256) {
                self.transmit.push_back((to, Frame::Unwatch { items: items.to_vec() }));
            }
        }
    }

    /// A device does not want to be seen, or is gone.
    fn withdraw_device(&mut self, now: Instant, peer: &PeerId) {
        let Some(device) = self.devices.get_mut(peer) else { return };
        device.statement = None;
        self.place_device(now, peer);
    }

    /// Something of a watched handle has changed: those of its watchers who may see it are told.
    pub(super) fn touch(&mut self, handle: &Handle) {
        let Some(watched) = self.watched.get(handle) else { return };
        let devices: BTreeSet<(PeerId, u32)> =
            watched.watchers.values().flat_map(|watcher| watcher.devices.iter().copied()).collect();
        for (peer, slot) in devices {
            if let Some(device) = self.devices.get_mut(&peer)
                && let Some(feed) = &mut device.feed
            {
                feed.touch(slot);
                if device.up {
                    self.news.insert(peer);
                }
            }
        }
    }
}
