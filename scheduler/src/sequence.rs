//! One live sequence: its tokens, how far they are computed, its block table. Arithmetic over its own fields
//! only; blocks, images and queues are changed by `scheduler` and `step`.

use std::ops::Range;
use std::sync::Arc;

use crate::blocks::BlockHash;
use crate::hash::KeyMap;
use crate::plan::{RowPositions, Span};
use crate::types::{FinishReason, ImageKey, ImageSpec, NewSequence, Placeholder, Positions, SequenceId, TokenId};

/// Order of `add`. The smaller, the older; never changes, also not by a preemption.
pub(crate) type Arrival = u64;

/// Where a sequence is. Decides which queue it is in; see the picture in `lib.rs`.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Holds no blocks; starts when there is room.
    Waiting,
    /// Holds no blocks; pixels have not arrived.
    Parked,
    /// Holds blocks; pixels have not arrived.
    Stalled,
    /// Holds blocks; some of its known tokens are not computed.
    Prefilling,
    /// Holds blocks; computes the token it sampled last.
    Decoding,
    /// Holds blocks; all samples it may take are planned.
    Exhausted,
    /// Preempted; the blocks go when its last step is back.
    Draining,
    /// Ended, failed or aborted; goes when its last step is back.
    Over,
}

impl Phase {
    pub(crate) const COUNT: usize = Phase::Over as usize + 1;
}

/// An image of a sequence and the token after which it is no longer needed.
#[derive(Clone, Debug)]
pub(crate) struct ImageNeed {
    pub(crate) key: ImageKey,
    pub(crate) num_tokens: u32,
    pub(crate) last_end: u32,
    /// Whether it has been counted as a hit or a miss.
    pub(crate) reached: bool,
}

#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    pub(crate) arrival: Arrival,
    pub(crate) phase: Phase,
    /// Prompt and the generated tokens that are known.
    pub(crate) tokens: Vec<TokenId>,
    pub(crate) placeholders: Vec<Placeholder>,
    pub(crate) both_ways: Vec<Range<u32>>,
    prompt_len: u32,
    positions: Positions,
    max_new_tokens: u32,
    end_tokens: Arc<[TokenId]>,

    /// Tokens whose KV the plans made so far write.
    pub(crate) computed: u32,
    /// Leading tokens after which the plans made so far score the next one. A preemption loses none of that.
    scored: u32,
    /// Leading tokens after which the next one has to be scored.
    to_score: u32,
    /// Planned samples whose token is not known.
    pub(crate) samples_in_flight: u32,
    /// Planned samples whose token became known as one that could only follow.
    pub(crate) settled_samples: u32,
    /// Uncommitted steps with a row of this sequence.
    pub(crate) steps_in_flight: u32,

    pub(crate) table: Vec<u32>,
    /// Leading blocks of the table that are dealt with: found in the prefix cache or published.
    pub(crate) num_published: usize,
    /// Blocks the prefix cache had when it was last asked.
    pub(crate) last_match: Option<usize>,
    hashes: Vec<BlockHash>,
    root: BlockHash,

    /// Ascending by `last_end`; those from `first_needed` on are needed.
    pub(crate) images: Vec<ImageNeed>,
    pub(crate) first_needed: usize,
    /// Tokens before which it needs no image: they are computed, or expected to be in the prefix cache.
    pub(crate) needs_after: u32,
    /// The image `computed` is strictly inside of.
    pub(crate) inside: Option<ImageKey>,
    /// The image whose pixels it waits for.
    pub(crate) waits_for: Option<ImageKey>,

    /// The shard keeps state of it.
    pub(crate) introduced: bool,
    /// The shard reported it as failed: what its later rows write is of no use.
    pub(crate) failed: bool,
    /// Steps in which a younger prompt advanced although this one could not.
    pub(crate) times_overtaken: u32,
    /// Tokens found in the prefix cache when it started first.
    pub(crate) cached_tokens: Option<u32>,
}

impl Sequence {
    pub(crate) fn new(new: NewSequence, arrival: Arrival) -> Self {
        let images = image_needs(&new);
        Self {
            id: new.id,
            arrival,
            phase: Phase::Waiting,
            root: root_hash(&new),
            first_needed: images.len(),
            needs_after: 0,
            images,
            prompt_len: new.prompt.len() as u32,
            scored: 0,
            to_score: if new.score_prompt { new.prompt.len() as u32 - 1 } else { 0 },
            tokens: new.prompt,
            placeholders: new.placeholders,
            both_ways: new.both_ways,
            positions: new.positions,
            max_new_tokens: new.max_new_tokens,
            end_tokens: new.end_tokens,
            computed: 0,
            samples_in_flight: 0,
            settled_samples: 0,
            steps_in_flight: 0,
            table: Vec::new(),
            num_published: 0,
            last_match: None,
            hashes: Vec::new(),
            inside: None,
            waits_for: None,
            introduced: false,
            failed: false,
            times_overtaken: 0,
            cached_tokens: None,
        }
    }

    /// Tokens known so far.
    pub(crate) fn len(&self) -> u32 {
        self.tokens.len() as u32
    }

    fn num_generated(&self) -> u32 {
        self.len() - self.prompt_len
    }

    /// Whether the samples planned so far are all it may take.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.num_generated() + self.samples_in_flight >= self.max_new_tokens
    }

    /// Takes over a sampled token. The length is checked first: an end token in last place reports `Length`.
    pub(crate) fn push_sampled(&mut self, token: TokenId) -> Option<FinishReason> {
        self.samples_in_flight -= 1;
        self.push(token)
    }

    /// Takes over a token that can only follow; a sample of it may be in flight.
    pub(crate) fn push_forced(&mut self, token: TokenId) -> Option<FinishReason> {
        self.settled_samples += std::mem::take(&mut self.samples_in_flight);
        self.push(token)
    }

    fn push(&mut self, token: TokenId) -> Option<FinishReason> {
        self.tokens.push(token);
        if self.num_generated() >= self.max_new_tokens {
            Some(FinishReason::Length)
        } else if self.end_tokens.contains(&token) {
            Some(FinishReason::EndOfSequence)
        } else {
            None
        }
    }

    /// Forgets how far it is computed. Tokens and hashes stay true.
    pub(crate) fn restart(&mut self) {
        self.computed = 0;
        self.num_published = 0;
        self.inside = None;
    }

    /// Gives back the memory of a sequence that is gone.
    pub(crate) fn clear(&mut self) {
        self.tokens = Vec::new();
        self.placeholders = Vec::new();
        self.both_ways = Vec::new();
        self.positions = Positions::Sequential;
        self.hashes = Vec::new();
        self.images = Vec::new();
    }

    /// Index of the first image still needed once the first `computed` tokens are.
    pub(crate) fn first_needed_after(&self, computed: u32) -> usize {
        self.images.partition_point(|image| image.last_end <= computed)
    }

    pub(crate) fn needs(&self, key: ImageKey) -> bool {
        self.images.iter().skip(self.first_needed).any(|image| image.key == key)
    }

    /// Index of the first placeholder that ends behind `token`.
    pub(crate) fn placeholder_after(&self, token: u32) -> usize {
        self.placeholders.partition_point(|placeholder| placeholder.end() <= token)
    }

    /// The placeholder that `token` is in but not the first token of.
    pub(crate) fn placeholder_around(&self, token: u32) -> Option<&Placeholder> {
        self.placeholders.get(self.placeholder_after(token)).filter(|placeholder| placeholder.offset < token)
    }

    /// Index of the first range of `both_ways` that ends behind `token`.
    fn range_after(&self, token: u32) -> usize {
        self.both_ways.partition_point(|range| range.end <= token)
    }

    /// The range of `both_ways` that `token` is in but not the first token of.
    pub(crate) fn range_around(&self, token: u32) -> Option<&Range<u32>> {
        self.both_ways.get(self.range_after(token)).filter(|range| range.start < token)
    }

    /// Ranges of `both_ways` in `tokens`, which cut none, counted from the first of these.
    pub(crate) fn ranges_in(&self, tokens: Range<u32>) -> Vec<Range<u32>> {
        let inside =
            self.both_ways[self.range_after(tokens.start)..].iter().take_while(|range| range.end <= tokens.end);
        inside.map(|range| range.start - tokens.start..range.end - tokens.start).collect()
    }

    /// The tokens that are computed together with the next image behind the first `computed` tokens: the range of
    /// `both_ways` it is in, else its own run.
    pub(crate) fn next_unit(&self, computed: u32) -> Option<Range<u32>> {
        let placeholder = self.placeholders.get(self.placeholder_after(computed))?;
        let first = placeholder.offset.max(computed);
        let range = self.both_ways.get(self.range_after(first)).filter(|range| range.start <= first);
        Some(range.cloned().unwrap_or(placeholder.offset..placeholder.end()))
    }

    /// Every different image with a placeholder in `tokens`.
    pub(crate) fn images_in(&self, tokens: Range<u32>) -> Vec<ImageKey> {
        let mut keys = Vec::new();
        for span in self.spans(tokens, 0) {
            if !keys.contains(&span.image) {
                keys.push(span.image);
            }
        }
        keys
    }

    /// Placeholders cut to `tokens`, as spans of row `row`.
    pub(crate) fn spans(&self, tokens: Range<u32>, row: u32) -> impl Iterator<Item = Span> + '_ {
        let from = self.placeholder_after(tokens.start);
        let inside = self.placeholders[from..].iter().take_while(move |placeholder| placeholder.offset < tokens.end);
        inside.map(move |placeholder| {
            let start = placeholder.offset.max(tokens.start);
            Span {
                row,
                offset: start - tokens.start,
                length: placeholder.end().min(tokens.end) - start,
                image: placeholder.image,
                image_offset: placeholder.image_offset + (start - placeholder.offset),
            }
        })
    }

    /// Positions of a row over `tokens`.
    pub(crate) fn row_positions(&self, tokens: Range<u32>) -> RowPositions {
        match &self.positions {
            Positions::Sequential => RowPositions::Sequential,
            Positions::Explicit { next, .. } if tokens.start >= self.prompt_len => {
                RowPositions::CountFrom(next + (tokens.start - self.prompt_len) as i32)
            }
            Positions::Explicit { axes, next } => {
                let axis_positions = |axis: &Vec<i32>| self.axis_positions(axis, *next, tokens.clone()).collect();
                RowPositions::Explicit(axes.iter().map(axis_positions).collect())
            }
        }
    }

    fn axis_positions<'a>(&self, axis: &'a [i32], next: i32, tokens: Range<u32>) -> impl Iterator<Item = i32> + 'a {
        let prompt_len = self.prompt_len;
        tokens.map(move |token| match axis.get(token as usize) {
            Some(position) => *position,
            None => next + (token - prompt_len) as i32,
        })
    }

    /// Blocks that need not be computed if they are cached. At least one token is left, whose logits are needed, and all
    /// that are still to be scored.
    pub(crate) fn max_cached_blocks(&self, block_size: u32) -> usize {
        let needless = if self.scored < self.to_score { self.scored } else { self.len() - 1 };
        (needless / block_size) as usize
    }

    /// Whether a row over `tokens`, which is planned now, has to score. One that begins with tokens that were scored
    /// before a preemption scores them again.
    pub(crate) fn plan_scores(&mut self, tokens: Range<u32>) -> bool {
        let scores = tokens.start < self.to_score && self.scored < tokens.end.min(self.to_score);
        if scores {
            self.scored = tokens.end.min(self.to_score);
        }
        scores
    }

    /// Hash of a block, all of whose tokens must be known. Hashes are made when they are first asked for: a prompt
    /// that shares nothing costs one hash to find that out, and the others as its chunks are committed.
    pub(crate) fn hash(&mut self, block: usize, block_size: u32) -> BlockHash {
        while self.hashes.len() <= block {
            let start = self.hashes.len() as u32 * block_size;
            let parent = *self.hashes.last().unwrap_or(&self.root);
            self.hashes.push(self.block_hash(parent, start..start + block_size));
        }
        self.hashes[block]
    }

    /// Covers everything the KV of these tokens depends on: the parent covers what is before them, and a range of
    /// `both_ways` is covered as a whole by the block it begins in.
    fn block_hash(&self, parent: BlockHash, tokens: Range<u32>) -> BlockHash {
        let mut content = Vec::with_capacity(4 * tokens.len() + 128);
        content.extend(parent.0);
        self.push_content(&mut content, tokens.clone());
        let from = self.both_ways.partition_point(|range| range.start < tokens.start);
        for range in self.both_ways[from..].iter().take_while(|range| range.start < tokens.end) {
            content.extend([range.start, range.end].into_iter().flat_map(u32::to_le_bytes));
            self.push_content(&mut content, range.clone());
        }
        BlockHash(*blake3::hash(&content).as_bytes())
    }

    /// What these tokens are and where they are. Where it ends follows from the number of tokens and of axes.
    fn push_content(&self, content: &mut Vec<u8>, tokens: Range<u32>) {
        content.extend(self.tokens[tokens.start as usize..tokens.end as usize].iter().flat_map(|id| id.to_le_bytes()));
        content.extend((self.spans(tokens.clone(), 0).count() as u32).to_le_bytes());
        for span in self.spans(tokens.clone(), 0) {
            content.extend(span.image.0);
            content.extend([span.offset, span.length, span.image_offset].into_iter().flat_map(u32::to_le_bytes));
        }
        if let Positions::Explicit { axes, next } = &self.positions {
            for position in axes.iter().flat_map(|axis| self.axis_positions(axis, *next, tokens.clone())) {
                content.extend(position.to_le_bytes());
            }
        }
    }
}

/// What is the same for all blocks of a sequence.
fn root_hash(new: &NewSequence) -> BlockHash {
    let num_axes = match &new.positions {
        Positions::Sequential => 0,
        Positions::Explicit { axes, .. } => axes.len() as u64,
    };
    let content: Vec<u8> = [new.cache_salt, num_axes].into_iter().flat_map(u64::to_le_bytes).collect();
    BlockHash(*blake3::hash(&content).as_bytes())
}

fn image_needs(new: &NewSequence) -> Vec<ImageNeed> {
    let mut last_ends: KeyMap<ImageKey, u32> =
        new.placeholders.iter().map(|placeholder| (placeholder.image, placeholder.end())).collect();
    let need = |spec: &ImageSpec| {
        let last_end = last_ends.remove(&spec.key)?;
        Some(ImageNeed { key: spec.key, num_tokens: spec.num_tokens, last_end, reached: false })
    };
    let mut needs: Vec<_> = new.images.iter().filter_map(need).collect();
    needs.sort_by_key(|need| need.last_end);
    needs
}
