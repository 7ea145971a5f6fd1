//! Revocation lists: who offers newer ones, fetching what they add, and dropping what they void.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use call_model::{CallId, Cause};
use libp2p::PeerId;
use libp2p::request_response::OutboundRequestId;

use super::Refusal;
use super::calls::Call;
use super::task::Task;
use super::wire::ListVersion;
use crate::calling::SessionCommand;
use crate::identity::{HeldList, IdentityError, MAX_LISTS, RevocationDelta, SignedRevocations};

/// Peers that are remembered to offer the list of one authority.
const MAX_OFFERERS: usize = 8;
/// Authorities whose lists one peer may offer at one time.
const MAX_PER_PEER: usize = 16;

/// Who says that it holds newer lists than this node, and who has been asked for one.
#[derive(Default)]
pub(super) struct ListOffers {
    offers: BTreeMap<[u8; 32], Vec<Offer>>,
    /// How often each connected peer has handed out nothing of what it had offered.
    failures: HashMap<PeerId, u32>,
    asked: HashMap<OutboundRequestId, Asked>,
    /// Lists that came whole, and those of which only the end was fetched.
    pub(super) fetched: u64,
    pub(super) changes_fetched: u64,
}

struct Offer {
    peer: PeerId,
    version: u64,
}

struct Asked {
    issuer: [u8; 32],
    peer: PeerId,
    version: u64,
    /// Whether the whole list was asked for, not only what it adds to the one that is held.
    whole: bool,
}

impl ListOffers {
    /// Takes note that a peer says to hold a list.
    fn claim(&mut self, issuer: [u8; 32], peer: PeerId, version: u64) {
        let of_peer = self.offers.values().flatten().filter(|offer| offer.peer == peer).count();
        let full = self.offers.len() >= MAX_LISTS && !self.offers.contains_key(&issuer);
        let offers = self.offers.get(&issuer).map(Vec::as_slice).unwrap_or_default();
        let known = offers.iter().any(|offer| offer.peer == peer);
        if full || !known && (of_peer >= MAX_PER_PEER || offers.len() >= MAX_OFFERERS) {
            return;
        }
        let offers = self.offers.entry(issuer).or_default();
        offers.retain(|offer| offer.peer != peer);
        offers.push(Offer { peer, version });
    }

    /// Takes the peer that offers the newest list of an authority, if that is newer than `held`;
    /// of several the one that has failed least. Offers that are no news are forgotten.
    fn next(&mut self, issuer: &[u8; 32], held: Option<u64>) -> Option<(PeerId, u64)> {
        let offers = self.offers.get_mut(issuer)?;
        offers.retain(|offer| held.is_none_or(|held| offer.version > held));
        let trusted = |offer: &Offer| Reverse(self.failures.get(&offer.peer).copied().unwrap_or(0));
        let best = offers.iter().enumerate().max_by_key(|(_, offer)| (trusted(offer), offer.version));
        let best = best.map(|(at, _)| at);
        let newest = best.map(|at| offers.remove(at)).map(|offer| (offer.peer, offer.version));
        if offers.is_empty() {
            self.offers.remove(issuer);
        }
        newest
    }

    /// A peer has not handed out what it had offered: it may offer again, and is asked last.
    fn failed(&mut self, peer: PeerId) {
        let failures = self.failures.entry(peer).or_default();
        *failures = failures.saturating_add(1);
    }

    /// Forgets what a peer has offered: it is gone.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.failures.remove(peer);
        self.offers.retain(|_, offers| {
            offers.retain(|offer| offer.peer != *peer);
            !offers.is_empty()
        });
    }
}

impl Task {
    /// Fetches the lists of which a proven peer says that they are newer than those held.
    pub(super) fn on_lists_offered(&mut self, peer: PeerId, offered: &[ListVersion]) {
        let mut issuers = Vec::new();
        for list in offered.iter().take(MAX_LISTS) {
            let Ok(issuer) = <[u8; 32]>::try_from(list.issuer.as_slice()) else { continue };
            if self.held_version(&issuer).is_none_or(|held| held < list.version) {
                self.lists.claim(issuer, peer, list.version);
                issuers.push(issuer);
            }
        }
        for issuer in issuers {
            self.fetch_list(issuer);
        }
    }

    fn held_list(&self, issuer: &[u8; 32]) -> Option<&SignedRevocations> {
        self.revocations.list_of(issuer)
    }

    fn held_version(&self, issuer: &[u8; 32]) -> Option<u64> {
        self.held_list(issuer).map(SignedRevocations::version)
    }

    /// Asks for the list of an authority, unless somebody is being asked already: one fetch per
    /// authority at a time bounds what a liar can make this node ask for, and the next offer is
    /// tried where one comes to nothing.
    fn fetch_list(&mut self, issuer: [u8; 32]) {
        if self.lists.asked.values().any(|asked| asked.issuer == issuer) {
            return;
        }
        let held = self.held_version(&issuer);
        if let Some((peer, version)) = self.lists.next(&issuer, held) {
            self.ask_for_list(issuer, peer, version, held.is_none());
        }
    }

    fn ask_for_list(&mut self, issuer: [u8; 32], peer: PeerId, version: u64, whole: bool) {
        let held = self.held_list(&issuer).filter(|_| !whole).map(SignedRevocations::held);
        let request = held.map_or_else(|| issuer.to_vec(), |held| held.encode());
        let id = self.swarm.behaviour_mut().revocations.send_request(&peer, request);
        self.lists.asked.insert(id, Asked { issuer, peer, version, whole });
    }

    /// Returns the list that a peer asks for: what it adds to the one that the peer holds if it
    /// says so and the two fit, else the whole; nothing where this node has none.
    pub(super) fn list_for(&self, request: &[u8]) -> Vec<u8> {
        if let Ok(issuer) = <[u8; 32]>::try_from(request) {
            return self.held_list(&issuer).map(SignedRevocations::encode).unwrap_or_default();
        }
        let Ok(theirs) = HeldList::decode(request) else { return Vec::new() };
        let Some(list) = self.held_list(&theirs.issuer) else { return Vec::new() };
        list.since(&theirs).map_or_else(|| list.encode(), |change| change.encode())
    }

    /// Reads an answer: a whole list, or what is to be added to the one that is held.
    fn read_list(&self, issuer: &[u8; 32], bytes: &[u8]) -> Option<SignedRevocations> {
        let list = match RevocationDelta::decode(bytes) {
            Ok(change) => change.apply_to(self.held_list(issuer)?).ok(),
            Err(_) => SignedRevocations::decode(bytes).ok(),
        };
        list.filter(|list| list.issuer().to_bytes() == *issuer)
    }

    /// Takes a revocation list that was asked for, or the failure to get it.
    pub(super) fn on_list(&mut self, now: Instant, id: OutboundRequestId, answer: Option<&[u8]>) {
        let Some(Asked { issuer, peer, version, whole }) = self.lists.asked.remove(&id) else { return };
        let connected = self.swarm.is_connected(&peer);
        if answer.is_none() && connected {
            self.lists.failed(peer);
        }
        if let Some(bytes) = answer {
            let list = self.read_list(&issuer, bytes);
            if list.is_none() && !whole && connected && !bytes.is_empty() {
                // What it adds may not fit for reasons that are nobody's fault: a list that came
                // from elsewhere meanwhile, or one that was begun anew.
                self.ask_for_list(issuer, peer, version, true);
                return;
            }
            match &list {
                Some(_) if RevocationDelta::decode(bytes).is_ok() => self.lists.changes_fetched += 1,
                Some(_) => self.lists.fetched += 1,
                None => {}
            }
            let kept = list.as_ref().is_some_and(|list| list.version() >= version);
            let applied = list.map(|list| self.apply_revocations(now, list));
            let forged = matches!(applied, Some(Err(IdentityError::BadSignature { .. })));
            if !kept || forged {
                // It has said that it holds a list, and hands out another or none.
                if connected {
                    self.lists.failed(peer);
                }
                self.offended(&peer, Refusal::AnswerInvalid);
            }
        }
        self.fetch_list(issuer);
    }

    /// Takes over a revocation list, drops what it revokes and tells the peers.
    pub(super) fn apply_revocations(
        &mut self,
        now: Instant,
        list: SignedRevocations,
    ) -> Result<bool, IdentityError> {
        let applied = self.revocations.apply(list, &self.trust, self.unix());
        match &applied {
            Ok(true) => {
                self.verify_self();
                self.swarm.behaviour_mut().kad.store_mut().revoke(&self.revocations);
                if let Some(turn) = &self.turn {
                    turn.revoke(&self.revocations);
                }
                self.end_revoked_calls(now);
                self.drop_revoked_peers(now);
                self.void_presence(now);
                self.say_hello_to_all();
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(reason = error.as_str(), "revocation list not taken over"),
        }
        applied
    }

    /// Ends calls with a party whose certificate is revoked; all calls where it is the own one.
    fn end_revoked_calls(&mut self, now: Instant) {
        let own = self.party.standing().is_revoked(&self.revocations);
        let is_revoked = |call: &Call| match call {
            Call::Incoming(incoming) => {
                !incoming.session.has_ended() && incoming.standing.is_revoked(&self.revocations)
            }
            Call::Outgoing(outgoing) => outgoing.is_with_revoked(&self.revocations),
        };
        let ended: Vec<CallId> =
            self.calls.table.iter().filter(|(_, call)| own || is_revoked(call)).map(|(id, _)| *id).collect();
        for call in ended {
            self.refusals.add(Refusal::CallCertificate);
            tracing::info!(%call, "call ended: a certificate was revoked");
            let text = "the certificate was revoked".to_owned();
            self.command(now, call, SessionCommand::Bye { cause: Cause::CALL_REJECTED, text });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_offer_is_tried_and_old_ones_are_forgotten() {
        let (liar, honest, late) = (PeerId::random(), PeerId::random(), PeerId::random());
        let mut lists = ListOffers::default();
        lists.claim([1; 32], honest, 5);
        lists.claim([1; 32], liar, u64::MAX);
        lists.claim([1; 32], late, 4);
        assert_eq!(lists.next(&[1; 32], Some(3)), Some((liar, u64::MAX)));
        assert_eq!(lists.next(&[1; 32], Some(3)), Some((honest, 5)), "the liar has had its chance");
        assert_eq!(lists.next(&[1; 32], Some(5)), None, "what is left is no news");
        assert!(lists.offers.is_empty());
        // Whoever has failed is asked after all others, however new its list and often its word.
        lists.failed(liar);
        for (peer, version) in [(liar, u64::MAX), (honest, 6), (liar, u64::MAX)] {
            lists.claim([1; 32], peer, version);
        }
        assert_eq!(lists.next(&[1; 32], Some(5)), Some((honest, 6)));
        assert_eq!(lists.next(&[1; 32], Some(5)), Some((liar, u64::MAX)));
        lists.claim([1; 32], late, 6);
        lists.forget(&late);
        assert_eq!(lists.next(&[1; 32], None), None, "gone");
    }

    #[test]
    fn what_is_remembered_is_bounded_for_each_and_for_all() {
        let mut lists = ListOffers::default();
        let peer = PeerId::random();
        (0..200).for_each(|issuer| lists.claim([issuer; 32], peer, 1));
        assert_eq!(lists.offers.len(), MAX_PER_PEER, "one peer cannot take every place");
        (0..20).for_each(|_| lists.claim([0; 32], PeerId::random(), 1));
        assert_eq!(lists.offers[&[0; 32]].len(), MAX_OFFERERS);
        for at in 0..200 {
            lists.claim([at; 32], PeerId::random(), 1);
        }
        assert_eq!(lists.offers.len(), MAX_LISTS);
    }
}
