//! Which tokens run in the next step. Values in, values out: no I/O, clock, thread or random number, so that any
//! run can be repeated from its calls.
//!
//! The caller adds sequences, sends the plans that [`Scheduler::schedule`] makes to the shard, and gives the results
//! back with [`Scheduler::commit`]. The scheduler owns, by number or key, all the shard's memory: KV blocks, pixels,
//! embeddings, sequence state. It knows neither tensors nor text.
//!
//! ```text
//! loop {
//!     add, abort                          whatever clients did
//!     take_uploads ─▶ send pixels         after every other call, `schedule` included: each may want pixels
//!     schedule     ─▶ send the plan       until it gives None, or two plans are uncommitted
//!     image_ready, image_failed           when an upload ends
//!     commit       ─▶ deliver the events  when a result comes
//! }
//! ```
//!
//! # A sequence's way
//!
//! ```text
//!            pixels missing            pixels missing
//!   Parked ◀─────────────▶ Waiting    Stalled ◀────▶ Prefilling ◀─▶ Decoding ──▶ Exhausted
//!                           │  ▲          │    starts    ▲  │           │   last sample planned
//!                           └──┼──────────┼──────────────┘  │           │
//!                              └─ Draining ◀────────────────┴───────────┘ preempted
//!
//!   from anywhere: ended, failed, aborted ──▶ Over ──▶ gone when no uncommitted step uses its blocks
//! ```
//!
//! # A step
//!
//! 1. Sequences that decode get one token each, oldest first.
//! 2. Prompts that have started get chunks from what is left of `max_step_tokens`, oldest first.
//! 3. Waiting prompts start, oldest first, if all of their blocks are there beyond what started prompts will still
//!    take and one block for each running sequence (else they would soon be preempted), and if the pixels of
//!    the next image are there.
//!
//! A prompt that cannot advance is skipped, and younger ones are looked at; at most eight (`MAX_SKIPPED`) are skipped in a
//! step, so its cost does not depend on how many wait. Sequences without pixels are in no queue that a step looks at.
//!
//! A chunk ends before an image that would exceed `max_step_image_tokens` (unless it is the first image of the step),
//! that finds no room in the embedding cache, and before a range of `both_ways` of which not all tokens fit. Images
//! with tokens in such a range are used at once: together they count like one image.
//!
//! # One step ahead
//!
//! A plan may be made while the one before is uncommitted. It continues every sequence as if its sample were known:
//! the row says [`RowTokens::Sampled`]. Samples in flight count towards `max_new_tokens`. If the sample turns out to
//! be an end token, the row in the later plan is surplus: its result is dropped, and blocks and shard state go when it
//! is committed. What an uncommitted plan uses is never given to anybody else.
//!
//! A result may name tokens behind a sample that can only follow it (a grammar forces them). They are taken over like
//! samples, and the next row computes all of them that no plan computes yet, as a chunk that samples at its end. A
//! sample of one of them that is already in flight is surplus.
//!
//! # Prefix cache
//!
//! A full block is named by a BLAKE3 chain over everything its KV depends on: salt, token ids, image keys with offsets,
//! explicit positions, and the same of the rest of a range of `both_ways`, because its first tokens depend on its
//! last. What is found never ends inside such a range. `commit` publishes a block once the step that
//! filled it is confirmed; from then on others may share it, and nobody writes to it. Blocks without users stay
//! cached and are taken least recently used first, the end of a prefix before its beginning. At least one token of a
//! prompt is always computed, because its logits are needed.
//!
//! # Scored prompts
//!
//! The prompt of a sequence with `score_prompt` is computed whole, whatever is cached, because what the model says after
//! each of its tokens is asked for. The rows say which of them do that ([`Row::score`]). After a preemption the cache may
//! serve what was scored already; a token that is computed again for another reason may be scored again.
//!
//! # Blocks run out
//!
//! Blocks are allocated when a row needs them. If none is left, whoever waits for pixels gives up its blocks, then
//! the youngest running sequence, but only for an older one. It keeps its tokens and its age, waits again, and starts
//! with what the prefix cache still has of it. While steps of it are in flight it only drains, and the older one is
//! skipped until the blocks are free. A sequence that finds nobody younger keeps what it has and is skipped.
//!
//! # Embeddings and pixels
//!
//! An embedding stays while sequences need tokens of it. If the cache is full, embeddings nobody needs go first, then
//! those of sequences that are not in the middle of one (they upload again); what somebody is in the middle of goes only
//! for the first prompt of a step. What the step itself uses never goes, nor what the oldest sequence, once started,
//! will use at once with pixels that are not there yet. An image larger than the cache is served alone and forgotten
//! when nobody needs it. Pixels nobody needs are forgotten. See `images` for the states.
//!
//! # Nobody starves
//!
//! Claim: if every upload ends and every plan is answered, every sequence ends after a bounded number of steps.
//! Take the oldest live sequence; by induction over age it is enough that it ends.
//!
//! * It is never preempted: a victim is younger than whom it serves, or waits for pixels and is not the oldest.
//! * Its pixels are sent first, beyond `max_pending_upload_tokens` if need be, so it does not wait for pixels
//!   that wait for others. Of images it needs at once, those that have come stay until the last is there.
//! * Once started it is the first prompt: the whole image budget is its own, and it may evict any embedding. For
//!   blocks it may preempt everyone. Decode rows of others can leave too few tokens for a range of `both_ways`, but
//!   then it is skipped, and after being overtaken in 16 steps (`MAX_TIMES_OVERTAKEN`) it is a barrier: no prompt behind it
//!   advances, so no new decode rows come, and those there are end after `max_new_tokens`.
//! * Not started, it becomes a barrier the same way. Then nobody younger starts, and what runs ends or, waiting
//!   for pixels, gives its blocks up. Alone it fits: `add` refused what does not.
//! * Decoding, it is the first to get a row and a block.
//!
//! # Invariants
//!
//! * A block is used, cached or free, and is written by one sequence only, before it is published.
//! * A plan uses what earlier plans leave on the shard, if they are executed in order.
//! * `forget_sequences` names each introduced sequence once, `forget_images` only what the shard holds.
//! * The pixels of an image are not sent while a plan that forgets it is uncommitted.
//! * With nothing live, all blocks are free or cached and the shard holds at most unused embeddings, within
//!   `embedding_cache_tokens`.
//!
//! `tests/scheduler` checks all of it against a shard that remembers what was written where.

mod admission;
mod blocks;
mod commit;
mod draft;
mod hash;
mod idle_list;
mod images;
mod plan;
mod reach;
mod scheduler;
mod sequence;
mod sequences;
mod step;
mod types;

pub use plan::{Event, Row, RowPositions, RowTokens, Span, Stats, StepPlan};
pub use scheduler::Scheduler;
pub use types::{
    AddError, Config, ConfigError, FinishReason, ImageKey, ImageSpec, NewSequence, Placeholder, Positions, SequenceId,
    StepResult, TokenId,
};

/// Plans that may be uncommitted at once: the one the shard computes and the one that waits behind it.
pub const MAX_STEPS_IN_FLIGHT: usize = 2;
