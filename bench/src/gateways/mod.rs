//! `bench gateways`: what a gateway adds, beside others and beside none.
//!
//! All are in front of the same `bench mock` and are asked in turns within one run, so that
//! whatever else the machine does falls on all of them. CPU is that of a gateway's processes alone.

mod connection;
mod measure;
pub(crate) mod mock;
mod process;
mod table;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use crate::quartiles::Quartiles;
use connection::{Ask, Target};
use process::Tree;

/// What `bench gateways` can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// `bench mock` itself, for example 127.0.0.1:18000.
    #[arg(long)]
    direct: String,
    /// A gateway in front of it and its process, as NAME=HOST:PORT=PID; several times.
    #[arg(long = "gateway", value_parser = named)]
    gateways: Vec<Named>,
    /// A header line that every gateway is sent, for those that want a key.
    #[arg(long, default_value = "authorization: Bearer sk-bench")]
    header: String,
    /// The model's id.
    #[arg(long, default_value = "mock")]
    model: String,
    /// Rounds that count; one more warms up.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// How long each part of a round takes, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    part_ms: u64,
    /// Streams at once.
    #[arg(long, default_value_t = 64)]
    streams: usize,
    /// Then hold this many streams open at once, of each gateway, and weigh them.
    #[arg(long, default_value_t = 0)]
    open_streams: usize,
    /// Then hold this many idle connections, of each gateway, and weigh them.
    #[arg(long, default_value_t = 0)]
    idle_connections: usize,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
struct Named {
    name: String,
    addr: String,
    pid: u32,
}

fn named(text: &str) -> Result<Named, String> {
    let wrong = || format!("`{text}` is not NAME=HOST:PORT=PID");
    let mut parts = text.split('=');
    let (Some(name), Some(addr), Some(pid), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    let pid = pid.parse().map_err(|_| wrong())?;
    Ok(Named { name: name.to_owned(), addr: addr.to_owned(), pid })
}

/// All samples of one way to the engine.
#[derive(Default)]
struct Samples {
    one: Vec<f64>,
    small: Vec<measure::Load>,
    large: Vec<measure::Load>,
    streams: Vec<measure::Streamed>,
    idle_mb: f64,
    loaded_mb: f64,
    crowd: measure::Crowd,
}

/// One line of the table.
#[derive(Serialize)]
struct Line {
    name: String,
    one_p50_us: Quartiles,
    requests_per_sec: Quartiles,
    request_p50_ms: f64,
    request_p99_ms: f64,
    cpu_us: f64,
    large_requests_per_sec: Quartiles,
    large_cpu_us: f64,
    ttft_p50_ms: Quartiles,
    ttft_p99_ms: f64,
    chunks_a_stream: f64,
    stream_cpu_us: f64,
    pss_idle_mb: f64,
    pss_loaded_mb: f64,
    kb_an_open_stream: f64,
    kb_an_idle_connection: f64,
    failures: u64,
}

/// Measures; `false` when some request failed.
pub(crate) async fn run(options: Options) -> Result<bool> {
    let mut ways = vec![Named { name: "direct".into(), addr: options.direct.clone(), pid: 0 }];
    ways.extend(options.gateways.iter().cloned());
    let mut all: Vec<Samples> = ways.iter().map(|_| Samples::default()).collect();
    for (way, samples) in ways.iter().zip(&mut all) {
        samples.idle_mb = Tree::of(way.pid).pss_mb();
    }
    for round in 0..=options.rounds {
        // Who goes first changes, so that none is always the one with warm caches.
        for turn in 0..ways.len() {
            let place = (turn + usize::from(round)) % ways.len();
            let way = &ways[place];
            let samples = one_round(&options, way).await;
            let samples = samples.with_context(|| format!("{} at {}", way.name, way.addr))?;
            if round > 0 {
                all[place].add(samples);
            }
        }
    }
    for (way, samples) in ways.iter().zip(&mut all) {
        let target = target(&options, way)?;
        let crowd = measure::crowd(&target, options.open_streams, options.idle_connections);
        samples.crowd = crowd.await.with_context(|| format!("a crowd at {}", way.name))?;
    }
    let lines: Vec<Line> = ways.iter().zip(&all).map(|(way, s)| s.line(&way.name)).collect();
    table::print(&lines, options.json)?;
    Ok(lines.iter().all(|line| line.failures == 0))
}

fn target(options: &Options, way: &Named) -> Result<Target> {
    let addr = way.addr.parse().with_context(|| format!("`{}` is no HOST:PORT", way.addr))?;
    let (header, model) = (options.header.clone(), options.model.clone());
    Ok(Target { addr, header, model, tree: Tree::of(way.pid) })
}

async fn one_round(options: &Options, way: &Named) -> Result<Samples> {
    let target = target(options, way)?;
    let part = Duration::from_millis(options.part_ms);
    let mut samples = Samples::default();
    let one = measure::load(&target, &Ask::whole(&target, 200), 1, part).await?;
    samples.one.push(one.p50_ms * 1e3);
    samples.small.push(measure::load(&target, &Ask::whole(&target, 200), 16, part).await?);
    samples.large.push(measure::load(&target, &Ask::whole(&target, 32 << 10), 16, part).await?);
    let ask = Ask::stream(&target, 200);
    samples.streams.push(measure::streams(&target, &ask, options.streams, part).await?);
    samples.loaded_mb = target.tree.pss_mb();
    Ok(samples)
}

impl Samples {
    fn add(&mut self, other: Samples) {
        self.one.extend(other.one);
        self.small.extend(other.small);
        self.large.extend(other.large);
        self.streams.extend(other.streams);
        self.loaded_mb = self.loaded_mb.max(other.loaded_mb);
    }

    fn line(&self, name: &str) -> Line {
        let of = |loads: &[measure::Load], what: fn(&measure::Load) -> f64| {
            Quartiles::of(&loads.iter().map(what).collect::<Vec<_>>())
        };
        let streamed = |what: fn(&measure::Streamed) -> f64| {
            Quartiles::of(&self.streams.iter().map(what).collect::<Vec<_>>())
        };
        Line {
            name: name.to_owned(),
            one_p50_us: Quartiles::of(&self.one),
            requests_per_sec: of(&self.small, |load| load.per_sec),
            request_p50_ms: of(&self.small, |load| load.p50_ms).median,
            request_p99_ms: of(&self.small, |load| load.p99_ms).median,
            cpu_us: of(&self.small, |load| load.cpu_us).median,
            large_requests_per_sec: of(&self.large, |load| load.per_sec),
            large_cpu_us: of(&self.large, |load| load.cpu_us).median,
            ttft_p50_ms: streamed(|streamed| streamed.ttft_p50_ms),
            ttft_p99_ms: streamed(|streamed| streamed.ttft_p99_ms).median,
            chunks_a_stream: streamed(|streamed| streamed.chunks).lower,
            stream_cpu_us: streamed(|streamed| streamed.cpu_us).median,
            pss_idle_mb: self.idle_mb,
            pss_loaded_mb: self.loaded_mb,
            kb_an_open_stream: self.crowd.kb_an_open_stream,
            kb_an_idle_connection: self.crowd.kb_an_idle_connection,
            failures: self.small.iter().chain(&self.large).map(|load| load.failures).sum::<u64>()
                + self.streams.iter().map(|streamed| streamed.failures).sum::<u64>()
                + self.crowd.failures,
        }
    }
}
