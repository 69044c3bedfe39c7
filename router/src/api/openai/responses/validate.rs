//! What a request for a response may be. All of it before anything is fetched or tokenised.

use serde_json::Value;

use super::answers::Settings;
use super::input;
use super::types::ResponsesBody;
use crate::api::error::ApiError;
use crate::api::openai::types::StreamOptions;
use crate::api::openai::validate::{Reply, held_to, model, refuse_unserved, sampling, seeds};
use crate::api::start::{Input, ValidRequest};
use crate::api::{Api, guided, ranges};
use crate::grammar::GrammarSource;

const FORMAT: &str = "text.format";

/// A request to `/v1/responses`.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: ValidRequest,
    /// Where the grammar of the request came from.
    pub(super) grammar_field: &'static str,
    /// How the answer is read.
    pub(super) reply: Reply,
    /// What the answer repeats.
    pub(super) settings: Settings,
    pub(super) stream: bool,
}

impl Asked {
    pub(super) fn validate(body: ResponsesBody, api: &Api) -> Result<Self, ApiError> {
        refuse_stored(&body)?;
        let chat = body.as_chat();
        refuse_unserved(&chat)?;
        let offer = body.tool_fields().offer(&api.limits)?;
        let (grammar, grammar_field) = held_to((form(&body)?, FORMAT), offer.as_ref(), api)?;
        let (sampling, seeds) = (sampling(&chat, api)?, seeds(&chat, api)?);
        let max_new_tokens = ranges::new_tokens("max_output_tokens", body.max_output_tokens)?;
        let settings = Settings::of(&body, model(body.model.clone(), api));
        let stops = body.stop.map(|stops| stops.0).unwrap_or_default();
        ranges::stops(&stops, &api.limits)?;
        let logprobs = chat.logprobs == Some(true);
        let mut reply = Reply::new(settings.model.clone(), stops, logprobs, StreamOptions::default());
        reply.calls = offer.as_ref().map(|offer| api.tools.reading(offer));
        let mut parsed = input::parse(body.instructions, body.input, &api.limits)?;
        api.tools.put(offer.as_ref(), &mut parsed.conversation);
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
        Ok(Self { request, grammar_field, reply, settings, stream: body.stream == Some(true) })
    }
}

/// Nothing is kept between requests, so what stands for something that was is refused, not ignored.
fn refuse_stored(body: &ResponsesBody) -> Result<(), ApiError> {
    let given = |value: &Option<Value>| value.as_ref().is_some_and(|value| !value.is_null());
    let asked = [
        ("previous_response_id", body.previous_response_id.is_some(), "is not served: no responses are stored"),
        ("conversation", given(&body.conversation), "is not served: no conversations are stored"),
        ("prompt", given(&body.prompt), "is not served: no prompts are stored"),
        ("background", body.background == Some(true), "must not be true: no responses are stored"),
    ];
    if let Some((field, _, rule)) = asked.into_iter().find(|(_, asked, _)| *asked) {
        return Err(ApiError::field(field, rule));
    }
    match body.truncation.as_deref() {
        // What `auto` would shorten is refused for its length, as everything too long.
        None | Some("auto" | "disabled") => Ok(()),
        Some(_) => Err(ApiError::field("truncation", "must be `auto` or `disabled`")),
    }
}

/// The form of the text. A schema stands beside its name here, where a chat has both in an object of their own.
fn form(body: &ResponsesBody) -> Result<Option<GrammarSource>, ApiError> {
    let format = body.text.as_ref().and_then(|text| text.format.as_ref());
    let bare = |format: &Value| {
        format["type"] == "json_schema" && ["schema", "json_schema", "value"].iter().all(|key| format[key].is_null())
    };
    if format.is_some_and(bare) {
        return Err(ApiError::field(&format!("{FORMAT}.schema"), "is missing"));
    }
    guided::parse(FORMAT, format)
}
