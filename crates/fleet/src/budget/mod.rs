//! What a key may use: requests and tokens a minute, requests at once, and a budget of tokens.
//!
//! A request reserves what it may use before it is sent on, and settles what it did use at its end.
//! The reservation is an upper bound, so what is spent and held together never passes a budget but
//! for one case: where something is left, and less than a request may use, one such request at a
//! time is let through with what is left. Without it, the end of a budget could never be spent. A
//! key can thus overspend by less than one request, however many it sends at once.

mod bucket;
mod window;

#[cfg(test)]
mod tests;

pub use bucket::Rate;
pub use window::{Spent, slice_of};

use bucket::Bucket;

use crate::Tick;

/// The limits of one key; what is absent is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Requests a minute.
    pub requests_per_minute: Option<u32>,
    /// Prompt and generated tokens a minute, together.
    pub tokens_per_minute: Option<u32>,
    /// Requests at once.
    pub concurrency: Option<u32>,
    /// Tokens over a longer time.
    pub budget: Option<Budget>,
}

/// A budget of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Prompt and generated tokens, together.
    pub tokens: u64,
    /// The length of the rolling window; none for a balance, which is spent once.
    pub window_ms: Option<u64>,
}

/// Why a key has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Too many requests in the last minute.
    Requests {
        /// When there is room for one.
        after_ms: u64,
    },
    /// Too many tokens in the last minute.
    Tokens {
        /// When there is room for this request.
        after_ms: u64,
    },
    /// Too many requests at once.
    Concurrency,
    /// The budget is held by requests that run; they may use less than they hold.
    Held,
    /// The budget is spent.
    Spent {
        /// When a part of it is free again; never for a balance.
        after_ms: Option<u64>,
    },
}

/// What a request has reserved; given back by [`Account::settle`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a hold that is not settled is never given back"]
pub struct Hold {
    tokens: u64,
    budget: Option<Grant>,
}

impl Hold {
    /// The part of a budget that is reserved.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        self.budget
    }
}

/// A reserved part of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What is held.
    pub tokens: u64,
    /// Less than was asked for.
    pub is_clipped: bool,
}

/// What of a budget is spoken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Used by requests that have ended.
    pub spent: u64,
    /// Reserved by requests that run.
    pub held: u64,
    /// Whether one of those got less than it asked for.
    pub has_clipped: bool,
}

/// Reserves `want` tokens of a budget of `tokens`, of which `claims` are spoken for.
///
/// # Errors
/// [`Denied::Held`] when tokens may come back soon, else [`Denied::Spent`] without a time.
pub fn grant(tokens: u64, claims: Claims, want: u64) -> Result<Grant, Denied> {
    let left = tokens.saturating_sub(claims.spent).saturating_sub(claims.held);
    match left {
        _ if left >= want && left > 0 => Ok(Grant { tokens: want, is_clipped: false }),
        1.. if !claims.has_clipped => Ok(Grant { tokens: left, is_clipped: true }),
        _ if claims.held > 0 && claims.spent < tokens => Err(Denied::Held),
        _ => Err(Denied::Spent { after_ms: None }),
    }
}

/// The state of one key.
#[derive(Clone, Debug)]
pub struct Account {
    limits: Limits,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    open: u32,
    spent: Spent,
    /// The window in whose slices that is counted.
    window_ms: Option<u64>,
    held: u64,
    has_clipped: bool,
}

impl Account {
    /// A key that has used nothing but what `spent` says.
    #[must_use]
    pub fn new(limits: Limits, spent: Spent, now: Tick) -> Account {
        let bucket = |rate: Option<u32>| rate.map(|rate| Bucket::full(rate, now));
        Account {
            requests: bucket(limits.requests_per_minute),
            tokens: bucket(limits.tokens_per_minute),
            window_ms: limits.budget.and_then(|budget| budget.window_ms),
            limits,
            open: 0,
            spent,
            held: 0,
            has_clipped: false,
        }
    }

    /// Other limits from now on. What is spent stays spent, and what is open stays open.
    pub fn relimit(&mut self, limits: Limits, now: Tick) {
        if limits == self.limits {
            return;
        }
        let fresh = Account::new(limits, Spent::default(), now);
        let keep = |old: Option<Bucket>, new: Option<Bucket>| match (old, new) {
            (Some(old), Some(new)) => Some(old.resized(new.rate(), now)),
            (_, new) => new,
        };
        self.requests = keep(self.requests.take(), fresh.requests);
        self.tokens = keep(self.tokens.take(), fresh.tokens);
        if let Some(Budget { window_ms, .. }) = limits.budget
            && window_ms != self.window_ms
        {
            // Slices of another length mean other times: what counts now counts as of now.
            let spent = self.spent.within(self.window_ms, now);
            self.spent = Spent::default();
            self.spent.add(window_ms, spent, now);
            self.window_ms = window_ms;
        }
        self.limits = limits;
    }

    /// Lets a request in that may use `bound` tokens at most and will likely use `likely`.
    ///
    /// Rates are charged what is likely, budgets hold what is possible. A request over a whole
    /// minute's tokens is let in when that minute is unused: it could never be otherwise.
    ///
    /// # Errors
    /// The first limit that it would pass; then nothing has been reserved.
    pub fn reserve(&mut self, bound: u64, likely: u64, now: Tick) -> Result<Hold, Denied> {
        if self.limits.concurrency.is_some_and(|most| self.open >= most) {
            return Err(Denied::Concurrency);
        }
        let budget = match self.limits.budget {
            Some(budget) => Some(self.granted(budget, bound, now)?),
            None => None,
        };
        let full = self.tokens.as_ref().map_or(likely, |bucket| likely.min(bucket.rate().into()));
        if let Some(after_ms) = self.tokens.as_mut().and_then(|bucket| bucket.lacks(full, now)) {
            return Err(Denied::Tokens { after_ms });
        }
        if let Some(after_ms) = self.requests.as_mut().and_then(|bucket| bucket.take(1, now)) {
            return Err(Denied::Requests { after_ms });
        }
        if let Some(bucket) = &mut self.tokens {
            let short = bucket.take(full, now);
            debug_assert!(short.is_none(), "asked before");
        }
        self.open += 1;
        if let Some(grant) = budget {
            self.held += grant.tokens;
            self.has_clipped |= grant.is_clipped;
        }
        Ok(Hold { tokens: full, budget })
    }

    fn granted(&self, budget: Budget, want: u64, now: Tick) -> Result<Grant, Denied> {
        let spent = self.spent.within(budget.window_ms, now);
        let claims = Claims { spent, held: self.held, has_clipped: self.has_clipped };
        grant(budget.tokens, claims, want).map_err(|denied| match denied {
            Denied::Spent { .. } => {
                Denied::Spent { after_ms: self.spent.frees_after_ms(budget.window_ms, now) }
            }
            other => other,
        })
    }

    /// A request has ended and used so many tokens.
    #[expect(clippy::needless_pass_by_value, reason = "a hold can be settled only once")]
    pub fn settle(&mut self, hold: Hold, used: u64, now: Tick) {
        let Hold { tokens, budget } = hold;
        self.open = self.open.saturating_sub(1);
        if let Some(bucket) = &mut self.tokens {
            bucket.settle(tokens, used, now);
        }
        if let Some(grant) = budget {
            self.held = self.held.saturating_sub(grant.tokens);
            self.has_clipped &= !grant.is_clipped;
        }
        if let Some(budget) = self.limits.budget {
            self.spent.add(budget.window_ms, used, now);
        }
    }

    /// Requests that are open.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open
    }

    /// What of the budget is spoken for.
    #[must_use]
    pub fn claims(&self, now: Tick) -> Claims {
        let window_ms = self.limits.budget.and_then(|budget| budget.window_ms);
        let spent = self.spent.within(window_ms, now);
        Claims { spent, held: self.held, has_clipped: self.has_clipped }
    }

    /// The rate of requests, for a client to read.
    #[must_use]
    pub fn request_rate(&self, now: Tick) -> Option<Rate> {
        self.requests.as_ref().map(|bucket| bucket.standing(now))
    }

    /// The rate of tokens, for a client to read.
    #[must_use]
    pub fn token_rate(&self, now: Tick) -> Option<Rate> {
        self.tokens.as_ref().map(|bucket| bucket.standing(now))
    }
}
