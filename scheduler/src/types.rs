//! What callers put in: configuration, sequences, images, results. No behaviour beyond checking a `Config`.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A row of the model's embedding table.
pub type TokenId = u32;

/// The caller's name for a sequence. Never used for two live sequences at once.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Ord, PartialOrd, Debug)]
pub struct SequenceId(pub u64);

/// Content hash of an image's pixels and of how they were made.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct ImageKey(pub [u8; 32]);

impl fmt::Debug for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One unbroken run of image tokens in a prompt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placeholder {
    /// First token of the run, counted from the start of the prompt.
    pub offset: u32,
    /// Tokens in the run, at least 1.
    pub length: u32,
    /// The image whose embeddings go here.
    pub image: ImageKey,
    /// Embedding of the image that the first token of the run takes.
    pub image_offset: u32,
}

impl Placeholder {
    /// First token after the run.
    pub fn end(&self) -> u32 {
        self.offset + self.length
    }
}

/// Position ids of a sequence.
#[derive(Clone, Debug, Eq, PartialEq, Default)]
pub enum Positions {
    /// Token `i` has position `i` on every axis.
    #[default]
    Sequential,
    /// Positions given for the prompt; generated tokens count up.
    Explicit {
        /// One entry an axis, each as long as the prompt.
        axes: Vec<Vec<i32>>,
        /// Position of the first generated token, on all axes; one more for each further token.
        next: i32,
    },
}

/// Why a sequence ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum FinishReason {
    /// It has `max_new_tokens` tokens (even if the last one is an end token).
    Length,
    /// It sampled one of its `end_tokens`.
    EndOfSequence,
}

/// What encoding an image costs and yields.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ImageSpec {
    /// Content hash.
    pub key: ImageKey,
    /// Embeddings it becomes, at least 1; the unit of both image budgets.
    pub num_tokens: u32,
}

/// A sequence to be generated.
#[derive(Clone, Debug)]
pub struct NewSequence {
    /// The caller's name for it.
    pub id: SequenceId,
    /// Token ids with every image already expanded to its run of tokens.
    pub prompt: Vec<TokenId>,
    /// Runs of image tokens, in ascending order, not overlapping.
    pub placeholders: Vec<Placeholder>,
    /// Every image a placeholder names; naming one twice changes nothing. Images no placeholder names are never
    /// uploaded.
    pub images: Vec<ImageSpec>,
    /// Position ids.
    pub positions: Positions,
    /// Ranges of the prompt whose tokens also attend to those behind them in the range, so that a chunk holds a whole
    /// range or nothing of it. Not empty, in ascending order, not overlapping.
    pub both_ways: Vec<Range<u32>>,
    /// Tokens to generate at most, at least 1.
    pub max_new_tokens: u32,
    /// Tokens that end the sequence. Empty: only the length ends it.
    pub end_tokens: Arc<[TokenId]>,
    /// Sequences share cached prefixes only with sequences of the same salt.
    pub cache_salt: u64,
    /// Whether every token of the prompt but the first is to be scored by what the model says before it.
    pub score_prompt: bool,
}

/// Limits the scheduler works within. All are fixed for its life.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Tokens a KV block holds.
    pub block_size: u32,
    /// KV blocks on the shard, numbered from 0.
    pub num_blocks: u32,
    /// Tokens of all rows of a step together.
    pub max_step_tokens: u32,
    /// Image tokens newly encoded in a step. A larger image is encoded as the only one of its step.
    pub max_step_image_tokens: u32,
    /// Rows of a step (sequences that advance in it); effectively never more than `max_step_tokens`.
    pub max_rows: u32,
    /// Longest prompt plus answer.
    pub max_sequence_tokens: u32,
    /// Image tokens whose embeddings the shard keeps. A larger image is kept as the only one, and only
    /// as long as a sequence needs it.
    pub embedding_cache_tokens: u32,
    /// Image tokens whose pixels are on the shard or on their way there, not yet encoded. A larger image
    /// is uploaded when nothing else is; [`Scheduler::take_uploads`](crate::Scheduler::take_uploads) names
    /// the one other exception.
    pub max_pending_upload_tokens: u32,
    /// Ranks that encode images.
    pub world_size: u32,
    /// Whether confirmed full blocks may serve later sequences.
    pub prefix_caching: bool,
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let must_be_positive = [
            ("block_size", self.block_size),
            ("num_blocks", self.num_blocks),
            ("max_step_tokens", self.max_step_tokens),
            ("max_rows", self.max_rows),
            ("max_sequence_tokens", self.max_sequence_tokens),
            ("world_size", self.world_size),
        ];
        match must_be_positive.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(ConfigError::Zero { name }),
            None => Ok(()),
        }
    }
}

/// What the shard reports of one step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StepResult {
    /// The plan it answers.
    pub step: u64,
    /// One entry for each row with `sample` that did not fail, in row order. Behind it may stand further entries of the
    /// same sequence: the tokens that can only follow, whatever the model says.
    pub sampled: Vec<(SequenceId, TokenId)>,
    /// Sequences that are over; the others of the step went on.
    pub failures: Vec<SequenceId>,
}

/// A configuration nothing could be scheduled with.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A limit is 0.
    #[error("{name} must be at least 1")]
    Zero {
        /// The field.
        name: &'static str,
    },
}

/// A sequence that can never run. Nothing of it is kept.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddError {
    /// A live sequence has this id, or its last step has not come back yet.
    #[error("sequence {} is already scheduled", .0.0)]
    Duplicate(SequenceId),
    /// There is no token to compute.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// `max_new_tokens` is 0.
    #[error("max_new_tokens must be at least 1")]
    NothingToGenerate,
    /// Prompt plus answer is longer than a sequence may be, or than all KV blocks together.
    #[error("{prompt} prompt tokens and {max_new_tokens} new tokens are more than the limit of {limit}")]
    TooLong {
        /// Prompt tokens.
        prompt: u64,
        /// Requested new tokens.
        max_new_tokens: u64,
        /// The smaller of `max_sequence_tokens` and what all blocks hold.
        limit: u64,
    },
    /// Tokens that attend to each other must be computed in one step, and are more than a step has.
    #[error("{length} tokens that attend to each other do not fit into a step of {limit} tokens")]
    RangeTooLong {
        /// Tokens of the range.
        length: u32,
        /// `max_step_tokens`.
        limit: u32,
    },
    /// A range of `both_ways` is empty, out of order or out of the prompt.
    #[error("range {index} of tokens that attend to each other does not fit the prompt")]
    BadRange {
        /// Its index.
        index: usize,
    },
    /// A placeholder is empty, out of order, out of the prompt, or names an image or embedding that is not there.
    #[error("placeholder {index} does not fit the prompt or its image")]
    BadPlaceholder {
        /// Its index.
        index: usize,
    },
    /// An image has no tokens, or is known with another number of tokens.
    #[error("image {key:?} has {num_tokens} tokens, which contradicts what is known of it")]
    BadImage {
        /// The image.
        key: ImageKey,
        /// What was claimed.
        num_tokens: u32,
    },
    /// Explicit positions without an axis, an axis that is not as long as the prompt, or positions beyond `i32`.
    #[error("explicit positions do not match a prompt of {prompt} tokens")]
    BadPositions {
        /// Prompt tokens.
        prompt: usize,
    },
}
