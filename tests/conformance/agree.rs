//! `docs/conformance.md` says what the tests say.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod rows;

use std::{collections::BTreeSet, fs, path::Path};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn there_are_145_rows_and_each_stands_once() {
    let rows = rows::rows();
    let ids: BTreeSet<&String> = rows.iter().map(|row| &row.id).collect();
    assert_eq!((rows.len(), ids.len()), (145, 145));
}

#[test]
fn a_test_says_which_rows_it_shows() {
    assert_eq!(rows::rows_of("holds::d01_d02_d03_hold_is_answered"), ["D01", "D02", "D03"]);
    assert_eq!(rows::rows_of("a05_cancel"), ["A05"]);
    for none in ["a_call", "h01_nothing", "a5_short", "answers_a01"] {
        assert!(rows::rows_of(none).is_empty(), "{none}");
    }
}

#[test]
fn every_row_that_a_test_is_named_after_exists() {
    let rows = rows::rows();
    for (row, tests) in rows::tests_in_sources(root()) {
        assert!(rows.iter().any(|known| known.id == row), "{row}: {tests:?}");
    }
}

#[test]
fn the_document_agrees_with_the_tests() {
    let written = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let tests = rows::tests_in_sources(root());
    assert!(
        written == rows::document(&tests),
        "docs/conformance.md is of another state: run `make conformance`"
    );
    let held = rows::rows().iter().filter(|row| rows::holds(row, &tests)).count();
    assert!(written.contains(&format!("**{held} of 145 rows hold.**")));
}
