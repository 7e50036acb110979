//! Depthwise causal convolution over time, then SiLU.
//!
//! `y[t][c] = silu(sum over j of taps[j][c] * x[t - (taps - 1) + j][c])`. Inputs before the first
//! token are zero. The state is a ring of the last `taps` raw inputs of every channel, so that a
//! sequence may be cut anywhere. The ring has one row more than the formula looks back: the row
//! that a token writes is none that it reads, so threads that share a channel need not wait for
//! another.

pub mod cpu;
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
    /// Elements of a sequence's state: `[taps, channels]`; the input at position `p` is in row
    /// `p % taps`.
    pub fn state_elements(&self) -> usize {
        self.taps * self.channels
    }
}
