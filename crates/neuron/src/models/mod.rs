//! All models of this node: their registry, loads and unloads.

mod fit;
pub(crate) mod gauges;
pub mod lifecycle;
pub(crate) mod live;
pub(crate) mod served;
pub(crate) mod spec;
pub(crate) mod supervisor;
pub(crate) mod ticket;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use control::{
    Activation, ActivationState, HostMemory, LoadPlan, LoadReply, LoadRequest, ModelStatus,
    UnloadReply, UnloadRequest,
};
use engine::{Device, EngineSpec};
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use crate::child::native;
use crate::child::process::EngineProgram;
use crate::config::{Config, DevicePolicy, Native};
use crate::control_error::ControlError;
use crate::host::{cards, memory};
use crate::source::Allowed;
use lifecycle::RestartPolicy;
use served::{Grant, Served};
use spec::planned;
use supervisor::Ask;

/// How long running requests may go on when an unload does not say.
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// The longest drain that an unload may ask for.
const MAX_DRAIN: Duration = Duration::from_secs(3600);

/// The registry; the only place where supervisors are made.
#[derive(Debug)]
pub(crate) struct Models {
    native: Native,
    program: EngineProgram,
    policy: RestartPolicy,
    allowed: Allowed,
    /// Main memory for models on the CPU.
    capacity_bytes: u64,
    configured: BTreeMap<String, LoadRequest>,
    table: Mutex<Table>,
    /// Held from the choice of a card until it is counted.
    placing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Entry {
    served: Arc<Served>,
    asks: mpsc::Sender<Ask>,
}

impl Models {
    /// The configured models, none of them loaded. Needs a Tokio runtime.
    pub(crate) fn new(config: &Config, own_engine: EngineProgram, policy: RestartPolicy) -> Self {
        let native = config.harness.native.clone();
        let program = match native.engine_command.as_deref() {
            Some([path, args @ ..]) => EngineProgram {
                path: path.into(),
                args: args.iter().map(Into::into).collect(),
                ..own_engine
            },
            _ => own_engine,
        };
        let configured: BTreeMap<_, _> = config
            .default_models
            .iter()
            .map(|request| (request.model_id.clone(), request.clone()))
            .collect();
        let models = Self {
            native,
            program,
            policy,
            allowed: Allowed::new(config.model_dirs.clone()),
            capacity_bytes: capacity(&config.harness.native),
            configured,
            table: Mutex::default(),
            placing: <_>::default(),
        };
        for request in models.configured.values() {
            models.entry(request);
        }
        models
    }

    /// A model that is configured, loaded or on its way.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Served>> {
        self.table().entries.get(id).map(|entry| &entry.served).filter(|s| self.shows(s)).cloned()
    }

    /// An entry once made is kept, since a load may hold it at any time; each is an id that the
    /// operator's side has loaded once. One that was unloaded is no longer shown.
    fn shows(&self, served: &Served) -> bool {
        let absent = served.view().status == ModelStatus::Absent;
        !absent || self.configured.contains_key(&served.id)
    }

    /// All of them, by their ids.
    pub(crate) fn list(&self) -> Vec<Arc<Served>> {
        let table = self.table();
        let served = table.entries.values().map(|entry| &entry.served);
        let mut list: Vec<_> = served.filter(|served| self.shows(served)).cloned().collect();
        drop(table);
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    /// Loads all configured models, one failure not touching the others (requirement 71).
    pub(crate) async fn load_configured(&self) {
        let loads = self.configured.values().map(|request| async move {
            if let Err(error) = self.load(request.clone()).await {
                let model = &request.model_id;
                tracing::error!(model, code = error.code, "configured model not loaded: {error}");
            }
        });
        join_all(loads).await;
    }

    /// Loads a model, or joins the load that is under way.
    ///
    /// The load goes on when the caller leaves; the model is then in the list all the same.
    pub(crate) async fn load(&self, request: LoadRequest) -> Result<LoadReply, ControlError> {
        let began = Instant::now();
        let wait = request.wait.unwrap_or(true);
        let id = request.model_id.clone();
        let about = |error: ControlError| error.about(&id);
        let turn = if cards::are_driven() { Some(self.placing.lock().await) } else { None };
        let spec = self.plan(&request).await.map_err(about)?;
        let entry = self.open_entry(&request)?;
        self.grant(&entry, &spec).await.map_err(about)?;
        drop(turn);
        let (reply, mut answer) = oneshot::channel();
        let (taken, begun) = oneshot::channel();
        let ask = Ask::Load { request: Box::new(request), spec, reply, taken };
        entry.asks.send(ask).await.map_err(|_| ControlError::shutting_down())?;
        // A refusal that needs no engine is told even to those who do not wait.
        let begun = begun.await.is_ok();
        let answer = match answer.try_recv() {
            Err(_) if begun && !wait => {
                return Ok(LoadReply { status: "loading".into(), plan: None, load_ms: None });
            }
            Ok(answer) => answer,
            Err(_) => answer.await.map_err(|_| ControlError::shutting_down())?,
        };
        answer.map_err(|refused| about(refused.into()))?;
        let plan = entry.served.view().plan();
        let load_ms = Some(began.elapsed().as_millis() as u64);
        Ok(LoadReply { status: "loaded".into(), plan, load_ms })
    }

    /// What a load would take, without doing it.
    pub(crate) async fn dry_run(&self, request: &LoadRequest) -> Result<LoadPlan, ControlError> {
        let spec = self.plan(request).await.map_err(|error| error.about(&request.model_id))?;
        let mut plan = planned(spec).await.map_err(|error| error.about(&request.model_id))?;
        if plan.is_on_host {
            let free = self.free_bytes(&self.table(), Some(&request.model_id));
            plan.free_bytes = Some(plan.free_bytes.map_or(free, |had| had.min(free)));
            plan.fits &= plan.needed_bytes <= free;
        }
        Ok(plan)
    }

    /// Grants a load its memory: two loads at once must not both find the same room. Main memory is
    /// counted where the configuration bounds it; what a card has, the engine itself asks it. A
    /// model that is there or on its way has its grant.
    async fn grant(&self, entry: &Entry, spec: &EngineSpec) -> Result<(), ControlError> {
        let is_new = |status| matches!(status, ModelStatus::Absent | ModelStatus::Failed);
        let is_counted = spec.device != Device::Cpu || self.native.memory_mb.is_some();
        if !is_counted || !is_new(entry.served.view().status) {
            return Ok(());
        }
        let bytes = planned(spec.clone()).await?.needed_bytes;
        let table = self.table();
        let free = self.free_bytes(&table, Some(&entry.served.id));
        let mut view = entry.served.view();
        if !is_new(view.status) || view.granted.is_some() {
            return Ok(());
        }
        if spec.device == Device::Cpu && bytes > free {
            return Err(native::does_not_fit(bytes, free).into());
        }
        view.granted = Some(Grant { device: spec.device, bytes });
        Ok(())
    }

    /// What models that are on their way to cards will take of each.
    fn promised_of_cards(&self) -> HashMap<u32, u64> {
        let mut promised = HashMap::new();
        for entry in self.table().entries.values() {
            if let Some((card, bytes)) = entry.served.view().promised_of_card() {
                *promised.entry(card).or_default() += bytes;
            }
        }
        promised
    }

    /// Main memory that models on the CPU could have, without counting what one of them has.
    fn free_bytes(&self, table: &Table, but: Option<&str>) -> u64 {
        let others = table.entries.values().filter(|entry| Some(&*entry.served.id) != but);
        let taken = others.map(|entry| entry.served.view().host_bytes());
        self.capacity_bytes.saturating_sub(taken.fold(0, u64::saturating_add))
    }

    /// Main memory for models; said where they run on the CPU.
    pub(crate) fn host_memory(&self) -> Option<HostMemory> {
        let on_cpu = self.native.device == DevicePolicy::Cpu || !cards::are_driven();
        on_cpu.then(|| {
            let free = self.free_bytes(&self.table(), None);
            let free = memory::available_bytes().map_or(free, |available| available.min(free));
            HostMemory { total_mb: self.capacity_bytes >> 20, free_mb: free >> 20 }
        })
    }

    /// Unloads a model; answers once its memory is back.
    pub(crate) async fn unload(&self, request: UnloadRequest) -> Result<UnloadReply, ControlError> {
        let id = request.model_id;
        let entry = self.table().entries.get(&id).filter(|e| self.shows(&e.served)).cloned();
        let entry = entry.ok_or_else(|| ControlError::unknown_model(&id))?;
        if entry.served.view().status == ModelStatus::Absent {
            return Err(ControlError::not_loaded(&id));
        }
        let drain = request.drain_secs.map_or(DEFAULT_DRAIN, Duration::from_secs).min(MAX_DRAIN);
        let freed_mb = unload(&entry, drain).await.ok_or_else(ControlError::shutting_down)?;
        Ok(UnloadReply { status: "unloaded".into(), freed_mb })
    }

    /// Takes no more loads and ends every engine; running requests get `drain` to finish.
    pub(crate) async fn shut_down(&self, drain: Duration) {
        let entries: Vec<Entry> = {
            let mut table = self.table();
            table.closed = true;
            table.entries.values().cloned().collect()
        };
        let unloads = entries.iter().map(|entry| unload(entry, drain));
        join_all(unloads).await;
    }

    /// How far the configured models have come.
    pub(crate) fn activation(&self) -> Activation {
        let mut activation = Activation::default();
        for id in self.configured.keys() {
            let status = self.get(id).map_or(ModelStatus::Absent, |served| served.view().status);
            let list = match status {
                ModelStatus::Absent => &mut activation.pending,
                ModelStatus::Ready => &mut activation.completed,
                ModelStatus::Failed => &mut activation.failed,
                ModelStatus::Downloading
                | ModelStatus::Loading
                | ModelStatus::Draining
                | ModelStatus::Restarting => &mut activation.in_progress,
            };
            list.push(id.clone());
        }
        if !activation.in_progress.is_empty() {
            activation.state = ActivationState::Activating;
        }
        activation
    }

    fn open_entry(&self, request: &LoadRequest) -> Result<Entry, ControlError> {
        if self.table().closed {
            return Err(ControlError::shutting_down());
        }
        Ok(self.entry(request))
    }

    fn entry(&self, request: &LoadRequest) -> Entry {
        let mut table = self.table();
        let entry = table.entries.entry(request.model_id.clone()).or_insert_with(|| {
            let served = Arc::new(Served::new(request.clone()));
            let asks = supervisor::start(Arc::clone(&served), self.program.clone(), self.policy);
            Entry { served, asks }
        });
        entry.clone()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the configuration allows, else what the host had free when the daemon started.
fn capacity(native: &Native) -> u64 {
    let configured = native.memory_mb.map(|mb| mb.saturating_mul(1 << 20));
    configured.or_else(memory::available_bytes).unwrap_or(u64::MAX)
}

async fn unload(entry: &Entry, drain: Duration) -> Option<u64> {
    let (reply, answer) = oneshot::channel();
    entry.asks.send(Ask::Unload { drain, reply }).await.ok()?;
    answer.await.ok()
}
