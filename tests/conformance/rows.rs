//! The rows of the checklist, and which tests show them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

/// One row: what a trunk must see.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// A group's letter and two digits.
    pub(crate) id: String,
    /// `>` where the gateway asks, `<` where it answers, `<>` both.
    side: String,
    what: String,
    expected: String,
    source: String,
    /// What is not done although there is a test; empty where nothing is.
    pub(crate) lacks: String,
}

const GROUPS: [(char, &str); 7] = [
    ('A', "Transactions and transport"),
    ('B', "Registration and authentication"),
    ('C', "Offer and answer, early media, forking"),
    ('D', "Hold, transfer, timers, the life of a session"),
    ('E', "Identity, privacy, numbers, attestation, emergency"),
    ('F', "Media, DTMF, fax, security"),
    ('G', "Overload, limits, operation"),
];

/// The rows in order.
pub(crate) fn rows() -> Vec<Row> {
    let lines = include_str!("rows.tsv").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            let mut next = || cells.next().unwrap_or_default();
            Row { id: next(), side: next(), what: next(), expected: next(), source: next(), lacks: next() }
        })
        .collect()
}

/// The rows that a test is named after: `d01_d02_hold...` shows D01 and D02.
pub(crate) fn rows_of(test: &str) -> Vec<String> {
    let name = test.rsplit("::").next().unwrap_or_default();
    let is_row = |word: &&str| {
        let mut letters = word.chars();
        letters.next().is_some_and(|letter| ('a'..='g').contains(&letter))
            && word.len() == 3
            && letters.all(|letter| letter.is_ascii_digit())
    };
    name.split('_').take_while(is_row).map(str::to_uppercase).collect()
}

/// The tests of each row, as the sources name them.
pub(crate) fn tests_in_sources(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap_or_default();
                let lines: Vec<&str> = text.lines().map(str::trim).collect();
                for pair in lines.windows(2) {
                    let Some(test) = pair[1].strip_prefix("fn ").and_then(|rest| rest.split('(').next())
                    else {
                        continue;
                    };
                    if pair[0].starts_with('#') {
                        for row in rows_of(test) {
                            found.entry(row).or_default().insert(test.to_owned());
                        }
                    }
                }
            }
        }
    }
    found
}

/// Whether a row holds: tests are named after it, and nothing is lacking.
pub(crate) fn holds(row: &Row, tests: &BTreeMap<String, BTreeSet<String>>) -> bool {
    row.lacks.is_empty() && tests.contains_key(&row.id)
}

/// `docs/conformance.md`.
pub(crate) fn document(tests: &BTreeMap<String, BTreeSet<String>>) -> String {
    let rows = rows();
    let held = rows.iter().filter(|row| holds(row, tests)).count();
    let mut text = format!(
        "# Conformance of the trunk side\n\n\
         Made by `make conformance` from the tests; do not edit. A row holds when tests are named after it, all of them\n\
         pass, and nothing is known to be lacking. `>` the gateway asks, `<` it answers.\n\n\
         **{held} of {} rows hold.**\n",
        rows.len()
    );
    for (letter, title) in GROUPS {
        let _ = write!(
            text,
            "\n## {letter}. {title}\n\n| row | | what is tested | expected | source | shown by |\n|---|---|---|---|---|---|\n"
        );
        for row in rows.iter().filter(|row| row.id.starts_with(letter)) {
            let shown = match tests.get(&row.id) {
                None => "**does not hold yet**".to_owned(),
                Some(tests) => {
                    let list: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
                    let lacks = match row.lacks.as_str() {
                        "" => String::new(),
                        lacks => format!("; **does not hold yet**: {lacks}"),
                    };
                    list.join(", ") + &lacks
                }
            };
            let cell = |text: &str| text.replace('|', "\\|");
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {shown} |",
                row.id,
                cell(&row.side),
                cell(&row.what),
                cell(&row.expected),
                cell(&row.source)
            );
        }
    }
    text
}
