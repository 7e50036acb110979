//! One engine child: its process, its link and its log.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, os::unix::process::ExitStatusExt};

use engine::{EngineInfo, EngineSpec, Refusal, Vocabulary};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{Notify, mpsc};

use crate::child::link::{self, FromChild, LinkError, LoadFailure, ToChild};
use crate::models::live::{OUTBOX_FRAMES, Outbox};
use crate::models::served::Served;

/// A line of a child's log is cut here.
const MAX_LOG_LINE_BYTES: u64 = 16 << 10;

/// The program of an engine child.
#[derive(Clone, Debug)]
pub struct EngineProgram {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// A child that loads, or has work, and says nothing for this long is killed.
    pub step_timeout: Duration,
}

/// What a child's supervisor hears; steps go straight to their requests instead.
#[derive(Debug)]
pub(crate) enum ChildEvent {
    /// See [`FromChild::Ready`].
    Ready(EngineInfo),
    /// See [`FromChild::LoadFailed`].
    LoadFailed(LoadFailure),
    /// The process is gone; the last event.
    Exited {
        /// Its status and its last words.
        reason: String,
    },
}

/// A running child. Dropping it kills the child.
#[derive(Debug)]
pub(crate) struct EngineProcess {
    /// For humans and reports.
    pub(crate) pid: Option<u32>,
    /// Frames to the child.
    pub(crate) outbox: Outbox,
    kill: Arc<Notify>,
}

impl EngineProcess {
    /// Ends the child the hard way; its [`ChildEvent::Exited`] follows.
    pub(crate) fn kill(&self) {
        self.kill.notify_one();
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        self.kill.notify_one();
    }
}

/// Starts a child and tells it what to load and what the tokens spell. Events carry `generation`,
/// so that the last words of one child are not taken for those of the next.
pub(crate) fn spawn(
    program: &EngineProgram,
    spec: EngineSpec,
    vocabulary: Vocabulary,
    served: Arc<Served>,
    generation: u64,
    events: mpsc::Sender<(u64, ChildEvent)>,
) -> io::Result<EngineProcess> {
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let near = UnixStream::from_std(near)?;
    let mut child = Command::new(&program.path)
        .args(&program.args)
        .stdin(Stdio::from(OwnedFd::from(far)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C on the terminal is for the daemon, which ends its children in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(copy_log(stderr, served.id.clone()));
    }
    let (reader, writer) = near.into_split();
    let (outbox, messages) = mpsc::channel(OUTBOX_FRAMES);
    tokio::spawn(write(writer, messages, Arc::clone(&served)));
    // The channel is empty and its receiver was just made: nothing can fail here.
    let _ = outbox.try_send(ToChild::Load(spec));
    let _ = outbox.try_send(ToChild::Vocabulary(vocabulary));
    let kill = Arc::new(Notify::new());
    let process = EngineProcess { pid: child.id(), outbox, kill: Arc::clone(&kill) };
    let step_timeout = program.step_timeout;
    tokio::spawn(async move {
        let listener = Listener { generation, events };
        let reason = watch(child, reader, &served, &kill, step_timeout, &listener).await;
        listener.tell(ChildEvent::Exited { reason }).await;
    });
    Ok(process)
}

/// The supervisor, as one child's watcher knows it.
struct Listener {
    generation: u64,
    events: mpsc::Sender<(u64, ChildEvent)>,
}

impl Listener {
    async fn tell(&self, event: ChildEvent) {
        // A supervisor that is gone wants to hear nothing.
        let _ = self.events.send((self.generation, event)).await;
    }
}

async fn write(
    mut socket: OwnedWriteHalf,
    mut messages: mpsc::Receiver<ToChild>,
    served: Arc<Served>,
) {
    while let Some(message) = messages.recv().await {
        match link::encode(&message) {
            Ok(frame) => {
                if socket.write_all(&frame).await.is_err() {
                    // The reading half notices as well, and tells.
                    return;
                }
            }
            Err(error) => {
                tracing::error!(model = served.id, "{error}");
                if let ToChild::Submit(request) = message {
                    let refusal = Refusal::Invalid("the prompt is too large".into());
                    served.live.refused(request.id, refusal);
                }
            }
        }
    }
}

/// Follows a child to its end, and says in words how it ended.
async fn watch(
    mut child: Child,
    mut socket: OwnedReadHalf,
    served: &Served,
    kill: &Notify,
    step_timeout: Duration,
    listener: &Listener,
) -> String {
    let mut fault = None;
    let load = Load::begun();
    let read = async {
        while let Some(frame) = link::read_frame_async(&mut socket).await? {
            load.shows_life();
            match frame {
                FromChild::Ready(info) => {
                    load.ends();
                    listener.tell(ChildEvent::Ready(info)).await;
                }
                FromChild::LoadFailed(failure) => {
                    listener.tell(ChildEvent::LoadFailed(failure)).await;
                }
                FromChild::Fault { message } => fault = Some(message),
                FromChild::Step(report) => {
                    // Counts first: who sees an answer end also sees its memory back.
                    served.view().steps.add(&report);
                    served.live.apply(&report);
                }
                FromChild::Accepted(id) => served.live.accepted(id),
                FromChild::Refused { id, refusal } => served.live.refused(id, refusal),
                FromChild::Idle(gauges) => served.view().steps.gauges = gauges,
                FromChild::Progress { done_bytes, total_bytes } => {
                    let progress = control::Progress { done_bytes, total_bytes };
                    served.view().progress = Some(progress);
                }
            }
        }
        Ok::<_, LinkError>(())
    };
    let words = tokio::select! {
        read = read => read.err().map(|error| error.to_string()),
        () = kill.notified() => Some("killed by the daemon".to_owned()),
        what = stall(served, &load, step_timeout) => {
            Some(format!("{what} for {} s", step_timeout.as_secs()))
        }
    };
    // A child that closed its link is on its way out, and cannot be killed more than dead.
    let _ = child.start_kill();
    let status = match child.wait().await {
        Ok(status) => describe(status),
        Err(error) => format!("status unknown: {error}"),
    };
    match fault.or(words) {
        Some(words) => format!("{words} ({status})"),
        None => status,
    }
}

/// Returns when the engine has had work for too long without a sign of life, be it steps
/// (requirement 82) or its load, which a driver or a disk can hold up for ever; says which.
async fn stall(served: &Served, load: &Load, limit: Duration) -> &'static str {
    let mut ticks = tokio::time::interval((limit / 4).max(Duration::from_millis(10)));
    loop {
        if served.live.stalled_for() >= limit {
            return "no step was reported";
        }
        if load.silent_for() >= limit {
            return "the load made no progress";
        }
        ticks.tick().await;
    }
}

/// A load, until it is done: when it last showed a sign of life.
struct Load(Mutex<Option<Instant>>);

impl Load {
    fn begun() -> Self {
        Self(Mutex::new(Some(Instant::now())))
    }

    fn shows_life(&self) {
        if let Some(last) = self.last().as_mut() {
            *last = Instant::now();
        }
    }

    fn ends(&self) {
        *self.last() = None;
    }

    fn silent_for(&self) -> Duration {
        self.last().map_or(Duration::ZERO, |last| last.elapsed())
    }

    fn last(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("engine process ended with status {code}"),
        (None, Some(9)) => "engine process was killed by signal 9".to_owned(),
        (None, signal) => format!("engine process died of signal {}", signal.unwrap_or(0)),
    }
}

/// Copies a child's log into ours, line by line, control characters spelled out.
async fn copy_log(stderr: ChildStderr, model: String) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut lines).take(MAX_LOG_LINE_BYTES).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(bytes) if bytes > 0) {
            return;
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            tracing::info!(target: "engine", model, "{}", text.escape_debug());
        }
    }
}
