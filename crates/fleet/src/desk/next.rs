//! What to do now.

use control::ModelStatus;

use super::{Arrival, Command, Desk, LoadCause, Outcome, Stage, UnloadCause, Wish};
use crate::place::{Fit, Verdict, View, best, is_busy};
use crate::{Catalogue, Node, Profile, Snapshot, Standing, Strategy, Tick};

/// A load that ended well and does not show in reports for so long is forgotten.
const UNSEEN_AFTER_MS: u64 = 10_000;
/// After so many failed loads in a row those who wait are told, and the pause is theirs too.
const HOPELESS: u32 = 3;

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
        self.obey(&world, &mut commands);
        self.go_on(&world, &mut commands);
        self.serve_holds(&world, &mut commands);
        if self.holds.is_empty() {
            self.reconcile(&world, &mut commands);
        }
        commands
    }

    /// What the operator wants gone goes, busy or not.
    fn obey(&mut self, world: &World<'_>, commands: &mut Vec<Command>) {
        for (place, model) in std::mem::take(&mut self.unwanted) {
            let is_there = world.snapshot.nodes[place].model(&model).is_some_and(is_there);
            if is_there && !self.is_leaving(place, &model) && !self.is_arriving(place, &model) {
                self.order_unload(place, &model, UnloadCause::Operator, commands);
            }
        }
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
            let is_lost = is_gone(node.standing(world.now));
            let still = match arrival.stage {
                // A command is out, and will end: until then its memory is spoken for.
                Stage::Clearing { .. } | Stage::Loading => Some(arrival),
                _ if is_lost => None,
                Stage::Loaded { since } => {
                    let is_there = node.serves(&arrival.model);
                    let is_late = world.now.since_ms(since) >= UNSEEN_AFTER_MS;
                    (!is_there && !is_late).then_some(arrival)
                }
                Stage::Blocked => {
                    self.give_up(&arrival, "no room could be made", world.now);
                    None
                }
                Stage::Failed { since } => (!seen_since(arrival.place, since)).then_some(arrival),
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
        let mut wishes: Vec<Wish> = Vec::new();
        for hold in &self.holds {
            if !wishes.contains(&hold.wish) {
                wishes.push(hold.wish.clone());
            }
        }
        for wish in wishes {
            if world.is_routable(self, &wish) {
                self.release(&wish, &Outcome::Ready, commands);
            } else {
                self.bring(&wish, world, commands);
            }
        }
        let late = |deadline: &Tick| *deadline <= world.now;
        for hold in self.holds.extract_if(.., |hold| late(&hold.deadline)) {
            commands.push(Command::Release { ask: hold.ask, outcome: Outcome::TimedOut });
        }
    }

    /// Sets a cold model in motion, unless it is; those who wait in vain are told at once.
    fn bring(&mut self, wish: &Wish, world: &World<'_>, commands: &mut Vec<Command>) {
        let is_near = |arrival: &Arrival| {
            let standing = world.snapshot.nodes[arrival.place].standing(world.now);
            let is_wanted = arrival.model == wish.model && wish.accepts(arrival.place);
            is_wanted && arrival.is_hopeful() && !is_gone(standing)
        };
        if self.arrivals.iter().any(is_near) {
            return;
        }
        let profile = world.profile(&wish.model);
        self.ask_plans(&profile, wish.on, world, commands);
        let mut verdicts = world.view(self).explain(&profile, world.now);
        for (place, verdict) in verdicts.iter_mut().enumerate() {
            if !wish.accepts(place) {
                *verdict = Verdict::NotAllowed;
            }
        }
        // Nobody gives way while a node has yet to say whether it has room.
        let is_asking = verdicts.contains(&Verdict::SizeAsked);
        let fit = best(&verdicts, |fit| fit.victims.is_empty() || !is_asking);
        if let Some((place, fit)) = fit {
            let cause = LoadCause::Waiting(self.waiting_for(&wish.model));
            self.begin(place, &wish.model, fit, cause, commands);
        } else if verdicts.iter().all(is_final) {
            self.release(wish, &Outcome::Nowhere(verdicts), commands);
        }
    }

    fn begin(
        &mut self,
        place: usize,
        model: &str,
        fit: &Fit,
        cause: LoadCause,
        commands: &mut Vec<Command>,
    ) {
        let arrival = Arrival::new(place, model, fit, cause);
        self.order(&arrival, commands);
        self.arrivals.push(arrival);
    }

    /// Asks the nodes that could have the model how large it is there; each once.
    fn ask_plans(
        &mut self,
        profile: &Profile,
        on: Option<usize>,
        world: &World<'_>,
        commands: &mut Vec<Command>,
    ) {
        let verdicts = world.view(self).explain(profile, world.now);
        for (place, verdict) in verdicts.iter().enumerate() {
            let is_wanted = on.is_none_or(|on| on == place);
            if is_wanted
                && *verdict == Verdict::SizeAsked
                && self.plans.ask(place, profile, world.now)
            {
                commands.push(Command::Plan { place, model: profile.id.clone() });
            }
        }
    }

    /// Keeps residents loaded where there is room without evicting anybody, and unloads what has
    /// been idle for longer than its profile allows.
    fn reconcile(&mut self, world: &World<'_>, commands: &mut Vec<Command>) {
        for profile in world.catalogue.models.values() {
            let is_coming = |a: &&Arrival| a.model == profile.id && a.is_hopeful();
            let arriving = self.arrivals.iter().filter(is_coming).count();
            let present = world.replicas(self, &profile.id) + arriving;
            if present >= profile.residents as usize || self.dismissed.contains(&profile.id) {
                continue;
            }
            self.ask_plans(profile, None, world, commands);
            let verdicts = world.view(self).explain(profile, world.now);
            // Residents that evict one another would do so for ever.
            if let Some((place, fit)) = best(&verdicts, |fit| fit.victims.is_empty()) {
                self.begin(place, &profile.id, fit, LoadCause::Resident, commands);
            }
        }
        self.unload_idle(world, commands);
    }

    fn unload_idle(&mut self, world: &World<'_>, commands: &mut Vec<Command>) {
        for profile in world.catalogue.models.values() {
            let Some(idle_unload_ms) = profile.idle_unload_ms else { continue };
            let present = world.replicas(self, &profile.id);
            let mut spare = present.saturating_sub(profile.residents as usize);
            for (place, node) in world.snapshot.nodes.iter().enumerate() {
                let idle_ms = self.idle_ms(place, &profile.id, world.now);
                let is_idle = spare > 0
                    && node.standing(world.now) == Standing::Alive
                    && node.serves(&profile.id)
                    && !profile.is_pinned_on(&node.name)
                    && !is_busy(node, &profile.id)
                    && !self.is_needed(place, &profile.id, world.now)
                    && idle_ms >= idle_unload_ms;
                if is_idle {
                    spare -= 1;
                    self.order_unload(place, &profile.id, UnloadCause::Idle { idle_ms }, commands);
                }
            }
        }
    }

    /// The commands of an arrival's new stage.
    fn order(&mut self, arrival: &Arrival, commands: &mut Vec<Command>) {
        let Arrival { place, model, ranks, stage, cause, harm, .. } = arrival;
        match stage {
            Stage::Clearing { victims } => {
                for victim in victims {
                    let cause = UnloadCause::RoomFor { model: model.clone(), harm: *harm };
                    self.order_unload(*place, victim, cause, commands);
                }
            }
            _ => commands.push(Command::Load {
                place: *place,
                model: model.clone(),
                devices: ranks.iter().map(|(device, _)| *device).collect(),
                needs_mb: ranks.iter().map(|(_, mb)| *mb).collect(),
                cause: cause.clone(),
            }),
        }
    }

    fn order_unload(
        &mut self,
        place: usize,
        model: &str,
        cause: UnloadCause,
        commands: &mut Vec<Command>,
    ) {
        self.leaving.insert((place, model.to_owned()), None);
        commands.push(Command::Unload { place, model: model.to_owned(), cause });
    }

    fn release(&mut self, wish: &Wish, outcome: &Outcome, commands: &mut Vec<Command>) {
        for hold in self.holds.extract_if(.., |hold| hold.wish == *wish) {
            commands.push(Command::Release { ask: hold.ask, outcome: outcome.clone() });
        }
    }

    fn give_up(&mut self, arrival: &Arrival, why: &str, now: Tick) {
        self.failed((arrival.place, arrival.model.clone()), why.to_owned(), now);
    }
}

impl Wish {
    fn accepts(&self, place: usize) -> bool {
        self.on.is_none_or(|on| on == place)
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

    fn profile(&self, model: &str) -> Profile {
        self.catalogue.profile(model)
    }

    fn is_routable(&self, desk: &Desk, wish: &Wish) -> bool {
        let serves = |(place, node): (usize, &std::sync::Arc<Node>)| {
            wish.accepts(place)
                && node.standing(self.now) == Standing::Alive
                && node.serves(&wish.model)
                && !desk.is_shut(place, &wish.model)
        };
        self.snapshot.nodes.iter().enumerate().any(serves)
    }

    /// Nodes in service on which the model is, or will be without any help of ours.
    fn replicas(&self, desk: &Desk, model: &str) -> usize {
        let counts = |(place, node): &(usize, &std::sync::Arc<Node>)| {
            node.standing(self.now) == Standing::Alive
                && !desk.is_drained(*place)
                && node.model(model).is_some_and(is_there)
        };
        self.snapshot.nodes.iter().enumerate().filter(counts).count()
    }
}

/// Whether a model holds memory or is about to.
fn is_there(model: &control::ModelReport) -> bool {
    !matches!(model.status, ModelStatus::Absent | ModelStatus::Failed | ModelStatus::Draining)
}

fn is_gone(standing: Standing) -> bool {
    matches!(standing, Standing::Lost | Standing::Removed)
}

/// Whether waiting is no use: what depends on use, on an answer that is awaited or on a pause may
/// change soon. A node that is out of service may be for long.
fn is_final(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::NotAllowed
        | Verdict::TooFewDevices { .. }
        | Verdict::TooSmall { .. }
        | Verdict::Refused { .. }
        | Verdict::Drained
        | Verdict::SizeUnknown => true,
        Verdict::OutOfService(standing) => *standing != Standing::Unseen,
        Verdict::BackingOff { in_a_row, .. } => *in_a_row >= HOPELESS,
        Verdict::Fits(_) | Verdict::Present(_) | Verdict::SizeAsked | Verdict::NoRoom { .. } => {
            false
        }
    }
}
