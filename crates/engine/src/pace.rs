//! How much of a prompt a step may compute while other requests wait for their next token.
//!
//! A step's time is taken to be a base, which steps without prompts show, and so much for each
//! token of a prompt, which steps with prompts show. The share of prompts is what fits between the
//! base and the stall that is allowed. Both figures follow what is measured: a deeper context, a
//! busier machine, another batch.

/// The least share: below it a prompt would hardly get on, and the base would be paid too often.
pub(crate) const LEAST: u32 = 16;
/// The share before a prompt was measured.
const FIRST: u32 = 64;

/// See the module. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    allowed: f64,
    base: Option<f64>,
    per_token: Option<f64>,
}

impl Pace {
    /// Steps that streams wait for are to take at most `stall_ms`.
    pub(crate) fn new(stall_ms: u32) -> Self {
        Self { allowed: f64::from(stall_ms) * 1e3, base: None, per_token: None }
    }

    /// Books a step that computed so many tokens of prompts, besides those it decoded.
    pub(crate) fn observe(&mut self, prompt_tokens: u32, micros: u64) {
        let took = micros as f64;
        // Half of the old figure: one disturbed step is forgotten after a few.
        let follow = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| (old + new) / 2.0));
        if prompt_tokens == 0 {
            self.base = follow(self.base, took);
        } else {
            let more = (took - self.base.unwrap_or(0.0)).max(0.0);
            self.per_token = follow(self.per_token, more / f64::from(prompt_tokens));
        }
    }

    /// Tokens of prompts that a step may compute beside others' next tokens; `None` while nothing
    /// was measured, as where nobody reads a clock.
    pub(crate) fn prompt_tokens(&self) -> Option<u32> {
        let Some(per_token) = self.per_token else { return self.base.map(|_| FIRST) };
        let room = self.allowed - self.base.unwrap_or(0.0);
        // A float beyond the integers becomes the largest one, a negative one 0.
        Some(((room / per_token.max(1e-3)) as u32).max(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with a base of 15 ms and 3 ms a token, then one three times as slow.
    #[test]
    fn steps_come_to_take_what_is_allowed() {
        let mut pace = Pace::new(250);
        assert_eq!(pace.prompt_tokens(), None);
        let mut step = |tokens: u32, slow: u64| {
            let micros = slow * (15_000 + 3_000 * u64::from(tokens));
            pace.observe(tokens, micros);
            (pace.prompt_tokens().expect("measured"), micros)
        };
        assert_eq!(step(0, 1).0, FIRST);
        let (mut share, _) = step(FIRST, 1);
        assert_eq!(share, 78, "(250 - 15) / 3");
        for _ in 0..8 {
            step(0, 3);
            (share, _) = step(share, 3);
        }
        assert!((22..=24).contains(&share), "{share}: (250 - 45) / 9");
        assert!(step(share, 3).1 <= 252_000);
    }

    /// However slow the device, a prompt gets on.
    #[test]
    fn a_prompt_never_stands_still() {
        let mut pace = Pace::new(10);
        pace.observe(0, 900_000);
        pace.observe(64, 5_000_000);
        assert_eq!(pace.prompt_tokens(), Some(LEAST));
    }

    #[test]
    fn a_fast_device_is_not_held_back() {
        let mut pace = Pace::new(250);
        pace.observe(0, 4_000);
        pace.observe(512, 3_000);
        assert!(pace.prompt_tokens() > Some(1 << 20));
    }
}
