//! One key's purse, and a request's seat at it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet::budget::{Account, Budget, Claims, Hold, Limits, Rate, Spent};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::oneshot;
use wire::ErrorBody;

use super::{Clock, refusal};
use crate::config::{Key, Scope, Scopes};
use crate::ledger::{Ledger, NotHeld, Share};

/// A request's key.
#[derive(Clone)]
pub(crate) struct Caller {
    name: Arc<str>,
    scopes: Arc<Scopes>,
    purse: Arc<Purse>,
}

/// What a key has used and may use.
pub(super) struct Purse {
    state: Mutex<State>,
    clock: Arc<Clock>,
    ledger: Ledger,
}

struct State {
    account: Account,
    budget: Option<Budget>,
}

/// A shared budget is none of this process's arithmetic.
fn own_limits(limits: Limits, ledger: &Ledger) -> Limits {
    match ledger.is_shared() {
        true => Limits { budget: None, ..limits },
        false => limits,
    }
}

impl Purse {
    /// `spent` is what the ledger knows.
    pub(super) fn new(limits: Limits, spent: Spent, clock: Arc<Clock>, ledger: Ledger) -> Purse {
        let account = Account::new(own_limits(limits, &ledger), spent, clock.now());
        let state = Mutex::new(State { account, budget: limits.budget });
        Purse { state, clock, ledger }
    }

    /// Other limits from now on.
    pub(super) fn relimit(&self, limits: Limits) {
        let mut state = self.state();
        state.account.relimit(own_limits(limits, &self.ledger), self.clock.now());
        state.budget = limits.budget;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; and a purse must not be lost to a defect elsewhere.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Caller {
    pub(super) fn new(key: &Key, purse: Arc<Purse>) -> Caller {
        let (name, scopes) = (Arc::from(&*key.name), Arc::new(key.scope.clone()));
        Caller { name, scopes, purse }
    }

    pub(super) fn purse(&self) -> &Arc<Purse> {
        &self.purse
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
    /// 429 with the limit in words and when to come back; 503 when a shared budget is out of reach.
    pub(crate) async fn reserve(&self, bound: u64, likely: u64) -> Result<Seat, ErrorBody> {
        let now = self.purse.clock.now();
        let (hold, budget) = {
            let mut state = self.purse.state();
            let hold = state.account.reserve(bound, likely, now).map_err(refusal::denied)?;
            (hold, state.budget)
        };
        let purse = Arc::clone(&self.purse);
        let mut seat = Seat { purse, hold: Some(hold), shared: None, budget };
        if let Some(budget) = budget.filter(|_| self.purse.ledger.is_shared()) {
            seat.shared = Some(self.share(budget, bound).await?);
        }
        Ok(seat)
    }

    /// Reserves in the database. The work goes on when the client leaves, so that what it then
    /// brings can be given back.
    async fn share(&self, budget: Budget, want: u64) -> Result<Share, ErrorBody> {
        let (told, answer) = oneshot::channel();
        let (ledger, name) = (self.purse.ledger.clone(), Arc::clone(&self.name));
        self.purse.ledger.run(async move {
            let held = ledger.hold(&name, budget, want).await;
            if let Err(Ok(share)) = told.send(held) {
                ledger.give_back(share);
            }
        });
        match answer.await {
            Ok(Ok(share)) => Ok(share),
            Ok(Err(NotHeld::Denied(denied))) => Err(refusal::denied(denied)),
            Ok(Err(NotHeld::Unknown)) | Err(_) => Err(refusal::unknowable()),
        }
    }

    /// What of its budget is spoken for, and requests that are open; of a shared budget, nothing.
    pub(crate) fn standing(&self) -> (Claims, u32) {
        let (state, now) = (self.purse.state(), self.purse.clock.now());
        (state.account.claims(now), state.account.open())
    }

    /// Tells the client where it stands.
    pub(crate) fn tell_rates(&self, headers: &mut HeaderMap) {
        let now = self.purse.clock.now();
        let (requests, tokens) = {
            let state = self.purse.state();
            (state.account.request_rate(now), state.account.token_rate(now))
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

/// A reservation. Dropped before it is settled, it gives everything back.
pub(crate) struct Seat {
    purse: Arc<Purse>,
    hold: Option<Hold>,
    /// What is held of a budget in the database.
    shared: Option<Share>,
    budget: Option<Budget>,
}

impl Seat {
    /// Gives back what was held and pays what was used. What the ledger has to know of it comes
    /// back: the budget, and what was held of it in the database.
    pub(crate) fn settle(mut self, used: u64) -> Option<(Budget, Option<Share>)> {
        self.give_back(used);
        self.budget.map(|budget| (budget, self.shared.take()))
    }

    fn give_back(&mut self, used: u64) {
        if let Some(hold) = self.hold.take() {
            let now = self.purse.clock.now();
            self.purse.state().account.settle(hold, used, now);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.give_back(0);
        if let Some(share) = self.shared.take() {
            self.purse.ledger.give_back(share);
        }
    }
}
