//! OpenAI's routes, `/v1/chat/completions`, `/v1/completions` and `/v1/models`, and TGI's `/chat_tokenize` for the same body.

mod bias;
mod chat;
mod completions;
mod conversation;
mod decode;
mod stream;
pub(super) mod tools;
mod types;
mod validate;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};

pub(super) use self::completions::{CompletionBody, completions};
pub(super) use self::types::ChatBody;
use self::types::{ChatTokens, ModelBody, ModelList};
use self::validate::Chat;
use super::error::{ApiError, ErrorKind};
use super::extract::ApiJson;
use super::timing::Stopwatch;
use super::{Api, guided, media};
use crate::prompt::Tokenized;

/// `POST /v1/chat/completions`.
pub(super) async fn chat(State(api): State<Arc<Api>>, ApiJson(body): ApiJson<ChatBody>) -> Result<Response, ApiError> {
    let stopwatch = Stopwatch::start();
    let chat = Chat::validate(body, &api)?;
    let started = api.start(chat.request, stopwatch).await;
    let running = started.map_err(|error| error.renamed(guided::FIELD, chat.grammar_field))?;
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
    let tokenized = tokens(&api, body).await?;
    let tokenize_response = tokenized.tokens.into_iter().map(Into::into).collect();
    Ok(Json(ChatTokens { tokenize_response, templated_text: tokenized.text }))
}

/// The tokens a chat would be answered from.
pub(super) async fn tokens(api: &Api, mut body: ChatBody) -> Result<Tokenized, ApiError> {
    let offer = body.take_tools().offer(&api.limits)?;
    let chat = validate::conversation(body.messages, offer.as_ref(), api)?;
    let images = media::load(api, chat.image_urls).await?;
    Ok(api.prompts.tokenize_chat(chat.conversation, images).await?)
}

/// The text of the first answer alone, for a route with an answer of its own shape.
pub(super) async fn answer_text(api: &Api, body: ChatBody) -> Result<String, ApiError> {
    let stopwatch = Stopwatch::start();
    let chat = Chat::validate(body, api)?;
    let started = api.start(chat.request, stopwatch).await;
    let running = started.map_err(|error| error.renamed(guided::FIELD, chat.grammar_field))?;
    chat::text(api, running, &chat.reply).await
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
