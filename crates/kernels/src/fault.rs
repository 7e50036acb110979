//! What can go wrong with a device, in words for the people who own it.

/// A device cannot be used, or not any more.
///
/// The first fault of a backend sticks: later operations do nothing, and whoever asks is told the
/// first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceFault {
    /// There is no such device here; another one has to be chosen.
    #[error("no device: {0}")]
    NoDevice(String),
    /// The device is there, and this program cannot use it as things are installed.
    #[error("the device cannot be used: {0}")]
    Unusable(String),
    /// A smaller model, fewer blocks or fewer slots would fit.
    #[error("out of device memory: {needed_mb} MB are needed for {what} and {free_mb} MB are free")]
    OutOfMemory {
        /// What they are for.
        what: &'static str,
        /// How many, rounded up.
        needed_mb: u64,
        /// How many there are, rounded down.
        free_mb: u64,
    },
    /// The device failed while it worked: the process must end to get it back.
    #[error("the device failed at {what}: {reason}")]
    Failed {
        /// The operation.
        what: String,
        /// In the driver's words.
        reason: String,
    },
}
