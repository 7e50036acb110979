//! Depthwise causal convolution over time, then SiLU.
//!
//! `y[t][c] = silu(sum over j of taps[j][c] * x[t - (taps - 1) + j][c])`. Inputs before the first
//! token are zero. The state holds the last `taps - 1` raw inputs of every channel, so that a
//! sequence may be cut anywhere.

pub mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;

#[cfg(test)]
mod tests;

/// Shapes of a convolution, of one rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Channels: leading columns of the tensor.
    pub channels: usize,
    /// Taps of the kernel; the last one weighs the present.
    pub taps: usize,
}

impl ConvShape {
    /// Elements of a sequence's state: `[taps - 1, channels]`, oldest first.
    pub fn state_elements(&self) -> usize {
        (self.taps - 1) * self.channels
    }
}
