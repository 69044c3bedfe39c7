//! The plan being made, the budgets of its step, and the rows that go into it.

use crate::plan::{Row, RowTokens, StepPlan};
use crate::scheduler::{FlightRow, Scheduler};
use crate::sequence::Phase;
use crate::sequences::Slot;
use crate::types::Config;

/// The plan being made and what is left of its budgets.
pub(crate) struct Draft {
    pub(crate) plan: StepPlan,
    pub(crate) rows: Vec<FlightRow>,
    pub(crate) tokens_left: u32,
    pub(crate) max_rows: usize,
    pub(crate) image_tokens: u32,
    /// Prompts that could not advance in this step, oldest first within each phase.
    pub(crate) skipped: Vec<Slot>,
    /// How many of `skipped` somebody was served after.
    pub(crate) num_overtaken: usize,
    pub(crate) any_prompt: bool,
    /// Blocks that come free when the steps in flight are committed, once somebody asked.
    pub(crate) expected_blocks: Option<usize>,
    /// Blocks of those that sequences skipped in this step wait for.
    pub(crate) claimed_blocks: usize,
}

impl Draft {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            plan: StepPlan::default(),
            rows: Vec::new(),
            tokens_left: config.max_step_tokens,
            max_rows: config.max_rows.min(config.max_step_tokens) as usize,
            image_tokens: 0,
            skipped: Vec::new(),
            num_overtaken: 0,
            any_prompt: false,
            expected_blocks: None,
            claimed_blocks: 0,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.tokens_left == 0 || self.rows.len() >= self.max_rows
    }

    /// The first prompt of a step may take what others are in the middle of, so that there is always one
    /// that gets on.
    pub(crate) fn is_first_prompt(&self) -> bool {
        !self.any_prompt && self.skipped.is_empty()
    }
}

impl Scheduler {
    /// Adds a row that computes the sequence up to `end`. The blocks must be available.
    pub(crate) fn push_row(&mut self, slot: Slot, end: u32, reset_blocks: bool, draft: &mut Draft) {
        let new_blocks = self.extend_table(slot, end, reset_blocks);
        let row_index = draft.plan.rows.len() as u32;
        let sequence = &mut self.sequences[slot];
        let tokens = sequence.computed..end;
        let token_ids = match sequence.phase {
            Phase::Decoding => RowTokens::Sampled,
            _ => RowTokens::Ids(sequence.tokens[tokens.start as usize..tokens.end as usize].to_vec()),
        };
        let sample = end == sequence.len() + sequence.samples_in_flight;
        let score = sequence.plan_scores(tokens.clone());
        draft.plan.spans.extend(sequence.spans(tokens.clone(), row_index));
        draft.plan.rows.push(Row {
            sequence: sequence.id,
            start: tokens.start,
            num_tokens: end - tokens.start,
            token_ids,
            positions: sequence.row_positions(tokens.clone()),
            both_ways: sequence.ranges_in(tokens.clone()),
            sample,
            score,
            reset_blocks,
            new_blocks,
        });
        if !std::mem::replace(&mut sequence.introduced, true) {
            draft.plan.new_sequences.push(sequence.id);
        }
        draft.rows.push(FlightRow { slot, start: tokens.start, end, sample });
        draft.tokens_left -= end - tokens.start;
        self.advance(slot, end, sample);
    }

    fn extend_table(&mut self, slot: Slot, end: u32, from_start: bool) -> Vec<u32> {
        let missing = self.blocks_of(end).saturating_sub(self.sequences[slot].table.len());
        let added: Vec<u32> = std::iter::from_fn(|| self.blocks.take()).take(missing).collect();
        let table = &mut self.sequences[slot].table;
        table.extend_from_slice(&added);
        if from_start { table.clone() } else { added }
    }

    fn advance(&mut self, slot: Slot, end: u32, sample: bool) {
        let sequence = &mut self.sequences[slot];
        sequence.computed = end;
        sequence.steps_in_flight += 1;
        sequence.samples_in_flight += u32::from(sample);
        let phase = match sample {
            true if sequence.is_exhausted() => Phase::Exhausted,
            true => Phase::Decoding,
            false => Phase::Prefilling,
        };
        if !sequence.images.is_empty() && sequence.phase != Phase::Decoding {
            let inside = sequence.placeholder_around(end).map(|placeholder| placeholder.image);
            self.set_needs(slot, end);
            self.set_inside(slot, inside);
        }
        self.sequences.set_phase(slot, phase);
    }
}
