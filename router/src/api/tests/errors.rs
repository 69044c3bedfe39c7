//! Every refusal: status, shape and words, and what it leaves undone.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::fake::{Fake, Script};
use super::fixture::{Setup, picture, post, read};
use crate::api::{ApiKey, RequestLimits};
use crate::engine::GenerationError;

fn generate(parameters: Value) -> Value {
    json!({"inputs": "q", "parameters": parameters})
}

#[tokio::test]
async fn values_out_of_range_name_their_field() {
    let rows = [
        (generate(json!({"temperature": 0})), "`temperature`"),
        (generate(json!({"temperature": 1e39})), "`temperature`"),
        (generate(json!({"repetition_penalty": 0})), "`repetition_penalty`"),
        (generate(json!({"frequency_penalty": 2.5})), "`frequency_penalty`"),
        (generate(json!({"top_k": -1})), "`top_k`"),
        (generate(json!({"top_p": 1.5})), "`top_p`"),
        (generate(json!({"typical_p": 0})), "`typical_p`"),
        (generate(json!({"max_new_tokens": 0})), "`max_new_tokens`"),
        (generate(json!({"max_new_tokens": -3})), "parameters.max_new_tokens: "),
        (generate(json!({"stop": ["a", "b", "c", "d", "e"]})), "`stop`"),
        (generate(json!({"stop": "a"})), "parameters.stop: "),
        (generate(json!({"truncate": 0})), "`truncate`"),
        (generate(json!({"truncate": 2001})), "`truncate`"),
        (generate(json!({"top_n_tokens": 6})), "`top_n_tokens`"),
        (generate(json!({"best_of": 0})), "`best_of`"),
        (generate(json!({"best_of": 3, "do_sample": true})), "`best_of`"),
        (generate(json!({"best_of": 2})), "`best_of`"),
        (generate(json!({"best_of": 2, "do_sample": true, "seed": 1})), "`seed`"),
        (generate(json!({"watermark": "yes"})), "parameters.watermark: "),
        (generate(json!({"grammar": {"type": "json"}})), "`grammar.value`"),
        (generate(json!({"grammar": {"value": {}}})), "`grammar.type`"),
        (generate(json!({"details": "yes"})), "parameters.details: "),
        (generate(json!([])), "parameters: "),
        (json!({"inputs": ""}), "`inputs`"),
        (json!({"inputs": ["a"]}), "inputs: "),
        (json!({"parameters": {}}), "missing field `inputs`"),
        (json!([]), ""),
    ];
    let setup = Setup::playing([]);
    for (request, text) in rows {
        let (status, body) = setup.post("/generate", request.clone()).await;
        assert_eq!((status.as_u16(), &body["error_type"]), (422, &json!("validation")), "{request} {body}");
        let error = body["error"].as_str().unwrap();
        assert!(error.starts_with("Input validation error: ") && error.contains(text), "{request} {body}");
    }
    assert_eq!(setup.fake.num_requests(), 0);
    assert_eq!(setup.fake.taken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn streams_refuse_what_they_cannot_do() {
    let setup = Setup::playing([]);
    for parameters in [json!({"best_of": 2, "do_sample": true}), json!({"decoder_input_details": true})] {
        assert_eq!(setup.post("/generate_stream", generate(parameters)).await.0, 422);
    }
}

#[tokio::test]
async fn images_that_cannot_be_used() {
    let setup = Setup::playing([]);
    let text_only = Setup { takes_images: false, ..Setup::playing([]) };
    let many = format!("![]({})", picture()).repeat(17);
    let rows = [
        (&text_only, format!("![]({})", picture()), "this model takes no images"),
        (&setup, "![](ftp://example.com/a.png)".to_owned(), "must start with"),
        (&setup, "![](data:image/png;base64,AAAA)".to_owned(), "image"),
        (&setup, "![](http://127.0.0.1:1/a.png)".to_owned(), "could not be fetched"),
        (&setup, many, "at most 16"),
    ];
    for (setup, inputs, text) in rows {
        let (status, body) = setup.post("/generate", json!({"inputs": inputs})).await;
        assert_eq!((status.as_u16(), &body["error_type"]), (422, &json!("validation")), "{body}");
        assert!(body["error"].as_str().unwrap().contains(text), "{body}");
        assert_eq!(setup.fake.taken.load(Ordering::SeqCst), 0, "the permit came back");
    }
}

#[tokio::test]
async fn bodies_that_are_no_json() {
    let setup = Setup { limits: RequestLimits { payload_limit: 100, ..Default::default() }, ..Setup::playing([]) };
    let send = |media_type: &str, body: String| {
        setup.send(Request::post("/generate").header("content-type", media_type).body(Body::from(body)).unwrap())
    };
    let rows = [
        ("application/json", "{\"inputs\":".to_owned(), 400, "bad_request"),
        ("application/json", "\u{feff}{}".to_owned(), 400, "bad_request"),
        ("text/plain", "{}".to_owned(), 415, "unsupported_media_type"),
        ("application/json", format!("{{\"inputs\": \"{}\"}}", "a".repeat(100)), 413, "payload_too_large"),
    ];
    for (media_type, body, status, error_type) in rows {
        let (answered, answer) = read(send(media_type, body).await).await;
        assert_eq!((answered.as_u16(), &answer["error_type"]), (status, &json!(error_type)), "{answer}");
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_json() {
    let setup = Setup::playing([]);
    let (status, body) = read(setup.get("/nowhere").await).await;
    assert_eq!((status.as_u16(), &body["error_type"]), (404, &json!("not_found")));
    let response = setup.get("/generate").await;
    assert_eq!(response.headers()["allow"], "POST");
    let (status, body) = read(response).await;
    assert_eq!((status.as_u16(), &body["error_type"]), (405, &json!("method_not_allowed")));
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let setup = Setup::playing([]);
    let (status, _) = read(setup.get(&format!("/health?{}", "a".repeat(9000))).await).await;
    assert_eq!(status, 414);
    let mut request = Request::get("/health");
    for index in 0..101 {
        request = request.header(format!("x-{index}"), "a");
    }
    let (status, body) = read(setup.send(request.body(Body::empty()).unwrap()).await).await;
    assert_eq!((status.as_u16(), &body["error_type"]), (431, &json!("headers_too_large")));
}

#[tokio::test]
async fn overload_is_told_at_once() {
    let scripts = [Script::text("a").then_hangs()].into();
    let fake = Fake { max_concurrent: 1, scripts: Mutex::new(scripts), ..Fake::default() };
    let setup = Setup { fake: Arc::new(fake), ..Setup::playing([]) };
    let first = setup.send(post("/generate_stream", &json!({"inputs": "q"}))).await;
    let second = setup.send(post("/generate", &json!({"inputs": "q"}))).await;
    assert_eq!(second.headers()["retry-after"], "1");
    let (status, body) = read(second).await;
    assert_eq!((status.as_u16(), body), (429, json!({"error": "Model is overloaded", "error_type": "overloaded"})));
    drop(first);
    assert_eq!(setup.fake.taken.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn draining_refuses_and_is_not_ready() {
    let setup = Setup::playing([]);
    setup.fake.draining.store(true, Ordering::SeqCst);
    assert_eq!(setup.post("/generate", json!({"inputs": "q"})).await.0, 503);
    assert_eq!(setup.get("/ready").await.status(), 503);
    assert_eq!(setup.get("/health").await.status(), 200);
}

#[tokio::test]
async fn prompts_that_are_too_long_say_both_numbers() {
    let setup = Setup::playing([]);
    let (status, body) = setup.post("/generate", json!({"inputs": "a".repeat(2001)})).await;
    assert_eq!(status, 422);
    let text = body["error"].as_str().unwrap();
    assert!(text.contains("2000") && text.contains("2001"), "{text}");
}

#[tokio::test]
async fn adapters_that_are_not_loaded_are_not_found() {
    let setup = Setup::playing([]);
    assert_eq!(setup.post("/generate", generate(json!({"adapter_id": "x"}))).await.0, 404);
}

/// Status and body of a failed chat for a client that sends this header.
async fn failed_chat(header: Option<(&str, &str)>, script: Option<Script>, fields: Value) -> (u16, Value) {
    let setup = Setup::playing(script);
    let mut body = json!({"messages": [{"role": "user", "content": "q"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut request = post("/v1/chat/completions", &body);
    if let Some((name, value)) = header {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (status, body) = read(setup.send(request).await).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn libraries_get_the_form_they_can_show() {
    let bad = json!({"top_p": 7});
    let (status, body) = failed_chat(None, None, bad.clone()).await;
    assert_eq!(status, 422);
    assert_eq!(body["error_type"], "validation");
    for header in [
        ("x-stainless-lang", "python"),
        ("user-agent", "ai-sdk/openai-compatible/1.0"),
        ("user-agent", "ai/7.0.173 ai-sdk-provider-utils/5.0.81"),
    ] {
        let (status, body) = failed_chat(Some(header), None, bad.clone()).await;
        let expected = json!({"error": {
            "message": "Input validation error: `top_p` must be > 0.0 and <= 1.0", "type": "invalid_request_error",
            "param": "top_p", "code": "validation", "http_status_code": 422}});
        assert_eq!((status, body), (422, expected));
    }
}

#[tokio::test]
async fn server_faults_are_500_on_openai_routes() {
    let script = || Some(Script::default().then_fails(GenerationError::ShardLost));
    for stream in [true, false] {
        let (status, body) = failed_chat(None, script(), json!({"stream": stream})).await;
        assert_eq!((status, &body["error_type"]), (500, &json!("generation")));
    }
}

#[tokio::test]
async fn a_key_closes_every_route_but_the_probes() {
    let mut setup = Setup::playing([Script::ended("x")]);
    setup.options.api_keys = vec![ApiKey::new("Secret")];
    for path in ["/", "/health", "/live", "/ready", "/ping", "/metrics"] {
        assert_eq!(setup.get(path).await.status(), 200, "{path}");
    }
    for path in ["/info", "/v1/models", "/nowhere"] {
        assert_eq!(setup.get(path).await.status(), 401, "{path}");
    }
    for path in ["/", "/v1", "/generate", "/generate_stream", "/tokenize", "/chat_tokenize", "/v1/chat/completions"] {
        let (status, body) = setup.post(path, json!({"inputs": "q"})).await;
        assert_eq!((status.as_u16(), &body["error_type"]), (401, &json!("unauthorized")), "{path}");
    }
    let mut request = post("/generate", &json!({"inputs": "q"}));
    request.headers_mut().insert("authorization", "Bearer Secret".parse().unwrap());
    assert_eq!(setup.send(request).await.status(), 200);
}

#[tokio::test]
async fn a_panic_costs_one_request_and_tells_nothing() {
    // Without a script the fake panics when a sequence is submitted.
    let setup = Setup::playing([]);
    let (status, body) = setup.post("/generate", json!({"inputs": "q"})).await;
    assert_eq!((status.as_u16(), body), (500, json!({"error": "internal error", "error_type": "internal"})));
    assert_eq!((setup.fake.live(), setup.fake.taken.load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn foreign_host_names_are_refused_when_there_is_a_list() {
    let mut setup = Setup::playing([]);
    setup.options.allowed_hosts = vec!["localhost".to_owned()];
    let ask = |host: &str| Request::get("/health").header("host", host).body(Body::empty()).unwrap();
    assert_eq!(setup.send(ask("localhost:3000")).await.status(), 200);
    assert_eq!(setup.send(ask("evil.example")).await.status(), 421);
}
