//! What a chat request may be, and what it means for sampling. All of it before anything is fetched or tokenised.

use serde_json::Value;

use super::bias;
use super::conversation::{self, Parsed};
use super::types::{ChatBody, MessageBody, StreamOptions};
use crate::api::error::{ApiError, ErrorKind};
use crate::api::start::{Input, ValidRequest};
use crate::api::{Api, ranges};
use crate::sampling::{LogprobSource, PenaltyScope, Sampling};

/// A request to `/v1/chat/completions`.
#[derive(Debug)]
pub(super) struct Chat {
    pub(super) request: ValidRequest,
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
    pub(super) include_usage: bool,
    pub(super) continuous_usage: bool,
}

impl Chat {
    pub(super) fn validate(body: ChatBody, api: &Api) -> Result<Self, ApiError> {
        refuse_unserved(&body)?;
        let sampling = sampling(&body, api)?;
        let seeds = seeds(&body, api)?;
        let max_new_tokens = ranges::new_tokens("max_tokens", body.max_completion_tokens.or(body.max_tokens))?;
        let stops = body.stop.map(|stops| stops.0).unwrap_or_default();
        ranges::stops(&stops, &api.limits)?;
        let options = body.stream_options.unwrap_or_default();
        let reply = Reply::new(model(body.model, api), stops, body.logprobs == Some(true), options);
        let parsed = conversation(body.messages, body.tools, body.tool_choice.as_ref(), api)?;
        let request = ValidRequest {
            input: Input::Conversation(parsed.conversation),
            image_urls: parsed.image_urls,
            sampling,
            seeds,
            max_new_tokens,
            ignore_eos: body.ignore_eos == Some(true),
            grammar: None,
            characters: parsed.characters,
        };
        Ok(Self { request, reply, stream: body.stream == Some(true) })
    }
}

/// The messages with the tools they may name.
pub(super) fn conversation(
    messages: Vec<MessageBody>,
    tools: Option<Vec<Value>>,
    choice: Option<&Value>,
    api: &Api,
) -> Result<Parsed, ApiError> {
    let tools = offered_tools(tools, choice, api)?;
    conversation::parse(messages, tools, &api.limits)
}

impl Reply {
    fn new(model: String, stops: Vec<String>, logprobs: bool, options: StreamOptions) -> Self {
        let include_usage = options.include_usage == Some(true);
        let continuous_usage = include_usage && options.continuous_usage_stats == Some(true);
        Self { model, stops, logprobs, include_usage, continuous_usage }
    }
}

pub(super) fn model(asked: Option<String>, api: &Api) -> String {
    asked.filter(|model| !model.is_empty()).unwrap_or_else(|| api.model.id.clone())
}

/// What this version cannot do is refused, not ignored.
fn refuse_unserved(body: &ChatBody) -> Result<(), ApiError> {
    let asked = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    let plain_text = body.response_format.as_ref().is_some_and(|format| format["type"] == "text");
    if asked(&body.response_format) && !plain_text {
        return Err(unguided("response_format"));
    }
    if asked(&body.grammar) {
        return Err(unguided("grammar"));
    }
    if body.adapter_id.is_some() {
        return Err(ApiError::new(ErrorKind::NotFound, "`adapter_id` names no loaded adapter").at("adapter_id"));
    }
    Ok(())
}

fn unguided(field: &str) -> ApiError {
    ApiError::field(field, "is refused: guided generation is not served by this version")
}

/// Tools for the template. A choice that would have to be enforced is refused.
fn offered_tools(tools: Option<Vec<Value>>, choice: Option<&Value>, api: &Api) -> Result<Option<Value>, ApiError> {
    let tools = tools.unwrap_or_default();
    ranges::at_most("tools", tools.len() as u64, api.limits.max_tools as u64)?;
    if let Some(index) = tools.iter().position(|tool| !tool.is_object()) {
        return Err(ApiError::field(&format!("tools[{index}]"), "must be an object"));
    }
    match choice {
        None | Some(Value::Null) => {}
        Some(Value::String(choice)) if choice == "auto" => {}
        Some(Value::String(choice)) if choice == "none" => return Ok(None),
        Some(_) => return Err(unguided("tool_choice")),
    }
    Ok((!tools.is_empty()).then_some(Value::Array(tools)))
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
        logprobs: LogprobSource::Raw,
        penalty_scope: PenaltyScope::Output,
        logit_bias: bias::parse(body.logit_bias.as_ref(), api)?,
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
