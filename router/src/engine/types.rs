//! What goes into the engine and what comes out of it. No JSON, no protobuf.

use std::sync::Arc;
use std::time::Instant;

use text_generation_scheduler::{FinishReason, TokenId};

use crate::grammar::Grammar;
use crate::prompt::Prompt;
use crate::sampling::Sampling;

/// One sequence to generate.
#[derive(Clone, Debug)]
pub struct GenerateRequest {
    /// Token ids with their images.
    pub prompt: Prompt,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens to generate; `None` fills the context.
    pub max_new_tokens: Option<u32>,
    /// Never stop at an end token, and never sample one.
    pub ignore_eos: bool,
    /// What the answer may be; anything, if nobody says.
    pub grammar: Option<Arc<Grammar>>,
    /// Whether the prompt is scored before anything is generated: so many of the best tokens are reported beside each
    /// of its own.
    pub score_prompt: Option<u32>,
    /// When it came. Only a timeline looks at it.
    pub arrival: Arrival,
}

/// Moments before a request reaches the engine.
#[derive(Copy, Clone, Debug)]
pub struct Arrival {
    /// Its body was there.
    pub request: Instant,
    /// Its images were asked for.
    pub images: Instant,
}

impl Arrival {
    /// A request that comes from nowhere but here.
    pub fn now() -> Self {
        let now = Instant::now();
        Self { request: now, images: now }
    }
}

/// What a [`super::TokenStream`] yields.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamEvent {
    /// The prompt, scored. Comes once, before the first token, if it was asked for.
    Prompt(Vec<PromptToken>),
    /// The next token; the last one says why it is the last.
    Token(GeneratedToken),
    /// The sequence is over without a last token.
    Failed(GenerationError),
}

/// A token of a prompt that was scored.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptToken {
    /// Its id.
    pub id: TokenId,
    /// Its natural-log probability after the tokens before it, from the model's own logits; `None` for the first.
    pub logprob: Option<f32>,
    /// The best tokens in its place with their log-probabilities, best first.
    pub top: Vec<(TokenId, f32)>,
}

/// A sampled token.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedToken {
    /// Its id.
    pub id: TokenId,
    /// Its natural-log probability.
    pub logprob: f32,
    /// The best tokens of the step with their log-probabilities, best first.
    pub top: Vec<(TokenId, f32)>,
    /// Set on the last token.
    pub finish: Option<FinishReason>,
}

/// Why a request was not taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AdmissionError {
    /// Every permit is taken; try again later.
    #[error("Model is overloaded")]
    Overloaded,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Draining,
    /// The prompt alone is too long.
    #[error("`inputs` must have at most {limit} tokens. Given: {prompt}")]
    PromptTooLong {
        /// Tokens of the prompt, images included.
        prompt: u32,
        /// The limit.
        limit: u32,
    },
    /// The prompt and what it asks for are too long together.
    #[error(
        "`inputs` tokens + `max_new_tokens` must be <= {limit}. Given: {prompt} `inputs` tokens and {max_new_tokens} `max_new_tokens`"
    )]
    TotalTooLong {
        /// Tokens of the prompt, images included.
        prompt: u32,
        /// Tokens asked for.
        max_new_tokens: u32,
        /// The limit.
        limit: u32,
    },
    /// The prompt has no token at all.
    #[error("`inputs` must not be empty")]
    EmptyPrompt,
    /// A limit of the scheduler (tokens that attend to each other, and that no step can hold, say).
    #[error("{0}")]
    Unschedulable(String),
}

/// Why a running sequence ended early.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GenerationError {
    /// The shard gave this sequence up; everybody else went on.
    #[error("{0}")]
    Failed(String),
    /// The shard's memory was full; trying again may work.
    #[error("out of device memory")]
    OutOfMemory,
    /// The shard died or was restarted while it held the sequence.
    #[error("the model shard was lost")]
    ShardLost,
    /// The reader of the stream was too slow for its buffer.
    #[error("the response was not read fast enough")]
    SlowReader,
    /// The server was stopped before the sequence ended.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Asks whoever started the shards to act.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum RestartRequest {
    /// A step or a sign of life is overdue: kill the shards and start them again.
    Hung,
}
