//! A child process that ends with its owner.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How long a process may take to end after [`Signal::Term`] before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// The signals the suites send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ends in good order.
    Term,
    /// Ends at once.
    Kill,
    /// Reloads.
    Hup,
    /// As from the keyboard.
    Int,
    /// Halts, to be gone on with by [`Signal::Continue`].
    Stop,
    /// Goes on.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// A running program. What it prints goes to two files; dropping it ends it; and the kernel kills it when the test
/// process dies in any other way.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command`, printing to `NAME.out` and `NAME.err` in `folder`.
    ///
    /// # Errors
    /// When the files cannot be made or the program cannot be started.
    pub fn spawn(name: &str, folder: &Path, command: &Command) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let (out, err) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.err")));
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => bound.env(key, value),
                None => bound.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            bound.current_dir(folder);
        }
        bound.stdin(Stdio::piped()).stdout(File::create(&out)?).stderr(File::create(&err)?);
        let child = spawner(bound).with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, out, err })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it printed to standard output so far.
    #[must_use]
    pub fn output(&self) -> String {
        read(&self.out)
    }

    /// All it printed to standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        read(&self.err)
    }

    /// Waits for a line with `text` in it on either output and returns the line.
    ///
    /// # Errors
    /// When there is none within `limit`, or the process ends without printing it; tells the last lines it printed.
    pub fn wait_for_line(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let over = !self.is_running() || Instant::now() > deadline;
            for printed in [self.output(), self.errors()] {
                // The last piece may be a line still being written.
                let complete = &printed[..printed.rfind('\n').map_or(0, |end| end + 1)];
                if let Some(line) = complete.lines().find(|line| line.contains(text)) {
                    return Ok(line.to_owned());
                }
            }
            if over {
                let ended = if self.is_running() { "in time" } else { "before it ended" };
                bail!("{} did not print {text:?} {ended}:\n{}", self.name, self.last_words());
            }
            thread::sleep(POLL);
        }
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// When its input is closed.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("standard input is closed")?;
        writeln!(input, "{line}").with_context(|| self.name.clone())?;
        Ok(input.flush()?)
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal. One sent to a process that has ended does nothing.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let pid = self.pid().to_string();
            let _ = Command::new("kill").args(["-s", signal.name(), &pid]).stderr(Stdio::null()).status();
        }
    }

    /// Waits for it to end.
    ///
    /// # Errors
    /// When it has not within `limit`; it goes on running.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end within {limit:?}:\n{}", self.name, self.last_words());
            }
            thread::sleep(POLL);
        }
    }

    /// Ends it in good order; kills it when that takes more than 5 s.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::Term);
        self.wait(PATIENCE).inspect_err(|_| {
            let _ = self.child.kill();
            let _ = self.child.wait();
        })
    }

    /// Seconds of processor time used so far, user and system, of all its threads.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_seconds(&self) -> Result<f64> {
        super::usage::cpu_seconds(self.pid())
    }

    fn last_words(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(20)..].join("\n")
        };
        format!("{}\n{}", tail(self.output()), tail(self.errors()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.close_input();
        if self.is_running() {
            // A failed test keeps what the program said; the error here has nobody to go to.
            let _ = self.stop();
        }
    }
}

/// Waits until `condition` gives something.
///
/// # Errors
/// When it has not within `limit`; the message says `what`.
pub fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("not within {limit:?}: {what}");
        }
        thread::sleep(POLL);
    }
}

/// Starts children from one thread that lives as long as this process: the kernel's notice of a parent's death is about
/// the thread that made the child, and a test's own thread ends before what other tests share with it.
fn spawner(command: Command) -> Result<Child> {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, child) = mpsc::channel();
    let requests =
        spawner.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |sender| sender.clone());
    requests.send((command, answer)).ok().context("the spawning thread is gone")?;
    Ok(child.recv()??)
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn shell(script: &str) -> (tempfile::TempDir, Process) {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = Process::spawn("child", folder.path(), &command).unwrap();
        (folder, process)
    }

    #[test]
    fn lines_are_waited_for_and_input_is_passed_on() {
        let (_folder, mut process) = shell("read word; echo heard $word; echo trouble >&2; sleep 60");
        process.send_line("ahoy").unwrap();
        assert_eq!(process.wait_for_line("heard", SOON).unwrap(), "heard ahoy");
        assert_eq!(process.wait_for_line("trouble", SOON).unwrap(), "trouble");
        let missing = process.wait_for_line("never", Duration::from_millis(50)).unwrap_err();
        assert!(missing.to_string().contains("trouble"), "{missing}");
    }

    #[test]
    fn a_process_that_ended_is_not_waited_for() {
        let (_folder, mut process) = shell("echo bye; exit 3");
        let start = Instant::now();
        assert!(process.wait_for_line("never", Duration::from_secs(60)).is_err());
        assert!(start.elapsed() < SOON);
        assert_eq!(process.wait(SOON).unwrap().code(), Some(3));
    }

    #[test]
    fn dropping_ends_the_process() {
        let (_folder, process) = shell("echo $$; exec sleep 60");
        let running = format!("/proc/{}", process.pid());
        assert!(Path::new(&running).exists());
        drop(process);
        assert!(!Path::new(&running).exists());
    }

    #[test]
    fn signals_arrive() {
        let (_folder, mut process) = shell(
            "trap 'echo again' HUP; trap 'echo done; exit 0' TERM; echo up; while :; do sleep 0.01; done",
        );
        process.wait_for_line("up", SOON).unwrap();
        process.signal(Signal::Hup);
        process.wait_for_line("again", SOON).unwrap();
        assert!(process.cpu_seconds().unwrap() < 5.0);
        assert!(process.stop().unwrap().success());
        assert!(process.output().contains("done"));
    }
}
