//! Root-mean-square normalisation: `y = x / sqrt(mean(x²) + eps) * weight`.
//!
//! `weight` is what multiplies: models that store `w` and mean `1 + w` add the one when they load.

pub mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod tests;
