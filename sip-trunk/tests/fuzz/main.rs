//! The fuzz targets with their corpora, and with changes of these from a fixed seed.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How many changed entries each target gets.
const CASES: u32 = 1_500;

/// Returns the corpus of a target: name and bytes, by name.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Changes bytes at a place; pieces of other entries are spliced in.
fn change(bytes: &mut Vec<u8>, other: &[u8], (kind, at, byte): (u8, usize, u8)) {
    if bytes.is_empty() {
        bytes.push(byte);
    }
    let at = at % bytes.len();
    let end = (at + 1 + usize::from(byte) / 8).min(bytes.len());
    match kind % 24 {
        0..=7 => bytes[at] = byte,
        8..=11 => bytes.insert(at, byte),
        12..=14 => drop(bytes.drain(at..end)),
        15..=17 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        18..=20 => {
            let from = usize::from(byte) * 7 % other.len().max(1);
            let piece = other.get(from..(from + 40).min(other.len())).unwrap_or_default().to_vec();
            bytes.splice(at..at, piece);
        }
        21 => bytes.truncate(at),
        22 => bytes.splice(at..at, b"99999999999999999999".iter().copied()).for_each(drop),
        _ => bytes
            .splice(at..at, [b"\r\n", b"\0\xff", b";;", b"%%", b",,", b"\"<"][at % 6].iter().copied())
            .for_each(drop),
    }
}

fn run(target: &str, takes: fn(&[u8])) {
    let corpus = corpus(target);
    for (path, bytes) in &corpus {
        let survived = std::panic::catch_unwind(|| takes(bytes));
        assert!(survived.is_ok(), "{}", path.display());
    }
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let edits = prop::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..8);
    let entries = (0..corpus.len(), 0..corpus.len(), edits);
    let outcome = runner.run(&entries, |(index, other, edits)| {
        let mut bytes = corpus[index].1.clone();
        edits.into_iter().for_each(|edit| change(&mut bytes, &corpus[other].1, edit));
        takes(&bytes);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn messages_are_survived() {
    run("message", targets::message);
}

#[test]
fn streams_are_the_same_however_they_are_cut() {
    run("stream", targets::stream);
}

#[test]
fn uris_survive_being_written() {
    run("uri", targets::uri);
}

#[test]
fn headers_are_survived() {
    run("headers", targets::headers);
}

#[test]
fn registrations_stay_within_bounds() {
    run("register", targets::register);
}

#[test]
fn digests_are_survived_and_not_guessed() {
    run("digest", targets::digest);
}

#[test]
fn descriptions_are_survived_and_answered_in_kind() {
    run("sdp", targets::sdp);
}

/// Each target of the corpora has a function here and a program there, so that none is forgotten.
#[test]
fn every_target_is_replayed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let names = |folder: &str| {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            // Those of the media are replayed by the transcoder's tests, those of the overlay and its relay by p2p-edge's.
            .filter(|name| !["dtls", "redundancy", "rtcp", "rtp", "srtp", "stun"].contains(&name.as_str()))
            .filter(|name| !["presence", "text", "call", "record", "credential"].contains(&name.as_str()))
            .filter(|name| !["delta", "backup", "turn", "turn_stream"].contains(&name.as_str()))
            .collect();
        names.sort();
        names
    };
    let replayed = ["digest", "headers", "message", "register", "sdp", "stream", "uri"];
    assert_eq!(
        (names("corpus"), names("fuzz_targets")),
        (replayed.map(str::to_owned).to_vec(), replayed.map(str::to_owned).to_vec())
    );
}
