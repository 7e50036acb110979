//! One simulated fleet, from a seed.

use std::collections::BTreeMap;
use std::mem::take;

use control::{LoadPlan, ModelStatus, RankPlan};
use fleet::{
    Ask, Catalogue, Command, Desk, NodeReport, Observation, Outcome, Outliers, Route, Snapshot,
    Strategy, Tick, UnloadCause, Unplanned, observe, route,
};

use crate::checks::{self, Broken, Rule};
use crate::draws::Draws;
use crate::world::{self, Resident, SimNode, node_name};

const STEP_MS: u64 = 100;
/// Until then everything goes wrong; afterwards nothing does.
const CHAOS_MS: u64 = 120_000;
/// The fleet may still move until then.
const SETTLED_MS: u64 = 260_000;
const END_MS: u64 = 320_000;
const PATIENCE_MS: u64 = 30_000;
/// After so long an order to a node that does not answer is given up.
const ORDER_LIMIT_MS: u64 = 15_000;

/// A respect in which the policy is blind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Reports claim twice the free memory.
    SeesTooMuchRoom,
    /// It hears of no use.
    SeesNoUse,
    /// It is not told who is pinned.
    SeesNoPins,
    /// Every load is ordered twice.
    LoadsTwice,
    /// It never lets go of who waits.
    ForgetsWaiters,
    /// It unloads what it has just loaded.
    Fidgets,
    /// Nobody counts the polls that a node misses.
    SeesGhosts,
}

impl Mutation {
    pub(crate) const ALL: [Self; 7] = [
        Self::SeesTooMuchRoom,
        Self::SeesNoUse,
        Self::SeesNoPins,
        Self::LoadsTwice,
        Self::ForgetsWaiters,
        Self::Fidgets,
        Self::SeesGhosts,
    ];

    /// The rules as whose breach it may show.
    pub(crate) fn breaks(self) -> &'static [Rule] {
        match self {
            Self::SeesTooMuchRoom => &[Rule::Room],
            Self::SeesNoUse => &[Rule::Busy],
            Self::SeesNoPins => &[Rule::Pinned],
            Self::LoadsTwice => &[Rule::OneLoad],
            Self::ForgetsWaiters => &[Rule::Ends],
            Self::Fidgets => &[Rule::Rest],
            Self::SeesGhosts => &[Rule::Alive],
        }
    }
}

/// What happened, in numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Story {
    pub(crate) forwarded: u64,
    pub(crate) waited: u64,
    pub(crate) left: u64,
    pub(crate) loads: u64,
    pub(crate) failed_loads: u64,
    pub(crate) evictions: u64,
}

impl Story {
    pub(crate) fn add(&mut self, other: &Self) {
        self.forwarded += other.forwarded;
        self.waited += other.waited;
        self.left += other.left;
        self.loads += other.loads;
        self.failed_loads += other.failed_loads;
        self.evictions += other.evictions;
    }
}

/// What happens later.
enum Event {
    Report { place: usize, sent: u64, report: Option<Box<NodeReport>> },
    Loaded { place: usize, model: String },
    LoadLost { place: usize, model: String },
    Unloaded { place: usize, model: String },
    UnloadLost { place: usize, model: String },
    Answered { place: usize, model: String },
}

struct Simulation {
    draws: Draws,
    nodes: Vec<SimNode>,
    catalogue: Catalogue,
    /// What the policy is told of it.
    told: Catalogue,
    strategy: Strategy,
    snapshot: Snapshot,
    desk: Desk,
    events: BTreeMap<u64, Vec<Event>>,
    /// Requests that wait, with model and deadline.
    waiting: BTreeMap<u64, (String, u64)>,
    asks: u64,
    now: u64,
    mutation: Option<Mutation>,
    story: Story,
}

/// Runs the fleet of a seed.
pub(crate) fn simulate(seed: u64, mutation: Option<Mutation>) -> Result<Story, Broken> {
    let mut draws = Draws(seed);
    let nodes = world::nodes(&mut draws);
    let catalogue = world::catalogue(&mut draws, nodes.len());
    let mut told = catalogue.clone();
    if mutation == Some(Mutation::SeesNoPins) {
        told.models.values_mut().for_each(|profile| profile.pinned_on.clear());
    }
    let names = (0..nodes.len()).map(|place| (node_name(place), format!("http://{place}")));
    let strategy = if draws.one_in(2) { Strategy::Lru } else { Strategy::Priority };
    let mut simulation = Simulation {
        snapshot: Snapshot::unseen(names),
        desk: Desk::default(),
        events: BTreeMap::new(),
        waiting: BTreeMap::new(),
        asks: 0,
        now: 0,
        story: Story::default(),
        draws,
        nodes,
        catalogue,
        told,
        strategy,
        mutation,
    };
    while simulation.now < END_MS {
        simulation.step()?;
    }
    Ok(simulation.story)
}

impl Simulation {
    fn step(&mut self) -> Result<(), Broken> {
        self.now += STEP_MS;
        let later = self.events.split_off(&(self.now + 1));
        for event in std::mem::replace(&mut self.events, later).into_values().flatten() {
            self.happen(event);
        }
        let is_chaos = self.now < CHAOS_MS;
        for place in 0..self.nodes.len() {
            if is_chaos {
                self.trouble(place);
            } else if self.now < CHAOS_MS + STEP_MS {
                self.heal(place);
            }
            if (self.now + 100 * place as u64).is_multiple_of(1000) {
                self.poll(place);
            }
        }
        self.clients()?;
        let commands = self.desk.next(&self.snapshot, &self.told, self.strategy, Tick(self.now));
        for command in commands {
            self.carry_out(command)?;
        }
        if self.mutation == Some(Mutation::Fidgets) && self.now.is_multiple_of(20_000) {
            self.fidget()?;
        }
        let deadlines = self.waiting.iter().map(|(ask, (_, deadline))| (*ask, *deadline));
        checks::ends(&deadlines.collect(), self.now, 2 * STEP_MS)
    }

    fn trouble(&mut self, place: usize) {
        let Self { draws, nodes, .. } = self;
        let node = &mut nodes[place];
        match node {
            SimNode { is_dead: true, .. } => {
                if draws.one_in(100) {
                    node.restart();
                }
            }
            SimNode { is_hung: true, .. } => node.is_hung = !draws.one_in(100),
            _ if draws.one_in(1500) => {
                node.is_dead = true;
                self.cut_off(place);
            }
            _ if draws.one_in(1500) => node.is_hung = true,
            _ if draws.one_in(500) => node.is_disk_full = !node.is_disk_full,
            _ => {
                for model in node.models.values_mut() {
                    if draws.one_in(50) {
                        model.foreign = u32::from(model.foreign == 0);
                    }
                }
            }
        }
    }

    fn heal(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.is_dead {
            node.restart();
        }
        (node.is_hung, node.is_disk_full) = (false, false);
        node.models.values_mut().for_each(|model| model.foreign = 0);
    }

    /// What was open on a node that died ends.
    fn cut_off(&mut self, place: usize) {
        for (model, resident) in take(&mut self.nodes[place].models) {
            for _ in 0..resident.open {
                self.desk.ended(place, &model, Tick(self.now));
            }
        }
    }

    fn poll(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.answers() {
            node.answered = self.now;
        }
        let mut report = node.answers().then(|| Box::new(node.report()));
        if let Some(report) = &mut report {
            match self.mutation {
                Some(Mutation::SeesTooMuchRoom) => {
                    report.health.devices.iter_mut().for_each(|device| device.vram_free_mb *= 2);
                }
                Some(Mutation::SeesNoUse) => {
                    report.health.models.iter_mut().for_each(|model| model.running = 0);
                }
                _ => {}
            }
        }
        if self.mutation == Some(Mutation::SeesGhosts) && report.is_none() {
            return;
        }
        let late = if report.is_some() { self.draws.skewed(900) } else { 1000 };
        self.later(late, Event::Report { place, sent: self.now, report });
    }

    fn later(&mut self, after: u64, event: Event) {
        self.events.entry(self.now + after).or_default().push(event);
    }

    fn happen(&mut self, event: Event) {
        let now = Tick(self.now);
        match event {
            Event::Report { place, sent, report } => {
                let seen = match report {
                    Some(report) => Observation::Report(*report),
                    None => Observation::Missed { why: "time-out".to_owned() },
                };
                // A report is as old as the question.
                self.snapshot = observe(&self.snapshot, &node_name(place), seen, Tick(sent));
            }
            Event::Loaded { place, model } => {
                let outcome = self.finish_load(place, &model);
                self.story.failed_loads += u64::from(outcome.is_err());
                self.desk.loaded(place, &model, outcome, now);
            }
            Event::LoadLost { place, model } => {
                self.desk.loaded(place, &model, Err("time-out".to_owned()), now);
            }
            Event::Unloaded { place, model } => {
                let node = &mut self.nodes[place];
                if node.answers() {
                    node.models.remove(&model);
                }
                self.desk.unloaded(place, &model, node.answers(), now);
            }
            Event::UnloadLost { place, model } => self.desk.unloaded(place, &model, false, now),
            Event::Answered { place, model } => {
                let resident = self.nodes[place].models.get_mut(&model);
                // After a restart the request was cut off long ago.
                if let Some(resident) = resident.filter(|resident| resident.open > 0) {
                    resident.open -= 1;
                    if self.mutation != Some(Mutation::SeesNoUse) {
                        self.desk.ended(place, &model, now);
                    }
                }
            }
        }
    }

    fn finish_load(&mut self, place: usize, model: &str) -> Result<(), String> {
        let node = &mut self.nodes[place];
        if !node.answers() {
            return Err("connection refused".to_owned());
        }
        // It is not there any more when the node died and came back in the meantime.
        let resident = node.models.get(model).cloned().ok_or("the node restarted")?;
        let over = resident.devices.iter().any(|device| {
            let holders = node.models.values().filter(|other| other.devices.contains(device));
            holders.map(|other| other.mb_each).sum::<u64>() > node.device_mb[*device as usize]
        });
        if over || node.is_disk_full {
            node.models.remove(model);
            return Err(if over { "does_not_fit" } else { "the disk is full" }.to_owned());
        }
        node.models.get_mut(model).expect("just seen").status = ModelStatus::Ready;
        Ok(())
    }

    fn clients(&mut self) -> Result<(), Broken> {
        let is_chaos = self.now < CHAOS_MS;
        let models = self.catalogue.models.len() as u64;
        for _ in 0..1 + self.nodes.len() / 8 {
            if !self.draws.one_in(4) {
                continue;
            }
            let number = if is_chaos { self.draws.skewed(models) } else { 0 };
            self.asks += 1;
            self.ask(self.asks, format!("model-{number}"), self.now + PATIENCE_MS)?;
        }
        if is_chaos && self.draws.one_in(20) {
            let someone = self.waiting.keys().copied().next();
            if let Some(ask) = someone {
                self.waiting.remove(&ask);
                self.desk.leave(ask);
                self.story.left += 1;
            }
        }
        Ok(())
    }

    fn ask(&mut self, ask: u64, model: String, deadline: u64) -> Result<(), Broken> {
        let asked = Ask {
            model: &model,
            in_flight: &[],
            tried: None,
            desk: &self.desk,
            outliers: &Outliers::default(),
            chain: &[],
            draw: ask,
        };
        let place = match route(&self.snapshot, &asked, Tick(self.now)) {
            Route::Forward(to) => to.node,
            Route::Refuse(_) => {
                self.story.waited += 1;
                self.desk.hold(ask, &model, None, Tick(deadline));
                self.waiting.insert(ask, (model, deadline));
                return Ok(());
            }
        };
        checks::forward(&self.nodes, place, self.now)?;
        let node = &mut self.nodes[place];
        if let Some(resident) = node.models.get_mut(&model).filter(|_| !node.is_dead) {
            resident.open += 1;
            self.story.forwarded += 1;
            if self.mutation != Some(Mutation::SeesNoUse) {
                self.desk.began(place, &model, &[], Tick(self.now));
            }
            let length = 200 + self.draws.below(4000);
            self.later(length, Event::Answered { place, model });
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command) -> Result<(), Broken> {
        match command {
            Command::Plan { place, model } => {
                let answers = self.nodes[place].answers();
                let said = answers.then(|| self.plan(&model)).ok_or(Unplanned::Unanswered);
                self.desk.planned(place, &model, said, Tick(self.now));
            }
            Command::Load { place, model, devices, .. } => {
                let devices: Vec<u32> = devices.into_iter().flatten().collect();
                self.order_load(place, &model, &devices)?;
                if self.mutation == Some(Mutation::LoadsTwice) {
                    self.order_load(place, &model, &devices)?;
                }
            }
            Command::Unload { place, model, cause } => {
                self.story.evictions += u64::from(matches!(cause, UnloadCause::RoomFor { .. }));
                self.order_unload(place, model)?;
            }
            Command::Release { .. } if self.mutation == Some(Mutation::ForgetsWaiters) => {}
            Command::Release { ask, outcome } => {
                if let Some((model, deadline)) = self.waiting.remove(&ask)
                    && outcome == Outcome::Ready
                {
                    self.ask(ask, model, deadline)?;
                }
            }
        }
        Ok(())
    }

    /// A node's plan, which is as wrong as the catalogue is.
    fn plan(&self, model: &str) -> LoadPlan {
        let profile = &self.catalogue.models[model];
        let ranks = profile.ranks();
        let each = profile.vram_mb.expect("the catalogue says it").div_ceil(ranks as u64);
        let rank = RankPlan { weight_bytes: each << 20, ..RankPlan::default() };
        LoadPlan { ranks: vec![rank; ranks], ..LoadPlan::default() }
    }

    fn order_load(&mut self, place: usize, model: &str, devices: &[u32]) -> Result<(), Broken> {
        checks::load(&self.snapshot, &self.nodes, &self.catalogue, place, model, devices)?;
        self.at_rest(format_args!("node {place} loads {model}"))?;
        self.story.loads += 1;
        let owned = model.to_owned();
        if !self.nodes[place].answers() {
            self.later(ORDER_LIMIT_MS, Event::LoadLost { place, model: owned });
            return Ok(());
        }
        let profile = &self.catalogue.models[model];
        let said = profile.vram_mb.expect("the catalogue says it").div_ceil(devices.len() as u64);
        let is_wrong = self.now < CHAOS_MS && self.draws.one_in(10);
        let resident = Resident {
            status: ModelStatus::Loading,
            devices: devices.to_vec(),
            said_each: said,
            mb_each: if is_wrong { said * 3 / 2 } else { said },
            foreign: 0,
            open: 0,
        };
        self.nodes[place].models.insert(owned.clone(), resident);
        let length = 500 + self.draws.below(8000);
        self.later(length, Event::Loaded { place, model: owned });
        Ok(())
    }

    fn order_unload(&mut self, place: usize, model: String) -> Result<(), Broken> {
        checks::unload(&self.snapshot, &self.nodes, &self.catalogue, place, &model)?;
        self.at_rest(format_args!("node {place} unloads {model}"))?;
        if self.nodes[place].answers() {
            let length = 100 + self.draws.below(2000);
            self.later(length, Event::Unloaded { place, model });
        } else {
            self.later(ORDER_LIMIT_MS, Event::UnloadLost { place, model });
        }
        Ok(())
    }

    fn at_rest(&self, what: std::fmt::Arguments<'_>) -> Result<(), Broken> {
        if self.now < SETTLED_MS {
            return Ok(());
        }
        Err(Broken::new(Rule::Rest, format!("at {} ms {what}", self.now)))
    }

    /// Unloads something that nobody uses, as a policy without rest would.
    fn fidget(&mut self) -> Result<(), Broken> {
        for place in 0..self.nodes.len() {
            let idle = self.nodes[place].models.iter().find(|(id, model)| {
                let is_pinned = self.catalogue.models[*id].is_pinned_on(&node_name(place));
                model.status == ModelStatus::Ready && model.open + model.foreign == 0 && !is_pinned
            });
            if let Some((model, _)) = idle.filter(|_| self.nodes[place].answers()) {
                let model = model.clone();
                return self.order_unload(place, model);
            }
        }
        Ok(())
    }
}
