//! PESQ, in a Python made for the occasion.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tests::audio::Audio;

use crate::script::RATE;

/// What to do where the environment cannot be made.
const ADVICE: &str = "PESQ needs Python 3.11 or later with its headers, venv and pip (Debian, Ubuntu: apt-get install \
                      python3-venv python3-dev), a C compiler and PyPI; or name a Python that has what \
                      tests/quality/requirements.txt lists by --python";

/// Makes a virtual environment with PESQ in a folder and returns its Python.
pub(crate) fn environment(folder: &Path) -> Result<PathBuf> {
    let venv = folder.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv)).context(ADVICE)?;
    let python = venv.join("bin/python");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(install).arg(beside("requirements.txt"))).context(ADVICE)?;
    Ok(python)
}

/// A file of this program's sources.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("quality").join(name)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Judges recordings, each against what was said: MOS-LQO of each, in order.
pub(crate) fn judge(python: &Path, folder: &Path, pairs: &[(&[i16], &[i16])]) -> Result<Vec<f64>> {
    let mut list = String::new();
    for (index, (said, heard)) in pairs.iter().enumerate() {
        let names = ["said", "heard"].map(|name| folder.join(format!("{index:04}-{name}.wav")));
        for (path, samples) in names.iter().zip([said, heard]) {
            let samples = samples.iter().map(|&sample| f32::from(sample) / 32_768.0).collect();
            Audio { rate: RATE, samples }.write_wav(path)?;
        }
        list += &format!("{}\t{}\n", names[0].display(), names[1].display());
    }
    let mut command = Command::new(python);
    command.arg(beside("judge.py")).arg("judge").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("python")?;
    // It reads all before it writes anything.
    child.stdin.take().context("no standard input")?.write_all(list.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "judge.py could not judge");
    let values: Vec<f64> =
        String::from_utf8(output.stdout)?.lines().map(str::parse).collect::<Result<_, _>>()?;
    if values.len() != pairs.len() {
        bail!("{} of {} pairs were judged", values.len(), pairs.len());
    }
    Ok(values)
}

/// Draws a table that [`crate::table::Table::lines`] wrote.
pub(crate) fn draw(python: &Path, folder: &Path, lines: &str, picture: &Path) -> Result<()> {
    let table = folder.join("table.tsv");
    std::fs::write(&table, lines)?;
    run(Command::new(python).arg(beside("judge.py")).arg("draw").arg(&table).arg(picture))
}
