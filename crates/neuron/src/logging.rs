//! The log: one line per event, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Starts the log. `filter` is in the syntax of `RUST_LOG`.
pub fn start(filter: EnvFilter) {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        // A log that nobody reads any more must not end the daemon.
        .log_internal_errors(false)
        .finish();
    // Set twice only by tests, where the first one serves all.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
