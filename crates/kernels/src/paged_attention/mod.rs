//! Causal attention over keys and values in blocks, with grouped queries.
//!
//! `out = softmax(q · Kᵀ / sqrt(head_dim)) · V`, and `out *= sigmoid(gate)` where the model has an
//! output gate. Query head `h` reads key-value head `h / (heads / kv_heads)`. A row at position
//! `p` sees keys `0..=p` of its own sequence.
//!
//! Queries are those of [`crate::rope_kv`], in the projection's columns `[rows, q | k | v]`, where
//! with a gate each head's query is followed by its gate: `[q₀ | gate₀ | q₁ | gate₁ | …]`.

pub(crate) mod cache;
pub mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub mod reference;
mod score;
mod weigh;

#[cfg(test)]
mod tests;

/// Shapes of an attention layer, of one rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Leading elements of a head that are rotated; even.
    pub rotary_dim: usize,
    /// Base of the rotation's frequencies.
    pub rope_theta: f64,
    /// Whether each query head is followed by a gate.
    pub gated: bool,
    /// Of the query and key norms.
    pub eps: f32,
}

/// What an attention layer is made of besides its large projections.
#[derive(Clone, Debug)]
pub struct AttentionLayer<V> {
    /// See [`AttentionShape`].
    pub shape: AttentionShape,
    /// The weight of the queries' norm, `[head_dim]`.
    pub q_norm: V,
    /// The weight of the keys' norm, `[head_dim]`.
    pub k_norm: V,
}

impl AttentionShape {
    /// Columns from one query head to the next.
    pub fn query_stride(&self) -> usize {
        if self.gated { 2 * self.head_dim } else { self.head_dim }
    }

    /// Columns of all queries, gates included.
    pub fn query_cols(&self) -> usize {
        self.heads * self.query_stride()
    }

    /// Columns of all keys; as many hold the values.
    pub fn kv_cols(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Columns of the whole projection.
    pub fn cols(&self) -> usize {
        self.query_cols() + 2 * self.kv_cols()
    }

    /// Columns of the result.
    pub fn out_cols(&self) -> usize {
        self.heads * self.head_dim
    }
}
