//! The one task that writes, in batches, behind the requests.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleet::Tick;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, sleep};

use super::Entry;
use super::store::Store;

/// Entries of one transaction.
const BATCH: usize = 512;
/// How long an entry of a ledger that nobody shares may wait for company.
const GATHER: Duration = Duration::from_millis(200);
/// From one try to the next while the database is away.
const RETRY: Duration = Duration::from_secs(1);
/// How often the process says that it lives.
const TIDY: Duration = Duration::from_secs(15);

pub(super) enum Message {
    Entry(Box<Entry>),
    /// A share that was not used is given back, by its id.
    GiveBack(String),
    /// Answered once everything before it is written, or could not be.
    Mark(oneshot::Sender<()>),
}

/// Ends when nobody can send any more and all is written.
pub(super) async fn write(store: Store, mut waiting: mpsc::Receiver<Message>, keep_days: u32) {
    let mut pace = interval(TIDY);
    let mut messages = Vec::new();
    loop {
        tokio::select! {
            count = waiting.recv_many(&mut messages, BATCH) => {
                if count == 0 {
                    return;
                }
                if !store.is_shared() {
                    gather(&mut waiting, &mut messages).await;
                }
                write_batch(&store, &mut messages, keep_days).await;
            }
            _ = pace.tick() => tidy(&store, keep_days).await,
        }
    }
}

async fn tidy(store: &Store, keep_days: u32) {
    if let Err(error) = store.tidy(now(), keep_days).await {
        tracing::warn!(%error, "the ledger could not be tidied");
    }
}

/// One transaction costs about as much as a batch of them; a mark is in a hurry.
async fn gather(waiting: &mut mpsc::Receiver<Message>, messages: &mut Vec<Message>) {
    let deadline = Instant::now() + GATHER;
    while messages.len() < BATCH && !matches!(messages.last(), Some(Message::Mark(_))) {
        tokio::select! {
            message = waiting.recv() => match message {
                Some(message) => messages.push(message),
                None => return,
            },
            () = tokio::time::sleep_until(deadline) => return,
        }
    }
}

async fn write_batch(store: &Store, messages: &mut Vec<Message>, keep_days: u32) {
    let (mut entries, mut given_back, mut marks) = (Vec::new(), Vec::new(), Vec::new());
    for message in messages.drain(..) {
        match message {
            Message::Entry(entry) => entries.push(*entry),
            Message::GiveBack(id) => given_back.push(id),
            Message::Mark(mark) => marks.push(mark),
        }
    }
    if entries.is_empty() && given_back.is_empty() {
        return;
    }
    let mut is_away = false;
    while let Err(error) = store.write(&entries, &given_back).await {
        if !is_away {
            let entries = entries.len();
            tracing::warn!(%error, entries, "the ledger cannot be written; retrying");
        }
        is_away = true;
        // Whoever waits has waited long enough; the entries stay.
        marks.clear();
        sleep(RETRY).await;
    }
    if is_away {
        // Others take what is not renewed for that of a gateway that died.
        tidy(store, keep_days).await;
        tracing::info!(entries = entries.len(), "the ledger is written again");
    }
}

/// The wall clock, which gateways that share a database have in common.
pub(super) fn now() -> Tick {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Tick(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
