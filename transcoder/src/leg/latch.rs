//! Where the media of a leg comes from and goes to: the address of the description, or one that was learned instead
//! where the rule lets it (RFC 7362 4).
//!
//! A leg leaves the described address once for each offer and answer. What is learned stays when a new description
//! names the same address as the one before: a refresh does not throw a peer behind an address translator out.

use std::net::{IpAddr, SocketAddr};

use super::types::SourceRule;

/// Where a datagram came from, as the rule sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The address media is expected from.
    Expected,
    /// Another one that may take its place, if the packet is good.
    Candidate,
    /// Neither.
    Stranger,
}

/// What is known of one component: RTP and what shares its port, RTCP, or UDPTL.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latch {
    rule: SourceRule,
    /// By offer and answer.
    described: Option<SocketAddr>,
    learned: Option<SocketAddr>,
    /// The described address was left since the last offer and answer.
    spent: bool,
    /// It was heard since then: a peer that can be reached there has not moved.
    heard: bool,
}

impl Latch {
    pub(crate) fn set_rule(&mut self, rule: SourceRule) {
        self.rule = rule;
    }

    pub(crate) fn rule(&self) -> SourceRule {
        self.rule
    }

    /// Takes what a new offer and answer says: the same address again is the same peer, where it was. `None`: the
    /// component is not used.
    pub(crate) fn describe(&mut self, described: Option<SocketAddr>) {
        if self.described != described || self.rule == SourceRule::Negotiated {
            self.learned = None;
        }
        (self.described, self.spent, self.heard) = (described, false, false);
    }

    /// Begins at an address that was learned of another component.
    pub(crate) fn begin_at(&mut self, learned: Option<SocketAddr>) {
        self.learned = learned.filter(|learned| self.described != Some(*learned));
    }

    /// Returns where to send, and what is heard.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.learned.or(self.described)
    }

    /// Returns what was learned, if anything was.
    pub(crate) fn learned(&self) -> Option<SocketAddr> {
        self.learned
    }

    /// Says what a source is. With `secured` a candidate proves by SRTP that it is the other side.
    pub(crate) fn judge(&self, source: SocketAddr, secured: bool) -> Origin {
        let Some(expected) = self.remote() else { return Origin::Stranger };
        if same_address(source, expected) {
            return Origin::Expected;
        }
        let returns = || self.described.is_some_and(|described| same_address(source, described));
        let may = match self.rule {
            _ if self.spent => false,
            SourceRule::Negotiated => false,
            _ if secured => true,
            SourceRule::Authenticated => false,
            SourceRule::Signalling(from) => {
                !self.heard && (returns() || source.ip().to_canonical() == from.to_canonical())
            }
        };
        if may { Origin::Candidate } else { Origin::Stranger }
    }

    /// Takes note of a good packet. Returns whether media goes elsewhere from now on.
    pub(crate) fn accept(&mut self, source: SocketAddr, origin: Origin) -> bool {
        let described = self.described.is_some_and(|described| same_address(source, described));
        self.heard |= described;
        if origin != Origin::Candidate {
            return false;
        }
        // To come back costs nothing.
        self.spent |= !described;
        self.learned = Some(source).filter(|_| !described);
        true
    }
}

/// Compares addresses, with IPv4 mapped into IPv6 taken for what it is.
pub(crate) fn same_address(left: SocketAddr, right: SocketAddr) -> bool {
    let canonical = |address: SocketAddr| -> (IpAddr, u16) { (address.ip().to_canonical(), address.port()) };
    canonical(left) == canonical(right)
}
