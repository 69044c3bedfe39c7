//! OpenAI's routes, `/v1/chat/completions`, `/v1/completions`, `/v1/responses` and `/v1/models`, and TGI's
//! `/chat_tokenize` for the body of a chat.

mod answers;
mod bias;
mod chat;
mod completions;
mod conversation;
mod decode;
mod models;
mod responses;
mod schemas;
mod stream;
pub(super) mod tools;
mod types;
mod validate;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use self::answers::{ChatCompletion, ChatTokens, Chunk};
pub(super) use self::completions::{__path_completions, CompletionBody, completions};
pub(super) use self::models::{__path_model, __path_models, model, models};
pub(super) use self::responses::{__path_responses, responses};
pub(super) use self::types::ChatBody;
use self::validate::Chat;
use super::error::ApiError;
use super::extract::ApiJson;
use super::openapi::{GenerationRefusals, PICTURE, Refusals};
use super::timing::Stopwatch;
use super::{Api, guided, media};
use crate::prompt::Tokenized;

/// Continues a conversation: one object, or with `stream` an event for each piece of the answer and `[DONE]`.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "OpenAI",
    request_body(content = ChatBody, examples(
        ("text" = (summary = "A question", value = json!({
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What can you do?"}],
            "max_tokens": 16, "temperature": 0,
        }))),
        ("image" = (summary = "A question about an image, streamed", value = json!({
            "messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "What color is this?"},
            ]}],
            "max_tokens": 16, "seed": 42, "stream": true, "stream_options": {"include_usage": true},
        }))),
        ("schema" = (summary = "An answer that follows a JSON schema", value = json!({
            "messages": [{"role": "user", "content": "How many legs has a rabbit?"}], "max_tokens": 32,
            "response_format": {"type": "json_schema", "json_schema": {"name": "legs", "schema": {
                "type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"],
            }}},
        }))),
        ("tools" = (summary = "A function to call", value = json!({
            "messages": [{"role": "user", "content": "How warm is it in Riga?"}], "max_tokens": 64,
            "tools": [{"type": "function", "function": {
                "name": "temperature", "description": "How warm it is in a city.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            }}],
            "tool_choice": "auto",
        }))),
    )),
    responses(
        (status = 200, description = "The answer.",
         content((ChatCompletion<'_> = "application/json"), (Chunk<'_> = "text/event-stream"))),
        GenerationRefusals,
    ),
)]
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

/// The tokens a chat would be answered from, and the text they were made of.
#[utoipa::path(
    post, path = "/chat_tokenize", tag = "TGI", operation_id = "chat_tokenize",
    request_body(content = ChatBody, example = json!({"messages": [{"role": "user", "content": "Hello!"}]})),
    responses((status = 200, description = "The tokens.", body = ChatTokens), Refusals),
)]
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
