//! The node's own certificate: verified at the start, and changed for the next one while it runs.

use std::time::Instant;

use super::config::NodeRole;
use super::gateways::fresh_offer;
use super::task::{Task, unix_now};
use super::{MAX_HELD_NUMBERS, NodeError};
use crate::identity::{
    Abilities, Credential, IdentityError, NodeKey, NumberAssignment, RevocationList, Role, Trust,
    VerifiedParty,
};
use crate::record::{NumberRecord, RecordError, RecordKey, validate};

impl NodeRole {
    /// Returns what certifies the node.
    fn credential(&self) -> Credential {
        match self {
            NodeRole::User { certificate } => Credential::Handle(certificate.clone()),
            NodeRole::Supernode { chain } | NodeRole::Gateway { chain, .. } => {
                Credential::Node(chain.clone())
            }
        }
    }

    /// Returns the same role under another certificate, if that is of the same kind.
    fn under(&self, credential: &Credential) -> Option<NodeRole> {
        let mut role = self.clone();
        match (&mut role, credential) {
            (NodeRole::User { certificate }, Credential::Handle(new)) => *certificate = new.clone(),
            (NodeRole::Supernode { chain } | NodeRole::Gateway { chain, .. }, Credential::Node(new)) => {
                *chain = new.clone();
            }
            _ => return None,
        }
        Some(role)
    }
}

/// Verifies the own certificate, and that own offers and numbers are within it. Returns the
/// credential encoded, and what it says.
pub(super) fn verify_own(
    key: &NodeKey,
    role: &NodeRole,
    trust: &Trust,
    revocations: &RevocationList,
) -> Result<(Vec<u8>, VerifiedParty), NodeError> {
    let credential = role.credential();
    let unix = unix_now();
    let party = credential.verify(trust, revocations, unix)?;
    if party.key_of(&key.peer_id()).is_none() {
        return Err(IdentityError::WrongKey { subject: party.name().to_owned() }.into());
    }
    if let NodeRole::Gateway { chain, offers, numbers } = role {
        if !matches!(&party, VerifiedParty::Node(node) if node.role == Role::Gateway) {
            return Err(NodeError::NotGateway { subject: party.name().to_owned() });
        }
        let check = |key: &RecordKey, value: Result<Vec<u8>, RecordError>| {
            value
                .and_then(|value| validate(&key.to_bytes(), &value, trust, revocations, unix))
                .map(drop)
                .map_err(|reason| NodeError::Record { what: key.to_string(), reason })
        };
        for offer in offers {
            for prefix in &offer.prefixes {
                let value = fresh_offer(offer, 0, unix * 1000).sign(chain, key);
                check(&RecordKey::Gateway(prefix.clone()), value)?;
            }
        }
        for (number, handle) in numbers {
            let (number, handle) = (number.clone(), handle.clone());
            let slot = RecordKey::Number(number.clone());
            let record = NumberRecord { number, handle, sequence: 1, expires_unix: unix + 60 };
            check(&slot, record.sign(chain, key))?;
        }
    }
    Ok((credential.encode(), party))
}

impl Task {
    /// Checks the own credential again: it expires, and lists change.
    pub(super) fn verify_self(&mut self) {
        let credential = Credential::decode(&self.credential);
        let verified = credential.and_then(|own| own.verify(&self.trust, &self.revocations, unix_now()));
        if let (Err(error), true) = (&verified, self.is_valid) {
            tracing::error!(%error, "own certificate");
        }
        self.is_valid = verified.is_ok();
    }

    /// Publishes exactly these assignments of numbers, once each of them is verified.
    pub(super) fn hold_numbers(
        &mut self,
        now: Instant,
        numbers: Vec<NumberAssignment>,
    ) -> Result<(), NodeError> {
        if numbers.len() > MAX_HELD_NUMBERS {
            return Err(NodeError::TooManyNumbers { count: numbers.len() });
        }
        for assignment in &numbers {
            let key = RecordKey::Number(assignment.claims().number.clone());
            let (trust, revocations) = (&self.trust, &self.revocations);
            validate(&key.to_bytes(), &assignment.encode(), trust, revocations, unix_now())
                .map_err(|reason| NodeError::Record { what: key.to_string(), reason })?;
        }
        self.publish_numbers(now, numbers);
        Ok(())
    }

    /// Goes on under a new certificate for the same key, name and kind. Calls and connections stay:
    /// the peers are told, and records are published anew, signed under the new one.
    pub(super) fn change_certificate(&mut self, now: Instant, fresh: &Credential) -> Result<(), NodeError> {
        let other = |party: &VerifiedParty| NodeError::OtherIdentity { subject: party.name().to_owned() };
        let role = self.role.under(fresh).ok_or_else(|| other(&self.party))?;
        let (credential, party) = verify_own(&self.key, &role, &self.trust, &self.revocations)?;
        let is_gateway =
            |party: &VerifiedParty| matches!(party, VerifiedParty::Node(node) if node.role == Role::Gateway);
        let may_be_called = |party: &VerifiedParty| matches!(party, VerifiedParty::Handle(user) if user.abilities.contains(Abilities::BE_CALLED));
        if party.name() != self.party.name()
            || is_gateway(&party) != is_gateway(&self.party)
            || may_be_called(&party) != may_be_called(&self.party)
        {
            return Err(other(&self.party));
        }
        if credential == self.credential {
            return Ok(());
        }
        (self.role, self.credential, self.party, self.is_valid) = (role, credential, party, true);
        self.say_hello_to_all();
        self.publish_all_anew(now);
        self.check_online(now);
        Ok(())
    }
}
