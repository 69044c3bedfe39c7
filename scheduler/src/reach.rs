//! How far a sequence can be computed in this step: the blocks and the images in its way.

use std::ops::Range;

use crate::draft::Draft;
use crate::scheduler::Scheduler;
use crate::sequence::Phase;
use crate::sequences::Slot;
use crate::types::ImageKey;

/// Why a chunk ends where it does.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Cut {
    /// The prompt, the step's tokens or the blocks end there.
    None,
    /// What follows, an image or a range of `both_ways`, does not fit into this step.
    Room,
    /// An image follows whose pixels are not there.
    Pixels(ImageKey),
}

impl Scheduler {
    // --- Images ---------------------------------------------------------------------------------------------

    /// How far a chunk over `tokens` gets before an image, or a range of `both_ways` that is not all in them, stops it;
    /// there must be at least one token. Images it reaches are encoded by this plan if they have to be: a reached
    /// image always has a token in the chunk.
    pub(crate) fn reach_images(&mut self, slot: Slot, tokens: Range<u32>, draft: &mut Draft) -> (u32, Cut) {
        let cut_range = self.sequences[slot].range_around(tokens.end);
        let (end, cut) = cut_range.map_or((tokens.end, Cut::None), |range| (range.start, Cut::Room));
        let mut next = tokens.start;
        while let Some(unit) = self.sequences[slot].next_unit(next).filter(|unit| unit.start < end) {
            next = unit.end;
            let start = unit.start.max(tokens.start);
            let cut = self.reach_unit(slot, unit, draft);
            if cut != Cut::None {
                return (start, cut);
            }
        }
        (end, cut)
    }

    /// Reaches all images of the tokens or none.
    fn reach_unit(&mut self, slot: Slot, unit: Range<u32>, draft: &mut Draft) -> Cut {
        let keys = self.sequences[slot].images_in(unit);
        if let Some(key) = keys.iter().find(|key| !self.images.is_at_hand(**key)) {
            return Cut::Pixels(*key);
        }
        let Some(encoded) = self.encode(&keys, draft) else { return Cut::Room };
        for key in keys {
            self.count_hit(slot, key, u64::from(!encoded.contains(&key)));
        }
        Cut::None
    }

    /// Lets the plan use these images, all of which are at hand, at once. Returns those that it encodes for that.
    fn encode(&mut self, keys: &[ImageKey], draft: &mut Draft) -> Option<Vec<ImageKey>> {
        let added = self.images.tokens_to_encode(keys);
        let in_step = draft.image_tokens.saturating_add(added);
        if added.min(draft.image_tokens) > 0 && in_step > self.config.max_step_image_tokens {
            return None;
        }
        let encoded = self.images.encode(keys, draft.is_first_prompt())?;
        draft.image_tokens = in_step;
        self.counters.image_misses += encoded.len() as u64;
        draft.plan.encode_images.extend(&encoded);
        Some(encoded.into_iter().map(|(key, _)| key).collect())
    }

    /// Counts the first time a sequence reaches an image, as `hits` hits.
    fn count_hit(&mut self, slot: Slot, key: ImageKey, hits: u64) {
        let mut images = self.sequences[slot].images.iter_mut();
        if let Some(image) = images.find(|image| image.key == key && !image.reached) {
            image.reached = true;
            self.counters.image_hits += hits;
        }
    }

    // --- Blocks ---------------------------------------------------------------------------------------------

    pub(crate) fn blocks_of(&self, tokens: u32) -> usize {
        tokens.div_ceil(self.config.block_size) as usize
    }

    /// How far up to `end` the sequence can be computed with blocks that are there. If they are short, younger
    /// sequences are preempted, so that the rest is there when what they have in flight is committed.
    pub(crate) fn reachable(&mut self, slot: Slot, end: u32, draft: &mut Draft) -> u32 {
        let missing = self.blocks_of(end).saturating_sub(self.sequences[slot].table.len());
        if missing > self.blocks.num_available() {
            self.reclaim(slot, missing, draft);
        }
        let available = self.blocks.num_available();
        draft.claimed_blocks += missing.saturating_sub(available);
        let blocks = (self.sequences[slot].table.len() + available.min(missing)) as u64;
        u64::from(end).min(blocks * u64::from(self.config.block_size)) as u32
    }

    fn reclaim(&mut self, slot: Slot, missing: usize, draft: &mut Draft) {
        while self.blocks.num_available() + self.expected_blocks(draft) < missing + draft.claimed_blocks {
            let Some(victim) = self.victim(slot) else { break };
            self.preempt_for(victim, draft);
        }
    }

    /// Whoever waits for pixels cannot use its blocks now; else the youngest goes, but none that is older.
    fn victim(&self, slot: Slot) -> Option<Slot> {
        let stalled = self.stalled_victim();
        let youngest = [Phase::Decoding, Phase::Prefilling].map(|phase| self.sequences.youngest(phase));
        let younger = youngest.into_iter().flatten().max().filter(|ticket| *ticket > self.sequences.ticket(slot));
        stalled.or(younger.map(|(_, victim)| victim))
    }

    /// The oldest sequence of all keeps what it has: that is what makes it, and then the next, come to its end.
    fn stalled_victim(&self) -> Option<Slot> {
        let youngest = self.sequences.youngest(Phase::Stalled);
        youngest.filter(|ticket| Some(*ticket) != self.sequences.oldest()).map(|(_, slot)| slot)
    }

    fn preempt_for(&mut self, victim: Slot, draft: &mut Draft) {
        let expected = self.expected_blocks(draft);
        self.preempt(victim);
        if self.sequences[victim].phase == Phase::Draining {
            draft.expected_blocks = Some(expected + self.freed_with(&[victim]));
        }
    }

    /// Blocks that are free once everything in flight is committed, apart from those that are free now.
    fn expected_blocks(&self, draft: &mut Draft) -> usize {
        let leaving = [Phase::Draining, Phase::Over, Phase::Exhausted];
        *draft.expected_blocks.get_or_insert_with(|| {
            let slots: Vec<Slot> = leaving.iter().flat_map(|phase| self.sequences.snapshot(*phase)).collect();
            self.freed_with(&slots)
        })
    }

    /// Blocks that are available once these sequences have released theirs: those nobody else uses.
    fn freed_with(&self, slots: &[Slot]) -> usize {
        let mut blocks: Vec<u32> = slots.iter().flat_map(|slot| &self.sequences[*slot].table).copied().collect();
        blocks.sort_unstable();
        blocks.chunk_by(u32::eq).filter(|uses| self.blocks.num_users(uses[0]) == uses.len()).count()
    }

    /// Blocks that prompts which have started will still take.
    pub(crate) fn promised_blocks(&self) -> usize {
        let missing = |slot: Slot| {
            let sequence = &self.sequences[slot];
            self.blocks_of(sequence.len()).saturating_sub(sequence.table.len())
        };
        self.sequences.snapshot(Phase::Prefilling).into_iter().map(missing).sum()
    }

    /// Whether a prompt surely has no room, found out at constant cost: if the first block that was not cached when
    /// it was last looked for still is not, no more can be cached than then.
    pub(crate) fn is_too_large(&mut self, slot: Slot, reserve: usize) -> bool {
        let block_size = self.config.block_size;
        let sequence = &mut self.sequences[slot];
        let mut most_cached = sequence.max_cached_blocks(block_size);
        if let Some(last_match) = sequence.last_match.filter(|last_match| *last_match < most_cached)
            && self.blocks.find(&sequence.hash(last_match, block_size)).is_none()
        {
            most_cached = last_match;
        }
        let needed = reserve + self.blocks_of(self.sequences[slot].len()) - most_cached;
        self.blocks.num_available() < needed && self.sequences.is_empty(Phase::Stalled)
    }

    /// Whether a prompt may start: all of its blocks must be there beyond `reserve`, or it would soon be
    /// preempted again. Those that wait for pixels give theirs up if that helps.
    pub(crate) fn has_room(&mut self, slot: Slot, num_cached: usize, reserve: usize, draft: &mut Draft) -> bool {
        let needed = reserve + self.start_cost(slot, num_cached);
        if self.blocks.num_available() >= needed {
            return true;
        }
        let oldest = self.sequences.oldest().map(|(_, slot)| slot);
        let mut stalled = self.sequences.snapshot(Phase::Stalled);
        stalled.retain(|slot| Some(*slot) != oldest);
        if self.blocks.num_available() + self.expected_blocks(draft) + self.freed_with(&stalled) >= needed {
            self.reclaim_stalled(needed, draft);
        }
        // Blocks found in the cache may have been the stalled one's: idle now, they count.
        self.blocks.num_available() >= reserve + self.start_cost(slot, num_cached)
    }

    fn reclaim_stalled(&mut self, needed: usize, draft: &mut Draft) {
        while self.blocks.num_available() + self.expected_blocks(draft) < needed {
            let Some(victim) = self.stalled_victim() else { break };
            self.preempt_for(victim, draft);
        }
    }

    /// Blocks a start takes from those available: new ones, and cached ones that nobody uses.
    fn start_cost(&mut self, slot: Slot, num_cached: usize) -> usize {
        let new = self.blocks_of(self.sequences[slot].len()) - num_cached;
        let cached = self.cached_blocks(slot, num_cached).into_iter();
        new + cached.filter(|block| self.blocks.num_users(*block) == 0).count()
    }

    /// The first `num_cached` blocks of a sequence, as `match_prefix` found them.
    pub(crate) fn cached_blocks(&mut self, slot: Slot, num_cached: usize) -> Vec<u32> {
        let Self { sequences, blocks, config, .. } = self;
        (0..num_cached).filter_map(|block| blocks.find(&sequences[slot].hash(block, config.block_size))).collect()
    }
}
