//! Keys: who is at the door, and what that opens.
//!
//! Only SHA-256 hashes are kept. A key is meant to be random and long, so that its hash tells
//! nothing; `cortex hash-key --new` makes such a one. Without keys in the configuration nobody is
//! asked, which is for loopback: see `Config::check_exposure`.

mod account;
mod digest;
mod refusal;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use fleet::Tick;
use fleet::budget::{Limits, Spent};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq;
use wire::ErrorBody;

pub(crate) use account::{Caller, Seat};
pub use digest::{hash_key, new_key};

use crate::Error;
use crate::config::{Auth, Scope};
use crate::ledger::Ledger;
use account::Purse;
use digest::sha256;

/// All keys; replaced when the configuration is read again.
pub(crate) struct Doorkeeper {
    ring: ArcSwap<Ring>,
    clock: Arc<Clock>,
    ledger: Ledger,
}

#[derive(Default)]
struct Ring {
    /// A stranger cannot choose where in the map a hash falls, so looking it up tells nothing.
    callers: HashMap<[u8; 32], Caller>,
}

/// Unix milliseconds that never run backwards: the wall clock is asked once.
pub(super) struct Clock {
    started: Instant,
    since_epoch_ms: u64,
}

impl Clock {
    fn start() -> Clock {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_epoch_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        Clock { started: Instant::now(), since_epoch_ms }
    }

    fn now(&self) -> Tick {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Tick(self.since_epoch_ms.saturating_add(elapsed))
    }
}

impl Doorkeeper {
    /// Opens with these keys, which have spent what the ledger says.
    ///
    /// # Errors
    /// [`Error::Ledger`] when it cannot be read.
    pub(crate) async fn open(auth: &Auth, ledger: Ledger) -> Result<Doorkeeper, Error> {
        let clock = Arc::new(Clock::start());
        let door = Doorkeeper { ring: ArcSwap::default(), clock, ledger };
        door.replace(auth).await?;
        Ok(door)
    }

    /// Takes the keys of a configuration that was read again. A key that keeps its name keeps what
    /// it has used.
    ///
    /// # Errors
    /// [`Error::Ledger`] when it cannot be read; then the old keys stay.
    pub(crate) async fn replace(&self, auth: &Auth) -> Result<(), Error> {
        let old = self.ring.load_full();
        let kept = |name: &str| old.callers.values().find(|caller| caller.name() == name);
        let mut callers = HashMap::new();
        for key in &auth.keys {
            let Some(digest) = key.digest() else { continue };
            let purse = match kept(&key.name) {
                Some(caller) => Arc::clone(caller.purse()),
                None => self.purse(&key.name, key.limits()).await?,
            };
            callers.insert(digest, Caller::new(key, purse));
        }
        // Nothing fails from here on.
        for key in auth.keys.iter().filter(|key| kept(&key.name).is_some()) {
            if let Some(caller) = key.digest().and_then(|digest| callers.get(&digest)) {
                caller.purse().relimit(key.limits());
            }
        }
        self.ring.store(Arc::new(Ring { callers }));
        Ok(())
    }

    async fn purse(&self, name: &str, limits: Limits) -> Result<Arc<Purse>, Error> {
        let spent = match limits.budget {
            Some(budget) => self.ledger.spent(name, budget, self.now()).await?,
            None => Spent::default(),
        };
        let (clock, ledger) = (Arc::clone(&self.clock), self.ledger.clone());
        Ok(Arc::new(Purse::new(limits, spent, clock, ledger)))
    }

    /// Where usage is written down.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Everybody who has a key, by name.
    pub(crate) fn callers(&self) -> Vec<Caller> {
        let mut all: Vec<Caller> = self.ring.load().callers.values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Unix milliseconds, for all limits.
    pub(crate) fn now(&self) -> Tick {
        self.clock.now()
    }

    /// Lets a request through: `None` where nobody is asked for a key.
    ///
    /// # Errors
    /// 401 without a known key, 403 with one that does not open `scope`.
    pub(crate) fn admit(
        &self,
        headers: &HeaderMap,
        scope: Scope,
    ) -> Result<Option<Caller>, ErrorBody> {
        let ring = self.ring.load();
        if ring.callers.is_empty() {
            return Ok(None);
        }
        let presented = presented(headers).ok_or_else(refusal::no_key)?;
        let digest = sha256(presented);
        let found = ring.callers.get_key_value(&digest);
        let found = found.filter(|(known, _)| bool::from(known.ct_eq(&digest)));
        let (_, caller) = found.ok_or_else(refusal::wrong_key)?;
        match caller.opens(scope) {
            true => Ok(Some(caller.clone())),
            false => Err(refusal::closed_to(scope)),
        }
    }
}

/// The key that a request presents, by `Authorization: Bearer` or `x-api-key`.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
    });
    let plain = headers.get("x-api-key").map(HeaderValue::as_bytes);
    bearer.or(plain).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests;
