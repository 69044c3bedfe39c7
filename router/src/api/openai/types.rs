//! The JSON of `/v1/chat/completions`. Unknown fields are ignored and `null` is the same as absent, at every level.
//! Shapes only; what the values may be is `validate`'s business.

use std::fmt;

use serde::de::{
    Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::object;
use crate::api::tgi::SimpleToken;

/// Body of `/v1/chat/completions`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatRequest)]
pub(in crate::api) struct ChatBody {
    /// Any name is accepted and repeated in the answer.
    pub(super) model: Option<String>,
    /// The conversation so far. One that ends with the assistant's words is continued.
    #[serde(deserialize_with = "object::list")]
    #[schema(min_items = 1)]
    pub(super) messages: Vec<MessageBody>,
    /// Most tokens to generate; what the context holds if absent.
    #[schema(minimum = 1)]
    pub(super) max_tokens: Option<u32>,
    /// The newer name of `max_tokens`; it wins.
    #[schema(minimum = 1)]
    pub(super) max_completion_tokens: Option<u32>,
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
    /// How many answers. At most `--max-best-of`.
    #[schema(minimum = 1, default = 1)]
    pub(super) n: Option<u32>,
    /// Whether to answer with events.
    #[schema(default = false)]
    pub(super) stream: Option<bool>,
    /// What a stream reports beside its tokens.
    #[serde(default, deserialize_with = "object::optional")]
    pub(super) stream_options: Option<StreamOptions>,
    /// Whether to give the log-probability of each token.
    #[schema(default = false)]
    pub(super) logprobs: Option<bool>,
    /// How many of the most probable tokens to list at each place. At most `--max-top-n-tokens`.
    #[schema(minimum = 0, default = 0)]
    pub(super) top_logprobs: Option<u32>,
    /// Added to the logits of tokens, by token id.
    #[schema(value_type = Option<Object>)]
    pub(super) logit_bias: Option<Value>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(super) tools: Option<Vec<Value>>,
    /// `none`, `auto`, `required`, or the name of a function.
    #[schema(value_type = Option<Object>)]
    pub(super) tool_choice: Option<Value>,
    /// What the answer has to be: text, JSON, or JSON that follows a schema.
    #[schema(value_type = Option<Object>)]
    pub(super) response_format: Option<Value>,
    // TGI's parameters, for callers that know them.
    /// Draws from this many most probable tokens; 0 from all. TGI's.
    #[schema(minimum = 0, default = 0)]
    pub(super) top_k: Option<i64>,
    /// Draws from the most typical tokens that have this much probability together. TGI's.
    #[schema(exclusive_minimum = 0, maximum = 1, default = 1.0)]
    pub(super) typical_p: Option<f32>,
    /// Above 1 makes tokens of the prompt and the answer less likely to come again. TGI's.
    #[schema(exclusive_minimum = 0, maximum = 100, default = 1.0)]
    pub(super) repetition_penalty: Option<f32>,
    /// Whether to go on after the end of the answer; for benchmarks.
    #[schema(default = false)]
    pub(super) ignore_eos: Option<bool>,
    /// A loaded adapter to generate with. TGI's.
    pub(super) adapter_id: Option<String>,
    /// What the answer may be, in TGI's form.
    #[schema(value_type = Option<Object>)]
    pub(super) grammar: Option<Value>,
}

/// What a stream reports beside its tokens.
#[derive(Copy, Clone, Debug, Default, Deserialize, ToSchema)]
pub(super) struct StreamOptions {
    /// Whether a last event says what the request has cost.
    #[schema(default = false)]
    pub(super) include_usage: Option<bool>,
    /// Whether every event does.
    #[schema(default = false)]
    pub(super) continuous_usage_stats: Option<bool>,
}

/// One message.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatMessage)]
pub(super) struct MessageBody {
    /// Who speaks: `system`, `developer`, `user`, `assistant` or `tool`.
    pub(super) role: String,
    /// Name of the speaker, for templates that show it.
    pub(super) name: Option<String>,
    /// What is said. Only a message with `tool_calls` may leave it out.
    pub(super) content: Option<ContentBody>,
    /// Calls that the assistant made.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(super) tool_calls: Option<Value>,
    /// The call that a `tool` message answers.
    pub(super) tool_call_id: Option<String>,
}

/// A string, or a list of parts.
#[derive(Debug)]
pub(super) enum ContentBody {
    Text(String),
    Parts(Vec<PartBody>),
}

/// One part.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ContentPart)]
pub(super) struct PartBody {
    /// `text` or `image_url`.
    pub(super) r#type: String,
    /// The text, for `text`.
    pub(super) text: Option<String>,
    /// The image, for `image_url`.
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
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatCompletion<'a> {
    /// Names the answer.
    pub(super) id: &'a str,
    /// `chat.completion`.
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// As the request said.
    pub(super) model: &'a str,
    /// Version of the server.
    pub(super) system_fingerprint: &'static str,
    /// As many answers as were asked for.
    pub(super) choices: Vec<Choice>,
    /// What the request has cost.
    pub(super) usage: UsageBody,
}

/// One of `n` answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatChoice)]
pub(super) struct Choice {
    /// Counts from 0.
    pub(super) index: u32,
    /// The answer.
    pub(super) message: AnswerMessage,
    /// Only if asked for.
    pub(super) logprobs: Option<Logprobs>,
    /// Why generation ended.
    pub(super) finish_reason: FinishReason,
}

/// The model's message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AnswerMessage {
    /// `assistant`.
    pub(super) role: &'static str,
    /// The answer.
    pub(super) content: String,
}

/// An event of a stream.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatCompletionChunk)]
pub(super) struct Chunk<'a> {
    /// Names the answer; the same in every event.
    pub(super) id: &'a str,
    /// `chat.completion.chunk`.
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created: u64,
    /// As the request said.
    pub(super) model: &'a str,
    /// Version of the server.
    pub(super) system_fingerprint: &'static str,
    /// What this event adds; empty in the one for usage.
    pub(super) choices: Vec<ChunkChoice>,
    /// Only in the last event, and only if asked for.
    pub(super) usage: Option<UsageBody>,
}

/// What an event adds to one of `n` answers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChunkChoice {
    /// Which of the answers.
    pub(super) index: u32,
    /// What is added to it.
    pub(super) delta: Delta,
    /// Only if asked for.
    pub(super) logprobs: Option<Logprobs>,
    /// Why generation ended, in the last event of an answer.
    pub(super) finish_reason: Option<FinishReason>,
}

/// The text an event adds.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Delta {
    /// Only in the first event of an answer: clients add strings up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    /// Text to be appended.
    pub(super) content: String,
}

/// Why generation ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ChatFinishReason)]
pub(super) enum FinishReason {
    Stop,
    Length,
}

/// Log-probabilities of the tokens of a text.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct Logprobs {
    /// One entry a token.
    pub(super) content: Vec<TokenLogprob>,
}

/// A token and what might have stood in its place.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct TokenLogprob {
    #[serde(flatten)]
    pub(super) token: Alternative,
    /// The most probable tokens at its place.
    pub(super) top_logprobs: Vec<Alternative>,
}

/// A token that was, or might have been, generated.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = TokenAlternative)]
pub(super) struct Alternative {
    /// The token as text.
    pub(super) token: String,
    /// Logarithm of its probability, from the model's own distribution.
    pub(super) logprob: f32,
    /// What the token stands for; it need not be a whole character.
    pub(super) bytes: Option<Vec<u8>>,
}

/// What a request has cost.
#[derive(Copy, Clone, Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub(super) struct UsageBody {
    /// Tokens of the prompt, images included.
    pub(super) prompt_tokens: u32,
    /// Tokens generated.
    pub(super) completion_tokens: u32,
    /// Both together.
    pub(super) total_tokens: u32,
    /// What the prompt was made of.
    pub(super) prompt_tokens_details: PromptTokensDetails,
}

/// What the prompt was made of.
#[derive(Copy, Clone, Debug, Serialize, ToSchema)]
pub(super) struct PromptTokensDetails {
    /// Tokens that did not have to be computed.
    pub(super) cached_tokens: u32,
    /// Tokens that stand for images.
    pub(super) image_tokens: u32,
}

/// `/chat_tokenize`.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::api) struct ChatTokens {
    /// The tokens of the prompt.
    pub(super) tokenize_response: Vec<SimpleToken>,
    /// What was tokenised: an image token stands for each run of them.
    pub(super) templated_text: String,
}
