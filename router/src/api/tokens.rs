//! `/tokenize` in two dialects, and vLLM's `/detokenize` and `/tokenizer_info`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use text_generation_scheduler::TokenId;

use super::error::ApiError;
use super::extract::ApiJson;
use super::openai::ChatBody;
use super::tgi::GenerateBody;
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
#[derive(Deserialize)]
pub(super) struct PromptBody {
    prompt: String,
    #[serde(flatten)]
    extras: Extras,
}

/// What vLLM's body may ask for besides.
#[derive(Deserialize)]
pub(super) struct Extras {
    add_special_tokens: Option<bool>,
    add_generation_prompt: Option<bool>,
    return_token_strs: Option<bool>,
}

/// vLLM's answer.
#[derive(Serialize)]
struct TokenCount {
    count: usize,
    max_model_len: u32,
    tokens: Vec<TokenId>,
    /// `null` unless asked for.
    token_strs: Option<Vec<String>>,
}

/// `POST /detokenize`.
#[derive(Deserialize)]
pub(super) struct DetokenizeBody {
    tokens: Vec<TokenId>,
}

/// The text of token ids, special ones included.
#[derive(Serialize)]
pub(super) struct DetokenizedText {
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

/// `POST /tokenize`.
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

/// `POST /detokenize`.
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

/// `GET /tokenizer_info`: what evaluation tools ask of a tokenizer: its special tokens by name and the chat template.
pub(super) async fn tokenizer_info(State(api): State<Arc<Api>>) -> Json<Map<String, Value>> {
    let mut info = api.model.special_tokens.clone();
    info.insert("chat_template".to_owned(), api.model.chat_template.clone().into());
    Json(info)
}
