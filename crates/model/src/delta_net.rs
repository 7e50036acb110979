//! Gated DeltaNet: linear attention with a recurrent state of fixed size.
//!
//! Projection, short convolution, gated delta rule, gated norm, projection.

use std::ops::Range;

use kernels::Backend;
use kernels::causal_conv1d::ConvShape;
use kernels::gated_delta_rule::{DeltaLayer, DeltaShape, DeltaState, HeadOrder};

use crate::Error;
use crate::config::{DeltaConfig, ValueHeadOrder};
use crate::decoder::Scratch;
use crate::linear::RowParallel;
use crate::load::Role;
use crate::shard::{Shard, cols, rows, scaled};
use crate::step::Step;
use crate::weights::LayerWeights;

/// What errors call them.
const KEY_HEADS: &str = "linear attention key heads";

/// One layer's delta rule, of one rank.
pub(crate) struct DeltaNet<B: Backend> {
    norm: B::Vector,
    /// `[q | k | v]`, `z`, `b`, `a`.
    projections: [B::Matrix; 4],
    layer: DeltaLayer<B::Vector>,
    out: RowParallel<B>,
}

/// Which of the file's heads and columns a rank holds.
struct Cut {
    key_heads: Vec<Range<usize>>,
    value_heads: Vec<Range<usize>>,
    /// Rows of the `[q | k | v]` projection, which are also the convolution's channels.
    channels: Vec<Range<usize>>,
}

/// The shape of every delta-rule layer, of all ranks together.
fn whole_shape(delta: &DeltaConfig) -> DeltaShape {
    DeltaShape {
        key_heads: delta.key_heads,
        value_heads: delta.value_heads,
        key_dim: delta.key_dim,
        value_dim: delta.value_dim,
        order: match delta.value_head_order {
            ValueHeadOrder::Grouped => HeadOrder::Grouped,
            ValueHeadOrder::Tiled => HeadOrder::Tiled,
        },
    }
}

/// The shapes of every delta-rule layer of a rank.
pub(crate) fn delta_shapes(
    delta: &DeltaConfig,
    shard: &Shard,
) -> Result<(DeltaShape, ConvShape), Error> {
    let whole = whole_shape(delta);
    let keys = shard.share_or_copy(KEY_HEADS, whole.key_heads)?;
    let value_heads = shard.value_heads(&keys, &whole)?.iter().map(ExactSizeIterator::len).sum();
    let shape = DeltaShape { key_heads: keys.len(), value_heads, ..whole };
    Ok((shape, ConvShape { channels: shape.conv_cols(), taps: delta.conv_kernel }))
}

fn cut(whole: &DeltaShape, shard: &Shard) -> Result<Cut, Error> {
    let keys = shard.share_or_copy(KEY_HEADS, whole.key_heads)?;
    let value_heads = shard.value_heads(&keys, whole)?;
    let key_heads = vec![keys];
    let shifted = |runs: Vec<Range<usize>>, by: usize| {
        runs.into_iter().map(move |run| run.start + by..run.end + by)
    };
    let keys = scaled(&key_heads, whole.key_dim);
    let values = scaled(&value_heads, whole.value_dim);
    let channels = if shard.world_size == 1 {
        vec![0..whole.conv_cols()]
    } else {
        (shifted(keys.clone(), 0).chain(shifted(keys, whole.key_cols())))
            .chain(shifted(values, 2 * whole.key_cols()))
            .collect()
    };
    Ok(Cut { key_heads, value_heads, channels })
}

impl<B: Backend> DeltaNet<B> {
    pub(crate) fn load(
        backend: &mut B,
        weights: &LayerWeights<'_>,
        shard: &Shard,
    ) -> Result<Self, Error> {
        let config = weights.config();
        let delta = config.delta.as_ref().expect("a model with such layers has their sizes");
        let whole = whole_shape(delta);
        let (shape, conv) = delta_shapes(delta, shard)?;
        let Cut { key_heads, value_heads, channels } = cut(&whole, shard)?;
        debug_assert_eq!(key_heads.len(), 1);
        let values = scaled(&value_heads, whole.value_dim);
        let mut part = |role, runs: &[Range<usize>]| {
            Ok::<_, Error>(backend.matrix(&rows(&weights.matrix(role)?, runs)))
        };
        let projections = [
            part(Role::DeltaQkv, &channels)?,
            part(Role::DeltaGate, &values)?,
            part(Role::DeltaBeta, &value_heads)?,
            part(Role::DeltaAlpha, &value_heads)?,
        ];
        let taps = gather(&weights.vector(Role::DeltaConv)?, &channels, conv.taps);
        let decay = gather(&weights.decay()?, &value_heads, 1);
        let dt_bias = gather(&weights.vector(Role::DeltaDtBias)?, &value_heads, 1);
        let out = weights.matrix(Role::DeltaOut)?;
        let out = cols(&out, &values, "blocks of the output projection")?;
        Ok(Self {
            norm: backend.vector(&weights.norm(Role::AttnNorm)?),
            projections,
            layer: backend.delta_layer(DeltaLayer {
                shape,
                conv,
                taps: transposed(&taps, conv.taps),
                decay,
                dt_bias,
                norm: weights.vector(Role::DeltaNorm)?,
                eps: config.eps,
            }),
            out: RowParallel { matrix: backend.matrix(&out) },
        })
    }

    /// `hidden += delta_net(norm(hidden))`.
    pub(crate) fn forward(
        &self,
        step: &mut Step<'_, B>,
        scratch: &mut Scratch<B>,
        state: &mut DeltaState<B::State>,
    ) {
        let Scratch { hidden, projected, remembered, partial, .. } = scratch;
        let backend = &mut *step.backend;
        let eps = self.layer.eps;
        backend.norm_project(hidden, &self.norm, eps, &self.projections, projected);
        backend.delta_net(&self.layer, projected, state, remembered);
        self.out.add_to(backend, step.comm, step.rows, remembered, partial, hidden);
    }
}

/// Runs of things of `size` elements each, one run after the other.
fn gather(values: &[f32], runs: &[Range<usize>], size: usize) -> Vec<f32> {
    scaled(runs, size).into_iter().flat_map(|run| values[run].iter().copied()).collect()
}

/// `[channels, taps]`, as files have it, to `[taps, channels]`, as kernels read it.
fn transposed(values: &[f32], taps: usize) -> Vec<f32> {
    let channels = values.len() / taps;
    (0..taps).flat_map(|tap| (0..channels).map(move |c| values[c * taps + tap])).collect()
}
