//! Streamed answers: chunks of one choice each as their tokens come, then usage if asked for, then `[DONE]`.

use std::collections::VecDeque;

use axum::response::Response;
use futures::FutureExt;
use futures::future::select_all;

use super::answers::{Chunk, ChunkChoice, Delta, UsageBody};
use super::chat::{ASSISTANT, FINGERPRINT, new_id, unix_seconds};
use super::decode::{Decoder, Step};
use super::validate::Reply;
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::feed::{Broken, Feed, Usage};
use crate::api::observe::{Attendance, failed};
use crate::api::sse::{self, Frame, Frames};
use crate::api::start::Running;
use crate::api::timing::Stopwatch;
use crate::engine::GeneratedToken;

/// Waits for the first token of any choice, so that what fails before it is a status, then sends chunks.
pub(super) async fn respond(api: &Api, running: Running, reply: Reply) -> Result<Response, ApiError> {
    let choices = running.feeds.into_iter().zip(0..).map(|(feed, index)| Choice {
        index,
        usage: feed.usage(),
        feed: Some(feed),
        decoder: Decoder::new(api.prompts.table(), &reply),
        opened: false,
    });
    let mut choices: Vec<_> = choices.collect();
    let feeds = choices.iter_mut().filter_map(|choice| choice.feed.as_mut());
    select_all(feeds.map(|feed| feed.ready().boxed())).await.0?;
    let mut headers = api.headers(running.characters);
    let usage = usage(&choices);
    running.stopwatch.read(&usage).write_server_timing(&mut headers);
    let envelope = Envelope { id: new_id(), created: unix_seconds(), model: reply.model.clone() };
    let open = Open { choices, envelope, reply, stopwatch: running.stopwatch, client: Attendance::new() };
    let mut response = sse::respond(Chunks { state: Some(open), ending: VecDeque::new() });
    response.headers_mut().extend(headers);
    Ok(response)
}

struct Chunks {
    /// `None` after the last token of the last choice.
    state: Option<Open>,
    /// What is still to be said then.
    ending: VecDeque<Frame>,
}

/// A stream that has tokens to come.
struct Open {
    choices: Vec<Choice>,
    envelope: Envelope,
    reply: Reply,
    stopwatch: Stopwatch,
    client: Attendance,
}

/// What is the same in every chunk.
struct Envelope {
    id: String,
    created: u64,
    model: String,
}

/// One of `n` answers.
struct Choice {
    index: u32,
    /// `None` once the answer is complete: a sequence that met a stop string would run on otherwise.
    feed: Option<Feed>,
    /// As of the latest token.
    usage: Usage,
    decoder: Decoder,
    /// Whether a chunk has been sent.
    opened: bool,
}

impl Frames for Chunks {
    async fn next(&mut self) -> Option<Frame> {
        while let Some(open) = &mut self.state {
            let frame = match open.next_token().await {
                Ok((choice, token)) => open.chunk(choice, &token),
                Err(broken) => {
                    self.ending = self.state.take()?.broken(broken);
                    break;
                }
            };
            if open.choices.iter().all(|choice| choice.feed.is_none()) {
                self.ending = self.state.take()?.finished();
            }
            if frame.is_some() {
                return frame;
            }
        }
        self.ending.pop_front()
    }
}

impl Open {
    /// The next token of whichever choice has one first.
    async fn next_token(&mut self) -> Result<(usize, GeneratedToken), Broken> {
        let feeds = self.choices.iter_mut().enumerate().filter_map(|(at, choice)| Some((at, choice.feed.as_mut()?)));
        let waits = feeds.map(|(at, feed)| async move { (at, feed.next().await) }.boxed());
        let ((at, token), _, _) = select_all(waits).await;
        Ok((at, token?))
    }

    /// `None` when the token adds nothing that may be shown yet.
    fn chunk(&mut self, at: usize, token: &GeneratedToken) -> Option<Frame> {
        let choice = self.choices.get_mut(at)?;
        let step = choice.push(token);
        let says = !step.text.is_empty() || !step.calls.is_empty();
        let quiet = !says && step.logprobs.as_ref().is_none_or(|logprobs| logprobs.content.is_empty());
        if quiet && step.finish.is_none() {
            return None;
        }
        let choice = choice.add(step);
        let usage = self.reply.continuous_usage.then(|| usage(&self.choices));
        Some(self.envelope.frame(vec![choice], usage))
    }

    fn finished(self) -> VecDeque<Frame> {
        let usage = usage(&self.choices);
        self.stopwatch.read(&usage).record(&usage);
        self.client.done();
        let counted = self.reply.include_usage.then(|| self.envelope.frame(Vec::new(), Some(usage)));
        counted.into_iter().chain([done()]).collect()
    }

    fn broken(self, broken: Broken) -> VecDeque<Frame> {
        self.client.done();
        let cut = broken.cuts_connection().then_some(Frame::Cut);
        let error = ApiError::from(broken);
        failed(error.kind());
        [Frame::json(&error.openai_body()), done()].into_iter().chain(cut).collect()
    }
}

impl Choice {
    fn push(&mut self, token: &GeneratedToken) -> Step {
        let step = self.decoder.push(token);
        self.usage = self.feed.as_ref().map_or(self.usage, Feed::usage);
        if step.finish.is_some() {
            self.feed = None;
        }
        step
    }

    fn add(&mut self, step: Step) -> ChunkChoice {
        let role = (!self.opened).then_some(ASSISTANT);
        self.opened = true;
        let only_calls = step.text.is_empty() && !step.calls.is_empty() && step.finish.is_none();
        let content = (!only_calls).then_some(step.text);
        let delta = Delta { role, content, tool_calls: step.calls.into_iter().map(Into::into).collect() };
        ChunkChoice { index: self.index, delta, logprobs: step.logprobs, finish_reason: step.finish }
    }
}

impl Envelope {
    fn frame(&self, choices: Vec<ChunkChoice>, usage: Option<Usage>) -> Frame {
        Frame::json(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: usage.map(UsageBody::from),
        })
    }
}

fn usage(choices: &[Choice]) -> Usage {
    Usage::of_all(choices.iter().map(|choice| choice.usage))
}

fn done() -> Frame {
    Frame::Event("[DONE]".to_owned())
}
