//! The cards' gauges for whoever looks at the node, who must never wait for a driver
//! (requirement 67).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use control::DeviceHealth;
use tokio::time::timeout;

/// How long a question waits for the driver; then the last reading has to do.
const PATIENCE: Duration = Duration::from_millis(200);

/// Older readings are not shown: a card of which nothing is known gets no new model.
const STALE: Duration = Duration::from_secs(10);

/// When the cards were read, and how they were.
type Reading = (Instant, Vec<DeviceHealth>);

/// Reads the cards, one reading at a time, on a thread that may hang.
#[derive(Debug)]
pub(crate) struct Readings {
    read: fn() -> Vec<DeviceHealth>,
    patience: Duration,
    stale: Duration,
    last: Arc<Mutex<Option<Reading>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Readings {
    /// Of cards that are read so.
    pub(crate) fn new(read: fn() -> Vec<DeviceHealth>) -> Self {
        let (last, turn) = (Arc::default(), Arc::default());
        Self { read, patience: PATIENCE, stale: STALE, last, turn }
    }

    /// The gauges as they are now, or as they were when the driver last answered.
    pub(crate) async fn now(&self) -> Vec<DeviceHealth> {
        // While one reading is on its way, another would only hang beside it.
        if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
            let (read, last) = (self.read, Arc::clone(&self.last));
            let reading = tokio::task::spawn_blocking(move || {
                let gauges = read();
                *last.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((Instant::now(), gauges));
                drop(turn);
            });
            if timeout(self.patience, reading).await.is_err() {
                let waited_ms = self.patience.as_millis() as u64;
                tracing::warn!(waited_ms, "the driver does not tell how the cards are");
            }
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = last.as_ref().filter(|(taken, _)| taken.elapsed() < self.stale);
        fresh.map(|(_, gauges)| gauges.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    static READ: AtomicU32 = AtomicU32::new(0);
    static HANGS: AtomicBool = AtomicBool::new(false);

    fn read() -> Vec<DeviceHealth> {
        let vram_free_mb = u64::from(READ.fetch_add(1, Ordering::SeqCst)) + 1;
        while HANGS.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        vec![DeviceHealth { vram_free_mb, ..DeviceHealth::default() }]
    }

    #[tokio::test]
    async fn a_driver_that_hangs_holds_nobody_up_and_is_asked_once() {
        // Requirement 67.
        let readings = Readings { patience: Duration::from_millis(20), ..Readings::new(read) };
        let free = |gauges: Vec<DeviceHealth>| gauges.first().map(|card| card.vram_free_mb);
        assert_eq!(free(readings.now().await), Some(1));
        HANGS.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            assert_eq!(free(readings.now().await), Some(1), "the last reading");
        }
        assert_eq!(READ.load(Ordering::SeqCst), 2, "one reading hangs, and no other is begun");
        let forgetful = Readings { stale: Duration::ZERO, ..readings };
        assert_eq!(free(forgetful.now().await), None, "too old to be believed");
        HANGS.store(false, Ordering::SeqCst);
        let answers = Readings { stale: STALE, ..forgetful };
        let turn = Arc::clone(&answers.turn).lock_owned().await;
        assert_eq!(free(answers.now().await), Some(2), "what hung has come");
        drop(turn);
        assert_eq!(free(answers.now().await), Some(3));
    }
}
