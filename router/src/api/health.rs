//! Probes. Answered from what the engine last saw, never by asking it: a probe must not queue behind requests.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use super::Api;
use super::error::{ApiError, ErrorKind};

/// `/health`, `/ping`: whether requests can be expected to finish. Stays good while the server drains.
pub(super) async fn health(State(api): State<Arc<Api>>) -> Result<(), ApiError> {
    if api.generator.health().is_healthy() { Ok(()) } else { Err(ApiError::new(ErrorKind::Unhealthy, "unhealthy")) }
}

/// `/live`: the process answers.
pub(super) async fn live() -> StatusCode {
    StatusCode::OK
}

/// `/ready`: whether new requests are welcome here.
pub(super) async fn ready(state: State<Arc<Api>>) -> Result<(), ApiError> {
    if state.generator.is_draining() {
        return Err(ApiError::new(ErrorKind::Unhealthy, "draining"));
    }
    health(state).await
}
