//! `/api-doc/openapi.json`: every route in the words of `OpenAPI` 3.1, made from the types that are deserialised and
//! the comments on their fields, so that there is no second description to keep in step.

mod by_hand;
mod guided;
mod refusals;
mod tools;

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

pub(super) use self::by_hand::{Named, name, one_of, reference};
pub(super) use self::guided::{Grammar, ResponseFormat};
use self::refusals::EitherForm;
pub(super) use self::refusals::{ErrorBody, GenerationRefusals, Refusals};
pub(super) use self::tools::{Tool, ToolChoice};
use super::{health, hosted, info, openai, tgi, tokens, web};

/// A red picture of 8 × 8 pixels, for examples.
pub(super) const PICTURE: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGO8o6zMgA0wYRUdtBIA6A0BMvOLEzgAAAAASUVORK5CYII=";
/// The same as a prompt of TGI's routes.
pub(super) const IMAGE_PROMPT: &str = "![](data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGO8o6zMgA0wYRUdtBIA6A0BMvOLEzgAAAAASUVORK5CYII=)What color is this?";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "text-generation-vlm",
        description = "Vision-language models over the API of text-generation-inference (TGI) and the OpenAI API.\n\n\
                       Unknown fields are ignored, and `null` is the same as absent, at every level. Every answer carries \
                       `x-request-id`, which a request may choose; generated ones carry `Server-Timing`.\n\n\
                       Errors have the form `Error`; on `/v1` they have the form `OpenAiError` for clients that say they \
                       are OpenAI's.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        tgi::compat, tgi::generate, tgi::generate_stream, openai::chat, openai::completions, tokens::tokenize,
        openai::tokenize, tokens::detokenize, tokens::tokenizer_info, hosted::invocations, hosted::vertex,
        openai::models, openai::model, info::info, info::metrics, health::health, health::ping, health::live,
        health::ready, web::root, document,
    ),
    components(schemas(refusals::OpenAiErrorBody, refusals::EitherErrorBody)),
    tags(
        (name = "OpenAI", description = "The dialect of OpenAI's clients."),
        (name = "TGI", description = "The dialect of TGI's clients."),
        (name = "Others", description = "What hosts of models and tools for evaluation ask for."),
        (name = "Server", description = "The server about itself."),
    ),
    modifiers(&Key, &EitherForm),
    security((), ("key" = [])),
)]
struct Document;

/// The key is asked for only where one is configured.
struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let description = "A key of `--api-key`, where the server has one.";
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        document.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

static TEXT: LazyLock<String> = LazyLock::new(|| Document::openapi().to_json().unwrap_or_default());

/// This document.
#[utoipa::path(
    get, path = "/api-doc/openapi.json", tag = "Server",
    responses((status = 200, description = "OpenAPI 3.1.", body = Object)), security(()),
)]
pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}
