//! How the demo ends when something is wrong: with a clear message, status 1, and nothing left.
//!
//! A shell script stands in for cargo and hands out shell scripts as the two programs, so nothing
//! is built. The good end needs the real programs and is a test of theirs.
#![forbid(unsafe_code)]

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory with a model that nobody loads, stand-ins, and a place for temporary files.
struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    /// `build` is what the stand-in for `cargo build` does, `neuron` what the neuron does.
    fn new(build: &str, neuron: &str) -> Self {
        let stage = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        for directory in ["model", "tmp", "target/release"] {
            std::fs::create_dir_all(stage.path(directory)).expect("a directory");
        }
        std::fs::write(stage.path("model/config.json"), "{}").expect("a file");
        let metadata = serde_json::json!({"target_directory": stage.path("target")});
        let cargo = format!("case $1 in metadata) echo '{metadata}';; build) {build};; esac");
        stage.script("cargo", &cargo);
        stage.script("target/release/neuron", neuron);
        stage.script("target/release/cortex", "exit 1");
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("a script");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable).expect("permissions");
    }

    fn demo(&self, port: u16, model: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["demo", "--once", "hello", "--port", &port.to_string(), "--model"])
            .arg(model)
            .env("CARGO", self.path("cargo"))
            .env("TMPDIR", self.path("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("xtask is built")
    }

    /// The id that a script wrote, once it has.
    fn pid(&self, name: &str) -> Pid {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
            if let Some(id) = text.strip_suffix('\n') {
                return Pid::from_raw(id.parse().expect("an id")).expect("no zero");
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("{name} was not written");
    }

    /// Checks for status 1 and no temporary file, and gives what was said on stderr.
    fn failed(&self, demo: Child) -> String {
        let Output { status, stdout, stderr } = demo.wait_with_output().expect("its end");
        let said = String::from_utf8(stderr).expect("UTF-8");
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(stdout.is_empty(), "only an answer goes to stdout");
        let mut left = std::fs::read_dir(self.path("tmp")).expect("a directory");
        assert!(left.next().is_none(), "temporary files are left");
        said
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn is_gone(process: Pid) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        // An orphan that was killed stays a zombie until somebody collects it.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
        let zombie = stat.is_ok_and(|stat| stat.contains(") Z "));
        if zombie || test_kill_process(process).is_err() {
            return true;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    false
}

#[test]
fn a_program_that_dies_is_quoted() {
    let stage = Stage::new("exit 0", "echo the last words >&2; exit 7");
    let said = stage.failed(stage.demo(free_port(), &stage.path("model")));
    assert!(said.contains("neuron ended by itself (exit status: 7)"), "{said}");
    assert!(said.contains("the last words"), "{said}");
}

#[test]
fn sigterm_while_a_program_starts_takes_it_and_its_children_along() {
    let stage = Stage::new("exit 0", "sleep 600 & echo $! > $(dirname $0)/pid; wait");
    let mut demo = stage.demo(free_port(), &stage.path("model"));
    let grandchild = stage.pid("target/release/pid");
    assert!(matches!(demo.try_wait(), Ok(None)), "it waits for the neuron to answer");
    let demo_pid = Pid::from_raw(demo.id().try_into().expect("an id")).expect("no zero");
    kill_process(demo_pid, Signal::TERM).expect("it runs");
    assert!(stage.failed(demo).contains("interrupted"));
    assert!(is_gone(grandchild), "{grandchild:?} is left");
}

#[test]
fn sigint_ends_a_build() {
    let stage = Stage::new("sleep 600 & echo $! > $(dirname $0)/pid; wait", "exit 0");
    let demo = stage.demo(free_port(), &stage.path("model"));
    let compiler = stage.pid("pid");
    let demo_pid = Pid::from_raw(demo.id().try_into().expect("an id")).expect("no zero");
    kill_process(demo_pid, Signal::INT).expect("it runs");
    assert!(stage.failed(demo).contains("interrupted"));
    assert!(is_gone(compiler), "{compiler:?} is left");
}

#[test]
fn a_failed_build_is_the_end() {
    let stage = Stage::new("exit 101", "exit 0");
    let said = stage.failed(stage.demo(free_port(), &stage.path("model")));
    assert!(said.contains("the build failed (exit status: 101)"), "{said}");
}

#[test]
fn a_port_in_use_and_a_missing_model_are_said_before_anything_is_built() {
    let stage = Stage::new("echo built >&2", "exit 0");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let said = stage.failed(stage.demo(port, &stage.path("model")));
    assert!(said.contains(&format!("port {port} is in use")) && !said.contains("built"), "{said}");
    let said = stage.failed(stage.demo(free_port(), &stage.path("absent")));
    assert!(said.contains("absent") && !said.contains("built"), "{said}");
}
