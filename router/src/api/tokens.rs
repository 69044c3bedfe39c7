//! `/tokenize` in two dialects, and vLLM's `/detokenize` and `/tokenizer_info`.

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use text_generation_scheduler::TokenId;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AllOfBuilder, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::error::ApiError;
use super::extract::ApiJson;
use super::openai::ChatBody;
use super::openapi::{Named, Refusals, name, one_of, reference};
use super::tgi::{GenerateBody, SimpleToken};
use super::{Api, object, openai, tgi};
use crate::detokenize::Detokenizer;
use crate::prompt::Tokenized;

/// `POST /tokenize`: TGI's body has `inputs`, vLLM's `prompt` or `messages`. The first that is there counts.
pub(super) enum TokenizeBody {
    Inputs(Box<GenerateBody>),
    Prompt(PromptBody),
    Chat(Box<ChatBody>, Extras),
}

/// A text without images.
#[derive(Deserialize, ToSchema)]
#[schema(as = TokenizePrompt)]
pub(super) struct PromptBody {
    /// The text.
    prompt: String,
    #[serde(flatten)]
    extras: Extras,
}

/// What vLLM's body may ask for besides.
#[derive(Deserialize, ToSchema)]
#[schema(as = TokenizeExtras)]
pub(super) struct Extras {
    /// Whether the tokenizer adds its own, such as one for the beginning. Only for `prompt`.
    #[schema(default = true)]
    add_special_tokens: Option<bool>,
    /// Whether the model is to answer; nothing else is served.
    #[schema(default = true)]
    add_generation_prompt: Option<bool>,
    /// Whether to list the tokens as text.
    #[schema(default = false)]
    return_token_strs: Option<bool>,
}

/// vLLM's answer.
#[derive(Serialize, ToSchema)]
struct TokenCount {
    /// How many tokens there are.
    count: usize,
    /// Most tokens of a prompt and its answer.
    max_model_len: u32,
    /// The tokens.
    tokens: Vec<TokenId>,
    /// The tokens as text; `null` unless asked for.
    token_strs: Option<Vec<String>>,
}

/// `POST /detokenize`.
#[derive(Deserialize, ToSchema)]
#[schema(as = DetokenizeRequest)]
pub(super) struct DetokenizeBody {
    /// Numbers of tokens in the vocabulary.
    tokens: Vec<TokenId>,
}

/// The text of token ids, special ones included.
#[derive(Serialize, ToSchema)]
pub(super) struct DetokenizedText {
    /// The text.
    prompt: String,
}

impl<'de> Deserialize<'de> for TokenizeBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        let given = |name: &str| fields.get(name).is_some_and(|value| !value.is_null());
        let (inputs, prompt, messages) = (given("inputs"), given("prompt"), given("messages"));
        let body = Value::Object(fields);
        if inputs || !(prompt || messages) {
            object::read(body).map(|body| Self::Inputs(Box::new(body)))
        } else if prompt {
            object::read(body).map(Self::Prompt)
        } else {
            let extras = Extras::deserialize(&body).map_err(D::Error::custom)?;
            object::read(body).map(|body| Self::Chat(Box::new(body), extras))
        }
    }
}

impl PartialSchema for TokenizeBody {
    fn schema() -> RefOr<Schema> {
        let chat = AllOfBuilder::new().item(reference::<ChatBody>()).item(reference::<Extras>());
        let description = "TGI's body has `inputs`, vLLM's `prompt` or `messages`. The first that is there counts.";
        one_of(description, [reference::<GenerateBody>(), reference::<PromptBody>(), chat.into()])
    }
}

impl ToSchema for TokenizeBody {
    fn name() -> Cow<'static, str> {
        "TokenizeRequest".into()
    }

    fn schemas(schemas: &mut Named) {
        name::<GenerateBody>(schemas);
        name::<PromptBody>(schemas);
        name::<ChatBody>(schemas);
        name::<Extras>(schemas);
    }
}

/// What `/tokenize` answers: TGI's list, or vLLM's object.
struct TokenizeAnswer;

impl PartialSchema for TokenizeAnswer {
    fn schema() -> RefOr<Schema> {
        one_of("A list for `inputs`, an object otherwise.", [Vec::<SimpleToken>::schema(), reference::<TokenCount>()])
    }
}

impl ToSchema for TokenizeAnswer {
    fn schemas(schemas: &mut Named) {
        name::<SimpleToken>(schemas);
        name::<TokenCount>(schemas);
    }
}

/// The tokens of a prompt, or of a chat.
#[utoipa::path(
    post, path = "/tokenize", tag = "TGI",
    request_body(content = TokenizeBody, examples(
        ("inputs" = (summary = "TGI's", value = json!({"inputs": "What is a rabbit?"}))),
        ("prompt" = (summary = "vLLM's", value = json!({"prompt": "What is a rabbit?", "return_token_strs": true}))),
        ("messages" = (summary = "A chat", value = json!({"messages": [{"role": "user", "content": "Hello!"}]}))),
    )),
    responses((status = 200, description = "The tokens.", body = TokenizeAnswer), Refusals),
)]
pub(super) async fn tokenize(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<TokenizeBody>,
) -> Result<Response, ApiError> {
    match body {
        TokenizeBody::Inputs(body) => Ok(Json(tgi::tokens(&api, *body).await?).into_response()),
        TokenizeBody::Prompt(body) => {
            let special_tokens = body.extras.add_special_tokens != Some(false);
            let tokenized = api.prompts.tokenize_text(body.prompt, special_tokens).await?;
            Ok(Json(counted(&api, &tokenized, &body.extras)).into_response())
        }
        TokenizeBody::Chat(body, extras) => {
            if extras.add_generation_prompt == Some(false) {
                return Err(ApiError::field("add_generation_prompt", "must be true: the model is to answer"));
            }
            let tokenized = openai::tokens(&api, *body).await?;
            Ok(Json(counted(&api, &tokenized, &extras)).into_response())
        }
    }
}

fn counted(api: &Api, tokenized: &Tokenized, extras: &Extras) -> TokenCount {
    let table = api.prompts.table();
    let tokens: Vec<TokenId> = tokenized.tokens.iter().map(|token| token.id).collect();
    let strings = || tokens.iter().map(|&id| table.token_text(id)).collect();
    let token_strs = (extras.return_token_strs == Some(true)).then(strings);
    TokenCount { count: tokens.len(), max_model_len: api.generator.limits().max_total_tokens, tokens, token_strs }
}

/// The text of tokens.
#[utoipa::path(
    post, path = "/detokenize", tag = "Others",
    request_body(content = DetokenizeBody, example = json!({"tokens": [1, 2, 3]})),
    responses((status = 200, description = "The text.", body = DetokenizedText), Refusals),
)]
pub(super) async fn detokenize(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<DetokenizeBody>,
) -> Result<Json<DetokenizedText>, ApiError> {
    let table = api.prompts.table();
    if let Some(unknown) = body.tokens.iter().find(|&&id| table.token_bytes(id).is_none()) {
        return Err(ApiError::field("tokens", format!("holds {unknown}, which is no token of this model")));
    }
    let mut detokenizer = Detokenizer::from_start(table, false);
    let mut prompt: String = body.tokens.iter().map(|&id| detokenizer.push(id)).collect();
    prompt.push_str(&detokenizer.flush());
    Ok(Json(DetokenizedText { prompt }))
}

/// What evaluation tools ask of a tokenizer.
#[utoipa::path(
    get, path = "/tokenizer_info", tag = "Others",
    responses((status = 200, description = "Special tokens by name, and `chat_template`.", body = Object), Refusals),
)]
pub(super) async fn tokenizer_info(State(api): State<Arc<Api>>) -> Json<Map<String, Value>> {
    let mut info = api.model.special_tokens.clone();
    info.insert("chat_template".to_owned(), api.model.chat_template.clone().into());
    Json(info)
}
