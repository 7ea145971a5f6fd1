//! What a softphone does for presence and text, and for transfers.

use call_model::{Address, CallId};
use p2p_edge::calling::SessionCommand;
use p2p_edge::node::{NodeCommand, PresenceCommand};
use p2p_edge::presence::{ClientEvent, TextId, Verdict};

use super::task::Task;
use super::{CallOptions, TransferTarget};
use crate::event::Event;

/// How long a call rings that another user has asked for.
const TRANSFER_RING: std::time::Duration = std::time::Duration::from_secs(60);

/// What the far end hears of a call that another has taken the place of.
pub(super) const TRANSFERRED: &str = "transferred";

impl Task {
    /// Sends a text to a user, who need not be there.
    pub(super) fn send_text(&mut self, to: call_model::Handle, text: String) {
        let mut id: TextId = [0; 16];
        if getrandom::fill(&mut id).is_err() {
            self.report(Event::error(None, "the system gives no random numbers", "try again"));
            return;
        }
        let shown = to.to_string();
        if self.tell_presence(PresenceCommand::Text { id, to, text }) {
            self.report(Event::TextSent { id: hex(&id), to: shown });
        }
    }

    /// Passes a command of presence on. Returns whether the node has taken it.
    pub(super) fn tell_presence(&mut self, command: PresenceCommand) -> bool {
        let taken = self.node.try_send(NodeCommand::Presence(command)).is_ok();
        if !taken {
            self.report(Event::error(None, "the overlay node takes no more commands", "try again"));
        }
        taken
    }

    pub(super) fn handle_presence(&mut self, event: ClientEvent) {
        self.report(match event {
            ClientEvent::Presence { handle, availability, note } => {
                Event::Presence { handle: handle.to_string(), availability: availability.as_str(), note }
            }
            ClientEvent::Text(text) => Event::Text {
                id: hex(&text.id),
                from: text.from.to_string(),
                text: text.text,
                sent_unix_ms: text.sent_unix_ms,
            },
            ClientEvent::Taken { id, verdict } => {
                let reason = match verdict {
                    Verdict::Kept => None,
                    Verdict::Refused(reason) => Some(reason.as_str()),
                };
                Event::TextTaken { id: hex(&id), kept: reason.is_none(), reason }
            }
            ClientEvent::Rejected(reason) => Event::PresenceRefused { reason: reason.as_str() },
        });
    }

    /// Asks the other side of a call to call somebody else in this one's place.
    pub(super) fn transfer(&mut self, id: CallId, target: TransferTarget) {
        let consult = match target {
            TransferTarget::PartyOf(consult) => Some(consult),
            TransferTarget::Address(_) => None,
        };
        let address = match target {
            TransferTarget::Address(address) => Some(address),
            TransferTarget::PartyOf(consult) => self.calls.get(&consult).and_then(|call| call.party.clone()),
        };
        let Some(target) = address else {
            self.complain(id, "nobody is known in the other call", "name whom to call: `to`");
            return;
        };
        let Some(call) = self.calls.get_mut(&id).filter(|call| call.is_answered()) else {
            self.complain(id, "only an answered call can be transferred", "wait for the `answered` event");
            return;
        };
        call.ends_with_it = consult;
        self.tell(id, SessionCommand::Refer { target });
    }

    /// The other side asks this one to call somebody else. Whether that is done is for this user to
    /// say: the call is at its cost.
    pub(super) async fn asked_to_call(&mut self, id: CallId, target: Address) {
        let followed = self.policy.follow_transfers;
        self.report(Event::Transfer { call: id, to: target.to_string(), followed });
        if followed {
            let options = CallOptions { replaces: Some(id), ..self.policy.options.clone() };
            self.call(target, None, false, TRANSFER_RING, options).await;
        }
    }
}

fn hex(id: &TextId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
