#![allow(clippy::unwrap_used)]

mod copies;

use std::collections::BTreeSet;
use std::net::IpAddr;

use call_model::{Codec, Handle, Number};
use libp2p::Multiaddr;
use proptest::prelude::*;

use super::*;
use crate::identity::{
    Abilities, HandleClaims, MAX_DEVICES, NodeBundle, NodeClaims, Price, RevocationReason, Role,
    SignedRevocations, Trust, UserBundle, Utc,
};
use crate::testing::{self, Pki};

const NOW: u64 = 1_790_000_000;

struct World {
    pki: Pki,
    trust: Trust,
    revocations: RevocationList,
    alice: UserBundle,
    gateway: NodeBundle,
}

impl World {
    fn new() -> Self {
        let pki = Pki::new(NOW).unwrap();
        let claims = NodeClaims {
            role: Role::Gateway,
            prefixes: vec!["+44".parse().unwrap(), "+1".parse().unwrap()],
            number_prefixes: vec!["+4420".parse().unwrap()],
            rate: Some(price(20_000, "EUR")),
        };
        Self {
            trust: pki.trust().unwrap(),
            revocations: RevocationList::default(),
            alice: pki.user(&handle("alice"), 1).unwrap(),
            gateway: pki.node(2, &claims).unwrap(),
            pki,
        }
    }

    fn validate(&self, key: &RecordKey, value: &[u8]) -> Result<ValidRecord, RecordError> {
        validate(&key.to_bytes(), value, &self.trust, &self.revocations, NOW)
    }

    fn refused(&self, key: &RecordKey, value: &[u8]) -> &'static str {
        self.validate(key, value).unwrap_err().as_str()
    }

    fn location(&self, sequence: u64) -> LocationRecord {
        let peer = self.alice.key.peer_id();
        let relayed = |ip: u8| {
            let relay = testing::key(90 + ip).peer_id();
            address(&format!("/ip4/203.0.113.{ip}/udp/4001/quic-v1/p2p/{relay}/p2p-circuit"))
        };
        let direct = address("/ip6/2001:db8::7/udp/4001/quic-v1");
        LocationRecord {
            handle: handle("alice"),
            sequence,
            expires_unix: NOW + LOCATION_LIFE,
            devices: vec![Device {
                peer,
                addresses: vec![direct, relayed(1), relayed(2)],
                abilities: 3,
                priority: 1,
            }],
        }
    }

    fn signed_location(&self, sequence: u64) -> Vec<u8> {
        self.location(sequence).sign(&self.alice.certificate, &self.alice.key).unwrap()
    }

    fn number(&self, text: &str, sequence: u64) -> NumberRecord {
        NumberRecord {
            number: number(text),
            handle: handle("alice"),
            sequence,
            expires_unix: NOW + NUMBER_LIFE,
        }
    }

    fn signed_number(&self, text: &str, sequence: u64) -> Vec<u8> {
        self.number(text, sequence).sign(&self.gateway.chain, &self.gateway.key).unwrap()
    }

    fn offer(&self) -> GatewayOffer {
        GatewayOffer {
            prefixes: vec!["+44".parse().unwrap()],
            price: price(12_000, "EUR"),
            codecs: vec![Codec::Opus, Codec::Pcma],
            capacity: 500,
            load: 12,
            sequence: 3,
            expires_unix: NOW + OFFER_LIFE,
        }
    }

    fn sign_offer(&self, offer: &GatewayOffer) -> Vec<u8> {
        offer.sign(&self.gateway.chain, &self.gateway.key).unwrap()
    }

    fn put(
        &self,
        store: &mut Store,
        key: &RecordKey,
        value: Vec<u8>,
        source: Source,
    ) -> Result<Stored, &'static str> {
        store
            .put(&key.to_bytes(), value, source, &self.trust, &self.revocations, NOW)
            .map_err(|error| error.as_str())
    }
}

fn handle(name: &str) -> Handle {
    name.parse().unwrap()
}

fn number(text: &str) -> Number {
    text.parse().unwrap()
}

fn address(text: &str) -> Multiaddr {
    text.parse().unwrap()
}

fn price(micros_per_minute: u64, currency: &str) -> Price {
    Price { micros_per_minute, currency: currency.parse().unwrap() }
}

fn loc(name: &str) -> RecordKey {
    RecordKey::Location(handle(name))
}

fn num(text: &str) -> RecordKey {
    RecordKey::Number(number(text))
}

fn gw(prefix: &str) -> RecordKey {
    RecordKey::Gateway(prefix.parse().unwrap())
}

fn remote(peer: u8, address: &str) -> Source {
    Source::Remote { peer: testing::key(peer).peer_id(), address: address.parse::<IpAddr>().ok() }
}

#[test]
fn keys_have_one_spelling() {
    for text in ["/causeway/loc/alice.w", "/causeway/num/+442079460018", "/causeway/gw/+44", "/causeway/gw/+"]
    {
        let key = RecordKey::parse(text.as_bytes()).unwrap();
        assert_eq!(key.to_bytes(), text.as_bytes());
    }
    let long = format!("/causeway/loc/{}", "a".repeat(60));
    for bad in [
        "",
        "/causeway/loc/",
        "/causeway/loc/Alice",
        "/causeway/num/+44 20",
        "/causeway/num/44",
        "/causeway/gw/44",
        "/causeway/gw/+0",
        "/causeway/x/a",
        &long,
    ] {
        assert_eq!(RecordKey::parse(bad.as_bytes()), Err(RecordError::BadKey), "{bad:?}");
    }
    assert_eq!(RecordKey::parse(&[0xff; 20]), Err(RecordError::BadKey));
    let keys: Vec<String> = RecordKey::gateways_of(&number("+44")).map(|key| key.to_string()).collect();
    assert_eq!(keys, ["/causeway/gw/+44", "/causeway/gw/+4", "/causeway/gw/+"]);
}

#[test]
fn a_location_comes_back_as_it_was_signed() {
    let world = World::new();
    let value = world.signed_location(7);
    let record = world.validate(&loc("alice"), &value).unwrap();
    assert_eq!((record.key(), record.sequence()), (loc("alice"), 7));
    assert_eq!(record.expires_unix(), NOW + LOCATION_LIFE);
    assert_eq!(*record.publisher(), world.alice.key.public());
    let ValidRecord::Location(valid) = record else { panic!("a location") };
    let mut expected = world.location(7);
    let peer = world.alice.key.peer_id();
    for address in &mut expected.devices[0].addresses {
        address.push(libp2p::multiaddr::Protocol::P2p(peer));
    }
    assert_eq!(valid.record, expected);
    assert_eq!(valid.holder.handle, handle("alice"));
    // Written with the device's own id at the end it is the same record, byte for byte.
    assert_eq!(expected.sign(&world.alice.certificate, &world.alice.key).unwrap(), value);
}

#[test]
fn records_stay_under_a_kibibyte() {
    let world = World::new();
    let location = world.signed_location(NOW * 1000).len();
    let number = world.signed_number("+442079460018", NOW * 1000).len();
    let offer = world.sign_offer(&world.offer()).len();
    assert_eq!((location, number, offer), (669, 694, 697), "location with three addresses, number, offer");
}

#[test]
fn a_location_is_refused_for_each_fault() {
    let world = World::new();
    let sign = |record: &LocationRecord| record.sign(&world.alice.certificate, &world.alice.key);
    let expiring = |expires_unix| sign(&LocationRecord { expires_unix, ..world.location(1) }).unwrap();
    assert_eq!(world.refused(&loc("alice"), &expiring(NOW)), "record_expired");
    assert!(world.validate(&loc("alice"), &expiring(NOW + LOCATION_LIFE + CLOCK_SKEW)).is_ok());
    assert_eq!(
        world.refused(&loc("alice"), &expiring(NOW + LOCATION_LIFE + CLOCK_SKEW + 1)),
        "too_far_ahead"
    );
    assert_eq!(world.refused(&loc("bob"), &world.signed_location(1)), "wrong_slot");
    assert_eq!(world.refused(&num("+4420"), &world.signed_location(1)), "record_malformed");

    // A device or a writer that is not certified.
    let mut stray = world.location(1);
    stray.devices[0].peer = testing::key(9).peer_id();
    assert_eq!(sign(&stray), Err(RecordError::UnknownDevice));
    let unsigned = world.location(1).sign(&world.alice.certificate, &testing::key(9));
    assert_eq!(unsigned, Err(RecordError::UnknownDevice));
    let bob = world.pki.user(&handle("bob"), 3).unwrap();
    assert_eq!(world.location(1).sign(&bob.certificate, &bob.key), Err(RecordError::WrongSlot));

    let mut crowded = world.location(1);
    crowded.devices = vec![crowded.devices[0].clone(); MAX_DEVICES + 1];
    assert!(matches!(sign(&crowded), Err(RecordError::Oversize { .. })));
    let mut wordy = world.location(1);
    wordy.devices[0].addresses = vec![wordy.devices[0].addresses[0].clone(); MAX_ADDRESSES + 1];
    assert!(matches!(sign(&wordy), Err(RecordError::Oversize { .. })));
    let mut long = world.location(1);
    let relay = long.devices[0].addresses[1].clone();
    long.devices[0].addresses = vec![relay; 8];
    long.devices = vec![long.devices[0].clone(); 4];
    assert!(matches!(sign(&long), Err(RecordError::Oversize { limit: MAX_RECORD_BYTES, .. })));
    assert_eq!(world.refused(&loc("alice"), &vec![0; MAX_RECORD_BYTES + 1]), "record_oversize");
}

/// Bob signs for the slot of alice with his own certificate, hers, and one that he made.
#[test]
fn nobody_publishes_for_another() {
    let world = World::new();
    let bob = world.pki.user(&handle("bob"), 3).unwrap();
    let taken = world.location(9);
    let mut as_bob = LocationRecord { handle: handle("bob"), ..taken.clone() };
    as_bob.devices[0].peer = bob.key.peer_id();
    let own = as_bob.sign(&bob.certificate, &bob.key).unwrap();
    assert!(world.validate(&loc("bob"), &own).is_ok());
    assert_eq!(world.refused(&loc("alice"), &own), "wrong_slot");

    // The body of alice's own record under bob's certificate, signed by bob.
    let spliced = |credential: Vec<u8>, signer: &NodeKey| {
        let own =
            envelope::Envelope::decode(crate::identity::Kind::Location, &world.signed_location(9)).unwrap();
        let signature = signer.sign(crate::identity::Domain::Location, &own.signed.body);
        let bytes = |b: Vec<u8>| minicbor::bytes::ByteVec::from(b);
        let signature = minicbor::bytes::ByteArray::from(signature);
        crate::cbor::encode((4u8, bytes(credential), bytes(own.signed.body), signature))
    };
    assert!(
        world.validate(&loc("alice"), &spliced(world.alice.certificate.encode(), &world.alice.key)).is_ok()
    );
    assert_eq!(world.refused(&loc("alice"), &spliced(bob.certificate.encode(), &bob.key)), "wrong_slot");
    assert_eq!(
        world.refused(&loc("alice"), &spliced(world.alice.certificate.encode(), &bob.key)),
        "record_bad_signature"
    );
    // A certificate for alice from an authority of bob's own, of the same names.
    let validity = world.pki.validity();
    let root = crate::identity::Authority::init_root("Test Root", [7; 32], validity).unwrap();
    let enrolment = root.init_enrolment("Test Enrolment", [8; 32], 2, validity).unwrap();
    let claims = crate::identity::HandleClaims {
        keys: vec![bob.key.public()],
        ..world.alice.certificate.claims().clone()
    };
    let forged = enrolment.issue_handle(claims).unwrap();
    assert_eq!(world.refused(&loc("alice"), &spliced(forged.encode(), &bob.key)), "bad_signature");
    // The signature of another kind of record is worth nothing here: the domain is signed.
    let mut value = world.signed_location(9);
    let last = value.len() - 1;
    value[last] ^= 1;
    assert_eq!(world.refused(&loc("alice"), &value), "record_bad_signature");
}

/// RFC 8949 4.2.1: only the shortest form of a length.
#[test]
fn a_record_has_one_encoding() {
    let world = World::new();
    let value = world.signed_location(1);
    assert_eq!(value[..4], [0x84, 4, 0x59, 0x01], "array of 4, kind, byte string with a length of 16 bits");
    let longer = [&[0x84, 4, 0x5a, 0, 0], &value[3..]].concat();
    assert_eq!(world.refused(&loc("alice"), &longer), "record_malformed");
    let more = [&[0x85], &value[1..], &[0]].concat();
    assert_eq!(world.refused(&loc("alice"), &more), "record_malformed");
    assert_eq!(world.refused(&loc("alice"), &[&value[..], &[0]].concat()), "record_malformed");
}

#[test]
fn a_number_is_assigned_within_certified_prefixes_only() {
    let world = World::new();
    let value = world.signed_number("+442079460018", 4);
    let record = world.validate(&num("+442079460018"), &value).unwrap();
    assert_eq!((record.key(), record.sequence()), (num("+442079460018"), 4));
    let ValidRecord::Number(valid) = record else { panic!("a number") };
    assert_eq!(
        (valid.record, valid.writer.key().peer_id()),
        (world.number("+442079460018", 4), world.gateway.key.peer_id())
    );

    assert_eq!(world.refused(&num("+442079460019"), &value), "wrong_slot");
    assert_eq!(
        world.refused(&num("+441632960000"), &world.signed_number("+441632960000", 4)),
        "not_permitted"
    );
    let supernode = world.pki.supernode(5).unwrap();
    let by_supernode = world.number("+442079460018", 5).sign(&supernode.chain, &supernode.key).unwrap();
    assert_eq!(world.refused(&num("+442079460018"), &by_supernode), "not_permitted");
    let other_key = world.number("+442079460018", 5).sign(&world.gateway.chain, &supernode.key);
    assert_eq!(other_key.unwrap_err().as_str(), "wrong_key");
    let mut altered = value;
    let last = altered.len() - 1;
    altered[last] ^= 0x80;
    assert_eq!(world.refused(&num("+442079460018"), &altered), "record_bad_signature");
    let late =
        NumberRecord { expires_unix: NOW + NUMBER_LIFE + CLOCK_SKEW + 1, ..world.number("+442079460018", 1) };
    let late = late.sign(&world.gateway.chain, &world.gateway.key).unwrap();
    assert_eq!(world.refused(&num("+442079460018"), &late), "too_far_ahead");
}

#[test]
fn an_offer_outside_the_certificate_is_refused() {
    let world = World::new();
    let check = |slot: &str, offer: &GatewayOffer| {
        world.validate(&gw(slot), &world.sign_offer(offer)).map_err(|error| error.as_str())
    };
    let offer = world.offer();
    for slot in ["+44", "+4420"] {
        let ValidRecord::Offer(valid) = check(slot, &offer).unwrap() else { panic!("an offer") };
        assert_eq!((valid.record, valid.gateway.role), (offer.clone(), Role::Gateway));
    }
    for slot in ["+4", "+", "+1"] {
        assert_eq!(check(slot, &offer), Err("wrong_slot"), "{slot}");
    }
    let wide = |prefix: &str| GatewayOffer { prefixes: vec![prefix.parse().unwrap()], ..offer.clone() };
    assert_eq!(check("+49", &wide("+49")), Err("not_permitted"));
    assert_eq!(check("+4", &wide("+4")), Err("not_permitted"));
    assert_eq!(check("+", &wide("+")), Err("not_permitted"));
    assert!(check("+1", &wide("+1")).is_ok());
    assert_eq!(
        check("+44", &GatewayOffer { price: price(20_001, "EUR"), ..offer.clone() }),
        Err("price_above_ceiling")
    );
    assert_eq!(
        check("+44", &GatewayOffer { price: price(1, "USD"), ..offer.clone() }),
        Err("price_above_ceiling")
    );
    assert!(check("+44", &GatewayOffer { price: price(20_000, "EUR"), ..offer.clone() }).is_ok());
    assert_eq!(check("+44", &GatewayOffer { expires_unix: NOW, ..offer.clone() }), Err("record_expired"));

    let mut store = Store::new(StoreLimits::default());
    assert_eq!(
        world.put(&mut store, &gw("+44"), world.sign_offer(&offer), Source::Local),
        Err("not_storable")
    );
}

#[test]
fn the_writer_may_not_be_revoked_or_expired() {
    let mut world = World::new();
    let (location, number) = (world.signed_location(1), world.signed_number("+4420", 1));
    let slots = [(loc("alice"), location), (num("+4420"), number)];
    let mut store = Store::new(StoreLimits::default());
    for (key, value) in &slots {
        assert_eq!(world.put(&mut store, key, value.clone(), Source::Local), Ok(Stored::New));
    }
    let serial = world.alice.certificate.claims().serial;
    let list = world.pki.enrolment.revoke(None, serial, RevocationReason::KeyCompromise, NOW).unwrap();
    world.revocations.apply(SignedRevocations::decode(&list.encode()).unwrap(), &world.trust, NOW).unwrap();
    assert_eq!(world.refused(&slots[0].0, &slots[0].1), "revoked");
    assert!(world.validate(&slots[1].0, &slots[1].1).is_ok());
    assert_eq!(store.drop_revoked(&world.revocations, NOW), 1);
    assert!(
        store.get(&slots[0].0.to_bytes(), NOW).is_none() && store.get(&slots[1].0.to_bytes(), NOW).is_some()
    );
    assert_eq!((store.len(), store.counters().revoked), (1, 1));
    assert_eq!(world.put(&mut store, &slots[0].0, slots[0].1.clone(), Source::Local), Err("revoked"));
}

/// A record never outlives the certificate of its writer.
#[test]
fn a_record_ends_with_the_certificate() {
    let world = World::new();
    let end = world.pki.validity().not_after;
    let record = LocationRecord { expires_unix: end + 300, ..world.location(1) };
    let value = record.sign(&world.alice.certificate, &world.alice.key).unwrap();
    let key = loc("alice").to_bytes();
    let valid = validate(&key, &value, &world.trust, &world.revocations, end - 100).unwrap();
    assert_eq!(valid.expires_unix(), end);
    let after = validate(&key, &value, &world.trust, &world.revocations, end + 1).unwrap_err();
    assert_eq!(after.as_str(), "certificate_expired");
}

#[test]
fn the_highest_sequence_wins_whatever_the_order() {
    let world = World::new();
    let valid = |sequence, expires_unix| {
        let record = LocationRecord { expires_unix, ..world.location(sequence) };
        let value = record.sign(&world.alice.certificate, &world.alice.key).unwrap();
        world.validate(&loc("alice"), &value).unwrap()
    };
    let (old, new, newer_end) = (valid(1, NOW + 600), valid(2, NOW + 100), valid(2, NOW + 200));
    for order in [[&old, &new, &newer_end], [&newer_end, &old, &new], [&new, &newer_end, &old]] {
        let best = order.into_iter().reduce(|best, other| if other.outranks(best) { other } else { best });
        assert_eq!(best, Some(&newer_end));
    }
    assert!(!new.outranks(&new));
}

/// A sequence that nobody can surpass would keep its slot for as long as it is repeated.
#[test]
fn a_sequence_ahead_of_the_clock_is_refused() {
    let world = World::new();
    let latest = (NOW + CLOCK_SKEW) * 1000;
    assert!(world.validate(&loc("alice"), &world.signed_location(latest)).is_ok());
    assert!(world.validate(&num("+4420"), &world.signed_number("+4420", latest)).is_ok());
    for sequence in [latest + 1, u64::MAX] {
        assert_eq!(world.refused(&loc("alice"), &world.signed_location(sequence)), "sequence_ahead");
        assert_eq!(world.refused(&num("+4420"), &world.signed_number("+4420", sequence)), "sequence_ahead");
    }
}

#[test]
fn who_may_not_be_called_has_no_location() {
    let world = World::new();
    let claims = world.alice.certificate.claims().clone();
    let claims = HandleClaims { abilities: Abilities::CALL_HANDLES.with(Abilities::CALL_NUMBERS), ..claims };
    let certificate = world.pki.enrolment.issue_handle(claims).unwrap();
    let value = world.location(1).sign(&certificate, &world.alice.key).unwrap();
    assert_eq!(world.refused(&loc("alice"), &value), "not_callable");
}

/// Nothing is verified again when a list comes, so the authority above must be looked at too.
#[test]
fn everything_under_a_revoked_authority_is_dropped() {
    let mut world = World::new();
    let mut store = Store::new(StoreLimits::default());
    for (key, value) in
        [(loc("alice"), world.signed_location(1)), (num("+4420"), world.signed_number("+4420", 1))]
    {
        assert_eq!(world.put(&mut store, &key, value, Source::Local), Ok(Stored::New));
    }
    let other = world.pki.root.revoke(None, 77, RevocationReason::Superseded, NOW).unwrap();
    world.revocations.apply(other.clone(), &world.trust, NOW).unwrap();
    assert_eq!(store.drop_revoked(&world.revocations, NOW), 0);
    // The serial that the test root gives the enrolment authority.
    let list = world.pki.root.revoke(Some(&other), 2, RevocationReason::KeyCompromise, NOW).unwrap();
    world.revocations.apply(list, &world.trust, NOW).unwrap();
    assert_eq!(store.drop_revoked(&world.revocations, NOW), 2);
    assert!(store.is_empty());
}

#[test]
fn the_store_takes_only_news() {
    let world = World::new();
    let mut store = Store::new(StoreLimits::default());
    let (key, source) = (loc("alice"), remote(50, "192.0.2.1"));
    let (first, second) = (world.signed_location(5), world.signed_location(6));
    assert_eq!(world.put(&mut store, &key, first.clone(), source), Ok(Stored::New));
    assert_eq!(world.put(&mut store, &key, first.clone(), remote(51, "192.0.2.2")), Ok(Stored::Duplicate));
    assert_eq!(store.get(&key.to_bytes(), NOW).unwrap().source, source, "a duplicate refreshes nothing");
    let other = LocationRecord { expires_unix: NOW + 9, ..world.location(5) };
    let other = other.sign(&world.alice.certificate, &world.alice.key).unwrap();
    assert_eq!(world.put(&mut store, &key, other, source), Err("sequence_conflict"));
    assert_eq!(world.put(&mut store, &key, second.clone(), source), Ok(Stored::Replaced));
    assert_eq!(world.put(&mut store, &key, first, source), Err("stale_sequence"));
    assert_eq!(store.get(&key.to_bytes(), NOW).unwrap().value, second);
    let counters = store.counters();
    assert_eq!((counters.new, counters.replaced, counters.duplicates), (1, 1, 1));
    assert_eq!(counters.refused.get("stale_sequence"), Some(&1));
    assert_eq!(counters.refused.get("sequence_conflict"), Some(&1));
}

#[test]
fn a_record_verified_before_is_kept_as_any_other() {
    let world = World::new();
    let (key, source) = (loc("alice"), remote(50, "192.0.2.1"));
    let verified = |sequence| {
        let value = world.signed_location(sequence);
        Verified::check(&key.to_bytes(), value, &world.trust, &world.revocations, NOW).unwrap()
    };
    let mut store = Store::new(StoreLimits::default());
    assert_eq!(store.put_verified(verified(5), source, NOW), Ok(Stored::New));
    assert_eq!(world.put(&mut store, &key, world.signed_location(5), source), Ok(Stored::Duplicate));
    assert_eq!(store.put_verified(verified(5), source, NOW), Ok(Stored::Duplicate));
    assert_eq!(store.put_verified(verified(6), source, NOW), Ok(Stored::Replaced));
    let stale = store.put_verified(verified(5), source, NOW);
    assert_eq!(stale, Err(RecordError::StaleSequence { have: 6, got: 5 }));
    assert_eq!(store.get(&key.to_bytes(), NOW).unwrap().value, verified(6).value());
    // What was verified once does not last for ever.
    let end = NOW + LOCATION_LIFE;
    assert_eq!(store.put_verified(verified(7), source, end).unwrap_err().as_str(), "record_expired");
    assert!(store.is_empty());
    let mut full = Store::new(StoreLimits { per_peer: 0, ..StoreLimits::default() });
    assert_eq!(full.put_verified(verified(5), source, NOW), Err(RecordError::PeerQuota));
}

#[test]
fn the_highest_sequence_of_three_answers_is_chosen() {
    let world = World::new();
    let record = |sequence| world.validate(&loc("alice"), &world.signed_location(sequence)).unwrap();
    let mut choice = Choice::default();
    for (peer, sequence, newer) in [(1, 5, true), (2, 7, true), (2, 7, false)] {
        choice.answered_by(peer);
        assert_eq!(choice.offer(&record(sequence)), newer);
        assert!(!choice.is_settled(), "one peer counts once");
    }
    choice.answered_by(3);
    assert!(!choice.offer(&record(6)) && choice.is_settled());
    assert_eq!((choice.best().unwrap().sequence(), choice.answers()), (7, ENOUGH));

    let mut choice: Choice<u32> = Choice::default();
    for peer in 0..9 {
        choice.answered_by(peer);
    }
    assert!(!choice.is_settled(), "who holds nothing has not looked further");
    for _ in 0..ENOUGH {
        assert!(!choice.is_settled());
        choice.nothing_found();
    }
    assert!(choice.is_settled() && choice.best().is_none());
}

#[test]
fn what_was_read_back_confirms_the_put_or_does_not() {
    let world = World::new();
    let found = world.validate(&loc("alice"), &world.signed_location(5)).unwrap();
    let me = world.alice.key.peer_id();
    assert!(found.confirms(5, &me) && found.confirms(4, &me));
    assert!(!found.confirms(6, &me), "an older one was found");
    assert!(!found.confirms(5, &testing::key(77).peer_id()), "another device has forgotten this one");
    let number = world.validate(&num("+4420"), &world.signed_number("+4420", 3)).unwrap();
    assert!(number.confirms(3, &me) && !number.confirms(4, &me));
}

#[test]
fn the_store_forgets_what_has_ended() {
    let world = World::new();
    let mut store = Store::new(StoreLimits::default());
    let key = loc("alice");
    world.put(&mut store, &key, world.signed_location(5), remote(50, "192.0.2.1")).unwrap();
    world.put(&mut store, &num("+4420"), world.signed_number("+4420", 1), Source::Local).unwrap();
    let end = NOW + LOCATION_LIFE;
    assert!(store.get(&key.to_bytes(), end - 1).is_some() && store.get(&key.to_bytes(), end).is_none());
    assert_eq!((store.expire(end - 1), store.expire(end), store.len()), (0, 1, 1));
    assert_eq!(store.counters().expired, 1);
    assert_eq!(store.expire(NOW + NUMBER_LIFE), 1);
    assert!(store.is_empty() && store.iter().next().is_none());
}

#[test]
fn every_quota_holds_and_is_given_back() {
    let world = World::new();
    let users: Vec<(RecordKey, Vec<u8>, Vec<u8>)> = (0..5u8)
        .map(|n| {
            let name = format!("user{n}");
            let user = world.pki.user(&handle(&name), 20 + n).unwrap();
            let sign = |sequence| {
                let mut record = LocationRecord { handle: handle(&name), ..world.location(sequence) };
                record.devices[0].peer = user.key.peer_id();
                record.sign(&user.certificate, &user.key).unwrap()
            };
            (loc(&name), sign(1), sign(2))
        })
        .collect();
    let limits = |records, per_publisher, per_peer, per_address| {
        Store::new(StoreLimits { records, per_publisher, per_peer, per_address })
    };
    let put = |store: &mut Store, n: usize, source| world.put(store, &users[n].0, users[n].1.clone(), source);

    let mut store = limits(9, 9, 2, 9);
    let source = |n: u8| remote(50, &format!("192.0.2.{n}"));
    assert_eq!(put(&mut store, 0, source(0)), Ok(Stored::New));
    assert_eq!(put(&mut store, 1, source(1)), Ok(Stored::New));
    assert_eq!(put(&mut store, 2, source(2)), Err("peer_quota"));
    assert_eq!(put(&mut store, 2, Source::Local), Ok(Stored::New));
    // A newer record in its own place needs none, and one that goes gives its place back.
    assert_eq!(world.put(&mut store, &users[0].0, users[0].2.clone(), source(0)), Ok(Stored::Replaced));
    assert!(store.remove(&users[0].0.to_bytes()).is_some());
    assert_eq!(put(&mut store, 3, source(3)), Ok(Stored::New));
    assert_eq!(put(&mut store, 4, source(4)), Err("peer_quota"));
    // Nobody takes over another's place with a record that he only passes on and has no room for.
    assert_eq!(world.put(&mut store, &users[2].0, users[2].2.clone(), source(4)), Err("peer_quota"));
    assert_eq!(store.get(&users[2].0.to_bytes(), NOW).unwrap().value, users[2].1);

    let mut store = limits(9, 9, 9, 1);
    assert_eq!(put(&mut store, 0, remote(50, "2001:db8:1:2::1")), Ok(Stored::New));
    assert_eq!(put(&mut store, 1, remote(51, "2001:db8:1:2:ffff::1")), Err("address_quota"));
    assert_eq!(put(&mut store, 1, remote(51, "2001:db8:1:3::1")), Ok(Stored::New));
    assert_eq!(put(&mut store, 2, remote(52, "192.0.2.1")), Ok(Stored::New));
    assert_eq!(put(&mut store, 3, remote(53, "::ffff:192.0.2.1")), Err("address_quota"));
    assert_eq!(put(&mut store, 3, remote(53, "no address")), Ok(Stored::New));

    let mut store = limits(2, 9, 9, 9);
    assert_eq!(put(&mut store, 0, Source::Local), Ok(Stored::New));
    assert_eq!(put(&mut store, 1, Source::Local), Ok(Stored::New));
    assert_eq!(put(&mut store, 2, Source::Local), Err("store_full"));
    assert_eq!(world.put(&mut store, &users[0].0, users[0].2.clone(), Source::Local), Ok(Stored::Replaced));

    let mut store = limits(9, 1, 9, 9);
    let numbered = |store: &mut Store, text: &str, sequence| {
        world.put(store, &num(text), world.signed_number(text, sequence), Source::Local)
    };
    assert_eq!(numbered(&mut store, "+44201", 1), Ok(Stored::New));
    assert_eq!(numbered(&mut store, "+44202", 1), Err("publisher_quota"));
    assert_eq!(numbered(&mut store, "+44201", 2), Ok(Stored::Replaced));
    assert_eq!(store.expire(NOW + NUMBER_LIFE), 1);
    assert_eq!(numbered(&mut store, "+44202", 1), Ok(Stored::New));
}

#[test]
fn every_reason_has_its_own_label_and_a_remedy() {
    let at = Utc(NOW);
    let subject = || "gw".to_owned();
    let errors = [
        RecordError::BadKey,
        RecordError::Malformed,
        RecordError::Oversize { size: 1, limit: 0 },
        RecordError::WrongSlot,
        RecordError::BadSignature,
        RecordError::UnknownDevice,
        RecordError::Expired { at },
        RecordError::TooFarAhead { at },
        RecordError::SequenceAhead { sequence: 2, latest: 1 },
        RecordError::NotCallable { subject: subject() },
        RecordError::NotPermitted { subject: subject() },
        RecordError::PriceAboveCeiling { subject: subject() },
        RecordError::StaleSequence { have: 2, got: 1 },
        RecordError::Conflict { sequence: 1 },
        RecordError::NotStorable,
        RecordError::PublisherQuota,
        RecordError::PeerQuota,
        RecordError::AddressQuota,
        RecordError::StoreFull,
        RecordError::Identity(IdentityError::Replayed),
    ];
    let labels: BTreeSet<&str> = errors.iter().map(RecordError::as_str).collect();
    assert_eq!(labels.len(), errors.len());
    assert!(errors.iter().all(|error| error.to_string().contains(": ")));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..700), kind in 0u8..7) {
        let world = World::new();
        let mut framed = vec![0x84, kind];
        framed.extend_from_slice(&bytes);
        for key in [loc("alice"), num("+4420"), gw("+44")] {
            prop_assert!(world.validate(&key, &bytes).is_err());
            prop_assert!(world.validate(&key, &framed).is_err());
        }
        prop_assert_eq!(RecordKey::parse(&bytes), Err(RecordError::BadKey));
    }

    /// A body that is signed well may still hold anything.
    #[test]
    fn arbitrary_signed_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200), kind in 0usize..3) {
        use crate::identity::Domain;
        let world = World::new();
        let bytes = |b: Vec<u8>| minicbor::bytes::ByteVec::from(b);
        let (key, credential, signer, number, domain) = match kind {
            0 => (loc("alice"), world.alice.certificate.encode(), &world.alice.key, 4u8, Domain::Location),
            1 => (num("+4420"), world.gateway.chain.encode(), &world.gateway.key, 5, Domain::Number),
            _ => (gw("+44"), world.gateway.chain.encode(), &world.gateway.key, 6, Domain::Offer),
        };
        let signature = minicbor::bytes::ByteArray::from(signer.sign(domain, &body));
        let value = crate::cbor::encode((number, bytes(credential), bytes(body), signature));
        prop_assert!(world.validate(&key, &value).is_err());
    }

    #[test]
    fn every_altered_byte_is_noticed(kind in 0usize..3, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let world = World::new();
        let (key, mut value) = match kind {
            0 => (loc("alice"), world.signed_location(1)),
            1 => (num("+4420"), world.signed_number("+4420", 1)),
            _ => (gw("+44"), world.sign_offer(&world.offer())),
        };
        let at = at.index(value.len());
        value[at] ^= 1 << bit;
        prop_assert!(world.validate(&key, &value).is_err());
    }
}
