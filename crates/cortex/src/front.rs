//! What routing and placement decide by, under one lock: what is open, what waits, what is on its
//! way. A request is counted where it goes in the same moment in which that is decided, so that no
//! model is sent away between the two.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};

use fleet::{
    Ask, Command, Desk, Outcome, Outliers, Refusal, Route, Snapshot, Standing, Tick, Unavailable,
};
use tokio::sync::oneshot;

use crate::act;
use crate::app::App;
use crate::generate::Asked;

/// Requests that may wait for models, all together.
const HOLDS_LIMIT: usize = 4096;
/// Models that are remembered because they were ready once.
const SEEN_LIMIT: usize = 4096;
/// Decisions that are kept for an operator to look at.
const JOURNAL_LENGTH: usize = 100;

/// See the module.
pub(crate) struct Front {
    pub desk: Desk,
    pub outliers: Outliers,
    /// Requests that are open on each node, by its place in the snapshot.
    pub open: Vec<u32>,
    /// When the loads that are under way were ordered.
    pub loading: HashMap<(usize, String), Tick>,
    /// The last decisions, oldest first.
    pub journal: VecDeque<(Tick, Command)>,
    waiters: HashMap<u64, oneshot::Sender<Outcome>>,
    asks: u64,
    /// Models that were ready on some node; they can be asked for again when they are not.
    seen: BTreeSet<String>,
    hasher: RandomState,
}

/// What becomes of a request.
pub(crate) enum Claim {
    /// It goes there, and counts there already.
    Forward(To),
    /// Its model has to be brought first.
    Cold,
    /// It is answered with an error.
    Refuse(Refusal),
}

/// Where a request goes.
pub(crate) struct To {
    pub place: usize,
    pub name: String,
    /// Base URL of the model's inference routes.
    pub url: String,
    pub ticket: Ticket,
}

impl Front {
    pub(crate) fn new(nodes: usize) -> Front {
        Front {
            desk: Desk::default(),
            outliers: Outliers::default(),
            open: vec![0; nodes],
            loading: HashMap::new(),
            journal: VecDeque::new(),
            waiters: HashMap::new(),
            asks: 0,
            seen: BTreeSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// A number that nobody can foresee.
    pub(crate) fn draw(&mut self) -> u64 {
        self.asks += 1;
        self.hasher.hash_one(self.asks)
    }

    /// Remembers what is ready somewhere.
    pub(crate) fn note(&mut self, snapshot: &Snapshot) {
        for model in snapshot.nodes.iter().flat_map(|node| node.models()) {
            let is_news = model.endpoint.is_some() && !self.seen.contains(&model.id);
            if is_news && self.seen.len() < SEEN_LIMIT {
                self.seen.insert(model.id.clone());
            }
        }
    }

    /// Whether the model has been ready somewhere.
    pub(crate) fn has_seen(&self, model: &str) -> bool {
        self.seen.contains(model)
    }
}

impl App {
    /// The front, for a moment.
    pub(crate) fn front(&self) -> std::sync::MutexGuard<'_, Front> {
        // Every change of it is whole before anything can panic.
        self.front.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides where a request goes, and counts it there.
    pub(crate) fn claim(self: &Arc<App>, asked: &Asked, tried: Option<usize>) -> Claim {
        let (snapshot, now) = (self.fleet.load(), self.now());
        let model = &asked.model;
        // Most models have one replica, and then it is no matter what a prompt begins with.
        let has_choice = snapshot.nodes.iter().filter(|node| node.serves(model)).nth(1).is_some();
        let chain = if has_choice { asked.chain() } else { &[] };
        let mut front = self.front();
        let draw = front.draw();
        let ask = Ask {
            model,
            in_flight: &front.open,
            tried,
            desk: &front.desk,
            outliers: &front.outliers,
            chain,
            draw,
        };
        let to = match fleet::route(&snapshot, &ask, now) {
            Route::Forward(to) => to,
            Route::Refuse(refusal) => {
                let is_named = self.settings.load().models.catalogue.models.contains_key(&**model);
                return match is_cold(refusal, is_named || front.has_seen(model)) {
                    true => Claim::Cold,
                    false => Claim::Refuse(refusal),
                };
            }
        };
        front.desk.began(to.node, model, chain, now);
        if front.open.len() <= to.node {
            front.open.resize(to.node + 1, 0);
        }
        front.open[to.node] += 1;
        drop(front);
        let ticket = Ticket { app: Arc::clone(self), place: to.node, model: Arc::clone(model) };
        Claim::Forward(To {
            place: to.node,
            name: to.name.to_owned(),
            url: to.url.to_owned(),
            ticket,
        })
    }

    /// A node broke a request: it is asked last until it has answered a poll, and is polled now.
    pub(crate) fn doubt(&self, place: usize) {
        let now = self.now();
        let mut front = self.front();
        let draw = front.draw();
        front.outliers.failed(place, draw, now);
        drop(front);
        self.poll_soon(place);
    }

    /// The place of a node, other than `lost`, where a model is about to be.
    pub(crate) fn place_to_come(self: &Arc<App>, model: &str, lost: usize) -> Option<usize> {
        use control::ModelStatus::{Downloading, Loading, Restarting};
        // A report that has just come may have set a load in motion.
        self.pump();
        let (fleet, now) = (self.fleet.load(), self.now());
        let comes = |place: &usize| {
            let node = &fleet.nodes[*place];
            let status = node.model(model).map(|model| model.status);
            node.standing(now) == Standing::Alive
                && matches!(status, Some(Downloading | Loading | Restarting))
        };
        let others = |place: &usize| *place != lost;
        let front = self.front();
        let mut ordered = front.desk.arrivals().iter().filter(|it| it.model == model);
        let ordered = ordered.find(|it| it.is_hopeful() && others(&it.place)).map(|it| it.place);
        ordered.or_else(|| (0..fleet.nodes.len()).filter(others).find(comes))
    }

    /// Asks the desk what to do now, and has it done. To be called after everything that the desk
    /// should know.
    pub(crate) fn pump(self: &Arc<App>) {
        let (settings, snapshot, now) = (self.settings.load(), self.fleet.load(), self.now());
        let mut front = self.front();
        let (catalogue, strategy) = (&settings.models.catalogue, settings.strategy());
        for command in front.desk.next(&snapshot, catalogue, strategy, now) {
            if let Command::Release { ask, outcome } = command {
                if let Some(waiter) = front.waiters.remove(&ask) {
                    // Whoever has left in this moment needs no answer.
                    let _ = waiter.send(outcome);
                }
                continue;
            }
            if let Command::Load { place, model, .. } = &command {
                front.loading.insert((*place, model.clone()), now);
            }
            if !matches!(command, Command::Plan { .. }) {
                front.journal.push_back((now, command.clone()));
                if front.journal.len() > JOURNAL_LENGTH {
                    front.journal.pop_front();
                }
            }
            self.background.spawn(act::carry_out(Arc::clone(self), command));
        }
    }

    /// Waits for a model, anywhere or on one node, until `deadline` at most. Dropping the wait
    /// takes the wish back.
    pub(crate) async fn wait_for(
        self: &Arc<App>,
        model: &str,
        on: Option<usize>,
        deadline: Tick,
    ) -> Option<Outcome> {
        let (waiter, outcome) = oneshot::channel();
        let ask = {
            let mut front = self.front();
            if front.waiters.len() >= HOLDS_LIMIT {
                return None;
            }
            front.asks += 1;
            let ask = front.asks;
            front.waiters.insert(ask, waiter);
            front.desk.hold(ask, model, on, deadline);
            ask
        };
        let _place = InLine { app: Arc::clone(self), ask };
        self.pump();
        Some(outcome.await.unwrap_or(Outcome::TimedOut))
    }
}

/// Whether a refusal may pass when the desk sees to it. A model that nobody has named and nobody
/// has ever had is unknown, whatever nodes are away.
fn is_cold(refusal: Refusal, is_known: bool) -> bool {
    match refusal {
        Refusal::NotFound => is_known,
        Refusal::Unavailable { reason, .. } => match reason {
            Unavailable::Unheard => is_known,
            Unavailable::NotReady(_) | Unavailable::NodesDown => true,
            Unavailable::NoOtherReplica => false,
        },
    }
}

/// A place in the line; whoever leaves it is forgotten.
struct InLine {
    app: Arc<App>,
    ask: u64,
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut front = self.app.front();
        front.waiters.remove(&self.ask);
        front.desk.leave(self.ask);
    }
}

/// One open request on one node.
pub(crate) struct Ticket {
    app: Arc<App>,
    pub place: usize,
    model: Arc<str>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.app.now();
        let mut front = self.app.front();
        front.desk.ended(self.place, &self.model, now);
        front.open[self.place] = front.open[self.place].saturating_sub(1);
        let is_anyone_waiting = front.desk.is_anyone_waiting();
        drop(front);
        // Somebody may wait for just this model to be idle.
        if is_anyone_waiting {
            self.app.pump();
        }
    }
}
