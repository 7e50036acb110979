//! Linear layers: `out = x · Wᵀ` with `W` `[out, in]` in any weight format.
//!
//! Float formats multiply in single precision. Quantised formats multiply in integers: inputs are
//! rounded to 8 bits per block of 32 with one scale each, as the weights are. A result depends on
//! its own input row and weight row only, bit for bit, whatever else is in the step.

pub mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
mod dense;
mod formats;
mod packed;
pub mod reference;
mod round;
mod tile;
mod unpack;

#[cfg(test)]
mod tests;
