//! Presence and text of the overlay, `/causeway/presence/1`.
//!
//! Not the DHT and no gossip: the two supernodes nearest to the hash of a handle are its homes
//! ([`homes_of`]). Three state machines, all sans-IO:
//!
//! - [`Client`], a device: says how available its user is, and what it hears of its contacts.
//! - [`Agent`], the supernode that a device is connected to: publishes the state of its devices to
//!   both homes of each, and watches at one home of each contact, once for all of its watchers.
//! - [`Home`], the supernode that keeps the state of a handle, decides who may see it, and keeps
//!   text for devices that are not there.
//!
//! What costs nothing is most of it. A connection that is lost says that its devices are offline.
//! What a watcher has is never sent again: on a new connection one message ("everything up to
//! version v") stands for all handles, at another supernode four bytes a contact do. A change of
//! availability is proven by a link of a one-way chain, which is a quarter of a signature.
//!
//! Who trusts whom: a home verifies what a device has signed, and so does every watcher. That a
//! device is gone, and that a watcher is who it is, a home hears from the agent, a certified
//! supernode.

mod agent;
mod bucket;
mod chain;
mod client;
mod feed;
mod frame;
mod home;
mod judge;
mod mailbox;
mod ring;
mod rules;
pub mod simulation;
mod state;
mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use call_model::Availability;

pub use agent::{Agent, AgentEvent, Destination};
pub use chain::{Anchors, LINK_BYTES, Link, MAX_STEPS};
pub use client::{Client, ClientError, ClientEvent};
pub use frame::{DeviceUpdate, Frame, FrameDecoder, Need, SlotUpdate, Verdict, WatchItem};
pub use home::{Home, HomeEvent};
pub use judge::{Certified, Judge, Verifier};
pub use ring::{HOMES, Members, homes_of};
pub use rules::{Rules, SignedRules};
pub use state::{ANNOUNCEMENT_LIFE, Announcement, HandleState, Mark, SignedAnnouncement, Statement, Step};
pub use text::{SignedText, Text, TextId};

/// The name under which the protocol is negotiated.
pub const PROTOCOL: &str = "/causeway/presence/1";

/// Longest note beside the availability, in bytes.
pub const MAX_NOTE: usize = 128;
/// Longest text message, in bytes.
pub const MAX_TEXT: usize = 2 * 1024;
/// Most handles that the rules of a user name, allowed and refused together.
pub const MAX_RULED: usize = 384;
/// How long a text waits for the devices of its addressee, in seconds.
pub const TEXT_LIFE: u64 = 7 * 24 * 3600;

/// The bounds of a [`Home`], an [`Agent`] and a [`Client`].
#[derive(Clone, Debug)]
pub struct PresenceLimits {
    /// Handles that a home keeps.
    pub handles: usize,
    /// Supernodes whose agents watch and publish at a home, or homes that an agent knows.
    pub links: usize,
    /// Devices attached to an agent.
    pub clients: usize,
    /// Watchers of one handle at a home.
    pub watchers: usize,
    /// Contacts that one device watches.
    pub contacts: usize,
    /// Handles that one agent watches.
    pub subscriptions: usize,
    /// Texts that wait for one user.
    pub mailbox: usize,
    /// Bytes of text that wait at a home in all.
    pub mailboxes_bytes: usize,
    /// Changes and texts that one user may send at once; one more comes with every
    /// [`PresenceLimits::every`].
    pub burst: u32,
    /// How soon a user may say one thing more.
    pub every: Duration,
    /// How long the devices behind a lost connection count as there, and what is known of the
    /// watchers behind it is kept.
    pub grace: Duration,
    /// How long a new home waits for the devices of a handle before it says that there are none.
    pub settle: Duration,
    /// How long a home remembers a user who is offline.
    pub memory: Duration,
    /// How long an answer is waited for before the question is put again.
    pub retry: Duration,
}

impl Default for PresenceLimits {
    fn default() -> Self {
        Self {
            handles: 100_000,
            links: 4_096,
            clients: 10_000,
            watchers: 2_048,
            contacts: 1_024,
            subscriptions: 200_000,
            mailbox: 64,
            mailboxes_bytes: 64 << 20,
            burst: 20,
            every: Duration::from_secs(2),
            grace: Duration::from_secs(30),
            settle: Duration::from_secs(45),
            memory: Duration::from_secs(TEXT_LIFE),
            retry: Duration::from_secs(10),
        }
    }
}

/// Why something was refused. The names are metric labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "as_str says what each is")]
pub enum Refused {
    Malformed,
    Oversize,
    Certificate,
    Signature,
    Proof,
    Expired,
    TooFarAhead,
    NotNewer,
    NotYours,
    NotHome,
    Misplaced,
    Rate,
    Handles,
    Links,
    Clients,
    Watchers,
    Subscriptions,
    Mailbox,
    NotAllowed,
    NoText,
}

impl Refused {
    /// Every reason, in the order of the codes on the wire, which begin with 1.
    pub const ALL: [Refused; 20] = [
        Refused::Malformed,
        Refused::Oversize,
        Refused::Certificate,
        Refused::Signature,
        Refused::Proof,
        Refused::Expired,
        Refused::TooFarAhead,
        Refused::NotNewer,
        Refused::NotYours,
        Refused::NotHome,
        Refused::Misplaced,
        Refused::Rate,
        Refused::Handles,
        Refused::Links,
        Refused::Clients,
        Refused::Watchers,
        Refused::Subscriptions,
        Refused::Mailbox,
        Refused::NotAllowed,
        Refused::NoText,
    ];

    /// Returns the name used as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Malformed => "malformed",
            Refused::Oversize => "oversize",
            Refused::Certificate => "certificate",
            Refused::Signature => "signature",
            Refused::Proof => "proof",
            Refused::Expired => "expired",
            Refused::TooFarAhead => "too_far_ahead",
            Refused::NotNewer => "not_newer",
            Refused::NotYours => "not_yours",
            Refused::NotHome => "not_home",
            Refused::Misplaced => "misplaced",
            Refused::Rate => "rate",
            Refused::Handles => "handles",
            Refused::Links => "links",
            Refused::Clients => "clients",
            Refused::Watchers => "watchers",
            Refused::Subscriptions => "subscriptions",
            Refused::Mailbox => "mailbox",
            Refused::NotAllowed => "not_allowed",
            Refused::NoText => "no_text",
        }
    }

    fn code(self) -> u8 {
        Self::ALL.iter().position(|reason| *reason == self).map_or(0, |at| at as u8 + 1)
    }

    /// Reads a code. One of a later version is none that can be mended here.
    fn from_code(code: u8) -> Self {
        let place = usize::from(code).checked_sub(1);
        place.and_then(|place| Self::ALL.get(place)).copied().unwrap_or(Refused::Malformed)
    }
}

/// What a state machine counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresenceCounters {
    /// Frames taken.
    pub frames_in: u64,
    /// Frames handed out.
    pub frames_out: u64,
    /// Changes of a state that were passed on.
    pub changes: u64,
    /// Texts taken.
    pub texts: u64,
    /// Texts that went because nobody had fetched them in time.
    pub texts_expired: u64,
    /// What was refused, by [`Refused::as_str`].
    pub refused: BTreeMap<&'static str, u64>,
}

impl PresenceCounters {
    fn refuse(&mut self, reason: Refused) {
        *self.refused.entry(reason.as_str()).or_default() += 1;
    }
}
