//! A fleet of 2 to 40 nodes in which everything goes wrong, and what must hold all the same.
//!
//! The nodes are simulated with what they really have; the desk sees their reports alone. Nodes
//! die and hang, reports come late, disks fill up, and models turn out larger than was said. Then
//! all of it stops, and the fleet must come to rest. Each invariant has a mutation, a way for the
//! policy to be blind in just that respect, and must catch it.

mod checks;
mod draws;
mod run;
mod world;

use run::{Mutation, Story, simulate};

/// Seeds of the full run.
const SEEDS: u64 = 1000;
/// A blind policy errs in one of these at the latest.
const MUTANT_SEEDS: u64 = 60;

#[test]
fn every_invariant_holds_over_a_thousand_seeds() {
    let mut all = Story::default();
    for seed in 0..SEEDS {
        match simulate(seed, None) {
            Ok(story) => all.add(&story),
            Err(broken) => panic!("seed {seed}: {broken}"),
        }
    }
    // A simulation in which nothing happens would hold anything.
    assert!(all.forwarded > 100 * SEEDS, "{all:?}");
    assert!(all.waited > 10 * SEEDS && all.loads > 10 * SEEDS, "{all:?}");
    assert!(all.evictions > SEEDS && all.failed_loads > SEEDS && all.left > SEEDS, "{all:?}");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let tell = || format!("{:?}", simulate(7, None).expect("it holds"));
    assert_eq!(tell(), tell());
}

#[test]
fn each_invariant_catches_its_mutation() {
    for mutation in Mutation::ALL {
        let caught = (0..MUTANT_SEEDS).find_map(|seed| simulate(seed, Some(mutation)).err());
        let broken = caught.unwrap_or_else(|| panic!("{mutation:?} was not noticed"));
        assert!(mutation.breaks().contains(&broken.rule()), "{mutation:?} was seen as {broken}");
    }
}
