//! Every attack on credentials and records: stopped as things are, and successful where the one
//! check it is aimed at is switched off.
#![allow(clippy::unwrap_used)]

use call_model::{Address, CallId, Caller, Number};
use libp2p::PeerId;
use minicbor::bytes::{ByteArray, ByteVec};
use minicbor::{Decode, Encode};

use super::armour::{self, CERTIFICATE};
use super::handle::HandleCertificate;
use super::x509::{self, Certificate, Subject};
use super::*;
use crate::cbor;
use crate::defence::{Defence, without};
use crate::record::{
    GatewayOffer, LOCATION_LIFE, LocationRecord, MAX_RECORD_BYTES, NUMBER_LIFE, NumberRecord, OFFER_LIFE,
    RecordKey, Source, Store, StoreLimits, validate,
};
use crate::testing::{Pki, key};

const NOW: u64 = 1_790_000_000;

/// Returns an attack on one check: it says whether it was successful.
fn attack_on(defence: Defence) -> fn() -> bool {
    match defence {
        Defence::Size => oversized_record,
        Defence::NothingLeftOver => record_with_something_after_its_body,
        Defence::OneEncoding => record_in_a_second_spelling,
        Defence::Domain => record_signed_as_something_else,
        Defence::RecordSignature => record_signed_with_the_wrong_key,
        Defence::RecordSlot => record_in_the_slot_of_another,
        Defence::RecordEnd => stale_record,
        Defence::RecordLife => record_that_never_ends,
        Defence::SequenceClock => record_that_can_never_be_replaced,
        Defence::SequenceOrder => replayed_record,
        Defence::Quota => peer_that_fills_the_store,
        Defence::BeCalled => location_of_who_may_not_be_called,
        Defence::NumberPrefix => number_of_another_operator,
        Defence::OfferPrefix => offer_beyond_the_certificate,
        Defence::PriceCeiling => offer_above_the_ceiling,
        Defence::CertificateTime => expired_certificate,
        Defence::CertificateLength => certificate_for_a_year,
        Defence::Revocation => revoked_certificate,
        Defence::ChainSignature => authority_that_the_root_never_signed,
        Defence::ChainAuthority => node_that_plays_the_authority,
        Defence::HandleSignature => certificate_that_the_authority_never_signed,
        Defence::AuthorityLimits => number_that_the_root_does_not_let_go,
        Defence::ListSignature => revocation_by_anybody,
        Defence::ListVersion => revocation_taken_back,
        Defence::InviteSignature => invite_in_the_name_of_another,
        Defence::InviteEnd => invite_kept_for_later,
        Defence::InviteOnce => invite_sent_twice,
        Defence::CallerAddress => caller_with_a_number_of_another,
        Defence::RenewalAge => renewal_request_of_long_ago,
        Defence::RenewalSignature => renewal_by_a_thief,
        Defence::TurnIntegrity
        | Defence::TurnExpiry
        | Defence::TurnRevocation
        | Defence::TurnNonce
        | Defence::TurnUser
        | Defence::TurnPeer
        | Defence::TurnPermission
        | Defence::TurnQuota
        | Defence::TurnBandwidth
        | Defence::TurnAnswers => crate::turn::tests::attacks::attack_on(defence),
    }
}

#[test]
fn every_attack_is_stopped_by_the_defence_it_is_aimed_at() {
    for (at, defence) in Defence::ALL.into_iter().enumerate() {
        assert_eq!(defence as usize, at, "the list of all is in order");
        let attack = attack_on(defence);
        assert!(!attack(), "{defence:?} does not hold");
        assert!(without(defence, attack), "without {defence:?} the attack would fail all the same");
        assert!(!attack(), "{defence:?} is on again");
    }
    assert_eq!(Defence::ALL.len(), Defence::TurnAnswers as usize + 1, "none is missing");
}

fn pki() -> Pki {
    Pki::new(NOW).unwrap()
}

/// The key of the test authority.
fn authority_key() -> NodeKey {
    NodeKey::from_seed([0xa2; 32])
}

fn mallory() -> NodeKey {
    key(66)
}

fn certificate(authority: &Authority) -> Certificate {
    Certificate::parse(&armour::first(&authority.certificate_pem(), CERTIFICATE).unwrap()).unwrap()
}

fn alice(pki: &Pki) -> UserBundle {
    pki.user(&"alice".parse().unwrap(), 1).unwrap()
}

fn location(expires_unix: u64, sequence: u64) -> LocationRecord {
    LocationRecord { handle: "alice".parse().unwrap(), sequence, expires_unix, devices: Vec::new() }
}

fn signed_location(user: &UserBundle, sequence: u64) -> Vec<u8> {
    location(NOW + LOCATION_LIFE, sequence).sign(&user.certificate, &user.key).unwrap()
}

/// Says whether a record is taken for the location of a handle.
fn is_location_of(pki: &Pki, handle: &str, value: &[u8]) -> bool {
    let slot = RecordKey::Location(handle.parse().unwrap()).to_bytes();
    validate(&slot, value, &pki.trust().unwrap(), &RevocationList::default(), NOW).is_ok()
}

/// The parts of a record: kind, credential, body, signature.
type Parts = (u8, ByteVec, ByteVec, ByteArray<64>);

fn taken_apart(value: &[u8]) -> Parts {
    minicbor::decode(value).unwrap()
}

/// Puts a record together that its key has signed, whatever is in it.
fn sealed((kind, credential, _, _): Parts, body: Vec<u8>, by: &NodeKey, domain: Domain) -> Vec<u8> {
    let signature = by.sign(domain, &body);
    cbor::encode((kind, credential, ByteVec::from(body), ByteArray::from(signature)))
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Location {
    #[n(0)]
    handle: String,
    #[n(1)]
    sequence: u64,
    #[n(2)]
    expires_unix: u64,
    #[n(3)]
    writer: u8,
    #[n(4)]
    devices: Vec<(u8, u32, u8, Vec<ByteVec>)>,
}

fn oversized_record() -> bool {
    let (pki, mut body) = (pki(), location_body());
    let long: libp2p::Multiaddr = format!("/dns4/{}/tcp/4001", "a".repeat(240)).parse().unwrap();
    body.devices = vec![(0, 0, 0, vec![ByteVec::from(long.to_vec()); 8])];
    let user = alice(&pki);
    let parts = taken_apart(&signed_location(&user, 1));
    let value = sealed(parts, cbor::encode(body), &user.key, Domain::Location);
    assert!(value.len() > MAX_RECORD_BYTES);
    is_location_of(&pki, "alice", &value)
}

fn location_body() -> Location {
    let expires_unix = NOW + LOCATION_LIFE;
    Location { handle: "alice".into(), sequence: 1, expires_unix, writer: 0, devices: Vec::new() }
}

fn record_with_something_after_its_body() -> bool {
    let pki = pki();
    let user = alice(&pki);
    let parts = taken_apart(&signed_location(&user, 1));
    let body = [cbor::encode(location_body()), vec![0]].concat();
    is_location_of(&pki, "alice", &sealed(parts, body, &user.key, Domain::Location))
}

fn record_in_a_second_spelling() -> bool {
    let pki = pki();
    let honest = signed_location(&alice(&pki), 1);
    // The kind in two bytes, which says the same (RFC 8949 3) and is not the shortest (4.2.1).
    let spelled = [&[0x84, 0x18, honest[1]], &honest[2..]].concat();
    assert!(is_location_of(&pki, "alice", &honest));
    is_location_of(&pki, "alice", &spelled)
}

fn record_signed_as_something_else() -> bool {
    let pki = pki();
    let user = alice(&pki);
    let parts = taken_apart(&signed_location(&user, 1));
    let value = sealed(parts, cbor::encode(location_body()), &user.key, Domain::Invite);
    is_location_of(&pki, "alice", &value)
}

fn record_signed_with_the_wrong_key() -> bool {
    let pki = pki();
    let parts = taken_apart(&signed_location(&alice(&pki), 1));
    let value = sealed(parts, cbor::encode(location_body()), &mallory(), Domain::Location);
    is_location_of(&pki, "alice", &value)
}

fn record_in_the_slot_of_another() -> bool {
    let pki = pki();
    is_location_of(&pki, "bob", &signed_location(&alice(&pki), 1))
}

fn stale_record() -> bool {
    let pki = pki();
    let user = alice(&pki);
    let value = location(NOW, 1).sign(&user.certificate, &user.key).unwrap();
    is_location_of(&pki, "alice", &value)
}

fn record_that_never_ends() -> bool {
    let pki = pki();
    let user = alice(&pki);
    let value = location(NOW + 30 * 86_400, 1).sign(&user.certificate, &user.key).unwrap();
    is_location_of(&pki, "alice", &value)
}

fn record_that_can_never_be_replaced() -> bool {
    let pki = pki();
    is_location_of(&pki, "alice", &signed_location(&alice(&pki), u64::MAX))
}

/// Puts records into a store in turn. Says whether the last was taken.
fn is_stored(pki: &Pki, limits: StoreLimits, values: &[(&str, Vec<u8>)]) -> bool {
    let (trust, none) = (pki.trust().unwrap(), RevocationList::default());
    let source = Source::Remote { peer: mallory().peer_id(), address: "192.0.2.1".parse().ok() };
    let mut store = Store::new(limits);
    let mut put = |(handle, value): &(&str, Vec<u8>)| {
        let slot = RecordKey::Location(handle.parse().unwrap()).to_bytes();
        store.put(&slot, value.clone(), source, &trust, &none, NOW).is_ok()
    };
    let (last, before) = values.split_last().unwrap();
    assert!(before.iter().all(&mut put));
    put(last)
}

fn replayed_record() -> bool {
    let pki = pki();
    let user = alice(&pki);
    let [old, new] = [1, 2].map(|sequence| ("alice", signed_location(&user, sequence)));
    is_stored(&pki, StoreLimits::default(), &[new, old])
}

fn peer_that_fills_the_store() -> bool {
    let pki = pki();
    let bob = pki.user(&"bob".parse().unwrap(), 2).unwrap();
    let record = LocationRecord { handle: "bob".parse().unwrap(), ..location(NOW + 60, 1) };
    let second = record.sign(&bob.certificate, &bob.key).unwrap();
    let limits = StoreLimits { per_peer: 1, ..StoreLimits::default() };
    is_stored(&pki, limits, &[("alice", signed_location(&alice(&pki), 1)), ("bob", second)])
}

fn location_of_who_may_not_be_called() -> bool {
    let pki = pki();
    let mut claims = alice(&pki).certificate.claims().clone();
    claims.abilities = Abilities::CALL_HANDLES;
    let user = UserBundle { key: key(1), certificate: pki.enrolment.issue_handle(claims).unwrap() };
    is_location_of(&pki, "alice", &signed_location(&user, 1))
}

fn gateway(pki: &Pki) -> NodeBundle {
    let claims = NodeClaims {
        role: Role::Gateway,
        prefixes: vec!["+44".parse().unwrap()],
        number_prefixes: vec!["+4420".parse().unwrap()],
        rate: Some(Price { micros_per_minute: 20_000, currency: "EUR".parse().unwrap() }),
    };
    pki.node(2, &claims).unwrap()
}

fn number_of_another_operator() -> bool {
    let pki = pki();
    let NodeBundle { key, chain } = gateway(&pki);
    let number: Number = "+441632960018".parse().unwrap();
    let (handle, expires_unix) = ("mallory".parse().unwrap(), NOW + NUMBER_LIFE);
    let record = NumberRecord { number: number.clone(), handle, sequence: 1, expires_unix };
    let value = record.sign(&chain, &key).unwrap();
    let slot = RecordKey::Number(number).to_bytes();
    validate(&slot, &value, &pki.trust().unwrap(), &RevocationList::default(), NOW).is_ok()
}

/// Says whether an offer is taken for a prefix.
fn is_offered(prefix: &str, micros_per_minute: u64) -> bool {
    let pki = pki();
    let NodeBundle { key, chain } = gateway(&pki);
    let prefix: Prefix = prefix.parse().unwrap();
    let offer = GatewayOffer {
        prefixes: vec![prefix.clone()],
        price: Price { micros_per_minute, currency: "EUR".parse().unwrap() },
        codecs: Vec::new(),
        capacity: 1,
        load: 0,
        sequence: 1,
        expires_unix: NOW + OFFER_LIFE,
    };
    let value = offer.sign(&chain, &key).unwrap();
    let slot = RecordKey::Gateway(prefix).to_bytes();
    validate(&slot, &value, &pki.trust().unwrap(), &RevocationList::default(), NOW).is_ok()
}

fn offer_beyond_the_certificate() -> bool {
    is_offered("+49", 20_000)
}

fn offer_above_the_ceiling() -> bool {
    is_offered("+44", 20_001)
}

/// Says whether a user's certificate is good.
fn is_good(pki: &Pki, certificate: &HandleCertificate, list: &RevocationList, unix: u64) -> bool {
    let read = HandleCertificate::decode(&certificate.encode()).unwrap();
    read.verify(&pki.trust().unwrap(), list, unix).is_ok()
}

fn expired_certificate() -> bool {
    let pki = pki();
    is_good(&pki, &alice(&pki).certificate, &RevocationList::default(), pki.validity().not_after + 1)
}

fn certificate_for_a_year() -> bool {
    let pki = pki();
    let validity = Validity::days_from(NOW, 360);
    let claims = HandleClaims { validity, ..alice(&pki).certificate.claims().clone() };
    let certificate = HandleCertificate::issue(claims, &certificate(&pki.enrolment), &authority_key());
    is_good(&pki, &certificate, &RevocationList::default(), NOW)
}

/// The list that revokes the certificate of Alice, and one before it.
fn lists(pki: &Pki) -> [SignedRevocations; 2] {
    let revoke = |previous: Option<&SignedRevocations>, serial| {
        pki.enrolment.revoke(previous, serial, RevocationReason::KeyCompromise, NOW).unwrap()
    };
    let first = revoke(None, 9);
    let second = revoke(Some(&first), alice(pki).certificate.claims().serial);
    [first, second]
}

fn revoked_certificate() -> bool {
    let pki = pki();
    let mut list = RevocationList::default();
    let [_, newer] = lists(&pki);
    assert_eq!(list.apply(newer, &pki.trust().unwrap(), NOW), Ok(true));
    is_good(&pki, &alice(&pki).certificate, &list, NOW)
}

fn authority_that_the_root_never_signed() -> bool {
    let pki = pki();
    // A root of the same name, whose key is another's.
    let validity = Validity::days_from(NOW - 3600, 365);
    let root = Authority::init_root("Test Root", [0x66; 32], validity).unwrap();
    let enrolment = root.init_enrolment("Test Enrolment", [0x67; 32], 2, validity).unwrap();
    let forged = enrolment.issue_handle(alice(&pki).certificate.claims().clone()).unwrap();
    is_good(&pki, &forged, &RevocationList::default(), NOW)
}

fn node_that_plays_the_authority() -> bool {
    let pki = pki();
    let claims = NodeClaims::supernode();
    let node = Subject {
        name: "node",
        key: &mallory().public(),
        serial: 5,
        validity: pki.validity(),
        authority: None,
        claims: Some(&claims),
        limits: None,
    };
    // The root has certified a node by itself, by an oversight.
    let node = x509::write(&node, Some(&certificate(&pki.root)), &NodeKey::from_seed([0xa1; 32])).unwrap();
    let claims = alice(&pki).certificate.claims().clone();
    let forged = HandleCertificate::issue(claims, &node, &mallory());
    is_good(&pki, &forged, &RevocationList::default(), NOW)
}

fn certificate_that_the_authority_never_signed() -> bool {
    let pki = pki();
    let claims = alice(&pki).certificate.claims().clone();
    let forged = HandleCertificate::issue(claims, &certificate(&pki.enrolment), &mallory());
    is_good(&pki, &forged, &RevocationList::default(), NOW)
}

fn number_that_the_root_does_not_let_go() -> bool {
    let pki = pki();
    let limits = EnrolmentLimits { prefixes: Vec::new(), number_prefixes: vec!["+4420".parse().unwrap()] };
    let seed = [0xa9; 32];
    let authority =
        pki.root.init_limited_enrolment("North", seed, 9, pki.enrolment.validity(), Some(&limits)).unwrap();
    let mut claims = alice(&pki).certificate.claims().clone();
    claims.numbers = vec!["+441632960018".parse().unwrap()];
    let forged = HandleCertificate::issue(claims, &certificate(&authority), &NodeKey::from_seed(seed));
    is_good(&pki, &forged, &RevocationList::default(), NOW)
}

fn revocation_by_anybody() -> bool {
    let pki = pki();
    let serial = alice(&pki).certificate.claims().serial;
    let revoked = vec![Revoked { serial, reason: RevocationReason::Unspecified, since: NOW }];
    let forged = SignedRevocations::issue(1, revoked, &certificate(&pki.enrolment), &mallory()).unwrap();
    RevocationList::default().apply(forged, &pki.trust().unwrap(), NOW) == Ok(true)
}

fn revocation_taken_back() -> bool {
    let pki = pki();
    let (trust, [older, newer]) = (pki.trust().unwrap(), lists(&pki));
    let mut list = RevocationList::default();
    assert_eq!(list.apply(newer, &trust, NOW), Ok(true));
    list.apply(older, &trust, NOW) == Ok(true) && is_good(&pki, &alice(&pki).certificate, &list, NOW)
}

/// An invite of Alice's device.
struct Invite {
    from: &'static str,
    expires_unix: u64,
    signer: NodeKey,
    times: usize,
}

impl Invite {
    fn honest() -> Self {
        Self { from: "alice", expires_unix: NOW + 60, signer: key(1), times: 1 }
    }

    /// Says whether the last time that it is sent it is taken.
    fn is_taken(&self) -> bool {
        let pki = pki();
        let (trust, none) = (pki.trust().unwrap(), RevocationList::default());
        let credential = alice(&pki).certificate.encode();
        let from = Caller { address: self.from.parse().ok(), ..Caller::default() };
        let to: Address = "bob".parse().unwrap();
        let (call, nonce, expires_unix) = (CallId::new(0, 1), [7; 16], self.expires_unix);
        let assertion = Assertion { call, from: &from, to: &to, nonce, expires_unix, media: "v=0" };
        let signature = assertion.sign(&self.signer);
        let peer: PeerId = key(1).peer_id();
        let mut nonces = NonceCache::new(9);
        let mut send = || {
            let mut context =
                InviteContext { trust: &trust, revocations: &none, nonces: &mut nonces, unix: NOW };
            verify_invite(&credential, &assertion, &signature, &peer, &mut context).is_ok()
        };
        (1..self.times).for_each(|_| assert!(send(), "the first is honest"));
        send()
    }
}

#[test]
fn an_honest_invite_is_taken() {
    assert!(Invite::honest().is_taken());
}

fn invite_in_the_name_of_another() -> bool {
    Invite { signer: mallory(), ..Invite::honest() }.is_taken()
}

fn invite_kept_for_later() -> bool {
    Invite { expires_unix: NOW, ..Invite::honest() }.is_taken()
}

fn invite_sent_twice() -> bool {
    Invite { times: 2, ..Invite::honest() }.is_taken()
}

fn caller_with_a_number_of_another() -> bool {
    Invite { from: "+442079460018", ..Invite::honest() }.is_taken()
}

/// Says whether a request for renewal is answered with a certificate.
fn is_renewed(pki: &Pki, request: &[u8]) -> bool {
    let Ok(request) = Renewal::decode(request) else { return false };
    let known = (&pki.trust().unwrap(), &RevocationList::default());
    pki.enrolment.renew(&request, known, 77, Validity::days_from(NOW, 30)).is_ok()
}

fn renewal_request_of_long_ago() -> bool {
    let pki = pki();
    let old = Credential::Handle(alice(&pki).certificate);
    let request = Renewal::new(&old, &key(1), None, NOW - MAX_RENEWAL_AGE - 1).unwrap();
    is_renewed(&pki, &request.encode())
}

fn renewal_by_a_thief() -> bool {
    let pki = pki();
    let old = Credential::Handle(alice(&pki).certificate);
    let honest = Renewal::new(&old, &key(1), Some(&mallory()), NOW).unwrap();
    assert!(is_renewed(&pki, &honest.encode()));
    // The same without the key of the holder.
    let (kind, body, _, by_new_key): (u8, ByteVec, ByteArray<64>, Option<ByteArray<64>>) =
        minicbor::decode(&honest.encode()).unwrap();
    let signature = ByteArray::from(mallory().sign(Domain::Renewal, &body));
    is_renewed(&pki, &cbor::encode((kind, body, signature, by_new_key)))
}
