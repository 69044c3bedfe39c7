//! Pages for people: who gets them, and what they may do.

use axum::body::Body;
use axum::response::Response;
use http::Request;

use super::fixture::{Setup, read, text};
use crate::api::ApiKey;

const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

async fn browse(setup: &Setup, path: &str) -> Response {
    setup.send(Request::get(path).header("accept", BROWSER).body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_browser_gets_the_playground_and_a_probe_gets_nothing() {
    let setup = Setup::playing([]);
    let response = browse(&setup, "/").await;
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(response.headers()["vary"], "accept");
    assert!(text(response).await.starts_with("<!doctype html>"));
    let response = setup.get("/").await;
    assert_eq!((response.status().as_u16(), &response.headers()["vary"]), (200, &"accept".parse().unwrap()));
    assert_eq!(text(response).await, "");
}

#[tokio::test]
async fn the_page_may_ask_this_server_only() {
    let setup = Setup::playing([]);
    let (one, other) = (browse(&setup, "/").await, browse(&setup, "/").await);
    let policy = one.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && policy.contains("connect-src 'self'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    assert_ne!(policy, other.headers()["content-security-policy"]);
    let nonce = policy.split_once("'nonce-").unwrap().1.split_once('\'').unwrap().0.to_owned();
    assert_eq!(text(one).await.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
}

#[tokio::test]
async fn its_files_have_their_types() {
    let setup = Setup::playing([]);
    for (path, content_type) in [("main.js", "text/javascript"), ("style.css", "text/css")] {
        let response = browse(&setup, &format!("/playground/{path}")).await;
        assert_eq!(response.headers()["content-type"], format!("{content_type}; charset=utf-8"));
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    assert_eq!(read(browse(&setup, "/playground/other.js").await).await.0, 404);
}

#[tokio::test]
async fn pages_need_no_key() {
    let mut setup = Setup::playing([]);
    setup.options.api_keys = vec![ApiKey::new("secret")];
    for path in ["/", "/playground/main.js", "/docs", "/docs/swagger-ui.css", "/api-doc/openapi.json"] {
        assert_eq!(browse(&setup, path).await.status(), 200, "{path}");
    }
    assert_eq!(browse(&setup, "/info").await.status(), 401);
}
