//! Probes. Answered from what the engine last saw, never by asking it: a probe must not queue behind requests.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use super::Api;
use super::error::{ApiError, ErrorKind};
use super::openapi::ErrorBody;

/// Whether requests can be expected to finish. Stays good while the server drains.
#[utoipa::path(get, path = "/health", tag = "Server", responses(
    (status = 200, description = "They can."), (status = 503, description = "They cannot.", body = ErrorBody),
), security(()))]
pub(super) async fn health(State(api): State<Arc<Api>>) -> Result<(), ApiError> {
    if api.generator.health().is_healthy() { Ok(()) } else { Err(ApiError::new(ErrorKind::Unhealthy, "unhealthy")) }
}

/// The same under another name.
#[utoipa::path(get, path = "/ping", tag = "Server", responses(
    (status = 200, description = "They can."), (status = 503, description = "They cannot.", body = ErrorBody),
), security(()))]
pub(super) async fn ping(state: State<Arc<Api>>) -> Result<(), ApiError> {
    health(state).await
}

/// Whether the process answers.
#[utoipa::path(get, path = "/live", tag = "Server", responses((status = 200, description = "It does.")), security(()))]
pub(super) async fn live() -> StatusCode {
    StatusCode::OK
}

/// Whether new requests are welcome here.
#[utoipa::path(get, path = "/ready", tag = "Server", responses(
    (status = 200, description = "They are."), (status = 503, description = "They are not.", body = ErrorBody),
), security(()))]
pub(super) async fn ready(state: State<Arc<Api>>) -> Result<(), ApiError> {
    if state.generator.is_draining() {
        return Err(ApiError::new(ErrorKind::Unhealthy, "draining"));
    }
    health(state).await
}
