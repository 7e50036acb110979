//! The ledger: what every request used, and what of the budgets is spent.
//!
//! It is kept in SQLite, or by the same statements in Postgres. With SQLite this process is the
//! only one that spends, so budgets are counted in memory and written down behind the requests.
//! With Postgres several gateways share them: a request reserves its part in the database, and a
//! part that was held by a gateway that died lapses.
//!
//! Writing never holds a request up: entries wait in a bounded queue for one task that writes them
//! in batches and tries again while the database is away.

mod export;
mod store;
mod writer;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dialog::Usage;
use fleet::Tick;
use fleet::budget::{Budget, Denied, Grant, Spent};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::Error;
use crate::config::Ledger as Settings;
pub(crate) use export::{Query, Row, csv};
use store::Store;
use writer::Message;

/// Entries that may wait; beyond this they are dropped and counted.
const QUEUE: usize = 65_536;
/// How long a request waits for a shared budget.
const HOLD_LIMIT: Duration = Duration::from_secs(2);
/// How long the last batch may take when the gateway stops.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// What a request used.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Unique, so that a batch that is written twice counts once.
    pub id: String,
    pub ended: Tick,
    pub request_id: Arc<str>,
    pub key: String,
    pub model: String,
    pub node: String,
    pub route: &'static str,
    pub status: u16,
    pub end: &'static str,
    pub usage: Usage,
    pub is_estimate: bool,
    pub took_ms: u64,
    /// The budget that pays, and what of it was held elsewhere than in this process.
    pub budget: Option<(Budget, Option<Grant>)>,
}

impl Entry {
    fn tokens(&self) -> u64 {
        u64::from(self.usage.prompt_tokens) + u64::from(self.usage.completion_tokens)
    }
}

/// Why a part of a shared budget was not reserved.
#[derive(Debug)]
pub(crate) enum NotHeld {
    /// The budget says no.
    Denied(Denied),
    /// The database does not answer: nobody knows.
    Unknown,
}

/// A handle on the ledger; without one configured, nothing is written.
#[derive(Clone, Default)]
pub(crate) struct Ledger {
    open: Option<Arc<Open>>,
}

struct Open {
    store: Store,
    queue: mpsc::Sender<Message>,
    dropped: AtomicU64,
}

impl Ledger {
    /// Opens the configured database, and makes its tables where they are missing.
    ///
    /// # Errors
    /// [`Error::Ledger`] with what the database says.
    pub(crate) async fn open(settings: &Settings) -> Result<Ledger, Error> {
        let Some(url) = settings.read_url()? else { return Ok(Ledger::default()) };
        let failed = |source| Error::Ledger { source };
        let store = Store::open(&url).await.map_err(failed)?;
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(writer::write(store.clone(), waiting, settings.keep_days));
        let open = Open { store, queue, dropped: AtomicU64::new(0) };
        Ok(Ledger { open: Some(Arc::new(open)) })
    }

    /// Whether other gateways spend the same budgets.
    pub(crate) fn is_shared(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.store.is_shared())
    }

    /// Its metric.
    pub(crate) fn render(&self, out: &mut String) {
        let dropped = self.open.as_ref().map_or(0, |open| open.dropped.load(Ordering::Relaxed));
        let name = "cortex_ledger_dropped_total";
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "# HELP {name} Requests that never came into the ledger, which was away for long.\n\
             # TYPE {name} counter\n{name} {dropped}"
        );
    }

    /// Writes an entry down, later.
    pub(crate) fn write(&self, entry: impl FnOnce() -> Entry) {
        let Some(open) = &self.open else { return };
        if open.queue.try_send(Message::Entry(Box::new(entry()))).is_err() {
            open.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a key had spent of a budget when the ledger was written last.
    ///
    /// # Errors
    /// [`Error::Ledger`].
    pub(crate) async fn spent(&self, key: &str, budget: Budget, now: Tick) -> Result<Spent, Error> {
        let Some(open) = &self.open else { return Ok(Spent::default()) };
        let spent = open.store.spent(key, budget, now).await;
        spent.map_err(|source| Error::Ledger { source })
    }

    /// Reserves `want` tokens of a budget that gateways share.
    ///
    /// # Errors
    /// See [`NotHeld`].
    pub(crate) async fn hold(
        &self,
        key: &str,
        budget: Budget,
        want: u64,
        now: Tick,
    ) -> Result<Grant, NotHeld> {
        let Some(open) = &self.open else { return Err(NotHeld::Unknown) };
        let first = open.try_hold(key, budget, want, now).await?;
        match first {
            Ok(grant) if !grant.is_clipped => return Ok(grant),
            // What this process has settled may not be written yet.
            _ => self.flush().await,
        }
        if let Ok(grant) = first {
            open.store.release(key, grant).await.map_err(|error| unknown(&error))?;
        }
        open.try_hold(key, budget, want, now).await?.map_err(NotHeld::Denied)
    }

    /// Gives back what [`Ledger::hold`] reserved for a request that was then not sent.
    pub(crate) async fn release(&self, key: &str, grant: Grant) {
        let Some(open) = &self.open else { return };
        if let Err(error) = open.store.release(key, grant).await {
            tracing::warn!(key, %error, "a part of a budget was not given back; it lapses");
        }
    }

    /// Waits until what was handed over so far is written, or the database is away.
    pub(crate) async fn flush(&self) {
        let Some(open) = &self.open else { return };
        let (mark, written) = oneshot::channel();
        if open.queue.send(Message::Mark(mark)).await.is_ok() {
            let _ = timeout(LAST_BATCH, written).await;
        }
    }

    /// The entries that a query asks for, oldest first.
    ///
    /// # Errors
    /// What the database says; `None` where there is no ledger.
    pub(crate) async fn rows(&self, query: &Query) -> Option<Result<Vec<Row>, sqlx::Error>> {
        let open = self.open.as_ref()?;
        Some(open.store.rows(query).await)
    }
}

impl Open {
    async fn try_hold(
        &self,
        key: &str,
        budget: Budget,
        want: u64,
        now: Tick,
    ) -> Result<Result<Grant, Denied>, NotHeld> {
        match timeout(HOLD_LIMIT, self.store.hold(key, budget, want, now)).await {
            Ok(held) => held.map_err(|error| unknown(&error)),
            Err(_) => Err(NotHeld::Unknown),
        }
    }
}

fn unknown(error: &sqlx::Error) -> NotHeld {
    tracing::warn!(%error, "a shared budget cannot be looked up");
    NotHeld::Unknown
}

#[cfg(test)]
mod tests;
