//! Candidates beyond the addresses of this host (RFC 8445 5.1.1), those that come after the descriptions
//! (RFC 8838), and the pair that carries media.
//!
//! The leg never speaks to a STUN or TURN server. Whoever owns its sockets does, tells it what was found, and wraps
//! what the leg sends from a relayed address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::Candidate;

use super::{State, WebRtcLeg};
use crate::error::MediaError;

/// Most candidates that either side may add to those of its description.
pub const MAX_ADDED_CANDIDATES: usize = 16;

/// A candidate of this side that a server has told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalCandidate {
    /// An address of a NAT in front of this host, as a STUN server saw it. Packets are sent from `base`.
    ServerReflexive {
        /// What the server saw.
        address: SocketAddr,
        /// The host's address that was mapped to it.
        base: SocketAddr,
    },
    /// An address on a TURN server. Packets leave with it as their local address, and come on it.
    Relayed {
        /// The relayed transport address.
        address: SocketAddr,
        /// The host's address from which the server is reached.
        base: SocketAddr,
    },
}

impl WebRtcLeg {
    /// Adds a candidate of this side. Returns it as `candidate:...` (RFC 8839 5.1), to be told to the other side if
    /// the description is already out; `None` where it says nothing new.
    ///
    /// # Errors
    /// `LocalAddress` for an address that can be no candidate, `LocalAddressCount` for one too many, `OutOfOrder` once
    /// the leg is over.
    pub fn add_local_candidate(&mut self, candidate: LocalCandidate) -> Result<Option<String>, MediaError> {
        self.may_add(self.added.0, MediaError::LocalAddressCount)?;
        let candidate = match candidate {
            LocalCandidate::ServerReflexive { address, base } => {
                Candidate::server_reflexive(address, base, "udp")
            }
            LocalCandidate::Relayed { address, base } => Candidate::relayed(address, base, "udp"),
        };
        let candidate = candidate.map_err(|_| MediaError::LocalAddress)?;
        self.added.0 += 1;
        let line = self.rtc.add_local_candidate(candidate).map(Candidate::to_sdp_string);
        self.check_at_once();
        Ok(line)
    }

    /// Takes a candidate of the other side that came after its description: `candidate:...`, as RFC 8839
    /// 5.1 has it.
    ///
    /// # Errors
    /// `SdpSyntax` for one that cannot be read, `SdpTooLong` for one too many, `OutOfOrder` before there is a
    /// description and once the leg is over.
    pub fn add_remote_candidate(&mut self, candidate: &str) -> Result<(), MediaError> {
        self.may_add(self.added.1, MediaError::SdpTooLong)?;
        if self.state == State::Negotiating {
            return Err(MediaError::OutOfOrder);
        }
        let candidate = Candidate::from_sdp_string(candidate).map_err(|_| MediaError::SdpSyntax)?;
        self.added.1 += 1;
        self.rtc.add_remote_candidate(candidate);
        self.check_at_once();
        Ok(())
    }

    fn may_add(&self, added: usize, too_many: MediaError) -> Result<(), MediaError> {
        match self.state {
            State::Over => Err(MediaError::OutOfOrder),
            _ if added >= MAX_ADDED_CANDIDATES => Err(too_many),
            _ => Ok(()),
        }
    }

    /// New pairs are due now, not when str0m last wanted to be woken.
    fn check_at_once(&mut self) {
        if self.state != State::Negotiating {
            self.wake = self.seen;
        }
    }

    /// Returns the addresses between which media goes, ours first: a relayed one where it is one of
    /// [`LocalCandidate::Relayed`]. `None` before the leg is connected.
    pub fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.followed.path.or(self.path)
    }

    /// Takes the place of a local address by another: `gone` carries nothing any more, as a relayed address that its
    /// server has forgotten. Media that went from it goes from `new` at once, and ICE finds out by itself.
    pub fn replace_local(&mut self, gone: SocketAddr, new: SocketAddr) {
        if let Some((local, remote)) = self.path()
            && local == gone
        {
            self.followed.path = Some((new, remote));
        }
    }

    /// str0m has named the nominated pair.
    pub(super) fn nominated(&mut self, pair: (SocketAddr, SocketAddr)) {
        if self.path.replace(pair) != Some(pair) {
            self.followed.path = None;
        }
    }
}

/// How long the path of media is silent before media that comes another way is followed. A NAT that has forgotten its
/// mappings makes the other side come from another address, and ICE takes more than 15 s to give up the old one. The
/// time of the two sides differs, or both would go over at once and miss each other.
const FOLLOW_OFFERER: Duration = Duration::from_secs(1);
const FOLLOW_ANSWERER: Duration = Duration::from_secs(2);

/// Where media comes from while it does not come from the nominated pair: the pair is one that ICE has validated, and
/// what comes was authenticated, so its sender is there.
#[derive(Debug)]
pub(super) struct Followed {
    path: Option<(SocketAddr, SocketAddr)>,
    heard: Option<Instant>,
    after: Duration,
}

impl Followed {
    pub(super) fn new() -> Self {
        Self { path: None, heard: None, after: FOLLOW_ANSWERER }
    }

    /// This side has made the offer.
    pub(super) fn offered(&mut self) {
        self.after = FOLLOW_OFFERER;
    }

    /// A packet was authenticated that came on a pair.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        nominated: Option<(SocketAddr, SocketAddr)>,
        pair: (SocketAddr, SocketAddr),
    ) {
        if self.path.or(nominated) != Some(pair) {
            if self.heard.is_some_and(|heard| now < heard + self.after) {
                return;
            }
            self.path = Some(pair).filter(|_| nominated != Some(pair));
        }
        self.heard = Some(now);
    }
}
