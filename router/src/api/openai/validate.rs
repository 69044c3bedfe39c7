//! What a chat request may be, and what it means for sampling. All of it before anything is fetched or tokenised.

use super::bias;
use super::conversation::{self, Parsed};
use super::tools::{CallReading, Offer};
use super::types::{ChatBody, MessageBody, StreamOptions};
use crate::api::error::{ApiError, ErrorKind};
use crate::api::start::{Input, ValidRequest};
use crate::api::{Api, guided, ranges};
use crate::grammar::GrammarSource;
use crate::sampling::{LogprobSource, PenaltyScope, Sampling};

/// What asks for a call.
const TOOL_CHOICE: &str = "tool_choice";

/// A request to `/v1/chat/completions`.
#[derive(Debug)]
pub(super) struct Chat {
    pub(super) request: ValidRequest,
    /// Where the grammar of the request came from.
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
    pub(super) logprobs: bool,
    /// `None` if no tools were offered.
    pub(super) calls: Option<CallReading>,
    pub(super) include_usage: bool,
    pub(super) continuous_usage: bool,
}

impl Chat {
    pub(super) fn validate(mut body: ChatBody, api: &Api) -> Result<Self, ApiError> {
        let offer = body.take_tools().offer(&api.limits)?;
        refuse_unserved(&body)?;
        let (grammar, grammar_field) = held_to(&body, offer.as_ref(), api)?;
        let sampling = sampling(&body, api)?;
        let seeds = seeds(&body, api)?;
        let max_new_tokens = ranges::new_tokens("max_tokens", body.max_completion_tokens.or(body.max_tokens))?;
        let stops = body.stop.map(|stops| stops.0).unwrap_or_default();
        ranges::stops(&stops, &api.limits)?;
        let options = body.stream_options.unwrap_or_default();
        let mut reply = Reply::new(model(body.model, api), stops, body.logprobs == Some(true), options);
        reply.calls = offer.as_ref().map(|offer| api.tools.reading(offer));
        let parsed = conversation(body.messages, offer.as_ref(), api)?;
        let request = ValidRequest {
            input: Input::Conversation(parsed.conversation),
            image_urls: parsed.image_urls,
            sampling,
            seeds,
            max_new_tokens,
            ignore_eos: body.ignore_eos == Some(true),
            grammar,
            score_prompt: None,
            characters: parsed.characters,
        };
        Ok(Self { request, grammar_field, reply, stream: body.stream == Some(true) })
    }
}

/// The messages with the tools that are offered.
pub(super) fn conversation(messages: Vec<MessageBody>, offer: Option<&Offer>, api: &Api) -> Result<Parsed, ApiError> {
    let mut parsed = conversation::parse(messages, &api.limits)?;
    api.tools.put(offer, &mut parsed.conversation);
    Ok(parsed)
}

impl Reply {
    fn new(model: String, stops: Vec<String>, logprobs: bool, options: StreamOptions) -> Self {
        let include_usage = options.include_usage == Some(true);
        let continuous_usage = include_usage && options.continuous_usage_stats == Some(true);
        Self { model, stops, logprobs, calls: None, include_usage, continuous_usage }
    }
}

pub(super) fn model(asked: Option<String>, api: &Api) -> String {
    asked.filter(|model| !model.is_empty()).unwrap_or_else(|| api.model.id.clone())
}

/// What this version cannot do is refused, not ignored.
fn refuse_unserved(body: &ChatBody) -> Result<(), ApiError> {
    if body.adapter_id.is_some() {
        return Err(ApiError::new(ErrorKind::NotFound, "`adapter_id` names no loaded adapter").at("adapter_id"));
    }
    Ok(())
}

/// What the answer is held to: a form, or a call where it has to be one, but not both.
fn held_to(
    body: &ChatBody,
    offer: Option<&Offer>,
    api: &Api,
) -> Result<(Option<GrammarSource>, &'static str), ApiError> {
    let (form, field) = guided::either(body.response_format.as_ref(), body.grammar.as_ref())?;
    match offer {
        Some(_) if form.is_some() => {
            let message = format!("`tools` and `{field}` cannot be used together");
            Err(ApiError::new(ErrorKind::Tool, message).at(field))
        }
        Some(offer) => Ok((api.tools.grammar(offer), TOOL_CHOICE)),
        None => Ok((form, field)),
    }
}

fn sampling(body: &ChatBody, api: &Api) -> Result<Sampling, ApiError> {
    // Zero means greedy; the value itself is out of the sampler's range.
    let greedy = body.temperature == Some(0.0);
    let temperature = if greedy { None } else { body.temperature };
    let top_logprobs = body.top_logprobs.unwrap_or(0);
    ranges::at_most("top_logprobs", top_logprobs.into(), api.limits.max_top_n_tokens.into())?;
    Ok(Sampling {
        greedy,
        temperature: ranges::temperature(temperature)?,
        top_k: ranges::top_k(body.top_k)?,
        top_p: ranges::probability("top_p", body.top_p)?,
        typical_p: ranges::probability("typical_p", body.typical_p)?,
        repetition_penalty: ranges::repetition_penalty(body.repetition_penalty)?,
        frequency_penalty: ranges::penalty("frequency_penalty", body.frequency_penalty)?,
        presence_penalty: ranges::penalty("presence_penalty", body.presence_penalty)?,
        seed: 0,
        num_top_tokens: if body.logprobs == Some(true) { top_logprobs } else { 0 },
        // Nobody sees those that were not asked for, and tokens without a choice need not be sampled then.
        logprobs: if body.logprobs == Some(true) { LogprobSource::Raw } else { LogprobSource::Warped },
        penalty_scope: PenaltyScope::Output,
        logit_bias: bias::parse(body.logit_bias.as_ref(), api)?,
        watermark: false,
    })
}

/// One seed an answer, and with them how many answers there are. Answers to one seed still differ from each other.
fn seeds(body: &ChatBody, api: &Api) -> Result<Vec<u64>, ApiError> {
    let answers = body.n.unwrap_or(1);
    if answers == 0 {
        return Err(ApiError::field("n", "must be strictly positive"));
    }
    ranges::at_most("n", answers.into(), api.limits.max_best_of.into())?;
    let seed = |index: u32| match body.seed {
        Some(seed) => (seed as u64).wrapping_add(index.into()),
        None => ranges::invented_seed(),
    };
    Ok((0..answers).map(seed).collect())
}
