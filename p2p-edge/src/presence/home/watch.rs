//! Who watches the handles of a home.

use std::time::Instant;

use call_model::Handle;
use libp2p::PeerId;

use super::Home;
use crate::presence::Refused;
use crate::presence::feed::Feed;
use crate::presence::frame::{Frame, WatchItem};

impl Home {
    /// Takes watches of an agent. A new session is the beginning of a new life of the agent: what it
    /// watched and vouched for before is void.
    pub(super) fn watch(&mut self, now: Instant, from: PeerId, session: u64, items: Vec<WatchItem>) {
        let Some(link) = self.links.get_mut(&from) else { return };
        if link.feed.as_ref().is_none_or(|feed| feed.session() != session) {
            let before = link.feed.replace(Feed::new(session, true));
            (link.until, link.said) = (None, 0);
            if let Some(before) = before {
                self.forget_feed(from, &before);
            }
            self.doubt_devices_via(now, &from);
        }
        for item in items {
            if !self.is_home_of(&item.handle) {
                self.point_elsewhere(from, item.handle);
            } else if let Err(reason) = self.watch_one(now, from, &item) {
                self.counters.refuse(reason);
            }
        }
        if let Some(link) = self.links.get_mut(&from) {
            link.owes_still = true;
            self.news.insert(from);
        }
    }

    fn watch_one(&mut self, now: Instant, from: PeerId, item: &WatchItem) -> Result<(), Refused> {
        let (subscriptions, watchers) = (self.limits.subscriptions, self.limits.watchers);
        let record = self.record(now, &item.handle)?;
        let known = record.subscribers.contains(&(from, item.slot));
        if !known && record.subscribers.len() >= watchers {
            return Err(Refused::Watchers);
        }
        let feed = self.links.get_mut(&from).and_then(|link| link.feed.as_mut()).ok_or(Refused::Misplaced)?;
        if !known && feed.len() >= subscriptions {
            return Err(Refused::Subscriptions);
        }
        if feed.watchers(item.slot) >= watchers {
            return Err(Refused::Watchers);
        }
        feed.watch(item)?;
        if let Some(record) = self.records.get_mut(&item.handle) {
            record.subscribers.insert((from, item.slot));
        }
        Ok(())
    }

    pub(super) fn unwatch(&mut self, from: PeerId, items: Vec<(u32, Option<Handle>)>) {
        let Some(feed) = self.links.get_mut(&from).and_then(|link| link.feed.as_mut()) else { return };
        for (slot, watcher) in items {
            if let Some(handle) = feed.unwatch(slot, watcher.as_ref())
                && let Some(record) = self.records.get_mut(&handle)
            {
                record.subscribers.remove(&(from, slot));
            }
        }
    }

    /// An agent is back on a new connection and has everything up to a version.
    pub(super) fn resume(&mut self, now: Instant, from: PeerId, session: u64, version: u64) {
        let Some(link) = self.links.get_mut(&from) else { return };
        let resumed = link.feed.as_mut().is_some_and(|feed| feed.resume(session, version));
        if !resumed {
            self.send(from, Frame::Forgotten);
            return;
        }
        (link.until, link.owes_still) = (None, true);
        self.news.insert(from);
        let handles = self.devices_via(&from);
        // Texts that were on their way may be lost.
        let mut last: Option<Handle> = None;
        for (handle, device) in handles {
            if let Some(presence) = self.records.get_mut(&handle).and_then(|r| r.devices.get_mut(&device)) {
                presence.ends = presence.expires.max(now);
            }
            if last.as_ref() != Some(&handle) {
                self.deliver(&handle);
                last = Some(handle);
            }
        }
    }

    pub(super) fn forget_feed(&mut self, peer: PeerId, feed: &Feed) {
        for (slot, handle) in feed.slots() {
            if let Some(record) = self.records.get_mut(handle) {
                record.subscribers.remove(&(peer, slot));
            }
        }
    }
}
