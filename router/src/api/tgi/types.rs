//! The JSON of TGI's routes. Unknown fields are ignored and `null` is the same as absent, at every level.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use text_generation_scheduler::TokenId;
use utoipa::ToSchema;

use crate::api::media::ImageLink;
use crate::api::object;
use crate::api::openapi::Grammar;
use crate::detokenize::TokenTable;
use crate::engine::PromptToken;
use crate::prompt::{PromptBuilder, Segment};

/// Body of `/generate`, `/generate_stream` and, with `stream`, of `/`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = GenerateRequest)]
pub(in crate::api) struct GenerateBody {
    /// The prompt. `![](address)` stands for an image: an `http(s)` address or a `data:` URI.
    #[schema(value_type = String, min_length = 1)]
    pub(super) inputs: Inputs,
    /// How to generate. Absent altogether means sampling; present means greedy unless it says otherwise.
    #[serde(default, deserialize_with = "object::optional")]
    pub(super) parameters: Option<Parameters>,
    /// Whether to answer with events. Only `/` looks at it.
    #[schema(default = false)]
    pub(super) stream: Option<bool>,
}

/// The prompt, taken apart at its images. It may hold many megabytes of them, so that happens where the body is parsed:
/// beside the async workers.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
pub(in crate::api) struct Inputs {
    /// As the client wrote it.
    pub(in crate::api) text: String,
    pub(in crate::api) segments: Vec<Segment>,
    pub(in crate::api) image_urls: Vec<ImageLink>,
    pub(in crate::api) characters: usize,
}

impl From<String> for Inputs {
    fn from(text: String) -> Self {
        let (segments, urls) = PromptBuilder::segments(&text);
        let image_urls = urls.into_iter().map(Into::into).collect();
        Self { characters: text.chars().count(), text, segments, image_urls }
    }
}

/// How to generate. Absent altogether means sampling; present means greedy unless it says otherwise.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = GenerateParameters)]
pub(in crate::api) struct Parameters {
    /// How many sequences to draw, of which the most probable is the answer. At most `--max-best-of`.
    #[schema(minimum = 1, default = 1)]
    pub(super) best_of: Option<u32>,
    /// Above 1 flattens the distribution, below 1 sharpens it. A value other than 1 means sampling.
    #[schema(exclusive_minimum = 0, maximum = 100, default = 1.0)]
    pub(super) temperature: Option<f32>,
    /// Above 1 makes tokens of the prompt and the answer less likely to come again.
    #[schema(exclusive_minimum = 0, maximum = 100, default = 1.0)]
    pub(super) repetition_penalty: Option<f32>,
    /// Lowers a token by how often it has come; negative values raise it.
    #[schema(minimum = -2, maximum = 2, default = 0.0)]
    pub(super) frequency_penalty: Option<f32>,
    /// Draws from this many most probable tokens; 0 from all.
    #[schema(minimum = 0, default = 0)]
    pub(super) top_k: Option<i64>,
    /// Draws from the most probable tokens that have this much probability together.
    #[schema(exclusive_minimum = 0, maximum = 1, default = 1.0)]
    pub(super) top_p: Option<f32>,
    /// Draws from the most typical tokens that have this much probability together.
    #[schema(exclusive_minimum = 0, maximum = 1, default = 1.0)]
    pub(super) typical_p: Option<f32>,
    /// Whether to draw tokens rather than to take the most probable one.
    #[schema(default = false)]
    pub(super) do_sample: Option<bool>,
    /// Most tokens to generate; what the context holds if absent.
    #[schema(minimum = 1)]
    pub(super) max_new_tokens: Option<u32>,
    /// Whether the prompt stands in front of the generated text.
    #[schema(default = false)]
    pub(super) return_full_text: Option<bool>,
    /// Strings that end the answer, which keeps them. At most `--max-stop-sequences`.
    #[schema(min_length = 1)]
    pub(super) stop: Option<Vec<String>>,
    /// Most tokens of the prompt; what is over is cut from its start, but never inside an image.
    #[schema(minimum = 1)]
    pub(super) truncate: Option<u32>,
    /// Whether to favour, at each place, a part of the vocabulary that the token before decides, so that the text can be
    /// told from others.
    #[schema(default = false)]
    pub(super) watermark: Option<bool>,
    /// Whether the answer lists its tokens.
    #[schema(default = false)]
    pub(super) details: Option<bool>,
    /// As `details`, with the tokens of the prompt too on a server with `--enable-prefill-logprobs`. Not for streams.
    #[schema(default = false)]
    pub(super) decoder_input_details: Option<bool>,
    /// Makes drawing repeatable; made up if absent.
    #[schema(minimum = 0)]
    pub(super) seed: Option<u64>,
    /// How many of the most probable tokens to list at each place. At most `--max-top-n-tokens`.
    #[schema(minimum = 0, default = 0)]
    pub(super) top_n_tokens: Option<u32>,
    /// What the answer may be.
    #[schema(value_type = Option<Grammar>)]
    pub(super) grammar: Option<Value>,
    /// A loaded adapter to generate with.
    pub(super) adapter_id: Option<String>,
    /// Whether to go on after the end of the answer. Not TGI's: benchmarks ask for answers of a fixed length.
    #[schema(default = false)]
    pub(super) ignore_eos: Option<bool>,
}

/// A complete answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct GenerateResponse {
    /// The answer.
    pub(super) generated_text: String,
    /// Only if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Details>,
}

/// How a complete answer came about.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct Details {
    /// Why generation ended.
    pub(in crate::api) finish_reason: FinishReason,
    /// How many tokens were generated.
    pub(in crate::api) generated_tokens: u32,
    /// `null` when nothing was drawn.
    pub(in crate::api) seed: Option<u64>,
    /// The tokens of the prompt; only with `decoder_input_details`, and on a server with `--enable-prefill-logprobs`.
    pub(in crate::api) prefill: Vec<PrefillToken>,
    /// The generated tokens.
    pub(in crate::api) tokens: Vec<Token>,
    /// The sequences that were not the best; only with `best_of`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) best_of_sequences: Option<Vec<BestOfSequence>>,
    /// The most probable tokens at each place; only with `top_n_tokens`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::api) top_tokens: Vec<Vec<Token>>,
}

/// A sequence that was not the best.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct BestOfSequence {
    /// Its text.
    pub(in crate::api) generated_text: String,
    /// Why its generation ended.
    pub(in crate::api) finish_reason: FinishReason,
    /// How many tokens were generated.
    pub(in crate::api) generated_tokens: u32,
    /// The seed it was drawn with.
    pub(in crate::api) seed: Option<u64>,
    /// The tokens of the prompt, as in the best one's details.
    pub(in crate::api) prefill: Vec<PrefillToken>,
    /// The generated tokens.
    pub(in crate::api) tokens: Vec<Token>,
    /// The most probable tokens at each place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::api) top_tokens: Vec<Vec<Token>>,
}

/// Why generation ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = GenerateFinishReason)]
pub(in crate::api) enum FinishReason {
    Length,
    EosToken,
    StopSequence,
}

/// A generated token, or one that might have been.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(in crate::api) struct Token {
    /// Number of the token in the vocabulary.
    pub(in crate::api) id: TokenId,
    /// What it adds to the text.
    pub(in crate::api) text: String,
    /// Logarithm of its probability, after the filters of sampling.
    pub(in crate::api) logprob: f32,
    /// Whether it is a control token, which the final text leaves out.
    pub(in crate::api) special: bool,
}

/// A token of the prompt. Each token that stands for a part of an image is one, too.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(in crate::api) struct PrefillToken {
    /// Number of the token in the vocabulary.
    pub(in crate::api) id: TokenId,
    /// The text it stands for.
    pub(in crate::api) text: String,
    /// Logarithm of its probability after the tokens before it, as the model says it; `null` for the first token.
    pub(in crate::api) logprob: Option<f32>,
}

impl PrefillToken {
    pub(in crate::api) fn new(token: &PromptToken, table: &TokenTable) -> Self {
        Self { id: token.id, text: table.token_text(token.id), logprob: token.logprob }
    }
}

/// An event of a stream. `generated_text` and `details` are there in every event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StreamResponse {
    /// Counts from 1.
    pub(super) index: u32,
    /// The token of this event.
    pub(super) token: Token,
    /// The most probable tokens at its place; only with `top_n_tokens`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top_tokens: Vec<Token>,
    /// Only in the last event.
    pub(super) generated_text: Option<String>,
    /// Only in the last event, and only if asked for.
    pub(super) details: Option<StreamDetails>,
}

/// How a streamed answer came about.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct StreamDetails {
    /// Why generation ended.
    pub(in crate::api) finish_reason: FinishReason,
    /// How many tokens were generated.
    pub(in crate::api) generated_tokens: u32,
    /// `null` when nothing was drawn.
    pub(in crate::api) seed: Option<u64>,
    /// How many tokens the prompt has, images included.
    pub(in crate::api) input_length: u32,
}

/// A token of `/tokenize`.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct SimpleToken {
    /// Number of the token in the vocabulary.
    pub(super) id: TokenId,
    /// The text it stands for.
    pub(super) text: String,
    /// Where that begins in the input, in characters as the server counts them.
    pub(super) start: usize,
    /// Where it ends.
    pub(super) stop: usize,
    /// Whether it stands for text or for a part of an image.
    pub(super) r#type: SpanType,
}

/// What a token of `/tokenize` stands for.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SpanType {
    Text,
    Image,
}
