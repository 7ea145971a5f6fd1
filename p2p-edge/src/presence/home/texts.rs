//! Text that a home keeps until every device of its addressee has it.

use std::time::Instant;

use call_model::Handle;
use libp2p::PeerId;

use super::Home;
use crate::presence::Refused;
use crate::presence::frame::{Frame, Verdict};
use crate::presence::judge::Judge;
use crate::presence::text::{SignedText, TextId};

impl Home {
    /// Takes a text for a handle, verified before anything is kept.
    pub(super) fn keep_text(
        &mut self,
        (now, unix): (Instant, u64),
        judge: &dyn Judge,
        from: PeerId,
        text: SignedText,
    ) {
        let (id, to) = (text.text.id, text.text.to.clone());
        if !self.is_home_of(&to) {
            self.point_elsewhere(from, to);
            return;
        }
        let verdict = match self.try_keep((now, unix), judge, text) {
            Ok(()) => Verdict::Kept,
            Err(reason) => {
                self.counters.refuse(reason);
                // Whoever is refused by name is not to learn it.
                if reason == Refused::NotAllowed { Verdict::Kept } else { Verdict::Refused(reason) }
            }
        };
        self.send(from, Frame::Taken { id, verdict });
        self.deliver(&to);
    }

    fn try_keep(
        &mut self,
        (now, unix): (Instant, u64),
        judge: &dyn Judge,
        text: SignedText,
    ) -> Result<(), Refused> {
        text.check_time(unix)?;
        let sender = judge.certificate(&text.certificate)?;
        if sender.handle != text.text.from {
            return Err(Refused::NotYours);
        }
        if !sender.may_text {
            return Err(Refused::NoText);
        }
        if !judge.text(&text, &sender.keys) {
            return Err(Refused::Signature);
        }
        let room = self.limits.mailboxes_bytes.saturating_sub(self.mailboxes_bytes);
        let limit = self.limits.mailbox;
        let record = self.record(now, &text.text.to)?;
        if record.rules.is_some() && !record.may_see(&text.text.from) {
            return Err(Refused::NotAllowed);
        }
        self.mailboxes_bytes += record.mailbox.keep(text, limit, room)?;
        self.counters.texts += 1;
        Ok(())
    }

    /// Sends every device of a handle what it does not have. A device has been told which home
    /// delivers, so that nothing comes twice as long as both live.
    pub(super) fn deliver(&mut self, handle: &Handle) {
        let Some(record) = self.records.get(handle).filter(|record| record.rules.is_some()) else { return };
        for (device, presence) in record.devices.iter().filter(|(_, presence)| presence.delivers) {
            if !self.links.get(&presence.via).is_some_and(|link| link.up) {
                continue;
            }
            for text in record.mailbox.waiting_for(*device).filter(|text| record.may_see(&text.text.from)) {
                let frame = Frame::Text { text: text.clone(), device: Some(*device) };
                let queued = (presence.via, frame);
                if !self.transmit.contains(&queued) {
                    self.transmit.push_back(queued);
                }
            }
        }
    }

    /// A device has a text.
    pub(super) fn got(&mut self, from: PeerId, handle: &Handle, device: u8, id: TextId) {
        let Some(record) = self.records.get_mut(handle) else { return };
        if record.devices.get(&device).is_none_or(|presence| presence.via != from) {
            self.counters.refuse(Refused::NotYours);
            return;
        }
        let freed = record.mailbox.had(&id, device, record.keys().len());
        self.mailboxes_bytes = self.mailboxes_bytes.saturating_sub(freed);
    }
}
