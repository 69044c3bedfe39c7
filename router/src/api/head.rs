//! What holds for every request and response whatever its route: bounds on the head, the request id, one line of log.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::error::{ApiError, ErrorKind};
use super::{Api, trace};

/// Echoed when the client sent one, made up otherwise.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is echoed.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id a request goes by in headers and logs. It never names a sequence: clients choose it.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) HeaderValue);

impl RequestId {
    fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(REQUEST_ID).filter(|id| is_acceptable(id.as_bytes()));
        Self(sent.cloned().unwrap_or_else(Self::random))
    }

    fn random() -> HeaderValue {
        HeaderValue::from_str(&random_id()).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// 128 random bits in hexadecimal.
pub(super) fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn is_acceptable(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES && id.iter().all(u8::is_ascii_graphic)
}

/// Middleware: names the request, and logs how it went. The line holds nothing that the client wrote but its id and the
/// trace it is part of.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers());
    let trace_id = trace::trace_id(request.headers()).map(str::to_owned);
    request.extensions_mut().insert(id.clone());
    let (method, started) = (request.method().clone(), Instant::now());
    let mut response = next.run(request).await;
    let route = response.extensions().get::<Route>().map_or("", |route| route.0.as_str());
    let (status, milliseconds) = (response.status().as_u16(), started.elapsed().as_millis() as u64);
    let error = response.extensions().get::<ApiError>().map(ApiError::kind);
    // Probes ask every second.
    if method == Method::POST {
        tracing::info!(%method, route, status, ?error, milliseconds, request_id = ?id.0, trace_id, "answered");
    } else {
        tracing::debug!(%method, route, status, ?error, milliseconds, request_id = ?id.0, trace_id, "answered");
    }
    response.headers_mut().insert(REQUEST_ID, id.0);
    response
}

/// The template of the route that answered, for logs.
#[derive(Clone)]
struct Route(MatchedPath);

/// Middleware inside the routes: tells [`identify`] which route answered.
pub(super) async fn note_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(Route(route));
    }
    response
}

/// Middleware: bounds on the head, refused as JSON. The server's own bounds lie above these.
pub(super) async fn bound(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match check(&request, &api) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(request: &Request, api: &Api) -> Result<(), ApiError> {
    let limits = &api.limits;
    let uri_bytes = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri_bytes > limits.max_uri_bytes {
        let limit = limits.max_uri_bytes;
        return Err(ApiError::new(ErrorKind::UriTooLong, format!("the URI is longer than {limit} bytes")));
    }
    let headers = request.headers();
    let head_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if headers.len() > limits.max_headers || head_bytes > limits.max_head_bytes {
        let (fields, bytes) = (limits.max_headers, limits.max_head_bytes);
        let message = format!("the head has more than {fields} fields or {bytes} bytes");
        return Err(ApiError::new(ErrorKind::HeadTooLarge, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_forge_a_log_line_are_replaced() {
        let long = "a".repeat(MAX_REQUEST_ID_BYTES + 1);
        for bad in ["", "a b", "caf\u{e9}", long.as_str()] {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(bad.as_bytes()).unwrap())]);
            assert_ne!(RequestId::of(&headers).0.as_bytes(), bad.as_bytes());
        }
        let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static("req-1/a"))]);
        assert_eq!(RequestId::of(&headers).0, "req-1/a");
    }

    #[test]
    fn made_up_ids_differ() {
        assert_ne!(random_id(), random_id());
    }
}
