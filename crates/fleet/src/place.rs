//! Where a model that is not loaded could be, node by node, and which node is best.

use control::ModelStatus;
use serde::Serialize;

use crate::desk::{Desk, Size};
use crate::evict::{Candidate, Harm, cheapest};
use crate::memory::Pool;
use crate::{Catalogue, Node, Profile, Snapshot, Standing, Strategy, Tick};

/// A model that has just become ready stays for so long: those who waited for it are let in first.
pub(crate) const SETTLED_AFTER_MS: u64 = 3_000;

/// All that a decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What the nodes say.
    pub snapshot: &'a Snapshot,
    /// What the operator says.
    pub catalogue: &'a Catalogue,
    /// What this gateway has set in motion.
    pub desk: &'a Desk,
    /// Who gives way first.
    pub strategy: Strategy,
}

/// What a node is for a model: the reasons that `--explain` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It can be loaded there.
    Fits(Fit),
    /// It is there already, or on its way.
    Present(ModelStatus),
    /// The catalogue keeps it elsewhere.
    NotAllowed,
    /// The node is not in service.
    OutOfService(Standing),
    /// The operator drains the node.
    Drained,
    /// A load failed there a moment ago.
    BackingOff {
        /// So many times in a row.
        in_a_row: u32,
        /// For so much longer.
        retry_in_ms: u64,
        /// What went wrong.
        why: String,
    },
    /// The node has been asked, or is about to be, how large the model is there.
    SizeAsked,
    /// The node does not answer that, and the catalogue does not say.
    SizeUnknown,
    /// The node says that it cannot have the model.
    Refused {
        /// In its own words.
        why: String,
    },
    /// Not as many devices of the wanted size.
    TooFewDevices {
        /// There are.
        has: usize,
        /// There must be.
        wants: usize,
    },
    /// Not even an empty node holds it.
    TooSmall {
        /// MiB of all ranks.
        needs_mb: u64,
        /// MiB of all devices.
        has_mb: u64,
    },
    /// What may be evicted does not make room enough.
    NoRoom {
        /// MiB of all ranks.
        needs_mb: u64,
        /// MiB free now.
        free_mb: u64,
        /// MiB that an eviction would free.
        evictable_mb: u64,
    },
}

/// How a model comes onto a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// The devices of its ranks; none for main memory.
    pub devices: Vec<Option<u32>>,
    /// MiB of its ranks, in the same order.
    pub needs_mb: Vec<u64>,
    /// Models that give way first.
    pub victims: Vec<String>,
    /// What that costs.
    pub harm: Harm,
    /// MiB that stay free on its devices.
    pub left_mb: u64,
}

impl View<'_> {
    /// What the node at `place` is for `profile`.
    #[must_use]
    pub fn judge(&self, place: usize, profile: &Profile, now: Tick) -> Verdict {
        let node = &self.snapshot.nodes[place];
        if let Some(verdict) = self.obstacle(place, node, profile, now) {
            return verdict;
        }
        let needs_mb = match self.desk.size(place, profile, now) {
            Size::Known(needs_mb) => needs_mb,
            Size::Asked | Size::Unasked => return Verdict::SizeAsked,
            Size::Unknown => return Verdict::SizeUnknown,
            Size::Refused(why) => return Verdict::Refused { why },
        };
        let pools: Vec<Pool> = self.pools_for(place, profile);
        let needs_mb = match pools.first() {
            // Ranks on a host without devices share its memory.
            Some(Pool { device: None, .. }) => {
                vec![needs_mb.into_iter().fold(0, u64::saturating_add)]
            }
            _ => needs_mb,
        };
        let wants = needs_mb.len().max(profile.min_devices as usize);
        if pools.len() < wants {
            return Verdict::TooFewDevices { has: pools.len(), wants };
        }
        let sum = |of: fn(&Pool) -> u64| pools.iter().map(of).fold(0, u64::saturating_add);
        let needs = needs_mb.iter().copied().fold(0, u64::saturating_add);
        let empty = pools.iter().map(|pool| Pool { free_mb: pool.total_mb, ..*pool });
        if crate::memory::assign(&empty.collect::<Vec<_>>(), &needs_mb).is_none() {
            return Verdict::TooSmall { needs_mb: needs, has_mb: sum(|pool| pool.total_mb) };
        }
        let candidates = self.candidates(place, node, profile, &pools, now);
        let evictable = candidates.iter().flat_map(|c| &c.frees).map(|(_, mb)| mb).sum();
        let Some(eviction) = cheapest(&pools, &needs_mb, candidates) else {
            let free_mb = sum(|pool| pool.free_mb);
            return Verdict::NoRoom { needs_mb: needs, free_mb, evictable_mb: evictable };
        };
        let given = eviction.places.iter().map(|at| pools[*at]);
        Verdict::Fits(Fit {
            left_mb: given.clone().map(|pool| pool.free_mb).sum::<u64>().saturating_sub(needs),
            devices: given.map(|pool| pool.device).collect(),
            needs_mb,
            victims: eviction.victims,
            harm: eviction.harm,
        })
    }

    /// Every node's verdict, in the order of the configuration.
    #[must_use]
    pub fn explain(&self, profile: &Profile, now: Tick) -> Vec<Verdict> {
        (0..self.snapshot.nodes.len()).map(|place| self.judge(place, profile, now)).collect()
    }

    /// Why a node is no place for it whatever its memory.
    fn obstacle(&self, place: usize, node: &Node, profile: &Profile, now: Tick) -> Option<Verdict> {
        if !profile.is_allowed_on(&node.name) {
            return Some(Verdict::NotAllowed);
        }
        match node.standing(now) {
            Standing::Alive => {}
            standing => return Some(Verdict::OutOfService(standing)),
        }
        if self.desk.is_drained(place) {
            return Some(Verdict::Drained);
        }
        if self.desk.is_arriving(place, &profile.id) {
            return Some(Verdict::Present(ModelStatus::Loading));
        }
        match node.model(&profile.id).map(|model| model.status) {
            None | Some(ModelStatus::Absent | ModelStatus::Failed) => {}
            Some(status) => return Some(Verdict::Present(status)),
        }
        self.desk.backoff(place, &profile.id, now)
    }

    /// The node's pools that are large enough, less what is promised to models on their way.
    fn pools_for(&self, place: usize, profile: &Profile) -> Vec<Pool> {
        let mut pools = self.snapshot.nodes[place].pools();
        self.desk.subtract_promised(place, &mut pools);
        pools.retain(|pool| pool.total_mb >= profile.min_device_vram_mb);
        pools
    }

    /// Models of a node that may give way to `profile`: ready, settled, not pinned, not busy, and
    /// worth no more.
    fn candidates(
        &self,
        place: usize,
        node: &Node,
        profile: &Profile,
        pools: &[Pool],
        now: Tick,
    ) -> Vec<Candidate> {
        let candidate = |model: &control::ModelReport| {
            let of = self.catalogue.models.get(&model.id);
            let priority = match self.strategy {
                Strategy::Lru => 0,
                Strategy::Priority => of.map_or(0, |of| of.residency_priority),
            };
            let outranks =
                self.strategy == Strategy::Priority && priority > profile.residency_priority;
            let is_pinned = of.is_some_and(|of| of.is_pinned_on(&node.name));
            if model.status != ModelStatus::Ready
                || is_pinned
                || outranks
                || self.desk.is_needed(place, &model.id, now)
                || is_busy(node, &model.id)
            {
                return None;
            }
            Some(Candidate {
                model: model.id.clone(),
                priority,
                idle_ms: self.desk.idle_ms(place, &model.id, now),
                frees: frees(model, pools),
            })
        };
        node.models().iter().filter_map(candidate).collect()
    }
}

/// The best of the nodes where it fits in a way that is `allowed`: the least harm, then the
/// tightest fit, so that large gaps stay whole, then the order of the configuration.
pub(crate) fn best(verdicts: &[Verdict], allowed: impl Fn(&Fit) -> bool) -> Option<(usize, &Fit)> {
    let fits = verdicts.iter().enumerate().filter_map(|(place, verdict)| match verdict {
        Verdict::Fits(fit) if allowed(fit) => Some((place, fit)),
        _ => None,
    });
    fits.min_by_key(|(place, fit)| (fit.harm, fit.left_mb, *place))
}

/// Whether the node says that somebody uses the model.
pub(crate) fn is_busy(node: &Node, model: &str) -> bool {
    node.gauges(model).is_some_and(|gauges| gauges.running > 0 || gauges.waiting > 0)
}

/// What a model's end gives back, by the place of the pool: an even share on each of its devices,
/// or its main memory.
fn frees(model: &control::ModelReport, pools: &[Pool]) -> Vec<(usize, u64)> {
    let share = model.vram_used_mb / (model.devices.len() as u64).max(1);
    let freed = |pool: &Pool| match pool.device {
        None => Some(model.host_used_mb),
        Some(device) => model.devices.contains(&device).then_some(share),
    };
    let places = pools.iter().enumerate();
    places.filter_map(|(place, pool)| Some((place, freed(pool)?))).collect()
}
