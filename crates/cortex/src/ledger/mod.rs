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
use tokio::runtime::Handle;
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
    pub budget: Option<(Budget, Option<Share>)>,
}

/// A part of a budget that is reserved in the database, for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub id: String,
    pub grant: Grant,
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
    /// Connections to the database live where they were made, and that must last.
    runtime: Handle,
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
        let runtime = Handle::current();
        let open = Open { store, runtime, queue, dropped: AtomicU64::new(0) };
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
            "# HELP {name} What never came into the ledger, which was away for long.\n\
             # TYPE {name} counter\n{name} {dropped}"
        );
    }

    /// Writes an entry down, later.
    pub(crate) fn write(&self, entry: impl FnOnce() -> Entry) {
        let Some(open) = &self.open else { return };
        open.enqueue(Message::Entry(Box::new(entry())));
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
    ) -> Result<Share, NotHeld> {
        let Some(open) = &self.open else { return Err(NotHeld::Unknown) };
        let first = open.try_hold(key, budget, want).await?;
        match first {
            Ok(share) if !share.grant.is_clipped => return Ok(share),
            Ok(share) => open.give_back(share.id),
            Err(_) => {}
        }
        // What this process has settled or given back may not be written yet.
        self.flush().await;
        open.try_hold(key, budget, want).await?.map_err(NotHeld::Denied)
    }

    /// Runs work on the database; where there is none, nothing is to be done.
    pub(crate) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(open) = &self.open {
            open.runtime.spawn(work);
        }
    }

    /// Gives back what [`Ledger::hold`] reserved for a request that was then not sent; later, like
    /// everything that is written.
    pub(crate) fn give_back(&self, share: Share) {
        if let Some(open) = &self.open {
            open.give_back(share.id);
        }
    }

    /// Waits until what was handed over so far is written, or the database is away.
    pub(crate) async fn flush(&self) {
        let Some(open) = &self.open else { return };
        let (mark, written) = oneshot::channel();
        let _ = timeout(LAST_BATCH, async {
            if open.queue.send(Message::Mark(mark)).await.is_ok() {
                // It is dropped, unsent, once all before it is written.
                let _ = written.await;
            }
        })
        .await;
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
    ) -> Result<Result<Share, Denied>, NotHeld> {
        let id = uuid::Uuid::new_v4().to_string();
        let asked = self.store.hold(&id, key, budget, want, writer::now());
        let held = timeout(HOLD_LIMIT, asked).await;
        let failed = match held {
            Ok(Ok(held)) => return Ok(held),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", HOLD_LIMIT.as_secs()),
        };
        tracing::warn!(key, why = failed, "a shared budget cannot be looked up");
        // It may have been reserved all the same.
        self.give_back(id);
        Err(NotHeld::Unknown)
    }

    /// Where the queue is full a share is held for as long as this process lives.
    fn give_back(&self, id: String) {
        self.enqueue(Message::GiveBack(id));
    }

    fn enqueue(&self, message: Message) {
        if self.queue.try_send(message).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
