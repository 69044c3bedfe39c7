//! `POST /v1/completions`: text, or token ids, continued as they are. One request may bring several prompts; each is
//! started like a request of its own, and the answer lists what became of all of them.

mod decode;
mod prompt;
mod sequence;
mod stream;
mod types;
mod validate;
mod whole;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures::future::try_join_all;

pub(in crate::api) use self::types::CompletionBody;
use self::types::{Chunk, Completion};
use self::validate::Completions;
use super::answers::FinishReason;
use super::chat::{FINGERPRINT, unix_seconds};
use crate::api::error::ApiError;
use crate::api::extract::ApiJson;
use crate::api::openapi::{GenerationRefusals, IMAGE_PROMPT};
use crate::api::timing::Stopwatch;
use crate::api::{Api, guided, head, tgi};

/// Continues a prompt, or several, as they are: one object, or with `stream` an event for each piece and `[DONE]`.
#[utoipa::path(
    post, path = "/v1/completions", tag = "OpenAI",
    request_body(content = CompletionBody, examples(
        ("text" = (summary = "A text", value = json!({
            "prompt": "What is a rabbit?", "max_tokens": 16, "temperature": 0,
        }))),
        ("image" = (summary = "An image in the prompt, streamed", value = json!({
            "prompt": IMAGE_PROMPT, "max_tokens": 16, "seed": 42, "stream": true,
            "stream_options": {"include_usage": true},
        }))),
        ("several" = (summary = "Two prompts with log-probabilities", value = json!({
            "prompt": ["What is a rabbit?", "What is a fox?"], "max_tokens": 8, "logprobs": 2,
        }))),
        ("scores" = (summary = "How probable the prompt itself is", value = json!({
            "prompt": [10, 11, 12], "max_tokens": 0, "echo": true, "logprobs": 1,
        }))),
    )),
    responses(
        (status = 200, description = "The continuations.",
         content((Completion<'_> = "application/json"), (Chunk<'_> = "text/event-stream"))),
        GenerationRefusals,
    ),
)]
pub(in crate::api) async fn completions(
    State(api): State<Arc<Api>>,
    ApiJson(body): ApiJson<CompletionBody>,
) -> Result<Response, ApiError> {
    let stopwatch = Stopwatch::start();
    let Completions { requests, grammar_field, reply, stream } = Completions::validate(body, &api)?;
    // Every one takes its permits before any of them waits for something.
    let started = try_join_all(requests.into_iter().map(|request| api.start(request, stopwatch.clone()))).await;
    let running = started.map_err(|error| error.renamed(guided::FIELD, grammar_field))?;
    if stream {
        return stream::respond(&api, running, reply, stopwatch).await;
    }
    whole::respond(&api, running, &reply).await
}

/// An id for an answer.
fn new_id() -> String {
    format!("cmpl-{}", head::random_id())
}

impl From<tgi::FinishReason> for FinishReason {
    fn from(finish: tgi::FinishReason) -> Self {
        match finish {
            tgi::FinishReason::Length => Self::Length,
            tgi::FinishReason::EosToken | tgi::FinishReason::StopSequence => Self::Stop,
        }
    }
}
