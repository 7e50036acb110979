//! From grammars to token masks.
//!
//! Grammars are compiled on a thread of their own, one after the other; the loop asks for what is
//! done and never waits for it while it has steps to take. Those whose request is gone by then are
//! passed over. A compiled grammar belongs to one
//! request and lives as long as that: a preempted request keeps its own, which has read all of its
//! tokens, so that resuming needs nothing.

use std::collections::VecDeque;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError, channel,
    sync_channel,
};
use std::sync::{Arc, Weak};
use std::time::Duration;

use kernels::sample::TokenMask;
use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use crate::contract::RequestId;
use crate::grammar::{Grammar, Vocabulary};

/// Grammars that may wait for the compiler, those of requests that are gone included.
pub(crate) const MAX_JOBS: usize = 256;
/// Compiled grammars that are kept for the next request that has the same.
const KEPT_GRAMMARS: usize = 8;
/// The compiler walks schemas and expressions recursively.
const COMPILER_STACK_BYTES: usize = 32 << 20;
/// Work on a grammar's expressions before it is refused: about a second.
const COMPILE_FUEL: u64 = 2_000_000;
/// Productions of a grammar, a few megabytes.
const GRAMMAR_SYMBOLS: usize = 200_000;
/// States of a request's lexer, at one or two kilobytes each.
const LEXER_STATES: usize = 30_000;

/// A grammar that is done, or why it is refused.
pub(crate) struct Compiled {
    pub(crate) id: RequestId,
    pub(crate) result: Result<GrammarState, String>,
    wanted: Weak<()>,
}

impl Compiled {
    /// Whether the request that asked is still there.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.strong_count() > 0
    }
}

/// Says that a request still wants its grammar, by being there.
#[derive(Debug)]
pub(crate) struct Ticket(#[expect(dead_code, reason = "held, not read")] Arc<()>);

struct Job {
    id: RequestId,
    grammar: Grammar,
    wanted: Weak<()>,
}

/// The compiler's thread, as the loop knows it.
pub(crate) struct Compiler {
    jobs: SyncSender<Job>,
    done: Receiver<Compiled>,
}

/// Why there is nothing to take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NothingDone {
    /// Nothing is done yet.
    Yet,
    /// The thread is gone, and nothing more will come.
    Ever,
}

impl Compiler {
    /// Starts the thread; grammars wait until the vocabulary is in order.
    pub(crate) fn start(vocabulary: Vocabulary) -> Self {
        let (jobs, inbox) = sync_channel(MAX_JOBS);
        let (outbox, done) = channel();
        std::thread::Builder::new()
            .name("grammars".to_owned())
            .stack_size(COMPILER_STACK_BYTES)
            .spawn(move || compile_all(vocabulary, &inbox, &outbox))
            .expect("the system gives no more threads");
        Self { jobs, done }
    }

    /// Takes a request's grammar into the line; `None` when that is full. Without its ticket the
    /// grammar is passed over.
    #[must_use]
    pub(crate) fn compile(&self, id: RequestId, grammar: Grammar) -> Option<Ticket> {
        let ticket = Arc::new(());
        let job = Job { id, grammar, wanted: Arc::downgrade(&ticket) };
        match self.jobs.try_send(job) {
            // Without its thread, taking what is done says so.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Some(Ticket(ticket)),
            Err(TrySendError::Full(_)) => None,
        }
    }

    /// The next grammar that is done.
    pub(crate) fn next(&self) -> Result<Compiled, NothingDone> {
        self.done.try_recv().map_err(|error| match error {
            TryRecvError::Empty => NothingDone::Yet,
            TryRecvError::Disconnected => NothingDone::Ever,
        })
    }

    /// Like [`Compiler::next`], but waits for a while.
    pub(crate) fn wait(&self, at_most: Duration) -> Result<Compiled, NothingDone> {
        self.done.recv_timeout(at_most).map_err(|error| match error {
            RecvTimeoutError::Timeout => NothingDone::Yet,
            RecvTimeoutError::Disconnected => NothingDone::Ever,
        })
    }
}

fn compile_all(vocabulary: Vocabulary, jobs: &Receiver<Job>, done: &Sender<Compiled>) {
    let factory = factory(vocabulary);
    let mut kept: VecDeque<(Grammar, GrammarState)> = VecDeque::new();
    while let Ok(Job { id, grammar, wanted }) = jobs.recv() {
        if wanted.strong_count() == 0 {
            continue;
        }
        let known = kept.iter().find(|(known, _)| *known == grammar);
        let result = match (known, &factory) {
            (Some((_, state)), _) => Ok(state.fresh_copy()),
            (None, Ok(factory)) => compile(factory, &grammar),
            (None, Err(reason)) => Err(reason.clone()),
        };
        if let (None, Ok(state)) = (known, &result) {
            kept.truncate(KEPT_GRAMMARS - 1);
            kept.push_front((grammar, state.fresh_copy()));
        }
        if done.send(Compiled { id, result, wanted }).is_err() {
            return;
        }
    }
}

/// The vocabulary as a trie, with one more token behind its last: the end of a word.
fn factory(vocabulary: Vocabulary) -> Result<ParserFactory, String> {
    let Vocabulary { bytes: mut words, specials } = vocabulary;
    for id in specials {
        if let Some(word) = words.get_mut(id as usize) {
            word.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
        }
    }
    let end = words.len() as u32;
    words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], "<end>".as_bytes()].concat());
    let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
    drop(words);
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let slices = SlicedBiasComputer::general_slices();
    let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
        .map_err(|error| format!("this model's vocabulary takes no grammar: {error}"))?;
    factory.quiet();
    let limits = factory.limits_mut();
    limits.initial_lexer_fuel = COMPILE_FUEL;
    limits.max_grammar_size = GRAMMAR_SYMBOLS;
    limits.max_lexer_states = LEXER_STATES;
    limits.verbose_errors = false;
    Ok(factory)
}

fn compile(factory: &ParserFactory, grammar: &Grammar) -> Result<GrammarState, String> {
    let parser = factory.create_parser(TopLevelGrammar::from_lark(grammar.0.clone()));
    let parser = parser.map_err(|error| one_line(&format!("{error:#}")))?;
    let end = factory.tok_env().tok_trie().eos_token();
    Ok(GrammarState { matcher: Matcher::new(Ok(parser)), end, failed: false })
}

/// The reason without the grammar that the library shows below it, line by numbered line.
fn one_line(message: &str) -> String {
    const LONGEST: usize = 400;
    let is_grammar = |line: &str| {
        line.split_once(" | ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
    };
    let lines = message.lines().map(str::trim).take_while(|line| !is_grammar(line));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// A request's grammar and how far its answer has come in it.
pub(crate) struct GrammarState {
    matcher: Matcher,
    /// Allowed where the answer may end.
    end: u32,
    failed: bool,
}

impl GrammarState {
    /// Reads a token of the answer.
    pub(crate) fn accept(&mut self, token: u32, stop_tokens: &[u32]) {
        // The last token of an answer; the grammar does not know it.
        if stop_tokens.contains(&token) {
            return;
        }
        self.failed |= self.matcher.consume_token(token).is_err();
    }

    /// The tokens that may come next: none once the grammar has failed, and the stop tokens where
    /// the answer may end.
    pub(crate) fn mask(&mut self, stop_tokens: &[u32]) -> TokenMask {
        let Ok(mask) = self.matcher.compute_mask_or_eos() else {
            self.failed = true;
            return TokenMask::from_words([]);
        };
        let mut words = mask.as_slice().to_vec();
        let bit = |id: u32| (id as usize / 32, 1_u32 << (id % 32));
        let (word, end) = bit(self.end);
        let may_end = words[word] & end != 0;
        words[word] &= !end;
        for (word, stop) in stop_tokens.iter().map(|id| bit(*id)).filter(|_| may_end) {
            if let Some(word) = words.get_mut(word) {
                *word |= stop;
            }
        }
        TokenMask::from_words(words)
    }

    /// Whether the answer can no longer be followed: a limit was hit.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// For another request; nothing of it has been read.
    fn fresh_copy(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), end: self.end, failed: false }
    }
}

#[cfg(test)]
mod tests;
