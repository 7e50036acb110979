//! A delta-rule layer between its projections, in one operation of the pool: a task takes a key
//! head of a sequence, with the value heads that read it, through convolution, recurrence and norm.
//! What a token needs of them stays in the nearest cache.

use std::cell::RefCell;

use super::parts::Parts;
use super::{Cpu, State, Tensor};
use crate::backend::SequenceRows;
use crate::causal_conv1d::cpu::causal_conv1d;
use crate::gated_delta_rule::cpu::Scratch;
use crate::gated_delta_rule::{DeltaLayer, DeltaState};
use crate::gated_norm::gated_norm;

thread_local! {
    /// Each thread's memory for a token.
    static TOKEN: RefCell<Scratch> = RefCell::default();
}

/// What the tasks of an operation share; each touches its own heads' elements.
struct Heads<'a> {
    layer: &'a DeltaLayer<Vec<f32>>,
    cols: usize,
    projected: Parts<'a>,
    conv: Parts<'a>,
    memory: Parts<'a>,
    out: Parts<'a>,
}

impl Cpu {
    pub(super) fn run_delta_net(
        &mut self,
        layer: &DeltaLayer<Vec<f32>>,
        projected: &mut Tensor,
        state: &mut DeltaState<State>,
        out: &mut Tensor,
    ) {
        let (shape, sequences) = (&layer.shape, &self.step.sequences);
        let elements = (layer.conv.state_elements(), shape.state_elements());
        assert_eq!((state.conv.elements, state.memory.elements), elements);
        assert_eq!((projected.cols, out.cols), (shape.cols(), shape.value_cols()));
        for sequence in sequences {
            state.conv.of(sequence);
            state.memory.of(sequence);
        }
        let heads = Heads {
            layer,
            cols: projected.cols,
            projected: Parts::new(&mut projected.values, 1),
            conv: Parts::new(&mut state.conv.values, 1),
            memory: Parts::new(&mut state.memory.values, shape.head_state()),
            out: Parts::new(&mut out.values, shape.value_dim),
        };
        self.pool.run(sequences.len() * shape.key_heads, |task| {
            let sequence = &sequences[task / shape.key_heads];
            TOKEN.with_borrow_mut(|token| {
                for at in 0..sequence.rows {
                    // SAFETY: each task has its own sequence and key head.
                    unsafe { heads.token(sequence, at, task % shape.key_heads, token) };
                }
            });
        });
    }
}

impl Heads<'_> {
    /// Token `at` of a sequence's rows.
    ///
    /// # Safety
    /// Nobody else works on the sequence's key head at the same time.
    unsafe fn token(&self, sequence: &SequenceRows, at: usize, key: usize, token: &mut Scratch) {
        let DeltaLayer { shape, decay, dt_bias, norm, eps, .. } = self.layer;
        let row = sequence.first_row + at;
        let convolved = |first, width| {
            // SAFETY: the columns belong to the key head or to a value head that reads it.
            unsafe { self.convolved(sequence, at, first, width) }
        };
        let q = convolved(key * shape.key_dim, shape.key_dim);
        let k = convolved(shape.key_cols() + key * shape.key_dim, shape.key_dim);
        token.begin(q, k);
        for head in shape.readers(key) {
            let v = convolved(2 * shape.key_cols() + head * shape.value_dim, shape.value_dim);
            // SAFETY: a value head reads one key head, so these are the task's own.
            let memory = unsafe { self.memory.part(sequence.slot * shape.value_heads + head) };
            // SAFETY: as above.
            let out = unsafe { self.out.part(row * shape.value_heads + head) };
            let [z, b, a] = [
                (shape.z_offset() + head * shape.value_dim, shape.value_dim),
                (shape.b_offset() + head, 1),
                (shape.b_offset() + shape.value_heads + head, 1),
            ];
            // SAFETY: as above.
            let of =
                |(first, width)| unsafe { &*self.projected.run(row * self.cols + first, width) };
            token.value_head(v, of(b)[0], of(a)[0], decay[head], dt_bias[head], memory, out);
            gated_norm(out, of(z), norm, *eps);
        }
    }

    /// Columns of the projection after the convolution.
    ///
    /// # Safety
    /// Nobody else works on these columns of the sequence at the same time.
    #[allow(clippy::mut_from_ref)]
    unsafe fn convolved(
        &self,
        sequence: &SequenceRows,
        at: usize,
        first: usize,
        width: usize,
    ) -> &mut [f32] {
        let conv = &self.layer.conv;
        let start = (sequence.first_row + at) * self.cols + first;
        // SAFETY: the caller is alone with them.
        let x = unsafe { self.projected.run(start, width) };
        let ring = |row| {
            let start = (sequence.slot * conv.taps + row) * conv.channels + first;
            // SAFETY: channels are columns.
            unsafe { self.conv.run(start, width) }
        };
        causal_conv1d(conv, first, x, &self.layer.taps, ring, sequence.start + at);
        x
    }
}
