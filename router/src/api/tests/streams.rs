//! TGI's routes, streamed answers: framing, and every way to end.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::fake::Script;
use super::fixture::{Setup, post, read, text};
use crate::engine::GenerationError;

#[tokio::test]
async fn events_are_framed_as_tgi_frames_them() {
    let setup = Setup::playing([Script::ended("ab")]);
    let response = setup.send(post("/generate_stream", &json!({"inputs": "q", "parameters": {}}))).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    assert_eq!(response.headers()["x-compute-characters"], "1");
    let expected = concat!(
        r#"data: {"index":1,"token":{"id":97,"text":"a","logprob":-0.5,"special":false},"generated_text":null,"details":null}"#,
        "\n\n",
        r#"data: {"index":2,"token":{"id":98,"text":"b","logprob":-0.5,"special":false},"generated_text":null,"details":null}"#,
        "\n\n",
        r#"data: {"index":3,"token":{"id":256,"text":"</s>","logprob":-0.5,"special":true},"generated_text":"ab","details":null}"#,
        "\n\n",
    );
    assert_eq!(text(response).await, expected);
    assert_eq!(setup.fake.live(), 0);
}

async fn last_event(script: Script, parameters: Value) -> Value {
    let setup = Setup::playing([script]);
    let events = setup.events("/", json!({"inputs": "qq", "parameters": parameters, "stream": true})).await;
    serde_json::from_str(events.last().unwrap()).unwrap()
}

#[tokio::test]
async fn the_last_event_has_text_and_details() {
    let event = last_event(Script::cut("abc"), json!({"details": true, "do_sample": true, "seed": 4})).await;
    assert_eq!(event["generated_text"], "abc");
    let details = json!({"finish_reason": "length", "generated_tokens": 3, "seed": 4, "input_length": 2});
    assert_eq!(event["details"], details);
}

#[tokio::test]
async fn a_stop_string_is_the_last_token() {
    let event = last_event(Script::text("abcd").then_hangs(), json!({"stop": ["bc"], "details": true})).await;
    assert_eq!((&event["index"], &event["generated_text"]), (&json!(3), &json!("abc")));
    assert_eq!(event["details"]["finish_reason"], "stop_sequence");
}

#[tokio::test]
async fn top_tokens_are_there_only_when_asked_for() {
    let event = last_event(Script::cut("a").with_top(&[(97, -0.5)]), json!({"top_n_tokens": 1})).await;
    assert_eq!(event["top_tokens"], json!([{"id": 97, "text": "a", "logprob": -0.5, "special": false}]));
    assert!(last_event(Script::cut("a"), json!({})).await.get("top_tokens").is_none());
}

#[tokio::test]
async fn what_fails_before_the_first_token_is_a_status() {
    let setup = Setup::playing([Script::default().then_fails(GenerationError::Failed("bad image".to_owned()))]);
    let (status, body) = read(setup.send(post("/generate_stream", &json!({"inputs": "q"}))).await).await;
    assert_eq!(status, 424);
    assert_eq!(body, json!({"error": "Request failed during generation: bad image", "error_type": "generation"}));
    let (status, body) = setup.post("/generate_stream", json!({"inputs": "q", "parameters": {"top_p": 2}})).await;
    assert_eq!((status.as_u16(), body["error_type"].as_str()), (422, Some("validation")));
}

#[tokio::test]
async fn what_fails_later_is_an_event() {
    let setup = Setup::playing([Script::text("a").then_fails(GenerationError::Failed("nan".to_owned()))]);
    let events = setup.events("/generate_stream", json!({"inputs": "q"})).await;
    assert_eq!(events.len(), 2);
    let error: Value = serde_json::from_str(&events[1]).unwrap();
    assert_eq!(error, json!({"error": "Request failed during generation: nan", "error_type": "generation"}));
}

/// Data of the frames, and whether the body ended cleanly.
async fn frames(script: Script, path: &str, body: Value) -> (Vec<String>, bool) {
    let setup = Setup::playing([script]);
    let mut body = setup.send(post(path, &body)).await.into_body();
    let mut seen = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return (seen, false) };
        seen.push(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap());
    }
    (seen, true)
}

#[tokio::test]
async fn a_lost_shard_leaves_no_clean_end() {
    let script = || Script::text("a").then_fails(GenerationError::ShardLost);
    let (seen, clean) = frames(script(), "/generate_stream", json!({"inputs": "q"})).await;
    assert!(seen[1].contains("\"error_type\":\"generation\""), "{seen:?}");
    assert!(!clean);
    let chat = json!({"messages": [{"role": "user", "content": "q"}], "stream": true});
    let (seen, clean) = frames(script(), "/v1/chat/completions", chat).await;
    assert!(seen[1].starts_with("data: {\"error\":{\"message\":"), "{seen:?}");
    assert_eq!(seen[2], "data: [DONE]\n\n");
    assert!(!clean);
}

#[tokio::test]
async fn a_stream_that_just_ends_says_so() {
    let (seen, clean) = frames(Script::text("a"), "/generate_stream", json!({"inputs": "q"})).await;
    let expected =
        "data: {\"error\":\"Incomplete generation stream\",\"error_type\":\"incomplete_generation_stream\"}\n\n";
    assert_eq!(seen[1], expected);
    assert!(!clean);
}

#[tokio::test(start_paused = true)]
async fn silence_is_filled_with_comments() {
    let setup = Setup::playing([Script::text("a").then_hangs()]);
    let mut body = setup.send(post("/generate_stream", &json!({"inputs": "q"}))).await.into_body();
    body.frame().await.unwrap().unwrap();
    let before = tokio::time::Instant::now();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(&frame.into_data().unwrap()[..], b":\n\n");
    assert!(before.elapsed() >= Duration::from_secs(15));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_sequence_along() {
    let setup = Setup::playing([Script::text("a").then_hangs()]);
    let mut body = setup.send(post("/generate_stream", &json!({"inputs": "q"}))).await.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(setup.fake.live(), 1);
    drop(body);
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_too() {
    for path in ["/generate", "/generate_stream"] {
        let setup = Setup::playing([Script::default().then_hangs()]);
        let answer = setup.send(post(path, &json!({"inputs": "q"})));
        assert!(tokio::time::timeout(Duration::from_millis(50), answer).await.is_err());
        assert_eq!((setup.fake.num_requests(), setup.fake.live()), (1, 0));
    }
}
