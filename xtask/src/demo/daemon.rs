//! A program that the demo starts, watches and is sure to stop.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::setup::Setup;

/// How often the programs are looked after while the demo waits for something else.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a program may take to end after it was asked to.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Lines of a dead program's log that the error shows.
const LOG_LINES: usize = 20;

/// A child in a process group of its own, so that its children go with it. Dropping it stops it.
pub(crate) struct Group {
    child: Child,
}

impl Group {
    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        Ok(Self { child })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> std::io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // The only failure is that nobody is left to receive it.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::TERM);
            let deadline = Instant::now() + STOP_GRACE;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        // Also after a good end: a grandchild that outlived its parent is in the group still.
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// `neuron serve` or `cortex serve`, with its output in a log file.
pub(crate) struct Daemon {
    name: &'static str,
    group: Group,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn start(
        name: &'static str,
        program: &Path,
        config: &Path,
        setup: &Setup,
    ) -> Result<Self> {
        let log = setup.directory().join(format!("{name}.log"));
        let open =
            || File::create(&log).with_context(|| format!("{} is not writable", log.display()));
        let out = open()?;
        let err = out.try_clone().context("a log file cannot be shared by stdout and stderr")?;
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(config).stdout(out).stderr(err);
        // What the user has set for a real installation is not meant for this one.
        let prefix = format!("{}_", name.to_uppercase());
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with(&prefix) {
                command.env_remove(key);
            }
        }
        let group = Group::spawn(&mut command)
            .with_context(|| format!("{name} cannot be started from {}", program.display()))?;
        Ok(Self { name, group, log })
    }

    /// An error with the end of the log when the program has ended.
    pub(crate) fn alive(&mut self) -> Result<()> {
        let ended = self.group.ended().with_context(|| format!("{} is out of reach", self.name))?;
        let Some(status) = ended else { return Ok(()) };
        bail!("{} ended by itself ({status}); it said last:\n{}", self.name, self.last_words())
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(LOG_LINES);
        match lines.is_empty() {
            true => "  (nothing)".to_owned(),
            false => lines[from..].iter().map(|l| format!("  {l}")).collect::<Vec<_>>().join("\n"),
        }
    }
}

/// An error when one of the programs has ended.
pub(crate) fn all_alive(daemons: &mut [&mut Daemon]) -> Result<()> {
    daemons.iter_mut().try_for_each(|daemon| daemon.alive())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Group {
        Group::spawn(Command::new("sh").args(["-c", script])).expect("sh exists")
    }

    fn exists(pid: u32) -> bool {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        state.is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_dropped_group_takes_its_grandchildren_along() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("pid");
        // The grandchild ignores SIGTERM; its parent does not.
        let script = format!(
            "sh -c \"trap '' TERM; echo \\$\\$ > {0}.part; mv {0}.part {0}; sleep 600\" & wait",
            file.display()
        );
        let mut group = shell(&script);
        let begin = Instant::now();
        while !file.exists() && begin.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let text = std::fs::read_to_string(&file).expect("the grandchild wrote its id");
        let grandchild: u32 = text.trim().parse().expect("an id");
        assert!(exists(grandchild) && matches!(group.ended(), Ok(None)));
        drop(group);
        let begin = Instant::now();
        while exists(grandchild) && begin.elapsed() < Duration::from_secs(20) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        assert!(!exists(grandchild), "{grandchild} outlived its group");
    }

    #[test]
    fn the_end_of_a_program_shows_the_end_of_its_log() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("x.log");
        std::fs::write(&log, "first\n".to_owned() + &"middle\n".repeat(LOG_LINES) + "last")
            .unwrap();
        let mut daemon = Daemon { name: "x", group: shell("exit 3"), log };
        let begin = Instant::now();
        let error = loop {
            match daemon.alive() {
                Err(error) => break error.to_string(),
                Ok(()) => assert!(begin.elapsed() < Duration::from_secs(20)),
            }
        };
        assert!(error.contains("exit status: 3") && error.ends_with("\n  last"), "{error}");
        assert!(!error.contains("first"), "{error}");
    }
}
