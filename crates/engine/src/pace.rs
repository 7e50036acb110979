//! How much of a prompt a step may compute while other requests wait for their next token.
//!
//! A step's time is taken to be a base, which steps without prompts show, and so much for each
//! token of a prompt, which steps with prompts show. Both follow what is measured: a deeper
//! context, a busier machine, another batch. An average alone would let every second step take
//! longer than is allowed, so a token is priced at the average and four times the usual distance
//! from it, as the timers of TCP are set. On a machine that is busy with other things the distance
//! grows, and with it what is kept in reserve.

/// The least share: below it a prompt would hardly get on, and the base would be paid too often.
pub(crate) const LEAST: u32 = 16;
/// How many times the largest share so far the next one may be: what a token costs in a small
/// share says little about a large one.
const GROWTH: u32 = 4;
/// Distances above the average that a step's time is foreseen with.
const RESERVE: f64 = 4.0;

/// See the module. Times are in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    allowed: f64,
    base: Option<Estimate>,
    per_token: Option<Estimate>,
    /// The most tokens of prompts that a step has computed so far.
    largest: u32,
}

/// A figure that changes.
#[derive(Clone, Copy, Debug)]
struct Estimate {
    mean: f64,
    /// The usual distance of a measurement from the mean.
    distance: f64,
}

impl Estimate {
    /// A quarter of the new figure, or `weight` times that: a disturbed step is forgotten after a
    /// few.
    fn follow(old: Option<Self>, new: f64, weight: f64) -> Option<Self> {
        let Some(Self { mean, distance }) = old else {
            return Some(Self { mean: new, distance: new / 16.0 });
        };
        let (error, part) = (new - mean, weight / 4.0);
        let distance = distance + (error.abs() - distance) * part;
        Some(Self { mean: mean + error * part, distance })
    }

    fn with_reserve(self) -> f64 {
        self.mean + RESERVE * self.distance
    }
}

impl Pace {
    /// Steps that streams wait for are to take at most `stall_ms`.
    pub(crate) fn new(stall_ms: u32) -> Self {
        let allowed = f64::from(stall_ms) * 1e3;
        Self { allowed, base: None, per_token: None, largest: 0 }
    }

    /// Books a step that computed so many tokens of prompts, besides those it decoded.
    pub(crate) fn observe(&mut self, prompt_tokens: u32, micros: u64) {
        let took = micros as f64;
        if prompt_tokens == 0 {
            self.base = Estimate::follow(self.base, took, 1.0);
        } else {
            // The end of a prompt is a small share, whose tokens cost more each.
            let usual = f64::from(self.prompt_tokens().unwrap_or(LEAST));
            let weight = (f64::from(prompt_tokens) / usual).min(1.0);
            let more = (took - self.base.map_or(0.0, |base| base.mean)).max(0.0);
            let each = more / f64::from(prompt_tokens);
            self.per_token = Estimate::follow(self.per_token, each, weight);
            self.largest = self.largest.max(prompt_tokens);
        }
    }

    /// Tokens of prompts that a step may compute beside others' next tokens; `None` while nothing
    /// was measured, as where nobody reads a clock.
    pub(crate) fn prompt_tokens(&self) -> Option<u32> {
        let Some(per_token) = self.per_token else { return self.base.map(|_| LEAST) };
        let room = self.allowed - self.base.map_or(0.0, |base| base.mean);
        // A float beyond the integers becomes the largest one, a negative one 0.
        let fitting = (room / per_token.with_reserve().max(1e-3)) as u32;
        Some(fitting.min(self.largest.saturating_mul(GROWTH)).max(LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with a base of 15 ms and 3 ms a token, which is `slow` times as slow just now.
    fn step(pace: &mut Pace, tokens: u32, slow: f64) -> (u32, u64) {
        let micros = (slow * (15_000.0 + 3_000.0 * f64::from(tokens))) as u64;
        pace.observe(tokens, micros);
        (pace.prompt_tokens().expect("measured"), micros)
    }

    #[test]
    fn steps_come_to_take_what_is_allowed() {
        let mut pace = Pace::new(250);
        assert_eq!(pace.prompt_tokens(), None);
        let (mut share, _) = step(&mut pace, 0, 1.0);
        assert_eq!(share, LEAST);
        for _ in 0..16 {
            (share, _) = step(&mut pace, share, 1.0);
        }
        assert!((74..=78).contains(&share), "{share}: (250 - 15) / 3, less a little");
        for _ in 0..30 {
            step(&mut pace, 0, 3.0);
            (share, _) = step(&mut pace, share, 3.0);
        }
        assert!((19..=22).contains(&share), "{share}: (250 - 45) / 9, less a little");
        assert!(step(&mut pace, share, 3.0).1 <= 250_000);
    }

    /// A machine whose steps take 5 % more or less than usual, by chance: hardly any of them takes
    /// longer than allowed, and they use most of what is.
    #[test]
    fn hardly_a_step_takes_longer_than_is_allowed() {
        let mut pace = Pace::new(250);
        step(&mut pace, 0, 1.0);
        let (mut share, mut late, mut sum) = (LEAST, 0, 0);
        let mut noise = 1_u64;
        for at in 0..2100 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let slow = 0.95 + 0.1 * ((noise >> 33) as f64 / f64::from(1_u32 << 31));
            let micros;
            (share, micros) = step(&mut pace, share, slow);
            if at >= 100 {
                late += u32::from(micros > 250_000);
                sum += micros;
            }
        }
        assert!(late <= 20, "{late} of 2000 were late");
        assert!(sum / 2000 > 200_000, "{} us a step", sum / 2000);
    }

    /// The first shares are small: nobody knows what a token costs.
    #[test]
    fn a_share_grows_step_by_step() {
        let mut pace = Pace::new(250);
        pace.observe(0, 4_000);
        assert_eq!(pace.prompt_tokens(), Some(LEAST));
        pace.observe(LEAST, 5_000);
        assert_eq!(pace.prompt_tokens(), Some(LEAST * GROWTH));
    }

    /// A share is hardly changed by the last token of some prompt, however dear that was.
    #[test]
    fn ends_of_prompts_say_little() {
        let mut pace = Pace::new(250);
        pace.observe(0, 5_000);
        for _ in 0..20 {
            pace.observe(pace.prompt_tokens().expect("measured"), 55_000);
        }
        let before = pace.prompt_tokens().expect("measured");
        pace.observe(1, 15_000);
        let after = pace.prompt_tokens().expect("measured");
        assert!(after > before / 2, "{before} tokens, then {after}");
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
        for _ in 0..6 {
            pace.observe(pace.prompt_tokens().expect("measured").min(4096), 4_000);
        }
        assert!(pace.prompt_tokens() >= Some(4096));
    }
}
