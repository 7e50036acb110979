//! What the gateway has promised and set in motion: requests that wait for a model, models on
//! their way, and who uses what.
//!
//! The desk hears events and answers with commands. Nothing of it is lost when a command fails:
//! the failure is an event like any other.

use std::collections::{BTreeMap, BTreeSet};

use control::LoadPlan;

use crate::memory::Pool;
use crate::place::{SETTLED_AFTER_MS, Verdict};
use crate::{Link, Profile, Tick};

mod arrival;
mod command;
mod next;
mod plans;
mod prompts;

pub use arrival::{Arrival, Stage};
pub use command::{Command, LoadCause, Outcome, UnloadCause};
pub use plans::Unplanned;
pub(crate) use plans::{Plans, Size};
pub(crate) use prompts::Prompts;

/// First pause after a failed load; it doubles with each failure in a row.
const BACKOFF_MS: u64 = 2_000;
/// The longest such pause.
const LONGEST_BACKOFF_MS: u64 = 60_000;
/// A new latency counts for one part of so many.
const LATENCY_PARTS: u32 = 4;

/// A place in the snapshot and a model's id.
type Spot = (usize, String);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Desk {
    /// In the order in which they came.
    pub(crate) holds: Vec<Hold>,
    pub(crate) arrivals: Vec<Arrival>,
    /// Unloads that were ordered, and when they ended; kept until a report shows it.
    pub(crate) leaving: BTreeMap<Spot, Option<Tick>>,
    pub(crate) plans: Plans,
    /// Unloads that the operator wants, not ordered yet.
    pub(crate) unwanted: Vec<Spot>,
    /// Residents that the operator has sent away; they are nobody's until somebody asks for them.
    pub(crate) dismissed: BTreeSet<String>,
    /// By place and model; asked at every request, without making a key for it.
    uses: BTreeMap<usize, BTreeMap<String, Use>>,
    failures: BTreeMap<Spot, Failure>,
    drained: BTreeSet<usize>,
}

/// A request that waits for its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) ask: u64,
    pub(crate) wish: Wish,
    pub(crate) deadline: Tick,
}

/// A model, anywhere or on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) model: String,
    pub(crate) on: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Use {
    open: u32,
    last: Option<Tick>,
    ready: Option<Tick>,
    latency_ms: Option<u32>,
    prompts: Prompts,
}

#[derive(Clone, Debug)]
struct Failure {
    in_a_row: u32,
    until: Tick,
    why: String,
}

impl Desk {
    /// A request for `model` waits, until `deadline` at most. With `on` it is to be on that node,
    /// which is an operator's wish and no client's.
    pub fn hold(&mut self, ask: u64, model: &str, on: Option<usize>, deadline: Tick) {
        self.dismissed.remove(model);
        let wish = Wish { model: model.to_owned(), on };
        self.holds.push(Hold { ask, wish, deadline });
    }

    /// A request that waited is gone. Nothing more happens for its sake.
    pub fn leave(&mut self, ask: u64) {
        self.holds.retain(|hold| hold.ask != ask);
    }

    /// Requests that wait for `model`.
    #[must_use]
    pub fn waiting_for(&self, model: &str) -> usize {
        self.holds.iter().filter(|hold| hold.wish.model == model).count()
    }

    /// Whether anybody waits for anything.
    #[must_use]
    pub fn is_anyone_waiting(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Models on their way.
    #[must_use]
    pub fn arrivals(&self) -> &[Arrival] {
        &self.arrivals
    }

    /// A request was sent to a model on a node. `chain` is what its prompt begins with, as far as
    /// that was worked out.
    pub fn began(&mut self, place: usize, model: &str, chain: &[Link], now: Tick) {
        self.note_use(place, model, |used| {
            used.open += 1;
            used.last = Some(now);
            used.prompts.note(chain, now);
        });
    }

    /// The prompts that were sent to a model on a node of late.
    pub(crate) fn prompts(&self, place: usize, model: &str) -> Option<&Prompts> {
        Some(&self.used(place, model)?.prompts)
    }

    fn used(&self, place: usize, model: &str) -> Option<&Use> {
        self.uses.get(&place)?.get(model)
    }

    fn note_use(&mut self, place: usize, model: &str, note: impl FnOnce(&mut Use)) {
        let models = self.uses.entry(place).or_default();
        match models.get_mut(model) {
            Some(used) => note(used),
            None => note(models.entry(model.to_owned()).or_default()),
        }
    }

    /// It is a stream, and began so much later. Of whole answers nobody can tell how long they
    /// waited and how long they are.
    pub fn answered(&mut self, place: usize, model: &str, after_ms: u32) {
        self.note_use(place, model, |used| {
            let known = used.latency_ms.unwrap_or(after_ms);
            let fresh = (u64::from(known) * u64::from(LATENCY_PARTS - 1) + u64::from(after_ms))
                / u64::from(LATENCY_PARTS);
            used.latency_ms = Some(u32::try_from(fresh).unwrap_or(u32::MAX));
        });
    }

    /// It ended there.
    pub fn ended(&mut self, place: usize, model: &str, now: Tick) {
        self.note_use(place, model, |used| {
            used.open = used.open.saturating_sub(1);
            used.last = Some(now);
        });
    }

    /// A node answered what a load would take, or did not.
    pub fn planned(
        &mut self,
        place: usize,
        model: &str,
        plan: Result<LoadPlan, Unplanned>,
        now: Tick,
    ) {
        self.plans.answered((place, model.to_owned()), plan, now);
    }

    /// What the nodes said of sizes counts no more: the catalogue has changed.
    pub fn forget_plans(&mut self) {
        self.plans = Plans::default();
        self.dismissed.clear();
    }

    /// A load ended.
    pub fn loaded(&mut self, place: usize, model: &str, result: Result<(), String>, now: Tick) {
        let spot = (place, model.to_owned());
        match result {
            Ok(()) => {
                self.failures.remove(&spot);
                self.note_use(place, model, |used| {
                    (used.ready, used.last) = (Some(now), Some(now));
                });
                for arrival in self.arrivals.iter_mut().filter(|a| a.is_of(place, model)) {
                    arrival.stage = Stage::Loaded { since: now };
                }
            }
            Err(why) => {
                // What it was thought to take was wrong, or is no longer true.
                self.plans.forget(&spot);
                // It may be there all the same, or half of it: only a report can tell.
                for arrival in self.arrivals.iter_mut().filter(|a| a.is_of(place, model)) {
                    arrival.stage = Stage::Failed { since: now };
                }
                self.failed(spot, why, now);
            }
        }
    }

    /// An unload ended; with `is_gone` the memory is back.
    pub fn unloaded(&mut self, place: usize, model: &str, is_gone: bool, now: Tick) {
        let spot = (place, model.to_owned());
        if is_gone {
            self.leaving.insert(spot, Some(now));
        } else {
            self.leaving.remove(&spot);
        }
        for arrival in self.arrivals.iter_mut().filter(|arrival| arrival.place == place) {
            arrival.cleared(model, is_gone, now);
        }
    }

    /// The operator wants a model gone from a node, whoever uses it. It does not come back for the
    /// sake of residency, only when it is asked for.
    pub fn dismiss(&mut self, place: usize, model: &str) {
        self.dismissed.insert(model.to_owned());
        self.unwanted.push((place, model.to_owned()));
    }

    /// The operator takes a node out of service, or gives it back.
    pub fn drain(&mut self, place: usize, is_drained: bool) {
        if is_drained {
            self.drained.insert(place);
        } else {
            self.drained.remove(&place);
        }
    }

    /// Whether nothing new is sent to a model on a node: it is on its way out there, or the
    /// operator drains the node.
    #[must_use]
    pub fn is_shut(&self, place: usize, model: &str) -> bool {
        self.is_drained(place) || self.is_leaving(place, model)
    }

    /// Whether the operator drains the node.
    #[must_use]
    pub fn is_drained(&self, place: usize) -> bool {
        self.drained.contains(&place)
    }

    /// Whether a model on a node was told to go.
    #[must_use]
    pub fn is_leaving(&self, place: usize, model: &str) -> bool {
        self.leaving.keys().any(|(at, leaving)| *at == place && leaving == model)
    }

    pub(crate) fn is_arriving(&self, place: usize, model: &str) -> bool {
        self.arrivals.iter().any(|arrival| arrival.is_of(place, model))
    }

    /// Whether this gateway still wants the model where it is: requests are open there or wait for
    /// it, it has only just come, it is on its way, or it is leaving already.
    pub(crate) fn is_needed(&self, place: usize, model: &str, now: Tick) -> bool {
        let is_fresh = |ready| now.since_ms(ready) < SETTLED_AFTER_MS;
        let used = self.used(place, model);
        used.is_some_and(|used| used.open > 0 || used.ready.is_some_and(is_fresh))
            || self.is_leaving(place, model)
            || self.is_arriving(place, model)
            || self.waiting_for(model) > 0
    }

    /// Since the model was last used there; since the begin of time if never.
    pub(crate) fn idle_ms(&self, place: usize, model: &str, now: Tick) -> u64 {
        let last = self.used(place, model).and_then(|used| used.last);
        now.since_ms(last.unwrap_or_default())
    }

    /// How long streams of a model on a node take to begin, of late.
    #[must_use]
    pub fn latency_ms(&self, place: usize, model: &str) -> Option<u32> {
        self.used(place, model)?.latency_ms
    }

    pub(crate) fn backoff(&self, place: usize, model: &str, now: Tick) -> Option<Verdict> {
        let failure = self.failures.get(&(place, model.to_owned()))?;
        let Failure { until, why, in_a_row } = failure.clone();
        let retry_in_ms = until.since_ms(now);
        (now < until).then_some(Verdict::BackingOff { in_a_row, retry_in_ms, why })
    }

    pub(crate) fn size(&self, place: usize, profile: &Profile, now: Tick) -> Size {
        self.plans.size(place, profile, now)
    }

    /// Takes off what models on their way will have, whatever of it they have already.
    pub(crate) fn subtract_promised(&self, place: usize, pools: &mut [Pool]) {
        for arrival in self.arrivals.iter().filter(|arrival| arrival.place == place) {
            arrival.subtract_from(pools);
        }
    }

    pub(crate) fn failed(&mut self, spot: Spot, why: String, now: Tick) {
        let in_a_row = self.failures.get(&spot).map_or(0, |failure| failure.in_a_row) + 1;
        let pause = BACKOFF_MS.saturating_mul(1 << (in_a_row - 1).min(16)).min(LONGEST_BACKOFF_MS);
        self.failures.insert(spot, Failure { in_a_row, until: Tick(now.0 + pause), why });
    }
}
