//! What a device says of itself: a signed announcement, and steps after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use call_model::Handle;
use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::chain::{self, Anchors, Chains, LINK_BYTES, Link};
use super::{Availability, MAX_NOTE, Refused};
use crate::cbor;
use crate::identity::{Domain, MAX_DEVICES, NodeKey, PublicKey, Signed};
use crate::record::CLOCK_SKEW;

/// The longest that an announcement lasts, in seconds. A device makes another at half of that; a
/// home does not pass it on where nothing else has changed.
pub const ANNOUNCEMENT_LIFE: u64 = 7 * 24 * 3600;
/// Longest encoded body of an announcement, in bytes.
pub(super) const MAX_BODY: usize = 512;

/// What a device signs when it comes on, when its note changes and when its chains are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The user.
    pub handle: Handle,
    /// The place of the device's key in the user's certificate.
    pub device: u8,
    /// The number of that certificate.
    pub serial: u64,
    /// Counts up with every announcement of the device: Unix milliseconds.
    pub sequence: u64,
    /// When it ends, in Unix seconds: at most [`ANNOUNCEMENT_LIFE`] ahead.
    pub expires_unix: u64,
    /// How available the user is, until the first step.
    pub availability: Availability,
    /// What the user says besides, at most [`MAX_NOTE`] bytes.
    pub note: String,
    /// The ends of the chains that prove steps.
    pub anchors: Anchors,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    handle: String,
    #[n(1)]
    device: u8,
    #[n(2)]
    serial: u64,
    #[n(3)]
    sequence: u64,
    #[n(4)]
    expires_unix: u64,
    #[n(5)]
    availability: u8,
    #[n(6)]
    note: Option<String>,
    #[n(7)]
    anchors: ByteArray<{ 3 * LINK_BYTES }>,
}

/// An announcement and the signature over exactly its bytes. Reading one verifies nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAnnouncement {
    /// What it says.
    pub announcement: Announcement,
    /// The bytes.
    pub signed: Signed,
}

impl SignedAnnouncement {
    /// Signs an announcement with the key of its device.
    pub fn seal(announcement: Announcement, key: &NodeKey) -> Self {
        let mut anchors = [0; 3 * LINK_BYTES];
        anchors.iter_mut().zip(announcement.anchors.iter().flatten()).for_each(|(to, from)| *to = *from);
        let body = Body {
            handle: announcement.handle.to_string(),
            device: announcement.device,
            serial: announcement.serial,
            sequence: announcement.sequence,
            expires_unix: announcement.expires_unix,
            availability: announcement.availability.code(),
            note: Some(announcement.note.clone()).filter(|note| !note.is_empty()),
            anchors: anchors.into(),
        };
        let signed = Signed::seal(key, Domain::Presence, cbor::encode(body));
        Self { announcement, signed }
    }

    /// Reads an announcement.
    ///
    /// # Errors
    /// `Malformed` for anything that [`SignedAnnouncement::seal`] does not write.
    pub(super) fn read(signed: Signed) -> Result<Self, Refused> {
        let body: Body =
            cbor::decode("the announcement", &signed.body, MAX_BODY).map_err(|_| Refused::Malformed)?;
        let handle: Handle = body.handle.parse().map_err(|_| Refused::Malformed)?;
        let availability = Availability::from_code(body.availability).ok_or(Refused::Malformed)?;
        let note = body.note.unwrap_or_default();
        // One handle has one spelling.
        let well_formed = handle.as_str() == body.handle
            && usize::from(body.device) < MAX_DEVICES
            && note.len() <= MAX_NOTE
            && availability != Availability::Offline;
        if !well_formed {
            return Err(Refused::Malformed);
        }
        let mut anchors = Anchors::default();
        anchors.iter_mut().flatten().zip(body.anchors.iter()).for_each(|(to, from)| *to = *from);
        let announcement = Announcement {
            handle,
            device: body.device,
            serial: body.serial,
            sequence: body.sequence,
            expires_unix: body.expires_unix,
            availability,
            note,
            anchors,
        };
        Ok(Self { announcement, signed })
    }

    /// Checks the times of an announcement that comes for the first time.
    ///
    /// # Errors
    /// `Expired` when it has ended, `TooFarAhead` when it ends or counts later than clocks that
    /// differ by a minute explain.
    pub(super) fn check_time(&self, unix: u64) -> Result<(), Refused> {
        let Announcement { sequence, expires_unix, .. } = self.announcement;
        if expires_unix <= unix {
            return Err(Refused::Expired);
        }
        let latest = unix.saturating_add(CLOCK_SKEW);
        if expires_unix > latest.saturating_add(ANNOUNCEMENT_LIFE) || sequence > latest.saturating_mul(1000) {
            return Err(Refused::TooFarAhead);
        }
        Ok(())
    }

    /// Says whether the device that it names has signed it. `keys` are those of the certificate.
    pub(super) fn is_by(&self, keys: &[PublicKey]) -> bool {
        keys.get(usize::from(self.announcement.device))
            .is_some_and(|key| self.signed.is_by(key, Domain::Presence))
    }
}

/// A change of availability after an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Counts the changes after the announcement, from 1 to [`chain::MAX_STEPS`].
    pub number: u8,
    /// How available the user is now.
    pub availability: Availability,
    /// The proof.
    pub link: Link,
}

impl Step {
    /// Makes the step.
    pub(super) fn new(chains: &Chains, number: u8, availability: Availability) -> Self {
        Self { number, availability, link: chains.link(availability, number) }
    }

    pub(super) fn is_proven(&self, announcement: &Announcement) -> bool {
        chain::proves(&announcement.anchors, self.availability, self.number, &self.link)
    }
}

/// The state of one device: its last announcement and the last step after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The announcement.
    pub announced: Arc<SignedAnnouncement>,
    /// The step, where there was one.
    pub step: Option<Step>,
}

impl Statement {
    /// Returns how available the user is at this device.
    pub fn availability(&self) -> Availability {
        self.step.map_or(self.announced.announcement.availability, |step| step.availability)
    }

    /// Returns what orders the statements of a device: the announcement's sequence, then the step's
    /// number.
    pub fn version(&self) -> (u64, u8) {
        (self.announced.announcement.sequence, self.step.map_or(0, |step| step.number))
    }

    /// Says whether both show the same to a watcher.
    pub(super) fn shows_same(&self, other: &Statement) -> bool {
        self.availability() == other.availability()
            && self.announced.announcement.note == other.announced.announcement.note
    }
}

/// The state of a user: that of every device that is on. What was said last by those that are gone
/// is remembered, so that one that comes back need not say it all again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandleState {
    on: BTreeMap<u8, Statement>,
    gone: BTreeMap<u8, Statement>,
}

/// Names a state, or what is remembered of a user, in four bytes; 0 is nothing. Two that differ have
/// the same mark once in 2^32: a watcher is then late by one change.
pub type Mark = u32;

impl HandleState {
    /// Returns the devices that are on.
    pub fn devices(&self) -> impl Iterator<Item = (u8, &Statement)> {
        self.on.iter().map(|(device, statement)| (*device, statement))
    }

    /// Returns the state of a device that is on.
    pub fn device(&self, device: u8) -> Option<&Statement> {
        self.on.get(&device)
    }

    /// Returns what a device said last, whether it is on or gone.
    pub fn known(&self, device: u8) -> Option<&Statement> {
        self.on.get(&device).or_else(|| self.gone.get(&device))
    }

    /// Returns every device that is on or remembered, and which of the two.
    pub(super) fn all(&self) -> impl Iterator<Item = (u8, &Statement, bool)> {
        let on = self.on.iter().map(|(device, statement)| (*device, statement, true));
        on.chain(self.gone.iter().map(|(device, statement)| (*device, statement, false)))
    }

    /// Says whether no device is on.
    pub fn is_offline(&self) -> bool {
        self.on.is_empty()
    }

    /// Returns what is shown of the user: the most available device, and its note.
    pub fn shown(&self) -> (Availability, &str) {
        let best = self.on.values().max_by_key(|statement| (statement.availability(), statement.version()));
        best.map_or((Availability::Offline, ""), |statement| {
            (statement.availability(), statement.announced.announcement.note.as_str())
        })
    }

    pub(super) fn insert(&mut self, device: u8, statement: Statement) {
        if self.on.contains_key(&device) || self.on.len() < MAX_DEVICES {
            self.gone.remove(&device);
            self.on.insert(device, statement);
        }
    }

    /// A device is gone. Returns whether it was on.
    pub(super) fn remove(&mut self, device: u8) -> bool {
        let Some(statement) = self.on.remove(&device) else { return false };
        self.gone.insert(device, statement);
        true
    }

    /// A device is back with what it said last.
    pub(super) fn restore(&mut self, device: u8) {
        if let Some(statement) = self.gone.remove(&device) {
            self.on.insert(device, statement);
        }
    }

    /// Forgets what a device that is gone has said.
    pub(super) fn forget(&mut self, device: u8) {
        self.gone.remove(&device);
    }

    /// All devices are gone.
    pub(super) fn suspend(&mut self) {
        self.gone.append(&mut self.on);
    }

    /// Returns the mark of the state.
    pub fn mark(&self) -> Mark {
        mark(self.on.iter().map(|(device, statement)| (*device, statement.version())))
    }

    /// Returns the mark of the announcements that are known, of devices that are on or gone.
    pub fn base(&self) -> Mark {
        let mut all: Vec<(u8, (u64, u8))> =
            self.all().map(|(device, statement, _)| (device, (statement.version().0, 0))).collect();
        all.sort_unstable();
        mark(all.into_iter())
    }
}

fn mark(versions: impl Iterator<Item = (u8, (u64, u8))>) -> Mark {
    let mut hash = Sha256::new();
    let mut is_empty = true;
    for (device, (sequence, number)) in versions {
        is_empty = false;
        hash.update([device, number]);
        hash.update(sequence.to_be_bytes());
    }
    if is_empty {
        return 0;
    }
    let mark = hash.finalize().iter().take(4).fold(0, |mark, byte| (mark << 8) | u32::from(*byte));
    mark.max(1)
}
