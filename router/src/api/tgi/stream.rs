//! Streamed answers: one event a token, the last with the whole text.

use axum::response::Response;

use super::decode::{Decoder, Step};
use super::types::{FinishReason, StreamDetails, StreamResponse};
use super::validate::Reply;
use crate::api::Api;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::feed::{Broken, Feed};
use crate::api::observe::{Attendance, failed};
use crate::api::sse::{self, Frame, Frames};
use crate::api::start::Running;
use crate::api::timing::Stopwatch;

/// Waits for the first token, so that what fails before it is a status, then sends events.
pub(super) async fn respond(api: &Api, running: Running, reply: Reply) -> Result<Response, ApiError> {
    let Some(mut feed) = running.feeds.into_iter().next() else {
        return Err(ApiError::new(ErrorKind::Incomplete, "Incomplete generation"));
    };
    feed.ready().await?;
    let mut headers = api.headers(running.characters);
    running.stopwatch.read(&feed.usage()).write_server_timing(&mut headers);
    let decoder = Decoder::new(api.prompts.table(), reply.stops.clone());
    let state = Some(Open { feed, decoder, reply, stopwatch: running.stopwatch, client: Attendance::new() });
    let mut response = sse::respond(Events { state, cut: false });
    response.headers_mut().extend(headers);
    Ok(response)
}

struct Events {
    /// `None` after the last event.
    state: Option<Open>,
    /// Whether the end must not look clean.
    cut: bool,
}

/// A stream that has tokens to come.
struct Open {
    feed: Feed,
    decoder: Decoder,
    reply: Reply,
    stopwatch: Stopwatch,
    client: Attendance,
}

impl Frames for Events {
    async fn next(&mut self) -> Option<Frame> {
        let Some(open) = &mut self.state else { return std::mem::take(&mut self.cut).then_some(Frame::Cut) };
        let frame = match open.feed.next().await {
            Ok(token) => {
                let step = open.decoder.push(&token);
                let index = open.feed.usage().generated_tokens;
                match step.finish {
                    None => Frame::json(&event(index, step, None, None)),
                    Some(finish) => self.state.take()?.last(index, step, finish),
                }
            }
            Err(broken) => {
                self.cut = broken.cuts_connection();
                self.state.take()?.broken(broken)
            }
        };
        Some(frame)
    }
}

impl Open {
    fn last(self, index: u32, step: Step, finish: FinishReason) -> Frame {
        let usage = self.feed.usage();
        self.stopwatch.read(&usage).record(&usage);
        self.client.done();
        let details = StreamDetails {
            finish_reason: finish,
            generated_tokens: usage.generated_tokens,
            seed: self.reply.seeds.first().copied().filter(|_| self.reply.sampled),
            input_length: usage.prompt_tokens,
        };
        let text = self.decoder.into_text(&self.reply.full_text);
        Frame::json(&event(index, step, Some(text), self.reply.details.then_some(details)))
    }

    fn broken(self, broken: Broken) -> Frame {
        self.client.done();
        let error = match broken {
            Broken::Ended => ApiError::new(ErrorKind::IncompleteStream, "Incomplete generation stream"),
            Broken::Failed(_) => broken.into(),
        };
        failed(error.kind());
        Frame::json(&error.tgi_body())
    }
}

fn event(index: u32, step: Step, generated_text: Option<String>, details: Option<StreamDetails>) -> StreamResponse {
    StreamResponse { index, token: step.token, top_tokens: step.top_tokens, generated_text, details }
}
