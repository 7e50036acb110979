//! The gated delta rule: linear attention with a decaying, error-correcting memory.
//!
//! Per value head, with state `S` `[value_dim, key_dim]` (held transposed: values lie side by side,
//! so that a register holds a sum for each and none is taken across it):
//!
//! ```text
//! q = q / sqrt(sum(q²) + 1e-6) / sqrt(key_dim)      k = k / sqrt(sum(k²) + 1e-6)
//! beta = sigmoid(b)                                 g = decay * softplus(a + dt_bias)
//! S = exp(g) S        u = beta (v - S k)        S = S + u kᵀ        o = S q
//! ```
//!
//! The decay comes first, the error is taken against the decayed state, and the output is read
//! from the updated one. `decay` is `-exp(A_log)`, so `g <= 0`. Source: Yang, Kautz, Hatamizadeh,
//! "Gated Delta Networks" (2024), equation 10.

#[cfg(feature = "cuda")]
pub(crate) mod chunks;
pub mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;

use crate::causal_conv1d::ConvShape;

#[cfg(test)]
mod tests;

/// Which key head a value head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadOrder {
    /// Value head `h` reads key head `h / (value_heads / key_heads)`.
    Grouped,
    /// Value head `h` reads key head `h % key_heads`.
    Tiled,
}

/// Shapes of a delta-rule layer, of one rank.
///
/// The projection's columns are `[q | k | v | z | b | a]`: the first three go through the
/// convolution, `z` gates the output, `b` and `a` are one number a value head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaShape {
    /// Query and key heads.
    pub key_heads: usize,
    /// Value heads; a multiple of `key_heads`.
    pub value_heads: usize,
    /// Elements of a query or key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// See [`HeadOrder`].
    pub order: HeadOrder,
}

impl DeltaShape {
    /// The key head that value head `head` reads.
    pub fn key_head(&self, head: usize) -> usize {
        match self.order {
            HeadOrder::Grouped => head / (self.value_heads / self.key_heads),
            HeadOrder::Tiled => head % self.key_heads,
        }
    }

    /// The value heads that read key head `key`, ascending.
    pub fn readers(&self, key: usize) -> impl Iterator<Item = usize> {
        let each = self.value_heads / self.key_heads;
        let (first, step) = match self.order {
            HeadOrder::Grouped => (key * each, 1),
            HeadOrder::Tiled => (key, self.key_heads),
        };
        (0..each).map(move |at| first + at * step)
    }

    /// Columns of all queries; as many hold the keys.
    pub fn key_cols(&self) -> usize {
        self.key_heads * self.key_dim
    }

    /// Columns of all values; as many hold `z`.
    pub fn value_cols(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Columns that go through the convolution.
    pub fn conv_cols(&self) -> usize {
        2 * self.key_cols() + self.value_cols()
    }

    /// Where `z` starts.
    pub fn z_offset(&self) -> usize {
        self.conv_cols()
    }

    /// Where `b` starts; `a` follows after `value_heads` columns.
    pub fn b_offset(&self) -> usize {
        self.conv_cols() + self.value_cols()
    }

    /// Columns of the whole projection.
    pub fn cols(&self) -> usize {
        self.b_offset() + 2 * self.value_heads
    }

    /// Elements of one value head's state.
    pub fn head_state(&self) -> usize {
        self.value_dim * self.key_dim
    }

    /// Elements of a sequence's state: `[value_heads, key_dim, value_dim]`.
    pub fn state_elements(&self) -> usize {
        self.value_heads * self.head_state()
    }
}

/// What a delta-rule layer is made of besides its large projections.
#[derive(Clone, Debug)]
pub struct DeltaLayer<V> {
    /// See [`DeltaShape`].
    pub shape: DeltaShape,
    /// The convolution before it, over `[q | k | v]`.
    pub conv: ConvShape,
    /// The convolution's weights, `[taps, channels]`.
    pub taps: V,
    /// `-exp(A_log)`, `[value_heads]`.
    pub decay: V,
    /// Added to `a`, `[value_heads]`.
    pub dt_bias: V,
    /// The weight of the gated norm behind it, `[value_dim]`.
    pub norm: V,
    /// What that norm adds to the mean of squares.
    pub eps: f32,
}

/// A delta-rule layer's recurrent state, of all slots of a rank.
#[derive(Clone, Debug)]
pub struct DeltaState<S> {
    /// Of the convolution, `[slots, taps, channels]`.
    pub conv: S,
    /// Of the delta rule, `[slots, value_heads]` matrices in the order that the device likes.
    pub memory: S,
}

impl DeltaLayer<Vec<f32>> {
    /// The same with its weights where `place` puts them.
    pub fn map<V>(self, mut place: impl FnMut(Vec<f32>) -> V) -> DeltaLayer<V> {
        DeltaLayer {
            shape: self.shape,
            conv: self.conv,
            taps: place(self.taps),
            decay: place(self.decay),
            dt_bias: place(self.dt_bias),
            norm: place(self.norm),
            eps: self.eps,
        }
    }
}
