//! KV blocks: who holds each, and which are free.

/// Block numbers `0..total`. A block may be held by several requests that share a prefix, and kept
/// by the prefix cache; it is free when neither is the case.
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<u32>,
    /// Blocks that at least one request holds.
    held: u32,
    /// Blocks that the prefix cache keeps.
    kept: u32,
}

#[derive(Clone, Copy, Default)]
struct Block {
    holders: u32,
    kept: u32,
}

impl BlockPool {
    pub(crate) fn new(total: u32) -> Self {
        // Reversed, so that low numbers are handed out first and tables read well in a log.
        let free = (0..total).rev().collect();
        Self { blocks: vec![Block::default(); total as usize], free, held: 0, kept: 0 }
    }

    /// Blocks that nobody holds and nothing keeps.
    pub(crate) fn free(&self) -> u32 {
        self.free.len() as u32
    }

    /// Blocks that no request holds: free now, or once the cache lets go of them.
    pub(crate) fn available(&self) -> u32 {
        self.blocks.len() as u32 - self.held
    }

    /// Blocks that the prefix cache keeps, whether requests hold them or not.
    pub(crate) fn kept(&self) -> u32 {
        self.kept
    }

    pub(crate) fn is_held(&self, block: u32) -> bool {
        self.blocks[block as usize].holders > 0
    }

    /// A free block, held by the caller. Only called when there is one.
    pub(crate) fn take(&mut self) -> u32 {
        let block = self.free.pop().expect("the caller has made room");
        self.hold_unlisted(block);
        block
    }

    /// One more holder of a block that the cache keeps.
    pub(crate) fn hold(&mut self, block: u32) {
        assert!(self.blocks[block as usize].kept > 0, "only kept blocks are shared");
        self.hold_unlisted(block);
    }

    pub(crate) fn let_go(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.holders = entry.holders.checked_sub(1).expect("a block was given back twice");
        if entry.holders == 0 {
            self.held -= 1;
            self.list_if_free(block);
        }
    }

    /// The cache keeps the block, once more.
    pub(crate) fn keep(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.kept += 1;
        self.kept += u32::from(entry.kept == 1);
    }

    /// The cache lets go of the block, once.
    pub(crate) fn drop_kept(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.kept = entry.kept.checked_sub(1).expect("the cache dropped a block twice");
        self.kept -= u32::from(entry.kept == 0);
        self.list_if_free(block);
    }

    fn hold_unlisted(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.holders += 1;
        if entry.holders == 1 {
            self.held += 1;
        }
    }

    fn list_if_free(&mut self, block: u32) {
        let entry = self.blocks[block as usize];
        if entry.holders == 0 && entry.kept == 0 {
            self.free.push(block);
        }
    }
}
