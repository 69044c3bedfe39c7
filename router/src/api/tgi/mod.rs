//! TGI's routes: `/`, `/generate`, `/generate_stream`, `/tokenize`.

mod decode;
mod generate;
mod stream;
mod tokenize;
mod types;
mod validate;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

pub(super) use self::types::{
    Details, FinishReason, GenerateBody, Inputs, PrefillToken, SimpleToken, StreamDetails, Token,
};
use self::types::{GenerateResponse, StreamResponse};
use self::validate::{Call, Mode};
use super::Api;
use super::error::ApiError;
use super::extract::ApiJson;
use super::openapi::{GenerationRefusals, IMAGE_PROMPT};
use super::timing::Stopwatch;

/// Continues a prompt and answers with one object.
#[utoipa::path(
    post, path = "/generate", tag = "TGI",
    request_body(content = GenerateBody, examples(
        ("text" = (summary = "A text", value = json!({
            "inputs": "What is a rabbit?", "parameters": {"max_new_tokens": 16},
        }))),
        ("image" = (summary = "An image in the prompt", value = json!({
            "inputs": IMAGE_PROMPT, "parameters": {"max_new_tokens": 16, "temperature": 0.5, "seed": 42},
        }))),
        ("prefill" = (summary = "The tokens of the prompt too", value = json!({
            "inputs": "What is a rabbit?", "parameters": {"max_new_tokens": 4, "decoder_input_details": true},
        }))),
        ("regex" = (summary = "A number for an answer", value = json!({
            "inputs": "How many legs has a rabbit?",
            "parameters": {"max_new_tokens": 8, "grammar": {"type": "regex", "value": "[0-9]{1,3}"}},
        }))),
    )),
    responses((status = 200, description = "The answer.", body = GenerateResponse), GenerationRefusals),
)]
pub(super) async fn generate(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<GenerateBody>,
) -> Result<Response, ApiError> {
    let stopwatch = Stopwatch::start();
    let call = Call::validate(body, &api, Mode::Whole)?;
    let running = api.start(call.request, stopwatch).await?;
    let (answer, headers) = generate::collect(&api, running, call.reply).await?;
    Ok((headers, Json(answer)).into_response())
}

/// Continues a prompt and answers with an event for each token.
#[utoipa::path(
    post, path = "/generate_stream", tag = "TGI",
    request_body(content = GenerateBody, examples(
        ("text" = (summary = "A text", value = json!({
            "inputs": "What is a rabbit?", "parameters": {"max_new_tokens": 16},
        }))),
        ("image" = (summary = "An image in the prompt", value = json!({
            "inputs": IMAGE_PROMPT, "parameters": {"max_new_tokens": 16, "temperature": 0.5, "seed": 42},
        }))),
    )),
    responses(
        (status = 200, description = "Events.", content((StreamResponse = "text/event-stream"))), GenerationRefusals,
    ),
)]
pub(super) async fn generate_stream(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<GenerateBody>,
) -> Result<Response, ApiError> {
    let stopwatch = Stopwatch::start();
    let call = Call::validate(body, &api, Mode::Stream)?;
    let running = api.start(call.request, stopwatch).await?;
    stream::respond(&api, running, call.reply).await
}

/// Continues a prompt and answers with a list of one object, or with `stream` as `/generate_stream`.
///
/// What clients of the Hub use. A text model repeats the prompt unless `return_full_text` is false.
#[utoipa::path(
    post, path = "/", tag = "TGI",
    request_body(content = GenerateBody, examples(
        ("text" = (summary = "A text", value = json!({
            "inputs": "What is a rabbit?", "parameters": {"max_new_tokens": 16},
        }))),
        ("image" = (summary = "An image in the prompt", value = json!({
            "inputs": IMAGE_PROMPT, "parameters": {"max_new_tokens": 16, "temperature": 0.5, "seed": 42},
        }))),
    )),
    responses(
        (status = 200, description = "The answer.",
         content((Vec<GenerateResponse> = "application/json"), (StreamResponse = "text/event-stream"))),
        GenerationRefusals,
    ),
)]
pub(super) async fn compat(
    State(api): State<Arc<Api>>,
    ApiJson(mut body): ApiJson<GenerateBody>,
) -> Result<Response, ApiError> {
    let stopwatch = Stopwatch::start();
    let mode = if body.stream == Some(true) { Mode::Stream } else { Mode::Whole };
    repeat_prompt_like_the_hub(&mut body, &api);
    let call = Call::validate(body, &api, mode)?;
    let running = api.start(call.request, stopwatch).await?;
    if mode == Mode::Stream {
        return stream::respond(&api, running, call.reply).await;
    }
    let (answer, headers) = generate::collect(&api, running, call.reply).await?;
    Ok((headers, Json([answer])).into_response())
}

/// The generated text alone, for a route with an answer of its own shape.
pub(super) async fn generated_text(api: &Api, body: GenerateBody) -> Result<String, ApiError> {
    let stopwatch = Stopwatch::start();
    let call = Call::validate(body, api, Mode::Whole)?;
    let running = api.start(call.request, stopwatch).await?;
    Ok(generate::collect(api, running, call.reply).await?.0.generated_text)
}

/// TGI's answer of `/tokenize`.
pub(super) async fn tokens(api: &Api, body: GenerateBody) -> Result<Vec<SimpleToken>, ApiError> {
    tokenize::tokenize(api, body.inputs).await
}

/// On `/` a text model repeats its prompt unless told not to; a model that looks at pictures does not.
fn repeat_prompt_like_the_hub(body: &mut GenerateBody, api: &Api) {
    let repeats = match api.model.pipeline_tag.as_deref() {
        Some(tag) => tag == "text-generation",
        None => api.images.is_none(),
    };
    let parameters = body.parameters.get_or_insert_with(validate::sampling_on);
    parameters.return_full_text.get_or_insert(repeats);
}
