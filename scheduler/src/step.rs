//! `schedule`: which tokens the next step computes. Decode rows come first, then prompts, oldest first.

use crate::MAX_STEPS_IN_FLIGHT;
use crate::draft::Draft;
use crate::plan::StepPlan;
use crate::reach::Cut;
use crate::scheduler::{InFlight, Scheduler};
use crate::sequence::Phase;
use crate::sequences::{Slot, Ticket};

/// Prompts that may be skipped in a step before it looks no further. Bounds the cost of a step.
const MAX_SKIPPED: usize = 8;

/// Steps in which younger prompts may advance past one that does not fit. After that it is a barrier: no
/// younger prompt advances before it does.
const MAX_TIMES_OVERTAKEN: u32 = 16;

enum Outcome {
    Served,
    Skipped,
    Parked,
}

impl Scheduler {
    /// The next plan, to be sent to the shard at once. `None` when two plans are uncommitted or nothing can be
    /// done until one is committed, a sequence is added or pixels arrive.
    pub fn schedule(&mut self) -> Option<StepPlan> {
        if self.in_flight.len() >= MAX_STEPS_IN_FLIGHT {
            return None;
        }
        self.begin_plan();
        let mut draft = Draft::new(&self.config);
        self.plan_decodes(&mut draft);
        self.plan_prompts(&mut draft);
        self.count_overtaken(&draft);
        self.finish_plan(draft)
    }

    /// What the oldest started sequence has got of the images it needs at once must still be there when it has got the
    /// rest. One that has not started waits for blocks of others, and those may need the place to come to their end.
    fn begin_plan(&mut self) {
        self.images.begin_plan();
        if self.sequences.oldest().is_some_and(|(_, slot)| !self.sequences[slot].table.is_empty()) {
            self.images.keep(&self.oldest_unit());
        }
    }

    fn finish_plan(&mut self, mut draft: Draft) -> Option<StepPlan> {
        if let Some(key) = self.urgent_image() {
            self.images.make_way_for(key, &self.oldest_unit());
        }
        let must_forget = !self.sequences_to_forget.is_empty() || self.images.has_forgets();
        if draft.rows.is_empty() && !(must_forget && self.in_flight.is_empty()) {
            return None;
        }
        draft.plan.step = self.next_step;
        draft.plan.forget_sequences = std::mem::take(&mut self.sequences_to_forget);
        draft.plan.forget_images = self.images.take_forgets();
        self.next_step += 1;
        self.in_flight.push_back(InFlight {
            step: draft.plan.step,
            rows: draft.rows,
            encoded: draft.plan.encode_images.iter().map(|(key, _)| *key).collect(),
            forgotten: draft.plan.forget_images.clone(),
        });
        Some(draft.plan)
    }

    // --- Decode rows ----------------------------------------------------------------------------------------

    fn plan_decodes(&mut self, draft: &mut Draft) {
        let decoding = self.sequences.snapshot(Phase::Decoding);
        draft.plan.rows.reserve(decoding.len());
        draft.rows.reserve(decoding.len());
        for slot in decoding {
            if draft.is_full() {
                break;
            }
            // An older one may have preempted it a moment ago.
            if self.sequences[slot].phase == Phase::Decoding {
                self.plan_decode(slot, draft);
            }
        }
    }

    fn plan_decode(&mut self, slot: Slot, draft: &mut Draft) {
        let end = self.sequences[slot].computed + 1;
        if self.reachable(slot, end, draft) == end {
            self.push_row(slot, end, false, draft);
        }
    }

    // --- Prompt chunks --------------------------------------------------------------------------------------

    fn plan_prompts(&mut self, draft: &mut Draft) {
        for slot in self.sequences.snapshot(Phase::Prefilling) {
            let may_go_on = self.sequences[slot].phase != Phase::Prefilling || self.plan_prompt(slot, draft);
            if !may_go_on {
                return;
            }
        }
        let mut last: Option<Ticket> = None;
        while let Some(ticket) = self.sequences.next_younger(Phase::Waiting, last) {
            if self.num_active() >= draft.max_rows || !self.plan_prompt(ticket.1, draft) {
                return;
            }
            last = Some(ticket);
        }
    }

    fn num_active(&self) -> usize {
        self.sequences.count(Phase::Decoding) + self.sequences.count(Phase::Prefilling)
    }

    /// Advances one prompt if it can be. Says whether younger ones may be looked at.
    fn plan_prompt(&mut self, slot: Slot, draft: &mut Draft) -> bool {
        if draft.is_full() || draft.skipped.len() >= MAX_SKIPPED {
            return false;
        }
        let outcome = match self.sequences[slot].phase {
            Phase::Prefilling => self.plan_chunk(slot, draft),
            _ => self.plan_start(slot, draft),
        };
        match outcome {
            Outcome::Served => {
                draft.any_prompt = true;
                draft.num_overtaken = draft.skipped.len();
                self.sequences[slot].times_overtaken = 0;
            }
            Outcome::Skipped => draft.skipped.push(slot),
            Outcome::Parked => {}
        }
        !matches!(outcome, Outcome::Skipped) || self.sequences[slot].times_overtaken < MAX_TIMES_OVERTAKEN
    }

    fn count_overtaken(&mut self, draft: &Draft) {
        for slot in &draft.skipped[..draft.num_overtaken] {
            self.sequences[*slot].times_overtaken += 1;
        }
    }

    /// The next chunk of a prompt that has started.
    fn plan_chunk(&mut self, slot: Slot, draft: &mut Draft) -> Outcome {
        let sequence = &self.sequences[slot];
        let start = sequence.computed;
        let end = sequence.len().min(start.saturating_add(draft.tokens_left));
        let end = self.reachable(slot, end, draft);
        if end == start {
            return Outcome::Skipped;
        }
        let (end, cut) = self.reach_images(slot, start..end, draft);
        match cut {
            _ if end > start => {
                self.push_row(slot, end, false, draft);
                Outcome::Served
            }
            Cut::Pixels(key) => {
                self.park(slot, key);
                Outcome::Parked
            }
            _ => Outcome::Skipped,
        }
    }

    /// The first chunk of a prompt, behind what the prefix cache has of it. It starts only when the pixels of the
    /// next image are there: it would hold blocks without getting on, and a row for the text before the image
    /// costs more than it gains.
    fn plan_start(&mut self, slot: Slot, draft: &mut Draft) -> Outcome {
        let reserve = self.num_active() + self.promised_blocks();
        if self.is_too_large(slot, reserve) {
            return Outcome::Skipped;
        }
        let num_cached = self.match_prefix(slot);
        let start = num_cached as u32 * self.config.block_size;
        self.set_needs(slot, start);
        if let Some(key) = self.missing_image(slot, start) {
            self.park(slot, key);
            return Outcome::Parked;
        }
        if !self.has_room(slot, num_cached, reserve, draft) {
            return Outcome::Skipped;
        }
        let end = self.sequences[slot].len().min(start.saturating_add(draft.tokens_left));
        let (end, _) = self.reach_images(slot, start..end, draft);
        if end == start {
            return Outcome::Skipped;
        }
        self.start(slot, num_cached);
        self.push_row(slot, end, true, draft);
        Outcome::Served
    }

    /// Takes the cached blocks over.
    fn start(&mut self, slot: Slot, num_cached: usize) {
        let cached = self.cached_blocks(slot, num_cached);
        let sequence = &mut self.sequences[slot];
        for block in &cached {
            self.blocks.share(*block);
        }
        sequence.computed = num_cached as u32 * self.config.block_size;
        sequence.num_published = num_cached;
        sequence.table = cached;
        sequence.cached_tokens.get_or_insert(sequence.computed);
        self.counters.prefix_hit_tokens += u64::from(sequence.computed);
    }
}
