//! A daemon's own program, as a test runs it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A program that serves; it is killed when it is dropped.
#[derive(Debug)]
pub struct Program {
    /// Its process.
    pub child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Runs `PROGRAM serve --config FILE` until its log says where it listens, which may be a port
    /// of the system's choice.
    ///
    /// # Panics
    /// When the program does not start or ends instead.
    pub fn serve(program: &Path, file: &Path) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(file).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut log = BufReader::new(child.stderr.take().expect("it was piped"));
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).expect("a log"), 0, "the program ended");
            if let Some((_, rest)) = line.split_once("listen=") {
                let address = rest.split_whitespace().next().and_then(|text| text.parse().ok());
                break address.expect("an address");
            }
        };
        // Someone must read on, or the program would stand still with a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, address }
    }
}
