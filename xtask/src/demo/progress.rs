//! One line that changes on a terminal; a line for each change elsewhere.

use std::io::{IsTerminal, Write};

/// Says on stderr how far something has come.
pub(crate) struct Progress {
    terminal: bool,
    last: String,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: String::new() }
    }

    /// Shows `line`, unless it is what was shown before.
    pub(crate) fn show(&mut self, line: String) {
        if line == self.last {
            return;
        }
        if self.terminal {
            // Back to the first column, and clear what the last line had there.
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
        self.last = line;
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && !self.last.is_empty() {
            eprintln!();
        }
    }
}
