//! What a completion request may be, and what it means for sampling. All of it before anything is fetched or tokenised.

use super::prompt::PromptBody;
use super::types::CompletionBody;
use crate::api::error::{ApiError, ErrorKind};
use crate::api::media::ImageLink;
use crate::api::openai::bias;
use crate::api::openai::types::StreamOptions;
use crate::api::openai::validate::model;
use crate::api::start::{Input, ValidRequest};
use crate::api::{Api, guided, ranges};
use crate::detokenize::Detokenizer;
use crate::sampling::{LogprobSource, PenaltyScope, Sampling};

/// A request to `/v1/completions`.
#[derive(Debug)]
pub(super) struct Completions {
    /// One a prompt.
    pub(super) requests: Vec<ValidRequest>,
    /// Where the grammar of the requests came from.
    pub(super) grammar_field: &'static str,
    pub(super) reply: Reply,
    pub(super) stream: bool,
}

/// What the answer has to hold.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// Echoed, whatever the client wrote.
    pub(super) model: String,
    pub(super) stops: Vec<String>,
    /// What stands before each prompt's continuations; empty unless asked for.
    pub(super) echoes: Vec<String>,
    /// Best tokens listed beside each; `None` when log-probabilities were not asked for.
    pub(super) logprobs: Option<u32>,
    /// Whether tokens are drawn, so that seeds mean something.
    pub(super) sampled: bool,
    /// One for each continuation of a prompt.
    pub(super) seeds: Vec<u64>,
    /// Continuations shown of each prompt; of as many as there are seeds the best.
    pub(super) shown: u32,
    /// `max_tokens` is 0: the one token that has to be generated is not part of the answer.
    pub(super) prompt_only: bool,
    pub(super) scored: Scored,
    pub(super) details: bool,
    /// How many of TGI's `top_tokens` are listed.
    pub(super) top_tokens: usize,
    pub(super) usage: UsageChunks,
}

/// Where the answer lists the tokens of its prompt with their scores.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct Scored {
    /// In front of the others, as the prompt is in front of the text.
    pub(super) in_logprobs: bool,
    /// In TGI's `prefill`.
    pub(super) in_details: bool,
}

impl Reply {
    /// Best tokens wanted in the place of each token of the prompt, if these have to be scored.
    fn scored_with(&self) -> Option<u32> {
        let Scored { in_logprobs, in_details } = self.scored;
        (in_logprobs || in_details).then_some(self.logprobs.filter(|_| in_logprobs).unwrap_or(0))
    }
}

/// Which chunks of a stream say what the request has cost.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum UsageChunks {
    None,
    Last,
    All,
}

impl Completions {
    pub(super) fn validate(body: CompletionBody, api: &Api) -> Result<Self, ApiError> {
        refuse_unserved(&body)?;
        check_prompts(&body, api)?;
        let (grammar, grammar_field) = guided::either(body.response_format.as_ref(), body.grammar.as_ref())?;
        let sampling = sampling(&body, api)?;
        let reply = reply(&body, &sampling, api)?;
        let max_new_tokens = max_new_tokens(&body)?;
        let request = |(input, image_urls, characters)| ValidRequest {
            input,
            image_urls,
            sampling: sampling.clone(),
            seeds: reply.seeds.clone(),
            max_new_tokens,
            ignore_eos: body.ignore_eos == Some(true),
            grammar: grammar.clone(),
            score_prompt: reply.scored_with(),
            characters,
        };
        let requests = inputs(body.prompt, body.truncate).map(request).collect();
        Ok(Self { requests, grammar_field, reply, stream: body.stream == Some(true) })
    }
}

fn refuse_unserved(body: &CompletionBody) -> Result<(), ApiError> {
    if body.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        let text = "`suffix` is not supported: write it into the prompt in the model's own format";
        return Err(ApiError::new(ErrorKind::Suffix, text).at("suffix"));
    }
    if body.adapter_id.is_some() {
        return Err(ApiError::new(ErrorKind::NotFound, "`adapter_id` names no loaded adapter").at("adapter_id"));
    }
    if body.stream == Some(true) && body.decoder_input_details == Some(true) {
        return Err(ApiError::field("decoder_input_details", "is not available for streams"));
    }
    Ok(())
}

fn check_prompts(body: &CompletionBody, api: &Api) -> Result<(), ApiError> {
    let (prompts, limit) = (body.prompt.len(), api.limits.max_client_batch_size);
    if prompts > limit {
        let text = format!("a request may have {limit} prompts (--max-client-batch-size). Given: {prompts}");
        return Err(ApiError::new(ErrorKind::BatchSize, text).at("prompt"));
    }
    if body.prompt.has_empty() {
        return Err(ApiError::field("prompt", "must not be empty"));
    }
    let limit = api.generator.limits().max_input_tokens;
    match body.truncate {
        Some(given) if given == 0 || given > limit => {
            Err(ApiError::field("truncate", format!("must be strictly positive and at most {limit}. Given: {given}")))
        }
        _ => Ok(()),
    }
}

/// What to generate from, with the images' addresses and the length in characters, of each prompt.
fn inputs(prompt: PromptBody, truncate: Option<u32>) -> impl Iterator<Item = (Input, Vec<ImageLink>, usize)> {
    let (texts, token_ids) = match prompt {
        PromptBody::Texts(texts) => (texts, Vec::new()),
        PromptBody::TokenIds(token_ids) => (Vec::new(), token_ids),
    };
    let texts = texts
        .into_iter()
        .map(move |text| (Input::Segments { segments: text.segments, truncate }, text.image_urls, text.characters));
    texts.chain(token_ids.into_iter().map(move |ids| (Input::TokenIds { ids, truncate }, Vec::new(), 0)))
}

fn repeats_prompt(body: &CompletionBody) -> bool {
    body.echo == Some(true) || body.return_full_text == Some(true)
}

/// The prompts as text, where the answer repeats them.
fn echoes(body: &CompletionBody, api: &Api) -> Vec<String> {
    if !repeats_prompt(body) {
        return vec![String::new(); body.prompt.len()];
    }
    let decode = |ids: &Vec<u32>| {
        let mut detokenizer = Detokenizer::from_start(api.prompts.table(), false);
        let text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        text + &detokenizer.flush()
    };
    match &body.prompt {
        PromptBody::Texts(texts) => texts.iter().map(|text| text.text.clone()).collect(),
        PromptBody::TokenIds(prompts) => prompts.iter().map(decode).collect(),
    }
}

fn reply(body: &CompletionBody, sampling: &Sampling, api: &Api) -> Result<Reply, ApiError> {
    let stops = body.stop.as_ref().map(|stops| stops.0.clone()).unwrap_or_default();
    ranges::stops(&stops, &api.limits)?;
    let (shown, generated) = answers(body, api)?;
    Ok(Reply {
        model: model(body.model.clone(), api),
        stops,
        echoes: echoes(body, api),
        logprobs: body.logprobs,
        sampled: !sampling.greedy,
        seeds: (0..generated).map(|index| seed(body.seed, index)).collect(),
        shown,
        prompt_only: body.max_tokens == Some(0),
        scored: Scored {
            in_logprobs: body.logprobs.is_some() && repeats_prompt(body),
            in_details: body.decoder_input_details == Some(true) && api.limits.prefill_logprobs,
        },
        details: body.details == Some(true) || body.decoder_input_details == Some(true),
        top_tokens: body.top_n_tokens.unwrap_or(0) as usize,
        usage: usage_chunks(body.stream_options.unwrap_or_default()),
    })
}

fn usage_chunks(options: StreamOptions) -> UsageChunks {
    match (options.include_usage, options.continuous_usage_stats) {
        (Some(true), Some(true)) => UsageChunks::All,
        (Some(true), _) => UsageChunks::Last,
        _ => UsageChunks::None,
    }
}

/// Continuations to show of each prompt, and to generate.
fn answers(body: &CompletionBody, api: &Api) -> Result<(u32, u32), ApiError> {
    let shown = body.n.unwrap_or(1);
    let generated = body.best_of.unwrap_or(shown);
    if shown == 0 {
        return Err(ApiError::field("n", "must be strictly positive"));
    }
    ranges::at_most("n", shown.into(), api.limits.max_best_of.into())?;
    if generated < shown {
        return Err(ApiError::field("best_of", "must be at least `n`"));
    }
    ranges::at_most("best_of", generated.into(), api.limits.max_best_of.into())?;
    if generated > shown && body.stream == Some(true) {
        return Err(ApiError::field("best_of", "must be `n` for streams"));
    }
    Ok((shown, generated))
}

/// None at all is for those who want to see the prompt only.
fn max_new_tokens(body: &CompletionBody) -> Result<Option<u32>, ApiError> {
    match body.max_tokens {
        Some(0) if body.echo == Some(true) => Ok(Some(1)),
        Some(0) => Err(ApiError::field("max_tokens", "must be strictly positive without `echo`")),
        asked => Ok(asked),
    }
}

fn sampling(body: &CompletionBody, api: &Api) -> Result<Sampling, ApiError> {
    let logprobs = body.logprobs.unwrap_or(0);
    let top_n_tokens = body.top_n_tokens.unwrap_or(0);
    for (field, number) in [("logprobs", logprobs), ("top_n_tokens", top_n_tokens)] {
        ranges::at_most(field, number.into(), api.limits.max_top_n_tokens.into())?;
    }
    // Zero means greedy; the value itself is out of the sampler's range.
    let zero = body.temperature == Some(0.0);
    let temperature = ranges::temperature(if zero { None } else { body.temperature })?;
    let top_k = ranges::top_k(body.top_k)?;
    let top_p = ranges::probability("top_p", body.top_p)?;
    let typical_p = ranges::probability("typical_p", body.typical_p)?;
    // A filter that does something means that something is to be drawn, as on TGI's routes.
    let filtered = temperature.to_bits() != 1f32.to_bits() || top_k != 0 || top_p < 1.0 || typical_p < 1.0;
    Ok(Sampling {
        greedy: zero || (body.do_sample == Some(false) && !filtered),
        temperature,
        top_k,
        top_p,
        typical_p,
        repetition_penalty: ranges::repetition_penalty(body.repetition_penalty)?,
        frequency_penalty: ranges::penalty("frequency_penalty", body.frequency_penalty)?,
        presence_penalty: ranges::penalty("presence_penalty", body.presence_penalty)?,
        seed: 0,
        num_top_tokens: logprobs.max(top_n_tokens),
        logprobs: LogprobSource::Raw,
        penalty_scope: PenaltyScope::Output,
        logit_bias: bias::parse(body.logit_bias.as_ref(), api)?,
        watermark: body.watermark == Some(true),
    })
}

/// Continuations to one seed still differ from each other.
fn seed(asked: Option<i64>, index: u32) -> u64 {
    asked.map_or_else(ranges::invented_seed, |seed| (seed as u64).wrapping_add(index.into()))
}
