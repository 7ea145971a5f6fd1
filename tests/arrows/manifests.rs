//! Dependencies between the crates of the workspace.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// Each crate of the workspace and those it may depend on. `tests` may use all of them.
pub(crate) const ARROWS: [(&str, &[&str]); 9] = [
    ("call-model", &[]),
    ("p2p-edge", &["call-model"]),
    ("sip-trunk", &["call-model"]),
    ("transcoder", &["call-model"]),
    ("ledger", &["call-model"]),
    ("admin-api", &["call-model"]),
    ("gateway", &["call-model", "p2p-edge", "sip-trunk", "transcoder", "ledger", "admin-api"]),
    ("peer", &["call-model", "p2p-edge", "transcoder"]),
    (
        "tests",
        &["call-model", "p2p-edge", "sip-trunk", "transcoder", "ledger", "admin-api", "gateway", "peer"],
    ),
];

/// Checks the workspace in `folder`, dependencies of tests and builds included; the error names every wrong one.
pub(crate) fn check_arrows(folder: &Path) -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let mut wrong = Vec::new();
    let packages = metadata["packages"].as_array().context("no packages")?;
    ensure!(packages.len() > 5, "the workspace has only {} crates", packages.len());
    for package in packages {
        let name = package["name"].as_str().context("no name")?;
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_name, _)| *crate_name == name) else {
            wrong.push(format!("{name} is not in the table of arrows"));
            continue;
        };
        let dependencies = package["dependencies"].as_array().context("no dependencies")?;
        for dependency in dependencies.iter().filter(|dependency| dependency["path"].is_string()) {
            let to = dependency["name"].as_str().context("no name")?;
            if !allowed.contains(&to) {
                wrong.push(format!("{name} must not depend on {to}"));
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// Copies the workspace's manifests to `to`, with one more dependency; sources are linked.
pub(crate) fn copy_with_edge(root: &Path, to: &Path, from: &str, dependency: &str) -> Result<()> {
    fs::copy(root.join("Cargo.toml"), to.join("Cargo.toml"))?;
    for (name, _) in ARROWS.iter().filter(|(name, _)| root.join(name).is_dir()) {
        fs::create_dir(to.join(name))?;
        for entry in fs::read_dir(root.join(name))?.flatten() {
            let copy = to.join(name).join(entry.file_name());
            if entry.file_name() != "Cargo.toml" {
                symlink(entry.path(), copy)?;
                continue;
            }
            let mut manifest = fs::read_to_string(entry.path())?;
            let line = format!("{dependency}.workspace = true");
            if *name == from && !manifest.contains(&line) {
                ensure!(manifest.contains("[dependencies]"), "{name} has no dependencies");
                manifest = manifest.replacen("[dependencies]", &format!("[dependencies]\n{line}"), 1);
            }
            fs::write(copy, manifest)?;
        }
    }
    Ok(())
}
