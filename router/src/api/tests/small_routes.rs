//! Routes that take the bodies of others, and those about tokens.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::fake::Script;
use super::fixture::{IMAGE, Setup, picture, read};

fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn invocations_answers_as_the_route_the_body_is_for() {
    let setup = Setup::playing([Script::ended("a"), Script::ended("b")]);
    let (_, body) = setup.post("/invocations", json!({"inputs": "q", "messages": null})).await;
    assert_eq!(body, json!([{"generated_text": "a"}]));
    let (_, body) = setup.post("/invocations", chat("q")).await;
    assert_eq!(body["choices"][0]["message"]["content"], "b");
}

#[tokio::test]
async fn invocations_streams() {
    let setup = Setup::playing([Script::ended("ab")]);
    let events = setup.events("/invocations", json!({"inputs": "q", "stream": true})).await;
    assert_eq!(events.len(), 3);
}

#[tokio::test]
async fn invocations_names_what_is_wrong() {
    let setup = Setup::playing([]);
    for (body, text) in [
        (json!({}), "one of `inputs`, `messages` and `prompt` is needed"),
        (json!({"inputs": 3}), "inputs: invalid type"),
        (json!({"inputs": "q", "parameters": {"top_k": "x"}}), "parameters.top_k: invalid type"),
        (json!({"messages": [{"role": "user", "content": 1}]}), "messages[0].content: invalid type"),
    ] {
        let (status, answer) = setup.post("/invocations", body).await;
        assert_eq!((status.as_u16(), &answer["error_type"]), (422, &json!("validation")));
        assert!(answer["error"].as_str().unwrap().contains(text), "{answer}");
    }
}

#[tokio::test]
async fn vertex_answers_every_instance() {
    let setup = Setup::playing([Script::ended("a"), Script::ended("b")]);
    let instances = json!([{"inputs": "q", "parameters": {"top_k": 3}}, chat("r")]);
    let (status, body) = setup.post("/vertex", json!({"instances": instances})).await;
    assert_eq!((status.as_u16(), body), (200, json!({"predictions": ["a", "b"]})));
    assert_eq!(setup.fake.request(0).sampling.top_k, 3);
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test]
async fn vertex_keeps_the_cause_of_a_failure() {
    let setup = Setup::playing([]);
    let (status, body) = setup.post("/vertex", json!({"instances": []})).await;
    assert_eq!((status.as_u16(), &body["error_type"]), (422, &json!("validation")));
    let (status, body) = setup.post("/vertex", json!({"instances": [{"inputs": ""}]})).await;
    assert_eq!((status.as_u16(), &body["error_type"]), (422, &json!("validation")));
}

#[tokio::test]
async fn tokenize_speaks_two_dialects() {
    let setup = Setup::playing([]);
    let (_, body) = setup.post("/tokenize", json!({"inputs": "ab"})).await;
    assert_eq!((body[0]["id"].as_u64(), body[1]["id"].as_u64()), (Some(97), Some(98)));
    let (_, body) = setup.post("/tokenize", json!({"prompt": "ab", "add_special_tokens": false})).await;
    assert_eq!((&body["tokens"], &body["count"], &body["token_strs"]), (&json!([97, 98]), &json!(2), &Value::Null));
    assert!(body["max_model_len"].as_u64().unwrap() > 0);
    let (_, body) = setup.post("/tokenize", json!({"prompt": "![](data:,)", "return_token_strs": true})).await;
    assert_eq!(body["token_strs"].as_array().unwrap().len(), 11, "a prompt is text");
}

#[tokio::test]
async fn tokenize_counts_the_images_of_a_chat() {
    let setup = Setup::playing([]);
    let parts = json!([{"type": "image_url", "image_url": {"url": picture()}}, {"type": "text", "text": "q"}]);
    let (_, body) = setup.post("/tokenize", json!({"messages": [{"role": "user", "content": parts}]})).await;
    let images = body["tokens"].as_array().unwrap().iter().filter(|id| **id == json!(IMAGE)).count();
    assert_eq!(images, 4);
}

#[tokio::test]
async fn detokenize_is_the_way_back() {
    let setup = Setup::playing([]);
    let (_, body) = setup.post("/detokenize", json!({"tokens": [97, 98, 256]})).await;
    assert_eq!(body, json!({"prompt": "ab</s>"}));
    let (status, body) = setup.post("/detokenize", json!({"tokens": [97, 100_000]})).await;
    assert_eq!((status.as_u16(), body["error"].as_str().unwrap().contains("100000")), (422, true));
}

#[tokio::test]
async fn tokenizer_info_has_the_template() {
    let (status, body) = read(Setup::playing([]).get("/tokenizer_info").await).await;
    assert_eq!((status.as_u16(), body.get("chat_template")), (200, Some(&Value::Null)));
}

#[tokio::test]
async fn a_preflight_allows_the_headers_that_sdks_send() {
    let mut setup = Setup::playing([]);
    setup.options.cors_allow_origin = vec!["*".parse().unwrap()];
    let request = Request::options("/v1/chat/completions").header("origin", "https://a.example");
    let request = request.header("access-control-request-method", "POST");
    let request = request.header("access-control-request-headers", "authorization,x-stainless-lang,x-use-cache");
    let response = setup.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(response.headers()["access-control-allow-headers"], "authorization,x-stainless-lang,x-use-cache");
}
