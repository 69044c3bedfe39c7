//! The JSON that `/v1/responses` takes. Unknown fields are ignored and `null` is the same as absent, at every level.
//! Shapes only; what the values may be is `validate`'s and `input`'s business.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::object;
use crate::api::openai::tools::ToolFields;
use crate::api::openai::types::{ChatBody, ImageUrl, OneOrMany, TextOr};
use crate::api::openapi::{FlatTool, FlatToolChoice, TextFormat};

/// Body of `/v1/responses`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponsesRequest)]
pub(in crate::api) struct ResponsesBody {
    /// Any name is accepted and repeated in the answer.
    pub(super) model: Option<String>,
    /// What to answer: a text, or the conversation so far.
    pub(super) input: Input,
    /// Stands in front of the conversation, as words of the system.
    pub(super) instructions: Option<String>,
    /// Most tokens to generate; what the context holds if absent.
    #[schema(minimum = 1)]
    pub(super) max_output_tokens: Option<u32>,
    /// Above 1 flattens the distribution, below 1 sharpens it; 0 takes the most probable token.
    #[schema(minimum = 0, maximum = 100, default = 1.0)]
    pub(super) temperature: Option<f32>,
    /// Draws from the most probable tokens that have this much probability together.
    #[schema(exclusive_minimum = 0, maximum = 1, default = 1.0)]
    pub(super) top_p: Option<f32>,
    /// Whether to answer with events.
    #[schema(default = false)]
    pub(super) stream: Option<bool>,
    /// What the text has to be.
    #[serde(default, deserialize_with = "object::optional")]
    pub(super) text: Option<TextBody>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<FlatTool>>)]
    pub(super) tools: Option<Vec<Value>>,
    /// Whether the answer may, or has to, be a call.
    #[schema(value_type = Option<FlatToolChoice>)]
    pub(super) tool_choice: Option<Value>,
    /// Whether one answer may hold several calls.
    #[schema(default = true)]
    pub(super) parallel_tool_calls: Option<bool>,
    /// What to add to the answer: `message.output_text.logprobs`. Others are about what is never in one.
    pub(super) include: Option<Vec<String>>,
    /// How many of the most probable tokens to list at each place. At most `--max-top-n-tokens`.
    #[schema(minimum = 0, default = 0)]
    pub(super) top_logprobs: Option<u32>,
    /// Repeated in the answer.
    pub(super) metadata: Option<Map<String, Value>>,
    /// Repeated in the answer.
    pub(super) user: Option<String>,
    /// Repeated in the answer.
    pub(super) safety_identifier: Option<String>,
    /// Repeated in the answer. Prompts are recognised by what they say.
    pub(super) prompt_cache_key: Option<String>,
    /// `disabled` or `auto`. Nothing is left out of a conversation: one that is too long is refused.
    #[schema(default = "disabled")]
    pub(super) truncation: Option<String>,
    /// Accepted; nothing is stored.
    #[serde(default, rename = "store")]
    #[schema(default = false)]
    _store: Option<bool>,
    /// Refused when true: an answer comes on the connection that asked for it.
    #[schema(default = false)]
    pub(super) background: Option<bool>,
    /// Refused: no answer is stored that could be continued.
    pub(super) previous_response_id: Option<String>,
    /// Refused: no conversation is stored.
    #[schema(value_type = Option<Object>)]
    pub(super) conversation: Option<Value>,
    /// Refused: no prompt is stored.
    #[schema(value_type = Option<Object>)]
    pub(super) prompt: Option<Value>,
    // What chats have, for callers that know it.
    /// Strings that end the answer and are cut from it, as in a chat.
    pub(super) stop: Option<OneOrMany>,
    /// Makes drawing repeatable, as in a chat; made up if absent.
    pub(super) seed: Option<i64>,
    /// Lowers a token by how often the answer has it, as in a chat.
    #[schema(minimum = -2, maximum = 2, default = 0.0)]
    pub(super) frequency_penalty: Option<f32>,
    /// Lowers every token that the answer has, as in a chat.
    #[schema(minimum = -2, maximum = 2, default = 0.0)]
    pub(super) presence_penalty: Option<f32>,
    /// Added to the logits of tokens, by token id, as in a chat.
    #[schema(value_type = Option<HashMap<String, f32>>)]
    pub(super) logit_bias: Option<Value>,
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
}

/// The name of what asks for log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

impl ResponsesBody {
    /// What it shares with a chat, in its words: everything that decides how tokens are drawn.
    pub(super) fn as_chat(&self) -> ChatBody {
        ChatBody {
            temperature: self.temperature,
            top_p: self.top_p,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            seed: self.seed,
            logprobs: Some(self.wants_logprobs()),
            top_logprobs: self.top_logprobs,
            logit_bias: self.logit_bias.clone(),
            top_k: self.top_k,
            typical_p: self.typical_p,
            repetition_penalty: self.repetition_penalty,
            adapter_id: self.adapter_id.clone(),
            ..ChatBody::default()
        }
    }

    /// What is about tools.
    pub(super) fn tool_fields(&self) -> ToolFields {
        ToolFields {
            tools: self.tools.clone(),
            tool_choice: self.tool_choice.clone(),
            parallel_tool_calls: self.parallel_tool_calls,
            tool_prompt: None,
        }
    }

    pub(super) fn wants_logprobs(&self) -> bool {
        let included = self.include.iter().flatten().any(|name| name == LOGPROBS);
        included || self.top_logprobs.is_some_and(|count| count > 0)
    }
}

/// What the text of an answer has to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = ResponseTextSettings)]
pub(super) struct TextBody {
    /// Text, JSON, or JSON that follows a schema.
    #[schema(value_type = Option<TextFormat>)]
    pub(super) format: Option<Value>,
}

/// A text of the user, or items.
pub(super) type Input = TextOr<ItemBody>;

/// What is said in an item: a text, or parts.
pub(super) type ItemContent = TextOr<ItemPart>;

/// Something that was said, called or found out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[schema(as = ResponseInputItem)]
pub(super) struct ItemBody {
    /// `message` if absent, `function_call`, `function_call_output`, or `reasoning`, which is passed over.
    pub(super) r#type: Option<String>,
    /// Who speaks in a message: `user`, `assistant`, `system` or `developer`.
    pub(super) role: Option<String>,
    /// What is said in a message.
    pub(super) content: Option<ItemContent>,
    /// The function of a call.
    pub(super) name: Option<String>,
    /// The arguments of a call: JSON text.
    pub(super) arguments: Option<String>,
    /// Names a call, also in the item that answers it.
    pub(super) call_id: Option<String>,
    /// What a call brought.
    pub(super) output: Option<ItemContent>,
}

/// A part of what is said.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseInputPart)]
pub(super) struct ItemPart {
    /// `input_text`, `input_image`, `output_text` or `refusal`.
    pub(super) r#type: String,
    /// The text, for `input_text` and `output_text`.
    pub(super) text: Option<String>,
    /// The text, for `refusal`.
    pub(super) refusal: Option<String>,
    /// The image, for `input_image`: an address or a `data:` URI.
    pub(super) image_url: Option<ImageUrl>,
    /// How much of the image the model gets, as in a chat: `low`, `high` or `auto`.
    pub(super) detail: Option<String>,
    /// Refused: no files are stored.
    pub(super) file_id: Option<String>,
}
