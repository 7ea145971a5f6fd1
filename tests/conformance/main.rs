//! `make conformance`: runs every test that is named after a row of the checklist, writes `docs/conformance.md`, and
//! says how many rows hold.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "it is a program that shows something")]

mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("causeway-conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no root")?;
    let mut passed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut failed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (program, folder) in programs(root)? {
        for (test, good) in play(&program, &folder)? {
            for row in rows::rows_of(&test) {
                if good { &mut passed } else { &mut failed }.entry(row).or_default().insert(test.clone());
            }
        }
    }
    let all = rows::rows();
    let named = rows::tests_in_sources(root);
    let known = |row: &String| all.iter().any(|known| known.id == *row);
    let strangers: Vec<&String> = named.keys().filter(|row| !known(row)).collect();
    ensure!(strangers.is_empty(), "tests are named after rows that do not exist: {strangers:?}");
    let (mut held, mut broken) = (0, 0);
    for row in &all {
        let verdict = if failed.contains_key(&row.id) {
            broken += 1;
            "FAILED"
        } else if !passed.contains_key(&row.id) {
            "not yet"
        } else if row.lacks.is_empty() {
            held += 1;
            "holds"
        } else {
            "in part"
        };
        let tests = passed.get(&row.id).map_or(0, BTreeSet::len);
        println!(
            "{}  {verdict:<8} {tests} tests{}{}",
            row.id,
            if row.lacks.is_empty() { "" } else { "; lacks: " },
            row.lacks
        );
    }
    for (row, tests) in &failed {
        println!("{row} failed: {}", tests.iter().cloned().collect::<Vec<_>>().join(", "));
    }
    fs::write(root.join("docs/conformance.md"), rows::document(&named))?;
    println!("RESULT conformance rows={} hold={held} fail={broken}", all.len());
    Ok(broken == 0)
}

/// The test programs of the workspace, each with the folder it runs in.
fn programs(root: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--workspace", "--lib", "--bins", "--tests", "--no-run", "--message-format=json"])
        .current_dir(root)
        .output()
        .context("cargo test")?;
    ensure!(output.status.success(), "the tests do not build: {}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let built = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(built
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| {
            let folder = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
            Some((PathBuf::from(message["executable"].as_str()?), folder))
        })
        .collect())
}

/// Runs the tests of a program that are named after rows, and tells of each whether it passed.
fn play(program: &Path, folder: &Path) -> Result<Vec<(String, bool)>> {
    let list = Command::new(program).args(["--list", "--format", "terse"]).current_dir(folder).output()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let tests: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .filter(|test| !rows::rows_of(test).is_empty())
        .collect();
    if tests.is_empty() {
        return Ok(Vec::new());
    }
    // One after the other: some run networks in real time.
    let arguments = ["--exact", "--test-threads=1"];
    let output = Command::new(program).args(arguments).args(&tests).current_dir(folder).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcome = |test: &&str| {
        let good = said.contains(&format!("test {test} ... ok"));
        ((*test).rsplit("::").next().unwrap_or(test).to_owned(), good)
    };
    Ok(tests.iter().map(outcome).collect())
}
