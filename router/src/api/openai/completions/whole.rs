//! Complete answers: every continuation of every prompt is read to its end and becomes a choice.

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;
use http::HeaderMap;

use super::decode::{ShownToken, Step};
use super::sequence::{self, Sequence};
use super::types::{Choice, Completion, OBJECT};
use super::validate::Reply;
use super::{FINGERPRINT, new_id, unix_seconds};
use crate::api::error::ApiError;
use crate::api::feed::Usage;
use crate::api::start::Running;
use crate::api::tgi::{Details, FinishReason};
use crate::api::timing::Timings;
use crate::api::{Api, timing};

/// A prompt's choices and what they cost.
struct Answered {
    choices: Vec<Choice>,
    usage: Usage,
    timings: Timings,
}

/// A continuation that was read to its end.
struct Ended {
    sequence: Sequence,
    /// The prompt, if it was scored.
    prompt: Vec<ShownToken>,
    text: String,
    tokens: Vec<ShownToken>,
    finish: FinishReason,
}

/// Reads all sequences at once. Dropping the future cancels them.
pub(super) async fn respond(api: &Api, running: Vec<Running>, reply: &Reply) -> Result<Response, ApiError> {
    let characters = running.iter().map(|running| running.characters).sum();
    let stopwatch = running.first().map(|running| running.stopwatch.clone());
    let prompts = running.into_iter().enumerate();
    let answered = try_join_all(prompts.map(|(number, running)| answer(api, running, number, reply))).await?;
    let usage = Usage::of_prompts(answered.iter().map(|prompt| prompt.usage));
    let mut headers = api.headers(characters);
    if let Some(stopwatch) = stopwatch {
        let timings = stopwatch.read(&usage);
        timings.record(&usage);
        timings.write_server_timing(&mut headers);
    }
    let (choices, timings): (Vec<_>, Vec<_>) =
        answered.into_iter().map(|prompt| (prompt.choices, prompt.timings)).unzip();
    write_summed(timings, &usage, &mut headers);
    let completion = Completion {
        id: &new_id(),
        object: OBJECT,
        created: unix_seconds(),
        model: &reply.model,
        system_fingerprint: FINGERPRINT,
        choices: choices.into_iter().flatten().collect(),
        usage: usage.into(),
    };
    Ok((headers, Json(completion)).into_response())
}

/// TGI's headers of this route: the times of the prompts add up, and the one in seconds is missing.
fn write_summed(timings: Vec<Timings>, usage: &Usage, headers: &mut HeaderMap) {
    if let Some(sum) = Timings::sum(timings) {
        sum.write_headers(usage, headers);
        headers.remove(timing::COMPUTE_TIME);
    }
}

async fn answer(api: &Api, running: Running, number: usize, reply: &Reply) -> Result<Answered, ApiError> {
    let sequences = sequence::continuations(api, running.feeds, number, reply);
    let mut ended = try_join_all(sequences.into_iter().map(read)).await?;
    let usage = Usage::of_all(ended.iter().map(|ended| ended.sequence.usage));
    let timings = running.stopwatch.read(&usage);
    if ended.len() > reply.shown as usize {
        // Stable: the first of equals wins, as on TGI's routes.
        ended.sort_by(|one, other| other.mean_logprob().total_cmp(&one.mean_logprob()));
        ended.truncate(reply.shown as usize);
    }
    let first = number as u32 * reply.shown;
    let choices = (first..).zip(ended).map(|(index, ended)| ended.into_choice(index, reply)).collect();
    Ok(Answered { choices, usage, timings })
}

async fn read(mut sequence: Sequence) -> Result<Ended, ApiError> {
    let (mut prompt, mut text, mut tokens) = (Vec::new(), String::new(), Vec::new());
    loop {
        let token = sequence.next().await?;
        let Step { prompt: scored, text: added, tokens: shown, finish } = sequence.push(token);
        prompt.extend(scored);
        text.push_str(&added);
        tokens.extend(shown);
        if let Some(finish) = finish {
            return Ok(Ended { sequence, prompt, text, tokens, finish });
        }
    }
}

impl Ended {
    fn mean_logprob(&self) -> f32 {
        let sum: f32 = self.tokens.iter().filter_map(|token| token.logprob).sum();
        sum / self.tokens.len().max(1) as f32
    }

    fn into_choice(self, index: u32, reply: &Reply) -> Choice {
        Choice {
            index,
            logprobs: self.sequence.logprobs(&self.prompt, &self.tokens, reply),
            finish_reason: Some(self.finish.into()),
            details: reply.details.then(|| self.details(reply)),
            text: self.text,
        }
    }

    fn details(&self, reply: &Reply) -> Details {
        let table = self.sequence.table();
        let top_tokens = self.tokens.iter().map(|token| token.native_top(reply.top_tokens, table));
        Details {
            finish_reason: self.finish,
            generated_tokens: self.sequence.usage.generated_tokens,
            seed: self.sequence.seed,
            prefill: if reply.scored.in_details {
                self.prompt.iter().map(ShownToken::prefill).collect()
            } else {
                Vec::new()
            },
            tokens: self.tokens.iter().map(|token| token.native(table)).collect(),
            best_of_sequences: None,
            top_tokens: if reply.top_tokens > 0 { top_tokens.collect() } else { Vec::new() },
        }
    }
}
