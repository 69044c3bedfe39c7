//! Complete answers: every sequence is read to its end, the best one is the answer.

use futures::future::try_join_all;
use http::HeaderMap;

use super::decode::{Decoder, Step};
use super::types::{BestOfSequence, Details, FinishReason, GenerateResponse, PrefillToken, Token};
use super::validate::Reply;
use crate::api::Api;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::feed::{Feed, Usage};
use crate::api::start::Running;

/// A sequence that was read to its end.
struct Sequence {
    text: String,
    finish: FinishReason,
    seed: Option<u64>,
    prefill: Vec<PrefillToken>,
    tokens: Vec<Token>,
    top_tokens: Vec<Vec<Token>>,
    usage: Usage,
}

/// Reads all sequences at once. Dropping the future cancels them.
pub(super) async fn collect(
    api: &Api,
    running: Running,
    reply: Reply,
) -> Result<(GenerateResponse, HeaderMap), ApiError> {
    let feeds = running.feeds.into_iter().zip(&reply.seeds);
    let sequences = try_join_all(feeds.map(|(feed, &seed)| read(api, feed, &reply, seed))).await?;
    let best = best(&sequences);
    let usage = sequences.get(best).map(|sequence| sequence.usage).unwrap_or_default();
    let timings = running.stopwatch.read(&usage);
    timings.record(&usage);
    let mut headers = api.headers(running.characters);
    timings.write_headers(&usage, &mut headers);
    timings.write_server_timing(&mut headers);
    Ok((answer(sequences, best, &reply)?, headers))
}

async fn read(api: &Api, mut feed: Feed, reply: &Reply, seed: u64) -> Result<Sequence, ApiError> {
    let mut decoder = Decoder::new(api.prompts.table(), reply.stops.clone());
    let (mut tokens, mut top_tokens) = (Vec::new(), Vec::new());
    let finish = loop {
        let Step { token, top_tokens: top, finish } = decoder.push(&feed.next().await?);
        tokens.push(token);
        top_tokens.extend((!top.is_empty()).then_some(top));
        if let Some(finish) = finish {
            break finish;
        }
    };
    let (prompt, table) = (feed.take_prompt(), api.prompts.table());
    let prefill = prompt.iter().map(|token| PrefillToken::new(token, &table)).collect();
    let (text, usage) = (decoder.into_text(&reply.full_text), feed.usage());
    Ok(Sequence { text, finish, seed: reply.sampled.then_some(seed), prefill, tokens, top_tokens, usage })
}

/// The sequence with the highest mean log-probability; the first of equals.
fn best(sequences: &[Sequence]) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, sequence) in sequences.iter().enumerate() {
        let mean = sequence.tokens.iter().map(|token| token.logprob).sum::<f32>() / sequence.tokens.len() as f32;
        if mean > best.1 {
            best = (index, mean);
        }
    }
    best.0
}

fn answer(mut sequences: Vec<Sequence>, best: usize, reply: &Reply) -> Result<GenerateResponse, ApiError> {
    if best >= sequences.len() {
        return Err(ApiError::new(ErrorKind::Incomplete, "Incomplete generation"));
    }
    let best_of = sequences.len() > 1;
    let winner = sequences.remove(best);
    let losers = best_of.then(|| sequences.into_iter().map(Sequence::into_loser).collect());
    let (generated_text, details) = winner.into_answer(losers);
    Ok(GenerateResponse { generated_text, details: reply.details.then_some(details) })
}

impl Sequence {
    fn into_answer(self, best_of_sequences: Option<Vec<BestOfSequence>>) -> (String, Details) {
        let details = Details {
            finish_reason: self.finish,
            generated_tokens: self.usage.generated_tokens,
            seed: self.seed,
            prefill: self.prefill,
            tokens: self.tokens,
            best_of_sequences,
            top_tokens: self.top_tokens,
        };
        (self.text, details)
    }

    fn into_loser(self) -> BestOfSequence {
        BestOfSequence {
            generated_text: self.text,
            finish_reason: self.finish,
            generated_tokens: self.usage.generated_tokens,
            seed: self.seed,
            prefill: self.prefill,
            tokens: self.tokens,
            top_tokens: self.top_tokens,
        }
    }
}
