//! The keys under which a record is kept more than once.

use super::*;

#[test]
fn each_copy_has_one_key_and_holds_the_same() {
    let scene = World::new();
    for (key, value) in [
        (loc("alice"), scene.signed_location(1)),
        (num("+442079460018"), scene.signed_number("+442079460018", 1)),
    ] {
        let copies = key.all_copies();
        assert_eq!(copies.len(), usize::from(COPIES));
        let mut store = Store::new(StoreLimits::default());
        for (at, copy) in copies.iter().enumerate() {
            assert_eq!(RecordKey::parse_copy(copy), Ok((key.clone(), at as u8)));
            assert_eq!(RecordKey::parse(copy).is_ok(), at == 0);
            let put = store.put(copy, value.clone(), Source::Local, &scene.trust, &scene.revocations, NOW);
            assert_eq!(put, Ok(Stored::New));
        }
        assert_eq!(store.len(), copies.len());
    }
    for bad in [
        "/causeway/loc/alice#0",
        "/causeway/loc/alice#2",
        "/causeway/loc/alice#01",
        "/causeway/loc/alice#",
        "/causeway/loc/alice#1#1",
        "/causeway/gw/+44#1",
        "/causeway/loc/#1",
    ] {
        assert_eq!(RecordKey::parse_copy(bad.as_bytes()), Err(RecordError::BadKey), "{bad}");
    }
    // The slot of another is another's in every copy.
    let value = scene.signed_location(1);
    let refused = validate(&loc("bob").to_copy_bytes(1), &value, &scene.trust, &scene.revocations, NOW);
    assert_eq!(refused.unwrap_err(), RecordError::WrongSlot);
}
