//! Ranks as threads: a slot each, a barrier, and a sum in fixed order.

use std::fmt;
use std::sync::{Arc, Mutex};

use super::barrier::Barrier;

/// What the ranks share.
pub struct LocalGroup {
    slots: Vec<Mutex<Vec<f32>>>,
    barrier: Barrier,
}

/// One rank's place in a [`LocalGroup`]. When it is dropped by a panic, the group is broken: the
/// other ranks panic too instead of waiting for ever.
#[derive(Clone)]
pub struct LocalRank {
    group: Arc<LocalGroup>,
    rank: usize,
}

impl Drop for LocalRank {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.group.barrier.give_up();
        }
    }
}

impl LocalGroup {
    /// The ranks of a group of `world_size`, in order.
    pub fn ranks(world_size: usize) -> Vec<LocalRank> {
        let slots = (0..world_size).map(|_| Mutex::default()).collect();
        let group = Arc::new(Self { slots, barrier: Barrier::new(world_size) });
        (0..world_size).map(|rank| LocalRank { group: group.clone(), rank }).collect()
    }
}

impl LocalRank {
    pub(super) fn all_reduce(&self, values: &mut [f32]) {
        let own = values.to_vec();
        values.fill(0.0);
        self.exchange(own, |slot| {
            assert_eq!(slot.len(), values.len(), "ranks reduce the same shapes");
            values.iter_mut().zip(slot).for_each(|(sum, value)| *sum += value);
        });
    }

    pub(super) fn all_gather(&self, values: Vec<f32>) -> Vec<Vec<f32>> {
        let mut all = Vec::with_capacity(self.group.slots.len());
        self.exchange(values, |slot| all.push(slot.to_vec()));
        all
    }

    /// Shows `own` to every rank, and every rank's values to `see`, in order.
    fn exchange(&self, own: Vec<f32>, mut see: impl FnMut(&[f32])) {
        *self.slot(self.rank) = own;
        self.group.barrier.wait();
        for rank in 0..self.group.slots.len() {
            see(&self.slot(rank));
        }
        // Nobody may fill a slot again before everybody has read it.
        self.group.barrier.wait();
    }

    fn slot(&self, rank: usize) -> std::sync::MutexGuard<'_, Vec<f32>> {
        self.group.slots[rank].lock().expect("a rank of the group panicked")
    }
}

impl fmt::Debug for LocalRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalRank({} of {})", self.rank, self.group.slots.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_sees_what_each_brings() {
        let threads = LocalGroup::ranks(3).into_iter().map(|rank| {
            std::thread::spawn(move || rank.all_gather(vec![rank.rank as f32; rank.rank]))
        });
        for thread in threads.collect::<Vec<_>>() {
            assert_eq!(thread.join().unwrap(), [vec![], vec![1.0], vec![2.0, 2.0]]);
        }
    }

    /// Whether it was waited for or is waited for later, and by whomever.
    #[test]
    fn a_rank_that_panics_takes_the_others_with_it() {
        let (ended, ends) = std::sync::mpsc::channel();
        for (at, rank) in LocalGroup::ranks(3).into_iter().enumerate() {
            let ended = ended.clone();
            std::thread::spawn(move || {
                let work = std::panic::AssertUnwindSafe(move || {
                    rank.all_gather(vec![1.0]);
                    assert!(at != 1, "the rank that fails");
                    rank.all_gather(vec![1.0]);
                });
                ended.send(std::panic::catch_unwind(work).is_err()).expect("somebody listens");
            });
        }
        for _ in 0..3 {
            let end = ends.recv_timeout(std::time::Duration::from_secs(60));
            assert_eq!(end, Ok(true), "a rank waits for one that is gone");
        }
    }

    #[test]
    fn every_rank_gets_the_same_sum_every_time() {
        let ranks = LocalGroup::ranks(3);
        let sums = |rank: LocalRank| {
            (0..50)
                .map(|round| {
                    let mut values = [rank.rank as f32 + round as f32, 1e-8, 1e8];
                    rank.all_reduce(&mut values);
                    values
                })
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> =
            ranks.into_iter().map(|rank| std::thread::spawn(move || sums(rank))).collect();
        let sums: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(sums[0][7], [24.0, 3e-8, 3e8]);
        assert!(sums.iter().all(|sum| *sum == sums[0]));
    }
}
