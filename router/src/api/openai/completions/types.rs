//! The JSON of `/v1/completions`: OpenAI's, with TGI's parameters beside it. Unknown fields are ignored and `null` is the
//! same as absent. Shapes only; what the values may be is `validate`'s business.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::prompt::PromptBody;
use crate::api::object;
use crate::api::openai::types::{FinishReason, OneOrMany, StreamOptions, UsageBody};
use crate::api::tgi::{Details, StreamDetails, Token};

/// `object` of every answer.
pub(super) const OBJECT: &str = "text_completion";

/// Body of `/v1/completions`.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct CompletionBody {
    pub(super) model: Option<String>,
    pub(super) prompt: PromptBody,
    pub(super) max_tokens: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) stop: Option<OneOrMany>,
    pub(super) seed: Option<i64>,
    pub(super) n: Option<u32>,
    pub(super) best_of: Option<u32>,
    pub(super) logprobs: Option<u32>,
    pub(super) echo: Option<bool>,
    pub(super) suffix: Option<String>,
    pub(super) logit_bias: Option<Value>,
    pub(super) stream: Option<bool>,
    #[serde(default, deserialize_with = "object::optional")]
    pub(super) stream_options: Option<StreamOptions>,
    // TGI's parameters: newer clients of its own routes send their requests here.
    pub(super) do_sample: Option<bool>,
    pub(super) top_k: Option<i64>,
    pub(super) typical_p: Option<f32>,
    pub(super) repetition_penalty: Option<f32>,
    pub(super) truncate: Option<u32>,
    pub(super) return_full_text: Option<bool>,
    pub(super) details: Option<bool>,
    pub(super) decoder_input_details: Option<bool>,
    pub(super) top_n_tokens: Option<u32>,
    pub(super) watermark: Option<bool>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) adapter_id: Option<String>,
    pub(super) grammar: Option<Value>,
    pub(super) response_format: Option<Value>,
}

/// A complete answer.
#[derive(Debug, Serialize)]
pub(super) struct Completion<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) system_fingerprint: &'static str,
    pub(super) choices: Vec<Choice>,
    pub(super) usage: UsageBody,
}

/// One continuation of one prompt, or what an event adds to it.
#[derive(Debug, Serialize)]
pub(super) struct Choice {
    /// Counts the continuations of all prompts, prompt after prompt.
    pub(super) index: u32,
    pub(super) text: String,
    pub(super) logprobs: Option<Scores>,
    /// `None` while there is more to come.
    pub(super) finish_reason: Option<FinishReason>,
    /// TGI's, if asked for; not in streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<Details>,
}

/// An event of a stream: OpenAI's fields, and TGI's beside them.
#[derive(Debug, Serialize)]
pub(super) struct Chunk<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) system_fingerprint: &'static str,
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Option<UsageBody>,
    #[serde(flatten)]
    pub(super) native: Native,
}

/// What TGI's clients look for in an event.
#[derive(Debug, Default, Serialize)]
pub(super) struct Native {
    /// In every event of a choice for which something was generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<Token>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) top_tokens: Vec<Token>,
    /// In the last event of a choice, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<StreamDetails>,
}

/// Log-probabilities of the tokens of a text, in the shape that only completions have.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Scores {
    pub(super) tokens: Vec<String>,
    /// `null` for the first token of a prompt.
    pub(super) token_logprobs: Vec<Option<f32>>,
    pub(super) top_logprobs: Vec<Option<TopLogprobs>>,
    /// Where each token begins in the text, in characters.
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
