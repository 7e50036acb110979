//! What the gateway has promised and set in motion: requests that wait for a model, models on
//! their way, and who uses what.
//!
//! The desk hears events and answers with commands. Nothing of it is lost when a command fails:
//! the failure is an event like any other.

use std::collections::{BTreeMap, BTreeSet};

use control::LoadPlan;

use crate::memory::{Pool, needs};
use crate::place::{SETTLED_AFTER_MS, Verdict};
use crate::{Profile, Tick};

mod arrival;
mod next;

pub use arrival::{Arrival, Stage};
pub use next::{Command, Outcome};

/// First pause after a failed load; it doubles with each failure in a row.
const BACKOFF_MS: u64 = 2_000;
/// The longest such pause.
const LONGEST_BACKOFF_MS: u64 = 60_000;

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
    pub(crate) plans: BTreeMap<Spot, LoadPlan>,
    /// Plans that were asked for.
    pub(crate) asked_plans: BTreeSet<Spot>,
    uses: BTreeMap<Spot, Use>,
    failures: BTreeMap<Spot, Failure>,
    drained: BTreeSet<usize>,
}

/// A request that waits for its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) ask: u64,
    pub(crate) model: String,
    pub(crate) deadline: Tick,
}

#[derive(Clone, Debug, Default)]
struct Use {
    open: u32,
    last: Option<Tick>,
    ready: Option<Tick>,
}

#[derive(Clone, Debug)]
struct Failure {
    in_a_row: u32,
    until: Tick,
    why: String,
}

impl Desk {
    /// A request for `model` waits, until `deadline` at most.
    pub fn hold(&mut self, ask: u64, model: &str, deadline: Tick) {
        self.holds.push(Hold { ask, model: model.to_owned(), deadline });
    }

    /// A request that waited is gone. Nothing more happens for its sake.
    pub fn leave(&mut self, ask: u64) {
        self.holds.retain(|hold| hold.ask != ask);
    }

    /// Requests that wait for `model`.
    #[must_use]
    pub fn waiting_for(&self, model: &str) -> usize {
        self.holds.iter().filter(|hold| hold.model == model).count()
    }

    /// A request was sent to a model on a node.
    pub fn began(&mut self, place: usize, model: &str, now: Tick) {
        let used = self.uses.entry((place, model.to_owned())).or_default();
        used.open += 1;
        used.last = Some(now);
    }

    /// It ended there.
    pub fn ended(&mut self, place: usize, model: &str, now: Tick) {
        let used = self.uses.entry((place, model.to_owned())).or_default();
        used.open = used.open.saturating_sub(1);
        used.last = Some(now);
    }

    /// A node answered what a load would take; none when it could not say.
    pub fn planned(
        &mut self,
        place: usize,
        model: &str,
        plan: Result<LoadPlan, String>,
        now: Tick,
    ) {
        let spot = (place, model.to_owned());
        self.asked_plans.remove(&spot);
        match plan {
            Ok(plan) => drop(self.plans.insert(spot, plan)),
            Err(why) => self.failed(spot, why, now),
        }
    }

    /// A load ended.
    pub fn loaded(&mut self, place: usize, model: &str, result: Result<(), String>, now: Tick) {
        let spot = (place, model.to_owned());
        match result {
            Ok(()) => {
                self.failures.remove(&spot);
                let used = self.uses.entry(spot).or_default();
                (used.ready, used.last) = (Some(now), Some(now));
                for arrival in self.arrivals.iter_mut().filter(|a| a.is_of(place, model)) {
                    arrival.stage = Stage::Loaded { since: now };
                }
            }
            Err(why) => {
                // What it was thought to take was wrong, or is no longer true.
                self.plans.remove(&spot);
                self.arrivals.retain(|arrival| !arrival.is_of(place, model));
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

    /// The operator takes a node out of placement, or gives it back.
    pub fn drain(&mut self, place: usize, is_drained: bool) {
        if is_drained {
            self.drained.insert(place);
        } else {
            self.drained.remove(&place);
        }
    }

    /// The places that a model is leaving: nothing more is sent to it there.
    #[must_use]
    pub fn leaving(&self, model: &str) -> Vec<usize> {
        let of = self.leaving.keys().filter(|(_, leaving)| leaving == model);
        of.map(|(place, _)| *place).collect()
    }

    pub(crate) fn is_drained(&self, place: usize) -> bool {
        self.drained.contains(&place)
    }

    pub(crate) fn is_arriving(&self, place: usize, model: &str) -> bool {
        self.arrivals.iter().any(|arrival| arrival.is_of(place, model))
    }

    /// Whether this gateway still wants the model where it is: requests are open there or wait for
    /// it, it has only just come, it is on its way, or it is leaving already.
    pub(crate) fn is_needed(&self, place: usize, model: &str, now: Tick) -> bool {
        let spot = (place, model.to_owned());
        let is_fresh = |ready| now.since_ms(ready) < SETTLED_AFTER_MS;
        let used = self.uses.get(&spot);
        used.is_some_and(|used| used.open > 0 || used.ready.is_some_and(is_fresh))
            || self.leaving.contains_key(&spot)
            || self.is_arriving(place, model)
            || self.waiting_for(model) > 0
    }

    /// Since the model was last used there; since the begin of time if never.
    pub(crate) fn idle_ms(&self, place: usize, model: &str, now: Tick) -> u64 {
        let last = self.uses.get(&(place, model.to_owned())).and_then(|used| used.last);
        now.since_ms(last.unwrap_or_default())
    }

    pub(crate) fn backoff(&self, place: usize, model: &str, now: Tick) -> Option<Verdict> {
        let failure = self.failures.get(&(place, model.to_owned()))?;
        let Failure { until, why, .. } = failure.clone();
        (now < until).then_some(Verdict::BackingOff { until, why })
    }

    pub(crate) fn needs(&self, place: usize, profile: &Profile) -> Option<Vec<u64>> {
        needs(profile, self.plans.get(&(place, profile.id.clone())))
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
