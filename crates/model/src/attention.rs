//! Softmax attention with grouped queries, norms on queries and keys, and an optional output gate.

use kernels::Backend;
use kernels::paged_attention::{AttentionLayer, AttentionShape};

use crate::Error;
use crate::config::ModelConfig;
use crate::decoder::Scratch;
use crate::linear::RowParallel;
use crate::load::Role;
use crate::shard::{Shard, cols, rows, scaled};
use crate::step::Step;
use crate::weights::LayerWeights;

/// One layer's attention, of one rank.
pub(crate) struct Attention<B: Backend> {
    layer: AttentionLayer<B::Vector>,
    norm: B::Vector,
    /// Queries (with their gates), keys, values.
    qkv: [B::Matrix; 3],
    out: RowParallel<B>,
}

/// The shape of every attention layer of a rank.
pub(crate) fn attention_shape(
    config: &ModelConfig,
    shard: &Shard,
) -> Result<AttentionShape, Error> {
    Ok(AttentionShape {
        heads: shard.share("attention heads", config.heads)?.len(),
        kv_heads: shard.share_or_copy("key-value heads", config.kv_heads)?.len(),
        head_dim: config.head_dim,
        rotary_dim: config.rotary_dim,
        rope_theta: config.rope_theta,
        gated: config.attn_output_gate,
        eps: config.eps,
    })
}

impl<B: Backend> Attention<B> {
    pub(crate) fn load(
        backend: &mut B,
        weights: &LayerWeights<'_>,
        shard: &Shard,
    ) -> Result<Self, Error> {
        let config = weights.config();
        let shape = attention_shape(config, shard)?;
        let heads = [shard.share("attention heads", config.heads)?];
        let kv_heads = [shard.share_or_copy("key-value heads", config.kv_heads)?];
        let mut part = |role, runs: &[std::ops::Range<usize>], size| {
            let matrix = weights.matrix(role)?;
            Ok::<_, Error>(backend.matrix(&rows(&matrix, &scaled(runs, size))))
        };
        let qkv = [
            part(Role::Q, &heads, shape.query_stride())?,
            part(Role::K, &kv_heads, shape.head_dim)?,
            part(Role::V, &kv_heads, shape.head_dim)?,
        ];
        let out = weights.matrix(Role::O)?;
        let out = cols(&out, &scaled(&heads, shape.head_dim), "blocks of the output projection")?;
        Ok(Self {
            layer: AttentionLayer {
                shape,
                q_norm: backend.vector(&weights.norm(Role::QNorm)?),
                k_norm: backend.vector(&weights.norm(Role::KNorm)?),
            },
            norm: backend.vector(&weights.norm(Role::AttnNorm)?),
            qkv,
            out: RowParallel { matrix: backend.matrix(&out) },
        })
    }

    /// `hidden += attention(norm(hidden))`.
    pub(crate) fn forward(
        &self,
        step: &mut Step<'_, B>,
        scratch: &mut Scratch<B>,
        cache: &mut B::KvCache,
    ) {
        let Scratch { hidden, qkv, attended, partial, .. } = scratch;
        let backend = &mut *step.backend;
        backend.norm_project(hidden, &self.norm, self.layer.shape.eps, &self.qkv, qkv);
        backend.attention(&self.layer, qkv, cache, attended);
        self.out.add_to(backend, step.comm, step.rows, attended, partial, hidden);
    }
}
