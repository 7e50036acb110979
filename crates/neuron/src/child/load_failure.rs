//! Why a model cannot be loaded, as the child tells the daemon and the daemon its callers.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Why a model cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct LoadFailure {
    /// The kind, as the control plane names it.
    pub code: LoadCode,
    /// What is wrong, where, and what to do.
    pub message: String,
    /// The same for programs, where there is more than the kind.
    pub details: Option<Box<LoadDetails>>,
}

impl LoadFailure {
    /// A failure of this kind with its words.
    pub fn new(code: LoadCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: None }
    }

    /// The same with what a program can decide by.
    #[must_use]
    pub fn with(mut self, details: LoadDetails) -> Self {
        self.details = Some(Box::new(details));
        self
    }
}

/// What a program can decide by, beside the kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadDetails {
    /// Of [`LoadCode::QuantNotFound`].
    Quant {
        /// The formats that there are.
        available: Vec<String>,
        /// The one that looks most like what was asked for.
        nearest: Option<String>,
    },
    /// Of [`LoadCode::BadModelFile`].
    File {
        /// The file's name.
        file: String,
        /// The part of it that is wrong.
        item: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Of [`LoadCode::DoesNotFit`].
    Memory {
        /// MiB that the load would take.
        needed_mb: u64,
        /// MiB that it could have.
        free_mb: u64,
    },
}

impl LoadDetails {
    /// The fields that they add to an error's body.
    pub(crate) fn fields(&self) -> Vec<(&'static str, Value)> {
        match self {
            Self::Quant { available, nearest } => {
                vec![("available", json!(available)), ("nearest", json!(nearest))]
            }
            Self::File { file, item, reason } => {
                vec![("file", json!(file)), ("item", json!(item)), ("reason", json!(reason))]
            }
            Self::Memory { needed_mb, free_mb } => {
                vec![("needed_mb", json!(needed_mb)), ("free_mb", json!(free_mb))]
            }
        }
    }
}

/// Kinds of [`LoadFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LoadCode {
    /// Nothing is at the source.
    RepoNotFound,
    /// The source holds no weights.
    EmptyRepo,
    /// The model is of a family that the engine does not have.
    UnsupportedArchitecture,
    /// The source does not have the weights' format that was asked for.
    QuantNotFound,
    /// A file of the model is broken.
    BadModelFile,
    /// There is not enough memory.
    DoesNotFit,
    /// The model cannot be split over that many ranks.
    TensorParallelIndivisible,
    /// A GPU is asked for and none can be used.
    CudaUnavailable,
    /// The engine process died again and again.
    EngineFailed,
    /// A number of the request is one that this model cannot be loaded with.
    BadRequest,
}

impl LoadCode {
    /// The code in an error's body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RepoNotFound => "repo_not_found",
            Self::EmptyRepo => "empty_repo",
            Self::UnsupportedArchitecture => "unsupported_architecture",
            Self::QuantNotFound => "quant_not_found",
            Self::BadModelFile => "bad_model_file",
            Self::DoesNotFit => "does_not_fit",
            Self::TensorParallelIndivisible => "tensor_parallel_indivisible",
            Self::CudaUnavailable => "cuda_unavailable",
            Self::EngineFailed => "engine_failed",
            Self::BadRequest => "bad_request",
        }
    }
}
