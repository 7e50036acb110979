//! The parts of a round.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::join_all;

use super::connection::{Ask, Connection, Target};

/// Requests one after another on each of some connections.
pub(super) struct Load {
    pub(super) per_sec: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Of the gateway, a request.
    pub(super) cpu_us: f64,
    pub(super) failures: u64,
}

/// Streams one after another on each of some connections.
pub(super) struct Streamed {
    pub(super) ttft_p50_ms: f64,
    pub(super) ttft_p99_ms: f64,
    /// HTTP chunks that a stream came in.
    pub(super) chunks: f64,
    /// Of the gateway, a stream.
    pub(super) cpu_us: f64,
    pub(super) failures: u64,
}

/// What many at once weigh.
#[derive(Default)]
pub(super) struct Crowd {
    pub(super) kb_an_open_stream: f64,
    pub(super) kb_an_idle_connection: f64,
    pub(super) failures: u64,
}

/// Asks on `connections` at once for `part`.
pub(super) async fn load(
    target: &Target,
    ask: &Ask,
    connections: usize,
    part: Duration,
) -> Result<Load> {
    let (before, begin) = (target.tree.cpu_us(), Instant::now());
    let failures = AtomicU64::new(0);
    let workers = (0..connections).map(|_| async {
        let mut times = Vec::new();
        let mut connection = Connection::open(target.addr).await?;
        while begin.elapsed() < part {
            match connection.ask(ask).await {
                Ok(went) => times.push(went.took.as_secs_f64() * 1e3),
                Err(error) => {
                    note(&failures, &error);
                    connection = Connection::open(target.addr).await?;
                }
            }
        }
        Ok::<_, anyhow::Error>(times)
    });
    let done = join_all(workers).await;
    let took = begin.elapsed().as_secs_f64();
    let cpu = target.tree.cpu_us() - before;
    let mut times = Vec::new();
    for worker in done {
        times.extend(worker?);
    }
    let count = times.len().max(1) as f64;
    times.sort_by(f64::total_cmp);
    Ok(Load {
        per_sec: count / took,
        p50_ms: share(&times, 0.5),
        p99_ms: share(&times, 0.99),
        cpu_us: cpu / count,
        failures: failures.into_inner(),
    })
}

/// How far apart the first streams of two connections begin: in step, they would measure a queue.
const APART: Duration = Duration::from_millis(5);

/// Streams on `connections` at once for `part` and until the last has ended.
pub(super) async fn streams(
    target: &Target,
    ask: &Ask,
    connections: usize,
    part: Duration,
) -> Result<Streamed> {
    let (before, begin) = (target.tree.cpu_us(), Instant::now());
    let failed = AtomicU64::new(0);
    let failures = &failed;
    let workers = (0..connections as u32).map(|nth| async move {
        let mut all = Vec::new();
        tokio::time::sleep(nth * APART).await;
        let mut connection = Connection::open(target.addr).await?;
        loop {
            match connection.ask(ask).await {
                Ok(went) => all.push((went.first.as_secs_f64() * 1e3, f64::from(went.chunks))),
                Err(error) => {
                    note(failures, &error);
                    connection = Connection::open(target.addr).await?;
                }
            }
            if begin.elapsed() >= part {
                return Ok::<_, anyhow::Error>(all);
            }
        }
    });
    let done = join_all(workers).await;
    let cpu = target.tree.cpu_us() - before;
    let (mut firsts, mut chunks) = (Vec::new(), 0.0);
    for worker in done {
        for (first, count) in worker? {
            firsts.push(first);
            chunks += count;
        }
    }
    let count = firsts.len().max(1) as f64;
    firsts.sort_by(f64::total_cmp);
    Ok(Streamed {
        ttft_p50_ms: share(&firsts, 0.5),
        ttft_p99_ms: share(&firsts, 0.99),
        chunks: chunks / count,
        cpu_us: cpu / count,
        failures: failed.into_inner(),
    })
}

/// Opens many streams, which all stay open until each has begun, and many idle connections.
pub(super) async fn crowd(target: &Target, streams: usize, idle: usize) -> Result<Crowd> {
    let mut crowd = Crowd::default();
    let failures = AtomicU64::new(0);
    let ask = Ask::stream(target, 200);
    let weighed = |count: usize, before: f64| {
        let added = target.tree.pss_mb() - before;
        if count == 0 { 0.0 } else { added.max(0.0) * 1024.0 / count as f64 }
    };
    let before = target.tree.pss_mb();
    let open = many(streams, &failures, || async {
        let mut connection = Connection::open(target.addr).await?;
        // Two chunks: the stream has begun and is far from its end.
        connection.ask_until(&ask, 2).await?;
        Ok(connection)
    });
    let open = open.await;
    crowd.kb_an_open_stream = weighed(open.len(), before);
    drop(open);
    // What the streams held is free again, and reused by what comes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = target.tree.pss_mb();
    let whole = Ask::whole(target, 200);
    let sat = many(idle, &failures, || async {
        let mut connection = Connection::open(target.addr).await?;
        connection.ask(&whole).await?;
        Ok(connection)
    });
    let sat = sat.await;
    crowd.kb_an_idle_connection = weighed(sat.len(), before);
    crowd.failures = failures.into_inner();
    Ok(crowd)
}

/// A hundred at a time, so that no listener's queue overflows.
async fn many<F>(count: usize, failures: &AtomicU64, open: impl Fn() -> F) -> Vec<Connection>
where
    F: Future<Output = Result<Connection>>,
{
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let more = (count - all.len()).min(100);
        let opened = join_all((0..more).map(|_| open())).await;
        let before = all.len();
        for one in opened {
            match one {
                Ok(connection) => all.push(connection),
                Err(error) => note(failures, &error),
            }
        }
        if all.len() == before {
            break;
        }
    }
    all
}

/// The first failure of a part is shown by its first line; the others are counted.
fn note(failures: &AtomicU64, error: &anyhow::Error) {
    if failures.fetch_add(1, Ordering::Relaxed) == 0 {
        let shown = format!("{error:#}");
        eprintln!("a request failed: {}", shown.lines().next().unwrap_or_default());
    }
}

fn share(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((share * last as f64).round() as usize).copied().unwrap_or(0.0)
}
