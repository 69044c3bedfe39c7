//! The scheduler's calls other than `schedule` and `commit`, and the few moves by which a sequence changes
//! phase. Each move keeps blocks, images and queues in agreement.

use std::collections::VecDeque;

use crate::admission;
use crate::blocks::BlockPool;
use crate::images::{ImageCache, ImageLimits};
use crate::plan::{Event, Stats};
use crate::sequence::{Arrival, Phase, Sequence};
use crate::sequences::{Sequences, Slot};
use crate::types::{AddError, Config, ConfigError, ImageKey, NewSequence, SequenceId};

/// Decides what each step computes. See the crate documentation.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: Config,
    pub(crate) blocks: BlockPool,
    pub(crate) images: ImageCache,
    pub(crate) sequences: Sequences,
    pub(crate) in_flight: VecDeque<InFlight>,
    pub(crate) next_step: u64,
    next_arrival: Arrival,
    pub(crate) sequences_to_forget: Vec<SequenceId>,
    pub(crate) counters: Counters,
}

/// What `commit` must know of a plan.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    pub(crate) step: u64,
    pub(crate) rows: Vec<FlightRow>,
    pub(crate) encoded: Vec<ImageKey>,
    pub(crate) forgotten: Vec<ImageKey>,
}

#[derive(Debug)]
pub(crate) struct FlightRow {
    pub(crate) slot: Slot,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) sample: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) prefix_hit_tokens: u64,
    pub(crate) preemptions: u64,
    pub(crate) image_hits: u64,
    pub(crate) image_misses: u64,
}

impl Scheduler {
    /// A scheduler for an empty shard.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let limits = ImageLimits {
            capacity: config.embedding_cache_tokens,
            max_pending_tokens: config.max_pending_upload_tokens,
            world_size: config.world_size,
        };
        Ok(Self {
            blocks: BlockPool::new(config.num_blocks),
            images: ImageCache::new(&limits),
            sequences: Sequences::default(),
            in_flight: VecDeque::new(),
            next_step: 0,
            next_arrival: 0,
            sequences_to_forget: Vec::new(),
            counters: Counters::default(),
            config,
        })
    }

    // --- Sequences ------------------------------------------------------------------------------------------

    /// Queues a sequence behind those added before. What it needs of images is wanted from now on, except
    /// what a cached prefix makes unnecessary.
    pub fn add(&mut self, new: NewSequence) -> Result<(), AddError> {
        if self.sequences.find(new.id).is_some() {
            return Err(AddError::Duplicate(new.id));
        }
        admission::check(&new, &self.config, &self.images)?;
        let slot = self.sequences.insert(Sequence::new(new, self.next_arrival));
        self.next_arrival += 1;
        self.expect_prefix(slot);
        Ok(())
    }

    /// Ends a sequence without an event. Its blocks are free as soon as no uncommitted step uses them. Does
    /// nothing if the sequence is unknown or has ended.
    pub fn abort(&mut self, id: SequenceId) {
        match self.sequences.find(id) {
            Some(slot) if self.sequences[slot].phase != Phase::Over => self.end(slot),
            _ => {}
        }
    }

    /// Tokens the sequence found in the prefix cache when it started first. `None` before its first row and
    /// after its end: ask for the `new_sequences` of a plan when `schedule` returns it.
    pub fn cached_tokens(&self, id: SequenceId) -> Option<u32> {
        self.sequences.find(id).and_then(|slot| self.sequences[slot].cached_tokens)
    }

    /// The shard's process is gone with its blocks, pixels and embeddings. Sequences that had started are
    /// [`Event::Lost`]; the others wait, and their images are wanted again. Steps count from 0 again.
    ///
    /// Results, and outcomes of uploads, that belong to the old process must not be reported afterwards.
    pub fn lose_shard(&mut self) -> Vec<Event> {
        self.in_flight.clear();
        self.next_step = 0;
        let mut started = self.sequences.all();
        started.retain(|slot| self.sequences[*slot].introduced);
        let events = started.into_iter().filter_map(|slot| self.lose(slot)).collect();
        self.sequences_to_forget.clear();
        self.blocks = BlockPool::new(self.config.num_blocks);
        self.images.lose_shard();
        events
    }

    fn lose(&mut self, slot: Slot) -> Option<Event> {
        let sequence = &mut self.sequences[slot];
        sequence.steps_in_flight = 0;
        let (id, was_over) = (sequence.id, sequence.phase == Phase::Over);
        self.end(slot);
        (!was_over).then_some(Event::Lost { sequence: id })
    }

    // --- Images ---------------------------------------------------------------------------------------------

    /// Images whose pixels are to be sent now, each with the only rank that gets them. Ranks take turns.
    /// Every one must be answered by [`Scheduler::image_ready`] or [`Scheduler::image_failed`].
    ///
    /// What the oldest sequence waits for goes first, then images of older sequences before those of younger, up
    /// to `max_pending_upload_tokens` that are not yet encoded. What the oldest waits for also goes beyond that limit,
    /// when no other upload is on its way and what went beyond it before is used, or waits to be used together with it:
    /// else pixels that are there too early could keep out those that are needed first. Ask after every other call:
    /// each may change the answer.
    pub fn take_uploads(&mut self) -> Vec<(ImageKey, u32)> {
        self.images.take_uploads(self.urgent_image(), &self.oldest_unit())
    }

    /// What the oldest sequence waits for.
    pub(crate) fn urgent_image(&self) -> Option<ImageKey> {
        self.sequences.oldest().and_then(|(_, slot)| self.sequences[slot].waits_for)
    }

    /// The images the oldest sequence needs at once to get on.
    pub(crate) fn oldest_unit(&self) -> Vec<ImageKey> {
        let oldest = self.sequences.oldest().map(|(_, slot)| &self.sequences[slot]);
        let unit = oldest.and_then(|sequence| Some((sequence, sequence.next_unit(sequence.needs_after)?)));
        unit.map(|(sequence, tokens)| sequence.images_in(tokens)).unwrap_or_default()
    }

    /// The pixels of an image taken from [`Scheduler::take_uploads`] are on the shard.
    pub fn image_ready(&mut self, key: ImageKey) {
        for (_, slot) in self.images.ready(key) {
            self.sequences[slot].waits_for = None;
            self.resume(slot);
        }
    }

    /// The pixels of an image taken from [`Scheduler::take_uploads`] cannot be sent, and the shard holds
    /// nothing of them. Every sequence that needs them ends with [`Event::ImageFailed`].
    pub fn image_failed(&mut self, key: ImageKey) -> Vec<Event> {
        if !self.images.upload_failed(key) {
            return Vec::new();
        }
        let needs_it = |slot: &Slot| self.sequences[*slot].needs(key);
        let users: Vec<Slot> = self.sequences.all().into_iter().filter(needs_it).collect();
        users.into_iter().map(|slot| self.fail_image(slot)).collect()
    }

    fn fail_image(&mut self, slot: Slot) -> Event {
        let sequence = self.sequences[slot].id;
        self.end(slot);
        Event::ImageFailed { sequence }
    }

    // --- Counters -------------------------------------------------------------------------------------------

    /// Costs the same whatever is queued.
    pub fn stats(&self) -> Stats {
        let count = |phases: &[Phase]| phases.iter().map(|phase| self.sequences.count(*phase)).sum();
        Stats {
            waiting: count(&[Phase::Waiting, Phase::Parked]),
            running: count(&[Phase::Stalled, Phase::Prefilling, Phase::Decoding, Phase::Exhausted, Phase::Draining]),
            waiting_for_images: count(&[Phase::Parked, Phase::Stalled]),
            queued_prompt_tokens: self.sequences.queued_tokens(),
            blocks_total: self.blocks.num_total(),
            blocks_free: self.blocks.num_free(),
            blocks_cached: self.blocks.num_cached(),
            prefix_hit_tokens: self.counters.prefix_hit_tokens,
            embedding_tokens: self.images.resident_tokens(),
            pending_upload_tokens: self.images.pending_tokens(),
            preemptions: self.counters.preemptions,
            image_hits: self.counters.image_hits,
            image_misses: self.counters.image_misses,
        }
    }

    // --- Moves ----------------------------------------------------------------------------------------------

    /// The sequence goes on with known tokens: computes them if it holds blocks, else waits for its turn.
    fn resume(&mut self, slot: Slot) {
        let phase = match self.sequences[slot].phase {
            Phase::Stalled => Phase::Prefilling,
            _ => Phase::Waiting,
        };
        self.sequences.set_phase(slot, phase);
    }

    /// The sequence does nothing until the image's pixels have arrived.
    pub(crate) fn park(&mut self, slot: Slot, key: ImageKey) {
        let phase = if self.sequences[slot].table.is_empty() { Phase::Parked } else { Phase::Stalled };
        self.sequences.set_phase(slot, phase);
        self.sequences[slot].waits_for = Some(key);
        self.images.wait(key, self.sequences.ticket(slot));
    }

    fn stop_waiting(&mut self, slot: Slot) {
        if let Some(key) = self.sequences[slot].waits_for.take() {
            self.images.stop_waiting(key, self.sequences.ticket(slot));
        }
    }

    /// The sequence gives its blocks up and starts over later, with all tokens it has by then.
    pub(crate) fn preempt(&mut self, slot: Slot) {
        self.counters.preemptions += 1;
        self.stop_waiting(slot);
        self.set_inside(slot, None);
        match self.sequences[slot].steps_in_flight {
            0 => self.requeue(slot),
            _ => self.sequences.set_phase(slot, Phase::Draining),
        }
    }

    /// Ends a preemption: no uncommitted step uses the blocks.
    pub(crate) fn requeue(&mut self, slot: Slot) {
        self.release_blocks(slot);
        self.sequences[slot].restart();
        self.sequences.set_phase(slot, Phase::Waiting);
        self.expect_prefix(slot);
    }

    /// The sequence takes part in nothing any more. It is removed when no uncommitted step uses its blocks.
    pub(crate) fn end(&mut self, slot: Slot) {
        self.leave_images(slot);
        match self.sequences[slot].steps_in_flight {
            0 => self.remove(slot),
            _ => self.sequences.set_phase(slot, Phase::Over),
        }
    }

    pub(crate) fn leave_images(&mut self, slot: Slot) {
        self.stop_waiting(slot);
        self.set_inside(slot, None);
        self.set_needs(slot, u32::MAX);
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        self.release_blocks(slot);
        if self.sequences[slot].introduced {
            self.sequences_to_forget.push(self.sequences[slot].id);
        }
        self.sequences.remove(slot);
    }

    /// Last block first: a prefix is of use without what follows it, but not the other way round.
    fn release_blocks(&mut self, slot: Slot) {
        let table = std::mem::take(&mut self.sequences[slot].table);
        for block in table.into_iter().rev() {
            self.blocks.release(block);
        }
    }

    // --- What a sequence needs of images --------------------------------------------------------------------

    /// Images that end within the first `computed` tokens are not needed, all others are.
    pub(crate) fn set_needs(&mut self, slot: Slot, computed: u32) {
        let sequence = &mut self.sequences[slot];
        sequence.needs_after = computed;
        let first_needed = sequence.first_needed_after(computed);
        let before = std::mem::replace(&mut sequence.first_needed, first_needed);
        for image in &sequence.images[first_needed.min(before)..before] {
            self.images.want(image.key, image.num_tokens, sequence.arrival);
        }
        for image in &sequence.images[before.min(first_needed)..first_needed] {
            self.images.unwant(image.key);
        }
    }

    /// Wants the images a waiting sequence will need if the prefix cache stays as it is, and parks it until the next
    /// one is there. What it really needs is known when it starts.
    fn expect_prefix(&mut self, slot: Slot) {
        if self.sequences[slot].images.is_empty() {
            return;
        }
        let cached = self.match_prefix(slot) as u32 * self.config.block_size;
        self.set_needs(slot, cached);
        if let Some(key) = self.missing_image(slot, cached) {
            self.park(slot, key);
        }
    }

    /// The next image behind the first `computed` tokens, or one that is used together with it, if the shard has
    /// neither pixels nor embedding of it.
    pub(crate) fn missing_image(&self, slot: Slot, computed: u32) -> Option<ImageKey> {
        let sequence = &self.sequences[slot];
        let unit = sequence.images_in(sequence.next_unit(computed)?);
        unit.into_iter().find(|key| !self.images.is_at_hand(*key))
    }

    pub(crate) fn set_inside(&mut self, slot: Slot, inside: Option<ImageKey>) {
        let before = std::mem::replace(&mut self.sequences[slot].inside, inside);
        if before == inside {
            return;
        }
        if let Some(key) = before {
            self.images.leave(key);
        }
        if let Some(key) = inside {
            self.images.enter(key);
        }
    }

    /// Leading blocks of the sequence that the prefix cache holds. They never end inside a range of `both_ways`.
    pub(crate) fn match_prefix(&mut self, slot: Slot) -> usize {
        if !self.config.prefix_caching {
            return 0;
        }
        let block_size = self.config.block_size;
        let sequence = &mut self.sequences[slot];
        let most = sequence.max_cached_blocks(block_size);
        let is_cached = |block: &usize| self.blocks.find(&sequence.hash(*block, block_size)).is_some();
        let mut matched = (0..most).take_while(is_cached).count();
        sequence.last_match = Some(matched);
        while let Some(cut) = sequence.range_around(matched as u32 * block_size) {
            matched = (cut.start / block_size) as usize;
        }
        matched
    }
}
