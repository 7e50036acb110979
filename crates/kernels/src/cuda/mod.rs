//! NVIDIA cards as a backend: kernels of our own, compiled ahead of time, behind the driver's API.
//!
//! The driver's library is opened at run time, so a program with this backend starts on machines
//! that have none, and [`Cuda::open`] says why there is no device. Without the feature `cuda` the
//! type [`Cuda`] has no values, and code above needs no condition.
//!
//! Every launch goes to the one stream of its device, in order. A step takes no memory and waits
//! for nothing until its tokens are read. The first failure sticks (see [`crate::DeviceFault`]):
//! launches after it do nothing.

#[cfg(not(feature = "cuda"))]
mod absent;
#[cfg(feature = "cuda")]
mod backend;
#[cfg(feature = "cuda")]
mod bandwidth;
#[cfg(feature = "cuda")]
mod buffer;
mod card;
#[cfg(feature = "cuda")]
mod context;
#[cfg(feature = "cuda")]
mod event;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "cuda")]
mod launch;
#[cfg(feature = "cuda")]
mod module;
#[cfg(all(test, feature = "cuda"))]
#[path = "on_card_tests.rs"]
pub(crate) mod on_card;
#[cfg(feature = "cuda")]
mod step;
#[cfg(feature = "cuda")]
mod timing;

#[cfg(not(feature = "cuda"))]
pub use absent::{Context, Cuda, cards};
#[cfg(feature = "cuda")]
pub use backend::{Cuda, KvCache, Matrix, Mixture, State, Tensor};
#[cfg(feature = "cuda")]
pub(crate) use buffer::Pinned;
#[cfg(feature = "cuda")]
pub use buffer::{Buffer, Element};
pub use card::{BUILT_IN, Card, StepCapacity};
#[cfg(feature = "cuda")]
pub use context::{Context, cards};
#[cfg(feature = "cuda")]
pub use event::Event;
#[cfg(feature = "cuda")]
pub use launch::{Address, Argument, Grid, Launch};
#[cfg(feature = "cuda")]
pub use step::{Step, StepSize};
