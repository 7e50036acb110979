//! A model on its way to a node.

use serde::Serialize;

use super::LoadCause;
use crate::memory::Pool;
use crate::place::Fit;
use crate::{Harm, Tick};

/// How often an arrival may find after an eviction that it still has no room.
const ROUNDS: u32 = 3;

/// A model on its way to a node: room is made, then it is loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arrival {
    /// The node's place in the snapshot.
    pub place: usize,
    /// The model's id.
    pub model: String,
    /// The device and the MiB of each rank.
    pub ranks: Vec<(Option<u32>, u64)>,
    /// How far it is.
    pub stage: Stage,
    /// For whom it comes.
    pub cause: LoadCause,
    /// What making room for it costs.
    pub harm: Harm,
    rounds: u32,
}

/// How far an arrival is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// These models leave first.
    Clearing {
        /// Not gone yet.
        victims: Vec<String>,
    },
    /// Nothing is left in its way; a report younger than `since` shows whether there is room.
    Cleared {
        /// When the last victim was gone.
        since: Tick,
    },
    /// An eviction failed.
    Blocked,
    /// Its load was ordered.
    Loading,
    /// Its load failed; what it took stays spoken for until a report younger than `since` came.
    Failed {
        /// When.
        since: Tick,
    },
    /// Its load ended well; the node's next report will show it.
    Loaded {
        /// When.
        since: Tick,
    },
}

impl Arrival {
    pub(crate) fn new(place: usize, model: &str, fit: &Fit, cause: LoadCause) -> Self {
        let ranks = fit.devices.iter().copied().zip(fit.needs_mb.iter().copied()).collect();
        let stage = match fit.victims.is_empty() {
            true => Stage::Loading,
            false => Stage::Clearing { victims: fit.victims.clone() },
        };
        let (model, harm) = (model.to_owned(), fit.harm);
        Self { place, model, ranks, stage, cause, harm, rounds: 1 }
    }

    /// Whether it still may come.
    #[must_use]
    pub fn is_hopeful(&self) -> bool {
        !matches!(self.stage, Stage::Failed { .. })
    }

    pub(crate) fn is_of(&self, place: usize, model: &str) -> bool {
        self.place == place && self.model == model
    }

    /// An unload on its node ended.
    pub(crate) fn cleared(&mut self, model: &str, is_gone: bool, now: Tick) {
        let Stage::Clearing { victims } = &mut self.stage else { return };
        if !victims.iter().any(|victim| victim == model) {
            return;
        }
        victims.retain(|victim| victim != model);
        if !is_gone {
            self.stage = Stage::Blocked;
        } else if victims.is_empty() {
            self.stage = Stage::Cleared { since: now };
        }
    }

    /// Goes on as `fit` says, unless it has tried too often.
    pub(crate) fn go_on(&mut self, fit: &Fit) -> bool {
        let rounds = self.rounds + 1;
        *self = Self { rounds, ..Self::new(self.place, &self.model, fit, self.cause.clone()) };
        rounds <= ROUNDS
    }

    pub(crate) fn subtract_from(&self, pools: &mut [Pool]) {
        for (device, mb) in &self.ranks {
            for pool in pools.iter_mut().filter(|pool| pool.device == *device) {
                pool.free_mb = pool.free_mb.saturating_sub(*mb);
            }
        }
    }
}
