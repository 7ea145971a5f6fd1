#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use call_model::{Address, CallId, Caller, Handle};
use proptest::prelude::*;

use super::armour::{self, CERTIFICATE, REQUEST};
use super::chain::NodeChain;
use super::handle::HandleCertificate;
use super::x509::{self, Certificate, Subject};
use super::*;
use crate::testing::{self, Pki};

mod limits;

const NOW: u64 = 1_790_000_000;

fn pki() -> Pki {
    Pki::new(NOW).unwrap()
}

fn handle(name: &str) -> Handle {
    name.parse().unwrap()
}

fn none() -> RevocationList {
    RevocationList::default()
}

fn gateway_claims() -> NodeClaims {
    NodeClaims {
        role: Role::Gateway,
        prefixes: vec!["+44".parse().unwrap(), "+1".parse().unwrap()],
        number_prefixes: vec!["+4420".parse().unwrap()],
        rate: Some(Price { micros_per_minute: 12_500, currency: "EUR".parse().unwrap() }),
    }
}

/// Parses the certificate of an authority.
fn certificate(authority: &Authority) -> Certificate {
    Certificate::parse(&armour::first(&authority.certificate_pem(), CERTIFICATE).unwrap()).unwrap()
}

fn enrolment_key() -> NodeKey {
    NodeKey::from_seed([0xa2; 32])
}

#[test]
fn keys_survive_pem_and_never_show() {
    let key = testing::key(7);
    let pem = key.to_pem();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
    assert_eq!(NodeKey::from_pem(&pem).unwrap().public(), key.public());
    assert_eq!(PublicKey::from_peer_id(&key.peer_id()), Some(key.public()));
    assert_eq!(key.keypair().public().to_peer_id(), key.peer_id());
    let shown = format!("{key:?}");
    assert!(shown.contains("secret not shown") && !shown.contains("7, 7"), "{shown}");
    // As written by `openssl genpkey -algorithm ed25519` for the seed of RFC 8410 10.3.
    let rfc8410 = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    let public = NodeKey::from_pem(rfc8410).unwrap().public().to_bytes();
    assert_eq!(public[..4], [0x19, 0xbf, 0x44, 0x09]);
    for bad in
        ["", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", &pem.replace("PRIVATE", "X")]
    {
        assert!(NodeKey::from_pem(bad).is_err());
    }
}

#[test]
fn a_signature_holds_in_its_domain_only() {
    let key = testing::key(1);
    let signature = key.sign(Domain::Location, b"body");
    assert!(key.public().verify(Domain::Location, b"body", &signature));
    assert!(!key.public().verify(Domain::Number, b"body", &signature));
    assert!(!key.public().verify(Domain::Location, b"bodz", &signature));
    assert!(!key.public().verify(Domain::Location, b"body", &signature[..63]));
    assert_eq!(Domain::Location.prefix(), b"causeway-location-v1\0");
}

#[test]
fn a_node_is_certified_from_its_request_and_verified_from_the_root() {
    let pki = pki();
    let key = testing::key(3);
    let request = Request::write("gateway-london", &key).unwrap();
    let chain = pki
        .enrolment
        .issue_node_request(&request, &gateway_claims(), 77, Validity::days_from(NOW, 398))
        .unwrap_err();
    assert_eq!(chain.as_str(), "certificate_outlives_issuer");
    let chain = pki.enrolment.issue_node_request(&request, &gateway_claims(), 77, pki.validity()).unwrap();

    let read = NodeChain::decode(&chain.encode()).unwrap();
    assert_eq!(read, chain);
    assert_eq!(NodeChain::from_pem(&chain.to_pem()).unwrap(), chain);
    let node = read.verify(&pki.trust().unwrap(), &none(), NOW).unwrap();
    assert_eq!((node.name.as_str(), node.serial, node.role), ("gateway-london", 77, Role::Gateway));
    assert_eq!(node.peer_id, key.peer_id());
    assert_eq!(node.prefixes, gateway_claims().prefixes);
    assert_eq!(node.number_prefixes, gateway_claims().number_prefixes);
    assert_eq!(node.rate, gateway_claims().rate);
    assert_eq!(node.not_after, pki.validity().not_after);
    assert_eq!(node.issuer, *pki.enrolment.key());

    let bundle = NodeBundle { key, chain };
    assert_eq!(NodeBundle::from_pem(&bundle.to_pem()).unwrap().chain, bundle.chain);
}

#[test]
fn a_user_with_several_devices_is_verified_from_the_root() {
    let pki = pki();
    let keys: Vec<NodeKey> = (1..=3).map(testing::key).collect();
    let claims = HandleClaims {
        handle: handle("alice"),
        keys: keys.iter().map(NodeKey::public).collect(),
        serial: u64::MAX,
        validity: Validity::days_from(NOW, 90),
        abilities: Abilities::CALLS.with(Abilities::TEXT),
        numbers: vec!["+442079460018".parse().unwrap()],
    };
    let certificate = pki.enrolment.issue_handle(claims.clone()).unwrap();
    let read = HandleCertificate::decode(&certificate.encode()).unwrap();
    assert_eq!((&read, read.claims()), (&certificate, &claims));
    assert_eq!(HandleCertificate::from_pem(&certificate.to_pem()).unwrap(), certificate);
    let user = read.verify(&pki.trust().unwrap(), &none(), NOW).unwrap();
    assert_eq!((user.handle.as_str(), user.serial), ("alice", u64::MAX));
    assert_eq!(user.keys, claims.keys);
    assert_eq!(user.numbers, claims.numbers);
    assert!(user.abilities.contains(Abilities::TEXT));
    assert_eq!(user.key_of(&keys[2].peer_id()), Some(&keys[2].public()));
    assert_eq!(user.key_of(&testing::key(9).peer_id()), None);
    assert!(user.holds(&"alice".parse().unwrap()) && user.holds(&"+442079460018".parse().unwrap()));
    assert!(!user.holds(&"bob".parse().unwrap()) && !user.holds(&"+442079460019".parse().unwrap()));

    let bundle = UserBundle { key: keys[1].clone(), certificate };
    assert_eq!(UserBundle::from_pem(&bundle.to_pem()).unwrap().certificate, bundle.certificate);
}

#[test]
fn credentials_stay_small() {
    let pki = pki();
    let user = pki.user(&handle("alice"), 1).unwrap();
    let node = pki.node(2, &gateway_claims()).unwrap();
    let enrolment = certificate(&pki.enrolment).der.len();
    let sizes =
        (user.certificate.body_len(), enrolment, user.certificate.encode().len(), node.chain.encode().len());
    assert_eq!(sizes, (62, 292, 427, 583), "body, enrolment X.509, whole handle certificate, chain");
}

/// The root stays on another machine: only requests and certificates travel.
#[test]
fn the_root_works_from_files() {
    let pki = pki();
    let root = Authority::from_pem(&pki.root.key_pem(), &pki.root.certificate_pem()).unwrap();
    let key = testing::key(50);
    let request = Request::write("Enrolment North", &key).unwrap();
    assert_eq!(Request::read(&request).unwrap().key, key.public());
    let pem = root.sign_enrolment(&request, 9, Validity::days_from(NOW, 200), None).unwrap();
    let north = Authority::from_pem(&key.to_pem(), &pem).unwrap();
    assert!(!north.is_root() && root.is_root());
    assert_eq!((north.name(), north.validity().not_after), ("Enrolment North", NOW + 200 * 86_400));
    let chain = north
        .issue_node("s1", &testing::key(51).public(), &NodeClaims::supernode(), 1, pki.validity())
        .unwrap();
    assert_eq!(chain.verify(&pki.trust().unwrap(), &none(), NOW).unwrap().role, Role::Supernode);
    // The same seed, serial and dates give the same bytes.
    assert_eq!(Pki::new(NOW).unwrap().enrolment.certificate_pem(), pki.enrolment.certificate_pem());
}

#[test]
fn trust_may_hold_an_old_and_a_new_root() {
    let (old, new) = (pki(), other_pki("New Root", 0xb1));
    let trust = Trust::from_pem(&(old.root.certificate_pem() + &new.root.certificate_pem())).unwrap();
    for chain in [old.supernode(1).unwrap().chain, new.supernode(1).unwrap().chain] {
        assert!(chain.verify(&trust, &none(), NOW).is_ok());
    }
    assert_eq!(Trust::from_pem(&trust.to_pem()).unwrap().to_pem(), trust.to_pem());
    // A second root of the same name does not hide the first.
    let trust =
        Trust::from_pem(&(other_pki("Test Root", 0xb2).root.certificate_pem() + &old.root.certificate_pem()));
    assert!(old.supernode(1).unwrap().chain.verify(&trust.unwrap(), &none(), NOW).is_ok());
}

fn other_pki(root_name: &str, seed: u8) -> OtherPki {
    let validity = Validity::days_from(NOW - 3600, 365);
    let root = Authority::init_root(root_name, [seed; 32], validity).unwrap();
    let enrolment = root.init_enrolment("Test Enrolment", [seed + 1; 32], 2, validity).unwrap();
    OtherPki { root, enrolment }
}

struct OtherPki {
    root: Authority,
    enrolment: Authority,
}

impl OtherPki {
    fn supernode(&self, number: u8) -> Result<NodeBundle, IdentityError> {
        let key = testing::key(number);
        let validity = Validity::days_from(NOW, 10);
        let chain = self.enrolment.issue_node("s", &key.public(), &NodeClaims::supernode(), 5, validity)?;
        Ok(NodeBundle { key, chain })
    }
}

#[test]
fn validity_is_checked_on_every_step() {
    let pki = pki();
    let trust = pki.trust().unwrap();
    let user = pki.user(&handle("alice"), 1).unwrap().certificate;
    let node = pki.supernode(2).unwrap().chain;
    let end = pki.validity().not_after;
    for unix in [pki.validity().not_before, end] {
        assert!(user.verify(&trust, &none(), unix).is_ok() && node.verify(&trust, &none(), unix).is_ok());
    }
    let early = pki.validity().not_before - 1;
    let text = |error: IdentityError| (error.as_str(), error.to_string());
    let (label, message) = text(user.verify(&trust, &none(), end + 1).unwrap_err());
    assert_eq!(label, "certificate_expired");
    let utc = Utc(end);
    assert_eq!(
        message,
        format!("certificate of alice expired on {utc}: enrol again with `causeway authority issue`")
    );
    assert_eq!(text(node.verify(&trust, &none(), end + 1).unwrap_err()).0, "certificate_expired");
    assert_eq!(text(user.verify(&trust, &none(), early).unwrap_err()).0, "certificate_not_yet_valid");
    assert_eq!(text(node.verify(&trust, &none(), early).unwrap_err()).0, "certificate_not_yet_valid");
    // The authority above: its own end is reported, by its own name.
    let late = user.verify(&trust, &none(), NOW + 400 * 86_400).unwrap_err();
    assert!(matches!(late, IdentityError::Expired { subject, .. } if subject == "Test Root"));
    let root = Authority::init_root("Short", [1; 32], Validity::days_from(NOW, 365)).unwrap();
    let enrolment = root.init_enrolment("Shorter", [2; 32], 2, Validity::days_from(NOW, 20)).unwrap();
    let issued =
        enrolment.issue_node("n", node.key(), &NodeClaims::supernode(), 3, Validity::days_from(NOW, 20));
    let trust = Trust::from_pem(&root.certificate_pem()).unwrap();
    let late = issued.unwrap().verify(&trust, &none(), NOW + 21 * 86_400).unwrap_err();
    assert!(matches!(late, IdentityError::Expired { subject, .. } if subject == "Shorter"));
}

#[test]
fn a_revoked_certificate_is_refused_and_so_is_all_under_a_revoked_authority() {
    let pki = pki();
    let trust = pki.trust().unwrap();
    let (alice, bob) = (pki.user(&handle("alice"), 1).unwrap(), pki.user(&handle("bob"), 2).unwrap());
    let node = pki.supernode(3).unwrap();
    let verify = |list: &RevocationList| {
        [
            alice.certificate.verify(&trust, list, NOW).map(|_| ()),
            bob.certificate.verify(&trust, list, NOW).map(|_| ()),
            node.chain.verify(&trust, list, NOW).map(|_| ()),
        ]
        .map(|result| result.map_err(|error| error.as_str()))
    };
    let mut list = none();
    assert_eq!(verify(&list), [Ok(()); 3]);

    let first = pki
        .enrolment
        .revoke(None, alice.certificate.claims().serial, RevocationReason::Withdrawn, NOW)
        .unwrap();
    assert_eq!(SignedRevocations::decode(&first.encode()).unwrap(), first);
    assert_eq!(SignedRevocations::from_pem(&first.to_pem()).unwrap(), first);
    assert_eq!(list.apply(first.clone(), &trust, NOW), Ok(true));
    assert_eq!(list.apply(first.clone(), &trust, NOW), Ok(false));
    assert_eq!(verify(&list), [Err("revoked"), Ok(()), Ok(())]);
    let key = pki.enrolment.key();
    assert_eq!(list.is_revoked(key, alice.certificate.claims().serial), Some(RevocationReason::Withdrawn));

    let second = pki
        .enrolment
        .revoke(Some(&first), node.chain.serial(), RevocationReason::KeyCompromise, NOW)
        .unwrap();
    assert_eq!((second.version(), second.revoked().len()), (2, 2));
    assert_eq!(list.apply(second, &trust, NOW), Ok(true));
    assert_eq!(verify(&list), [Err("revoked"), Ok(()), Err("revoked")]);
    assert_eq!(list.apply(first, &trust, NOW), Err(IdentityError::StaleRevocations { have: 2, got: 1 }));
    assert_eq!(list.len(), 2);

    // The same serial of another issuer is another certificate.
    let root_list =
        pki.root.revoke(None, bob.certificate.claims().serial, RevocationReason::Unspecified, NOW).unwrap();
    assert_eq!(list.apply(root_list.clone(), &trust, NOW), Ok(true));
    assert_eq!(verify(&list)[1], Ok(()));
    let root_list = pki.root.revoke(Some(&root_list), 2, RevocationReason::KeyCompromise, NOW).unwrap();
    assert_eq!(list.apply(root_list, &trust, NOW), Ok(true));
    assert_eq!(verify(&list), [Err("revoked"); 3]);
    // An authority that is revoked itself says nothing any more.
    let third = pki.enrolment.revoke(None, 1, RevocationReason::Unspecified, NOW).unwrap();
    assert_eq!(list.apply(third, &trust, NOW).unwrap_err().as_str(), "revoked");
    assert_eq!(list.lists().count(), 2);
}

#[test]
fn only_an_authority_is_an_issuer() {
    let pki = pki();
    let trust = pki.trust().unwrap();
    let (root, enrolment) = (certificate(&pki.root), certificate(&pki.enrolment));
    let gateway = pki.node(9, &gateway_claims()).unwrap();
    let gateway_certificate =
        Certificate::parse(&armour::all(&gateway.chain.to_pem(), CERTIFICATE).unwrap()[0]).unwrap();
    let write = |issuer: &Certificate, key: &NodeKey, authority: Option<u8>| {
        let claims = gateway_claims();
        let subject = Subject {
            name: "mallory",
            key: &testing::key(66).public(),
            serial: 666,
            validity: pki.validity(),
            authority,
            claims: Some(&claims),
            limits: None,
        };
        x509::write(&subject, Some(issuer), key).unwrap()
    };
    let refused = |leaf: Certificate, issuer: &Certificate| {
        NodeChain::new(leaf, issuer.clone()).verify(&trust, &none(), NOW).unwrap_err().as_str()
    };
    // A gateway certifies nobody, neither with its own certificate as the authority's ...
    assert_eq!(
        refused(write(&gateway_certificate, &gateway.key, None), &gateway_certificate),
        "wrong_issuer"
    );
    let under_gateway = write(&gateway_certificate, &gateway.key, None);
    assert_eq!(refused(under_gateway, &enrolment), "wrong_issuer");
    // ... nor in the name of the authority.
    assert_eq!(refused(write(&enrolment, &gateway.key, None), &enrolment), "bad_signature");
    // The root does not stand in for an enrolment authority, and an enrolment authority makes no other.
    assert_eq!(refused(write(&root, &NodeKey::from_seed([0xa1; 32]), None), &root), "not_authority");
    let second = write(&enrolment, &enrolment_key(), Some(0));
    assert_eq!(refused(write(&second, &testing::key(66), None), &second), "wrong_issuer");
    // A node certificate that the root issued in place of an authority's.
    let no_authority = write(&root, &NodeKey::from_seed([0xa1; 32]), None);
    assert_eq!(refused(write(&no_authority, &testing::key(66), None), &no_authority), "not_authority");
    // An authority is no node.
    assert_eq!(refused(write(&enrolment, &enrolment_key(), Some(0)), &enrolment), "not_node");
}

#[test]
fn every_altered_byte_of_a_credential_is_noticed() {
    let pki = pki();
    let trust = pki.trust().unwrap();
    let credentials = [
        Credential::Handle(pki.user(&handle("alice"), 1).unwrap().certificate),
        Credential::Node(pki.node(2, &gateway_claims()).unwrap().chain),
    ];
    for credential in credentials {
        let bytes = credential.encode();
        let before = Credential::decode(&bytes).unwrap().verify(&trust, &none(), NOW).unwrap();
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            let outcome = Credential::decode(&altered).and_then(|c| c.verify(&trust, &none(), NOW));
            assert!(outcome.is_err(), "bit {bit} of byte {at} of {}: {before:?}", bytes.len());
        }
        for length in 0..bytes.len() {
            assert!(Credential::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
    }
}

fn caller() -> Caller {
    Caller { address: "alice".parse().ok(), display_name: Some("Alice".into()), private: false }
}

#[test]
fn an_invite_is_accepted_once_from_its_own_device_and_address() {
    let pki = pki();
    let (trust, revocations) = (pki.trust().unwrap(), none());
    let alice = pki.user(&handle("alice"), 1).unwrap();
    let credential = alice.certificate.encode();
    let (from, to): (Caller, Address) = (caller(), "+442079460018".parse().unwrap());
    let call = CallId::new(NOW * 1000, 5);
    let assertion =
        Assertion { call, from: &from, to: &to, nonce: [1; 16], expires_unix: NOW + 60, media: "v=0\r\n" };
    let signature = assertion.sign(&alice.key);
    let mut nonces = NonceCache::new(100);
    let mut verify = |assertion: &Assertion<'_>, signature: &[u8], peer: &NodeKey, unix: u64| {
        let mut context =
            InviteContext { trust: &trust, revocations: &revocations, nonces: &mut nonces, unix };
        verify_invite(&credential, assertion, signature, &peer.peer_id(), &mut context)
            .map(|party| party.name().to_owned())
            .map_err(|error| error.as_str())
    };
    // Nothing but the very call: each field is covered.
    let (bob, other_caller): (Address, Caller) =
        ("bob".parse().unwrap(), Caller { private: true, ..from.clone() });
    let changed = [
        Assertion { call: CallId::new(NOW * 1000, 6), ..assertion },
        Assertion { to: &bob, ..assertion },
        Assertion { from: &other_caller, ..assertion },
        Assertion { nonce: [2; 16], ..assertion },
        Assertion { expires_unix: NOW + 61, ..assertion },
        Assertion { media: "v=0\r\na=x\r\n", ..assertion },
    ];
    for other in &changed {
        assert_eq!(verify(other, &signature, &alice.key, NOW), Err("bad_signature"), "{other:?}");
    }
    assert_eq!(verify(&assertion, &signature[..10], &alice.key, NOW), Err("identity_malformed"));
    assert_eq!(verify(&assertion, &signature, &testing::key(2), NOW), Err("wrong_key"));
    assert_eq!(verify(&assertion, &signature, &alice.key, NOW + 60), Err("assertion_expired"));
    let long = Assertion { expires_unix: NOW + MAX_ASSERTION_LIFE + 1, ..assertion };
    assert_eq!(verify(&long, &long.sign(&alice.key), &alice.key, NOW), Err("assertion_too_long"));
    let as_bob = Caller { address: Some(bob.clone()), ..from.clone() };
    let claim = Assertion { from: &as_bob, ..assertion };
    assert_eq!(verify(&claim, &claim.sign(&alice.key), &alice.key, NOW), Err("address_not_certified"));
    // No refusal used the nonce up.
    assert_eq!(verify(&assertion, &signature, &alice.key, NOW), Ok("alice".into()));
    assert_eq!(verify(&assertion, &signature, &alice.key, NOW + 1), Err("replayed"));
}

#[test]
fn a_gateway_calls_as_any_number_and_no_handle() {
    let pki = pki();
    let trust = pki.trust().unwrap();
    let verify =
        |bundle: &NodeBundle| VerifiedParty::Node(bundle.chain.verify(&trust, &none(), NOW).unwrap());
    let (gateway, supernode) =
        (verify(&pki.node(1, &gateway_claims()).unwrap()), verify(&pki.supernode(2).unwrap()));
    let (number, name): (Address, Address) = ("+15551000".parse().unwrap(), "alice".parse().unwrap());
    assert!(gateway.may_call_as(&number) && !gateway.may_call_as(&name));
    assert!(!supernode.may_call_as(&number) && !supernode.may_call_as(&name));
}

#[test]
fn the_nonce_cache_is_bounded_and_forgets_what_has_ended() {
    let mut cache = NonceCache::new(MAX_ASSERTIONS_PER_KEY + 2);
    let nonce = |n: usize| (n as u128).to_be_bytes();
    let (a, b) = (testing::key(1).public(), testing::key(2).public());
    for n in 0..MAX_ASSERTIONS_PER_KEY {
        assert_eq!(cache.insert(&a, nonce(n), NOW + 60 + n as u64 % 2, NOW), Ok(()));
    }
    assert_eq!(cache.insert(&a, nonce(1000), NOW + 60, NOW), Err(IdentityError::TooManyAssertions));
    // One key that is busy does not stop another, until the whole is full.
    assert_eq!(cache.insert(&b, nonce(0), NOW + 90, NOW), Ok(()));
    assert_eq!(cache.insert(&b, nonce(1), NOW + 90, NOW), Ok(()));
    assert_eq!(cache.insert(&b, nonce(2), NOW + 90, NOW), Err(IdentityError::TooManyAssertions));
    assert_eq!(cache.insert(&b, nonce(0), NOW + 90, NOW), Err(IdentityError::Replayed));
    assert_eq!(cache.insert(&b, nonce(2), NOW + 90, NOW + 60), Ok(()));
    assert_eq!(cache.len(), MAX_ASSERTIONS_PER_KEY / 2 + 3);
    assert_eq!(cache.insert(&b, nonce(0), NOW + 150, NOW + 90), Ok(()));
    assert_eq!(cache.len(), 1);
}

#[test]
fn prefixes_and_prices_are_read_strictly() {
    let prefix = |text: &str| text.parse::<Prefix>();
    assert_eq!(prefix("44").unwrap().to_string(), "+44");
    assert_eq!(prefix("+").unwrap(), prefix("").unwrap());
    for bad in ["+0", "0", "4a", "++4", "1234567890123456", " 4"] {
        assert!(prefix(bad).is_err(), "{bad:?}");
    }
    assert!(prefix("+44").unwrap().covers(&prefix("+4420").unwrap()));
    assert!(!prefix("+4420").unwrap().covers(&prefix("+44").unwrap()));
    assert!(prefix("").unwrap().covers_number(&"+15551000".parse().unwrap()));
    let all: Vec<String> = Prefix::of_number(&"+123".parse().unwrap()).map(|p| p.to_string()).collect();
    assert_eq!(all, ["+123", "+12", "+1", "+"]);
    assert!("EUR".parse::<Currency>().is_ok());
    for bad in ["eur", "EU", "EURO", "€U"] {
        assert!(bad.parse::<Currency>().is_err(), "{bad:?}");
    }
}

/// Provokes every reason once; the labels are those of the metric.
#[test]
fn every_reason_has_an_error_that_names_the_remedy() {
    let pki = pki();
    let trust = pki.trust().unwrap();
    let alice = pki.user(&handle("alice"), 1).unwrap();
    let node = pki.supernode(2).unwrap();
    let claims = |days| HandleClaims {
        validity: Validity::days_from(NOW, days),
        ..alice.certificate.claims().clone()
    };
    let enrolment = certificate(&pki.enrolment);
    let too_long = HandleCertificate::issue(claims(91), &enrolment, &enrolment_key());
    let elliptic = rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem();
    let mut revocations = none();
    let list = pki
        .enrolment
        .revoke(None, alice.certificate.claims().serial, RevocationReason::Superseded, NOW)
        .unwrap();
    let newer = pki.enrolment.revoke(Some(&list), 5, RevocationReason::Superseded, NOW).unwrap();
    revocations.apply(newer, &trust, NOW).unwrap();
    let mut forged_request = armour::first(&Request::write("n", &node.key).unwrap(), REQUEST).unwrap();
    *forged_request.last_mut().unwrap() ^= 1;
    let (from, to) = (caller(), Address::Handle(handle("bob")));
    let assertion = Assertion {
        call: CallId::new(0, 0),
        from: &from,
        to: &to,
        nonce: [0; 16],
        expires_unix: NOW + 60,
        media: "",
    };
    let assert_at = |unix, capacity| {
        let mut nonces = NonceCache::new(capacity);
        assertion.verify(&alice.key.public(), &assertion.sign(&alice.key), unix, &mut nonces).unwrap_err()
    };
    let mut nonces = NonceCache::new(9);
    let key = alice.key.public();
    nonces.insert(&key, [0; 16], NOW + 60, NOW).unwrap();
    let stranger = Caller { address: "bob".parse().ok(), ..caller() };
    let claim = Assertion { from: &stranger, ..assertion };
    let mut context =
        InviteContext { trust: &trust, revocations: &none(), nonces: &mut nonces.clone(), unix: NOW };
    let address = verify_invite(
        &alice.certificate.encode(),
        &claim,
        &claim.sign(&alice.key),
        &alice.key.peer_id(),
        &mut context,
    );
    let swapped = UserBundle { key: node.key.clone(), certificate: alice.certificate.clone() };
    let no_claims = Subject {
        name: "plain",
        key: &node.key.public(),
        serial: 3,
        validity: pki.validity(),
        authority: None,
        claims: None,
        limits: None,
    };
    let plain = x509::write(&no_claims, Some(&enrolment), &enrolment_key()).unwrap();
    let nothing = EnrolmentLimits { prefixes: Vec::new(), number_prefixes: Vec::new(), only_numbers: false };
    let limited = pki
        .root
        .init_limited_enrolment("Limited", [0xa8; 32], 8, pki.enrolment.validity(), Some(&nothing))
        .unwrap();
    let own = Credential::Handle(alice.certificate.clone());
    let too_early = Renewal::new(&own, &alice.key, None, NOW + 86_400).unwrap();

    let errors = [
        Credential::decode(&[0x82, 9, 9]).unwrap_err(),
        Credential::decode(&[0; MAX_CREDENTIAL_BYTES + 1]).unwrap_err(),
        Trust::from_pem("").unwrap_err(),
        Trust::from_pem(&elliptic).unwrap_err(),
        alice.certificate.verify(&trust, &none(), NOW + 31 * 86_400).unwrap_err(),
        alice.certificate.verify(&trust, &none(), NOW - 61).unwrap_err(),
        too_long.verify(&trust, &none(), NOW).unwrap_err(),
        pki.enrolment
            .issue_node("n", node.chain.key(), &NodeClaims::supernode(), 1, Validity::days_from(NOW, 366))
            .unwrap_err(),
        other_pki("Other Root", 0xc1).supernode(1).unwrap().chain.verify(&trust, &none(), NOW).unwrap_err(),
        UserBundle::from_pem(&swapped.to_pem()).unwrap_err(),
        alice.certificate.verify(&trust, &revocations, NOW).unwrap_err(),
        pki.root.issue_handle(claims(1)).unwrap_err(),
        NodeChain::new(plain, enrolment.clone()).verify(&trust, &none(), NOW).unwrap_err(),
        Request::read(&armour::block(REQUEST, forged_request)).unwrap_err(),
        pki.enrolment.issue_handle(HandleClaims { keys: Vec::new(), ..claims(1) }).unwrap_err(),
        limited.issue_node("n", node.chain.key(), &gateway_claims(), 1, pki.validity()).unwrap_err(),
        revocations.apply(list, &trust, NOW).unwrap_err(),
        pki.enrolment.renew(&too_early, (&trust, &none()), 9, pki.validity()).unwrap_err(),
        assert_at(NOW + 60, 9),
        assert_at(NOW - 61, 9),
        nonces.insert(&key, [0; 16], NOW + 60, NOW).unwrap_err(),
        assert_at(NOW, 0),
        address.unwrap_err(),
    ];
    let labels: BTreeSet<&str> = errors.iter().map(IdentityError::as_str).collect();
    assert_eq!(labels.len(), errors.len(), "{labels:?}");
    for error in &errors {
        let text = error.to_string();
        assert!(text.contains(':') && !text.ends_with('.'), "{text}");
    }
    assert_eq!(pki.enrolment.issue_handle(claims(91)).unwrap_err().as_str(), "certificate_validity_too_long");
    let gateway_of_nothing = NodeClaims { role: Role::Supernode, ..gateway_claims() };
    let refused = pki.enrolment.issue_node("n", node.chain.key(), &gateway_of_nothing, 1, pki.validity());
    assert_eq!(refused.unwrap_err().as_str(), "invalid_claim");
    let mismatch = Authority::from_pem(&pki.root.key_pem(), &pki.enrolment.certificate_pem());
    assert_eq!(mismatch.unwrap_err().as_str(), "wrong_key");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 0u8..10) {
        let mut framed = vec![0x84, kind];
        framed.extend_from_slice(&bytes);
        for bytes in [&bytes, &framed] {
            let _ = Credential::decode(bytes);
            let _ = HandleCertificate::decode(bytes);
            let _ = NodeChain::decode(bytes);
            let _ = SignedRevocations::decode(bytes);
            let _ = Certificate::parse(bytes);
            let _ = NodeClaims::decode(bytes);
            let _ = Request::read(&armour::block(REQUEST, bytes.clone()));
            let _ = Renewal::decode(bytes);
            let _ = RevocationDelta::decode(bytes);
            let _ = HeldList::decode(bytes);
            let text = String::from_utf8_lossy(bytes);
            prop_assert!(NodeKey::from_pem(&text).is_err());
        }
    }

    #[test]
    fn altered_credentials_never_panic(
        node in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let pki = pki();
        let mut bytes = if node {
            pki.node(2, &gateway_claims()).unwrap().chain.encode()
        } else {
            pki.user(&handle("alice"), 1).unwrap().certificate.encode()
        };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(credential) = Credential::decode(&bytes) {
            let _ = credential.verify(&pki.trust().unwrap(), &none(), NOW);
        }
    }

    /// Nesting costs nothing: no decoder recurses.
    #[test]
    fn deep_nesting_never_panics(opener in prop::sample::select(vec![0x81u8, 0x9f, 0xa1, 0xbf, 0xc1]), depth in 1usize..4000) {
        let mut bytes = vec![0x85, 1];
        bytes.extend(std::iter::repeat_n(opener, depth));
        prop_assert!(Credential::decode(&bytes).is_err());
        bytes[1] = Kind::Revocations as u8;
        prop_assert!(SignedRevocations::decode(&bytes).is_err());
    }
}

#[test]
fn a_file_may_hold_the_lists_of_several_authorities() {
    let pki = pki();
    let trust = pki.trust().unwrap();
    let other = pki.root.init_enrolment("Other Enrolment", [0xa3; 32], 3, pki.validity()).unwrap();
    let revoke = |by: &Authority, previous: Option<&SignedRevocations>, serial| {
        by.revoke(previous, serial, RevocationReason::Withdrawn, NOW).unwrap()
    };
    let old = revoke(&pki.enrolment, None, 7);
    let (new, others) = (revoke(&pki.enrolment, Some(&old), 8), revoke(&other, None, 9));
    let file = [&others, &new, &old].map(SignedRevocations::to_pem).concat();
    let list = RevocationList::from_pem(&file, &trust, NOW).unwrap();
    assert_eq!((list.len(), list.lists().count()), (3, 2));
    assert!(list.is_revoked(other.key(), 9).is_some() && list.is_revoked(pki.enrolment.key(), 8).is_some());

    // An authority that the same file revokes says nothing, whichever comes first.
    let root = revoke(&pki.root, None, 3);
    for file in [[&root, &others], [&others, &root]] {
        let file = file.map(SignedRevocations::to_pem).concat();
        assert!(
            RevocationList::from_pem(&file, &trust, NOW).unwrap().is_revoked(pki.root.key(), 3).is_some()
        );
    }
    assert_eq!(RevocationList::from_pem("", &trust, NOW).unwrap_err().as_str(), "pem_missing");
}
