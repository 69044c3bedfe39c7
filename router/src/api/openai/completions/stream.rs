//! Streamed completions: chunks of one choice each as their tokens come, then usage if asked for, then `[DONE]`. Every
//! chunk that adds to a choice also carries its token in TGI's shape.

use std::collections::VecDeque;

use axum::response::Response;
use futures::FutureExt;
use futures::future::select_all;
use text_generation_scheduler::TokenId;

use super::decode::{ShownToken, Step};
use super::sequence::{self, Sequence};
use super::types::{Choice, Chunk, Native, OBJECT};
use super::validate::{Reply, UsageChunks};
use super::{FINGERPRINT, new_id, unix_seconds};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::feed::{Broken, Usage};
use crate::api::observe::{Attendance, failed};
use crate::api::openai::answers::UsageBody;
use crate::api::sse::{self, Frame, Frames};
use crate::api::start::Running;
use crate::api::tgi::{FinishReason, StreamDetails, Token};
use crate::api::timing::Stopwatch;
use crate::engine::GeneratedToken;

/// Waits for the first token of any choice, so that what fails before it is a status, then sends chunks.
pub(super) async fn respond(
    api: &Api,
    running: Vec<Running>,
    reply: Reply,
    stopwatch: Stopwatch,
) -> Result<Response, ApiError> {
    let characters = running.iter().map(|running| running.characters).sum();
    let stopwatch = running.first().map_or(stopwatch, |running| running.stopwatch.clone());
    let mut sequences = sequence::of_prompts(api, running, &reply);
    let feeds = sequences.iter_mut().filter_map(|sequence| sequence.feed.as_mut());
    select_all(feeds.map(|feed| feed.ready().boxed())).await.0?;
    let mut headers = api.headers(characters);
    stopwatch.read(&usage(&sequences, &reply)).write_server_timing(&mut headers);
    let envelope = Envelope { id: new_id(), created: unix_seconds(), model: reply.model.clone() };
    let open = Open { sequences, envelope, reply, stopwatch, client: Attendance::new() };
    let mut response = sse::respond(Chunks { state: Some(open), ready: VecDeque::new() });
    response.headers_mut().extend(headers);
    Ok(response)
}

struct Chunks {
    /// `None` after the last token of the last choice.
    state: Option<Open>,
    /// What is to be sent before the next token is waited for.
    ready: VecDeque<Frame>,
}

/// A stream that has tokens to come.
struct Open {
    sequences: Vec<Sequence>,
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

impl Frames for Chunks {
    async fn next(&mut self) -> Option<Frame> {
        while self.ready.is_empty() {
            let open = self.state.as_mut()?;
            match open.next_token().await {
                Ok((at, token)) => self.ready.extend(open.chunks(at, token)),
                Err(broken) => self.ready.extend(self.state.take()?.broken(broken)),
            }
            if self.state.as_ref().is_some_and(Open::is_over) {
                self.ready.extend(self.state.take()?.finished());
            }
        }
        self.ready.pop_front()
    }
}

impl Open {
    /// The next token of whichever choice has one first.
    async fn next_token(&mut self) -> Result<(usize, GeneratedToken), Broken> {
        let open = self.sequences.iter_mut().enumerate().filter(|(_, sequence)| sequence.feed.is_some());
        let waits = open.map(|(at, sequence)| async move { (at, sequence.next().await) }.boxed());
        let ((at, token), _, _) = select_all(waits).await;
        Ok((at, token?))
    }

    fn is_over(&self) -> bool {
        self.sequences.iter().all(|sequence| sequence.feed.is_none())
    }

    /// One chunk for each token that may be shown now; none when the token adds nothing yet.
    fn chunks(&mut self, at: usize, token: GeneratedToken) -> Vec<Frame> {
        let Some(sequence) = self.sequences.get_mut(at) else { return Vec::new() };
        let latest = token.id;
        let Step { mut prompt, mut text, tokens, finish } = sequence.push(token);
        if prompt.is_empty() && text.is_empty() && tokens.is_empty() && finish.is_none() {
            return Vec::new();
        }
        let sequence = &self.sequences[at];
        let count = tokens.len();
        if count == 0 {
            return vec![self.bare(sequence, latest, Step { prompt, text, tokens, finish })];
        }
        let chunk = |(number, token): (usize, ShownToken)| {
            let (prompt, text) = (std::mem::take(&mut prompt), std::mem::take(&mut text));
            let finish = finish.filter(|_| number + 1 == count);
            self.chunk(sequence, Step { prompt, text, tokens: vec![token], finish })
        };
        tokens.into_iter().enumerate().map(chunk).collect()
    }

    /// A chunk of one token.
    fn chunk(&self, sequence: &Sequence, step: Step) -> Frame {
        let (most, table) = (self.reply.top_tokens, sequence.table());
        let token = step.tokens.first();
        let top_tokens = token.map(|token| token.native_top(most, table)).unwrap_or_default();
        let native = Native { token: token.map(|token| token.native(table)), top_tokens, details: None };
        self.frame(sequence, step, native)
    }

    /// A chunk whose tokens may not be shown, or not yet. Its `token` has no text: clients read one in every event.
    fn bare(&self, sequence: &Sequence, latest: TokenId, step: Step) -> Frame {
        let special = sequence.table().is_special(latest);
        let token = Token { id: latest, text: String::new(), logprob: 0.0, special };
        let token = (!self.reply.prompt_only).then_some(token);
        self.frame(sequence, step, Native { token, ..Native::default() })
    }

    fn frame(&self, sequence: &Sequence, step: Step, native: Native) -> Frame {
        let details = step.finish.filter(|_| self.reply.details).map(|finish| details(sequence, finish));
        let choice = Choice {
            index: sequence.index,
            text: step.text,
            logprobs: sequence.logprobs(&step.prompt, &step.tokens, &self.reply),
            finish_reason: step.finish.map(Into::into),
            details: None,
        };
        let continuous = self.reply.usage == UsageChunks::All;
        let usage = continuous.then(|| usage(&self.sequences, &self.reply));
        self.envelope.frame(vec![choice], usage, Native { details, ..native })
    }

    fn finished(self) -> VecDeque<Frame> {
        let usage = usage(&self.sequences, &self.reply);
        self.stopwatch.read(&usage).record(&usage);
        self.client.done();
        let told = self.reply.usage != UsageChunks::None;
        let counted = told.then(|| self.envelope.frame(Vec::new(), Some(usage), Native::default()));
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

impl Envelope {
    fn frame(&self, choices: Vec<Choice>, usage: Option<Usage>, native: Native) -> Frame {
        Frame::json(&Chunk {
            id: &self.id,
            object: OBJECT,
            created: self.created,
            model: &self.model,
            system_fingerprint: FINGERPRINT,
            choices,
            usage: usage.map(UsageBody::from),
            native,
        })
    }
}

fn details(sequence: &Sequence, finish: FinishReason) -> StreamDetails {
    StreamDetails {
        finish_reason: finish,
        generated_tokens: sequence.usage.generated_tokens,
        seed: sequence.seed,
        input_length: sequence.usage.prompt_tokens,
    }
}

/// Each prompt counts once, what was generated of it adds up.
fn usage(sequences: &[Sequence], reply: &Reply) -> Usage {
    let prompts = sequences.chunks(reply.seeds.len().max(1));
    Usage::of_prompts(prompts.map(|prompt| Usage::of_all(prompt.iter().map(|sequence| sequence.usage))))
}

fn done() -> Frame {
    Frame::Event("[DONE]".to_owned())
}
