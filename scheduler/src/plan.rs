//! What callers get out: step plans, events, counters. Values only.

use std::ops::Range;

use crate::types::{FinishReason, ImageKey, SequenceId, TokenId};

/// Everything the shard needs for one step. It acts in the order of the fields.
///
/// `rows` is empty in a plan that only forgets; such a plan is made when nothing else is in flight, and is
/// answered by an empty result like any other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StepPlan {
    /// Counts from 0, and from 0 again after [`Scheduler::lose_shard`](crate::Scheduler::lose_shard).
    pub step: u64,
    /// Sequences whose state is dropped. Each was in `new_sequences` of an earlier plan.
    pub forget_sequences: Vec<SequenceId>,
    /// Images whose pixels or embedding are dropped.
    pub forget_images: Vec<ImageKey>,
    /// Sequences that have their first row in this plan.
    pub new_sequences: Vec<SequenceId>,
    /// Images to encode, each with the rank that has its pixels.
    pub encode_images: Vec<(ImageKey, u32)>,
    /// One row for each sequence that advances: decode rows first, then prompt chunks.
    pub rows: Vec<Row>,
    /// Image tokens of the rows, in row order.
    pub spans: Vec<Span>,
}

/// The tokens of one sequence that are computed in a step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Whose tokens.
    pub sequence: SequenceId,
    /// Tokens before these, whose KV is in the blocks already or written by an earlier plan.
    pub start: u32,
    /// Tokens computed, at least 1.
    pub num_tokens: u32,
    /// Which tokens.
    pub token_ids: RowTokens,
    /// Their positions.
    pub positions: RowPositions,
    /// Ranges whose tokens also attend to those behind them in the range, counted from the row's first token. None
    /// begins before the row or ends behind it.
    pub both_ways: Vec<Range<u32>>,
    /// Whether to sample a token after the last of these.
    pub sample: bool,
    /// Whether to score the prompt's next token after each of these.
    pub score: bool,
    /// The block table starts anew with `new_blocks` (first row, or first row after a preemption).
    pub reset_blocks: bool,
    /// Blocks appended to the sequence's block table.
    pub new_blocks: Vec<u32>,
}

/// Token ids of a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RowTokens {
    /// The ids, `num_tokens` of them.
    Ids(Vec<TokenId>),
    /// The one token this sequence sampled last, which the scheduler may not know yet.
    Sampled,
}

/// Positions of a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RowPositions {
    /// They count up from `start` on every axis.
    Sequential,
    /// They count up from this value on every axis (generated tokens of a sequence with explicit positions).
    CountFrom(i32),
    /// One entry an axis, `num_tokens` positions each.
    Explicit(Vec<Vec<i32>>),
}

/// A run of image tokens, cut to a row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Span {
    /// Index into the plan's `rows`.
    pub row: u32,
    /// First token, counted from the row's first.
    pub offset: u32,
    /// Tokens.
    pub length: u32,
    /// Whose embeddings they take.
    pub image: ImageKey,
    /// Embedding the first token takes.
    pub image_offset: u32,
}

/// What happened to a sequence. After any event but a `Token` without `finish` the sequence is gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// It has one more token.
    Token {
        /// Whose.
        sequence: SequenceId,
        /// Index into [`StepResult::sampled`](crate::StepResult::sampled).
        sampled_index: usize,
        /// Set on its last token.
        finish: Option<FinishReason>,
    },
    /// The shard reported it as failed, or left its sample out of the result.
    Failed {
        /// Whose.
        sequence: SequenceId,
    },
    /// It had been started on a shard that died.
    Lost {
        /// Whose.
        sequence: SequenceId,
    },
    /// The pixels of an image it needs cannot be had.
    ImageFailed {
        /// Whose.
        sequence: SequenceId,
    },
}

/// Gauges (what is) and counters (what has been since the start).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Gauge: sequences that hold no blocks: not started, or preempted; those that wait for pixels included.
    pub waiting: usize,
    /// Gauge: sequences that hold blocks, those that only wait for their last result included.
    pub running: usize,
    /// Gauge: sequences, started or not, that cannot go on before pixels arrive.
    pub waiting_for_images: usize,
    /// Gauge: tokens the waiting sequences have to compute before they decode, cached prefixes not subtracted.
    pub queued_prompt_tokens: u64,
    /// Gauge: all KV blocks.
    pub blocks_total: usize,
    /// Gauge: blocks nobody uses and that hold nothing.
    pub blocks_free: usize,
    /// Gauge: blocks nobody uses and that hold a cached prefix; they can be taken like free ones.
    pub blocks_cached: usize,
    /// Counter: tokens that did not have to be computed.
    pub prefix_hit_tokens: u64,
    /// Gauge: image tokens whose embeddings the shard holds.
    pub embedding_tokens: u64,
    /// Gauge: image tokens whose pixels are on the shard or on their way.
    pub pending_upload_tokens: u64,
    /// Counter: times a sequence lost its blocks.
    pub preemptions: u64,
    /// Counter: images a sequence found encoded when it reached them.
    pub image_hits: u64,
    /// Counter: images encoded.
    pub image_misses: u64,
}
