//! The JSON that `/v1/responses` answers with: the response, its items, and what the request has cost.

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::types::ResponsesBody;
use crate::api::feed::Usage;
use crate::api::openai::answers::TokenLogprob;
use crate::api::openapi::{FlatTool, FlatToolChoice, TextFormat};

/// A response, complete or as far as it has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Response)]
pub(super) struct ResponseBody<'a> {
    /// Names the response.
    pub(super) id: &'a str,
    /// `response`.
    pub(super) object: &'static str,
    /// Seconds since 1970.
    pub(super) created_at: u64,
    /// Seconds since 1970; `null` until it is complete.
    pub(super) completed_at: Option<u64>,
    /// How far it has come.
    pub(super) status: Status,
    /// What went wrong, if it failed.
    pub(super) error: Option<Failure>,
    /// Why it is incomplete, if it is.
    pub(super) incomplete_details: Option<IncompleteDetails>,
    /// What the model said and called.
    pub(super) output: &'a [Item],
    /// What the request has cost; `null` until that is known.
    pub(super) usage: Option<ResponseUsage>,
    #[serde(flatten)]
    pub(super) settings: &'a Settings,
}

/// How far a response, or an item of one, has come.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseStatus)]
pub(super) enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// Why a response failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ResponseFailure)]
pub(super) struct Failure {
    /// `server_error`.
    pub(super) code: &'static str,
    /// For people.
    pub(super) message: String,
}

/// Why a response is incomplete.
#[derive(Copy, Clone, Debug, Serialize, ToSchema)]
#[schema(as = ResponseIncompleteDetails)]
pub(super) struct IncompleteDetails {
    /// `max_output_tokens`.
    pub(super) reason: &'static str,
}

/// What the request asked for, and what holds for every request.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ResponseSettings)]
pub(super) struct Settings {
    /// As the request said.
    pub(super) model: String,
    /// As the request said.
    instructions: Option<String>,
    /// As the request said.
    max_output_tokens: Option<u32>,
    /// As the request said, or its default.
    temperature: f32,
    /// As the request said, or its default.
    top_p: f32,
    /// As the request said, or its default.
    frequency_penalty: f32,
    /// As the request said, or its default.
    presence_penalty: f32,
    /// As the request said, or its default.
    top_logprobs: u32,
    /// As the request said.
    #[schema(value_type = Vec<FlatTool>)]
    tools: Vec<Value>,
    /// As the request said, or its default.
    #[schema(value_type = FlatToolChoice)]
    tool_choice: Value,
    /// As the request said, or its default.
    parallel_tool_calls: bool,
    /// As the request said, or its default.
    text: TextSettings,
    /// As the request said.
    metadata: Map<String, Value>,
    /// As the request said.
    user: Option<String>,
    /// As the request said.
    safety_identifier: Option<String>,
    /// As the request said.
    prompt_cache_key: Option<String>,
    /// `disabled`: nothing was left out.
    truncation: &'static str,
    /// Always false.
    store: bool,
    /// Always false.
    background: bool,
    /// Always `null`.
    previous_response_id: Option<String>,
    /// Always `null`.
    max_tool_calls: Option<u32>,
    /// `default`, the only one there is.
    service_tier: &'static str,
    /// Always without content: nothing is thought that is not said.
    reasoning: Reasoning,
}

/// What the text of a response had to be.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ResponseText)]
pub(super) struct TextSettings {
    /// As the request said, or `text`.
    #[schema(value_type = TextFormat)]
    format: Value,
}

/// How much a model was to think before it spoke.
#[derive(Copy, Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = ResponseReasoning)]
pub(super) struct Reasoning {
    /// Always `null`.
    effort: Option<&'static str>,
    /// Always `null`.
    summary: Option<&'static str>,
}

impl Settings {
    pub(super) fn of(body: &ResponsesBody, model: String) -> Self {
        let format = body.text.as_ref().and_then(|text| text.format.clone()).filter(|format| !format.is_null());
        let choice = body.tool_choice.clone().filter(|choice| !choice.is_null());
        Self {
            model,
            instructions: body.instructions.clone(),
            max_output_tokens: body.max_output_tokens,
            temperature: body.temperature.unwrap_or(1.0),
            top_p: body.top_p.unwrap_or(1.0),
            frequency_penalty: body.frequency_penalty.unwrap_or(0.0),
            presence_penalty: body.presence_penalty.unwrap_or(0.0),
            top_logprobs: body.top_logprobs.unwrap_or(0),
            tools: body.tools.iter().flatten().cloned().map(with_every_key).collect(),
            tool_choice: choice.unwrap_or_else(|| json!("auto")),
            parallel_tool_calls: body.parallel_tool_calls != Some(false),
            text: TextSettings { format: format.unwrap_or_else(|| json!({"type": "text"})) },
            metadata: body.metadata.clone().unwrap_or_default(),
            user: body.user.clone(),
            safety_identifier: body.safety_identifier.clone(),
            prompt_cache_key: body.prompt_cache_key.clone(),
            truncation: "disabled",
            store: false,
            background: false,
            previous_response_id: None,
            max_tool_calls: None,
            service_tier: "default",
            reasoning: Reasoning::default(),
        }
    }
}

/// Libraries model these keys of a function as present.
fn with_every_key(mut tool: Value) -> Value {
    if let Some(tool) = tool.as_object_mut() {
        for key in ["description", "parameters", "strict"] {
            tool.entry(key).or_insert(Value::Null);
        }
    }
    tool
}

/// A piece of what the model answered.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = ResponseItem)]
pub(super) enum Item {
    /// Words.
    Message(MessageItem),
    /// A call of a function.
    FunctionCall(CallItem),
}

impl Item {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Message(message) => &message.id,
            Self::FunctionCall(call) => &call.id,
        }
    }
}

/// Words of the model.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ResponseMessage)]
pub(super) struct MessageItem {
    /// Names the item.
    pub(super) id: String,
    /// How far it has come.
    pub(super) status: Status,
    /// `assistant`.
    pub(super) role: &'static str,
    /// One part, once there is one.
    pub(super) content: Vec<TextPart>,
}

/// A text.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ResponseTextPart)]
pub(super) struct TextPart {
    /// `output_text`.
    pub(super) r#type: &'static str,
    /// The text.
    pub(super) text: String,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    pub(super) annotations: [(); 0],
    /// One entry a token; empty unless asked for.
    pub(super) logprobs: Vec<TokenLogprob>,
}

impl TextPart {
    pub(super) fn empty() -> Self {
        Self { r#type: "output_text", text: String::new(), annotations: [], logprobs: Vec::new() }
    }
}

/// A call of a function.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = ResponseFunctionCall)]
pub(super) struct CallItem {
    /// Names the item.
    pub(super) id: String,
    /// How far it has come.
    pub(super) status: Status,
    /// Names the call, for the item that answers it.
    pub(super) call_id: String,
    /// The function.
    pub(super) name: String,
    /// Its arguments: JSON text.
    pub(super) arguments: String,
}

/// What a request has cost.
#[derive(Copy, Clone, Debug, Serialize, ToSchema)]
pub(super) struct ResponseUsage {
    /// Tokens of the prompt, images included.
    input_tokens: u32,
    /// What the prompt was made of.
    input_tokens_details: InputTokensDetails,
    /// Tokens generated.
    output_tokens: u32,
    /// What was generated.
    output_tokens_details: OutputTokensDetails,
    /// Both together.
    total_tokens: u32,
}

/// What the prompt was made of.
#[derive(Copy, Clone, Debug, Serialize, ToSchema)]
#[allow(clippy::struct_field_names, reason = "names of OpenAI's")]
struct InputTokensDetails {
    /// Tokens that did not have to be computed.
    cached_tokens: u32,
    /// Always 0: nothing is charged for keeping tokens.
    cache_write_tokens: u32,
    /// Tokens that stand for images.
    image_tokens: u32,
}

/// What was generated.
#[derive(Copy, Clone, Debug, Serialize, ToSchema)]
struct OutputTokensDetails {
    /// Always 0: nothing is thought that is not said.
    reasoning_tokens: u32,
}

impl From<Usage> for ResponseUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputTokensDetails {
                cached_tokens: usage.cached_tokens,
                cache_write_tokens: 0,
                image_tokens: usage.image_tokens,
            },
            output_tokens: usage.generated_tokens,
            output_tokens_details: OutputTokensDetails { reasoning_tokens: 0 },
            total_tokens: usage.prompt_tokens + usage.generated_tokens,
        }
    }
}
