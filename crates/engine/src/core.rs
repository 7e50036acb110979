//! The loop: `schedule -> StepPlan -> step -> apply`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kernels::sample::{Choice, SampleRow};
use scheduler::{Entry, NewRequest, Occupancy, Refused, Sampled, Scheduler, StepPlan, Update};

use crate::contract::{
    Admission, Embedding, End, EngineInfo, Fault, Gauges, Pooling, Refusal, RequestId, Settled,
    Started, StepReport, TokenEngine, TokenLogprobs, TokenRequest, TokenUpdate,
};
use crate::executor::Execute;
use crate::grammar::Vocabulary;
use crate::inputs::{checkpoint_positions, step_work};
use crate::live::LiveRequest;
use crate::mask::{Compiled, Compiler, GrammarState, MAX_JOBS, NothingDone, Ticket};
use crate::masks;
use crate::pace::Pace;
use crate::pooling::Pool;
use crate::sampler::{RequestSampler, restrict};

/// With nothing else to do, a step waits so long for a grammar, and new requests with it.
const PENDING_PAUSE: Duration = Duration::from_millis(5);

/// An engine with its model loaded.
pub struct Engine {
    info: EngineInfo,
    pub(crate) scheduler: Scheduler,
    pub(crate) executor: Box<dyn Execute>,
    pub(crate) live: HashMap<RequestId, LiveRequest>,
    /// A step that has begun before the one before it was read: see the module `ahead`.
    pub(crate) ahead: Option<StepPlan>,
    /// `None` until somebody says what the tokens spell.
    compiler: Option<Compiler>,
    /// Requests that wait for their grammar.
    pending: BTreeMap<RequestId, (TokenRequest, Ticket)>,
    pace: Pace,
    /// Tokens of prompts that the last step computed; `None` when it computed nothing at all.
    last_prompt_tokens: Option<u32>,
    /// Prompts of which a mean was wanted, so far.
    means: u64,
}

/// What a row came to, and the choice where the host made or saw it.
type Outcome = (Sampled, Option<Choice>);

impl Engine {
    pub(crate) fn new(
        info: EngineInfo,
        scheduler: Scheduler,
        executor: Box<dyn Execute>,
        pace: Pace,
    ) -> Self {
        let (live, pending) = (HashMap::new(), BTreeMap::new());
        Self {
            info,
            scheduler,
            executor,
            live,
            ahead: None,
            compiler: None,
            pending,
            pace,
            last_prompt_tokens: None,
            means: 0,
        }
    }

    fn check(&self, request: &TokenRequest) -> Result<(), Refusal> {
        if self.live.contains_key(&request.id) || self.pending.contains_key(&request.id) {
            return Err(Refusal::Invalid("the request id is in use".to_owned()));
        }
        request.sampling.check()?;
        let vocab = self.info.vocab_size;
        let mut tokens = request.prompt.iter().chain(&request.answered);
        match tokens.find(|token| **token >= vocab) {
            Some(token) => {
                Err(Refusal::Invalid(format!("token {token} is not below the vocabulary {vocab}")))
            }
            None => Ok(()),
        }
    }

    /// Marks the requests that a plan works on for the first time.
    fn started(&mut self, plan: &StepPlan) -> Vec<Started> {
        let mut started = Vec::new();
        for admitted in &plan.admitted {
            if let Some(live) = self.live.get_mut(&admitted.request)
                && !live.started
            {
                live.started = true;
                started.push(Started {
                    id: admitted.request,
                    cached_tokens: admitted.cached_tokens,
                    diverged_at: admitted.diverged_at,
                });
            }
        }
        started
    }

    /// `choice` is what the step chose for the request, if it chose anything.
    fn book(&mut self, update: &Update, choice: Option<Choice>) -> TokenUpdate {
        let mut failed = false;
        if let Some(live) = self.live.get_mut(&update.request) {
            if let Some(token) = update.token {
                live.accept(token);
            }
            failed = live.grammar.as_ref().is_some_and(GrammarState::failed);
        }
        if update.end.is_some() {
            self.live.remove(&update.request);
        }
        let logprobs = choice.and_then(|choice| choice.logprobs).filter(|_| update.token.is_some());
        TokenUpdate {
            id: update.request,
            tokens: update.token.into_iter().collect(),
            logprobs: logprobs
                .map(|it| TokenLogprobs { chosen: it.chosen, top: it.top })
                .into_iter()
                .collect(),
            end: update.end.map(|end| match end {
                scheduler::End::Stop => End::Stop,
                scheduler::End::Length => End::Length,
                scheduler::End::NotFinite | scheduler::End::Nothing if failed => End::Grammar,
                scheduler::End::NotFinite | scheduler::End::Nothing => End::NotFinite,
            }),
        }
    }

    /// What a row's choice means for the scheduler. Where the request itself narrows what may be
    /// chosen, no choice says nothing of the model's numbers.
    fn sampled(&self, entry: &Entry, choice: &Option<Choice>) -> Sampled {
        let narrowed = self
            .live
            .get(&entry.request)
            .is_some_and(|live| live.grammar.is_some() || live.sampler.narrows());
        match choice {
            Some(choice) => Sampled::Token(choice.token),
            None if narrowed => Sampled::Nothing,
            None => Sampled::NotFinite,
        }
    }

    /// Puts a request into the scheduler's line.
    fn add(&mut self, request: TokenRequest, grammar: Option<GrammarState>) -> Result<(), Refusal> {
        let sampler = RequestSampler::new(&request);
        let pool = request.pooling.map(Pool::new);
        let (id, prompt, max_tokens) =
            (request.id, request.prompt.len() as u32, request.max_tokens);
        let new = NewRequest {
            id,
            max_tokens,
            stop_tokens: request.stop_tokens,
            boundaries: checkpoint_positions(&request.boundaries, prompt),
            isolation: match request.pooling {
                // A key that no caller has: what others computed would be missing in the mean.
                Some(Pooling::Mean) => {
                    self.means += 1;
                    u64::MAX - self.means
                }
                _ => request.isolation,
            },
            prompt: request.prompt,
            answered: request.answered.clone(),
        };
        self.scheduler.add(new).map_err(|refused| match refused {
            Refused::TooLong { limit } => Refusal::TooLong { prompt, max_tokens, context: limit },
            Refused::QueueFull { waiting } => Refusal::QueueFull { waiting },
            Refused::Invalid(reason) => Refusal::Invalid(reason.to_owned()),
        })?;
        let mut live = LiveRequest { sampler, grammar, pool, started: false, is_undecided: false };
        request.answered.into_iter().for_each(|token| live.accept(token));
        self.live.insert(id, live);
        Ok(())
    }

    /// Takes in the grammars that are done; waits for one when there is nothing else to do.
    fn settle(&mut self) -> Vec<Settled> {
        let mut settled = Vec::new();
        while let Some(compiler) = self.compiler.as_ref().filter(|_| !self.pending.is_empty()) {
            let is_idle = settled.is_empty() && self.scheduler.is_idle();
            let next = if is_idle { compiler.wait(PENDING_PAUSE) } else { compiler.next() };
            match next {
                Ok(done) if done.is_wanted() => {
                    let Compiled { id, result, .. } = done;
                    let Some((request, _)) = self.pending.remove(&id) else { continue };
                    let taken = result
                        .map_err(Refusal::Grammar)
                        .and_then(|grammar| self.add(request, Some(grammar)));
                    settled.push(Settled { id, refusal: taken.err() });
                }
                // Aborted in the meantime; another request may have its id by now.
                Ok(_) => {}
                Err(NothingDone::Yet) => break,
                Err(NothingDone::Ever) => {
                    self.compiler = None;
                    let refusal = || Some(Refusal::Grammar("grammars cannot be compiled".into()));
                    let pending = std::mem::take(&mut self.pending).into_keys();
                    settled.extend(pending.map(|id| Settled { id, refusal: refusal() }));
                }
            }
        }
        settled
    }

    /// What came of the entries that sample, in order. `has_begun` says that it is under way.
    fn outcomes(&mut self, plan: &StepPlan, has_begun: bool) -> Result<Vec<Outcome>, Fault> {
        if has_begun || self.begin_unread(plan)? {
            self.begin_ahead(plan)?;
            return Ok(self.finish(plan)?.into_iter().map(|sampled| (sampled, None)).collect());
        }
        let choices = self.compute(plan)?;
        let sampling = plan.entries.iter().filter(|entry| entry.sample).zip(choices);
        Ok(sampling.map(|(entry, choice)| (self.sampled(entry, &choice), choice)).collect())
    }

    /// Computes a plan's rows and chooses their tokens; masks are made in the meantime.
    fn compute(&mut self, plan: &StepPlan) -> Result<Vec<Option<Choice>>, Fault> {
        let sampling: Vec<_> = plan.entries.iter().filter(|entry| entry.sample).collect();
        let mut rows: Vec<SampleRow> = sampling
            .iter()
            .map(|entry| {
                let position = u64::from(entry.start) + entry.tokens.len() as u64;
                self.live[&entry.request].sampler.row(position)
            })
            .collect();
        let ids: Vec<RequestId> = sampling.iter().map(|entry| entry.request).collect();
        let work = step_work(plan);
        let (done, masks) = masks::meanwhile(&mut self.live, &ids, || self.executor.forward(&work));
        done?;
        for (row, mask) in rows.iter_mut().zip(masks) {
            if let Some(mask) = mask {
                restrict(row, mask);
            }
        }
        self.executor.sample(&rows)
    }
}

impl Engine {
    /// Takes the hidden states of a step's rows to those who pool them; the embeddings of prompts
    /// whose last row it was.
    fn pool(&mut self, plan: &StepPlan) -> Result<Vec<Embedding>, Fault> {
        let pools = |live: &LiveRequest| live.pool.is_some();
        if !plan.entries.iter().any(|entry| self.live.get(&entry.request).is_some_and(pools)) {
            return Ok(Vec::new());
        }
        let rows = plan.tokens() as usize;
        let states = self.executor.hidden(rows)?;
        let hidden = states.len() / rows;
        let mut done = Vec::new();
        let mut first = 0;
        for entry in &plan.entries {
            let end = first + entry.tokens.len();
            let own = &states[first * hidden..end * hidden];
            first = end;
            let pool = self.live.get_mut(&entry.request).and_then(|live| live.pool.as_mut());
            let Some(pool) = pool else { continue };
            pool.take(entry.start, own, hidden);
            if entry.sample {
                done.push(Embedding { id: entry.request, values: pool.values() });
                // What is generated behind the prompt is no part of it.
                self.live.entry(entry.request).and_modify(|live| live.pool = None);
            }
        }
        Ok(done)
    }
}

impl TokenEngine for Engine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn set_vocabulary(&mut self, vocabulary: Vocabulary) {
        self.compiler = Some(Compiler::start(vocabulary));
    }

    fn submit(&mut self, mut request: TokenRequest) -> Result<Admission, Refusal> {
        self.check(&request)?;
        let Some(grammar) = request.grammar.take() else {
            return self.add(request, None).map(|()| Admission::Accepted);
        };
        let Some(compiler) = &self.compiler else {
            let reason = "this engine was not told what its tokens spell";
            return Err(Refusal::Grammar(reason.to_owned()));
        };
        if request.stop_tokens.is_empty() {
            let reason = "an answer with a grammar needs a token by which it ends";
            return Err(Refusal::Grammar(reason.to_owned()));
        }
        let Some(ticket) = compiler.compile(request.id, grammar) else {
            return Err(Refusal::QueueFull { waiting: MAX_JOBS as u32 });
        };
        self.pending.insert(request.id, (request, ticket));
        Ok(Admission::Pending)
    }

    fn abort(&mut self, id: RequestId) {
        self.pending.remove(&id);
        self.scheduler.abort(id);
        self.live.remove(&id);
    }

    fn is_idle(&self) -> bool {
        self.scheduler.is_idle() && self.pending.is_empty()
    }

    fn gauges(&self) -> Gauges {
        let Occupancy { running, waiting, kv_blocks_free, state_slots_free } =
            self.scheduler.occupancy();
        let waiting = waiting + self.pending.len() as u32;
        let cache = self.scheduler.cache_counts().into();
        Gauges { running, waiting, kv_blocks_free, state_slots_free, cache }
    }

    fn step(&mut self) -> Result<StepReport, Fault> {
        let settled = self.settle();
        self.last_prompt_tokens = None;
        let ahead = self.take_ahead()?;
        let has_begun = ahead.is_some();
        let Some(plan) = ahead.or_else(|| self.scheduler.schedule()) else {
            return Ok(StepReport { settled, gauges: self.gauges(), ..StepReport::default() });
        };
        let started = self.started(&plan);
        let (sampled, choices): (Vec<_>, Vec<_>) =
            self.outcomes(&plan, has_begun)?.into_iter().unzip();
        let embeddings = self.pool(&plan)?;
        let decoded = sampled.len() as u32;
        let sampling = plan.entries.iter().filter(|entry| entry.sample);
        let mut chosen: HashMap<RequestId, Choice> = sampling
            .zip(choices)
            .filter_map(|(entry, choice)| Some((entry.request, choice?)))
            .collect();
        let updates = self.scheduler.apply(&plan, &sampled);
        let book = |update: &Update| self.book(update, chosen.remove(&update.request));
        let updates = updates.iter().map(book).collect();
        let prefill_tokens = plan.tokens() - decoded;
        self.last_prompt_tokens = Some(prefill_tokens);
        Ok(StepReport {
            settled,
            started,
            updates,
            embeddings,
            prefill_tokens,
            decode_tokens: decoded,
            step_micros: 0,
            gauges: self.gauges(),
        })
    }

    fn pace(&mut self, step_micros: u64) {
        // A step that computed nothing waited for something else.
        let Some(prompt_tokens) = self.last_prompt_tokens else { return };
        self.pace.observe(prompt_tokens, step_micros);
        if let Some(tokens) = self.pace.prompt_tokens() {
            self.scheduler.limit_prompts(tokens);
        }
    }
}

#[cfg(test)]
mod tests;
