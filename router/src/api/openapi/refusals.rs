//! The errors of the document: which statuses there are, and the two forms of their bodies. `error.rs` decides which
//! one a request gets; a test holds the two together.

// These say what JSON looks like and hold none.
#![allow(dead_code, reason = "schemas only")]

use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{OpenApi, RefOr};
use utoipa::{IntoResponses, Modify, PartialSchema, ToSchema};

use super::by_hand::{one_of, reference};
use crate::api::error::takes_objects;

/// An error as TGI writes it, and as everybody gets it who is not known to read the other form.
#[derive(ToSchema)]
#[schema(as = Error)]
pub(in crate::api) struct ErrorBody {
    /// What went wrong, for people.
    error: String,
    /// What went wrong, for programs: `validation`, `overloaded`, `generation`, …
    error_type: String,
}

/// An error as OpenAI writes it: on `/v1` for clients that say they are OpenAI's.
#[derive(ToSchema)]
#[schema(as = OpenAiError)]
pub(in crate::api) struct OpenAiErrorBody {
    /// The error.
    error: OpenAiErrorDetails,
}

/// What went wrong.
#[derive(ToSchema)]
#[schema(as = OpenAiErrorDetails)]
struct OpenAiErrorDetails {
    /// For people.
    message: String,
    /// `invalid_request_error`, `rate_limit_error`, `server_error`, …
    r#type: String,
    /// The field that is to blame.
    param: Option<String>,
    /// As `error_type` of the other form.
    code: String,
    /// The status that goes with it; in a stream there is no other.
    http_status_code: u16,
}

/// An error on `/v1`, where the client's headers decide between the forms.
pub(super) struct EitherErrorBody;

impl PartialSchema for EitherErrorBody {
    fn schema() -> RefOr<Schema> {
        let description =
            "The second form for clients that send `x-stainless-lang`, or whose `User-Agent` has `ai-sdk` in it.";
        one_of(description, [reference::<ErrorBody>(), reference::<OpenAiErrorBody>()])
    }
}

impl ToSchema for EitherErrorBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "EitherError".into()
    }
}

/// Writes both forms where there are both.
pub(super) struct EitherForm;

impl Modify for EitherForm {
    fn modify(&self, document: &mut OpenApi) {
        let paths = document.paths.paths.iter_mut().filter(|(path, _)| takes_objects(path));
        let responses =
            paths.flat_map(|(_, item)| operations(item)).flat_map(|operation| &mut operation.responses.responses);
        for (_, response) in responses {
            if let RefOr::T(response) = response {
                allow_both(response);
            }
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post].into_iter().flatten()
}

fn allow_both(response: &mut Response) {
    let error = Some(reference::<ErrorBody>());
    for content in response.content.values_mut() {
        if let RefOr::T(content) = content
            && content.schema == error
        {
            content.schema = Some(reference::<EitherErrorBody>());
        }
    }
}

/// How any request can be refused.
#[derive(IntoResponses)]
pub(in crate::api) enum Refusals {
    /// No key, or a wrong one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A value that the request may not have.
    #[response(status = 422)]
    Validation(ErrorBody),
    /// Anything else that is wrong with the request: no JSON (400), too slow (408), too large (413), no
    /// `application/json` (415), another host (421), a long head (414, 431).
    #[response(status = "4XX")]
    Request(ErrorBody),
    /// The server is starting or stopping.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// How a request can fail that generates.
#[derive(IntoResponses)]
pub(in crate::api) enum GenerationRefusals {
    /// No key, or a wrong one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// No such adapter.
    #[response(status = 404)]
    NotFound(ErrorBody),
    /// A value that the request may not have.
    #[response(status = 422)]
    Validation(ErrorBody),
    /// Generation failed. On `/v1` that is a 500.
    #[response(status = 424)]
    Generation(ErrorBody),
    /// Too many requests at once; `Retry-After` says when to come back.
    #[response(status = 429)]
    Overloaded(ErrorBody),
    /// Anything else that is wrong with the request: no JSON (400), too slow (408), too large (413), no
    /// `application/json` (415), another host (421), a long head (414, 431).
    #[response(status = "4XX")]
    Request(ErrorBody),
    /// Generation failed, or the server has a defect.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The server is starting or stopping.
    #[response(status = 503)]
    Unavailable(ErrorBody),
}
