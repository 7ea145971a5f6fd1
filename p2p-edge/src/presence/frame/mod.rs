//! The frames of the presence protocol and their CBOR form.
//!
//! The same frames run between a device and its agent and between an agent and a home: the agent is
//! to its devices what a home is to the agent.

mod wire;

use call_model::Handle;
use libp2p::PeerId;

use self::wire::Wire;
use super::Refused;
use super::rules::SignedRules;
use super::state::{Mark, Statement, Step};
use super::text::{SignedText, TextId};
use crate::cbor;
use crate::framing::{FramingError, Splitter, with_length};

/// Bytes of items after which another frame is begun.
pub(super) const FULL_FRAME: usize = 12 * 1024;

/// What a home lacks of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// The user's certificate.
    pub certificate: bool,
    /// The user's rules.
    pub rules: bool,
}

/// What became of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A home of the addressee keeps it. Whoever is not allowed to write hears the same.
    Kept,
    /// It was refused.
    Refused(Refused),
}

/// Asks for the state of a handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchItem {
    /// Names the handle on this link from now on.
    pub slot: u32,
    /// Who is watched.
    pub handle: Handle,
    /// What the watcher has: [`HandleState::mark`](super::HandleState::mark).
    pub mark: Mark,
    /// What it remembers: [`HandleState::base`](super::HandleState::base).
    pub base: Mark,
    /// On whose behalf, and whether that one has been shown the state before. Absent where a
    /// device watches for its own user.
    pub watcher: Option<(Handle, bool)>,
}

/// What is new of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceUpdate {
    /// The device is gone.
    Gone {
        /// The place of its key in the certificate.
        device: u8,
    },
    /// The device is back, and says what it said when the receiver heard of it last.
    Back {
        /// The place of its key in the certificate.
        device: u8,
    },
    /// The availability has changed since the announcement that the receiver has.
    Step {
        /// The place of its key in the certificate.
        device: u8,
        /// The change.
        step: Step,
    },
    /// All of it.
    Full(Statement),
}

/// What is new of one watched handle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotUpdate {
    /// The handle.
    pub slot: u32,
    /// Whether what the receiver had of it is void.
    pub snapshot: bool,
    /// What is new.
    pub updates: Vec<DeviceUpdate>,
    /// Watchers who may see it from now on.
    pub granted: Vec<Handle>,
    /// Watchers who may not see it any more.
    pub revoked: Vec<Handle>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A device says what its state is.
    Publish {
        /// Announcement and step.
        statement: Statement,
        /// Sequence of the rules that the user has signed, 0 where there are none.
        rules: u64,
        /// Whether the receiver is to deliver text: one of the two homes does.
        delivers: bool,
        /// The encoded certificate, where the home lacks it.
        certificate: Option<Vec<u8>>,
    },
    /// The availability at a device has changed since its announcement.
    Change {
        /// The user.
        handle: Handle,
        /// The place of the device's key in the certificate.
        device: u8,
        /// The sequence of the announcement.
        sequence: u64,
        /// The change.
        step: Step,
    },
    /// A device is gone, or does not want to be seen.
    Withdraw {
        /// The user.
        handle: Handle,
        /// The place of the device's key in the certificate.
        device: u8,
    },
    /// A home, or an agent, lacks something of a user who publishes.
    Need {
        /// The user.
        handle: Handle,
        /// The device that publishes.
        device: u8,
        /// What is lacking.
        need: Need,
    },
    /// What a device has published was not taken.
    Rejected {
        /// The user.
        handle: Handle,
        /// The device.
        device: u8,
        /// Why.
        reason: Refused,
    },
    /// The receiver of this has asked the wrong supernode: these are the homes of the handle.
    Elsewhere {
        /// The handle.
        handle: Handle,
        /// Supernodes, at most [`super::HOMES`].
        homes: Vec<PeerId>,
    },
    /// Who may see the user.
    Rules(SignedRules),
    /// Asks for the states of handles.
    Watch {
        /// Chosen by the watcher when it begins anew: names what it has asked for on this link.
        session: u64,
        /// The handles.
        items: Vec<WatchItem>,
    },
    /// Takes watches back: slot, and the watcher where there may be several.
    Unwatch {
        /// The handles.
        items: Vec<(u32, Option<Handle>)>,
    },
    /// What is new.
    States {
        /// Counts these frames.
        version: u64,
        /// The handles.
        items: Vec<SlotUpdate>,
    },
    /// On a new connection: the sender has everything up to this version.
    Resume {
        /// What the watcher has asked for.
        session: u64,
        /// The last version that it has.
        version: u64,
    },
    /// All that the receiver has is still valid up to this version, for all handles at once.
    Still {
        /// The version.
        version: u64,
        /// How many of `publish`, `change`, `withdraw` and `rules` have come in this session.
        received: u64,
    },
    /// The session is not known here: begin anew.
    Forgotten,
    /// A text, with the device that it is for where a home delivers it to an agent.
    Text {
        /// The text.
        text: SignedText,
        /// The addressee's device.
        device: Option<u8>,
    },
    /// A device has a text.
    Got {
        /// The addressee.
        handle: Handle,
        /// Its device.
        device: u8,
        /// The text.
        id: TextId,
    },
    /// What became of a text.
    Taken {
        /// The text.
        id: TextId,
        /// What became of it.
        verdict: Verdict,
    },
    /// Asks for the certificate of a handle.
    Ask {
        /// The handle.
        handle: Handle,
    },
    /// The certificate of a handle, if it is known.
    Certificate {
        /// The handle.
        handle: Handle,
        /// Encoded.
        certificate: Option<Vec<u8>>,
    },
    /// A kind of frame that this version does not know.
    Unknown {
        /// Its number.
        kind: u16,
    },
}

impl Frame {
    /// Encodes the frame with its length in front.
    pub fn encode(&self) -> Vec<u8> {
        with_length(&cbor::encode(Wire::of(self)))
    }

    /// Reads the CBOR map of one frame, without its length.
    ///
    /// # Errors
    /// `Malformed` where it is not one map with the keys and types of the protocol; `Oversize` for a
    /// text or rules that are too long.
    pub fn decode(bytes: &[u8]) -> Result<Frame, Refused> {
        let wire: Wire =
            cbor::decode("the frame", bytes, crate::framing::MAX_FRAME).map_err(|_| Refused::Malformed)?;
        wire.read()
    }

    /// Says whether the frame says something of the sender's devices: these are counted, so that
    /// after a lost connection it is known which have not arrived.
    pub(super) fn is_said(&self) -> bool {
        matches!(
            self,
            Frame::Publish { .. } | Frame::Change { .. } | Frame::Withdraw { .. } | Frame::Rules(_)
        )
    }

    /// Returns the name used in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Frame::Publish { .. } => "publish",
            Frame::Change { .. } => "change",
            Frame::Withdraw { .. } => "withdraw",
            Frame::Need { .. } => "need",
            Frame::Rejected { .. } => "rejected",
            Frame::Elsewhere { .. } => "elsewhere",
            Frame::Rules(_) => "rules",
            Frame::Watch { .. } => "watch",
            Frame::Unwatch { .. } => "unwatch",
            Frame::States { .. } => "states",
            Frame::Resume { .. } => "resume",
            Frame::Still { .. } => "still",
            Frame::Forgotten => "forgotten",
            Frame::Text { .. } => "text",
            Frame::Got { .. } => "got",
            Frame::Taken { .. } => "taken",
            Frame::Ask { .. } => "ask",
            Frame::Certificate { .. } => "certificate",
            Frame::Unknown { .. } => "unknown",
        }
    }
}

/// Cuts a byte stream into frames, however the stream was split. Holds at most one frame.
#[derive(Debug, Default)]
pub struct FrameDecoder(Splitter);

impl FrameDecoder {
    /// Creates a decoder at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` until one frame is complete or `input` is used up.
    /// Call it again with the rest of `input` after each frame.
    ///
    /// # Errors
    /// Any error is that of a peer that does not keep to the protocol: close the stream.
    pub fn feed(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Refused> {
        let body = self.0.feed(input).map_err(|error| match error {
            FramingError::TooLong => Refused::Oversize,
            FramingError::BadVarint => Refused::Malformed,
        })?;
        body.map(|body| Frame::decode(&body)).transpose()
    }
}
