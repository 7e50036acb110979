//! The gateway: `peek -> route -> forward`, bytes untouched.
//!
//! cortex reads from a request only what routing needs, asks `fleet` where it goes, and relays the
//! answer frame by frame. What it knows of the fleet is an immutable snapshot that pollers replace;
//! no request waits for a poll, and no decision does I/O.
#![forbid(unsafe_code)]

mod act;
mod admin;
mod app;
mod auth;
mod catalogue;
mod config;
#[cfg(test)]
mod dashboard;
mod explain;
mod forward;
mod front;
mod gauges;
mod generate;
mod hold;
mod identity;
mod kept;
mod ledger;
mod listing;
mod log;
mod meter;
mod metrics;
mod operate;
mod poll;
mod prefix_cache;
mod probe;
mod pursue;
mod read;
mod record;
mod refusal;
mod relay;
mod reload;
mod reply;
mod resume;
mod server;
mod settings;
mod silence;
mod status;
mod story;
mod surface;
mod tail;
mod tls;
mod top;
mod upstream;
mod usage;
mod view;
mod workers;

pub use auth::{hash_key, new_key};
pub use config::{
    Auth, Budget, CacheIsolation, Config, Eviction, EvictionStrategy, Gateway, Key, Ledger, Neuron,
    Scope, Scopes, Spans, TlsFiles,
};
pub use log::LogWriter;
pub use operate::Operator;
pub use server::Server;
pub use top::show_top;

/// What can go wrong before cortex serves, or in one of its commands.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong: the operator edits it.
    #[error("{place}: {problem}")]
    Config {
        /// File, line and column; or a variable; or a key.
        place: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The address cannot be listened on: the operator frees it or picks another.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: std::net::SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The system gives no thread: the operator raises its limits.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// The system's reason.
        source: std::io::Error,
    },
    /// The ledger's database does not do what is asked: the operator mends it or its URL.
    #[error("the ledger: {source}")]
    Ledger {
        /// What the database says.
        source: sqlx::Error,
    },
    /// Traces cannot be sent: the operator names another collector.
    #[error(transparent)]
    Traces(#[from] traces::BuildError),
    /// A running cortex was asked and did not answer: start it, or name another address.
    #[error("cortex at {url} does not answer: {problem}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What happened.
        problem: String,
    },
    /// A running cortex does not do what it was asked, for this reason.
    #[error("{0}")]
    Refused(String),
    /// The answer could not be printed.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}
