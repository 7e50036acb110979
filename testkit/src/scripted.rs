//! An engine without a model.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use engine::{
    Admission, Device, Embedding, End, EngineInfo, Fault, Gauges, PartCount, PrefixCacheInfo,
    RankBytes, Refusal, RequestId, Started, StepReport, TokenEngine, TokenLogprobs, TokenRequest,
    TokenUpdate, Vocabulary,
};
use serde::{Deserialize, Serialize};

use crate::scene::{Scene, Spelling, choose};

/// Tokens of a KV block of the scripted engine.
const BLOCK_SIZE: u32 = 16;

/// What a [`ScriptedEngine`] does; read from `script.json` in a model directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The answer to every prompt; by default the prompt itself, again and again.
    pub answer: Option<Vec<u32>>,
    /// Answers in words, each to its prompts; they go before `answer`.
    pub scenes: Vec<Scene>,
    /// How long every step takes.
    pub step_ms: u64,
    /// How long the load takes.
    pub load_ms: u64,
    /// The load fails.
    pub fail_load: Option<FailedLoad>,
    /// The process ends during the load without a word, as if it were killed.
    pub die_in_load: bool,
    /// The step after this many faults.
    pub fault_after_steps: Option<u64>,
    /// The step after this many never returns.
    pub hang_after_steps: Option<u64>,
    /// A request's logits are not finite once it has this many tokens.
    pub not_finite_after: Option<u32>,
    /// See [`EngineInfo::vocab_size`].
    pub vocab_size: u32,
    /// See [`EngineInfo::context`].
    pub context: u32,
    /// See [`EngineInfo::max_running`].
    pub max_running: u32,
    /// Requests that may wait.
    pub max_waiting: u32,
}

/// A load that fails with these words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLoad {
    /// For example `does_not_fit`.
    pub code: String,
    /// What the caller reads.
    pub message: String,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            answer: None,
            scenes: Vec::new(),
            step_ms: 0,
            load_ms: 0,
            fail_load: None,
            die_in_load: false,
            fault_after_steps: None,
            hang_after_steps: None,
            not_finite_after: None,
            vocab_size: 512,
            context: 4096,
            max_running: 4,
            max_waiting: 64,
        }
    }
}

impl Script {
    /// The script of a model directory; one without a script gets the default.
    pub fn read(dir: &Path) -> io::Result<Self> {
        match fs::read(dir.join("script.json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Puts the script where [`Script::read`] finds it.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        fs::write(dir.join("script.json"), serde_json::to_vec_pretty(self)?)
    }
}

#[derive(Debug)]
struct Running {
    request: TokenRequest,
    generated: u32,
    /// What is said, again and again.
    words: Vec<u32>,
    fault_after: Option<u32>,
    /// Tokens that were forced; the script goes on where it was.
    forced: u32,
    part: Option<PartCount>,
}

impl Running {
    fn blocks(&self) -> u32 {
        (self.request.prompt.len() as u32 + self.generated).div_ceil(BLOCK_SIZE)
    }
}

/// An engine whose tokens come from a [`Script`]: one token a step for every running request.
///
/// It keeps the book on blocks and slots that a real engine keeps, so that leaks show.
#[derive(Debug)]
pub struct ScriptedEngine {
    script: Script,
    info: EngineInfo,
    running: Vec<Running>,
    waiting: VecDeque<TokenRequest>,
    spelling: Spelling,
    steps: u64,
}

impl ScriptedEngine {
    /// An idle engine.
    pub fn new(script: Script) -> Self {
        let kv_blocks = script.max_running * script.context.div_ceil(BLOCK_SIZE);
        let info = EngineInfo {
            architecture: "scripted".into(),
            quant: "none".into(),
            device: Device::Cpu,
            vocab_size: script.vocab_size,
            context: script.context,
            max_running: script.max_running,
            block_size: BLOCK_SIZE,
            kv_blocks,
            state_slots: script.max_running,
            checkpoint_slots: 0,
            ranks: vec![RankBytes { weights: 8 << 20, kv: 1 << 20, state: 0, workspace: 0 }],
            prefix_cache: PrefixCacheInfo {
                off: Some("a script has none".into()),
                ..PrefixCacheInfo::default()
            },
            unsound: None,
        };
        let (running, waiting) = (Vec::new(), VecDeque::new());
        Self { script, info, running, waiting, spelling: Spelling::default(), steps: 0 }
    }

    fn admit(&mut self) -> Vec<Started> {
        let mut started = Vec::new();
        while self.running.len() < self.info.max_running as usize {
            let Some(request) = self.waiting.pop_front() else { break };
            started.push(Started { id: request.id, cached_tokens: 0, diverged_at: None });
            self.running.push(self.begin(request));
        }
        started
    }

    fn begin(&self, request: TokenRequest) -> Running {
        let (words, fault_after) = match choose(&self.script.scenes, &self.spelling, &request) {
            Some((scene, words)) => (words, scene.fault_after),
            None => (self.script.answer.clone().unwrap_or_else(|| request.prompt.clone()), None),
        };
        let part = request.part_limit.clone().map(PartCount::new);
        Running { request, generated: 0, words, fault_after, forced: 0, part }
    }
}

/// The next token of a request, and whether it is its last.
fn advance(script: &Script, entry: &mut Running) -> TokenUpdate {
    let id = entry.request.id;
    if script.not_finite_after == Some(entry.generated) {
        return TokenUpdate { id, tokens: vec![], logprobs: vec![], end: Some(End::NotFinite) };
    }
    let scripted = entry.words[(entry.generated - entry.forced) as usize % entry.words.len()];
    let forced = entry.part.as_ref().and_then(PartCount::forced);
    let token = forced.unwrap_or(scripted);
    entry.forced += u32::from(forced.is_some());
    if let Some(part) = &mut entry.part {
        part.accept(token);
    }
    entry.generated += 1;
    let length = entry.request.prompt.len() as u32 + entry.generated;
    let stops = entry.request.stop_tokens.contains(&token);
    let end = if stops && entry.generated > entry.request.min_tokens {
        Some(End::Stop)
    } else if entry.generated >= entry.request.max_tokens || length >= script.context {
        Some(End::Length)
    } else {
        None
    };
    // Each token is as probable as the first of its rivals, and the next ones half as much each.
    let top = |count: u8| {
        let rival = |at: u8| (token + u32::from(at), -0.5 - std::f32::consts::LN_2 * f32::from(at));
        TokenLogprobs { chosen: -0.5, top: (0..count).map(rival).collect() }
    };
    let logprobs = entry.request.top_logprobs.map(top).into_iter().collect();
    TokenUpdate { id, tokens: vec![token], logprobs, end }
}

/// Four numbers that tell prompts apart and are not of length 1.
fn embedding(request: &TokenRequest) -> Embedding {
    let mut values = vec![0.0_f32; 4];
    for (at, token) in request.prompt.iter().enumerate() {
        values[at % 4] += 1.0 + *token as f32;
    }
    Embedding { id: request.id, values }
}

impl TokenEngine for ScriptedEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// It follows its script, whatever grammar a request has.
    fn set_vocabulary(&mut self, vocabulary: Vocabulary) {
        self.spelling = Spelling::new(vocabulary);
    }

    fn submit(&mut self, request: TokenRequest) -> Result<Admission, Refusal> {
        let prompt = request.prompt.len() as u32;
        if prompt == 0 {
            return Err(Refusal::Invalid("the prompt is empty".into()));
        }
        let (max_tokens, context) = (request.max_tokens, self.info.context);
        if prompt.saturating_add(max_tokens) > context {
            return Err(Refusal::TooLong { prompt, max_tokens, context });
        }
        let waiting = self.waiting.len() as u32;
        if waiting >= self.script.max_waiting {
            return Err(Refusal::QueueFull { waiting });
        }
        self.waiting.push_back(request);
        Ok(Admission::Accepted)
    }

    fn abort(&mut self, id: RequestId) {
        self.waiting.retain(|request| request.id != id);
        self.running.retain(|entry| entry.request.id != id);
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    fn gauges(&self) -> Gauges {
        let held: u32 = self.running.iter().map(Running::blocks).sum();
        Gauges {
            running: self.running.len() as u32,
            waiting: self.waiting.len() as u32,
            kv_blocks_free: self.info.kv_blocks - held,
            state_slots_free: self.info.state_slots - self.running.len() as u32,
            ..Gauges::default()
        }
    }

    fn step(&mut self) -> Result<StepReport, Fault> {
        let over = |entry: &Running| entry.fault_after.is_some_and(|most| entry.generated >= most);
        if self.script.fault_after_steps == Some(self.steps) || self.running.iter().any(over) {
            return Err(Fault("the script says so".into()));
        }
        while self.script.hang_after_steps == Some(self.steps) {
            thread::sleep(Duration::from_secs(1));
        }
        self.steps += 1;
        thread::sleep(Duration::from_millis(self.script.step_ms));
        let started = self.admit();
        let prefill = self.running.iter().filter(|entry| entry.generated == 0);
        let prefill_tokens = prefill.map(|entry| entry.request.prompt.len() as u32).sum();
        let script = &self.script;
        let pooled = self
            .running
            .iter()
            .filter(|entry| entry.generated == 0 && entry.request.pooling.is_some());
        let embeddings = pooled.map(|entry| embedding(&entry.request)).collect();
        let updates: Vec<_> = self.running.iter_mut().map(|entry| advance(script, entry)).collect();
        for update in updates.iter().filter(|update| update.end.is_some()) {
            self.running.retain(|entry| entry.request.id != update.id);
        }
        Ok(StepReport {
            settled: Vec::new(),
            started,
            decode_tokens: updates.iter().map(|update| update.tokens.len() as u32).sum(),
            updates,
            embeddings,
            prefill_tokens,
            step_micros: 0,
            gauges: self.gauges(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: RequestId, prompt: Vec<u32>, max_tokens: u32) -> TokenRequest {
        TokenRequest { stop_tokens: vec![9], ..TokenRequest::new(id, prompt, max_tokens) }
    }

    fn run(engine: &mut ScriptedEngine) -> Vec<TokenUpdate> {
        let mut updates = Vec::new();
        while !engine.is_idle() {
            updates.extend(engine.step().unwrap().updates);
        }
        updates
    }

    #[test]
    fn echoes_until_a_limit_or_a_stop_token_and_gives_everything_back() {
        let mut engine = ScriptedEngine::new(Script::default());
        let idle = engine.gauges();
        engine.submit(request(1, vec![5, 6], 3)).unwrap();
        engine.submit(request(2, vec![5, 9], 8)).unwrap();
        let updates = run(&mut engine);
        let tokens = |id| -> Vec<u32> {
            updates.iter().filter(|u| u.id == id).flat_map(|u| u.tokens.clone()).collect()
        };
        let end = |id| updates.iter().filter(|u| u.id == id).find_map(|u| u.end);
        assert_eq!((tokens(1), end(1)), (vec![5, 6, 5], Some(End::Length)));
        assert_eq!((tokens(2), end(2)), (vec![5, 9], Some(End::Stop)));
        assert_eq!(engine.gauges(), idle);
    }

    #[test]
    fn an_abort_frees_its_seat_for_a_waiting_request() {
        let script = Script { max_running: 1, ..Script::default() };
        let mut engine = ScriptedEngine::new(script);
        engine.submit(request(1, vec![5], 100)).unwrap();
        engine.submit(request(2, vec![6], 1)).unwrap();
        assert_eq!(engine.step().unwrap().started[0].id, 1);
        engine.abort(1);
        assert_eq!(engine.step().unwrap().started[0].id, 2);
        assert!(engine.is_idle());
    }

    #[test]
    fn scripted_trouble_happens_at_its_time() {
        let script = Script { fault_after_steps: Some(1), ..Script::default() };
        let mut engine = ScriptedEngine::new(script);
        engine.submit(request(1, vec![5], 100)).unwrap();
        assert!(engine.step().is_ok());
        assert!(engine.step().is_err());

        let script = Script { not_finite_after: Some(1), ..Script::default() };
        let mut engine = ScriptedEngine::new(script);
        engine.submit(request(1, vec![5], 100)).unwrap();
        assert_eq!(run(&mut engine).last().unwrap().end, Some(End::NotFinite));
    }
}
