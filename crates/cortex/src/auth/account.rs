//! One key's purse, and a request's seat at it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet::Tick;
use fleet::budget::{Account, Hold, Limits, Rate, Spent};
use http::{HeaderMap, HeaderName, HeaderValue};
use wire::ErrorBody;

use super::refusal;
use crate::config::{Key, Scope, Scopes};

/// A request's key.
#[derive(Clone)]
pub(crate) struct Caller {
    name: Arc<str>,
    scopes: Arc<Scopes>,
    purse: Arc<Purse>,
}

/// What a key has used and may use.
pub(super) struct Purse {
    account: Mutex<Account>,
}

impl Purse {
    pub(super) fn new(limits: Limits, now: Tick) -> Purse {
        Purse { account: Mutex::new(Account::new(limits, Spent::default(), now)) }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // Nothing panics while it is held; and a purse must not be lost to a defect elsewhere.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    pub(super) fn new(key: &Key, purse: Arc<Purse>) -> Caller {
        let (name, scopes) = (Arc::from(&*key.name), Arc::new(key.scope.clone()));
        Caller { name, scopes, purse }
    }

    /// The same purse under other limits.
    pub(super) fn purse_under(&self, limits: Limits, now: Tick) -> Arc<Purse> {
        self.purse.account().relimit(limits, now);
        Arc::clone(&self.purse)
    }

    /// Whose key it is.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn opens(&self, scope: Scope) -> bool {
        self.scopes.open(scope)
    }

    /// Reserves what a request may use.
    ///
    /// # Errors
    /// 429 with the limit in words and when to come back.
    pub(crate) fn reserve(&self, bound: u64, likely: u64, now: Tick) -> Result<Seat, ErrorBody> {
        let hold = self.purse.account().reserve(bound, likely, now).map_err(refusal::denied)?;
        Ok(Seat { purse: Arc::clone(&self.purse), hold: Some(hold) })
    }

    /// What of its budget is spoken for.
    #[cfg(test)]
    pub(super) fn claims(&self, now: Tick) -> fleet::budget::Claims {
        self.purse.account().claims(now)
    }

    /// Tells the client where it stands.
    pub(crate) fn tell_rates(&self, headers: &mut HeaderMap, now: Tick) {
        let (requests, tokens) = {
            let account = self.purse.account();
            (account.request_rate(now), account.token_rate(now))
        };
        if let Some(rate) = requests {
            tell(headers, &REQUESTS, rate);
        }
        if let Some(rate) = tokens {
            tell(headers, &TOKENS, rate);
        }
    }
}

static REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
static TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

fn tell(headers: &mut HeaderMap, names: &[HeaderName; 3], rate: Rate) {
    let [limit, remaining, reset] = names;
    headers.insert(limit, HeaderValue::from(rate.limit));
    headers.insert(remaining, HeaderValue::from(rate.remaining));
    if let Ok(value) = HeaderValue::from_str(&format!("{}ms", rate.full_after_ms)) {
        headers.insert(reset, value);
    }
}

/// A reservation. The record of its request settles it, however that ends.
pub(crate) struct Seat {
    purse: Arc<Purse>,
    hold: Option<Hold>,
}

impl Seat {
    /// Gives back what was held and pays what was used.
    pub(crate) fn settle(mut self, used: u64, now: Tick) {
        if let Some(hold) = self.hold.take() {
            self.purse.account().settle(hold, used, now);
        }
    }
}
