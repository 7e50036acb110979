//! Why a pull failed.

use std::path::Path;

/// What the caller can do about it; the text says what, where and how.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The hub cannot be reached, or is too busy: the same call may work later.
    #[error("{0}")]
    Unreachable(String),
    /// The repository, the token or the words of the call: trying again changes nothing.
    #[error("{0}")]
    Refused(String),
    /// The hub sent what it had not announced.
    #[error("{0}")]
    Corrupt(String),
    /// The disk of this host.
    #[error("{0}")]
    Disk(String),
}

impl PullError {
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self::Refused(message.into())
    }

    pub(super) fn disk(path: &Path, what: &str, error: &std::io::Error) -> Self {
        Self::Disk(format!("{}: {what}: {error}", path.display()))
    }
}
