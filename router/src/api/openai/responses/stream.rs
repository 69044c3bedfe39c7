//! Streamed responses: named events as the output grows, around it the response itself.

use axum::response::Response;

use super::envelope::Envelope;
use super::events::{Event, Listener, Told};
use super::output::Output;
use super::{Answering, first};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::feed::{Broken, Feed};
use crate::api::observe::{Attendance, failed};
use crate::api::openai::answers::FinishReason;
use crate::api::openai::decode::Decoder;
use crate::api::sse::{self, Frame, Frames};
use crate::api::start::Running;
use crate::api::timing::Stopwatch;

/// Waits for the first token, so that what fails before it is a status, then sends events.
pub(super) async fn respond(api: &Api, running: Running, answering: Answering) -> Result<Response, ApiError> {
    let mut headers = api.headers(running.characters);
    let stopwatch = running.stopwatch.clone();
    let mut feed = first(running)?;
    feed.ready().await?;
    stopwatch.read(&feed.usage()).write_server_timing(&mut headers);
    let decoder = Decoder::new(api.prompts.table(), &answering.reply);
    let envelope = Envelope::new(answering.settings);
    let open = Open { feed, decoder, output: Output::default(), envelope, stopwatch, client: Attendance::new() };
    let mut told = Told::default();
    open.begin(&mut told);
    let mut response = sse::respond(Events { state: Some(open), told });
    response.headers_mut().extend(headers);
    Ok(response)
}

struct Events {
    /// `None` after the last token.
    state: Option<Open>,
    /// What is to be sent before the next token is waited for.
    told: Told,
}

/// A stream that has tokens to come.
struct Open {
    feed: Feed,
    decoder: Decoder,
    output: Output,
    envelope: Envelope,
    stopwatch: Stopwatch,
    client: Attendance,
}

impl Frames for Events {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.told.frames.pop_front() {
                return Some(frame);
            }
            let open = self.state.as_mut()?;
            match open.feed.next().await {
                Ok(token) => {
                    let step = open.decoder.push(&token);
                    let finish = step.finish;
                    open.output.push(step, &mut self.told);
                    if let Some(finish) = finish {
                        self.state.take()?.finished(finish, &mut self.told);
                    }
                }
                Err(broken) => self.state.take()?.broken(broken, &mut self.told),
            }
        }
    }
}

impl Open {
    fn begin(&self, told: &mut Told) {
        for r#type in ["response.created", "response.in_progress"] {
            let response = Some(self.envelope.growing(&self.output));
            told.tell(Event { r#type, response, ..Event::default() });
        }
    }

    fn finished(self, finish: FinishReason, told: &mut Told) {
        let usage = self.feed.usage();
        self.stopwatch.read(&usage).record(&usage);
        self.client.done();
        let cut = finish == FinishReason::Length;
        let r#type = if cut { "response.incomplete" } else { "response.completed" };
        let response = Some(self.envelope.finished(&self.output, finish, usage));
        told.tell(Event { r#type, response, ..Event::default() });
    }

    fn broken(mut self, broken: Broken, told: &mut Told) {
        self.client.done();
        self.output.abandon();
        let cut = broken.cuts_connection().then_some(Frame::Cut);
        let error = ApiError::from(broken);
        failed(error.kind());
        let response = Some(self.envelope.failed(&self.output, error.to_string()));
        told.tell(Event { r#type: "response.failed", response, ..Event::default() });
        told.frames.extend(cut);
    }
}
