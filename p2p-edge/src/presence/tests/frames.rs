//! The wire form.

use proptest::prelude::*;

use super::*;
use crate::presence::{Frame, FrameDecoder, Refused};

/// A frame of a device that has just come on: announcement, watch list, text.
fn frames() -> Vec<Frame> {
    let mut scene = Scene::new(1);
    let bob = scene.user("bob", 1, &["alice", "carol"])[0];
    scene.set(bob, Availability::Busy);
    let send = |client: &mut Client, now, unix| {
        client.handle_connected(now, unix, supernode(0));
        client.send_text(now, unix, handle("alice"), "hello", [7; 16]).unwrap();
        client.set(now, unix, Availability::Away, "").unwrap();
        std::iter::from_fn(|| client.poll_transmit()).collect()
    };
    scene.world.device(bob, send)
}

#[test]
fn every_frame_survives_the_wire_however_it_is_cut() {
    let frames = frames();
    let names: Vec<&str> = frames.iter().map(Frame::name).collect();
    assert_eq!(names, ["watch", "publish", "text", "change"]);
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    for size in [1, 7, 100, bytes.len()] {
        let (mut decoder, mut read) = (FrameDecoder::new(), Vec::new());
        for mut chunk in bytes.chunks(size) {
            while let Some(frame) = decoder.feed(&mut chunk).unwrap() {
                read.push(frame);
            }
        }
        assert_eq!(read, frames);
    }
}

#[test]
fn keys_of_later_versions_are_skipped_and_kinds_too() {
    let unknown = |kind: u16| {
        let mut body = Vec::new();
        let mut encoder = minicbor::Encoder::new(&mut body);
        encoder.map(3).unwrap().u8(0).unwrap().u16(kind).unwrap();
        encoder.u8(10).unwrap().u8(5).unwrap().u8(99).unwrap().str("later").unwrap();
        Frame::decode(&body)
    };
    assert_eq!(unknown(12), Ok(Frame::Forgotten));
    assert_eq!(unknown(77), Ok(Frame::Unknown { kind: 77 }));
    assert_eq!(unknown(9), Err(Refused::Malformed), "its states are missing");
}

#[test]
fn every_refusal_has_a_code_and_a_name_of_its_own() {
    let mut names: Vec<&str> = Refused::ALL.iter().map(|reason| reason.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Refused::ALL.len());
    for reason in Refused::ALL {
        let frame = Frame::Rejected { handle: handle("bob"), device: 0, reason };
        let bytes = frame.encode();
        assert_eq!(FrameDecoder::new().feed(&mut bytes.as_slice()), Ok(Some(frame)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_that_comes_panics_and_nothing_altered_is_believed(
        at in 0usize..400, flip in 1u8..=255, which in 0usize..4, junk in proptest::collection::vec(any::<u8>(), 0..64)
    ) {
        let mut noise = junk.as_slice();
        let _ = FrameDecoder::new().feed(&mut noise);
        let _ = Frame::decode(&junk);
        let mut bytes = frames().swap_remove(which).encode();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let mut rest = bytes.as_slice();
        if let Ok(Some(frame)) = FrameDecoder::new().feed(&mut rest) {
            let mut scene = Scene::new(1);
            let bob = scene.user("bob", 1, &["alice"])[0];
            let alice = scene.user("alice", 1, &["bob"])[0];
            scene.online(alice, 0);
            scene.online(bob, 0);
            scene.world.inject(bob, frame);
            scene.world.settle();
            // Of the last one every byte counts.
            prop_assert!(which != 3 || scene.shown(alice, "bob") == Availability::Available, "{at} {flip}");
        }
    }
}
