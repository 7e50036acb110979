//! Bytes of a rank's weights, as a backend keeps them.

use kernels::Backend;

use super::F32;
use crate::Error;
use crate::attention::attention_shape;
use crate::config::LayerKind;
use crate::decoder::Widths;
use crate::delta_net::delta_shapes;
use crate::load::{Role, Source, TensorName};
use crate::shard::Shard;

/// Bytes of the weights that a rank takes over, without reading them.
///
/// # Errors
///
/// `Indivisible` if the ranks cannot share the model.
pub fn held_bytes<B: Backend>(source: &Source, shard: &Shard) -> Result<u64, Error> {
    let config = source.config();
    let mut sum = Sum::<B> { source, shard, bytes: 0, backend: std::marker::PhantomData };
    let ids = shard.split(config.vocab_size).len();
    sum.matrix(TensorName::Embedding, ids, config.hidden)?;
    sum.vector(config.hidden);
    if !config.tied {
        sum.matrix(TensorName::Output, ids, config.hidden)?;
    }
    for (layer, &kind) in config.layers.iter().enumerate() {
        let name = |role| TensorName::Layer(layer, role);
        match kind {
            LayerKind::FullAttention => sum.attention(name)?,
            LayerKind::LinearAttention => sum.delta_net(name)?,
        }
        sum.feed_forward(name)?;
    }
    Ok(sum.bytes)
}

/// What has been counted so far.
struct Sum<'a, B> {
    source: &'a Source,
    shard: &'a Shard,
    bytes: u64,
    backend: std::marker::PhantomData<B>,
}

impl<B: Backend> Sum<'_, B> {
    /// A matrix with a buffer of its own. `rows` and `cols` are those of this rank.
    fn matrix(&mut self, name: TensorName, rows: usize, cols: usize) -> Result<(), Error> {
        self.bytes += B::buffer_bytes(self.matrix_bytes(name, rows, cols)?);
        Ok(())
    }

    fn matrix_bytes(&self, name: TensorName, rows: usize, cols: usize) -> Result<u64, Error> {
        let ty = self.source.format(name)?;
        if !cols.is_multiple_of(ty.block_elements()) {
            let (count, world_size) = (cols * self.shard.world_size, self.shard.world_size);
            let count = count / ty.block_elements();
            let what = "blocks of the columns of a matrix";
            return Err(Error::Indivisible { what, count, world_size });
        }
        Ok(B::matrix_bytes(ty, rows, cols))
    }

    fn vector(&mut self, elements: usize) {
        self.bytes += elements as u64 * F32;
    }

    fn attention(&mut self, name: impl Fn(Role) -> TensorName) -> Result<(), Error> {
        let config = self.source.config();
        let shape = attention_shape(config, self.shard)?;
        self.vector(config.hidden);
        self.vector(2 * shape.head_dim);
        self.matrix(name(Role::Q), shape.heads * shape.query_stride(), config.hidden)?;
        self.matrix(name(Role::K), shape.kv_cols(), config.hidden)?;
        self.matrix(name(Role::V), shape.kv_cols(), config.hidden)?;
        self.matrix(name(Role::O), config.hidden, shape.out_cols())
    }

    fn delta_net(&mut self, name: impl Fn(Role) -> TensorName) -> Result<(), Error> {
        let config = self.source.config();
        let delta = config.delta.as_ref().expect("a model with such layers has their sizes");
        let (shape, conv) = delta_shapes(delta, self.shard)?;
        self.vector(config.hidden);
        self.vector(conv.channels * conv.taps);
        self.vector(2 * shape.value_heads + shape.value_dim);
        self.matrix(name(Role::DeltaQkv), conv.channels, config.hidden)?;
        self.matrix(name(Role::DeltaGate), shape.value_cols(), config.hidden)?;
        self.matrix(name(Role::DeltaBeta), shape.value_heads, config.hidden)?;
        self.matrix(name(Role::DeltaAlpha), shape.value_heads, config.hidden)?;
        self.matrix(name(Role::DeltaOut), config.hidden, shape.value_cols())
    }

    fn feed_forward(&mut self, name: impl Fn(Role) -> TensorName) -> Result<(), Error> {
        let config = self.source.config();
        self.vector(config.hidden);
        let Some(moe) = &config.moe else {
            let ffn = Widths::of(config, self.shard)?.ffn;
            return self.gated([Role::FfnGate, Role::FfnUp, Role::FfnDown].map(name), ffn);
        };
        self.matrix(name(Role::Router), moe.experts, config.hidden)?;
        let share = |ffn| Ok::<_, Error>(self.shard.share("columns of an expert", ffn)?.len());
        let (ffn, shared) = (share(moe.ffn)?, moe.shared_ffn.map(share).transpose()?);
        self.experts([ffn, config.hidden], |e| name(Role::ExpertGate(e)))?;
        self.experts([ffn, config.hidden], |e| name(Role::ExpertUp(e)))?;
        self.experts([config.hidden, ffn], |e| name(Role::ExpertDown(e)))?;
        if let Some(ffn) = shared {
            self.matrix(name(Role::SharedMix), 1, config.hidden)?;
            self.gated([Role::SharedGate, Role::SharedUp, Role::SharedDown].map(&name), ffn)?;
        }
        Ok(())
    }

    /// One matrix of every expert, in one buffer.
    fn experts(
        &mut self,
        [rows, cols]: [usize; 2],
        name: impl Fn(usize) -> TensorName,
    ) -> Result<(), Error> {
        let experts = self.source.config().moe.as_ref().map_or(0, |moe| moe.experts);
        let each = |e| self.matrix_bytes(name(e), rows, cols);
        let bytes = (0..experts).map(each).sum::<Result<u64, Error>>()?;
        self.bytes += B::buffer_bytes(bytes);
        Ok(())
    }

    /// Gate, up and down.
    fn gated(&mut self, [gate, up, down]: [TensorName; 3], ffn: usize) -> Result<(), Error> {
        let hidden = self.source.config().hidden;
        self.matrix(gate, ffn, hidden)?;
        self.matrix(up, ffn, hidden)?;
        self.matrix(down, hidden, ffn)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use kernels::WeightType;
    use kernels::cpu::Cpu;

    use super::*;
    use crate::Recipe;

    fn fixture(name: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", name].iter().collect()
    }

    /// Loads a rank and compares what it took with what was said before.
    #[track_caller]
    fn assert_taken(source: &Source, shard: Shard, what: &str) {
        let mut cpu = Cpu::new(1);
        let planned = held_bytes::<Cpu>(source, &shard);
        let loaded = crate::arch::load(&mut cpu, source, shard).map(|_| cpu.weight_bytes());
        match (planned, loaded) {
            (Ok(planned), Ok(taken)) => assert_eq!(planned, taken, "{what}"),
            (Err(Error::Indivisible { .. }), Err(Error::Indivisible { .. })) => {}
            (planned, loaded) => panic!("{what}: planned {planned:?}, loaded {loaded:?}"),
        }
    }

    #[test]
    fn a_load_takes_what_was_planned_and_no_byte_more() {
        let models = ["qwen3", "qwen3_moe", "qwen3_5", "qwen3_5_moe", "qwen3_next"];
        for model in models {
            for recipe in [None, Some(Recipe::from(WeightType::Q8_0)), Some(Recipe::Q4_K_M)] {
                for world_size in [1, 2, 4] {
                    for rank in 0..world_size {
                        let source = Source::open(&fixture(model)).unwrap();
                        let source = match recipe {
                            Some(recipe) => source.quantised(recipe, 1).unwrap(),
                            None => source,
                        };
                        let what = format!("{model} as {recipe:?}, rank {rank} of {world_size}");
                        assert_taken(&source, Shard { rank, world_size }, &what);
                    }
                }
            }
        }
    }

    #[test]
    fn packed_blocks_of_256_are_counted_as_they_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let checkpoint = crate::load::wide::write(directory.path());
        for recipe in Recipe::all() {
            let source = Source::open(&checkpoint).unwrap().quantised(recipe, 1).unwrap();
            for world_size in [1, 2] {
                let shard = Shard { rank: 0, world_size };
                assert_taken(&source, shard, &format!("{recipe}, {world_size} ranks"));
            }
        }
        // 300 rows are 19 tiles of 16.
        let source = Source::open(&checkpoint).unwrap().quantised(Recipe::Q4_K_M, 1).unwrap();
        let embedding = source.matrix(TensorName::Embedding).unwrap();
        let kept = Cpu::matrix_bytes(embedding.ty, embedding.rows, embedding.cols);
        assert_eq!((embedding.ty, kept), (WeightType::Q6_K, 304 * 210));
    }
}
