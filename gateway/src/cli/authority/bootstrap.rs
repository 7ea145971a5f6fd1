//! The signed list of supernodes to join by.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use p2p_edge::identity::{BootstrapList, SignedBootstrap, Utc, Validity};

use super::{now, root};

/// Signs a list with the key of the root. It has a higher sequence than the one that it replaces, and
/// than any of before: the time in seconds, unless the clock was ahead.
pub(super) fn sign(
    dir: &Path,
    (nodes, names, mirrors): (&[String], &[String], &[String]),
    days: u64,
    out: &Path,
) -> Result<String> {
    let root = root(dir)?;
    let before = match fs::read_to_string(out) {
        Ok(text) => {
            let kept = || format!("{}: move it away first, or write elsewhere", out.display());
            let before = SignedBootstrap::from_pem(&text).with_context(kept)?;
            Some(before.sequence())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).context(out.display().to_string()),
    };
    let unix = now();
    let sequence = before.map_or(unix, |before| unix.max(before.saturating_add(1)));
    let list = BootstrapList::new(sequence, Validity::days_from(unix, days), nodes, names, mirrors)?;
    let end = list.validity.not_after;
    let text = root.sign_bootstrap(list)?.to_pem();
    let part = out.with_extension("part");
    fs::write(&part, text).with_context(|| part.display().to_string())?;
    fs::rename(&part, out).with_context(|| out.display().to_string())?;
    Ok(format!(
        "{}: list {sequence} of {} nodes, good until {}: put it into packages (overlay.join.list_file) and onto mirrors\n",
        out.display(),
        nodes.len(),
        Utc(end)
    ))
}
