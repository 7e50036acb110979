//! The threads that serve clients, each with a runtime of its own.
//!
//! A connection stays on its thread with all that it needs: the request, the connection to the
//! node, the timers. A runtime that spreads tasks over threads wakes a second one for each piece
//! of each stream, which costs more than forwarding it.

use std::cell::Cell;
use std::net::TcpStream as Socket;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::Error;

/// Sockets that may wait for their thread.
const WAITING: usize = 256;
/// How often a thread with connections looks at the clock. A timer that is due before all others
/// interrupts the runtime's wait, and that wait may as well be short: no request has to set such a
/// timer then.
const TICK: Duration = Duration::from_millis(100);

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The number of the thread that this runs on; 0 for those that serve no clients.
pub(crate) fn number() -> usize {
    NUMBER.get()
}

/// See the module. Dropped, they cut what is still open.
pub(crate) struct Workers {
    all: Vec<Worker>,
    /// Dropped by each thread when its last connection has ended.
    busy: mpsc::Receiver<()>,
    _cut: watch::Sender<()>,
}

struct Worker {
    sockets: mpsc::Sender<Socket>,
    open: Arc<AtomicUsize>,
}

/// One more connection of a worker, as long as it is kept.
pub(crate) struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts so many threads; each serves what it is given with `serve`.
    ///
    /// # Errors
    /// [`Error::Thread`] when the system gives no more.
    pub(crate) fn start<S, F>(count: NonZero<usize>, serve: S) -> Result<Workers, Error>
    where
        S: Fn(TcpStream, Open) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (cut, is_cut) = watch::channel(());
        let (token, busy) = mpsc::channel(1);
        let mut all = Vec::new();
        for number in 1..=count.get() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|source| Error::Thread { source })?;
            let (sockets, waiting) = mpsc::channel(WAITING);
            let open = Arc::<AtomicUsize>::default();
            let (counted, serve) = (Arc::clone(&open), serve.clone());
            let (mut is_cut, token) = (is_cut.clone(), token.clone());
            let work = move || {
                NUMBER.set(number);
                runtime.block_on(async {
                    tokio::select! {
                        () = serve_all(waiting, counted, serve) => {}
                        _ = is_cut.changed() => {}
                    }
                });
                // What is left of it ends before the thread is said to be done.
                drop(runtime);
                drop(token);
            };
            let thread = std::thread::Builder::new().name(format!("clients-{number}"));
            thread.spawn(work).map_err(|source| Error::Thread { source })?;
            all.push(Worker { sockets, open });
        }
        Ok(Workers { all, busy, _cut: cut })
    }

    /// Gives a connection to the thread that has the fewest.
    pub(crate) async fn give(&self, socket: TcpStream) -> std::io::Result<()> {
        let socket = socket.into_std()?;
        let load = |worker: &&Worker| worker.open.load(Ordering::Relaxed);
        if let Some(worker) = self.all.iter().min_by_key(load) {
            worker.open.fetch_add(1, Ordering::Relaxed);
            // Its thread ends after this is dropped, so that somebody takes it.
            let _ = worker.sockets.send(socket).await;
        }
        Ok(())
    }

    /// Waits until every connection has ended.
    pub(crate) async fn finish(&mut self) {
        self.all.clear();
        while self.busy.recv().await.is_some() {}
    }
}

async fn serve_all<S, F>(mut waiting: mpsc::Receiver<Socket>, open: Arc<AtomicUsize>, serve: S)
where
    S: Fn(TcpStream, Open) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut clock = tokio::time::interval(TICK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick(), if !connections.is_empty() => {}
            socket = waiting.recv() => {
                let Some(socket) = socket else { break };
                let counted = Open(Arc::clone(&open));
                match TcpStream::from_std(socket) {
                    // A future within another one would have room for itself twice.
                    Ok(socket) => _ = connections.spawn(serve(socket, counted)),
                    Err(error) => tracing::warn!(%error, "a connection could not be served"),
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    while connections.join_next().await.is_some() {}
}
