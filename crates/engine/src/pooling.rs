//! From hidden states, step by step, to the embedding of a prompt.

use crate::contract::Pooling;

/// What has been pooled of a prompt so far.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pooling: Pooling,
    /// `[hidden]`; empty before the first row.
    sum: Vec<f32>,
    /// Tokens in it, which are the first ones of the prompt.
    count: u32,
}

impl Pool {
    pub(crate) fn new(pooling: Pooling) -> Self {
        Self { pooling, sum: Vec::new(), count: 0 }
    }

    /// Takes the rows of one step, `[rows, hidden]`, of which the first is that of token `start`.
    ///
    /// A request that was preempted computes some of its tokens again: they count once.
    pub(crate) fn take(&mut self, start: u32, rows: &[f32], hidden: usize) {
        if self.pooling == Pooling::Last {
            self.sum = rows[rows.len() - hidden..].to_vec();
            self.count = 1;
            return;
        }
        self.sum.resize(hidden, 0.0);
        for row in rows.chunks_exact(hidden).skip(self.count.saturating_sub(start) as usize) {
            self.sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            self.count += 1;
        }
    }

    /// The embedding, once all rows are in.
    pub(crate) fn values(&self) -> Vec<f32> {
        let scale = 1.0 / self.count.max(1) as f32;
        self.sum.iter().map(|value| value * scale).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_count_once_in_whatever_pieces_they_come() {
        let rows: [f32; 8] = [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 6.0, 60.0];
        let mut mean = Pool::new(Pooling::Mean);
        mean.take(0, &rows[..4], 2);
        // Preempted, and begun again behind what was kept of it.
        mean.take(1, &rows[2..6], 2);
        mean.take(3, &rows[6..], 2);
        assert_eq!(mean.values(), [3.0, 30.0]);
        let mut last = Pool::new(Pooling::Last);
        last.take(0, &rows[..6], 2);
        last.take(3, &rows[6..], 2);
        assert_eq!(last.values(), [6.0, 60.0]);
    }
}
