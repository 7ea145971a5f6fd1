//! What the media of a call has to say to its telephone.

use std::time::Instant;

use call_model::{CallId, Cause};
use p2p_edge::calling::SessionCommand;

use super::{CLOSED_GRACE, Task};
use crate::event::Event;
use crate::media::MediaEvent;

impl Task {
    pub(super) fn handle_media(&mut self, id: CallId, event: MediaEvent) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        match event {
            MediaEvent::Described { sdp } => self.handle_described(id, sdp),
            MediaEvent::Candidate { candidate } => {
                // A gateway answers where it hears from.
                if !call.through_gateway
                    && !call.has_ended()
                    && let Some(candidate) = call.keep_candidate(candidate)
                {
                    self.tell(id, SessionCommand::Candidate { candidate });
                }
            }
            MediaEvent::Path { local, remote, relay } => {
                self.report(Event::Path {
                    call: id,
                    local: local.to_string(),
                    remote: remote.to_string(),
                    relay: relay.map(|(server, _)| server.to_string()),
                    relay_transport: relay.map(|(_, transport)| transport),
                });
            }
            MediaEvent::Connected => {
                call.media_up = true;
                if !call.has_ended() {
                    self.tell(id, SessionCommand::MediaUp);
                    self.report(Event::MediaUp { call: id });
                    self.begin(id);
                }
            }
            MediaEvent::FirstPacket => self.report(Event::Heard { call: id }),
            MediaEvent::Silent => self.report(Event::Silent { call: id }),
            MediaEvent::Played => self.report(Event::Played { call: id }),
            MediaEvent::Dtmf { digit, duration_ms } => {
                call.heard_digit(digit);
                self.report(Event::Dtmf { call: id, digit: digit.as_char(), duration_ms, via: "media" });
            }
            MediaEvent::DigitUnsent { digit, duration_ms } => {
                if !call.has_ended() {
                    self.tell(id, SessionCommand::Dtmf { digit, duration_ms });
                }
            }
            MediaEvent::RecordFailed { reason } => {
                self.complain(id, reason, "check the path, its permissions and the space there");
            }
            // The other side closes its media as it hangs up, and signalling may take longer.
            MediaEvent::Closed => call.hang_up_by(Instant::now() + CLOSED_GRACE),
            MediaEvent::Failed { reason } => {
                if !call.has_ended() {
                    call.media_failed = true;
                    self.complain(
                        id,
                        format!("media failed: {reason}"),
                        "check the path between the media addresses",
                    );
                    self.hang_up(id, Cause::BEARER_CAPABILITY_NOT_AVAILABLE, "media failed");
                }
            }
            MediaEvent::Stopped { quality } => {
                if call.has_ended() {
                    self.forget(id, Some(quality));
                }
            }
        }
    }
}
