//! Carries out what [`Lifecycle`] decides for one model: one task per model.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::{LoadRequest, ModelStatus, RankPlan};
use dialog::FailureKind;
use engine::{EngineInfo, EngineSpec};
use tokio::sync::{mpsc, oneshot};

use crate::child::link::{LoadCode, LoadFailure, ToChild};
use crate::child::native;
use crate::child::process::{self, ChildEvent, EngineProcess, EngineProgram};
use crate::models::fit::{difference, too_many_tokens, wrong_format};
use crate::models::lifecycle::{Command, Event, Lifecycle, Refused, RestartPolicy, State};
use crate::models::served::Served;
use crate::source::assets::Assets;

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
                log_room(&self.served.id, &info);
                log_unsound(&self.served.id, &info);
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
            self.forget(after);
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
            view.assets = None;
            view.steps.gauges = engine::Gauges::default();
        }
    }

    /// What a model leaves behind with its state. A grant goes once, and not again with each later
    /// event: by then it may be that of the next load.
    fn forget(&self, status: ModelStatus) {
        if status != ModelStatus::Ready && status != ModelStatus::Draining {
            self.served.forget();
        }
        if matches!(status, ModelStatus::Absent | ModelStatus::Failed) {
            self.served.view().granted = None;
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
                let message = "the engine died while it worked on this request";
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

/// A model that makes no numbers is loaded all the same, and fails each request by itself.
fn log_unsound(model: &str, info: &EngineInfo) {
    if let Some(reason) = &info.unsound {
        tracing::error!(model, reason, "the model makes no numbers");
    }
}

/// What the limits of a model follow from (requirement 95).
fn log_room(model: &str, info: &EngineInfo) {
    let plan = native::load_plan(info, true);
    let mib = |part: fn(&RankPlan) -> u64| plan.ranks.iter().map(part).sum::<u64>() >> 20;
    tracing::info!(
        model,
        device = ?info.device,
        quant = info.quant,
        context = info.context,
        max_running = info.max_running,
        kv_blocks = info.kv_blocks,
        block_size = info.block_size,
        state_slots = info.state_slots,
        weights_mib = mib(|rank| rank.weight_bytes),
        kv_mib = mib(|rank| rank.kv_bytes),
        state_mib = mib(|rank| rank.state_bytes),
        workspace_mib = mib(|rank| rank.workspace_bytes),
        host_cache_mib = plan.host_cache_bytes >> 20,
        "model loaded"
    );
}

async fn read_assets(source: PathBuf) -> Result<Assets, LoadFailure> {
    let read = tokio::task::spawn_blocking(move || Assets::read(&source)).await;
    read.unwrap_or_else(|_| {
        let message = "the tokenizer or template made its reader panic; see the daemon's log";
        Err(LoadFailure::new(LoadCode::BadModelFile, message))
    })
}

async fn sleep_until(alarm: Option<tokio::time::Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
