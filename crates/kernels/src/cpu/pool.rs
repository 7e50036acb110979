//! Threads that share out the tasks of one operation.
//!
//! An operation takes tens of microseconds and there are hundreds in a step, so workers spin for a
//! moment between operations and only then sleep. Tasks are taken one by one: a core that another
//! program slows down takes fewer. Nobody waits for a worker that has not begun: while one sleeps,
//! or waits for its core, the others do its part.

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use super::cores;

/// How often a worker looks for work before it sleeps; some hundreds of microseconds.
const SPINS: u32 = 20_000;

/// In [`Shared::state`]: workers within the operation, whether more may enter, and which it is.
const WORKERS: u64 = (1 << 16) - 1;
const OPEN: u64 = 1 << 16;
const OPERATION: u64 = 1 << 17;

/// A fixed set of threads; the caller of [`Pool::run`] is one of them.
pub struct Pool {
    shared: Option<Arc<Shared>>,
    workers: Vec<JoinHandle<()>>,
}

/// An operation under way.
struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
}

/// Keeps what one thread writes off the cache lines that others read meanwhile; processors fetch
/// lines in pairs.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared {
    /// One word, so that a worker enters the operation that it has seen or none.
    state: Apart<AtomicU64>,
    /// The next task.
    next: Apart<AtomicUsize>,
    /// Valid for whoever has entered.
    job: AtomicPtr<Job<'static>>,
    /// Workers that sleep: waking nobody would still be a call into the kernel.
    sleeping: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    panicked: AtomicBool,
    stop: AtomicBool,
}

impl Pool {
    /// `threads` in all, at least the caller's own.
    pub fn new(threads: usize) -> Self {
        Self::spawn((1..threads).map(|_| None))
    }

    /// As many threads as `cores`, each but the caller's bound to its own.
    pub fn bound(cores: &[usize]) -> Self {
        Self::spawn(cores.iter().skip(1).map(|core| Some(*core)))
    }

    fn spawn(cores: impl ExactSizeIterator<Item = Option<usize>>) -> Self {
        if cores.len() == 0 {
            return Self { shared: None, workers: Vec::new() };
        }
        assert!(cores.len() as u64 <= WORKERS, "{} threads", cores.len());
        let shared = Arc::new(Shared {
            state: Apart(AtomicU64::new(0)),
            next: Apart(AtomicUsize::new(0)),
            job: AtomicPtr::default(),
            sleeping: AtomicUsize::new(0),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let spawn = |(at, core): (usize, Option<usize>)| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("kernel-{}", at + 1))
                .spawn(move || {
                    core.into_iter().for_each(cores::bind);
                    shared.work();
                })
                .expect("the system gives no more threads")
        };
        let workers = cores.enumerate().map(spawn).collect();
        Self { shared: Some(shared), workers }
    }

    /// Threads in all.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` with each of `0..tasks`, once, on any thread, and returns when all are done.
    ///
    /// # Panics
    /// When a task panics.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        let Some(shared) = self.shared.as_ref().filter(|_| tasks > 1) else {
            return (0..tasks).for_each(task);
        };
        let job = Job { task: &task, tasks };
        // Only the lifetime changes. Workers use the job between entering the operation and
        // leaving it, and `Finish` waits for that even when a task panics here.
        shared.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        shared.next.0.store(0, Ordering::Relaxed);
        // Nobody is within: the operation before was closed and left.
        let next = (shared.state.0.load(Ordering::Relaxed) & !OPEN) + (OPERATION | OPEN);
        // In one order with the sleepers' own two steps: either they see the operation or this
        // thread sees them.
        shared.state.0.store(next, Ordering::SeqCst);
        if shared.sleeping.load(Ordering::SeqCst) > 0 {
            shared.wake_all();
        }
        let finish = Finish(shared);
        shared.take_tasks(&job);
        drop(finish);
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a kernel task panicked");
    }

    /// The same for short tasks: they are handed out in runs, and a few are not handed out at all.
    pub fn run_in_runs(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        const RUN: usize = 8;
        self.run(tasks.div_ceil(RUN), |run| {
            (run * RUN..((run + 1) * RUN).min(tasks)).for_each(&task);
        });
    }
}

/// Lets nobody else in and waits until no worker can still call the operation's closure.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let state = &self.0.state.0;
        let mut within = state.fetch_and(!OPEN, Ordering::AcqRel) & WORKERS;
        let mut spins = 0;
        while within > 0 {
            spins += 1;
            if spins % 1024 == 0 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
            within = state.load(Ordering::Acquire) & WORKERS;
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut seen = 0;
        while self.wait(&mut seen) {
            if !self.enter(seen) {
                continue;
            }
            // SAFETY: `run` keeps the job until every worker that entered has left.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            let taken = std::panic::AssertUnwindSafe(|| self.take_tasks(job));
            if std::panic::catch_unwind(taken).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.state.0.fetch_sub(1, Ordering::Release);
        }
    }

    /// Enters operation `seen`; false when it is over.
    fn enter(&self, seen: u64) -> bool {
        let enter = |state: u64| {
            let open = state & OPEN != 0 && state / OPERATION == seen;
            open.then_some(state + 1)
        };
        self.state.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, enter).is_ok()
    }

    /// Waits for an operation after `seen` and says which; false when the pool is dropped.
    fn wait(&self, seen: &mut u64) -> bool {
        let mut spins = 0;
        let now = loop {
            let now = self.state.0.load(Ordering::SeqCst) / OPERATION;
            if now != *seen {
                break now;
            }
            spins += 1;
            if spins == SPINS {
                self.sleep(*seen);
                spins = 0;
            }
            std::hint::spin_loop();
        };
        *seen = now;
        !self.stop.load(Ordering::Acquire)
    }

    fn sleep(&self, seen: u64) {
        let mut held = self.lock.lock().expect("the pool's lock");
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        while self.state.0.load(Ordering::SeqCst) / OPERATION == seen {
            held = self.wake.wait(held).expect("the pool's lock");
        }
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }

    fn wake_all(&self) {
        // A worker holds the lock from its last look until it sleeps.
        drop(self.lock.lock());
        self.wake.notify_all();
    }

    fn take_tasks(&self, job: &Job<'_>) {
        loop {
            let at = self.next.0.fetch_add(1, Ordering::Relaxed);
            if at >= job.tasks {
                return;
            }
            (job.task)(at);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        shared.stop.store(true, Ordering::Release);
        shared.state.0.fetch_add(OPERATION, Ordering::SeqCst);
        shared.wake_all();
        for worker in self.workers.drain(..) {
            // A worker's panic was reported by the `run` that it happened in.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn every_task_runs_once_in_every_operation() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicU32> = (0..tasks).map(|_| AtomicU32::new(0)).collect();
                for _ in 0..50 {
                    pool.run(tasks, |task| {
                        counts[task].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 50));
            }
        }
    }

    #[test]
    fn a_panicking_task_panics_the_caller_and_the_pool_lives() {
        let pool = Pool::new(3);
        let attempt = std::panic::AssertUnwindSafe(|| {
            pool.run(10, |task| assert!(task != 4, "the task that fails"));
        });
        assert!(std::panic::catch_unwind(attempt).is_err());
        let done = AtomicU32::new(0);
        pool.run(10, |_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn sleeping_workers_wake() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let done = AtomicU32::new(0);
            pool.run(64, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.load(Ordering::Relaxed), 64);
        }
    }
}
