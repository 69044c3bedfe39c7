//! The JSON of `/v1/completions`: OpenAI's, with TGI's parameters beside it. Unknown fields are ignored and `null` is the
//! same as absent. Shapes only; what the values may be is `validate`'s business.

use std::collections::HashMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use super::prompt::PromptBody;
use crate::api::object;
use crate::api::openai::answers::{FinishReason, UsageBody};
use crate::api::openai::types::{OneOrMany, StreamOptions};
use crate::api::openapi::{Grammar, ResponseFormat};
use crate::api::tgi::{Details, StreamDetails, Token};

/// `object` of every answer.
pub(super) const OBJECT: &str = "text_completion";

/// Body of `/v1/completions`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CompletionRequest)]
pub(in crate::api) struct CompletionBody {
    /// Any name is accepted and repeated in the answer.
    pub(super) model: Option<String>,
    /// What to continue. `![](address)` in a text stands for an image.
    pub(super) prompt: PromptBody,
    /// Most tokens to generate for each prompt; what the context holds if absent. 0 only with `echo`.
    #[schema(minimum = 0)]
    pub(super) max_tokens: Option<u32>,
    /// Above 1 flattens the distribution, below 1 sharpens it; 0 takes the most probable token.
    #[schema(minimum = 0, maximum = 100, default = 1.0)]
    pub(super) temperature: Option<f32>,
    /// Draws from the most probable tokens that have this much probability together.
    #[schema(exclusive_minimum = 0, maximum = 1, default = 1.0)]
    pub(super) top_p: Option<f32>,
    /// Lowers a token by how often the answer has it.
    #[schema(minimum = -2, maximum = 2, default = 0.0)]
    pub(super) frequency_penalty: Option<f32>,
    /// Lowers every token that the answer has.
    #[schema(minimum = -2, maximum = 2, default = 0.0)]
    pub(super) presence_penalty: Option<f32>,
    /// Strings that end the answer and are cut from it. At most `--max-stop-sequences`.
    pub(super) stop: Option<OneOrMany>,
    /// Makes drawing repeatable; made up if absent.
    pub(super) seed: Option<i64>,
    /// How many continuations of each prompt. At most `--max-best-of`.
    #[schema(minimum = 1, default = 1)]
    pub(super) n: Option<u32>,
    /// How many to draw, of which the `n` most probable are shown. As many as `n` if absent, and in streams.
    #[schema(minimum = 1)]
    pub(super) best_of: Option<u32>,
    /// How many of the most probable tokens to list at each place. At most `--max-top-n-tokens`.
    #[schema(minimum = 0)]
    pub(super) logprobs: Option<u32>,
    /// Whether the prompt stands in front of the text. With `logprobs` its tokens are scored too.
    #[schema(default = false)]
    pub(super) echo: Option<bool>,
    /// Not served: refused unless empty.
    pub(super) suffix: Option<String>,
    /// Added to the logits of tokens, by token id: from -100, which bans one, to 100, which forces it.
    #[schema(value_type = Option<HashMap<String, f32>>)]
    pub(super) logit_bias: Option<Value>,
    /// Whether to answer with events.
    #[schema(default = false)]
    pub(super) stream: Option<bool>,
    /// What a stream reports beside its tokens.
    #[serde(default, deserialize_with = "object::optional")]
    pub(super) stream_options: Option<StreamOptions>,
    // TGI's parameters: newer clients of its own routes send their requests here.
    /// Whether to draw tokens rather than to take the most probable one. TGI's.
    pub(super) do_sample: Option<bool>,
    /// Draws from this many most probable tokens; 0 from all. TGI's.
    #[schema(minimum = 0, default = 0)]
    pub(super) top_k: Option<i64>,
    /// Draws from the most typical tokens that have this much probability together. TGI's.
    #[schema(exclusive_minimum = 0, maximum = 1, default = 1.0)]
    pub(super) typical_p: Option<f32>,
    /// Above 1 makes tokens of the prompt and the answer less likely to come again. TGI's.
    #[schema(exclusive_minimum = 0, maximum = 100, default = 1.0)]
    pub(super) repetition_penalty: Option<f32>,
    /// Most tokens of a prompt; what is over is cut from its start, but never inside an image. TGI's.
    #[schema(minimum = 1)]
    pub(super) truncate: Option<u32>,
    /// As `echo`. TGI's.
    #[schema(default = false)]
    pub(super) return_full_text: Option<bool>,
    /// Whether the answer lists its tokens in TGI's form.
    #[schema(default = false)]
    pub(super) details: Option<bool>,
    /// As `details`, with the tokens of the prompt too on a server with `--enable-prefill-logprobs`. Not for streams. TGI's.
    #[schema(default = false)]
    pub(super) decoder_input_details: Option<bool>,
    /// How many of the most probable tokens the details list at each place. TGI's.
    #[schema(minimum = 0, default = 0)]
    pub(super) top_n_tokens: Option<u32>,
    /// Whether to favour, at each place, a part of the vocabulary that the token before decides, so that the text can be
    /// told from others.
    #[schema(default = false)]
    pub(super) watermark: Option<bool>,
    /// Whether to go on after the end of the answer; for benchmarks.
    #[schema(default = false)]
    pub(super) ignore_eos: Option<bool>,
    /// A loaded adapter to generate with. TGI's.
    pub(super) adapter_id: Option<String>,
    /// What each continuation may be, in TGI's form.
    #[schema(value_type = Option<Grammar>)]
    pub(super) grammar: Option<Value>,
    /// What each continuation has to be: text, JSON, or JSON that follows a schema.
    #[schema(value_type = Option<ResponseFormat>)]
    pub(super) response_format: Option<Value>,
}

/// A complete answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Completion<'a> {
    /// Names the answer.
    pub(super) id: &'a str,
    /// `text_completion`.
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// As the request said.
    pub(super) model: &'a str,
    /// Version of the server.
    pub(super) system_fingerprint: &'static str,
    /// The continuations.
    pub(super) choices: Vec<Choice>,
    /// What the request has cost.
    pub(super) usage: UsageBody,
}

/// One continuation of one prompt, or what an event adds to it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompletionChoice)]
pub(super) struct Choice {
    /// Counts the continuations of all prompts, prompt after prompt.
    pub(super) index: u32,
    /// The text; in a stream what is to be appended.
    pub(super) text: String,
    /// Only if asked for.
    pub(super) logprobs: Option<Scores>,
    /// Why generation ended; `null` while there is more to come.
    pub(super) finish_reason: Option<FinishReason>,
    /// TGI's details, if asked for; not in streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Details>,
}

/// An event of a stream: OpenAI's fields, and TGI's beside them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CompletionChunk)]
pub(super) struct Chunk<'a> {
    /// Names the answer.
    pub(super) id: &'a str,
    /// `text_completion`.
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// As the request said.
    pub(super) model: &'a str,
    /// Version of the server.
    pub(super) system_fingerprint: &'static str,
    /// The continuations.
    pub(super) choices: Vec<Choice>,
    /// Only if asked for.
    pub(super) usage: Option<UsageBody>,
    #[serde(flatten)]
    pub(super) native: Native,
}

/// What TGI's clients look for in an event.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = CompletionNative)]
pub(super) struct Native {
    /// The token of this event. In every event of a choice for which something was generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Token>,
    /// The most probable tokens at its place; only with `top_n_tokens`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top_tokens: Vec<Token>,
    /// TGI's details. In the last event of a choice, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<StreamDetails>,
}

/// Log-probabilities of the tokens of a text, in the shape that only completions have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = CompletionLogprobs)]
pub(super) struct Scores {
    /// The tokens as text.
    pub(super) tokens: Vec<String>,
    /// Logarithms of their probabilities; `null` for the first token of a prompt.
    pub(super) token_logprobs: Vec<Option<f32>>,
    /// The most probable tokens at each place, from token to log-probability.
    pub(super) top_logprobs: Vec<Option<TopLogprobs>>,
    /// Where each token begins in the text, in characters. Tokens before the last picture of a prompt are not placed.
    pub(super) text_offset: Vec<usize>,
}

/// What might have stood in a token's place, best first, as a JSON object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct TopLogprobs(pub(super) Vec<(String, f32)>);

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(text, logprob)| (text, logprob)))
    }
}

impl PartialSchema for TopLogprobs {
    fn schema() -> RefOr<Schema> {
        HashMap::<String, f32>::schema()
    }
}

impl ToSchema for TopLogprobs {}
