//! How the rows of a step are cut into chunks for the kernels that work on whole chunks.

use crate::backend::SequenceRows;

/// Tokens of a chunk.
pub(super) const CHUNK: usize = 64;

/// A sequence with at most as many rows in a step is computed token by token: that takes 1.5 us a
/// row on an H200, a chunk 23 us.
pub(super) const SHORT: usize = 12;

/// Runs that one launch takes.
const MOST_RUNS: usize = 32;

/// Chunks whose operands are held at once, at most: 4096 tokens.
const MOST_TILES: usize = 64;

/// Consecutive rows of one sequence, as kernels take them: chunks start at its first row.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    first_row: i32,
    rows: i32,
    /// Rows of the same sequence that the step has before the first.
    before: i32,
    position: i32,
    slot: i32,
    /// Where its first chunk's operands lie.
    tile: i32,
}

/// As many runs as the scratch has tiles for: one round of launches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panel {
    /// What kernels take by value; [`Panel::count`] are in use.
    pub(crate) runs: [Run; MOST_RUNS],
    pub(crate) count: usize,
    /// Rows of the longest run.
    pub(crate) most_rows: usize,
    tiles: usize,
}

impl Panel {
    fn new() -> Self {
        Self { runs: [Run::default(); MOST_RUNS], count: 0, most_rows: 0, tiles: 0 }
    }

    /// Chunks of the longest run.
    pub(crate) fn most_chunks(&self) -> usize {
        self.most_rows.div_ceil(CHUNK)
    }

    fn push(&mut self, sequence: &SequenceRows, done: usize, rows: usize) {
        self.runs[self.count] = Run {
            first_row: (sequence.first_row + done) as i32,
            rows: rows as i32,
            before: done as i32,
            position: (sequence.start + done) as i32,
            slot: sequence.slot as i32,
            tile: self.tiles as i32,
        };
        self.count += 1;
        self.tiles += rows.div_ceil(CHUNK);
        self.most_rows = self.most_rows.max(rows);
    }
}

/// Tiles that a step of `rows` rows can need at once.
pub(super) fn tiles(rows: usize) -> usize {
    // Each long sequence may end in the middle of a chunk.
    (rows.div_ceil(CHUNK) + rows / (SHORT + 1)).min(MOST_TILES)
}

/// The long sequences of a step, cut so that each panel's chunks fit `tiles` tiles. A sequence's
/// rows stay in order from panel to panel, for each starts from the state that the one before left.
pub(super) fn panels(sequences: &[SequenceRows], tiles: usize) -> Vec<Panel> {
    let mut panels = Vec::new();
    let mut panel = Panel::new();
    for sequence in sequences.iter().filter(|sequence| sequence.rows > SHORT) {
        let mut done = 0;
        while done < sequence.rows {
            if panel.tiles == tiles || panel.count == MOST_RUNS {
                panels.push(std::mem::replace(&mut panel, Panel::new()));
            }
            let rows = (sequence.rows - done).min((tiles - panel.tiles) * CHUNK);
            panel.push(sequence, done, rows);
            done += rows;
        }
    }
    if panel.count > 0 {
        panels.push(panel);
    }
    panels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(rows: &[usize]) -> Vec<SequenceRows> {
        let mut first_row = 0;
        let sequence = |(slot, &rows): (usize, &usize)| {
            let sequence =
                SequenceRows { first_row, rows, start: 100 * slot, blocks: Vec::new(), slot };
            first_row += rows;
            sequence
        };
        rows.iter().enumerate().map(sequence).collect()
    }

    #[test]
    fn short_sequences_are_left_out() {
        assert_eq!(panels(&sequences(&[1, 12, 5]), 8), []);
        let panels = panels(&sequences(&[1, 17, 5]), 8);
        assert_eq!((panels.len(), panels[0].count, panels[0].most_chunks()), (1, 1, 1));
        let run = Run { first_row: 1, rows: 17, before: 0, position: 100, slot: 1, tile: 0 };
        assert_eq!(panels[0].runs[0], run);
    }

    #[test]
    fn a_long_sequence_is_cut_at_chunks() {
        let panels = panels(&sequences(&[100, 300]), 4);
        let runs: Vec<_> = panels.iter().flat_map(|panel| &panel.runs[..panel.count]).collect();
        let cut: Vec<_> =
            runs.iter().map(|run| (run.first_row, run.rows, run.before, run.tile)).collect();
        assert_eq!(cut, [(0, 100, 0, 0), (100, 128, 0, 2), (228, 172, 128, 0)]);
        assert_eq!(runs[2].position, 100 + 128);
    }

    /// Every row is computed once, whatever the step, and no tile is used twice.
    #[test]
    fn panels_cover_every_long_row() {
        for rows in [&[17; 70][..], &[4096], &[4097, 17, 1, 64, 900], &[12, 65, 2]] {
            let sequences = sequences(rows);
            let tiles = tiles(rows.iter().sum());
            let mut seen = vec![0; rows.iter().sum()];
            for panel in panels(&sequences, tiles) {
                let mut next = 0;
                for run in &panel.runs[..panel.count] {
                    assert_eq!(run.tile, next);
                    next += (run.rows as usize).div_ceil(CHUNK) as i32;
                    let first = run.first_row as usize;
                    seen[first..first + run.rows as usize].iter_mut().for_each(|row| *row += 1);
                }
                assert!(next as usize <= tiles, "{next} of {tiles}");
            }
            for sequence in &sequences {
                let want = usize::from(sequence.rows > SHORT);
                let own = sequence.first_row..sequence.first_row + sequence.rows;
                assert!(seen[own].iter().all(|count| *count == want), "{sequence:?}");
            }
        }
    }
}
