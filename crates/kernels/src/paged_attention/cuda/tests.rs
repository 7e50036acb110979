use half::f16;

use super::*;
use crate::backend::{Backend, StepInputs};
use crate::check::{Noise, error_ratio, widen};
use crate::cuda::on_card;
use crate::paged_attention::reference;
use crate::rms_norm::reference::rms_norm;
use crate::rope_kv::reference::rotate;

fn shape(heads: usize, kv_heads: usize, head_dim: usize, gated: bool) -> AttentionShape {
    let rotary_dim = if gated { head_dim / 4 } else { head_dim };
    AttentionShape { heads, kv_heads, head_dim, rotary_dim, rope_theta: 1e6, gated, eps: 1e-6 }
}

fn card() -> Card {
    Card {
        name: "a card".into(),
        generation: 90,
        multiprocessors: 132,
        l2_bytes: 0,
        shared_bytes: 227 << 10,
        memory_bytes: 0,
    }
}

#[test]
fn one_sequence_fills_the_card_and_no_more() {
    for (kv_heads, head_dim, most) in [(8, 128, 16), (4, 256, 33), (2, 256, 66), (1, 64, 128)] {
        let split = Split::of(&card(), kv_heads, head_dim, 1);
        assert_eq!((split.fair, split.most, split.alone), (most, most, true), "{kv_heads} heads");
        let grid = split.grid(1 << 17, kv_heads, 1, 1);
        assert_eq!(grid.blocks, [most as u32, kv_heads as u32, 1]);
    }
}

/// While it waits for the projection, and the next launch for it.
#[test]
fn one_sequence_fits_beside_a_linear_layer() {
    let adds = (card().shared_bytes + 1024) / 2 + 128;
    for head_dim in [64, 128, 256] {
        let split = Split::of(&card(), 4, head_dim, 1);
        assert!(split.kernel.starts_with("attention_alone"), "{}", split.kernel);
        let both = split.shared.next_multiple_of(128) + 1024 + adds;
        assert!(both <= card().shared_bytes + 1024, "{head_dim}: {both}");
    }
}

#[test]
fn of_many_sequences_each_gets_a_block_unless_it_is_long() {
    let split = Split::of(&card(), 8, 128, 32);
    assert_eq!((split.fair, split.most, split.alone), (1, 16, false));
    let parts = |context| split.grid(context, 8, 32, 1).blocks[0];
    assert_eq!([512, 2048, 4096, 1 << 17].map(parts), [1, 1, 2, 16]);
    let split = Split::of(&card(), 8, 128, 5);
    assert_eq!(split.fair, 4, "eight tiles");
}

#[test]
fn short_contexts_take_few_blocks() {
    let split = Split::of(&card(), 8, 128, 1);
    assert_eq!(split.grid(512, 8, 1, 1).blocks, [4, 8, 1]);
    assert_eq!(split.grid(2048, 8, 1, 1).blocks, [16, 8, 1]);
}

#[test]
fn older_cards_have_less_shared_memory() {
    let old = Card { generation: 86, multiprocessors: 28, shared_bytes: 99 << 10, ..card() };
    for head_dim in [64, 128, 256] {
        let split = Split::of(&old, 8, head_dim, 1);
        assert!(split.shared <= old.shared_bytes, "{head_dim}");
    }
}

#[test]
fn tiles_cover_all_queries() {
    let shape = shape(24, 4, 256, true);
    assert_eq!([1, 2, 4, 16, 999].map(|rows| tiles(&shape, rows)), [1, 2, 3, 12, 12]);
    let hopper = Tile::of(&card(), 256).grid(&shape, 129, 2);
    assert_eq!((hopper.blocks, hopper.threads[0]), ([24, 2, 2], 256));
    assert!(hopper.shared <= card().shared_bytes);
    let other = Tile::of(&Card { generation: 89, ..card() }, 256).grid(&shape, 129, 2);
    assert_eq!((other.blocks, other.shared), ([24, 3, 2], 96 << 10), "what every card allows");
}

/// As many bytes as the kernels declare.
#[test]
fn arguments_lie_as_in_the_kernels() {
    assert_eq!((size_of::<Arguments>(), size_of::<FewRows>()), (104, 64));
}

/// A layer on a card and, in double precision, what it should do.
struct Case {
    layer: AttentionLayer<Buffer<f32>>,
    norms: [Vec<f32>; 2],
    inputs: StepInputs,
    projected: Vec<f32>,
    /// Keys and values of earlier steps, `[sequence][token][kv_head][head_dim]`.
    old: Vec<[Vec<f16>; 2]>,
    block_size: usize,
}

impl Case {
    fn new(cuda: &Cuda, shape: AttentionShape, sequences: &[(usize, usize)], scale: f32) -> Self {
        let noise = &mut Noise::new(shape.heads as u64);
        let norms = [(); 2].map(|()| noise.values(shape.head_dim, scale));
        let block_size = if has_kernel(&shape, BLOCK_TOKENS) { BLOCK_TOKENS } else { 4 };
        let inputs = on_card::step(sequences, block_size);
        let projected = noise.values(inputs.rows() * shape.cols(), 2.0);
        let mut halves = |count| -> Vec<f16> {
            noise.values(count, 1.0).into_iter().map(f16::from_f32).collect()
        };
        let old = sequences.iter().map(|(_, start)| {
            let count = start * shape.kv_cols();
            [halves(count), halves(count)]
        });
        let old = old.collect();
        let [q_norm, k_norm] = [0, 1].map(|at: usize| on_card::buffer(cuda, &norms[at]));
        let layer = AttentionLayer { shape, q_norm, k_norm };
        Self { layer, norms, inputs, projected, old, block_size }
    }

    /// Runs it; what no token wrote is NaN.
    fn run(&self, cuda: &mut Cuda) -> (Vec<f32>, KvCache) {
        let mut cache = self.cache(cuda);
        (self.step(cuda, &mut cache, &self.projected), cache)
    }

    /// Keys and values before the step, and everything else that it needs, new.
    fn cache(&self, cuda: &mut Cuda) -> KvCache {
        let shape = &self.layer.shape;
        let blocks =
            self.inputs.sequences.iter().flat_map(|s| &s.blocks).max().map_or(1, |m| m + 1);
        let cache = cuda.kv_cache(KvShape {
            blocks: blocks as usize,
            block_size: self.block_size,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        });
        cuda.ready().expect("room");
        let mut parts = [(); 2].map(|()| vec![f16::NAN; cache.keys.len()]);
        for (sequence, old) in self.inputs.sequences.iter().zip(&self.old) {
            for token in 0..sequence.start {
                for head in 0..shape.kv_heads {
                    let to = self.place(&sequence.blocks, token, head);
                    let from = (token * shape.kv_heads + head) * shape.head_dim;
                    for (part, old) in parts.iter_mut().zip(old) {
                        part[to..to + shape.head_dim]
                            .copy_from_slice(&old[from..from + shape.head_dim]);
                    }
                }
            }
        }
        cache.keys.put(0, &parts[0]);
        cache.values.put(0, &parts[1]);
        cache
    }

    fn step(&self, cuda: &mut Cuda, cache: &mut KvCache, projected: &[f32]) -> Vec<f32> {
        let shape = &self.layer.shape;
        // Activations have room for the rows that a decode step is padded with.
        cuda.begin_step(self.inputs.clone());
        let mut padded = projected.to_vec();
        padded.resize(cuda.rows() * shape.cols(), 0.0);
        let mut projected = on_card::tensor(cuda, shape.cols(), &padded);
        let mut out = on_card::poisoned(cuda, cuda.rows(), shape.out_cols());
        attention(cuda, &self.layer, &mut projected, cache, &mut out);
        let mut got = on_card::values(cuda, &out);
        got.truncate(self.inputs.rows() * shape.out_cols());
        got
    }

    fn place(&self, blocks: &[u32], token: usize, head: usize) -> usize {
        let shape = &self.layer.shape;
        let block = blocks[token / self.block_size] as usize * shape.kv_heads + head;
        (block * self.block_size + token % self.block_size) * shape.head_dim
    }

    fn turned(&self, x: &[f32], norm: &[f32], position: usize) -> Vec<f64> {
        let shape = &self.layer.shape;
        let mut head = rms_norm(&widen(x), &widen(norm), f64::from(shape.eps));
        rotate(&mut head, shape.rotary_dim, shape.rope_theta, position);
        head
    }

    /// One sequence's keys and values of a head, `[tokens, head_dim]`, as halves hold them.
    fn cached(&self, sequence: usize, head: usize) -> [Vec<f64>; 2] {
        let shape = &self.layer.shape;
        let SequenceOf { first_row, rows, start } = self.sequence(sequence);
        let mut cached = [(); 2].map(|()| Vec::new());
        for token in 0..start {
            let from = (token * shape.kv_heads + head) * shape.head_dim;
            for (cached, old) in cached.iter_mut().zip(&self.old[sequence]) {
                cached.extend(old[from..from + shape.head_dim].iter().map(|half| half.to_f64()));
            }
        }
        for row in 0..rows {
            let x = &self.projected[(first_row + row) * shape.cols()..][..shape.cols()];
            let key = &x[shape.query_cols() + head * shape.head_dim..][..shape.head_dim];
            let value = &x[shape.query_cols() + shape.kv_cols() + head * shape.head_dim..];
            let key = self.turned(key, &self.norms[1], start + row);
            cached[0].extend(key.iter().map(|key| f16::from_f64(*key).to_f64()));
            let value = value[..shape.head_dim].iter();
            cached[1].extend(value.map(|value| f16::from_f32(*value).to_f64()));
        }
        cached
    }

    fn sequence(&self, at: usize) -> SequenceOf {
        let sequence = &self.inputs.sequences[at];
        SequenceOf { first_row: sequence.first_row, rows: sequence.rows, start: sequence.start }
    }

    fn want(&self) -> Vec<f64> {
        let shape = &self.layer.shape;
        let mut want = vec![f64::NAN; self.inputs.rows() * shape.out_cols()];
        for at in 0..self.inputs.sequences.len() {
            let SequenceOf { first_row, rows, start } = self.sequence(at);
            for kv_head in 0..shape.kv_heads {
                let [keys, values] = self.cached(at, kv_head);
                let group = shape.heads / shape.kv_heads;
                for head in kv_head * group..(kv_head + 1) * group {
                    for row in 0..rows {
                        let x = &self.projected[(first_row + row) * shape.cols()..];
                        let x = &x[head * shape.query_stride()..][..shape.query_stride()];
                        let query = self.turned(&x[..shape.head_dim], &self.norms[0], start + row);
                        let seen = (start + row + 1) * shape.head_dim;
                        let mut out = reference::attention(&query, &keys[..seen], &values[..seen]);
                        if shape.gated {
                            for (out, gate) in out.iter_mut().zip(&x[shape.head_dim..]) {
                                *out /= 1.0 + (-f64::from(*gate)).exp();
                            }
                        }
                        let to = (first_row + row) * shape.out_cols() + head * shape.head_dim;
                        want[to..to + shape.head_dim].copy_from_slice(&out);
                    }
                }
            }
        }
        want
    }
}

struct SequenceOf {
    first_row: usize,
    rows: usize,
    start: usize,
}

/// E1 on a card, for all kernels: every group of query heads that models have, rows on both sides
/// of what each kernel takes, and lengths at the edges of blocks, of a warp's turn and of a split.
#[test]
fn equals_its_reference_on_a_card() {
    let Some(cuda) = on_card::cuda() else { return };
    let mut cuda = cuda.without_graphs();
    let mut shapes: Vec<_> = (1..=8).map(|group| shape(2 * group, 2, 128, false)).collect();
    shapes.extend([1, 2, 3, 6, 8].map(|group| shape(group, 1, 256, true)));
    shapes.extend([shape(4, 2, 64, false), shape(4, 2, 16, true), shape(3, 1, 48, false)]);
    for shape in shapes {
        let short: Vec<_> = [0, 1, 15, 16, 62, 63, 127, 128, 300].map(|start| (1, start)).into();
        let few = [(1, 1023), (2, 0), (4, 14), (5, 125), (16, 1), (16, 240)];
        let many = [(17, 0), (64, 7), (65, 63), (129, 16), (1, 40), (3, 100)];
        for sequences in [&short[..], &few, &many] {
            let case = Case::new(&cuda, shape, sequences, 1.0);
            let (got, _) = case.run(&mut cuda);
            let error = error_ratio(&got, &case.want());
            assert!(error <= 1e-3, "{shape:?}, {sequences:?}: {error}");
        }
    }
}

/// E1 for one sequence alone, which has kernels of its own, and for sequences whose parts are
/// joined by the last of them: lengths at the edges of turns and parts, new tokens on both sides of
/// one. Each runs behind another step in the same memory, which must leave nothing to it.
#[test]
fn parts_of_long_sequences_equal_the_reference_on_a_card() {
    let Some(cuda) = on_card::cuda() else { return };
    let mut cuda = cuda.without_graphs();
    let (group, gated) = (shape(8, 2, 128, false), shape(6, 1, 256, true));
    let (narrow, many_heads) = (shape(4, 2, 64, false), shape(32, 32, 128, false));
    let alone = [0, 15, 16, 127, 128, 1023, 1040, 4159].map(|start| vec![(1, start)]);
    let crossing = vec![(2, 2047)];
    let beside = vec![(1, 4500), (1, 100), (1, 2100)];
    for shape in [group, gated, narrow] {
        for sequences in alone.iter().chain([&crossing, &beside, &vec![(1, 16_000)]]) {
            assert_parts_are_joined(&mut cuda, shape, sequences);
        }
    }
    // So many heads that a long sequence's parts do not run at the same time.
    assert_parts_are_joined(&mut cuda, many_heads, &[(1, 16_000)]);
}

#[track_caller]
fn assert_parts_are_joined(cuda: &mut Cuda, shape: AttentionShape, sequences: &[(usize, usize)]) {
    let case = Case::new(cuda, shape, sequences, 1.0);
    let mut cache = case.cache(cuda);
    let negated: Vec<f32> = case.projected.iter().map(|x| -x).collect();
    let other = case.step(cuda, &mut cache, &negated);
    let got = case.step(cuda, &mut cache, &case.projected);
    assert_ne!(got, other, "what came before would be seen");
    let error = error_ratio(&got, &case.want());
    assert!(error <= 1e-3, "{shape:?}, {sequences:?}: {error}");
    let again = case.step(cuda, &mut cache, &case.projected);
    assert_eq!(got, again, "{shape:?}, {sequences:?}: again");
}

/// Scores of thousands: one key takes all, and nothing overflows.
#[test]
fn extreme_scores_do_not_overflow_on_a_card() {
    let Some(cuda) = on_card::cuda() else { return };
    let mut cuda = cuda.without_graphs();
    for shape in [shape(8, 2, 128, false), shape(6, 1, 256, true)] {
        let case = Case::new(&cuda, shape, &[(1, 400), (40, 30), (7, 2)], 60.0);
        let error = error_ratio(&case.run(&mut cuda).0, &case.want());
        assert!(error <= 2e-2, "{shape:?}: {error}");
    }
}

/// New keys are within what a half holds of the reference, and what nobody wrote is as it was.
#[test]
fn only_new_tokens_are_written_on_a_card() {
    let Some(cuda) = on_card::cuda() else { return };
    let mut cuda = cuda.without_graphs();
    for shape in [shape(8, 2, 128, false), shape(6, 1, 256, true), shape(2, 1, 64, false)] {
        let sequences = [(1, 15), (1, 16), (5, 30), (20, 40), (16, 0)];
        let case = Case::new(&cuda, shape, &sequences, 1.0);
        let (_, cache) = case.run(&mut cuda);
        let keys = cache.keys.get(0..cache.keys.len());
        let values = cache.values.get(0..cache.values.len());
        let mut written = 0;
        for at in 0..sequences.len() {
            let blocks = &case.inputs.sequences[at].blocks;
            for head in 0..shape.kv_heads {
                let [want_keys, want_values] = case.cached(at, head);
                let tokens = want_keys.len() / shape.head_dim;
                for token in 0..tokens {
                    let (to, from) = (case.place(blocks, token, head), token * shape.head_dim);
                    let key: Vec<f32> =
                        keys[to..][..shape.head_dim].iter().map(|half| half.to_f32()).collect();
                    let error = error_ratio(&key, &want_keys[from..from + shape.head_dim]);
                    assert!(error <= 2e-4, "{shape:?}, token {token} of {at}: {error}");
                    for (got, want) in
                        values[to..].iter().zip(&want_values[from..][..shape.head_dim])
                    {
                        assert_eq!(got.to_f64(), *want, "token {token} of {at}");
                    }
                    written += shape.head_dim;
                }
            }
        }
        let untouched = keys.iter().zip(&values).filter(|(k, v)| k.is_nan() && v.is_nan()).count();
        assert_eq!(untouched + written, keys.len(), "{shape:?}");
    }
}

/// A sequence's results are the same bits beside other sequences and from run to run.
#[test]
fn a_sequence_does_not_depend_on_others_on_a_card() {
    let Some(cuda) = on_card::cuda() else { return };
    let mut cuda = cuda.without_graphs();
    for shape in [shape(8, 2, 128, false), shape(6, 1, 256, true), shape(4, 2, 64, false)] {
        for (rows, start) in [(1, 777), (3, 250), (40, 33)] {
            let mut case = Case::new(&cuda, shape, &[(rows, start), (1, 9), (16, 0)], 1.0);
            let alone = case.run(&mut cuda).0;
            assert_eq!(alone, case.run(&mut cuda).0, "again");
            let mut others = Case::new(&cuda, shape, &[(rows, start), (1, 2000), (16, 5)], 1.0);
            let own = rows * shape.cols();
            others.projected[..own].copy_from_slice(&case.projected[..own]);
            others.old[0] = case.old[0].clone();
            let beside = others.run(&mut cuda).0;
            let own = rows * shape.out_cols();
            assert_eq!(alone[..own], beside[..own], "{shape:?}, {rows} rows from {start}");
            case.projected[0] += 1.0;
            assert_ne!(alone, case.run(&mut cuda).0, "the comparison sees a change");
        }
    }
}
