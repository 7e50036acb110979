//! What to do now.

use control::ModelStatus;

use super::{Arrival, Desk, Stage};
use crate::place::{Fit, Verdict, View, best, is_busy};
use crate::{Ask, Catalogue, Profile, Route, Snapshot, Standing, Strategy, Tick, route};

/// A load that ended well and does not show in reports for so long is forgotten.
const UNSEEN_AFTER_MS: u64 = 10_000;

/// What the shell must do; the end of each is an event for the desk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ask a node what a load would take, then [`Desk::planned`].
    Plan {
        /// The node's place.
        place: usize,
        /// The model.
        model: String,
    },
    /// Load a model on these devices, then [`Desk::loaded`].
    Load {
        /// The node's place.
        place: usize,
        /// The model.
        model: String,
        /// None stands for main memory.
        devices: Vec<Option<u32>>,
    },
    /// Unload a model, then [`Desk::unloaded`].
    Unload {
        /// The node's place.
        place: usize,
        /// The model.
        model: String,
        /// The model that needs its room; none when it was idle for too long.
        makes_room_for: Option<String>,
    },
    /// A request that waited need wait no longer.
    Release {
        /// As given to [`Desk::hold`].
        ask: u64,
        /// What becomes of it.
        outcome: Outcome,
    },
}

/// What becomes of a request that waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its model can be routed to.
    Ready,
    /// Its time is up.
    TimedOut,
    /// No node can have it, now or soon; each node's reason.
    Nowhere(Vec<Verdict>),
}

impl Desk {
    /// What to do now; to be asked after every event and every report.
    ///
    /// First what is under way goes on, then those who wait are served in the order in which they
    /// came, and only when nobody waits is the fleet tidied up.
    pub fn next(
        &mut self,
        snapshot: &Snapshot,
        catalogue: &Catalogue,
        strategy: Strategy,
        now: Tick,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        let world = World { snapshot, catalogue, strategy, now };
        self.go_on(&world, &mut commands);
        self.serve_holds(&world, &mut commands);
        if self.holds.is_empty() {
            self.reconcile(&world, &mut commands);
        }
        commands
    }

    /// Arrivals whose nodes are gone or that are there are forgotten; the others take their next
    /// step.
    fn go_on(&mut self, world: &World<'_>, commands: &mut Vec<Command>) {
        let seen_since = |place: usize, since| {
            world.snapshot.nodes[place].seen.is_some_and(|seen: Tick| seen > since)
        };
        self.leaving.retain(|(place, _), gone| !gone.is_some_and(|at| seen_since(*place, at)));
        // One after the other, with the rest in place: what they are promised is not free.
        for _ in 0..self.arrivals.len() {
            let arrival = self.arrivals.remove(0);
            let node = &world.snapshot.nodes[arrival.place];
            let is_lost = node.standing(world.now) == Standing::Lost;
            let still = match arrival.stage {
                // A command is out, and will end: until then its memory is spoken for.
                Stage::Clearing { .. } | Stage::Loading => Some(arrival),
                _ if is_lost => None,
                Stage::Loaded { since } => {
                    let is_there = node.model(&arrival.model).is_some_and(crate::is_servable);
                    let is_late = world.now.since_ms(since) >= UNSEEN_AFTER_MS;
                    (!is_there && !is_late).then_some(arrival)
                }
                Stage::Blocked => {
                    self.give_up(&arrival, "no room could be made", world.now);
                    None
                }
                Stage::Cleared { since } if !seen_since(arrival.place, since) => Some(arrival),
                Stage::Cleared { .. } => self.enter(arrival, world, commands),
            };
            self.arrivals.extend(still);
        }
    }

    /// Loads an arrival that waited for room, or makes more room.
    fn enter(
        &mut self,
        mut arrival: Arrival,
        world: &World<'_>,
        commands: &mut Vec<Command>,
    ) -> Option<Arrival> {
        let profile = world.profile(&arrival.model);
        let verdict = world.view(self).judge(arrival.place, &profile, world.now);
        if let Verdict::Fits(fit) = &verdict
            && arrival.go_on(fit)
        {
            self.order(&arrival, commands);
            return Some(arrival);
        }
        self.give_up(&arrival, "an eviction made too little room", world.now);
        None
    }

    fn serve_holds(&mut self, world: &World<'_>, commands: &mut Vec<Command>) {
        let mut models: Vec<String> = Vec::new();
        for hold in &self.holds {
            if !models.contains(&hold.model) {
                models.push(hold.model.clone());
            }
        }
        for model in models {
            if world.is_routable(self, &model) {
                self.release(&model, &Outcome::Ready, commands);
            } else {
                self.bring(&model, world, commands);
            }
        }
        let late = |deadline: &Tick| *deadline <= world.now;
        for hold in self.holds.extract_if(.., |hold| late(&hold.deadline)) {
            commands.push(Command::Release { ask: hold.ask, outcome: Outcome::TimedOut });
        }
    }

    /// Sets a cold model in motion, unless it is; those who wait in vain are told at once.
    fn bring(&mut self, model: &str, world: &World<'_>, commands: &mut Vec<Command>) {
        let is_near = |arrival: &Arrival| {
            let standing = world.snapshot.nodes[arrival.place].standing(world.now);
            arrival.model == model && standing != Standing::Lost
        };
        if self.arrivals.iter().any(is_near) {
            return;
        }
        let profile = world.profile(model);
        let view = world.view(self);
        let verdicts = view.explain(&profile, world.now);
        if let Some((place, fit)) = best(&verdicts, |_| true) {
            self.begin(place, model, fit, commands);
            return;
        }
        self.ask_plans(model, &verdicts, commands);
        if verdicts.iter().all(is_final) {
            self.release(model, &Outcome::Nowhere(verdicts), commands);
        }
    }

    fn begin(&mut self, place: usize, model: &str, fit: &Fit, commands: &mut Vec<Command>) {
        let arrival = Arrival::new(place, model, fit);
        self.order(&arrival, commands);
        self.arrivals.push(arrival);
    }

    /// Asks the nodes that alone can say how large the model is; each once.
    fn ask_plans(&mut self, model: &str, verdicts: &[Verdict], commands: &mut Vec<Command>) {
        for (place, verdict) in verdicts.iter().enumerate() {
            let spot = (place, model.to_owned());
            if *verdict == Verdict::SizeUnknown && self.asked_plans.insert(spot) {
                commands.push(Command::Plan { place, model: model.to_owned() });
            }
        }
    }

    /// Keeps residents loaded where there is room without evicting anybody, and unloads what has
    /// been idle for longer than its profile allows.
    fn reconcile(&mut self, world: &World<'_>, commands: &mut Vec<Command>) {
        for profile in world.catalogue.models.values() {
            let arriving = self.arrivals.iter().filter(|a| a.model == profile.id).count();
            let present = world.replicas(&profile.id) + arriving;
            if present >= profile.residents as usize {
                continue;
            }
            let verdicts = world.view(self).explain(profile, world.now);
            // Residents that evict one another would do so for ever.
            if let Some((place, fit)) = best(&verdicts, |fit| fit.victims.is_empty()) {
                self.begin(place, &profile.id, fit, commands);
            } else {
                self.ask_plans(&profile.id, &verdicts, commands);
            }
        }
        self.unload_idle(world, commands);
    }

    fn unload_idle(&mut self, world: &World<'_>, commands: &mut Vec<Command>) {
        for profile in world.catalogue.models.values() {
            let Some(idle_unload_ms) = profile.idle_unload_ms else { continue };
            let mut spare = world.replicas(&profile.id).saturating_sub(profile.residents as usize);
            for (place, node) in world.snapshot.nodes.iter().enumerate() {
                let is_idle = spare > 0
                    && node.standing(world.now) == Standing::Alive
                    && node.model(&profile.id).is_some_and(crate::is_servable)
                    && !profile.is_pinned_on(&node.name)
                    && !is_busy(node, &profile.id)
                    && !self.is_needed(place, &profile.id, world.now)
                    && self.idle_ms(place, &profile.id, world.now) >= idle_unload_ms;
                if is_idle {
                    spare -= 1;
                    self.order_unload(place, &profile.id, None, commands);
                }
            }
        }
    }

    /// The commands of an arrival's new stage.
    fn order(&mut self, arrival: &Arrival, commands: &mut Vec<Command>) {
        let Arrival { place, model, ranks, stage, .. } = arrival;
        match stage {
            Stage::Clearing { victims } => {
                for victim in victims {
                    self.order_unload(*place, victim, Some(model.clone()), commands);
                }
            }
            _ => commands.push(Command::Load {
                place: *place,
                model: model.clone(),
                devices: ranks.iter().map(|(device, _)| *device).collect(),
            }),
        }
    }

    fn order_unload(
        &mut self,
        place: usize,
        model: &str,
        makes_room_for: Option<String>,
        commands: &mut Vec<Command>,
    ) {
        self.leaving.insert((place, model.to_owned()), None);
        commands.push(Command::Unload { place, model: model.to_owned(), makes_room_for });
    }

    fn release(&mut self, model: &str, outcome: &Outcome, commands: &mut Vec<Command>) {
        for hold in self.holds.extract_if(.., |hold| hold.model == model) {
            commands.push(Command::Release { ask: hold.ask, outcome: outcome.clone() });
        }
    }

    fn give_up(&mut self, arrival: &Arrival, why: &str, now: Tick) {
        self.failed((arrival.place, arrival.model.clone()), why.to_owned(), now);
    }
}

/// What a decision looks at besides the desk.
struct World<'a> {
    snapshot: &'a Snapshot,
    catalogue: &'a Catalogue,
    strategy: Strategy,
    now: Tick,
}

impl World<'_> {
    fn view<'d>(&'d self, desk: &'d Desk) -> View<'d> {
        let Self { snapshot, catalogue, strategy, .. } = *self;
        View { snapshot, catalogue, desk, strategy }
    }

    /// A model that the catalogue does not name may run anywhere, at no special worth.
    fn profile(&self, model: &str) -> Profile {
        let named = self.catalogue.models.get(model);
        named.cloned().unwrap_or_else(|| Profile { id: model.to_owned(), ..Profile::default() })
    }

    fn is_routable(&self, desk: &Desk, model: &str) -> bool {
        let leaving = desk.leaving(model);
        let ask = Ask { model, in_flight: &[], tried: None, leaving: &leaving };
        matches!(route(self.snapshot, &ask, self.now), Route::Forward(_))
    }

    /// Nodes in service on which the model is, or will be without any help of ours.
    fn replicas(&self, model: &str) -> usize {
        let is_there = |status| {
            !matches!(status, ModelStatus::Absent | ModelStatus::Failed | ModelStatus::Draining)
        };
        let alive = self.snapshot.nodes.iter().filter(|n| n.standing(self.now) == Standing::Alive);
        alive.filter(|node| node.model(model).is_some_and(|m| is_there(m.status))).count()
    }
}

/// Whether waiting cannot change it: what depends on use, health or an answer may change.
fn is_final(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::NotAllowed | Verdict::TooFewDevices { .. } | Verdict::TooSmall { .. } => true,
        Verdict::Fits(_)
        | Verdict::Present(_)
        | Verdict::OutOfService(_)
        | Verdict::Drained
        | Verdict::BackingOff { .. }
        | Verdict::SizeUnknown
        | Verdict::NoRoom { .. } => false,
    }
}
