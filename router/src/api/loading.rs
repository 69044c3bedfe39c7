//! Answers while the model loads. The port is bound first, so that probes and people get a word instead of a hang; as
//! soon as the routes are there every request goes to them.

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::get;
use tower::ServiceExt;

use super::error::{self, ApiError, ErrorKind};
use super::{head, health};

/// Routes that say "loading" until `routes` is set, and pass everything on from then on.
pub fn while_loading(routes: Arc<OnceLock<Router>>) -> Router {
    let loading = loading();
    Router::new().fallback(move |request: Request| pass_on(routes.get().unwrap_or(&loading).clone(), request))
}

async fn pass_on(routes: Router, request: Request) -> Response {
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn loading() -> Router {
    Router::new()
        .route("/live", get(health::live))
        .fallback(still_loading)
        .layer(from_fn(error::render))
        .layer(from_fn(head::identify))
}

async fn still_loading() -> ApiError {
    ApiError::new(ErrorKind::Unavailable, "the model is loading")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::StatusCode;

    use super::*;

    async fn status(router: &Router, path: &str) -> StatusCode {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn unavailable_until_the_routes_are_there() {
        let loaded = Arc::new(OnceLock::new());
        let router = while_loading(Arc::clone(&loaded));
        assert_eq!(status(&router, "/health").await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(status(&router, "/live").await, StatusCode::OK);
        loaded.set(Router::new().route("/health", get(|| async { "fine" }))).unwrap();
        assert_eq!(status(&router, "/health").await, StatusCode::OK);
        assert_eq!(status(&router, "/live").await, StatusCode::NOT_FOUND);
    }
}
