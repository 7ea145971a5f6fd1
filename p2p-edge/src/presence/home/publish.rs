//! What devices say of themselves to their home.

use std::time::{Duration, Instant};

use call_model::Handle;
use libp2p::PeerId;

use super::{Due, Home, Presence, Record};
use crate::presence::Refused;
use crate::presence::frame::{Frame, Need};
use crate::presence::judge::Judge;
use crate::presence::ring::homes_of;
use crate::presence::rules::SignedRules;
use crate::presence::state::{Statement, Step};

/// A `publish` taken apart.
pub(super) struct Published {
    pub(super) statement: Statement,
    pub(super) rules: u64,
    pub(super) delivers: bool,
    pub(super) certificate: Option<Vec<u8>>,
}

impl Home {
    /// Takes the state of a device that an agent vouches for.
    pub(super) fn publish(
        &mut self,
        (now, unix): (Instant, u64),
        judge: &dyn Judge,
        from: PeerId,
        published: Published,
    ) {
        let announcement = &published.statement.announced.announcement;
        let (handle, device) = (announcement.handle.clone(), announcement.device);
        if !self.is_home_of(&handle) {
            self.point_elsewhere(from, handle);
            return;
        }
        match self.try_publish((now, unix), judge, from, published) {
            Ok(Need { certificate: false, rules: false }) => {}
            Ok(need) => self.send(from, Frame::Need { handle, device, need }),
            Err(reason) => self.reject(from, handle, device, reason),
        }
    }

    fn try_publish(
        &mut self,
        (now, unix): (Instant, u64),
        judge: &dyn Judge,
        from: PeerId,
        published: Published,
    ) -> Result<Need, Refused> {
        let Published { statement, rules, delivers, certificate } = published;
        let announced = statement.announced.clone();
        let announcement = &announced.announcement;
        let (handle, device) = (&announcement.handle, announcement.device);
        let (burst, every) = (self.limits.burst, self.limits.every);
        let record = self.record(now, handle)?;
        let held = record.state.known(device).cloned();
        let was_on = record.state.device(device).is_some();
        // The same state by another way is no news, and costs nobody anything.
        let same = held.as_ref().is_some_and(|held| held.announced.signed == announced.signed);
        if !same && !record.bucket.take(burst, every, now) {
            return Err(Refused::Rate);
        }
        if let Some(bytes) = certificate {
            let certified = judge.certificate(&bytes)?;
            if certified.handle != *handle {
                return Err(Refused::NotYours);
            }
            record.certified = Some((certified, bytes));
        }
        let serial = record.certified.as_ref().filter(|(certified, _)| judge.is_good(certified));
        if serial.map(|(certified, _)| certified.serial) != Some(announcement.serial) {
            return Ok(Need { certificate: true, rules: false });
        }
        if let Some(held) = &held
            && held.version() > statement.version()
        {
            return Err(Refused::NotNewer);
        }
        if !same {
            announced.check_time(unix)?;
            if !judge.announcement(&announced, record.keys()) {
                return Err(Refused::Signature);
            }
        }
        if statement.step.is_some_and(|step| !step.is_proven(announcement)) {
            return Err(Refused::Proof);
        }
        let expires = now + Duration::from_secs(announcement.expires_unix.saturating_sub(unix));
        let news = !was_on || held.as_ref().is_none_or(|held| !held.shows_same(&statement));
        let needs_rules = record.rules.as_ref().map_or(0, |held| held.rules.sequence) < rules;
        record.state.insert(device, statement);
        record.devices.insert(device, Presence { via: from, delivers, ends: expires, expires });
        let handle = handle.clone();
        self.deadlines.insert((expires, Due::Device(handle.clone(), device)));
        if news {
            self.counters.changes += 1;
            self.touch(&handle);
        }
        if delivers {
            self.deliver(&handle);
        }
        Ok(Need { certificate: false, rules: needs_rules })
    }

    /// Takes a change of availability.
    pub(super) fn change(
        &mut self,
        now: Instant,
        from: PeerId,
        handle: Handle,
        device: u8,
        sequence: u64,
        step: Step,
    ) {
        match self.try_change(now, from, &handle, device, sequence, step) {
            Ok(()) => self.touch(&handle),
            Err(reason) => self.reject(from, handle, device, reason),
        }
    }

    fn try_change(
        &mut self,
        now: Instant,
        from: PeerId,
        handle: &Handle,
        device: u8,
        sequence: u64,
        step: Step,
    ) -> Result<(), Refused> {
        let (burst, every) = (self.limits.burst, self.limits.every);
        // An agent that has missed something here publishes anew.
        let record = self.records.get_mut(handle).ok_or(Refused::Misplaced)?;
        let held = record.state.device(device).cloned().ok_or(Refused::Misplaced)?;
        if record.devices.get(&device).is_none_or(|presence| presence.via != from) {
            return Err(Refused::NotYours);
        }
        let (had, number) = held.version();
        if had != sequence {
            return Err(Refused::Misplaced);
        }
        if step.number <= number {
            return Err(Refused::NotNewer);
        }
        if !record.bucket.take(burst, every, now) {
            return Err(Refused::Rate);
        }
        if !step.is_proven(&held.announced.announcement) {
            return Err(Refused::Proof);
        }
        record.used = now;
        record.state.insert(device, Statement { announced: held.announced, step: Some(step) });
        self.counters.changes += 1;
        Ok(())
    }

    /// An agent says that a device is gone.
    pub(super) fn withdraw(&mut self, now: Instant, from: PeerId, handle: &Handle, device: u8) {
        let record = self.records.get_mut(handle);
        let vouched = record.as_ref().and_then(|record| record.devices.get(&device)).map(|p| p.via);
        if vouched != Some(from) {
            // The device has come back by another agent meanwhile: nobody's fault.
            return;
        }
        if let Some(record) = record {
            record.used = now;
        }
        self.remove_device(handle, device);
    }

    pub(super) fn remove_device(&mut self, handle: &Handle, device: u8) {
        let Some(record) = self.records.get_mut(handle) else { return };
        record.devices.remove(&device);
        if record.state.remove(device) {
            self.counters.changes += 1;
            self.touch(handle);
        }
    }

    /// A device's time may be over.
    pub(super) fn check_device(&mut self, now: Instant, handle: &Handle, device: u8) {
        let Some(record) = self.records.get_mut(handle) else { return };
        match record.devices.get(&device) {
            Some(presence) if presence.ends.min(presence.expires) <= now => {
                self.remove_device(handle, device)
            }
            Some(_) => {}
            // Its announcement was to end now: what it says next begins with another.
            None => record.state.forget(device),
        }
    }

    /// Takes rules that the user has signed.
    pub(super) fn take_rules(&mut self, now: Instant, judge: &dyn Judge, signed: SignedRules) {
        let handle = signed.rules.handle.clone();
        match self.try_rules(now, judge, signed) {
            Ok(()) => {
                self.touch(&handle);
                self.deliver(&handle);
            }
            Err(reason) => self.counters.refuse(reason),
        }
    }

    fn try_rules(&mut self, now: Instant, judge: &dyn Judge, signed: SignedRules) -> Result<(), Refused> {
        let (burst, every) = (self.limits.burst, self.limits.every);
        // Only of users that are here: the certificate that came with their state is needed.
        let record = self.records.get_mut(&signed.rules.handle).ok_or(Refused::Misplaced)?;
        let (certified, _) = record.certified.as_ref().ok_or(Refused::Misplaced)?;
        if record.rules.as_ref().is_some_and(|held| held.rules.sequence >= signed.rules.sequence) {
            return Err(Refused::NotNewer);
        }
        if !record.bucket.take(burst, every, now) {
            return Err(Refused::Rate);
        }
        if !judge.is_good(certified) || !judge.rules(&signed, &certified.keys) {
            return Err(Refused::Signature);
        }
        record.rules = Some(signed);
        Ok(())
    }

    /// Lets everything that an agent vouches for end unless it says so again.
    pub(super) fn doubt_devices_via(&mut self, now: Instant, peer: &PeerId) {
        let ends = now + self.limits.grace;
        for (handle, device) in self.devices_via(peer) {
            let record: Option<&mut Record> = self.records.get_mut(&handle);
            if let Some(presence) = record.and_then(|record| record.devices.get_mut(&device)) {
                presence.ends = ends;
                self.deadlines.insert((ends, Due::Device(handle, device)));
            }
        }
    }

    fn reject(&mut self, to: PeerId, handle: Handle, device: u8, reason: Refused) {
        self.counters.refuse(reason);
        self.send(to, Frame::Rejected { handle, device, reason });
    }

    /// Tells an agent who the homes of a handle are: it knows others than this supernode does.
    pub(super) fn point_elsewhere(&mut self, to: PeerId, handle: Handle) {
        self.counters.refuse(Refused::NotHome);
        let homes = homes_of(&handle, &self.members);
        self.send(to, Frame::Elsewhere { handle, homes });
    }
}
