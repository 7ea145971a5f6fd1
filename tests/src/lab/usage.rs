//! What processes use of this machine, as the system counts it.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context as _, Result};

/// Clock ticks a second in which `/proc` counts processor time, on every architecture of Linux.
const TICKS: f64 = 100.0;

/// Returns the seconds of processor time that a process has used so far, user and system, of all its threads.
///
/// # Errors
/// When there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = after_name(&stat).context("unknown form of stat")?;
    ticks(fields.get(11..13).context("unknown form of stat")?)
}

/// Returns the ids of a process and of all its descendants.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn family(pid: u32) -> Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that ends meanwhile is no member.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        let parent = after_name(&stat).and_then(|fields| fields.get(1)?.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(child);
    }
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(parent) = all.get(next) {
        all.extend(children.remove(parent).unwrap_or_default());
        next += 1;
    }
    Ok(all)
}

/// Returns the seconds that all processors together have worked since the start of the machine.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn machine_seconds() -> Result<f64> {
    // user, nice, system; then idle and waiting, which are no work; then interrupts.
    machine(&[0, 1, 2, 5, 6])
}

/// Returns the seconds that the host of a virtual machine gave to others while this one had work, of all processors.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn stolen_seconds() -> Result<f64> {
    machine(&[7])
}

/// Returns the resident memory of a process in MB of 10^6 octets.
///
/// # Errors
/// When there is no such process.
pub fn resident_megabytes(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}

/// Returns the value in the middle; 0 for none.
#[must_use]
pub fn median(values: Vec<f64>) -> f64 {
    quantile(values, 0.5)
}

/// Returns the value below which the share `q` of the values lies; 0 for none.
#[must_use]
pub fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let at = last as f64 * q;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Returns the slope of the line that fits best, by least squares; none for fewer than two values of x.
#[must_use]
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        (above + (point.0 - x) * (point.1 - y), below + (point.0 - x).powi(2))
    });
    (below > 0.0).then(|| above / below)
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything; the state is the first.
fn after_name(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

/// The sum of some fields of the first line of `/proc/stat`.
fn machine(wanted: &[usize]) -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<&str> = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).collect();
    let wanted: Vec<&str> = wanted.iter().filter_map(|&index| fields.get(index).copied()).collect();
    ticks(&wanted)
}

fn ticks(fields: &[&str]) -> Result<f64> {
    let ticks = fields.iter().map(|field| field.parse::<f64>()).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn quantiles_lie_between_the_values() {
        assert!((quantile(vec![3.0, 1.0, 2.0], 0.5) - 2.0).abs() < 1e-9);
        assert!((quantile(vec![0.0, 10.0], 0.25) - 2.5).abs() < 1e-9);
        assert!(median(Vec::new()).abs() < 1e-9);
    }

    #[test]
    fn the_slope_is_that_of_the_line() {
        let points = [(1000.0, 30.0), (2000.0, 50.0), (3000.0, 70.0)];
        assert!(slope(&points).is_some_and(|slope| (slope - 0.02).abs() < 1e-12));
        assert_eq!(slope(&points[..1]), None);
        assert_eq!(slope(&[]), None);
    }

    #[test]
    fn children_belong_to_the_family() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let all = family(std::process::id()).unwrap();
        let _ = child.kill();
        let _ = child.wait();
        assert!(all.contains(&std::process::id()) && all.contains(&child.id()));
        assert!(!all.contains(&1) || std::process::id() == 1);
    }

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = std::process::id();
        assert!(cpu_seconds(own).unwrap() <= machine_seconds().unwrap());
        assert!(stolen_seconds().unwrap() >= 0.0);
        assert!(resident_megabytes(own).unwrap() > 0.1);
    }
}
