//! A database of the test's own, where Debian's `postgresql` is installed.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// It refuses to run as root, so there it runs as `nobody`.
const NOBODY: u32 = 65_534;

pub(crate) struct Postgres {
    server: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Postgres {
    /// None, and loudly, where there is no Postgres.
    pub(crate) fn start() -> Option<Postgres> {
        let Some(programs) = programs() else {
            eprintln!("SKIPPED: no initdb under /usr/lib/postgresql; install postgresql");
            return None;
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let is_root = std::fs::metadata("/proc/self").map(|it| owner(&it) == 0).unwrap_or(false);
        if is_root {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let run = |program: &str| {
            let mut command = Command::new(programs.join(program));
            if is_root {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let data = dir.path().join("data");
        let made = run("initdb").args(["-A", "trust", "-U", "cortex", "-D"]).arg(&data).status();
        assert!(made.expect("initdb runs").success(), "initdb failed");
        let port = free_port();
        let mut server = run("postgres");
        server.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-F", "-p", &port.to_string()]);
        server.arg("-k").arg(dir.path());
        let server = server.spawn().expect("postgres runs");
        let postgres = Postgres { server, port, _dir: dir };
        let begun = Instant::now();
        while !postgres.is_ready(&programs) {
            assert!(begun.elapsed() < Duration::from_secs(60), "postgres never accepts");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(postgres)
    }

    fn is_ready(&self, programs: &Path) -> bool {
        let port = self.port.to_string();
        let mut command = Command::new(programs.join("pg_isready"));
        let status = command.args(["-q", "-h", "127.0.0.1", "-p", &port]).status();
        status.is_ok_and(|status| status.success())
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://cortex@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Ends the server as a crash would.
    pub(crate) fn stop(&mut self) {
        // SIGQUIT: it ends at once, and its children with it.
        let quit = Command::new("kill").args(["-QUIT", &self.server.id().to_string()]).status();
        let _ = quit.is_ok_and(|status| status.success());
        let _ = self.server.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !matches!(self.server.try_wait(), Ok(Some(_))) {
            self.stop();
        }
    }
}

fn owner(metadata: &std::fs::Metadata) -> u32 {
    std::os::unix::fs::MetadataExt::uid(metadata)
}

/// The newest installed version's.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    folders.filter(|bin| bin.join("initdb").exists()).max()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").port()
}
