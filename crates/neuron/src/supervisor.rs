//! Carries out what [`Lifecycle`] decides for one model: one task per model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::LoadRequest;
use dialog::FailureKind;
use engine::{EngineInfo, EngineSpec};
use model::Recipe;
use tokio::sync::{mpsc, oneshot};

use crate::assets::Assets;
use crate::lifecycle::{Command, Event, Lifecycle, Refused, RestartPolicy, State};
use crate::link::{LoadCode, LoadDetails, LoadFailure, ToChild};
use crate::process::{self, ChildEvent, EngineProcess, EngineProgram};
use crate::served::Served;
use crate::source;

/// What somebody wants of a model.
#[derive(Debug)]
pub(crate) enum Ask {
    /// To have it loaded.
    Load {
        /// As the caller said it.
        request: Box<LoadRequest>,
        /// What the engine is told.
        spec: EngineSpec,
        /// Answered when the model is ready or cannot be.
        reply: oneshot::Sender<Result<(), LoadRefused>>,
        /// Told when the load is under way or answered.
        taken: oneshot::Sender<()>,
    },
    /// To have it gone.
    Unload {
        /// How long running requests may go on.
        drain: Duration,
        /// Answered with the MiB that came back.
        reply: oneshot::Sender<u64>,
    },
}

/// Why a load was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LoadRefused {
    /// See [`Refused`].
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It is loaded or on its way with other settings.
    #[error("the model is loaded with another {field}: unload it first")]
    Conflict {
        /// The setting that differs.
        field: &'static str,
    },
}

/// Starts the supervisor of a model; it ends when the last sender of asks is gone.
pub(crate) fn start(
    served: Arc<Served>,
    program: EngineProgram,
    policy: RestartPolicy,
) -> mpsc::Sender<Ask> {
    let (sender, asks) = mpsc::channel(64);
    let (events, child_events) = mpsc::channel(16);
    let supervisor = Supervisor {
        served,
        program,
        life: Lifecycle::new(policy),
        began: Instant::now(),
        spec: EngineSpec::new(PathBuf::new()),
        process: None,
        generation: 0,
        events,
        alarm: None,
        loads: Vec::new(),
        begun: Vec::new(),
        unloads: Vec::new(),
        freed_mb: 0,
    };
    tokio::spawn(supervisor.run(asks, child_events));
    sender
}

struct Supervisor {
    served: Arc<Served>,
    program: EngineProgram,
    life: Lifecycle,
    began: Instant,
    spec: EngineSpec,
    process: Option<EngineProcess>,
    generation: u64,
    events: mpsc::Sender<(u64, ChildEvent)>,
    alarm: Option<tokio::time::Instant>,
    loads: Vec<oneshot::Sender<Result<(), LoadRefused>>>,
    begun: Vec<oneshot::Sender<()>>,
    unloads: Vec<oneshot::Sender<u64>>,
    freed_mb: u64,
}

impl Supervisor {
    async fn run(
        mut self,
        mut asks: mpsc::Receiver<Ask>,
        mut child_events: mpsc::Receiver<(u64, ChildEvent)>,
    ) {
        loop {
            let event = tokio::select! {
                ask = asks.recv() => match ask {
                    Some(ask) => self.take_ask(ask),
                    None => return,
                },
                Some((generation, event)) = child_events.recv() => {
                    (generation == self.generation).then(|| self.take_child_event(event))
                }
                () = self.served.live.idle() => {
                    // The call may be left over from an earlier emptiness.
                    (self.served.live.count() == 0).then_some(Event::Idle)
                }
                () = sleep_until(self.alarm) => {
                    self.alarm = None;
                    Some(Event::Alarm)
                }
            };
            let mut next = event;
            while let Some(event) = next.take() {
                next = self.handle(event).await;
            }
            for taken in self.begun.drain(..) {
                let _ = taken.send(());
            }
        }
    }

    fn take_ask(&mut self, ask: Ask) -> Option<Event> {
        match ask {
            Ask::Load { request, spec, reply, taken } => {
                if matches!(self.life.state(), State::Absent | State::Failed(_)) {
                    self.spec = spec;
                    let mut view = self.served.view();
                    view.assets = None;
                    view.request = *request;
                } else if let Some(field) = difference(&self.spec, &spec, &request) {
                    let _ = reply.send(Err(LoadRefused::Conflict { field }));
                    return None;
                }
                self.loads.push(reply);
                self.begun.push(taken);
                Some(Event::Load)
            }
            Ask::Unload { drain, reply } => {
                self.unloads.push(reply);
                Some(Event::Unload { drain })
            }
        }
    }

    fn take_child_event(&mut self, event: ChildEvent) -> Event {
        match event {
            ChildEvent::Ready(info) => {
                let mut view = self.served.view();
                let unfit = wrong_format(&self.spec, &view.request, &info)
                    .or_else(|| view.assets.as_ref().and_then(|text| too_many_tokens(text, &info)));
                if let Some(failure) = unfit {
                    return Event::LoadFailed(failure);
                }
                view.progress = None;
                view.steps.gauges = engine::Gauges {
                    kv_blocks_free: info.kv_blocks,
                    state_slots_free: info.state_slots,
                    ..engine::Gauges::default()
                };
                if let Some(assets) = &mut view.assets {
                    assets.limit_prompts(info.context);
                }
                if let Some(reason) =
                    info.prefix_cache.off.as_ref().filter(|_| self.spec.prefix_cache)
                {
                    let model = &self.served.id;
                    tracing::warn!(model, reason, "the prefix cache was asked for and is off");
                }
                view.info = Some(info);
                Event::Ready
            }
            ChildEvent::LoadFailed(failure) => Event::LoadFailed(failure),
            ChildEvent::Exited { reason } => {
                self.process = None;
                Event::Exited { reason }
            }
        }
    }

    /// Runs one event through the lifecycle; carrying its commands out can raise the next event.
    async fn handle(&mut self, event: Event) -> Option<Event> {
        let before = self.life.status();
        let words = format!("{event:?}");
        let now_ms = self.began.elapsed().as_millis() as u64;
        let commands = self.life.handle(event, now_ms);
        // Published before the commands: whoever is answered finds the new state in the list.
        self.publish();
        let after = self.life.status();
        if before != after {
            tracing::info!(model = self.served.id, ?before, ?after, event = words, "model");
        }
        let mut raised = None;
        for command in commands {
            let event = self.carry_out(command).await;
            raised = raised.or(event);
        }
        raised
    }

    fn publish(&self) {
        let mut view = self.served.view();
        view.status = self.life.status();
        view.restarts = self.life.restarts();
        view.pid = self.process.as_ref().and_then(|process| process.pid);
        view.error = match self.life.state() {
            State::Failed(failure) => Some(failure.message.clone()),
            _ => None,
        };
        if matches!(self.life.state(), State::Absent | State::Failed(_)) {
            view.progress = None;
            view.info = None;
            view.granted_bytes = 0;
            view.assets = None;
            view.steps.gauges = engine::Gauges::default();
        }
    }

    async fn carry_out(&mut self, command: Command) -> Option<Event> {
        let live = &self.served.live;
        match command {
            Command::Spawn => return self.spawn().await,
            Command::Open => {
                if let Some(process) = &self.process {
                    live.open(process.outbox.clone());
                }
            }
            Command::CloseForDrain => {
                self.freed_mb = self.served.view().held_mb();
                live.close();
            }
            Command::FailDrained => {
                live.fail_all(FailureKind::Draining, "the model is being unloaded");
            }
            Command::FailBroken => {
                let message = "the engine died while it worked on this request; it is being \
                               started again";
                live.fail_all(FailureKind::EngineFailed, message);
                self.served.view().steps.gauges = engine::Gauges::default();
            }
            Command::Stop => {
                if let Some(process) = &self.process
                    && process.outbox.try_send(ToChild::Shutdown).is_err()
                {
                    // A child that has let its mail pile up will not read this either.
                    process.kill();
                }
            }
            Command::Kill => {
                if let Some(process) = &self.process {
                    process.kill();
                }
            }
            Command::SetAlarm(after) => self.alarm = Some(tokio::time::Instant::now() + after),
            Command::ClearAlarm => self.alarm = None,
            Command::AnswerLoads(answer) => {
                for load in self.loads.drain(..) {
                    let _ = load.send(answer.clone().map_err(LoadRefused::from));
                }
            }
            Command::AnswerUnloads => {
                for unload in self.unloads.drain(..) {
                    let _ = unload.send(self.freed_mb);
                }
                self.freed_mb = 0;
            }
        }
        None
    }

    /// Reads what the daemon needs of the model, then starts the child. The cheap checks come
    /// first: a model without a tokenizer costs no memory (requirement 39).
    async fn spawn(&mut self) -> Option<Event> {
        if self.served.view().assets.is_none() {
            match read_assets(self.spec.source.clone()).await {
                Ok(assets) => self.served.view().assets = Some(assets),
                Err(failure) => return Some(Event::LoadFailed(failure)),
            }
        }
        let vocabulary = self.served.view().assets.as_ref().map(Assets::vocabulary);
        self.generation += 1;
        let started = process::spawn(
            &self.program,
            self.spec.clone(),
            vocabulary.unwrap_or_default(),
            Arc::clone(&self.served),
            self.generation,
            self.events.clone(),
        );
        match started {
            Ok(process) => {
                self.process = Some(process);
                self.publish();
                None
            }
            Err(error) => {
                let program = self.program.path.display();
                tracing::error!("cannot start the engine program {program}: {error}");
                let reason = format!("cannot start the engine program: {error}");
                Some(Event::Exited { reason })
            }
        }
    }
}

async fn read_assets(source: PathBuf) -> Result<Assets, LoadFailure> {
    let read = tokio::task::spawn_blocking(move || Assets::read(&source)).await;
    read.unwrap_or_else(|_| {
        let message = "the tokenizer or template made its reader panic; see the daemon's log";
        Err(LoadFailure::new(LoadCode::BadModelFile, message))
    })
}

/// What a directory's weights are is known only now. (A GGUF file was chosen by its name.)
fn wrong_format(
    spec: &EngineSpec,
    request: &LoadRequest,
    info: &EngineInfo,
) -> Option<LoadFailure> {
    let wanted = request.quant.as_deref()?;
    let base = |name| Recipe::from_name(name).map(Recipe::base);
    let same = base(wanted).is_some_and(|wanted| base(&info.quant) == Some(wanted));
    if !spec.source.is_dir() || same || info.quant.eq_ignore_ascii_case(wanted) {
        return None;
    }
    let message = format!("the source holds `{}`, not `{}`", info.quant, source::clip(wanted));
    let (available, nearest) = (vec![info.quant.clone()], Some(info.quant.clone()));
    let details = LoadDetails::Quant { available, nearest };
    Some(LoadFailure::new(LoadCode::QuantNotFound, message).with(details))
}

/// A tokenizer that knows more tokens than the model has rows for (bad file 123).
fn too_many_tokens(assets: &Assets, info: &EngineInfo) -> Option<LoadFailure> {
    let (tokens, rows) = (assets.text.tokenizer.vocab_size(), info.vocab_size);
    if tokens <= rows {
        return None;
    }
    let reason = format!("has ids up to {}, and the model has {rows} rows", tokens - 1);
    let (file, item) = ("tokenizer.json".to_owned(), "vocabulary".to_owned());
    let message = format!("{file}: {item}: {reason}");
    let details = LoadDetails::File { file, item, reason };
    Some(LoadFailure::new(LoadCode::BadModelFile, message).with(details))
}

/// The first setting that a caller states and that is not the one in force.
fn difference(
    current: &EngineSpec,
    asked: &EngineSpec,
    request: &LoadRequest,
) -> Option<&'static str> {
    if request.source.is_some() && current.source != asked.source {
        return Some("source");
    }
    if request.context.is_some() && current.context != asked.context {
        return Some("context");
    }
    if request.max_running.is_some() && current.max_running != asked.max_running {
        return Some("max_running");
    }
    if request.tensor_parallel.is_some() && current.world_size != asked.world_size {
        return Some("tensor_parallel");
    }
    let same = (&current.source, &current.quant) == (&asked.source, &asked.quant);
    (request.quant.is_some() && !same).then_some("quant")
}

async fn sleep_until(alarm: Option<tokio::time::Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
