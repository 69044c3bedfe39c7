//! What the server says about itself, and what holds for every answer.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::Request;
use serde_json::json;

use super::fake::Script;
use super::fixture::{Setup, post, read, text};

#[tokio::test]
async fn probes_are_empty_or_json() {
    let setup = Setup::playing([]);
    for path in ["/", "/health", "/ping", "/live", "/ready"] {
        let response = setup.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(text(response).await, "", "{path}");
    }
    setup.fake.unhealthy.store(true, Ordering::SeqCst);
    for path in ["/health", "/ping", "/ready"] {
        let (status, body) = read(setup.get(path).await).await;
        assert_eq!(status, 503);
        assert_eq!(body, json!({"error": "unhealthy", "error_type": "healthcheck"}), "{path}");
    }
    assert_eq!(setup.get("/live").await.status(), 200);
}

#[tokio::test]
async fn info_has_the_fields_of_tgi() {
    let (status, body) = read(Setup::playing([]).get("/info").await).await;
    assert_eq!(status, 200);
    let fields = [
        "model_id",
        "model_sha",
        "model_pipeline_tag",
        "max_concurrent_requests",
        "max_best_of",
        "max_stop_sequences",
        "max_input_tokens",
        "max_total_tokens",
        "validation_workers",
        "max_client_batch_size",
        "router",
        "version",
        "sha",
        "docker_label",
    ];
    for field in fields {
        assert!(body.get(field).is_some(), "{field}");
    }
    assert_eq!((&body["router"], &body["max_input_tokens"]), (&json!("text-generation-router"), &json!(2000)));
    let version: Vec<u32> = body["version"].as_str().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
    assert!(version >= vec![2, 1, 0]);
}

#[tokio::test]
async fn info_tells_limits_of_our_own() {
    let mut setup = Setup::playing([]);
    let (_, body) = read(setup.get("/info").await).await;
    let expected = json!({
        "max_images": 16, "max_bytes": 20 << 20, "max_request_bytes": 64 << 20, "max_pixels": 64 << 20,
        "max_request_pixels": 256 << 20, "max_side": 16_384, "timeout_seconds": 15,
    });
    assert_eq!(body["image_limits"], expected);
    assert_eq!((&body["max_grammar_bytes"], &body["max_parts"]), (&json!(128 << 10), &json!(4096)));
    assert_eq!((&body["max_messages"], &body["max_tools"]), (&json!(1024), &json!(128)));
    (setup.takes_images, setup.grammars) = (false, false);
    let (_, body) = read(setup.get("/info").await).await;
    assert!(body["image_limits"].is_null() && body["max_grammar_bytes"].is_null(), "{body}");
}

#[tokio::test]
async fn models_are_listed_and_found_by_raw_and_encoded_id() {
    let setup = Setup::playing([]);
    let model = json!({"id": "org/bytes", "object": "model", "created": 0, "owned_by": "org/bytes"});
    let (_, list) = read(setup.get("/v1/models").await).await;
    assert_eq!(list, json!({"object": "list", "data": [model]}));
    for path in ["/v1/models/org/bytes", "/v1/models/org%2Fbytes"] {
        assert_eq!(read(setup.get(path).await).await.1, model, "{path}");
    }
    assert_eq!(read(setup.get("/v1/models/other").await).await.0, 404);
}

#[tokio::test]
async fn a_sent_request_id_comes_back() {
    let setup = Setup::playing([Script::ended("x")]);
    let mut request = post("/generate", &json!({"inputs": "q"}));
    request.headers_mut().insert("x-request-id", "mine-1".parse().unwrap());
    assert_eq!(setup.send(request).await.headers()["x-request-id"], "mine-1");
    assert_eq!(setup.get("/nowhere").await.headers()["x-request-id"].len(), 32);
}

#[tokio::test]
async fn metrics_are_there_before_the_first_request() {
    let response = Setup::playing([]).get("/metrics").await;
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = text(response).await;
    for name in ["tgi_request_count", "tgi_request_duration_bucket", "tgi_queue_size", "tgi_image_count"] {
        assert!(text.contains(name), "{name}");
    }
}

#[tokio::test]
async fn origins_are_closed_unless_listed() {
    let preflight = || {
        let request = Request::options("/generate").header("origin", "https://a.example");
        request.header("access-control-request-method", "POST").body(Body::empty()).unwrap()
    };
    let mut setup = Setup::playing([]);
    assert!(!setup.send(preflight()).await.headers().contains_key("access-control-allow-origin"));
    setup.options.cors_allow_origin = vec!["https://a.example".parse().unwrap()];
    assert_eq!(setup.send(preflight()).await.headers()["access-control-allow-origin"], "https://a.example");
    setup.options.cors_allow_origin = vec!["*".parse().unwrap()];
    assert_eq!(setup.send(preflight()).await.headers()["access-control-allow-origin"], "*");
}
