//! Attacks on the assignments of numbers: each is stopped by the check it is aimed at.
#![allow(clippy::unwrap_used)]

use call_model::Number;
use minicbor::bytes::{ByteArray, ByteVec};

use super::handle::HandleCertificate;
use super::x509::Certificate;
use super::*;
use crate::cbor;
use crate::defence::{Defence, without};
use crate::record::{NumberWriter, RecordKey};
use crate::record::{Source, Store, StoreLimits, Stored, ValidRecord, validate};
use crate::testing::{Pki, key};

const NOW: u64 = 1_790_000_000;
const NUMBER: &str = "+442079460018";
const SEED: [u8; 32] = [0xb1; 32];

/// The world of the attacks: beside the usual authorities one that assigns +4420 and does nothing
/// else.
struct Scene {
    pki: Pki,
    trust: Trust,
    authority: Authority,
}

impl Scene {
    fn new() -> Self {
        let pki = Pki::new(NOW).unwrap();
        let limits = EnrolmentLimits {
            prefixes: Vec::new(),
            number_prefixes: vec!["+4420".parse().unwrap()],
            only_numbers: true,
        };
        let validity = pki.enrolment.validity();
        let authority = pki.root.init_limited_enrolment("Numbers", SEED, 7, validity, Some(&limits)).unwrap();
        Self { trust: pki.trust().unwrap(), pki, authority }
    }

    fn certificate(&self) -> Certificate {
        let pem = self.authority.certificate_pem();
        Certificate::parse(&armour::first(&pem, armour::CERTIFICATE).unwrap()).unwrap()
    }

    fn claims() -> AssignmentClaims {
        AssignmentClaims {
            number: NUMBER.parse().unwrap(),
            handle: "alice".parse().unwrap(),
            serial: 70,
            sequence: NOW * 1000,
            expires_unix: NOW + 300 * 86_400,
        }
    }

    /// Signs with the authority's key whatever the authority would refuse to.
    fn sign(&self, claims: AssignmentClaims) -> Vec<u8> {
        NumberAssignment::issue(claims, &self.certificate(), &NodeKey::from_seed(SEED)).encode()
    }

    fn read(&self, slot: &str, value: &[u8], revoked: &RevocationList, unix: u64) -> Option<ValidRecord> {
        let slot = RecordKey::Number(slot.parse::<Number>().unwrap()).to_bytes();
        validate(&slot, value, &self.trust, revoked, unix).ok()
    }

    fn is_taken(&self, value: &[u8]) -> bool {
        self.read(NUMBER, value, &RevocationList::default(), NOW).is_some()
    }
}

fn mallory() -> NodeKey {
    key(66)
}

#[test]
fn an_authority_assigns_a_number_and_whoever_holds_that_may_publish_it() {
    let scene = Scene::new();
    let assignment = scene.authority.assign_number(Scene::claims()).unwrap();
    let value = assignment.encode();
    assert!(value.len() < 600, "{} bytes", value.len());
    assert!(NumberAssignment::is_one(&value));
    let read = NumberAssignment::all_from_pem(&assignment.to_pem()).unwrap();
    assert_eq!(read, std::slice::from_ref(&assignment));
    let none = RevocationList::default();
    let Some(ValidRecord::Number(valid)) = scene.read(NUMBER, &value, &none, NOW) else { panic!() };
    assert_eq!((valid.record.handle.as_str(), valid.record.number.to_string().as_str()), ("alice", NUMBER));
    assert!(matches!(valid.writer, NumberWriter::Authority(_)));
    // It is good for months, while nobody publishes anew what the authority has said once.
    assert!(scene.read(NUMBER, &value, &none, NOW + 299 * 86_400).is_some());
    assert!(scene.read(NUMBER, &value, &none, NOW + 300 * 86_400 + 1).is_none());
    // The one that follows it takes its place, wherever either is.
    let bob =
        AssignmentClaims { handle: "bob".parse().unwrap(), sequence: NOW * 1000 + 1, ..Scene::claims() };
    let later = scene.authority.assign_number(bob).unwrap().encode();
    let later = scene.read(NUMBER, &later, &none, NOW).unwrap();
    assert!(later.outranks(&ValidRecord::Number(valid)));
}

#[test]
fn an_authority_assigns_what_the_root_lets_it_and_nothing_else() {
    let scene = Scene::new();
    let beyond = AssignmentClaims { number: "+441632960018".parse().unwrap(), ..Scene::claims() };
    let refused = scene.authority.assign_number(beyond).unwrap_err();
    assert_eq!(refused.as_str(), "outside_issuer_limits");
    let claims = scene.pki.user(&"alice".parse().unwrap(), 1).unwrap().certificate.claims().clone();
    assert_eq!(scene.authority.issue_handle(claims).unwrap_err().as_str(), "outside_issuer_limits");
    let node = scene.authority.issue_node(
        "node",
        &key(2).public(),
        &NodeClaims::supernode(),
        71,
        scene.pki.validity(),
    );
    assert_eq!(node.unwrap_err().as_str(), "outside_issuer_limits");
    assert_eq!(scene.pki.root.assign_number(Scene::claims()).unwrap_err().as_str(), "not_authority");
    let long = AssignmentClaims { expires_unix: NOW + 2 * 366 * 86_400, ..Scene::claims() };
    assert_eq!(scene.authority.assign_number(long).unwrap_err().as_str(), "certificate_validity_too_long");
}

/// Every attack on an assignment that is like one on another certificate, and its defence.
#[test]
fn every_attack_on_an_assignment_is_stopped_by_the_defence_it_is_aimed_at() {
    let attacks: [(Defence, fn() -> bool); 7] = [
        (Defence::RecordSlot, in_the_slot_of_another),
        (Defence::AuthorityLimits, beyond_the_limits),
        (Defence::CertificateTime, expired),
        (Defence::CertificateLength, for_a_decade),
        (Defence::Revocation, revoked),
        (Defence::Revocation, of_a_revoked_authority),
        (Defence::SequenceOrder, replayed),
    ];
    for (at, (defence, attack)) in attacks.into_iter().enumerate() {
        assert!(!attack(), "{at}: {defence:?} does not hold");
        assert!(without(defence, attack), "{at}: without {defence:?} it would fail all the same");
    }
}

pub(super) fn signed_by_anybody() -> bool {
    let scene = Scene::new();
    let forged = NumberAssignment::issue(Scene::claims(), &scene.certificate(), &mallory());
    scene.is_taken(&forged.encode())
}

pub(super) fn user_of_an_authority_for_numbers() -> bool {
    let scene = Scene::new();
    let claims = scene.pki.user(&"alice".parse().unwrap(), 1).unwrap().certificate.claims().clone();
    let forged = HandleCertificate::issue(claims, &scene.certificate(), &NodeKey::from_seed(SEED));
    forged.verify(&scene.trust, &RevocationList::default(), NOW).is_ok()
}

fn in_the_slot_of_another() -> bool {
    let scene = Scene::new();
    let value = scene.sign(Scene::claims());
    scene.read("+442079460019", &value, &RevocationList::default(), NOW).is_some()
}

fn beyond_the_limits() -> bool {
    let scene = Scene::new();
    let number = "+441632960018";
    let value = scene.sign(AssignmentClaims { number: number.parse().unwrap(), ..Scene::claims() });
    scene.read(number, &value, &RevocationList::default(), NOW).is_some()
}

fn expired() -> bool {
    let scene = Scene::new();
    let value = scene.sign(AssignmentClaims { expires_unix: NOW + 10, ..Scene::claims() });
    assert!(scene.is_taken(&value));
    scene.read(NUMBER, &value, &RevocationList::default(), NOW + 11).is_some()
}

fn for_a_decade() -> bool {
    let scene = Scene::new();
    scene.is_taken(&scene.sign(AssignmentClaims { expires_unix: NOW + 3653 * 86_400, ..Scene::claims() }))
}

fn revoked() -> bool {
    let scene = Scene::new();
    let value = scene.sign(Scene::claims());
    let list = scene.authority.revoke(None, Scene::claims().serial, RevocationReason::Unspecified, NOW);
    let mut revocations = RevocationList::default();
    assert_eq!(revocations.apply(list.unwrap(), &scene.trust, NOW), Ok(true));
    scene.read(NUMBER, &value, &revocations, NOW).is_some()
}

fn of_a_revoked_authority() -> bool {
    let scene = Scene::new();
    let value = scene.sign(Scene::claims());
    let list = scene.pki.root.revoke(None, 7, RevocationReason::KeyCompromise, NOW).unwrap();
    let mut revocations = RevocationList::default();
    assert_eq!(revocations.apply(list, &scene.trust, NOW), Ok(true));
    scene.read(NUMBER, &value, &revocations, NOW).is_some()
}

/// The number was given to somebody else since: says whether the old assignment comes back.
fn replayed() -> bool {
    let scene = Scene::new();
    let slot = RecordKey::Number(NUMBER.parse().unwrap()).to_bytes();
    let old = scene.sign(Scene::claims());
    let later =
        AssignmentClaims { handle: "bob".parse().unwrap(), sequence: NOW * 1000 + 1, ..Scene::claims() };
    let (later, none) = (scene.sign(later), RevocationList::default());
    let mut store = Store::new(StoreLimits::default());
    assert_eq!(store.put(&slot, later, Source::Local, &scene.trust, &none, NOW), Ok(Stored::New));
    store.put(&slot, old.clone(), Source::Local, &scene.trust, &none, NOW).is_ok()
}

#[test]
fn a_revocation_takes_what_is_stored_with_it() {
    let scene = Scene::new();
    let slot = RecordKey::Number(NUMBER.parse().unwrap()).to_bytes();
    let mut store = Store::new(StoreLimits { per_publisher: 1, ..StoreLimits::default() });
    let mut revocations = RevocationList::default();
    let value = scene.sign(Scene::claims());
    let put = store.put(&slot, value, Source::Local, &scene.trust, &revocations, NOW);
    assert_eq!(put, Ok(Stored::New));
    // The authority signs for all; it is each user's numbers that are counted.
    let other: Number = "+442079460019".parse().unwrap();
    let other_slot = RecordKey::Number(other.clone()).to_bytes();
    let again = scene.sign(AssignmentClaims { number: other.clone(), serial: 71, ..Scene::claims() });
    let put = store.put(&other_slot, again, Source::Local, &scene.trust, &revocations, NOW);
    assert_eq!(put.unwrap_err().as_str(), "publisher_quota");
    let bobs =
        AssignmentClaims { number: other, handle: "bob".parse().unwrap(), serial: 72, ..Scene::claims() };
    let put = store.put(&other_slot, scene.sign(bobs), Source::Local, &scene.trust, &revocations, NOW);
    assert_eq!(put, Ok(Stored::New));
    let list = scene.authority.revoke(None, 70, RevocationReason::Superseded, NOW).unwrap();
    assert_eq!(revocations.apply(list, &scene.trust, NOW), Ok(true));
    assert_eq!(store.drop_revoked(&revocations, NOW), 1);
    assert!(store.get(&slot, NOW).is_none() && store.get(&other_slot, NOW).is_some());
}

#[test]
fn an_assignment_has_one_encoding() {
    let scene = Scene::new();
    let value = scene.sign(Scene::claims());
    let (kind, certificate, body, signature): (u8, ByteVec, ByteVec, ByteArray<64>) =
        minicbor::decode(&value).unwrap();
    assert_eq!(cbor::encode((kind, certificate.clone(), body.clone(), signature)), value);
    for bad in [
        [&value[..], &[0]].concat(),
        value[..value.len() - 1].to_vec(),
        cbor::encode((5u8, certificate.clone(), body.clone(), signature)),
        cbor::encode((kind, ByteVec::from(vec![0x30]), body, signature)),
        cbor::encode((kind, certificate, ByteVec::from(vec![0xa0]), signature)),
    ] {
        assert!(NumberAssignment::decode(&bad).is_err(), "{bad:02x?}");
        assert!(!scene.is_taken(&bad));
    }
}
