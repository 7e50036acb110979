//! Choosing on a card: what the host tells it, the launches, and what the host does itself.
//!
//! A row is chosen by the host where it wants log-probabilities, where its lists are longer than
//! the room for them, and where too many tokens are too near to each other to be sorted on the
//! card. Those few read their logits back and take the same way as on the CPU.

mod request;

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Choice, Pick, SampleRow, choose};
use crate::cuda::{Address, Buffer, Context, Cuda, Event, Grid, Pinned, Tensor};
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
    /// The words that `request` holds, if they are few.
    known: Vec<u32>,
    scans: Buffer<u8>,
    measures: Buffer<u8>,
    found: Buffer<u32>,
    keys: Buffer<u64>,
    tokens: Buffer<i32>,
    answer: Pinned<i32>,
    early: VecDeque<Early>,
    idle: Vec<Early>,
}

/// Batches that are asked for and not read, at most.
const UNDER_WAY: usize = 2;

/// A batch whose answer is read later.
struct Early {
    told: Pinned<u32>,
    answer: Pinned<i32>,
    rows: usize,
    done: Event,
}

impl Sampler {
    /// Room for `rows` rows.
    pub(crate) fn new(context: &Arc<Context>, rows: usize) -> Self {
        let what = "choosing tokens";
        let (words, splits) = (Request::words(rows), rows * SPLITS as usize);
        let early = (0..UNDER_WAY).map(|_| Early {
            told: Pinned::new(context, rows * ROW_WORDS),
            answer: Pinned::new(context, rows),
            rows: 0,
            done: Event::new(context),
        });
        Self {
            told: Pinned::new(context, words),
            request: Buffer::new(context, what, words),
            known: Vec::new(),
            scans: Buffer::new(context, what, splits * SCAN_BYTES),
            measures: Buffer::new(context, what, splits * MEASURE_BYTES),
            found: Buffer::new(context, what, rows),
            keys: Buffer::new(context, what, rows * MOST),
            tokens: Buffer::new(context, what, rows),
            answer: Pinned::new(context, rows),
            early: VecDeque::new(),
            idle: early.collect(),
        }
    }

    /// What was chosen last for each row, `int [rows]`; less than zero where it is no token.
    pub(crate) fn tokens(&self) -> Address {
        self.tokens.at(0)
    }

    /// Starts to choose for rows that are plain.
    ///
    /// # Panics
    /// When as many batches are under way as can be.
    pub(crate) fn start(&mut self, cuda: &Cuda, logits: &Tensor, vocab: usize, rows: &[SampleRow]) {
        let request = Request::new(rows);
        let mut early = self.idle.pop().expect("a batch is read before there are more");
        early.rows = rows.len();
        tell(&request, &mut self.known, &mut early.told, &self.request);
        self.launch(cuda, logits, vocab, &request, early.answer.address());
        early.done.record();
        self.early.push_back(early);
    }

    /// Waits for the oldest batch under way.
    ///
    /// # Panics
    /// When there is none.
    pub(crate) fn finish(&mut self) -> Vec<Pick> {
        let early = self.early.pop_front().expect("somebody asked before");
        early.done.wait();
        let pick = |token: &i32| match *token {
            UNDECIDED => Pick::Undecided,
            token => u32::try_from(token).map_or(Pick::Nothing, Pick::Token),
        };
        let picks = early.answer.values().iter().take(early.rows).map(pick).collect();
        self.idle.push(early);
        picks
    }

    /// The card's word on each row; a token, or less than zero.
    fn ask(&mut self, cuda: &Cuda, logits: &Tensor, vocab: usize, request: &Request) -> &[i32] {
        tell(request, &mut self.known, &mut self.told, &self.request);
        self.launch(cuda, logits, vocab, request, self.answer.address());
        cuda.context.synchronize();
        self.answer.values().get(..request.rows()).unwrap_or_default()
    }

    /// Chooses, once the card knows of `request`, and leaves what it chose at `answer` as well.
    fn launch(
        &self,
        cuda: &Cuda,
        logits: &Tensor,
        vocab: usize,
        request: &Request,
        answer: Address,
    ) {
        let rows = request.rows();
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
            .arg(answer)
            .overlapping()
            .run();
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

/// Brings a request to the card, unless it holds the same words already, as in every step of greedy
/// answers.
fn tell(request: &Request, known: &mut Vec<u32>, told: &mut Pinned<u32>, at: &Buffer<u32>) {
    if !request.adjusts() && request.is(known) {
        return;
    }
    let words = request.write(told.values_mut());
    told.start_put(at, 0, words);
    known.clear();
    if !request.adjusts() {
        known.extend(told.values().iter().take(words));
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
