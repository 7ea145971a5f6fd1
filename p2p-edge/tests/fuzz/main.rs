//! The fuzz targets of the relay with their corpora, and with changes of these from a fixed seed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../../../fuzz/src/turn.rs"]
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
fn packets_for_the_relay_are_survived() {
    run("turn", targets::turn);
}

#[test]
fn streams_are_the_same_however_they_are_cut() {
    run("turn_stream", targets::turn_stream);
}

/// Each target of the corpora has a program there, so that none is forgotten.
#[test]
fn every_target_is_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    for target in ["turn", "turn_stream"] {
        assert!(root.join(target).with_extension("rs").is_file(), "{target}");
    }
}
