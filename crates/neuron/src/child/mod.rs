//! The engine child: `neuron engine`, one process per loaded model. This file is what runs in it;
//! `process` is how the daemon sees it, and `link` what the two say to each other.
//!
//! A reader thread feeds an inbox; this thread owns the engine. It empties the inbox between
//! steps, sleeps in it when there is nothing to compute, and writes one frame per step.

mod inbox;
pub mod link;
mod load_failure;
pub mod native;
pub mod process;

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use engine::{Admission, EngineSpec, TokenEngine};
use inbox::Inbox;

use link::{FromChild, LinkError, LoadFailure, ToChild};

/// Progress frames are no closer together than this.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Builds an engine, and tells as it goes how many bytes of how many are in place.
pub trait Loader:
    FnOnce(&EngineSpec, &mut dyn FnMut(u64, u64)) -> Result<Box<dyn TokenEngine>, LoadFailure>
{
}

impl<L> Loader for L where
    L: FnOnce(&EngineSpec, &mut dyn FnMut(u64, u64)) -> Result<Box<dyn TokenEngine>, LoadFailure>
{
}

/// Runs an engine for the daemon at the other end of standard input, until either of them ends.
pub fn run(load: impl Loader) -> ExitCode {
    let socket = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(error) => {
            tracing::error!("standard input cannot be used as the engine link: {error}");
            return ExitCode::FAILURE;
        }
    };
    let Err(error) = serve(socket, load);
    tracing::error!("engine ends: {error}");
    ExitCode::FAILURE
}

/// Why the child ends other than by being told to.
#[derive(Debug, thiserror::Error)]
enum Ending {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Load(#[from] LoadFailure),
    #[error(transparent)]
    Fault(#[from] engine::Fault),
    #[error("the daemon spoke before it said what to load")]
    NoSpec,
}

fn serve(mut socket: UnixStream, load: impl Loader) -> Result<Infallible, Ending> {
    let inbox = spawn_reader(socket.try_clone().map_err(LinkError::Io)?);
    let ToChild::Load(spec) = inbox.wait() else { return Err(Ending::NoSpec) };
    let mut engine = match load_with_progress(&mut socket, &spec, load) {
        Ok(engine) => engine,
        Err(failure) => {
            link::write_frame(&mut socket, &FromChild::LoadFailed(failure.clone()))?;
            return Err(failure.into());
        }
    };
    link::write_frame(&mut socket, &FromChild::Ready(engine.info().clone()))?;
    loop {
        take_messages(&inbox, engine.as_mut(), &mut socket)?;
        let began = Instant::now();
        match engine.step() {
            Ok(mut report) => {
                // Libraries read no clock; the process around them does.
                report.step_micros = began.elapsed().as_micros() as u64;
                engine.pace(report.step_micros);
                link::write_frame(&mut socket, &FromChild::Step(report))?;
            }
            Err(fault) => {
                let message = fault.to_string();
                link::write_frame(&mut socket, &FromChild::Fault { message })?;
                return Err(fault.into());
            }
        }
    }
}

/// Reads frames into the inbox. The process ends with its daemon or at its word, at once, whatever
/// the engine's thread is doing: neither a long load nor a step that hangs in a driver holds it up.
fn spawn_reader(mut socket: UnixStream) -> Arc<Inbox> {
    let inbox = Arc::new(Inbox::default());
    let filled = Arc::clone(&inbox);
    thread::spawn(move || {
        let _end = EndsWithReader;
        loop {
            match link::read_frame(&mut socket) {
                Ok(None | Some(ToChild::Shutdown)) => std::process::exit(0),
                Ok(Some(message)) => filled.put(message),
                Err(error) => {
                    tracing::error!("{error}");
                    std::process::exit(1);
                }
            }
        }
    });
    inbox
}

/// A reader that panics takes the process with it: without one, nobody would hear that the daemon
/// is gone.
struct EndsWithReader;

impl Drop for EndsWithReader {
    fn drop(&mut self) {
        std::process::exit(1);
    }
}

fn load_with_progress(
    socket: &mut UnixStream,
    spec: &EngineSpec,
    load: impl Loader,
) -> Result<Box<dyn TokenEngine>, LoadFailure> {
    let mut last: Option<Instant> = None;
    let mut progress = |done_bytes, total_bytes| {
        let due = last.is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL);
        if due || done_bytes == total_bytes {
            last = Some(Instant::now());
            // A daemon that cannot be written to is gone, which the reader thread notices.
            let _ = link::write_frame(socket, &FromChild::Progress { done_bytes, total_bytes });
        }
    };
    load(spec, &mut progress)
}

/// Empties the inbox into the engine, and waits in it while the engine has nothing to do.
fn take_messages(
    inbox: &Inbox,
    engine: &mut dyn TokenEngine,
    socket: &mut UnixStream,
) -> Result<(), LinkError> {
    loop {
        let message = if engine.is_idle() { Some(inbox.wait()) } else { inbox.take() };
        match message {
            Some(ToChild::Submit(request)) => {
                let id = request.id;
                let answer = match engine.submit(request) {
                    Ok(Admission::Accepted) => FromChild::Accepted(id),
                    // A step tells what becomes of it.
                    Ok(Admission::Pending) => continue,
                    Err(refusal) => FromChild::Refused { id, refusal },
                };
                link::write_frame(socket, &answer)?;
            }
            Some(ToChild::Abort(id)) => {
                engine.abort(id);
                report_abort(engine, socket)?;
            }
            Some(ToChild::Vocabulary(vocabulary)) => engine.set_vocabulary(vocabulary),
            // The reader does so itself, before the word comes here.
            Some(ToChild::Shutdown) => std::process::exit(0),
            Some(ToChild::Load(_)) => tracing::error!("a second load was asked for; ignored"),
            None => return Ok(()),
        }
    }
}

/// After the abort of the last request no step follows that would bring its gauges home.
fn report_abort(engine: &dyn TokenEngine, socket: &mut UnixStream) -> Result<(), LinkError> {
    if engine.is_idle() {
        link::write_frame(socket, &FromChild::Idle(engine.gauges()))?;
    }
    Ok(())
}
