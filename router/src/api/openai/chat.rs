//! Complete answers: every sequence is read to its end and becomes a choice.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;
use http::HeaderMap;

use super::answers::{
    AnswerMessage, CallBody, ChatCompletion, Choice, FunctionBody, Logprobs, PromptTokensDetails, UsageBody,
};
use super::decode::Decoder;
use super::tools::CallDelta;
use super::validate::Reply;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::feed::{Feed, Usage};
use crate::api::start::Running;
use crate::api::{Api, head};

/// Who answers.
pub(super) const ASSISTANT: &str = "assistant";
/// Version and build, as TGI spells it.
pub(super) const FINGERPRINT: &str = concat!(env!("CARGO_PKG_VERSION"), "-native");

/// Reads all sequences at once. Dropping the future cancels them.
pub(super) async fn collect(api: &Api, running: Running, reply: &Reply) -> Result<(Response, HeaderMap), ApiError> {
    let feeds = running.feeds.into_iter().zip(0..);
    let read = try_join_all(feeds.map(|(feed, index)| read(api, feed, reply, index))).await?;
    let (choices, usages): (Vec<_>, Vec<_>) = read.into_iter().unzip();
    let usage = Usage::of_all(usages);
    let headers = api.finished(running.characters, &running.stopwatch, &usage);
    let completion = ChatCompletion {
        id: &new_id(),
        object: "chat.completion",
        created: unix_seconds(),
        model: &reply.model,
        system_fingerprint: FINGERPRINT,
        choices,
        usage: usage.into(),
    };
    Ok((Json(completion).into_response(), headers))
}

/// The text of the first answer.
pub(super) async fn text(api: &Api, running: Running, reply: &Reply) -> Result<String, ApiError> {
    let Some(feed) = running.feeds.into_iter().next() else {
        return Err(ApiError::new(ErrorKind::Incomplete, "Incomplete generation"));
    };
    let (choice, usage) = read(api, feed, reply, 0).await?;
    running.stopwatch.read(&usage).record(&usage);
    Ok(choice.message.content.unwrap_or_default())
}

async fn read(api: &Api, mut feed: Feed, reply: &Reply, index: u32) -> Result<(Choice, Usage), ApiError> {
    let mut decoder = Decoder::new(api.prompts.table(), reply);
    let (mut content, mut calls, mut logprobs) = (String::new(), Vec::new(), Vec::new());
    let finish_reason = loop {
        let step = decoder.push(&feed.next().await?);
        content.push_str(&step.text);
        step.calls.into_iter().for_each(|delta| add(&mut calls, delta));
        logprobs.extend(step.logprobs.into_iter().flat_map(|logprobs| logprobs.content));
        if let Some(finish) = step.finish {
            break finish;
        }
    };
    let content = (!content.is_empty() || calls.is_empty()).then_some(content);
    let message = AnswerMessage { role: ASSISTANT, content, tool_calls: calls };
    let logprobs = reply.logprobs.then_some(Logprobs { content: logprobs });
    Ok((Choice { index, message, logprobs, finish_reason }, feed.usage()))
}

/// Adds a piece to the call it belongs to, which begins with its head.
fn add(calls: &mut Vec<CallBody>, delta: CallDelta) {
    if let Some(head) = delta.head {
        let function = FunctionBody { name: head.name, ..FunctionBody::default() };
        calls.push(CallBody { id: head.id, function, ..CallBody::default() });
    }
    if let Some(call) = calls.get_mut(delta.index as usize) {
        call.function.arguments.push_str(&delta.arguments);
    }
}

/// An id for an answer.
pub(super) fn new_id() -> String {
    format!("chatcmpl-{}", head::random_id())
}

/// Now, as the API counts.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.generated_tokens,
            total_tokens: usage.prompt_tokens + usage.generated_tokens,
            prompt_tokens_details: PromptTokensDetails {
                cached_tokens: usage.cached_tokens,
                image_tokens: usage.image_tokens,
            },
        }
    }
}
