//! Threads that share out the tasks of one operation.
//!
//! An operation takes tens of microseconds and there are hundreds in a step, so workers spin for a
//! moment between operations and only then sleep. Tasks are taken one by one: a core that another
//! program slows down takes fewer.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// How often a worker looks for work before it sleeps; some tens of microseconds.
const SPINS: u32 = 20_000;

/// A fixed set of threads; the caller of [`Pool::run`] is one of them.
pub struct Pool {
    shared: Option<Arc<Shared>>,
    workers: Vec<JoinHandle<()>>,
}

/// An operation under way, as the workers see it. The pointer is valid until every worker has
/// counted itself out, which `run` waits for.
#[derive(Clone, Copy)]
struct Job {
    task: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

// SAFETY: the closure behind the pointer is `Sync` and outlives the job.
unsafe impl Send for Job {}

/// What is behind the lock.
struct Posted {
    job: Option<Job>,
    /// Workers that sleep: waking nobody would still be a call into the kernel.
    sleeping: usize,
}

struct Shared {
    /// Counts operations; a worker compares it with the last one it saw.
    epoch: AtomicUsize,
    posted: Mutex<Posted>,
    wake: Condvar,
    next: AtomicUsize,
    busy: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

impl Pool {
    /// `threads` in all, at least the caller's own.
    pub fn new(threads: usize) -> Self {
        if threads <= 1 {
            return Self { shared: None, workers: Vec::new() };
        }
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            posted: Mutex::new(Posted { job: None, sleeping: 0 }),
            wake: Condvar::new(),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let spawn = |at| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("kernel-{at}"))
                .spawn(move || shared.work())
                .expect("the system gives no more threads")
        };
        let workers = (1..threads).map(spawn).collect();
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
        let task: &(dyn Fn(usize) + Sync) = &task;
        // SAFETY: only the lifetime changes. The reference is used by workers until they count
        // themselves out of `busy`, and `Finish` waits for that even when a task panics here.
        let task: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(task) };
        let job = Job { task, tasks };
        shared.next.store(0, Ordering::Relaxed);
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        let sleeping = {
            let mut posted = shared.posted.lock().expect("the pool's lock");
            posted.job = Some(job);
            shared.epoch.fetch_add(1, Ordering::Release);
            posted.sleeping
        };
        if sleeping > 0 {
            shared.wake.notify_all();
        }
        let finish = Finish(shared);
        shared.take_tasks(job);
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

/// Waits until no worker can still call the operation's closure.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut spins = 0;
        while self.0.busy.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins % 1024 == 0 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut seen = 0;
        while let Some(job) = self.wait(&mut seen) {
            let taken = std::panic::AssertUnwindSafe(|| self.take_tasks(job));
            if std::panic::catch_unwind(taken).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }

    /// The next operation, or `None` when the pool is dropped.
    fn wait(&self, seen: &mut usize) -> Option<Job> {
        for _ in 0..SPINS {
            if self.epoch.load(Ordering::Acquire) != *seen {
                break;
            }
            std::hint::spin_loop();
        }
        let mut posted = self.posted.lock().expect("the pool's lock");
        while self.epoch.load(Ordering::Acquire) == *seen {
            posted.sleeping += 1;
            posted = self.wake.wait(posted).expect("the pool's lock");
            posted.sleeping -= 1;
        }
        *seen = self.epoch.load(Ordering::Acquire);
        if self.stop.load(Ordering::Acquire) { None } else { posted.job }
    }

    fn take_tasks(&self, job: Job) {
        // SAFETY: `run` keeps the closure alive until every worker has left.
        let task = unsafe { &*job.task };
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= job.tasks {
                return;
            }
            task(at);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let Some(shared) = &self.shared else { return };
        {
            let _posted = shared.posted.lock();
            shared.stop.store(true, Ordering::Release);
            shared.epoch.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panic was reported by the `run` that it happened in.
            let _ = worker.join();
        }
    }
}

/// Columns of a matrix `[rows, stride]` that several tasks write, each its own.
pub struct Columns<'a> {
    start: *mut f32,
    len: usize,
    stride: usize,
    columns: Range<usize>,
    _matrix: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: `put` is unsafe and asks its callers to write disjoint elements.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Columns `columns` of `matrix`.
    pub fn new(matrix: &'a mut [f32], stride: usize, columns: Range<usize>) -> Self {
        assert!(columns.end <= stride, "columns {columns:?} of a matrix {stride} wide");
        let (start, len) = (matrix.as_mut_ptr(), matrix.len());
        Self { start, len, stride, columns, _matrix: std::marker::PhantomData }
    }

    /// Writes, or adds, `values` to the columns from `column` of these, in row `row`.
    ///
    /// # Safety
    /// No other task touches the elements at the same time.
    ///
    /// # Panics
    /// When an element is outside.
    pub unsafe fn put(&self, row: usize, column: usize, values: &[f32], add: bool) {
        assert!(column + values.len() <= self.columns.len());
        let at = row * self.stride + self.columns.start + column;
        assert!(at + values.len() <= self.len, "row {row} of {}", self.len / self.stride);
        // SAFETY: the elements are within the matrix, which is borrowed for as long as these
        // columns, and the caller is alone with them.
        let out = unsafe { std::slice::from_raw_parts_mut(self.start.add(at), values.len()) };
        if add {
            out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        } else {
            out.copy_from_slice(values);
        }
    }
}

/// Equal parts of a slice that several tasks write, each its own.
pub struct Parts<'a> {
    start: *mut f32,
    size: usize,
    count: usize,
    _slice: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: `part` is unsafe and asks its callers to take each part once at a time.
unsafe impl Sync for Parts<'_> {}

impl<'a> Parts<'a> {
    /// `slice` in parts of `size`; a rest that is shorter belongs to nobody.
    pub fn new(slice: &'a mut [f32], size: usize) -> Self {
        let count = slice.len() / size;
        Self { start: slice.as_mut_ptr(), size, count, _slice: std::marker::PhantomData }
    }

    /// Part `at`.
    ///
    /// # Safety
    /// Nobody else holds the part at the same time.
    ///
    /// # Panics
    /// When there is no such part.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, at: usize) -> &mut [f32] {
        assert!(at < self.count, "part {at} of {}", self.count);
        // SAFETY: the part is within the slice, which is borrowed for as long as these parts, and
        // the caller is alone with it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at * self.size), self.size) }
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
