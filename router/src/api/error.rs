//! The one door for errors: every failure of a request becomes an [`ApiError`] here, and `render` writes it in the form
//! its client reads. What a failure means is decided where it happens; its status, its name and its shape only here.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::text::shorten;
use crate::engine::{AdmissionError, GenerationError};
use crate::images::{ImageError, ImageErrorKind};
use crate::prompt::PromptError;

/// Longest text of an error.
pub(super) const MAX_MESSAGE_BYTES: usize = 1024;

/// What an overloaded client is asked to wait.
const RETRY_AFTER_SECONDS: u32 = 1;

/// What went wrong, from a client's point of view.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum ErrorKind {
    /// A value the request may not have.
    Validation,
    /// Every permit is taken.
    Overloaded,
    /// The shards could not finish the sequence.
    Generation,
    /// The stream ended without a last token.
    Incomplete,
    /// The same, after the answer had begun.
    IncompleteStream,
    /// The chat template is missing or refused the conversation.
    Template,
    /// Tools that this version cannot serve.
    Tool,
    /// `suffix` of a completion.
    Suffix,
    /// More prompts than one request may have.
    BatchSize,
    /// A body that is no JSON, or broken framing.
    BadRequest,
    /// No API key, or a wrong one.
    Unauthorized,
    /// A host name that is not served.
    Misdirected,
    /// No such route, model or adapter.
    NotFound,
    /// The route exists for other methods.
    MethodNotAllowed,
    /// The body did not arrive in time.
    Timeout,
    /// The body is too large.
    TooLarge,
    /// The URI is too long.
    UriTooLong,
    /// The head is too large.
    HeadTooLarge,
    /// The body is not said to be JSON.
    MediaType,
    /// The health check failed.
    Unhealthy,
    /// The server is shutting down.
    Unavailable,
    /// A defect of the server.
    Internal,
}

/// A row of the error table.
struct Row {
    status: StatusCode,
    /// TGI's `error_type`; its clients choose the exception class by it.
    error_type: &'static str,
    /// What texts of this kind start with.
    prefix: &'static str,
    /// `err` label of `tgi_request_failure`.
    label: &'static str,
    /// `type` of the OpenAI object form.
    openai_type: &'static str,
}

const fn row(status: StatusCode, error_type: &'static str, label: &'static str, openai_type: &'static str) -> Row {
    Row { status, error_type, prefix: "", label, openai_type }
}

impl ErrorKind {
    fn row(self) -> Row {
        const REQUEST: &str = "invalid_request_error";
        const SERVER: &str = "server_error";
        match self {
            Self::Validation => Row {
                prefix: "Input validation error: ",
                ..row(StatusCode::UNPROCESSABLE_ENTITY, "validation", "validation", REQUEST)
            },
            Self::Overloaded => row(StatusCode::TOO_MANY_REQUESTS, "overloaded", "overloaded", "rate_limit_error"),
            Self::Generation => Row {
                prefix: "Request failed during generation: ",
                ..row(StatusCode::FAILED_DEPENDENCY, "generation", "generation", SERVER)
            },
            Self::Incomplete => row(StatusCode::INTERNAL_SERVER_ERROR, "incomplete_generation", "incomplete", SERVER),
            Self::IncompleteStream => {
                row(StatusCode::INTERNAL_SERVER_ERROR, "incomplete_generation_stream", "incomplete", SERVER)
            }
            Self::Template => Row {
                prefix: "Template error: ",
                ..row(StatusCode::UNPROCESSABLE_ENTITY, "template_error", "template", REQUEST)
            },
            Self::Tool => Row {
                prefix: "Tool error: ",
                ..row(StatusCode::UNPROCESSABLE_ENTITY, "tool_error", "validation", REQUEST)
            },
            Self::Suffix => row(StatusCode::UNPROCESSABLE_ENTITY, "suffix not supported", "validation", REQUEST),
            Self::BatchSize => row(StatusCode::UNPROCESSABLE_ENTITY, "batch size exceeded", "validation", REQUEST),
            Self::BadRequest => row(StatusCode::BAD_REQUEST, "bad_request", "validation", REQUEST),
            Self::Unauthorized => row(StatusCode::UNAUTHORIZED, "unauthorized", "validation", "authentication_error"),
            Self::Misdirected => row(StatusCode::MISDIRECTED_REQUEST, "unknown_host", "validation", REQUEST),
            Self::NotFound => row(StatusCode::NOT_FOUND, "not_found", "validation", REQUEST),
            Self::MethodNotAllowed => row(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "validation", REQUEST),
            Self::Timeout => row(StatusCode::REQUEST_TIMEOUT, "request_timeout", "validation", REQUEST),
            Self::TooLarge => row(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "validation", REQUEST),
            Self::UriTooLong => row(StatusCode::URI_TOO_LONG, "uri_too_long", "validation", REQUEST),
            Self::HeadTooLarge => {
                row(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "validation", REQUEST)
            }
            Self::MediaType => row(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "validation", REQUEST),
            Self::Unhealthy => row(StatusCode::SERVICE_UNAVAILABLE, "healthcheck", "generation", SERVER),
            Self::Unavailable => row(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "overloaded", SERVER),
            Self::Internal => row(StatusCode::INTERNAL_SERVER_ERROR, "internal", "generation", SERVER),
        }
    }

    /// The `err` label of `tgi_request_failure`, from a closed set.
    pub fn metric_label(self) -> &'static str {
        self.row().label
    }

    fn status(self, family: RouteFamily) -> StatusCode {
        match (self, family) {
            // OpenAI clients know no 424; a server fault is theirs to repeat.
            (Self::Generation, RouteFamily::OpenAi) => StatusCode::INTERNAL_SERVER_ERROR,
            _ => self.row().status,
        }
    }
}

/// Which contract a route keeps.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum RouteFamily {
    /// TGI's own routes, and everything else.
    Tgi,
    /// `/v1/…`.
    OpenAi,
}

impl RouteFamily {
    fn of(path: &str) -> Self {
        if path.starts_with("/v1/") { Self::OpenAi } else { Self::Tgi }
    }
}

/// Whether errors of a route may have OpenAI's form.
pub(super) fn takes_objects(path: &str) -> bool {
    RouteFamily::of(path) == RouteFamily::OpenAi
}

/// Why a request was refused or given up.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    kind: ErrorKind,
    message: String,
    /// The field that is to blame, as a path into the body.
    field: Option<String>,
}

impl ApiError {
    /// An error of `kind`; the text is bounded here.
    pub fn new(kind: ErrorKind, message: impl AsRef<str>) -> Self {
        let message = format!("{}{}", kind.row().prefix, message.as_ref());
        Self { kind, message: shorten(&message, MAX_MESSAGE_BYTES), field: None }
    }

    /// A value the request may not have.
    pub fn validation(message: impl AsRef<str>) -> Self {
        Self::new(ErrorKind::Validation, message)
    }

    /// A value of `field` that it may not have.
    pub fn field(field: &str, rule: impl AsRef<str>) -> Self {
        Self::validation(format!("`{field}` {}", rule.as_ref())).at(field)
    }

    /// Names the field that is to blame.
    #[must_use]
    pub fn at(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }

    /// The same error where a field has another name.
    #[must_use]
    pub(super) fn renamed(self, from: &str, to: &str) -> Self {
        if self.field.as_deref() != Some(from) {
            return self;
        }
        Self { message: self.message.replacen(&format!("`{from}`"), &format!("`{to}`"), 1), ..self.at(to) }
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// TGI's form, also that of an error inside a stream of a TGI route.
    pub fn tgi_body(&self) -> Value {
        json!({"error": self.message, "error_type": self.kind.row().error_type})
    }

    /// OpenAI's form. `http_status_code` is what TGI puts into its chat streams.
    pub fn openai_body(&self) -> Value {
        let row = self.kind.row();
        let status = self.kind.status(RouteFamily::OpenAi).as_u16();
        json!({"error": {
            "message": self.message, "type": row.openai_type, "param": self.field, "code": row.error_type,
            "http_status_code": status,
        }})
    }

    fn response(&self, family: RouteFamily, body: &Value) -> Response {
        let mut response = (self.kind.status(family), body.to_string()).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.add_headers(response.headers_mut());
        response.extensions_mut().insert(self.clone());
        response
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        match self.kind {
            ErrorKind::Overloaded | ErrorKind::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            ErrorKind::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What is left of the body would be read as the next request.
            ErrorKind::Timeout | ErrorKind::TooLarge | ErrorKind::HeadTooLarge => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response(RouteFamily::Tgi, &self.tgi_body())
    }
}

/// Middleware: writes an error in the form that the client of this route reads.
pub(super) async fn render(request: Request, next: Next) -> Response {
    let family = RouteFamily::of(request.uri().path());
    let object = family == RouteFamily::OpenAi && reads_objects(request.headers());
    let response = next.run(request).await;
    let Some(error) = response.extensions().get::<ApiError>() else { return response };
    if family == RouteFamily::Tgi {
        return response;
    }
    let body = if object { error.openai_body() } else { error.tgi_body() };
    let mut rendered = error.response(family, &body);
    for (name, value) in response.headers() {
        rendered.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    rendered.headers_mut().remove(http::header::CONTENT_LENGTH);
    rendered
}

/// No body serves every client. OpenAI's libraries and the AI SDK show only the object form, Hugging Face's only the
/// string form; the first two can be told by their headers.
fn reads_objects(headers: &HeaderMap) -> bool {
    let agent = headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    headers.contains_key("x-stainless-lang") || agent.is_some_and(|agent| agent.contains("ai-sdk"))
}

impl From<AdmissionError> for ApiError {
    fn from(error: AdmissionError) -> Self {
        let kind = match error {
            AdmissionError::Overloaded => ErrorKind::Overloaded,
            AdmissionError::Draining => ErrorKind::Unavailable,
            AdmissionError::PromptTooLong { .. }
            | AdmissionError::TotalTooLong { .. }
            | AdmissionError::EmptyPrompt
            | AdmissionError::Unschedulable(_) => ErrorKind::Validation,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        Self::new(ErrorKind::Generation, error.to_string())
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        let kind = match error.kind() {
            ImageErrorKind::Invalid | ImageErrorKind::TooLarge | ImageErrorKind::TimedOut => ErrorKind::Validation,
            ImageErrorKind::Overloaded => ErrorKind::Overloaded,
            ImageErrorKind::Internal => ErrorKind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<PromptError> for ApiError {
    fn from(error: PromptError) -> Self {
        let kind = match error {
            PromptError::Template(_) => ErrorKind::Template,
            PromptError::ShuttingDown => ErrorKind::Unavailable,
            PromptError::TextTooLong { .. }
            | PromptError::NoImages
            | PromptError::ImageNeeded
            | PromptError::ImageCount { .. }
            | PromptError::TruncatedImage { .. }
            | PromptError::ControlTokens
            | PromptError::UnknownToken(_)
            | PromptError::MediaToken(_)
            | PromptError::NothingToContinue
            | PromptError::Tokenize => ErrorKind::Validation,
        };
        Self::new(kind, error.to_string())
    }
}
