//! The JSON of TGI's routes. Unknown fields are ignored and `null` is the same as absent, at every level.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use text_generation_scheduler::TokenId;

use crate::api::object;
use crate::prompt::{PromptBuilder, Segment};

/// Body of `/generate`, `/generate_stream` and, with `stream`, of `/`.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct GenerateBody {
    pub(super) inputs: Inputs,
    #[serde(default, deserialize_with = "object::optional")]
    pub(super) parameters: Option<Parameters>,
    /// Only `/` looks at it.
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
    pub(in crate::api) image_urls: Vec<String>,
    pub(in crate::api) characters: usize,
}

impl From<String> for Inputs {
    fn from(text: String) -> Self {
        let (segments, image_urls) = PromptBuilder::segments(&text);
        Self { characters: text.chars().count(), text, segments, image_urls }
    }
}

/// How to generate. Absent altogether means sampling; present means greedy unless it says otherwise.
#[derive(Debug, Default, Deserialize)]
pub(in crate::api) struct Parameters {
    pub(super) best_of: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) repetition_penalty: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) top_k: Option<i64>,
    pub(super) top_p: Option<f32>,
    pub(super) typical_p: Option<f32>,
    pub(super) do_sample: Option<bool>,
    pub(super) max_new_tokens: Option<u32>,
    pub(super) return_full_text: Option<bool>,
    pub(super) stop: Option<Vec<String>>,
    pub(super) truncate: Option<u32>,
    pub(super) watermark: Option<bool>,
    pub(super) details: Option<bool>,
    pub(super) decoder_input_details: Option<bool>,
    pub(super) seed: Option<u64>,
    pub(super) top_n_tokens: Option<u32>,
    pub(super) grammar: Option<Value>,
    pub(super) adapter_id: Option<String>,
    /// Not TGI's: benchmarks ask for answers of a fixed length.
    pub(super) ignore_eos: Option<bool>,
}

/// A complete answer.
#[derive(Debug, Serialize)]
pub(super) struct GenerateResponse {
    pub(super) generated_text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Details>,
}

/// How a complete answer came about.
#[derive(Debug, Serialize)]
pub(in crate::api) struct Details {
    pub(in crate::api) finish_reason: FinishReason,
    pub(in crate::api) generated_tokens: u32,
    /// `null` when nothing was drawn.
    pub(in crate::api) seed: Option<u64>,
    /// Always empty, as without `--enable-prefill-logprobs`.
    pub(in crate::api) prefill: Vec<Value>,
    pub(in crate::api) tokens: Vec<Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::api) best_of_sequences: Option<Vec<BestOfSequence>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::api) top_tokens: Vec<Vec<Token>>,
}

/// A sequence that was not the best.
#[derive(Debug, Serialize)]
pub(in crate::api) struct BestOfSequence {
    pub(in crate::api) generated_text: String,
    pub(in crate::api) finish_reason: FinishReason,
    pub(in crate::api) generated_tokens: u32,
    pub(in crate::api) seed: Option<u64>,
    pub(in crate::api) prefill: Vec<Value>,
    pub(in crate::api) tokens: Vec<Token>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::api) top_tokens: Vec<Vec<Token>>,
}

/// Why generation ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum FinishReason {
    Length,
    EosToken,
    StopSequence,
}

/// A generated token, or one that might have been.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::api) struct Token {
    pub(in crate::api) id: TokenId,
    pub(in crate::api) text: String,
    pub(in crate::api) logprob: f32,
    pub(in crate::api) special: bool,
}

/// An event of a stream. `generated_text` and `details` are there in every event.
#[derive(Debug, Serialize)]
pub(super) struct StreamResponse {
    /// Counts from 1.
    pub(super) index: u32,
    pub(super) token: Token,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top_tokens: Vec<Token>,
    /// Only in the last event.
    pub(super) generated_text: Option<String>,
    /// Only in the last event, and only if asked for.
    pub(super) details: Option<StreamDetails>,
}

/// How a streamed answer came about.
#[derive(Debug, Serialize)]
pub(in crate::api) struct StreamDetails {
    pub(in crate::api) finish_reason: FinishReason,
    pub(in crate::api) generated_tokens: u32,
    pub(in crate::api) seed: Option<u64>,
    pub(in crate::api) input_length: u32,
}

/// A token of `/tokenize`.
#[derive(Debug, Serialize)]
pub(in crate::api) struct SimpleToken {
    pub(super) id: TokenId,
    pub(super) text: String,
    pub(super) start: usize,
    pub(super) stop: usize,
    pub(super) r#type: SpanType,
}

/// What a token of `/tokenize` stands for.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SpanType {
    Text,
    Image,
}
