//! How a page is sent: what it may do in the browser is said here, and it is little.

use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};

use crate::api::head;

/// Where a page has to have its nonce written in.
const NONCE: &str = "{nonce}";

/// A page of its own scripts and styles, each of them marked with [`NONCE`]. It may ask this server and nobody else.
pub(super) fn html(template: &str) -> Response {
    let nonce = head::random_id();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let page = template.replace(NONCE, &nonce);
    // A nonce is good for one answer. What is at `/` depends on who asks.
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (VARY, HeaderValue::from_static("accept")),
    ];
    let mut response = (headers, page).into_response();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    closed(response)
}

/// A file that a page is made of.
pub(super) fn file(content_type: &'static str, content: impl IntoResponse) -> Response {
    // The next version of the server has other files under the same names.
    let headers: [(HeaderName, HeaderValue); 2] =
        [(CONTENT_TYPE, HeaderValue::from_static(content_type)), (CACHE_CONTROL, HeaderValue::from_static("no-cache"))];
    closed((headers, content).into_response())
}

fn closed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
