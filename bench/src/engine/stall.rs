//! How long a stream waits for its next token while another request's prompt is computed, and how
//! long a short prompt that comes behind that one waits for its first.

use std::time::Instant;

use anyhow::{Result, ensure};
use engine::TokenEngine;
use serde::{Deserialize, Serialize};

use super::run::Bench;

/// Tokens that the stream may take, its prompt included: more than there are steps.
pub(super) const STREAM: u32 = 2048;
/// Tokens that the stream takes before the prompt comes.
const ALONE: usize = 32;
/// Tokens of the short prompt.
pub(super) const SHORT: u32 = 64;
/// Steps that the long prompt is ahead of it.
const AHEAD: usize = 4;

/// Milliseconds between two tokens of a stream.
#[derive(Serialize, Deserialize)]
pub(super) struct Gaps {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

/// A prompt beside a stream.
#[derive(Serialize, Deserialize)]
pub(super) struct Stall {
    pub(super) prompt_tokens: u32,
    /// What the engine was told to keep.
    pub(super) allowed_ms: u32,
    /// The stream by itself.
    pub(super) alone: Gaps,
    /// While the prompt was computed.
    pub(super) beside: Gaps,
    /// Of the prompt.
    pub(super) tok_s: f64,
    /// A short prompt's time to its first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) short: Option<Short>,
}

/// A short prompt beside the stream, in milliseconds to its first token.
#[derive(Serialize, Deserialize)]
pub(super) struct Short {
    pub(super) tokens: u32,
    /// Nobody else has a prompt.
    pub(super) alone_ms: f64,
    /// Behind the long prompt, which is under way.
    pub(super) behind_ms: f64,
}

impl Bench<'_> {
    /// The engine hears of its steps' times, as from a daemon.
    pub(super) fn stall(&mut self, prompt_tokens: u32) -> Result<Stall> {
        let stream = self.submit(1, STREAM - 1)?;
        let alone: Result<Vec<_>> = (0..ALONE).map(|_| self.paced_step(stream)).collect();
        let alone = alone?.into_iter().map(|(took, _)| took).collect();
        // The first one shows the engine what a token costs.
        self.short_prompt(stream)?;
        let alone_ms = self.short_prompt(stream)?;
        let prompt = self.submit(prompt_tokens, 1)?;
        let began = Instant::now();
        let (mut beside, mut ended) = (Vec::new(), Vec::new());
        let (mut short, mut behind_ms) = (None, None);
        while !ended.contains(&prompt) {
            let took;
            (took, ended) = self.paced_step(stream)?;
            beside.push(took);
            if beside.len() == AHEAD {
                short = Some((self.submit(SHORT, 1)?, Instant::now()));
            }
            if let Some((id, asked)) = short
                && ended.contains(&id)
            {
                behind_ms = Some(asked.elapsed().as_secs_f64() * 1e3);
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        self.engine.abort(stream);
        Ok(Stall {
            prompt_tokens,
            allowed_ms: self.stall_ms,
            alone: gaps(alone),
            beside: gaps(beside),
            tok_s: f64::from(prompt_tokens) / seconds,
            short: behind_ms.map(|behind_ms| Short { tokens: SHORT, alone_ms, behind_ms }),
        })
    }

    /// Milliseconds until a short prompt has its token beside the stream.
    fn short_prompt(&mut self, stream: u64) -> Result<f64> {
        let (prompt, asked) = (self.submit(SHORT, 1)?, Instant::now());
        while !self.paced_step(stream)?.1.contains(&prompt) {}
        Ok(asked.elapsed().as_secs_f64() * 1e3)
    }

    /// A step's milliseconds, and who ended with it; the stream must get its token.
    fn paced_step(&mut self, stream: u64) -> Result<(f64, Vec<u64>)> {
        let began = Instant::now();
        let report = self.engine.step()?;
        let took = began.elapsed();
        self.engine.pace(took.as_micros() as u64);
        let got = report.updates.iter().find(|update| update.id == stream);
        ensure!(got.is_some_and(|got| got.end.is_none()), "the stream got no token in a step");
        let ended = report.updates.iter().filter(|update| update.end.is_some());
        Ok((took.as_secs_f64() * 1e3, ended.map(|update| update.id).collect()))
    }
}

fn gaps(mut all: Vec<f64>) -> Gaps {
    all.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    Gaps { p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1.0) }
}
