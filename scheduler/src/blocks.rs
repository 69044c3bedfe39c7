//! KV blocks: who uses each, which are free, and which hold a prefix that later sequences may use.
//!
//! Knows block hashes but not how they are made, and nothing of sequences or steps. A block is in exactly one
//! of three states:
//!
//! * used: `num_users > 0`; published or not;
//! * cached: no users, published; in `idle`, least recently used first;
//! * free: no users, unpublished; in `free`.

use std::hash::BuildHasherDefault;

use crate::hash::KeyMap;
use crate::idle_list::IdleList;

/// Names the content of a full block and of everything before it.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash)]
pub(crate) struct BlockHash(pub(crate) [u8; 32]);

#[derive(Clone, Default, Debug)]
struct Block {
    num_users: u32,
    published_as: Option<BlockHash>,
}

#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<u32>,
    idle: IdleList,
    by_hash: KeyMap<BlockHash, u32>,
}

impl BlockPool {
    pub(crate) fn new(num_blocks: u32) -> Self {
        Self {
            blocks: vec![Block::default(); num_blocks as usize],
            free: (0..num_blocks).rev().collect(),
            idle: IdleList::new(num_blocks),
            // Never grows: growing would move all entries within one step.
            by_hash: KeyMap::with_capacity_and_hasher(num_blocks as usize, BuildHasherDefault::default()),
        }
    }

    /// Blocks that `take` can hand out.
    pub(crate) fn num_available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    pub(crate) fn num_free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn num_cached(&self) -> usize {
        self.idle.len()
    }

    pub(crate) fn num_total(&self) -> usize {
        self.blocks.len()
    }

    /// A block for one user, to be overwritten. Free blocks go first: cached ones may still be of use.
    pub(crate) fn take(&mut self) -> Option<u32> {
        let block = self.free.pop().or_else(|| self.evict())?;
        self.blocks[block as usize].num_users = 1;
        Some(block)
    }

    fn evict(&mut self) -> Option<u32> {
        let block = self.idle.pop_oldest()?;
        if let Some(hash) = self.blocks[block as usize].published_as.take() {
            self.by_hash.remove(&hash);
        }
        Some(block)
    }

    /// The block that holds this content, if one does.
    pub(crate) fn find(&self, hash: &BlockHash) -> Option<u32> {
        self.by_hash.get(hash).copied()
    }

    /// One more user of a block that `find` returned.
    pub(crate) fn share(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.num_users += 1;
        if entry.num_users == 1 {
            self.idle.remove(block);
        }
    }

    /// One user less. The last one leaves the block cached if it is published, else free.
    pub(crate) fn release(&mut self, block: u32) {
        let entry = &mut self.blocks[block as usize];
        entry.num_users -= 1;
        match (entry.num_users, &entry.published_as) {
            (0, Some(_)) => self.idle.push_newest(block),
            (0, None) => self.free.push(block),
            _ => {}
        }
    }

    /// Lets later sequences find the block. If another block has the same content already, that one stays
    /// the one to be found.
    pub(crate) fn publish(&mut self, block: u32, hash: BlockHash) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.by_hash.entry(hash) {
            entry.insert(block);
            self.blocks[block as usize].published_as = Some(hash);
        }
    }

    /// A block is available after being released this often.
    pub(crate) fn num_users(&self, block: u32) -> usize {
        self.blocks[block as usize].num_users as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(content: u8) -> BlockHash {
        BlockHash([content; 32])
    }

    #[track_caller]
    fn check(pool: &BlockPool, free: usize, cached: usize) {
        assert_eq!((pool.num_free(), pool.num_cached()), (free, cached));
        assert_eq!(pool.num_available(), free + cached);
    }

    #[test]
    fn unpublished_block_goes_back_to_free() {
        let mut pool = BlockPool::new(2);
        let block = pool.take().unwrap();
        check(&pool, 1, 0);
        pool.release(block);
        check(&pool, 2, 0);
    }

    #[test]
    fn published_block_stays_findable_until_it_is_needed() {
        let mut pool = BlockPool::new(2);
        let block = pool.take().unwrap();
        pool.publish(block, hash(1));
        pool.release(block);
        check(&pool, 1, 1);
        pool.take().unwrap();
        assert_eq!(pool.find(&hash(1)), Some(block));
        assert_eq!(pool.take(), Some(block));
        assert_eq!(pool.find(&hash(1)), None);
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn shared_block_is_not_evicted() {
        let mut pool = BlockPool::new(1);
        let block = pool.take().unwrap();
        pool.publish(block, hash(1));
        pool.share(block);
        pool.release(block);
        assert_eq!(pool.num_users(block), 1);
        assert_eq!(pool.take(), None);
        pool.release(block);
        pool.share(block);
        check(&pool, 0, 0);
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn first_block_of_a_content_wins() {
        let mut pool = BlockPool::new(2);
        let (first, second) = (pool.take().unwrap(), pool.take().unwrap());
        pool.publish(first, hash(1));
        pool.publish(second, hash(1));
        assert_eq!(pool.find(&hash(1)), Some(first));
        pool.release(second);
        check(&pool, 1, 0);
    }

    #[test]
    fn least_recently_released_goes_first() {
        let mut pool = BlockPool::new(3);
        for content in 0..3 {
            let block = pool.take().unwrap();
            pool.publish(block, hash(content));
        }
        for content in [1, 0, 2] {
            pool.release(pool.find(&hash(content)).unwrap());
        }
        for content in [1, 0, 2] {
            assert!(pool.find(&hash(content)).is_some());
            pool.take().unwrap();
            assert_eq!(pool.find(&hash(content)), None);
        }
    }
}
