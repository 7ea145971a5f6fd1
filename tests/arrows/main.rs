//! The shape of the tree, checked: which crate may depend on which, where foreign crates may be named, what pure code
//! may not touch. See ARCHITECTURE.md.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod manifests;
mod sources;

use std::{fs, path::Path};

use manifests::{ARROWS, check_arrows};
use sources::{Source, rust_sources, text_files};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Fails with one line per finding.
fn none_of(findings: Vec<String>, rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n{}", findings.join("\n"));
}

#[test]
fn dependencies_run_one_way() {
    check_arrows(root()).unwrap();
}

#[test]
fn a_wrong_dependency_is_noticed() {
    for (from, to) in [("sip-trunk", "transcoder"), ("call-model", "gateway"), ("peer", "sip-trunk")] {
        let folder = tempfile::tempdir().unwrap();
        manifests::copy_with_edge(root(), folder.path(), from, to).unwrap();
        let error = check_arrows(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{from} must not depend on {to}")), "{error}");
    }
}

#[test]
fn a_copy_without_a_wrong_dependency_passes() {
    let folder = tempfile::tempdir().unwrap();
    manifests::copy_with_edge(root(), folder.path(), "gateway", "call-model").unwrap();
    check_arrows(folder.path()).unwrap();
}

#[test]
fn the_sip_message_crate_stays_behind_its_facade() {
    let allowed = ["sip-trunk/src/wire", "sip-trunk/src/transaction"];
    let findings = rust_sources(root())
        .iter()
        .filter(|source| !allowed.iter().any(|folder| source.is_in(folder)))
        .flat_map(|source| source.lines_with("sipx_sip"))
        .collect();
    none_of(findings, "sipx_sip may be named only in sip-trunk's wire and transaction");
}

#[test]
fn libp2p_stays_in_the_overlay_node() {
    let findings = rust_sources(root())
        .iter()
        .filter(|source| !source.is_in("p2p-edge"))
        .flat_map(|source| source.lines_with("libp2p::"))
        .collect();
    none_of(findings, "libp2p may be named only in p2p-edge");
}

#[test]
fn dns_is_asked_in_two_places() {
    let findings = rust_sources(root())
        .iter()
        .filter(|source| {
            let places = [
                "gateway/src/driver/resolve.rs",
                "gateway/src/driver/resolve",
                "p2p-edge/src/node/bootstrap/dns.rs",
            ];
            !places.iter().any(|place| source.is_in(place))
        })
        .flat_map(|source| source.lines_with("hickory_resolver"))
        .collect();
    none_of(
        findings,
        "hickory_resolver may be named only in the gateway's driver/resolve.rs and where nodes are asked for",
    );
}

#[test]
fn unsafe_code_is_forbidden_but_in_the_codecs_and_where_sockets_are_read_in_batches() {
    let allowed = ["transcoder/src/codec", "gateway/src/driver/batch.rs", "gateway/src/driver/ring.rs"];
    let findings = rust_sources(root())
        .iter()
        .filter(|source| !allowed.iter().any(|place| source.is_in(place)))
        .flat_map(|source| source.lines_with("allow(unsafe_code)"))
        .collect();
    none_of(findings, "unsafe code may be allowed only in the codecs and where sockets are read in batches");
    let with_unsafe = ["transcoder/src/lib.rs", "gateway/src/lib.rs"];
    let findings = ARROWS
        .iter()
        .filter(|(name, _)| root().join(name).is_dir())
        .flat_map(|(name, _)| crate_roots(name))
        .filter(|source| !with_unsafe.iter().any(|name| source.name == *name))
        .filter(|source| !source.code().contains("#![forbid(unsafe_code)]"))
        .map(|source| source.name)
        .collect();
    none_of(findings, "#![forbid(unsafe_code)] is missing");
}

/// The library of a crate and its programs.
fn crate_roots(name: &str) -> Vec<Source> {
    let (library, programs) = (format!("{name}/src/lib.rs"), format!("{name}/src/bin"));
    let is_root = |source: &Source| {
        source.name == library
            || source.name == format!("{name}/src/main.rs")
            || Path::new(&source.name).parent().is_some_and(|folder| folder == Path::new(&programs))
    };
    rust_sources(root()).into_iter().filter(is_root).collect()
}

/// Whole crates without I/O, and the folders without it of a crate that has some.
const PURE: [&str; 10] = [
    "call-model/src",
    "sip-trunk/src",
    "transcoder/src",
    "p2p-edge/src/identity",
    "p2p-edge/src/record",
    "p2p-edge/src/bootstrap",
    "p2p-edge/src/routing.rs",
    "p2p-edge/src/calling",
    "p2p-edge/src/presence",
    "p2p-edge/src/turn",
];

#[test]
fn pure_code_has_no_clock_no_sockets_and_no_threads() {
    const BANNED: [&str; 9] = [
        "Instant::now",
        "SystemTime::now",
        "tokio::",
        "thread::sleep",
        "thread::spawn",
        "UdpSocket",
        "TcpStream",
        "TcpListener",
        "std::fs",
    ];
    let findings = rust_sources(root())
        .iter()
        .filter(|source| PURE.iter().any(|folder| source.is_in(folder)))
        .flat_map(|source| BANNED.iter().flat_map(|word| source.lines_with(word)))
        .collect();
    none_of(findings, "time, sockets and threads stay outside pure code");
}

#[test]
fn no_source_file_grows_past_700_lines() {
    let findings = rust_sources(root())
        .iter()
        .filter(|source| !source.is_in("tests") && source.length() > 700)
        .map(|source| format!("{}: {} lines", source.name, source.length()))
        .collect();
    none_of(findings, "split these files");
}

#[test]
fn the_tree_names_no_machine_it_was_made_on() {
    // In halves, so that this file does not find itself.
    let words = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    let findings = text_files(root())
        .iter()
        .flat_map(|(name, text)| {
            text.lines().enumerate().flat_map(move |(index, line)| {
                let found = words.iter().find(|word| line.contains(*word));
                found.map(|word| format!("{name}:{}: {word}", index + 1))
            })
        })
        .collect();
    none_of(findings, "these names mean nothing elsewhere");
}

#[test]
fn every_crate_with_its_own_clippy_rules_repeats_the_shared_ones() {
    // A clippy.toml of a crate replaces the root's.
    let shared = fs::read_to_string(root().join("clippy.toml")).unwrap();
    let lines: Vec<_> =
        shared.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).collect();
    assert!(!lines.is_empty());
    for name in ["call-model", "sip-trunk", "transcoder"] {
        let own = fs::read_to_string(root().join(name).join("clippy.toml")).unwrap();
        for line in &lines {
            assert!(own.contains(line), "{name}/clippy.toml lacks: {line}");
        }
        assert!(own.contains("std::time::Instant::now"), "{name}/clippy.toml does not ban the clock");
    }
}
