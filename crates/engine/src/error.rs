//! Why nothing was loaded.

use kernels::DeviceFault;

use crate::contract::Fault;

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The model's files.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceFault),
    /// The caller's numbers.
    #[error("{item}: {reason}")]
    BadSpec {
        /// The field.
        item: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The model did not survive its first steps.
    #[error(transparent)]
    Fault(#[from] Fault),
}
