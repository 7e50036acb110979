//! How large models are, by the nodes' own words.

use std::collections::BTreeMap;

use control::LoadPlan;

use super::Spot;
use crate::memory::{declared, planned};
use crate::{Profile, Tick};

/// A refusal of a node is believed for so long; then its operator may have mended it.
const REFUSED_MS: u64 = 30_000;
/// A node that did not answer is asked again after so long.
const UNANSWERED_MS: u64 = 30_000;

/// Why a node gave no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unplanned {
    /// It says that it cannot have the model, and why.
    Refused(String),
    /// It did not answer, or not in a way that is understood.
    Unanswered,
}

/// What is known of a model's size on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// MiB of each rank.
    Known(Vec<u64>),
    /// The node has been asked.
    Asked,
    /// The node is to be asked.
    Unasked,
    /// The node does not answer, and the catalogue does not say.
    Unknown,
    /// The node cannot have it.
    Refused(String),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Plans {
    answers: BTreeMap<Spot, Answer>,
}

#[derive(Clone, Debug)]
enum Answer {
    Asked,
    Plan(LoadPlan),
    None { why: Unplanned, until: Tick },
}

impl Plans {
    /// Whether the node is to be asked; it counts as asked from then on.
    pub(crate) fn ask(&mut self, place: usize, profile: &Profile, now: Tick) -> bool {
        let is_open = self.size(place, profile, now) == Size::Unasked;
        if is_open {
            self.answers.insert((place, profile.id.clone()), Answer::Asked);
        }
        is_open
    }

    pub(crate) fn answered(&mut self, spot: Spot, plan: Result<LoadPlan, Unplanned>, now: Tick) {
        let answer = match plan {
            Ok(plan) => Answer::Plan(plan),
            Err(why) => {
                let patience =
                    if why == Unplanned::Unanswered { UNANSWERED_MS } else { REFUSED_MS };
                Answer::None { why, until: Tick(now.0 + patience) }
            }
        };
        self.answers.insert(spot, answer);
    }

    pub(crate) fn forget(&mut self, spot: &Spot) {
        self.answers.remove(spot);
    }

    /// By the node's own plan, else by the catalogue's word (requirement 76).
    pub(crate) fn size(&self, place: usize, profile: &Profile, now: Tick) -> Size {
        match self.answers.get(&(place, profile.id.clone())) {
            Some(Answer::Plan(plan)) => Size::Known(planned(plan)),
            Some(Answer::Asked) => Size::Asked,
            Some(Answer::None { why, until }) if now < *until => match why {
                Unplanned::Refused(why) => Size::Refused(why.clone()),
                Unplanned::Unanswered => declared(profile).map_or(Size::Unknown, Size::Known),
            },
            Some(Answer::None { .. }) | None => Size::Unasked,
        }
    }
}

#[cfg(test)]
mod tests {
    use control::RankPlan;

    use super::*;

    const LATER: Tick = Tick(UNANSWERED_MS);

    // Requirement 76
    #[test]
    fn a_plan_beats_the_catalogue_and_a_silent_node_leaves_it_the_word() {
        let mut plans = Plans::default();
        let profile = Profile { world_size: Some(2), ..Profile::sized("m", 101) };
        assert!(plans.ask(0, &profile, Tick(0)));
        assert!(!plans.ask(0, &profile, Tick(0)), "it was asked");
        assert_eq!(plans.size(0, &profile, Tick(0)), Size::Asked);
        let spot = || (0, "m".to_owned());
        plans.answered(spot(), Err(Unplanned::Unanswered), Tick(0));
        assert_eq!(plans.size(0, &profile, Tick(1)), Size::Known(vec![51, 51]));
        assert_eq!(plans.size(0, &profile, LATER), Size::Unasked);
        let unsized_one = Profile { vram_mb: None, ..profile.clone() };
        assert_eq!(plans.size(0, &unsized_one, Tick(1)), Size::Unknown);

        let rank = RankPlan { weight_bytes: 1 << 20, kv_bytes: 1, ..RankPlan::default() };
        let plan = LoadPlan { ranks: vec![rank], ..LoadPlan::default() };
        plans.answered(spot(), Ok(plan), Tick(0));
        assert_eq!(plans.size(0, &profile, LATER), Size::Known(vec![2]));

        plans.answered(spot(), Err(Unplanned::Refused("no such file".to_owned())), Tick(0));
        assert_eq!(plans.size(0, &profile, Tick(1)), Size::Refused("no such file".to_owned()));
        assert_eq!(plans.size(0, &profile, LATER), Size::Unasked);
    }
}
