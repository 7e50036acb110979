//! Numbers that a model's steps leave behind, for `/health` and `/metrics`.

use std::time::Instant;

use engine::{Gauges, StepReport};

/// Work of about this many seconds counts in a rate.
const RATE_WINDOW_SECS: f64 = 5.0;

/// Tokens per second over the last seconds of work; time without work does not dilute it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    tokens: f64,
    secs: f64,
}

impl Rate {
    fn add(&mut self, tokens: u32, secs: f64) {
        if tokens == 0 {
            return;
        }
        let fade = (-secs / RATE_WINDOW_SECS).exp();
        self.tokens = self.tokens * fade + f64::from(tokens);
        self.secs = self.secs * fade + secs;
    }

    /// 0 before the first work.
    pub(crate) fn per_second(self) -> f64 {
        if self.secs > 0.0 { self.tokens / self.secs } else { 0.0 }
    }
}

/// What the steps of one model did so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StepCounts {
    /// As the last step left them.
    pub(crate) gauges: Gauges,
    /// Prompt tokens.
    pub(crate) prefill: Rate,
    /// Generated tokens.
    pub(crate) decode: Rate,
    /// When the last step's report came.
    pub(crate) last_step: Option<Instant>,
    /// Steps in all.
    pub(crate) steps: u64,
    /// Prompt tokens computed in all.
    pub(crate) prompt_tokens: u64,
    /// Prompt tokens that the prefix cache supplied in all.
    pub(crate) cached_tokens: u64,
    /// Tokens generated in all.
    pub(crate) generated_tokens: u64,
}

impl StepCounts {
    /// Takes a step in.
    pub(crate) fn add(&mut self, report: &StepReport) {
        let secs = report.step_micros as f64 / 1e6;
        self.gauges = report.gauges;
        self.prefill.add(report.prefill_tokens, secs);
        self.decode.add(report.decode_tokens, secs);
        self.last_step = Some(Instant::now());
        self.steps += 1;
        self.prompt_tokens += u64::from(report.prefill_tokens);
        let cached = report.started.iter().map(|started| u64::from(started.cached_tokens));
        self.cached_tokens += cached.sum::<u64>();
        self.generated_tokens += u64::from(report.decode_tokens);
    }
}

/// How the requests to one model ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestCounts {
    /// With a complete answer.
    pub(crate) completed: u64,
    /// Refused before an answer began.
    pub(crate) refused: u64,
    /// With an error.
    pub(crate) failed: u64,
    /// The client left.
    pub(crate) cancelled: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(prefill_tokens: u32, decode_tokens: u32, step_micros: u64) -> StepReport {
        StepReport { prefill_tokens, decode_tokens, step_micros, ..StepReport::default() }
    }

    #[test]
    fn a_rate_follows_the_work_and_ignores_steps_of_the_other_kind() {
        let mut counts = StepCounts::default();
        assert_eq!(counts.decode.per_second(), 0.0);
        for _ in 0..100 {
            counts.add(&step(0, 2, 100_000));
        }
        counts.add(&step(512, 0, 2_000_000));
        assert!((counts.decode.per_second() - 20.0).abs() < 1e-6);
        assert!((counts.prefill.per_second() - 256.0).abs() < 1e-6);
        // Seven windows later only the new pace is left.
        for _ in 0..350 {
            counts.add(&step(0, 1, 100_000));
        }
        assert!((counts.decode.per_second() - 10.0).abs() < 0.1);
        assert_eq!((counts.steps, counts.generated_tokens), (451, 550));
    }
}
