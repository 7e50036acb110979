//! From a path to tensors.

#[allow(unsafe_code)] // Memory maps are unsafe by nature; the reason they are sound stands there.
mod mmap;
mod names;
mod parts;
mod quantised;
mod role;
pub(crate) mod sniff;
mod source;
mod view;
#[cfg(test)]
pub(crate) mod wide;

pub use mmap::Mapped;
pub use names::{MtpRole, TensorName};
pub use role::Role;
pub use source::Source;
pub(crate) use source::{read_json, read_text};
pub use view::TensorView;
