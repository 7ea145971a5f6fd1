//! What a device hears, verified before it is shown.

use std::time::Instant;

use call_model::Handle;

use super::{Client, ClientEvent, Contact, REMEMBERED};
use crate::presence::Refused;
use crate::presence::frame::{DeviceUpdate, Frame, SlotUpdate, Verdict};
use crate::presence::judge::Judge;
use crate::presence::state::Statement;
use crate::presence::text::SignedText;

/// What became of a statement of a contact.
enum Heard {
    Shown,
    /// The certificate that it needs is not here.
    Unverified,
    Refused(Refused),
}

impl Client {
    /// Takes a frame of the agent.
    pub fn handle_frame(&mut self, now: Instant, unix_ms: u64, judge: &dyn Judge, frame: Frame) {
        let Some(agent) = self.agent else { return };
        self.counters.frames_in += 1;
        match frame {
            Frame::States { version, items } => {
                self.version = version;
                for item in items {
                    self.on_state(now, judge, item);
                }
            }
            Frame::Still { version, received } => {
                self.version = version;
                if received < self.said {
                    self.unsaid = self.statement.is_some();
                }
                self.said = received;
                self.speak(now, unix_ms);
            }
            Frame::Forgotten => {
                self.begin(agent);
                self.speak(now, unix_ms);
            }
            Frame::Need { need, .. } => {
                if let Some(rules) = self.rules.clone().filter(|_| need.rules) {
                    self.send(Frame::Rules(rules));
                }
            }
            Frame::Rejected { reason, .. } => self.on_rejected(now, reason),
            Frame::Text { text, .. } => self.on_text(unix_ms / 1000, judge, &text),
            Frame::Taken { id, verdict } => {
                let again = verdict == Verdict::Refused(Refused::Rate);
                if !again && self.outgoing.remove(&id).is_some() {
                    self.events.push_back(ClientEvent::Taken { id, verdict });
                }
            }
            Frame::Certificate { handle, certificate } => {
                if let Some(bytes) = certificate {
                    self.on_certificate(judge, &handle, &bytes);
                }
            }
            Frame::Unknown { .. } => {}
            _ => self.counters.refuse(Refused::Misplaced),
        }
    }

    fn on_rejected(&mut self, now: Instant, reason: Refused) {
        match reason {
            Refused::Rate | Refused::Misplaced | Refused::Handles => {
                self.unsaid = self.statement.is_some();
                self.wake_at(now + self.limits.retry);
            }
            // Another life of this device was ahead of its clock: the next announcement is later.
            Refused::NotNewer => {
                self.statement = None;
                self.wake_at(now + self.limits.retry);
            }
            reason => self.events.push_back(ClientEvent::Rejected(reason)),
        }
    }

    fn on_state(&mut self, now: Instant, judge: &dyn Judge, item: SlotUpdate) {
        let Some(handle) = self.by_slot.get(&item.slot).cloned() else { return };
        let Some(contact) = self.contacts.get_mut(&handle) else { return };
        if item.snapshot {
            contact.state.suspend();
            contact.unverified.clear();
        }
        let mut lacks_certificate = false;
        // Whether the agent believes that this device has what it has not.
        let mut lost = false;
        let mut refused = None;
        for update in item.updates {
            let statement = match update {
                DeviceUpdate::Gone { device } => {
                    contact.state.remove(device);
                    contact.unverified.remove(&device);
                    continue;
                }
                DeviceUpdate::Back { device } => {
                    lost |= contact.state.known(device).is_none();
                    contact.state.restore(device);
                    continue;
                }
                DeviceUpdate::Step { device, step } => {
                    let held = contact.unverified.get(&device).or_else(|| contact.state.known(device));
                    match held {
                        Some(held) => Statement { step: Some(step), ..held.clone() },
                        None => {
                            lost = true;
                            continue;
                        }
                    }
                }
                DeviceUpdate::Full(statement) => statement,
            };
            let device = statement.announced.announcement.device;
            match verify(&handle, contact, judge, &statement) {
                Heard::Shown => {
                    contact.unverified.remove(&device);
                    contact.state.insert(device, statement);
                }
                Heard::Unverified => {
                    contact.unverified.insert(device, statement);
                    lacks_certificate = true;
                }
                Heard::Refused(reason) => refused = Some(reason),
            }
        }
        if let Some(reason) = refused {
            self.counters.refuse(reason);
        }
        if lacks_certificate && contact.asks.is_none() {
            let again = now + self.limits.retry;
            contact.asks = Some(again);
            self.wake_at(again);
            self.send(Frame::Ask { handle: handle.clone() });
        }
        self.show(&handle);
        if lost && let Some(agent) = self.agent {
            self.begin(agent);
        }
    }

    fn on_certificate(&mut self, judge: &dyn Judge, handle: &Handle, bytes: &[u8]) {
        let Some(contact) = self.contacts.get_mut(handle).filter(|contact| contact.asks.is_some()) else {
            return;
        };
        let certified = match judge.certificate(bytes) {
            Ok(certified) if certified.handle == *handle => certified,
            Ok(_) => return self.counters.refuse(Refused::NotYours),
            Err(reason) => return self.counters.refuse(reason),
        };
        (contact.certified, contact.asks) = (Some(certified), None);
        let mut refused = None;
        for (device, statement) in std::mem::take(&mut contact.unverified) {
            match verify(handle, contact, judge, &statement) {
                Heard::Shown => contact.state.insert(device, statement),
                Heard::Unverified => refused = Some(Refused::Certificate),
                Heard::Refused(reason) => refused = Some(reason),
            }
        }
        if let Some(reason) = refused {
            self.counters.refuse(reason);
        }
        self.show(handle);
    }

    /// Asks again for certificates that have not come.
    pub(super) fn ask_again(&mut self, now: Instant) {
        let again = now + self.limits.retry;
        let mut asked = Vec::new();
        for (handle, contact) in &mut self.contacts {
            if contact.asks.is_some_and(|at| at <= now) {
                contact.asks = (!contact.unverified.is_empty()).then_some(again);
                if contact.asks.is_some() {
                    asked.push(handle.clone());
                }
            }
        }
        for handle in asked {
            self.wake_at(again);
            self.send(Frame::Ask { handle });
        }
    }

    fn show(&mut self, handle: &Handle) {
        let Some(contact) = self.contacts.get_mut(handle) else { return };
        let (availability, note) = contact.state.shown();
        if (availability, note) != (contact.shown.0, contact.shown.1.as_str()) {
            contact.shown = (availability, note.to_owned());
            let (handle, note) = (handle.clone(), note.to_owned());
            self.counters.changes += 1;
            self.events.push_back(ClientEvent::Presence { handle, availability, note });
        }
    }

    fn on_text(&mut self, unix: u64, judge: &dyn Judge, text: &SignedText) {
        let id = text.text.id;
        if !self.had.contains(&id) {
            if let Err(reason) = self.check_text(unix, judge, text) {
                return self.counters.refuse(reason);
            }
            self.had.insert(id);
            self.had_order.push_back(id);
            if self.had_order.len() > REMEMBERED
                && let Some(oldest) = self.had_order.pop_front()
            {
                self.had.remove(&oldest);
            }
            self.counters.texts += 1;
            self.events.push_back(ClientEvent::Text(text.text.clone()));
        }
        let (handle, device) = (self.handle.clone(), self.device);
        self.send(Frame::Got { handle, device, id });
    }

    fn check_text(&self, unix: u64, judge: &dyn Judge, text: &SignedText) -> Result<(), Refused> {
        text.check_time(unix)?;
        let sender = judge.certificate(&text.certificate)?;
        if sender.handle != text.text.from || text.text.to != self.handle {
            return Err(Refused::NotYours);
        }
        if !sender.may_text {
            return Err(Refused::NoText);
        }
        if judge.text(text, &sender.keys) { Ok(()) } else { Err(Refused::Signature) }
    }
}

/// Verifies what is said of a contact: by which device, in which order, with which proof. That its
/// announcement has not ended is for the home to see to.
fn verify(handle: &Handle, contact: &Contact, judge: &dyn Judge, statement: &Statement) -> Heard {
    let announcement = &statement.announced.announcement;
    if announcement.handle != *handle {
        return Heard::Refused(Refused::NotYours);
    }
    if statement.step.is_some_and(|step| !step.is_proven(announcement)) {
        return Heard::Refused(Refused::Proof);
    }
    if let Some(held) = contact.state.known(announcement.device) {
        if held.version() > statement.version() {
            return Heard::Refused(Refused::NotNewer);
        }
        if held.announced == statement.announced {
            return Heard::Shown;
        }
    }
    let certified =
        contact.certified.as_ref().filter(|c| judge.is_good(c) && c.serial == announcement.serial);
    match certified {
        None => Heard::Unverified,
        Some(certified) if judge.announcement(&statement.announced, &certified.keys) => Heard::Shown,
        Some(_) => Heard::Refused(Refused::Signature),
    }
}
