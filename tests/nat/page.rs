//! `docs/nat.md`: what was seen.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::cases::{Kind, Outcome, TELEPHONE};
use crate::sites::{SITES, Site};

const HEAD: &str = include_str!("page.md");

/// Writes the page.
pub(crate) fn write(path: &Path, outcomes: &[Outcome]) -> Result<()> {
    let mut text = HEAD.to_owned();
    let network =
        |user: &str| SITES.iter().find(|site| site.user == user).map_or("", |site: &Site| site.network);
    let voices = |outcome: &Outcome| {
        outcome.voices.iter().map(|voice| format!("{voice:.2}")).collect::<Vec<_>>().join(", ")
    };
    let of = |kind: Kind| outcomes.iter().filter(move |outcome| outcome.kind == kind);
    writeln!(
        text,
        "\n## Users and telephones\n\n| network of the user | user calls | heard | telephone calls | heard |"
    )?;
    writeln!(text, "|---|---|---|---|---|")?;
    for (to, from) in of(Kind::ToNumber).zip(of(Kind::FromNumber)) {
        let (network, to_voices, from_voices) = (network(&to.caller), voices(to), voices(from));
        writeln!(text, "| {network} | {} | {to_voices} | {} | {from_voices} |", way(to), way(from))?;
    }
    writeln!(
        text,
        "\n## Users and users\n\n| caller | called | media | heard | set-up |\n|---|---|---|---|---|"
    )?;
    for outcome in of(Kind::Users) {
        let (caller, called) = (network(&outcome.caller), network(&outcome.called));
        let (way, heard) = (way(outcome), voices(outcome));
        writeln!(text, "| {caller} | {called} | {way} | {heard} | {} ms |", outcome.setup_ms)?;
    }
    writeln!(
        text,
        "\n## A NAT that forgets\n\n| user | other side | media afterwards | heard |\n|---|---|---|---|"
    )?;
    for outcome in of(Kind::Rebind) {
        let (caller, way, heard) = (network(&outcome.caller), way(outcome), voices(outcome));
        let other = if outcome.called == TELEPHONE { "telephone" } else { network(&outcome.called) };
        writeln!(text, "| {caller} | {other} | {way} | {heard} |")?;
    }
    std::fs::write(path, text)?;
    Ok(())
}

/// How media went: addresses of the laboratory say nothing to a reader.
fn way(outcome: &Outcome) -> String {
    if !outcome.relayed {
        return "direct".to_owned();
    }
    let hops = outcome.way.split(" and ").filter_map(|hop| hop.split(' ').next());
    format!(
        "relayed, {}",
        hops.map(|hop| format!("TURN/{}", hop.to_uppercase())).collect::<Vec<_>>().join(" and ")
    )
}
