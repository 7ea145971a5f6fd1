//! What one link was told of the handles that it watches, so that nothing is told twice.

use std::collections::{BTreeMap, BTreeSet};

use call_model::Handle;

use super::Refused;
use super::frame::{DeviceUpdate, FULL_FRAME, Frame, SlotUpdate, WatchItem};
use super::state::{HandleState, Mark, Statement};

/// Bytes of a slot's update beside what it holds, and of one device's beside its announcement.
const SLOT_BYTES: usize = 12;
const STEP_BYTES: usize = 26;
const FULL_BYTES: usize = 100;

/// Where a feed reads what it tells.
pub(super) trait View {
    /// Returns the state of a handle, if any is known.
    fn state(&self, handle: &Handle) -> Option<&HandleState>;
    /// Says whether a watcher may see a handle.
    fn may_see(&self, handle: &Handle, watcher: &Handle) -> bool;
    /// Says whether it is too early to say that a handle is offline, or that nobody may see it.
    fn is_settling(&self, handle: &Handle) -> bool;
}

/// The version of a device's statement that a link has, and whether the link knows it as on.
type Known = (u8, (u64, u8), bool);

#[derive(Clone, Debug)]
struct Slot {
    handle: Handle,
    known: Vec<Known>,
    /// What the link says it has and remembers, until that was compared with what there is.
    claims: Option<(Mark, Mark)>,
    /// Whether the link may have something else than `known`.
    unsure: bool,
    /// The version with which the slot was told last.
    told: u64,
    /// Who watches, and whether the link was told that it may.
    watchers: BTreeMap<Handle, bool>,
}

impl Slot {
    /// Takes the marks of what a link has and remembers for what they stand for, where they match.
    fn compare(&mut self, mark: Mark, base: Mark, shown: &HandleState) {
        let same = mark == shown.mark();
        self.known = if base == shown.base() { versions(shown) } else { Vec::new() };
        if !same {
            // The announcements are the same; of the steps after them nothing is known.
            self.known.iter_mut().for_each(|(_, version, on)| (version.1, *on) = (0, false));
            self.unsure = mark != 0;
        } else if self.known.is_empty() {
            self.known = versions(shown);
            self.known.retain(|(_, _, on)| *on);
        }
    }
}

/// The server side of the watches of one link.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    session: u64,
    version: u64,
    slots: BTreeMap<u32, Slot>,
    dirty: BTreeSet<u32>,
    /// Whether the link is told who of several watchers may see a handle.
    tells_watchers: bool,
}

impl Feed {
    pub(super) fn new(session: u64, tells_watchers: bool) -> Self {
        Self { session, version: 0, slots: BTreeMap::new(), dirty: BTreeSet::new(), tells_watchers }
    }

    pub(super) fn session(&self) -> u64 {
        self.session
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Returns every watch: slot and handle.
    pub(super) fn slots(&self) -> impl Iterator<Item = (u32, &Handle)> {
        self.slots.iter().map(|(slot, entry)| (*slot, &entry.handle))
    }

    /// Returns the handle of a slot.
    pub(super) fn handle(&self, slot: u32) -> Option<&Handle> {
        self.slots.get(&slot).map(|entry| &entry.handle)
    }

    /// Returns how many watchers a slot has.
    pub(super) fn watchers(&self, slot: u32) -> usize {
        self.slots.get(&slot).map_or(0, |entry| entry.watchers.len())
    }

    /// Begins or extends a watch.
    ///
    /// # Errors
    /// `Misplaced` where the slot stands for another handle.
    pub(super) fn watch(&mut self, item: &WatchItem) -> Result<(), Refused> {
        let entry = self.slots.entry(item.slot).or_insert_with(|| Slot {
            handle: item.handle.clone(),
            known: Vec::new(),
            claims: Some((item.mark, item.base)),
            unsure: false,
            told: 0,
            watchers: BTreeMap::new(),
        });
        if entry.handle != item.handle {
            return Err(Refused::Misplaced);
        }
        if let Some((watcher, granted)) = &item.watcher {
            entry.watchers.insert(watcher.clone(), *granted);
        }
        self.dirty.insert(item.slot);
        Ok(())
    }

    /// Takes a watcher off a slot. Returns the handle where none is left.
    pub(super) fn unwatch(&mut self, slot: u32, watcher: Option<&Handle>) -> Option<Handle> {
        let entry = self.slots.get_mut(&slot)?;
        if let Some(watcher) = watcher {
            entry.watchers.remove(watcher);
            if !entry.watchers.is_empty() {
                return None;
            }
        }
        self.dirty.remove(&slot);
        self.slots.remove(&slot).map(|entry| entry.handle)
    }

    /// Something of a slot's handle has changed.
    pub(super) fn touch(&mut self, slot: u32) {
        if self.slots.contains_key(&slot) {
            self.dirty.insert(slot);
        }
    }

    /// Goes on after a connection was lost: what came after `version` may not have arrived.
    pub(super) fn resume(&mut self, session: u64, version: u64) -> bool {
        if session != self.session || version > self.version {
            return false;
        }
        for (slot, entry) in self.slots.iter_mut().filter(|(_, entry)| entry.told > version) {
            entry.unsure = true;
            entry.known.clear();
            entry.watchers.values_mut().for_each(|told| *told = false);
            self.dirty.insert(*slot);
        }
        true
    }

    /// Returns the next frame of what the link does not have yet.
    pub(super) fn next_states(&mut self, view: &impl View) -> Option<Frame> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        while bytes < FULL_FRAME {
            let Some(slot) = self.dirty.pop_first() else { break };
            let Some(entry) = self.slots.get_mut(&slot) else { continue };
            if let Some(update) = news(slot, entry, view, self.tells_watchers) {
                entry.told = self.version + 1;
                bytes += size(&update);
                items.push(update);
            }
        }
        if items.is_empty() {
            return None;
        }
        self.version += 1;
        Some(Frame::States { version: self.version, items })
    }
}

fn versions(state: &HandleState) -> Vec<Known> {
    state.all().map(|(device, statement, on)| (device, statement.version(), on)).collect()
}

/// Works out what of a slot is news to the link, and counts it as told.
fn news(slot: u32, entry: &mut Slot, view: &impl View, tells_watchers: bool) -> Option<SlotUpdate> {
    let nobody = HandleState::default();
    let state = view.state(&entry.handle).unwrap_or(&nobody);
    let visible = entry.watchers.is_empty()
        || entry.watchers.keys().any(|watcher| view.may_see(&entry.handle, watcher));
    let shown = if visible { state } else { &nobody };
    let has = entry.unsure || entry.claims.is_some_and(|(mark, _)| mark != 0);
    if has && shown.is_offline() && view.is_settling(&entry.handle) {
        return None;
    }
    // What a link remembers counts when there is something to say of it.
    if let Some((mark, base)) = entry.claims
        && (mark != 0 || !shown.is_offline())
    {
        entry.claims = None;
        entry.compare(mark, base, shown);
    }
    let mut update = SlotUpdate { slot, snapshot: entry.unsure, ..SlotUpdate::default() };
    for (watcher, told) in &mut entry.watchers {
        let may = view.may_see(&entry.handle, watcher);
        // Whom there is nothing to show to need not know that it might be shown.
        if may && !*told && !state.is_offline() {
            *told = true;
            update.granted.push(watcher.clone());
        } else if !may && *told {
            *told = false;
            update.revoked.push(watcher.clone());
        }
    }
    if !tells_watchers {
        (update.granted, update.revoked) = (Vec::new(), Vec::new());
    }
    if entry.unsure {
        // A snapshot: what the link has on counts as gone.
        entry.known.iter_mut().for_each(|(_, _, on)| *on = false);
    }
    update.updates = difference(&entry.known, shown);
    entry.unsure = false;
    remember(&mut entry.known, shown);
    let is_news = update.snapshot
        || !(update.updates.is_empty() && update.granted.is_empty() && update.revoked.is_empty());
    is_news.then_some(update)
}

fn difference(known: &[Known], state: &HandleState) -> Vec<DeviceUpdate> {
    let gone = known.iter().filter(|(device, _, on)| *on && state.device(*device).is_none());
    let mut updates: Vec<_> = gone.map(|(device, ..)| DeviceUpdate::Gone { device: *device }).collect();
    for (device, statement) in state.devices() {
        let had = known.iter().find(|(known, ..)| *known == device).map(|(_, version, on)| (*version, *on));
        updates.extend(update_from(had, device, statement));
    }
    updates
}

fn update_from(had: Option<((u64, u8), bool)>, device: u8, statement: &Statement) -> Option<DeviceUpdate> {
    let (sequence, number) = statement.version();
    match (had, statement.step) {
        (Some((had, true)), _) if had == (sequence, number) => None,
        (Some((had, false)), _) if had == (sequence, number) => Some(DeviceUpdate::Back { device }),
        (Some(((had, _), _)), Some(step)) if had == sequence => Some(DeviceUpdate::Step { device, step }),
        _ => Some(DeviceUpdate::Full(statement.clone())),
    }
}

/// Counts what a link was told as known to it; what it has of devices that are gone it keeps.
fn remember(known: &mut Vec<Known>, shown: &HandleState) {
    known.iter_mut().for_each(|(_, _, on)| *on = false);
    for (device, statement) in shown.devices() {
        known.retain(|(known, ..)| *known != device);
        known.push((device, statement.version(), true));
    }
}

/// Estimates the encoded size of an update, from above.
fn size(update: &SlotUpdate) -> usize {
    let of_device = |update: &DeviceUpdate| match update {
        DeviceUpdate::Gone { .. } | DeviceUpdate::Back { .. } => 8,
        DeviceUpdate::Step { .. } => STEP_BYTES,
        DeviceUpdate::Full(statement) => statement.announced.signed.body.len() + FULL_BYTES,
    };
    let handles = update.granted.iter().chain(&update.revoked).map(|handle| handle.as_str().len() + 2);
    SLOT_BYTES + update.updates.iter().map(of_device).sum::<usize>() + handles.sum::<usize>()
}
