//! What a softphone tells its user, and how it looks as a JSON line.

use call_model::{CallId, LegQuality};
use serde::{Serialize, Serializer};
use transcoder::quality;

/// One thing that happened. As JSON: an object whose `event` names it in snake case.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The softphone runs and takes commands.
    Ready {
        /// PeerId of the device.
        peer_id: String,
        /// The certified handle.
        handle: String,
    },
    /// It can be reached at an address.
    Listening {
        /// A multiaddr.
        address: String,
    },
    /// It has joined the overlay and can be found.
    Online,
    /// It has lost the overlay and keeps trying.
    Offline {
        /// What is missing.
        reason: String,
    },
    /// A call comes in.
    Incoming {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
        /// Number or handle of the caller, as it was told; absent where it is unknown or private.
        from: Option<String>,
        /// Name of the caller for display.
        display_name: Option<String>,
        /// Whether the caller asked not to be shown.
        private: bool,
        /// `user` (the address is certified) or `gateway` (the gateway vouches for it).
        role: &'static str,
        /// Whom the call is for.
        to: String,
    },
    /// A call goes out.
    Calling {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
        /// Whom it is for.
        to: String,
    },
    /// The other node works on the call.
    Trying {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
    },
    /// The called user is being alerted.
    Ringing {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
    },
    /// Media flows before the answer.
    Early {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
    },
    /// The call is answered.
    Answered {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
    },
    /// Media can flow: ICE and DTLS are through.
    MediaUp {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
    },
    /// Media goes this way from now on.
    Path {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
        /// The address of this side: of an interface, or relayed.
        local: String,
        /// The address of the other side, as it is seen here.
        remote: String,
        /// The server that relays for this side; absent where none does.
        #[serde(skip_serializing_if = "Option::is_none")]
        relay: Option<String>,
        /// How that server is reached: `udp`, `tcp` or `tls`.
        #[serde(skip_serializing_if = "Option::is_none")]
        relay_transport: Option<&'static str>,
    },
    /// The first packet of voice came.
    Heard {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
    },
    /// Nothing has been received for the media timeout.
    Silent {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
    },
    /// The clip was played to its end.
    Played {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
    },
    /// A digit came.
    Dtmf {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
        /// The digit.
        digit: char,
        /// Its length.
        duration_ms: u16,
        /// `media` (RFC 4733) or `signalling`.
        via: &'static str,
    },
    /// One side holds, or has taken back.
    Hold {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
        /// Whether it holds.
        on: bool,
        /// `local` or `far`.
        by: &'static str,
    },
    /// Another is connected on the telephone side than before.
    Connected {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
        /// Number or handle of the party; absent where it is unknown or private.
        party: Option<String>,
        /// Name of the party for display.
        display_name: Option<String>,
        /// Whether the party asked not to be shown.
        private: bool,
    },
    /// Text from the other user.
    Message {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
        /// The text.
        text: String,
    },
    /// The other side asks this one to call somebody else in its place.
    Transfer {
        /// The call.
        #[serde(serialize_with = "as_text")]
        call: CallId,
        /// Whom to call.
        to: String,
        /// Whether that is being done, as the policy says.
        followed: bool,
    },
    /// A contact is shown otherwise than before.
    Presence {
        /// The contact.
        handle: String,
        /// `available`, `away`, `busy` or `offline`.
        availability: &'static str,
        /// What it says besides.
        note: String,
    },
    /// A text has come from a user, verified.
    Text {
        /// Names the text.
        id: String,
        /// Who sends it.
        from: String,
        /// The text. May hold any character.
        text: String,
        /// When it was sent, as its sender says.
        sent_unix_ms: u64,
    },
    /// A text is on its way.
    TextSent {
        /// Names the text.
        id: String,
        /// Whom it is for.
        to: String,
    },
    /// The overlay keeps a text for its addressee, or refuses it.
    TextTaken {
        /// Names the text.
        id: String,
        /// Whether it is kept until a device of the addressee has it, a week at most. So it is said too
        /// where the addressee takes no text of this user.
        kept: bool,
        /// Why it was refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
    },
    /// What was said of presence was refused.
    PresenceRefused {
        /// Why.
        reason: &'static str,
    },
    /// Numbers that an authority has assigned are published.
    Numbers {
        /// The numbers.
        numbers: Vec<String>,
    },
    /// A call is over. Exactly one per call.
    Ended(Ended),
    /// A new certificate is in use.
    Certificate {
        /// When it ends, in Unix seconds.
        not_after_unix: u64,
    },
    /// The state of the softphone, as asked for.
    Status {
        /// Whether it has joined the overlay.
        online: bool,
        /// Connected peers.
        peers: usize,
        /// Relay reservations held.
        reservations: usize,
        /// Calls in progress, by id.
        calls: Vec<String>,
        /// Events that were dropped because nobody read them.
        events_dropped: u64,
    },
    /// Something was not done.
    Error {
        /// The call, where one is concerned.
        #[serde(serialize_with = "as_optional_text", skip_serializing_if = "Option::is_none")]
        call: Option<CallId>,
        /// The field of the command that is wrong, where one is.
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// What is wrong.
        message: String,
        /// What would help.
        remedy: String,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ended {
    /// The call.
    #[serde(serialize_with = "as_text")]
    pub call: CallId,
    /// Q.850 cause value.
    pub cause: u8,
    /// Its name.
    pub cause_text: String,
    /// SIP status, where one side named one.
    pub sip_status: Option<u16>,
    /// Free text of the side that ended it.
    pub text: String,
    /// `far`, `local`, `timeout` or `lost`.
    pub by: &'static str,
    /// Whether the call was answered.
    pub answered: bool,
    /// Whether media came up.
    pub media_up: bool,
    /// Whether it ended because media failed.
    pub media_failed: bool,
    /// Time from answer to end.
    pub duration_ms: u64,
    /// Digits received, in order.
    pub digits: String,
    /// What was measured; absent where there never was media.
    pub quality: Option<Quality>,
}

/// What was measured of the voice that was received.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Packets received and usable.
    pub packets_received: u64,
    /// Packets sent.
    pub packets_sent: u64,
    /// Packets that never came.
    pub packets_lost: u64,
    /// Packets that came too late to be played.
    pub packets_late: u64,
    /// Packets dropped for their source, shape or authentication.
    pub packets_refused: u64,
    /// Frames made up by concealment.
    pub frames_concealed: u64,
    /// Interarrival jitter.
    pub jitter_ms: f32,
    /// Listening quality estimated from loss (G.107), 1 to 4.5; delay is not part of it.
    pub mos: f32,
}

impl From<LegQuality> for Quality {
    fn from(leg: LegQuality) -> Self {
        let r = quality::r_factor(quality::loss_percent(&leg), 1.0, 0.0, call_model::Codec::Opus);
        Self {
            packets_received: leg.packets_received,
            packets_sent: leg.packets_sent,
            packets_lost: leg.packets_lost,
            packets_late: leg.packets_late,
            packets_refused: leg.packets_refused,
            frames_concealed: leg.frames_concealed,
            jitter_ms: leg.jitter_ms,
            mos: quality::mos(r),
        }
    }
}

impl Event {
    /// Builds an error that belongs to no call.
    pub fn error(field: Option<&str>, message: impl ToString, remedy: impl ToString) -> Self {
        Event::Error {
            call: None,
            field: field.map(str::to_owned),
            message: message.to_string(),
            remedy: remedy.to_string(),
        }
    }

    /// Returns the event as one line of JSON, without the line end.
    pub fn to_line(&self) -> String {
        // Strings and numbers only: nothing that JSON could not say.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn as_text<S: Serializer>(call: &CallId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(call)
}

fn as_optional_text<S: Serializer>(call: &Option<CallId>, serializer: S) -> Result<S::Ok, S::Error> {
    match call {
        Some(call) => serializer.collect_str(call),
        None => serializer.serialize_none(),
    }
}
