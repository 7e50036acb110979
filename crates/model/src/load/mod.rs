//! From a path to tensors.

#[allow(unsafe_code)] // Memory maps are unsafe by nature; the reason they are sound stands there.
mod mmap;
pub(crate) mod sniff;
mod view;

pub use mmap::Mapped;
pub use view::TensorView;
