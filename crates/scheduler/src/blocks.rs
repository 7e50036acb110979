//! KV blocks: a free list of block numbers.

/// Hands out block numbers `0..total`, each to one holder.
pub(crate) struct BlockPool {
    free: Vec<u32>,
    total: u32,
}

impl BlockPool {
    pub(crate) fn new(total: u32) -> Self {
        // Reversed, so that low numbers are handed out first and tables read well in a log.
        Self { free: (0..total).rev().collect(), total }
    }

    pub(crate) fn free(&self) -> u32 {
        self.free.len() as u32
    }

    /// Moves `count` blocks to the end of `table`, or none and says false.
    pub(crate) fn take(&mut self, count: u32, table: &mut Vec<u32>) -> bool {
        let Some(rest) = self.free.len().checked_sub(count as usize) else { return false };
        table.extend(self.free.drain(rest..).rev());
        true
    }

    pub(crate) fn give_back(&mut self, table: &mut Vec<u32>) {
        self.free.extend(table.drain(..).rev());
        assert!(self.free.len() <= self.total as usize, "a block was given back twice");
    }
}
