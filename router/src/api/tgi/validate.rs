//! TGI's parameters: what they default to, what they may be, and which cannot go together. All of it before anything
//! is fetched or tokenised.

use super::types::{GenerateBody, Inputs, Parameters};
use crate::api::error::{ApiError, ErrorKind};
use crate::api::start::{Input, ValidRequest};
use crate::api::stop::BoundaryStops;
use crate::api::{Api, guided, ranges};
use crate::sampling::{LogprobSource, PenaltyScope, Sampling};

/// A request to one of TGI's routes.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: ValidRequest,
    pub(super) reply: Reply,
}

/// What the answer has to hold.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) details: bool,
    /// What stands in front of the generated text.
    pub(super) full_text: String,
    pub(super) stops: BoundaryStops,
    /// Whether tokens are drawn, so that seeds mean something.
    pub(super) sampled: bool,
    pub(super) seeds: Vec<u64>,
}

/// How the answer is sent.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Whole,
    Stream,
}

impl Call {
    pub(super) fn validate(body: GenerateBody, api: &Api, mode: Mode) -> Result<Self, ApiError> {
        let parameters = body.parameters.unwrap_or_else(sampling_on);
        refuse_unserved(&parameters)?;
        let grammar = guided::parse(guided::FIELD, parameters.grammar.as_ref())?;
        let sampling = sampling(&parameters, api)?;
        let seeds = seeds(&parameters, api, mode)?;
        let stops = parameters.stop.unwrap_or_default();
        ranges::stops(&stops, &api.limits)?;
        check_input(&body.inputs.text, parameters.truncate, api)?;
        let max_new_tokens = ranges::new_tokens("max_new_tokens", parameters.max_new_tokens)?;
        let ignore_eos = parameters.ignore_eos == Some(true);
        let Inputs { text, segments, image_urls, characters } = body.inputs;
        let full_text = if parameters.return_full_text == Some(true) { text } else { String::new() };
        let reply = Reply {
            details: parameters.details == Some(true) || parameters.decoder_input_details == Some(true),
            full_text,
            stops: BoundaryStops::new(stops),
            sampled: !sampling.greedy,
            seeds: seeds.clone(),
        };
        let input = Input::Segments { segments, truncate: parameters.truncate };
        // Without the flag the list is empty, as TGI's is.
        let listed = parameters.decoder_input_details == Some(true) && api.limits.prefill_logprobs;
        let request = ValidRequest {
            input,
            image_urls,
            sampling,
            seeds,
            max_new_tokens,
            ignore_eos,
            grammar,
            score_prompt: listed.then_some(0),
            characters,
        };
        Ok(Self { request, reply })
    }
}

pub(super) fn sampling_on() -> Parameters {
    Parameters { do_sample: Some(true), ..Parameters::default() }
}

/// What this version cannot do is refused, not ignored.
fn refuse_unserved(parameters: &Parameters) -> Result<(), ApiError> {
    if parameters.adapter_id.is_some() {
        return Err(ApiError::new(ErrorKind::NotFound, "`adapter_id` names no loaded adapter").at("adapter_id"));
    }
    Ok(())
}

fn sampling(parameters: &Parameters, api: &Api) -> Result<Sampling, ApiError> {
    let temperature = ranges::temperature(parameters.temperature)?;
    let top_k = ranges::top_k(parameters.top_k)?;
    let top_p = ranges::probability("top_p", parameters.top_p)?;
    let typical_p = ranges::probability("typical_p", parameters.typical_p)?;
    let num_top_tokens = parameters.top_n_tokens.unwrap_or(0);
    ranges::at_most("top_n_tokens", num_top_tokens.into(), api.limits.max_top_n_tokens.into())?;
    // A filter that does something means that something is to be drawn.
    let filtered = temperature.to_bits() != 1f32.to_bits() || top_k != 0 || top_p < 1.0 || typical_p < 1.0;
    Ok(Sampling {
        greedy: !(parameters.do_sample == Some(true) || filtered),
        temperature,
        top_k,
        top_p,
        typical_p,
        repetition_penalty: ranges::repetition_penalty(parameters.repetition_penalty)?,
        frequency_penalty: ranges::penalty("frequency_penalty", parameters.frequency_penalty)?,
        presence_penalty: 0.0,
        seed: 0,
        num_top_tokens,
        logprobs: LogprobSource::Warped,
        penalty_scope: PenaltyScope::AllRelative,
        logit_bias: Vec::new(),
        watermark: parameters.watermark == Some(true),
    })
}

/// One seed a sequence, and with them how many sequences there are.
fn seeds(parameters: &Parameters, api: &Api, mode: Mode) -> Result<Vec<u64>, ApiError> {
    let best_of = parameters.best_of.unwrap_or(1);
    let drawn = parameters.do_sample == Some(true)
        || parameters.temperature.is_some()
        || parameters.top_k.is_some()
        || parameters.top_p.is_some()
        || parameters.typical_p.is_some();
    let rule = match mode {
        _ if best_of == 0 => "must be strictly positive",
        Mode::Stream if best_of > 1 => "must be 1 for streams",
        _ if best_of > 1 && !drawn => "must be 1 when nothing is sampled: set `do_sample`, for instance",
        _ => "",
    };
    if !rule.is_empty() {
        return Err(ApiError::field("best_of", rule));
    }
    ranges::at_most("best_of", best_of.into(), api.limits.max_best_of.into())?;
    if best_of > 1 && parameters.seed.is_some() {
        return Err(ApiError::field("seed", "must not be set when `best_of` > 1"));
    }
    if mode == Mode::Stream && parameters.decoder_input_details == Some(true) {
        return Err(ApiError::field("decoder_input_details", "is not available for streams"));
    }
    Ok((0..best_of).map(|_| parameters.seed.unwrap_or_else(ranges::invented_seed)).collect())
}

fn check_input(inputs: &str, truncate: Option<u32>, api: &Api) -> Result<(), ApiError> {
    if inputs.is_empty() {
        return Err(ApiError::field("inputs", "must not be empty"));
    }
    let limit = api.generator.limits().max_input_tokens;
    match truncate {
        Some(given) if given == 0 || given > limit => {
            Err(ApiError::field("truncate", format!("must be strictly positive and at most {limit}. Given: {given}")))
        }
        _ => Ok(()),
    }
}
