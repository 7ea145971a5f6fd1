//! One-way chains (Lamport 1981): a change of state costs 16 bytes of proof, not a signature.
//!
//! An announcement is signed once and holds the end of one chain for each availability. The step
//! with number `n` shows the `n`-th link of the chain of the new availability. Links before it follow from
//! it by hashing, links after it cannot be found, so nobody but the device makes a step, and who
//! passes steps on can hold them back but not alter them.

use sha2::{Digest, Sha256};

use super::Availability;

/// Bytes of a link: what is left of SHA-256. A preimage costs 2^128 hashes.
pub const LINK_BYTES: usize = 16;
/// Steps that follow one announcement; then the device signs another.
pub const MAX_STEPS: u8 = 255;

/// One link of a chain.
pub type Link = [u8; LINK_BYTES];

/// The ends of the three chains, in the order of [`Availability::SHOWN`].
pub type Anchors = [Link; 3];

/// Returns the link below another: the one of step `number - 1`.
fn below(availability: Availability, number: u8, link: &Link) -> Link {
    let mut hash = Sha256::new();
    hash.update(b"causeway-presence-step-v1\0");
    hash.update([availability.code(), number]);
    hash.update(link);
    truncated(&hash.finalize())
}

fn truncated(digest: &[u8]) -> Link {
    let mut link = Link::default();
    link.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
    link
}

/// The secret side of the chains. Never printed.
#[derive(Clone)]
pub(super) struct Chains([u8; 32]);

impl Chains {
    /// Builds the chains of one announcement from 32 secret bytes that are used for no other.
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Returns the link that proves the step `number` to an availability; number 0 is the anchor.
    pub(super) fn link(&self, availability: Availability, number: u8) -> Link {
        let mut hash = Sha256::new();
        hash.update(b"causeway-presence-top-v1\0");
        hash.update([availability.code()]);
        hash.update(self.0);
        let top = truncated(&hash.finalize());
        (number..MAX_STEPS).rev().fold(top, |link, at| below(availability, at + 1, &link))
    }

    pub(super) fn anchors(&self) -> Anchors {
        Availability::SHOWN.map(|availability| self.link(availability, 0))
    }
}

/// Says whether a link proves the step `number` to an availability. At most [`MAX_STEPS`] hashes.
pub(super) fn proves(anchors: &Anchors, availability: Availability, number: u8, link: &Link) -> bool {
    let Some(place) = Availability::SHOWN.iter().position(|shown| *shown == availability) else {
        return false;
    };
    if number == 0 {
        return false;
    }
    let end = (1..=number).rev().fold(*link, |link, at| below(availability, at, &link));
    anchors.get(place) == Some(&end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_proves_its_own_step_and_no_other() {
        let chains = Chains::new([7; 32]);
        let anchors = chains.anchors();
        for number in [1, 2, 17, MAX_STEPS] {
            for availability in Availability::SHOWN {
                let link = chains.link(availability, number);
                assert!(proves(&anchors, availability, number, &link), "{availability:?} {number}");
                for other in Availability::SHOWN.into_iter().filter(|other| *other != availability) {
                    assert!(!proves(&anchors, other, number, &link));
                }
                assert!(!proves(&anchors, availability, number - 1, &link));
                assert!(number == MAX_STEPS || !proves(&anchors, availability, number + 1, &link));
            }
        }
        assert!(!proves(&anchors, Availability::Offline, 1, &chains.link(Availability::Away, 1)));
        let others = Chains::new([8; 32]).anchors();
        assert!(!proves(&others, Availability::Away, 1, &chains.link(Availability::Away, 1)));
        assert!(!proves(&anchors, Availability::Away, 0, &anchors[1]), "an anchor is no step");
    }
}
