//! Choosing on a card: what the host tells it, the launches, and what the host does itself.
//!
//! A row is chosen by the host where it wants log-probabilities, where its lists are longer than
//! the room for them, and where too many tokens are too near to each other to be sorted on the
//! card. Those few read their logits back and take the same way as on the CPU.

mod request;

use std::sync::Arc;

use super::{Choice, SampleRow, choose};
use crate::cuda::{Buffer, Context, Cuda, Grid, Pinned, Tensor};
use request::{ROW_WORDS, Request};

/// Runs that the ids of a row are cut into.
const SPLITS: u32 = 32;
/// Bytes of what is kept of a run: its largest logit, and its measures.
const SCAN_BYTES: usize = 12;
const MEASURE_BYTES: usize = 9 * (8 + 4) + 4;
/// Candidates of a row that are sorted.
const MOST: usize = 8192;
/// Threads of the kernels with several blocks a row, and of the one that sorts.
const THREADS: u32 = 256;
const PICKERS: u32 = 1024;

/// The card could not tell; the logits are adjusted.
const UNDECIDED: i32 = -2;

/// Room for choosing.
pub(crate) struct Sampler {
    told: Pinned<u32>,
    request: Buffer<u32>,
    scans: Buffer<u8>,
    measures: Buffer<u8>,
    found: Buffer<u32>,
    keys: Buffer<u64>,
    tokens: Buffer<i32>,
    answer: Pinned<i32>,
}

impl Sampler {
    /// Room for `rows` rows.
    pub(crate) fn new(context: &Arc<Context>, rows: usize) -> Self {
        let what = "choosing tokens";
        let (words, splits) = (Request::words(rows), rows * SPLITS as usize);
        Self {
            told: Pinned::new(context, words),
            request: Buffer::new(context, what, words),
            scans: Buffer::new(context, what, splits * SCAN_BYTES),
            measures: Buffer::new(context, what, splits * MEASURE_BYTES),
            found: Buffer::new(context, what, rows),
            keys: Buffer::new(context, what, rows * MOST),
            tokens: Buffer::new(context, what, rows),
            answer: Pinned::new(context, rows),
        }
    }

    /// The card's word on each row; a token, or less than zero.
    fn ask(&mut self, cuda: &Cuda, logits: &Tensor, vocab: usize, request: &Request) -> &[i32] {
        let rows = request.rows();
        let words = request.write(self.told.values_mut());
        self.told.start_put(&self.request, 0, words);
        let lists = self.request.at(rows * ROW_WORDS);
        let splits = Grid::plane(SPLITS, rows as u32, THREADS);
        let scan = |again: bool| {
            cuda.launch("sample_scan", splits)
                .arg(&logits.values)
                .arg(logits.cols)
                .arg(vocab)
                .arg(again)
                .arg(&self.scans)
                .arg(&self.found)
                .overlapping()
                .run();
        };
        scan(false);
        if request.adjusts() {
            cuda.launch("sample_adjust", Grid::line(rows as u32, PICKERS))
                .arg(&self.request)
                .arg(lists)
                .arg(&logits.values)
                .arg(logits.cols)
                .arg(vocab)
                .overlapping()
                .run();
            scan(true);
        }
        if request.draws() {
            self.narrow(cuda, logits, vocab, splits);
        }
        cuda.launch("sample_pick", Grid::line(rows as u32, PICKERS).with_shared(8 * MOST as u32))
            .arg(&self.request)
            .arg(&logits.values)
            .arg(logits.cols)
            .arg(vocab)
            .arg(&self.scans)
            .arg(&self.measures)
            .arg(&self.found)
            .arg(&self.keys)
            .arg(&self.tokens)
            .overlapping()
            .run();
        self.answer.start_get(&self.tokens, rows);
        cuda.context.synchronize();
        self.answer.values().get(..rows).unwrap_or_default()
    }

    /// Finds the tokens that a draw can fall on.
    fn narrow(&self, cuda: &Cuda, logits: &Tensor, vocab: usize, splits: Grid) {
        cuda.launch("sample_measure", splits)
            .arg(&self.request)
            .arg(&logits.values)
            .arg(logits.cols)
            .arg(vocab)
            .arg(&self.scans)
            .arg(&self.measures)
            .overlapping()
            .run();
        cuda.launch("sample_gather", splits)
            .arg(&self.request)
            .arg(&logits.values)
            .arg(logits.cols)
            .arg(vocab)
            .arg(&self.scans)
            .arg(&self.measures)
            .arg(&self.found)
            .arg(&self.keys)
            .overlapping()
            .run();
    }
}

/// Chooses a token for each of the first rows of logits; nothing after a failure of the device.
pub(crate) fn sample(
    cuda: &Cuda,
    sampler: &mut Sampler,
    logits: &Tensor,
    vocab: usize,
    rows: &[SampleRow],
) -> Vec<Option<Choice>> {
    let request = Request::new(rows);
    let read = |at: usize| {
        let first = at * logits.cols;
        logits.values.get(first..first + vocab)
    };
    // Before the card changes anything.
    let by_host: Vec<_> = (0..rows.len())
        .map(|at| request.is_for_host(at).then(|| choose(&rows[at], &mut read(at))))
        .collect();
    let tokens = sampler.ask(cuda, logits, vocab, &request);
    if cuda.context.has_failed() {
        return vec![None; rows.len()];
    }
    (by_host.into_iter().zip(tokens).enumerate())
        .map(|(at, (by_host, token))| match (by_host, *token) {
            (Some(choice), _) => choice,
            (None, UNDECIDED) => choose(&adjusted(&rows[at]), &mut read(at)),
            (None, token) => {
                u32::try_from(token).ok().map(|token| Choice { token, logprobs: None })
            }
        })
        .collect()
}

/// How a row is chosen whose logits are adjusted already.
fn adjusted(row: &SampleRow) -> SampleRow {
    SampleRow {
        temperature: row.temperature,
        top_p: row.top_p,
        top_k: row.top_k,
        min_p: row.min_p,
        seed: row.seed,
        position: row.position,
        ..SampleRow::greedy()
    }
}

#[cfg(test)]
#[path = "cuda_tests.rs"]
mod tests;
