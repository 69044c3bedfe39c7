//! The order in which cached blocks were last used: a doubly linked list inside a vector, so that a block can
//! leave it from anywhere at constant cost.

/// An extra entry behind the blocks stands for both ends, so that no link is ever missing.
#[derive(Debug)]
pub(crate) struct IdleList {
    /// `(previous, next)` of each block; the last entry holds (newest, oldest).
    links: Vec<(u32, u32)>,
    len: usize,
}

impl IdleList {
    pub(crate) fn new(num_blocks: u32) -> Self {
        Self { links: vec![(num_blocks, num_blocks); num_blocks as usize + 1], len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn ends(&self) -> u32 {
        (self.links.len() - 1) as u32
    }

    /// The block must not be in the list.
    pub(crate) fn push_newest(&mut self, block: u32) {
        let ends = self.ends();
        let newest = self.links[ends as usize].0;
        self.links[block as usize] = (newest, ends);
        self.links[newest as usize].1 = block;
        self.links[ends as usize].0 = block;
        self.len += 1;
    }

    /// The block must be in the list.
    pub(crate) fn remove(&mut self, block: u32) {
        let (previous, next) = self.links[block as usize];
        self.links[previous as usize].1 = next;
        self.links[next as usize].0 = previous;
        self.len -= 1;
    }

    pub(crate) fn pop_oldest(&mut self) -> Option<u32> {
        let oldest = self.links[self.ends() as usize].1;
        (oldest != self.ends()).then(|| {
            self.remove(oldest);
            oldest
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_first_and_removable_anywhere() {
        let mut list = IdleList::new(5);
        (0..5).for_each(|block| list.push_newest(block));
        for block in [0, 2, 4] {
            list.remove(block);
        }
        list.push_newest(0);
        assert_eq!(list.len(), 3);
        assert_eq!([(); 4].map(|()| list.pop_oldest()), [Some(1), Some(3), Some(0), None]);
        assert_eq!(list.len(), 0);
    }
}
