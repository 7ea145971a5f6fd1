//! Renewal: the holder of a certificate asks for the next one with the key that it certifies.
use std::fmt;

use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::armour;
use super::authority::Authority;
use super::bundle::{Credential, VerifiedParty};
use super::claims::HandleClaims;
use super::error::IdentityError;
use super::key::{Domain, NodeKey, PublicKey, Signature, Signed};
use super::revocation::RevocationList;
use super::time::{DAY, Utc, Validity};
use super::trust::Trust;
use super::{Kind, MAX_CREDENTIAL_BYTES};
use crate::cbor;
use crate::defence::{Defence, holds};

const LABEL: &str = "CAUSEWAY RENEWAL REQUEST";
const WHAT: &str = "the renewal request";
/// A credential, and some 300 bytes of keys and signatures.
const MAX_BYTES: usize = MAX_CREDENTIAL_BYTES + 512;
/// How long a request is honoured, in seconds: long enough to be carried to an authority by hand.
pub const MAX_RENEWAL_AGE: u64 = 14 * DAY;
/// How much the clock of the holder may be ahead, in seconds.
const CLOCK_SKEW: u64 = 300;

/// A request for a new certificate with the claims of an old one, signed by a key of the old one. A
/// new key that is to take the place of that key signs as well, which proves that the holder has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Renewal {
    credential: Credential,
    key: PublicKey,
    new_key: Option<PublicKey>,
    made_unix: u64,
    signed: Signed,
    by_new_key: Option<Signature>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    kind: u8,
    #[n(1)]
    body: ByteVec,
    #[n(2)]
    signature: ByteArray<64>,
    #[n(3)]
    by_new_key: Option<ByteArray<64>>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    credential: ByteVec,
    #[n(1)]
    key: ByteArray<32>,
    #[n(2)]
    new_key: Option<ByteArray<32>>,
    #[n(3)]
    made_unix: u64,
}

impl Renewal {
    /// Asks for the renewal of a certificate that `key` holds; with `new_key` for one that names it
    /// instead.
    ///
    /// # Errors
    /// `WrongKey` if the certificate does not name `key`.
    pub fn new(
        credential: &Credential,
        key: &NodeKey,
        new_key: Option<&NodeKey>,
        unix: u64,
    ) -> Result<Self, IdentityError> {
        if !names(credential, &key.public()) {
            return Err(IdentityError::WrongKey { subject: subject(credential) });
        }
        let body = cbor::encode(Body {
            credential: credential.encode().into(),
            key: key.public().to_bytes().into(),
            new_key: new_key.map(|key| key.public().to_bytes().into()),
            made_unix: unix,
        });
        let signed = Signed::seal(key, Domain::Renewal, body);
        Ok(Self {
            credential: credential.clone(),
            key: key.public(),
            new_key: new_key.map(NodeKey::public),
            made_unix: unix,
            by_new_key: new_key.map(|key| key.sign(Domain::Renewal, &signed.body)),
            signed,
        })
    }

    /// Reads the bytes of [`Renewal::encode`], and verifies that the keys in it signed it. Whether
    /// the certificate is good is for [`Authority::renew`] to say.
    ///
    /// # Errors
    /// `BadSignature`, `WrongKey` for a key that the certificate does not name, `Malformed`.
    pub fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed { what: WHAT };
        let wire: Wire = cbor::decode_exact(WHAT, bytes, MAX_BYTES)?;
        if wire.kind != Kind::Renewal as u8 {
            return Err(malformed());
        }
        let body: Body = cbor::decode_exact(WHAT, &wire.body, MAX_BYTES)?;
        let credential = Credential::decode(&body.credential)?;
        let key = PublicKey::from_bytes(&body.key[..]).ok_or_else(malformed)?;
        let new_key = body.new_key.map(|key| PublicKey::from_bytes(&key[..]).ok_or_else(malformed));
        let request = Self {
            credential,
            key,
            new_key: new_key.transpose()?,
            made_unix: body.made_unix,
            signed: Signed { body: wire.body.into(), signature: wire.signature.into() },
            by_new_key: wire.by_new_key.map(Signature::from),
        };
        request.check_signatures()?;
        Ok(request)
    }

    fn check_signatures(&self) -> Result<(), IdentityError> {
        if !names(&self.credential, &self.key) {
            return Err(IdentityError::WrongKey { subject: subject(&self.credential) });
        }
        let proven = match (&self.new_key, &self.by_new_key) {
            (None, None) => true,
            (Some(key), Some(signature)) => key.verify(Domain::Renewal, &self.signed.body, signature),
            _ => false,
        };
        let signed = proven && self.signed.is_by(&self.key, Domain::Renewal);
        if signed || !holds(Defence::RenewalSignature) {
            return Ok(());
        }
        let subject = format!("the renewal request of {}", subject(&self.credential));
        Err(IdentityError::BadSignature { subject })
    }

    /// Writes the request as CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(Wire {
            kind: Kind::Renewal as u8,
            body: self.signed.body.clone().into(),
            signature: self.signed.signature.into(),
            by_new_key: self.by_new_key.map(Into::into),
        })
    }

    /// Reads the request from PEM: the first block `CAUSEWAY RENEWAL REQUEST`.
    ///
    /// # Errors
    /// As [`Renewal::decode`].
    pub fn from_pem(pem: &str) -> Result<Self, IdentityError> {
        Self::decode(&armour::first(pem, LABEL)?)
    }

    /// Writes the request as PEM. It holds nothing secret.
    pub fn to_pem(&self) -> String {
        armour::block(LABEL, self.encode())
    }

    /// Returns the certificate to renew, unverified.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Returns the key that takes the place of the one that signed, if one does.
    pub fn new_key(&self) -> Option<&PublicKey> {
        self.new_key.as_ref()
    }
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = subject(&self.credential);
        write!(f, "Renewal({of}, made {}, new key {:?})", Utc(self.made_unix), self.new_key)
    }
}

impl Authority {
    /// Issues the certificate that follows one of this authority: the same claims, a new serial and
    /// new dates, and the new key in the place of the old one if the holder asks for that. The old
    /// certificate stays valid until its end, so that the holder changes over when it likes.
    ///
    /// # Errors
    /// Whatever makes the old certificate invalid at the moment `validity.not_before`: its end,
    /// its revocation, another issuer. `RenewalTooOld` for a request made more than 14 days before
    /// that or ahead of it; `InvalidClaim` for a new key that the certificate names already.
    pub fn renew(
        &self,
        request: &Renewal,
        (trust, revocations): (&Trust, &RevocationList),
        serial: u64,
        validity: Validity,
    ) -> Result<Credential, IdentityError> {
        let unix = validity.not_before;
        let at = Utc(request.made_unix);
        let (ahead, age) = (unix.saturating_add(CLOCK_SKEW), unix.saturating_sub(request.made_unix));
        if (request.made_unix > ahead || age > MAX_RENEWAL_AGE) && holds(Defence::RenewalAge) {
            return Err(IdentityError::RenewalTooOld { at });
        }
        request.check_signatures()?;
        let party = request.credential.verify(trust, revocations, unix)?;
        let issuer = match &party {
            VerifiedParty::Handle(handle) => &handle.issuer,
            VerifiedParty::Node(node) => &node.issuer,
        };
        if issuer != self.key() {
            let subject = party.name().to_owned();
            return Err(IdentityError::WrongIssuer { subject, issuer: "another authority".to_owned() });
        }
        if request.new_key.as_ref().is_some_and(|key| names(&request.credential, key)) {
            return Err(IdentityError::InvalidClaim { what: "a new key that is certified already" });
        }
        let replaced = |key: &PublicKey| match &request.new_key {
            Some(new) if *key == request.key => new.clone(),
            _ => key.clone(),
        };
        match &request.credential {
            Credential::Handle(old) => {
                let claims = old.claims();
                let keys = claims.keys.iter().map(replaced).collect();
                let claims = HandleClaims { keys, serial, validity, ..claims.clone() };
                self.issue_handle(claims).map(Credential::Handle)
            }
            Credential::Node(old) => {
                let no_claims = || IdentityError::NotNode { subject: old.name().to_owned() };
                let claims = old.claims().ok_or_else(no_claims)?;
                let chain = self.issue_node(old.name(), &replaced(old.key()), claims, serial, validity)?;
                Ok(Credential::Node(chain))
            }
        }
    }
}

fn names(credential: &Credential, key: &PublicKey) -> bool {
    match credential {
        Credential::Handle(certificate) => certificate.claims().keys.contains(key),
        Credential::Node(chain) => chain.key() == key,
    }
}

fn subject(credential: &Credential) -> String {
    match credential {
        Credential::Handle(certificate) => certificate.claims().handle.to_string(),
        Credential::Node(chain) => chain.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{NodeClaims, Prefix, RevocationReason, Role};
    use super::*;
    use crate::testing::{Pki, key};

    const NOW: u64 = 1_790_000_000;
    const LATER: u64 = NOW + 25 * DAY;

    fn next() -> Validity {
        Validity::days_from(LATER, 30)
    }

    /// A user with two devices, of which the first asks.
    fn user(pki: &Pki) -> Credential {
        Credential::Handle(pki.handle(&"alice".parse().unwrap(), &[&key(1), &key(2)], 1).unwrap())
    }

    fn renewed(pki: &Pki, request: &Renewal) -> Result<Credential, IdentityError> {
        let read = Renewal::from_pem(&request.to_pem()).unwrap();
        assert_eq!(&read, request);
        pki.enrolment.renew(&read, (&pki.trust().unwrap(), &RevocationList::default()), 77, next())
    }

    #[test]
    fn a_user_renews_with_its_old_key_and_neither_certificate_is_void_meanwhile() {
        let pki = Pki::new(NOW).unwrap();
        let (old, trust, none) = (user(&pki), pki.trust().unwrap(), RevocationList::default());
        let new = renewed(&pki, &Renewal::new(&old, &key(1), None, LATER).unwrap()).unwrap();
        for unix in [LATER, pki.validity().not_after] {
            assert!(old.verify(&trust, &none, unix).is_ok() && new.verify(&trust, &none, unix).is_ok());
        }
        let after = pki.validity().not_after + 1;
        assert!(old.verify(&trust, &none, after).is_err() && new.verify(&trust, &none, after).is_ok());
        let (Credential::Handle(old), Credential::Handle(new)) = (old, new) else { panic!("a user") };
        let expected = HandleClaims { serial: 77, validity: next(), ..old.claims().clone() };
        assert_eq!(new.claims(), &expected);
    }

    #[test]
    fn a_device_changes_its_key_and_the_others_keep_theirs() {
        let pki = Pki::new(NOW).unwrap();
        let old = user(&pki);
        let new = renewed(&pki, &Renewal::new(&old, &key(2), Some(&key(3)), LATER).unwrap()).unwrap();
        let Credential::Handle(new) = new else { panic!("a user") };
        assert_eq!(new.claims().keys, [key(1).public(), key(3).public()]);
        // A key that is there already would make one device of two.
        let twice = Renewal::new(&old, &key(2), Some(&key(1)), LATER).unwrap();
        assert_eq!(renewed(&pki, &twice).unwrap_err().as_str(), "invalid_claim");
        // Whoever has not got the new key does not have it certified.
        let mut stolen = Renewal::new(&old, &key(2), Some(&key(3)), LATER).unwrap();
        stolen.by_new_key = Some(key(4).sign(Domain::Renewal, &stolen.signed.body));
        assert_eq!(Renewal::decode(&stolen.encode()).unwrap_err().as_str(), "bad_signature");
        stolen.by_new_key = None;
        assert_eq!(Renewal::decode(&stolen.encode()).unwrap_err().as_str(), "bad_signature");
    }

    #[test]
    fn a_gateway_renews_what_it_may_do_and_no_more() {
        let pki = Pki::new(NOW).unwrap();
        let prefixes: [Prefix; 2] = ["+44".parse().unwrap(), "+1".parse().unwrap()];
        let gateway = pki.gateway(9, &prefixes).unwrap();
        let claims = gateway.chain.claims().unwrap().clone();
        let old = Credential::Node(gateway.chain);
        let new = renewed(&pki, &Renewal::new(&old, &gateway.key, None, LATER).unwrap()).unwrap();
        let Credential::Node(new) = new else { panic!("a node") };
        assert_eq!((new.claims(), new.name(), new.serial()), (Some(&claims), "node-9", 77));
        assert_eq!((new.key(), claims.role), (&gateway.key.public(), Role::Gateway));
    }

    #[test]
    fn what_is_void_is_not_renewed() {
        let pki = Pki::new(NOW).unwrap();
        let (old, trust) = (user(&pki), pki.trust().unwrap());
        let request = Renewal::new(&old, &key(1), None, LATER).unwrap();
        let refused =
            |authority: &Authority, request: &Renewal, list: &RevocationList, validity: Validity| {
                authority.renew(request, (&trust, list), 78, validity).map(drop).map_err(|e| e.as_str())
            };
        let none = RevocationList::default();
        assert_eq!(refused(&pki.enrolment, &request, &none, next()), Ok(()));
        // After its end; a request made then, lest it were the request's age that is refused.
        let late = pki.validity().not_after + 1;
        let after = Renewal::new(&old, &key(1), None, late).unwrap();
        let validity = Validity::days_from(late, 30);
        assert_eq!(refused(&pki.enrolment, &after, &none, validity), Err("certificate_expired"));
        // Revoked.
        let mut list = RevocationList::default();
        let revoked = pki.enrolment.revoke(None, 2001, RevocationReason::KeyCompromise, NOW).unwrap();
        list.apply(revoked, &trust, LATER).unwrap();
        assert_eq!(refused(&pki.enrolment, &request, &list, next()), Err("revoked"));
        // Too old, from the future, for longer than may be, beyond the authority's own end.
        for unix in [LATER - MAX_RENEWAL_AGE - 1, LATER + CLOCK_SKEW + 1] {
            let request = Renewal::new(&old, &key(1), None, unix).unwrap();
            assert_eq!(refused(&pki.enrolment, &request, &none, next()), Err("renewal_too_old"));
        }
        let long = Validity::days_from(LATER, 91);
        assert_eq!(refused(&pki.enrolment, &request, &none, long), Err("certificate_validity_too_long"));
        // By an authority that did not issue it, though under the same root.
        let other = pki.root.init_enrolment("Other", [0xa7; 32], 3, pki.enrolment.validity()).unwrap();
        assert_eq!(refused(&other, &request, &none, next()), Err("wrong_issuer"));
        assert_eq!(refused(&pki.root, &request, &none, next()), Err("wrong_issuer"));
    }

    #[test]
    fn nobody_renews_for_another() {
        let pki = Pki::new(NOW).unwrap();
        let old = user(&pki);
        let error = Renewal::new(&old, &key(66), None, LATER).unwrap_err();
        assert_eq!(error.as_str(), "wrong_key");
        // Made without asking.
        let mut forged = Renewal::new(&old, &key(1), Some(&key(66)), LATER).unwrap();
        forged.signed = Signed::seal(&key(66), Domain::Renewal, forged.signed.body);
        assert_eq!(Renewal::decode(&forged.encode()).unwrap_err().as_str(), "bad_signature");
        // A signature for another purpose.
        let honest = Renewal::new(&old, &key(1), None, LATER).unwrap();
        let mut other = honest.clone();
        other.signed = Signed::seal(&key(1), Domain::Location, honest.signed.body.clone());
        assert_eq!(Renewal::decode(&other.encode()).unwrap_err().as_str(), "bad_signature");
        // An authority that is handed the parts checks them too.
        let request = (&pki.trust().unwrap(), &RevocationList::default());
        assert_eq!(pki.enrolment.renew(&other, request, 5, next()).unwrap_err().as_str(), "bad_signature");
        // One for a key of another certificate.
        let supernode = pki.node(5, &NodeClaims::supernode()).unwrap();
        assert!(Renewal::new(&Credential::Node(supernode.chain), &key(1), None, LATER).is_err());
        let bytes = honest.encode();
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert!(Renewal::decode(&altered).is_err(), "byte {at} of {}", bytes.len());
        }
    }
}
