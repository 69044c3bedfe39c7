//! The JSON that `/v1/chat/completions` takes. Unknown fields are ignored and `null` is the same as absent, at every level.
//! Shapes only; what the values may be is `validate`'s business.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::ToSchema;

use super::tools::ToolFields;
use crate::api::object;
use crate::api::openapi::{Grammar, ResponseFormat, Tool, ToolChoice};

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
    /// Added to the logits of tokens, by token id: from -100, which bans one, to 100, which forces it.
    #[schema(value_type = Option<HashMap<String, f32>>)]
    pub(super) logit_bias: Option<Value>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<Tool>>)]
    pub(super) tools: Option<Vec<Value>>,
    /// Whether the answer may, or has to, be a call.
    #[schema(value_type = Option<ToolChoice>)]
    pub(super) tool_choice: Option<Value>,
    /// Whether one answer may hold several calls.
    #[schema(default = true)]
    pub(super) parallel_tool_calls: Option<bool>,
    /// Text for the model beside the functions. TGI's.
    pub(super) tool_prompt: Option<String>,
    /// What the answer has to be: text, JSON, or JSON that follows a schema.
    #[schema(value_type = Option<ResponseFormat>)]
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
    #[schema(value_type = Option<Grammar>)]
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

/// `{"url": …, "detail": …}`, or the bare string that some clients send.
#[derive(Debug)]
pub(super) struct ImageUrl {
    pub(super) url: String,
    pub(super) detail: Option<String>,
}

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
        #[derive(Deserialize)]
        struct Object {
            url: String,
            detail: Option<String>,
        }
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = ImageUrl;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with `url`")
            }

            fn visit_str<E: Error>(self, url: &str) -> Result<ImageUrl, E> {
                self.visit_string(url.to_owned())
            }

            fn visit_string<E: Error>(self, url: String) -> Result<ImageUrl, E> {
                Ok(ImageUrl { url, detail: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<ImageUrl, A::Error> {
                let object = Object::deserialize(MapAccessDeserializer::new(object))?;
                Ok(ImageUrl { url: object.url, detail: object.detail })
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
