//! What was seen, as a page.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::Arguments;
use crate::scenario::{Act, Calls, quantile};

const HEAD: &str = "# What the overlay survives

Written by `make overlay-resilience`: supernodes, a process each, in two halves of a network (namespaces joined by a bridge), and users
who listen nowhere, so that every call and text goes through relays. All the time users look each other up, ten times a second for each
of those who do nothing else. Then, one after the other:

1. half of the supernodes of each half are killed at once, the first ones among them, under calls and look-ups;
2. fresh nodes join while four of six ways of finding the network are blocked, by every two that are left (the sixth, the local network,
   has a test of its own);
3. those killed come back, but for the two that everybody was told of: they know others from disk;
4. the bridge is cut. Calls within a half go on, and everybody finds whoever is in the same half. A user moves to the other half meanwhile;
5. the bridge is back. It is healed when everybody finds everybody, and the one who moved where it is now.

A call counts as lost if one end of it has ended by itself; each end sends a text after each blow, which has to come. Media goes from
user to user, past the overlay. With `--silent` those killed are as a machine without power: nothing refuses a connection to them. What
makes this hold is in [decisions/0015](decisions/0015-what-a-call-survives.md).
";

/// All that is told.
pub(crate) struct Story<'a> {
    pub(crate) arguments: &'a Arguments,
    pub(crate) acts: &'a [Act],
    pub(crate) calls: &'a Calls,
    /// Which two ways were open, and what came of them.
    pub(crate) joined: &'a [(String, Value)],
    pub(crate) rejoined: f64,
    pub(crate) healed: f64,
}

/// Writes the page.
pub(crate) fn write(path: &Path, story: &Story<'_>) -> Result<()> {
    let Story { arguments, acts, calls, joined, rejoined, healed } = story;
    let mut page = format!("{HEAD}\n## Seen\n\n| | |\n|---|---|\n");
    let mut row = |what: &str, seen: String| {
        let _ = writeln!(page, "| {what} | {seen} |");
    };
    row("supernodes; calls", format!("{}; {}", 2 * arguments.supernodes, 3 * arguments.calls));
    row("seconds apart", arguments.apart.to_string());
    row("those killed", if arguments.silent { "silent" } else { "gone" }.to_owned());
    row("calls lost; texts that did not come", format!("{}; {}", calls.lost, calls.texts_lost));
    row("ends of calls that fell silent", calls.silent.to_string());
    row("the slowest supernode to come back", format!("{rejoined:.1} s"));
    row("until everybody found everybody, once joined", format!("{healed:.1} s"));
    page.push_str("\n| act | look-ups | failed | median, ms | 99 %, ms |\n|---|---|---|---|---|\n");
    for act in *acts {
        let (p50, p99) = (quantile(&act.first, 0.5), quantile(&act.first, 0.99));
        let _ = writeln!(page, "| {} | {} | {} | {p50:.1} | {p99:.1} |", act.name, act.looked, act.failed);
    }
    page.push_str("\n| ways that were open | joined after, s | by |\n|---|---|---|\n");
    for (open, told) in *joined {
        let by: Vec<&str> = told["by"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let took = told["took_s"].as_f64().unwrap_or(f64::NAN);
        let _ = writeln!(page, "| {open} | {took:.2} | {} |", by.join(", "));
    }
    std::fs::write(path, page).with_context(|| path.display().to_string())
}
