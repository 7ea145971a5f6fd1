//! The fuzz targets of the overlay and of its relay with their corpora, and with changes of these from a fixed seed.
//!
//! `CAUSEWAY_WRITE_CORPUS=1 cargo test -p p2p-edge --test fuzz` writes what the corpora begin with anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../../../fuzz/src/overlay.rs"]
mod targets;

#[path = "../../../fuzz/src/turn.rs"]
mod relay;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How many changed entries each target gets.
const CASES: u32 = 1_000;

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// Returns the corpus of a target: name and bytes, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus of {target}");
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Changes, adds, takes away or cuts off bytes at a place, or puts a piece of another entry there.
fn change(bytes: &mut Vec<u8>, other: &[u8], (kind, at, byte): (u8, usize, u8)) {
    if bytes.is_empty() {
        bytes.push(byte);
    }
    let at = at % bytes.len();
    let end = (at + 1 + usize::from(byte) / 8).min(bytes.len());
    match kind % 20 {
        0..=7 => bytes[at] = byte,
        8..=10 => bytes[at] ^= 1 << (byte % 8),
        11..=12 => bytes.insert(at, byte),
        13..=14 => drop(bytes.drain(at..end)),
        15 => bytes.truncate(at),
        16 => bytes.extend_from_within(at..end),
        17 => bytes.extend_from_slice(other),
        18 => bytes.resize(bytes.len() + usize::from(byte) * 8, byte),
        _ => {
            let from = usize::from(byte) * 7 % other.len().max(1);
            let piece = other.get(from..(from + 60).min(other.len())).unwrap_or_default().to_vec();
            bytes.splice(at..at, piece);
        }
    }
}

fn run(target: &str, takes: fn(&[u8])) {
    let corpus = corpus(target);
    for (path, bytes) in &corpus {
        assert!(std::panic::catch_unwind(|| takes(bytes)).is_ok(), "{}", path.display());
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    // Most places are at the beginning, where the parsers look.
    let place = prop_oneof![0usize..48, any::<usize>()];
    let edits = prop::collection::vec((any::<u8>(), place, any::<u8>()), 1..6);
    let outcome = runner.run(&(0..corpus.len(), 0..corpus.len(), edits), |(index, other, edits)| {
        let mut bytes = corpus[index].1.clone();
        edits.into_iter().for_each(|edit| change(&mut bytes, &corpus[other].1, edit));
        takes(&bytes);
        Ok(())
    });
    outcome.unwrap();
}

/// What the corpora begin with is what this crate writes today: an entry that nobody can read tests
/// nothing.
#[test]
fn the_corpora_begin_with_what_is_sent_today() {
    for (target, name, bytes) in targets::seeds() {
        let path = folder(target).join(&name);
        if std::env::var_os("CAUSEWAY_WRITE_CORPUS").is_some() {
            std::fs::create_dir_all(folder(target)).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let held = std::fs::read(&path).unwrap();
        // The chains of an announcement begin anew each time.
        let same = held == bytes || (target == "presence" && targets::names(&held) == targets::names(&bytes));
        assert!(same, "{}: write it anew", path.display());
    }
}

#[test]
fn streams_of_presence_are_survived_and_the_same_however_they_are_cut() {
    run("presence", targets::presence);
}

#[test]
fn texts_are_survived() {
    run("text", targets::signed_text);
}

#[test]
fn streams_of_calls_come_to_rest() {
    run("call", targets::call);
}

#[test]
fn no_record_is_valid_that_nobody_has_signed() {
    run("record", targets::record);
}

#[test]
fn no_credential_is_good_that_nobody_has_issued() {
    run("credential", targets::credential);
}

#[test]
fn no_change_of_a_list_revokes_what_nobody_has_revoked() {
    run("delta", targets::delta);
}

#[test]
fn no_backup_opens_that_was_not_sealed() {
    run("backup", targets::backup_file);
}

#[test]
fn packets_for_the_relay_are_survived() {
    run("turn", relay::turn);
}

#[test]
fn streams_of_the_relay_are_the_same_however_they_are_cut() {
    run("turn_stream", relay::turn_stream);
}

/// Each target of the corpora has a program there, so that none is forgotten.
#[test]
fn every_target_is_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let overlay = ["presence", "text", "call", "record", "credential", "delta", "backup"];
    for target in overlay.iter().chain(&["turn", "turn_stream"]) {
        assert!(root.join(target).with_extension("rs").is_file(), "{target}");
    }
}
