//! NVIDIA cards as a backend: kernels of our own, compiled ahead of time, behind the driver's API.
//!
//! The driver's library is opened at run time, so a program with this backend starts on machines
//! that have none, and [`Cuda::open`] says why there is no device. Without the feature `cuda` the
//! type [`Cuda`] has no values, and code above needs no condition.
//!
//! Every launch goes to the one stream of its device, in order. A step takes no memory and waits
//! for nothing until its tokens are read. The first failure sticks (see [`crate::DeviceFault`]):
//! launches after it do nothing.

mod backend;
mod buffer;
mod context;
mod event;
mod launch;
mod module;
#[cfg(test)]
pub(crate) mod on_card;
mod step;

pub use backend::{Cuda, KvCache, Matrix, State, Tensor};
pub use buffer::{Buffer, Element};
pub use context::{Card, Context, cards};
pub use event::Event;
pub use launch::{Address, Argument, Grid, Launch};
pub use step::{Step, StepCapacity, StepSize};
