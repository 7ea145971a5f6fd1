//! The fuzz targets of the media with their corpora, and with changes of these from a fixed seed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../../../fuzz/src/media.rs"]
mod targets;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How many changed entries each target gets.
const CASES: u32 = 500;

/// Returns the corpus of a target: name and bytes, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Changes, adds, takes away or cuts off bytes at a place, or makes the datagram longer than any.
fn change(bytes: &mut Vec<u8>, (kind, at, byte): (u8, usize, u8)) {
    if bytes.is_empty() {
        bytes.push(byte);
    }
    let at = at % bytes.len();
    match kind % 16 {
        0..=7 => bytes[at] = byte,
        8..=9 => bytes[at] ^= 1 << (byte % 8),
        10..=11 => bytes.insert(at, byte),
        12..=13 => drop(bytes.remove(at)),
        14 => bytes.truncate(at),
        _ => bytes.resize(bytes.len() + usize::from(byte) * 8, byte),
    }
}

fn run(target: &str, takes: fn(&[u8])) {
    let corpus = corpus(target);
    for (path, bytes) in &corpus {
        assert!(std::panic::catch_unwind(|| takes(bytes)).is_ok(), "{}", path.display());
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    // Most places are in the header, where the parsers look.
    let place = prop_oneof![0usize..32, any::<usize>()];
    let edits = prop::collection::vec((any::<u8>(), place, any::<u8>()), 1..8);
    let outcome = runner.run(&(0..corpus.len(), edits), |(index, edits)| {
        let mut bytes = corpus[index].1.clone();
        edits.into_iter().for_each(|edit| change(&mut bytes, edit));
        takes(&bytes);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn rtp_is_survived() {
    run("rtp", targets::rtp);
}

#[test]
fn rtcp_is_survived() {
    run("rtcp", targets::rtcp);
}

#[test]
fn redundancy_is_survived_and_what_is_read_can_be_written() {
    run("redundancy", targets::redundancy);
}

#[test]
fn srtp_without_the_key_gets_nowhere() {
    run("srtp", targets::srtp);
}

#[test]
fn f20_dtls_without_the_certificate_gets_nowhere() {
    run("dtls", targets::dtls);
}

#[test]
fn strangers_on_the_overlays_port_are_not_answered() {
    run("stun", targets::stun);
}
