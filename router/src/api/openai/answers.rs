//! The JSON that `/v1/chat/completions` answers with, whole and in events.

use serde::Serialize;
use utoipa::ToSchema;

use super::tools::CallDelta;
use crate::api::tgi::SimpleToken;

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
    /// The answer; `null` beside calls that say it all.
    pub(super) content: Option<String>,
    /// Functions that the model calls; absent where it calls none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<CallBody>,
}

/// A call of a function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = ToolCall)]
pub(super) struct CallBody {
    /// Names the call.
    pub(super) id: String,
    /// `function`.
    pub(super) r#type: FunctionType,
    /// What is called, and with what.
    pub(super) function: FunctionBody,
}

/// `function`, the only kind of call there is.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FunctionType {
    #[default]
    Function,
}

/// What is called, and with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = CalledFunction)]
pub(super) struct FunctionBody {
    /// Name of the function.
    pub(super) name: String,
    /// Its arguments: JSON text.
    pub(super) arguments: String,
}

/// What an event adds to a call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolCallChunk)]
pub(super) struct CallChunk {
    /// Which call of the answer; counts from 0.
    pub(super) index: u32,
    /// Names the call; only in its first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// `function`; only in its first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) r#type: Option<FunctionType>,
    /// What is added to name and arguments.
    pub(super) function: FunctionChunk,
}

/// What an event adds to name and arguments.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CalledFunctionChunk)]
pub(super) struct FunctionChunk {
    /// Name of the function; only in the first event of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// Text to be appended to the arguments.
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
    /// Text to be appended; left out where an event says something about calls only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    /// What is added to calls of functions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<CallChunk>,
}

/// Why generation ended.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ChatFinishReason)]
pub(super) enum FinishReason {
    Stop,
    Length,
    ToolCalls,
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
