//! Drives an engine and takes the times.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use engine::{Device, Engine, EngineInfo, EngineSpec, TokenEngine, TokenRequest};
use model::Source;

use super::traffic::Traffic;
use super::{Decode, Options, Prefill, Report, classes, origin, stall};

pub(super) fn measure(
    options: &Options,
    path: &Path,
    device: String,
    threads: u32,
    stream_gb_s: f64,
) -> Result<Report> {
    let source = Source::open(path)?;
    let traffic = Traffic::of(&source)?;
    let spec = spec(options, path, threads);
    let mut engine = engine::load(&spec, &mut |_, _| {})
        .with_context(|| format!("cannot load {}", path.display()))?;
    let info = engine.info().clone();
    let mut bench =
        Bench { engine: &mut engine, next: 0, vocab: info.vocab_size, stall_ms: options.stall_ms };
    let mut prefill = Vec::new();
    for &tokens in &options.prefill {
        let times = (0..options.repeat).map(|_| bench.prefill(tokens));
        let seconds = median(times.collect::<Result<_>>()?);
        prefill.push(Prefill { tokens, tok_s: f64::from(tokens) / seconds });
    }
    let mut decode = Vec::new();
    for (depth, batch) in options.decodes() {
        let times = (0..options.repeat).map(|_| bench.decode(depth, batch, options.tokens));
        let seconds = median(times.collect::<Result<_>>()?) / f64::from(options.tokens);
        let gb_s = traffic.bytes(depth + options.tokens / 2, batch) / seconds / 1e9;
        let tok_s = f64::from(batch) / seconds;
        let share = Some(gb_s / stream_gb_s);
        let classes = match options.classes {
            true => bench.classes(depth, batch, &traffic)?,
            false => Vec::new(),
        };
        decode.push(Decode { depth, batch, tok_s, gb_s: Some(gb_s), share, classes });
    }
    let stall = match options.stall {
        Some(prompt) => Some(bench.stall(prompt)?),
        None => None,
    };
    let EngineInfo { architecture, quant, .. } = info;
    Ok(Report {
        model: path.display().to_string(),
        architecture: Some(architecture),
        quant: Some(quant),
        device: Some(device),
        threads: Some(threads),
        weight_bytes: Some(traffic.weights),
        command: origin::command(),
        sha: options.sha.clone().unwrap_or_else(origin::sha),
        date: origin::today(),
        stream_gb_s: Some(stream_gb_s),
        prefill,
        decode,
        stall,
    })
}

fn spec(options: &Options, path: &Path, threads: u32) -> EngineSpec {
    let prompts = options.prefill.iter().chain(&options.stall);
    let longest_prompt = prompts.max().copied().unwrap_or(0);
    let deepest = options.depth.iter().max().copied().unwrap_or(0);
    let first_depth = options.depth.first().copied().unwrap_or(0);
    let widest = options.batch.iter().max().copied().unwrap_or(1);
    // A prompt has a token even at depth 0, and a sequence begins with one more step than is timed.
    let tokens = options.tokens.max(classes::STEPS) + 2;
    let context = longest_prompt.max(deepest + tokens).max(stall::STREAM) + 1;
    let block = 16;
    let batches = widest * (first_depth + tokens).div_ceil(block);
    let beside = options.stall.map_or(0, |_| (stall::STREAM + 1).div_ceil(block) + stall::SHORT);
    let blocks = (context.div_ceil(block) + beside).max(batches);
    let budget = if options.device == Device::Cpu { 512 } else { 4096 };
    EngineSpec {
        context: Some(context),
        // A stream, and a long and a short prompt beside it.
        max_running: widest.max(3),
        stall_ms: options.stall_ms,
        token_budget: options.token_budget.unwrap_or(budget),
        device: options.device,
        kv_blocks: Some(blocks),
        threads: Some(threads),
        // Every prompt is to be computed.
        prefix_cache: false,
        ..EngineSpec::new(path)
    }
}

pub(super) struct Bench<'a> {
    pub(super) engine: &'a mut Engine,
    /// Numbers requests and, so that no two prompts share a beginning, their tokens.
    next: u64,
    vocab: u32,
    pub(super) stall_ms: u32,
}

impl Bench<'_> {
    /// A request of its own; its id.
    pub(super) fn submit(&mut self, prompt: u32, max_tokens: u32) -> Result<u64> {
        self.next += 1;
        let mix = |at: u32| (u64::from(at) * 7919 + self.next * 104_729) % u64::from(self.vocab);
        let prompt = (0..prompt).map(|at| mix(at) as u32).collect();
        self.engine.submit(TokenRequest::new(self.next, prompt, max_tokens))?;
        Ok(self.next)
    }

    fn prefill(&mut self, tokens: u32) -> Result<Duration> {
        self.submit(tokens, 1)?;
        let start = Instant::now();
        while !self.engine.is_idle() {
            self.engine.step()?;
        }
        Ok(start.elapsed())
    }

    fn decode(&mut self, depth: u32, batch: u32, tokens: u32) -> Result<Duration> {
        self.begin_decoding(depth, batch, tokens + 1)?;
        let start = Instant::now();
        for _ in 0..tokens {
            let report = self.engine.step()?;
            ensure!(report.decode_tokens == batch, "a step did not decode all sequences");
        }
        let elapsed = start.elapsed();
        ensure!(self.engine.is_idle(), "sequences outlived their measurement");
        Ok(elapsed)
    }

    /// Submits prompts and computes them: each sequence has its first of so many tokens.
    pub(super) fn begin_decoding(&mut self, depth: u32, batch: u32, tokens: u32) -> Result<()> {
        for _ in 0..batch {
            self.submit(depth.max(1), tokens)?;
        }
        let mut first_tokens = 0;
        while first_tokens < batch {
            // With a batch, some decode while others still compute their prompts; those that are
            // ahead would end early, so the first tokens must all come in one step.
            first_tokens += self.engine.step()?.decode_tokens;
        }
        ensure!(first_tokens == batch, "prompts of a batch did not end in one step");
        Ok(())
    }
}

pub(super) fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}
