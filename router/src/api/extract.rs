//! Bodies: read with limits on size and time, parsed as JSON, refused in words that name the field. Says nothing about
//! what the fields mean.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::SemaphorePermit;
use tokio::time::{Duration, timeout};

use super::Api;
use super::error::{ApiError, ErrorKind};
use super::object::Object;
use super::text::{MAX_ECHO_BYTES, shorten, shorten_middle};

/// Bodies from this size on are parsed beside the async workers.
const PARSE_INLINE_BYTES: usize = 256 << 10;
/// A refused body is read on for this long and this far, so that its sender gets to see the answer.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DRAIN_BYTES: usize = 64 << 20;
/// What all bodies that are being read or parsed may hold together, in units of [`BUDGET_UNIT`].
pub(super) const BODY_BUDGET_UNITS: usize = 8192;
const BUDGET_UNIT: usize = 64 << 10;

/// A body, parsed.
pub(super) struct ApiJson<T>(pub(super) T);

impl<T: DeserializeOwned + Send + 'static> FromRequest<Arc<Api>> for ApiJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        check_media_type(request.headers())?;
        let body = Reader::new(api).read(request).await?;
        body.parse().await.map(Self)
    }
}

/// A whole body with its share of the budget.
struct Collected<'a> {
    bytes: Bytes,
    _budget: Option<SemaphorePermit<'a>>,
}

impl Collected<'_> {
    async fn parse<T: DeserializeOwned + Send + 'static>(self) -> Result<T, ApiError> {
        if self.bytes.len() < PARSE_INLINE_BYTES {
            return parse(&self.bytes);
        }
        let bytes = self.bytes.clone();
        let parsed = tokio::task::spawn_blocking(move || parse(&bytes)).await;
        parsed.unwrap_or_else(|_| Err(ApiError::new(ErrorKind::Internal, "the body could not be parsed")))
    }
}

struct Reader<'a> {
    api: &'a Api,
    bytes: BytesMut,
    budget: Option<SemaphorePermit<'a>>,
}

impl<'a> Reader<'a> {
    fn new(api: &'a Api) -> Self {
        Self { api, bytes: BytesMut::new(), budget: None }
    }

    async fn read(self, request: Request) -> Result<Collected<'a>, ApiError> {
        let (head, body) = request.into_parts();
        if declared_length(&head.headers) > self.api.limits.payload_limit as u64 {
            // A client that waits for "100 Continue" has not sent the body and must not be asked to.
            if !head.headers.contains_key(EXPECT) {
                drain(body).await;
            }
            return Err(self.too_large());
        }
        let body_timeout = self.api.limits.body_timeout;
        timeout(body_timeout, self.collect(body)).await.unwrap_or_else(|_| Err(too_slow()))
    }

    async fn collect(mut self, mut body: Body) -> Result<Collected<'a>, ApiError> {
        let pause = self.api.limits.body_pause;
        while let Some(frame) = timeout(pause, body.frame()).await.map_err(|_| too_slow())? {
            let frame = frame.map_err(|_| ApiError::new(ErrorKind::BadRequest, "the body could not be read"))?;
            let Ok(data) = frame.into_data() else { continue };
            if self.bytes.len() + data.len() > self.api.limits.payload_limit {
                drain(body).await;
                return Err(self.too_large());
            }
            self.reserve(data.len())?;
            self.bytes.extend_from_slice(&data);
        }
        Ok(Collected { bytes: self.bytes.freeze(), _budget: self.budget })
    }

    /// Takes from the budget what `more` bytes need; small bodies fit into their first unit.
    fn reserve(&mut self, more: usize) -> Result<(), ApiError> {
        let held = self.budget.as_ref().map_or(0, SemaphorePermit::num_permits);
        let needed = (self.bytes.len() + more).div_ceil(BUDGET_UNIT).saturating_sub(held);
        if needed == 0 {
            return Ok(());
        }
        let taken = self.api.bodies.try_acquire_many(needed as u32);
        let taken = taken.map_err(|_| ApiError::new(ErrorKind::Overloaded, "Model is overloaded"))?;
        match &mut self.budget {
            Some(budget) => budget.merge(taken),
            None => self.budget = Some(taken),
        }
        Ok(())
    }

    fn too_large(&self) -> ApiError {
        let limit = self.api.limits.payload_limit;
        ApiError::new(ErrorKind::TooLarge, format!("the body is larger than {limit} bytes (--payload-limit)"))
    }
}

fn too_slow() -> ApiError {
    ApiError::new(ErrorKind::Timeout, "the body did not arrive in time")
}

async fn drain(mut body: Body) {
    let discard = async {
        let mut drained = 0;
        while let Some(Ok(frame)) = body.frame().await {
            drained += frame.data_ref().map_or(0, Bytes::len);
            if drained > DRAIN_BYTES {
                return;
            }
        }
    };
    // Not arriving in time is as good as having arrived: the answer goes out either way.
    let _ = timeout(DRAIN_TIMEOUT, discard).await;
}

fn declared_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |message| Err(ApiError::new(ErrorKind::MediaType, message));
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return refuse("compressed bodies are not supported");
    }
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json { Ok(()) } else { refuse("expected a body with `content-type: application/json`") }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json)
        .map_err(|error| refusal(&error.path().to_string(), error.inner()))?;
    json.end().map_err(|error| refusal(".", &error))?;
    Ok(value)
}

fn refusal(path: &str, error: &serde_json::Error) -> ApiError {
    // What the parser repeats of the body stands between the two ends of its message.
    let message = shorten_middle(&error.to_string(), MAX_ECHO_BYTES * 6 / 10, MAX_ECHO_BYTES * 9 / 10);
    if !error.is_data() {
        return ApiError::new(ErrorKind::BadRequest, format!("the body is not valid JSON: {message}"));
    }
    if path == "." {
        return ApiError::validation(message);
    }
    let path = shorten(path, MAX_ECHO_BYTES);
    ApiError::validation(format!("{path}: {message}")).at(&path)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        #[allow(dead_code, reason = "only its type matters")]
        inputs: String,
        #[allow(dead_code, reason = "only its type matters")]
        parameters: Option<Parameters>,
    }

    #[derive(Debug, Deserialize)]
    struct Parameters {
        #[allow(dead_code, reason = "only its type matters")]
        top_k: Option<u32>,
        #[allow(dead_code, reason = "only its type matters")]
        grammar: Option<serde_json::Value>,
    }

    #[track_caller]
    fn refused(body: &str, kind: ErrorKind, text: &str) {
        let error = parse::<Body>(body.as_bytes()).expect_err("must be refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.to_string().len() < 400, "{error}");
    }

    #[test]
    fn names_the_field() {
        refused(r#"{"inputs": "a", "parameters": {"top_k": "x"}}"#, ErrorKind::Validation, "parameters.top_k: invalid");
        refused(r#"{"inputs": 3}"#, ErrorKind::Validation, "inputs: invalid type: integer `3`, expected a string");
        refused("{}", ErrorKind::Validation, "missing field `inputs`");
        refused(r#"["a", {}]"#, ErrorKind::Validation, "invalid type: sequence, expected an object");
        refused(r#""a""#, ErrorKind::Validation, "expected an object");
    }

    #[test]
    fn syntax_is_another_matter() {
        refused("{", ErrorKind::BadRequest, "not valid JSON");
        refused("", ErrorKind::BadRequest, "not valid JSON");
        refused(r#"{"inputs": "a"} x"#, ErrorKind::BadRequest, "trailing characters");
        let deep = format!(r#"{{"inputs": "a", "parameters": {{"grammar": {}}}}}"#, "[".repeat(100_000));
        refused(&deep, ErrorKind::BadRequest, "recursion limit");
    }

    #[test]
    fn repeats_little_of_what_it_read() {
        let secret = "x".repeat(5000);
        let error = parse::<Body>(format!(r#"{{"inputs": "a", "parameters": {{"top_k": "{secret}"}}}}"#).as_bytes());
        let text = error.expect_err("a string is no number").to_string();
        assert!(text.matches('x').count() <= MAX_ECHO_BYTES, "{text}");
        assert!(text.contains("expected u32"), "{text}");
    }

    #[test]
    fn media_types() {
        let ok = ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/ld+json"];
        for media_type in ok {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())]);
            assert_eq!(check_media_type(&headers), Ok(()), "{media_type}");
        }
        for media_type in ["text/plain", "", "application/x-www-form-urlencoded", "text/json"] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())]);
            assert!(check_media_type(&headers).is_err(), "{media_type}");
        }
        assert!(check_media_type(&HeaderMap::new()).is_err());
    }
}
