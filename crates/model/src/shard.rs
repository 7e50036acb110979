//! Which part of a layer a rank holds. World size 1 is the ordinary case, not a special one.

use std::ops::Range;

use kernels::Weight;
use kernels::gated_delta_rule::{DeltaShape, HeadOrder};

use crate::Error;

/// One rank of `world_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Counts from 0.
    pub rank: usize,
    /// Ranks in all.
    pub world_size: usize,
}

impl Shard {
    /// The only rank.
    pub const SOLO: Self = Self { rank: 0, world_size: 1 };

    /// This rank's share of `count` equal things.
    ///
    /// # Errors
    /// [`Error::Indivisible`] when the ranks cannot share them evenly.
    pub fn share(&self, what: &'static str, count: usize) -> Result<Range<usize>, Error> {
        if !count.is_multiple_of(self.world_size) {
            return Err(Error::Indivisible { what, count, world_size: self.world_size });
        }
        let share = count / self.world_size;
        Ok(self.rank * share..(self.rank + 1) * share)
    }

    /// This rank's share of `count` things that need not be shared evenly.
    pub fn split(&self, count: usize) -> Range<usize> {
        let start = |rank| rank * count / self.world_size;
        start(self.rank)..start(self.rank + 1)
    }

    /// This rank's share of `count` heads that others read from: with fewer heads than ranks,
    /// several ranks hold the same one.
    ///
    /// # Errors
    /// [`Error::Indivisible`] when neither divides the other.
    pub fn share_or_copy(&self, what: &'static str, count: usize) -> Result<Range<usize>, Error> {
        let Shard { rank, world_size } = self.among_copies(count);
        if world_size == 1 {
            return self.share(what, count);
        }
        let head = (self.rank - rank) / world_size;
        Ok(head..head + 1)
    }

    /// This rank's place among those that hold a copy of the same head of `count`.
    fn among_copies(&self, count: usize) -> Self {
        let fewer = count > 0 && self.world_size.is_multiple_of(count);
        let world_size = if fewer { self.world_size / count } else { 1 };
        Self { rank: self.rank % world_size, world_size }
    }

    /// The value heads of this rank, as runs of heads in file order: those that go with its key
    /// heads, or a part of them where other ranks hold the same key head.
    ///
    /// In tiled order the heads of one key head lie `key_heads` apart, so a contiguous split would
    /// separate values from their keys.
    ///
    /// # Errors
    /// [`Error::Indivisible`] when ranks with the same key head cannot share its values evenly.
    pub fn value_heads(
        &self,
        key_heads: &Range<usize>,
        whole: &DeltaShape,
    ) -> Result<Vec<Range<usize>>, Error> {
        let per_key = whole.value_heads / whole.key_heads;
        let copies = self.among_copies(whole.key_heads);
        let of_key = copies.share("value heads of a key head", per_key)?;
        Ok(match whole.order {
            HeadOrder::Grouped if copies.world_size == 1 => {
                vec![key_heads.start * per_key..key_heads.end * per_key]
            }
            HeadOrder::Grouped => {
                let first = key_heads.start * per_key;
                vec![first + of_key.start..first + of_key.end]
            }
            HeadOrder::Tiled if self.world_size == 1 => vec![0..whole.value_heads],
            HeadOrder::Tiled => of_key
                .map(|tile| tile * whole.key_heads)
                .map(|start| start + key_heads.start..start + key_heads.end)
                .collect(),
        })
    }
}

/// Runs of `size` elements for runs of things: `[2..4]` of size 3 is `[6..12]`.
pub(crate) fn scaled(runs: &[Range<usize>], size: usize) -> Vec<Range<usize>> {
    runs.iter().map(|run| run.start * size..run.end * size).collect()
}

/// Rows `runs` of a matrix: a column-parallel layer's share of the outputs.
pub(crate) fn rows(weight: &Weight, runs: &[Range<usize>]) -> Weight {
    match runs {
        [run] => weight.row_range(run.clone()),
        runs => {
            let bytes: Vec<u8> =
                runs.iter().flat_map(|run| weight.row_range(run.clone()).bytes.to_vec()).collect();
            let count = runs.iter().map(ExactSizeIterator::len).sum();
            Weight::new(weight.ty, count, weight.cols, bytes.into())
        }
    }
}

/// Columns `runs` of a matrix: a row-parallel layer's share of the inputs.
///
/// # Errors
/// [`Error::Indivisible`] when a run cuts a block of a quantised format.
pub(crate) fn cols(
    weight: &Weight,
    runs: &[Range<usize>],
    what: &'static str,
) -> Result<Weight, Error> {
    if runs.len() == 1 && runs[0] == (0..weight.cols) {
        return Ok(weight.clone());
    }
    let cut = || Error::Indivisible {
        what,
        count: weight.cols / weight.ty.block_elements(),
        world_size: weight.cols / runs.iter().map(ExactSizeIterator::len).sum::<usize>().max(1),
    };
    let parts: Option<Vec<Weight>> = runs.iter().map(|run| weight.col_range(run.clone())).collect();
    let parts = parts.ok_or_else(cut)?;
    let count = parts.iter().map(|part| part.cols).sum();
    let bytes: Vec<u8> = (0..weight.rows)
        .flat_map(|row| parts.iter().flat_map(move |part| part.row(row).iter().copied()))
        .collect();
    Ok(Weight::new(weight.ty, weight.rows, count, bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Weight {
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        Weight::from_f32(4, 6, &values)
    }

    #[test]
    fn ranks_share_evenly_or_not_at_all() {
        let shard = Shard { rank: 1, world_size: 2 };
        assert_eq!(shard.share("heads", 6).unwrap(), 3..6);
        let error = shard.share("heads", 5).unwrap_err();
        assert!(error.to_string().contains("5 heads"), "{error}");
    }

    /// Requirement 126 and the trap of splitting tiled heads contiguously.
    #[test]
    fn value_heads_follow_their_key_heads() {
        let shape =
            |order| DeltaShape { key_heads: 4, value_heads: 12, key_dim: 1, value_dim: 1, order };
        let shard = Shard { rank: 1, world_size: 2 };
        let grouped = shard.value_heads(&(2..4), &shape(HeadOrder::Grouped)).unwrap();
        assert_eq!(grouped, [6..12]);
        let tiled = shard.value_heads(&(2..4), &shape(HeadOrder::Tiled)).unwrap();
        assert_eq!(tiled, [2..4, 6..8, 10..12]);
        for head in tiled.iter().cloned().flatten() {
            assert!((2..4).contains(&shape(HeadOrder::Tiled).key_head(head)));
        }
    }

    /// Every value head has its rank, and there its key head, whether or not ranks share one.
    /// Requirement 55.
    #[test]
    fn every_value_head_is_held_once() {
        for (order, world_size) in [
            (HeadOrder::Grouped, 1),
            (HeadOrder::Grouped, 2),
            (HeadOrder::Grouped, 6),
            (HeadOrder::Tiled, 2),
            (HeadOrder::Tiled, 4),
            (HeadOrder::Tiled, 12),
        ] {
            let (key_heads, value_heads) = (world_size.min(2), 12);
            let whole = DeltaShape { key_heads, value_heads, key_dim: 1, value_dim: 1, order };
            let mut held = Vec::new();
            for rank in 0..world_size {
                let shard = Shard { rank, world_size };
                let keys = shard.share_or_copy("key heads", key_heads).unwrap();
                for head in shard.value_heads(&keys, &whole).unwrap().into_iter().flatten() {
                    assert!(keys.contains(&whole.key_head(head)), "{order:?}, {world_size}");
                    held.push(head);
                }
            }
            held.sort_unstable();
            assert_eq!(held, (0..value_heads).collect::<Vec<_>>(), "{order:?}, {world_size}");
        }
        let shard = Shard { rank: 0, world_size: 4 };
        assert!(shard.share_or_copy("heads", 3).is_err(), "3 heads, 4 ranks");
    }

    #[test]
    fn uneven_splits_cover_everything() {
        let split = |rank| Shard { rank, world_size: 3 }.split(7);
        assert_eq!([split(0), split(1), split(2)], [0..2, 2..4, 4..7]);
    }

    #[test]
    fn runs_of_rows_and_columns_are_gathered_in_order() {
        let rows = rows(&matrix(), &[3..4, 0..1]);
        assert_eq!(rows.to_f32()[..7], [18.0, 19.0, 20.0, 21.0, 22.0, 23.0, 0.0]);
        let cols = cols(&matrix(), &[4..6, 0..1], "inputs").unwrap();
        assert_eq!(cols.to_f32()[..6], [4.0, 5.0, 0.0, 10.0, 11.0, 6.0]);
    }
}
