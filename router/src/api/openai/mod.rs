//! OpenAI's routes, `/v1/chat/completions`, `/v1/completions` and `/v1/models`, and TGI's `/chat_tokenize` for the same body.

mod bias;
mod chat;
mod completions;
mod conversation;
mod decode;
mod stream;
mod types;
mod validate;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

pub(super) use self::completions::completions;
use self::types::{ChatBody, ChatTokens, ModelBody, ModelList};
use self::validate::Chat;
use super::error::{ApiError, ErrorKind};
use super::extract::ApiJson;
use super::timing::Stopwatch;
use super::{Api, media};

/// `POST /v1/chat/completions`.
pub(super) async fn chat(State(api): State<Arc<Api>>, ApiJson(body): ApiJson<ChatBody>) -> Result<Response, ApiError> {
    let stopwatch = Stopwatch::start();
    let chat = Chat::validate(body, &api)?;
    let running = api.start(chat.request, stopwatch).await?;
    if chat.stream {
        return stream::respond(&api, running, chat.reply).await;
    }
    let (answer, headers) = chat::collect(&api, running, &chat.reply).await?;
    Ok((headers, answer).into_response())
}

/// `POST /chat_tokenize`: the tokens a chat would be answered from, and the text they were made of.
pub(super) async fn tokenize(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<ChatBody>,
) -> Result<Json<ChatTokens>, ApiError> {
    let chat = validate::conversation(body.messages, body.tools, body.tool_choice.as_ref(), &api)?;
    let images = media::load(&api, chat.image_urls).await?;
    let tokenized = api.prompts.tokenize_chat(chat.conversation, images).await?;
    let tokenize_response = tokenized.tokens.into_iter().map(Into::into).collect();
    Ok(Json(ChatTokens { tokenize_response, templated_text: tokenized.text }))
}

/// `GET /v1/models`.
pub(super) async fn models(State(api): State<Arc<Api>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: vec![served(&api)] })
}

/// `GET /v1/models/{id}`; a slash in the id may be raw or encoded.
pub(super) async fn model(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<ModelBody>, ApiError> {
    if id == api.model.id {
        return Ok(Json(served(&api)));
    }
    Err(ApiError::new(ErrorKind::NotFound, "no such model"))
}

fn served(api: &Api) -> ModelBody {
    let id = api.model.id.clone();
    ModelBody { owned_by: id.clone(), id, object: "model", created: 0 }
}
