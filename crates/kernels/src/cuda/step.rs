//! A step as kernels see it: numbers in device memory, at the same places in every step.

use std::sync::Arc;

use super::buffer::{Buffer, Pinned};
use super::card::StepCapacity;
use super::context::Context;
use super::launch::{Address, Grid};
use crate::backend::{SequenceRows, StepInputs};

/// Batch sizes that decode steps are padded to.
const BUCKETS: [usize; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 32, 64, 128, 256];

/// The smallest span of contexts that is told apart.
const SMALLEST_CONTEXT: usize = 512;

/// How large a step is: all that the host knows of it when it launches kernels.
///
/// Two steps of one size launch the same kernels with the same grids, so the launches of a decode
/// step can be kept and played again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StepSize {
    /// Rows, padding included.
    pub rows: usize,
    /// Sequences, padding included.
    pub sequences: usize,
    /// Rows whose logits are wanted, padding included.
    pub logit_rows: usize,
    /// Rows of the sequence that has fewest, padding left out.
    pub fewest_rows: usize,
    /// Rows of the sequence that has most.
    pub most_rows: usize,
    /// No sequence has more tokens than this after the step: a power of two.
    pub most_context: usize,
    /// Whether every sequence has one row, row `i` is of sequence `i`, and its logits are wanted.
    pub is_decode: bool,
}

impl StepSize {
    /// The size of a step, padded if it is a decode step that `capacity` leaves room for.
    fn of(inputs: &StepInputs, capacity: &StepCapacity) -> Self {
        let sequences = &inputs.sequences;
        let one_row = sequences.iter().all(|sequence| sequence.rows == 1);
        let count = sequences.len();
        let is_decode = one_row && count > 0 && inputs.logit_rows.len() == count;
        let room = capacity.sequences.min(capacity.rows);
        let padded = BUCKETS.into_iter().find(|bucket| *bucket >= count);
        let padded = padded.filter(|padded| is_decode && *padded <= room).unwrap_or(count);
        let contexts = sequences.iter().map(|sequence| sequence.start + sequence.rows);
        let context = contexts.max().unwrap_or(0).max(SMALLEST_CONTEXT).next_power_of_two();
        Self {
            rows: if is_decode { padded } else { inputs.rows() },
            sequences: padded,
            logit_rows: if is_decode { padded } else { inputs.logit_rows.len() },
            fewest_rows: sequences.iter().map(|sequence| sequence.rows).min().unwrap_or(0),
            most_rows: sequences.iter().map(|sequence| sequence.rows).max().unwrap_or(0),
            most_context: context,
            is_decode,
        }
    }
}

/// Where each array begins, in words. Short arrays come first, so that one copy of a small step is
/// short; block tables come last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    first_row: usize,
    seq_rows: usize,
    start: usize,
    slot: usize,
    logit_rows: usize,
    tokens: usize,
    positions: usize,
    row_sequence: usize,
    block_table: usize,
    words: usize,
}

impl Layout {
    fn of(capacity: &StepCapacity) -> Self {
        // Arrays begin at multiples of 16 bytes.
        let (sequences, rows) =
            (capacity.sequences.next_multiple_of(4), capacity.rows.next_multiple_of(4));
        let row_arrays = 5 * sequences;
        let block_table = row_arrays + 3 * rows;
        Self {
            first_row: 0,
            seq_rows: sequences,
            start: 2 * sequences,
            slot: 3 * sequences,
            logit_rows: 4 * sequences,
            tokens: row_arrays,
            positions: row_arrays + rows,
            row_sequence: row_arrays + 2 * rows,
            block_table,
            words: block_table + capacity.sequences * capacity.blocks,
        }
    }
}

/// Copies under way at once, at most.
const IN_FLIGHT: usize = 2;

/// The step under way.
///
/// Padding rows belong to sequence -1; a padding sequence has slot -1 and its own row. Both are
/// worked on like others by operations without memory, and leave keys, values and state alone.
pub struct Step {
    capacity: StepCapacity,
    layout: Layout,
    /// What the host knows.
    pub size: StepSize,
    /// What `words` describe.
    sequences: Vec<SequenceRows>,
    words: Buffer<i32>,
    staging: Vec<Staging>,
    next: usize,
}

struct Staging {
    words: Pinned<i32>,
    copied: super::event::Event,
}

impl Step {
    pub(crate) fn new(context: &Arc<Context>, capacity: StepCapacity) -> Self {
        let layout = Layout::of(&capacity);
        let staging = (0..IN_FLIGHT).map(|_| Staging {
            words: Pinned::new(context, layout.words),
            copied: super::event::Event::new(context),
        });
        Self {
            capacity,
            layout,
            size: StepSize::default(),
            sequences: Vec::new(),
            words: Buffer::zeroed(context, "the step's metadata", layout.words),
            staging: staging.collect(),
            next: 0,
        }
    }

    /// Makes `inputs` the step that kernels work on from here in the stream. A step ahead has its
    /// tokens from `chosen`.
    ///
    /// # Panics
    /// When the step exceeds the capacity: whoever plans steps knows it.
    pub(crate) fn begin(&mut self, inputs: StepInputs, chosen: Option<Address>) {
        let size = StepSize::of(&inputs, &self.capacity);
        assert!(size.rows <= self.capacity.rows, "{} rows", size.rows);
        assert!(size.sequences <= self.capacity.sequences, "{} sequences", size.sequences);
        let before = self.size;
        self.size = size;
        let advance = chosen.is_some()
            && (before.is_decode, before.rows) == (size.is_decode, size.rows)
            && is_one_further(&self.sequences, &inputs.sequences);
        if !advance {
            self.describe(&inputs);
        }
        if let Some(chosen) = chosen {
            self.go_on(chosen, inputs.rows(), advance);
        }
        self.sequences = inputs.sequences;
    }

    /// Takes the tokens of the first rows from `chosen`, behind the launches that choose them.
    fn go_on(&self, chosen: Address, rows: usize, advance: bool) {
        self.words
            .context()
            .launch("step_ahead", Grid::over(rows, 256))
            .arg(chosen)
            .arg(rows)
            .arg(advance)
            .arg(self.row_sequence())
            .arg(self.tokens())
            .arg(self.positions())
            .arg(self.start())
            .overlapping()
            .run();
    }

    fn describe(&mut self, inputs: &StepInputs) {
        let staging = &mut self.staging[self.next];
        self.next = (self.next + 1) % IN_FLIGHT;
        // The copy that this memory was last used for is long done; the wait only makes sure.
        staging.copied.wait();
        let words = staging.words.values_mut();
        if words.is_empty() {
            return;
        }
        let used = fill(words, &self.layout, &self.capacity, &self.size, inputs);
        staging.words.start_put(&self.words, 0, used);
        staging.copied.record();
    }

    /// Token ids, `u32 [rows]`.
    pub fn tokens(&self) -> Address {
        self.words.at(self.layout.tokens)
    }

    /// Position of each row in its sequence, `int [rows]`; 0 for padding.
    pub fn positions(&self) -> Address {
        self.words.at(self.layout.positions)
    }

    /// Sequence of each row, `int [rows]`; -1 for padding.
    pub fn row_sequence(&self) -> Address {
        self.words.at(self.layout.row_sequence)
    }

    /// First row of each sequence, `int [sequences]`.
    pub fn first_row(&self) -> Address {
        self.words.at(self.layout.first_row)
    }

    /// Rows of each sequence, `int [sequences]`; 0 for padding.
    pub fn seq_rows(&self) -> Address {
        self.words.at(self.layout.seq_rows)
    }

    /// Tokens of each sequence computed before, `int [sequences]`; state is zero where it is 0.
    pub fn start(&self) -> Address {
        self.words.at(self.layout.start)
    }

    /// State slot of each sequence, `int [sequences]`; -1 for padding.
    pub fn slot(&self) -> Address {
        self.words.at(self.layout.slot)
    }

    /// Rows whose logits are wanted, `int [logit_rows]`.
    pub fn logit_rows(&self) -> Address {
        self.words.at(self.layout.logit_rows)
    }

    /// Blocks of each sequence, `int [sequences][blocks_stride]`.
    pub fn block_table(&self) -> Address {
        self.words.at(self.layout.block_table)
    }

    /// From one sequence's blocks to the next one's.
    pub fn blocks_stride(&self) -> usize {
        self.capacity.blocks
    }

    /// What no step exceeds.
    pub fn capacity(&self) -> &StepCapacity {
        &self.capacity
    }
}

/// Whether a step differs from the one before in nothing but that each sequence, of one row, has
/// one token more.
fn is_one_further(before: &[SequenceRows], now: &[SequenceRows]) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|(before, now)| {
            let SequenceRows { first_row, rows, start, ref blocks, slot } = *now;
            (before.first_row, before.rows, before.slot) == (first_row, rows, slot)
                && rows == 1
                && before.start + 1 == start
                && before.blocks == *blocks
        })
}

/// Writes a step into `words` and says how many of them are used.
fn fill(
    words: &mut [i32],
    layout: &Layout,
    capacity: &StepCapacity,
    size: &StepSize,
    inputs: &StepInputs,
) -> usize {
    let mut put = |at: usize, value: usize| words[at] = value as i32;
    for (row, token) in inputs.tokens.iter().enumerate() {
        put(layout.tokens + row, *token as usize);
    }
    for (at, row) in inputs.logit_rows.iter().enumerate() {
        put(layout.logit_rows + at, *row);
    }
    for (at, sequence) in inputs.sequences.iter().enumerate() {
        let SequenceRows { first_row, rows, start, blocks, slot } = sequence;
        put(layout.first_row + at, *first_row);
        put(layout.seq_rows + at, *rows);
        put(layout.start + at, *start);
        put(layout.slot + at, *slot);
        for row in 0..*rows {
            put(layout.positions + first_row + row, start + row);
            put(layout.row_sequence + first_row + row, at);
        }
        let table = layout.block_table + at * capacity.blocks;
        for (block, number) in blocks.iter().take(capacity.blocks).enumerate() {
            put(table + block, *number as usize);
        }
    }
    for pad in inputs.sequences.len()..size.sequences {
        words[layout.tokens + pad] = 0;
        words[layout.logit_rows + pad] = pad as i32;
        words[layout.first_row + pad] = pad as i32;
        words[layout.seq_rows + pad] = 0;
        words[layout.start + pad] = 0;
        words[layout.slot + pad] = -1;
        words[layout.positions + pad] = 0;
        words[layout.row_sequence + pad] = -1;
    }
    layout.block_table + size.sequences * capacity.blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::cuda::on_card;
    use crate::sample::{Pick, SampleRow};

    const CAPACITY: StepCapacity = StepCapacity { rows: 32, sequences: 16, blocks: 4 };

    fn sequence(first_row: usize, rows: usize, start: usize) -> SequenceRows {
        SequenceRows { first_row, rows, start, blocks: vec![7, 9], slot: first_row + 3 }
    }

    fn decode(count: usize) -> StepInputs {
        StepInputs {
            tokens: vec![5; count],
            sequences: (0..count).map(|at| sequence(at, 1, 20)).collect(),
            logit_rows: (0..count).collect(),
            ahead: false,
        }
    }

    #[test]
    fn decode_steps_are_padded_to_buckets() {
        let rows = |count| StepSize::of(&decode(count), &CAPACITY).rows;
        assert_eq!([1, 7, 8, 9, 16].map(rows), [1, 7, 8, 16, 16]);
        let narrow = StepCapacity { sequences: 12, ..CAPACITY };
        assert_eq!(StepSize::of(&decode(9), &narrow).rows, 9, "no room for padding");
        let mut prefill = decode(9);
        prefill.logit_rows.pop();
        let size = StepSize::of(&prefill, &CAPACITY);
        assert!((size.rows, size.is_decode) == (9, false));
    }

    #[test]
    fn contexts_are_told_apart_by_powers_of_two() {
        let context = |start| {
            let mut inputs = decode(1);
            inputs.sequences[0].start = start;
            StepSize::of(&inputs, &CAPACITY).most_context
        };
        assert_eq!([0, 511, 512, 1023, 1024].map(context), [512, 512, 1024, 1024, 2048]);
    }

    #[test]
    fn padding_belongs_to_nobody() {
        let (inputs, layout) = (decode(9), Layout::of(&CAPACITY));
        let mut words = vec![77; layout.words];
        let size = StepSize::of(&inputs, &CAPACITY);
        let used = fill(&mut words, &layout, &CAPACITY, &size, &inputs);
        assert_eq!(used, layout.words);
        let at = |array: usize| &words[array..array + 16];
        assert_eq!(at(layout.row_sequence)[8..], [8, -1, -1, -1, -1, -1, -1, -1]);
        assert_eq!(at(layout.slot)[7..10], [10, 11, -1]);
        assert_eq!(at(layout.seq_rows)[8..10], [1, 0]);
        assert_eq!(at(layout.logit_rows)[14..], [14, 15]);
        assert_eq!(at(layout.positions)[8..10], [20, 0]);
        assert_eq!(words[layout.block_table + 4..layout.block_table + 6], [7, 9]);
    }

    #[test]
    fn arrays_do_not_overlap() {
        let layout = Layout::of(&StepCapacity { rows: 5, sequences: 3, blocks: 2 });
        assert_eq!(layout.block_table, 5 * 4 + 3 * 8);
        assert_eq!(layout.words, layout.block_table + 6);
    }

    #[test]
    fn a_step_is_one_further_if_nothing_else_has_changed() {
        let before = decode(3).sequences;
        let with = |change: &dyn Fn(&mut SequenceRows)| {
            let mut now = before.clone();
            now.iter_mut().for_each(|sequence| sequence.start += 1);
            change(&mut now[1]);
            is_one_further(&before, &now)
        };
        assert!(with(&|_| {}));
        assert!(!with(&|sequence| sequence.start += 1));
        assert!(!with(&|sequence| sequence.blocks.push(3)));
        assert!(!with(&|sequence| sequence.slot += 1));
        assert!(!with(&|sequence| sequence.rows = 2));
        assert!(!is_one_further(&before, &before[..2]));
    }

    /// What a step that runs ahead finds described is what the host would have described.
    #[test]
    fn a_step_ahead_is_described_like_any_other_on_a_card() {
        let Some(mut cuda) = on_card::cuda() else { return };
        let Some(mut other) = on_card::cuda() else { return };
        // The third step crosses into new blocks, and the fourth goes on in them.
        let mut told = on_card::step(&[(1, 13), (1, 29), (1, 45)], 16);
        cuda.begin_step(told.clone());
        for step in 0..4 {
            let chosen: Vec<u32> = (0..3).map(|row| 100 * (row + 1) + step).collect();
            choose(&mut cuda, &chosen);
            for (at, sequence) in told.sequences.iter_mut().enumerate() {
                sequence.start += 1;
                if sequence.start == sequence.blocks.len() * 16 {
                    sequence.blocks.push(50 + at as u32);
                }
            }
            told.tokens = vec![0; 3];
            cuda.begin_step(StepInputs { ahead: true, ..told.clone() });
            other.begin_step(StepInputs { tokens: chosen, ..told.clone() });
            let used = other.step.layout.block_table + 3 * other.step.blocks_stride();
            let [got, want] = [&cuda, &other].map(|cuda| cuda.step.words.get(0..used));
            assert_eq!(got, want, "step {step}");
            assert!(cuda.fault().is_none() && want[cuda.step.layout.tokens] != 0);
        }
    }

    /// Lets the card choose these tokens.
    fn choose(cuda: &mut crate::cuda::Cuda, tokens: &[u32]) {
        let vocab = 1000;
        let mut logits = vec![0.0; tokens.len() * vocab];
        for (row, token) in tokens.iter().enumerate() {
            logits[row * vocab + *token as usize] = 1.0;
        }
        let mut logits = on_card::tensor(cuda, vocab, &logits);
        cuda.start_sample(&mut logits, vocab, &vec![SampleRow::greedy(); tokens.len()]);
        let picks: Vec<_> = tokens.iter().map(|token| Pick::Token(*token)).collect();
        assert_eq!(cuda.finish_sample(), picks);
    }
}
