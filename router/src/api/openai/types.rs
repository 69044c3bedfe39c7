//! The JSON of `/v1/chat/completions`. Unknown fields are ignored and `null` is the same as absent, at every level.
//! Shapes only; what the values may be is `validate`'s business.

use std::fmt;

use serde::de::{
    Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::tools::{CallDelta, ToolFields};
use crate::api::object;
use crate::api::tgi::SimpleToken;

/// Body of `/v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(in crate::api) struct ChatBody {
    pub(super) model: Option<String>,
    #[serde(deserialize_with = "object::list")]
    pub(super) messages: Vec<MessageBody>,
    pub(super) max_tokens: Option<u32>,
    /// The newer name; it wins.
    pub(super) max_completion_tokens: Option<u32>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    pub(super) frequency_penalty: Option<f32>,
    pub(super) presence_penalty: Option<f32>,
    pub(super) stop: Option<OneOrMany>,
    pub(super) seed: Option<i64>,
    pub(super) n: Option<u32>,
    pub(super) stream: Option<bool>,
    #[serde(default, deserialize_with = "object::optional")]
    pub(super) stream_options: Option<StreamOptions>,
    pub(super) logprobs: Option<bool>,
    pub(super) top_logprobs: Option<u32>,
    pub(super) logit_bias: Option<Value>,
    pub(super) tools: Option<Vec<Value>>,
    pub(super) tool_choice: Option<Value>,
    pub(super) parallel_tool_calls: Option<bool>,
    pub(super) tool_prompt: Option<String>,
    pub(super) response_format: Option<Value>,
    // TGI's parameters, for callers that know them.
    pub(super) top_k: Option<i64>,
    pub(super) typical_p: Option<f32>,
    pub(super) repetition_penalty: Option<f32>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) adapter_id: Option<String>,
    pub(super) grammar: Option<Value>,
}

impl ChatBody {
    /// Takes out what is about tools.
    pub(super) fn take_tools(&mut self) -> ToolFields {
        ToolFields {
            tools: self.tools.take(),
            tool_choice: self.tool_choice.take(),
            parallel_tool_calls: self.parallel_tool_calls,
            tool_prompt: self.tool_prompt.take(),
        }
    }
}

/// What a stream reports beside its tokens.
#[derive(Copy, Clone, Debug, Default, Deserialize)]
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
    pub(super) continuous_usage_stats: Option<bool>,
}

/// One message.
#[derive(Debug, Deserialize)]
pub(super) struct MessageBody {
    pub(super) role: String,
    pub(super) name: Option<String>,
    pub(super) content: Option<ContentBody>,
    pub(super) tool_calls: Option<Value>,
    pub(super) tool_call_id: Option<String>,
}

/// A string, or a list of parts.
#[derive(Debug)]
pub(super) enum ContentBody {
    Text(String),
    Parts(Vec<PartBody>),
}

/// One part.
#[derive(Debug, Deserialize)]
pub(super) struct PartBody {
    pub(super) r#type: String,
    pub(super) text: Option<String>,
    pub(super) image_url: Option<ImageUrl>,
}

/// `{"url": …}`, or the bare string that some clients send.
#[derive(Debug)]
pub(super) struct ImageUrl(pub(super) String);

/// A string, or a list of strings.
#[derive(Debug)]
pub(super) struct OneOrMany(pub(super) Vec<String>);

// Written by hand because an untagged enum would forget where in the body it failed and why.
impl<'de> Deserialize<'de> for ContentBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = ContentBody;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a list of parts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ContentBody, E> {
                Ok(ContentBody::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<ContentBody, E> {
                Ok(ContentBody::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<ContentBody, A::Error> {
                object::list(SeqAccessDeserializer::new(parts)).map(ContentBody::Parts)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for ImageUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// `detail` is a wish that no family here can grant yet.
        #[derive(Deserialize)]
        struct Object {
            url: String,
            #[serde(default, rename = "detail")]
            _detail: Option<IgnoredAny>,
        }
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = ImageUrl;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with `url`")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<ImageUrl, E> {
                Ok(ImageUrl(url.to_owned()))
            }

            fn visit_string<E: Error>(self, url: String) -> Result<ImageUrl, E> {
                Ok(ImageUrl(url))
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<ImageUrl, A::Error> {
                let object = Object::deserialize(MapAccessDeserializer::new(object))?;
                Ok(ImageUrl(object.url))
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = OneOrMany;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a list of strings")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, texts: A) -> Result<OneOrMany, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(texts)).map(OneOrMany)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// A complete answer.
#[derive(Debug, Serialize)]
pub(super) struct ChatCompletion<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) system_fingerprint: &'static str,
    pub(super) choices: Vec<Choice>,
    pub(super) usage: UsageBody,
}

/// One of `n` answers.
#[derive(Debug, Serialize)]
pub(super) struct Choice {
    pub(super) index: u32,
    pub(super) message: AnswerMessage,
    pub(super) logprobs: Option<Logprobs>,
    pub(super) finish_reason: FinishReason,
}

/// The model's message.
#[derive(Debug, Serialize)]
pub(super) struct AnswerMessage {
    pub(super) role: &'static str,
    /// `null` beside calls that say it all.
    pub(super) content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<CallBody>,
}

/// A call of a function.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct CallBody {
    pub(super) id: String,
    pub(super) r#type: FunctionType,
    pub(super) function: FunctionBody,
}

/// `function`, the only kind of call there is.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FunctionType {
    #[default]
    Function,
}

/// What is called, and with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct FunctionBody {
    pub(super) name: String,
    /// JSON text.
    pub(super) arguments: String,
}

/// What an event adds to a call.
#[derive(Debug, Serialize)]
pub(super) struct CallChunk {
    pub(super) index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r#type: Option<FunctionType>,
    pub(super) function: FunctionChunk,
}

/// What an event adds to name and arguments.
#[derive(Debug, Serialize)]
pub(super) struct FunctionChunk {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) arguments: String,
}

impl From<CallDelta> for CallChunk {
    fn from(delta: CallDelta) -> Self {
        let (id, name) = delta.head.map(|head| (head.id, head.name)).unzip();
        let r#type = id.is_some().then_some(FunctionType::Function);
        Self { index: delta.index, id, r#type, function: FunctionChunk { name, arguments: delta.arguments } }
    }
}

/// An event of a stream.
#[derive(Debug, Serialize)]
pub(super) struct Chunk<'a> {
    pub(super) id: &'a str,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) system_fingerprint: &'static str,
    pub(super) choices: Vec<ChunkChoice>,
    pub(super) usage: Option<UsageBody>,
}

/// What an event adds to one of `n` answers.
#[derive(Debug, Serialize)]
pub(super) struct ChunkChoice {
    pub(super) index: u32,
    pub(super) delta: Delta,
    pub(super) logprobs: Option<Logprobs>,
    pub(super) finish_reason: Option<FinishReason>,
}

/// The text an event adds.
#[derive(Debug, Serialize)]
pub(super) struct Delta {
    /// Only in the first event of an answer: clients add strings up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    /// Left out where an event says something about calls only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<CallChunk>,
}

/// Why generation ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FinishReason {
    Stop,
    Length,
    ToolCalls,
}

/// Log-probabilities of the tokens of a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Logprobs {
    pub(super) content: Vec<TokenLogprob>,
}

/// A token and what might have stood in its place.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct TokenLogprob {
    #[serde(flatten)]
    pub(super) token: Alternative,
    pub(super) top_logprobs: Vec<Alternative>,
}

/// A token that was, or might have been, generated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Alternative {
    pub(super) token: String,
    pub(super) logprob: f32,
    /// What the token stands for; it need not be a whole character.
    pub(super) bytes: Option<Vec<u8>>,
}

/// What a request has cost.
#[derive(Copy, Clone, Debug, Serialize)]
pub(super) struct UsageBody {
    pub(super) prompt_tokens: u32,
    pub(super) completion_tokens: u32,
    pub(super) total_tokens: u32,
    pub(super) prompt_tokens_details: PromptTokensDetails,
}

/// What the prompt was made of.
#[derive(Copy, Clone, Debug, Serialize)]
pub(super) struct PromptTokensDetails {
    pub(super) cached_tokens: u32,
    pub(super) image_tokens: u32,
}

/// `/chat_tokenize`.
#[derive(Debug, Serialize)]
pub(in crate::api) struct ChatTokens {
    pub(super) tokenize_response: Vec<SimpleToken>,
    /// What was tokenised: an image token stands for each run of them.
    pub(super) templated_text: String,
}

/// `/v1/models`.
#[derive(Debug, Serialize)]
pub(in crate::api) struct ModelList {
    pub(super) object: &'static str,
    pub(super) data: Vec<ModelBody>,
}

/// A model that is served.
#[derive(Debug, Serialize)]
pub(in crate::api) struct ModelBody {
    pub(super) id: String,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) owned_by: String,
}
