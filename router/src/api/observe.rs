//! Counts requests: how many came, how they failed, and how many clients left before their answer was complete.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use metrics::counter;

use super::error::{ApiError, ErrorKind};

/// Middleware around the routes that generate.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    counter!("tgi_request_count").increment(1);
    let client = Attendance::new();
    let response = next.run(request).await;
    client.done();
    if let Some(error) = response.extensions().get::<ApiError>() {
        failed(error.kind());
    }
    response
}

/// Counts a request that failed, before its answer or within it.
pub(super) fn failed(kind: ErrorKind) {
    counter!("tgi_request_failure", "err" => kind.metric_label()).increment(1);
}

/// Is dropped undone only when the client has left: the server drops what it was doing for it.
#[must_use]
pub(super) struct Attendance {
    done: bool,
}

impl Attendance {
    pub(super) fn new() -> Self {
        Self { done: false }
    }

    /// The client got everything there was for it.
    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if !self.done {
            counter!("tgi_request_failure", "err" => "dropped").increment(1);
        }
    }
}
