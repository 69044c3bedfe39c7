//! `/v1/chat/completions`.

use serde_json::{Value, json};

use super::fake::Script;
use super::fixture::{IMAGE, Setup, picture};
use crate::sampling::{LogprobSource, PenaltyScope};

const PATH: &str = "/v1/chat/completions";

/// A request with one user message and these other fields.
fn ask(fields: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "q"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// The prompt text that these messages become, images as `#`.
async fn rendered(body: Value) -> String {
    let setup = Setup::playing([Script::ended("x")]);
    let (status, answer) = setup.post(PATH, body).await;
    assert_eq!(status, 200, "{answer}");
    let ids = setup.fake.request(0).prompt.token_ids;
    ids.iter().map(|&id| if id == IMAGE { '#' } else { char::from(id as u8) }).collect()
}

#[tokio::test]
async fn a_complete_answer_has_every_key() {
    let setup = Setup::playing([Script::ended("hi")]);
    let (status, mut body) = setup.post(PATH, ask(json!({"model": "tgi"}))).await;
    assert_eq!(status, 200);
    let id = body["id"].take();
    assert!(id.as_str().unwrap().starts_with("chatcmpl-"));
    assert!(body["created"].take().as_u64().unwrap() > 1_700_000_000);
    let expected = json!({
        "id": null, "object": "chat.completion", "created": null, "model": "tgi",
        "system_fingerprint": concat!(env!("CARGO_PKG_VERSION"), "-native"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "logprobs": null,
                     "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 18, "completion_tokens": 3, "total_tokens": 21,
                  "prompt_tokens_details": {"cached_tokens": 3, "image_tokens": 0}},
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn parts_reach_the_template_in_order() {
    let part = |url: Value| json!({"type": "image_url", "image_url": url});
    let content = json!([{"type": "text", "text": "a"}, part(json!({"url": picture(), "detail": "low"})),
                         {"type": "text", "text": "b"}, part(json!(picture()))]);
    let body = json!({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": content}]});
    assert_eq!(rendered(body).await, "[system]s[user]a####b####[assistant]");
}

#[tokio::test]
async fn text_never_becomes_an_image() {
    let setup = Setup::playing([Script::ended("x")]);
    let content = "![](http://127.0.0.1:1/x.png) <image>";
    let (status, _) = setup.post(PATH, json!({"messages": [{"role": "user", "content": content}]})).await;
    assert_eq!(status, 200);
    let prompt = setup.fake.request(0).prompt;
    assert!(prompt.images.is_empty());
    assert!(!prompt.token_ids.contains(&IMAGE));
}

#[tokio::test]
async fn a_last_assistant_message_is_continued() {
    let messages = json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is"}]);
    assert_eq!(rendered(json!({"messages": messages})).await, "[user]q[assistant]It is");
}

#[tokio::test]
async fn what_is_not_served_is_refused() {
    let rows = [
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias"),
        (json!({"n": 3}), "n"),
        (json!({"n": 0}), "n"),
        (json!({"top_logprobs": 6, "logprobs": true}), "top_logprobs"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"presence_penalty": 3}), "presence_penalty"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
        (json!({"stop": ""}), "stop"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "function", "content": "a"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}), "messages[0].content[0].type"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0].image_url",
        ),
        (
            json!({"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": picture(), "detail": "finest"}}]}]}),
            "messages[0].content[0].image_url.detail",
        ),
        (json!({"messages": [{"role": "user", "content": 3}]}), "messages[0].content"),
        (json!({"messages": [{"content": "a"}]}), "messages[0]"),
    ];
    let setup = Setup::playing([]);
    for (fields, name) in rows {
        let (status, body) = setup.post(PATH, ask(fields.clone())).await;
        assert_eq!(status, 422, "{fields} {body}");
        assert_eq!(body["error_type"], "validation", "{fields}");
        assert!(body["error"].as_str().unwrap().contains(name), "{fields} {body}");
    }
    assert_eq!(setup.fake.num_requests(), 0);
}

#[tokio::test]
async fn openai_defaults_and_nulls_are_accepted() {
    let setup = Setup::playing([Script::ended("x"), Script::ended("x")]);
    let defaults = json!({
        "top_p": 1, "n": 1, "stop": "\n", "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0,
        "max_completion_tokens": 5, "max_tokens": 9, "parallel_tool_calls": true, "user": "u", "store": false,
        "response_format": {"type": "text"}, "tools": [], "tool_choice": "auto", "stream_options": null,
    });
    let nulls = json!({
        "model": null, "max_tokens": null, "temperature": null, "top_p": null, "frequency_penalty": null,
        "presence_penalty": null, "stop": null, "seed": null, "n": null, "stream": null, "stream_options": null,
        "logprobs": null, "top_logprobs": null, "logit_bias": null, "tools": null, "tool_choice": null,
        "response_format": null,
    });
    for fields in [defaults, nulls] {
        let (status, body) = setup.post(PATH, ask(fields)).await;
        assert_eq!(status, 200, "{body}");
    }
    assert_eq!(setup.fake.request(0).max_new_tokens, Some(5));
    assert_eq!(setup.post("/v1/models", json!({})).await.0, 405);
}

#[tokio::test]
async fn sampling_is_as_openai_means_it() {
    let setup = Setup::playing([Script::ended("x"), Script::ended("x")]);
    setup.post(PATH, ask(json!({"temperature": 0, "frequency_penalty": 0.5, "presence_penalty": -0.5}))).await;
    setup.post(PATH, ask(json!({"seed": -1, "logprobs": true}))).await;
    let (greedy, drawn) = (setup.fake.request(0).sampling, setup.fake.request(1).sampling);
    assert!(greedy.greedy && !drawn.greedy);
    assert_eq!((greedy.frequency_penalty, greedy.presence_penalty, greedy.repetition_penalty), (0.5, -0.5, 1.0));
    assert_eq!(greedy.penalty_scope, PenaltyScope::Output);
    assert_eq!((drawn.seed, drawn.logprobs), (u64::MAX, LogprobSource::Raw));
}

#[tokio::test]
async fn stop_strings_are_cut_across_tokens() {
    let setup = Setup::playing([Script::text("42 <end> more").then_hangs()]);
    let (_, body) = setup.post(PATH, ask(json!({"stop": "<end>"}))).await;
    assert_eq!(body["choices"][0]["message"]["content"], "42 ");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(setup.fake.live(), 0);
}

#[tokio::test]
async fn several_answers_are_several_choices() {
    let setup = Setup::playing([Script::ended("one"), Script::cut("two!")]);
    let (_, body) = setup.post(PATH, ask(json!({"n": 2, "seed": 7}))).await;
    let choices = body["choices"].as_array().unwrap();
    assert_eq!((&choices[0]["index"], &choices[0]["message"]["content"]), (&json!(0), &json!("one")));
    assert_eq!((&choices[1]["index"], &choices[1]["finish_reason"]), (&json!(1), &json!("length")));
    assert_eq!(body["usage"]["completion_tokens"], 8);
    assert_ne!(setup.fake.request(0).sampling.seed, setup.fake.request(1).sampling.seed);
}

#[tokio::test]
async fn logprobs_name_tokens_and_bytes() {
    let setup = Setup::playing([Script::cut("a").with_top(&[(97, -0.5), (98, -1.5)])]);
    let (_, body) = setup.post(PATH, ask(json!({"logprobs": true, "top_logprobs": 2}))).await;
    let entry = json!({"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [
        {"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "b", "logprob": -1.5, "bytes": [98]}]});
    assert_eq!(body["choices"][0]["logprobs"], json!({"content": [entry]}));
}

#[tokio::test]
async fn logprobs_end_where_the_text_ends() {
    let setup = Setup::playing([Script::text("a<end>")]);
    let (_, body) = setup.post(PATH, ask(json!({"logprobs": true, "stop": "<end>"}))).await;
    let content = body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 1);
    assert_eq!(content[0]["token"], "a");
}

/// The chunks of a stream; `[DONE]` is checked and taken off.
async fn chunks(scripts: impl IntoIterator<Item = Script>, fields: Value) -> Vec<Value> {
    let setup = Setup::playing(scripts);
    let mut events = setup.events(PATH, ask(fields)).await;
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    assert_eq!(setup.fake.live(), 0);
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[tokio::test]
async fn chunks_have_the_role_once_and_a_reason_at_the_end() {
    let chunks = chunks([Script::ended("hi")], json!({"stream": true})).await;
    let choices: Vec<_> = chunks.iter().map(|chunk| &chunk["choices"][0]).collect();
    assert_eq!(choices[0]["delta"], json!({"role": "assistant", "content": "h"}));
    assert_eq!(choices[1]["delta"], json!({"content": "i"}));
    assert_eq!(choices[2]["delta"], json!({"content": ""}));
    let reasons: Vec<_> = choices.iter().map(|choice| &choice["finish_reason"]).collect();
    assert_eq!(reasons, [&Value::Null, &Value::Null, &json!("stop")]);
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert_eq!((&chunk["usage"], &chunk["choices"][0]["logprobs"]), (&Value::Null, &Value::Null));
    }
}

#[tokio::test]
async fn nothing_of_a_stop_string_is_streamed() {
    let chunks = chunks([Script::text("ab<en<end>").then_hangs()], json!({"stream": true, "stop": ["<end>"]})).await;
    let text: String = chunks.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
    assert_eq!(text, "ab<en");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn usage_comes_in_a_chunk_of_its_own_when_asked_for() {
    let chunks =
        chunks([Script::ended("hi")], json!({"stream": true, "stream_options": {"include_usage": true}})).await;
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["total_tokens"], 21);
    assert_eq!(chunks[0]["usage"], Value::Null);
}

#[tokio::test]
async fn streamed_answers_keep_apart_by_index() {
    let chunks = chunks([Script::ended("aaa"), Script::ended("b")], json!({"stream": true, "n": 2})).await;
    let text = |index: u64| -> String {
        let own = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
        own.map(|choice| choice["delta"]["content"].as_str().unwrap()).collect()
    };
    assert_eq!((text(0).as_str(), text(1).as_str()), ("aaa", "b"));
    let ends = chunks.iter().filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null()).count();
    assert_eq!(ends, 2);
}

#[tokio::test]
async fn chat_tokenize_shows_the_prompt() {
    let setup = Setup::playing([Script::ended("x")]);
    let content = json!([{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {"url": picture()}}]);
    let body = json!({"messages": [{"role": "user", "content": content}]});
    let (status, shown) = setup.post("/chat_tokenize", body.clone()).await;
    assert_eq!((status.as_u16(), setup.fake.num_requests()), (200, 0));
    assert_eq!(setup.post(PATH, body).await.0, 200);
    let tokens = shown["tokenize_response"].as_array().unwrap();
    let ids: Vec<Value> = tokens.iter().map(|token| token["id"].clone()).collect();
    assert_eq!(json!(ids), json!(setup.fake.request(0).prompt.token_ids));
    assert_eq!(json!(shown["templated_text"]), json!(setup.fake.request(0).prompt.text));
    assert!(tokens.iter().any(|token| token["type"] == "image"));
}
