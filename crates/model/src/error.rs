//! What can go wrong between a path and a model, as the decisions a caller can take.

use std::io;
use std::path::{Path, PathBuf};

use kernels::WeightType;

/// Why a model cannot be read, loaded or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing is there.
    #[error("{}: not found", file.display())]
    NotFound {
        /// The path as it was asked for.
        file: PathBuf,
    },
    /// Something is there and the system does not let us read or write it.
    #[error("{}: {source}", file.display())]
    Io {
        /// The path that failed.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it says it is: cut short, damaged or hostile.
    #[error("{}: {item}: {reason}", file.display())]
    BadFile {
        /// The file.
        file: PathBuf,
        /// The part that is wrong, such as a tensor or a metadata key.
        item: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A good file of a kind that is not read here; the reason says what to do instead.
    #[error("{}: {reason}", file.display())]
    Refused {
        /// The file or directory.
        file: PathBuf,
        /// What it is, and the way out.
        reason: String,
    },
    /// A model of an architecture that is not implemented.
    #[error("{}: architecture `{found}` is not supported; supported: {known}", file.display())]
    UnsupportedArchitecture {
        /// The file that names the architecture.
        file: PathBuf,
        /// The name it gives.
        found: String,
        /// The names that are supported, separated by commas.
        known: String,
    },
    /// A directory in which there are no weights.
    #[error("{}: a safetensors or GGUF file is missing", file.display())]
    NoWeights {
        /// The directory.
        file: PathBuf,
    },
    /// The model lacks something that its configuration calls for.
    #[error("{}: {item} is missing", file.display())]
    Missing {
        /// The file or directory.
        file: PathBuf,
        /// What is missing.
        item: String,
    },
    /// Quantised weights that should be quantised once more.
    #[error(
        "{}: holds {found} weights, which are not made into {wanted}: load them as they are, or \
         start from BF16, F16 or F32",
        file.display()
    )]
    Requantised {
        /// The file or directory.
        file: PathBuf,
        /// The format of its weights, or of some of them.
        found: WeightType,
        /// The format that was asked for.
        wanted: &'static str,
    },
    /// The ranks cannot share the model evenly.
    #[error("{count} {what} cannot be shared by {world_size} ranks")]
    Indivisible {
        /// What would be cut.
        what: &'static str,
        /// How many of them there are.
        count: usize,
        /// The ranks.
        world_size: usize,
    },
    /// A value of the configuration that no model can have, or that contradicts another one.
    #[error("{}: {key}: expected {expected}, found {found}", file.display())]
    BadConfig {
        /// The file that holds the value.
        file: PathBuf,
        /// The name of the value in that file.
        key: String,
        /// What would have been good.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl Error {
    /// The error for a system call on `file`.
    pub(crate) fn io(file: &Path, source: io::Error) -> Self {
        let file = file.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { file },
            _ => Self::Io { file, source },
        }
    }

    pub(crate) fn bad(file: &Path, item: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadFile { file: file.to_path_buf(), item: item.into(), reason: reason.into() }
    }

    pub(crate) fn refused(file: &Path, reason: impl Into<String>) -> Self {
        Self::Refused { file: file.to_path_buf(), reason: reason.into() }
    }

    pub(crate) fn missing(file: &Path, item: impl Into<String>) -> Self {
        Self::Missing { file: file.to_path_buf(), item: item.into() }
    }

    pub(crate) fn config(
        file: &Path,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::BadConfig {
            file: file.to_path_buf(),
            key: key.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}
