//! `/v1/responses`, `OpenAI`'s newer way to ask: items instead of messages, named events instead of chunks. A request
//! is read into the same conversation as a chat and answered by the same reader; nothing is stored.

mod answers;
mod envelope;
mod events;
mod input;
mod output;
mod stream;
mod types;
mod validate;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use self::answers::{ResponseBody, Settings};
use self::envelope::Envelope;
use self::events::{Event, Nobody};
use self::output::Output;
use self::types::ResponsesBody;
use self::validate::Asked;
use super::decode::Decoder;
use super::validate::Reply;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::extract::ApiJson;
use crate::api::feed::Feed;
use crate::api::openapi::{GenerationRefusals, PICTURE};
use crate::api::start::Running;
use crate::api::timing::Stopwatch;
use crate::api::{Api, guided};

/// Answers a text or a conversation: one object, or with `stream` named events. Nothing is stored.
#[utoipa::path(
    post, path = "/v1/responses", tag = "OpenAI",
    request_body(content = ResponsesBody, examples(
        ("text" = (summary = "A question", value = json!({
            "instructions": "Be brief.", "input": "What can you do?", "max_output_tokens": 16, "temperature": 0,
        }))),
        ("image" = (summary = "A question about an image, streamed", value = json!({
            "input": [{"role": "user", "content": [
                {"type": "input_image", "image_url": PICTURE}, {"type": "input_text", "text": "What color is this?"},
            ]}],
            "max_output_tokens": 16, "seed": 42, "stream": true,
        }))),
        ("schema" = (summary = "An answer that follows a JSON schema", value = json!({
            "input": "How many legs has a rabbit?", "max_output_tokens": 32,
            "text": {"format": {"type": "json_schema", "name": "legs", "schema": {
                "type": "object", "properties": {"legs": {"type": "integer"}}, "required": ["legs"],
            }}},
        }))),
        ("tools" = (summary = "A function that was called, and one to call", value = json!({
            "input": [
                {"role": "user", "content": "How warm is it in Riga?"},
                {"type": "function_call", "call_id": "call_1", "name": "temperature", "arguments": "{\"city\": \"Riga\"}"},
                {"type": "function_call_output", "call_id": "call_1", "output": "21"},
            ],
            "tools": [{
                "type": "function", "name": "temperature", "description": "How warm it is in a city.",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
            }],
            "max_output_tokens": 64,
        }))),
    )),
    responses(
        (status = 200, description = "The answer.",
         content((ResponseBody<'_> = "application/json"), (Event<'_> = "text/event-stream"))),
        GenerationRefusals,
    ),
)]
pub(in crate::api) async fn responses(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<ResponsesBody>,
) -> Result<Response, ApiError> {
    let stopwatch = Stopwatch::start();
    let asked = Asked::validate(body, &api)?;
    let started = api.start(asked.request, stopwatch).await;
    let running = started.map_err(|error| error.renamed(guided::FIELD, asked.grammar_field))?;
    let answering = Answering { reply: asked.reply, settings: asked.settings };
    if asked.stream {
        return stream::respond(&api, running, answering).await;
    }
    collect(&api, running, answering).await
}

/// What is known about an answer before it begins.
struct Answering {
    reply: Reply,
    settings: Settings,
}

/// Reads the sequence to its end. Dropping the future cancels it.
async fn collect(api: &Api, running: Running, answering: Answering) -> Result<Response, ApiError> {
    let (characters, stopwatch) = (running.characters, running.stopwatch.clone());
    let mut feed = first(running)?;
    let mut decoder = Decoder::new(api.prompts.table(), &answering.reply);
    let (envelope, mut output) = (Envelope::new(answering.settings), Output::default());
    let finish = loop {
        let step = decoder.push(&feed.next().await?);
        let finish = step.finish;
        output.push(step, &mut Nobody);
        if let Some(finish) = finish {
            break finish;
        }
    };
    let usage = feed.usage();
    let headers = api.finished(characters, &stopwatch, &usage);
    Ok((headers, Json(envelope.finished(&output, finish, usage))).into_response())
}

/// The only sequence of a request.
fn first(running: Running) -> Result<Feed, ApiError> {
    let feed = running.feeds.into_iter().next();
    feed.ok_or_else(|| ApiError::new(ErrorKind::Incomplete, "Incomplete generation"))
}
