//! Who gives way when a model needs room: as few as can be, chosen for the least harm in all.
//!
//! Harm is what is likely to be missed: a model that was asked for a moment ago is likely to be
//! asked for again, so each victim weighs `1 / time since its last use`, and a set weighs the sum.
//! A set with one victim more is always worse, so no more are evicted than are needed
//! (requirement 118). Under [`Strategy::Priority`] the highest priority among the victims counts
//! first.

use std::cmp::Reverse;

use serde::Serialize;

use crate::memory::{Pool, assign};

/// Up to so many candidates all sets are compared; of more, a set that cannot be made smaller is
/// found by taking the least harmful first.
const COMPARED: usize = 12;

/// The unit of harm: a model used this instant.
const USED_NOW: u64 = 1_000_000_000;

/// A model that may be evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) model: String,
    /// Zero under a strategy that does not look at priorities.
    pub(crate) priority: i32,
    pub(crate) idle_ms: u64,
    /// What comes back, by the place of the pool.
    pub(crate) frees: Vec<(usize, u64)>,
}

/// What an eviction costs; smaller is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Harm {
    /// The highest priority among the victims; none without victims.
    pub priority: Option<i32>,
    /// The sum over the victims of how likely each is missed.
    pub missed: u64,
}

impl Harm {
    fn of<'a>(victims: impl IntoIterator<Item = &'a Candidate>) -> Self {
        victims.into_iter().fold(Self::default(), |harm, victim| Self {
            priority: harm.priority.max(Some(victim.priority)),
            missed: harm.missed + (USED_NOW / (victim.idle_ms + 1)).max(1),
        })
    }
}

/// The victims, the harm, and the pools of the ranks afterwards.
pub(crate) struct Eviction {
    pub(crate) victims: Vec<String>,
    pub(crate) harm: Harm,
    pub(crate) places: Vec<usize>,
}

/// The least harmful set of candidates after whose eviction `needs` fit; the empty one if they fit
/// as it is, none if they never do.
pub(crate) fn cheapest(
    pools: &[Pool],
    needs: &[u64],
    mut candidates: Vec<Candidate>,
) -> Option<Eviction> {
    candidates.sort_by_key(|candidate| {
        (candidate.priority, Reverse(candidate.idle_ms), candidate.model.clone())
    });
    let victims = if candidates.len() <= COMPARED {
        of_all_sets(pools, needs, &candidates)
    } else {
        by_order(pools, needs, &candidates)
    }?;
    let places = assign(&without(pools, victims.iter().copied()), needs)?;
    let harm = Harm::of(victims.iter().copied());
    let victims = victims.into_iter().map(|victim| victim.model.clone()).collect();
    Some(Eviction { victims, harm, places })
}

fn of_all_sets<'a>(
    pools: &[Pool],
    needs: &[u64],
    candidates: &'a [Candidate],
) -> Option<Vec<&'a Candidate>> {
    let set = |bits: u32| {
        let chosen = candidates.iter().enumerate().filter(move |(at, _)| bits >> at & 1 == 1);
        chosen.map(|(_, candidate)| candidate)
    };
    let fits = |bits: &u32| assign(&without(pools, set(*bits)), needs).is_some();
    let best = (0..1u32 << candidates.len()).filter(fits).min_by_key(|bits| Harm::of(set(*bits)));
    best.map(|bits| set(bits).collect())
}

/// The shortest run of the least harmful that is enough, without those that it can spare.
fn by_order<'a>(
    pools: &[Pool],
    needs: &[u64],
    candidates: &'a [Candidate],
) -> Option<Vec<&'a Candidate>> {
    let fits =
        |victims: &[&Candidate]| assign(&without(pools, victims.iter().copied()), needs).is_some();
    let all: Vec<&Candidate> = candidates.iter().collect();
    let enough = (0..=all.len()).find(|count| fits(&all[..*count]))?;
    let mut victims = all[..enough].to_vec();
    for at in (0..enough).rev() {
        let spared = victims.remove(at);
        if !fits(&victims) {
            victims.insert(at, spared);
        }
    }
    Some(victims)
}

fn without<'a>(pools: &[Pool], victims: impl IntoIterator<Item = &'a Candidate>) -> Vec<Pool> {
    let mut pools = pools.to_vec();
    for (place, freed_mb) in victims.into_iter().flat_map(|victim| &victim.frees) {
        let pool = &mut pools[*place];
        pool.free_mb = pool.free_mb.saturating_add(*freed_mb).min(pool.total_mb);
    }
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: Pool = Pool { device: None, total_mb: 100, free_mb: 10 };

    fn candidate(model: &str, idle_ms: u64, mb: u64) -> Candidate {
        Candidate { model: model.to_owned(), priority: 0, idle_ms, frees: vec![(0, mb)] }
    }

    fn victims(needs: &[u64], candidates: &[Candidate]) -> Option<Vec<String>> {
        cheapest(&[POOL], needs, candidates.to_vec()).map(|eviction| eviction.victims)
    }

    // Requirement 118
    #[test]
    fn exactly_as_many_as_are_needed_give_way() {
        let candidates =
            [candidate("old", 9000, 20), candidate("older", 10_000, 20), candidate("new", 10, 50)];
        assert_eq!(victims(&[10], &candidates), Some(vec![]));
        assert_eq!(victims(&[30], &candidates), Some(vec!["older".to_owned()]));
        assert_eq!(victims(&[50], &candidates), Some(vec!["older".to_owned(), "old".to_owned()]));
        assert_eq!(victims(&[60], &candidates), Some(vec!["new".to_owned()]));
        assert_eq!(victims(&[101], &candidates), None);
    }

    #[test]
    fn priority_counts_before_use() {
        let mut precious = candidate("precious", 100_000, 40);
        precious.priority = 5;
        let candidates = [precious, candidate("plain", 1, 40)];
        assert_eq!(victims(&[50], &candidates), Some(vec!["plain".to_owned()]));
        assert_eq!(
            victims(&[90], &candidates),
            Some(vec!["plain".to_owned(), "precious".to_owned()])
        );
    }

    #[test]
    fn many_candidates_still_give_a_set_that_cannot_be_smaller() {
        let mut candidates: Vec<_> =
            (0..20).map(|at| candidate(&format!("m{at:02}"), 1000 + at, 1)).collect();
        candidates.push(candidate("large", 500, 40));
        assert_eq!(victims(&[50], &candidates), Some(vec!["large".to_owned()]));
        assert_eq!(victims(&[12], &candidates).map(|victims| victims.len()), Some(2));
    }

    #[test]
    fn memory_counts_on_its_own_device_only() {
        let pools = [0, 1].map(|index| Pool { device: Some(index), total_mb: 50, free_mb: 0 });
        let on = |place, model: &str| Candidate {
            frees: vec![(place, 30)],
            ..candidate(model, 1000, 0)
        };
        let pair = vec![on(0, "a"), on(0, "b"), on(1, "c")];
        let eviction = cheapest(&pools, &[30, 30], pair).expect("a or b, and c");
        assert_eq!(eviction.victims, ["a", "c"]);
        assert_eq!(eviction.places.len(), 2);
    }
}
