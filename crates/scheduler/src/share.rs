//! How prompts share a step.
//!
//! Half of a step is for the oldest prompt, so that nothing that comes later slows it to less than
//! half of its speed. The other half goes to the prompt that has the least left, then to the next:
//! a short one that comes behind long ones is through in a step or a few. What nobody takes, the
//! oldest gets.

/// A prompt that a step could go on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Tokens that it misses in all.
    pub(crate) missing: u32,
    /// Tokens that this step may compute of them; at least 1.
    pub(crate) most: u32,
}

/// What each of `prompts`, the oldest first, gets of `budget` tokens.
pub(crate) fn shares(prompts: &[Open], budget: u32) -> Vec<u32> {
    let mut shares = vec![0; prompts.len()];
    let Some(oldest) = prompts.first() else { return shares };
    shares[0] = oldest.most.min(budget.div_ceil(2));
    let mut left = budget - shares[0];
    let mut order: Vec<usize> = (1..prompts.len()).collect();
    // The sort is stable: of equals the older one comes first.
    order.sort_by_key(|at| prompts[*at].missing);
    for at in order {
        shares[at] = prompts[at].most.min(left);
        left -= shares[at];
    }
    shares[0] += (oldest.most - shares[0]).min(left);
    shares
}

/// Whether a further prompt that misses so many tokens, the youngest of all, would get any.
pub(crate) fn has_room(missing: impl IntoIterator<Item = u32>, newcomer: u32, budget: u32) -> bool {
    let mut prompts: Vec<Open> =
        missing.into_iter().map(|missing| Open { missing, most: missing }).collect();
    prompts.push(Open { missing: newcomer, most: 1 });
    shares(&prompts, budget).last().is_some_and(|share| *share > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(missing: u32) -> Open {
        Open { missing, most: missing }
    }

    #[test]
    fn the_oldest_has_half_and_the_shortest_the_rest() {
        assert_eq!(shares(&[open(1000), open(500), open(20)], 100), [50, 30, 20]);
        assert_eq!(shares(&[open(1000)], 100), [100]);
        assert_eq!(shares(&[open(1000), open(10)], 100), [90, 10]);
        assert_eq!(shares(&[open(30), open(500)], 100), [30, 70]);
        assert_eq!(shares(&[open(1000), open(7), open(7)], 21), [11, 7, 3]);
        assert_eq!(shares(&[open(5), open(5)], 1), [1, 0]);
        assert_eq!(shares(&[], 5), [0; 0]);
        // A boundary ahead ends a share.
        let bounded = Open { missing: 1000, most: 8 };
        assert_eq!(shares(&[bounded, open(1000)], 100), [8, 92]);
        assert!(has_room([1000, 30], 40, 100) && !has_room([1000, 50], 60, 100));
        assert!(has_room([1000, 50], 40, 100), "a shorter one goes first");
        assert!(has_room([], 5, 1) && !has_room([5], 1, 1));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_the_oldest_keeps_half(
            prompts in prop::collection::vec((1u32..300, 1u32..300), 1..9),
            budget in 0u32..400,
        ) {
            let prompts: Vec<Open> = prompts
                .into_iter()
                .map(|(missing, most)| Open { missing, most: most.min(missing) })
                .collect();
            let shares = shares(&prompts, budget);
            let wanted: u32 = prompts.iter().map(|prompt| prompt.most).sum();
            prop_assert_eq!(shares.iter().sum::<u32>(), wanted.min(budget));
            prop_assert!(shares.iter().zip(&prompts).all(|(share, of)| *share <= of.most));
            prop_assert!(shares[0] >= prompts[0].most.min(budget.div_ceil(2)));
            let shortest = prompts.iter().zip(&shares).skip(1).min_by_key(|(of, _)| of.missing);
            if let Some((shortest, share)) = shortest {
                prop_assert!(*share >= shortest.most.min(budget / 2));
            }
        }
    }
}
